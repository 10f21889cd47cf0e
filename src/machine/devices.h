/*
 * The devices that a machine has because its configuration asks for them. Each is one
 * entry of a table (makers.c): how it is made; and what was made says what becomes of it
 * in each life of the machine.
 */
#ifndef MACHINE_DEVICES_H
#define MACHINE_DEVICES_H

#include "base/types.h"

struct machine;
struct snapshot;

/* Of one kind of device. All are called with nobody else in the board. */
struct machine_device_ops {
    /* The guest's life has ended: nothing may write to its memory any more when this
     * returns. Waits for the back end. May be NULL. */
    void (*quiet)(void *dev);
    void (*reset)(void *dev); /* power-up state; may be NULL */
    void (*free)(void *dev);
    /* Its record of a snapshot, and what that is called. A transport's is read before
     * those of the devices. NULL: a machine that has it can be in no snapshot. */
    const char *name;
    void (*state)(void *dev, struct snapshot *s);
    bool transport;
    /* All has been read, the guest is about to run: may be NULL. */
    void (*go_on)(void *dev);
};

/* DEV is the machine's from now on. -ENOMEM: it has been freed. */
int machine_device_add(struct machine *m, const struct machine_device_ops *ops,
                       void *dev);

/* Makes what the configuration asks for, in the table's order, when the board is there.
 * 0, or -errno with one sentence in WHY. */
int machine_devices_create(struct machine *m, char *why, size_t why_size);
/* Before memory is zeroed for the next life; and when all else has been reset. */
void machine_devices_quiet(struct machine *m);
void machine_devices_reset(struct machine *m);
/* Their records of a snapshot (records.c). */
void machine_devices_records(struct machine *m, struct snapshot *s);
void machine_devices_go_on(struct machine *m);
/* The last that was made goes first. */
void machine_devices_free(struct machine *m);

#endif
