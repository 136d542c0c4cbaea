/* The first two vectors of an ARM Cortex-M: the stack, and newlib's start. */

extern char __stack[];
extern void _start(void);

struct vectors {
    char *stack;
    void (*reset)(void);
};

__attribute__((section(".vectors"), used)) static const struct vectors vectors = {__stack, _start};
