/*
 * 8254 interval timer. Intel 8254 data sheet, "Mode Definitions" and "Read Back".
 *
 * Nothing counts here. A channel knows when its count was loaded (`start`, in ticks of
 * 1.193182 MHz of the virtual clock) and from what (`reload`); the current count and the
 * output follow from the time. A count written to a running mode 2 or 3 waits in `next`
 * and takes over at the end of the period.
 *
 * Interrupts: a timer of the virtual clock is set to the next rising edge of channel 0's
 * output. Two bounds keep a guest from asking for more than the machine can give:
 *  - edges closer than MIN_EDGE_NS are merged;
 *  - edges that passed while the guest did not run are made up for, at half the period,
 *    but never more than MAX_BACKLOG of them. Guests that keep time by counting ticks
 * then stay right over short stalls, and do not drown after long ones. What is merged or
 * given up is counted (irq_ticks_coalesced).
 */
#include "dev/pc/pit.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define MIN_EDGE_NS 50000u
#define MAX_BACKLOG 100u
#define NS_PER_S 1000000000u
/* The PC toggles this bit with every memory refresh. */
#define REFRESH_NS 15085u

#define P61_GATE2 0x01u
#define P61_WRITABLE 0x0fu
#define P61_REFRESH 0x10u
#define P61_OUT2 0x20u

struct channel {
    uint8_t mode; /* 0..5 */
    uint8_t rw;   /* 1 low byte, 2 high byte, 3 low then high */
    bool bcd;
    bool gate;
    bool armed;    /* a count was written since the mode was set */
    bool running;  /* loaded; modes 1 and 5: triggered */
    bool has_next; /* modes 2 and 3: `next` waits for the end of the period */
    uint32_t reload, next;
    uint64_t start;   /* tick of the load */
    uint64_t swap_at; /* tick at which `next` takes over */
    uint64_t frozen;  /* ticks counted when the gate closed (modes 0 and 4) */
    bool write_high;  /* rw 3: the next byte is the high one */
    bool read_high;
    uint8_t low;     /* the low byte that waits for the high one */
    uint8_t latched; /* bytes of `latch` to be read */
    uint16_t latch;
    bool status_latched;
    uint8_t status;
};

struct pit {
    struct vclock *clock;
    struct irq_line irq;
    struct counters *cnt;
    struct channel ch[3];
    uint8_t p61;
    struct vtimer timer;
    uint64_t edge;    /* tick of the next edge of channel 0 that is owed */
    uint64_t backlog; /* edges owed from the past */
};

static uint64_t now_ticks(const struct pit *p) {
    return (uint64_t)((unsigned __int128)vclock_now(p->clock) * PIT_HZ / NS_PER_S);
}

/* The first nanosecond in which now_ticks() is T. */
static uint64_t ns_of(uint64_t t) {
    return (uint64_t)(((unsigned __int128)t * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

static bool periodic(const struct channel *c) {
    return c->mode == 2 || c->mode == 3;
}

static uint32_t modulus(const struct channel *c) {
    return c->bcd ? 10000 : 65536;
}

static uint64_t elapsed(const struct channel *c, uint64_t now) {
    if (!c->gate && (c->mode == 0 || c->mode == 4))
        return c->frozen;
    return now > c->start ? now - c->start : 0;
}

/* A waiting count takes over when its time has come. */
static void sync(struct channel *c, uint64_t now) {
    if (!c->has_next || now < c->swap_at)
        return;
    c->has_next = false;
    c->reload = c->next;
    c->start = c->swap_at;
}

static bool output(const struct channel *c, uint64_t now) {
    uint64_t e = elapsed(c, now);

    if (!c->running)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1:
        return e >= c->reload;
    case 2:
        return !c->gate || e % c->reload != c->reload - 1;
    case 3:
        return !c->gate || e % c->reload < (c->reload + 1) / 2;
    default:
        return e != c->reload;
    }
}

static uint32_t to_bcd(uint32_t v) {
    return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12;
}

/* Digits above 9 count for what they are, as in the chip's decade counters. */
static uint32_t from_bcd(uint32_t v) {
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

/* The counting element as the guest reads it. */
static uint16_t count(const struct channel *c, uint64_t now) {
    uint64_t e = elapsed(c, now), half;
    uint32_t v, m = modulus(c);

    if (!c->running)
        return (uint16_t)(c->bcd ? to_bcd(c->reload % m) : c->reload);
    if (c->mode == 2) {
        v = c->reload - (uint32_t)(c->gate ? e % c->reload : 0);
    } else if (c->mode == 3) {
        e = c->gate ? e % c->reload : 0;
        half = (c->reload + 1) / 2;
        v = (c->reload & ~1u) - 2 * (uint32_t)(e < half ? e : e - half);
    } else {
        v = (uint32_t)((c->reload + m - e % m) % m);
    }
    v %= m;
    return (uint16_t)(c->bcd ? to_bcd(v) : v);
}

/* --- channel 0's interrupt --- */

/* The first rising edge of the output after tick T, or VCLOCK_NEVER. */
static uint64_t next_edge(const struct channel *c, uint64_t t) {
    uint64_t n, start = c->start;
    uint32_t reload = c->reload;

    if (!c->running || !c->gate)
        return VCLOCK_NEVER;
    if (periodic(c)) {
        if (c->has_next && t >= c->swap_at)
            return VCLOCK_NEVER; /* not after sync() */
        n = t < start ? 0 : (t - start) / reload;
        return start + (n + 1) * reload;
    }
    if (c->mode == 0 || c->mode == 1)
        return t < start + reload ? start + reload : VCLOCK_NEVER;
    return t < start + reload + 1 ? start + reload + 1 : VCLOCK_NEVER;
}

static void drive(struct pit *p, uint64_t now) {
    irq_set(&p->irq, output(&p->ch[0], now));
}

static void pulse(struct pit *p, uint64_t now) {
    p->cnt->irq_timer_pit++;
    irq_set(&p->irq, false);
    irq_set(&p->irq, true);
    if (!periodic(&p->ch[0]))
        drive(p, now);
}

/* Sets the timer to the next edge, or sooner while there is a backlog. */
static void schedule(struct pit *p) {
    const struct channel *c = &p->ch[0];
    uint64_t now = vclock_now(p->clock), at, soon;

    if (p->edge == VCLOCK_NEVER && !p->backlog) {
        vtimer_cancel(p->clock, &p->timer);
        return;
    }
    at = p->edge == VCLOCK_NEVER ? VCLOCK_NEVER : ns_of(p->edge);
    if (periodic(c) && at < now + MIN_EDGE_NS && ns_of(c->reload) < MIN_EDGE_NS)
        at = now + MIN_EDGE_NS;
    soon = now + ns_of(c->reload) / 2;
    if (soon < now + MIN_EDGE_NS)
        soon = now + MIN_EDGE_NS;
    if (p->backlog && soon < at)
        at = soon;
    vtimer_arm(p->clock, &p->timer, at);
}

/* Channel 0 was programmed: what was owed is void. */
static void restart(struct pit *p, uint64_t now) {
    p->backlog = 0;
    p->edge = next_edge(&p->ch[0], now);
    schedule(p);
}

/* Counts the edges of a periodic channel up to NOW into the backlog. */
static void collect(struct pit *p, uint64_t now) {
    struct channel *c = &p->ch[0];
    uint64_t n, keep;

    if (p->edge > now)
        return;
    n = (now - p->edge) / c->reload + 1;
    p->backlog += n;
    keep = ns_of(c->reload) < MIN_EDGE_NS ? 1 : MAX_BACKLOG;
    if (p->backlog > keep) {
        p->cnt->irq_ticks_coalesced += p->backlog - keep;
        p->backlog = keep;
    }
    sync(c, now);
    p->edge = next_edge(c, now);
}

static void timer_due(void *arg) {
    struct pit *p = arg;
    uint64_t now = now_ticks(p);

    if (periodic(&p->ch[0])) {
        collect(p, now);
        if (p->backlog) {
            p->backlog--;
            pulse(p, now);
        }
    } else if (p->edge <= now) {
        p->edge = VCLOCK_NEVER;
        pulse(p, now);
    }
    schedule(p);
}

/* --- programming --- */

static void load(struct channel *c, uint64_t now) {
    c->running = true;
    c->has_next = false;
    c->start = now + 1;
    c->frozen = 0;
}

/* The end of the running period, where a new count takes over. */
static uint64_t period_end(const struct channel *c, uint64_t now) {
    return c->start +
           ((now < c->start ? 0 : (now - c->start) / c->reload) + 1) * c->reload;
}

static void set_count(struct pit *p, unsigned n, uint16_t raw) {
    struct channel *c = &p->ch[n];
    uint64_t now = now_ticks(p);
    uint32_t v = c->bcd ? from_bcd(raw) : raw;

    if (!v)
        v = modulus(c);
    sync(c, now);
    c->armed = true;
    if (periodic(c) && c->running && c->gate) {
        c->next = v;
        c->has_next = true;
        c->swap_at = period_end(c, now);
        return;
    }
    c->reload = v;
    if (c->mode != 1 && c->mode != 5)
        load(c, now);
    if (n == 0) {
        drive(p, now);
        restart(p, now);
    }
}

static void set_gate(struct channel *c, bool gate, uint64_t now) {
    bool rose = gate && !c->gate;

    sync(c, now);
    if (gate == c->gate)
        return;
    if (c->mode == 0 || c->mode == 4) { /* counting stops and goes on */
        if (rose)
            c->start = now - (c->frozen < now ? c->frozen : now);
        else
            c->frozen = elapsed(c, now);
    }
    c->gate = gate;
    if (rose && c->armed && c->mode != 0 && c->mode != 4) {
        if (c->has_next)
            c->reload = c->next;
        load(c, now);
    }
}

static void write_counter(struct pit *p, unsigned n, uint8_t value) {
    struct channel *c = &p->ch[n];

    switch (c->rw) {
    case 1:
        set_count(p, n, value);
        break;
    case 2:
        set_count(p, n, (uint16_t)(value << 8));
        break;
    default:
        c->write_high = !c->write_high;
        if (!c->write_high) {
            set_count(p, n, (uint16_t)(c->low | value << 8));
            break;
        }
        c->low = value;
        if (c->mode == 0) { /* the first byte stops the count */
            c->running = false;
            if (n == 0) {
                drive(p, now_ticks(p));
                restart(p, now_ticks(p));
            }
        }
        break;
    }
}

static uint8_t read_counter(struct pit *p, unsigned n) {
    struct channel *c = &p->ch[n];
    uint16_t v;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    sync(c, now_ticks(p));
    v = c->latched ? c->latch : count(c, now_ticks(p));
    if (c->latched)
        c->latched--;
    if (c->rw == 1)
        return (uint8_t)v;
    if (c->rw == 2)
        return v >> 8;
    c->read_high = !c->read_high;
    return c->read_high ? (uint8_t)v : v >> 8;
}

static void latch_count(struct channel *c, uint64_t now) {
    if (c->latched)
        return; /* the first one stays until it is read */
    sync(c, now);
    c->latch = count(c, now);
    c->latched = c->rw == 3 ? 2 : 1;
    c->read_high = false;
}

static void latch_status(struct channel *c, uint64_t now) {
    bool null;

    if (c->status_latched)
        return;
    sync(c, now);
    null = !c->armed || c->has_next || !c->running || now < c->start;
    c->status =
        (uint8_t)(output(c, now) << 7 | null << 6 | c->rw << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void read_back(struct pit *p, uint8_t value) {
    uint64_t now = now_ticks(p);
    unsigned n;

    for (n = 0; n < 3; n++) {
        if (!(value & 2u << n))
            continue;
        if (!(value & 0x20))
            latch_count(&p->ch[n], now);
        if (!(value & 0x10))
            latch_status(&p->ch[n], now);
    }
}

static void write_control(struct pit *p, uint8_t value) {
    unsigned n = value >> 6;
    struct channel *c;

    if (n == 3) {
        read_back(p, value);
        return;
    }
    c = &p->ch[n];
    if (!(value & 0x30)) {
        latch_count(c, now_ticks(p));
        return;
    }
    c->rw = value >> 4 & 3;
    c->mode = value >> 1 & 7;
    if (c->mode > 5)
        c->mode -= 4; /* 6 and 7 are 2 and 3 */
    c->bcd = value & 1;
    c->armed = c->running = c->has_next = false;
    c->write_high = c->read_high = c->status_latched = false;
    c->latched = 0;
    c->frozen = 0;
    if (n == 0) {
        drive(p, now_ticks(p));
        restart(p, now_ticks(p));
    }
}

static uint64_t io_read(void *dev, uint64_t reg, unsigned size) {
    struct pit *p = dev;

    return reg < 3 ? read_counter(p, (unsigned)reg) : 0xff; /* control: write-only */
}

static void io_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct pit *p = dev;

    if (reg < 3)
        write_counter(p, (unsigned)reg, (uint8_t)value);
    else
        write_control(p, (uint8_t)value);
}

static uint64_t p61_read(void *dev, uint64_t reg, unsigned size) {
    struct pit *p = dev;
    uint64_t now = now_ticks(p);
    uint8_t v = p->p61;

    sync(&p->ch[2], now);
    if (vclock_now(p->clock) / REFRESH_NS & 1)
        v |= P61_REFRESH;
    if (output(&p->ch[2], now))
        v |= P61_OUT2;
    return v;
}

static void p61_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct pit *p = dev;

    p->p61 = (uint8_t)value & P61_WRITABLE;
    set_gate(&p->ch[2], value & P61_GATE2, now_ticks(p));
}

static const struct bus_ops ops = {.read = io_read, .write = io_write, .width = 1};
static const struct bus_ops p61_ops = {.read = p61_read, .write = p61_write, .width = 1};

/* --- snapshots --- */

static void channel_state(struct channel *c, struct snapshot *s) {
    SNAPSHOT_UPTO(s, c->mode, 5);
    SNAPSHOT_UPTO(s, c->rw, 3);
    SNAPSHOT(s, c->bcd);
    SNAPSHOT(s, c->gate);
    SNAPSHOT(s, c->armed);
    SNAPSHOT(s, c->running);
    SNAPSHOT(s, c->has_next);
    SNAPSHOT_UPTO(s, c->reload, 65536);
    SNAPSHOT_UPTO(s, c->next, 65536);
    SNAPSHOT(s, c->start);
    SNAPSHOT(s, c->swap_at);
    SNAPSHOT(s, c->frozen);
    SNAPSHOT(s, c->write_high);
    SNAPSHOT(s, c->read_high);
    SNAPSHOT(s, c->low);
    SNAPSHOT_UPTO(s, c->latched, 2);
    SNAPSHOT(s, c->latch);
    SNAPSHOT(s, c->status_latched);
    SNAPSHOT(s, c->status);
    snapshot_need(s, c->rw && c->reload && (c->next || !c->has_next));
    if (!c->reload) /* a divisor, whatever was read */
        c->reload = 65536;
}

void pit_state(struct pit *p, struct snapshot *s) {
    for (unsigned n = 0; n < 3; n++)
        channel_state(&p->ch[n], s);
    SNAPSHOT_UPTO(s, p->p61, P61_WRITABLE);
    SNAPSHOT(s, p->edge);
    SNAPSHOT_UPTO(s, p->backlog, MAX_BACKLOG);
    vtimer_state(p->clock, &p->timer, s);
}

void pit_reset(struct pit *p) {
    unsigned n;

    for (n = 0; n < 3; n++)
        p->ch[n] = (struct channel){.mode = 3, .rw = 3, .gate = n < 2, .reload = 65536};
    p->p61 = 0;
    p->backlog = 0;
    p->edge = VCLOCK_NEVER;
    vtimer_cancel(p->clock, &p->timer);
    drive(p, now_ticks(p));
}

struct pit *pit_new(struct bus *bus, struct vclock *clock, struct irq_line irq,
                    struct counters *cnt) {
    struct pit *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->clock = clock;
    p->irq = irq;
    p->cnt = cnt;
    p->timer = (struct vtimer){.fire = timer_due, .arg = p};
    if (!bus_attach_pio(bus, 0x40, 4, &ops, p, "pit") ||
        !bus_attach_pio(bus, 0x61, 1, &p61_ops, p, "system control port B")) {
        free(p);
        return NULL;
    }
    pit_reset(p);
    return p;
}

void pit_free(struct pit *p) {
    if (!p)
        return;
    vtimer_cancel(p->clock, &p->timer);
    free(p);
}
