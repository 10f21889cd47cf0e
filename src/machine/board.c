/*
 * The board's wiring; see board.h. The hooks are called with the guest's vector state
 * live and, like the rooms bus and dev, use general registers only (cpu/vec.h).
 */
#include "machine/board.h"

#include <errno.h>
#include <string.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/smp.h"
#include "cpu/vec.h"
#include "mmu/mmu.h"
#include "x86/msr.h"

/* An ISA line reaches both interrupt controllers; the 8254's is pin 2 of the I/O APIC. It
 * is high while an ISA device or a PCI line drives it. */
static void drive_line(struct board *b, unsigned n) {
    bool level = (b->isa_lines | b->pirq_lines) >> n & 1;

    pic_set(b->pic, n, level);
    ioapic_set(b->ioapic, n == 0 ? 2 : n, level);
}

static uint16_t with_bit(uint16_t bits, unsigned n, bool on) {
    return (uint16_t)((bits & ~(1u << n)) | (unsigned)on << n);
}

static void isa_irq(void *arg, unsigned n, bool level) {
    struct board *b = arg;

    b->isa_lines = with_bit(b->isa_lines, n, level);
    drive_line(b, n);
}

static void pirq(void *arg, unsigned n, bool level) {
    struct board *b = arg;

    b->pirq_lines = with_bit(b->pirq_lines, n, level);
    drive_line(b, n);
}

struct irq_line board_isa_line(struct board *b, unsigned n) {
    return (struct irq_line){.set = isa_irq, .arg = b, .n = n};
}

/* --- the lock --- */

/* C comes in; it may have the guest's vector state in the host's registers. */
static struct board *enter(struct machine_cpu *c) {
    struct board *b = c->board;

    if (unlikely(!os_mutex_try(&b->lock))) {
        bool paused;

        vec_park(c->vcpu);
        paused = vcpu_pause();
        os_mutex_wait(&b->lock);
        vcpu_resume(paused);
    }
    b->caller = c;
    return b;
}

void board_enter(struct board *b, struct machine_cpu *c) {
    if (c) {
        enter(c);
        return;
    }
    if (!os_mutex_try(&b->lock))
        os_mutex_wait(&b->lock);
    b->caller = NULL;
}

void board_leave(struct board *b) {
    struct machine_cpu *c = b->caller;

    b->caller = NULL;
    if (likely(!os_mutex_give(&b->lock)))
        return;
    if (c)
        vec_park(c->vcpu);
    os_mutex_wake(&b->lock);
}

void board_tell(struct machine_cpu *c, uint32_t events) {
    struct board *b = c->board;

    if (b->caller == c) {
        vcpu_raise(c->vcpu, events);
        return;
    }
    board_park(b);
    machine_cpu_wake(c, events);
}

/* --- the local APICs; each has its CPU for its argument --- */

static void lapic_output(void *arg, bool pending) {
    struct machine_cpu *c = arg;

    if (pending)
        vcpu_raise(c->vcpu, VCPU_EVENT_IRQ);
    else
        vcpu_clear(c->vcpu, VCPU_EVENT_IRQ);
}

static int lapic_extint(void *arg) {
    struct board *b = enter(arg);
    int vector = pic_ack(b->pic);

    board_leave(b);
    return vector;
}

/* An interrupt command; who is kicked for it is kicked with the vector state parked. */
static void lapic_command(void *arg, const struct apic_msg *msg, enum apic_to to) {
    struct machine_cpu *c = arg;

    if (c->board->cpus > 1)
        vec_park(c->vcpu);
    apics_deliver(&c->board->apics, msg, to, c->lapic);
}

static void lapic_look(void *arg) {
    machine_cpu_interrupted(arg, VCPU_EVENT_IRQ);
}

/* Whoever else sends has parked its own. */
static void park_mine(struct machine_cpu *c, bool mine) {
    if (mine)
        vec_park(c->vcpu);
}

static void lapic_nmi(void *arg, bool mine) {
    park_mine(arg, mine);
    machine_cpu_interrupted(arg, VCPU_EVENT_NMI);
}

static void lapic_got_init(void *arg, bool mine) {
    park_mine(arg, mine);
    machine_cpu_init(arg);
}

static void lapic_got_sipi(void *arg, uint8_t vector, bool mine) {
    park_mine(arg, mine);
    machine_cpu_sipi(arg, vector);
}

/* --- what leads to them; with the lock --- */

/* That of the CPU whose thread is in here, or NULL. */
static struct lapic *mine(const struct board *b) {
    return b->caller ? b->caller->lapic : NULL;
}

static void pic_output(void *arg, bool level) {
    struct board *b = arg;
    struct machine_cpu *c = &b->cpu[0];

    if (!b->msi) {
        if (b->caller != c)
            board_park(b);
        lapic_lint(c->lapic, 0, level, b->caller == c);
    } else if (level) {
        board_tell(c, VCPU_EVENT_IRQ);
    } else {
        vcpu_clear(c->vcpu, VCPU_EVENT_IRQ);
    }
}

static bool board_message(void *arg, const struct apic_msg *msg) {
    struct board *b = arg;
    uint64_t addr;
    uint32_t data;

    if (!b->msi) {
        if (b->cpus > 1)
            board_park(b);
        return apics_deliver(&b->apics, msg, APIC_TO_DEST, mine(b));
    }
    apic_msi_of_msg(msg, &addr, &data);
    board_park(b);
    return b->msi(b->msi_arg, addr, data);
}

/* From a CPU's own thread: an interrupt that the guest has served. */
static void lapic_eoi_out(void *arg, uint8_t vector) {
    struct board *b = enter(arg);

    ioapic_eoi(b->ioapic, vector);
    board_leave(b);
}

/* A message-signalled interrupt. Outside the local APICs' range it is a write to memory
 * as any other. */
static void pci_msi(void *arg, uint64_t addr, uint32_t data) {
    struct board *b = arg;
    struct apic_msg msg = apic_msg_of_msi(addr, data);

    if (addr >> 20 != LAPIC_BASE >> 20) {
        mem_write(b->mem, gpa(addr), &data, sizeof(data));
    } else if (!b->msi) {
        board_message(b, &msg);
    } else {
        board_park(b);
        b->msi(b->msi_arg, addr, data);
    }
}

/* --- what a vCPU asks; the argument is its CPU --- */

static void leave_core(void *arg) {
    board_park(arg);
}

static void exit_io(struct machine_cpu *c, struct exit *e) {
    struct board *b = enter(c);

    if (e->write)
        bus_pio_write(b->bus, e->port, e->size, (uint32_t)e->data);
    else
        e->data = bus_pio_read(b->bus, e->port, e->size);
    board_leave(b);
}

/* The local APIC's page is each CPU's own. An access that leaves it, or comes into it, is
 * one of bytes, as any is that spans devices. */
static void lapic_access(struct machine_cpu *c, struct exit *e) {
    unsigned at = (unsigned)e->gpa.a & 0xfff;

    if (e->write)
        lapic_write(c->lapic, at, e->size, e->data);
    else
        e->data = lapic_read(c->lapic, at, e->size);
}

static void bus_access(struct machine_cpu *c, struct exit *e) {
    struct board *b = enter(c);

    if (e->write)
        bus_mmio_write(b->bus, e->gpa, e->size, e->data);
    else
        e->data = bus_mmio_read(b->bus, e->gpa, e->size);
    board_leave(b);
}

static void access(struct machine_cpu *c, struct exit *e) {
    if (c->lapic && lapic_page(c->lapic, e->gpa))
        lapic_access(c, e);
    else
        bus_access(c, e);
}

static void exit_mmio(struct machine_cpu *c, struct exit *e) {
    uint64_t data = 0;

    if (likely((e->gpa.a & 0xfff) + e->size <= 0x1000)) {
        access(c, e);
        return;
    }
    for (unsigned n = 0; n < e->size; n++) {
        struct exit one = *e;

        one.gpa.a += n;
        one.size = 1;
        one.data = e->data >> n * 8 & 0xff;
        access(c, &one);
        data |= (one.data & 0xff) << n * 8;
    }
    if (!e->write)
        e->data = data;
}

static bool pvclock_access(struct machine_cpu *c, struct exit *e) {
    struct board *b = enter(c);
    bool ok;

    board_park(b);
    ok = pvclock_msr(b->pvclock, c->index, c->clock, e->msr, e->write, &e->data);
    board_leave(b);
    return ok;
}

/* A CPU's own: no lock. */
static bool steal_access(struct machine_cpu *c, struct exit *e) {
    vec_park(c->vcpu);
    return c->steal && steal_msr(c->steal, e->write, &e->data);
}

static void exit_msr(struct machine_cpu *c, struct exit *e) {
    if (c->lapic && lapic_owns_msr(e->msr))
        e->failed = !lapic_msr(c->lapic, e->msr, e->write, &e->data);
    else if (c->board->paravirt && pvclock_owns_msr(e->msr))
        e->failed = !pvclock_access(c, e);
    else if (e->msr == X86_MSR_KVM_STEAL_TIME)
        e->failed = !steal_access(c, e);
    else
        e->failed = true;
}

/* --- KVM's hypercalls between CPUs. Linux, Documentation/virt/kvm/x86/hypercalls.rst ---
 */

#define HC_KICK_CPU 5u
#define HC_SEND_IPI 10u
#define HC_SCHED_YIELD 11u
#define KVM_EINVAL 22

/* To the CPUs of SET, the first of whose bits is APIC ID FIRST. How many there were. */
static uint64_t send_to(struct machine_cpu *c, const struct apic_msg *msg, uint64_t set,
                        uint64_t first) {
    const struct apics *a = &c->board->apics;
    uint64_t sent = 0;

    for (unsigned n = 0; n < 64; n++) {
        uint64_t id = first + n;

        if (!(set >> n & 1) || id < first || id >= a->count)
            continue;
        sent += lapic_deliver(a->lapic[id], msg, a->lapic[id] == c->lapic);
    }
    return sent;
}

/* A set of two words: how many have been sent to, or an error. */
static uint64_t send_ipis(struct machine_cpu *c, const uint64_t *arg, unsigned width) {
    struct apic_msg msg = {.vector = (uint8_t)arg[3], .mode = (uint8_t)(arg[3] >> 8 & 7)};

    if ((arg[3] & ~0x47ffull) || (msg.mode != APIC_FIXED && msg.mode != APIC_NMI) ||
        (msg.mode == APIC_FIXED && msg.vector < 16))
        return (uint64_t)-KVM_EINVAL;
    return send_to(c, &msg, arg[0], arg[2]) + send_to(c, &msg, arg[1], arg[2] + width);
}

static void exit_hypercall(struct machine_cpu *c, struct exit *e) {
    struct vcpu *v = c->vcpu;
    bool wide = v->mode == MODE_64;
    uint64_t arg[] = {v->gpr[REG_RBX], v->gpr[REG_RCX], v->gpr[REG_RDX], v->gpr[REG_RSI]};
    uint64_t nr = e->data;

    if (!cpuid_between_cpus(v->cpuid) || !c->lapic)
        return;
    for (unsigned n = 0; n < ARRAY_SIZE(arg) && !wide; n++)
        arg[n] = (uint32_t)arg[n];
    vec_park(v);
    e->failed = false;
    e->data = 0;
    switch (nr) {
    case HC_KICK_CPU:
        if (arg[1] < c->board->cpus)
            machine_cpu_unhalt(&c->board->cpu[arg[1]]);
        break;
    case HC_SEND_IPI:
        e->data = send_ipis(c, arg, wide ? 64 : 32);
        break;
    case HC_SCHED_YIELD:
        os_yield();
        break;
    default:
        e->failed = true;
    }
}

/* A counted run sees at the very next instruction what a device did: an interrupt raised,
 * a timer moved. */
static void show_at_once(struct vcpu *v) {
    if (v->counted)
        v->leave_code = true;
}

static void hook_exit(void *arg, struct vcpu *v, struct exit *e) {
    struct machine_cpu *c = arg;

    show_at_once(v);
    c->exits.n[e->reason]++;
    switch (e->reason) {
    case EXIT_io:
        exit_io(c, e);
        break;
    case EXIT_mmio:
        exit_mmio(c, e);
        break;
    case EXIT_msr:
        exit_msr(c, e);
        break;
    case EXIT_cpuid: /* leaf 1 shows whether the local APIC is enabled */
        e->data = c->lapic ? lapic_base_msr(c->lapic) : LAPIC_BASE;
        break;
    case EXIT_hypercall:
        exit_hypercall(c, e);
        break;
    default: /* counted; the engine does the rest */
        break;
    }
}

static int hook_irq_ack(void *arg) {
    struct machine_cpu *c = arg;

    return c->lapic ? lapic_ack(c->lapic) : lapic_extint(c);
}

static uint64_t hook_tsc(void *arg) {
    struct machine_cpu *c = arg;

    vec_park(c->vcpu);
    return vclock_tsc(c->clock);
}

static void tsc_moved(struct machine_cpu *c) {
    c->vcpu->tsc_base = vclock_tsc_at(c->clock, c->board->ticks_base);
}

void board_tsc_moved(struct board *b) {
    for (unsigned n = 0; n < b->cpus; n++)
        tsc_moved(&b->cpu[n]);
}

void board_set_tsc(struct board *b, uint64_t value) {
    uint64_t ticks = vclock_ticks(b->clock);

    for (unsigned n = 0; n < b->cpus; n++)
        vclock_tsc_set_at(b->cpu[n].clock, ticks, value);
    board_tsc_moved(b);
}

void board_follow_tsc(struct board *b) {
    for (unsigned n = 0; n < b->cpus; n++)
        vclock_tsc_set_at(b->cpu[n].clock, b->ticks_base, 0);
    board_tsc_moved(b);
}

/* Each CPU's TSC is its own to set. */
static void hook_tsc_write(void *arg, uint64_t value) {
    struct machine_cpu *c = arg;
    struct board *b = c->board;

    vec_park(c->vcpu);
    show_at_once(c->vcpu);
    vclock_tsc_set_at(c->clock, vclock_ticks(c->clock), value);
    tsc_moved(c);
    if (c->lapic)
        lapic_tsc_changed(c->lapic);
    enter(c);
    pvclock_tsc_changed(b->pvclock, c->index, c->clock);
    board_leave(b);
}

static unsigned hook_cr8_read(void *arg) {
    struct machine_cpu *c = arg;

    return c->lapic ? lapic_cr8(c->lapic) : 0;
}

static void hook_cr8_write(void *arg, unsigned value) {
    struct machine_cpu *c = arg;

    show_at_once(c->vcpu);
    if (c->lapic)
        lapic_cr8_set(c->lapic, value);
}

/* Every context, and global entries: INVPCID's type. */
#define INVPCID_ALL 2

static void hook_away(void *arg, bool away) {
    struct machine_cpu *c = arg;

    if (!c->steal)
        return;
    if (away)
        steal_away(c->steal);
    else if (steal_back(c->steal))
        mmu_invpcid(c->vcpu, INVPCID_ALL, 0, gva(0));
}

static void hook_eoi(void *arg, uint8_t vector) {
    lapic_eoi_out(arg, vector);
}

static bool hook_a20(void *arg) {
    struct machine_cpu *c = arg;

    return ports_a20(c->board->ports);
}

const struct vcpu_hooks board_vcpu_hooks = {
    .exit = hook_exit,
    .irq_ack = hook_irq_ack,
    .tsc = hook_tsc,
    .tsc_write = hook_tsc_write,
    .cr8_read = hook_cr8_read,
    .cr8_write = hook_cr8_write,
    .a20 = hook_a20,
    .away = hook_away,
    .eoi = hook_eoi,
};

static bool create_lapics(struct board *b) {
    struct lapic_host host = {.output = lapic_output,
                              .extint_ack = lapic_extint,
                              .eoi = lapic_eoi_out,
                              .send = lapic_command,
                              .look = lapic_look,
                              .nmi = lapic_nmi,
                              .init = lapic_got_init,
                              .sipi = lapic_got_sipi};

    for (unsigned n = 0; n < b->cpus; n++) {
        struct machine_cpu *c = &b->cpu[n];

        host.arg = c;
        c->lapic = lapic_new(n, c->clock, &host, &c->counters);
        if (!c->lapic)
            return false;
        b->apics.lapic[n] = c->lapic;
        b->apics.count = n + 1;
    }
    return true;
}

static void free_lapics(struct board *b) {
    b->apics.count = 0;
    for (unsigned n = 0; n < b->cpus; n++) {
        lapic_free(b->cpu[n].lapic);
        b->cpu[n].lapic = NULL;
    }
}

static uint64_t waited_ns(void *arg) {
    const struct machine_cpu *c = arg;

    uint64_t ns;

    return os_thread_waited(c->waits, &ns) ? ns : 0;
}

static bool create_steals(struct board *b) {
    for (unsigned n = 0; b->steal_time && n < b->cpus; n++) {
        struct machine_cpu *c = &b->cpu[n];
        const struct steal_host host = {.waited_ns = waited_ns, .arg = c};

        c->steal = steal_new(b->mem, c->clock, &host, &c->counters);
        if (!c->steal)
            return false;
    }
    return true;
}

static void free_steals(struct board *b) {
    for (unsigned n = 0; n < b->cpus; n++) {
        steal_free(b->cpu[n].steal);
        b->cpu[n].steal = NULL;
    }
}

static bool create_pci(struct board *b) {
    struct board_pci_config cfg = {.bus = b->bus,
                                   .mem = b->mem,
                                   .ports = b->ports,
                                   .pm = b->pm,
                                   .vga = b->vga,
                                   .vga_bios = b->vga_bios,
                                   .vga_bios_size = b->vga_bios_size,
                                   .firmware = b->firmware,
                                   .isa_irq = pirq,
                                   .msi = pci_msi,
                                   .arg = b};

    return !board_pci_create(&b->pci, &cfg);
}

static bool create_serials(struct board *b, const struct uart_host *serial) {
    static const uint16_t port[BOARD_SERIALS] = {UART_COM1_PORT, UART_COM2_PORT};
    static const uint8_t irq[BOARD_SERIALS] = {UART_COM1_IRQ, UART_COM2_IRQ};
    unsigned count = b->serials ? b->serials : 1;

    for (unsigned n = 0; n < count && n < BOARD_SERIALS; n++) {
        b->uart[n] = uart_new(b->bus, b->clock, port[n], board_isa_line(b, irq[n]),
                              &serial[n], b->cnt);
        if (!b->uart[n])
            return false;
    }
    return true;
}

int board_create(struct board *b, const struct dev_host *host,
                 const struct uart_host *serial) {
    struct rtc_config rtc_cfg = {.ram_size = mem_ram_size(b->mem),
                                 .cpus = b->cpus,
                                 .realtime_ns = b->realtime_ns,
                                 .arg = b->realtime_arg};
    struct pvclock_config pv_cfg = {.realtime_ns = b->realtime_ns,
                                    .arg = b->realtime_arg};
    bool ok;

    bus_on_leave(b->bus, leave_core, b);
    for (unsigned n = 0; n < b->cpus; n++)
        b->cpu[n].board = b;
    /* Listeners before those who drive them: a device may move its line when it is made.
     */
    ok = create_lapics(b) && (b->ioapic = ioapic_new(b->bus, board_message, b, b->cnt)) &&
         (b->pic = pic_new(b->bus, pic_output, b, b->cnt)) &&
         (b->ports = ports_new(b->bus, host)) &&
         (b->kbc = kbc_new(b->bus, board_isa_line(b, 1), board_isa_line(b, 12), b->ports,
                           host)) &&
         (b->pit = pit_new(b->bus, b->clock, board_isa_line(b, 0), b->cnt)) &&
         (b->rtc = rtc_new(b->bus, b->clock, board_isa_line(b, 8), &rtc_cfg, b->cnt)) &&
         create_serials(b, serial) &&
         (b->pm = pm_new(b->bus, b->clock, board_isa_line(b, PM_SCI_IRQ), host)) &&
         (b->vmgenid = vmgenid_new(b->bus)) &&
         (b->vga = vga_new(b->bus, b->clock, b->mem)) &&
         (b->pvclock = pvclock_new(b->mem, b->clock, b->cpus, &pv_cfg, b->cnt)) &&
         create_steals(b) && (!b->tells || (b->fw_cfg = fw_cfg_new(b->bus, b->mem))) &&
         (b->no_pci || create_pci(b));
    if (ok && (b->firmware || b->display))
        kbc_plug_keyboard(b->kbc);
    if (ok && b->display)
        kbc_plug_mouse(b->kbc);
    if (!ok) {
        board_destroy(b);
        return -ENOMEM;
    }
    return 0;
}

void board_use_lapic_of_engine(struct board *b,
                               bool (*msi)(void *arg, uint64_t addr, uint32_t data),
                               void *arg) {
    free_lapics(b);
    b->msi = msi;
    b->msi_arg = arg;
}

void board_destroy(struct board *b) {
    board_pci_destroy(&b->pci);
    fw_cfg_free(b->fw_cfg);
    if (b->pvclock)
        pvclock_free(b->pvclock);
    if (b->vga)
        vga_free(b->vga);
    vmgenid_free(b->vmgenid);
    if (b->pm)
        pm_free(b->pm);
    for (unsigned n = 0; n < BOARD_SERIALS && b->uart[n]; n++)
        uart_free(b->uart[n]);
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
    free_steals(b);
    free_lapics(b);
    *b = (struct board){0};
}

void board_reset(struct board *b) {
    for (unsigned n = 0; n < b->cpus; n++)
        if (b->cpu[n].lapic)
            lapic_reset(b->cpu[n].lapic);
    ioapic_reset(b->ioapic);
    pic_reset(b->pic);
    ports_reset(b->ports);
    kbc_reset(b->kbc);
    pit_reset(b->pit);
    rtc_reset(b->rtc);
    for (unsigned n = 0; n < BOARD_SERIALS && b->uart[n]; n++)
        uart_reset(b->uart[n]);
    pm_reset(b->pm);
    vga_reset(b->vga);
    pvclock_reset(b->pvclock);
    for (unsigned n = 0; n < b->cpus; n++)
        if (b->cpu[n].steal)
            steal_reset(b->cpu[n].steal);
    if (b->pci.bus)
        pci_reset(b->pci.bus);
    if (b->fw_cfg)
        fw_cfg_reset(b->fw_cfg);
}
