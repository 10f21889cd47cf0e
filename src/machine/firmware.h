/* What firmware is told of the machine, through fw_cfg. */
#ifndef MACHINE_FIRMWARE_H
#define MACHINE_FIRMWARE_H

#include "base/types.h"
#include "dev/fw/fw_cfg.h"
#include "dev/tables/smbios.h"
#include "machine/machine.h"

struct firmware_config {
    unsigned cpus;
    uint64_t ram;
    struct gpa acpi; /* tables that were built in RAM; they are taken away there */
    uint64_t acpi_len;
    struct gpa smbios;
    uint64_t smbios_len;
    const struct smbios_identity *identity; /* or NULL */
    const struct machine_item *items;       /* that the user has given */
    unsigned item_count;
    bool menu; /* the user is asked what to boot */
    const char
        *bootorder; /* devices by their Open Firmware names, a line each; or NULL */
};

/* Fills F with the user's items alone. 0 or -errno. */
int firmware_tell_items(struct fw_cfg *f, const struct firmware_config *cfg);
/* Fills F, for a boot. 0 or -errno. */
int firmware_tell(struct fw_cfg *f, struct mem *m, const struct firmware_config *cfg);

#endif
