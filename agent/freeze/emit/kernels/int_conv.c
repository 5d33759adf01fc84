/* @planes@ x @channels@ channels of @height@ x @width@ -> @outputs@ of @out_height@ x @out_width@ */
static void @name@(const @in@ *x, @in@ *patch, int16_t *rows, @out@ *y)
{
    @total@ total[64];
    int place, column, o, i;
    for (place = 0; place < @places@; place += 4) {
        int seen = @places@ - place < 4 ? @places@ - place : 4;
        for (column = 0; column < seen; column++) {
            @name@_gather(x, (place + column) / @out_width@, (place + column) % @out_width@, patch);
            policy_row_@bits@_@in@(patch, @inputs@, @row@, rows + column * @row@);
        }
        for (o = 0; o < @outputs@; o += 16) {
            for (i = 0; @block@; i += 2)
                policy_columns_@tag@(@weight@ + (o + i) * @row@, @row@, rows, total + i);
            for (column = 0; column < seen; column++) {
                const @total@ *q = total + 16 * column;
                for (i = 0; @block@; i++) {
                    @scaled@ v = @value@;
                    y[(place + column) * @outputs@ + o + i] = (@out@)@limited@;
                }
            }
        }
    }
}

