/*
 * A virtio device that files are reached by: a buffer has a message to a file server in
 * its readable part, and room for the answer in its writable one. The messages are not
 * this file's business.
 *
 * As a 9P transport it has one queue, and its configuration space has the length of the
 * tag and the tag, as Linux's driver wants it (the standard has no section for it). As a
 * file system, "File System Device" of the standard, it has a tag of fixed length, and
 * two queues: the first is for what should not wait for other requests.
 *
 * A message is copied when its buffer is popped, its answer when it has come: nobody else
 * touches guest memory. With all places taken, buffers wait in the ring.
 */
#include "dev/virtio/share.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define QUEUE_SIZE 256u
#define PIECES QUEUE_SIZE

#define F_MOUNT_TAG (1ull << 0) /* 9P */

/* 9P: le16 and the tag. File system: the tag, zeros, and le32. */
#define CONFIG_SIZE 40u
_Static_assert(CONFIG_SIZE == VIRTIO_SHARE_TAG + 4, "the larger of both");

struct request {
    bool busy;
    uint32_t life; /* of the device */
    uint16_t head;
    struct virtio_queue *q;
    struct virtio_span in;
    struct virtio_piece piece[PIECES];
};

struct virtio_share {
    struct virtio_device d;
    struct virtio_queue queue[2];
    uint8_t config[CONFIG_SIZE];
    struct virtio_share_host host;
    bool starved; /* buffers wait for a slot */
    struct request request[VIRTIO_SHARE_SLOTS];
};

static struct virtio_share *share_of(struct virtio_device *d) {
    return container_of(d, struct virtio_share, d);
}

/* A message that has no room in a slot is none of a driver that has asked how much there
 * may be. */
static bool take(struct virtio_share *s, struct virtio_queue *q, struct virtio_chain *c,
                 struct request *r, uint8_t *to, uint32_t *len) {
    if (c->out.len > s->host.max) {
        virtio_broken(&s->d, "a message that is too long");
        return false;
    }
    *len = (uint32_t)virtio_span_read(&c->out, to, c->out.len);
    r->busy = true;
    r->life = s->d.lives;
    r->head = c->head;
    r->q = q;
    r->in = c->in;
    return true;
}

/* One buffer. False: there is none, or no place for it. */
static bool serve_one(struct virtio_share *s, struct virtio_queue *q) {
    unsigned slot;
    uint8_t *to = s->host.begin(s->host.arg, &slot);
    struct virtio_chain c;
    struct request *r;
    uint32_t len;

    if (!to) {
        s->starved = true;
        return false;
    }
    r = &s->request[slot];
    c = (struct virtio_chain){.room = r->piece, .rooms = PIECES};
    if (!virtio_queue_pop(q, &c) || !take(s, q, &c, r, to, &len)) {
        s->host.drop(s->host.arg, slot);
        return false;
    }
    if (s->d.cnt)
        s->d.cnt->share_requests++;
    s->host.submit(s->host.arg, slot, len,
                   r->in.len < s->host.max ? (uint32_t)r->in.len : s->host.max);
    return true;
}

static void serve(struct virtio_device *d, unsigned n) {
    struct virtio_share *s = share_of(d);
    unsigned turn = VIRTIO_TURN;

    while (turn && serve_one(s, &s->queue[n]))
        turn--;
    if (!turn)
        virtio_queue_later(&s->queue[n]);
}

static void reset(struct virtio_device *d) {
    struct virtio_share *s = share_of(d);

    for (unsigned n = 0; n < VIRTIO_SHARE_SLOTS; n++)
        s->request[n].busy = false;
    s->starved = false;
    s->host.reset(s->host.arg);
}

void virtio_share_done(struct virtio_share *s, unsigned slot, const uint8_t *answer,
                       uint32_t len) {
    struct request *r = &s->request[slot];

    if (!r->busy || r->life != s->d.lives)
        return;
    r->busy = false;
    len = len < r->in.len ? len : (uint32_t)r->in.len;
    virtio_queue_give(r->q, r->head,
                      (uint32_t)virtio_span_write(&s->d, &r->in, answer, len));
}

void virtio_share_go_on(struct virtio_share *s) {
    if (!s->starved)
        return;
    s->starved = false;
    for (unsigned n = 0; n < s->d.queues && !s->starved; n++)
        if (virtio_queue_live(&s->queue[n]))
            serve(&s->d, n);
}

static const struct virtio_ops ops = {.notify = serve, .reset = reset};

static void describe(struct virtio_share *s, enum virtio_share_kind kind,
                     const char *tag) {
    unsigned len = 0, at = kind == VIRTIO_SHARE_9P ? 2 : 0;

    for (; tag[len] && len < VIRTIO_SHARE_TAG; len++)
        s->config[at + len] = (uint8_t)tag[len];
    if (kind == VIRTIO_SHARE_9P)
        s->config[0] = (uint8_t)len;
    else
        s->config[VIRTIO_SHARE_TAG] = 1; /* queues for requests */
    s->d.config_len = kind == VIRTIO_SHARE_9P ? 2 + len : CONFIG_SIZE;
}

/* What the guest has open is with the server, and in no snapshot. */
void virtio_share_state(struct virtio_share *v, struct snapshot *s) {
    virtio_device_state(&v->d, s);
    if (!snapshot_reading(s) && virtio_live(&v->d))
        snapshot_refuse(s, "what the guest has open of a shared directory (--share) "
                           "cannot be in a snapshot: it has to be unmounted first");
}

struct virtio_share *virtio_share_new(struct mem *mem, struct vclock *clock,
                                      enum virtio_share_kind kind, const char *tag,
                                      const struct virtio_share_host *host,
                                      struct counters *cnt) {
    struct virtio_share *s = calloc(1, sizeof(*s));
    bool p9 = kind == VIRTIO_SHARE_9P;

    if (!s)
        return NULL;
    s->host = *host;
    s->queue[0].size_max = s->queue[1].size_max = QUEUE_SIZE;
    s->d = (struct virtio_device){.ops = &ops,
                                  .name = p9 ? "virtio-9p" : "virtio-fs",
                                  .id = p9 ? VIRTIO_ID_9P : VIRTIO_ID_FS,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .offered = VIRTIO_F_ALWAYS | VIRTIO_F_ANY_LAYOUT |
                                             (p9 ? F_MOUNT_TAG : 0),
                                  .config = s->config,
                                  .queue = s->queue,
                                  .queues = p9 ? 1 : 2};
    describe(s, kind, tag);
    virtio_device_init(&s->d);
    return s;
}

void virtio_share_free(struct virtio_share *s) {
    if (s)
        virtio_device_reset(&s->d);
    free(s);
}

struct virtio_device *virtio_share_device(struct virtio_share *s) {
    return &s->d;
}
