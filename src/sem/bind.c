/*
 * From a decoded instruction to the function that executes it.
 *
 * Each family has its table; the first that knows the operation wins. What is settled
 * here once and not at each execution: features that the CPUID model does not offer
 * (#UD). The model never changes while the machine lives. Privilege is a matter of the
 * moment and is checked when a privileged instruction runs, in its own function.
 */
#include "cpu/cpuid.h"
#include "sem/sem_int.h"

int sem_exec_ud(struct vcpu *v, const struct insn *i) {
    return sem_fault(v, X86_UD);
}

static insn_exec_fn *find(const struct vcpu *v, const struct insn *i) {
    insn_exec_fn *fn;

    if (i->op == OP_invalid || i->op >= OP_COUNT)
        return sem_exec_ud;
    if (i->feature && !cpuid_has(v->cpuid, (enum cpuid_feature)i->feature))
        return sem_exec_ud;
    if ((fn = sem_bind_move(i)) || (fn = sem_bind_alu(i)) || (fn = sem_bind_branch(i)) ||
        (fn = sem_bind_bits(i)) || (fn = sem_bind_string(i)) || (fn = sem_bind_far(i)) ||
        (fn = sem_bind_segment(i)) || (fn = sem_bind_system(i)))
        return fn;
    return sem_bind_native(v, i);
}

/* What raises #UD whatever it is called is no operation to whoever reads the IR: a
 * translator would copy it. */
static void make_invalid(struct insn *i) {
    i->op = OP_invalid;
    i->flags = (uint16_t)((i->flags & INSN_VEX) | INSN_ENDS_BLOCK | INSN_NO_MODRM_MEM);
    i->nops = 0;
    i->mem = (struct mem_operand){.base = REG_ZERO, .index = REG_ZERO};
    i->fl_read = i->fl_written = i->fl_undefined = 0;
}

void sem_bind(const struct vcpu *v, struct insn *i) {
    insn_exec_fn *fn = find(v, i);

    i->exec = fn ? fn : sem_exec_ud;
    if (i->exec == sem_exec_ud)
        make_invalid(i);
}
