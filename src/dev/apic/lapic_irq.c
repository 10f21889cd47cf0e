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
 * What comes from other threads is posted (lapic_int.h). The event that tells the owner
 * to look is the same that tells it that an interrupt waits: output(false) takes it back,
 * and what was posted meanwhile raises it again, so that none is lost.
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

    if (served < 0 || (int)(l->tpr >> 4) >= served >> 4)
        return (uint8_t)l->tpr;
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

static void output(struct lapic *l, bool out) {
    l->out = out;
    if (l->host.output)
        l->host.output(l->host.arg, out);
}

void lapic_update(struct lapic *l) {
    bool out = lapic_pending(l);

    if (out == l->out)
        return;
    output(l, out);
    if (!out && unlikely(__atomic_load_n(&l->posted.what, __ATOMIC_SEQ_CST)))
        output(l, true); /* there is something to look at */
}

/* The event may be there although nothing waits: it goes. */
static int nothing(struct lapic *l) {
    l->out = true;
    lapic_update(l);
    return -1;
}

int lapic_ack(struct lapic *l) {
    int v;

    lapic_settle(l);
    if (extint_pending(l)) {
        l->extint = false;
        v = l->host.extint_ack ? l->host.extint_ack(l->host.arg) : -1;
        lapic_update(l);
        return v;
    }
    v = candidate(l);
    if (v < 0)
        return nothing(l);
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
            l->host.nmi(l->host.arg, true);
        break;
    case APIC_INIT:
        if (l->host.init)
            l->host.init(l->host.arg, true);
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

void lapic_pin_check(struct lapic *l, unsigned pin, bool rose) {
    if (!lapic_on(l)) {
        if (pin == 1 && rose && l->host.nmi)
            l->host.nmi(l->host.arg, true);
    } else if (pin == 0 && (l->lvt[LVT_LINT0] & LVT_LEVEL) &&
               LVT_MODE(l->lvt[LVT_LINT0]) == APIC_FIXED) {
        lapic_lint_check(l, pin);
    } else if (rose) {
        lapic_lvt_fire(l, (enum lvt)(LVT_LINT0 + pin));
    }
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
    SHOW(l->tpr, (value & 15) << 4);
    lapic_update(l);
}

/* --- what comes from elsewhere --- */

static void post(struct lapic *l, uint32_t what, bool mine) {
    __atomic_or_fetch(&l->posted.what, what, __ATOMIC_SEQ_CST);
    if (mine)
        lapic_settle(l);
    else if (l->host.look)
        l->host.look(l->host.arg);
}

static void settle_vectors(struct lapic *l) {
    for (unsigned i = 0; i < 8; i++) {
        uint32_t edge = __atomic_exchange_n(&l->posted.edge.w[i], 0, __ATOMIC_ACQUIRE);
        uint32_t level = __atomic_exchange_n(&l->posted.level.w[i], 0, __ATOMIC_ACQUIRE);

        l->irr.w[i] |= edge | level;
        l->tmr.w[i] = (l->tmr.w[i] & ~edge) | level;
    }
}

static void settle_pins(struct lapic *l) {
    uint32_t pins =
        __atomic_fetch_and(&l->posted.pins, PIN_HIGH(0) | PIN_HIGH(1), __ATOMIC_ACQUIRE);

    for (unsigned n = 0; n < 2; n++) {
        l->lint[n] = pins & PIN_HIGH(n);
        lapic_pin_check(l, n, pins & PIN_ROSE(n));
    }
}

void lapic_settle(struct lapic *l) {
    uint32_t what;

    if (likely(!__atomic_load_n(&l->posted.what, __ATOMIC_RELAXED)))
        return;
    what = __atomic_exchange_n(&l->posted.what, 0, __ATOMIC_SEQ_CST);
    if (what & POSTED_VECTORS)
        settle_vectors(l);
    if (what & POSTED_EXTINT)
        l->extint = true;
    if (what & POSTED_PINS)
        settle_pins(l);
    l->out = !lapic_pending(l); /* the event may be there or not */
    lapic_update(l);
}

void lapic_lint(struct lapic *l, unsigned pin, bool level, bool mine) {
    uint32_t pins = __atomic_load_n(&l->posted.pins, __ATOMIC_RELAXED);

    if (pin > 1 || level == !!(pins & PIN_HIGH(pin)))
        return;
    if (level)
        __atomic_or_fetch(&l->posted.pins, PIN_HIGH(pin) | PIN_ROSE(pin),
                          __ATOMIC_RELEASE);
    else
        __atomic_and_fetch(&l->posted.pins, ~PIN_HIGH(pin), __ATOMIC_RELEASE);
    post(l, POSTED_PINS, mine);
}

/* Intel SDM volume 3, "Determining IPI Destination" and "Logical x2APIC ID". */
bool lapic_addressed(const struct lapic *l, const struct apic_msg *m) {
    uint32_t d = m->dest, ldr = SEE(l->ldr);

    if (lapic_is_x2(l)) {
        if (d == 0xffffffffu || (!m->logical && d == 0xff))
            return true; /* 0xff: the I/O APIC's and MSI's broadcast */
        if (!m->logical)
            return d == l->id;
        return d >> 16 == ldr >> 16 && (d & ldr & 0xffff);
    }
    d &= 0xff;
    if (!m->logical)
        return d == l->id || d == 0xff;
    if (SEE(l->dfr) >> 28 == 0xf)
        return d & ldr >> 24;
    return (d >> 4 == ldr >> 28 || d >> 4 == 0xf) && (d & ldr >> 24 & 0xf);
}

unsigned lapic_priority(const struct lapic *l) {
    return lapic_on(l) && (SEE(l->svr) & SVR_ENABLE) ? SEE(l->tpr) : 256;
}

static bool arrive(struct lapic *l, const struct apic_msg *m, bool mine) {
    struct vectors *v = m->level ? &l->posted.level : &l->posted.edge;

    if (!(SEE(l->svr) & SVR_ENABLE))
        return false;
    if (m->vector < 16) {
        if (mine)
            lapic_error(l, ESR_RECEIVE_VECTOR);
        return true;
    }
    __atomic_or_fetch(&v->w[m->vector >> 5], 1u << (m->vector & 31), __ATOMIC_RELEASE);
    post(l, POSTED_VECTORS, mine);
    return true;
}

bool lapic_deliver(struct lapic *l, const struct apic_msg *m, bool mine) {
    if (!lapic_on(l))
        return false;
    switch (m->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return arrive(l, m, mine);
    case APIC_NMI:
        if (l->host.nmi)
            l->host.nmi(l->host.arg, mine);
        return true;
    case APIC_INIT:
        if (l->host.init)
            l->host.init(l->host.arg, mine);
        return true;
    case APIC_SIPI:
        if (l->host.sipi)
            l->host.sipi(l->host.arg, m->vector, mine);
        return true;
    case APIC_EXTINT:
        post(l, POSTED_EXTINT, mine);
        return true;
    default: /* SMI: there is no SMM */
        return true;
    }
}

/* --- the interrupt command --- */

/* Intel SDM volume 3, "Valid Combinations for the Pentium 4 and Intel Xeon Processors'
 * Local xAPIC Interrupt Command Register". */
static bool can_send(const struct apic_msg *m, enum apic_to to, bool assert) {
    switch (m->mode) {
    case APIC_EXTINT:
    case APIC_RESERVED:
        return false;
    case APIC_INIT: /* level de-assert: for processors long gone */
        return assert &&to != APIC_TO_SELF &&to != APIC_TO_ALL;
    case APIC_SIPI:
        return to != APIC_TO_SELF && to != APIC_TO_ALL;
    default:
        return true;
    }
}

void lapic_send(struct lapic *l) {
    uint32_t lo = (uint32_t)l->icr;
    struct apic_msg m = {
        .vector = (uint8_t)lo,
        .mode = (lo >> 8) & 7,
        .logical = lo >> 11 & 1,
        .dest = lapic_is_x2(l) ? (uint32_t)(l->icr >> 32) : (uint32_t)(l->icr >> 56),
    };
    enum apic_to to = lo >> 18 & 3;

    l->cnt->irq_ipi++;
    if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < 16) {
        lapic_error(l, ESR_SEND_VECTOR);
        return;
    }
    if (!can_send(&m, to, lo >> 14 & 1))
        return;
    if (to == APIC_TO_SELF)
        lapic_deliver(l, &m, true);
    else if (l->host.send)
        l->host.send(l->host.arg, &m, to);
}
