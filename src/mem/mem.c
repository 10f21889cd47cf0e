/*
 * Guest-physical memory: the bytes, their traces, and the changes of what is where.
 *
 * All of it is one host mapping: RAM (below the hole, then above it), then room for
 * regions that are added, then for the ROM, which lies at the end and grows downwards.
 * `page` has one byte for each page of it. What is where is in the layout (layout.c).
 *
 * Not here: MMIO (bus/ answers what no region shows) and linear addresses (mmu/).
 */
#include "base/os.h"
#include "mem/mem_int.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE_ROM 0x80u
#define PAGE_HIDDEN 0x40u
#define USED_ENOUGH 32u /* calls of mem_use(): most of a large page will be used */
#define REFUSED_MAX 8u  /* large pages, in a row: the host has none */
#define PAGE_TRACES ((1u << MEM_TRACE_COUNT) - 1)
_Static_assert(!(PAGE_TRACES & (PAGE_ROM | PAGE_HIDDEN)), "bits of a page");

/* Offset of a host pointer, or false when it is not in the mapping. */
static inline bool host_offset(const struct mem *m, const uint8_t *host, uint64_t *off) {
    *off = (uint64_t)((uintptr_t)host - (uintptr_t)m->layout.base);
    return *off < m->host;
}

/* --- other threads --- */

void mem_lock(struct mem *m) {
    if (m->hooks.lock)
        m->hooks.lock(m->hooks.lock_arg);
}

void mem_unlock(struct mem *m) {
    if (m->hooks.unlock)
        m->hooks.unlock(m->hooks.lock_arg);
}

static void freeze(struct mem *m) {
    if (m->hooks.freeze)
        m->hooks.freeze(m->hooks.lock_arg);
}

static void thaw(struct mem *m) {
    if (m->hooks.thaw)
        m->hooks.thaw(m->hooks.lock_arg);
}

static uint8_t traces_of(const struct mem *m, uint64_t off) {
    return __atomic_load_n(&m->page[off >> PAGE_SHIFT], __ATOMIC_RELAXED) & PAGE_TRACES;
}

/* For share.c. */
static void note_blank(struct mem *m, uint64_t off, uint64_t len) {
    struct mem_blank *last = m->blanks ? &m->blank[m->blanks - 1] : NULL;

    if (m->blanks > MEM_BLANKS)
        return;
    if (last && last->to == off)
        last->to += len;
    else if (m->blanks++ < MEM_BLANKS)
        m->blank[m->blanks - 1] = (struct mem_blank){off, off + len};
}

/* LEN bytes at OFF are zeros, which the host keeps no memory for; or -errno. */
static int give_back(struct mem *m, uint64_t off, uint64_t len) {
    if (m->shown >= 0) {
        note_blank(m, off, len);
        return os_memory_blank(m->layout.base + off, len);
    }
    return os_memfd_zero_part(m->fd, m->layout.base, off, len);
}

/* --- pages and what is derived from them --- */

static uint8_t page_kind(enum mem_kind kind) {
    return kind == MEM_ROM ? PAGE_ROM : kind == MEM_NONE ? PAGE_HIDDEN : 0;
}

static void mark_pages(struct mem *m, uint64_t from, uint64_t to, enum mem_kind kind) {
    for (uint64_t p = from >> PAGE_SHIFT; p < to >> PAGE_SHIFT; p++)
        m->page[p] = (uint8_t)((m->page[p] & PAGE_TRACES) | page_kind(kind));
}

static void report_pages(struct mem *m, uint64_t from, uint64_t to) {
    for (uint64_t off = from; off < to; off += PAGE_SIZE)
        if (m->page[off >> PAGE_SHIFT] & PAGE_TRACES)
            mem_trace_hit(m, m->layout.base + off, PAGE_SIZE);
}

/* Pages FROM..TO-1 are about to be elsewhere, or nowhere; what they hid, or what hid
 * them, can only be of an added region. Nobody will be told of stores to those that are
 * not seen: they count as written now. */
static void report_traced(struct mem *m, uint64_t from, uint64_t to) {
    if (from < m->size || from >= m->size + MEM_ADDED_MAX)
        report_pages(m, from, to);
    for (unsigned n = 0; n < m->layout.regions; n++) {
        const struct mem_region *r = m->layout.order[n];

        if (r->added)
            report_pages(m, r->off, r->off + r->size);
    }
}

static void build(struct mem *m) {
    mem_layout_build(&m->layout);
    if (m->hooks.changed)
        m->hooks.changed(m->hooks.changed_arg);
}

/* --- life --- */

static void add_ram(struct mem *m) {
    uint64_t low = m->size < MEM_HOLE_START ? m->size : MEM_HOLE_START;
    struct mem_region r = {.size = low, .kind = MEM_RAM, .on = true};

    mem_layout_add(&m->layout, &r);
    r = (struct mem_region){.start = MEM_HOLE_END,
                            .size = m->size - low,
                            .off = low,
                            .kind = MEM_RAM,
                            .on = true};
    if (r.size)
        mem_layout_add(&m->layout, &r);
    r = (struct mem_region){.start = MEM_ROM_START,
                            .size = MEM_ROM_SIZE,
                            .off = m->host - MEM_ROM_SIZE,
                            .kind = MEM_ROM,
                            .on = true};
    m->rom = mem_layout_add(&m->layout, &r);
    mark_pages(m, r.off, m->host, MEM_ROM);
    mem_layout_build(&m->layout);
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
    m->shown = -1;
    m->host = size + MEM_ADDED_MAX + MEM_ROM_MAX;
    m->page = calloc(m->host >> PAGE_SHIFT, 1); /* aligned for words */
    m->used = calloc(m->host / OS_LARGE_PAGE + 1, 1);
    if (!m->page || !m->used)
        goto free_page;
    rc = os_memfd_map("guest-ram", m->host, &m->fd, &map);
    if (rc)
        goto free_page;
    m->layout.base = map;
    add_ram(m);
    *out = m;
    return 0;

free_page:
    free(m->used);
    free(m->page);
    free(m);
    return rc;
}

void mem_destroy(struct mem *m) {
    if (!m)
        return;
    os_memfd_unmap(m->fd, m->layout.base, m->host);
    free(m->used);
    free(m->page);
    free(m);
}

void mem_reset(struct mem *m) {
    /* This may be refused by the host; then the bytes are cleared by hand. */
    if (give_back(m, 0, m->size) < 0)
        mem_fill(m->layout.base, 0, m->size);
    else
        mem_fill(m->used, 0, m->host / OS_LARGE_PAGE + 1);
    /* Most bytes are zero and, never having been written, not even allocated. */
    for (uint64_t p = 0; p < m->host >> PAGE_SHIFT; p++)
        if (m->page[p])
            m->page[p] = 0;
    for (unsigned n = 0; n < m->layout.regions; n++) {
        const struct mem_region *r = m->layout.order[n];

        if (r->kind != MEM_RAM)
            mark_pages(m, r->off, r->off + r->size, r->kind);
    }
    m->layout.runs = 0;
    mem_layout_build(&m->layout);
}

struct mem_hooks *mem_hooks(struct mem *m) {
    return &m->hooks;
}

void mem_own_trace(struct mem *m, enum mem_trace owner,
                   void (*written)(void *arg, struct gpa at, unsigned len), void *arg) {
    m->hooks.on_write[__builtin_ctz(owner)] = written;
    m->hooks.on_write_arg[__builtin_ctz(owner)] = arg;
}

uint64_t mem_ram_size(const struct mem *m) {
    return m->size;
}

const struct mem_piece *mem_map(const struct mem *m, size_t *count) {
    *count = m->layout.pieces;
    return m->layout.piece;
}

uint8_t *mem_ram_base(const struct mem *m) {
    return m->layout.base;
}

uint64_t mem_host_size(const struct mem *m) {
    return m->host;
}

/* --- regions --- */

/* LEN bytes of the mapping's room for regions that nobody has, or 0. */
static uint64_t find_room(const struct mem *m, uint64_t len) {
    uint64_t at = m->size, end = m->size + MEM_ADDED_MAX;
    unsigned n = 0;

    while (n < m->layout.regions && at + len <= end) {
        const struct mem_region *r = m->layout.order[n++];

        if (r->added && r->off < at + len && at < r->off + r->size) {
            at = r->off + r->size;
            n = 0;
        }
    }
    return at + len <= end ? at : 0;
}

int mem_region_add(struct mem *m, struct gpa start, uint64_t len, enum mem_kind kind,
                   struct mem_region **out) {
    struct mem_region r = {
        .start = start.a, .size = len, .kind = kind, .on = true, .added = true};

    if (!len || len % PAGE_SIZE || start.a % PAGE_SIZE || kind == MEM_NONE)
        return -EINVAL;
    if (len > MEM_ADDED_MAX)
        return -ENOSPC;
    r.off = find_room(m, len);
    freeze(m);
    *out = r.off ? mem_layout_add(&m->layout, &r) : NULL;
    if (*out) {
        mark_pages(m, r.off, r.off + len, kind);
        report_traced(m, r.off, r.off);
        build(m);
    }
    thaw(m);
    return *out ? 0 : -ENOSPC;
}

void mem_region_remove(struct mem *m, struct mem_region *r) {
    uint64_t from = r->off, to = r->off + r->size;

    freeze(m);
    report_traced(m, from, to);
    mem_layout_remove(&m->layout, r);
    for (uint64_t p = from >> PAGE_SHIFT; p < to >> PAGE_SHIFT; p++)
        m->page[p] = 0;
    build(m);
    if (give_back(m, from, to - from) < 0)
        mem_fill(m->layout.base + from, 0, to - from);
    thaw(m);
}

int mem_region_move(struct mem *m, struct mem_region *r, struct gpa start) {
    if (start.a % PAGE_SIZE)
        return -EINVAL;
    if (start.a == r->start)
        return 0;
    freeze(m);
    if (r->on)
        report_traced(m, r->off, r->off + r->size);
    r->start = start.a;
    if (r->on)
        build(m);
    thaw(m);
    return 0;
}

void mem_region_show(struct mem *m, struct mem_region *r, bool on) {
    if (r->on == on)
        return;
    freeze(m);
    report_traced(m, r->off, r->off + r->size);
    r->on = on;
    build(m);
    thaw(m);
}

uint8_t *mem_region_host(const struct mem *m, const struct mem_region *r) {
    return m->layout.base + r->off;
}

int mem_rom_resize(struct mem *m, uint64_t len) {
    struct mem_region *r = m->rom;

    if (!len || len % PAGE_SIZE || len > MEM_ROM_MAX)
        return -EINVAL;
    if (len == r->size)
        return 0;
    freeze(m);
    report_traced(m, r->off, m->host);
    /* Kinds that were set below its new beginning go. */
    mem_layout_set_kind(&m->layout, r, r->off, r->off + r->size, r->kind);
    r->start = MEM_HOLE_END - len;
    r->size = len;
    r->off = m->host - len;
    mark_pages(m, m->host - MEM_ROM_MAX, m->host, MEM_ROM);
    build(m);
    thaw(m);
    return 0;
}

int mem_set_kind(struct mem *m, struct gpa start, uint64_t len, enum mem_kind kind) {
    struct mem_region *r = mem_layout_region_at(&m->layout, start.a, len);
    uint64_t from;

    if (!len)
        return 0;
    if (!r || start.a % PAGE_SIZE || len % PAGE_SIZE)
        return -EINVAL;
    from = r->off + (start.a - r->start);
    freeze(m);
    if (!mem_layout_set_kind(&m->layout, r, from, from + len, kind)) {
        thaw(m);
        return -ENOSPC;
    }
    report_traced(m, from, from + len);
    mark_pages(m, from, from + len, kind);
    build(m);
    thaw(m);
    return 0;
}

/* --- addresses --- */

enum mem_kind mem_kind_at(const struct mem *m, struct gpa at) {
    const struct mem_piece *p = mem_layout_at(&m->layout, at.a);

    return p ? p->kind : MEM_NONE;
}

enum mem_kind mem_kind_of(const struct mem *m, const uint8_t *host) {
    uint64_t off;
    uint8_t page;

    if (!host_offset(m, host, &off))
        return MEM_NONE;
    page = __atomic_load_n(&m->page[off >> PAGE_SHIFT], __ATOMIC_RELAXED);
    if (page & PAGE_HIDDEN)
        return MEM_NONE;
    return page & PAGE_ROM ? MEM_ROM : MEM_RAM;
}

uint8_t *mem_host(const struct mem *m, struct gpa at, uint64_t len) {
    const struct mem_piece *p = mem_layout_at(&m->layout, at.a);

    if (unlikely(!p || len > p->size - (at.a - p->start.a)))
        return NULL;
    return p->host + (at.a - p->start.a);
}

struct gpa mem_gpa(const struct mem *m, const uint8_t *host) {
    uint64_t off;

    return gpa(host_offset(m, host, &off) ? mem_layout_gpa(&m->layout, host)
                                          : UINT64_MAX);
}

void mem_use(struct mem *m, const uint8_t *host) {
    uint64_t off, n;
    unsigned refused;
    uint8_t used;

    if (!host_offset(m, host, &off))
        return;
    n = off / OS_LARGE_PAGE;
    /* Threads that count at once may count once. */
    used = __atomic_load_n(&m->used[n], __ATOMIC_RELAXED);
    if (likely(used == USED_ENOUGH))
        return;
    __atomic_store_n(&m->used[n], (uint8_t)(used + 1), __ATOMIC_RELAXED);
    if (used + 1 != USED_ENOUGH)
        return;
    refused = __atomic_load_n(&m->refused, __ATOMIC_RELAXED);
    if (refused == REFUSED_MAX || (n + 1) * OS_LARGE_PAGE > m->host)
        return;
    switch (os_large_page(m->layout.base + n * OS_LARGE_PAGE)) {
    case 0:
        refused = 0;
        break;
    case -EINVAL:
        refused = REFUSED_MAX;
        break;
    default:
        refused++;
    }
    __atomic_store_n(&m->refused, refused, __ATOMIC_RELAXED);
}

/* --- copies --- */

/* Host address of AT, and in *N how many of the LEN bytes from there on follow it; NULL
 * when it is not memory, or ROM unless ROM_TOO. */
static uint8_t *next_bytes(const struct mem *m, uint64_t at, uint64_t len, bool rom_too,
                           uint64_t *n) {
    const struct mem_piece *p = mem_layout_at(&m->layout, at);

    *n = 0;
    if (!p || (p->kind == MEM_ROM && !rom_too))
        return NULL;
    *n = p->size - (at - p->start.a);
    *n = *n < len ? *n : len;
    return p->host + (at - p->start.a);
}

/* All of [AT, AT+LEN) is RAM, or also ROM when ROM_TOO. */
static bool covered(const struct mem *m, uint64_t at, uint64_t len, bool rom_too) {
    if (at > UINT64_MAX - len)
        return false;
    for (uint64_t n; len; at += n, len -= n)
        if (!next_bytes(m, at, len, rom_too, &n))
            return false;
    return true;
}

bool mem_read(const struct mem *m, struct gpa at, void *buf, uint64_t len) {
    const uint8_t *all = mem_host(m, at, len);
    uint8_t *to = buf;

    if (likely(all)) {
        mem_copy(to, all, len);
        return true;
    }
    if (!covered(m, at.a, len, true))
        return false;
    for (uint64_t n; len; at.a += n, to += n, len -= n) {
        const uint8_t *host = next_bytes(m, at.a, len, true, &n);

        mem_copy(to, host, n);
    }
    return true;
}

/* 16 aligned bytes at once, without vector registers. */
static void store_16(uint8_t *host, const void *buf) {
    const unaligned_u64 *from = buf;
    uint64_t lo = from[0], hi = from[1], old_lo = 0, old_hi = 0;
    bool done = false;

    while (!done)
        __asm__ volatile("lock cmpxchg16b %[m]"
                         : [m] "+m"(*(unsigned __int128 *)(void *)host), "+a"(old_lo),
                           "+d"(old_hi), "=@ccz"(done)
                         : "b"(lo), "c"(hi)
                         : "memory");
}

/* LEN bytes of one page: a scalar by one store, as other CPUs and devices expect it; 16
 * aligned bytes, too. AMD64 APM volume 2, "Access Atomicity". */
static void store_bytes(uint8_t *host, const void *buf, uint64_t len) {
    switch (len) {
    case 1:
        __atomic_store_n(host, *(const uint8_t *)buf, __ATOMIC_RELEASE);
        break;
    case 2:
        *(volatile unaligned_u16 *)host = *(const unaligned_u16 *)buf;
        break;
    case 4:
        *(volatile unaligned_u32 *)host = *(const unaligned_u32 *)buf;
        break;
    case 8:
        *(volatile unaligned_u64 *)host = *(const unaligned_u64 *)buf;
        break;
    case 16:
        if (!((uintptr_t)host & 15)) {
            store_16(host, buf);
            break;
        }
        /* fall through */
    default:
        mem_copy(host, buf, len);
    }
}

/* LEN bytes at HOST have been stored where there was no trace. */
static void look_again(struct mem *m, uint8_t *host, uint64_t len) {
    if (!m->hooks.lock)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (likely(!traces_of(m, (uint64_t)(host - m->layout.base))))
        return;
    mem_lock(m); /* set meanwhile: whether its owner has seen this, we cannot say */
    mem_trace_hit(m, host, (unsigned)len);
    mem_unlock(m);
}

/* Of one page; the owners of its traces are told. */
static void store_piece(struct mem *m, uint8_t *host, const uint8_t *from, uint64_t len) {
    uint64_t off = (uint64_t)(host - m->layout.base);

    if (likely(!traces_of(m, off))) {
        store_bytes(host, from, len);
        look_again(m, host, len);
        return;
    }
    mem_lock(m);
    mem_trace_hit(m, host, (unsigned)len);
    store_bytes(host, from, len);
    mem_unlock(m);
}

/* The same page by page, to what is memory without a gap. */
static void store_run(struct mem *m, uint8_t *host, const uint8_t *from, uint64_t len) {
    for (uint64_t n; len; host += n, from += n, len -= n) {
        uint64_t off = (uint64_t)(host - m->layout.base);

        n = PAGE_SIZE - off % PAGE_SIZE;
        n = n < len ? n : len;
        mem_use(m, host);
        store_piece(m, host, from, n);
    }
}

static bool store(struct mem *m, struct gpa at, const void *buf, uint64_t len,
                  bool rom_too) {
    const uint8_t *from = buf;

    if (!covered(m, at.a, len, rom_too))
        return false;
    for (uint64_t n; len; at.a += n, from += n, len -= n) {
        uint8_t *host = next_bytes(m, at.a, len, rom_too, &n);

        store_run(m, host, from, n);
    }
    return true;
}

bool mem_write(struct mem *m, struct gpa at, const void *buf, uint64_t len) {
    return store(m, at, buf, len, false);
}

bool mem_program(struct mem *m, struct gpa at, const void *buf, uint64_t len) {
    return store(m, at, buf, len, true);
}

uint8_t *mem_run(const struct mem *m, struct gpa at, uint64_t len, bool write,
                 uint64_t *n) {
    return next_bytes(m, at.a, len, !write, n);
}

void mem_store(struct mem *m, uint8_t *host, const void *buf, uint64_t len) {
    uint64_t off;

    if (host_offset(m, host, &off) && len <= m->host - off)
        store_run(m, host, buf, len);
}

int mem_exchange(struct mem *m, struct gpa at, uint8_t value) {
    uint64_t n;
    uint8_t *host = next_bytes(m, at.a, 1, false, &n), old;

    if (!host)
        return -1;
    mem_use(m, host);
    if (likely(!traces_of(m, (uint64_t)(host - m->layout.base)))) {
        old = __atomic_exchange_n(host, value, __ATOMIC_SEQ_CST);
        look_again(m, host, 1);
        return old;
    }
    mem_lock(m);
    mem_trace_hit(m, host, 1);
    old = __atomic_exchange_n(host, value, __ATOMIC_SEQ_CST);
    mem_unlock(m);
    return old;
}

void mem_about_to_write(struct mem *m, uint8_t *host, uint64_t len) {
    uint64_t off, n;

    if (!host_offset(m, host, &off) || len > m->host - off)
        return;
    for (; len; off += n, len -= n) {
        n = PAGE_SIZE - off % PAGE_SIZE;
        n = n < len ? n : len;
        mem_use(m, m->layout.base + off);
        if (unlikely(traces_of(m, off))) {
            mem_lock(m);
            mem_trace_hit(m, m->layout.base + off, (unsigned)n);
            mem_unlock(m);
        }
    }
}

static void discard_run(struct mem *m, uint8_t *host, uint64_t len) {
    uint64_t off = (uint64_t)(host - m->layout.base);

    mem_lock(m);
    report_pages(m, off, off + len);
    if (give_back(m, off, len) < 0)
        mem_fill(host, 0, len);
    mem_unlock(m);
}

void mem_discard(struct mem *m, struct gpa at, uint64_t len) {
    uint64_t end = (at.a + len) & ~(PAGE_SIZE - 1), n;

    if (len < PAGE_SIZE || at.a > UINT64_MAX - len)
        return;
    at.a = (at.a + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    for (; at.a < end; at.a += n) {
        uint8_t *host = next_bytes(m, at.a, end - at.a, false, &n);

        if (host)
            discard_run(m, host, n);
        else
            n = PAGE_SIZE;
    }
}

int mem_ram_fd(const struct mem *m) {
    return m->shown >= 0 ? -1 : m->fd;
}

/* --- snapshots --- */

uint64_t mem_rom_size(const struct mem *m) {
    return m->rom->size;
}

static int behind(const struct mem *m) {
    return m->shown >= 0 ? m->shown : m->fd;
}

int mem_save(const struct mem *m, int fd) {
    int rc;

    if (m->shown < 0)
        return os_sparse_save(fd, m->layout.base, m->host, m->fd);
    rc = mem_save_begin(m, fd);
    for (uint64_t at = 0; at < m->host && !rc;)
        rc = mem_save_part(m, fd, &at);
    return rc;
}

int mem_save_begin(const struct mem *m, int fd) {
    return os_sparse_begin(fd, m->host);
}

int mem_save_part(const struct mem *m, int fd, uint64_t *at) {
    if (m->shown >= 0 && m->overlay.size)
        return os_overlay_save_part(&m->overlay, fd, m->layout.base, m->shown, at);
    return os_sparse_part(fd, m->layout.base, m->host, behind(m), at);
}

int mem_save_pages(const struct mem *m, int fd, uint64_t from, uint64_t end) {
    return os_sparse_pages(fd, m->layout.base, from << PAGE_SHIFT, end << PAGE_SHIFT);
}

int mem_load_pages(struct mem *m, int fd, uint64_t from, uint64_t end) {
    int rc = os_sparse_check(fd, m->host);

    if (rc)
        return rc;
    if (from > end || end > m->host >> PAGE_SHIFT)
        return -EINVAL;
    return os_sparse_fetch(fd, m->layout.base, from << PAGE_SHIFT,
                           (end - from) << PAGE_SHIFT);
}

int mem_load(struct mem *m, int fd) {
    return os_sparse_load(fd, m->layout.base, m->host);
}

int mem_overlay(struct mem *m, int fd) {
    int rc = os_memory_overlay(m->layout.base, m->host, fd);

    if (rc)
        return rc;
    m->shown = fd;
    (void)!os_overlay_open(&m->overlay, m->host); /* else there is mincore(2) */
    return 0;
}

/* --- traces --- */

void mem_trace_add(struct mem *m, uint8_t *host_page, enum mem_trace owner) {
    uint64_t off;
    uint8_t before;

    if (!host_offset(m, host_page, &off))
        return;
    /* A locked instruction: write entries are looked for after it. */
    before = __atomic_fetch_or(&m->page[off >> PAGE_SHIFT],
                               (uint8_t)(owner & PAGE_TRACES), __ATOMIC_SEQ_CST);
    /* Already traced by someone: there is no write entry to drop. */
    if (!(before & PAGE_TRACES) && m->hooks.drop_write)
        m->hooks.drop_write(m->hooks.drop_arg, m->layout.base + (off & ~(PAGE_SIZE - 1)));
}

void mem_trace_remove(struct mem *m, uint8_t *host_page, enum mem_trace owner) {
    uint64_t off;

    if (host_offset(m, host_page, &off))
        __atomic_fetch_and(&m->page[off >> PAGE_SHIFT], (uint8_t) ~(owner & PAGE_TRACES),
                           __ATOMIC_SEQ_CST);
}

unsigned mem_trace_of(const struct mem *m, const uint8_t *host_page) {
    uint64_t off;
    return host_offset(m, host_page, &off) ? traces_of(m, off) : 0;
}

void mem_trace_hit(struct mem *m, uint8_t *host, unsigned len) {
    uint64_t off;
    if (!host_offset(m, host, &off))
        return;
    struct gpa at = gpa(mem_layout_gpa(&m->layout, host));
    for (unsigned i = 0; i < MEM_TRACE_COUNT; i++) {
        /* Read anew each time: an owner may remove traces, its own or all. */
        if ((traces_of(m, off) & (1u << i)) && m->hooks.on_write[i])
            m->hooks.on_write[i](m->hooks.on_write_arg[i], at, len);
    }
    if (m->tracked)
        mem_track_written(m, off >> PAGE_SHIFT);
}
