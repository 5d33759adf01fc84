static void policy_add(const float *x, int count, float share, float *sum)
{
    int i;
    for (i = 0; i < count; i++)
        sum[i] += x[i] * share;
}

