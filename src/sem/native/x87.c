/*
 * The x87 environment in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR, and FWAIT.
 *
 * Built from the parked image and the pointers that the vCPU tracks, since the host's
 * pointers are addresses of ours. Four layouts: 16 or 32 bits by operand size (64-bit
 * mode uses the 32-bit one), protected or real (also virtual-8086).
 * AMD64 APM volume 2, "x87 Environment" figures; Intel SDM volume 1, "Saving the x87
 * FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE".
 */
#include "sem/native/native_int.h"

#define REGS_LEN 80u

struct env {
    uint16_t fcw, fsw, ftw; /* ftw: full tag word */
    uint16_t fop, fcs, fds;
    uint64_t fip, fdp;
};

/* REX.W overrides the operand-size prefix. AMD64 APM volume 3, "REX Prefix". */
static bool is_16bit(const struct insn *i) {
    if (i->flags & INSN_REX_W)
        return false;
    return (i->mode == MODE_16) != !!(i->flags & INSN_PREFIX66);
}

static bool is_real_format(const struct vcpu *v) {
    return !(v->cr0 & X86_CR0_PE) || (v->rflags & X86_FL_VM);
}

static unsigned env_len(const struct insn *i) {
    return is_16bit(i) ? 14 : 28;
}

/* AMD64 APM volume 1, "x87 Tag Word": 0 valid, 1 zero, 2 special, 3 empty. */
static unsigned tag_of(const struct vcpu *v, unsigned st) {
    uint64_t mantissa = img64(v, IMG_ST + 16 * st);
    uint16_t exponent = img16(v, IMG_ST + 16 * st + 8) & 0x7fff;

    if (exponent == 0x7fff)
        return 2;
    if (exponent == 0)
        return mantissa ? 2 : 1;
    return mantissa >> 63 ? 0 : 2;
}

static uint16_t full_tags(const struct vcpu *v) {
    unsigned top = (img16(v, IMG_FSW) & FSW_TOP) >> FSW_TOP_SHIFT;
    unsigned tags = 0;

    for (unsigned reg = 0; reg < 8; reg++) {
        bool used = v->vec[IMG_FTW] & (1u << reg);

        tags |= (used ? tag_of(v, (reg - top) & 7) : 3) << (2 * reg);
    }
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags) {
    unsigned out = 0;

    for (unsigned reg = 0; reg < 8; reg++)
        if (((tags >> (2 * reg)) & 3) != 3)
            out |= 1u << reg;
    return (uint8_t)out;
}

static void put16(uint8_t *p, uint64_t x) {
    uint16_t y = (uint16_t)x;
    __builtin_memcpy(p, &y, 2);
}

static void put32(uint8_t *p, uint64_t x) {
    uint32_t y = (uint32_t)x;
    __builtin_memcpy(p, &y, 4);
}

static uint16_t get16(const uint8_t *p) {
    uint16_t x;
    __builtin_memcpy(&x, p, 2);
    return x;
}

static uint32_t get32(const uint8_t *p) {
    uint32_t x;
    __builtin_memcpy(&x, p, 4);
    return x;
}

static struct env env_now(const struct vcpu *v) {
    return (struct env){.fcw = img16(v, IMG_FCW),
                        .fsw = img16(v, IMG_FSW),
                        .ftw = full_tags(v),
                        .fop = v->fop,
                        .fcs = v->fcs,
                        .fds = v->fds,
                        .fip = v->fip,
                        .fdp = v->fdp};
}

static void pack16(const struct vcpu *v, const struct env *e, uint8_t *p) {
    bool real = is_real_format(v);
    uint32_t ip = (uint32_t)e->fip + (real ? (uint32_t)e->fcs << 4 : 0);
    uint32_t dp = (uint32_t)e->fdp + (real ? (uint32_t)e->fds << 4 : 0);

    put16(p, e->fcw);
    put16(p + 2, e->fsw);
    put16(p + 4, e->ftw);
    put16(p + 6, ip);
    put16(p + 8, real ? (ip >> 4 & 0xf000) | (e->fop & 0x7ff) : e->fcs);
    put16(p + 10, dp);
    put16(p + 12, real ? dp >> 4 & 0xf000 : e->fds);
}

static void pack32(const struct vcpu *v, const struct env *e, uint8_t *p) {
    bool real = is_real_format(v);
    uint32_t ip = (uint32_t)e->fip + (real ? (uint32_t)e->fcs << 4 : 0);
    uint32_t dp = (uint32_t)e->fdp + (real ? (uint32_t)e->fds << 4 : 0);

    put32(p, 0xffff0000u | e->fcw);
    put32(p + 4, 0xffff0000u | e->fsw);
    put32(p + 8, 0xffff0000u | e->ftw);
    if (real) {
        put32(p + 12, 0xffff0000u | (ip & 0xffff));
        put32(p + 16, (ip >> 4 & 0x0ffff000) | (e->fop & 0x7ff));
        put32(p + 20, 0xffff0000u | (dp & 0xffff));
        put32(p + 24, dp >> 4 & 0x0ffff000);
    } else {
        put32(p + 12, ip);
        put32(p + 16, (uint32_t)(e->fop & 0x7ff) << 16 | e->fcs);
        put32(p + 20, dp);
        put32(p + 24, 0xffff0000u | e->fds);
    }
}

static struct env unpack16(const struct vcpu *v, const uint8_t *p) {
    struct env e = {.fcw = get16(p), .fsw = get16(p + 2), .ftw = get16(p + 4)};

    e.fip = get16(p + 6);
    e.fdp = get16(p + 10);
    if (is_real_format(v)) {
        e.fip |= (uint32_t)(get16(p + 8) & 0xf000) << 4;
        e.fdp |= (uint32_t)(get16(p + 12) & 0xf000) << 4;
        e.fop = get16(p + 8) & 0x7ff;
    } else {
        e.fcs = get16(p + 8);
        e.fds = get16(p + 12);
    }
    return e;
}

static struct env unpack32(const struct vcpu *v, const uint8_t *p) {
    struct env e = {.fcw = get16(p), .fsw = get16(p + 4), .ftw = get16(p + 8)};

    if (is_real_format(v)) {
        e.fip = get16(p + 12) | (get32(p + 16) & 0x0ffff000) << 4;
        e.fdp = get16(p + 20) | (get32(p + 24) & 0x0ffff000) << 4;
        e.fop = get16(p + 16) & 0x7ff;
    } else {
        e.fip = get32(p + 12);
        e.fcs = get16(p + 16);
        e.fop = get16(p + 18) & 0x7ff;
        e.fdp = get32(p + 20);
        e.fds = get16(p + 24);
    }
    return e;
}

static void env_load(struct vcpu *v, const struct insn *i, const uint8_t *p) {
    struct env e = is_16bit(i) ? unpack16(v, p) : unpack32(v, p);

    /* Bit 6 of the control word always reads 1, bits 13..15 and 7 as 0. */
    e.fcw = (e.fcw & 0x1f3f) | 0x40;
    img_set16(v, IMG_FCW, e.fcw);
    img_set16(v, IMG_FSW, fsw_summary(e.fsw, e.fcw));
    img_set16(v, IMG_FTW, abridged_tags(e.ftw));
    v->fip = e.fip;
    v->fdp = e.fdp;
    v->fcs = e.fcs;
    v->fds = e.fds;
    v->fop = e.fop;
    native_set_pointers(v);
    img_touch(v, X86_XCR0_X87);
}

static int operand_at(struct vcpu *v, const struct insn *i, unsigned len, bool write,
                      struct gva *at) {
    return sem_linear(v, i->mem.seg, sem_ea(v, i), len, write, at) ? SEM_FAULT : 0;
}

static int store(struct vcpu *v, const struct insn *i, bool regs, struct env *e) {
    uint8_t buf[28 + REGS_LEN];
    unsigned len = env_len(i);
    struct gva at;
    int rc = native_check_x87(v);

    if (rc)
        return rc;
    vec_park(v);
    native_sync_pointers(v);
    *e = env_now(v);
    if (is_16bit(i))
        pack16(v, e, buf);
    else
        pack32(v, e, buf);
    if (regs)
        for (unsigned st = 0; st < 8; st++, len += 10)
            __builtin_memcpy(buf + len, v->vec + IMG_ST + 16 * st, 10);
    rc = operand_at(v, i, len, true, &at);
    if (rc)
        return rc;
    rc = mmu_write_slow(v, at, buf, len, false);
    return rc ? native_mem_fault(v, i) : 0;
}

static int load(struct vcpu *v, const struct insn *i, bool regs) {
    uint8_t buf[28 + REGS_LEN];
    unsigned env = env_len(i), len = env + (regs ? REGS_LEN : 0);
    struct gva at;
    int rc = native_check_x87(v);

    if (!rc)
        rc = operand_at(v, i, len, false, &at);
    if (rc)
        return rc;
    vec_park(v);
    rc = mmu_read_slow(v, at, buf, len, false);
    if (rc)
        return native_mem_fault(v, i);
    vec_park(v);
    if (regs) {
        for (unsigned st = 0; st < 8; st++)
            __builtin_memcpy(v->vec + IMG_ST + 16 * st, buf + env + 10 * st, 10);
    } else {
        /* The image has ST(0) first: a new top of stack turns it. */
        unsigned old_top = (img16(v, IMG_FSW) & FSW_TOP) >> FSW_TOP_SHIFT;
        unsigned new_top =
            (get16(buf + (is_16bit(i) ? 2 : 4)) & FSW_TOP) >> FSW_TOP_SHIFT;
        uint8_t old[128];

        __builtin_memcpy(old, v->vec + IMG_ST, sizeof(old));
        for (unsigned st = 0; st < 8; st++)
            __builtin_memcpy(v->vec + IMG_ST + 16 * st,
                             old + 16 * ((st + new_top - old_top) & 7), 16);
    }
    env_load(v, i, buf);
    return SEM_NEXT;
}

int native_exec_fnsave(struct vcpu *v, const struct insn *i) {
    struct env e;
    int rc = store(v, i, true, &e);
    uint8_t old[128];
    unsigned top;

    if (rc)
        return rc;
    vec_park(v);
    /* FNINIT leaves the registers' contents where they physically are. */
    top = (e.fsw & FSW_TOP) >> FSW_TOP_SHIFT;
    __builtin_memcpy(old, v->vec + IMG_ST, sizeof(old));
    for (unsigned reg = 0; reg < 8; reg++)
        __builtin_memcpy(v->vec + IMG_ST + 16 * reg, old + 16 * ((reg - top) & 7), 16);
    img_set16(v, IMG_FCW, 0x37f);
    img_set16(v, IMG_FSW, 0);
    img_set16(v, IMG_FTW, 0);
    img_touch(v, X86_XCR0_X87);
    v->fip = v->fdp = 0;
    v->fcs = v->fds = v->fop = 0;
    native_set_pointers(v);
    return SEM_NEXT;
}

int native_exec_fnstenv(struct vcpu *v, const struct insn *i) {
    struct env e;
    int rc = store(v, i, false, &e);

    if (rc)
        return rc;
    vec_park(v);
    e.fcw |= FX_EXCEPTIONS; /* all exceptions are masked afterwards */
    img_set16(v, IMG_FCW, e.fcw);
    img_set16(v, IMG_FSW, fsw_summary(e.fsw, e.fcw));
    img_touch(v, X86_XCR0_X87);
    return SEM_NEXT;
}

/* FRSTOR and FLDENV wait: a pending exception comes first. */
int native_exec_frstor(struct vcpu *v, const struct insn *i) {
    static const uint8_t wait[] = {0x9b};
    int rc = native_check_x87(v);

    if (!rc)
        rc = native_run_bytes(v, wait, sizeof(wait));
    return rc ? rc : load(v, i, true);
}

int native_exec_fldenv(struct vcpu *v, const struct insn *i) {
    static const uint8_t wait[] = {0x9b};
    int rc = native_check_x87(v);

    if (!rc)
        rc = native_run_bytes(v, wait, sizeof(wait));
    return rc ? rc : load(v, i, false);
}

int native_exec_fwait(struct vcpu *v, const struct insn *i) {
    static const uint8_t wait[] = {0x9b};

    if ((v->cr0 & (X86_CR0_MP | X86_CR0_TS)) == (X86_CR0_MP | X86_CR0_TS))
        return sem_fault(v, X86_NM);
    return native_run_bytes(v, wait, sizeof(wait));
}
