#if defined(POLICY_AVX2)
static int16_t policy_picture[@count@];
#elif POLICY_LANES >= 8
static float policy_picture[@count@];
#endif
