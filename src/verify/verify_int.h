/*
 * Inside the verifier: what is known of a value, and of the machine at a place in a
 * fragment.
 *
 * A value is PUBLIC when the guest may see it. Everything else is ours: what is not known
 * better is SECRET, and may be used for nothing. The other kinds are steps on the way of
 * a guest address to a host pointer, in the order in which a check takes them:
 *
 *   PUBLIC address --> HASH (four steps) --> SLOT, an entry of the shadow by its hash
 *   address - tag of an entry or anchor  --> DIFF
 *   DIFF compared, not above 4096 - len  --> DIFF that is CHECKED, at most so much
 *   DIFF + host of the same              --> HOST, a pointer to len bytes
 *   DIFF that failed + tag of the same   --> RETRY, the address for the slow stub
 *
 * What the bank for fetches says of an address (V_FETCH, V_PAGE) leads to no host
 * pointer: a page's guest address is public, and its host address may be compared with
 * those of the code's own pages.
 *
 * Values with the same ID, which is not 0, are or come from the same value.
 */
#ifndef VERIFY_VERIFY_INT_H
#define VERIFY_VERIFY_INT_H

#include "decode/host.h"
#include "tr/emit.h"
#include "tr/key.h"
#include "verify/verify.h"

enum vkind {
    V_SECRET,
    V_PUBLIC, /* at most n; its low `low` bits are 0 */
    V_CONST,  /* n; public */
    V_HASH,   /* of the address id, after `low` steps; public */
    V_PART,   /* its low n bytes are public */
    V_BANK,   /* vcpu.shadow.bank, loaded at id */
    V_SLOT,   /* the bank's entry for the address id */
    V_DIFF,
    V_RETRY,
    V_HOST,   /* n bytes; acc; how */
    V_MOVED,  /* the host pointer id, somewhere behind it */
    V_LOW32,  /* of the host pointer id */
    V_INPAGE, /* of the host pointer id: its offset in its page */
    V_RUN,    /* that, and RCX << low */
    V_JUMPS,  /* the jump table */
    V_JUMP,   /* an entry of it */
    V_FUEL,   /* tr_vcpu.fuel at the last look at it, plus n */
    V_CODE,   /* offset n of the fragment */
    V_FETCH,  /* vcpu.shadow.code */
    V_PAGE,   /* its entry for the address id */
    V_POLL,   /* the address of the poll page */
};

/* vval.how */
#define HOW_CHECKED 1u /* DIFF: at most n */
#define HOW_FAILED 2u  /* DIFF: more than n */
#define HOW_FIXED 4u   /* RETRY: a page, all of which is wanted */
#define HOW_PAGE 8u    /* HOST: it is good up to the end of the page */
#define HOW_COPY 16u   /* HOST: it may be a copy, for one access */
#define HOW_ANCHOR 32u /* HOST: it may be an unused anchor's, which faults */

struct vval {
    uint8_t kind, acc, low, how;
    uint16_t id;     /* of an instruction, + 1 */
    uint16_t anchor; /* DIFF, RETRY: number + 1; 0: an entry */
    uint64_t n;
};
_Static_assert(sizeof(struct vval) == 16, "compared as bytes");

/* Places in struct vcpu whose contents are followed. */
enum { CELL_TMP, CELL_SPILL, CELL_HELD, CELLS = CELL_HELD + TR_HELD };

enum vflags {
    VF_NONE,
    VF_CMP,   /* reg with n, 64 bits */
    VF_TAG,   /* reg, a page, with the tag of entry `slot` for acc */
    VF_VALID, /* they were equal */
};

#define FUEL_UNKNOWN INT64_MAX

/* What an instruction has left in the flags for the next one. */
struct vleft {
    uint8_t kind, reg, acc; /* enum vflags */
    uint16_t bank;
    uint32_t slot;
    uint64_t n;
};

struct vstate {
    struct vval reg[16];
    struct vval cell[CELLS];
    struct vleft flags;
    /* RCX << shift bytes at host pointer id are in its page. */
    struct {
        uint16_t id;
        uint8_t shift;
    } run[2];
    int64_t fuel;  /* what its fuel has become since the last look at it, or UNKNOWN */
    int64_t taken; /* before that */
    bool polled;   /* on every way here */
    bool site_known;
    uint32_t site;
};

struct verifier {
    const struct tr_env *env;
    const struct tr_code *c;
    struct finding *f;
    bool bad;
    uint32_t size; /* of the code */
    unsigned n;
    struct host_insn *insn;
    uint32_t *off;         /* of each instruction */
    uint16_t *at;          /* instruction + 1 by offset */
    struct vstate **state; /* by instruction: of those that something leads to */
    unsigned *work, nwork;
    bool *queued;
    unsigned k;          /* the instruction being looked at */
    struct vleft before; /* what the one before has left for it */
};

/* common.c: a finding at instruction K, the first of which counts. */
void v_bad(struct verifier *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Registers that the guest sees hold nothing of ours: something may leave here. */
void v_guest_public(struct verifier *w, const struct vstate *s);
/* The ID of a value that is to be named at K. */
uint16_t v_name(struct verifier *w, struct vstate *s);

/* value.c */
struct vval v_public(void);
struct vval v_const(uint64_t n);
bool v_is_public(const struct vval *a);
bool v_low_public(const struct vval *a, unsigned size); /* its low SIZE bytes are */
/* *A becomes what is true of both. True: it has changed. */
bool v_join(struct vval *a, const struct vval *b);
bool v_join_state(struct vstate *a, const struct vstate *b);
/* Values that ID names are no longer those that will be named so. */
void v_retire(struct vstate *s, uint16_t id);
/* Register R becomes A, written with SIZE bytes. */
void v_set(struct vstate *s, unsigned r, struct vval a, unsigned size);
/* As at an entry of a fragment: the guest's registers, and nothing else. */
void v_forget(struct vstate *s);

/* field.c: fields of struct vcpu. */
struct vfield {
    uint16_t off, size;
    uint8_t read, write; /* enum vright */
    uint8_t kind;        /* enum vkind of what is read; CELL: followed */
    int8_t cell;         /* the first cell, or -1 */
};
enum vright { FIELD_NO, FIELD_ANY, FIELD_CPL0 };
/* The field that [OFF, OFF + SIZE) lies in, NULL if in none. */
const struct vfield *v_field(int64_t off, unsigned size);

/* Guest code of CPL 0. */
bool v_cpl0(const struct verifier *w);

/* insn.c: what instruction K does to S, but for where it goes. */
void v_insn(struct verifier *w, struct vstate *s, const struct host_insn *i);

/* access.c */
/* The access of I's memory operand, for instructions that do nothing special with it. */
void v_access(struct verifier *w, struct vstate *s, const struct host_insn *i);
/* MOV from memory to register R, and back. */
void v_load(struct verifier *w, struct vstate *s, const struct host_insn *i, unsigned r);
void v_store(struct verifier *w, struct vstate *s, const struct host_insn *i,
             const struct vval *a);
/* I's memory operand is a field of the shadow; SUB, ADD, CMP of register R with it. */
bool v_is_shadow(const struct vstate *s, const struct host_insn *i);
void v_shadow(struct verifier *w, struct vstate *s, const struct host_insn *i,
              unsigned r);
/* The operand is vcpu.shadow.bank, shadow.code, or tr_vcpu.jump: its kind; else V_SECRET.
 */
enum vkind v_base(const struct host_insn *i);
/* I's memory operand is a field of the bank for fetches; what I does with it. */
bool v_is_fetch(const struct vstate *s, const struct host_insn *i);
void v_fetch(struct verifier *w, struct vstate *s, const struct host_insn *i, unsigned r);
/* MOVS, STOS */
void v_string(struct verifier *w, struct vstate *s, const struct host_insn *i);

#endif
