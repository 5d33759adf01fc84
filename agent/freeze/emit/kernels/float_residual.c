static void @name@(const float *x, const float *branch, float *y)
{
    int i;
    for (i = 0; i < @count@; i++)
        y[i] = @activation@(x[i] + branch[i]);
}

