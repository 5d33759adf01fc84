/* `count` numbers as 16-bit ones, zeros up to `padded`. */
static void policy_row_16_@in@(const @in@ *x, int count, int padded, int16_t *row)
{
    int i;
    for (i = 0; i < count; i++)
        row[i] = x[i];
    for (; i < padded; i++)
        row[i] = 0;
}

