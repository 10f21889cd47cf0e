/*
 * The user network: libslirp, which is TCP/IP with a gateway (10.0.2.2), a DHCP server, a
 * name server (10.0.2.3) and a router of IPv6 (fec0::/64) towards the guest, and ordinary
 * sockets of this process towards the world.
 *
 * It runs in a process that has nothing else (user.c): frames come and go over a stream
 * socket. When the machine does not read, nothing is read from the world's sockets
 * either, so that their senders are slowed down.
 */
#ifdef HAVE_LIBSLIRP
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "net/net_int.h"

#define IN_SIZE (256u << 10)
#define OUT_SIZE (1u << 20)
/* With more than this unread, the world has to wait. */
#define OUT_PATIENT (256u << 10)

struct timer {
    SlirpTimerCb fn;
    void *arg;
    int64_t at; /* ms; INT64_MAX: not at all */
    struct timer *next;
};

struct net_slirp {
    Slirp *slirp;
    int fd, orders;
    bool ended;
    struct net_bytes in, out;
    struct timer *timers;
    struct pollfd *polled;
    size_t count, room;
};

/* --- what libslirp asks of us --- */

/* A frame for the guest. It is lost where there is no room, as libslirp allows. */
static ssize_t send_packet(const void *buf, size_t len, void *arg) {
    struct net_slirp *s = arg;

    if (len <= NET_FRAME_MAX && net_frames_room(&s->out, len, 1)) {
        memcpy(net_frames_place(&s->out, len), buf, len);
        net_frames_put(&s->out, len);
    }
    return (ssize_t)len;
}

/* What guests do wrong is theirs; it could be said a million times. */
static void guest_error(const char *msg, void *arg) {
}

static int64_t clock_ns(void *arg) {
    return (int64_t)os_monotonic_ns();
}

static void *timer_new(SlirpTimerCb fn, void *fn_arg, void *arg) {
    struct net_slirp *s = arg;
    struct timer *t = malloc(sizeof(*t));

    if (!t)
        abort(); /* libslirp does the same */
    *t = (struct timer){fn, fn_arg, INT64_MAX, s->timers};
    s->timers = t;
    return t;
}

static void timer_free(void *timer, void *arg) {
    struct net_slirp *s = arg;

    for (struct timer **t = &s->timers; *t; t = &(*t)->next)
        if (*t == timer) {
            *t = (*t)->next;
            break;
        }
    free(timer);
}

static void timer_mod(void *timer, int64_t at_ms, void *arg) {
    struct timer *t = timer;

    t->at = at_ms;
}

static void no_fd(int fd, void *arg) {
}

static void no_notice(void *arg) {
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = no_fd,
    .unregister_poll_fd = no_fd,
    .notify = no_notice,
};

/* --- polling --- */

/* -1: there was no memory; it is ready for nothing then. */
static int add_poll(int fd, int events, void *arg) {
    struct net_slirp *s = arg;
    struct pollfd *more;

    if (s->count == s->room) {
        more = realloc(s->polled, 2 * s->room * sizeof(*more));
        if (!more)
            return -1;
        s->polled = more;
        s->room *= 2;
    }
    s->polled[s->count] = (struct pollfd){
        .fd = fd,
        .events = (short)((events & SLIRP_POLL_IN ? POLLIN : 0) |
                          (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
                          (events & SLIRP_POLL_PRI ? POLLPRI : 0)),
    };
    return (int)s->count++;
}

static int revents_of(int place, void *arg) {
    const struct net_slirp *s = arg;
    short r = place < 0 ? 0 : s->polled[place].revents;

    return (r & POLLIN ? SLIRP_POLL_IN : 0) | (r & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (r & POLLPRI ? SLIRP_POLL_PRI : 0) | (r & POLLERR ? SLIRP_POLL_ERR : 0) |
           (r & POLLHUP ? SLIRP_POLL_HUP : 0);
}

static int64_t now_ms(void) {
    return (int64_t)(os_monotonic_ns() / 1000000u);
}

static void run_timers(struct net_slirp *s) {
    int64_t now = now_ms();

    /* A timer that is called may free itself, but sets no other free. */
    for (struct timer *t = s->timers, *next; t; t = next) {
        next = t->next;
        if (t->at > now)
            continue;
        t->at = INT64_MAX;
        t->fn(t->arg);
    }
}

/* Milliseconds to sleep, at most MOST. */
static int patience(const struct net_slirp *s, uint32_t most) {
    int64_t now = now_ms(), ms = most > INT32_MAX ? INT32_MAX : most;

    for (const struct timer *t = s->timers; t; t = t->next)
        if (t->at - now < ms)
            ms = t->at > now ? t->at - now : 0;
    return ms == INT32_MAX ? -1 : (int)ms;
}

/* --- the machine's side --- */

static void write_out(struct net_slirp *s) {
    s->ended |= net_stream_write(s->fd, &s->out) != 0;
}

static void take_frames(struct net_slirp *s) {
    uint8_t *frame;
    size_t len;
    int rc;

    while ((rc = net_frames_take(&s->in, &frame, &len)) > 0) {
        slirp_input(s->slirp, frame, (int)len);
        if (net_bytes_there(&s->out) > OUT_PATIENT)
            write_out(s);
    }
    s->ended |= rc < 0;
}

static void read_in(struct net_slirp *s) {
    s->ended |= net_stream_read(s->fd, &s->in) != 0;
    take_frames(s);
}

/* 0 or -errno. */
static int forward(struct net_slirp *s, const struct net_forward *f, bool add) {
    struct in_addr host, guest = {0}; /* the one that DHCP gives */
    int rc;

    memcpy(&host, f->address, sizeof(host));
    errno = add ? EADDRINUSE : ENOENT;
    rc = add ? slirp_add_hostfwd(s->slirp, f->udp, host, f->port, guest, f->guest_port)
             : slirp_remove_hostfwd(s->slirp, f->udp, host, f->port);
    return rc ? -errno : 0;
}

static void take_order(struct net_slirp *s) {
    struct net_order o;
    ssize_t n = read(s->orders, &o, sizeof(o));
    int rc;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != sizeof(o)) { /* the machine ends */
        s->ended = true;
        return;
    }
    rc = forward(s, &o.forward, o.add);
    s->ended |= write(s->orders, &rc, sizeof(rc)) != sizeof(rc);
}

static void turn(struct net_slirp *s) {
    bool patient = net_bytes_there(&s->out) <= OUT_PATIENT;
    uint32_t most = UINT32_MAX;
    int rc;

    s->polled[0] = (struct pollfd){
        .fd = s->fd,
        .events = (short)(POLLIN | (net_bytes_there(&s->out) ? POLLOUT : 0))};
    s->polled[1] = (struct pollfd){.fd = s->orders, .events = POLLIN};
    s->count = 2;
    if (patient)
        slirp_pollfds_fill(s->slirp, &most, add_poll, s);
    rc = poll(s->polled, s->count, patience(s, most));
    run_timers(s);
    if (rc > 0 && (s->polled[0].revents & ~POLLOUT))
        read_in(s);
    if (rc > 0 && s->polled[1].revents)
        take_order(s);
    /* Afterwards: it also sends what waited for the guest's answer to ARP. */
    if (patient)
        slirp_pollfds_poll(s->slirp, rc < 0, revents_of, s);
    write_out(s);
}

void net_slirp_run(struct net_slirp *s) {
    while (!s->ended)
        turn(s);
}

/* --- setting up --- */

/* What QEMU's guests are used to. */
static SlirpConfig config_of(const struct net_config *cfg) {
    SlirpConfig c = {
        .version = SLIRP_CONFIG_VERSION_MAX,
        .restricted = cfg->restricted,
        .in_enabled = true,
        .in6_enabled = true,
        .vprefix_len = 64,
        .if_mtu = cfg->mtu ? cfg->mtu : NET_MTU,
        .if_mru = cfg->mtu ? cfg->mtu : NET_MTU,
        .tftp_path = cfg->tftp,
        .bootfile = cfg->bootfile,
    };

    inet_pton(AF_INET, "10.0.2.0", &c.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &c.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &c.vhost);
    inet_pton(AF_INET, "10.0.2.15", &c.vdhcp_start);
    inet_pton(AF_INET, "10.0.2.3", &c.vnameserver);
    inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &c.vhost6);
    inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
    return c;
}

/* The errno of the one that failed. */
static int add_forwards(struct net_slirp *s, const struct net_config *cfg, int *which) {
    for (unsigned n = 0; n < cfg->forwards; n++) {
        int rc = forward(s, &cfg->forward[n], true);

        *which = (int)n;
        if (rc)
            return rc;
    }
    *which = -1;
    return 0;
}

void net_slirp_free(struct net_slirp *s) {
    if (s->slirp)
        slirp_cleanup(s->slirp);
    net_bytes_free(&s->in);
    net_bytes_free(&s->out);
    free(s->polled);
    free(s);
}

int net_slirp_new(const struct net_config *cfg, int fd, int orders,
                  struct net_slirp **out, int *which) {
    const SlirpConfig config = config_of(cfg);
    struct net_slirp *s = calloc(1, sizeof(*s));
    int rc = -ENOMEM;

    *which = -1;
    if (!s)
        return rc;
    s->fd = fd;
    s->orders = orders;
    s->room = 64;
    s->polled = malloc(s->room * sizeof(*s->polled));
    if (!s->polled || net_bytes_new(&s->in, IN_SIZE) || net_bytes_new(&s->out, OUT_SIZE))
        goto fail;
    s->slirp = slirp_new(&config, &callbacks, s);
    if (!s->slirp)
        goto fail;
    rc = add_forwards(s, cfg, which);
    if (rc)
        goto fail;
    *out = s;
    return 0;
fail:
    net_slirp_free(s);
    return rc;
}

#endif
