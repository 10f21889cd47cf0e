/* Shared by the files of the room; see hv.h. */
#ifndef HV_HV_INT_H
#define HV_HV_INT_H

#include "engine/engine.h"
#include "engine/run.h"
#include "hv/hv.h"
#include "machine/board.h"
#include "svm/svm.h"

struct hv_task;

/* What engines are made with (engine_config.options). */
struct hv_engine_options {
    const struct hv_config *cfg;
    unsigned host; /* the number of the host's CPU that runs it */
};

/* What the scheduler asks of a guest's CPU (vm.c), on the host's CPU that runs it; its
 * deadline on others, too. */
struct hv_task_ops {
    /* The earliest that one of its clocks wants, of os_monotonic_ns(). */
    uint64_t (*deadline)(const struct hv_task *t);
    /* Has it anything to do? */
    bool (*ready)(struct hv_task *t);
    /* Runs it until it leaves its engine for good or for others. */
    void (*run)(struct hv_task *t);
    /* After that: true: its guest's life is over, for good. */
    bool (*over)(struct hv_task *t);
};

/* A guest's CPU, as the scheduler sees it (sched.c). */
struct hv_task {
    const struct hv_task_ops *ops;
    struct hv_vm *vm;
    struct machine_cpu *cpu;
    unsigned host;        /* the number of the host's CPU that runs it */
    bool idle;            /* halted, nothing to do: until it is woken */
    bool off;             /* its guest's life is over; atomic */
    struct hv_task *next; /* of its host's CPU */
};

/* --- console.c; guests have the numbers from 1 on --- */

void hv_console_start(unsigned guests);
void hv_console_write(unsigned guest, const uint8_t *bytes, size_t n);
/* The guest waits: a line that it has begun is shown. */
void hv_console_rest(unsigned guest);
/* A line of ours about a guest. */
void hv_console_line(unsigned guest, const char *text);
/* Takes what was typed for the guest, ROOM bytes at most. */
size_t hv_console_read(unsigned guest, uint8_t *buf, size_t room);
bool hv_console_has(unsigned guest);

/* --- sched.c --- */

/* The number of the host's CPU that has fewest of the guests'; it has one more now. */
unsigned hv_sched_place(void);
/* T is to be run by the host's CPU t->host. Before hv_sched_run(). */
void hv_sched_add(struct hv_task *t);
/* Runs all guests, on all CPUs, until each has ended. On the first. */
void hv_sched_run(void);
/* Another CPU of the host's has left T, which its guest's end has made leave. */
void hv_sched_await(const struct hv_task *t);
/* On the CPU that runs it, between two instructions of T's: the timer is set, and it
 * leaves its engine if others wait and its slice is over. */
void hv_sched_serviced(struct hv_task *t);
/* Its deadlines have changed. From any CPU, as hv_sched_kick(). */
void hv_sched_deadline(struct hv_task *t);
/* It has events that it does not know of. */
void hv_sched_kick(struct hv_task *t);

/* --- trust.c: devices of the host's that a guest has --- */

struct hv_trust;

struct hv_trust_host {
    unsigned guest; /* its number */
    unsigned cpu;   /* the number of the host's CPU that runs its first one */
    /* Its accesses to these of the host's ports need not leave, or are to again. */
    void (*ports)(void *arg, uint16_t first, unsigned count, bool open);
    void *arg;
};

/* *OUT: those that CFG names, on B, which is complete; NULL: it names none. 0, or -errno
 * with one sentence in WHY. */
int hv_trust_new(const struct hv_config *cfg, struct board *b,
                 const struct hv_trust_host *host, struct hv_trust **out, char *why,
                 size_t why_size);
/* With the board's lock; T may be NULL. Behind pci_setup(): they are the guest's. */
void hv_trust_boot(struct hv_trust *t);
/* Its life is over: they are quiet. */
void hv_trust_end(struct hv_trust *t);
/* The guest's interrupt lines are as the host's interrupts have it. */
void hv_trust_service(struct hv_trust *t);
/* That is to be done. Without the lock. */
bool hv_trust_waits(const struct hv_trust *t);

/* --- host.c --- */

/* The host's CPU N, for engines of guests' CPUs that it runs. */
const struct svm_host *hv_svm_host(unsigned n);

#endif
