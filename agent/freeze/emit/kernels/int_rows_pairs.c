    /* Two rows of weights, four numbers a turn. */
    for (; rows > 0; rows -= 2, weight += 2 * stride, total += 2) {
        const int16_t *v = x, *end = x + stride;
        const @weight@ *w = weight, *u = weight + stride;
        @total@ a = 0, b = 0;
        __asm__("1: ldrd r4, r5, [%[v]], #8\n"
                POLICY_TAKE_@bits@("w") POLICY_ADD_@sum@("a") POLICY_TAKE_@bits@("u") POLICY_ADD_@sum@("b")
                "cmp %[v], %[end]\n"
                "bne 1b\n"
                : [v] "+r"(v), [w] "+r"(w), [u] "+r"(u), [a] "+r"(a), [b] "+r"(b)
                : [end] "r"(end)
                : "r4", "r5", "r6", "r8", "cc", "memory");
        total[0] = a;
        total[1] = b;
    }
