/*
 * The two 8259As by themselves: priorities fixed and rotated, the kinds of end of
 * interrupt, the special modes, poll, levels and edges. Intel 8259A data sheet,
 * "Operation Command Words" and "Interrupt Sequence".
 */
#include "dev/pc/pic.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { MASTER = 0x20, SLAVE = 0xa0, ELCR = 0x4d0 };
enum { ICW1 = 0x10, ICW1_ICW4 = 1, ICW1_SINGLE = 2 };
enum { ICW4_8086 = 1, ICW4_AUTO_EOI = 2, ICW4_NESTED = 0x10 };
enum { EOI = 0x20, EOI_SPECIFIC = 0x60, EOI_ROTATE = 0xa0, EOI_ROTATE_SPECIFIC = 0xe0 };
enum { ROTATE_AUTO = 0x80, ROTATE_AUTO_OFF = 0, SET_PRIORITY = 0xc0 };
enum {
    READ_IRR = 0x0a,
    READ_ISR = 0x0b,
    POLL = 0x0c,
    MASK_MODE = 0x68,
    NO_MASK_MODE = 0x48
};

static struct rig r;
static struct pic *pic;
static bool intr;

static void on_intr(void *arg, bool level) {
    intr = level;
}

/* Vectors from 0x30 and 0x38 on, nothing masked. */
static void init(unsigned icw4) {
    for (unsigned k = 0; k < 2; k++) {
        unsigned port = k ? SLAVE : MASTER;

        rig_out(&r, port, ICW1 | ICW1_ICW4);
        rig_out(&r, port + 1, k ? 0x38 : 0x30);
        rig_out(&r, port + 1, k ? 0x02 : 0x04);
        rig_out(&r, port + 1, ICW4_8086 | icw4);
    }
}

static int setup(void **state) {
    rig_new(&r);
    intr = false;
    pic = pic_new(r.bus, on_intr, NULL, &r.cnt);
    if (!pic)
        return -1;
    init(0);
    return 0;
}

static int teardown(void **state) {
    pic_free(pic);
    rig_free(&r);
    return 0;
}

static void raise_each(unsigned irqs) {
    for (unsigned n = 0; n < 16; n++)
        if (irqs >> n & 1)
            pic_set(pic, n, true);
}

/* Inputs as they are with nothing plugged in. */
static void lower_all(void) {
    for (unsigned n = 0; n < 16; n++)
        pic_set(pic, n, false);
}

static unsigned irr(unsigned port) {
    rig_out(&r, port, READ_IRR);
    return rig_in(&r, port);
}

static unsigned isr(unsigned port) {
    rig_out(&r, port, READ_ISR);
    return rig_in(&r, port);
}

/* The master's inputs come in the order of TEXT's digits, an EOI after each. */
static void expect_order(const char *text) {
    for (; *text; text++) {
        assert_true(intr);
        assert_int_equal(pic_ack(pic), 0x30 + *text - '0');
        rig_out(&r, MASTER, EOI);
    }
    assert_false(intr);
    lower_all();
}

/* As PC firmware leaves them: vectors 8 and 0x70, everything masked. */
static void test_reset(void **state) {
    pic_set(pic, 3, true);
    pic_ack(pic);
    rig_out16(&r, ELCR, 0xffff);
    pic_reset(pic);
    lower_all();
    raise_each(1 | 1 << 8);
    assert_false(intr);
    assert_int_equal(rig_in(&r, MASTER + 1), 0xff);
    assert_int_equal(rig_in(&r, SLAVE + 1), 0xff);
    assert_int_equal(rig_in16(&r, ELCR), 0);
    assert_int_equal(isr(MASTER), 0);
    rig_out(&r, MASTER + 1, 0xfa);
    rig_out(&r, SLAVE + 1, 0xfe);
    assert_int_equal(pic_ack(pic), 0x08);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x70);
}

static void test_priorities(void **state) {
    raise_each(1 << 4 | 1 << 9);
    assert_int_equal(pic_ack(pic), 0x39); /* the slave is before IRQ 4 */
    assert_false(pic_pending(pic));
    pic_set(pic, 1, true);
    assert_true(pic_pending(pic));
    assert_int_equal(pic_ack(pic), 0x31);
    rig_out(&r, MASTER, EOI);
    assert_false(pic_pending(pic));
    rig_out(&r, SLAVE, EOI);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x34);
    rig_out(&r, MASTER, EOI_SPECIFIC | 4);
    assert_int_equal(isr(MASTER), 0);
    assert_int_equal(r.cnt.irq_pic, 3);
}

/* Of two neighbours too the lower number comes first, in each chip; 15 is the last. */
static void test_each_input(void **state) {
    for (unsigned n = 15; n > 0; n--) {
        if (n == 2)
            continue; /* the cascade */
        if (n == 7)
            rig_out(&r, MASTER, EOI); /* the slave's are before 3 to 7 */
        pic_set(pic, n, true);
        assert_true(intr);
        assert_int_equal(pic_ack(pic), 0x30 + n);
        if (n >= 8) /* or the cascade is in service */
            rig_out(&r, MASTER, EOI);
    }
    assert_int_equal(isr(SLAVE), 0xff);
    assert_int_equal(isr(MASTER), 0xfa);
}

/* An end that names its input leaves the others in service. */
static void test_specific_eoi(void **state) {
    pic_set(pic, 5, true);
    assert_int_equal(pic_ack(pic), 0x35);
    pic_set(pic, 3, true);
    assert_int_equal(pic_ack(pic), 0x33);
    assert_int_equal(isr(MASTER), 0x28);
    rig_out(&r, MASTER, EOI_SPECIFIC | 5);
    assert_int_equal(isr(MASTER), 0x08);
    pic_set(pic, 4, true);
    assert_false(intr);        /* below 3 */
    rig_out(&r, MASTER, 0x40); /* no operation */
    assert_int_equal(isr(MASTER), 0x08);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x34);
}

/* Rotation: who was served is the last from then on. */
static void test_rotation(void **state) {
    raise_each(1 << 3);
    assert_int_equal(pic_ack(pic), 0x33);
    rig_out(&r, MASTER, EOI_ROTATE);
    lower_all();
    raise_each(0xfb); /* all but the cascade */
    expect_order("4567013");
    raise_each(1 << 5 | 1 << 6);
    assert_int_equal(pic_ack(pic), 0x35);
    rig_out(&r, MASTER, EOI_ROTATE_SPECIFIC | 5);
    lower_all();
    raise_each(0xfb);
    expect_order("6701345");
    rig_out(&r, MASTER, SET_PRIORITY | 0);
    raise_each(0xfb);
    expect_order("1345670");
    rig_out(&r, MASTER, SET_PRIORITY | 7);
    raise_each(0xfb);
    expect_order("0134567");
}

/* Automatic end of interrupt: nothing stays in service; with rotation, round robin. */
static void test_auto_eoi(void **state) {
    init(ICW4_AUTO_EOI);
    raise_each(1 << 1 | 1 << 4 | 1 << 6);
    assert_int_equal(pic_ack(pic), 0x31);
    assert_int_equal(isr(MASTER), 0);
    assert_int_equal(pic_ack(pic), 0x34);
    assert_int_equal(pic_ack(pic), 0x36);
    assert_false(intr);
    raise_each(1 << 12 | 1 << 13); /* of the slave's, one after the other */
    assert_int_equal(pic_ack(pic), 0x3c);
    assert_int_equal(pic_ack(pic), 0x3d);
    assert_false(intr);
    lower_all();
    rig_out(&r, MASTER, ROTATE_AUTO);
    raise_each(1 << 1 | 1 << 4);
    assert_int_equal(pic_ack(pic), 0x31);
    pic_set(pic, 1, false);
    raise_each(1 << 1 | 1 << 5);
    assert_int_equal(pic_ack(pic), 0x34);
    assert_int_equal(pic_ack(pic), 0x35);
    assert_int_equal(pic_ack(pic), 0x31);
    lower_all();
    rig_out(&r, MASTER, ROTATE_AUTO_OFF);
    raise_each(1 << 1 | 1 << 4); /* 1 was the last: it stays so */
    assert_int_equal(pic_ack(pic), 0x34);
    assert_int_equal(pic_ack(pic), 0x31);
    lower_all();
    raise_each(1 << 1 | 1 << 4);
    assert_int_equal(pic_ack(pic), 0x34);
}

/* Special mask mode: who masks what it serves lets the lower ones in. */
static void test_special_mask(void **state) {
    pic_set(pic, 3, true);
    assert_int_equal(pic_ack(pic), 0x33);
    pic_set(pic, 6, true);
    rig_out(&r, MASTER + 1, 1 << 3);
    assert_false(intr);
    rig_out(&r, MASTER, MASK_MODE);
    assert_true(intr);
    assert_int_equal(pic_ack(pic), 0x36);
    rig_out(&r, MASTER, EOI); /* not of 3, which is masked */
    assert_int_equal(isr(MASTER), 0x08);
    pic_set(pic, 7, true);
    assert_true(intr);
    rig_out(&r, MASTER, READ_IRR); /* says nothing of the mode */
    assert_true(intr);
    rig_out(&r, MASTER, NO_MASK_MODE);
    assert_false(intr);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x37);
}

/* Poll: the next read takes the request, as an acknowledge would, and says its number. */
static void test_poll(void **state) {
    rig_out(&r, MASTER, POLL);
    assert_int_equal(rig_in(&r, MASTER), 0);
    raise_each(1);
    rig_out(&r, MASTER, POLL);
    assert_int_equal(rig_in(&r, MASTER), 0x80);
    assert_int_equal(rig_in(&r, MASTER), 0x00); /* IRR: one read is the poll */
    rig_out(&r, MASTER, READ_ISR);
    rig_out(&r, MASTER, POLL);
    rig_in(&r, MASTER);
    assert_int_equal(rig_in(&r, MASTER), 0x01); /* what was selected stays so */
    rig_out(&r, MASTER, EOI);
    raise_each(1 << 3 | 1 << 5);
    rig_out(&r, MASTER, POLL);
    assert_int_equal(rig_in(&r, MASTER), 0x83);
    assert_false(intr);
    assert_int_equal(isr(MASTER), 0x08);
    assert_int_equal(irr(MASTER), 0x20);
    rig_out(&r, MASTER, POLL);
    assert_int_equal(rig_in(&r, MASTER) & 0x80, 0); /* 5 is below 3 */
    rig_out(&r, MASTER, EOI);
    pic_set(pic, 10, true);
    rig_out(&r, MASTER, POLL);
    assert_int_equal(rig_in(&r, MASTER), 0x82);
    rig_out(&r, SLAVE, POLL);
    assert_int_equal(rig_in(&r, SLAVE), 0x82);
    assert_int_equal(isr(SLAVE), 0x04);
}

/* The slave's second request passes its first one only in special fully nested mode. */
static void test_fully_nested(void **state) {
    for (unsigned nested = 0; nested < 2; nested++) {
        lower_all();
        init(nested ? ICW4_NESTED : 0);
        pic_set(pic, 12, true);
        assert_int_equal(pic_ack(pic), 0x3c);
        pic_set(pic, 9, true);
        assert_int_equal(intr, nested);
        pic_set(pic, 3, true);
        assert_int_equal(intr, nested); /* 3 is below the cascade in service */
        if (!nested) {
            rig_out(&r, SLAVE, EOI);
            rig_out(&r, MASTER, EOI);
        }
        assert_int_equal(pic_ack(pic), 0x39);
        pic_set(pic, 14, true); /* below 9: not even then */
        assert_false(intr);
    }
}

/* An edge is one request; a level asks again until it goes. */
static void test_edge_and_level(void **state) {
    rig_out16(&r, ELCR, 0xffff); /* the timer, the keyboard, ... stay edges */
    assert_int_equal(rig_in16(&r, ELCR), 0xdef8);
    rig_out16(&r, ELCR, 1 << 5 | 1 << 11);
    raise_each(1 << 4 | 1 << 5 | 1 << 11);
    assert_int_equal(pic_ack(pic), 0x3b);
    rig_out(&r, SLAVE, EOI);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x3b);
    pic_set(pic, 11, false);
    rig_out(&r, SLAVE, EOI);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x34);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(irr(MASTER), 0x20);
    assert_int_equal(pic_ack(pic), 0x35);
    assert_int_equal(irr(MASTER), 0x20);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x35);
    pic_set(pic, 5, false);
    rig_out(&r, MASTER, EOI);
    assert_false(intr);
    pic_set(pic, 4, true); /* no edge */
    assert_false(intr);
    rig_out16(&r, ELCR, 1 << 4); /* its line is up: a request at once */
    assert_true(intr);
    assert_int_equal(pic_ack(pic), 0x34);
}

/* A request that goes before its acknowledge leaves input 7's vector, and no service. */
static void test_spurious(void **state) {
    pic_set(pic, 3, true);
    pic_set(pic, 3, false);
    assert_false(intr);
    assert_int_equal(pic_ack(pic), 0x37);
    assert_int_equal(isr(MASTER), 0);
    assert_int_equal(r.cnt.irq_pic_spurious, 1);
    assert_int_equal(r.cnt.irq_pic, 0);
}

/* The mask holds a request back; it is not lost. The cascade is an input like others. */
static void test_mask(void **state) {
    rig_out(&r, MASTER + 1, 0x08);
    rig_out(&r, SLAVE + 1, 0x02);
    assert_int_equal(rig_in(&r, MASTER + 1), 0x08);
    assert_int_equal(rig_in(&r, SLAVE + 1), 0x02);
    raise_each(1 << 3 | 1 << 9);
    assert_false(intr);
    assert_int_equal(irr(MASTER), 0x08);
    assert_int_equal(irr(SLAVE), 0x02);
    rig_out(&r, MASTER + 1, 0x04);
    assert_int_equal(pic_ack(pic), 0x33);
    rig_out(&r, MASTER, EOI);
    rig_out(&r, SLAVE + 1, 0);
    assert_false(intr);
    assert_int_equal(irr(MASTER), 0x04);
    rig_out(&r, MASTER + 1, 0);
    assert_int_equal(pic_ack(pic), 0x39);
    pic_set(pic, 2, true); /* soldered to the slave */
    rig_out(&r, SLAVE, EOI);
    rig_out(&r, MASTER, EOI);
    assert_false(intr);
}

/* ICW1 begins anew: nothing masked, served or requested, priorities as they were first.
 */
static void test_initialisation(void **state) {
    init(ICW4_AUTO_EOI | ICW4_NESTED);
    rig_out(&r, MASTER, ROTATE_AUTO);
    rig_out(&r, MASTER, ICW1 | ICW1_SINGLE | ICW1_ICW4); /* no ICW3 */
    rig_out(&r, MASTER + 1, 0x30);
    rig_out(&r, MASTER + 1, ICW4_8086);
    rig_out(&r, MASTER + 1, 0x40);
    assert_int_equal(rig_in(&r, MASTER + 1), 0x40);
    rig_out(&r, MASTER, READ_ISR);
    rig_out(&r, MASTER, SET_PRIORITY | 3);
    rig_out(&r, MASTER, MASK_MODE);
    pic_set(pic, 5, true);
    assert_int_equal(pic_ack(pic), 0x35);
    pic_set(pic, 6, true);
    rig_out(&r, MASTER + 1, 0xff);
    rig_out(&r, MASTER, ICW1 | ICW1_SINGLE); /* no ICW3, no ICW4 */
    rig_out(&r, MASTER + 1, 0x4f);
    rig_out(&r, MASTER + 1, 0x10);
    assert_int_equal(rig_in(&r, MASTER + 1), 0x10);
    assert_int_equal(rig_in(&r, MASTER), 0); /* reads IRR: edges are forgotten */
    assert_int_equal(isr(MASTER), 0);
    lower_all();
    raise_each(1 << 1 | 1 << 5);
    assert_int_equal(pic_ack(pic), 0x49);
    assert_false(intr);
    rig_out(&r, MASTER, EOI);
    assert_int_equal(pic_ack(pic), 0x4d);
    init(ICW4_AUTO_EOI);
    rig_out(&r, MASTER, ICW1); /* ICW3 follows, no ICW4: no automatic end */
    rig_out(&r, MASTER + 1, 0x50);
    rig_out(&r, MASTER + 1, 0x04);
    rig_out(&r, MASTER + 1, 0x02);
    assert_int_equal(rig_in(&r, MASTER + 1), 0x02);
    lower_all();
    pic_set(pic, 0, true);
    assert_int_equal(pic_ack(pic), 0x50);
    assert_int_equal(isr(MASTER), 1);
}

static void on_served(void *arg) {
    ++*(unsigned *)arg;
}

/* Who drives a line for somebody else hears of each end of an interrupt, and of each
 * input that is unmasked. */
static void test_served(void **state) {
    unsigned served = 0;

    pic_on_served(pic, on_served, &served);
    raise_each(1 << 3 | 1 << 10);
    pic_ack(pic);
    pic_ack(pic);
    rig_out(&r, MASTER + 1, 0xff);
    assert_int_equal(served, 0);
    rig_out(&r, SLAVE, EOI);
    assert_int_equal(served, 1);
    rig_out(&r, MASTER, EOI_SPECIFIC | 3); /* masked: not before it is unmasked */
    assert_int_equal(served, 1);
    rig_out(&r, MASTER, READ_IRR);
    rig_out(&r, MASTER + 1, 0xf7);
    assert_int_equal(served, 2);
    init(ICW4_AUTO_EOI);
    served = 0;
    lower_all();
    raise_each(1 << 5);
    assert_int_equal(served, 0);
    pic_ack(pic);
    assert_int_equal(served, 1);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_reset),          T(test_priorities), T(test_each_input),
        T(test_specific_eoi),   T(test_rotation),   T(test_auto_eoi),
        T(test_special_mask),   T(test_poll),       T(test_fully_nested),
        T(test_edge_and_level), T(test_spurious),   T(test_mask),
        T(test_initialisation), T(test_served),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
