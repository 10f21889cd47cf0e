/*
 * Cells, seen from the VMM: processes in which guest user code runs as it is.
 *
 * A pool is made before the jail and before there are threads: the shared memory of the
 * slots, descriptors, and the spawner (spawner.h). A vCPU takes cells of it, and gives
 * them back; a cell is that vCPU's thread's, but for cell_kick().
 *
 * A cell's guest thread either has its turn (it runs guest code), or is out and waits,
 * with the guest's state in the frame of the signal that took it out. That it is out is
 * certain when OUT has been read (guest/cell/loops.S); what it reports then is the word
 * of whoever runs in it, and cell_run() makes of it a state that a CPU can be in.
 */
#ifndef DIRECT_CELL_H
#define DIRECT_CELL_H

#include "base/types.h"

/* What is not for guest pages: from CELL_LOW to CELL_HIGH (abi.h: CELL_BASE, CELL_END).
 */
#define CELL_LOW 0x2b5e00000000ull
#define CELL_HIGH 0x2b5e00200000ull

struct cell;
struct cell_pool;

/* The cells will map pages of RAM_FD. Before the jail and before there are threads: it
 * forks. 0 or -errno. */
int cell_pool_new(int ram_fd, struct cell_pool **out);
void cell_pool_free(struct cell_pool *p); /* all cells end; P may be NULL */

/* While it is CLOSED no program is run in cells, since RAM_FD has not got what memory
 * holds; changed while no vCPU runs. Where one would have been, it is WANTED that it were
 * not: set by vCPUs' threads. */
struct cell_gate {
    bool closed;
    bool wanted;
};
struct cell_gate *cell_pool_gate(struct cell_pool *p);

/* Which of the host's CPUs this thread, and its cells, are to run on: hand-overs between
 * CPUs take ten times as long. Where no other vCPU of the pool is, if possible, and then
 * on WANTED (-1: where it is); -1: the host does not say. The thread stays there until
 * cell_pool_unpin(). */
int cell_pool_pin(struct cell_pool *p, int wanted);
void cell_pool_unpin(struct cell_pool *p, int cpu);
/* Others want CPU, too, where it is: the thread goes to another of the host's, unless
 * more vCPUs of the pool would be there. Where it is then. */
int cell_pool_evade(struct cell_pool *p, int cpu);

/* Instructions that are faults in a cell: RDTSC; CPUID, which not all hosts can do. */
#define CELL_TSC_FAULTS 1u
#define CELL_CPUID_FAULTS 2u

bool cell_pool_can_fault(const struct cell_pool *p, unsigned faults);
/* Asks for a cell that maps nothing; NULL: there are too many. FAULTS: CELL_ bits. */
struct cell *cell_new(struct cell_pool *p, int cpu, unsigned faults);
/* Is it ready to run? 1; 0: not yet, unless WAIT; -errno: it will never be. */
int cell_ready(struct cell *c, bool wait);
unsigned cell_faults(const struct cell *c);
/* Nanoseconds of a CPU that it has had; 0: the host does not say. */
uint64_t cell_cpu_ns(const struct cell *c);
/* The same of all cells that have been seen by a call: what one used between the last
 * look at it and its end is missing. For one thread, whichever; never less than before.
 */
uint64_t cell_pool_cpu_ns(struct cell_pool *p);
/* Its guest thread and its helper run on CPU from now on, if they did not (-1: wherever
 * they like). 0 or -errno. */
int cell_move(struct cell *c, int cpu);
/* Nobody needs it any more; it is not running. No guest code runs in it from here on. */
void cell_give_back(struct cell *c);

/* --- what it maps; collected, and carried out by cell_sync(), or when it runs --- */

/* PAGES pages at guest address AT are those at OFFSET of the RAM; PROT as in mmap(2). */
int cell_map(struct cell *c, uint64_t at, uint64_t pages, int prot, uint64_t offset);
/* A page at AT that is a copy of the one at OFFSET of the RAM, in which the bytes at the
 * COUNT places have VALUE; to be read and executed. */
int cell_map_copy(struct cell *c, uint64_t at, uint64_t offset, const uint16_t *place,
                  unsigned count, uint8_t value);
int cell_unmap(struct cell *c, uint64_t at, uint64_t pages);
/* Everything that is the guest's. */
int cell_unmap_all(struct cell *c);
/* How many were not carried out. */
unsigned cell_orders(const struct cell *c);
/* All of them are done: 0; -ENOMEM: not all, for the host has a limit; or -errno, and the
 * cell is no good any more. */
int cell_sync(struct cell *c);

/* --- running --- */

struct cell_regs {
    uint64_t gpr[16]; /* in the order of enum vcpu_reg */
    uint64_t rip, rflags, fs, gs;
};

/* The vector state's image, standard format: XSAVE(2) is SIZE bytes; of components, those
 * in MASK are the guest's. */
struct cell_vec {
    uint8_t *image;
    unsigned size;
    uint64_t mask;
    uint32_t mxcsr_mask;
};

/* The host's numbers of signals, whose header does not go together with cpu/vcpu.h. */
enum {
    CELL_SIGILL = 4,
    CELL_SIGTRAP = 5,
    CELL_SIGBUS = 7,
    CELL_SIGFPE = 8,
    CELL_SIGUSR1 = 10,
    CELL_SIGSEGV = 11,
    CELL_SIGSYS = 31,
};

/* Why it came out: a signal, and what the kernel says about it. */
struct cell_exit {
    int signal;    /* 0: the cell has died, and what it did since it went in is lost */
    bool nothing;  /* it has not run: the registers are those that went in */
    bool refused;  /* and that is so because its orders met a limit of the host's */
    bool i386;     /* SIGSYS: by INT 80H or SYSENTER */
    int code;      /* si_code */
    unsigned trap; /* vector, of a fault's */
    uint64_t error, cr2;
    uint64_t call_at; /* SIGSYS: where, by the kernel */
    uint16_t sel[6];  /* ES, CS, SS, DS, FS, GS */
};

/* Carries out its orders, runs guest code from R on until it comes out, and brings R and
 * VEC up to date. It does not go in if STOP(ARG), which is asked when it can be kicked
 * already. */
void cell_run(struct cell *c, struct cell_regs *r, const struct cell_vec *vec,
              bool (*stop)(void *arg), void *arg, struct cell_exit *out);
/* It comes out soon, if it runs; from any thread, async-signal-safe. */
void cell_kick(struct cell *c);

#endif
