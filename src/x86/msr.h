/*
 * Model-specific register numbers. AMD64 APM volume 2, appendix "MSR Cross-Reference".
 * Freestanding.
 */
#ifndef X86_MSR_H
#define X86_MSR_H

#define X86_MSR_TSC 0x10u
#define X86_MSR_APIC_BASE 0x1bu
#define X86_MSR_TSC_ADJUST 0x3bu
#define X86_MSR_SPEC_CTRL 0x48u
#define X86_MSR_PRED_CMD 0x49u
#define X86_MSR_BIOS_SIGN_ID 0x8bu
#define X86_MSR_MTRRCAP 0xfeu
#define X86_MSR_ARCH_CAPABILITIES 0x10au
#define X86_MSR_SYSENTER_CS 0x174u
#define X86_MSR_SYSENTER_ESP 0x175u
#define X86_MSR_SYSENTER_EIP 0x176u
#define X86_MSR_MCG_CAP 0x179u
#define X86_MSR_MCG_STATUS 0x17au
#define X86_MSR_MISC_ENABLE 0x1a0u
#define X86_MSR_DEBUGCTL 0x1d9u
#define X86_MSR_MTRR_PHYSBASE0 0x200u
#define X86_MSR_MTRR_FIX64K 0x250u
#define X86_MSR_MTRR_FIX16K_8 0x258u
#define X86_MSR_MTRR_FIX4K_C0 0x268u
#define X86_MSR_PAT 0x277u
#define X86_MSR_MTRR_DEFTYPE 0x2ffu
#define X86_MSR_TSC_DEADLINE 0x6e0u
#define X86_MSR_X2APIC_FIRST 0x800u
#define X86_MSR_X2APIC_LAST 0x8ffu
#define X86_MSR_EFER 0xc0000080u
#define X86_MSR_STAR 0xc0000081u
#define X86_MSR_LSTAR 0xc0000082u
#define X86_MSR_CSTAR 0xc0000083u
#define X86_MSR_SFMASK 0xc0000084u
#define X86_MSR_FS_BASE 0xc0000100u
#define X86_MSR_GS_BASE 0xc0000101u
#define X86_MSR_KERNEL_GS_BASE 0xc0000102u
#define X86_MSR_TSC_AUX 0xc0000103u
#define X86_MSR_SYSCFG 0xc0010010u
#define X86_MSR_HWCR 0xc0010015u

/* KVM paravirtual MSRs, as Linux documents them. */
#define X86_MSR_KVM_WALL_CLOCK_NEW 0x4b564d00u
#define X86_MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

#endif
