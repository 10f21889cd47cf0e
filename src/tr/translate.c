/*
 * From guest bytes to a fragment: builds the TU, finds out which status flags are needed
 * where, expands each instruction, and places entries, exits and out-of-line code.
 */
#include "cpu/vec.h"
#include "decode/decode.h"
#include "mem/mem.h"
#include "sem/sem.h"
#include "tr/tr_int.h"
#include "verify/verify.h"

uint64_t tr_va(const struct tr *t) {
    return t->insn[t->k].va;
}

uint64_t tr_next_va(const struct tr *t) {
    uint64_t va = tr_va(t) + t->insn[t->k].i.len;

    return KEY_MODE(t->key) == MODE_64 ? va : (uint32_t)va;
}

/* Which instruction, as struct site says it. */
static uint16_t site_guest(const struct tr *t) {
    uint64_t va = tr_va(t);
    bool second = t->c->vp2 && (va ^ t->c->vp2->va) < 4096;

    return (uint16_t)((va & 0xfff) | (second ? SITE_PAGE2 : 0));
}

void tr_site(struct tr *t, enum poll_kind poll, unsigned link) {
    ptrdiff_t at = e_here(&t->e) - t->c->code;

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

/* --- status flags --- */

void tr_emit_restore(struct emit *e) {
    static const uint8_t add_sahf[] = {0x04, 0x7f, 0x9e}; /* add al, 127; sahf */

    e_mov_rr(e, W64, T1, REG_RAX);
    e8(e, 0x66);
    e_gs(e, W32, OPC_MOV_R_RM, REG_RAX, GS(bt.flags));
    e_bytes(e, add_sahf, sizeof(add_sahf));
    e_mov_rr(e, W64, REG_RAX, T1);
}

void tr_flags_save(struct tr *t) {
    if (t->place != FLAGS_REGS)
        return;
    if (t->insn[t->k].live_in) {
        bt_emit_save(&t->e);
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
        bt_emit_save(&t->e);
    t->place = FLAGS_MEM;
}

/* The six flags in one byte: those of the low byte, and OF in bit 1. */
uint8_t tr_pack_flags(unsigned fl) {
    return (uint8_t)((fl & (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF)) |
                     (fl & X86_FL_OF ? 2 : 0));
}

static bool clobbers_by_callout(const struct insn *i) {
    return !tr_expansion(i);
}

/* A way out in the middle: whatever is there needs all flags, for all we know. */
static bool may_leave(const struct tu_insn *u) {
    return u->i.op == OP_jcc || u->follow == FOLLOW_EXPECTED;
}

/* The handler of a fault sees the flags, even those that nothing reads otherwise. A hot
 * path does not pay for that: docs/bt.md, "Precise state". */
static bool may_fault(const struct insn *i) {
    switch (i->op) {
    case OP_push:
    case OP_pop:
    case OP_call:
    case OP_ret:
    case OP_leave:
    case OP_movs:
    case OP_stos:
    case OP_div:
    case OP_idiv:
    case OP_native:
        return true;
    default:
        return i->mem.access;
    }
}

static bool loops(const struct tu_insn *u) {
    return u->follow == FOLLOW_LOOP_NEXT || u->follow == FOLLOW_LOOP_TARGET;
}

bool tr_loops(const struct tr *t) {
    return loops(&t->insn[t->n - 1]);
}

/* Backwards over the TU: what is needed before each instruction. */
static void find_liveness(struct tr *t) {
    const uint8_t all = tr_pack_flags(FLAGS_ALL);
    uint8_t live = loops(&t->insn[t->n - 1]) ? t->live_loop : t->live_exit;

    for (unsigned k = t->n; k--;) {
        struct tu_insn *u = &t->insn[k];
        uint8_t read = tr_pack_flags(u->i.fl_read);
        uint8_t written = tr_pack_flags(u->i.fl_written | u->i.fl_undefined);

        u->live_out = live;
        if (!t->bt->opt.liveness || clobbers_by_callout(&u->i) || u->trap ||
            may_leave(u) || (!t->hot && may_fault(&u->i)))
            live = all;
        else
            live = (uint8_t)(read | (live & ~written));
        u->live_in = live;
    }
}

/* --- callouts --- */

uint8_t *tr_page(const struct tr *t, const struct tu_insn *u) {
    bool second = t->c->vp2 && (u->va ^ t->c->vp2->va) < 4096;

    return second ? t->c->page2 : t->c->page;
}

/* lea T1, [rip + SKIP]: the address behind the next SKIP bytes. */
void tr_lea_next(struct tr *t, unsigned skip) {
    e8(&t->e, 0x4c);
    e8(&t->e, 0x8d);
    e8(&t->e, 0x05 | (T1 & 7) << 3);
    e32(&t->e, skip);
}

static const uint8_t *callout_stub(const struct tr *t, const struct insn *i) {
    enum bt_gate gate = bt_gate_of(i, KEY_MODE(t->key));

    if (!t->bt->opt.stay || tr_counted(t) || !bt_transfers(i))
        return t->bt->stub_callout;
    return gate == BT_GATE_NONE ? t->bt->stub_transfer : t->bt->stub_gate[gate];
}

void tr_callout(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    uint64_t va = tr_va(t);
    struct insn *copy = t->insn[t->k].trap
                            ? bt_trapper(t->bt, i, va, tr_page(t, &t->insn[t->k]))
                            : bt_meta_alloc(t->bt, sizeof(*copy));

    tr_flags_to_mem(t);
    if (!MUTANT(KEEPS_HELD))
        tr_forget_held(t);
    tr_lend_swap(t);
    if (!copy) {
        e->full = true;
        return;
    }
    if (!t->insn[t->k].trap)
        *copy = *i;
    t->callouts++;
    if (tr_counted(t))
        e_gs_imm(e, W32, GS(bt.owed), (int32_t)(t->n - t->k));
    e_mov_imm(e, T0, va);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(rip));
    e_mov_imm(e, T0, (uint64_t)(uintptr_t)copy);
    tr_lea_next(t, 5 + MUTANT(CALLOUT_BACK));
    e_jmp(e, callout_stub(t, i));
    tr_lend_swap(t);
}

/* --- entries --- */

/* Has the page been checked in this epoch? */
static void check_page(struct tr *t, const struct vpage *p) {
    const uint8_t *again = e_here(&t->e);
    struct cold *c;

    e_gs(&t->e, W64, OPC_MOV_R_RM, T1,
         p->global ^ MUTANT(EPOCH) ? GS(bt.epoch_global) : GS(bt.epoch_user));
    e_abs(&t->e, W64, OPC_CMP_R_RM, T1, &p->valid);
    c = tr_cold_add(t, COLD_CHECK, NULL);
    c->rel32 = e_jcc_fwd(&t->e, CC_NE);
    c->cont = again;
    c->page = p;
}

/* Does the fragment count its executions? */
bool tr_heats(const struct tr *t) {
    return t->bt->opt.hot && !t->hot && !(t->key & KEY_SINGLE);
}

/* Expansions of ours that use the host's flags for something else. */
static bool spoils_flags(const struct insn *i) {
    return i->op == OP_rdtsc || i->op == OP_rdtscp || i->op == OP_cli ||
           i->op == OP_sti || i->op == OP_clac || i->op == OP_stac || i->op == OP_pushf ||
           i->op == OP_popf;
}

/* Where the flags should be when the body starts: where its first need of them is. */
static enum flags_place start_place(const struct tr *t) {
    if (!t->insn[0].live_in)
        return FLAGS_DEAD;
    if (tr_heats(t))
        return FLAGS_MEM;
    for (unsigned k = 0; k < t->n; k++) {
        const struct insn *i = &t->insn[k].i;
        bool mem = i->op == OP_call || i->op == OP_ret || i->op == OP_push ||
                   i->op == OP_pop || i->op == OP_leave || spoils_flags(i);

        for (unsigned j = 0; j < i->nops; j++)
            mem |= i->opnd[j].kind == OPND_MEM && i->mem.size;
        if (mem || clobbers_by_callout(i))
            return FLAGS_MEM;
        if (tr_pack_flags(i->fl_read | i->fl_written | i->fl_undefined))
            return FLAGS_REGS;
    }
    return FLAGS_REGS;
}

/* gs:[OFF] += N, without touching the flags. Spoils T1. */
static void emit_count(struct tr *t, size_t off, unsigned n) {
    e_gs(&t->e, W64, OPC_MOV_R_RM, T1, off);
    e_lea(&t->e, W64, T1, T1, REG_ZERO, 0, (int32_t)n);
    e_gs(&t->e, W64, OPC_MOV_RM_R, T1, off);
}

/* A path that has gone back on its way, by a branch that is none in the fragment, may end
 * with a link forward to its own start: then it is the path that has to poll. */
static bool goes_back(const struct tr *t) {
    for (unsigned k = 1; k < t->n; k++)
        if (t->insn[k].va <= t->insn[k - 1].va)
            return true;
    return false;
}

static void emit_entries(struct tr *t) {
    struct ccf *c = t->c;
    enum flags_place start = start_place(t);
    uint8_t *over = NULL;

    t->place = FLAGS_MEM;
    t->k = 0;
    c->entry_jump = e_here(&t->e);
    if (c->va == (uint64_t)(int32_t)c->va) {
        e_ri(&t->e, W64, EXT_CMP, T0, (int32_t)c->va);
    } else {
        e_mov_imm(&t->e, T1, c->va);
        e_rr(&t->e, W64, OPC_CMP_R_RM, T0, T1);
    }
    e_jcc(&t->e, CC_NE, t->bt->stub_indirect);
    if (t->bt->opt.count)
        emit_count(t, GS(bt.indirect_hits), 1);
    c->entry_check = e_here(&t->e);
    check_page(t, c->vp);
    if (c->vp2)
        check_page(t, c->vp2);
    c->entry_mem = e_here(&t->e);
    if (start == FLAGS_MEM) {
        over = e_jmp_fwd(&t->e);
        c->entry_regs = e_here(&t->e);
        bt_emit_save(&t->e);
        e_land(&t->e, over);
    } else {
        if (start == FLAGS_REGS)
            tr_emit_restore(&t->e);
        c->entry_regs = e_here(&t->e);
    }
    t->place = start;
    t->head = start;
    tr_lend_swap(t);
    t->loop_head = e_here(&t->e);
    if (tr_heats(t))
        tr_count_heat(t);
    tr_take_fuel(t);
    if (tr_loops(t) || goes_back(t))
        tr_poll(t, POLL_HERE, 0);
    if (t->bt->opt.count)
        emit_count(t, GS(bt.count), t->n);
}

static void emit_cold_check(struct tr *t, const struct cold *c) {
    struct emit *e = &t->e;

    e_land(e, c->rel32);
    e_mov_imm(e, T0, (uint64_t)(uintptr_t)(c->page + MUTANT(CHECK_OTHER)));
    tr_lea_to(t, c->cont);
    e_jmp(e, t->bt->stub_check);
}

static void emit_cold(struct tr *t) {
    for (unsigned n = 0; n < t->ncold; n++) {
        const struct cold *c = &t->cold[n];

        switch (c->kind) {
        case COLD_SLOW:
        case COLD_ANCHOR:
        case COLD_FIXED:
            tr_place_slow(t, c);
            break;
        case COLD_EXIT:
            tr_place_exit(t, c);
            break;
        case COLD_RET:
            tr_place_ret(t, c);
            break;
        case COLD_CALLOUT:
            tr_place_callout(t, c);
            break;
        case COLD_HOT:
            tr_place_hot(t, c);
            break;
        case COLD_CHECK:
            emit_cold_check(t, c);
            break;
        }
    }
    if (t->c->page2) {
        t->c->entry_save = e_here(&t->e);
        bt_emit_save(&t->e);
        e_jmp(&t->e, t->c->entry_check);
    }
    for (unsigned n = 0; n < t->c->nlinks; n++)
        tr_place_link(t, n);
}

/* --- the TU --- */

static bool sti_last(const struct tr *t) {
    return t->n < BT_TU_MAX && t->insn[t->n - 1].i.op == OP_sti;
}

/* Decodes from the page at C->page; the first instruction may cross into page2.
 * False: fault. */
static bool build_tu(struct tr *t) {
    struct vcpu *v = t->bt->v;
    struct ccf *c = t->c;
    unsigned at = c->va & 4095;
    uint8_t bytes[15];
    unsigned off = 0;

    while (t->n < t->bt->opt.tu_limit || sti_last(t)) {
        struct tu_insn *u = &t->insn[t->n];
        unsigned room = 4096 - at - off;
        enum decode_result r;

        if (!room)
            break;
        r = decode_insn(KEY_MODE(t->key), c->page + at + off, room < 15 ? room : 15,
                        &u->i);
        if (r != DECODE_OK) {
            const uint8_t *rest;

            if (t->n)
                break;
            if (r == DECODE_TOO_LONG)
                return false;
            /* Beyond the end of the linear space is the limit, or page 0 by a wrap. */
            if (KEY_MODE(t->key) != MODE_64 && (c->va | 4095) >= UINT32_MAX)
                return false;
            /* Crosses: the fault, if any, is that of the next page's first byte. */
            rest = mmu_fetch(v, gva((c->va | 4095) + 1));
            if (!rest)
                return false;
            vec_park(v);
            __builtin_memcpy(bytes, c->page + at, room);
            __builtin_memcpy(bytes + room, rest, 15 - room);
            r = decode_insn(KEY_MODE(t->key), bytes, 15, &u->i);
            if (r != DECODE_OK || mem_gpa(v->mem, rest).a == ~0ull)
                return false;
            c->page2 = (uint8_t *)(uintptr_t)rest;
        }
        sem_bind(v, &u->i);
        u->va = c->va + off;
        u->follow = FOLLOW_NONE;
        off += u->i.len;
        t->n++;
        /* The shadow of STI covers the next instruction: keep them together. */
        if (((u->i.flags & INSN_ENDS_BLOCK) && u->i.op != OP_sti) || c->page2 ||
            off > 200)
            break;
    }
    c->guest_len = (uint16_t)off;
    return true;
}

static void expand(struct tr *t) {
    for (t->k = 0; t->k < t->n && !t->ended; t->k++) {
        const struct insn *i = &t->insn[t->k].i;
        xl_fn *fn = tr_expansion(i);

        tr_site(t, POLL_NONE, 0);
        if (fn && !t->insn[t->k].trap)
            fn(t, i);
        else
            tr_callout(t, i);
        tr_group_step(t, i);
    }
    if (!t->ended) {
        t->k = t->n - 1;
        tr_link(t, t->c->nlinks, tr_next_va(t));
    }
}

/* Copies what the fragment keeps; false when the cache is full. */
static bool finish(struct tr *t, uint8_t *start) {
    struct bt *bt = t->bt;

    if (t->e.full) {
        bt->full = true;
        return false;
    }
    t->c->sites = bt_meta_alloc(bt, t->nsites * sizeof(struct site));
    if (!t->c->sites)
        return false;
    __builtin_memcpy(t->c->sites, t->sites, t->nsites * sizeof(struct site));
    t->c->nsites = (uint16_t)t->nsites;
    t->c->ninsns = (uint8_t)t->n;
    t->c->end = e_here(&t->e);
    if (unlikely(bt->opt.verify) && !bt_verify_new(bt, t->c))
        return false;
    bt->code_at = (uint8_t *)(((uintptr_t)t->e.p + 15) & ~15ul);
    bt_insert(bt, t->c);
    bt_note_made(bt, t->c);
    bt->v->cnt->bt_insns += t->n;
    bt->v->cnt->bt_insns_ident += t->ident;
    bt->v->cnt->bt_insns_operand += t->operand;
    bt->v->cnt->bt_insns_callout += t->callouts;
    return true;
}

/* Room for every exit that the instructions may have: two at the end, and a path's. */
static bool alloc_links(struct tr *t) {
    unsigned n = 2;

    for (unsigned k = 0; k < t->n; k++)
        n += t->insn[k].i.op == OP_jcc && t->insn[k].follow != FOLLOW_NONE;
    t->c->links = bt_meta_alloc(t->bt, n * sizeof(struct link));
    return t->c->links;
}

static bool alloc_pieces(struct tr *t) {
    struct ccf *c = t->c;

    if (!t->npieces)
        return true;
    c->pieces = bt_meta_alloc(t->bt, t->npieces * sizeof(struct piece));
    if (!c->pieces)
        return false;
    __builtin_memcpy(c->pieces, t->pieces, t->npieces * sizeof(struct piece));
    c->npieces = (uint8_t)t->npieces;
    for (unsigned n = 0; n < t->npieces; n++)
        c->guest_len += t->pieces[n].to - t->pieces[n].from;
    return true;
}

/* Everything but the instructions. */
static void begin(struct bt *bt, struct ccf *c, bool hot) {
    struct tr *t = bt->tr;

    t->bt = bt;
    t->c = c;
    t->key = c->key;
    t->ident = t->operand = t->callouts = 0;
    t->n = t->k = t->ncold = t->nsites = t->nnamed = t->npieces = 0;
    t->ended = false;
    t->hot = hot;
    tr_forget_held(t);
    t->groups = bt->opt.groups && !(c->key & KEY_SINGLE);
    t->alone = t->plain = t->sole = t->ours = false;
    t->live_loop = t->live_exit = tr_pack_flags(FLAGS_ALL);
    __builtin_memset(t->version, 0, sizeof(t->version));
    t->e = (struct emit){.p = bt->code_at, .end = bt->code_end, .delta = bt_delta(bt)};
}

/* The pages that the instructions lie on, and their records. */
static bool build(struct tr *t, bool *fault) {
    struct bt *bt = t->bt;
    struct ccf *c = t->c;
    bool user = c->key & KEY_USER;

    c->vp = bt_vpage(bt, c->va, c->page, user);
    if (!c->vp)
        return false;
    vec_park(bt->v);
    if (t->hot)
        return tr_build_path(t);
    if (!build_tu(t)) {
        *fault = true;
        return false;
    }
    if (!c->page2)
        return true;
    c->page2 = (uint8_t *)((uintptr_t)c->page2 & ~4095ul);
    c->vp2 = bt_vpage(bt, c->va + 4096, c->page2, user);
    return c->vp2;
}

/* Instructions that are known to trap, and become callouts. */
static void mark_traps(struct tr *t) {
    for (unsigned k = 0; k < t->n; k++) {
        struct tu_insn *u = &t->insn[k];

        u->trap = bt_traps(t->bt, &u->i, u->va, tr_page(t, u));
    }
}

static struct ccf *translate(struct bt *bt, uint32_t key, bool hot, bool *fault) {
    struct vcpu *v = bt->v;
    struct tr *t = bt->tr;
    const uint8_t *code = mmu_fetch(v, gva(v->rip));
    struct ccf *c;

    *fault = true;
    if (!code || mem_gpa(v->mem, code).a == ~0ull)
        return NULL;
    *fault = false;
    c = bt_meta_alloc(bt, sizeof(*c));
    if (!c)
        return NULL;
    __builtin_memset(c, 0, sizeof(*c));
    c->va = v->rip;
    c->page = (uint8_t *)((uintptr_t)code & ~4095ul);
    c->key = key;
    c->hot = hot;
    c->code = bt->code_at + bt_delta(bt);
    begin(bt, c, hot);
    if (!build(t, fault) || !alloc_links(t) || !alloc_pieces(t))
        return NULL;
    mark_traps(t);
    find_liveness(t);
    if (tr_loops(t)) { /* less is needed at its start than was assumed */
        t->live_loop = t->insn[0].live_in;
        find_liveness(t);
    }
    tr_lend(t);
    emit_entries(t);
    expand(t);
    emit_cold(t);
    if (!finish(t, bt->code_at))
        return NULL;
    if (!hot && !(key & KEY_SINGLE))
        *bt_heat(bt, c->va) = bt->opt.hot;
    return c;
}

/* With the time that it takes, and without a trace if it fails. */
static struct ccf *timed(struct bt *bt, uint32_t key, bool hot, bool *fault) {
    uint64_t start = __builtin_ia32_rdtsc();
    uint8_t *meta = bt->meta_at;
    struct ccf *c;

    bt->full = false;
    c = translate(bt, key, hot, fault);
    if (!c) {
        bt->meta_at = meta;
        if (bt->unsound || (bt->full && bt_unit_empty(bt))) /* it never fits */
            *fault = true;
    }
    bt->v->cnt->bt_translator_ticks += __builtin_ia32_rdtsc() - start;
    return c;
}

struct ccf *bt_translate(struct bt *bt, uint32_t key, bool *fault) {
    return timed(bt, key, false, fault);
}

void bt_heat_up(struct bt *bt, struct ccf *c) {
    const uint8_t *code = mmu_fetch(bt->v, gva(c->va));
    bool fault;

    if (c->dead || !code || (uint8_t *)((uintptr_t)code & ~4095ul) != c->page || c->page2)
        return;
    if (timed(bt, c->key, true, &fault)) {
        bt->v->cnt->bt_hot_paths++;
        bt_drop(bt, c, BT_WHY_NONE);
    } else if (bt->full) { /* C may be evicted: try again when what comes is hot */
        *bt_heat(bt, c->va) = bt->opt.hot;
        bt_make_room(bt);
    }
}
