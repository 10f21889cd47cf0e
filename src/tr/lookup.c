/*
 * Memory operands: the address of one, and its way to the host through the shadow or an
 * anchor. What an inline check refuses goes out of line.
 */
#include "base/bug.h"
#include "tr/tr_int.h"

bool tr_mem_ok(const struct tr *t, const struct insn *i) {
    unsigned seg = 1u << i->mem.seg;

    if (i->addrsize == 2 || !i->mem.size || i->mem.size > 64 || i->mem.index >= REG_RIP ||
        (i->mem.index > REG_R15 && i->mem.index != REG_ZERO))
        return false;
    if (!(t->key >> KEY_FLAT_R_SHIFT & seg))
        return false;
    return !(i->mem.access & OPND_WRITE) || (t->key >> KEY_FLAT_W_SHIFT & seg);
}

static unsigned in_scratch(struct tr *t, unsigned reg, unsigned scratch) {
    if (reg == REG_RIP) {
        e_gs(&t->e, W64, OPC_MOV_R_RM, scratch, GS_TR(here));
        return scratch;
    }
    if (!tr_in_memory(t, reg))
        return tr_host(t, reg);
    e_gs(&t->e, W64, OPC_MOV_R_RM, scratch, GS_GPR(reg));
    return scratch;
}

void tr_ea(struct tr *t, const struct tr_ref *ref, int64_t disp) {
    int w = ref->addrsize == 8 ? W64 : W32;

    if (ref->base == REG_ZERO && ref->index == REG_ZERO) {
        e_mov_imm(&t->e, T0, w ? (uint64_t)disp : (uint32_t)disp);
    } else {
        unsigned base = in_scratch(t, ref->base, T0);
        unsigned index = in_scratch(t, ref->index, T1);

        /* Addresses of 32 bits are cut anyway. */
        bool fits = !w || disp == (int32_t)disp;

        if (index == REG_ZERO && (!disp || !fits))
            e_mov_rr(&t->e, w, T0, base);
        else
            e_lea(&t->e, w, T0, base, index, ref->scale, fits ? (int32_t)disp : 0);
        if (!fits) {
            e_mov_imm(&t->e, T1, (uint64_t)disp);
            e_rr(&t->e, w, OPC_ADD_R_RM, T0, T1);
        }
    }
    if (ref->seg != TR_SEG_FLAT)
        e_gs(&t->e, KEY_MODE(t->key) == MODE_64 ? W64 : W32, OPC_ADD_R_RM, T0,
             GS(segbase) + 8 * ref->seg);
}

static uint32_t lookup_kind(const struct tr *t) {
    return (t->alone || MUTANT(SITE_SINGLE) ? SITE_ALONE : 0) | (t->sole ? SITE_SOLE : 0);
}

void tr_lookup(struct tr *t, unsigned len, enum mmu_access acc) {
    struct emit *e = &t->e;
    struct cold *c;
    uint8_t *miss;

    BUG_ON(!len || len > SITE_SIZE_MAX);
    tr_emit_slot(t->env, e, GS(shadow.bank));
    e_rm(e, W64, OPC_SUB_R_RM, T0, T1,
         (int32_t)(offsetof(struct shadow_entry, tag) +
                   8 * MUTATE(HASH_READ_TAG, acc, MMU_READ)));
    e_ri(e, W64, EXT_CMP, T0,
         4096 - (int32_t)len - (MUTANT(SPAN_CUT) << 20) + MUTANT(HASH_WIDER));
    miss = e_jcc_fwd(e, MUTATE(HASH_UNCHECKED, CC_A, CC_O));
    e_rm(e, W64, OPC_ADD_R_RM, T0, T1, offsetof(struct shadow_entry, host));
    c = tr_cold_add(t, COLD_SLOW, miss);
    c->cont = e_here(e);
    c->site = len | (unsigned)MUTATE(SITE_READ, acc, MMU_READ) << 12 | lookup_kind(t);
    c->site += MUTANT(SITE_LONGER);
    c->tag = (int32_t)(offsetof(struct shadow_entry, tag) + 8 * acc);
}

void tr_lookup_anchor(struct tr *t, unsigned len, enum mmu_access acc, unsigned n) {
    struct emit *e = &t->e;
    struct cold *c;
    uint8_t *miss;
    int32_t at;

    BUG_ON(!len || len > SITE_SIZE_MAX || n + 1 >= SHADOW_ANCHORS || acc > MMU_WRITE);
    n += MUTATE(ANCHOR_READ, acc, MMU_READ);
    at = (int32_t)(offsetof(struct shadow_bank, anchor) +
                   n * sizeof(struct shadow_anchor));
    e_gs(e, W64, OPC_MOV_R_RM, T1, GS(shadow.bank));
    e_rm(e, W64, OPC_SUB_R_RM, T0, T1, at + (int32_t)offsetof(struct shadow_anchor, tag));
    e_ri(e, W64, EXT_CMP, T0,
         4096 - (int32_t)len - (MUTANT(SPAN_CUT) << 20) + MUTANT(ANCHOR_WIDER));
    miss = e_jcc_fwd(e, MUTATE(ANCHOR_UNCHECKED, CC_A, CC_O));
    e_rm(e, W64, OPC_ADD_R_RM, T0, T1,
         at + (int32_t)offsetof(struct shadow_anchor, host) + 32 * MUTANT(ANCHOR_OTHER));
    c = tr_cold_add(t, COLD_ANCHOR, miss);
    c->cont = e_here(e);
    /* The host's fault of an unused anchor comes behind the check, which has moved the
     * flags. */
    if (t->nsites && t->sites[t->nsites - 1].place != t->place)
        tr_site(t, POLL_NONE, 0);
    c->site = len | (unsigned)acc << 12 | lookup_kind(t) |
              (n + 2 * MUTANT(SITE_ANCHOR)) << SITE_ANCHOR_SHIFT;
    c->tag = at + (int32_t)offsetof(struct shadow_anchor, tag);
}

void tr_lookup_fixed(struct tr *t, uint64_t page, enum mmu_access acc) {
    struct emit *e = &t->e;
    int32_t at = (int32_t)(mmu_index(page + (MUTANT(FIXED_OTHER) << 12)) *
                           sizeof(struct shadow_entry));
    struct cold *c;
    uint8_t *miss;

    e_gs(e, W64, OPC_MOV_R_RM, T1, GS(shadow.bank));
    e_mov_imm(e, T0, page);
    e_rm(e, W64, OPC_CMP_R_RM, T0, T1,
         at + (int32_t)(offsetof(struct shadow_entry, tag) +
                        8 * MUTATE(FIXED_READ_TAG, acc, MMU_READ)));
    miss = e_jcc_fwd(e, MUTATE(FIXED_UNCHECKED, CC_NE, CC_O));
    e_rm(e, W64, OPC_MOV_R_RM, T0, T1, at + (int32_t)offsetof(struct shadow_entry, host));
    c = tr_cold_add(t, COLD_FIXED, miss);
    c->cont = e_here(e);
    c->site = SITE_WHOLE_PAGE | (unsigned)acc << 12;
}

void tr_place_slow(struct tr *t, const struct cold *c) {
    struct emit *e = &t->e;

    e_land(e, c->rel32);
    if (c->kind != COLD_FIXED && !MUTANT(NO_RESTORE))
        e_rm(e, W64, OPC_ADD_R_RM, T0, T1, c->tag);
    e_gs_imm(e, W32, GS_TR(site), (int32_t)c->site);
    tr_emit_lea_to(e, c->cont);
    e_jmp(e, c->kind == COLD_ANCHOR ? t->env->stub.anchor[SITE_ACCESS(c->site)]
                                    : t->env->stub.slow);
}
