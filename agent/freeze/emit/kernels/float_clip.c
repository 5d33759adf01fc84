static void @name@(const @in@ *x, float *y)
{
    int i;
    for (i = 0; i < @count@; i++) {
        float v = (float)x[i];
        y[i] = v < @low@[i] ? @low@[i] : v > @high@[i] ? @high@[i] : v;
    }
}

