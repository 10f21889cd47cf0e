/* The process that makes the files of snapshots; see snapshots.h. It takes an order and a
 * name, answers with 0 or -errno, and with two descriptors where files were made. It ends
 * when the other end of its socket is closed. */
#include "ctl/snapshots.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/draft.h"
#include "base/os.h"
#include "ctl/pack.h"

enum what { BEGIN, KEEP, PACK, DROP };

struct order {
    uint32_t what;
    char name[SNAPSHOTS_NAME];
};

struct snapshots {
    int fd;
    char path[PATH_MAX];
};

/* A control message that has two descriptors. */
union room {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(2 * sizeof(int))];
};

bool snapshots_name_good(const char *name) {
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789._-");

    return len && !name[len] && len < SNAPSHOTS_NAME - 16 && name[0] != '.';
}

/* --- in the process --- */

enum file { STATE, RAM, PACKED, FILES };

static const char *const suffix[FILES] = {"", ".ram", ".ram.zst"};

/* What file N of the snapshot NAME is called. */
static const char *file_name(const char *name, enum file n,
                             char out[SNAPSHOTS_NAME + 16]) {
    snprintf(out, SNAPSHOTS_NAME + 16, "%s%s", name, suffix[n]);
    return out;
}

static void drop(int dir, const char *name) {
    char file[SNAPSHOTS_NAME + 16];

    for (enum file n = 0; n < FILES; n++)
        draft_drop(dir, file_name(name, n, file));
}

static int begin(int dir, const char *name, int fd[2]) {
    char file[SNAPSHOTS_NAME + 16];

    drop(dir, name);
    for (enum file n = STATE; n <= RAM; n++) {
        fd[n] = draft_make(dir, file_name(name, n, file));
        if (fd[n] < 0)
            return fd[n];
    }
    return 0;
}

/* MEMORY is the file that it is in. The state comes last: who sees it finds the memory,
 * and only this one. */
static int keep(int dir, const char *name, enum file memory) {
    char file[SNAPSHOTS_NAME + 16];
    int rc = draft_keep(dir, file_name(name, memory, file));

    if (rc)
        return rc;
    if (unlinkat(dir, file_name(name, memory == RAM ? PACKED : RAM, file), 0) &&
        errno != ENOENT)
        return -errno;
    return draft_keep(dir, name);
}

static int pack(int dir, const char *name) {
    char file[SNAPSHOTS_NAME + 16];
    int from = draft_open(dir, file_name(name, RAM, file)), to;
    int rc = from < 0 ? from : 0;

    if (rc)
        return rc;
    to = draft_make(dir, file_name(name, PACKED, file));
    rc = to < 0 ? to : pack_file(from, to);
    close(from);
    if (to >= 0)
        close(to);
    if (!rc)
        rc = keep(dir, name, PACKED);
    drop(dir, name);
    return rc;
}

static bool answer(int socket, int rc, const int fd[2]) {
    union room room = {.header = {.cmsg_len = CMSG_LEN(2 * sizeof(int)),
                                  .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {&rc, sizeof(rc)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (!rc && fd[1] >= 0) {
        memcpy(CMSG_DATA(&room.header), fd, 2 * sizeof(int));
        m.msg_control = room.bytes;
        m.msg_controllen = sizeof(room.bytes);
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL) >= 0;
}

static bool serve_one(int socket, int dir, struct order *o) {
    int fd[2] = {-1, -1}, rc = 0;
    bool good;

    o->name[sizeof(o->name) - 1] = 0;
    if (!snapshots_name_good(o->name))
        rc = -EINVAL;
    else if (o->what == BEGIN)
        rc = begin(dir, o->name, fd);
    else if (o->what == KEEP)
        rc = keep(dir, o->name, RAM);
    else if (o->what == PACK)
        rc = pack(dir, o->name);
    else
        drop(dir, o->name);
    good = answer(socket, rc, fd);
    for (unsigned n = 0; n < 2; n++)
        if (fd[n] >= 0)
            close(fd[n]);
    return good;
}

static void serve(int socket, int dir, enum jail_want jail) {
    const int ends[] = {socket, dir, STDERR_FILENO};
    struct order o;
    ssize_t n;

    os_helper_begin("bivisor-files", ends, ARRAY_SIZE(ends));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Where it cannot be, our parent's cannot either, and that tells. */
    if (jail != JAIL_OFF && os_jail_keeper(dir) && jail == JAIL_ON)
        _exit(0);
    while ((n = read(socket, &o, sizeof(o))) == sizeof(o) || (n < 0 && errno == EINTR))
        if (n > 0 && !serve_one(socket, dir, &o))
            break;
    _exit(0);
}

/* --- in ours --- */

int snapshots_open(const char *dir, enum jail_want jail, struct snapshots **out,
                   char *why, size_t why_size) {
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ends[2] = {-1, -1}, rc = 0;
    struct snapshots *s = calloc(1, sizeof(*s));
    pid_t pid = -1;

    if (at < 0 || !s || !realpath(dir, s->path) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        rc = s ? -errno : -ENOMEM;
    if (!rc) {
        pid = fork();
        rc = pid < 0 ? -errno : 0;
    }
    if (!pid)
        serve(ends[1], at, jail);
    if (at >= 0)
        close(at);
    if (ends[1] >= 0)
        close(ends[1]);
    if (!rc) {
        s->fd = ends[0];
        *out = s;
        return 0;
    }
    snprintf(why, why_size, "cannot use the directory '%s': %s", dir, strerror(-rc));
    if (ends[0] >= 0)
        close(ends[0]);
    free(s);
    return rc;
}

void snapshots_close(struct snapshots *s) {
    if (s)
        close(s->fd);
    free(s);
}

const char *snapshots_path(const struct snapshots *s) {
    return s->path;
}

int snapshots_socket(const struct snapshots *s) {
    return s->fd;
}

static int order(struct snapshots *s, enum what what, const char *name) {
    struct order o = {.what = what};

    if (!snapshots_name_good(name))
        return -EINVAL;
    strcpy(o.name, name);
    return send(s->fd, &o, sizeof(o), MSG_NOSIGNAL) == sizeof(o) ? 0 : -EPIPE;
}

/* 0 or -errno; FD gets what comes with the answer. */
static int hear(struct snapshots *s, int fd[2]) {
    union room room;
    int rc = -EPIPE;
    struct iovec iov = {&rc, sizeof(rc)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = room.bytes,
                       .msg_controllen = sizeof(room.bytes)};
    struct cmsghdr *h;

    while (recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC) < 0)
        if (errno != EINTR)
            return -EPIPE;
    h = CMSG_FIRSTHDR(&m);
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
        h->cmsg_len == CMSG_LEN(2 * sizeof(int)))
        memcpy(fd, CMSG_DATA(h), 2 * sizeof(int));
    return rc;
}

static int ask(struct snapshots *s, enum what what, const char *name, int fd[2]) {
    int rc = order(s, what, name);

    return rc ? rc : hear(s, fd);
}

static void close_files(int fd[2]) {
    for (unsigned n = 0; n < 2; n++)
        if (fd[n] >= 0)
            close(fd[n]);
    fd[0] = fd[1] = -1;
}

int snapshots_begin(struct snapshots *s, const char *name, int fd[2]) {
    int rc;

    fd[0] = fd[1] = -1;
    rc = ask(s, BEGIN, name, fd);
    return !rc && fd[1] < 0 ? -EPIPE : rc;
}

int snapshots_end(struct snapshots *s, const char *name, int fd[2], bool whole) {
    int none[2];

    close_files(fd);
    return ask(s, whole ? KEEP : DROP, name, none);
}

int snapshots_pack(struct snapshots *s, const char *name, int fd[2]) {
    close_files(fd);
    return order(s, PACK, name);
}

int snapshots_packed(struct snapshots *s) {
    int none[2];

    return hear(s, none);
}
