/*
 * The machine; see machine.h. Order of creation: memory, vCPU, MMU, clock, board, engine;
 * of a boot: RAM zeroed, devices reset, tables and kernel loaded, shadows dropped.
 */
#include "machine/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "dev/acpi.h"
#include "dev/mptable.h"
#include "dev/smbios.h"
#include "machine/board.h"
#include "machine/counted.h"
#include "sem/sem.h"

struct machine {
    struct machine_config cfg;
    struct mem *mem;
    struct vcpu *vcpu;
    struct cpuid_model *cpuid;
    struct vclock *clock;
    struct bus *bus;
    struct board board;
    struct os_alarm *alarm;
    uint64_t start_ns; /* host clock at guest time 0 */
    uint64_t start_tsc;
    struct counted counted; /* instead, with cfg.counted */
    const struct engine_ops *ops;
    struct engine *engine;
    struct counters counters;
    struct exit_counts exits;
    enum machine_end end;
    bool report; /* machine_report() was called; atomic */
    bool quit;   /* machine_quit() was called; survives a reset */
    uint32_t exit_value;
};

/* --- the clock's source: the host's monotonic clock and TSC --- */

static uint64_t host_now(void *arg) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    return os_monotonic_ns() - m->start_ns;
}

static uint64_t host_ticks(void *arg) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    return os_tsc() - m->start_tsc;
}

static void deadline_changed(void *arg, uint64_t deadline) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    os_alarm_deadline(m->alarm, deadline < VCLOCK_NEVER - m->start_ns
                                    ? deadline + m->start_ns
                                    : UINT64_MAX);
}

/* --- or the guest's instructions --- */

static uint64_t counted_source(void *arg) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    return counted_now(&m->counted);
}

static void counted_deadline(void *arg, uint64_t deadline) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    counted_aim(&m->counted);
}

static uint64_t counted_realtime(void *arg) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    return m->cfg.start_ns + counted_now(&m->counted);
}

/* --- the run loop's needs --- */

/* On the alarm's thread. */
static void alarm_fired(void *arg) {
    struct machine *m = arg;

    vcpu_raise(m->vcpu, VCPU_EVENT_KICK);
    if (m->engine)
        m->ops->kick(m->engine);
}

static void take_input(struct machine *m) {
    const struct machine_console *con = &m->cfg.console;
    uint8_t buf[256];
    size_t n;

    if (!con->rx)
        return;
    do {
        size_t room = uart_room(m->board.uart);

        n = con->rx(con->arg, buf, room < sizeof(buf) ? room : sizeof(buf));
        uart_receive(m->board.uart, buf, n);
    } while (n);
    os_alarm_watch(m->alarm, con->rx_fd(con->arg));
}

static void take_counted_input(struct machine *m) {
    const struct machine_input *in = &m->cfg.input;
    uint64_t now = counted_now(&m->counted);
    uint8_t buf[256];
    size_t n;

    if (!in->next || now < m->counted.input_at)
        return;
    do {
        size_t room = uart_room(m->board.uart);

        n = in->take(in->arg, now, buf, room < sizeof(buf) ? room : sizeof(buf));
        uart_receive(m->board.uart, buf, n);
    } while (n);
    m->counted.input_at = in->next(in->arg, now);
}

static void serial_tx(void *arg, const uint8_t *bytes, size_t len) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    if (m->cfg.console.tx)
        m->cfg.console.tx(m->cfg.console.arg, bytes, len);
}

static void serial_room(void *arg) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    vcpu_raise(m->vcpu, VCPU_EVENT_KICK); /* service() takes what waits */
}

static void report_if_asked(struct machine *m) {
    if (__atomic_exchange_n(&m->report, false, __ATOMIC_ACQ_REL) && m->cfg.report)
        m->cfg.report(m->cfg.report_arg, m);
}

static void service(void *arg) {
    struct machine *m = arg;

    vclock_run(m->clock);
    take_input(m);
    report_if_asked(m);
}

static void end_life(struct machine *m, enum machine_end end);

static void watch_commands(struct machine *m) {
    const struct machine_input *in = &m->cfg.input;

    if (in->commands)
        os_alarm_watch(m->alarm, in->commands(in->arg));
}

static void counted_service(void *arg) {
    struct machine *m = arg;

    vclock_run(m->clock);
    watch_commands(m);
    take_counted_input(m);
    report_if_asked(m);
    counted_aim(&m->counted);
    if (m->counters.insns_retired >= m->counted.until || m->vcpu->step)
        end_life(m, MACHINE_PAUSED);
}

static void counted_idle(struct machine *m) {
    const struct machine_input *in = &m->cfg.input;
    uint64_t ns = counted_sleep_ns(&m->counted), passed = ns;

    if (in->sleep_fd)
        passed = os_alarm_sleep(m->alarm, in->sleep_fd(in->arg), ns);
    if (passed == VCLOCK_NEVER) {
        end_life(m, MACHINE_ASLEEP);
        return;
    }
    m->counted.slept += passed;
    if (passed < ns) /* for input */
        m->counted.input_at = counted_now(&m->counted);
    vcpu_raise(m->vcpu, VCPU_EVENT_KICK);
}

static void idle(void *arg) {
    struct machine *m = arg;

    m->counters.halts++;
    uart_flush(m->board.uart);
    if (m->cfg.counted) {
        counted_idle(m);
        return;
    }
    while (!(vcpu_events(m->vcpu) & (VCPU_EVENT_KICK | VCPU_EVENT_STOP | VCPU_EVENT_NMI)))
        os_alarm_wait(m->alarm);
}

/* --- what devices ask. They may be called with the guest's vector state live --- */

static void end_life(struct machine *m, enum machine_end end) {
    vec_park(m->vcpu);
    /* The first reason stands. */
    if (vcpu_events(m->vcpu) & VCPU_EVENT_STOP)
        return;
    m->end = end;
    vcpu_raise(m->vcpu, VCPU_EVENT_STOP);
}

static void on_poweroff(void *arg) {
    end_life(arg, MACHINE_POWEROFF);
}

static void on_reset(void *arg) {
    end_life(arg, MACHINE_RESET);
}

static void on_debug_exit(void *arg, uint32_t value) {
    struct machine *m = arg;

    m->exit_value = value;
    end_life(m, MACHINE_DEBUG_EXIT);
}

/* With the gate's position the meaning of every cached translation changes. */
static void on_a20(void *arg, bool on) {
    struct machine *m = arg;

    vec_park(m->vcpu);
    if (m->vcpu->mmu)
        mmu_flush_all(m->vcpu);
}

void machine_quit(struct machine *m) {
    m->quit = true;
    vcpu_raise(m->vcpu, VCPU_EVENT_STOP | VCPU_EVENT_KICK);
    if (m->engine)
        m->ops->kick(m->engine);
    os_alarm_wake(m->alarm);
}

void machine_report(struct machine *m) {
    __atomic_store_n(&m->report, true, __ATOMIC_RELEASE);
    vcpu_raise(m->vcpu, VCPU_EVENT_KICK);
    if (m->engine)
        m->ops->kick(m->engine);
    os_alarm_wake(m->alarm);
}

/* --- creation --- */

static int choose_engine(struct machine *m, char *why, size_t why_size) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);
    bool any = !strcmp(m->cfg.engine, "auto");
    const struct engine_config cfg = {
        .bt = &m->cfg.bt, .kernel_lapic = m->cfg.kernel_lapic, .only_if_fast = any};
    char reason[384] = "no engine of that name";
    int rc = -EINVAL;

    for (size_t i = 0; i < count; i++) {
        if (!any && strcmp(m->cfg.engine, all[i]->name))
            continue;
        if (m->cfg.counted && !all[i]->counts) {
            snprintf(reason, sizeof(reason),
                     "it cannot count instructions, which "
                     "--record and --replay need; take --engine bt");
            continue;
        }
        m->ops = all[i];
        rc = all[i]->create(m->vcpu, &cfg, &m->engine, reason, sizeof(reason));
        if (!rc)
            return 0;
        if (any)
            log_info("engine %s is passed over: %s", all[i]->name, reason);
    }
    snprintf(why, why_size, "engine %s: %s", m->cfg.engine, reason);
    return rc;
}

static bool engine_msi(void *arg, uint64_t addr, uint32_t data) {
    struct machine *m = arg;

    return m->ops->msi(m->engine, addr, data);
}

static int create_memory(struct machine *m, char *why, size_t why_size) {
    uint64_t size = m->cfg.memory;
    int rc;

    if (size < MEM_MIN_RAM || size > MEM_MAX_RAM || size % 4096) {
        snprintf(why, why_size,
                 "guest memory must be between %llu MiB and %llu GiB, in whole pages",
                 MEM_MIN_RAM >> 20, MEM_MAX_RAM >> 30);
        return -EINVAL;
    }
    rc = mem_create(size, &m->mem);
    if (rc)
        snprintf(why, why_size, "cannot get %llu MiB of guest memory: %s",
                 (unsigned long long)size >> 20, strerror(-rc));
    return rc;
}

static int create_cpu(struct machine *m, char *why, size_t why_size) {
    struct cpuid_config cfg = {.model = m->cfg.cpu,
                               .paravirt = m->cfg.paravirt,
                               .tsc_hz = m->cfg.counted ? COUNTED_TSC_HZ : os_tsc_hz()};
    int rc;

    vec_init();
    rc = sem_init();
    if (rc == -ENOMEM) {
        snprintf(why, why_size, "out of memory");
        return rc;
    }
    if (rc) {
        snprintf(why, why_size,
                 "cannot get executable memory, which every engine needs: %s",
                 strerror(-rc));
        return -ENODEV;
    }
    snprintf(why, why_size, "out of memory");
    rc = os_fenced_alloc(sizeof(*m->vcpu), (void **)&m->vcpu);
    if (rc)
        return rc;
    m->cpuid = cpuid_model_new(&cfg);
    if (!m->cpuid)
        return -ENOMEM;
    m->vcpu->mem = m->mem;
    m->vcpu->cpuid = m->cpuid;
    m->vcpu->cnt = &m->counters;
    if (m->cfg.counted)
        counted_init(&m->counted, m->vcpu);
    vcpu_reset(m->vcpu);
    return mmu_create(m->vcpu, m->cfg.policy);
}

static int create_board(struct machine *m) {
    struct vclock_source src = {.now_ns = host_now,
                                .ticks = host_ticks,
                                .tick_hz = os_tsc_hz(),
                                .deadline_changed = deadline_changed,
                                .arg = m};
    const struct vclock_source counted = {.now_ns = counted_source,
                                          .ticks = counted_source,
                                          .tick_hz = COUNTED_TSC_HZ,
                                          .deadline_changed = counted_deadline,
                                          .arg = m};
    struct dev_host host = {.poweroff = on_poweroff,
                            .reset = on_reset,
                            .debug_exit = on_debug_exit,
                            .a20 = on_a20,
                            .arg = m};
    struct uart_host serial = {.tx = serial_tx, .room = serial_room, .arg = m};
    int rc = os_alarm_new(alarm_fired, m, &m->alarm);

    if (rc)
        return rc;
    m->start_ns = os_monotonic_ns();
    m->start_tsc = os_tsc();
    m->clock = vclock_new(m->cfg.counted ? &counted : &src);
    m->counted.clock = m->clock;
    m->bus = bus_new();
    if (!m->clock || !m->bus)
        return -ENOMEM;
    m->board = (struct board){.vcpu = m->vcpu,
                              .mem = m->mem,
                              .bus = m->bus,
                              .clock = m->clock,
                              .cnt = &m->counters,
                              .exits = &m->exits,
                              .paravirt = m->cfg.paravirt,
                              .realtime_ns = m->cfg.counted ? counted_realtime : NULL,
                              .realtime_arg = m};
    return board_create(&m->board, &host, &serial);
}

int machine_create(const struct machine_config *cfg, struct machine **out, char *why,
                   size_t why_size) {
    struct machine *m = calloc(1, sizeof(*m));
    int rc;

    snprintf(why, why_size, "out of memory");
    if (!m)
        return -ENOMEM;
    m->cfg = *cfg;
    rc = create_memory(m, why, why_size);
    if (rc)
        goto fail;
    rc = create_cpu(m, why, why_size);
    if (rc)
        goto fail;
    rc = create_board(m);
    if (rc) {
        snprintf(why, why_size, "cannot set up the machine: %s", strerror(-rc));
        goto fail;
    }
    rc = choose_engine(m, why, why_size);
    if (rc)
        goto fail;
    if (m->cfg.kernel_lapic && m->ops->msi)
        board_use_lapic_of_engine(&m->board, engine_msi, m);
    *out = m;
    return 0;
fail:
    machine_free(m);
    return rc;
}

void machine_free(struct machine *m) {
    if (!m)
        return;
    /* The helper thread first: it kicks the engine. */
    os_alarm_free(m->alarm);
    if (m->engine)
        m->ops->destroy(m->engine);
    if (m->board.vcpu)
        board_destroy(&m->board);
    if (m->bus)
        bus_free(m->bus);
    if (m->clock)
        vclock_free(m->clock);
    if (m->vcpu && m->vcpu->mmu)
        mmu_destroy(m->vcpu);
    if (m->cpuid)
        cpuid_model_free(m->cpuid);
    os_fenced_free(m->vcpu, sizeof(*m->vcpu));
    if (m->mem)
        mem_destroy(m->mem);
    free(m);
}

/* --- lives --- */

/* What firmware would have left in memory to describe the board. */
static int build_tables(struct machine *m, struct boot_config *boot) {
    struct cpuid_regs id = cpuid_query(m->vcpu, 0, 0), one = cpuid_query(m->vcpu, 1, 0);
    struct acpi_config acpi = {.cpus = 1};
    struct mptable_config mp = {.cpus = 1, .signature = one.eax, .features = one.edx};
    struct smbios_config smbios = {
        .cpus = 1, .ram = m->cfg.memory, .signature = one.eax, .features = one.edx};
    int rc;

    memcpy(smbios.cpu_maker, &id.ebx, 4);
    memcpy(smbios.cpu_maker + 4, &id.edx, 4);
    memcpy(smbios.cpu_maker + 8, &id.ecx, 4);
    rc = acpi_build(m->mem, gpa(ACPI_WHERE), &acpi, &boot->rsdp, &boot->acpi_len);
    if (!rc)
        rc = mptable_build(m->mem, gpa(MPTABLE_WHERE), &mp);
    if (!rc)
        rc = smbios_build(m->mem, gpa(SMBIOS_WHERE), &smbios);
    return rc;
}

int machine_boot(struct machine *m, char *why, size_t why_size) {
    struct boot_config boot = m->cfg.boot;
    int rc;

    mem_reset(m->mem);
    vcpu_clear(m->vcpu, VCPU_EVENT_STOP | VCPU_EVENT_IRQ | VCPU_EVENT_NMI);
    vcpu_reset(m->vcpu);
    board_reset(&m->board);
    vclock_tsc_set(m->clock, 0);
    m->vcpu->tsc_base = vclock_tsc(m->clock) - os_tsc();
    m->vcpu->tsc_host = !m->cfg.counted;
    rc = build_tables(m, &boot);
    if (rc) {
        snprintf(why, why_size, "cannot place the board's tables: %s", strerror(-rc));
        return rc;
    }
    rc = boot_image_load(m->cfg.image, m->vcpu, m->mem, &boot, why, why_size);
    if (rc)
        return rc;
    mmu_flush_all(m->vcpu);
    mmu_context_changed(m->vcpu);
    m->ops->reset(m->engine);
    return 0;
}

static enum machine_end run(struct machine *m) {
    struct run_board board = {
        .service = m->cfg.counted ? counted_service : service, .idle = idle, .arg = m};
    enum run_end end;

    if (m->quit)
        return MACHINE_QUIT;
    m->end = MACHINE_QUIT;
    if (m->cfg.counted)
        watch_commands(m);
    else if (m->cfg.console.rx_fd)
        os_alarm_watch(m->alarm, m->cfg.console.rx_fd(m->cfg.console.arg));
    end = engine_run_loop(m->ops, m->engine, m->vcpu, &board, &m->exits);
    if (m->end != MACHINE_PAUSED)
        uart_flush(m->board.uart);
    switch (end) {
    case RUN_STOPPED:
        return m->end;
    case RUN_SHUTDOWN:
        return MACHINE_SHUTDOWN;
    default:
        return MACHINE_ERROR;
    }
}

enum machine_end machine_run(struct machine *m) {
    if (!m->cfg.counted)
        return run(m);
    return machine_run_to(m, UINT64_MAX);
}

enum machine_end machine_run_to(struct machine *m, uint64_t insns) {
    enum machine_end end;

    if (insns <= m->counters.insns_retired)
        return MACHINE_PAUSED;
    m->counted.until = insns;
    if (m->cfg.input.next && m->counted.input_at == VCLOCK_NEVER)
        m->counted.input_at = m->cfg.input.next(m->cfg.input.arg, machine_now_ns(m));
    counted_aim(&m->counted);
    end = run(m);
    if (end == MACHINE_PAUSED)
        vcpu_clear(m->vcpu, VCPU_EVENT_STOP);
    return end;
}

enum machine_end machine_run_fragment(struct machine *m, uint64_t insns) {
    enum machine_end end;

    m->vcpu->step = true;
    end = machine_run_to(m, insns);
    m->vcpu->step = false;
    return end;
}

uint64_t machine_now_ns(const struct machine *m) {
    return counted_now(&m->counted);
}

uint64_t machine_insns(const struct machine *m) {
    return m->counters.insns_retired;
}

void machine_list(struct machine *m, uint64_t from, uint32_t len,
                  const struct bt_listing *out) {
    if (m->ops->list)
        m->ops->list(m->engine, from, len, out);
}

void machine_retune(struct machine *m, const struct bt_options *opt) {
    if (m->ops->retune)
        m->ops->retune(m->engine, opt);
}

uint8_t *machine_ram(const struct machine *m, uint64_t *size) {
    *size = mem_ram_size(m->mem);
    return mem_ram_base(m->mem);
}

int machine_exit_code(const struct machine *m) {
    return (int)((m->exit_value << 1 | 1) & 0xff);
}

const struct vcpu *machine_vcpu(const struct machine *m) {
    return m->vcpu;
}

const struct counters *machine_counters(const struct machine *m) {
    return &m->counters;
}

const struct exit_counts *machine_exits(const struct machine *m) {
    return &m->exits;
}

void machine_perf_map(const struct machine *m, FILE *f) {
    if (m->ops->perf_map)
        m->ops->perf_map(m->engine, f);
}

void machine_engine_stats(const struct machine *m,
                          void (*emit)(void *arg, const char *name, uint64_t value),
                          void *arg) {
    if (m->ops->stats)
        m->ops->stats(m->engine, emit, arg);
}

const char *machine_engine_name(const struct machine *m) {
    return m->ops->name;
}

const unsigned long *machine_ioctls(const struct machine *m) {
    return m->ops->ioctls;
}
