/* What all parts of the verifier use. */
#include <stdarg.h>
#include <stdio.h>

#include "verify/verify_int.h"

void v_bad(struct verifier *w, const char *fmt, ...) {
    va_list ap;

    if (w->bad)
        return;
    w->bad = true;
    if (w->n)
        w->f->at = w->c->start + w->off[w->k];
    va_start(ap, fmt);
    vsnprintf(w->f->why, sizeof(w->f->why), fmt, ap);
    va_end(ap);
}

uint16_t v_name(struct verifier *w, struct vstate *s) {
    uint16_t id = (uint16_t)(w->k + 1);

    v_retire(s, id);
    return id;
}

void v_guest_public(struct verifier *w, const struct vstate *s) {
    for (unsigned r = 0; r < 14; r++)
        if (!v_is_public(&s->reg[r]))
            v_bad(w, "a value of ours in register %u, which the guest may see here", r);
}
