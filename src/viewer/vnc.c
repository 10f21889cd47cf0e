/*
 * Our side of the VNC server; see viewer.h and viewer_int.h. On the loop's thread.
 *
 * Pictures follow each other faster while they change or somebody types, down to FAST_NS,
 * and more slowly while nothing happens, up to SLOW_NS. What the server says is checked:
 * it reads what strangers send, and may have fallen to one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/os_loop.h"
#include "dev/pc/mouse.h"
#include "dev/virtio/input.h"
#include "machine/machine.h"
#include "viewer/viewer_int.h"

#define FAST_NS 30000000ull
#define SLOW_NS 240000000ull
#define RETRY_NS 10000000ull /* the guest takes no keys */
#define KEYS 256u
#define TURN 64u /* messages that are taken before the loop goes on */
#define PASSWORD 8u
#define FIRST_PORT 5900ul

struct vnc {
    struct os_listener *listener;
    int fd; /* the server's; -1: it is gone */
    struct arena *arena;
    struct machine *m;
    struct os_watch watch;
    struct os_timer timer;
    bool wanted;           /* a picture */
    uint64_t drawn, pause; /* when the last one was; the least time between two */
    struct vga_picture *now, *before;
    bool has_before;
    struct {
        uint8_t code;
        bool down;
    } keys[KEYS]; /* that the guest has not taken */
    unsigned first, count;
};

/* --- pictures and keys --- */

/* Of text a look tells whether there is something new, without a drawing. */
static bool is_new(struct vnc *v) {
    bool text = v->now->kind == VGA_TEXT && v->has_before;

    return !text || memcmp(v->now, v->before, sizeof(*v->now)) != 0;
}

static void draw(struct vnc *v) {
    struct message m = {.kind = PICTURE};
    struct vga_picture *p = v->now;

    machine_draw(v->m, p, v->arena->pixels);
    m.a = (uint16_t)p->width;
    m.b = (uint16_t)p->height;
    v->now = v->before;
    v->before = p;
    v->has_before = true;
    v->wanted = false;
    if (write(v->fd, &m, sizeof(m)) < 0)
        return; /* the watch will tell */
}

static void grow_pause(struct vnc *v) {
    v->pause = v->pause * 3 / 2 < SLOW_NS ? v->pause * 3 / 2 : SLOW_NS;
}

static void look(struct vnc *v) {
    machine_look(v->m, v->now);
    v->drawn = os_monotonic_ns();
    if (is_new(v))
        draw(v);
    else
        grow_pause(v);
}

static void feed_keys(struct vnc *v) {
    while (v->count &&
           machine_key(v->m, v->keys[v->first].code, v->keys[v->first].down)) {
        v->first = (v->first + 1) % KEYS;
        v->count--;
    }
}

static void set_timer(struct vnc *v) {
    uint64_t at = v->wanted ? v->drawn + v->pause : UINT64_MAX;
    uint64_t retry = v->count ? os_monotonic_ns() + RETRY_NS : UINT64_MAX;

    os_timer_set(&v->timer, at < retry ? at : retry);
}

static void on_time(void *arg) {
    struct vnc *v = arg;

    feed_keys(v);
    if (v->wanted && os_monotonic_ns() >= v->drawn + v->pause)
        look(v);
    set_timer(v);
}

/* --- what the server says --- */

/* What a guest that does not listen leaves no room for is lost. */
static void take_key(struct vnc *v, unsigned code, bool down) {
    unsigned at = (v->first + v->count) % KEYS;

    if (!(code & 0x7f) || code > 0xff || v->count == KEYS)
        return;
    v->keys[at].code = (uint8_t)code;
    v->keys[at].down = down;
    v->count++;
}

static void take(struct vnc *v, const struct message *m) {
    const struct mouse_event e = {(int16_t)m->a, (int16_t)m->b, (int16_t)m->c,
                                  m->d & MOUSE_BUTTONS};
    const struct virtio_input_point at = {m->x & VIRTIO_INPUT_MAX,
                                          m->y & VIRTIO_INPUT_MAX, e.dz, e.buttons};

    switch (m->kind) {
    case WANT:
        v->wanted = true;
        if (m->a)
            v->pause = FAST_NS;
        else
            grow_pause(v);
        return;
    case KEY:
        take_key(v, m->a, m->b);
        v->pause = FAST_NS;
        return;
    case POINTER: /* of a tablet, or, where nobody listens to one, of a mouse */
        if (!machine_point(v->m, &at))
            machine_pointer(v->m, &e);
        v->pause = FAST_NS;
        return;
    default:
        return;
    }
}

static void lose(struct vnc *v) {
    log_error("the VNC server has ended; nobody sees the guest's screen any more");
    os_watch_stop(&v->watch);
    os_timer_close(&v->timer);
    close(v->fd);
    v->fd = -1;
}

static void on_ready(void *arg, unsigned ready) {
    struct vnc *v = arg;
    struct message m;
    ssize_t n = 1;

    for (unsigned turn = 0; turn < TURN && n > 0; turn++) {
        n = read(v->fd, &m, sizeof(m));
        if (n == sizeof(m))
            take(v, &m);
    }
    if (!n || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        lose(v);
        return;
    }
    feed_keys(v);
    set_timer(v);
}

int vnc_start(struct vnc *v, struct machine *m) {
    int rc;

    v->m = m;
    v->pause = FAST_NS;
    rc = os_timer_open(&v->timer, machine_loop(m), on_time, v);
    if (!rc)
        rc = os_watch_start(&v->watch, machine_loop(m), v->fd, OS_READ, on_ready, v);
    return rc;
}

void vnc_stop(struct vnc *v) {
    os_watch_stop(&v->watch);
    os_timer_close(&v->timer);
}

/* --- opening --- */

static int bad_address(const char *text, char *why, size_t why_size) {
    snprintf(why, why_size,
             "vnc= wants :N or ADDR:N, the display's number, ADDR::PORT or unix:PATH, "
             "ADDR being numeric; not '%s'",
             text);
    return -EINVAL;
}

/* [ADDR] of TEXT, up to the colon that COLON points at. */
static bool take_host(const char *text, const char *colon, char *out, size_t size) {
    size_t len = (size_t)(colon - text);

    if (len >= 2 && *text == '[' && colon[-1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return false;
    }
    if (len >= size)
        return false;
    if (len)
        snprintf(out, size, "%.*s", (int)len, text);
    else
        snprintf(out, size, "127.0.0.1");
    return true;
}

static bool take_port(const char *text, unsigned long add, uint16_t *out) {
    char *rest;
    unsigned long n = strtoul(text, &rest, 10);

    if (*text < '0' || *text > '9' || *rest || n > 65535 - add)
        return false;
    *out = (uint16_t)(n + add);
    return true;
}

static int listen_at(const char *text, struct os_listener **out, char *why,
                     size_t why_size) {
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN];
    bool is_port;
    uint16_t port;
    int rc;

    if (!strncmp(text, "unix:", 5)) {
        rc = os_listener_open(text + 5, out);
    } else {
        is_port = colon && colon > text && colon[-1] == ':';
        if (!colon || !take_host(text, colon - is_port, host, sizeof(host)) ||
            !take_port(colon + 1, is_port ? 0 : FIRST_PORT, &port))
            return bad_address(text, why, why_size);
        rc = os_listener_open_tcp(host, port, out);
        if (rc == -EINVAL)
            return bad_address(text, why, why_size);
    }
    if (rc)
        snprintf(why, why_size, "vnc=%s: cannot listen: %s", text,
                 rc == -EEXIST ? "there is something else" : strerror(-rc));
    return rc;
}

static int read_password(const char *path, char *out, char *why, size_t why_size) {
    char line[PASSWORD + 3];
    FILE *f = fopen(path, "re");
    bool read = f && fgets(line, sizeof(line), f);
    int rc = f ? 0 : -errno;

    if (f)
        fclose(f);
    if (rc) {
        snprintf(why, why_size, "cannot read the password in '%s': %s", path,
                 strerror(-rc));
        return rc;
    }
    if (read)
        line[strcspn(line, "\r\n")] = 0;
    if (read && *line && strlen(line) <= PASSWORD) {
        memcpy(out, line, strlen(line) + 1);
        return 0;
    }
    snprintf(why, why_size,
             "a password for VNC has one to %u characters, unlike that in '%s'", PASSWORD,
             path);
    return -EINVAL;
}

static int make_process(struct vnc *v, const struct vnc_config *cfg,
                        const char *password) {
    int ends[2], rc = 0;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    v->fd = ends[0];
    pid = fork();
    if (!pid)
        vnc_server_be(cfg, password, v->arena, ends[1], os_listener_fd(v->listener));
    if (pid < 0)
        rc = -errno;
    close(ends[1]);
    return rc;
}

static int hear(struct vnc *v, char *why, size_t why_size) {
    struct word w;
    ssize_t got;

    do
        got = read(v->fd, &w, sizeof(w));
    while (got < 0 && errno == EINTR);
    if (got != sizeof(w))
        w = (struct word){.rc = got < 0 ? -errno : -EPIPE};
    if (w.rc && w.library)
        snprintf(
            why, why_size,
            "VNC needs libvncserver, which is not installed, or was not when bivisor "
            "was built; the package is libvncserver1, for a build libvncserver-dev");
    else if (w.rc && w.jail)
        snprintf(why, why_size, "the VNC server cannot be locked up: %s", jail_why(w.rc));
    else if (w.rc)
        snprintf(why, why_size, "cannot make a VNC server: %s", strerror(-w.rc));
    if (!w.rc && fcntl(v->fd, F_SETFL, fcntl(v->fd, F_GETFL) | O_NONBLOCK)) {
        w.rc = -errno;
        snprintf(why, why_size, "cannot make a VNC server: %s", strerror(-w.rc));
    }
    return w.rc;
}

static struct vnc *make(void) {
    struct vnc *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->fd = -1;
    v->now = calloc(1, sizeof(*v->now));
    v->before = calloc(1, sizeof(*v->before));
    v->arena = mmap(NULL, sizeof(*v->arena), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (v->arena == MAP_FAILED)
        v->arena = NULL;
    if (v->now && v->before && v->arena)
        return v;
    vnc_close(v);
    return NULL;
}

int vnc_open(const struct vnc_config *cfg, struct vnc **out, char *why, size_t why_size) {
    char password[PASSWORD + 1] = "";
    struct vnc *v;
    int rc = 0;

    if (cfg->password)
        rc = read_password(cfg->password, password, why, why_size);
    if (rc)
        return rc;
    v = make();
    if (!v) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    rc = listen_at(cfg->address, &v->listener, why, why_size);
    if (!rc) {
        rc = make_process(v, cfg, password);
        if (rc)
            snprintf(why, why_size, "cannot make a process for the VNC server: %s",
                     strerror(-rc));
    }
    if (!rc)
        rc = hear(v, why, why_size);
    if (rc)
        vnc_close(v);
    else
        *out = v;
    return rc;
}

void vnc_close(struct vnc *v) {
    if (!v)
        return;
    if (v->fd >= 0)
        close(v->fd);
    if (v->arena)
        munmap(v->arena, sizeof(*v->arena));
    os_listener_close(v->listener);
    free(v->now);
    free(v->before);
    free(v);
}
