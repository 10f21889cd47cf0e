/*
 * AVX-512's instructions that touch memory element by element under an opmask, so that
 * only the selected elements may fault: masked loads and stores, expanding and
 * compressing ones, gathers, scatters.
 *
 * The host runs a masked instruction on guest memory itself when the whole operand is
 * plain memory of one page. Otherwise which bytes count is for the host's CPU to say,
 * whatever the instruction:
 *
 *   - a store is run twice on memory of ours, over zeros and over ones: the bytes that
 * are the same afterwards were written. These alone are then checked and stored;
 *   - a load is run on a copy of what may be read, placed at the end or the start of a
 * page between guard pages, so that the bytes that may not be read lie in these. Where
 * the host faults is where the guest does.
 *
 * Gathers and scatters go through the parked image and one access an element, from the
 * lowest; a fault leaves those before it done and their mask bits cleared. Intel SDM
 * volume 2, "Intel AVX-512 Encoding" and the instructions' pages.
 */
#include "cpu/cpuid.h"
#include "sem/native_int.h"
#include "sem/segment_int.h"

#define OPERAND_MAX 64u

/* --- where the operand lies --- */

/* Byte at OFF of I's segment: *AT, or SEM_FAULT. Masked accesses raise no #AC. */
static int byte_linear(struct vcpu *v, const struct insn *i, uint64_t off, bool write,
                       struct gva *at) {
    unsigned seg = i->mem.seg;

    *at = gva((off + v->segbase[seg]) & v->lin_mask);
    return sem_linear(v, seg, off, 1, write, at) && v->fault.vector != X86_AC ? SEM_FAULT
                                                                              : 0;
}

/* May the byte be accessed? If not, the fault is in v->fault. */
static bool byte_ok(struct vcpu *v, const struct insn *i, uint64_t off,
                    enum mmu_access acc, struct gva *at) {
    if (byte_linear(v, i, off, acc == MMU_WRITE, at))
        return false;
    if (!mmu_probe(v, *at, 1, acc, false))
        return true;
    native_mem_fault(v, i);
    return false;
}

static uint64_t byte_off(const struct vcpu *v, uint64_t off, unsigned n) {
    return v->mode == MODE_64 ? off + n : (uint32_t)(off + n);
}

/* Which of the operand's bytes may be accessed: *FROM to *TO, at its start or its end.
 * What lies otherwise is left out, though it might be accessed: only an odd limit
 * together with an absent page makes such. */
static void accessible(struct vcpu *v, const struct insn *i, uint64_t off,
                       enum mmu_access acc, unsigned *from, unsigned *to) {
    unsigned size = i->mem.size, n, start;
    struct gva at;

    for (n = 0; n < size && !byte_ok(v, i, byte_off(v, off, n), acc, &at); n++)
        ;
    for (start = n; n < size && byte_ok(v, i, byte_off(v, off, n), acc, &at); n++)
        ;
    *from = start;
    *to = n;
    if (start && n < size)
        *from = *to = size;
    if ((i->flags & INSN_ALIGNED) && (*from || *to < size))
        *from = *to = size;
}

/* A place for an operand of which the bytes FROM to TO may be accessed, and others not.
 */
static uint8_t *place(const struct insn *i, struct gva linear, unsigned from,
                      unsigned to) {
    uint8_t *page = native_guarded_page();

    if (from >= to)
        return page + 4096 + (linear.a & 63);
    if (from)
        return page - from;
    return to < i->mem.size ? page + 4096 - to : page + (linear.a & 63);
}

/* The host touched byte N, which must not be accessed: the fault is that of this byte. */
static int touched(struct vcpu *v, const struct insn *i, uint64_t off, uint64_t n,
                   enum mmu_access acc) {
    struct gva at;

    for (unsigned k = 0; k < i->mem.size; k++)
        if (!byte_ok(v, i, byte_off(v, off, (unsigned)(n + k) % i->mem.size), acc, &at))
            return SEM_FAULT;
    return sem_fault_err(v, X86_GP, 0); /* none: it has gone away meanwhile */
}

/* Runs I with its operand there. 0, or SEM_FAULT. */
static int run_there(struct vcpu *v, const struct insn *i, uint64_t off, uint8_t *operand,
                     enum mmu_access acc) {
    uint64_t addr;
    int rc = native_run_guarded(v, i, operand, &addr);

    if (rc != NATIVE_TOUCHED)
        return rc ? SEM_FAULT : 0;
    return touched(v, i, off, addr - (uint64_t)(uintptr_t)operand, acc);
}

/* --- loads --- */

static int masked_load(struct vcpu *v, const struct insn *i, uint64_t off,
                       struct gva linear) {
    unsigned from, to;
    uint8_t *operand;
    struct gva at;

    accessible(v, i, off, MMU_READ, &from, &to);
    operand = place(i, linear, from, to);
    if (from < to) {
        if (byte_linear(v, i, byte_off(v, off, from), false, &at))
            return SEM_FAULT;
        if (mmu_read_slow(v, at, operand + from, to - from, false))
            return native_mem_fault(v, i);
    }
    return run_there(v, i, off, operand, MMU_READ) ? SEM_FAULT : SEM_NEXT;
}

/* --- stores --- */

/* Runs the store over bytes FILL; what is there afterwards into OUT. */
static int store_over(struct vcpu *v, const struct insn *i, uint64_t off,
                      uint8_t *operand, unsigned from, unsigned to, uint8_t fill,
                      uint8_t *out) {
    int rc;

    for (unsigned n = from; n < to; n++)
        operand[n] = fill;
    rc = run_there(v, i, off, operand, MMU_WRITE);
    for (unsigned n = from; n < to; n++)
        out[n] = operand[n];
    return rc;
}

/* Stores those of the bytes FROM to TO that are the same in OUT and TWIN, run by run. */
static int store_runs(struct vcpu *v, const struct insn *i, uint64_t off, unsigned from,
                      unsigned to, const uint8_t *out, const uint8_t *twin) {
    for (unsigned n = from, end; n < to; n = end) {
        struct gva at;

        end = n + 1;
        if (out[n] != twin[n])
            continue;
        while (end < to && out[end] == twin[end])
            end++;
        if (byte_linear(v, i, byte_off(v, off, n), true, &at))
            return SEM_FAULT;
        if (mmu_write_slow(v, at, out + n, end - n, false))
            return native_mem_fault(v, i);
    }
    return 0;
}

static int masked_store(struct vcpu *v, const struct insn *i, uint64_t off,
                        struct gva linear) {
    uint8_t out[OPERAND_MAX], twin[OPERAND_MAX], *operand;
    unsigned from, to;
    int rc;

    accessible(v, i, off, MMU_WRITE, &from, &to);
    operand = place(i, linear, from, to);
    rc = store_over(v, i, off, operand, from, to, 0, out);
    if (!rc)
        rc = store_over(v, i, off, operand, from, to, 0xff, twin);
    if (!rc)
        rc = store_runs(v, i, off, from, to, out, twin);
    return rc ? SEM_FAULT : SEM_NEXT;
}

/* Those that ask for alignment raise #GP before any other fault of the operand. Whether
 * they do so with nothing selected is the host's to say; the operand does not count then.
 */
static int misaligned(struct vcpu *v, const struct insn *i, struct gva linear) {
    uint64_t addr;
    int rc = native_run_guarded(v, i, native_guarded_page() + (linear.a & 63), &addr);

    return rc ? SEM_FAULT : SEM_NEXT;
}

int native_exec_evex_masked(struct vcpu *v, const struct insn *i) {
    bool wr = i->mem.access & OPND_WRITE;
    uint64_t off;
    struct gva at;
    uint8_t *p;
    int rc = native_check_avx512(v);

    if (rc)
        return rc;
    off = sem_ea(v, i);
    at = gva((off + v->segbase[i->mem.seg]) & v->lin_mask);
    if ((i->flags & INSN_ALIGNED) && (at.a & (i->mem.size - 1u)))
        return misaligned(v, i, at);
    if ((wr ? v->seg_flat_w : v->seg_flat_r) & (1u << i->mem.seg)) {
        p = mmu_hit(v->mmu->data, at, i->mem.size, wr ? MMU_WRITE : MMU_READ);
        if (p) {
            v->cnt->native_runs++;
            rc = native_run_at(v, i, p);
            return rc ? rc : SEM_NEXT;
        }
    }
    return wr ? masked_store(v, i, off, at) : masked_load(v, i, off, at);
}

/* --- vector and opmask registers in the parked image --- */

static void zmm_get(const struct vcpu *v, unsigned reg, uint8_t out[64]) {
    if (reg >= 16) {
        __builtin_memcpy(out, v->vec + vec_offset(XC_HI16) + 64 * (reg - 16), 64);
        return;
    }
    __builtin_memcpy(out, v->vec + IMG_XMM + 16 * reg, 16);
    __builtin_memcpy(out + 16, v->vec + IMG_YMMH + 16 * reg, 16);
    __builtin_memcpy(out + 32, v->vec + vec_offset(XC_ZMMH) + 32 * reg, 32);
}

static void zmm_set(struct vcpu *v, unsigned reg, const uint8_t in[64]) {
    if (reg >= 16) {
        __builtin_memcpy(v->vec + vec_offset(XC_HI16) + 64 * (reg - 16), in, 64);
        img_touch(v, X86_XCR0_HI16_ZMM);
        return;
    }
    __builtin_memcpy(v->vec + IMG_XMM + 16 * reg, in, 16);
    __builtin_memcpy(v->vec + IMG_YMMH + 16 * reg, in + 16, 16);
    __builtin_memcpy(v->vec + vec_offset(XC_ZMMH) + 32 * reg, in + 32, 32);
    img_touch(v, X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_ZMM_HI256);
}

static uint64_t k_get(const struct vcpu *v, unsigned reg) {
    return img64(v, vec_offset(XC_OPMASK) + 8 * reg);
}

static void k_set(struct vcpu *v, unsigned reg, uint64_t x) {
    img_set64(v, vec_offset(XC_OPMASK) + 8 * reg, x);
    img_touch(v, X86_XCR0_OPMASK);
}

/* --- gathers and scatters --- */

struct elements {
    unsigned data, index, opmask; /* registers */
    unsigned len, esize, isize, count;
    uint64_t sel;
    uint8_t val[64], idx[64];
};

static unsigned narrow_reg(const struct insn *i, unsigned reg) {
    return i->mode == MODE_64 ? reg & 31 : reg & 7;
}

/* False: #UD. */
static bool shape(const struct insn *i, struct elements *e) {
    struct native_form f;

    if (!native_parse(i, &f) || !f.evex || !f.is_mem || (f.modrm & 7) != 4 ||
        i->addrsize == 2 || f.len > 2 || f.z || f.bcast || !f.opmask)
        return false;
    e->len = 16u << f.len;
    e->esize = f.w ? 8 : 4;
    e->isize = f.opcode & 1 ? 8 : 4;
    e->count = e->len / (e->esize > e->isize ? e->esize : e->isize);
    e->data = narrow_reg(i, (f.modrm >> 3 & 7u) | f.r);
    e->index = narrow_reg(i, (f.sib >> 3 & 7u) | f.x | (f.vvvv & 16u));
    e->opmask = f.opmask;
    return true;
}

static uint64_t element_off(const struct vcpu *v, const struct insn *i,
                            const struct elements *e, unsigned k) {
    uint64_t idx;
    int32_t idx32;

    if (e->isize == 8) {
        __builtin_memcpy(&idx, e->idx + 8 * k, 8);
    } else {
        __builtin_memcpy(&idx32, e->idx + 4 * k, 4);
        idx = (uint64_t)(int64_t)idx32;
    }
    return (v->gpr[i->mem.base] + (idx << i->mem.scale) + (uint64_t)i->mem.disp) &
           sem_addr_mask(i->addrsize);
}

static void fetch(struct vcpu *v, struct elements *e) {
    vec_park(v);
    zmm_get(v, e->data, e->val);
    zmm_get(v, e->index, e->idx);
    e->sel = k_get(v, e->opmask);
}

int native_exec_evex_gather(struct vcpu *v, const struct insn *i) {
    struct elements e;
    bool done = false;
    int rc = native_check_avx512(v);

    if (rc)
        return rc;
    if (!shape(i, &e) || e.data == e.index)
        return sem_fault(v, X86_UD);
    fetch(v, &e);
    for (unsigned k = 0; k < e.count && !rc; k++) {
        uint64_t val;

        if (!(e.sel >> k & 1))
            continue;
        rc = sem_load(v, i->mem.seg, element_off(v, i, &e, k), e.esize, &val);
        if (rc)
            break;
        native_copy(e.val + k * e.esize, &val, e.esize);
        e.sel &= ~(1ull << k);
        done = true;
    }
    vec_park(v); /* a device may have been asked */
    /* What lies above is cleared at the end; what is above the vector's length on AMD's
     * CPUs (seen on Zen 4) with the first element. */
    if (rc && done && cpuid_is_amd(v->cpuid))
        native_clear(e.val + e.len, 64 - e.len);
    if (!rc) {
        native_clear(e.val + e.count * e.esize, 64 - e.count * e.esize);
        e.sel = 0;
    }
    zmm_set(v, e.data, e.val);
    k_set(v, e.opmask, e.sel);
    return rc ? native_mem_fault(v, i) : SEM_NEXT;
}

int native_exec_scatter(struct vcpu *v, const struct insn *i) {
    struct elements e;
    int rc = native_check_avx512(v);

    if (rc)
        return rc;
    if (!shape(i, &e))
        return sem_fault(v, X86_UD);
    fetch(v, &e);
    for (unsigned k = 0; k < e.count && !rc; k++) {
        uint64_t val = 0;

        if (!(e.sel >> k & 1))
            continue;
        native_copy(&val, e.val + k * e.esize, e.esize);
        rc = sem_store(v, i->mem.seg, element_off(v, i, &e, k), e.esize, val);
        if (!rc)
            e.sel &= ~(1ull << k);
    }
    vec_park(v);
    k_set(v, e.opmask, rc ? e.sel : 0);
    return rc ? native_mem_fault(v, i) : SEM_NEXT;
}
