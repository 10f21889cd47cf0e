/*
 * AMD's Secure Virtual Machine: the control block, intercepts, exit codes, injected
 * events, the permission maps. AMD64 APM volume 2, "Secure Virtual Machine", and its
 * appendices "Layout of VMCB" and "SVM Intercept Exit Codes". Freestanding.
 */
#ifndef X86_SVM_H
#define X86_SVM_H

#include <stdint.h>

#define X86_SVM_LEAF 0x8000000au
#define X86_SVM_CPUID (1u << 2) /* leaf 0x80000001, ECX */
/* Leaf 0x8000000a, EDX. */
#define X86_SVM_NPT (1u << 0)
#define X86_SVM_NRIPS (1u << 3)
#define X86_SVM_FLUSH_BY_ASID (1u << 6)
#define X86_SVM_DECODE_ASSISTS (1u << 7)
#define X86_SVM_PAUSE_FILTER (1u << 10)

#define X86_MSR_VM_CR 0xc0010114u
#define X86_VM_CR_SVMDIS (1u << 4)
#define X86_MSR_VM_HSAVE_PA 0xc0010117u

/* Intercepts by word and bit of the control area. */
#define X86_SVM_EXCEPTIONS 2 /* of word 2, by vector */
enum x86_svm_intercept3 {    /* word 3 */
                          X86_SVM_I_INTR = 1 << 0,
                          X86_SVM_I_NMI = 1 << 1,
                          X86_SVM_I_SMI = 1 << 2,
                          X86_SVM_I_INIT = 1 << 3,
                          X86_SVM_I_VINTR = 1 << 4,
                          X86_SVM_I_IDTR_READ = 1 << 6,
                          X86_SVM_I_GDTR_READ = 1 << 7,
                          X86_SVM_I_LDTR_READ = 1 << 8,
                          X86_SVM_I_TR_READ = 1 << 9,
                          X86_SVM_I_IDTR_WRITE = 1 << 10,
                          X86_SVM_I_GDTR_WRITE = 1 << 11,
                          X86_SVM_I_LDTR_WRITE = 1 << 12,
                          X86_SVM_I_TR_WRITE = 1 << 13,
                          X86_SVM_I_RDTSC = 1 << 14,
                          X86_SVM_I_RDPMC = 1 << 15,
                          X86_SVM_I_CPUID = 1 << 18,
                          X86_SVM_I_RSM = 1 << 19,
                          X86_SVM_I_IRET = 1 << 20,
                          X86_SVM_I_INVD = 1 << 22,
                          X86_SVM_I_PAUSE = 1 << 23,
                          X86_SVM_I_HLT = 1 << 24,
                          X86_SVM_I_INVLPG = 1 << 25,
                          X86_SVM_I_INVLPGA = 1 << 26,
                          X86_SVM_I_IOIO = 1 << 27,
                          X86_SVM_I_MSR = 1 << 28,
                          X86_SVM_I_TASK_SWITCH = 1 << 29,
                          X86_SVM_I_SHUTDOWN = (int)(1u << 31),
};
enum x86_svm_intercept4 { /* word 4 */
                          X86_SVM_I_VMRUN = 1 << 0,
                          X86_SVM_I_VMMCALL = 1 << 1,
                          X86_SVM_I_VMLOAD = 1 << 2,
                          X86_SVM_I_VMSAVE = 1 << 3,
                          X86_SVM_I_STGI = 1 << 4,
                          X86_SVM_I_CLGI = 1 << 5,
                          X86_SVM_I_SKINIT = 1 << 6,
                          X86_SVM_I_RDTSCP = 1 << 7,
                          X86_SVM_I_ICEBP = 1 << 8,
                          X86_SVM_I_WBINVD = 1 << 9,
                          X86_SVM_I_MONITOR = 1 << 10,
                          X86_SVM_I_MWAIT = 1 << 11,
                          X86_SVM_I_MWAIT_ARMED = 1 << 12,
                          X86_SVM_I_XSETBV = 1 << 13,
};

/* Exit codes. */
#define X86_SVM_EXIT_CR_READ 0x000u
#define X86_SVM_EXIT_CR_WRITE 0x010u
#define X86_SVM_EXIT_DR_READ 0x020u
#define X86_SVM_EXIT_DR_WRITE 0x030u
#define X86_SVM_EXIT_EXCEPTION 0x040u
#define X86_SVM_EXIT_INTR 0x060u
#define X86_SVM_EXIT_NMI 0x061u
#define X86_SVM_EXIT_SMI 0x062u
#define X86_SVM_EXIT_INIT 0x063u
#define X86_SVM_EXIT_VINTR 0x064u
#define X86_SVM_EXIT_CPUID 0x072u
#define X86_SVM_EXIT_IRET 0x074u
#define X86_SVM_EXIT_PAUSE 0x077u
#define X86_SVM_EXIT_HLT 0x078u
#define X86_SVM_EXIT_INVLPG 0x079u
#define X86_SVM_EXIT_IOIO 0x07bu
#define X86_SVM_EXIT_MSR 0x07cu
#define X86_SVM_EXIT_SHUTDOWN 0x07fu
#define X86_SVM_EXIT_VMMCALL 0x081u
#define X86_SVM_EXIT_NPF 0x400u
#define X86_SVM_EXIT_INVALID 0xffffffffu /* the low half of -1 */

/* EVENTINJ and EXITINTINFO. */
#define X86_SVM_EVENT_VECTOR 0xffu
#define X86_SVM_EVENT_TYPE (7u << 8)
#define X86_SVM_EVENT_INTR (0u << 8)
#define X86_SVM_EVENT_NMI (2u << 8)
#define X86_SVM_EVENT_EXCEPTION (3u << 8)
#define X86_SVM_EVENT_SOFTWARE (4u << 8)
#define X86_SVM_EVENT_HAS_ERROR (1u << 11)
#define X86_SVM_EVENT_VALID (1u << 31)

/* EXITINFO1 of IOIO. */
#define X86_SVM_IO_IN (1u << 0)
#define X86_SVM_IO_STRING (1u << 2)
#define X86_SVM_IO_REP (1u << 3)
#define X86_SVM_IO_SIZE_SHIFT 4 /* one of three bits: 1, 2 or 4 bytes */
#define X86_SVM_IO_PORT_SHIFT 16

#define X86_SVM_TLB_FLUSH_ALL 1u
#define X86_SVM_TLB_FLUSH_ASID 3u

#define X86_SVM_V_IRQ (1ull << 8)
#define X86_SVM_V_IGN_TPR (1ull << 20)
#define X86_SVM_V_INTR_MASKING (1ull << 24)
#define X86_SVM_V_PRIO_HIGH (15ull << 16)

#define X86_SVM_SHADOW (1ull << 0) /* of int_state: an interrupt shadow */
#define X86_SVM_NESTED (1ull << 0) /* of nested_ctl */

#define X86_SVM_IOPM_SIZE 0x3000u
#define X86_SVM_MSRPM_SIZE 0x2000u

struct x86_svm_segment {
    uint16_t selector;
    uint16_t attrib; /* bits 40..47 and 52..55 of a descriptor, next to each other */
    uint32_t limit;
    uint64_t base;
};

struct x86_vmcb {
    uint16_t cr_read, cr_write, dr_read, dr_write;
    uint32_t exceptions, intercept3, intercept4, intercept5;
    uint8_t reserved0[0x3c - 0x18];
    uint16_t pause_threshold, pause_count;
    uint64_t iopm, msrpm, tsc_offset;
    uint32_t asid;
    uint8_t tlb_control, reserved1[3];
    uint64_t int_ctl, int_state, exit_code, exit_info1, exit_info2, exit_int_info,
        nested_ctl;
    uint8_t reserved2[0xa8 - 0x98];
    uint64_t event_inj, nested_cr3, lbr_ctl;
    uint32_t clean, reserved3;
    uint64_t next_rip;
    uint8_t fetched, bytes[15];
    uint8_t reserved4[0x400 - 0xe0];
    /* The guest's state. */
    struct x86_svm_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    uint8_t reserved5[0x4cb - 0x4a0];
    uint8_t cpl;
    uint32_t reserved6;
    uint64_t efer;
    uint8_t reserved7[0x548 - 0x4d8];
    uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
    uint8_t reserved8[0x5d8 - 0x580];
    uint64_t rsp, s_cet, ssp, isst;
    uint64_t rax, star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp,
        sysenter_eip, cr2;
    uint8_t reserved9[0x668 - 0x648];
    uint64_t pat, debugctl, br_from, br_to, last_from, last_to;
    uint8_t reserved10[0x1000 - 0x698];
};

_Static_assert(__builtin_offsetof(struct x86_vmcb, pause_threshold) == 0x3c, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, iopm) == 0x40, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, tsc_offset) == 0x50, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, asid) == 0x58, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, tlb_control) == 0x5c, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, int_ctl) == 0x60, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, int_state) == 0x68, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, exit_code) == 0x70, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, exit_int_info) == 0x88, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, nested_ctl) == 0x90, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, event_inj) == 0xa8, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, nested_cr3) == 0xb0, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, clean) == 0xc0, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, next_rip) == 0xc8, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, es) == 0x400, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, gdtr) == 0x460, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, tr) == 0x490, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, cpl) == 0x4cb, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, efer) == 0x4d0, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, cr4) == 0x548, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, rip) == 0x578, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, rsp) == 0x5d8, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, rax) == 0x5f8, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, star) == 0x600, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, cr2) == 0x640, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, pat) == 0x668, "VMCB");
_Static_assert(__builtin_offsetof(struct x86_vmcb, last_to) == 0x690, "VMCB");
_Static_assert(sizeof(struct x86_vmcb) == 0x1000, "VMCB");

#endif
