#if !defined(POLICY_DSP) && !defined(POLICY_MVE)
/* The sum of w[i] * x[i]; 512 products fit 32 bits. */
static int64_t policy_far_8(const int8_t *w, const int16_t *x, int count)
{
    int64_t total = 0;
    int start, i;
    for (start = 0; start < count; start += 512) {
        int end = count - start < 512 ? count : start + 512;
        int32_t sum = 0;
        for (i = start; i < end; i++)
            sum += (int32_t)x[i] * w[i];
        total += sum;
    }
    return total;
}
#endif

