/*
 * A virtio console. "Console Device" of the standard.
 *
 * Port N has a queue for input and one for output; two more are for control messages.
 * Drivers that do not accept MULTIPORT see the first port only.
 *
 * What the device has to say of a port is a set of bits, which are sent in their order
 * when the driver has buffers for control messages: nothing can pile up.
 *
 * Output that its reader does not take stays in the guest's buffer, of which each port
 * holds one at most.
 */
#include "dev/virtio/console.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define QUEUE_SIZE 128u
#define PIECES QUEUE_SIZE
#define QUEUES (2 * VIRTIO_CONSOLE_PORTS + 2)
#define WRITE_MAX 65536u /* bytes at a time: a buffer may have gigabytes */
#define CONTROL_IN 2u
#define CONTROL_OUT 3u

#define F_SIZE (1ull << 0)
#define F_MULTIPORT (1ull << 1)
#define F_EMERG_WRITE (1ull << 2)

/* "Device Operation": events of control messages */
enum {
    DEVICE_READY,
    DEVICE_ADD,
    DEVICE_REMOVE,
    PORT_READY,
    CONSOLE_PORT,
    RESIZE,
    PORT_OPEN,
    PORT_NAME,
};

/* What is to be said of a port, in this order. */
enum { SAY_ADD = 1, SAY_CONSOLE = 2, SAY_NAME = 4, SAY_SIZE = 8, SAY_OPEN = 16 };
enum { SAY_ALL = 31 };

struct control {
    uint32_t id;
    uint16_t event, value;
};

/* "Device configuration layout" */
struct config {
    uint16_t columns, rows;
    uint32_t ports;
    uint32_t emergency;
};

struct port {
    struct virtio_console_port is;
    bool ready;     /* the driver has it */
    bool open;      /* somebody in the guest has it */
    bool connected; /* somebody is at the other end */
    unsigned say;
    bool hungry;      /* the host has input that the guest had no room for */
    bool stopped;     /* the host takes no output */
    bool holds;       /* `out`, a buffer of which some is still to be written */
    uint64_t written; /* bytes of it */
    struct virtio_chain out;
    struct virtio_piece piece[PIECES];
};

struct virtio_console {
    struct virtio_device d;
    struct virtio_queue queue[QUEUES];
    struct config config;
    struct port port[VIRTIO_CONSOLE_PORTS];
    unsigned ports;
    struct virtio_console_host host;
    struct virtio_piece piece[PIECES]; /* of buffers that are done at once */
};

static struct virtio_console *console_of(struct virtio_device *d) {
    return container_of(d, struct virtio_console, d);
}

static unsigned in_queue(unsigned port) {
    return port ? 2 * port + 2 : 0;
}

static unsigned out_queue(unsigned port) {
    return in_queue(port) + 1;
}

/* --- control messages to the driver --- */

static unsigned length(const char *s) {
    unsigned n = 0;

    while (n < VIRTIO_CONSOLE_NAME && s[n])
        n++;
    return n;
}

static void write_message(struct virtio_console *c, struct virtio_chain *chain,
                          unsigned n, unsigned what) {
    static const uint16_t events[] = {[SAY_ADD] = DEVICE_ADD,
                                      [SAY_CONSOLE] = CONSOLE_PORT,
                                      [SAY_NAME] = PORT_NAME,
                                      [SAY_SIZE] = RESIZE,
                                      [SAY_OPEN] = PORT_OPEN};
    struct port *p = &c->port[n];
    const struct control m = {
        .id = n, .event = events[what], .value = what == SAY_OPEN ? p->connected : 1};
    /* As the standard has it; Linux before 6.15 takes the one for the other. */
    const uint16_t size[2] = {c->config.columns, c->config.rows};
    uint32_t len = (uint32_t)virtio_span_write(&c->d, &chain->in, &m, sizeof(m));

    if (what == SAY_NAME)
        len += (uint32_t)virtio_span_write(&c->d, &chain->in, p->is.name,
                                           length(p->is.name));
    if (what == SAY_SIZE)
        len += (uint32_t)virtio_span_write(&c->d, &chain->in, size, sizeof(size));
    virtio_queue_push(&c->queue[CONTROL_IN], chain->head, len);
}

static void say(struct virtio_console *c) {
    struct virtio_queue *q = &c->queue[CONTROL_IN];
    struct virtio_chain chain = {.room = c->piece, .rooms = PIECES};

    if (!virtio_has(&c->d, F_MULTIPORT))
        return;
    for (unsigned n = 0; n < c->ports; n++)
        while (c->port[n].say && virtio_queue_pop(q, &chain)) {
            unsigned what = c->port[n].say & -c->port[n].say;

            write_message(c, &chain, n, what);
            c->port[n].say &= ~what;
        }
    virtio_queue_publish(q);
}

/* --- room for input --- */

/* With several ports the driver takes no input for one that it has not got yet, and
 * throws away what comes for one that nobody has open. */
static bool listens(const struct virtio_console *c, unsigned n) {
    return virtio_has(&c->d, F_MULTIPORT) ? c->port[n].ready && c->port[n].open : n == 0;
}

static void more_room(struct virtio_console *c, unsigned n) {
    if (!c->port[n].hungry || !listens(c, n))
        return;
    c->port[n].hungry = false;
    c->host.room(c->host.arg, n);
}

/* --- control messages from the driver --- */

static void on_control(struct virtio_console *c, const struct control *m) {
    struct port *p;

    if (m->event == DEVICE_READY && m->value)
        for (unsigned n = 0; n < c->ports; n++)
            c->port[n].say |= SAY_ADD;
    if (m->id >= c->ports || m->event == DEVICE_READY)
        return;
    p = &c->port[m->id];
    if (m->event == PORT_READY && m->value) {
        p->ready = true;
        if (p->is.console)
            p->say |= SAY_CONSOLE;
        if (!m->id && c->config.columns)
            p->say |= SAY_SIZE;
        p->say |= (p->is.name ? SAY_NAME : 0u) | (p->connected ? SAY_OPEN : 0u);
    }
    if (m->event == PORT_OPEN) {
        p->open = m->value;
        more_room(c, m->id); /* its buffers may have come before */
    }
}

static void serve_control(struct virtio_console *c) {
    struct virtio_queue *q = &c->queue[CONTROL_OUT];
    struct virtio_chain chain = {.room = c->piece, .rooms = PIECES};
    unsigned turn = VIRTIO_TURN;

    while (turn && virtio_queue_pop(q, &chain)) {
        struct control m;

        if (virtio_span_read(&chain.out, &m, sizeof(m)) == sizeof(m))
            on_control(c, &m);
        virtio_queue_push(q, chain.head, 0);
        if (!--turn)
            virtio_queue_later(q);
    }
    virtio_queue_publish(q);
    say(c);
}

/* --- output --- */

/* Writes some of what the buffer still has. False: its reader takes no more. */
static bool write_some(struct virtio_console *c, unsigned n) {
    struct virtio_span *s = &c->port[n].out.out;
    size_t len, took;

    if (!s->count)
        return true;
    len = s->piece->len < WRITE_MAX ? s->piece->len : WRITE_MAX;
    took = c->host.write(c->host.arg, n, s->piece->host, len);
    took = took < len ? took : len;
    virtio_span_read(s, NULL, took);
    c->port[n].written += took;
    return took == len;
}

static void serve_out(struct virtio_console *c, unsigned n) {
    struct virtio_queue *q = &c->queue[out_queue(n)];
    struct port *p = &c->port[n];
    unsigned turn = VIRTIO_TURN;

    if (p->stopped)
        return;
    p->out.room = p->piece;
    p->out.rooms = PIECES;
    for (; turn && (p->holds || virtio_queue_pop(q, &p->out)); turn--) {
        p->written = p->holds ? p->written : 0;
        p->holds = true;
        if (!write_some(c, n)) {
            p->stopped = true;
            break;
        }
        if (p->out.out.count)
            continue;
        p->holds = false;
        virtio_queue_push(q, p->out.head, 0);
    }
    if (!turn)
        virtio_queue_later(q);
    virtio_queue_publish(q);
}

void virtio_console_writable(struct virtio_console *c, unsigned port) {
    c->port[port].stopped = false;
    if (virtio_queue_live(&c->queue[out_queue(port)]))
        serve_out(c, port);
}

/* --- input --- */

size_t virtio_console_input(struct virtio_console *c, unsigned port, const uint8_t *bytes,
                            size_t len) {
    struct virtio_queue *q = &c->queue[in_queue(port)];
    struct virtio_chain chain = {.room = c->piece, .rooms = PIECES};
    unsigned turn = VIRTIO_TURN; /* buffers may be empty */
    size_t done = 0;

    while (turn && done < len && listens(c, port) && virtio_queue_pop(q, &chain)) {
        uint64_t n = virtio_span_write(&c->d, &chain.in, bytes + done, len - done);

        virtio_queue_push(q, chain.head, (uint32_t)n);
        done += n;
        turn--;
    }
    if (!turn)
        virtio_queue_later(q);
    c->port[port].hungry = done < len;
    virtio_queue_publish(q);
    return done;
}

/* --- the device --- */

static void serve(struct virtio_device *d, unsigned queue) {
    struct virtio_console *c = console_of(d);
    unsigned n = queue < 2 ? 0 : (queue - 2) / 2;

    if (queue == CONTROL_OUT)
        serve_control(c);
    else if (queue == CONTROL_IN)
        say(c);
    else if (queue == in_queue(n))
        more_room(c, n);
    else
        serve_out(c, n);
}

static void reset(struct virtio_device *d) {
    struct virtio_console *c = console_of(d);

    for (unsigned n = 0; n < c->ports; n++) {
        c->port[n].ready = c->port[n].open = c->port[n].holds = false;
        c->port[n].say = 0;
    }
}

/* "Emergency write": a character, at any time. */
static void configure(struct virtio_device *d, unsigned at, unsigned len,
                      uint64_t value) {
    struct virtio_console *c = console_of(d);
    uint8_t byte = (uint8_t)value;

    if (at == offsetof(struct config, emergency))
        c->host.write(c->host.arg, 0, &byte, 1);
}

static const struct virtio_ops ops = {
    .notify = serve, .reset = reset, .configure = configure};

void virtio_console_connected(struct virtio_console *c, unsigned port, bool on) {
    struct port *p = &c->port[port];

    if (p->connected == on)
        return;
    p->connected = on;
    if (p->ready) {
        p->say |= SAY_OPEN;
        say(c);
    }
}

void virtio_console_resize(struct virtio_console *c, uint16_t columns, uint16_t rows) {
    if (c->config.columns == columns && c->config.rows == rows)
        return;
    c->config.columns = columns;
    c->config.rows = rows;
    if (virtio_has(&c->d, F_SIZE))
        virtio_config_changed(&c->d);
    if (c->port[0].ready) {
        c->port[0].say |= SAY_SIZE;
        say(c);
    }
}

/* --- snapshots --- */

/* The buffer whose beginning has been written comes once more out of its queue. */
static void find_held(struct virtio_console *c, unsigned n) {
    struct virtio_queue *q = &c->queue[out_queue(n)];
    struct port *p = &c->port[n];

    p->holds = false;
    p->out.room = p->piece;
    p->out.rooms = PIECES;
    if (!virtio_queue_live(q))
        return;
    virtio_queue_unpop(q, 1);
    p->holds = virtio_queue_pop(q, &p->out);
    if (p->holds)
        virtio_span_read(&p->out.out, NULL, p->written);
}

static void port_state(struct virtio_console *c, unsigned n, struct snapshot *s) {
    struct port *p = &c->port[n];
    bool holds = p->holds;

    SNAPSHOT(s, p->ready);
    SNAPSHOT(s, p->open);
    SNAPSHOT(s, p->connected);
    SNAPSHOT(s, p->say);
    SNAPSHOT(s, holds);
    SNAPSHOT(s, p->written);
    snapshot_need(s,
                  !(p->say & ~(unsigned)SAY_ALL) && (p->is.name || !(p->say & SAY_NAME)));
    if (!snapshot_reading(s) || !snapshot_good(s))
        return;
    p->hungry = p->stopped = false;
    if (holds)
        find_held(c, n);
}

void virtio_console_state(struct virtio_console *c, struct snapshot *s) {
    virtio_device_state(&c->d, s);
    SNAPSHOT(s, c->config.columns);
    SNAPSHOT(s, c->config.rows);
    for (unsigned n = 0; n < c->ports; n++)
        port_state(c, n, s);
}

void virtio_console_go_on(struct virtio_console *c) {
    for (unsigned n = 0; n < c->ports; n++)
        c->port[n].hungry = true; /* the host may have something */
    virtio_device_go_on(&c->d);
}

struct virtio_console *virtio_console_new(struct mem *mem, struct vclock *clock,
                                          const struct virtio_console_port *ports,
                                          unsigned count,
                                          const struct virtio_console_host *host,
                                          struct counters *cnt) {
    struct virtio_console *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->host = *host;
    c->ports = c->config.ports = count;
    for (unsigned n = 0; n < count; n++) {
        c->port[n].is = ports[n];
        c->port[n].is.console |= n == 0;
    }
    for (unsigned n = 0; n < QUEUES; n++)
        c->queue[n].size_max = QUEUE_SIZE;
    c->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-console",
                                  .id = VIRTIO_ID_CONSOLE,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .offered = VIRTIO_F_ALWAYS | VIRTIO_F_ANY_LAYOUT |
                                             F_SIZE | F_MULTIPORT | F_EMERG_WRITE,
                                  .config = &c->config,
                                  .config_len = sizeof(c->config),
                                  .queue = c->queue,
                                  .queues = 2 * count + 2};
    virtio_device_init(&c->d);
    return c;
}

void virtio_console_free(struct virtio_console *c) {
    if (c)
        virtio_device_end(&c->d);
    free(c);
}

struct virtio_device *virtio_console_device(struct virtio_console *c) {
    return &c->d;
}
