/* The files that a run writes; see outputs.h. */
#include "ctl/outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ctl.h"
#include "stream/stream.h"

/* --- files that are taken --- */

struct taken {
    const char *what;
    dev_t dev;
    ino_t ino;
};

struct files {
    struct taken taken[10 + 2 * MACHINE_DISKS + MACHINE_CONSOLES + MACHINE_SERIALS];
    unsigned count;
};

/* Ordinary files only: what is written to a device or a pipe destroys nothing. */
static void take(struct files *files, const char *what, int rc, const struct stat *st) {
    if (!rc && S_ISREG(st->st_mode) && files->count < ARRAY_SIZE(files->taken))
        files->taken[files->count++] = (struct taken){what, st->st_dev, st->st_ino};
}

static void take_path(struct files *files, const char *what, const char *path) {
    struct stat st;

    if (path)
        take(files, what, stat(path, &st), &st);
}

static void take_fd(struct files *files, const char *what, int fd) {
    struct stat st;

    take(files, what, fstat(fd, &st), &st);
}

/* False after a message: PATH, which OPTION is to write, is a file that is taken. */
static bool is_free(const struct files *files, const char *option, const char *path) {
    struct stat st;

    if (stat(path, &st))
        return true;
    for (unsigned n = 0; n < files->count; n++) {
        if (files->taken[n].dev != st.st_dev || files->taken[n].ino != st.st_ino)
            continue;
        log_error("%s would write over %s: '%s' is the same file", option,
                  files->taken[n].what, path);
        return false;
    }
    return true;
}

/* --- opening --- */

/* A symbolic link to a device or a pipe, as /dev/stdout is, destroys nothing. */
static int open_link(const char *path) {
    int at = open(path, O_PATH | O_CLOEXEC), fd = -1;
    char name[32];
    struct stat st;

    if (at < 0)
        return -1;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", at);
    errno = ELOOP;
    if (!fstat(at, &st) && !S_ISREG(st.st_mode))
        fd = open(name, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    close(at);
    return fd;
}

static const char *reason(int error) {
    return error == ELOOP ? "it is a symbolic link; name the file itself"
                          : strerror(error);
}

/* A file that the user named. What is in it stays there for now. */
static bool open_named(struct output *o, const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0666);

    if (fd < 0 && errno == ELOOP)
        fd = open_link(path);
    o->path = path;
    o->f = fd < 0 ? NULL : fdopen(fd, "w");
    o->error = o->f ? 0 : errno;
    return o->f;
}

/* A file with a name that we make up. A link of that name, or a file that is known by
 * another name as well, may be anyone's trap: the name is taken away from it. */
static bool open_anew(struct output *o) {
    int fd;

    unlink(o->name);
    fd = open(o->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    o->path = o->name;
    o->f = fd < 0 ? NULL : fdopen(fd, "w");
    o->error = o->f ? 0 : errno;
    return o->f;
}

static int open_stats(struct outputs *out, struct files *files,
                      const struct run_options *o) {
    struct output *now = &out->now;
    int n;

    if (!o->stats_path) {
        now->f = stderr;
        out->stats.f = o->stats ? stderr : NULL;
        return -1;
    }
    n = snprintf(now->name, sizeof(now->name), "%s.now", o->stats_path);
    if (!is_free(files, "--stats", o->stats_path))
        return CTL_USAGE;
    if (!open_named(&out->stats, o->stats_path)) {
        log_error("cannot write statistics to '%s': %s", o->stats_path,
                  reason(out->stats.error));
        return out->stats.error == ELOOP ? CTL_USAGE : CTL_HOST_FAILURE;
    }
    take_fd(files, "what --stats writes", fileno(out->stats.f));
    if (n < 0 || (size_t)n >= sizeof(now->name))
        now->error = ENAMETOOLONG;
    else if (!is_free(files, "--stats, which writes FILE.now at SIGUSR1,", now->name))
        return CTL_USAGE;
    else
        open_anew(now);
    return -1;
}

static int open_record(struct outputs *out, struct files *files,
                       const struct run_options *o) {
    if (!o->record)
        return -1;
    if (!is_free(files, "--record", o->record))
        return CTL_USAGE;
    if (!open_named(&out->record, o->record)) {
        log_error("cannot write the recording '%s': %s", o->record,
                  reason(out->record.error));
        return CTL_USAGE;
    }
    take_fd(files, "what --record writes", fileno(out->record.f));
    return -1;
}

/* perf reads it when it reports. */
static int open_map(struct outputs *out, const struct run_options *o) {
    struct output *map = &out->map;

    if (!o->perf_map)
        return -1;
    snprintf(map->name, sizeof(map->name), "/tmp/perf-%d.map", (int)getpid());
    if (open_anew(map))
        return -1;
    log_error("cannot write %s: %s", map->name, strerror(map->error));
    return CTL_HOST_FAILURE;
}

/* What other options name, and the standard descriptors. */
static void take_all(struct files *files, const struct run_options *o) {
    take_path(files, "the kernel", o->kernel);
    take_path(files, "the initial RAM disk", o->initrd);
    take_path(files, "the firmware", o->firmware);
    take_path(files, "the firmware's variables", o->firmware_vars);
    take_path(files, "the recording that is replayed", o->replay);
    for (unsigned n = 0; n < o->disks.count; n++) {
        take_path(files, "a disk", o->disks.disk[n].spec.path);
        take_path(files, "an overlay", disk_option_overlay(&o->disks.disk[n]));
    }
    take_fd(files, "standard input", STDIN_FILENO);
    take_fd(files, "standard output", STDOUT_FILENO);
    take_fd(files, "standard error", STDERR_FILENO);
}

bool outputs_spare(const struct run_options *o) {
    struct files files = {0};
    bool good = true;

    take_all(&files, o);
    for (unsigned n = 0; n < o->consoles.count && good; n++) {
        const char *path = console_option_file(&o->consoles.port[n]);

        good = !path || is_free(&files, "--console", path);
    }
    for (unsigned n = 0; n < o->serials.count && good; n++) {
        const char *path = stream_file(o->serials.how[n]);

        good = !path || is_free(&files, "--serial", path);
    }
    return good;
}

int outputs_open(struct outputs *out, const struct run_options *o) {
    struct files files = {0};
    int status;

    *out = (struct outputs){0};
    take_all(&files, o);
    for (unsigned n = 0; n < o->consoles.count; n++)
        take_path(&files, "what --console writes",
                  console_option_file(&o->consoles.port[n]));
    for (unsigned n = 0; n < o->serials.count; n++)
        take_path(&files, "what --serial writes", stream_file(o->serials.how[n]));
    status = open_record(out, &files, o);
    if (status < 0)
        status = open_stats(out, &files, o);
    if (status < 0)
        status = open_map(out, o);
    if (status >= 0)
        outputs_close(out);
    else if (out->stats.path)
        output_begin(&out->stats); /* an earlier run's figures are not this one's */
    return status;
}

static bool close_one(struct output *o) {
    FILE *f = o->f;

    o->f = NULL;
    if (!f || f == stderr || !fclose(f))
        return true;
    log_error("cannot write '%s': %s", o->path, strerror(errno));
    return false;
}

bool outputs_close(struct outputs *out) {
    bool good = close_one(&out->stats);

    good &= close_one(&out->now);
    good &= close_one(&out->record);
    good &= close_one(&out->map);
    return good;
}
