/*
 * The verifier's look at the stub of anchors, which is the one common stub that writes to
 * the shadow and makes a host pointer without C.
 *
 * It has no loop: both of its ways are executed on terms, such as "what is loaded from
 * the entry that the address in T0 hashes to, minus ...". What comes out, where it goes
 * and what it stores has to be what is put together here from what an anchor is
 * (mmu/mmu.h) and from what the stub promises (bt/stubs.c): nothing less and nothing
 * more.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/vec.h"
#include "verify/verify_int.h"

enum top {
    T_INPUT, /* a register, n */
    T_CONST,
    T_FIELD, /* of the vCPU, at offset n, b bytes */
    T_LOAD,  /* eight bytes at a + n */
    T_ADD,
    T_SUB,
    T_XOR,
    T_AND32, /* of 32 bits */
    T_SUB32,
    T_SHR32,
    T_NEG32,
    T_SHR,
    T_ROR,
};

/* The same term has the same number. */
struct term {
    uint8_t op;
    uint8_t a, b;
    uint64_t n;
};

enum { TERMS = 96, STORES = 8 };

struct store {
    uint8_t at, what;
    int64_t disp;
};

struct run {
    struct verifier *w;
    struct term term[TERMS];
    unsigned nterms;
    uint8_t reg[16];
    uint8_t resume, spill[2]; /* + 1; 0: not written */
    struct store store[STORES];
    unsigned nstores;
    uint8_t cmp[2]; /* of the last comparison */
};

static uint8_t term(struct run *r, enum top op, unsigned a, unsigned b, uint64_t n) {
    const struct term t = {.op = (uint8_t)op, .a = (uint8_t)a, .b = (uint8_t)b, .n = n};
    unsigned k = 0;

    while (k < r->nterms && (r->term[k].op != t.op || r->term[k].a != t.a ||
                             r->term[k].b != t.b || r->term[k].n != t.n))
        k++;
    if (k == TERMS) {
        v_bad(r->w, "a stub that is too long");
        return 0;
    }
    if (k == r->nterms)
        r->term[r->nterms++] = t;
    return (uint8_t)k;
}

/* --- executing --- */

static uint8_t *private(struct run *r, const struct host_insn *i) {
    int64_t off = i->mem.disp;

    return i->mem.size != 8                  ? NULL
           : off == (int64_t)GS_TR(resume)   ? &r->resume
           : off == (int64_t)GS_TR(spill[0]) ? &r->spill[0]
           : off == (int64_t)GS_TR(spill[1]) ? &r->spill[1]
                                             : NULL;
}

static bool on_field(const struct host_insn *i) {
    return i->mem.seg == 'g' && i->mem.base == HOST_NONE && i->mem.index == HOST_NONE &&
           i->addrsize == 8;
}

/* The value of the memory operand. */
static uint8_t load(struct run *r, const struct host_insn *i) {
    const uint8_t *p = private(r, i);
    bool known =
        i->mem.disp == (int64_t)GS(shadow.bank) || i->mem.disp == (int64_t)GS_TR(site);

    if (on_field(i) && p && *p)
        return *p - 1u;
    if (on_field(i) && known)
        return term(r, T_FIELD, 0, i->mem.size, (uint64_t)i->mem.disp);
    if (!i->mem.seg && i->mem.base < 16 && i->mem.index == HOST_NONE && i->mem.size == 8)
        return term(r, T_LOAD, r->reg[i->mem.base], 0, (uint64_t)i->mem.disp);
    v_bad(r->w, "a stub that loads what it has no use for");
    return 0;
}

static void store(struct run *r, const struct host_insn *i, uint8_t what) {
    uint8_t *p = private(r, i);

    if (on_field(i) && p)
        *p = (uint8_t)(what + 1);
    else if (!i->mem.seg && i->mem.base < 16 && i->mem.index == HOST_NONE &&
             i->mem.size == 8 && r->nstores < STORES)
        r->store[r->nstores++] =
            (struct store){.at = r->reg[i->mem.base], .what = what, .disp = i->mem.disp};
    else
        v_bad(r->w, "a stub that stores where it has no business");
}

/* Operand N as a value. */
static uint8_t value(struct run *r, const struct host_insn *i, unsigned n) {
    const struct host_operand *o = &i->opnd[n];

    if (o->kind == HOST_REG)
        return r->reg[o->reg];
    if (o->kind == HOST_MEM)
        return load(r, i);
    return term(r, T_CONST, 0, 0, (uint64_t)i->imm);
}

/* Which term an instruction makes of its first two operands. */
static int operation(const struct host_insn *i) {
    bool wide = i->opnd[0].size == 8;

    switch (i->op) {
    case HOST_ADD:
        return wide ? T_ADD : -1;
    case HOST_SUB:
        return wide ? T_SUB : T_SUB32;
    case HOST_XOR:
        return wide ? T_XOR : -1;
    case HOST_AND:
        return wide ? -1 : T_AND32;
    case HOST_SHR:
        return wide ? T_SHR : T_SHR32;
    default:
        return -1;
    }
}

static void execute(struct run *r, const struct host_insn *i) {
    const struct host_operand *to = &i->opnd[0];
    int op = operation(i);

    if (i->op == HOST_PLAIN && !i->nops) /* NOP */
        return;
    if (to->kind == HOST_MEM && i->op == HOST_MOV && i->opnd[1].kind == HOST_REG)
        store(r, i, value(r, i, 1));
    else if (to->kind != HOST_REG || to->size < 4)
        v_bad(r->w, "an instruction that is none of the stub's");
    else if (i->op == HOST_CMP && to->size == 8)
        r->cmp[0] = value(r, i, 0), r->cmp[1] = value(r, i, 1);
    else if (i->op == HOST_MOV && (to->size == 8 || i->opnd[1].kind != HOST_REG))
        r->reg[to->reg] = value(r, i, 1);
    else if (i->op == HOST_RORX && to->size == 8)
        r->reg[to->reg] =
            term(r, T_ROR, value(r, i, 1), term(r, T_CONST, 0, 0, (uint64_t)i->imm), 0);
    else if (i->op == HOST_NEG && to->size == 4)
        r->reg[to->reg] = term(r, T_NEG32, value(r, i, 0), 0, 0);
    else if (op >= 0)
        r->reg[to->reg] = term(r, (enum top)op, value(r, i, 0), value(r, i, 1), 0);
    else
        v_bad(r->w, "an instruction that is none of the stub's");
}

/* From RX on, up to a branch, which is at what this returns. */
static const uint8_t *straight(struct run *r, const uint8_t *rx, struct host_insn *i) {
    const uint8_t *end = r->w->env->common_end;

    while (!r->w->bad) {
        r->w->f->at = rx;
        if (rx < r->w->env->code.rx || rx >= end ||
            !decode_host(rx, (size_t)(end - rx), i))
            v_bad(r->w, "no instruction");
        else if (i->op == HOST_JMP || i->op == HOST_JCC || i->op == HOST_JRCXZ)
            return rx;
        else
            execute(r, i);
        rx += i->len;
    }
    return rx;
}

/* --- what has to come out --- */

static uint8_t number(struct run *r, uint64_t n) {
    return term(r, T_CONST, 0, 0, n);
}

static uint8_t field(struct run *r, size_t off, unsigned size) {
    return term(r, T_FIELD, 0, size, off);
}

static uint8_t input(struct run *r, unsigned reg) {
    return term(r, T_INPUT, 0, 0, reg);
}

/* The bank's entry for the address in T0: mmu_index(). */
static uint8_t entry_of(struct run *r) {
    enum top first = r->w->env->has_bmi2 ? T_ROR : T_SHR;
    uint8_t t = term(r, first, input(r, T0), number(r, SHADOW_HASH), 0);

    t = term(r, T_XOR, t, input(r, T0), 0);
    t = term(r, T_SHR, t, number(r, 7), 0);
    t = term(r, T_AND32, t, number(r, (SHADOW_ENTRIES - 1) << 5), 0);
    return term(r, T_ADD, t, field(r, GS(shadow.bank), 8), 0);
}

/* 4096 less the site's size */
static uint8_t limit(struct run *r) {
    uint8_t t = term(r, T_AND32, field(r, GS_TR(site), 4), number(r, SITE_SIZE_MAX), 0);

    t = term(r, T_SUB32, t, number(r, 4096), 0);
    return term(r, T_NEG32, t, 0, 0);
}

/* The bank plus 16 bytes for each anchor before the site's. */
static uint8_t anchor(struct run *r) {
    uint8_t t =
        term(r, T_SHR32, field(r, GS_TR(site), 4), number(r, SITE_ANCHOR_SHIFT - 4), 0);

    t = term(r, T_AND32, t, number(r, (SHADOW_ANCHORS - 1) << 4), 0);
    return term(r, T_ADD, t, field(r, GS(shadow.bank), 8), 0);
}
_Static_assert(sizeof(struct shadow_anchor) == 16 &&
                   !(SHADOW_ANCHORS & (SHADOW_ANCHORS - 1)),
               "anchor()");

static bool stored(const struct run *r, uint8_t at, size_t disp, uint8_t what) {
    unsigned n = 0;

    for (unsigned k = 0; k < r->nstores; k++)
        n += r->store[k].at == at && r->store[k].disp == (int64_t)disp &&
             r->store[k].what == what;
    return n == 1;
}

/* All registers are as they came, but for T0, which is A, and T1, unless it is to be. */
static bool registers(struct run *r, uint8_t a, bool t1) {
    for (unsigned k = 0; k < 14; k++)
        if (r->reg[k] != input(r, k))
            return false;
    return r->reg[T0] == a && (!t1 || r->reg[T1] == input(r, T1));
}

static void check_hit(struct run *r, uint8_t entry, uint8_t tag, uint8_t diff,
                      const struct host_insn *jump) {
    uint8_t host = term(r, T_LOAD, entry, 0, offsetof(struct shadow_entry, host));
    const size_t first = offsetof(struct shadow_bank, anchor);
    uint8_t mark = number(r, SHADOW_ANCHORED), at = anchor(r);

    if (r->nstores != 4 || !stored(r, at, first, tag) ||
        !stored(r, at, first + 8, host) ||
        !stored(r, entry, offsetof(struct shadow_entry, tag) + 8 * MMU_EXEC, mark) ||
        !stored(r, field(r, GS(shadow.bank), 8), offsetof(struct shadow_bank, anchored),
                mark))
        v_bad(r->w, "an anchor that is not filled with the entry of its address");
    else if (!registers(r, term(r, T_ADD, diff, host, 0), false))
        v_bad(r->w, "comes back with other registers than the host's address in T0");
    else if (jump->op != HOST_JMP || jump->direct || !on_field(jump) ||
             jump->mem.disp != (int64_t)GS_TR(resume) || r->resume != input(r, T1) + 1)
        v_bad(r->w, "does not come back to where it was told to");
}

static void check_miss(struct run *r, uint8_t tag, uint8_t diff, const uint8_t *rx,
                       const struct host_insn *jump) {
    if (r->nstores)
        v_bad(r->w, "stores for an address that it has not found");
    else if (!registers(r, term(r, T_ADD, diff, tag, 0), true))
        v_bad(r->w, "goes on with other registers than it got");
    else if (jump->op != HOST_JMP || !jump->direct ||
             rx + jump->target != r->w->env->stub.slow)
        v_bad(r->w, "goes on to something else than the slow stub");
}

/* One in many goes the slow way at once, with all as it came: behind that. */
static const uint8_t *behind_sample(struct run *r, const uint8_t *rx) {
    const uint8_t *slow = r->w->env->stub.slow;
    struct host_insn i, j = {0};

    if (!decode_host(rx, 15, &i) || i.op != HOST_SUB || !on_field(&i) ||
        i.mem.size != 4 || i.mem.disp != (int64_t)GS_TR(anchor_left) ||
        i.opnd[0].kind != HOST_MEM || i.opnd[1].kind == HOST_REG || i.imm != 1 ||
        !decode_host(rx + i.len, 15, &j) || j.op != HOST_JCC || j.cond != CC_E ||
        rx + i.len + j.target != slow)
        v_bad(r->w, "does not count, or not to the slow stub");
    return rx + i.len + j.len;
}

static void check_anchor(struct run *r, enum mmu_access acc) {
    uint8_t entry, tag, diff;
    struct host_insn i = {0};
    const uint8_t *rx;
    struct run hit;

    for (unsigned k = 0; k < 16; k++)
        r->reg[k] = input(r, k);
    entry = entry_of(r);
    tag = term(r, T_LOAD, entry, 0, offsetof(struct shadow_entry, tag) + 8 * acc);
    diff = term(r, T_SUB, input(r, T0), tag, 0);
    r->cmp[0] = r->cmp[1] = entry; /* none */
    rx = straight(r, behind_sample(r, r->w->env->stub.anchor[acc]), &i);
    if (i.op != HOST_JCC || i.cond != CC_A || r->cmp[0] != diff || r->cmp[1] != limit(r))
        v_bad(r->w, "does not compare the page's offset with 4096 less the size");
    if (r->w->bad)
        return;
    hit = *r;
    straight(&hit, rx + i.len, &i);
    check_hit(&hit, entry, tag, diff, &i);
    if (r->w->bad || !decode_host(rx, 15, &i))
        return;
    rx = straight(r, rx + i.target, &i);
    check_miss(r, tag, diff, rx, &i);
}

bool verify_stubs(const struct tr_env *env, struct finding *f) {
    struct verifier w = {.env = env, .f = f};

    vec_park(env->v);
    *f = (struct finding){.at = NULL};
    for (unsigned acc = MMU_READ; acc <= MMU_WRITE && !w.bad; acc++) {
        struct run r = {.w = &w};

        check_anchor(&r, (enum mmu_access)acc);
    }
    return !w.bad;
}
