/* Resources of the balloon: a target, and what the guest's driver tells. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/api_int.h"
#include "api/fields.h"

void api_balloon_get(struct call *c) {
    const cJSON *balloon = c->api->config.part[CONFIG_BALLOON];

    if (balloon)
        call_json(c, 200, cJSON_Duplicate(balloon, true));
    else
        call_refuse(c, "there is no balloon");
}

static void set_balloon(struct call *c, int64_t mib) {
    char line[64];

    snprintf(line, sizeof(line), "{\"command\":\"balloon\",\"mib\":%lld}",
             (long long)mib);
    call_do(c, line);
}

static const struct field balloon_update[] = {
    {"amount_mib", FIELD_NUMBER, true, 0, 1 << 20, NULL}, {0}};

void api_balloon_patch(struct call *c) {
    cJSON *balloon = c->api->config.part[CONFIG_BALLOON];
    int64_t mib;

    if (fields_check(c->body, balloon_update, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    if (!balloon) {
        call_refuse(c, "there is no balloon");
        return;
    }
    mib = fields_number(c->body, "amount_mib", 0);
    cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(balloon, "amount_mib"),
                         (double)mib);
    if (c->api->machine)
        set_balloon(c, mib);
    else
        c->answer->status = 204;
}

/* What the guest's driver tells, by the names that it has there. */
static const struct {
    const char *ours, *theirs;
} balloon_stats[] = {
    {"swap_in", "swap_in"},
    {"swap_out", "swap_out"},
    {"major_faults", "major_faults"},
    {"minor_faults", "minor_faults"},
    {"free", "free_memory"},
    {"total", "total_memory"},
    {"available", "available_memory"},
    {"caches", "disk_caches"},
    {"huge_allocated", "hugetlb_allocations"},
    {"huge_failed", "hugetlb_failures"},
};

void api_balloon_get_statistics(struct call *c) {
    const cJSON *balloon = c->api->config.part[CONFIG_BALLOON];
    double mib = (double)fields_number(balloon, "amount_mib", 0), pages;
    cJSON *answer, *o;

    if (!fields_number(balloon, "stats_polling_interval_s", 0)) {
        call_refuse(c, "the balloon was not made with statistics");
        return;
    }
    answer = call_ask(c, "{\"command\":\"balloon\"}");
    if (!answer)
        return;
    pages = cJSON_GetNumberValue(cJSON_GetObjectItem(answer, "pages"));
    o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "target_pages", mib * 256);
    cJSON_AddNumberToObject(o, "actual_pages", pages);
    cJSON_AddNumberToObject(o, "target_mib", mib);
    cJSON_AddNumberToObject(o, "actual_mib", (double)((uint64_t)pages / 256));
    for (size_t n = 0; n < ARRAY_SIZE(balloon_stats); n++) {
        const cJSON *v = cJSON_GetObjectItem(answer, balloon_stats[n].ours);

        if (cJSON_IsNumber(v))
            cJSON_AddNumberToObject(o, balloon_stats[n].theirs, v->valuedouble);
    }
    cJSON_Delete(answer);
    call_json(c, 200, o);
}

static const struct field statistics_update[] = {
    {"stats_polling_interval_s", FIELD_NUMBER, true, 0, 65535, NULL}, {0}};

/* The guest is asked whenever somebody looks: the interval says whether it may be. */
void api_balloon_patch_statistics(struct call *c) {
    cJSON *balloon = c->api->config.part[CONFIG_BALLOON];
    int64_t was = fields_number(balloon, "stats_polling_interval_s", 0), now;

    if (fields_check(c->body, statistics_update, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    now = fields_number(c->body, "stats_polling_interval_s", 0);
    if (!balloon || (c->api->machine && !was != !now)) {
        call_refuse(c, balloon
                           ? "a running machine's statistics stay as they are, on or off"
                           : "there is no balloon");
        return;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(balloon, "stats_polling_interval_s");
    cJSON_AddNumberToObject(balloon, "stats_polling_interval_s", (double)now);
    c->answer->status = 204;
}

void api_balloon_begin(struct api *a) {
    int64_t mib = fields_number(a->config.part[CONFIG_BALLOON], "amount_mib", 0);
    struct api_answer unseen = {.status = 500};
    struct call c = {.api = a, .answer = &unseen};

    if (mib)
        set_balloon(&c, mib);
    free(unseen.body);
}
