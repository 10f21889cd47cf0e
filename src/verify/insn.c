/*
 * The verifier's instructions: what each does to the values that are followed. Those that
 * are a step of something (a check, a run of elements, the jump table, fuel) are known by
 * what their operands hold; all others may use what is public and make what is public.
 */
#include "verify/verify_int.h"

static bool is_reg(const struct host_insn *i, unsigned n, unsigned size) {
    return i->nops > n && i->opnd[n].kind == HOST_REG && i->opnd[n].size == size;
}

static bool is_mem(const struct host_insn *i, unsigned n) {
    return i->nops > n && i->opnd[n].kind == HOST_MEM;
}

static bool is_imm(const struct host_insn *i, unsigned n) {
    return i->nops > n && i->opnd[n].kind == HOST_IMM;
}

/* Everything that I reads is public, and so is what it writes. */
static void plain(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    for (unsigned k = 0; k < i->nops; k++) {
        const struct host_operand *o = &i->opnd[k];

        if (o->kind == HOST_REG && (o->access & HOST_READ) &&
            !v_low_public(&s->reg[o->reg], o->high ? 2 : o->size))
            v_bad(w, "uses a value of ours in register %u as a number", o->reg);
        if (o->kind == HOST_MEM)
            v_access(w, s, i);
    }
    for (unsigned k = 0; k < i->nops; k++) {
        const struct host_operand *o = &i->opnd[k];

        if (o->kind != HOST_REG || !(o->access & HOST_WRITE))
            continue;
        if (o->high && !v_is_public(&s->reg[o->reg]))
            v_bad(w, "a part of a value of ours in register %u", o->reg);
        v_set(s, o->reg, v_public(), o->size);
    }
}

static void copy_reg(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned to = i->opnd[0].reg, from = i->opnd[1].reg;
    struct vval *a = &s->reg[from];

    if (i->opnd[0].size == 4 && a->kind == V_HOST) {
        a->id = v_name(w, s);
        s->reg[to] = (struct vval){.kind = V_LOW32, .id = a->id};
        if (to == REG_RCX)
            v_bad(w, "half a pointer in RCX");
        return;
    }
    if (i->opnd[0].size != 8) {
        plain(w, s, i);
        return;
    }
    if ((a->kind == V_PUBLIC || a->kind == V_CONST) && !a->id)
        a->id = v_name(w, s);
    /* What a guest has shifted as a check does may be an address like any other. */
    v_set(s, to, a->kind == V_HASH ? v_public() : *a, 8);
}

static void mov(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned size = i->opnd[0].size;

    if (is_mem(i, 0) && is_imm(i, 1)) {
        struct vval a = v_const((uint64_t)i->imm);

        v_store(w, s, i, &a);
    } else if (is_mem(i, 0) && is_reg(i, 1, size)) {
        struct vval a = s->reg[i->opnd[1].reg];

        if (i->opnd[1].high)
            a = v_is_public(&a) ? v_public() : (struct vval){.kind = V_SECRET};
        else if (size < 8 && v_low_public(&a, size))
            a = v_public();
        v_store(w, s, i, &a);
    } else if (is_mem(i, 1) && is_reg(i, 0, size)) {
        v_load(w, s, i, i->opnd[0].reg);
    } else if (is_reg(i, 0, size) && is_imm(i, 1) && size >= 4) {
        v_set(s, i->opnd[0].reg, v_const((uint64_t)i->imm), size);
    } else if (is_reg(i, 0, size) && is_reg(i, 1, size)) {
        copy_reg(w, s, i);
    } else {
        plain(w, s, i); /* segment registers and the like have been forbidden */
    }
}

/* An operand of LEA, NULL for none. */
static const struct vval *part(const struct vstate *s, uint8_t reg) {
    return reg < 16 ? &s->reg[reg] : NULL;
}

/* Offset in a page + RCX elements of 1 << SCALE bytes: cannot wrap. */
static bool is_run(const struct vval *base, const struct vval *index,
                   const struct host_insn *i) {
    return base && base->kind == V_INPAGE && index && i->mem.index == REG_RCX &&
           v_is_public(index) && index->n <= 4096 && !i->mem.disp;
}

static void lea(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    const struct vval *base = part(s, i->mem.base), *index = part(s, i->mem.index);
    bool wide = i->opnd[0].size == 8 && i->addrsize == 8;
    struct vval a = v_public();

    if (base && base->kind == V_HOST && !index && i->opnd[0].size == 4 &&
        i->opnd[0].reg >= T0) {
        s->reg[i->opnd[0].reg] = (struct vval){.kind = V_LOW32, .id = v_name(w, s)};
        return;
    }
    if (i->mem.base == HOST_RIP && wide)
        a = (struct vval){.kind = V_CODE, .n = w->off[w->k] + (uint64_t)i->mem.disp};
    else if (base && base->kind == V_FUEL && !index && wide)
        a = (struct vval){.kind = V_FUEL, .n = base->n + (uint64_t)i->mem.disp};
    else if (is_run(base, index, i) && wide)
        a = (struct vval){.kind = V_RUN, .id = base->id, .low = i->mem.scale};
    else if ((base && !v_is_public(base)) || (index && !v_is_public(index)) ||
             i->mem.base == HOST_RIP)
        v_bad(w, "computes with a value of ours");
    v_set(s, i->opnd[0].reg, a, i->opnd[0].size);
}

/* A register plus the bank, or plus the jump table. */
static bool add_base(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    enum vkind what = is_mem(i, 1) ? v_base(i) : V_SECRET;
    unsigned r = i->opnd[0].reg;
    struct vval *a = &s->reg[r];

    if (what == V_BANK && a->kind == V_HASH && a->low == 4)
        v_set(s, r, (struct vval){.kind = V_SLOT, .id = a->id}, 8);
    else if (what == V_FETCH && a->kind == V_HASH && a->low == 4)
        v_set(s, r, (struct vval){.kind = V_PAGE, .id = a->id}, 8);
    else if (what == V_JUMPS && a->kind == V_PUBLIC && a->low >= 3 &&
             a->n <= 8ull * ((1u << TR_JUMP_BITS) - 1))
        v_set(s, r, (struct vval){.kind = V_JUMP}, 8);
    else if (what != V_SECRET)
        v_bad(w, "an index that may lead out of its table");
    else
        return false;
    return true;
}

static void arithmetic(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned r = i->opnd[0].reg;

    if (is_reg(i, 0, 8) && is_mem(i, 1) && v_is_shadow(s, i)) {
        v_shadow(w, s, i, r);
        return;
    }
    if (is_reg(i, 0, 8) && is_mem(i, 1) && v_is_fetch(s, i)) {
        v_fetch(w, s, i, r);
        return;
    }
    if (i->op == HOST_ADD && is_reg(i, 0, 8) && add_base(w, s, i))
        return;
    if (i->op == HOST_SUB && is_reg(i, 0, 8) && is_reg(i, 1, 8)) {
        const struct vval *a = &s->reg[r], *b = &s->reg[i->opnd[1].reg];

        /* How far a string operation went. */
        if (a->kind == V_MOVED && b->kind == V_HOST && a->id && a->id == b->id) {
            v_set(s, r, v_public(), 8);
            return;
        }
    }
    plain(w, s, i);
}

static void compare(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned r = i->opnd[0].reg;

    if (is_reg(i, 0, 8) && is_mem(i, 1) && v_is_shadow(s, i)) {
        v_shadow(w, s, i, r);
    } else if (is_reg(i, 0, 8) && is_mem(i, 1) && v_is_fetch(s, i)) {
        v_fetch(w, s, i, r);
    } else if (is_reg(i, 0, 8) && is_imm(i, 1)) {
        const struct vval *a = &s->reg[r];

        if (!v_is_public(a) && a->kind != V_DIFF && a->kind != V_RUN)
            v_bad(w, "compares a value of ours");
        s->flags =
            (struct vleft){.kind = VF_CMP, .reg = (uint8_t)r, .n = (uint64_t)i->imm};
    } else {
        plain(w, s, i);
    }
}

/* How a host address is aligned is how the guest's is. What is not goes by a callout, in
 * which names get lost: they are taken away on both ways, so that what comes behind is
 * named the same. */
static void test(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    enum vkind kind = is_reg(i, 0, 4) ? s->reg[i->opnd[0].reg].kind : V_SECRET;

    if ((kind != V_HOST && kind != V_LOW32) || !is_imm(i, 1) || i->imm < 0 ||
        i->imm > 15) {
        plain(w, s, i);
        return;
    }
    for (unsigned r = 0; r < 14; r++)
        if (s->reg[r].kind == V_PUBLIC || s->reg[r].kind == V_CONST)
            s->reg[r].id = 0;
}

static void and (struct verifier * w, struct vstate *s, const struct host_insn *i) {
    struct vval *a = &s->reg[i->opnd[0].reg];
    bool narrow = is_reg(i, 0, 4) && is_imm(i, 1) && i->imm >= 0;

    if (narrow && a->kind == V_LOW32 && i->imm == 4095) {
        a->kind = V_INPAGE;
    } else if (narrow && a->kind == V_HASH && a->low == 3 &&
               i->imm == (SHADOW_ENTRIES - 1) << 5) {
        a->low = 4;
    } else {
        plain(w, s, i);
    }
}

/* The steps of mmu_index(), shifted so that it counts bytes of the bank. */
static void hash(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned r = i->opnd[0].reg;
    struct vval *a = &s->reg[r], *b = i->nops > 1 ? &s->reg[i->opnd[1].reg] : NULL;
    struct vval h = {.kind = V_HASH, .n = UINT64_MAX};

    if (i->op == HOST_RORX && is_reg(i, 0, 8) && is_reg(i, 1, 8) &&
        i->imm == SHADOW_HASH && (b->kind == V_PUBLIC || b->kind == V_CONST)) {
        h.id = b->id = v_name(w, s);
        h.low = 1;
    } else if (i->op == HOST_SHR && is_reg(i, 0, 8) && is_imm(i, 1) &&
               i->imm == SHADOW_HASH && (a->kind == V_PUBLIC || a->kind == V_CONST) &&
               a->id) {
        h.id = a->id;
        h.low = 1;
    } else if (i->op == HOST_XOR && is_reg(i, 0, 8) && is_reg(i, 1, 8) &&
               a->kind == V_HASH && a->low == 1 && v_is_public(b) && b->kind != V_HASH &&
               b->id == a->id) {
        h.id = a->id;
        h.low = 2;
    } else if (i->op == HOST_SHR && is_reg(i, 0, 8) && is_imm(i, 1) && i->imm == 7 &&
               a->kind == V_HASH && a->low == 2) {
        h.id = a->id;
        h.low = 3;
    } else {
        plain(w, s, i);
        return;
    }
    v_set(s, r, h, 8);
}

/* MOVZX and SHL: numbers with a bound. */
static void bounded(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned r = i->opnd[0].reg, size = i->opnd[0].size;
    struct vval was = s->reg[r];

    plain(w, s, i);
    if (s->reg[r].kind != V_PUBLIC || size < 4)
        return;
    if (i->op == HOST_MOVZX)
        s->reg[r].n = i->opnd[1].size == 1 ? UINT8_MAX : UINT16_MAX;
    else if (is_imm(i, 1) && i->imm == 3 && was.kind == V_PUBLIC && was.n <= UINT16_MAX) {
        s->reg[r].n = was.n << 3;
        s->reg[r].low = 3;
    }
}

static void rdtsc(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    if (!(w->c->key & KEY_TSC))
        v_bad(w, "the host's time, which the guest may not have");
    plain(w, s, i);
}

/* It faults under no circumstances, whatever is in the registers. */
static bool quiet(const struct host_insn *i) {
    switch (i->op) {
    case HOST_MOV:
    case HOST_LEA:
    case HOST_ADD:
    case HOST_SUB:
        return !i->mem.access || i->mem.seg == 'g';
    case HOST_MOVS: /* what has been checked for */
    case HOST_STOS:
        return true;
    default:
        return false;
    }
}

void v_insn(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    w->before = s->flags;
    s->flags = (struct vleft){.kind = VF_NONE};
    if (!quiet(i))
        v_guest_public(w, s);
    switch (i->op) {
    case HOST_FORBIDDEN:
        v_bad(w, "an instruction that translated code may not contain");
        break;
    case HOST_MOV:
        mov(w, s, i);
        break;
    case HOST_LEA:
        lea(w, s, i);
        break;
    case HOST_ADD:
    case HOST_SUB:
        arithmetic(w, s, i);
        break;
    case HOST_CMP:
        compare(w, s, i);
        break;
    case HOST_TEST:
        test(w, s, i);
        break;
    case HOST_AND:
        and(w, s, i);
        break;
    case HOST_XOR:
    case HOST_SHR:
    case HOST_RORX:
        hash(w, s, i);
        break;
    case HOST_MOVZX:
    case HOST_SHL:
        bounded(w, s, i);
        break;
    case HOST_RDTSC:
        rdtsc(w, s, i);
        break;
    case HOST_MOVS:
    case HOST_STOS:
        v_string(w, s, i);
        break;
    case HOST_JMP:
    case HOST_JCC:
    case HOST_JRCXZ:
        break; /* verify.c */
    default:
        plain(w, s, i);
    }
}
