/*
 * Vector state as a whole: FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and
 * XRSTORS, between guest memory and the parked image.
 *
 * Components: x87 (0), SSE (1), AVX (2), opmask registers (5), upper halves of zmm0 to
 * zmm15 (6), zmm16 to zmm31 (7). The standard format has them where the host's CPU has
 * them, the compacted one without gaps. Outside 64-bit mode only registers 0..7 are saved
 * and restored. The x87 pointers come from the vCPU, never from the host; AMD's CPUs
 * save them only with an exception pending. No supervisor component exists (IA32_XSS is
 * 0).
 *
 * Stores: the whole range is probed for writing before the first byte changes.
 * AMD64 APM volume 2, "Saving Media and x87 Execution Unit State"; Intel SDM volume 1,
 * "Managing State Using the XSAVE Feature Set".
 */
#include "cpu/cpuid.h"
#include "sem/native/native_int.h"
#include "sem/segment_int.h"

#define X87 1ull
#define SSE 2ull
#define AVX 4ull
#define COMPACT (1ull << 63)
#define FCW_INIT 0x37fu
#define MXCSR_INIT 0x1f80u

struct header {
    uint64_t xstate_bv, xcomp_bv, reserved[6];
};

static unsigned xmm_len(const struct vcpu *v) {
    return v->mode == MODE_64 ? 256 : 128;
}

/* --- x87 pointers in and out of a legacy area --- */

/* AMD's CPUs do not save them without a pending exception: they save zeros if they have
 * XSAVEERPTR, and leave the area as it is otherwise. AMD64 APM volume 3, "FXSAVE"; CPUID
 * Fn8000_0008_EBX. */
static bool pointers_kept_back(const struct vcpu *v) {
    return cpuid_is_amd(v->cpuid) && !(img16(v, IMG_FSW) & FSW_ES);
}

static bool pointers_left(const struct vcpu *v) {
    return pointers_kept_back(v) && !cpuid_has(v->cpuid, CPUID_F_XSAVEERPTR);
}

/* REX.W (only in 64-bit mode) selects 64-bit pointers, otherwise 32 bits and a selector.
 */
static void pointers_store(const struct vcpu *v, const struct insn *i, uint8_t *area) {
    uint16_t fop = v->fop & 0x7ff;

    if (pointers_kept_back(v)) {
        __builtin_memset(area + IMG_FOP, 0, IMG_MXCSR - IMG_FOP);
        return;
    }
    __builtin_memcpy(area + IMG_FOP, &fop, 2);
    __builtin_memcpy(area + IMG_FIP, &v->fip, 8);
    __builtin_memcpy(area + IMG_FDP, &v->fdp, 8);
    if (!(i->flags & INSN_REX_W)) {
        uint32_t fcs = v->fcs, fds = v->fds;

        __builtin_memcpy(area + IMG_FIP + 4, &fcs, 4);
        __builtin_memcpy(area + IMG_FDP + 4, &fds, 4);
    }
}

/* The status word has been loaded. */
static void pointers_load(struct vcpu *v, const struct insn *i, const uint8_t *area) {
    if (pointers_left(v))
        return;
    __builtin_memcpy(&v->fop, area + IMG_FOP, 2);
    v->fop &= 0x7ff;
    __builtin_memcpy(&v->fip, area + IMG_FIP, 8);
    __builtin_memcpy(&v->fdp, area + IMG_FDP, 8);
    if (i->flags & INSN_REX_W) {
        v->fcs = v->fds = 0;
        return;
    }
    v->fcs = (uint16_t)(v->fip >> 32);
    v->fds = (uint16_t)(v->fdp >> 32);
    v->fip = (uint32_t)v->fip;
    v->fdp = (uint32_t)v->fdp;
}

/* --- components of the parked image --- */

static void load_x87(struct vcpu *v, const struct insn *i, const uint8_t *area) {
    uint16_t fcw, fsw;

    __builtin_memcpy(v->vec + IMG_ST, area + IMG_ST, 128);
    for (unsigned st = 0; st < 8; st++) /* reserved */
        __builtin_memset(v->vec + IMG_ST + 16 * st + 10, 0, 6);
    __builtin_memcpy(&fcw, area + IMG_FCW, 2);
    __builtin_memcpy(&fsw, area + IMG_FSW, 2);
    fcw = (fcw & 0x1f3f) | 0x40;
    img_set16(v, IMG_FCW, fcw);
    img_set16(v, IMG_FSW, fsw_summary(fsw, fcw));
    img_set16(v, IMG_FTW, area[IMG_FTW]);
    native_sync_pointers(v);
    pointers_load(v, i, area);
    native_set_pointers(v);
    img_touch(v, X87);
}

static void init_x87(struct vcpu *v) {
    __builtin_memset(v->vec, 0, IMG_MXCSR);
    __builtin_memset(v->vec + IMG_ST, 0, 128);
    img_set16(v, IMG_FCW, FCW_INIT);
    v->fip = v->fdp = 0;
    v->fcs = v->fds = v->fop = 0;
    native_set_pointers(v);
    img_set64(v, IMG_HEADER, img64(v, IMG_HEADER) & ~X87);
}

/* The registers 0..7 or 0..15 of SSE; AREA NULL: initial. */
static void set_sse(struct vcpu *v, const uint8_t *area) {
    unsigned len = xmm_len(v);

    if (area) {
        __builtin_memcpy(v->vec + IMG_XMM, area + IMG_XMM, len);
        img_touch(v, SSE);
        return;
    }
    __builtin_memset(v->vec + IMG_XMM, 0, len);
    if (len == 256)
        img_set64(v, IMG_HEADER, img64(v, IMG_HEADER) & ~SSE);
}

/* --- components beyond SSE, by number --- */

/* How much of it the current mode has. Intel SDM volume 1, "Processor Tracking" and the
 * sections after it. */
static unsigned part_len(const struct vcpu *v, unsigned n) {
    if (v->mode == MODE_64 || n == XC_OPMASK)
        return vec_size(n);
    return n == XC_HI16 ? 0 : vec_size(n) / 2;
}

/* Where it is in an area with the components of XCOMP; 0: in the standard format. */
static unsigned part_at(uint64_t xcomp, unsigned n) {
    unsigned at = IMG_HEADER_END;

    if (!xcomp)
        return vec_offset(n);
    for (unsigned k = 2; k < n; k++)
        if (xcomp & (1ull << k))
            at += vec_size(k);
    return at;
}

/* How long an area is that holds the components of WHAT. */
static unsigned area_len(uint64_t xcomp, uint64_t what) {
    unsigned len = IMG_HEADER_END;

    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if ((what & (1ull << n)) && len < part_at(xcomp, n) + vec_size(n))
            len = part_at(xcomp, n) + vec_size(n);
    return len;
}

/* From NULL: initial. */
static void set_part(struct vcpu *v, unsigned n, const uint8_t *from) {
    uint8_t *to = v->vec + vec_offset(n);
    unsigned len = part_len(v, n);

    if (from) {
        native_copy(to, from, len);
        img_touch(v, 1ull << n);
        return;
    }
    native_clear(to, len);
    if (len == vec_size(n))
        img_set64(v, IMG_HEADER, img64(v, IMG_HEADER) & ~(1ull << n));
}

static bool all_zero(const struct vcpu *v, unsigned at, unsigned len) {
    uint64_t any = 0;

    for (unsigned n = 0; n < len && !any; n += 8)
        any = img64(v, at + n);
    return !any;
}

/* What is not in its initial configuration. The host may call a component used whose
 * values are initial again, depending on what else it has executed (Intel SDM volume 1,
 * "Processor Tracking of XSAVE-Managed State"); here engines must agree. */
static uint64_t in_use(const struct vcpu *v) {
    uint64_t bv = img64(v, IMG_HEADER) & v->vec_mask;

    if ((bv & X87) && img16(v, IMG_FCW) == FCW_INIT && !img16(v, IMG_FSW) &&
        !img16(v, IMG_FTW) && all_zero(v, IMG_ST, 128))
        bv &= ~X87;
    if ((bv & SSE) && all_zero(v, IMG_XMM, 256))
        bv &= ~SSE;
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if ((bv & (1ull << n)) && all_zero(v, vec_offset(n), vec_size(n)))
            bv &= ~(1ull << n);
    return (v->fip | v->fdp | v->fop) && !pointers_kept_back(v) ? bv | X87 : bv;
}

static bool mxcsr_valid(const struct vcpu *v, const uint8_t *area) {
    uint32_t mxcsr;

    __builtin_memcpy(&mxcsr, area + IMG_MXCSR, 4);
    return !(mxcsr & ~img32(v, IMG_MXCSR_MASK));
}

/* --- common checks --- */

static int operand_at(struct vcpu *v, const struct insn *i, unsigned len, bool write,
                      unsigned align, struct gva *at) {
    if (sem_linear(v, i->mem.seg, sem_ea(v, i), len, write, at))
        return SEM_FAULT;
    if (!(at->a & (align - 1)))
        return 0;
    sem_fault_err(v, X86_GP, 0);
    /* #SS of a non-canonical place comes before #GP. */
    return sem_canonical(v, at->a) ? SEM_FAULT : native_mem_fault(v, i);
}

static struct gva plus(const struct vcpu *v, struct gva at, unsigned off) {
    return gva((at.a + off) & v->lin_mask);
}

static int probe(struct vcpu *v, const struct insn *i, struct gva at, unsigned len) {
    int rc = mmu_probe(v, at, len, MMU_WRITE, false);

    return rc ? native_mem_fault(v, i) : 0;
}

/* --- FXSAVE, FXRSTOR --- */

int native_exec_fxsave(struct vcpu *v, const struct insn *i) {
    uint8_t area[IMG_LEGACY_END];
    struct gva at;
    int rc = native_check_x87(v);

    if (!rc)
        rc = operand_at(v, i, 512, true, 16, &at);
    if (!rc)
        rc = probe(v, i, at, 512);
    if (rc)
        return rc;
    vec_park(v);
    native_sync_pointers(v);
    __builtin_memcpy(area, v->vec, sizeof(area));
    pointers_store(v, i, area);
    if (pointers_left(v))
        rc = mmu_read_slow(v, plus(v, at, IMG_FOP), area + IMG_FOP, IMG_MXCSR - IMG_FOP,
                           false);
    if (!rc)
        rc = mmu_write_slow(v, at, area, IMG_XMM + xmm_len(v), false);
    return rc ? native_mem_fault(v, i) : SEM_NEXT;
}

int native_exec_fxrstor(struct vcpu *v, const struct insn *i) {
    uint8_t area[512];
    struct gva at;
    int rc = native_check_x87(v);

    if (!rc)
        rc = operand_at(v, i, sizeof(area), false, 16, &at);
    if (rc)
        return rc;
    vec_park(v);
    rc = mmu_read_slow(v, at, area, sizeof(area), false);
    if (rc)
        return native_mem_fault(v, i);
    vec_park(v);
    if (!mxcsr_valid(v, area))
        return sem_fault_err(v, X86_GP, 0);
    load_x87(v, i, area);
    __builtin_memcpy(v->vec + IMG_MXCSR, area + IMG_MXCSR, 4);
    set_sse(v, area);
    return SEM_NEXT;
}

/* --- the XSAVE family --- */

/* XSAVES and XRSTORS are checked for privilege here too: sem's binding may not know. */
static int check_xsave(struct vcpu *v, bool supervisor) {
    if (!(v->cr4 & X86_CR4_OSXSAVE))
        return sem_fault(v, X86_UD);
    if (supervisor && v->cpl)
        return sem_fault_err(v, X86_GP, 0);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

static uint64_t requested(const struct vcpu *v) {
    return (v->gpr[REG_RDX] << 32 | (uint32_t)v->gpr[REG_RAX]) & v->xcr0;
}

/* Writes the components of WHAT into an area of XCOMP's format; MXCSR as told. The range
 * has been probed. */
static int write_parts(struct vcpu *v, const struct insn *i, struct gva at,
                       uint64_t xcomp, uint64_t what, bool mxcsr) {
    uint8_t area[IMG_LEGACY_END];
    const struct {
        bool wanted;
        unsigned off, len;
    } parts[] = {
        {what & X87, 0, pointers_left(v) ? IMG_FOP : IMG_MXCSR},
        {mxcsr, IMG_MXCSR, 8},
        {what & X87, IMG_ST, 128},
        {what & SSE, IMG_XMM, xmm_len(v)},
    };
    int rc = 0;

    __builtin_memcpy(area, v->vec, sizeof(area));
    pointers_store(v, i, area);
    for (unsigned k = 0; k < ARRAY_SIZE(parts) && !rc; k++)
        if (parts[k].wanted)
            rc = mmu_write_slow(v, plus(v, at, parts[k].off), area + parts[k].off,
                                parts[k].len, false);
    for (unsigned n = 2; n < VEC_COMPONENTS && !rc; n++)
        if (what & (1ull << n))
            rc = mmu_write_slow(v, plus(v, at, part_at(xcomp, n)), v->vec + vec_offset(n),
                                part_len(v, n), false);
    return rc ? native_mem_fault(v, i) : 0;
}

int native_exec_xsave(struct vcpu *v, const struct insn *i) {
    bool compact = i->op == OP_xsavec || i->op == OP_xsaves;
    struct header h = {0};
    uint64_t rfbm, used;
    unsigned len;
    struct gva at;
    int rc = check_xsave(v, i->op == OP_xsaves);

    if (rc)
        return rc;
    rfbm = requested(v);
    h.xcomp_bv = compact ? rfbm | COMPACT : 0;
    len = area_len(h.xcomp_bv, rfbm);
    rc = operand_at(v, i, len, true, 64, &at);
    if (!rc)
        rc = probe(v, i, at, len);
    if (rc)
        return rc;
    vec_park(v);
    native_sync_pointers(v);
    used = in_use(v);
    if (compact) {
        if (img32(v, IMG_MXCSR) != MXCSR_INIT)
            used |= SSE;
        h.xstate_bv = rfbm & used;
        rc = write_parts(v, i, at, h.xcomp_bv, rfbm & used, rfbm & used & SSE);
        if (!rc)
            rc = mmu_write_slow(v, plus(v, at, IMG_HEADER), &h, 16, false);
    } else {
        uint64_t what = i->op == OP_xsaveopt ? rfbm & used : rfbm;

        rc = mmu_read_slow(v, plus(v, at, IMG_HEADER), &h.xstate_bv, 8, false);
        if (!rc)
            rc = write_parts(v, i, at, 0, what, rfbm & (SSE | AVX));
        h.xstate_bv = (h.xstate_bv & ~rfbm) | (rfbm & used);
        if (!rc)
            rc = mmu_write_slow(v, plus(v, at, IMG_HEADER), &h.xstate_bv, 8, false);
    }
    return rc ? native_mem_fault(v, i) : SEM_NEXT;
}

/* Is the header one that this instruction and this CPU model take? */
static bool header_valid(const struct vcpu *v, const struct insn *i,
                         const struct header *h) {
    if (!(h->xcomp_bv & COMPACT))
        return i->op != OP_xrstors && !h->xcomp_bv && !h->reserved[0] &&
               !(h->xstate_bv & ~v->xcr0);
    if (!cpuid_has(v->cpuid, CPUID_F_XSAVEC))
        return false;
    for (unsigned k = 0; k < ARRAY_SIZE(h->reserved); k++)
        if (h->reserved[k])
            return false;
    /* XCOMP_BV's bit 63 is no component that XSTATE_BV could name. */
    return !(h->xcomp_bv & ~COMPACT & ~v->xcr0) &&
           !(h->xstate_bv & ~(h->xcomp_bv & ~COMPACT));
}

static void restore(struct vcpu *v, const struct insn *i, const uint8_t *area,
                    uint64_t rfbm, const struct header *h) {
    bool compact = h->xcomp_bv & COMPACT;
    uint64_t bv = h->xstate_bv;

    if (rfbm & X87) {
        if (bv & X87)
            load_x87(v, i, area);
        else
            init_x87(v);
    }
    if (rfbm & SSE)
        set_sse(v, bv & SSE ? area : NULL);
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if (rfbm & (1ull << n))
            set_part(v, n, bv & (1ull << n) ? area + part_at(h->xcomp_bv, n) : NULL);
    if (compact ? rfbm & bv & SSE : rfbm & (SSE | AVX))
        __builtin_memcpy(v->vec + IMG_MXCSR, area + IMG_MXCSR, 4);
    else if (compact && (rfbm & SSE))
        img_set32(v, IMG_MXCSR, MXCSR_INIT);
}

/* Reads the area as far as the components of RFBM lie in it. */
static int read_area(struct vcpu *v, const struct insn *i, uint64_t rfbm, uint8_t *area,
                     struct header *h) {
    unsigned len;
    struct gva at;
    int rc = operand_at(v, i, IMG_HEADER_END, false, 64, &at);

    if (rc)
        return rc;
    vec_park(v);
    if (mmu_read_slow(v, at, area, IMG_HEADER_END, false))
        return native_mem_fault(v, i);
    __builtin_memcpy(h, area + IMG_HEADER, sizeof(*h));
    if (h->xcomp_bv & COMPACT)
        rfbm &= h->xcomp_bv;
    len = area_len(h->xcomp_bv & COMPACT ? h->xcomp_bv & (COMPACT | v->xcr0) : 0, rfbm);
    rc = operand_at(v, i, len, false, 64, &at);
    if (rc)
        return rc;
    if (mmu_read_slow(v, plus(v, at, IMG_HEADER_END), area + IMG_HEADER_END,
                      len - IMG_HEADER_END, false))
        return native_mem_fault(v, i);
    return 0;
}

int native_exec_xrstor(struct vcpu *v, const struct insn *i) {
    uint8_t area[VCPU_XSAVE_SIZE];
    struct header h;
    uint64_t rfbm;
    int rc = check_xsave(v, i->op == OP_xrstors);

    if (rc)
        return rc;
    rfbm = requested(v);
    rc = read_area(v, i, rfbm, area, &h);
    if (rc)
        return rc;
    vec_park(v);
    if (!header_valid(v, i, &h))
        return sem_fault_err(v, X86_GP, 0);
    if ((h.xcomp_bv & COMPACT ? rfbm & h.xstate_bv & SSE : rfbm & (SSE | AVX)) &&
        !mxcsr_valid(v, area))
        return sem_fault_err(v, X86_GP, 0);
    restore(v, i, area, rfbm, &h);
    return SEM_NEXT;
}
