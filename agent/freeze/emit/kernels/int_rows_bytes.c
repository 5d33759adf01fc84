    /* Two rows of weights, eight numbers a turn: SXTB16 takes bytes 0 2 and 1 3 of a word apart, SMLAD adds a pair. */
    for (; rows > 0; rows -= 2, weight += 2 * stride, total += 2) {
        const int16_t *v = x, *end = x + stride;
        const int8_t *w = weight, *u = weight + stride;
        int32_t a = 0, b = 0;
        __asm__("1: ldmia %[v]!, {r8-r11}\n"
                "ldrd r4, r5, [%[w]], #8\n"
                "sxtb16 r6, r4\n"
                "sxtb16 r4, r4, ror #8\n"
                "smlad %[a], r8, r6, %[a]\n"
                "smlad %[a], r9, r4, %[a]\n"
                "sxtb16 r6, r5\n"
                "sxtb16 r5, r5, ror #8\n"
                "smlad %[a], r10, r6, %[a]\n"
                "smlad %[a], r11, r5, %[a]\n"
                "ldrd r4, r5, [%[u]], #8\n"
                "sxtb16 r6, r4\n"
                "sxtb16 r4, r4, ror #8\n"
                "smlad %[b], r8, r6, %[b]\n"
                "smlad %[b], r9, r4, %[b]\n"
                "sxtb16 r6, r5\n"
                "sxtb16 r5, r5, ror #8\n"
                "smlad %[b], r10, r6, %[b]\n"
                "smlad %[b], r11, r5, %[b]\n"
                "cmp %[v], %[end]\n"
                "bne 1b\n"
                : [v] "+r"(v), [w] "+r"(w), [u] "+r"(u), [a] "+r"(a), [b] "+r"(b)
                : [end] "r"(end)
                : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "cc", "memory");
        total[0] = a;
        total[1] = b;
    }
