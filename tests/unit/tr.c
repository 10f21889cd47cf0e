/*
 * The translator by itself: with no cache and no dispatcher, and stubs that are mere
 * addresses. What it makes is looked at, never executed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/counters.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "decode/host.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "tr/key.h"
#include "tr/tr.h"
#include "x86/cr.h"

enum { CODE = 0x10000, SIZE = 4096, RECORDS = 4096, FENCE = 0xa5 };

static struct vcpu *v;
static struct counters counters;
static const struct vcpu_hooks hooks;
static struct tr_env env;
static struct tr *tr;
static struct insn trap;
/* What the advice is, and how often it was asked for. */
static struct {
    bool trap, no_trap_room, division;
    unsigned traps, divisions, reads;
} told;
/* Room for code and records, and what must stay as it is behind it. */
static uint8_t code[2 * SIZE];
static _Alignas(8) uint8_t records[2 * RECORDS];

static bool is_hot(void *arg, uint64_t va, const uint8_t *ram, uint32_t key) {
    return false;
}

static bool traps(void *arg, const struct insn *i, uint64_t va, const uint8_t *ram) {
    told.traps++;
    return told.trap && i->mem.access;
}

static struct insn *trapping(void *arg, struct tr_span *span, const struct insn *i,
                             uint64_t va, uint8_t *ram) {
    if (told.no_trap_room)
        return NULL;
    trap = *i;
    return &trap;
}

static bool no_group(void *arg, uint64_t va, const uint8_t *ram) {
    return false;
}

static bool no_anchor(void *arg, uint64_t va, const uint8_t *ram) {
    return false;
}

static bool division_faults(void *arg, uint64_t va) {
    told.divisions++;
    return told.division;
}

static void reads(void *arg, uint8_t *page) {
    told.reads++;
}

static bool breaks(void *arg, const uint8_t *at) {
    return false;
}

static const struct tr_advice advice = {.breaks = breaks,
                                        .reads = reads,
                                        .is_hot = is_hot,
                                        .traps = traps,
                                        .trapping = trapping,
                                        .no_group = no_group,
                                        .no_anchor = no_anchor,
                                        .division_faults = division_faults};

/* 32-bit flat code of CPL 0, without paging. */
static void flat(void) {
    vcpu_reset(v);
    v->cr0 = X86_CR0_PE | X86_CR0_ET;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        v->seg[n] = (struct segment){.sel = (uint16_t)(8 * n + 8),
                                     .ar = n == SEG_CS ? 0xc09b : 0xc093,
                                     .limit = UINT32_MAX};
    v->cpl = 0;
    vcpu_update_mode(v);
    mmu_mode_changed(v);
}

static int setup(void **state) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};
    uint8_t *stub = code + SIZE;

    vec_init();
    assert_int_equal(sem_init(), 0);
    v = vcpu_new();
    assert_non_null(v);
    v->cnt = &counters;
    v->hooks = &hooks;
    v->cpuid = cpuid_model_new(&cfg);
    assert_int_equal(mem_create(MEM_MIN_RAM, &v->mem), 0);
    assert_int_equal(mmu_create(v, MMU_FLUSH), 0);
    env = (struct tr_env){
        .v = v,
        .opt = {.anchors = true,
                .groups = true,
                .held = true,
                .liveness = true,
                .hot = 100,
                .path = TR_PATH_MAX,
                .tu_limit = 16},
        .code = {.rw = code, .rx = code, .size = sizeof(code)},
        .poll_page = code,
        .advice = &advice,
        .arg = &told,
    };
    env.stub.slow = stub;
    env.stub.anchor[0] = env.stub.anchor[1] = stub + 16;
    env.stub.check = env.stub.check_shared = stub + 32;
    env.stub.callout = env.stub.transfer = stub + 48;
    env.stub.indirect = stub + 64;
    env.stub.link = env.stub.link_regs = stub + 80;
    env.stub.hot = stub + 96;
    tr = tr_new(&env);
    assert_non_null(tr);
    return 0;
}

static int teardown(void **state) {
    tr_free(tr);
    mmu_destroy(v);
    mem_destroy(v->mem);
    cpuid_model_free((struct cpuid_model *)(uintptr_t)v->cpuid);
    vcpu_free(v);
    return 0;
}

/* Translates the LEN bytes at CODE into so much room. */
static enum tr_result make(const uint8_t *bytes, size_t len, size_t room,
                           size_t record_room, struct tr_code *c, struct tr_span *span) {
    enum tr_result r;

    flat();
    assert_true(mem_write(v->mem, gpa(CODE), bytes, len));
    memset(code, FENCE, sizeof(code));
    memset(records, FENCE, sizeof(records));
    *span = (struct tr_span){.code = code,
                             .code_end = code + room,
                             .records = records,
                             .records_end = records + record_room};
    v->rip = CODE;
    assert_true(tr_translatable(v));
    *c = (struct tr_code){
        .va = CODE, .page = mem_host(v->mem, gpa(CODE & ~4095), 1), .key = tr_key(v)};
    r = tr_translate(tr, span, c);
    for (size_t n = room; n < sizeof(code); n++)
        assert_int_equal(code[n], FENCE);
    for (size_t n = record_room; n < sizeof(records); n++)
        assert_int_equal(records[n], FENCE);
    return r;
}

static bool within(const void *p, const void *from, const void *to) {
    return (const char *)p >= (const char *)from && (const char *)p < (const char *)to;
}

/* mov eax, [ecx]; dec eax; jnz to the mov */
static const uint8_t loop[] = {0x8b, 0x01, 0x48, 0x75, 0xfb};

static void test_made(void **state) {
    struct tr_span span;
    struct tr_code c;
    struct tr_made made;
    size_t off = 0, size;

    memset(&told, 0, sizeof(told));
    assert_int_equal(make(loop, sizeof(loop), SIZE, RECORDS, &c, &span), TR_MADE);
    made = tr_made(tr);
    assert_int_equal(made.n, 3);
    assert_int_equal(made.operand, 1); /* the mov, with another operand */
    assert_int_equal(made.ident, 1);
    assert_int_equal(made.callouts, 0);
    assert_int_equal(told.traps, 3);
    assert_int_equal(c.ninsns, 3);
    assert_int_equal(c.guest_len, sizeof(loop));
    assert_ptr_equal(c.start, code);
    assert_ptr_equal(c.end, span.code);
    assert_true(c.start <= c.entry_jump && c.entry_jump <= c.entry_check &&
                c.entry_check < c.entry_mem && c.entry_mem <= c.entry_regs &&
                c.entry_regs < c.end);
    /* Both exits: behind the loop, and back to its start. */
    assert_int_equal(c.nlinks, 2);
    assert_true(within(c.links, records, span.records));
    assert_int_equal(tr_link_target(&c.links[0], CODE & ~4095ull), CODE + sizeof(loop));
    assert_int_equal(tr_link_target(&c.links[1], CODE & ~4095ull), CODE);
    assert_int_equal(tr_link_target(&c.links[1], 0x7000), 0x7000 + (CODE & 4095));
    for (unsigned n = 0; n < c.nlinks; n++) {
        assert_ptr_equal(c.links[n].from, &c);
        assert_null(c.links[n].to);
        assert_true(within(c.links[n].rel32, c.start, c.end));
        assert_true(within(c.links[n].stub, c.start, c.end));
    }
    /* Sites go upwards, and say where the guest is. */
    assert_true(within(c.sites, records, span.records));
    for (unsigned n = 0; n < c.nsites; n++) {
        assert_true(!n || c.sites[n - 1].host <= c.sites[n].host);
        assert_true(c.sites[n].host <= c.end - c.start);
        if (c.sites[n].poll != POLL_LINK)
            assert_true(tr_site_va(&c, &c.sites[n], CODE & ~4095ull) - CODE <
                        sizeof(loop));
    }
    /* All of it is instructions. */
    size = (size_t)(c.end - c.start);
    while (off < size) {
        struct host_insn i;

        assert_true(decode_host(c.start + off, size - off, &i));
        off += i.len;
    }
    assert_int_equal(off, size);
}

/* However little room there is: nothing is written beyond it, and it says so. */
static void test_full(void **state) {
    struct tr_span span;
    struct tr_code c;
    size_t need, need_records;

    memset(&told, 0, sizeof(told));
    assert_int_equal(make(loop, sizeof(loop), SIZE, RECORDS, &c, &span), TR_MADE);
    need = (size_t)(span.code - code);
    need_records = (size_t)(span.records - records);
    for (size_t n = 0; n < need; n++)
        assert_int_equal(make(loop, sizeof(loop), n, RECORDS, &c, &span), TR_FULL);
    for (size_t n = 0; n < need_records; n++)
        assert_int_equal(make(loop, sizeof(loop), SIZE, n, &c, &span), TR_FULL);
    told.trap = told.no_trap_room = true;
    assert_int_equal(make(loop, sizeof(loop), SIZE, RECORDS, &c, &span), TR_FULL);
    told.trap = told.no_trap_room = false;
    assert_int_equal(make(loop, sizeof(loop), need, need_records, &c, &span), TR_MADE);
}

static void test_fault(void **state) {
    uint8_t prefixes[16];
    struct tr_span span;
    struct tr_code c;

    memset(&told, 0, sizeof(told));
    memset(prefixes, 0x66, sizeof(prefixes)); /* more than 15 bytes */
    assert_int_equal(make(prefixes, sizeof(prefixes), SIZE, RECORDS, &c, &span),
                     TR_FAULT);
    assert_int_equal(make(loop, sizeof(loop), SIZE, RECORDS, &c, &span), TR_MADE);
}

/* What is known to trap, and a division that has faulted, are callouts. */
static void test_advice(void **state) {
    /* mov eax, [ecx]; div ebx; ret */
    static const uint8_t bytes[] = {0x8b, 0x01, 0xf7, 0xf3, 0xc3};
    struct tr_span span;
    struct tr_code c;

    memset(&told, 0, sizeof(told));
    memset(&trap, 0, sizeof(trap));
    assert_int_equal(make(bytes, sizeof(bytes), SIZE, RECORDS, &c, &span), TR_MADE);
    assert_int_equal(tr_made(tr).callouts, 0);
    assert_true(told.divisions);
    told.division = true;
    assert_int_equal(make(bytes, sizeof(bytes), SIZE, RECORDS, &c, &span), TR_MADE);
    assert_int_equal(tr_made(tr).callouts, 1);
    told.trap = true;
    assert_int_equal(make(bytes, sizeof(bytes), SIZE, RECORDS, &c, &span), TR_MADE);
    assert_int_equal(tr_made(tr).callouts, 2);
    assert_int_equal(trap.op, OP_mov);
}

static bool has(const struct tr_code *c, const uint8_t *bytes, size_t len) {
    return memmem(c->start, (size_t)(c->end - c->start), bytes, len);
}

/* The head of C leads to where it is told, without a jump in front of it, and counts
 * again; its instructions stay where they are. */
static void turned(const struct tr_code *c) {
    enum { MODRM = 2, CC = 9 + 1, REL = CC + 1, LEN = REL + 4 };
    const uint8_t *to = c->entry_mem;
    uint8_t before[LEN];
    int32_t rel;

    memcpy(before, c->head, LEN);
    assert_int_equal((uintptr_t)(c->head + REL) & 3, 0);
    assert_int_equal(before[CC], 0x84); /* je */
    tr_head_turn(&env, c, to);
    memcpy(&rel, c->head + REL, sizeof(rel));
    assert_ptr_equal(c->head + LEN + rel, to);
    assert_int_equal(c->head[CC], 0x81);          /* jno */
    assert_int_equal(c->head[MODRM] >> 3 & 7, 7); /* cmp */
    tr_head_turn(&env, c, NULL);
    assert_memory_equal(c->head, before, LEN);
}

/* With several vCPUs, LOCK, fences and PAUSE are what they are, what may be changed while
 * others execute it is an aligned displacement, and polls and counts are each vCPU's own.
 */
static void test_smp(void **state) {
    /* lock inc dword [ecx]; mfence; pause; jz ahead; call next; ... */
    static const uint8_t bytes[] = {0xf0, 0xff, 0x01, 0x0f, 0xae, 0xf0, 0xf3,
                                    0x90, 0x74, 0x02, 0xeb, 0x30, 0xc3};
    static const uint8_t lock_inc[] = {0xf0, 0x41, 0xff, 0x06},
                         inc[] = {0x41, 0xff, 0x06}, mfence[] = {0x0f, 0xae, 0xf0},
                         pause[] = {0xf3, 0x90},
                         count[] = {0x65, 0x83, 0x2c, 0x25}; /* sub dword gs:[], 1 */
    struct tr_span span;
    struct tr_code c;

    memset(&told, 0, sizeof(told));
    assert_int_equal(make(bytes, sizeof(bytes), SIZE, RECORDS, &c, &span), TR_MADE);
    assert_true(has(&c, inc, sizeof(inc)) && !has(&c, lock_inc, sizeof(lock_inc)) &&
                !has(&c, mfence, sizeof(mfence)) && !has(&c, pause, sizeof(pause)));
    assert_true(has(&c, count, sizeof(count)));
    env.smp = true;
    assert_int_equal(make(bytes, sizeof(bytes), SIZE, RECORDS, &c, &span), TR_MADE);
    turned(&c);
    env.smp = false;
    assert_true(has(&c, lock_inc, sizeof(lock_inc)) && has(&c, mfence, sizeof(mfence)) &&
                has(&c, pause, sizeof(pause)));
    assert_true(has(&c, count, sizeof(count)));
    assert_int_equal(c.nlinks, 2);
    for (unsigned n = 0; n < c.nlinks; n++)
        assert_int_equal((uintptr_t)c.links[n].rel32 & 3, 0);
}

/* A loop that has been executed often is one fragment, left by one exit. */
static void test_path(void **state) {
    struct tr_span span;
    struct tr_code c, shared;

    memset(&told, 0, sizeof(told));
    assert_int_equal(make(loop, sizeof(loop), SIZE, RECORDS, &shared, &span), TR_MADE);
    memset(tr_counts(v), 0,
           sizeof(struct tr_counts)); /* all of it has been executed often */
    span.code_end = code + sizeof(code);
    span.records_end = records + sizeof(records);
    c = (struct tr_code){.va = CODE,
                         .page = shared.page,
                         .key = shared.key,
                         .fixed = true,
                         .hot = true,
                         .shared = &shared};
    assert_int_equal(tr_translate(tr, &span, &c), TR_MADE);
    assert_int_equal(tr_made(tr).insn[2].follow, FOLLOW_LOOP_TARGET);
    assert_int_equal(c.nlinks, 1);
    assert_int_equal(tr_link_target(&c.links[0], CODE & ~4095ull), CODE + sizeof(loop));
    assert_int_equal(c.npieces, 1);
    assert_int_equal(c.guest_len, sizeof(loop));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made),  cmocka_unit_test(test_full),
        cmocka_unit_test(test_fault), cmocka_unit_test(test_advice),
        cmocka_unit_test(test_smp),   cmocka_unit_test(test_path),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
