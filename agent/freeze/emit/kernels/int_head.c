/* @inputs@ -> @outputs@, not rounded */
static void @name@(const int16_t *row, int32_t *y)
{
    @total@ q[4];
    int o, i;
    for (o = 0; o < @outputs@; o += 4) {
        policy_rows_@tag@(@weight@ + o * @row@, @row@, row, 4, q);
        for (i = 0; i < 4 && o + i < @outputs@; i++)
            y[o + i] = (int32_t)((int64_t)q[i] * @multiplier@[o + i] + @bias@[o + i]);
    }
}

