/*
 * The translator's switches by name, for --bt.
 *
 * A switch is a bool of struct bt_options and can be written `name` or `no-name`; a
 * number is an unsigned and is written `name=N`. A new option is a line of the table and
 * its default in bt_defaults(). (lint: no guest runs here)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bt/bt.h"

#define SWITCH(field, option, text)                                                      \
    { .name = (option), .what = (text), .off = offsetof(struct bt_options, field) }
#define NUMBER(field, option, low, high, text)                                           \
    {                                                                                    \
        .name = (option), .what = (text), .off = offsetof(struct bt_options, field),     \
        .min = (low), .max = (high)                                                      \
    }

static const struct bt_option table[] = {
    SWITCH(adapt, "adapt", "design the trap into what keeps trapping, for a while"),
    SWITCH(tr.anchors, "anchors",
           "find pages by the place in the code, where that is better"),
    SWITCH(chain, "chain", "turn exits into direct jumps to their targets"),
    SWITCH(tr.count, "count", "count instructions (a TU left early counts whole)"),
    SWITCH(evict, "evict", "when the cache is full, drop what is oldest, not everything"),
    SWITCH(tr.groups, "groups",
           "one check for several accesses off the same base register"),
    SWITCH(tr.held, "held", "keep the host address of a group that others interrupt"),
    NUMBER(tr.hot, "hot", 0, BT_HOT_MAX,
           "executions until a fragment is retranslated as a hot path; 0: never"),
    SWITCH(tr.lend, "lend", "keep r14 and r15 in registers that a hot path does not use"),
    SWITCH(tr.liveness, "liveness", "do not keep status flags that nothing reads"),
    NUMBER(tr.path, "path", 1, TR_PATH_MAX, "instructions in a hot path"),
    SWITCH(tr.stay, "stay", "stay in the cache after system calls, faults, CR3 loads"),
    NUMBER(tr.tu_limit, "tu", 1, TR_TU_MAX, "instructions in a translation unit"),
    NUMBER(cache, "cache", 1, BT_CACHE_MAX, "MiB of translated code"),
    SWITCH(tr.predict, "predict",
           "follow returns and other indirect branches in hot paths"),
    SWITCH(tr.unroll, "unroll", "repeat short loops in their hot paths"),
    SWITCH(verify, "verify", "prove all code that is made; a finding ends the run"),
};

struct bt_options bt_defaults(void) {
    return (struct bt_options){
        .adapt = true,
        .tr.anchors = true,
        .chain = true,
        .evict = true,
        .tr.groups = true,
        .tr.held = true,
        .tr.lend = true,
        .tr.unroll = true,
        .tr.predict = true,
        .tr.liveness = true,
        .tr.stay = true,
        .verify = BT_VERIFY_DEFAULT,
        .tr.hot = BT_HOT_DEFAULT,
        .tr.path = BT_PATH_DEFAULT,
        .tr.tu_limit = BT_TU_DEFAULT,
        .cache = BT_CACHE_DEFAULT,
    };
}

const struct bt_option *bt_option_table(size_t *count) {
    *count = ARRAY_SIZE(table);
    return table;
}

/* The option of that name; the name ends after LEN characters. */
static const struct bt_option *find(const char *name, size_t len) {
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (strlen(table[i].name) == len && !memcmp(table[i].name, name, len))
            return &table[i];
    return NULL;
}

static int complain_number(const struct bt_option *o, char *why, size_t why_size) {
    snprintf(why, why_size, "'%s' wants a number, as in %s=%u, from %u to %u", o->name,
             o->name, o->min, o->min, o->max);
    return -EINVAL;
}

/* "name=N", with the value at TEXT + NAME_LEN + 1 and LEN characters in all. */
static int take_number(struct bt_options *opt, const struct bt_option *o,
                       const char *text, size_t name_len, size_t len, char *why,
                       size_t why_size) {
    unsigned long n = 0;

    if (name_len + 1 >= len)
        return complain_number(o, why, why_size);
    for (size_t i = name_len + 1; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || n > o->max)
            return complain_number(o, why, why_size);
        n = n * 10 + (unsigned)(text[i] - '0');
    }
    if (n < o->min || n > o->max)
        return complain_number(o, why, why_size);
    *(unsigned *)(void *)((char *)opt + o->off) = (unsigned)n;
    return 0;
}

static int take(struct bt_options *opt, const char *text, size_t len, char *why,
                size_t why_size) {
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals ? (size_t)(equals - text) : len;
    const struct bt_option *o = find(text, name_len);
    bool on = true;

    if (!o && len > 3 && !memcmp(text, "no-", 3)) {
        o = find(text + 3, len - 3);
        if (o && o->max)
            o = NULL;
        on = false;
    }
    if (!o) {
        snprintf(why, why_size,
                 "the translator has no option '%.*s'; `bivisor translate --help` lists "
                 "them",
                 (int)(len < 40 ? len : 40), text);
        return -EINVAL;
    }
    if (o->max)
        return take_number(opt, o, text, name_len, len, why, why_size);
    if (equals) {
        snprintf(why, why_size, "'%s' takes no value; write %s or no-%s", o->name,
                 o->name, o->name);
        return -EINVAL;
    }
    *(bool *)(void *)((char *)opt + o->off) = on;
    return 0;
}

int bt_options_parse(struct bt_options *opt, const char *text, char *why,
                     size_t why_size) {
    for (;;) {
        size_t len = strcspn(text, ",");
        int rc = take(opt, text, len, why, why_size);

        if (rc || !text[len])
            return rc;
        text += len + 1;
    }
}
