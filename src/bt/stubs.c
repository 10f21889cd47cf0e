/*
 * The common stubs at the start of the cache: the way in, the ways out, and the callers
 * of C functions. See tr/vcpu.h for the conventions.
 *
 * In C the host's flags and r14, r15 mean nothing to the guest, and the guest's registers
 * are in vcpu.gpr[] as far as each stub says.
 */
#include "bt/bt_int.h"
#include "tr/sequence.h"

static const uint8_t callee_saved[] = {REG_RBX, REG_RBP, REG_R12, REG_R13};
static const uint8_t caller_saved[] = {REG_RAX, REG_RCX, REG_RDX, REG_RSI, REG_RDI,
                                       REG_R8,  REG_R9,  REG_R10, REG_R11, REG_RSP};

static void save(struct emit *e, const uint8_t *regs, size_t n) {
    for (size_t i = 0; i < n; i++)
        e_gs(e, W64, OPC_MOV_RM_R, regs[i], GS_GPR(regs[i]));
}

static void load(struct emit *e, const uint8_t *regs, size_t n) {
    for (size_t i = 0; i < n; i++)
        e_gs(e, W64, OPC_MOV_R_RM, regs[i], GS_GPR(regs[i]));
}

/* push or pop of a host register; only with the host's stack. */
static void push(struct emit *e, unsigned reg) {
    if (reg >= 8)
        e8(e, 0x41);
    e8(e, 0x50 | (reg & 7));
}

static void pop(struct emit *e, unsigned reg) {
    if (reg >= 8)
        e8(e, 0x41);
    e8(e, 0x58 | (reg & 7));
}

/* The C functions that stubs call. Their addresses are at the start of the cache, which
 * is writable nowhere near the vCPU. */
enum callee { CALL_SLOW, CALL_EMULATE, CALL_CALLOUT, CALL_TRANSFER, CALL_FETCH, CALLEES };

static void emit_callees(struct emit *e) {
    const uint64_t fn[CALLEES] = {
        [CALL_SLOW] = (uint64_t)(uintptr_t)bt_slow_access,
        [CALL_EMULATE] = (uint64_t)(uintptr_t)bt_emulate,
        [CALL_CALLOUT] = (uint64_t)(uintptr_t)bt_callout,
        [CALL_TRANSFER] = (uint64_t)(uintptr_t)bt_transfer,
        [CALL_FETCH] = (uint64_t)(uintptr_t)bt_fetch,
    };

    for (unsigned n = 0; n < CALLEES; n++)
        e64(e, fn[n]);
}

/* call [rip + its place] */
static void call(const struct bt *bt, struct emit *e, enum callee n) {
    uint8_t *rel32;

    e8(e, 0xff);
    e8(e, 0x15);
    rel32 = e->p;
    e32(e, 0);
    if (!e->full)
        e_patch(e, rel32, bt->sh->env.code.rx + 8 * n);
}

/* int enter(void *rx): loads the guest and goes to RX. Comes back through leave. */
static void emit_enter(struct bt *bt, struct emit *e) {
    bt->sh->env.stub.enter = e_here(e);
    for (size_t i = 0; i < ARRAY_SIZE(callee_saved); i++)
        push(e, callee_saved[i]);
    push(e, T0);
    push(e, T1);
    e_ri(e, W64, EXT_SUB, REG_RSP, 8); /* calls from stubs are 16-byte aligned */
    e_gs(e, W64, OPC_MOV_RM_R, REG_RSP, GS_TR(host_sp));
    e_mov_rr(e, W64, T0, REG_RDI);
    load(e, callee_saved, ARRAY_SIZE(callee_saved));
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_jmp_reg(e, T0);
}

/*
 * leave: stores all of the guest's registers and returns to C.
 * leave_bare: everything is in vcpu.gpr[] already.
 */
static void emit_leave(struct bt *bt, struct emit *e) {
    bt->sh->env.stub.leave = e_here(e);
    save(e, caller_saved, ARRAY_SIZE(caller_saved));
    save(e, callee_saved, ARRAY_SIZE(callee_saved));
    bt->sh->env.stub.leave_bare = e_here(e);
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSP, GS_TR(host_sp));
    e_ri(e, W64, EXT_ADD, REG_RSP, 8);
    pop(e, T1);
    pop(e, T0);
    for (size_t i = ARRAY_SIZE(callee_saved); i--;)
        pop(e, callee_saved[i]);
    e8(e, 0xc3);
}

/* Back to translated code, at an entry_jump perhaps: T0 is the guest's rip. */
static void resume(struct emit *e) {
    load(e, callee_saved, ARRAY_SIZE(callee_saved));
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_R_RM, T0, GS(rip));
    e_jmp_gs(e, GS_TR(resume));
}

/* emulate: a memory access was refused; those that a C function saves for us are still in
 * the registers. */
static void emit_emulate(struct bt *bt, struct emit *e) {
    uint8_t *out;

    bt->sh->env.stub.emulate = e_here(e);
    save(e, callee_saved, ARRAY_SIZE(callee_saved));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RDI, GS_TR(self));
    call(bt, e, CALL_EMULATE);
    e_rr(e, W64, 0x85, REG_RAX, REG_RAX);
    out = e_jcc_fwd(e, CC_E);
    e_gs(e, W64, OPC_MOV_RM_R, REG_RAX, GS_TR(resume));
    resume(e);
    e_land(e, out);
    e_jmp(e, bt->sh->env.stub.leave_bare);
}

/*
 * slow: T0 is a guest linear address whose inline check failed, T1 where to go on with T0
 * a host pointer, tr_vcpu.site what the access is.
 */
static void emit_slow(struct bt *bt, struct emit *e) {
    uint8_t *out;

    bt->sh->env.stub.slow = e_here(e);
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(resume));
    save(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSP, GS_TR(host_sp));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RDI, GS_TR(self));
    e_mov_rr(e, W64, REG_RSI, T0);
    e_gs(e, W32, OPC_MOV_R_RM, REG_RDX, GS_TR(site));
    e_mov_rr(e, W64, REG_RCX, T1);
    call(bt, e, CALL_SLOW);
    e_rr(e, W64, 0x85, REG_RAX, REG_RAX); /* test */
    out = e_jcc_fwd(e, CC_E);
    e_mov_rr(e, W64, T0, REG_RAX);
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_jmp_gs(e, GS_TR(resume));
    e_land(e, out);
    e_jmp(e, bt->sh->env.stub.emulate);
}

/*
 * anchor: the same, after the check of an anchor failed: looks the address up in the
 * shadow, copies what it finds to the anchor, and goes on. One in many goes the slow way,
 * for C to see who misses (bt/adapt.c).
 */
static void emit_anchor(struct bt *bt, struct emit *e, enum mmu_access acc) {
    static const uint8_t sub_gs[] = {0x65, 0x83, 0x2c, 0x25}; /* sub dword gs:[], imm8 */
    const int32_t tag = (int32_t)(offsetof(struct shadow_entry, tag) + 8 * acc);
    const int32_t mark = (int32_t)(offsetof(struct shadow_entry, tag) + 8 * MMU_EXEC);
    const int32_t anchor = (int32_t)offsetof(struct shadow_bank, anchor);
    uint8_t *slow;

    bt->sh->env.stub.anchor[acc] = e_here(e);
    e_bytes(e, sub_gs, sizeof(sub_gs));
    e32(e, (uint32_t)GS_TR(anchor_left));
    e8(e, 1);
    e_jcc(e, CC_E, bt->sh->env.stub.slow);
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(resume));
    e_gs(e, W64, OPC_MOV_RM_R, REG_RAX, GS_TR(spill[0]));
    e_gs(e, W64, OPC_MOV_RM_R, REG_RCX, GS_TR(spill[1]));
    tr_emit_slot(&bt->sh->env, e, GS(shadow.bank));
    e_rm(e, W64, OPC_MOV_R_RM, REG_RAX, T1, tag);
    e_gs(e, W32, OPC_MOV_R_RM, REG_RCX, GS_TR(site)); /* rcx = 4096 - size */
    e_ri(e, W32, EXT_AND, REG_RCX, 0xfff);
    e_ri(e, W32, EXT_SUB, REG_RCX, 4096);
    e_neg(e, W32, REG_RCX);
    e_rr(e, W64, OPC_SUB_R_RM, T0, REG_RAX);
    e_rr(e, W64, OPC_CMP_R_RM, T0, REG_RCX);
    slow = e_jcc_fwd(e, CC_A);
    e_gs(e, W32, OPC_MOV_R_RM, REG_RCX, GS_TR(site)); /* rcx = the anchor's place */
    e_shift(e, W32, EXT_SHR, REG_RCX, SITE_ANCHOR_SHIFT - 4);
    e_ri(e, W32, EXT_AND, REG_RCX, (SHADOW_ANCHORS - 1) << 4);
    e_gs(e, W64, OPC_ADD_R_RM, REG_RCX, GS(shadow.bank));
    e_rm(e, W64, OPC_MOV_RM_R, REG_RAX, REG_RCX, anchor);
    e_rm(e, W64, OPC_MOV_R_RM, REG_RAX, T1, offsetof(struct shadow_entry, host));
    e_rm(e, W64, OPC_MOV_RM_R, REG_RAX, REG_RCX, anchor + 8);
    e_rr(e, W64, OPC_ADD_R_RM, T0, REG_RAX);
    e_mov_imm(e, REG_RAX, SHADOW_ANCHORED);
    e_rm(e, W64, OPC_MOV_RM_R, REG_RAX, T1, mark);
    e_gs(e, W64, OPC_MOV_R_RM, REG_RCX, GS(shadow.bank));
    e_rm(e, W64, OPC_MOV_RM_R, REG_RAX, REG_RCX,
         (int32_t)offsetof(struct shadow_bank, anchored));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RCX, GS_TR(spill[1]));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RAX, GS_TR(spill[0]));
    e_jmp_gs(e, GS_TR(resume));
    e_land(e, slow);
    e_rr(e, W64, OPC_ADD_R_RM, T0, REG_RAX);
    e_gs(e, W64, OPC_MOV_R_RM, REG_RCX, GS_TR(spill[1]));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RAX, GS_TR(spill[0]));
    e_gs(e, W64, OPC_MOV_R_RM, T1, GS_TR(resume));
    e_jmp(e, bt->sh->env.stub.slow);
}

/* callout: T0 is a struct insn, T1 where to go on, vcpu.rip its address. FLAGS_MEM. */
static void emit_callout(struct bt *bt, struct emit *e) {
    uint8_t *out;

    bt->sh->env.stub.callout = e_here(e);
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(resume));
    save(e, caller_saved, ARRAY_SIZE(caller_saved));
    save(e, callee_saved, ARRAY_SIZE(callee_saved));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSP, GS_TR(host_sp));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RDI, GS_TR(self));
    e_mov_rr(e, W64, REG_RSI, T0);
    call(bt, e, CALL_CALLOUT);
    e_rr(e, W32, 0x85, REG_RAX, REG_RAX);
    out = e_jcc_fwd(e, CC_NE);
    resume(e);
    e_land(e, out);
    e_jmp(e, bt->sh->env.stub.leave_bare);
}

/*
 * transfer: a callout for a system call or its return, which reads and writes few
 * registers: what C saves stays where it is. When there is more to it, it is a callout
 * like others.
 */
static void emit_transfer(struct bt *bt, struct emit *e) {
    uint8_t *more;

    bt->sh->env.stub.transfer = e_here(e);
    save(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSP, GS_TR(host_sp));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RDI, GS_TR(self));
    e_mov_rr(e, W64, REG_RSI, T0);
    call(bt, e, CALL_TRANSFER);
    e_rr(e, W64, 0x85, REG_RAX, REG_RAX);
    more = e_jcc_fwd(e, CC_E);
    e_mov_rr(e, W64, T1, REG_RAX);
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_R_RM, T0, GS(rip));
    e_jmp_reg(e, T1);
    e_land(e, more);
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_jmp(e, bt->sh->env.stub.callout);
}

/* check: the checks of a fragment failed. T0 is the guest address, T1 where to go for
 * another try, once the bank for fetches has the page; or C says where else.
 * check_shared: the same, but the address is in vcpu.rip. */
static void emit_check(struct bt *bt, struct emit *e) {
    uint8_t *out;

    bt->sh->env.stub.check = e_here(e);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(rip));
    bt->sh->env.stub.check_shared = e_here(e);
    save(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSP, GS_TR(host_sp));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RDI, GS_TR(self));
    e_gs(e, W64, OPC_MOV_R_RM, REG_RSI, GS(rip));
    e_mov_rr(e, W64, REG_RDX, T1);
    call(bt, e, CALL_FETCH);
    e_rr(e, W64, 0x85, REG_RAX, REG_RAX); /* test */
    out = e_jcc_fwd(e, CC_E);
    e_mov_rr(e, W64, T1, REG_RAX);
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_R_RM, T0, GS(rip));
    e_jmp_reg(e, T1);
    e_land(e, out);
    load(e, caller_saved, ARRAY_SIZE(caller_saved));
    e_gs(e, W64, OPC_MOV_RM_R, T1, GS_TR(arg));
    e_gs_imm(e, W32, GS_TR(reason), BT_LEAVE_CHECK);
    e_jmp(e, bt->sh->env.stub.leave);
}

/* link, hot: T0 is a record's number. indirect: T0 is the guest address. */
static void emit_exits(struct bt *bt, struct emit *e) {
    bt->sh->env.stub.link_regs = e_here(e);
    tr_emit_save(e);
    bt->sh->env.stub.link = e_here(e);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS_TR(arg));
    e_gs_imm(e, W32, GS_TR(reason), BT_LEAVE_LINK);
    e_jmp(e, bt->sh->env.stub.leave);

    bt->sh->env.stub.hot = e_here(e);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS_TR(arg));
    e_gs_imm(e, W32, GS_TR(reason), BT_LEAVE_HOT);
    e_jmp(e, bt->sh->env.stub.leave);

    /* The jump table had nothing, or another fragment. */
    bt->sh->env.stub.indirect = e_here(e);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(rip));
    e_gs_imm(e, W32, GS_TR(reason), BT_LEAVE_INDIRECT);
    e_jmp(e, bt->sh->env.stub.leave);
}

void bt_emit_stubs(struct bt *bt) {
    struct tr_env *env = &bt->sh->env;
    struct emit e = {
        .p = env->code.rw, .end = env->code.rw + env->code.size, .delta = tr_delta(env)};

    emit_callees(&e);
    emit_enter(bt, &e);
    emit_leave(bt, &e);
    emit_emulate(bt, &e);
    emit_slow(bt, &e);
    emit_anchor(bt, &e, MMU_READ);
    emit_anchor(bt, &e, MMU_WRITE);
    emit_callout(bt, &e);
    emit_transfer(bt, &e);
    bt_emit_gates(bt, &e);
    emit_check(bt, &e);
    emit_exits(bt, &e);
    env->common_end = (uint8_t *)(((uintptr_t)e_here(&e) + 63) & ~63ul);
}
