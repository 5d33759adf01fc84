/* A frozen policy, written by Icebox. What it is for and how well it plays is in the card beside it. */
#include "policy.h"
typedef char policy_needs_an_int_of_32_bits[sizeof(int) >= 4 ? 1 : -1];

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

const unsigned char policy_title[19] = {
50,48,50,54,49,49,50,49,45,50,49,50,50,48,52,95,115,48,0,
};
static const float policy_weight_0[64] = {
0x1.2a52f8p-4f,-0x1.c23a96p-3f,-0x1.9482eap-4f,0x1.2518ap-2f,0x1.42eabp-5f,0x1.60d0c2p-4f,-0x1.ecdacep-3f,
0x1.ed43dcp-2f,0x1.4b6b8ep-2f,0x1.1255acp-2f,0x1.0c3da4p-2f,-0x1.3e50d6p-2f,0x1.5bf024p-2f,-0x1.c785fep-5f,
0x1.54c6fcp-5f,0x1.138208p-4f,-0x1.973284p-5f,-0x1.10007p-2f,-0x1.66a22cp-2f,-0x1.5b947cp-2f,-0x1.dd85f4p-3f,
0x1.106d5cp-2f,0x1.3d089p-3f,-0x1.fc958p-4f,0x1.adf40ap-2f,-0x1.4a4e86p-2f,0x1.f8cc5ap-2f,-0x1.e9cfc8p-3f,
-0x1.29b012p-3f,0x1.49eb36p-4f,0x1.746f9p-3f,-0x1.d51a4cp-7f,-0x1.2a941ep-2f,-0x1.f20cap-2f,-0x1.b6930ep-2f,
0x1.37f6fcp-2f,-0x1.361322p-2f,0x1.6fb3dp-4f,0x1.9466ecp-2f,-0x1.0ac7ccp-2f,0x1.004ec6p-2f,-0x1.6a4e88p-2f,
-0x1.80e076p-2f,0x1.6141fp-4f,-0x1.faeaf8p-3f,-0x1.b1bf66p-2f,-0x1.d36edcp-2f,-0x1.4d0e2p-2f,-0x1.dc652ap-2f,
0x1.22eedcp-2f,-0x1.2e10d8p-2f,-0x1.40d0bp-4f,-0x1.42d636p-2f,0x1.b6dbbep-3f,0x1.e4183p-3f,-0x1.569b3p-4f,
-0x1.07559cp-3f,0x1.c2cc24p-4f,-0x1.337616p-2f,-0x1.db7e3cp-3f,0x1.3df674p-3f,0x1.694908p-2f,-0x1.220c32p-5f,
-0x1.57f17ep-3f,
};
static const float policy_bias_1[16] = {
-0x1.e78da2p-2f,-0x1.7047fp-4f,0x1.25c62p-4f,-0x1.5f6f04p-2f,0x1.0a54b8p-3f,-0x1.dba9e6p-6f,0x1.9193b2p-2f,
-0x1.ad3508p-3f,-0x1.61d548p-3f,0x1.6fa42ep-2f,0x1.eb765cp-2f,0x1.f48934p-4f,-0x1.28adeap-2f,0x1.e254p-3f,
0x1.b8b55ep-5f,-0x1.e81118p-4f,
};
static const float policy_weight_2[64] = {
0x1.9ca3aep-5f,0x1.871eb2p-4f,0x0p+0f,0x0p+0f,0x1.93915p-6f,0x1.43d118p-5f,0x0p+0f,0x0p+0f,0x1.3502ecp-6f,
0x1.0243a2p-6f,0x0p+0f,0x0p+0f,0x1.1c08f8p-6f,-0x1.d85d2p-6f,0x0p+0f,0x0p+0f,0x1.91c3fap-4f,0x1.8032f4p-10f,
0x0p+0f,0x0p+0f,-0x1.e783eep-6f,-0x1.3373p-5f,0x0p+0f,0x0p+0f,0x1.13b9eap-4f,0x1.8a44c4p-7f,0x0p+0f,0x0p+0f,
-0x1.d9cb2cp-5f,-0x1.0be23p-5f,0x0p+0f,0x0p+0f,-0x1.e5190ap-6f,-0x1.c55f74p-6f,0x0p+0f,0x0p+0f,-0x1.da8c84p-5f,
-0x1.9422aep-6f,0x0p+0f,0x0p+0f,-0x1.25586p-4f,-0x1.bbd92p-11f,0x0p+0f,0x0p+0f,0x1.1b1f7ap-4f,0x1.ca42c8p-6f,
0x0p+0f,0x0p+0f,0x1.882dep-5f,-0x1.a60a36p-6f,0x0p+0f,0x0p+0f,-0x1.187ec4p-6f,0x1.e324aap-4f,0x0p+0f,0x0p+0f,
0x1.d7fd9ap-7f,-0x1.6394bcp-5f,0x0p+0f,0x0p+0f,0x1.19349cp-7f,-0x1.fc33a6p-8f,0x0p+0f,0x0p+0f,
};
static const float policy_bias_3[2] = {
0x1.bc220cp-6f,0x1.7d0a44p-5f,
};

static struct {
    float floats[24];
} arena;
typedef char policy_arena_is_as_stated[sizeof arena == POLICY_ARENA_BYTES ? 1 : -1];

/* total[o] = sum of x[i] * weight[i][o], for 16 outputs; four sums by turns, so that none waits for another. */
static void policy_rows_16_float(const float *weight, const float *x, int count, float *total)
{
#ifdef POLICY_LANES
    enum { LANES = POLICY_LANES < 16 ? POLICY_LANES : 16, PARTS = 16 / LANES };
    typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    vector sum[4][PARTS];
    int i, j, part;
    for (j = 0; j < 4; j++)
        for (part = 0; part < PARTS; part++)
            sum[j][part] = (vector){0};
    for (i = 0; i + 4 <= count; i += 4)
        for (j = 0; j < 4; j++, weight += 16)
            for (part = 0; part < PARTS; part++)
                sum[j][part] += (float)x[i + j] * ((const vector *)weight)[part];
    for (; i < count; i++, weight += 16)
        for (part = 0; part < PARTS; part++)
            sum[0][part] += (float)x[i] * ((const vector *)weight)[part];
    for (part = 0; part < PARTS; part++)
        ((vector *)total)[part] = (sum[0][part] + sum[1][part]) + (sum[2][part] + sum[3][part]);
#else
    int i, o;
    for (o = 0; o < 16; o += 4) {
        const float *w = weight + o;
        float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
        for (i = 0; i < count; i++, w += 16) {
            float v = (float)x[i];
            a += v * w[0];
            b += v * w[1];
            c += v * w[2];
            d += v * w[3];
        }
        total[o] = a;
        total[o + 1] = b;
        total[o + 2] = c;
        total[o + 3] = d;
    }
#endif
}

static inline float policy_relu(float v)
{
    return v > 0.0f ? v : 0.0f;
}

/* 4 -> 16 */
static void policy_layer_1(const float *x, float *y)
{
    int o;
    for (o = 0; o < 16; o += 16)
        policy_rows_16_float(policy_weight_0 + o * 4, x, 4, y + o);
    for (o = 0; o < 16; o++)
        y[o] = policy_relu(y[o] + policy_bias_1[o]);
}

/* total[o] = sum of x[i] * weight[i][o], for 4 outputs; four sums by turns, so that none waits for another. */
static void policy_rows_4_float(const float *weight, const float *x, int count, float *total)
{
#ifdef POLICY_LANES
    enum { LANES = POLICY_LANES < 4 ? POLICY_LANES : 4, PARTS = 4 / LANES };
    typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    vector sum[4][PARTS];
    int i, j, part;
    for (j = 0; j < 4; j++)
        for (part = 0; part < PARTS; part++)
            sum[j][part] = (vector){0};
    for (i = 0; i + 4 <= count; i += 4)
        for (j = 0; j < 4; j++, weight += 4)
            for (part = 0; part < PARTS; part++)
                sum[j][part] += (float)x[i + j] * ((const vector *)weight)[part];
    for (; i < count; i++, weight += 4)
        for (part = 0; part < PARTS; part++)
            sum[0][part] += (float)x[i] * ((const vector *)weight)[part];
    for (part = 0; part < PARTS; part++)
        ((vector *)total)[part] = (sum[0][part] + sum[1][part]) + (sum[2][part] + sum[3][part]);
#else
    int i, o;
    for (o = 0; o < 4; o += 4) {
        const float *w = weight + o;
        float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
        for (i = 0; i < count; i++, w += 4) {
            float v = (float)x[i];
            a += v * w[0];
            b += v * w[1];
            c += v * w[2];
            d += v * w[3];
        }
        total[o] = a;
        total[o + 1] = b;
        total[o + 2] = c;
        total[o + 3] = d;
    }
#endif
}

/* 16 -> 2 */
static void policy_layer_2(const float *x, float *y)
{
    int o;
    for (o = 0; o < 4; o += 4)
        policy_rows_4_float(policy_weight_2 + o * 16, x, 16, y + o);
    for (o = 0; o < 2; o++)
        y[o] = (y[o] + policy_bias_3[o]);
}

static void policy_copy_float(const float *x, int count, float *y)
{
    int i;
    for (i = 0; i < count; i++)
        y[i] = x[i];
}

void policy_forward(const policy_input *observation, policy_output *outputs)
{
    policy_layer_1(observation, arena.floats);
    policy_layer_2(arena.floats, arena.floats + 16);
    policy_copy_float(arena.floats + 16, 2, outputs);
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
0x1.f94b36p-7f,0x1.1fb594p-4f,-0x1.b8ad2p-9f,0x1.2f86a6p-5f,-0x1.5d36ep-6f,0x1.277534p-4f,0x1.072d5ap-6f,
0x1.b0cfcep-5f,-0x1.67b44p-6f,0x1.4d6cd8p-4f,0x1.2360cp-7f,0x1.9ae7aap-5f,-0x1.3fa0e8p-6f,0x1.081a88p-4f,
0x1.0c301p-7f,0x1.8a6a28p-5f,-0x1.5d96d4p-6f,0x1.6cb808p-4f,0x1.442018p-6f,0x1.027c9cp-4f,-0x1.dcdf38p-7f,
0x1.0253dcp-4f,0x1.49c996p-6f,0x1.22dceep-4f,-0x1.972d4p-8f,0x1.e661e4p-5f,-0x1.5219dcp-6f,0x1.2465ccp-4f,
0x1.3bc1b4p-7f,0x1.b5c35cp-5f,0x1.036f14p-6f,0x1.291a1p-4f,-0x1.e840fp-9f,0x1.9a2eaap-5f,-0x1.0783ccp-6f,
0x1.cfe98p-5f,0x1.2adc08p-8f,0x1.44cd1ep-5f,-0x1.bc0134p-6f,0x1.44ff1p-4f,-0x1.26cbep-9f,0x1.90b552p-5f,
-0x1.74d78p-8f,0x1.9c9dep-5f,-0x1.85956p-8f,0x1.84db84p-5f,0x1.5abd9p-9f,0x1.450e4ap-5f,-0x1.3742p-11f,
0x1.45bacp-5f,-0x1.bc003p-7f,0x1.6a92a4p-4f,-0x1.10bfc8p-6f,0x1.af6f7ap-5f,0x1.f12a8p-8f,0x1.5795cap-5f,
0x1.51f588p-8f,0x1.4e2c8cp-5f,-0x1.06d6eep-5f,0x1.0d2704p-4f,0x1.c0f7p-12f,0x1.5ea83cp-5f,0x1.b29002p-7f,
0x1.a52c58p-5f,0x1.a541ep-7f,0x1.adff98p-5f,0x1.15ce32p-6f,0x1.266a62p-4f,0x1.ce9caap-7f,0x1.b9338p-5f,
-0x1.20261p-8f,0x1.95476ap-5f,-0x1.a59b3p-6f,0x1.1f9672p-4f,-0x1.40df3p-6f,0x1.4ebff6p-4f,0x1.2e9e8p-7f,
0x1.a7dcdcp-5f,-0x1.18c978p-7f,0x1.89aed6p-5f,-0x1.59954p-7f,0x1.d89868p-5f,-0x1.070d5p-6f,0x1.61f7dp-4f,
0x1.0b8b2p-6f,0x1.f93dbp-5f,0x1.8f8fp-9f,0x1.6d9a9cp-5f,-0x1.5b7fecp-6f,0x1.49318cp-4f,-0x1.d9cb88p-7f,
0x1.3ab1f4p-4f,-0x1.b0ca38p-7f,0x1.b0af7p-5f,0x1.1dfd18p-6f,0x1.b15d0cp-5f,-0x1.3be26cp-6f,0x1.32d708p-4f,
-0x1.752dacp-6f,0x1.20323cp-4f,0x1.51a7cp-9f,0x1.4a747cp-5f,0x1.8f38bep-7f,0x1.27722ap-4f,-0x1.7a4cdcp-6f,
0x1.174a9cp-4f,-0x1.2a0f08p-7f,0x1.727328p-5f,0x1.d110fp-9f,0x1.49622cp-5f,0x1.4ca3d4p-7f,0x1.547e04p-5f,
0x1.688fccp-7f,0x1.a55728p-5f,-0x1.cf884p-8f,0x1.e3ba68p-5f,0x1.1e2f78p-6f,0x1.330b34p-4f,0x1.c98f8p-11f,
0x1.3cb582p-5f,-0x1.dc12dcp-6f,0x1.64377cp-4f,-0x1.52a27p-9f,0x1.aace46p-5f,-0x1.e9112p-6f,0x1.587cc4p-4f,
0x1.39ead4p-7f,0x1.5aa8bcp-5f,-0x1.d1c2e8p-7f,0x1.5b7fc8p-4f,-0x1.53eb7p-7f,0x1.c8dcd8p-5f,-0x1.0e1b48p-8f,
0x1.42c24ep-5f,0x1.c87578p-8f,0x1.734adp-5f,-0x1.a37558p-7f,0x1.11cb9cp-4f,-0x1.5f9b9p-8f,0x1.7916c6p-5f,
0x1.d0a078p-8f,0x1.4f9482p-5f,-0x1.4fe32p-10f,0x1.b3286cp-5f,-0x1.123608p-6f,0x1.0245f8p-4f,0x1.a8a7dp-8f,
0x1.546b2ap-5f,0x1.b3ebc8p-7f,0x1.978234p-5f,-0x1.1234ep-7f,0x1.702642p-5f,-0x1.101b88p-7f,0x1.7437cap-5f,
-0x1.52f79p-8f,0x1.8f9652p-5f,-0x1.e401bp-8f,0x1.7d8f0ep-5f,0x1.0e364p-8f,0x1.3f31c8p-5f,0x1.9ec1ecp-7f,
0x1.036916p-4f,0x1.3a35f8p-7f,0x1.56adbcp-5f,0x1.93edb8p-8f,0x1.4d0f0ep-5f,0x1.b9cccp-8f,0x1.68d79ap-5f,
0x1.0f9878p-6f,0x1.1fca66p-4f,-0x1.52596p-9f,0x1.42bce4p-5f,0x1.0647p-12f,0x1.3ef706p-5f,0x1.c13de6p-7f,
0x1.a5ee28p-5f,-0x1.49f5e8p-7f,0x1.cc909cp-5f,-0x1.33565p-9f,0x1.ac009cp-5f,-0x1.bfd24p-7f,0x1.0357e4p-4f,
0x1.d286fep-7f,0x1.b296a8p-5f,-0x1.88ee3p-7f,0x1.d00da4p-5f,0x1.c6b0cp-11f,0x1.61e1bap-5f,-0x1.3a2c5p-7f,
0x1.6abb3ep-5f,0x1.8c2b98p-7f,0x1.008094p-4f,-0x1.09ca08p-7f,0x1.7745dap-5f,-0x1.b5d8p-15f,0x1.60925ap-5f,
0x1.3b15dp-9f,0x1.4e4ccap-5f,0x1.55204p-8f,0x1.4ed6c8p-5f,
};

static int policy_differs(const policy_output *found, const policy_output *expected)
{
    float largest = 1.0f, apart;
    int i;
    for (i = 0; i < POLICY_OUTPUTS; i++) {
        float size = expected[i] < 0.0f ? -expected[i] : expected[i];
        largest = size > largest ? size : largest;
    }
    for (i = 0; i < POLICY_OUTPUTS; i++) {
        apart = found[i] - expected[i];
        if (!(apart <= 0x1.4f8b58p-17f * largest && -apart <= 0x1.4f8b58p-17f * largest)) /* NaN differs */
            return 1;
    }
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
