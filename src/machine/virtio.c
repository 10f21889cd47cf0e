/*
 * virtio devices of the machine; see virtio.h.
 *
 * Over MMIO, devices share eight interrupts. Guests that use ACPI find them there
 * (LNRO0005), with the I/O APIC's pins from 16 on, which PCI does not use then. Where the
 * kernel's command line has `acpi=off` they are announced in it, with ISA interrupts that
 * nothing else has.
 */
#include "machine/virtio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/input.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/transport.h"
#include "machine/machine_int.h"
#include "snapshot/snapshot.h"

#define LINES 8u
_Static_assert(MACHINE_VIRTIO_MMIO_MAX <= DSDT_MMIO_MAX, "all of them are announced");

/* A vCPU that is alone executes locked instructions without LOCK, so that they are no
 * fences to threads of ours that look at its memory. Its own thread needs none. */
static bool fence(void *arg) {
    struct machine *m = arg;

    return m->cpus > 1 || m->board.caller || os_fence_all();
}

/* --- MMIO --- */

static bool without_acpi(const struct machine *m) {
    return m->cfg.boot.cmdline && strstr(m->cfg.boot.cmdline, "acpi=off");
}

/* The pin of the I/O APIC, or the ISA interrupt. */
static uint8_t irq_of(const struct machine *m, unsigned n) {
    static const uint8_t isa[LINES] = {5, 10, 11, 7, 6, 3, 15, 14};

    return without_acpi(m) ? isa[n % LINES] : (uint8_t)(16 + n % LINES);
}

void machine_virtio_in_acpi(const struct machine *m, struct dsdt_config *dsdt) {
    dsdt->mmio_count = without_acpi(m) ? 0 : m->virtio_mmio;
    dsdt->mmio = MACHINE_VIRTIO_MMIO_BASE;
    dsdt->mmio_size = VIRTIO_MMIO_SIZE;
    for (unsigned n = 0; n < m->virtio_mmio; n++)
        dsdt->mmio_irq[n] = irq_of(m, n);
}

int machine_virtio_in_cmdline(struct machine *m, struct boot_config *boot) {
    enum { EACH = 64 }; /* characters of a device at most */
    size_t size;

    if (!m->virtio_mmio || !without_acpi(m))
        return 0;
    size = strlen(boot->cmdline) + m->virtio_mmio * EACH + 1;
    free(m->cmdline);
    m->cmdline = malloc(size);
    if (!m->cmdline)
        return -ENOMEM;
    strcpy(m->cmdline, boot->cmdline);
    for (unsigned n = 0; n < m->virtio_mmio; n++) {
        size_t len = strlen(m->cmdline);

        snprintf(m->cmdline + len, size - len, " virtio_mmio.device=%u@0x%x:%u:%u",
                 VIRTIO_MMIO_SIZE, MACHINE_VIRTIO_MMIO_BASE + n * VIRTIO_MMIO_SIZE,
                 irq_of(m, n), n);
    }
    boot->cmdline = m->cmdline;
    return 0;
}

/* Device N drives its line, which is that of all that share it. The 8259s and ISA pins
 * want edges: each rise is one, whoever else holds the line. */
static void mmio_line(void *arg, unsigned n, bool level) {
    struct machine *m = arg;
    unsigned irq = irq_of(m, n);
    struct irq_line isa = board_isa_line(&m->board, irq % 16);
    uint16_t *holders = &m->virtio_lines[n % LINES];

    *holders = (uint16_t)((*holders & ~(1u << n / LINES)) | (unsigned)level << n / LINES);
    if (irq < 16) {
        if (level)
            irq_set(&isa, false);
        irq_set(&isa, *holders);
    } else {
        ioapic_set(m->board.ioapic, irq, *holders);
    }
}

static void free_mmio(void *dev) {
    virtio_mmio_free(dev);
}

static void reset_mmio(void *dev) {
    virtio_mmio_reset(dev);
}

static void mmio_record(void *dev, struct snapshot *s) {
    virtio_mmio_state(dev, s);
}

static int attach_mmio(struct machine *m, struct virtio_device *d) {
    static const struct machine_device_ops ops = {.reset = reset_mmio,
                                                  .free = free_mmio,
                                                  .name = "virtio-mmio",
                                                  .state = mmio_record,
                                                  .transport = true};
    unsigned n = m->virtio_mmio;
    const struct irq_line line = {.set = mmio_line, .arg = m, .n = n};
    struct virtio_mmio *mmio;

    if (n == MACHINE_VIRTIO_MMIO_MAX)
        return -ENOSPC;
    mmio = virtio_mmio_new(m->bus, gpa(MACHINE_VIRTIO_MMIO_BASE + n * VIRTIO_MMIO_SIZE),
                           line, d);
    if (!mmio)
        return -ENOMEM;
    m->virtio_mmio++;
    return machine_device_add(m, &ops, mmio);
}

/* --- PCI --- */

static void free_pci(void *dev) {
    virtio_pci_free(dev);
}

static void pci_record(void *dev, struct snapshot *s) {
    virtio_pci_state(dev, s);
}

static int attach_pci(struct machine *m, struct virtio_device *d) {
    /* The bus resets its functions. */
    static const struct machine_device_ops ops = {
        .free = free_pci, .name = "virtio-pci", .state = pci_record, .transport = true};
    int slot = board_pci_slot(&m->board.pci), rc;
    struct virtio_pci *p;

    if (slot < 0)
        return -ENOSPC;
    rc = virtio_pci_new(m->board.pci.bus, (unsigned)slot, d, &p);
    return rc ? rc : machine_device_add(m, &ops, p);
}

int machine_virtio_attach(struct machine *m, struct virtio_device *d, char *why,
                          size_t why_size) {
    int rc = -EINVAL;

    d->fence = fence;
    d->fence_arg = m;
    if (m->cfg.virtio == MACHINE_VIRTIO_MMIO)
        rc = attach_mmio(m, d);
    else if (m->cfg.virtio == MACHINE_VIRTIO_PCI && m->board.pci.bus)
        rc = attach_pci(m, d);
    if (rc == -ENOSPC)
        snprintf(why, why_size, "there are more devices than the machine has places for");
    else if (rc == -EINVAL)
        snprintf(
            why, why_size,
            "there is nothing that %s could be at: --virtio mmio, or pci and a board "
            "with PCI",
            d->name);
    else if (rc)
        snprintf(why, why_size, "cannot make %s: %s", d->name, strerror(-rc));
    return rc;
}

static int no_memory(char *why, size_t why_size) {
    snprintf(why, why_size, "out of memory");
    return -ENOMEM;
}

/* --- disks --- */

static void quiet_disk(void *dev) {
    virtio_blk_quiet(dev);
}

static void free_disk(void *dev) {
    virtio_blk_free(dev);
}

static void disk_record(void *dev, struct snapshot *s) {
    virtio_blk_state(dev, s);
}

static void disk_goes_on(void *dev) {
    virtio_device_go_on(virtio_blk_device(dev));
}

static int make_disk(struct machine *m, unsigned n, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {.quiet = quiet_disk,
                                                  .free = free_disk,
                                                  .name = "virtio-blk",
                                                  .state = disk_record,
                                                  .go_on = disk_goes_on};
    unsigned queues = m->cpus < VIRTIO_BLK_QUEUES_MAX ? m->cpus : VIRTIO_BLK_QUEUES_MAX;
    struct virtio_blk *b =
        virtio_blk_new(m->mem, m->clock, m->cfg.disks[n].block, queues, &m->counters);

    if (!b || machine_device_add(m, &ops, b))
        return no_memory(why, why_size);
    m->virtio_disks[n] = b;
    return machine_virtio_attach(m, virtio_blk_device(b), why, why_size);
}

int machine_make_virtio_disks(struct machine *m, char *why, size_t why_size) {
    int rc = 0;

    for (unsigned n = 0; n < m->cfg.disk_count && !rc; n++)
        if (m->cfg.disks[n].kind == MACHINE_DISK_VIRTIO)
            rc = make_disk(m, n, why, why_size);
    return rc;
}

/* --- balloon --- */

static void free_balloon(void *dev) {
    virtio_balloon_free(dev);
}

static void balloon_record(void *dev, struct snapshot *s) {
    virtio_balloon_state(dev, s);
}

static void balloon_goes_on(void *dev) {
    virtio_device_go_on(virtio_balloon_device(dev));
}

int machine_make_virtio_balloon(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {.free = free_balloon,
                                                  .name = "virtio-balloon",
                                                  .state = balloon_record,
                                                  .go_on = balloon_goes_on};
    struct virtio_balloon *b;

    if (!m->cfg.balloon)
        return 0;
    b = virtio_balloon_new(m->mem, m->clock, m->cfg.balloon_strict, &m->counters);
    if (!b || machine_device_add(m, &ops, b))
        return no_memory(why, why_size);
    m->balloon = b;
    virtio_balloon_set(b, m->cfg.balloon_pages);
    return machine_virtio_attach(m, virtio_balloon_device(b), why, why_size);
}

bool machine_balloon_set(struct machine *m, uint32_t pages) {
    if (!m->balloon)
        return false;
    machine_board_enter(m);
    virtio_balloon_set(m->balloon, pages);
    machine_board_leave(m);
    return true;
}

bool machine_balloon_target(struct machine *m, uint32_t *pages) {
    if (!m->balloon)
        return false;
    machine_board_enter(m);
    *pages = virtio_balloon_target(m->balloon);
    machine_board_leave(m);
    return true;
}

/* "Memory Statistics Tags" */
static const char *const stat_names[VIRTIO_BALLOON_STATS] = {
    "swap_in", "swap_out",  "major_faults", "minor_faults",   "free",
    "total",   "available", "caches",       "huge_allocated", "huge_failed",
};

bool machine_balloon_look(struct machine *m, uint32_t *pages,
                          void (*stat)(void *arg, const char *name, uint64_t value),
                          void *arg) {
    struct virtio_balloon_stats stats;

    if (!m->balloon)
        return false;
    machine_board_enter(m);
    *pages = virtio_balloon_pages(m->balloon);
    stats = virtio_balloon_stats(m->balloon);
    virtio_balloon_poll(m->balloon);
    machine_board_leave(m);
    for (unsigned n = 0; n < VIRTIO_BALLOON_STATS; n++)
        if (stats.given & 1u << n)
            stat(arg, stat_names[n], stats.value[n]);
    return true;
}

/* --- entropy --- */

static size_t host_random(void *arg, void *buf, size_t len) {
    return os_random(buf, len);
}

/* In a counted run every run has the same: SplitMix64. */
static size_t counted_random(void *arg, void *buf, size_t len) {
    struct machine *m = arg;
    uint8_t *to = buf;

    for (size_t n = 0; n < len; n++) {
        uint64_t z = m->counted_random += 0x9e3779b97f4a7c15ull;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        to[n] = (uint8_t)((z ^ z >> 31) >> 56);
    }
    return len;
}

static uint64_t random_when(void *arg, uint64_t now) {
    struct machine *m = arg;
    uint64_t bytes, operations;

    machine_park(m);
    bytes = rate_when(&m->rng[RNG_BYTES], now);
    operations = rate_when(&m->rng[RNG_OPERATIONS], now);
    return bytes > operations ? bytes : operations;
}

static void random_had(void *arg, size_t len, uint64_t now) {
    struct machine *m = arg;

    machine_park(m);
    rate_take(&m->rng[RNG_BYTES], len, now);
    rate_take(&m->rng[RNG_OPERATIONS], 1, now);
}

bool machine_rng_limit(struct machine *m, enum machine_rng_limit which,
                       const struct rate_limit *l) {
    if (!m->has_rng || m->cfg.counted)
        return false;
    machine_board_enter(m);
    rate_set(&m->rng[which], l, vclock_now(m->clock));
    machine_board_leave(m);
    return true;
}

static void free_rng(void *dev) {
    virtio_rng_free(dev);
}

static void rng_record(void *dev, struct snapshot *s) {
    virtio_rng_state(dev, s);
}

static void rng_goes_on(void *dev) {
    virtio_device_go_on(virtio_rng_device(dev));
}

int machine_make_virtio_rng(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {.free = free_rng,
                                                  .name = "virtio-rng",
                                                  .state = rng_record,
                                                  .go_on = rng_goes_on};
    const struct virtio_rng_host host = {.random = m->cfg.counted ? counted_random
                                                                  : host_random,
                                         .when = random_when,
                                         .had = random_had,
                                         .arg = m};
    struct virtio_rng *r;

    /* Nobody has asked for it: where there is no place it is not there. */
    if (!m->cfg.rng || m->cfg.virtio == MACHINE_VIRTIO_NONE ||
        (m->cfg.virtio == MACHINE_VIRTIO_PCI && !m->board.pci.bus))
        return 0;
    r = virtio_rng_new(m->mem, m->clock, &host, &m->counters);
    if (!r || machine_device_add(m, &ops, r))
        return no_memory(why, why_size);
    m->has_rng = true;
    return machine_virtio_attach(m, virtio_rng_device(r), why, why_size);
}

/* --- the tablet --- */

static void free_input(void *dev) {
    virtio_input_free(dev);
}

static void input_record(void *dev, struct snapshot *s) {
    virtio_input_state(dev, s);
}

static void input_goes_on(void *dev) {
    virtio_device_go_on(virtio_input_device(dev));
}

int machine_make_virtio_input(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {.free = free_input,
                                                  .name = "virtio-input",
                                                  .state = input_record,
                                                  .go_on = input_goes_on};
    struct virtio_input *t;

    /* As with the entropy: where there is no place there is a mouse. */
    if (!m->cfg.tablet || m->cfg.virtio == MACHINE_VIRTIO_NONE ||
        (m->cfg.virtio == MACHINE_VIRTIO_PCI && !m->board.pci.bus))
        return 0;
    t = virtio_input_new(m->mem, m->clock, &m->counters);
    if (!t || machine_device_add(m, &ops, t))
        return no_memory(why, why_size);
    m->tablet = t;
    return machine_virtio_attach(m, virtio_input_device(t), why, why_size);
}

bool machine_point(struct machine *m, const struct virtio_input_point *p) {
    bool taken = false;

    if (!m->tablet)
        return false;
    machine_board_enter(m);
    taken = virtio_input_point(m->tablet, p);
    machine_board_leave(m);
    return taken;
}
