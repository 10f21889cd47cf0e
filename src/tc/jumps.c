/* The tables of indirect branches: one for each key of late. */
#include <errno.h>
#include <stdlib.h>

#include "tc/tc_int.h"

#define TABLE_SIZE (sizeof(uint8_t *) << TR_JUMP_BITS)

int tc_jumps_create(struct tc *tc, uint8_t *nowhere) {
    void *to[TC_JUMP_TABLES_MAX];
    int rc;

    tc->nowhere = nowhere;
    tc->tables = tc->jumps_stay ? TC_JUMP_TABLES_MAX : TC_JUMP_TABLES;
    rc = os_filled_alloc((uintptr_t)nowhere, TABLE_SIZE, tc->tables, to);
    for (unsigned n = 0; n < tc->tables; n++) {
        struct jump_table *t = &tc->jump[n];

        t->to = to[n];
        t->second = calloc(1u << TC_SECOND_BITS, sizeof(*t->second));
        if (!t->second)
            rc = -ENOMEM;
    }
    return rc;
}

void tc_jumps_free(struct tc *tc) {
    for (unsigned n = 0; n < tc->tables; n++) {
        os_filled_free(tc->jump[n].to, TABLE_SIZE);
        free(tc->jump[n].second);
    }
}

void tc_jumps_reset(struct tc *tc) {
    for (unsigned n = 0; n < tc->tables; n++) {
        tc->jump[n].key = 0;
        tc->jump[n].used = 0;
    }
}

/* The place of VA in T's first table, where something is put. */
static uint8_t **touch(struct jump_table *t, uint64_t va) {
    unsigned slot = tc_jump_slot(va), page = slot / TC_JUMPS_PAGE;

    t->touched[page / 64] |= 1ull << (page & 63);
    return &t->to[slot];
}

static bool is_touched(const struct jump_table *t, unsigned slot) {
    unsigned page = slot / TC_JUMPS_PAGE;

    return t->touched[page / 64] >> (page & 63) & 1;
}

static void jump_clear(struct tc *tc, struct jump_table *t) {
    for (unsigned n = 0; n < 1u << TR_JUMP_BITS; n += TC_JUMPS_PAGE)
        if (is_touched(t, n))
            for (unsigned k = 0; k < TC_JUMPS_PAGE; k++)
                t->to[n + k] = tc->nowhere;
    t->touched[0] = t->touched[1] = 0;
    for (unsigned n = 0; t->has_seconds && n < 1u << TC_SECOND_BITS; n++)
        t->second[n] = NULL;
    t->has_seconds = false;
}

/* The number of KEY's table, of a free one, or of the one that has not been used for
 * longest. */
static unsigned table_for(const struct tc *tc, uint32_t key) {
    unsigned at = 0;

    for (unsigned n = 0; n < tc->tables; n++) {
        if (tc->jump[n].used && tc->jump[n].key == key)
            return n;
        if (tc->jump[n].used < tc->jump[at].used)
            at = n;
    }
    return at;
}

bool tc_select_key_slow(struct tc *tc, struct vcpu *v, uint32_t key) {
    struct tr_vcpu *x = tr_vcpu(v);
    struct jump_table *t;
    unsigned at;

    if (x->jump) { /* neither gates nor turns are noted */
        tc->jump[x->other].used = ++tc->jump_clock;
        tc->jump[x->selected].used = ++tc->jump_clock;
    }
    at = table_for(tc, key);
    t = &tc->jump[at];
    if (!t->used || t->key != key) {
        if (t->used && tc->jumps_stay)
            return false;
        jump_clear(tc, t);
        vcpu_forget_gates(v);
    }
    t->key = key;
    t->used = ++tc->jump_clock;
    x->other = x->jump ? x->selected : (uint16_t)at;
    x->selected = (uint16_t)at;
    x->key = key;
    x->jump = t->to;
    return true;
}

/* --- second tables --- */

static void clear_second(struct tc *tc, const struct ccf *c, uint32_t slot) {
    for (unsigned n = 0; n < tc->tables; n++) {
        uint8_t **to = &tc->jump[n].second[slot];

        if (*to == c->code.entry_jump)
            __atomic_store_n(to, NULL, __ATOMIC_RELEASE);
    }
}

/* Shared code may be mapped anywhere, but few at a time use it. */
static void note_second(struct tc *tc, struct ccf *c, uint32_t slot) {
    unsigned known = c->seconds < TC_SECONDS ? c->seconds : TC_SECONDS;
    uint32_t *at = &c->second[c->seconds % TC_SECONDS];

    for (unsigned n = 0; n < known; n++)
        if (c->second[n] == slot)
            return;
    if (known == TC_SECONDS)
        clear_second(tc, c, *at);
    *at = slot;
    if (++c->seconds == 2 * TC_SECONDS)
        c->seconds = TC_SECONDS;
}

static void insert_second(struct tc *tc, const struct vcpu *v, uint64_t va,
                          struct ccf *c) {
    struct jump_table *t = &tc->jump[tr_vcpu(v)->selected];
    uint32_t slot = tc_second_slot(va);

    note_second(tc, c, slot);
    t->has_seconds = true;
    __atomic_store_n(&t->second[slot], c->code.entry_jump, __ATOMIC_RELEASE);
}

/* --- what is in them --- */

void tc_jump_insert(struct tc *tc, struct vcpu *v, uint64_t va, struct ccf *c) {
    struct jump_table *t = &tc->jump[tr_vcpu(v)->selected];
    uint8_t **to = touch(t, va);

    if (*to != tc->nowhere && *to != c->code.entry_jump)
        insert_second(tc, v, va, c);
    __atomic_store_n(to, c->code.entry_jump, __ATOMIC_RELEASE);
    c->jumps |= (uint16_t)(1u << (va >> 12 & 15));
}

/* Who is found there has been in its place of the first table, so that its `jumps` say
 * so. */
uint8_t *tc_jump_second(struct tc *tc, struct vcpu *v, uint64_t va) {
    struct jump_table *t = &tc->jump[tr_vcpu(v)->selected];
    uint8_t *rx = t->second[tc_second_slot(va)];

    if (rx)
        __atomic_store_n(touch(t, va), rx, __ATOMIC_RELEASE);
    return rx;
}

void tc_jump_forget(struct tc *tc, struct ccf *c) {
    for (unsigned n = 0; c->jumps && n < tc->tables; n++)
        for (unsigned k = 0; k < 16; k++) {
            unsigned slot = k << 12 | (unsigned)(c->code.va & 4095);
            uint8_t **to = &tc->jump[n].to[slot];

            if ((c->jumps >> k & 1) && is_touched(&tc->jump[n], slot) &&
                *to == c->code.entry_jump)
                __atomic_store_n(to, tc->nowhere, __ATOMIC_RELEASE);
        }
    for (unsigned n = 0; n < c->seconds && n < TC_SECONDS; n++)
        clear_second(tc, c, c->second[n]);
}
_Static_assert(TR_JUMP_BITS == 16, "four bits above the offset in a page");
