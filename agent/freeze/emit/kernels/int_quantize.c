/* round(x * 2^exponent), halves away from zero; NaN is 0. */
static void @name@(const float *x, @out@ *y)
{
    int i;
    for (i = 0; i < @count@; i++) {
        float low = (float)@least@[i] - 1.0f, high = (float)@most@[i] + 1.0f, v = x[i] * @factor@[i];
        v = v != v ? 0.0f : v;
        v = v < low ? low : v > high ? high : v;
        y[i] = (@out@)policy_limit_32((int32_t)(v + (v < 0.0f ? -0.5f : 0.5f)), @least@[i], @most@[i]);
    }
}

