/*
 * The whole board without a CPU, wired as machine/board.c wires it, on a clock that the
 * test moves: what goes through several devices, and random accesses to all of them.
 */
#include "machine/machine_int.h"

#include "lib/rig.h"
#include "lib/rnd.h"
#include "lib/unit.h"

static struct rig r;
static struct board board;
static struct vcpu V;
static struct machine_cpu cpu;

static uint64_t on_realtime(void *arg) {
    return RIG_REALTIME_NS;
}

static int setup(void **state) {
    const struct uart_host serial = {0};

    rig_new(&r);
    memset(&V, 0, sizeof(V));
    cpu = (struct machine_cpu){.vcpu = &V, .clock = r.clock};
    if (os_bell_new(&cpu.bell))
        return -1;
    V.hooks = &board_vcpu_hooks;
    V.hooks_arg = &cpu;
    board = (struct board){.cpu = &cpu,
                           .cpus = 1,
                           .bus = r.bus,
                           .clock = r.clock,
                           .cnt = &r.cnt,
                           .realtime_ns = on_realtime};
    if (mem_create(64u << 20, &board.mem) || board_create(&board, &r.host, &serial))
        return -1;
    board_reset(&board);
    return 0;
}

static int teardown(void **state) {
    struct mem *mem = board.mem;

    os_bell_free(cpu.bell);
    board_destroy(&board);
    mem_destroy(mem);
    rig_free(&r);
    return 0;
}

/* Does an interrupt wait for the CPU? */
static bool intr(void) {
    return vcpu_events(&V) & VCPU_EVENT_IRQ;
}

static int ack(void) {
    return V.hooks->irq_ack(V.hooks_arg);
}

/* Memory accesses of a CPU, of SIZE bytes. */
static uint64_t cpu_read(uint64_t at, unsigned size) {
    struct exit e = {.reason = EXIT_mmio, .size = (uint8_t)size, .gpa = gpa(at)};

    V.hooks->exit(V.hooks_arg, &V, &e);
    return e.data;
}

static void cpu_write(uint64_t at, unsigned size, uint64_t value) {
    struct exit e = {.reason = EXIT_mmio,
                     .write = true,
                     .size = (uint8_t)size,
                     .gpa = gpa(at),
                     .data = value};

    V.hooks->exit(V.hooks_arg, &V, &e);
}

static void lapic_put(unsigned reg, uint32_t value) {
    cpu_write(LAPIC_BASE + reg, 4, value);
}

static void ioapic_put(unsigned reg, uint32_t value) {
    rig_write(&r, IOAPIC_BASE, reg);
    rig_write(&r, IOAPIC_BASE + 0x10, value);
}

static void cmos_put(unsigned i, unsigned value) {
    rig_out(&r, 0x70, i);
    rig_out(&r, 0x71, value);
}

static unsigned cmos(unsigned i) {
    rig_out(&r, 0x70, i);
    return rig_in(&r, 0x71);
}

static void pic_init(void) {
    rig_out(&r, 0x20, 0x11);
    rig_out(&r, 0x21, 0x30);
    rig_out(&r, 0x21, 0x04);
    rig_out(&r, 0x21, 0x01);
    rig_out(&r, 0xa0, 0x11);
    rig_out(&r, 0xa1, 0x38);
    rig_out(&r, 0xa1, 0x02);
    rig_out(&r, 0xa1, 0x01);
}

/* The 8254 through the 8259 and LINT0. */
static void test_virtual_wire(void **state) {
    unsigned ticks = 0;

    pic_init();
    rig_out(&r, 0x43, 0x34);
    rig_out(&r, 0x40, 11932 & 0xff);
    rig_out(&r, 0x40, 11932 >> 8); /* 100 Hz */
    while (ticks < 100) {
        rig_pass(&r, 1000000);
        if (!intr())
            continue;
        assert_int_equal(ack(), 0x30);
        assert_false(intr());
        rig_out(&r, 0x20, 0x20);
        ticks++;
    }
    assert_in_range(r.now, 1990000000u, 2005000000u);
}

/* The page of a local APIC is the CPU's own: moved over another device, it hides that. */
static void test_lapic_moves(void **state) {
    uint64_t base = IOAPIC_BASE | 0x900;
    uint32_t version = (uint32_t)cpu_read(LAPIC_BASE + 0x30, 4);

    cpu_write(IOAPIC_BASE, 4, 1);
    assert_int_not_equal(cpu_read(IOAPIC_BASE + 0x30, 4), version);
    /* Some bytes of its, and some of nobody's. */
    assert_int_equal(cpu_read(LAPIC_BASE + 0xffd, 4), 0xff000000);
    assert_int_equal(cpu_read(LAPIC_BASE + 0xfff, 4), 0xffffff00);
    assert_true(lapic_msr(cpu.lapic, 0x1b, true, &base));
    assert_int_equal(cpu_read(IOAPIC_BASE + 0x30, 4), version);
    assert_int_equal(cpu_read(LAPIC_BASE + 0x30, 4), 0xffffffff);
    lapic_reset(cpu.lapic);
    assert_int_equal(cpu_read(LAPIC_BASE + 0x30, 4), version);
    assert_int_equal(cpu_read(IOAPIC_BASE, 4), 1);
}

static void raise_pin(void *arg) {
    board_enter(&board, NULL);
    ioapic_set(board.ioapic, 5, true);
    board_leave(&board);
}

/* A line that another thread drives wakes the CPU that sleeps. */
static void test_other_thread(void **state) {
    struct os_thread *t;

    ioapic_put(0x10 + 2 * 5, 0x65);
    cpu.asleep = true;
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, raise_pin, NULL, &t), 0);
    assert_true(os_bell_wait(cpu.bell, -1, 0, UINT64_MAX));
    assert_true(intr());
    assert_int_equal(ack(), 0x65);
    os_thread_join(t);
}

/* Each ISA line by both ways: its 8259's input, and its pin, the 8254's at pin 2. */
static void test_lines(void **state) {
    pic_init();
    rig_out(&r, 0x43, 0x30); /* IRQ 0, once it has counted to 10 */
    ioapic_put(0x10 + 2 * 2, 0x62);
    rig_out(&r, 0x40, 10);
    rig_out(&r, 0x40, 0);
    rig_pass(&r, 20000);
    assert_int_equal(ack(), 0x30); /* LINT0 is before all else */
    assert_int_equal(ack(), 0x62);
    lapic_put(0xb0, 0);
    rig_out(&r, 0x20, 0x20);
    ioapic_put(0x10 + 2 * 1, 0x61);
    rig_out(&r, 0x64, 0x60);
    rig_out(&r, 0x60, 3);
    rig_out(&r, 0x64, 0xd2);
    rig_out(&r, 0x60, 'k');
    assert_int_equal(ack(), 0x31);
    assert_int_equal(ack(), 0x61);
    lapic_put(0xb0, 0);
    rig_out(&r, 0x20, 0x20);
    ioapic_put(0x10 + 2 * 12, 0x6c);
    rig_out(&r, 0x64, 0xd3);
    rig_out(&r, 0x60, 'm');
    assert_int_equal(ack(), 0x3c);
    assert_int_equal(ack(), 0x6c);
    lapic_put(0xb0, 0);
    rig_out(&r, 0xa0, 0x20);
    rig_out(&r, 0x20, 0x20);
    ioapic_put(0x10 + 2 * 8, 0x68);
    cmos_put(0xb, 0x12);
    rig_pass(&r, 1000000000);
    assert_int_equal(ack(), 0x38);
    assert_int_equal(ack(), 0x68);
    lapic_put(0xb0, 0);
    rig_out(&r, 0xa0, 0x20);
    rig_out(&r, 0x20, 0x20);
    ioapic_put(0x10 + 2 * 4, 0x64);
    rig_out(&r, UART_COM1_PORT + 1, 2);
    assert_int_equal(ack(), 0x34);
    assert_int_equal(ack(), 0x64);
    assert_false(intr());
}

/* The power button's SCI is a level: it comes again after each EOI until it is cleared.
 */
static void test_power(void **state) {
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    rig_out16(&r, PM_EVT_PORT + 2, 0x100);
    ioapic_put(0x10 + 9 * 2, 0x8051);
    assert_false(intr());
    pm_power_button(board.pm);
    for (unsigned k = 0; k < 3; k++) {
        assert_int_equal(ack(), 0x51);
        assert_int_equal(ack(), -1);
        lapic_put(0xb0, 0);
    }
    assert_int_equal(ack(), 0x51);
    rig_out16(&r, PM_EVT_PORT, 0x100);
    lapic_put(0xb0, 0);
    assert_false(intr());
    rig_out16(&r, PM_CNT_PORT, 0x3401);
    assert_int_equal(r.poweroffs, 1);
    rig_out(&r, 0x64, 0xfe);
    rig_out(&r, PORTS_RESET, 0x06);
    assert_int_equal(r.resets, 2);
    rig_out32(&r, PORTS_DEBUG_EXIT, 0x31);
    assert_int_equal(r.exit_value, 0x31);
}

/* The gate as the vCPU asks for it. */
static void test_a20(void **state) {
    assert_true(V.hooks->a20(V.hooks_arg));
    rig_out(&r, 0x64, 0xdd);
    assert_false(V.hooks->a20(V.hooks_arg));
    rig_out(&r, 0x92, 2);
    assert_true(V.hooks->a20(V.hooks_arg));
}

/* An NMI through the local APIC reaches the CPU. */
static void test_nmi(void **state) {
    lapic_put(0x300, 0x40400);
    assert_int_equal(vcpu_events(&V), VCPU_EVENT_NMI);
}

/* A CPU that waits for its SIPI, or is about to, keeps an NMI until it has started; an
 * INIT takes one back that came before it. */
static void test_nmi_of_init(void **state) {
    static const struct engine_ops no_ops;
    static const struct apic_msg init = {.mode = APIC_INIT}, nmi = {.mode = APIC_NMI},
                                 sipi = {.mode = APIC_SIPI, .vector = 8};

    cpu.ops = &no_ops;
    cpu.index = 1;
    V.mem = board.mem;
    V.cnt = &r.cnt;
    assert_int_equal(mmu_create(&V, MMU_FLUSH), 0);
    /* Before the INIT, before it is acted upon, while the CPU waits, behind the SIPI. */
    for (unsigned when = 0; when < 4; when++) {
        if (when == 0)
            lapic_deliver(cpu.lapic, &nmi, false);
        lapic_deliver(cpu.lapic, &init, false);
        if (when == 1)
            lapic_deliver(cpu.lapic, &nmi, false);
        machine_cpu_take_signals(&cpu);
        assert_true(cpu.waiting);
        if (when == 2)
            lapic_deliver(cpu.lapic, &nmi, false);
        lapic_deliver(cpu.lapic, &sipi, false);
        if (when == 3)
            lapic_deliver(cpu.lapic, &nmi, false);
        machine_cpu_take_signals(&cpu);
        assert_false(cpu.waiting);
        assert_int_equal(V.seg[SEG_CS].base + V.rip, 0x8000);
        assert_int_equal(!!(vcpu_events(&V) & VCPU_EVENT_NMI), when > 0);
    }
    mmu_destroy(&V);
}

/* The clock is at the last second that a counted run gets to, and may have come there in
 * one step: no sum wraps, and what is due next is in the future. */
static void test_far_future(void **state) {
    uint64_t never = ~0ull, end = 1ull << 62;

    for (unsigned jump = 0; jump < 2; jump++) {
        rig_out(&r, 0x43, 0x34);
        rig_out(&r, 0x40, 0x9c);
        rig_out(&r, 0x40, 0x2e); /* 100 Hz */
        lapic_put(0x320, 0x20040);
        lapic_put(0x3e0, 0xb);
        lapic_put(0x380, 1000000);
        cmos_put(0xb, 0x72); /* all three interrupts */
        rig_out16(&r, PM_EVT_PORT + 2, 1);
        if (!jump) {
            r.now = end - 1000000000;
            vclock_run(r.clock);
        }
        while (r.now < end) {
            assert_in_range(vclock_next(r.clock), r.now + 1, r.now + 1000000);
            r.now = vclock_next(r.clock);
            vclock_run(r.clock);
            if (intr())
                ack();
            lapic_put(0xb0, 0);
            cmos(0xc);
        }
        end += 1000000000;
    }
    lapic_put(0x320, 0x40050); /* TSC deadline: one that never comes */
    assert_true(lapic_msr(cpu.lapic, 0x6e0, true, &never));
    rig_out(&r, 0x43, 0x34);
    cmos_put(0xb, 2);
    assert_in_range(vclock_next(r.clock), end, VCLOCK_NEVER);
    assert_true(cpu.counters.irq_timer_lapic > 1900 && r.cnt.irq_rtc > 1900);
}

static void random_mmio(bool write) {
    uint64_t at = (one_in(2) ? IOAPIC_BASE : LAPIC_BASE) + pick(0x1008);
    unsigned size = 1u << pick(4);

    if (write)
        bus_mmio_write(r.bus, gpa(at), size, rnd() >> pick(64));
    else
        bus_mmio_read(r.bus, gpa(at), size);
}

static void random_msr(void) {
    uint64_t value = rnd() >> pick(64);

    lapic_msr(cpu.lapic,
              !one_in(8)  ? 0x800 + pick(64)
              : one_in(2) ? 0x1b
                          : 0x6e0,
              one_in(2), &value);
}

/* Nothing a guest does to the devices may hurt us or keep the clock from coming home. */
static void test_fuzz(void **state) {
    static const uint16_t ports[] = {0x20,  0x40,  0x60,  0x70,  0x80,  0x92,  0xa0,
                                     0xb2,  0x3b0, 0x3c0, 0x3d0, 0x3f8, 0x4d0, 0x600,
                                     0x608, 0x620, 0xcf8, 0xf0,  0xfff8};

    for (unsigned i = 0; i < 300000; i++) {
        uint16_t port = (uint16_t)(ports[pick(ARRAY_SIZE(ports))] + pick(16));
        uint64_t bytes = rnd();

        switch (pick(8)) {
        case 0 ... 1:
            bus_pio_write(r.bus, port, 1u << pick(3), (uint32_t)bytes);
            break;
        case 2:
            bus_pio_read(r.bus, port, 1u << pick(3));
            break;
        case 3 ... 4:
            random_mmio(one_in(2));
            break;
        case 5:
            random_msr();
            break;
        case 6:
            uart_receive(board.uart[0], (const uint8_t *)&bytes, 8);
            if (intr())
                ack();
            break;
        default:
            r.now += bytes >> (30 + pick(32));
            vclock_run(r.clock);
            break;
        }
    }
}

static const struct pci_identity card_identity = {.vendor = 0x1234, .device = 1};

static void config_put(unsigned slot, unsigned at, unsigned value) {
    rig_out32(&r, 0xcf8, 0x80000000u | slot << 11 | (at & 0xfc));
    rig_out(&r, 0xcfc + (at & 3), value);
}

/* What the second 8259 has been asked for. */
static unsigned requests(void) {
    rig_out(&r, 0xa0, 0x0a);
    return rig_in(&r, 0xa0);
}

/* A PCI device and an ISA device on one line: it is high while either drives it. */
static void test_shared_line(void **state) {
    struct pci_function card = {.pci = NULL};

    pic_init();
    rig_out(&r, 0x4d1, 1 << (PM_SCI_IRQ - 8));
    assert_int_equal(pci_add(board.pci.bus, &card, 3, 0, "card", &card_identity, NULL),
                     0);
    pci_use_intx(&card, 0);
    config_put(1, PIIX_ROUTE + piix_pirq(3, 0), PM_SCI_IRQ);
    pci_irq(&card, true);
    assert_int_equal(requests(), 2);
    rig_out16(&r, PM_EVT_PORT + 2, 0x100);
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    pm_power_button(board.pm);
    pci_irq(&card, false);
    assert_int_equal(requests(), 2);
    pci_irq(&card, true);
    rig_out16(&r, PM_EVT_PORT, 0x100);
    assert_int_equal(requests(), 2);
    pci_irq(&card, false);
    assert_int_equal(requests(), 0);
    pci_remove(&card);
}

/* A message comes to the local APIC, or to memory. */
static void test_messages(void **state) {
    struct pci_function card = {.pci = NULL};
    uint32_t got;

    assert_int_equal(pci_add(board.pci.bus, &card, 3, 0, "card", &card_identity, NULL),
                     0);
    assert_int_equal(pci_add_msi(&card, 1), 0);
    pci_config_write(&card, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    pci_config_write(&card, card.msi + 4, 4, LAPIC_BASE);
    pci_config_write(&card, card.msi + 12, 2, 0x45);
    pci_config_write(&card, card.msi + 2, 2, 1);
    pci_msi_raise(&card, 0);
    assert_true(intr());
    assert_int_equal(ack(), 0x45);
    pci_config_write(&card, card.msi + 4, 4, 0x1000);
    pci_msi_raise(&card, 0);
    assert_false(intr());
    assert_true(mem_read(board.mem, gpa(0x1000), &got, 4));
    assert_int_equal(got, 0x45);
    pci_remove(&card);
}

/* Port 0xcf9 between PCI's. */
static void test_reset_control(void **state) {
    rig_out32(&r, 0xcf8, 0x80000600);
    assert_int_equal(rig_in32(&r, 0xcf8), 0x80000600);
    assert_int_equal(r.resets, 0);
    rig_out(&r, 0xcf9, 2);
    assert_int_equal(rig_in(&r, 0xcf9), 2);
    rig_out(&r, 0xcf9, 6);
    assert_int_equal(r.resets, 1);
    assert_int_equal(rig_in32(&r, 0xcf8), 0x80000600);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_virtual_wire),  T(test_lapic_moves), T(test_other_thread),
        T(test_lines),         T(test_power),       T(test_a20),
        T(test_nmi),           T(test_nmi_of_init), T(test_far_future),
        T(test_fuzz),          T(test_shared_line), T(test_messages),
        T(test_reset_control),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
