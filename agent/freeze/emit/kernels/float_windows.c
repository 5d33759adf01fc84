#if POLICY_LANES >= 8
/* What six windows see: x[c][at[i]]. */
typedef struct {
    const float *x[6];
    const int32_t *at;
} policy_windows;
/* Sums by name for every column: compilers leave arrays of them in memory. */
#define POLICY_SUMS(c) vector left##c = {0}, right##c = {0};
#define POLICY_STEP(c) \
    left##c += x[c][at[i]] * v; \
    if (PARTS > 1) \
        right##c += x[c][at[i]] * w;
#define POLICY_STORE(c) \
    ((vector *)(total + c * outputs))[0] = left##c; \
    if (PARTS > 1) \
        ((vector *)(total + c * outputs))[1] = right##c;
#define POLICY_COLUMNS(f) f(0) f(1) f(2) f(3) f(4) f(5)
#endif

