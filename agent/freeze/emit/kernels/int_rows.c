/* total[r] = sum of weight[r][i] * x[i]; `rows` comes in fours. */
static POLICY_ALONE void policy_rows_@tag@(const @weight@ *weight, int stride, const int16_t *x, int rows,
                                           @total@ *total)
{
#if defined(POLICY_DSP)
@dsp@
#else
    for (; rows > 0; rows -= 4, weight += 4 * stride, total += 4) {
        const @weight@ *second = weight + stride, *third = second + stride, *fourth = third + stride;
        @total@ a = 0, b = 0, c = 0, d = 0;
#if defined(POLICY_MVE)
        int i;
        for (i = 0; i < stride; i += 8) {
            int16x8_t v = vldrhq_s16(x + i);
            a = @accumulate@(a, v, @load@(weight + i));
            b = @accumulate@(b, v, @load@(second + i));
            c = @accumulate@(c, v, @load@(third + i));
            d = @accumulate@(d, v, @load@(fourth + i));
        }
#else
@plain@
#endif
        total[0] = a;
        total[1] = b;
        total[2] = c;
        total[3] = d;
    }
#endif
}

