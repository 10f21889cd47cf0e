/*
 * Multiboot (version 1) entry. The loader leaves 32-bit protected mode, flat segments,
 * paging off, the magic number in eax and the information in ebx.
 *
 * Both builds come out of here with paging on: an identity map of the first 4 GiB by large
 * pages, global and open to user code, since the code that runs at CPL 3 lies in the same
 * image. The 64-bit build is in long mode then.
 */
#include "x86/cr.h"
#include "x86/msr.h"

#define PTE_PWU 7
#define PTE_LARGE 0x187 /* P, W, U, PS, G */

    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl start
start:
    cli
    cld
    mov $boot_stack_top, %esp
    push $0
    popf
    mov %eax, boot_magic
    mov %ebx, boot_info
#ifdef __x86_64__
    mov $0x80000001, %eax
    cpuid
    bt $29, %edx
    jnc no_long_mode
    /* PML4[0] -> PDPT[0..3] -> four page directories of 2 MiB pages. */
    movl $boot_pdpt + PTE_PWU, boot_root
    mov $boot_pd + PTE_PWU, %eax
    mov $boot_pdpt, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    loop 1b
    mov $PTE_LARGE, %eax
    mov $boot_pd, %edi
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    mov $(X86_CR4_PAE | X86_CR4_PGE), %eax
    mov %eax, %cr4
    mov $boot_root, %eax
    mov %eax, %cr3
    mov $X86_MSR_EFER, %ecx
    rdmsr
    or $(X86_EFER_LME | X86_EFER_SCE), %eax
    wrmsr
    mov $(X86_CR0_PG | X86_CR0_WP | X86_CR0_ET | X86_CR0_PE), %eax
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $enter64
    .code64
enter64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $boot_stack_top, %rsp
    xor %ebp, %ebp
#else
    mov $PTE_LARGE, %eax
    mov $boot_root, %edi
    mov $1024, %ecx
1:  mov %eax, (%edi)
    add $0x400000, %eax
    add $4, %edi
    loop 1b
    mov $(X86_CR4_PSE | X86_CR4_PGE), %eax
    mov %eax, %cr4
    mov $boot_root, %eax
    mov %eax, %cr3
    mov $(X86_CR0_PG | X86_CR0_WP | X86_CR0_ET | X86_CR0_PE), %eax
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %ebp, %ebp
#endif
    call frob_main
1:  hlt
    jmp 1b

#ifdef __x86_64__
    .code32
no_long_mode:
    mov $no_long_mode_text, %esi
1:  lodsb
    test %al, %al
    jz 2f
    mov %al, %ah
    mov $0x3fd, %dx
3:  in %dx, %al
    test $0x20, %al
    jz 3b
    mov $0x3f8, %dx
    mov %ah, %al
    out %al, %dx
    jmp 1b
2:  mov $2, %al
    out %al, $0xf4
    hlt
    jmp 2b
no_long_mode_text:
    .asciz "fatal this CPU has no long mode; boot frob32 instead\r\n"
#endif

    .data
    .align 8
boot_gdt:
    .quad 0
#ifdef __x86_64__
    .quad 0x00af9b000000ffff
#else
    .quad 0x00cf9b000000ffff
#endif
    .quad 0x00cf93000000ffff
boot_gdtr:
    .word 23
    .long boot_gdt, 0
    .globl boot_magic, boot_info
boot_magic:
    .long 0
boot_info:
    .long 0

    .bss
    .align 4096
    .globl boot_root
boot_root:
    .skip 4096
#ifdef __x86_64__
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4 * 4096
#endif
boot_stack:
    .skip 16384
boot_stack_top:
    .section .note.GNU-stack, "", @progbits
