/* Where a debugger wants the guest to stop; see stops.h. */
#include "cpu/stops.h"

bool vcpu_breaks_within(const struct vcpu_stops *s, uint64_t at, unsigned len) {
    if (likely(!(s->pages >> (at >> 12 & 63) & 1)))
        return false;
    for (unsigned n = 0; n < s->breaks; n++)
        if (s->at[n] - at < len)
            return true;
    return false;
}

bool vcpu_breaks_next(const struct vcpu_stops *s, uint64_t page, unsigned *n,
                      uint64_t *at) {
    if (!(s->pages >> (page >> 12 & 63) & 1))
        return false;
    for (; *n < s->breaks; ++*n)
        if (s->at[*n] - page < 4096) {
            *at = s->at[(*n)++];
            return true;
        }
    return false;
}

bool vcpu_watches_page(const struct vcpu_stops *s, uint64_t page, bool write) {
    for (unsigned n = 0; n < s->watches; n++) {
        const struct vcpu_watch *w = &s->watch[n];

        if ((write ? w->write : w->read) && w->at <= (page | 4095) &&
            page <= w->at + (w->len - 1))
            return true;
    }
    return false;
}

static void stop(struct vcpu *v, enum vcpu_hit_why why, uint64_t at) {
    v->hit = (struct vcpu_hit){.why = (uint8_t)why, .at = at};
    vcpu_raise(v, VCPU_EVENT_DEBUG);
}

void vcpu_break_hit(struct vcpu *v) {
    stop(v, VCPU_HIT_BREAK, vcpu_linear_rip(v));
}

void vcpu_watch_touched(struct vcpu *v, uint64_t at, unsigned len, bool write) {
    const struct vcpu_stops *s = v->stops;

    for (unsigned n = 0; n < s->watches; n++) {
        const struct vcpu_watch *w = &s->watch[n];

        if ((write ? w->write : w->read) && w->at <= at + (len - 1) &&
            at <= w->at + (w->len - 1)) {
            v->leave_code = true;
            stop(v, VCPU_HIT_WATCH, at > w->at ? at : w->at);
            return;
        }
    }
}
