/* Runs a policy on a Cortex-M model: self-test, instructions per decision, and the outputs for states from a file.
   Talks to the host by semihosting alone; nothing of a C library is needed but what a compiler takes for granted. */
#include "policy.h"

extern uint32_t board_stack_top[], board_stack_bottom[], board_bss_start[], board_bss_end[];

#define SYSTICK ((volatile uint32_t *)0xE000E010u) /* control, reload, current */
#define COPROCESSORS (*(volatile uint32_t *)0xE000ED88u)
#define PAINT 0xA5A5A5A5u

enum { OPEN = 1, CLOSE = 2, WRITE = 5, READ = 6, EXIT = 0x18, READ_BINARY = 1, WRITE_BINARY = 5 };

static uint32_t host(uint32_t operation, const void *arguments)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t file(const char *name, uint32_t length, uint32_t mode)
{
    uint32_t arguments[3];
    arguments[0] = (uint32_t)name;
    arguments[1] = mode;
    arguments[2] = length;
    return host(OPEN, arguments);
}

/* How many bytes were left over. */
static uint32_t transfer(uint32_t operation, uint32_t handle, const void *data, uint32_t bytes)
{
    uint32_t arguments[3];
    arguments[0] = handle;
    arguments[1] = (uint32_t)data;
    arguments[2] = bytes;
    return host(operation, arguments);
}

static policy_input observation[POLICY_OBSERVATION_SIZE];
static policy_output outputs[POLICY_OUTPUTS];

static void nothing(const policy_input *x, policy_output *y)
{
    __asm__ volatile("" : : "r"(x), "r"(y) : "memory");
}

typedef void call(const policy_input *, policy_output *);

/* Ticks for `turns` calls; the same code for whatever is called. */
static uint32_t __attribute__((noinline)) ticks(call *volatile decide, int turns)
{
    uint32_t start = SYSTICK[2];
    int i;
    for (i = 0; i < turns; i++)
        decide(observation, outputs);
    return (start - SYSTICK[2]) & 0xFFFFFF;
}

/* Ticks for two million instructions. */
static uint32_t yardstick(void)
{
    uint32_t start = SYSTICK[2], left = 1000000;
    __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(left) : : "cc");
    return (start - SYSTICK[2]) & 0xFFFFFF;
}

int main(void)
{
    static uint32_t report[5];
    uint32_t states = file("states.bin", 10, READ_BINARY), found = file("outputs.bin", 11, WRITE_BINARY), out;
    uint32_t *top;
    volatile uint32_t *stack; /* no memset, which would need the stack it paints */
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5; /* on, counting the processor's clock */
    __asm__ volatile("mov %0, sp" : "=r"(top));
    for (stack = board_stack_bottom; stack < top; stack++)
        *stack = PAINT;
    while (transfer(READ, states, observation, sizeof observation) == 0) {
        policy_forward(observation, outputs);
        transfer(WRITE, found, outputs, sizeof outputs);
    }
    report[1] = yardstick();
    report[2] = ticks(policy_forward, @turns@);
    report[3] = ticks(nothing, @turns@);
    for (stack = board_stack_bottom; *stack == PAINT; stack++)
        ;
    report[4] = (uint32_t)((char *)top - (volatile char *)stack);
    report[0] = (uint32_t)policy_self_test();
    transfer(CLOSE, found, 0, 0);
    out = file("report.bin", 10, WRITE_BINARY);
    transfer(WRITE, out, report, sizeof report);
    host(EXIT, (const void *)0x20026); /* the application ended */
    for (;;)
        ;
}

void board_reset(void)
{
    uint32_t *word;
    for (word = board_bss_start; word < board_bss_end; word++)
        *word = 0;
    COPROCESSORS |= 0xFu << 20; /* floating point and vectors */
    __asm__ volatile("dsb\n isb");
    main();
}

static void board_fault(void)
{
    host(EXIT, (const void *)0x20023); /* a run-time error: the report will be missing */
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    board_stack_top, (void *)board_reset, (void *)board_fault, (void *)board_fault, (void *)board_fault,
    (void *)board_fault, (void *)board_fault, (void *)board_fault,
};
