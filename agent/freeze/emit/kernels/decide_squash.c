void policy_squash(const policy_output *outputs, int16_t *unit)
{
    int i;
    for (i = 0; i < POLICY_ACTIONS; i++) {
        int64_t v = policy_round_64((int64_t)outputs[i] * @multiplier@[i], @shift@[i]);
        unit[i] = (int16_t)policy_interpolate(@table@, policy_limit_64(v, -32767, 32767));
    }
}

void policy_actions(const policy_output *outputs, float *actions)
{
    int16_t unit[POLICY_ACTIONS];
    int i;
    policy_squash(outputs, unit);
    for (i = 0; i < POLICY_ACTIONS; i++) {
        double v = @low@[i] + (unit[i] + 32768.0) / 65536.0 * (@high@[i] - @low@[i]);
        actions[i] = (float)(v < @low@[i] ? @low@[i] : v > @high@[i] ? @high@[i] : v);
    }
}

