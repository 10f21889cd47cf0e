/* Chance, and values that are worth trying: registers, vectors, memory. */
#include <string.h>

#include "decode/decode.h"
#include "fidelity.h"

static uint64_t now;

void fid_seed(uint64_t seed) {
    now = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    if (!now)
        now = 1;
    for (unsigned k = 0; k < 4; k++)
        fid_rnd();
}

uint64_t fid_rnd(void) {
    now ^= now << 13;
    now ^= now >> 7;
    now ^= now << 17;
    return now * 0x2545f4914f6cdd1dull >> 8 | now << 56;
}

uint64_t fid_hash(const uint8_t *mem, size_t len, uint64_t h) {
    uint64_t a = h, b = ~h;

    for (size_t k = 0; k < len; k += 16) {
        uint64_t x, y;

        memcpy(&x, mem + k, 8);
        memcpy(&y, mem + k + 8, 8);
        a = (a ^ x) * 0x9e3779b97f4a7c15ull;
        b = (b ^ y) * 0xd6e8feb86659fd93ull;
        a ^= a >> 32;
        b ^= b >> 29;
    }
    return a ^ (b << 17 | b >> 47);
}

bool fid_page_changed(unsigned k, const uint8_t *page, const uint8_t *was, uint64_t *h) {
    if (!fid_pages[k].write || !memcmp(page, was, 4096))
        return false;
    *h = fid_hash(page, 4096, *h ^ (k + 1));
    return true;
}

/* An address that is worth an access. */
static uint64_t address(void) {
    unsigned back = fid_pick(fid_one_in(4) ? 70 : 18);

    switch (fid_pick(16)) {
    case 0: /* into an absent page */
        return FID_DATA + 0x2000 - back;
    case 1: /* within two pages */
        return FID_DATA + 0x1000 - back;
    case 2: /* from writable to read only */
        return FID_DATA + 0x4000 - back;
    case 3:
        return FID_DATA + 0x5000 - back;
    case 4: /* from absent to present */
        return FID_DATA + 0x6000 - back;
    case 5: /* about the end of 32 bits */
        return FID_TOP + 0x1000 - back;
    case 6:
        return FID_DATA + 0x4000 + fid_pick(0x1000);
    case 7:
        switch (fid_pick(6)) {
        case 0:
            return fid_rnd();
        case 1: /* about the end of the lower half */
            return 0x800000000000ull - back;
        case 2:
            return 0xffff800000000000ull - back;
        case 3:
            return FID_CODE + fid_pick(0x3000);
        case 4:
            return 0ull - back;
        default:
            return FID_DATA + fid_pick(0x8000);
        }
    case 8:
    case 9:
        return FID_DATA + fid_pick(0x2000);
    default:
        return FID_DATA + (fid_pick(0x2000) & ~63u);
    }
}

uint64_t fid_value(void) {
    static const uint64_t edges[] = {
        0,          1,          2,         0x7f,       0x80,       0xff,       0x100,
        0x7fff,     0x8000,     0xffff,    0x10000,    0x7fffffff, 0x80000000, 0xffffffff,
        1ull << 32, 1ull << 63, INT64_MAX, UINT64_MAX, 31,         32,         33,
        63,         64,         65,        0x2b,       0x23,       0x33,       0x1f80};
    uint64_t x = edges[fid_pick(ARRAY_SIZE(edges))];

    switch (fid_pick(8)) {
    case 0:
        return fid_rnd();
    case 1:
        return fid_rnd() >> fid_pick(64);
    case 2:
        return address();
    case 3:
        return x ^ fid_value();
    case 4:
        return x + fid_pick(5) - 2;
    default:
        return x;
    }
}

static uint64_t double_value(void) {
    static const uint64_t edges[] = {0,
                                     1ull << 63,
                                     0x3ff0000000000000,
                                     0xbff0000000000000,
                                     0x7ff0000000000000,
                                     0xfff0000000000000,
                                     0x7ff8000000000000,
                                     0x7ff4000000000000,
                                     0x0008000000000000,
                                     1,
                                     0x000fffffffffffff,
                                     0x0010000000000000,
                                     0x7fefffffffffffff,
                                     0x41dfffffffc00000,
                                     0x41e0000000000000,
                                     0x43e0000000000000,
                                     0x3fe0000000000000,
                                     0x7ff8000000000000};

    return fid_one_in(3) ? fid_rnd()
                         : edges[fid_pick(ARRAY_SIZE(edges))] ^ (fid_rnd() & 3);
}

static uint32_t float_value(void) {
    static const uint32_t edges[] = {0,          0x80000000, 0x3f800000, 0xbf800000,
                                     0x7f800000, 0xff800000, 0x7fc00000, 0x7fa00000,
                                     0x00400000, 1,          0x007fffff, 0x00800000,
                                     0x7f7fffff, 0x4f000000, 0x4effffff, 0x5f000000,
                                     0x3f000000, 0x47800000, 0x33000000, 0x38800000};

    return fid_one_in(3) ? (uint32_t)fid_rnd()
                         : edges[fid_pick(ARRAY_SIZE(edges))] ^ (uint32_t)(fid_rnd() & 3);
}

static void fill(uint8_t *p, unsigned len) {
    unsigned kind = fid_pick(6);

    for (unsigned k = 0; k + 8 <= len; k += 8) {
        uint64_t x = kind == 0   ? fid_rnd()
                     : kind == 1 ? double_value()
                     : kind == 2 ? float_value() | (uint64_t)float_value() << 32
                     : kind == 3 ? fid_rnd() & 0x3f0000003full
                     : kind == 4 ? fid_value()
                                 : 0ull - (fid_rnd() & 1);

        memcpy(p + k, &x, 8);
    }
}

void fid_image_clean(uint8_t *x) {
    static const uint32_t mxcsr = 0x1f80;

    memset(x, 0, FID_IMAGE);
    x[0] = 0x7f;
    x[1] = 3;
    memcpy(x + 24, &mxcsr, 4);
    x[512] = (uint8_t)fid_components;
}

static void random_x87(uint8_t *x) {
    for (unsigned st = 0; st < 8; st++) {
        uint64_t man = fid_one_in(4) ? fid_value() : fid_rnd() | 1ull << 63;
        uint16_t exp = (uint16_t)(fid_one_in(4) ? fid_rnd() : 0x3fff - 32 + fid_pick(72));

        if (fid_one_in(8))
            exp = fid_one_in(2) ? 0x7fff : 0;
        if (fid_one_in(8))
            man = 1ull << 63;
        if (fid_one_in(4))
            exp |= 0x8000;
        memcpy(x + 32 + 16 * st, &man, 8);
        memcpy(x + 32 + 16 * st + 8, &exp, 2);
    }
    x[0] = (uint8_t)(fid_one_in(8) ? 0x40 | fid_pick(64) : 0x7f);
    x[1] = (uint8_t)((fid_one_in(4) ? fid_pick(4) : 3) | fid_pick(4) << 2);
    x[2] = (uint8_t)(fid_one_in(6) ? fid_rnd() & 0x7f & x[0] : 0);
    x[3] = (uint8_t)(fid_pick(8) << 3 | (fid_rnd() & 0x47));
    x[4] = (uint8_t)(fid_one_in(3) ? fid_rnd() : fid_one_in(2) ? 0 : 0xff);
    if (!(x[4] || fid_one_in(2)))
        x[3] &= 0x47;
}

static void random_image(uint8_t *x) {
    uint32_t mxcsr = 0x1f80;

    fid_image_clean(x);
    random_x87(x);
    for (unsigned k = 0; k < 4; k++) {
        fill(x + 160 + 64 * k, 64);
        fill(x + 576 + 64 * k, 64);
    }
    fid_avx512_random(x, fill);
    if (fid_one_in(3))
        mxcsr = (uint32_t)(fid_rnd() & 0xffc0) | (fid_one_in(2) ? 0x1f80 : 0);
    mxcsr |= (uint32_t)fid_rnd() & 0x3f & (fid_one_in(4) ? 0x3f : 0);
    memcpy(x + 24, &mxcsr, 4);
}

/* Memory that XRSTOR and FXRSTOR may well accept, every 1024 bytes. */
static void fill_images(uint8_t *mem) {
    memset(mem, 0, FID_PAGES * 4096);
    for (unsigned at = 0; at < FID_PAGES * 4096; at += 1024) {
        uint8_t image[FID_IMAGE];

        random_image(image);
        memcpy(mem + at, image, 1024);
        mem[at + 512] = (uint8_t)(fid_one_in(2) ? 7 : fid_pick(8));
        if (fid_one_in(8))
            mem[at + 513 + fid_pick(24)] = (uint8_t)fid_rnd();
        if (fid_one_in(8)) /* compacted */
            mem[at + 520 + 7] = 0x80, mem[at + 520] = (uint8_t)fid_pick(8);
    }
}

void fid_fill_memory(uint64_t seed, uint8_t *mem) {
    uint64_t before = now;

    if (!seed) {
        memset(mem, 0, FID_PAGES * 4096);
        return;
    }
    fid_seed(seed);
    if (seed % 8 == 7)
        fill_images(mem);
    else
        for (unsigned at = 0; at < FID_PAGES * 4096; at += 256)
            fill(mem + at, 256);
    now = before;
}

/* Registers such that the operand of I lands on TO. */
static void aim(const struct insn *i, struct state *s, uint64_t rip, uint64_t to) {
    const struct mem_operand *m = &i->mem;

    if (m->seg == SEG_FS)
        to -= s->fs_base;
    if (m->seg == SEG_GS)
        to -= s->gs_base;
    to -= (uint64_t)m->disp;
    if (i->op == OP_gather || i->op == OP_scatter) {
        if (fid_one_in(2)) {
            memset(s->image + 160, 0, 256), memset(s->image + 576, 0, 256);
            if (fid_one_in(2))
                fid_avx512_zero(s->image);
        }
    } else if (m->index < REG_ZERO && m->index != m->base) {
        s->gpr[m->index] = fid_pick(8) - 2;
        if (m->base >= REG_ZERO)
            s->gpr[m->index] = to >> m->scale;
        else
            to -= s->gpr[m->index] << m->scale;
    }
    if (m->base < REG_ZERO)
        s->gpr[m->base] = to;
}

static void special_registers(const struct insn *i, struct state *s) {
    switch (i->op) {
    case OP_xsave:
    case OP_xsavec:
    case OP_xsaveopt:
    case OP_xrstor: /* the host has more components */
        s->gpr[REG_RAX] = fid_one_in(2) ? 7 : fid_pick(8);
        s->gpr[REG_RDX] = 0;
        break;
    case OP_div:
    case OP_idiv:
        if (fid_one_in(2))
            s->gpr[REG_RDX] = fid_one_in(2) ? 0 : fid_pick(3) - 1;
        break;
    case OP_movs:
    case OP_cmps:
    case OP_scas:
    case OP_stos:
    case OP_lods:
        s->gpr[REG_RSI] = address();
        s->gpr[REG_RDI] = address();
        if (!fid_one_in(8))
            s->gpr[REG_RCX] = fid_pick(fid_one_in(4) ? 300 : 20);
        break;
    case OP_leave:
        s->gpr[REG_RBP] = address();
        break;
    case OP_maskmov:
        s->gpr[REG_RDI] = address();
        break;
    default:
        break;
    }
}

void fid_random_state(const struct program *p, struct state *s) {
    struct insn i;

    for (unsigned r = 0; r < 16; r++)
        s->gpr[r] = fid_one_in(3) ? address() : fid_value();
    s->gpr[REG_RSP] = fid_one_in(5)   ? address()
                      : fid_one_in(3) ? fid_value()
                                      : FID_DATA + 0x800 + fid_pick(0x1000);
    s->rflags = X86_FL_ONE | (fid_rnd() & X86_FL_STATUS);
    s->rflags |= fid_one_in(8) ? X86_FL_DF : 0;
    s->rflags |= fid_one_in(24) ? X86_FL_TF : 0;
    s->rflags |= fid_one_in(24) ? 0x40000 : 0;  /* AC */
    s->rflags |= fid_one_in(24) ? 0x4000 : 0;   /* NT */
    s->rflags |= fid_one_in(16) ? 0x200000 : 0; /* ID */
    s->fs_base = fid_one_in(2) ? fid_pick(0x2000) : fid_one_in(2) ? 0 : FID_DATA + 0x800;
    s->gs_base = fid_one_in(3) ? FID_DATA : fid_pick(0x1000);
    if (p->mode == MODE_64 && fid_one_in(6))
        s->gs_base = 0xffffffff00000000ull + fid_pick(0x100000);
    random_image(s->image);
    if (decode_insn(p->mode, p->code, 15, &i) == DECODE_OK) {
        if ((i.mem.access || i.op == OP_call || i.op == OP_jmp) && !fid_one_in(10))
            aim(&i, s, p->base, address());
        special_registers(&i, s);
    }
    if (p->is_knot) {
        struct knots k = p->knot;

        knots_registers(&k, s->gpr);
        if (fid_one_in(2))
            s->rflags &= ~(uint64_t)(X86_FL_TF | 0x40000);
    }
    if (p->mode != MODE_64)
        for (unsigned r = 0; r < 8; r++)
            s->gpr[r] = (uint32_t)s->gpr[r];
}
