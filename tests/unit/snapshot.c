/*
 * Snapshots: the format, whatever was done to a file; a record of every device that there
 * can be, which read and written again has the same bytes; and machines that go on from
 * one, on whichever engine.
 */
/* glibc's <signal.h> under _GNU_SOURCE has names such as REG_RAX, of its own. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <linux/memfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

int memfd_create(const char *name, unsigned flags); /* for lib/tiny.h */

#include "base/os.h"
#include "block/block.h"
#include "lib/rnd.h"
#include "lib/tiny.h"
#include "machine/machine_int.h"
#include "net/net.h"
#include "replay/state.h"
#include "snapshot/snapshot.h"
#include "stream/stream.h"

/* --- the format --- */

struct thing {
    uint8_t byte;
    bool yes;
    uint64_t number;
    uint8_t much[2048];
};

static void thing_state(void *arg, struct snapshot *s) {
    struct thing *t = arg;

    SNAPSHOT(s, t->byte);
    SNAPSHOT(s, t->yes);
    SNAPSHOT_UPTO(s, t->number, 1000);
    snapshot_sparse(s, t->much, sizeof(t->much));
}

static const struct thing some = {7, true, 1000, {[700] = 1, [2047] = 255}};

/* Two things and something that a reader may leave out. */
static uint8_t *write_things(size_t *len) {
    struct snapshot *s = snapshot_new();
    struct thing t = some;
    const uint8_t *bytes;
    uint8_t *copy;

    snapshot_record(s, "thing", 0, 1, thing_state, &t);
    snapshot_optional(s, "more", 0, 1, thing_state, &t);
    t.number = 3;
    snapshot_record(s, "thing", 1, 2, thing_state, &t);
    bytes = snapshot_finish(s, len);
    assert_non_null(bytes);
    copy = malloc(*len);
    memcpy(copy, bytes, *len);
    snapshot_free(s);
    return copy;
}

static void test_round_trip(void **state) {
    struct thing a, b;
    char why[128];
    size_t len;
    uint8_t *bytes = write_things(&len);
    struct snapshot *s = snapshot_open(bytes, len, why, sizeof(why));

    assert_non_null(s);
    memset(&a, 0x55, sizeof(a));
    memset(&b, 0x55, sizeof(b));
    snapshot_record(s, "thing", 1, 2, thing_state, &b);
    assert_int_equal(snapshot_version(s), 2);
    snapshot_record(s, "thing", 0, 2, thing_state, &a);
    assert_int_equal(snapshot_version(s), 1);
    snapshot_finish_reading(s);
    assert_null(snapshot_why(s));
    assert_int_equal(a.byte, some.byte);
    assert_true(a.yes && a.number == 1000 && b.number == 3);
    assert_memory_equal(a.much, some.much, sizeof(a.much));
    snapshot_free(s);
    free(bytes);
}

/* What is said of a file whose records are read as FN does. */
static const char *read_as(const uint8_t *bytes, size_t len, unsigned newest, bool both) {
    static char why[192];
    struct snapshot *s = snapshot_open(bytes, len, why, sizeof(why));
    struct thing t;

    if (!s)
        return why;
    snapshot_record(s, "thing", 0, newest, thing_state, &t);
    if (both)
        snapshot_record(s, "thing", 1, newest, thing_state, &t);
    snapshot_finish_reading(s);
    *why = 0;
    if (snapshot_why(s))
        strcpy(why, snapshot_why(s));
    snapshot_free(s);
    return why;
}

static void test_strangers(void **state) {
    size_t len;
    uint8_t *bytes = write_things(&len);

    assert_string_equal(read_as(bytes, len, 2, true), "");
    assert_non_null(strstr(read_as(bytes, len, 1, true), "newer bivisor"));
    assert_non_null(strstr(read_as(bytes, len, 2, false), "does not have"));
    bytes[8]++;
    assert_non_null(strstr(read_as(bytes, len, 2, true), "format of another"));
    memcpy(bytes, "ELF", 3);
    assert_non_null(strstr(read_as(bytes, len, 2, true), "no snapshot"));
    free(bytes);
}

static void test_damage(void **state) {
    size_t len;
    uint8_t *bytes = write_things(&len);

    for (size_t n = 0; n < len; n++)
        if (!*read_as(bytes, n, 2, true))
            fail_msg("%zu bytes of %zu are taken", n, len);
    for (size_t n = 0; n < len; n++) {
        bytes[n] ^= 0x10;
        if (!*read_as(bytes, len, 2, true))
            fail_msg("byte %zu may be anything", n);
        bytes[n] ^= 0x10;
    }
    free(bytes);
}

static void too_long(void *arg, struct snapshot *s) {
    uint8_t byte = 0;

    for (unsigned n = 0; n < 5000; n++)
        SNAPSHOT(s, byte);
}

static void too_short(void *arg, struct snapshot *s) {
    uint8_t byte;

    SNAPSHOT(s, byte);
}

static void want(void (*fn)(void *arg, struct snapshot *s), const char *sentence) {
    char why[128];
    size_t len;
    uint8_t *bytes = write_things(&len);
    struct snapshot *s = snapshot_open(bytes, len, why, sizeof(why));

    snapshot_record(s, "thing", 0, 2, fn, NULL);
    assert_non_null(strstr(snapshot_why(s), sentence));
    snapshot_free(s);
    free(bytes);
}

static void test_shapes(void **state) {
    want(too_long, "too short");
    want(too_short, "too long");
}

/* --- machines --- */

static struct boot_image *image;
static struct block *disk[3];
static struct net *net[2];
static struct stream *stream[2];
static int kernel = -1;
static char kernel_path[32];
static struct sigaction fault_action;

/* The library's handlers of host faults, which cmocka replaces before each test. */
static void restore_handlers(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
        sigaction(signals[n], &fault_action, NULL);
}

static void open_kernel(const char *code, size_t len) {
    char why[256];

    kernel = tiny_kernel(code, len, kernel_path);
    assert_true(kernel >= 0);
    assert_int_equal(boot_image_open(kernel_path, NULL, &image, why, sizeof(why)), 0);
}

static void close_kernel(void) {
    boot_image_close(image);
    close(kernel);
}

static struct machine *make(const struct machine_config *cfg) {
    struct machine *m;
    char why[512];

    restore_handlers();
    if (!machine_create(cfg, &m, why, sizeof(why)))
        return m;
    if (strcmp(cfg->engine, "kvm"))
        fail_msg("%s", why);
    return NULL;
}

static struct block *open_disk(size_t size) {
    const struct block_spec spec = {.format = BLOCK_RAW, .path = "/tmp/bivisor-snapshot"};
    struct block *b;
    char why[256];
    int fd = open(spec.path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    assert_int_equal(block_open(&spec, &b, why, sizeof(why)), 0);
    unlink(spec.path);
    return b;
}

static void open_ends(void) {
    char why[256];

    for (unsigned n = 0; n < 3; n++)
        disk[n] = open_disk(1 << 20);
    for (unsigned n = 0; n < 2; n++) {
        struct net_config cfg = {.kind = NET_SOCKET, .listen = true};
        char name[64];

        snprintf(name, sizeof(name), "/tmp/bivisor-snapshot.%d.%u", (int)getpid(), n);
        cfg.name = name;
        assert_int_equal(net_open(&cfg, &net[n], why, sizeof(why)), 0);
        assert_int_equal(stream_open("null", &stream[n], why, sizeof(why)), 0);
    }
}

static void close_ends(void) {
    for (unsigned n = 0; n < 3; n++)
        block_close(disk[n]);
    for (unsigned n = 0; n < 2; n++) {
        net_close(net[n]);
        stream_close(stream[n]);
    }
}

/* All that a board can have but shares and sockets, whose other side is a process. */
static struct machine_config everything(enum machine_virtio virtio) {
    struct machine_config cfg = {
        .engine = "interp",
        .memory = 16 << 20,
        .cpus = 2,
        .image = image,
        .paravirt = true,
        .virtio = virtio,
        .rng = true,
        .balloon = true,
        .disks = {{disk[0], MACHINE_DISK_VIRTIO},
                  {disk[1], MACHINE_DISK_IDE},
                  {disk[2], MACHINE_DISK_CDROM}},
        .disk_count = 3,
        .nets = {{.net = net[0], .model = MACHINE_NET_VIRTIO},
                 {.net = net[1], .model = MACHINE_NET_E1000}},
        .net_count = 2,
        .consoles = {{.stream = stream[0], .name = "port"}},
        .console_count = 1,
        .serials = {{.stream = NULL}, {.stream = stream[1]}},
        .serial_count = 2,
    };

    machine_options_default(&cfg.options);
    return cfg;
}

/* The guest has done this and that to its devices. */
static void meddle(struct machine *m) {
    static const struct {
        uint16_t first, count;
    } ports[] = {{0x20, 2},  {0xa0, 2},   {0x40, 4},  {0x61, 1},   {0x60, 1},
                 {0x70, 4},  {0x3f8, 8},  {0x2f8, 8}, {0x3b0, 48}, {0x1f0, 8},
                 {0x170, 8}, {0x3f6, 1},  {0x600, 4}, {0x608, 12}, {0xcf8, 8},
                 {0x1ce, 4}, {0xc000, 64}};

    machine_board_enter(m);
    for (unsigned n = 0; n < 3000; n++) {
        unsigned k = (unsigned)(rnd() % ARRAY_SIZE(ports));
        uint16_t port = (uint16_t)(ports[k].first + rnd() % ports[k].count);

        if (rnd() & 1)
            bus_pio_write(m->bus, port, 1u << (rnd() % 3), (uint32_t)rnd());
        else
            bus_pio_read(m->bus, port, 1u << (rnd() % 3));
        if (!(n % 50))
            bus_mmio_write(m->bus, gpa(0xfec00000 + (rnd() & 0x10)), 4, (uint32_t)rnd());
    }
    machine_board_leave(m);
}

/* Its state, in memory; the caller's. */
static uint8_t *save(struct machine *m, size_t *len) {
    struct snapshot *s = snapshot_new();
    const uint8_t *bytes;
    uint8_t *copy;

    if (machine_save(m, s))
        fail_msg("%s", snapshot_why(s));
    machine_saved(m);
    bytes = snapshot_finish(s, len);
    copy = malloc(*len);
    memcpy(copy, bytes, *len);
    snapshot_free(s);
    return copy;
}

static bool from_kvm;

/* False: it goes from or to the engine of the hardware, whose guest may have another
 * model of CPU. */
static bool load(struct machine *m, const uint8_t *bytes, size_t len) {
    char why[256];
    struct snapshot *s = snapshot_open(bytes, len, why, sizeof(why));
    bool good = s && !machine_restore(m, s, why, sizeof(why));

    if (!good && ((strcmp(machine_engine_name(m), "kvm") && !from_kvm) ||
                  !strstr(why, "model of CPU")))
        fail_msg("%s", why);
    snapshot_free(s);
    return good;
}

/* Host time has gone on between the two, and the records that tell it. */
static bool tells_time(const char *name) {
    return !strcmp(name, "time") || !strcmp(name, "cpu") || !strcmp(name, "rtc");
}

/* Record by record, in the layout of docs/snapshot.md. */
static void same_state(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len) {
    size_t at = 16;

    assert_int_equal(a_len, b_len);
    while (at < a_len) {
        const char *name = (const char *)a + at;
        uint64_t len;

        memcpy(&len, a + at + 24, 8);
        assert_memory_equal(a + at, b + at, 32);
        for (size_t n = 0; n < len && !tells_time(name); n++)
            if (a[at + 40 + n] != b[at + 40 + n])
                fail_msg("record '%s', byte %zu of %zu", name, n, (size_t)len);
        at += 40 + len;
    }
}

static void there_and_back(enum machine_virtio virtio, uint64_t seed) {
    struct machine_config cfg = everything(virtio);
    struct machine *m = make(&cfg);
    char why[256];
    uint8_t *first, *second;
    size_t first_len, second_len;

    if (machine_boot(m, why, sizeof(why)))
        fail_msg("%s", why);
    rnd_seed(seed);
    meddle(m);
    first = save(m, &first_len);
    machine_free(m);
    m = make(&cfg);
    assert_true(load(m, first, first_len));
    second = save(m, &second_len);
    same_state(first, first_len, second, second_len);
    machine_free(m);
    free(first);
    free(second);
}

static void test_every_device(void **state) {
    open_kernel("\xfa\xf4", 2);
    open_ends();
    for (uint64_t seed = 1; seed < 20; seed++) {
        there_and_back(MACHINE_VIRTIO_PCI, seed);
        there_and_back(MACHINE_VIRTIO_MMIO, seed);
    }
    close_ends();
    close_kernel();
}

static struct machine_config plain(const char *engine) {
    struct machine_config cfg = {.engine = engine, .memory = 16 << 20, .image = image};

    machine_options_default(&cfg.options);
    return cfg;
}

/* --- which of them it is --- */

/* What the guest reads, by pieces of all sizes. */
static void read_generation(struct machine *m, uint8_t id[VMGENID_SIZE]) {
    machine_board_enter(m);
    for (unsigned size = 8; size; size /= 2)
        for (unsigned n = 0; n < VMGENID_SIZE; n += size) {
            uint64_t piece = bus_mmio_read(m->bus, gpa(VMGENID_BASE + n), size);

            if (size < 8)
                assert_memory_equal(id + n, &piece, size);
            memcpy(id + n, &piece, size);
        }
    machine_board_leave(m);
}

static unsigned gpe_status(struct machine *m) {
    unsigned status;

    machine_board_enter(m);
    status = bus_pio_read(m->bus, PM_GPE0_PORT, 2);
    machine_board_leave(m);
    return status;
}

/* A machine that goes on has the ID that it had, until it is said to be another; a reset
 * and the guest's writes leave it as it is. */
static void test_generation(void **state) {
    struct machine_config cfg = plain("interp");
    struct machine *m, *copy;
    uint8_t *bytes, first[VMGENID_SIZE], id[VMGENID_SIZE];
    char why[256];
    size_t len;

    open_kernel("\xfa\xf4", 2);
    cfg.image = image;
    m = make(&cfg);
    assert_int_equal(machine_boot(m, why, sizeof(why)), 0);
    read_generation(m, first);
    bytes = save(m, &len);
    copy = make(&cfg);
    read_generation(copy, id);
    assert_memory_not_equal(id, first, sizeof(id));
    assert_true(load(copy, bytes, len));
    read_generation(copy, id);
    assert_memory_equal(id, first, sizeof(id));
    assert_int_equal(gpe_status(copy), 0);
    machine_generation_next(copy);
    read_generation(copy, id);
    assert_memory_not_equal(id, first, sizeof(id));
    assert_int_equal(gpe_status(copy), 1u << PM_GPE_GENERATION);
    machine_free(copy);
    bus_mmio_write(m->bus, gpa(VMGENID_BASE), 8, 0);
    assert_int_equal(machine_boot(m, why, sizeof(why)), 0);
    read_generation(m, id);
    assert_memory_equal(id, first, sizeof(id));
    machine_free(m);
    free(bytes);
    close_kernel();
}

/* --- machines that go on --- */

/* xor eax, eax; mov ebx, eax; 1: inc eax; out 0x80, al; inc ebx; jmp 1b */
#define COUNT "\x31\xc0\x89\xc3\x40\xe6\x80\x43\xeb\xfa"

static struct machine *running;
static uint8_t *saved;
static size_t saved_len;
static int ram = -1;
static uint32_t seen_a, seen_b, frozen_a;

static void look(void *arg) {
    seen_a = (uint32_t)machine_vcpu(running, 0)->gpr[REG_RAX];
    seen_b = (uint32_t)machine_vcpu(running, 0)->gpr[REG_RBX];
}

/* The guest gets on. */
static void wait_beyond(uint32_t count) {
    do
        machine_call(running, look, NULL);
    while (seen_a < count || seen_a == 0x2badb002); /* the loader's */
    assert_in_range(seen_a - seen_b, 0, 1);
}

static void freeze(void *arg) {
    struct snapshot *s = snapshot_new();
    const uint8_t *bytes;

    wait_beyond(10000);
    assert_int_equal(machine_save(running, s), 0);
    ram = memfd_create("ram", 0);
    assert_int_equal(machine_save_ram(running, ram), 0);
    look(NULL);
    frozen_a = seen_a;
    machine_saved(running);
    bytes = snapshot_finish(s, &saved_len);
    saved = malloc(saved_len);
    memcpy(saved, bytes, saved_len);
    snapshot_free(s);
    wait_beyond(seen_a + 1000);
    machine_quit(running);
}

static void go_on(void *arg) {
    wait_beyond(seen_a + 10000);
    machine_quit(running);
}

static void run(struct machine *m, void (*fn)(void *arg)) {
    static struct os_task task;

    running = m;
    task = (struct os_task){.fn = fn};
    os_task_post(&task, machine_loop(m));
    assert_int_equal(machine_run(m), MACHINE_QUIT);
}

/* Makes a snapshot of a guest that counts, on ENGINE. False: there is no such engine. */
static bool freeze_on(const char *engine) {
    struct machine_config cfg = plain(engine);
    struct machine *m = make(&cfg);
    char why[256];

    if (!m)
        return false;
    assert_int_equal(machine_boot(m, why, sizeof(why)), 0);
    run(m, freeze);
    machine_free(m);
    return true;
}

static void thaw_on(const char *engine, enum direct_mode direct) {
    struct machine_config cfg = plain(engine);
    struct machine *m;

    cfg.direct = direct;
    m = make(&cfg);
    if (!m)
        return;
    assert_int_equal(machine_restore_ram(m, ram), 0);
    if (!load(m, saved, saved_len)) {
        machine_free(m);
        return;
    }
    running = m;
    machine_call(m, look, NULL);
    assert_int_equal(seen_a, frozen_a);
    run(m, go_on);
    machine_free(m);
}

static void test_engines(void **state) {
    static const char *const engines[] = {"interp", "bt", "kvm"};

    open_kernel(COUNT, sizeof(COUNT) - 1);
    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        if (!freeze_on(engines[n]))
            continue;
        from_kvm = !strcmp(engines[n], "kvm");
        for (size_t k = 0; k < ARRAY_SIZE(engines); k++)
            thaw_on(engines[k], DIRECT_OFF);
        thaw_on("bt", DIRECT_AUTO);
        from_kvm = false;
        free(saved);
        close(ram);
    }
    close_kernel();
}

/* --- another machine --- */

static void refuse(const struct machine_config *cfg, const char *sentence) {
    char why[256] = "";
    struct snapshot *s = snapshot_open(saved, saved_len, why, sizeof(why));
    struct machine *m = make(cfg);

    assert_int_not_equal(machine_restore(m, s, why, sizeof(why)), 0);
    if (!strstr(why, sentence))
        fail_msg("'%s', not '%s'", why, sentence);
    machine_free(m);
    snapshot_free(s);
}

static void test_other_machines(void **state) {
    struct machine_config cfg;

    open_kernel(COUNT, sizeof(COUNT) - 1);
    freeze_on("interp");
    cfg = plain("interp");
    cfg.memory = 32 << 20;
    refuse(&cfg, "size of memory");
    cfg = plain("interp");
    cfg.cpus = 2;
    refuse(&cfg, "number of CPUs");
    cfg = plain("interp");
    cfg.cpu = "v2";
    refuse(&cfg, "model of CPU");
    cfg = plain("interp");
    cfg.no_pci = true;
    refuse(&cfg, "does not have");
    cfg = plain("interp");
    cfg.virtio = MACHINE_VIRTIO_MMIO;
    cfg.balloon = true;
    refuse(&cfg, "has no record 'virtio-mmio'");
    free(saved);
    close(ram);
    close_kernel();
}

/* --- machines that count --- */

#define COUNTED_AT 12345u
#define COUNTED_TO 1234567u

static struct machine *make_counted(const char *engine) {
    struct machine_config cfg = plain(engine);

    cfg.counted = true;
    machine_options_counted(&cfg.options);
    return make(&cfg);
}

/* What M, and who goes on from what is frozen of it on the way, come to is the same. */
static void test_counted(void **state) {
    static const char *const engines[] = {"interp", "bt"};
    struct machine_config other;
    struct machine *m;
    uint64_t end;
    char why[256];

    open_kernel(COUNT, sizeof(COUNT) - 1);
    other = plain("interp");
    m = make_counted("bt");
    assert_int_equal(machine_boot(m, why, sizeof(why)), 0);
    assert_int_equal(machine_run_to(m, COUNTED_AT), MACHINE_PAUSED);
    saved = save(m, &saved_len);
    ram = memfd_create("ram", 0);
    assert_int_equal(machine_save_ram(m, ram), 0);
    assert_int_equal(machine_run_to(m, COUNTED_TO), MACHINE_PAUSED);
    end = state_digest(m);
    machine_free(m);
    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        m = make_counted(engines[n]);
        assert_int_equal(machine_restore_ram(m, ram), 0);
        assert_true(load(m, saved, saved_len));
        assert_int_equal(machine_insns(m), COUNTED_AT);
        assert_int_equal(machine_run_to(m, COUNTED_TO), MACHINE_PAUSED);
        assert_int_equal(machine_now_ns(m), COUNTED_TO);
        assert_int_equal(state_digest(m), end);
        machine_free(m);
    }
    refuse(&other, "counts time");
    free(saved);
    close(ram);
    close_kernel();
}

/* One that did not count does from here on, and its time goes on. */
static void test_counted_from_now(void **state) {
    struct machine *m;

    open_kernel(COUNT, sizeof(COUNT) - 1);
    freeze_on("interp");
    m = make_counted("bt");
    assert_int_equal(machine_restore_ram(m, ram), 0);
    assert_true(load(m, saved, saved_len));
    assert_int_equal(machine_insns(m), 0);
    assert_int_not_equal(machine_now_ns(m), 0);
    running = m;
    look(NULL);
    assert_int_equal(seen_a, frozen_a);
    assert_int_equal(machine_run_to(m, 4000), MACHINE_PAUSED);
    look(NULL);
    assert_int_equal(seen_a, frozen_a + 1000);
    machine_free(m);
    free(saved);
    close(ram);
    close_kernel();
}

/* --- memory --- */

static void test_memory(void **state) {
    struct machine_config cfg;
    uint64_t size;
    uint8_t *bytes;
    struct machine *m;
    char why[256];
    int fd = memfd_create("ram", 0), other = memfd_create("other", 0);

    open_kernel("\xfa\xf4", 2);
    cfg = plain("interp");
    m = make(&cfg);
    bytes = machine_ram(m, &size);
    bytes[0x5000] = 1;
    bytes[size - 1] = 2;
    assert_int_equal(machine_save_ram(m, fd), 0);
    machine_free(m);
    m = make(&cfg);
    assert_int_equal(machine_restore_ram(m, other), -22);
    assert_int_equal(machine_restore_ram(m, fd), 0);
    bytes = machine_ram(m, &size);
    assert_true(bytes[0x5000] == 1 && bytes[size - 1] == 2 && !bytes[0x6000]);
    bytes[0x6000] = 3; /* its own */
    assert_int_equal(machine_save_ram(m, other), 0);
    machine_free(m);
    m = make(&cfg);
    assert_int_equal(machine_restore_ram(m, fd), 0);
    bytes = machine_ram(m, &size);
    assert_int_equal(bytes[0x6000], 0);
    assert_int_equal(machine_boot(m, why, sizeof(why)), 0); /* and all is forgotten */
    assert_true(!bytes[0x5000] && !bytes[size - 1]);
    machine_free(m);
    m = make(&cfg);
    assert_int_equal(machine_restore_ram(m, other), 0);
    bytes = machine_ram(m, &size);
    assert_true(bytes[0x5000] == 1 && bytes[0x6000] == 3 && bytes[size - 1] == 2);
    machine_free(m);
    close(fd);
    close(other);
    close_kernel();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),       cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_damage),           cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_every_device),     cmocka_unit_test(test_engines),
        cmocka_unit_test(test_other_machines),   cmocka_unit_test(test_counted),
        cmocka_unit_test(test_counted_from_now), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_generation),
    };
    char why[256];
    struct machine *m;
    struct machine_config cfg;

    /* Handlers are installed with the first engine. */
    open_kernel("\xfa\xf4", 2);
    cfg = plain("bt");
    if (machine_create(&cfg, &m, why, sizeof(why)))
        return 1;
    sigaction(SIGSEGV, NULL, &fault_action);
    machine_free(m);
    close_kernel();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
