void policy_reset(void)
{
}

void policy_step(const policy_input *frame, policy_output *outputs)
{
    policy_forward(frame, outputs);
}

