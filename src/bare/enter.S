/*
 * The world switch: uint64_t bare_vmrun(vmcb, gpr, host), in RDI, RSI, RDX: physical
 * addresses of the guest's control block and of the page that keeps the host's FS, GS, TR
 * and system-call registers, and the guest's general registers in the order of enum
 * vcpu_reg. RAX and RSP are in the control block. AMD64 APM volume 2, "VMRUN Instruction"
 * and "Global Interrupt Flag, STGI and CLGI Instructions".
 *
 * IF is set, and GIF clear around VMRUN (by bare_svm_enter()), so that an interrupt of the
 * host's waits until the guest runs, ends its run, and is taken behind STGI.
 */
#define GPR(n) 8 * n(%rsi)

    .text
    .globl bare_vmrun
bare_vmrun:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rsi
    push %rdx
    mov %rdi, %rax
    vmload %rax
    mov GPR(1), %rcx
    mov GPR(2), %rdx
    mov GPR(3), %rbx
    mov GPR(5), %rbp
    mov GPR(7), %rdi
    mov GPR(8), %r8
    mov GPR(9), %r9
    mov GPR(10), %r10
    mov GPR(11), %r11
    mov GPR(12), %r12
    mov GPR(13), %r13
    mov GPR(14), %r14
    mov GPR(15), %r15
    mov GPR(6), %rsi
    vmrun %rax
    vmsave %rax
    push %rsi
    mov 16(%rsp), %rsi
    popq GPR(6)
    mov %rcx, GPR(1)
    mov %rdx, GPR(2)
    mov %rbx, GPR(3)
    mov %rbp, GPR(5)
    mov %rdi, GPR(7)
    mov %r8, GPR(8)
    mov %r9, GPR(9)
    mov %r10, GPR(10)
    mov %r11, GPR(11)
    mov %r12, GPR(12)
    mov %r13, GPR(13)
    mov %r14, GPR(14)
    mov %r15, GPR(15)
    pop %rax
    vmload %rax
    pop %rsi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    stgi
    ret

    .section .note.GNU-stack, "", @progbits
