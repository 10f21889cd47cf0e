/*
 * ACPI tables. ACPI Specification 6, "ACPI Software Programming Model".
 *
 * Layout from `where` on: RSDP, FACS (64-byte aligned), DSDT, FADT, MADT, RSDT, XSDT.
 * They are put together in a buffer and copied to the guest in one piece.
 *
 * dsdt.c has what the DSDT contains.
 */
#include "dev/tables/acpi.h"

#include <errno.h>
#include <string.h>

#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/tables/table.h"

#define HEADER_SIZE 36u
#define FADT_SIZE 244u
#define FACS_SIZE 64u
#define RSDP_SIZE 36u
#define DSDT_MAX 0x2000u
#define MAX_CPUS 64u

#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2)
#define FADT_NO_SLP_BUTTON (1u << 5)
#define FADT_NO_FIX_RTC (1u << 6)
#define FADT_TMR_32 (1u << 8)
#define FADT_RESET_REG (1u << 10)

#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_8042 (1u << 1)
/* Without a keyboard that stays clear: the controller is there for A20 and reset, but
 * nothing is plugged in, and a driver need not look. */

#define ISO_HIGH_LEVEL 0x0du

struct builder {
    uint8_t buf[ACPI_MAX_SIZE];
    uint32_t base; /* guest address of buf[0] */
    uint32_t len;
};

/* Begins a table: reserves SIZE zeroed bytes at an ALIGN boundary; its offset. */
static uint32_t reserve(struct builder *b, uint32_t size, uint32_t align) {
    uint32_t at = (b->len + align - 1) & ~(align - 1);

    b->len = at + size;
    return at;
}

/* Fills the header of the table at AT, which ends at the end of the buffer. */
static uint32_t finish(struct builder *b, uint32_t at, const char *sig,
                       unsigned revision) {
    uint8_t *t = b->buf + at;
    uint32_t len = b->len - at;

    memcpy(t, sig, 4);
    table_put(t + 4, len, 4);
    t[8] = (uint8_t)revision;
    memcpy(t + 10, "BIVISR", 6);
    memcpy(t + 16, "BOARD   ", 8);
    table_put(t + 24, 1, 4);
    memcpy(t + 28, "BVSR", 4);
    table_put(t + 32, 1, 4);
    t[9] = table_checksum(t, len);
    return b->base + at;
}

/* Generic address structure of an I/O port block of BITS bits. */
static void put_gas(uint8_t *at, uint32_t port, unsigned bits, unsigned access) {
    at[0] = 1; /* system I/O */
    at[1] = (uint8_t)bits;
    at[2] = 0;
    at[3] = (uint8_t)access; /* 1 byte, 2 word, 3 doubleword */
    table_put(at + 4, port, 8);
}

/* 0: there is no room for it. */
static uint32_t build_dsdt(struct builder *b, const struct dsdt_config *cfg) {
    uint32_t at = reserve(b, HEADER_SIZE, 16);
    struct aml a = {.at = b->buf + b->len, .max = DSDT_MAX};

    dsdt_build(&a, cfg);
    b->len += a.len;
    return a.full ? 0 : finish(b, at, "DSDT", 2);
}

static uint32_t build_facs(struct builder *b) {
    uint32_t at = reserve(b, FACS_SIZE, 64);
    uint8_t *t = b->buf + at;

    memcpy(t, "FACS", 4);
    table_put(t + 4, FACS_SIZE, 4);
    t[32] = 2; /* version */
    return b->base + at;
}

/* The fields beyond the blocks' addresses. */
static void fadt_fixed(uint8_t *t, bool keyboard) {
    table_put(t + 46, PM_SCI_IRQ, 2);
    table_put(t + 48, PM_SMI_PORT, 4);
    t[52] = PM_ACPI_ENABLE;
    t[53] = PM_ACPI_DISABLE;
    t[88] = 4; /* PM1_EVT_LEN */
    t[89] = 2; /* PM1_CNT_LEN */
    t[91] = 4; /* PM_TMR_LEN */
    t[92] = PM_GPE0_LEN;
    table_put(t + 96, 0xfff, 2); /* no C2 */
    table_put(t + 98, 0xfff, 2); /* no C3 */
    t[108] = 0x32;               /* century */
    table_put(t + 109, BOOT_LEGACY_DEVICES | (keyboard ? BOOT_8042 : 0), 2);
    table_put(t + 112,
              FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLP_BUTTON | FADT_NO_FIX_RTC |
                  FADT_TMR_32 | FADT_RESET_REG,
              4);
}

static uint32_t build_fadt(struct builder *b, uint32_t facs, uint32_t dsdt,
                           bool keyboard) {
    uint32_t at = reserve(b, FADT_SIZE, 16);
    uint8_t *t = b->buf + at;

    table_put(t + 36, facs, 4);
    table_put(t + 40, dsdt, 4);
    fadt_fixed(t, keyboard);
    table_put(t + 56, PM_EVT_PORT, 4);
    table_put(t + 64, PM_CNT_PORT, 4);
    table_put(t + 76, PM_TMR_PORT, 4);
    table_put(t + 80, PM_GPE0_PORT, 4);
    put_gas(t + 116, PORTS_RESET, 8, 1);
    t[128] = 0x06; /* full reset */
    /* X_FIRMWARE_CTRL stays 0: only one of the two pointers may be set. */
    table_put(t + 140, dsdt, 8);
    put_gas(t + 148, PM_EVT_PORT, 32, 2);
    put_gas(t + 172, PM_CNT_PORT, 16, 2);
    put_gas(t + 208, PM_TMR_PORT, 32, 3);
    put_gas(t + 220, PM_GPE0_PORT, PM_GPE0_LEN * 8, 1);
    return finish(b, at, "FACP", 4);
}

static void madt_override(struct builder *b, unsigned irq, uint32_t gsi, unsigned flags) {
    uint8_t *e = b->buf + reserve(b, 10, 1);

    e[0] = 2;
    e[1] = 10;
    e[3] = (uint8_t)irq;
    table_put(e + 4, gsi, 4);
    table_put(e + 8, flags, 2);
}

/* Lines that PCI is led to are levels; the guest may choose one for it. */
static void madt_pci_lines(struct builder *b) {
    for (unsigned i = 0; i < DSDT_PCI_IRQS; i++)
        madt_override(b, dsdt_pci_irqs[i], dsdt_pci_irqs[i], ISO_HIGH_LEVEL);
}

static uint32_t build_madt(struct builder *b, unsigned cpus, bool pci) {
    uint32_t at = reserve(b, HEADER_SIZE + 8, 16);
    uint8_t *e = b->buf + at;
    unsigned i;

    table_put(e + 36, LAPIC_BASE, 4);
    table_put(e + 40, 1, 4); /* there are 8259s too */
    for (i = 0; i < cpus; i++) {
        e = b->buf + reserve(b, 8, 1);
        e[1] = 8;
        e[2] = e[3] = (uint8_t)i;
        table_put(e + 4, 1, 4); /* enabled */
    }
    e = b->buf + reserve(b, 12, 1);
    e[0] = 1;
    e[1] = 12;
    table_put(e + 4, IOAPIC_BASE, 4);
    madt_override(b, 0, 2, 0);
    madt_override(b, PM_SCI_IRQ, PM_SCI_IRQ, ISO_HIGH_LEVEL);
    if (pci)
        madt_pci_lines(b);
    e = b->buf + reserve(b, 6, 1); /* NMI on LINT1 of every CPU */
    e[0] = 4;
    e[1] = 6;
    e[2] = 0xff;
    e[5] = 1;
    return finish(b, at, "APIC", 3);
}

/* RSDT or XSDT: two tables, pointers of SIZE bytes. */
static uint32_t build_root(struct builder *b, const char *sig, unsigned size,
                           uint32_t fadt, uint32_t madt) {
    uint32_t at = reserve(b, HEADER_SIZE + 2 * size, 16);

    table_put(b->buf + at + HEADER_SIZE, fadt, size);
    table_put(b->buf + at + HEADER_SIZE + size, madt, size);
    return finish(b, at, sig, 1);
}

static void build_rsdp(struct builder *b, uint32_t rsdt, uint32_t xsdt) {
    uint8_t *t = b->buf;

    memcpy(t, "RSD PTR ", 8);
    memcpy(t + 9, "BIVISR", 6);
    t[15] = 2; /* revision */
    table_put(t + 16, rsdt, 4);
    table_put(t + 20, RSDP_SIZE, 4);
    table_put(t + 24, xsdt, 8);
    t[8] = table_checksum(t, 20);
    t[32] = table_checksum(t, RSDP_SIZE);
}

int acpi_build(struct mem *m, struct gpa where, const struct acpi_config *cfg,
               struct gpa *rsdp, uint64_t *len) {
    struct builder b = {.base = (uint32_t)where.a, .len = RSDP_SIZE};
    uint32_t facs, dsdt, fadt, madt, rsdt, xsdt;

    if (!cfg->cpus || cfg->cpus > MAX_CPUS || (where.a & 63) ||
        where.a > 0xffffffffu - sizeof(b.buf))
        return -EINVAL;
    facs = build_facs(&b);
    dsdt = build_dsdt(&b, &cfg->dsdt);
    if (!dsdt)
        return -ENOSPC;
    fadt = build_fadt(&b, facs, dsdt, cfg->dsdt.keyboard);
    madt = build_madt(&b, cfg->cpus, cfg->dsdt.pci);
    rsdt = build_root(&b, "RSDT", 4, fadt, madt);
    xsdt = build_root(&b, "XSDT", 8, fadt, madt);
    build_rsdp(&b, rsdt, xsdt);
    if (!mem_write(m, where, b.buf, b.len))
        return -EFAULT;
    *rsdp = where;
    if (len)
        *len = b.len;
    return 0;
}
