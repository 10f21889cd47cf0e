/*
 * Takes instructions apart and puts the prefixes together again; see encoding.h.
 *
 * The parser trusts nothing but insn.mode, insn.addrsize and where ModRM is. It runs
 * while the guest's vector state is live (cpu/vec.h), as the other files of this room do
 * not.
 */
#include "decode/encoding.h"

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
static uint8_t parse_prefixes(struct cursor *c, struct encoding *e, uint8_t *rex) {
    *rex = 0;
    e->seg = SEG_DS;
    while (c->ok) {
        uint8_t b = next(c);

        if (c->i->mode == MODE_64 && (b & 0xf0) == 0x40) {
            *rex = b;
            continue;
        }
        switch (b) {
        case 0x66:
            e->p66 = true;
            break;
        case 0xf2:
        case 0xf3:
            e->rep = b;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            if (c->i->mode != MODE_64)
                e->seg = (b >> 3) & 3; /* es, cs, ss, ds */
            break;
        case 0x64:
        case 0x65:
            e->seg = b == 0x64 ? SEG_FS : SEG_GS;
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

static void parse_vex(struct cursor *c, struct encoding *e, bool three) {
    uint8_t p0 = next(c), p1 = p0;

    e->vex = true;
    e->r = p0 & 0x80 ? 0 : 8;
    e->map = 1;
    if (three) {
        e->x = p0 & 0x40 ? 0 : 8;
        e->b = p0 & 0x20 ? 0 : 8;
        e->map = p0 & 0x1f;
        p1 = next(c);
        e->w = p1 & 0x80;
    }
    e->vvvv = (uint8_t)(~p1 >> 3) & 15;
    e->l = p1 & 4;
    e->pp = p1 & 3;
    e->opcode = next(c);
}

static void parse_evex(struct cursor *c, struct encoding *e) {
    uint8_t p0 = next(c), p1 = next(c), p2 = next(c);

    e->evex = true;
    e->map = p0 & 7;
    e->r = (uint8_t)((p0 & 0x80 ? 0 : 8) | (p0 & 0x10 ? 0 : 16));
    e->x = p0 & 0x40 ? 0 : 8;
    e->b = p0 & 0x20 ? 0 : 8;
    e->w = p1 & 0x80;
    e->vvvv = (uint8_t)(((~p1 >> 3) & 15) | (p2 & 8 ? 0 : 16));
    e->pp = p1 & 3;
    e->z = p2 & 0x80;
    e->len = p2 >> 5 & 3;
    e->bcast = p2 & 0x10;
    e->opmask = p2 & 7;
    e->opcode = next(c);
}

static void parse_legacy(struct cursor *c, struct encoding *e, uint8_t b, uint8_t rex) {
    e->rex = rex;
    e->w = rex & 8;
    e->r = rex & 4 ? 8 : 0;
    e->x = rex & 2 ? 8 : 0;
    e->b = rex & 1 ? 8 : 0;
    e->pp = e->rep == 0xf3 ? 2 : e->rep == 0xf2 ? 3 : e->p66 ? 1 : 0;
    if (b == 0x0f) {
        e->map = 1;
        b = next(c);
        if (b == 0x38 || b == 0x3a) {
            e->map = b == 0x38 ? 2 : 3;
            b = next(c);
        }
    }
    e->opcode = b;
}

/* Skips SIB and displacement. */
static void skip_memory(struct cursor *c, struct encoding *e) {
    unsigned mod = e->modrm >> 6, rm = e->modrm & 7, disp;

    if (c->i->addrsize == 2) {
        disp = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
    } else {
        if (rm == 4) {
            e->sib = next(c);
            rm = e->sib & 7;
        }
        disp = mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
    }
    while (disp--)
        next(c);
}

/* MOV of control and debug registers names registers, whatever ModRM.mod says. AMD64 APM
 * volume 3, "MOV CRn". */
static bool names_memory(const struct encoding *e) {
    bool system = !e->vex && !e->evex && e->map == 1 && (e->opcode & 0xfc) == 0x20;

    return e->modrm < 0xc0 && !system;
}

bool encoding_parse(const struct insn *i, struct encoding *e) {
    struct cursor c = {.i = i, .ok = i->len <= sizeof(i->bytes)};
    uint8_t b, rex;

    __builtin_memset(e, 0, sizeof(*e));
    b = parse_prefixes(&c, e, &rex);
    if ((i->flags & INSN_VEX) && (b == 0xc4 || b == 0xc5))
        parse_vex(&c, e, b == 0xc4);
    else if ((i->flags & INSN_AVX512) && b == 0x62)
        parse_evex(&c, e);
    else if (i->flags & (INSN_VEX | INSN_AVX512))
        return false;
    else
        parse_legacy(&c, e, b, rex);
    e->has_modrm = i->off_modrm != 0;
    if (e->has_modrm) {
        e->modrm = next(&c);
        e->is_mem = names_memory(e);
        if (e->is_mem)
            skip_memory(&c, e);
    }
    while (c.ok && c.at < i->len) {
        if (e->nimm == ARRAY_SIZE(e->imm))
            return false;
        e->imm[e->nimm++] = next(&c);
    }
    return c.ok;
}

/* blendvps and friends name a fourth register in the immediate's upper half. */
static bool imm_is_register(const struct encoding *e) {
    return e->vex && e->map == 3 && e->opcode >= 0x4a && e->opcode <= 0x4c;
}

/*
 * Is VEX.W, or EVEX.W, without effect outside 64-bit mode, where it gives the size of an
 * integer operand in 64-bit mode (vmovd, vpinsrd, vpextrd, vcvtsi2ss...)? KMOVD moves 64
 * bits with it on Zen 4 in 32-bit code, too, but to ESP 32, as far as an exception shows.
 */
static bool w_is_size(const struct encoding *e) {
    bool evex = e->evex;

    switch (e->map << 8 | e->opcode) {
    case 0x12a:
    case 0x12c:
    case 0x12d:
    case 0x16e:
    case 0x316:
    case 0x322:
    case 0x360: /* vpcmpestrm, vpcmpestri: of the lengths in eax, edx */
    case 0x361:
    case 0x52a: /* half precision */
    case 0x52c:
    case 0x52d:
    case 0x578:
    case 0x579:
    case 0x57b:
        return true;
    case 0x17e: /* not vmovq of vector registers */
        return !evex || e->pp != 2;
    case 0x178: /* vcvttss2usi and kin */
    case 0x179:
    case 0x17b:
        return evex && e->pp >= 2;
    case 0x193: /* kmovd to a general register */
        return !evex && e->pp == 3 && (e->modrm >> 3 & 7) == REG_RSP;
    case 0x27c: /* vpbroadcastd, vpbroadcastq of a general register */
        return evex;
    default:
        return false;
    }
}

void encoding_widen(struct encoding *e) {
    e->r = e->x = e->b = 0;
    e->vvvv &= 7;
    e->w = e->w && (e->vex || e->evex) && !w_is_size(e);
    if (imm_is_register(e))
        e->imm[0] &= 0x7f; /* there are eight registers */
}

static unsigned put_evex(const struct encoding *e, uint8_t *out) {
    out[0] = 0x62;
    out[1] = (uint8_t)((e->r & 8 ? 0 : 0x80) | (e->x ? 0 : 0x40) | (e->b ? 0 : 0x20) |
                       (e->r & 16 ? 0 : 0x10) | e->map);
    out[2] = (uint8_t)((e->w ? 0x80 : 0) | (~e->vvvv & 15) << 3 | 4 | e->pp);
    out[3] = (uint8_t)((e->z ? 0x80 : 0) | e->len << 5 | (e->bcast ? 0x10 : 0) |
                       (e->vvvv & 16 ? 0 : 8) | e->opmask);
    return 4;
}

static unsigned put_vex(const struct encoding *e, uint8_t *out) {
    out[0] = 0xc4;
    out[1] =
        (uint8_t)((e->r ? 0 : 0x80) | (e->x ? 0 : 0x40) | (e->b ? 0 : 0x20) | e->map);
    out[2] = (uint8_t)((e->w ? 0x80 : 0) | (~e->vvvv & 15) << 3 | (e->l ? 4 : 0) | e->pp);
    return 3;
}

static unsigned put_legacy(const struct encoding *e, uint8_t *out) {
    uint8_t rex =
        (uint8_t)((e->w ? 8 : 0) | (e->r ? 4 : 0) | (e->x ? 2 : 0) | (e->b ? 1 : 0));
    unsigned n = 0;

    if (e->p66)
        out[n++] = 0x66;
    if (e->rep)
        out[n++] = e->rep;
    if (e->rex || rex)
        out[n++] = 0x40 | rex;
    if (e->map)
        out[n++] = 0x0f;
    if (e->map >= 2)
        out[n++] = e->map == 2 ? 0x38 : 0x3a;
    return n;
}
_Static_assert(ENCODING_HEAD_MAX >= 6, "66, f2 or f3, REX, 0f, 38");

unsigned encoding_put_head(const struct encoding *e, uint8_t *out) {
    return e->evex ? put_evex(e, out) : e->vex ? put_vex(e, out) : put_legacy(e, out);
}
