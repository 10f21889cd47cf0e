/*
 * What a cell and the VMM have in common: where things are in the cell's addresses, and
 * the words through which they talk. The program of the cell (guest/cell/) and direct/
 * include it, nobody else.
 *
 * A cell has a slot of CELL_SLOT bytes in a shared memory:
 *
 *   ORDERS  what the VMM wants of it; it can only read that: orders for the helper, and
 *           the state in which the guest thread is to go on
 *   STATE   what it reports; it can write that
 *   STACK   its signal stack; the frames there hold the guest's state when it is out
 *
 * Guest code that runs in the cell can write what the cell can, and jump to whichever
 * instruction of the cell's program: the VMM believes nothing that it finds there.
 */
#ifndef DIRECT_ABI_H
#define DIRECT_ABI_H

#define CELL_BASE 0x2b5e00000000 /* where the program is linked (guest/cell/cell.ld) */
#define CELL_TEXT_SIZE 0x2000
#define CELL_ORDERS (CELL_BASE + 0x100000)
#define CELL_STATE (CELL_BASE + 0x110000)
#define CELL_STACK (CELL_BASE + 0x120000)
#define CELL_END (CELL_BASE + 0x200000)
#define CELL_TOP 0x7ffffffff000 /* where user addresses end */

#define CELL_SLOT 0x10000
#define CELL_ORDERS_SIZE 0x3000
#define CELL_STATE_SIZE 0x1000
#define CELL_STACK_SIZE (CELL_SLOT - CELL_ORDERS_SIZE - CELL_STATE_SIZE)

/* The descriptors that a cell is started with. The helper thread keeps RAM, ACK, OUT and
 * GO, the guest thread the last two. */
#define CELL_FD_RAM 3
#define CELL_FD_SLOTS 4
#define CELL_FD_ACK                                                                      \
    5 /* eventfd: adds ACK_DONE or ACK_FAILED for each batch of orders                   \
       */
#define CELL_FD_OUT                                                                      \
    6 /* eventfd: adds 1, the guest thread is out; the helper ACK_FAILED: it is not in   \
       */
#define CELL_FD_GO 7 /* eventfd: is read, the guest thread goes on */
#define CELL_FD_KICK                                                                     \
    8 /* socket: what arrives there is a signal for the guest thread, who has it no more \
       */

#define CELL_ACK_DONE 1
#define CELL_ACK_FAILED 0x100
#define CELL_ACK_DEAD 0x10000 /* the spawner's */

/* struct cell_orders */
#define CELL_O_WORD 0  /* futex of the helper: changes when there is something to do */
#define CELL_O_BATCH 4 /* changes when there are orders */
#define CELL_O_KICK 8  /* changes when the guest thread is to come out */
#define CELL_O_COUNT 12
#define CELL_O_TURN 16 /* odd: the guest thread runs; changes whenever that does */
#define CELL_O_GO 20   /* the guest thread goes on behind the orders, instead of an ACK */
#define CELL_O_MASK 64 /* bits of CPUs, for CELL_ORDER_MOVE */
#define CELL_O_MASK_SIZE 128
#define CELL_O_FIRST 192
#define CELL_O_SIZE 40
#define CELL_O_MAX 190
#define CELL_POKE 0x80000000 /* a call that is none: negative in 32 bits */

/* Behind the orders: XRSTOR of all components reads as far as the last that the host's
 * kernel has switched on (AMX: 11,008 bytes), also where the header says that there is
 * nothing. */
#define CELL_ZEROS_SIZE (CELL_STATE - CELL_ORDERS - CELL_ORDERS_SIZE)

/* struct cell_resume, behind the orders */
#define CELL_RESUME (CELL_ORDERS + 0x2000)
#define CELL_R_GPR 0 /* rax, rcx, rdx, rbx, rbp, rsi, rdi, r8 to r15 */
#define CELL_R_FS 120
#define CELL_R_GS 128
#define CELL_R_IRET 136
#define CELL_R_XSAVE 192

/* struct cell_state */
#define CELL_S_SIGNAL 0
#define CELL_S_CONTEXT                                                                   \
    8 /* of the signal, in the cell's addresses; 0: nothing has run                      \
       */
#define CELL_S_INFO 16
#define CELL_S_FS 24
#define CELL_S_GS 32
#define CELL_S_DS 40
#define CELL_S_ES 42
#define CELL_S_FSEL 44
#define CELL_S_GSEL 46
#define CELL_S_CREDIT 48 /* what was read of GO */
#define CELL_S_THREAD 56 /* the guest thread's number, before any guest code has run */
#define CELL_S_STILL 64  /* signals that found it waiting */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* A system call: flags are of mmap(2). Or the call is CELL_POKE: the byte ARG[1] is
 * stored at ARG[0], which the helper has mapped for itself to write. */
struct cell_order {
    uint32_t call, flags;
    uint64_t arg[3], offset;
};

struct cell_orders {
    uint32_t word, batch, kick, count, turn, go, pad[10];
    uint64_t mask[CELL_O_MASK_SIZE / 8];
    struct cell_order order[CELL_O_MAX];
};

struct cell_resume {
    uint64_t gpr[15], fs, gs;
    uint64_t rip, cs, rflags, rsp, ss;
    uint64_t pad[2];
    uint8_t xsave[0x1000 - CELL_R_XSAVE];
};

struct cell_state {
    uint32_t signal, pad;
    uint64_t context, info, fs, gs;
    uint16_t ds, es, fsel, gsel;
    uint64_t credit, thread;
    uint32_t still;
};

_Static_assert(sizeof(struct cell_order) == CELL_O_SIZE, "orders");
_Static_assert(__builtin_offsetof(struct cell_orders, turn) == CELL_O_TURN, "orders");
_Static_assert(__builtin_offsetof(struct cell_orders, go) == CELL_O_GO, "orders");
_Static_assert(__builtin_offsetof(struct cell_orders, mask) == CELL_O_MASK, "orders");
_Static_assert(__builtin_offsetof(struct cell_orders, order) == CELL_O_FIRST, "orders");
_Static_assert(sizeof(struct cell_orders) <= 0x2000, "orders");
_Static_assert(__builtin_offsetof(struct cell_resume, fs) == CELL_R_FS, "resume");
_Static_assert(__builtin_offsetof(struct cell_resume, rip) == CELL_R_IRET, "resume");
_Static_assert(__builtin_offsetof(struct cell_resume, xsave) == CELL_R_XSAVE, "resume");
_Static_assert(sizeof(struct cell_resume) == 0x1000, "resume");
_Static_assert(__builtin_offsetof(struct cell_state, gs) == CELL_S_GS, "state");
_Static_assert(__builtin_offsetof(struct cell_state, thread) == CELL_S_THREAD, "state");
_Static_assert(__builtin_offsetof(struct cell_state, still) == CELL_S_STILL, "state");
#endif

#endif
