/* A policy of Lunar Lander's shape on a board: eight sensors in, one of four thrusters out, 50 times a second.
   Replace `measure` and `thrust` by what your machine has; units and order must be those of the card, policy.json. */
#include "icebox.h"

static Icebox policy;
static const int thrusters[POLICY_ACTIONS] = {-1, 2, 3, 4}; /* pins; action 0 does nothing */

static void measure(policy_input *frame)
{
    for (int i = 0; i < POLICY_FRAME_SIZE; i++)
        frame[i] = (policy_input)(analogRead(A0 + i) / 512.0f - 1.0f);
}

static void thrust(int action)
{
    for (int i = 1; i < POLICY_ACTIONS; i++)
        digitalWrite(thrusters[i], i == action ? HIGH : LOW);
}

void setup()
{
    Serial.begin(115200);
    for (int i = 1; i < POLICY_ACTIONS; i++)
        pinMode(thrusters[i], OUTPUT);
    policy.begin(micros(), 20000);
}

void loop()
{
    static policy_input frame[POLICY_FRAME_SIZE];
    if (!policy.due(micros()))
        return;
    measure(frame);
    uint32_t start = micros();
    int action = policy.choose(frame);
    uint32_t taken = micros() - start;
    thrust(action);
    Serial.print(action);
    Serial.print(" in us ");
    Serial.println(taken);
}
