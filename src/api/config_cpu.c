/* Custom CPU templates; see config_cpu.h. */
#include "api/config_cpu.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"

#define WORD_MAX 4096 /* bytes */

static const char *const registers[] = {"eax", "ebx", "ecx", "edx", NULL};
static const struct field leaf_fields[] = {
    {"leaf", FIELD_TEXT, true, 1, 34, NULL},
    {"subleaf", FIELD_TEXT, true, 1, 34, NULL},
    {"flags", FIELD_NUMBER, true, 0, UINT32_MAX, NULL},
    {"modifiers", FIELD_ARRAY, true, 0, 0, NULL},
    {0},
};
static const struct field register_fields[] = {
    {"register", FIELD_TEXT, true, 0, 0, registers},
    {"bitmap", FIELD_TEXT, true, 3, 66, NULL},
    {0},
};

/* A number as texts here have it: hexadecimal, binary or decimal. */
static bool is_number(const char *text) {
    bool binary = !strncmp(text, "0b", 2), hex = !strncmp(text, "0x", 2);
    const char *digits = text + (binary || hex ? 2 : 0);
    char *end;

    if (!*digits || strspn(digits, binary ? "01"
                                   : hex  ? "0123456789abcdefABCDEF"
                                          : "0123456789") != strlen(digits))
        return false;
    return strtoull(digits, &end, binary ? 2 : hex ? 16 : 10) <= UINT32_MAX;
}

static bool is_bitmap(const char *text) {
    unsigned bits = 0;

    for (const char *p = text + 2; *p; p++)
        bits += *p != '_';
    return !strncmp(text, "0b", 2) && strspn(text + 2, "01x_") == strlen(text + 2) &&
           bits && bits <= 32;
}

static int check_registers(const cJSON *array, char *why, size_t why_size) {
    const cJSON *r;
    int rc = 0;

    cJSON_ArrayForEach(r, array) {
        if (!rc)
            rc = fields_check(r, register_fields, why, why_size);
        if (!rc && !is_bitmap(fields_text(r, "bitmap", "")))
            rc = fields_refuse(why, why_size,
                               "'bitmap' must be 0b and up to 32 of 0, 1, x and _");
    }
    return rc;
}

static int check_leaf(const cJSON *leaf, char *why, size_t why_size) {
    int rc = fields_check(leaf, leaf_fields, why, why_size);

    if (rc)
        return rc;
    if (!is_number(fields_text(leaf, "leaf", "")))
        return fields_refuse(why, why_size, "'leaf' must be a number, such as \"0x7\"");
    if (!is_number(fields_text(leaf, "subleaf", "")))
        return fields_refuse(why, why_size,
                             "'subleaf' must be a number, such as \"0x0\"");
    return check_registers(cJSON_GetObjectItemCaseSensitive(leaf, "modifiers"), why,
                           why_size);
}

/* "121", or "!121". */
static bool is_capability(const cJSON *v) {
    const char *text = cJSON_IsString(v) ? v->valuestring : "";
    size_t digits = strspn(text + (*text == '!'), "0123456789");

    return digits && digits <= 9 && !text[digits + (*text == '!')];
}

int config_cpu_check(const cJSON *value, char *why, size_t why_size) {
    const cJSON *leaf, *c;
    char *word;
    int rc = 0;

    cJSON_ArrayForEach(c, cJSON_GetObjectItemCaseSensitive(value, "kvm_capabilities")) {
        if (!is_capability(c))
            return fields_refuse(
                why, why_size,
                "'kvm_capabilities' has numbers as texts, such as \"!56\"");
    }

    if (cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(value, "msr_modifiers")))
        return fields_refuse(
            why, why_size,
            "'msr_modifiers' has one: model-specific registers are those of "
            "bivisor's CPU, and stay as they are");
    cJSON_ArrayForEach(leaf, cJSON_GetObjectItemCaseSensitive(value, "cpuid_modifiers")) {
        if (!rc)
            rc = check_leaf(leaf, why, why_size);
    }
    word = rc ? NULL : config_cpu_word(NULL, value);
    if (!rc && !word)
        rc = fields_refuse(why, why_size, "'cpuid_modifiers' has too many");
    free(word);
    return rc;
}

/* Behind LEN bytes of TEXT; false: they are too many. */
static bool add(char *text, size_t *len, const cJSON *leaf, const cJSON *r) {
    int n = snprintf(text + *len, WORD_MAX - *len, ",%s.%s.%s=%s",
                     fields_text(leaf, "leaf", ""), fields_text(leaf, "subleaf", ""),
                     fields_text(r, "register", ""), fields_text(r, "bitmap", ""));

    *len += (size_t)n;
    return *len < WORD_MAX;
}

char *config_cpu_word(const char *name, const cJSON *value) {
    const cJSON *leaf, *r;
    char *text = calloc(1, WORD_MAX);
    bool good = text;
    size_t len = 0;

    vec_init(); /* what can be offered depends on it */
    if (good)
        len = (size_t)snprintf(text, WORD_MAX, "%s", name ? name : cpuid_model_default());
    cJSON_ArrayForEach(leaf, cJSON_GetObjectItemCaseSensitive(value, "cpuid_modifiers")) {
        cJSON_ArrayForEach(r, cJSON_GetObjectItemCaseSensitive(leaf, "modifiers")) {
            good = good && add(text, &len, leaf, r);
        }
    }
    if (good)
        return text;
    free(text);
    return NULL;
}
