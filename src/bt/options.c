/*
 * The translator's options by name, for --bt. A new one is a line of the table and its
 * default in bt_defaults(). (lint: no guest runs here)
 */
#include "bt/bt.h"

#define SWITCH(field, option, text)                                                      \
    { .name = (option), .what = (text), .off = offsetof(struct bt_options, field) }
#define NUMBER(field, option, low, high, text)                                           \
    {                                                                                    \
        .name = (option), .what = (text), .off = offsetof(struct bt_options, field),     \
        .min = (low), .max = (high)                                                      \
    }

static const struct engine_option table[] = {
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
    SWITCH(tr.borrow, "borrow",
           "keep r14 and r15 in registers that a hot path does not use"),
    SWITCH(tr.liveness, "liveness", "do not keep status flags that nothing reads"),
    NUMBER(tr.path, "path", 1, TR_PATH_MAX, "instructions in a hot path"),
    SWITCH(seal, "seal", "code can be written at no address but while it is made"),
    SWITCH(tr.stay, "stay", "stay in the cache after system calls, faults, CR3 loads"),
    NUMBER(tr.tu_limit, "tu", 1, TR_TU_MAX, "instructions in a translation unit"),
    NUMBER(cache, "cache", 1, BT_CACHE_MAX, "MiB of translated code"),
    SWITCH(tr.predict, "predict",
           "follow returns and other indirect branches in hot paths"),
    SWITCH(tr.unroll, "unroll", "repeat short loops in their hot paths"),
    SWITCH(verify, "verify", "prove all code that is made; a finding ends the run"),
    NUMBER(cold, "cold", 0, BT_COLD_MAX,
           "instructions that are interpreted first where a snapshot goes on"),
    NUMBER(warm, "warm", 0, BT_WARM_MAX,
           "fragments that a snapshot says were hot, made before they are wanted"),
};

struct bt_options bt_defaults(void) {
    return (struct bt_options){
        .adapt = true,
        .tr.anchors = true,
        .chain = true,
        .evict = true,
        .tr.groups = true,
        .tr.held = true,
        .tr.borrow = true,
        .tr.unroll = true,
        .tr.predict = true,
        .tr.liveness = true,
        .tr.stay = true,
        .verify = BT_VERIFY_DEFAULT,
        .warm = BT_WARM_MAX,
        .cold = BT_COLD_DEFAULT,
        .tr.hot = BT_HOT_DEFAULT,
        .tr.path = BT_PATH_DEFAULT,
        .tr.tu_limit = BT_TU_DEFAULT,
        .cache = BT_CACHE_DEFAULT,
    };
}

static void defaults(void *options) {
    *(struct bt_options *)options = bt_defaults();
}

static bool exact(const void *options) {
    return !((const struct bt_options *)options)->tr.liveness;
}

const struct engine_options bt_option_set = {
    .flag = "bt",
    .what = "switches of the translator; see `bivisor translate --help`",
    .of = "the translator",
    .help = "bivisor translate --help",
    .table = table,
    .count = ARRAY_SIZE(table),
    .size = sizeof(struct bt_options),
    .defaults = defaults,
    .counted = "no-liveness",
    .single = "tu=1,hot=0",
    .exact = exact,
};
_Static_assert(sizeof(struct bt_options) <= ENGINE_OPTIONS_SIZE, "it is carried about");

int bt_options_parse(struct bt_options *opt, const char *text, char *why,
                     size_t why_size) {
    return engine_options_parse(&bt_option_set, opt, NULL, text, why, why_size);
}
