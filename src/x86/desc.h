/*
 * Segment descriptors and the "access rights" word in which the vCPU keeps them:
 * bits 8..23 of a descriptor's second doubleword, shifted down by 8, with the limit
 * bits (8..11 of the word) cleared. AMD64 APM volume 2, "Segmented Virtual Memory".
 * Freestanding.
 */
#ifndef X86_DESC_H
#define X86_DESC_H

#define X86_AR_TYPE 0x000fu /* for S=1: bit 0 A, 1 W or R, 2 E or C, 3 code */
#define X86_AR_ACCESSED 0x0001u
#define X86_AR_WRITE 0x0002u   /* data: writable; code: readable */
#define X86_AR_EXPDOWN 0x0004u /* data: expand-down; code: conforming */
#define X86_AR_CODE 0x0008u
#define X86_AR_S 0x0010u
#define X86_AR_DPL 0x0060u
#define X86_AR_DPL_SHIFT 5
#define X86_AR_P 0x0080u
#define X86_AR_AVL 0x1000u
#define X86_AR_L 0x2000u
#define X86_AR_DB 0x4000u
#define X86_AR_G 0x8000u

/* System descriptor types (S=0). */
enum x86_sysdesc {
    X86_DESC_TSS16 = 1,
    X86_DESC_LDT = 2,
    X86_DESC_TSS16_BUSY = 3,
    X86_DESC_CALLGATE16 = 4,
    X86_DESC_TASKGATE = 5,
    X86_DESC_INTGATE16 = 6,
    X86_DESC_TRAPGATE16 = 7,
    X86_DESC_TSS32 = 9, /* in long mode: 64-bit TSS */
    X86_DESC_TSS32_BUSY = 11,
    X86_DESC_CALLGATE32 = 12,
    X86_DESC_INTGATE32 = 14,
    X86_DESC_TRAPGATE32 = 15,
};

#define X86_SEL_RPL 3u
#define X86_SEL_TI 4u

#endif
