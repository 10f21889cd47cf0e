/*
 * IDENT: copies an instruction into the cache, rewriting only what has to change.
 *
 * The memory operand becomes [T0]; with it, a general register operand r14 or r15 becomes
 * T1 (without one, r14 and r15 stand for themselves: host r14 and r15 are free then).
 * Segment, address-size and LOCK prefixes go: there is one vCPU, and devices run on its
 * thread. Encodings that 64-bit mode does not have get their longer form.
 * AMD64 APM volume 3, "Instruction Encoding".
 */
#include "decode/decode.h"
#include "tr/tr_int.h"

struct form {
    bool p66;
    uint8_t rep;
    bool rex_present;
    uint8_t w, r, x, b; /* r, x, b: 0 or 8 */
    bool vex, evex;
    uint8_t vex_map, vex_pp, vex_l, vvvv; /* EVEX's too; its vvvv to 31 */
    uint8_t evex_r, evex_p2;              /* R': 0 or 16; z, L'L, b and aaa in place */
    uint8_t esc[2], nesc;                 /* 0f, 0f 38, 0f 3a */
    uint8_t opcode;
    bool has_modrm;
    uint8_t modrm;
    uint8_t imm[8];
    unsigned nimm;
};

static bool high_byte(const struct operand *o) {
    return o->kind == OPND_REG && o->size == 1 && (o->off & 7) == 1;
}

static bool extended(const struct tr *t, const struct operand *o) {
    return o->kind == OPND_REG && tr_in_memory(t, o->reg);
}

/* [T0] needs a REX prefix, and with one AH..BH cannot be named. Two operands in r14, r15
 * beside a memory operand are more than there are scratch registers. */
bool tr_ident_ok(const struct tr *t, const struct insn *i) {
    bool mem = tr_has_mem(i);

    if (i->rep != REP_NONE)
        return false;
    /* VZEROUPPER, VZEROALL: 64-bit mode clears more registers (sem/native.c). */
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

/* Four bytes at P, the first 62. Intel SDM volume 2, "Intel AVX-512 Encoding". */
static void parse_evex(const struct insn *i, const uint8_t *p, struct form *f) {
    f->evex = true;
    f->vex_map = p[1] & 7;
    f->vex_pp = p[2] & 3;
    f->w = p[2] >> 7;
    f->evex_p2 = p[3] & 0xf7;
    f->vvvv = (uint8_t)(((~p[2] >> 3) & 15) | (p[3] & 8 ? 0 : 16));
    if (i->mode != MODE_64) {
        /* As for VEX. */
        f->vvvv &= 7;
        return;
    }
    f->r = p[1] & 0x80 ? 0 : 8;
    f->x = p[1] & 0x40 ? 0 : 8;
    f->b = p[1] & 0x20 ? 0 : 8;
    f->evex_r = p[1] & 0x10 ? 0 : 16;
}

/* vblendvps and kin: a register in the immediate's upper half. */
static bool imm_is_register(const struct form *f) {
    return f->vex && f->vex_map == 3 && f->opcode >= 0x4a && f->opcode <= 0x4c;
}

/* The prefixes: where they end, and the REX prefix in *REX, which counts only as the last
 * one. */
static unsigned parse_prefixes(const struct insn *i, struct form *f, uint8_t *rex) {
    unsigned at = 0;

    *rex = 0;
    for (; at < i->len; at++) {
        uint8_t b = i->bytes[at];

        if (b == 0x66)
            f->p66 = true;
        else if (b == 0xf2 || b == 0xf3)
            f->rep = b;
        else if (b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 ||
                 b == 0x65 || b == 0x67 || b == 0xf0)
            ;
        else if (i->mode == MODE_64 && (b & 0xf0) == 0x40) {
            *rex = b;
            continue;
        } else
            break;
        *rex = 0;
    }
    return at;
}

/* The VEX prefix at AT: where it ends. */
static unsigned parse_vex(const struct insn *i, unsigned at, struct form *f) {
    uint8_t p0 = i->bytes[at + 1], p1 = p0;

    f->vex = true;
    f->r = p0 & 0x80 ? 0 : 8;
    f->vex_map = 1;
    if (i->bytes[at] == 0xc4) {
        f->x = p0 & 0x40 ? 0 : 8;
        f->b = p0 & 0x20 ? 0 : 8;
        f->vex_map = p0 & 0x1f;
        p1 = i->bytes[at + 2];
        f->w = p1 >> 7;
        at++;
    }
    f->vvvv = (uint8_t)(~p1 >> 3) & 15;
    f->vex_l = p1 >> 2 & 1;
    f->vex_pp = p1 & 3;
    if (i->mode != MODE_64) {
        /* Bits that 32-bit mode ignores would name registers that it has not. */
        f->r = f->x = f->b = 0;
        f->vvvv &= 7;
        if (i->op != OP_native)
            f->w = 0;
    }
    return at + 2;
}

/* REX, and the escape bytes at AT: where they end. */
static unsigned parse_legacy(const struct insn *i, unsigned at, uint8_t rex,
                             struct form *f) {
    f->rex_present = rex != 0;
    f->w = rex >> 3 & 1;
    f->r = rex & 4 ? 8 : 0;
    f->x = rex & 2 ? 8 : 0;
    f->b = rex & 1 ? 8 : 0;
    if (i->bytes[at] != 0x0f)
        return at;
    f->esc[f->nesc++] = i->bytes[at++];
    if (i->bytes[at] == 0x38 || i->bytes[at] == 0x3a)
        f->esc[f->nesc++] = i->bytes[at++];
    return at;
}

static void parse(const struct insn *i, struct form *f) {
    unsigned at;
    uint8_t rex;

    __builtin_memset(f, 0, sizeof(*f));
    at = parse_prefixes(i, f, &rex);
    if (i->flags & INSN_VEX) {
        at = parse_vex(i, at, f);
    } else if (i->flags & INSN_AVX512) {
        parse_evex(i, i->bytes + at, f);
        at += 4;
    } else {
        at = parse_legacy(i, at, rex, f);
    }
    f->opcode = i->bytes[at++];
    f->has_modrm = i->off_modrm != 0;
    if (f->has_modrm)
        f->modrm = i->bytes[i->off_modrm];
    if (i->mode != MODE_64 && (f->vex || f->evex) &&
        decode_w_is_size(f->evex, f->vex_map, f->opcode, f->vex_pp, f->modrm >> 3 & 7))
        f->w = 0;
    /* Whatever follows ModRM, SIB and displacement is immediate: it ends the bytes. */
    f->nimm = i->imm_len;
    for (unsigned k = 0; k < f->nimm && k < 8; k++)
        f->imm[k] = i->bytes[i->len - f->nimm + k];
    if (i->mode != MODE_64 && imm_is_register(f))
        f->imm[0] &= 0x7f; /* 32-bit mode has eight registers */
}

/* With F3 the host takes them for TZCNT and LZCNT, which the guest's CPU lacks. */
static void strip_rep(const struct insn *i, struct form *f) {
    if (i->op == OP_bsf || i->op == OP_bsr)
        f->rep = 0;
}

/* One-byte forms that 64-bit mode lacks or that name an absolute address. */
static void lengthen(const struct insn *i, struct form *f) {
    if (i->mode != MODE_64 && f->opcode == 0x82 && !f->nesc && !f->vex && !f->evex)
        f->opcode = 0x80; /* the same, encoded twice */
    if (f->nesc || f->vex || f->evex || f->has_modrm)
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

static void emit_vex(struct emit *e, const struct form *f) {
    e8(e, 0xc4);
    e8(e, (f->r ? 0 : 0x80u) | (f->x ? 0 : 0x40u) | (f->b ? 0 : 0x20u) | f->vex_map);
    e8(e,
       (unsigned)f->w << 7 | (~f->vvvv & 15u) << 3 | (unsigned)f->vex_l << 2 | f->vex_pp);
}

static void emit_evex(struct emit *e, const struct form *f) {
    e8(e, 0x62);
    e8(e, (f->r ? 0 : 0x80u) | (f->x ? 0 : 0x40u) | (f->b ? 0 : 0x20u) |
              (f->evex_r ? 0 : 0x10u) | f->vex_map);
    e8(e, (unsigned)f->w << 7 | (~f->vvvv & 15u) << 3 | 4u | f->vex_pp);
    e8(e, f->evex_p2 | (f->vvvv & 16 ? 0 : 8u));
}

static void emit_legacy(struct emit *e, const struct form *f) {
    unsigned rex =
        0x40u | (unsigned)f->w << 3 | (f->r ? 4u : 0) | (f->x ? 2u : 0) | (f->b ? 1u : 0);

    if (f->p66)
        e8(e, 0x66);
    if (f->rep)
        e8(e, f->rep);
    if (f->rex_present || rex != 0x40)
        e8(e, rex);
    e_bytes(e, f->esc, f->nesc);
}

/* ModRM.reg is part of the opcode: a stray REX.R or VEX.R makes no register of it. */
static bool reg_is_digit(const struct form *f) {
    unsigned op = f->opcode;

    if (f->vex)
        return f->vex_map == 2 && op == 0xf3;
    if (f->nesc)
        return f->nesc == 1 && (op == 0xba || op == 0xc7);
    return (op >= 0x80 && op <= 0x83) || op == 0xc0 || op == 0xc1 || op == 0xc6 ||
           op == 0xc7 || (op >= 0xd0 && op <= 0xd3) || op == 0xf6 || op == 0xf7 ||
           op >= 0xfe;
}

/* Register FROM, which is r14 or r15, becomes TO in every field that names a general
 * register. Only for operations whose register operands are all general. */
static void rename_reg(struct form *f, unsigned from, unsigned to) {
    bool reg_form = f->has_modrm && f->modrm >= 0xc0;
    unsigned low = from & 7, ext = to & 8;

    if (f->has_modrm && f->r && (f->modrm >> 3 & 7) == low && !reg_is_digit(f)) {
        f->modrm = (uint8_t)((f->modrm & 0xc7) | (to & 7) << 3);
        f->r = (uint8_t)ext;
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
static void rename_borrowed(const struct tr *t, const struct insn *i, struct form *f) {
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
static void emit_form(struct emit *e, const struct form *f, bool mem, int32_t off,
                      bool disp8) {
    if (mem && MUTANT(IDENT_SEGMENT))
        e8(e, 0x65);
    if (f->vex)
        emit_vex(e, f);
    else if (f->evex)
        emit_evex(e, f);
    else
        emit_legacy(e, f);
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
    struct form f;

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
    emit_form(&t->e, &f, mem, off, disp8);
    store_extended(&t->e, &x, one);
}
