/*
 * Local APIC: interrupts and their priorities. Intel SDM volume 3, "Advanced Programmable
 * Interrupt Controller"; AMD64 APM volume 2 has the same.
 *
 * An accepted interrupt is a bit in IRR (with TMR saying whether it is level-triggered);
 * lapic_ack() moves it to ISR; EOI drops the highest bit of ISR. What is let through is
 * decided by class: the highest IRR bit's class must exceed that of PPR.
 *
 * Two ways lead past these registers: ExtINT (through LINT0 or a message), whose vector
 * the 8259s supply, and NMI. When APIC_BASE.EN is clear, LINT0 is the plain INTR pin.
 *
 * There is one CPU, with ID 0: a message for anybody else is not delivered.
 */
#include "dev/apic/lapic_int.h"

static void set_bit(struct vectors *v, unsigned n, bool on) {
    uint32_t bit = 1u << (n & 31);

    v->w[n >> 5] = on ? v->w[n >> 5] | bit : v->w[n >> 5] & ~bit;
}

static bool test_bit(const struct vectors *v, unsigned n) {
    return v->w[n >> 5] >> (n & 31) & 1;
}

static int highest(const struct vectors *v) {
    int i;

    for (i = 7; i >= 0; i--)
        if (v->w[i])
            return i * 32 + 31 - __builtin_clz(v->w[i]);
    return -1;
}

/* Intel SDM volume 3, "Task and Processor Priorities". */
uint8_t lapic_ppr(const struct lapic *l) {
    int served = highest(&l->isr);

    if (served < 0 || (l->tpr >> 4) >= (served >> 4))
        return l->tpr;
    return served & 0xf0;
}

/* The vector in IRR that the priorities let through, or -1. */
static int candidate(const struct lapic *l) {
    int v = lapic_on(l) ? highest(&l->irr) : -1;

    return v >> 4 > lapic_ppr(l) >> 4 ? v : -1;
}

static bool extint_pending(const struct lapic *l) {
    uint32_t lvt = l->lvt[LVT_LINT0];

    if (!lapic_on(l))
        return l->lint[0];
    if (l->extint)
        return true;
    return l->lint[0] && !(lvt & LVT_MASKED) && LVT_MODE(lvt) == APIC_EXTINT;
}

bool lapic_pending(const struct lapic *l) {
    return extint_pending(l) || candidate(l) >= 0;
}

void lapic_update(struct lapic *l) {
    bool out = lapic_pending(l);

    if (out == l->out)
        return;
    l->out = out;
    if (l->host.output)
        l->host.output(l->host.arg, out);
}

int lapic_ack(struct lapic *l) {
    int v;

    if (extint_pending(l)) {
        l->extint = false;
        v = l->host.extint_ack ? l->host.extint_ack(l->host.arg) : -1;
        lapic_update(l);
        return v;
    }
    v = candidate(l);
    if (v < 0)
        return -1;
    set_bit(&l->irr, (unsigned)v, false);
    set_bit(&l->isr, (unsigned)v, true);
    l->cnt->irq_lapic++;
    lapic_update(l);
    return v;
}

static void accept(struct lapic *l, uint8_t vector, bool level) {
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_VECTOR);
        return;
    }
    set_bit(&l->irr, vector, true);
    set_bit(&l->tmr, vector, level);
    lapic_update(l);
}

void lapic_error(struct lapic *l, uint32_t bit) {
    uint32_t lvt = l->lvt[LVT_ERROR];
    bool news = !(l->esr_latch & bit);

    l->esr_latch |= bit;
    /* Not through accept(): an error entry with a bad vector must not call itself. */
    if (news && !(lvt & LVT_MASKED) && (lvt & LVT_VECTOR) >= 16)
        accept(l, lvt & LVT_VECTOR, false);
}

void lapic_lvt_fire(struct lapic *l, enum lvt which) {
    uint32_t lvt = l->lvt[which];

    if ((lvt & LVT_MASKED) || !lapic_on(l))
        return;
    switch (which == LVT_TIMER || which == LVT_ERROR ? APIC_FIXED : LVT_MODE(lvt)) {
    case APIC_FIXED:
        accept(l, lvt & LVT_VECTOR, false);
        break;
    case APIC_NMI:
        if (l->host.nmi)
            l->host.nmi(l->host.arg);
        break;
    case APIC_INIT:
        if (l->host.init)
            l->host.init(l->host.arg);
        break;
    default: /* SMI: none here; ExtINT is a level, see extint_pending() */
        break;
    }
}

/* A level-triggered fixed interrupt on a pin: one at a time until its EOI. */
void lapic_lint_check(struct lapic *l, unsigned pin) {
    uint32_t *lvt = &l->lvt[LVT_LINT0 + pin];

    if (!l->lint[pin] || !lapic_on(l) || (*lvt & (LVT_MASKED | LVT_REMOTE_IRR)))
        return;
    if (LVT_MODE(*lvt) != APIC_FIXED || !(*lvt & LVT_LEVEL) || pin == 1)
        return;
    if ((*lvt & LVT_VECTOR) >= 16)
        *lvt |= LVT_REMOTE_IRR;
    accept(l, *lvt & LVT_VECTOR, true);
}

void lapic_lint(struct lapic *l, unsigned pin, bool level) {
    bool rose;

    if (pin > 1)
        return;
    rose = level && !l->lint[pin];
    l->lint[pin] = level;
    if (!lapic_on(l)) {
        if (pin == 1 && rose && l->host.nmi)
            l->host.nmi(l->host.arg);
    } else if (pin == 0 && (l->lvt[LVT_LINT0] & LVT_LEVEL) &&
               LVT_MODE(l->lvt[LVT_LINT0]) == APIC_FIXED) {
        lapic_lint_check(l, pin);
    } else if (rose) {
        lapic_lvt_fire(l, (enum lvt)(LVT_LINT0 + pin));
    }
    lapic_update(l);
}

void lapic_eoi(struct lapic *l) {
    int v = highest(&l->isr);

    l->cnt->lapic_eoi++;
    if (v < 0)
        return;
    set_bit(&l->isr, (unsigned)v, false);
    if (test_bit(&l->tmr, (unsigned)v)) {
        uint32_t *lvt = &l->lvt[LVT_LINT0];

        if ((*lvt & LVT_REMOTE_IRR) && (*lvt & LVT_VECTOR) == (uint32_t)v) {
            *lvt &= ~LVT_REMOTE_IRR;
            lapic_lint_check(l, 0);
        }
        if (l->host.eoi)
            l->host.eoi(l->host.arg, (uint8_t)v);
    }
    lapic_update(l);
}

uint64_t lapic_base_msr(const struct lapic *l) {
    return l->base;
}

unsigned lapic_cr8(const struct lapic *l) {
    return l->tpr >> 4;
}

void lapic_cr8_set(struct lapic *l, unsigned value) {
    l->tpr = (uint8_t)((value & 15) << 4);
    lapic_update(l);
}

/* --- messages --- */

/* Intel SDM volume 3, "Determining IPI Destination" and "Logical x2APIC ID". */
static bool addressed(const struct lapic *l, const struct apic_msg *m) {
    uint32_t d = m->dest;

    if (lapic_is_x2(l)) {
        if (d == 0xffffffffu || (!m->logical && d == 0xff))
            return true; /* 0xff: the I/O APIC's and MSI's broadcast */
        if (!m->logical)
            return d == l->id;
        return d >> 16 == l->ldr >> 16 && (d & l->ldr & 0xffff);
    }
    d &= 0xff;
    if (!m->logical)
        return d == l->id || d == 0xff;
    if (l->dfr >> 28 == 0xf)
        return d & l->ldr >> 24;
    return (d >> 4 == l->ldr >> 28 || d >> 4 == 0xf) && (d & l->ldr >> 24 & 0xf);
}

static bool take(struct lapic *l, const struct apic_msg *m) {
    switch (m->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!(l->svr & SVR_ENABLE))
            return false;
        accept(l, m->vector, m->level);
        return true;
    case APIC_NMI:
        if (l->host.nmi)
            l->host.nmi(l->host.arg);
        return true;
    case APIC_INIT:
        if (l->host.init)
            l->host.init(l->host.arg);
        return true;
    case APIC_EXTINT:
        l->extint = true;
        lapic_update(l);
        return true;
    default: /* SMI: no SMM; SIPI: the CPU does not wait for one */
        return true;
    }
}

bool lapic_deliver(struct lapic *l, const struct apic_msg *m) {
    if (!lapic_on(l) || !addressed(l, m))
        return false;
    return take(l, m);
}

void lapic_send(struct lapic *l) {
    uint32_t lo = (uint32_t)l->icr;
    struct apic_msg m = {
        .vector = (uint8_t)lo,
        .mode = (lo >> 8) & 7,
        .logical = lo >> 11 & 1,
        .dest = lapic_is_x2(l) ? (uint32_t)(l->icr >> 32) : (uint32_t)(l->icr >> 56),
    };
    unsigned shorthand = lo >> 18 & 3;

    l->cnt->irq_ipi++;
    if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < 16) {
        lapic_error(l, ESR_SEND_VECTOR);
        return;
    }
    if (m.mode == APIC_EXTINT || m.mode == APIC_RESERVED)
        return; /* not what an ICR can send */
    if (m.mode == APIC_INIT && !(lo >> 14 & 1))
        return; /* INIT level de-assert: for processors long gone */
    if (shorthand == 1 && m.mode == APIC_INIT)
        return; /* not a valid combination */
    if (shorthand == 3)
        return; /* everybody else: there is nobody */
    if (shorthand || addressed(l, &m))
        take(l, &m);
}
