/* The guest-physical map: the hole, ROM, regions that move and hide each other, traces,
 * checked copies. */
#include "mem/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void sizes(void **state) {
    struct mem *m;
    assert_int_equal(mem_create(MEM_MIN_RAM - 4096, &m), -EINVAL);
    assert_int_equal(mem_create(MEM_MIN_RAM + 1, &m), -EINVAL);
    assert_int_equal(mem_create(MEM_MAX_RAM + 4096, &m), -EINVAL);
}

static void hole(void **state) {
    struct mem *m;
    size_t n;
    assert_int_equal(mem_create(4ull << 30, &m), 0);
    const struct mem_piece *r = mem_map(m, &n);
    assert_int_equal(n, 3);
    assert_int_equal(r[0].size, MEM_HOLE_START);
    assert_int_equal(r[1].start.a, MEM_ROM_START);
    assert_int_equal(r[1].size, MEM_ROM_SIZE);
    assert_int_equal(r[1].kind, MEM_ROM);
    assert_int_equal(r[2].start.a, MEM_HOLE_END);
    assert_int_equal(r[2].size, 1ull << 30);
    assert_null(mem_host(m, gpa(MEM_HOLE_START), 1));
    assert_null(mem_host(m, gpa(MEM_HOLE_START - 4), 8));
    assert_null(mem_host(m, gpa(MEM_HOLE_END + (1ull << 30)), 1));
    assert_null(mem_host(m, gpa(UINT64_MAX), 1));
    assert_null(mem_host(m, gpa(0), UINT64_MAX));
    uint8_t *p = mem_host(m, gpa(MEM_HOLE_END + 5), 1);
    assert_ptr_equal(p, mem_ram_base(m) + MEM_HOLE_START + 5);
    assert_int_equal(mem_gpa(m, p).a, MEM_HOLE_END + 5);
    assert_int_equal(mem_gpa(m, (const uint8_t *)&n).a, UINT64_MAX);
    uint64_t x = 1;
    assert_false(mem_write(m, gpa(MEM_HOLE_START - 4), &x, 8));
    assert_false(mem_read(m, gpa(UINT64_MAX - 3), &x, 8));
    mem_destroy(m);
}

static void rom(void **state) {
    struct mem *m;
    uint32_t x = 7;
    size_t n;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    assert_int_equal(mem_set_kind(m, gpa(0xf0000), 0x10000, MEM_ROM), 0);
    assert_int_equal(mem_set_kind(m, gpa(0xf0001), 0x1000, MEM_ROM), -EINVAL);
    assert_int_equal(mem_set_kind(m, gpa(0xf0000), 0x1001, MEM_ROM), -EINVAL);
    assert_int_equal(mem_set_kind(m, gpa(MEM_MIN_RAM), 0x1000, MEM_ROM), -EINVAL);
    assert_int_equal(mem_set_kind(m, gpa(MEM_MIN_RAM - 0x1000), 0x2000, MEM_ROM),
                     -EINVAL);
    assert_int_equal(mem_set_kind(m, gpa(~0xfffull), 0x2000, MEM_ROM), -EINVAL);
    assert_int_equal(mem_set_kind(m, gpa(0), ~0xfffull, MEM_ROM), -EINVAL);
    assert_int_equal(mem_set_kind(m, gpa(0xf0000), 0, MEM_ROM), 0);
    mem_map(m, &n);
    assert_int_equal(n, 4);
    assert_int_equal(mem_kind_at(m, gpa(0xf0000)), MEM_ROM);
    assert_int_equal(mem_kind_at(m, gpa(0xeffff)), MEM_RAM);
    assert_int_equal(mem_kind_at(m, gpa(MEM_MIN_RAM)), MEM_NONE);
    assert_false(mem_write(m, gpa(0xefffe), &x, 4));
    assert_true(mem_read(m, gpa(0xefffe), &x, 4));
    assert_int_equal(x, 0);
    mem_reset(m);
    assert_int_equal(mem_kind_at(m, gpa(0xf0000)), MEM_RAM);
    mem_destroy(m);
}

/* The ROM at the end of the hole: programmed once, read by all, kept by a reset. */
static void rom_window(void **state) {
    static const uint64_t sizes_of_ram[] = {MEM_MIN_RAM, 1ull << 30, 5ull << 30};
    for (unsigned i = 0; i < 3; i++) {
        uint8_t bytes[MEM_ROM_SIZE], got[32];
        struct mem *m;
        bool above = sizes_of_ram[i] > MEM_HOLE_START;
        assert_int_equal(mem_create(sizes_of_ram[i], &m), 0);
        for (unsigned k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)(k * 7);
        assert_int_equal(mem_ram_size(m), sizes_of_ram[i]);
        assert_true(mem_host_size(m) >= sizes_of_ram[i] + MEM_ROM_MAX);
        assert_false(mem_write(m, gpa(MEM_ROM_START), bytes, 1));
        assert_true(mem_program(m, gpa(MEM_ROM_START), bytes, sizeof(bytes)));
        assert_false(mem_program(m, gpa(MEM_ROM_START - 1), bytes, 2));
        assert_int_equal(mem_kind_at(m, gpa(MEM_ROM_START - 1)), MEM_NONE);
        assert_int_equal(mem_kind_at(m, gpa(0xfffffff0)), MEM_ROM);
        uint8_t *p = mem_host(m, gpa(0xfffffff0), 16);
        assert_non_null(p);
        assert_int_equal(mem_gpa(m, p).a, 0xfffffff0);
        assert_null(mem_host(m, gpa(0xfffffff0), 17));
        /* Up to 4 GiB and beyond, where RAM may go on. */
        assert_int_equal(mem_read(m, gpa(0xfffffff0), got, 32), above);
        assert_int_equal(mem_program(m, gpa(0xfffffff0), bytes, 32), above);
        mem_reset(m);
        assert_int_equal(mem_kind_at(m, gpa(0xfffffff0)), MEM_ROM);
        assert_true(mem_read(m, gpa(0xfffffff0), got, 16));
        assert_memory_equal(got, above ? bytes : bytes + MEM_ROM_SIZE - 16, 16);
        if (above) {
            assert_true(mem_read(m, gpa(MEM_HOLE_END), got, 1));
            assert_int_equal(got[0], 0);
        }
        mem_trace_add(m, p - 0xff0, MEM_TRACE_CODE);
        assert_int_equal(mem_trace_of(m, p), MEM_TRACE_CODE);
        mem_destroy(m);
    }
}

struct log {
    unsigned drops, hits, len;
    uint64_t at;
    uint8_t byte;
    struct mem *m;
};

static void on_drop(void *arg, uint8_t *page) {
    ((struct log *)arg)->drops++;
}

static void on_write(void *arg, struct gpa at, unsigned len) {
    struct log *l = arg;
    l->hits++;
    l->at = at.a;
    l->len = len;
    mem_read(l->m, at, &l->byte, 1);
}

static void traces(void **state) {
    struct log l = {0};
    assert_int_equal(mem_create(MEM_MIN_RAM, &l.m), 0);
    struct mem_hooks *h = mem_hooks(l.m);
    h->drop_write = on_drop;
    h->drop_arg = &l;
    h->on_write[0] = on_write;
    h->on_write_arg[0] = &l;
    uint8_t *page = mem_host(l.m, gpa(0x5000), 1);
    mem_trace_add(l.m, page, MEM_TRACE_CODE);
    mem_trace_add(l.m, page, MEM_TRACE_PT);
    assert_int_equal(l.drops, 1);
    uint8_t buf[16];
    memset(buf, 0xaa, sizeof(buf));
    assert_true(mem_write(l.m, gpa(0x4ff8), buf, sizeof(buf)));
    assert_int_equal(l.hits, 1);
    assert_int_equal(l.at, 0x5000);
    assert_int_equal(l.len, 8);
    assert_int_equal(l.byte, 0); /* told before the bytes changed */
    mem_trace_remove(l.m, page, MEM_TRACE_CODE);
    assert_int_equal(mem_trace_of(l.m, page), MEM_TRACE_PT);
    mem_trace_add(l.m, (uint8_t *)&l, MEM_TRACE_CODE); /* not RAM: ignored */
    mem_reset(l.m);
    assert_int_equal(mem_trace_of(l.m, page), 0);
    assert_true(mem_read(l.m, gpa(0x5000), buf, 1));
    assert_int_equal(buf[0], 0);
    mem_destroy(l.m);
}

/* A ROM of another size at the same end. */
static void rom_size(void **state) {
    uint8_t byte = 0x5a, got = 0;
    struct mem *m;
    size_t n;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    assert_int_equal(mem_rom_resize(m, 0), -EINVAL);
    assert_int_equal(mem_rom_resize(m, 0x1001), -EINVAL);
    assert_int_equal(mem_rom_resize(m, MEM_ROM_MAX + 0x1000), -EINVAL);
    assert_true(mem_program(m, gpa(0xfffffff0), &byte, 1));
    assert_int_equal(mem_rom_resize(m, MEM_ROM_MAX), 0);
    assert_true(mem_read(m, gpa(0xfffffff0), &got, 1));
    assert_int_equal(got, byte);
    assert_int_equal(mem_kind_at(m, gpa(0xff000000)), MEM_ROM);
    assert_int_equal(mem_kind_at(m, gpa(0xfeffffff)), MEM_NONE);
    assert_true(mem_program(m, gpa(0xff000000), &byte, 1));
    assert_false(mem_write(m, gpa(0xff000000), &byte, 1));
    assert_int_equal(mem_kind_of(m, mem_host(m, gpa(0xff000000), 1)), MEM_ROM);
    assert_non_null(mem_host(m, gpa(0xff000000), MEM_ROM_MAX));
    mem_reset(m); /* the board is the same after a reset */
    assert_true(mem_read(m, gpa(0xff000000), &got, 1));
    assert_int_equal(got, byte);
    mem_map(m, &n);
    assert_int_equal(n, 2);
    assert_int_equal(mem_set_kind(m, gpa(0xff000000), 0x1000, MEM_RAM), 0);
    assert_int_equal(mem_rom_resize(m, 0x2000), 0);
    assert_int_equal(mem_kind_at(m, gpa(0xffffe000)), MEM_ROM);
    assert_int_equal(mem_kind_at(m, gpa(0xffffdfff)), MEM_NONE);
    assert_int_equal(mem_rom_resize(m, MEM_ROM_MAX), 0);
    assert_int_equal(mem_kind_at(m, gpa(0xff000000)), MEM_ROM);
    mem_destroy(m);
}

static void on_change(void *arg) {
    ++*(unsigned *)arg;
}

/* Regions that are added, moved, hidden, and go away; RAM comes before them. */
static void regions(void **state) {
    struct mem_region *r, *other;
    unsigned changes = 0;
    uint8_t byte = 7, got;
    struct mem *m;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    mem_hooks(m)->changed = on_change;
    mem_hooks(m)->changed_arg = &changes;
    assert_int_equal(mem_region_add(m, gpa(0xe0000001), 0x1000, MEM_RAM, &r), -EINVAL);
    assert_int_equal(mem_region_add(m, gpa(0xe0000000), 0x1001, MEM_RAM, &r), -EINVAL);
    assert_int_equal(mem_region_add(m, gpa(0xe0000000), 0, MEM_RAM, &r), -EINVAL);
    assert_int_equal(
        mem_region_add(m, gpa(0xe0000000), MEM_ADDED_MAX + 0x1000, MEM_RAM, &r), -ENOSPC);
    assert_int_equal(mem_region_add(m, gpa(0), ~0xfffull, MEM_RAM, &r), -ENOSPC);
    assert_int_equal(changes, 0);
    assert_int_equal(mem_region_add(m, gpa(0xe0000000), 1 << 20, MEM_RAM, &r), 0);
    assert_int_equal(changes, 1);
    assert_true(mem_write(m, gpa(0xe0000123), &byte, 1));
    assert_int_equal(mem_region_host(m, r)[0x123], 7);
    assert_int_equal(mem_gpa(m, mem_region_host(m, r) + 0x123).a, 0xe0000123);
    assert_int_equal(mem_region_move(m, r, gpa(0x8000000800)), -EINVAL);
    assert_int_equal(mem_region_move(m, r, gpa(0x8000000000)), 0);
    assert_int_equal(changes, 2);
    assert_int_equal(mem_kind_at(m, gpa(0xe0000123)), MEM_NONE);
    assert_true(mem_read(m, gpa(0x8000000123), &got, 1));
    assert_int_equal(got, 7);
    /* Half of it under RAM. */
    assert_int_equal(mem_region_move(m, r, gpa(MEM_MIN_RAM - (512 << 10))), 0);
    assert_ptr_equal(mem_host(m, gpa(MEM_MIN_RAM - 1), 1),
                     mem_ram_base(m) + MEM_MIN_RAM - 1);
    assert_ptr_equal(mem_host(m, gpa(MEM_MIN_RAM), 1),
                     mem_region_host(m, r) + (512 << 10));
    assert_int_equal(mem_gpa(m, mem_region_host(m, r)).a, UINT64_MAX);
    assert_int_equal(mem_gpa(m, mem_region_host(m, r) + (512 << 10)).a, MEM_MIN_RAM);
    assert_true(mem_write(m, gpa(MEM_MIN_RAM - 1), "ab", 2));
    assert_null(mem_host(m, gpa(MEM_MIN_RAM - 1), 2));
    /* Where the last address is, and over it: then it is not seen. */
    assert_int_equal(mem_region_move(m, r, gpa(~0ull - 0xfffff)), 0);
    assert_int_equal(mem_kind_at(m, gpa(UINT64_MAX)), MEM_RAM);
    assert_false(mem_read(m, gpa(UINT64_MAX), &got, 2));
    assert_int_equal(mem_region_move(m, r, gpa(~0ull - 0xffeff)), -EINVAL);
    assert_int_equal(mem_region_move(m, r, gpa(~0ull - 0xfefff)), 0);
    assert_int_equal(mem_kind_at(m, gpa(UINT64_MAX)), MEM_NONE);
    assert_int_equal(mem_kind_at(m, gpa(0)), MEM_RAM);
    mem_region_move(m, r, gpa(0xe0000000));
    mem_region_show(m, r, false);
    assert_int_equal(mem_kind_at(m, gpa(0xe0000123)), MEM_NONE);
    changes = 0;
    mem_region_move(m, r, gpa(0xe1000000));
    assert_int_equal(changes, 0);
    mem_region_show(m, r, true);
    assert_true(mem_read(m, gpa(0xe1000123), &got, 1));
    assert_int_equal(got, 7);
    mem_reset(m);
    assert_true(mem_read(m, gpa(0xe1000123), &got, 1));
    assert_int_equal(got, 7);
    /* Over another: the earlier one is seen. What comes after one that is gone is zero.
     */
    assert_int_equal(mem_region_add(m, gpa(0xe1000000), 0x2000, MEM_ROM, &other), 0);
    assert_int_equal(mem_kind_at(m, gpa(0xe1000000)), MEM_RAM);
    mem_region_remove(m, r);
    assert_int_equal(mem_kind_at(m, gpa(0xe1000000)), MEM_ROM);
    assert_int_equal(mem_kind_at(m, gpa(0xe1002000)), MEM_NONE);
    assert_int_equal(mem_region_add(m, gpa(0xe2000000), 1 << 20, MEM_RAM, &r), 0);
    assert_true(mem_read(m, gpa(0xe2000123), &got, 1));
    assert_int_equal(got, 0);
    mem_destroy(m);
}

/* The video window: RAM, or hidden, and then what lies behind it. */
static void window(void **state) {
    struct mem_region *r;
    uint8_t byte = 9, got;
    struct mem *m;
    size_t n;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    assert_true(mem_write(m, gpa(0xa0000), &byte, 1));
    uint8_t *host = mem_host(m, gpa(0xa0000), 1);
    assert_int_equal(mem_set_kind(m, gpa(0xa0000), 0x20000, MEM_NONE), 0);
    assert_int_equal(mem_kind_at(m, gpa(0x9ffff)), MEM_RAM);
    assert_int_equal(mem_kind_at(m, gpa(0xa0000)), MEM_NONE);
    assert_int_equal(mem_kind_at(m, gpa(0xbffff)), MEM_NONE);
    assert_int_equal(mem_kind_at(m, gpa(0xc0000)), MEM_RAM);
    assert_int_equal(mem_kind_of(m, host), MEM_NONE);
    assert_int_equal(mem_gpa(m, host).a, UINT64_MAX);
    assert_null(mem_host(m, gpa(0x9ffff), 2));
    assert_false(mem_read(m, gpa(0x9ffff), &got, 2));
    assert_int_equal(mem_region_add(m, gpa(0xb8000), 0x10000, MEM_RAM, &r), 0);
    assert_ptr_equal(mem_host(m, gpa(0xb8000), 1), mem_region_host(m, r));
    assert_null(mem_host(m, gpa(0xbffff), 2)); /* there RAM goes on */
    assert_int_equal(mem_kind_at(m, gpa(0xb7fff)), MEM_NONE);
    mem_map(m, &n);
    assert_int_equal(n, 4);
    assert_int_equal(mem_set_kind(m, gpa(0xa0000), 0x20000, MEM_RAM), 0);
    assert_true(mem_read(m, gpa(0xa0000), &got, 1));
    assert_int_equal(got, 9);
    mem_map(m, &n);
    assert_int_equal(n, 2);
    assert_int_equal(mem_set_kind(m, gpa(0xa0000), 0x20000, MEM_NONE), 0);
    mem_reset(m);
    assert_int_equal(mem_kind_at(m, gpa(0xa0000)), MEM_RAM);
    mem_destroy(m);
}

/* A page that goes away has been written, for who traces it; before it goes. */
static void gone(void **state) {
    struct log l = {0};
    struct mem_region *r;
    assert_int_equal(mem_create(MEM_MIN_RAM, &l.m), 0);
    mem_hooks(l.m)->on_write[0] = on_write;
    mem_hooks(l.m)->on_write_arg[0] = &l;
    assert_int_equal(mem_region_add(l.m, gpa(0xe0000000), 0x4000, MEM_RAM, &r), 0);
    mem_trace_add(l.m, mem_region_host(l.m, r) + 0x2000, MEM_TRACE_CODE);
    mem_region_move(l.m, r, gpa(0xa0000)); /* under RAM */
    assert_int_equal(l.hits, 1);
    assert_int_equal(l.at, 0xe0002000);
    assert_int_equal(l.len, 0x1000);
    assert_int_equal(mem_set_kind(l.m, gpa(0xa0000), 0x20000, MEM_NONE), 0);
    l.hits = 0;
    assert_int_equal(mem_set_kind(l.m, gpa(0xa0000), 0x20000, MEM_RAM), 0);
    assert_int_equal(l.hits, 1); /* RAM comes over it */
    assert_int_equal(l.at, 0xa2000);
    mem_trace_add(l.m, mem_host(l.m, gpa(0xb0000), 1), MEM_TRACE_CODE);
    l.hits = 0;
    assert_int_equal(mem_set_kind(l.m, gpa(0xb0000), 0x1000, MEM_NONE), 0);
    assert_int_equal(l.hits, 2);
    mem_destroy(l.m);
}

/* Many marks: all are kept or refused, and no map gets too large for its list. */
static void marks(void **state) {
    struct mem_region *r[64];
    struct mem *m;
    unsigned refused = 0, added = 0;
    size_t n;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    for (uint64_t p = 0; p < 64; p++) {
        int rc = mem_set_kind(m, gpa(0x100000 + p * 0x2000), 0x1000,
                              p & 1 ? MEM_ROM : MEM_NONE);
        assert_true(!rc || rc == -ENOSPC);
        refused += !!rc;
        assert_int_equal(mem_kind_at(m, gpa(0x100000 + p * 0x2000)), rc      ? MEM_RAM
                                                                     : p & 1 ? MEM_ROM
                                                                             : MEM_NONE);
    }
    assert_int_equal(refused, 32);
    for (unsigned k = 0; k < 64; k++)
        added += !mem_region_add(m, gpa(0x80000 + k * 0x1000), 0x20000, MEM_RAM, &r[k]);
    assert_in_range(added, 20, 63);
    mem_map(m, &n);
    assert_in_range(n, 50, 192);
    assert_int_equal(mem_set_kind(m, gpa(0), MEM_MIN_RAM, MEM_ROM), 0);
    assert_int_equal(mem_set_kind(m, gpa(0), MEM_MIN_RAM, MEM_RAM), 0);
    mem_map(m, &n);
    assert_int_equal(n, 2);
    /* Pages one after the other are one mark. */
    for (uint64_t p = 0; p < 200; p++)
        assert_int_equal(mem_set_kind(m, gpa(0x200000 - p * 0x1000), 0x1000, MEM_ROM), 0);
    mem_map(m, &n);
    assert_int_equal(n, 4);
    mem_destroy(m);
}

/* --- any changes, against a model that has a byte for each page of the first 2 MiB of
 * addresses behind RAM and as much of RAM --- */

#define WIN 0x300000ull /* pages WIN.. are looked at: 1 MiB of RAM, 3 MiB of nothing */
#define WIN_PAGES 1024u
#define ADDED 6u

struct shape {
    struct mem_region *r;
    uint64_t start, pages;
    enum mem_kind kind[64];
    enum mem_kind natural;
    unsigned since;
    bool on;
};

static uint64_t seed = 3;

static unsigned random_below(unsigned n) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(seed >> 33) % n;
}

static enum mem_kind ram_kind[256];
static struct shape shape[ADDED];

/* Who has the page, with *HOST where it lies; the model's word. */
static enum mem_kind model_at(struct mem *m, uint64_t at, uint8_t **host) {
    struct shape *best = NULL;
    *host = NULL;
    if (at < MEM_MIN_RAM && ram_kind[(at - WIN) >> 12] != MEM_NONE) {
        *host = mem_ram_base(m) + at;
        return ram_kind[(at - WIN) >> 12];
    }
    for (struct shape *s = shape; s < shape + ADDED; s++)
        if (s->r && s->on && at >= s->start && at - s->start < s->pages << 12 &&
            s->kind[(at - s->start) >> 12] != MEM_NONE &&
            (!best || s->since < best->since))
            best = s;
    if (!best)
        return MEM_NONE;
    *host = mem_region_host(m, best->r) + (at - best->start);
    return best->kind[(at - best->start) >> 12];
}

static void change_shape(struct mem *m, struct shape *s, unsigned *clock) {
    if (!s->r) {
        s->pages = 1 + random_below(64);
        s->start = WIN + ((uint64_t)random_below(WIN_PAGES) << 12);
        s->natural = random_below(2) ? MEM_RAM : MEM_ROM;
        for (unsigned k = 0; k < 64; k++)
            s->kind[k] = s->natural;
        s->since = ++*clock;
        s->on = true;
        assert_int_equal(
            mem_region_add(m, gpa(s->start), s->pages << 12, s->natural, &s->r), 0);
    } else if (!random_below(5)) {
        mem_region_remove(m, s->r);
        s->r = NULL;
    } else if (!random_below(3)) {
        s->on = !s->on;
        mem_region_show(m, s->r, s->on);
    } else {
        s->start = WIN + ((uint64_t)random_below(WIN_PAGES) << 12);
        assert_int_equal(mem_region_move(m, s->r, gpa(s->start)), 0);
    }
}

static void change_kind(struct mem *m) {
    uint64_t at = WIN + ((uint64_t)random_below(WIN_PAGES) << 12);
    uint64_t pages = 1 + random_below(40);
    enum mem_kind kind = (enum mem_kind)random_below(3), *model = NULL;
    struct shape *best = NULL;
    if (at < MEM_MIN_RAM && at + (pages << 12) <= MEM_MIN_RAM)
        model = &ram_kind[(at - WIN) >> 12];
    for (struct shape *s = shape; s < shape + ADDED && !model; s++)
        if (s->r && s->on && at >= s->start &&
            at + (pages << 12) <= s->start + (s->pages << 12) &&
            (!best || s->since < best->since))
            best = s;
    if (best)
        model = &best->kind[(at - best->start) >> 12];
    int rc = mem_set_kind(m, gpa(at), pages << 12, kind);
    if (!model) {
        assert_int_equal(rc, -EINVAL);
        return;
    }
    assert_true(!rc || rc == -ENOSPC);
    for (uint64_t k = 0; k < pages && !rc; k++)
        model[k] = kind;
}

static void agree(struct mem *m) {
    size_t n;
    const struct mem_piece *p = mem_map(m, &n);
    for (size_t k = 0; k + 1 < n; k++)
        assert_true(p[k].start.a + p[k].size <= p[k + 1].start.a);
    for (uint64_t at = WIN; at < WIN + ((uint64_t)WIN_PAGES << 12); at += 4096) {
        uint8_t *host;
        enum mem_kind kind = model_at(m, at, &host);
        assert_int_equal(mem_kind_at(m, gpa(at)), kind);
        assert_ptr_equal(mem_host(m, gpa(at), 4096), host);
        if (host) {
            assert_int_equal(mem_gpa(m, host + 5).a, at + 5);
            assert_int_equal(mem_kind_of(m, host), kind);
        }
    }
}

static void random_changes(void **state) {
    unsigned clock = 0;
    struct mem *m;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    for (unsigned k = 0; k < 256; k++)
        ram_kind[k] = MEM_RAM;
    for (unsigned round = 0; round < 3000; round++) {
        if (random_below(3))
            change_shape(m, &shape[random_below(ADDED)], &clock);
        else
            change_kind(m);
        agree(m);
    }
    mem_destroy(m);
}

/* Whole pages become zeros, of RAM alone; no sum wraps at the end of all addresses. */
static void discard(void **state) {
    struct mem *m;
    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    for (unsigned n = 0; n < 4; n++)
        *mem_host(m, gpa(n * 4096 + 8), 1) = 1;
    mem_discard(m, gpa(UINT64_MAX - 10), 5);
    mem_discard(m, gpa(UINT64_MAX - 4096), 4096);
    mem_discard(m, gpa(4096), UINT64_MAX);
    mem_discard(m, gpa(8), 4000);
    mem_discard(m, gpa(4097), 2 * 4096 - 1);
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(*mem_host(m, gpa(n * 4096 + 8), 1), n != 2);
    mem_destroy(m);
}

/* --- which pages are written to --- */

static bool is_written(const uint64_t *bits, uint64_t page) {
    return bits[page / 64] >> page % 64 & 1;
}

static void dropped_all(void *arg) {
    ++*(unsigned *)arg;
}

/* Each way to memory marks its page, once, and none else. */
static void tracked(void **state) {
    struct mem *m;
    unsigned drops = 0;
    uint64_t bits[1 << 9] = {0}, last;
    uint8_t byte = 1;

    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    assert_true(mem_host_size(m) >> 12 <= 64 * (sizeof(bits) / sizeof(*bits)));
    last = (mem_host_size(m) >> 12) - 1;
    assert_int_equal(mem_track_count(m), last + 1);
    mem_hooks(m)->drop_writes = dropped_all;
    mem_hooks(m)->drop_arg = &drops;
    mem_track_start(m);
    assert_true(mem_tracked(m));
    assert_int_equal(drops, 1);
    assert_int_equal(mem_track_count(m), 0);

    assert_true(mem_write(m, gpa(0x1fff), "ab", 2)); /* pages 1 and 2 */
    mem_store(m, mem_host(m, gpa(0x5008), 8), "12345678", 8);
    assert_int_equal(mem_exchange(m, gpa(0x7001), 9), 0);
    mem_about_to_write(m, mem_host(m, gpa(0x9000), 0x2000), 0x1001);
    mem_discard(m, gpa(0xc000), 0x1000);
    assert_true(mem_program(m, gpa(MEM_HOLE_END - 1), &byte, 1));
    mem_track_written(m, 20);
    mem_track_written(m, last + 1);
    assert_true(mem_read(m, gpa(0x6000), &byte, 1));
    assert_int_equal(mem_track_count(m), 9);
    mem_track_collect(m, bits);
    for (uint64_t n = 0; n <= last; n++)
        assert_int_equal(is_written(bits, n), n == 1 || n == 2 || n == 5 || n == 7 ||
                                                  n == 9 || n == 10 || n == 12 ||
                                                  n == 20 || n == last);
    assert_int_equal(mem_track_count(m), 0);

    memset(bits, 0, sizeof(bits));
    bits[0] = 1;
    assert_true(mem_write(m, gpa(0x1000), "ab", 2)); /* it is watched again */
    mem_track_collect(m, bits);
    assert_int_equal(bits[0], 3);

    mem_reset(m); /* all of RAM is another */
    assert_int_equal(mem_track_count(m), last + 1);
    mem_destroy(m);
}

/* Pages of a region that comes and goes count as written. */
static void tracked_regions(void **state) {
    struct mem_region *r;
    struct mem *m;

    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    mem_track_start(m);
    assert_int_equal(mem_region_add(m, gpa(0xd0000000), 0x3000, MEM_RAM, &r), 0);
    assert_int_equal(mem_region_move(m, r, gpa(0xd1000000)), 0);
    assert_true(mem_write(m, gpa(0xd1001000), "x", 1));
    mem_region_remove(m, r);
    assert_int_equal(mem_track_count(m), 3);
    mem_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),    cmocka_unit_test(hole),
        cmocka_unit_test(rom),      cmocka_unit_test(rom_window),
        cmocka_unit_test(rom_size), cmocka_unit_test(regions),
        cmocka_unit_test(window),   cmocka_unit_test(gone),
        cmocka_unit_test(marks),    cmocka_unit_test(random_changes),
        cmocka_unit_test(traces),   cmocka_unit_test(discard),
        cmocka_unit_test(tracked),  cmocka_unit_test(tracked_regions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
