/*
 * The server's process; see share.h. It sleeps in read(2) of its socket, by which it is
 * woken, and which ends when the machine's process has.
 *
 * The machine's process may have fallen to its guest: what it wrote into the arena is
 * checked here as what a guest sends.
 */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "share/share_int.h"

#define FDS_FEW                                                                          \
    64u /* besides those of nodes: open files, and locks, of a small limit               \
         */

static const struct protocol *const protocols[] = {
    [SHARE_9P] = &p9_protocol, [SHARE_FUSE] = &fuse_protocol};

/* --- messages --- */

static void serve_one(const struct protocol *p, void *state, struct arena *a,
                      unsigned n) {
    struct slot *s = &a->slot[n];
    uint32_t len = __atomic_load_n(&s->len, __ATOMIC_RELAXED);
    uint32_t room = __atomic_load_n(&s->room, __ATOMIC_RELAXED);

    s->answer = 0;
    if (s->reset)
        p->reset(state);
    else if (len <= SHARE_MESSAGE && room <= SHARE_MESSAGE)
        s->answer = p->serve(state, a->message[n], len, a->answer[n], room);
}

void server_serve(const struct protocol *p, void *state, struct arena *a,
                  uint32_t *took) {
    while (*took != __atomic_load_n(&a->todo.put, __ATOMIC_ACQUIRE)) {
        uint32_t n = a->todo.slot[*took % SHARE_SLOTS], put = a->done.put;

        ++*took;
        if (n >= SHARE_SLOTS)
            continue;
        serve_one(p, state, a, n);
        a->done.slot[put % SHARE_SLOTS] = n;
        __atomic_store_n(&a->done.put, put + 1, __ATOMIC_SEQ_CST);
    }
}

/* Sleeps until there is something to do. False: nobody is there any more. */
static bool sleep_by(int fd, struct arena *a, uint32_t took) {
    char bytes[64];
    ssize_t n;

    __atomic_store_n(&a->asleep, 1, __ATOMIC_SEQ_CST);
    if (took != __atomic_load_n(&a->todo.put, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&a->asleep, 0, __ATOMIC_SEQ_CST);
        return true;
    }
    do
        n = read(fd, bytes, sizeof(bytes));
    while (n < 0 && errno == EINTR);
    return n > 0;
}

static void run(const struct protocol *p, void *state, struct arena *a, int fd) {
    uint32_t took = 0, told = 0;

    do {
        server_serve(p, state, a, &took);
        /* A byte wakes the other side; what is done while it is on its way is seen too.
         */
        if (told != a->done.put && !__atomic_exchange_n(&a->told, 1, __ATOMIC_SEQ_CST) &&
            write(fd, "", 1) < 0)
            break;
        told = a->done.put;
    } while (sleep_by(fd, a, took));
    /* The last messages may have come with the end. */
    server_serve(p, state, a, &took);
}

/* --- the process --- */

/* As many descriptors as there can be: how many of them for nodes. */
static unsigned raise_limit(void) {
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l))
        return FDS_FEW;
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
    if (getrlimit(RLIMIT_NOFILE, &l))
        return FDS_FEW;
    if (l.rlim_cur > 1u << 20)
        l.rlim_cur = 1u << 20;
    return l.rlim_cur < 4 * FDS_FEW ? (unsigned)l.rlim_cur / 2
                                    : (unsigned)(l.rlim_cur - l.rlim_cur / 4);
}

static int lock_up(const struct share_config *cfg, int root) {
    int rc = cfg->jail == JAIL_OFF ? 0 : os_jail_files(root, cfg->readonly);

    return cfg->jail == JAIL_ON ? rc : 0; /* the machine's own jail will warn */
}

_Noreturn void server_be(const struct share_config *cfg, struct arena *a, int fd,
                         int root) {
    const struct protocol *p = protocols[cfg->protocol];
    const int keep[] = {fd, root, STDERR_FILENO};
    struct word w = {0};
    struct tree *tree = NULL;
    void *state = NULL;

    os_helper_begin("bivisor-share", keep, ARRAY_SIZE(keep));
    umask(0);
    w.rc = tree_new(root, cfg->readonly, raise_limit(), &tree);
    if (!w.rc)
        w.rc = p->create(tree, cfg->valid, &state);
    if (!w.rc) {
        w.rc = lock_up(cfg, root);
        w.jail = w.rc;
    }
    if (write(fd, &w, sizeof(w)) == sizeof(w) && !w.rc) {
        run(p, state, a, fd);
        p->destroy(state);
    }
    _exit(0);
}
