/*
 * A virtio source of entropy. "Entropy Device" of the standard.
 *
 * A buffer is given back with at most BYTES_MAX bytes in it, so that a request for
 * gigabytes takes no longer than others. While the host has none, or there is a limit,
 * buffers wait.
 */
#include "dev/virtio/rng.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define QUEUE_SIZE 64u
#define PIECES 64u
#define BYTES_MAX 4096u
#define PIECE 256u
#define AGAIN_NS 10000000u

struct virtio_rng {
    struct virtio_device d;
    struct virtio_queue queue;
    struct virtio_rng_host host;
    struct virtio_piece piece[PIECES];
};

/* How many bytes the buffer has got. */
static uint32_t fill(struct virtio_rng *r, struct virtio_span *s) {
    uint32_t done = 0;

    while (s->len && done < BYTES_MAX) {
        uint8_t bytes[PIECE];
        size_t len = s->len < PIECE ? s->len : PIECE;

        len = r->host.random(r->host.arg, bytes, len);
        if (!len)
            break;
        done += (uint32_t)virtio_span_write(&r->d, s, bytes, len);
    }
    return done;
}

/* A request that has to wait goes on at a time of the device's clock. */
static uint64_t wait_until(struct virtio_rng *r, uint64_t now) {
    return r->host.when ? r->host.when(r->host.arg, now) : now;
}

static void serve(struct virtio_device *d, unsigned n) {
    struct virtio_rng *r = container_of(d, struct virtio_rng, d);
    struct virtio_chain c = {.room = r->piece, .rooms = PIECES};
    unsigned turn = VIRTIO_TURN;

    while (turn && virtio_queue_pop(&r->queue, &c)) {
        uint64_t now = vclock_now(d->clock), again = wait_until(r, now);
        uint64_t wanted = c.in.len;
        uint32_t got = again > now ? 0 : fill(r, &c.in);

        if (wanted && !got) {
            virtio_queue_unpop(&r->queue, 1);
            vtimer_arm(d->clock, &r->queue.later, again > now ? again : now + AGAIN_NS);
            break;
        }
        if (r->host.had)
            r->host.had(r->host.arg, got, now);
        virtio_queue_push(&r->queue, c.head, got);
        if (!--turn)
            virtio_queue_later(&r->queue);
    }
    virtio_queue_publish(&r->queue);
}

static void reset(struct virtio_device *d) {
}

static const struct virtio_ops ops = {.notify = serve, .reset = reset};

void virtio_rng_state(struct virtio_rng *r, struct snapshot *s) {
    virtio_device_state(&r->d, s);
}

struct virtio_rng *virtio_rng_new(struct mem *mem, struct vclock *clock,
                                  const struct virtio_rng_host *host,
                                  struct counters *cnt) {
    struct virtio_rng *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->host = *host;
    r->queue.size_max = QUEUE_SIZE;
    r->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-rng",
                                  .id = VIRTIO_ID_RNG,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .offered = VIRTIO_F_ALWAYS | VIRTIO_F_ANY_LAYOUT,
                                  .queue = &r->queue,
                                  .queues = 1};
    virtio_device_init(&r->d);
    return r;
}

void virtio_rng_free(struct virtio_rng *r) {
    if (r)
        virtio_device_end(&r->d);
    free(r);
}

struct virtio_device *virtio_rng_device(struct virtio_rng *r) {
    return &r->d;
}
