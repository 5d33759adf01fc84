static inline float policy_@kind@(float v)
{
    return @expression@;
}

