/*
 * The host's page tables, four levels:
 *
 *   0              physical memory one to one, by 2 MiB pages; writable, not executable.
 *                  The image lies in it by 4 KiB pages: text, read-only data, data
 *   BARE_DEMAND    areas whose pages come when they are touched: the heap, and what is
 *                  large and mostly empty (the MMU's banks). Gaps between them never do
 *   BARE_CODE      aliases of pages of code, executable and not writable
 *   BARE_NOWHERE   what nobody can access
 *
 * Locking: one lock for tables and areas, which a page fault's handler and an
 * interrupt's take, too; so what it guards is not in pages that come when they are
 * touched. Other CPUs are told of a page that has gone (tlb.c) when the lock is free
 * again.
 */
#include "bare/bare_int.h"
#include "base/bug.h"
#include "mem/mem.h"
#include "x86/cr.h"
#include "x86/msr.h"
#include "x86/pte.h"

#define LARGE (2ull << 20)
#define FOUR_GIB (1ull << 32)
#define FRAME_MASK 0x000ffffffffff000ull
#define GAP (4 * X86_PAGE_SIZE)
#define AREAS 512u

static struct bare_lock lock;
static uint64_t *root;
static bool nx; /* the CPU has it */
static struct area { uint64_t start, size; /* size 0: it was given back */ } area[AREAS];
static unsigned areas;
static uint64_t demand_end = BARE_DEMAND + GAP, code_end = BARE_CODE + GAP;

static void flush(uint64_t virt) {
    __asm__ volatile("invlpg (%0)" : : "r"(virt) : "memory");
}

/* The entry for VIRT at LEVEL (0: of 4 KiB), with all tables on the way there; NULL: no
 * memory, or MAKE is false and there are none. */
static uint64_t *entry(uint64_t virt, unsigned level, bool make) {
    uint64_t *table = root;

    for (unsigned l = 3; l > level; l--) {
        uint64_t *e = &table[virt >> (X86_PAGE_SHIFT + 9 * l) & 511];

        if (!(*e & X86_PTE_P)) {
            void *frame = make ? bare_frame() : NULL;

            if (!frame)
                return NULL;
            *e = (uintptr_t)frame | X86_PTE_P | X86_PTE_W;
        }
        table = (uint64_t *)(uintptr_t)(*e & FRAME_MASK);
    }
    return &table[virt >> (X86_PAGE_SHIFT + 9 * level) & 511];
}

static uint64_t allowed(uint64_t flags) {
    return nx ? flags : flags & ~X86_PTE_NX;
}

static bool map(uint64_t virt, uint64_t frame, uint64_t flags) {
    uint64_t *e = entry(virt, 0, true);

    if (!e)
        return false;
    *e = frame | allowed(flags) | X86_PTE_P;
    flush(virt);
    return true;
}

bool bare_map(uint64_t virt, uint64_t frame, uint64_t flags) {
    uint64_t was = bare_lock(&lock);
    bool mapped = map(virt, frame, flags);

    bare_unlock(&lock, was);
    return mapped;
}

/* Flushed even if it was nothing already: another CPU may have taken it away. */
uint64_t bare_unmap(uint64_t virt) {
    uint64_t flags = bare_lock(&lock);
    uint64_t *e = entry(virt, 0, false), was = e ? *e : 0;

    if (e)
        *e = 0;
    flush(virt);
    bare_unlock(&lock, flags);
    return was & X86_PTE_P ? was & FRAME_MASK : 0;
}

/* --- memory one to one --- */

static uint64_t image_flags(uint64_t at) {
    if (at < (uintptr_t)bare_image || at >= (uintptr_t)bare_rodata_end)
        return X86_PTE_W | X86_PTE_NX;
    return at < (uintptr_t)bare_text_end ? 0 : X86_PTE_NX;
}

static bool is_image(uint64_t large) {
    return large < (uintptr_t)bare_image_end && large + LARGE > (uintptr_t)bare_image;
}

static void map_large(uint64_t at) {
    uint64_t *e = entry(at, 1, true);

    BUG_ON(!e);
    *e = at | allowed(X86_PTE_P | X86_PTE_W | X86_PTE_PS | X86_PTE_NX);
}

void bare_paging_join(void) {
    if (nx)
        bare_wrmsr(X86_MSR_EFER, bare_rdmsr(X86_MSR_EFER) | X86_EFER_NXE);
    __asm__ volatile("mov %0, %%cr3" : : "r"(root) : "memory");
}

void bare_paging_start(uint64_t top) {
    uint32_t r[4];

    bare_cpuid(0x80000001, r);
    nx = r[3] >> 20 & 1;
    root = bare_frame();
    BUG_ON(!root);
    /* Devices are below 4 GiB, whatever there is of memory. */
    if (top < FOUR_GIB)
        top = FOUR_GIB;
    for (uint64_t at = 0; at < top; at += LARGE) {
        if (!is_image(at)) {
            map_large(at);
            continue;
        }
        for (uint64_t page = at; page < at + LARGE; page += X86_PAGE_SIZE)
            BUG_ON(!bare_map(page, page, image_flags(page)));
    }
    bare_paging_join();
}

/* --- pages that come when they are touched --- */

/* A free slot of the list of areas, or NULL. */
static struct area *new_area(void) {
    unsigned n;

    for (n = 0; n < areas && area[n].size; n++)
        ;
    if (n == AREAS)
        return NULL;
    if (n == areas)
        areas++;
    return &area[n];
}

void *bare_demand(uint64_t size) {
    uint64_t flags = bare_lock(&lock), at = demand_end;
    struct area *a = NULL;

    size = (size + X86_PAGE_SIZE - 1) & X86_PAGE_MASK;
    if (size && size <= BARE_CODE - GAP - at)
        a = new_area();
    if (a) {
        *a = (struct area){at, size};
        demand_end = at + size + GAP;
    }
    bare_unlock(&lock, flags);
    return a ? (void *)(uintptr_t)at : NULL;
}

static struct area *area_of(uint64_t addr) {
    for (unsigned n = 0; n < areas; n++)
        if (addr - area[n].start < area[n].size)
            return &area[n];
    return NULL;
}

/* What lies at PAGE is at the head of LIST, which goes through the frames. */
static void take_out(uint64_t page, void **list) {
    void **frame = (void **)(uintptr_t)bare_unmap(page);

    if (!frame)
        return;
    *frame = *list;
    *list = frame;
}

void bare_demand_free(void *p) {
    struct area *a = p ? area_of((uintptr_t)p) : NULL;
    uint64_t at = (uintptr_t)p, flags;
    void *list = NULL;

    if (!a)
        return;
    for (uint64_t page = at; page < at + a->size; page += X86_PAGE_SIZE) {
        /* Nothing of a directory that is not there. */
        if (!entry(page, 0, false))
            page |= LARGE - X86_PAGE_SIZE;
        else
            take_out(page, &list);
    }
    bare_tlb_flush_others();
    for (void *next; list; list = next) {
        next = *(void **)list;
        bare_frame_free(list);
    }
    flags = bare_lock(&lock);
    a->size = 0;
    bare_unlock(&lock, flags);
}

/* Another CPU may have brought it meanwhile. */
static bool bring(uint64_t page) {
    uint64_t *e = entry(page, 0, true);
    void *frame;

    if (!e || *e & X86_PTE_P)
        return e;
    frame = bare_frame();
    return frame && map(page, (uintptr_t)frame, X86_PTE_W | X86_PTE_NX);
}

bool bare_demand_fault(uint64_t addr) {
    uint64_t flags = bare_lock(&lock);
    bool come = area_of(addr) && bring(addr & X86_PAGE_MASK);

    bare_unlock(&lock, flags);
    return come;
}

uint64_t bare_code_room(uint64_t pages) {
    uint64_t flags = bare_lock(&lock), at = code_end;

    if (pages > (BARE_NOWHERE - code_end) / X86_PAGE_SIZE - 8)
        at = 0;
    else
        code_end += pages * X86_PAGE_SIZE + GAP;
    bare_unlock(&lock, flags);
    return at;
}
