/*
 * A network on a loop: opened, started, looked after, stopped and closed; see net.h and
 * net_int.h. What the card says and gets is card.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "net/net_int.h"

static void enter(struct net *n) {
    if (n->guard.enter)
        n->guard.enter(n->guard.arg);
}

static void leave(struct net *n) {
    if (n->guard.leave)
        n->guard.leave(n->guard.arg);
}

/* --- on the loop's thread --- */

static void pay_room(struct net *n) {
    uint64_t now;

    if (!n->refused || (n->fd >= 0 && !n->ops->room(n, NET_CUT_MAX, NET_CUT_COUNT)))
        return;
    if (n->out_limited && n->fd >= 0) {
        now = os_monotonic_ns();
        if (net_may_go(n, now) > now)
            return;
    }
    n->refused = false;
    if (n->plugged)
        n->card.room(n->card.arg);
}

static void update_events(struct net *n) {
    if (n->fd >= 0 && n->watch.loop)
        os_watch_events(&n->watch,
                        (n->blocked ? 0 : OS_READ) | (n->ops->waits(n) ? OS_WRITE : 0));
}

/* Who waits for a rate is called when it has something again, and the service when it
 * wants to be. */
static void set_timer(struct net *n) {
    uint64_t now = os_monotonic_ns(), at,
             next = n->service ? net_service_when(n->service) : UINT64_MAX;

    if (n->blocked && (at = net_may_come(n, now)) > now && at < next)
        next = at;
    if (n->refused && (at = net_may_go(n, now)) > now && at < next)
        next = at;
    if (n->rested.watch.loop)
        os_timer_set(&n->rested, next);
}

static void link_down(struct net *n) {
    os_watch_stop(&n->watch);
    close(n->fd);
    n->fd = -1;
    net_forget_held(n);
    net_bytes_clear(&n->in);
    net_bytes_clear(&n->out);
    log_warn("--net %s: the other end has gone; the guest's network card has no link",
             n->what);
    if (n->listener)
        os_watch_events(&n->door, OS_READ);
    if (n->plugged)
        n->card.link(n->card.arg);
}

/* With the lock. RC: of what was done before. */
static void settle(struct net *n, int rc) {
    if (n->service)
        net_service_look(n->service, os_monotonic_ns());
    if (!rc)
        rc = net_go_on(n);
    if (rc && n->fd >= 0)
        link_down(n);
    pay_room(n);
    if (n->in_limited || n->out_limited || n->service)
        set_timer(n);
    update_events(n);
}

static void on_ready(void *arg, unsigned ready) {
    struct net *n = arg;
    int rc = ready & OS_READ ? n->ops->pull(n) : 0;

    enter(n);
    if (ready & OS_WRITE)
        n->ops->flush(n);
    settle(n, rc);
    leave(n);
}

static void on_task(void *arg) {
    struct net *n = arg;

    enter(n);
    settle(n, 0);
    leave(n);
}

static void on_rested(void *arg) {
    struct net *n = arg;

    enter(n);
    n->blocked = false; /* the card may refuse once more */
    settle(n, 0);
    leave(n);
}

static int watch_fd(struct net *n) {
    return os_watch_start(&n->watch, n->loop, n->fd, OS_READ, on_ready, n);
}

/* --- a peer comes --- */

static void on_door(void *arg, unsigned ready) {
    struct net *n = arg;
    int fd = os_listener_accept(n->listener);

    if (fd < 0)
        return;
    enter(n);
    n->fd = fd;
    os_watch_events(&n->door, 0);
    if (watch_fd(n))
        link_down(n);
    else if (n->plugged)
        n->card.link(n->card.arg);
    leave(n);
}

/* --- for who makes machines --- */

int net_open(const struct net_config *cfg, struct net **out, char *why, size_t why_size) {
    static int (*const open_kind[])(struct net *, char *, size_t) = {
        [NET_USER] = net_user_open,
        [NET_TAP] = net_tap_open,
        [NET_SOCKET] = net_stream_open,
    };
    struct net *n = calloc(1, sizeof(*n));
    int rc;

    snprintf(why, why_size, "out of memory");
    if (!n)
        return -ENOMEM;
    n->cfg = *cfg;
    n->fd = n->gone = n->orders = -1;
    n->task = (struct os_task){.fn = on_task, .arg = n};
    for (unsigned k = 0; k < NET_LIMITS; k++)
        net_limit(n, k, &cfg->limit[k]);
    if (cfg->kind == NET_USER)
        n->known = calloc(1, sizeof(*n->known));
    if (cfg->kind == NET_USER && !n->known)
        rc = -ENOMEM;
    else
        rc = open_kind[cfg->kind](n, why, why_size);
    if (rc)
        net_close(n);
    else
        *out = n;
    return rc;
}

void net_close(struct net *n) {
    char byte;

    if (!n)
        return;
    net_stop(n);
    if (n->fd >= 0)
        close(n->fd);
    if (n->orders >= 0)
        close(n->orders);
    while (n->gone >= 0 && read(n->gone, &byte, 1) < 0 && errno == EINTR)
        ;
    if (n->gone >= 0)
        close(n->gone);
    os_listener_close(n->listener);
    net_service_free(n->service);
    free(n->known);
    net_bytes_free(&n->in);
    net_bytes_free(&n->out);
    free(n);
}

int net_serve(struct net *n, const uint8_t address[4], uint16_t port,
              const struct net_service_user *user) {
    return net_service_new(address, port, user, &n->service);
}

int net_start(struct net *n, struct os_loop *loop, const struct net_guard *guard) {
    int rc;

    n->loop = loop;
    n->guard = *guard;
    rc = os_timer_open(&n->rested, loop, on_rested, n);
    if (!rc && n->listener)
        rc = os_watch_start(&n->door, loop, os_listener_fd(n->listener), OS_READ, on_door,
                            n);
    if (!rc && n->fd >= 0)
        rc = watch_fd(n);
    if (!rc && n->orders >= 0)
        rc = os_watch_start(&n->told, loop, n->orders, OS_READ, net_user_told, n);
    if (rc)
        net_stop(n);
    return rc;
}

void net_stop(struct net *n) {
    os_watch_stop(&n->door);
    os_watch_stop(&n->watch);
    os_watch_stop(&n->told);
    net_user_changed(n, -EPIPE);
    os_timer_close(&n->rested);
    n->loop = NULL;
}

int net_listener(const struct net *n) {
    return n->listener ? os_listener_fd(n->listener) : -1;
}
