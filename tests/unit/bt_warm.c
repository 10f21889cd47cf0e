/*
 * Lists of warm code: what a machine that goes on from a snapshot is told was hot. A list
 * that is right spares the translator; one that is not, whatever is in it, changes
 * nothing of what the guest does: a program that writes its functions itself, and over
 * them while it calls them, computes what the interpreter computes.
 */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <linux/memfd.h>

#include "lib/unit.h"

int memfd_create(const char *name, unsigned flags); /* for lib/tiny.h */

#include "bt/bt.h"
#include "lib/engines.h"
#include "lib/need.h"
#include "lib/rnd.h"
#include "lib/signals.h"
#include "lib/tiny.h"
#include "machine/machine_int.h"
#include "snapshot/snapshot.h"
#include "tr/key.h"

enum {
    FUNCS = 0x200000, /* functions, SLOT bytes apart */
    SLOT = 64,
    NFUNCS = 1025,
    ROUNDS = 4096,
    RESULT = 0x600000,
    WRITTEN = RESULT + 4, /* not 0: the functions are there */
    MEMORY = 16 << 20,
};

/* Interrupts stay off; the stack is at 0x700000. */
static const uint8_t program[] = {
    0xfa, 0xbc, 0x00, 0x00, 0x70, 0x00,       /* cli; mov esp, 0x700000 */
    0x83, 0x3d, 0x04, 0x00, 0x60, 0x00, 0x00, /* cmp dword [WRITTEN], 0 */
    0x75, 0x20,                               /* jnz 2f */
    0xbf, 0x00, 0x00, 0x20, 0x00,             /* mov edi, FUNCS */
    0x31, 0xc9,                               /* xor ecx, ecx */
    0xc6, 0x07, 0x05,                         /* 1: mov byte [edi], 5: add eax, */
    0x89, 0x4f, 0x01,                         /* mov [edi + 1], ecx: ecx */
    0xc7, 0x47, 0x05, 0xd1, 0xc0, 0xc3, 0x90, /* mov dword [edi + 5]: rol eax, 1; ret */
    0x83, 0xc7, 0x40, 0x41,                   /* add edi, SLOT; inc ecx */
    0x81, 0xf9, 0x01, 0x04, 0x00, 0x00,       /* cmp ecx, NFUNCS */
    0x75, 0xe7,                               /* jnz 1b */
    0x31, 0xc0, 0xbb, 0x00, 0x10, 0x00, 0x00, /* 2: xor eax, eax; mov ebx, ROUNDS */
    0x69, 0xfb, 0x40, 0x03, 0x00, 0x00,       /* 3: imul edi, ebx, 13 * SLOT */
    0x81, 0xe7, 0xc0, 0xff, 0x00, 0x00,       /* and edi, 0xffc0 */
    0x81, 0xc7, 0x00, 0x00, 0x20, 0x00,       /* add edi, FUNCS */
    0x89, 0x5f, 0x01, 0xff, 0xd7,             /* mov [edi + 1], ebx; call edi */
    0x83, 0xc7, 0x40, 0xff, 0xd7,             /* add edi, SLOT; call edi */
    0x4b, 0x75, 0xe1,                         /* dec ebx; jnz 3b */
    0xa3, 0x00, 0x00, 0x60, 0x00,             /* mov [RESULT], eax */
    0xe6, 0xf4, 0xf4,                         /* out PORTS_DEBUG_EXIT, al; hlt */
};

static struct boot_image *image;
static uint32_t key; /* of its code */
static struct base {
    uint8_t *state; /* at its beginning */
    size_t len;
    int ram[2];         /* before it has run, and after */
    uint32_t result[2]; /* what it computes from these */
} bases[2];             /* of a machine with one CPU, and with two */

/* --- machines --- */

/* Of the translator, for the next machines. */
static const char *options = "cold=0";

static struct machine *make(const char *engine, unsigned cpus) {
    struct machine_config cfg = {
        .engine = engine, .memory = MEMORY, .cpus = cpus, .image = image, .notes = true};
    struct machine *m;
    char why[512];

    signals_back();
    machine_options_default(&cfg.options);
    need(!machine_options_parse(&cfg.options, engine_named("bt"), options, why,
                                sizeof(why)),
         why);
    need(!machine_create(&cfg, &m, why, sizeof(why)), why);
    return m;
}

static uint32_t *word(struct machine *m, unsigned at) {
    uint64_t size;

    return (uint32_t *)(void *)(machine_ram(m, &size) + at);
}

static uint32_t run(struct machine *m) {
    assert_int_equal(machine_run(m), MACHINE_DEBUG_EXIT);
    return *word(m, RESULT);
}

static int save_ram(struct machine *m) {
    int fd = memfd_create("ram", 0);

    assert_int_equal(machine_save_ram(m, fd), 0);
    return fd;
}

/* S ends: its bytes. */
static uint8_t *finish(struct snapshot *s, size_t *len) {
    const uint8_t *bytes = snapshot_finish(s, len);
    uint8_t *copy = malloc(*len);

    need(bytes && copy, "no snapshot");
    memcpy(copy, bytes, *len);
    snapshot_free(s);
    return copy;
}

static uint8_t *save_state(struct machine *m, size_t *len) {
    struct snapshot *s = snapshot_new();

    assert_int_equal(machine_save(m, s), 0);
    machine_saved(m);
    return finish(s, len);
}

/* From the beginning of the program. */
static void go_on(struct machine *m) {
    const struct base *b = &bases[m->cpus - 1];
    char why[256];
    struct snapshot *s = snapshot_open(b->state, b->len, why, sizeof(why));

    need(s && !machine_restore(m, s, why, sizeof(why)), why);
    snapshot_free(s);
}

/* --- lists --- */

struct list {
    uint32_t keys, count;
    uint32_t key[BT_WARM_MAX];
    uint64_t hint[BT_WARM_MAX + 1];
};

static void list_state(void *arg, struct snapshot *s) {
    struct list *l = arg;

    SNAPSHOT(s, l->keys);
    SNAPSHOT(s, l->count);
    snapshot_bytes(s, l->key, l->keys * sizeof(*l->key));
    snapshot_bytes(s, l->hint, l->count * sizeof(*l->hint));
}

static void add(struct list *l, uint64_t at, unsigned number, unsigned heat) {
    if (l->count < BT_WARM_MAX)
        l->hint[l->count++] = at | (uint64_t)number << 44 | (uint64_t)heat << 56;
}

/* M is told what BYTES have, which are freed. False: it is refused. */
static bool tell_bytes(struct machine *m, uint8_t *bytes, size_t len) {
    char why[256];
    struct snapshot *s = snapshot_open(bytes, len, why, sizeof(why));
    bool good;

    need(s, why);
    good = machine_warm_begin(m, s);
    snapshot_free(s);
    free(bytes);
    return good;
}

static bool tell(struct machine *m, struct list *l) {
    struct snapshot *s = snapshot_new();
    uint8_t *bytes;
    size_t len;

    snapshot_optional(s, "warm", 0, 1, list_state, l);
    bytes = finish(s, &len);
    return tell_bytes(m, bytes, len);
}

/* All that was told has been made. */
static void await(struct machine *m) {
    const struct machine_cpu *c = machine_boot_cpu(m);

    while (c->ops->warm_up(c->engine))
        ;
}

static void take_made(void *arg, const char *name, uint64_t value) {
    if (!strcmp(name, "bt_warm"))
        *(uint64_t *)arg += value;
}

/* Fragments that were made since the guest wanted them. */
static uint64_t wanted(struct machine *m) {
    uint64_t made = 0;

    machine_engine_stats(m, take_made, &made);
    return machine_boot_cpu(m)->counters.bt_translations - made;
}

/* The program on bt, with memory as it was before or AFTER it has run, when L has been
 * told: how much the guest's own CPU has translated. */
static uint64_t translations(struct list *l, bool after, unsigned cpus, bool waits) {
    const struct base *b = &bases[cpus - 1];
    struct machine *m = make("bt", cpus);
    uint64_t count;

    assert_int_equal(machine_restore_ram(m, b->ram[after]), 0);
    assert_true(tell(m, l));
    go_on(m);
    if (waits)
        await(m);
    assert_int_equal(run(m), b->result[after]);
    await(m);
    count = wanted(m);
    machine_free(m);
    return count;
}

static void harmless(struct list *l) {
    for (unsigned n = 0; n < 4; n++)
        translations(l, n & 1, n & 2 ? 2 : 1, n);
}

static struct list *list_new(void) {
    struct list *l = calloc(1, sizeof(*l));

    l->keys = 1;
    l->key[0] = key;
    return l;
}

/* Some functions are written over before they are called first. */
static void test_right(void **state) {
    struct list *none = list_new(), *right = list_new();

    for (unsigned n = 0; n < NFUNCS; n++)
        add(right, FUNCS + n * SLOT, 0, n % 256);
    for (unsigned cpus = 1; cpus <= 2; cpus++)
        assert_true(translations(right, true, cpus, true) + NFUNCS / 2 <=
                    translations(none, true, cpus, true));
    harmless(right);
    free(none);
    free(right);
}

/* In the middle of instructions, everywhere, and where nothing is. */
static void test_places(void **state) {
    struct list *l = list_new();

    for (unsigned at = 0; at < BT_WARM_MAX; at++)
        add(l, (at & 1 ? FUNCS : 0x100000) + at / 2, 0, 255);
    harmless(l);
    l->count = 0;
    for (uint64_t at = 0; l->count < BT_WARM_MAX; at += 4093)
        add(l, at, 0, 7);
    harmless(l);
    l->count = 0;
    for (unsigned n = 0; n < BT_WARM_MAX; n++)
        add(l, (1ull << 44) - 1 - n * (n & 1 ? 1ull << 31 : 1), n % 64, n % 256);
    harmless(l);
    free(l);
}

/* Keys that no vCPU can have, at places where code is. */
static void test_keys(void **state) {
    struct list *l = list_new();

    rnd_seed(20260811);
    l->keys = 64;
    for (unsigned n = 0; n < 64; n++)
        l->key[n] = n < 32 ? key ^ 1u << n : (uint32_t)rnd();
    for (unsigned n = 0; n < BT_WARM_MAX; n++)
        add(l, n % 3 ? FUNCS + n % NFUNCS * SLOT : 0x100020 + n % sizeof(program),
            (unsigned)rnd() % 64, (unsigned)rnd() % 256);
    harmless(l);
    free(l);
}

static void test_random(void **state) {
    struct list *l = list_new();

    rnd_seed(20260812);
    for (unsigned round = 0; round < 2; round++) {
        l->keys = 64;
        l->count = BT_WARM_MAX;
        for (unsigned n = 0; n < 64; n++)
            l->key[n] = (uint32_t)rnd();
        for (unsigned n = 0; n < BT_WARM_MAX; n++)
            l->hint[n] = rnd() & (round & 1 ? ~0ull : ~0xfffff000000ull);
        harmless(l);
    }
    free(l);
}

static void refused(uint32_t keys, uint32_t count) {
    struct list *l = list_new();
    struct machine *m = make("bt", 1);

    l->keys = keys;
    l->count = count;
    assert_false(tell(m, l));
    machine_free(m);
    free(l);
}

static void test_refused(void **state) {
    refused(65, 1);
    refused(1, BT_WARM_MAX + 1);
}

/* The program once more, in M, which has been told something or nothing. */
static uint64_t once_more(struct machine *m) {
    go_on(m);
    await(m);
    assert_int_equal(run(m), bases[0].result[true]);
    return wanted(m);
}

static void test_noted(void **state) {
    struct machine *m = make("bt", 1);
    uint64_t cold;
    uint8_t *bytes;
    size_t len;

    assert_int_equal(machine_restore_ram(m, bases[0].ram[true]), 0);
    cold = once_more(m);
    machine_warm_note(m);
    bytes = save_state(m, &len);
    machine_free(m);
    m = make("bt", 1);
    assert_int_equal(machine_restore_ram(m, bases[0].ram[true]), 0);
    assert_true(tell_bytes(m, bytes, len));
    assert_true(once_more(m) + NFUNCS / 2 <= cold);
    machine_free(m);
}

/* --- what is interpreted first --- */

/* Functions are written over before, while and after they are decoded. */
static void test_cold(void **state) {
    static const char *const some[] = {"cold=1", "cold=1000", "cold=30000", "cold=60000"};
    struct list *none = list_new(), *right = list_new();

    for (unsigned n = 0; n < NFUNCS; n++)
        add(right, FUNCS + n * SLOT, 0, n % 256);
    for (unsigned n = 0; n < 2 * ARRAY_SIZE(some); n++) {
        options = some[n / 2];
        harmless(none);
        harmless(right);
    }
    for (unsigned cpus = 1; cpus <= 2; cpus++) {
        options = "cold=1000000000";
        assert_int_equal(translations(none, true, cpus, false), 0);
        options = "cold=0";
        assert_true(translations(none, true, cpus, false) > NFUNCS / 2);
    }
    free(none);
    free(right);
}

/* --- what all of them begin with --- */

static void prepare(unsigned cpus) {
    struct base *b = &bases[cpus - 1];
    struct machine *m = make("interp", cpus);
    char why[256];

    need(!machine_boot(m, why, sizeof(why)), why);
    b->state = save_state(m, &b->len);
    b->ram[false] = save_ram(m);
    b->result[false] = run(m);
    key = tr_key(machine_vcpu(m, 0));
    *word(m, WRITTEN) = 1;
    b->ram[true] = save_ram(m);
    machine_free(m);
    m = make("interp", cpus);
    assert_int_equal(machine_restore_ram(m, b->ram[true]), 0);
    go_on(m);
    b->result[true] = run(m);
    machine_free(m);
}

static int prepare_all(void **state) {
    prepare(1);
    prepare(2);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right), cmocka_unit_test(test_places),
        cmocka_unit_test(test_keys),  cmocka_unit_test(test_random),
        cmocka_unit_test(test_noted), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cold),
    };
    char path[32], why[256];
    int fd = tiny_kernel(program, sizeof(program), path);

    need(fd >= 0 && !boot_image_open(path, NULL, &image, why, sizeof(why)), why);
    machine_free(make("bt", 1)); /* whose handlers are ours */
    signals_remember();
    return cmocka_run_group_tests(tests, prepare_all, NULL);
}
