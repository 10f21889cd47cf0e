/*
 * Local APIC: its registers as the guest reaches them, by MMIO (xAPIC) or by MSRs
 * (x2APIC). Intel SDM volume 3, "Local APIC Register Address Map" and "x2APIC Register
 * Address Space".
 *
 * Both ways use one number for a register: the MMIO offset divided by 16, which is the
 * MSR number less 0x800. They differ in the ICR (one 64-bit MSR), in what exists (DFR,
 * ICR high and SELF IPI), and in strictness: MSR accesses that set reserved bits, write
 * read-only or read write-only registers raise #GP.
 */
#include <string.h>

#include "dev/apic/lapic_int.h"
#include "x86/msr.h"

enum {
    R_ID = 0x02,
    R_VERSION = 0x03,
    R_TPR = 0x08,
    R_APR = 0x09,
    R_PPR = 0x0a,
    R_EOI = 0x0b,
    R_RRD = 0x0c,
    R_LDR = 0x0d,
    R_DFR = 0x0e,
    R_SVR = 0x0f,
    R_ISR = 0x10,
    R_TMR = 0x18,
    R_IRR = 0x20,
    R_ESR = 0x28,
    R_ICR = 0x30,
    R_ICR_HIGH = 0x31,
    R_LVT = 0x32, /* in the order of enum lvt */
    R_LVT_LAST = 0x37,
    R_INITIAL = 0x38,
    R_CURRENT = 0x39,
    R_DIVIDE = 0x3e,
    R_SELF_IPI = 0x3f,
};

#define BASE_ADDR 0x000ffffffffff000ull

#define VERSION (0x14u | (LVT_COUNT - 1) << 16)

/* Bits of the ICR's low half that are not reserved; bit 12 (status) reads as 0. */
#define ICR_MASK 0x000ccfffu

/* What a guest can change in each LVT entry. */
static const uint32_t lvt_mask[LVT_COUNT] = {
    [LVT_TIMER] = 0x000700ff, [LVT_THERMAL] = 0x000107ff, [LVT_PERF] = 0x000107ff,
    [LVT_LINT0] = 0x0001a7ff, [LVT_LINT1] = 0x0001a7ff,   [LVT_ERROR] = 0x000100ff,
};

/* Status bits of an LVT entry: delivery and, of the pins, remote IRR. They are read-only,
 * not reserved: a write that carries them is no error (Linux writes them at power off).
 */
#define LVT_STATUS 0x1000u
#define LVT_PIN_STATUS 0x5000u

/* False: no such register, or none that can be read. */
static bool reg_read(struct lapic *l, unsigned r, uint32_t *v) {
    lapic_settle(l);
    *v = 0;
    switch (r) {
    case R_ID:
        *v = lapic_is_x2(l) ? l->id : l->id << 24;
        return true;
    case R_VERSION:
        *v = VERSION;
        return true;
    case R_TPR:
        *v = l->tpr;
        return true;
    case R_APR:
    case R_RRD:
        return !lapic_is_x2(l);
    case R_PPR:
        *v = lapic_ppr(l);
        return true;
    case R_EOI:
        return !lapic_is_x2(l);
    case R_LDR:
        *v = l->ldr;
        return true;
    case R_DFR:
        *v = l->dfr;
        return !lapic_is_x2(l);
    case R_SVR:
        *v = l->svr;
        return true;
    case R_ISR ... R_ISR + 7:
        *v = l->isr.w[r - R_ISR];
        return true;
    case R_TMR ... R_TMR + 7:
        *v = l->tmr.w[r - R_TMR];
        return true;
    case R_IRR ... R_IRR + 7:
        *v = l->irr.w[r - R_IRR];
        return true;
    case R_ESR:
        *v = l->esr;
        return true;
    case R_ICR:
        *v = (uint32_t)l->icr;
        return true;
    case R_ICR_HIGH:
        *v = (uint32_t)(l->icr >> 32);
        return !lapic_is_x2(l);
    case R_LVT ... R_LVT_LAST:
        *v = l->lvt[r - R_LVT];
        return true;
    case R_INITIAL:
        *v = l->initial;
        return true;
    case R_CURRENT:
        *v = lapic_timer_current(l);
        return true;
    case R_DIVIDE:
        *v = l->divide;
        return true;
    default:
        return false;
    }
}

static void write_svr(struct lapic *l, uint32_t v) {
    unsigned i;

    SHOW(l->svr, v & 0x1ff);
    if (!(l->svr & SVR_ENABLE))
        for (i = 0; i < LVT_COUNT; i++)
            l->lvt[i] |= LVT_MASKED;
}

static void write_lvt(struct lapic *l, enum lvt which, uint32_t v) {
    v &= lvt_mask[which];
    if (!(l->svr & SVR_ENABLE))
        v |= LVT_MASKED;
    if (which == LVT_TIMER) {
        lapic_timer_set_lvt(l, v);
        return;
    }
    if (v & LVT_LEVEL)
        v |= l->lvt[which] & LVT_REMOTE_IRR;
    l->lvt[which] = v;
    if (which == LVT_LINT0)
        lapic_lint_check(l, 0);
}

/* False: no such register, or none that can be written. */
static bool reg_write(struct lapic *l, unsigned r, uint32_t v) {
    switch (r) {
    case R_ID:
        return !lapic_is_x2(l); /* the ID is fixed, as on current processors */
    case R_TPR:
        SHOW(l->tpr, v & 0xff);
        break;
    case R_EOI:
        lapic_eoi(l);
        break;
    case R_LDR:
        if (lapic_is_x2(l))
            return false;
        SHOW(l->ldr, v & 0xff000000u);
        break;
    case R_DFR:
        if (lapic_is_x2(l))
            return false;
        SHOW(l->dfr, v | 0x0fffffffu);
        break;
    case R_SVR:
        write_svr(l, v);
        break;
    case R_ESR: /* makes what has come since the last write readable */
        l->esr = l->esr_latch;
        l->esr_latch = 0;
        break;
    case R_ICR:
        l->icr = (l->icr & ~0xffffffffull) | (v & ICR_MASK);
        lapic_send(l);
        break;
    case R_ICR_HIGH:
        l->icr = (l->icr & 0xffffffffull) | (uint64_t)(v & 0xff000000u) << 32;
        break;
    case R_LVT ... R_LVT_LAST:
        write_lvt(l, (enum lvt)(r - R_LVT), v);
        break;
    case R_INITIAL:
        lapic_timer_set_initial(l, v);
        break;
    case R_DIVIDE:
        lapic_timer_set_divide(l, v);
        break;
    default:
        return false;
    }
    lapic_update(l);
    return true;
}

/* --- MMIO --- */

bool lapic_page(const struct lapic *l, struct gpa at) {
    uint64_t base = l->base;

    return (base & (BASE_ENABLE | BASE_X2APIC)) == BASE_ENABLE &&
           at.a >> 12 == (base & BASE_ADDR) >> 12;
}

/* Registers are 32 bits on 16-byte boundaries. Narrower reads see their bytes; writes
 * that do not start on the boundary are ignored; of eight bytes the upper four are of no
 * register. */
uint64_t lapic_read(struct lapic *l, unsigned at, unsigned size) {
    uint32_t v;

    if (at & 0xc)
        return 0;
    if (!reg_read(l, (at & 0xfff) >> 4, &v))
        lapic_error(l, ESR_REGISTER);
    v >>= (at & 3) * 8;
    return size < 4 ? v & ((1u << size * 8) - 1) : v;
}

void lapic_write(struct lapic *l, unsigned at, unsigned size, uint64_t value) {
    if (at & 0xf)
        return;
    if (!reg_write(l, (at & 0xfff) >> 4, (uint32_t)value))
        lapic_error(l, ESR_REGISTER);
}

/* --- MSRs --- */

/* Bits that a WRMSR to register R may set. */
static uint64_t x2_writable(unsigned r) {
    switch (r) {
    case R_TPR:
    case R_SELF_IPI:
        return 0xff;
    case R_EOI:
    case R_ESR:
        return 0;
    case R_SVR:
        return 0x1ff;
    case R_ICR:
        return 0xffffffff00000000ull | ICR_MASK;
    case R_LVT + LVT_LINT0... R_LVT + LVT_LINT1:
        return lvt_mask[r - R_LVT] | LVT_PIN_STATUS;
    case R_LVT ... R_LVT + LVT_LINT0 - 1:
    case R_LVT + LVT_LINT1 + 1 ... R_LVT_LAST:
        return lvt_mask[r - R_LVT] | LVT_STATUS;
    case R_DIVIDE:
        return 0xb;
    default:
        return 0xffffffffu;
    }
}

static bool x2_write(struct lapic *l, unsigned r, uint64_t v) {
    if (v & ~x2_writable(r))
        return false;
    switch (r) {
    case R_ICR:
        l->icr = v;
        lapic_send(l);
        lapic_update(l);
        return true;
    case R_SELF_IPI:
        l->icr = (1u << 18) | v; /* shorthand: self */
        lapic_send(l);
        return true;
    case R_ICR_HIGH:
        return false;
    default:
        return reg_write(l, r, (uint32_t)v);
    }
}

static bool x2_read(struct lapic *l, unsigned r, uint64_t *v) {
    uint32_t low;

    if (!reg_read(l, r, &low))
        return false;
    *v = r == R_ICR ? l->icr : low;
    return true;
}

/* Intel SDM volume 3, "Deriving Logical x2APIC ID from the Local x2APIC ID". */
static uint32_t x2_ldr(const struct lapic *l) {
    return (l->id & ~0xfu) << 12 | 1u << (l->id & 0xf);
}

/* Intel SDM volume 3, "Local APIC State After Power-Up or Reset". */
void lapic_clear_regs(struct lapic *l) {
    unsigned i;

    lapic_settle(l);
    lapic_timer_stop(l);
    memset(&l->irr, 0, sizeof(l->irr));
    memset(&l->isr, 0, sizeof(l->isr));
    memset(&l->tmr, 0, sizeof(l->tmr));
    SHOW(l->tpr, 0);
    SHOW(l->ldr, lapic_is_x2(l) ? x2_ldr(l) : 0);
    SHOW(l->dfr, ~0u);
    SHOW(l->svr, 0xff);
    l->esr = l->esr_latch = 0;
    l->icr = 0;
    l->extint = false;
    l->initial = l->divide = 0;
    for (i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = LVT_MASKED;
}

/* Intel SDM volume 3, "x2APIC State Transitions". */
static bool write_base(struct lapic *l, uint64_t v) {
    bool on = v & BASE_ENABLE, x2 = v & BASE_X2APIC;

    if (v & ~(BASE_ADDR | BASE_BSP | BASE_X2APIC | BASE_ENABLE))
        return false;
    if (x2 && (!on || !lapic_on(l)))
        return false; /* invalid, or from disabled straight to x2APIC */
    if (lapic_is_x2(l) && on && !x2)
        return false; /* back to xAPIC only through disabled */
    if (lapic_on(l) && !on)
        lapic_clear_regs(l);
    SHOW(l->base, (v & ~BASE_BSP) | (l->base & BASE_BSP));
    if (x2)
        SHOW(l->ldr, x2_ldr(l));
    lapic_update(l);
    return true;
}

bool lapic_owns_msr(uint32_t msr) {
    return msr == X86_MSR_APIC_BASE || msr == X86_MSR_TSC_DEADLINE ||
           (msr >= X86_MSR_X2APIC_FIRST && msr <= X86_MSR_X2APIC_LAST);
}

bool lapic_msr(struct lapic *l, uint32_t msr, bool write, uint64_t *value) {
    if (msr == X86_MSR_APIC_BASE) {
        if (write)
            return write_base(l, *value);
        *value = l->base;
        return true;
    }
    if (msr == X86_MSR_TSC_DEADLINE) {
        if (write)
            lapic_timer_set_deadline(l, *value);
        else
            *value = lapic_timer_deadline(l);
        return true;
    }
    if (!lapic_owns_msr(msr) || !lapic_is_x2(l))
        return false;
    return write ? x2_write(l, msr - X86_MSR_X2APIC_FIRST, *value)
                 : x2_read(l, msr - X86_MSR_X2APIC_FIRST, value);
}
