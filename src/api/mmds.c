/* The metadata service's store and answers; see mmds.h. */
#include "api/mmds.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/http.h"
#include "base/os.h"

#define TTL_MOST 21600u /* seconds of a session */

void mmds_free(struct mmds *m) {
    cJSON_Delete(m->store);
    m->store = NULL;
}

/* --- the store --- */

/* Takes VALUE over; NULL: there was no memory for it. */
static int keep(struct mmds *m, cJSON *value, char *why, size_t why_size) {
    char *text = value ? cJSON_PrintUnformatted(value) : NULL;
    size_t len = text ? strlen(text) : 0;

    cJSON_free(text);
    if (!text || len > m->limit) {
        cJSON_Delete(value);
        snprintf(why, why_size,
                 text ? "the metadata would be longer than the store's %zu bytes"
                      : "out of memory",
                 m->limit);
        return text ? -E2BIG : -ENOMEM;
    }
    cJSON_Delete(m->store);
    m->store = value;
    return 0;
}

int mmds_put(struct mmds *m, const cJSON *value, char *why, size_t why_size) {
    return keep(m, cJSON_Duplicate(value, true), why, why_size);
}

/* As deep as objects may be that come here (control_check()). */
static bool merge(cJSON *to, const cJSON *from) {
    const cJSON *v;

    cJSON_ArrayForEach(v, from) {
        cJSON *there = cJSON_GetObjectItemCaseSensitive(to, v->string);

        if (cJSON_IsNull(v)) {
            cJSON_DeleteItemFromObjectCaseSensitive(to, v->string);
            continue;
        }
        if (!cJSON_IsObject(v)) {
            if (fields_set(to, v->string, cJSON_Duplicate(v, true)))
                return false;
            continue;
        }
        if (!cJSON_IsObject(there) && fields_set(to, v->string, cJSON_CreateObject()))
            return false;
        if (!merge(cJSON_GetObjectItemCaseSensitive(to, v->string), v))
            return false;
    }
    return true;
}

int mmds_patch(struct mmds *m, const cJSON *value, char *why, size_t why_size) {
    cJSON *copy;

    if (!m->store) {
        snprintf(why, why_size, "there is no metadata yet that could be changed");
        return -EINVAL;
    }
    copy = cJSON_Duplicate(m->store, true);
    if (copy && !merge(copy, value)) {
        cJSON_Delete(copy);
        copy = NULL;
    }
    return keep(m, copy, why, why_size);
}

/* --- sessions --- */

static bool make_token(struct mmds *m, unsigned seconds, const char **out) {
    uint64_t now = os_monotonic_ns();
    uint8_t bytes[MMDS_TOKEN / 2];
    unsigned oldest = 0;

    if (os_random(bytes, sizeof(bytes)) != sizeof(bytes))
        return false;
    for (unsigned n = 1; n < MMDS_TOKENS; n++)
        if (m->token[n].ends < m->token[oldest].ends)
            oldest = n;
    for (unsigned n = 0; n < sizeof(bytes); n++)
        snprintf(m->token[oldest].text + 2 * n, 3, "%02x", bytes[n]);
    m->token[oldest].ends = now + seconds * 1000000000ull;
    *out = m->token[oldest].text;
    return true;
}

static bool is_token(const struct mmds *m, const char *text) {
    uint64_t now = os_monotonic_ns();

    for (unsigned n = 0; n < MMDS_TOKENS; n++)
        if (m->token[n].ends > now && !strcmp(m->token[n].text, text))
            return true;
    return false;
}

/* --- answers --- */

struct reply {
    int status;
    const char *type;
    char *body; /* malloc()ed */
    char more[128];
};

static void say(struct reply *r, int status, const char *text) {
    r->status = status;
    r->type = "text/plain";
    r->body = strdup(text);
}

/* The value that PATH points to (RFC 6901, "JSON Pointer"); slashes that are more than
 * one, or at the end, mean nothing. */
static const cJSON *find(const cJSON *value, const char *path) {
    char name[HTTP_PATH_MAX];

    while (value) {
        size_t len = 0;

        while (*path == '/')
            path++;
        if (!*path)
            return value;
        for (; *path && *path != '/'; path++) {
            if (path[0] == '~' && (path[1] == '0' || path[1] == '1'))
                name[len++] = *++path == '0' ? '~' : '/';
            else
                name[len++] = *path;
        }
        name[len] = 0;
        if (cJSON_IsArray(value))
            value = isdigit((unsigned char)*name) && len < 7 && (*name != '0' || len == 1)
                        ? cJSON_GetArrayItem(value, atoi(name))
                        : NULL;
        else
            value = cJSON_GetObjectItemCaseSensitive(value, name);
    }
    return NULL;
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

/* Names of OBJECT's members, a line each; those that have some of their own end with a
 * slash. The caller's; NULL: out of memory. */
static char *list_of(const cJSON *object) {
    size_t count = (size_t)cJSON_GetArraySize(object), len = 1, n = 0;
    const cJSON **sorted = malloc((count + 1) * sizeof(cJSON *)), *v;
    char *text, *to;

    cJSON_ArrayForEach(v, object) {
        len += strlen(v->string) + 2;
        if (sorted)
            sorted[n++] = v;
    }
    text = to = sorted ? malloc(len) : NULL;
    if (text) {
        qsort(sorted, count, sizeof(cJSON *), compare_names);
        *to = 0;
        for (n = 0; n < count; n++)
            to += sprintf(to, "%s%s%s", n ? "\n" : "", sorted[n]->string,
                          cJSON_IsObject(sorted[n]) ? "/" : "");
    }
    free(sorted);
    return text;
}

static void give(struct reply *r, const cJSON *value, bool json) {
    if (json) {
        r->status = 200;
        r->type = "application/json";
        r->body = cJSON_PrintUnformatted(value);
    } else if (cJSON_IsObject(value)) {
        say(r, 200, "");
        free(r->body);
        r->body = list_of(value);
    } else if (cJSON_IsString(value)) {
        say(r, 200, value->valuestring);
    } else {
        say(r, 501, "Cannot retrieve value. The value has an unsupported type.");
    }
}

/* The one of two names that a header's field has. */
static bool field(const struct http_request *q, const char *name, char *value,
                  size_t size) {
    char other[64];

    snprintf(other, sizeof(other), "X-aws-ec2-%s", name + 2);
    return http_field(q, name, value, size) || http_field(q, other, value, size);
}

static void refuse_path(struct reply *r, const struct http_request *q) {
    char text[HTTP_PATH_MAX + 32];

    snprintf(text, sizeof(text), "Resource not found: %s.", q->path);
    say(r, 404, text);
}

static void get(struct mmds *m, const struct http_request *q, struct reply *r) {
    char token[64], accept[128];
    const cJSON *value;
    bool has = field(q, "X-metadata-token", token, sizeof(token));

    if (m->sessions && !has) {
        say(r, 401,
            "No MMDS token provided. Use `X-metadata-token` or "
            "`X-aws-ec2-metadata-token` header to specify the session token.");
        return;
    }
    if (m->sessions && !is_token(m, token)) {
        say(r, 401, "MMDS token not valid.");
        return;
    }
    value = find(m->store, q->path);
    if (value)
        give(r, value,
             !m->plain && http_field(q, "Accept", accept, sizeof(accept)) &&
                 strcasestr(accept, "application/json"));
    else
        refuse_path(r, q);
}

/* Whole seconds of a session; 0: TEXT is none that may be. */
static unsigned seconds_of(const char *text) {
    unsigned long n = strspn(text, "0123456789") == strlen(text) && strlen(text) < 9
                          ? strtoul(text, NULL, 10)
                          : 0;

    return n <= TTL_MOST ? (unsigned)n : 0;
}

static void put(struct mmds *m, const struct http_request *q, struct reply *r) {
    char value[64];
    const char *token;
    unsigned ttl;

    if (strcmp(q->path, "/latest/api/token") != 0) {
        refuse_path(r, q);
        return;
    }
    if (http_field(q, "X-Forwarded-For", value, sizeof(value))) {
        say(r, 400, "Invalid header. Reason: X-Forwarded-For is not allowed.");
        return;
    }
    if (!field(q, "X-metadata-token-ttl-seconds", value, sizeof(value))) {
        say(r, 400,
            "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or "
            "`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's "
            "lifetime.");
        return;
    }
    ttl = seconds_of(value);
    if (!ttl) {
        say(r, 400,
            "Invalid time to live value provided for token. Please provide a value "
            "between 1 and 21600.");
        return;
    }
    if (!make_token(m, ttl, &token)) {
        say(r, 503, "there is no entropy for a token");
        return;
    }
    say(r, 200, token);
    snprintf(r->more, sizeof(r->more), "X-metadata-token-ttl-seconds: %u\r\n", ttl);
}

static void answer(struct mmds *m, const struct http_request *q, struct reply *r) {
    if (!strcmp(q->method, "GET")) {
        get(m, q, r);
    } else if (!strcmp(q->method, "PUT")) {
        put(m, q, r);
    } else {
        say(r, 405, "Not allowed HTTP method.");
        snprintf(r->more, sizeof(r->more), "Allow: GET, PUT\r\n");
    }
}

/* The bytes of R, whose body is freed. */
static void put_together(const struct reply *r, bool keep, struct net_service_answer *a) {
    size_t body = r->body ? strlen(r->body) : 0, len;
    char head[512];

    len = http_head(head, sizeof(head), r->status, r->type, body, r->more, keep);
    a->bytes = r->body ? malloc(len + body) : NULL;
    a->len = len + body;
    a->close = !keep;
    if (a->bytes) {
        memcpy(a->bytes, head, len);
        memcpy(a->bytes + len, r->body, body);
    }
    free(r->body);
}

size_t mmds_request(void *arg, const char *bytes, size_t len,
                    struct net_service_answer *a) {
    struct http_request q;
    struct reply r = {0};
    const char *why;
    int status;

    switch (http_parse(bytes, len, HTTP_BODY_MAX, &q, &why, &status)) {
    case HTTP_MORE:
        if (len < NET_SERVICE_REQUEST && q.size <= NET_SERVICE_REQUEST)
            return 0;
        say(&r, 413, "the request is too long");
        break;
    case HTTP_BAD:
        say(&r, status, why);
        break;
    default:
        answer(arg, &q, &r);
        put_together(&r, q.keep, a);
        return q.size;
    }
    put_together(&r, false, a);
    return len;
}
