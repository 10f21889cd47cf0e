/*
 * The ACPI tables for firmware that places them itself: two pieces, and the commands by
 * which it puts the addresses in (the "BIOS linker/loader" of QEMU's fw_cfg, file
 * etc/table-loader, as SeaBIOS and OVMF execute it).
 */
#ifndef DEV_LINKER_H
#define DEV_LINKER_H

#include "base/types.h"

#define LINKER_COMMAND 128u /* bytes */
#define LINKER_MAX 64u      /* commands */

#define LINKER_RSDP_FILE "etc/acpi/rsdp"
#define LINKER_TABLES_FILE "etc/acpi/tables"

struct linker {
    uint8_t rsdp[36];
    uint8_t *tables; /* the caller's */
    uint32_t tables_len;
    uint8_t commands[LINKER_MAX * LINKER_COMMAND];
    uint32_t commands_len;
};

/*
 * TABLES are LEN bytes that acpi_build() made for address BASE, the RSDP in front. They
 * become what is to be the file LINKER_TABLES_FILE: addresses are offsets. 0, or -EINVAL
 * when they are no such tables or more than LINKER_MAX commands are needed.
 */
int linker_build(struct linker *l, uint8_t *tables, uint32_t len, uint64_t base);

#endif
