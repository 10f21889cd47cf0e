/*
 * What a machine is to be made of; see config.h. The values are kept as they came, when
 * they have been found good, so that what is shown is what was said.
 */
#include "api/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/config_cpu.h"
#include "api/config_limits.h"
#include "api/fields.h"
#include "api/mmds.h"

#define PATH_MOST 4095
#define COPY_WORDS 64

/* --- what may be said --- */

static const char *const templates[] = {"None", NULL};
static const char *const pages[] = {"None", "Transparent", NULL};
static const char *const caches[] = {"Unsafe", "Writeback", NULL};
static const char *const io_engines[] = {"Sync", "Async", NULL};
static const char *const levels[] = {"Error", "Warning", "Info",    "Debug",   "Trace",
                                     "Off",   "error",   "warning", "info",    "debug",
                                     "trace", "off",     "ERROR",   "WARNING", "INFO",
                                     "DEBUG", "TRACE",   "OFF",     NULL};
static const char *const directs[] = {"off", "auto", "on", NULL};

static const struct field boot_fields[] = {
    {"kernel_image_path", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {"initrd_path", FIELD_TEXT, false, 1, PATH_MOST, NULL},
    {"boot_args", FIELD_TEXT, false, 0, 2047, NULL},
    {0},
};
static const struct field machine_fields[] = {
    {"vcpu_count", FIELD_NUMBER, true, 1, 32, NULL},
    {"mem_size_mib", FIELD_NUMBER, true, 1, 1 << 20, NULL},
    {"smt", FIELD_BOOL, false, 0, 0, NULL},
    {"cpu_template", FIELD_TEXT, false, 0, 0, templates},
    {"track_dirty_pages", FIELD_BOOL, false, 0, 0, NULL},
    {"huge_pages", FIELD_TEXT, false, 0, 0, pages},
    {0},
};
static const struct field balloon_fields[] = {
    {"amount_mib", FIELD_NUMBER, true, 0, 1 << 20, NULL},
    {"deflate_on_oom", FIELD_BOOL, true, 0, 0, NULL},
    {"stats_polling_interval_s", FIELD_NUMBER, false, 0, 65535, NULL},
    {"free_page_hinting", FIELD_BOOL, false, 0, 0, NULL},
    {"free_page_reporting", FIELD_BOOL, false, 0, 0, NULL},
    {0},
};
static const struct field vsock_fields[] = {
    {"guest_cid", FIELD_NUMBER, true, 3, 4294967294, NULL},
    {"uds_path", FIELD_TEXT, true, 1, 107, NULL},
    {"vsock_id", FIELD_TEXT, false, 0, 0, NULL},
    {0},
};
static const struct field entropy_fields[] = {
    {"rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};
static const struct field serial_fields[] = {
    {"serial_out_path", FIELD_TEXT, false, 1, PATH_MOST, NULL},
    {"rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};
static const struct field logger_fields[] = {
    {"log_path", FIELD_TEXT, false, 1, PATH_MOST, NULL},
    {"level", FIELD_TEXT, false, 0, 0, levels},
    {"show_level", FIELD_BOOL, false, 0, 0, NULL},
    {"show_log_origin", FIELD_BOOL, false, 0, 0, NULL},
    {"module", FIELD_TEXT, false, 0, 0, NULL},
    {0},
};
static const struct field metrics_fields[] = {
    {"metrics_path", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {0},
};
static const struct field settings_fields[] = {
    {"engine", FIELD_TEXT, false, 1, 32, NULL},
    {"cpu", FIELD_TEXT, false, 1, 64, NULL},
    {"bt", FIELD_TEXT, false, 1, 256, NULL},
    {"direct", FIELD_TEXT, false, 0, 0, directs},
    {"pci", FIELD_BOOL, false, 0, 0, NULL},
    {"cpu_quota", FIELD_NUMBER, false, 1, 6400, NULL},
    {"memory_ceiling_mib", FIELD_NUMBER, false, 1, 1 << 20, NULL},
    {"name", FIELD_TEXT, false, 1, 64, NULL},
    {"snapshots", FIELD_TEXT, false, 1, PATH_MOST, NULL},
    {"copies", FIELD_ARRAY, false, 0, 0, NULL},
    {0},
};
static const struct field drive_fields[] = {
    {"drive_id", FIELD_TEXT, true, 1, 64, NULL},
    {"path_on_host", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {"is_root_device", FIELD_BOOL, true, 0, 0, NULL},
    {"is_read_only", FIELD_BOOL, false, 0, 0, NULL},
    {"partuuid", FIELD_TEXT, false, 1, 64, NULL},
    {"cache_type", FIELD_TEXT, false, 0, 0, caches},
    {"io_engine", FIELD_TEXT, false, 0, 0, io_engines},
    {"rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};
/* HOST_DEV_NAME is a TAP interface; NET, which is ours, whatever --net can be. */
static const struct field net_fields[] = {
    {"iface_id", FIELD_TEXT, true, 1, 64, NULL},
    {"host_dev_name", FIELD_TEXT, false, 1, 15, NULL},
    {"net", FIELD_TEXT, false, 1, 1024, NULL},
    {"guest_mac", FIELD_TEXT, false, 17, 17, NULL},
    {"mtu", FIELD_NUMBER, false, 68, 65535, NULL},
    {"rx_rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {"tx_rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};

static const char *const versions[] = {"V1", "V2", NULL};
static const struct field mmds_fields[] = {
    {"version", FIELD_TEXT, false, 0, 0, versions},
    {"network_interfaces", FIELD_ARRAY, true, 0, 0, NULL},
    {"ipv4_address", FIELD_TEXT, false, 7, 15, NULL},
    {"imds_compat", FIELD_BOOL, false, 0, 0, NULL},
    {0},
};

/* A template for x86; KVM's capabilities are nothing that is looked for here. */
static const struct field cpu_fields[] = {
    {"kvm_capabilities", FIELD_ARRAY, false, 0, 0, NULL},
    {"cpuid_modifiers", FIELD_ARRAY, false, 0, 0, NULL},
    {"msr_modifiers", FIELD_ARRAY, false, 0, 0, NULL},
    {0},
};

static const struct {
    const char *name; /* in a whole configuration */
    const struct field *fields;
    const char *id; /* the member that names one of several */
    unsigned most;
} parts[CONFIG_ALL] = {
    [CONFIG_BOOT] = {"boot-source", boot_fields, NULL, 1},
    [CONFIG_MACHINE] = {"machine-config", machine_fields, NULL, 1},
    [CONFIG_BALLOON] = {"balloon", balloon_fields, NULL, 1},
    [CONFIG_VSOCK] = {"vsock", vsock_fields, NULL, 1},
    [CONFIG_ENTROPY] = {"entropy", entropy_fields, NULL, 1},
    [CONFIG_SERIAL] = {"serial", serial_fields, NULL, 1},
    [CONFIG_LOGGER] = {"logger", logger_fields, NULL, 1},
    [CONFIG_METRICS] = {"metrics", metrics_fields, NULL, 1},
    [CONFIG_SETTINGS] = {"bivisor", settings_fields, NULL, 1},
    [CONFIG_CPU] = {"cpu-config", cpu_fields, NULL, 1},
    [CONFIG_MMDS] = {"mmds-config", mmds_fields, NULL, 1},
    [CONFIG_DRIVES] = {"drives", drive_fields, "drive_id", CONFIG_DRIVES_MAX},
    [CONFIG_NETS] = {"network-interfaces", net_fields, "iface_id", CONFIG_NETS_MAX},
};

/* --- several of a kind --- */

/* Its place in the array, or -1. */
static int place_of(const cJSON *array, const char *member, const char *id) {
    const cJSON *value;
    int n = 0;

    cJSON_ArrayForEach(value, array) {
        if (!strcmp(fields_text(value, member, ""), id))
            return n;
        n++;
    }
    return -1;
}

/* The machine's number of the drive or interface VALUE: the root's is the first. */
static unsigned number_of(const struct config *c, enum config_part part,
                          const cJSON *value) {
    const cJSON *other;
    unsigned before = 0, behind_root = 0;
    bool past = false;

    if (fields_bool(value, "is_root_device"))
        return 0;
    cJSON_ArrayForEach(other, c->part[part]) {
        past |= other == value;
        if (fields_bool(other, "is_root_device"))
            behind_root = 1;
        else
            before += !past;
    }
    return before + behind_root;
}

unsigned config_number(const struct config *c, enum config_part part, const char *id) {
    int at = place_of(c->part[part], parts[part].id, id);

    return at < 0 ? UINT_MAX : number_of(c, part, cJSON_GetArrayItem(c->part[part], at));
}

/* --- checks --- */

static bool is_id(const char *id) {
    for (const char *p = id; *p; p++)
        if (!isascii(*p) || (!isalnum((unsigned char)*p) && *p != '_' && *p != '-'))
            return false;
    return *id;
}

static int check_drive(const struct config *c, const cJSON *value, const char *id,
                       char *why, size_t why_size) {
    const cJSON *other;

    if (!fields_bool(value, "is_root_device"))
        return 0;
    cJSON_ArrayForEach(other, c->part[CONFIG_DRIVES]) {
        if (fields_bool(other, "is_root_device") &&
            strcmp(fields_text(other, "drive_id", ""), id) != 0)
            return fields_refuse(why, why_size, "there is a root device already");
    }
    return 0;
}

static bool is_mac(const char *text) {
    for (unsigned n = 0; n < 17; n++)
        if (n % 3 == 2 ? text[n] != ':' : !isxdigit((unsigned char)text[n]))
            return false;
    return true;
}

static int check_net(const cJSON *value, char *why, size_t why_size) {
    const char *mac = fields_text(value, "guest_mac", NULL);
    bool tap = fields_text(value, "host_dev_name", NULL);

    if (mac && !is_mac(mac))
        return fields_refuse(why, why_size, "'guest_mac' is no XX:XX:XX:XX:XX:XX");
    if (tap == (fields_text(value, "net", NULL) != NULL))
        return fields_refuse(why, why_size, "one of 'host_dev_name' and 'net' is wanted");
    return 0;
}

/* Of the addresses that no router knows; RFC 3927, "Address Selection". */
static bool is_link_local(const char *text) {
    uint8_t a[4];

    return inet_pton(AF_INET, text, a) == 1 && a[0] == 169 && a[1] == 254 && a[2] >= 1 &&
           a[2] <= 254;
}

/* The metadata service's. */
static int check_mmds(const struct config *c, const cJSON *value, char *why,
                      size_t why_size) {
    const cJSON *nets = cJSON_GetObjectItemCaseSensitive(value, "network_interfaces"), *n;

    if (!is_link_local(fields_text(value, "ipv4_address", MMDS_ADDRESS)))
        return fields_refuse(why, why_size, "'ipv4_address' is none from 169.254.1.0 on");
    if (!cJSON_GetArraySize(nets))
        return fields_refuse(why, why_size, "'network_interfaces' has none in it");
    cJSON_ArrayForEach(n, nets) {
        if (!cJSON_IsString(n) ||
            config_number(c, CONFIG_NETS, n->valuestring) == UINT_MAX)
            return fields_refuse(
                why, why_size, "'network_interfaces' has one that has not been put yet");
    }
    return 0;
}

/* Options of `bivisor restore` for copies, as words. */
static int check_settings(const cJSON *value, char *why, size_t why_size) {
    const cJSON *words = cJSON_GetObjectItemCaseSensitive(value, "copies"), *w;

    if (cJSON_GetArraySize(words) > COPY_WORDS)
        return fields_refuse(why, why_size, "'copies' has too many words");
    cJSON_ArrayForEach(w, words) {
        if (!cJSON_IsString(w) || strlen(w->valuestring) > PATH_MOST)
            return fields_refuse(why, why_size, "'copies' has options, as texts");
    }
    return 0;
}

static int check(const struct config *c, enum config_part part, const char *id,
                 const cJSON *value, char *why, size_t why_size) {
    int rc = fields_check(value, parts[part].fields, why, why_size);

    if (!rc)
        rc = config_limits_check(part, value, why, why_size);
    if (!rc && part == CONFIG_MMDS)
        rc = check_mmds(c, value, why, why_size);
    if (!rc && part == CONFIG_CPU)
        rc = config_cpu_check(value, why, why_size);
    if (!rc && part == CONFIG_SETTINGS)
        rc = check_settings(value, why, why_size);
    if (rc || !parts[part].id)
        return rc;
    if (!is_id(id))
        return fields_refuse(why, why_size, "an id has letters, digits, '_' and '-'");
    if (strcmp(id, fields_text(value, parts[part].id, "")) != 0)
        return fields_refuse(why, why_size,
                             "the id of the path and that of the body differ");
    return part == CONFIG_DRIVES ? check_drive(c, value, id, why, why_size)
                                 : check_net(value, why, why_size);
}

/* --- keeping --- */

static int keep_one(struct config *c, enum config_part part, const char *id, cJSON *copy,
                    char *why, size_t why_size) {
    int at = place_of(c->part[part], parts[part].id, id);

    if (!c->part[part])
        c->part[part] = cJSON_CreateArray();
    if (at >= 0 && cJSON_ReplaceItemInArray(c->part[part], at, copy))
        return 0;
    if (at < 0 && cJSON_GetArraySize(c->part[part]) >= (int)parts[part].most) {
        cJSON_Delete(copy);
        return fields_refuse(why, why_size, "there are too many of these");
    }
    if (at < 0 && c->part[part] && cJSON_AddItemToArray(c->part[part], copy))
        return 0;
    cJSON_Delete(copy);
    snprintf(why, why_size, "out of memory");
    return -ENOMEM;
}

int config_put(struct config *c, enum config_part part, const char *id,
               const cJSON *value, char *why, size_t why_size) {
    int rc = check(c, part, id, value, why, why_size);
    cJSON *copy = rc ? NULL : cJSON_Duplicate(value, true);

    if (rc)
        return rc;
    if (!copy) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    if (parts[part].id)
        return keep_one(c, part, id, copy, why, why_size);
    cJSON_Delete(c->part[part]);
    c->part[part] = copy;
    return 0;
}

int config_patch_machine(struct config *c, const cJSON *value, char *why,
                         size_t why_size) {
    cJSON *whole = config_machine(c);
    const cJSON *v;
    int rc = whole ? 0 : -ENOMEM;

    if (!cJSON_IsObject(value) || !value->child)
        rc = fields_refuse(why, why_size,
                           "the body must be an object that says something");
    cJSON_ArrayForEach(v, value) {
        if (!rc)
            rc = fields_set(whole, v->string, cJSON_Duplicate(v, true));
    }
    if (rc == -ENOMEM)
        snprintf(why, why_size, "out of memory");
    if (!rc)
        rc = config_put(c, CONFIG_MACHINE, NULL, whole, why, why_size);
    cJSON_Delete(whole);
    return rc;
}

static const struct field drive_update[] = {
    {"drive_id", FIELD_TEXT, true, 1, 64, NULL},
    {"path_on_host", FIELD_TEXT, false, 1, PATH_MOST, NULL},
    {"rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};
static const struct field net_update[] = {
    {"iface_id", FIELD_TEXT, true, 1, 64, NULL},
    {"rx_rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {"tx_rate_limiter", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};

static int check_update(enum config_part part, const cJSON *there, const cJSON *value,
                        const char *id, char *why, size_t why_size) {
    int rc = fields_check(value, part == CONFIG_DRIVES ? drive_update : net_update, why,
                          why_size);

    if (!rc)
        rc = config_limits_check(part, value, why, why_size);
    if (rc)
        return rc;
    if (strcmp(id, fields_text(value, parts[part].id, "")) != 0)
        return fields_refuse(why, why_size,
                             "the id of the path and that of the body differ");
    if (!there)
        return fields_refuse(why, why_size, "there is no device of this id");
    return 0;
}

/* The drive's file, which the machine may refuse: true if it has, and all is as it was.
 */
static bool patch_file(struct config *c, cJSON *drive, const cJSON *value,
                       const struct config_teller *t, int *rc) {
    const char *path = fields_text(value, "path_on_host", NULL);
    cJSON *line = path ? cJSON_CreateObject() : NULL;
    char *text = NULL;
    bool told = true;

    if (!path)
        return false;
    if (cJSON_AddStringToObject(line, "command", "drive") &&
        cJSON_AddNumberToObject(line, "number", number_of(c, CONFIG_DRIVES, drive)) &&
        cJSON_AddStringToObject(line, "drive", fields_text(drive, "drive_id", "")) &&
        cJSON_AddStringToObject(line, "path", path))
        text = cJSON_PrintUnformatted(line);
    cJSON_Delete(line);
    if (text)
        told = t->tell(t->arg, text);
    *rc = !text  ? -ENOMEM
          : told ? fields_set(drive, "path_on_host", cJSON_CreateString(path))
                 : 0;
    cJSON_free(text);
    return !told;
}

int config_patch(struct config *c, enum config_part part, const char *id,
                 const cJSON *value, const struct config_teller *t, char *why,
                 size_t why_size) {
    int at = place_of(c->part[part], parts[part].id, id);
    cJSON *there = at < 0 ? NULL : cJSON_GetArrayItem(c->part[part], at);
    int rc = check_update(part, there, value, id, why, why_size);

    if (rc || (part == CONFIG_DRIVES && patch_file(c, there, value, t, &rc)))
        return rc;
    if (!rc)
        rc = config_limits_patch(part, there, value);
    if (rc)
        snprintf(why, why_size, "out of memory");
    else
        config_limits_tell(part, number_of(c, part, there), value, t);
    return rc;
}

void config_limits(const struct config *c, const struct config_teller *t) {
    config_limits_tell(CONFIG_ENTROPY, 0, c->part[CONFIG_ENTROPY], t);
    config_limits_tell(CONFIG_SERIAL, 0, c->part[CONFIG_SERIAL], t);
    for (unsigned part = CONFIG_DRIVES; part < CONFIG_ALL; part++) {
        const cJSON *value;

        cJSON_ArrayForEach(value, c->part[part])
            config_limits_tell(part, number_of(c, part, value), value, t);
    }
}

static int load_part(struct config *c, unsigned part, const cJSON *value, char *why,
                     size_t why_size) {
    const cJSON *one;
    int rc = 0;

    if (!parts[part].id)
        return config_put(c, part, NULL, value, why, why_size);
    if (!cJSON_IsArray(value))
        return fields_refuse(why, why_size, "drives and network interfaces are arrays");
    cJSON_ArrayForEach(one, value) {
        rc =
            config_put(c, part, fields_text(one, parts[part].id, ""), one, why, why_size);
        if (rc)
            break;
    }
    return rc;
}

/* What may be named without there being one here. */
static bool is_nothing(const cJSON *v) {
    return cJSON_IsNull(v) ||
           (!strcmp(v->string, "pmem") && cJSON_IsArray(v) && !v->child);
}

static unsigned part_of(const char *name) {
    unsigned part = 0;

    while (part < CONFIG_ALL && strcmp(parts[part].name, name) != 0)
        part++;
    return part;
}

int config_load(struct config *c, const char *text, char *why, size_t why_size) {
    cJSON *whole = fields_parse(text, strlen(text), why, why_size);
    const cJSON *v, *mmds = NULL;
    int rc = whole ? 0 : -EINVAL;

    cJSON_ArrayForEach(v, whole) {
        unsigned part = part_of(v->string);

        if (rc || is_nothing(v))
            continue;
        if (part == CONFIG_MMDS)
            mmds = v;
        else if (part < CONFIG_ALL)
            rc = load_part(c, part, v, why, why_size);
        else
            rc = fields_refuse(why, why_size, "there is a part that is not known here");
    }
    if (!rc && mmds)
        rc = load_part(c, CONFIG_MMDS, mmds, why, why_size);
    cJSON_Delete(whole);
    return rc;
}

void config_free(struct config *c) {
    for (unsigned n = 0; n < CONFIG_ALL; n++) {
        cJSON_Delete(c->part[n]);
        c->part[n] = NULL;
    }
}

/* --- showing --- */

cJSON *config_machine(const struct config *c) {
    const cJSON *m = c->part[CONFIG_MACHINE];
    cJSON *o = cJSON_CreateObject();
    bool good =
        o &&
        cJSON_AddNumberToObject(o, "vcpu_count",
                                (double)fields_number(m, "vcpu_count", 1)) &&
        cJSON_AddNumberToObject(
            o, "mem_size_mib",
            (double)fields_number(m, "mem_size_mib", CONFIG_DEFAULT_MIB)) &&
        cJSON_AddBoolToObject(o, "smt", fields_bool(m, "smt")) &&
        cJSON_AddBoolToObject(o, "track_dirty_pages",
                              fields_bool(m, "track_dirty_pages")) &&
        cJSON_AddStringToObject(o, "huge_pages", fields_text(m, "huge_pages", "None"));

    if (good)
        return o;
    cJSON_Delete(o);
    return NULL;
}

cJSON *config_show(const struct config *c) {
    cJSON *all = cJSON_CreateObject();

    for (unsigned n = 0; all && n < CONFIG_ALL; n++) {
        cJSON *v = n == CONFIG_MACHINE ? config_machine(c)
                   : c->part[n]        ? cJSON_Duplicate(c->part[n], true)
                   : parts[n].id       ? cJSON_CreateArray()
                                       : cJSON_CreateNull();

        if (v && cJSON_AddItemToObject(all, parts[n].name, v))
            continue;
        cJSON_Delete(v);
        cJSON_Delete(all);
        return NULL;
    }
    return all;
}

int config_complete(const struct config *c, char *why, size_t why_size) {
    return c->part[CONFIG_BOOT]
               ? 0
               : fields_refuse(why, why_size, "there is no boot source yet");
}
