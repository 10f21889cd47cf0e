/* Strings, notes, and options that are lists of NAME=VALUE, or JSON; see qemu_int.h. */
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "qemu/qemu_int.h"

struct qemu_string {
    struct qemu_string *next;
    char text[];
};

/* --- strings --- */

static char *make(struct qemu *q, const char *format, va_list args) {
    static char nothing[1];
    struct qemu_string *s;
    va_list again;
    int len;

    va_copy(again, args);
    len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    s = len < 0 ? NULL : malloc(sizeof(*s) + (size_t)len + 1);
    if (!s) {
        q->failed = true;
        return nothing;
    }
    vsnprintf(s->text, (size_t)len + 1, format, args);
    s->next = q->strings;
    q->strings = s;
    return s->text;
}

char *qemu_format(struct qemu *q, const char *format, ...) {
    va_list args;
    char *text;

    va_start(args, format);
    text = make(q, format, args);
    va_end(args);
    return text;
}

void qemu_free_strings(struct qemu *q) {
    while (q->strings) {
        struct qemu_string *s = q->strings;

        q->strings = s->next;
        free(s);
    }
}

const char *qemu_escape(struct qemu *q, const char *text) {
    char *out = qemu_format(q, "%s%s", text, text), *at = out; /* long enough */

    if (q->failed)
        return out;
    for (; *text; text++) {
        if (*text == ',')
            *at++ = ',';
        *at++ = *text;
    }
    *at = 0;
    return out;
}

bool qemu_refuse(struct qemu *q, const char *format, ...) {
    va_list args;

    if (q->why[0])
        return false;
    va_start(args, format);
    vsnprintf(q->why, sizeof(q->why), format, args);
    va_end(args);
    return false;
}

void qemu_note(struct qemu *q, const char *format, ...) {
    va_list args;
    char *text;

    va_start(args, format);
    text = make(q, format, args);
    va_end(args);
    for (size_t n = 0; n < q->note_count; n++)
        if (!strcmp(q->notes[n], text))
            return;
    if (q->note_count < QEMU_NOTES)
        q->notes[q->note_count++] = text;
}

/* --- lists as JSON --- */

#define JSON_DEPTH 8u

static const char *json_text(struct qemu *q, const cJSON *value) {
    if (cJSON_IsString(value))
        return qemu_format(q, "%s", value->valuestring);
    if (cJSON_IsBool(value))
        return cJSON_IsTrue(value) ? "on" : "off";
    if (cJSON_IsNumber(value))
        return qemu_format(q, "%.15g", value->valuedouble);
    return "";
}

/* The members of O, those of objects in it as OUTER.NAME. */
static bool put_members(struct qemu *q, struct qemu_list *l, const cJSON *o,
                        const char *outer, unsigned depth) {
    const cJSON *value;

    cJSON_ArrayForEach(value, o) {
        const char *name = qemu_format(q, "%s%s%s", outer, *outer ? "." : "",
                                       value->string ? value->string : "");

        if (cJSON_IsObject(value) && depth < JSON_DEPTH) {
            if (!put_members(q, l, value, name, depth + 1))
                return false;
            continue;
        }
        if (l->count == QEMU_PAIRS)
            return qemu_refuse(q, "%s has more than %u parts", l->option, QEMU_PAIRS);
        if (cJSON_IsObject(value) || cJSON_IsArray(value))
            return qemu_refuse(q, "%s: bivisor has nothing for a list in '%s'", l->option,
                               name);
        l->pair[l->count++] =
            (struct qemu_pair){.name = name, .value = json_text(q, value)};
    }
    return true;
}

/* What stands first in a list has a name in JSON. */
static void take_head(struct qemu_list *l) {
    static const char *const names[] = {"driver", "qom-type", "fsdriver"};

    for (size_t n = 0; n < ARRAY_SIZE(names) && !l->head; n++)
        l->head = qemu_value(l, names[n]);
}

static bool split_json(struct qemu *q, struct qemu_list *l, const char *text,
                       const char *implied) {
    cJSON *o = cJSON_Parse(text);
    bool good = cJSON_IsObject(o)
                    ? put_members(q, l, o, "", 0)
                    : qemu_refuse(q, "%s: this is no JSON: %s", l->option, text);

    cJSON_Delete(o);
    if (good && !implied)
        take_head(l);
    return good;
}

/* --- lists --- */

/* A name without a value switches on; `noNAME`, off. */
static void put_switch(struct qemu_pair *p, const char *name) {
    static const char *const negated[] = {"nowait", "nodelay"};

    *p = (struct qemu_pair){.name = name, .value = "on"};
    for (size_t n = 0; n < ARRAY_SIZE(negated); n++)
        if (!strcmp(name, negated[n]))
            *p = (struct qemu_pair){.name = name + 2, .value = "off"};
}

bool qemu_split(struct qemu *q, struct qemu_list *l, const char *option, const char *text,
                const char *implied) {
    char *part = qemu_format(q, "%s", text), *rest;
    bool first = true;

    *l = (struct qemu_list){.option = option};
    if (*text == '{')
        return split_json(q, l, text, implied);
    for (; part && !q->failed; part = rest, first = false) {
        char *value;

        rest = text_cut(part);
        value = strchr(part, '=');
        if (!*part && !(first && !rest))
            continue;
        if (first && !implied) {
            l->head = part;
            continue;
        }
        if (l->count == QEMU_PAIRS)
            return qemu_refuse(q, "%s has more than %u parts", option, QEMU_PAIRS);
        if (value)
            *value++ = 0;
        if (value)
            l->pair[l->count++] = (struct qemu_pair){.name = part, .value = value};
        else if (first)
            l->pair[l->count++] = (struct qemu_pair){.name = implied, .value = part};
        else
            put_switch(&l->pair[l->count++], part);
    }
    return true;
}

const char *qemu_value(struct qemu_list *l, const char *name) {
    const char *value = NULL;

    for (size_t n = 0; n < l->count; n++) {
        if (strcmp(l->pair[n].name, name) != 0)
            continue;
        l->pair[n].used = true;
        value = l->pair[n].value; /* the last one counts */
    }
    return value;
}

bool qemu_switch(struct qemu *q, struct qemu_list *l, const char *name, bool otherwise,
                 bool *out) {
    static const char *const yes[] = {"on", "yes", "true", "y"};
    static const char *const no[] = {"off", "no", "false", "n"};
    const char *value = qemu_value(l, name);

    *out = otherwise;
    if (!value)
        return true;
    for (size_t n = 0; n < ARRAY_SIZE(yes); n++) {
        if (!strcmp(value, yes[n]) || !strcmp(value, no[n])) {
            *out = !strcmp(value, yes[n]);
            return true;
        }
    }
    return qemu_refuse(q, "%s: %s wants on or off, not '%s'", l->option, name, value);
}

bool qemu_parse_number(const char *text, uint64_t *out) {
    char *rest;

    *out = strtoull(text, &rest, 0);
    return *text >= '0' && *text <= '9' && !*rest;
}

bool qemu_number(struct qemu *q, struct qemu_list *l, const char *name, int otherwise,
                 int max, int *out) {
    const char *value = qemu_value(l, name);
    uint64_t n;

    *out = otherwise;
    if (!value)
        return true;
    if (!qemu_parse_number(value, &n) || n > (uint64_t)max)
        return qemu_refuse(q, "%s: %s wants a number from 0 to %d, not '%s'", l->option,
                           name, max, value);
    *out = (int)n;
    return true;
}

/* NAME is in LIST, where a space follows each; one that ends with a star stands for all
 * that begin so. */
static bool listed(const char *list, const char *name) {
    size_t len = strlen(name);

    while (*list) {
        const char *end = strchr(list, ' ');
        size_t n = (size_t)(end - list);

        if (list[n - 1] == '*' ? len >= n - 1 && !memcmp(list, name, n - 1)
                               : len == n && !memcmp(list, name, n))
            return true;
        list = end + 1;
    }
    return false;
}

bool qemu_rest(struct qemu *q, struct qemu_list *l, const char *ignored) {
    for (size_t n = 0; n < l->count; n++) {
        const struct qemu_pair *p = &l->pair[n];

        if (!p->used && !listed(ignored, p->name))
            return qemu_refuse(q, "%s: bivisor has nothing for '%s=%s'", l->option,
                               p->name, p->value);
    }
    return true;
}

const char *qemu_port(struct qemu *q, const char *option, const char *host,
                      const char *port, bool listens) {
    size_t digits = port ? strspn(port, "0123456789") : 0;

    if (!digits || port[digits]) {
        qemu_refuse(q,
                    "%s: a TCP socket wants a host and a number for its port, not '%s'",
                    option, port ? port : "");
        return NULL;
    }
    if (!host || !*host) {
        if (listens)
            qemu_note(q, "%s: port %s is for this host alone; 0.0.0.0:%s is for all",
                      option, port, port);
        host = "127.0.0.1";
    } else if (!strcmp(host, "localhost")) {
        host = "127.0.0.1";
    } else if (strspn(host, "0123456789abcdefABCDEF.:[]") != strlen(host)) {
        qemu_refuse(q, "%s: a host is given by its address, not as '%s'", option, host);
        return NULL;
    }
    return qemu_format(q, strchr(host, ':') && *host != '[' ? "tcp:[%s]:%s" : "tcp:%s:%s",
                       host, port);
}
