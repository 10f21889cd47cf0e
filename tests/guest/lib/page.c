/* Page tables of the three kinds; see guest.h. */
#include "guest.h"

static uint8_t *page_next = (uint8_t *)0x1000000; /* 16 MiB: above every image */

void *page_alloc(void) {
    void *p = page_next;
    page_next += 4096;
    if ((ulong)page_next > 0x4000000)
        fatal("out of pages");
    return memset(p, 0, 4096);
}

static int top_level(const struct space *s) {
    return s->kind == SPACE_32 ? 2 : s->kind == SPACE_PAE ? 3 : 4;
}

static unsigned level_shift(const struct space *s, int level) {
    return s->kind == SPACE_32 ? 12 + 10 * (level - 1) : 12 + 9 * (level - 1);
}

static uint64_t entry_get(const struct space *s, ulong table, unsigned index) {
    return s->kind == SPACE_32 ? ((uint32_t *)table)[index] : ((uint64_t *)table)[index];
}

static void entry_set(const struct space *s, ulong table, unsigned index, uint64_t v) {
    if (s->kind == SPACE_32)
        ((volatile uint32_t *)table)[index] = (uint32_t)v;
    else
        ((volatile uint64_t *)table)[index] = v;
}

static unsigned entry_index(const struct space *s, ulong va, int level) {
    return va >> level_shift(s, level) & (s->kind == SPACE_32 ? 1023 : 511);
}

/* The table that holds va's entry of a level, made on the way when `flags` is not 0. */
static ulong table_for(struct space *s, ulong va, int level, uint64_t flags) {
    ulong table = s->root;
    for (int l = top_level(s); l > level; l--) {
        unsigned i = entry_index(s, va, l);
        uint64_t e = entry_get(s, table, i);
        if (!(e & X86_PTE_P)) {
            if (!flags)
                fatal("no table for 0x%lx at level %u", va, (unsigned)l);
            e = (ulong)page_alloc() |
                (s->kind == SPACE_PAE && l == 3 ? X86_PTE_P : (RWU));
            entry_set(s, table, i, e);
        }
        table = (ulong)(e & 0xffffffffff000ull);
    }
    return table;
}

void space_map(struct space *s, ulong va, uint64_t pa, uint64_t flags, int level) {
    ulong table = table_for(s, va, level, RWU);
    entry_set(s, table, entry_index(s, va, level),
              pa | flags | (level > 1 ? X86_PTE_PS : 0));
}

uint64_t space_get(struct space *s, ulong va, int level) {
    return entry_get(s, table_for(s, va, level, 0), entry_index(s, va, level));
}

void space_set(struct space *s, ulong va, int level, uint64_t entry) {
    entry_set(s, table_for(s, va, level, 0), entry_index(s, va, level), entry);
}

void space_new(struct space *s, enum space_kind kind, uint64_t flags) {
    s->kind = kind;
    s->root = (ulong)page_alloc();
    ulong large = 1ul << level_shift(s, 2);
    for (ulong a = 0; a < 0x4000000; a += large)
        space_map(s, a, a, flags, 2);
    space_map(s, 0xfec00000, 0xfec00000, flags | X86_PTE_PCD, 2);
    if (kind != SPACE_32)
        space_map(s, 0xfee00000, 0xfee00000, flags | X86_PTE_PCD, 2);
}

#ifdef __x86_64__
void space_load(struct space *s) {
    write_cr3(s->root);
}
#else
void paging_off(void) {
    write_cr0(read_cr0() & ~X86_CR0_PG);
}

void space_load(struct space *s) {
    ulong cr4 = read_cr4();
    ulong want =
        (cr4 & ~X86_CR4_PAE) | X86_CR4_PSE | (s->kind == SPACE_PAE ? X86_CR4_PAE : 0);
    if (cr4 != want) {
        paging_off();
        write_cr4(want);
    }
    write_cr3(s->root);
    write_cr0(read_cr0() | X86_CR0_PG);
}
#endif
