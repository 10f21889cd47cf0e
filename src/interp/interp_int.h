/*
 * Inside interp/: decoded code and where it is kept.
 *
 * A block is a run of decoded instructions that lie in one RAM page, in one mode; it is
 * known by the host address of its first byte. Two indices lead to it: a hash of (host
 * address, mode) for execution, and the list of its RAM page for invalidation. Memory
 * comes from one arena and is only given back all at once, between blocks: a block that
 * is dropped while it runs stays readable.
 *
 * Each vCPU has an interpreter and blocks of its own. The lists of pages are read and
 * changed with the lock of traces held (mem_lock()); the hash is its vCPU's alone. What
 * one CPU writes is dropped by all that have code there before the store is done: by a
 * call (cpu/smp.h), so that none of them is amid such a block; but not without it being
 * noticed, for one that waits may be (vcpu.leave_code). The trace is set before the page
 * is read.
 *
 * An instruction that crosses into the next page, reaches the CS limit's neighbourhood or
 * lies outside RAM is no block: it is kept in a small cache by its bytes, which are
 * compared each time.
 */
#ifndef INTERP_INT_H
#define INTERP_INT_H

#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"

enum {
    INTERP_BLOCK_MAX = 32, /* instructions */
    INTERP_HASH_BITS = 16,
    INTERP_ODD_BITS = 8,
    INTERP_ARENA = 64 << 20,
};

struct block {
    const uint8_t *host;
    struct block *hash_next;
    struct block *page_next;
    uint16_t bytes;
    uint8_t count;
    uint8_t mode;
    struct insn insn[];
};

/* Per RAM page, for others to read; BITMAP has a bit for each 64 bytes that a block
 * covers. */
struct code_page {
    struct block *blocks;
    uint64_t bitmap;
    /* Offsets between which no block has bytes, among others: where the last store was
     * that found none. */
    uint16_t clear_from, clear_to;
};

struct interp {
    struct vcpu *v;
    struct block *hash[1u << INTERP_HASH_BITS];
    struct code_page *pages; /* by RAM page number */
    uint64_t npages;
    uint8_t *ram;
    uint8_t *arena;
    size_t used;
    uint64_t end;       /* insns_retired at which interp_step() returns */
    uint64_t stalls;    /* how often it may find nothing retired */
    uint64_t rep_mark;  /* insns_retired + 1 while rip is at a string half done */
    bool running;       /* inside a block: no memory may be reused */
    bool flush_pending; /* for when it is left */
    bool db_blocked;    /* mov ss: no #DB before the next instruction is done */
    struct insn odd[1u << INTERP_ODD_BITS]; /* by host address; len 0: empty */
};

/* The block at v->rip, or NULL: then use code_odd(). A fault is left for code_odd(). */
struct block *interp_code_block(struct interp *ip);

/* The instruction at v->rip alone. NULL: a fault, in v->fault. */
const struct insn *interp_code_odd(struct interp *ip);

/* Gives all memory back. Not while running. */
void interp_code_flush(struct interp *ip);

#endif
