/*
 * Single-step over each instruction form (lib/forms.def), in each mode and across page
 * boundaries: one #DB after each instruction with BS alone in DR6, at the next
 * instruction; one after each iteration of a repeated string; none after a load of SS
 * until the next instruction is done. Registers, flags, vector and x87 state and memory
 * must then be what they are without TF.
 *
 * Intel SDM volume 3, "Single-Step Exception Condition"; AMD64 APM volume 2, "Single
 * Stepping".
 */
#include "lib/forms.h"

const char guest_name[] = GUEST_NAME;

#define ROUNDS 2

static struct snapshot want;
static unsigned traps, wrong, in_form, cases;
static bool within; /* the next instruction is the form's */
static ulong wrong_ip, wrong_dr6;

static bool is(const char *what, const char *start) {
    while (*start)
        if (*what++ != *start++)
            return false;
    return true;
}

/* May the trap after (a part of) the form be at IP? */
static bool follows(ulong ip) {
    const struct form *f = rig.f;
    if (f->flags & MULTI)
        return ip > rig.at && ip <= rig.end;
    return ip == rig.end || (ip == rig.at && (f->flags & REP));
}

static bool on_step(struct frame *f) {
    ulong dr6 = read_dr6() & 0xe00f;
    traps++;
    if (within)
        in_form++;
    if (dr6 != X86_DR6_BS || (within && !follows(f->ip))) {
        if (!wrong++)
            wrong_ip = f->ip, wrong_dr6 = dr6;
    }
    within = f->ip >= rig.at && f->ip < rig.end;
    write_dr6(X86_DR6_FIXED);
    f->flags |= X86_FL_TF; /* POPF and IRET may have cleared it */
    return true;
}

static void form(const struct form *f, int k, const char *mode) {
    if (!rig_takes_events(f, k))
        return;
    cases++;
    rig_build(f, k, 0);
    in.flags = X86_FL_ONE | X86_FL_IOPL;
    rig_fill();
    unsigned v = rig_run(ROUNDS);
    if (!check(v == DONE, "%s %s alone: vector %u", mode, f->what, v))
        return;
    rig_save(&want);
    rig_fill();
    traps = wrong = in_form = 0;
    within = false;
    write_dr6(X86_DR6_FIXED);
    in.flags |= X86_FL_TF;
    v = rig_run(ROUNDS);
    in.flags &= ~(ulong)X86_FL_TF;
    trap.r.flags &= ~(ulong)X86_FL_TF;
    bool once = !(f->flags & (REP | MULTI));
    check(v == DONE && !wrong && (once ? in_form == ROUNDS : in_form >= ROUNDS),
          "%s %s: vector %u; %u traps, %u after the form, %u wrong (form+%ld, DR6 0x%lx)",
          mode, f->what, v, traps, in_form, wrong, (long)(wrong_ip - rig.at), wrong_dr6);
    digest_add(traps << 8 | in_form);
    if (!is(f->what, "pushf")) /* it stores TF */
        rig_same(mode, &want);
}

void guest_main(void) {
    hooks[X86_DB] = on_step;
    rig_init(BITS(SPACE_PAE, SPACE_LONG));
    rig_each(X86_DB, form);
    note("%u cases", cases);
    digest_print();
}
