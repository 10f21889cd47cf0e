/*
 * SMBIOS tables: what firmware says of the machine's make. System Management BIOS
 * Reference Specification, version 2.8, with the 32-bit entry point, which all systems
 * know.
 */
#ifndef DEV_SMBIOS_H
#define DEV_SMBIOS_H

#include "mem/mem.h"

#define SMBIOS_WHERE 0xf0000u   /* within the area that is searched */
#define SMBIOS_MAX_SIZE 0x2000u /* never more than this */

struct smbios_config {
    unsigned cpus;      /* at least 1, at most 64 */
    uint64_t ram;       /* bytes */
    uint32_t signature; /* CPUID leaf 1, EAX */
    uint32_t features;  /* and EDX */
    char cpu_maker[12]; /* of CPUID leaf 0 */
};

/* Writes the entry point to WHERE, a multiple of 16, and the structures behind it. 0,
 * -EINVAL, or -EFAULT when it is not RAM. */
int smbios_build(struct mem *m, struct gpa where, const struct smbios_config *cfg);

#endif
