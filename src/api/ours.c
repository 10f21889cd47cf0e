/* Resources of ours, beside Firecracker's: what it lacks. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_int.h"
#include "api/fields.h"
#include "api/png.h"
#include "api/prometheus.h"

void api_stats_get(struct call *c) {
    cJSON *answer = call_ask(c, "{\"command\":\"stats\"}");

    if (answer)
        call_json(c, 200, cJSON_DetachItemFromObject(answer, "stats"));
    cJSON_Delete(answer);
}

void api_figures_get(struct call *c) {
    cJSON *answer = call_ask(c, "{\"command\":\"stats\"}");

    if (!answer)
        return;
    c->answer->status = 200;
    c->answer->type = "text/plain; version=0.0.4";
    c->answer->body =
        prometheus_text(cJSON_GetObjectItem(answer, "stats"), &c->answer->len);
    if (!c->answer->body)
        c->answer->status = 500;
    cJSON_Delete(answer);
}

void api_screenshot_get(struct call *c) {
    cJSON *answer = call_ask(c, "{\"command\":\"picture\"}");

    if (!answer)
        return;
    c->answer->body = (char *)png_of_picture(answer, &c->answer->len);
    c->answer->status = c->answer->body ? 200 : 500;
    c->answer->type = "image/png";
    cJSON_Delete(answer);
}

static const char *const presses[] = {"powerdown", "reset", "quit", NULL};
static const struct field power_fields[] = {{"action", FIELD_TEXT, true, 0, 0, presses},
                                            {0}};

void api_power_put(struct call *c) {
    char line[64];

    if (fields_check(c->body, power_fields, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    snprintf(line, sizeof(line), "{\"command\":\"%s\"}",
             fields_text(c->body, "action", ""));
    call_do(c, line);
}

/* --- quotas --- */

static void tell_quota(struct call *c, const char *line) {
    cJSON *answer = call_ask(c, line), *o = answer ? cJSON_CreateObject() : NULL;

    if (!answer)
        return;
    cJSON_AddItemToObject(o, "cpu_percent", cJSON_DetachItemFromObject(answer, "cpu"));
    if (cJSON_HasObjectItem(answer, "memory"))
        cJSON_AddItemToObject(o, "memory_mib",
                              cJSON_DetachItemFromObject(answer, "memory"));
    cJSON_Delete(answer);
    call_json(c, 200, o);
}

void api_quota_get(struct call *c) {
    tell_quota(c, "{\"command\":\"quota\"}");
}

static const struct field quota_fields[] = {
    {"cpu_percent", FIELD_NUMBER, false, 0, 6400, NULL},
    {"memory_mib", FIELD_NUMBER, false, 0, 1 << 20, NULL},
    {0},
};

void api_quota_put(struct call *c) {
    char line[128], cpu[32] = "", memory[32] = "";

    if (fields_check(c->body, quota_fields, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    if (fields_number(c->body, "cpu_percent", -1) >= 0)
        snprintf(cpu, sizeof(cpu), ",\"cpu\":%lld",
                 (long long)fields_number(c->body, "cpu_percent", 0));
    if (fields_number(c->body, "memory_mib", -1) >= 0)
        snprintf(memory, sizeof(memory), ",\"memory\":%lld",
                 (long long)fields_number(c->body, "memory_mib", 0));
    snprintf(line, sizeof(line), "{\"command\":\"quota\"%s%s}", cpu, memory);
    call_do(c, line);
}

/* --- commands in the guest --- */

static const struct field exec_fields[] = {
    {"command", FIELD_ARRAY, true, 0, 0, NULL},
    {"env", FIELD_ARRAY, false, 0, 0, NULL},
    {"cwd", FIELD_TEXT, false, 1, 4095, NULL},
    {"uid", FIELD_NUMBER, false, 0, UINT32_MAX - 1, NULL},
    {"gid", FIELD_NUMBER, false, 0, UINT32_MAX - 1, NULL},
    {"input", FIELD_ANY_TEXT, false, 0, 0, NULL},
    {"seconds", FIELD_NUMBER, false, 1, 86400, NULL},
    {0},
};

/* Arrays are texts in the machine's command, and its words have a name of their own. */
static char *command_line(const char *command, const cJSON *body) {
    cJSON *o = cJSON_CreateObject();
    const cJSON *v;
    bool good = cJSON_AddStringToObject(o, "command", command);
    char *line;

    cJSON_ArrayForEach(v, body) {
        char *text = cJSON_IsArray(v) ? cJSON_PrintUnformatted(v) : NULL;
        const char *name = !strcmp(v->string, "command") ? "argv" : v->string;

        if (!cJSON_IsNull(v))
            good &= !fields_set(o, name,
                                cJSON_IsArray(v) ? cJSON_CreateString(text ? text : "")
                                                 : cJSON_Duplicate(v, true));
        cJSON_free(text);
    }
    line = good ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    return line;
}

/* The body, if it has FIELDS, as the machine's command, which answers later. */
static void command_of(struct call *c, const struct field *fields, const char *command,
                       cJSON *(*answer)(cJSON *)) {
    char *line;

    if (fields_check(c->body, fields, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    line = command_line(command, c->body);
    if (line)
        call_later(c, line, answer);
    else
        call_refuse(c, "out of memory");
    cJSON_free(line);
}

static cJSON *exec_answer(cJSON *answer) {
    static const char *const names[] = {"status", "stdout", "stderr", "cut"};
    cJSON *o = cJSON_CreateObject();

    for (size_t n = 0; n < ARRAY_SIZE(names); n++)
        cJSON_AddItemToObject(o, names[n], cJSON_DetachItemFromObject(answer, names[n]));
    return o;
}

void api_exec_put(struct call *c) {
    command_of(c, exec_fields, "exec", exec_answer);
}

/* --- forwarded ports --- */

void api_forwards_get(struct call *c) {
    cJSON *answer = call_ask(c, "{\"command\":\"forward\"}");

    if (answer)
        call_json(c, 200, cJSON_DetachItemFromObject(answer, "forwards"));
    cJSON_Delete(answer);
}

static const struct field forward_fields[] = {
    {"net", FIELD_NUMBER, false, 0, 99, NULL},
    {"forward", FIELD_TEXT, true, 1, 127, NULL},
    {0},
};

static void change_forward(struct call *c, const char *how) {
    cJSON *o = cJSON_CreateObject();
    char *line = NULL;

    if (fields_check(c->body, forward_fields, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        cJSON_Delete(o);
        return;
    }
    if (cJSON_AddStringToObject(o, "command", "forward") &&
        cJSON_AddStringToObject(o, how, fields_text(c->body, "forward", "")) &&
        cJSON_AddNumberToObject(o, "net", (double)fields_number(c->body, "net", 0)))
        line = cJSON_PrintUnformatted(o);
    if (line)
        call_later(c, line, NULL);
    else
        call_refuse(c, "out of memory");
    cJSON_free(line);
    cJSON_Delete(o);
}

void api_forwards_put(struct call *c) {
    change_forward(c, "add");
}

void api_forwards_delete(struct call *c) {
    change_forward(c, "drop");
}

/* --- copies --- */

static const struct field fork_fields[] = {
    {"copies", FIELD_ARRAY, true, 0, 0, NULL},
    {0},
};

static cJSON *fork_answer(cJSON *answer) {
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToObject(o, "copies", cJSON_DetachItemFromObject(answer, "copies"));
    return o;
}

void api_fork_put(struct call *c) {
    command_of(c, fork_fields, "fork", fork_answer);
}
