/*
 * The I/O APIC by itself: redirection entries, edges and levels, Remote IRR and how it
 * goes, its windows. Intel 82093AA data sheet, "I/O APIC Registers".
 */
#include "dev/apic/ioapic.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { SELECT = 0, DATA = 0x10, EOI = 0x40 };
enum { R_ID = 0, R_VERSION, R_ARBITRATION, R_ENTRY = 0x10 };
enum { LOGICAL = 0x800, LOW_ACTIVE = 0x2000, REMOTE_IRR = 0x4000, LEVEL = 0x8000 };
enum { MASKED = 0x10000 };

static struct rig r;
static struct ioapic *ioapic;
static struct apic_msg last;
static unsigned sent;
static bool refuse;    /* nobody takes the message */
static bool ends_soon; /* its EOI comes at once */

static bool on_message(void *arg, const struct apic_msg *m) {
    last = *m;
    sent++;
    if (ends_soon && sent < 10)
        ioapic_eoi(ioapic, m->vector);
    return !refuse;
}

static int setup(void **state) {
    rig_new(&r);
    sent = 0;
    refuse = ends_soon = false;
    ioapic = ioapic_new(r.bus, on_message, NULL, &r.cnt);
    return ioapic ? 0 : -1;
}

static int teardown(void **state) {
    ioapic_free(ioapic);
    rig_free(&r);
    return 0;
}

static uint32_t get(unsigned reg) {
    rig_write(&r, IOAPIC_BASE + SELECT, reg);
    return rig_read(&r, IOAPIC_BASE + DATA);
}

static void put(unsigned reg, uint32_t value) {
    rig_write(&r, IOAPIC_BASE + SELECT, reg);
    rig_write(&r, IOAPIC_BASE + DATA, value);
}

/* The low half of PIN's entry. */
static uint32_t entry(unsigned pin) {
    return get(R_ENTRY + 2 * pin);
}

static void set_entry(unsigned pin, uint32_t value) {
    put(R_ENTRY + 2 * pin, value);
}

static void test_registers(void **state) {
    assert_int_equal(get(R_VERSION), (IOAPIC_PINS - 1) << 16 | 0x20);
    put(R_VERSION, 0);
    assert_int_equal(get(R_VERSION), (IOAPIC_PINS - 1) << 16 | 0x20);
    put(R_ID, 0xffffffff);
    assert_int_equal(get(R_ID), 0x0f000000);
    assert_int_equal(get(R_ARBITRATION), 0x0f000000);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(entry(pin), MASKED);
        assert_int_equal(get(R_ENTRY + 2 * pin + 1), 0);
    }
    put(R_ENTRY + 6, 0xffffffff);
    put(R_ENTRY + 7, 0xffffffff);
    assert_int_equal(get(R_ENTRY + 6), 0x1afff); /* the status bits are read-only */
    assert_int_equal(get(R_ENTRY + 7), 0xff000000);
    put(R_ENTRY + 2 * IOAPIC_PINS, 0x31); /* there is no such pin */
    assert_int_equal(get(R_ENTRY + 2 * IOAPIC_PINS), 0);
    assert_int_equal(get(3), 0);
    assert_int_equal(get(0xff), 0);
}

/* What an entry says is what the message says. */
static void test_message(void **state) {
    put(R_ENTRY + 2 * 5 + 1, 0x5a000000);
    set_entry(5, LOGICAL | APIC_LOWEST << 8 | 0x77);
    ioapic_set(ioapic, 5, true);
    assert_int_equal(sent, 1);
    assert_int_equal(last.vector, 0x77);
    assert_int_equal(last.mode, APIC_LOWEST);
    assert_true(last.logical);
    assert_false(last.level);
    assert_int_equal(last.dest, 0x5a);
    assert_int_equal(r.cnt.irq_ioapic, 1);
    ioapic_set(ioapic, 24, true); /* no such pin */
    assert_int_equal(sent, 1);
    put(R_ENTRY + 2 * 5 + 1, 0xa5000000); /* the other half stays */
    assert_int_equal(entry(5), LOGICAL | APIC_LOWEST << 8 | 0x77);
    set_entry(5, 0x78);
    assert_int_equal(get(R_ENTRY + 2 * 5 + 1), 0xa5000000);
    ioapic_set(ioapic, 5, false);
    ioapic_set(ioapic, 5, true);
    assert_false(last.logical);
    assert_int_equal(last.dest, 0xa5);
}

/* Edges: a rise is a message, but while the pin is masked, when it is lost. */
static void test_edges(void **state) {
    ioapic_set(ioapic, 4, true);
    set_entry(4, 0x41);
    assert_int_equal(sent, 0);
    ioapic_set(ioapic, 4, true);
    assert_int_equal(sent, 0);
    ioapic_set(ioapic, 4, false);
    ioapic_set(ioapic, 4, true);
    assert_int_equal(sent, 1);
    assert_int_equal(entry(4), 0x41);
    ioapic_set(ioapic, 4, false);
    ioapic_set(ioapic, 4, true); /* no EOI is needed */
    assert_int_equal(sent, 2);
}

/* Levels: one message until the EOI, and another one if the pin is still high. */
static void test_levels(void **state) {
    ioapic_set(ioapic, 9, true);
    set_entry(9, MASKED | LEVEL | 0x51);
    assert_int_equal(sent, 0);
    set_entry(9, LEVEL | 0x51); /* it was high */
    assert_int_equal(sent, 1);
    assert_true(last.level);
    assert_int_equal(entry(9), LEVEL | REMOTE_IRR | 0x51);
    ioapic_set(ioapic, 9, false);
    ioapic_set(ioapic, 9, true);
    assert_int_equal(sent, 1);
    ioapic_eoi(ioapic, 0x50); /* another one's */
    assert_int_equal(sent, 1);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(sent, 2);
    ioapic_set(ioapic, 9, false);
    rig_write(&r, IOAPIC_BASE + EOI, 0x51);
    assert_int_equal(sent, 2);
    assert_int_equal(entry(9), LEVEL | 0x51);
    ioapic_set(ioapic, 9, true);
    assert_int_equal(sent, 3);
    set_entry(9, MASKED | LEVEL | 0x51);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(sent, 3);
}

static void on_served(void *arg) {
    ++*(unsigned *)arg;
    ioapic_set(ioapic, 9, false);
}

/* Who drives a line for somebody else hears when that may look again: before it is sent
 * once more. Not of edges, of others' vectors, or when an entry is masked. */
static void test_served(void **state) {
    unsigned served = 0;

    ioapic_on_served(ioapic, on_served, &served);
    set_entry(9, LEVEL | 0x51);
    set_entry(3, 0x52);
    assert_int_equal(served, 2); /* unmasked */
    ioapic_set(ioapic, 9, true);
    ioapic_set(ioapic, 3, true);
    assert_int_equal(sent, 2);
    ioapic_eoi(ioapic, 0x50);
    ioapic_eoi(ioapic, 0x52);
    assert_int_equal(served, 2);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(served, 3);
    assert_int_equal(sent, 2);
    assert_int_equal(entry(9), LEVEL | 0x51);
    set_entry(9, MASKED | LEVEL | 0x51);
    set_entry(9, MASKED | LEVEL | 0x53);
    assert_int_equal(served, 3);
    ioapic_set(ioapic, 9, true);
    set_entry(9, LEVEL | 0x51);
    assert_int_equal(served, 4);
    assert_int_equal(sent, 2);
}

/* An EOI is for every pin with its vector. */
static void test_shared_vector(void **state) {
    for (unsigned pin = 10; pin < 12; pin++) {
        set_entry(pin, LEVEL | 0x61);
        ioapic_set(ioapic, pin, true);
    }
    assert_int_equal(sent, 2);
    ioapic_set(ioapic, 10, false);
    ioapic_eoi(ioapic, 0x61);
    assert_int_equal(sent, 3);
    assert_int_equal(entry(10), LEVEL | 0x61);
    assert_int_equal(entry(11), LEVEL | REMOTE_IRR | 0x61);
}

/* The first pin and the last one are like the others. */
static void test_outer_pins(void **state) {
    static const unsigned pins[] = {0, IOAPIC_PINS - 1};

    for (unsigned k = 0; k < 2; k++) {
        sent = 0;
        set_entry(pins[k], LEVEL | (0x71 + k));
        ioapic_set(ioapic, pins[k], true);
        assert_int_equal(sent, 1);
        ioapic_eoi(ioapic, (uint8_t)(0x71 + k));
        assert_int_equal(sent, 2);
    }
}

/* How old drivers clear a stuck Remote IRR: edge, then level again. */
static void test_remote_irr(void **state) {
    set_entry(9, LEVEL | 0x51);
    ioapic_set(ioapic, 9, true);
    set_entry(9, LEVEL | 0x52); /* is kept by a write */
    assert_int_equal(entry(9), LEVEL | REMOTE_IRR | 0x52);
    assert_int_equal(sent, 1);
    set_entry(9, MASKED | 0x52);
    assert_int_equal(entry(9), MASKED | 0x52);
    set_entry(9, LEVEL | 0x52);
    assert_int_equal(sent, 2);
}

/* Nobody takes it: it is not on its way, and is sent again when there is a reason. */
static void test_refused(void **state) {
    refuse = true;
    set_entry(9, LEVEL | 0x51);
    ioapic_set(ioapic, 9, true);
    assert_int_equal(sent, 1);
    assert_int_equal(entry(9), LEVEL | 0x51);
    refuse = false;
    ioapic_set(ioapic, 9, true);
    assert_int_equal(sent, 2);
    assert_int_equal(entry(9), LEVEL | REMOTE_IRR | 0x51);
}

/* The end may come while the message is still being delivered. */
static void test_end_within(void **state) {
    ends_soon = true;
    set_entry(9, LEVEL | 0x51);
    ioapic_set(ioapic, 9, true);
    assert_int_equal(sent, 10);
    ioapic_set(ioapic, 9, false);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(entry(9), LEVEL | 0x51);
}

/* NMI, INIT and ExtINT are edges, whatever the entry says; low-active is only a word. */
static void test_modes(void **state) {
    set_entry(7, LEVEL | LOW_ACTIVE | APIC_NMI << 8);
    assert_int_equal(sent, 0);
    ioapic_set(ioapic, 7, true);
    assert_int_equal(sent, 1);
    assert_false(last.level);
    assert_int_equal(entry(7), LEVEL | LOW_ACTIVE | APIC_NMI << 8);
}

/* Registers of 32 bits; bytes of them can be read. */
static void test_windows(void **state) {
    bus_mmio_write(r.bus, gpa(IOAPIC_BASE), 1, R_VERSION);
    assert_int_equal(rig_read(&r, IOAPIC_BASE), R_VERSION);
    assert_int_equal(bus_mmio_read(r.bus, gpa(IOAPIC_BASE + DATA + 2), 1),
                     IOAPIC_PINS - 1);
    put(R_ENTRY, MASKED | 0x1234);
    assert_int_equal(bus_mmio_read(r.bus, gpa(IOAPIC_BASE + DATA + 1), 1), 0x02);
    assert_int_equal(rig_read(&r, IOAPIC_BASE + 0x20), 0);
    rig_write(&r, IOAPIC_BASE + 0x20, 5);
    rig_write(&r, IOAPIC_BASE, 0x100 | R_VERSION); /* eight bits */
    assert_int_equal(rig_read(&r, IOAPIC_BASE), R_VERSION);
}

static void test_reset(void **state) {
    put(R_ID, 0x05000000);
    set_entry(9, LEVEL | 0x51);
    ioapic_set(ioapic, 9, true);
    ioapic_reset(ioapic);
    assert_int_equal(rig_read(&r, IOAPIC_BASE), 0);
    assert_int_equal(get(R_ID), 0);
    assert_int_equal(entry(9), MASKED);
    set_entry(9, LEVEL | 0x52); /* the line is still up */
    assert_int_equal(sent, 2);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_registers),     T(test_message),    T(test_edges),      T(test_levels),
        T(test_shared_vector), T(test_outer_pins), T(test_remote_irr), T(test_refused),
        T(test_end_within),    T(test_modes),      T(test_windows),    T(test_reset),
        T(test_served),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
