/* Compilers keep sums in registers when they are told of vectors; without, the plain loops below. */
#if defined(__GNUC__) && (defined(__SSE__) || defined(__ARM_NEON))
#if defined(__AVX512F__)
#define POLICY_LANES 16
#elif defined(__AVX__)
#define POLICY_LANES 8
#else
#define POLICY_LANES 4
#endif
#if defined(__SSE__) && !defined(__clang__)
#define POLICY_LOADED(vector) __asm__("" : "+x"(vector)) /* once, not for each of its uses */
#else
#define POLICY_LOADED(vector) (void)0
#endif
#endif

