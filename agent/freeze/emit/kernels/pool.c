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

