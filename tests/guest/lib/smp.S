/*
 * How the other processors come from INIT and SIPI into the guest's mode: smp.c copies the
 * first part below 1 MiB. They share the boot processor's tables, and each has a stack.
 */
    .text
    .globl smp_trampoline, smp_trampoline_end
    .code16
smp_trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl smp_gdtr_copy - smp_trampoline
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x38, $smp_protected
    .align 8
smp_gdtr_copy:
    .word 48 * 8 - 1
    .long gdt
smp_trampoline_end:

    .code32
smp_protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
#ifdef __x86_64__
    mov $0x20, %eax             /* PAE */
    mov %eax, %cr4
    mov smp_cr3, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER.LME, NXE, SCE */
    rdmsr
    or $0x901, %eax
    wrmsr
    mov $0x80010011, %eax       /* PG, WP, ET, PE */
    mov %eax, %cr0
    ljmp $8, $1f
    .code64
1:
#else
    mov $0x11, %eax             /* ET, PE */
    mov %eax, %cr0
    ljmp $8, $1f
1:
#endif
    lidt smp_idtr
    mov $1, %eax
    lock xaddl %eax, smp_arrived
    inc %eax                    /* the boot processor is 0 */
    mov %eax, %ecx
    shl $13, %ecx
#ifdef __x86_64__
    lea smp_stacks(%rcx), %rsp
    xor %ebp, %ebp
    mov %eax, %edi
#else
    lea smp_stacks(%ecx), %esp
    xor %ebp, %ebp
    push %eax
#endif
    call smp_other
1:  hlt
    jmp 1b

/* Interrupt handlers that may be on several processors at once, which those of trap.S may
 * not. */
.macro handler name, function
    .globl \name
\name:
#ifdef __x86_64__
    .irp r, rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11
    push %\r
    .endr
    cld
    call \function
    .irp r, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax
    pop %\r
    .endr
    iretq
#else
    pusha
    cld
    call \function
    popa
    iret
#endif
.endm
    handler smp_ipi_entry, smp_ipi
    handler smp_wake_entry, smp_wake

/* A breakpoint over the first byte of `mov $imm32, %eax`: the rest is skipped, eax is 1. */
    .globl smp_int3_entry
smp_int3_entry:
#ifdef __x86_64__
    addq $4, (%rsp)
    mov $1, %eax
    iretq
#else
    addl $4, (%esp)
    mov $1, %eax
    iret
#endif

    .bss
    .align 4096
smp_stacks_begin:
    .skip 8 * 8192
    .globl smp_stacks
    .set smp_stacks, smp_stacks_begin
    .section .note.GNU-stack, "", @progbits
