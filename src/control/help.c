/* `help`: the table as JSON, so that a program can find out what there is. */
#include <cjson/cJSON.h>

#include "control/control_int.h"

static cJSON *describe_arg(const struct control_arg *a) {
    static const char *const types[] = {"number", "text", "bool"};
    cJSON *o = cJSON_CreateObject();
    bool good = o && cJSON_AddStringToObject(o, "name", a->name) &&
                cJSON_AddStringToObject(o, "type", types[a->type]) &&
                cJSON_AddBoolToObject(o, "required", a->required) &&
                cJSON_AddStringToObject(o, "what", a->what);

    if (good && a->type != CONTROL_BOOL)
        good = cJSON_AddNumberToObject(o, "min", (double)a->min) &&
               cJSON_AddNumberToObject(o, "max", (double)a->max);
    if (good)
        return o;
    cJSON_Delete(o);
    return NULL;
}

static cJSON *describe(const struct control_command *c) {
    cJSON *o = cJSON_CreateObject(), *args;
    bool good = o && cJSON_AddStringToObject(o, "name", c->name) &&
                cJSON_AddStringToObject(o, "what", c->what) &&
                (args = cJSON_AddArrayToObject(o, "args"));

    for (const struct control_arg *a = c->args; good && a && a->name; a++)
        good = cJSON_AddItemToArray(args, describe_arg(a));
    if (good)
        return o;
    cJSON_Delete(o);
    return NULL;
}

static bool describe_all(cJSON *list, const struct control_command *commands) {
    for (const struct control_command *c = commands; c->name; c++)
        if (!cJSON_AddItemToArray(list, describe(c)))
            return false;
    return true;
}

static void run_help(void *arg, struct control_request *r) {
    const struct control_table *t = arg;
    cJSON *list = cJSON_CreateArray();
    bool good = list && describe_all(list, control_help);

    for (size_t n = 0; n < t->count && good; n++)
        good = describe_all(list, t->part[n].commands);
    if (!good) {
        cJSON_Delete(list);
        list = NULL;
    }
    control_put(r, "commands", list);
}

const struct control_command control_help[] = {
    {.name = "help", .what = "lists the commands and their arguments", .run = run_help},
    {0},
};
