/*
 * A line becomes a request, the request an answer; see control.h.
 *
 * Order: the line is checked (check.c), parsed, its `id` taken so that whatever is wrong
 * with the rest can be said with it, the command found, its arguments held against the
 * command's list; and only then is the command called.
 */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "base/log.h"
#include "control/control_int.h"

#define WHY_SIZE 512
#define ID_MAX 128   /* bytes of a text */
#define SHOWN_MAX 32 /* bytes of a name that is told back */

struct control_request {
    const struct control_command *command;
    const cJSON *object; /* the client's */
    cJSON *answer;
    bool refused, no_memory;
    void (*done)(void *arg, char *text); /* NULL: nobody waits */
    void *done_arg;
    struct control_request *later; /* what goes on as this one */
    char why[WHY_SIZE];
};

/* --- what a command is given, and gives --- */

static const cJSON *member(const struct control_request *r, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(r->object, name);
}

int64_t control_number(const struct control_request *r, const char *name,
                       int64_t otherwise) {
    const cJSON *value = member(r, name);

    return value ? (int64_t)value->valuedouble : otherwise;
}

bool control_bool(const struct control_request *r, const char *name, bool otherwise) {
    const cJSON *value = member(r, name);

    return value ? cJSON_IsTrue(value) : otherwise;
}

const char *control_text(const struct control_request *r, const char *name,
                         const char *otherwise) {
    const cJSON *value = member(r, name);

    return value ? value->valuestring : otherwise;
}

void control_put_bytes(struct control_request *r, const char *name, const char *bytes,
                       size_t len) {
    char *text = check_make_text(bytes, len);

    control_put(r, name, text ? cJSON_CreateString(text) : NULL);
    free(text);
}

void control_put(struct control_request *r, const char *name, struct cJSON *value) {
    if (value && cJSON_AddItemToObject(r->answer, name, value))
        return;
    cJSON_Delete(value);
    r->no_memory = true;
}

void control_put_number(struct control_request *r, const char *name, double value) {
    control_put(r, name, cJSON_CreateNumber(value));
}

void control_put_bool(struct control_request *r, const char *name, bool value) {
    control_put(r, name, cJSON_CreateBool(value));
}

void control_put_text(struct control_request *r, const char *name, const char *text) {
    control_put(r, name, cJSON_CreateString(text));
}

void control_refuse(struct control_request *r, const char *format, ...) {
    va_list args;

    if (r->refused)
        return;
    r->refused = true;
    va_start(args, format);
    vsnprintf(r->why, sizeof(r->why), format, args);
    va_end(args);
}

/* --- the request --- */

/* It is told back as it is: a number that a double holds, or a text. */
static void take_id(struct control_request *r) {
    const cJSON *id = member(r, "id");
    bool good;

    if (!id)
        return;
    good = cJSON_IsNumber(id) ? fabs(id->valuedouble) <= (double)CONTROL_NUMBER_MAX
                              : cJSON_IsString(id) && strlen(id->valuestring) <= ID_MAX;
    if (!good)
        control_refuse(r, "'id' must be a number or a text of at most %d bytes", ID_MAX);
    else
        control_put(r, "id", cJSON_Duplicate(id, false));
}

static const struct control_command *find(const struct control_table *t, const char *name,
                                          void **arg) {
    for (const struct control_command *c = control_help; c->name; c++) {
        *arg = (void *)t;
        if (!strcmp(c->name, name))
            return c;
    }
    for (size_t n = 0; n < t->count; n++) {
        *arg = t->part[n].arg;
        for (const struct control_command *c = t->part[n].commands; c->name; c++)
            if (!strcmp(c->name, name))
                return c;
    }
    return NULL;
}

static void *take_command(struct control_request *r, const struct control_table *t) {
    const cJSON *name = member(r, "command");
    void *arg = NULL;

    if (r->refused)
        return NULL;
    if (!cJSON_IsString(name)) {
        control_refuse(r, "a request must have a text 'command'");
        return NULL;
    }
    r->command = find(t, name->valuestring, &arg);
    if (!r->command && strlen(name->valuestring) <= SHOWN_MAX)
        control_refuse(r, "there is no command '%s'; 'help' lists them",
                       name->valuestring);
    else if (!r->command)
        control_refuse(r, "there is no such command; 'help' lists them");
    return arg;
}

static bool number_fits(const cJSON *value, const struct control_arg *a) {
    double v = value->valuedouble;

    return cJSON_IsNumber(value) && v == floor(v) && v >= (double)a->min &&
           v <= (double)a->max && fabs(v) <= (double)CONTROL_NUMBER_MAX;
}

static bool text_fits(const cJSON *value, const struct control_arg *a) {
    size_t len = cJSON_IsString(value) ? strlen(value->valuestring) : 0;

    return cJSON_IsString(value) && len >= (size_t)a->min && len <= (size_t)a->max;
}

static void check_value(struct control_request *r, const cJSON *value,
                        const struct control_arg *a) {
    const char *name = r->command->name;

    switch (a->type) {
    case CONTROL_NUMBER:
        if (!number_fits(value, a))
            control_refuse(r, "'%s' wants a whole number from %lld to %lld as '%s'", name,
                           (long long)a->min, (long long)a->max, a->name);
        break;
    case CONTROL_TEXT:
        if (!text_fits(value, a))
            control_refuse(r, "'%s' wants a text of %lld to %lld bytes as '%s'", name,
                           (long long)a->min, (long long)a->max, a->name);
        break;
    case CONTROL_BOOL:
        if (!cJSON_IsBool(value))
            control_refuse(r, "'%s' wants true or false as '%s'", name, a->name);
        break;
    }
}

/* The number of the argument that is called NAME, or CONTROL_ARGS. */
static unsigned number_of(const struct control_command *c, const char *name) {
    for (unsigned n = 0; c->args && c->args[n].name; n++)
        if (!strcmp(c->args[n].name, name))
            return n;
    return CONTROL_ARGS;
}

/* A member that is there twice would be checked once and used the other time. */
static void take_member(struct control_request *r, const cJSON *m, uint32_t *seen) {
    bool id = !strcmp(m->string, "id"), command = !strcmp(m->string, "command");
    unsigned n = id        ? CONTROL_ARGS + 1
                 : command ? CONTROL_ARGS + 2
                           : number_of(r->command, m->string);

    if (n == CONTROL_ARGS && strlen(m->string) <= SHOWN_MAX)
        control_refuse(r, "'%s' has no argument '%s'", r->command->name, m->string);
    else if (n == CONTROL_ARGS)
        control_refuse(r, "'%s' has no such argument", r->command->name);
    else if (*seen & 1u << n)
        control_refuse(r, "'%s' is there twice", m->string);
    else if (n < CONTROL_ARGS)
        check_value(r, m, &r->command->args[n]);
    *seen |= 1u << n;
}

static void take_arguments(struct control_request *r) {
    const struct control_arg *args = r->command->args;
    uint32_t seen = 0;

    for (const cJSON *m = r->object->child; m && !r->refused; m = m->next)
        take_member(r, m, &seen);
    for (unsigned n = 0; args && args[n].name && !r->refused; n++)
        if (args[n].required && !(seen & 1u << n))
            control_refuse(r, "'%s' wants '%s'", r->command->name, args[n].name);
}

static void carry_out(struct control_request *r, const struct control_table *t) {
    void *arg;

    take_id(r);
    control_put(r, "ok", cJSON_CreateTrue());
    arg = take_command(r, t);
    if (!r->refused)
        take_arguments(r);
    if (r->refused)
        return;
    log_debug("command %s", r->command->name);
    r->command->run(arg, r);
}

/* --- the answer --- */

/* Only the id is left of it. */
static void make_refusal(struct control_request *r) {
    cJSON *id = cJSON_DetachItemFromObjectCaseSensitive(r->answer, "id");

    cJSON_Delete(r->answer);
    r->answer = cJSON_CreateObject();
    if (id)
        control_put(r, "id", id);
    control_put_text(r, "error", r->why);
}

static char *print(struct control_request *r) {
    char *text = NULL, *line = NULL;

    if (r->refused)
        make_refusal(r);
    if (!r->no_memory)
        text = cJSON_PrintUnformatted(r->answer);
    if (asprintf(&line, "%s\n", text ? text : "{\"error\":\"out of memory\"}") < 0)
        line = NULL;
    cJSON_free(text);
    return line;
}

static bool only_blanks(const char *from, const char *to) {
    while (from < to && (*from == ' ' || *from == '\t' || *from == '\r'))
        from++;
    return from == to;
}

/* R, of which only DONE is said, is carried out or refused; what LINE holds is *OBJECT
 * then, to be deleted after R's command has been used for the last time. */
static void answer_line(struct control_request *r, const struct control_table *t,
                        const char *line, size_t len, cJSON **object) {
    const char *why = control_check(line, len), *end = NULL;

    *object = NULL;
    r->answer = cJSON_CreateObject();
    r->no_memory = !r->answer;
    if (why)
        control_refuse(r, "%s", why);
    else
        *object = cJSON_ParseWithLengthOpts(line, len, &end, false);
    if (!why && (!cJSON_IsObject(*object) || !only_blanks(end, line + len)))
        control_refuse(r, "the line is not one JSON object");
    r->object = *object;
    if (!r->refused)
        carry_out(r, t);
}

char *control_answer(const struct control_table *t, const char *line, size_t len) {
    struct control_request *later;

    return control_answer_or_wait(t, line, len, NULL, NULL, &later);
}

char *control_answer_or_wait(const struct control_table *t, const char *line, size_t len,
                             void (*done)(void *arg, char *text), void *arg,
                             struct control_request **later) {
    struct control_request r = {.done = done, .done_arg = arg};
    cJSON *object;
    char *text;

    answer_line(&r, t, line, len, &object);
    *later = r.later;
    text = r.later ? NULL : print(&r);
    cJSON_Delete(object);
    if (!r.later)
        cJSON_Delete(r.answer);
    return text;
}

cJSON *control_ask(const struct control_table *t, const char *line, char *why,
                   size_t why_size) {
    struct control_request r = {.done = NULL};
    cJSON *object;

    answer_line(&r, t, line, strlen(line), &object);
    cJSON_Delete(object);
    if (!r.refused && !r.no_memory)
        return r.answer;
    snprintf(why, why_size, "%s", r.refused ? r.why : "out of memory");
    cJSON_Delete(r.answer);
    return NULL;
}

/* --- later --- */

struct control_request *control_later(struct control_request *r) {
    if (!r->done)
        return NULL;
    r->later = malloc(sizeof(*r));
    if (r->later) {
        *r->later = *r;
        r->later->object = NULL;
    }
    return r->later;
}

void control_finish(struct control_request *r) {
    if (r->done)
        r->done(r->done_arg, print(r));
    cJSON_Delete(r->answer);
    free(r);
}

void control_forget(struct control_request *r) {
    r->done = NULL;
}

/* --- the table --- */

void control_add(struct control_table *t, const struct control_command *commands,
                 void *arg) {
    BUG_ON(t->count == CONTROL_PARTS);
    for (const struct control_command *c = commands; c->name; c++) {
        void *other;

        BUG_ON(find(t, c->name, &other));
        for (unsigned n = 0; c->args && c->args[n].name; n++)
            BUG_ON(n == CONTROL_ARGS);
    }
    t->part[t->count++] = (struct control_part){commands, arg};
}
