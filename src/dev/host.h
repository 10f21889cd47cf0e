/* What the board's devices ask of the machine: its life and its A20 gate. */
#ifndef DEV_HOST_H
#define DEV_HOST_H

#include "base/types.h"

/* Any function may be NULL. They are called in the middle of a guest instruction, so they
 * only note what is to happen (VCPU_EVENT_STOP) and return. */
struct dev_host {
    void (*poweroff)(void *arg);
    void (*reset)(void *arg);
    void (*debug_exit)(void *arg, uint32_t value); /* the value written to port 0xf4 */
    void (*a20)(void *arg, bool on);               /* the gate moved */
    void *arg;
};

#endif
