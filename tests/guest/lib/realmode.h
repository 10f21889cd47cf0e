/*
 * Real mode and virtual-8086 mode. A snippet runs from `in` like any other, with its code
 * copied to low memory; in real mode every vector of the interrupt table leads back to
 * protected mode, where `trap` tells how it ended. 32-bit guests only.
 *
 *     regs_real();
 *     REAL("mov ax, [bx]");
 */
#ifndef REALMODE_H
#define REALMODE_H

#include "guest.h"

#define CODE_AT 0x3000u   /* where the code of a snippet is, at offset 0 of its CS */
#define STACK_SEG 0x2000u /* what regs_real() makes SS, with SP 8000h */

/* What protected mode loads into ds, es, fs, gs, ss on the way to real mode: their limits
 * stay. At the start fs has 4 GiB. ds must reach the 6 KiB above 4000h. */
extern uint16_t real_selectors[5];
extern uint32_t real_idt_base;
extern unsigned real_idt_limit;

void real_init(void);
void regs_real(void);
/* Of ip, flags and, unless ss has the B bit, sp there are 16 bits. */
unsigned run_real(const void *code);
unsigned run_v86(const void *code);
#define REAL(text) run_real(CODE16(text))
#define V86(text) run_v86(CODE16(text))

#endif
