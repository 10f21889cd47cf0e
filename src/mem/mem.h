/*
 * Guest-physical memory: RAM and ROM (one memfd mapping), and traces.
 *
 * The map is a sorted list of regions; what no region covers is MMIO. RAM above the hole
 * below 4 GiB continues at 4 GiB. The 640 KiB..1 MiB area: 0xa0000-0xbffff is RAM-backed
 * video memory (text consoles write there and read it back), 0xc0000-0xfffff is RAM that
 * mem_set_rom() can turn into ROM. The last 64 KiB below 4 GiB, where the CPU begins
 * after a reset, are always ROM.
 *
 * Traces: each RAM page has a byte of trace bits. A traced page must never have a write
 * entry in a shadow: mem_trace_add() calls hooks.drop_write for it, and every store to it
 * then takes a slow path that ends in mem_trace_hit(), before the bytes change.
 *
 * Everything here checks its addresses; none of it asserts on guest input. Functions that
 * take a host pointer ignore one that is not inside RAM.
 *
 * Copies use `rep movsb`, so that they may run while guest vector state is live
 * (cpu/vec.h).
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "base/types.h"

#define MEM_HOLE_START 0xc0000000ull /* RAM below 4 GiB ends here at the latest */
#define MEM_HOLE_END 0x100000000ull
#define MEM_ROM_SIZE 0x10000ull /* the firmware's, at the end of the hole */
#define MEM_ROM_START (MEM_HOLE_END - MEM_ROM_SIZE)
#define MEM_MIN_RAM (4ull << 20)
#define MEM_MAX_RAM (1ull << 40)

enum mem_kind { MEM_NONE, MEM_RAM, MEM_ROM };

enum mem_trace {
    MEM_TRACE_CODE = 1u << 0,  /* the interpreter has decoded code from the page */
    MEM_TRACE_PT = 1u << 1,    /* page tables that retained shadows depend on */
    MEM_TRACE_DIRTY = 1u << 2, /* dirty logging */
    MEM_TRACE_TC = 1u << 3,    /* the translation cache has code from the page */
};
#define MEM_TRACE_COUNT 4

struct mem_region {
    struct gpa start;
    uint64_t size;
    enum mem_kind kind;
    uint8_t *host;
};

struct mem_hooks {
    /* The shadow must forget write entries for the RAM page at HOST_PAGE. */
    void (*drop_write)(void *arg, uint8_t *host_page);
    /* A store of LEN bytes (within one page) is about to hit a page traced by owner N. */
    void (*on_write[MEM_TRACE_COUNT])(void *arg, struct gpa at, unsigned len);
    void *drop_arg;
    void *on_write_arg[MEM_TRACE_COUNT];
};

/* memcpy() without vector registers. AddressSanitizer does not see into assembly. */
static inline void mem_copy(void *to, const void *from, uint64_t len) {
#ifdef __SANITIZE_ADDRESS__
    for (uint64_t i = 0; i < len; i++)
        ((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
#else
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
#endif
}

/* memset() without vector registers. */
static inline void mem_fill(void *to, uint8_t byte, uint64_t len) {
#ifdef __SANITIZE_ADDRESS__
    for (uint64_t i = 0; i < len; i++)
        ((volatile uint8_t *)to)[i] = byte;
#else
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(byte) : "memory");
#endif
}

struct mem;

/* RAM of SIZE bytes (a multiple of 4 KiB, MEM_MIN_RAM..MEM_MAX_RAM), zeroed.
 * 0, or -errno (-EINVAL for the size, -ENOMEM when the host cannot). */
int mem_create(uint64_t size, struct mem **out);
void mem_destroy(struct mem *m);

/* Zeroes RAM, drops all traces and ROM marks (as after mem_create(), hooks kept); for a
 * machine reset. The ROM below 4 GiB keeps its contents. Whoever derived anything from
 * RAM (shadow, decoded code) drops it too.
 */
void mem_reset(struct mem *m);

/* Installs upward signals; the caller keeps ownership of what ARGs point to. */
struct mem_hooks *mem_hooks(struct mem *m);

uint64_t mem_ram_size(const struct mem *m);
/* Regions in ascending order; *COUNT of them; the array is the map's own. */
const struct mem_region *mem_regions(const struct mem *m, size_t *count);
/* The host mapping: mem_ram_size() bytes of RAM, then the ROM, mem_host_size() bytes in
 * all. What is kept for each page of memory has a place for each page of these. */
uint8_t *mem_ram_base(const struct mem *m);
uint64_t mem_host_size(const struct mem *m);

/* Marks [START, START+LEN) read-only for the guest. -EINVAL when it is not whole pages of
 * RAM, -ENOSPC when the map would get too fragmented. */
int mem_set_rom(struct mem *m, struct gpa start, uint64_t len);

/* Region kind at an address. */
enum mem_kind mem_kind_at(const struct mem *m, struct gpa at);

/* Host pointer to [AT, AT+LEN) when all of it is in one RAM or ROM region, else NULL. */
uint8_t *mem_host(const struct mem *m, struct gpa at, uint64_t len);
/* The guest-physical address of a pointer that mem_host() gave; ~0 for any other. */
struct gpa mem_gpa(const struct mem *m, const uint8_t *host);

/* Checked copies, for loaders, devices and descriptor code. False when any byte is not
 * RAM (or, for a write, not writable). mem_write() honours traces. */
bool mem_read(const struct mem *m, struct gpa at, void *buf, uint64_t len);
bool mem_write(struct mem *m, struct gpa at, const void *buf, uint64_t len);
/* As mem_write(), but into ROM too: for who makes the ROM. */
bool mem_program(struct mem *m, struct gpa at, const void *buf, uint64_t len);

/* Traces. HOST_PAGE is page-aligned and inside RAM or ROM. */
void mem_trace_add(struct mem *m, uint8_t *host_page, enum mem_trace owner);
void mem_trace_remove(struct mem *m, uint8_t *host_page, enum mem_trace owner);
unsigned mem_trace_of(const struct mem *m, const uint8_t *host_page);
/* Tells the owners. To be called before the bytes change. [AT, AT+LEN) is in one page. */
void mem_trace_hit(struct mem *m, uint8_t *host, unsigned len);

#endif
