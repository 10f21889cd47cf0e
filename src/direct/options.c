/* What is decided for a guest's programs, each decision with its switch; see direct.h. */
#include "direct/direct.h"

#define SWITCH(field, text)                                                              \
    { .name = #field, .what = (text), .off = offsetof(struct direct_options, field) }

static const struct engine_option table[] = {
    SWITCH(around, "a page is mapped together with its neighbours"),
    SWITCH(cold, "one look is enough while a program's code is being translated"),
    SWITCH(copies, "code with CPUID and the like in it runs as a copy"),
    SWITCH(demote, "who comes out too often is translated again"),
    SWITCH(foresee, "the page of a guest's page fault is mapped before it goes on"),
    SWITCH(move, "to another CPU of the host's where this one is crowded"),
    SWITCH(outlast, "pages stay through a flush of the guest's TLB"),
    SWITCH(remember, "one look is enough for code that was worth a cell before"),
    SWITCH(rewrite, "cells in which CPUID faults, for programs that write code"),
    SWITCH(splits, "locked accesses across lines are translated for a while"),
};

static void defaults(void *options) {
    *(struct direct_options *)options = (struct direct_options){
        .around = true,
        .cold = true,
        .copies = true,
        .demote = true,
        .foresee = true,
        .move = true,
        .outlast = true,
        .remember = true,
        .rewrite = true,
        .splits = true,
    };
}

const struct engine_options direct_option_set = {
    .flag = "direct",
    .what = "how user code runs directly",
    .of = "--direct",
    .help = "bivisor run --direct help",
    .table = table,
    .count = ARRAY_SIZE(table),
    .size = sizeof(struct direct_options),
    .defaults = defaults,
};
