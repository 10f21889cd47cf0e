/* Resources of the metadata service, and where it is; the service itself is mmds.c's. */
#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_int.h"
#include "api/fields.h"

void api_mmds_get(struct call *c) {
    const cJSON *store = c->api->mmds.store;

    call_json(c, 200, store ? cJSON_Duplicate(store, true) : cJSON_CreateObject());
}

/* Too much has a status of its own, as there. */
static void changed(struct call *c, int rc) {
    call_done(c, rc);
    if (rc == -E2BIG)
        c->answer->status = 413;
}

void api_mmds_put(struct call *c) {
    changed(c, mmds_put(&c->api->mmds, c->body, c->why, sizeof(c->why)));
}

void api_mmds_patch(struct call *c) {
    changed(c, mmds_patch(&c->api->mmds, c->body, c->why, sizeof(c->why)));
}

void api_mmds_configure(struct call *c) {
    call_done(c, config_put(&c->api->config, CONFIG_MMDS, NULL, c->body, c->why,
                            sizeof(c->why)));
}

int api_put_metadata(struct api *a, const char *text, char *why, size_t why_size) {
    cJSON *value = fields_parse(text, strlen(text), why, why_size);
    int rc = value ? mmds_put(&a->mmds, value, why, why_size) : -EINVAL;

    cJSON_Delete(value);
    return rc;
}

int api_serve_metadata(struct api *a, struct net *const *nets, unsigned count) {
    const struct net_service_user user = {mmds_request, &a->mmds};
    const cJSON *config = a->config.part[CONFIG_MMDS], *id;
    uint8_t address[4] = {0};
    int rc = 0;

    if (!config)
        return 0;
    a->mmds.sessions = !strcmp(fields_text(config, "version", "V1"), "V2");
    a->mmds.plain = fields_bool(config, "imds_compat");
    inet_pton(AF_INET, fields_text(config, "ipv4_address", MMDS_ADDRESS), address);
    cJSON_ArrayForEach(id,
                       cJSON_GetObjectItemCaseSensitive(config, "network_interfaces")) {
        unsigned n = config_number(&a->config, CONFIG_NETS, id->valuestring);

        if (!rc && n < count)
            rc = net_serve(nets[n], address, MMDS_PORT, &user);
    }
    return rc;
}
