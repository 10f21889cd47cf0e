/*
 * A guest on the bare machine: memory, CPUs with their local APICs, the board of
 * machine/board.c, engines; created, booted and run as machine/vm.c does it, without
 * threads: a CPU of the host's runs some of the guests' CPUs, one after the other
 * (sched.c). An interrupt of the host's, its timer's, the serial port's or another CPU's,
 * raises KICK; the engine comes back, and service() runs what is due and takes what was
 * typed.
 *
 * The far end of the guest's first serial port is the host's (console.c).
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
#include "cpu/smp.h"
#include "dev/pci/setup.h"
#include "dev/tables/acpi.h"
#include "dev/tables/mptable.h"
#include "dev/tables/smbios.h"
#include "hv/vm_int.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"

#define GOES_ON (-1)

static struct hv_vm *vm_of(const struct machine_cpu *c) {
    return container_of(c->board, struct hv_vm, board);
}

static struct hv_task *task_of(struct machine_cpu *c) {
    return &vm_of(c)->task[c->index];
}

/* --- what the board asks of a machine --- */

void machine_cpu_kick(struct machine_cpu *c, uint32_t events) {
    vcpu_raise(c->vcpu, events);
    hv_sched_kick(task_of(c));
}

void machine_cpu_wake(struct machine_cpu *c, uint32_t events) {
    machine_cpu_kick(c, events);
}

void machine_cpu_interrupted(struct machine_cpu *c, uint32_t event) {
    machine_cpu_kick(c, event);
}

void machine_cpu_unhalt(struct machine_cpu *c) {
    __atomic_store_n(&c->unhalt, true, __ATOMIC_SEQ_CST);
    machine_cpu_kick(c, VCPU_EVENT_KICK);
}

/* An INIT takes back a SIPI that has not been acted upon, and an NMI. */
void machine_cpu_init(struct machine_cpu *c) {
    vcpu_clear(c->vcpu, VCPU_EVENT_NMI);
    __atomic_store_n(&c->signals, SIGNAL_INIT, __ATOMIC_SEQ_CST);
    machine_cpu_kick(c, VCPU_EVENT_KICK);
}

/* The first of several is the one that counts. */
void machine_cpu_sipi(struct machine_cpu *c, uint8_t vector) {
    uint32_t is = __atomic_load_n(&c->signals, __ATOMIC_SEQ_CST);

    do {
        if (is & SIGNAL_SIPI)
            return;
    } while (!__atomic_compare_exchange_n(&c->signals, &is,
                                          is | SIGNAL_SIPI | (uint32_t)vector << 8, false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    machine_cpu_kick(c, VCPU_EVENT_KICK);
}

static void kick_vcpu(void *arg, struct vcpu *v, uint32_t event) {
    struct hv_vm *m = arg;

    hv_sched_kick(&m->task[v->member->index]);
}

/* --- the end of a life --- */

static void end_life(struct hv_vm *m, enum hv_end end) {
    int is = GOES_ON;

    board_park(&m->board);
    if (!__atomic_compare_exchange_n(&m->end, &is, end, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        return;
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_kick(&m->cpu[n], VCPU_EVENT_STOP);
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

    board_park(&m->board);
    vcpu_stop(m->group);
    for (unsigned n = 0; n < m->cpus; n++)
        mmu_flush_all(m->cpu[n].vcpu);
    vcpu_go(m->group);
}

/* --- time --- */

static uint64_t now_ns(void *arg) {
    return os_monotonic_ns() - ((struct hv_vm *)arg)->start_ns;
}

static uint64_t ticks(void *arg) {
    return os_tsc() - ((struct hv_vm *)arg)->start_tsc;
}

static uint64_t cpu_now_ns(void *arg) {
    return now_ns(vm_of(arg));
}

static uint64_t cpu_ticks(void *arg) {
    return ticks(vm_of(arg));
}

static uint64_t task_deadline(const struct hv_task *t) {
    const struct hv_vm *m = t->vm;
    uint64_t at = __atomic_load_n(&t->cpu->deadline, __ATOMIC_SEQ_CST);
    uint64_t board = __atomic_load_n(&m->deadline, __ATOMIC_SEQ_CST);

    if (!t->cpu->index && board < at)
        at = board;
    return at < UINT64_MAX - m->start_ns ? at + m->start_ns : UINT64_MAX;
}

/* The board's timers are its first CPU's to run. */
static void board_deadline(void *arg, uint64_t deadline) {
    struct hv_vm *m = arg;

    __atomic_store_n(&m->deadline, deadline, __ATOMIC_SEQ_CST);
    hv_sched_deadline(&m->task[0]);
}

static void cpu_deadline(void *arg, uint64_t deadline) {
    struct machine_cpu *c = arg;

    __atomic_store_n(&c->deadline, deadline, __ATOMIC_SEQ_CST);
    hv_sched_deadline(task_of(c));
}

static int create_time(struct hv_vm *m) {
    struct vclock_source board = {.now_ns = now_ns,
                                  .ticks = ticks,
                                  .tick_hz = os_tsc_hz(),
                                  .deadline_changed = board_deadline,
                                  .arg = m};
    struct vclock_source cpu = {.now_ns = cpu_now_ns,
                                .ticks = cpu_ticks,
                                .tick_hz = os_tsc_hz(),
                                .deadline_changed = cpu_deadline};
    bool ok;

    m->start_ns = os_monotonic_ns();
    m->start_tsc = os_tsc();
    m->deadline = UINT64_MAX;
    m->clock = vclock_new(&board);
    ok = m->clock;
    for (unsigned n = 0; ok && n < m->cpus; n++) {
        m->cpu[n].deadline = UINT64_MAX;
        cpu.arg = &m->cpu[n];
        m->cpu[n].clock = vclock_new(&cpu);
        ok = m->cpu[n].clock;
    }
    return ok ? 0 : -ENOMEM;
}

/* --- the run loop's needs --- */

static size_t console_tx(void *arg, const uint8_t *bytes, size_t n) {
    struct hv_vm *m = arg;

    board_park(&m->board);
    hv_console_write(m->cfg->number, bytes, n);
    return n;
}

static void take_input(struct hv_vm *m) {
    uint8_t buf[256];
    size_t room = uart_room(m->board.uart[0]), n;

    n = hv_console_read(m->cfg->number, buf, room < sizeof(buf) ? room : sizeof(buf));
    if (n)
        uart_receive(m->board.uart[0], buf, n);
}

static void take_signals(struct machine_cpu *c) {
    uint32_t signals = __atomic_exchange_n(&c->signals, 0, __ATOMIC_SEQ_CST);

    if ((signals & SIGNAL_INIT) && machine_cpu_start_init(c))
        end_life(vm_of(c), HV_ERROR);
    if (signals & SIGNAL_SIPI)
        machine_cpu_start_sipi(c, SIGNAL_VECTOR(signals));
}

static void service(void *arg) {
    struct machine_cpu *c = arg;
    struct hv_vm *m = vm_of(c);

    vclock_run(c->clock);
    if (!c->index) {
        board_enter(&m->board, c);
        vclock_run(m->clock);
        hv_trust_service(m->trust);
        take_input(m);
        board_leave(&m->board);
    }
    take_signals(c);
    if (c->waiting)
        vcpu_raise(c->vcpu, VCPU_EVENT_STOP);
    else
        hv_sched_serviced(task_of(c));
}

/* --- the scheduler's --- */

static bool is_over(const struct hv_vm *m) {
    return __atomic_load_n(&m->end, __ATOMIC_SEQ_CST) != GOES_ON;
}

static bool is_woken(struct machine_cpu *c) {
    uint32_t events;

    if (__atomic_exchange_n(&c->unhalt, false, __ATOMIC_SEQ_CST)) {
        c->vcpu->halted = false;
        return true;
    }
    lapic_settle(c->lapic);
    events = vcpu_events(c->vcpu);
    return (events & (VCPU_EVENT_KICK | VCPU_EVENT_STOP | VCPU_EVENT_ACTION)) ||
           ((events & VCPU_EVENT_NMI) && !c->vcpu->nmi_blocked) ||
           ((events & VCPU_EVENT_IRQ) && (c->vcpu->rflags & X86_FL_IF));
}

static bool task_ready(struct hv_task *t) {
    struct machine_cpu *c = t->cpu;

    if (is_over(t->vm))
        return c->index == 0;
    if (c->waiting)
        return __atomic_load_n(&c->signals, __ATOMIC_SEQ_CST);
    t->idle = t->idle && !is_woken(c) && task_deadline(t) > os_monotonic_ns() &&
              (c->index || !hv_trust_waits(t->vm->trust)) &&
              (c->index || !uart_room(t->vm->board.uart[0]) ||
               !hv_console_has(t->vm->cfg->number));
    return !t->idle;
}

/* Nothing to do: others have their turn. What the guest has written is shown. */
static void idle(void *arg) {
    struct machine_cpu *c = arg;
    struct hv_vm *m = vm_of(c);

    c->counters.halts++;
    if (!c->index) {
        board_enter(&m->board, c);
        uart_flush(m->board.uart[0]);
        board_leave(&m->board);
        hv_console_rest(m->cfg->number);
    }
    if (is_woken(c))
        return;
    task_of(c)->idle = true;
    vcpu_raise(c->vcpu, VCPU_EVENT_STOP);
}

static void task_run(struct hv_task *t) {
    struct machine_cpu *c = t->cpu;
    const struct run_board board = {.service = service, .idle = idle, .arg = c};
    enum run_end end;

    t->idle = false;
    vcpu_clear(c->vcpu, VCPU_EVENT_STOP);
    if (is_over(t->vm))
        return;
    vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
    end = engine_run_loop(c->ops, c->engine, c->vcpu, &board, &c->exits);
    vcpu_clear(c->vcpu, VCPU_EVENT_STOP); /* which ended the turn, and wakes nobody */
    if (end == RUN_SHUTDOWN)
        end_life(t->vm, HV_SHUTDOWN);
    else if (end == RUN_ERROR)
        end_life(t->vm, HV_ERROR);
}

static void tell_end(struct hv_vm *m) {
    static const char *const what[] = {
        [HV_POWEROFF] = "the guest has ended: powered off",
        [HV_RESET] = "the guest has ended: it cannot be booted again",
        [HV_DEBUG_EXIT] = "the guest has ended: wrote to the debug-exit port",
        [HV_SHUTDOWN] = "the guest has ended: triple fault",
        [HV_ERROR] = "the guest has ended: the engine failed",
    };

    hv_trust_end(m->trust);
    hv_console_rest(m->cfg->number);
    if (m->cfg->stats)
        hv_vm_stats(m);
    hv_console_line(m->cfg->number, what[m->end]);
}

static bool settle(struct hv_vm *m) {
    char why[384];

    for (unsigned n = 0; n < m->cpus; n++)
        hv_sched_await(&m->task[n]);
    uart_flush(m->board.uart[0]);
    if (m->end == HV_RESET && !hv_vm_boot(m, why, sizeof(why)))
        return false;
    if (m->end == HV_RESET)
        log_error("%s", why);
    tell_end(m);
    return true;
}

/* After a reset it is booted anew. */
static bool task_over(struct hv_task *t) {
    return is_over(t->vm) && settle(t->vm);
}

static const struct hv_task_ops task_ops = {
    .deadline = task_deadline, .ready = task_ready, .run = task_run, .over = task_over};

enum hv_end hv_vm_end(const struct hv_vm *m) {
    return (enum hv_end)m->end;
}

uint32_t hv_vm_exit_value(const struct hv_vm *m) {
    return m->exit_value;
}

/* --- creation --- */

/* What `trace` retains follows the page tables that its own CPU writes. */
static enum mmu_policy policy_for(const struct hv_config *cfg) {
    return cfg->policy == MMU_TRACE && cfg->cpus > 1 ? MMU_PCID
                                                     : (enum mmu_policy)cfg->policy;
}

static int create_cpu(struct hv_vm *m, unsigned n) {
    struct machine_cpu *c = &m->cpu[n];

    c->vcpu = vcpu_new();
    if (!c->vcpu)
        return -ENOMEM;
    m->task[n] =
        (struct hv_task){.ops = &task_ops, .vm = m, .cpu = c, .host = hv_sched_place()};
    c->index = n;
    c->board = &m->board;
    c->waits = -1;
    c->vcpu->mem = m->mem;
    c->vcpu->cpuid = m->cpuid;
    c->vcpu->cnt = &c->counters;
    vcpu_reset(c->vcpu);
    if (m->group)
        vcpu_group_add(m->group, c->vcpu);
    return mmu_create(c->vcpu, policy_for(m->cfg));
}

static int create_cpus(struct hv_vm *m) {
    struct cpuid_config cfg = {.paravirt = m->cfg->paravirt,
                               .between_cpus = m->cfg->paravirt && m->cfg->cpus > 1,
                               .tsc_hz = os_tsc_hz()};
    int rc;

    vec_init();
    rc = sem_init();
    m->cpus = m->cfg->cpus;
    m->cpu = calloc(m->cpus, sizeof(*m->cpu));
    m->task = calloc(m->cpus, sizeof(*m->task));
    m->cpuid = cpuid_model_new(&cfg);
    m->group = m->cpus > 1 ? calloc(1, sizeof(*m->group)) : NULL;
    if (!m->cpu || !m->task || !m->cpuid || (m->cpus > 1 && !m->group))
        return -ENOMEM;
    if (m->group)
        vcpu_group_init(m->group, kick_vcpu, m);
    for (unsigned n = 0; !rc && n < m->cpus; n++)
        rc = create_cpu(m, n);
    return rc;
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
    m->board = (struct board){.cpu = m->cpu,
                              .cpus = m->cpus,
                              .mem = m->mem,
                              .bus = m->bus,
                              .clock = m->clock,
                              .cnt = &m->counters,
                              .paravirt = m->cfg->paravirt,
                              .ticks_base = -m->start_tsc};
    rc = board_create(&m->board, &host, &serial);
    for (unsigned n = 0; n < m->cpus; n++) {
        m->cpu[n].vcpu->hooks = &board_vcpu_hooks;
        m->cpu[n].vcpu->hooks_arg = &m->cpu[n];
    }
    return rc;
}

static void trust_ports(void *arg, uint16_t first, unsigned count, bool open) {
    struct hv_vm *m = arg;

    for (unsigned n = 0; n < m->cpus; n++)
        hv_engine_ports(m->cpu[n].ops, m->cpu[n].engine, first, count, open);
}

static int create_trust(struct hv_vm *m, char *why, size_t why_size) {
    struct hv_trust_host host = {
        .guest = m->cfg->number, .cpu = m->task[0].host, .ports = trust_ports, .arg = m};

    return hv_trust_new(m->cfg, &m->board, &host, &m->trust, why, why_size);
}

static void map_changed(void *arg) {
    struct hv_vm *m = arg;

    board_park(&m->board);
    vcpu_stop(m->group);
    for (unsigned n = 0; n < m->cpus; n++) {
        struct machine_cpu *c = &m->cpu[n];

        mmu_map_changed(c->vcpu);
        if (c->ops->map_changed)
            c->ops->map_changed(c->engine);
    }
    vcpu_go(m->group);
}

static void hook_memory(struct hv_vm *m) {
    struct engine_trace trace[MEM_TRACE_COUNT];
    unsigned count;

    mmu_hook(m->cpu[0].vcpu);
    mem_hooks(m->mem)->changed = map_changed;
    mem_hooks(m->mem)->changed_arg = m;
    m->cpu[0].ops->traces(m->cpu[0].engine, trace, &count);
    for (unsigned n = 0; n < count; n++)
        mem_own_trace(m->mem, trace[n].trace, trace[n].written, trace[n].arg);
}

static int create_engines(struct hv_vm *m, char *why, size_t why_size) {
    struct hv_engine_options options = {.cfg = m->cfg};
    struct engine_config cfg = {.options = &options};
    size_t count;
    const struct engine_ops *const *all = hv_engines(&count);
    int rc = -EINVAL;

    snprintf(why, why_size, "engine=%s: there is no engine of that name", m->cfg->engine);
    for (size_t n = 0; n < count; n++) {
        if (strcmp(m->cfg->engine, all[n]->name))
            continue;
        rc = 0;
        for (unsigned c = 0; !rc && c < m->cpus; c++) {
            m->cpu[c].ops = all[n];
            cfg.first = c ? m->cpu[0].engine : NULL;
            options.host = m->task[c].host;
            rc = all[n]->create(m->cpu[c].vcpu, &cfg, &m->cpu[c].engine, why, why_size);
        }
    }
    return rc;
}

/* What a guest that cannot be made has taken stays taken: without it we end. */
int hv_vm_new(const struct hv_config *cfg, const struct boot_image *image,
              struct hv_vm **out, char *why, size_t why_size) {
    struct hv_vm *m = calloc(1, sizeof(*m));
    int rc = -ENOMEM;

    snprintf(why, why_size, "out of memory");
    if (!m)
        return rc;
    m->cfg = cfg;
    m->image = image;
    if (policy_for(cfg) != cfg->policy)
        hv_console_line(cfg->number, "policy=trace is for guests with one CPU: pcid");
    rc = mem_create(cfg->memory, &m->mem);
    if (rc) {
        snprintf(
            why, why_size,
            "there are no %llu MiB of memory for the guest, and the 80 or so that it "
            "takes besides; memory=MIB wants less, or the machine more",
            (unsigned long long)cfg->memory >> 20);
        return rc;
    }
    rc = create_cpus(m);
    if (!rc)
        rc = create_board(m);
    if (!rc)
        rc = create_engines(m, why, why_size);
    if (!rc)
        rc = create_trust(m, why, why_size);
    if (rc)
        return rc;
    hook_memory(m);
    for (unsigned n = 0; n < m->cpus; n++)
        hv_sched_add(&m->task[n]);
    *out = m;
    return 0;
}

/* --- a life --- */

static int build_tables(struct hv_vm *m, struct boot_config *boot) {
    struct cpuid_regs id = cpuid_query(m->cpu[0].vcpu, 0, 0);
    struct cpuid_regs one = cpuid_query(m->cpu[0].vcpu, 1, 0);
    struct acpi_config acpi = {.cpus = m->cpus, .dsdt = {.pci = true}};
    struct mptable_config mp = {
        .cpus = m->cpus, .signature = one.eax, .features = one.edx, .pci = true};
    struct smbios_config smbios = {.cpus = m->cpus,
                                   .ram = m->cfg->memory,
                                   .signature = one.eax,
                                   .features = one.edx};
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

static void reset_cpu(struct machine_cpu *c) {
    vcpu_clear(c->vcpu, ~0u);
    vcpu_reset(c->vcpu);
    c->signals = 0;
    c->unhalt = false;
    c->waiting = c->index != 0;
    task_of(c)->idle = false;
}

int hv_vm_boot(struct hv_vm *m, char *why, size_t why_size) {
    struct boot_config boot = {.cmdline = m->cfg->cmdline};
    int rc;

    hv_trust_end(m->trust);
    mem_reset(m->mem);
    for (unsigned n = 0; n < m->cpus; n++)
        reset_cpu(&m->cpu[n]);
    board_enter(&m->board, &m->cpu[0]);
    board_reset(&m->board);
    board_set_tsc(&m->board, 0);
    board_leave(&m->board);
    for (unsigned n = 0; n < m->cpus; n++)
        m->cpu[n].vcpu->tsc_host = true;
    pci_setup(m->board.pci.bus);
    hv_trust_boot(m->trust);
    rc = build_tables(m, &boot);
    if (rc) {
        snprintf(why, why_size, "the board's tables cannot be placed");
        return rc;
    }
    rc = boot_image_load(m->image, m->cpu[0].vcpu, m->mem, &boot, why, why_size);
    for (unsigned n = 0; !rc && n < m->cpus; n++) {
        mmu_flush_all(m->cpu[n].vcpu);
        mmu_context_changed(m->cpu[n].vcpu);
        m->cpu[n].ops->reset(m->cpu[n].engine);
    }
    if (!rc && m->cfg->written)
        rc = hv_written_start(m);
    if (!rc)
        __atomic_store_n(&m->end, GOES_ON, __ATOMIC_SEQ_CST);
    return rc;
}
