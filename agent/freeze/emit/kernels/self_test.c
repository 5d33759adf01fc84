#ifdef POLICY_SELF_TEST
@observations@
@expected@
@differs@
int policy_self_test(void)
{
    static policy_output outputs[POLICY_OUTPUTS];
    static policy_input frame[POLICY_FRAME_SIZE];
    int failures = 0, place, turn, i;
    for (place = 0; place < @golden@; place++) {
        const policy_input *observation = policy_golden_observations + (long)place * POLICY_OBSERVATION_SIZE;
        const policy_output *expected = policy_golden_outputs + place * POLICY_OUTPUTS;
        int wrong;
        policy_forward(observation, outputs);
        wrong = policy_differs(outputs, expected);
        policy_reset();
        for (turn = 0; turn < POLICY_STACK; turn++) {
            for (i = 0; i < POLICY_FRAME_SIZE; i++)
                frame[i] = observation[i / @part@ * @length@ + turn * @part@ + i % @part@];
            policy_step(frame, outputs);
        }
        failures += wrong || policy_differs(outputs, expected);
    }
    return failures;
}
#endif
