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
#include "sem/native/native_int.h"
#include "sem/segment_int.h"

#define OPERAND_MAX 64u

/* --- where the operand lies --- */

/* An operand on its way: the bytes FROM to TO are known to be accessible, at its start or
 * its end; BYTES are their contents, for a load. */
struct masked {
    uint64_t off; /* in I's segment */
    struct gva linear;
    enum mmu_access acc;
    unsigned size, from, to;
    uint8_t bytes[OPERAND_MAX];
};

/* The linear address of byte N, or SEM_FAULT. #AC has been looked at. */
static int byte_linear(struct vcpu *v, const struct insn *i, const struct masked *m,
                       unsigned n, struct gva *at) {
    unsigned seg = i->mem.seg;
    uint64_t off = v->mode == MODE_64 ? m->off + n : (uint32_t)(m->off + n);

    *at = gva((off + v->segbase[seg]) & v->lin_mask);
    if (!sem_linear(v, seg, off, 1, m->acc == MMU_WRITE, at))
        return 0;
    return v->fault.vector == X86_AC ? 0 : SEM_FAULT;
}

/* May byte N be accessed? If not, the fault is in v->fault. */
static bool byte_ok(struct vcpu *v, const struct insn *i, const struct masked *m,
                    unsigned n) {
    struct gva at;

    if (byte_linear(v, i, m, n, &at))
        return false;
    if (!mmu_probe(v, at, 1, m->acc, false))
        return true;
    native_mem_fault(v, i);
    return false;
}

/* Are bytes N and N + 1 neighbours in one page, both inside the segment? */
static bool joined(struct vcpu *v, const struct insn *i, const struct masked *m,
                   unsigned n) {
    struct gva a, b;

    return !byte_linear(v, i, m, n, &a) && !byte_linear(v, i, m, n + 1, &b) &&
           b.a == a.a + 1 && (b.a & 4095);
}

/* The bytes A to B are accessible too. 0, or SEM_FAULT. */
static int add_bytes(struct vcpu *v, const struct insn *i, struct masked *m, unsigned a,
                     unsigned b) {
    struct gva at;

    if (m->acc == MMU_READ) {
        if (byte_linear(v, i, m, a, &at))
            return SEM_FAULT;
        if (mmu_read_slow(v, at, m->bytes + a, b - a, false))
            return native_mem_fault(v, i);
    }
    m->from = m->from == m->to || a < m->from ? a : m->from;
    m->to = b > m->to ? b : m->to;
    return 0;
}

/* An odd limit together with pages of which one is not accessible: more than one page
 * with guards can show. The first byte that cannot be accessed faults. */
static int no_place(struct vcpu *v, const struct insn *i, const struct masked *m) {
    for (unsigned n = 0; n < m->size; n++)
        if (!byte_ok(v, i, m, n))
            return SEM_FAULT;
    return sem_fault_err(v, X86_GP, 0);
}

/* The host touched byte N, which was not known to be accessible. If it is, so is what
 * lies beside it in the page. 0, or SEM_FAULT. */
static int touched(struct vcpu *v, const struct insn *i, struct masked *m, uint64_t n) {
    unsigned a, b;

    if (n >= m->size || (n >= m->from && n < m->to))
        return no_place(v, i, m);
    if (!byte_ok(v, i, m, (unsigned)n))
        return SEM_FAULT;
    for (a = (unsigned)n; a && joined(v, i, m, a - 1);)
        a--;
    for (b = (unsigned)n + 1; b < m->size && joined(v, i, m, b - 1);)
        b++;
    if (m->from < m->to && a != m->to && b != m->from)
        return no_place(v, i, m);
    if (add_bytes(v, i, m, a, b))
        return SEM_FAULT;
    if ((m->from && m->to < m->size) ||
        ((i->flags & INSN_ALIGNED) && m->to - m->from < m->size))
        return no_place(v, i, m);
    return 0;
}

/* A place for it, with what is not known to be accessible on guard pages. */
static uint8_t *place(const struct masked *m) {
    uint8_t *page = native_guarded_page();

    if (m->from == m->to)
        return page + 4096 + (m->linear.a & 63);
    if (m->from)
        return page - m->from;
    return m->to < m->size ? page + 4096 - m->to : page + (m->linear.a & 63);
}

/* Runs I there, over its contents, until it touches nothing that it must not. 0 and
 * *OPERAND, or SEM_FAULT. */
static int run_there(struct vcpu *v, const struct insn *i, struct masked *m,
                     uint8_t **operand) {
    for (;;) {
        uint64_t addr;
        int rc;

        *operand = place(m);
        for (unsigned n = m->from; n < m->to; n++)
            (*operand)[n] = m->bytes[n];
        rc = native_run_guarded(v, i, *operand, &addr);
        if (rc != NATIVE_TOUCHED)
            return rc ? SEM_FAULT : 0;
        if (touched(v, i, m, addr - (uint64_t)(uintptr_t)*operand))
            return SEM_FAULT;
    }
}

/* What the shadow has was accessed before, and costs nothing to access again. */
static int add_known(struct vcpu *v, const struct insn *i, struct masked *m) {
    unsigned seg = i->mem.seg, cut = 4096 - (unsigned)(m->linear.a & 4095);
    struct gva second = gva((m->linear.a + cut) & v->lin_mask);
    bool flat = (m->acc == MMU_WRITE ? v->seg_flat_w : v->seg_flat_r) & (1u << seg);

    if (!flat || cut >= m->size)
        return 0;
    if (mmu_hit(v->mmu->data, m->linear, cut, m->acc) && add_bytes(v, i, m, 0, cut))
        return SEM_FAULT;
    if (mmu_hit(v->mmu->data, second, m->size - cut, m->acc))
        return add_bytes(v, i, m, cut, m->size);
    return 0;
}

static int masked_load(struct vcpu *v, const struct insn *i, struct masked *m) {
    uint8_t *operand;

    if (add_known(v, i, m) || run_there(v, i, m, &operand))
        return SEM_FAULT;
    return SEM_NEXT;
}

/* Stores those bytes that are the same in ONE and OTHER, run by run. */
static int store_runs(struct vcpu *v, const struct insn *i, const struct masked *m,
                      const uint8_t *one, const uint8_t *other) {
    for (unsigned n = m->from, end; n < m->to; n = end) {
        struct gva at;

        end = n + 1;
        if (one[n] != other[n])
            continue;
        while (end < m->to && one[end] == other[end])
            end++;
        if (byte_linear(v, i, m, n, &at))
            return SEM_FAULT;
        if (mmu_write_slow(v, at, one + n, end - n, false))
            return native_mem_fault(v, i);
    }
    return 0;
}

static int masked_store(struct vcpu *v, const struct insn *i, struct masked *m) {
    uint8_t one[OPERAND_MAX], *operand;

    for (unsigned n = 0; n < m->size; n++)
        m->bytes[n] = 0;
    if (add_known(v, i, m) || run_there(v, i, m, &operand))
        return SEM_FAULT;
    for (unsigned n = m->from; n < m->to; n++) {
        one[n] = operand[n];
        m->bytes[n] = 0xff;
    }
    if (run_there(v, i, m, &operand) || store_runs(v, i, m, one, operand))
        return SEM_FAULT;
    return SEM_NEXT;
}

/* Those that ask for alignment raise #GP before any other fault of the operand. Whether
 * they do so with nothing selected is the host's to say; the operand does not count then.
 */
static int misaligned(struct vcpu *v, const struct insn *i, struct gva linear) {
    uint64_t addr;
    int rc = native_run_guarded(v, i, native_guarded_page() + (linear.a & 63), &addr);

    return rc ? SEM_FAULT : SEM_NEXT;
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

/* --- masked operands --- */

/* Does I access its whole operand, whatever is selected? With nothing selected the others
 * touch nothing. The state is put back. */
static bool ignores_mask(struct vcpu *v, const struct insn *i, const struct masked *m) {
    _Alignas(64) uint8_t kept[VCPU_XSAVE_SIZE];
    struct encoding f;
    uint64_t addr;
    bool touches;

    if (!native_parse(i, &f) || !f.opmask)
        return false;
    vec_park(v);
    native_copy(kept, v->vec, sizeof(kept));
    k_set(v, f.opmask, 0);
    touches = native_run_guarded(v, i, place(m), &addr) == NATIVE_TOUCHED;
    vec_park(v);
    native_copy(v->vec, kept, sizeof(kept));
    return touches;
}

/* Is #AC raised, if anything is accessed? Intel SDM volume 2, "Exceptions Type E4", has
 * that of accesses of up to 8 bytes; AMD's CPUs look at each element that is accessed by
 * itself, and at whole operands as ever (seen on Zen 4). */
static bool wants_ac(struct vcpu *v, const struct insn *i, const struct masked *m) {
    struct gva at = m->linear;

    if (!sem_linear(v, i->mem.seg, m->off, m->size, m->acc == MMU_WRITE, &at) ||
        v->fault.vector != X86_AC)
        return false;
    return !cpuid_is_amd(v->cpuid) || (m->linear.a & (i->mem.elem - 1u)) ||
           ignores_mask(v, i, m);
}

/* With all of the operand on guard pages: it is touched, or nothing is selected. */
static int alignment_check(struct vcpu *v, const struct insn *i, const struct masked *m) {
    uint64_t addr;
    int rc = native_run_guarded(v, i, place(m), &addr);

    if (rc == NATIVE_TOUCHED)
        return sem_fault_err(v, X86_AC, 0);
    return rc ? SEM_FAULT : SEM_NEXT;
}

int native_exec_evex_masked(struct vcpu *v, const struct insn *i) {
    bool wr = i->mem.access & OPND_WRITE;
    struct masked m = {.acc = wr ? MMU_WRITE : MMU_READ, .size = i->mem.size};
    uint8_t *p;
    int rc = native_check_avx512(v);

    if (rc)
        return rc;
    m.off = sem_ea(v, i);
    m.linear = gva((m.off + v->segbase[i->mem.seg]) & v->lin_mask);
    if ((i->flags & INSN_ALIGNED) && (m.linear.a & (m.size - 1u)))
        return misaligned(v, i, m.linear);
    if ((wr ? v->seg_flat_w : v->seg_flat_r) & (1u << i->mem.seg)) {
        p = mmu_hit(v->mmu->data, m.linear, m.size, m.acc);
        if (p) {
            v->cnt->native_runs++;
            rc = native_run_at(v, i, p);
            return rc ? rc : SEM_NEXT;
        }
    }
    if (wants_ac(v, i, &m))
        return alignment_check(v, i, &m);
    return wr ? masked_store(v, i, &m) : masked_load(v, i, &m);
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
    struct encoding f;

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
