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
        if (!(apart <= @tolerance@ * largest && -apart <= @tolerance@ * largest)) /* NaN differs */
            return 1;
    }
    return 0;
}
