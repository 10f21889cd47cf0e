/*
 * Timer interrupts that land everywhere in loops of every instruction form
 * (lib/forms.def) without changing what the loops do: registers, flags, vector and x87
 * state and memory after some thousand rounds are what they are when no interrupt comes.
 * In user and kernel mode, and with handlers that clobber vector state and the shadow of
 * the stack below.
 */
#include "lib/forms.h"

const char guest_name[] = GUEST_NAME;

#define LAPIC 0xfee00000ul
#define VECTOR 0x60
#define ROUNDS 1000

static struct snapshot want;
static volatile unsigned ticks, in_form;
static uint32_t period;

static void apic_write(unsigned r, uint32_t v) {
    *(volatile uint32_t *)(LAPIC + r) = v;
}

static bool on_tick(struct frame *f) {
    static uint8_t mine[512] __attribute__((aligned(64)));
    ticks++;
    in_form += f->ip >= rig.at && f->ip < rig.end;
    if (ticks % 4 == 0) { /* as a kernel that switches tasks */
        __asm__ volatile("fxsave %0; fninit; fldz; pxor %%xmm0, %%xmm0; movaps %%xmm0, "
                         "%%xmm5; fxrstor %0"
                         : "+m"(mine));
    }
    apic_write(0x380, period / 2 + random32() % period); /* the next one */
    apic_write(0xb0, 0);
    return true;
}

static void form(const struct form *f, int k, const char *mode) {
    if (!rig_takes_events(f, k))
        return;
    rig_build(f, k, 0);
    in.flags = X86_FL_ONE | X86_FL_IOPL | X86_FL_IF;
    rig_fill();
    unsigned v = rig_run(ROUNDS);
    if (!check(v == DONE, "%s %s alone: vector %u", mode, f->what, v))
        return;
    rig_save(&want);
    digest_snapshot(&want);
    rig_fill();
    apic_write(0x380, period);
    v = rig_run(ROUNDS);
    apic_write(0x380, 0);
    check(v == DONE, "%s %s with interrupts: vector %u", mode, f->what, v);
    rig_same(mode, &want);
}

void guest_main(void) {
    hooks[VECTOR] = on_tick;
    rig_init(BITS(SPACE_PAE, SPACE_LONG));
    apic_write(0xf0, 0x1ff);
    apic_write(0x3e0, 0xb); /* by 1 */
    apic_write(0x320, VECTOR);
    period = 16000;
    rig_each(VECTOR, form);
    check(ticks > 1000, "%u interrupts", ticks);
    note("%u interrupts, %u of them within a form", ticks, in_form);
    digest_print();
}
