/*
 * Nested page tables: guest-physical to host-physical addresses, four levels, made from
 * mem/'s map as it is, by 2 MiB where both sides allow it. RAM can be written, ROM not;
 * what is a device's is not there. When the map changes they are made anew before the
 * next entry. AMD64 APM volume 2, "Nested Paging": all walks of the guest's are accesses
 * of a user's, so that U is set everywhere.
 *
 * While it is noted what the guest writes to (svm_log_writes()), RAM is mapped by 4 KiB
 * with D clear: the hardware sets it at the first store, without an exit, and at each
 * walk through a page of the guest's tables, where it may set A and D. What is told is
 * cleared, and the translations that remember it are flushed.
 */
#include <errno.h>

#include "mem/mem.h"
#include "svm/svm_int.h"
#include "x86/pte.h"

#define LARGE (2ull << 20)
#define FRAME_MASK 0x000ffffffffff000ull
#define TABLE (X86_PTE_P | X86_PTE_W | X86_PTE_U)

static void *virt(const struct svm *s, uint64_t phys) {
    return s->host->virt(s->host->arg, phys);
}

static uint64_t phys(const struct svm *s, const void *p) {
    return s->host->phys(s->host->arg, p);
}

/* The entry for AT at LEVEL; NULL: no memory. */
static uint64_t *entry(struct svm *s, uint64_t at, unsigned level) {
    uint64_t *table = s->npt;

    for (unsigned l = 3; l > level; l--) {
        uint64_t *e = &table[at >> (X86_PAGE_SHIFT + 9 * l) & 511];

        if (!(*e & X86_PTE_P)) {
            void *page = s->host->alloc(s->host->arg, X86_PAGE_SIZE);

            if (!page)
                return NULL;
            *e = phys(s, page) | TABLE;
        }
        table = virt(s, *e & FRAME_MASK);
    }
    return &table[at >> (X86_PAGE_SHIFT + 9 * level) & 511];
}

static int map_piece(struct svm *s, const struct mem_piece *p) {
    bool noted = s->logs_writes && p->kind == MEM_RAM;
    uint64_t flags = X86_PTE_P | X86_PTE_U | X86_PTE_A | (noted ? 0 : X86_PTE_D) |
                     (p->kind == MEM_RAM ? X86_PTE_W : 0);

    for (uint64_t off = 0; off < p->size;) {
        uint64_t at = p->start.a + off, to = phys(s, p->host + off);
        bool large = !noted && !((at | to) & (LARGE - 1)) && p->size - off >= LARGE;
        uint64_t *e = entry(s, at, large);

        if (!e)
            return -ENOMEM;
        *e = to | flags | (large ? X86_PTE_PS : 0);
        off += large ? LARGE : X86_PAGE_SIZE;
    }
    return 0;
}

static void free_table(struct svm *s, uint64_t *table, unsigned level) {
    for (unsigned n = 0; level && n < 512; n++)
        if ((table[n] & X86_PTE_P) && !(table[n] & X86_PTE_PS))
            free_table(s, virt(s, table[n] & FRAME_MASK), level - 1);
    s->host->free(s->host->arg, table);
}

void svm_npt_drop(struct svm *s) {
    if (s->npt)
        free_table(s, s->npt, 3);
    s->npt = NULL;
}

int svm_npt_make(struct svm *s) {
    size_t count;
    const struct mem_piece *p = mem_map(s->v->mem, &count);
    int rc = 0;

    s->npt = s->host->alloc(s->host->arg, X86_PAGE_SIZE);
    if (!s->npt)
        return -ENOMEM;
    for (size_t n = 0; !rc && n < count; n++)
        rc = map_piece(s, &p[n]);
    if (rc) {
        svm_npt_drop(s);
        return rc;
    }
    s->vmcb->nested_cr3 = phys(s, s->npt);
    s->cnt.npt_builds++;
    s->flush = true;
    return 0;
}

/* --- what the guest writes to --- */

void svm_log_writes(struct svm *s, bool on) {
    if (s->shadow || s->logs_writes == on)
        return;
    svm_tell_written(s);
    s->logs_writes = on;
    svm_npt_drop(s);
}

static void tell_table(struct svm *s, uint64_t *table, unsigned level) {
    uint8_t *base = mem_ram_base(s->v->mem);

    for (unsigned n = 0; n < 512; n++) {
        uint64_t e = table[n];

        if (!(e & X86_PTE_P) || (e & X86_PTE_PS))
            continue;
        if (level) {
            tell_table(s, virt(s, e & FRAME_MASK), level - 1);
        } else if ((e & (X86_PTE_W | X86_PTE_D)) == (X86_PTE_W | X86_PTE_D)) {
            uint8_t *page = virt(s, e & FRAME_MASK);

            table[n] = e & ~(uint64_t)X86_PTE_D;
            mem_track_written(s->v->mem, (uint64_t)(page - base) >> X86_PAGE_SHIFT);
            s->flush = true;
        }
    }
}

void svm_tell_written(struct svm *s) {
    if (s->logs_writes && s->npt)
        tell_table(s, s->npt, 3);
}
