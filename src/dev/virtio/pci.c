/*
 * virtio over PCI; see transport.h. "Virtio Over PCI Bus" of the standard.
 *
 *   bar 0  ports: the legacy interface, of transitional devices
 *   bar 1  MSI-X: a vector for each queue, and one for configuration changes
 *   bar 4  memory: the structures that the capabilities name, each with a page of its own
 *
 * One capability (VIRTIO_PCI_CAP_PCI_CFG) is a window into bar 4 in configuration space,
 * for firmware that cannot reach memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/transport.h"
#include "snapshot/snapshot.h"

#define VENDOR 0x1af4u
#define MODERN_DEVICE 0x1040u /* and the device's type */

#define LEGACY_BAR 0u
#define LEGACY_SIZE 128u
#define MSIX_BAR 1u
#define BAR 4u

/* In bar 4. */
#define COMMON 0x0000u
#define ISR 0x1000u
#define CONFIG 0x2000u
#define NOTIFY 0x3000u
#define REGION 0x1000u
#define BAR_SIZE 0x4000u
#define NOTIFY_STEP 4u

#define ISR_QUEUE 1u
#define ISR_CONFIG 2u

/* "Virtio Structure PCI Capabilities" */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_WINDOW };
#define CAP_SIZE 16u
#define CAP_TYPE 3u
#define CAP_BAR 4u
#define CAP_OFFSET 8u
#define CAP_LENGTH 12u
#define CAP_EXTRA 16u /* the notify multiplier; the window's data */

struct virtio_pci {
    struct pci_function f;
    struct virtio_device *d;
    uint32_t offered_page, accepted_page; /* selectors */
    uint16_t queue;
    uint16_t config_vector;
    uint8_t isr;
    bool legacy;     /* the driver uses the legacy interface */
    unsigned window; /* the capability */
};

/* --- interrupts --- */

static void on_interrupt(void *transport, struct virtio_queue *q) {
    struct virtio_pci *p = transport;

    if (pci_msix_enabled(&p->f)) {
        pci_msix_raise(&p->f, q ? q->vector : p->config_vector);
        return;
    }
    /* "ISR Status Capability": a change of the configuration is of no queue. */
    p->isr |= q ? ISR_QUEUE : ISR_CONFIG;
    pci_irq(&p->f, true);
}

static uint8_t read_isr(struct virtio_pci *p) {
    uint8_t isr = p->isr;

    p->isr = 0;
    pci_irq(&p->f, false);
    return isr;
}

/* A vector that there is not is none. */
static uint16_t vector_of(const struct virtio_pci *p, uint32_t value) {
    return value < p->f.msix_vectors ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

/* --- the device's status, for both interfaces --- */

/* A modern driver must have made the function a bus master; before 2.6.34 Linux did not
 * do so. */
static void update_reach(struct virtio_pci *p) {
    p->d->cut_off = !p->legacy && !pci_bus_master(&p->f);
}

static void forget_driver(struct virtio_pci *p) {
    p->offered_page = p->accepted_page = 0;
    p->queue = 0;
    p->config_vector = VIRTIO_NO_VECTOR;
    read_isr(p);
}

static void set_status(struct virtio_pci *p, uint8_t value, bool legacy) {
    p->legacy = legacy;
    update_reach(p);
    if (!value)
        forget_driver(p);
    virtio_set_status(p->d, value, legacy);
}

/* --- the common configuration structure --- */

/* "Common configuration structure layout" */
enum {
    OFFERED_PAGE = 0,
    OFFERED = 4,
    ACCEPTED_PAGE = 8,
    ACCEPTED = 12,
    CONFIG_VECTOR = 16,
    QUEUES = 18,
    STATUS = 20,
    GENERATION = 21,
    QUEUE = 22,
    QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY = 30,
    QUEUE_DESC = 32,
    QUEUE_AVAIL = 40,
    QUEUE_USED = 48,
    COMMON_SIZE = 56,
};

static uint64_t read_queue(struct virtio_pci *p, unsigned at) {
    const struct virtio_queue *q = virtio_queue_of(p->d, p->queue);

    if (!q)
        return at == QUEUE_VECTOR ? VIRTIO_NO_VECTOR : 0;
    switch (at) {
    case QUEUE_SIZE:
        return q->size;
    case QUEUE_VECTOR:
        return q->vector;
    case QUEUE_ENABLE:
        return q->ready;
    case QUEUE_NOTIFY:
        return q->index;
    case QUEUE_DESC:
        return q->desc;
    case QUEUE_AVAIL:
        return q->avail;
    default:
        return q->used;
    }
}

static uint64_t read_field(struct virtio_pci *p, unsigned at) {
    switch (at) {
    case OFFERED_PAGE:
        return p->offered_page;
    case OFFERED:
        return virtio_offered(p->d, p->offered_page);
    case ACCEPTED_PAGE:
        return p->accepted_page;
    case ACCEPTED:
        return virtio_accepted(p->d, p->accepted_page);
    case CONFIG_VECTOR:
        return p->config_vector;
    case QUEUES:
        return p->d->queues;
    case STATUS:
        return virtio_status(p->d);
    case GENERATION:
        return p->d->config_generation & 0xff;
    case QUEUE:
        return p->queue;
    default:
        return read_queue(p, at);
    }
}

/* Where the field begins that has the byte at AT. */
static unsigned field_of(unsigned at) {
    if (at < CONFIG_VECTOR)
        return at & ~3u;
    if (at == STATUS || at == GENERATION)
        return at;
    return at < QUEUE_DESC ? at & ~1u : at & ~7u;
}

static uint32_t common_read(struct virtio_pci *p, unsigned at, unsigned size) {
    uint32_t value = 0;

    /* Drivers read whole fields; whoever does not gets the bytes that are there. */
    for (unsigned n = 0; n < size && at + n < COMMON_SIZE; n++) {
        unsigned field = field_of(at + n);
        uint64_t all = read_field(p, field);

        value |= (uint32_t)(all >> 8 * (at + n - field) & 0xff) << 8 * n;
    }
    return value;
}

/* Half of an address, which goes by two accesses. */
static void write_half(uint64_t *addr, unsigned at, uint32_t value) {
    unsigned shift = at & 4 ? 32 : 0;

    *addr = (*addr & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

/* Where it is ready, nothing of a queue can be changed but its vector. */
static void write_queue(struct virtio_pci *p, unsigned at, uint32_t value) {
    struct virtio_queue *q = virtio_queue_of(p->d, p->queue);

    if (!q)
        return;
    if (at == QUEUE_VECTOR)
        q->vector = vector_of(p, value);
    if (q->ready)
        return;
    if (at == QUEUE_SIZE)
        virtio_queue_set_size(q, value);
    else if (at == QUEUE_ENABLE && value == 1)
        virtio_queue_enable(q);
    else if (field_of(at) == QUEUE_DESC)
        write_half(&q->desc, at, value);
    else if (field_of(at) == QUEUE_AVAIL)
        write_half(&q->avail, at, value);
    else if (field_of(at) == QUEUE_USED)
        write_half(&q->used, at, value);
}

static unsigned width_of(unsigned at) {
    if (at == STATUS || at == GENERATION)
        return 1;
    return at < CONFIG_VECTOR || at >= QUEUE_DESC ? 4 : 2;
}

/* "Driver Requirements: PCI Device Layout": fields are written by accesses of their own
 * width, and the halves of long ones. */
static void common_write(struct virtio_pci *p, unsigned at, unsigned size,
                         uint32_t value) {
    if (at >= COMMON_SIZE || size != width_of(at) || at % size)
        return;
    switch (at) {
    case OFFERED_PAGE:
        p->offered_page = value;
        break;
    case ACCEPTED_PAGE:
        p->accepted_page = value;
        break;
    case ACCEPTED:
        virtio_accept(p->d, p->accepted_page, value);
        break;
    case CONFIG_VECTOR:
        p->config_vector = vector_of(p, value);
        break;
    case STATUS:
        set_status(p, (uint8_t)value, false);
        break;
    case QUEUE:
        p->queue = (uint16_t)value;
        break;
    default:
        write_queue(p, at, value);
    }
}

/* --- bar 4 --- */

static uint64_t bar_read(void *dev, uint64_t addr, unsigned size) {
    struct virtio_pci *p = dev;
    unsigned at = addr % REGION;

    switch (addr - at) {
    case COMMON:
        return common_read(p, at, size);
    case ISR:
        return at ? 0 : read_isr(p);
    case CONFIG:
        return virtio_config_read(p->d, at, size);
    default:
        return 0;
    }
}

static void bar_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct virtio_pci *p = dev;
    unsigned at = addr % REGION;

    switch (addr - at) {
    case COMMON:
        common_write(p, at, size, (uint32_t)value);
        break;
    case CONFIG:
        virtio_config_write(p->d, at, size, value);
        break;
    case NOTIFY: /* each queue has an address of its own */
        virtio_notify(p->d, at / NOTIFY_STEP);
        break;
    }
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write, .width = 4};

/* --- the legacy interface --- */

/* "Legacy Interfaces: A Note on PCI Device Layout" */
enum {
    LEGACY_OFFERED = 0,
    LEGACY_ACCEPTED = 4,
    LEGACY_PFN = 8,
    LEGACY_QUEUE_SIZE = 12,
    LEGACY_QUEUE = 14,
    LEGACY_NOTIFY = 16,
    LEGACY_STATUS = 18,
    LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20, /* with MSI-X; else the configuration space begins here */
    LEGACY_QUEUE_VECTOR = 22,
    LEGACY_CONFIG = 24,
};
#define LEGACY_ALIGN 4096u

static unsigned legacy_config(const struct virtio_pci *p) {
    return pci_msix_enabled(&p->f) ? LEGACY_CONFIG : LEGACY_CONFIG_VECTOR;
}

static uint64_t legacy_read(void *dev, uint64_t addr, unsigned size) {
    struct virtio_pci *p = dev;
    const struct virtio_queue *q = virtio_queue_of(p->d, p->queue);

    if (addr >= legacy_config(p))
        return virtio_config_read(p->d, addr - legacy_config(p), size);
    switch (addr) {
    case LEGACY_OFFERED:
        return virtio_offered(p->d, 0);
    case LEGACY_ACCEPTED:
        return virtio_accepted(p->d, 0);
    case LEGACY_PFN:
        return q && q->ready ? q->desc / LEGACY_ALIGN : 0;
    case LEGACY_QUEUE_SIZE:
        return q ? q->size_max : 0;
    case LEGACY_QUEUE:
        return p->queue;
    case LEGACY_STATUS:
        return virtio_status(p->d);
    case LEGACY_ISR:
        return read_isr(p);
    case LEGACY_CONFIG_VECTOR:
        return p->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return q ? q->vector : VIRTIO_NO_VECTOR;
    default:
        return 0;
    }
}

static void legacy_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct virtio_pci *p = dev;
    struct virtio_queue *q = virtio_queue_of(p->d, p->queue);

    if (addr >= legacy_config(p)) {
        virtio_config_write(p->d, addr - legacy_config(p), size, value);
        return;
    }
    switch (addr) {
    case LEGACY_ACCEPTED:
        if (size == 4)
            virtio_accept(p->d, 0, (uint32_t)value);
        break;
    case LEGACY_PFN:
        p->legacy = true;
        update_reach(p);
        if (q && size == 4)
            virtio_queue_set_legacy(q, value, LEGACY_ALIGN);
        break;
    case LEGACY_QUEUE:
        p->queue = (uint16_t)value;
        break;
    case LEGACY_NOTIFY:
        virtio_notify(p->d, (uint16_t)value);
        break;
    case LEGACY_STATUS:
        set_status(p, (uint8_t)value, true);
        break;
    case LEGACY_CONFIG_VECTOR:
        p->config_vector = vector_of(p, (uint32_t)value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (q)
            q->vector = vector_of(p, (uint32_t)value);
        break;
    }
}

static const struct bus_ops legacy_ops = {.read = legacy_read, .write = legacy_write};

/* --- configuration space --- */

/* "PCI configuration access capability": what the guest has set it to, if that leads into
 * bar 4. */
static bool window_at(const struct virtio_pci *p, uint32_t *at, unsigned *size) {
    *at = pci_config(&p->f, p->window + CAP_OFFSET, 4);
    *size = pci_config(&p->f, p->window + CAP_LENGTH, 4);
    return pci_config(&p->f, p->window + CAP_BAR, 1) == BAR && *at < BAR_SIZE &&
           (*size == 1 || *size == 2 || *size == 4) && *at % *size == 0;
}

static void config_read(struct pci_function *f, unsigned at, unsigned size) {
    struct virtio_pci *p = container_of(f, struct virtio_pci, f);
    uint32_t where;
    unsigned len;

    if (at == p->window + CAP_EXTRA && window_at(p, &where, &len))
        pci_set(f, at, 4, (uint32_t)bar_read(p, where, len));
}

static void config_written(struct pci_function *f, unsigned at, unsigned size) {
    struct virtio_pci *p = container_of(f, struct virtio_pci, f);
    uint32_t where;
    unsigned len;

    if (at == p->window + CAP_EXTRA && window_at(p, &where, &len))
        bar_write(p, where, len, pci_config(f, at, len));
    update_reach(p);
}

static void on_reset(struct pci_function *f) {
    virtio_pci_reset(container_of(f, struct virtio_pci, f));
}

static const struct pci_ops ops = {
    .config_read = config_read, .config_written = config_written, .reset = on_reset};

/* --- snapshots --- */

void virtio_pci_state(struct virtio_pci *p, struct snapshot *s) {
    SNAPSHOT(s, p->offered_page);
    SNAPSHOT(s, p->accepted_page);
    SNAPSHOT(s, p->queue);
    SNAPSHOT(s, p->config_vector);
    SNAPSHOT(s, p->isr);
    SNAPSHOT(s, p->legacy);
    pci_function_state(&p->f, s);
}

/* --- creation --- */

/* "PCI Device Discovery": the ids of transitional devices, and the class that others
 * give. */
static const struct kind {
    enum virtio_id id;
    uint16_t transitional; /* 0: there is none */
    uint32_t class;
} kinds[] = {
    {VIRTIO_ID_NET, 0x1000, 0x020000},     {VIRTIO_ID_BLK, 0x1001, 0x010000},
    {VIRTIO_ID_BALLOON, 0x1002, 0x00ff00}, {VIRTIO_ID_CONSOLE, 0x1003, 0x078000},
    {VIRTIO_ID_RNG, 0x1005, 0x00ff00},     {VIRTIO_ID_VSOCK, 0, 0x078000},
    {VIRTIO_ID_INPUT, 0, 0x098000},        {VIRTIO_ID_9P, 0x1009, 0x00ff00},
    {VIRTIO_ID_FS, 0, 0x018000},
};

static const struct kind *kind_of(enum virtio_id id) {
    unsigned n = 0;

    while (kinds[n].id != id)
        n++;
    return &kinds[n];
}

/* A capability of TYPE for LENGTH bytes of bar 4 at OFFSET, with EXTRA more bytes of its
 * own. Where it is, or 0. */
static unsigned add_cap(struct virtio_pci *p, unsigned type, uint32_t offset,
                        uint32_t length, unsigned extra) {
    unsigned cap = pci_add_capability(&p->f, PCI_CAP_VENDOR, CAP_SIZE + extra);

    if (!cap)
        return 0;
    pci_define(&p->f, cap + 2, 1, CAP_SIZE + extra, 0);
    pci_define(&p->f, cap + CAP_TYPE, 1, type, 0);
    pci_define(&p->f, cap + CAP_BAR, 1, BAR, 0);
    pci_define(&p->f, cap + CAP_OFFSET, 4, offset, 0);
    pci_define(&p->f, cap + CAP_LENGTH, 4, length, 0);
    return cap;
}

static int add_caps(struct virtio_pci *p) {
    unsigned notify;
    bool ok = add_cap(p, CAP_COMMON, COMMON, COMMON_SIZE, 0) &&
              add_cap(p, CAP_ISR, ISR, 1, 0) &&
              (!p->d->config_len || add_cap(p, CAP_DEVICE, CONFIG, p->d->config_len, 0));

    notify = add_cap(p, CAP_NOTIFY, NOTIFY, p->d->queues * NOTIFY_STEP, 4);
    p->window = add_cap(p, CAP_WINDOW, 0, 0, 4);
    if (!ok || !notify || !p->window)
        return -ENOSPC;
    pci_define(&p->f, notify + CAP_EXTRA, 4, NOTIFY_STEP, 0);
    pci_define(&p->f, p->window + CAP_BAR, 1, 0, 0xff);
    pci_define(&p->f, p->window + CAP_OFFSET, 4, 0, 0xffffffff);
    pci_define(&p->f, p->window + CAP_LENGTH, 4, 0, 0xffffffff);
    pci_define(&p->f, p->window + CAP_EXTRA, 4, 0, 0xffffffff);
    return 0;
}

static int add_function(struct virtio_pci *p, struct pci *pci, unsigned slot) {
    const struct kind *k = kind_of(p->d->id);
    struct pci_identity id = {.vendor = VENDOR, .sub_vendor = VENDOR, .class = k->class};
    int rc;

    id.device = k->transitional ? k->transitional : (uint16_t)(MODERN_DEVICE + k->id);
    id.sub_device = k->transitional ? (uint16_t)k->id : id.device;
    id.revision = k->transitional ? 0 : 1;
    rc = pci_add(pci, &p->f, slot, 0, p->d->name, &id, &ops);
    if (!rc && k->transitional)
        rc = pci_add_bar(&p->f, LEGACY_BAR, PCI_BAR_IO, LEGACY_SIZE, &legacy_ops, p);
    if (!rc)
        rc = pci_add_msix(&p->f, MSIX_BAR, p->d->queues + 1);
    if (!rc)
        rc = pci_add_bar(&p->f, BAR, PCI_BAR_MMIO64, BAR_SIZE, &bar_ops, p);
    if (!rc)
        rc = add_caps(p);
    if (!rc)
        pci_use_intx(&p->f, 0);
    return rc;
}

int virtio_pci_new(struct pci *pci, unsigned slot, struct virtio_device *d,
                   struct virtio_pci **out) {
    struct virtio_pci *p = calloc(1, sizeof(*p));
    int rc;

    if (!p)
        return -ENOMEM;
    p->d = d;
    d->interrupt = on_interrupt;
    d->transport = p;
    rc = add_function(p, pci, slot);
    if (rc) {
        virtio_pci_free(p);
        return rc;
    }
    virtio_pci_reset(p);
    *out = p;
    return 0;
}

void virtio_pci_free(struct virtio_pci *p) {
    if (!p)
        return;
    pci_remove(&p->f);
    free(p);
}

void virtio_pci_reset(struct virtio_pci *p) {
    forget_driver(p);
    p->legacy = false;
    virtio_device_reset(p->d);
    update_reach(p);
}
