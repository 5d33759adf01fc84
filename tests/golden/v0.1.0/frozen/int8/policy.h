#ifndef POLICY_H
#define POLICY_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define POLICY_OBSERVATION_SIZE 4 /* numbers in a whole observation, the stack of frames included */
#define POLICY_FRAME_SIZE 4 /* numbers in one frame */
#define POLICY_STACK 1 /* frames in an observation, the oldest first */
#define POLICY_OUTPUTS 2
#define POLICY_DISCRETE 1 /* 1: one action of several; 0: numbers */
#define POLICY_ACTIONS 2 /* actions to choose from, or numbers in an action */
#define POLICY_ARENA_BYTES 96 /* RAM for one decision, static; compiled for AVX, more */
#define POLICY_STACK_BYTES 0 /* and for the frames that policy_step keeps */
#define POLICY_CONSTANT_BYTES 396 /* weights */

typedef float policy_input;
typedef int32_t policy_output;

/* What the policy was called, in UTF-8; nothing here reads it. */
extern const unsigned char policy_title[];

/* Outputs for a whole observation. Not for two threads at once: the arena is shared. */
void policy_forward(const policy_input *observation, policy_output *outputs);

/* Before the first frame of an episode. */
void policy_reset(void);

/* Outputs for the newest frame and those before it; before the first all are zero. */
void policy_step(const policy_input *frame, policy_output *outputs);

int policy_action(const policy_output *outputs); /* the largest output, the first of several */

/* With -DPOLICY_SELF_TEST: how many of the recorded decisions come out otherwise; 0 is good. */
int policy_self_test(void);

#ifdef __cplusplus
}
#endif
#endif
