/*
 * A vCPU with an MMU and page tables built by hand, in each paging mode: 2 MiB (4 MiB
 * without PAE) from address 0 on, mapped to themselves with all rights, not accessed yet.
 */
#ifndef LIB_BOX_H
#define LIB_BOX_H

#include "mmu/mmu.h"
#include "x86/pte.h"

/* Where what is: the root, the tables below it, a page, and an address. */
#define RAM (8ull << 20)
#define ROOT 0x10000ull
#define L3 0x11000ull
#define L2 0x12000ull
#define L1 0x13000ull
#define PAGE 0x40000ull
#define VA 0x7000ull
#define PWU (X86_PTE_P | X86_PTE_W | X86_PTE_U)

enum { M_32, M_PAE, M_LONG, M_COUNT };

struct box {
    struct vcpu v;
    struct counters cnt;
    struct vcpu_hooks hooks;
    unsigned exits; /* of devices: how many, and the last one */
    struct exit last;
    uint64_t device; /* what is read there */
};

/* MODE is M_32 to M_LONG. Ends the test when there is no memory. */
struct box *box_new(int mode, enum mmu_policy policy);
void box_free(struct box *b);

/* Physical memory. */
void box_put(struct box *b, uint64_t at, uint64_t val);
uint64_t box_get(struct box *b, uint64_t at);
/* The leaf of the tables that VA has. */
void box_set_pte(struct box *b, int mode, uint64_t va, uint64_t pte);
uint64_t box_pte(struct box *b, int mode, uint64_t va);
/* An access of four bytes, or of the system's own (SYS): -1, or the error code of its
 * page fault. */
int box_attempt(struct box *b, uint64_t va, enum mmu_access acc, bool sys);

#endif
