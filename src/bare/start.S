/*
 * Where a multiboot loader begins bivisor.elf: 32-bit protected mode, paging off, EAX the
 * magic number, EBX the address of the loader's information. (Multiboot Specification,
 * version 0.6.96, "Machine state".) From here to long mode with the first 4 GiB mapped
 * one to one, writable and executable; bare/page.c makes better tables at once.
 */
#include "x86/cr.h"
#include "x86/msr.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 3 /* modules on pages; a map of memory */
#define PTE_TABLE 3       /* present, writable */
#define PTE_LARGE 0x83    /* the same, and 2 MiB */
#define STACK_SIZE 0x40000

    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_MAGIC
    .long MULTIBOOT_FLAGS
    .long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

    .section .start, "ax"
    .code32
    .globl bare_entry
bare_entry:
    cli
    cld
    mov $bare_stack_top, %esp
    mov %eax, %edi
    mov %ebx, %esi

    /* Four directories of 2 MiB pages. */
    mov $PTE_LARGE, %eax
    mov $boot_directories, %edx
    xor %ecx, %ecx
1:  mov %eax, (%edx)
    add $0x200000, %eax
    add $8, %edx
    inc %ecx
    cmp $2048, %ecx
    jb 1b
    mov $boot_directories + PTE_TABLE, %eax
    mov $boot_pointers, %edx
    mov $4, %ecx
2:  mov %eax, (%edx)
    add $0x1000, %eax
    add $8, %edx
    loop 2b
    movl $boot_pointers + PTE_TABLE, boot_root
    mov $first, %ebp

    /* To long mode, and on at the address in EBP. */
long_mode:
    mov $X86_CR4_PAE + X86_CR4_OSFXSR + X86_CR4_OSXMMEXCPT, %eax
    mov %eax, %cr4
    mov $boot_root, %eax
    mov %eax, %cr3
    mov $X86_MSR_EFER, %ecx
    rdmsr
    or $X86_EFER_LME, %eax
    wrmsr
    mov %cr0, %eax
    and $~(X86_CR0_EM + X86_CR0_TS), %eax
    or $X86_CR0_PG + X86_CR0_WP + X86_CR0_NE + X86_CR0_MP, %eax
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $3f

    .code64
3:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %ebp, %ebp
    jmp *%rbp

first:
    mov $bare_stack_top, %rsp
    mov %edi, %edi
    mov %esi, %esi
    xor %ebp, %ebp
    call bare_start
    call main
    mov %eax, %edi
    call bare_end
4:  cli
    hlt
    jmp 4b

    /* Another CPU takes what is in bare_next for its own; if that is nothing, it has come
     * too late. */
another:
    xor %edi, %edi
    xchg %rdi, bare_next
    test %rdi, %rdi
    jz 4b
    mov (%rdi), %rsp
    xor %ebp, %ebp
    call bare_cpu_main
    jmp 4b

    /* Where another CPU begins: in real mode, copied to a page below 1 MiB (cpus.c). The
     * memory above 1 MiB is as it will be. */
    .code16
    .globl bare_trampoline, bare_trampoline_end
bare_trampoline:
    cli
    mov %cs, %ax
    mov %ax, %ds
    lgdtl 5f - bare_trampoline
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $24, $6f
5:  .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
bare_trampoline_end:

    .code32
6:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $another, %ebp
    jmp long_mode

    .section .rodata, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cf9b000000ffff
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

    .data
    .balign 8
    .globl bare_next
bare_next:
    .quad 0

    .section .bss, "aw", @nobits
    .balign 4096
boot_root:
    .skip 4096
boot_pointers:
    .skip 4096
boot_directories:
    .skip 4 * 4096
    .skip STACK_SIZE
    .globl bare_stack_top
bare_stack_top:

    .section .note.GNU-stack, "", @progbits
