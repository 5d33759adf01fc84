    @total@ a = 0, b = 0, c = 0, d = 0;
    int i;
    const @weight@ *next = weight + stride;
    @total@ e = 0, f = 0, g = 0, h = 0;
    for (i = 0; i < stride; i++) {
        int32_t v = weight[i], w = next[i];
        a += v * x[i];
        b += v * second[i];
        c += v * third[i];
        d += v * fourth[i];
        e += w * x[i];
        f += w * second[i];
        g += w * third[i];
        h += w * fourth[i];
    }
    total[0] = a;
    total[1] = e;
    total[16] = b;
    total[17] = f;
    total[32] = c;
    total[33] = g;
    total[48] = d;
    total[49] = h;
