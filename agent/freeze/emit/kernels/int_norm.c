static void @name@(const @in@ *x, @out@ *y)
{
    const int32_t mean = @mean@;
    int64_t power = @epsilon@;
    uint32_t r;
    int n, up, down, place, channel;
    for (place = 0; place < @count@; place++)
        power += (int64_t)(x[place] - mean) * (x[place] - mean);
    r = policy_reciprocal_root((uint64_t)power, &n);
    /* size * r / 2^(41 - n) as the upper half of a product: size < 2^(31 - n), as it is part of the root. */
    up = n > 9 ? n - 9 : 0;
    down = n < 9 ? 9 - n : 0;
    for (place = 0; place < @count@; place += @channels@, x += @channels@, y += @channels@)
        for (channel = 0; channel < @channels@; channel++) {
            int32_t q = x[channel] - mean;
            uint32_t size = (uint32_t)(q < 0 ? -q : q) << up;
            int32_t v = (int32_t)((uint32_t)((uint64_t)size * r >> 32) >> down);
            int64_t scaled = (int64_t)(q < 0 ? -v : v) * @scale@[channel] + @bias@[channel];
            y[channel] = (@out@)@limited@;
        }
}

