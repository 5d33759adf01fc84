/* r of 1 / sqrt(power) = r * 2^(n - 61), 1 <= power < 2^62. */
static uint32_t policy_reciprocal_root(uint64_t power, int *n)
{
    uint32_t root = 0, bit;
    for (*n = 0; power < (uint64_t)1 << 60; *n += 1)
        power <<= 2;
    for (bit = (uint32_t)1 << 30; bit; bit >>= 1)
        if ((uint64_t)(root | bit) * (root | bit) <= power)
            root |= bit;
    return (uint32_t)(((uint64_t)1 << 61) / root);
}

