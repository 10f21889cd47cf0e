/* Checking objects; see fields.h. */
#include "api/fields.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"

#define SHOWN_MAX 32 /* bytes of a name that is told back */
#define NUMBER_MAX 9007199254740992.0

static int complain(char *why, size_t why_size, const char *name, const char *what) {
    snprintf(why, why_size, "'%s' %s", strlen(name) <= SHOWN_MAX ? name : "...", what);
    return -EINVAL;
}

static int check_text(const cJSON *v, const struct field *f, char *why, size_t why_size) {
    size_t len = cJSON_IsString(v) ? strlen(v->valuestring) : 0;

    if (!cJSON_IsString(v))
        return complain(why, why_size, f->name, "must be a text");
    for (const char *const *c = f->choice; c; c++) {
        if (!*c)
            return complain(why, why_size, f->name, "has a value that is not known");
        if (!strcmp(*c, v->valuestring))
            return 0;
    }
    if (f->max && (len < (size_t)f->min || len > (size_t)f->max))
        return complain(why, why_size, f->name, "is too short or too long");
    for (const char *p = v->valuestring; *p && f->type == FIELD_TEXT; p++)
        if ((unsigned char)*p < ' ')
            return complain(why, why_size, f->name, "has a control character in it");
    return 0;
}

static int check_number(const cJSON *v, const struct field *f, char *why,
                        size_t why_size) {
    double d = cJSON_IsNumber(v) ? v->valuedouble : -1;

    if (!cJSON_IsNumber(v) || d != floor(d) || fabs(d) > NUMBER_MAX)
        return complain(why, why_size, f->name, "must be a whole number");
    if (d >= (double)f->min && d <= (double)f->max)
        return 0;
    snprintf(why, why_size, "'%s' must be from %lld to %lld", f->name, (long long)f->min,
             (long long)f->max);
    return -EINVAL;
}

static int check_value(const cJSON *v, const struct field *f, char *why,
                       size_t why_size) {
    switch (f->type) {
    case FIELD_TEXT:
    case FIELD_ANY_TEXT:
        return check_text(v, f, why, why_size);
    case FIELD_NUMBER:
        return check_number(v, f, why, why_size);
    case FIELD_BOOL:
        return cJSON_IsBool(v)
                   ? 0
                   : complain(why, why_size, f->name, "must be true or false");
    case FIELD_ARRAY:
        return cJSON_IsArray(v) ? 0
                                : complain(why, why_size, f->name, "must be an array");
    default:
        return cJSON_IsObject(v) ? 0
                                 : complain(why, why_size, f->name, "must be an object");
    }
}

static const struct field *find(const struct field *fields, const char *name) {
    for (; fields->name; fields++)
        if (!strcmp(fields->name, name))
            return fields;
    return NULL;
}

static const cJSON *member(const cJSON *object, const char *name) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsNull(v) ? NULL : v;
}

int fields_check(const cJSON *object, const struct field *fields, char *why,
                 size_t why_size) {
    const cJSON *v;

    if (!cJSON_IsObject(object)) {
        snprintf(why, why_size, "the body must be an object");
        return -EINVAL;
    }
    cJSON_ArrayForEach(v, object) {
        const struct field *f = find(fields, v->string);
        int rc;

        if (!f)
            return complain(why, why_size, v->string, "is not known here");
        if (cJSON_GetObjectItemCaseSensitive(object, v->string) != v)
            return complain(why, why_size, v->string, "is there twice");
        rc = cJSON_IsNull(v) ? 0 : check_value(v, f, why, why_size);
        if (rc)
            return rc;
    }
    for (; fields->name; fields++)
        if (fields->required && !member(object, fields->name))
            return complain(why, why_size, fields->name, "is missing");
    return 0;
}

const char *fields_text(const cJSON *object, const char *name, const char *otherwise) {
    const cJSON *v = member(object, name);

    return cJSON_IsString(v) ? v->valuestring : otherwise;
}

int64_t fields_number(const cJSON *object, const char *name, int64_t otherwise) {
    const cJSON *v = member(object, name);

    return cJSON_IsNumber(v) ? (int64_t)v->valuedouble : otherwise;
}

bool fields_bool(const cJSON *object, const char *name) {
    return cJSON_IsTrue(member(object, name));
}

int fields_set(cJSON *object, const char *name, cJSON *value) {
    bool there = cJSON_GetObjectItemCaseSensitive(object, name);

    if (value && (there ? cJSON_ReplaceItemInObjectCaseSensitive(object, name, value)
                        : cJSON_AddItemToObject(object, name, value)))
        return 0;
    cJSON_Delete(value);
    return -ENOMEM;
}

int fields_refuse(char *why, size_t why_size, const char *text) {
    snprintf(why, why_size, "%s", text);
    return -EINVAL;
}

cJSON *fields_parse(const char *text, size_t len, char *why, size_t why_size) {
    char *copy = malloc(len + 1);
    const char *wrong = copy ? NULL : "out of memory", *rest = NULL;
    cJSON *value = NULL;

    if (copy) {
        memcpy(copy, text, len);
        copy[len] = 0;
        for (size_t n = 0; n < len; n++) /* outside of texts they are spaces */
            if (copy[n] == '\n')
                copy[n] = ' ';
        wrong = control_check(copy, len);
    }
    if (!wrong) {
        value = cJSON_ParseWithOpts(copy, &rest, true);
        wrong = value ? NULL : "the body is no JSON";
    }
    if (value && !cJSON_IsObject(value)) {
        cJSON_Delete(value);
        value = NULL;
        wrong = "the body must be an object";
    }
    free(copy);
    if (wrong)
        snprintf(why, why_size, "%s", wrong);
    return value;
}
