/*
 * Expansions of system instructions: what is simple enough to be done in the cache, on
 * struct vcpu itself. Privileged ones at CPL 0 only; everywhere else they are callouts.
 */
#include "tr/tr_int.h"

/* AMD64 APM volume 3, RDTSC and RDTSCP: the counter to edx:eax, zero-extended. */
void tr_xl_rdtsc(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;

    if (!(t->key & KEY_TSC) && !MUTANT(TSC)) {
        tr_callout(t, i);
        return;
    }
    tr_flags_save(t);
    e8(e, 0x0f);
    e8(e, 0x31);
    e_shift(e, W64, EXT_SHL, REG_RDX, 32);
    e_rr(e, W64, OPC_OR_R_RM, REG_RAX, REG_RDX);
    e_gs(e, W64, OPC_ADD_R_RM, REG_RAX, GS(tsc_base));
    e_mov_rr(e, W64, REG_RDX, REG_RAX);
    e_shift(e, W64, EXT_SHR, REG_RDX, 32);
    e_mov_rr(e, W32, REG_RAX, REG_RAX);
    if (i->op == OP_rdtscp)
        e_gs(e, W32, OPC_MOV_R_RM, REG_RCX, GS(tsc_aux));
}

/* --- privileged instructions that are simple: CPL 0 only, else a callout --- */

/* and, or, test, cmp dword gs:[off], imm32: 81 /EXT */
static void gs_imm32(struct emit *e, unsigned ext, size_t off, uint32_t imm) {
    const uint8_t opcode[] = {0x65, 0x81, (uint8_t)(0x04 | ext << 3), 0x25};

    e_bytes(e, opcode, sizeof(opcode));
    e32(e, (uint32_t)off);
    e32(e, imm);
}

static bool cpl0(struct tr *t, const struct insn *i) {
    if ((!(t->key & KEY_USER) && (t->key & KEY_CPL0)) || MUTANT(CPL0))
        return true;
    tr_callout(t, i);
    return false;
}

void tr_xl_cli(struct tr *t, const struct insn *i) {
    if (!cpl0(t, i))
        return;
    tr_flags_save(t);
    gs_imm32(&t->e, EXT_AND, GS(rflags), ~X86_FL_IF);
}

void tr_xl_cld(struct tr *t, const struct insn *i) {
    tr_flags_save(t);
    if (i->op == OP_cld)
        gs_imm32(&t->e, EXT_AND, GS(rflags), ~X86_FL_DF);
    else
        gs_imm32(&t->e, EXT_OR, GS(rflags), X86_FL_DF);
}

/* With no event waiting there is nothing for the shadow to hold back: the instruction
 * after STI is in this TU, and polls come with branches. */
void tr_xl_sti(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    uint8_t *quiet, *done;

    if (t->k + 1 == t->n) {
        tr_callout(t, i);
        return;
    }
    if (!cpl0(t, i))
        return;
    tr_flags_to_mem(t);
    gs_imm32(e, EXT_CMP, GS(events), 0);
    quiet = e_jcc_fwd(e, CC_E);
    tr_callout(t, i);
    done = e_jmp_fwd(e);
    e_land(e, quiet);
    gs_imm32(e, EXT_OR, GS(rflags), X86_FL_IF);
    e_land(e, done);
}

void tr_xl_clac(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    bool on = i->op == OP_stac;

    if (!cpl0(t, i))
        return;
    tr_forget_held(t); /* what was checked may have been the user's */
    tr_flags_save(t);
    if (on)
        gs_imm32(e, EXT_OR, GS(rflags), X86_FL_AC);
    else
        gs_imm32(e, EXT_AND, GS(rflags), ~X86_FL_AC);
    e_gs(e, W64, OPC_MOV_R_RM, T0, on ? GS(shadow.bank_ac) : GS(shadow.bank_super));
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(shadow.bank));
}

void tr_xl_swapgs(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;

    if (KEY_MODE(t->key) != MODE_64) {
        tr_callout(t, i);
        return;
    }
    if (!cpl0(t, i))
        return;
    tr_forget_held(t);
    e_gs(e, W64, OPC_MOV_R_RM, T0, GS(seg[SEG_GS].base));
    e_gs(e, W64, OPC_MOV_R_RM, T1, GS(kernel_gs_base));
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(kernel_gs_base));
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS(seg[SEG_GS].base));
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS(segbase[SEG_GS]));
}

/* movzx T1d, byte gs:[off] */
static void movzx_gs8(struct emit *e, size_t off) {
    static const uint8_t opcode[] = {0x65, 0x44, 0x0f, 0xb6, 0x04 | (T1 & 7) << 3, 0x25};

    e_bytes(e, opcode, sizeof(opcode));
    e32(e, (uint32_t)off);
}

/* Outside virtual-8086 mode PUSHF pushes what is there but RF and VM. */
void tr_xl_pushf(struct tr *t, const struct insn *i) {
    const uint32_t status = X86_FL_STATUS;
    struct emit *e = &t->e;

    if (!tr_stack_ok(t, i) || i->opsize == 2) {
        tr_callout(t, i);
        return;
    }
    tr_lose_t0(t);
    tr_flags_to_mem(t);
    int32_t off = tr_push_slot(t, i->opsize);
    movzx_gs8(e, GS_TR(flags));
    e_shift(e, W32, EXT_SHL, T1, 11);
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(tmp));
    movzx_gs8(e, GS_TR(flags) + 1);
    e_ri(e, W32, EXT_AND, T1, (int32_t)(status & 0xff));
    e_gs(e, W32, OPC_OR_R_RM, T1, GS_TR(tmp));
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(tmp));
    e_gs(e, W32, OPC_MOV_R_RM, T1, GS(rflags));
    e_ri(e, W32, EXT_AND, T1, (int32_t) ~(status | X86_FL_RF | X86_FL_VM));
    e_gs(e, W32, OPC_OR_R_RM, T1, GS_TR(tmp));
    tr_store(t, i->opsize, T1, off);
    tr_move_sp(t, -(int32_t)i->opsize);
}

/* What POPF may change at CPL 0 besides the status flags and IF: that is C's to see to.
 */
#define POPF_SELDOM                                                                      \
    (X86_FL_TF | X86_FL_DF | X86_FL_IOPL | X86_FL_NT | X86_FL_AC | X86_FL_ID)

/* T0 holds the flags to be: IF to vcpu.rflags, the status flags to their slot. */
static void write_flags(struct tr *t) {
    struct emit *e = &t->e;

    e_mov_rr(e, W32, T1, T0);
    e_ri(e, W32, EXT_AND, T1, X86_FL_IF);
    gs_imm32(e, EXT_AND, GS(rflags), ~X86_FL_IF);
    e_gs(e, W32, OPC_OR_RM_R, T1, GS(rflags));
    e_mov_rr(e, W32, T1, T0);
    e_shift(e, W32, EXT_SHR, T1, 11);
    e_ri(e, W32, EXT_AND, T1, 1);
    e_shift(e, W32, EXT_SHL, T0, 8);
    e_rr(e, W32, OPC_OR_R_RM, T1, T0);
    e8(e, 0x66);
    e_gs(e, W32, OPC_MOV_RM_R, T1, GS_TR(flags));
    t->place = FLAGS_MEM;
}

/* POPF sets IF at once, without a shadow: with an event waiting it is a callout. */
void tr_xl_popf(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    uint8_t *seldom, *event, *off_now, *done;

    if (!tr_stack_ok(t, i) || i->opsize == 2) {
        tr_callout(t, i);
        return;
    }
    if (!cpl0(t, i))
        return;
    tr_lose_t0(t);
    tr_flags_to_mem(t);
    int32_t off = tr_pop_slot(t, i->opsize);
    tr_load(t, i->opsize, T0, off);
    tr_lose_t0(t);
    e_mov_rr(e, W32, T1, T0);
    e_gs(e, W32, OPC_XOR_R_RM, T1, GS(rflags));
    e_test_imm(e, T1, POPF_SELDOM);
    seldom = e_jcc_fwd(e, CC_NE);
    e_test_imm(e, T0, X86_FL_IF);
    off_now = e_jcc_fwd(e, CC_E);
    gs_imm32(e, EXT_CMP, GS(events), 0);
    event = e_jcc_fwd(e, CC_NE);
    e_land(e, off_now);
    write_flags(t);
    tr_move_sp(t, (int32_t)i->opsize);
    done = e_jmp_fwd(e);
    e_land(e, seldom);
    e_land(e, event);
    tr_callout(t, i);
    e_land(e, done);
}

/* CR8 is the local APIC's. */
void tr_xl_mov_from_cr(struct tr *t, const struct insn *i) {
    static const uint16_t offset[] = {
        [0] = GS(cr0), [2] = GS(cr2), [3] = GS(cr3), [4] = GS(cr4)};
    unsigned n = i->opnd[1].reg, dst = i->opnd[0].reg;

    if (n > 4 || n == 1 || tr_in_memory(t, dst)) {
        tr_callout(t, i);
        return;
    }
    if (!cpl0(t, i))
        return;
    e_gs(&t->e, KEY_MODE(t->key) == MODE_64 ? W64 : W32, OPC_MOV_R_RM, tr_host(t, dst),
         offset[n]);
}

void tr_xl_mov_from_seg(struct tr *t, const struct insn *i) {
    unsigned dst = tr_host(t, i->opnd[0].reg);
    size_t off =
        GS(seg) + i->opnd[1].reg * sizeof(struct segment) + offsetof(struct segment, sel);

    if (tr_has_mem(i) || i->opnd[0].kind != OPND_REG || i->opnd[0].size == 2 ||
        tr_in_memory(t, i->opnd[0].reg)) {
        tr_callout(t, i);
        return;
    }
    e8(&t->e, 0x65); /* movzx r32, word gs:[off] */
    if (dst >= 8)
        e8(&t->e, 0x44);
    e8(&t->e, 0x0f);
    e8(&t->e, 0xb7);
    e8(&t->e, 0x04 | (dst & 7) << 3);
    e8(&t->e, 0x25);
    e32(&t->e, (uint32_t)off);
}
