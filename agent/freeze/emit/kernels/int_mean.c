/* Halves away from zero. */
static int32_t policy_mean_@in@(const @in@ *x, int count)
{
    int64_t sum = 0;
    int i;
    for (i = 0; i < count; i++)
        sum += x[i];
    return (int32_t)(sum < 0 ? -((count / 2 - sum) / count) : (sum + count / 2) / count);
}

