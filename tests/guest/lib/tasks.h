/*
 * Task switches for guests that enumerate: an old and a new task, a way from one to the
 * other, and a model of how that must end, down to every byte of both TSSs.
 *
 *     task_begin(JMP, 3, 0);    // from CPL 3 to CPL 0: `in`, task_in, tables for it
 *     task_attempt(JMP);        // runs and judges it; counts
 *
 * 32-bit guests only. Intel SDM volume 3, "Task Management"; AMD64 APM volume 2, the
 * same.
 */
#ifndef TASKS_H
#define TASKS_H

#include "guest.h"

#define CODE_SEL(n) (FREE_SEL + 9u * (n))
#define DATA_SEL(n) (FREE_SEL + 0x20u + 9u * (n))
#define OLD_SEL (FREE_SEL + 0x40u)
#define NEW_SEL (FREE_SEL + 0x48u)
#define GATE_SEL (FREE_SEL + 0x50u)
#define SUBJECT (FREE_SEL + 0x58u)
#define BEYOND (GDT_COUNT * 8u)

#define LAND 0x8000ul /* int 0x81 */
#define NEW_SP 0x9f00ul
#define TASK_SP0 0xf000ul
#define FRAME 0x1b000ul
#define VECTOR 0x50u

#define EXT 1u
#define IDT_BIT 2u

enum how { JMP, CALL, JMP_GATE, CALL_GATE, INT_N, FAULT, FAULT_ERR, IRET, HOW_COUNT };

/* A TSS of either width in one shape. Order of `reg`: ax cx dx bx sp bp si di. */
struct task {
    uint32_t link, ip, flags, reg[8], seg[6], ldt; /* es cs ss ds fs gs */
    uint16_t trap;
};
enum { ES, CS, SS, DS, FS, GS };

extern struct task task_in; /* as it is put into the new TSS */
extern uint8_t task_old_tss[128], task_new_tss[128];
extern void *task_code[HOW_COUNT]; /* the instruction of each way */
extern const char *const task_how[HOW_COUNT];
extern struct task_pointer {
    uint32_t off;
    uint16_t sel;
} __attribute__((packed)) task_far; /* what JMP and CALL go to */
/* The new task's LDT, which LDT_SEL may name: code of DPL 0 to 3, then data; and the old
 * task's selector. */
extern uint64_t task_ldt[9];
extern unsigned task_ldt_size, task_old_ldt;
/* What the last switch left behind; of TR the RPL is a processor's own. */
extern struct task_left {
    unsigned tr, ldt;
    bool ts;
} task_left;
/* The model's idea of how the case that was attempted ends. */
extern struct task_want {
    unsigned vector;
    ulong error;
    bool switched, pushed;
    unsigned tr;
    struct regs r;
} task_want;
extern unsigned task_cases, task_bad;

void task_setup(void);
/* `in` at this level, and a task of that level that lands. */
void task_from(unsigned cpl);
void task_to(unsigned cpl);
/* Both TSSs, their descriptors, gates and the far pointer, for a way. */
void task_prepare(bool from_wide, bool to_wide, enum how how);
/* The plain case of a way: all three. */
void task_begin(enum how how, unsigned from, unsigned to);
/* Runs and judges it. */
void task_attempt(enum how how);

/* For runs that the model does not speak of: let faults take VECTOR's gate; back to the
 * guest's own task, with task_left filled; the verdict. */
void task_arm(enum how how);
void task_leave(void);
void task_verdict(bool ok, const char *what, enum how how, ulong x, ulong y);
void task_put(uint8_t *image, unsigned at, uint32_t v, unsigned width);
unsigned task_ar_of(unsigned sel);
bool task_is_code(unsigned ar);
/* Prints the number of cases and the DIGEST; fails if a case has. */
void task_report(void);

#endif
