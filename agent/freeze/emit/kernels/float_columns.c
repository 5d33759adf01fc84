#if POLICY_LANES >= 8
/* total[c][o] = sum of x[c][at[i]] * weight[i][o], @width@ outputs, six columns; rows of total are `outputs` apart. */
static void policy_columns_@width@(const float *weight, const policy_windows *windows, int count, float *total,
                                   int outputs)
{
    enum { LANES = POLICY_LANES < @width@ ? POLICY_LANES : @width@, PARTS = @width@ / LANES };
    typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    const float *const *x = windows->x;
    const int32_t *at = windows->at;
    int i;
    POLICY_COLUMNS(POLICY_SUMS)
    for (i = 0; i < count; i++, weight += @width@) {
        vector v = ((const vector *)weight)[0], w = ((const vector *)weight)[PARTS - 1];
        POLICY_LOADED(v);
        POLICY_LOADED(w);
        POLICY_COLUMNS(POLICY_STEP)
    }
    POLICY_COLUMNS(POLICY_STORE)
}
#else
/* total[c][o] = sum of x[c][i] * weight[i][o], @width@ outputs, four columns; rows of total are `outputs` apart. */
static void policy_columns_@width@(const float *weight, const float *x, int count, float *total, int outputs)
{
    int column;
#ifdef POLICY_LANES
    enum { LANES = POLICY_LANES < @width@ ? POLICY_LANES : @width@, PARTS = @width@ / LANES };
    typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    vector sum[4][PARTS];
    int i, part;
    for (column = 0; column < 4; column++)
        for (part = 0; part < PARTS; part++)
            sum[column][part] = (vector){0};
#ifndef __clang__
#pragma GCC unroll 2
#endif
    for (i = 0; i < count; i++, weight += @width@)
        for (part = 0; part < PARTS; part++) {
            vector w = ((const vector *)weight)[part];
            POLICY_LOADED(w);
            for (column = 0; column < 4; column++)
                sum[column][part] += x[column * count + i] * w;
        }
    for (column = 0; column < 4; column++)
        for (part = 0; part < PARTS; part++)
            ((vector *)(total + column * outputs))[part] = sum[column][part];
#else
    int i, o;
    for (column = 0; column < 4; column++, x += count, total += outputs)
        for (o = 0; o < @width@; o += 4) {
            const float *w = weight + o;
            float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
            for (i = 0; i < count; i++, w += @width@) {
                a += x[i] * w[0];
                b += x[i] * w[1];
                c += x[i] * w[2];
                d += x[i] * w[3];
            }
            total[o] = a;
            total[o + 1] = b;
            total[o + 2] = c;
            total[o + 3] = d;
        }
#endif
}
#endif

