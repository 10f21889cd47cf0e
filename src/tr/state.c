/*
 * What all parts of a translation keep up to date: where it is, where the status flags
 * are, the sites, the code that is to be placed out of line, and the memory of records.
 */
#include "tr/tr_int.h"

uint64_t tr_va(const struct tr *t) {
    return t->insn[t->k].va;
}

uint64_t tr_next_va(const struct tr *t) {
    uint64_t va = tr_va(t) + t->insn[t->k].i.len;

    return KEY_MODE(t->key) == MODE_64 ? va : (uint32_t)va;
}

uint8_t *tr_ram_page(const struct tr *t, const struct tu_insn *u) {
    bool second = t->c->page2 && (u->va ^ t->c->va2) < 4096;

    return second ? t->c->page2 : t->c->page;
}

uint64_t tr_insn_place(const struct tr *t, const struct tu_insn *u) {
    return tr_place(t->env, tr_ram_page(t, u), u->va);
}

/* REG += BY, in one or two steps: an operand may lie 4 GiB from its page's start. */
static void add_far(struct emit *e, int w, unsigned reg, int64_t by) {
    while (by != (int32_t)by) {
        int32_t step = by < 0 ? INT32_MIN : INT32_MAX;

        e_lea(e, w, reg, reg, REG_ZERO, 0, step);
        by -= step;
    }
    if (by)
        e_lea(e, w, reg, reg, REG_ZERO, 0, (int32_t)by);
}

void tr_address(struct tr *t, unsigned reg, uint64_t va) {
    int w = KEY_MODE(t->key) == MODE_64 ? W64 : W32;
    int64_t off = (int64_t)(va - (t->c->va & ~4095ull));

    if (t->c->fixed) {
        e_mov_imm(&t->e, reg, va);
        return;
    }
    e_gs(&t->e, W64, OPC_MOV_R_RM, reg, GS_TR(here) + 8 * MUTANT(HERE_OTHER));
    add_far(&t->e, w, reg, w == W64 ? off : (int32_t)off);
}

/* Which instruction, as struct site says it. */
static uint16_t site_guest(const struct tr *t) {
    uint64_t va = tr_va(t);
    bool second = t->c->page2 && (va ^ t->c->va2) < 4096;

    return (uint16_t)((va & 0xfff) | (second ? SITE_PAGE2 : 0));
}

void tr_site(struct tr *t, enum poll_kind poll, unsigned link) {
    ptrdiff_t at = e_here(&t->e) - t->c->start;

    if (t->nsites == ARRAY_SIZE(t->sites) || at > UINT16_MAX) {
        t->e.full = true;
        return;
    }
    t->sites[t->nsites++] = (struct site){
        .host = (uint16_t)at,
        .guest = poll == POLL_LINK ? (uint16_t)link : site_guest(t),
        .place = (uint8_t)t->place,
        .poll = (uint8_t)poll,
        .ours = t->ours,
        .left = (uint8_t)(poll == POLL_LINK || poll == POLL_INDIRECT ? 0 : t->n - t->k),
    };
}

void tr_flags_save(struct tr *t) {
    if (t->place != FLAGS_REGS)
        return;
    if (t->insn[t->k].live_in) {
        tr_emit_save(&t->e);
        t->place = FLAGS_MEM;
    } else {
        t->place = FLAGS_DEAD;
    }
}

void tr_flags_restore(struct tr *t) {
    if (t->place == FLAGS_MEM)
        tr_emit_restore(&t->e);
    t->place = FLAGS_REGS;
}

void tr_flags_to_mem(struct tr *t) {
    if (t->place == FLAGS_REGS)
        tr_emit_save(&t->e);
    t->place = FLAGS_MEM;
}

/* The six flags in one byte: those of the low byte, and OF in bit 1. */
uint8_t tr_pack_flags(unsigned fl) {
    return (uint8_t)((fl & (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF)) |
                     (fl & X86_FL_OF ? 2 : 0));
}

static bool loops(const struct tu_insn *u) {
    return u->follow == FOLLOW_LOOP_NEXT || u->follow == FOLLOW_LOOP_TARGET;
}

bool tr_loops(const struct tr *t) {
    return loops(&t->insn[t->n - 1]);
}

/* Does the fragment count its executions? */
bool tr_heats(const struct tr *t) {
    return t->env->opt.hot && !t->hot && !(t->key & KEY_SINGLE);
}

bool tr_counted(const struct tr *t) {
    return t->env->v->counted;
}

struct cold *tr_cold_add(struct tr *t, enum cold_kind kind, uint8_t *rel32) {
    struct cold *c;

    if (t->ncold == ARRAY_SIZE(t->cold)) {
        t->e.full = true;
        return &t->cold[0];
    }
    c = &t->cold[t->ncold++];
    *c = (struct cold){
        .kind = kind,
        .rel32 = rel32,
        .k = (uint8_t)t->k,
        .place = (uint8_t)t->place,
    };
    return c;
}

void *tr_record(struct tr *t, size_t size) {
    void *p = tr_span_record(t->span, size);

    t->full |= !p;
    return p;
}
