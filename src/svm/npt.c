/*
 * Nested page tables: guest-physical to host-physical addresses, four levels, made from
 * mem/'s map as it is, by 2 MiB where both sides allow it. RAM can be written, ROM not;
 * what is a device's is not there. When the map changes they are made anew before the
 * next entry. AMD64 APM volume 2, "Nested Paging": all walks of the guest's are accesses
 * of a user's, so that U is set everywhere.
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
    uint64_t flags = X86_PTE_P | X86_PTE_U | X86_PTE_A | X86_PTE_D |
                     (p->kind == MEM_RAM ? X86_PTE_W : 0);

    for (uint64_t off = 0; off < p->size;) {
        uint64_t at = p->start.a + off, to = phys(s, p->host + off);
        bool large = !((at | to) & (LARGE - 1)) && p->size - off >= LARGE;
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
