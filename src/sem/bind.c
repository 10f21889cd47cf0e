/*
 * From a decoded instruction to the function that executes it.
 *
 * Each family has its table; the first that knows the operation wins. What is settled
 * here once and not at each execution: features that the CPUID model does not offer. Such
 * an instruction becomes what it is to a CPU without them, for whoever looks at it later:
 * invalid, or another one. The model never changes while the machine lives. Privilege is
 * a matter of the moment and is checked when a privileged instruction runs, in its own
 * function.
 */
#include "cpu/cpuid.h"
#include "decode/decode.h"
#include "sem/sem_int.h"

int sem_exec_ud(struct vcpu *v, const struct insn *i) {
    return sem_fault(v, X86_UD);
}

static insn_exec_fn *find(const struct vcpu *v, const struct insn *i) {
    insn_exec_fn *fn;

    if (i->op == OP_invalid || i->op >= OP_COUNT)
        return sem_exec_ud;
    if ((fn = sem_bind_move(i)) || (fn = sem_bind_alu(i)) || (fn = sem_bind_branch(i)) ||
        (fn = sem_bind_bits(i)) || (fn = sem_bind_string(i)) || (fn = sem_bind_far(i)) ||
        (fn = sem_bind_segment(i)) || (fn = sem_bind_system(i)))
        return fn;
    return sem_bind_native(v, i);
}

static bool has(const struct vcpu *v, unsigned feature) {
    return !feature || cpuid_has(v->cpuid, (enum cpuid_feature)feature);
}

/* To a CPU that lacks them, LZCNT and TZCNT are BSR and BSF with a prefix too many. */
static void settle_features(const struct vcpu *v, struct insn *i) {
    if ((i->op == OP_lzcnt && !has(v, CPUID_F_LZCNT)) ||
        (i->op == OP_tzcnt && !has(v, CPUID_F_BMI1)))
        decode_as_scan(i);
    else if (!has(v, i->feature) || !has(v, i->also))
        decode_hide(i);
}

void sem_bind(const struct vcpu *v, struct insn *i) {
    insn_exec_fn *fn;

    settle_features(v, i);
    fn = find(v, i);
    i->exec = fn ? fn : sem_exec_ud;
    /* No operation to whoever reads the IR: a translator would copy it. */
    if (i->exec == sem_exec_ud)
        decode_hide(i);
}
