#ifdef POLICY_AVX2
/* @planes@ x @channels@ channels of @height@ x @width@ -> @outputs@ of @out_height@ x @out_width@, without patches:
   of a picture of 16 bits with zeros around. The weights are packed before the first decision. */
static void @name@(const @in@ *x, @in@ *patch, int16_t *rows, @out@ *y)
{
    enum { CHANNELS = @channels@, WIDE = @wide@, RUN = @kernel_width@ * CHANNELS, PAIRS = (RUN + 1) / 2 };
    enum { RUNS = @planes@ * @kernel_height@ };
    static int16_t weight[@blocks@ * RUNS * PAIRS * 32];
    static int32_t at[RUNS * PAIRS];
    static int packed;
    int32_t total[16 * @columns@];
    int16_t *to = policy_picture;
    int place, column, o, i, j;
    (void)patch;
    (void)rows;
    if (!packed) {
        policy_pack_@bits@(@weight@, @outputs@, @row@, RUNS, RUN, weight);
        for (i = 0; i < RUNS; i++)
            for (j = 0; j < PAIRS; j++)
                at[i * PAIRS + j] = (i / @kernel_height@ * (@height@ + @padding@) + i % @kernel_height@) * WIDE + 2 * j;
        packed = 1;
    }
    for (i = 0; i < @padding@ * (WIDE + CHANNELS); i++)
        *to++ = 0;
    for (i = 0; i < @areas@; i++) {
        for (j = 0; j < @lines@; j++, x += @line@, to += @spread@)
            policy_row_@bits@_@in@(x, @line@, @spread@, to);
        for (j = 0; j < @padding@ * WIDE; j++)
            *to++ = 0;
    }
    for (place = 0; place < @places@; place += @columns@) {
        const int16_t *seen[@columns@];
        int left = @places@ - place < @columns@ ? @places@ - place : @columns@;
        for (column = 0; column < @columns@; column++) {
            int each = place + (column < left ? column : left - 1);
            seen[column] = policy_picture + (each / @out_width@ * WIDE + each % @out_width@ * CHANNELS) * @stride@;
        }
        for (o = 0; o < @outputs@; o += 16) {
            policy_pairs_@columns@(weight + o * RUNS * PAIRS * 2, at, RUNS * PAIRS, seen, total);
            for (column = 0; column < left; column++) {
                const int32_t *q = total + 16 * column;
                for (i = 0; @block@; i++) {
                    @scaled@ v = @value@;
                    y[(place + column) * @outputs@ + o + i] = (@out@)@limited@;
                }
            }
        }
    }
}
#else
