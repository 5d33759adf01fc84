#if !defined(POLICY_AVX2) || @sum@ == 64
/* total[16 * c + r] = sum of weight[r][i] * x[c][i], for two rows and four columns. */
static POLICY_ALONE void policy_columns_@tag@(const @weight@ *weight, int stride, const int16_t *x, @total@ *total)
{
#if defined(POLICY_DSP)
    int row, column;
    for (row = 0; row < 2; row++, weight += stride)
        for (column = 0; column < 4; column += 2) {
@dsp@
        }
#else
    const int16_t *second = x + stride, *third = second + stride, *fourth = third + stride;
#if defined(POLICY_MVE)
    @total@ a = 0, b = 0, c = 0, d = 0;
    int row, i;
    for (row = 0; row < 2; row++, weight += stride, total++, a = b = c = d = 0) {
        for (i = 0; i < stride; i += 8) {
            int16x8_t w = @load@(weight + i);
            a = @accumulate@(a, w, vldrhq_s16(x + i));
            b = @accumulate@(b, w, vldrhq_s16(second + i));
            c = @accumulate@(c, w, vldrhq_s16(third + i));
            d = @accumulate@(d, w, vldrhq_s16(fourth + i));
        }
        total[0] = a;
        total[16] = b;
        total[32] = c;
        total[48] = d;
    }
#else
@plain@
#endif
#endif
}
#endif

