#ifdef __GNUC__
#define POLICY_ALIGNED __attribute__((aligned(8)))
#else
#define POLICY_ALIGNED
#endif
#if defined(__GNUC__) && defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)
#include <arm_mve.h>
#define POLICY_MVE
#elif defined(__OPTIMIZE__) && defined(__ARM_FEATURE_DSP) && __ARM_ARCH_PROFILE == 'M' && !defined(__ARM_BIG_ENDIAN)
#define POLICY_DSP
#elif defined(__GNUC__) && defined(__AVX2__) && defined(__x86_64__)
#define POLICY_AVX2
#endif
#ifdef POLICY_DSP
#define POLICY_ALONE __attribute__((noinline)) /* its registers are counted */
/* Four numbers as two pairs in r6 and r8: bytes as 0 2 and 1 3, halves as 0 1 and 2 3. */
#define POLICY_TAKE_8(at) "ldr r8, [%[" at "]], #4\n sxtb16 r6, r8\n sxtb16 r8, r8, ror #8\n"
#define POLICY_TAKE_16(at) "ldrd r6, r8, [%[" at "]], #8\n"
/* sum + the products with the pairs in r4 and r5. */
#define POLICY_ADD_32(sum) "smlad %[" sum "], r4, r6, %[" sum "]\n smlad %[" sum "], r5, r8, %[" sum "]\n"
#define POLICY_ADD_64(sum) "smlald %Q[" sum "], %R[" sum "], r4, r6\n smlald %Q[" sum "], %R[" sum "], r5, r8\n"
#else
#define POLICY_ALONE
#endif

