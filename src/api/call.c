/* Answers, and what the machine is asked for them; see api_int.h. */
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_int.h"

/* --- answers --- */

static void put_text(struct call *c, char *text) {
    c->answer->body = text;
    c->answer->len = text ? strlen(text) : 0;
    if (!text)
        c->answer->status = 500;
}

void call_json(struct call *c, int status, cJSON *value) {
    c->answer->status = status;
    put_text(c, value ? cJSON_PrintUnformatted(value) : NULL);
    cJSON_Delete(value);
}

void call_refuse(struct call *c, const char *format, ...) {
    cJSON *fault = cJSON_CreateObject();
    char text[CALL_WHY];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    cJSON_AddStringToObject(fault, "fault_message", text);
    call_json(c, 400, fault);
}

void call_done(struct call *c, int rc) {
    if (rc)
        call_refuse(c, "%s", c->why);
    else
        c->answer->status = 204;
}

/* --- the machine's commands --- */

cJSON *call_ask(struct call *c, const char *line) {
    char *text = control_answer(&c->api->table, line, strlen(line));
    cJSON *answer = text ? cJSON_Parse(text) : NULL;
    const cJSON *error = cJSON_GetObjectItem(answer, "error");

    free(text);
    if (answer && !error)
        return answer;
    call_refuse(c, "%s", cJSON_IsString(error) ? error->valuestring : "out of memory");
    cJSON_Delete(answer);
    return NULL;
}

void call_do(struct call *c, const char *line) {
    cJSON *answer = call_ask(c, line);

    if (answer)
        c->answer->status = 204;
    cJSON_Delete(answer);
}
