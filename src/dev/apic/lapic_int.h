/* State shared by the files of the local APIC: lapic_irq.c, lapic_timer.c, lapic_regs.c,
 * lapic.c. */
#ifndef DEV_LAPIC_INT_H
#define DEV_LAPIC_INT_H

#include "dev/apic/lapic.h"

#define BASE_BSP (1ull << 8)
#define BASE_X2APIC (1ull << 10)
#define BASE_ENABLE (1ull << 11)

#define SVR_ENABLE 0x100u

#define LVT_VECTOR 0xffu
#define LVT_MODE(l) (((l) >> 8) & 7u)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL (1u << 15)
#define LVT_MASKED (1u << 16)
#define LVT_TIMER_MODE(l) (((l) >> 17) & 3u)

#define ESR_SEND_VECTOR (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER (1u << 7)

#define TIMER_ONESHOT 0u
#define TIMER_PERIODIC 1u
#define TIMER_DEADLINE 2u

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

/* A 256-bit register: bit V of word V / 32. */
struct vectors {
    uint32_t w[8];
};

/* What others have posted and the owner has not taken: each word is changed atomically.
 * A poster sets its bits first, then `what`, and then tells the owner to look; the owner
 * clears `what` first. */
#define POSTED_VECTORS 1u
#define POSTED_PINS 2u
#define POSTED_EXTINT 4u

#define PIN_HIGH(n) (1u << (n))
#define PIN_ROSE(n) (4u << (n))

struct posted {
    uint32_t what;
    uint32_t pins; /* PIN_HIGH: the levels; PIN_ROSE: there was an edge */
    struct vectors edge, level;
};

struct lapic {
    struct vclock *clock;
    struct lapic_host host;
    struct counters *cnt;

    struct posted posted;
    uint32_t id;
    /* Others look at these, to address messages: stored as a whole. */
    uint64_t base; /* MSR APIC_BASE */
    uint32_t ldr, dfr, svr;
    uint32_t tpr;            /* 8 bits */
    uint32_t esr, esr_latch; /* what is read, and what has come since the last write */
    uint64_t icr;
    uint32_t lvt[LVT_COUNT];
    struct vectors irr, isr, tmr;
    bool lint[2];
    bool extint; /* an ExtINT message that waits for its acknowledge */
    bool out;    /* what host.output was last told */

    uint32_t initial;  /* TMICT */
    uint32_t divide;   /* TDCR */
    uint64_t end;      /* when the count reaches 0; valid while timer.armed */
    uint64_t deadline; /* TSC_DEADLINE; 0: disarmed */
    struct vtimer timer;
};

/* Of a field that others look at. */
#define SEE(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define SHOW(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)

static inline bool lapic_on(const struct lapic *l) {
    return SEE(l->base) & BASE_ENABLE;
}

static inline bool lapic_is_x2(const struct lapic *l) {
    return SEE(l->base) & BASE_X2APIC;
}

/* lapic_irq.c */
void lapic_update(struct lapic *l);
void lapic_pin_check(struct lapic *l, unsigned pin, bool rose);
void lapic_error(struct lapic *l, uint32_t bit);
void lapic_lvt_fire(struct lapic *l, enum lvt which);
void lapic_lint_check(struct lapic *l, unsigned pin);
void lapic_eoi(struct lapic *l);
void lapic_send(struct lapic *l); /* what the ICR says */
uint8_t lapic_ppr(const struct lapic *l);

/* lapic_timer.c */
void lapic_timer_fire(void *lapic);
void lapic_timer_stop(struct lapic *l);
void lapic_timer_set_lvt(struct lapic *l, uint32_t value);
void lapic_timer_set_initial(struct lapic *l, uint32_t value);
void lapic_timer_set_divide(struct lapic *l, uint32_t value);
uint32_t lapic_timer_current(struct lapic *l);
uint64_t lapic_timer_deadline(const struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t value);

/* lapic_regs.c */
void lapic_clear_regs(struct lapic *l); /* power-up state but for APIC_BASE and ID */

#endif
