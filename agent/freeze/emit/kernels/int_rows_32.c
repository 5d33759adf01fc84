#ifdef POLICY_AVX2
        policy_sums p = {0}, q = p, r = p, s = p, v, product;
        int i;
        for (i = 0; i + 16 <= stride; i += 16) {
            v = *(const policy_32 *)(x + i);
            POLICY_SIXTEEN_@bits@(p, v, weight + i)
            POLICY_SIXTEEN_@bits@(q, v, second + i)
            POLICY_SIXTEEN_@bits@(r, v, third + i)
            POLICY_SIXTEEN_@bits@(s, v, fourth + i)
        }
        if (i < stride) { /* eight more; the rest of v is 0 */
            __asm__("vmovdqu %1, %x0" : "=x"(v) : "m"(*(const policy_16 *)(x + i)));
            POLICY_EIGHT_@bits@(p, v, weight + i)
            POLICY_EIGHT_@bits@(q, v, second + i)
            POLICY_EIGHT_@bits@(r, v, third + i)
            POLICY_EIGHT_@bits@(s, v, fourth + i)
        }
        /* Halves of all four sums. */
        __asm__("vphaddd %2, %1, %0" : "=x"(p) : "x"(p), "x"(q));
        __asm__("vphaddd %2, %1, %0" : "=x"(r) : "x"(r), "x"(s));
        __asm__("vphaddd %2, %1, %0" : "=x"(p) : "x"(p), "x"(r));
        a = p[0] + p[4];
        b = p[1] + p[5];
        c = p[2] + p[6];
        d = p[3] + p[7];
#else
        int i;
        for (i = 0; i < stride; i++) {
            int32_t v = x[i];
            a += v * weight[i];
            b += v * second[i];
            c += v * third[i];
            d += v * fourth[i];
        }
#endif
