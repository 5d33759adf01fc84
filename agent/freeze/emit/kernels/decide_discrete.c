int policy_action(const policy_output *outputs)
{
    int best = 0, i;
    for (i = 1; i < POLICY_OUTPUTS; i++)
        if (outputs[i] > outputs[best])
            best = i;
    return best;
}

