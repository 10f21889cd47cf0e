/*
 * Programs: single instructions of every form, and sequences with branches, loops and
 * bursts of accesses off one base register, which is what a translator groups.
 */
#include <string.h>

#include "decode/decode.h"
#include "fidelity.h"

static void put(struct program *p, const void *b, unsigned n) {
    memcpy(p->code + p->len, b, n);
    p->len += n;
}

static void put_mov_imm(struct program *p, unsigned reg, uint64_t val) {
    uint8_t b[2] = {(uint8_t)(0x48 | reg >> 3), (uint8_t)(0xb8 | (reg & 7))};

    if (p->mode == MODE_64)
        put(p, b, 2), put(p, &val, 8);
    else
        put(p, b + 1, 1), put(p, &val, 4);
}

static uint64_t target(void) {
    struct state s;
    struct program p = {.mode = MODE_64, .code = {0x90}};

    fid_random_state(&p, &s);
    return s.gpr[fid_pick(16)];
}

/* Puts an absolute or rIP-relative operand where there is memory. */
static void place_operand(const struct program *p, uint8_t *b, const struct insn *i) {
    bool wide = p->mode == MODE_64;
    unsigned at = i->off_modrm + 1u;
    uint64_t to = FID_DATA + fid_pick(0x2000);

    /* MOV with an offset, the last bytes of it. */
    if (i->mem.access && !i->off_modrm && i->op == OP_mov && i->addrsize > 2 &&
        i->len > i->addrsize) {
        to -= i->mem.seg >= SEG_FS && fid_one_in(2) ? FID_DATA : 0;
        memcpy(b + i->len - i->addrsize, &to, i->addrsize);
    }
    if (!i->mem.access || i->mem.index != REG_ZERO || !i->off_modrm || i->addrsize == 2)
        return;
    if (i->mem.base == REG_RIP)
        to -= p->base + p->len + i->len;
    else if (i->mem.base != REG_ZERO)
        return;
    else if ((b[i->off_modrm] & 7) == 4 || wide)
        at++;
    if (at + 4u <= i->len)
        memcpy(b + at, &to, 4);
}

static unsigned random_prefixes(const struct form *f, uint8_t *b) {
    static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65};
    static const uint8_t all[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x40};
    unsigned n = 0;

    if (fid_one_in(8))
        b[n++] = segs[fid_pick(8)];
    if (fid_one_in(12))
        b[n++] = 0x67;
    if (fid_one_in(f->mem ? 10 : 40) && !f->vex)
        b[n++] = 0xf0;
    while (fid_one_in(24) && n < 6)
        b[n++] = all[fid_pick(8)];
    return n;
}

/* One instruction of form F; with a BASE below 16 its operand is off that register. */
static bool put_form(struct program *p, const struct form *f, unsigned base, bool plain) {
    bool wide = p->mode == MODE_64;
    uint8_t b[40];
    unsigned n = plain ? 0 : random_prefixes(f, b), rxb = wide ? fid_pick(8) : 0;
    struct insn i;

    if (base < 16)
        rxb = (rxb & 4) | base >> 3;
    n += fid_form_put(f, b + n, rxb,
                      f->v15                  ? 0
                      : wide || fid_one_in(8) ? fid_pick(16)
                                              : fid_pick(8));
    if (f->vex == 2)
        fid_evex_vary(p->mode, b + n - 5, f->v15);
    for (unsigned k = n; k < sizeof(b); k++)
        b[k] = (uint8_t)(fid_one_in(4) ? fid_value() : fid_rnd());
    b[n] = (uint8_t)(f->mem ? fid_pick(3) << 6 | fid_pick(8)
                            : 0xc0 | (f->rm == 1 ? fid_pick(8) : f->rm));
    if (!f->mem && !f->vex && !f->map && (f->opcode & 0xf8) == 0xd8)
        b[n] = (uint8_t)(0xc0 | f->rm);
    if (base < 16 && f->mem) {
        b[n] = (uint8_t)(0x40 | (base & 7));
        if ((base & 7) == 4)
            b[n + 1] = 0x24;
    }
    b[n] |= (uint8_t)(f->reg << 3);
    if (decode_insn(p->mode, b, 15, &i) != DECODE_OK ||
        p->len + i.len + 40 > FID_CODE_MAX)
        return false;
    if (i.op == OP_invalid && fid_amd_ignores(f, b + n - 1))
        return false;
    place_operand(p, b, &i);
    if (decode_insn(p->mode, b, 15, &i) != DECODE_OK)
        return false;
    put(p, b, i.op == OP_invalid ? (i.len < 15 ? 15 : i.len) : i.len);
    return true;
}

/* --- what a program is --- */

static bool inside_insn(const struct program *p, const struct insn *i, unsigned off) {
    uint64_t to = off + i->len + (uint64_t)i->imm;

    if (i->opsize == 2 || to >= p->len)
        return false;
    for (unsigned k = 0; k < p->n; k++)
        if (p->at[k] == to)
            return false;
    return to != p->len - 1;
}

/* Whether I reads flags that something earlier has left undefined. */
static bool reads_undefined(const struct insn *i, const struct insn *before,
                            unsigned ever) {
    unsigned reads =
        (i->op == OP_pushf || i->op == OP_lahf ? X86_FL_STATUS : i->fl_read) & ever;

    if (before)
        reads &= (unsigned)~(before->fl_written & ~before->fl_undefined);
    return reads != 0;
}

/* With an x87 or whole-state instruction that stores the pointers. */
static bool stores_pointers(const struct insn *i) {
    return i->op == OP_fxsave || i->op == OP_xsave || i->op == OP_xsavec ||
           i->op == OP_xsaveopt || i->op == OP_fnsave || i->op == OP_fnstenv;
}

static bool is_direct(const struct insn *i) {
    return (i->op >= OP_jcc && i->op <= OP_call && !i->nops);
}

static bool scan_insns(struct program *p, struct insn *list) {
    unsigned kind, off = 0, end = p->len - 1;

    while (off < end) {
        uint8_t b[16] = {0};
        struct insn *i = &list[p->n];
        enum fid_class c;

        if (p->n >= ARRAY_SIZE(p->at))
            return false;
        memset(b, 0xf4, sizeof(b));
        memcpy(b, p->code + off, p->len - off < 15 ? p->len - off : 15);
        if (decode_insn(p->mode, b, 15, i) == DECODE_TRUNCATED)
            return false;
        c = fid_class_of(p->mode, b, 15, &kind);
        if (c == FID_UNLIKE || i->op == OP_syscall || i->op == OP_sysenter)
            return false;
        if (c == FID_HIDDEN) {
            if (off)
                return false;
            p->hidden = true;
        }
        p->at[p->n++] = (uint16_t)off;
        if (i->op == OP_invalid || p->hidden) {
            off = end; /* whatever its length may be */
            break;
        }
        off += i->len ? i->len : 15;
    }
    return off == end;
}

/* The tracked pointers are compared with no host's: no x87 instruction may come before
 * one that stores them, in a loop any. */
static bool shows_pointers(const struct program *p, const struct insn *list) {
    bool x87 = false, stores = false, loops = false;

    for (unsigned k = 0; k < p->n; k++) {
        const struct insn *i = &list[k];

        if (stores_pointers(i) && x87)
            return true;
        x87 |= (i->flags & INSN_X87) && !stores_pointers(i);
        x87 |= i->op == OP_fxrstor || i->op == OP_xrstor;
        stores |= stores_pointers(i);
        loops |= is_direct(i) && i->imm < 0;
    }
    return x87 && stores && loops;
}

bool fid_program_scan(struct program *p) {
    static struct insn list[FID_INSNS * 3];
    unsigned ever = 0, all = 0;
    bool loops = false;

    p->n = p->undefined = 0;
    p->hidden = p->x87 = false;
    if (!scan_insns(p, list) || shows_pointers(p, list))
        return false;
    for (unsigned k = 0; k < p->n; k++) {
        loops |= is_direct(&list[k]) && list[k].imm < 0;
        all |= list[k].fl_undefined & X86_FL_STATUS;
    }
    if (loops) /* what is behind comes before, too */
        ever = all;
    for (unsigned k = 0; k < p->n; k++) {
        const struct insn *i = &list[k];

        if (is_direct(i) && inside_insn(p, i, p->at[k]))
            return false;
        if (reads_undefined(i, k ? &list[k - 1] : NULL, ever))
            return false;
        if (k && i->op >= OP_xsave && i->op <= OP_xrstors)
            return false;
        p->x87 |= (i->flags & INSN_X87) != 0;
        ever |= i->fl_undefined & X86_FL_STATUS;
    }
    p->undefined = ever;
    return true;
}

/* --- single instructions --- */

static void begin(struct program *p) {
    static const unsigned offsets[] = {0, 0, 0, 0x40, 0xff0, 0xfc0, 0xff9, 0xffe};

    p->len = p->n = p->nstates = 0;
    p->is_knot = false;
    p->base = FID_CODE + offsets[fid_pick(ARRAY_SIZE(offsets))];
    p->memory = fid_one_in(64) ? 0 : fid_rnd() >> 1;
}

static void finish(struct program *p) {
    if (p->len >= 15 && p->n == 0 && fid_one_in(16) && !p->hidden)
        p->base = FID_CODE + FID_CODE_SIZE - p->len; /* to the end of what is mapped */
    put(p, "\xf4", 1);
}

static void add_states(struct program *p) {
    p->nstates = FID_STATES;
    for (unsigned k = 0; k < FID_STATES; k++)
        fid_random_state(p, &p->state[k]);
}

void fid_generate_form(struct program *p, uint64_t seed, uint64_t n) {
    const struct form *f = fid_form((unsigned)(n % fid_forms_count()));

    p->form = (uint32_t)(n % fid_forms_count()) + 1;
    fid_seed(seed);
    for (unsigned tries = 0;; tries++) {
        p->mode = (enum cpu_mode)f->mode;
        begin(p);
        if (put_form(p, f, 16, !fid_one_in(4))) {
            finish(p);
            if (fid_program_scan(p))
                break;
        }
        if (tries > 20) {
            f = fid_form_pick(p->mode);
            p->form = 0;
        }
    }
    add_states(p);
}

static bool make_bytes(struct program *p) {
    uint8_t b[15];
    unsigned n = 0;

    for (unsigned k = 0; k < sizeof(b); k++)
        b[k] = (uint8_t)fid_rnd();
    if (fid_one_in(2))
        b[n++] = 0x0f;
    if (fid_one_in(8))
        b[0] = fid_one_in(2) ? 0xc4 : 0xc5;
    put(p, b, sizeof(b));
    finish(p);
    p->n = 0;
    return fid_program_scan(p) && p->n == 1;
}

/* --- sequences --- */

static void put_branch(struct program *p, const uint16_t *start, unsigned nstart,
                       unsigned (*fix)[2], unsigned *nfix) {
    unsigned kind = fid_pick(4);
    uint8_t b[6] = {0};

    put(p, "\x39\xc8", 2); /* cmp: its flags are defined */
    if (kind == 0) {
        b[0] = 0x0f;
        b[1] = (uint8_t)(0x80 | fid_pick(16));
        put(p, b, 6);
    } else if (kind == 1) {
        b[0] = (uint8_t)(0x70 | fid_pick(16));
        put(p, b, 2);
    } else if (kind == 2) {
        b[0] = fid_one_in(2) ? 0xe9 : 0xe8;
        put(p, b, 5);
    } else {
        b[0] = fid_one_in(3) ? 0xeb : (uint8_t)(0xe0 + fid_pick(4));
        put(p, b, 2);
    }
    fix[*nfix][0] = p->len;
    fix[(*nfix)++][1] = b[0] == 0x0f || b[0] == 0xe9 || b[0] == 0xe8 ? 4 : 1;
}

static void resolve(struct program *p, const uint16_t *start, unsigned nstart,
                    unsigned (*fix)[2], unsigned nfix) {
    for (unsigned k = 0; k < nfix; k++) {
        unsigned end = fix[k][0], size = fix[k][1];
        int32_t rel = 0;

        for (unsigned j = 0; j < 8; j++) {
            int32_t r = (int32_t)start[fid_pick(nstart)] - (int32_t)end;

            if (r >= 0 && (size == 4 || r < 128)) {
                rel = r;
                break;
            }
        }
        memcpy(p->code + end - size, &rel, size);
    }
}

/* `mov ecx, n` before and `loop` behind: the body may well change the count. */
static void close_loop(struct program *p, unsigned from) {
    int rel = (int)from - (int)p->len - 2;
    uint8_t b[2] = {0xe2, (uint8_t)rel};

    if (rel >= -128)
        put(p, b, 2);
}

static void put_any(struct program *p, unsigned base) {
    uint8_t keep[40];
    unsigned len = p->len;

    memcpy(keep, p->code + len, sizeof(keep));
    for (unsigned tries = 0; tries < 30; tries++) {
        const struct form *f = fid_form_pick(p->mode);
        struct insn i;

        p->len = len;
        if (f->cls != FID_COMPARE || (base < 16 && !f->mem && !fid_one_in(6)))
            continue;
        if (base == 16 && f->mem && !fid_one_in(3)) {
            unsigned r = fid_pick(p->mode == MODE_64 ? 16 : 8);

            put_mov_imm(p, r, target());
            if (!put_form(p, f, r, false))
                continue;
        } else if (!put_form(p, f, base, false)) {
            continue;
        }
        if (decode_insn(p->mode, p->code + len, 15, &i) == DECODE_OK &&
            i.op >= OP_xsave && i.op <= OP_xrstors)
            continue; /* the host has more components than the guest */
        if (decode_insn(p->mode, p->code + len, 15, &i) == DECODE_OK &&
            (i.flags & INSN_ENDS_BLOCK) && !fid_one_in(12))
            continue;
        return;
    }
    p->len = len;
}

static bool make_sequence(struct program *p) {
    uint16_t start[FID_INSNS + 2];
    unsigned fix[FID_INSNS][2], nstart = 0, nfix = 0, loop = 0;
    unsigned insns = 2 + fid_pick(fid_one_in(2) ? 5 : 14);
    bool looping = false;

    for (unsigned k = 0; k < insns && p->len < FID_CODE_MAX - 120; k++) {
        start[nstart++] = (uint16_t)p->len;
        if (!looping && fid_one_in(8)) {
            put_mov_imm(p, REG_RCX, 1 + fid_pick(6));
            loop = p->len;
            looping = true;
        } else if (looping && fid_one_in(4)) {
            close_loop(p, loop);
            looping = false;
        } else if (fid_one_in(7)) {
            put_branch(p, start, nstart, fix, &nfix);
        } else if (fid_one_in(6)) {
            unsigned base = fid_pick(p->mode == MODE_64 ? 16 : 8);

            put_mov_imm(p, base, target());
            for (unsigned j = 2 + fid_pick(4); j && p->len < FID_CODE_MAX - 120; j--)
                put_any(p, base);
        } else {
            if (fid_one_in(3))
                put(p, "\x39\xc8", 2);
            put_any(p, 16);
        }
    }
    start[nstart++] = (uint16_t)p->len;
    resolve(p, start, nstart, fix, nfix);
    put(p, "\xf4", 1);
    return fid_program_scan(p) && !p->hidden;
}

/* --- knots --- */

static bool takes(const struct insn *i) {
    unsigned kind;

    return fid_class_of(i->mode, i->bytes, i->len, &kind) == FID_COMPARE;
}

/* The end of a page; what is behind it, differs. */
static uint64_t page_end(void) {
    static const uint64_t ends[] = {
        FID_DATA + 0x1000, FID_DATA + 0x1000, FID_DATA + 0x2000, FID_DATA + 0x4000,
        FID_DATA + 0x5000, FID_DATA + 0x6000, FID_TOP + 0x1000,  FID_DATA,
        FID_DATA + 0x7000, FID_TOP,           FID_TOP + 0x2000};

    return ends[fid_pick(fid_one_in(3) ? ARRAY_SIZE(ends) : 4)];
}

static bool make_knot(struct program *p) {
    p->is_knot = true;
    p->knot = (struct knots){.mode = p->mode,
                             .at = p->base,
                             .code = p->code,
                             .max = FID_CODE_MAX,
                             .data = FID_DATA + 0x1000,
                             .segment = FID_DATA + 0x800,
                             .rnd = fid_rnd,
                             .takes = takes,
                             .end = page_end};
    knots_make(&p->knot);
    p->len = p->knot.len;
    put(p, "\xf4", 1);
    return fid_program_scan(p) && !p->hidden;
}

void fid_generate(struct program *p, uint64_t seed) {
    unsigned kind;

    fid_seed(seed);
    p->form = 0;
    kind = fid_pick(16);
    for (;;) {
        p->mode = fid_one_in(3) ? MODE_32 : MODE_64;
        begin(p);
        if (kind == 0 ? make_bytes(p) : kind <= 7 ? make_knot(p) : make_sequence(p))
            break;
    }
    add_states(p);
}
