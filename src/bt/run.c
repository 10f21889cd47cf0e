/*
 * The dispatcher: finds or makes the fragment for the guest's rip, enters the cache, and
 * deals with whatever made translated code come back.
 */
#include "base/bug.h"
#include "bt/bt_int.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "interp/interp.h"
#include "sem/sem.h"
#include "x86/exception.h"
#include "x86/msr.h"

/* Instructions of 16-bit code that the interpreter runs before it is asked again. */
#define INTERP_SLICE 64

/* A branch to a non-canonical address faults itself: takes back what its expansion did to
 * the registers, and says that v->fault is set. False: the interpreter is to find out.
 * The branch cannot be executed again, for a call may have stored its return address
 * where its operand was; processors store it too. */
static bool undo_branch(struct vcpu *v) {
    const struct bt *bt = bt_of(v);
    const uint8_t *at = bt->env.code.rx + v->bt.site;
    struct insn i;
    uint8_t bytes[15];

    bt_set_rip(v, tc_find(&bt->tc, at), at);
    v->bt.owed = 0;
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

/* --- the loop --- */

/* What only the interpreter does: traps at every instruction, interrupts. */
static bool needs_care(const struct vcpu *v, uint32_t events) {
    if ((v->rflags & (X86_FL_TF | X86_FL_RF)) || (v->dr[7] & 0xff) || v->irq_shadow ||
        v->pending_db || v->halted)
        return true;
    return ((events & VCPU_EVENT_IRQ) && sem_interruptible(v)) ||
           ((events & VCPU_EVENT_NMI) && !v->nmi_blocked);
}

/* The fragment for the guest's rip; NULL with *FAULT, or after room was made (look
 * again). */
static struct ccf *find(struct bt *bt, bool *fault) {
    struct vcpu *v = bt->v;
    uint32_t key = tr_key(v);
    const uint8_t *code = mmu_fetch(v, gva(v->rip));
    struct ccf *c;

    *fault = !code;
    if (!code)
        return NULL;
    tc_select_key(&bt->tc, key);
    c = tc_lookup(&bt->tc, v->rip, (uint8_t *)((uintptr_t)code & ~4095ul), key);
    if (c && c->code.page2) { /* the second page may be another by now */
        const uint8_t *rest = mmu_fetch(v, gva(c->code.vp2->va));

        if (!rest && !c->code.hot) {
            *fault = true;
            return NULL;
        }
        /* A hot path may leave before it gets there. */
        if (!rest || ((uintptr_t)rest & ~4095ul) != (uintptr_t)c->code.page2)
            c = NULL;
    }
    if (!c)
        c = bt_translate(bt, key, fault);
    if (c) {
        bt_page_checked(v, c->code.vp);
        if (c->code.vp2)
            bt_page_checked(v, c->code.vp2);
    }
    if (!c && !*fault)
        bt_make_room(bt);
    return c;
}

/* FUEL instructions may be begun, in a counted run. */
static void enter(struct bt *bt, const uint8_t *rx, uint64_t fuel) {
    struct vcpu *v = bt->v;
    void (*go)(const uint8_t *rx) =
        (void (*)(const uint8_t *))(uintptr_t)bt->env.stub.enter;

    bt_flags_in(v);
    vec_load(v);
    v->cnt->bt_entries++;
    v->bt.fuel = v->bt.mark = (uint64_t)(uintptr_t)bt->fuel + fuel;
    v->bt.owed = 0;
    v->bt.lent_by = NULL;
    go(rx);
    BUG_ON(!vcpu_intact(v));
    bt_settle_count(v);
    if (v->bt.lent_by)
        tr_unlend(v, v->bt.lent_by);
    bt_sync_bank(v);
    bt_flags_out(v);
}

/* SEM_FAULT is delivered; true: shutdown. */
static bool settle(struct vcpu *v, uint32_t status) {
    return status == SEM_SHUTDOWN ||
           (status == SEM_FAULT && sem_deliver(v) == SEM_SHUTDOWN);
}

/* How far translated code may go from C on: C alone, or until the run has to stop. */
static uint64_t fuel_for(const struct bt *bt, const struct ccf *c) {
    uint64_t left = vcpu_left(bt->v);

    if (bt->v->step)
        return c->code.ninsns;
    return left < BT_FUEL - 8 ? left : BT_FUEL - 8;
}

/* Runs the guest from V->rip until translated code comes back and C cannot send it on. */
static bool run_once(struct bt *bt, enum exit_reason *out) {
    struct vcpu *v = bt->v;
    struct link *link = NULL;
    bool indirect = false;
    uint64_t retired;

    for (;;) {
        bool fault;
        struct ccf *c = find(bt, &fault);

        if (unlikely(bt->unsound))
            return false;
        if (!c) {
            link = NULL;
            if (!fault)
                continue; /* the link may be gone */
            /* The interpreter raises what this is, in the right order. */
            *out = interp_step(bt->ip, 1);
            return *out != EXIT_kick;
        }
        if (link)
            tc_link(&bt->tc, link, c);
        if (indirect && bt->opt.chain)
            tc_jump_insert(&bt->tc, c);
        link = NULL;
        indirect = false;
        if (unlikely(bt->watch))
            bt->watch(bt->watch_arg, c);
        if (unlikely(v->counted && vcpu_left(v) < c->code.ninsns)) {
            *out = interp_step(bt->ip, vcpu_left(v));
            return *out != EXIT_kick;
        }
        retired = v->cnt->insns_retired;
        enter(bt, c->code.entry_mem, fuel_for(bt, c));
        if (unlikely(
                v->step && v->cnt->insns_retired != retired &&
                (v->bt.reason == BT_LEAVE_EMULATE || v->bt.reason == BT_LEAVE_STATUS)))
            return false; /* what faults, or may, is a step of its own */
        switch (v->bt.reason) {
        case BT_LEAVE_LINK:
            v->cnt->bt_leave_link++;
            link = v->bt.arg;
            v->rip = link->target;
            break;
        case BT_LEAVE_INDIRECT:
            if (unlikely(!bt_canonical(v, v->rip))) {
                if (!undo_branch(v)) {
                    *out = interp_step(bt->ip, 1);
                    return *out != EXIT_kick;
                }
                v->cnt->bt_leave_fault++;
                *out = EXIT_shutdown;
                return settle(v, SEM_FAULT);
            }
            v->cnt->bt_leave_indirect++;
            indirect = true;
            break;
        case BT_LEAVE_CHECK:
            /* What led there is to lead to the one for this mapping from now on. */
            v->cnt->bt_leave_check++;
            tc_unlink_in(&bt->tc, v->bt.arg);
            indirect = true;
            break;
        case BT_LEAVE_FUEL:
            break;
        case BT_LEAVE_HOT:
            v->rip = tc_ccf(v->bt.arg)->code.va;
            bt_heat_up(bt, tc_ccf(v->bt.arg));
            break;
        case BT_LEAVE_EMULATE:
            v->cnt->bt_emulated++;
            *out = interp_step(bt->ip, 1);
            return *out != EXIT_kick;
        case BT_LEAVE_STATUS:
            v->cnt->bt_leave_fault++;
            if (bt->faulted)
                bt_division_faulted(bt, bt->faulted);
            bt->faulted = NULL;
            if (settle(v, v->bt.status)) {
                *out = EXIT_shutdown;
                return true;
            }
            return false;
        case BT_LEAVE_POLL:
            /* A kick that was half done when loop() opened the page has closed it since
             * without a word. */
            __atomic_store_n(&bt->poll_closed, true, __ATOMIC_SEQ_CST);
            v->cnt->bt_leave_poll++;
            return false;
        default: /* NEXT */
            v->cnt->bt_leave_next++;
            return false;
        }
        if (vcpu_events(v) || v->step)
            return false;
    }
}

static bool loop(struct bt *bt, enum exit_reason *out) {
    struct vcpu *v = bt->v;
    uint32_t events;

    bt_poll_open(bt);
    if (unlikely(bt->unsound)) { /* it has been told */
        *out = EXIT_error;
        return true;
    }
    events = vcpu_events(v);
    if (events & (VCPU_EVENT_KICK | VCPU_EVENT_STOP)) {
        *out = EXIT_kick;
        return true;
    }
    if (unlikely(!vcpu_left(v))) {
        vcpu_raise(v, VCPU_EVENT_KICK);
        *out = EXIT_kick;
        return true;
    }
    bt_review(bt, __builtin_ia32_rdtsc());
    bt_drop_rf(v);
    if (needs_care(v, events)) {
        *out = interp_step(bt->ip, 1);
        return *out != EXIT_kick;
    }
    if (!tr_translatable(v)) {
        *out = interp_step(bt->ip, INTERP_SLICE);
        return *out != EXIT_kick;
    }
    return run_once(bt, out);
}

int bt_error(const struct bt *bt) {
    return bt->error;
}

enum exit_reason bt_run(struct bt *bt) {
    enum exit_reason out = EXIT_error;

    bt->error = os_signal_stack();
    if (!bt->error)
        bt->error = os_gs_base(bt->v);
    if (bt->error)
        return EXIT_error;
    bt->v->bt.bank = bt->v->mmu->data->e;
    vcpu_forget_gates(bt->v);
    __atomic_store_n(&bt->in_tc, true, __ATOMIC_SEQ_CST);
    while (!loop(bt, &out))
        if (unlikely(bt->v->step))
            vcpu_raise(bt->v, VCPU_EVENT_KICK);
    __atomic_store_n(&bt->in_tc, false, __ATOMIC_SEQ_CST);
    bt_x87_settle(bt->v);
    bt->v->cnt->insns_retired += bt->v->bt.count;
    bt->v->bt.count = 0;
    bt->v->cnt->bt_indirect_hits += bt->v->bt.indirect_hits;
    bt->v->bt.indirect_hits = 0;
    bt->v->cnt->bt_gates += bt->v->bt.gates;
    bt->v->bt.gates = 0;
    return out;
}
