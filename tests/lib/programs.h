/*
 * Random programs for two engines that are compared, and the states that they begin in.
 *
 * A program is a few instructions, most of them with memory operands that are made to
 * land on the pages where it matters: present, read-only, absent, supervisor's, a page
 * end, the end of the 32-bit space, the program's own code. It ends with UD2. Programs at
 * CPL 0 also change their page tables on the way.
 *
 * There is one program at a time, `program`, and one state, `start`; all of it follows
 * from the stream of lib/rnd.h.
 */
#ifndef LIB_PROGRAMS_H
#define LIB_PROGRAMS_H

#include "cpu/vcpu.h"
#include "lib/knots.h"

/* Where things are in the guest's physical memory, and code and data by their addresses.
 */
enum {
    RAM = 4 << 20,
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    PML4 = 0x4000,
    PDPT = 0x5000,
    PD = 0x6000,
    PT = 0x7000,
    HANDLERS = 0x8000,
    EXC_STACK = 0xb000, /* top */
    PD3 = 0xc000,
    PT3 = 0xd000,
    CODE = 0x10000,
    DATA = 0x20000,
    DATA_END = 0x30000,
    CODE_END = CODE + 0x4000,
    DEVICE = 0xd0000000,
    MAX_INSNS = 24,
};
#define HIGH 0xffffff8000000000ull /* the low addresses once more */

struct cpuid_model;

/* What programs are to be like. */
struct program_how {
    const struct cpuid_model *model;
    bool liveness; /* the translator does not keep flags that nothing needs */
    bool knots;    /* programs are knots and nothing else */
};

extern struct program_how program_how;

struct program {
    enum cpu_mode mode;
    uint64_t base; /* linear address of the first byte */
    uint8_t b[1024];
    unsigned len, n;
    unsigned at[4 * MAX_INSNS];
    unsigned fix[4 * MAX_INSNS][2], nfix; /* a displacement's place and its size */
    uint64_t segbase[SEG_COUNT];
    bool strict;        /* nothing in it leaves a flag undefined */
    bool x87;           /* it has an x87 instruction */
    struct knots alone; /* where it is a knot */
    unsigned tainted;   /* flags that the manual does not define, at the end */
};

extern struct program program;

/* What both guests begin with. */
struct program_start {
    struct vcpu v; /* only architectural fields count */
    uint64_t pte[512];
    uint8_t data[DATA_END - DATA];
};

extern struct program_start start;

/* Once, before the others; vec_init() has been called. */
void programs_init(void);
/* A program of so many instructions, in program.mode at program.base. */
void program_make(unsigned insns);
/* Parts of `start`: page-table entries; segments for a level; registers, these among
 * them. */
void program_random_pages(void);
void program_random_segments(struct vcpu *v, bool user);
void program_random_start(void);

/* RAM behind the code or data at AT. No page's neighbour is used: those between, and
 * others that the guest cannot name, are taken from us too, and whoever touches them
 * dies. Beside the first page of RAM is what the engines need. */
uint64_t program_phys(uint64_t at);

#endif
