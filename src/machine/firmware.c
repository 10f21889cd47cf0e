/*
 * The items of fw_cfg; see firmware.h. The tables were built in RAM, as for a kernel;
 * they are copied from there, and the place is zero again: firmware puts them where it
 * likes.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/pc/uart.h"
#include "dev/tables/linker.h"

#define TABLES_MAX 0x10000u
#define SMBIOS_ENTRY 31u
#define SMBIOS_FIRST 32u /* structures begin so far behind the entry point */
#define E820_RAM 1u
#define MENU_WAIT_MS 3000u

struct e820 {
    uint64_t start, size;
    uint32_t type;
} __attribute__((packed));

/* LEN bytes of RAM at AT into a buffer of the caller's; they are zero afterwards. */
static int take_out(struct mem *m, struct gpa at, uint64_t len, uint8_t **out) {
    uint8_t *copy, *zeros;
    bool ok;

    if (!len || len > TABLES_MAX)
        return -EINVAL;
    copy = malloc(len);
    zeros = calloc(1, len);
    ok = copy && zeros && mem_read(m, at, copy, len) && mem_write(m, at, zeros, len);
    free(zeros);
    if (!ok) {
        free(copy);
        return -ENOMEM;
    }
    *out = copy;
    return 0;
}

static int tell_acpi(struct fw_cfg *f, struct mem *m, const struct firmware_config *cfg) {
    struct linker *l = malloc(sizeof(*l));
    uint8_t *tables = NULL;
    int rc = l ? take_out(m, cfg->acpi, cfg->acpi_len, &tables) : -ENOMEM;

    if (!rc)
        rc = linker_build(l, tables, (uint32_t)cfg->acpi_len, cfg->acpi.a);
    if (!rc)
        rc = fw_cfg_add(f, LINKER_RSDP_FILE, l->rsdp, sizeof(l->rsdp));
    if (!rc)
        rc = fw_cfg_add(f, LINKER_TABLES_FILE, l->tables, l->tables_len);
    if (!rc)
        rc = fw_cfg_add(f, "etc/table-loader", l->commands, l->commands_len);
    free(tables);
    free(l);
    return rc;
}

static int tell_smbios(struct fw_cfg *f, struct mem *m,
                       const struct firmware_config *cfg) {
    uint8_t *tables = NULL;
    int rc = take_out(m, cfg->smbios, cfg->smbios_len, &tables);
    uint64_t len;

    if (rc)
        return rc;
    len = tables[0x16] | (uint64_t)tables[0x17] << 8;
    if (SMBIOS_FIRST + len > cfg->smbios_len)
        rc = -EINVAL;
    if (!rc)
        rc = fw_cfg_add(f, "etc/smbios/smbios-anchor", tables, SMBIOS_ENTRY);
    if (!rc)
        rc = fw_cfg_add(f, "etc/smbios/smbios-tables", tables + SMBIOS_FIRST,
                        (uint32_t)len);
    free(tables);
    return rc;
}

static int tell_memory(struct fw_cfg *f, uint64_t ram) {
    uint64_t low = ram < MEM_HOLE_START ? ram : MEM_HOLE_START;
    const struct e820 map[] = {{0, low, E820_RAM}, {MEM_HOLE_END, ram - low, E820_RAM}};
    int rc = fw_cfg_set_int(f, FW_CFG_RAM_SIZE, ram, 8);

    if (rc)
        return rc;
    return fw_cfg_add(f, "etc/e820", map, (ram > low ? 2 : 1) * (uint32_t)sizeof(map[0]));
}

static int tell_boot(struct fw_cfg *f, const struct firmware_config *cfg) {
    int rc = fw_cfg_set_int(f, FW_CFG_BOOT_MENU, cfg->menu, 2);

    if (!rc)
        rc = fw_cfg_add_int(f, "etc/boot-menu-wait", MENU_WAIT_MS, 2);
    if (!rc)
        rc = fw_cfg_add_int(f, "etc/sercon-port", UART_COM1_PORT, 2);
    if (!rc && cfg->bootorder && cfg->bootorder[0])
        rc = fw_cfg_add(f, "bootorder", cfg->bootorder,
                        (uint32_t)strlen(cfg->bootorder) + 1);
    return rc;
}

int firmware_tell_items(struct fw_cfg *f, const struct firmware_config *cfg) {
    const struct smbios_identity *id = cfg->identity;
    int rc = id && id->has_uuid ? fw_cfg_set(f, FW_CFG_UUID, id->uuid, 16) : 0;

    for (unsigned n = 0; !rc && n < cfg->item_count; n++)
        rc = fw_cfg_add(f, cfg->items[n].name, cfg->items[n].bytes, cfg->items[n].size);
    return rc;
}

int firmware_tell(struct fw_cfg *f, struct mem *m, const struct firmware_config *cfg) {
    int rc;

    fw_cfg_clear(f);
    rc = fw_cfg_set_int(f, FW_CFG_NB_CPUS, cfg->cpus, 2);
    if (!rc)
        rc = fw_cfg_set_int(f, FW_CFG_MAX_CPUS, cfg->cpus, 2);
    if (!rc)
        rc = fw_cfg_set_int(f, FW_CFG_NOGRAPHIC, 0, 2);
    if (!rc)
        rc = tell_memory(f, cfg->ram);
    if (!rc)
        rc = tell_acpi(f, m, cfg);
    if (!rc)
        rc = tell_smbios(f, m, cfg);
    if (!rc)
        rc = tell_boot(f, cfg);
    return rc ? rc : firmware_tell_items(f, cfg);
}
