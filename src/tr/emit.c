/* Encodings; see emit.h. AMD64 APM volume 3, "Instruction Encoding". */
#include "tr/emit.h"

void e32(struct emit *e, uint32_t v) {
    for (int i = 0; i < 4; i++)
        e8(e, v >> (8 * i) & 0xff);
}

void e64(struct emit *e, uint64_t v) {
    e32(e, (uint32_t)v);
    e32(e, (uint32_t)(v >> 32));
}

void e_bytes(struct emit *e, const uint8_t *b, size_t n) {
    while (n--)
        e8(e, *b++);
}

static void rex(struct emit *e, int w, unsigned reg, unsigned index, unsigned rm) {
    unsigned r = 0x40 | (unsigned)w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3;

    if (r != 0x40)
        e8(e, r);
}

static void modrm(struct emit *e, unsigned mod, unsigned reg, unsigned rm) {
    e8(e, mod << 6 | (reg & 7) << 3 | (rm & 7));
}

void e_rr(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned rm) {
    rex(e, w, reg, 0, rm);
    e8(e, opcode);
    modrm(e, 3, reg, rm);
}

/* ModRM, SIB and displacement of [base + disp]. */
static void mem_base(struct emit *e, unsigned reg, unsigned base, int32_t disp) {
    unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

    modrm(e, mod, reg, base);
    if ((base & 7) == 4)
        e8(e, 0x24);
    if (mod == 1)
        e8(e, (uint8_t)disp);
    else if (mod == 2)
        e32(e, (uint32_t)disp);
}

void e_rm(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned base,
          int32_t disp) {
    rex(e, w, reg, 0, base);
    e8(e, opcode);
    mem_base(e, reg, base, disp);
}

/* [disp32] without RIP: SIB with neither base nor index. */
static void mem_abs(struct emit *e, unsigned reg, size_t off) {
    modrm(e, 0, reg, 4);
    e8(e, 0x25);
    e32(e, (uint32_t)off);
}

void e_gs(struct emit *e, int w, unsigned opcode, unsigned reg, size_t off) {
    e8(e, 0x65);
    rex(e, w, reg, 0, 0);
    e8(e, opcode);
    mem_abs(e, reg, off);
}

void e_abs(struct emit *e, int w, unsigned opcode, unsigned reg, const void *addr) {
    rex(e, w, reg, 0, 0);
    e8(e, opcode);
    mem_abs(e, reg, (uintptr_t)addr);
}

void e_ri(struct emit *e, int w, unsigned ext, unsigned rm, int32_t imm) {
    bool small = imm == (int8_t)imm;

    rex(e, w, 0, 0, rm);
    e8(e, small ? 0x83 : 0x81);
    modrm(e, 3, ext, rm);
    if (small)
        e8(e, (uint8_t)imm);
    else
        e32(e, (uint32_t)imm);
}

void e_shift(struct emit *e, int w, unsigned ext, unsigned rm, unsigned imm) {
    rex(e, w, 0, 0, rm);
    e8(e, 0xc1);
    modrm(e, 3, ext, rm);
    e8(e, imm);
}

void e_rr2(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned rm) {
    rex(e, w, reg, 0, rm);
    e8(e, 0x0f);
    e8(e, opcode);
    modrm(e, 3, reg, rm);
}

void e_movzx16(struct emit *e, unsigned dst, unsigned src) {
    e_rr2(e, W32, 0xb7, dst, src);
}

void e_neg(struct emit *e, int w, unsigned rm) {
    rex(e, w, 0, 0, rm);
    e8(e, 0xf7);
    modrm(e, 3, 3, rm);
}

void e_rorx(struct emit *e, unsigned dst, unsigned src, unsigned imm) {
    e8(e, 0xc4);
    e8(e, (dst >= 8 ? 0 : 0x80u) | 0x40 | (src >= 8 ? 0 : 0x20u) | 3);
    e8(e, 0x80 | 0x7b); /* W, vvvv unused, pp f2 */
    e8(e, 0xf0);
    modrm(e, 3, dst, src);
    e8(e, imm);
}

void e_mov_rr(struct emit *e, int w, unsigned dst, unsigned src) {
    e_rr(e, w, OPC_MOV_R_RM, dst, src);
}

void e_mov_imm(struct emit *e, unsigned dst, uint64_t imm) {
    if (imm == (uint32_t)imm) {
        rex(e, W32, 0, 0, dst);
        e8(e, 0xb8 | (dst & 7));
        e32(e, (uint32_t)imm);
    } else if (imm == (uint64_t)(int32_t)imm) {
        rex(e, W64, 0, 0, dst);
        e8(e, 0xc7);
        modrm(e, 3, 0, dst);
        e32(e, (uint32_t)imm);
    } else {
        rex(e, W64, 0, 0, dst);
        e8(e, 0xb8 | (dst & 7));
        e64(e, imm);
    }
}

void e_lea(struct emit *e, int w, unsigned dst, unsigned base, unsigned index,
           unsigned scale, int32_t disp) {
    unsigned i = index == REG_ZERO ? 4 : index; /* 4 without REX.X: none */

    if (base != REG_ZERO && index == REG_ZERO) {
        e_rm(e, w, 0x8d, dst, base, disp);
        return;
    }
    if (base == REG_ZERO) {
        rex(e, w, dst, i, 0);
        e8(e, 0x8d);
        modrm(e, 0, dst, 4);
        e8(e, scale << 6 | (i & 7) << 3 | 5);
        e32(e, (uint32_t)disp);
        return;
    }
    rex(e, w, dst, i, base);
    e8(e, 0x8d);
    if (disp == 0 && (base & 7) != 5) {
        modrm(e, 0, dst, 4);
        e8(e, scale << 6 | (i & 7) << 3 | (base & 7));
    } else if (disp == (int8_t)disp) {
        modrm(e, 1, dst, 4);
        e8(e, scale << 6 | (i & 7) << 3 | (base & 7));
        e8(e, (uint8_t)disp);
    } else {
        modrm(e, 2, dst, 4);
        e8(e, scale << 6 | (i & 7) << 3 | (base & 7));
        e32(e, (uint32_t)disp);
    }
}

void e_gs_imm(struct emit *e, int w, size_t off, int32_t imm) {
    e8(e, 0x65);
    rex(e, w, 0, 0, 0);
    e8(e, 0xc7);
    mem_abs(e, 0, off);
    e32(e, (uint32_t)imm);
}

void e_patch(const struct emit *e, uint8_t *rel32, const uint8_t *target) {
    int32_t rel = (int32_t)(target - (rel32 + 4 + e->delta));

    __builtin_memcpy(rel32, &rel, 4);
}

void e_land(struct emit *e, uint8_t *rel32) {
    if (!e->full)
        e_patch(e, rel32, e_here(e));
}

static uint8_t *rel32_to(struct emit *e, const uint8_t *target) {
    uint8_t *at = e->p;

    e32(e, 0);
    if (!e->full)
        e_patch(e, at, target);
    return at;
}

void e_jmp(struct emit *e, const uint8_t *target) {
    e8(e, 0xe9);
    rel32_to(e, target);
}

void e_jcc(struct emit *e, unsigned cond, const uint8_t *target) {
    e8(e, 0x0f);
    e8(e, 0x80 | cond);
    rel32_to(e, target);
}

uint8_t *e_jmp_fwd(struct emit *e) {
    e8(e, 0xe9);
    return rel32_to(e, e_here(e));
}

uint8_t *e_jcc_fwd(struct emit *e, unsigned cond) {
    e8(e, 0x0f);
    e8(e, 0x80 | cond);
    return rel32_to(e, e_here(e));
}

void e_jmp_gs(struct emit *e, size_t off) {
    e8(e, 0x65);
    e8(e, 0xff);
    mem_abs(e, 4, off);
}

void e_jmp_reg(struct emit *e, unsigned reg) {
    rex(e, W32, 0, 0, reg);
    e8(e, 0xff);
    modrm(e, 3, 4, reg);
}

void e_jmp_mem(struct emit *e, unsigned reg) {
    rex(e, W32, 0, 0, reg);
    e8(e, 0xff);
    mem_base(e, 4, reg, 0);
}

void e_test_imm(struct emit *e, unsigned reg, uint32_t imm) {
    if (reg >= 8)
        e8(e, 0x41);
    e8(e, 0xf7);
    e8(e, 0xc0 | (reg & 7));
    e32(e, imm);
}

uint8_t *e_jrcxz(struct emit *e) {
    e8(e, 0xe3);
    e8(e, 0);
    return e->p - 1;
}

void e_jrcxz_land(struct emit *e, uint8_t *rel8) {
    ptrdiff_t over = e->p - rel8 - 1;

    if (over > INT8_MAX)
        e->full = true; /* never seen; such a fragment is not made */
    else if (!e->full)
        *rel8 = (uint8_t)over;
}
