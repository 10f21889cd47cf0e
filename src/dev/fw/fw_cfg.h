/*
 * fw_cfg: how firmware learns of the machine it runs on. QEMU's "Firmware Configuration
 * (fw_cfg) Device" (its docs/specs/fw_cfg), which SeaBIOS and OVMF know: items that are
 * chosen by number and read byte by byte or by DMA, and a directory that gives numbers
 * names.
 *
 * Items are copies, owned by the device. The guest only reads them.
 */
#ifndef DEV_FW_CFG_H
#define DEV_FW_CFG_H

#include "bus/bus.h"
#include "mem/mem.h"

#define FW_CFG_PORT 0x510 /* selector; data at the next */
#define FW_CFG_PORTS 12u  /* with those of DMA */
#define FW_CFG_DMA_PORT 0x514

/* Items with a number of their own; those with names get theirs from the device. */
enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
};

#define FW_CFG_NAME_SIZE 56u /* with its 0 */
#define FW_CFG_FILES 32u

struct fw_cfg;
struct snapshot;

/* NULL when out of memory or of places on the bus. M is where DMA goes. */
struct fw_cfg *fw_cfg_new(struct bus *bus, struct mem *m);
void fw_cfg_free(struct fw_cfg *f);
/* Nothing is chosen. Items stay. */
void fw_cfg_reset(struct fw_cfg *f);

/* Forgets all items but the signature and the interface's version. */
void fw_cfg_clear(struct fw_cfg *f);
/* Gives item KEY (below FW_CFG_FILE_DIR) a copy of LEN bytes, instead of what it had. 0,
 * -EINVAL or -ENOMEM. */
int fw_cfg_set(struct fw_cfg *f, unsigned key, const void *data, uint32_t len);
/* The same with a number. */
int fw_cfg_set_int(struct fw_cfg *f, unsigned key, uint64_t value, unsigned size);
/* Adds a file, or replaces the one of this name. 0, -EINVAL for the name, -ENOSPC when
 * there are too many, -ENOMEM. */
int fw_cfg_add(struct fw_cfg *f, const char *name, const void *data, uint32_t len);
int fw_cfg_add_int(struct fw_cfg *f, const char *name, uint64_t value, unsigned size);

/* Its record of a snapshot (snapshot/snapshot.h), with all items. */
void fw_cfg_state(struct fw_cfg *f, struct snapshot *s);

#endif
