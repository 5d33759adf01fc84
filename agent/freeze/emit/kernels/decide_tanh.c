void policy_actions(const policy_output *outputs, float *actions)
{
    int i;
    for (i = 0; i < POLICY_ACTIONS; i++)
        actions[i] = @low@[i] + 0.5f * (tanhf(outputs[i]) + 1.0f) * (@high@[i] - @low@[i]);
}

