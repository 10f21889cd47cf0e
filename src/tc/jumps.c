/* The tables of indirect branches: one for each key of late. */
#include <errno.h>
#include <stdlib.h>

#include "tc/tc_int.h"

int tc_jumps_create(struct tc *tc) {
    for (unsigned n = 0; n < TC_JUMP_TABLES; n++) {
        tc->jump[n].to = calloc(1u << TR_JUMP_BITS, sizeof(*tc->jump[n].to));
        if (!tc->jump[n].to)
            return -ENOMEM;
    }
    return 0;
}

void tc_jumps_free(struct tc *tc) {
    for (unsigned n = 0; n < TC_JUMP_TABLES; n++)
        free(tc->jump[n].to);
    tr_vcpu(tc->v)->jump = NULL;
}

void tc_jumps_reset(struct tc *tc) {
    for (unsigned n = 0; n < TC_JUMP_TABLES; n++)
        tc->jump[n].used = 0;
    tr_vcpu(tc->v)->jump = NULL;
}

static void jump_clear(struct tc *tc, struct jump_table *t) {
    for (unsigned n = 0; n < 1u << TR_JUMP_BITS; n++)
        t->to[n] = tc->nowhere;
}

void tc_select_key_slow(struct tc *tc, uint32_t key) {
    struct jump_table *t;
    unsigned at = 0;

    if (tr_vcpu(tc->v)->jump) /* gates select without telling */
        tc->jump[tc->selected].used = ++tc->jump_clock;
    for (unsigned n = 0; n < TC_JUMP_TABLES; n++) {
        if (tc->jump[n].used && tc->jump[n].key == key) {
            at = n;
            break;
        }
        if (tc->jump[n].used < tc->jump[at].used)
            at = n;
    }
    t = &tc->jump[at];
    if (!t->used || t->key != key) {
        jump_clear(tc, t);
        vcpu_forget_gates(tc->v);
    }
    t->key = key;
    t->used = ++tc->jump_clock;
    tc->other = tc->selected;
    tc->selected = (uint16_t)at;
    tc->key = key;
    tr_vcpu(tc->v)->jump = t->to;
}

void tc_jump_insert(struct tc *tc, uint64_t va, struct ccf *c) {
    uint8_t **to = tr_vcpu(tc->v)->jump;

    to[tc_jump_slot(va)] = c->code.entry_jump;
    c->jumps |= (uint16_t)(1u << (va >> 12 & 15));
}

void tc_jump_forget(struct tc *tc, struct ccf *c) {
    for (unsigned n = 0; c->jumps && n < TC_JUMP_TABLES; n++)
        for (unsigned k = 0; k < 16; k++) {
            uint8_t **to = &tc->jump[n].to[k << 12 | (c->code.va & 4095)];

            if ((c->jumps >> k & 1) && *to == c->code.entry_jump)
                *to = tc->nowhere;
        }
}
_Static_assert(TR_JUMP_BITS == 16, "four bits above the offset in a page");
