/* ACPI tables that describe this board. */
#ifndef DEV_ACPI_H
#define DEV_ACPI_H

#include "dev/tables/dsdt.h"
#include "mem/mem.h"

#define ACPI_WHERE 0xe0000u   /* within the area that is searched for the RSDP */
#define ACPI_MAX_SIZE 0x4000u /* never more than this */

struct acpi_config {
    unsigned cpus; /* local APIC IDs 0.. (at least 1, at most 64) */
    struct dsdt_config dsdt;
};

/*
 * Writes all tables from WHERE on (a multiple of 64) and gives the address of the RSDP,
 * which is WHERE. The range [WHERE, WHERE + *LEN) is to be reported to the guest as not
 * usable. LEN may be NULL. 0, -EINVAL, -ENOSPC, or -EFAULT when it is not RAM.
 */
int acpi_build(struct mem *m, struct gpa where, const struct acpi_config *cfg,
               struct gpa *rsdp, uint64_t *len);

#endif
