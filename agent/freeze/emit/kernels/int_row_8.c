/* `count` numbers as 16-bit ones, zeros up to `padded`; as 0 2 1 3 where SXTB16 takes the weights apart so. */
static void policy_row_8_@in@(const @in@ *x, int count, int padded, int16_t *row)
{
    int i;
#ifdef POLICY_DSP
    for (i = 0; i + 4 <= count; i += 4, x += 4) {
        row[i] = x[0];
        row[i + 1] = x[2];
        row[i + 2] = x[1];
        row[i + 3] = x[3];
    }
    for (count -= i; i < padded; i += 4, count -= 4, x += 4) {
        row[i] = (int16_t)(count > 0 ? x[0] : 0);
        row[i + 1] = (int16_t)(count > 2 ? x[2] : 0);
        row[i + 2] = (int16_t)(count > 1 ? x[1] : 0);
        row[i + 3] = 0;
    }
#else
    for (i = 0; i < count; i++)
        row[i] = x[i];
    for (; i < padded; i++)
        row[i] = 0;
#endif
}

