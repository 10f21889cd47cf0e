/*
 * A turn of a cell's guest thread: the guest's state goes in by RESUME, and comes out by
 * the frame of a signal, of which each word is hostile. It is copied, and then made a
 * state that a CPU can be in: addresses of segments are canonical, flags are those that
 * user code can change, the image of the vector state can be loaded.
 *
 * Linux's struct ucontext, siginfo and the image behind them are ABI: <ucontext.h>,
 * <signal.h>, <asm/sigcontext.h>.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cpu/vec_host.h"
#include "direct/abi.h"
#include "direct/cell_int.h"

static const uint8_t greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};

#define RSP 4
#define FLAGS_USER 0x244dd5u /* status, TF, DF, NT, AC, ID */
#define FLAGS_IN (FLAGS_USER & ~0x100u)
#define FLAG_RF 0x10000u
#define USER_CS 0x33 /* Linux's */
#define USER_SS 0x2b
#define FXSAVE 512u
#define HEADER 64u
#define MXCSR 24u
#define MXCSR_MASK 28u

/* --- in --- */

static void put(struct cell *c, const struct cell_regs *r, const struct cell_vec *vec) {
    struct cell_resume *to = c->resume;
    unsigned size = vec->size < sizeof(to->xsave) ? vec->size : sizeof(to->xsave);

    for (unsigned n = 0, k = 0; n < 16; n++)
        if (n != RSP)
            to->gpr[k++] = r->gpr[n];
    to->fs = r->fs;
    to->gs = r->gs;
    to->rip = r->rip;
    to->cs = USER_CS;
    to->rflags = (r->rflags & FLAGS_IN) | 0x202;
    to->rsp = r->gpr[RSP];
    to->ss = USER_SS;
    memcpy(to->xsave, vec->image, size);
}

/* --- out --- */

/* LEN bytes of its stack at address AT, as the cell says it. */
static bool copy(const struct cell *c, uint64_t at, void *to, size_t len) {
    if (at < CELL_STACK || at > CELL_STACK + CELL_STACK_SIZE - len)
        return false;
    memcpy(to, c->stack + (at - CELL_STACK), len);
    return true;
}

static uint64_t canonical(uint64_t base) {
    return (uint64_t)((int64_t)(base << 16) >> 16) == base ? base : 0;
}

/* Components that are not the guest's are in their initial state, as if never used. */
static void clear_others(const struct cell_vec *vec, uint64_t used) {
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if (used >> n & 1 && !(vec->mask >> n & 1) && vec_offset(n) &&
            vec_offset(n) + vec_size(n) <= vec->size)
            memset(vec->image + vec_offset(n), 0, vec_size(n));
}

static bool take_vec(const struct cell *c, uint64_t at, const struct cell_vec *vec) {
    uint64_t used, none[HEADER / 8 - 1] = {0};
    uint32_t mxcsr;

    if (!copy(c, at, vec->image, vec->size))
        return false;
    memcpy(&used, vec->image + FXSAVE, sizeof(used));
    memcpy(&mxcsr, vec->image + MXCSR, sizeof(mxcsr));
    clear_others(vec, used);
    used &= vec->mask;
    mxcsr &= vec->mxcsr_mask;
    memcpy(vec->image + MXCSR, &mxcsr, sizeof(mxcsr));
    memcpy(vec->image + MXCSR_MASK, &vec->mxcsr_mask, sizeof(vec->mxcsr_mask));
    memcpy(vec->image + FXSAVE, &used, sizeof(used));
    memcpy(vec->image + FXSAVE + 8, none, sizeof(none));
    return true;
}

static void take_info(const struct cell *c, uint64_t at, struct cell_exit *out) {
    siginfo_t si;

    if (!copy(c, at, &si, sizeof(si)))
        return;
    out->code = si.si_code;
    if (out->signal == SIGSYS) {
        out->call_at = (uint64_t)(uintptr_t)si.si_call_addr;
        out->i386 = si.si_arch != 0xc000003e; /* AUDIT_ARCH_X86_64 */
    }
}

static void take_selectors(const struct cell_state *s, uint64_t csgsfs, uint16_t *sel) {
    sel[0] = s->es;
    sel[1] = (uint16_t)csgsfs;
    sel[2] = (uint16_t)(csgsfs >> 48);
    sel[3] = s->ds;
    sel[4] = s->fsel;
    sel[5] = s->gsel;
}

/* False: it makes no sense. */
static bool take(const struct cell *c, struct cell_regs *r, const struct cell_vec *vec,
                 struct cell_exit *out) {
    struct cell_state s = *c->state;
    const greg_t *g;
    ucontext_t uc;

    out->signal = (int)(s.signal & 0x7f);
    if (!s.context) {
        out->nothing = true;
        return true;
    }
    /* The kernel's is shorter than libc's: up to the floating-point state. */
    if (!copy(c, s.context, &uc, offsetof(ucontext_t, uc_sigmask)))
        return false;
    g = uc.uc_mcontext.gregs;
    if (!take_vec(c, (uint64_t)(uintptr_t)uc.uc_mcontext.fpregs, vec))
        return false;
    for (unsigned n = 0; n < 16; n++)
        r->gpr[n] = (uint64_t)g[greg_of[n]];
    r->rip = (uint64_t)g[REG_RIP];
    r->rflags = (r->rflags & ~(uint64_t)FLAGS_USER) | ((uint64_t)g[REG_EFL] & FLAGS_USER);
    r->fs = canonical(s.fs);
    r->gs = canonical(s.gs);
    out->trap = (unsigned)g[REG_TRAPNO];
    out->error = (uint64_t)g[REG_ERR];
    out->cr2 = (uint64_t)g[REG_CR2];
    take_selectors(&s, (uint64_t)g[REG_CSGSFS], out->sel);
    take_info(c, s.info, out);
    /* A step within a string instruction, as the CPU marks it; with faults it is theirs.
     */
    if (out->signal == SIGTRAP && out->code == TRAP_TRACE)
        r->rflags |= (uint64_t)g[REG_EFL] & FLAG_RF;
    return true;
}

void cell_run(struct cell *c, struct cell_regs *r, const struct cell_vec *vec,
              bool (*stop)(void *arg), void *arg, struct cell_exit *out) {
    int rc;

    *out = (struct cell_exit){.signal = SIGUSR1, .nothing = true};
    put(c, r, vec);
    cell_turn_begin(c);
    if (stop(arg)) {
        cell_turn_end(c);
        return;
    }
    rc = cell_turn(c);
    cell_turn_end(c);
    out->refused = rc == -ENOMEM;
    if (out->refused)
        return;
    *out = (struct cell_exit){0};
    if (rc || !take(c, r, vec, out))
        *out = (struct cell_exit){0};
}
