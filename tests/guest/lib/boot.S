/*
 * Multiboot (v1) entry of a guest. The loader leaves 32-bit protected mode with flat
 * segments and paging off; the 32-bit guests stay there, the 64-bit ones build an
 * identity map of 4 GiB in 2 MiB pages (user-accessible: the guests' ring-3 snippets
 * live in the same image) and enter long mode.
 */
    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl start
start:
    cli
    cld
    mov %eax, boot_magic
    mov %ebx, boot_info
    mov $boot_stack_top, %esp
    push $0
    popf
#ifdef __x86_64__
    /* PML4[0] -> PDPT[0..3] -> four page directories of 2 MiB pages. */
    mov $boot_pdpt + 7, %eax
    mov %eax, boot_pml4
    mov $boot_pd + 7, %eax
    mov $boot_pdpt, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    loop 1b
    mov $0x87, %eax
    mov $boot_pd, %edi
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    mov $0x20, %eax             /* PAE */
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER.LME, NXE, SCE */
    rdmsr
    or $0x901, %eax
    wrmsr
    mov $0x80000011, %eax       /* PG, ET, PE */
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $enter64
    .code64
enter64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $boot_stack_top, %esp
    xor %ebp, %ebp
#else
    lgdt boot_gdtr
    ljmp $8, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x11, %eax             /* ET, PE: the loader may have left more */
    mov %eax, %cr0
    xor %eax, %eax
    mov %eax, %cr4
#endif
    call guest_start
1:  hlt
    jmp 1b

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
/* As the loader left them. */
    .globl boot_magic, boot_info
boot_magic:
    .long 0
boot_info:
    .long 0

    .bss
    .align 4096
#ifdef __x86_64__
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4 * 4096
#endif
boot_stack:
    .skip 32768
    .globl boot_stack_top
boot_stack_top:
    .section .note.GNU-stack, "", @progbits
