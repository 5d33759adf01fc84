#ifdef __AVX2__
/* The largest of what a @kernel_height@ x @kernel_height@ window sees: down its columns first, in long loops. */
static void @name@(const @in@ *restrict x, @in@ *restrict y)
{
    enum { CHANNELS = @channels@, HEIGHT = @height@, WIDTH = @width@, ACROSS = @out_width@ };
    static @in@ rows[WIDTH * CHANNELS];
    int row, column, i, k;
    for (row = 0; row < @out_height@; row++, y += ACROSS * CHANNELS) {
        int top = row * @stride@ - @padding@, first = top < 0 ? 0 : top;
        for (k = 0; k < WIDTH * CHANNELS; k++)
            rows[k] = x[first * WIDTH * CHANNELS + k];
        for (i = first + 1; i < top + @kernel_height@ && i < HEIGHT; i++)
            for (k = 0; k < WIDTH * CHANNELS; k++)
                rows[k] = x[i * WIDTH * CHANNELS + k] > rows[k] ? x[i * WIDTH * CHANNELS + k] : rows[k];
        for (k = 0; k < ACROSS * CHANNELS; k++)
            y[k] = @lowest@;
        for (i = 0; i < @kernel_height@; i++)
            for (column = 0; column < ACROSS; column++) {
                int at = column * @stride@ - @padding@ + i;
                @in@ *most = y + column * CHANNELS;
                if (at >= 0 && at < WIDTH)
                    for (k = 0; k < CHANNELS; k++)
                        most[k] = rows[at * CHANNELS + k] > most[k] ? rows[at * CHANNELS + k] : most[k];
            }
    }
}
#else
/* The largest of what a @kernel_height@ x @kernel_height@ window sees. */
static void @name@(const @in@ *x, @in@ *y)
{
    enum { CHANNELS = @channels@, HEIGHT = @height@, WIDTH = @width@ };
    int row, column, i, j, channel;
    for (row = 0; row < @out_height@; row++)
        for (column = 0; column < @out_width@; column++, y += CHANNELS) {
            int top = row * @stride@ - @padding@, left = column * @stride@ - @padding@;
            for (channel = 0; channel < CHANNELS; channel++)
                y[channel] = @lowest@;
            for (i = top < 0 ? 0 : top; i < top + @kernel_height@ && i < HEIGHT; i++)
                for (j = left < 0 ? 0 : left; j < left + @kernel_height@ && j < WIDTH; j++) {
                    const @in@ *seen = x + (i * WIDTH + j) * CHANNELS;
                    for (channel = 0; channel < CHANNELS; channel++)
                        y[channel] = seen[channel] > y[channel] ? seen[channel] : y[channel];
                }
        }
}
#endif

