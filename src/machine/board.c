/*
 * The board's wiring; see board.h. The hooks are called with the guest's vector state
 * live and, like the rooms bus and dev, use general registers only (cpu/vec.h).
 */
#include "machine/board.h"

#include <errno.h>
#include <string.h>

#include "base/os.h"
#include "cpu/vec.h"

/* An ISA line reaches both interrupt controllers; the 8254's is pin 2 of the I/O APIC. */
static void isa_irq(void *arg, unsigned n, bool level) {
    struct board *b = arg;

    pic_set(b->pic, n, level);
    ioapic_set(b->ioapic, n == 0 ? 2 : n, level);
}

static struct irq_line isa_line(struct board *b, unsigned n) {
    return (struct irq_line){.set = isa_irq, .arg = b, .n = n};
}

static void lapic_output(void *arg, bool pending) {
    struct board *b = arg;

    if (pending)
        vcpu_raise(b->vcpu, VCPU_EVENT_IRQ);
    else
        vcpu_clear(b->vcpu, VCPU_EVENT_IRQ);
}

static void pic_output(void *arg, bool level) {
    struct board *b = arg;

    if (b->lapic)
        lapic_lint(b->lapic, 0, level);
    else
        lapic_output(b, level);
}

static bool ioapic_message(void *arg, const struct apic_msg *msg) {
    struct board *b = arg;
    uint64_t addr;
    uint32_t data;

    if (b->lapic)
        return lapic_deliver(b->lapic, msg);
    apic_msi_of_msg(msg, &addr, &data);
    vec_park(b->vcpu);
    return b->msi && b->msi(b->msi_arg, addr, data);
}

static void lapic_nmi(void *arg) {
    struct board *b = arg;

    vcpu_raise(b->vcpu, VCPU_EVENT_NMI);
}

static int lapic_extint(void *arg) {
    struct board *b = arg;

    return pic_ack(b->pic);
}

static void lapic_eoi_out(void *arg, uint8_t vector) {
    struct board *b = arg;

    ioapic_eoi(b->ioapic, vector);
}

/* --- what the vCPU asks --- */

static void leave_core(void *arg) {
    struct board *b = arg;

    vec_park(b->vcpu);
}

static void exit_io(struct board *b, struct exit *e) {
    if (e->write)
        bus_pio_write(b->bus, e->port, e->size, (uint32_t)e->data);
    else
        e->data = bus_pio_read(b->bus, e->port, e->size);
}

static void exit_mmio(struct board *b, struct exit *e) {
    if (e->write)
        bus_mmio_write(b->bus, e->gpa, e->size, e->data);
    else
        e->data = bus_mmio_read(b->bus, e->gpa, e->size);
}

static void exit_msr(struct board *b, struct exit *e) {
    if (b->lapic && lapic_owns_msr(e->msr))
        e->failed = !lapic_msr(b->lapic, e->msr, e->write, &e->data);
    else if (b->paravirt && pvclock_owns_msr(e->msr)) {
        vec_park(b->vcpu);
        e->failed = !pvclock_msr(b->pvclock, e->msr, e->write, &e->data);
    } else
        e->failed = true;
}

/* A counted run sees at the very next instruction what a device did: an interrupt raised,
 * a timer moved. */
static void look_up(struct vcpu *v) {
    if (v->counted)
        v->code_written = true;
}

static void hook_exit(void *arg, struct vcpu *v, struct exit *e) {
    struct board *b = arg;

    look_up(v);
    b->exits->n[e->reason]++;
    switch (e->reason) {
    case EXIT_io:
        exit_io(b, e);
        break;
    case EXIT_mmio:
        exit_mmio(b, e);
        break;
    case EXIT_msr:
        exit_msr(b, e);
        break;
    case EXIT_cpuid: /* leaf 1 shows whether the local APIC is enabled */
        e->data = b->lapic ? lapic_base_msr(b->lapic) : LAPIC_BASE;
        break;
    default: /* counted; the engine does the rest */
        break;
    }
}

static int hook_irq_ack(void *arg) {
    struct board *b = arg;

    return b->lapic ? lapic_ack(b->lapic) : pic_ack(b->pic);
}

static uint64_t hook_tsc(void *arg) {
    struct board *b = arg;

    vec_park(b->vcpu);
    return vclock_tsc(b->clock);
}

static void hook_tsc_write(void *arg, uint64_t value) {
    struct board *b = arg;

    vec_park(b->vcpu);
    look_up(b->vcpu);
    vclock_tsc_set(b->clock, value);
    b->vcpu->tsc_base = vclock_tsc(b->clock) - os_tsc();
    if (b->lapic)
        lapic_tsc_changed(b->lapic);
    pvclock_tsc_changed(b->pvclock);
}

static unsigned hook_cr8_read(void *arg) {
    struct board *b = arg;

    return b->lapic ? lapic_cr8(b->lapic) : 0;
}

static void hook_cr8_write(void *arg, unsigned value) {
    struct board *b = arg;

    look_up(b->vcpu);
    if (b->lapic)
        lapic_cr8_set(b->lapic, value);
}

static void hook_eoi(void *arg, uint8_t vector) {
    lapic_eoi_out(arg, vector);
}

static bool hook_a20(void *arg) {
    struct board *b = arg;

    return ports_a20(b->ports);
}

static const struct vcpu_hooks hooks = {
    .exit = hook_exit,
    .irq_ack = hook_irq_ack,
    .tsc = hook_tsc,
    .tsc_write = hook_tsc_write,
    .cr8_read = hook_cr8_read,
    .cr8_write = hook_cr8_write,
    .a20 = hook_a20,
    .eoi = hook_eoi,
};

int board_create(struct board *b, const struct dev_host *host,
                 const struct uart_host *serial) {
    struct lapic_host lapic_host = {.output = lapic_output,
                                    .nmi = lapic_nmi,
                                    .extint_ack = lapic_extint,
                                    .eoi = lapic_eoi_out,
                                    .arg = b};
    struct rtc_config rtc_cfg = {.ram_size = mem_ram_size(b->mem),
                                 .realtime_ns = b->realtime_ns,
                                 .arg = b->realtime_arg};
    struct pvclock_config pv_cfg = {.realtime_ns = b->realtime_ns,
                                    .arg = b->realtime_arg};
    bool ok;

    bus_on_leave(b->bus, leave_core, b);
    /* Listeners before those who drive them: a device may move its line when it is made.
     */
    ok = (b->lapic = lapic_new(b->bus, b->clock, &lapic_host, b->cnt)) &&
         (b->ioapic = ioapic_new(b->bus, ioapic_message, b, b->cnt)) &&
         (b->pic = pic_new(b->bus, pic_output, b, b->cnt)) &&
         (b->ports = ports_new(b->bus, host)) &&
         (b->kbc = kbc_new(b->bus, isa_line(b, 1), isa_line(b, 12), b->ports, host)) &&
         (b->pit = pit_new(b->bus, b->clock, isa_line(b, 0), b->cnt)) &&
         (b->rtc = rtc_new(b->bus, b->clock, isa_line(b, 8), &rtc_cfg, b->cnt)) &&
         (b->uart = uart_new(b->bus, b->clock, UART_COM1_PORT, isa_line(b, UART_COM1_IRQ),
                             serial, b->cnt)) &&
         (b->pm = pm_new(b->bus, b->clock, isa_line(b, PM_SCI_IRQ), host)) &&
         (b->vga = vga_new(b->bus, b->clock)) &&
         (b->pvclock = pvclock_new(b->mem, b->clock, &pv_cfg, b->cnt));
    if (!ok) {
        board_destroy(b);
        return -ENOMEM;
    }
    b->vcpu->hooks = &hooks;
    b->vcpu->hooks_arg = b;
    return 0;
}

void board_use_lapic_of_engine(struct board *b,
                               bool (*msi)(void *arg, uint64_t addr, uint32_t data),
                               void *arg) {
    lapic_free(b->lapic);
    b->lapic = NULL;
    b->msi = msi;
    b->msi_arg = arg;
}

void board_destroy(struct board *b) {
    if (b->pvclock)
        pvclock_free(b->pvclock);
    if (b->vga)
        vga_free(b->vga);
    if (b->pm)
        pm_free(b->pm);
    if (b->uart)
        uart_free(b->uart);
    if (b->rtc)
        rtc_free(b->rtc);
    if (b->pit)
        pit_free(b->pit);
    if (b->kbc)
        kbc_free(b->kbc);
    if (b->ports)
        ports_free(b->ports);
    if (b->pic)
        pic_free(b->pic);
    if (b->ioapic)
        ioapic_free(b->ioapic);
    if (b->lapic)
        lapic_free(b->lapic);
    *b = (struct board){0};
}

void board_reset(struct board *b) {
    if (b->lapic)
        lapic_reset(b->lapic);
    ioapic_reset(b->ioapic);
    pic_reset(b->pic);
    ports_reset(b->ports);
    kbc_reset(b->kbc);
    pit_reset(b->pit);
    rtc_reset(b->rtc);
    uart_reset(b->uart);
    pm_reset(b->pm);
    vga_reset(b->vga);
    pvclock_reset(b->pvclock);
}
