/*
 * The bytes of a function's configuration space, and what they are at power-up.
 * PCI Local Bus Specification 3.0, "Configuration Space Organization" and "Capabilities
 * List"; PCI Bus Power Management Interface Specification 1.2.
 *
 * `power_up` is what `config` is after RST#; both are filled while the device is made.
 * What the masks do not name, the guest cannot change.
 */
#include <errno.h>

#include "dev/pci/pci_int.h"
#include "snapshot/snapshot.h"

#define CAP_NEXT 1u
#define PM_SIZE 8u
#define PM_CONTROL 4u /* PMCSR */
#define PM_VERSION 3u
#define PM_NO_SOFT_RESET (1u << 3) /* D3hot to D0 keeps configuration space */
#define PM_STATE 3u

uint32_t pci_config(const struct pci_function *f, unsigned at, unsigned size) {
    uint32_t value = 0;

    for (unsigned i = 0; i < size && at + i < sizeof(f->config); i++)
        value |= (uint32_t)f->config[at + i] << (i * 8);
    return value;
}

void pci_set(struct pci_function *f, unsigned at, unsigned size, uint32_t value) {
    for (unsigned i = 0; i < size && at + i < sizeof(f->config); i++)
        f->config[at + i] = (uint8_t)(value >> (i * 8));
}

void pci_define(struct pci_function *f, unsigned at, unsigned size, uint32_t value,
                uint32_t writable) {
    for (unsigned i = 0; i < size && at + i < sizeof(f->config); i++) {
        f->config[at + i] = f->power_up[at + i] = (uint8_t)(value >> (i * 8));
        f->writable[at + i] = (uint8_t)(writable >> (i * 8));
    }
}

void pci_define_clearable(struct pci_function *f, unsigned at, unsigned size,
                          uint32_t mask) {
    for (unsigned i = 0; i < size && at + i < sizeof(f->config); i++)
        f->clearable[at + i] = (uint8_t)(mask >> (i * 8));
}

unsigned pci_add_capability(struct pci_function *f, uint8_t id, unsigned size) {
    unsigned at = f->caps_end;

    if (size < 2 || size > sizeof(f->config) - at)
        return 0;
    pci_define(f, at, 1, id, 0);
    pci_define(f, f->last_cap ? f->last_cap + CAP_NEXT : PCI_CAPABILITIES, 1, at, 0);
    pci_define(f, PCI_STATUS, 1, f->config[PCI_STATUS] | PCI_STATUS_CAPABILITIES, 0);
    f->last_cap = at;
    f->caps_end = (at + size + 3) & ~3u;
    return at;
}

int pci_add_pm(struct pci_function *f) {
    f->pm = pci_add_capability(f, PCI_CAP_PM, PM_SIZE);
    if (!f->pm)
        return -ENOSPC;
    pci_define(f, f->pm + 2, 2, PM_VERSION, 0);
    pci_define(f, f->pm + PM_CONTROL, 2, PM_NO_SOFT_RESET, PM_STATE);
    return 0;
}

bool pci_powered(const struct pci_function *f) {
    return !f->pm || !(f->config[f->pm + PM_CONTROL] & PM_STATE);
}

bool pci_bus_master(const struct pci_function *f) {
    return (f->config[PCI_COMMAND] & PCI_COMMAND_MASTER) && pci_powered(f);
}

/* --- snapshots --- */

/* Of the byte at AT: bits that change while the machine runs, by the guest or by the
 * device. The others are as the device was made. */
static uint8_t changeable(const struct pci_function *f, unsigned at) {
    uint8_t bits = f->writable[at] | f->clearable[at];

    if (at == PCI_STATUS)
        bits |= PCI_STATUS_INTX;
    if (f->msi && at >= f->msi + PCI_MSI_PENDING && at < f->msi + PCI_MSI_PENDING + 4)
        bits = 0xff;
    return bits;
}

void pci_config_state(struct pci_function *f, struct snapshot *s) {
    uint8_t bytes[sizeof(f->config)];
    bool same = true;

    for (unsigned n = 0; n < sizeof(bytes); n++)
        bytes[n] = f->config[n];
    snapshot_bytes(s, bytes, sizeof(bytes));
    for (unsigned n = 0; n < sizeof(bytes); n++) {
        uint8_t mask = changeable(f, n);
        bool identity = n < PCI_COMMAND || (n >= PCI_REVISION && n < PCI_CLASS + 3) ||
                        (n >= PCI_SUB_VENDOR && n < PCI_SUB_DEVICE + 2);

        same &= !identity || bytes[n] == f->config[n];
        f->config[n] = (uint8_t)((f->config[n] & ~mask) | (bytes[n] & mask));
    }
    if (snapshot_reading(s) && !same)
        snapshot_refuse(s, "it has another device in a place of the PCI bus");
}
