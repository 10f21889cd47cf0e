/*
 * A PCI bus and the functions on it. PCI Local Bus Specification 3.0, "Configuration
 * Space"; configuration mechanism 1 ("Software Generation of Configuration
 * Transactions").
 *
 * A function is a part of its device's structure: 256 bytes of configuration space, each
 * with a mask of the bits that the guest can write and of those that it clears by writing
 * ones; base address registers, each a range on the board's bus that is where the
 * register says and on while the command register allows it; capabilities; one interrupt,
 * INTx, or messages (MSI, MSI-X) in its place.
 *
 * A device is made so: pci_add(), the bars, then the capabilities, then whatever else is
 * peculiar about its configuration space (pci_define()). From then on the guest writes,
 * and the device reads (pci_config()) and changes what is its own to change (pci_set()).
 *
 * Locking: none of its own; all of it runs under the board's lock.
 */
#ifndef DEV_PCI_H
#define DEV_PCI_H

#include "base/types.h"
#include "bus/bus.h"
#include "bus/irq.h"

struct pci;
struct snapshot;
struct pci_function;

#define PCI_SLOTS 32u
#define PCI_FUNCTIONS 8u
#define PCI_BARS 6u
#define PCI_ROM_BAR 6u /* as a number of a bar */

/* Places in configuration space. PCI 3.0, "Configuration Space Organization". */
enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* interface, sub-class, base class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUB_VENDOR = 0x2c,
    PCI_SUB_DEVICE = 0x2e,
    PCI_ROM = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
    PCI_OWN = 0x40, /* from here on the function's own registers and capabilities */
};
enum {
    PCI_COMMAND_IO = 1u << 0,
    PCI_COMMAND_MEMORY = 1u << 1,
    PCI_COMMAND_MASTER = 1u << 2,
    PCI_COMMAND_PARITY = 1u << 6,
    PCI_COMMAND_SERR = 1u << 8,
    PCI_COMMAND_NO_INTX = 1u << 10,
};
enum {
    PCI_STATUS_INTX = 1u << 3,
    PCI_STATUS_CAPABILITIES = 1u << 4,
};
enum {
    PCI_CAP_PM = 0x01,
    PCI_CAP_MSI = 0x05,
    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_MSIX = 0x11
};

/* What functions reach outside; any function may be NULL. */
struct pci_host {
    /* The level of INTA..INTD (PIN 0..3) of SLOT, as this function drives it; the pins of
     * a slot's functions are wired together behind it. */
    void (*intx)(void *arg, unsigned slot, unsigned pin, bool level);
    /* A message-signalled interrupt. */
    void (*msi)(void *arg, uint64_t addr, uint32_t data);
    void *intx_arg, *msi_arg;
    /* Accesses at 0xcf8 to 0xcfb that are not a doubleword at 0xcf8 are not PCI's: they
     * come here, relative to 0xcf8. May be NULL. */
    const struct bus_ops *not_pci;
    void *not_pci_dev;
};

/* --- the bus --- */

/* Attaches 0xcf8 and 0xcfc; to be made before whoever else has ports there. NULL when out
 * of memory or of places on the bus. */
struct pci *pci_new(struct bus *bus, const struct pci_host *host);
/* After its functions: who made them removes them (pci_remove()). NULL: nothing to do. */
void pci_free(struct pci *p);
/* The board's bus. */
struct bus *pci_bus(const struct pci *p);
/* RST#: the power-up state of every function's configuration space, and each one's
 * reset(). */
void pci_reset(struct pci *p);
/* The function at SLOT, or NULL. */
struct pci_function *pci_at(const struct pci *p, unsigned slot, unsigned function);

/* --- functions: what a device implements --- */

struct pci_identity {
    uint16_t vendor, device;
    uint16_t sub_vendor, sub_device;
    uint32_t class; /* base class << 16, sub-class << 8, interface */
    uint8_t revision;
};

/* Any may be NULL. They get the function: it is a part of their device. */
struct pci_ops {
    /* The guest is about to read SIZE bytes at AT: what has to be worked out is pci_set()
     * now. */
    void (*config_read)(struct pci_function *f, unsigned at, unsigned size);
    /* It wrote SIZE bytes at AT: what it may change has changed, bars have moved. */
    void (*config_written)(struct pci_function *f, unsigned at, unsigned size);
    /* A bar without bus_ops (memory of the device's own) is at ADDR from now on, or ON is
     * false: nowhere. */
    void (*bar_moved)(struct pci_function *f, unsigned bar, uint64_t addr, bool on);
    /* RST#. Configuration space is in its power-up state already. */
    void (*reset)(struct pci_function *f);
};

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MMIO32, PCI_BAR_MMIO64 };

struct pci_bar {
    enum pci_bar_kind kind;
    bool prefetchable;
    uint64_t size;
    struct bus_range *range; /* NULL: bar_moved() is told */
    uint64_t addr;           /* where it is, as long as it is on */
    bool on;
};

struct pci_msix_entry;

struct pci_function {
    struct pci *pci; /* NULL: not on a bus */
    const struct pci_ops *ops;
    const char *name;
    uint8_t slot, number;
    uint8_t config[256];
    uint8_t power_up[256];
    uint8_t writable[256];  /* masks: the guest can write these bits */
    uint8_t clearable[256]; /* and clears these by writing ones */
    unsigned caps_end;      /* where the next capability may be */
    unsigned last_cap;      /* 0: none yet */
    struct pci_bar bar[PCI_BARS + 1];
    bool irq;               /* the device wants its INTx */
    bool driven;            /* the level that the host was told */
    unsigned pm, msi, msix; /* where these capabilities are; 0: it has none */
    struct pci_msix_entry *msix_table;
    uint8_t *msix_pending; /* the PBA */
    unsigned msix_vectors, msix_bar;
    const uint8_t *rom;
    uint64_t rom_size;
};

/*
 * Puts F, all zero, at SLOT and NUMBER. A slot has its function 0 first. NAME and OPS are
 * kept. 0; -EINVAL when there is no such place, -EBUSY when it is taken.
 */
int pci_add(struct pci *p, struct pci_function *f, unsigned slot, unsigned number,
            const char *name, const struct pci_identity *id, const struct pci_ops *ops);
/* Takes it off its bus with its ranges; for one that is on none nothing is to do. */
void pci_remove(struct pci_function *f);

/*
 * Bar N (0..5; one of 64 bits takes N + 1 as well) of SIZE bytes, a power of two: at
 * least 4 of ports, 16 of memory. OPS and DEV are as with bus_attach_*(), OPS NULL as
 * with bar_moved(). 0; -EINVAL, -ENOSPC when the bus has no more places.
 */
int pci_add_bar(struct pci_function *f, unsigned n, enum pci_bar_kind kind, uint64_t size,
                const struct bus_ops *ops, void *dev);
/* Memory that may be prefetched, and cached by a bridge: bar N, which is there. */
void pci_bar_prefetchable(struct pci_function *f, unsigned n);
/* The expansion ROM: LEN bytes that stay the caller's (and are the guest's to read, in a
 * bar of the next power of two). 0, -EINVAL or -ENOSPC. */
int pci_add_rom(struct pci_function *f, const uint8_t *bytes, uint64_t len);

/* A capability of SIZE bytes with its two of header: where it begins, at a multiple of
 * four. 0: there is no room left. */
unsigned pci_add_capability(struct pci_function *f, uint8_t id, unsigned size);
/* Power management: D0 and D3hot. PCI Bus Power Management Interface 1.2. 0 or -ENOSPC.
 */
int pci_add_pm(struct pci_function *f);
/* MSI with VECTORS (1..32, a power of two) of 64-bit addresses, each maskable. 0, -EINVAL
 * or -ENOSPC. */
int pci_add_msi(struct pci_function *f, unsigned vectors);
/* MSI-X with VECTORS (1..2048), table and pending bits in bar N, which is made here
 * (32 bits of address). 0, -EINVAL, -ENOSPC, -ENOMEM. */
int pci_add_msix(struct pci_function *f, unsigned n, unsigned vectors);
/* It has an interrupt pin: INTA..INTD are 0..3. */
void pci_use_intx(struct pci_function *f, unsigned pin);

/* SIZE bytes at AT are VALUE at power-up (and now), and the guest can write the bits of
 * WRITABLE. */
void pci_define(struct pci_function *f, unsigned at, unsigned size, uint32_t value,
                uint32_t writable);
/* The guest clears the bits of MASK in SIZE bytes at AT by writing ones. */
void pci_define_clearable(struct pci_function *f, unsigned at, unsigned size,
                          uint32_t mask);

/* --- functions: while the guest runs --- */

/* Configuration space as the guest sees it: SIZE bytes (1, 2, 4) at AT. */
uint32_t pci_config(const struct pci_function *f, unsigned at, unsigned size);
/* The device changes it, whatever the masks say. Not for what is pci.c's: command,
 * status, bars, its capabilities. */
void pci_set(struct pci_function *f, unsigned at, unsigned size, uint32_t value);

/* It may read and write memory: a device that may not does nothing of the kind. */
bool pci_bus_master(const struct pci_function *f);

/* The level of its interrupt pin, as the device drives it; it reaches the board unless
 * the command register forbids it or the function sends messages. As a line: for devices
 * that know no PCI. */
void pci_irq(struct pci_function *f, bool level);
struct irq_line pci_irq_line(struct pci_function *f);

/* The guest has switched these on: there is no INTx then. */
bool pci_msi_enabled(const struct pci_function *f);
bool pci_msix_enabled(const struct pci_function *f);
/* Sends message VECTOR; what is masked is kept pending and sent later. Nothing happens
 * when messages are off or there is no such vector. */
void pci_msi_raise(struct pci_function *f, unsigned vector);
void pci_msix_raise(struct pci_function *f, unsigned vector);
/* VECTOR would not be sent now: it is masked, messages are off, or there is none. */
bool pci_msix_masked(const struct pci_function *f, unsigned vector);

/* --- configuration from the board's side, as by the guest's accesses --- */

uint32_t pci_config_read(struct pci_function *f, unsigned at, unsigned size);
void pci_config_write(struct pci_function *f, unsigned at, unsigned size, uint32_t value);

/* --- snapshots (snapshot/snapshot.h) --- */

/* The bus's own record. */
void pci_state(struct pci *p, struct snapshot *s);
/* What a function has beside its device: the first part of the device's record. What is
 * read must be of such a device. Its bars are where they were when that is done, and
 * ops->config_written() was called. */
void pci_function_state(struct pci_function *f, struct snapshot *s);

#endif
