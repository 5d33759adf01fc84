static int policy_differs(const policy_output *found, const policy_output *expected)
{
    int i;
    for (i = 0; i < POLICY_OUTPUTS; i++)
        if (found[i] != expected[i])
            return 1;
    return 0;
}
