/*
 * Model-specific registers that are the CPU's own. Those of the local APIC (APIC_BASE,
 * TSC_DEADLINE, x2APIC) and of the paravirtual clock are devices': sem sends them out as
 * EXIT_msr when these return MSR_NOT_OURS.
 */
#ifndef CPU_MSR_H
#define CPU_MSR_H

#include "cpu/vcpu.h"

enum msr_result { MSR_OK, MSR_FAULT /* raise #GP */, MSR_NOT_OURS };

/* Power-up values of what these functions keep. The MTRRs and the PAT are as a PC's
 * firmware leaves them, since this board has none: write-back but for the VGA window and
 * the last GiB below 4 GiB. Does not touch the TSC. */
void msr_reset(struct vcpu *v);

enum msr_result msr_read(struct vcpu *v, uint32_t index, uint64_t *value);

/* Writes that change modes or address translation (EFER, FS_BASE...) are carried out
 * completely, vcpu_update_mode() included; for EFER the caller must then tell the MMU. */
enum msr_result msr_write(struct vcpu *v, uint32_t index, uint64_t value);

#endif
