/* @inputs@ -> @outputs@ */
static void @name@(const @in@ *x, float *y)
{
    int o;
@blocks@
    for (o = 0; o < @outputs@; o++)
        y[o] = @activation@(y[o] + @bias@[o]);
}

