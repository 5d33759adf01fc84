/* 32 bits that wrap. */
static void policy_add_@in@(const @in@ *x, int count, int32_t *sum)
{
    int i;
    for (i = 0; i < count; i++)
        sum[i] = (int32_t)((uint32_t)sum[i] + (uint32_t)x[i]);
}

