/* @inputs@ -> @outputs@ */
static void @name@(const int16_t *row, @out@ *y)
{
    @total@ q[16];
    int o, i;
    for (o = 0; o < @outputs@; o += 16) {
        policy_rows_@tag@(@weight@ + o * @row@, @row@, row, @fours@, q);
        for (i = 0; @block@; i++) {
            @scaled@ v = @value@;
            y[o + i] = (@out@)@limited@;
        }
    }
}

