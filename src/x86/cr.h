/*
 * Control registers, EFLAGS, EFER and XCR0: bit names only.
 * AMD64 APM volume 2, "System Resources" (3.1 "System-Control Registers").
 * Freestanding: also included by guests.
 */
#ifndef X86_CR_H
#define X86_CR_H

#define X86_FL_CF (1u << 0)
#define X86_FL_ONE (1u << 1)
#define X86_FL_PF (1u << 2)
#define X86_FL_AF (1u << 4)
#define X86_FL_ZF (1u << 6)
#define X86_FL_SF (1u << 7)
#define X86_FL_TF (1u << 8)
#define X86_FL_IF (1u << 9)
#define X86_FL_DF (1u << 10)
#define X86_FL_OF (1u << 11)
#define X86_FL_IOPL (3u << 12)
#define X86_FL_IOPL_SHIFT 12
#define X86_FL_NT (1u << 14)
#define X86_FL_RF (1u << 16)
#define X86_FL_VM (1u << 17)
#define X86_FL_AC (1u << 18)
#define X86_FL_VIF (1u << 19)
#define X86_FL_VIP (1u << 20)
#define X86_FL_ID (1u << 21)
/* The six arithmetic ("status") flags. */
#define X86_FL_STATUS                                                                    \
    (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

#define X86_CR0_PE (1u << 0)
#define X86_CR0_MP (1u << 1)
#define X86_CR0_EM (1u << 2)
#define X86_CR0_TS (1u << 3)
#define X86_CR0_ET (1u << 4)
#define X86_CR0_NE (1u << 5)
#define X86_CR0_WP (1u << 16)
#define X86_CR0_AM (1u << 18)
#define X86_CR0_NW (1u << 29)
#define X86_CR0_CD (1u << 30)
#define X86_CR0_PG (1u << 31)

#define X86_CR3_PCID_MASK 0xfffull
#define X86_CR3_NOFLUSH (1ull << 63)

#define X86_CR4_VME (1u << 0)
#define X86_CR4_PVI (1u << 1)
#define X86_CR4_TSD (1u << 2)
#define X86_CR4_DE (1u << 3)
#define X86_CR4_PSE (1u << 4)
#define X86_CR4_PAE (1u << 5)
#define X86_CR4_MCE (1u << 6)
#define X86_CR4_PGE (1u << 7)
#define X86_CR4_PCE (1u << 8)
#define X86_CR4_OSFXSR (1u << 9)
#define X86_CR4_OSXMMEXCPT (1u << 10)
#define X86_CR4_UMIP (1u << 11)
#define X86_CR4_LA57 (1u << 12)
#define X86_CR4_FSGSBASE (1u << 16)
#define X86_CR4_PCIDE (1u << 17)
#define X86_CR4_OSXSAVE (1u << 18)
#define X86_CR4_SMEP (1u << 20)
#define X86_CR4_SMAP (1u << 21)

#define X86_EFER_SCE (1u << 0)
#define X86_EFER_LME (1u << 8)
#define X86_EFER_LMA (1u << 10)
#define X86_EFER_NXE (1u << 11)
#define X86_EFER_SVME (1u << 12)
#define X86_EFER_FFXSR (1u << 14)
#define X86_EFER_AIBRSE (1u << 21)

#define X86_XCR0_X87 (1u << 0)
#define X86_XCR0_SSE (1u << 1)
#define X86_XCR0_AVX (1u << 2)
#define X86_XCR0_OPMASK (1u << 5)
#define X86_XCR0_ZMM_HI256 (1u << 6) /* upper halves of zmm0 to zmm15 */
#define X86_XCR0_HI16_ZMM (1u << 7)  /* zmm16 to zmm31 */
#define X86_XCR0_PKRU (1u << 9)
#define X86_XCR0_AVX512 (X86_XCR0_OPMASK | X86_XCR0_ZMM_HI256 | X86_XCR0_HI16_ZMM)

/* DR6 and DR7: AMD64 APM volume 2, "Debug Registers". */
#define X86_DR6_BS (1u << 14)
#define X86_DR6_BD (1u << 13)
#define X86_DR6_BT (1u << 15)
#define X86_DR6_FIXED 0xffff0ff0u
#define X86_DR7_FIXED 0x400u
#define X86_DR7_GD (1u << 13)

#endif
