/* Where a counted run's console input comes from; see input.h. */
#include "replay/input.h"

#include <string.h>

#include "bus/clock.h"

/* A busy guest's input is looked for at each multiple of this. */
#define LOOK_NS 1000000u

static uint64_t next_look(uint64_t now) {
    return (now / LOOK_NS + 1) * LOOK_NS;
}

/* --- places --- */

void input_place_state(struct input_place *p, struct snapshot *s) {
    struct input_place is = *p;

    SNAPSHOT(s, is.start_ns);
    SNAPSHOT(s, is.state);
    SNAPSHOT(s, is.event);
    SNAPSHOT(s, is.offset);
    SNAPSHOT(s, is.out_len);
    SNAPSHOT(s, is.out_digest);
    is.thawed = true;
    if (snapshot_reading(s) && is.state && is.state == p->state &&
        is.start_ns == p->start_ns)
        *p = is;
}

bool input_place_fits(const struct input_place *p, const struct recording *rec,
                      uint64_t ns) {
    const struct recording_event *e = &rec->events[p->event < rec->count ? p->event : 0];

    if (p->event >= rec->count)
        return p->event == rec->count && !p->offset;
    return e->ns >= ns && (!p->offset || p->offset < e->len);
}

/* --- the console --- */

static uint64_t record_next(void *arg, uint64_t now) {
    const struct input_recorder *r = arg;

    return r->source.dry(r->source.console.arg) ? VCLOCK_NEVER : next_look(now);
}

static size_t record_take(void *arg, uint64_t now, uint8_t *buf, size_t room) {
    struct input_recorder *r = arg;
    size_t n = r->source.console.rx(r->source.console.arg, buf, room);

    if (n && r->out) {
        recording_write_input(r->out, now, buf, n);
        r->place.event++;
    }
    return n;
}

static void record_state(void *arg, struct snapshot *s) {
    input_place_state(&((struct input_recorder *)arg)->place, s);
}

struct machine_input input_record(struct input_recorder *r) {
    /* Virtual time keeps up with the host's while the guest has nothing to do. */
    return (struct machine_input){.next = record_next,
                                  .take = record_take,
                                  .state = record_state,
                                  .host_time = true,
                                  .arg = r};
}

/* --- a recording --- */

/* A guest that ended by itself did so before the next instruction. */
static uint64_t due(const struct recording_event *e) {
    bool by_itself = e->kind == RECORDING_END && e->how == RECORDING_GUEST;

    return e->ns + by_itself;
}

static uint64_t play_next(void *arg, uint64_t now) {
    const struct input_player *p = arg;

    return p->place.event < p->rec->count ? due(&p->rec->events[p->place.event])
                                          : VCLOCK_NEVER;
}

static size_t play_take(void *arg, uint64_t now, uint8_t *buf, size_t room) {
    struct input_player *p = arg;
    struct input_place *at = &p->place;
    const struct recording_event *e;
    size_t n;

    if (play_next(p, now) > now)
        return 0;
    e = &p->rec->events[at->event];
    if (e->kind == RECORDING_END) {
        at->event++;
        p->end(p->arg, e);
        return 0;
    }
    if (!room) { /* there was room when it was recorded */
        at->event = p->rec->count;
        p->end(p->arg, NULL);
        return 0;
    }
    n = e->len - at->offset < room ? e->len - at->offset : room;
    memcpy(buf, e->bytes + at->offset, n);
    at->offset += n;
    if (at->offset == e->len) {
        at->event++;
        at->offset = 0;
    }
    return n;
}

static void play_state(void *arg, struct snapshot *s) {
    input_place_state(&((struct input_player *)arg)->place, s);
}

struct machine_input input_play(struct input_player *p) {
    return (struct machine_input){
        .next = play_next, .take = play_take, .state = play_state, .arg = p};
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
