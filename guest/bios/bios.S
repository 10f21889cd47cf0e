/*
 * The board's ROM: the reset vector, and the few BIOS services that the 16-bit setup of a
 * kernel asks for (--boot-protocol linux16). No power-on test, no disks, no setup menu, no
 * boot device: the machine's loader puts the kernel into memory and enters here at `enter`.
 *
 * 4 KiB at F000:F000, and the same at the end of the 4 GiB. Nothing in it is written: what
 * changes lies in the BIOS data area, at 0x400. The loader fills that in, and the interrupt
 * table from `vectors`, whatever it boots: kernels that come another way may go back to real
 * mode. The memory map lies before this in the ROM (src/boot/bios.h has the places).
 *
 * The screen's teletype also goes to the serial port, and the keyboard is the serial port's
 * input: this machine's terminal is there. Characters come without scan codes, but for a
 * few.
 *
 * Every service runs in one frame (F_...), with DS 0 and whatever else clobbered: it
 * changes the caller's registers by changing the frame. The interrupts' numbers and
 * registers: Ralf Brown's Interrupt List; INT 15h E820: ACPI Specification, "System Address
 * Map Interfaces".
 */
#include "boot/bios.h"

    .code16
    .text

#define F_DI 4(%bp)
#define F_SI 8(%bp)
#define F_BP 12(%bp)
#define F_EBX 20(%bp)
#define F_BX 20(%bp)
#define F_BL 20(%bp)
#define F_BH 21(%bp)
#define F_EDX 24(%bp)
#define F_DX 24(%bp)
#define F_DL 24(%bp)
#define F_DH 25(%bp)
#define F_ECX 28(%bp)
#define F_CX 28(%bp)
#define F_CL 28(%bp)
#define F_CH 29(%bp)
#define F_EAX 32(%bp)
#define F_AX 32(%bp)
#define F_AL 32(%bp)
#define F_AH 33(%bp)
#define F_FLAGS 42(%bp)
#define F_ES 0(%bp)
#define CF 0x01
#define ZF 0x40

/* The BIOS data area. */
#define EQUIPMENT 0x410
#define LOW_KIB 0x413
#define SHIFT_KEYS 0x417
#define KEY_HEAD 0x41a
#define KEY_TAIL 0x41c
#define KEY_FIRST BIOS_KEYS /* within the area */
#define KEY_LAST BIOS_KEYS_END
#define VIDEO_MODE 0x449
#define CURSOR 0x450 /* column, row */
#define CURSOR_SHAPE 0x460
#define TICKS 0x46c
#define MIDNIGHT 0x470
#define TICKS_A_DAY 0x1800b0

#define COLUMNS 80
#define ROWS 25
#define BLANK 0x0720
#define COM1 0x3f8
#define LISTEN 16 /* reads of LSR that show the port that somebody waits */

/* --- the way in: BX is the segment of the kernel's setup, CX its stack pointer --- */

    .globl enter
enter:
    cli
    cld

    /* 8259s: IRQ 0 to 7 are interrupts 8 to 15, the others 70h on; the timer is open. */
    movb $0x11, %al
    outb %al, $0x20
    outb %al, $0xa0
    movb $0x08, %al
    outb %al, $0x21
    movb $0x70, %al
    outb %al, $0xa1
    movb $0x04, %al
    outb %al, $0x21
    movb $0x02, %al
    outb %al, $0xa1
    movb $0x01, %al
    outb %al, $0x21
    outb %al, $0xa1
    movb $0xfe, %al
    outb %al, $0x21
    movb $0xff, %al
    outb %al, $0xa1

    /* 8254: 18.2 ticks a second. */
    movb $0x36, %al
    outb %al, $0x43
    xorb %al, %al
    outb %al, $0x40
    outb %al, $0x40

    movw $0xb800, %ax
    movw %ax, %es
    xorw %di, %di
    movw %cx, %dx
    movw $COLUMNS * ROWS, %cx
    movw $BLANK, %ax
    rep stosw

    /* "The Linux/x86 Boot Protocol", "Running the Kernel": all segments the setup's, but
     * CS 20h above it. */
    movw %bx, %ds
    movw %bx, %es
    movw %bx, %fs
    movw %bx, %gs
    movw %bx, %ss
    movw %dx, %sp
    addw $0x20, %bx
    pushw %bx
    pushw $0
    lretw

/* Number of a vector, its handler. The first is what all others have; ends with it. */
vectors:
    .word 0, nothing
    .word 0x08, irq0
    .word 0x09, irq_low, 0x0a, irq_low, 0x0b, irq_low, 0x0c, irq_low
    .word 0x0d, irq_low, 0x0e, irq_low, 0x0f, irq_low
    .word 0x10, int10, 0x11, int11, 0x12, int12, 0x13, int13
    .word 0x15, int15, 0x16, int16, 0x18, reset, 0x19, reset
    .word 0x1a, int1a
    .word 0x70, irq_high, 0x71, irq_high, 0x72, irq_high, 0x73, irq_high
    .word 0x74, irq_high, 0x75, irq_high, 0x76, irq_high, 0x77, irq_high
    .word 0

nothing:
    iretw

/* --- the frame --- */

    .macro service name
\name:
    pushw $do_\name
    jmp frame
    .endm

    service irq0
    service int10
    service int11
    service int12
    service int13
    service int15
    service int16
    service int1a

frame:
    pushal
    pushw %ds
    pushw %es
    movw %sp, %bp
    xorw %ax, %ax
    movw %ax, %ds
    cld
    movl F_EAX, %eax
    callw *36(%bp)
    popw %es
    popw %ds
    popal
    addw $2, %sp
    iretw

succeed:
    andb $~CF, F_FLAGS
    ret

/* "Function not supported", in AH. */
unsupported:
    movb $0x86, F_AH
fail:
    orb $CF, F_FLAGS
    ret

/* --- interrupts --- */

do_irq0:
    incl TICKS
    cmpl $TICKS_A_DAY, TICKS
    jb 1f
    movl $0, TICKS
    incb MIDNIGHT
1:  int $0x1c
    movb $0x20, %al
    outb %al, $0x20
    ret

irq_high:
    pushw %ax
    movb $0x20, %al
    outb %al, $0xa0
    jmp 1f
irq_low:
    pushw %ax
    movb $0x20, %al
1:  outb %al, $0x20
    popw %ax
    iretw

/* --- INT 10h: text mode 3, one page --- */

do_int10:
    movw $0xb800, %bx
    movw %bx, %es
    movw $video, %si
    jmp dispatch

/* Jumps to the function of AH in the table at CS:SI; the last one is for all others. */
dispatch:
    movw %ax, %di
1:  cmpb $0xff, %cs:(%si)
    je 2f
    cmpb %ah, %cs:(%si)
    je 2f
    addw $3, %si
    jmp 1b
2:  movw %di, %ax
    jmp *%cs:1(%si)

    .macro function number, label
    .byte \number
    .word \label
    .endm

video:
    function 0x00, video_mode
    function 0x01, video_shape
    function 0x02, video_move
    function 0x03, video_where
    function 0x06, video_scroll
    function 0x07, video_scroll
    function 0x08, video_read
    function 0x09, video_fill
    function 0x0a, video_fill
    function 0x0e, video_type
    function 0x0f, video_get_mode
    function 0x11, video_font
    function 0x12, video_alternate
    function 0x13, video_string
    function 0x1a, video_display
    function 0xff, video_other

video_other:
    ret /* unsupported functions leave the registers as they are */

video_mode:
    xorw %di, %di
    movw $COLUMNS * ROWS, %cx
    movw $BLANK, %ax
    rep stosw
    movw $0, CURSOR
    ret

video_shape:
    movw F_CX, %ax
    movw %ax, CURSOR_SHAPE
    ret

video_move:
    movw F_DX, %ax
    cmpb $COLUMNS, %al
    jae video_other
    cmpb $ROWS, %ah
    jae video_other
    movw %ax, CURSOR
    ret

video_where:
    movw CURSOR, %ax
    movw %ax, F_DX
    movw CURSOR_SHAPE, %ax
    movw %ax, F_CX
    ret

/* The address of the character at row AH, column AL: in DI. */
place:
    pushw %ax
    movzbw %al, %di
    movb $COLUMNS, %al
    mulb %ah
    addw %ax, %di
    addw %di, %di
    popw %ax
    ret

/* AL lines (0: all) of the window from CH, CL to DH, DL, up (AH is 6) or down. */
video_scroll:
    movw F_CX, %cx
    movw F_DX, %dx
    cmpb $ROWS, %dh
    jb 1f
    movb $ROWS - 1, %dh
1:  cmpb $COLUMNS, %dl
    jb 2f
    movb $COLUMNS - 1, %dl
2:  cmpb %ch, %dh
    jb video_other
    cmpb %cl, %dl
    jb video_other
    movb F_BH, %bh
    movb F_AL, %al
    movb %dh, %ah
    subb %ch, %ah
    incb %ah
    cmpb %ah, %al
    ja 3f
    testb %al, %al
    jnz 4f
3:  movb %ah, %al
4:  cmpb $6, F_AH
    jne 5f
    movb %al, %dh /* the row that moves to row CH is row CH + DH */
    jmp scroll
5:  movb %dh, %ch
    movb %al, %dh
    negb %dh

/* AH rows, beginning with row CH, towards where DH points; columns CL to DL; AL is DH
 * without its sign, and not more than AH. Attribute BH for what becomes empty. */
scroll:
    pushaw
    cmpb %al, %ah
    pushfw
    movb %cl, %al
    movb %ch, %ah
    call place
    movw %di, %si
    addb %dh, %ah
    call place
    xchgw %si, %di
    movzbw %cl, %ax
    movzbw %dl, %cx
    subw %ax, %cx
    incw %cx
    popfw
    ja 1f
    movb %bh, %ah
    movb $' ', %al
    rep stosw
    jmp 2f
1:  rep movsw %es:(%si), %es:(%di)
2:  popaw
    testb %dh, %dh
    js 3f
    addb $2, %ch
3:  decb %ch
    decb %ah
    jnz scroll
    ret

video_read:
    movw CURSOR, %ax
    call place
    movw %es:(%di), %ax
    movw %ax, F_AX
    ret

/* CX times the character, from the cursor on; function 9 gives the attribute too. */
video_fill:
    movw CURSOR, %ax
    call place
    movw F_CX, %cx
    movw $COLUMNS * ROWS * 2, %dx
    subw %di, %dx
    shrw $1, %dx
    cmpw %dx, %cx
    jbe 1f
    movw %dx, %cx
1:  jcxz 3f
2:  movb F_AL, %al
    stosb
    movb %es:(%di), %al
    cmpb $9, F_AH
    jne 4f
    movb F_BL, %al
4:  stosb
    loop 2b
3:  ret

video_type:
    movb F_AL, %al
/* The character AL, at the cursor and on the serial port. */
type:
    movw $COM1, %dx
    outb %al, %dx
    movb %al, %bl
    movw CURSOR, %ax
    cmpb $'\r', %bl
    je 1f
    cmpb $'\n', %bl
    je 2f
    cmpb $'\b', %bl
    je 3f
    cmpb $7, %bl
    je 5f
    call place
    movb %bl, %es:(%di)
    incb %al
    cmpb $COLUMNS, %al
    jb 4f
    incb %ah
1:  xorb %al, %al
    jmp 4f
2:  incb %ah
    jmp 4f
3:  subb $1, %al
    adcb $0, %al
4:  cmpb $ROWS, %ah
    jb 6f
    movb $ROWS - 1, %ah
    movw %ax, CURSOR
    movw $ROWS << 8 | 1, %ax
    xorw %cx, %cx
    movw $1 << 8 | (COLUMNS - 1), %dx
    movb $BLANK >> 8, %bh
    jmp scroll
6:  movw %ax, CURSOR
5:  ret

video_get_mode:
    movb VIDEO_MODE, %al
    movb $COLUMNS, %ah
    movw %ax, F_AX
    movb $0, F_BH
    ret

video_font:
    cmpb $0x30, %al
    jne 1f
    movw $16, F_CX
    movb $ROWS - 1, F_DL
1:  ret

/* EGA information, which is how a VGA is told from older adapters. */
video_alternate:
    cmpb $0x10, F_BL
    jne 1f
    movw $0x0003, F_BX /* color, 256 KiB */
    movw $0x0009, F_CX
1:  ret

/* CX characters at ES:BP from DH, DL on, BL the attribute; 2 and 3: each has its own. */
video_string:
    pushw CURSOR
    movw F_DX, %ax
    cmpb $ROWS, %ah
    jae 3f
    cmpb $COLUMNS, %al
    jae 3f
    movw %ax, CURSOR
    movw F_CX, %cx
    movw F_BP, %si
    jcxz 3f
1:  pushw %cx
    pushw %si
    movw F_ES, %ds
    lodsw
    xorw %cx, %cx
    movw %cx, %ds
    testb $2, F_AL
    jnz 2f
    movb F_BL, %ah
2:  cmpb $' ', %al
    jb 5f
    pushw %ax
    movw CURSOR, %ax
    call place
    popw %ax
    movb %ah, %es:1(%di)
5:  call type
    popw %si
    popw %cx
    incw %si
    testb $2, F_AL
    jz 4f
    incw %si
4:  loop 1b
3:  popw %ax
    testb $1, F_AL /* 1 and 3 leave the cursor at the end */
    jnz 6f
    movw %ax, CURSOR
6:  ret

video_display:
    testb %al, %al
    jnz 1f
    movb $0x1a, F_AL
    movw $0x0008, F_BX /* VGA with a color screen */
1:  ret

/* --- INT 11h, 12h: what there is. INT 13h: no disks --- */

do_int11:
    movw EQUIPMENT, %ax
    movw %ax, F_AX
    ret

do_int12:
    movw LOW_KIB, %ax
    movw %ax, F_AX
    ret

do_int13:
    movb $0x01, F_AH
    jmp fail

/* --- INT 15h: memory, A20 --- */

do_int15:
    movw $system, %si
    jmp dispatch

system:
    function 0x24, system_a20
    function 0x88, system_extended
    function 0xc0, system_configuration
    function 0xe8, system_memory
    function 0xff, unsupported

system_a20:
    cmpb $3, %al
    ja unsupported
    je 3f
    movb %al, %cl
    inb $0x92, %al
    cmpb $1, %cl
    ja 2f
    andb $~3, %al /* bit 0 would reset */
    shlb $1, %cl
    orb %cl, %al
    outb %al, $0x92
    jmp 4f
2:  shrb $1, %al
    andb $1, %al
    movb %al, F_AL
    jmp 4f
3:  movw $3, F_BX /* through the keyboard controller and through port 92h */
4:  movb $0, F_AH
    jmp succeed

system_extended:
    movw %cs:BIOS_MAP_EXT_KIB, %ax
    movw %ax, F_AX
    jmp succeed

system_configuration:
    movw %cs, F_ES
    movw $configuration, F_BX
    movb $0, F_AH
    jmp succeed

configuration:
    .word 8
    .byte 0xfc, 0, 1, 0x60, 0, 0, 0, 0 /* a PC AT with two 8259s and a clock */

system_memory:
    cmpb $0x01, %al
    je 1f
    cmpb $0x20, %al
    jne unsupported
    cmpl $0x534d4150, F_EDX
    jne unsupported
    cmpl $20, F_ECX
    jb unsupported
    movzwl %cs:BIOS_MAP_COUNT, %ecx
    movl F_EBX, %eax
    cmpl %ecx, %eax
    jae unsupported
    imulw $20, %ax, %si
    addw $BIOS_MAP_ENTRIES, %si
    movw F_DI, %di
    movw F_ES, %es
    movl %ecx, %edx
    movw $5, %cx
    rep movsl %cs:(%si), %es:(%di)
    movl $20, F_ECX
    movl $0x534d4150, F_EAX
    movl F_EBX, %eax
    incl %eax
    cmpl %edx, %eax
    jb 2f
    xorl %eax, %eax
2:  movl %eax, F_EBX
    jmp succeed
1:  movw %cs:BIOS_MAP_BELOW_16M, %ax
    movw %ax, F_AX
    movw %ax, F_CX
    movw %cs:BIOS_MAP_ABOVE_16M, %ax
    movw %ax, F_BX
    movw %ax, F_DX
    jmp succeed

/* --- INT 16h: the keyboard is the serial port's input --- */

do_int16:
    movw $keyboard, %si
    jmp dispatch

keyboard:
    function 0x00, keyboard_read
    function 0x01, keyboard_look
    function 0x02, keyboard_shift
    function 0x05, keyboard_store
    function 0x10, keyboard_read
    function 0x11, keyboard_look
    function 0x12, keyboard_shift
    function 0xff, video_other

/* Takes what the port has, as long as there is room. */
poll:
    movw $LISTEN, %cx
    movw $COM1 + 5, %dx
1:  inb %dx, %al
    testb $1, %al
    jnz 2f
    loop 1b
    ret
2:  call key_next
    cmpw KEY_HEAD, %di
    je 4f
    movw $COM1, %dx
    inb %dx, %al
    movzbw %al, %ax
    movw $special, %si
3:  cmpb $0xff, %cs:(%si)
    je 5f
    cmpb %al, %cs:(%si)
    je 6f
    addw $3, %si
    jmp 3b
6:  movw %cs:1(%si), %ax
5:  call key_put
    jmp poll
4:  ret

/* What a terminal sends, and the key. */
special:
    .byte '\r', 0x0d, 0x1c
    .byte '\n', 0x0d, 0x1c
    .byte 0x1b, 0x1b, 0x01
    .byte 0x7f, 0x08, 0x0e
    .byte '\b', 0x08, 0x0e
    .byte '\t', 0x09, 0x0f
    .byte ' ', 0x20, 0x39
    .byte 0xff

/* DI: the place after the ring's tail. */
key_next:
    movw KEY_TAIL, %di
/* DI: the place after it. */
key_after:
    addw $2, %di
    cmpw $KEY_LAST, %di
    jb 1f
    movw $KEY_FIRST, %di
1:  ret

/* Puts AX into the ring, where DI was found to be free as the next place. */
key_put:
    movw KEY_TAIL, %si
    andw $0x3e, %si
    movw %ax, 0x400(%si)
    movw %di, KEY_TAIL
    ret

keyboard_read:
    call poll
    movw KEY_HEAD, %di
    cmpw KEY_TAIL, %di
    jne 1f
    sti
    hlt /* for a tick */
    cli
    jmp keyboard_read
1:  movw %di, %si
    andw $0x3e, %si
    movw 0x400(%si), %ax
    movw %ax, F_AX
    call key_after
    movw %di, KEY_HEAD
    ret

keyboard_look:
    call poll
    movw KEY_HEAD, %si
    cmpw KEY_TAIL, %si
    je 1f
    andw $0x3e, %si
    movw 0x400(%si), %ax
    movw %ax, F_AX
    andb $~ZF, F_FLAGS
    ret
1:  orb $ZF, F_FLAGS
    ret

keyboard_shift:
    movb SHIFT_KEYS, %al
    movb %al, F_AL
    ret

keyboard_store:
    call key_next
    cmpw KEY_HEAD, %di
    movb $1, F_AL
    je 1f
    movw F_CX, %ax
    call key_put
    movb $0, F_AL
1:  ret

/* --- INT 1Ah: time --- */

do_int1a:
    movw $time, %si
    jmp dispatch

time:
    function 0x00, time_ticks
    function 0x01, time_set
    function 0x02, time_clock
    function 0x04, time_date
    function 0xb1, time_pci
    function 0xff, unsupported

time_ticks:
    movw TICKS, %ax
    movw %ax, F_DX
    movw TICKS + 2, %ax
    movw %ax, F_CX
    movb MIDNIGHT, %al
    movb %al, F_AL
    movb $0, MIDNIGHT
    jmp succeed

time_set:
    movw F_DX, %ax
    movw %ax, TICKS
    movw F_CX, %ax
    movw %ax, TICKS + 2
    movb $0, MIDNIGHT
    jmp succeed

/* The clock's register AL in AL, in BCD as it comes. */
cmos:
    outb %al, $0x70
    inb $0x71, %al
    ret

time_clock:
    movb $4, %al
    call cmos
    movb %al, F_CH
    movb $2, %al
    call cmos
    movb %al, F_CL
    movb $0, %al
    call cmos
    movb %al, F_DH
    movb $0, F_DL
    jmp succeed

time_date:
    movb $0x32, %al
    call cmos
    movb %al, F_CH
    movb $9, %al
    call cmos
    movb %al, F_CL
    movb $8, %al
    call cmos
    movb %al, F_DH
    movb $7, %al
    call cmos
    movb %al, F_DL
    jmp succeed

time_pci: /* none */
    movb $0x81, F_AH
    jmp fail

/* --- reset --- */

/* By every way that the board has, and A20 or not: none of it needs memory. */
reset:
    cli
    movw $0xcf9, %dx
    movb $0x02, %al
    outb %al, %dx
    movb $0x06, %al
    outb %al, %dx
    movb $0xfe, %al
    outb %al, $0x64
1:  hlt
    jmp 1b

    /* The first instruction after a reset. */
    .org BIOS_VECTORS - BIOS_START
    .word vectors
    .org BIOS_RESET - BIOS_START
    ljmp $BIOS_SEGMENT, $reset
    .ascii "01/01/24" /* where a PC's ROM has its date */
    .byte 0, 0xfc, 0
