/*
 * Several vCPUs on threads of their own execute code out of one translation cache, while
 * it is made, linked, evicted, and written.
 */
#include <pthread.h>

#include "lib/unit.h"

#include "cpu/cpuid.h"
#include "cpu/smp.h"
#include "cpu/vec.h"
#include "interp/interp.h"
#include "lib/bt.h"
#include "lib/need.h"
#include "lib/signals.h"
#include "sem/sem.h"
#include "soft/soft.h"

enum {
    CPUS = 3,
    CODE = 0x10000,   /* each vCPU's program, 4 KiB apart */
    STACK = 0x20000,  /* and its stack, which ends there */
    SHARED = 0x30000, /* variables */
    FUNCS = 0x100000, /* functions, SLOT bytes apart */
    SLOT = 64,
    NFUNCS = 4096,
    CALLS = 40000,
    LOCKED = 100000,
    PATCHES = 3000,
};

struct cpu {
    struct vcpu *v;
    struct counters cnt;
    struct soft soft;
    pthread_t thread;
    enum exit_reason out;
};

static struct world {
    struct mem *mem;
    struct cpuid_model *model;
    struct vcpu_group group;
    struct cpu cpu[CPUS];
} W;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    vec_park(v);
}

static int on_irq_ack(void *arg) {
    return -1;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook, .irq_ack = on_irq_ack};

static void kick(void *arg, struct vcpu *v, uint32_t event) {
    if (bt_of(v))
        bt_kick(bt_of(v));
}

static void cpu_new(struct cpu *c) {
    c->v = vcpu_new();
    need(c->v, "no vCPU");
    c->v->cnt = &c->cnt;
    c->v->hooks = &hooks;
    c->v->cpuid = W.model;
    c->v->mem = W.mem;
    vcpu_group_add(&W.group, c->v);
    need(!mmu_create(c->v, MMU_FLUSH), "no MMU");
    c->soft = (struct soft){.v = c->v, .ip = interp_new(c->v)};
    need(c->soft.ip, "no interpreter");
}

static void world_new(const char *options) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};
    struct bt_options opt = bt_defaults();
    char why[128];

    signals_back();
    need(!bt_options_parse(&opt, options, why, sizeof(why)), options);
    memset(&W, 0, sizeof(W));
    W.model = cpuid_model_new(&cfg);
    need(W.model && !mem_create(MEM_MIN_RAM, &W.mem), "no RAM");
    vcpu_group_init(&W.group, kick, NULL);
    for (unsigned n = 0; n < CPUS; n++)
        cpu_new(&W.cpu[n]);
    mmu_hook(W.cpu[0].v);
    need(!bt_new(W.cpu[0].v, W.cpu[0].soft.ip, &opt, &W.cpu[0].soft.bt), "no bt");
    for (unsigned n = 1; n < CPUS; n++)
        need(!bt_join(W.cpu[0].soft.bt, W.cpu[n].v, W.cpu[n].soft.ip, &W.cpu[n].soft.bt),
             "no bt");
    mem_own_trace(W.mem, MEM_TRACE_CODE, interp_code_written, W.cpu[0].soft.ip);
    mem_own_trace(W.mem, MEM_TRACE_TC, bt_code_written, W.cpu[0].soft.bt);
}

static void world_free(void) {
    for (unsigned n = 0; n < CPUS; n++) {
        bt_free(W.cpu[n].soft.bt);
        interp_free(W.cpu[n].soft.ip);
        mmu_destroy(W.cpu[n].v);
        vcpu_free(W.cpu[n].v);
    }
    cpuid_model_free(W.model);
    mem_destroy(W.mem);
}

/* Flat 32-bit code of CPL 0 without paging, at its program. */
static void start(unsigned n) {
    struct vcpu *v = W.cpu[n].v;

    vcpu_reset(v);
    v->cr0 = X86_CR0_PE | X86_CR0_ET;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = (struct segment){.sel = (uint16_t)(8 * s + 8),
                                     .ar = s == SEG_CS ? 0xc09b : 0xc093,
                                     .limit = UINT32_MAX};
    v->rip = CODE + n * 4096;
    v->gpr[REG_RSP] = STACK + n * 4096 + 4096;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_mode_changed(v);
}

static void *run(void *arg) {
    struct cpu *c = arg;

    do {
        vcpu_clear(c->v, VCPU_EVENT_KICK);
        vcpu_enter(c->v);
        c->out = soft_run(&c->soft);
        vcpu_leave(c->v);
    } while (c->out == EXIT_kick);
    os_signal_stack_free();
    return NULL;
}

/* The first COUNT vCPUs, from their programs to the HLT at their ends. */
static void run_all(unsigned count) {
    for (unsigned n = 0; n < count; n++)
        start(n);
    for (unsigned n = 0; n < count; n++)
        assert_int_equal(pthread_create(&W.cpu[n].thread, NULL, run, &W.cpu[n]), 0);
    for (unsigned n = 0; n < count; n++)
        pthread_join(W.cpu[n].thread, NULL);
    for (unsigned n = 0; n < count; n++)
        assert_int_equal(W.cpu[n].out, EXIT_halt);
}

static void put(uint64_t at, const uint8_t *bytes, size_t len) {
    need(mem_write(W.mem, gpa(at), bytes, len), "no RAM there");
}

static uint32_t get(uint64_t at) {
    uint32_t value;

    need(mem_read(W.mem, gpa(at), &value, 4), "no RAM there");
    return value;
}

static void put32(uint64_t at, uint32_t value) {
    put(at, (const uint8_t *)&value, 4);
}

#define LE32(x)                                                                          \
    (uint8_t)(x), (uint8_t)((x) >> 8), (uint8_t)((x) >> 16), (uint8_t)((x) >> 24)

static uint64_t sum_of(size_t counter) {
    uint64_t sum = 0;

    for (unsigned n = 0; n < CPUS; n++)
        sum += *(uint64_t *)(void *)((uint8_t *)&W.cpu[n].cnt + counter);
    return sum;
}
#define SUM(counter) sum_of(offsetof(struct counters, counter))

/* --- locked instructions --- */

static void locked(const char *options) {
    const uint8_t program[] = {
        0xb9,
        LE32(LOCKED), /* mov ecx, LOCKED */
        0xf0,
        0xff,
        0x05,
        LE32(SHARED), /* 1: lock inc [SHARED] */
        0xb8,
        LE32(3), /* mov eax, 3 */
        0xf0,
        0x0f,
        0xc1,
        0x05,
        LE32(SHARED + 64), /* lock xadd [SHARED + 64], eax */
        0xa1,
        LE32(SHARED + 128), /* mov eax, [SHARED + 128] */
        0x8d,
        0x58,
        0x01, /* 2: lea ebx, [eax + 1] */
        0xf0,
        0x0f,
        0xb1,
        0x1d,
        LE32(SHARED + 128), /* lock cmpxchg [..], ebx */
        0x75,
        0xf3, /* jnz 2b */
        0x89,
        0xc8,
        0x83,
        0xe0,
        0x3f, /* mov eax, ecx; and eax, 63 */
        0xf0,
        0x0f,
        0xbb,
        0x05,
        LE32(SHARED + 192), /* lock btc [..], eax */
        0xb0,
        0x01, /* 3: mov al, 1 */
        0x86,
        0x05,
        LE32(SHARED + 256), /* xchg [SHARED + 256], al */
        0x84,
        0xc0, /* test al, al */
        0x74,
        0x04, /* jz 4f */
        0xf3,
        0x90, /* pause */
        0xeb,
        0xf2, /* jmp 3b */
        0xff,
        0x05,
        LE32(SHARED + 320), /* 4: inc [SHARED + 320] */
        0xc6,
        0x05,
        LE32(SHARED + 256),
        0x00, /* mov byte [SHARED + 256], 0 */
        0x49, /* dec ecx */
        0x75,
        0xad, /* jnz 1b */
        0xf4,
    };

    world_new(options);
    for (unsigned n = 0; n < CPUS; n++)
        put(CODE + n * 4096, program, sizeof(program));
    run_all(CPUS);
    assert_int_equal(get(SHARED), CPUS * LOCKED);
    assert_int_equal(get(SHARED + 64), 3 * CPUS * LOCKED);
    assert_int_equal(get(SHARED + 128), CPUS * LOCKED);
    assert_int_equal(get(SHARED + 320), CPUS * LOCKED);
    /* Each bit has been turned as often by all. */
    for (unsigned bit = 0, times = 0; bit < 64; bit++, times = 0) {
        for (unsigned ecx = LOCKED; ecx; ecx--)
            times += (ecx & 63) == bit;
        assert_int_equal(get(SHARED + 192 + bit / 32 * 4) >> bit % 32 & 1,
                         times * CPUS & 1);
    }
    world_free();
}

static void test_locked(void **state) {
    locked("cache=2");
    locked("cache=2,hot=0,no-groups,no-anchors");
    locked("cache=2,hot=50,tu=1");
}

/* --- much code --- */

static uint32_t added(unsigned n) {
    return n * 0x9e3779b1u;
}

static void put_func(unsigned n) {
    const uint8_t code[] = {
        0x05, LE32(added(n)),  /* add eax, added */
        0xd1, 0xc0,            /* rol eax, 1 */
        0x73, 0x05,            /* jnc 1f */
        0x35, LE32(~added(n)), /* xor eax, ~added */
        0xc3,                  /* 1: ret */
    };

    put(FUNCS + n * SLOT, code, sizeof(code));
}

/* What it returns for EAX. */
static uint32_t func(unsigned n, uint32_t eax) {
    eax += added(n);
    eax = eax << 1 | eax >> 31;
    return eax & 1 ? eax ^ ~added(n) : eax;
}

/* Calls functions at random: SEED says which. */
static void put_caller(unsigned cpu, uint32_t seed) {
    const uint8_t program[] = {
        0xbb, LE32(CALLS),                   /* mov ebx, CALLS */
        0xbe, LE32(seed),                    /* mov esi, seed */
        0x31, 0xff,                          /* xor edi, edi */
        0x69, 0xf6,        LE32(1664525),    /* 1: imul esi, esi, 1664525 */
        0x81, 0xc6,        LE32(1013904223), /* add esi, 1013904223 */
        0x89, 0xf1,        0xc1,
        0xe9, 20,                       /* mov ecx, esi; shr ecx, 20 */
        0xc1, 0xe1,        0x06,        /* shl ecx, 6 */
        0x81, 0xc1,        LE32(FUNCS), /* add ecx, FUNCS */
        0x89, 0xf8,        0xff,
        0xd1, 0x89,        0xc7, /* mov eax, edi; call ecx; mov edi, eax */
        0x4b,                    /* dec ebx */
        0x75, 0xdd,              /* jnz 1b */
        0x89, 0x3d,        LE32(SHARED + 4 * cpu), /* mov [SHARED + 4 * cpu], edi */
        0xf4,
    };

    put(CODE + cpu * 4096, program, sizeof(program));
}

static uint32_t called(uint32_t seed) {
    uint32_t sum = 0;

    for (unsigned n = 0; n < CALLS; n++) {
        seed = seed * 1664525 + 1013904223;
        sum = func(seed >> 20, sum);
    }
    return sum;
}

static void much(const char *options, bool evicts) {
    world_new(options);
    for (unsigned n = 0; n < NFUNCS; n++)
        put_func(n);
    for (unsigned n = 0; n < CPUS; n++)
        put_caller(n, n + 1);
    run_all(CPUS);
    for (unsigned n = 0; n < CPUS; n++)
        assert_int_equal(get(SHARED + 4 * n), called(n + 1));
    assert_true(!evicts || SUM(bt_evictions) + SUM(bt_flushes));
    assert_true(SUM(bt_translations) >= NFUNCS);
    world_free();
}

static void test_much_code(void **state) {
    much("cache=16,hot=0", false);
    much("cache=1,hot=20", true);
    much("cache=1,hot=2,path=8,no-evict", true);
    much("cache=1,hot=2,verify", true);
    much("cache=1,hot=2,seal", true);
}

/* --- code that is written while others execute it --- */

/* Writes over the immediates of the functions, one after the other, what is there: each
 * time the fragments go. */
static void put_writer(unsigned cpu) {
    const uint8_t program[] = {
        0xbb,
        LE32(CALLS / 8), /* mov ebx, CALLS / 8 */
        0xbe,
        LE32(77), /* mov esi, 77 */
        0x69,
        0xf6,
        LE32(1664525), /* 1: imul esi, esi, 1664525 */
        0x81,
        0xc6,
        LE32(1013904223), /* add esi, 1013904223 */
        0x89,
        0xf1,
        0xc1,
        0xe9,
        20, /* mov ecx, esi; shr ecx, 20 */
        0xc1,
        0xe1,
        0x06, /* shl ecx, 6 */
        0x8b,
        0x81,
        LE32(FUNCS + 1), /* mov eax, [ecx + FUNCS + 1] */
        0x89,
        0x81,
        LE32(FUNCS + 1), /* mov [ecx + FUNCS + 1], eax */
        0x4b,            /* dec ebx */
        0x75,
        0xdd, /* jnz 1b */
        0xf4,
    };

    put(CODE + cpu * 4096, program, sizeof(program));
}

static void written(const char *options) {
    world_new(options);
    for (unsigned n = 0; n < NFUNCS; n++)
        put_func(n);
    for (unsigned n = 0; n < CPUS - 1; n++)
        put_caller(n, n + 1);
    put_writer(CPUS - 1);
    /* There is something to be written over, whoever comes first in the second round, and
     * in the third what was dropped is made again. */
    for (unsigned round = 0; round < 3; round++) {
        run_all(round == 1 ? CPUS : CPUS - 1);
        for (unsigned n = 0; n < CPUS - 1; n++)
            assert_int_equal(get(SHARED + 4 * n), called(n + 1));
    }
    assert_true(SUM(bt_again_written) > 0);
    world_free();
}

static void test_written(void **state) {
    written("cache=16");
    written("cache=16,seal");
    written("cache=1,hot=2");
}

/* One vCPU counts an immediate up and says so; the others, when they have heard of it and
 * executed a serializing instruction, find at least that. AMD64 APM volume 2,
 * "Cross-Modifying Code". The function is executed often in between, so that its code is
 * linked to, or lies in a path. */
static void modified(const char *options) {
    const uint32_t imm = FUNCS + 1, said = SHARED, wrong = SHARED + 64;
    const uint8_t function[] = {0xb8, LE32(0), 0xc3}; /* mov eax, 0; ret */
    const uint8_t writer[] = {
        0xb9, LE32(PATCHES),             /* mov ecx, PATCHES */
        0xff, 0x05,          LE32(imm),  /* 1: inc [imm] */
        0xff, 0x05,          LE32(said), /* inc [said] */
        0xba, LE32(200),                 /* mov edx, 200 */
        0x4a, 0x75,          0xfd,       /* 2: dec edx; jnz 2b */
        0x49, 0x75,          0xe9,       /* dec ecx; jnz 1b */
        0xf4,
    };
    const uint8_t reader[] = {
        0x8b,          0x35,
        LE32(said), /* 1: mov esi, [said] */
        0x31,          0xc0,
        0x0f,          0xa2, /* xor eax, eax; cpuid */
        0xb8,          LE32(FUNCS),
        0xff,          0xd0, /* mov eax, FUNCS; call eax */
        0x39,          0xf0, /* cmp eax, esi */
        0x73,          0x06, /* jae 2f */
        0xff,          0x05,
        LE32(wrong),                              /* inc [wrong] */
        0xbf,          LE32(20),                  /* 2: mov edi, 20 */
        0xe8,          LE32(FUNCS - (CODE + 37)), /* 3: call FUNCS */
        0x4f,          0x75,
        0xf8, /* dec edi; jnz 3b */
        0x81,          0xfe,
        LE32(PATCHES),       /* cmp esi, PATCHES */
        0x72,          0xd0, /* jb 1b */
        0xf4,
    };

    world_new(options);
    put(FUNCS, function, sizeof(function));
    for (unsigned n = 0; n < CPUS - 1; n++) {
        put(CODE + n * 4096, reader, sizeof(reader));
        put32(CODE + n * 4096 + 33, FUNCS - (CODE + n * 4096 + 37));
    }
    put(CODE + (CPUS - 1) * 4096, writer, sizeof(writer));
    run_all(CPUS);
    assert_int_equal(get(said), PATCHES);
    assert_int_equal(get(imm), PATCHES);
    assert_int_equal(get(wrong), 0);
    world_free();
}

static void test_cross_modified(void **state) {
    modified("cache=2");
    modified("cache=2,hot=2");
    modified("cache=2,no-chain");
}

/* A loop that nobody leaves, until another vCPU writes over its branch. */
static void test_loop_is_left(void **state) {
    static const char *const options[] = {"cache=2,hot=2", "cache=2,hot=0"};
    const uint8_t loop[] = {0x83, 0xc0, 0x01,
                            0xeb, 0xfb, 0xf4}; /* add eax, 1; jmp; hlt */
    const uint8_t writer[] = {
        0xb9,           LE32(100000),       /* mov ecx, 100000 */
        0x49,           0x75,         0xfd, /* dec ecx; jnz */
        0x66,           0xc7,         0x05,
        LE32(CODE + 3), 0x90,         0x90, /* mov word [CODE + 3], 9090 */
        0xf4,
    };

    for (unsigned n = 0; n < ARRAY_SIZE(options); n++) {
        world_new(options[n]);
        put(CODE, loop, sizeof(loop));
        put(CODE + 4096, writer, sizeof(writer));
        run_all(2);
        assert_int_equal(W.cpu[0].v->rip, CODE + sizeof(loop));
        world_free();
    }
}

/* Where the host has too few CPUs, a loop that waits gives its own away now and then. */
static void test_pause(void **state) {
    const uint8_t program[] = {
        0xb9, LE32(640),       /* mov ecx, 640 */
        0xf3, 0x90,            /* 1: pause */
        0x49, 0x75,      0xfb, /* dec ecx; jnz 1b */
        0xf4,
    };

    for (unsigned few = 0; few < 2; few++) {
        world_new("cache=2,hot=50");
        W.cpu[0].soft.bt->sh->yields = few;
        for (unsigned n = 0; n < CPUS; n++)
            put(CODE + n * 4096, program, sizeof(program));
        run_all(CPUS);
        for (unsigned n = 0; n < CPUS; n++) {
            assert_int_equal(W.cpu[n].v->gpr[REG_RCX], 0);
            assert_int_equal(W.cpu[n].cnt.bt_yields, few * 10);
        }
        world_free();
    }
}

/* --- what emitted code notes --- */

/* Each vCPU counts its own executions of code that all execute, and where it went from
 * there. */
static void test_own_counts(void **state) {
    enum { HOT = 10000, TIMES = 500 };
    const uint8_t function[] = {0xc3}; /* ret */

    world_new("cache=2,hot=10000");
    put(FUNCS, function, sizeof(function));
    for (unsigned n = 0; n < CPUS; n++) {
        const uint8_t program[] = {
            0xb9, LE32(TIMES),                          /* mov ecx, TIMES */
            0xe8, LE32(FUNCS - (CODE + n * 4096 + 10)), /* 1: call FUNCS */
            0x49, 0x75,
            0xf8, /* dec ecx; jnz 1b */
            0xf4,
        };

        put(CODE + n * 4096, program, sizeof(program));
    }
    run_all(CPUS);
    for (unsigned n = 0; n < CPUS; n++) {
        const struct tr_counts *x = tr_counts(W.cpu[n].v);

        assert_int_equal(x->heat[tr_heat_slot(FUNCS)], HOT - TIMES);
        assert_int_equal(x->guess[tr_guess_slot(FUNCS)], CODE + n * 4096 + 10);
    }
    world_free();
}

/* --- tables of indirect branches --- */

enum { KEYS = 8 };

static void *select_keys(void *arg) {
    struct cpu *c = arg;
    struct bt *bt = c->soft.bt;
    struct tr_vcpu *x = tr_vcpu(c->v);
    uint32_t first = 100 * (uint32_t)(c - W.cpu);

    vcpu_enter(c->v);
    c->out = EXIT_halt;
    for (uint32_t key = first; key < first + KEYS; key++)
        if (!bt_select_key(bt, key) || x->key != key ||
            x->jump != bt->sh->tc.jump[x->selected].to ||
            bt->sh->tc.jump[x->selected].key != key)
            c->out = EXIT_error;
    vcpu_leave(c->v);
    return NULL;
}

/* Each key has a table of its own, whoever asks for it first. */
static void test_tables(void **state) {
    for (unsigned round = 0; round < 20; round++) {
        world_new("cache=2");
        for (unsigned n = 0; n < CPUS; n++)
            assert_int_equal(
                pthread_create(&W.cpu[n].thread, NULL, select_keys, &W.cpu[n]), 0);
        for (unsigned n = 0; n < CPUS; n++)
            pthread_join(W.cpu[n].thread, NULL);
        for (unsigned n = 0; n < CPUS; n++)
            assert_int_equal(W.cpu[n].out, EXIT_halt);
        for (unsigned n = 0; n < CPUS; n++)
            for (uint32_t k = 0, found = 0; k < KEYS; k++, found = 0) {
                const struct tc *tc = &W.cpu[0].soft.bt->sh->tc;

                for (unsigned t = 0; t < tc->tables; t++)
                    found += tc->jump[t].used && tc->jump[t].key == 100 * n + k;
                assert_int_equal(found, 1);
            }
        world_free();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locked),       cmocka_unit_test(test_much_code),
        cmocka_unit_test(test_written),      cmocka_unit_test(test_cross_modified),
        cmocka_unit_test(test_loop_is_left), cmocka_unit_test(test_pause),
        cmocka_unit_test(test_own_counts),   cmocka_unit_test(test_tables),
    };

    vec_init();
    need(!sem_init(), "no semantics");
    signals_remember();
    world_new("cache=2"); /* which puts handlers in place */
    signals_remember();
    world_free();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
