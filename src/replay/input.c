/* Where a counted run's console input comes from; see input.h. */
#include "replay/input.h"

#include <string.h>

#include "bus/clock.h"

/* A busy guest's input is looked for at each multiple of this. */
#define LOOK_NS 1000000u

static uint64_t next_look(uint64_t now) {
    return (now / LOOK_NS + 1) * LOOK_NS;
}

/* --- the console --- */

static uint64_t record_next(void *arg, uint64_t now) {
    const struct input_recorder *r = arg;

    return r->source.dry(r->source.console.arg) ? VCLOCK_NEVER : next_look(now);
}

static size_t record_take(void *arg, uint64_t now, uint8_t *buf, size_t room) {
    struct input_recorder *r = arg;
    size_t n = r->source.console.rx(r->source.console.arg, buf, room);

    if (n)
        recording_write_input(r->out, now, buf, n);
    return n;
}

struct machine_input input_record(struct input_recorder *r) {
    /* Virtual time keeps up with the host's while the guest has nothing to do. */
    return (struct machine_input){
        .next = record_next, .take = record_take, .host_time = true, .arg = r};
}

/* --- a recording --- */

/* A guest that ended by itself did so before the next instruction. */
static uint64_t due(const struct recording_event *e) {
    bool by_itself = e->kind == RECORDING_END && e->how == RECORDING_GUEST;

    return e->ns + by_itself;
}

static uint64_t play_next(void *arg, uint64_t now) {
    const struct input_player *p = arg;

    return p->event < p->rec->count ? due(&p->rec->events[p->event]) : VCLOCK_NEVER;
}

static size_t play_take(void *arg, uint64_t now, uint8_t *buf, size_t room) {
    struct input_player *p = arg;
    const struct recording_event *e = &p->rec->events[p->event];
    size_t n;

    if (p->event == p->rec->count || due(e) > now)
        return 0;
    if (e->kind == RECORDING_END) {
        p->event++;
        p->end(p->arg, e);
        return 0;
    }
    if (!room) { /* there was room when it was recorded */
        p->event = p->rec->count;
        p->end(p->arg, NULL);
        return 0;
    }
    n = e->len - p->offset < room ? e->len - p->offset : room;
    memcpy(buf, e->bytes + p->offset, n);
    p->offset += n;
    if (p->offset == e->len) {
        p->event++;
        p->offset = 0;
    }
    return n;
}

struct machine_input input_play(struct input_player *p) {
    return (struct machine_input){.next = play_next, .take = play_take, .arg = p};
}

/* --- a file --- */

static uint64_t text_next(void *arg, uint64_t now) {
    const struct input_text *t = arg;

    return t->at < t->len ? next_look(now) : VCLOCK_NEVER;
}

static size_t text_take(void *arg, uint64_t now, uint8_t *buf, size_t room) {
    struct input_text *t = arg;
    size_t n = t->len - t->at < room ? t->len - t->at : room;

    memcpy(buf, t->bytes + t->at, n);
    t->at += n;
    return n;
}

struct machine_input input_text(struct input_text *t) {
    return (struct machine_input){.next = text_next, .take = text_take, .arg = t};
}
