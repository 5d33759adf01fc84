static float policy_mean(const float *x, int count)
{
    float sum = 0.0f, part[8] = {0.0f};
    int i;
    for (i = 0; i < count; i++)
        part[i & 7] += x[i];
    for (i = 0; i < 8; i++)
        sum += part[i];
    return sum / (float)count;
}

