/*
 * virtio: what a device and its driver have in common whatever the device is and however
 * they reach each other. Virtual I/O Device (VIRTIO) Version 1.2; its sections are cited
 * by title.
 *
 * A device embeds a struct virtio_device: its features, its configuration space, its
 * queues, and the functions that it is told by. It knows no transport. A transport
 * (pci.c, mmio.c) shows the device to the guest and calls what is under "for transports".
 *
 * A queue's rings lie in guest memory. Everything in them is the guest's, and may change
 * at any time: a descriptor is copied once, and what was copied is checked. Buffers come
 * to the device as spans, lists of host addresses that are good for as long as there is a
 * machine. What the standard forbids to a driver, and what leads out of memory, breaks
 * the device: it sets DEVICE_NEEDS_RESET, and does nothing until it is reset.
 *
 * Locking: the board's; one thread at a time is in here. Other CPUs write to the rings
 * meanwhile. These files are of the core rooms (cpu/vec.h), but the guest's vector state
 * is parked when they are called.
 */
#ifndef DEV_VIRTIO_VIRTIO_H
#define DEV_VIRTIO_VIRTIO_H

#include "base/counters.h"
#include "base/types.h"
#include "bus/clock.h"
#include "mem/mem.h"

/* "Device Types" */
enum virtio_id {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_9P = 9,
    VIRTIO_ID_INPUT = 18,
    VIRTIO_ID_VSOCK = 19,
    VIRTIO_ID_FS = 26,
};

/* "Device Status Field" */
#define VIRTIO_ACKNOWLEDGE 1u
#define VIRTIO_DRIVER 2u
#define VIRTIO_DRIVER_OK 4u
#define VIRTIO_FEATURES_OK 8u
#define VIRTIO_NEEDS_RESET 64u
#define VIRTIO_FAILED 128u

/* "Reserved Feature Bits": what the queues can do, offered by every device. */
#define VIRTIO_F_ANY_LAYOUT (1ull << 27) /* legacy: buffers may be framed anyhow */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_ALWAYS (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

#define VIRTIO_QUEUE_SIZE_MAX 1024u
/* Descriptors of an indirect table at most. The standard allows no more than the queue
 * has, but Linux makes longer ones. */
#define VIRTIO_INDIRECT_MAX 1024u
#define VIRTIO_NO_VECTOR 0xffffu /* of MSI-X */

struct virtio_device;
struct snapshot;

/* --- buffers --- */

/* A part of a buffer that is in one place. */
struct virtio_piece {
    uint8_t *host;
    uint64_t len;
};

/* Pieces one after the other. Who takes bytes from it shortens it. */
struct virtio_span {
    struct virtio_piece *piece;
    unsigned count;
    uint64_t len; /* of all of them; less than 2^33 */
};

/* A buffer that the driver has made available. The pieces are in an array of the
 * device's, which says before each virtio_queue_pop() where it is. */
struct virtio_chain {
    struct virtio_piece *room;
    unsigned rooms;
    uint16_t head;          /* for virtio_queue_push() */
    struct virtio_span out; /* the device may read these */
    struct virtio_span in;  /* and write these */
};

/* --- queues --- */

struct virtio_queue {
    struct virtio_device *dev;
    uint16_t index;
    uint16_t size_max; /* the device's word; 0: there is no such queue */
    uint16_t size;     /* the driver's, a power of 2 */
    uint16_t vector;   /* the transport's */
    bool ready;
    bool stopped;               /* by a driver that may wait until nothing is under way */
    uint32_t under_way;         /* requests of it that a back end has */
    uint64_t desc, avail, used; /* guest-physical, as the driver wrote them */
    /* From here on good while it is ready. */
    uint8_t *desc_host, *avail_host, *used_host;
    uint16_t next_avail; /* the next to be popped */
    uint16_t used_idx;   /* as the driver has seen it last */
    uint16_t staged;     /* pushed after that */
    uint16_t avail_event;
    struct vtimer later;
};

/* Takes the next buffer. False: there is none (then the driver notifies when there is
 * one), or the queue is not to be used. C says where there is room for pieces. */
bool virtio_queue_pop(struct virtio_queue *q, struct virtio_chain *c);
/* The driver notifies of the next buffer that it adds, though others wait. */
void virtio_queue_ask(struct virtio_queue *q);
/* The last N buffers that were popped, none of which was pushed, were not: they come
 * again. */
void virtio_queue_unpop(struct virtio_queue *q, unsigned n);
/* Gives a buffer back, of which the device has written the first WRITTEN bytes. The
 * driver sees it after virtio_queue_publish(). */
void virtio_queue_push(struct virtio_queue *q, uint16_t head, uint32_t written);
/* Shows the driver what was pushed, all at once, and interrupts it if it wants that. */
void virtio_queue_publish(struct virtio_queue *q);
/* push and publish */
void virtio_queue_give(struct virtio_queue *q, uint16_t head, uint32_t written);

/* The device has taken as many buffers as it may in one go: ops.notify is called again
 * soon, and CPUs come to their senses in between. Another CPU may make buffers available
 * for ever; who uses them at once takes VIRTIO_TURN at most. */
#define VIRTIO_TURN 512u
void virtio_queue_later(struct virtio_queue *q);

/* Copies up to LEN bytes from the front of the span, which loses them; how many. BUF may
 * be NULL: they are skipped. */
uint64_t virtio_span_read(struct virtio_span *s, void *buf, uint64_t len);
/* Copies up to LEN bytes to the front, which is lost; how many. Tells memory before. */
uint64_t virtio_span_write(struct virtio_device *d, struct virtio_span *s,
                           const void *buf, uint64_t len);
/* Takes the last byte; NULL: there is none. Its writer tells memory. */
uint8_t *virtio_span_take_last(struct virtio_span *s);
/* The span ends after LEN bytes, if it was longer. */
void virtio_span_cut(struct virtio_span *s, uint64_t len);
/* Somebody is going to write to what S has now, or, where it is another thread, has done
 * so: whoever derived anything from it is told. */
void virtio_span_written(struct virtio_device *d, const struct virtio_span *s);

/* --- devices --- */

struct virtio_ops {
    /* The driver has made buffers available in this queue, or may have: it is ready, and
     * the device is live. */
    void (*notify)(struct virtio_device *d, unsigned queue);
    /* The driver is gone. Nothing may touch the queues from here on, which have been
     * forgotten already; what is under way elsewhere ends as virtio_ended() says. */
    void (*reset)(struct virtio_device *d);
    /* The driver has accepted the features d->features. False: these do not go together.
     * May be NULL. */
    bool (*accept)(struct virtio_device *d);
    /* The driver has set DRIVER_OK. May be NULL. */
    void (*start)(struct virtio_device *d);
    /* The driver wants to write LEN bytes (1, 2, 4 or 8) of the configuration space at
     * AT, which is inside it. NULL: nothing there can be written. */
    void (*configure)(struct virtio_device *d, unsigned at, unsigned len, uint64_t value);
};

struct virtio_device {
    /* Set by the device when it is made. */
    const struct virtio_ops *ops;
    const char *name; /* for messages */
    enum virtio_id id;
    struct mem *mem;
    struct vclock *clock; /* for virtio_queue_later(); else it may be NULL */
    struct counters *cnt; /* may be NULL */
    uint64_t offered;     /* features */
    void *config;         /* the configuration space, the device's, little endian */
    unsigned config_len;
    struct virtio_queue *queue; /* of QUEUES, the device's; size_max is set in each */
    unsigned queues;

    /* Set by who owns the device, or NULL. Where guest code runs without fences of its
     * own (LOCK is left away), a fence for it and for the caller; false: there was none.
     */
    bool (*fence)(void *arg);
    void *fence_arg;

    /* Set by the transport. INTERRUPT: a buffer of Q has been used; or, with NULL, the
     * configuration has changed. */
    void (*interrupt)(void *transport, struct virtio_queue *q);
    void *transport;

    uint64_t features; /* that the driver has accepted */
    uint32_t status;
    uint32_t config_generation;
    uint32_t lives;     /* how often it was reset */
    uint32_t under_way; /* requests that a back end has */
    uint8_t resetting;  /* the status that is shown until they have ended */
    bool cut_off;       /* the transport's word: it may not reach memory */
    bool early;         /* a legacy driver that uses the device before DRIVER_OK */
};

static inline bool virtio_has(const struct virtio_device *d, uint64_t feature) {
    return d->features & feature;
}

/* The driver may use queues, and be interrupted. */
static inline bool virtio_live(const struct virtio_device *d) {
    return (d->status & VIRTIO_DRIVER_OK || d->early) && !d->cut_off &&
           !(d->status & (VIRTIO_NEEDS_RESET | VIRTIO_FAILED));
}
/* The device is live, and so is this queue of it. */
static inline bool virtio_queue_live(const struct virtio_queue *q) {
    return q->ready && virtio_live(q->dev);
}

/* When everything but the transport's is set. */
void virtio_device_init(struct virtio_device *d);
/* Before its memory goes: the clock knows nothing of it any more. */
void virtio_device_end(struct virtio_device *d);
/* The device cannot go on until it is reset. WHY is for the log. */
void virtio_broken(struct virtio_device *d, const char *why);
/* The device has changed its configuration space. */
void virtio_config_changed(struct virtio_device *d);
/* A back end has a request of Q, and has it no more. The reset that the driver asked for
 * is not done before all have ended, nor is a queue's end before all of its own. A
 * request that ends in another life than it began in (d->lives) has nobody who waits for
 * it: it is not pushed. */
void virtio_began(struct virtio_queue *q);
void virtio_ended(struct virtio_queue *q);

/* --- for transports --- */

/* As after power-up. */
void virtio_device_reset(struct virtio_device *d);
/* What the driver reads in the status field; and it writes there. LEGACY: through the
 * legacy interface. */
uint8_t virtio_status(const struct virtio_device *d);
void virtio_set_status(struct virtio_device *d, uint8_t value, bool legacy);
/* 32 features, number PAGE. */
uint32_t virtio_offered(const struct virtio_device *d, uint32_t page);
uint32_t virtio_accepted(const struct virtio_device *d, uint32_t page);
void virtio_accept(struct virtio_device *d, uint32_t page, uint32_t features);
/* SIZE is 1, 2, 4 or 8; what is outside reads as zeros. */
uint64_t virtio_config_read(const struct virtio_device *d, uint64_t at, unsigned size);
void virtio_config_write(struct virtio_device *d, uint64_t at, unsigned size,
                         uint64_t value);
/* NULL: there is no such queue. */
struct virtio_queue *virtio_queue_of(struct virtio_device *d, uint32_t index);
/* The driver's choice of the size; of what cannot be nothing is taken. */
void virtio_queue_set_size(struct virtio_queue *q, uint32_t size);
/* The driver has said where the rings are: they are used from now on. */
void virtio_queue_enable(struct virtio_queue *q);
/* They are used no more. */
void virtio_queue_disable(struct virtio_queue *q);
/* They are, or a back end has buffers of a queue that the driver has ended. */
bool virtio_queue_busy(const struct virtio_queue *q);
/* "Legacy Interfaces: A Note on Virtqueue Layout": all rings in one place, at page PFN of
 * ALIGN bytes; 0: none any more. */
void virtio_queue_set_legacy(struct virtio_queue *q, uint64_t pfn, uint32_t align);
/* The driver has notified this queue. */
void virtio_notify(struct virtio_device *d, uint32_t index);

/* --- snapshots (snapshot/snapshot.h) --- */

/* What a device has in common with the others: the first part of its record. It is read
 * when memory is there and the transport's record has been read. No request is under way
 * when it is written. */
void virtio_device_state(struct virtio_device *d, struct snapshot *s);
void virtio_queue_state(struct virtio_queue *q, struct snapshot *s);
/* All has been read, and the machine is about to run: the device looks at its queues. */
void virtio_device_go_on(struct virtio_device *d);

#endif
