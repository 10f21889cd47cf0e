/*
 * Where the guest is while translated code runs:
 *   - host %gs base is the vCPU: gs:[offsetof(struct vcpu, x)] is our private data;
 *   - guest rax..r13, rsp included, are in the host registers of the same name;
 *   - guest r14 and r15 are in vcpu.gpr[]; host r14 (T0) and r15 (T1) are scratch;
 *   - guest vector state is in the host's registers (cpu/vec.h);
 *   - guest status flags are in one of three places, known at translation time:
 *       FLAGS_REGS  the host's flags
 *       FLAGS_MEM   vcpu.bt.flags (AH as LAHF gives it, AL = OF)
 *       FLAGS_DEAD  nowhere: nothing reads them before all of them are written
 *   - all other flags are in vcpu.rflags; the host's DF, TF, AC... stay clear.
 */
#ifndef TR_VCPU_H
#define TR_VCPU_H

#include "cpu/vcpu.h"

#define T0 REG_R14
#define T1 REG_R15

#define GS(field) offsetof(struct vcpu, field)
#define GS_GPR(r) (offsetof(struct vcpu, gpr) + 8 * (r))

enum flags_place { FLAGS_REGS, FLAGS_MEM, FLAGS_DEAD };

#endif
