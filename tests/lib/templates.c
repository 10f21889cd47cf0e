/* Encodings by operation; see templates.h. */
#include "lib/templates.h"

#include <stdlib.h>

#include "cpu/vec.h"
#include "decode/decode.h"
#include "x86/cr.h"

static struct template *templates;
static unsigned ntemplates, first_of[3][OP_COUNT + 1];
static const struct template **by_op;

bool template_allows(const struct insn *i) {
    switch (i->op) {
    case OP_native:
        return true;
    case OP_xsave:
    case OP_fxsave:
    case OP_fxrstor:
    case OP_fwait:
    case OP_maskmov:
    case OP_vmaskmov:
    case OP_gather:
    case OP_mov_from_seg:
    case OP_push_seg:
    case OP_smsw:
    case OP_clac:
    case OP_stac:
    case OP_cli:
    case OP_in:
        return true;
    case OP_jcc: /* made by hand */
    case OP_jcxz:
    case OP_loop:
    case OP_loope:
    case OP_loopne:
    case OP_jmp:
    case OP_call:
    case OP_rdrand:
    case OP_rdseed:
    case OP_ins:
    case OP_outs:
    case OP_invalid:
    case OP_ud:
        return false;
    default:
        return i->op <= OP_cmps;
    }
}

unsigned template_put(const struct template *t, uint8_t *b, unsigned r, unsigned x,
                      unsigned bb, unsigned vvvv) {
    static const uint8_t rep[] = {0, 0xf3, 0xf2};
    unsigned n = 0, rex;

    if (t->evex) {
        bool wide = t->mode == MODE_64;

        b[n++] = 0x62;
        b[n++] = (uint8_t)((r ? 0 : 0x80) | (x ? 0 : 0x40) | (bb ? 0 : 0x20) |
                           (wide && !t->v15 && vvvv & 1 ? 0 : 0x10) | t->map);
        b[n++] = (uint8_t)(t->w << 7 | (~vvvv & 15) << 3 | 4 | t->vpp);
        b[n++] = (uint8_t)(t->p2 | (wide && !t->v15 && vvvv & 2 ? 0 : 8));
        b[n++] = t->opcode;
        return n;
    }
    if (t->map & 4) {
        b[n++] = 0xc4;
        b[n++] =
            (uint8_t)((r ? 0 : 0x80) | (x ? 0 : 0x40) | (bb ? 0 : 0x20) | (t->map & 3));
        b[n++] = (uint8_t)(t->w << 7 | (~vvvv & 15) << 3 | t->vl << 2 | t->vpp);
        b[n++] = t->opcode;
        return n;
    }
    if (t->p66)
        b[n++] = 0x66;
    if (t->rep)
        b[n++] = rep[t->rep];
    rex = 0x40u | (unsigned)t->w << 3 | r << 2 | x << 1 | bb;
    if (t->mode == MODE_64 && rex != 0x40)
        b[n++] = (uint8_t)rex;
    if (t->map)
        b[n++] = 0x0f;
    if (t->map == 2)
        b[n++] = 0x38;
    if (t->map == 3)
        b[n++] = 0x3a;
    b[n++] = t->opcode;
    return n;
}

static void try(struct template t) {
    uint8_t b[16] = {0};
    unsigned n = template_put(&t, b, 0, 0, 0, t.v15 ? t.evex ? 0 : 15 : 5);
    struct insn i;

    b[n] = (uint8_t)(t.reg << 3 | (t.mem ? 3 : 0xc1));
    if (decode_insn(t.mode, b, 15, &i) != DECODE_OK || !template_allows(&i))
        return;
    if (i.op == OP_pop && t.mode == MODE_64 && t.opcode == 0x07)
        return;
    if (!i.off_modrm && (t.mem || t.reg)) /* once is enough */
        return;
    if (t.rep && i.op != OP_native && i.rep == REP_NONE && !(t.map))
        return; /* a prefix without a meaning: test_prefixes() */
    t.op = (uint8_t)(t.evex ? TEMPLATE_EVEX : i.op);
    templates = ntemplates & (ntemplates - 1)
                    ? templates
                    : realloc(templates, (ntemplates ? ntemplates * 2 : 1) * sizeof(t));
    templates[ntemplates++] = t;
}

/* Lengths, and with them masks, zeroing, broadcast or rounding. */
static void scan_evex(void) {
    static const uint8_t maps[] = {1, 2, 3, 5, 6}, how[] = {0, 0x03, 0x83, 0x10, 0x13};

    for (unsigned k = 0; k < 2 * 2 * 4 * 2 * 3 * ARRAY_SIZE(how); k++) {
        struct template t = {.evex = true,
                             .mode = k & 1 ? MODE_32 : MODE_64,
                             .w = k >> 1 & 1,
                             .vpp = k >> 2 & 3,
                             .v15 = k >> 4 & 1};

        t.p2 = (uint8_t)(how[(k >> 5) / 3] | ((k >> 5) % 3) << 5);
        for (unsigned m = 0; m < ARRAY_SIZE(maps) * 256 * 16; m++) {
            t.map = maps[m >> 12];
            t.opcode = (uint8_t)(m >> 4);
            t.reg = m & 7;
            t.mem = m >> 3 & 1;
            if (t.reg == 1 || (t.map == 1 && t.opcode >= 0x71 && t.opcode <= 0x73))
                try(t);
        }
    }
}

void templates_scan(void) {
    struct template t = {0};

    for (unsigned k = 0; k < 2 * 2 * 3 * 2; k++) {
        t.mode = k & 1 ? MODE_32 : MODE_64;
        t.p66 = k >> 1 & 1;
        t.w = k >> 2 & 1;
        t.rep = (uint8_t)(k >> 3);
        if (t.w && t.mode == MODE_32)
            continue;
        for (unsigned m = 0; m < 4 * 256 * 16; m++) {
            t.map = (uint8_t)(m >> 12);
            t.opcode = (uint8_t)(m >> 4);
            t.reg = m & 7;
            t.mem = m >> 3 & 1;
            try(t);
        }
    }
    for (unsigned k = 0; k < 2 * 2 * 4 * 2 * 2; k++) {
        t = (struct template){.mode = k & 1 ? MODE_32 : MODE_64,
                              .w = k >> 1 & 1,
                              .vpp = k >> 2 & 3,
                              .vl = k >> 4 & 1,
                              .v15 = k >> 5};
        for (unsigned m = 0; m < 3 * 256 * 16; m++) {
            t.map = (uint8_t)(4 + 1 + (m >> 12));
            t.opcode = (uint8_t)(m >> 4);
            t.reg = m & 7;
            t.mem = m >> 3 & 1;
            try(t);
        }
    }
    if (vec_supported() & X86_XCR0_OPMASK)
        scan_evex();
    by_op = malloc(ntemplates * sizeof(*by_op));
    for (unsigned mode = 1, n = 0; mode < 3; mode++)
        for (unsigned op = 0; op <= OP_COUNT; op++) {
            first_of[mode][op] = n;
            for (unsigned k = 0; k < ntemplates; k++)
                if (templates[k].op == op && templates[k].mode == mode)
                    by_op[n++] = &templates[k];
        }
}

const struct template *const *templates_of(unsigned mode, unsigned op, unsigned *n) {
    *n = first_of[mode][op + 1] - first_of[mode][op];
    return by_op + first_of[mode][op];
}
