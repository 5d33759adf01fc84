/* A frozen policy, written by Icebox. What it is for and how well it plays is in the card beside it. */
#include "policy.h"
typedef char policy_needs_an_int_of_32_bits[sizeof(int) >= 4 ? 1 : -1];

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

const unsigned char policy_title[19] = {
50,48,50,54,49,49,50,49,45,50,49,50,50,48,52,95,115,48,0,
};
static const float policy_factor_0[4] = {
0x1p+16f,0x1p+13f,0x1p+16f,0x1p+12f,
};
static const int16_t policy_least_1[4] = {
-32767,-32767,-32767,-32767,
};
static const int16_t policy_most_2[4] = {
32767,32767,32767,32767,
};
static POLICY_ALIGNED const int8_t policy_weight_3[128] = {
1,-7,-5,-127,0,0,0,0,-6,-59,-14,127,0,0,0,0,-3,-75,-12,-126,0,0,0,0,13,-126,14,-58,0,0,0,0,1,-47,-8,-126,0,0,0,
0,3,79,3,127,0,0,0,0,-8,42,13,127,0,0,0,0,45,-94,-25,-126,0,0,0,0,12,127,9,-77,0,0,0,0,13,-127,-17,86,0,0,0,0,
7,104,-10,-126,0,0,0,0,-11,-65,3,-127,0,0,0,0,17,-59,-13,127,0,0,0,0,-1,14,-9,125,0,0,0,0,4,127,-40,-48,0,0,0,
0,3,-6,-15,-127,0,0,0,0,
};
static const int16_t policy_multiplier_4[16] = {
580,928,728,556,494,11200,576,274,238,418,184,776,506,1232,154,360,
};
static const int32_t policy_bias_5[16] = {
-531177,-166008,127661,-1045611,216818,-71948,857627,-1292525,-425380,1157091,826636,183743,-972790,342316,
306624,-362674,
};
static POLICY_ALIGNED const int16_t policy_weight_6[64] = {
-10107,-1287,203,3989,17385,42,6461,-2172,-401,-3626,-32682,3512,6362,-11142,9457,2277,10107,1287,-203,-3989,
-17385,-42,-6461,2172,401,3626,32682,-3512,-6362,11142,-9457,-2277,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,
0,0,0,0,0,0,0,0,0,0,
};
static const int16_t policy_multiplier_7[2] = {
240,240,
};
static const int32_t policy_bias_8[2] = {
-78566327,78566384,
};

static POLICY_ALIGNED struct {
    int32_t words[8];
    int16_t halves[32];
} arena;
typedef char policy_arena_is_as_stated[sizeof arena == POLICY_ARENA_BYTES ? 1 : -1];

static inline int32_t policy_limit_32(int32_t q, int32_t low, int32_t high)
{
    return q < low ? low : q > high ? high : (int32_t)q;
}

/* round(x * 2^exponent), halves away from zero; NaN is 0. */
static void policy_layer_1(const float *x, int16_t *y)
{
    int i;
    for (i = 0; i < 4; i++) {
        float low = (float)policy_least_1[i] - 1.0f, high = (float)policy_most_2[i] + 1.0f, v = x[i] * policy_factor_0[i];
        v = v != v ? 0.0f : v;
        v = v < low ? low : v > high ? high : v;
        y[i] = (int16_t)policy_limit_32((int32_t)(v + (v < 0.0f ? -0.5f : 0.5f)), policy_least_1[i], policy_most_2[i]);
    }
}

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

/* total[r] = sum of weight[r][i] * x[i]; `rows` comes in fours. */
static POLICY_ALONE void policy_rows_8_32(const int8_t *weight, int stride, const int16_t *x, int rows,
                                           int32_t *total)
{
#if defined(POLICY_DSP)
    /* Two rows of weights, eight numbers a turn: SXTB16 takes bytes 0 2 and 1 3 of a word apart, SMLAD adds a pair. */
    for (; rows > 0; rows -= 2, weight += 2 * stride, total += 2) {
        const int16_t *v = x, *end = x + stride;
        const int8_t *w = weight, *u = weight + stride;
        int32_t a = 0, b = 0;
        __asm__("1: ldmia %[v]!, {r8-r11}\n"
                "ldrd r4, r5, [%[w]], #8\n"
                "sxtb16 r6, r4\n"
                "sxtb16 r4, r4, ror #8\n"
                "smlad %[a], r8, r6, %[a]\n"
                "smlad %[a], r9, r4, %[a]\n"
                "sxtb16 r6, r5\n"
                "sxtb16 r5, r5, ror #8\n"
                "smlad %[a], r10, r6, %[a]\n"
                "smlad %[a], r11, r5, %[a]\n"
                "ldrd r4, r5, [%[u]], #8\n"
                "sxtb16 r6, r4\n"
                "sxtb16 r4, r4, ror #8\n"
                "smlad %[b], r8, r6, %[b]\n"
                "smlad %[b], r9, r4, %[b]\n"
                "sxtb16 r6, r5\n"
                "sxtb16 r5, r5, ror #8\n"
                "smlad %[b], r10, r6, %[b]\n"
                "smlad %[b], r11, r5, %[b]\n"
                "cmp %[v], %[end]\n"
                "bne 1b\n"
                : [v] "+r"(v), [w] "+r"(w), [u] "+r"(u), [a] "+r"(a), [b] "+r"(b)
                : [end] "r"(end)
                : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "cc", "memory");
        total[0] = a;
        total[1] = b;
    }
#else
    for (; rows > 0; rows -= 4, weight += 4 * stride, total += 4) {
        const int8_t *second = weight + stride, *third = second + stride, *fourth = third + stride;
        int32_t a = 0, b = 0, c = 0, d = 0;
#if defined(POLICY_MVE)
        int i;
        for (i = 0; i < stride; i += 8) {
            int16x8_t v = vldrhq_s16(x + i);
            a = vmladavaq_s16(a, v, vldrbq_s16(weight + i));
            b = vmladavaq_s16(b, v, vldrbq_s16(second + i));
            c = vmladavaq_s16(c, v, vldrbq_s16(third + i));
            d = vmladavaq_s16(d, v, vldrbq_s16(fourth + i));
        }
#else
#ifdef POLICY_AVX2
        policy_sums p = {0}, q = p, r = p, s = p, v, product;
        int i;
        for (i = 0; i + 16 <= stride; i += 16) {
            v = *(const policy_32 *)(x + i);
            POLICY_SIXTEEN_8(p, v, weight + i)
            POLICY_SIXTEEN_8(q, v, second + i)
            POLICY_SIXTEEN_8(r, v, third + i)
            POLICY_SIXTEEN_8(s, v, fourth + i)
        }
        if (i < stride) { /* eight more; the rest of v is 0 */
            __asm__("vmovdqu %1, %x0" : "=x"(v) : "m"(*(const policy_16 *)(x + i)));
            POLICY_EIGHT_8(p, v, weight + i)
            POLICY_EIGHT_8(q, v, second + i)
            POLICY_EIGHT_8(r, v, third + i)
            POLICY_EIGHT_8(s, v, fourth + i)
        }
        /* Halves of all four sums. */
        __asm__("vphaddd %2, %1, %0" : "=x"(p) : "x"(p), "x"(q));
        __asm__("vphaddd %2, %1, %0" : "=x"(r) : "x"(r), "x"(s));
        __asm__("vphaddd %2, %1, %0" : "=x"(p) : "x"(p), "x"(r));
        a = p[0] + p[4];
        b = p[1] + p[5];
        c = p[2] + p[6];
        d = p[3] + p[7];
#else
        int i;
        for (i = 0; i < stride; i++) {
            int32_t v = x[i];
            a += v * weight[i];
            b += v * second[i];
            c += v * third[i];
            d += v * fourth[i];
        }
#endif
#endif
        total[0] = a;
        total[1] = b;
        total[2] = c;
        total[3] = d;
    }
#endif
}

/* v / 2^shift, halves to even. */
static inline int64_t policy_round_64(int64_t v, int shift)
{
    return shift ? (v + (((int64_t)1 << (shift - 1)) - 1) + ((v >> shift) & 1)) >> shift : v;
}

/* `count` numbers as 16-bit ones, zeros up to `padded`; as 0 2 1 3 where SXTB16 takes the weights apart so. */
static void policy_row_8_int16_t(const int16_t *x, int count, int padded, int16_t *row)
{
    int i;
#ifdef POLICY_DSP
    for (i = 0; i + 4 <= count; i += 4, x += 4) {
        row[i] = x[0];
        row[i + 1] = x[2];
        row[i + 2] = x[1];
        row[i + 3] = x[3];
    }
    for (count -= i; i < padded; i += 4, count -= 4, x += 4) {
        row[i] = (int16_t)(count > 0 ? x[0] : 0);
        row[i + 1] = (int16_t)(count > 2 ? x[2] : 0);
        row[i + 2] = (int16_t)(count > 1 ? x[1] : 0);
        row[i + 3] = 0;
    }
#else
    for (i = 0; i < count; i++)
        row[i] = x[i];
    for (; i < padded; i++)
        row[i] = 0;
#endif
}

/* 4 -> 16 */
static void policy_layer_2(const int16_t *row, int16_t *y)
{
    int32_t q[16];
    int o, i;
    for (o = 0; o < 16; o += 16) {
        policy_rows_8_32(policy_weight_3 + o * 8, 8, row, 16, q);
        for (i = 0; i < 16; i++) {
            int64_t v = q[i] + policy_bias_5[o + i];
            y[o + i] = (int16_t)policy_limit_32((int32_t)policy_round_64(v * policy_multiplier_4[o + i], 15), 0, 32767);
        }
    }
}

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

/* total[r] = sum of weight[r][i] * x[i]; `rows` comes in fours. */
static POLICY_ALONE void policy_rows_16_64(const int16_t *weight, int stride, const int16_t *x, int rows,
                                           int64_t *total)
{
#if defined(POLICY_DSP)
    /* Two rows of weights, four numbers a turn. */
    for (; rows > 0; rows -= 2, weight += 2 * stride, total += 2) {
        const int16_t *v = x, *end = x + stride;
        const int16_t *w = weight, *u = weight + stride;
        int64_t a = 0, b = 0;
        __asm__("1: ldrd r4, r5, [%[v]], #8\n"
                POLICY_TAKE_16("w") POLICY_ADD_64("a") POLICY_TAKE_16("u") POLICY_ADD_64("b")
                "cmp %[v], %[end]\n"
                "bne 1b\n"
                : [v] "+r"(v), [w] "+r"(w), [u] "+r"(u), [a] "+r"(a), [b] "+r"(b)
                : [end] "r"(end)
                : "r4", "r5", "r6", "r8", "cc", "memory");
        total[0] = a;
        total[1] = b;
    }
#else
    for (; rows > 0; rows -= 4, weight += 4 * stride, total += 4) {
        const int16_t *second = weight + stride, *third = second + stride, *fourth = third + stride;
        int64_t a = 0, b = 0, c = 0, d = 0;
#if defined(POLICY_MVE)
        int i;
        for (i = 0; i < stride; i += 8) {
            int16x8_t v = vldrhq_s16(x + i);
            a = vmlaldavaq_s16(a, v, vldrhq_s16(weight + i));
            b = vmlaldavaq_s16(b, v, vldrhq_s16(second + i));
            c = vmlaldavaq_s16(c, v, vldrhq_s16(third + i));
            d = vmlaldavaq_s16(d, v, vldrhq_s16(fourth + i));
        }
#else
        a = policy_far_16(weight, x, stride);
        b = policy_far_16(second, x, stride);
        c = policy_far_16(third, x, stride);
        d = policy_far_16(fourth, x, stride);
#endif
        total[0] = a;
        total[1] = b;
        total[2] = c;
        total[3] = d;
    }
#endif
}

/* `count` numbers as 16-bit ones, zeros up to `padded`. */
static void policy_row_16_int16_t(const int16_t *x, int count, int padded, int16_t *row)
{
    int i;
    for (i = 0; i < count; i++)
        row[i] = x[i];
    for (; i < padded; i++)
        row[i] = 0;
}

/* 16 -> 2 */
static void policy_layer_3(const int16_t *row, int32_t *y)
{
    int64_t q[16];
    int o, i;
    for (o = 0; o < 2; o += 16) {
        policy_rows_16_64(policy_weight_6 + o * 16, 16, row, 2 - o < 16 ? 2 - o : 16, q);
        for (i = 0; i < 16 && o + i < 2; i++) {
            int64_t v = q[i] + policy_bias_8[o + i];
            y[o + i] = (int32_t)policy_limit_32((int32_t)policy_round_64(v * policy_multiplier_7[o + i], 14), -2147483647, 2147483647);
        }
    }
}

static void policy_copy_int32_t(const int32_t *x, int count, int32_t *y)
{
    int i;
    for (i = 0; i < count; i++)
        y[i] = x[i];
}

void policy_forward(const policy_input *observation, policy_output *outputs)
{
    policy_layer_1(observation, arena.halves);
    policy_row_8_int16_t(arena.halves, 4, 8, arena.halves + 16);
    policy_layer_2(arena.halves + 16, arena.halves);
    policy_row_16_int16_t(arena.halves, 16, 16, arena.halves + 16);
    policy_layer_3(arena.halves + 16, arena.words);
    policy_copy_int32_t(arena.words, 2, outputs);
}

void policy_reset(void)
{
}

void policy_step(const policy_input *frame, policy_output *outputs)
{
    policy_forward(frame, outputs);
}

int policy_action(const policy_output *outputs)
{
    int best = 0, i;
    for (i = 1; i < POLICY_OUTPUTS; i++)
        if (outputs[i] > outputs[best])
            best = i;
    return best;
}

#ifdef POLICY_SELF_TEST
static const policy_input policy_golden_observations[400] = {
0x1.14b4a2p-5f,0x1.6ef4c2p-6f,0x1.206f0ep-6f,-0x1.1a622ep-6f,0x1.816728p-5f,0x1.86e0bep-1f,0x1.3e5c42p-7f,
-0x1.1b0a1cp+0f,0x1.2f78e2p-3f,0x1.8dbd9ap+0f,-0x1.6939b4p-3f,-0x1.37b92ep+1f,-0x1.4188b8p-5f,0x1.7d959ep-2f,
-0x1.d61facp-7f,-0x1.2fd8a4p-1f,0x1.60f7f6p-3f,0x1.bf69bcp+0f,-0x1.b2e1ap-3f,-0x1.61c4d4p+1f,0x1.08b622p-6f,
0x1.ac565p-2f,-0x1.89310ap-7f,-0x1.2f0a02p-1f,0x1.5ae49p-4f,0x1.69edbep+0f,-0x1.248f8cp-3f,-0x1.14bd7p+1f,
0x1.2cfdf6p-5f,0x1.ad1046p-2f,-0x1.8843fp-8f,-0x1.3e737ep-1f,0x1.023486p-3f,0x1.eb5dfp+0f,-0x1.ed1cdep-3f,
-0x1.831452p+1f,-0x1.0659fep-5f,0x1.81c67ap-3f,0x1.693c46p-5f,-0x1.17f63p-2f,0x1.1eb95p-5f,0x1.5849a2p+0f,
-0x1.a2967ep-4f,-0x1.092044p+1f,-0x1.948fdap-7f,-0x1.48ff48p-8f,0x1.9cb4bcp-9f,-0x1.6f9528p-5f,0x1.3e5862p-5f,
0x1.2397f2p+0f,-0x1.952c76p-4f,-0x1.d6985ap+0f,0x1.03e3dep-3f,0x1.863bfp+0f,-0x1.1ba78cp-3f,-0x1.33cfaap+1f,
-0x1.01145cp-6f,0x1.a75866p-2f,-0x1.b033a4p-5f,-0x1.2246b6p-1f,0x1.9272c8p-8f,0x1.a39e12p-6f,0x1.2d7354p-6f,
0x1.f84caep-6f,0x1.1739ecp-12f,0x1.fca9d6p-1f,-0x1.1f871ap-4f,-0x1.855e2ap+0f,0x1.d0423cp-4f,0x1.379b1ap+0f,
-0x1.ffbcdp-4f,-0x1.dc27f8p+0f,0x1.3f7fecp-5f,0x1.21ae26p-1f,-0x1.1df168p-5f,-0x1.d2b276p-1f,0x1.53bdc4p-3f,
0x1.cdbd78p+0f,-0x1.a83f4ep-3f,-0x1.61ccc4p+1f,0x1.03214p-6f,0x1.e010c4p-1f,-0x1.718174p-6f,-0x1.78dd7cp+0f,
0x1.82cf2ap-5f,0x1.fd606p-1f,-0x1.797dc8p-4f,-0x1.8a5c82p+0f,-0x1.0851dep-8f,0x1.fffa66p-1f,-0x1.f94ccp-5f,
-0x1.78745ep+0f,0x1.3c3eap-5f,0x1.35b076p-1f,0x1.08738cp-7f,-0x1.c2d12p-1f,0x1.2bd84p-5f,0x1.82058ep-1f,
-0x1.ef584p-6f,-0x1.25c196p+0f,0x1.eff76ap-4f,0x1.c601p+0f,-0x1.073146p-2f,-0x1.72c6bap+1f,0x1.ef12eap-5f,
0x1.36c522p+0f,-0x1.d38a6cp-5f,-0x1.c51d02p+0f,0x1.182b52p-6f,0x1.183e18p-1f,0x1.d38c9p-6f,-0x1.acf60cp-1f,
0x1.cf958ap-5f,0x1.11a3ep-1f,0x1.36b428p-6f,-0x1.afc242p-1f,0x1.35c98p-3f,0x1.9ae398p+0f,-0x1.e606ecp-4f,
-0x1.2ea9d2p+1f,-0x1.6ae168p-7f,0x1.a638f2p-1f,-0x1.88783cp-5f,-0x1.3d0ap+0f,-0x1.42095p-5f,0x1.b49e14p-2f,
-0x1.e80464p-8f,-0x1.3760a4p-1f,-0x1.2223ap-6f,0x1.9bbbb8p-2f,0x1.58127p-5f,-0x1.0cd33ep-1f,0x1.459b14p-5f,
-0x1.7b8cf6p-5f,0x1.e845e2p-7f,0x1.184e92p-5f,-0x1.e3ae64p-6f,0x1.89814cp-2f,0x1.73d948p-6f,-0x1.0aa35cp-1f,
-0x1.bfac62p-9f,0x1.00081ap+0f,-0x1.4faaa8p-4f,-0x1.823868p+0f,0x1.4ab2c8p-3f,0x1.977eaep+0f,-0x1.6f8b96p-3f,
-0x1.36c814p+1f,0x1.abaef6p-4f,0x1.bd2d8p+0f,-0x1.915f2ap-3f,-0x1.5fe33p+1f,0x1.ce0d1ap-6f,0x1.8a2c88p-2f,
0x1.d98e06p-9f,-0x1.11c328p-1f,0x1.36d1b8p-5f,0x1.057ed4p+0f,-0x1.6f9494p-4f,-0x1.8210aap+0f,0x1.7ef9f6p-5f,
0x1.2fcdb6p+0f,-0x1.8b7bb2p-4f,-0x1.d782acp+0f,0x1.fc7cb6p-4f,0x1.c61374p+0f,-0x1.fb9258p-3f,-0x1.6de07ap+1f,
0x1.0639fap-6f,0x1.35e868p-3f,-0x1.72bc9ep-5f,-0x1.58b86ep-2f,-0x1.800032p-6f,0x1.a08718p-1f,-0x1.15cf68p-4f,
-0x1.42639p+0f,0x1.27e664p-3f,0x1.b7dea4p+0f,-0x1.79d2fap-3f,-0x1.5c693ap+1f,0x1.8e0ebp-4f,0x1.8e754ep+0f,
-0x1.ad8786p-3f,-0x1.40c1fcp+1f,0x1.5cb72p-4f,0x1.22513cp+0f,-0x1.01ca1ep-4f,-0x1.b87688p+0f,-0x1.22925p-5f,
0x1.69465cp-2f,0x1.41f31ep-7f,-0x1.26d2f8p-1f,0x1.ebcf3ap-4f,0x1.96067ap+0f,-0x1.700c1cp-3f,-0x1.40d1fap+1f,
0x1.0031dap-4f,0x1.93ce22p+0f,-0x1.2382dep-3f,-0x1.33a012p+1f,-0x1.0aa7fep-7f,0x1.7f3502p-1f,-0x1.46fb88p-6f,
-0x1.22d898p+0f,0x1.4a6ceep-5f,0x1.8eb3aap-6f,-0x1.2707cep-6f,0x1.8d4b6ap-6f,0x1.8c0eccp-4f,0x1.856704p+0f,
-0x1.097d74p-3f,-0x1.2a5ecap+1f,0x1.236dc8p-4f,0x1.ed3e36p-1f,-0x1.7cd196p-6f,-0x1.6edc3ap+0f,0x1.0a334ap-5f,
0x1.322efap-1f,0x1.29acc8p-6f,-0x1.bc1726p-1f,-0x1.c6a288p-6f,0x1.1c2adcp-1f,-0x1.b4864ap-5f,-0x1.d6cff6p-1f,
0x1.7ad4c2p-5f,0x1.633cacp-2f,0x1.6f90fp-5f,-0x1.030758p-1f,0x1.9f94aap-7f,0x1.2bd9f4p+0f,-0x1.b8630cp-4f,
-0x1.d7f43ep+0f,-0x1.efcc5cp-6f,-0x1.b13078p-10f,-0x1.9b0266p-6f,0x1.6c2408p-5f,0x1.f15966p-6f,0x1.3fc978p-1f,
-0x1.60caaap-6f,-0x1.b74e94p-1f,0x1.933304p-3f,0x1.fcc578p+0f,-0x1.f91c78p-3f,-0x1.86b07p+1f,0x1.079fa6p-5f,
0x1.f3a14ap-1f,-0x1.9df6b4p-4f,-0x1.8e24d4p+0f,0x1.64538p-3f,0x1.f24934p+0f,-0x1.b7b62ap-3f,-0x1.7bd966p+1f,
-0x1.9175aep-6f,0x1.1cff6ap-1f,-0x1.6addb2p-10f,-0x1.aecdaep-1f,0x1.71fe16p-4f,0x1.b5c29ap+0f,-0x1.9c77a8p-3f,
-0x1.64648p+1f,0x1.14cdcep-5f,0x1.2aba96p+0f,-0x1.8a933ep-4f,-0x1.c7db96p+0f,0x1.a81e2ep-5f,0x1.9d23ccp-1f,
-0x1.d1106p-6f,-0x1.2e444ep+0f,-0x1.a9bd28p-6f,0x1.8281e8p-1f,-0x1.d51f9p-5f,-0x1.3b4baap+0f,0x1.637664p-4f,
0x1.532bf2p+0f,-0x1.2746dp-3f,-0x1.12af72p+1f,0x1.01feecp-6f,0x1.e7e55ep-1f,-0x1.59145ap-5f,-0x1.6aa7ccp+0f,
-0x1.0396c4p-7f,0x1.29ce22p-1f,-0x1.5b4816p-6f,-0x1.c566a4p-1f,0x1.2d3918p-4f,0x1.ddc38p-1f,-0x1.8b6b82p-4f,
-0x1.8fc93p+0f,0x1.8a753ep-4f,0x1.558182p+0f,-0x1.87e48cp-4f,-0x1.0b3a6p+1f,-0x1.0364b2p-5f,0x1.412632p-1f,
0x1.6b9274p-6f,-0x1.b21fbap-1f,-0x1.320c02p-8f,0x1.98e9d8p-2f,0x1.980756p-6f,-0x1.34df12p-1f,0x1.c3684ep-5f,
0x1.eb2c3cp-1f,-0x1.fa71b4p-7f,-0x1.6b7e98p+0f,0x1.d2dc8cp-8f,0x1.012238p+0f,-0x1.4b9208p-5f,-0x1.70a5acp+0f,
0x1.0407ap-4f,0x1.e627dep-1f,-0x1.3c14p-5f,-0x1.7df94cp+0f,0x1.140468p-4f,0x1.e8f574p-1f,-0x1.bc7188p-5f,
-0x1.7242bp+0f,0x1.d2af7cp-6f,0x1.2c9874p-1f,-0x1.0a47f4p-4f,-0x1.e8499ap-1f,0x1.7804acp-6f,0x1.a53932p-3f,
0x1.dabb66p-8f,-0x1.edf902p-3f,-0x1.dcc33cp-6f,0x1.247e68p-1f,-0x1.9fdd2p-6f,-0x1.cd41c8p-1f,0x1.64431ap-5f,
0x1.15774p-1f,-0x1.fb2e3ap-8f,-0x1.cd05d6p-1f,-0x1.d7545ep-6f,0x1.7c647p-1f,-0x1.7e8466p-6f,-0x1.33f534p+0f,
0x1.ad0e4ep-6f,-0x1.d36108p-9f,-0x1.39526cp-6f,-0x1.9099ccp-5f,0x1.5b9e18p-12f,0x1.a46206p-1f,-0x1.7d5776p-6f,
-0x1.2c588ep+0f,0x1.f0f626p-5f,0x1.37b5cep-1f,0x1.ffe10cp-7f,-0x1.b2d624p-1f,-0x1.d6658cp-6f,0x1.9f183ep-2f,
-0x1.1b6d78p-9f,-0x1.32336ap-1f,0x1.e213cap-5f,0x1.25bf26p+0f,-0x1.a35f18p-4f,-0x1.c898bcp+0f,0x1.4a291ep-4f,
0x1.de446p-1f,-0x1.870e0ap-4f,-0x1.8bed98p+0f,0x1.29840ap-5f,0x1.54d094p+0f,-0x1.6c309ep-4f,-0x1.09001p+1f,
-0x1.578c5ep-5f,0x1.959c0cp-2f,-0x1.edf138p-6f,-0x1.301a5p-1f,0x1.324c68p-6f,0x1.388c66p+0f,-0x1.e0b996p-4f,
-0x1.d44942p+0f,-0x1.7659a4p-11f,0x1.a0c216p-1f,-0x1.2a9172p-4f,-0x1.3c787ep+0f,0x1.a9d384p-5f,0x1.f2eaa6p-1f,
-0x1.1d567ap-6f,-0x1.6a5afap+0f,0x1.b2003ap-9f,0x1.f46cfep-3f,-0x1.157f6p-5f,-0x1.398676p-2f,0x1.d03634p-5f,
0x1.ee7a08p-1f,-0x1.0bac4ep-6f,-0x1.719f58p+0f,0x1.0cd60ap-5f,0x1.9997cp-1f,-0x1.3e0e2p-4f,-0x1.3c004ep+0f,
0x1.b9138cp-7f,0x1.7b2828p-1f,-0x1.ae3cb4p-11f,-0x1.2744bap+0f,-0x1.024482p-6f,0x1.3b3aecp-1f,0x1.fd4b82p-8f,
-0x1.a8342cp-1f,
};

static const policy_output policy_golden_outputs[200] = {
-3592576,3592577,-2646267,2646268,-6115348,6115349,-2398404,2398405,-6762320,6762321,-2698330,2698331,-5492970,
5492971,-2616242,2616243,-7221748,7221749,-2837086,2837087,-5078243,5078244,-3328823,3328824,-4292193,4292194,
-6023377,6023378,-2853612,2853613,-3711589,3711589,-3520359,3520360,-4754532,4754533,-2296882,2296883,-6964173,
6964173,-3349801,3349802,-3666692,3666693,-3494192,3494193,-2424436,2424437,-2641291,2641291,-6678422,6678423,
-4534294,4534294,-2250098,2250099,-2334586,2334587,-6399927,6399928,-2773052,2773053,-2488467,2488468,-2594919,
2594920,-3600653,3600654,-2598613,2598614,-3524167,3524168,-6278279,6278280,-6629876,6629877,-2783167,2783168,
-3703213,3703214,-4464379,4464380,-6704921,6704922,-2963050,2963051,-2720495,2720496,-6647401,6647401,-5974560,
5974561,-4319476,4319477,-2316205,2316206,-6164844,6164845,-6096547,6096548,-2471787,2471788,-3922010,3922010,
-5970347,5970348,-3554383,3554384,-2399987,2399988,-2054577,2054578,-2656820,2656821,-4326198,4326199,-3752229,
3752230,-2471541,2471542,-7589509,7589510,-3577729,3577730,-7454757,7454757,-2141608,2141609,-6482488,6482488,
-4326610,4326611,-2846880,2846881,-2511394,2511395,-5210572,5210573,-3362908,3362909,-2215797,2215798,-3559787,
3559788,-5220523,5220524,-2293283,2293284,-2386719,2386720,-3488626,3488626,-3515487,3515488,-3530999,3530999,
-3530155,3530156,-2280186,2280187,-3318046,3318046,-2108999,2109000,-2259827,2259828,-2443600,2443601,-3513396,
3513397,-2746355,2746356,-2532258,2532259,-2467799,2467800,-4336673,4336674,-3572310,3572311,-5037117,5037118,
-2528376,2528377,-4489249,4489249,-2769180,2769181,-3524711,3524712,-3300090,3300090,-3528993,3528994,-2818379,
2818380,-2515133,2515134,-2332225,2332226,
};

static int policy_differs(const policy_output *found, const policy_output *expected)
{
    int i;
    for (i = 0; i < POLICY_OUTPUTS; i++)
        if (found[i] != expected[i])
            return 1;
    return 0;
}

int policy_self_test(void)
{
    static policy_output outputs[POLICY_OUTPUTS];
    static policy_input frame[POLICY_FRAME_SIZE];
    int failures = 0, place, turn, i;
    for (place = 0; place < 100; place++) {
        const policy_input *observation = policy_golden_observations + (long)place * POLICY_OBSERVATION_SIZE;
        const policy_output *expected = policy_golden_outputs + place * POLICY_OUTPUTS;
        int wrong;
        policy_forward(observation, outputs);
        wrong = policy_differs(outputs, expected);
        policy_reset();
        for (turn = 0; turn < POLICY_STACK; turn++) {
            for (i = 0; i < POLICY_FRAME_SIZE; i++)
                frame[i] = observation[i / 4 * 4 + turn * 4 + i % 4];
            policy_step(frame, outputs);
        }
        failures += wrong || policy_differs(outputs, expected);
    }
    return failures;
}
#endif
