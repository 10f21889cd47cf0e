/*
 * Entry points: unexpected exceptions, the short handlers that benchmarks install, the ways
 * into an outer ring and back.
 *
 * The short handlers do what a benchmark needs and no more: count, and go on at the address
 * that the interrupted code keeps in rbx (ebx). They use no other register.
 */
#include "frob.h"

#ifdef __x86_64__
#define PTR .quad
#define W 8
#define MOV movq
#define INC incq
#define PUSH pushq
#define POP popq
#define BX %rbx
#define AX %rax
#define SP %rsp
#define VAR(x) x(%rip)
#define IRET iretq
#else
#define PTR .long
#define W 4
#define MOV movl
#define INC incl
#define PUSH pushl
#define POP popl
#define BX %ebx
#define AX %eax
#define SP %esp
#define VAR(x) x
#define IRET iretl
#endif

    .text

/* --- exceptions that nobody expects --- */
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set n, 0
    .rept 256
    .balign 16
    /* Those that come with an error code; the others get one. */
    .if !((n == 8) || ((n >= 10) && (n <= 14)) || (n == 17) || (n == 21))
    PUSH $0
    .endif
    PUSH $n
    jmp unexpected
    .set n, n + 1
    .endr

/* frob_unexpected(vector, error, ip): does not come back. */
unexpected:
#ifdef __x86_64__
    mov (%rsp), %rdi
    mov 8(%rsp), %rsi
    mov 16(%rsp), %rdx
    and $-16, %rsp
#else
    mov 8(%esp), %eax
    mov 4(%esp), %ecx
    mov (%esp), %edx
    push %eax
    push %ecx
    push %edx
#endif
    call frob_unexpected

/* --- short handlers --- */
    .balign 64
    .globl on_page_fault
on_page_fault:
    POP VAR(fault_error)
    INC VAR(fault_count)
    MOV BX, (SP)
    IRET

    .balign 64
    .globl on_divide_error
on_divide_error:
    INC VAR(fault_count)
    MOV BX, (SP)
    IRET

    .balign 64
    .globl on_int80
on_int80:
    INC VAR(fault_count)
    IRET

/* A process gives way to the one whose address space is next_root. */
    .balign 64
    .globl on_switch
on_switch:
    PUSH AX
    MOV VAR(next_root), AX
    mov AX, %cr3
    POP AX
    IRET

/* An interrupt of the local APIC: count, end of interrupt. */
    .balign 64
    .globl on_apic_interrupt
on_apic_interrupt:
    INC VAR(irq_count)
    PUSH AX
    MOV VAR(apic_eoi), AX
    movl $0, (AX)
    POP AX
    IRET

    .balign 64
    .globl on_syscall
on_syscall:
    INC VAR(fault_count)
#ifdef __x86_64__
    sysretq
#else
    sysexit /* SYSENTER: edx and ecx are where to go and the stack */
#endif

/* --- rings ---
 * ring_call(cs, ss, flags, fn, arg): runs fn(arg) at the ring of these selectors; comes back
 * by the #UD at ring_exit (not by INT n, which some emulators behind KVM do not know in
 * long mode). The inner stack of the TSS is used for that one exception and is otherwise
 * free.
 */
    .globl ring_call
ring_call:
#ifdef __x86_64__
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, ring_saved_sp(%rip)
    lea user_stack + USER_STACK_SIZE - 16(%rip), %rax
    lea ring_exit(%rip), %rbx
    mov %rbx, -8(%rax)
    sub $8, %rax
    push %rsi
    push %rax
    push %rdx
    push %rdi
    push %rcx
    mov %r8, %rdi
    iretq
    .globl on_ring_exit
on_ring_exit:
    lea ring_exit(%rip), %rax
    cmp %rax, (%rsp)
    jne bad_opcode
    mov ring_saved_sp(%rip), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
#else
    push %ebx
    push %ebp
    push %esi
    push %edi
    mov %esp, ring_saved_sp
    mov 36(%esp), %ecx
    mov $user_stack + USER_STACK_SIZE - 16, %eax
    mov %ecx, (%eax)
    movl $ring_exit, -4(%eax)
    sub $4, %eax
    mov 24(%esp), %edx
    mov 28(%esp), %ebx
    mov 20(%esp), %ecx
    mov 32(%esp), %esi
    test $3, %ecx
    jz 1f
    push %edx
    push %eax
    jmp 2f
1:  mov %eax, %esp /* to the same ring IRET leaves the stack alone */
2:  push %ebx
    push %ecx
    push %esi
    iretl
    .globl on_ring_exit
on_ring_exit:
    cmpl $ring_exit, (%esp)
    jne bad_opcode
    mov ring_saved_sp, %esp
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    ret
#endif
ring_exit:
    ud2
bad_opcode:
    PUSH $0
    PUSH $6
    jmp unexpected

    .data
    .balign 8
    .globl fault_count, fault_error, irq_count, apic_eoi, next_root
ring_saved_sp:
    PTR 0
    .balign 64
fault_count:
    PTR 0
fault_error:
    PTR 0
irq_count:
    PTR 0
apic_eoi:
    PTR 0
next_root:
    PTR 0

    .bss
    .balign 4096
    .globl user_stack, trap_stack
user_stack:
    .skip USER_STACK_SIZE
trap_stack:
    .skip TRAP_STACK_SIZE
    .section .note.GNU-stack, "", @progbits
