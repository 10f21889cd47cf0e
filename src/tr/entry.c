/*
 * How translated code is entered: the checks before it, its head, and the way from there
 * to its hot paths.
 *
 * Nothing is remembered of pages that were checked: the shadow's bank for fetches tells
 * at each entry what an address maps, and whether it may be executed. So what drops its
 * entries (INVLPG, CR3, a page table that is traced) concerns code like data. Where
 * there is none, a stub has the MMU fetch and comes back for another look; where another
 * page is mapped, it leaves to the dispatcher.
 */
#include "tr/tr_int.h"

#define EXEC_TAG ((int32_t)(offsetof(struct shadow_entry, tag) + 8 * MMU_EXEC))
#define EXEC_MAPPING ((int32_t)(offsetof(struct shadow_entry, tag) + 8 * SHADOW_MAPPING))
#define EXEC_HOST ((int32_t)offsetof(struct shadow_entry, host))
_Static_assert(offsetof(struct shadow_bank, e) == 0, "a bank begins with its entries");

static uint64_t host_page(const uint8_t *page) {
    return (uint64_t)(uintptr_t)page + (MUTANT(CHECK_OTHER) << 12);
}

/* --- shared code: T0 is where the guest goes --- */

/* To WRONG, which lies before; NULL: to where what is returned leads. */
static uint8_t *unless_equal(struct emit *e, const uint8_t *wrong) {
    if (!wrong)
        return e_jcc_fwd(e, CC_NE);
    e_jcc_back(e, CC_NE, wrong);
    return NULL;
}

/* Is T0, at OFF in its page, in one that maps PAGE? T1 is its entry then, and NE if it
 * maps another; the branch if it is in none. */
static uint8_t *check_at(struct tr *t, int32_t off, const uint8_t *page,
                         const uint8_t *wrong) {
    struct emit *e = &t->e;
    uint8_t *other;

    tr_emit_slot(t->env, e, MUTANT(CHECK_BANK) ? GS(shadow.bank) : GS(shadow.code));
    e_rm(e, W64, OPC_SUB_R_RM, T0, T1, EXEC_TAG);
    e_ri(e, W64, EXT_CMP, T0, off);
    other = unless_equal(e, wrong);
    e_mov_imm(e, T0, host_page(page));
    e_rm(e, W64, OPC_CMP_R_RM, T0, T1, EXEC_HOST);
    return other;
}

/* T0 = the second page, from where the first one is (in T0): does it follow? */
static void check_second(struct tr *t, const uint8_t *wrong, uint8_t **out) {
    int w = KEY_MODE(t->key) == MODE_64 ? W64 : W32;
    const struct tr_code *c = t->c;

    e_lea(&t->e, w, T0, T0, REG_ZERO, 0, (int32_t)(c->va2 - (c->va & ~4095ull)));
    out[0] = check_at(t, 0, c->page2, wrong);
    out[1] = unless_equal(&t->e, wrong);
}

/* WRONG is where it goes if they fail: before it, which takes the least room. */
static void check_shared(struct tr *t, const uint8_t *wrong) {
    struct emit *e = &t->e;
    struct tr_code *c = t->c;
    uint8_t *none[2];

    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(rip));
    check_at(t, (int32_t)(c->va & 4095), c->page, wrong);
    e_rm(e, W64, OPC_MOV_R_RM, T0, T1, EXEC_TAG);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS_TR(here));
    e_jcc_back(e, CC_NE, wrong);
    if (c->page2)
        check_second(t, wrong, none);
}

/* --- paths for one address --- */

/* Does the page at VA map that one? T1 is the bank; the branch if not. */
static uint8_t *compare_page(struct tr *t, uint64_t va, const uint8_t *page) {
    struct emit *e = &t->e;

    e_mov_imm(e, T0, mmu_mapping(va, (const uint8_t *)(uintptr_t)host_page(page)));
    e_rm(e, W64, OPC_CMP_R_RM, T0, T1,
         (int32_t)(mmu_index(va) * sizeof(struct shadow_entry)) + EXEC_MAPPING);
    return e_jcc_fwd(e, CC_NE);
}

static void check_fixed(struct tr *t) {
    struct emit *e = &t->e;
    struct tr_code *c = t->c;

    e_gs(e, W64, OPC_MOV_R_RM, T1, GS(shadow.code));
    if (c->page2)
        tr_cold_add(t, COLD_WRONG, compare_page(t, c->va2, c->page2));
    tr_cold_add(t, COLD_WRONG, compare_page(t, c->va, c->page));
    e_mov_imm(e, T0, c->va & ~4095ull);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS_TR(here));
}

static void is_wanted(struct tr *t) {
    uint64_t va = t->c->va;

    if (va == (uint64_t)(int32_t)va) {
        e_ri(&t->e, W64, EXT_CMP, T0, (int32_t)va);
    } else {
        e_mov_imm(&t->e, T1, va);
        e_rr(&t->e, W64, OPC_CMP_R_RM, T0, T1);
    }
    e_jcc(&t->e, CC_NE, t->env->stub.indirect);
}

/* gs:[OFF] += 1, without touching the flags. Spoils T1. */
static void count_hit(struct tr *t) {
    e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS_TR(indirect_hits));
    e_lea(&t->e, W64, T1, T1, REG_ZERO, 0, 1);
    e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS_TR(indirect_hits));
}

static void emit_checks_shared(struct tr *t) {
    struct emit *e = &t->e;
    struct tr_code *c = t->c;
    const uint8_t *wrong;
    uint8_t *over = NULL;

    c->entry_jump = e_here(e);
    if (t->env->opt.count) {
        count_hit(t);
        over = e_jmp8(e);
    }
    wrong = e_here(e);
    tr_emit_lea_next(e, 5);
    e_jmp(e, t->env->stub.check_shared);
    if (over)
        e_land8(e, over);
    c->entry_check = e_here(e);
    if (!over)
        c->entry_jump = c->entry_check;
    check_shared(t, wrong);
}

void tr_emit_checks(struct tr *t) {
    struct tr_code *c = t->c;

    if (!c->fixed) {
        emit_checks_shared(t);
        return;
    }
    c->entry_jump = e_here(&t->e);
    is_wanted(t);
    if (t->env->opt.count)
        count_hit(t);
    c->entry_check = e_here(&t->e);
    check_fixed(t);
}

void tr_place_wrong(struct tr *t, const struct cold *c) {
    struct emit *e = &t->e;

    e_land(e, c->rel32);
    t->k = 0;
    tr_address(t, T0, t->c->va);
    tr_emit_lea_to(e, t->c->entry_check);
    e_jmp(e, t->env->stub.check);
}

static void place_here(struct tr *t) {
    struct tr_code *c = t->c;

    c->entry_save = e_here(&t->e);
    tr_emit_save(&t->e);
    c->entry_here = e_here(&t->e);
    t->k = 0;
    if (!c->fixed)
        tr_address(t, T0, c->va);
    e_jmp(&t->e, c->entry_check);
}

/* --- the head --- */

#define COUNT_LEN 9  /* the count itself */
#define HEAD_LEN 15u /* and the jcc behind it */

/* With several vCPUs a head is turned while others execute it, by changes of one byte or
 * of an aligned displacement, which leave instructions where they are. It is a count,
 * whose jcc leads to C when nothing is left, or a comparison, whose jcc leads to a path
 * whatever is left (but for -2^31, to which none comes). Where, behind the head: */
#define COUNT_MODRM 2
#define JCC_CC (COUNT_LEN + 1)
#define JCC_REL (JCC_CC + 1)
#define MODRM_SUB (5 << 3 | 4) /* [disp32] */
#define MODRM_CMP (7 << 3 | 4)
#define JCC(cond) (0x80 | (cond))

/* The flags are not in the host's. */
static void count_down(struct emit *e, const struct tr_env *env,
                       const struct tr_code *c) {
    static const uint8_t sub_gs[] = {0x65, 0x83, MODRM_SUB, 0x25}; /* dword gs:[], 1 */
    unsigned slot = tr_heat_slot(tr_place(env, c->page, c->va));

    e_bytes(e, sub_gs, sizeof(sub_gs));
    e32(e, (uint32_t)GS_COUNTS(heat[slot]));
    e8(e, 1);
}

void tr_count_heat(struct tr *t) {
    tr_emit_align(t->env, &t->e, JCC_REL);
    t->c->head = t->e.p;
    count_down(&t->e, t->env, t->c);
    tr_cold_add(t, COLD_HOT, e_jcc_fwd(&t->e, CC_E));
}

void tr_place_hot(struct tr *t, const struct cold *c) {
    e_land(&t->e, c->rel32);
    t->c->hot_at = (uint16_t)(e_here(&t->e) - t->c->start);
    e_mov_imm(&t->e, T0, tr_record_number(t->env, t->c));
    e_jmp(&t->e, t->env->stub.hot);
}

/* Is the guest where the path is for, and the second page there? If not, to the next
 * path, and from the last one back to the shared code, counting what its head would. */
static void place_select(struct tr *t) {
    struct emit *e = &t->e;
    struct tr_code *c = t->c;
    uint8_t *cool, *other[2] = {NULL};

    c->select = e_here(e);
    if (!c->fixed && !c->page2) { /* wherever that is */
        c->select = c->entry_mem;
        return;
    }
    if (c->fixed) {
        e_mov_imm(e, T0, c->va & ~4095ull);
        e_gs(e, W64, OPC_CMP_R_RM, T0, GS_TR(here));
        other[0] = e_jcc_fwd(e, CC_NE);
    }
    if (c->page2 && c->fixed) {
        e_gs(e, W64, OPC_MOV_R_RM, T1, GS(shadow.code));
        other[1] = compare_page(t, c->va2, c->page2);
    } else if (c->page2) {
        e_gs(e, W64, OPC_MOV_R_RM, T0, GS_TR(here));
        check_second(t, NULL, other);
    }
    e_jmp(e, c->entry_mem);
    for (unsigned n = 0; n < ARRAY_SIZE(other) && other[n]; n++)
        e_land(e, other[n]);
    tr_emit_align(t->env, e, 1);
    c->past = e_jmp_fwd(e);
    e_land(e, c->past);
    count_down(e, t->env, c->shared);
    cool = e_jcc_fwd(e, CC_NE);
    e_mov_imm(e, T0, tr_record_number(t->env, c->shared));
    e_jmp(e, t->env->stub.hot);
    e_land(e, cool);
    e_jmp(e, tr_behind_head(t->env, c->shared));
}

void tr_place_entries(struct tr *t) {
    if (t->c->page2)
        place_here(t);
    if (t->hot)
        place_select(t);
}

/* --- for who keeps the code --- */

const uint8_t *tr_behind_head(const struct tr_env *env, const struct tr_code *c) {
    return c->head + HEAD_LEN + tr_delta(env);
}

/* See COUNT_MODRM: whatever another vCPU sees of it, it counts, or goes on to TO. */
static void turn_live(const struct tr_env *env, const struct tr_code *c,
                      const uint8_t *to) {
    if (to) {
        tr_lead(env, c->head + JCC_REL, to);
        tr_set_byte(env, c->head + JCC_CC, JCC(CC_NO));
        tr_set_byte(env, c->head + COUNT_MODRM, MODRM_CMP);
    } else {
        tr_set_byte(env, c->head + COUNT_MODRM, MODRM_SUB);
        tr_set_byte(env, c->head + JCC_CC, JCC(CC_E));
        tr_lead(env, c->head + JCC_REL, c->start + c->hot_at);
    }
}

void tr_head_turn(const struct tr_env *env, const struct tr_code *c, const uint8_t *to) {
    static const uint8_t nop[] = {0x0f, 0x1f, 0x40, 0x00};
    struct emit e = {.p = c->head, .end = c->head + COUNT_LEN, .delta = tr_delta(env)};

    if (env->smp) {
        turn_live(env, c, to);
        return;
    }
    tr_patch_begin(env, c->head, COUNT_LEN);
    if (to) {
        e_jmp(&e, to);
        e_bytes(&e, nop, sizeof(nop));
    } else {
        count_down(&e, env, c);
    }
    tr_patch_end(env, c->head, COUNT_LEN);
}

void tr_past_turn(const struct tr_env *env, const struct tr_code *c, const uint8_t *to) {
    if (c->past)
        tr_lead(env, c->past, to ? to : c->past + 4 + tr_delta(env));
}
