            /* Two columns, eight numbers a turn: the weights are taken apart once. */
            const int16_t *v = x + column * stride, *u = v + stride;
            const int8_t *w = weight, *end = weight + stride;
            int32_t a = 0, b = 0;
            __asm__("1: ldrd r4, r5, [%[w]], #8\n"
                    "sxtb16 r6, r4\n"
                    "sxtb16 r4, r4, ror #8\n"
                    "sxtb16 r8, r5\n"
                    "sxtb16 r5, r5, ror #8\n"
                    "ldrd r10, r11, [%[v]], #8\n"
                    "smlad %[a], r10, r6, %[a]\n"
                    "smlad %[a], r11, r4, %[a]\n"
                    "ldrd r10, r11, [%[v]], #8\n"
                    "smlad %[a], r10, r8, %[a]\n"
                    "smlad %[a], r11, r5, %[a]\n"
                    "ldrd r10, r11, [%[u]], #8\n"
                    "smlad %[b], r10, r6, %[b]\n"
                    "smlad %[b], r11, r4, %[b]\n"
                    "ldrd r10, r11, [%[u]], #8\n"
                    "smlad %[b], r10, r8, %[b]\n"
                    "smlad %[b], r11, r5, %[b]\n"
                    "cmp %[w], %[end]\n"
                    "bne 1b\n"
                    : [v] "+r"(v), [w] "+r"(w), [u] "+r"(u), [a] "+r"(a), [b] "+r"(b)
                    : [end] "r"(end)
                    : "r4", "r5", "r6", "r8", "r10", "r11", "cc", "memory");
            total[16 * column + row] = a;
            total[16 * column + 16 + row] = b;
