/*
 * Trap entries, and the way into and out of a snippet (guest_run, guest_unwind).
 * The frame that an entry builds is struct frame, the input of guest_run is struct regs:
 * both in guest.h, and in the same order.
 */
#ifdef __x86_64__
#define W 8
#define RSP %rsp
#else
#define W 4
#define RSP %esp
#endif
    .text
    .globl trap_stubs
    .align 16
trap_stubs:
    n = 0
    .rept 256
    .align 16
    .if (n == 8) || ((n >= 10) && (n <= 14)) || (n == 17)
    .else
    push $0
    .endif
    push $n
    jmp trap_common
    n = n + 1
    .endr

#ifdef __x86_64__
trap_common:
    cld
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %gs, %eax
    push %rax
    mov %fs, %eax
    push %rax
    mov %es, %eax
    push %rax
    mov %ds, %eax
    push %rax
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call trap_entry
    mov %rbp, %rsp
    pop %rax
    mov %eax, %ds
    pop %rax
    mov %eax, %es
    add $16, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

    .globl guest_run_asm
guest_run_asm:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    pushf
    mov %rsp, run_sp
    mov %rdi, %rax
    push 23 * W(%rax)           /* ss */
    push 19 * W(%rax)           /* sp */
    push 22 * W(%rax)           /* flags */
    push 21 * W(%rax)           /* cs */
    push 20 * W(%rax)           /* ip */
    mov 0 * W(%rax), %ecx
    mov %ecx, %ds
    mov 1 * W(%rax), %ecx
    mov %ecx, %es
    mov 2 * W(%rax), %ecx
    test %ecx, %ecx
    jz 1f
    mov %ecx, %fs
1:  mov 3 * W(%rax), %ecx
    test %ecx, %ecx
    jz 1f
    mov %ecx, %gs
1:  mov 4 * W(%rax), %r15
    mov 5 * W(%rax), %r14
    mov 6 * W(%rax), %r13
    mov 7 * W(%rax), %r12
    mov 8 * W(%rax), %r11
    mov 9 * W(%rax), %r10
    mov 10 * W(%rax), %r9
    mov 11 * W(%rax), %r8
    mov 12 * W(%rax), %rdi
    mov 13 * W(%rax), %rsi
    mov 14 * W(%rax), %rbp
    mov 15 * W(%rax), %rbx
    mov 16 * W(%rax), %rdx
    mov 17 * W(%rax), %rcx
    mov 18 * W(%rax), %rax
    .globl guest_run_iret
guest_run_iret:
    iretq

    .globl guest_unwind
guest_unwind:
    mov $0x10, %eax
    mov %eax, %ss
    mov run_sp, %rsp
    movq $0, run_sp
    popf
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
#else
trap_common:
    cld
    push %eax
    push %ecx
    push %edx
    push %ebx
    push %ebp
    push %esi
    push %edi
    mov %gs, %eax               /* PUSH of a segment register may write two bytes only */
    push %eax
    mov %fs, %eax
    push %eax
    mov %es, %eax
    push %eax
    mov %ds, %eax
    push %eax
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss               /* test stacks have base 0 */
    mov %esp, %eax
    push %eax
    call trap_entry
    add $4, %esp
    pop %ds
    pop %es
    pop %fs
    pop %gs
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    pop %edx
    pop %ecx
    pop %eax
    add $8, %esp
    iretl

    .globl guest_run_asm
guest_run_asm:
    mov 4(%esp), %eax
    push %ebp
    push %ebx
    push %esi
    push %edi
    pushf
    mov %esp, run_sp
    testl $1 << 17, 14 * W(%eax)
    jnz 1f
    testb $3, 13 * W(%eax)
    jnz 2f
    mov 15 * W(%eax), %ss
    mov 11 * W(%eax), %esp
    jmp 3f
1:  push 3 * W(%eax)            /* to virtual-8086 mode: gs fs ds es */
    push 2 * W(%eax)
    push 0 * W(%eax)
    push 1 * W(%eax)
2:  push 15 * W(%eax)
    push 11 * W(%eax)
3:  push 14 * W(%eax)
    push 13 * W(%eax)
    push 12 * W(%eax)
    testl $1 << 17, 14 * W(%eax)
    jz 1f
    push $0x10
    jmp 2f
1:  push 0 * W(%eax)
    mov 1 * W(%eax), %es
    mov 2 * W(%eax), %fs
    mov 3 * W(%eax), %gs
2:  mov 4 * W(%eax), %edi
    mov 5 * W(%eax), %esi
    mov 6 * W(%eax), %ebp
    mov 7 * W(%eax), %ebx
    mov 8 * W(%eax), %edx
    mov 9 * W(%eax), %ecx
    mov 10 * W(%eax), %eax
    pop %ds
    .globl guest_run_iret
guest_run_iret:
    iretl

    .globl guest_unwind
guest_unwind:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov run_sp, %esp
    movl $0, run_sp
    popf
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret
#endif
    .section .note.GNU-stack, "", @progbits
