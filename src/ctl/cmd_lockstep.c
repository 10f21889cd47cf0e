/* `bivisor lockstep`: the same guest on two engines, compared. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/chain.h"
#include "ctl/ctl.h"
#include "ctl/run_options.h"
#include "ctl/thaw.h"
#include "replay/lockstep.h"
#include "snapshot/snapshot.h"

#define STATUS_DIFFERENT 4
/* Lockstep has no date: it begins here. */
#define START_NS 1767225600000000000u /* 2026-01-01 */

static bool engine_counts(const char *name) {
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    for (size_t n = 0; n < count; n++)
        if (!strcmp(name, engines[n]->name) && engines[n]->counts)
            return true;
    log_error("--engines: '%s' is no engine that counts instructions", name);
    return false;
}

/* "A,B" */
static bool split_engines(struct lockstep *ls, const char *text) {
    const char *comma = strchr(text, ',');
    size_t len[2] = {comma ? (size_t)(comma - text) : 0, comma ? strlen(comma + 1) : 0};

    for (unsigned n = 0; n < 2; n++) {
        if (!len[n] || len[n] >= sizeof(ls->names[n])) {
            log_error("--engines wants two names, as in interp,bt, not '%s'", text);
            return false;
        }
        memcpy(ls->names[n], n ? comma + 1 : text, len[n]);
        if (!engine_counts(ls->names[n]))
            return false;
    }
    return true;
}

/* All of the file, to be freed; NULL after a message. */
static uint8_t *read_typed(const char *path, size_t *len) {
    struct stat st;
    uint8_t *bytes = NULL;
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size < 1 << 30) {
        bytes = malloc((size_t)st.st_size + 1);
        if (bytes)
            n = read(fd, bytes, (size_t)st.st_size);
    }
    if (n < 0) {
        log_error("--input: cannot read '%s': %s", path,
                  errno ? strerror(errno) : "it is no ordinary file");
        free(bytes);
        bytes = NULL;
    }
    if (fd >= 0)
        close(fd);
    *len = n < 0 ? 0 : (size_t)n;
    return bytes;
}

static int status_of(const struct lockstep_result *r) {
    if (r->verdict == LOCKSTEP_DIFFERENT)
        return STATUS_DIFFERENT;
    if (r->verdict == LOCKSTEP_FAILED)
        return ctl_status_of(r->rc);
    switch (r->end) {
    case MACHINE_DEBUG_EXIT:
        return r->exit_code & 0xff;
    case MACHINE_SHUTDOWN:
        return CTL_TRIPLE_FAULT;
    default:
        return CTL_OK;
    }
}

static int open_disks(void *arg, struct machine_config *cfg) {
    return disk_options_open(arg, JAIL_OFF, cfg); /* a server is refused */
}

static void close_disks(void *arg, struct machine_config *cfg) {
    disk_options_close(cfg);
}

/* --- a snapshot --- */

static int restore_memory(void *arg, struct machine *m) {
    const struct ctl_frozen *f = arg;

    return chain_show(f->chain, m);
}

static int restore(void *arg, struct machine *m) {
    const struct ctl_frozen *f = arg;
    struct freeze_increment known = {0};
    char why[512];
    struct snapshot *s = snapshot_open(f->bytes, f->len, why, sizeof(why));
    int rc = -EINVAL;

    if (s) {
        freeze_increment(s, &known); /* what is in it is in memory */
        rc = machine_restore(m, s, why, sizeof(why));
    }
    free(known.run);
    snapshot_free(s);
    if (rc)
        log_error("cannot restore '%s': %s", f->path, why);
    return rc;
}

/* --- the run --- */

static int with_input(struct lockstep *ls, struct run_options *o) {
    uint8_t *typed = NULL;
    struct lockstep_result result;

    if (o->input) {
        errno = 0;
        typed = read_typed(o->input, &ls->typed_len);
        if (!typed)
            return CTL_USAGE;
        ls->typed = typed;
    }
    ls->machine = o->machine;
    ls->open_disks = open_disks;
    ls->close_disks = close_disks;
    ls->disks = &o->disks;
    ls->no_reboot = o->no_reboot;
    ls->jail = o->jail;
    ls->every = o->every;
    ls->limit = o->limit;
    ls->inject = o->inject;
    ls->inject_at = o->inject_at;
    result = lockstep_run(ls);
    free(typed);
    return status_of(&result);
}

/* FRONT may be NULL: both boot. */
static int run(int argc, char **argv, const struct ctl_front *front) {
    struct ctl_frozen *frozen =
        front ? (struct ctl_frozen *)(uintptr_t)front->frozen : NULL;
    struct run_options o;
    struct recording rec = {0};
    struct lockstep ls = {0};
    struct boot_image *image;
    char why[512];
    int status = run_options_parse(&o, RUN_LOCKSTEP, argc, argv);
    int rc;

    if (status < 0 &&
        (!split_engines(&ls, o.engines) || !disk_options_repeat(&o.disks, "lockstep") ||
         !net_options_repeat(&o.nets, "lockstep")))
        status = CTL_USAGE;
    if (status >= 0) {
        disk_options_free(&o.disks);
        net_options_free(&o.nets);
        identity_options_free(&o.identity);
        return status;
    }
    run_options_count(&o);
    o.machine.start_ns = START_NS;
    if (o.replay) {
        rc = recording_open(o.replay, &rec, why, sizeof(why));
        if (rc) {
            log_error("%s", why);
            return ctl_status_of(rc);
        }
        ls.rec = &rec;
        o.machine.start_ns = rec.key.start_ns;
    }
    if (frozen) {
        ls.restore_memory = restore_memory;
        ls.restore = restore;
        ls.frozen = frozen;
        if (frozen->counted)
            o.machine.start_ns = frozen->start_ns;
    }
    rc = run_options_open(&o, false, &image, why, sizeof(why));
    if (rc) {
        log_error("%s", why);
        status = ctl_status_of(rc);
    } else {
        o.machine.image = image;
        status = with_input(&ls, &o);
        run_options_close(&o, image);
    }
    recording_free(&rec);
    disk_options_free(&o.disks);
    net_options_free(&o.nets);
    identity_options_free(&o.identity);
    return status;
}

int ctl_cmd_lockstep(int argc, char **argv) {
    const struct ctl_front front = {.lockstep = run};

    if (argc > 2 && !strcmp(argv[1], "--restore"))
        return thaw(argv[2], NULL, -1, argc - 3, argv + 3, &front);
    return run(argc, argv, NULL);
}
