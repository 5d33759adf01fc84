#if !defined(POLICY_DSP) && !defined(POLICY_MVE)
/* The sum of w[i] * x[i]; 256 products with either byte of a weight fit 32 bits. */
static int64_t policy_far_16(const int16_t *w, const int16_t *x, int count)
{
    int64_t total = 0;
    int start, i;
    for (start = 0; start < count; start += 256) {
        int end = count - start < 256 ? count : start + 256;
        int32_t upper = 0, lower = 0;
        for (i = start; i < end; i++) {
            int16_t high = (int16_t)(w[i] >> 8), low = (int16_t)(w[i] & 255);
            upper += (int32_t)x[i] * high;
            lower += (int32_t)x[i] * low;
        }
        total += upper * (int64_t)256 + lower;
    }
    return total;
}
#endif

