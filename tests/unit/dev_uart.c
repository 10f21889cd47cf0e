/*
 * The serial port by itself: what is piped in reaches the guest whole and in order,
 * however the guest sets the port up; interrupts; loopback.
 */
#include "dev/pc/uart.h"
#include "lib/rig.h"
#include "lib/rnd.h"
#include "lib/unit.h"

#define MS 1000000u
enum { RBR, IER, FCR, LCR, MCR, LSR, MSR, SCR };
enum { IIR = FCR };
enum { RDI = 1, THRI = 2, RLSI = 4, MSI = 8 }; /* of IER */
enum {
    NO_INT = 1,
    INT_RLS = 6,
    INT_RDI = 4,
    INT_TIMEOUT = 0xc,
    INT_THRI = 2,
    INT_MSI = 0
};
enum { LOOP = 0x10, BREAK = 0x40, DLAB = 0x80 };

static struct rig r;
static struct uart *uart;
static unsigned rooms; /* calls of room() */
static char sent[4096];
static size_t nsent;

static void on_room(void *arg) {
    rooms++;
}

static size_t takes; /* so much more of it */

static size_t on_tx(void *arg, const uint8_t *bytes, size_t n) {
    n = n < takes ? n : takes;
    takes -= n;
    for (size_t k = 0; k < n && nsent < sizeof(sent); k++)
        sent[nsent++] = (char)bytes[k];
    return n;
}

static int setup(void **state) {
    struct uart_host host = {.room = on_room, .tx = on_tx};

    rig_new(&r);
    rooms = 0;
    nsent = 0;
    takes = SIZE_MAX;
    uart = uart_new(r.bus, r.clock, UART_COM1_PORT, rig_line(&r, UART_COM1_IRQ), &host,
                    &r.cnt);
    return uart ? 0 : -1;
}

static int teardown(void **state) {
    uart_free(uart);
    rig_free(&r);
    return 0;
}

static void out(unsigned reg, unsigned value) {
    rig_out(&r, UART_COM1_PORT + reg, value);
}

static unsigned in(unsigned reg) {
    return rig_in(&r, UART_COM1_PORT + reg);
}

static bool irq(void) {
    return r.line[UART_COM1_IRQ];
}

/* The interrupt that IIR names; reading it ends THRI's. */
static unsigned which(void) {
    return in(IIR)&0xf;
}

static void feed(const char *text) {
    assert_int_equal(uart_receive(uart, (const uint8_t *)text, strlen(text)),
                     strlen(text));
}

/* A driver reads TEXT, with all the time that it needs, and then nothing. */
static void expect(const char *text) {
    out(IER, 1);
    for (; *text; text++) {
        rig_pass(&r, 2 * MS);
        assert_int_equal(in(LSR)&1, 1);
        assert_int_equal(in(RBR), *text);
    }
    rig_pass(&r, 2 * MS);
    assert_int_equal(in(LSR)&1, 0);
}

/* Between the driver's write to IER and to FCR the host was busy: a character is out. */
static void test_fifo_enabled_late(void **state) {
    feed("AB");
    out(IER, 5);
    rig_pass(&r, 20 * MS);
    assert_int_equal(in(LSR)&1, 1);
    out(FCR, 1);
    expect("AB");
    assert_int_equal(rooms, 0); /* it never was full */
}

static void test_fifo_cleared_and_switched(void **state) {
    static const uint8_t writes[] = {7, 3, 0, 1, 0xc7, 0x03, 0x81, 0, 7};
    feed("a long line, more than a FIFO");
    out(IER, 1);
    for (unsigned i = 0; i < sizeof(writes); i++) {
        rig_pass(&r, 2 * MS);
        assert_int_equal(in(LSR)&1, 1);
        out(FCR, writes[i]);
    }
    expect("a long line, more than a FIFO");
}

static void test_reset_with_input(void **state) {
    feed("before the reset");
    out(FCR, 1);
    out(IER, 1);
    rig_pass(&r, 2 * MS);
    assert_int_equal(in(RBR), 'b');
    uart_reset(uart);
    assert_false(irq());
    feed("; after");
    expect("efore the reset; after");
}

/* What is handed out keeps its place in the queue: that is never over-full. */
static void test_room(void **state) {
    static uint8_t bytes[8192];
    size_t n = 0, i;

    for (i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i ^ i >> 8);
    out(FCR, 1);
    out(IER, 1);
    for (i = 0; i < 4; i++) {
        n += uart_receive(uart, bytes + n, sizeof(bytes) - n);
        rig_pass(&r, 2 * MS);
        out(FCR, 7); /* back they go */
    }
    assert_int_equal(uart_room(uart), 0);
    assert_true(n >= 4000 && n < sizeof(bytes));
    for (i = 0; i < n; i++) {
        rig_pass(&r, 2 * MS);
        assert_int_equal(in(LSR)&3, 1); /* no overrun */
        assert_int_equal(in(RBR), bytes[i]);
    }
    assert_true(rooms > 0);
    assert_int_equal(in(LSR)&1, 0);
}

/* Loopback beside input that waits: neither takes the other's place. */
static void test_loopback(void **state) {
    feed("xy");
    out(IER, 1);
    rig_pass(&r, 2 * MS); /* x is out */
    out(MCR, 0x10);
    out(RBR, '1'); /* 16450 mode: overwrites it */
    assert_int_equal(in(LSR)&3, 3);
    assert_int_equal(in(RBR), '1');
    assert_int_equal(in(LSR)&1, 0);
    out(RBR, '2');
    assert_true(irq()); /* interrupts are operational */
    out(FCR, 1);        /* drops what was looped */
    assert_int_equal(in(LSR)&1, 0);
    out(MCR, 0);
    rig_pass(&r, 2 * MS); /* x and y are out */
    out(MCR, 0x10);
    for (unsigned i = 0; i < 20; i++)
        out(RBR, '0' + i);
    assert_int_equal(in(LSR)&2, 2);
    assert_int_equal(in(RBR), 'x');
    assert_int_equal(in(RBR), 'y');
    for (unsigned i = 0; i < 14; i++)
        assert_int_equal(in(RBR), '0' + i);
    assert_int_equal(in(LSR)&1, 0);
}

/* Whatever MCR says: xv6 and others never set OUT2. */
static void test_irq_without_out2(void **state) {
    feed("k");
    assert_false(irq());
    out(IER, 1);
    rig_pass(&r, 2 * MS);
    assert_true(irq());
    assert_int_equal(in(RBR), 'k');
    assert_false(irq());
    out(IER, 2);
    assert_true(irq());
    assert_int_equal(in(FCR)&0xf, 2);
    assert_false(irq());
}

/* The trigger level of the FIFO: below it a silent line is a timeout. PC16550D, "FIFO
 * Interrupt Mode Operation". */
static void test_trigger_levels(void **state) {
    static const unsigned levels[] = {1, 4, 8, 14};

    out(IER, RDI);
    for (unsigned k = 0; k < 4; k++) {
        for (unsigned n = 1; n <= 16; n++) {
            out(FCR, 1 | k << 6);
            feed("0123456789abcdef" + 16 - n);
            rig_pass(&r, 2 * MS);
            for (unsigned left = n; left; left--) {
                assert_int_equal(in(IIR),
                                 0xc0 | (left >= levels[k] ? INT_RDI : INT_TIMEOUT));
                assert_true(irq());
                assert_int_equal(in(RBR), "0123456789abcdef"[16 - left]);
            }
            assert_int_equal(in(IIR), 0xc0 | NO_INT);
            assert_false(irq());
        }
    }
    out(FCR, 0xc0); /* without FIFOs there are no levels */
    feed("x");
    rig_pass(&r, 2 * MS);
    assert_int_equal(in(IIR), INT_RDI);
}

/* A FIFO takes 16 bytes a millisecond, the single register one. */
static void test_pace(void **state) {
    feed("0123456789abcdefghijklmnopqrstuvwxyz");
    out(FCR, 1);
    out(IER, RDI);
    rig_pass(&r, MS - 1);
    assert_int_equal(in(LSR)&1, 0); /* it waits for who means it */
    rig_pass(&r, 1);
    for (unsigned k = 0; k < 16; k++)
        in(RBR);
    assert_int_equal(in(LSR)&1, 0);
    rig_pass(&r, MS - 1);
    assert_int_equal(in(LSR)&1, 0);
    rig_pass(&r, 1);
    assert_int_equal(in(RBR), 'g');
    out(FCR, 0);
    rig_pass(&r, MS);
    assert_int_equal(in(RBR), 'h'); /* what was in the FIFO comes again */
    assert_int_equal(in(LSR)&1, 0);
}

/* Who polls LSR listens; who waits for THRE does not. */
static void test_polling(void **state) {
    feed("p");
    for (unsigned k = 0; k < 100; k++) {
        assert_int_equal(in(LSR), 0x60);
        out(RBR, '.');
    }
    for (unsigned k = 0; k < 100; k++) { /* nor who looks at something else as well */
        assert_int_equal(in(LSR), 0x60);
        in(LCR);
    }
    for (unsigned k = 0; k < 7; k++) {
        in(MSR); /* but the modem's lines are no matter: EDK2's driver polls so */
        in(MCR);
        assert_int_equal(in(LSR), 0x60);
    }
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(RBR), 'p');
    assert_false(irq());
}

/* Four interrupts at once, and the order in which IIR names them. */
static void test_interrupt_order(void **state) {
    out(MCR, LOOP);
    in(MSR);
    out(RBR, 'a');
    out(RBR, 'b'); /* an overrun */
    out(MCR, LOOP | 1);
    out(IER, RDI | THRI | RLSI | MSI);
    assert_int_equal(which(), INT_RLS);
    assert_int_equal(in(LSR)&2, 2);
    assert_int_equal(which(), INT_RDI);
    assert_int_equal(in(RBR), 'b');
    assert_int_equal(which(), INT_THRI);
    assert_int_equal(which(), INT_MSI);
    assert_true(irq());
    assert_int_equal(in(MSR), 0x22);
    assert_int_equal(which(), NO_INT);
    assert_false(irq());
}

/* Each bit of IER by itself lets its own interrupt through. */
static void test_interrupt_enable(void **state) {
    static const uint8_t of[] = {INT_RDI, INT_THRI, INT_RLS, INT_MSI};

    for (unsigned k = 0; k < 4; k++) {
        uart_reset(uart);
        out(MCR, LOOP);
        out(RBR, 'a');
        out(RBR, 'b');
        out(MCR, LOOP | 1);
        assert_false(irq());
        out(IER, 0xf0 | 1u << k);
        assert_int_equal(in(IER), 1u << k);
        assert_true(irq());
        assert_int_equal(which(), of[k]);
        out(IER, 0);
        assert_false(irq());
    }
}

/* THR is empty at once; its interrupt is one for each time it becomes so. */
static void test_transmitter(void **state) {
    out(IER, THRI);
    assert_int_equal(which(), INT_THRI);
    assert_int_equal(which(), NO_INT);
    out(IER, THRI); /* it was on */
    assert_int_equal(which(), NO_INT);
    out(RBR, 'O');
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(which(), INT_THRI);
    out(RBR, 'K');
    out(IER, 0);
    out(IER, THRI); /* enabled anew: it is empty */
    assert_int_equal(which(), INT_THRI);
    assert_int_equal(nsent, 0);
    rig_pass(&r, 2 * MS - 1);
    assert_int_equal(nsent, 0);
    rig_pass(&r, 1);
    assert_int_equal(nsent, 2);
    assert_memory_equal(sent, "OK", 2);
    assert_int_equal(r.cnt.uart_tx_flushes, 1);
    for (unsigned k = 0; k < 1500; k++)
        out(RBR, k);
    assert_int_equal(nsent, 2 + 1024); /* a full piece does not wait */
    uart_flush(uart);
    assert_int_equal(nsent, 2 + 1500);
    for (unsigned k = 0; k < 1500; k++)
        assert_int_equal((uint8_t)sent[2 + k], k & 0xff);
    assert_int_equal(r.cnt.uart_tx_bytes, 1502);
}

static unsigned write_while_ready(unsigned from, unsigned most) {
    unsigned n = 0;

    for (; n < most && (in(LSR)&0x20); n++)
        out(RBR, from + n);
    return n;
}

/* The host takes nothing: the transmitter is busy when less than a FIFO is free, and says
 * when it is not any more. */
static void test_busy_transmitter(void **state) {
    unsigned n;

    takes = 0;
    out(IER, THRI);
    n = write_while_ready(0, 5000);
    assert_int_equal(n, 1024 - 15);
    assert_int_equal(in(LSR)&0x60, 0);
    assert_int_equal(which(), NO_INT);
    assert_false(irq());
    rig_pass(&r, 100 * MS);
    assert_int_equal(nsent, 0);
    out(IER, 0);
    out(IER, THRI);
    assert_int_equal(which(), NO_INT); /* it is not empty */
    assert_false(uart_flush(uart));
    takes = 1; /* a FIFO is free now */
    assert_false(uart_flush(uart));
    assert_int_equal(nsent, 1);
    assert_true(irq());
    assert_int_equal(which(), INT_THRI);
    assert_int_equal(in(LSR)&0x60, 0x60);
    n += write_while_ready(n, 5000);
    takes = SIZE_MAX;
    assert_true(uart_flush(uart));
    assert_int_equal(nsent, n);
    for (unsigned k = 0; k < n; k++)
        assert_int_equal((uint8_t)sent[k], k & 0xff);
    assert_int_equal(r.cnt.uart_tx_lost, 0);
    /* Once it has been taken, pieces are collected as ever. */
    out(RBR, '!');
    rig_pass(&r, 2 * MS);
    assert_int_equal(nsent, n + 1);
}

/* Who does not look writes over nothing: what was written before stays. */
static void test_full_transmitter(void **state) {
    takes = 0;
    for (unsigned k = 0; k < 2000; k++)
        out(RBR, k);
    assert_int_equal(r.cnt.uart_tx_lost, 2000 - 1024);
    assert_int_equal(r.cnt.uart_tx_bytes, 1024);
    uart_reset(uart); /* it is on its way */
    takes = SIZE_MAX;
    assert_true(uart_flush(uart));
    assert_int_equal(nsent, 1024);
    for (unsigned k = 0; k < 1024; k++)
        assert_int_equal((uint8_t)sent[k], k & 0xff);
}

/* The divisor lies behind DLAB, and hides the registers that are not to change. */
static void test_divisor(void **state) {
    out(IER, RDI);
    out(LCR, DLAB | 3);
    assert_int_equal(in(RBR), 12);
    assert_int_equal(in(IER), 0);
    out(RBR, 0x34);
    out(IER, 0x12);
    assert_int_equal(in(RBR), 0x34);
    assert_int_equal(in(IER), 0x12);
    out(LCR, 3);
    assert_int_equal(in(LCR), 3);
    assert_int_equal(in(IER), RDI);
    rig_pass(&r, 3 * MS);
    assert_int_equal(nsent, 0);
    out(SCR, 0xa5);
    assert_int_equal(in(SCR), 0xa5);
    out(LSR, 0); /* neither can be written */
    out(MSR, 0);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0);
}

/* Loopback leads the modem's outputs to its inputs: RTS to CTS, DTR to DSR, OUT1 to RI,
 * OUT2 to DCD. A change is told until MSR is read; of RI only the end. */
static void test_modem(void **state) {
    static const struct {
        uint8_t mcr, msr;
    } steps[] = {
        {0x00, 0x0b}, {0x00, 0x00}, {0x02, 0x11}, {0x03, 0x32}, {0x0b, 0xb8},
        {0x0f, 0xf0}, {0x0b, 0xb4}, {0x0b, 0xb0}, {0x04, 0x4b}, {0x00, 0x04},
    };

    assert_int_equal(in(MSR), 0xb0);
    for (size_t k = 0; k < sizeof(steps) / sizeof(*steps); k++) {
        out(MCR, LOOP | steps[k].mcr);
        assert_int_equal(in(MCR), LOOP | steps[k].mcr);
        assert_int_equal(in(MSR), steps[k].msr);
    }
    out(MCR, 0xef); /* three bits there are not */
    assert_int_equal(in(MCR), 0x0f);
    assert_int_equal(in(MSR), 0xbb);
}

/* Changes add up until MSR is read. Each of them alone raises the interrupt. */
static void test_modem_changes(void **state) {
    out(MCR, LOOP);
    in(MSR);
    out(MCR, LOOP | 2);
    out(MCR, LOOP | 3);
    out(MCR, LOOP | 0xb);
    assert_int_equal(in(MSR), 0xbb);
    out(IER, MSI);
    for (unsigned k = 0; k < 4; k++) {
        assert_false(irq());
        out(MCR, LOOP | (0xb ^ 1u << k));
        if (k == 2) { /* of the ring indicator the end */
            assert_false(irq());
            out(MCR, LOOP | 0xb);
        }
        assert_true(irq());
        out(MCR, LOOP | 0xb);
        in(MSR);
    }
    assert_int_equal(r.cnt.irq_uart, r.rises[UART_COM1_IRQ]);
}

/* FCR that says the same again drops nothing; that clears what was looped. */
static void test_fifo_rewritten(void **state) {
    out(MCR, LOOP);
    out(FCR, 1);
    out(RBR, 'a');
    out(RBR, 'b');
    out(FCR, 0x81);
    assert_int_equal(in(RBR), 'a');
    assert_int_equal(in(LSR)&1, 1);
    out(FCR, 0x83);
    assert_int_equal(in(LSR)&1, 0);
}

/* As after power-up; what was written has left before. */
static void test_reset(void **state) {
    feed("typed");
    out(FCR, 0x81);
    out(IER, RDI | THRI);
    out(RBR, 'x');
    out(LCR, DLAB | 3);
    out(RBR, 1);
    out(LCR, 3);
    out(MCR, LOOP | 0xb);
    out(SCR, 0x55);
    uart_reset(uart);
    assert_int_equal(nsent, 1);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
    assert_int_equal(in(IER), 0);
    assert_int_equal(in(IIR), NO_INT);
    assert_int_equal(in(LCR), 0);
    assert_int_equal(in(MCR), 0);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0);
    assert_int_equal(in(SCR), 0);
    out(LCR, DLAB);
    assert_int_equal(in(RBR), 12);
    out(LCR, 0);
    expect("typed");
}

/* A break that the guest sends to itself is a zero with an error, once. */
static void test_break(void **state) {
    out(FCR, 1);
    out(LCR, BREAK);
    assert_int_equal(in(LSR), 0x60); /* nobody is at the other end */
    out(LCR, 0);
    out(MCR, LOOP);
    out(IER, RLSI);
    out(LCR, BREAK);
    assert_true(irq());
    assert_int_equal(which(), INT_RLS);
    assert_int_equal(in(LSR), 0x60 | 0x80 | 0x10 | 1);
    assert_false(irq());
    assert_int_equal(in(RBR), 0);
    assert_int_equal(in(LSR), 0x60);
    out(LCR, BREAK | 3);
    assert_int_equal(in(LSR), 0x60); /* still the same one */
}

/* As Linux probes it. */
static void test_probe(void **state) {
    out(MCR, LOOP | 0xa);
    assert_int_equal(in(MSR)&0xf0, 0x90);
    out(MCR, 8);
    out(FCR, 0x07);
    assert_int_equal(in(IIR), 0xc1);
    out(FCR, 0);
    assert_int_equal(in(IIR), NO_INT);
    assert_int_equal(rig_in(&r, 0x2f8 + LSR), 0xff); /* no COM2 */
}

/* NS later on a host that was busy meanwhile. */
static void later(uint64_t ns) {
    r.now += ns;
    vclock_run(r.clock);
}

/* Any program of register accesses: only a read of RBR takes a character, in order. */
static void test_any_driver(void **state) {
    unsigned next_in = 0, next_out = 0;
    uint8_t byte;

    for (unsigned i = 0; i < 200000; i++) {
        uint64_t s = rnd();

        switch ((s >> 20) % 12) {
        case 0:
            out(IER, s >> 32 & 0xf);
            break;
        case 1:
            out(FCR, s >> 32 & 0xff);
            break;
        case 2:
            out(MCR, s >> 32 & (s & 1 << 16 ? 0x0f : 0x1f));
            break;
        case 3:
            out(RBR, 0x80 | (s >> 32 & 0xff));
            break;
        case 4:
            out(LCR, s >> 32 & 0x43);
            break;
        case 5:
            if (!(s >> 32 & 0x3f))
                uart_reset(uart);
            break;
        case 6 ... 7:
            byte = (uint8_t)(1 + next_in % 127);
            next_in += (unsigned)uart_receive(uart, &byte, 1);
            break;
        case 8:
            later(s >> 44);
            break;
        default:
            if (!(in(LSR)&1))
                break;
            byte = (uint8_t)in(RBR);
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
        T(test_fifo_enabled_late),
        T(test_fifo_cleared_and_switched),
        T(test_reset_with_input),
        T(test_room),
        T(test_loopback),
        T(test_irq_without_out2),
        T(test_trigger_levels),
        T(test_pace),
        T(test_polling),
        T(test_interrupt_order),
        T(test_interrupt_enable),
        T(test_transmitter),
        T(test_busy_transmitter),
        T(test_full_transmitter),
        T(test_divisor),
        T(test_modem),
        T(test_modem_changes),
        T(test_fifo_rewritten),
        T(test_reset),
        T(test_break),
        T(test_probe),
        T(test_any_driver),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
