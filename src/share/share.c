/* Our side of a share; see share.h. What the server says is checked: it reads what a
 * guest sends, and may have fallen to it. */
#include "share/share.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os_loop.h"
#include "share/share_int.h"

#define PATIENCE_MS 10000 /* for what the server still does at the end */

struct share {
    enum share_protocol protocol;
    char tag[SHARE_TAG + 1];
    int fd; /* the server's; -1: it is gone */
    struct arena *arena;
    uint32_t took; /* of the done ring */
    bool reset;    /* the server is to be told */
    enum { FREE, BEGUN, SUBMITTED, ABANDONED } state[SHARE_SLOTS];
    struct share_user user;
    struct share_guard guard;
    struct os_loop *loop;
    struct os_watch watch;
};

/* --- opening --- */

static int open_dir(const struct share_config *cfg, char *why, size_t why_size) {
    int fd = open(cfg->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    snprintf(why, why_size, "cannot open the directory '%s': %s", cfg->dir,
             strerror(errno));
    return -errno;
}

static int make_process(struct share *s, const struct share_config *cfg, int root) {
    int ends[2], rc = 0;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -errno;
    s->fd = ends[0];
    pid = fork();
    if (!pid)
        server_be(cfg, s->arena, ends[1], root);
    if (pid < 0)
        rc = -errno;
    close(ends[1]);
    return rc;
}

/* The server's first word. */
static int hear(struct share *s, char *why, size_t why_size) {
    struct word w = {.rc = -EPIPE};
    ssize_t got;

    do
        got = recv(s->fd, &w, sizeof(w), MSG_WAITALL);
    while (got < 0 && errno == EINTR);
    if (got != sizeof(w))
        w = (struct word){.rc = got < 0 ? -errno : -EPIPE};
    if (w.rc && w.jail)
        snprintf(why, why_size, "the file server cannot be locked up: %s",
                 jail_why(w.rc));
    else if (w.rc)
        snprintf(why, why_size, "cannot make a file server: %s", strerror(-w.rc));
    return w.rc;
}

static int start_server(struct share *s, const struct share_config *cfg, char *why,
                        size_t why_size) {
    int root = open_dir(cfg, why, why_size), rc;

    if (root < 0)
        return root;
    rc = make_process(s, cfg, root);
    close(root);
    if (rc)
        snprintf(why, why_size, "cannot make a process for the file server: %s",
                 strerror(-rc));
    if (!rc)
        rc = hear(s, why, why_size);
    if (!rc && fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_NONBLOCK))
        rc = -errno;
    return rc;
}

int share_open(const struct share_config *cfg, struct share **out, char *why,
               size_t why_size) {
    struct share *s = calloc(1, sizeof(*s));
    int rc;

    if (s) {
        s->fd = -1;
        s->protocol = cfg->protocol;
        snprintf(s->tag, sizeof(s->tag), "%s", cfg->tag);
        s->arena = mmap(NULL, sizeof(*s->arena), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (s->arena == MAP_FAILED)
            s->arena = NULL;
    }
    if (!s || !s->arena) {
        snprintf(why, why_size, "out of memory");
        share_close(s);
        return -ENOMEM;
    }
    rc = start_server(s, cfg, why, why_size);
    if (rc)
        share_close(s);
    else
        *out = s;
    return rc;
}

/* The server ends when it sees the end of the socket, and what it was told is done then.
 */
static void wait_for_end(struct share *s) {
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    char bytes[64];
    ssize_t n = 1;

    shutdown(s->fd, SHUT_WR);
    while (n && poll(&p, 1, PATIENCE_MS) > 0) {
        n = read(s->fd, bytes, sizeof(bytes));
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            break;
    }
}

void share_close(struct share *s) {
    if (!s)
        return;
    if (s->fd >= 0) {
        wait_for_end(s);
        close(s->fd);
    }
    if (s->arena)
        munmap(s->arena, sizeof(*s->arena));
    free(s);
}

const char *share_tag(const struct share *s) {
    return s->tag;
}

enum share_protocol share_protocol(const struct share *s) {
    return s->protocol;
}

void share_plug(struct share *s, const struct share_user *user) {
    s->user = *user;
}

/* --- answers, on the loop's thread, with the lock --- */

static void take_answer(struct share *s, unsigned n) {
    uint32_t len = __atomic_load_n(&s->arena->slot[n].answer, __ATOMIC_RELAXED);
    bool wanted = s->state[n] == SUBMITTED;

    if (len > SHARE_MESSAGE)
        len = 0;
    if (wanted && s->user.done)
        s->user.done(s->user.arg, n, s->arena->answer[n], len);
    s->state[n] = FREE;
}

static void take_answers(struct share *s) {
    struct ring *done = &s->arena->done;
    unsigned turn = SHARE_SLOTS * 4;

    while (turn-- && s->took != __atomic_load_n(&done->put, __ATOMIC_SEQ_CST)) {
        uint32_t n = done->slot[s->took++ % SHARE_SLOTS];

        if (n < SHARE_SLOTS && (s->state[n] == SUBMITTED || s->state[n] == ABANDONED))
            take_answer(s, n);
    }
}

/* The guest waits for nothing that will not come. */
static void lose(struct share *s) {
    log_error("the file server of share '%s' has ended; its files are out of reach",
              s->tag);
    os_watch_stop(&s->watch);
    close(s->fd);
    s->fd = -1;
    for (unsigned n = 0; n < SHARE_SLOTS; n++)
        if (s->state[n] == SUBMITTED || s->state[n] == ABANDONED) {
            s->arena->slot[n].answer = 0;
            take_answer(s, n);
        }
}

static void on_ready(void *arg, unsigned ready) {
    struct share *s = arg;
    char bytes[64];
    ssize_t n = read(s->fd, bytes, sizeof(bytes));

    s->guard.enter(s->guard.arg);
    /* Before the look at the ring: who puts something there afterwards tells us again. */
    __atomic_store_n(&s->arena->told, 0, __ATOMIC_SEQ_CST);
    take_answers(s);
    if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
        lose(s);
    if (s->user.more)
        s->user.more(s->user.arg);
    s->guard.leave(s->guard.arg);
}

int share_start(struct share *s, struct os_loop *loop, const struct share_guard *guard) {
    s->guard = *guard;
    s->loop = loop;
    return os_watch_start(&s->watch, loop, s->fd, OS_READ, on_ready, s);
}

void share_stop(struct share *s) {
    os_watch_stop(&s->watch);
    s->loop = NULL;
}

/* --- messages --- */

static void submit(struct share *s, unsigned slot, const struct slot *what) {
    struct arena *a = s->arena;
    uint32_t put = a->todo.put;

    a->slot[slot] = *what;
    s->state[slot] = SUBMITTED;
    a->todo.slot[put % SHARE_SLOTS] = slot;
    __atomic_store_n(&a->todo.put, put + 1, __ATOMIC_SEQ_CST);
    /* A socket that is full has woken it already; of one that is gone the loop will tell.
     */
    if (__atomic_exchange_n(&a->asleep, 0, __ATOMIC_SEQ_CST) && write(s->fd, "", 1) < 0)
        return;
}

static int find_free(const struct share *s) {
    for (unsigned n = 0; n < SHARE_SLOTS && s->fd >= 0; n++)
        if (s->state[n] == FREE)
            return (int)n;
    return -1;
}

/* Before all that comes later. */
static void send_reset(struct share *s) {
    const struct slot what = {.reset = true};
    int n = find_free(s);

    if (n < 0)
        return;
    submit(s, (unsigned)n, &what);
    s->state[n] = ABANDONED;
    s->reset = false;
}

uint8_t *share_begin(struct share *s, unsigned *slot) {
    int n;

    if (s->reset)
        send_reset(s);
    n = s->reset ? -1 : find_free(s);
    if (n < 0)
        return NULL;
    s->state[n] = BEGUN;
    *slot = (unsigned)n;
    return s->arena->message[n];
}

void share_drop(struct share *s, unsigned slot) {
    s->state[slot] = FREE;
}

void share_submit(struct share *s, unsigned slot, uint32_t len, uint32_t room) {
    const struct slot what = {.len = len,
                              .room = room < SHARE_MESSAGE ? room : SHARE_MESSAGE};

    submit(s, slot, &what);
}

void share_reset(struct share *s) {
    for (unsigned n = 0; n < SHARE_SLOTS; n++)
        if (s->state[n] == SUBMITTED)
            s->state[n] = ABANDONED;
    s->reset = true;
    send_reset(s);
}
