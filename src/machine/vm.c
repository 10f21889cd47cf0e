/*
 * The VM; see machine.h and machine_int.h. Order of creation: memory, CPUs, clocks,
 * disks' workers, board, its optional devices, engines, threads; of a boot: devices
 * quiet, RAM zeroed, CPUs and devices reset, tables and kernel loaded, shadows dropped.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "cpu/cpuid.h"
#include "dev/pci/setup.h"
#include "dev/tables/acpi.h"
#include "dev/tables/mptable.h"
#include "dev/tables/smbios.h"
#include "direct/cell.h"
#include "machine/firmware.h"
#include "machine/machine_int.h"
#include "machine/virtio.h"
#include "sem/sem.h"

/* --- creation --- */

static bool with_firmware(const struct machine *m) {
    return m->cfg.image && boot_image_is_firmware(m->cfg.image);
}

/* Is there a fw_cfg? */
static bool tells(const struct machine *m) {
    return with_firmware(m) || m->cfg.item_count;
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
    else if (with_firmware(m))
        rc = boot_firmware_install(m->cfg.image, m->mem, why, why_size);
    return rc;
}

/* The process that makes cells is forked before there are threads. */
static int create_cells(struct machine *m, char *why, size_t why_size) {
    bool maybe = !strcmp(m->cfg.engine, "auto") || !strcmp(m->cfg.engine, "bt");
    const char *lacks;
    int rc;

    if (m->cfg.direct == DIRECT_OFF || m->cfg.counted || !maybe)
        return 0;
    rc = cell_pool_new(mem_ram_fd(m->mem), &m->cells);
    lacks = rc ? strerror(-rc) : direct_lacks(m->cells);
    if (!lacks)
        return 0;
    cell_pool_free(m->cells);
    m->cells = NULL;
    if (m->cfg.direct == DIRECT_AUTO) {
        log_info("nothing is run directly: %s", lacks);
        return 0;
    }
    snprintf(why, why_size, "--direct on: %s", lacks);
    return -ENODEV;
}

static int check_cpus(struct machine *m, char *why, size_t why_size) {
    if (!m->cfg.cpus)
        m->cfg.cpus = 1;
    if (m->cfg.cpus > MACHINE_CPUS) {
        snprintf(why, why_size, "a machine has at most %u CPUs", MACHINE_CPUS);
        return -EINVAL;
    }
    if (m->cfg.counted && m->cfg.cpus > 1) {
        snprintf(why, why_size,
                 "a run that is recorded, replayed or compared in lockstep has one CPU");
        return -EINVAL;
    }
    return 0;
}

/* What the host must give to every engine. */
static int prepare_host(char *why, size_t why_size) {
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
    return 0;
}

/* Counted time is nobody's to steal. */
static bool steal_time_known(const struct machine *m) {
    int fd = m->cfg.counted || !m->cfg.paravirt ? -1 : os_thread_waits_open(NULL);
    uint64_t ns;
    bool known = os_thread_waited(fd, &ns);

    os_thread_waits_close(fd);
    return known;
}

static int create_cpus(struct machine *m, char *why, size_t why_size) {
    struct cpuid_config cfg = {.model = m->cfg.cpu,
                               .change = m->cfg.cpu_change,
                               .changes = m->cfg.cpu_changes,
                               .paravirt = m->cfg.paravirt,
                               .between_cpus = m->cfg.cpus > 1,
                               .steal_time = steal_time_known(m),
                               .tsc_hz = m->cfg.counted ? COUNTED_TSC_HZ : os_tsc_hz()};
    int rc = prepare_host(why, why_size);

    if (rc)
        return rc;
    snprintf(why, why_size, "out of memory");
    m->cpuid = cpuid_model_new(&cfg);
    m->cpu = calloc(m->cfg.cpus, sizeof(*m->cpu));
    m->group = calloc(1, sizeof(*m->group));
    if (!m->cpuid || !m->cpu || !m->group)
        return -ENOMEM;
    vcpu_group_init(m->group, machine_kick_vcpu, m);
    m->cpus = m->cfg.cpus;
    m->group->splits = m->cpus == 1 || os_split_locks();
    if (m->cpus == 1)
        os_fence_init(); /* without it the guest hears of more than it asks for */
    for (unsigned n = 0; n < m->cpus; n++) {
        rc = machine_cpu_create(m, &m->cpu[n]);
        if (rc)
            return rc;
    }
    if (m->cfg.counted)
        counted_init(&m->counted, machine_boot_cpu(m)->vcpu);
    return 0;
}

static int create_board(struct machine *m) {
    struct dev_host host = machine_dev_host(m);
    struct uart_host serial[BOARD_SERIALS];
    int rc = machine_wake_create(m);

    if (!rc)
        rc = machine_quota_create(m);
    if (rc)
        return rc;
    m->board =
        (struct board){.cpu = m->cpu,
                       .cpus = m->cpus,
                       .mem = m->mem,
                       .cnt = &m->counters,
                       .paravirt = m->cfg.paravirt,
                       .steal_time = cpuid_steal_time(m->cpuid),
                       .no_pci = m->cfg.no_pci,
                       .firmware = with_firmware(m),
                       .tells = tells(m),
                       .display = m->cfg.display,
                       .vga_bios = m->cfg.vga_bios,
                       .vga_bios_size = m->cfg.vga_bios_size,
                       .serials = machine_serials_host(m, serial),
                       .realtime_ns = m->cfg.counted ? machine_counted_realtime : NULL,
                       .realtime_arg = m};
    rc = machine_time_create(m);
    if (!rc)
        rc = machine_disks_create(m);
    m->bus = bus_new();
    if (rc || !m->bus)
        return rc ? rc : -ENOMEM;
    m->board.clock = m->clock;
    m->board.bus = m->bus;
    rc = board_create(&m->board, &host, serial);
    if (!rc) {
        machine_generation_begin(m);
        machine_hook_cpus(m);
    }
    return rc;
}

static bool engine_msi(void *arg, uint64_t addr, uint32_t data) {
    struct machine_cpu *c = machine_boot_cpu(arg);

    return c->ops->msi(c->engine, addr, data);
}

static int create_engines(struct machine *m, char *why, size_t why_size) {
    const struct machine_cpu *c = machine_boot_cpu(m);
    int rc = machine_choose_engine(m, why, why_size);

    if (!rc && strcmp(c->ops->name, "bt")) {
        cell_pool_free(m->cells);
        m->cells = NULL;
    }
    if (!rc && c->ops->has_lapic && c->ops->has_lapic(c->engine))
        board_use_lapic_of_engine(&m->board, engine_msi, m);
    return rc;
}

int machine_create(const struct machine_config *cfg, struct machine **out, char *why,
                   size_t why_size) {
    struct machine *m = calloc(1, sizeof(*m));
    int rc;

    snprintf(why, why_size, "out of memory");
    if (!m)
        return -ENOMEM;
    m->cfg = *cfg;
    rc = check_cpus(m, why, why_size);
    if (!rc)
        rc = create_memory(m, why, why_size);
    if (!rc)
        rc = create_cpus(m, why, why_size);
    if (!rc)
        rc = create_cells(m, why, why_size);
    if (rc)
        goto fail;
    rc = create_board(m);
    if (rc) {
        snprintf(why, why_size, "cannot set up the machine: %s", strerror(-rc));
        goto fail;
    }
    rc = machine_devices_create(m, why, why_size);
    if (rc)
        goto fail;
    rc = create_engines(m, why, why_size);
    if (rc)
        goto fail;
    machine_hook_memory(m);
    rc = machine_start_threads(m);
    if (rc) {
        snprintf(why, why_size, "cannot make a thread for each CPU: %s", strerror(-rc));
        goto fail;
    }
    *out = m;
    return 0;
fail:
    machine_free(m);
    return rc;
}

void machine_free(struct machine *m) {
    if (!m)
        return;
    machine_end_threads(m);
    if (m->checkpoints.free)
        m->checkpoints.free(m);
    machine_disks_free(m);
    machine_free_engines(m);
    cell_pool_free(m->cells);
    machine_devices_free(m);
    if (m->board.cpu)
        board_destroy(&m->board);
    if (m->bus)
        bus_free(m->bus);
    machine_time_free(m);
    machine_quota_free(m);
    machine_sharing_end(m);
    machine_wake_free(m);
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_free(&m->cpu[n]);
    free(m->group);
    free(m->cmdline);
    free(m->cpu);
    if (m->cpuid)
        cpuid_model_free(m->cpuid);
    if (m->mem)
        mem_destroy(m->mem);
    free(m);
}

/* --- lives --- */

/* Where tables for firmware are built, before it is told of them: below 1 MiB it is not
 * RAM yet. */
#define FIRMWARE_ACPI 0x20000u
#define FIRMWARE_SMBIOS 0x40000u

static int tell(struct machine *m, const struct boot_config *boot) {
    char order[64 * (MACHINE_DISKS + MACHINE_NETS)];
    const struct firmware_config cfg = {.identity = m->cfg.identity,
                                        .items = m->cfg.items,
                                        .item_count = m->cfg.item_count,
                                        .cpus = m->cpus,
                                        .ram = m->cfg.memory,
                                        .acpi = boot->rsdp,
                                        .acpi_len = boot->acpi_len,
                                        .smbios = gpa(FIRMWARE_SMBIOS),
                                        .smbios_len = SMBIOS_MAX_SIZE,
                                        .menu = m->cfg.boot_menu,
                                        .bootorder = order};

    if (!with_firmware(m)) {
        fw_cfg_clear(m->board.fw_cfg);
        return firmware_tell_items(m->board.fw_cfg, &cfg);
    }
    machine_bootorder(m, order, sizeof(order));
    m->told = true;
    return firmware_tell(m->board.fw_cfg, m->mem, &cfg);
}

/* What firmware would have left in memory to describe the board, or is told of it. */
static int build_tables(struct machine *m, struct boot_config *boot) {
    const struct vcpu *v = machine_boot_cpu(m)->vcpu;
    struct cpuid_regs id = cpuid_query(v, 0, 0), one = cpuid_query(v, 1, 0);
    struct acpi_config acpi = {
        .cpus = m->cpus,
        .dsdt = {.pci = !m->cfg.no_pci, .fw_cfg = tells(m), .generation = VMGENID_BASE}};
    struct mptable_config mp = {.cpus = m->cpus,
                                .signature = one.eax,
                                .features = one.edx,
                                .pci = !m->cfg.no_pci};
    struct smbios_config smbios = {.cpus = m->cpus,
                                   .ram = m->cfg.memory,
                                   .signature = one.eax,
                                   .features = one.edx,
                                   .identity = m->cfg.identity};
    bool firmware = with_firmware(m);
    int rc;

    acpi.dsdt.keyboard = firmware || m->cfg.display;
    dsdt_pci_windows(&acpi.dsdt, mem_ram_size(m->mem), cpuid_phys_bits(m->cpuid));
    machine_virtio_in_acpi(m, &acpi.dsdt);
    memcpy(smbios.cpu_maker, &id.ebx, 4);
    memcpy(smbios.cpu_maker + 4, &id.edx, 4);
    memcpy(smbios.cpu_maker + 8, &id.ecx, 4);
    rc = acpi_build(m->mem, gpa(firmware ? FIRMWARE_ACPI : ACPI_WHERE), &acpi,
                    &boot->rsdp, &boot->acpi_len);
    if (!rc && !firmware) /* which makes its own */
        rc = mptable_build(m->mem, gpa(MPTABLE_WHERE), &mp);
    if (!rc)
        rc =
            smbios_build(m->mem, gpa(firmware ? FIRMWARE_SMBIOS : SMBIOS_WHERE), &smbios);
    return rc || !tells(m) ? rc : tell(m, boot);
}

void machine_power_up(struct machine *m, bool empty) {
    machine_board_enter(m); /* back ends may be about to call */
    machine_devices_quiet(m);
    machine_board_leave(m);
    if (empty)
        mem_reset(m->mem);
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_reset(&m->cpu[n]);
    machine_board_enter(m);
    board_reset(&m->board);
    machine_devices_reset(m);
    board_set_tsc(&m->board, 0);
    if (m->cells) /* so that RDTSC can be run as it is */
        board_follow_tsc(&m->board);
    machine_board_leave(m);
    for (unsigned n = 0; n < m->cpus; n++)
        m->cpu[n].vcpu->tsc_host = !m->cfg.counted;
}

int machine_boot(struct machine *m, char *why, size_t why_size) {
    struct boot_config boot = m->cfg.boot;
    int rc;

    machine_power_up(m, true);
    if (m->board.pci.bus && !with_firmware(m))
        pci_setup(m->board.pci.bus);
    rc = machine_virtio_in_cmdline(m, &boot);
    if (!rc)
        rc = build_tables(m, &boot);
    if (rc) {
        snprintf(why, why_size, "cannot place the board's tables: %s", strerror(-rc));
        return rc;
    }
    rc = boot_image_load(m->cfg.image, machine_boot_cpu(m)->vcpu, m->mem, &boot, why,
                         why_size);
    if (rc)
        return rc;
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_state_changed(&m->cpu[n]);
    return 0;
}

/* --- what it tells of itself --- */

void machine_power_button(struct machine *m) {
    machine_board_enter(m);
    pm_power_button(m->board.pm);
    machine_board_leave(m);
}

void machine_reset(struct machine *m) {
    machine_resume(m);
    machine_end_life(m, MACHINE_RESET);
}

void machine_look(struct machine *m, struct vga_picture *out) {
    machine_board_enter(m);
    vga_look(m->board.vga, m->mem, out);
    machine_board_leave(m);
}

void machine_draw(const struct machine *m, const struct vga_picture *p, uint32_t *out) {
    vga_draw(p, m->mem, out);
}

bool machine_key(struct machine *m, unsigned key, bool down) {
    bool taken;

    machine_board_enter(m);
    taken = kbc_key(m->board.kbc, key, down);
    machine_board_leave(m);
    return taken;
}

void machine_pointer(struct machine *m, const struct mouse_event *e) {
    machine_board_enter(m);
    kbc_pointer(m->board.kbc, e);
    machine_board_leave(m);
}

bool machine_screen(struct machine *m, struct vga_text *out) {
    bool shown;

    machine_board_enter(m);
    shown = vga_read_text(m->board.vga, m->mem, out);
    machine_board_leave(m);
    return shown;
}

unsigned machine_cpus(const struct machine *m) {
    return m->cpus;
}

void machine_list(struct machine *m, uint64_t from, uint32_t len,
                  void (*line)(void *arg, const char *text), void *arg) {
    struct machine_cpu *c = machine_boot_cpu(m);

    if (c->ops->list)
        c->ops->list(c->engine, from, len, line, arg);
}

void machine_retune(struct machine *m, const struct machine_options *o) {
    m->cfg.options = *o;
    for (unsigned n = 0; n < m->cpus; n++) {
        struct machine_cpu *c = &m->cpu[n];

        if (c->ops->retune)
            c->ops->retune(c->engine, machine_options_of(&m->cfg.options, c->ops));
    }
}

uint8_t *machine_ram(const struct machine *m, uint64_t *size) {
    *size = mem_ram_size(m->mem);
    return mem_ram_base(m->mem);
}

bool machine_ram_shown(const struct machine *m) {
    return mem_ram_fd(m->mem) < 0;
}

int machine_exit_code(const struct machine *m) {
    return (int)((m->exit_value << 1 | 1) & 0xff);
}

const struct vcpu *machine_vcpu(const struct machine *m, unsigned cpu) {
    return m->cpu[cpu].vcpu;
}

struct counters machine_counters(const struct machine *m) {
    struct counters sum = m->counters;

    for (unsigned n = 0; n < m->cpus; n++)
        counters_add(&sum, &m->cpu[n].counters);
    return sum;
}

struct exit_counts machine_exits(const struct machine *m) {
    struct exit_counts sum = {0};

    for (unsigned n = 0; n < m->cpus; n++)
        for (unsigned r = 0; r < EXIT_COUNT; r++)
            sum.n[r] += m->cpu[n].exits.n[r];
    return sum;
}

void machine_perf_map(const struct machine *m, FILE *f) {
    const struct machine_cpu *c = &m->cpu[0];

    if (c->ops->perf_map)
        c->ops->perf_map(c->engine, f);
}

void machine_engine_stats(const struct machine *m,
                          void (*emit)(void *arg, const char *name, uint64_t value),
                          void *arg) {
    for (unsigned n = 0; n < m->cpus; n++)
        if (m->cpu[n].ops->stats)
            m->cpu[n].ops->stats(m->cpu[n].engine, emit, arg);
}

const char *machine_engine_name(const struct machine *m) {
    return m->cpu[0].ops->name;
}

const unsigned long *machine_ioctls(const struct machine *m) {
    return m->cpu[0].ops->ioctls;
}

const unsigned long *machine_device_ioctls(const struct machine *m) {
    return m->cpu[0].ops->device_ioctls;
}
