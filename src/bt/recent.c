/*
 * What has been executed of late, as counts of executions tell: of each slot of these,
 * whether it has changed since the present epoch began, and whether it had in the one
 * before. Translated code does nothing more for it.
 *
 * An epoch ends when the guest has nothing to do, after so many fragments have been made,
 * or when very many have: what an idle guest executes again and again makes none, so that
 * what it did before stays known. To look at all counts takes as long as some twenty
 * fragments do.
 */
#include <errno.h>
#include <stdlib.h>

#include "bt/bt_int.h"

#define EPOCH_IDLE 512u
#define EPOCH_MOST 8192u

int bt_recent_begin(struct bt *bt) {
    bt->heat_then = calloc(1u << TR_HEAT_BITS, sizeof(*bt->heat_then));
    bt->ran_before = calloc(BT_RAN_WORDS, sizeof(*bt->ran_before));
    return bt->heat_then && bt->ran_before ? 0 : -ENOMEM;
}

static bool has_run(const struct bt *b, unsigned slot) {
    return (uint16_t)__atomic_load_n(&tr_counts(b->v)->heat[slot], __ATOMIC_RELAXED) !=
           b->heat_then[slot];
}

/* The lower halves of four counts, as they stand in heat_then. */
static uint64_t four(const uint32_t *heat) {
    uint64_t a = *(const uint64_t *)(const void *)heat,
             b = *(const uint64_t *)(const void *)(heat + 2);

    return (a & 0xffff) | (a >> 16 & 0xffff0000) | (b & 0xffff) << 32 | b >> 32 << 48;
}

static void begin_epoch(struct bt *b) {
    for (unsigned slot = 0; slot < 1u << TR_HEAT_BITS; slot += 4) {
        uint64_t *then = (uint64_t *)(void *)&b->heat_then[slot], now;
        uint64_t *ran = &b->ran_before[slot / 64];

        if (!(slot % 64) && *ran)
            *ran = 0;
        now = four(&tr_counts(b->v)->heat[slot]);
        if (likely(now == *then))
            continue;
        for (unsigned n = 0; n < 4; n++)
            *ran |= (uint64_t)has_run(b, slot + n) << (slot + n) % 64;
        *then = now;
    }
}

static void begin_epochs(struct bt_shared *sh) {
    sh->in_epoch = 0;
    for (struct bt *b = sh->first; b; b = b->next)
        if (b->heat_then)
            begin_epoch(b);
}

/* Its count is what it was when one has been made there before: it has changed. */
void bt_recent_made(struct bt *bt, unsigned slot) {
    if (bt->heat_then)
        bt->heat_then[slot] = (uint16_t)(tr_counts(bt->v)->heat[slot] + 1);
    if (unlikely(++bt->sh->in_epoch >= EPOCH_MOST))
        begin_epochs(bt->sh);
}

void bt_recent_idle(struct bt *bt) {
    if (likely(bt->sh->in_epoch < EPOCH_IDLE))
        return;
    bt_lock(bt);
    begin_epochs(bt->sh);
    bt_unlock(bt);
}

bool bt_is_recent(const struct bt *bt, unsigned slot) {
    for (const struct bt *b = bt->sh->first; b; b = b->next)
        if (b->heat_then &&
            (has_run(b, slot) || b->ran_before[slot / 64] >> slot % 64 & 1))
            return true;
    return false;
}

void bt_recent_not(struct bt *bt, unsigned slot) {
    for (struct bt *b = bt->sh->first; b; b = b->next)
        if (b->heat_then)
            b->heat_then[slot] =
                (uint16_t)__atomic_load_n(&tr_counts(b->v)->heat[slot], __ATOMIC_RELAXED);
}
