/*
 * The interpreter's loop.
 *
 * At every boundary between blocks boundary() looks at what is waiting: events, traps,
 * interrupts. Ordinary code then runs a block at a time (run_block()): call, compare,
 * advance. Whatever needs attention at every instruction (TF, RF, armed breakpoints, an
 * interrupt shadow, a counted run) goes through step_one() instead, one instruction at a
 * time, with the same semantic functions.
 *
 * Order at a boundary: AMD64 APM volume 2, "Priorities Among Simultaneous Exceptions and
 * Interrupts": traps of the last instruction, then NMI, then interrupts, then instruction
 * breakpoints, then the fetch.
 */
#include "interp/interp_int.h"

#include <stdlib.h>

#include "base/bug.h"
#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/smp.h"
#include "cpu/stops.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/exception.h"

struct interp *interp_new(struct vcpu *v) {
    struct interp *ip = calloc(1, sizeof *ip);

    if (!ip)
        return NULL;
    ip->v = v;
    ip->ram = mem_ram_base(v->mem);
    ip->npages = mem_host_size(v->mem) >> 12;
    ip->pages = calloc(ip->npages, sizeof *ip->pages);
    if (!ip->pages || os_sparse_alloc(INTERP_ARENA, (void **)&ip->arena)) {
        free(ip->pages);
        free(ip);
        return NULL;
    }
    if (v->member)
        v->member->interp = ip;
    return ip;
}

void interp_free(struct interp *ip) {
    if (!ip)
        return;
    interp_code_flush(ip);
    if (ip->v->member)
        ip->v->member->interp = NULL;
    free(ip->pages);
    os_sparse_free(ip->arena, INTERP_ARENA);
    free(ip);
}

/* The arena begins again at its start; what is touched for each page of memory stays. */
void interp_drop(struct interp *ip) {
    size_t used = ip->used;

    interp_code_flush(ip);
    os_sparse_zero(ip->arena, (used + 4095) & ~(size_t)4095);
}

/* Called from a hook in the middle of a block, the flush waits for the block's end. */
void interp_flush(struct interp *ip) {
    if (ip->running) {
        ip->flush_pending = true;
        ip->v->leave_code = true;
    } else {
        interp_code_flush(ip);
        ip->db_blocked = false;
        ip->rep_mark = 0;
    }
}

static void advance(struct vcpu *v, unsigned len) {
    v->rip += len;
    if (v->mode != MODE_64)
        v->rip = (uint32_t)v->rip;
}

/* Nothing was retired this time: IN_REP, as more of a string operation is to come. */
static void stall(struct interp *ip, bool in_rep) {
    ip->rep_mark = in_rep ? ip->v->cnt->insns_retired + 1 : 0;
    if (--ip->stalls == 0)
        ip->end = 0;
}

/* Ends a block or a step: SEM_FAULT is delivered; SEM_SHUTDOWN comes back. */
static int settle(struct interp *ip, int rc) {
    struct vcpu *v = ip->v;

    v->leave_code = false;
    ip->running = false;
    if (unlikely(rc >= SEM_REPEAT)) {
        stall(ip, rc == SEM_REPEAT);
        if (rc == SEM_FAULT)
            rc = sem_deliver(v);
    }
    if (unlikely(ip->flush_pending))
        interp_code_flush(ip);
    return rc;
}

/* The same in a counted run, where the hooks want to know how many there were. */
static int run_block_counted(struct interp *ip, const struct block *b) {
    struct vcpu *v = ip->v;
    const struct insn *i = b->insn, *end = i + b->count;
    int rc = SEM_NEXT;

    ip->running = true;
    while (i < end && !v->leave_code) {
        rc = i->exec(v, i);
        if (unlikely(rc != SEM_NEXT))
            break;
        v->cnt->insns_retired++;
        advance(v, i->len);
        i++;
    }
    if (rc == SEM_BRANCH || rc == SEM_STOP)
        v->cnt->insns_retired++;
    if (rc == SEM_STOP)
        advance(v, i->len);
    return settle(ip, rc);
}

static int run_block(struct interp *ip, const struct block *b) {
    struct vcpu *v = ip->v;
    const struct insn *i = b->insn, *end = i + b->count;
    int rc;

    if (unlikely(v->counted))
        return run_block_counted(ip, b);

    ip->running = true;
    for (;;) {
        rc = i->exec(v, i);
        if (unlikely(rc != SEM_NEXT))
            break;
        v->rip += i->len;
        i++;
        if (i == end || unlikely(v->leave_code))
            break;
    }
    v->cnt->insns_retired += (uint64_t)(i - b->insn);
    if (rc == SEM_BRANCH) {
        v->cnt->insns_retired++;
    } else if (rc == SEM_STOP) {
        v->cnt->insns_retired++;
        advance(v, i->len);
    } else if (v->mode != MODE_64) {
        v->rip = (uint32_t)v->rip;
    }
    return settle(ip, rc);
}

/* --- one instruction at a time --- */

/* DR6 bits of the execution breakpoints at v->rip. AMD64 APM volume 2, "Breakpoints". */
static uint32_t code_breakpoints(const struct vcpu *v) {
    uint64_t at = v->mode == MODE_64 ? v->rip : (uint32_t)(v->rip + v->seg[SEG_CS].base);
    uint32_t hit = 0;

    for (unsigned n = 0; n < 4; n++) {
        bool enabled = v->dr[7] >> (n * 2) & 3, exec = !(v->dr[7] >> (16 + n * 4) & 15);
        if (enabled && exec && v->dr[n] == at)
            hit |= 1u << n;
    }
    return hit;
}

/* Is an execution breakpoint at v->rip to be looked for? Behind MOV SS Intel's CPUs pass
 * over it. AMD's take it there, too. */
static bool breaks_here(const struct interp *ip) {
    const struct vcpu *v = ip->v;

    return (v->dr[7] & 0xff) && !(v->rflags & X86_FL_RF) &&
           (!ip->db_blocked || cpuid_is_amd(v->cpuid));
}

static int deliver_db(struct vcpu *v, uint32_t dr6, bool trap) {
    v->fault = (struct fault){.vector = X86_DB, .trap = trap, .dr6 = dr6};
    return sem_deliver(v);
}

/* Instructions that are trapped by the TF that they leave, not by the one they found:
 * those that enter a handler, and SYSRET. */
static bool steps_by_new_tf(const struct insn *i) {
    return i->op == OP_int || i->op == OP_int1 || i->op == OP_int3 || i->op == OP_into ||
           i->op == OP_syscall || i->op == OP_sysret || i->op == OP_sysenter;
}

static int step_one(struct interp *ip) {
    struct vcpu *v = ip->v;
    uint64_t rf = v->rflags & X86_FL_RF;
    bool tf = v->rflags & X86_FL_TF;
    uint32_t bp = breaks_here(ip) ? code_breakpoints(v) : 0;

    if (bp) {
        v->pending_db = 0; /* as with every fault */
        ip->db_blocked = false;
        stall(ip, false);
        return deliver_db(v, bp, false);
    }
    struct block *b = interp_code_block(ip);
    const struct insn *i = b ? b->insn : interp_code_odd(ip);
    if (!i)
        return settle(ip, SEM_FAULT);

    /* RF covers this instruction alone; IRET may set it anew. The shadow of the
     * instruction before ends with this one, which may cast its own. */
    bool shadow = v->irq_shadow, blocked = ip->db_blocked;
    v->irq_shadow = false;
    v->rflags &= ~(uint64_t)X86_FL_RF;
    ip->db_blocked = false;
    ip->running = true;
    int rc = i->exec(v, i);
    if (rc == SEM_FAULT || rc == SEM_REPEAT) {
        /* A breakpoint that MOV SS held back stays so while a string goes on. */
        v->rflags |= rc == SEM_REPEAT && blocked ? X86_FL_RF : rf;
        v->irq_shadow = rc == SEM_REPEAT && shadow;
    } else if (rc != SEM_SHUTDOWN) {
        v->cnt->insns_retired++;
    }
    if (rc == SEM_NEXT || rc == SEM_STOP)
        advance(v, i->len);
    if (rc == SEM_FAULT || rc == SEM_SHUTDOWN) {
        v->pending_db = 0;
    } else if (tf && (!steps_by_new_tf(i) || (v->rflags & X86_FL_TF))) {
        v->pending_db |= X86_DR6_BS;
    }
    if (v->irq_shadow && i->op != OP_sti && rc != SEM_REPEAT) {
        ip->db_blocked = true;
        v->pending_db &= ~X86_DR6_BS;
    }
    return settle(ip, rc);
}

/* --- a debugger's breakpoints --- */

/* B, or NULL where one of its instructions may have a breakpoint: then go step by step.
 */
static struct block *without_breaks(const struct vcpu *v, struct block *b) {
    if (b && vcpu_breaks_within(v->stops, vcpu_linear_rip(v), b->bytes))
        return NULL;
    return b;
}

/* Not executed: V stops before it. */
static bool stops_here(struct vcpu *v) {
    if (!vcpu_breaks_within(v->stops, vcpu_linear_rip(v), 1))
        return false;
    vcpu_break_hit(v);
    return true;
}

/* --- boundaries --- */

/* Does the next instruction need step_one()? */
static bool needs_care(const struct vcpu *v) {
    return (v->rflags & (X86_FL_TF | X86_FL_RF)) || (v->dr[7] & 0xff) || v->irq_shadow ||
           v->pending_db;
}

/* What is delivered between two iterations of a string instruction pushes RF set on
 * Intel's CPUs: its execution breakpoint must not hit again. Intel SDM volume 3,
 * "Instruction-Breakpoint Exception Condition". On AMD's RF is clear. */
static void leave_rep(struct interp *ip) {
    if (ip->rep_mark == ip->v->cnt->insns_retired + 1 && !cpuid_is_amd(ip->v->cpuid))
        ip->v->rflags |= X86_FL_RF;
    ip->rep_mark = 0;
}

/* Takes an interrupt if there is one; the status of its delivery, or SEM_NEXT. */
static int take_interrupt(struct interp *ip, uint32_t events) {
    struct vcpu *v = ip->v;

    if ((events & VCPU_EVENT_NMI) && !v->nmi_blocked && !v->irq_shadow) {
        vcpu_clear(v, VCPU_EVENT_NMI);
        v->halted = false;
        leave_rep(ip);
        return sem_nmi(v);
    }
    if (!(events & VCPU_EVENT_IRQ) || !sem_interruptible(v))
        return SEM_NEXT;
    int vector = v->hooks->irq_ack(v->hooks_arg);
    if (vector < 0)
        return SEM_NEXT;
    v->halted = false;
    leave_rep(ip);
    return sem_interrupt(v, (uint8_t)vector);
}

/* Is a debug trap to be delivered at this boundary? */
static bool trap_waits(const struct interp *ip) {
    return ip->v->pending_db && !ip->db_blocked;
}

/* True: leave with *OUT. */
static bool boundary(struct interp *ip, enum exit_reason *out) {
    struct vcpu *v = ip->v;
    uint32_t events = vcpu_events(v);
    int rc = SEM_NEXT;

    if (unlikely(events & VCPU_EVENT_CALL)) {
        vcpu_serve(v);
        events = vcpu_events(v);
    }
    if (events & VCPU_EVENTS_LEAVE) {
        *out = EXIT_kick;
        return true;
    }
    if (trap_waits(ip)) {
        uint32_t dr6 = v->pending_db;
        v->pending_db = 0;
        v->halted = false;
        leave_rep(ip);
        rc = deliver_db(v, dr6, true);
    }
    /* What the pushes of its frame have hit comes before an interrupt. */
    if (rc != SEM_SHUTDOWN && !trap_waits(ip) &&
        (events & (VCPU_EVENT_NMI | VCPU_EVENT_IRQ)))
        rc = take_interrupt(ip, events);
    if (rc == SEM_SHUTDOWN) {
        *out = EXIT_shutdown;
        return true;
    }
    if (v->halted) {
        *out = EXIT_halt;
        return true;
    }
    return false;
}

/* Whole blocks, as long as no more than COUNT instructions are to be done; WHOLE: blocks
 * in any case, and no further than the CPU's mode goes. */
static enum exit_reason run(struct interp *ip, uint64_t count, bool whole) {
    struct vcpu *v = ip->v;
    enum exit_reason out = EXIT_kick;
    uint8_t mode = v->mode;

    ip->end = v->cnt->insns_retired + count;
    if (ip->end < count)
        ip->end = UINT64_MAX;
    ip->stalls = count;
    while (v->cnt->insns_retired < ip->end && !(whole && v->mode != mode)) {
        uint64_t left = ip->end - v->cnt->insns_retired, stop = vcpu_left(v);
        struct block *b = NULL;
        int rc;

        if (unlikely(!stop)) {
            vcpu_raise(v, VCPU_EVENT_KICK);
            break;
        }

        if (unlikely(vcpu_events(v) || v->halted || v->pending_db)) {
            if (boundary(ip, &out))
                break;
            if (unlikely(trap_waits(ip))) { /* the delivery itself hit a breakpoint */
                stall(ip, false);
                continue;
            }
        }
        if (likely(!needs_care(v)) && (whole || left >= INTERP_BLOCK_MAX) &&
            stop >= INTERP_BLOCK_MAX)
            b = interp_code_block(ip);
        if (unlikely(v->stops)) {
            b = without_breaks(v, b);
            if (!b && stops_here(v))
                break;
        }
        rc = b ? run_block(ip, b) : step_one(ip);
        if (unlikely(rc == SEM_SHUTDOWN)) {
            out = EXIT_shutdown;
            break;
        }
    }
    vec_park(v);
    return out;
}

enum exit_reason interp_step(struct interp *ip, uint64_t count) {
    return run(ip, count, false);
}

enum exit_reason interp_in_mode(struct interp *ip, uint64_t count) {
    return run(ip, count, true);
}

int interp_one(struct interp *ip) {
    ip->end = ip->v->cnt->insns_retired + 1;
    ip->stalls = 1;
    return step_one(ip);
}

enum exit_reason interp_run(struct interp *ip) {
    return run(ip, UINT64_MAX, false);
}
