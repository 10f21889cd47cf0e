/*
 * What translated code leaves to C one instruction at a time, and how it goes on
 * afterwards.
 *
 * A callout executes an instruction through its function in sem/. When that changes what
 * comes next (a system call, IRET, a load of CR3, an exception), the dispatcher would
 * look the next fragment up and enter the cache anew. bt_stay() does the same from here,
 * where everything that the dispatcher would see to is quiet and the fragment exists:
 * then the cache is not left at all. The same holds for an instruction whose memory
 * access an inline check refused, and which the interpreter executes (bt_emulate()).
 */
#include "base/bug.h"
#include "bt/bt_int.h"
#include "cpu/vec.h"
#include "interp/interp.h"
#include "sem/sem.h"
#include "x86/msr.h"

/* --- going on --- */

/* SEM_STOP of these changes neither what code is next nor how it is translated, as long
 * as the key is the same: translated code may go on. */
static bool goes_on(const struct vcpu *v, const struct insn *i) {
    switch (i->op) {
    case OP_cli:
    case OP_sti:
    case OP_clac:
    case OP_stac:
    case OP_popf:
    case OP_in:
    case OP_out:
    case OP_swapgs:
    case OP_lgdt:
    case OP_lidt:
    case OP_clts:
        return true;
    case OP_mov_to_cr: /* CR2 and CR8 */
        return i->opnd[0].reg == 2 || i->opnd[0].reg == 8;
    case OP_wrmsr:
        return (uint32_t)v->gpr[REG_RCX] != X86_MSR_EFER &&
               (uint32_t)v->gpr[REG_RCX] != X86_MSR_APIC_BASE;
    default:
        return false;
    }
}

static void advance(struct vcpu *v, unsigned len) {
    v->rip += len;
    if (v->mode != MODE_64)
        v->rip = (uint32_t)v->rip;
}

/* Nothing waits that the dispatcher would have to see now. */
static bool quiet(const struct bt *bt) {
    const struct vcpu *v = bt->v;
    uint32_t events = vcpu_events(v);

    if (events & ~(uint32_t)VCPU_EVENT_IRQ)
        return false;
    if (events && (v->rflags & X86_FL_IF))
        return false;
    return !(v->rflags & (X86_FL_TF | X86_FL_RF)) && !v->pending_db && !v->leave_code &&
           !v->halted && !bt_code_died(bt);
}

/* Where translated code goes on at the guest's rip, when nothing waits; else NULL, and
 * the dispatcher is to see to it. It is the jump table's entry, which checks for itself
 * whether it is the right one. T0 is to be the guest's rip. */
static uint8_t *stay(struct bt *bt) {
    struct vcpu *v = bt->v;
    uint8_t *rx;

    bt_drop_rf(v);
    if (!bt->sh->opt.tr.stay || v->step || !quiet(bt) || v->irq_shadow ||
        (v->dr[7] & 0xff) || bt->watch || bt_is_away(v) || !tr_translatable(v))
        return NULL;
    bt_note_deaths(bt);
    if (unlikely(!bt_select_key(bt, tr_key(v))))
        return NULL;
    rx = tc_jump_target(v, v->rip);
    if (rx) {
        bt_flags_in(v);
        vec_load(v);
    }
    return rx;
}

/* After an instruction that ended with RC: where translated code goes on, or NULL with
 * the reason for the dispatcher. */
static uint8_t *settle(struct bt *bt, int rc) {
    struct vcpu *v = bt->v;
    uint8_t *rx;

    if (rc == SEM_FAULT && v->step) {
        tr_vcpu(v)->reason = BT_LEAVE_EMULATE; /* it comes again, as a step of its own */
        bt_flags_in(v);
        return NULL;
    }
    if (rc == SEM_FAULT)
        rc = sem_deliver(v);
    if (rc == SEM_SHUTDOWN) {
        tr_vcpu(v)->reason = BT_LEAVE_STATUS;
        tr_vcpu(v)->status = SEM_SHUTDOWN;
    } else {
        rx = stay(bt);
        if (rx)
            return rx;
        tr_vcpu(v)->reason = BT_LEAVE_NEXT;
    }
    bt_flags_in(v); /* the dispatcher takes them from there */
    return NULL;
}

int bt_callout(struct vcpu *v, const struct insn *i) {
    struct bt *bt = bt_of(v);
    uint8_t *rx;
    int rc;

    BUG_ON(!tc_is_insn(&bt->sh->tc, i));
    bt_sync_bank(v);
    bt_flags_out(v);
    bt_settle_count(v);
    v->leave_code = false;
    v->irq_shadow = false; /* of the instruction before */
    do                     /* a repeated string operation comes back after each piece */
        rc = i->exec(v, i);
    while (rc == SEM_REPEAT && quiet(bt));
    v->cnt->bt_callouts++;
    bt->callouts[i->op]++;
    if (unlikely(i->op == OP_div || i->op == OP_idiv))
        bt_division_done(bt, v->rip, rc == SEM_FAULT);
    if ((rc == SEM_NEXT || (rc == SEM_STOP && goes_on(v, i))) && quiet(bt) &&
        (!v->irq_shadow || i->op == OP_sti) && tr_key(v) == tr_vcpu(v)->key) {
        bt_flags_in(v);
        vec_load(v);
        tr_vcpu(v)->owed = 0;
        return 0;
    }
    bt_return_owed(v, rc == SEM_NEXT || rc == SEM_STOP || rc == SEM_BRANCH);
    if (rc == SEM_NEXT || rc == SEM_STOP)
        advance(v, i->len);
    rx = settle(bt, rc);
    if (!rx)
        return 1;
    tr_vcpu(v)->resume = (uint64_t)(uintptr_t)rx;
    return 0;
}

/* What tr_key() is made of besides the CPL and what comes with it. */
static inline uint32_t surroundings(const struct vcpu *v) {
    return v->mode | (uint32_t)v->stack32 << 8 | (uint32_t)v->seg_flat_r << 16 |
           (uint32_t)v->seg_flat_w << 24;
}

uint8_t *bt_transfer(struct vcpu *v, const struct insn *i) {
    struct bt *bt = bt_of(v);
    uint32_t before = surroundings(v), from = tr_vcpu(v)->key, key;
    unsigned cpl = v->cpl;
    bool crosses;

    BUG_ON(!tc_is_insn(&bt->sh->tc, i));
    bt_sync_bank(v);
    bt_flags_out(v);
    v->irq_shadow = false;
    if (unlikely(i->exec(v, i) != SEM_BRANCH))
        return NULL; /* a fault: nothing has changed */
    v->cnt->bt_callouts++;
    bt->callouts[i->op]++;
    bt_flags_in(v);
    tr_vcpu(v)->reason = BT_LEAVE_NEXT;
    if (unlikely(vcpu_events(v) || v->pending_db || (v->dr[7] & 0xff) ||
                 (v->rflags & (X86_FL_TF | X86_FL_RF)) || bt->watch || bt_is_away(v) ||
                 !tr_translatable(v)))
        return bt->sh->env.stub.leave;
    /* From CPL 3 to 0 or back, and nothing else: the key differs in just that. */
    crosses = before == surroundings(v) && (cpl ^ v->cpl) == 3;
    key = tr_vcpu(v)->key ^ (KEY_USER | KEY_CPL0);
    if (unlikely(!crosses || (v->cr4 & X86_CR4_TSD)))
        key = tr_key(v);
    if (unlikely(!bt_select_key(bt, key)))
        return bt->sh->env.stub.leave;
    if (crosses)
        bt_gate_keep(bt, i, from);
    vec_load(v);
    uint8_t *rx = tc_jump_target(v, v->rip);
    return likely(rx) ? rx : bt->sh->env.stub.leave;
}

/* A range that was checked for several accesses at once is not all there. Where a
 * fragment with a check for each of them goes on at the guest's rip; NULL: there is none.
 */
static uint8_t *go_single(struct bt *bt) {
    struct vcpu *v = bt->v;
    uint32_t key = tr_vcpu(v)->key | KEY_SINGLE;
    const uint8_t *code = mmu_hit(v->mmu->code, gva(v->rip), 1, MMU_EXEC);
    bool fault;
    struct ccf *c;

    if (!code)
        return NULL;
    bt_lock(bt);
    c = tc_lookup(&bt->sh->tc, v->rip, (uint8_t *)((uintptr_t)code & ~4095ul), key);
    if (!c)
        c = bt_translate(bt, key, &fault);
    bt_unlock(bt);
    if (!c || c->code.page2)
        return NULL;
    tr_vcpu(v)->here = v->rip & ~4095ull;
    v->cnt->bt_singles++;
    vec_load(v);
    return c->code.entry_mem;
}

uint8_t *bt_emulate(struct vcpu *v) {
    struct bt *bt = bt_of(v);
    uint64_t stop = v->stop, retired;
    bool known = tr_vcpu(v)->fault_known, single = tr_vcpu(v)->single;
    uint8_t *rx;
    int rc;

    tr_vcpu(v)->fault_known = tr_vcpu(v)->single = false;
    if (!bt->sh->opt.tr.stay || v->step || bt->watch)
        return NULL; /* BT_LEAVE_EMULATE */
    if (tr_vcpu(v)->borrowed_by)
        tr_give_back(v, tr_vcpu(v)->borrowed_by);
    tr_vcpu(v)->borrowed_by = NULL;
    bt_flags_out(v);
    v->leave_code = false;
    bt_settle_count(v);
    bt_return_owed(v, false);
    rx = single ? go_single(bt) : NULL;
    if (rx)
        return rx;
    if (single)
        bt_note_trap(bt, BT_TRAP_RANGE);
    v->cnt->bt_emulated += !known;
    v->cnt->bt_faults += known;
    retired = v->cnt->insns_retired;
    rc = known ? SEM_FAULT : interp_one(bt->ip);
    tr_vcpu(v)->fuel -= v->cnt->insns_retired - retired;
    tr_vcpu(v)->mark = tr_vcpu(v)->fuel;
    rx = settle(bt, rc);
    if (rx && v->stop != stop) { /* a device has moved it */
        tr_vcpu(v)->reason = BT_LEAVE_NEXT;
        return NULL;
    }
    return rx;
}
