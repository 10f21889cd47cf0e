/*
 * The verifier's values: what is true of two of them, and what becomes of them when a
 * register is written. See verify_int.h.
 */
#include "verify/verify_int.h"

struct vval v_public(void) {
    return (struct vval){.kind = V_PUBLIC, .n = UINT64_MAX};
}

struct vval v_const(uint64_t n) {
    return (struct vval){.kind = V_CONST, .n = n};
}

bool v_is_public(const struct vval *a) {
    return a->kind == V_PUBLIC || a->kind == V_CONST || a->kind == V_HASH;
}

bool v_low_public(const struct vval *a, unsigned size) {
    return v_is_public(a) || (a->kind == V_PART && size <= a->n);
}

static bool same(const struct vval *a, const struct vval *b) {
    return a->kind == b->kind && a->acc == b->acc && a->low == b->low &&
           a->how == b->how && a->id == b->id && a->anchor == b->anchor && a->n == b->n;
}

/* At most the larger of two bounds; in steps, so that it does not grow for ever. A
 * constant bounds itself. */
static uint64_t bound_of_both(const struct vval *a, const struct vval *b) {
    uint64_t n = a->n > b->n ? a->n : b->n;

    if (a->kind == V_HASH || b->kind == V_HASH)
        return UINT64_MAX;
    return a->n == b->n ? n : n <= 4096 ? 4096 : UINT64_MAX;
}

static struct vval both_public(const struct vval *a, const struct vval *b) {
    bool both = a->kind == V_PUBLIC && b->kind == V_PUBLIC;
    bool hash = a->kind == V_HASH || b->kind == V_HASH;

    return (struct vval){.kind = V_PUBLIC,
                         .id = a->id == b->id && !hash ? a->id : 0,
                         .low = both && a->low == b->low ? a->low : 0,
                         .n = bound_of_both(a, b)};
}

/* Both lead to fewer bytes, fewer rights. */
static struct vval both_host(const struct vval *a, const struct vval *b) {
    return (struct vval){.kind = V_HOST,
                         .acc = a->acc == b->acc ? a->acc : MMU_READ,
                         .how = (a->how & b->how & HOW_PAGE) |
                                ((a->how | b->how) & (HOW_COPY | HOW_ANCHOR)),
                         .id = a->id == b->id ? a->id : 0,
                         .n = a->n < b->n ? a->n : b->n};
}

bool v_join(struct vval *a, const struct vval *b) {
    struct vval r = {.kind = V_SECRET};

    if (same(a, b))
        return false;
    if (a->kind == V_CONST && b->kind == V_CONST && a->n == b->n)
        r = v_const(a->n); /* named on one way only, or differently */
    else if (v_is_public(a) && v_is_public(b))
        r = both_public(a, b);
    else if (a->kind == V_HOST && b->kind == V_HOST)
        r = both_host(a, b);
    if (same(a, &r))
        return false;
    *a = r;
    return true;
}

static bool join_runs(struct vstate *a, const struct vstate *b) {
    bool changed = false;

    for (unsigned n = 0; n < ARRAY_SIZE(a->run); n++) {
        bool there = !a->run[n].id;

        for (unsigned k = 0; k < ARRAY_SIZE(b->run); k++)
            there |= a->run[n].id == b->run[k].id && a->run[n].shift == b->run[k].shift;
        if (there)
            continue;
        a->run[n].id = 0;
        changed = true;
    }
    return changed;
}

static bool join_fuel(struct vstate *a, const struct vstate *b) {
    int64_t fuel = a->fuel, taken = a->taken;

    if (b->fuel != fuel)
        a->fuel = FUEL_UNKNOWN;
    if (b->taken < taken)
        a->taken = b->taken;
    return a->fuel != fuel || a->taken != taken;
}

static bool same_left(const struct vleft *a, const struct vleft *b) {
    return a->kind == VF_NONE ||
           (a->kind == b->kind && a->reg == b->reg && a->acc == b->acc &&
            a->bank == b->bank && a->slot == b->slot && a->n == b->n);
}

bool v_join_state(struct vstate *a, const struct vstate *b) {
    bool changed = false;

    for (unsigned r = 0; r < 16; r++)
        changed |= v_join(&a->reg[r], &b->reg[r]);
    for (unsigned n = 0; n < CELLS; n++)
        changed |= v_join(&a->cell[n], &b->cell[n]);
    changed |= join_runs(a, b);
    changed |= join_fuel(a, b);
    if (a->polled && !b->polled) {
        a->polled = false;
        changed = true;
    }
    if (a->site_known && !(b->site_known && a->site == b->site)) {
        a->site_known = false;
        changed = true;
    }
    if (!same_left(&a->flags, &b->flags)) {
        a->flags = (struct vleft){.kind = VF_NONE};
        changed = true;
    }
    return changed;
}

static void retire(struct vval *a, uint16_t id) {
    if (a->id != id || !id)
        return;
    if (a->kind == V_PUBLIC || a->kind == V_CONST || a->kind == V_HOST)
        a->id = 0;
    else if (a->kind == V_HASH)
        *a = v_public();
    else
        *a = (struct vval){.kind = V_SECRET};
}

void v_retire(struct vstate *s, uint16_t id) {
    for (unsigned r = 0; r < 16; r++)
        retire(&s->reg[r], id);
    for (unsigned n = 0; n < CELLS; n++)
        retire(&s->cell[n], id);
    for (unsigned n = 0; n < ARRAY_SIZE(s->run); n++)
        if (s->run[n].id == id)
            s->run[n].id = 0;
}

/* What was known by means of RCX's value. */
static void lose_rcx(struct vstate *s) {
    for (unsigned n = 0; n < ARRAY_SIZE(s->run); n++)
        s->run[n].id = 0;
    for (unsigned r = 0; r < 16; r++)
        if (s->reg[r].kind == V_RUN)
            s->reg[r] = (struct vval){.kind = V_SECRET};
    for (unsigned n = 0; n < CELLS; n++)
        if (s->cell[n].kind == V_RUN)
            s->cell[n] = (struct vval){.kind = V_SECRET};
}

void v_set(struct vstate *s, unsigned r, struct vval a, unsigned size) {
    bool was_public = v_is_public(&s->reg[r]);

    if (r == REG_RCX)
        lose_rcx(s);
    if (size == 8) {
        s->reg[r] = a;
        return;
    }
    if (!v_is_public(&a)) {
        s->reg[r] = (struct vval){.kind = V_SECRET};
        return;
    }
    if (size < 4 && !was_public) {
        s->reg[r] = (struct vval){.kind = V_PART, .n = size};
        return;
    }
    if (size < 4)
        a = v_public();
    else if (a.kind == V_CONST)
        a = v_const((uint32_t)a.n);
    else if (a.n > UINT32_MAX)
        a = (struct vval){.kind = V_PUBLIC, .n = UINT32_MAX};
    else
        a = (struct vval){
            .kind = V_PUBLIC, .low = a.kind == V_PUBLIC ? a.low : 0, .n = a.n};
    s->reg[r] = a;
}

void v_forget(struct vstate *s) {
    __builtin_memset(s, 0, sizeof(*s));
    for (unsigned r = 0; r < 14; r++)
        s->reg[r] = v_public();
}
