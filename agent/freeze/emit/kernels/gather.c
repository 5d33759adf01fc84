/* What the kernel sees at (row, column), rows of pixels one after the other; zeros outside. */
static void @name@_gather(const @in@ *x, int row, int column, @in@ *patch)
{
    enum { CHANNELS = @channels@, HEIGHT = @height@, WIDTH = @width@, RUN = @kernel_width@ * CHANNELS };
    int top = row * @stride@ - @padding@, left = column * @stride@ - @padding@;
    int plane, i, j, channel;
    if (top >= 0 && left >= 0 && top + @kernel_height@ <= HEIGHT && left + @kernel_width@ <= WIDTH) {
        x += (top * WIDTH + left) * CHANNELS;
        for (plane = 0; plane < @planes@; plane++, x += HEIGHT * WIDTH * CHANNELS)
            for (i = 0; i < @kernel_height@; i++, patch += RUN)
                for (j = 0; j < RUN; j++)
                    patch[j] = x[i * WIDTH * CHANNELS + j];
        return;
    }
    for (plane = 0; plane < @planes@; plane++, x += HEIGHT * WIDTH * CHANNELS)
        for (i = top; i < top + @kernel_height@; i++)
            for (j = left; j < left + @kernel_width@; j++, patch += CHANNELS) {
                int inside = i >= 0 && i < HEIGHT && j >= 0 && j < WIDTH;
                const @in@ *seen = x + (inside ? i * WIDTH + j : 0) * CHANNELS;
                for (channel = 0; channel < CHANNELS; channel++)
                    patch[channel] = inside ? seen[channel] : 0;
            }
}

