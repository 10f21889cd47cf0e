/*
 * Inside bt/: fragments, links, the cache, and the conventions of translated code.
 *
 * Conventions while translated code runs:
 *   - host %gs base is the vCPU: gs:[offsetof(struct vcpu, x)] is our private data;
 *   - guest rax..r13, rsp included, are in the host registers of the same name;
 *   - guest r14 and r15 are in vcpu.gpr[]; host r14 (T0) and r15 (T1) are scratch;
 *   - guest vector state is in the host's registers (cpu/vec.h);
 *   - guest status flags are in one of three places, known at translation time:
 *       FLAGS_REGS  the host's flags
 *       FLAGS_MEM   vcpu.bt.flags (AH as LAHF gives it, AL = OF)
 *       FLAGS_DEAD  nowhere: nothing reads them before all of them are written
 *   - all other flags are in vcpu.rflags; the host's DF, TF, AC... stay clear.
 *
 * A fragment has four entries, all with the flags in memory but the last:
 *   - entry_jump: T0 is the guest address wanted; goes on when it is this one's;
 *   - entry_check: verifies that the virtual page still maps the code it was made from
 *     (struct vpage); other pages come in here or through entry_jump;
 *   - entry_mem, entry_regs: the code itself.
 *
 * A link is a direct exit of a fragment: a rel32 in the code that goes either to a stub
 * (leave the cache and say which link it was) or, chained, to another fragment's entry.
 */
#ifndef BT_INT_H
#define BT_INT_H

#include "base/os.h"
#include "bt/bt.h"
#include "decode/insn.h"
#include "mmu/mmu.h"
#include "tr/emit.h"
#include "x86/cr.h"

#define T0 REG_R14
#define T1 REG_R15

#define GS(field) offsetof(struct vcpu, field)
#define GS_GPR(r) (offsetof(struct vcpu, gpr) + 8 * (r))

enum flags_place { FLAGS_REGS, FLAGS_MEM, FLAGS_DEAD };

/* Why translated code came back; in vcpu.bt.reason. */
enum bt_leave {
    BT_LEAVE_LINK,     /* bt.arg is the struct link; rip is its target */
    BT_LEAVE_INDIRECT, /* rip is set; the jump table had nothing */
    BT_LEAVE_CHECK,    /* rip is set; entry_check of the fragment bt.arg found another
                          mapping */
    BT_LEAVE_POLL,     /* rip is set; events wait */
    BT_LEAVE_NEXT,     /* rip is set; look at events and go on */
    BT_LEAVE_EMULATE,  /* rip is set; the interpreter is to execute that instruction */
    BT_LEAVE_FUEL,     /* rip is set; a counted run is to stop, or to be sent on */
    BT_LEAVE_HOT,      /* bt.arg is a fragment that has been executed often */
    BT_LEAVE_STATUS,   /* a callout returned vcpu.bt.status; rip is set */
};

struct ccf;

struct link {
    struct ccf *from, *to;
    struct link *next_in, **at_in; /* other links into the same fragment */
    uint64_t target;               /* guest address */
    uint8_t *rel32;                /* RW */
    uint8_t *stub;                 /* RX: where it goes when not chained */
    uint8_t place;                 /* enum flags_place at the exit */
    bool same_page;
};

/* A load of the poll page, and where the guest is when it faults. */
enum poll_kind {
    POLL_NONE,
    POLL_HERE,     /* before the site's instruction */
    POLL_LINK,     /* at the target of link number site.guest */
    POLL_INDIRECT, /* at the address in T0 */
};

/* Host code position to guest instruction: for faults. */
struct site {
    uint16_t host;  /* offset from ccf.code */
    uint16_t guest; /* offset in its page, | SITE_PAGE2; or the link's number */
    uint8_t place;  /* enum flags_place */
    uint8_t poll;   /* enum poll_kind */
    uint8_t left;   /* counted runs: instructions that were taken, but not executed */
    bool ours; /* general registers are not the guest's: a fault here is never its own */
};
#define SITE_PAGE2 0x1000u

/* A run of guest bytes of a hot path, within one page. */
struct piece {
    uint16_t from, to; /* offsets in the page */
    bool second;       /* it is page2 */
};

struct ccf {
    uint64_t va;
    uint8_t *page;      /* host address of the guest page it starts on */
    uint8_t *page2;     /* another one: an instruction crosses, or the path goes there */
    uint32_t key;       /* bt_key() at translation */
    uint16_t guest_len; /* bytes from VA on; of a hot path, the sum of its pieces */
    uint16_t nsites;
    uint8_t ninsns; /* that its entry takes in a counted run */
    bool dead, hot;
    bool listed, listed2; /* in the lists of its pages */
    uint8_t lent[2];      /* where guest r14 and r15 are (lend.c), + 1; 0: in memory */
    uint8_t npieces;      /* 0: GUEST_LEN bytes from VA on, into page2 if they cross */
    uint8_t nlinks;
    uint8_t *code, *end; /* RX */
    uint8_t *entry_jump, *entry_check, *entry_mem, *entry_regs;
    uint8_t *entry_save; /* with page2: flags to memory, then entry_check */
    struct vpage *vp, *vp2;
    struct site *sites;
    struct piece *pieces;
    struct link *links;
    struct link *in;
    struct ccf *hash_next;
    struct ccf *page_next, *page2_next;
    struct ccf **page_at, **page2_at; /* what leads to it in these lists */
};

/* A virtual page with translated code, and the RAM page that it has to map. */
struct vpage {
    uint64_t va;
    uint8_t *host;
    uint64_t valid; /* the epoch in which it was checked; read by entry_check */
    bool global;    /* checked against epoch_global */
    bool user;
    uint32_t fragments; /* that refer to it */
    struct vpage *next;
};

/* A piece of the cache that is evicted as a whole (units.c). */
struct unit {
    size_t n; /* fragments */
};

/* What has been translated of one RAM page. */
struct code_page {
    uint64_t lines; /* 64-byte pieces with translated bytes, more rather than fewer */
    struct ccf *first;
    uint32_t listed, dead; /* in the list; of these */
    bool stale;            /* `lines` has some that nothing in the list covers any more */
};

#define BT_HASH_BITS 18
#define BT_JUMP_BITS 16
_Static_assert(BT_JUMP_BITS == 16, "emitted code takes the low word");

/* Indirect branches: 2^BT_JUMP_BITS host addresses by the low bits of the guest address,
 * each an entry_jump (which checks that it is the right one) or stub_indirect. One table
 * for each key of late. */
static inline unsigned bt_jump_slot(uint64_t va) {
    return (unsigned)va & ((1u << BT_JUMP_BITS) - 1);
}

#define BT_JUMP_TABLES 8
struct jump_table {
    uint32_t key;
    uint64_t used;
    uint8_t **to; /* RX */
};

/* Executions until a fragment is hot, by guest address: cold fragments count down. */
#define BT_HEAT_BITS 14

/* How far translated code may go in a counted run before the dispatcher is asked. */
#define BT_FUEL 65536u

#define BT_VPAGE_BITS 12
#define BT_VPAGES_MAX (1u << 22) /* they are at addresses that fit in 31 bits */
#define BT_DROPPED_BITS 15

/* A division that has raised #DE, and how often it has not since (divide.c). */
struct division {
    uint64_t va;
    uint32_t good;
    bool faults;
};
#define BT_DIVISIONS 1024u
#define BT_DIVISION_TRUST 4096u

/* What an instruction reads at most, and may have to be copied for it. */
#define BT_BOUNCE_LEN 64u

struct tr;

struct bt {
    struct vcpu *v;
    struct interp *ip;
    struct bt_options opt;
    struct os_code code;
    uint8_t *code_start; /* RW: after the common stubs */
    /* units.c: the ring of units, and what is free in the one being filled. */
    struct unit *units;
    unsigned nunits, unit;
    size_t unit_size, unit_meta, unit_order;
    uint8_t *meta;
    struct ccf **order;          /* a piece for each unit, by address */
    uint8_t *code_at, *code_end; /* RW */
    uint8_t *meta_at;
    bool full; /* something was asked for that the unit does not have */
    struct ccf **hash;
    struct code_page *pages; /* one for each RAM page */
    size_t npages;
    uint8_t *poll_page; /* readable, or not while a kick is pending */
    uint8_t *bounce; /* a copy of what lies across two pages; between unreadable ones */
    const uint8_t *fuel; /* BT_FUEL bytes behind an unreadable page; counted runs only */
    /* Common stubs, RX. */
    uint8_t *stub_enter, *stub_leave, *stub_leave_bare;
    uint8_t *stub_anchor[2]; /* by enum mmu_access: read, write */
    uint8_t *stub_hot, *stub_link_regs, *stub_emulate;
    uint8_t *stub_gate[VCPU_GATES];
    uint8_t *stub_slow, *stub_callout, *stub_transfer, *stub_link, *stub_indirect,
        *stub_check;

    struct jump_table jump[BT_JUMP_TABLES];
    uint64_t jump_clock;
    union {
        struct {
            uint32_t key;             /* whose jump table v->bt.jump is */
            uint16_t selected, other; /* and the one that was selected before it */
        };
        uint64_t select; /* all of this, for gates */
    };
    struct vpage **vpages;
    struct vpage *vpage_pool, *vpage_free;
    size_t vpages_used, vpages_max;
    uint64_t *guess; /* where indirect branches went; by their address, likewise low */
    uint32_t *heat;  /* at an address that fits in 31 bits */
    unsigned next_anchor; /* for the next reference of a hot path */
    bool has_bmi2;        /* the host */
    struct suspect *suspects;
    uint64_t next_review; /* TSC */
    struct division *divisions;
    struct ccf *faulted; /* whose division raised the host's #DE just now */
    uint64_t *dropped;   /* stats.c */
    uint64_t callouts[OP_COUNT];
    struct tr *tr; /* the translation in progress */
    /* For tests: called before each entry of the cache, may be NULL. */
    void (*watch)(void *arg, const struct ccf *c);
    void *watch_arg;
    bool in_tc; /* bt_run() is running: bt_kick() must close the poll page */
    int error;  /* -errno of what kept bt_run() from it, or 0 */
    bool poll_closed;
    bool unsound; /* the verifier has found something: nothing runs any more */
};

static inline ptrdiff_t bt_delta(const struct bt *bt) {
    return bt->code.rx - bt->code.rw;
}

/* Everything besides address and bytes that a fragment depends on: bt_key(). */
#define KEY_MODE(k) ((k)&3)
#define KEY_REAL 4u           /* of no fragment: see bt_translatable() */
#define KEY_VEC 8u            /* SSE usable: CR0.EM, TS clear, CR4.OSFXSR set */
#define KEY_AVX 16u           /* and AVX: CR4.OSXSAVE, XCR0 */
#define KEY_X87 32u           /* EM and TS clear */
#define KEY_AVX512 (1u << 29) /* AVX, and AVX-512's part of XCR0 */
#define KEY_STACK32 64u
#define KEY_USER 128u       /* CPL 3 */
#define KEY_CPL0 (1u << 27) /* CPL 0: simple privileged instructions are translated */
#define KEY_SINGLE                                                                       \
    (1u << 28) /* of a fragment: no groups, see bt_emulate(); never the current key */
#define KEY_TSC (1u << 26) /* RDTSC is allowed and the host's, but for an addend */
#define KEY_FLAT_R_SHIFT 8
#define KEY_FLAT_W_SHIFT 14
#define KEY_BASE_SHIFT 20 /* bits of segments whose base is not 0 */

static inline uint32_t bt_key(const struct vcpu *v) {
    uint32_t key = v->mode;
    bool fpu = !(v->cr0 & (X86_CR0_EM | X86_CR0_TS));

    if (vcpu_is_real(v))
        key |= KEY_REAL;
    if (fpu)
        key |= KEY_X87;
    if (fpu && (v->cr4 & X86_CR4_OSFXSR))
        key |= KEY_VEC;
    if (fpu && (v->cr4 & X86_CR4_OSXSAVE) &&
        (v->xcr0 & (X86_XCR0_SSE | X86_XCR0_AVX)) == (X86_XCR0_SSE | X86_XCR0_AVX))
        key |= KEY_AVX;
    if ((key & KEY_AVX) && (v->xcr0 & X86_XCR0_AVX512) == X86_XCR0_AVX512)
        key |= KEY_AVX512;
    if (v->stack32)
        key |= KEY_STACK32;
    if (v->cpl == 3)
        key |= KEY_USER;
    if (v->cpl == 0)
        key |= KEY_CPL0;
    if (v->tsc_host && (!(v->cr4 & X86_CR4_TSD) || v->cpl == 0))
        key |= KEY_TSC;
    key |= (uint32_t)v->seg_flat_r << KEY_FLAT_R_SHIFT;
    key |= (uint32_t)v->seg_flat_w << KEY_FLAT_W_SHIFT;
    if (v->mode == MODE_64)
        return key | (1u << SEG_FS | 1u << SEG_GS) << KEY_BASE_SHIFT;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        if (v->segbase[s])
            key |= 1u << (KEY_BASE_SHIFT + s);
    return key;
}

/* 16-bit code, 32-bit code in real mode, and such whose segment is not flat, are the
 * interpreter's. */
static inline bool bt_translatable(const struct vcpu *v) {
    if (v->mode == MODE_64)
        return true;
    return v->mode == MODE_32 && !vcpu_is_real(v) && !(v->rflags & X86_FL_VM) &&
           v->seg[SEG_CS].limit == UINT32_MAX && !v->seg[SEG_CS].base;
}

/* STAC and CLAC are translated: they move the bank that translated code reads. */
static inline void bt_sync_bank(struct vcpu *v) {
    v->mmu->data = v->bt.bank;
}

/* stubs.c: the common code at the start of the cache. */
void bt_emit_stubs(struct bt *bt);
void bt_emit_poll(const struct bt *bt, struct emit *e);
#define BT_POLL_LEN 8
void bt_emit_save(struct emit *e);
void bt_emit_slot(const struct bt *bt, struct emit *e);

/* translate.c: makes a fragment for v->rip under KEY, or NULL when the code cannot be
 * fetched (fault in v->fault, *FAULT set) or the cache is full. */
struct ccf *bt_translate(struct bt *bt, uint32_t key, bool *fault);

/* lend.c: registers as they are in C's code, in vcpu.gpr[], become what they are. */
void bt_unlend(struct vcpu *v, const struct ccf *c);

/* Makes a hot path that starts where C does, and puts it in C's place. */
void bt_heat_up(struct bt *bt, struct ccf *c);

#define BT_GUESS_BITS 12
static inline uint64_t *bt_guess(const struct bt *bt, uint64_t va) {
    return &bt->guess[(va ^ va >> BT_GUESS_BITS) & ((1u << BT_GUESS_BITS) - 1)];
}

static inline uint32_t *bt_heat(const struct bt *bt, uint64_t va) {
    uint32_t h = (uint32_t)(va ^ va >> 32) * 0x9e3779b1u;

    return &bt->heat[h >> (32 - BT_HEAT_BITS)];
}

/* stats.c: a fragment was dropped; what is translated there next is counted under WHY. */
enum bt_why {
    BT_WHY_NONE,
    BT_WHY_CHECKS,
    BT_WHY_TRAPS,
    BT_WHY_REVIEW,
    BT_WHY_WRITTEN,
    BT_WHY_EVICTED,
};
void bt_note_dropped(struct bt *bt, const struct ccf *c, enum bt_why why);
void bt_note_made(struct bt *bt, const struct ccf *c);

/* adapt.c: what is wrong with the instruction at an address. */
enum bt_guilt {
    BT_INNOCENT,
    BT_GUILT_TRAP,   /* it is to be a callout */
    BT_GUILT_GROUPS, /* what would be checked together with it is no good */
    BT_TOLERATED,    /* it traps, but too seldom */
};
struct suspect {
    uint64_t va;
    uint8_t *page;  /* host address of the RAM page; NULL: free */
    uint64_t since; /* TSC: the first of the failures */
    uint64_t due;   /* TSC: it is innocent again */
    uint8_t failed; /* inline checks, since then */
    uint8_t guilt;  /* enum bt_guilt */
    uint8_t strikes;
};
#define BT_SUSPECT_BITS 12

/* An access that an inline check refused. */
enum bt_trap_why {
    BT_TRAP_RANGE,  /* it crosses a page */
    BT_TRAP_DEVICE, /* no memory, or none that may be written, or a breakpoint */
    BT_TRAP_TRACED, /* a store to a traced page */
    BT_TRAP_DROPS,  /* filling the shadow took write entries away */
    BT_TRAP_FAULT,  /* the guest's page tables do not allow it */
};
struct bt_trap {
    enum bt_trap_why why;
    uint32_t site; /* vcpu.bt.site */
};

bool bt_guilty(const struct bt *bt, uint64_t va, const uint8_t *page,
               enum bt_guilt guilt);
/* Is I, at VA on PAGE, to be a callout? It is no branch then. */
bool bt_traps(const struct bt *bt, const struct insn *i, uint64_t va,
              const uint8_t *page);
/* A copy of I that its callout is to execute, counting its traps; NULL: full. */
struct insn *bt_trapper(struct bt *bt, const struct insn *i, uint64_t va, uint8_t *page);
void bt_acquit_all(struct bt *bt);
/* C, which is being executed, has trapped at S; it may be dead afterwards. */
void bt_trapped(struct bt *bt, struct ccf *c, const struct site *s,
                const struct bt_trap *trap);
/* Nobody executes translated code. NOW is the TSC. */
void bt_review(struct bt *bt, uint64_t now);

void bt_note_trap(struct bt *bt, enum bt_trap_why why); /* stats.c */

/* units.c */
int bt_units_create(struct bt *bt); /* 0 or -errno */
void bt_units_free(struct bt *bt);
void *bt_meta_alloc(struct bt *bt, size_t size); /* NULL, and bt->full */
void bt_unit_add(struct bt *bt, struct ccf *c);
bool bt_unit_empty(const struct bt *bt);
struct ccf *bt_find_pc(const struct bt *bt, const uint8_t *rx);
void bt_each_fragment(const struct bt *bt, void (*fn)(void *arg, const struct ccf *c),
                      void *arg);
/* Goes on to the next unit; what was in it is gone. Fragments that are held in hand may
 * be.
 */
void bt_make_room(struct bt *bt);

/* cache.c */
struct ccf *bt_lookup(struct bt *bt, uint64_t va, const uint8_t *page, uint32_t key);
void bt_insert(struct bt *bt, struct ccf *c);
/* No lookup finds it any more, and nothing jumps to it. */
void bt_drop(struct bt *bt, struct ccf *c, enum bt_why why);
/* These N fragments are about to be no more. */
void bt_cache_forget(struct bt *bt, struct ccf **c, size_t n);
/* All fragments and virtual pages. */
void bt_cache_reset(struct bt *bt);
void bt_link(struct bt *bt, struct link *l, struct ccf *to);
void bt_unlink_in(struct bt *bt, struct ccf *c); /* nothing jumps to C any more */
void bt_jump_insert(struct bt *bt, struct ccf *c);
void bt_select_key_slow(struct bt *bt, uint32_t key);
static inline void bt_select_key(struct bt *bt, uint32_t key) {
    struct jump_table *t = &bt->jump[bt->other];
    unsigned other = bt->other;

    if (likely(bt->key == key && bt->v->bt.jump))
        return;
    if (unlikely(t->key != key || !t->used)) {
        bt_select_key_slow(bt, key);
        return;
    }
    /* Mostly two take turns: user's and kernel's. */
    t->used = ++bt->jump_clock;
    bt->other = bt->selected;
    bt->selected = (uint16_t)other;
    bt->key = key;
    bt->v->bt.jump = t->to;
}
/* Where an indirect branch to VA goes for the current key, RX; NULL: to a place where
 * code cannot be. */
static inline uint8_t *bt_jump_target(const struct bt *bt, uint64_t va) {
    uint8_t *const *to = bt->v->bt.jump;

    if (unlikely((uint64_t)((int64_t)(va << 16) >> 16) != va))
        return NULL;
    return to[bt_jump_slot(va)];
}
/* Drops the fragments that have the byte at OFF of the RAM page. */
void bt_drop_at(struct bt *bt, uint8_t *page, unsigned off);
/* The record of a virtual page, made if need be; NULL: full. */
struct vpage *bt_vpage(struct bt *bt, uint64_t va, uint8_t *host, bool user);

/* adapt.c: divisions that fault. */
bool bt_division_guilty(const struct bt *bt, uint64_t va);
/* The host has faulted in C at the guest's rip. */
void bt_division_faulted(struct bt *bt, struct ccf *c);
/* A callout for the division at VA has ended. */
void bt_division_done(struct bt *bt, uint64_t va, bool fault);

/* run.c: vcpu.x87_ran; and the same for whatever the vCPU's image has, parked. */
void bt_x87_ran(struct vcpu *v, uint64_t host_ip);
void bt_x87_settle(struct vcpu *v);

/* Is P, or I, one of those that translated code was given? */
bool bt_is_vpage(const struct bt *bt, const struct vpage *p);
bool bt_is_insn(const struct bt *bt, const struct insn *i);

/* Is RX where translated code leaves an instruction to C? */
static inline bool bt_is_callout(const struct bt *bt, const uint8_t *rx) {
    for (unsigned n = 0; n < VCPU_GATES; n++)
        if (rx == bt->stub_gate[n])
            return true;
    return rx == bt->stub_callout || rx == bt->stub_transfer;
}

/* Called by the stubs, which trust them no further than this: where to go on and what is
 * in the registers. They trust nobody: what the guest could have a hand in is checked
 * where it is used. */
uint8_t *bt_slow_access(struct vcpu *v, uint64_t addr, uint32_t site, const uint8_t *rx);
/* callout.c, too. 0: go on at vcpu.bt.resume. */
int bt_callout(struct vcpu *v, const struct insn *i);
/* The same for what bt_transfers(): where to go on, or NULL: nothing has been done, and
 * bt_callout() is to. General registers that C functions save are not in vcpu.gpr[]. */
uint8_t *bt_transfer(struct vcpu *v, const struct insn *i);
static inline bool bt_transfers(const struct insn *i) {
    return i->op == OP_syscall || i->op == OP_sysret || i->op == OP_sysenter ||
           i->op == OP_sysexit;
}
/* gate.c: I, in a mode, is to go through a gate. */
enum bt_gate {
    BT_GATE_SYSCALL,
    BT_GATE_SYSRET,
    BT_GATE_SYSENTER,
    BT_GATE_SYSEXIT,
    BT_GATE_NONE,
};
enum bt_gate bt_gate_of(const struct insn *i, unsigned mode);
/* I has been executed, and led from key FROM to the current one. */
void bt_gate_keep(struct bt *bt, const struct insn *i, uint32_t from);
void bt_emit_gates(struct bt *bt, struct emit *e); /* behind the transfer stub */
/* The interpreter is to execute the instruction at the guest's rip: where to go on then,
 * or NULL to leave. */
uint8_t *bt_emulate(struct vcpu *v);
/* The page maps the same as before: 1, and it is valid in this epoch. Else 0. */
int bt_check(struct vcpu *v, struct vpage *p, const uint8_t *rx);

/* run.c, for both ways on */
/* The page has just been fetched from: what it maps is good for this epoch. */
void bt_page_checked(struct vcpu *v, struct vpage *p);
/* RF holds breakpoints back for one instruction; where none is armed, nobody sees it go.
 */
void bt_drop_rf(struct vcpu *v);
/* Flags between vcpu.rflags and the slot of translated code. */
static inline void bt_flags_in(struct vcpu *v) {
    unsigned fl = (unsigned)v->rflags;

    v->bt.flags = (uint16_t)((fl & 0xff) << 8 | (fl & X86_FL_OF ? 1 : 0));
}

static inline void bt_flags_out(struct vcpu *v) {
    unsigned f = v->bt.flags;
    uint64_t fl = (f >> 8 & (X86_FL_STATUS & 0xff)) | (f & 1 ? X86_FL_OF : 0);

    v->rflags = (v->rflags & ~(uint64_t)X86_FL_STATUS) | fl;
}

/* Brings insns_retired up to date in a counted run: translated code has been left, or
 * calls, where v->bt.owed says. */
static inline void bt_settle_count(struct vcpu *v) {
    uint64_t at = v->bt.fuel + v->bt.owed;

    if (!v->counted)
        return;
    v->cnt->insns_retired += v->bt.mark - at;
    v->bt.mark = at;
}

/* Translated code does not go on where it was: gives back what the fragment took and has
 * not used, but for the instruction at hand if that is RETIRED. */
static inline void bt_return_owed(struct vcpu *v, bool retired) {
    if (!v->counted)
        return;
    v->bt.fuel += v->bt.owed - retired;
    v->bt.owed = 0;
}

/* The guest address that a site is for. */
static inline uint64_t bt_site_va(const struct ccf *c, const struct site *s) {
    return (s->guest & SITE_PAGE2 ? c->vp2 : c->vp)->va + (s->guest & 0xfff);
}

/* vcpu.bt.site of an inline check that failed: size, kind, and the anchor to fill. */
#define SITE_SIZE_MAX 0xfffu
#define SITE_WHOLE_PAGE 0u /* in the place of the size */
#define SITE_SIZE(s) ((s)&SITE_SIZE_MAX ? (s)&SITE_SIZE_MAX : 4096u)
#define SITE_ACCESS(s) ((s) >> 12 & 3)
#define SITE_ALONE (1u << 14) /* a read whose host address nobody else will use */
/* It is all that the instruction accesses, and nothing that it checks comes before: a
 * page fault is the instruction's. */
#define SITE_SOLE (1u << 15)
#define SITE_ANCHOR_SHIFT 16

/* Anchors (mmu/mmu.h): each use has one for reads, and behind it one for writes. */
enum {
    ANCHOR_STACK = 0,
    ANCHOR_FRAME = 2,  /* off rBP in 32-bit code */
    ANCHOR_THREAD = 4, /* off FS, then GS, with nothing but a displacement: by page */
    ANCHOR_THREAD_PAGES = 4,
    ANCHOR_FREE = ANCHOR_THREAD + 2 * 2 * ANCHOR_THREAD_PAGES,
};

#endif
