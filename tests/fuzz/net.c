/*
 * A virtio network card between a guest that writes anything into registers, rings and
 * frames, and a network from which anything arrives: frames in a stream that is cut
 * anywhere, and frames with offloads of which nothing need be true. Nothing may be out of
 * bounds, take long, or be kept for ever.
 */
#include "dev/virtio/net.h"
#include "fuzz/vguest.h"
#include "net/net_int.h"

enum { OPS = 300 };
#define DATA VGUEST_DATA

static struct rig r;
static struct mem *mem;
static struct virtio_net *card;
static struct vguest guest;

/* --- a network: what is sent is looked at, what arrives is a stream's --- */

static struct net net;
static struct net_ops ops;
static uint8_t *sent; /* of just the size that was asked for */
static size_t sent_len;
static unsigned rooms;

static bool has_room(const struct net *n, size_t bytes, unsigned count) {
    HOLDS(bytes <= NET_CUT_MAX && count <= NET_CUT_COUNT);
    return rooms;
}

static uint8_t *place(struct net *n, size_t len) {
    free(sent);
    sent_len = len;
    sent = malloc(len);
    HOLDS(sent && len && len <= NET_FRAME_MAX);
    return sent;
}

static void put(struct net *n, const struct net_offload *off, size_t len) {
    unsigned sum = 0;

    HOLDS(len == sent_len);
    HOLDS(!off->csum || n->ops->can & NET_CAN_CSUM);
    HOLDS(!off->gso || n->ops->can & (NET_CAN_TSO4 | NET_CAN_TSO6));
    for (size_t k = 0; k < len; k++)
        sum += sent[k];
    HOLDS(sum <= 255 * len);
    rooms -= rooms && sum % 7 == 0;
}

static void flush(struct net *n) {
}

static bool waits(const struct net *n) {
    return false;
}

static void make(unsigned which) {
    struct virtio_net_config cfg = {.net = &net, .mac = {2, 0, 0, 0, 0, 1}};

    rig_new(&r);
    cfg.clock = r.clock;
    HOLDS(mem || !mem_create(VGUEST_RAM, &mem));
    mem_reset(mem);
    ops = (struct net_ops){.can = which & 7,
                           .trusted = which & 8,
                           .room = has_room,
                           .place = place,
                           .put = put,
                           .flush = flush,
                           .waits = waits,
                           .deliver = net_stream_ops.deliver};
    net = (struct net){.ops = &ops, .gone = -1};
    HOLDS(!net_stream_buffers(&net));
    rooms = 5;
    card = virtio_net_new(mem, &cfg);
    HOLDS(card);
    vguest_new(&guest, &r, mem, virtio_net_device(card));
}

static void destroy(void) {
    vguest_free(&guest);
    HOLDS(!net.blocked);
    HOLDS(net_go_on(&net) <= 0 && !net.holding && !net.cutting);
    HOLDS(!net_merge_there(&net.merge));
    virtio_net_free(card);
    net_bytes_free(&net.in);
    net_bytes_free(&net.out);
    free(sent);
    sent = NULL;
    rig_free(&r);
}

/* --- the guest --- */

static void store(uint64_t at, unsigned len, uint64_t value) {
    vguest_put(&guest, at, len, value);
}

static void descriptor(struct fuzz_in *in) {
    unsigned q = vguest_queue(&guest, in), n = (unsigned)fuzz_get(in, 1) & 15;
    unsigned how = (unsigned)fuzz_get(in, 1);
    uint64_t at = how & 0x80 ? fuzz_get(in, 8) : DATA + fuzz_get(in, 2);
    uint32_t len = (uint32_t)fuzz_get(in, how & 0x40 ? 4 : 2);

    vguest_desc(&guest, q, n, at, len, how & 7, how >> 3 & 3);
}

/* Headers as a guest writes them, so that long frames are cut. */
static void good_frame(struct fuzz_in *in) {
    uint64_t at = DATA + (fuzz_get(in, 1) & 3) * 0x1000u;
    bool v6 = fuzz_get(in, 1) & 1;

    store(at, 8, 0x0042000000000101u | (v6 ? 0x400u : 0) | fuzz_get(in, 2) << 32);
    store(at + 8, 4, v6 ? 0x00100036 : 0x00100022);
    at += 12;
    store(at + 12, 2, v6 ? 0xdd86 : 0x0008);
    store(at + 14, 8, v6 ? 0x60 : 0x45);
    store(at + 20, 1, 6);
    store(at + 23, 1, 6);
    store(at + (v6 ? 54 : 34) + 12, 1, fuzz_get(in, 1));
}

/* --- what arrives --- */

static void stream(struct fuzz_in *in) {
    size_t room, len = (size_t)fuzz_get(in, 1);
    uint8_t *to;

    if (net.blocked)
        return;
    to = net_frames_space(&net.in, &room);
    len = len < room ? len : room;
    for (size_t k = 0; k < len; k++)
        to[k] = (uint8_t)fuzz_get(in, 1);
    net_frames_filled(&net.in, len);
    if (net_go_on(&net))
        net_bytes_clear(&net.in); /* as when the link is cut */
}

/* Segments of TCP that may belong together: headers alike, and something changed. */
static void segments(struct fuzz_in *in) {
    unsigned count = (unsigned)fuzz_get(in, 1) & 7, at = (unsigned)fuzz_get(in, 1);
    size_t room, len = 66 + (fuzz_get(in, 1) & 127);

    if (net.blocked)
        return;
    for (unsigned n = 0; n < count; n++) {
        uint8_t *f = net_frames_space(&net.in, &room);

        if (room < 4 + len)
            return;
        memset(f, 0, 4 + len);
        f[3] = (uint8_t)len;
        f += 4;
        f[12] = 8;
        f[14] = 0x45;
        f[17] = (uint8_t)(len - 14);
        f[23] = 6;
        f[40] = (uint8_t)((n * (len - 54)) >> 8);
        f[41] = (uint8_t)(n * (len - 54));
        f[46] = 0x50;
        f[47] = 0x10;
        f[at % len] ^= (uint8_t)(n & 2);
        net_frames_filled(&net.in, 4 + len);
    }
    if (net_go_on(&net))
        net_bytes_clear(&net.in);
}

/* As a TAP interface gives it. */
static void offloaded(struct fuzz_in *in) {
    static uint8_t frame[4096];
    size_t len = (size_t)fuzz_get(in, 2) % sizeof(frame);
    const struct net_offload off = {
        .csum = fuzz_get(in, 1) & 1,
        .csum_good = fuzz_get(in, 1) & 1,
        .gso = (uint8_t)(fuzz_get(in, 1) % 3),
        .gso_size = (uint16_t)fuzz_get(in, 2),
        .csum_start = (uint16_t)fuzz_get(in, 2),
        .csum_offset = (uint16_t)fuzz_get(in, 1),
    };

    if (net.blocked || net.holding || net.cutting)
        return;
    for (size_t k = 0; k < 80; k++)
        frame[k] = (uint8_t)fuzz_get(in, 1);
    net_deliver(&net, &off, frame, len);
}

static void one(struct fuzz_in *in) {
    unsigned op = (unsigned)fuzz_get(in, 1);

    switch (op & 15) {
    case 0:
        vguest_set(&guest, (unsigned)fuzz_get(in, 1) & 0xfc, (uint32_t)fuzz_get(in, 4));
        break;
    case 1:
        vguest_start(&guest, op & 0x10 ? fuzz_get(in, 8) | VIRTIO_F_VERSION_1 : ~0ull);
        break;
    case 2 ... 4:
        descriptor(in);
        break;
    case 5 ... 7:
        vguest_offer(&guest, in);
        break;
    case 8:
        store(DATA + (fuzz_get(in, 2) & 0x3fff), 8, fuzz_get(in, 8));
        break;
    case 9:
        good_frame(in);
        break;
    case 10:
        stream(in);
        break;
    case 11:
        segments(in);
        break;
    case 12:
        offloaded(in);
        break;
    case 13:
        net.fd = op & 0x10 ? 0 : -1;
        net.card.link(net.card.arg);
        break;
    case 14:
        rooms = op >> 4;
        net.refused = false;
        net.card.room(net.card.arg);
        break;
    default:
        if (!net.blocked && net_go_on(&net))
            net_bytes_clear(&net.in);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};

    make((unsigned)fuzz_get(&in, 1));
    for (unsigned k = 0; k < OPS && in.left; k++)
        one(&in);
    destroy();
    return 0;
}
