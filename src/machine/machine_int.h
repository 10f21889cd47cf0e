/*
 * The machine's insides: the VM, which its CPUs share, and the array of these.
 *
 *   vm.c       creation, boot, what the machine tells of itself
 *   cpu.c      a CPU: its vCPU, its engine, its power-up state
 *   run.c      the life of a CPU's thread; what ends a run
 *   console.c  the far end of the serial port
 *   options.c  what engines can be told; engines.c: the table of them
 *   hooks.c    who is told of what
 *   time.c     where the virtual clock's time comes from
 *   wake.c     the helper thread, and those who call from other threads
 *   board.c    devices and how they are wired; knows nothing of this header
 *   counted.c  the time of counted runs
 *
 * There is one CPU so far. Whoever means "this CPU" takes a struct machine_cpu; who means
 * "all" goes through the array; who means the one that the firmware would start takes
 * machine_boot_cpu().
 */
#ifndef MACHINE_MACHINE_INT_H
#define MACHINE_MACHINE_INT_H

#include "cpu/vec.h"
#include "machine/board.h"
#include "machine/counted.h"
#include "machine/cpu.h"
#include "machine/machine.h"

struct machine {
    struct machine_config cfg;
    struct mem *mem;
    struct cpuid_model *cpuid;
    struct vclock *clock;
    struct bus *bus;
    struct board board;
    struct counters counters; /* of the board's devices */
    struct machine_cpu *cpu;  /* of CPUS */
    unsigned cpus;
    struct os_alarm *alarm;
    uint64_t start_ns; /* host clock at guest time 0 */
    uint64_t start_tsc;
    struct counted counted; /* instead, with cfg.counted */
    enum machine_end end;
    bool report; /* machine_report() was called; atomic */
    bool quit;   /* machine_quit() was called; survives a reset */
    uint32_t exit_value;
};

static inline struct machine_cpu *machine_boot_cpu(struct machine *m) {
    return &m->cpu[0];
}

/* The guest's vector state leaves the host's registers, if a CPU's is there: before
 * anything that is not of the core rooms (cpu/vec.h). On the thread of that CPU. */
static inline void machine_park(struct machine *m) {
    vec_park(m->board.caller->vcpu);
}

/* --- cpu.c --- */

/* Makes C's vCPU and MMU. 0 or -errno. */
int machine_cpu_create(struct machine *m, struct machine_cpu *c);
void machine_cpu_free(struct machine_cpu *c);
void machine_cpu_free_engine(struct machine_cpu *c);
/* Finds the engine that the configuration asks for, for all CPUs. 0, or -errno with one
 * sentence in WHY. */
int machine_choose_engine(struct machine *m, char *why, size_t why_size);
/* The power-up state. */
void machine_cpu_reset(struct machine_cpu *c);
/* Guest state was changed from outside: what was derived from it goes. */
void machine_cpu_state_changed(struct machine_cpu *c);

/* --- hooks.c --- */

/* The vCPUs' exits go to the board, which is there. */
void machine_hook_cpus(struct machine *m);
/* What memory tells goes to MMUs and engines, which are there. */
void machine_hook_memory(struct machine *m);

/* --- run.c --- */

/* What the board's devices ask of the machine. */
struct dev_host machine_dev_host(struct machine *m);
/* The run ends for all CPUs. The first reason stands. On a CPU's thread. */
void machine_end_life(struct machine *m, enum machine_end end);

/* --- console.c --- */

struct uart_host machine_uart_host(struct machine *m);
void machine_take_input(struct machine *m);
void machine_take_counted_input(struct machine *m);
/* A run begins: the helper watches for what may be typed. */
void machine_watch_console(struct machine *m);
/* Obeys what was typed to the VMM in a counted run, and watches for more. */
void machine_watch_commands(struct machine *m);

/* --- time.c --- */

/* 0 or -ENOMEM. */
int machine_time_create(struct machine *m);
/* Nanoseconds since 1970 of a counted run; ARG is the machine. */
uint64_t machine_counted_realtime(void *arg);

/* --- wake.c: all that knows the alarm --- */

int machine_wake_create(struct machine *m); /* 0 or -errno */
void machine_wake_free(struct machine *m);
/* Raises KICK at the boot CPU at NS of the host's monotonic clock; UINT64_MAX: never. */
void machine_wake_at(struct machine *m, uint64_t ns);
/* Raises KICK there when FD becomes readable; -1: none. */
void machine_wake_on(struct machine *m, int fd);
/* The CPU's thread sleeps until KICK, STOP or NMI. */
void machine_sleep(struct machine_cpu *c);
/* As os_alarm_sleep(). */
uint64_t machine_sleep_ns(struct machine *m, int fd, uint64_t ns);

#endif
