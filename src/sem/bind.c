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
#include "cpu/smp.h"
#include "decode/decode.h"
#include "sem/far_int.h"

/* Transfers between segments and levels, which are of four files. */
insn_exec_fn *sem_bind_far(const struct insn *i) {
    switch (i->op) {
    case OP_jmp_far:
        return sem_exec_jmp_far;
    case OP_call_far:
        return sem_exec_call_far;
    case OP_ret_far:
        return sem_exec_ret_far;
    case OP_iret:
        return sem_exec_iret;
    case OP_int:
        return sem_exec_int;
    case OP_int1:
        return sem_exec_int1;
    case OP_int3:
        return sem_exec_int3;
    case OP_into:
        return i->mode == MODE_64 ? sem_exec_ud : sem_exec_into;
    case OP_syscall:
        return sem_exec_syscall;
    case OP_sysret:
        return sem_exec_sysret;
    case OP_sysenter:
        return sem_exec_sysenter;
    case OP_sysexit:
        return sem_exec_sysexit;
    default:
        return NULL;
    }
}

static insn_exec_fn *find(const struct vcpu *v, const struct insn *i) {
    insn_exec_fn *fn;

    if (i->op == OP_invalid || i->op >= OP_COUNT)
        return sem_exec_ud;
    if (vcpu_has_others(v) && (fn = sem_bind_locked(i)))
        return fn;
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
