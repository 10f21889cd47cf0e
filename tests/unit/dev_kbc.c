/*
 * The 8042 by itself, with nothing plugged in, with a keyboard, and with a mouse: its
 * commands, the output buffer with its status and interrupts, the output port; scan
 * codes; packets. IBM PC AT Technical Reference, "Keyboard Controller"; IBM PS/2 Hardware
 * Interface Technical Reference, "Mouse".
 */
#include "dev/pc/kbc.h"
#include "dev/pc/keyboard.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum { DATA = 0x60, STATUS = 0x64, COMMAND = 0x64 };
enum {
    FULL = 1,
    SYSTEM = 4,
    WAS_COMMAND = 8,
    UNLOCKED = 0x10,
    AUX = 0x20,
    TIMEOUT = 0x40
};
/* Of the command byte, cell 0. */
enum { IRQ1 = 1, IRQ12 = 2, KBD_OFF = 0x10, AUX_OFF = 0x20, XLATE = 0x40 };

static struct rig r;
static struct ports *ports;
static struct kbc *kbc;

static int setup(void **state) {
    rig_new(&r);
    ports = ports_new(r.bus, &r.host);
    kbc = kbc_new(r.bus, rig_line(&r, 1), rig_line(&r, 12), ports, &r.host);
    return kbc ? 0 : -1;
}

static int teardown(void **state) {
    kbc_free(kbc);
    ports_free(ports);
    rig_free(&r);
    return 0;
}

static void command(unsigned value) {
    rig_out(&r, COMMAND, value);
}

static void command_with(unsigned value, unsigned data) {
    command(value);
    rig_out(&r, DATA, data);
}

/* The byte that waits, which has the STATUS bits with it; then none does. */
static unsigned take(unsigned status) {
    unsigned value;

    assert_int_equal(rig_in(&r, STATUS) & (FULL | AUX | TIMEOUT), FULL | status);
    value = rig_in(&r, DATA);
    assert_int_equal(rig_in(&r, STATUS) & (FULL | AUX | TIMEOUT), 0);
    return value;
}

static unsigned answer(unsigned value) {
    command(value);
    return take(0);
}

static void test_tests(void **state) {
    assert_int_equal(answer(0xaa), 0x55);
    assert_int_equal(answer(0xab), 0);
    assert_int_equal(answer(0xa9), 0);
    assert_int_equal(answer(0xc0), 0x80);
    command(0x00); /* no command */
    assert_int_equal(rig_in(&r, STATUS), UNLOCKED | SYSTEM | WAS_COMMAND);
}

/* Whether the last write was a command; the system flag, which the self-test sets. */
static void test_status(void **state) {
    assert_int_equal(rig_in(&r, STATUS), UNLOCKED | SYSTEM);
    command_with(0x60, 0);
    assert_int_equal(rig_in(&r, STATUS), UNLOCKED);
    command(0xaa);
    assert_int_equal(rig_in(&r, STATUS), UNLOCKED | SYSTEM | WAS_COMMAND | FULL);
    assert_int_equal(rig_in(&r, DATA), 0x55);
    rig_in(&r, DATA);
    assert_int_equal(rig_in(&r, STATUS), UNLOCKED | SYSTEM | WAS_COMMAND);
    assert_int_equal(rig_in(&r, DATA), 0x55); /* the last byte stays */
}

/* 32 cells; of the command byte the top bit is not there. */
static void test_cells(void **state) {
    for (unsigned k = 1; k < 32; k++)
        command_with(0x60 + k, k * 7 + 1);
    for (unsigned k = 1; k < 32; k++)
        assert_int_equal(answer(0x20 + k), (k * 7 + 1) & 0xff);
    assert_int_equal(answer(0x20), SYSTEM | XLATE | KBD_OFF | AUX_OFF);
    command_with(0x60, 0xff);
    assert_int_equal(answer(0x20), 0x7f);
    command(0x60);
    command(0x61); /* takes its place */
    rig_out(&r, DATA, 0x99);
    assert_int_equal(answer(0x20), 0x7f);
    assert_int_equal(answer(0x21), 0x99);
}

/* Commands that switch the ports, and what is sent to a port switches it on. */
static void test_ports_off_and_on(void **state) {
    command_with(0x60, 0);
    command(0xad);
    assert_int_equal(answer(0x20), KBD_OFF);
    command_with(0x60, XLATE); /* the other bits stay */
    command(0xad);
    assert_int_equal(answer(0x20), XLATE | KBD_OFF);
    answer(0xaa);
    assert_int_equal(answer(0x20), SYSTEM | XLATE | KBD_OFF);
    command_with(0x60, KBD_OFF);
    command(0xa7);
    assert_int_equal(answer(0x20), KBD_OFF | AUX_OFF);
    command(0xae);
    assert_int_equal(answer(0x20), AUX_OFF);
    command(0xa8);
    assert_int_equal(answer(0x20), 0);
    command(0xad);
    command(0xa7);
    rig_out(&r, DATA, 0xff);
    take(TIMEOUT);
    assert_int_equal(answer(0x20), AUX_OFF);
    command_with(0xd4, 0xff);
    take(AUX | TIMEOUT);
    assert_int_equal(answer(0x20), 0);
}

/* Nobody answers at either port: at once, so that who probes does not wait. */
static void test_nothing_there(void **state) {
    rig_out(&r, DATA, 0xed);
    assert_int_equal(take(TIMEOUT), 0xfe);
    command_with(0xd4, 0xf2);
    assert_int_equal(take(AUX | TIMEOUT), 0xfe);
}

/* Either port's interrupt, while its byte waits and the command byte allows it. */
static void test_interrupts(void **state) {
    command_with(0xd2, 'k');
    assert_false(r.line[1]);
    assert_int_equal(take(0), 'k');
    command_with(0x60, IRQ1);
    command_with(0xd2, 'k');
    assert_true(r.line[1]);
    assert_false(r.line[12]);
    command_with(0xd3, 'm'); /* the other byte is lost, and its interrupt */
    assert_false(r.line[1]);
    assert_false(r.line[12]);
    assert_int_equal(take(AUX), 'm');
    command_with(0x60, IRQ12);
    command_with(0xd3, 'm');
    assert_true(r.line[12]);
    assert_false(r.line[1]);
    command_with(0x60, 0); /* not any more */
    assert_false(r.line[12]);
    command_with(0x60, IRQ1 | IRQ12);
    assert_true(r.line[12]);
    take(AUX);
    assert_false(r.line[12]);
    command_with(0xd2, 'a');
    command_with(0xd2, 'b'); /* a new byte is a new edge */
    assert_int_equal(r.rises[1], 3);
    assert_int_equal(take(0), 'b');
}

/* The output port: A20, the CPU's reset, and the two interrupt lines. */
static void test_output_port(void **state) {
    assert_int_equal(answer(0xd0), 0xc3);
    command_with(0xd1, 0xdd);
    assert_false(ports_a20(ports));
    assert_int_equal(answer(0xd0), 0xc1);
    command_with(0xd1, 0xdf);
    assert_true(ports_a20(ports));
    command(0xdd);
    assert_false(ports_a20(ports));
    command(0xdf);
    assert_true(ports_a20(ports));
    assert_int_equal(r.a20_moves, 4);
    command_with(0xd2, 0);
    command(0xd0);
    assert_int_equal(take(0), 0xd3);
    command_with(0xd3, 0);
    command(0xd0);
    assert_int_equal(take(0), 0xe3);
    assert_int_equal(r.resets, 0);
    command_with(0xd1, 0xde);
    assert_int_equal(r.resets, 1);
    assert_true(ports_a20(ports));
}

/* Commands that pulse lines: a 0 in bit 0 resets. */
static void test_reset_pulse(void **state) {
    for (unsigned k = 0; k < 16; k++)
        command(0xf0 | k);
    assert_int_equal(r.resets, 8);
    command(0xff);
    assert_int_equal(r.resets, 8);
    command(0xfe);
    assert_int_equal(r.resets, 9);
}

static void test_reset(void **state) {
    command_with(0x60, IRQ1);
    command_with(0x6a, 0x12);
    command_with(0xd2, 'k');
    command(0xd1);
    kbc_reset(kbc);
    assert_false(r.line[1]);
    assert_int_equal(rig_in(&r, STATUS), UNLOCKED | SYSTEM);
    rig_out(&r, DATA, 0xdd); /* no command waits for it */
    assert_true(ports_a20(ports));
    assert_int_equal(take(TIMEOUT), 0xfe);
    assert_int_equal(answer(0x2a), 0);
}

/* --- with a keyboard --- */

static int setup_keyboard(void **state) {
    if (setup(state))
        return -1;
    kbc_plug_keyboard(kbc);
    kbc_reset(kbc);
    return 0;
}

/* The next byte, behind which others may wait. */
static unsigned next(void) {
    assert_int_equal(rig_in(&r, STATUS) & (FULL | AUX | TIMEOUT), FULL);
    return rig_in(&r, DATA);
}

static void expect(const char *bytes, unsigned count) {
    while (count--)
        assert_int_equal(next(), (uint8_t)*bytes++);
    assert_int_equal(rig_in(&r, STATUS) & FULL, 0);
}

static void tell(unsigned byte) {
    rig_out(&r, DATA, byte);
}

/* As PCs have it: translated to set 1. */
static void test_keys(void **state) {
    command_with(0x60, IRQ1 | XLATE);
    assert_true(kbc_key(kbc, 0x1e, true)); /* a */
    assert_true(r.line[1]);
    expect("\x1e", 1);
    assert_false(r.line[1]);
    kbc_key(kbc, 0x1e, false);
    kbc_key(kbc, KEYBOARD_EXTENDED | 0x48, true); /* up arrow */
    kbc_key(kbc, KEYBOARD_EXTENDED | 0x48, false);
    expect("\x9e\xe0\x48\xe0\xc8", 5);
    kbc_key(kbc, KEYBOARD_PAUSE, true);
    kbc_key(kbc, KEYBOARD_PAUSE, false);
    expect("\xe1\x1d\x45\xe1\x9d\xc5", 6);
    kbc_key(kbc, KEYBOARD_PRINT, true);
    kbc_key(kbc, KEYBOARD_PRINT, false);
    expect("\xe0\x2a\xe0\x37\xe0\xb7\xe0\xaa", 8);
    for (unsigned key = 1; key <= 0x58; key++) {
        kbc_key(kbc, key, true);
        kbc_key(kbc, key, false);
        assert_int_equal(next(), key);
        assert_int_equal(next(), key | 0x80);
    }
    assert_false(kbc_key(kbc, 0, true));
    assert_false(kbc_key(kbc, KEYBOARD_EXTENDED, true));
    assert_false(kbc_key(kbc, 0x101, true));
}

static void test_sets(void **state) {
    command_with(0x60, 0);
    kbc_key(kbc, 0x41, true); /* F7 */
    kbc_key(kbc, 0x41, false);
    expect("\x83\xf0\x83", 3);
    kbc_key(kbc, KEYBOARD_PAUSE, true);
    expect("\xe1\x14\x77\xe1\xf0\x14\xf0\x77", 8);
    tell(0xf0);
    expect("\xfa", 1);
    tell(0);
    expect("\xfa\x02", 2);
    tell(0xf0);
    expect("\xfa", 1);
    tell(1);
    expect("\xfa", 1);
    kbc_key(kbc, 0x41, true);
    kbc_key(kbc, 0x41, false);
    expect("\x41\xc1", 2);
}

static void test_keyboard_commands(void **state) {
    command_with(0x60, 0);
    tell(0xff);
    expect("\xfa\xaa", 2);
    tell(0xf2);
    expect("\xfa\xab\x83", 3);
    tell(0xee);
    expect("\xee", 1);
    tell(0xfe);
    expect("\xee", 1);
    tell(0xed);
    expect("\xfa", 1);
    kbc_key(kbc, 0x1e, true); /* waits until the command is complete */
    assert_int_equal(rig_in(&r, STATUS) & FULL, 0);
    tell(7);
    expect("\xfa\x1c", 2);
    tell(0xed);
    expect("\xfa", 1);
    tell(0xf4); /* another command in place of its data */
    expect("\xfa", 1);
    tell(0x12);
    expect("\xfe", 1);
    tell(0xf5);
    expect("\xfa", 1);
    kbc_key(kbc, 0x1e, true);
    tell(0xf4);
    expect("\xfa", 1); /* what was typed meanwhile is not there */
    command_with(0xd4, 0xf2);
    take(AUX | TIMEOUT); /* the second port has nothing */
}

/* A closed port keeps what is typed, as much as there is room for. */
static void test_queue(void **state) {
    unsigned n = 0;

    command_with(0x60, KBD_OFF | XLATE);
    while (kbc_key(kbc, 0x1e, n % 2 == 0))
        n++;
    assert_in_range(n, KEYBOARD_QUEUE / 2, KEYBOARD_QUEUE);
    assert_int_equal(rig_in(&r, STATUS) & FULL, 0);
    command(0xae);
    for (unsigned k = 0; k < n; k++)
        assert_int_equal(next(), k % 2 ? 0x9e : 0x1e);
    assert_int_equal(rig_in(&r, STATUS) & FULL, 0);
}

/* --- with a mouse --- */

static int setup_mouse(void **state) {
    if (setup_keyboard(state))
        return -1;
    kbc_plug_mouse(kbc);
    kbc_reset(kbc);
    command_with(0x60, IRQ1 | IRQ12 | XLATE);
    return 0;
}

static void heard(const char *bytes, unsigned count) {
    while (count--) {
        assert_true(r.line[12]);
        assert_int_equal(rig_in(&r, STATUS) & (FULL | AUX | TIMEOUT), FULL | AUX);
        assert_int_equal(rig_in(&r, DATA), (uint8_t)*bytes++);
    }
    assert_false(r.line[12]);
    assert_int_equal(rig_in(&r, STATUS) & FULL, 0);
}

static void ask(unsigned byte, const char *bytes, unsigned count) {
    command_with(0xd4, byte);
    heard(bytes, count);
}

static void move(int dx, int dy, int dz, unsigned buttons) {
    const struct mouse_event e = {(int16_t)dx, (int16_t)dy, (int16_t)dz,
                                  (uint8_t)buttons};

    kbc_pointer(kbc, &e);
}

static void set_rates(unsigned a, unsigned b, unsigned c) {
    const unsigned rates[] = {a, b, c};

    for (unsigned n = 0; n < 3; n++) {
        ask(0xf3, "\xfa", 1);
        ask(rates[n], "\xfa", 1);
    }
}

static void test_mouse_commands(void **state) {
    ask(0xff, "\xfa\xaa\x00", 3);
    ask(0xf2, "\xfa\x00", 2);
    ask(0xe9, "\xfa\x00\x02\x64", 4);
    ask(0xe8, "\xfa", 1);
    ask(3, "\xfa", 1);
    ask(0xe7, "\xfa", 1);
    ask(0xf4, "\xfa", 1);
    ask(0xe9, "\xfa\x30\x03\x64", 4);
    ask(0xf6, "\xfa", 1);
    ask(0xe9, "\xfa\x00\x02\x64", 4);
    ask(0xfe, "\x64", 1); /* the last byte once more */
    ask(0x12, "\xfe", 1);
    ask(0xee, "\xfa", 1);
    ask(0xf4, "\xf4", 1); /* an echo */
    ask(0xec, "\xfa", 1);
    ask(0xec, "\xfa", 1);
    command_with(0x60, IRQ1);
    rig_out(&r, DATA, 0xee); /* the keyboard is where it was */
    assert_int_equal(take(0), 0xee);
}

static void test_mouse_moves(void **state) {
    move(1, 1, 0, MOUSE_LEFT); /* nobody listens: of this only the button is kept */
    ask(0xf4, "\xfa", 1);
    move(0, 0, 0, MOUSE_LEFT);
    assert_false(r.line[12]);
    move(5, 3, 0, MOUSE_LEFT);
    heard("\x29\x05\xfd", 3);
    move(-5, -3, 9, MOUSE_RIGHT | MOUSE_MIDDLE);
    heard("\x1e\xfb\x03", 3);
    move(300, 0, 0, 0);
    heard("\x08\xff\x00\x08\x2d\x00", 6);
    ask(0xf5, "\xfa", 1);
    move(1, 1, 0, 0);
    assert_false(r.line[12]);
    ask(0xeb, "\xfa\x08\x00\x00", 4); /* a packet when it is asked for */
}

/* The first byte of a packet is on its way; what comes after it is added up. */
static void test_mouse_adds_up(void **state) {
    ask(0xf4, "\xfa", 1);
    move(1, 0, 0, 0);
    for (unsigned n = 0; n < 100; n++)
        move(1, 1, 0, 0);
    move(0, 0, 0, MOUSE_LEFT);
    move(0, 0, 0, 0);
    move(2, 0, 0, 0);
    heard("\x08\x01\x00\x28\x64\x9c\x09\x00\x00\x08\x02\x00", 12);
    for (unsigned n = 0; n < 100000; n++) /* more than there is room for */
        move(1000, -1000, 0, n & 1);
    for (unsigned n = 0; rig_in(&r, STATUS) & FULL; n++) {
        assert_int_equal(rig_in(&r, DATA) & 0x08, 0x08);
        rig_in(&r, DATA);
        rig_in(&r, DATA);
        assert_true(n < 16 * (30000 / 255 + 2));
    }
}

static void test_mouse_wheel(void **state) {
    set_rates(200, 100, 80);
    ask(0xf2, "\xfa\x03", 2);
    ask(0xf4, "\xfa", 1);
    move(0, 0, -1, 0);
    heard("\x08\x00\x00\xff", 4);
    set_rates(200, 200, 80);
    ask(0xf2, "\xfa\x04", 2);
    move(1, 0, 9, MOUSE_SIDE | MOUSE_LEFT);
    heard("\x09\x01\x00\x17\x09\x00\x00\x12", 8);
    ask(0xff, "\xfa\xaa\x00", 3);
    ask(0xf2, "\xfa\x00", 2);
}

/* A closed port keeps what there is, and a packet in its middle ends by a command. */
static void test_mouse_port(void **state) {
    ask(0xf4, "\xfa", 1);
    command(0xa7);
    move(1, 2, 0, 0);
    assert_false(r.line[12]);
    command(0xa8);
    assert_int_equal(rig_in(&r, DATA), 0x28);
    ask(0xf5, "\x01\xfa", 2); /* the second byte waits already */
    kbc_key(kbc, 0x1e, true);
    assert_true(r.line[1]);
    expect("\x1e", 1);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define K(f) cmocka_unit_test_setup_teardown(f, setup_keyboard, teardown)
#define M(f) cmocka_unit_test_setup_teardown(f, setup_mouse, teardown)
    const struct CMUnitTest tests[] = {
        T(test_tests),         T(test_status),
        T(test_cells),         T(test_ports_off_and_on),
        T(test_nothing_there), T(test_interrupts),
        T(test_output_port),   T(test_reset_pulse),
        T(test_reset),         K(test_keys),
        K(test_sets),          K(test_keyboard_commands),
        K(test_queue),         M(test_mouse_commands),
        M(test_mouse_moves),   M(test_mouse_adds_up),
        M(test_mouse_wheel),   M(test_mouse_port),
    };
#undef T
#undef K
#undef M
    return cmocka_run_group_tests(tests, NULL, NULL);
}
