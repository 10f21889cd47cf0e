/*
 * Vector instructions that touch memory element by element under a mask, so that only
 * the selected elements may fault: MASKMOVQ, MASKMOVDQU, VMASKMOVPS and kin, gathers.
 *
 * VMASKMOV and VPMASKMOV run on the host when the whole operand is plain memory of one
 * page; everything else goes through the parked image and one access an element.
 * AMD64 APM volume 4; Intel SDM volume 2, the instructions' pages.
 */
#include "sem/native/native_int.h"
#include "sem/segment_int.h"

/* --- vector registers in the parked image --- */

static void ymm_get(const struct vcpu *v, unsigned reg, uint8_t out[32]) {
    __builtin_memcpy(out, v->vec + IMG_XMM + 16 * reg, 16);
    __builtin_memcpy(out + 16, v->vec + IMG_YMMH + 16 * reg, 16);
}

static void ymm_set(struct vcpu *v, unsigned reg, const uint8_t in[32]) {
    __builtin_memcpy(v->vec + IMG_XMM + 16 * reg, in, 16);
    __builtin_memcpy(v->vec + IMG_YMMH + 16 * reg, in + 16, 16);
    img_touch(v, X86_XCR0_SSE | X86_XCR0_AVX);
}

/* An instruction with a VEX prefix is done with REG: what lies above is cleared. */
static void clear_above(struct vcpu *v, unsigned reg) {
    if (vec_size(XC_ZMMH))
        native_clear(v->vec + vec_offset(XC_ZMMH) + 32 * reg, 32);
}

static bool selected(const uint8_t *mask, unsigned elem, unsigned size) {
    return mask[elem * size + size - 1] & 0x80;
}

static uint64_t offset_mask(const struct insn *i) {
    return sem_addr_mask(i->addrsize);
}

static unsigned narrow_reg(const struct insn *i, unsigned reg) {
    return i->mode == MODE_64 ? reg & 15 : reg & 7;
}

/* --- stores of selected elements: maskmovq, maskmovdqu, vmaskmov to memory --- */

/* Offsets do not wrap within the operand. VMASKMOV and VPMASKMOV raise no #AC. Intel SDM
 * volume 2, "Exceptions Type 6". */
static int element_linear(struct vcpu *v, const struct insn *i, uint64_t off,
                          unsigned size, bool write, struct gva *at) {
    unsigned seg = i->mem.seg;

    *at = gva((off + v->segbase[seg]) & v->lin_mask);
    if (!sem_linear(v, seg, off, size, write, at))
        return 0;
    return v->fault.vector == X86_AC && i->op == OP_vmaskmov ? 0 : SEM_FAULT;
}

/* Checks every selected element, then stores: all or nothing for RAM. */
static int store_selected(struct vcpu *v, const struct insn *i, uint64_t off,
                          const uint8_t *data, const uint8_t *mask, unsigned count,
                          unsigned size) {
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned k = 0; k < count; k++) {
            uint64_t val = 0;
            struct gva at;
            int rc;

            if (!selected(mask, k, size))
                continue;
            rc = element_linear(v, i, off + k * size, size, true, &at);
            if (rc)
                return SEM_FAULT;
            native_copy(&val, data + k * size, size);
            rc = pass ? mmu_store(v, at, size, val)
                      : mmu_probe(v, at, size, MMU_WRITE, false);
            if (rc)
                return native_mem_fault(v, i);
        }
    }
    return SEM_NEXT;
}

/* The LEN bytes at OFF; if not, #GP is in v->fault. */
static bool is_canonical(struct vcpu *v, const struct insn *i, uint64_t off,
                         unsigned len) {
    uint64_t at = (off + v->segbase[i->mem.seg]) & v->lin_mask;

    if (v->mode != MODE_64 || (sem_canonical(v, at) && sem_canonical(v, at + len - 1)))
        return true;
    sem_fault_err(v, X86_GP, 0);
    return false;
}

/* A bad place faults whatever the mask says: Intel SDM volume 2, "MASKMOVDQU", leaves it
 * to the processor. */
static int store_bytes(struct vcpu *v, const struct insn *i, const uint8_t *data,
                       const uint8_t *mask, unsigned count) {
    uint64_t off = v->gpr[REG_RDI] & offset_mask(i);
    struct gva at;

    if (sem_linear(v, i->mem.seg, off, count, true, &at) && v->fault.vector != X86_AC)
        return SEM_FAULT;
    if (!is_canonical(v, i, off, count))
        return native_mem_fault(v, i);
    return store_selected(v, i, off, data, mask, count, 1);
}

int native_exec_maskmov(struct vcpu *v, const struct insn *i) {
    static const uint8_t movd_eax_mm0[] = {0x0f, 0x7e, 0xc0};
    uint8_t data[32], mask[32];
    struct encoding f;
    unsigned reg, rm;
    int rc;

    if (!native_parse(i, &f))
        return sem_fault(v, X86_UD);
    reg = (f.modrm >> 3 & 7) | f.r;
    rm = (f.modrm & 7) | f.b;
    if (f.pp == 0 && !f.vex) {
        rc = native_check_mmx(v);
        /* Any MMX instruction: pending x87 exceptions, top of stack 0, tags valid. */
        if (!rc)
            rc = native_run_bytes(v, movd_eax_mm0, sizeof(movd_eax_mm0));
        if (rc)
            return rc;
        vec_park(v);
        __builtin_memcpy(data, v->vec + IMG_ST + 16 * (reg & 7), 8);
        __builtin_memcpy(mask, v->vec + IMG_ST + 16 * (rm & 7), 8);
        return store_bytes(v, i, data, mask, 8);
    }
    rc = f.vex ? native_check_avx(v) : native_check_sse(v);
    if (rc)
        return rc;
    vec_park(v);
    ymm_get(v, narrow_reg(i, reg), data);
    ymm_get(v, narrow_reg(i, rm), mask);
    return store_bytes(v, i, data, mask, 16);
}

/* --- vmaskmovps, vmaskmovpd, vpmaskmovd, vpmaskmovq --- */

static int load_selected(struct vcpu *v, const struct insn *i, uint64_t off,
                         uint8_t data[32], const uint8_t *mask, unsigned count,
                         unsigned size) {
    __builtin_memset(data, 0, 32);
    for (unsigned k = 0; k < count; k++) {
        struct gva at;
        uint64_t val;

        if (!selected(mask, k, size))
            continue;
        if (element_linear(v, i, off + k * size, size, false, &at))
            return SEM_FAULT;
        if (mmu_load(v, at, size, &val))
            return native_mem_fault(v, i);
        native_copy(data + k * size, &val, size);
    }
    return 0;
}

int native_exec_vmaskmov(struct vcpu *v, const struct insn *i) {
    uint8_t data[32], mask[32];
    struct encoding f;
    unsigned size, reg, count, len;
    bool wr;
    uint64_t off;
    uint8_t *p;
    int rc = native_check_avx(v);

    if (rc)
        return rc;
    if (!native_parse(i, &f) || !f.is_mem)
        return sem_fault(v, X86_UD);
    wr = (f.opcode & 0xfe) == 0x2e || f.opcode == 0x8e;
    size = (f.opcode & 0xf0) == 0x80 ? (f.w ? 8 : 4) : (f.opcode & 1 ? 8 : 4);
    len = f.l ? 32 : 16;
    count = len / size;
    off = sem_ea(v, i);
    if ((wr ? v->seg_flat_w : v->seg_flat_r) & (1u << i->mem.seg)) {
        p = mmu_hit(v->mmu->data, gva((off + v->segbase[i->mem.seg]) & v->lin_mask), len,
                    wr ? MMU_WRITE : MMU_READ);
        if (p)
            return native_run_at(v, i, p);
    }
    reg = narrow_reg(i, (f.modrm >> 3 & 7) | f.r);
    vec_park(v);
    ymm_get(v, narrow_reg(i, f.vvvv), mask);
    if (wr) {
        ymm_get(v, reg, data);
        return store_selected(v, i, off, data, mask, count, size);
    }
    rc = load_selected(v, i, off, data, mask, count, size);
    if (rc)
        return rc;
    vec_park(v); /* a device may have been asked */
    ymm_set(v, reg, data);
    clear_above(v, reg);
    return SEM_NEXT;
}

/* --- gathers --- */

struct gather {
    unsigned dest, index, mask; /* vector registers */
    unsigned esize, isize, count;
    uint8_t data[32], idx[32], sel[32];
};

static void gather_shape(const struct encoding *f, const struct insn *i,
                         struct gather *g) {
    unsigned len = f->l ? 32 : 16;

    g->esize = f->w ? 8 : 4;
    g->isize = f->opcode & 1 ? 8 : 4;
    g->count = len / (g->esize > g->isize ? g->esize : g->isize);
    g->dest = narrow_reg(i, (f->modrm >> 3 & 7) | f->r);
    g->index = narrow_reg(i, (f->sib >> 3 & 7) | f->x);
    g->mask = narrow_reg(i, f->vvvv);
}

static int gather_element(struct vcpu *v, const struct insn *i, struct gather *g,
                          unsigned k) {
    uint64_t idx, off, val;
    int32_t idx32;
    int rc;

    if (g->isize == 8) {
        __builtin_memcpy(&idx, g->idx + 8 * k, 8);
    } else {
        __builtin_memcpy(&idx32, g->idx + 4 * k, 4);
        idx = (uint64_t)(int64_t)idx32;
    }
    off = v->gpr[i->mem.base] + (idx << i->mem.scale) + (uint64_t)i->mem.disp;
    rc = sem_load(v, i->mem.seg, off & offset_mask(i), g->esize, &val);
    if (rc)
        return native_mem_fault(v, i);
    native_copy(g->data + k * g->esize, &val, g->esize);
    return 0;
}

/*
 * Elements complete in order, from the lowest. A fault leaves those before it done and
 * their masks cleared, so that the restarted instruction goes on behind them.
 */
int native_exec_gather(struct vcpu *v, const struct insn *i) {
    struct encoding f;
    struct gather g;
    int rc = native_check_avx(v);

    if (rc)
        return rc;
    if (!native_parse(i, &f) || !f.is_mem || (f.modrm & 7) != 4 || i->addrsize == 2)
        return sem_fault(v, X86_UD);
    gather_shape(&f, i, &g);
    if (g.dest == g.index || g.dest == g.mask || g.index == g.mask)
        return sem_fault(v, X86_UD);
    vec_park(v);
    ymm_get(v, g.dest, g.data);
    ymm_get(v, g.index, g.idx);
    ymm_get(v, g.mask, g.sel);
    for (unsigned k = 0; k < g.count; k++) {
        if (selected(g.sel, k, g.esize))
            rc = gather_element(v, i, &g, k);
        if (rc)
            break;
        native_clear(g.sel + k * g.esize, g.esize);
    }
    vec_park(v);
    if (!rc) {
        native_clear(g.data + g.count * g.esize, 32 - g.count * g.esize);
        __builtin_memset(g.sel, 0, sizeof(g.sel));
        clear_above(v, g.dest);
        clear_above(v, g.mask);
    }
    ymm_set(v, g.dest, g.data);
    ymm_set(v, g.mask, g.sel);
    return rc;
}
