/*
 * The MP configuration table of the MultiProcessor Specification, version 1.4: what
 * systems without ACPI look for. It says the same as the MADT (acpi.h).
 */
#ifndef DEV_MPTABLE_H
#define DEV_MPTABLE_H

#include "mem/mem.h"

#define MPTABLE_WHERE 0xf2000u /* within the area that is searched */

struct mptable_config {
    unsigned cpus;      /* local APIC IDs 0.. (at least 1, at most 64) */
    uint32_t signature; /* CPUID leaf 1, EAX */
    uint32_t features;  /* and EDX */
    bool pci;           /* bus 0 is PCI, bus 1 ISA; else there is ISA alone */
};

/* Writes the floating pointer structure to WHERE, a multiple of 16, and the table behind
 * it. 0, -EINVAL, or -EFAULT when it is not RAM. */
int mptable_build(struct mem *m, struct gpa where, const struct mptable_config *cfg);

#endif
