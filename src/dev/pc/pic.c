/*
 * Two 8259As. Intel 8259A data sheet, "Programming the 8259A"; the edge/level control
 * registers (ELCR) are those of the PIIX and its successors.
 *
 * `lines` is the level of each input pin, `irr` the request latch: for an edge-triggered
 * input it is set by a rising edge and cleared by the acknowledge cycle or by the falling
 * edge (a request must stay until it is acknowledged, or it becomes a spurious IRQ7); for
 * a level-triggered one it follows the pin.
 *
 * The slave's INT drives pin 2 of the master. Reset leaves both as PC firmware does:
 * vectors 0x08 and 0x70, everything masked.
 */
#include "dev/pc/pic.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

#define CASCADE 2u

struct chip {
    uint8_t lines, irr, isr, imr;
    uint8_t elcr, elcr_mask;
    uint8_t base;     /* vector of input 0 */
    uint8_t lowest;   /* input of the lowest priority: 7 unless rotated */
    uint8_t expect;   /* the next ICW (2, 3, 4) or 0 */
    bool single;      /* ICW1: no ICW3 follows */
    bool need_icw4;   /* ICW1 */
    bool auto_eoi;    /* ICW4 */
    bool nested;      /* ICW4: special fully nested mode */
    bool rotate_aeoi; /* OCW2 */
    bool special_mask;
    bool read_isr;
    bool poll;
    bool master;
};

struct pic {
    struct chip chip[2]; /* master, slave */
    void (*output)(void *arg, bool level);
    void *arg;
    bool out;
    void (*served)(void *arg);
    void *served_arg;
    struct counters *cnt;
};

/* The input of the highest priority among BITS, or -1. */
static int highest(const struct chip *c, uint8_t bits) {
    unsigned i;

    for (i = 1; i <= 8; i++)
        if (bits & (1u << ((c->lowest + i) & 7)))
            return (int)((c->lowest + i) & 7);
    return -1;
}

/* 0: highest priority. */
static unsigned rank(const struct chip *c, int input) {
    return input < 0 ? 8 : ((unsigned)input - c->lowest - 1) & 7;
}

/* The input that would be served now, or -1. */
static int request(const struct chip *c) {
    uint8_t busy = c->isr;
    int irq = highest(c, c->irr & (uint8_t)~c->imr), served;

    if (irq < 0)
        return -1;
    if (c->special_mask)
        busy &= (uint8_t)~c->imr;
    served = highest(c, busy);
    /* The slave may interrupt again while a request of its own is in service; the inputs
     * below it may not. */
    if (c->nested && c->master && irq == (int)CASCADE && served == irq)
        return irq;
    return rank(c, irq) < rank(c, served) ? irq : -1;
}

static void chip_line(struct chip *c, unsigned n, bool level) {
    uint8_t bit = (uint8_t)(1u << n);

    if (level) {
        if (!(c->lines & bit) || (c->elcr & bit))
            c->irr |= bit;
        c->lines |= bit;
    } else {
        c->lines &= (uint8_t)~bit;
        c->irr &= (uint8_t)~bit;
    }
}

static void update(struct pic *p) {
    bool out;

    chip_line(&p->chip[0], CASCADE, request(&p->chip[1]) >= 0);
    out = request(&p->chip[0]) >= 0;
    if (out == p->out)
        return;
    p->out = out;
    if (p->output)
        p->output(p->arg, out);
}

void pic_set(void *pic, unsigned n, bool level) {
    struct pic *p = pic;

    if (n > 15 || n == CASCADE)
        return;
    chip_line(&p->chip[n >> 3], n & 7, level);
    update(p);
}

void pic_on_served(struct pic *p, void (*served)(void *arg), void *arg) {
    p->served = served;
    p->served_arg = arg;
}

static void tell_served(struct pic *p, bool so) {
    if (so && p->served)
        p->served(p->served_arg);
}

bool pic_pending(const struct pic *p) {
    return p->out;
}

static void end_of_interrupt(struct chip *c, int irq, bool rotate) {
    if (irq < 0)
        return;
    c->isr &= (uint8_t) ~(1u << irq);
    if (rotate)
        c->lowest = (uint8_t)irq;
}

/* The chip's part of an acknowledge cycle (or of a poll) for input IRQ. */
static void accept(struct pic *p, struct chip *c, int irq) {
    uint8_t bit = (uint8_t)(1u << irq);

    c->isr |= bit;
    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (c->auto_eoi)
        end_of_interrupt(c, irq, c->rotate_aeoi);
    if (!c->master) /* INT drops with the acknowledge: another request is a new edge */
        chip_line(&p->chip[0], CASCADE, false);
}

int pic_ack(struct pic *p) {
    struct chip *m = &p->chip[0], *s = &p->chip[1];
    int irq = request(m), vector;

    if (irq < 0) {
        p->cnt->irq_pic_spurious++;
        return m->base + 7;
    }
    accept(p, m, irq);
    vector = m->base + irq;
    if (irq == (int)CASCADE) {
        irq = request(s);
        if (irq < 0) {
            p->cnt->irq_pic_spurious++;
            vector = s->base + 7;
        } else {
            accept(p, s, irq);
            vector = s->base + irq;
        }
    }
    p->cnt->irq_pic++;
    update(p);
    tell_served(p, m->auto_eoi || s->auto_eoi);
    return vector;
}

/* --- registers --- */

static void chip_init(struct chip *c) {
    c->irr = c->lines & c->elcr;
    c->isr = c->imr = 0;
    c->lowest = 7;
    c->auto_eoi = c->nested = c->rotate_aeoi = false;
    c->special_mask = c->read_isr = c->poll = false;
}

static void write_icw1(struct chip *c, uint8_t value) {
    chip_init(c);
    c->single = value & 2;
    c->need_icw4 = value & 1;
    c->expect = 2;
}

static void write_ocw2(struct chip *c, uint8_t value) {
    int which = value & 7;
    uint8_t busy = c->isr;

    if (c->special_mask)
        busy &= (uint8_t)~c->imr;
    switch (value >> 5) {
    case 0: /* rotate in automatic EOI mode: off, on */
    case 4:
        c->rotate_aeoi = value >> 7;
        break;
    case 1: /* non-specific EOI, without and with rotation */
    case 5:
        end_of_interrupt(c, highest(c, busy), value >> 7);
        break;
    case 3: /* specific EOI, the same */
    case 7:
        end_of_interrupt(c, which, value >> 7);
        break;
    case 6: /* set priority */
        c->lowest = (uint8_t)which;
        break;
    default: /* no operation */
        break;
    }
}

static void write_ocw3(struct chip *c, uint8_t value) {
    if (value & 0x40)
        c->special_mask = value & 0x20;
    c->poll = value & 4;
    if (value & 2)
        c->read_isr = value & 1;
}

static void write_data(struct chip *c, uint8_t value) {
    switch (c->expect) {
    case 2:
        c->base = value & 0xf8;
        c->expect = c->single ? (c->need_icw4 ? 4 : 0) : 3;
        break;
    case 3: /* the cascade is soldered */
        c->expect = c->need_icw4 ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = value & 2;
        c->nested = value & 0x10;
        c->expect = 0;
        break;
    default:
        c->imr = value;
        break;
    }
}

static void chip_write(struct pic *p, struct chip *c, uint64_t reg, uint8_t value) {
    uint8_t was = c->isr | c->imr;

    if (reg)
        write_data(c, value);
    else if (value & 0x10)
        write_icw1(c, value);
    else if (value & 0x08)
        write_ocw3(c, value);
    else
        write_ocw2(c, value);
    update(p);
    tell_served(p, was & ~(c->isr | c->imr));
}

static uint8_t chip_poll(struct pic *p, struct chip *c) {
    int irq = request(c);

    c->poll = false;
    if (irq < 0)
        return 0;
    accept(p, c, irq);
    update(p);
    return (uint8_t)(0x80 | irq);
}

static uint8_t chip_read(struct pic *p, struct chip *c, uint64_t reg) {
    if (c->poll)
        return chip_poll(p, c);
    if (reg)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *dev, uint64_t reg, unsigned size) {
    struct pic *p = dev;

    return chip_read(p, &p->chip[0], reg);
}

static void master_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct pic *p = dev;

    chip_write(p, &p->chip[0], reg, (uint8_t)value);
}

static uint64_t slave_read(void *dev, uint64_t reg, unsigned size) {
    struct pic *p = dev;

    return chip_read(p, &p->chip[1], reg);
}

static void slave_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct pic *p = dev;

    chip_write(p, &p->chip[1], reg, (uint8_t)value);
}

static uint64_t elcr_read(void *dev, uint64_t reg, unsigned size) {
    struct pic *p = dev;

    return p->chip[reg & 1].elcr;
}

static void elcr_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct pic *p = dev;
    struct chip *c = &p->chip[reg & 1];

    c->elcr = (uint8_t)value & c->elcr_mask;
    /* A level-triggered request is the pin's level. */
    c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->lines & c->elcr));
    update(p);
}

static const struct bus_ops master_ops = {
    .read = master_read, .write = master_write, .width = 1, .general = true};
static const struct bus_ops slave_ops = {
    .read = slave_read, .write = slave_write, .width = 1, .general = true};
static const struct bus_ops elcr_ops = {
    .read = elcr_read, .write = elcr_write, .width = 1, .general = true};

void pic_reset(struct pic *p) {
    unsigned i;

    for (i = 0; i < 2; i++) {
        struct chip *c = &p->chip[i];

        c->elcr = 0;
        c->expect = 0;
        chip_init(c);
        c->imr = 0xff;
    }
    p->chip[0].base = 0x08;
    p->chip[1].base = 0x70;
    update(p);
}

static void chip_state(struct chip *c, struct snapshot *s) {
    SNAPSHOT(s, c->lines);
    SNAPSHOT(s, c->irr);
    SNAPSHOT(s, c->isr);
    SNAPSHOT(s, c->imr);
    SNAPSHOT(s, c->elcr);
    SNAPSHOT(s, c->base);
    SNAPSHOT_UPTO(s, c->lowest, 7);
    SNAPSHOT_UPTO(s, c->expect, 4);
    SNAPSHOT(s, c->single);
    SNAPSHOT(s, c->need_icw4);
    SNAPSHOT(s, c->auto_eoi);
    SNAPSHOT(s, c->nested);
    SNAPSHOT(s, c->rotate_aeoi);
    SNAPSHOT(s, c->special_mask);
    SNAPSHOT(s, c->read_isr);
    SNAPSHOT(s, c->poll);
}

void pic_state(struct pic *p, struct snapshot *s) {
    chip_state(&p->chip[0], s);
    chip_state(&p->chip[1], s);
    SNAPSHOT(s, p->out);
}

struct pic *pic_new(struct bus *bus, void (*output)(void *arg, bool level), void *arg,
                    struct counters *cnt) {
    struct pic *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->output = output;
    p->arg = arg;
    p->cnt = cnt;
    p->chip[0].master = true;
    p->chip[0].elcr_mask = 0xf8; /* the timer, the keyboard and the cascade are edges */
    p->chip[1].elcr_mask = 0xde; /* so are the clock and the FPU */
    if (!bus_attach_pio(bus, 0x20, 2, &master_ops, p, "pic master") ||
        !bus_attach_pio(bus, 0xa0, 2, &slave_ops, p, "pic slave") ||
        !bus_attach_pio(bus, 0x4d0, 2, &elcr_ops, p, "pic elcr")) {
        free(p);
        return NULL;
    }
    pic_reset(p);
    return p;
}

void pic_free(struct pic *p) {
    free(p);
}
