/* -uuid, -smbios and -fw_cfg: what the guest is told of its machine; see qemu_int.h. */
#include <string.h>

#include "qemu/qemu_int.h"

/* A field of -smbios type=TYPE, and the keyword of bivisor's --smbios. */
static const struct {
    int type;
    const char *field, *keyword;
} fields[] = {
    {0, "vendor", "bios-vendor"},
    {0, "version", "bios-version"},
    {0, "date", "bios-release-date"},
    {1, "manufacturer", "system-manufacturer"},
    {1, "product", "system-product-name"},
    {1, "version", "system-version"},
    {1, "serial", "system-serial-number"},
    {1, "uuid", "system-uuid"},
    {1, "sku", "system-sku-number"},
    {1, "family", "system-family"},
    {2, "manufacturer", "baseboard-manufacturer"},
    {2, "product", "baseboard-product-name"},
    {2, "version", "baseboard-version"},
    {2, "serial", "baseboard-serial-number"},
    {2, "asset", "baseboard-asset-tag"},
    {3, "manufacturer", "chassis-manufacturer"},
    {3, "version", "chassis-version"},
    {3, "serial", "chassis-serial-number"},
    {3, "asset", "chassis-asset-tag"},
    {11, "value", "oem-string"},
};

static bool tell(struct qemu *q, const char *from, const char *option, const char *text) {
    if (q->told_count == QEMU_TOLD)
        return qemu_refuse(q, "%s: more than %u are not possible", from, QEMU_TOLD);
    q->told[q->told_count++] = (struct qemu_told){option, text};
    return true;
}

bool qemu_take_uuid(struct qemu *q, const char *option, const char *value) {
    return tell(q, option, "--smbios", qemu_format(q, "system-uuid=%s", value));
}

/* The keyword of a field, or NULL. */
static const char *keyword_of(int type, const char *field) {
    for (size_t n = 0; n < ARRAY_SIZE(fields); n++)
        if (fields[n].type == type && !strcmp(fields[n].field, field))
            return fields[n].keyword;
    return NULL;
}

bool qemu_take_smbios(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    int type;

    if (!qemu_split(q, &l, option, value, "file") ||
        !qemu_number(q, &l, "type", -1, 255, &type))
        return false;
    if (type < 0)
        return qemu_refuse(q, "%s wants type=N: tables of a file are not taken", option);
    for (size_t n = 0; n < l.count; n++) {
        struct qemu_pair *p = &l.pair[n];
        const char *keyword = keyword_of(type, p->name);

        if (!keyword)
            continue;
        p->used = true;
        if (!tell(q, option, "--smbios", qemu_format(q, "%s=%s", keyword, p->value)))
            return false;
    }
    if (type > 3 && type != 11) {
        qemu_note(q, "%s: structures of type %d are bivisor's own", option, type);
        return true;
    }
    return qemu_rest(q, &l, type == 11 ? "" : "release uefi location sku ");
}

bool qemu_take_fw_cfg(struct qemu *q, const char *option, const char *value) {
    const char *name, *file, *text;
    struct qemu_list l;

    if (!qemu_split(q, &l, option, value, "name"))
        return false;
    name = qemu_value(&l, "name");
    file = qemu_value(&l, "file");
    text = qemu_value(&l, "string");
    if (!name || !file == !text)
        return qemu_refuse(q, "%s wants name=NAME and file=FILE or string=TEXT", option);
    return qemu_rest(q, &l, "") &&
           tell(q, option, "--fw-cfg",
                qemu_format(q, "%s,%s=%s", name, file ? "file" : "text", file ?: text));
}
