/* The smallest program that decides: its size is what the policy takes of a board. */
#include "policy.h"

void board_reset(void)
{
    static policy_input frame[POLICY_FRAME_SIZE];
    static policy_output outputs[POLICY_OUTPUTS];
    policy_reset();
    for (;;)
        policy_step(frame, outputs);
}
