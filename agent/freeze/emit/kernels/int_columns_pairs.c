            /* Two columns, four numbers a turn. */
            const int16_t *v = x + column * stride, *u = v + stride;
            const @weight@ *w = weight, *end = weight + stride;
            @total@ a = 0, b = 0;
            __asm__("1: " POLICY_TAKE_@bits@("w") "mov r4, r6\n mov r5, r8\n"
                    POLICY_TAKE_16("v") POLICY_ADD_@sum@("a") POLICY_TAKE_16("u") POLICY_ADD_@sum@("b")
                    "cmp %[w], %[end]\n"
                    "bne 1b\n"
                    : [v] "+r"(v), [w] "+r"(w), [u] "+r"(u), [a] "+r"(a), [b] "+r"(b)
                    : [end] "r"(end)
                    : "r4", "r5", "r6", "r8", "cc", "memory");
            total[16 * column + row] = a;
            total[16 * column + 16 + row] = b;
