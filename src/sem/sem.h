/*
 * x86 semantics: one truth for the interpreter and the translator's callouts.
 *
 * A semantic function changes the vCPU exactly as the instruction does, or leaves every
 * architectural register and flag untouched and reports a fault. It reads v->rip as the
 * instruction's own address.
 */
#ifndef SEM_SEM_H
#define SEM_SEM_H

#include "cpu/vcpu.h"
#include "decode/insn.h"

enum sem_status {
    SEM_NEXT = 0, /* done; the caller adds insn.len to rip */
    SEM_STOP,     /* done; the caller adds insn.len to rip, then leaves the block: events,
                     mode, privilege or translation may have changed */
    SEM_BRANCH,   /* done; rip is set (a taken branch, or an event already delivered) */
    SEM_REPEAT,   /* a string operation made progress; rip unchanged; look at events, then
                     execute it again */
    SEM_FAULT,    /* nothing done; v->fault describes it; deliver with sem_deliver() */
    SEM_SHUTDOWN, /* triple fault */
};

/* Picks i->exec. Must be called once after decode_insn(). Takes privilege, CPU features
 * and modes from V only where they cannot change without dropping decoded code. */
void sem_bind(const struct vcpu *v, struct insn *i);

/* One-time setup of host code for vector instructions. 0 or -errno. */
int sem_init(void);
/* Does I, an instruction of the x87 that runs on the host, set FIP, FOP and FDP? */
bool sem_sets_fip(const struct insn *i);

/*
 * Delivers v->fault as the exception that the instruction at v->rip raised (for a trap,
 * v->rip is already the next instruction's). Escalates to #DF and to shutdown.
 * Returns SEM_BRANCH, or SEM_SHUTDOWN.
 */
int sem_deliver(struct vcpu *v);

/* Delivers external interrupt VECTOR, or NMI (vector 2), at an instruction boundary. */
int sem_interrupt(struct vcpu *v, uint8_t vector);
int sem_nmi(struct vcpu *v);

/* Convenience for semantic code: fill v->fault and return SEM_FAULT. */
int sem_fault(struct vcpu *v, uint8_t vector);
int sem_fault_err(struct vcpu *v, uint8_t vector, uint32_t error);

/* User code has run elsewhere, in 64-bit mode, and left these selectors, in the order of
 * enum vcpu_seg: each becomes what the guest's descriptors say, but for the bases of FS
 * and GS that the vCPU has already and that are not 0. 0 or SEM_FAULT. */
int sem_adopt_segments(struct vcpu *v, const uint16_t *sel);

/* The bits of RFLAGS.IF && !irq_shadow: may an external interrupt be taken now? */
bool sem_interruptible(const struct vcpu *v);

#endif
