/*
 * Counted runs: their time, where their input comes from, and recordings. Whole machines,
 * with guests of a few bytes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/console.h"
#include "lib/tiny.h"
#include "machine/counted.h"
#include "machine/machine.h"
#include "replay/input.h"

/* --- recordings --- */

static char path[32];
static char why[512];

/* A file of the LINES, with checksums. */
static int write_recording(const char *const *lines, size_t count) {
    int fd = memfd_create("recording", MFD_CLOEXEC);
    uint64_t sum = 0;

    assert_true(fd >= 0);
    for (size_t n = 0; n < count; n++) {
        sum = recording_digest(sum, lines[n], strlen(lines[n]));
        dprintf(fd, "%s #%08x\n", lines[n], (unsigned)sum);
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return fd;
}

/* Opens a recording whose header is followed by EVENTS (the last one NULL). */
static int open_events(struct recording *rec, const char *const *events) {
    char version[32];
    const char *lines[64] = {version,      "start-ns 0",  "begin-ns 0", "memory 0",
                             "protocol 0", "paravirt 0",  "no-pci 0",   "virtio 0",
                             "rng 0",      "no-reboot 0", "append 0",   "disks 0",
                             "content 0",  "cpu 0",       "state 0"};
    size_t count = 15;
    int fd, rc;

    snprintf(version, sizeof(version), "bivisor recording %u", RECORDING_VERSION);
    while (*events)
        lines[count++] = *events++;
    fd = write_recording(lines, count);
    rc = recording_open(path, rec, why, sizeof(why));
    close(fd);
    return rc;
}

/* A megabyte in one line; its digits are read in one go. */
static void test_long_line(void **state) {
    const size_t len = 1000000;
    char *line = malloc(2 * len + 16);
    const char *events[] = {line, NULL};
    struct recording rec;
    int at = sprintf(line, "input 5 ");

    for (size_t n = 0; n < len; n++)
        at += sprintf(line + at, "%02x", (unsigned)(n * 7 & 0xff));
    assert_int_equal(open_events(&rec, events), 0);
    assert_int_equal(rec.count, 1);
    assert_int_equal(rec.events[0].len, len);
    for (size_t n = 0; n < len; n++)
        if (rec.events[0].bytes[n] != (n * 7 & 0xff))
            fail_msg("byte %zu", n);
    recording_free(&rec);
    free(line);
}

/* Times behind which sums would wrap are no times. */
static void test_times(void **state) {
    static const char *const bad[] = {"input 4611686018427387904 41",
                                      "input 18446744073709551615 41", "input -1 41",
                                      "end 18446744073709551615 guest 0 0 0 0",
                                      "end 4611686018427387904 guest 0 0 0 0"};
    struct recording rec;

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        const char *events[] = {bad[n], NULL};

        assert_int_equal(open_events(&rec, events), -EINVAL);
        assert_non_null(strstr(why, "line 16 is damaged"));
    }
    assert_int_equal(open_events(&rec, (const char *[]){"input 4611686018427387903 41",
                                                        "end 4611686018427387903 quit 0 "
                                                        "0 0 0",
                                                        NULL}),
                     0);
    assert_true(rec.ended);
    recording_free(&rec);
}

/* Digests of another list of what the state is are no use. */
static void test_old_version(void **state) {
    static const char *const lines[] = {"bivisor recording 2", "start-ns 0"};
    struct recording rec;
    int fd = write_recording(lines, 2);

    assert_int_equal(recording_open(path, &rec, why, sizeof(why)), -EINVAL);
    assert_non_null(
        strstr(why, "is a recording of version 2; this bivisor reads version"));
    close(fd);
}

/* --- machines --- */

static struct machine *machine;
static struct boot_image *image;

#define HALT "\xfa\xf4" /* cli; hlt */
#define SPIN "\xeb\xfe" /* jmp to itself */

/* The pages of the machine are few, so that it is there in no time. */
static void start(const char *code, struct machine_input input) {
    struct machine_config cfg = {
        .engine = "interp", .memory = 16 << 20, .counted = true, .input = input};
    int fd = tiny_kernel(code, strlen(code), path);

    assert_true(fd >= 0);
    assert_int_equal(boot_image_open(path, NULL, &image, why, sizeof(why)), 0);
    close(fd);
    cfg.image = image;
    machine_options_default(&cfg.options);
    if (machine_create(&cfg, &machine, why, sizeof(why)) ||
        machine_boot(machine, why, sizeof(why)))
        fail_msg("%s", why);
}

static void finish(void) {
    machine_free(machine);
    boot_image_close(image);
}

/* A console without input, or with more than the guest takes. */
static unsigned looks;
static uint64_t seen_ns;

static size_t rx_plenty(void *arg, uint8_t *buf, size_t room) {
    memset(buf, 'n', room);
    return room;
}

static size_t rx_and_quit(void *arg, uint8_t *buf, size_t room) {
    machine_quit(machine);
    return 0;
}

static bool dry_and_quit_later(void *arg) {
    if (++looks == 20) {
        seen_ns = machine_now_ns(machine);
        machine_quit(machine);
    }
    return false;
}

static FILE *nowhere;

static struct recording_writer *writer(void) {
    static const struct recording_key key;
    struct recording_writer *w;

    nowhere = fopen("/dev/null", "we");
    assert_non_null(nowhere);
    assert_int_equal(recording_begin(nowhere, &key, &w), 0);
    return w;
}

static void close_writer(struct recording_writer *w) {
    assert_int_equal(recording_end(w), 0);
    fclose(nowhere);
}

/* A guest that would sleep for ever, and the run is ended just before it does. */
static void test_stop_before_sleep(void **state) {
    static struct console con;
    struct input_recorder r = {.source = console_source(&con), .out = writer()};

    r.source.console.rx = rx_and_quit;
    start(HALT, input_record(&r));
    assert_int_equal(machine_run(machine), MACHINE_QUIT);
    finish();
    close_writer(r.out);
}

/* What is held because the guest does not take it is no reason for time to stand still.
 */
static void test_deaf_sleeper(void **state) {
    static struct console con = {.is_tty = true, .held_len = 1};
    struct input_recorder r = {.source = console_source(&con), .out = writer()};

    r.source.console.rx = rx_plenty;
    r.source.dry = dry_and_quit_later;
    looks = 0;
    start(HALT, input_record(&r));
    assert_int_equal(machine_run(machine), MACHINE_QUIT);
    assert_in_range(seen_ns, 5000000, UINT64_MAX);
    finish();
    close_writer(r.out);
}

/* What was typed before the end of the input is still given. */
static void test_held_at_end(void **state) {
    static struct console con = {.is_tty = true, .eof = true, .held_len = 1};
    struct input_recorder r = {.source = console_source(&con)};
    struct machine_input in = input_record(&r);

    assert_int_equal(in.next(in.arg, 1), 1000000);
    con.held_len = 0;
    assert_int_equal(in.next(in.arg, 1), VCLOCK_NEVER);
}

static const struct recording_event *ended_by;
static unsigned ends;

static void on_end(void *arg, const struct recording_event *e) {
    ends++;
    ended_by = e;
    machine_quit(machine);
}

/* More than the serial port takes is not waited for: no such run was recorded. */
static void test_too_much_input(void **state) {
    static uint8_t bytes[5000];
    struct recording_event events[2] = {
        {.ns = 100, .bytes = bytes, .len = sizeof(bytes)},
        {.kind = RECORDING_END, .ns = 200, .how = RECORDING_QUIT}};
    const struct recording rec = {.events = events, .count = 2, .ended = true};
    struct input_player p = {.rec = &rec, .end = on_end};

    ends = 0;
    start(SPIN, input_play(&p));
    assert_int_equal(machine_run(machine), MACHINE_QUIT);
    assert_int_equal(ends, 1);
    assert_null(ended_by);
    assert_int_equal(machine_now_ns(machine), 100);
    finish();

    /* As much as it takes is right. */
    events[0].len = 4000;
    p = (struct input_player){.rec = &rec, .end = on_end};
    start(SPIN, input_play(&p));
    assert_int_equal(machine_run(machine), MACHINE_QUIT);
    assert_ptr_equal(ended_by, &events[1]);
    assert_int_equal(machine_now_ns(machine), 200);
    finish();
}

/* --- what a machine tells of itself --- */

/* What the CPU did and what the board's devices did come together. */
static void test_sums(void **state) {
    struct counters cnt;
    struct exit_counts exits;

    /* mov $0x3f8, %dx; mov $'A', %al; out %al, %dx */
    start("\x66\xba\xf8\x03\xb0\x41\xee" HALT, (struct machine_input){0});
    assert_int_equal(machine_run(machine), MACHINE_ASLEEP);
    cnt = machine_counters(machine);
    exits = machine_exits(machine);
    assert_int_equal(cnt.insns_retired, 5);
    assert_int_equal(machine_insns(machine), 5);
    assert_int_equal(cnt.halts, 1);
    assert_int_equal(cnt.uart_tx_bytes, 1);
    assert_int_equal(exits.n[EXIT_io], 1);
    assert_int_equal(exits.n[EXIT_halt], 1);
    assert_int_equal(machine_cpus(machine), 1);
    assert_true(machine_vcpu(machine, 0)->halted);
    finish();
}

/* --- time --- */

static uint64_t now_ns(void *arg) {
    return counted_now(arg);
}

static void nothing(void *arg) {
}

/* Nobody sleeps to where sums of times would wrap. */
static void test_end_of_time(void **state) {
    static struct counters cnt;
    static struct vcpu v;
    struct counted c;
    const struct vclock_source src = {
        .now_ns = now_ns, .ticks = now_ns, .tick_hz = COUNTED_TSC_HZ, .arg = &c};
    struct vtimer t = {.fire = nothing};

    v.cnt = &cnt;
    counted_init(&c, &v);
    c.clock[1] = vclock_new(&src);
    assert_int_equal(counted_sleep_ns(&c), VCLOCK_NEVER);
    vtimer_arm(c.clock[1], &t, COUNTED_END - 1);
    assert_int_equal(counted_sleep_ns(&c), COUNTED_END - 1);
    vtimer_arm(c.clock[1], &t, COUNTED_END);
    assert_int_equal(counted_sleep_ns(&c), VCLOCK_NEVER);
    vtimer_arm(c.clock[1], &t, VCLOCK_NEVER - 1);
    assert_int_equal(counted_sleep_ns(&c), VCLOCK_NEVER);
    vtimer_cancel(c.clock[1], &t);
    vclock_free(c.clock[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_line),      cmocka_unit_test(test_times),
        cmocka_unit_test(test_old_version),    cmocka_unit_test(test_stop_before_sleep),
        cmocka_unit_test(test_deaf_sleeper),   cmocka_unit_test(test_held_at_end),
        cmocka_unit_test(test_too_much_input), cmocka_unit_test(test_end_of_time),
        cmocka_unit_test(test_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
