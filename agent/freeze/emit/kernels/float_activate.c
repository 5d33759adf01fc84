static void @name@(const @in@ *x, float *y)
{
    int i;
    for (i = 0; i < @count@; i++)
        y[i] = @activation@((float)x[i]);
}

