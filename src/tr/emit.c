/* Encodings; see emit.h. AMD64 APM volume 3, "Instruction Encoding". */
#include "tr/emit.h"

/* A piece of an instruction, 8 bytes at most: put together in a register and stored at
 * once, for a store and a new end for each byte take several times as long. */
struct part {
    uint64_t bytes;
    unsigned n;
};

static inline void add(struct part *c, unsigned byte) {
    c->bytes |= (uint64_t)(byte & 0xff) << 8 * c->n++;
}

/* What is stored behind its end is free, and will be overwritten. */
static inline void put(struct emit *e, const struct part *c) {
    if (likely(e->end - e->p >= (ptrdiff_t)sizeof(c->bytes))) {
        __builtin_memcpy(e->p, &c->bytes, sizeof(c->bytes));
        e->p += c->n;
        return;
    }
    for (unsigned k = 0; k < c->n; k++)
        e8(e, c->bytes >> 8 * k & 0xff);
}

static inline void put32(struct emit *e, uint32_t v) {
    const struct part c = {.bytes = v, .n = 4};

    put(e, &c);
}

void e32(struct emit *e, uint32_t v) {
    put32(e, v);
}

void e64(struct emit *e, uint64_t v) {
    const struct part c = {.bytes = v, .n = 8};

    put(e, &c);
}

void e_bytes(struct emit *e, const uint8_t *b, size_t n) {
    while (n--)
        e8(e, *b++);
}

static inline void rex(struct part *c, int w, unsigned reg, unsigned index, unsigned rm) {
    unsigned r = 0x40 | (unsigned)w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3;

    if (r != 0x40)
        add(c, r);
}

static inline void modrm(struct part *c, unsigned mod, unsigned reg, unsigned rm) {
    add(c, mod << 6 | (reg & 7) << 3 | (rm & 7));
}

void e_rr(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned rm) {
    struct part c = {0};

    rex(&c, w, reg, 0, rm);
    add(&c, opcode);
    modrm(&c, 3, reg, rm);
    put(e, &c);
}

/* ModRM, SIB and displacement of [base + disp], which end the instruction. */
static inline void mem_base(struct emit *e, struct part *c, unsigned reg, unsigned base,
                            int32_t disp) {
    unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

    modrm(c, mod, reg, base);
    if ((base & 7) == 4)
        add(c, 0x24);
    if (mod == 1)
        add(c, (uint8_t)disp);
    put(e, c);
    if (mod == 2)
        put32(e, (uint32_t)disp);
}

void e_rm(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned base,
          int32_t disp) {
    struct part c = {0};

    rex(&c, w, reg, 0, base);
    add(&c, opcode);
    mem_base(e, &c, reg, base, disp);
}

/* [disp32] without RIP: SIB with neither base nor index. It ends the instruction. */
static inline void mem_abs(struct emit *e, struct part *c, unsigned reg, size_t off) {
    modrm(c, 0, reg, 4);
    add(c, 0x25);
    put(e, c);
    put32(e, (uint32_t)off);
}

void e_gs(struct emit *e, int w, unsigned opcode, unsigned reg, size_t off) {
    struct part c = {.bytes = 0x65, .n = 1};

    rex(&c, w, reg, 0, 0);
    add(&c, opcode);
    mem_abs(e, &c, reg, off);
}

void e_abs(struct emit *e, int w, unsigned opcode, unsigned reg, const void *addr) {
    struct part c = {0};

    rex(&c, w, reg, 0, 0);
    add(&c, opcode);
    mem_abs(e, &c, reg, (uintptr_t)addr);
}

void e_ri(struct emit *e, int w, unsigned ext, unsigned rm, int32_t imm) {
    bool small = imm == (int8_t)imm;
    struct part c = {0};

    rex(&c, w, 0, 0, rm);
    add(&c, small ? 0x83 : 0x81);
    modrm(&c, 3, ext, rm);
    c.bytes |= (uint64_t)(uint32_t)imm << 8 * c.n;
    c.n += small ? 1 : 4;
    put(e, &c);
}

void e_shift(struct emit *e, int w, unsigned ext, unsigned rm, unsigned imm) {
    struct part c = {0};

    rex(&c, w, 0, 0, rm);
    add(&c, 0xc1);
    modrm(&c, 3, ext, rm);
    add(&c, imm);
    put(e, &c);
}

void e_rr2(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned rm) {
    struct part c = {0};

    rex(&c, w, reg, 0, rm);
    add(&c, 0x0f);
    add(&c, opcode);
    modrm(&c, 3, reg, rm);
    put(e, &c);
}

void e_movzx16(struct emit *e, unsigned dst, unsigned src) {
    e_rr2(e, W32, 0xb7, dst, src);
}

void e_neg(struct emit *e, int w, unsigned rm) {
    struct part c = {0};

    rex(&c, w, 0, 0, rm);
    add(&c, 0xf7);
    modrm(&c, 3, 3, rm);
    put(e, &c);
}

void e_rorx(struct emit *e, unsigned dst, unsigned src, unsigned imm) {
    struct part c = {.bytes = 0xc4, .n = 1};

    add(&c, (dst >= 8 ? 0 : 0x80u) | 0x40 | (src >= 8 ? 0 : 0x20u) | 3);
    add(&c, 0x80 | 0x7b); /* W, vvvv unused, pp f2 */
    add(&c, 0xf0);
    modrm(&c, 3, dst, src);
    add(&c, imm);
    put(e, &c);
}

void e_mov_rr(struct emit *e, int w, unsigned dst, unsigned src) {
    e_rr(e, w, OPC_MOV_R_RM, dst, src);
}

void e_mov_imm(struct emit *e, unsigned dst, uint64_t imm) {
    struct part c = {0};

    if (imm == (uint32_t)imm) {
        rex(&c, W32, 0, 0, dst);
        add(&c, 0xb8 | (dst & 7));
        put(e, &c);
        put32(e, (uint32_t)imm);
    } else if (imm == (uint64_t)(int32_t)imm) {
        rex(&c, W64, 0, 0, dst);
        add(&c, 0xc7);
        modrm(&c, 3, 0, dst);
        put(e, &c);
        put32(e, (uint32_t)imm);
    } else {
        rex(&c, W64, 0, 0, dst);
        add(&c, 0xb8 | (dst & 7));
        put(e, &c);
        e64(e, imm);
    }
}

void e_lea(struct emit *e, int w, unsigned dst, unsigned base, unsigned index,
           unsigned scale, int32_t disp) {
    unsigned i = index == REG_ZERO ? 4 : index; /* 4 without REX.X: none */
    unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;
    struct part c = {0};

    if (base != REG_ZERO && index == REG_ZERO) {
        e_rm(e, w, 0x8d, dst, base, disp);
        return;
    }
    rex(&c, w, dst, i, base == REG_ZERO ? 0 : base);
    add(&c, 0x8d);
    modrm(&c, base == REG_ZERO ? 0 : mod, dst, 4);
    add(&c, scale << 6 | (i & 7) << 3 | (base == REG_ZERO ? 5 : base & 7));
    if (base != REG_ZERO && mod == 1)
        add(&c, (uint8_t)disp);
    put(e, &c);
    if (base == REG_ZERO || mod == 2)
        put32(e, (uint32_t)disp);
}

void e_gs_imm(struct emit *e, int w, size_t off, int32_t imm) {
    struct part c = {.bytes = 0x65, .n = 1};

    rex(&c, w, 0, 0, 0);
    add(&c, 0xc7);
    mem_abs(e, &c, 0, off);
    put32(e, (uint32_t)imm);
}

void e_patch(const struct emit *e, uint8_t *rel32, const uint8_t *target) {
    int32_t rel = (int32_t)(target - (rel32 + 4 + e->delta));

    __builtin_memcpy(rel32, &rel, 4);
}

void e_land(struct emit *e, uint8_t *rel32) {
    if (!e->full)
        e_patch(e, rel32, e_here(e));
}

/* An opcode of N bytes, and the distance to TARGET, at what is returned. */
static inline uint8_t *branch(struct emit *e, unsigned opcode, unsigned n,
                              const uint8_t *target) {
    int32_t rel = (int32_t)(target - (e_here(e) + n + 4));
    const struct part c = {.bytes = opcode | (uint64_t)(uint32_t)rel << 8 * n,
                           .n = n + 4};

    put(e, &c);
    return e->p - 4;
}

void e_jmp(struct emit *e, const uint8_t *target) {
    branch(e, 0xe9, 1, target);
}

void e_jcc(struct emit *e, unsigned cond, const uint8_t *target) {
    branch(e, 0x800f | cond << 8, 2, target);
}

uint8_t *e_jmp_fwd(struct emit *e) {
    return branch(e, 0xe9, 1, e_here(e));
}

uint8_t *e_jcc_fwd(struct emit *e, unsigned cond) {
    return branch(e, 0x800f | cond << 8, 2, e_here(e));
}

void e_jmp_gs(struct emit *e, size_t off) {
    struct part c = {.bytes = 0xff65, .n = 2};

    mem_abs(e, &c, 4, off);
}

void e_jmp_reg(struct emit *e, unsigned reg) {
    struct part c = {0};

    rex(&c, W32, 0, 0, reg);
    add(&c, 0xff);
    modrm(&c, 3, 4, reg);
    put(e, &c);
}

void e_jmp_mem(struct emit *e, unsigned reg) {
    struct part c = {0};

    rex(&c, W32, 0, 0, reg);
    add(&c, 0xff);
    mem_base(e, &c, 4, reg, 0);
}

void e_test_imm(struct emit *e, unsigned reg, uint32_t imm) {
    struct part c = {0};

    rex(&c, W32, 0, 0, reg);
    add(&c, 0xf7);
    add(&c, 0xc0 | (reg & 7));
    put(e, &c);
    put32(e, imm);
}

uint8_t *e_jrcxz(struct emit *e) {
    e8(e, 0xe3);
    e8(e, 0);
    return e->p - 1;
}

uint8_t *e_jmp8(struct emit *e) {
    e8(e, 0xeb);
    e8(e, 0);
    return e->p - 1;
}

void e_jcc_back(struct emit *e, unsigned cond, const uint8_t *target) {
    ptrdiff_t back = target - e_here(e) - 2;

    if (back < INT8_MIN) {
        e_jcc(e, cond, target);
        return;
    }
    e8(e, 0x70 | cond);
    e8(e, (unsigned)back & 0xff);
}

void e_land8(struct emit *e, uint8_t *rel8) {
    ptrdiff_t over = e->p - rel8 - 1;

    if (over > INT8_MAX)
        e->full = true; /* never seen; such a fragment is not made */
    else if (!e->full)
        *rel8 = (uint8_t)over;
}
