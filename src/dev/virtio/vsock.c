/*
 * A virtio socket device: stream connections between the guest and its host. "Socket
 * Device" of the standard.
 *
 * Each connection is an entry of a table, found by the two ports. What the guest sends is
 * put into the connection's ring, from which the host side takes it; the guest may send
 * as much as there is room (its credit). What the host side has is read when the guest
 * has credit for it and a buffer for a packet: nothing else is kept here.
 *
 * What the device has to say besides data is a set of bits for each connection, and a
 * short list of resets for packets that belong to none. While that list is full nothing
 * is taken from the guest.
 *
 * A connection ends when the guest resets it, or has shut down both ways; or when its
 * host side is lost, and then the guest is sent a reset.
 */
#include "dev/virtio/vsock.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define QUEUE_SIZE 128u
#define PIECES QUEUE_SIZE
#define BUFFER VIRTIO_VSOCK_BUFFER
#define CONNECTIONS VIRTIO_VSOCK_CONNECTIONS
#define RESETS 64u
#define PORTS_FROM 0x40000000u /* the host's own ports */
#define PIECE 4096u

#define F_STREAM (1ull << 0)

enum { Q_RX, Q_TX, Q_EVENT, QUEUES };
#define EVENT_TRANSPORT_RESET 0u

#define TYPE_STREAM 1u
enum op {
    OP_INVALID,
    OP_REQUEST,
    OP_RESPONSE,
    OP_RST,
    OP_SHUTDOWN,
    OP_RW,
    OP_CREDIT_UPDATE,
    OP_CREDIT_REQUEST,
};
#define SHUT_RECEIVE 1u /* the sender of this will receive no more */
#define SHUT_SEND 2u
#define SHUT_BOTH 3u

struct header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct header) == 44, "as the standard has it");

/* What is to be said of a connection, one after the other. */
enum {
    SAY_REQUEST = 1u << OP_REQUEST,
    SAY_RESPONSE = 1u << OP_RESPONSE,
    SAY_SHUTDOWN = 1u << OP_SHUTDOWN,
    SAY_CREDIT = 1u << OP_CREDIT_UPDATE,
    SAY_ASK = 1u << OP_CREDIT_REQUEST,
};

struct connection {
    enum { FREE, ASKED_HOST, ASKED_GUEST, OPEN } state;
    uint32_t guest_port, host_port;
    unsigned say;
    bool readable;   /* the host side may have something */
    bool host_ended; /* it has nothing more */
    bool asked;      /* the guest for its credit */
    unsigned shut;   /* by the guest */
    /* Credit: bytes that each side has sent and taken so far. */
    uint32_t sent, peer_alloc, peer_taken;
    uint32_t taken, told;
    /* From the guest, not yet with the host side. */
    uint32_t first, held;
    uint8_t ring[BUFFER];
};

struct virtio_vsock {
    struct virtio_device d;
    struct virtio_queue queue[QUEUES];
    uint64_t cid; /* the configuration space */
    struct virtio_vsock_host host;
    struct connection *connection;
    uint32_t next_port;
    struct reset {
        uint32_t guest_port, host_port;
    } reset[RESETS + CONNECTIONS];
    unsigned resets;
    bool stuck; /* nothing is taken while there is no room in that */
    bool cut;   /* the driver is to hear that its connections are gone */
    bool told;  /* it has been told, and is still at it: a new one would go as well */
    struct virtio_piece rx[PIECES], tx[PIECES];
};

static struct virtio_vsock *vsock_of(struct virtio_device *d) {
    return container_of(d, struct virtio_vsock, d);
}

/* --- packets to the guest --- */

static uint32_t credit(const struct connection *c) {
    uint32_t under_way = c->sent - c->peer_taken;

    return under_way < c->peer_alloc ? c->peer_alloc - under_way : 0;
}

static struct header header_to(const struct virtio_vsock *v, uint32_t guest_port,
                               uint32_t host_port, enum op op) {
    return (struct header){.src_cid = VIRTIO_VSOCK_HOST,
                           .dst_cid = v->cid,
                           .src_port = host_port,
                           .dst_port = guest_port,
                           .type = TYPE_STREAM,
                           .op = (uint16_t)op};
}

static void send(struct virtio_vsock *v, struct virtio_chain *chain, struct connection *c,
                 const struct header *h, const uint8_t *bytes) {
    struct header packet = *h;
    uint32_t len;

    if (c) {
        packet.buf_alloc = BUFFER;
        packet.fwd_cnt = c->told = c->taken;
    }
    len = (uint32_t)virtio_span_write(&v->d, &chain->in, &packet, sizeof(packet));
    if (h->len)
        len += (uint32_t)virtio_span_write(&v->d, &chain->in, bytes, h->len);
    virtio_queue_push(&v->queue[Q_RX], chain->head, len);
}

/* A buffer for a packet: false when the guest has none. */
static bool take_buffer(struct virtio_vsock *v, struct virtio_chain *chain) {
    *chain = (struct virtio_chain){.room = v->rx, .rooms = PIECES};
    if (!virtio_queue_pop(&v->queue[Q_RX], chain))
        return false;
    if (chain->in.len >= sizeof(struct header))
        return true;
    virtio_broken(&v->d, "a buffer that is too short for a packet");
    return false;
}

static bool say_resets(struct virtio_vsock *v) {
    struct virtio_chain chain;

    while (v->resets) {
        struct header h;

        if (!take_buffer(v, &chain))
            return false;
        v->resets--;
        h = header_to(v, v->reset[v->resets].guest_port, v->reset[v->resets].host_port,
                      OP_RST);
        send(v, &chain, NULL, &h, NULL);
    }
    return true;
}

/* What there is to be said of C. False: the guest has no buffer. */
static bool say(struct virtio_vsock *v, struct connection *c) {
    struct virtio_chain chain;

    while (c->say) {
        unsigned op = (unsigned)__builtin_ctz(c->say);
        struct header h = header_to(v, c->guest_port, c->host_port, op);

        if (!take_buffer(v, &chain))
            return false;
        if (op == OP_SHUTDOWN)
            h.flags = SHUT_SEND;
        c->say &= ~(1u << op);
        send(v, &chain, c, &h, NULL);
    }
    return true;
}

/* One packet of data. False: the guest has no buffer. */
static bool send_some(struct virtio_vsock *v, struct connection *c, unsigned n) {
    struct header h = header_to(v, c->guest_port, c->host_port, OP_RW);
    uint8_t bytes[PIECE];
    struct virtio_chain chain;
    uint64_t room;
    int got;

    if (!take_buffer(v, &chain))
        return false;
    room = chain.in.len - sizeof(h);
    room = room < PIECE ? room : PIECE;
    room = room < credit(c) ? room : credit(c);
    got = room ? v->host.read(v->host.arg, n, bytes, room) : 0;
    if (got <= 0) {
        virtio_queue_unpop(&v->queue[Q_RX], 1);
        c->readable = false;
        c->host_ended |= got < 0;
        if (got < 0)
            c->say |= SAY_SHUTDOWN;
        return true;
    }
    h.len = (uint32_t)got;
    c->sent += h.len;
    send(v, &chain, c, &h, bytes);
    return true;
}

/* All that the host's side has, a packet of each connection at a time. */
static void pump(struct virtio_vsock *v) {
    unsigned turn = VIRTIO_TURN;
    bool more = say_resets(v);

    while (more && turn) {
        more = false;
        for (unsigned n = 0; n < CONNECTIONS && turn; n++) {
            struct connection *c = &v->connection[n];

            if (c->state == FREE || (c->state == ASKED_GUEST && (v->cut || v->told)))
                continue;
            if (!say(v, c))
                goto out;
            if (c->state != OPEN || !c->readable || c->host_ended)
                continue;
            if (!credit(c)) {
                c->say |= c->asked ? 0 : SAY_ASK;
                more |= !c->asked;
                c->asked = true;
                continue;
            }
            if (!send_some(v, c, n))
                goto out;
            more = true;
            turn--;
        }
    }
    if (!turn)
        virtio_queue_later(&v->queue[Q_RX]);
out:
    virtio_queue_publish(&v->queue[Q_RX]);
}

/* --- connections --- */

static struct connection *find(struct virtio_vsock *v, uint32_t guest_port,
                               uint32_t host_port) {
    for (unsigned n = 0; n < CONNECTIONS; n++) {
        struct connection *c = &v->connection[n];

        if (c->state != FREE && c->guest_port == guest_port && c->host_port == host_port)
            return c;
    }
    return NULL;
}

static struct connection *find_free(struct virtio_vsock *v) {
    for (unsigned n = 0; n < CONNECTIONS; n++)
        if (v->connection[n].state == FREE)
            return &v->connection[n];
    return NULL;
}

static unsigned number(const struct virtio_vsock *v, const struct connection *c) {
    return (unsigned)(c - v->connection);
}

static void begin(struct connection *c, int state, uint32_t guest_port,
                  uint32_t host_port) {
    c->state = state;
    c->guest_port = guest_port;
    c->host_port = host_port;
    c->say = c->shut = 0;
    c->readable = c->host_ended = c->asked = false;
    c->sent = c->peer_alloc = c->peer_taken = c->taken = c->told = 0;
    c->first = c->held = 0;
}

/* There is room: the guest's packets stop at RESETS, new connections too, and the others
 * can have one each. */
static void add_reset(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port) {
    if (v->resets < ARRAY_SIZE(v->reset))
        v->reset[v->resets++] = (struct reset){guest_port, host_port};
}

/* The host side hears of it. */
static void drop(struct virtio_vsock *v, struct connection *c) {
    bool asked_guest = c->state == ASKED_GUEST;

    c->state = FREE;
    if (asked_guest)
        v->host.opened(v->host.arg, number(v, c), false, 0);
    else
        v->host.close(v->host.arg, number(v, c));
}

/* Gives the host side what is held, and ends it when that was all there will be. */
static void write_out(struct virtio_vsock *v, struct connection *c) {
    while (c->held) {
        uint32_t len = BUFFER - c->first < c->held ? BUFFER - c->first : c->held;
        size_t took = v->host.write(v->host.arg, number(v, c), c->ring + c->first, len);

        took = took < len ? took : len;
        c->first = (uint32_t)((c->first + took) % BUFFER);
        c->held -= (uint32_t)took;
        c->taken += (uint32_t)took;
        if (took < len)
            break;
    }
    /* The guest need not hear of every byte: of half the room. */
    if (c->taken - c->told >= BUFFER / 2)
        c->say |= SAY_CREDIT;
    if (c->held || !(c->shut & SHUT_SEND))
        return;
    if ((c->shut & SHUT_BOTH) != SHUT_BOTH) {
        v->host.end(v->host.arg, number(v, c));
        return;
    }
    add_reset(v, c->guest_port, c->host_port); /* the answer to a whole shutdown */
    drop(v, c);
}

/* --- packets from the guest --- */

static void on_request(struct virtio_vsock *v, const struct header *h) {
    struct connection *c = find_free(v);

    if (!c) {
        add_reset(v, h->src_port, h->dst_port);
        return;
    }
    begin(c, ASKED_HOST, h->src_port, h->dst_port);
    c->peer_alloc = h->buf_alloc;
    if (v->host.connect(v->host.arg, number(v, c), h->dst_port))
        return;
    c->state = FREE;
    add_reset(v, h->src_port, h->dst_port);
}

/* False: the guest has sent more than it had credit for, or not what it said. */
static bool on_data(struct virtio_vsock *v, struct connection *c, struct virtio_span *s,
                    uint32_t len) {
    if (len > s->len || len > BUFFER - c->held)
        return false;
    while (len) {
        uint32_t at = (c->first + c->held) % BUFFER;
        uint32_t n = BUFFER - at < len ? BUFFER - at : len;

        virtio_span_read(s, c->ring + at, n);
        c->held += n;
        len -= n;
    }
    write_out(v, c);
    return true;
}

static void on_response(struct virtio_vsock *v, struct connection *c) {
    c->state = OPEN;
    c->readable = true;
    v->host.opened(v->host.arg, number(v, c), true, c->host_port);
}

/* False: such a packet cannot come now. */
static bool on_packet(struct virtio_vsock *v, struct connection *c,
                      const struct header *h, struct virtio_span *s) {
    c->peer_alloc = h->buf_alloc;
    c->peer_taken = h->fwd_cnt;
    c->asked = false;
    switch (h->op) {
    case OP_RESPONSE:
        if (c->state != ASKED_GUEST)
            return false;
        on_response(v, c);
        return true;
    case OP_RW:
        return c->state == OPEN && !(c->shut & SHUT_SEND) && on_data(v, c, s, h->len);
    case OP_SHUTDOWN:
        if (c->state != OPEN)
            return false;
        c->shut |= h->flags & SHUT_BOTH;
        if (c->shut & SHUT_RECEIVE)
            c->host_ended = true;
        write_out(v, c);
        return true;
    case OP_CREDIT_UPDATE:
        return true;
    case OP_CREDIT_REQUEST:
        c->say |= SAY_CREDIT;
        return true;
    default:
        return false;
    }
}

static void take_packet(struct virtio_vsock *v, struct virtio_span *s) {
    struct connection *c;
    struct header h;

    if (virtio_span_read(s, &h, sizeof(h)) < sizeof(h) || h.src_cid != v->cid)
        return;
    c = h.dst_cid == VIRTIO_VSOCK_HOST && h.type == TYPE_STREAM
            ? find(v, h.src_port, h.dst_port)
            : NULL;
    if (h.op == OP_RST) {
        if (c)
            drop(v, c);
    } else if (!c && h.dst_cid == VIRTIO_VSOCK_HOST && h.type == TYPE_STREAM &&
               h.op == OP_REQUEST) {
        on_request(v, &h);
    } else if (!c || !on_packet(v, c, &h, s)) {
        add_reset(v, h.src_port, h.dst_port);
        if (c)
            drop(v, c);
    }
}

static void serve_tx(struct virtio_vsock *v) {
    struct virtio_queue *q = &v->queue[Q_TX];
    struct virtio_chain chain = {.room = v->tx, .rooms = PIECES};
    unsigned turn = VIRTIO_TURN;

    /* A packet makes one reset at most. */
    while (turn && v->resets < RESETS && virtio_queue_pop(q, &chain)) {
        take_packet(v, &chain.out);
        virtio_queue_push(q, chain.head, 0);
        if (!--turn)
            virtio_queue_later(q);
    }
    v->stuck = v->resets >= RESETS;
    virtio_queue_publish(q);
    pump(v);
}

/* "Virtqueue Events": connections are gone, the driver is to begin anew. */
static void tell_reset(struct virtio_vsock *v) {
    struct virtio_queue *q = &v->queue[Q_EVENT];
    struct virtio_chain chain = {.room = v->rx, .rooms = PIECES};
    const uint32_t event = EVENT_TRANSPORT_RESET;

    if (!v->cut || !virtio_queue_pop(q, &chain))
        return;
    v->cut = false;
    v->told = true;
    virtio_queue_ask(q);
    virtio_queue_give(
        q, chain.head,
        (uint32_t)virtio_span_write(&v->d, &chain.in, &event, sizeof(event)));
}

/* The driver comes with buffers: with the one that it has been told by when it has done
 * what it was told. */
static void serve_event(struct virtio_vsock *v) {
    v->told = false;
    tell_reset(v);
    pump(v);
}

/* --- the device --- */

static void serve(struct virtio_device *d, unsigned queue) {
    struct virtio_vsock *v = vsock_of(d);

    if (queue == Q_TX)
        serve_tx(v);
    else if (queue == Q_RX)
        pump(v);
    else
        serve_event(v);
    if (v->stuck && v->resets < RESETS)
        serve_tx(v);
}

/* The driver is gone, and its connections. */
static void reset(struct virtio_device *d) {
    struct virtio_vsock *v = vsock_of(d);

    v->resets = 0;
    v->stuck = v->cut = v->told = false;
    for (unsigned n = 0; n < CONNECTIONS; n++)
        if (v->connection[n].state != FREE)
            drop(v, &v->connection[n]);
}

static const struct virtio_ops ops = {.notify = serve, .reset = reset};

/* --- snapshots --- */

/* The host's side of a connection is in no snapshot: they end with it. */
void virtio_vsock_state(struct virtio_vsock *v, struct snapshot *s) {
    virtio_device_state(&v->d, s);
    SNAPSHOT(s, v->next_port);
    snapshot_need(s, v->next_port >= PORTS_FROM);
    if (!snapshot_reading(s))
        return;
    if (v->next_port < PORTS_FROM)
        v->next_port = PORTS_FROM;
    v->cut = true;
}

struct virtio_vsock *virtio_vsock_new(struct mem *mem, struct vclock *clock, uint32_t cid,
                                      const struct virtio_vsock_host *host,
                                      struct counters *cnt) {
    struct virtio_vsock *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->connection = calloc(CONNECTIONS, sizeof(*v->connection));
    if (!v->connection) {
        free(v);
        return NULL;
    }
    v->cid = cid;
    v->host = *host;
    v->next_port = PORTS_FROM;
    for (unsigned n = 0; n < QUEUES; n++)
        v->queue[n].size_max = QUEUE_SIZE;
    v->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-vsock",
                                  .id = VIRTIO_ID_VSOCK,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .offered = VIRTIO_F_ALWAYS | F_STREAM,
                                  .config = &v->cid,
                                  .config_len = sizeof(v->cid),
                                  .queue = v->queue,
                                  .queues = QUEUES};
    virtio_device_init(&v->d);
    return v;
}

void virtio_vsock_free(struct virtio_vsock *v) {
    if (!v)
        return;
    virtio_device_reset(&v->d);
    free(v->connection);
    free(v);
}

struct virtio_device *virtio_vsock_device(struct virtio_vsock *v) {
    return &v->d;
}

/* --- the host's side --- */

int virtio_vsock_open(struct virtio_vsock *v, uint32_t port) {
    struct connection *c = find_free(v);

    if (!c || v->resets >= RESETS || !virtio_queue_live(&v->queue[Q_RX]))
        return -1;
    while (find(v, port, v->next_port))
        v->next_port = v->next_port + 1 < PORTS_FROM ? PORTS_FROM : v->next_port + 1;
    begin(c, ASKED_GUEST, port, v->next_port);
    v->next_port = v->next_port + 1 < PORTS_FROM ? PORTS_FROM : v->next_port + 1;
    c->say = SAY_REQUEST;
    pump(v);
    return (int)number(v, c);
}

void virtio_vsock_answer(struct virtio_vsock *v, unsigned n, bool ok) {
    struct connection *c = &v->connection[n];

    if (c->state != ASKED_HOST)
        return;
    if (ok) {
        c->state = OPEN;
        c->readable = true;
        c->say |= SAY_RESPONSE;
    } else {
        c->state = FREE;
        add_reset(v, c->guest_port, c->host_port);
    }
    pump(v);
}

void virtio_vsock_readable(struct virtio_vsock *v, unsigned n) {
    v->connection[n].readable = true;
    pump(v);
}

void virtio_vsock_writable(struct virtio_vsock *v, unsigned n) {
    if (v->connection[n].state == OPEN)
        write_out(v, &v->connection[n]);
    pump(v);
}

void virtio_vsock_lost(struct virtio_vsock *v, unsigned n) {
    struct connection *c = &v->connection[n];

    if (c->state == FREE)
        return;
    c->state = FREE;
    add_reset(v, c->guest_port, c->host_port);
    pump(v);
}
