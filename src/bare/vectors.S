/*
 * Where the CPU goes for exceptions and interrupts: each of 256 vectors has an entry of
 * 16 bytes, which makes the frame alike (struct bare_frame in bare_int.h) and calls
 * bare_trap(). All run on stacks of their own (the TSS's IST), so that the red zone of
 * what was interrupted, and a guest's stack pointer, are left alone.
 */
    .text
    .globl bare_vectors
    .balign 16
bare_vectors:
    .set vector, 0
    .rept 256
    .balign 16
    /* Those that push an error code: AMD64 APM volume 2, "Error Codes". */
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp common
    .set vector, vector + 1
    .endr

common:
    push %r15
    push %r14
    push %r13
    push %r12
    push %r11
    push %r10
    push %r9
    push %r8
    push %rdi
    push %rsi
    push %rbp
    pushq 16 * 8(%rsp) /* RSP of the interrupted, so that all are in the order of enum vcpu_reg */
    push %rbx
    push %rdx
    push %rcx
    push %rax
    cld
    mov %rsp, %rdi
    call bare_trap
    pop %rax
    pop %rcx
    pop %rdx
    pop %rbx
    add $8, %rsp
    pop %rbp
    pop %rsi
    pop %rdi
    pop %r8
    pop %r9
    pop %r10
    pop %r11
    pop %r12
    pop %r13
    pop %r14
    pop %r15
    add $16, %rsp
    iretq

    .section .note.GNU-stack, "", @progbits
