/* Short sequences of host code that fragments and common stubs share. Each spoils T1. */
#ifndef TR_SEQUENCE_H
#define TR_SEQUENCE_H

#include "tr/emit.h"
#include "tr/env.h"

/* mov T1d, [poll page]: faults while a kick is pending. One of several vCPUs loads its
 * page's address first. */
void tr_emit_poll(const struct tr_env *env, struct emit *e);
/* Bytes of the instruction that faults. */
static inline unsigned tr_poll_len(const struct tr_env *env) {
    return env->smp ? 3 : 8;
}
/* With several vCPUs: does nothing, and so long that a displacement of four bytes BEHIND
 * bytes from here on is aligned: it may be changed while others execute it. */
void tr_emit_align(const struct tr_env *env, struct emit *e, unsigned behind);
/* The host's flags to tr_vcpu.flags, and back. */
void tr_emit_save(struct emit *e);
void tr_emit_restore(struct emit *e);
/* T1 = the slot of the address in T0 (mmu_index()) in the bank that gs:[BANK] points to.
 * Spoils the host's flags. */
void tr_emit_slot(const struct tr_env *env, struct emit *e, size_t bank);
/* lea T1, [rip + SKIP]: the address behind the next SKIP bytes; the address TO. */
void tr_emit_lea_next(struct emit *e, unsigned skip);
void tr_emit_lea_to(struct emit *e, const uint8_t *to);

#endif
