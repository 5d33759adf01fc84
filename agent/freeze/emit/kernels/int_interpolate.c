/* Between two of 257 entries, by the low 8 bits of q. */
static int32_t policy_interpolate(const int16_t *table, int32_t q)
{
    int32_t place = q + 32768, below = table[place >> 8], above = table[(place >> 8) + 1];
    return below + (((above - below) * (place & 255) + 128) >> 8);
}

