#ifdef POLICY_AVX2
/* Rows of `runs` runs, as pairs for 16 outputs at a time; the last of an odd run pairs with a weight of 0. */
static void policy_pack_@bits@(const int@bits@_t *rows, int outputs, int stride, int runs, int run, int16_t *packed)
{
    int pairs = (run + 1) / 2, o, r, i;
    for (o = 0; o < outputs; o++)
        for (r = 0; r < runs; r++)
            for (i = 0; i < run; i++) {
                int pair = (o / 16 * runs + r) * pairs + i / 2;
                packed[pair * 32 + o % 16 * 2 + i % 2] = rows[o * stride + r * run + i];
            }
}
#endif

