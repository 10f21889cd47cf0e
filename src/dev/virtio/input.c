/*
 * A virtio tablet: a pointer that says where it is, with three buttons and a wheel.
 * "Input Device" of the standard; the events are Linux's (its input-event-codes.h).
 *
 * An event is a buffer of the driver's. What belongs together ends with EV_SYN, and is
 * given whole or not at all. What the driver has no buffers for waits: positions replace
 * each other, but each change of the buttons is kept, up to POINTS of them, so that a
 * click is not lost in a movement.
 */
#include "dev/virtio/input.h"

#include <stdlib.h>

#include "dev/pc/mouse.h"
#include "snapshot/snapshot.h"

#define QUEUE_SIZE 64u
#define PIECES 4u
#define POINTS 16u
#define BUTTONS 3u
#define EVENTS 8u /* of a point at most: two axes, the buttons, the wheel, the end */

enum { Q_EVENTS, Q_STATUS, QUEUES };

enum { EV_SYN = 0, EV_KEY = 1, EV_REL = 2, EV_ABS = 3 };
enum { ABS_X = 0, ABS_Y = 1, REL_WHEEL = 8, BTN_LEFT = 0x110 };

struct event {
    uint16_t type, code;
    uint32_t value;
};

/* "Device configuration layout" */
enum { CFG_NAME = 1, CFG_IDS = 3, CFG_EVENTS = 0x11, CFG_ABS = 0x12 };
#define CFG_DATA 128u
struct config {
    uint8_t select, subsel, size, reserved[5];
    union {
        uint8_t bytes[CFG_DATA];
        struct {
            uint16_t bus, vendor, product, version;
        } ids;
        struct {
            uint32_t min, max, fuzz, flat, resolution;
        } abs;
    };
};
_Static_assert(sizeof(struct config) == 8 + CFG_DATA, "as the standard has it");

struct virtio_input {
    struct virtio_device d;
    struct virtio_queue queue[QUEUES];
    struct config config;
    struct virtio_input_point told; /* to the driver; its wheel is nothing */
    struct virtio_input_point point[POINTS];
    unsigned first, count;
    struct virtio_piece piece[EVENTS][PIECES];
};

static struct virtio_input *input_of(struct virtio_device *d) {
    return container_of(d, struct virtio_input, d);
}

/* --- what it is --- */

static void set_bit(struct config *c, unsigned bit) {
    c->bytes[bit / 8] |= (uint8_t)(1u << bit % 8);
    if (c->size <= bit / 8)
        c->size = (uint8_t)(bit / 8 + 1);
}

static void put_events(struct config *c) {
    switch (c->subsel) {
    case EV_KEY:
        for (unsigned n = 0; n < BUTTONS; n++)
            set_bit(c, BTN_LEFT + n);
        break;
    case EV_REL:
        set_bit(c, REL_WHEEL);
        break;
    case EV_ABS:
        set_bit(c, ABS_X);
        set_bit(c, ABS_Y);
        break;
    default:
        break;
    }
}

/* What the driver has selected; nothing: a size of 0. */
static void fill_config(struct config *c) {
    static const char name[] = "bivisor virtio tablet";

    c->size = 0;
    for (unsigned n = 0; n < CFG_DATA; n++)
        c->bytes[n] = 0;
    if (c->select == CFG_NAME && !c->subsel) {
        for (; name[c->size]; c->size++)
            c->bytes[c->size] = (uint8_t)name[c->size];
    } else if (c->select == CFG_IDS && !c->subsel) {
        c->size = sizeof(c->ids);
        c->ids.bus = 6; /* BUS_VIRTUAL */
        c->ids.vendor = 0x0627;
        c->ids.product = 3;
        c->ids.version = 2;
    } else if (c->select == CFG_EVENTS) {
        put_events(c);
    } else if (c->select == CFG_ABS && c->subsel <= ABS_Y) {
        c->size = sizeof(c->abs);
        c->abs.max = VIRTIO_INPUT_MAX;
    }
}

static void configure(struct virtio_device *d, unsigned at, unsigned len,
                      uint64_t value) {
    struct config *c = &input_of(d)->config;

    if (at > 1 || len != 1)
        return;
    if (at)
        c->subsel = (uint8_t)value;
    else
        c->select = (uint8_t)value;
    fill_config(c);
}

/* --- events --- */

static unsigned put(struct event *e, unsigned n, uint16_t type, unsigned code,
                    uint32_t value) {
    e[n] = (struct event){.type = type, .code = (uint16_t)code, .value = value};
    return n + 1;
}

/* What P is other than what the driver knows: how many events, the end not counted. */
static unsigned changes(const struct virtio_input *t, const struct virtio_input_point *p,
                        struct event *e) {
    static const uint8_t button[BUTTONS] = {MOUSE_LEFT, MOUSE_RIGHT, MOUSE_MIDDLE};
    unsigned n = 0;

    if (p->x != t->told.x)
        n = put(e, n, EV_ABS, ABS_X, p->x);
    if (p->y != t->told.y)
        n = put(e, n, EV_ABS, ABS_Y, p->y);
    for (unsigned k = 0; k < BUTTONS; k++)
        if ((p->buttons ^ t->told.buttons) & button[k])
            n = put(e, n, EV_KEY, BTN_LEFT + k, p->buttons & button[k] ? 1 : 0);
    if (p->wheel) /* Linux counts away from the user */
        n = put(e, n, EV_REL, REL_WHEEL, (uint32_t)-p->wheel);
    return n;
}

/* Gives the driver all of them. False: it has too few buffers now. */
static bool give(struct virtio_input *t, const struct event *e, unsigned count) {
    struct virtio_queue *q = &t->queue[Q_EVENTS];
    struct virtio_chain c[EVENTS];

    for (unsigned n = 0; n < count; n++) {
        c[n] = (struct virtio_chain){.room = t->piece[n], .rooms = PIECES};
        if (!virtio_queue_pop(q, &c[n])) {
            virtio_queue_unpop(q, n);
            return false;
        }
    }
    for (unsigned n = 0; n < count; n++)
        virtio_queue_push(
            q, c[n].head,
            (uint32_t)virtio_span_write(&t->d, &c[n].in, &e[n], sizeof(e[n])));
    return true;
}

static void tell(struct virtio_input *t) {
    struct event e[EVENTS];

    while (t->count && virtio_queue_live(&t->queue[Q_EVENTS])) {
        const struct virtio_input_point *p = &t->point[t->first];
        unsigned n = changes(t, p, e);

        if (n && !give(t, e, put(e, n, EV_SYN, 0, 0)))
            break;
        t->told = *p;
        t->told.wheel = 0;
        t->first = (t->first + 1) % POINTS;
        t->count--;
    }
    virtio_queue_publish(&t->queue[Q_EVENTS]);
}

/* The driver's words for lights that a tablet has not. */
static void drop_status(struct virtio_input *t) {
    struct virtio_chain c = {.room = t->piece[0], .rooms = PIECES};
    struct virtio_queue *q = &t->queue[Q_STATUS];
    unsigned turn = VIRTIO_TURN;

    while (turn && virtio_queue_pop(q, &c)) {
        virtio_queue_push(q, c.head, 0);
        if (!--turn)
            virtio_queue_later(q);
    }
    virtio_queue_publish(q);
}

static void notify(struct virtio_device *d, unsigned n) {
    if (n == Q_EVENTS)
        tell(input_of(d));
    else
        drop_status(input_of(d));
}

bool virtio_input_point(struct virtio_input *t, const struct virtio_input_point *p) {
    struct virtio_input_point *last =
        t->count ? &t->point[(t->first + t->count - 1) % POINTS] : NULL;

    if (!virtio_queue_live(&t->queue[Q_EVENTS]))
        return false;
    if (last && (last->buttons == p->buttons || t->count == POINTS)) {
        int wheel = last->wheel + p->wheel;

        *last = *p;
        last->wheel = (int16_t)(wheel > INT16_MAX   ? INT16_MAX
                                : wheel < INT16_MIN ? INT16_MIN
                                                    : wheel);
    } else {
        t->point[(t->first + t->count++) % POINTS] = *p;
    }
    tell(t);
    return true;
}

static void reset(struct virtio_device *d) {
    struct virtio_input *t = input_of(d);

    t->config.select = t->config.subsel = 0;
    fill_config(&t->config);
    t->first = t->count = 0;
    t->told = (struct virtio_input_point){0};
}

static const struct virtio_ops ops = {
    .notify = notify, .reset = reset, .configure = configure};

/* --- its life --- */

/* What waits for the driver is somebody's of before: it is not frozen. */
void virtio_input_state(struct virtio_input *t, struct snapshot *s) {
    virtio_device_state(&t->d, s);
    SNAPSHOT(s, t->config.select);
    SNAPSHOT(s, t->config.subsel);
    SNAPSHOT(s, t->told.x);
    SNAPSHOT(s, t->told.y);
    SNAPSHOT(s, t->told.buttons);
    if (snapshot_reading(s)) {
        t->count = 0;
        fill_config(&t->config);
    }
}

struct virtio_input *virtio_input_new(struct mem *mem, struct vclock *clock,
                                      struct counters *cnt) {
    struct virtio_input *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    for (unsigned n = 0; n < QUEUES; n++)
        t->queue[n].size_max = QUEUE_SIZE;
    t->d = (struct virtio_device){.ops = &ops,
                                  .name = "virtio-input",
                                  .id = VIRTIO_ID_INPUT,
                                  .mem = mem,
                                  .clock = clock,
                                  .cnt = cnt,
                                  .offered = VIRTIO_F_ALWAYS,
                                  .config = &t->config,
                                  .config_len = sizeof(t->config),
                                  .queue = t->queue,
                                  .queues = QUEUES};
    virtio_device_init(&t->d);
    return t;
}

void virtio_input_free(struct virtio_input *t) {
    if (t)
        virtio_device_end(&t->d);
    free(t);
}

struct virtio_device *virtio_input_device(struct virtio_input *t) {
    return &t->d;
}
