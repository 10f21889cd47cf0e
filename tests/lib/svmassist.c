#include "lib/svmassist.h"

#include <string.h>

#include "x86/exception.h"

#define NOT_TOLD 0x5555aaaa5555aaaaull
#define IS_MOV (1ull << 63)
#define INT_CTL                                                                          \
    (X86_SVM_V_IRQ | X86_SVM_V_PRIO_HIGH | X86_SVM_V_IGN_TPR | X86_SVM_V_INTR_MASKING)

/* Intercepted exceptions and nested page faults are no instruction's. */
static bool is_insns(uint64_t code) {
    return code < X86_SVM_EXIT_EXCEPTION ||
           (code > X86_SVM_EXIT_INIT && code != X86_SVM_EXIT_VINTR &&
            code != X86_SVM_EXIT_NPF);
}

static bool is_page_fault(uint64_t code) {
    return code == X86_SVM_EXIT_NPF || code == X86_SVM_EXIT_EXCEPTION + X86_PF;
}

static void assist(struct svmcpu *c, const struct insn *i) {
    struct x86_vmcb *b = c->b;
    uint64_t code = b->exit_code;
    bool has = c->features & X86_SVM_DECODE_ASSISTS;

    if (code < X86_SVM_EXIT_CR_WRITE + 16)
        b->exit_info1 =
            has ? IS_MOV | i->opnd[code >= X86_SVM_EXIT_CR_WRITE].reg : NOT_TOLD;
    if (code == X86_SVM_EXIT_INVLPG && !has)
        b->exit_info1 = NOT_TOLD;
    memset(b->bytes, 0x55, sizeof(b->bytes));
    b->fetched = has ? 0 : 0x55;
    if (!has || !is_page_fault(code))
        return;
    b->fetched = (uint8_t)c->fetched;
    memcpy(b->bytes, c->bytes, c->fetched);
}

void svmassist_tell(struct svmcpu *c, const struct insn *i) {
    bool knows = (c->features & X86_SVM_NRIPS) && is_insns(c->b->exit_code);

    c->b->next_rip = knows ? c->b->rip + i->len : NOT_TOLD;
    assist(c, i);
}

bool svmassist_pause(struct svmcpu *c) {
    if (!(c->b->intercept3 & X86_SVM_I_PAUSE))
        return false;
    if (!(c->features & X86_SVM_PAUSE_FILTER) || !c->pauses)
        return true;
    c->pauses--;
    return false;
}

const char *svmassist_unknown(const struct x86_vmcb *b) {
    if (b->clean)
        return "it says that nothing has changed, which nobody has kept";
    if (b->int_ctl & ~INT_CTL)
        return "a virtual GIF, a virtual local APIC, or what else it has not";
    return b->lbr_ctl ? "VMLOAD and VMSAVE, or branches, without an exit" : NULL;
}
