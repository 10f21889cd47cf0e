/* A command line: words for us, then ` -- ` and what is the guest's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/hv.h"
#include "mem/mem.h"
#include "mmu/mmu.h"

#define MEMORY_DEFAULT 256u /* MiB */
#define CACHE_DEFAULT 64u   /* MiB; memory is taken for all of it at once */

static int refuse(char *why, size_t why_size, const char *word, const char *what) {
    snprintf(why, why_size, "%s: %s", word, what);
    return -EINVAL;
}

static int take_memory(const char *value, struct hv_config *c, char *why, size_t size) {
    char *end;
    uint64_t mib = strtoull(value, &end, 10);

    if (!*value || *end || mib < MEM_MIN_RAM >> 20 || mib > MEM_MAX_RAM >> 20)
        return refuse(why, size, value, "memory=MIB wants a number of MiB, 4 or more");
    c->memory = mib << 20;
    return 0;
}

static int take_cpus(const char *value, struct hv_config *c, char *why, size_t size) {
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (!*value || *end || !n || n > HV_CPUS)
        return refuse(why, size, value, "cpus=N wants a number from 1 to 16");
    c->cpus = (unsigned)n;
    return 0;
}

static int take_written(const char *value, struct hv_config *c, char *why, size_t size) {
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (!*value || *end || n < 10 || n > 3600000)
        return refuse(why, size, value,
                      "written=MS wants a number of milliseconds, from 10 to 3600000");
    c->written = (unsigned)n;
    return 0;
}

static int take_paging(const char *value, struct hv_config *c, char *why, size_t size) {
    c->svm.shadow = !strcmp(value, "shadow");
    if (c->svm.shadow || !strcmp(value, "nested"))
        return 0;
    return refuse(why, size, value, "there are paging=nested and paging=shadow");
}

static int take_exits(const char *value, struct hv_config *c, char *why, size_t size) {
    bool pure = !strcmp(value, "pure"), minimal = !strcmp(value, "minimal");

    if (!pure && !minimal && strcmp(value, "paravirtual"))
        return refuse(why, size, value,
                      "there are exits=pure, exits=minimal and exits=paravirtual");
    c->svm.exits = pure ? SVM_EXITS_PURE : SVM_EXITS_MINIMAL;
    c->paravirt = !pure && !minimal;
    return 0;
}

static int take_policy(const char *value, struct hv_config *c, char *why, size_t size) {
    static const char *const names[] = {
        [MMU_FLUSH] = "flush", [MMU_PCID] = "pcid", [MMU_TRACE] = "trace"};

    for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
        if (strcmp(value, names[n]))
            continue;
        c->policy = n;
        return 0;
    }
    return refuse(why, size, value, "there are policy=flush, policy=pcid, policy=trace");
}

static int take_trust(const char *value, struct hv_config *c, char *why, size_t size) {
    c->trusted = !strcmp(value, "devices");
    if (c->trusted || !strcmp(value, "none"))
        return 0;
    return refuse(why, size, value, "there are trust=devices and trust=none");
}

static int take_device(const char *name, struct hv_config *c, char *why, size_t size) {
    if (c->devices == HV_DEVICES)
        return refuse(why, size, name, "a guest can have four devices of the host's");
    c->device[c->devices++] = name;
    return 0;
}

static int take(char *word, struct hv_config *c, char *why, size_t size) {
    if (!strncmp(word, "engine=", 7))
        c->engine = word + 7;
    else if (!strncmp(word, "memory=", 7))
        return take_memory(word + 7, c, why, size);
    else if (!strncmp(word, "cpus=", 5))
        return take_cpus(word + 5, c, why, size);
    else if (!strncmp(word, "paging=", 7))
        return take_paging(word + 7, c, why, size);
    else if (!strncmp(word, "exits=", 6))
        return take_exits(word + 6, c, why, size);
    else if (!strncmp(word, "written=", 8))
        return take_written(word + 8, c, why, size);
    else if (!strncmp(word, "trust=", 6))
        return take_trust(word + 6, c, why, size);
    else if (!strncmp(word, "device=", 7))
        return take_device(word + 7, c, why, size);
    else if (!strncmp(word, "policy=", 7))
        return take_policy(word + 7, c, why, size);
    else if (!strncmp(word, "bt=", 3))
        return bt_options_parse(&c->bt, word + 3, why, size);
    else if (!strcmp(word, "stats"))
        c->stats = true;
    else if (strcmp(word, "end=debug-exit") != 0) /* which is the bare machine's */
        return refuse(why, size, word,
                      "no such word; there are engine=NAME, memory=MIB, cpus=N, "
                      "paging=nested or shadow, policy=flush, pcid or trace, exits=pure, "
                      "minimal or paravirtual, trust=devices, device=NAME, "
                      "written=MS, bt=OPTIONS, stats, "
                      "end=debug-exit, and -- before the guest's command line");
    return 0;
}

struct hv_config hv_config_defaults(void) {
    struct hv_config c = {.engine = "svm",
                          .cpus = 1,
                          .policy = MMU_PCID,
                          .paravirt = true,
                          .memory = (uint64_t)MEMORY_DEFAULT << 20,
                          .bt = bt_defaults(),
                          .cmdline = ""};

    c.bt.cache = CACHE_DEFAULT;
    return c;
}

int hv_config_parse(char *text, struct hv_config *out, char *why, size_t why_size) {
    int rc = 0;

    while (!rc && *text) {
        char *end = text + strcspn(text, " ");

        if (*end)
            *end++ = 0;
        if (!strcmp(text, "--")) {
            out->cmdline = end;
            return 0;
        }
        if (*text)
            rc = take(text, out, why, why_size);
        text = end;
    }
    return rc;
}

int hv_config_check(const struct hv_config *c, char *why, size_t why_size) {
    if (c->devices && !c->trusted)
        return refuse(why, why_size, "device=",
                      "a device of the host's is for a guest that trust=devices trusts");
    if (c->trusted && !c->devices)
        return refuse(why, why_size, "trust=devices",
                      "say which: device=com2, device=BUS:DEVICE.FUNCTION");
    return 0;
}
