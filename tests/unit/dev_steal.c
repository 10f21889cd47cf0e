/*
 * KVM's steal time by itself: the record, who writes what in it and when, and names that
 * are no memory. Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME.
 */
#include "dev/pv/steal.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { PAGE = 0x5000, AT = PAGE + 0x40 };

struct record {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted, pad[47];
};

static struct rig r;
static struct mem *mem;
static struct steal *steal;
static uint64_t waited;
static unsigned asked;

static struct record record(void) {
    struct record s;

    assert_true(mem_read(mem, gpa(AT), &s, sizeof(s)));
    return s;
}

static uint64_t waited_ns(void *arg) {
    asked++;
    return waited;
}

/* A store to the record is about to be made: the version is odd around `steal`. */
static unsigned stores, inside;

static void on_write(void *arg, struct gpa at, unsigned len) {
    stores++;
    if (at.a == AT)
        inside += record().version & 1;
}

static void no_write_entries(void *arg, uint8_t *page) {
}

static int setup(void **state) {
    const struct steal_host host = {.waited_ns = waited_ns};

    rig_new(&r);
    waited = 1000;
    asked = stores = inside = 0;
    if (mem_create(MEM_MIN_RAM, &mem))
        return -1;
    mem_hooks(mem)->drop_write = no_write_entries;
    steal = steal_new(mem, r.clock, &host, &r.cnt);
    return steal ? 0 : -1;
}

static int teardown(void **state) {
    steal_free(steal);
    mem_destroy(mem);
    rig_free(&r);
    return 0;
}

static bool wrmsr(uint64_t value) {
    return steal_msr(steal, true, &value);
}

static uint64_t rdmsr(void) {
    uint64_t value = ~0ull;

    assert_true(steal_msr(steal, false, &value));
    return value;
}

static void test_msr(void **state) {
    assert_int_equal(rdmsr(), 0);
    assert_true(wrmsr(AT | 1));
    assert_int_equal(rdmsr(), AT | 1);
    for (unsigned n = 1; n < 6; n++)
        assert_false(wrmsr(AT | 1 | 1u << n));
    assert_int_equal(rdmsr(), AT | 1);
}

/* It grows by what was waited since, from what the guest has there. */
static void test_grows(void **state) {
    const struct record before = {.steal = 500, .version = 6, .preempted = 1};

    mem_write(mem, gpa(AT), &before, sizeof(before));
    assert_true(wrmsr(AT | 1));
    assert_int_equal(record().steal, 500);
    assert_int_equal(record().version, 8);
    assert_int_equal(record().preempted, 0);
    waited += 70;
    rig_pass(&r, 1000000);
    steal_update(steal);
    assert_int_equal(record().steal, 570);
    assert_int_equal(record().version, 10);
    assert_int_equal(r.cnt.steal_updates, 2);
    waited -= 50; /* no host does that; nothing is given back */
    rig_pass(&r, 1000000);
    steal_update(steal);
    assert_int_equal(record().steal, 570);
}

/* The host is asked once a millisecond at most, and not where there is no record. */
static void test_seldom(void **state) {
    steal_update(steal);
    assert_int_equal(asked, 0);
    wrmsr(AT | 1);
    asked = 0;
    for (unsigned n = 0; n < 100; n++) {
        rig_pass(&r, 100000);
        steal_update(steal);
    }
    assert_in_range(asked, 9, 11);
}

static void test_version(void **state) {
    wrmsr(AT | 1);
    mem_own_trace(mem, MEM_TRACE_DIRTY, on_write, NULL);
    mem_trace_add(mem, mem_host(mem, gpa(PAGE), 1), MEM_TRACE_DIRTY);
    waited += 5;
    rig_pass(&r, 1000000);
    steal_update(steal);
    assert_int_equal(stores, 3);
    assert_int_equal(inside, 1);
    assert_int_equal(record().version & 1, 0);
    /* These honour traces as well. */
    steal_away(steal);
    assert_false(steal_back(steal));
    assert_int_equal(stores, 5);
}

static void test_flush(void **state) {
    uint8_t both = 3, other = 1;

    steal_away(steal);
    assert_false(steal_back(steal));
    assert_int_equal(record().preempted, 0);
    wrmsr(AT | 1);
    steal_away(steal);
    assert_int_equal(record().preempted, 1);
    assert_false(steal_back(steal));
    assert_int_equal(record().preempted, 0);
    steal_away(steal);
    mem_write(mem, gpa(AT + 16), &both, 1);
    assert_true(steal_back(steal));
    assert_int_equal(record().preempted, 0);
    assert_int_equal(r.cnt.steal_flushes, 1);
    steal_away(steal);
    mem_write(mem, gpa(AT + 16), &other, 1);
    assert_false(steal_back(steal));
}

/* Past memory, in ROM, at the end of the address space. */
static void test_no_memory(void **state) {
    static const uint64_t places[] = {MEM_MIN_RAM, MEM_ROM_START, 0xfffffffff000,
                                      0xffffffffffffffc0};

    for (size_t n = 0; n < ARRAY_SIZE(places); n++) {
        assert_true(wrmsr(places[n] | 1));
        rig_pass(&r, 1000000);
        steal_update(steal);
        steal_away(steal);
        assert_false(steal_back(steal));
    }
    assert_int_equal(r.cnt.steal_updates, 0);
    assert_int_equal(mem_exchange(mem, gpa(MEM_ROM_START), 1), -1);
}

static void test_reset(void **state) {
    wrmsr(AT | 1);
    steal_reset(steal);
    assert_int_equal(rdmsr(), 0);
    waited += 1000;
    rig_pass(&r, 1000000);
    steal_update(steal);
    steal_away(steal);
    assert_int_equal(record().steal, 0);
    assert_int_equal(record().preempted, 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_msr),   T(test_grows),     T(test_seldom), T(test_version),
        T(test_flush), T(test_no_memory), T(test_reset),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
