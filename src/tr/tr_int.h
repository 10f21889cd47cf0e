/*
 * A translation in progress: the TU or path (the decoded instructions and what is known
 * of their flags), the emitter, and the code that is to be placed out of line.
 *
 * tools/layers has the order of the files: each calls those before it, none behind it.
 */
#ifndef TR_TR_INT_H
#define TR_TR_INT_H

#include "decode/memo.h"
#include "tr/key.h"
#include "tr/mutant.h"
#include "tr/sequence.h"
#include "tr/tr.h"
#include "x86/cr.h"

#define FLAGS_ALL X86_FL_STATUS

enum cold_kind {
    COLD_SLOW,    /* an inline check failed: restore the address, call the slow stub */
    COLD_ANCHOR,  /* the same, but the anchor stub */
    COLD_FIXED,   /* T0 still has the address; the slow stub */
    COLD_WRONG,   /* the checks of a hot path failed */
    COLD_EXIT,    /* a hot path is left: link SITE */
    COLD_RET,     /* a return does not go where the path goes: T0 has the address */
    COLD_CALLOUT, /* an expansion gives up */
    COLD_HOT,     /* the fragment has become hot */
};

struct cold {
    enum cold_kind kind;
    uint8_t *rel32;      /* RW: the branch that comes here */
    const uint8_t *cont; /* RX: where to go on */
    uint32_t site;
    int32_t tag; /* [T1 + TAG] is what was subtracted from T0 */
    /* COLD_EXIT, COLD_RET, COLD_CALLOUT: which instruction left, and where the flags
     * were; COLD_CALLOUT: and where they are at CONT. */
    uint8_t k, place, back;
};

/* A memory operand, for comparing: what T0 is relative to. */
#define TR_SEG_FLAT 0xff
struct tr_ref {
    uint8_t base, index, scale;
    uint8_t seg; /* whose base is not 0, or TR_SEG_FLAT */
    uint8_t addrsize;
    int64_t disp;
};

/* A range of guest memory whose host address is known, from its check on (group.c). */
struct tr_held {
    bool on, write;
    bool saved; /* in tr_vcpu.held[] */
    struct tr_ref ref;
    int64_t min;   /* displacement from the base, as it was, of the first byte */
    int64_t delta; /* what has been added to the base since */
    unsigned span; /* bytes that were checked */
};
#define TR_IN_T0_NONE (-1)

/* An anchor of this hot path: for the same operand with the same values in its registers,
 * but for small steps. */
struct tr_named {
    struct tr_ref ref;
    uint8_t base_version, index_version;
    uint16_t anchor; /* for reads; the next one is for writes */
};
#define TR_NAMED_MAX 48
#define TR_PIECES_MAX 32

struct tr {
    const struct tr_env *env;
    struct decode_memo *memo;
    struct tr_code *c;
    struct tr_span *span;
    struct link *links_end; /* of room for C's */
    struct emit e;
    uint32_t key;
    enum flags_place place;
    unsigned n;
    unsigned k;               /* the instruction being translated */
    bool ended;               /* it left the fragment */
    bool groups;              /* one check may serve several accesses */
    bool hot;                 /* a hot path is made */
    uint8_t live_exit;        /* flags that are live where it ends */
    uint8_t live_loop;        /* flags that are live at the path's start, for its loop */
    enum flags_place head;    /* where they are at loop_head */
    const uint8_t *loop_head; /* RX */
    struct tr_named named[TR_NAMED_MAX];
    unsigned nnamed;
    uint8_t borrowed[2];        /* host registers of guest r14 and r15, or these */
    uint8_t version[REG_COUNT]; /* of what is in a register, for anchors */
    struct piece pieces[TR_PIECES_MAX];
    unsigned npieces;
    struct tr_held held[TR_HELD];
    bool ours;  /* host addresses are in general registers: struct site */
    bool alone; /* the lookup is for one access, and a read: SITE_ALONE */
    bool plain; /* the access is all that the instruction does: see SITE_SOLE */
    bool sole;  /* and the lookup is for just it */
    int in_t0;  /* the one that T0 points to the first byte of, or TR_IN_T0_NONE */
    unsigned next_held;   /* to be replaced */
    unsigned next_anchor; /* for the next reference of a hot path; outlives it */
    bool full;            /* something was asked for that there is no room for */
    struct tu_insn insn[TR_PATH_MAX];
    struct cold cold[4 * TR_PATH_MAX];
    unsigned ncold;
    struct site sites[4 * TR_PATH_MAX];
    unsigned nsites;
    unsigned ident, operand, callouts; /* instructions, for statistics */
};

/* --- state.c --- */

uint64_t tr_va(const struct tr *t);      /* of the instruction being translated */
uint64_t tr_next_va(const struct tr *t); /* of the one after it */
/* Host address of the RAM page that the instruction begins on. */
uint8_t *tr_ram_page(const struct tr *t, const struct tu_insn *u);
/* Where it is in RAM. */
uint64_t tr_insn_place(const struct tr *t, const struct tu_insn *u);
/* REG = the guest address VA: a number, or off the page that is being executed. */
void tr_address(struct tr *t, unsigned reg, uint64_t va);
void tr_site(struct tr *t, enum poll_kind poll, unsigned link);
void tr_flags_save(struct tr *t);    /* before the host's flags are clobbered */
void tr_flags_restore(struct tr *t); /* before the host's flags are used. Spoils T1. */
void tr_flags_to_mem(struct tr *t);  /* for indirect exits and callouts */
/* The six status flags in one byte: those of the low byte, and OF in bit 1. */
uint8_t tr_pack_flags(unsigned fl);
/* The path ends by going back to its start. */
bool tr_loops(const struct tr *t);
/* The fragment counts its executions. */
bool tr_heats(const struct tr *t);
bool tr_counted(const struct tr *t); /* it is for a counted run */
/* SIZE bytes of memory that live as long as the code; NULL: it is full. */
void *tr_record(struct tr *t, size_t size);
/* Code to be placed out of line, for the branch at REL32 (RW). */
struct cold *tr_cold_add(struct tr *t, enum cold_kind kind, uint8_t *rel32);

/* How I, of T's instructions, continues. */
static inline enum follow tr_follow(const struct insn *i) {
    return (enum follow)container_of(i, const struct tu_insn, i)->follow;
}

/* T0 is about to be something else. */
static inline void tr_lose_t0(struct tr *t) {
    t->in_t0 = TR_IN_T0_NONE;
}

/* --- borrow.c: where guest r14 and r15 are in a path --- */

/* Decides it. */
void tr_borrow(struct tr *t);
bool tr_borrows(const struct tr *t);
/* The exchange, which is its own inverse. Spoils T1. */
void tr_borrow_swap(struct tr *t);
/* The host register for guest register R, whose value is in it unless tr_in_memory(). */
static inline unsigned tr_host(const struct tr *t, unsigned r) {
    return r == REG_R14 || r == REG_R15 ? t->borrowed[r - REG_R14] : r;
}
static inline bool tr_in_memory(const struct tr *t, unsigned r) {
    return (r == REG_R14 || r == REG_R15) && t->borrowed[r - REG_R14] == r;
}

/* --- lookup.c: from guest addresses to host pointers --- */

bool tr_mem_ok(const struct tr *t, const struct insn *i);
/* T0 = linear address of REF's base and index plus DISP. Spoils T1, the host's flags. */
void tr_ea(struct tr *t, const struct tr_ref *ref, int64_t disp);
/* T0 = host pointer for LEN bytes at guest address T0. The same. */
void tr_lookup(struct tr *t, unsigned len, enum mmu_access acc);
/* The same through anchor N: for an address that is mostly in one page. */
void tr_lookup_anchor(struct tr *t, unsigned len, enum mmu_access acc, unsigned n);
/* T0 = host pointer to the page at guest address PAGE. The same. */
void tr_lookup_fixed(struct tr *t, uint64_t page, enum mmu_access acc);
void tr_place_slow(struct tr *t, const struct cold *c);

/* --- ident.c: the same instruction, with T0 for the memory operand and T1 for r14 or r15
 * where they are operands --- */

/* It is of a form that can be copied. */
bool tr_ident_ok(const struct tr *t, const struct insn *i);
void tr_ident_emit(struct tr *t, const struct insn *i, int32_t off); /* [T0 + OFF] */

/* --- classes.c: what is known of an instruction before it is translated --- */

enum tr_class {
    CLASS_CALLOUT, /* it has no expansion */
    CLASS_IDENT,
    CLASS_DIV,
    CLASS_BIT,
    CLASS_NOP,
    CLASS_LEA,
    CLASS_PUSH,
    CLASS_POP,
    CLASS_LEAVE,
    CLASS_JMP,
    CLASS_CALL,
    CLASS_RET,
    CLASS_JCC,
    CLASS_JCXZ,
    CLASS_STRING,
    CLASS_RDTSC,
    CLASS_CLI,
    CLASS_STI,
    CLASS_CLD,
    CLASS_CLAC,
    CLASS_SWAPGS,
    CLASS_PUSHF,
    CLASS_POPF,
    CLASS_MOV_FROM_SEG,
    CLASS_MOV_FROM_CR,
    CLASSES
};

enum tr_class tr_class_of(const struct insn *i);
/* Does translating I leave T0 alone, but for its own access? */
bool tr_keeps_t0(const struct tr *t, const struct insn *i);
/* The key allows I, which is to be copied, if it is one of vector or x87 state. */
bool tr_native_ok(const struct tr *t, const struct insn *i);
bool tr_branch_ok(const struct tr *t, const struct insn *i);
bool tr_stack_ok(const struct tr *t, const struct insn *i);
bool tr_is_direct(const struct insn *i);
/* Of a direct branch among T's instructions. */
uint64_t tr_target(const struct tr *t, const struct insn *i);
/* I, a division among T's instructions, is known to raise #DE. */
bool tr_division_faults(const struct tr *t, const struct insn *i);

/* --- group.c: one check for several accesses --- */

struct tr_ref tr_ref_mem(const struct tr *t, const struct insn *i, uint64_t va);
struct tr_ref tr_ref_stack(const struct tr *t, int32_t disp);
/* T0 = host pointer for LEN bytes at guest address T0, which was made from REF. */
void tr_lookup_ref(struct tr *t, const struct tr_ref *ref, unsigned len,
                   enum mmu_access acc);
/* Makes SIZE bytes at REF accessible: they are at [T0 + what this returns]. Spoils T1 and
 * the host's flags (saved when needed) unless T0 already points there. */
int32_t tr_access(struct tr *t, const struct tr_ref *ref, unsigned size, bool write);
/* Registers that I writes, more rather than fewer. */
uint32_t tr_written(const struct insn *i);
/* U has been translated: which held ranges are still good? */
void tr_group_step(struct tr *t, const struct tu_insn *u);
/* Nothing that was checked may be relied on any more. */
void tr_forget_held(struct tr *t);

/* --- callout.c --- */

void tr_callout(struct tr *t, const struct insn *i);
/* The branch at REL32 (RW) makes the instruction a callout, which then goes on where
 * tr_cold_callout_end() is, with the flags where they are there. */
void tr_cold_callout(struct tr *t, uint8_t *rel32);
void tr_cold_callout_end(struct tr *t);
void tr_place_callout(struct tr *t, const struct cold *c);

/* --- exits.c --- */

/* To link N, unconditionally and by a jcc. */
void tr_link(struct tr *t, unsigned n, uint64_t target);
void tr_jcc(struct tr *t, unsigned cond, unsigned n, uint64_t target);
/* T0 holds the target: the way out of an indirect branch. */
void tr_indirect(struct tr *t);
/* Leaves a hot path for TARGET when the condition holds; code out of line. */
void tr_side_exit(struct tr *t, unsigned cond, uint64_t target);
/* Goes round: to the path's first instruction, from the one being translated. */
void tr_loop(struct tr *t);
/* The same for a jcc whose condition is COND; goes to REST when it does not hold. */
void tr_loop_jcc(struct tr *t, unsigned cond, uint64_t rest);
/* The branch at REL32 (RW) leaves a hot path as an indirect branch to T0. */
void tr_cold_ret(struct tr *t, uint8_t *rel32);
void tr_poll(struct tr *t, enum poll_kind kind, unsigned n);
/* At the start: the fuel of all instructions is taken. */
void tr_take_fuel(struct tr *t);
void tr_place_exit(struct tr *t, const struct cold *c);
void tr_place_ret(struct tr *t, const struct cold *c);
void tr_place_link(struct tr *t, unsigned n); /* the stub of a link */

/* --- entry.c: how code is entered --- */

/* entry_jump and entry_check; and what leaves when they are not for this code. */
void tr_emit_checks(struct tr *t);
void tr_place_wrong(struct tr *t, const struct cold *c);
/* Behind them: an execution of shared code is counted. */
void tr_count_heat(struct tr *t);
void tr_place_hot(struct tr *t, const struct cold *c);
/* Out of line: entry_save and entry_here; `select`. */
void tr_place_entries(struct tr *t);

/* --- operand.c --- */

/* The memory operand of I, SIZE bytes of it, is at [T0 + what this returns]. */
int32_t tr_operand(struct tr *t, const struct insn *i, unsigned size, bool write);
/* mov reg, [T0 + OFF] and back, SIZE bytes. */
void tr_load(struct tr *t, unsigned size, unsigned reg, int32_t off);
void tr_store(struct tr *t, unsigned size, unsigned reg, int32_t off);
/* The stack: SIZE bytes below rSP, or at it, are at [T0 + result]. */
int32_t tr_push_slot(struct tr *t, unsigned size);
int32_t tr_pop_slot(struct tr *t, unsigned size);
void tr_move_sp(struct tr *t, int32_t by);
int tr_stack_w(const struct tr *t); /* W32, W64: of rSP */
/* Before the host's copy of I: flags that it reads or passes through; and behind it. */
void tr_copy_flags(struct tr *t, const struct insn *i);
void tr_copied_flags(struct tr *t, const struct insn *i);

/* --- expand*.c: what each class of instructions becomes --- */

typedef void xl_fn(struct tr *t, const struct insn *i);

xl_fn tr_xl_string, tr_xl_bit_string;
xl_fn tr_xl_rdtsc, tr_xl_cli, tr_xl_sti, tr_xl_cld, tr_xl_clac, tr_xl_swapgs, tr_xl_pushf,
    tr_xl_popf, tr_xl_mov_from_seg, tr_xl_mov_from_cr;
/* I becomes host code. */
void tr_expand(struct tr *t, const struct insn *i);

/* --- path.c: the instructions of a path from the fragment's address on, as they have
 * been executed mostly. False: there is nothing to follow. --- */
bool tr_build_path(struct tr *t);

#endif
