/*
 * Why the guest has come back. Most exits are for one instruction, which the interpreter
 * executes; ports, the commonest, need no more than what the control block tells, and a
 * few have a shorter way (shortcut.c).
 */
#include "base/log.h"
#include "base/os.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* --- ports --- */

/* IN and OUT without strings: EXITINFO2 is the address of the next instruction. */
static enum exit_reason port_io(struct svm *s) {
    struct x86_vmcb *b = s->vmcb;
    uint32_t info = (uint32_t)b->exit_info1;
    struct exit e = {.reason = EXIT_io,
                     .write = !(info & X86_SVM_IO_IN),
                     .size = info >> X86_SVM_IO_SIZE_SHIFT & 7,
                     .port = (uint16_t)(info >> X86_SVM_IO_PORT_SHIFT)};
    uint64_t mask = e.size == 4 ? 0xffffffff : (1ull << 8 * e.size) - 1;

    s->cnt.exit_io++;
    /* A debugger's breakpoints on ports, single steps: sem's. */
    if ((info & (X86_SVM_IO_STRING | X86_SVM_IO_REP)) || (b->dr7 & 0xff) || s->event ||
        (b->rflags & X86_FL_TF))
        return svm_emulate(s, 1);
    e.data = b->rax & mask;
    b->rip = b->exit_info2;
    b->int_state = 0;
    b->rflags &= ~(uint64_t)X86_FL_RF;
    s->v->hooks->exit(s->v->hooks_arg, s->v, &e);
    if (!e.write)
        b->rax = e.size == 4 ? (uint32_t)e.data : (b->rax & ~mask) | (e.data & mask);
    return EXIT_COUNT;
}

/* --- exceptions: given back --- */

static enum exit_reason exception(struct svm *s, unsigned vector) {
    s->cnt.exit_exception++;
    if (vector == X86_MC) {
        log_error("SVM: a machine check");
        return EXIT_error;
    }
    s->event = X86_SVM_EVENT_VALID | X86_SVM_EVENT_EXCEPTION | vector;
    if (vector == X86_AC)
        s->event |= X86_SVM_EVENT_HAS_ERROR;
    return EXIT_COUNT;
}

/* --- the ends --- */

static enum exit_reason shutdown(struct svm *s) {
    svm_pull(s);
    return EXIT_shutdown;
}

static enum exit_reason refused(struct svm *s, uint32_t code) {
    log_error("SVM: the hardware refuses the guest's state (exit code 0x%x)", code);
    svm_pull(s);
    return EXIT_error;
}

static enum exit_reason emulated(struct svm *s, uint64_t *count) {
    ++*count;
    return svm_emulate(s, 1);
}

/* What may have a shorter way. */
static enum exit_reason brief(struct svm *s, enum svm_short which, uint64_t *count) {
    if (!svm_shortcut(s, which))
        return emulated(s, count);
    ++*count;
    return EXIT_COUNT;
}

/* PAUSE: executed first, so that who yields has made a step. */
static enum exit_reason waits(struct svm *s) {
    enum exit_reason out = emulated(s, &s->cnt.exit_pause);

    if (out == EXIT_COUNT)
        os_yield();
    return out;
}

/* Blocks of sixteen exit codes each. */
static enum exit_reason by_group(struct svm *s, uint32_t code) {
    switch (code & ~0xfu) {
    case X86_SVM_EXIT_CR_READ:
    case X86_SVM_EXIT_CR_WRITE:
        return emulated(s, &s->cnt.exit_cr);
    case X86_SVM_EXIT_DR_READ:
    case X86_SVM_EXIT_DR_WRITE:
        return emulated(s, &s->cnt.exit_dr);
    case X86_SVM_EXIT_EXCEPTION:
        if (code == X86_SVM_EXIT_EXCEPTION + X86_PF) {
            s->cnt.exit_pf++;
            return svm_page_fault(s);
        }
        if (code == X86_SVM_EXIT_EXCEPTION + X86_GP) /* may be another one by right */
            return emulated(s, &s->cnt.exit_exception);
        /* fallthrough */
    case X86_SVM_EXIT_EXCEPTION + 16:
        return exception(s, code - X86_SVM_EXIT_EXCEPTION);
    default:
        return code > X86_SVM_EXIT_NPF ? refused(s, code)
                                       : emulated(s, &s->cnt.exit_other);
    }
}

enum exit_reason svm_handle_exit(struct svm *s) {
    uint32_t code = (uint32_t)s->vmcb->exit_code;

    switch (code) {
    case X86_SVM_EXIT_INTR:
    case X86_SVM_EXIT_NMI:
    case X86_SVM_EXIT_SMI:
    case X86_SVM_EXIT_INIT:
        s->cnt.exit_intr++;
        return EXIT_COUNT; /* taken by the host when GIF was set */
    case X86_SVM_EXIT_VINTR:
        s->cnt.exit_vintr++;
        /* Not yet (keep_shadow()): behind the instruction. */
        return s->vmcb->int_state & X86_SVM_SHADOW ? svm_emulate(s, 1) : EXIT_COUNT;
    case X86_SVM_EXIT_IOIO:
        return port_io(s);
    case X86_SVM_EXIT_MSR:
        return brief(s, s->vmcb->exit_info1 & 1 ? SVM_SHORT_WRMSR : SVM_SHORT_RDMSR,
                     &s->cnt.exit_msr);
    case X86_SVM_EXIT_CPUID:
        return brief(s, SVM_SHORT_CPUID, &s->cnt.exit_cpuid);
    case X86_SVM_EXIT_HLT:
        return emulated(s, &s->cnt.exit_hlt);
    case X86_SVM_EXIT_PAUSE:
        return waits(s);
    case X86_SVM_EXIT_INVLPG:
        return emulated(s, &s->cnt.exit_invlpg);
    case X86_SVM_EXIT_NPF:
        return emulated(s, &s->cnt.exit_npf);
    case X86_SVM_EXIT_SHUTDOWN:
        return shutdown(s);
    case X86_SVM_EXIT_INVALID:
        return refused(s, code);
    default:
        return by_group(s, code);
    }
}
