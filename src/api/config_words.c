/* What a machine is to be made of, as arguments of `bivisor run`; see config.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/config.h"
#include "api/config_cpu.h"
#include "api/fields.h"

#define WORDS_MAX 160
/* What a kernel is told where nothing was said: it has no other console, and ends with
 * the machine. */
#define DEFAULT_ARGS "console=ttyS0 reboot=k panic=1"

struct words {
    char **word;
    int count;
    bool failed;
};

/* Takes TEXT over, NULL when there was no memory for it. */
static void put(struct words *w, char *text) {
    if (!text || w->count == WORDS_MAX) {
        free(text);
        w->failed = true;
        return;
    }
    w->word[w->count++] = text;
}

static void put_plain(struct words *w, const char *text) {
    put(w, strdup(text));
}

static void put_option(struct words *w, const char *name, const char *value) {
    if (!value)
        return;
    put_plain(w, name);
    put_plain(w, value);
}

static void put_number(struct words *w, const char *name, int64_t n, const char *unit) {
    char *text;

    put_plain(w, name);
    put(w, asprintf(&text, "%lld%s", (long long)n, unit) < 0 ? NULL : text);
}

/* TEXT with its commas twice, as options want it; the caller's. */
static char *escaped(const char *text) {
    char *out = malloc(2 * strlen(text) + 1), *to = out;

    for (; out && *text; text++) {
        *to++ = *text;
        if (*text == ',')
            *to++ = ',';
    }
    if (out)
        *to = 0;
    return out;
}

static void put_drive(struct words *w, const cJSON *drive) {
    char *path = escaped(fields_text(drive, "path_on_host", "")), *text = NULL;

    if (path && asprintf(&text, "%s%s", path,
                         fields_bool(drive, "is_read_only") ? ",readonly" : "") < 0)
        text = NULL;
    free(path);
    put_plain(w, "--disk");
    put(w, text);
}

/* The root's is the first. */
static void put_drives(struct words *w, const cJSON *drives) {
    const cJSON *drive;

    for (unsigned root = 1; root < 2; root--)
        cJSON_ArrayForEach(drive, drives) {
            if (fields_bool(drive, "is_root_device") == root)
                put_drive(w, drive);
        }
}

static void put_net(struct words *w, const cJSON *net) {
    const char *mac = fields_text(net, "guest_mac", NULL);
    const char *how = fields_text(net, "net", NULL);
    int64_t mtu = fields_number(net, "mtu", 0);
    char *tap = escaped(fields_text(net, "host_dev_name", "")), *text = NULL;
    char more[32] = "";

    if (mtu)
        snprintf(more, sizeof(more), ",mtu=%lld", (long long)mtu);
    if (tap && asprintf(&text, "%s%s%s%s%s", how ? how : "tap=", how ? "" : tap,
                        mac ? ",mac=" : "", mac ? mac : "", more) < 0)
        text = NULL;
    free(tap);
    put_plain(w, "--net");
    put(w, text);
}

static void put_nets(struct words *w, const cJSON *nets) {
    const cJSON *net;

    cJSON_ArrayForEach(net, nets) put_net(w, net);
}

/* What the kernel is told of its root, besides. */
static char *boot_args(const struct config *c) {
    const char *args = fields_text(c->part[CONFIG_BOOT], "boot_args", DEFAULT_ARGS);
    const char *uuid = NULL, *mode = "";
    const cJSON *drive;
    char *text;

    cJSON_ArrayForEach(drive, c->part[CONFIG_DRIVES]) {
        if (!fields_bool(drive, "is_root_device"))
            continue;
        mode = fields_bool(drive, "is_read_only") ? " ro" : " rw";
        uuid = fields_text(drive, "partuuid", NULL);
    }
    if (asprintf(&text, "%s%s%s%s", args,
                 !*mode ? ""
                 : uuid ? " root=PARTUUID="
                        : " root=/dev/vda",
                 *mode && uuid ? uuid : "", mode) < 0)
        return NULL;
    return text;
}

static void put_vsock(struct words *w, const cJSON *vsock) {
    char *text;

    put_plain(w, "--vsock");
    if (asprintf(&text, "CID=%lld,path=%s",
                 (long long)fields_number(vsock, "guest_cid", 3),
                 fields_text(vsock, "uds_path", "")) < 0)
        text = NULL;
    put(w, text);
}

static void put_serial(struct words *w, const cJSON *serial) {
    const char *path = fields_text(serial, "serial_out_path", NULL);
    char *text;

    if (!path)
        return;
    put_plain(w, "--serial");
    put(w, asprintf(&text, "file=%s", path) < 0 ? NULL : text);
}

/* The CPU of the settings, or the default, as the template changes it. */
static void put_cpu(struct words *w, const struct config *c) {
    const char *name = fields_text(c->part[CONFIG_SETTINGS], "cpu", NULL);

    if (!name && !c->part[CONFIG_CPU])
        return;
    put_plain(w, "--cpu");
    put(w, config_cpu_word(name, c->part[CONFIG_CPU]));
}

static void put_settings(struct words *w, const cJSON *settings) {
    put_option(w, "--engine", fields_text(settings, "engine", NULL));
    put_option(w, "--bt", fields_text(settings, "bt", NULL));
    put_option(w, "--direct", fields_text(settings, "direct", NULL));
    put_option(w, "--snapshots", fields_text(settings, "snapshots", NULL));
    put_option(w, "--name", fields_text(settings, "name", NULL));
    if (fields_number(settings, "cpu_quota", 0))
        put_number(w, "--cpu-quota", fields_number(settings, "cpu_quota", 0), "");
}

static void put_all(struct words *w, const struct config *c, bool pci) {
    const cJSON *boot = c->part[CONFIG_BOOT], *settings = c->part[CONFIG_SETTINGS];

    pci |= fields_bool(settings, "pci");
    put_plain(w, "--no-reboot");
    put_option(w, "--kernel", fields_text(boot, "kernel_image_path", ""));
    put_option(w, "--initrd", fields_text(boot, "initrd_path", NULL));
    put_plain(w, "--append");
    put(w, boot_args(c));
    put_number(w, "--memory",
               fields_number(c->part[CONFIG_MACHINE], "mem_size_mib", CONFIG_DEFAULT_MIB),
               "M");
    put_number(w, "--cpus", fields_number(c->part[CONFIG_MACHINE], "vcpu_count", 1), "");
    put_option(w, "--virtio", pci ? "pci" : "mmio");
    if (!pci)
        put_plain(w, "--no-pci");
    put_drives(w, c->part[CONFIG_DRIVES]);
    put_nets(w, c->part[CONFIG_NETS]);
    if (c->part[CONFIG_BALLOON])
        put_plain(w, fields_bool(c->part[CONFIG_BALLOON], "deflate_on_oom")
                         ? "--balloon"
                         : "--balloon=strict");
    if (c->part[CONFIG_VSOCK])
        put_vsock(w, c->part[CONFIG_VSOCK]);
    if (!c->part[CONFIG_ENTROPY])
        put_plain(w, "--no-rng");
    if (fields_number(settings, "memory_ceiling_mib", 0))
        put_number(w, "--memory-ceiling",
                   fields_number(settings, "memory_ceiling_mib", 0), "M");
    put_serial(w, c->part[CONFIG_SERIAL]);
    put_cpu(w, c);
    put_settings(w, settings);
}

/* What W holds, ended with a NULL; the caller's. NULL: out of memory. */
static char **whole(struct words *w, int *count) {
    if (w->failed) {
        config_words_free(w->word);
        return NULL;
    }
    *count = w->count;
    return w->word;
}

static bool begin(struct words *w) {
    *w = (struct words){.word = calloc(WORDS_MAX + 1, sizeof(char *))};
    return w->word;
}

char **config_words(const struct config *c, bool pci, int *count) {
    struct words w;

    if (!begin(&w))
        return NULL;
    put_all(&w, c, pci);
    return whole(&w, count);
}

char **config_words_restore(const struct config *c, int *count) {
    struct words w;

    if (!begin(&w))
        return NULL;
    put_plain(&w, "--no-reboot");
    put_settings(&w, c->part[CONFIG_SETTINGS]);
    put_cpu(&w, c);
    return whole(&w, count);
}

char **config_words_override(const struct config *c, bool nets, bool vsock, int *count) {
    struct words w;

    if (!begin(&w))
        return NULL;
    if (nets)
        put_nets(&w, c->part[CONFIG_NETS]);
    if (vsock && c->part[CONFIG_VSOCK])
        put_vsock(&w, c->part[CONFIG_VSOCK]);
    return whole(&w, count);
}

char **config_words_copies(const struct config *c) {
    const cJSON *words =
                    cJSON_GetObjectItemCaseSensitive(c->part[CONFIG_SETTINGS], "copies"),
                *word;
    struct words w;
    int count;

    if (!cJSON_IsArray(words) || !begin(&w))
        return NULL;
    cJSON_ArrayForEach(word, words) put_plain(&w, word->valuestring);
    return whole(&w, &count);
}

void config_words_free(char **words) {
    for (char **w = words; w && *w; w++)
        free(*w);
    free(words);
}
