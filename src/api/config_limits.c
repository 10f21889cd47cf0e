/* Rate limiters; see config_limits.h. */
#include "api/config_limits.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>

#include "api/fields.h"

static const struct field bucket_fields[] = {
    {"size", FIELD_NUMBER, true, 0, 1ll << 53, NULL},
    {"refill_time", FIELD_NUMBER, true, 0, 1000000000, NULL},
    {"one_time_burst", FIELD_NUMBER, false, 0, 1ll << 53, NULL},
    {0},
};
static const struct field limiter_fields[] = {
    {"bandwidth", FIELD_OBJECT, false, 0, 0, NULL},
    {"ops", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};

/* The members, and what the control command calls what they limit. */
static const struct limiter {
    enum config_part part;
    const char *name, *device, *bandwidth, *ops; /* OPS NULL: it is a bucket itself */
} limiters[] = {
    {CONFIG_DRIVES, "rate_limiter", "disk", "bytes", "operations"},
    {CONFIG_NETS, "rx_rate_limiter", "net", "in", "in-frames"},
    {CONFIG_NETS, "tx_rate_limiter", "net", "out", "out-frames"},
    {CONFIG_ENTROPY, "rate_limiter", "rng", "bytes", "operations"},
    {CONFIG_SERIAL, "rate_limiter", "serial", "bytes", NULL},
};

static int check_limiter(const struct limiter *l, const cJSON *value, char *why,
                         size_t why_size) {
    const cJSON *buckets = l->ops ? value : NULL, *bucket;
    int rc = fields_check(value, l->ops ? limiter_fields : bucket_fields, why, why_size);

    cJSON_ArrayForEach(bucket, buckets) {
        if (!rc && !cJSON_IsNull(bucket))
            rc = fields_check(bucket, bucket_fields, why, why_size);
    }
    return rc;
}

int config_limits_check(enum config_part part, const cJSON *value, char *why,
                        size_t why_size) {
    int rc = 0;

    for (size_t n = 0; n < ARRAY_SIZE(limiters) && !rc; n++) {
        const cJSON *l = cJSON_GetObjectItemCaseSensitive(value, limiters[n].name);

        if (limiters[n].part == part && cJSON_IsObject(l))
            rc = check_limiter(&limiters[n], l, why, why_size);
    }
    return rc;
}

static void tell_bucket(const char *device, unsigned number, const char *what,
                        const cJSON *bucket, const struct config_teller *t) {
    long long size = (long long)fields_number(bucket, "size", 0);
    long long ms = (long long)fields_number(bucket, "refill_time", 0);
    char line[256];

    if (!cJSON_IsObject(bucket))
        return;
    if (size && ms)
        snprintf(line, sizeof(line),
                 "{\"command\":\"limit\",\"device\":\"%s%u\",\"what\":\"%s\","
                 "\"amount\":%lld,\"ms\":%lld,\"burst\":%lld,\"once\":%lld}",
                 device, number, what, size, ms, size,
                 (long long)fields_number(bucket, "one_time_burst", 0));
    else
        snprintf(line, sizeof(line),
                 "{\"command\":\"limit\",\"device\":\"%s%u\",\"what\":\"%s\","
                 "\"amount\":0}",
                 device, number, what);
    t->tell(t->arg, line);
}

void config_limits_tell(enum config_part part, unsigned number, const cJSON *value,
                        const struct config_teller *t) {
    for (size_t n = 0; n < ARRAY_SIZE(limiters); n++) {
        const struct limiter *l = &limiters[n];
        const cJSON *o = cJSON_GetObjectItemCaseSensitive(value, l->name);

        if (l->part != part)
            continue;
        if (!l->ops) {
            tell_bucket(l->device, number, l->bandwidth, o, t);
            continue;
        }
        tell_bucket(l->device, number, l->bandwidth,
                    cJSON_GetObjectItemCaseSensitive(o, "bandwidth"), t);
        tell_bucket(l->device, number, l->ops, cJSON_GetObjectItemCaseSensitive(o, "ops"),
                    t);
    }
}

/* Buckets of FROM's limiter in the place of TO's. */
static int patch_limiter(cJSON *to, const char *name, const cJSON *from) {
    cJSON *limiter = cJSON_GetObjectItemCaseSensitive(to, name);
    const cJSON *bucket;
    int rc = 0;

    if (!cJSON_IsObject(limiter))
        return fields_set(to, name, cJSON_Duplicate(from, true));
    cJSON_ArrayForEach(bucket, from) {
        if (!rc && !cJSON_IsNull(bucket))
            rc = fields_set(limiter, bucket->string, cJSON_Duplicate(bucket, true));
    }
    return rc;
}

int config_limits_patch(enum config_part part, cJSON *to, const cJSON *value) {
    int rc = 0;

    for (size_t n = 0; n < ARRAY_SIZE(limiters) && !rc; n++) {
        const cJSON *l = cJSON_GetObjectItemCaseSensitive(value, limiters[n].name);

        if (limiters[n].part == part && cJSON_IsObject(l))
            rc = patch_limiter(to, limiters[n].name, l);
    }
    return rc;
}
