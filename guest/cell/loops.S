/*
 * What stays of a cell's program once it is set up: the guest thread's way out and in, and
 * the helper thread's loop.
 *
 * The guest thread comes out by a signal. Its handler leaves in STATE where the frame is,
 * tells the VMM by one write (cell_told), waits for one read (cell_asked) to be answered,
 * and goes on with what the VMM has put in RESUME.
 *
 * The guest can jump to any of these instructions with registers of its choice. What must
 * hold is that the VMM, once it has read OUT, can rely on the thread being here until it
 * writes GO. The filter passes the write at cell_told and nowhere else; from there on all
 * ways lead to the read at cell_asked, using nothing that the guest has chosen; and behind
 * it to IRETQ, with state from pages that the cell cannot write. A signal can come at any
 * instruction, for none is ever held back: whoever holds signals back could not be kicked.
 * So the handler looks where it has come from.
 */
#include "direct/abi.h"

#define SYS_read 0
#define SYS_write 1
#define SYS_futex 202
#define SYS_tgkill 234
#define FUTEX_WAIT 0
#define ETIMEDOUT 110
#define LOOKS 50
#define SIGKILL 9
#define SIGUSR1 10

/* struct ucontext of the kernel's: gregs begin at 40. */
#define UC_RDI 104
#define UC_RSI 112
#define UC_RDX 136
#define UC_RAX 144
#define UC_RSP 160
#define UC_RIP 168

        .section .text.first, "ax"

/* rdi: the signal, rsi: siginfo, rdx: ucontext. These three stay as they are up to
 * idle: who is interrupted before it begins again with them. */
        .globl cell_handler
cell_handler:
        push    $2              /* NT would spoil IRETQ, and AC what follows */
        popfq
        mov     UC_RIP(%rdx), %rax
        movabs  $CELL_BASE, %rcx
        mov     %rax, %r8
        sub     %rcx, %r8
        cmp     $CELL_TEXT_SIZE, %r8
        jb      within
        movabs  $CELL_STATE, %rbx
        mov     %edi, CELL_S_SIGNAL(%rbx)
        mov     %rsi, CELL_S_INFO(%rbx)
        mov     %rdx, CELL_S_CONTEXT(%rbx)
        rdfsbase %rax
        mov     %rax, CELL_S_FS(%rbx)
        rdgsbase %rax
        mov     %rax, CELL_S_GS(%rbx)
        mov     %ds, CELL_S_DS(%rbx)
        mov     %es, CELL_S_ES(%rbx)
        mov     %fs, CELL_S_FSEL(%rbx)
        mov     %gs, CELL_S_GSEL(%rbx)
        jmp     cell_tell

/* rax: where in this program the signal came. */
within: movabs  $idle, %rcx
        cmp     %rcx, %rax
        jb      again
        movabs  $cell_told, %rcx
        cmp     %rcx, %rax
        jb      cell_tell
        movabs  $cell_asked, %rcx
        cmp     %rcx, %rax
        jb      still
        movabs  $resume, %rcx
        cmp     %rcx, %rax
        jae     nothing
        cmpq    $8, UC_RAX(%rdx)
        jne     still
/* It was about to go on: it comes out as it went in. */
nothing: movabs $CELL_STATE, %rbx
        mov     %edi, CELL_S_SIGNAL(%rbx)
        mov     %rax, CELL_S_INFO(%rbx)
        movq    $0, CELL_S_CONTEXT(%rbx)
        jmp     idle
again:  mov     UC_RDI(%rdx), %rdi
        mov     UC_RSI(%rdx), %rsi
        mov     UC_RDX(%rdx), %rdx
        jmp     cell_handler

/* No frame is needed: else each turn that is kicked before it begins would leave one. */
idle:   movabs  $CELL_STACK + CELL_STACK_SIZE, %rsp
        .globl cell_tell
cell_tell:
        mov     $SYS_write, %eax
        mov     $CELL_FD_OUT, %edi
        movabs  $one, %rsi
        mov     $8, %edx
        syscall
        .globl cell_told
cell_told:
        jmp     cell_wait
still:  movabs  $CELL_STATE, %rcx
        incl    CELL_S_STILL(%rcx)
        mov     UC_RSP(%rdx), %rsp
cell_wait:
        mov     $SYS_read, %eax
        mov     $CELL_FD_GO, %edi
        movabs  $CELL_STATE + CELL_S_CREDIT, %rsi
        mov     $8, %edx
        syscall
        .globl cell_asked
cell_asked:
        cmp     $8, %rax
        jne     cell_wait
resume: movabs  $CELL_RESUME, %rsp
        mov     $-1, %eax
        mov     $-1, %edx
        xrstor64 CELL_R_XSAVE(%rsp)
        xor     %eax, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %fs
        mov     %eax, %gs
        mov     CELL_R_FS(%rsp), %rax
        wrfsbase %rax
        mov     CELL_R_GS(%rsp), %rax
        wrgsbase %rax
        mov     0(%rsp), %rax
        mov     8(%rsp), %rcx
        mov     16(%rsp), %rdx
        mov     24(%rsp), %rbx
        mov     32(%rsp), %rbp
        mov     40(%rsp), %rsi
        mov     48(%rsp), %rdi
        mov     56(%rsp), %r8
        mov     64(%rsp), %r9
        mov     72(%rsp), %r10
        mov     80(%rsp), %r11
        mov     88(%rsp), %r12
        mov     96(%rsp), %r13
        mov     104(%rsp), %r14
        mov     112(%rsp), %r15
        lea     CELL_R_IRET(%rsp), %rsp
        iretq

/*
 * The helper: waits for orders, carries them out, and says so, or lets the guest thread go
 * on. rdi: the process, which is the guest thread, too. It has registers, and no stack.
 *
 * KICK is the TURN that is to end. The guest thread has had a signal for it already
 * (setup.c, take_kicks()), and as a rule is out when the helper looks. Guest code that
 * pretends to be in here, waiting, cannot be told from the real one, and comes out by no
 * signal. So the helper looks again and again whether the turn has ended; each look is a
 * signal. A guest thread that so many of them have found waiting is killed; one that the
 * host does not let run, for however long, has not been found.
 */
        .globl cell_help
cell_help:
        mov     %rdi, %r12
        movabs  $CELL_ORDERS, %rbx
        xor     %r13d, %r13d            /* the batch that was served last */
        xor     %r14d, %r14d            /* the word */
        xor     %r15d, %r15d            /* the kick */
        jmp     look
wait:   mov     $SYS_futex, %eax
        mov     %rbx, %rdi
        mov     $FUTEX_WAIT, %esi
        mov     %r14d, %edx
        xor     %r10d, %r10d
        syscall
look:   mov     CELL_O_WORD(%rbx), %eax
        cmp     %eax, %r14d
        je      wait
        mov     %eax, %r14d
told:   mov     CELL_O_BATCH(%rbx), %eax
        cmp     %eax, %r13d
        jne     orders
kicked: mov     CELL_O_KICK(%rbx), %eax /* behind the orders: they may be what it waits for */
        cmp     %eax, %r15d
        je      look
        mov     %eax, %r15d
        cmp     %eax, CELL_O_TURN(%rbx)
        je      kick
        jmp     look
orders: mov     %eax, %r13d
        mov     CELL_O_COUNT(%rbx), %ebp
        lea     CELL_O_FIRST(%rbx), %rsp /* the order at hand: there is no stack */
        test    %ebp, %ebp
        jz      done
order:  mov     (%rsp), %eax
        mov     8(%rsp), %rdi
        mov     16(%rsp), %rsi
        test    %eax, %eax
        js      poke
        mov     24(%rsp), %rdx
        mov     4(%rsp), %r10d
        mov     $CELL_FD_RAM, %r8d
        mov     32(%rsp), %r9
        syscall
        cmp     $-4096, %rax
        ja      failed
next:   add     $CELL_O_SIZE, %rsp
        dec     %ebp
        jnz     order
done:   movabs  $one, %rsi
        mov     $CELL_FD_GO, %ecx
        jmp     1f
failed: movabs  $many, %rsi
        mov     $CELL_FD_OUT, %ecx
1:      mov     $CELL_FD_ACK, %edi
        cmpl    $0, CELL_O_GO(%rbx)
        cmovne  %ecx, %edi
        mov     $8, %edx
        mov     $SYS_write, %eax
        syscall
        jmp     kicked
poke:   mov     %sil, (%rdi)
        jmp     next

kick:   movabs  $CELL_STATE, %rdi
        mov     CELL_S_STILL(%rdi), %ebp
        mov     $SIGUSR1, %edx
1:      mov     $SYS_tgkill, %eax
        mov     %r12, %rdi
        mov     %r12, %rsi
        syscall
2:      mov     CELL_O_WORD(%rbx), %r14d
        cmp     %r15d, CELL_O_TURN(%rbx)
        jne     told
        mov     CELL_O_BATCH(%rbx), %eax
        cmp     %eax, %r13d
        jne     late
        mov     $SYS_futex, %eax        /* for orders, or a while */
        mov     %rbx, %rdi
        mov     $FUTEX_WAIT, %esi
        mov     %r14d, %edx
        movabs  $while, %r10
        syscall
        cmp     %r15d, CELL_O_TURN(%rbx)
        jne     told
        cmp     $-ETIMEDOUT, %rax
        jne     2b
        movabs  $CELL_STATE, %rdi
        mov     CELL_S_STILL(%rdi), %eax
        sub     %ebp, %eax
        mov     $SIGUSR1, %edx
        cmp     $LOOKS, %eax
        jb      1b
        mov     $SIGKILL, %edx
        jmp     1b
/* The kick came before the orders that the turn begins with: it is obeyed behind them. */
late:   xor     %r15d, %r15d
        jmp     orders

        .balign 8
one:    .quad   CELL_ACK_DONE
many:   .quad   CELL_ACK_FAILED
while:  .quad   0, 100000000

        .section .note.GNU-stack, "", @progbits
