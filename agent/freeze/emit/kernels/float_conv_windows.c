#if POLICY_LANES >= 8
/* @planes@ x @channels@ channels of @height@ x @width@ -> @outputs@ of @out_height@ x @out_width@, without patches:
   of a picture of floats with zeros around. */
static void @name@(const @in@ *x, @in@ *patch, float *taken, float *four, float *y)
{
    enum { CHANNELS = @channels@, WIDE = @wide@, RUN = @kernel_width@ * CHANNELS };
    int32_t at[@inputs@];
    float total[6 * @padded@], *to = policy_picture;
    policy_windows windows, *columns = &windows;
    int place, column, o, i, j;
    (void)patch;
    (void)taken;
    (void)four;
    windows.at = at;
    for (i = 0; i < @inputs@ / RUN; i++)
        for (j = 0; j < RUN; j++)
            at[i * RUN + j] = (i / @kernel_height@ * (@height@ + @padding@) + i % @kernel_height@) * WIDE + j;
    for (i = 0; i < @padding@ * (WIDE + CHANNELS); i++)
        *to++ = 0.0f;
    for (i = 0; i < @areas@; i++) {
        for (j = 0; j < @lines@; j++) {
            for (o = 0; o < @line@; o++)
                *to++ = (float)*x++;
            for (; o < @spread@; o++)
                *to++ = 0.0f;
        }
        for (j = 0; j < @padding@ * WIDE; j++)
            *to++ = 0.0f;
    }
    for (place = 0; place < @places@; place += 6) {
        int left = @places@ - place < 6 ? @places@ - place : 6;
        for (column = 0; column < 6; column++) {
            int each = place + (column < left ? column : left - 1);
            windows.x[column] = policy_picture + (each / @out_width@ * WIDE + each % @out_width@ * CHANNELS) * @stride@;
        }
@blocks@
        for (column = 0; column < left; column++)
            for (o = 0; o < @outputs@; o++)
                *y++ = @activation@(total[column * @padded@ + o] + @bias@[o]);
    }
}
#else
