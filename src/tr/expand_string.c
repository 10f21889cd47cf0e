/*
 * Expansions of MOVS, STOS and of bit strings.
 *
 * A repeated MOVS or STOS that goes upwards and stays in one page of each operand is the
 * host's own, on host addresses. These are in the guest's registers then: nothing may
 * fault there (no anchors, which the guest's address might match unused), and if
 * something does, it is a bug (struct site, `ours`). Whatever else it may be (DF set, a
 * page crossing, a count of more than a page) is found out before anything has changed,
 * and is a callout.
 */
#include "tr/tr_int.h"
#include "x86/cr.h"

/* test dword gs:[off], imm32 */
static void gs_test(struct emit *e, size_t off, uint32_t imm) {
    static const uint8_t opcode[] = {0x65, 0xf7, 0x04, 0x25};

    e_bytes(e, opcode, sizeof(opcode));
    e32(e, (uint32_t)off);
    e32(e, imm);
}

static struct tr_ref pointer(const struct tr *t, const struct insn *i, unsigned reg,
                             unsigned seg) {
    bool based = t->key >> KEY_BASE_SHIFT & 1u << seg;

    return (struct tr_ref){.base = (uint8_t)reg,
                           .index = REG_ZERO,
                           .seg = based ? (uint8_t)seg : TR_SEG_FLAT,
                           .addrsize = i->addrsize};
}

static bool string_ok(const struct tr *t, const struct insn *i) {
    int w = KEY_MODE(t->key) == MODE_64 ? 8 : 4;

    if (i->addrsize != w || i->rep == REP_REPNE ||
        !(t->key >> KEY_FLAT_W_SHIFT & 1u << SEG_ES))
        return false;
    return i->op == OP_stos || (t->key >> KEY_FLAT_R_SHIFT & 1u << i->mem.seg);
}

static unsigned shift_of(const struct insn *i) {
    return (unsigned)__builtin_ctz(i->opsize);
}

/* To the callout when the RCX elements at host address T0 go beyond its page. */
static void check_run(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;

    e_mov_rr(e, W32, T1, T0);
    e_ri(e, W32, EXT_AND, T1, 4095);
    e_lea(e, W64, T1, T1, REG_RCX, MUTATE(RUN_SCALE, shift_of(i), 0), 0);
    e_ri(e, W64, EXT_CMP, T1, 4096 + MUTANT(RUN_LONGER));
    tr_cold_callout(t, e_jcc_fwd(e, MUTATE(RUN_UNCHECKED, CC_A, CC_O)));
}

/* T0 = host address of the element at REF. */
static void element(struct tr *t, const struct insn *i, const struct tr_ref *ref,
                    enum mmu_access acc) {
    tr_ea(t, ref, 0);
    if (i->rep == REP_NONE || MUTANT(REP_ANCHOR))
        tr_lookup_ref(t, ref, i->opsize, acc);
    else
        tr_lookup(t, i->opsize, acc);
}

/* Host addresses come into general registers, or are gone from them. */
static void host_addresses(struct tr *t, bool in) {
    t->ours = in;
    tr_site(t, POLL_NONE, 0);
}

static void host_string(struct tr *t, const struct insn *i, unsigned opcode) {
    struct emit *e = &t->e;

    if (i->opsize == 2)
        e8(e, 0x66);
    e8(e, 0xf3);
    if (i->opsize == 8)
        e8(e, 0x48);
    e8(e, opcode | (i->opsize > 1));
}

static void rep_stos(struct tr *t, const struct insn *i, const struct tr_ref *to) {
    struct emit *e = &t->e;
    int w = i->addrsize == 8 ? W64 : W32;

    element(t, i, to, MUTATE(RUN_READ, MMU_WRITE, MMU_READ));
    check_run(t, i);
    host_addresses(t, true);
    e_mov_rr(e, W64, T1, REG_RDI);
    e_mov_rr(e, W64, REG_RDI, T0);
    host_string(t, i, 0xaa);
    if (!MUTANT(RUN_LEFT_RDI))
        e_rr(e, W64, OPC_SUB_R_RM, REG_RDI, T0);
    e_rr(e, w, OPC_ADD_R_RM, REG_RDI, T1);
    host_addresses(t, false);
}

static void rep_movs(struct tr *t, const struct insn *i, const struct tr_ref *to,
                     const struct tr_ref *from) {
    struct emit *e = &t->e;
    int w = i->addrsize == 8 ? W64 : W32;

    element(t, i, to, MMU_WRITE);
    check_run(t, i);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS_TR(tmp));
    element(t, i, from, MMU_READ);
    check_run(t, i);
    host_addresses(t, true);
    e_gs(e, W64, OPC_MOV_R_RM, T1, GS_TR(tmp));
    e_gs(e, W64, OPC_MOV_RM_R, REG_RDI, GS_TR(tmp));
    e_mov_rr(e, W64, REG_RDI, T1);
    e_gs(e, W64, OPC_MOV_RM_R, REG_RSI, GS_TR(spill[0]));
    e_mov_rr(e, W64, REG_RSI, T0);
    host_string(t, i, 0xa4);
    e_rr(e, W64, OPC_SUB_R_RM, REG_RDI, T1); /* bytes copied */
    if (!MUTANT(RUN_LEFT_RSI))
        e_mov_rr(e, W64, REG_RSI, REG_RDI);
    e_gs(e, w, OPC_ADD_R_RM, REG_RDI, GS_TR(tmp));
    e_gs(e, w, OPC_ADD_R_RM, REG_RSI, GS_TR(spill[0]));
    host_addresses(t, false);
}

/* Not repeated: like MOV, and a step. */
static void one(struct tr *t, const struct insn *i, const struct tr_ref *to,
                const struct tr_ref *from) {
    struct emit *e = &t->e;
    int w = i->addrsize == 8 ? W64 : W32;
    unsigned src = REG_RAX;

    if (i->op == OP_movs) {
        element(t, i, from, MMU_READ);
        tr_load(t, i->opsize, T1, 0);
        e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(tmp));
        src = T1;
    }
    element(t, i, to, MMU_WRITE);
    if (src == T1)
        e_gs(e, W64, OPC_MOV_R_RM, T1, GS_TR(tmp));
    tr_store(t, i->opsize, src, 0);
    e_lea(e, w, REG_RDI, REG_RDI, REG_ZERO, 0, i->opsize);
    if (i->op == OP_movs)
        e_lea(e, w, REG_RSI, REG_RSI, REG_ZERO, 0, i->opsize);
}

void tr_xl_string(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    struct tr_ref to = pointer(t, i, REG_RDI, SEG_ES), from;
    uint8_t *none = NULL;

    if (!string_ok(t, i)) {
        tr_callout(t, i);
        return;
    }
    tr_flags_save(t);
    tr_forget_held(t); /* the callout may do anything */
    gs_test(e, GS(rflags), X86_FL_DF);
    tr_cold_callout(t, e_jcc_fwd(e, CC_NE));
    from = pointer(t, i, REG_RSI, i->op == OP_movs ? i->mem.seg : SEG_DS);
    if (i->rep == REP_NONE) {
        one(t, i, &to, &from);
    } else {
        e_ri(e, W64, EXT_CMP, REG_RCX, 4096 >> shift_of(i));
        tr_cold_callout(t, e_jcc_fwd(e, MUTATE(RUN_COUNT, CC_A, CC_O)));
        e_ri(e, W64, EXT_CMP, REG_RCX, 0);
        none = e_jcc_fwd(e, CC_E);
        if (i->op == OP_stos)
            rep_stos(t, i, &to);
        else
            rep_movs(t, i, &to, &from);
        e_land(e, none);
    }
    tr_cold_callout_end(t);
}

/* BT and kin with a register for the offset: the bit may lie anywhere around the operand.
 * AMD64 APM volume 3, "BT". The bit's word is loaded and changed in T1: the register form
 * takes the offset modulo the operand's size. With LOCK it is C's where there are other
 * vCPUs. */
void tr_xl_bit_string(struct tr *t, const struct insn *i) {
    static const uint8_t opcode[] = {
        [0] = 0xa3, /* bt, bts, btr, btc: r/m, r */
        [1] = 0xab,
        [2] = 0xb3,
        [3] = 0xbb,
    };
    struct emit *e = &t->e;
    unsigned which = i->op == OP_bt ? 0 : i->op == OP_bts ? 1 : i->op == OP_btr ? 2 : 3;
    unsigned guest = i->opnd[1].reg, bit = tr_host(t, guest), size = i->opsize;
    int w = size == 8 ? W64 : W32;
    struct tr_ref ref = tr_ref_mem(t, i, tr_va(t));
    enum mmu_access acc = which ? MMU_WRITE : MMU_READ;

    if (((i->flags & INSN_LOCK) && t->env->smp) || size == 2 || tr_in_memory(t, guest) ||
        i->addrsize != (w ? 8 : i->addrsize) ||
        (KEY_MODE(t->key) == MODE_64 && i->addrsize != 8) || !tr_mem_ok(t, i)) {
        tr_callout(t, i);
        return;
    }
    tr_lose_t0(t);
    tr_flags_save(t);
    tr_ea(t, &ref, ref.disp);
    if (w) {
        e_mov_rr(e, W64, T1, bit);
        e_shift(e, W64, EXT_SAR, T1, 6);
        e_lea(e, W64, T0, T0, T1, 3, 0);
    } else {
        e_rr(e, W64, OPC_MOVSXD, T1, bit);
        e_shift(e, W64, EXT_SAR, T1, 5);
        e_lea(e, KEY_MODE(t->key) == MODE_64 ? W64 : W32, T0, T0, T1, 2, 0);
    }
    tr_lookup_ref(t, &ref, size, acc);
    tr_copy_flags(t, i);
    e_rm(e, w, OPC_MOV_R_RM, T1, T0, 0);
    e_rr2(e, w, opcode[which], bit, T1);
    if (which)
        e_rm(e, w, OPC_MOV_RM_R, T1, T0, 0);
    t->place = FLAGS_REGS;
}
