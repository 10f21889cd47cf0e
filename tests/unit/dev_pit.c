/*
 * The 8254 by itself: each mode's output, clock by clock, the gate, the forms of writing
 * and reading a count, and what becomes of interrupts that are late. Intel 8254 data
 * sheet, "Mode Definitions", "Write Operations" and "Read Operations".
 *
 * Outputs are looked at where the board has them: channel 2's at port 0x61, which has its
 * gate too, channel 0's as interrupts. A count that is written is loaded by the next
 * clock.
 */
#include "dev/pc/pit.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { CH0 = 0x40, CH2 = 0x42, CONTROL = 0x43, PORT61 = 0x61 };
enum { MODE0 = 0, MODE1 = 2, MODE2 = 4, MODE3 = 6, MODE4 = 8, MODE5 = 10, BCD = 1 };
enum { LOW = 0x10, HIGH = 0x20, BOTH = 0x30, CHANNEL2 = 0x80 };

static struct rig r;
static struct pit *pit;

static int setup(void **state) {
    rig_new(&r);
    pit = pit_new(r.bus, r.clock, rig_line(&r, 0), &r.cnt);
    return pit ? 0 : -1;
}

static int teardown(void **state) {
    pit_free(pit);
    rig_free(&r);
    return 0;
}

static uint64_t clock_of(uint64_t ns) {
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / 1000000000u);
}

/* N clocks of the 8254's later. */
static void clocks(unsigned n) {
    uint64_t to = clock_of(r.now) + n;
    uint64_t ns = (uint64_t)(((unsigned __int128)to * 1000000000u + PIT_HZ - 1) / PIT_HZ);

    rig_pass(&r, ns - r.now);
    assert_int_equal(clock_of(r.now), to);
}

static void set_gate(bool on) {
    rig_out(&r, PORT61, on);
}

static bool out2(void) {
    return rig_in(&r, PORT61) & 0x20;
}

static void set(unsigned port, unsigned control, unsigned count) {
    rig_out(&r, CONTROL, (port - CH0) << 6 | BOTH | control);
    rig_out(&r, port, count & 0xff);
    rig_out(&r, port, count >> 8);
}

static unsigned count_of(unsigned port) {
    unsigned low;

    rig_out(&r, CONTROL, (port - CH0) << 6); /* latch */
    low = rig_in(&r, port);
    return low | rig_in(&r, port) << 8;
}

static unsigned status_of(unsigned port) {
    rig_out(&r, CONTROL, 0xe0 | 2u << (port - CH0));
    return rig_in(&r, port);
}

/* Mode 0: low from the control word on until the count is through, N + 1 clocks after it
 * was written; then it counts on. */
static void test_terminal_count(void **state) {
    set_gate(true);
    rig_out(&r, CONTROL, CHANNEL2 | BOTH | MODE0);
    assert_false(out2());
    clocks(70000);
    assert_false(out2()); /* without a count nothing counts */
    set(CH2, MODE0, 1000);
    clocks(1);
    assert_int_equal(count_of(CH2), 1000);
    clocks(999);
    assert_int_equal(count_of(CH2), 1);
    assert_false(out2());
    clocks(1);
    assert_true(out2());
    assert_int_equal(count_of(CH2), 0);
    clocks(5);
    assert_int_equal(count_of(CH2), 0xfffb);
    assert_true(out2());
}

/* Of a new count in mode 0 the first byte stops, the second starts. */
static void test_terminal_count_again(void **state) {
    set_gate(true);
    set(CH2, MODE0, 1000);
    clocks(500);
    rig_out(&r, CH2, 200);
    clocks(1000);
    assert_false(out2());
    rig_out(&r, CH2, 0);
    clocks(200);
    assert_false(out2());
    clocks(1);
    assert_true(out2());
}

/* The same of channel 0: its line is low at once, and no interrupt comes. */
static void test_interrupt_again(void **state) {
    unsigned before;

    set(CH0, MODE0, 1000);
    clocks(1001);
    assert_true(r.line[0]);
    rig_out(&r, CH0, 200);
    assert_false(r.line[0]);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    rig_out(&r, CH0, 0);
    before = r.rises[0];
    clocks(200);
    assert_int_equal(r.rises[0], before);
    clocks(1);
    assert_int_equal(r.rises[0], before + 1);
}

/* A count that is written while the gate is closed is counted from its beginning. */
static void test_count_behind_gate(void **state) {
    set_gate(true);
    set(CH2, MODE0, 100);
    clocks(41);
    set_gate(false);
    rig_out(&r, CH2, 50);
    rig_out(&r, CH2, 0);
    clocks(1000);
    assert_int_equal(count_of(CH2), 50);
    set_gate(true);
    clocks(49);
    assert_false(out2());
    clocks(1);
    assert_true(out2());
}

/* The gate stops modes 0 and 4, and they go on where they were. */
static void test_gate_stops(void **state) {
    static const unsigned modes[] = {MODE0, MODE4};

    for (unsigned k = 0; k < 2; k++) {
        set_gate(true);
        set(CH2, modes[k], 100);
        clocks(41);
        assert_int_equal(count_of(CH2), 60);
        set_gate(false);
        clocks(1000);
        assert_int_equal(count_of(CH2), 60);
        assert_int_equal(out2(), modes[k] == MODE4);
        set_gate(true);
        clocks(59);
        assert_int_equal(out2(), modes[k] == MODE4);
        clocks(1);
        assert_int_equal(out2(), modes[k] == MODE0);
        set_gate(false);
    }
}

/* Mode 1: a pulse of N clocks for each rise of the gate, which may come before its end;
 * the gate's fall is nothing to it. */
static void test_one_shot(void **state) {
    set(CH2, MODE1, 50);
    clocks(1000);
    assert_true(out2());
    set_gate(true);
    clocks(1);
    assert_false(out2());
    set_gate(false);
    clocks(49);
    assert_false(out2());
    clocks(1);
    assert_true(out2());
    set_gate(true);
    clocks(30);
    set_gate(false);
    set_gate(true);
    clocks(50);
    assert_false(out2());
    clocks(1);
    assert_true(out2());
    clocks(70000);
    assert_true(out2());
}

/* Bit N of what comes back: the output N clocks after the count's loading. */
static uint64_t wave(unsigned n) {
    uint64_t bits = 0;

    for (unsigned k = 0; k < n; k++) {
        clocks(1);
        bits |= (uint64_t)out2() << k;
    }
    return bits;
}

/* Mode 2: low for the last of N clocks, over and over. */
static void test_rate_generator(void **state) {
    set_gate(true);
    set(CH2, MODE2, 10);
    assert_true(out2());
    assert_int_equal(wave(40), 0x7fdff7fdffull);
    set(CH2, MODE2, 2);
    assert_int_equal(wave(8), 0x55);
}

/* Mode 3: half of N high, half low; an odd N has the longer half high. */
static void test_square_wave(void **state) {
    set_gate(true);
    set(CH2, MODE3, 8);
    assert_int_equal(wave(16), 0x0f0f);
    set(CH2, MODE3, 9);
    assert_int_equal(wave(18), 0x3e1f);
    /* It counts by twos. */
    set(CH2, MODE3, 1000);
    clocks(1 + 10);
    assert_int_equal(count_of(CH2), 980);
    clocks(500);
    assert_int_equal(count_of(CH2), 980);
    set(CH2, MODE3, 9);
    for (unsigned k = 0; k < 18; k++) {
        static const uint8_t counts[] = {8, 6, 4, 2, 0, 8, 6, 4, 2};

        clocks(1);
        assert_int_equal(count_of(CH2), counts[k % 9]);
    }
}

/* Modes 2 and 3: without gate the output is high, and its rise begins a period. */
static void test_gate_restarts(void **state) {
    static const unsigned modes[] = {MODE2, MODE3};

    for (unsigned k = 0; k < 2; k++) {
        set_gate(true);
        set(CH2, modes[k], 100);
        clocks(1 + 99);
        assert_false(out2());
        set_gate(false);
        assert_true(out2());
        clocks(1000);
        assert_true(out2());
        set_gate(true);
        clocks(1);
        assert_int_equal(count_of(CH2), 100);
        clocks(99);
        assert_false(out2());
    }
}

/* A new count in modes 2 and 3 waits for the end of the period; null count says so. */
static void test_new_count_waits(void **state) {
    set_gate(true);
    set(CH2, MODE2, 100);
    clocks(1 + 10);
    assert_int_equal(status_of(CH2), 0xb4);
    rig_out(&r, CH2, 30);
    rig_out(&r, CH2, 0);
    assert_int_equal(status_of(CH2), 0xf4);
    clocks(89);
    assert_int_equal(count_of(CH2), 1);
    assert_int_equal(status_of(CH2), 0x74); /* low */
    clocks(1);
    assert_int_equal(count_of(CH2), 30);
    assert_int_equal(status_of(CH2), 0xb4);
    clocks(30);
    assert_int_equal(count_of(CH2), 30);
    /* It waits no longer than the gate is open. */
    rig_out(&r, CH2, 20);
    rig_out(&r, CH2, 0);
    set_gate(false);
    set_gate(true);
    clocks(1);
    for (unsigned k = 0; k < 60; k++, clocks(1))
        assert_int_equal(count_of(CH2), 20 - k % 20);
}

/* Mode 4: low for the one clock at which the count is through. */
static void test_software_strobe(void **state) {
    set_gate(true);
    set(CH2, MODE4, 20);
    assert_int_equal(wave(40), 0xffffffffffull & ~(1ull << 20));
}

/* Mode 5: the same from each rise of the gate on. */
static void test_hardware_strobe(void **state) {
    set(CH2, MODE5, 20);
    assert_int_equal(wave(40), 0xffffffffffull);
    set_gate(true);
    assert_int_equal(wave(10), 0x3ff);
    set_gate(false);
    set_gate(true);
    assert_int_equal(wave(40), 0xffffffffffull & ~(1ull << 20));
}

/* Interrupts are the rises of channel 0's output: one in modes 0 and 4, one a period in
 * modes 2 and 3. */
static void test_interrupts(void **state) {
    static const struct {
        unsigned mode, first, each;
    } rise[] = {
        {MODE0, 1001, 0}, {MODE4, 1002, 0}, {MODE2, 1001, 1000}, {MODE3, 1001, 1000}};

    for (size_t k = 0; k < sizeof(rise) / sizeof(*rise); k++) {
        unsigned before;

        set(CH0, rise[k].mode, 1000);
        before = r.rises[0];
        clocks(rise[k].first - 1);
        assert_int_equal(r.rises[0], before);
        clocks(1);
        assert_int_equal(r.rises[0], before + 1);
        clocks(10000);
        assert_int_equal(r.rises[0], before + 1 + (rise[k].each ? 10 : 0));
    }
    /* A control word is the end of it. */
    rig_out(&r, CONTROL, BOTH | MODE2);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    rig_out(&r, CONTROL, BOTH | MODE0);
    assert_false(r.line[0]);
}

/* A count of one byte; the other one is 0. */
static void test_bytes(void **state) {
    rig_out(&r, CONTROL, LOW | MODE2);
    rig_out(&r, CH0, 0x80);
    clocks(1);
    assert_int_equal(rig_in(&r, CH0), 0x80);
    clocks(1);
    assert_int_equal(rig_in(&r, CH0), 0x7f);
    clocks(0x7f);
    assert_int_equal(rig_in(&r, CH0), 0x80);
    rig_out(&r, CONTROL, HIGH | MODE2);
    rig_out(&r, CH0, 0x12);
    clocks(1);
    assert_int_equal(rig_in(&r, CH0), 0x12);
    clocks(1);
    assert_int_equal(rig_in(&r, CH0), 0x11);
    clocks(0x1200 - 1);
    assert_int_equal(rig_in(&r, CH0), 0x12);
    rig_out(&r, CONTROL, 0); /* a latch of one byte, too */
    clocks(1);
    assert_int_equal(rig_in(&r, CH0), 0x12);
    assert_int_equal(rig_in(&r, CH0), 0x11);
}

/* 0 is the largest count: 65,536, or 10,000 in BCD. */
static void test_bcd_and_zero(void **state) {
    set(CH0, MODE2 | BCD, 0x0100);
    clocks(2);
    assert_int_equal(count_of(CH0), 0x0099);
    clocks(99);
    assert_int_equal(count_of(CH0), 0x0100);
    assert_int_equal(status_of(CH0), 0xb5);
    set(CH0, MODE2 | BCD, 0x4321);
    clocks(1);
    assert_int_equal(count_of(CH0), 0x4321);
    clocks(4320);
    assert_int_equal(count_of(CH0), 0x0001);
    clocks(1);
    assert_int_equal(count_of(CH0), 0x4321);
    set(CH0, MODE2 | BCD, 0);
    clocks(1);
    assert_int_equal(count_of(CH0), 0);
    clocks(1);
    assert_int_equal(count_of(CH0), 0x9999);
    clocks(9999);
    assert_int_equal(count_of(CH0), 0);
    set(CH0, MODE2, 0);
    clocks(1 + 65535);
    assert_int_equal(count_of(CH0), 1);
    clocks(1);
    assert_int_equal(count_of(CH0), 0);
}

/* A latched count stays until it has been read, whatever is latched meanwhile. */
static void test_latch(void **state) {
    set(CH0, MODE2, 0x5000);
    clocks(1 + 0x123);
    rig_out(&r, CONTROL, 0);
    clocks(0x1000);
    rig_out(&r, CONTROL, 0);
    assert_int_equal(rig_in(&r, CH0), 0xdd);
    rig_out(&r, CONTROL, 0); /* between the two bytes, too */
    assert_int_equal(rig_in(&r, CH0), 0x4e);
    assert_int_equal(count_of(CH0), 0x5000 - 0x1123);
    /* Unlatched, the bytes are those of the moment. */
    assert_int_equal(rig_in(&r, CH0), 0xdd);
    clocks(0x100);
    assert_int_equal(rig_in(&r, CH0), 0x3d);
}

/* Read-back: of several channels at once, the status before the count. */
static void test_read_back(void **state) {
    set_gate(true);
    set(CH0, MODE2, 0x5000);
    set(CH2, MODE0, 0x6000);
    clocks(1);
    rig_out(&r, CONTROL, 0xca); /* count and status of channels 0 and 2 */
    clocks(100);
    assert_int_equal(rig_in(&r, CH0), 0xb4);
    assert_int_equal(rig_in(&r, CH0), 0x00);
    assert_int_equal(rig_in(&r, CH0), 0x50);
    assert_int_equal(rig_in(&r, CH2), 0x30);
    assert_int_equal(rig_in(&r, CH2), 0x00);
    assert_int_equal(rig_in(&r, CH2), 0x60);
    rig_out(&r, CONTROL, 0xd2); /* the count alone */
    clocks(50);                 /* of channel 0 alone */
    assert_int_equal(rig_in(&r, CH2), 0x6a);
    assert_int_equal(rig_in(&r, CH2), 0x5f);
    assert_int_equal(rig_in(&r, CH0), 0x9c);
    assert_int_equal(rig_in(&r, CH0), 0x4f);
    rig_out(&r, CONTROL, BOTH | MODE3); /* no count yet: null count */
    assert_int_equal(status_of(CH0), 0xf6);
    assert_int_equal(status_of(CH0 + 1) & 0x40, 0x40);
    rig_out(&r, CONTROL, BOTH | 0xe); /* mode 7 is 3, mode 6 is 2 */
    assert_int_equal(status_of(CH0), 0xf6);
    rig_out(&r, CONTROL, BOTH | 0xc);
    assert_int_equal(status_of(CH0), 0xf4);
    assert_int_equal(rig_in(&r, CONTROL), 0xff);
}

/* The least periods: no more edges than the machine can give. */
static void test_shortest_periods(void **state) {
    static const unsigned modes[] = {MODE2, MODE3};

    set_gate(true);
    for (unsigned k = 0; k < 2; k++) {
        uint64_t before = r.cnt.irq_timer_pit;

        set(CH2, modes[k], 1);
        clocks(100);
        set(CH0, modes[k], 1);
        rig_pass(&r, 10000000);
        assert_in_range(r.cnt.irq_timer_pit - before, 150, 201); /* 50 us */
    }
}

/* A guest that did not run for a second has 100 of the ticks made up for, each at half
 * the period. */
static void test_late_ticks(void **state) {
    uint64_t before;

    set(CH0, MODE2, 1193); /* 1 kHz, nearly */
    rig_pass(&r, 10000000);
    assert_in_range(r.cnt.irq_timer_pit, 9, 11);
    assert_int_equal(r.cnt.irq_ticks_coalesced, 0);
    before = r.cnt.irq_timer_pit;
    r.now += 1000000000;
    vclock_run(r.clock);
    assert_int_equal(r.cnt.irq_timer_pit, before + 1);
    assert_in_range(r.cnt.irq_ticks_coalesced, 898, 902);
    rig_pass(&r, 40000000);
    assert_in_range(r.cnt.irq_timer_pit - before, 79, 83);
    rig_pass(&r, 960000000); /* as many in two seconds as there are, less the 900 */
    assert_in_range(r.cnt.irq_timer_pit - before, 1098, 1102);
}

/* Port 0x61 keeps four bits, and one is the memory's refresh. */
static void test_port_61(void **state) {
    unsigned last, changes = 0;

    rig_out(&r, PORT61, 0xff);
    assert_int_equal(rig_in(&r, PORT61) & 0xcf, 0x0f);
    rig_out(&r, PORT61, 0x02);
    assert_int_equal(rig_in(&r, PORT61) & 0xcf, 0x02);
    last = rig_in(&r, PORT61) & 0x10;
    for (unsigned us = 0; us < 1509; us++) {
        rig_pass(&r, 1000);
        changes += (rig_in(&r, PORT61) & 0x10) != last;
        last = rig_in(&r, PORT61) & 0x10;
    }
    assert_in_range(changes, 99, 101);
}

static void test_reset(void **state) {
    set_gate(true);
    set(CH0, MODE0, 5000);
    set(CH2, MODE0, 5000);
    pit_reset(pit);
    assert_true(r.line[0]);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    assert_int_equal(rig_in(&r, PORT61) & 0x2f, 0x20);
    assert_int_equal(status_of(CH0), 0xf6);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_terminal_count),
        T(test_interrupt_again),
        T(test_count_behind_gate),

        T(test_terminal_count_again),
        T(test_gate_stops),
        T(test_one_shot),
        T(test_rate_generator),
        T(test_square_wave),
        T(test_gate_restarts),
        T(test_new_count_waits),
        T(test_software_strobe),
        T(test_hardware_strobe),
        T(test_interrupts),
        T(test_bytes),
        T(test_bcd_and_zero),
        T(test_latch),
        T(test_read_back),
        T(test_shortest_periods),
        T(test_late_ticks),
        T(test_port_61),
        T(test_reset),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
