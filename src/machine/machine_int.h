/*
 * The machine's insides: the VM, which its CPUs share, and the array of these.
 *
 *   vm.c       creation, boot, what the machine tells of itself
 *   cpu.c      a CPU: its vCPU, its engine, its power-up state
 *   step.c     single steps
 *   debug.c    a debugger's stops, steps and resumptions
 *   run.c      the life of a CPU's thread; what ends a run
 *   console.c  the far end of the console's serial port; serials.c: of the others
 *   options.c  what engines can be told; engines.c: the table of them
 *   hooks.c    who is told of what
 *   call.c     calls from the loop's thread, and pauses
 *   time.c     where the virtual clock's time comes from
 *   kick.c     events for a CPU, from any thread
 *   signals.c  INIT and SIPI
 *   wake.c     the loop's deadline; how a CPU's thread sleeps and is woken
 *   board.c    devices and how they are wired; knows nothing of this header
 *   devices.c  devices that the configuration asks for, in a list; makers.c: in a table
 *   virtio.c   those that are virtio's; consoles.c: the virtio console's streams;
 *   sockets.c  the socket device and its host's side
 *   disks.c    the workers of the disks
 *   ide.c      IDE disks and CD-ROM drives
 *   flash.c    the firmware's variables; bootorder.c: what it boots
 *   nets.c     network cards
 *   counted.c  the time of counted runs
 *   checkpoints.c  where such a run can be taken back to
 *   warm.c     what was hot, in a snapshot, and is made ready
 *   records.c  a snapshot's records; possible.c: whether what they say of a CPU can be
 *
 * Whoever means "this CPU" takes a struct machine_cpu; who means
 * "all" goes through the array; who means the one that the firmware would start takes
 * machine_boot_cpu().
 */
#ifndef MACHINE_MACHINE_INT_H
#define MACHINE_MACHINE_INT_H

#include "base/os_loop.h"
#include "block/block.h"
#include "cpu/smp.h"
#include "cpu/stops.h"
#include "cpu/vec.h"
#include "machine/board.h"
#include "machine/counted.h"
#include "machine/cpu.h"
#include "machine/devices.h"
#include "machine/machine.h"

#define MACHINE_GOES_ON (-1)

/* What a stream has not taken of a serial port's output yet. */
#define MACHINE_SERIAL_OUT 16384u
struct serial_port {
    struct machine *m;
    unsigned n;
    struct uart_host plain; /* where its bytes go, but for the limit */
    struct rate rate;
    size_t len;
    uint8_t out[MACHINE_SERIAL_OUT];
};

#define PAUSED_BY_CALLER 1u   /* machine_pause() */
#define PAUSED_BY_DEBUGGER 2u /* machine_debug_stop() */
#define PAUSED_BY_SNAPSHOT 4u /* machine_save() */
#define PAUSED_BY_QUOTA 8u    /* quota.c; the guest's time goes on */
#define PAUSED_BY_SHARING 16u /* sharing.c */

struct machine_sharing {
    struct os_timer next;
    uint64_t at; /* bytes that have been copied */
    bool waits;  /* nobody has wanted it yet; the boot CPU's thread's */
};

struct machine_quota {
    struct os_timer look;
    unsigned percent; /* of one CPU of the host's; 0: all there is */
    double tokens;    /* nanoseconds that may still be used */
    uint64_t seen_ns, used_ns;
};

/* A debugger (debug.c). */
struct machine_debug {
    void (*stopped)(void *arg); /* NULL: there is none */
    void *arg;
    struct os_task task;     /* a CPU has stopped */
    bool stopping;           /* and the others are to stand until it was run; atomic */
    struct vcpu_stops stops; /* what vcpu.stops points to */
    bool holds_interrupts;   /* while it steps */
    /* Backwards, in a counted run: see debug.c. */
    bool scanning; /* what comes before counted.reached is looked through */
    bool found;    /* a stop, at `found_at`, of which `found_hit` is to be told */
    bool at_start; /* there is nothing before it */
    /* Instructions retired: */
    uint64_t start_at; /* where the next life begins, at the latest */
    uint64_t began;    /* where it has begun */
    uint64_t found_at;
    struct vcpu_hit found_hit;
};

struct machine_warm {
    bool noted; /* the next snapshot has a record of it */
    bool left;  /* there is something to be made ready; the boot CPU's thread's */
};

/* What a counted run can be taken back to (checkpoints.c). */
struct checkpoint {
    uint64_t insns; /* retired */
    uint8_t *state; /* records */
    size_t len;
    struct checkpoint_page {
        uint64_t number; /* of the mapping's, in ascending order */
        uint8_t *bytes;  /* NULL: zeros */
    } * page;
    size_t count;
};
#define CHECKPOINTS_MAX 64u
struct checkpoints {
    struct checkpoint all[CHECKPOINTS_MAX];
    unsigned count;
    uint64_t every;  /* instructions */
    uint64_t bytes;  /* of their pages */
    uint64_t *since; /* by page; NULL: there are none */
    bool meddled;    /* a debugger has changed something: the run is not what it was */
    /* checkpoints.c is above who calls it; NULL: there are none. */
    void (*reached)(struct machine *m); /* counted.mark */
    void (*free)(struct machine *m);
};

struct machine {
    struct machine_config cfg;
    struct mem *mem;
    struct cell_pool *cells; /* NULL: nothing is run directly */
    struct cpuid_model *cpuid;
    struct vclock *clock;
    struct bus *bus;
    struct board board;
    struct machine_device *first_device, *last_device; /* devices.c */
    struct virtio_balloon *balloon;                    /* or NULL */
    struct virtio_input *tablet;                       /* or NULL */
    unsigned virtio_mmio;                              /* devices by MMIO */
    uint16_t virtio_lines[8];                          /* who holds each of their lines */
    char *cmdline;            /* with virtio.c's additions, or NULL */
    uint64_t counted_random;  /* the state of the source of entropy */
    struct counters counters; /* of the board's devices */
    struct machine_cpu *cpu;  /* of CPUS */
    unsigned cpus;
    struct vcpu_group *group; /* of their vCPUs */
    struct os_loop *loop;     /* on the thread that calls machine_run() */
    struct os_timer due;      /* of the clock's earliest deadline */
    uint64_t deadline;        /* what it is set to; the board's lock */
    bool looks;               /* halted CPUs look out before they sleep */
    uint64_t start_ns;        /* host clock at guest time 0 */
    uint64_t start_tsc;
    bool stopped; /* the time, at these */
    uint64_t stopped_ns, stopped_tsc;
    struct machine_call { /* call.c */
        void (*fn)(void *arg);
        void *arg;
        uint32_t asked, done; /* numbers of calls; atomic */
        uint32_t here;        /* CPUs that have come; atomic */
    } call;
    struct os_bell *answered; /* the loop's thread waits for it */
    unsigned paused;          /* by whom: PAUSED_*; changes while all CPUs stand */
    struct machine_debug debug;
    struct checkpoints checkpoints;
    struct os_task hurry; /* a thread may wait in a system call, and the run is to end */
    struct os_timer hurry_again;
    struct machine_quota quota;
    struct machine_warm warm;
    struct machine_sharing sharing;  /* all zero: memory is not shown from a file */
    unsigned living;                 /* threads of CPUs that run the life; atomic */
    enum machine_end result;         /* of the life */
    unsigned net_slot[MACHINE_NETS]; /* of each card, on PCI */
    bool told; /* firmware was, what to boot: it is not the first life any more */
    struct block_pool *disks;                       /* NULL: there are none */
    struct virtio_blk *virtio_disks[MACHINE_DISKS]; /* NULL: the disk is at IDE */
    struct ide *ide;                                /* NULL: there is none */
    /* Of disks of a server, which waits for it alone; NULL: it is in `disks`. */
    struct block_pool *servers[MACHINE_DISKS];
    struct vtimer disks_due;                  /* counted: the next completion */
    struct counted counted;                   /* instead, with cfg.counted */
    bool thawed_counted;                      /* so was what is being restored */
    struct serial_port serial[BOARD_SERIALS]; /* serials.c */
    struct rate rng[RNG_LIMITS];              /* virtio.c; under the board's lock */
    bool has_rng;
    unsigned console_serial; /* the console's port; BOARD_SERIALS: none */
    int end;   /* enum machine_end of the life, or MACHINE_GOES_ON; atomic */
    bool quit; /* machine_quit() was called; survives a reset; atomic */
    uint32_t exit_value;
};

static inline struct machine_cpu *machine_boot_cpu(struct machine *m) {
    return &m->cpu[0];
}

/* The board's lock, as back ends take it; ARG is the machine. */
static inline void machine_guard_enter(void *arg) {
    machine_board_enter(arg);
}
static inline void machine_guard_leave(void *arg) {
    machine_board_leave(arg);
}

/* board_park(), for what devices call: with the board's lock held. */
static inline void machine_park(struct machine *m) {
    board_park(&m->board);
}

/* --- vm.c --- */

/* The power-up state of every CPU and device; and of memory, EMPTY. */
/* Its first generation ID; with the board made. */
void machine_generation_begin(struct machine *m);
void machine_power_up(struct machine *m, bool empty);

/* --- cpu.c --- */

/* Makes C's vCPU and MMU. 0 or -errno. */
int machine_cpu_create(struct machine *m, struct machine_cpu *c);
void machine_cpu_free(struct machine_cpu *c);
void machine_free_engines(struct machine *m);
/* Finds the engine that the configuration asks for, for all CPUs. 0, or -errno with one
 * sentence in WHY. */
int machine_choose_engine(struct machine *m, char *why, size_t why_size);
/* The power-up state: all but the boot CPU wait for a SIPI. */
void machine_cpu_reset(struct machine_cpu *c);
/* Guest state was changed from outside: what was derived from it goes. */
void machine_cpu_state_changed(struct machine_cpu *c);

/* --- kick.c --- */

/* vcpu_group.kick: V has EVENT to look at. ARG is the machine. */
void machine_kick_vcpu(void *arg, struct vcpu *v, uint32_t event);

/* --- signals.c --- */

/* Acts upon INIT and SIPI, on C's thread, between two instructions. */
void machine_cpu_take_signals(struct machine_cpu *c);

/* --- hooks.c --- */

/* The vCPUs' exits go to the board, which is there. */
void machine_hook_cpus(struct machine *m);
/* What memory tells goes to MMUs and engines, which are there. */
void machine_hook_memory(struct machine *m);

/* --- run.c --- */

/* What the board's devices ask of the machine. */
struct dev_host machine_dev_host(struct machine *m);
/* 0 or -errno: the threads that run lives are there. */
int machine_start_threads(struct machine *m);
void machine_end_threads(struct machine *m);
/* Runs the timers that are due and takes input: what KICK asks for. The board's is the
 * boot CPU's. */
void machine_service_board(struct machine_cpu *c);

/* --- call.c --- */

/* Between two instructions: takes part in the call that waits, if there is one. */
void machine_answer(struct machine_cpu *c);
/* The same, and stays while the guest is paused, or C waits for a SIPI. */
void machine_serve(struct machine_cpu *c);

/* The machine stands for WHO, PAUSED_*, or does not any more. */
void machine_pause_for(struct machine *m, unsigned who);
void machine_resume_for(struct machine *m, unsigned who);

/* --- debug.c --- */

/* run_board.stopped and run_board.step; ARG is the struct machine_cpu. */
void machine_debug_stopped(void *arg);
enum exit_reason machine_debug_step(void *arg);
/* counted.reached. */
void machine_debug_reached(struct machine_cpu *c);

/* --- records.c --- */

/* S gets all records, while all stand. */
void machine_records(struct machine *m, struct snapshot *s);

/* --- console.c --- */

struct uart_host machine_uart_host(struct machine *m);
void machine_take_input(struct machine_cpu *c);
void machine_take_counted_input(struct machine_cpu *c);
/* Writes what the guest has written, as far as its reader takes it. True: all of it. */
bool machine_write_some(struct machine_cpu *c);
/* The same and waits for the reader, serving calls, until the run is to end; LAST: also
 * after that, until the console gives up. */
void machine_write_output(struct machine_cpu *c, bool last);
/* The same at the end of a life, with what the port still has. */
void machine_write_rest(struct machine_cpu *c);

/* --- serials.c --- */

/* The far ends of the serial ports of the configuration, and how many ports there are. */
unsigned machine_serials_host(struct machine *m, struct uart_host host[BOARD_SERIALS]);

/* --- nets.c --- */

/* Makes the configuration's network cards. 0, or -errno with one sentence in WHY. */
int machine_nets_make(struct machine *m, char *why, size_t why_size);
/* What networks have in a snapshot. */
void machine_nets_records(struct machine *m, struct snapshot *s);

/* --- ide.c --- */

/* Makes the controller, if there is something for it to drive. 0, or -errno with one
 * sentence in WHY. */
int machine_ide_make(struct machine *m, char *why, size_t why_size);
/* Which of its drives disk DISK of the configuration is; IDE_DRIVES: none. */
unsigned machine_ide_place(const struct machine *m, unsigned disk);

/* --- bootorder.c --- */

/* What fw_cfg says: text of at most SIZE bytes with its 0, empty for no order. */
void machine_bootorder(const struct machine *m, char *text, size_t size);

/* --- flash.c --- */

/* Makes the flash, if firmware has variables. 0, or -errno with one sentence in WHY. */
int machine_flash_make(struct machine *m, char *why, size_t why_size);

/* --- disks.c --- */

/* Makes the workers of the configuration's disks. 0 or -errno. */
int machine_disks_create(struct machine *m);
/* Ends them: no request is in flight, and none is called back, from here on. */
void machine_disks_free(struct machine *m);

/* --- time.c --- */

/* The board's clock and the CPUs': 0 or -ENOMEM. */
int machine_time_create(struct machine *m);
void machine_time_free(struct machine *m);
/* Nanoseconds since 1970 of a counted run; ARG is the machine. */
uint64_t machine_counted_realtime(void *arg);
/* The guest's time stands still; and goes on from there. While all CPUs stand. */
void machine_time_stop(struct machine *m);
void machine_time_go(struct machine *m);
/* While it stands still: it is NS, and TICKS of the clocks' source have passed. */
void machine_time_set(struct machine *m, uint64_t ns, uint64_t ticks);

/* --- wake.c --- */

int machine_wake_create(struct machine *m); /* 0 or -errno */
/* The run ends for all CPUs. The first reason stands. On any thread, parked. */
void machine_end_life(struct machine *m, enum machine_end end);
void machine_wake_free(struct machine *m);
/* The board's timers run at NS of the host's monotonic clock; C's, on its own thread;
 * UINT64_MAX: never. */
void machine_wake_at(struct machine *m, uint64_t ns);
void machine_cpu_wake_at(struct machine_cpu *c, uint64_t ns);
/* The CPU's thread leaves a system call of the console's, if it is in one. It may be just
 * before it: to be called again and again. */
void machine_cpu_interrupt(struct machine_cpu *c);
/* The run has ended, and with it the hurry of machine_quit(). */
void machine_wake_ended(struct machine *m);
/* The CPU's thread sleeps until KICK, STOP, or an interrupt that it can take. */
void machine_sleep(struct machine_cpu *c);
/* A guest that waits for an answer has it soon, and to go to sleep and be woken up takes
 * as long again. So a CPU looks out first, for LOOK nanoseconds, if its last sleeps were
 * short. For how long the next time, after one that has taken TOOK, the look-out
 * included: for twice as long as before, up to 200 us; not at all where it has slept for
 * longer than that, as an idle guest does. Only where the host has a CPU more than the
 * guest, for those who have to answer. */
uint32_t machine_lookout(uint32_t look, uint64_t took);
/* Sleeps for NS (VCLOCK_NEVER: for ever) or until its bell is rung. How much of NS has
 * passed: less than NS if it was rung. */
uint64_t machine_sleep_ns(struct machine_cpu *c, uint64_t ns);

/* sharing.c: memory shows a file (mem_overlay()), and there are cells: before the jail. 0
 * or -errno: they will never run. And the end, which is for any machine. */
int machine_sharing_begin(struct machine *m);
void machine_sharing_end(struct machine *m);
/* disks.c: nothing is under way to or from a disk any more, while the guest stands.
 * False: one does not answer. */
bool machine_disks_rest(struct machine *m);
/* Requests that are under way. */
unsigned machine_disks_busy(const struct machine *m);

/* warm.c: a snapshot's record, where something was noted. */
void machine_warm_record(struct machine *m, struct snapshot *s);
/* Makes a little ready, on C's thread while its engine does not run. False: there is
 * nothing. */
bool machine_warm_up(struct machine_cpu *c);

/* quota.c: with the loop, before the threads; 0 or -errno. */
int machine_quota_create(struct machine *m);
void machine_quota_free(struct machine *m);

#endif
