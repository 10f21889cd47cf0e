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

/* What TEXT, which is taken over, says was done; or C is refused, and NULL. */
static cJSON *answer_of(struct call *c, char *text) {
    cJSON *answer = text ? cJSON_Parse(text) : NULL;
    const cJSON *error = cJSON_GetObjectItem(answer, "error");

    free(text);
    if (answer && !error)
        return answer;
    call_refuse(c, "%s", cJSON_IsString(error) ? error->valuestring : "out of memory");
    cJSON_Delete(answer);
    return NULL;
}

cJSON *call_ask(struct call *c, const char *line) {
    cJSON *answer = control_ask(&c->api->table, line, c->why, sizeof(c->why));

    if (!answer)
        call_refuse(c, "%s", c->why);
    return answer;
}

void call_do(struct call *c, const char *line) {
    cJSON *answer = call_ask(c, line);

    if (answer)
        c->answer->status = 204;
    cJSON_Delete(answer);
}

/* --- what takes a while --- */

/* The answer that TEXT, which is taken over, is; FORM as in call_later(). */
static void answer_with(struct call *c, char *text, cJSON *(*form)(cJSON *answer)) {
    cJSON *answer = answer_of(c, text);

    if (answer && form)
        call_json(c, 200, form(answer));
    else if (answer)
        c->answer->status = 204;
    cJSON_Delete(answer);
}

static void on_done(void *arg, char *text) {
    struct call_wait *w = arg;
    struct api_answer answer = {.status = 500, .type = "application/json"};
    struct call c = {.api = w->api, .answer = &answer};

    w->r = NULL;
    answer_with(&c, text, w->form);
    if (w->api->server)
        api_server_answer(w->api->server, w->ticket, &answer);
    else
        free(answer.body);
}

void call_later(struct call *c, const char *line, cJSON *(*form)(cJSON *answer)) {
    struct call_wait *w = NULL;
    char *text;

    for (unsigned n = 0; n < CALL_WAITS && !w; n++)
        if (!c->api->wait[n].r)
            w = &c->api->wait[n];
    if (!w) {
        call_refuse(c, "too much is being done already");
        return;
    }
    *w = (struct call_wait){.api = c->api, .ticket = c->answer->ticket, .form = form};
    text = control_answer_or_wait(&c->api->table, line, strlen(line), on_done, w, &w->r);
    if (w->r)
        c->answer->later = true;
    else
        answer_with(c, text, form);
}

void call_forget(struct api *a) {
    for (unsigned n = 0; n < CALL_WAITS; n++) {
        if (a->wait[n].r)
            control_forget(a->wait[n].r);
        a->wait[n].r = NULL;
    }
}
