/* Records of a snapshot that are the command line's; see freeze.h. */
#include "ctl/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "api/api.h"
#include "base/os.h"
#include "block/block.h"
#include "cpu/cpuid.h"

/* --- the options --- */

struct words {
    const struct run_options *o;
    char *buf; /* reading */
    size_t size;
    const char **word;
    size_t max, count;
};

static void put_word(struct snapshot *s, const char *text) {
    snapshot_bytes(s, (void *)(uintptr_t)text, strlen(text) + 1);
}

static void put_option(struct snapshot *s, const struct run_given *g) {
    char name[64];

    snprintf(name, sizeof(name), "--%s", g->name);
    put_word(s, name);
    if (g->value)
        put_word(s, g->value);
}

/* The CPU is named, whichever another host's default is. */
static void write_words(struct words *w, struct snapshot *s) {
    bool cpu = false;

    for (size_t n = 0; n < w->o->given_count; n++) {
        cpu |= !strcmp(w->o->given[n].name, "cpu");
        put_option(s, &w->o->given[n]);
    }
    if (!cpu)
        put_option(s, &(struct run_given){"cpu", cpuid_model_default()});
}

static void words_state(void *arg, struct snapshot *s) {
    struct words *w = arg;
    size_t len, at = 0;

    if (!snapshot_reading(s)) {
        write_words(w, s);
        return;
    }
    len = snapshot_left(s);
    if (len >= w->size) {
        snapshot_need(s, false);
        return;
    }
    snapshot_bytes(s, w->buf, len);
    w->buf[len] = 0;
    while (at < len && w->count < w->max) {
        w->word[w->count++] = w->buf + at;
        at += strlen(w->buf + at) + 1;
    }
    snapshot_need(s, at == len);
}

bool freeze_options(struct snapshot *s, char *buf, size_t size, const char **words,
                    size_t max, size_t *count) {
    struct words w = {.buf = buf, .size = size, .word = words, .max = max};

    snapshot_optional(s, "options", 0, 1, words_state, &w);
    *count = w.count;
    return snapshot_good(s) && w.count;
}

size_t freeze_given(const struct run_options *o, char *buf, size_t size,
                    const char **words, size_t max) {
    size_t count = 0, at = 0;

    for (size_t n = 0; n < o->given_count; n++) {
        const struct run_given *g = &o->given[n];
        int len = snprintf(buf + at, size - at, "--%s", g->name);

        if (count + 2 > max || (size_t)len >= size - at)
            return 0;
        words[count++] = buf + at;
        at += (size_t)len + 1;
        if (g->value)
            words[count++] = g->value;
    }
    return count;
}

/* --- the disks --- */

/* A raw image, which nobody writes to but a guest; of a qcow2 image the end of a run
 * changes the header. */
static bool is_watched(const struct disk_option *d) {
    return !d->spec.readonly && !d->spec.overlay && !block_is_server(d->spec.path) &&
           d->spec.format != BLOCK_QCOW2;
}

static uint64_t changed_ns(const struct stat *st) {
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

struct disks {
    const struct freeze *f;
    char *why; /* reading */
    size_t why_size;
    bool good;
};

static void disk_state(struct disks *d, const char *path, uint64_t changed,
                       struct snapshot *s) {
    char name[4096] = "";
    uint16_t len = path ? (uint16_t)strlen(path) : 0;
    struct stat st;

    SNAPSHOT_UPTO(s, len, sizeof(name) - 1);
    if (path)
        memcpy(name, path, len);
    snapshot_bytes(s, name, len);
    SNAPSHOT(s, changed);
    if (!snapshot_reading(s) || !snapshot_good(s) || !changed)
        return;
    name[len] = 0;
    if (stat(name, &st) || changed_ns(&st) == changed)
        return; /* one that is not there is told of when it is opened */
    d->good = false;
    snprintf(d->why, d->why_size,
             "the disk '%s' was written to since; name what it was then by --disk", name);
}

static void disks_state(void *arg, struct snapshot *s) {
    struct disks *d = arg;
    uint32_t count = d->f ? d->f->watched : 0;

    SNAPSHOT_UPTO(s, count, MACHINE_DISKS);
    for (unsigned n = 0; n < count; n++)
        disk_state(d, d->f ? d->f->watch[n].path : NULL,
                   d->f ? d->f->watch[n].changed : 0, s);
}

bool freeze_disks(struct snapshot *s, char *why, size_t why_size) {
    struct disks d = {.why = why, .why_size = why_size, .good = true};

    snapshot_optional(s, "disks", 0, 1, disks_state, &d);
    return d.good;
}

/* False: what the guest wrote to a disk ends with this run. */
bool freeze_disks_last(const struct freeze *f) {
    for (unsigned n = 0; n < f->options->disks.count; n++) {
        const char *overlay = f->options->disks.disk[n].spec.overlay;

        if (overlay && !strcmp(overlay, "temp"))
            return false;
    }
    return true;
}

/* Descriptors, since the jail lets nobody look at names. */
void freeze_watch(struct freeze *f) {
    for (unsigned n = 0; n < f->options->disks.count; n++) {
        const struct disk_option *d = &f->options->disks.disk[n];

        if (!is_watched(d))
            continue;
        f->watch[f->watched].path = d->spec.path;
        f->watch[f->watched].fd = open(d->spec.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        f->watched++;
    }
}

void freeze_exchanged(struct freeze *f, unsigned n, const char *old, int fd) {
    const struct disk_option *d = &f->options->disks.disk[n];
    unsigned k = 0;

    while (k < f->watched && f->watch[k].path != old)
        k++;
    if (k < f->watched && f->watch[k].fd >= 0)
        close(f->watch[k].fd);
    if (is_watched(d)) {
        f->watch[k].path = d->spec.path;
        f->watch[k].fd = fd;
        f->watched += k == f->watched;
        return;
    }
    close(fd);
    if (k < f->watched)
        f->watch[k] = f->watch[--f->watched];
}

void freeze_end(struct freeze *f) {
    while (f->watched) {
        int fd = f->watch[--f->watched].fd;

        if (fd >= 0)
            close(fd);
    }
}

/* In the jail, which has fstat(2) but not what glibc makes of fstat(3). */
static void look_at_disks(struct freeze *f) {
    struct stat st;

    for (unsigned n = 0; n < f->watched; n++)
        f->watch[n].changed =
            syscall(SYS_fstat, f->watch[n].fd, &st) || !S_ISREG(st.st_mode)
                ? 0
                : changed_ns(&st);
}

/* --- the host --- */

/* Of the same host, since it was started: its counter has the same pace. */
static void host_state(void *arg, struct snapshot *s) {
    struct freeze *f = arg;
    uint64_t hz = snapshot_reading(s) ? 0 : os_tsc_hz();
    char boot[FREEZE_BOOT];

    memcpy(boot, f->boot, sizeof(boot));
    snapshot_bytes(s, boot, sizeof(boot));
    SNAPSHOT(s, hz);
    if (snapshot_reading(s) && *boot && !memcmp(boot, f->boot, sizeof(boot)) &&
        hz > 100000000 && hz < 20000000000)
        os_tsc_hz_known(hz);
}

void freeze_look(struct freeze *f) {
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, f->boot, sizeof(f->boot)) != sizeof(f->boot))
        *f->boot = 0;
    if (fd >= 0)
        close(fd);
}

void freeze_host(struct snapshot *s) {
    struct freeze f = {0};

    freeze_look(&f);
    snapshot_optional(s, "host", 0, 1, host_state, &f);
}

/* --- what the machine's own record says --- */

struct counted {
    bool there;
    uint64_t start_ns;
};

static void counted_state(void *arg, struct snapshot *s) {
    struct counted *c = arg;

    c->there = true;
    SNAPSHOT(s, c->start_ns);
}

bool freeze_counted(struct snapshot *s, uint64_t *start_ns) {
    struct counted c = {0};

    snapshot_optional(s, "counted", 0, 1, counted_state, &c);
    *start_ns = c.start_ns;
    return c.there;
}

/* --- what the API said of the machine --- */

static void api_state(void *arg, struct snapshot *s) {
    char **text = arg;
    size_t len = snapshot_reading(s) ? snapshot_left(s) : strlen(*text);

    if (snapshot_reading(s))
        *text = calloc(1, len + 1);
    if (*text)
        snapshot_bytes(s, *text, len);
}

char *freeze_api(struct snapshot *s) {
    char *text = NULL;

    snapshot_optional(s, "api", 0, 1, api_state, &text);
    return text;
}

static void write_api(const struct freeze *f, struct snapshot *s) {
    char *text = f->api ? api_kept(f->api) : NULL;

    if (text)
        snapshot_optional(s, "api", 0, 1, api_state, &text);
    free(text);
}

/* --- memory --- */

struct ram {
    uint8_t *id;
    bool signed_ram;
};

/* Version 1 is of a time when memory did not say whose it is. */
static void ram_state(void *arg, struct snapshot *s) {
    struct ram *r = arg;

    snapshot_bytes(s, r->id, FREEZE_ID);
    r->signed_ram = snapshot_version(s) >= 2;
}

bool freeze_ram(struct snapshot *s, uint8_t id[FREEZE_ID], bool *signed_ram) {
    static const uint8_t none[FREEZE_ID];
    struct ram r = {.id = id};

    snapshot_optional(s, "ram", 0, 2, ram_state, &r);
    *signed_ram = r.signed_ram;
    return memcmp(id, none, FREEZE_ID) != 0;
}

/* What stands behind memory; zeros fill the page. */
struct tail {
    char magic[8];
    uint32_t version, zero;
    uint8_t id[FREEZE_ID];
};

static struct tail tail_of(const uint8_t id[FREEZE_ID]) {
    struct tail t = {.magic = "BIVISRAM", .version = 1};

    memcpy(t.id, id, FREEZE_ID);
    return t;
}

int freeze_sign(int fd, uint64_t size, const uint8_t id[FREEZE_ID]) {
    const struct tail t = tail_of(id);
    uint8_t page[FREEZE_TAIL] = {0};

    memcpy(page, &t, sizeof(t));
    return os_write_at(fd, page, sizeof(page), size);
}

bool freeze_signed(int fd, uint64_t size, const uint8_t id[FREEZE_ID]) {
    const struct tail good = tail_of(id);
    struct tail t;

    return pread(fd, &t, sizeof(t), (off_t)size) == sizeof(t) &&
           !memcmp(&t, &good, sizeof(t));
}

static void path_state(char path[FREEZE_PATH], struct snapshot *s) {
    uint16_t len = (uint16_t)strlen(path);

    SNAPSHOT_UPTO(s, len, FREEZE_PATH - 1);
    snapshot_bytes(s, path, len);
    if (!snapshot_reading(s))
        return;
    path[len] = 0;
    snapshot_need(s, len && strlen(path) == len);
}

static void memory_state(void *arg, struct snapshot *s) {
    path_state(arg, s);
}

bool freeze_memory(struct snapshot *s, char path[FREEZE_PATH]) {
    if (snapshot_reading(s))
        *path = 0;
    if (snapshot_reading(s) || *path)
        snapshot_optional(s, "memory", 0, 1, memory_state, path);
    return snapshot_good(s);
}

static void base_state(struct freeze_increment *i, struct snapshot *s) {
    snapshot_bytes(s, i->base_id, FREEZE_ID);
    path_state(i->base, s);
}

/* In ascending order, and apart: so there is an end to them. */
static void read_runs(struct freeze_increment *i, struct snapshot *s) {
    uint64_t last = 0;

    if (i->count > snapshot_left(s) / sizeof(*i->run)) {
        snapshot_need(s, false);
        i->count = 0;
    }
    i->run = calloc(i->count + 1u, sizeof(*i->run));
    if (!i->run) {
        snapshot_refuse(s, "there is no memory to read it");
        i->count = 0;
    }
    for (uint32_t n = 0; n < i->count; n++) {
        SNAPSHOT(s, i->run[n].from);
        SNAPSHOT(s, i->run[n].end);
        snapshot_need(s, i->run[n].from < i->run[n].end && (!n || i->run[n].from > last));
        last = i->run[n].end;
    }
}

static void increment_state(void *arg, struct snapshot *s) {
    struct freeze_increment *i = arg;

    i->there = true;
    base_state(i, s);
    SNAPSHOT(s, i->count);
    if (snapshot_reading(s)) {
        read_runs(i, s);
        return;
    }
    for (uint32_t n = 0; n < i->count; n++) {
        SNAPSHOT(s, i->run[n].from);
        SNAPSHOT(s, i->run[n].end);
    }
}

bool freeze_increment(struct snapshot *s, struct freeze_increment *i) {
    if (snapshot_reading(s))
        snapshot_needed(s, "increment", 0, 1, increment_state, i);
    else
        snapshot_record(s, "increment", 0, 1, increment_state, i);
    return snapshot_good(s);
}

/* --- all of them --- */

void freeze_write(struct freeze *f, struct snapshot *s) {
    struct words w = {.o = f->options};
    struct disks d = {.f = f};

    look_at_disks(f);
    snapshot_optional(s, "options", 0, 1, words_state, &w);
    snapshot_optional(s, "disks", 0, 1, disks_state, &d);
    snapshot_optional(s, "host", 0, 1, host_state, f);
    write_api(f, s);
}
