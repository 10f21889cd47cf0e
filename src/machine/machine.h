/*
 * The machine: allocates the board, wires it in a visible order, and gives it lives: a
 * boot followed by a run, again after each reset.
 *
 * Everything runs on the thread that calls machine_run(); only machine_quit() may be
 * called from elsewhere (a signal handler included).
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include "base/types.h"
#include "boot/boot.h"
#include "bt/bt.h"
#include "engine/engine.h"
#include "engine/run.h"
#include "mmu/mmu.h"

/* The far end of the serial port. */
struct machine_console {
    /* The guest wrote LEN bytes. */
    void (*tx)(void *arg, const uint8_t *bytes, size_t len);
    /* Called when input may wait: gives at most ROOM (which may be 0) bytes for the
     * guest, until it returns 0. */
    size_t (*rx)(void *arg, uint8_t *buf, size_t room);
    /* Asked after that: the descriptor whose input to wait for, or -1 (end of input, or
     * first the guest must take what it has). */
    int (*rx_fd)(void *arg);
    void *arg;
};

struct machine_config {
    const char *engine; /* a name of machine_engines(), or "auto" */
    uint64_t memory;    /* bytes */
    bool paravirt;      /* KVM's CPUID leaves and clock */
    enum mmu_policy policy;
    struct bt_options bt;
    bool kernel_lapic;              /* kvm: the local APIC is the kernel's */
    const struct boot_image *image; /* the caller's, must outlive the machine */
    struct boot_config boot;
    struct machine_console console;
};

enum machine_end {
    MACHINE_POWEROFF,
    MACHINE_RESET,
    MACHINE_DEBUG_EXIT, /* isa-debug-exit: machine_exit_code() */
    MACHINE_SHUTDOWN,   /* triple fault */
    MACHINE_QUIT,       /* machine_quit() was called */
    MACHINE_ERROR,      /* host failure, logged */
};

struct machine;

/* Table of engines, *COUNT of them, in the order in which "auto" tries them. */
const struct engine_ops *const *machine_engines(size_t *count);

/* 0, or -errno with one sentence in WHY. */
int machine_create(const struct machine_config *cfg, struct machine **out, char *why,
                   size_t why_size);
void machine_free(struct machine *m);

/* Resets everything and loads the kernel. 0, or -errno with one sentence in WHY. */
int machine_boot(struct machine *m, char *why, size_t why_size);

/* Runs until the guest's life ends. */
enum machine_end machine_run(struct machine *m);

/* Value that the guest wrote to the debug-exit port, as an exit status. */
int machine_exit_code(const struct machine *m);

/* Ends machine_run() with MACHINE_QUIT; async-signal-safe. */
void machine_quit(struct machine *m);

/* For statistics and dumps. */
const struct vcpu *machine_vcpu(const struct machine *m);
const struct counters *machine_counters(const struct machine *m);
const struct exit_counts *machine_exits(const struct machine *m);
/* Names for perf of the code that the engine made; nothing if it makes none. */
void machine_perf_map(const struct machine *m, FILE *f);
const char *machine_engine_name(const struct machine *m);
/* Calls EMIT for each figure that only this engine has. */
void machine_engine_stats(const struct machine *m,
                          void (*emit)(void *arg, const char *name, uint64_t value),
                          void *arg);

#endif
