#ifdef POLICY_AVX2
/* Sums by name for every column: compilers leave arrays of them in memory. */
#define POLICY_SUMS(c) policy_sums left##c = {0}, right##c = {0};
#define POLICY_STEP(c) \
    __asm__("vpbroadcastd %1, %0" : "=x"(seen) : "m"(*(const policy_4 *)(x[c] + at[k]))); \
    POLICY_PAIRS(left##c, seen, v) \
    POLICY_PAIRS(right##c, seen, w)
#define POLICY_STORE(c) \
    *(policy_32 *)(total + 16 * c) = left##c; \
    *(policy_32 *)(total + 16 * c + 8) = right##c;
#define POLICY_COLUMNS_4(f) f(0) f(1) f(2) f(3)
#define POLICY_COLUMNS_5(f) POLICY_COLUMNS_4(f) f(4)
#define POLICY_COLUMNS_6(f) POLICY_COLUMNS_5(f) f(5)
#endif

