#ifdef POLICY_AVX2
/* Eight sums of 32 bits, and memory of 32, 16, 8 and 4 bytes. By name and not from <immintrin.h>, which takes compilers
   longer than most policies. */
typedef int32_t policy_sums __attribute__((vector_size(32)));
typedef int32_t policy_32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef int32_t policy_16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef int64_t policy_8 __attribute__((aligned(1), may_alias));
typedef int32_t policy_4 __attribute__((aligned(1), may_alias));
/* sum + v * w, pairs of 16-bit numbers: VPMADDWD is exact, for no weight is -32768. One statement, or compilers take
   all products first and run out of registers. */
#define POLICY_PAIRS(sum, v, w) \
    __asm__("vpmaddwd %2, %3, %1\n vpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(v), "x"(w));
/* The same with weights in memory, sixteen numbers and eight, of 8 bits and 16. */
#define POLICY_TAKE(take, size, sum, v, w) \
    __asm__(take "vpmaddwd %1, %3, %1\n vpaddd %1, %0, %0" \
            : "+x"(sum), "=&x"(product) : "m"(*(const size *)(w)), "x"(v));
#define POLICY_SIXTEEN_8(sum, v, w) POLICY_TAKE("vpmovsxbw %2, %1\n", policy_16, sum, v, w)
#define POLICY_SIXTEEN_16(sum, v, w) POLICY_TAKE("vmovdqu %2, %1\n", policy_32, sum, v, w)
#define POLICY_EIGHT_8(sum, v, w) POLICY_TAKE("vpmovsxbw %2, %x1\n", policy_8, sum, v, w)
#define POLICY_EIGHT_16(sum, v, w) POLICY_TAKE("vmovdqu %2, %x1\n", policy_16, sum, v, w)
#endif

