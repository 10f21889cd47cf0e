/* How an instruction says that it faults: the exception is in v->fault, and sem_deliver()
 * does the rest. */
#include "sem/sem_int.h"

int sem_fault(struct vcpu *v, uint8_t vector) {
    v->fault = (struct fault){.vector = vector};
    return SEM_FAULT;
}

int sem_fault_err(struct vcpu *v, uint8_t vector, uint32_t error) {
    v->fault = (struct fault){.vector = vector, .has_error = true, .error = error};
    return SEM_FAULT;
}

int sem_exec_ud(struct vcpu *v, const struct insn *i) {
    return sem_fault(v, X86_UD);
}
