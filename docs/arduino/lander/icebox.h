/* A frozen policy in an Arduino-style loop, header only. Goes beside policy.c and policy.h of the artefact. */
#ifndef ICEBOX_H
#define ICEBOX_H
#include "policy.h"

/* Decides at a fixed rate: a policy was trained on frames a fixed time apart, and plays badly on others. */
struct Icebox {
    policy_output outputs[POLICY_OUTPUTS];
    uint32_t next, period; /* in microseconds */

    /* At the start of every episode. */
    void begin(uint32_t now, uint32_t frame_period)
    {
        policy_reset();
        next = now;
        period = frame_period;
    }

    /* True when a new frame is due; late frames are not made up for. */
    bool due(uint32_t now)
    {
        if ((int32_t)(now - next) < 0)
            return false;
        next = (int32_t)(now - next) < (int32_t)period ? next + period : now + period;
        return true;
    }

#if POLICY_DISCRETE
    /* The number of the action for the newest frame. */
    int choose(const policy_input *frame)
    {
        policy_step(frame, outputs);
        return policy_action(outputs);
    }
#else
    /* The action, POLICY_ACTIONS numbers, for the newest frame. */
    void choose(const policy_input *frame, float *action)
    {
        policy_step(frame, outputs);
        policy_actions(outputs, action);
    }
#endif
};

#endif
