/*
 * The control socket: lines of anything, answered from a table with arguments of each
 * type. Whatever was sent, the answer is one line of JSON in UTF-8 that says either ok or
 * error, and a command is called with what its list allows only. The same bytes as
 * requests of QEMU's protocol, whose answers have lines of events before them.
 */
#include <cjson/cJSON.h>

#include "control/control_int.h"
#include "fuzz/fuzz.h"

static void run_all(void *arg, struct control_request *r) {
    int64_t n = control_number(r, "n", -7);
    const char *text = control_text(r, "text", "none");

    HOLDS(n >= -10 && n <= CONTROL_NUMBER_MAX);
    HOLDS(strlen(text) <= 100);
    control_put_number(r, "n", (double)n);
    control_put_text(r, "text", text);
    if (control_bool(r, "bad", false))
        control_refuse(r, "refused: %s", text);
}

static const struct control_arg args[] = {
    {"n", CONTROL_NUMBER, true, -10, CONTROL_NUMBER_MAX, "a number"},
    {"text", CONTROL_TEXT, false, 0, 100, "a text"},
    {"bad", CONTROL_BOOL, false, 0, 0, "whether to refuse"},
    {0},
};

static const struct control_command commands[] = {
    {"all", "takes all kinds", args, run_all}, {0}};

/* The parser stops at a byte that is not UTF-8 in none of its checks; we do. */
static bool is_text(const unsigned char *p) {
    while (*p) {
        unsigned n = *p < 0x80 ? 0 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;

        if (*p < ' ' || (*p >= 0x80 && *p < 0xc2) || *p > 0xf4)
            return false;
        for (p++; n; n--, p++)
            if ((*p & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static void answer(const uint8_t *data, size_t size) {
    struct control_table t = {0};
    char *line =
        malloc(size ? size : 1); /* of its own, so that a byte behind it is seen */
    char *text;
    cJSON *json;

    control_add(&t, commands, NULL);
    memcpy(line, data, size);
    text = control_answer(&t, line, size);
    HOLDS(text && strchr(text, '\n') == text + strlen(text) - 1);
    text[strlen(text) - 1] = '\0';
    HOLDS(is_text((unsigned char *)text));
    json = cJSON_Parse(text);
    HOLDS(cJSON_IsObject(json));
    HOLDS(cJSON_HasObjectItem(json, "ok") != cJSON_HasObjectItem(json, "error"));
    cJSON_Delete(json);
    free(text);
    free(line);
}

static void check_line(char *line) {
    cJSON *json;

    HOLDS(is_text((unsigned char *)line));
    json = cJSON_Parse(line);
    HOLDS(cJSON_IsObject(json));
    HOLDS(cJSON_HasObjectItem(json, "return") + cJSON_HasObjectItem(json, "error") +
              cJSON_HasObjectItem(json, "event") ==
          1);
    cJSON_Delete(json);
}

/* The first request of DATA, if it is whole: how long it is. */
static size_t answer_qmp(const uint8_t *data, size_t size) {
    struct control_table t = {0};
    char *all = malloc(size ? size : 1), *text, *line, *end;
    size_t len;

    control_add(&t, commands, NULL);
    memcpy(all, data, size);
    len = qmp_length(all, size);
    HOLDS(len <= size);
    text = len ? qmp_answer(&t, all, len) : NULL;
    HOLDS(!len == !text);
    for (line = text; line && *line; line = end + 2) {
        end = strstr(line, "\r\n");
        HOLDS(end);
        *end = '\0';
        check_line(line);
    }
    free(text);
    free(all);
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end;
    size_t at = 0, len;

    while ((len = answer_qmp(data + at, size - at)))
        at += len;
    while ((end = size ? memchr(data, '\n', size) : NULL)) {
        answer(data, (size_t)(end - data));
        size -= (size_t)(end - data) + 1;
        data = end + 1;
    }
    answer(data, size);
    return 0;
}
