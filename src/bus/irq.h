/* An interrupt line: who drives it does not know who listens. Level, active high. */
#ifndef BUS_IRQ_H
#define BUS_IRQ_H

#include "base/types.h"

struct irq_line {
    void (*set)(void *arg, unsigned n, bool level);
    void *arg;
    unsigned n;
};

static inline void irq_set(const struct irq_line *l, bool level) {
    if (l->set)
        l->set(l->arg, l->n, level);
}

#endif
