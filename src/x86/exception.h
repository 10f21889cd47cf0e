/*
 * Exception vectors and page-fault error-code bits.
 * AMD64 APM volume 2, "Exceptions and Interrupts". Freestanding.
 */
#ifndef X86_EXCEPTION_H
#define X86_EXCEPTION_H

enum x86_vector {
    X86_DE = 0,
    X86_DB = 1,
    X86_NMI = 2,
    X86_BP = 3,
    X86_OF = 4,
    X86_BR = 5,
    X86_UD = 6,
    X86_NM = 7,
    X86_DF = 8,
    X86_TS = 10,
    X86_NP = 11,
    X86_SS = 12,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC = 17,
    X86_MC = 18,
    X86_XM = 19,
};

#define X86_PF_P (1u << 0)
#define X86_PF_W (1u << 1)
#define X86_PF_U (1u << 2)
#define X86_PF_RSVD (1u << 3)
#define X86_PF_I (1u << 4)

/* Error code of a selector fault: bit 0 EXT, bit 1 IDT, bit 2 TI. */
#define X86_SELERR_EXT (1u << 0)
#define X86_SELERR_IDT (1u << 1)

#endif
