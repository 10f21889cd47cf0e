/*
 * Guest-physical memory.
 *
 * RAM and the ROM below 4 GiB are one host mapping; an offset in it and a guest-physical
 * address are related by arithmetic alone:
 *
 *     offset 0 .. low-1       <->  gpa 0 .. low-1          low = min(size, 3 GiB)
 *     offset low .. size-1    <->  gpa 4 GiB .. 4 GiB + size - low - 1
 *     offset size .. +64 KiB  <->  gpa 4 GiB - 64 KiB .. 4 GiB - 1
 *
 * `page` has one byte for each page of it: the trace bits, and PAGE_ROM. The list of
 * regions is derived from it when ROM marks change; single-page questions never look at
 * the list.
 *
 * Not here: MMIO (bus/ answers what is in no region) and linear addresses (mmu/).
 */
#include "mem/mem.h"

#include "base/os.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE_SIZE 4096ull
#define PAGE_SHIFT 12
#define PAGE_ROM 0x80u
#define PAGE_TRACES ((1u << MEM_TRACE_COUNT) - 1)
#define MAX_REGIONS 64

struct mem {
    uint8_t *ram;
    uint64_t size; /* of RAM */
    uint64_t host; /* of the mapping */
    uint64_t low;  /* bytes of RAM below the hole */
    int fd;
    uint8_t *page; /* host / 4096 bytes: trace bits and PAGE_ROM */
    size_t region_count;
    struct mem_region region[MAX_REGIONS];
    struct mem_hooks hooks;
};

/* Offset of AT in the mapping, or false. */
static inline bool offset_of(const struct mem *m, uint64_t at, uint64_t *off) {
    if (at < m->low) {
        *off = at;
        return true;
    }
    if (at < MEM_HOLE_END) {
        *off = at - MEM_ROM_START + m->size;
        return at >= MEM_ROM_START;
    }
    *off = at - MEM_HOLE_END + m->low;
    return *off < m->size;
}

static inline uint64_t gpa_of(const struct mem *m, uint64_t off) {
    return off < m->low    ? off
           : off < m->size ? off - m->low + MEM_HOLE_END
                           : off - m->size + MEM_ROM_START;
}

/* Offset of a host pointer, or false when it is not in the mapping. */
static inline bool host_offset(const struct mem *m, const uint8_t *host, uint64_t *off) {
    *off = (uint64_t)((uintptr_t)host - (uintptr_t)m->ram);
    return *off < m->host;
}

struct region_list {
    size_t count;
    struct mem_region region[MAX_REGIONS];
};

/* Adds the pages of [OFF, END), which are one piece of guest-physical memory too. */
static int add_regions(const struct mem *m, struct region_list *l, uint64_t off,
                       uint64_t end) {
    size_t first = l->count;

    for (; off < end; off += PAGE_SIZE) {
        enum mem_kind kind = m->page[off >> PAGE_SHIFT] & PAGE_ROM ? MEM_ROM : MEM_RAM;
        if (l->count > first && l->region[l->count - 1].kind == kind) {
            l->region[l->count - 1].size += PAGE_SIZE;
            continue;
        }
        if (l->count == MAX_REGIONS)
            return -ENOSPC;
        l->region[l->count++] =
            (struct mem_region){gpa(gpa_of(m, off)), PAGE_SIZE, kind, m->ram + off};
    }
    return 0;
}

/* Rebuilds the list from the ROM bits; -ENOSPC when it does not fit (list unchanged). */
static int build_regions(struct mem *m) {
    struct region_list l = {.count = 0};

    if (add_regions(m, &l, 0, m->low) || add_regions(m, &l, m->size, m->host) ||
        add_regions(m, &l, m->low, m->size))
        return -ENOSPC;
    mem_copy(m->region, l.region, l.count * sizeof(l.region[0]));
    m->region_count = l.count;
    return 0;
}

/* The window below 4 GiB is ROM from the start. */
static void mark_rom_window(struct mem *m) {
    for (uint64_t p = m->size >> PAGE_SHIFT; p < m->host >> PAGE_SHIFT; p++)
        m->page[p] = PAGE_ROM;
}

int mem_create(uint64_t size, struct mem **out) {
    if (size < MEM_MIN_RAM || size > MEM_MAX_RAM || size % PAGE_SIZE)
        return -EINVAL;
    struct mem *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    int rc = -ENOMEM;
    void *map;
    m->size = size;
    m->host = size + MEM_ROM_SIZE;
    m->low = size < MEM_HOLE_START ? size : MEM_HOLE_START;
    m->page = calloc(m->host >> PAGE_SHIFT, 1);
    if (!m->page)
        goto free_mem;
    rc = os_memfd_map("guest-ram", m->host, &m->fd, &map);
    if (rc)
        goto free_page;
    m->ram = map;
    mark_rom_window(m);
    build_regions(m); /* without more ROM there are at most three */
    *out = m;
    return 0;

free_page:
    free(m->page);
free_mem:
    free(m);
    return rc;
}

void mem_destroy(struct mem *m) {
    if (!m)
        return;
    os_memfd_unmap(m->fd, m->ram, m->host);
    free(m->page);
    free(m);
}

void mem_reset(struct mem *m) {
    /* os_memfd_zero() may be refused by the host; then the bytes are cleared by hand. */
    if (os_memfd_zero(m->fd, m->ram, m->size) < 0)
        mem_fill(m->ram, 0, m->size);
    /* Most bytes are zero and, never having been written, not even allocated. */
    for (uint64_t p = 0; p < m->size >> PAGE_SHIFT; p++)
        if (m->page[p])
            m->page[p] = 0;
    mark_rom_window(m);
    build_regions(m);
}

struct mem_hooks *mem_hooks(struct mem *m) {
    return &m->hooks;
}

uint64_t mem_ram_size(const struct mem *m) {
    return m->size;
}

const struct mem_region *mem_regions(const struct mem *m, size_t *count) {
    *count = m->region_count;
    return m->region;
}

uint8_t *mem_ram_base(const struct mem *m) {
    return m->ram;
}

uint64_t mem_host_size(const struct mem *m) {
    return m->host;
}

int mem_set_rom(struct mem *m, struct gpa start, uint64_t len) {
    uint64_t off, last;
    if (!len)
        return 0;
    if (start.a % PAGE_SIZE || len % PAGE_SIZE || len > m->size ||
        start.a > UINT64_MAX - len || !offset_of(m, start.a, &off) ||
        !offset_of(m, start.a + len - 1, &last) || last - off != len - 1)
        return -EINVAL;
    uint64_t first = off >> PAGE_SHIFT, end = (last >> PAGE_SHIFT) + 1;
    /* A mark adds at most two regions; refuse before anything has changed. */
    if (m->region_count + 2 > MAX_REGIONS)
        return -ENOSPC;
    for (uint64_t p = first; p < end; p++) {
        m->page[p] |= PAGE_ROM;
        if (m->hooks.drop_write)
            m->hooks.drop_write(m->hooks.drop_arg, m->ram + (p << PAGE_SHIFT));
    }
    return build_regions(m);
}

enum mem_kind mem_kind_at(const struct mem *m, struct gpa at) {
    uint64_t off;
    if (!offset_of(m, at.a, &off))
        return MEM_NONE;
    return m->page[off >> PAGE_SHIFT] & PAGE_ROM ? MEM_ROM : MEM_RAM;
}

uint8_t *mem_host(const struct mem *m, struct gpa at, uint64_t len) {
    uint64_t off;
    if (!offset_of(m, at.a, &off))
        return NULL;
    if (len <= PAGE_SIZE - at.a % PAGE_SIZE)
        return m->ram + off;
    for (size_t i = 0; i < m->region_count; i++) {
        const struct mem_region *r = &m->region[i];
        if (at.a >= r->start.a && at.a - r->start.a < r->size)
            return len <= r->size - (at.a - r->start.a) ? m->ram + off : NULL;
    }
    return NULL;
}

struct gpa mem_gpa(const struct mem *m, const uint8_t *host) {
    uint64_t off;
    return gpa(host_offset(m, host, &off) ? gpa_of(m, off) : UINT64_MAX);
}

/* All of [AT, AT+LEN) is RAM, or also ROM when ROM_TOO. */
static bool covered(const struct mem *m, uint64_t at, uint64_t len, bool rom_too) {
    if (len > m->size || at > UINT64_MAX - len)
        return false;
    for (size_t i = 0; len && i < m->region_count; i++) {
        const struct mem_region *r = &m->region[i];
        if (at < r->start.a || at - r->start.a >= r->size)
            continue;
        if (r->kind == MEM_ROM && !rom_too)
            return false;
        uint64_t n = r->size - (at - r->start.a);
        n = n < len ? n : len;
        at += n;
        len -= n;
    }
    return !len;
}

/* Offset of AT, and in *N how many of the LEN bytes from there on follow it in the
 * mapping too. No hole lies inside what is covered, but at 4 GiB the ROM ends and RAM
 * goes on, and these are not neighbours here. */
static uint64_t next_piece(const struct mem *m, uint64_t at, uint64_t len, uint64_t *n) {
    uint64_t off = 0;
    *n = at < MEM_HOLE_END && len > MEM_HOLE_END - at ? MEM_HOLE_END - at : len;
    offset_of(m, at, &off);
    return off;
}

bool mem_read(const struct mem *m, struct gpa at, void *buf, uint64_t len) {
    uint8_t *to = buf;
    if (!covered(m, at.a, len, true))
        return false;
    for (uint64_t n; len; at.a += n, to += n, len -= n) {
        uint64_t off = next_piece(m, at.a, len, &n);
        mem_copy(to, m->ram + off, n);
    }
    return true;
}

static bool store(struct mem *m, struct gpa at, const void *buf, uint64_t len,
                  bool rom_too) {
    const uint8_t *from = buf;
    if (!covered(m, at.a, len, rom_too))
        return false;
    for (uint64_t n; len; at.a += n, from += n, len -= n) {
        uint64_t off = next_piece(m, at.a, len, &n);
        if (n > PAGE_SIZE - off % PAGE_SIZE)
            n = PAGE_SIZE - off % PAGE_SIZE;
        if (unlikely(m->page[off >> PAGE_SHIFT] & PAGE_TRACES))
            mem_trace_hit(m, m->ram + off, (unsigned)n);
        mem_copy(m->ram + off, from, n);
    }
    return true;
}

bool mem_write(struct mem *m, struct gpa at, const void *buf, uint64_t len) {
    return store(m, at, buf, len, false);
}

bool mem_program(struct mem *m, struct gpa at, const void *buf, uint64_t len) {
    return store(m, at, buf, len, true);
}

void mem_trace_add(struct mem *m, uint8_t *host_page, enum mem_trace owner) {
    uint64_t off;
    if (!host_offset(m, host_page, &off))
        return;
    uint8_t *bits = &m->page[off >> PAGE_SHIFT];
    unsigned before = *bits & PAGE_TRACES;
    *bits |= (uint8_t)(owner & PAGE_TRACES);
    /* Already traced by someone: there is no write entry to drop. */
    if (!before && m->hooks.drop_write)
        m->hooks.drop_write(m->hooks.drop_arg, m->ram + (off & ~(PAGE_SIZE - 1)));
}

void mem_trace_remove(struct mem *m, uint8_t *host_page, enum mem_trace owner) {
    uint64_t off;
    if (host_offset(m, host_page, &off))
        m->page[off >> PAGE_SHIFT] &= (uint8_t) ~(owner & PAGE_TRACES);
}

unsigned mem_trace_of(const struct mem *m, const uint8_t *host_page) {
    uint64_t off;
    return host_offset(m, host_page, &off) ? m->page[off >> PAGE_SHIFT] & PAGE_TRACES : 0;
}

void mem_trace_hit(struct mem *m, uint8_t *host, unsigned len) {
    uint64_t off;
    if (!host_offset(m, host, &off))
        return;
    struct gpa at = gpa(gpa_of(m, off));
    for (unsigned i = 0; i < MEM_TRACE_COUNT; i++) {
        /* Read anew each time: an owner may remove traces, its own or all. */
        if ((m->page[off >> PAGE_SHIFT] & (1u << i)) && m->hooks.on_write[i])
            m->hooks.on_write[i](m->hooks.on_write_arg[i], at, len);
    }
}
