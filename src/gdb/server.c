/*
 * Listening, and the client: there is one at a time, the next one is left.
 *
 * Packets are answered one after the other, and none is looked at while there is
 * something to be written: what a client is owed is bounded, however little it reads. It
 * owns the machine from its first packet on, which stops it, until it detaches or is
 * gone: then the machine goes on without stops.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "gdb/gdb_int.h"
#include "x86/cr.h"

#define SIGNAL_INT 2u
#define SIGNAL_TRAP 5u

/* --- writing --- */

static size_t owed(const struct gdb *g) {
    return g->out_len - g->out_at;
}

static void leave(struct gdb *g);

/* False: the client is gone. */
static bool send_out(struct gdb *g) {
    if (os_socket_write_rest(g->fd, g->out, g->out_len, &g->out_at)) {
        leave(g);
        return false;
    }
    if (!owed(g))
        g->out_at = g->out_len = 0;
    return true;
}

/* There is always room: see the head of the file. */
static void put_out(struct gdb *g, const char *text, size_t len) {
    if (sizeof(g->out) - g->out_len < len)
        return;
    memcpy(g->out + g->out_len, text, len);
    g->out_len += len;
}

static void put_reply(struct gdb *g) {
    if (g->reply.none)
        return;
    g->last_len = gdb_frame_make(g->last, g->reply.buf, g->reply.len);
    put_out(g, g->last, g->last_len);
}

/* --- the machine --- */

static enum gdb_arch choose_arch(const struct gdb *g) {
    const struct vcpu *v = machine_debug_vcpu(g->m, 0);

    if (g->want != GDB_ARCH_AUTO)
        return g->want;
    return (v->cr0 & X86_CR0_PG) && !v->long_mode ? GDB_ARCH_32 : GDB_ARCH_64;
}

static void tell_stop(struct gdb *g, unsigned signal) {
    g->running = false;
    g->reply.len = 0;
    g->reply.none = g->reply.full = false;
    gdb_put_stop(g, signal);
    put_reply(g);
    send_out(g);
}

static void on_stop(void *arg) {
    struct gdb *g = arg;

    if (g->fd >= 0 && g->running)
        tell_stop(g, SIGNAL_TRAP);
}

/* With its first packet. */
static void attach(struct gdb *g) {
    if (g->attached)
        return;
    machine_debug_begin(g->m, on_stop, g);
    machine_debug_stop(g->m);
    machine_debug_hold_interrupts(g->m, g->sstep & GDB_SSTEP_NOIRQ);
    gdb_regs_make(&g->regs, choose_arch(g), machine_debug_vcpu(g->m, 0));
    g->xml_len = gdb_describe(&g->regs, g->xml);
    g->attached = true;
    g->running = false;
}

static void stop_running(struct gdb *g) {
    if (!g->attached || !g->running)
        return;
    machine_debug_stop(g->m);
    tell_stop(g, SIGNAL_INT);
}

static void leave(struct gdb *g) {
    if (g->fd < 0)
        return;
    os_watch_stop(&g->watch);
    os_socket_close(g->fd);
    g->fd = -1;
    os_watch_events(&g->door, OS_READ);
    if (g->ends)
        g->quit(g->quit_arg);
    if (g->attached)
        machine_debug_end(g->m);
    g->attached = false;
}

/* --- reading --- */

static void answer(struct gdb *g) {
    if (!g->no_ack)
        put_out(g, "+", 1);
    attach(g);
    if (g->running) {
        g->reply.len = 0;
        g->reply.none = false;
        gdb_put_error(&g->reply, GDB_ERROR_BUSY);
    } else {
        gdb_command(g);
    }
    put_reply(g);
}

static void take(struct gdb *g, enum gdb_input what) {
    switch (what) {
    case GDB_PACKET:
        answer(g);
        break;
    case GDB_BAD:
        if (!g->no_ack)
            put_out(g, "-", 1);
        break;
    case GDB_AGAIN:
        if (!g->no_ack && g->last_len)
            put_out(g, g->last, g->last_len);
        break;
    case GDB_BREAK:
        stop_running(g);
        break;
    default:
        break;
    }
}

/* What has been read, as long as nothing waits to be written. */
static void work(struct gdb *g) {
    while (g->fd >= 0 && g->in_at < g->in_len && !owed(g) && !g->leaving) {
        take(g, gdb_frame_byte(&g->frame, g->in[g->in_at++]));
        if (g->fd < 0 || !send_out(g))
            return;
    }
    if (g->fd < 0)
        return;
    if (g->leaving && !owed(g)) {
        leave(g);
        return;
    }
    os_watch_events(&g->watch, owed(g) ? OS_WRITE : OS_READ);
}

static bool receive(struct gdb *g) {
    int n;

    if (g->in_at < g->in_len)
        return true;
    n = os_socket_read(g->fd, g->in, sizeof(g->in));
    if (n == -EAGAIN || n == -EINTR)
        return true;
    if (n <= 0) {
        leave(g);
        return false;
    }
    g->in_at = 0;
    g->in_len = (size_t)n;
    return true;
}

static void on_client(void *arg, unsigned ready) {
    struct gdb *g = arg;

    if ((ready & OS_WRITE) && !send_out(g))
        return;
    if ((ready & OS_READ) && !receive(g))
        return;
    work(g);
}

/* --- coming --- */

static void forget_client(struct gdb *g) {
    g->attached = g->running = g->no_ack = g->leaving = g->ends = g->physical = false;
    g->knows_swbreak = g->knows_hwbreak = false;
    g->cpu = g->told_cpu = 0;
    g->cpu_go = GDB_CPU_ALL;
    g->points.stops = (struct vcpu_stops){0};
    g->frame.state = FRAME_NONE;
    g->in_len = g->in_at = g->out_len = g->out_at = g->last_len = 0;
}

static void on_door(void *arg, unsigned ready) {
    struct gdb *g = arg;
    int fd = os_listener_accept(g->listener);

    if (fd < 0) {
        if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED) {
            log_warn("--gdb: cannot take a client: %s", strerror(-fd));
            os_watch_events(&g->door, 0);
        }
        return;
    }
    if (g->fd >= 0) {
        os_socket_close(fd);
        return;
    }
    forget_client(g);
    if (os_watch_start(&g->watch, g->loop, fd, OS_READ, on_client, g)) {
        log_warn("--gdb: out of memory: a client is left");
        os_socket_close(fd);
        return;
    }
    g->fd = fd;
}

/* --- the socket --- */

static int fail(char *why, size_t why_size, const char *text) {
    snprintf(why, why_size,
             "--gdb wants unix:PATH or tcp:ADDR:PORT, and ',wait' or ',arch=N': %s",
             text);
    return -EINVAL;
}

/* One word behind a comma. */
static bool take_word(struct gdb *g, const char *word) {
    static const char *const archs[] = {"arch=auto", "arch=16", "arch=32", "arch=64"};

    for (unsigned n = 0; n < ARRAY_SIZE(archs); n++)
        if (!strcmp(word, archs[n])) {
            g->want = (enum gdb_arch)n;
            return true;
        }
    g->wait |= !strcmp(word, "wait");
    return !strcmp(word, "wait");
}

static int listen_there(struct gdb *g, const char *where, char *why, size_t why_size) {
    int rc = os_endpoint_listen(where, &g->listener);

    if (rc == -EINVAL)
        return fail(why, why_size, os_endpoint_reason(rc));
    if (rc)
        snprintf(why, why_size, "--gdb: cannot listen at '%s': %s", where,
                 os_endpoint_reason(rc));
    return rc;
}

static int listen_at(struct gdb *g, char *spec, char *why, size_t why_size) {
    char *word;

    while ((word = strrchr(spec, ',')) && take_word(g, word + 1))
        *word = 0;
    if (!strncmp(spec, "unix:", 5) && spec[5])
        return listen_there(g, spec + 5, why, why_size);
    if (strncmp(spec, "tcp:", 4))
        return fail(why, why_size, "it begins with unix: or tcp:");
    if (strchr(spec, ','))
        return fail(why, why_size, "there is a word that it does not know");
    return listen_there(g, spec, why, why_size);
}

int gdb_open(const char *spec, struct gdb **out, char *why, size_t why_size) {
    struct gdb *g = calloc(1, sizeof(*g));
    char *copy = strdup(spec);
    int rc = -ENOMEM;

    snprintf(why, why_size, "--gdb: out of memory");
    if (g && copy) {
        g->fd = -1;
        g->sstep = GDB_SSTEP_ENABLE | GDB_SSTEP_NOIRQ | GDB_SSTEP_NOTIMER;
        rc = listen_at(g, copy, why, why_size);
    }
    free(copy);
    if (rc) {
        free(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gdb_socket(const struct gdb *g) {
    return os_listener_fd(g->listener);
}

int gdb_start(struct gdb *g, struct machine *m, void (*quit)(void *arg), void *arg) {
    g->m = m;
    g->quit = quit;
    g->quit_arg = arg;
    g->loop = machine_loop(m);
    return os_watch_start(&g->door, g->loop, gdb_socket(g), OS_READ, on_door, g);
}

void gdb_before_run(struct gdb *g) {
    if (!g->wait)
        return;
    g->wait = false;
    machine_debug_stop(g->m);
}

void gdb_ended(struct gdb *g, int status, int signal) {
    if (g->fd < 0 || !g->attached)
        return;
    g->reply.len = 0;
    g->reply.none = g->reply.full = false;
    gdb_put(&g->reply, signal ? "X%02x" : "W%02x", (signal ? signal : status) & 0xff);
    put_reply(g);
    if (send_out(g))
        leave(g);
}

void gdb_close(struct gdb *g) {
    if (!g)
        return;
    if (g->fd >= 0)
        leave(g);
    os_watch_stop(&g->door);
    os_listener_close(g->listener);
    free(g);
}
