/* total[o] = sum of x[i] * weight[i][o], for @width@ outputs; four sums by turns, so that none waits for another. */
static void policy_rows_@width@_@in@(const float *weight, const @in@ *x, int count, float *total)
{
#ifdef POLICY_LANES
    enum { LANES = POLICY_LANES < @width@ ? POLICY_LANES : @width@, PARTS = @width@ / LANES };
    typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    vector sum[4][PARTS];
    int i, j, part;
    for (j = 0; j < 4; j++)
        for (part = 0; part < PARTS; part++)
            sum[j][part] = (vector){0};
    for (i = 0; i + 4 <= count; i += 4)
        for (j = 0; j < 4; j++, weight += @width@)
            for (part = 0; part < PARTS; part++)
                sum[j][part] += (float)x[i + j] * ((const vector *)weight)[part];
    for (; i < count; i++, weight += @width@)
        for (part = 0; part < PARTS; part++)
            sum[0][part] += (float)x[i] * ((const vector *)weight)[part];
    for (part = 0; part < PARTS; part++)
        ((vector *)total)[part] = (sum[0][part] + sum[1][part]) + (sum[2][part] + sum[3][part]);
#else
    int i, o;
    for (o = 0; o < @width@; o += 4) {
        const float *w = weight + o;
        float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
        for (i = 0; i < count; i++, w += @width@) {
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

