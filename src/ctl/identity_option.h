/* --smbios and --fw-cfg: what the guest is told of its machine by the user. */
#ifndef CTL_IDENTITY_OPTION_H
#define CTL_IDENTITY_OPTION_H

#include "dev/fw/fw_cfg.h"
#include "dev/tables/smbios.h"
#include "machine/machine.h"

struct identity_options {
    struct smbios_identity told;
    uint32_t used; /* of SMBIOS_ROOM */
    struct machine_item item[MACHINE_ITEMS];
    uint8_t *bytes[MACHINE_ITEMS]; /* theirs */
    char name[MACHINE_ITEMS][FW_CFG_NAME_SIZE];
    unsigned count;
};

/* `help` for either option: prints what there is to say, and returns true. */
bool identity_option_help(const char *value);
/* Takes KEYWORD=TEXT, the keyword being dmidecode's, and TEXT, which must stay. False
 * after a message. */
bool smbios_option_take(struct identity_options *o, const char *value);
/* Takes NAME,file=FILE, which is read, or NAME,text=TEXT. False after a message. */
bool fw_cfg_option_take(struct identity_options *o, const char *value);
/* Into the configuration, for as long as O lives. */
void identity_options_put(const struct identity_options *o, struct machine_config *cfg);
void identity_options_free(struct identity_options *o);

#endif
