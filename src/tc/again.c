/*
 * Why fragments are made again.
 *
 * A table remembers the places of fragments that were dropped, one for each slot of a
 * hash: seldom a retranslation is taken for a first translation, never the other way.
 */
#include <errno.h>
#include <stdlib.h>

#include "tc/tc_int.h"

#define WHY_BITS 3

int tc_again_create(struct tc *tc) {
    tc->dropped = calloc(1u << TC_DROPPED_BITS, sizeof(*tc->dropped));
    return tc->dropped ? 0 : -ENOMEM;
}

void tc_again_free(struct tc *tc) {
    free(tc->dropped);
}

static uint64_t *slot_of(const struct tc *tc, uint64_t at) {
    return &tc->dropped[at * 0x9e3779b97f4a7c15ull >> (64 - TC_DROPPED_BITS)];
}

static uint64_t place_of(const struct tc *tc, const struct ccf *c) {
    return tr_place(tc->env, c->code.page, c->code.va);
}

void tc_note_dropped(struct tc *tc, const struct ccf *c, enum tc_why why) {
    if (why != TC_WHY_NONE)
        *slot_of(tc, place_of(tc, c)) = place_of(tc, c) << WHY_BITS | why;
}

void tc_note_made(struct tc *tc, const struct ccf *c) {
    struct counters *cnt = tc->v->cnt;
    uint64_t *slot = slot_of(tc, place_of(tc, c));

    cnt->bt_translations++;
    cnt->bt_guest_bytes += c->code.guest_len;
    cnt->bt_host_bytes += (uint64_t)(c->code.end - c->code.start);
    if (*slot >> WHY_BITS != place_of(tc, c))
        return;
    switch ((enum tc_why)(*slot & ((1u << WHY_BITS) - 1))) {
    case TC_WHY_CHECKS:
        cnt->bt_again_checks++;
        break;
    case TC_WHY_TRAPS:
        cnt->bt_again_traps++;
        break;
    case TC_WHY_REVIEW:
        cnt->bt_again_review++;
        break;
    case TC_WHY_WRITTEN:
        cnt->bt_again_written++;
        break;
    case TC_WHY_EVICTED:
        cnt->bt_again_evicted++;
        break;
    case TC_WHY_NONE:
        break;
    }
    *slot = 0;
}
