/*
 * The whole board without a CPU: devices wired as machine/ wires them, on a clock that
 * the test moves. Drives them as drivers do, and then with random accesses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/pc/kbc.h"
#include "dev/pc/pic.h"
#include "dev/pc/pit.h"
#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/pc/rtc.h"
#include "dev/pc/uart.h"
#include "dev/pc/vga.h"
#include "dev/pv/pvclock.h"
#include "dev/tables/acpi.h"

struct board {
    uint64_t now;
    struct vclock *clock;
    struct bus *bus;
    struct mem *mem;
    struct counters cnt;
    struct pic *pic;
    struct ioapic *ioapic;
    struct lapic *lapic;
    struct uart *uart;
    struct pit *pit;
    struct rtc *rtc;
    struct ports *ports;
    struct kbc *kbc;
    struct pm *pm;
    struct pvclock *pvclock;
    struct vga *vga;
    char tx[256];
    size_t tx_len;
    unsigned resets, poweroffs, nmis;
    uint32_t exit_value;
    bool intr;
};

static uint64_t fake_now(void *arg) {
    return ((struct board *)arg)->now;
}

static uint64_t fake_ticks(void *arg) {
    return ((struct board *)arg)->now * 2;
}

static void isa_set(void *arg, unsigned n, bool level) {
    struct board *b = arg;

    pic_set(b->pic, n, level);
    ioapic_set(b->ioapic, n ? n : 2, level);
}

static void pic_out(void *arg, bool level) {
    struct board *b = arg;

    if (b->lapic)
        lapic_lint(b->lapic, 0, level);
}

static bool to_lapic(void *arg, const struct apic_msg *m) {
    return lapic_deliver(((struct board *)arg)->lapic, m);
}

static void on_intr(void *arg, bool pending) {
    ((struct board *)arg)->intr = pending;
}

static void on_nmi(void *arg) {
    ((struct board *)arg)->nmis++;
}

static int on_extint(void *arg) {
    return pic_ack(((struct board *)arg)->pic);
}

static void on_eoi(void *arg, uint8_t vector) {
    ioapic_eoi(((struct board *)arg)->ioapic, vector);
}

static void on_tx(void *arg, const uint8_t *bytes, size_t n) {
    struct board *b = arg;
    size_t i;

    for (i = 0; i < n; i++)
        b->tx[b->tx_len++ % sizeof(b->tx)] = (char)bytes[i];
}

static void on_reset(void *arg) {
    ((struct board *)arg)->resets++;
}

static void on_poweroff(void *arg) {
    ((struct board *)arg)->poweroffs++;
}

static void on_exit_port(void *arg, uint32_t value) {
    ((struct board *)arg)->exit_value = value;
}

static uint64_t fixed_time(void *arg) {
    return 1700000000ull * 1000000000u; /* 2023-11-14 22:13:20 UTC, a Tuesday */
}

static struct irq_line line(struct board *b, unsigned n) {
    return (struct irq_line){isa_set, b, n};
}

static int setup(void **state) {
    struct board *b = calloc(1, sizeof(*b));
    struct vclock_source src = {
        .now_ns = fake_now, .ticks = fake_ticks, .tick_hz = 2000000000u, .arg = b};
    struct dev_host host = {
        .poweroff = on_poweroff, .reset = on_reset, .debug_exit = on_exit_port, .arg = b};
    struct lapic_host lh = {on_intr, on_nmi, NULL, on_extint, on_eoi, b};
    struct uart_host uh = {.tx = on_tx, .arg = b};
    struct rtc_config rc = {.realtime_ns = fixed_time, .ram_size = 64u << 20};
    struct pvclock_config pc = {.realtime_ns = fixed_time};

    b->now = 1000000000;
    b->clock = vclock_new(&src);
    b->bus = bus_new();
    assert_int_equal(mem_create(64u << 20, &b->mem), 0);
    b->pic = pic_new(b->bus, pic_out, b, &b->cnt);
    b->ioapic = ioapic_new(b->bus, to_lapic, b, &b->cnt);
    b->lapic = lapic_new(b->bus, b->clock, &lh, &b->cnt);
    b->uart = uart_new(b->bus, b->clock, UART_COM1_PORT, line(b, 4), &uh, &b->cnt);
    b->pit = pit_new(b->bus, b->clock, line(b, 0), &b->cnt);
    b->rtc = rtc_new(b->bus, b->clock, line(b, 8), &rc, &b->cnt);
    b->ports = ports_new(b->bus, &host);
    b->kbc = kbc_new(b->bus, line(b, 1), line(b, 12), b->ports, &host);
    b->pm = pm_new(b->bus, b->clock, line(b, 9), &host);
    b->pvclock = pvclock_new(b->mem, b->clock, &pc, &b->cnt);
    b->vga = vga_new(b->bus, b->clock);
    assert_true(b->pic && b->ioapic && b->lapic && b->uart && b->pit && b->rtc);
    assert_true(b->ports && b->kbc && b->pm && b->pvclock && b->vga);
    *state = b;
    return 0;
}

static int teardown(void **state) {
    struct board *b = *state;

    vga_free(b->vga);
    pvclock_free(b->pvclock);
    pm_free(b->pm);
    kbc_free(b->kbc);
    ports_free(b->ports);
    rtc_free(b->rtc);
    pit_free(b->pit);
    uart_free(b->uart);
    lapic_free(b->lapic);
    ioapic_free(b->ioapic);
    pic_free(b->pic);
    mem_destroy(b->mem);
    bus_free(b->bus);
    assert_int_equal(vclock_next(b->clock), VCLOCK_NEVER);
    vclock_free(b->clock);
    free(b);
    return 0;
}

static void outb(struct board *b, unsigned port, unsigned v) {
    bus_pio_write(b->bus, (uint16_t)port, 1, v);
}

static unsigned inb(struct board *b, unsigned port) {
    return bus_pio_read(b->bus, (uint16_t)port, 1);
}

static void pass(struct board *b, uint64_t ns) {
    uint64_t end = b->now + ns;

    while (vclock_next(b->clock) <= end) {
        if (vclock_next(b->clock) > b->now)
            b->now = vclock_next(b->clock);
        vclock_run(b->clock);
    }
    b->now = end;
}

static void pic_init(struct board *b) {
    outb(b, 0x20, 0x11);
    outb(b, 0x21, 0x30);
    outb(b, 0x21, 0x04);
    outb(b, 0x21, 0x01);
    outb(b, 0xa0, 0x11);
    outb(b, 0xa1, 0x38);
    outb(b, 0xa1, 0x02);
    outb(b, 0xa1, 0x01);
}

static uint32_t lr(struct board *b, unsigned reg) {
    return (uint32_t)bus_mmio_read(b->bus, gpa(LAPIC_BASE + reg), 4);
}

static void lw(struct board *b, unsigned reg, uint32_t v) {
    bus_mmio_write(b->bus, gpa(LAPIC_BASE + reg), 4, v);
}

static void test_pit_through_virtual_wire(void **state) {
    struct board *b = *state;
    unsigned ticks = 0;

    pic_init(b);
    outb(b, 0x43, 0x34);
    outb(b, 0x40, 11932 & 0xff);
    outb(b, 0x40, 11932 >> 8); /* 100 Hz */
    while (ticks < 100) {
        pass(b, 1000000);
        if (!b->intr)
            continue;
        assert_int_equal(lapic_ack(b->lapic), 0x30);
        assert_false(b->intr);
        outb(b, 0x20, 0x20);
        ticks++;
    }
    assert_in_range(b->now, 1990000000u, 2005000000u);
}

static void test_pit_modes(void **state) {
    struct board *b = *state;

    outb(b, 0x61, 1);
    outb(b, 0x43, 0xb0); /* channel 2, mode 0 */
    outb(b, 0x42, 0x00);
    outb(b, 0x42, 0x10);
    assert_int_equal(inb(b, 0x61) & 0x20, 0);
    pass(b, 4096ull * 1000000000u / PIT_HZ + 3000);
    assert_int_equal(inb(b, 0x61) & 0x20, 0x20);
    outb(b, 0x43, 0xe8); /* read back: status of channel 2 */
    assert_int_equal(inb(b, 0x42), 0xb0);
    outb(b, 0x43, 0xb6); /* mode 3, the shortest periods */
    outb(b, 0x42, 1);
    outb(b, 0x42, 0);
    pass(b, 1000000);
    outb(b, 0x43, 0x34);
    outb(b, 0x40, 1);
    outb(b, 0x40, 0);
    pass(b, 10000000);
    assert_in_range(b->cnt.irq_timer_pit, 1, 250);
}

static void test_pic_priorities(void **state) {
    struct board *b = *state;

    pic_init(b);
    isa_set(b, 4, true);
    isa_set(b, 9, true);
    assert_int_equal(pic_ack(b->pic), 0x39); /* the slave is before IRQ 4 */
    assert_false(pic_pending(b->pic));
    isa_set(b, 1, true);
    assert_true(pic_pending(b->pic));
    assert_int_equal(pic_ack(b->pic), 0x31);
    outb(b, 0x20, 0x20);
    assert_false(pic_pending(b->pic));
    outb(b, 0xa0, 0x20);
    outb(b, 0x20, 0x20);
    assert_int_equal(pic_ack(b->pic), 0x34);
    outb(b, 0x20, 0x64);
    assert_int_equal(pic_ack(b->pic), 0x37); /* nothing: spurious */
    outb(b, 0x20, 0x0b);
    assert_int_equal(inb(b, 0x20), 0);
}

static void test_uart(void **state) {
    struct board *b = *state;
    unsigned i;

    assert_int_equal(inb(b, 0x2f8 + 5), 0xff);
    outb(b, 0x3fc, 0x1a); /* loopback as Linux probes it */
    assert_int_equal(inb(b, 0x3fe) & 0xf0, 0x90);
    outb(b, 0x3fc, 0x08);
    outb(b, 0x3fa, 0x07);
    assert_int_equal(inb(b, 0x3fa), 0xc1);
    assert_int_equal(uart_receive(b->uart, (const uint8_t *)"hello", 5), 5);
    pass(b, 10000000);
    assert_int_equal(inb(b, 0x3fd), 0x60); /* nobody listens: it waits */
    outb(b, 0x3f9, 1);
    pass(b, 2000000);
    assert_int_equal(inb(b, 0x3fa), 0xc4);
    for (i = 0; i < 5; i++)
        assert_int_equal(inb(b, 0x3f8), "hello"[i]);
    assert_int_equal(inb(b, 0x3fa), 0xc1);
    outb(b, 0x3f9, 2);
    assert_int_equal(inb(b, 0x3fa), 0xc2);
    assert_int_equal(inb(b, 0x3fa), 0xc1);
    outb(b, 0x3f8, 'O');
    outb(b, 0x3f8, 'K');
    assert_int_equal(inb(b, 0x3fa), 0xc2);
    assert_int_equal(b->tx_len, 0);
    pass(b, 5000000);
    assert_memory_equal(b->tx, "OK", 2);
    assert_int_equal(b->cnt.uart_tx_flushes, 1);
}

static void test_ioapic_level(void **state) {
    struct board *b = *state;

    bus_mmio_write(b->bus, gpa(IOAPIC_BASE), 4, 0x10 + 9 * 2);
    bus_mmio_write(b->bus, gpa(IOAPIC_BASE + 0x10), 4, 0x8051);
    isa_set(b, 9, true);
    assert_int_equal(lapic_ack(b->lapic), 0x51);
    assert_int_equal(lapic_ack(b->lapic), -1);
    lw(b, 0xb0, 0); /* EOI while the line is high: again */
    assert_int_equal(lapic_ack(b->lapic), 0x51);
    isa_set(b, 9, false);
    lw(b, 0xb0, 0);
    assert_int_equal(lapic_ack(b->lapic), -1);
    assert_int_equal(bus_mmio_read(b->bus, gpa(IOAPIC_BASE + 0x10), 4), 0x8051);
}

static void test_lapic(void **state) {
    struct board *b = *state;
    uint64_t v;

    lw(b, 0x320, 0x20040); /* periodic, 1 ms */
    lw(b, 0x3e0, 0xb);
    lw(b, 0x380, 1000000);
    pass(b, 999999);
    assert_false(b->intr);
    assert_in_range(lr(b, 0x390), 0, 2);
    pass(b, 1);
    assert_int_equal(lapic_ack(b->lapic), 0x40);
    pass(b, 1000000);
    assert_false(b->intr); /* the first is in service */
    lw(b, 0xb0, 0);
    assert_true(b->intr);
    lapic_cr8_set(b->lapic, 4);
    assert_false(b->intr);
    lapic_cr8_set(b->lapic, 3);
    assert_int_equal(lapic_ack(b->lapic), 0x40);
    lw(b, 0xb0, 0);
    lw(b, 0x320, 0x40050); /* TSC deadline */
    v = vclock_tsc(b->clock) + 2000000;
    assert_true(lapic_msr(b->lapic, 0x6e0, true, &v));
    pass(b, 999999);
    assert_false(b->intr);
    pass(b, 2);
    assert_int_equal(lapic_ack(b->lapic), 0x50);
    assert_true(lapic_msr(b->lapic, 0x6e0, false, &v));
    assert_int_equal(v, 0);
    lw(b, 0xb0, 0);
    lw(b, 0x300, 0x40060); /* self */
    assert_int_equal(lapic_ack(b->lapic), 0x60);
}

/* A timer that has ended, but was not run yet because the clock's alarm is late, has
 * ended all the same: under the settings of its time. */
static void test_lapic_late(void **state) {
    struct board *b = *state;

    lw(b, 0x3e0, 0xb);
    lw(b, 0x320, 0x10040); /* one-shot, masked */
    lw(b, 0x380, 1000);
    b->now += 2000;
    assert_int_equal(lr(b, 0x390), 0);
    lw(b, 0x320, 0x40); /* too late for the one that was masked */
    pass(b, 10000);
    assert_false(b->intr);
    lw(b, 0x380, 1000);
    b->now += 2000;
    lw(b, 0x320, 0x10040);
    assert_true(b->intr); /* masked after its time */
    assert_int_equal(lapic_ack(b->lapic), 0x40);
    lw(b, 0xb0, 0);
    lw(b, 0x320, 0x40);
    lw(b, 0x380, 1000);
    b->now += 2000;
    lw(b, 0x380, 1000); /* the next one does not take the first one's interrupt away */
    assert_int_equal(lapic_ack(b->lapic), 0x40);
    lw(b, 0xb0, 0);
    pass(b, 1000);
    assert_int_equal(lapic_ack(b->lapic), 0x40);
    lw(b, 0xb0, 0);
    pass(b, 10000);
    assert_false(b->intr);
}

static void test_x2apic(void **state) {
    struct board *b = *state;
    uint64_t v = LAPIC_BASE | 0x900;

    assert_false(lapic_msr(b->lapic, 0x802, false, &v));
    v = LAPIC_BASE | 0x400;
    assert_false(lapic_msr(b->lapic, 0x1b, true, &v));
    v = LAPIC_BASE | 0xd00;
    assert_true(lapic_msr(b->lapic, 0x1b, true, &v));
    assert_int_equal(lr(b, 0x30), 0xffffffff);
    assert_true(lapic_msr(b->lapic, 0x80d, false, &v));
    assert_int_equal(v, 1);
    assert_false(lapic_msr(b->lapic, 0x80d, true, &v));
    v = 0x100;
    assert_false(lapic_msr(b->lapic, 0x808, true, &v));
    v = 0x77;
    assert_true(lapic_msr(b->lapic, 0x83f, true, &v));
    assert_int_equal(lapic_ack(b->lapic), 0x77);
    v = 0x5700; /* status bits are ignored, as Linux expects at power off */
    assert_true(lapic_msr(b->lapic, 0x835, true, &v));
    assert_true(lapic_msr(b->lapic, 0x835, false, &v));
    assert_int_equal(v, 0x700);
    v = 0x5000; /* no remote IRR in the timer's entry */
    assert_false(lapic_msr(b->lapic, 0x832, true, &v));
    v = LAPIC_BASE | 0x900;
    assert_false(lapic_msr(b->lapic, 0x1b, true, &v));
}

static unsigned cmos(struct board *b, unsigned i) {
    outb(b, 0x70, i);
    return inb(b, 0x71);
}

static void test_rtc(void **state) {
    struct board *b = *state;

    assert_int_equal(cmos(b, 0), 0x20);
    assert_int_equal(cmos(b, 2), 0x13);
    assert_int_equal(cmos(b, 4), 0x22);
    assert_int_equal(cmos(b, 7), 0x14);
    assert_int_equal(cmos(b, 8), 0x11);
    assert_int_equal(cmos(b, 9), 0x23);
    assert_int_equal(cmos(b, 0x32), 0x20);
    cmos(b, 1);
    outb(b, 0x71, 0x25); /* alarm at :25, any minute and hour */
    cmos(b, 3);
    outb(b, 0x71, 0xff);
    cmos(b, 5);
    outb(b, 0x71, 0xff);
    cmos(b, 0xb);
    outb(b, 0x71, 0x22);
    pass(b, 4999999999u);
    assert_int_equal(b->cnt.irq_rtc, 0);
    pass(b, 2);
    assert_int_equal(b->cnt.irq_rtc, 1);
    assert_int_equal(cmos(b, 0xc) & 0xa0, 0xa0);
    cmos(b, 0xb);
    outb(b, 0x71, 0x42); /* periodic, 1024 Hz */
    pass(b, 1000000);
    assert_int_equal(cmos(b, 0xc) & 0xc0, 0xc0);
}

static void test_power(void **state) {
    struct board *b = *state;

    outb(b, 0xb2, PM_ACPI_ENABLE);
    assert_int_equal(bus_pio_read(b->bus, PM_CNT_PORT, 2), 1);
    bus_pio_write(b->bus, PM_EVT_PORT + 2, 2, 0x100);
    pm_power_button(b->pm);
    bus_mmio_write(b->bus, gpa(IOAPIC_BASE), 4, 0x10 + 9 * 2);
    bus_mmio_write(b->bus, gpa(IOAPIC_BASE + 0x10), 4, 0x8051);
    assert_int_equal(lapic_ack(b->lapic), 0x51);
    bus_pio_write(b->bus, PM_CNT_PORT, 2, 0x1401);
    assert_int_equal(b->poweroffs, 0);
    bus_pio_write(b->bus, PM_CNT_PORT, 2, 0x3401);
    assert_int_equal(b->poweroffs, 1);
    bus_pio_write(b->bus, 0xcf8, 4, 0x8000fe06);
    assert_int_equal(bus_pio_read(b->bus, 0xcfc, 4), 0xffffffff);
    assert_int_equal(b->resets, 0);
    outb(b, 0xcf9, 0x06);
    assert_int_equal(b->resets, 1);
    outb(b, 0x64, 0xfe);
    assert_int_equal(b->resets, 2);
    bus_pio_write(b->bus, 0xf4, 4, 0x31);
    assert_int_equal(b->exit_value, 0x31);
    outb(b, 0x64, 0xdd);
    assert_false(ports_a20(b->ports));
    outb(b, 0x92, 2);
    assert_true(ports_a20(b->ports));
    outb(b, 0x64, 0xaa);
    assert_int_equal(inb(b, 0x60), 0x55);
}

static void test_pvclock(void **state) {
    struct board *b = *state;
    uint64_t v = 0x5001, sys, tsc;
    uint32_t mult;
    int8_t shift;

    pass(b, 5000);
    assert_true(pvclock_msr(b->pvclock, 0x4b564d01, true, &v));
    assert_true(mem_read(b->mem, gpa(0x5008), &tsc, 8));
    assert_true(mem_read(b->mem, gpa(0x5010), &sys, 8));
    assert_true(mem_read(b->mem, gpa(0x5018), &mult, 4));
    assert_true(mem_read(b->mem, gpa(0x501c), &shift, 1));
    assert_int_equal(tsc, vclock_tsc(b->clock));
    assert_int_equal(sys, 5000);
    v = 2000000000; /* ticks of a second */
    v = shift < 0 ? v >> -shift : v << shift;
    v = (uint64_t)(((unsigned __int128)v * mult) >> 32);
    assert_in_range(v, 999999990, 1000000000);
    v = ~0ull;
    assert_true(pvclock_msr(b->pvclock, 0x4b564d01, true, &v));
    assert_true(pvclock_msr(b->pvclock, 0x4b564d00, true, &v));
}

/* The clock is at the last second that a counted run gets to, and may have come there in
 * one step: no sum wraps, and what is due next is in the future. */
static void test_far_future(void **state) {
    struct board *b = *state;
    uint64_t never = ~0ull, end = 1ull << 62;

    for (unsigned jump = 0; jump < 2; jump++) {
        outb(b, 0x43, 0x34);
        outb(b, 0x40, 0x9c);
        outb(b, 0x40, 0x2e); /* 100 Hz */
        lw(b, 0x320, 0x20040);
        lw(b, 0x3e0, 0xb);
        lw(b, 0x380, 1000000);
        cmos(b, 0xb);
        outb(b, 0x71, 0x72); /* all three interrupts */
        bus_pio_write(b->bus, PM_EVT_PORT + 2, 2, 1);
        if (!jump) {
            b->now = end - 1000000000;
            vclock_run(b->clock);
        }
        while (b->now < end) {
            assert_in_range(vclock_next(b->clock), b->now + 1, b->now + 1000000);
            b->now = vclock_next(b->clock);
            vclock_run(b->clock);
            if (b->intr)
                lapic_ack(b->lapic);
            lw(b, 0xb0, 0);
            cmos(b, 0xc);
        }
        end += 1000000000;
    }
    lw(b, 0x320, 0x40050); /* TSC deadline: one that never comes */
    assert_true(lapic_msr(b->lapic, 0x6e0, true, &never));
    outb(b, 0x43, 0x34);
    cmos(b, 0xb);
    outb(b, 0x71, 2);
    assert_in_range(vclock_next(b->clock), end, VCLOCK_NEVER);
    assert_true(b->cnt.irq_timer_lapic > 1900 && b->cnt.irq_rtc > 1900);
}

static void test_acpi(void **state) {
    static const char *const cmd =
        "cd /tmp && iasl -d bivisor-acpi-test.dat >/dev/null 2>&1";
    struct board *b = *state;
    struct acpi_config cfg = {.cpus = 1};
    struct gpa rsdp;
    uint8_t t[ACPI_MAX_SIZE];
    uint64_t len;
    uint32_t at, size, i, tables = 0;
    uint8_t sum;

    assert_int_equal(acpi_build(b->mem, gpa(ACPI_WHERE), &cfg, &rsdp, &len), 0);
    assert_true(len <= sizeof(t));
    assert_true(mem_read(b->mem, rsdp, t, len));
    for (sum = 0, i = 0; i < 36; i++)
        sum += t[i];
    assert_int_equal(sum, 0);
    for (at = 64; at + 36 <= len; at += 16) {
        if (memcmp(t + at, "DSDT", 4) && memcmp(t + at, "FACP", 4) &&
            memcmp(t + at, "APIC", 4) && memcmp(t + at, "RSDT", 4) &&
            memcmp(t + at, "XSDT", 4))
            continue;
        memcpy(&size, t + at + 4, 4);
        assert_true(at + size <= len);
        for (sum = 0, i = 0; i < size; i++)
            sum += t[at + i];
        assert_int_equal(sum, 0);
        tables++;
        if (!memcmp(t + at, "RSDT", 4) || system("command -v iasl >/dev/null 2>&1"))
            continue;
        FILE *f = fopen("/tmp/bivisor-acpi-test.dat", "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(t + at, 1, size, f), size);
        fclose(f);
        assert_int_equal(system(cmd), 0);
    }
    assert_int_equal(tables, 5);
}

static uint64_t next_random(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Nothing a guest does to the devices may hurt us or keep the clock from coming home. */
static void test_fuzz(void **state) {
    static const uint16_t ports[] = {0x20,  0x40,  0x60,  0x70,  0x80,  0x92,  0xa0,
                                     0xb2,  0x3b0, 0x3c0, 0x3d0, 0x3f8, 0x4d0, 0x600,
                                     0x608, 0x620, 0xcf8, 0xf0,  0xfff8};
    struct board *b = *state;
    uint64_t s = 88172645463325252ull, r, v;
    unsigned i;

    for (i = 0; i < 300000; i++) {
        r = next_random(&s);
        v = next_random(&s);
        uint16_t port = (uint16_t)(ports[r % ARRAY_SIZE(ports)] + (r >> 8) % 16);
        unsigned size = 1u << ((r >> 16) % 3);
        uint64_t off = (r >> 24) % 0x1008;

        switch ((r >> 40) % 8) {
        case 0 ... 1:
            bus_pio_write(b->bus, port, size, (uint32_t)v);
            break;
        case 2:
            bus_pio_read(b->bus, port, size);
            break;
        case 3:
            bus_mmio_write(b->bus, gpa((v & 1 ? IOAPIC_BASE : LAPIC_BASE) + off),
                           1u << ((r >> 16) % 4), v >> (r >> 58));
            break;
        case 4:
            bus_mmio_read(b->bus, gpa((v & 1 ? IOAPIC_BASE : LAPIC_BASE) + off),
                          1u << ((r >> 16) % 4));
            break;
        case 5:
            v >>= r >> 58;
            lapic_msr(b->lapic,
                      r & 7   ? 0x800 + (r >> 8) % 64
                      : r & 8 ? 0x1b
                              : 0x6e0,
                      r >> 30 & 1, &v);
            break;
        case 6:
            uart_receive(b->uart, (const uint8_t *)&v, 8);
            if (lapic_pending(b->lapic))
                lapic_ack(b->lapic);
            break;
        default:
            b->now += v >> (30 + (r >> 59));
            vclock_run(b->clock);
            break;
        }
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_pit_through_virtual_wire),
        T(test_pit_modes),
        T(test_pic_priorities),
        T(test_uart),
        T(test_ioapic_level),
        T(test_lapic),
        T(test_lapic_late),
        T(test_x2apic),
        T(test_rtc),
        T(test_power),
        T(test_pvclock),
        T(test_far_future),
        T(test_acpi),
        T(test_fuzz),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
