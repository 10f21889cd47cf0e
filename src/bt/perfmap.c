/*
 * Names for the host's perf: what is in the cache, by the guest address that it was
 * translated from. One line for each piece of code, as perf wants it in
 * /tmp/perf-PID.map: address and size in hexadecimal, name.
 */
#include <stdio.h>

#include "bt/bt_int.h"

static void write_name(void *arg, struct ccf *c) {
    static const char *const modes[] = {"16", "32", "64"};

    fprintf(arg, "%llx %llx guest%s %s%s 0x%llx\n",
            (unsigned long long)(uintptr_t)c->code.start,
            (unsigned long long)(c->code.end - c->code.start),
            modes[KEY_MODE(c->code.key)], c->code.key & KEY_USER ? "user" : "kernel",
            c->code.hot ? " hot" : "", (unsigned long long)c->code.va);
}

void bt_perf_map(const struct bt *bt, FILE *f) {
    fprintf(f, "%llx %llx bt common code\n",
            (unsigned long long)(uintptr_t)bt->sh->env.code.rx,
            (unsigned long long)(bt->sh->env.common_end - bt->sh->env.code.rx));
    tc_each(&bt->sh->tc, write_name, f);
}
