/* What firmware is told of the machine, through fw_cfg. */
#ifndef MACHINE_FIRMWARE_H
#define MACHINE_FIRMWARE_H

#include "base/types.h"
#include "dev/fw/fw_cfg.h"

struct firmware_config {
    unsigned cpus;
    uint64_t ram;
    struct gpa acpi; /* tables that were built in RAM; they are taken away there */
    uint64_t acpi_len;
    struct gpa smbios;
    uint64_t smbios_len;
    bool menu; /* the user is asked what to boot */
    const char
        *bootorder; /* devices by their Open Firmware names, a line each; or NULL */
};

/* Fills F, for a boot. 0 or -errno. */
int firmware_tell(struct fw_cfg *f, struct mem *m, const struct firmware_config *cfg);

#endif
