/*
 * One check for several accesses.
 *
 * Accesses off the same base register (and index) in a TU mostly lie in one page. The
 * first of them looks up the whole range that the TU is going to touch, and leaves the
 * host address of its lowest byte in T0; the others use T0 with a displacement. The base
 * may move by known amounts on the way: PUSH, POP, CALL, RET and accesses relative to rSP
 * share a check too, and so do the steps of a loop that was unrolled.
 *
 * Where another access comes in between and takes T0, the host address is saved, and read
 * back when it is wanted again: a "held" range. It is good until its registers change in
 * another way, or something that may change translations or rights is executed (a
 * callout, STAC, CLAC). A slow path that takes write entries away does not come back to
 * the fragment (docs/bt.md).
 *
 * Safety: an access is at the checked address plus an offset, and lies within the bytes
 * that were checked. Offsets are differences of displacements, taken modulo 2^64 like
 * addresses are, and compared unsigned; what would be far away is not taken in. A range
 * whose lowest byte has a displacement that an address cannot carry is not taken either.
 * Where addresses are cut to 32 bits in 64-bit code, or a base is added after they were
 * cut, neighbours by displacement need not be neighbours in memory: no groups there.
 *
 * Exceptions stay precise: the check comes before the group's first access. When it fails
 * because a page or a right is missing, the interpreter executes that first instruction
 * alone, with its own checks, and a new TU starts after it. Where the range only crosses
 * into another page, a fragment without groups goes on in its place (bt/callout.c). A
 * group that keeps failing so is given up for a while (bt/adapt.c).
 */
#include "base/bug.h"
#include "tr/tr_int.h"

#define SPAN_LIMIT 1024

static bool same(const struct tr_ref *a, const struct tr_ref *b) {
    return a->base == b->base && a->index == b->index && a->scale == b->scale &&
           a->seg == b->seg && a->addrsize == b->addrsize;
}

/* Neighbours by displacement need not be neighbours in memory: 64-bit code cuts the
 * address to 32 bits. */
static bool may_scatter(const struct tr *t, const struct tr_ref *r) {
    return KEY_MODE(t->key) == MODE_64 && r->addrsize == 4;
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

    if (m->base == REG_RIP && t->c->fixed) {
        r.base = REG_ZERO;
        r.disp = (int64_t)(va + (uint64_t)m->disp);
    } else if (m->base == REG_RIP) { /* stands for the page that is being executed */
        r.disp = (int64_t)(va - (t->c->va & ~4095ull) + (uint64_t)m->disp);
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

uint32_t tr_written(const struct insn *i) {
    const uint32_t wide = 1u << REG_RAX | 1u << REG_RCX | 1u << REG_RDX | 1u << REG_RBX;
    uint32_t regs = 0;

    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_REG && (i->opnd[k].access & OPND_WRITE))
            regs |= 1u << i->opnd[k].reg;
    switch (i->op) {
    case OP_push:
    case OP_pop:
    case OP_call:
    case OP_ret:
    case OP_pushf:
    case OP_popf:
        return regs | 1u << REG_RSP;
    case OP_leave:
        return 1u << REG_RSP | 1u << REG_RBP;
    case OP_movs:
    case OP_stos:
        return 1u << REG_RCX | 1u << REG_RSI | 1u << REG_RDI;
    case OP_loop:
    case OP_rdtsc:
    case OP_rdtscp:
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

/* When all that I does to REG is to add a constant: *BY. */
static bool steps(const struct tr *t, const struct insn *i, unsigned reg, int64_t *by) {
    const struct operand *o = i->opnd;
    int w = KEY_MODE(t->key) == MODE_64 ? 8 : 4;
    bool self = o[0].kind == OPND_REG && o[0].reg == reg && o[0].size == w;

    switch (i->op) {
    case OP_push:
    case OP_call:
    case OP_pushf:
        *by = -(int64_t)i->opsize;
        return reg == REG_RSP;
    case OP_pop:
        *by = i->opsize;
        return reg == REG_RSP && !(o[0].kind == OPND_REG && o[0].reg == REG_RSP);
    case OP_ret:
        *by = i->opsize + (i->nops ? (uint16_t)i->imm : 0);
        return reg == REG_RSP;
    case OP_inc:
    case OP_dec:
        *by = i->op == OP_inc ? 1 : -1;
        return self;
    case OP_add:
    case OP_sub:
        *by = i->op == OP_add ? i->imm : -i->imm;
        return self && o[1].kind == OPND_IMM && i->imm == (int32_t)i->imm;
    case OP_lea:
        *by = i->mem.disp;
        return self && i->mem.base == reg && i->mem.index == REG_ZERO && i->addrsize == w;
    default:
        return false;
    }
}

/* A memory access of an instruction that may be in a group. */
struct access {
    struct tr_ref ref;
    unsigned size;
    bool write;
};
#define ACCESSES_MAX 2

/* Those of I at VA, in the order in which its expansion makes them: PUSH, CALL and JMP
 * read their operand first. */
static unsigned accesses_of(const struct tr *t, const struct insn *i, uint64_t va,
                            struct access *a) {
    unsigned n = 0;

    if (tr_has_mem(i) && i->mem.size)
        a[n++] = (struct access){.ref = tr_ref_mem(t, i, va),
                                 .size = i->mem.size,
                                 .write = i->mem.access & OPND_WRITE};
    if (i->op == OP_push || i->op == OP_call)
        a[n++] = (struct access){.ref = tr_ref_stack(t, -(int32_t)i->opsize),
                                 .size = i->opsize,
                                 .write = true};
    else if (i->op == OP_pop || i->op == OP_ret)
        a[n++] = (struct access){.ref = tr_ref_stack(t, 0), .size = i->opsize};
    return n;
}

/* After U, is REF's range still where it was, but for the base, which *DELTA follows? */
static bool survives(const struct tr *t, const struct tu_insn *u,
                     const struct tr_ref *ref, int64_t *delta) {
    const struct insn *i = &u->i;
    uint32_t regs = u->written;
    int64_t by;

    if (ref->index != REG_ZERO && (regs >> ref->index & 1)) {
        if (ref->index == ref->base || !steps(t, i, ref->index, &by))
            return false;
        *delta += by * (1 << ref->scale);
    }
    if (ref->base != REG_ZERO && (regs >> ref->base & 1)) {
        if (ref->index == ref->base || !steps(t, i, ref->base, &by))
            return false;
        *delta += by;
    }
    return *delta == (int32_t)*delta;
}

/* May what I does, or the C function that does it, change translations or rights? */
static bool invalidates(const struct insn *i) {
    return tr_class_of(i) == CLASS_CALLOUT || i->op == OP_clac || i->op == OP_stac ||
           i->op == OP_swapgs || i->op == OP_popf || i->op == OP_sti ||
           i->op == OP_movs || i->op == OP_stos;
}

/* A range in the making: bytes [LO, HI) from the first access's address on. */
struct plan {
    const struct access *first;
    int64_t lo, hi;
    int64_t delta; /* what has been added to the base since */
    unsigned uses;
    bool write;
    bool sure;  /* the instruction is executed if the first access is */
    bool lost;  /* T0 has been something else since the first access */
    bool again; /* and there is a use after that */
};

/* Can the address of the byte at DISP + LO be made (tr_ea()), without a wrap? */
static bool reachable(const struct tr_ref *ref, int64_t lo) {
    int64_t at;

    if (__builtin_add_overflow(ref->disp, lo, &at))
        return false;
    if (ref->base == REG_ZERO && ref->index == REG_ZERO)
        return (ref->disp < 0) == (at < 0);
    return at == (int32_t)at;
}

/* Takes A in, or notes that it does not belong to the range. */
static void take_in(struct plan *p, const struct access *a) {
    int64_t at = (int64_t)((uint64_t)a->ref.disp + (uint64_t)p->delta -
                           (uint64_t)p->first->ref.disp);
    int64_t lo, hi;

    if (!same(&p->first->ref, &a->ref) || at < -SPAN_LIMIT || at > SPAN_LIMIT ||
        a->size > SPAN_LIMIT) {
        p->lost = true;
        return;
    }
    lo = at < p->lo ? at : p->lo;
    hi = at + a->size > p->hi ? at + a->size : p->hi;
    /* A store that may not happen does not set D. */
    if (hi - lo > SPAN_LIMIT || !reachable(&p->first->ref, lo) ||
        !reachable(&p->first->ref, hi) || (a->write && !p->write && !p->sure)) {
        p->lost = true;
        return;
    }
    p->lo = lo;
    p->hi = hi;
    p->write |= a->write;
    p->uses++;
    p->again |= p->lost;
}

static bool is_first(const struct plan *p, const struct access *a) {
    return same(&p->first->ref, &a->ref) && p->first->ref.disp == a->ref.disp &&
           p->first->size == a->size && p->first->write == a->write;
}

/* The other accesses of the instruction that makes the first one come after it. */
static void take_in_rest(struct plan *p, const struct access *a, unsigned n) {
    unsigned k = 0;

    while (k < n && !is_first(p, &a[k]))
        k++;
    for (k++; k < n; k++) {
        p->lost = true; /* what was read goes through T1 and T0 */
        take_in(p, &a[k]);
    }
}

/* The range around FIRST that the TU is going to touch from here on. *AGAIN: also after
 * T0 has been something else. */
static void plan(const struct tr *t, const struct access *first, struct tr_held *h,
                 bool *again) {
    struct plan p = {.first = first,
                     .hi = first->size,
                     .uses = 1,
                     .write = first->write,
                     .sure = true};
    bool alone =
        !t->groups || may_scatter(t, &first->ref) ||
        t->env->advice->no_group(t->env->arg, tr_va(t), tr_ram_page(t, &t->insn[t->k]));

    for (unsigned j = t->k; !alone && j < t->n; j++) {
        const struct insn *i = &t->insn[j].i;
        struct access a[ACCESSES_MAX];
        unsigned n;

        if (j > t->k && invalidates(i))
            break;
        n = accesses_of(t, i, t->insn[j].va, a);
        if (j == t->k)
            take_in_rest(&p, a, n);
        for (unsigned k = 0; j > t->k && k < n; k++)
            take_in(&p, &a[k]);
        if (j > t->k && !p.lost)
            p.lost = !tr_keeps_t0(t, i) || i->op == OP_ret;
        p.sure &= i->op != OP_jcc && t->insn[j].follow != FOLLOW_EXPECTED;
        if (!survives(t, &t->insn[j], &first->ref, &p.delta))
            break;
    }
    *h = (struct tr_held){.on = p.uses > 1 && !MUTANT(UNCOUNTED),
                          .ref = first->ref,
                          .min = first->ref.disp + p.lo,
                          .span = (unsigned)(p.hi - p.lo),
                          .write = p.write};
    *again = h->on && p.again && t->env->opt.held;
}

/* A hot path gives each pointer an anchor of its own. */
static int named_anchor(struct tr *t, const struct tr_ref *ref) {
    const unsigned free = SHADOW_ANCHORS - ANCHOR_FREE;
    struct tr_named *n;

    if (!t->hot || !tr_loops(t) ||
        t->env->advice->no_anchor(t->env->arg, tr_va(t), tr_ram_page(t, &t->insn[t->k])))
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
        .anchor = (uint16_t)(ANCHOR_FREE + t->next_anchor),
    };
    t->next_anchor = (t->next_anchor + 2) % free;
    return n->anchor;
}

/* The anchor for REF, or -1: a page that this kind of access mostly stays in. */
static int anchor_of(struct tr *t, const struct tr_ref *ref, int64_t disp) {
    if (!t->env->opt.anchors)
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

    if (!t->env->opt.anchors || ref->base != REG_ZERO || ref->index != REG_ZERO ||
        ref->seg != TR_SEG_FLAT)
        return false;
    if (ref->addrsize == 4)
        at = (uint32_t)at;
    *page = at & ~4095ull;
    return (at & 4095) + size <= 4096;
}

/* Where SIZE bytes at REF are in a held range: T0 points to its first byte afterwards. */
static bool reuse(struct tr *t, const struct tr_ref *ref, unsigned size, bool write,
                  int32_t *off) {
    for (int n = 0; n < TR_HELD; n++) {
        struct tr_held *h = &t->held[n];
        uint64_t at = (uint64_t)ref->disp + (uint64_t)h->delta - (uint64_t)h->min;

        if (!h->on || !same(&h->ref, ref) || may_scatter(t, ref) || size > h->span ||
            MUTATE(SIGNED, at > h->span - size && !MUTANT(RANGE_END),
                   (int64_t)(at + size) > (int64_t)h->span) ||
            (write && !h->write && !MUTANT(RANGE_RIGHT)))
            continue;
        if (t->in_t0 != n) {
            if (!h->saved)
                continue;
            e_gs(&t->e, W64, OPC_MOV_R_RM, T0,
                 GS_TR(held) + 8 * (size_t)(n ^ MUTANT(RANGE_OTHER)));
            t->in_t0 = n;
        }
        *off = (int32_t)at;
        return true;
    }
    return false;
}

/* A place to hold one more range: a free one, or in turn. */
static struct tr_held *held_slot(struct tr *t) {
    for (unsigned n = 0; n < TR_HELD; n++)
        if (!t->held[n].on || (!t->held[n].saved && t->in_t0 != (int)n))
            return &t->held[n];
    t->next_held = (t->next_held + 1) % TR_HELD;
    return &t->held[t->next_held];
}

void tr_lookup_ref(struct tr *t, const struct tr_ref *ref, unsigned len,
                   enum mmu_access acc) {
    int n = anchor_of(t, ref, ref->disp);

    if (n >= 0)
        tr_lookup_anchor(t, len, acc, (unsigned)n);
    else
        tr_lookup(t, len, acc);
}

/* Checks all of H and leaves the host address of its first byte in T0. */
static void check_range(struct tr *t, const struct access *a, const struct tr_held *h) {
    struct tr_ref at = a->ref;

    at.disp = h->min;
    tr_ea(t, &a->ref, h->min);
    t->alone = !h->on;
    t->sole = t->plain && h->min == a->ref.disp && h->span == a->size && a->size <= 8 &&
              h->write == a->write;
    tr_lookup_ref(t, &at, h->span, h->write ? MMU_WRITE : MMU_READ);
    t->alone = t->sole = false;
}

int32_t tr_access(struct tr *t, const struct tr_ref *ref, unsigned size, bool write) {
    const struct access a = {.ref = *ref, .size = size, .write = write};
    struct tr_held *h;
    uint64_t page, at;
    int32_t off;
    bool again;

    if (reuse(t, ref, size, write, &off))
        return off;
    h = held_slot(t);
    plan(t, &a, h, &again);
    tr_flags_save(t);
    if (fixed_page(t, ref, size, &page)) {
        h->min = ref->disp & ~4095ll;
        h->span = 4096;
        h->on = true;
        tr_lookup_fixed(t, page, h->write ? MMU_WRITE : MMU_READ);
    } else {
        check_range(t, &a, h);
    }
    at = (uint64_t)ref->disp - (uint64_t)h->min;
    BUG_ON(size > h->span || at > h->span - size || (write && !h->write));
    t->in_t0 = h->on ? (int)(h - t->held) : TR_IN_T0_NONE;
    h->saved = h->on && again;
    if (h->saved)
        e_gs(&t->e, W64, OPC_MOV_RM_R, T0,
             GS_TR(held) + 8 * (size_t)(h - t->held - MUTANT(HELD_MINUS_ONE)));
    return (int32_t)at;
}

void tr_forget_held(struct tr *t) {
    for (unsigned n = 0; n < TR_HELD; n++)
        t->held[n].on = false;
    t->in_t0 = TR_IN_T0_NONE;
}

/* What named anchors go by; nothing else has any. */
static void step_versions(struct tr *t, const struct tu_insn *u) {
    int64_t by;

    for (unsigned r = 0; r < REG_R15 + 1; r++)
        t->version[r] += (u->written >> r & 1) && !steps(t, &u->i, r, &by);
}

void tr_group_step(struct tr *t, const struct tu_insn *u) {
    if (t->hot)
        step_versions(t, u);
    if (t->in_t0 != TR_IN_T0_NONE &&
        ((!tr_keeps_t0(t, &u->i) && !MUTANT(KEEPS_T0)) || u->i.op == OP_ret))
        tr_lose_t0(t);
    for (unsigned n = 0; n < TR_HELD; n++)
        if (t->held[n].on && !survives(t, u, &t->held[n].ref, &t->held[n].delta)) {
            t->held[n].on = false;
            if (t->in_t0 == (int)n)
                tr_lose_t0(t);
        }
}
