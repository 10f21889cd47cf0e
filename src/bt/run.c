/*
 * The dispatcher: finds or makes the fragment for the guest's rip, enters the cache, and
 * deals with whatever made translated code come back.
 */
#include "base/bug.h"
#include "bt/bt_int.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "sem/sem.h"
#include "x86/exception.h"

/* A branch to a non-canonical address faults itself: takes back what its expansion did to
 * the registers, and says that v->fault is set. False: the interpreter is to find out.
 * The branch cannot be executed again, for a call may have stored its return address
 * where its operand was; processors store it too. */
static bool undo_branch(struct vcpu *v) {
    const struct bt *bt = bt_of(v);
    const uint8_t *at = bt->sh->env.code.rx + tr_vcpu(v)->site;
    struct insn i;
    uint8_t bytes[15];

    bt_set_rip(v, tc_find(&bt->sh->tc, at), at);
    tr_vcpu(v)->owed = 0;
    if (v->counted)
        v->cnt->insns_retired--;
    vec_park(v);
    if (mmu_read_slow(v, gva(v->rip), bytes, 1, false))
        return false;
    for (unsigned n = 1; n < sizeof(bytes); n++)
        if (mmu_read_slow(v, gva(v->rip + n), &bytes[n], 1, false))
            bytes[n] = 0;
    if (decode_insn(MODE_64, bytes, sizeof(bytes), &i) != DECODE_OK)
        return false;
    if (i.op == OP_call)
        v->gpr[REG_RSP] += i.opsize;
    else if (i.op == OP_ret)
        v->gpr[REG_RSP] -= i.opsize + (i.nops ? (uint16_t)i.imm : 0u);
    v->fault = (struct fault){.vector = X86_GP, .has_error = true};
    return true;
}

/* Why there is no fragment. */
enum lack {
    LACK_NOTHING,
    LACK_CODE,  /* it cannot be fetched, or is not for translated code */
    LACK_ROOM,  /* in the cache */
    LACK_TABLE, /* of indirect branches, for the vCPU's key */
};

/* The fragment for the guest's rip, a SHARED one if so wanted; or NULL, and why. */
static struct ccf *find(struct bt *bt, bool shared, enum lack *lack) {
    struct vcpu *v = bt->v;
    uint32_t key = tr_key(v);
    const uint8_t *code = mmu_fetch(v, gva(v->rip));
    const uint8_t *page = (const uint8_t *)((uintptr_t)code & ~4095ul);
    bool fault = false;
    struct ccf *c;

    *lack = LACK_CODE;
    if (!code)
        return NULL;
    tr_vcpu(v)->here = v->rip & ~4095ull;
    bt_note_deaths(bt);
    *lack = LACK_TABLE;
    if (unlikely(!tc_select_key(&bt->sh->tc, v, key)))
        return NULL;
    c = shared ? NULL : bt_find_path(bt, page, key);
    if (!c)
        c = bt_find_shared(bt, page, key, &fault);
    if (!c && !fault)
        c = bt_translate(bt, key, &fault);
    if (unlikely(c && c->dead)) { /* its second page has a breakpoint: look again */
        *lack = LACK_NOTHING;
        return NULL;
    }
    *lack = c ? LACK_NOTHING : fault ? LACK_CODE : LACK_ROOM;
    return c;
}

/* FUEL instructions may be begun, in a counted run. */
static void enter(struct bt *bt, const uint8_t *rx, uint64_t fuel) {
    struct vcpu *v = bt->v;
    void (*go)(const uint8_t *rx) =
        (void (*)(const uint8_t *))(uintptr_t)bt->sh->env.stub.enter;

    bt_hold(bt);
    bt_flags_in(v);
    vec_load(v);
    v->cnt->bt_entries++;
    tr_vcpu(v)->fuel = tr_vcpu(v)->mark = (uint64_t)(uintptr_t)bt->fuel + fuel;
    tr_vcpu(v)->owed = 0;
    tr_vcpu(v)->borrowed_by = NULL;
    go(rx);
    BUG_ON(!vcpu_intact(v));
    bt_settle_count(v);
    if (tr_vcpu(v)->borrowed_by)
        tr_give_back(v, tr_vcpu(v)->borrowed_by);
    bt_sync_bank(v);
    bt_flags_out(v);
}

/* SEM_FAULT is delivered; true: shutdown. */
static bool settle(struct vcpu *v, uint32_t status) {
    return status == SEM_SHUTDOWN ||
           (status == SEM_FAULT && sem_deliver(v) == SEM_SHUTDOWN);
}

/* What C takes at once, itself or by the path for all addresses that its head leads to.
 */
static unsigned takes(const struct ccf *c) {
    const struct ccf *p = c->paths;

    return p && !p->code.fixed && p->code.ninsns > c->code.ninsns ? p->code.ninsns
                                                                  : c->code.ninsns;
}

/* How far translated code may go from C on: C alone, or until the run has to stop. */
static uint64_t fuel_for(const struct bt *bt, const struct ccf *c) {
    uint64_t left = vcpu_left(bt->v);

    if (bt->v->step)
        return takes(c);
    return left < BT_FUEL - 8 ? left : BT_FUEL - 8;
}

/* What is to lead straight to the next fragment from now on. */
struct lead {
    struct link *link; /* NULL: none */
    bool indirect;     /* an indirect branch to its address */
    struct ccf * not ; /* what led there led to this one, of another page */
};

/* The checks of NOT failed, and C is what goes on: if it was no entry of the jump table
 * that led there, links did, and those are to lead to what is mapped now. */
static void mislead(struct bt *bt, struct ccf * not, const struct ccf *c) {
    bool by_table = tc_jump_target(bt->v, bt->v->rip) == not ->code.entry_jump;

    if (not != c && not != c->shared && !by_table)
        tc_unlink_in(&bt->sh->tc, not );
}

/* The fragment to go on with, and what is to lead straight to it does so. NULL, with
 * *FAULT, or after room was made (look again). */
static struct ccf *next(struct bt *bt, struct lead *lead, bool *fault) {
    enum lack lack;
    struct ccf *c;

    bt_lock(bt);
    /* Shared code leads to shared code, and by its head to hot paths. */
    c = find(bt, lead->link && !lead->link->from->fixed, &lack);
    if (c && lead->link)
        tc_link(&bt->sh->tc, lead->link, c);
    if (c && lead->not )
        mislead(bt, lead->not, c);
    if (c && lead->indirect && bt->sh->opt.chain)
        tc_jump_insert(&bt->sh->tc, bt->v, bt->v->rip, c);
    bt_unlock(bt);
    lead->link = NULL; /* without C they may be gone */
    lead->not = NULL;
    if (c)
        lead->indirect = false;
    if (lack == LACK_ROOM)
        bt_make_room(bt);
    else if (lack == LACK_TABLE)
        bt_renew_tables(bt);
    *fault = lack == LACK_CODE;
    return c;
}

/* A branch whose target, which is in rip, was not where it was looked for. */
static bool no_target(struct bt *bt, struct lead *lead, enum bt_out *out) {
    struct vcpu *v = bt->v;

    if (likely(bt_canonical(v, v->rip))) {
        lead->indirect = true;
        return true;
    }
    if (!tr_vcpu(v)->site || !undo_branch(v)) { /* a link's faults at its target */
        *out = BT_OUT_INTERPRET;
        return false;
    }
    v->cnt->bt_leave_fault++;
    if (settle(v, SEM_FAULT))
        *out = BT_OUT_SHUTDOWN;
    return false;
}

/* A callout, or a host fault, has left tr_vcpu.status. */
static void take_status(struct bt *bt, enum bt_out *out) {
    bt->v->cnt->bt_leave_fault++;
    if (bt->faulted)
        bt_division_faulted(bt, bt->faulted);
    bt->faulted = NULL;
    if (settle(bt->v, tr_vcpu(bt->v)->status))
        *out = BT_OUT_SHUTDOWN;
}

/* Deals with what made translated code come back. False: C cannot send it on, and *OUT,
 * which is BT_OUT_EVENTS, may be something else. */
static bool send_on(struct bt *bt, struct lead *lead, enum bt_out *out) {
    struct vcpu *v = bt->v;
    const struct tr_code *hot;

    switch (tr_vcpu(v)->reason) {
    case BT_LEAVE_LINK:
        v->cnt->bt_leave_link++;
        lead->link = tr_record_at(&bt->sh->env, tr_vcpu(v)->arg);
        v->rip = tr_link_target(lead->link, tr_vcpu(v)->here);
        return true;
    case BT_LEAVE_INDIRECT:
        v->cnt->bt_leave_indirect++;
        return no_target(bt, lead, out);
    case BT_LEAVE_CHECK:
        v->cnt->bt_leave_check++;
        lead->not = tc_find(&bt->sh->tc, (const uint8_t *)(uintptr_t)tr_vcpu(v)->arg);
        return no_target(bt, lead, out);
    case BT_LEAVE_FUEL:
        return true;
    case BT_LEAVE_HOT:
        hot = tr_record_at(&bt->sh->env, tr_vcpu(v)->arg);
        v->rip = tr_start_va(hot, tr_vcpu(v)->here);
        bt_heat_up(bt, tc_ccf(hot));
        return true;
    case BT_LEAVE_EMULATE:
        v->cnt->bt_emulated++;
        *out = BT_OUT_INTERPRET;
        return false;
    case BT_LEAVE_STATUS:
        take_status(bt, out);
        return false;
    case BT_LEAVE_POLL:
        /* A kick that was half done when bt_ready() opened the page has closed it since
         * without a word. */
        __atomic_store_n(&bt->poll_closed, true, __ATOMIC_SEQ_CST);
        v->cnt->bt_leave_poll++;
        return false;
    default: /* NEXT */
        v->cnt->bt_leave_next++;
        return false;
    }
}

/* A step: what faults, or may, is one of its own. */
static bool step_ends(const struct vcpu *v, uint64_t retired) {
    return v->step && v->cnt->insns_retired != retired &&
           (tr_vcpu(v)->reason == BT_LEAVE_EMULATE ||
            tr_vcpu(v)->reason == BT_LEAVE_STATUS);
}

/* Something waits that is to be seen now. An interrupt that the guest holds back is not:
 * it may do so for long (GRUB does while it runs), and what would lead to the next
 * fragment at once is made below. */
static bool waits(const struct vcpu *v) {
    uint32_t events = vcpu_events(v);

    return (events & ~(uint32_t)VCPU_EVENT_IRQ) || (events && (v->rflags & X86_FL_IF));
}

enum bt_out bt_go(struct bt *bt, uint64_t *count) {
    struct vcpu *v = bt->v;
    struct lead lead = {0};
    enum bt_out out = BT_OUT_EVENTS;
    uint64_t retired;

    *count = 1;
    do {
        bool fault;
        struct ccf *c = next(bt, &lead, &fault);

        if (unlikely(bt->sh->unsound))
            return BT_OUT_EVENTS;
        if (!c && fault) /* the interpreter raises what this is, in the right order */
            return BT_OUT_INTERPRET;
        if (!c)
            continue;
        if (unlikely(bt->watch))
            bt->watch(bt->watch_arg, c);
        if (unlikely(v->counted && vcpu_left(v) < takes(c))) {
            *count = vcpu_left(v);
            return BT_OUT_INTERPRET;
        }
        retired = v->cnt->insns_retired;
        enter(bt, c->code.entry_mem, fuel_for(bt, c));
        if (unlikely(step_ends(v, retired)) || !send_on(bt, &lead, &out))
            return out;
        if (waits(v) || v->step || bt_is_away(v))
            return BT_OUT_EVENTS;
    } while (true);
}

bool bt_ready(struct bt *bt) {
    bt_poll_open(bt);
    if (unlikely(bt->sh->unsound)) /* it has been told */
        return false;
    while (unlikely(__atomic_load_n(&bt->sh->closed, __ATOMIC_SEQ_CST)))
        bt_stay_out(bt);
    if (unlikely(bt->waits))
        bt_yield(bt);
    bt_review(bt, __builtin_ia32_rdtsc());
    return true;
}

int bt_begin(struct bt *bt) {
    int rc = os_signal_stack();

    if (!rc)
        rc = os_gs_base(bt->v);
    if (rc)
        return rc;
    bt->v->shadow.bank = bt->v->mmu->data;
    bt->v->shadow.code = bt->v->mmu->code;
    vcpu_forget_gates(bt->v);
    __atomic_store_n(&bt->in_tc, true, __ATOMIC_SEQ_CST);
    return 0;
}

void bt_end(struct bt *bt) {
    struct vcpu *v = bt->v;

    __atomic_store_n(&bt->in_tc, false, __ATOMIC_SEQ_CST);
    bt_let_go(bt);
    if (v->halted)
        bt_recent_idle(bt);
    v->cnt->insns_retired += tr_vcpu(v)->count;
    tr_vcpu(v)->count = 0;
    v->cnt->bt_indirect_hits += tr_vcpu(v)->indirect_hits;
    tr_vcpu(v)->indirect_hits = 0;
    v->cnt->bt_gates += tr_vcpu(v)->gates;
    tr_vcpu(v)->gates = 0;
}
