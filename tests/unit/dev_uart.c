/*
 * The serial port by itself: what is piped in reaches the guest whole and in order,
 * however the guest sets the port up; interrupts; loopback.
 */
#include "dev/pc/uart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000u
#define COM(reg) (UART_COM1_PORT + (reg))
enum { RBR, IER, FCR, LCR, MCR, LSR };

struct port {
    struct bus *bus;
    struct vclock *clock;
    struct uart *uart;
    struct counters cnt;
    uint64_t now;
    unsigned rooms; /* calls of room() */
    bool irq;
};

static uint64_t now(void *arg) {
    return ((struct port *)arg)->now;
}

static void on_irq(void *arg, unsigned n, bool level) {
    ((struct port *)arg)->irq = level;
}

static void on_room(void *arg) {
    ((struct port *)arg)->rooms++;
}

static int setup(void **state) {
    struct port *p = calloc(1, sizeof(*p));
    struct vclock_source src = {
        .now_ns = now, .ticks = now, .tick_hz = 1000000000u, .arg = p};
    struct uart_host host = {.room = on_room, .arg = p};

    p->now = 1000 * MS;
    p->clock = vclock_new(&src);
    p->bus = bus_new();
    p->uart = uart_new(p->bus, p->clock, UART_COM1_PORT,
                       (struct irq_line){on_irq, p, UART_COM1_IRQ}, &host, &p->cnt);
    assert_non_null(p->uart);
    *state = p;
    return 0;
}

static int teardown(void **state) {
    struct port *p = *state;

    uart_free(p->uart);
    bus_free(p->bus);
    vclock_free(p->clock);
    free(p);
    return 0;
}

static void out(struct port *p, unsigned reg, unsigned value) {
    bus_pio_write(p->bus, (uint16_t)COM(reg), 1, value);
}

static unsigned in(struct port *p, unsigned reg) {
    return bus_pio_read(p->bus, (uint16_t)COM(reg), 1);
}

static void pass(struct port *p, uint64_t ns) {
    p->now += ns;
    vclock_run(p->clock);
}

static void feed(struct port *p, const char *text) {
    assert_int_equal(uart_receive(p->uart, (const uint8_t *)text, strlen(text)),
                     strlen(text));
}

/* A driver reads TEXT, with all the time that it needs, and then nothing. */
static void expect(struct port *p, const char *text) {
    out(p, IER, 1);
    for (; *text; text++) {
        pass(p, 2 * MS);
        assert_int_equal(in(p, LSR) & 1, 1);
        assert_int_equal(in(p, RBR), *text);
    }
    pass(p, 2 * MS);
    assert_int_equal(in(p, LSR) & 1, 0);
}

/* Between the driver's write to IER and to FCR the host was busy: a character is out. */
static void test_fifo_enabled_late(void **state) {
    struct port *p = *state;

    feed(p, "AB");
    out(p, IER, 5);
    pass(p, 20 * MS);
    assert_int_equal(in(p, LSR) & 1, 1);
    out(p, FCR, 1);
    expect(p, "AB");
}

static void test_fifo_cleared_and_switched(void **state) {
    static const uint8_t writes[] = {7, 3, 0, 1, 0xc7, 0x03, 0x81, 0, 7};
    struct port *p = *state;

    feed(p, "a long line, more than a FIFO");
    out(p, IER, 1);
    for (unsigned i = 0; i < sizeof(writes); i++) {
        pass(p, 2 * MS);
        assert_int_equal(in(p, LSR) & 1, 1);
        out(p, FCR, writes[i]);
    }
    expect(p, "a long line, more than a FIFO");
}

static void test_reset_with_input(void **state) {
    struct port *p = *state;

    feed(p, "before the reset");
    out(p, FCR, 1);
    out(p, IER, 1);
    pass(p, 2 * MS);
    assert_int_equal(in(p, RBR), 'b');
    uart_reset(p->uart);
    assert_false(p->irq);
    feed(p, "; after");
    expect(p, "efore the reset; after");
}

/* What is handed out keeps its place in the queue: that is never over-full. */
static void test_room(void **state) {
    struct port *p = *state;
    static uint8_t bytes[8192];
    size_t n = 0, i;

    for (i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i ^ i >> 8);
    out(p, FCR, 1);
    out(p, IER, 1);
    for (i = 0; i < 4; i++) {
        n += uart_receive(p->uart, bytes + n, sizeof(bytes) - n);
        pass(p, 2 * MS);
        out(p, FCR, 7); /* back they go */
    }
    assert_int_equal(uart_room(p->uart), 0);
    assert_true(n >= 4000 && n < sizeof(bytes));
    for (i = 0; i < n; i++) {
        pass(p, 2 * MS);
        assert_int_equal(in(p, LSR) & 3, 1); /* no overrun */
        assert_int_equal(in(p, RBR), bytes[i]);
    }
    assert_true(p->rooms > 0);
    assert_int_equal(in(p, LSR) & 1, 0);
}

/* Loopback beside input that waits: neither takes the other's place. */
static void test_loopback(void **state) {
    struct port *p = *state;

    feed(p, "xy");
    out(p, IER, 1);
    pass(p, 2 * MS); /* x is out */
    out(p, MCR, 0x10);
    out(p, RBR, '1'); /* 16450 mode: overwrites it */
    assert_int_equal(in(p, LSR) & 3, 3);
    assert_int_equal(in(p, RBR), '1');
    assert_int_equal(in(p, LSR) & 1, 0);
    out(p, RBR, '2');
    assert_true(p->irq); /* interrupts are operational */
    out(p, FCR, 1);      /* drops what was looped */
    assert_int_equal(in(p, LSR) & 1, 0);
    out(p, MCR, 0);
    pass(p, 2 * MS); /* x and y are out */
    out(p, MCR, 0x10);
    for (unsigned i = 0; i < 20; i++)
        out(p, RBR, '0' + i);
    assert_int_equal(in(p, LSR) & 2, 2);
    assert_int_equal(in(p, RBR), 'x');
    assert_int_equal(in(p, RBR), 'y');
    for (unsigned i = 0; i < 14; i++)
        assert_int_equal(in(p, RBR), '0' + i);
    assert_int_equal(in(p, LSR) & 1, 0);
}

/* Whatever MCR says: xv6 and others never set OUT2. */
static void test_irq_without_out2(void **state) {
    struct port *p = *state;

    feed(p, "k");
    assert_false(p->irq);
    out(p, IER, 1);
    pass(p, 2 * MS);
    assert_true(p->irq);
    assert_int_equal(in(p, RBR), 'k');
    assert_false(p->irq);
    out(p, IER, 2);
    assert_true(p->irq);
    assert_int_equal(in(p, FCR) & 0xf, 2);
    assert_false(p->irq);
}

/* Any program of register accesses: only a read of RBR takes a character, in order. */
static void test_any_driver(void **state) {
    struct port *p = *state;
    unsigned next_in = 0, next_out = 0;
    uint8_t byte;
    uint64_t s = 88172645463325252ull;

    for (unsigned i = 0; i < 200000; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        switch ((s >> 20) % 12) {
        case 0:
            out(p, IER, s >> 32 & 0xf);
            break;
        case 1:
            out(p, FCR, s >> 32 & 0xff);
            break;
        case 2:
            out(p, MCR, s >> 32 & (s & 1 << 16 ? 0x0f : 0x1f));
            break;
        case 3:
            out(p, RBR, 0x80 | (s >> 32 & 0xff));
            break;
        case 4:
            out(p, LCR, s >> 32 & 0x43);
            break;
        case 5:
            if (!(s >> 32 & 0x3f))
                uart_reset(p->uart);
            break;
        case 6 ... 7:
            byte = (uint8_t)(1 + next_in % 127);
            next_in += (unsigned)uart_receive(p->uart, &byte, 1);
            break;
        case 8:
            pass(p, s >> 44);
            break;
        default:
            if (!(in(p, LSR) & 1))
                break;
            byte = (uint8_t)in(p, RBR);
            if (byte & 0x80 || !byte)
                break; /* looped: a character, a break */
            if (byte != 1 + next_out % 127)
                fail_msg("step %u: got %u, not %u", i, byte, 1 + next_out % 127);
            next_out++;
        }
    }
    assert_true(next_out > 1000);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_fifo_enabled_late), T(test_fifo_cleared_and_switched),
        T(test_reset_with_input),  T(test_room),
        T(test_loopback),          T(test_irq_without_out2),
        T(test_any_driver),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
