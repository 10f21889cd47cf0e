/*
 * Many local APICs: whom each kind of destination names, what each kind of message does
 * to them, and what other threads post. Intel SDM volume 3, "Determining IPI
 * Destination".
 */
#include "base/os.h"
#include "dev/apic/apics.h"
#include "lib/rig.h"
#include "lib/unit.h"

#define COUNT 20u
enum { ID = 0x20, TPR = 0x80, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0 };
enum { IRR = 0x200, TMR = 0x180, ICR = 0x300, ICR_HIGH = 0x310 };
enum { APIC_BASE_MSR = 0x1b, X2_ICR = 0x830, X2_SELF = 0x83f, X2_LDR = 0x80d };
enum { SELF = 0x40000, ALL = 0x80000, OTHERS = 0xc0000, LOGICAL = 0x800 };

static struct rig r;
static struct apics all;
static struct host {
    bool intr, nmi, init;
    unsigned sipi, looks;
} host[COUNT];

static void on_output(void *arg, bool pending) {
    ((struct host *)arg)->intr = pending;
}

static void on_send(void *arg, const struct apic_msg *m, enum apic_to to) {
    apics_deliver(&all, m, to, all.lapic[(struct host *)arg - host]);
}

static void on_look(void *arg) {
    __atomic_add_fetch(&((struct host *)arg)->looks, 1, __ATOMIC_SEQ_CST);
}

static void on_nmi(void *arg, bool mine) {
    ((struct host *)arg)->nmi = true;
}

static void on_init(void *arg, bool mine) {
    ((struct host *)arg)->init = true;
}

static void on_sipi(void *arg, uint8_t vector, bool mine) {
    ((struct host *)arg)->sipi = vector;
}

static void put(unsigned n, unsigned reg, uint32_t value) {
    lapic_write(all.lapic[n], reg, 4, value);
}

static uint32_t get(unsigned n, unsigned reg) {
    return (uint32_t)lapic_read(all.lapic[n], reg, 4);
}

static bool wrmsr(unsigned n, uint32_t msr, uint64_t value) {
    return lapic_msr(all.lapic[n], msr, true, &value);
}

static int setup(void **state) {
    struct lapic_host h = {.output = on_output,
                           .send = on_send,
                           .look = on_look,
                           .nmi = on_nmi,
                           .init = on_init,
                           .sipi = on_sipi};

    rig_new(&r);
    memset(host, 0, sizeof(host));
    all = (struct apics){.count = COUNT};
    for (unsigned n = 0; n < COUNT; n++) {
        h.arg = &host[n];
        all.lapic[n] = lapic_new(n, r.clock, &h, &r.cnt);
        if (!all.lapic[n])
            return -1;
        put(n, SVR, 0x1ff);
    }
    return 0;
}

static int teardown(void **state) {
    for (unsigned n = 0; n < COUNT; n++)
        lapic_free(all.lapic[n]);
    rig_free(&r);
    return 0;
}

/* Who has vector V, a bit for each; it is taken from them. */
static uint32_t who(unsigned v) {
    uint32_t set = 0;

    for (unsigned n = 0; n < COUNT; n++) {
        lapic_settle(all.lapic[n]);
        if (!host[n].intr)
            continue;
        assert_int_equal(lapic_ack(all.lapic[n]), (int)v);
        put(n, EOI, 0);
        assert_false(host[n].intr);
        set |= 1u << n;
    }
    return set;
}

#define EVERY ((1u << COUNT) - 1)

static uint32_t send(unsigned from, uint8_t dest, uint32_t icr) {
    put(from, ICR_HIGH, (uint32_t)dest << 24);
    put(from, ICR, icr);
    return who(icr & 0xff);
}

static void test_ids(void **state) {
    for (unsigned n = 0; n < COUNT; n++)
        assert_int_equal(get(n, ID), n << 24);
}

static void test_physical(void **state) {
    for (unsigned n = 0; n < COUNT; n++)
        assert_int_equal(send(3, (uint8_t)n, 0x40 + n), 1u << n);
    assert_int_equal(send(3, COUNT, 0x60), 0);
    assert_int_equal(send(3, 0xff, 0x61), EVERY);
}

static void test_shorthands(void **state) {
    assert_int_equal(send(5, 7, SELF | 0x40), 1u << 5);
    assert_int_equal(send(5, 7, ALL | 0x41), EVERY);
    assert_int_equal(send(5, 7, OTHERS | 0x42), EVERY & ~(1u << 5));
}

/* The flat model: a bit for each of eight. */
static void test_flat(void **state) {
    for (unsigned n = 0; n < 8; n++)
        put(n, LDR, 1u << (24 + n));
    assert_int_equal(send(0, 0x01, LOGICAL | 0x40), 0x01);
    assert_int_equal(send(0, 0xa5, LOGICAL | 0x41), 0xa5);
    assert_int_equal(send(0, 0xff, LOGICAL | 0x42), 0xff);
    assert_int_equal(send(0, 0, LOGICAL | 0x43), 0);
}

/* The cluster model: sixteen clusters of four, and 15 is all of them. */
static void test_cluster(void **state) {
    for (unsigned n = 0; n < COUNT; n++) {
        put(n, DFR, 0x0fffffff);
        put(n, LDR, ((n / 4) << 4 | 1u << n % 4) << 24);
    }
    assert_int_equal(send(0, 0x01, LOGICAL | 0x40), 1u << 0);
    assert_int_equal(send(0, 0x2a, LOGICAL | 0x41), 0xau << 8);
    assert_int_equal(send(0, 0x4f, LOGICAL | 0x42), 0xfu << 16);
    assert_int_equal(send(0, 0xf1, LOGICAL | 0x43), 0x11111);
    assert_int_equal(send(0, 0x51, LOGICAL | 0x44), 0);
}

/* x2APIC: IDs of 32 bits, clusters of sixteen, broadcasts of both widths. */
static void test_x2apic(void **state) {
    uint64_t ldr;

    for (unsigned n = 0; n < COUNT; n++)
        assert_true(wrmsr(n, APIC_BASE_MSR, LAPIC_BASE | 0xc00 | (n ? 0 : 0x100)));
    for (unsigned n = 0; n < COUNT; n++) {
        assert_true(lapic_msr(all.lapic[n], X2_LDR, false, &ldr));
        assert_int_equal(ldr, (n / 16) << 16 | 1u << n % 16);
        wrmsr(2, X2_ICR, (uint64_t)n << 32 | 0x40);
        assert_int_equal(who(0x40), 1u << n);
    }
    wrmsr(2, X2_ICR, 0xffffffffull << 32 | 0x41);
    assert_int_equal(who(0x41), EVERY);
    wrmsr(2, X2_ICR, 0x0001000aull << 32 | LOGICAL | 0x42);
    assert_int_equal(who(0x42), 0xau << 16);
    wrmsr(2, X2_ICR, 0xffffffffull << 32 | LOGICAL | 0x43);
    assert_int_equal(who(0x43), EVERY);
    wrmsr(2, X2_ICR, 0x00ffull << 32 | LOGICAL | 0x44);
    assert_int_equal(who(0x44), 0xff);
    wrmsr(2, X2_SELF, 0x45);
    assert_int_equal(who(0x45), 1u << 2);
    wrmsr(2, X2_ICR, OTHERS | 0x46);
    assert_int_equal(who(0x46), EVERY & ~(1u << 2));
    /* INIT leaves the mode, and with it the logical ID. */
    lapic_init(all.lapic[17]);
    assert_true(lapic_msr(all.lapic[17], X2_LDR, false, &ldr));
    assert_int_equal(ldr, 0x10002);
}

/* Messages of the I/O APIC and of devices have 8 bits, whatever the local APICs' mode. */
static void test_messages(void **state) {
    struct apic_msg m = {.vector = 0x50, .dest = 0xff};

    assert_true(apics_deliver(&all, &m, APIC_TO_DEST, NULL));
    assert_int_equal(who(0x50), EVERY);
    m.dest = 4;
    assert_true(apics_deliver(&all, &m, APIC_TO_DEST, NULL));
    assert_int_equal(who(0x50), 1u << 4);
    m.dest = COUNT;
    assert_false(apics_deliver(&all, &m, APIC_TO_DEST, NULL));
    put(4, SVR, 0xff); /* disabled by software */
    m.dest = 4;
    assert_false(apics_deliver(&all, &m, APIC_TO_DEST, NULL));
    m.level = true;
    m.dest = 6;
    assert_true(apics_deliver(&all, &m, APIC_TO_DEST, NULL));
    assert_int_equal(get(6, IRR + 0x20), 1u << 16);
    assert_int_equal(get(6, TMR + 0x20), 1u << 16);
}

/* The one with the lowest priority; among equals each in turn; none that is disabled. */
static void test_lowest(void **state) {
    uint32_t seen = 0;

    for (unsigned n = 0; n < COUNT; n++)
        put(n, TPR, n == 13 ? 0x10 : 0x20);
    assert_int_equal(send(0, 0xff, APIC_LOWEST << 8 | 0x40), 1u << 13);
    put(13, SVR, 0xff);
    for (unsigned n = 0; n < COUNT - 1; n++) {
        uint32_t one = send(0, 0xff, APIC_LOWEST << 8 | 0x41);

        assert_int_equal(__builtin_popcount(one), 1);
        assert_int_equal(seen & one, 0);
        seen |= one;
    }
    assert_int_equal(seen, EVERY & ~(1u << 13));
    assert_int_equal(send(0, 13, APIC_LOWEST << 8 | 0x42), 0);
}

static void test_start(void **state) {
    put(0, ICR, OTHERS | 0x4500); /* INIT */
    put(0, ICR_HIGH, 9u << 24);
    put(0, ICR, 0x4600 | 0x9a); /* SIPI */
    put(0, ICR_HIGH, 10u << 24);
    put(0, ICR, 0x4400); /* NMI */
    for (unsigned n = 0; n < COUNT; n++) {
        assert_int_equal(host[n].init, n != 0);
        assert_int_equal(host[n].sipi, n == 9 ? 0x9a : 0);
        assert_int_equal(host[n].nmi, n == 10);
    }
}

/* What is posted and held back by the priorities is no interrupt, and none is lost. */
static void test_held_back(void **state) {
    put(1, TPR, 0x50);
    put(0, ICR_HIGH, 1u << 24);
    put(0, ICR, 0x45);
    assert_int_equal(host[1].looks, 1);
    assert_int_equal(lapic_ack(all.lapic[1]), -1);
    assert_false(host[1].intr);
    put(1, TPR, 0x30);
    assert_true(host[1].intr);
    assert_int_equal(lapic_ack(all.lapic[1]), 0x45);
    /* Taken before it was told to look: the look finds nothing, and takes that back. */
    put(1, EOI, 0);
    put(0, ICR, 0x46);
    assert_int_equal(lapic_ack(all.lapic[1]), 0x46);
    put(1, EOI, 0);
    host[1].intr = true;
    assert_int_equal(lapic_ack(all.lapic[1]), -1);
    assert_false(host[1].intr);
}

/* --- a storm: each vector that is sent is taken, however often it was sent --- */

#define ROUNDS 20000u
static unsigned sent; /* the number of the round; the vector follows from it */
static unsigned got;

static void storm(void *arg) {
    const struct apic_msg m[2] = {{.vector = 0x40, .dest = 2},
                                  {.vector = 0x90, .dest = 2}};

    for (unsigned n = 1; n <= ROUNDS; n++) {
        __atomic_store_n(&sent, n, __ATOMIC_SEQ_CST);
        apics_deliver(&all, &m[n & 1], APIC_TO_DEST, NULL);
        while (__atomic_load_n(&got, __ATOMIC_SEQ_CST) != n)
            __builtin_ia32_pause();
    }
}

static void test_storm(void **state) {
    struct os_thread *t;

    assert_int_equal(os_thread_start(OS_THREAD_WORKER, storm, NULL, &t), 0);
    while (got != ROUNDS) {
        int v = lapic_ack(all.lapic[2]);

        if (v < 0)
            continue;
        assert_int_equal(v, sent & 1 ? 0x90 : 0x40);
        put(2, EOI, 0);
        __atomic_store_n(&got, got + 1, __ATOMIC_SEQ_CST);
    }
    os_thread_join(t);
    assert_int_equal(lapic_ack(all.lapic[2]), -1);
    assert_int_equal(host[2].looks, ROUNDS);
}

/* --- CPU 1 comes and goes while messages are for it or CPU 0: one of them takes each ---
 */

static bool over;

static void come_and_go(void *arg) {
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        put(1, SVR, 0xff);
        put(1, SVR, 0x1ff);
    }
}

static void test_one_goes(void **state) {
    const struct apic_msg m = {
        .vector = 0x40, .mode = APIC_LOWEST, .logical = true, .dest = 3};
    struct os_thread *t;
    unsigned lost = 0;

    put(0, LDR, 1u << 24);
    put(1, LDR, 2u << 24);
    put(0, TPR, 0x20);
    over = false;
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, come_and_go, NULL, &t), 0);
    for (unsigned n = 0; n < 50 * ROUNDS; n++)
        lost += !apics_deliver(&all, &m, APIC_TO_DEST, all.lapic[0]);
    __atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
    os_thread_join(t);
    assert_int_equal(lost, 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_ids),     T(test_physical),  T(test_shorthands), T(test_flat),
        T(test_cluster), T(test_x2apic),    T(test_messages),   T(test_lowest),
        T(test_start),   T(test_held_back), T(test_storm),      T(test_one_goes),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
