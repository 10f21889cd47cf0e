/* --smbios and --fw-cfg; see identity_option.h. */
#include "ctl/identity_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl/whole_file.h"

#define ITEM_MAX (16u << 20)

/* As `dmidecode -s` has them. */
static const char *const keywords[SMBIOS_TEXTS] = {
    [SMBIOS_BIOS_VENDOR] = "bios-vendor",
    [SMBIOS_BIOS_VERSION] = "bios-version",
    [SMBIOS_BIOS_DATE] = "bios-release-date",
    [SMBIOS_SYSTEM_MAKER] = "system-manufacturer",
    [SMBIOS_SYSTEM_PRODUCT] = "system-product-name",
    [SMBIOS_SYSTEM_VERSION] = "system-version",
    [SMBIOS_SYSTEM_SERIAL] = "system-serial-number",
    [SMBIOS_SYSTEM_SKU] = "system-sku-number",
    [SMBIOS_SYSTEM_FAMILY] = "system-family",
    [SMBIOS_BOARD_MAKER] = "baseboard-manufacturer",
    [SMBIOS_BOARD_PRODUCT] = "baseboard-product-name",
    [SMBIOS_BOARD_VERSION] = "baseboard-version",
    [SMBIOS_BOARD_SERIAL] = "baseboard-serial-number",
    [SMBIOS_BOARD_TAG] = "baseboard-asset-tag",
    [SMBIOS_CHASSIS_MAKER] = "chassis-manufacturer",
    [SMBIOS_CHASSIS_VERSION] = "chassis-version",
    [SMBIOS_CHASSIS_SERIAL] = "chassis-serial-number",
    [SMBIOS_CHASSIS_TAG] = "chassis-asset-tag",
};

bool identity_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    fputs("--smbios KEYWORD=TEXT    what SMBIOS says of the machine; repeatable\n"
          "  system-uuid            such as 123e4567-e89b-12d3-a456-426614174000\n",
          stdout);
    for (unsigned n = 0; n < SMBIOS_TEXTS; n++)
        printf("  %s\n", keywords[n]);
    printf(
        "  oem-string             up to %u of them: systemd's credentials, for one\n"
        "--fw-cfg NAME,file=FILE  a file that the guest finds by this name in fw_cfg,\n"
        "--fw-cfg NAME,text=TEXT  or a text; up to %u; Linux shows them in\n"
        "                         /sys/firmware/qemu_fw_cfg/by_name/NAME/raw\n",
        SMBIOS_OEM_MAX, MACHINE_ITEMS);
    return true;
}

/* --- --smbios --- */

static bool take_uuid(const char *text, uint8_t out[16]) {
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    unsigned digits = 0;

    for (unsigned n = 0; n < sizeof(shape); n++) {
        const char *hex = "0123456789abcdef0123456789ABCDEF", *at;

        if (shape[n] != 'x') {
            if (text[n] != shape[n])
                return false;
            continue;
        }
        at = text[n] ? strchr(hex, text[n]) : NULL;
        if (!at)
            return false;
        out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | ((at - hex) & 15));
        digits++;
    }
    return true;
}

/* Room for TEXT. False after a message. */
static bool take_room(struct identity_options *o, const char *text) {
    size_t size = strlen(text) + 1;

    if (size > SMBIOS_ROOM - o->used) {
        log_error("--smbios: there is room for %u bytes of text in all", SMBIOS_ROOM);
        return false;
    }
    o->used += (uint32_t)size;
    return true;
}

static bool take_oem(struct identity_options *o, const char *text) {
    if (!*text) {
        log_error("--smbios oem-string= wants a text");
        return false;
    }
    if (o->told.oem_count == SMBIOS_OEM_MAX) {
        log_error("--smbios oem-string= is possible %u times at most", SMBIOS_OEM_MAX);
        return false;
    }
    o->told.oem[o->told.oem_count++] = text;
    return true;
}

/* The text behind KEYWORD and '=', if VALUE begins so; else NULL. */
static const char *text_of(const char *value, const char *keyword) {
    size_t len = strlen(keyword);

    return !strncmp(value, keyword, len) && value[len] == '=' ? value + len + 1 : NULL;
}

bool smbios_option_take(struct identity_options *o, const char *value) {
    const char *text = text_of(value, "system-uuid");

    if (text) {
        o->told.has_uuid = take_uuid(text, o->told.uuid);
        if (!o->told.has_uuid)
            log_error("--smbios system-uuid= wants a UUID such as "
                      "123e4567-e89b-12d3-a456-426614174000, not '%s'",
                      text);
        return o->told.has_uuid;
    }
    text = text_of(value, "oem-string");
    if (text)
        return take_room(o, text) && take_oem(o, text);
    for (unsigned n = 0; n < SMBIOS_TEXTS; n++) {
        text = text_of(value, keywords[n]);
        if (!text)
            continue;
        o->told.text[n] = text;
        return take_room(o, text);
    }
    log_error("--smbios wants KEYWORD=TEXT, not '%s'; `--smbios help` lists the keywords",
              value);
    return false;
}

/* --- --fw-cfg --- */

/* All of PATH; NULL after a message. */
static uint8_t *read_item(const char *path, uint32_t *size) {
    uint8_t *bytes;
    int rc = whole_file_read(path, ITEM_MAX, &bytes, size);

    if (rc == -EINVAL)
        log_error("--fw-cfg: '%s' is no file", path);
    else if (rc == -EFBIG)
        log_error("--fw-cfg: '%s' is larger than %u MiB", path, ITEM_MAX >> 20);
    else if (rc)
        log_error("--fw-cfg: cannot open '%s': %s", path, strerror(-rc));
    return bytes;
}

/* TEXT, without its end; NULL after a message. */
static uint8_t *copy_text(const char *text, uint32_t *size) {
    uint8_t *bytes = (uint8_t *)strdup(text);

    *size = (uint32_t)strlen(text);
    if (!bytes)
        log_error("--fw-cfg: out of memory");
    return bytes;
}

/* NAME, of LEN bytes, is one that can be told: false after a message. */
static bool check_name(const struct identity_options *o, const char *name, size_t len) {
    if (!len || len >= FW_CFG_NAME_SIZE) {
        log_error("--fw-cfg wants a name of 1 to %u characters, such as opt/org.example",
                  FW_CFG_NAME_SIZE - 1);
        return false;
    }
    if (strncmp(name, "opt/", 4) != 0) {
        log_error("--fw-cfg: '%.*s' is the machine's own to say: names begin with opt/",
                  (int)len, name);
        return false;
    }
    for (unsigned n = 0; n < o->count; n++)
        if (!strncmp(o->item[n].name, name, len) && !o->item[n].name[len]) {
            log_error("--fw-cfg: '%.*s' is said twice", (int)len, name);
            return false;
        }
    return true;
}

bool fw_cfg_option_take(struct identity_options *o, const char *value) {
    const char *what = strchr(value, ',');
    size_t len = what ? (size_t)(what - value) : strlen(value);
    struct machine_item *item = &o->item[o->count];
    uint8_t *bytes;

    if (o->count == MACHINE_ITEMS) {
        log_error("--fw-cfg is possible %u times at most", MACHINE_ITEMS);
        return false;
    }
    if (!what || (strncmp(what, ",file=", 6) != 0 && strncmp(what, ",text=", 6) != 0)) {
        log_error("--fw-cfg wants NAME,file=FILE or NAME,text=TEXT, not '%s'", value);
        return false;
    }
    if (!check_name(o, value, len))
        return false;
    bytes = what[1] == 'f' ? read_item(what + 6, &item->size)
                           : copy_text(what + 6, &item->size);
    if (!bytes)
        return false;
    memcpy(o->name[o->count], value, len); /* zero behind it */
    item->name = o->name[o->count];
    item->bytes = o->bytes[o->count++] = bytes;
    return true;
}

void identity_options_put(const struct identity_options *o, struct machine_config *cfg) {
    cfg->identity = &o->told;
    memcpy(cfg->items, o->item, sizeof(cfg->items));
    cfg->item_count = o->count;
}

void identity_options_free(struct identity_options *o) {
    for (unsigned n = 0; n < o->count; n++)
        free(o->bytes[n]);
}
