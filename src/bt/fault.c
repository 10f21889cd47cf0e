/*
 * Host faults in the cache: a look at the poll page or the fuel page that was refused, an
 * address that an unused anchor led to, and exceptions that are the guest's own.
 */
#include "bt/bt_int.h"
#include "sem/sem.h"
#include "tr/sequence.h"
#include "x86/exception.h"

static bool to_guest_fault(struct vcpu *v, const struct os_fault *f) {
    switch (f->trapno) {
    case X86_XM: /* APM volume 2, "SIMD Floating-Point Exception": #UD without OSXMMEXCPT
                  */
        v->fault =
            (struct fault){.vector = v->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD};
        return true;
    case X86_DE:
    case X86_UD:
    case X86_MF:
        v->fault = (struct fault){.vector = (uint8_t)f->trapno};
        return true;
    default:
        return false;
    }
}

/* Is the host's fault at its address the guest's to be told of? A #GP: misaligned; #AC: a
 * locked access across two lines, on a host that does not have these. Where
 * unused anchors point, the guest's address was not canonical. The interpreter knows. */
static bool to_interp(const struct vcpu *v, const struct os_fault *f) {
    if (f->trapno == X86_GP || f->trapno == X86_AC)
        return true;
    return f->trapno == X86_PF &&
           (uint8_t *)(uintptr_t)(f->addr & ~4095ull) == v->mmu->nowhere;
}

/* The vCPU whose code this thread executes, from translated code. */
static struct vcpu *vcpu_of_gs(void) {
    struct vcpu *v;

    __asm__ volatile("movq %%gs:%c1, %0" : "=r"(v) : "i"(GS_TR(self)));
    return v;
}

/* In the signal handler, between two instructions of translated code. */
bool bt_host_fault(void *arg, struct os_fault *f) {
    struct vcpu *v = vcpu_of_gs();
    struct bt *bt = bt_of(v);
    const uint8_t *pc = (const uint8_t *)(uintptr_t)f->regs.rip;
    const struct ccf *c = tc_find(&bt->sh->tc, pc);
    const struct site *s = c ? bt_site_of(c, pc) : NULL;
    uint8_t *fault_page = (uint8_t *)(uintptr_t)(f->addr & ~4095ull);
    uint64_t here = tr_vcpu(v)->here;

    if (!s || s->ours)
        return false; /* a bug; what is in the registers is none of the guest's business
                       */
    if (f->trapno == X86_PF && fault_page == bt->poll_page && s->poll) {
        if (s->poll == POLL_INDIRECT && !bt_canonical(v, f->regs.gpr[T0])) {
            f->regs.rip +=
                tr_poll_len(&bt->sh->env); /* the branch is to fault: undo_branch() */
            return true;
        }
        v->rip = s->poll == POLL_INDIRECT ? f->regs.gpr[T0]
                 : s->poll == POLL_LINK   ? tr_link_target(&c->code.links[s->guest], here)
                                          : tr_site_va(&c->code, s, here);
        tr_vcpu(v)->reason = BT_LEAVE_POLL;
    } else if (f->trapno == X86_PF && bt->fuel && fault_page == bt->fuel - 4096 &&
               s->poll == POLL_HERE) {
        v->rip = tr_site_va(&c->code, s, here);
        tr_vcpu(v)->reason = BT_LEAVE_FUEL;
    } else if (to_interp(v, f)) {
        v->rip = tr_site_va(&c->code, s, here);
        tr_vcpu(v)->reason = BT_LEAVE_EMULATE;
    } else if (f->trapno != X86_PF && to_guest_fault(v, f)) {
        v->rip = tr_site_va(&c->code, s, here);
        tr_vcpu(v)->reason = BT_LEAVE_STATUS;
        tr_vcpu(v)->status = SEM_FAULT;
        bt->faulted = f->trapno == X86_DE ? tc_find(&bt->sh->tc, pc) : NULL;
    } else {
        return false;
    }
    tr_vcpu(v)->owed = s->left;
    for (unsigned r = 0; r < 14; r++)
        v->gpr[r] = f->regs.gpr[r];
    tr_give_back(v, &c->code);
    if (s->place == FLAGS_REGS) {
        unsigned fl = (unsigned)f->regs.rflags;

        tr_vcpu(v)->flags = (uint16_t)((fl & 0xff) << 8 | (fl & X86_FL_OF ? 1 : 0));
    }
    f->regs.rip = (uint64_t)(uintptr_t)bt->sh->env.stub.leave_bare;
    return true;
}
