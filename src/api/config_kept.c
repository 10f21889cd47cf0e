/* What of a machine's description goes into snapshots; see config_kept.h. */
#include "api/config_kept.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/fields.h"

static const struct {
    enum config_part part;
    const char *name; /* as config_show() has it */
} kept[] = {
    {CONFIG_BALLOON, "balloon"},         {CONFIG_VSOCK, "vsock"},
    {CONFIG_ENTROPY, "entropy"},         {CONFIG_SERIAL, "serial"},
    {CONFIG_MMDS, "mmds-config"},        {CONFIG_DRIVES, "drives"},
    {CONFIG_NETS, "network-interfaces"},
};

/* Of ALL, what is kept and has been said; the caller's. NULL: nothing, or no memory. */
static cJSON *choose(cJSON *all) {
    cJSON *some = cJSON_CreateObject();

    for (size_t n = 0; n < ARRAY_SIZE(kept); n++) {
        cJSON *v = cJSON_DetachItemFromObjectCaseSensitive(all, kept[n].name);

        if (v && !cJSON_IsNull(v) && (!cJSON_IsArray(v) || v->child))
            cJSON_AddItemToObject(some, kept[n].name, v);
        else
            cJSON_Delete(v);
    }
    if (some && some->child)
        return some;
    cJSON_Delete(some);
    return NULL;
}

char *config_kept(const struct config *c) {
    cJSON *all = config_show(c), *some = choose(all);
    char *text = some ? cJSON_PrintUnformatted(some) : NULL;

    cJSON_Delete(some);
    cJSON_Delete(all);
    return text;
}

int config_take_kept(struct config *c, const char *text, char *why, size_t why_size) {
    cJSON *all = fields_parse(text, strlen(text), why, why_size);
    cJSON *some = all ? choose(all) : NULL;
    char *chosen = some ? cJSON_PrintUnformatted(some) : NULL;
    int rc = chosen ? config_load(c, chosen, why, why_size) : all ? 0 : -EINVAL;

    cJSON_free(chosen);
    cJSON_Delete(some);
    cJSON_Delete(all);
    if (rc)
        config_forget_kept(c);
    return rc;
}

void config_forget_kept(struct config *c) {
    for (size_t n = 0; n < ARRAY_SIZE(kept); n++) {
        cJSON_Delete(c->part[kept[n].part]);
        c->part[kept[n].part] = NULL;
    }
}

/* --- in another place --- */

static const struct field net_fields[] = {
    {"iface_id", FIELD_TEXT, true, 1, 64, NULL},
    {"host_dev_name", FIELD_TEXT, true, 1, 15, NULL},
    {0},
};

static int override_net(struct config *c, const cJSON *o, char *why, size_t why_size) {
    const char *id = fields_text(o, "iface_id", "");
    cJSON *net, *found = NULL, *name;
    int rc = fields_check(o, net_fields, why, why_size);

    if (rc)
        return rc;
    cJSON_ArrayForEach(net, c->part[CONFIG_NETS]) {
        if (!strcmp(fields_text(net, "iface_id", ""), id))
            found = net;
    }
    if (!found)
        return fields_refuse(
            why, why_size,
            "'network_overrides' has an interface that the snapshot has not");
    name = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(o, "host_dev_name"), true);
    cJSON_DeleteItemFromObjectCaseSensitive(found, "net"); /* one or the other */
    return fields_set(found, "host_dev_name", name);
}

static const struct field vsock_fields[] = {
    {"uds_path", FIELD_TEXT, true, 1, 107, NULL},
    {0},
};

static int override_vsock(struct config *c, const cJSON *o, char *why, size_t why_size) {
    int rc = fields_check(o, vsock_fields, why, why_size);

    if (rc)
        return rc;
    if (!c->part[CONFIG_VSOCK])
        return fields_refuse(why, why_size,
                             "'vsock_override' is of a device that the snapshot "
                             "has not");
    return fields_set(
        c->part[CONFIG_VSOCK], "uds_path",
        cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(o, "uds_path"), true));
}

int config_override(struct config *c, const cJSON *nets, const cJSON *vsock, char *why,
                    size_t why_size) {
    const cJSON *net;
    int rc = 0;

    cJSON_ArrayForEach(net, nets) {
        if (!rc)
            rc = override_net(c, net, why, why_size);
    }
    if (!rc && cJSON_IsObject(vsock))
        rc = override_vsock(c, vsock, why, why_size);
    if (rc == -ENOMEM)
        fields_refuse(why, why_size, "out of memory");
    return rc;
}
