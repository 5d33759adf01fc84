static void @name@(const @in@ *x, const float *factor, float *y)
{
    int i;
    for (i = 0; i < @count@; i++)
        y[i] = (float)x[i] * factor[i];
}

