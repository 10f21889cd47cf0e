/*
 * Devices of the host's that a guest has (trust=devices): COM2, or a PCI function with
 * its ports. Each is one guest's alone.
 *
 * Its ports are on the guest's bus, where an access of the guest's becomes the same one
 * of the host's; under engine svm those that have the host's addresses are opened, and
 * such an access does not leave. Its interrupt is the host's to take, on the CPU that
 * runs the guest's first one, and drives the guest's line: COM2's, an edge, anew each
 * time; a PCI function's, a level, until the guest has served it, when the host's pin is
 * opened again, and interrupts again if there is more.
 *
 * What a PCI function shows is its identity, its ports and its pin; not memory, ROM and
 * capabilities. It is never a bus master: there is no IOMMU of ours, and an address of
 * the guest's would be one of the host's.
 *
 * Locking: the guest's board's; `came` is the interrupt's handler's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bare/bare.h"
#include "hv/hv_int.h"

#define COM2_PORT 0x2f8u
#define COM2_LINE 3u
#define COM2_PORTS 8u
#define IER 1u /* of an 16550; the divisor's high half while DLAB is set */
#define LCR 3u
#define MCR 4u
#define SCRATCH 7u

#define PCI_HEADER_KIND 0x7fu
#define NO_LINE 0xffu

struct ports {
    uint16_t base; /* the host's */
    unsigned size; /* 0: none */
    bool open;     /* the guest has them without exits */
};

struct device {
    struct hv_trust *of;
    bool pci;
    uint16_t where;             /* of a PCI function: bus, device, function */
    struct pci_function f;      /* what the guest sees of it */
    struct irq_line line;       /* the guest's */
    struct ports bar[PCI_BARS]; /* COM2 has one */
    int irq;                    /* the host's; -1: it has none */
    uint32_t came;              /* an interrupt that the guest does not know of; atomic */
};

struct hv_trust {
    struct hv_trust_host host;
    struct board *board;
    unsigned count;
    struct device device[HV_DEVICES];
};

/* --- ports, the guest's and the host's --- */

static uint64_t port_read(void *dev, uint64_t addr, unsigned size) {
    const struct ports *p = dev;
    uint16_t port = (uint16_t)(p->base + addr);
    uint32_t value;

    if (size == 1)
        __asm__ volatile("inb %1, %b0" : "=a"(value) : "Nd"(port));
    else if (size == 2)
        __asm__ volatile("inw %1, %w0" : "=a"(value) : "Nd"(port));
    else
        __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void port_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    const struct ports *p = dev;
    uint16_t port = (uint16_t)(p->base + addr);

    if (size == 1)
        __asm__ volatile("outb %b0, %1" : : "a"((uint32_t)value), "Nd"(port));
    else if (size == 2)
        __asm__ volatile("outw %w0, %1" : : "a"((uint32_t)value), "Nd"(port));
    else
        __asm__ volatile("outl %0, %1" : : "a"((uint32_t)value), "Nd"(port));
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .general = true};

static void open_ports(struct device *d, struct ports *p, bool open) {
    if (p->open == open)
        return;
    p->open = open;
    d->of->host.ports(d->of->host.arg, p->base, p->size, open);
}

/* --- COM2 --- */

static void com2_put(unsigned at, uint8_t value) {
    port_write(&(struct ports){.base = COM2_PORT}, at, 1, value);
}

static bool com2_is_there(void) {
    struct ports p = {.base = COM2_PORT};

    com2_put(SCRATCH, 0x5a);
    if ((port_read(&p, SCRATCH, 1) & 0xff) != 0x5a)
        return false;
    com2_put(SCRATCH, 0xa5);
    return (port_read(&p, SCRATCH, 1) & 0xff) == 0xa5;
}

static void com2_quiet(void) {
    com2_put(LCR, 0);
    com2_put(IER, 0);
    com2_put(MCR, 0);
}

static const char *take_com2(struct device *d) {
    struct board *b = d->of->board;

    if (!com2_is_there())
        return "the host has none";
    com2_quiet();
    d->bar[0] = (struct ports){.base = COM2_PORT, .size = COM2_PORTS};
    d->line = board_isa_line(b, COM2_LINE);
    if (!bus_attach_pio(b->bus, COM2_PORT, COM2_PORTS, &port_ops, &d->bar[0], "COM2"))
        return "the guest has something else there";
    return NULL;
}

/* --- a PCI function --- */

/* What the host's command register is to be: the guest's as far as it goes. */
static void pci_command(struct device *d, uint32_t guests) {
    uint32_t allowed = PCI_COMMAND_IO | PCI_COMMAND_NO_INTX;

    /* Zeroes leave the status register, in the upper half, as it is. */
    bare_pci_write(d->where, PCI_COMMAND, guests & allowed);
}

/* Which bars are where the host has them, and so need no exits. */
static void settle_bars(struct device *d) {
    for (unsigned n = 0; n < PCI_BARS; n++)
        if (d->bar[n].size)
            open_ports(d, &d->bar[n],
                       d->f.bar[n].on && d->f.bar[n].addr == d->bar[n].base);
}

static void config_written(struct pci_function *f, unsigned at, unsigned size) {
    struct device *d = container_of(f, struct device, f);

    settle_bars(d);
    pci_command(d, pci_config(f, PCI_COMMAND, 2));
}

static void reset_function(struct pci_function *f) {
    struct device *d = container_of(f, struct device, f);

    settle_bars(d);
    pci_command(d, PCI_COMMAND_NO_INTX);
}

static const struct pci_ops function_ops = {.config_written = config_written,
                                            .reset = reset_function};

/* The host's bars of ports; the function decodes nothing meanwhile. False: there are
 * none. */
static bool find_bars(struct device *d) {
    bool found = false;

    for (unsigned n = 0; n < PCI_BARS; n++) {
        unsigned at = PCI_BAR0 + 4 * n;
        uint32_t is = bare_pci_read(d->where, at), mask;

        if (!(is & 1)) {
            n += (is & 7) == 4; /* of 64 bits */
            continue;
        }
        bare_pci_write(d->where, at, ~0u);
        mask = bare_pci_read(d->where, at) & 0xfffcu;
        bare_pci_write(d->where, at, is);
        if (!(is & 0xfffc) || !mask)
            continue;
        d->bar[n] = (struct ports){.base = (uint16_t)(is & 0xfffc), .size = mask & -mask};
        found = true;
    }
    return found;
}

static int add_bars(struct device *d) {
    int rc = 0;

    for (unsigned n = 0; !rc && n < PCI_BARS; n++)
        if (d->bar[n].size)
            rc = pci_add_bar(&d->f, n, PCI_BAR_IO, d->bar[n].size, &port_ops, &d->bar[n]);
    return rc;
}

static int add_function(struct device *d) {
    uint32_t id = bare_pci_read(d->where, PCI_VENDOR);
    uint32_t class = bare_pci_read(d->where, PCI_REVISION);
    uint32_t sub = bare_pci_read(d->where, PCI_SUB_VENDOR);
    uint32_t pin = bare_pci_read(d->where, PCI_INTERRUPT_LINE) >> 8 & 0xff;
    struct pci_identity identity = {.vendor = (uint16_t)id,
                                    .device = (uint16_t)(id >> 16),
                                    .sub_vendor = (uint16_t)sub,
                                    .sub_device = (uint16_t)(sub >> 16),
                                    .class = class >> 8,
                                    .revision = (uint8_t) class};
    int slot = board_pci_slot(&d->of->board->pci);
    int rc = slot < 0 ? slot
                      : pci_add(d->of->board->pci.bus, &d->f, (unsigned)slot, 0,
                                "function of the host's", &identity, &function_ops);

    if (rc)
        return rc;
    d->f.writable[PCI_COMMAND] &= (uint8_t)~PCI_COMMAND_MASTER;
    if (pin)
        pci_use_intx(&d->f, (pin - 1) & 3);
    d->line = pci_irq_line(&d->f);
    return add_bars(d);
}

static const char *take_function(struct device *d) {
    uint32_t kind;

    if ((uint16_t)bare_pci_read(d->where, PCI_VENDOR) == 0xffff)
        return "the host has no such function";
    kind = bare_pci_read(d->where, PCI_HEADER_TYPE & ~3u) >> 16 & PCI_HEADER_KIND;
    if (kind)
        return "that is a bridge";
    pci_command(d, PCI_COMMAND_NO_INTX);
    if (!find_bars(d))
        return "it has no ports, and memory of devices is not given away";
    return add_function(d) ? "the guest's bus has no room for it" : NULL;
}

/* --- whose it is --- */

/* A number in hexadecimal, less than LIMIT, and the character END (0: any) behind it; ~0:
 * that is not what is there. */
static unsigned take_hex(const char **at, unsigned limit, char end) {
    char *after;
    unsigned long value = strtoul(*at, &after, 16);

    if (after == *at || value >= limit || (end && *after != end))
        return ~0u;
    *at = after + (end != 0);
    return (unsigned)value;
}

/* com2, or BUS:DEVICE.FUNCTION in hexadecimal with /PIN, in decimal, behind it or not. */
static bool parse(struct device *d, const char *name, unsigned *pin) {
    unsigned bus, device, function;
    const char *at = name;
    char *end;

    *pin = ~0u;
    d->pci = strcmp(name, "com2") != 0;
    if (!d->pci)
        return true;
    bus = take_hex(&at, 256, ':');
    device = bus == ~0u ? ~0u : take_hex(&at, PCI_SLOTS, '.');
    function = device == ~0u ? ~0u : take_hex(&at, PCI_FUNCTIONS, 0);
    if (function == ~0u || (*at && *at != '/'))
        return false;
    d->where = (uint16_t)(bus << 8 | device << 3 | function);
    if (!*at)
        return true;
    *pin = (unsigned)strtoul(at + 1, &end, 10);
    return at[1] && !*end;
}

/* Devices that are somebody's, of all guests; made by one CPU. */
static struct {
    const struct device *device;
    unsigned guest;
} all[HV_GUESTS * HV_DEVICES];

/* The guest that has it, or 0: it is D's now. */
static unsigned claim(const struct device *d, unsigned guest) {
    unsigned n = 0;

    for (; n < ARRAY_SIZE(all) && all[n].device; n++)
        if (all[n].device->pci == d->pci && all[n].device->where == d->where)
            return all[n].guest;
    all[n].device = d;
    all[n].guest = guest;
    return 0;
}

/* A PCI function's pin is what the firmware has left in its interrupt line. */
static bool take_irq(struct device *d, unsigned pin, unsigned cpu) {
    uint32_t place = d->pci ? bare_pci_read(d->where, PCI_INTERRUPT_LINE) : COM2_LINE;
    unsigned line = place & 0xff;
    struct bare_irq irq = {.pin = pin, .level = d->pci, .low = d->pci};

    d->irq = -1;
    if (d->pci && !(place >> 8 & 0xff))
        return true; /* it has no interrupt */
    if (pin == ~0u && line == NO_LINE)
        return false;
    if (pin == ~0u)
        irq = bare_irq_of(line, d->pci);
    d->irq = bare_irq_take(&irq, cpu, &d->came);
    return d->irq >= 0;
}

static int take(struct hv_trust *t, const char *name, char *why, size_t size) {
    struct device *d = &t->device[t->count];
    const char *wrong;
    unsigned pin, other;

    d->of = t;
    if (!parse(d, name, &pin))
        wrong = "there are device=com2 and device=BUS:DEVICE.FUNCTION";
    else if ((other = claim(d, t->host.guest)) != 0) {
        snprintf(why, size, "device=%s: guest %u has it", name, other);
        return -EBUSY;
    } else {
        wrong = d->pci ? take_function(d) : take_com2(d);
    }
    if (!wrong && !take_irq(d, pin, t->host.cpu))
        wrong =
            "its interrupt cannot be had: it shares its pin, or the firmware has given "
            "none (device=.../PIN says which)";
    if (wrong) {
        snprintf(why, size, "device=%s: %s", name, wrong);
        return -EINVAL;
    }
    t->count++;
    return 0;
}

/* --- interrupts --- */

/* With the board's lock. The guest has served a level, maybe this one. */
static void served(void *arg) {
    struct hv_trust *t = arg;

    for (unsigned n = 0; n < t->count; n++) {
        struct device *d = &t->device[n];

        if (!d->pci || !d->f.irq)
            continue;
        irq_set(&d->line, false);
        bare_irq_open(d->irq);
    }
}

bool hv_trust_waits(const struct hv_trust *t) {
    for (unsigned n = 0; t && n < t->count; n++)
        if (__atomic_load_n(&t->device[n].came, __ATOMIC_SEQ_CST))
            return true;
    return false;
}

void hv_trust_service(struct hv_trust *t) {
    for (unsigned n = 0; t && n < t->count; n++) {
        struct device *d = &t->device[n];

        if (!__atomic_exchange_n(&d->came, 0, __ATOMIC_SEQ_CST))
            continue;
        if (!d->pci) /* the edge before it is over */
            irq_set(&d->line, false);
        irq_set(&d->line, true);
    }
}

/* --- a guest's life --- */

int hv_trust_new(const struct hv_config *cfg, struct board *b,
                 const struct hv_trust_host *host, struct hv_trust **out, char *why,
                 size_t why_size) {
    struct hv_trust *t;
    int rc = 0;

    *out = NULL;
    if (!cfg->devices)
        return 0;
    t = calloc(1, sizeof(*t));
    snprintf(why, why_size, "out of memory");
    if (!t)
        return -ENOMEM;
    t->host = *host;
    t->board = b;
    for (unsigned n = 0; !rc && n < cfg->devices; n++)
        rc = take(t, cfg->device[n], why, why_size);
    ioapic_on_served(b->ioapic, served, t);
    pic_on_served(b->pic, served, t);
    *out = t;
    return rc;
}

/* A bar of ports of the guest's other functions, or the board's own ports. */
static bool in_the_way(const struct device *d, const struct ports *p) {
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned n = 0; n < PCI_FUNCTIONS; n++) {
            const struct pci_function *f = pci_at(d->of->board->pci.bus, slot, n);

            for (unsigned k = 0; f && f != &d->f && k < PCI_BARS; k++)
                if (f->bar[k].kind == PCI_BAR_IO && f->bar[k].on &&
                    f->bar[k].addr < p->base + p->size &&
                    p->base < f->bar[k].addr + f->bar[k].size)
                    return true;
        }
    return p->base < 0x1000; /* where ISA's are */
}

/* As firmware would leave it, where the host's has it if that can be. */
static void boot_function(struct device *d) {
    for (unsigned n = 0; n < PCI_BARS; n++)
        if (d->bar[n].size && !in_the_way(d, &d->bar[n]))
            pci_config_write(&d->f, PCI_BAR0 + 4 * n, 4, d->bar[n].base);
}

void hv_trust_boot(struct hv_trust *t) {
    for (unsigned n = 0; t && n < t->count; n++) {
        struct device *d = &t->device[n];

        if (d->pci)
            boot_function(d);
        else
            open_ports(d, &d->bar[0], true);
        __atomic_store_n(&d->came, 0, __ATOMIC_SEQ_CST);
        irq_set(&d->line, false);
        if (d->irq >= 0)
            bare_irq_open(d->irq);
    }
}

void hv_trust_end(struct hv_trust *t) {
    for (unsigned n = 0; t && n < t->count; n++) {
        struct device *d = &t->device[n];

        if (d->irq >= 0)
            bare_irq_close(d->irq);
        if (d->pci)
            pci_command(d, PCI_COMMAND_NO_INTX);
        else
            com2_quiet();
    }
}
