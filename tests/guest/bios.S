/*
 * The board's ROM, seen by a 16-bit setup: the state at its entry, then each service of
 * guest/bios/bios.S. A file like a kernel's, with no 32-bit entry (code32_start is 0), so
 * that it starts through linux16 by itself.
 */
    .code16
    .text
    .globl _start
_start:
    .org 0x1f1
    .byte 15                            /* setup_sects; the "kernel" is a sector */
    .word 0
    .long 512 / 16
    .org 0x1fe
    .word 0xaa55
    .byte 0xeb, header_end - 0x202
    .ascii "HdrS"
    .word 0x0207
    .long 0
    .word 0, 0
    .byte 0
    .byte 1                             /* loadflags: LOADED_HIGH */
    .word 0
    .long 0                             /* code32_start */
    .long 0, 0, 0
    .word 0, 0
    .long 0, 0x7fffffff, 0
    .word 0, 0
    .long 255, 0
    .quad 0
header_end:

    /* Subsection 2 has the names of what fails. */
    .macro name text
    .pushsection .text, 2
8:  .asciz "\text"
    .popsection
    .endm
    .macro bad text
    name "\text"
    movw $8b, %si
    jmp failed
    .endm
    .macro unless cc, text
    j\cc 7f
    bad "\text"
7:
    .endm
    .macro expect what, value
    cmp \value, \what
    unless e, "\what is not \value"
    .endm
    .macro expectw at, value
    cmpw $\value, \at
    unless e, "\at is not \value"
    .endm
    .macro expectl at, value
    cmpl $\value, \at
    unless e, "\at is not \value"
    .endm
    .macro expect_error text
    unless c, "no error: \text"
    .endm
    .macro expect_success text
    unless nc, "an error: \text"
    .endm

#define SAVED 0x5000 /* in the setup's segment, above all of it */

    /* CS is 20h above the other segments, and all addresses here are theirs. */
#define CODE(label) (label - 0x200)

    pushfw
    popw %ax
    testw $0x200, %ax
    unless z, "interrupts are on at the entry"
    expect %sp, $0xe000
    movw %cs, %ax
    subw $0x20, %ax
    movw %ds, %bx
    expect %bx, %ax
    movw %es, %bx
    expect %bx, %ax
    movw %fs, %bx
    expect %bx, %ax
    movw %gs, %bx
    expect %bx, %ax
    movw %ss, %bx
    expect %bx, %ax
    sti

    /* A service changes what it returns and nothing else. */
    movl $0xa1a2a3a4, %eax
    movl $0xb1b2b3b4, %ebx
    movl $0xc1c2c3c4, %ecx
    movl $0xd1d2d3d4, %edx
    movl $0xe1e2e3e4, %esi
    movl $0xf1f2f3f4, %edi
    movl $0x91929394, %ebp
    stc
    int $0x12
    expect_error "int 12h changes flags"
    expect %eax, $0xa1a2027f
    expect %ebx, $0xb1b2b3b4
    expect %ecx, $0xc1c2c3c4
    expect %edx, $0xd1d2d3d4
    expect %esi, $0xe1e2e3e4
    expect %edi, $0xf1f2f3f4
    expect %ebp, $0x91929394
    int $0x11
    expect %ax, $0x222

    call memory
    call gate
    call disk
    call video
    call keyboard
    call time

    movw $passed, %si
    call print
    movb $0, %al
    outb %al, $0xf4
1:  hlt
    jmp 1b

failed:
    movw $failed_text, %bx
    xchgw %si, %bx
    call print
    movw %bx, %si
    call print
    movw $newline, %si
    call print
    movb $1, %al
    outb %al, $0xf4
1:  hlt
    jmp 1b

print:
    pushal
1:  lodsb
    testb %al, %al
    jz 2f
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    jmp 1b
2:  popal
    ret

/* --- INT 15h. The runner gives 64 MiB --- */

memory:
    xorl %ebx, %ebx
    movw $SAVED, %di
    xorw %bp, %bp
1:  movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $24, %ecx
    int $0x15
    expect_success "E820"
    expect %eax, $0x534d4150
    expect %ecx, $20
    incw %bp
    addw $20, %di
    testl %ebx, %ebx
    jz 2f
    cmpw $64, %bp
    jb 1b
    bad "E820 does not end"
2:  expect %bp, $6
    expectl SAVED, 0
    expectl SAVED + 8, 0x9fc00
    expectl SAVED + 16, 1
    expectl SAVED + 80, 0x100000
    expectl SAVED + 88, 63 << 20
    expectl SAVED + 96, 1
    expectl SAVED + 100, 0xffff0000
    expectl SAVED + 108, 0x10000
    expectl SAVED + 116, 2
    movl $0xe820, %eax
    movl $6, %ebx
    int $0x15
    expect_error "E820 after the last entry"
    movl $0xe820, %eax
    movl $-1, %ebx
    int $0x15
    expect_error "E820, entry -1"
    movl $0xe820, %eax
    xorl %ebx, %ebx
    incl %edx
    int $0x15
    expect_error "E820 without its signature"
    movl $0xe820, %eax
    decl %edx
    movl $19, %ecx
    int $0x15
    expect_error "E820 with a small buffer"
    expect %ah, $0x86
    movw $0xe801, %ax
    int $0x15
    expect_success "E801"
    expect %ax, $0x3c00
    expect %cx, $0x3c00
    expect %bx, $0x300
    expect %dx, $0x300
    movb $0x88, %ah
    int $0x15
    expect_success "88h"
    expect %ax, $0xfc00
    movw $0xe881, %ax
    int $0x15
    expect_error "E881"
    movb $0x53, %ah
    int $0x15
    expect_error "APM"
    pushw %es
    movb $0xc0, %ah
    int $0x15
    expect_success "C0h"
    expect %ah, $0
    expectw %es:(%bx), 8
    movb %es:2(%bx), %al
    expect %al, $0xfc
    popw %es
    ret

/* --- the A20 gate: ffff:0510 is 0:0500 or 1 MiB above it --- */

    .macro wrapped
    pushw %ds
    pushw %es
    xorw %ax, %ax
    movw %ax, %ds
    decw %ax
    movw %ax, %es
    movb $0x55, %es:0x510
    movb $0xaa, 0x500
    movb %es:0x510, %al
    popw %es
    popw %ds
    .endm

gate:
    movw $0x2403, %ax
    int $0x15
    expect_success "2403"
    expect %bx, $3
    movw $0x2400, %ax
    int $0x15
    expect_success "2400"
    expect %ah, $0
    wrapped
    expect %al, $0xaa
    movw $0x2402, %ax
    int $0x15
    expect %al, $0
    movw $0x2401, %ax
    int $0x15
    expect_success "2401"
    wrapped
    expect %al, $0x55
    movw $0x2402, %ax
    int $0x15
    expect %al, $1
    movw $0x2404, %ax
    int $0x15
    expect_error "2404"
    ret

disk:
    movw $0x0201, %ax
    movw $1, %cx
    movw $0x80, %dx
    movw $SAVED, %bx
    int $0x13
    expect_error "read a disk"
    movb $0x41, %ah
    movw $0x55aa, %bx
    int $0x13
    expect_error "extensions of a disk"
    movb $0x08, %ah
    xorw %dx, %dx
    int $0x13
    expect_error "parameters of a floppy disk"
    expect %ah, $1
    ret

/* --- INT 10h --- */

    .macro move row, column
    movb $2, %ah
    movb $0, %bh
    movw $(\row) << 8 | (\column), %dx
    int $0x10
    .endm
    .macro cursor_at row, column
    movb $3, %ah
    movb $0, %bh
    int $0x10
    expect %dx, $(\row) << 8 | (\column)
    .endm
    .macro cell row, column, value
    movw %fs:((\row) * 80 + (\column)) * 2, %ax
    expect %ax, \value
    .endm

video:
    pushw %fs
    movw $0xb800, %ax
    movw %ax, %fs
    movw $0x0003, %ax
    int $0x10
    movb $0x0f, %ah
    int $0x10
    expect %ax, $0x5003
    expect %bh, $0
    cell 0, 0, $0x0720
    move 5, 7
    cursor_at 5, 7
    move 25, 0
    cursor_at 5, 7
    movw $0x0958, %ax
    movw $0x001f, %bx
    movw $3, %cx
    int $0x10
    movb $8, %ah
    int $0x10
    expect %ax, $0x1f58
    cell 5, 9, $0x1f58
    cell 5, 10, $0x0720
    movw $0x0a59, %ax
    movw $1, %cx
    int $0x10
    cell 5, 7, $0x1f59
    movw $0x0958, %ax
    movw $0xffff, %cx /* to the screen's end and no further */
    movw %fs:4000, %dx
    int $0x10
    cell 24, 79, $0x1f58
    cmpw %fs:4000, %dx
    unless e, "written beyond the screen"
    movw $0x0003, %ax
    int $0x10

    /* Types "ab", back, "c", return, "d", next line: at the lower edge the screen moves. */
    move 24, 78
    movw $typed, %si
    call print
    cursor_at 24, 1
    cell 23, 78, $0x0761
    cell 23, 79, $0x0762
    cell 24, 0, $0x0764
    cell 22, 79, $0x0720

    /* A window of 3 rows and 2 columns. */
    movw $2 << 8 | 10, %cx
    movw $4 << 8 | 11, %dx
    movw $0x0600, %ax
    movb $0x2f, %bh
    int $0x10
    cell 2, 10, $0x2f20
    cell 4, 11, $0x2f20
    cell 4, 12, $0x0720
    cell 5, 10, $0x0720
    cell 1, 10, $0x0720
    movw $0x0741, %fs:(3 * 80 + 10) * 2
    movw $0x0601, %ax
    movb $0x4f, %bh
    int $0x10
    cell 2, 10, $0x0741
    cell 3, 10, $0x2f20
    cell 4, 10, $0x4f20
    movw $0x0702, %ax
    movb $0x5f, %bh
    int $0x10
    cell 4, 10, $0x0741
    cell 3, 10, $0x5f20
    cell 2, 11, $0x5f20
    movw $0x0601, %ax
    movw $0xffff, %dx
    movw $0xfffe, %cx
    int $0x10 /* no window */
    cell 4, 10, $0x0741

    movw $string, %bp
    movw $3, %cx
    movw $7 << 8 | 20, %dx
    movw $0x1301, %ax
    movw $0x001e, %bx
    int $0x10
    cell 7, 20, $0x1e78
    cell 7, 22, $0x1e7a
    cursor_at 7, 23
    movw $0x1a00, %ax
    int $0x10
    expect %al, $0x1a
    expect %bl, $8
    movb $0x12, %ah
    movb $0x10, %bl
    int $0x10
    expect %bl, $3
    movw $0x4f00, %ax
    int $0x10
    expect %ax, $0x4f00
    movw $0x0003, %ax
    int $0x10
    popw %fs
    ret

/* --- INT 16h: nothing is typed --- */

keyboard:
    movb $1, %ah
    int $0x16
    unless z, "a key that nobody pressed"
    movb $2, %ah
    int $0x16
    expect %al, $0
    movw $15, %dx
2:  movb $5, %ah
    movw %dx, %cx
    int $0x16
    expect %al, $0
    decw %dx
    jnz 2b
    movb $5, %ah
    int $0x16
    expect %al, $1 /* the ring is full */
    movw $15, %dx
3:  movb $0x11, %ah
    int $0x16
    unless nz, "the key is lost"
    expect %ax, %dx
    movb $0x10, %ah
    int $0x16
    expect %ax, %dx
    decw %dx
    jnz 3b
    movb $1, %ah
    int $0x16
    unless z, "a key twice"
    ret

/* --- INT 1Ah and the timer --- */

time:
    movw $0, ticked
    pushw %ds
    xorw %ax, %ax
    movw %ax, %ds
    movw $CODE(on_tick), 0x1c * 4
    movw %cs, 0x1c * 4 + 2
    popw %ds
    movb $1, %ah
    movw $0x18, %cx
    movw $0x00ae, %dx
    int $0x1a
1:  hlt
    cmpw $2, ticked
    jb 1b
    movb $0, %ah
    int $0x1a
    expect_success "ticks"
    expect %al, $1 /* past midnight */
    expect %cx, $0
    cmpw $2, %dx
    unless b, "ticks after midnight"
    movb $0, %ah
    int $0x1a
    expect %al, $0
    movb $4, %ah
    int $0x1a
    expect_success "date"
    expect %ch, $0x20
    cmpb $0x12, %dh
    unless be, "month"
    movb $2, %ah
    int $0x1a
    expect_success "clock"
    cmpb $0x23, %ch
    unless be, "hour"
    movw $0xb101, %ax
    int $0x1a
    expect_error "PCI"
    ret

on_tick:
    incw %cs:CODE(ticked)
    iretw
ticked:
    .word 0

    .text 2
passed: .asciz "\r\nPASSED\r\n"
failed_text: .asciz "\r\nFAILED: "
newline: .asciz "\r\n"
typed: .asciz "ab\b\bab\rd"
string: .ascii "xyz"
