/*
 * The DSDT's terms. In ASL (PM_S5_TYPE is the 5):
 *
 *   Name (\_S5, Package () { 5, 5, 0, 0 })
 *   Scope (\_SB) {
 *       Device (PIC) (TMR) (RTC) (COM1)      with _HID and _CRS, as on any PC
 *       Device (KBD)                         if there is one
 *       Device (PCI0) {
 *           Name (_HID, EisaId ("PNP0A03"))
 *           Name (_CRS, ResourceTemplate () { the bus, its ports, its memory })
 *           Name (_PRT, Package () { each slot's INTA..INTD: LNKA..LNKD })
 *           Device (ISA) {                   1.0, whose registers the links are
 *               Name (_ADR, 0x10000)
 *               OperationRegion (ROUT, PCI_Config, 0x60, 4)
 *               Field (ROUT, ByteAcc, NoLock, Preserve) { PRQA, 8, ... }
 *           }
 *       }
 *       Device (LNKA) ... (LNKD)
 *       Device (VGEN) {                      if there is one: the generation ID
 *           Name (_HID, "BVSR0001")
 *           Name (_CID, "VM_Gen_Counter")
 *           Name (_DDN, "VM_Gen_Counter")
 *           Name (ADDR, Package () { low half, high half })
 *       }
 *   }
 *   Scope (\_GPE) {
 *       Method (_E05) { Notify (\_SB.VGEN, 0x80) }
 *   }
 *
 * A link is PCI's interrupt line as the PIIX routes it; all of it in both interrupt
 * modes, so there is no _PIC: an ISA line is on the I/O APIC's pin of its number.
 */
#include "dev/tables/dsdt.h"

#include "dev/apic/ioapic.h"
#include "dev/fw/fw_cfg.h"
#include "dev/pc/pm.h"
#include "dev/pci/piix.h"
#include "mem/mem.h"

#define FIELD_BYTES 1u /* ByteAcc, NoLock, Preserve */
#define PCI_CONFIG 2u
#define IRQ_BYTE 5u /* of an interrupt descriptor: its first number */
#define STA_OFF 0x09u
#define STA_ON 0x0bu

const uint8_t dsdt_pci_irqs[] = {5, 10, 11};

static const struct isa {
    const char *name, *id;
    unsigned uid; /* 0: none, and no _STA */
    struct {
        uint16_t port;
        uint8_t count;
    } io[3];
    unsigned irq;
} isa_devices[] = {
    {"PIC_", "PNP0000", 0, {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}}, 2},
    {"TMR_", "PNP0100", 0, {{0x40, 4}}, 0},
    {"RTC_", "PNP0B00", 0, {{0x70, 4}}, 8},
    {"COM1", "PNP0501", 1, {{0x3f8, 8}}, 4},
};

static const struct isa keyboard = {"KBD_", "PNP0303", 0, {{0x60, 1}, {0x64, 1}}, 1};
/* The second port of its controller, where a mouse may be; its ports are the keyboard's.
 */
static const struct isa mouse = {"MOU_", "PNP0F13", 0, {{0}}, 12};

static void isa_device(struct aml *a, const struct isa *d) {
    uint32_t device = aml_open_device(a, d->name), crs;

    aml_name(a, "_HID");
    aml_eisa_id(a, d->id);
    if (d->uid) {
        aml_name_int(a, "_UID", d->uid);
        aml_name_int(a, "_STA", 0x0f);
    }
    crs = aml_open_resources(a, "_CRS");
    for (unsigned i = 0; i < 3 && d->io[i].count; i++)
        aml_io(a, d->io[i].port, d->io[i].count, 1);
    aml_irq(a, d->irq);
    aml_close_resources(a, crs);
    aml_close(a, device);
}

/* Linux finds it by this ID (QEMU's docs/specs/fw_cfg, "ACPI Interface"). */
static void fw_cfg_device(struct aml *a) {
    uint32_t device = aml_open_device(a, "FWCF"), crs;

    aml_name(a, "_HID");
    aml_string(a, "QEMU0002");
    aml_name_int(a, "_STA", STA_ON);
    crs = aml_open_resources(a, "_CRS");
    aml_io(a, FW_CFG_PORT, FW_CFG_PORTS, 1);
    aml_close_resources(a, crs);
    aml_close(a, device);
}

/* --- PCI --- */

static const char *const links[] = {"LNKA", "LNKB", "LNKC", "LNKD"};
static const char *const routes[] = {"PRQA", "PRQB", "PRQC", "PRQD"};

static void pci_resources(struct aml *a, const struct dsdt_config *cfg) {
    uint32_t crs = aml_open_resources(a, "_CRS");

    aml_bus_numbers(a, 0, 0xff);
    aml_io(a, 0xcf8, 8, 1);
    aml_io_window(a, 0, 0xcf7);
    aml_io_window(a, 0xd00, 0xffff);
    aml_memory_window(a, 0xa0000, 0xbffff, true);
    aml_memory_window(a, (uint32_t)cfg->ram_end, IOAPIC_BASE - 1, false);
    if (cfg->window64 < cfg->window64_end)
        aml_memory_window64(a, cfg->window64, cfg->window64_end - 1);
    aml_close_resources(a, crs);
}

/* _PRT: "PCI Routing Table". */
static void pci_routing(struct aml *a) {
    uint32_t prt;

    aml_name(a, "_PRT");
    prt = aml_open_package(a, (PCI_SLOTS - 1) * 4);
    for (unsigned n = 4; n < PCI_SLOTS * 4; n++) {
        uint32_t entry = aml_open_package(a, 4);

        aml_int(a, n / 4 << 16 | 0xffff);
        aml_int(a, n % 4);
        aml_path(a, links[piix_pirq(n / 4, n % 4)]);
        aml_int(a, 0);
        aml_close(a, entry);
    }
    aml_close(a, prt);
}

static void isa_bridge(struct aml *a) {
    uint32_t device = aml_open_device(a, "ISA_"), field;

    aml_name_int(a, "_ADR", PIIX_SLOT << 16 | PIIX_ISA);
    aml_op(a, AML_OP_REGION);
    aml_path(a, "ROUT");
    aml_op(a, PCI_CONFIG);
    aml_int(a, PIIX_ROUTE);
    aml_int(a, 4);
    field = aml_open(a, AML_FIELD);
    aml_path(a, "ROUT");
    aml_op(a, FIELD_BYTES);
    for (unsigned n = 0; n < 4; n++) {
        aml_path(a, routes[n]);
        aml_op(a, 8); /* bits */
    }
    aml_close(a, field);
    aml_close(a, device);
}

static void pci_bridge(struct aml *a, const struct dsdt_config *cfg) {
    uint32_t device = aml_open_device(a, "PCI0");

    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A03");
    aml_name_int(a, "_ADR", 0);
    aml_name_int(a, "_UID", 0);
    pci_resources(a, cfg);
    pci_routing(a);
    isa_bridge(a);
    aml_close(a, device);
}

/* The route register of link N, from its own scope. */
static void route(struct aml *a, unsigned n) {
    char path[] = "\\_SB.PCI0.ISA_.PRQA";

    path[sizeof(path) - 2] = (char)('A' + n);
    aml_path(a, path);
}

/* If (PRQx & 0x80) { Return (STA_OFF) } Return (STA_ON) */
static void link_status(struct aml *a, unsigned n) {
    uint32_t method = aml_open_method(a, "_STA", 0), test = aml_open(a, AML_IF);

    aml_op(a, AML_AND);
    route(a, n);
    aml_int(a, PIIX_ROUTE_OFF);
    aml_op(a, AML_ZERO); /* no target */
    aml_op(a, AML_RETURN);
    aml_int(a, STA_OFF);
    aml_close(a, test);
    aml_op(a, AML_RETURN);
    aml_int(a, STA_ON);
    aml_close(a, method);
}

/* PRQx |= 0x80 */
static void link_disable(struct aml *a, unsigned n) {
    uint32_t method = aml_open_method(a, "_DIS", 0);

    aml_op(a, AML_OR);
    route(a, n);
    aml_int(a, PIIX_ROUTE_OFF);
    route(a, n);
    aml_close(a, method);
}

/* Local0 = RES; Local0[IRQ_BYTE] = PRQx & 15; Return (Local0) */
static void link_current(struct aml *a, unsigned n) {
    static const uint8_t none = 0;
    uint32_t mark = aml_open_resources(a, "RES_");

    aml_interrupts(a, &none, 1);
    aml_close_resources(a, mark);
    mark = aml_open_method(a, "_CRS", 0);
    aml_op(a, AML_STORE);
    aml_path(a, "RES_");
    aml_op(a, AML_LOCAL0);
    aml_op(a, AML_AND);
    route(a, n);
    aml_int(a, 15);
    aml_op(a, AML_INDEX);
    aml_op(a, AML_LOCAL0);
    aml_int(a, IRQ_BYTE);
    aml_op(a, AML_ZERO); /* no target of the index */
    aml_op(a, AML_RETURN);
    aml_op(a, AML_LOCAL0);
    aml_close(a, mark);
}

/* PRQx = DerefOf (Arg0[IRQ_BYTE]) */
static void link_set(struct aml *a, unsigned n) {
    uint32_t method = aml_open_method(a, "_SRS", 1);

    aml_op(a, AML_STORE);
    aml_op(a, AML_DEREF_OF);
    aml_op(a, AML_INDEX);
    aml_op(a, AML_ARG0);
    aml_int(a, IRQ_BYTE);
    aml_op(a, AML_ZERO);
    route(a, n);
    aml_close(a, method);
}

/* "PCI Interrupt Link Devices" */
static void link_device(struct aml *a, unsigned n) {
    uint32_t device = aml_open_device(a, links[n]), prs;

    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0C0F");
    aml_name_int(a, "_UID", n);
    prs = aml_open_resources(a, "_PRS");
    aml_interrupts(a, dsdt_pci_irqs, DSDT_PCI_IRQS);
    aml_close_resources(a, prs);
    link_status(a, n);
    link_disable(a, n);
    link_current(a, n);
    link_set(a, n);
    aml_close(a, device);
}

/* As other monitors announce virtio's MMIO transport; no standard has the name. */
static void mmio_device(struct aml *a, const struct dsdt_config *cfg, unsigned n) {
    const char name[5] = {'V', 'I', 'O', (char)('A' + n), 0};
    uint32_t device = aml_open_device(a, name), crs;

    aml_name(a, "_HID");
    aml_string(a, "LNRO0005");
    aml_name_int(a, "_UID", n);
    crs = aml_open_resources(a, "_CRS");
    aml_memory32(a, cfg->mmio + n * cfg->mmio_size, cfg->mmio_size);
    aml_interrupts(a, &cfg->mmio_irq[n], 1);
    aml_close_resources(a, crs);
    aml_close(a, device);
}

/* "Virtual Machine Generation ID": drivers find it by its compatible ID. */
static void generation_device(struct aml *a, uint64_t at) {
    uint32_t device = aml_open_device(a, "VGEN"), package;

    aml_name(a, "_HID");
    aml_string(a, "BVSR0001");
    aml_name(a, "_CID");
    aml_string(a, "VM_Gen_Counter");
    aml_name(a, "_DDN");
    aml_string(a, "VM_Gen_Counter");
    aml_name(a, "ADDR");
    package = aml_open_package(a, 2);
    aml_int(a, (uint32_t)at);
    aml_int(a, at >> 32);
    aml_close(a, package);
    aml_close(a, device);
}

/* "Queuing the Matching Control Method for Execution": an edge, whose status the system
 * clears. */
static void generation_event(struct aml *a) {
    const char name[] = {'_', 'E', '0', '0' + PM_GPE_GENERATION, 0};
    uint32_t scope = aml_open_scope(a, "\\_GPE"), method;

    method = aml_open_method(a, name, 0);
    aml_op(a, AML_NOTIFY);
    aml_path(a, "\\_SB.VGEN");
    aml_int(a, 0x80);
    aml_close(a, method);
    aml_close(a, scope);
}

void dsdt_build(struct aml *a, const struct dsdt_config *cfg) {
    uint32_t mark;

    aml_name(a, "_S5");
    mark = aml_open_package(a, 4);
    aml_int(a, PM_S5_TYPE);
    aml_int(a, PM_S5_TYPE);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_close(a, mark);
    mark = aml_open_scope(a, "_SB");
    for (unsigned n = 0; n < sizeof(isa_devices) / sizeof(isa_devices[0]); n++)
        isa_device(a, &isa_devices[n]);
    if (cfg->keyboard) {
        isa_device(a, &keyboard);
        isa_device(a, &mouse);
    }
    if (cfg->fw_cfg)
        fw_cfg_device(a);
    if (cfg->pci) {
        pci_bridge(a, cfg);
        for (unsigned n = 0; n < 4; n++)
            link_device(a, n);
    }
    for (unsigned n = 0; n < cfg->mmio_count; n++)
        mmio_device(a, cfg, n);
    if (cfg->generation)
        generation_device(a, cfg->generation);
    aml_close(a, mark);
    if (cfg->generation)
        generation_event(a);
}

#define WINDOW64_ALIGN (1ull << 30)

void dsdt_pci_windows(struct dsdt_config *cfg, uint64_t ram, unsigned phys_bits) {
    uint64_t end = 1ull << phys_bits;

    cfg->ram_end = ram < MEM_HOLE_START ? ram : MEM_HOLE_START;
    if (ram > MEM_HOLE_START)
        ram += MEM_HOLE_END - MEM_HOLE_START;
    if (ram < MEM_HOLE_END)
        ram = MEM_HOLE_END;
    cfg->window64 = (ram + WINDOW64_ALIGN - 1) & ~(WINDOW64_ALIGN - 1);
    cfg->window64_end = end;
    if (cfg->window64 >= end)
        cfg->window64 = cfg->window64_end = 0;
}
