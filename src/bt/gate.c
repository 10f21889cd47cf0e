/*
 * System calls and their returns without C.
 *
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT mostly do what they did the last time: between
 * the same two keys, with the same segments, from flat code to flat code of the same
 * width. bt_transfer() does the first one through its function in sem/ and keeps what
 * came out in tr_vcpu.gate[], and what it holds for in vcpu.gate_key[]; the gate, a stub,
 * does the same again as long as it holds:
 *   - translated code runs under the key that it was kept for;
 *   - nothing waits, and the flags before and after have no TF, RF and AC;
 *   - what it depends on besides has not been written: vcpu_forget_gates().
 * In all other cases it changes nothing and goes on to the transfer stub.
 *
 * Gates are for 64-bit code (SYSCALL, and SYSRET to 64-bit code) and for 32-bit code
 * outside long mode (SYSENTER, SYSEXIT). A counted run has none.
 *
 * AMD64 APM volume 3, "SYSCALL", "SYSRET", "SYSENTER", "SYSEXIT", and sem/syscall.c.
 */
#include "bt/bt_int.h"
#include "cpu/cpuid.h"

#define GS_GATE(n, field)                                                                \
    (GS_TR(gate) + (n) * sizeof(struct tr_gate_state) +                                  \
     offsetof(struct tr_gate_state, field))
#define GS_SEG(s, field)                                                                 \
    (GS(seg) + (s) * sizeof(struct segment) + offsetof(struct segment, field))

/* Flags that a gate leaves to C. */
#define FLAGS_SELDOM (X86_FL_TF | X86_FL_RF | X86_FL_AC | X86_FL_VM)
/* What SYSRET takes from R11, but for those and RF. */
#define SYSRET_FLAGS                                                                     \
    (X86_FL_STATUS | X86_FL_IF | X86_FL_DF | X86_FL_IOPL | X86_FL_NT | X86_FL_VIF |      \
     X86_FL_VIP | X86_FL_ID)

_Static_assert(offsetof(struct segment, sel) == 0 && offsetof(struct segment, ar) == 2 &&
                   offsetof(struct segment, limit) == 4,
               "selector, rights and limit are one word of a gate");
_Static_assert(GS(cpl) == GS(mode) + 1 && GS(irq_shadow) == GS(mode) + 2 &&
                   GS(halted) == GS(mode) + 3,
               "written together");

static uint64_t first_word(const struct segment *s) {
    return s->sel | (uint64_t)s->ar << 16 | (uint64_t)s->limit << 32;
}

void bt_gate_keep(struct bt *bt, const struct insn *i, uint32_t from) {
    struct vcpu *v = bt->v;
    enum tr_gate n = tr_gate_of(i, v->mode);
    struct tr_gate_state *g = &tr_vcpu(v)->gate[n];
    bool in = n == TR_GATE_SYSCALL || n == TR_GATE_SYSENTER;
    uint32_t clear = X86_FL_IF;

    if (n == TR_GATE_NONE || (v->mode == MODE_32 && v->long_mode) || bt_is_away(v))
        return;
    if (n == TR_GATE_SYSCALL)
        clear = (uint32_t)v->sfmask & ~X86_FL_ONE;
    v->gate_key[n] = from;
    *g = (struct tr_gate_state){
        .keep = ~clear,
        .select = tr_vcpu(v)->select,
        .jump = tr_vcpu(v)->jump,
        .cs = first_word(&v->seg[SEG_CS]),
        .ss = first_word(&v->seg[SEG_SS]),
        .target = v->rip,
        .slot = in ? (uint8_t **)tr_vcpu(v)->jump + tc_jump_slot(v->rip) : NULL,
        .sp = v->gpr[REG_RSP],
    };
}

/* --- the stubs --- */

/* movzx reg, word gs:[off] */
static void gs_movzx16(struct emit *e, unsigned reg, size_t off) {
    const uint8_t opcode[] = {0x65, (uint8_t)(0x40 | (reg >> 3) << 2), 0x0f,
                              0xb7, (uint8_t)(0x04 | (reg & 7) << 3),  0x25};

    e_bytes(e, opcode, sizeof(opcode));
    e32(e, (uint32_t)off);
}

/* cmp dword gs:[off], 0 */
static void gs_is_zero(struct emit *e, size_t off) {
    static const uint8_t opcode[] = {0x65, 0x83, 0x3c, 0x25};

    e_bytes(e, opcode, sizeof(opcode));
    e32(e, (uint32_t)off);
    e8(e, 0);
}

static void gs_copy(struct emit *e, size_t to, size_t from) {
    e_gs(e, W64, OPC_MOV_R_RM, T1, from);
    e_gs(e, W64, OPC_MOV_RM_R, T1, to);
}

/* Goes to the transfer stub, with T0 as it came, when the condition holds. */
static void seldom(const struct bt *bt, struct emit *e, unsigned cond) {
    e_jcc(e, cond, bt->sh->env.stub.transfer);
}

static void emit_checks(const struct bt *bt, struct emit *e, enum tr_gate n) {
    gs_is_zero(e, GS(events));
    seldom(bt, e, CC_NE);
    e_gs(e, W32, OPC_MOV_R_RM, T1, GS(rflags));
    e_test_imm(e, T1, FLAGS_SELDOM);
    seldom(bt, e, CC_NE);
    e_gs(e, W32, OPC_MOV_R_RM, T1, GS_TR(key));
    e_gs(e, W32, OPC_CMP_R_RM, T1, GS(gate_key) + 4 * n);
    seldom(bt, e, CC_NE);
}

/* T1 holds the flags to be. Spoils both. */
static void emit_write_flags(struct emit *e) {
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS(rflags));
    e_mov_rr(e, W32, T0, T1);
    e_shift(e, W32, EXT_SHL, T0, 8);
    e_shift(e, W32, EXT_SHR, T1, 11);
    e_ri(e, W32, EXT_AND, T1, 1);
    e_rr(e, W32, OPC_OR_R_RM, T0, T1);
    e8(e, 0x66);
    e_gs(e, W32, OPC_MOV_RM_R, T0, GS_TR(flags));
}

/* Segments, level, banks, the jump table and whose it is. */
static void emit_cross(const struct bt *bt, struct emit *e, enum tr_gate n) {
    bool user = n == TR_GATE_SYSRET || n == TR_GATE_SYSEXIT;
    bool wide = n == TR_GATE_SYSCALL || n == TR_GATE_SYSRET;

    gs_copy(e, GS_SEG(SEG_CS, sel), GS_GATE(n, cs));
    e_gs_imm(e, W64, GS_SEG(SEG_CS, base), 0);
    e_gs(e, W64, OPC_MOV_R_RM, T1, GS_GATE(n, ss));
    if (n == TR_GATE_SYSRET && cpuid_is_amd(bt->v->cpuid)) {
        e8(e, 0x66); /* the selector alone */
        e_gs(e, W32, OPC_MOV_RM_R, T1, GS_SEG(SEG_SS, sel));
    } else {
        e_gs(e, W64, OPC_MOV_RM_R, T1, GS_SEG(SEG_SS, sel));
        e_gs_imm(e, W64, GS_SEG(SEG_SS, base), 0);
    }
    e_gs_imm(e, W32, GS(mode), (wide ? MODE_64 : MODE_32) | (user ? 3 << 8 : 0));
    gs_copy(e, GS(shadow.bank), user ? GS(shadow.bank_user) : GS(shadow.bank_super));
    e_gs(e, W64, OPC_MOV_R_RM, T0, GS(mmu));
    e_gs(e, W64, OPC_MOV_R_RM, T1, user ? GS(shadow.code_user) : GS(shadow.code_super));
    e_rm(e, W64, OPC_MOV_RM_R, T1, T0, offsetof(struct mmu, code));
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS(shadow.code));
    gs_copy(e, GS_TR(select), GS_GATE(n, select));
    gs_copy(e, GS_TR(jump), GS_GATE(n, jump));
    e_mov_imm(e, T1, 1);
    e_gs(e, W64, OPC_ADD_RM_R, T1, GS_TR(gates));
}

/* To where the gate leads. */
static void emit_in(struct emit *e, enum tr_gate n) {
    e_gs(e, W64, OPC_MOV_R_RM, T0, GS_GATE(n, target));
    e_gs(e, W64, OPC_MOV_R_RM, T1, GS_GATE(n, slot));
    e_jmp_mem(e, T1);
}

/* To the address in REG. */
static void emit_out(struct emit *e, int w, unsigned reg) {
    e_mov_rr(e, w, T0, reg);
    e_movzx16(e, T1, T0);
    e_shift(e, W32, EXT_SHL, T1, 3);
    e_gs(e, W64, OPC_ADD_R_RM, T1, GS_TR(jump));
    e_jmp_mem(e, T1);
}

static void emit_syscall(const struct bt *bt, struct emit *e) {
    const uint8_t movzx_ecx[] = {0x41, 0x0f, 0xb6, 0x4e, offsetof(struct insn, len)};

    emit_checks(bt, e, TR_GATE_SYSCALL);
    e_bytes(e, movzx_ecx, sizeof(movzx_ecx)); /* byte [T0 + len] */
    e_gs(e, W64, OPC_ADD_R_RM, REG_RCX, GS(rip));
    gs_movzx16(e, REG_R11, GS_TR(flags));
    e_mov_rr(e, W32, T1, REG_R11);
    e_shift(e, W32, EXT_SHR, T1, 8);
    e_ri(e, W32, EXT_AND, T1, X86_FL_STATUS & 0xff);
    e_ri(e, W32, EXT_AND, REG_R11, 1);
    e_shift(e, W32, EXT_SHL, REG_R11, 11);
    e_rr(e, W32, OPC_OR_R_RM, T1, REG_R11);
    e_gs(e, W32, OPC_MOV_R_RM, REG_R11, GS(rflags));
    e_ri(e, W32, EXT_AND, REG_R11, (int32_t)~X86_FL_STATUS);
    e_rr(e, W32, OPC_OR_R_RM, REG_R11, T1);
    e_mov_rr(e, W32, T1, REG_R11);
    e_gs(e, W32, OPC_AND_R_RM, T1, GS_GATE(TR_GATE_SYSCALL, keep));
    emit_write_flags(e);
    emit_cross(bt, e, TR_GATE_SYSCALL);
    emit_in(e, TR_GATE_SYSCALL);
}

static void emit_sysret(const struct bt *bt, struct emit *e) {
    emit_checks(bt, e, TR_GATE_SYSRET);
    e_test_imm(e, REG_R11, FLAGS_SELDOM & ~X86_FL_RF);
    seldom(bt, e, CC_NE);
    e_mov_rr(e, W64, T1, REG_RCX); /* in the lower half: canonical */
    e_shift(e, W64, EXT_SHR, T1, 47);
    seldom(bt, e, CC_NE);
    e_mov_rr(e, W32, T1, REG_R11);
    e_ri(e, W32, EXT_AND, T1, SYSRET_FLAGS);
    e_ri(e, W32, EXT_OR, T1, X86_FL_ONE);
    emit_write_flags(e);
    emit_cross(bt, e, TR_GATE_SYSRET);
    emit_out(e, W64, REG_RCX);
}

static void emit_sysenter(const struct bt *bt, struct emit *e) {
    emit_checks(bt, e, TR_GATE_SYSENTER);
    e_gs(e, W32, OPC_MOV_R_RM, T1, GS(rflags));
    e_gs(e, W32, OPC_AND_R_RM, T1, GS_GATE(TR_GATE_SYSENTER, keep));
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS(rflags));
    emit_cross(bt, e, TR_GATE_SYSENTER);
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSP, GS_GATE(TR_GATE_SYSENTER, sp));
    emit_in(e, TR_GATE_SYSENTER);
}

static void emit_sysexit(const struct bt *bt, struct emit *e) {
    emit_checks(bt, e, TR_GATE_SYSEXIT);
    emit_cross(bt, e, TR_GATE_SYSEXIT);
    e_mov_rr(e, W32, REG_RSP, REG_RCX);
    emit_out(e, W32, REG_RDX);
}

void bt_emit_gates(struct bt *bt, struct emit *e) {
    static void (*const emit[])(const struct bt *bt, struct emit *e) = {
        [TR_GATE_SYSCALL] = emit_syscall,
        [TR_GATE_SYSRET] = emit_sysret,
        [TR_GATE_SYSENTER] = emit_sysenter,
        [TR_GATE_SYSEXIT] = emit_sysexit,
    };

    for (unsigned n = 0; n < ARRAY_SIZE(emit); n++) {
        bt->sh->env.stub.gate[n] = e_here(e);
        emit[n](bt, e);
    }
}
