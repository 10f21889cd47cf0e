/*
 * The engine's life and its loop: what the guest may take is put into the control block,
 * it is entered, and why it came back is dealt with (exits.c), until the run loop is
 * wanted.
 */
#include "svm/svm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cpu/vec.h"
#include "interp/interp.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "svm/svm_int.h"
#include "x86/cr.h"

#define A20_SLICE 1000u
#define PATIENCE 3000u           /* PAUSEs until one leaves, where the CPU counts them */
#define SHADOW_ASIDS 4u          /* for the few spaces that are used often */
#define FEATURE_XSAVE (1u << 26) /* leaf 1, ECX */
#define FEATURE_PCID (1u << 17)  /* the same */
#define FEATURE_SMEP (1u << 7)   /* leaf 7, EBX */
#define FEATURE_INVPCID (1u << 10)
#define FEATURE_SMAP (1u << 20)
#define FEATURE_RDTSCP (1u << 27) /* leaf 0x80000001, EDX */

/* --- interrupts --- */

static bool can_interrupt(const struct svm *s) {
    const struct x86_vmcb *b = s->vmcb;

    return (b->rflags & X86_FL_IF) && !(b->int_state & X86_SVM_SHADOW);
}

static void window(struct svm *s, bool wanted) {
    struct x86_vmcb *b = s->vmcb;

    b->int_ctl = X86_SVM_V_INTR_MASKING;
    b->intercept3 &= ~(uint32_t)X86_SVM_I_VINTR;
    if (!wanted)
        return;
    b->int_ctl |= X86_SVM_V_IRQ | X86_SVM_V_IGN_TPR | X86_SVM_V_PRIO_HIGH;
    b->intercept3 |= X86_SVM_I_VINTR;
}

static void inject_nmi(struct svm *s) {
    vcpu_clear(s->v, VCPU_EVENT_NMI);
    s->event = X86_SVM_EVENT_VALID | X86_SVM_EVENT_NMI | 2;
    s->v->nmi_blocked = true;
}

/* One event at a time; what waits besides asks for a window. */
static void inject(struct svm *s, uint32_t events) {
    struct vcpu *v = s->v;

    if (!s->event && (events & VCPU_EVENT_NMI) && !v->nmi_blocked)
        inject_nmi(s);
    if (!s->event && (events & VCPU_EVENT_IRQ) && can_interrupt(s)) {
        int vector = v->hooks->irq_ack(v->hooks_arg);

        if (vector >= 0) {
            s->event = X86_SVM_EVENT_VALID | X86_SVM_EVENT_INTR | (unsigned)vector;
            v->cnt->interrupts_delivered++;
            s->cnt.injected++;
        }
    }
    window(s, vcpu_events(v) & VCPU_EVENT_IRQ);
    /* The end of an NMI is an IRET, which the interpreter executes. */
    if (s->exits != SVM_EXITS_PURE)
        s->vmcb->intercept3 &= ~(uint32_t)X86_SVM_I_IRET;
    if (v->nmi_blocked)
        s->vmcb->intercept3 |= X86_SVM_I_IRET;
}

/* --- the loop --- */

/* With shadow paging there is an ASID for each root, and what is void in another's has to
 * wait for its next entry. */
static void set_stale(struct svm *s, bool stale) {
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        s->root[n].stale = stale;
}

static uint8_t tlb_control(struct svm *s) {
    bool by_asid = s->features & X86_SVM_FLUSH_BY_ASID;
    bool *stale = s->shadow ? &s->root[s->current].stale : &s->flush;

    if (s->shadow && s->flush)
        set_stale(s, true);
    s->flush = s->shadow ? false : s->flush;
    if (!*stale)
        return 0;
    if (s->shadow && !by_asid)
        set_stale(s, false);
    *stale = false;
    s->cnt.tlb_flushes++;
    return by_asid ? X86_SVM_TLB_FLUSH_ASID : X86_SVM_TLB_FLUSH_ALL;
}

/* An emulator may forget at VMRUN that it is behind an STI or a MOV SS: when no
 * instruction has been executed since, it still is. */
static void keep_shadow(struct x86_vmcb *b, uint64_t was, uint64_t rip) {
    if (b->rip == rip)
        b->int_state |= was & X86_SVM_SHADOW;
}

static void enter(struct svm *s) {
    struct vcpu *v = s->v;
    struct x86_vmcb *b = s->vmcb;
    uint64_t int_state = b->int_state, rip = b->rip;
    struct svm_entry e = {.vmcb = b,
                          .gpr = v->gpr,
                          .dr = b->dr7 & 0xff ? v->dr : NULL,
                          .xcr0 = s->has_xcr0 ? v->xcr0 : 0,
                          .tsc_aux = s->has_tsc_aux ? &v->tsc_aux : NULL,
                          .events = &v->events,
                          .leave = VCPU_EVENTS_LEAVE};

    b->tlb_control = tlb_control(s);
    b->event_inj = s->event;
    b->tsc_offset = v->tsc_base;
    s->event = 0;
    s->cnt.entries++;
    vec_load(v);
    s->host->enter(s->host->arg, &e);
    keep_shadow(b, int_state, rip);
    if (s->has_xcr0)
        v->xcr0 = e.xcr0;
    if (b->exit_int_info & X86_SVM_EVENT_VALID &&
        (b->exit_int_info & X86_SVM_EVENT_TYPE) != X86_SVM_EVENT_SOFTWARE)
        s->event = b->exit_int_info;
}

static bool gate_open(const struct vcpu *v) {
    return !v->hooks->a20 || v->hooks->a20(v->hooks_arg);
}

/* Those that the hardware is to walk. False: no memory. */
static bool tables(struct svm *s) {
    if (s->shadow)
        return svm_shadow_controls(s);
    return likely(s->npt) || !svm_npt_make(s);
}

/* All that loads CR3 is intercepted, but an emulator may switch tasks without asking: the
 * guest has run on page tables of its own, with physical addresses of the host's. */
static enum exit_reason walked_away(struct svm *s) {
    log_error("SVM: the CPU lets a task switch load CR3 although it is intercepted; take "
              "paging=nested");
    svm_pull(s);
    return EXIT_error;
}

/* One turn: EXIT_COUNT to go on. */
static enum exit_reason turn(struct svm *s, uint32_t events) {
    struct vcpu *v = s->v;
    uint64_t cr3;

    if (unlikely(!gate_open(v)))
        return svm_emulate(s, A20_SLICE);
    /* A halted CPU, or a debug trap that the last instruction has left. */
    if (!s->loaded && (v->halted || v->pending_db))
        return svm_emulate(s, 1);
    if (!s->loaded)
        svm_push(s);
    if (!tables(s)) {
        log_error("SVM: there is no memory for the guest's page tables");
        return EXIT_error;
    }
    inject(s, events);
    cr3 = s->vmcb->cr3;
    enter(s);
    if (unlikely(s->shadow && s->vmcb->cr3 != cr3))
        return walked_away(s);
    return svm_handle_exit(s);
}

enum exit_reason svm_run(struct svm *s) {
    enum exit_reason out;

    s->flush |= s->asids_lent;
    do {
        uint32_t events = vcpu_events(s->v);

        out = events & VCPU_EVENTS_LEAVE ? EXIT_kick : turn(s, events);
    } while (out == EXIT_COUNT);
    /* The run loop asks the flags whether an interrupt wakes a halted guest. */
    if (s->loaded)
        s->v->rflags = s->vmcb->rflags;
    vec_park(s->v);
    return out;
}

/* --- what else an engine does --- */

int svm_sync(struct svm *s) {
    svm_pull(s);
    return 0;
}

void svm_reset(struct svm *s) {
    s->loaded = false;
    s->flush = true;
    s->event = 0;
    interp_flush(s->interp);
}

void svm_map_changed(struct svm *s) {
    svm_tell_written(s);
    svm_npt_drop(s);
}

void svm_stats(const struct svm *s,
               void (*emit)(void *arg, const char *name, uint64_t value), void *arg) {
#define COUNTER(name, what) emit(arg, "svm_" #name, s->cnt.name);
#include "svm/counters.def"
#undef COUNTER
}

/* --- creation --- */

static struct cpuid_regs host_cpuid(const struct svm *s, uint32_t leaf) {
    return s->host->cpuid(s->host->arg, leaf, 0);
}

/* What the CPU can do, and besides what is not the CPU's but ours. */
static struct cpuid_regs confirmed(void *arg, uint32_t leaf, uint32_t subleaf) {
    const struct svm *s = arg;
    struct cpuid_regs r = s->host->cpuid(s->host->arg, leaf, subleaf);

    if (leaf == 1)
        r.ecx |= 1u << 21 | 1u << 24 | 1u << 31; /* x2APIC, its deadline timer, a VMM */
    /* What shadow page tables do not do (shadow.c). */
    if (s->shadow && leaf == 1)
        r.ecx &= ~FEATURE_PCID;
    if (s->shadow && leaf == 7 && subleaf == 0)
        r.ebx &= ~(FEATURE_SMEP | FEATURE_SMAP | FEATURE_INVPCID);
    return r;
}

static int make_model(struct svm *s) {
    struct cpuid_limit limit = {.leaf = confirmed,
                                .arg = s,
                                .tsc_deadline = true,
                                .paravirt = CPUID_KVM_OPTIONAL};

    s->model = cpuid_model_limit(s->outer, &limit);
    if (!s->model)
        return -ENOMEM;
    s->v->cpuid = s->model;
    mmu_flush_all(s->v);
    return 0;
}

unsigned svm_asids_give(unsigned *last, unsigned count, unsigned wanted,
                        unsigned *first) {
    unsigned left = count > *last + 1 ? count - *last - 1 : 0;

    *first = *last + 1;
    if (wanted > left)
        wanted = left;
    *last += wanted;
    return wanted;
}

/* Ours alone, if there are any left; else all share the last one. */
static void take_asids(struct svm *s) {
    unsigned count = host_cpuid(s, X86_SVM_LEAF).ebx;
    unsigned wanted = s->shadow ? SHADOW_ASIDS : 1;

    if (count < 2)
        count = 2;
    s->asid = 1;
    s->asids = count - 1;
    if (!s->host->asids)
        return;
    s->asids = s->host->asids(s->host->arg, count - 1, wanted, &s->asid);
    s->asids_lent = !s->asids;
    if (s->asids_lent) {
        s->asid = count - 1;
        s->asids = 1;
    }
}

/* One of many does. Where the CPU does not count them each would: loops that wait for a
 * moment would be slower than what they gain. */
static void leave_at_pauses(struct x86_vmcb *b) {
    b->intercept3 |= X86_SVM_I_PAUSE;
    b->pause_count = PATIENCE;
}

static int make_block(struct svm *s) {
    s->vmcb = s->host->alloc(s->host->arg, sizeof(*s->vmcb));
    s->iopm = s->host->alloc(s->host->arg, X86_SVM_IOPM_SIZE);
    s->msrpm = s->host->alloc(s->host->arg, X86_SVM_MSRPM_SIZE);
    if (!s->vmcb || !s->iopm || !s->msrpm)
        return -ENOMEM;
    svm_permissions(s);
    svm_intercepts(s->vmcb, s->shadow, s->exits);
    if (s->pauses)
        leave_at_pauses(s->vmcb);
    s->vmcb->asid = s->asid;
    s->vmcb->nested_ctl = s->shadow ? 0 : X86_SVM_NESTED;
    if (!s->shadow) {
        mmu_pdptrs_accessed(s->v);
        return 0;
    }
    s->root = calloc(MMU_SPACES_MAX, sizeof(*s->root));
    if (!s->root)
        return -ENOMEM;
    svm_shadow_start(s);
    return 0;
}

int svm_new(struct vcpu *v, struct interp *interp, const struct svm_host *host,
            const struct svm_options *options, struct svm **out, char *why,
            size_t why_size) {
    struct svm *s = calloc(1, sizeof(*s));
    int rc;

    snprintf(why, why_size, "out of memory");
    if (!s)
        return -ENOMEM;
    *s = (struct svm){.v = v,
                      .interp = interp,
                      .outer = v->cpuid,
                      .host = host,
                      .shadow = options->shadow,
                      .exits = options->exits,
                      .flush = true};
    s->features = host_cpuid(s, X86_SVM_LEAF).edx;
    s->pauses = options->pauses && (s->features & X86_SVM_PAUSE_FILTER);
    take_asids(s);
    s->has_xcr0 = host_cpuid(s, 1).ecx & FEATURE_XSAVE;
    s->has_tsc_aux = host_cpuid(s, 0x80000001).edx & FEATURE_RDTSCP;
    rc = s->shadow || (s->features & X86_SVM_NPT) ? make_block(s) : -ENODEV;
    if (rc == -ENODEV)
        snprintf(why, why_size,
                 "engine svm: the CPU has SVM, but no nested paging; "
                 "take paging=shadow");
    if (!rc)
        rc = make_model(s);
    if (!rc)
        svm_shortcuts(s);
    if (rc) {
        svm_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void svm_free(struct svm *s) {
    if (!s)
        return;
    svm_npt_drop(s);
    if (s->root)
        svm_shadow_end(s);
    free(s->root);
    s->v->cpuid = s->outer;
    if (s->model)
        cpuid_model_free(s->model);
    free(s);
}
