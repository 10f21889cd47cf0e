/*
 * The MC146818 by itself: digits in each format, updates and how they are announced,
 * setting the clock, the three interrupts, and the PC's CMOS cells. Motorola MC146818A
 * data sheet, "Time, Calendar and Alarm Locations", "Interrupts", "Update Cycle".
 */
#include "dev/pc/rtc.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WDAY, MDAY, MONTH, YEAR };
enum { A = 10, B, C, D, CENTURY = 0x32 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 4, H24 = 2 };
enum { IRQF = 0x80, PF = 0x40, AF = 0x20, UF = 0x10, UIP = 0x80 };
#define S 1000000000ull

static struct rig r;
static struct rtc *rtc;
static uint64_t realtime; /* nanoseconds, at the reset */

static uint64_t on_realtime(void *arg) {
    return realtime;
}

static void new_rtc(uint64_t ram) {
    struct rtc_config cfg = {.realtime_ns = on_realtime, .ram_size = ram};

    rtc = rtc_new(r.bus, r.clock, rig_line(&r, 8), &cfg, &r.cnt);
    assert_non_null(rtc);
}

static int setup(void **state) {
    rig_new(&r);
    realtime = RIG_REALTIME_NS;
    new_rtc(64u << 20);
    return 0;
}

static int teardown(void **state) {
    rtc_free(rtc);
    rig_free(&r);
    return 0;
}

static unsigned get(unsigned i) {
    rig_out(&r, 0x70, i);
    return rig_in(&r, 0x71);
}

static void put(unsigned i, unsigned value) {
    rig_out(&r, 0x70, i);
    rig_out(&r, 0x71, value);
}

/* Seconds, minutes, hours, as they are read. */
static void expect_time(unsigned hour, unsigned min, unsigned sec) {
    assert_int_equal(get(HOUR), hour);
    assert_int_equal(get(MIN), min);
    assert_int_equal(get(SEC), sec);
}

static void expect_date(unsigned century, unsigned year, unsigned month, unsigned day) {
    assert_int_equal(get(CENTURY), century);
    assert_int_equal(get(YEAR), year);
    assert_int_equal(get(MONTH), month);
    assert_int_equal(get(MDAY), day);
}

static void set_alarm(unsigned hour, unsigned min, unsigned sec) {
    put(HOUR_ALARM, hour);
    put(MIN_ALARM, min);
    put(SEC_ALARM, sec);
}

static void test_digits(void **state) {
    expect_time(0x22, 0x13, 0x20);
    expect_date(0x20, 0x23, 0x11, 0x14);
    assert_int_equal(get(WDAY), 3); /* a Tuesday */
    assert_int_equal(get(D), 0x80);
    rig_pass(&r, 3600 * S + 46 * 60 * S + 39 * S);
    expect_time(0x23, 0x59, 0x59);
    rig_pass(&r, S);
    expect_time(0, 0, 0);
    assert_int_equal(get(MDAY), 0x15);
    assert_int_equal(get(WDAY), 4);
}

/* Binary, and hours to 12 with a bit for the afternoon: what runs is read anew. */
static void test_formats(void **state) {
    put(B, BINARY | H24);
    expect_time(22, 13, 20);
    expect_date(20, 23, 11, 14);
    put(B, BINARY);
    expect_time(10 | 0x80, 13, 20);
    put(B, 0);
    expect_time(0x10 | 0x80, 0x13, 0x20);
    put(HOUR, 0x12); /* midnight */
    put(B, H24);
    assert_int_equal(get(HOUR), 0);
    put(B, 0);
    put(HOUR, 0x12 | 0x80); /* noon */
    assert_int_equal(get(HOUR), 0x12 | 0x80);
    put(B, H24);
    assert_int_equal(get(HOUR), 0x12);
    put(B, 0);
    put(HOUR, 0x07 | 0x80);
    put(B, H24);
    assert_int_equal(get(HOUR), 0x19);
    put(HOUR, 0x11);
    put(B, 0);
    assert_int_equal(get(HOUR), 0x11);
    put(B, H24);
    put(HOUR, 0);
    put(B, BINARY);
    assert_int_equal(get(HOUR), 12);
}

/* UIP is on for the 244 us before each update, whose digits come when it goes off. */
static void test_update_in_progress(void **state) {
    rig_pass(&r, S - 244001);
    assert_int_equal(get(A), 0x26);
    rig_pass(&r, 1);
    assert_int_equal(get(A), UIP | 0x26);
    assert_int_equal(get(SEC), 0x20);
    rig_pass(&r, 243999);
    assert_int_equal(get(A), UIP | 0x26);
    rig_pass(&r, 1);
    assert_int_equal(get(A), 0x26);
    assert_int_equal(get(SEC), 0x21);
    put(B, H24 | SET); /* no update comes */
    rig_pass(&r, S - 100000);
    assert_int_equal(get(A), 0x26);
    put(A, 0xa6); /* the bit is not the guest's */
    assert_int_equal(get(A), 0x26);
}

/* While SET is on the digits stand still and are the guest's; then they go on. */
static void test_set(void **state) {
    rig_pass(&r, 5 * S);
    put(B, H24 | SET | UIE);
    assert_int_equal(get(B), H24 | SET); /* SET takes UIE away */
    rig_pass(&r, 10 * S);
    expect_time(0x22, 0x13, 0x25);
    put(SEC, 0x58);
    put(MIN, 0x59);
    put(HOUR, 0x23);
    put(MDAY, 0x28);
    put(MONTH, 0x02);
    put(YEAR, 0x24);
    rig_pass(&r, 10 * S);
    expect_time(0x23, 0x59, 0x58);
    put(B, H24);
    rig_pass(&r, S);
    expect_time(0x23, 0x59, 0x59);
    rig_pass(&r, S);
    expect_time(0, 0, 0);
    expect_date(0x20, 0x24, 0x02, 0x29);
    rig_pass(&r, 86400 * S);
    expect_date(0x20, 0x24, 0x03, 0x01);
    put(CENTURY, 0x19); /* a year that leaps not, while it runs */
    put(YEAR, 0x00);
    put(MONTH, 0x02);
    put(MDAY, 0x28);
    rig_pass(&r, 86400 * S);
    expect_date(0x19, 0x00, 0x03, 0x01);
}

/* Set while it runs: the other digits are those of the moment, and the second goes on. */
static void test_set_running(void **state) {
    rig_pass(&r, 7 * S + S / 2);
    put(MIN, 0x40);
    expect_time(0x22, 0x40, 0x27);
    put(B, H24 | UIE);
    put(HOUR, 0x03); /* back: updates are told all the same */
    get(C);
    for (unsigned k = 1; k < 4; k++) {
        unsigned before = r.rises[8];

        rig_pass(&r, S);
        assert_int_equal(r.rises[8], before + 1);
        assert_int_equal(get(C) & UF, UF);
    }
    expect_time(0x03, 0x40, 0x30);
}

/* Writing A and B as they are moves nothing. */
static void test_rewrite(void **state) {
    put(B, H24 | PIE | UIE);
    get(C);
    rig_pass(&r, S / 2);
    put(A, 0x26);
    rig_pass(&r, 244141 - 1000); /* a quarter of a period of 1,024 Hz */
    put(B, H24 | PIE | UIE);
    get(C);
    rig_pass(&r, S / 1024 - 244141 + 1000);
    assert_int_equal(get(C) & PF, PF);
    rig_pass(&r, S / 2 - S / 1024);
    assert_int_equal(get(C) & UF, UF);
    assert_int_equal(get(SEC), 0x21);
}

/* A divider held in reset stops the clock as SET does. */
static void test_divider(void **state) {
    put(A, 0x76);
    rig_pass(&r, 100 * S);
    assert_int_equal(get(SEC), 0x20);
    put(A, 0x26);
    rig_pass(&r, 2 * S);
    assert_int_equal(get(SEC), 0x22);
}

/* The alarm: at its time, with fields that match anything, once a day. */
static void test_alarm(void **state) {
    set_alarm(0xff, 0xff, 0x25);
    put(B, H24 | AIE);
    rig_pass(&r, 5 * S - 1);
    assert_int_equal(r.rises[8], 0);
    rig_pass(&r, 2);
    assert_int_equal(r.rises[8], 1);
    assert_int_equal(r.cnt.irq_rtc, 1);
    rig_pass(&r, 120 * S); /* nobody reads C: the line stays */
    assert_int_equal(r.rises[8], 1);
    assert_int_equal(get(C), IRQF | AF | UF | PF);
    assert_false(r.line[8]);
    assert_int_equal(get(C), 0);
    set_alarm(0x08, 0x00, 0x00);
    rig_pass(&r, 9 * 3600 * S); /* 07:15:25 */
    get(C);
    assert_int_equal(r.rises[8], 1);
    rig_pass(&r, 2675 * S);
    assert_int_equal(r.rises[8], 2);
    assert_int_equal(get(C) & AF, AF);
    rig_pass(&r, 86399 * S);
    assert_int_equal(r.rises[8], 2);
    rig_pass(&r, 3 * S);
    assert_int_equal(r.rises[8], 3);
}

/* The alarm's digits have the format of the clock's. */
static void test_alarm_formats(void **state) {
    put(B, BINARY | AIE);
    set_alarm(10 | 0x80, 13, 30);
    rig_pass(&r, 9 * S);
    assert_false(r.line[8]);
    rig_pass(&r, S);
    assert_true(r.line[8]);
    get(C);
    set_alarm(10, 14, 0); /* in the morning */
    rig_pass(&r, 100 * S);
    assert_false(r.line[8]);
}

/* An alarm that nobody enabled is a flag, and so is one that passed while the guest did
 * not run. */
static void test_alarm_unseen(void **state) {
    set_alarm(0xff, 0x15, 0x00);
    rig_pass(&r, 90 * S);
    assert_int_equal(get(C) & (IRQF | AF), 0);
    rig_pass(&r, 60 * S);
    assert_int_equal(get(C) & (IRQF | AF), AF);
    put(B, H24 | AIE);
    r.now += 7200 * S;
    assert_int_equal(get(C) & (IRQF | AF), IRQF | AF);
    assert_int_equal(r.rises[8], 1);
    set_alarm(0x11, 0x00, 0x00);
    get(C);
    r.now += 3 * 86400 * S;
    assert_int_equal(get(C) & (IRQF | AF), IRQF | AF);
}

/* One interrupt a second at the update, once C has been read. */
static void test_update_ended(void **state) {
    put(B, H24 | UIE);
    for (unsigned k = 1; k < 5; k++) {
        rig_pass(&r, S - 1);
        assert_int_equal(r.rises[8], k - 1);
        rig_pass(&r, 1);
        assert_int_equal(r.rises[8], k);
        assert_int_equal(get(C) & (IRQF | UF), IRQF | UF);
    }
    put(B, H24);
    rig_pass(&r, 2 * S);
    assert_int_equal(r.rises[8], 4);
    assert_int_equal(get(C) & (IRQF | UF), UF);
}

/* Every rate of the 32.768 kHz crystal: 256, 128, then 8192 Hz halved down to 2. */
static void test_periodic(void **state) {
    for (unsigned rate = 1; rate < 16; rate++) {
        unsigned hz = rate < 3 ? 512 >> rate : 65536 >> rate;

        put(A, 0x20 | rate);
        get(C);
        r.rises[8] = 0;
        put(B, H24 | PIE);
        for (unsigned k = 0; k < hz; k++) {
            rig_pass(&r, S / hz - 1);
            assert_int_equal(r.rises[8], k);
            rig_pass(&r, 1);
            assert_int_equal(r.rises[8], k + 1);
            assert_int_equal(get(C) & (IRQF | PF), IRQF | PF);
        }
        put(B, H24);
    }
    put(A, 0x20);
    get(C);
    put(B, H24 | PIE);
    rig_pass(&r, S);
    assert_int_equal(get(C) & PF, 0);
}

/* A flag that is enabled later raises the line then. */
static void test_enabled_late(void **state) {
    rig_pass(&r, 2 * S);
    assert_false(r.line[8]);
    put(B, H24 | UIE);
    assert_true(r.line[8]);
    put(B, H24);
    assert_false(r.line[8]);
    put(B, H24 | PIE);
    assert_true(r.line[8]);
    get(C);
    assert_false(r.line[8]);
}

/* C and D cannot be written; RAM can, all of it, by either pair of ports. */
static void test_ram(void **state) {
    put(C, 0xff);
    put(D, 0);
    assert_int_equal(get(C), 0);
    assert_int_equal(get(D), 0x80);
    for (unsigned i = 14; i < 256; i++) {
        if (i == CENTURY)
            continue;
        rig_out(&r, 0x72, i);
        rig_out(&r, 0x73, i ^ 0x5a);
    }
    for (unsigned i = 14; i < 256; i++) {
        if (i == CENTURY)
            continue;
        rig_out(&r, 0x72, i);
        assert_int_equal(rig_in(&r, 0x72), i);
        assert_int_equal(rig_in(&r, 0x73), i ^ 0x5a);
        if (i < 128)
            assert_int_equal(get(i), i ^ 0x5a);
    }
    rig_pass(&r, S);
    rig_out(&r, 0x72, SEC); /* the registers, too */
    assert_int_equal(rig_in(&r, 0x73), 0x21);
    rig_out(&r, 0x73, 0x45);
    assert_int_equal(get(SEC), 0x45);
    put(0x40, 1);
    put(0xc0, 2); /* bit 7 is the NMI mask */
    assert_int_equal(get(0x40), 2);
}

static void test_nmi_mask(void **state) {
    assert_false(rtc_nmi_masked(rtc));
    rig_out(&r, 0x70, 0x80 | SEC);
    assert_true(rtc_nmi_masked(rtc));
    assert_int_equal(rig_in(&r, 0x71), 0x20);
    rig_out(&r, 0x70, SEC);
    assert_false(rtc_nmi_masked(rtc));
    rig_out(&r, 0x72, 0xff);
    assert_false(rtc_nmi_masked(rtc));
}

static unsigned get16(unsigned i) {
    return get(i) | get(i + 1) << 8;
}

/* How much memory there is, for all sizes, and the sum over the cells of firmware. */
static void test_memory_cells(void **state) {
    static const struct {
        uint64_t ram;
        unsigned above_1m, above_16m, above_4g;
    } sizes[] = {
        {4ull << 20, 3072, 0, 0},
        {64ull << 20, 64512, 768, 0},
        {65ull << 20, 65535, 784, 0},
        {3ull << 30, 65535, 0xbf00, 0},
        {5ull << 30, 65535, 0xbf00, 0x8000},
        {67ull << 30, 65535, 0xbf00, 0x100000},
    };

    for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
        unsigned sum = 0;

        rtc_free(rtc);
        rig_free(&r);
        rig_new(&r);
        new_rtc(sizes[k].ram);
        assert_int_equal(get16(0x15), 640);
        assert_int_equal(get16(0x17), sizes[k].above_1m);
        assert_int_equal(get16(0x30), sizes[k].above_1m);
        assert_int_equal(get16(0x34), sizes[k].above_16m);
        assert_int_equal(get16(0x5b) | get(0x5d) << 16, sizes[k].above_4g);
        for (unsigned i = 0x10; i <= 0x2d; i++)
            sum += get(i);
        assert_int_equal(get(0x2e) << 8 | get(0x2f), sum);
    }
}

/* A reset reads the host's clock, to the part of its second, and forgets the rest. */
static void test_reset(void **state) {
    put(B, H24 | UIE | PIE);
    put(0x40, 0x77);
    rig_pass(&r, S);
    assert_true(r.line[8]);
    rig_out(&r, 0x70, 0x8f);
    realtime = 951782399ull * S + 250000000; /* 2000-02-28 23:59:59.25 */
    rtc_reset(rtc);
    assert_false(r.line[8]);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    assert_false(rtc_nmi_masked(rtc));
    assert_int_equal(get(0x40), 0);
    assert_int_equal(get(B), H24);
    expect_time(0x23, 0x59, 0x59);
    rig_pass(&r, 749999999);
    assert_int_equal(get(MDAY), 0x28);
    rig_pass(&r, 1);
    expect_date(0x20, 0x00, 0x02, 0x29);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_digits),       T(test_formats),      T(test_update_in_progress),
        T(test_set),          T(test_set_running),  T(test_rewrite),
        T(test_divider),      T(test_alarm),        T(test_alarm_formats),
        T(test_alarm_unseen), T(test_update_ended), T(test_periodic),
        T(test_enabled_late), T(test_ram),          T(test_nmi_mask),
        T(test_memory_cells), T(test_reset),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
