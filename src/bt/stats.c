/*
 * What --stats tells of the translator beyond the plain counters: callouts by operation,
 * and why fragments are made again.
 *
 * A table remembers the addresses of fragments that were dropped, one for each slot of a
 * hash: seldom a retranslation is taken for a first translation, never the other way.
 */
#include <stdio.h>

#include "bt/bt_int.h"
#include "decode/decode.h"

#define WHY_BITS 3

static uint64_t *slot_of(const struct bt *bt, uint64_t va) {
    return &bt->dropped[va * 0x9e3779b97f4a7c15ull >> (64 - BT_DROPPED_BITS)];
}

void bt_note_dropped(struct bt *bt, const struct ccf *c, enum bt_why why) {
    if (why != BT_WHY_NONE)
        *slot_of(bt, c->va) = c->va << WHY_BITS | why;
}

void bt_note_made(struct bt *bt, const struct ccf *c) {
    struct counters *cnt = bt->v->cnt;
    uint64_t *slot = slot_of(bt, c->va);

    cnt->bt_translations++;
    cnt->bt_guest_bytes += c->guest_len;
    cnt->bt_host_bytes += (uint64_t)(c->end - c->code);
    if (*slot >> WHY_BITS != c->va << WHY_BITS >> WHY_BITS)
        return;
    switch ((enum bt_why)(*slot & ((1u << WHY_BITS) - 1))) {
    case BT_WHY_CHECKS:
        cnt->bt_again_checks++;
        break;
    case BT_WHY_TRAPS:
        cnt->bt_again_traps++;
        break;
    case BT_WHY_REVIEW:
        cnt->bt_again_review++;
        break;
    case BT_WHY_WRITTEN:
        cnt->bt_again_written++;
        break;
    case BT_WHY_EVICTED:
        cnt->bt_again_evicted++;
        break;
    case BT_WHY_NONE:
        break;
    }
    *slot = 0;
}

void bt_note_trap(struct bt *bt, enum bt_trap_why why) {
    struct counters *cnt = bt->v->cnt;

    switch (why) {
    case BT_TRAP_RANGE:
        cnt->bt_emulated_range++;
        break;
    case BT_TRAP_DEVICE:
        cnt->bt_emulated_device++;
        break;
    case BT_TRAP_TRACED:
        cnt->bt_emulated_traced++;
        break;
    case BT_TRAP_DROPS:
        cnt->bt_emulated_drops++;
        break;
    case BT_TRAP_FAULT:
        cnt->bt_emulated_fault++;
        break;
    }
}

void bt_stats(const struct bt *bt,
              void (*emit)(void *arg, const char *name, uint64_t value), void *arg) {
    char name[64];

    for (unsigned op = 0; op < OP_COUNT; op++) {
        if (!bt->callouts[op])
            continue;
        snprintf(name, sizeof(name), "callouts_%s", decode_op_name((enum op)op));
        emit(arg, name, bt->callouts[op]);
    }
}
