/* v / 2^shift, halves to even. */
static inline int@bits@_t policy_round_@bits@(int@bits@_t v, int shift)
{
    return shift ? (v + (((int@bits@_t)1 << (shift - 1)) - 1) + ((v >> shift) & 1)) >> shift : v;
}

