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

/* What its user may say of the machine's make. */
enum smbios_text {
    SMBIOS_BIOS_VENDOR,
    SMBIOS_BIOS_VERSION,
    SMBIOS_BIOS_DATE,
    SMBIOS_SYSTEM_MAKER,
    SMBIOS_SYSTEM_PRODUCT,
    SMBIOS_SYSTEM_VERSION,
    SMBIOS_SYSTEM_SERIAL,
    SMBIOS_SYSTEM_SKU,
    SMBIOS_SYSTEM_FAMILY,
    SMBIOS_BOARD_MAKER,
    SMBIOS_BOARD_PRODUCT,
    SMBIOS_BOARD_VERSION,
    SMBIOS_BOARD_SERIAL,
    SMBIOS_BOARD_TAG,
    SMBIOS_CHASSIS_MAKER,
    SMBIOS_CHASSIS_VERSION,
    SMBIOS_CHASSIS_SERIAL,
    SMBIOS_CHASSIS_TAG,
    SMBIOS_TEXTS,
};
#define SMBIOS_OEM_MAX 32u
#define SMBIOS_ROOM (SMBIOS_MAX_SIZE - 0x800u) /* for all texts, each with its end */

struct smbios_identity {
    bool has_uuid;
    uint8_t uuid[16];               /* in the order in which it is written out */
    const char *text[SMBIOS_TEXTS]; /* NULL: the board's own; empty: none */
    const char *oem[SMBIOS_OEM_MAX];
    unsigned oem_count;
};

struct smbios_config {
    unsigned cpus;                          /* at least 1, at most 64 */
    uint64_t ram;                           /* bytes */
    uint32_t signature;                     /* CPUID leaf 1, EAX */
    uint32_t features;                      /* and EDX */
    char cpu_maker[12];                     /* of CPUID leaf 0 */
    const struct smbios_identity *identity; /* NULL: all of it the board's own */
};

/* Writes the entry point to WHERE, a multiple of 16, and the structures behind it. 0,
 * -EINVAL, -ENOSPC when texts take more than SMBIOS_ROOM, or -EFAULT when it is not RAM.
 */
int smbios_build(struct mem *m, struct gpa where, const struct smbios_config *cfg);

#endif
