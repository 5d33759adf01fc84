static policy_input policy_frames[POLICY_OBSERVATION_SIZE];

void policy_reset(void)
{
    int i;
    for (i = 0; i < POLICY_OBSERVATION_SIZE; i++)
        policy_frames[i] = 0;
}

void policy_step(const policy_input *frame, policy_output *outputs)
{
    enum { LENGTH = @length@, PART = @part@ }; /* of what lies together, and the newest frame's share of it */
    int start, i;
    for (start = 0; start < POLICY_OBSERVATION_SIZE; start += LENGTH) {
        for (i = start; i < start + LENGTH - PART; i++)
            policy_frames[i] = policy_frames[i + PART];
        for (; i < start + LENGTH; i++)
            policy_frames[i] = *frame++;
    }
    policy_forward(policy_frames, outputs);
}

