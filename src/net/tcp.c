/*
 * A server's TCP; see tcp.h. Numbers are counted modulo 2^32, and compared by their
 * distance. What one connection sends are, in the order of their numbers: SYN, answers,
 * FIN. An answer is kept until all of it has been acknowledged; then the next request is
 * looked at, so that one client owes us no more than one answer.
 */
#include "net/tcp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/packet.h"

#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define SEGMENT_DEFAULT 536u /* RFC 9293, "Maximum Segment Size Option" */
#define SECOND 1000000000ull
#define TRIES 6u
#define IDLE (10 * SECOND) /* then a connection's place may be another's */

struct connection {
    bool used;
    struct net_tcp_peer peer;
    uint32_t first;       /* our SYN's number */
    uint32_t acked, sent; /* up to where we are */
    uint32_t most;        /* `sent` has been, before it went back */
    uint32_t base;        /* the answer's first number */
    uint32_t received;    /* the number that comes next */
    uint32_t window, segment;
    bool owes;    /* an acknowledgement */
    bool ended;   /* the peer sends no more */
    bool closing; /* nor do we, after the answer */
    bool probes;  /* a byte that does not fit its window */
    unsigned tries;
    uint64_t due, last;
    char *out;
    size_t out_len, in_len;
    char in[NET_SERVICE_REQUEST];
};

struct net_tcp {
    uint16_t port;
    struct net_service_user user;
    unsigned turn; /* whose it is */
    struct {
        struct net_tcp_peer peer;
        uint32_t seq, ack;
        bool there, acks;
    } refused; /* a peer that is to be told so */
    struct connection connection[NET_TCP_CONNECTIONS];
};

/* A segment that has come. */
struct segment {
    uint32_t seq, ack, window, most;
    uint8_t flags;
    const uint8_t *payload;
    size_t len;
};

int net_tcp_new(uint16_t port, const struct net_service_user *user,
                struct net_tcp **out) {
    struct net_tcp *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    t->port = port;
    t->user = *user;
    *out = t;
    return 0;
}

static void forget(struct connection *c) {
    free(c->out);
    c->out = NULL;
    c->used = false;
}

void net_tcp_free(struct net_tcp *t) {
    for (unsigned n = 0; t && n < NET_TCP_CONNECTIONS; n++)
        forget(&t->connection[n]);
    free(t);
}

/* --- what has come --- */

/* The option that says how long the peer's segments may be; RFC 9293, "Specific Option
 * Definitions". */
static uint32_t segment_size(const uint8_t *option, size_t len) {
    enum { END, NOTHING, SIZE };

    while (len >= 4 && *option != END) {
        size_t skip = *option == NOTHING ? 1 : option[1];

        if (*option == SIZE && skip == 4)
            return net_get16(option + 2);
        if (!skip || skip > len)
            break;
        option += skip;
        len -= skip;
    }
    return SEGMENT_DEFAULT;
}

static bool parse(struct segment *s, const uint8_t *tcp, size_t len) {
    size_t header = len < TCP_HEADER ? 0 : (tcp[12] >> 4) * 4u;

    if (header < TCP_HEADER || header > len)
        return false;
    *s = (struct segment){
        .seq = net_get32(tcp + 4),
        .ack = net_get32(tcp + 8),
        .flags = tcp[13],
        .window = net_get16(tcp + 14),
        .most = segment_size(tcp + TCP_HEADER, header - TCP_HEADER),
        .payload = tcp + header,
        .len = len - header,
    };
    return true;
}

static struct connection *find(struct net_tcp *t, const struct net_tcp_peer *p) {
    for (unsigned n = 0; n < NET_TCP_CONNECTIONS; n++) {
        struct connection *c = &t->connection[n];

        if (c->used && c->peer.port == p->port && !memcmp(c->peer.address, p->address, 4))
            return c;
    }
    return NULL;
}

/* A free one, or that which has been idle longest; NULL: all are busy. */
static struct connection *find_place(struct net_tcp *t, uint64_t now) {
    struct connection *oldest = NULL;

    for (unsigned n = 0; n < NET_TCP_CONNECTIONS; n++) {
        struct connection *c = &t->connection[n];

        if (!c->used)
            return c;
        if (!oldest || c->last < oldest->last)
            oldest = c;
    }
    return now - oldest->last >= IDLE ? oldest : NULL;
}

/* RFC 9293, "Reset Generation". Of several only the last one is told: the others ask
 * again. */
static void refuse(struct net_tcp *t, const struct net_tcp_peer *p,
                   const struct segment *s) {
    bool acks = s->flags & FLAG_ACK;
    uint32_t ends = !!(s->flags & FLAG_SYN) + !!(s->flags & FLAG_FIN);

    t->refused.peer = *p;
    t->refused.there = true;
    t->refused.acks = !acks;
    t->refused.seq = acks ? s->ack : 0;
    t->refused.ack = s->seq + (uint32_t)s->len + ends;
}

static void begin(struct connection *c, const struct net_tcp_peer *p,
                  const struct segment *s, uint64_t now) {
    uint32_t first = (uint32_t)(now >> 8); /* no old segment's */

    forget(c);
    c->used = true;
    c->peer = *p;
    c->last = now;
    c->first = c->acked = c->sent = c->most = first;
    c->base = first + 1;
    c->received = s->seq + 1;
    c->window = s->window;
    c->segment = s->most < 64 ? 64 : s->most;
    if (c->segment > NET_TCP_SEGMENT)
        c->segment = NET_TCP_SEGMENT;
    c->owes = c->ended = c->closing = c->probes = false;
    c->tries = 0;
    c->due = UINT64_MAX;
    c->out_len = c->in_len = 0;
}

static void answer_requests(struct net_tcp *t, struct connection *c) {
    while (!c->out && !c->closing && c->in_len) {
        struct net_service_answer a = {0};
        size_t used = t->user.request(t->user.arg, c->in, c->in_len, &a);

        if (!used)
            break;
        c->in_len -= used;
        memmove(c->in, c->in + used, c->in_len);
        c->out = a.bytes;
        c->out_len = a.bytes ? a.len : 0;
        c->closing = a.close || !a.bytes;
    }
    /* What is left then is no request, and never will be one. */
    if (!c->out && (c->ended || c->in_len == sizeof(c->in)))
        c->closing = true;
    if (c->closing)
        c->in_len = 0;
}

/* False: it acknowledges what was never sent. */
static bool take_ack(struct connection *c, const struct segment *s, uint64_t now) {
    uint32_t more = s->ack - c->acked;

    if (more > c->most - c->acked)
        return false;
    c->window = s->window;
    if (!more)
        return true;
    if (c->sent - c->acked < more)
        c->sent = s->ack;
    c->acked = s->ack;
    c->tries = 0;
    c->probes = false;
    c->due = c->sent == c->acked ? UINT64_MAX : now + SECOND;
    if (c->out && c->acked - c->base >= c->out_len) {
        c->base += (uint32_t)c->out_len;
        free(c->out);
        c->out = NULL;
        c->out_len = 0;
    }
    return true;
}

/* The rest is sent once more: there was no place for it, or it is not next. */
static void take_payload(struct connection *c, const struct segment *s) {
    uint32_t before = c->received - s->seq;
    bool fin = s->flags & FLAG_FIN;
    size_t room = sizeof(c->in) - c->in_len, len;

    if (!s->len && !fin)
        return;
    c->owes = true;
    if (before > s->len || c->ended)
        return;
    len = s->len - before;
    if (len > room)
        len = room;
    memcpy(c->in + c->in_len, s->payload + before, len);
    c->in_len += len;
    c->received += (uint32_t)len;
    if (fin && before + len == s->len) {
        c->received++;
        c->ended = true;
    }
}

static void take_segment(struct net_tcp *t, struct connection *c, const struct segment *s,
                         uint64_t now) {
    if (!(s->flags & FLAG_ACK))
        return;
    if (!take_ack(c, s, now)) {
        c->owes = true;
        return;
    }
    if (c->acked == c->first) /* our SYN comes first */
        return;
    take_payload(c, s);
    answer_requests(t, c);
}

static bool is_begun_by(const struct connection *c, const struct segment *s) {
    return c->acked == c->first && c->received == s->seq + 1;
}

/* A SYN. In a connection that stands it is an old one, or the peer has begun anew, and
 * says so when it sees where we are; RFC 5961, "Blind Reset Attack Using the SYN Bit". */
static void take_begin(struct net_tcp *t, struct connection *c,
                       const struct net_tcp_peer *p, const struct segment *s,
                       uint64_t now) {
    if (c && is_begun_by(c, s)) {
        c->sent = c->first;
    } else if (c) {
        c->owes = true;
    } else if ((c = find_place(t, now))) {
        begin(c, p, s, now);
    } else {
        refuse(t, p, s);
    }
}

void net_tcp_input(struct net_tcp *t, const struct net_tcp_peer *peer, const uint8_t *tcp,
                   size_t len, uint64_t now) {
    struct net_tcp_peer p = *peer;
    struct connection *c;
    struct segment s;

    if (!parse(&s, tcp, len))
        return;
    p.port = (uint16_t)net_get16(tcp);
    c = find(t, &p);
    if (c)
        c->last = now;
    if (s.flags & FLAG_RST) {
        if (c && s.seq - c->received < sizeof(c->in))
            forget(c);
    } else if (net_get16(tcp + 2) != t->port) {
        refuse(t, &p, &s);
    } else if ((s.flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN) {
        take_begin(t, c, &p, &s, now);
    } else if (c) {
        take_segment(t, c, &s, now);
    } else {
        refuse(t, &p, &s);
    }
}

/* --- what goes out --- */

static size_t put_header(uint8_t *tcp, uint16_t from, uint16_t to, uint32_t seq,
                         uint32_t ack, unsigned flags, size_t window) {
    memset(tcp, 0, TCP_HEADER);
    net_put16(tcp, from);
    net_put16(tcp + 2, to);
    net_put32(tcp + 4, seq);
    net_put32(tcp + 8, ack);
    tcp[12] = TCP_HEADER / 4 << 4;
    tcp[13] = (uint8_t)flags;
    net_put16(tcp + 14, (unsigned)window);
    return TCP_HEADER;
}

static size_t put_refusal(struct net_tcp *t, struct net_tcp_peer *to, uint8_t *tcp) {
    t->refused.there = false;
    *to = t->refused.peer;
    return put_header(tcp, t->port, to->port, t->refused.seq,
                      t->refused.acks ? t->refused.ack : 0,
                      FLAG_RST | (t->refused.acks ? FLAG_ACK : 0u), 0);
}

static uint32_t room_for(const struct connection *c) {
    uint32_t flies = c->sent - c->acked;

    if (c->probes && !flies)
        return c->window ? c->window : 1;
    return c->window > flies ? c->window - flies : 0;
}

/* A segment of C, whose number is `sent`: how many numbers it takes. */
static uint32_t compose(struct connection *c, unsigned *flags, size_t *payload) {
    size_t left = c->out_len - (c->sent - c->base), room = room_for(c);

    *flags = FLAG_ACK;
    *payload = 0;
    if (c->sent == c->first) {
        *flags |= FLAG_SYN;
        return 1;
    }
    if (c->sent - c->base > c->out_len) /* FIN has gone */
        return 0;
    if (left > room)
        left = room;
    if (left > c->segment)
        left = c->segment;
    *payload = left;
    if (left) {
        *flags |= FLAG_PSH;
        return (uint32_t)left;
    }
    if (c->closing && c->sent - c->base == c->out_len) {
        *flags |= FLAG_FIN;
        return 1;
    }
    return 0;
}

static bool is_over(const struct connection *c) {
    return c->closing && c->ended && c->acked - c->base == c->out_len + 1;
}

/* Something is to be sent, but there is no room for it, and nothing flies that would be
 * answered. */
static bool is_stuck(const struct connection *c) {
    return c->acked == c->sent && c->out && c->due == UINT64_MAX;
}

static uint64_t timeout(const struct connection *c, uint64_t now) {
    return now + (SECOND << c->tries);
}

/* What has not been acknowledged in time is sent again. */
static void look_at_clock(struct connection *c, uint64_t now) {
    if (now < c->due)
        return;
    if (++c->tries > TRIES) {
        forget(c);
        return;
    }
    c->sent = c->acked;
    c->probes = true;
    c->due = UINT64_MAX;
}

static size_t put_segment(struct net_tcp *t, struct connection *c, uint8_t *tcp,
                          uint64_t now) {
    size_t payload, len;
    unsigned flags;
    uint32_t from = c->sent, numbers = compose(c, &flags, &payload);

    if (!numbers && is_stuck(c))
        c->due = timeout(c, now);
    if (!numbers && !c->owes) {
        if (is_over(c))
            forget(c);
        return 0;
    }
    c->owes = false;
    len = put_header(tcp, t->port, c->peer.port, from, c->received, flags,
                     sizeof(c->in) - c->in_len);
    if (flags & FLAG_SYN) {
        net_put32(tcp + len, 0x02040000 | NET_TCP_SEGMENT);
        len += NET_TCP_OPTIONS;
        tcp[12] = (uint8_t)(len / 4 << 4);
    }
    if (payload)
        memcpy(tcp + len, c->out + (from - c->base), payload);
    if (numbers) {
        c->sent += numbers;
        c->probes = false;
        c->due = timeout(c, now);
    }
    if (c->most - c->acked < c->sent - c->acked)
        c->most = c->sent;
    if (is_over(c))
        forget(c);
    return len + payload;
}

size_t net_tcp_next(struct net_tcp *t, struct net_tcp_peer *to, uint8_t *tcp,
                    uint64_t now) {
    if (t->refused.there)
        return put_refusal(t, to, tcp);
    for (unsigned n = 0; n < NET_TCP_CONNECTIONS; n++) {
        struct connection *c = &t->connection[t->turn];
        size_t len;

        if (c->used)
            look_at_clock(c, now);
        len = c->used ? put_segment(t, c, tcp, now) : 0;
        if (len) {
            *to = c->peer;
            return len;
        }
        t->turn = (t->turn + 1) % NET_TCP_CONNECTIONS;
    }
    return 0;
}

uint64_t net_tcp_when(const struct net_tcp *t) {
    uint64_t at = UINT64_MAX;

    for (unsigned n = 0; n < NET_TCP_CONNECTIONS; n++)
        if (t->connection[n].used && t->connection[n].due < at)
            at = t->connection[n].due;
    return at;
}
