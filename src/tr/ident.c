/*
 * IDENT: copies an instruction into the cache, rewriting only what has to change.
 *
 * The memory operand becomes [T0]; with it, a general register operand r14 or r15 becomes
 * T1 (without one, r14 and r15 stand for themselves: host r14 and r15 are free then).
 * Segment and address-size prefixes go; so does LOCK where there is one vCPU. Encodings
 * that 64-bit mode does not have get their longer form.
 * AMD64 APM volume 3, "Instruction Encoding".
 */
#include "decode/encoding.h"
#include "tr/tr_int.h"

static bool high_byte(const struct operand *o) {
    return o->kind == OPND_REG && o->size == 1 && (o->off & 7) == 1;
}

static bool extended(const struct tr *t, const struct operand *o) {
    return o->kind == OPND_REG && tr_in_memory(t, o->reg);
}

/* KMOVQ to a general register outside 64-bit mode: W is not looked at there. */
static bool ignores_w(const struct insn *i) {
    const uint8_t *opcode = i->bytes + i->off_opcode;

    return i->mode != MODE_64 && (i->flags & INSN_AVX512) && i->off_opcode >= 3 &&
           opcode[-3] == 0xc4 && opcode[0] == 0x93 && (opcode[-1] & 0x80);
}

/* [T0] needs a REX prefix, and with one AH..BH cannot be named. Two operands in r14, r15
 * beside a memory operand are more than there are scratch registers. */
bool tr_ident_ok(const struct tr *t, const struct insn *i) {
    bool mem = tr_has_mem(i);

    if (i->rep != REP_NONE || ignores_w(i))
        return false;
    /* VZEROUPPER, VZEROALL: 64-bit mode clears more registers (sem/native/). */
    if (i->op == OP_native && i->mode != MODE_64 && (i->flags & INSN_VEX) &&
        !i->off_modrm && i->bytes[i->off_opcode] == 0x77)
        return false;
    for (unsigned k = 0; k < i->nops; k++) {
        if (mem && high_byte(&i->opnd[k]))
            return false;
        if (!mem || !extended(t, &i->opnd[k]))
            continue;
        if (i->op == OP_native)
            return false;
        for (unsigned j = 0; j < k; j++)
            if (extended(t, &i->opnd[j]) && i->opnd[j].reg != i->opnd[k].reg)
                return false;
    }
    return true;
}

/* The decoder has seen these bytes: they suffice. */
static void parse(const struct insn *i, struct encoding *f) {
    encoding_parse(i, f);
    if (i->mode == MODE_64)
        return;
    encoding_widen(f);
    if (f->vex && i->op != OP_native)
        f->w = false; /* 32-bit mode ignores the size of a general register */
}

/* With F3 the host takes them for TZCNT and LZCNT, which the guest's CPU lacks. */
static void strip_rep(const struct insn *i, struct encoding *f) {
    if (i->op == OP_bsf || i->op == OP_bsr)
        f->rep = 0;
}

/* One-byte forms that 64-bit mode lacks or that name an absolute address. */
static void lengthen(const struct insn *i, struct encoding *f) {
    if (i->mode != MODE_64 && f->opcode == 0x82 && !f->map)
        f->opcode = 0x80; /* the same, encoded twice */
    if (f->map || f->has_modrm)
        return;
    if (i->mode != MODE_64 && (f->opcode & 0xf0) == 0x40) { /* inc, dec */
        f->modrm = 0xc0 | (f->opcode & 8) | (f->opcode & 7);
        f->opcode = 0xff;
        f->has_modrm = true;
    } else if (f->opcode >= 0xa0 && f->opcode <= 0xa3) { /* mov with an offset */
        static const uint8_t to[] = {0x8a, 0x8b, 0x88, 0x89};

        f->opcode = to[f->opcode - 0xa0];
        f->modrm = 0; /* al or eax, memory: REX.R named nothing */
        f->r = 0;
        f->has_modrm = true;
        f->nimm = 0;
    }
}

/* ModRM.reg is part of the opcode: a stray REX.R or VEX.R makes no register of it. */
static bool reg_is_digit(const struct encoding *f) {
    unsigned op = f->opcode;

    if (f->vex || f->evex)
        return f->vex && f->map == 2 && op == 0xf3;
    if (f->map)
        return f->map == 1 && (op == 0xba || op == 0xc7);
    return (op >= 0x80 && op <= 0x83) || op == 0xc0 || op == 0xc1 || op == 0xc6 ||
           op == 0xc7 || (op >= 0xd0 && op <= 0xd3) || op == 0xf6 || op == 0xf7 ||
           op >= 0xfe;
}

/* Register FROM, which is r14 or r15, becomes TO in every field that names a general
 * register. Only for operations whose register operands are all general. */
static void rename_reg(struct encoding *f, unsigned from, unsigned to) {
    bool reg_form = f->has_modrm && f->modrm >= 0xc0;
    unsigned low = from & 7, ext = to & 8;

    if (f->has_modrm && (f->r & 8) && (f->modrm >> 3 & 7) == low && !reg_is_digit(f)) {
        f->modrm = (uint8_t)((f->modrm & 0xc7) | (to & 7) << 3);
        f->r = (uint8_t)((f->r & 16) | ext);
    }
    if (reg_form && f->b && (f->modrm & 7) == low) {
        f->modrm = (uint8_t)((f->modrm & 0xf8) | (to & 7));
        f->b = (uint8_t)ext;
    }
    if (!f->has_modrm && f->b && (f->opcode & 7) == low) {
        f->opcode = (uint8_t)((f->opcode & 0xf8) | (to & 7));
        f->b = (uint8_t)ext;
    }
    if ((f->vex || f->evex) && f->vvvv == from)
        f->vvvv = (uint8_t)to;
}

/* Operands that live in a borrowed register. */
static void rename_borrowed(const struct tr *t, const struct insn *i,
                            struct encoding *f) {
    bool borrowed[2] = {false, false};

    for (unsigned k = 0; k < i->nops; k++) {
        unsigned r = i->opnd[k].reg;

        if (i->opnd[k].kind == OPND_REG && (r == REG_R14 || r == REG_R15) &&
            !tr_in_memory(t, r))
            borrowed[r - REG_R14] = true;
    }
    for (unsigned n = 0; n < 2; n++)
        if (borrowed[n])
            rename_reg(f, REG_R14 + n, t->borrowed[n]);
}

static bool names_r14_r15(const struct insn *i) {
    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_REG &&
            (i->opnd[k].reg == REG_R14 || i->opnd[k].reg == REG_R15))
            return true;
    return false;
}

/* What the copy does with guest r14 and r15, which are in memory. */
struct extended {
    bool rd14, rd15, wr14, wr15;
    const struct operand *last; /* one of them; NULL: it names none */
};

static struct extended extended_of(const struct tr *t, const struct insn *i) {
    struct extended x = {0};

    for (unsigned k = 0; k < i->nops; k++) {
        bool writes = (i->opnd[k].access & OPND_WRITE) != 0;

        if (!extended(t, &i->opnd[k]))
            continue;
        if (i->opnd[k].reg == REG_R14) {
            x.rd14 = true;
            x.wr14 |= writes;
        } else {
            x.rd15 = true;
            x.wr15 |= writes;
        }
        x.last = &i->opnd[k];
    }
    return x;
}

/* Before the copy: the registers that it reads. *ONE, which is any of them or none, is in
 * T1 then. */
static void load_extended(struct emit *e, const struct extended *x,
                          const struct operand *one) {
    if (one) {
        e_gs(e, W64, OPC_MOV_R_RM, T1, GS_GPR(one->reg));
        return;
    }
    if (x->rd14)
        e_gs(e, W64, OPC_MOV_R_RM, REG_R14, GS_GPR(REG_R14));
    if (x->rd15)
        e_gs(e, W64, OPC_MOV_R_RM, REG_R15, GS_GPR(REG_R15));
}

static void store_extended(struct emit *e, const struct extended *x,
                           const struct operand *one) {
    if (one) {
        if (x->wr14 || x->wr15)
            e_gs(e, W64, OPC_MOV_RM_R, MUTATE(IDENT_LEAK, T1, T0), GS_GPR(one->reg));
        return;
    }
    if (x->wr14)
        e_gs(e, W64, OPC_MOV_RM_R, REG_R14, GS_GPR(REG_R14));
    if (x->wr15)
        e_gs(e, W64, OPC_MOV_RM_R, REG_R15, GS_GPR(REG_R15));
}

/* F, whose operand in memory, if it has one, is at [T0 + OFF]; DISP8: in one byte. */
static void emit_form(struct emit *e, const struct encoding *f, bool mem, int32_t off,
                      bool disp8) {
    uint8_t head[ENCODING_HEAD_MAX];

    if (mem && MUTANT(IDENT_SEGMENT))
        e8(e, 0x65);
    e_bytes(e, head, encoding_put_head(f, head));
    e8(e, f->opcode);
    if (f->has_modrm)
        e8(e, f->modrm);
    if (mem && off && disp8)
        e8(e, (uint8_t)off);
    else if (mem && off)
        e32(e, (uint32_t)off);
    e_bytes(e, f->imm, f->nimm);
}

void tr_ident_emit(struct tr *t, const struct insn *i, int32_t off) {
    struct extended x = extended_of(t, i);
    const struct operand *one = NULL;
    bool mem = tr_has_mem(i), disp8;
    struct encoding f;

    off += MUTANT(IDENT_ASTRAY) << 12;
    parse(i, &f);
    strip_rep(i, &f);
    lengthen(i, &f);
    rename_borrowed(t, i, &f);
    /* EVEX multiplies a displacement of one byte by the operand's size. */
    disp8 = off == (int8_t)off && (!f.evex || MUTANT(EVEX_DISP8));
    if (mem) {
        unsigned mod = !off ? 0 : disp8 ? 1 : 2;

        f.modrm = (uint8_t)(mod << 6 | (f.modrm & 0x38) | (T0 & 7));
        f.b = MUTATE(IDENT_BASE, 8, 0);
        f.x = 0;
    }
    /* One register, everywhere it is named: T1. */
    if (mem || !(x.rd14 && (x.rd15 || i->op == OP_native)))
        one = x.last;
    if (one && one->reg == REG_R14)
        rename_reg(&f, REG_R14, T1);
    load_extended(&t->e, &x, one);
    if (mem || names_r14_r15(i))
        t->operand++;
    else
        t->ident++;
    tr_site(t, POLL_NONE, 0);
    if ((i->flags & INSN_LOCK) && t->env->smp)
        e8(&t->e, 0xf0);
    emit_form(&t->e, &f, mem, off, disp8);
    store_extended(&t->e, &x, one);
}
