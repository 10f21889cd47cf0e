/*
 * Takes a vector or x87 instruction apart and puts it together again for the host.
 *
 * What changes: the memory operand becomes [rdi]; an explicit general register becomes
 * eax (so that instructions which differ only in it share a stub); segment and
 * address-size prefixes go; bits that 16- and 32-bit modes ignore are cleared, because
 * 64-bit mode does not. What stays: opcode, mandatory prefixes, vector registers,
 * immediates. AMD64 APM volume 3, "Instruction Encoding".
 *
 * The parser trusts nothing: it reads within insn.len and refuses what it does not know.
 */
#include "decode/decode.h"
#include "sem/native/native_int.h"

struct cursor {
    const struct insn *i;
    unsigned at;
    bool ok;
};

static uint8_t next(struct cursor *c) {
    if (c->at >= c->i->len) {
        c->ok = false;
        return 0;
    }
    return c->i->bytes[c->at++];
}

/* Legacy and REX prefixes; returns the first byte after them, and REX or 0. */
static uint8_t parse_prefixes(struct cursor *c, struct native_form *f, uint8_t *rex) {
    *rex = 0;
    f->seg = SEG_DS;
    while (c->ok) {
        uint8_t b = next(c);

        if (c->i->mode == MODE_64 && (b & 0xf0) == 0x40) {
            *rex = b;
            continue;
        }
        switch (b) {
        case 0x66:
            f->p66 = true;
            break;
        case 0xf2:
        case 0xf3:
            f->rep = b;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            if (c->i->mode != MODE_64)
                f->seg = (b >> 3) & 3; /* es, cs, ss, ds */
            break;
        case 0x64:
        case 0x65:
            f->seg = b == 0x64 ? SEG_FS : SEG_GS;
            break;
        case 0x67:
        case 0xf0:
            break;
        default:
            return b;
        }
        *rex = 0; /* a REX prefix counts only right before the opcode */
    }
    return 0;
}

static void parse_vex(struct cursor *c, struct native_form *f, bool three) {
    uint8_t p0 = next(c), p1 = p0;

    f->vex = true;
    f->r = p0 & 0x80 ? 0 : 8;
    f->map = 1;
    if (three) {
        f->x = p0 & 0x40 ? 0 : 8;
        f->b = p0 & 0x20 ? 0 : 8;
        f->map = p0 & 0x1f;
        p1 = next(c);
        f->w = p1 & 0x80;
    }
    f->vvvv = (uint8_t)(~p1 >> 3) & 15;
    f->l = p1 & 4;
    f->pp = p1 & 3;
    f->opcode = next(c);
}

/* Intel SDM volume 2, "Intel AVX-512 Encoding". */
static void parse_evex(struct cursor *c, struct native_form *f) {
    uint8_t p0 = next(c), p1 = next(c), p2 = next(c);

    f->evex = true;
    f->map = p0 & 7;
    f->r = (uint8_t)((p0 & 0x80 ? 0 : 8) | (p0 & 0x10 ? 0 : 16));
    f->x = p0 & 0x40 ? 0 : 8;
    f->b = p0 & 0x20 ? 0 : 8;
    f->w = p1 & 0x80;
    f->vvvv = (uint8_t)(((~p1 >> 3) & 15) | (p2 & 8 ? 0 : 16));
    f->pp = p1 & 3;
    f->z = p2 & 0x80;
    f->len = p2 >> 5 & 3;
    f->bcast = p2 & 0x10;
    f->opmask = p2 & 7;
    f->opcode = next(c);
}

static void parse_legacy(struct cursor *c, struct native_form *f, uint8_t b,
                         uint8_t rex) {
    f->w = rex & 8;
    f->r = rex & 4 ? 8 : 0;
    f->x = rex & 2 ? 8 : 0;
    f->b = rex & 1 ? 8 : 0;
    f->pp = f->rep == 0xf3 ? 2 : f->rep == 0xf2 ? 3 : f->p66 ? 1 : 0;
    if (b == 0x0f) {
        f->map = 1;
        b = next(c);
        if (b == 0x38 || b == 0x3a) {
            f->map = b == 0x38 ? 2 : 3;
            b = next(c);
        }
    }
    f->opcode = b;
}

/* Skips SIB and displacement. */
static void skip_memory(struct cursor *c, struct native_form *f) {
    unsigned mod = f->modrm >> 6, rm = f->modrm & 7, disp;

    if (c->i->addrsize == 2) {
        disp = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
    } else {
        if (rm == 4) {
            f->sib = next(c);
            rm = f->sib & 7;
        }
        disp = mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
    }
    while (disp--)
        next(c);
}

bool native_parse(const struct insn *i, struct native_form *f) {
    struct cursor c = {.i = i, .ok = i->len <= sizeof(i->bytes)};
    uint8_t b, rex;

    __builtin_memset(f, 0, sizeof(*f));
    b = parse_prefixes(&c, f, &rex);
    if (i->flags & INSN_VEX) {
        if (b != 0xc4 && b != 0xc5)
            return false;
        parse_vex(&c, f, b == 0xc4);
    } else if (i->flags & INSN_AVX512) {
        if (b != 0x62)
            return false;
        parse_evex(&c, f);
    } else {
        parse_legacy(&c, f, b, rex);
    }
    if (f->map > (f->evex ? 6 : 3) || (f->evex && !f->map) ||
        (f->map == 0 && (f->vex || (f->opcode & 0xf8) != 0xd8)))
        return false;
    f->has_modrm = !(f->map == 1 && f->opcode == 0x77);
    if (f->has_modrm) {
        f->modrm = next(&c);
        f->is_mem = f->modrm < 0xc0;
        if (f->is_mem)
            skip_memory(&c, f);
    }
    while (c.ok && c.at < i->len) {
        if (f->nimm == ARRAY_SIZE(f->imm))
            return false;
        f->imm[f->nimm++] = next(&c);
    }
    return c.ok;
}

static unsigned classify_x87(const struct native_form *f) {
    unsigned reg = (f->modrm >> 3) & 7;

    if (f->is_mem) {
        if (f->opcode == 0xd9 && (reg == 5 || reg == 7)) /* fldcw, fnstcw */
            return NATIVE_CONTROL;
        if (f->opcode == 0xdd && reg == 7) /* fnstsw */
            return NATIVE_CONTROL;
        return 0;
    }
    switch (f->opcode) {
    case 0xda: /* fcmovcc */
        return reg < 4 ? NATIVE_FLAGS : 0;
    case 0xdb:
        if (reg == 4) /* fneni, fndisi, fnclex, fninit, fnsetpm */
            return NATIVE_CONTROL | (f->modrm == 0xe3 ? NATIVE_FNINIT : 0);
        return NATIVE_FLAGS; /* fcmovncc, fucomi, fcomi */
    case 0xdf:
        if (f->modrm == 0xe0) /* fnstsw ax */
            return NATIVE_CONTROL | NATIVE_IMPLICIT;
        return reg == 5 || reg == 6 ? NATIVE_FLAGS : 0; /* fucomip, fcomip */
    default:
        return 0;
    }
}

/* What AVX-512 has more: opmask registers, unsigned conversions, broadcasts from general
 * registers; and the half-precision forms of map 5. */
static unsigned classify_avx512(const struct native_form *f) {
    const unsigned rm_read = f->is_mem ? 0 : NATIVE_GPR_RM | NATIVE_GPR_READ;

    switch (f->map << 8 | f->opcode) {
    case 0x192: /* kmov k, r */
    case 0x27a: /* vpbroadcastb, w, d, q */
    case 0x27b:
    case 0x27c:
        return rm_read;
    case 0x193: /* kmov r, k */
        return NATIVE_GPR_REG | NATIVE_GPR_WRITE;
    case 0x198: /* kortest */
    case 0x199: /* ktest */
    case 0x52e: /* vucomish, vcomish */
    case 0x52f:
        return NATIVE_FLAGS;
    case 0x178: /* vcvttss2usi, vcvttsd2usi */
    case 0x179: /* vcvtss2usi, vcvtsd2usi */
    case 0x52c: /* vcvttsh2si, vcvtsh2si, vcvttsh2usi, vcvtsh2usi */
    case 0x52d:
    case 0x578:
    case 0x579:
        return f->pp >= 2 ? NATIVE_GPR_REG | NATIVE_GPR_WRITE : 0;
    case 0x17b: /* vcvtusi2ss, vcvtusi2sd */
    case 0x52a: /* vcvtsi2sh, vcvtusi2sh */
    case 0x57b:
        return f->pp >= 2 ? rm_read : 0;
    case 0x56e: /* vmovw */
        return rm_read;
    case 0x57e:
        return f->is_mem ? 0 : NATIVE_GPR_RM | NATIVE_GPR_WRITE;
    default:
        return 0;
    }
}

unsigned native_classify(const struct native_form *f) {
    const unsigned rm_read = f->is_mem ? 0 : NATIVE_GPR_RM | NATIVE_GPR_READ;
    const unsigned rm_write = f->is_mem ? 0 : NATIVE_GPR_RM | NATIVE_GPR_WRITE;
    const unsigned reg_write = NATIVE_GPR_REG | NATIVE_GPR_WRITE;

    if (f->map == 0)
        return classify_x87(f);
    if (f->evex || (f->vex && f->map == 1 && f->opcode >= 0x90 && f->opcode <= 0x99)) {
        unsigned kind = classify_avx512(f);

        if (kind)
            return kind;
    }
    switch (f->map << 8 | f->opcode) {
    case 0x12a: /* cvtsi2ss, cvtsi2sd; without f2 or f3 cvtpi2ps, cvtpi2pd */
        return f->pp >= 2 ? rm_read : 0;
    case 0x12c: /* cvttss2si, cvttsd2si */
    case 0x12d: /* cvtss2si, cvtsd2si */
        return f->pp >= 2 ? reg_write : 0;
    case 0x150: /* movmskps, movmskpd */
    case 0x1c5: /* pextrw */
    case 0x1d7: /* pmovmskb */
        return reg_write;
    case 0x16e: /* movd, movq */
    case 0x1c4: /* pinsrw */
    case 0x320: /* pinsrb */
    case 0x322: /* pinsrd, pinsrq */
        return rm_read;
    case 0x17e: /* movd, movq; with f3 movq xmm, xmm/m64 */
        return f->pp <= 1 ? rm_write : 0;
    case 0x314: /* pextrb */
    case 0x315: /* pextrw */
    case 0x316: /* pextrd, pextrq */
    case 0x317: /* extractps */
        return rm_write;
    case 0x360: /* pcmpestrm */
    case 0x361: /* pcmpestri */
    case 0x362: /* pcmpistrm */
    case 0x363: /* pcmpistri */
        return NATIVE_IMPLICIT | NATIVE_FLAGS;
    case 0x12e: /* ucomiss, ucomisd */
    case 0x12f: /* comiss, comisd */
    case 0x20e: /* vtestps */
    case 0x20f: /* vtestpd */
    case 0x217: /* ptest */
        return f->map == 2 && f->opcode != 0x17 && !f->vex ? 0 : NATIVE_FLAGS;
    default:
        return 0;
    }
}

static unsigned encode_evex(const struct native_form *f, uint8_t r, uint8_t x, uint8_t b,
                            uint8_t vvvv, bool w, uint8_t *out) {
    out[0] = 0x62;
    out[1] = (uint8_t)((r & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) |
                       (r & 16 ? 0 : 0x10) | f->map);
    out[2] = (uint8_t)((w ? 0x80 : 0) | (~vvvv & 15) << 3 | 4 | f->pp);
    out[3] = (uint8_t)((f->z ? 0x80 : 0) | f->len << 5 | (f->bcast ? 0x10 : 0) |
                       (vvvv & 16 ? 0 : 8) | f->opmask);
    return 4;
}

/* blendvps and friends name a fourth register in the immediate's upper half. */
static bool imm_is_register(const struct native_form *f) {
    return f->vex && f->map == 3 && f->opcode >= 0x4a && f->opcode <= 0x4c;
}

unsigned native_encode(const struct native_form *f, enum cpu_mode mode, uint8_t *out) {
    unsigned kind = native_classify(f), n = 0;
    bool w = f->w, narrow = mode != MODE_64;
    uint8_t r = f->r, x = f->evex ? f->x : 0, b = f->b, vvvv = f->vvvv, modrm = f->modrm;

    if (narrow) {
        r = x = b = 0;
        vvvv &= 7;
        w = w && (f->vex || f->evex) &&
            !decode_w_is_size(f->evex, f->map, f->opcode, f->pp, modrm >> 3 & 7);
    }
    if (f->is_mem) {
        modrm = (modrm & 0x38) | 7;
        x = b = 0;
    }
    if (kind & NATIVE_GPR_RM) {
        modrm &= 0xf8;
        x = b = 0;
    }
    if (kind & NATIVE_GPR_REG) {
        modrm &= 0xc7;
        r = 0;
    }
    if (f->evex) {
        n = encode_evex(f, r, x, b, vvvv, w, out);
    } else if (f->vex) {
        out[n++] = 0xc4;
        out[n++] = (uint8_t)((r ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | f->map);
        out[n++] = (uint8_t)((w ? 0x80 : 0) | (~vvvv & 15) << 3 | (f->l ? 4 : 0) | f->pp);
    } else {
        uint8_t rex = (uint8_t)((w ? 8 : 0) | (r ? 4 : 0) | (b ? 1 : 0));

        if (f->p66 && f->map)
            out[n++] = 0x66;
        if (f->rep && f->map)
            out[n++] = f->rep;
        if (rex && f->map)
            out[n++] = 0x40 | rex;
        if (f->map)
            out[n++] = 0x0f;
        if (f->map >= 2)
            out[n++] = f->map == 2 ? 0x38 : 0x3a;
    }
    out[n++] = f->opcode;
    if (f->has_modrm)
        out[n++] = modrm;
    for (unsigned k = 0; k < f->nimm; k++)
        out[n++] = narrow && imm_is_register(f) ? (uint8_t)(f->imm[k] & 0x7f) : f->imm[k];
    return n;
}
