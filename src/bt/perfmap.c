/*
 * Names for the host's perf: what is in the cache, by the guest address that it was
 * translated from. One line for each piece of code, as perf wants it in
 * /tmp/perf-PID.map: address and size in hexadecimal, name.
 */
#include <stdio.h>

#include "bt/bt_int.h"

static void write_name(void *arg, const struct ccf *c) {
    static const char *const modes[] = {"16", "32", "64"};

    fprintf(arg, "%llx %llx guest%s %s%s 0x%llx\n",
            (unsigned long long)(uintptr_t)c->code,
            (unsigned long long)(c->end - c->code), modes[KEY_MODE(c->key)],
            c->key & KEY_USER ? "user" : "kernel", c->hot ? " hot" : "",
            (unsigned long long)c->va);
}

void bt_perf_map(const struct bt *bt, FILE *f) {
    fprintf(f, "%llx %llx bt common code\n", (unsigned long long)(uintptr_t)bt->code.rx,
            (unsigned long long)(bt->code_start - bt->code.rw));
    bt_each_fragment(bt, write_name, f);
}
