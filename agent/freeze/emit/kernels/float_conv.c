/* @planes@ x @channels@ channels of @height@ x @width@ -> @outputs@ of @out_height@ x @out_width@ */
static void @name@(const @in@ *x, @in@ *patch, float *columns, float *total, float *y)
{
    int place, column, o, i;
    for (place = 0; place < @places@; place += 4) {
        int seen = @places@ - place < 4 ? @places@ - place : 4;
        for (column = 0; column < seen; column++) {
            @name@_gather(x, (place + column) / @out_width@, (place + column) % @out_width@, patch);
            for (i = 0; i < @inputs@; i++)
                columns[column * @inputs@ + i] = (float)patch[i];
        }
@blocks@
        for (column = 0; column < seen; column++)
            for (o = 0; o < @outputs@; o++)
                *y++ = @activation@(total[column * @padded@ + o] + @bias@[o]);
    }
}

