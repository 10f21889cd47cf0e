/*
 * What a vector or x87 instruction becomes for the host.
 *
 * What changes: the memory operand becomes [rdi]; an explicit general register becomes
 * eax (so that instructions which differ only in it share a stub); segment and
 * address-size prefixes go; bits that 16- and 32-bit modes ignore are cleared, because
 * 64-bit mode does not. What stays: opcode, mandatory prefixes, vector registers,
 * immediates. decode/encoding.h does the taking apart, and refuses bytes that do not
 * suffice; what is refused here is what is of no form that we know.
 */
#include "sem/native/native_int.h"

bool native_parse(const struct insn *i, struct encoding *f) {
    if (!encoding_parse(i, f) || f->nimm > 2)
        return false;
    if (f->map > (f->evex ? 6 : 3) || (f->evex && !f->map))
        return false;
    return f->map || (!f->vex && (f->opcode & 0xf8) == 0xd8);
}

static unsigned classify_x87(const struct encoding *f) {
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
static unsigned classify_avx512(const struct encoding *f) {
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

unsigned native_classify(const struct encoding *f) {
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

/* Empty REX prefixes go, and all prefixes of the x87, which mean nothing there. */
static void drop_prefixes(struct encoding *f) {
    f->rex = false;
    if (f->map || f->evex || f->vex)
        return;
    f->p66 = f->w = false;
    f->rep = f->r = f->x = f->b = 0;
}

unsigned native_encode(const struct encoding *from, enum cpu_mode mode, uint8_t *out) {
    struct encoding f = *from;
    unsigned kind = native_classify(&f), n;

    if (mode != MODE_64)
        encoding_widen(&f);
    if (!f.evex)
        f.x = 0; /* of no register then */
    if (f.is_mem) {
        f.modrm = (f.modrm & 0x38) | 7;
        f.x = f.b = 0;
    }
    if (kind & NATIVE_GPR_RM) {
        f.modrm &= 0xf8;
        f.x = f.b = 0;
    }
    if (kind & NATIVE_GPR_REG) {
        f.modrm &= 0xc7;
        f.r = 0;
    }
    drop_prefixes(&f);
    n = encoding_put_head(&f, out);
    out[n++] = f.opcode;
    if (f.has_modrm)
        out[n++] = f.modrm;
    for (unsigned k = 0; k < f.nimm; k++)
        out[n++] = f.imm[k];
    return n;
}
