static void @name@(const float *x, float *y)
{
    const float mean = @mean@;
    float part[8] = {0.0f}, power, scale;
    int i, channel;
    for (i = 0; i < @count@; i++)
        part[i & 7] += (x[i] - mean) * (x[i] - mean);
    power = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    scale = 1.0f / sqrtf(power / @trained@ + @epsilon@);
    for (i = 0; i < @count@; i += @channels@)
        for (channel = 0; channel < @channels@; channel++)
            y[i + channel] = @activation@((x[i + channel] - mean) * scale * @scale@[channel] + @shift@[channel]);
}

