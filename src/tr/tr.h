/*
 * The translator: guest bytes to host code.
 *
 * Guest bytes are decoded into a translation unit (TU), or along a hot path; what comes
 * out is a struct tr_code in memory that the caller gives, and nothing else: it is found,
 * entered and chained by others. docs/bt.md describes the whole.
 */
#ifndef TR_TR_H
#define TR_TR_H

#include "tr/env.h"

/* Room for code and for its records; what is used is cut off at the front. */
struct tr_span {
    uint8_t *code, *code_end; /* RW */
    uint8_t *records, *records_end;
};

/* SIZE bytes of it, or NULL. */
static inline void *tr_span_record(struct tr_span *span, size_t size) {
    uint8_t *p = span->records;

    size = (size + 7) & ~7ul;
    if (size > (size_t)(span->records_end - p))
        return NULL;
    span->records = p + size;
    return p;
}

/* A decoded instruction, and what is known of it. */
struct tu_insn {
    struct insn i;
    uint64_t va;
    uint64_t expect;  /* FOLLOW_EXPECTED */
    uint32_t written; /* general registers, more rather than fewer */
    uint8_t follow;   /* enum follow */
    /* Status flags (one byte, see tr_pack_flags()) that are needed before and after. */
    uint8_t live_in, live_out;
    bool trap; /* it keeps trapping: a callout */
};

/* How a hot path goes on after a control transfer. */
enum follow {
    FOLLOW_NONE,       /* it ends here */
    FOLLOW_NEXT,       /* a jcc that is not taken */
    FOLLOW_TARGET,     /* a direct jmp or call, or a jcc that is taken */
    FOLLOW_EXPECTED,   /* an indirect branch that goes to EXPECT */
    FOLLOW_LOOP_NEXT,  /* the next instruction is the path's first */
    FOLLOW_LOOP_TARGET /* the target is the path's first */
};

/* What the last translation was made of; good until the next one. */
struct tr_made {
    const struct tu_insn *insn;
    unsigned n;
    unsigned ident, operand, callouts; /* of these: copied; with another operand; left */
};

enum tr_result {
    TR_MADE,
    TR_FAULT, /* the instruction cannot be fetched, or is none */
    TR_FULL,  /* there is no room for it */
    TR_NONE,  /* there is no path to follow */
};

struct tr;

/* ENV must outlive it. NULL: no memory. */
struct tr *tr_new(const struct tr_env *env);
void tr_free(struct tr *t);

/* Translates for C's va, page, key, fixed, hot and shared (all else of it is 0), into
 * SPAN. The page has just been fetched from. If it is not TR_MADE, *C means nothing. */
enum tr_result tr_translate(struct tr *t, struct tr_span *span, struct tr_code *c);

/* --- seal.c: code that cannot be written but while it is made (--bt seal) --- */

/* From now on. 0 or -errno. */
int tr_seal(struct tr_env *env);
/* A fragment is going to be made in SPAN, which is cut to what is opened; and has been.
 * Where nothing is sealed they do nothing. */
void tr_span_open(struct tr_env *env, struct tr_span *span);
void tr_span_close(struct tr_env *env);
/* LEN bytes at RW are going to be changed; and have been. */
void tr_patch_begin(const struct tr_env *env, const uint8_t *rw, size_t len);
void tr_patch_end(const struct tr_env *env, const uint8_t *rw, size_t len);
/* The branch whose distance is at REL32 (RW) leads to TO (RX), for all vCPUs. */
void tr_lead(const struct tr_env *env, uint8_t *rel32, const uint8_t *to);
/* The byte of code at AT (RW) is BYTE, for all vCPUs. */
void tr_set_byte(const struct tr_env *env, uint8_t *at, uint8_t byte);

/* Where C, which is shared code, goes on when its head does not lead away (RX). */
const uint8_t *tr_behind_head(const struct tr_env *env, const struct tr_code *c);
/* C is shared code: its head leads to TO (RX, a hot path's `select`), or counts (NULL).
 */
void tr_head_turn(const struct tr_env *env, const struct tr_code *c, const uint8_t *to);
/* A hot path's `select` goes on to TO (RX); NULL: back to the shared code. */
void tr_past_turn(const struct tr_env *env, const struct tr_code *c, const uint8_t *to);

struct tr_made tr_made(const struct tr *t);

/* A loop that waits has it. AMD64 APM volume 3, "PAUSE". */
static inline bool tr_is_pause(const struct insn *i) {
    bool rep = false;

    for (unsigned n = 0; n < i->off_opcode; n++)
        rep |= i->bytes[n] == 0xf3;
    return i->op == OP_nop && rep && i->bytes[i->off_opcode] == 0x90;
}

/* Does I name memory? */
static inline bool tr_has_mem(const struct insn *i) {
    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_MEM)
            return true;
    return false;
}

#endif
