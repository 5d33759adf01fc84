#ifndef POLICY_H
#define POLICY_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define POLICY_OBSERVATION_SIZE @observation@ /* numbers in a whole observation, the stack of frames included */
#define POLICY_FRAME_SIZE @frame@ /* numbers in one frame */
#define POLICY_STACK @stack@ /* frames in an observation, the oldest first */
#define POLICY_OUTPUTS @outputs@
#define POLICY_DISCRETE @discrete@ /* 1: one action of several; 0: numbers */
#define POLICY_ACTIONS @outputs@ /* actions to choose from, or numbers in an action */
#define POLICY_ARENA_BYTES @arena@ /* RAM for one decision, static; compiled for AVX, more */
#define POLICY_STACK_BYTES @stack_bytes@ /* and for the frames that policy_step keeps */
#define POLICY_CONSTANT_BYTES @constants@ /* weights */

typedef @input@ policy_input;
typedef @output@ policy_output;

/* What the policy was called, in UTF-8; nothing here reads it. */
extern const unsigned char policy_title[];

/* Outputs for a whole observation. Not for two threads at once: the arena is shared. */
void policy_forward(const policy_input *observation, policy_output *outputs);

/* Before the first frame of an episode. */
void policy_reset(void);

/* Outputs for the newest frame and those before it; before the first all are zero. */
void policy_step(const policy_input *frame, policy_output *outputs);

@decide@
/* With -DPOLICY_SELF_TEST: how many of the recorded decisions come out otherwise; 0 is good. */
int policy_self_test(void);

#ifdef __cplusplus
}
#endif
#endif
