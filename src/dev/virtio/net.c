/*
 * The virtio network card; see net.h. "Network Device" of the standard.
 *
 * Sending: each buffer is a header and a frame, which the network copies at once; so it
 * is used when net_send() is back. When that refuses, the buffer goes back to where it
 * was, until room().
 *
 * Receiving: a frame takes one buffer, or with VIRTIO_NET_F_MRG_RXBUF as many as it
 * fills. Where there are too few, they go back too, and the network keeps the frame until
 * the driver notifies. Buffers are looked at twice then, and a guest may have changed
 * them in between: the second look decides, and one that comes out shorter breaks the
 * device.
 */
#include "dev/virtio/net.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_GUEST_OFFLOADS (1ull << 2)
#define F_MTU (1ull << 3)
#define F_MAC (1ull << 5)
#define F_GUEST_TSO4 (1ull << 7)
#define F_GUEST_TSO6 (1ull << 8)
#define F_HOST_TSO4 (1ull << 11)
#define F_HOST_TSO6 (1ull << 12)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)
#define F_CTRL_VQ (1ull << 17)
#define F_CTRL_RX (1ull << 18)
#define F_CTRL_RX_EXTRA (1ull << 20)
#define F_CTRL_MAC_ADDR (1ull << 23)

#define OFFERED                                                                          \
    (F_CSUM | F_GUEST_CSUM | F_GUEST_OFFLOADS | F_MAC | F_GUEST_TSO4 | F_GUEST_TSO6 |    \
     F_HOST_TSO4 | F_HOST_TSO6 | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX |        \
     F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR)

enum { RX, TX, CTRL, QUEUES };

#define QUEUE_SIZE 256u
#define CTRL_SIZE 64u
/* Buffers that are sent before others have their turn: a guest with two CPUs could else
 * keep us here. */
#define TX_BATCH 256u
#define PIECES 1024u

/* "Device configuration layout" */
struct config {
    uint8_t mac[NET_MAC_SIZE];
    uint16_t status;
    uint16_t max_pairs; /* without VIRTIO_NET_F_MQ not the guest's to read */
    uint16_t mtu;
};
#define STATUS_LINK_UP 1u

/* "Device Operation": struct virtio_net_hdr. NUM_BUFFERS is missing in a legacy one
 * without MRG_RXBUF. */
struct header {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
    uint16_t num_buffers;
};
_Static_assert(sizeof(struct header) == 12, "as in memory");
#define HDR_NEEDS_CSUM 1u
#define HDR_DATA_VALID 2u
#define HDR_GSO_TCP4 1u
#define HDR_GSO_TCP6 4u
#define HDR_GSO_ECN 0x80u

/* "Control Virtqueue" */
#define CLASS_RX 0u
#define CLASS_MAC 1u
#define CLASS_OFFLOADS 5u
#define CTRL_OK 0u
#define CTRL_ERR 1u
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST, RX_MODES };
#define MAC_TABLE_SET 0u
#define MAC_ADDR_SET 1u

#define TABLE 64u /* addresses; more than that is as good as all */

struct table {
    uint8_t mac[TABLE][NET_MAC_SIZE];
    uint32_t count;
    bool all; /* there were more */
};

struct virtio_net {
    struct virtio_device d;
    struct virtio_queue queue[QUEUES];
    struct config config;
    uint8_t mac[NET_MAC_SIZE]; /* that it was made with */
    struct net *net;
    bool mode[RX_MODES];
    struct table unicast, multicast;
    bool starved;      /* the network keeps a frame until there are buffers */
    uint64_t offloads; /* features that the driver wants to be used now */
    struct virtio_piece pieces[PIECES];
};

static struct virtio_net *net_of(struct virtio_device *d) {
    return container_of(d, struct virtio_net, d);
}

static size_t header_size(const struct virtio_net *n) {
    return virtio_has(&n->d, VIRTIO_F_VERSION_1 | F_MRG_RXBUF) ? 12 : 10;
}

static struct virtio_chain chain_of(struct virtio_net *n) {
    return (struct virtio_chain){.room = n->pieces, .rooms = PIECES};
}

/* --- sending --- */

static struct net_offload offload_of(const struct virtio_net *n, const struct header *h) {
    struct net_offload off = {0};

    if (!(h->flags & HDR_NEEDS_CSUM) || !virtio_has(&n->d, F_CSUM))
        return off;
    off.csum = true;
    off.csum_start = h->csum_start;
    off.csum_offset = h->csum_offset;
    off.header_len = h->hdr_len;
    off.gso_size = h->gso_size;
    if ((h->gso_type & ~HDR_GSO_ECN) == HDR_GSO_TCP4 && virtio_has(&n->d, F_HOST_TSO4))
        off.gso = NET_GSO_TCP4;
    if ((h->gso_type & ~HDR_GSO_ECN) == HDR_GSO_TCP6 && virtio_has(&n->d, F_HOST_TSO6))
        off.gso = NET_GSO_TCP6;
    return off;
}

/* A piece of one is a piece of the other. */
_Static_assert(sizeof(struct virtio_piece) == sizeof(struct net_piece) &&
                   offsetof(struct virtio_piece, len) == offsetof(struct net_piece, len),
               "pieces");

/* False: the network has no room for it. */
static bool send_one(struct virtio_net *n, struct virtio_chain *c) {
    struct header h = {0};
    struct net_offload off;

    if (virtio_span_read(&c->out, &h, header_size(n)) < header_size(n))
        return true; /* nothing to be sent */
    off = offload_of(n, &h);
    return net_send(n->net, &off, (const struct net_piece *)(const void *)c->out.piece,
                    c->out.count);
}

static void send_all(struct virtio_net *n) {
    struct virtio_queue *q = &n->queue[TX];
    struct virtio_chain c = chain_of(n);
    unsigned sent = 0;

    for (; sent < TX_BATCH && virtio_queue_pop(q, &c); sent++) {
        if (!send_one(n, &c)) {
            virtio_queue_unpop(q, 1);
            break;
        }
        virtio_queue_push(q, c.head, 0);
    }
    if (sent == TX_BATCH)
        net_later(n->net);
    virtio_queue_publish(q);
    net_flush(n->net);
}

static void room(void *arg) {
    struct virtio_net *n = arg;

    if (virtio_queue_live(&n->queue[TX]))
        send_all(n);
}

/* --- receiving --- */

static bool same_mac(const uint8_t *a, const uint8_t *b) {
    for (unsigned k = 0; k < NET_MAC_SIZE; k++)
        if (a[k] != b[k])
            return false;
    return true;
}

static bool in_table(const struct table *t, const uint8_t *mac) {
    for (uint32_t k = 0; k < t->count; k++)
        if (same_mac(t->mac[k], mac))
            return true;
    return t->all;
}

static bool is_broadcast(const uint8_t *mac) {
    return same_mac(mac, (const uint8_t[]){255, 255, 255, 255, 255, 255});
}

/* "Packet Receive Filtering" */
static bool wanted(const struct virtio_net *n, const uint8_t *mac) {
    if (n->mode[RX_PROMISC])
        return true;
    if (is_broadcast(mac))
        return !n->mode[RX_NOBCAST];
    if (mac[0] & 1)
        return !n->mode[RX_NOMULTI] &&
               (n->mode[RX_ALLMULTI] || in_table(&n->multicast, mac));
    return !n->mode[RX_NOUNI] && (n->mode[RX_ALLUNI] || same_mac(n->config.mac, mac) ||
                                  in_table(&n->unicast, mac));
}

static struct header header_of(const struct net_offload *off) {
    struct header h = {.num_buffers = 1};

    if (off->csum) {
        h.flags = HDR_NEEDS_CSUM;
        h.csum_start = off->csum_start;
        h.csum_offset = off->csum_offset;
    } else if (off->csum_good) {
        h.flags = HDR_DATA_VALID;
    }
    if (off->gso) {
        h.gso_type = off->gso == NET_GSO_TCP4 ? HDR_GSO_TCP4 : HDR_GSO_TCP6;
        h.gso_size = off->gso_size;
        h.hdr_len = off->header_len;
    }
    return h;
}

/* What is to be written: a header, then a frame. */
struct arrival {
    struct header header;
    size_t header_len; /* that is still to come */
    const uint8_t *frame;
    size_t len;
};

/* Fills a buffer, as far as it goes. How much was written. */
static uint32_t fill(struct virtio_net *n, struct virtio_chain *c, struct arrival *a) {
    const uint8_t *header =
        (const uint8_t *)&a->header + (header_size(n) - a->header_len);
    uint64_t did = virtio_span_write(&n->d, &c->in, header, a->header_len), more;

    a->header_len -= did;
    if (a->header_len)
        return (uint32_t)did;
    more = virtio_span_write(&n->d, &c->in, a->frame, a->len);
    a->frame += more;
    a->len -= more;
    return (uint32_t)(did + more);
}

#define TOO_LONG UINT32_MAX

/* How many buffers, of which FIRST is the first one, have NEED bytes, and go back where
 * they were; 0: there are too few; TOO_LONG: a ring that is full has not so many. */
static unsigned count_buffers(struct virtio_net *n, uint64_t first, uint64_t need) {
    struct virtio_queue *q = &n->queue[RX];
    struct virtio_chain c = chain_of(n);
    uint64_t have = first;
    unsigned count = 1;

    while (have < need && count < q->size && virtio_queue_pop(q, &c)) {
        have += c.in.len;
        count++;
    }
    virtio_queue_unpop(q, count);
    if (have < need)
        return count == q->size ? TOO_LONG : 0;
    return count;
}

/* The frame is longer than one buffer. False: there are too few. One for which there
 * would never be enough is dropped. */
static bool spread(struct virtio_net *n, uint64_t first, struct arrival *a) {
    struct virtio_queue *q = &n->queue[RX];
    struct virtio_chain c = chain_of(n);
    unsigned count = count_buffers(n, first, a->header_len + a->len);

    if (!count || count == TOO_LONG)
        return count;
    a->header.num_buffers = (uint16_t)count;
    for (unsigned k = 0; k < count && virtio_queue_pop(q, &c); k++)
        virtio_queue_push(q, c.head, fill(n, &c, a));
    if (a->len)
        virtio_broken(&n->d, "buffers that it takes away again");
    return true;
}

static bool receive(void *arg, const struct net_offload *off, const uint8_t *frame,
                    size_t len) {
    struct virtio_net *n = arg;
    struct virtio_queue *q = &n->queue[RX];
    struct virtio_chain c = chain_of(n);
    struct arrival a = {header_of(off), header_size(n), frame, len};

    if (!virtio_queue_live(q) || !wanted(n, frame))
        return true;
    if (!virtio_queue_pop(q, &c)) {
        n->starved = virtio_queue_live(q);
        return !n->starved;
    }
    if (c.in.len >= a.header_len + len) {
        virtio_queue_push(q, c.head, fill(n, &c, &a));
    } else if (!virtio_has(&n->d, F_MRG_RXBUF)) {
        virtio_queue_unpop(q, 1); /* it is too long for this driver */
    } else if (!spread(n, c.in.len, &a)) {
        n->starved = virtio_live(&n->d);
        return !n->starved;
    }
    virtio_queue_publish(q);
    return true;
}

/* --- the cable --- */

static void show_link(struct virtio_net *n) {
    n->config.status = net_link(n->net) ? STATUS_LINK_UP : 0;
}

static void link_changed(void *arg) {
    struct virtio_net *n = arg;

    show_link(n);
    virtio_config_changed(&n->d);
}

static void let_go_on(struct virtio_net *n) {
    n->starved = false;
    net_ready(n->net);
}

/* --- control --- */

static void set_offloads(struct virtio_net *n, uint64_t features) {
    n->offloads = features;
    net_card_can(n->net, (features & F_GUEST_CSUM ? NET_CAN_CSUM : 0) |
                             (features & F_GUEST_TSO4 ? NET_CAN_TSO4 : 0) |
                             (features & F_GUEST_TSO6 ? NET_CAN_TSO6 : 0));
}

static bool control_rx(struct virtio_net *n, unsigned command, struct virtio_span *s) {
    uint8_t on;

    if (command >= RX_MODES || virtio_span_read(s, &on, 1) != 1 || s->len)
        return false;
    n->mode[command] = on;
    return true;
}

/* A count and so many addresses. */
static bool read_table(struct virtio_span *s, struct table *t) {
    uint32_t count;

    if (virtio_span_read(s, &count, 4) != 4 || s->len / NET_MAC_SIZE < count)
        return false;
    t->all = count > TABLE;
    t->count = t->all ? 0 : count;
    virtio_span_read(s, t->mac, (uint64_t)t->count * NET_MAC_SIZE);
    if (t->all)
        virtio_span_read(s, NULL, (uint64_t)count * NET_MAC_SIZE);
    return true;
}

static bool control_mac(struct virtio_net *n, unsigned command, struct virtio_span *s) {
    struct table unicast, multicast;

    if (command == MAC_ADDR_SET)
        return s->len == NET_MAC_SIZE &&
               virtio_span_read(s, n->config.mac, NET_MAC_SIZE) == NET_MAC_SIZE;
    if (command != MAC_TABLE_SET || !read_table(s, &unicast) ||
        !read_table(s, &multicast) || s->len)
        return false;
    n->unicast = unicast;
    n->multicast = multicast;
    return true;
}

/* Of what was negotiated, what the guest wants now. */
static bool control_offloads(struct virtio_net *n, unsigned command,
                             struct virtio_span *s) {
    uint64_t want;

    if (command || !virtio_has(&n->d, F_GUEST_OFFLOADS) ||
        virtio_span_read(s, &want, 8) != 8 || s->len || want & ~n->d.features)
        return false;
    set_offloads(n, want);
    return true;
}

static bool control(struct virtio_net *n, struct virtio_span *s) {
    uint8_t what[2];

    if (virtio_span_read(s, what, 2) != 2)
        return false;
    switch (what[0]) {
    case CLASS_RX:
        return control_rx(n, what[1], s);
    case CLASS_MAC:
        return control_mac(n, what[1], s);
    case CLASS_OFFLOADS:
        return control_offloads(n, what[1], s);
    default:
        return false;
    }
}

static void control_all(struct virtio_net *n) {
    struct virtio_queue *q = &n->queue[CTRL];
    struct virtio_chain c = chain_of(n);

    unsigned done = 0;

    for (; done < VIRTIO_TURN && virtio_queue_pop(q, &c); done++) {
        uint8_t ack = control(n, &c.out) ? CTRL_OK : CTRL_ERR;

        virtio_queue_push(q, c.head, (uint32_t)virtio_span_write(&n->d, &c.in, &ack, 1));
    }
    if (done == VIRTIO_TURN)
        virtio_queue_later(q);
    virtio_queue_publish(q);
}

/* --- a device --- */

static void notify(struct virtio_device *d, unsigned queue) {
    struct virtio_net *n = net_of(d);

    if (queue == TX)
        send_all(n);
    else if (queue == CTRL)
        control_all(n);
    else if (n->starved)
        let_go_on(n);
}

static void start(struct virtio_device *d) {
    set_offloads(net_of(d), d->features);
}

static void reset(struct virtio_device *d) {
    struct virtio_net *n = net_of(d);

    for (unsigned k = 0; k < RX_MODES; k++)
        n->mode[k] = k == RX_PROMISC; /* until the driver says what it wants */
    n->unicast.count = n->multicast.count = 0;
    n->unicast.all = n->multicast.all = false;
    mem_copy(n->config.mac, n->mac, NET_MAC_SIZE);
    show_link(n);
    set_offloads(n, 0);
    let_go_on(n); /* what waits is dropped */
}

/* "Feature bits": some want others. */
static bool accept(struct virtio_device *d) {
    static const uint64_t wants[][2] = {
        {F_GUEST_TSO4, F_GUEST_CSUM}, {F_GUEST_TSO6, F_GUEST_CSUM},
        {F_HOST_TSO4, F_CSUM},        {F_HOST_TSO6, F_CSUM},
        {F_CTRL_RX, F_CTRL_VQ},       {F_CTRL_RX_EXTRA, F_CTRL_VQ},
        {F_CTRL_MAC_ADDR, F_CTRL_VQ},
    };

    for (unsigned k = 0; k < ARRAY_SIZE(wants); k++)
        if (virtio_has(d, wants[k][0]) && !virtio_has(d, wants[k][1]))
            return false;
    return true;
}

/* "Legacy Interface: Device configuration layout": the address is written here. */
static void configure(struct virtio_device *d, unsigned at, unsigned len,
                      uint64_t value) {
    struct virtio_net *n = net_of(d);

    if (virtio_has(d, VIRTIO_F_VERSION_1) || virtio_has(d, F_CTRL_MAC_ADDR))
        return;
    for (unsigned k = 0; k < len && at + k < NET_MAC_SIZE; k++)
        n->config.mac[at + k] = (uint8_t)(value >> 8 * k);
}

static const struct virtio_ops ops = {
    .notify = notify,
    .reset = reset,
    .accept = accept,
    .start = start,
    .configure = configure,
};

/* --- snapshots --- */

static void table_state(struct table *t, struct snapshot *s) {
    snapshot_bytes(s, t->mac, sizeof(t->mac));
    SNAPSHOT_UPTO(s, t->count, TABLE);
    SNAPSHOT(s, t->all);
}

void virtio_net_state(struct virtio_net *n, struct snapshot *s) {
    uint64_t offloads = n->offloads;

    virtio_device_state(&n->d, s);
    SNAPSHOT(s, n->config.status);
    snapshot_bytes(s, n->config.mac, sizeof(n->config.mac));
    for (unsigned k = 0; k < RX_MODES; k++)
        SNAPSHOT(s, n->mode[k]);
    table_state(&n->unicast, s);
    table_state(&n->multicast, s);
    SNAPSHOT(s, offloads);
    if (!snapshot_reading(s))
        return;
    snapshot_need(s, !(offloads & ~n->d.features));
    set_offloads(n, offloads);
}

void virtio_net_go_on(struct virtio_net *n) {
    uint16_t before = n->config.status;

    show_link(n);
    if (n->config.status != before)
        virtio_config_changed(&n->d);
    let_go_on(n);
    virtio_device_go_on(&n->d);
}

struct virtio_net *virtio_net_new(struct mem *mem, const struct virtio_net_config *cfg) {
    struct virtio_net *n = calloc(1, sizeof(*n));
    struct net_card card = {
        .receive = receive, .room = room, .link = link_changed, .arg = n};

    if (!n)
        return NULL;
    n->net = cfg->net;
    n->config.mtu = cfg->mtu;
    mem_copy(n->mac, cfg->mac, NET_MAC_SIZE);
    n->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-net",
                                  .id = VIRTIO_ID_NET,
                                  .mem = mem,
                                  .clock = cfg->clock,
                                  .offered = OFFERED | VIRTIO_F_ALWAYS |
                                             VIRTIO_F_ANY_LAYOUT | (cfg->mtu ? F_MTU : 0),
                                  .config = &n->config,
                                  .config_len = sizeof(n->config),
                                  .queue = n->queue,
                                  .queues = QUEUES};
    n->queue[RX].size_max = n->queue[TX].size_max = QUEUE_SIZE;
    n->queue[CTRL].size_max = CTRL_SIZE;
    virtio_device_init(&n->d);
    net_plug(n->net, &card);
    virtio_device_reset(&n->d);
    return n;
}

struct virtio_device *virtio_net_device(struct virtio_net *n) {
    return &n->d;
}

void virtio_net_free(struct virtio_net *n) {
    if (!n)
        return;
    virtio_device_end(&n->d);
    net_plug(n->net, NULL);
    free(n);
}
