/*
 * Short sequences of host code that fragments and common stubs share. Each spoils T1.
 */
#include "tr/sequence.h"
#include "tr/mutant.h"

void tr_emit_poll(const struct tr_env *env, struct emit *e) {
    static const uint8_t opcode[] = {0x44, 0x8b, 0x04 | (T1 & 7) << 3, 0x25};

    if (env->smp) {
        e_gs(e, W64, OPC_MOV_R_RM, T1, GS_TR(poll));
        e_rm(e, W32, OPC_MOV_R_RM, T1, T1, 0);
        return;
    }
    e_bytes(e, opcode, sizeof(opcode));
    e32(e, (uint32_t)(uintptr_t)env->poll_page);
}

void tr_emit_align(const struct tr_env *env, struct emit *e, unsigned behind) {
    static const uint8_t nop[] = {0x66, 0x66, 0x90};
    unsigned n = env->smp ? -((uintptr_t)e->p + behind) & 3 : 0;

    e_bytes(e, nop + sizeof(nop) - n, n);
}

void tr_emit_save(struct emit *e) {
    static const uint8_t lahf_seto_al[] = {0x9f, 0x0f, 0x90, 0xc0};

    e_mov_rr(e, W64, T1, REG_RAX);
    e_bytes(e, lahf_seto_al, sizeof(lahf_seto_al));
    e8(e, 0x66); /* mov gs:[flags], ax: the prefix may stand before gs's */
    e_gs(e, W32, OPC_MOV_RM_R, REG_RAX, GS_TR(flags));
    e_mov_rr(e, W64, REG_RAX, T1);
}

void tr_emit_restore(struct emit *e) {
    static const uint8_t add_sahf[] = {0x04, 0x7f, 0x9e}; /* add al, 127; sahf */

    e_mov_rr(e, W64, T1, REG_RAX);
    e8(e, 0x66);
    e_gs(e, W32, OPC_MOV_R_RM, REG_RAX, GS_TR(flags));
    e_bytes(e, add_sahf, sizeof(add_sahf));
    e_mov_rr(e, W64, REG_RAX, T1);
}

void tr_emit_slot(const struct tr_env *env, struct emit *e, size_t bank) {
    if (env->has_bmi2) {
        e_rorx(e, T1, T0, SHADOW_HASH); /* what it brings in on top is masked below */
    } else {
        e_mov_rr(e, W64, T1, T0);
        e_shift(e, W64, EXT_SHR, T1, SHADOW_HASH);
    }
    if (!MUTANT(HASH_SHORT))
        e_rr(e, W64, OPC_XOR_R_RM, T1, T0);
    e_shift(e, W64, EXT_SHR, T1, 7);
    e_ri(e, W32, EXT_AND, T1, (SHADOW_ENTRIES - 1) << (5 + MUTANT(HASH_MASK)));
    e_gs(e, W64, OPC_ADD_R_RM, T1, bank);
}

void tr_emit_lea_next(struct emit *e, unsigned skip) {
    e8(e, 0x4c);
    e8(e, 0x8d);
    e8(e, 0x05 | (T1 & 7) << 3);
    e32(e, skip);
}

void tr_emit_lea_to(struct emit *e, const uint8_t *to) {
    uint8_t *rel;

    tr_emit_lea_next(e, 0);
    rel = e->p - 4;
    if (!e->full)
        e_patch(e, rel, to);
}
