/*
 * The verifier of emitted code accepts nothing that comes of what the translator makes by
 * one change to a check, a displacement, a field, a branch or a site.
 *
 * The fragments are those of tests/verify/set.c. Each is changed in the cache, in every
 * place that a rule below applies to, looked at, and changed back. Where a rule leaves
 * something out, what is left out reaches no other memory than the original; the rule
 * says why. What the translator makes itself is accepted: unit/bt_accepts.
 */
#include <stdio.h>

#include "decode/host.h"
#include "lib/unit.h"
#include "tr/emit.h"
#include "tr/key.h"
#include "verify/set.h"
#include "verify/verify.h"

/* --- mutants --- */

enum { INSNS_MAX = 4096 };

/* A fragment, cut into instructions. */
static struct {
    const struct tr_env *env;
    const struct tr_code *c;
    uint8_t *rw; /* its first byte, to be written */
    unsigned n;
    struct host_insn i[INSNS_MAX];
    unsigned off[INSNS_MAX];
} now;

enum rule {
    NO_JUMP,
    WIDER,
    LONGER_RUN,
    ASTRAY,
    UNCHECKED_BASE,
    FIELD,
    OTHER_ENTRY,
    OTHER_TAG,
    NO_HOST,
    NO_RESTORE,
    MIDDLE,
    LINK,
    SITE,
    NO_POLL,
    NO_SAVE,
    NO_RETURN,
    FOREIGN,
    HOST_LEFT,
    MASKED,
    LONGER,
    RULES
};
static const char *const rules[RULES] = {
    [NO_JUMP] = "the jump of a check is gone, or is the other way round",
    [WIDER] = "a check accepts more",
    [LONGER_RUN] = "a run of a string operation may be longer",
    [ASTRAY] = "a displacement is another",
    [UNCHECKED_BASE] = "another base register",
    [FIELD] = "another field of the vCPU",
    [OTHER_ENTRY] = "another entry or anchor of the shadow",
    [OTHER_TAG] = "the tag for another access",
    [NO_HOST] = "the host address is not added",
    [NO_RESTORE] = "the slow path does not get the address back",
    [MIDDLE] = "a branch into an instruction",
    [LINK] = "a link that goes elsewhere",
    [SITE] = "the slow path is told something else",
    [NO_POLL] = "no look at the poll page",
    [NO_SAVE] = "a host address is not saved",
    [NO_RETURN] = "the slow path comes back elsewhere",
    [FOREIGN] = "an instruction that may not be there",
    [HOST_LEFT] = "a host address stays in a register of the guest's",
    [MASKED] = "a mask selects parts of the operand",
    [LONGER] = "an operand that is longer than what was checked",
};
static unsigned long tried[RULES];

static bool cut(struct set *s, const struct tr_code *c) {
    uint32_t size = (uint32_t)(c->end - c->start), off = 0;

    now.env = set_env(s);
    now.c = c;
    now.rw = c->start - tr_delta(now.env);
    for (now.n = 0; off < size && now.n < INSNS_MAX; now.n++) {
        now.off[now.n] = off;
        if (!decode_host(c->start + off, size - off, &now.i[now.n]))
            return false;
        off += now.i[now.n].len;
    }
    return off == size;
}

/* The byte at AT of instruction K. */
static uint8_t *byte(unsigned k, unsigned at) {
    return now.rw + now.off[k] + at;
}

static void survived(enum rule rule, unsigned k) {
    const struct finding f = {.at = now.c->start + now.off[k], .why = "not rejected"};

    set_report(now.env, now.c, &f);
    fail_msg("a mutant is accepted: %s", rules[rule]);
}

/* Writes LEN bytes over those at AT of instruction K, which the verifier must not accept.
 */
static void reject(enum rule rule, unsigned k, unsigned at, const void *bytes,
                   unsigned len) {
    uint8_t saved[16];
    struct finding f;
    bool ok;

    assert_true(len <= sizeof(saved));
    memcpy(saved, byte(k, at), len);
    if (!memcmp(saved, bytes, len))
        return;
    memcpy(byte(k, at), bytes, len);
    ok = verify_code(now.env, now.c, &f);
    if (ok)
        survived(rule, k);
    memcpy(byte(k, at), saved, len);
    assert_true(*f.why);
    tried[rule]++;
}

static void reject32(enum rule rule, unsigned k, unsigned at, uint32_t value) {
    reject(rule, k, at, &value, 4);
}

static void reject_nop(enum rule rule, unsigned k) {
    static const uint8_t nops[15] = {0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                                     0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};

    reject(rule, k, 0, nops, now.i[k].len);
}

static int32_t le32(const uint8_t *p) {
    int32_t v;

    memcpy(&v, p, 4);
    return v;
}

static bool is_reg(const struct host_insn *i, unsigned n, unsigned reg) {
    return i->nops > n && i->opnd[n].kind == HOST_REG && i->opnd[n].reg == reg;
}

static bool on_base(const struct host_insn *i, unsigned reg) {
    return i->mem.access && !i->mem.seg && i->mem.base == reg &&
           i->mem.index == HOST_NONE;
}

/* SUB or ADD of T0, or CMP, with a field of the shadow at T1. */
static bool on_shadow(const struct host_insn *i, uint8_t op) {
    return i->op == op && is_reg(i, 0, T0) && on_base(i, T1);
}

/* Is it of the checks of pages of code? They lead to no host pointer: what is run where
 * is the guest's business, and tests/unit/bt_share's. Their fields are looked at. */
static bool is_entry_check(unsigned k) {
    const struct host_insn *i = &now.i[k];
    const uint8_t *rx = now.c->start + now.off[k];

    return rx < now.c->entry_mem || (now.c->hot && rx >= now.c->select) ||
           (i->op == HOST_ADD && i->mem.disp == 8 * MMU_EXEC);
}

static bool jump_on(unsigned k, unsigned cond) {
    return k < now.n && now.i[k].op == HOST_JCC && now.i[k].len == 6 &&
           now.i[k].cond == cond;
}

/* cmp T0, 4096 - len; ja. The length of the comparison's immediate is 4. */
static bool is_range_check(unsigned k) {
    const struct host_insn *i = &now.i[k];

    return i->op == HOST_CMP && i->len == 7 && is_reg(i, 0, T0) &&
           i->opnd[1].kind == HOST_IMM && jump_on(k + 1, CC_A);
}

/* cmp T1, 4096; ja: the end of a run of elements. */
static bool is_run_check(unsigned k) {
    const struct host_insn *i = &now.i[k];

    return k && now.i[k - 1].op == HOST_LEA && i->op == HOST_CMP && i->len == 7 &&
           is_reg(i, 0, T1) && i->imm == 4096 && jump_on(k + 1, CC_A);
}

/* cmp rcx, 4096 / size; ja. Where RCX is a constant, it is no matter. */
static bool is_count_check(unsigned k) {
    const struct host_insn *i = &now.i[k];

    for (unsigned n = 0; n < k; n++)
        if (now.i[n].op == HOST_MOV && is_reg(&now.i[n], 0, REG_RCX) &&
            now.i[n].opnd[1].kind == HOST_IMM)
            return false;

    return i->op == HOST_CMP && i->len == 7 && is_reg(i, 0, REG_RCX) &&
           i->opnd[0].size == 8 && i->imm <= 4096 && i->imm >= 512 &&
           jump_on(k + 1, CC_A) && now.i[k + 2].op == HOST_CMP;
}

static void other_way(unsigned k) {
    uint8_t opcode = *byte(k, 1) ^ 1;

    reject_nop(NO_JUMP, k);
    reject(NO_JUMP, k, 1, &opcode, 1);
}

static void mutate_check(unsigned k) {
    static const int32_t more[] = {1, 2, 8, 63, 4096, 0x7fff0000};
    const struct host_insn *i = &now.i[k];

    if (is_range_check(k)) {
        other_way(k + 1);
        for (unsigned n = 0; n < ARRAY_SIZE(more); n++)
            reject32(WIDER, k, 3, (uint32_t)i->imm + (uint32_t)more[n]);
        reject32(WIDER, k, 3, 0xffffffff);
    }
    if (on_shadow(i, HOST_CMP) && jump_on(k + 1, CC_NE) && !is_entry_check(k))
        other_way(k + 1);
    if (is_run_check(k)) {
        other_way(k + 1);
        reject32(LONGER_RUN, k, 3, 4097);
        reject32(LONGER_RUN, k, 3, 0x7fffffff);
        reject32(LONGER_RUN, k, 3, 0xffffffff);
    }
    /* Up to a page the other check sees to it. */
    if (is_count_check(k)) {
        other_way(k + 1);
        reject32(LONGER_RUN, k, 3, 4097);
        reject32(LONGER_RUN, k, 3, 0xffffffff);
    }
}

static bool is_evex(unsigned k) {
    return now.i[k].len >= 6 && *byte(k, 0) == 0x62;
}

/* Where the displacement begins in instruction K, whose memory operand is [T0 + disp],
 * or 0; *WIDE: four bytes. */
static unsigned displacement(unsigned k, bool *wide) {
    const struct host_insn *i = &now.i[k];

    for (unsigned at = 1; at + 1 < i->len; at++) {
        uint8_t modrm = *byte(k, at);
        unsigned left = i->len - at - 1;

        if ((modrm & 7) != (T0 & 7))
            continue;
        *wide = modrm >> 6 == 2;
        if (*wide && left >= 4 && le32(byte(k, at + 1)) == i->mem.disp)
            return at + 1;
        if (modrm >> 6 == 1 && !is_evex(k) && (int8_t)*byte(k, at + 1) == i->mem.disp)
            return at + 1;
    }
    return 0;
}

/* The last check before instruction K is of what this accesses, and ends with it. */
static bool ends_range(unsigned k) {
    unsigned n = k;

    while (n-- && !is_range_check(n))
        ;
    return n < k && 4096 - now.i[n].imm == now.i[k].mem.disp + now.i[k].mem.size;
}

/* With its third byte behind 62 so, instruction K accesses more. */
static bool is_longer(unsigned k, uint8_t p2) {
    uint8_t bytes[15];
    struct host_insn i;

    memcpy(bytes, byte(k, 0), now.i[k].len);
    bytes[3] = p2;
    return decode_host(bytes, now.i[k].len, &i) && i.op == HOST_VECTOR &&
           i.mem.size > now.i[k].mem.size;
}

/* EVEX: B in the first byte behind 62 is base T0; the third has z, L'L, b and a mask. */
static void mutate_evex(unsigned k) {
    uint8_t p0, p2;

    if (!is_evex(k) || !on_base(&now.i[k], T0))
        return;
    p0 = *byte(k, 1) | 0x20;
    reject(UNCHECKED_BASE, k, 1, &p0, 1);
    p2 = *byte(k, 3);
    for (uint8_t mask = 1; mask < 8; mask++) {
        uint8_t masked = (uint8_t)((p2 & ~7u) | mask);

        reject(MASKED, k, 3, &masked, 1);
    }
    for (unsigned how = 0; how < 8 && ends_range(k); how++) {
        uint8_t other = (uint8_t)((p2 & 0x8f) | how << 4);

        if (is_longer(k, other))
            reject(LONGER, k, 3, &other, 1);
    }
}

/* Guest memory at [T0 + disp]. The wrong places are outside of any range. */
static void mutate_operand(unsigned k) {
    const struct host_insn *i = &now.i[k];
    const uint8_t below = 0x80;
    bool wide = false;
    unsigned at;
    uint8_t rex;

    if (!on_base(i, T0))
        return;
    at = i->mem.disp ? displacement(k, &wide) : 0;
    if (at && wide) {
        reject32(ASTRAY, k, at, 4096);
        reject32(ASTRAY, k, at, 0x80000000);
        reject32(ASTRAY, k, at, (uint32_t)-1);
    } else if (at) {
        reject(ASTRAY, k, at, &below, 1);
    }
    /* REX.B is what makes it T0 and not RSI. */
    for (at = 0; !is_evex(k) && at < 3; at++) {
        rex = *byte(k, at);
        if ((rex & 0xf1) != 0x41)
            continue;
        rex &= 0xfe;
        reject(UNCHECKED_BASE, k, at, &rex, 1);
        break;
    }
}

/* Fields that no translated code has any business with. */
static const uint16_t forbidden[] = {
    GS(mmu),
    GS(cnt),
    GS(mem),
    GS(hooks),
    GS(hooks_arg),
    GS(cpuid),
    GS_TR(host_sp),
    GS_TR(resume),
    GS_TR(spill[1]),
    GS_TR(self),
    GS_TR(owner),
    GS(shadow.write_drops),
    GS_TR(gate),
    GS(x87_ran),
    GS_TR(arg),
    GS_TR(borrowed_by),
    GS_TR(reason),
    GS_TR(status),
    GS(shadow.bank_user),
    GS(shadow.code_user),
    GS(canary),
    GS(zero),
    GS(mode),
    GS(seg_flat_r),
    GS(lin_mask),
    GS(gdtr),
    GS(efer),
    GS(dr),
    GS(fault),
    GS(stop),
    GS(vec),
    GS_TR(held) + 8 * TR_HELD,
    GS_TR(held) - 8,
    GS_TR(held) + 4,
    GS(rip) + 4,
    sizeof(struct vcpu),
};

static void mutate_field(unsigned k) {
    const struct host_insn *i = &now.i[k];
    unsigned at;

    if (i->mem.seg != 'g')
        return;
    for (at = 2; at + 4 <= i->len && le32(byte(k, at)) != i->mem.disp; at++)
        ;
    assert_true(at + 4 <= i->len);
    for (unsigned n = 0; n < ARRAY_SIZE(forbidden); n++) {
        /* The middle of a place is only forbidden where all of it is followed. */
        if (forbidden[n] == GS_TR(held) + 4 && i->mem.size != 8)
            continue;
        if (forbidden[n] == GS(rip) + 4 && i->mem.size != 8)
            continue;
        if ((n + k) % 8) /* each of them often enough */
            continue;
        reject32(FIELD, k, at, forbidden[n]);
    }
    reject32(FIELD, k, at, 0xfffffff8);
    if (i->op == HOST_ADD &&
        (i->mem.disp == GS(shadow.bank) || i->mem.disp == GS_TR(jump))) {
        reject32(FIELD, k, at, GS(gpr));
        reject32(FIELD, k, at,
                 i->mem.disp == GS(shadow.bank) ? GS_TR(jump) : GS(shadow.bank));
    }
    /* A host address from where none, or another, was left. */
    if (i->op == HOST_MOV && is_reg(i, 0, T0) && i->mem.disp >= (int64_t)GS_TR(held) &&
        i->mem.disp < (int64_t)(GS_TR(held) + 8 * TR_HELD)) {
        reject32(FIELD, k, at, GS(gpr));
        reject32(FIELD, k, at, GS_TR(held) + 8 * (TR_HELD - 1));
    }
}

static void mutate_entry_check(unsigned k) {
    const struct host_insn *i = &now.i[k];
    bool fixed = i->len >= 7;
    unsigned at = i->len - (fixed ? 4u : 1u);
    const uint8_t other = 8 * MMU_WRITE;

    if (!on_base(i, T1) || !is_reg(i, 0, T0))
        return;
    if (fixed) {
        reject32(OTHER_ENTRY, k, at, (uint32_t)i->mem.disp ^ 16);
        reject32(OTHER_ENTRY, k, at, (uint32_t)i->mem.disp + 4);
        reject32(OTHER_ENTRY, k, at, (uint32_t)-8);
        reject32(OTHER_ENTRY, k, at, offsetof(struct shadow_bank, anchor));
    } else if (i->mem.disp) {
        reject(OTHER_TAG, k, at, &other, 1);
    }
}

/* Displacements of T1 that are no entry of what T1 points to, or another's. */
static void mutate_shadow(unsigned k) {
    const struct host_insn *i = &now.i[k];
    const int32_t anchors = offsetof(struct shadow_bank, anchor);
    bool tag = on_shadow(i, HOST_SUB) || on_shadow(i, HOST_CMP);
    bool host = on_shadow(i, HOST_ADD) || (i->op == HOST_MOV && on_base(i, T1) &&
                                           is_reg(i, 0, T0) && i->mem.disp >= 24);
    unsigned at = i->len - (i->len >= 7 ? 4u : 1u);
    int32_t disp = (int32_t)i->mem.disp;

    if (is_entry_check(k)) {
        mutate_entry_check(k);
        return;
    }
    if (!tag && !host)
        return;
    if (i->len >= 7) {
        reject32(OTHER_ENTRY, k, at, (uint32_t)disp + 16);
        reject32(OTHER_ENTRY, k, at, (uint32_t)disp - 16);
        reject32(OTHER_ENTRY, k, at, (uint32_t)disp + 32);
        reject32(OTHER_ENTRY, k, at, (uint32_t)disp - 32);
        reject32(OTHER_ENTRY, k, at, (uint32_t)disp ^ 8);
        reject32(OTHER_ENTRY, k, at, (uint32_t)disp + 4);
        reject32(OTHER_ENTRY, k, at, (uint32_t)-8);
        reject32(
            OTHER_ENTRY, k, at,
            (uint32_t)(anchors + SHADOW_ANCHORS * (int)sizeof(struct shadow_anchor)));
    } else if (i->len == 4) {
        static const uint8_t others[] = {0, 8, 16, 24, 32, 40, 0xf8, 4};

        for (unsigned n = 0; n < ARRAY_SIZE(others); n++)
            if (others[n] != disp)
                reject(OTHER_TAG, k, at, &others[n], 1);
    } else {
        /* [T1], the tag for reads: that for writes is one byte longer, so that the
         * register is made another. */
        uint8_t modrm = *byte(k, 2) ^ 1;

        reject(OTHER_TAG, k, 2, &modrm, 1);
    }
    if (host && i->op == HOST_ADD && i->mem.disp >= 24 &&
        (i->mem.disp < 32 || (i->mem.disp - anchors) % 16 == 8))
        reject_nop(NO_HOST, k);
    else if (i->op == HOST_ADD)
        reject_nop(NO_RESTORE, k);
    else if (tag)
        reject_nop(OTHER_TAG, k);
}

static bool is_own(const uint8_t *rx) {
    return rx >= now.c->start && rx < now.c->end;
}

static const uint8_t *target(unsigned k) {
    return now.c->start + now.off[k] + now.i[k].target;
}

static bool begins(const uint8_t *rx) {
    for (unsigned k = 0; k < now.n; k++)
        if (now.c->start + now.off[k] == rx)
            return true;
    return false;
}

static const struct link *link_at(unsigned k) {
    for (unsigned n = 0; n < now.c->nlinks; n++)
        if (now.c->links[n].rel32 == byte(k, now.i[k].len - 4u))
            return &now.c->links[n];
    return NULL;
}

static void mutate_branch(unsigned k) {
    const struct host_insn *i = &now.i[k];
    const struct link *l = link_at(k);
    unsigned at = i->len - 4u;

    if (!i->direct || i->len < 5)
        return;
    if (l) {
        reject32(LINK, k, at, (uint32_t)le32(byte(k, at)) + 1);
        reject32(LINK, k, at,
                 (uint32_t)(now.env->stub.enter - target(k)) +
                     (uint32_t)le32(byte(k, at)));
        return;
    }
    reject32(MIDDLE, k, at,
             (uint32_t)le32(byte(k, at)) + (uint32_t)(now.env->stub.enter - target(k)));
    reject32(MIDDLE, k, at,
             (uint32_t)le32(byte(k, at)) + (uint32_t)(now.c->end - target(k)));
    for (unsigned n = 1 + k % 3; n < 12; n += 3)
        if (!is_own(target(k)) || !begins(target(k) + n))
            reject32(MIDDLE, k, at, (uint32_t)le32(byte(k, at)) + n);
}

static bool is_slow(const uint8_t *rx) {
    return rx == now.env->stub.slow || rx == now.env->stub.anchor[MMU_READ] ||
           rx == now.env->stub.anchor[MMU_WRITE];
}

/* mov gs:[bt.site], site; lea T1, [back]; jmp slow */
static void mutate_site(unsigned k) {
    const struct host_insn *i = &now.i[k];
    uint32_t site = (uint32_t)i->imm;
    unsigned at = i->len - 4u;

    if (k + 2 >= now.n || i->op != HOST_MOV || i->mem.seg != 'g' ||
        i->mem.disp != GS_TR(site) || !now.i[k + 2].direct || !is_slow(target(k + 2)))
        return;
    reject32(SITE, k, at, site + 1);
    reject32(SITE, k, at, site - 1);
    reject32(SITE, k, at, site ^ 0x800);
    reject32(SITE, k, at, site ^ 1u << 12);
    reject32(SITE, k, at, site ^ 1u << 13);
    reject32(SITE, k, at, site ^ 1u << SITE_ANCHOR_SHIFT);
    reject32(SITE, k, at, site ^ 2u << SITE_ANCHOR_SHIFT);
    /* Alone or not makes no difference to one access. */
    if (SITE_SIZE(site) > TR_BOUNCE_LEN)
        reject32(SITE, k, at, site | SITE_ALONE);
    reject_nop(SITE, k);
    reject_nop(NO_RETURN, k + 1);
    reject32(NO_RETURN, k + 1, 3, (uint32_t)le32(byte(k + 1, 3)) + 0x10000);
}

/* The instructions that look at the poll page, all of them: one may stand for another. */
static void mutate_polls(void) {
    static const uint8_t nops[8] = {0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};
    uint8_t saved[64][8];
    unsigned at[64], polls = 0;
    bool back = false;
    struct finding f;

    for (unsigned n = 0; n < now.c->nlinks; n++)
        back |= tr_link_target(&now.c->links[n], now.c->va & ~4095ull) <= now.c->va;
    for (unsigned k = 0; k < now.n; k++) {
        const struct host_insn *i = &now.i[k];

        back |= i->op == HOST_JMP && !i->direct;
        if (i->mem.access && !i->mem.seg && i->mem.base == HOST_NONE &&
            (uint64_t)i->mem.disp == (uint64_t)(uintptr_t)now.env->poll_page &&
            polls < ARRAY_SIZE(at))
            at[polls++] = k;
    }
    if (!polls || !back)
        return;
    for (unsigned n = 0; n < polls; n++) {
        memcpy(saved[n], byte(at[n], 0), 8);
        memcpy(byte(at[n], 0), nops, 8);
    }
    if (verify_code(now.env, now.c, &f))
        survived(NO_POLL, at[0]);
    for (unsigned n = 0; n < polls; n++)
        memcpy(byte(at[n], 0), saved[n], 8);
    tried[NO_POLL]++;
}

/* Is what instruction K saves to the cell at DISP read back behind it? */
static bool read_back(unsigned k, int64_t disp) {
    for (unsigned n = k + 1; n < now.n; n++) {
        const struct host_insn *i = &now.i[n];

        if (i->op == HOST_MOV && i->mem.seg == 'g' && i->mem.disp == disp)
            return i->mem.access == HOST_READ;
    }
    return false;
}

static void mutate_save(unsigned k) {
    const struct host_insn *i = &now.i[k];

    if (i->op == HOST_MOV && i->mem.seg == 'g' && i->mem.access == HOST_WRITE &&
        is_reg(i, 1, T0) && i->mem.disp >= (int64_t)GS_TR(held) &&
        i->mem.disp < (int64_t)(GS_TR(held) + 8 * TR_HELD) && read_back(k, i->mem.disp))
        reject_nop(NO_SAVE, k);
}

/* REP MOVS and STOS with host addresses; they have to go afterwards. */
static void mutate_string(unsigned k) {
    const struct host_insn *i = &now.i[k];

    if ((i->op != HOST_MOVS && i->op != HOST_STOS) || !i->rep)
        return;
    reject_nop(HOST_LEFT, k + 1);
    reject_nop(HOST_LEFT, k - 1);
}

static void mutate_foreign(unsigned k) {
    static const struct {
        uint8_t len;
        uint8_t bytes[8];
    } foreign[] = {
        {1, {0x50}},                   /* push rax */
        {1, {0x58}},                   /* pop rax */
        {1, {0xc3}},                   /* ret */
        {1, {0xc9}},                   /* leave */
        {1, {0x9c}},                   /* pushf */
        {1, {0x9d}},                   /* popf */
        {1, {0xfd}},                   /* std */
        {1, {0xcc}},                   /* int3 */
        {1, {0xf4}},                   /* hlt */
        {1, {0xee}},                   /* out dx, al */
        {1, {0xa4}},                   /* movsb */
        {1, {0xd7}},                   /* xlat */
        {2, {0x0f, 0x05}},             /* syscall */
        {2, {0x0f, 0xa2}},             /* cpuid */
        {2, {0x0f, 0x33}},             /* rdpmc */
        {2, {0x0f, 0x0b}},             /* ud2 */
        {2, {0xcd, 0x80}},             /* int 0x80 */
        {2, {0x8e, 0xd8}},             /* mov ds, eax */
        {2, {0x8c, 0xd8}},             /* mov eax, ds */
        {2, {0x8b, 0x06}},             /* mov eax, [rsi] */
        {2, {0xff, 0xe0}},             /* jmp rax */
        {2, {0xff, 0xd0}},             /* call rax */
        {3, {0x0f, 0x01, 0xd0}},       /* xgetbv */
        {3, {0x0f, 0x01, 0xef}},       /* wrpkru */
        {3, {0x0f, 0x01, 0xf8}},       /* swapgs */
        {3, {0x0f, 0x00, 0xc8}},       /* str eax */
        {3, {0x0f, 0x01, 0xe0}},       /* smsw eax */
        {3, {0x41, 0xd9, 0x36}},       /* fnstenv [r14] */
        {3, {0x41, 0xdd, 0x36}},       /* fnsave [r14] */
        {3, {0x0f, 0xc7, 0xf0}},       /* rdrand eax */
        {4, {0xf3, 0x0f, 0xae, 0xd8}}, /* wrgsbase eax */
        {4, {0xf3, 0x0f, 0xae, 0xc8}}, /* rdgsbase eax */
        {4, {0xf3, 0x0f, 0xae, 0xd0}}, /* wrfsbase eax */
        {4, {0xf3, 0x0f, 0xc7, 0xf8}}, /* rdpid rax */
        {4, {0x41, 0x0f, 0xae, 0x06}}, /* fxsave [r14] */
        {4, {0x41, 0x0f, 0xae, 0x26}}, /* xsave [r14] */
        {4, {0x49, 0x0f, 0xa3, 0x06}}, /* bt [r14], rax */
        {4, {0x66, 0x0f, 0xf7, 0xc1}}, /* maskmovdqu xmm0, xmm1 */
        {3, {0x0f, 0x20, 0xc0}},       /* mov rax, cr0 */
        {3, {0x65, 0x8b, 0x06}},       /* mov eax, gs:[rsi] */
        {3, {0x64, 0x8b, 0x06}},       /* mov eax, fs:[rsi] */
        {3, {0x4c, 0x89, 0xf8}},       /* mov rax, r15 */
    };

    /* The last of them only where r15 holds what is ours: behind `mov r15, gs:[bank]`. */
    for (unsigned n = 0; n < ARRAY_SIZE(foreign); n++) {
        const struct host_insn *before = k ? &now.i[k - 1] : NULL;
        uint8_t bytes[16];

        if (now.i[k].len < foreign[n].len || (n + k) % 31)
            continue;
        if (n + 1 == ARRAY_SIZE(foreign) &&
            !(before && before->op == HOST_MOV && before->mem.seg == 'g' &&
              before->mem.disp == GS(shadow.bank)))
            continue;
        memset(bytes, 0x90, sizeof(bytes));
        memcpy(bytes, foreign[n].bytes, foreign[n].len);
        reject(FOREIGN, k, 0, bytes, now.i[k].len);
    }
}

static void mutate(void *arg, struct set *s, const struct tr_code *c) {
    struct finding f;

    if (!cut(s, c))
        fail_msg("a fragment that cannot be decoded");
    for (unsigned k = 0; k < now.n; k++) {
        mutate_check(k);
        mutate_operand(k);
        mutate_evex(k);
        mutate_field(k);
        mutate_shadow(k);
        mutate_branch(k);
        mutate_site(k);
        mutate_save(k);
        mutate_string(k);
        mutate_foreign(k);
    }
    mutate_polls();
    assert_true(verify_code(now.env, c, &f)); /* all of it is as it was */
}

static void test_rejects_mutants(void **state) {
    set_each("verify,cache=2", true, mutate, NULL);
    set_each("verify,cache=2,no-groups,no-anchors", true, mutate, NULL);
    for (unsigned n = 0; n < RULES; n++) {
        bool here = (n != MASKED && n != LONGER) || __builtin_cpu_supports("avx512bw");

        print_message("%7lu %s\n", tried[n], rules[n]);
        assert_true(tried[n] > 0 || !here);
    }
}

/* --- code made by hand, in the place of plain moves --- */

/* The steps of a check by hash, of the address in r14. */
#define RORX "\xc4\x43\xfb\xf0\xfe\x0e"   /* rorx r15, r14, 14 */
#define XOR "\x4d\x33\xfe"                /* xor r15, r14 */
#define SHIFT "\x49\xc1\xef\x07"          /* shr r15, 7 */
#define MASK "\x41\x81\xe7\xe0\xff\x7f\0" /* and r15d, 0x7fffe0 */
_Static_assert(SHADOW_ENTRIES - 1 == 0x7fffe0 >> 5, "MASK");
#define BANK "\x65\x4c\x03\x3c\x25" /* add r15, gs:[...] */
#define TAG "\x4d\x2b\x37"          /* sub r14, [r15] */

#define CODE(text) text, sizeof(text) - 1

static const struct {
    const char *what;
    bool right;
    const char *before;
    size_t nbefore;
    const char *after; /* between them comes the displacement of vcpu.shadow.bank */
    size_t nafter;
} by_hand[] = {
    {"as it should be", true, CODE("\x49\x89\xfe" RORX XOR SHIFT MASK BANK), CODE(TAG)},
    {"a constant", true, CODE("\x49\xbe\0\x30\0\0\1\0\0\0" RORX XOR SHIFT MASK BANK),
     CODE(TAG)},
    {"a constant that is cut after the hash", false,
     CODE("\x49\xbe\0\x30\0\0\1\0\0\0" RORX XOR SHIFT MASK BANK),
     CODE("\x45\x89\xf6" TAG)},
    {"a constant that is cut within the hash", false,
     CODE("\x49\xbe\0\x30\0\0\1\0\0\0" RORX "\x45\x89\xf6" XOR SHIFT MASK BANK),
     CODE(TAG)},
    {"an address that moves after the hash", false,
     CODE("\x49\x89\xfe" RORX XOR SHIFT MASK BANK), CODE("\x49\xff\xc6" TAG)},
    {"an address that is cut after the hash", false,
     CODE("\x49\x89\xfe" RORX XOR SHIFT MASK BANK), CODE("\x45\x89\xf6" TAG)},
    {"a copy of the address", true, CODE("\x49\x89\xfe" RORX XOR SHIFT MASK BANK),
     CODE("\x4c\x89\xf7\x49\x89\xfe" TAG)},
    {"the hash of another address", false, CODE("\x49\x89\xfe" RORX XOR SHIFT MASK BANK),
     CODE("\x49\x89\xf6" TAG)},
    {"a step left out", false, CODE("\x49\x89\xfe" RORX XOR MASK BANK), CODE(TAG)},
    {"a step twice", false, CODE("\x49\x89\xfe" RORX XOR SHIFT SHIFT MASK BANK),
     CODE(TAG)},
    {"an entry that moves", false, CODE("\x49\x89\xfe" RORX XOR SHIFT MASK BANK),
     CODE("\x49\x83\xc7\x20" TAG)},
};

static void lay(uint8_t **at, const char *s, size_t len) {
    memcpy(*at, s, len);
    *at += len;
}

static void try_by_hand(void *arg, struct set *s, const struct tr_code *c) {
    uint8_t saved[200];
    struct finding f;

    if (!cut(s, c) || c->hot || (c->key & KEY_SINGLE) || now.n < 60)
        return;
    for (size_t n = 0; n < ARRAY_SIZE(by_hand); n++) {
        uint8_t *from = byte(now.n / 3, 0), *at = from;
        const uint32_t bank = GS(shadow.bank);

        memcpy(saved, from, sizeof(saved));
        lay(&at, by_hand[n].before, by_hand[n].nbefore);
        lay(&at, (const char *)&bank, 4);
        lay(&at, by_hand[n].after, by_hand[n].nafter);
        while (!begins(c->start + (at - now.rw)))
            *at++ = 0x90;
        assert_true(at - from < (ptrdiff_t)sizeof(saved));
        if (verify_code(now.env, c, &f) != by_hand[n].right)
            fail_msg("%s: %s", by_hand[n].what, by_hand[n].right ? f.why : "accepted");
        memcpy(from, saved, sizeof(saved));
        ++*(unsigned *)arg;
    }
}

static void test_by_hand(void **state) {
    struct set *s = set_new("verify,cache=2,tu=64", SET_KIND_PLAIN);
    uint8_t code[60 * 3 + 1];
    struct set_program p = {.how = SET_USER, .code = code, .len = sizeof(code)};
    unsigned tries = 0;

    for (unsigned n = 0; n < 60; n++)
        memcpy(code + 3 * n, "\x48\x89\xd8", 3); /* mov rax, rbx */
    code[sizeof(code) - 1] = 0xc3;
    set_translate(s, &p, try_by_hand, &tries);
    assert_int_equal(tries, ARRAY_SIZE(by_hand));
    set_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rejects_mutants),
        cmocka_unit_test(test_by_hand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
