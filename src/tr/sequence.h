/* Short sequences of host code that fragments and common stubs share. Each spoils T1. */
#ifndef TR_SEQUENCE_H
#define TR_SEQUENCE_H

#include "tr/emit.h"
#include "tr/env.h"

/* mov T1d, [poll page]: faults while a kick is pending. */
void tr_emit_poll(const struct tr_env *env, struct emit *e);
#define TR_POLL_LEN 8
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
