        int i;
        for (i = 0; i < stride; i++) {
            int32_t v = x[i];
            a += v * weight[i];
            b += v * second[i];
            c += v * third[i];
            d += v * fourth[i];
        }
