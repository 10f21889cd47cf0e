/*
 * What clients of the API may send: a request of HTTP, whole or in pieces, and its body
 * as a part of a machine. A request that is whole lies in the buffer and is within its
 * bounds, and more bytes behind it change nothing; what is kept of a configuration can be
 * shown, taken again, and made into arguments. The same bytes are a guest's, who asks the
 * metadata service: what is taken of them is answered.
 */
#include <cjson/cJSON.h>

#include "api/config.h"
#include "api/fields.h"
#include "api/http.h"
#include "api/mmds.h"
#include "fuzz/fuzz.h"

static void look(const char *buf, size_t len, struct http_request *q,
                 enum http_state *state) {
    const char *why = NULL;
    int status = 0;

    *state = http_parse(buf, len, HTTP_BODY_MAX, q, &why, &status);
    HOLDS((*state == HTTP_BAD) == (why != NULL));
    HOLDS(*state != HTTP_BAD || (status >= 400 && status < 600));
    if (*state != HTTP_WHOLE)
        return;
    HOLDS(q->size <= len && q->body_len <= HTTP_BODY_MAX);
    HOLDS(q->body + q->body_len == buf + q->size);
    HOLDS(q->path[0] == '/' && *q->method);
}

static void configure(const char *text) {
    struct config c = {0}, again = {0};
    char why[512] = "";
    int count = 0;

    if (!config_load(&c, text, why, sizeof(why))) {
        cJSON *shown = config_show(&c);
        char *json = cJSON_Print(shown);

        HOLDS(json && !config_load(&again, json, why, sizeof(why)));
        free(json);
        cJSON_Delete(shown);
    } else {
        HOLDS(*why);
    }
    config_words_free(config_words(&c, false, &count));
    HOLDS(count > 0);
    config_free(&again);
    config_free(&c);
}

static void ask_for_metadata(const char *buf, size_t size) {
    struct mmds m = {.limit = 1000};
    struct net_service_answer a = {0};
    char why[512];
    cJSON *store = cJSON_Parse("{\"a\":{\"b\":\"c\"},\"d\":[1]}");
    size_t used;

    HOLDS(!mmds_put(&m, store, why, sizeof(why)));
    cJSON_Delete(store);
    used = mmds_request(&m, buf, size, &a);
    HOLDS(used <= size && !used == !a.bytes);
    HOLDS(!used || (a.len > 12 && !memcmp(a.bytes, "HTTP/1.1 ", 9)));
    free(a.bytes);
    mmds_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *buf = malloc(size + 1); /* of its own, so that a byte behind it is seen */
    struct http_request q, part;
    enum http_state state, before;

    memcpy(buf, data, size);
    look(buf, size, &q, &state);
    ask_for_metadata(buf, size);
    if (size) {
        char *shorter = malloc(size);

        memcpy(shorter, data, size - 1);
        look(shorter, size - 1, &part, &before);
        HOLDS(before == HTTP_MORE || state == before);
        free(shorter);
    }
    buf[size] = 0;
    configure(buf);
    free(buf);
    return 0;
}
