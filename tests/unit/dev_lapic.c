/*
 * The local APIC by itself: priorities, the timer's modes, the local vector table,
 * destinations, errors, x2APIC. Intel SDM volume 3, "Advanced Programmable Interrupt
 * Controller (APIC)".
 */
#include "dev/apic/apics.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_THERMAL = 0x330,
    LVT_PERF = 0x340,
    LVT_LINT0 = 0x350,
    LVT_LINT1 = 0x360,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0,
};
enum { APIC_BASE_MSR = 0x1b, DEADLINE_MSR = 0x6e0, X2 = 0x800 };
enum { MASKED = 0x10000, PERIODIC = 0x20000, TSC_DEADLINE = 0x40000, LEVEL = 0x8000 };
enum { SELF = 0x40000, ALL = 0x80000, OTHERS = 0xc0000 }; /* the ICR's shorthands */
enum { BY_1 = 0xb };

static struct rig r;
static struct lapic *lapic;
static bool intr;
static unsigned nmis, inits, sipis, looks, eois;
static uint8_t last_eoi;

static void on_output(void *arg, bool pending) {
    intr = pending;
}

static void on_nmi(void *arg, bool mine) {
    nmis++;
}

static void on_init(void *arg, bool mine) {
    inits++;
}

static void on_sipi(void *arg, uint8_t vector, bool mine) {
    sipis++;
}

static void on_look(void *arg) {
    looks++;
}

/* There is this one only. */
static void on_send(void *arg, const struct apic_msg *m, enum apic_to to) {
    struct apics all = {.lapic = {lapic}, .count = 1};

    apics_deliver(&all, m, to, lapic);
}

static int on_extint(void *arg) {
    return 0x99;
}

static void on_eoi(void *arg, uint8_t vector) {
    eois++;
    last_eoi = vector;
}

static int setup(void **state) {
    const struct lapic_host host = {.output = on_output,
                                    .extint_ack = on_extint,
                                    .eoi = on_eoi,
                                    .send = on_send,
                                    .look = on_look,
                                    .nmi = on_nmi,
                                    .init = on_init,
                                    .sipi = on_sipi};

    rig_new(&r);
    intr = false;
    nmis = inits = sipis = looks = eois = 0;
    lapic = lapic_new(0, r.clock, &host, &r.cnt);
    return lapic ? 0 : -1;
}

static int teardown(void **state) {
    lapic_free(lapic);
    rig_free(&r);
    return 0;
}

static uint32_t get(unsigned reg) {
    return lapic_page(lapic, gpa(LAPIC_BASE)) ? (uint32_t)lapic_read(lapic, reg, 4) : ~0u;
}

static void put(unsigned reg, uint32_t value) {
    lapic_write(lapic, reg, 4, value);
}

static bool wrmsr(uint32_t msr, uint64_t value) {
    return lapic_msr(lapic, msr, true, &value);
}

static uint64_t rdmsr(uint32_t msr) {
    uint64_t value = 0;

    assert_true(lapic_msr(lapic, msr, false, &value));
    return value;
}

static bool deliver(uint8_t vector, unsigned mode, bool logical, uint32_t dest) {
    const struct apic_msg m = {
        .vector = vector, .mode = (uint8_t)mode, .logical = logical, .dest = dest};

    return lapic_addressed(lapic, &m) && lapic_deliver(lapic, &m, true);
}

/* The state that Intel's manual gives after a reset, and what firmware adds. */
static void test_reset(void **state) {
    assert_int_equal(get(ID), 0);
    assert_int_equal(get(VERSION) & 0xff, 0x14);
    assert_int_equal(get(VERSION) >> 16, 5); /* entries of the LVT, less one */
    assert_int_equal(get(TPR), 0);
    assert_int_equal(get(LDR), 0);
    assert_int_equal(get(DFR), 0xffffffff);
    assert_int_equal(get(SVR), 0x1ff);
    assert_int_equal(get(LVT_TIMER), MASKED);
    assert_int_equal(get(LVT_ERROR), MASKED);
    assert_int_equal(get(LVT_LINT0), 0x700);
    assert_int_equal(get(LVT_LINT1), 0x400);
    assert_int_equal(get(CURRENT), 0);
    assert_int_equal(rdmsr(APIC_BASE_MSR), 0xfee00900);
    put(TPR, 0x55);
    put(ICR, SELF | 0x80);
    put(LVT_TIMER, 0x30);
    put(DIVIDE, 3);
    put(INITIAL, 1000);
    put(LDR, 0x12000000);
    lapic_ack(lapic);
    put(ICR, SELF | 0x90);
    deliver(0, APIC_EXTINT, false, 0);
    put(ICR, SELF | 1); /* an error */
    lapic_reset(lapic);
    assert_false(intr);
    assert_int_equal(lapic_ack(lapic), -1);
    assert_int_equal(get(LDR), 0);
    assert_int_equal(get(ICR), 0);
    assert_int_equal(get(INITIAL), 0);
    assert_int_equal(get(DIVIDE), 0);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0);
    assert_int_equal(get(TPR), 0);
    assert_int_equal(get(ISR + 0x40), 0);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    assert_false(intr);
}

/* A class lets higher classes through. IRR, ISR, PPR and EOI follow. */
static void test_priorities(void **state) {
    put(ICR, SELF | 0x45);
    put(ICR, SELF | 0x52);
    put(ICR, SELF | 0x5f);
    assert_int_equal(get(IRR + 0x20), 1u << 5 | 1u << 18 | 1u << 31);
    assert_int_equal(lapic_ack(lapic), 0x5f);
    assert_int_equal(get(ISR + 0x20), 1u << 31);
    assert_int_equal(get(PPR), 0x50);
    assert_int_equal(lapic_ack(lapic), -1); /* 0x52 is of the same class */
    put(ICR, SELF | 0x60);
    assert_int_equal(lapic_ack(lapic), 0x60);
    assert_int_equal(get(PPR), 0x60);
    put(EOI, 0);
    assert_int_equal(get(PPR), 0x50);
    assert_false(intr);
    put(EOI, 0);
    assert_int_equal(lapic_ack(lapic), 0x52);
    put(EOI, 0);
    assert_int_equal(lapic_ack(lapic), 0x45);
    put(EOI, 0);
    put(EOI, 0); /* of nothing */
    assert_int_equal(get(PPR), 0);
    assert_int_equal(lapic_ack(lapic), -1);
    assert_int_equal(eois, 0); /* edges are nobody else's */
    assert_int_equal(r.cnt.lapic_eoi, 5);
    assert_int_equal(r.cnt.irq_lapic, 4);
    assert_int_equal(r.cnt.irq_ipi, 4);
}

/* The least and the greatest vector, by each register. */
static void test_vectors(void **state) {
    const struct apic_msg level = {.vector = 0xff, .mode = APIC_FIXED, .level = true};

    put(ICR, SELF | 0x10);
    assert_true(deliver(0x11, APIC_FIXED, false, 0));
    assert_true(lapic_deliver(lapic, &level, true));
    assert_int_equal(get(IRR), 3u << 16);
    assert_int_equal(get(IRR + 0x70), 1u << 31);
    assert_int_equal(get(TMR + 0x70), 1u << 31);
    assert_int_equal(lapic_ack(lapic), 0xff);
    assert_int_equal(get(ISR + 0x70), 1u << 31);
    put(EOI, 0);
    assert_int_equal(last_eoi, 0xff);
    assert_int_equal(lapic_ack(lapic), 0x11);
    put(EOI, 0);
    assert_int_equal(lapic_ack(lapic), 0x10);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0);
}

/* The task's priority, by MMIO and as CR8; PPR is the greater of the two. */
static void test_task_priority(void **state) {
    put(ICR, SELF | 0x45);
    put(TPR, 0x4f);
    assert_false(intr);
    assert_int_equal(get(PPR), 0x4f);
    assert_int_equal(lapic_cr8(lapic), 4);
    put(TPR, 0x3f);
    assert_true(intr);
    lapic_cr8_set(lapic, 4);
    assert_false(intr);
    assert_int_equal(get(TPR), 0x40);
    lapic_cr8_set(lapic, 3);
    assert_int_equal(get(TPR), 0x30);
    assert_int_equal(lapic_ack(lapic), 0x45);
    assert_int_equal(get(PPR), 0x40);
    put(TPR, 0x41);
    assert_int_equal(get(PPR), 0x41);
    put(TPR, 0x171); /* eight bits */
    assert_int_equal(get(TPR), 0x71);
}

static void test_periodic(void **state) {
    put(LVT_TIMER, PERIODIC | 0x40);
    put(DIVIDE, BY_1);
    put(INITIAL, 1000000);
    rig_pass(&r, 999999);
    assert_false(intr);
    assert_in_range(get(CURRENT), 0, 2);
    rig_pass(&r, 1);
    assert_int_equal(lapic_ack(lapic), 0x40);
    rig_pass(&r, 1000000);
    assert_false(intr); /* the first is in service */
    put(EOI, 0);
    assert_int_equal(lapic_ack(lapic), 0x40);
    put(EOI, 0);
    r.now += 10500000; /* late: one, then on in the old grid */
    vclock_run(r.clock);
    assert_int_equal(lapic_ack(lapic), 0x40);
    put(EOI, 0);
    rig_pass(&r, 499999);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_true(intr);
    assert_int_equal(r.cnt.irq_timer_lapic, 4);
    put(INITIAL, 0); /* the end of it */
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    put(INITIAL, 1); /* shorter than it can run at */
    lapic_ack(lapic);
    put(EOI, 0);
    rig_pass(&r, LAPIC_MIN_PERIOD_NS - 1);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_true(intr);
}

static void test_one_shot(void **state) {
    put(LVT_TIMER, 0x40);
    put(DIVIDE, BY_1);
    put(INITIAL, 5000);
    rig_pass(&r, 1234);
    assert_int_equal(get(CURRENT), 3766);
    assert_int_equal(get(INITIAL), 5000);
    rig_pass(&r, 3766);
    assert_int_equal(lapic_ack(lapic), 0x40);
    assert_int_equal(get(CURRENT), 0);
    put(EOI, 0);
    rig_pass(&r, 100000);
    assert_false(intr);
    put(INITIAL, 5000);
    put(INITIAL, 8000); /* begins again */
    rig_pass(&r, 7999);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_true(intr);
}

/* 2, 4, ... 128, 1; and a divider that changes on the way. */
static void test_divider(void **state) {
    static const uint8_t codes[] = {BY_1, 0, 1, 2, 3, 8, 9, 10};

    put(LVT_TIMER, 0x40);
    for (unsigned k = 0; k < 8; k++) {
        put(DIVIDE, codes[k]);
        assert_int_equal(get(DIVIDE), codes[k]);
        put(INITIAL, 1000);
        rig_pass(&r, (1000u << k) - 1);
        assert_false(intr);
        rig_pass(&r, 1);
        assert_int_equal(lapic_ack(lapic), 0x40);
        put(EOI, 0);
    }
    put(LVT_TIMER, PERIODIC | 0x40);
    put(DIVIDE, 1); /* by 4 */
    put(INITIAL, 10000);
    for (unsigned k = 0; k < 3; k++) {
        rig_pass(&r, 39999);
        assert_false(intr);
        rig_pass(&r, 1);
        assert_int_equal(lapic_ack(lapic), 0x40);
        put(EOI, 0);
    }
    put(LVT_TIMER, 0x40);
    put(DIVIDE, 0); /* by 2 */
    put(INITIAL, 1000);
    rig_pass(&r, 800);
    assert_int_equal(get(CURRENT), 600);
    put(DIVIDE, 1); /* by 4 */
    assert_int_equal(get(CURRENT), 600);
    rig_pass(&r, 2399);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_true(intr);
}

/* The TSC has two ticks in a nanosecond here. */
static void test_deadline(void **state) {
    put(LVT_TIMER, TSC_DEADLINE | 0x50);
    put(INITIAL, 1000); /* not in this mode */
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000000));
    rig_pass(&r, 999999);
    assert_false(intr);
    assert_true(rdmsr(DEADLINE_MSR) != 0);
    rig_pass(&r, 1);
    assert_int_equal(lapic_ack(lapic), 0x50);
    assert_int_equal(rdmsr(DEADLINE_MSR), 0);
    assert_int_equal(r.cnt.irq_timer_lapic, 1);
    put(EOI, 0);
    assert_true(wrmsr(DEADLINE_MSR, 1)); /* long ago: at once */
    rig_pass(&r, 0);
    assert_int_equal(lapic_ack(lapic), 0x50);
    put(EOI, 0);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000));
    assert_true(wrmsr(DEADLINE_MSR, 0)); /* disarmed */
    rig_pass(&r, 10000);
    assert_false(intr);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000));
    put(LVT_TIMER, 0x50); /* another mode disarms */
    rig_pass(&r, 10000);
    assert_false(intr);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000)); /* ignored */
    assert_int_equal(rdmsr(DEADLINE_MSR), 0);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
}

/* The deadline is the guest's TSC's, wherever that is set. */
static void test_deadline_moves(void **state) {
    put(LVT_TIMER, TSC_DEADLINE | 0x50);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000));
    vclock_tsc_set(r.clock, vclock_tsc(r.clock) - 8000);
    lapic_tsc_changed(lapic);
    rig_pass(&r, 4999);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_int_equal(lapic_ack(lapic), 0x50);
    put(EOI, 0);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 8000)); /* and forward */
    vclock_tsc_set(r.clock, vclock_tsc(r.clock) + 6000);
    lapic_tsc_changed(lapic);
    rig_pass(&r, 999);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_int_equal(lapic_ack(lapic), 0x50);
    put(EOI, 0);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000));
    vclock_tsc_set(r.clock, vclock_tsc(r.clock) - 2000); /* nobody says so */
    rig_pass(&r, 1999);
    assert_false(intr);
    rig_pass(&r, 1);
    assert_int_equal(lapic_ack(lapic), 0x50);
    put(EOI, 0);
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000));
    r.now += 5000; /* late: the next one does not take it away */
    assert_true(wrmsr(DEADLINE_MSR, vclock_tsc(r.clock) + 2000));
    assert_int_equal(lapic_ack(lapic), 0x50);
    put(LVT_TIMER, 0x50);
    assert_int_equal(get(INITIAL), 0);
    put(LVT_TIMER, TSC_DEADLINE | 0x50);
    assert_int_equal(rdmsr(DEADLINE_MSR), 0);
}

/* A timer that has ended, but was not run yet because the clock's alarm is late, has
 * ended all the same: under the settings of its time. */
static void test_timer_late(void **state) {
    put(DIVIDE, BY_1);
    put(LVT_TIMER, MASKED | 0x40); /* one-shot */
    put(INITIAL, 1000);
    r.now += 2000;
    assert_int_equal(get(CURRENT), 0);
    put(LVT_TIMER, 0x40); /* too late for the one that was masked */
    rig_pass(&r, 10000);
    assert_false(intr);
    put(INITIAL, 1000);
    r.now += 2000;
    put(LVT_TIMER, MASKED | 0x40);
    assert_true(intr); /* masked after its time */
    assert_int_equal(lapic_ack(lapic), 0x40);
    put(EOI, 0);
    put(LVT_TIMER, 0x40);
    put(INITIAL, 1000);
    r.now += 2000;
    put(INITIAL, 1000); /* the next one does not take the first one's interrupt away */
    assert_int_equal(lapic_ack(lapic), 0x40);
    put(EOI, 0);
    rig_pass(&r, 1000);
    assert_int_equal(lapic_ack(lapic), 0x40);
    put(EOI, 0);
    rig_pass(&r, 10000);
    assert_false(intr);
    put(INITIAL, 1000);
    r.now += 2000;
    assert_int_equal(get(CURRENT), 0); /* seen to have ended: it has */
    assert_true(intr);
}

/* LINT0 as the 8259s' pin, as a plain edge and as a level; and with the APIC off. */
static void test_lint0(void **state) {
    lapic_lint(lapic, 0, true, true);
    assert_true(intr);
    assert_int_equal(lapic_ack(lapic), 0x99);
    assert_int_equal(get(PPR), 0); /* nothing is in service */
    lapic_lint(lapic, 0, false, true);
    assert_false(intr);
    put(LVT_LINT0, MASKED | 0x700);
    lapic_lint(lapic, 0, true, true);
    assert_false(intr);
    lapic_lint(lapic, 0, false, true);
    put(LVT_LINT0, 0x61); /* fixed, edge */
    lapic_lint(lapic, 0, true, true);
    assert_int_equal(lapic_ack(lapic), 0x61);
    put(EOI, 0);
    assert_false(intr);
    assert_int_equal(eois, 0);
    lapic_lint(lapic, 0, false, true);
    put(LVT_LINT0, MASKED | LEVEL | 0x62);
    lapic_lint(lapic, 0, true, true);
    assert_false(intr);
    put(LVT_LINT0, LEVEL | 0x62);                            /* it is high */
    assert_int_equal(get(LVT_LINT0), LEVEL | 0x4000 | 0x62); /* remote IRR */
    assert_int_equal(get(TMR + 0x30), 1u << 2);
    assert_int_equal(lapic_ack(lapic), 0x62);
    assert_false(intr);
    put(EOI, 0); /* still high: once more */
    assert_int_equal(eois, 1);
    assert_int_equal(lapic_ack(lapic), 0x62);
    lapic_lint(lapic, 0, false, true);
    put(EOI, 0);
    assert_false(intr);
    assert_int_equal(get(LVT_LINT0), LEVEL | 0x62);
    put(LVT_LINT0, LEVEL | 0x0f); /* no vector: an error, and it does not wait for EOI */
    lapic_lint(lapic, 0, true, true);
    assert_int_equal(get(LVT_LINT0), LEVEL | 0x0f);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0x40);
    lapic_lint(lapic, 0, false, true);
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE)); /* off: INTR itself */
    lapic_lint(lapic, 0, true, true);
    assert_int_equal(lapic_ack(lapic), 0x99);
}

static void test_lint1(void **state) {
    lapic_lint(lapic, 1, true, true);
    lapic_lint(lapic, 1, true, true);
    assert_int_equal(nmis, 1);
    lapic_lint(lapic, 1, false, true);
    put(LVT_LINT1, MASKED | 0x400);
    lapic_lint(lapic, 1, true, true);
    assert_int_equal(nmis, 1);
    lapic_lint(lapic, 1, false, true);
    put(LVT_LINT1, 0x500); /* INIT */
    lapic_lint(lapic, 1, true, true);
    assert_int_equal(inits, 1);
    lapic_lint(lapic, 1, false, true);
    put(LVT_LINT1, 0x63);
    lapic_lint(lapic, 1, true, true);
    assert_int_equal(lapic_ack(lapic), 0x63);
    lapic_lint(lapic, 1, false, true);
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE));
    lapic_lint(lapic, 1, true, true);
    assert_int_equal(nmis, 2);
    lapic_lint(lapic, 2, true, true); /* no such pin */
    assert_int_equal(nmis, 2);
}

/* Bits that an entry has; while software has the APIC disabled they stay masked. */
static void test_lvt(void **state) {
    static const uint32_t bits[] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

    for (unsigned k = 0; k < 6; k++) {
        put(LVT_TIMER + 16 * k, 0xffffffff);
        assert_int_equal(get(LVT_TIMER + 16 * k), bits[k]);
        put(LVT_TIMER + 16 * k, 0x30);
        assert_int_equal(get(LVT_TIMER + 16 * k), 0x30);
    }
    put(SVR, 0xffffffff & ~0x100u);
    assert_int_equal(get(SVR), 0xff);
    for (unsigned k = 0; k < 6; k++) {
        assert_int_equal(get(LVT_TIMER + 16 * k), MASKED | 0x30);
        put(LVT_TIMER + 16 * k, 0x30);
        assert_int_equal(get(LVT_TIMER + 16 * k), MASKED | 0x30);
    }
}

/* Who is meant: by ID, by everybody's, by either model of logical destination. */
static void test_destinations(void **state) {
    assert_true(deliver(0x41, APIC_FIXED, false, 0));
    assert_false(deliver(0x42, APIC_FIXED, false, 1));
    assert_true(deliver(0x43, APIC_FIXED, false, 0xff));
    assert_false(deliver(0x44, APIC_FIXED, true, 0xff)); /* LDR is 0 */
    put(LDR, 0x04ffffff);
    assert_int_equal(get(LDR), 0x04000000);
    assert_true(deliver(0x44, APIC_FIXED, true, 0x0c));
    assert_false(deliver(0x45, APIC_FIXED, true, 0xfb));
    put(LDR, 0x40000000);
    assert_true(deliver(0x44, APIC_FIXED, true, 0xc0)); /* eight CPUs, no clusters */
    put(DFR, 0);
    assert_int_equal(get(DFR), 0x0fffffff);
    put(LDR, 0x24000000); /* cluster 2, member 2 */
    assert_true(deliver(0x46, APIC_LOWEST, true, 0x26));
    assert_true(deliver(0x47, APIC_FIXED, true, 0xf4));
    assert_false(deliver(0x48, APIC_FIXED, true, 0x2b));
    assert_false(deliver(0x48, APIC_FIXED, true, 0x14));
    assert_int_equal(get(IRR + 0x20), 1u << 1 | 1u << 3 | 1u << 4 | 1u << 6 | 1u << 7);
}

/* What a message can be besides a vector. */
static void test_deliveries(void **state) {
    const struct apic_msg level = {.vector = 0x70, .mode = APIC_FIXED, .level = true};

    assert_true(deliver(0, APIC_NMI, false, 0));
    assert_int_equal(nmis, 1);
    assert_true(deliver(0, APIC_INIT, false, 0));
    assert_int_equal(inits, 1);
    assert_true(deliver(0, APIC_EXTINT, false, 0));
    assert_true(intr);
    assert_int_equal(lapic_ack(lapic), 0x99);
    assert_false(intr);
    assert_true(lapic_deliver(lapic, &level, true));
    assert_int_equal(lapic_ack(lapic), 0x70);
    put(EOI, 0);
    assert_int_equal(eois, 1);
    assert_int_equal(last_eoi, 0x70);
    put(SVR, 0xff); /* disabled by software: NMI goes through, a vector does not */
    assert_false(deliver(0x71, APIC_FIXED, false, 0));
    assert_true(deliver(0, APIC_NMI, false, 0));
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE));
    assert_false(deliver(0, APIC_NMI, false, 0));
    assert_int_equal(nmis, 2);
}

/* Interprocessor interrupts: there is nobody else. */
static void test_icr(void **state) {
    put(ICR_HIGH, 0xffffffff);
    assert_int_equal(get(ICR_HIGH), 0xff000000);
    put(ICR, OTHERS | 0x41);
    assert_false(intr);
    put(ICR, ALL | 0x42);
    assert_int_equal(lapic_ack(lapic), 0x42);
    put(EOI, 0);
    put(ICR, 0x43); /* to ID 0xff: all */
    assert_int_equal(lapic_ack(lapic), 0x43);
    put(EOI, 0);
    put(ICR_HIGH, 1u << 24);
    put(ICR, 0x44);
    assert_false(intr);
    put(ICR_HIGH, 0);
    put(ICR, 0xfff33000 | 0x45); /* reserved bits, and the status, are not kept */
    assert_int_equal(get(ICR), 0x45);
    assert_int_equal(lapic_ack(lapic), 0x45);
    put(ICR, SELF | 0x400); /* NMI */
    assert_int_equal(nmis, 1);
    put(ICR, 0x8500); /* INIT, level de-assert: nothing */
    assert_int_equal(inits, 0);
    put(ICR, 0xc500);
    assert_int_equal(inits, 1);
    put(ICR, SELF | 0x4500); /* not valid combinations */
    put(ICR, ALL | 0x4500);
    put(ICR, SELF | 0x4600);
    put(ICR, ALL | 0x4600);
    assert_int_equal(inits, 1);
    assert_int_equal(sipis, 0);
    put(ICR, 0x4612);
    assert_int_equal(sipis, 1);
}

/* Errors are seen once they have been latched by a write, and raise their entry. */
static void test_errors(void **state) {
    put(LVT_ERROR, 0xfe);
    put(ICR, SELF | 0x0f); /* a vector that cannot be sent */
    assert_int_equal(lapic_ack(lapic), 0xfe);
    put(EOI, 0);
    assert_int_equal(get(ESR), 0);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0x20);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0);
    deliver(0x0f, APIC_FIXED, false, 0); /* one that cannot be received */
    get(0x3f0);                          /* no such register */
    get(0x3f0);
    put(VERSION, 1); /* one that cannot be written */
    put(ESR, 0);
    assert_int_equal(get(ESR), 0xc0);
    assert_int_equal(lapic_ack(lapic), 0xfe);
    put(EOI, 0);
    assert_int_equal(eois, 0); /* an edge */
    put(LVT_ERROR, MASKED | 0xfe);
    put(ICR, SELF | 0x0f);
    assert_false(intr);
    put(LVT_ERROR, 0x0f); /* an entry that is an error itself */
    put(ESR, 0);
    put(ICR, SELF | 0x0e);
    assert_false(intr);
}

/* Registers lie on 16 bytes, of which four are there. */
static void test_windows(void **state) {
    put(TPR, 0x20);
    assert_int_equal(get(TPR + 4), 0);
    assert_int_equal(lapic_read(lapic, VERSION, 8), 0x50014);
    assert_int_equal(lapic_read(lapic, VERSION + 2, 1), 5);
    put(TPR + 4, 0x30);
    lapic_write(lapic, TPR + 1, 1, 0x30);
    assert_int_equal(get(TPR), 0x20);
}

/* APIC_BASE moves the registers and turns the APIC off and on; it knows which bits there
 * are. */
static void test_base(void **state) {
    put(TPR, 0x20);
    assert_true(wrmsr(APIC_BASE_MSR, 0xd0000800)); /* BSP is read-only */
    assert_int_equal(rdmsr(APIC_BASE_MSR), 0xd0000900);
    assert_int_equal(get(TPR), 0xffffffff);
    assert_true(lapic_page(lapic, gpa(0xd0000000 + TPR)));
    assert_false(lapic_page(lapic, gpa(0xd0001000)));
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0x900));
    assert_int_equal(get(TPR), 0x20);
    assert_false(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0x901));
    assert_false(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0xa00));
    assert_false(wrmsr(APIC_BASE_MSR, 1ull << 52 | LAPIC_BASE | 0x900));
    assert_false(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0x400)); /* x2APIC, not enabled */
    put(ICR, SELF | 0x50);
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE));
    assert_false(intr);
    assert_int_equal(get(TPR), 0xffffffff);
    assert_false(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0xc00)); /* not at one go */
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0x900));
    assert_int_equal(get(TPR), 0); /* as after a reset */
    assert_int_equal(get(SVR), 0xff);
}

static void test_x2apic(void **state) {
    uint64_t v;

    assert_false(lapic_msr(lapic, X2 + 2, false, &v)); /* not yet */
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0xd00));
    assert_int_equal(get(VERSION), 0xffffffff);
    assert_int_equal(rdmsr(X2 + 0x0d), 1); /* the logical ID is made of the ID */
    assert_false(wrmsr(X2 + 0x0d, 1));
    assert_false(wrmsr(X2 + 0x08, 0x100));
    assert_true(wrmsr(X2 + 0x08, 0x20));
    assert_int_equal(rdmsr(X2 + 0x08), 0x20);
    assert_true(wrmsr(X2 + 0x3f, 0x77)); /* SELF IPI */
    assert_int_equal(lapic_ack(lapic), 0x77);
    assert_false(lapic_msr(lapic, X2 + 0x3f, false, &v));
    assert_false(lapic_msr(lapic, X2 + 0x0b, false, &v)); /* EOI is write-only */
    assert_false(wrmsr(X2 + 0x0b, 1));
    assert_true(wrmsr(X2 + 0x0b, 0));
    assert_false(lapic_msr(lapic, X2 + 0x0e, false, &v)); /* no DFR, no ICR high */
    assert_false(lapic_msr(lapic, X2 + 0x31, false, &v));
    assert_false(wrmsr(X2 + 0x31, 0));
    assert_true(wrmsr(X2 + 0x30, 0xffffffff00000078)); /* all */
    assert_int_equal(rdmsr(X2 + 0x30), 0xffffffff00000078);
    assert_int_equal(lapic_ack(lapic), 0x78);
    assert_true(wrmsr(X2 + 0x30, 0x0000000100000079));
    assert_int_equal(lapic_ack(lapic), -1);
    assert_true(wrmsr(X2 + 0x0b, 0));
    assert_true(deliver(0x7a, APIC_FIXED, true, 0x00000001));
    assert_false(deliver(0x7b, APIC_FIXED, true, 0x00010001));
    assert_false(deliver(0x7b, APIC_FIXED, true, 0x00000002));
    assert_true(deliver(0x7b, APIC_FIXED, false, 0xff)); /* the I/O APIC's broadcast */
    /* Status bits are ignored, as Linux expects at power off; reserved ones are not. */
    assert_true(wrmsr(X2 + 0x35, 0x5700));
    assert_int_equal(rdmsr(X2 + 0x35), 0x700);
    assert_false(wrmsr(X2 + 0x32, 0x5000)); /* no remote IRR in the timer's entry */
    assert_false(wrmsr(X2 + 0x3e, 4));
    assert_false(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0x900)); /* back by off alone */
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE));
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0x900));
    assert_int_equal(get(SVR), 0xff);
}

/* Which registers of x2APIC can be read: no others. With MMIO these are no error. */
static void test_readable(void **state) {
    static const uint8_t list[] = {0x02, 0x03, 0x08, 0x0a, 0x0d, 0x0f, 0x10, 0x11, 0x12,
                                   0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b,
                                   0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24,
                                   0x25, 0x26, 0x27, 0x28, 0x30, 0x32, 0x33, 0x34, 0x35,
                                   0x36, 0x37, 0x38, 0x39, 0x3e};
    size_t k = 0;

    for (size_t n = 0; n < sizeof(list); n++)
        get(list[n] * 16u);
    get(0x90); /* APR, RRD, DFR and ICR's high half are xAPIC's alone */
    get(0xc0);
    get(DFR);
    get(ICR_HIGH);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0);
    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0xd00));
    for (unsigned n = 0; n < 0x100; n++) {
        uint64_t v = 0;
        bool readable = k < sizeof(list) && list[k] == n;

        assert_int_equal(lapic_msr(lapic, X2 + n, false, &v), readable);
        k += readable;
    }
}

/* What a WRMSR may set in each of them, and that no others can be written. */
static void test_writable(void **state) {
    static const struct {
        uint8_t reg;
        uint64_t bits;
    } list[] = {
        {0x08, 0xff},    {0x0b, 0},       {0x0f, 0x1ff},      {0x28, 0},
        {0x32, 0x710ff}, {0x33, 0x117ff}, {0x34, 0x117ff},    {0x35, 0x1f7ff},
        {0x36, 0x1f7ff}, {0x37, 0x110ff}, {0x38, 0xffffffff}, {0x3e, 0xb},
    };
    size_t k = 0;

    assert_true(wrmsr(APIC_BASE_MSR, LAPIC_BASE | 0xd00));
    for (unsigned n = 0; n < 0x100; n++) {
        if (n == 0x30 || n == 0x3f) /* send */
            continue;
        if (k == sizeof(list) / sizeof(*list) || list[k].reg != n) {
            assert_false(wrmsr(X2 + n, 0));
            continue;
        }
        for (unsigned bit = 0; bit < 64; bit++)
            assert_int_equal(wrmsr(X2 + n, 1ull << bit), list[k].bits >> bit & 1);
        assert_true(wrmsr(X2 + n, 0));
        k++;
    }
    assert_int_equal(k, sizeof(list) / sizeof(*list));
    assert_false(wrmsr(X2 + 0x30, 0x1000));
    assert_false(wrmsr(X2 + 0x3f, 0x100));
}

static void test_owned_msrs(void **state) {
    assert_true(lapic_owns_msr(APIC_BASE_MSR) && lapic_owns_msr(DEADLINE_MSR));
    assert_true(lapic_owns_msr(0x800) && lapic_owns_msr(0x8ff));
    assert_false(lapic_owns_msr(0x7ff) || lapic_owns_msr(0x900) || lapic_owns_msr(0x10));
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_reset),        T(test_priorities),     T(test_vectors),
        T(test_readable),     T(test_writable),       T(test_task_priority),
        T(test_periodic),     T(test_one_shot),       T(test_divider),
        T(test_deadline),     T(test_deadline_moves), T(test_timer_late),
        T(test_lint0),        T(test_lint1),          T(test_lvt),
        T(test_destinations), T(test_deliveries),     T(test_icr),
        T(test_errors),       T(test_windows),        T(test_base),
        T(test_x2apic),       T(test_owned_msrs),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
