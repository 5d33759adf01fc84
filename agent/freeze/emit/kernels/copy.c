static void policy_copy_@in@(const @in@ *x, int count, @out@ *y)
{
    int i;
    for (i = 0; i < count; i++)
        y[i] = x[i];
}

