static inline int32_t policy_limit_@bits@(int@bits@_t q, int32_t low, int32_t high)
{
    return q < low ? low : q > high ? high : (int32_t)q;
}

