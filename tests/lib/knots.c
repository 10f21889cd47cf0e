/* Knots: see knots.h. */
#include <string.h>

#include "decode/decode.h"
#include "lib/knots.h"

static struct knots *K;
static int64_t bias[2]; /* what displacements are about, by now */
static unsigned window;
static uint64_t offset;  /* what MOVs with an offset are about */
static unsigned counter; /* of the loop; 16: there is none */

static unsigned pick(unsigned n) {
    return (unsigned)(K->rnd() % n);
}

static bool one_in(unsigned n) {
    return pick(n) == 0;
}

static bool wide(void) {
    return K->mode == MODE_64;
}

static void put(const void *b, unsigned n) {
    memcpy(K->code + K->len, b, n);
    K->len += n;
}

static int64_t displacement(unsigned which) {
    int64_t d = bias[which] + (int64_t)pick(window) - (int64_t)(window / 2);

    return one_in(2) ? d & ~7ll : d;
}

/* ModRM, SIB and displacement of an operand off shared register WHICH. REX (or inverted,
 * VEX) bits X and B in *XB. */
static unsigned put_operand(uint8_t *b, unsigned reg, unsigned which, unsigned *xb) {
    const struct knots *k = K;
    unsigned base = k->base[which], n = 0, mod;
    bool index = k->index < 16 && one_in(3);
    int64_t d = displacement(which);
    int32_t disp = (int32_t)d;

    if (one_in(12)) { /* absolute; with rIP in 64-bit code */
        bool rip = wide() && one_in(2);
        uint64_t to = K->data + (uint64_t)(d - bias[which]);

        *xb = 0;
        to -= rip ? K->at + K->len + 8 : 0;
        b[n++] = (uint8_t)(reg << 3 | (rip || !wide() ? 5 : 4));
        if (!rip && wide())
            b[n++] = 0x25;
        memcpy(b + n, &to, 4);
        return n + 4;
    }
    mod = disp == (int8_t)disp && !one_in(4) ? 1 : 2;
    *xb = base >> 3 | (index ? (unsigned)k->index >> 3 << 1 : 0u);
    if (index || (base & 7) == 4) {
        b[n++] = (uint8_t)(mod << 6 | reg << 3 | 4);
        b[n++] = (uint8_t)(k->scale << 6 | (index ? k->index & 7 : 4) << 3 | (base & 7));
    } else {
        b[n++] = (uint8_t)(mod << 6 | reg << 3 | (base & 7));
    }
    memcpy(b + n, &disp, mod == 1 ? 1 : 4);
    return n + (mod == 1 ? 1 : 4);
}

/* Prefixes that mean something, or nothing, in any order. */
static unsigned put_prefixes(uint8_t *b, unsigned seldom) {
    static const uint8_t all[] = {0x66, 0x67, 0x67, 0xf0, 0xf2, 0xf3, 0x64,
                                  0x65, 0x2e, 0x3e, 0x26, 0x36, 0x66};
    unsigned n = 0;

    while (n < 3 && one_in(seldom))
        b[n++] = all[pick(ARRAY_SIZE(all))];
    if (n && wide() && one_in(8)) { /* a REX that does not count */
        b[n] = b[n - 1];
        b[n - 1] = (uint8_t)(0x40 | pick(16));
        n++;
    }
    return n;
}

/* Opcodes with ModRM that a translator copies, lengthens or expands, as ranges. */
static const struct range {
    uint8_t map, first, last; /* map: 0: one byte, 1: 0f, 2: 0f38, 3: 0f3a; +4: VEX */
} ranges[] = {
    {0, 0x00, 0x03}, {0, 0x08, 0x0b}, {0, 0x10, 0x13}, {0, 0x20, 0x23}, {0, 0x28, 0x2b},
    {0, 0x30, 0x33}, {0, 0x38, 0x3b}, {0, 0x63, 0x63}, {0, 0x69, 0x69}, {0, 0x6b, 0x6b},
    {0, 0x80, 0x81}, {0, 0x83, 0x8b}, {0, 0x88, 0x8b}, {0, 0x88, 0x8b}, {0, 0x88, 0x8b},
    {0, 0x8d, 0x8d}, {0, 0x8f, 0x8f}, {0, 0x8f, 0x8f}, {0, 0xc0, 0xc1}, {0, 0xc6, 0xc7},
    {0, 0xd0, 0xd3}, {0, 0xf6, 0xf7}, {0, 0xfe, 0xff}, {0, 0xff, 0xff}, {0, 0xd8, 0xdf},
    {1, 0x10, 0x17}, {1, 0x28, 0x2f}, {1, 0x40, 0x4f}, {1, 0x51, 0x76}, {1, 0x7e, 0x7f},
    {1, 0x90, 0x9f}, {1, 0xa3, 0xa5}, {1, 0xab, 0xaf}, {1, 0xb0, 0xb1}, {1, 0xb3, 0xb3},
    {1, 0xb6, 0xbf}, {1, 0xc0, 0xc7}, {1, 0xd0, 0xfe}, {2, 0x00, 0x0b}, {2, 0xf0, 0xf6},
    {3, 0x0f, 0x22}, {5, 0x10, 0x17}, {5, 0x28, 0x2f}, {5, 0x51, 0x7f}, {5, 0xd0, 0xfe},
    {6, 0x00, 0x47}, {6, 0xf2, 0xf7}, {7, 0x00, 0x22}, {7, 0x4a, 0x4c}, {7, 0xf0, 0xf0},
};

static unsigned put_opcode(uint8_t *b, const struct range *r, unsigned xb) {
    static const uint8_t escape[] = {0, 0, 0x38, 0x3a};
    unsigned map = r->map & 3, n = 0, reg = pick(2);

    if (r->map & 4) {
        unsigned rxb = (reg << 2 | xb) ^ 7;

        b[n++] = 0xc4;
        b[n++] = (uint8_t)((wide() ? rxb : rxb | 6) << 5 | map);
        b[n++] = (uint8_t)K->rnd();
        if (one_in(2)) /* no second source */
            b[n - 1] |= 0x78;
    } else {
        if (wide() && (xb || !one_in(3)))
            b[n++] = (uint8_t)(0x40 | pick(2) << 3 | reg << 2 | xb);
        if (map)
            b[n++] = 0x0f;
        if (map > 1)
            b[n++] = escape[map];
    }
    b[n++] = (uint8_t)(r->first + pick(r->last - r->first + 1u));
    return n;
}

static bool take(const uint8_t *b, struct insn *i) {
    return decode_insn(K->mode, b, 15, i) == DECODE_OK && i->op != OP_invalid &&
           K->takes(i) && !(i->op >= OP_xsave && i->op <= OP_xrstors) &&
           !((i->op == OP_jmp || i->op == OP_call) && !one_in(4));
}

/* What must be decoded as well as made: a caller may not take it. */
static bool put_taken(const uint8_t *b, unsigned n) {
    uint8_t whole[16] = {0};
    struct insn i;

    memcpy(whole, b, n);
    if (decode_insn(K->mode, whole, 15, &i) != DECODE_OK || !K->takes(&i))
        return false;
    put(b, n);
    return true;
}

static bool put_access(unsigned which) {
    const struct range *r = &ranges[pick(ARRAY_SIZE(ranges))];
    uint8_t b[40], operand[8];
    unsigned xb, n = put_prefixes(b, r->map & 4 ? 24 : 6);
    unsigned size = put_operand(operand, pick(8), which, &xb);
    struct insn i;

    n += put_opcode(b + n, r, xb);
    memcpy(b + n, operand, size);
    n += size;
    for (unsigned k = n; k < sizeof(b); k++)
        b[k] = (uint8_t)(one_in(4) ? 0 - pick(2) : K->rnd());
    if (!take(b, &i))
        return false;
    put(b, i.len);
    return true;
}

/* PUSH, POP of memory; of registers; LEAVE, ENTER. */
static bool put_stack(unsigned which) {
    static const uint8_t plain[] = {0x50, 0x53, 0x57, 0x58, 0x5b,
                                    0x5f, 0x9c, 0x6a, 0xc9, 0x5c};
    uint8_t b[24];
    unsigned n = put_prefixes(b, 12), xb, size;
    uint8_t operand[8];

    if (one_in(3)) {
        b[n++] = plain[pick(ARRAY_SIZE(plain))];
        b[n++] = 0x12;
        return put_taken(b, n - (b[n - 2] != 0x6a));
    }
    size = put_operand(operand, 0, which, &xb);
    if (wide() && (xb || one_in(3)))
        b[n++] = (uint8_t)(0x40 | pick(2) << 3 | pick(2) << 2 | xb);
    b[n++] = 0x8f;
    if (!one_in(3)) {
        b[n - 1] = 0xff;
        operand[0] |= 6 << 3;
    }
    memcpy(b + n, operand, size);
    return put_taken(b, n + size);
}

/* CALL or JMP through memory to what follows, where it has been stored, or seldom to what
 * is there anyway. */
static bool put_through(unsigned which) {
    uint8_t operand[8], b[24];
    unsigned xb, n = 0, size = put_operand(operand, 0, which, &xb), from;

    if (operand[0] < 0x40) /* rIP-relative: not the same twice */
        return false;
    from = K->len;
    if (!one_in(4)) {
        if (wide()) /* lea rax, [rip + ...]; mov [...], rax */
            put("\x48\x8d\x05\0\0\0\0", 7), b[n++] = (uint8_t)(0x48 | xb);
        else /* mov eax, ... */
            put("\xb8\0\0\0\0", 5);
        b[n++] = 0x89;
        memcpy(b + n, operand, size);
        put(b, n + size);
        n = 0;
    }
    if (xb)
        b[n++] = (uint8_t)(0x40 | xb);
    b[n++] = 0xff;
    memcpy(b + n, operand, size);
    b[n] |= (uint8_t)((one_in(3) ? 4 : 2) << 3);
    put(b, n + size);
    if (K->code[from] == 0x48 || K->code[from] == 0xb8) {
        uint32_t to = wide() ? K->len - (from + 7) : (uint32_t)(K->at + K->len);

        memcpy(K->code + from + (wide() ? 3 : 1), &to, 4);
    }
    return true;
}

static bool put_string(void) {
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xa4, 0xa5, 0xaa, 0xab,
                                      0xac, 0xad, 0xa6, 0xa7, 0xae, 0xaf};
    uint8_t b[8];
    unsigned n = 0;

    if (one_in(10))
        put(one_in(3) ? "\xfd" : "\xfc", 1); /* std, cld */
    if (counter != REG_RCX && !one_in(3)) {  /* mov ecx, n */
        uint32_t count = pick(one_in(4) ? 300 : 12);

        put("\xb9", 1), put(&count, 4);
    }
    if (one_in(2))
        b[n++] = (uint8_t)(one_in(6) ? 0xf2 : 0xf3);
    n += put_prefixes(b + n, 6);
    if (wide() && one_in(2))
        b[n++] = (uint8_t)(0x40 | pick(16));
    b[n++] = opcodes[pick(ARRAY_SIZE(opcodes))];
    return put_taken(b, n);
}

/* MOV A0 to A3, one or some: numbers that are far apart, but not if they are cut or their
 * difference overflows. */
static bool put_moffs(void) {
    static const uint64_t away[] = {
        0, 0, 0, 1ull << 63, 1ull << 63, 1ull << 32, INT64_MAX - 3, 1ull << 31};
    unsigned size = wide() ? 8 : 4, n;
    uint8_t b[24];

    n = put_prefixes(b, 4);
    if (one_in(3))
        b[n++] = (uint8_t)(0x64 + pick(2));
    for (unsigned k = 0; k < n; k++)
        if (b[k] == 0x67)
            size = wide() ? 4 : 2;
    for (unsigned count = 1 + pick(3); count; count--) {
        uint64_t at = offset + away[pick(8)] + (K->rnd() & 0x1f8) - 0x100;
        unsigned len = n;

        if (wide() && !one_in(3))
            b[len++] = (uint8_t)(0x40 | pick(16));
        b[len++] = (uint8_t)(0xa0 + pick(4));
        memcpy(b + len, &at, size);
        put(b, len + size);
    }
    return true;
}

/* The shared register moves, and the bias makes up for it, or not. */
static bool put_step(unsigned which) {
    static const int32_t far[] = {INT32_MAX, INT32_MIN, 0x7ffff000, -0x7ffff000,
                                  0x40000000};
    unsigned r = K->base[which], rex = 0x48 | r >> 3;
    int32_t by = (int32_t)pick(200) - 100;
    uint8_t b[12];
    unsigned n = 0, kind = pick(4);

    if (one_in(3))
        by = far[pick(ARRAY_SIZE(far))] + (int32_t)(K->rnd() & 0xff0) * (by < 0);
    if (kind == 3)
        by = 1;
    if (wide())
        b[n++] = (uint8_t)rex;
    if (kind < 2) { /* add, sub */
        int32_t imm = kind ? (int32_t)(0u - (uint32_t)by) : by;

        b[n++] = 0x81;
        b[n++] = (uint8_t)((kind ? 0xe8 : 0xc0) | (r & 7));
        memcpy(b + n, &imm, 4);
        n += 4;
        by = kind ? (int32_t)(0u - (uint32_t)imm) : imm;
    } else if (kind == 2) { /* lea */
        b[n - wide()] |= r >> 3 << 2;
        b[n++] = 0x8d;
        b[n++] = (uint8_t)(0x80 | (r & 7) << 3 | (r & 7));
        if ((r & 7) == 4)
            b[n++] = 0x24;
        memcpy(b + n, &by, 4);
        n += 4;
    } else { /* inc */
        b[n++] = 0xff;
        b[n++] = (uint8_t)(0xc0 | (r & 7));
    }
    if (kind == 2 && wide())
        b[0] = (uint8_t)(0x48 | r >> 3 | r >> 3 << 2);
    else if (kind == 2)
        b[0] = 0x8d;
    put(b, n);
    if (!one_in(3))
        bias[which] -= by;
    return true;
}

static bool put_item(void) {
    unsigned which = one_in(4);

    switch (pick(16)) {
    case 0:
    case 1:
    case 2:
        return put_stack(which);
    case 3:
        return put_through(which);
    case 4:
    case 5:
        return put_string();
    case 6:
        return put_moffs();
    case 7:
    case 8:
        return put_step(which);
    default:
        return put_access(which);
    }
}

/* mov COUNTER, n */
static void open_loop(void) {
    uint32_t n = 1 + pick(5);
    uint8_t b[2] = {0x41, (uint8_t)(0xb8 | (counter & 7))};

    put(b + (counter < 8), 1 + (counter >= 8));
    put(&n, 4);
}

/* dec COUNTER; jnz */
static void close_loop(unsigned from) {
    uint8_t b[3] = {0x41, 0xff, (uint8_t)(0xc8 | (counter & 7))};
    int32_t rel;

    put(b + (counter < 8), 2 + (counter >= 8));
    put("\x0f\x85", 2);
    rel = (int32_t)from - (int32_t)K->len - 4;
    put(&rel, 4);
}

static unsigned any_register(void) {
    unsigned r;

    do
        r = pick(wide() ? 16 : 8);
    while (r == REG_RCX || r == counter);
    return r;
}

static void choose_registers(void) {
    static const int64_t biases[] = {0,           0,          0,           0x80,
                                     -0x80,       0x7ffffc00, -0x7ffffc00, 0x7ffffff8,
                                     -0x7ffffff8, 0x1000,     -0x10000};
    static const unsigned windows[] = {16, 64, 256, 1100, 1100, 2600};

    for (unsigned n = 0; n < 2; n++) {
        K->base[n] = (uint8_t)(one_in(6) ? (unsigned)REG_RSP : any_register());
        K->bias[n] = bias[n] = one_in(2) ? 0 : biases[pick(ARRAY_SIZE(biases))];
    }
    K->index = (uint8_t)(one_in(2) ? any_register() : 16u);
    if (K->index == REG_RSP)
        K->index = 16;
    K->scale = (uint8_t)pick(4);
    window = windows[pick(ARRAY_SIZE(windows))];
    offset = K->data - (one_in(3) ? K->segment : pick(0x800));
    if (one_in(4))
        offset += 1ull << 63;
}

void knots_make(struct knots *k) {
    unsigned items, loop;

    K = k;
    items = 2 + pick(8);
    counter = 16;
    if (one_in(2))
        counter = one_in(2) ? (unsigned)REG_RCX : any_register();
    if (counter == REG_RSP)
        counter = 16;
    choose_registers();
    if (counter < 16)
        open_loop();
    loop = k->len;
    for (unsigned tries = 0; items && tries < 100 && k->len < k->max - 80; tries++)
        items -= put_item();
    if (counter < 16)
        close_loop(loop);
}

static uint64_t about_end(void) {
    uint64_t at = K->end();

    if (one_in(24)) /* what no page has, and no place for one should match */
        at = (one_in(3) ? 0 : 1ull << 63) + (one_in(2) ? 0x1000 : 0);
    switch (pick(4)) {
    case 0:
        return at - pick(20);
    case 1:
        return at - pick(1100);
    case 2:
        return at + pick(1100);
    default:
        return at - (K->rnd() & 0x7f8);
    }
}

void knots_registers(struct knots *k, uint64_t *gpr) {
    uint64_t index;

    K = k;
    index = pick(8) - 2u;
    if (one_in(4))
        gpr[REG_RSP] = about_end();
    if (one_in(2))
        gpr[REG_RSI] = about_end();
    if (one_in(2))
        gpr[REG_RDI] = about_end();
    if (one_in(4))
        gpr[REG_RCX] = pick(20);
    if (k->index < 16)
        gpr[k->index] = index = one_in(8) ? k->rnd() : index;
    for (unsigned n = 2; n-- > 0;) {
        uint64_t at = about_end();

        if (k->index < 16 && one_in(2)) /* the operands with the index */
            at -= index << k->scale;
        if (one_in(16)) /* where addresses come round */
            at = (one_in(2) ? 1ull << 63 : 0) - pick(1100);
        gpr[k->base[n]] = at - (uint64_t)k->bias[n];
        if (one_in(10)) /* for 32-bit addresses */
            gpr[k->base[n]] ^= k->rnd() << 32;
    }
}
