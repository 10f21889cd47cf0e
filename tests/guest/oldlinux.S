/*
 * What the decompressor of a Linux 2.4 or early 2.6 bzImage asks of a loader that enters it
 * in 32-bit mode: the sizes of extended memory, which it looks at before anything else; its
 * output from 0x2000 up to the zero page; code of its own at 0x1000, which it reaches by a
 * far jump and where it loads segment registers. After that the zero page and the command
 * line must still be there.
 */
    .text
    .globl _start
_start: /* linked so that the 32-bit part is at 1 MiB */
    .org 0x1f1
    .byte 1
    .org 0x1fe
    .word 0xaa55
    .byte 0xeb, header_end - _start - 0x202
    .ascii "HdrS"
    .word 0x0203
    .org 0x211
    .byte 1
    .word 0
    .long 0x100000
    .org 0x22c
    .long 0x37ffffff
header_end:
    .org 0x400

    .code32
    mov %esi, %ebp
    mov $0x9f000, %esp
    mov $small, %esi
    cmpw $3 * 1024, 2(%ebp)
    jb failed
    cmpl $63 * 1024, 0x1e0(%ebp)
    jne failed

    mov $0x2000, %edi
    mov %ebp, %ecx
    and $~0xfff, %ecx
    sub %edi, %ecx
    mov $near, %esi
    jbe failed
    mov $0xcc, %al
    rep stosb
    mov $moved, %esi
    mov $0x1000, %edi
    mov $moved_end - moved, %ecx
    rep movsb
    ljmp $0x10, $0x1000

moved:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $back, %eax
    jmp *%eax
moved_end:

back:
    mov $command, %esi
    mov 0x228(%ebp), %eax
    cmpl $0x736e6f63, (%eax) /* "cons", of the default */
    jne failed
    cmpl $0x53726448, 0x202(%ebp)
    jne failed
    mov $passed, %esi
    call print
    xor %eax, %eax
    jmp end
failed:
    call print
    mov $1, %al
end:
    out %al, $0xf4
1:  hlt
    jmp 1b

print:
    mov $0x3f8, %edx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  ret

small: .asciz "FAILED: Less than 4MB of memory\n"
near: .asciz "FAILED: the zero page is too low\n"
command: .asciz "FAILED: zero page or command line is overwritten\n"
passed: .asciz "PASSED\n"
