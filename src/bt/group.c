/*
 * One check for several accesses.
 *
 * Accesses off the same base register (and index) in a TU mostly lie in one page. The
 * first of them looks up the whole range that the TU is going to touch, and leaves the
 * host address of its lowest byte "pinned" in T0; the others use T0 with a displacement.
 * The stack pointer may move by known amounts on the way: PUSH, POP, CALL, RET and
 * accesses relative to rSP share a check too.
 *
 * Exceptions stay precise: the check comes before the group's first access. When it fails
 * (no page, no right, or a range that crosses into another page), the interpreter
 * executes that first instruction alone, with its own checks, and a new TU starts after
 * it. A fragment that keeps failing so is retranslated without groups (bt_slow_access()).
 */
#include "bt/tr_int.h"

#define SPAN_LIMIT 512

static bool same(const struct tr_ref *a, const struct tr_ref *b) {
    return a->base == b->base && a->index == b->index && a->scale == b->scale &&
           a->seg == b->seg && a->addrsize == b->addrsize;
}

/* A base is added after the offset was cut to 32 bits: neighbours by displacement need
 * not be neighbours in memory. */
static bool may_scatter(const struct tr *t, const struct tr_ref *r) {
    return KEY_MODE(t->key) == MODE_64 && r->addrsize == 4 && r->seg != TR_SEG_FLAT;
}

static uint8_t segment(const struct tr *t, unsigned seg) {
    return t->key >> KEY_BASE_SHIFT & 1u << seg ? (uint8_t)seg : TR_SEG_FLAT;
}

struct tr_ref tr_ref_mem(const struct tr *t, const struct insn *i, uint64_t va) {
    const struct mem_operand *m = &i->mem;
    struct tr_ref r = {.base = m->base,
                       .index = m->index,
                       .scale = m->index == REG_ZERO ? 0 : m->scale,
                       .seg = segment(t, m->seg),
                       .addrsize = i->addrsize,
                       .disp = m->disp};

    if (m->base == REG_RIP) {
        r.base = REG_ZERO;
        r.disp = (int64_t)(va + (uint64_t)m->disp);
    }
    return r;
}

struct tr_ref tr_ref_stack(const struct tr *t, int32_t disp) {
    return (struct tr_ref){.base = REG_RSP,
                           .index = REG_ZERO,
                           .seg = TR_SEG_FLAT,
                           .addrsize = KEY_MODE(t->key) == MODE_64 ? 8 : 4,
                           .disp = disp};
}

/* Registers that an instruction writes, more rather than fewer. */
static uint32_t written(const struct insn *i) {
    const uint32_t wide = 1u << REG_RAX | 1u << REG_RCX | 1u << REG_RDX | 1u << REG_RBX;
    uint32_t regs = 0;

    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_REG && (i->opnd[k].access & OPND_WRITE))
            regs |= 1u << i->opnd[k].reg;
    switch (i->op) {
    case OP_mul:
    case OP_imul:
    case OP_mulx:
    case OP_div:
    case OP_idiv:
    case OP_cmpxchg:
    case OP_cmpxchg8b:
    case OP_cmpxchg16b:
    case OP_cbw:
    case OP_cwde:
    case OP_cdqe:
    case OP_cwd:
    case OP_cdq:
    case OP_cqo:
    case OP_lahf:
        return regs | wide;
    case OP_native:
        return i->flags & (INSN_GPR | INSN_X87) ? regs | wide : regs;
    default:
        return regs;
    }
}

/* By how much the instruction moves rSP, when that is all it does to it. */
static bool moves_sp(const struct tr *t, const struct insn *i, int32_t *by) {
    int w = KEY_MODE(t->key) == MODE_64 ? 8 : 4;

    switch (i->op) {
    case OP_push:
    case OP_call:
        *by = -(int32_t)i->opsize;
        return true;
    case OP_pop:
        *by = i->opsize;
        return i->opnd[0].reg != REG_RSP;
    case OP_add:
    case OP_sub:
        *by = i->op == OP_add ? (int32_t)i->imm : -(int32_t)i->imm;
        return i->opnd[0].kind == OPND_REG && i->opnd[0].reg == REG_RSP &&
               i->opnd[0].size == w && i->opnd[1].kind == OPND_IMM &&
               i->imm == (int32_t)i->imm && i->imm != INT32_MIN;
    default:
        return false;
    }
}

/* The instruction's memory access, if it has one that may be in a group. */
static bool access_of(const struct tr *t, const struct insn *i, uint64_t va,
                      struct tr_ref *ref, unsigned *size, bool *write) {
    *size = i->opsize;
    switch (i->op) {
    case OP_push:
    case OP_call:
        *ref = tr_ref_stack(t, -(int32_t)i->opsize);
        *write = true;
        return true;
    case OP_pop:
    case OP_ret:
        *ref = tr_ref_stack(t, 0);
        *write = false;
        return true;
    default:
        if (!tr_has_mem(i) || !i->mem.size)
            return false;
        *ref = tr_ref_mem(t, i, va);
        *size = i->mem.size;
        *write = i->mem.access & OPND_WRITE;
        return true;
    }
}

/* After I, is what was in T0 still the base's? *DELTA follows the base. */
static bool base_survives(const struct tr *t, const struct insn *i,
                          const struct tr_ref *ref, int64_t *delta) {
    uint32_t mask = 1u << ref->base | 1u << ref->index;
    int32_t by;

    mask &= 0xffff; /* REG_ZERO is nobody's */
    if (moves_sp(t, i, &by)) {
        uint32_t others = written(i) & ~(1u << REG_RSP);

        if (ref->index == REG_RSP || (others & mask))
            return false;
        if (ref->base == REG_RSP)
            *delta += by;
        return true;
    }
    return !(written(i) & mask);
}

/* The range around REF that the TU is going to touch from here on. */
static void plan(const struct tr *t, const struct tr_ref *ref, unsigned size, bool write,
                 struct tr_pin *pin) {
    int64_t lo = ref->disp, hi = ref->disp + size, delta = 0;
    bool wr = write;

    bool sure = true; /* it is executed if the group's first access is */

    for (unsigned j = t->k; t->groups && !may_scatter(t, ref) && j < t->n; j++) {
        const struct insn *i = &t->insn[j].i;
        struct tr_ref r;
        unsigned len;
        bool w;

        if (j > t->k && !tr_keeps_pin(t, i))
            break;
        sure &= i->op != OP_jcc;
        if (access_of(t, i, t->insn[j].va, &r, &len, &w)) {
            int64_t at = r.disp + delta;
            int64_t nlo = at < lo ? at : lo, nhi = at + len > hi ? at + len : hi;

            if (!same(ref, &r))
                break;
            if (nhi - nlo > SPAN_LIMIT || (w && !wr && !sure))
                break; /* a store that may not happen does not set D */
            lo = nlo;
            hi = nhi;
            wr |= w;
        }
        if (i->op == OP_ret || !base_survives(t, i, ref, &delta))
            break;
    }
    *pin = (struct tr_pin){
        .on = true, .ref = *ref, .min = lo, .span = (unsigned)(hi - lo), .write = wr};
}

/* A hot path gives each pointer an anchor of its own. */
static int named_anchor(struct tr *t, const struct tr_ref *ref) {
    const unsigned free = SHADOW_ANCHORS - ANCHOR_FREE;
    struct tr_named *n;

    if (!t->hot)
        return -1;
    for (unsigned k = 0; k < t->nnamed; k++) {
        n = &t->named[k];
        if (same(&n->ref, ref) && n->base_version == t->version[ref->base] &&
            n->index_version == t->version[ref->index])
            return n->anchor;
    }
    if (t->nnamed == ARRAY_SIZE(t->named))
        return -1;
    n = &t->named[t->nnamed++];
    *n = (struct tr_named){
        .ref = *ref,
        .base_version = t->version[ref->base],
        .index_version = t->version[ref->index],
        .anchor = (uint16_t)(ANCHOR_FREE + t->bt->next_anchor),
    };
    t->bt->next_anchor = (t->bt->next_anchor + 2) % free;
    return n->anchor;
}

/* The anchor for REF, or -1: a page that this kind of access mostly stays in. */
static int anchor_of(struct tr *t, const struct tr_ref *ref, int64_t disp) {
    if (!t->bt->opt.anchors)
        return -1;
    if (ref->index != REG_ZERO)
        return named_anchor(t, ref);
    if (ref->base == REG_ZERO && (ref->seg == SEG_FS || ref->seg == SEG_GS)) {
        unsigned page = (unsigned)(disp >> 12) & (ANCHOR_THREAD_PAGES - 1);

        return ANCHOR_THREAD +
               2 * (int)(page + (ref->seg == SEG_GS ? ANCHOR_THREAD_PAGES : 0));
    }
    if (ref->seg == TR_SEG_FLAT && ref->base == REG_RSP)
        return ANCHOR_STACK;
    if (ref->seg == TR_SEG_FLAT && ref->base == REG_RBP && KEY_MODE(t->key) == MODE_32)
        return ANCHOR_FRAME;
    return named_anchor(t, ref);
}

/* Is REF one address, known now? Its page is then checked as a whole. */
static bool fixed_page(const struct tr *t, const struct tr_ref *ref, unsigned size,
                       uint64_t *page) {
    uint64_t at = (uint64_t)ref->disp;

    if (!t->bt->opt.anchors || ref->base != REG_ZERO || ref->index != REG_ZERO ||
        ref->seg != TR_SEG_FLAT)
        return false;
    if (ref->addrsize == 4)
        at = (uint32_t)at;
    *page = at & ~4095ull;
    return (at & 4095) + size <= 4096;
}

int32_t tr_access(struct tr *t, const struct tr_ref *ref, unsigned size, bool write) {
    struct tr_pin *p = &t->pin;
    uint64_t page;

    if (p->on && same(&p->ref, ref) && !may_scatter(t, ref)) {
        int64_t at = ref->disp + p->delta - p->min;

        if (at >= 0 && at + size <= p->span && (p->write || !write))
            return (int32_t)at;
    }
    plan(t, ref, size, write, p);
    tr_flags_save(t);
    if (fixed_page(t, ref, size, &page)) {
        p->min = ref->disp & ~4095ll;
        p->span = 4096;
        tr_lookup_fixed(t, page, p->write ? MMU_WRITE : MMU_READ);
    } else {
        enum mmu_access acc = p->write ? MMU_WRITE : MMU_READ;
        int n = anchor_of(t, ref, p->min);

        tr_ea(t, ref, p->min);
        if (n >= 0)
            tr_lookup_anchor(t, p->span, acc, (unsigned)n);
        else
            tr_lookup(t, p->span, acc);
    }
    return (int32_t)(ref->disp - p->min);
}

/* Does I move a register by a constant? */
static bool small_step(const struct insn *i) {
    const struct operand *o = i->opnd;

    switch (i->op) {
    case OP_inc:
    case OP_dec:
        return true;
    case OP_add:
    case OP_sub:
        return o[1].kind == OPND_IMM;
    case OP_lea:
        return i->mem.base == o[0].reg && i->mem.index == REG_ZERO;
    default:
        return false;
    }
}

void tr_pin_step(struct tr *t, const struct insn *i) {
    struct tr_pin *p = &t->pin;
    uint32_t regs = small_step(i) ? 0 : written(i);

    for (unsigned r = 0; regs; r++, regs >>= 1)
        t->version[r] += regs & 1;

    if (p->on && (!tr_keeps_pin(t, i) || !base_survives(t, i, &p->ref, &p->delta)))
        p->on = false;
}
