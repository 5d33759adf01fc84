void policy_actions(const policy_output *outputs, float *actions)
{
    int i;
    for (i = 0; i < POLICY_ACTIONS; i++) {
        @real@ v = @value@;
        actions[i] = (float)(v < @low@[i] ? @low@[i] : v > @high@[i] ? @high@[i] : v);
    }
}

