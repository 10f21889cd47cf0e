/* Objects of JSON held against a list of what they may have in them. */
#ifndef API_FIELDS_H
#define API_FIELDS_H

#include "base/types.h"

struct cJSON;

enum field_type {
    FIELD_TEXT,
    FIELD_ANY_TEXT,
    /* control characters, too */ FIELD_NUMBER,
    FIELD_BOOL,
    FIELD_OBJECT,
    FIELD_ARRAY
};

struct field {
    const char *name; /* NULL: the end of the list */
    enum field_type type;
    bool required;
    int64_t min, max;          /* of a number; of a text's bytes, where MAX is not 0 */
    const char *const *choice; /* a text is one of these, to a NULL; NULL: any */
};

/* 0, or -EINVAL with one sentence in WHY. A null is as if it were not there. */
int fields_check(const struct cJSON *object, const struct field *fields, char *why,
                 size_t why_size);
const char *fields_text(const struct cJSON *object, const char *name,
                        const char *otherwise);
int64_t fields_number(const struct cJSON *object, const char *name, int64_t otherwise);
bool fields_bool(const struct cJSON *object, const char *name);
/* -EINVAL, with TEXT in WHY. */
int fields_refuse(char *why, size_t why_size, const char *text);
/* The member NAME of OBJECT is VALUE, which is taken over, from now on; NULL: there was
 * no memory for it. 0 or -ENOMEM. */
int fields_set(struct cJSON *object, const char *name, struct cJSON *value);
/* LEN bytes of JSON in a buffer of their own: an object, the caller's; or NULL with one
 * sentence in WHY. Not nested deeply, UTF-8, no zero bytes in texts. */
struct cJSON *fields_parse(const char *text, size_t len, char *why, size_t why_size);

#endif
