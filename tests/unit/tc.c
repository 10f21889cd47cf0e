/*
 * The translation cache by itself: fragments whose code nobody made and nobody executes,
 * found, chained, dropped when their guest code is written, and evicted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/counters.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "mmu/mmu.h"
#include "tc/tc.h"

enum {
    CACHE = 1 << 20,
    LEN = 64,       /* of a fragment's code */
    GUEST = 0x1000, /* the RAM page that most lie on */
    KEY = 5,
    PATHS = 4,
};

static struct vcpu *v;
static struct counters counters;
static const struct vcpu_hooks hooks;
static struct tc tc;
static struct tr_env env;
static uint8_t *cache;

static uint8_t *ram(uint64_t at) {
    return mem_host(v->mem, gpa(at), 1);
}

static int setup(void **state) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};

    vec_init();
    memset(&counters, 0, sizeof(counters));
    v = vcpu_new();
    cache = calloc(1, CACHE);
    assert_true(v && cache);
    v->cnt = &counters;
    v->hooks = &hooks;
    v->cpuid = cpuid_model_new(&cfg);
    assert_int_equal(mem_create(MEM_MIN_RAM, &v->mem), 0);
    assert_int_equal(mmu_create(v, MMU_FLUSH), 0);
    memset(&env, 0, sizeof(env));
    env.v = v;
    env.code = (struct os_code){.rw = cache, .rx = cache, .size = CACHE};
    memset(&tc, 0, sizeof(tc));
    assert_int_equal(tc_create(&tc, &env), 0);
    assert_int_equal(tc_jumps_create(&tc, cache), 0);
    tc.chain = true;
    tc.code_start = cache + LEN;
    tc_flush(&tc);
    return 0;
}

static int teardown(void **state) {
    tc_destroy(&tc);
    mmu_destroy(v);
    mem_destroy(v->mem);
    cpuid_model_free((struct cpuid_model *)(uintptr_t)v->cpuid);
    free(cache);
    vcpu_free(v);
    return 0;
}

/* A fragment of SIZE bytes of guest code at VA, which maps the RAM page AT, with a link
 * to TARGET: a hot path for SHARED, if that is not NULL. NULL: the unit is full. */
static struct ccf *keep_for(struct ccf *shared, uint64_t va, uint64_t at, unsigned size,
                            uint64_t target) {
    struct tr_span span;
    struct ccf *c = tc_reserve(&tc, &span);
    const int32_t to_stub = 4; /* from behind the displacement */
    struct link *l;

    if (!c || span.code_end - span.code < LEN)
        return NULL;
    l = tr_span_record(&span, sizeof(*l));
    c->code = (struct tr_code){.va = va,
                               .page = ram(at),
                               .key = KEY,
                               .fixed = shared,
                               .hot = shared,
                               .shared = shared ? &shared->code : NULL,
                               .guest_len = (uint16_t)size,
                               .start = span.code,
                               .end = span.code + LEN,
                               .entry_jump = span.code,
                               .entry_check = span.code + 8,
                               .entry_mem = span.code + 16,
                               .entry_regs = span.code + 24,
                               .head = shared ? NULL : span.code + 26,
                               .select = shared ? span.code + 26 : NULL,
                               .past = shared ? span.code + 30 : NULL,
                               .nlinks = 1,
                               .links = l};
    if (!l)
        return NULL;
    *l = (struct link){.from = &c->code,
                       .target = target - (shared ? 0 : va & ~4095ull),
                       .rel32 = span.code + 40,
                       .stub = span.code + 48,
                       .place = FLAGS_MEM,
                       .same_page = !((va ^ target) >> 12)};
    memcpy(l->rel32, &to_stub, 4);
    span.code += LEN;
    tc_insert(&tc, &span, c);
    return c;
}

static struct ccf *keep(uint64_t va, uint64_t at, unsigned size, uint64_t target) {
    return keep_for(NULL, va, at, size, target);
}

static const uint8_t *leads_to(const uint8_t *rel32) {
    int32_t rel;

    memcpy(&rel, rel32, 4);
    return rel32 + 4 + rel;
}

/* Where the jump of C's link goes. */
static const uint8_t *goes_to(const struct ccf *c) {
    return leads_to(c->code.links[0].rel32);
}

static void write_to(uint64_t at, unsigned len) {
    v->leave_code = tc_code_written(&tc, gpa(at), len) != TC_DIED_NONE;
}

static void test_found(void **state) {
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020), *d = keep(0x7018, GUEST, 8, 0x7020);

    assert_true(c && d);
    assert_ptr_equal(tc_lookup(&tc, 0x5010, ram(GUEST), KEY), c);
    assert_ptr_equal(tc_lookup(&tc, 0x9010, ram(GUEST), KEY),
                     c); /* wherever it is mapped */
    assert_ptr_equal(tc_lookup(&tc, 0x7018, ram(GUEST), KEY), d);
    assert_null(tc_lookup_path(&tc, 0x5010, ram(GUEST), KEY));
    assert_null(tc_lookup(&tc, 0x5010, ram(GUEST), KEY + 1));
    assert_null(tc_lookup(&tc, 0x5010, ram(GUEST + 4096), KEY));
    assert_null(tc_lookup(&tc, 0x5011, ram(GUEST), KEY));
    assert_ptr_equal(tc_find(&tc, c->code.start), c);
    assert_ptr_equal(tc_find(&tc, c->code.end - 1), c);
    assert_ptr_equal(tc_find(&tc, c->code.end), d); /* right behind it */
    assert_null(tc_find(&tc, d->code.end));
    assert_null(tc_find(&tc, c->code.start - 1));
    assert_null(tc_find(&tc, cache + CACHE));
    assert_true(mem_trace_of(v->mem, ram(GUEST)) & MEM_TRACE_TC);
}

static void test_links(void **state) {
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020), *d = keep(0x5020, GUEST, 8, 0x9000),
               *far = keep(0x9000, 2 * GUEST, 8, 0x5010);

    tc_link(&tc, &c->code.links[0], d);
    assert_ptr_equal(goes_to(c), d->code.entry_mem);
    tc_link(&tc, &d->code.links[0], far); /* another page's: its check first */
    assert_ptr_equal(goes_to(d), far->code.entry_check);
    tc_link(&tc, &far->code.links[0], c);
    assert_ptr_equal(goes_to(far), c->code.entry_check);
    assert_int_equal(counters.bt_chained, 3);
    tc_drop(&tc, d, TC_WHY_NONE); /* both ways */
    assert_ptr_equal(goes_to(c), c->code.links[0].stub);
    assert_ptr_equal(goes_to(d), d->code.links[0].stub);
    assert_ptr_equal(goes_to(far), c->code.entry_check);
    assert_null(far->in);
    assert_int_equal(counters.bt_unchained, 2);
    tc_link(&tc, &c->code.links[0], d); /* not to the dead, and not from there */
    tc_link(&tc, &d->code.links[0], far);
    assert_ptr_equal(goes_to(c), c->code.links[0].stub);
    assert_ptr_equal(goes_to(d), d->code.links[0].stub);
    tc_unlink_in(&tc, c);
    assert_ptr_equal(goes_to(far), far->code.links[0].stub);
}

/* The head and the paths lead to one another in the order of the list. */
static void strung_up(const struct ccf *c, unsigned paths) {
    const struct ccf *p = c->paths;

    if (p) {
        assert_int_equal(c->code.head[0], 0xe9);
        assert_ptr_equal(leads_to(c->code.head + 1), p->code.select);
    } else {
        assert_int_equal(c->code.head[0], 0x83);
    }
    for (; p; p = p->path_next, paths--) {
        assert_ptr_equal(p->shared, c);
        assert_ptr_equal(leads_to(p->code.past),
                         p->path_next ? p->path_next->code.select : p->code.past + 4);
    }
    assert_int_equal(paths, 0);
}

static void test_paths(void **state) {
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020), *p[PATHS + 1];
    struct ccf *from = keep(0x5040, GUEST, 8, 0x5010), *hot_from;

    tc_select_key(&tc, v, KEY);
    tc_jump_insert(&tc, v, 0x5010, c);
    tc_jump_insert(&tc, v, 0x9010, c);
    hot_from = keep_for(from, 0x5040, GUEST, 8, 0x5010);
    tc_link(&tc, &from->code.links[0], c);
    tc_link(&tc, &hot_from->code.links[0], c);
    for (unsigned n = 0; n < PATHS + 1; n++) {
        p[n] = keep_for(c, 0x5010 + 0x10000 * n, GUEST, 8, 0x5020 + 0x10000 * n);
        tc_path_add(&tc, c, p[n]);
        strung_up(c, n + 1);
        assert_ptr_equal(tc_lookup_path(&tc, p[n]->code.va, ram(GUEST), KEY), p[n]);
        assert_ptr_equal(tc_lookup(&tc, p[n]->code.va, ram(GUEST), KEY), c);
    }
    /* The address of the first: its indirect branches, and the link of a hot path. */
    assert_ptr_equal(tc_jump_target(v, 0x5010), p[0]->code.entry_jump);
    assert_ptr_equal(tc_jump_target(v, 0x9010), c->code.entry_jump);
    assert_ptr_equal(goes_to(hot_from), hot_from->code.links[0].stub);
    assert_ptr_equal(goes_to(from), c->code.entry_mem);
    tc_link(&tc, &hot_from->code.links[0], p[0]);
    assert_ptr_equal(goes_to(hot_from), p[0]->code.entry_mem);
    tc_unlink_in(&tc, c);
    tc_link(&tc, &from->code.links[0], p[0]); /* shared code never leads to a path */
    assert_ptr_equal(goes_to(from), from->code.links[0].stub);
    tc_drop(&tc, p[0], TC_WHY_NONE);
    strung_up(c, PATHS);
    tc_drop(&tc, p[2], TC_WHY_NONE); /* in the middle */
    strung_up(c, PATHS - 1);
    tc_drop(&tc, c, TC_WHY_NONE); /* they stay, and are found by their address */
    assert_null(p[1]->shared);
    assert_ptr_equal(tc_lookup_path(&tc, p[1]->code.va, ram(GUEST), KEY), p[1]);
    tc_drop(&tc, p[1], TC_WHY_NONE);
}

/* A write kills what has some of its bytes, and nothing else; the trace goes with the
 * last. */
static void test_written(void **state) {
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020), *d = keep(0x5018, GUEST, 8, 0x5020),
               *other = keep(0x7014, GUEST, 8, 0x5020), *far = keep(0x5800, GUEST, 8, 0);

    write_to(GUEST + 0x10 - 1, 1);
    write_to(GUEST + 0x20, 4);
    assert_false(v->leave_code || c->dead || d->dead || other->dead || far->dead);
    write_to(GUEST + 0x13, 2); /* also through another mapping */
    assert_true(v->leave_code && c->dead && other->dead);
    assert_false(d->dead || far->dead);
    assert_null(tc_lookup(&tc, 0x5010, ram(GUEST), KEY));
    assert_ptr_equal(tc_lookup(&tc, 0x5018, ram(GUEST), KEY), d);
    assert_ptr_equal(tc_find(&tc, c->code.start), c); /* somebody may be executing it */
    write_to(GUEST, 4096);
    assert_true(d->dead && far->dead);
    assert_int_equal(mem_trace_of(v->mem, ram(GUEST)) & MEM_TRACE_TC, 0);
    write_to(GUEST, 4096);
    assert_false(v->leave_code);
    write_to(MEM_MAX_RAM, 8); /* no RAM */
    assert_int_equal(counters.bt_translations, 4);
    assert_non_null(keep(0x5010, GUEST, 8, 0x5020)); /* and is counted as made again */
    assert_int_equal(counters.bt_again_written, 1);
}

/* Variables between code: that nothing is there is remembered, until something is. */
static void test_written_between(void **state) {
    struct ccf *c = keep(0x5000, GUEST, 8, 0x5020), *d = keep(0x5028, GUEST, 8, 0x5020),
               *e;

    write_to(GUEST + 0x10, 4);
    write_to(GUEST + 8, 4);
    write_to(GUEST + 0x24, 4);
    assert_false(v->leave_code || c->dead || d->dead);
    e = keep(0x5010, GUEST, 8, 0x5020);
    write_to(GUEST + 0x20, 4);
    assert_false(v->leave_code || e->dead);
    write_to(GUEST + 0x17, 1);
    assert_true(v->leave_code && e->dead);
    write_to(GUEST + 0x26, 4);
    assert_true(v->leave_code && d->dead && !c->dead);
    write_to(GUEST + 7, 1);
    assert_true(c->dead);
}

static void test_jumps(void **state) {
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020);

    tc_select_key(&tc, v, KEY);
    assert_ptr_equal(tc_jump_target(v, 0x5010), tc.nowhere);
    tc_jump_insert(&tc, v, 0x5010, c);
    assert_ptr_equal(tc_jump_target(v, 0x5010), c->code.entry_jump);
    assert_null(tc_jump_target(v, 1ull << 60)); /* not canonical */
    for (uint32_t key = 100; key < 100 + TC_JUMP_TABLES - 1; key++) {
        tc_select_key(&tc, v, key);
        assert_ptr_equal(tc_jump_target(v, 0x5010), tc.nowhere);
    }
    tc_select_key(&tc, v, KEY); /* its table is still there */
    assert_ptr_equal(tc_jump_target(v, 0x5010), c->code.entry_jump);
    v->gate_key[0] = KEY;
    tc_select_key(&tc, v, 200); /* takes a table from another key, and so the gates */
    assert_int_equal(v->gate_key[0], 0);
    tc_select_key(&tc, v, KEY);
    tc_drop(&tc, c, TC_WHY_NONE);
    assert_ptr_equal(tc_jump_target(v, 0x5010), tc.nowhere);
}

/* A table that becomes another key's is empty, however much was in it. */
static void test_tables_emptied(void **state) {
    static const unsigned filled[] = {0, 1, 64, TC_JUMPS_PAGE + 1, 5000, 2};
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020);
    uint32_t key = 1000;

    for (unsigned k = 0; k < ARRAY_SIZE(filled); k++) {
        for (unsigned turn = 0; turn < TC_JUMP_TABLES; turn++) {
            tc_select_key(&tc, v, ++key);
            for (unsigned n = 0; n < 1u << TR_JUMP_BITS; n++)
                assert_ptr_equal(tc_jump_target(v, n), tc.nowhere);
            for (unsigned n = 0; n < filled[k]; n++)
                tc_jump_insert(&tc, v, n * 13, c);
        }
        if (k == 3)
            tc_jumps_reset(&tc);
    }
}

/* Fragments at the same low bits: who loses its place in the first table is found in the
 * second, and gets it back; one at many addresses is forgotten at all of them. */
static void test_second_table(void **state) {
    const uint64_t low = 0x10, step = 1 << TR_JUMP_BITS;
    struct ccf *c = keep(0x5010, GUEST, 8, 0x5020),
               *d = keep(0x15010, GUEST + 0x1000, 8, 0x15020);

    tc_select_key(&tc, v, KEY);
    tc_jump_insert(&tc, v, 0x5010, c);
    assert_null(tc_jump_second(&tc, v, 0x5010)); /* it had its place */
    tc_jump_insert(&tc, v, 0x15010, d);
    assert_ptr_equal(tc_jump_target(v, 0x5010), d->code.entry_jump);
    assert_null(tc_jump_second(&tc, v, 0x5010));
    tc_jump_insert(&tc, v, 0x5010, c);
    assert_ptr_equal(tc_jump_second(&tc, v, 0x15010), d->code.entry_jump);
    assert_ptr_equal(tc_jump_target(v, 0x15010), d->code.entry_jump);
    assert_ptr_equal(tc_jump_second(&tc, v, 0x5010), c->code.entry_jump);
    assert_ptr_equal(tc_jump_target(v, 0x5010), c->code.entry_jump);
    for (uint64_t n = 1; n <= 1000; n++) {
        tc_jump_insert(&tc, v, low + n * step, n & 1 ? c : d);
        assert_ptr_equal(tc_jump_target(v, low + n * step),
                         (n & 1 ? c : d)->code.entry_jump);
    }
    tc_drop(&tc, c, TC_WHY_NONE);
    tc_drop(&tc, d, TC_WHY_NONE);
    for (unsigned n = 0; n < 1u << TC_SECOND_BITS; n++)
        assert_null(tc.jump[tr_vcpu(v)->selected].second[n]);
    assert_ptr_equal(tc_jump_target(v, low + 1000 * step), tc.nowhere);
}

/* More than the cache holds, twice around. Nothing that is left leads to what is gone. */
static void test_evicted(void **state) {
    struct ccf *last = NULL;
    unsigned evictions = 0;
    uint64_t va = 0x5000;

    while (evictions < 2 * tc.nunits) {
        struct ccf *c = keep(va, va & 0x3ff000, 4, va + 16);

        if (!c) {
            bool wraps = tc_wraps(&tc);
            unsigned unit = tc.unit;

            tc_evict(&tc);
            assert_int_equal(tc.unit, wraps ? 0 : unit + 1);
            assert_true(tc_unit_empty(&tc));
            evictions++;
            last = NULL;
            continue;
        }
        if (last)
            tc_link(&tc, &last->code.links[0], c);
        tc_select_key(&tc, v, KEY);
        tc_jump_insert(&tc, v, va, c);
        last = c;
        va += 16;
    }
    for (uint64_t at = 0x5000; at < va; at += 16) {
        struct ccf *c = tc_lookup(&tc, at, ram(at & 0x3ff000), KEY);
        uint8_t *to = tc_jump_target(v, at);

        assert_true(to == tc.nowhere || tc_find(&tc, to));
        if (!c)
            continue;
        assert_ptr_equal(tc_find(&tc, c->code.start), c);
        if (goes_to(c) != c->code.links[0].stub)
            assert_int_equal(tc_find(&tc, goes_to(c))->code.va & 4095, (at + 16) & 4095);
    }
    assert_true(counters.bt_evicted > 0 && counters.bt_evictions >= tc.nunits);
    tc_flush(&tc);
    assert_null(tc_lookup(&tc, va - 16, ram((va - 16) & 0x3ff000), KEY));
    assert_int_equal(mem_trace_of(v->mem, ram((va - 16) & 0x3ff000)) & MEM_TRACE_TC, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_written_between, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jumps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tables_emptied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_evicted, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
