/*
 * A guest on the bare machine: memory, a CPU with its local APIC, the board of
 * machine/board.c, an engine; created, booted and run as machine/vm.c does it, without
 * threads. An interrupt of the host's, its timer's or the serial port's, raises KICK; the
 * engine comes back, and service() runs what is due and takes what was typed.
 *
 * The far end of the guest's first serial port is the host's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bare/bare.h"
#include "base/log.h"
#include "base/os.h"
#include "boot/boot.h"
#include "cpu/cpuid.h"
#include "dev/pci/setup.h"
#include "dev/tables/acpi.h"
#include "dev/tables/mptable.h"
#include "dev/tables/smbios.h"
#include "hv/hv.h"
#include "machine/board.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"

#define GOES_ON (-1)

struct hv_vm {
    const struct hv_config *cfg;
    const struct boot_image *image;
    struct mem *mem;
    struct cpuid_model *cpuid;
    struct vclock *clock;
    struct bus *bus;
    struct board board;
    struct counters counters; /* the devices' */
    struct machine_cpu cpu;
    uint64_t start_ns, start_tsc;
    uint64_t deadline; /* the board's, of the guest's clock; the CPU's is in cpu */
    int end;           /* enum hv_end, or GOES_ON */
    uint32_t exit_value;
};

/* --- what the board asks of a machine; there is one CPU, and this is it --- */

void machine_cpu_kick(struct machine_cpu *c, uint32_t events) {
    vcpu_raise(c->vcpu, events);
    if (c->engine)
        c->ops->kick(c->engine);
}

void machine_cpu_wake(struct machine_cpu *c, uint32_t events) {
    machine_cpu_kick(c, events);
}

void machine_cpu_interrupted(struct machine_cpu *c, uint32_t event) {
    machine_cpu_kick(c, event);
}

void machine_cpu_unhalt(struct machine_cpu *c) {
    c->unhalt = true;
}

void machine_cpu_init(struct machine_cpu *c) {
    c->signals = SIGNAL_INIT;
    machine_cpu_kick(c, VCPU_EVENT_KICK);
}

/* It does not wait for one. */
void machine_cpu_sipi(struct machine_cpu *c, uint8_t vector) {
}

/* --- the end of a life --- */

static void end_life(struct hv_vm *m, enum hv_end end) {
    vec_park(m->cpu.vcpu);
    if (m->end == GOES_ON)
        m->end = end;
    machine_cpu_kick(&m->cpu, VCPU_EVENT_STOP);
}

static void on_poweroff(void *arg) {
    end_life(arg, HV_POWEROFF);
}

static void on_reset(void *arg) {
    end_life(arg, HV_RESET);
}

static void on_debug_exit(void *arg, uint32_t value) {
    ((struct hv_vm *)arg)->exit_value = value;
    end_life(arg, HV_DEBUG_EXIT);
}

static void on_a20(void *arg, bool on) {
    struct hv_vm *m = arg;

    vec_park(m->cpu.vcpu);
    mmu_flush_all(m->cpu.vcpu);
}

/* --- time --- */

static uint64_t now_ns(void *arg) {
    struct hv_vm *m = arg;

    vec_park(m->cpu.vcpu);
    return os_monotonic_ns() - m->start_ns;
}

static uint64_t ticks(void *arg) {
    struct hv_vm *m = arg;

    vec_park(m->cpu.vcpu);
    return os_tsc() - m->start_tsc;
}

static void set_timer(struct hv_vm *m) {
    uint64_t at = m->deadline < m->cpu.deadline ? m->deadline : m->cpu.deadline;

    vec_park(m->cpu.vcpu);
    bare_timer_set(at < UINT64_MAX - m->start_ns ? at + m->start_ns : UINT64_MAX);
}

static void board_deadline(void *arg, uint64_t deadline) {
    struct hv_vm *m = arg;

    m->deadline = deadline;
    set_timer(m);
}

static void cpu_deadline(void *arg, uint64_t deadline) {
    struct hv_vm *m = arg;

    m->cpu.deadline = deadline;
    set_timer(m);
}

static int create_time(struct hv_vm *m) {
    struct vclock_source src = {.now_ns = now_ns,
                                .ticks = ticks,
                                .tick_hz = os_tsc_hz(),
                                .deadline_changed = board_deadline,
                                .arg = m};

    m->start_ns = os_monotonic_ns();
    m->start_tsc = os_tsc();
    m->deadline = m->cpu.deadline = UINT64_MAX;
    m->clock = vclock_new(&src);
    src.deadline_changed = cpu_deadline;
    m->cpu.clock = vclock_new(&src);
    return m->clock && m->cpu.clock ? 0 : -ENOMEM;
}

/* --- the run loop's needs --- */

static size_t console_tx(void *arg, const uint8_t *bytes, size_t n) {
    struct hv_vm *m = arg;

    vec_park(m->cpu.vcpu);
    bare_serial_write(bytes, n);
    return n;
}

static void take_input(struct hv_vm *m) {
    uint8_t buf[256];
    size_t room = uart_room(m->board.uart[0]), n;

    n = bare_serial_read(buf, room < sizeof(buf) ? room : sizeof(buf));
    if (n)
        uart_receive(m->board.uart[0], buf, n);
}

static void take_init(struct hv_vm *m) {
    struct machine_cpu *c = &m->cpu;

    if (!c->signals)
        return;
    c->signals = 0;
    if (c->ops->sync)
        c->ops->sync(c->engine);
    vcpu_init(c->vcpu);
    lapic_init(c->lapic);
    mmu_flush_all(c->vcpu);
    mmu_mode_changed(c->vcpu);
    mmu_context_changed(c->vcpu);
}

static void service(void *arg) {
    struct hv_vm *m = arg;

    vclock_run(m->cpu.clock);
    board_enter(&m->board, &m->cpu);
    vclock_run(m->clock);
    take_input(m);
    board_leave(&m->board);
    take_init(m);
    set_timer(m);
}

static bool is_woken(struct machine_cpu *c) {
    uint32_t events;

    if (c->unhalt) {
        c->unhalt = c->vcpu->halted = false;
        return true;
    }
    lapic_settle(c->lapic);
    events = vcpu_events(c->vcpu);
    return (events & (VCPU_EVENT_KICK | VCPU_EVENT_STOP)) ||
           ((events & VCPU_EVENT_NMI) && !c->vcpu->nmi_blocked) ||
           ((events & VCPU_EVENT_IRQ) && (c->vcpu->rflags & X86_FL_IF));
}

static void idle(void *arg) {
    struct hv_vm *m = arg;

    m->cpu.counters.halts++;
    board_enter(&m->board, &m->cpu);
    uart_flush(m->board.uart[0]);
    board_leave(&m->board);
    while (!is_woken(&m->cpu))
        bare_wait();
}

/* In the handler of a host's interrupt. */
static void on_interrupt(void *arg) {
    machine_cpu_kick(&((struct hv_vm *)arg)->cpu, VCPU_EVENT_KICK);
}

enum hv_end hv_vm_run(struct hv_vm *m) {
    const struct run_board board = {.service = service, .idle = idle, .arg = m};
    struct machine_cpu *c = &m->cpu;
    enum run_end end;

    m->end = GOES_ON;
    bare_on_interrupt(on_interrupt, m);
    vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
    end = engine_run_loop(c->ops, c->engine, c->vcpu, &board, &c->exits);
    bare_on_interrupt(NULL, NULL);
    uart_flush(m->board.uart[0]);
    if (end == RUN_STOPPED)
        return (enum hv_end)m->end;
    return end == RUN_SHUTDOWN ? HV_SHUTDOWN : HV_ERROR;
}

uint32_t hv_vm_exit_value(const struct hv_vm *m) {
    return m->exit_value;
}

/* --- creation --- */

static int create_cpu(struct hv_vm *m) {
    struct cpuid_config cfg = {.paravirt = true, .tsc_hz = os_tsc_hz()};
    struct machine_cpu *c = &m->cpu;
    int rc;

    vec_init();
    rc = sem_init();
    if (!rc)
        rc = os_fenced_alloc(sizeof(*c->vcpu), (void **)&c->vcpu);
    if (rc)
        return rc;
    m->cpuid = cpuid_model_new(&cfg);
    if (!m->cpuid)
        return -ENOMEM;
    c->board = &m->board;
    c->waits = -1;
    c->vcpu->mem = m->mem;
    c->vcpu->cpuid = m->cpuid;
    c->vcpu->cnt = &c->counters;
    vcpu_reset(c->vcpu);
    return mmu_create(c->vcpu, (enum mmu_policy)m->cfg->policy);
}

static int create_board(struct hv_vm *m) {
    struct dev_host host = {.poweroff = on_poweroff,
                            .reset = on_reset,
                            .debug_exit = on_debug_exit,
                            .a20 = on_a20,
                            .arg = m};
    struct uart_host serial = {.tx = console_tx, .arg = m};
    int rc = create_time(m);

    m->bus = bus_new();
    if (rc || !m->bus)
        return -ENOMEM;
    m->board = (struct board){.cpu = &m->cpu,
                              .cpus = 1,
                              .mem = m->mem,
                              .bus = m->bus,
                              .clock = m->clock,
                              .cnt = &m->counters,
                              .paravirt = true,
                              .ticks_base = -m->start_tsc};
    rc = board_create(&m->board, &host, &serial);
    m->cpu.vcpu->hooks = &board_vcpu_hooks;
    m->cpu.vcpu->hooks_arg = &m->cpu;
    return rc;
}

static void map_changed(void *arg) {
    struct machine_cpu *c = &((struct hv_vm *)arg)->cpu;

    vec_park(c->vcpu);
    mmu_map_changed(c->vcpu);
    if (c->ops->map_changed)
        c->ops->map_changed(c->engine);
}

static void hook_memory(struct hv_vm *m) {
    struct engine_trace trace[MEM_TRACE_COUNT];
    unsigned count;

    mmu_hook(m->cpu.vcpu);
    mem_hooks(m->mem)->changed = map_changed;
    mem_hooks(m->mem)->changed_arg = m;
    m->cpu.ops->traces(m->cpu.engine, trace, &count);
    for (unsigned n = 0; n < count; n++)
        mem_own_trace(m->mem, trace[n].trace, trace[n].written, trace[n].arg);
}

static int create_engine(struct hv_vm *m, char *why, size_t why_size) {
    struct engine_config cfg = {.options = m->cfg};
    size_t count;
    const struct engine_ops *const *all = hv_engines(&count);

    snprintf(why, why_size, "engine=%s: there is no engine of that name", m->cfg->engine);
    for (size_t n = 0; n < count; n++) {
        if (strcmp(m->cfg->engine, all[n]->name))
            continue;
        m->cpu.ops = all[n];
        return all[n]->create(m->cpu.vcpu, &cfg, &m->cpu.engine, why, why_size);
    }
    return -EINVAL;
}

int hv_vm_new(const struct hv_config *cfg, const struct boot_image *image,
              struct hv_vm **out, char *why, size_t why_size) {
    struct hv_vm *m = calloc(1, sizeof(*m));
    int rc = -ENOMEM;

    snprintf(why, why_size, "out of memory");
    if (!m)
        return rc;
    m->cfg = cfg;
    m->image = image;
    rc = mem_create(cfg->memory, &m->mem);
    if (rc) {
        snprintf(why, why_size, "there are no %llu MiB of memory for the guest",
                 (unsigned long long)cfg->memory >> 20);
        return rc;
    }
    rc = create_cpu(m);
    if (!rc)
        rc = create_board(m);
    if (!rc)
        rc = create_engine(m, why, why_size);
    if (rc)
        return rc;
    hook_memory(m);
    *out = m;
    return 0;
}

/* --- a life --- */

static int build_tables(struct hv_vm *m, struct boot_config *boot) {
    struct cpuid_regs id = cpuid_query(m->cpu.vcpu, 0, 0);
    struct cpuid_regs one = cpuid_query(m->cpu.vcpu, 1, 0);
    struct acpi_config acpi = {.cpus = 1, .dsdt = {.pci = true}};
    struct mptable_config mp = {
        .cpus = 1, .signature = one.eax, .features = one.edx, .pci = true};
    struct smbios_config smbios = {
        .cpus = 1, .ram = m->cfg->memory, .signature = one.eax, .features = one.edx};
    int rc;

    dsdt_pci_windows(&acpi.dsdt, mem_ram_size(m->mem), cpuid_phys_bits(m->cpuid));
    memcpy(smbios.cpu_maker, &id.ebx, 4);
    memcpy(smbios.cpu_maker + 4, &id.edx, 4);
    memcpy(smbios.cpu_maker + 8, &id.ecx, 4);
    rc = acpi_build(m->mem, gpa(ACPI_WHERE), &acpi, &boot->rsdp, &boot->acpi_len);
    if (!rc)
        rc = mptable_build(m->mem, gpa(MPTABLE_WHERE), &mp);
    return rc ? rc : smbios_build(m->mem, gpa(SMBIOS_WHERE), &smbios);
}

int hv_vm_boot(struct hv_vm *m, char *why, size_t why_size) {
    struct boot_config boot = {.cmdline = m->cfg->cmdline};
    struct vcpu *v = m->cpu.vcpu;
    int rc;

    mem_reset(m->mem);
    vcpu_clear(v, VCPU_EVENT_STOP | VCPU_EVENT_IRQ | VCPU_EVENT_NMI);
    vcpu_reset(v);
    m->cpu.signals = 0;
    board_enter(&m->board, &m->cpu);
    board_reset(&m->board);
    board_set_tsc(&m->board, 0);
    board_leave(&m->board);
    v->tsc_host = true;
    pci_setup(m->board.pci.bus);
    rc = build_tables(m, &boot);
    if (rc) {
        snprintf(why, why_size, "the board's tables cannot be placed");
        return rc;
    }
    rc = boot_image_load(m->image, v, m->mem, &boot, why, why_size);
    if (rc)
        return rc;
    mmu_flush_all(v);
    mmu_context_changed(v);
    m->cpu.ops->reset(m->cpu.engine);
    return 0;
}

/* --- figures --- */

static void emit(void *arg, const char *name, uint64_t value) {
    if (value)
        log_line(LOG_WARN, "%s %llu", name, (unsigned long long)value);
}

void hv_vm_stats(const struct hv_vm *m) {
    const struct machine_cpu *c = &m->cpu;

    for (unsigned n = 0; n < EXIT_COUNT; n++)
        if (c->exits.n[n])
            log_line(LOG_WARN, "exit %s %llu", exit_name((enum exit_reason)n),
                     (unsigned long long)c->exits.n[n]);
    if (c->ops->stats)
        c->ops->stats(c->engine, emit, NULL);
}
