/* The guest-physical map: arithmetic around the hole, ROM, traces, checked copies. */
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
    const struct mem_region *r = mem_regions(m, &n);
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
    assert_int_equal(mem_set_rom(m, gpa(0xf0000), 0x10000), 0);
    assert_int_equal(mem_set_rom(m, gpa(0xf0001), 0x1000), -EINVAL);
    assert_int_equal(mem_set_rom(m, gpa(MEM_MIN_RAM), 0x1000), -EINVAL);
    mem_regions(m, &n);
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
        assert_int_equal(mem_host_size(m), sizes_of_ram[i] + MEM_ROM_SIZE);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes), cmocka_unit_test(hole), cmocka_unit_test(rom),
        cmocka_unit_test(rom_window), cmocka_unit_test(traces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
