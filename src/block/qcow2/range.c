/*
 * Who is at which guest clusters: see qcow2_int.h. A list, for there are no more ranges
 * than workers. Nobody holds one while he waits for another, or waits with `alloc` held.
 */
#include "block/qcow2/qcow2_int.h"

static bool in_the_way(const struct qcow2 *q, const struct range *r) {
    for (const struct range *o = q->ranges; o; o = o->next)
        if (o->first <= r->last && r->first <= o->last && (o->exclusive || r->exclusive))
            return true;
    return false;
}

void range_enter(struct qcow2 *q, struct range *r, uint64_t first, uint64_t last,
                 bool exclusive) {
    *r = (struct range){.first = first, .last = last, .exclusive = exclusive};
    while (in_the_way(q, r))
        pthread_cond_wait(&q->ranges_changed, &q->lock);
    r->next = q->ranges;
    q->ranges = r;
}

bool range_free(const struct qcow2 *q, uint64_t first, uint64_t last, bool exclusive) {
    struct range r = {.first = first, .last = last, .exclusive = exclusive};

    return !in_the_way(q, &r);
}

void range_leave(struct qcow2 *q, struct range *r) {
    struct range **p = &q->ranges;

    while (*p != r)
        p = &(*p)->next;
    *p = r->next;
    pthread_cond_broadcast(&q->ranges_changed);
}
