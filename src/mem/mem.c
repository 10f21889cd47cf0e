/*
 * Guest-physical memory.
 *
 * RAM is one host mapping; a RAM offset and a guest-physical address are related by
 * arithmetic alone:
 *
 *     offset 0 .. low-1       <->  gpa 0 .. low-1          low = min(size, 3 GiB)
 *     offset low .. size-1    <->  gpa 4 GiB .. 4 GiB + size - low - 1
 *
 * `page` has one byte for each RAM page: the trace bits, and PAGE_ROM. The list of
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
    uint64_t size;
    uint64_t low; /* bytes of RAM below the hole */
    int fd;
    uint8_t *page; /* size / 4096 bytes: trace bits and PAGE_ROM */
    size_t region_count;
    struct mem_region region[MAX_REGIONS];
    struct mem_hooks hooks;
};

/* RAM offset of AT, or false. */
static inline bool offset_of(const struct mem *m, uint64_t at, uint64_t *off) {
    if (at < m->low) {
        *off = at;
        return true;
    }
    *off = at - MEM_HOLE_END + m->low;
    return at >= MEM_HOLE_END && *off < m->size;
}

static inline uint64_t gpa_of(const struct mem *m, uint64_t off) {
    return off < m->low ? off : off - m->low + MEM_HOLE_END;
}

/* RAM offset of a host pointer, or false when it is not in RAM. */
static inline bool host_offset(const struct mem *m, const uint8_t *host, uint64_t *off) {
    *off = (uint64_t)((uintptr_t)host - (uintptr_t)m->ram);
    return *off < m->size;
}

/* Rebuilds the list from the ROM bits; -ENOSPC when it does not fit (list unchanged). */
static int build_regions(struct mem *m) {
    struct mem_region list[MAX_REGIONS];
    size_t n = 0;
    for (uint64_t p = 0; p < m->size >> PAGE_SHIFT; p++) {
        uint64_t off = p << PAGE_SHIFT;
        enum mem_kind kind = m->page[p] & PAGE_ROM ? MEM_ROM : MEM_RAM;
        if (n && list[n - 1].kind == kind && off != m->low) {
            list[n - 1].size += PAGE_SIZE;
            continue;
        }
        if (n == MAX_REGIONS)
            return -ENOSPC;
        list[n++] =
            (struct mem_region){gpa(gpa_of(m, off)), PAGE_SIZE, kind, m->ram + off};
    }
    mem_copy(m->region, list, n * sizeof(list[0]));
    m->region_count = n;
    return 0;
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
    m->low = size < MEM_HOLE_START ? size : MEM_HOLE_START;
    m->page = calloc(size >> PAGE_SHIFT, 1);
    if (!m->page)
        goto free_mem;
    rc = os_memfd_map("guest-ram", size, &m->fd, &map);
    if (rc)
        goto free_page;
    m->ram = map;
    build_regions(m); /* without ROM there are at most two */
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
    os_memfd_unmap(m->fd, m->ram, m->size);
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

bool mem_read(const struct mem *m, struct gpa at, void *buf, uint64_t len) {
    uint64_t off = 0;
    if (!len)
        return true;
    /* No hole lies inside what is covered, so its offsets are contiguous too. */
    if (!covered(m, at.a, len, true) || !offset_of(m, at.a, &off))
        return false;
    mem_copy(buf, m->ram + off, len);
    return true;
}

bool mem_write(struct mem *m, struct gpa at, const void *buf, uint64_t len) {
    uint64_t off = 0;
    const uint8_t *from = buf;
    if (!len)
        return true;
    if (!covered(m, at.a, len, false) || !offset_of(m, at.a, &off))
        return false;
    while (len) {
        uint64_t n = PAGE_SIZE - off % PAGE_SIZE;
        n = n < len ? n : len;
        if (unlikely(m->page[off >> PAGE_SHIFT] & PAGE_TRACES))
            mem_trace_hit(m, m->ram + off, (unsigned)n);
        mem_copy(m->ram + off, from, n);
        off += n;
        from += n;
        len -= n;
    }
    return true;
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
