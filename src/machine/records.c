/*
 * The machine as records of a snapshot: who has which, and in which order they are read.
 *
 * What is read later leans on what came before: time before timers, memory and the bridge
 * that says what is where before queues, transports before devices. Lines between devices
 * are in no record: both ends have theirs.
 *
 * All of it happens while the CPUs stand and the guest's time does, with the board's
 * lock.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/state.h"
#include "cpu/vec.h"
#include "machine/machine_int.h"
#include "machine/possible.h"
#include "snapshot/snapshot.h"

/* --- what has to be the same --- */

/* Words of CPUID that say what the CPU can do, without the bits that move. */
static const struct {
    uint32_t leaf, sub;
    enum { EAX, EBX, ECX, EDX } reg;
    uint32_t moves;
} words[] = {
    {1, 0, ECX, 1u << 27},   {1, 0, EDX, 1u << 9 | 1u << 28},
    {7, 0, EBX, 0},          {7, 0, ECX, 1u << 4},
    {7, 0, EDX, 0},          {7, 1, EAX, 0},
    {7, 2, EDX, 0},          {0xd, 1, EAX, 0},
    {0x80000001, 0, ECX, 0}, {0x80000001, 0, EDX, 1u << 9},
    {0x80000008, 0, EBX, 0},
};

static uint32_t word_of(const struct vcpu *v, unsigned n) {
    struct cpuid_regs r = cpuid_query(v, words[n].leaf, words[n].sub);
    const uint32_t reg[] = {r.eax, r.ebx, r.ecx, r.edx};

    return reg[words[n].reg] & ~words[n].moves;
}

/* The guest has seen its CPU, and uses what it has: another may have more, not less. */
static void model_state(void *arg, struct snapshot *s) {
    const struct vcpu *v = ((struct machine *)arg)->cpu[0].vcpu;
    uint32_t vendor = cpuid_query(v, 0, 0).ebx, signature = cpuid_query(v, 1, 0).eax;
    uint32_t is_vendor = vendor, is_signature = signature;
    bool good;

    SNAPSHOT(s, is_vendor);
    SNAPSHOT(s, is_signature);
    good = is_vendor == vendor && is_signature == signature;
    for (unsigned n = 0; n < ARRAY_SIZE(words); n++) {
        uint32_t word = word_of(v, n);

        SNAPSHOT(s, word);
        good &= !(word & ~word_of(v, n));
    }
    if (snapshot_reading(s) && !good)
        snapshot_refuse(s, "its machine has another model of CPU (--cpu), or one that "
                           "can do more than this engine and this host");
}

static void machine_state(void *arg, struct snapshot *s) {
    struct machine *m = arg;
    uint64_t memory = m->cfg.memory, rom = mem_rom_size(m->mem);
    uint32_t cpus = m->cpus;
    bool paravirt = m->cfg.paravirt, counted = m->cfg.counted;

    SNAPSHOT(s, memory);
    SNAPSHOT(s, cpus);
    SNAPSHOT(s, paravirt);
    SNAPSHOT(s, counted);
    SNAPSHOT(s, rom);
    SNAPSHOT(s, m->counted_random);
    if (!snapshot_reading(s))
        return;
    m->thawed_counted = counted;
    if (memory != m->cfg.memory)
        snapshot_refuse(s, "its machine has another size of memory");
    else if (cpus != m->cpus)
        snapshot_refuse(s, "its machine has another number of CPUs");
    else if (paravirt != m->cfg.paravirt)
        snapshot_refuse(s, "one machine has KVM's clock, the other has not "
                           "(--no-paravirt)");
    else if (counted && !m->cfg.counted)
        snapshot_refuse(s, "its machine counts time by instructions");
    else if (mem_rom_resize(m->mem, rom))
        snapshot_need(s, false);
}

/* --- time --- */

/* A machine of the host's time is counted from here on: all of its time so far was slept
 * through, and its date is the run's at this point. */
static void count_from(struct machine *m, uint64_t now) {
    machine_boot_cpu(m)->counters.insns_retired = 0;
    m->counted.slept = now;
    m->cfg.start_ns -= now;
}

static void time_state(void *arg, struct snapshot *s) {
    struct machine *m = arg;
    uint64_t now = vclock_now(m->clock), ticks = vclock_ticks(m->clock);
    uint64_t insns = machine_insns(m), slept = m->counted.slept;

    SNAPSHOT(s, now);
    SNAPSHOT(s, ticks);
    SNAPSHOT(s, insns);
    SNAPSHOT(s, slept);
    snapshot_need(s, now < COUNTED_END && insns < COUNTED_END && slept < COUNTED_END);
    if (!snapshot_reading(s) || !snapshot_good(s))
        return;
    if (m->cfg.counted && !m->thawed_counted) {
        count_from(m, now);
    } else if (m->cfg.counted) {
        machine_boot_cpu(m)->counters.insns_retired = insns;
        m->counted.slept = slept;
    } else {
        machine_time_set(m, now, ticks);
    }
}

/* A counted run's date, and where its input is. */
static void counted_state(void *arg, struct snapshot *s) {
    SNAPSHOT(s, ((struct machine *)arg)->cfg.start_ns);
}

static void counted_records(struct machine *m, struct snapshot *s) {
    const struct machine_input *in = &m->cfg.input;

    if (!m->cfg.counted)
        return;
    snapshot_optional(s, "counted", 0, 1, counted_state, m);
    if (in->state)
        snapshot_optional(s, "tape", 0, 1, in->state, in->arg);
}

/* --- CPUs --- */

static void part_state(struct vcpu *v, const struct vcpu_part *p, unsigned reg,
                       struct snapshot *s) {
    unsigned at = vcpu_part_offset(p, reg);
    uint8_t none[64] = {0};
    uint8_t *bytes = at ? (uint8_t *)v + at : none;

    snapshot_bytes(s, bytes, p->size);
    if (at || !snapshot_reading(s))
        return;
    for (unsigned n = 0; n < p->size; n++)
        if (none[n])
            snapshot_refuse(s, "its CPU uses registers that this host's does not have");
}

static void cpu_state(void *arg, struct snapshot *s) {
    struct machine_cpu *c = arg;
    struct vcpu *v = c->vcpu;
    uint64_t tsc = vclock_tsc(c->clock);
    bool nmi = vcpu_events(v) & VCPU_EVENT_NMI;

    for (size_t n = 0; n < vcpu_part_count; n++)
        for (unsigned reg = 0; reg < vcpu_parts[n].count; reg++)
            part_state(v, &vcpu_parts[n], reg, s);
    SNAPSHOT(s, tsc);
    SNAPSHOT(s, nmi);
    SNAPSHOT(s, c->waiting);
    SNAPSHOT(s, c->unhalt);
    SNAPSHOT(s, c->signals);
    if (!snapshot_reading(s))
        return;
    snapshot_need(s, possible_vcpu(v));
    if (!snapshot_good(s))
        return;
    vclock_tsc_set(c->clock, tsc);
    if (nmi)
        vcpu_raise(v, VCPU_EVENT_NMI);
    vcpu_update_mode(v);
    vcpu_forget_gates(v);
}

/* --- the board --- */

/* One of the board's devices, as snapshot_record() calls it. */
#define PART(name, kind)                                                                 \
    static void name(void *thing, struct snapshot *s) {                                  \
        kind(thing, s);                                                                  \
    }
PART(put_lapic, lapic_state)
PART(put_ioapic, ioapic_state)
PART(put_pic, pic_state)
PART(put_ports, ports_state)
PART(put_kbc, kbc_state)
PART(put_pit, pit_state)
PART(put_rtc, rtc_state)
PART(put_uart, uart_state)
PART(put_pm, pm_state)
PART(put_vmgenid, vmgenid_state)
PART(put_vga, vga_state)
PART(put_pvclock, pvclock_state)
PART(put_steal, steal_state)
PART(put_fw_cfg, fw_cfg_state)
PART(put_pci, pci_state)
PART(put_i440fx, i440fx_state)
PART(put_piix, piix_state)
PART(put_display, display_state)

/* Counted time is nobody's to steal: what the guest was told of it stays as it is. */
static void leave_out(void *arg, struct snapshot *s) {
    uint8_t byte;

    (void)arg;
    while (snapshot_left(s))
        snapshot_bytes(s, &byte, 1);
}

static void cpu_records(struct machine *m, struct snapshot *s) {
    for (unsigned n = 0; n < m->cpus; n++)
        snapshot_record(s, "cpu", n, 1, cpu_state, &m->cpu[n]);
    for (unsigned n = 0; n < m->cpus; n++) {
        if (m->cpu[n].lapic)
            snapshot_record(s, "lapic", n, 1, put_lapic, m->cpu[n].lapic);
        if (m->cpu[n].steal)
            snapshot_record(s, "steal", n, 1, put_steal, m->cpu[n].steal);
        else if (snapshot_reading(s) && m->cfg.counted && !m->thawed_counted)
            snapshot_optional(s, "steal", n, 1, leave_out, m);
    }
}

static void pci_records(struct board *b, struct snapshot *s) {
    if (!b->pci.bus)
        return;
    snapshot_record(s, "pci", 0, 1, put_pci, b->pci.bus);
    snapshot_record(s, "i440fx", 0, 1, put_i440fx, b->pci.i440fx);
    snapshot_record(s, "piix", 0, 1, put_piix, b->pci.piix);
    if (b->pci.display)
        snapshot_record(s, "display", 0, 1, put_display, b->pci.display);
}

static void board_records(struct board *b, struct snapshot *s) {
    snapshot_record(s, "ioapic", 0, 1, put_ioapic, b->ioapic);
    snapshot_record(s, "pic", 0, 1, put_pic, b->pic);
    snapshot_record(s, "ports", 0, 1, put_ports, b->ports);
    snapshot_record(s, "kbc", 0, 1, put_kbc, b->kbc);
    snapshot_record(s, "pit", 0, 1, put_pit, b->pit);
    snapshot_record(s, "rtc", 0, 1, put_rtc, b->rtc);
    for (unsigned n = 0; n < BOARD_SERIALS && b->uart[n]; n++)
        snapshot_record(s, "uart", n, 1, put_uart, b->uart[n]);
    snapshot_record(s, "pm", 0, 1, put_pm, b->pm);
    /* Optional: there are machines of a time when boards had none. */
    snapshot_optional(s, "vmgenid", 0, 1, put_vmgenid, b->vmgenid);
    snapshot_record(s, "vga", 0, 1, put_vga, b->vga);
    snapshot_record(s, "pvclock", 0, 1, put_pvclock, b->pvclock);
    if (b->fw_cfg)
        snapshot_record(s, "fw_cfg", 0, 1, put_fw_cfg, b->fw_cfg);
    pci_records(b, s);
}

/* What the board itself keeps of its lines. */
static void lines_state(void *arg, struct snapshot *s) {
    struct machine *m = arg;

    SNAPSHOT(s, m->board.isa_lines);
    SNAPSHOT(s, m->board.pirq_lines);
    for (unsigned n = 0; n < ARRAY_SIZE(m->virtio_lines); n++)
        SNAPSHOT(s, m->virtio_lines[n]);
}

static void all_records(struct machine *m, struct snapshot *s) {
    snapshot_record(s, "machine", 0, 1, machine_state, m);
    snapshot_record(s, "model", 0, 1, model_state, m);
    snapshot_record(s, "time", 0, 1, time_state, m);
    counted_records(m, s);
    cpu_records(m, s);
    board_records(&m->board, s);
    snapshot_record(s, "lines", 0, 1, lines_state, m);
    machine_devices_records(m, s);
    machine_nets_records(m, s);
    machine_warm_record(m, s);
}

/* --- writing --- */

/* What was written is where a flush puts it, as what the guest asked for. */
struct flush {
    struct block_request request;
    int rc;
};

static void flushed(struct block_request *r, int rc) {
    container_of(r, struct flush, request)->rc = rc;
}

/* What is wrong, or NULL. */
static const char *disks_settle(struct machine *m) {
    static const char silent[] = "a disk does not answer";
    struct flush flush[MACHINE_DISKS] = {0};
    int rc = 0;

    if (!machine_disks_rest(m))
        return silent;
    machine_board_enter(m);
    for (unsigned n = 0; n < m->cfg.disk_count; n++) {
        struct block *b = m->cfg.disks[n].block;

        flush[n].request = (struct block_request){.op = BLOCK_FLUSH, .done = flushed};
        if (b && !block_readonly(b))
            block_submit(b, &flush[n].request);
    }
    machine_board_leave(m);
    if (!machine_disks_rest(m)) {
        machine_board_enter(m);
        for (unsigned n = 0; n < m->cfg.disk_count; n++)
            if (m->cfg.disks[n].block)
                block_drain(m->cfg.disks[n].block);
        machine_board_leave(m);
        return silent;
    }
    for (unsigned n = 0; n < m->cfg.disk_count; n++)
        rc = rc ? rc : flush[n].rc;
    return rc ? "a disk cannot be flushed" : NULL;
}

#define COUNTED_LOOKS 2000u
#define COUNTED_BETWEEN_NS 500000u

/* A counted run's requests end when its own time comes, which nobody may hurry; what it
 * writes to its disks is this run's alone, and need not be flushed. So the guest goes on
 * until there is a moment without. */
static const char *disks_settle_counted(struct machine *m) {
    for (unsigned n = 0; machine_disks_busy(m); n++) {
        if (n == COUNTED_LOOKS)
            return "the guest asks more of a disk all the time";
        machine_resume_for(m, PAUSED_BY_SNAPSHOT);
        os_sleep_ns(COUNTED_BETWEEN_NS);
        machine_pause_for(m, PAUSED_BY_SNAPSHOT);
    }
    return NULL;
}

static const char *cannot(struct machine *m) {
    if (!machine_boot_cpu(m)->lapic)
        return "the local APICs are the host kernel's: take --irqchip user";
    return NULL;
}

void machine_records(struct machine *m, struct snapshot *s) {
    machine_board_enter(m);
    all_records(m, s);
    machine_board_leave(m);
}

int machine_save(struct machine *m, struct snapshot *s) {
    const char *why = cannot(m);

    machine_pause_for(m, PAUSED_BY_SNAPSHOT);
    if (!why)
        why = m->cfg.counted ? disks_settle_counted(m) : disks_settle(m);
    if (why)
        snapshot_refuse(s, why);
    machine_records(m, s);
    return snapshot_good(s) ? 0 : -EIO;
}

void machine_hold(struct machine *m) {
    machine_pause_for(m, PAUSED_BY_SNAPSHOT);
}

void machine_saved(struct machine *m) {
    machine_resume_for(m, PAUSED_BY_SNAPSHOT);
}

/* --- reading --- */

/* The host's counter may have another pace here. */
static void tell_clocks(struct machine_cpu *c) {
    pvclock_tsc_changed(c->board->pvclock, c->index, c->clock);
    if (c->lapic)
        lapic_tsc_changed(c->lapic);
}

int machine_restore(struct machine *m, struct snapshot *s, char *why, size_t why_size) {
    machine_power_up(m, false);
    machine_time_stop(m);
    m->told = true;
    m->thawed_counted = false;
    machine_board_enter(m);
    all_records(m, s);
    snapshot_finish_reading(s);
    if (snapshot_good(s)) {
        board_tsc_moved(&m->board);
        for (unsigned n = 0; n < m->cpus && !m->thawed_counted; n++)
            tell_clocks(&m->cpu[n]);
    }
    machine_board_leave(m);
    if (!snapshot_good(s)) {
        snprintf(why, why_size, "%s", snapshot_why(s));
        return -EINVAL;
    }
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_state_changed(&m->cpu[n]);
    machine_board_enter(m);
    machine_devices_go_on(m);
    machine_board_leave(m);
    machine_time_go(m);
    return 0;
}
