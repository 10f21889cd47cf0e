/*
 * ISA bridge and power management.
 *
 * Each PIRQ counts the functions that drive it; an ISA line is high while one is that is
 * led to it. So a function that drives a line twice or not at all is pci.c's to avoid.
 *
 * The SMBus host controller ends every transaction with "device error": nobody
 * acknowledges. 82371AB data sheet, "SMBus Host Controller Registers".
 */
#include "dev/pci/piix.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define PIRQS 4u
#define ROUTABLE 0xdef8u /* IRQ 3 to 7, 9 to 12, 14, 15 */
#define ROUTE_IRQ 0x0fu

#define PM_BASE_BITS 0xffc0u
#define PM_ENABLED 1u
#define DEVICE_ACTIVITY_B 0x58u
#define APMC_ENABLED 0x02000000u

#define SMB_BASE_BITS 0xfff0u
#define SMB_PORTS 16u
#define SMB_CONFIG 0xd2u
#define SMB_ENABLED 1u
#define SMB_USES_SMI 0u
#define SMB_USES_IRQ9 8u
enum { SMB_STATUS = 0, SMB_CONTROL = 2 };
#define SMB_STATUS_ERROR 0x04u
#define SMB_STATUS_BITS 0x1eu
#define SMB_START 0x40u

struct piix {
    struct pci_function isa, power;
    struct piix_host host;
    struct pm *pm;
    bool configured;
    unsigned driven[PIRQS]; /* by so many functions */
    uint16_t lines;         /* of ISA, as they are */
    struct bus_range *smb_range;
    uint8_t smb[SMB_PORTS];
};

/* --- interrupts --- */

static void update_lines(struct piix *p) {
    uint16_t lines = 0, changed;

    for (unsigned n = 0; n < PIRQS; n++) {
        uint8_t route = p->isa.config[PIIX_ROUTE + n];

        if (p->driven[n] && !(route & PIIX_ROUTE_OFF))
            lines |= (uint16_t)(1u << (route & ROUTE_IRQ));
    }
    lines &= ROUTABLE;
    changed = lines ^ p->lines;
    p->lines = lines;
    for (unsigned n = 0; n < 16; n++)
        if (changed & (1u << n))
            p->host.isa_irq(p->host.arg, n, lines >> n & 1);
}

void piix_intx(void *piix, unsigned slot, unsigned pin, bool level) {
    struct piix *p = piix;
    unsigned *driven = &p->driven[piix_pirq(slot, pin)];

    *driven = level ? *driven + 1 : *driven - 1;
    update_lines(p);
}

static void isa_written(struct pci_function *f, unsigned at, unsigned size) {
    update_lines((struct piix *)f);
}

static void isa_reset(struct pci_function *f) {
    update_lines((struct piix *)f);
}

static const struct pci_ops isa_ops = {.config_written = isa_written, .reset = isa_reset};
static const struct pci_identity isa_identity = {.vendor = 0x8086,
                                                 .device = 0x7000,
                                                 .sub_vendor = 0x1af4,
                                                 .sub_device = 0x1100,
                                                 .class = 0x060100};

static bool add_isa(struct piix *p, struct pci *pci) {
    struct pci_function *f = &p->isa;

    if (pci_add(pci, f, PIIX_SLOT, PIIX_ISA, "ISA bridge", &isa_identity, &isa_ops))
        return false;
    pci_define(f, PCI_COMMAND, 2,
               PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
               PCI_COMMAND_SERR);
    pci_define(f, PCI_STATUS, 2, 0x0200, 0);
    pci_define(f, 0x4c, 1, 0x4d, 0xff);     /* I/O recovery */
    pci_define(f, 0x4e, 2, 0x0003, 0x01ff); /* X-bus chip selects */
    for (unsigned n = 0; n < PIRQS; n++)
        pci_define(f, PIIX_ROUTE + n, 1, PIIX_ROUTE_OFF, PIIX_ROUTE_OFF | ROUTE_IRQ);
    pci_define(f, 0x69, 1, 0x02, 0xfe);     /* top of memory */
    pci_define(f, 0x70, 1, 0x80, 0xcf);     /* motherboard device's line */
    pci_define(f, 0x76, 2, 0x0c0c, 0x8f8f); /* motherboard DMA channels */
    return true;
}

/* --- SMBus --- */

static uint64_t smb_read(void *dev, uint64_t addr, unsigned size) {
    const struct piix *p = dev;

    return p->smb[addr % SMB_PORTS];
}

static void smb_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct piix *p = dev;
    uint8_t *reg = &p->smb[addr % SMB_PORTS];

    if (addr == SMB_STATUS) {
        *reg &= (uint8_t) ~(value & SMB_STATUS_BITS);
        return;
    }
    *reg = (uint8_t)value;
    if (addr != SMB_CONTROL)
        return;
    *reg &= (uint8_t)~SMB_START; /* reads as 0 */
    if (value & SMB_START)
        p->smb[SMB_STATUS] |= SMB_STATUS_ERROR;
}

static const struct bus_ops smb_ops = {
    .read = smb_read, .write = smb_write, .width = 1, .general = true};

/* --- power management --- */

static void place_ports(struct piix *p) {
    const struct pci_function *f = &p->power;
    bool smb = (f->config[SMB_CONFIG] & SMB_ENABLED) &&
               (f->config[PCI_COMMAND] & PCI_COMMAND_IO);

    pm_place(p->pm, (uint16_t)(pci_config(f, PIIX_PM_BASE, 2) & PM_BASE_BITS),
             f->config[PIIX_PM_ENABLE] & PM_ENABLED);
    bus_range_enable(p->smb_range, false);
    bus_range_move(p->smb_range, pci_config(f, PIIX_SMB_BASE, 2) & SMB_BASE_BITS);
    bus_range_enable(p->smb_range, smb);
}

static struct piix *of_power(struct pci_function *f) {
    return (struct piix *)((char *)f - offsetof(struct piix, power));
}

static void power_written(struct pci_function *f, unsigned at, unsigned size) {
    place_ports(of_power(f));
}

static void power_reset(struct pci_function *f) {
    struct piix *p = of_power(f);

    for (unsigned n = 0; n < SMB_PORTS; n++)
        p->smb[n] = 0;
    if (p->configured) {
        pci_set(f, PCI_COMMAND, 2, PCI_COMMAND_IO);
        pci_set(f, PIIX_PM_BASE, 4, PM_BASE | 1);
        pci_set(f, PIIX_PM_ENABLE, 1, PM_ENABLED);
        pci_set(f, PIIX_SMB_BASE, 4, PM_SMB_BASE | 1);
        pci_set(f, SMB_CONFIG, 1, SMB_ENABLED | SMB_USES_IRQ9);
    }
    place_ports(p);
}

static const struct pci_ops power_ops = {.config_written = power_written,
                                         .reset = power_reset};
static const struct pci_identity power_identity = {.vendor = 0x8086,
                                                   .device = 0x7113,
                                                   .sub_vendor = 0x1af4,
                                                   .sub_device = 0x1100,
                                                   .class = 0x068000,
                                                   .revision = 3};

static bool add_power(struct piix *p, struct pci *pci) {
    struct pci_function *f = &p->power;

    if (pci_add(pci, f, PIIX_SLOT, PIIX_PM, "power management", &power_identity,
                &power_ops))
        return false;
    pci_define(f, PCI_COMMAND, 2, 0, PCI_COMMAND_IO);
    pci_define(f, PCI_STATUS, 2, 0x0280, 0);
    pci_define(f, PCI_INTERRUPT_LINE, 2, 0x0100 | PM_SCI_IRQ, 0xff);
    pci_define(f, PIIX_PM_BASE, 4, 1, PM_BASE_BITS);
    /* The SMI that port 0xb2 would raise: firmware need not set it up. */
    pci_define(f, DEVICE_ACTIVITY_B, 4, APMC_ENABLED, ~0u);
    for (unsigned at = 0x44; at < PIIX_PM_ENABLE; at += 4)
        if (at != DEVICE_ACTIVITY_B)
            pci_define(f, at, 4, 0, ~0u); /* monitors of devices: nothing is monitored */
    pci_define(f, PIIX_PM_ENABLE, 1, 0, PM_ENABLED);
    pci_define(f, PIIX_SMB_BASE, 4, 1, SMB_BASE_BITS);
    pci_define(f, SMB_CONFIG, 1, 0, 0x0f);
    return true;
}

void piix_state(struct piix *p, struct snapshot *s) {
    uint16_t lines = p->lines;

    for (unsigned n = 0; n < PIRQS; n++)
        SNAPSHOT_UPTO(s, p->driven[n], PCI_SLOTS * PCI_FUNCTIONS);
    SNAPSHOT(s, lines);
    /* So that the bridge, told of its registers, finds nothing to tell others. */
    if (snapshot_reading(s))
        p->lines = lines;
    pci_function_state(&p->isa, s);
    pci_function_state(&p->power, s);
    snapshot_bytes(s, p->smb, sizeof(p->smb));
}

struct piix *piix_new(struct pci *pci, struct pm *pm, const struct piix_host *host,
                      bool configured) {
    struct piix *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->pm = pm;
    p->host = *host;
    p->configured = configured;
    p->smb_range = bus_attach_pio(pci_bus(pci), 0, SMB_PORTS, &smb_ops, p, "SMBus");
    if (!p->smb_range || !add_isa(p, pci) || !add_power(p, pci)) {
        piix_free(p);
        return NULL;
    }
    bus_range_enable(p->smb_range, false);
    return p;
}

void piix_free(struct piix *p) {
    if (!p)
        return;
    pci_remove(&p->power);
    pci_remove(&p->isa);
    bus_range_detach(p->smb_range);
    free(p);
}
