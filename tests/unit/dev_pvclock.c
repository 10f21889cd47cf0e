/*
 * KVM's clock by itself, read as Linux reads it: system time and wall clock in the pages
 * that the guest names, their versions, and names that are no memory. Linux,
 * Documentation/virt/kvm/x86/msr.rst.
 */
#include "dev/pv/pvclock.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { WALL = 0x4b564d00, TIME = 0x4b564d01, WALL_OLD = 0x11, TIME_OLD = 0x12 };
enum { PAGE = 0x5000 };

struct time_info {
    uint32_t version, pad0;
    uint64_t tsc, system_time;
    uint32_t mult;
    int8_t shift;
    uint8_t flags, pad[2];
};

static struct rig r;
static struct mem *mem;
static struct pvclock *pvclock;

static int setup(void **state) {
    const struct pvclock_config cfg = {.realtime_ns = rig_realtime, .arg = &r};

    rig_new(&r);
    if (mem_create(MEM_MIN_RAM, &mem))
        return -1;
    pvclock = pvclock_new(mem, r.clock, 2, &cfg, &r.cnt);
    return pvclock ? 0 : -1;
}

static int teardown(void **state) {
    pvclock_free(pvclock);
    mem_destroy(mem);
    rig_free(&r);
    return 0;
}

static void wrmsr(uint32_t msr, uint64_t value) {
    assert_true(pvclock_msr(pvclock, 0, r.clock, msr, true, &value));
}

static uint64_t rdmsr(uint32_t msr) {
    uint64_t value = ~0ull;

    assert_true(pvclock_msr(pvclock, 0, r.clock, msr, false, &value));
    return value;
}

static struct time_info info(void) {
    struct time_info t;

    assert_true(mem_read(mem, gpa(PAGE), &t, sizeof(t)));
    return t;
}

/* System time, as the guest works it out from its TSC. */
static uint64_t system_time(void) {
    struct time_info t = info();
    uint64_t delta = vclock_tsc(r.clock) - t.tsc;

    delta = t.shift < 0 ? delta >> -t.shift : delta << t.shift;
    return t.system_time + (uint64_t)((unsigned __int128)delta * t.mult >> 32);
}

static void test_system_time(void **state) {
    rig_pass(&r, 5000);
    wrmsr(TIME, PAGE | 1);
    assert_int_equal(rdmsr(TIME), PAGE | 1);
    assert_in_range(system_time(), 4999, 5000);
    assert_int_equal(info().flags, 1); /* the TSC is stable */
    assert_int_equal(info().version & 1, 0);
    rig_pass(&r, 1000000000);
    assert_in_range(system_time(), 1000004990, 1000005000);
    rig_pass(&r, 3599000000000);
    assert_in_range(system_time(), 3600000004900, 3600000005000);
}

static uint64_t no_time(void *arg) {
    return 0;
}

/* The scale is right to a part in 2^31 for any frequency that a TSC may have. */
static void test_scale(void **state) {
    static const uint64_t hz[] = {1000000,    33000000,   999999999,   1000000000,
                                  1000000001, 1999999999, 2600000000u, 4294967296ull,
                                  5123456789, 10000000000};

    for (size_t k = 0; k < sizeof(hz) / sizeof(*hz); k++) {
        const struct vclock_source src = {
            .now_ns = no_time, .ticks = no_time, .tick_hz = hz[k]};
        struct vclock *clock = vclock_new(&src);
        struct pvclock *p = pvclock_new(mem, clock, 1, NULL, &r.cnt);
        uint64_t where = PAGE | 1, second = hz[k];

        assert_true(pvclock_msr(p, 0, clock, TIME, true, &where));
        assert_true(info().mult >> 31); /* all bits are in use */
        second = info().shift < 0 ? second >> -info().shift : second << info().shift;
        second = (uint64_t)((unsigned __int128)second * info().mult >> 32);
        assert_in_range(second, 999999990, 1000000000);
        pvclock_free(p);
        vclock_free(clock);
    }
}

static uint64_t now_of(void *arg) {
    return r.now;
}

static uint64_t ticks_of(void *arg) {
    return 2 * r.now;
}

/* The page is written anew when the TSC is set, and time goes on as it was. */
static void test_tsc_set(void **state) {
    uint32_t version;

    wrmsr(TIME_OLD, PAGE | 1);
    version = info().version;
    rig_pass(&r, 1000000);
    assert_int_equal(info().version, version);
    vclock_tsc_set(r.clock, 77);
    pvclock_tsc_changed(pvclock, 0, r.clock);
    assert_int_equal(info().version, version + 2);
    assert_in_range(system_time(), 999990, 1000000);
    rig_pass(&r, 1000000);
    assert_in_range(system_time(), 1999990, 2000000);
    assert_int_equal(r.cnt.pvclock_updates, 2);
}

/* Two CPUs that ask at different times, with TSCs of their own, see one time. */
static void test_two_cpus(void **state) {
    const struct vclock_source src = {
        .now_ns = now_of, .ticks = ticks_of, .tick_hz = RIG_TSC_HZ};
    struct vclock *other = vclock_new(&src);
    uint64_t value = PAGE | 1;
    struct time_info first;

    vclock_tsc_set(other, 1ull << 40);
    rig_pass(&r, 12345);
    wrmsr(TIME, PAGE | 1);
    first = info();
    rig_pass(&r, 67890);
    assert_true(pvclock_msr(pvclock, 1, other, TIME, true, &value));
    assert_int_equal(info().system_time, first.system_time);
    assert_int_equal(info().tsc - first.tsc, vclock_tsc(other) - vclock_tsc(r.clock));
    assert_int_equal(info().version, first.version);
    assert_int_equal(rdmsr(TIME), PAGE | 1);
    vclock_free(other);
}

/* Bit 0 is what enables it. */
static void test_disabled(void **state) {
    wrmsr(TIME, PAGE);
    assert_int_equal(info().version, 0);
    wrmsr(TIME, PAGE | 1);
    wrmsr(TIME, 0);
    pvclock_tsc_changed(pvclock, 0, r.clock);
    assert_int_equal(info().version, 2);
    assert_int_equal(r.cnt.pvclock_updates, 1);
}

/* The time of day at which system time was 0; each write tells it once more. */
static void test_wall_clock(void **state) {
    uint32_t w[3], version = 0x12345;

    assert_true(mem_write(mem, gpa(PAGE), &version, 4));
    rig_pass(&r, 2500000000);
    for (unsigned k = 0; k < 2; k++) {
        uint32_t last = version;

        wrmsr(k ? WALL_OLD : WALL, PAGE);
        assert_int_equal(rdmsr(k ? WALL : WALL_OLD), PAGE);
        assert_true(mem_read(mem, gpa(PAGE), w, sizeof(w)));
        assert_int_equal(w[0] & 1, 0);
        assert_true(w[0] > last);
        assert_int_equal(w[1], k ? 1700000002 : 1700000000);
        assert_int_equal(w[2], k ? 750000000 : 0);
        assert_int_equal(r.cnt.pvclock_updates, k + 1);
        version = w[0];
        rig_pass(&r, 250000000);
        pvclock_reset(pvclock); /* system time begins after 2.75 seconds */
        rig_pass(&r, 1000000000);
    }
}

/* What is no memory is not written, and harms nobody. */
static void test_no_memory(void **state) {
    static const uint64_t at[] = {MEM_MIN_RAM, MEM_MIN_RAM - 8, ~0ull, 1ull << 63,
                                  0xfee00000};

    for (size_t k = 0; k < sizeof(at) / sizeof(*at); k++) {
        wrmsr(TIME, at[k] | 1);
        wrmsr(WALL, at[k]);
        pvclock_tsc_changed(pvclock, 0, r.clock);
    }
    assert_int_equal(r.cnt.pvclock_updates, 0);
    assert_int_equal(rdmsr(WALL), 0xfee00000);
}

static void test_numbers(void **state) {
    uint64_t value = 0;

    assert_true(pvclock_owns_msr(WALL) && pvclock_owns_msr(TIME));
    assert_true(pvclock_owns_msr(WALL_OLD) && pvclock_owns_msr(TIME_OLD));
    assert_false(pvclock_owns_msr(0x10) || pvclock_owns_msr(0x13));
    assert_false(pvclock_owns_msr(TIME + 1) || pvclock_owns_msr(WALL - 1));
    assert_false(pvclock_msr(pvclock, 0, r.clock, TIME + 1, false, &value));
}

/* Time begins again, and the page is not ours any more. */
static void test_reset(void **state) {
    wrmsr(TIME, PAGE | 1);
    wrmsr(WALL, PAGE + 64);
    rig_pass(&r, 1000000000);
    pvclock_reset(pvclock);
    assert_int_equal(rdmsr(TIME), 0);
    assert_int_equal(rdmsr(WALL), 0);
    pvclock_tsc_changed(pvclock, 0, r.clock);
    assert_int_equal(info().system_time, 0);
    rig_pass(&r, 3000);
    wrmsr(TIME, PAGE | 1);
    assert_in_range(system_time(), 2999, 3000);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_system_time), T(test_scale),    T(test_tsc_set),
        T(test_two_cpus),    T(test_disabled), T(test_wall_clock),
        T(test_no_memory),   T(test_numbers),  T(test_reset),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
