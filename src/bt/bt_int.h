/*
 * Inside bt/: the dispatcher, what emitted code calls of C, and what is known of guest
 * code that traps.
 *
 * tools/layers has the order of the files: each calls those before it, none behind it.
 */
#ifndef BT_INT_H
#define BT_INT_H

#include "bt/bt.h"
#include "tc/tc.h"
#include "tr/emit.h"
#include "tr/key.h"
#include "x86/cr.h"

/* Why translated code came back; in tr_vcpu.reason. */
enum bt_leave {
    BT_LEAVE_LINK,     /* arg is the struct link's number (tr_record_at()) */
    BT_LEAVE_INDIRECT, /* rip is set; the jump table had nothing */
    BT_LEAVE_CHECK,    /* rip is set; the checks of the fragment whose code arg is in
                          found another page */
    BT_LEAVE_POLL,     /* rip is set; events wait */
    BT_LEAVE_NEXT,     /* rip is set; look at events and go on */
    BT_LEAVE_EMULATE,  /* rip is set; the interpreter is to execute that instruction */
    BT_LEAVE_FUEL,     /* rip is set; a counted run is to stop, or to be sent on */
    BT_LEAVE_HOT,      /* arg is the number of a fragment that has been executed often */
    BT_LEAVE_STATUS,   /* a callout returned tr_vcpu.status; rip is set */
};

/* What is wrong with the instruction at an address. */
enum bt_verdict {
    BT_VERDICT_NONE,
    BT_VERDICT_CALLOUT,   /* it is to be a callout */
    BT_VERDICT_NO_GROUP,  /* what would be checked together with it is no good */
    BT_VERDICT_NO_ANCHOR, /* its pointer goes from page to page */
    BT_VERDICT_TOLERATED, /* it traps, but too seldom */
};
/* An address at which inline checks have failed. */
struct bt_place {
    uint64_t va;
    uint8_t *page;  /* host address of the RAM page; NULL: free */
    uint64_t since; /* TSC: the first of the failures */
    uint64_t due;   /* TSC: the verdict is over */
    uint64_t missed_since;
    uint8_t failed;   /* inline checks, since then */
    uint8_t missed;   /* samples of its anchor's misses, since then */
    uint8_t verdict;  /* enum bt_verdict */
    uint8_t in_a_row; /* times that the verdict was found again soon after */
};
#define BT_SPOT_BITS 15
#define BT_SPOTS (1u << BT_SPOT_BITS)
#define BT_PLACE_BITS 15 /* a big program has thousands that fail */

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
    uint32_t site; /* tr_vcpu.site */
};

/* A division that has raised #DE, and how often it has not since (divide.c). */
struct division {
    uint64_t va;
    uint32_t good;
    bool faults;
};
#define BT_DIVISIONS 1024u
#define BT_DIVISION_TRUST 4096u

/* The table of a debugger's breakpoints (breaks.c). */
#define BT_BREAK_BITS 20
#define BT_BREAK_WORDS ((1u << BT_BREAK_BITS) / 64)

/* What a snapshot says of code, or is to say (warm.c). */
#define BT_WARM_KEYS 64u
struct bt_warm {
    uint64_t *hint;     /* of BT_WARM_MAX; NULL: there has been no list yet */
    size_t count, next; /* those from NEXT on have not been used */
    uint32_t key[BT_WARM_KEYS], keys;
};

/* How far translated code may go in a counted run before the dispatcher is asked. */
#define BT_FUEL 65536u

/* What the vCPUs of a machine have in common: docs/bt.md, "Many vCPUs", says who may
 * touch which of it when. */
struct bt_shared {
    struct bt_options opt;
    struct tr_env env;
    struct tc tc;
    struct tr *tr;
    struct bt_place *places;
    uint64_t spots[BT_SPOTS / 64]; /* where there may be verdicts */
    uint64_t next_review; /* TSC: no verdict is over before; UINT64_MAX: none is */
    struct division *divisions;
    uint8_t *reading[2]; /* pages that the translator has read from */
    unsigned nreading;
    bool made;        /* a fragment, since the last flush */
    bool yields;      /* the host has fewer CPUs than the machine: see pause.c */
    uint32_t closed;  /* share.c: nobody is to enter code; atomic */
    struct bt *first; /* of those that have a part in it, by bt.next */
    uint64_t *breaks; /* places of a debugger's breakpoints: breaks.c */
    unsigned break_count;
    struct bt_warm warm;
    unsigned in_epoch; /* fragments that were made since it began: recent.c */
    bool unsound; /* the verifier has found something: nothing runs any more; atomic */
};

/* A vCPU's own. */
struct bt {
    struct vcpu *v;
    struct interp *ip;
    struct bt_shared *sh;
    struct bt *next;
    uint64_t missed_at; /* TSC, of the last sample of anchors' misses */
    uint8_t *poll_page;
    uint16_t *heat_then;  /* counts of executions when the epoch began (recent.c) */
    uint64_t *ran_before; /* a bit for each: it had changed in the epoch before */
    uint8_t *bounce; /* a copy of what lies across two pages; between unreadable ones */
    const uint8_t *fuel; /* BT_FUEL bytes behind an unreadable page; counted runs only */
    struct ccf *faulted; /* whose division raised the host's #DE just now */
    uint32_t deaths;     /* tc.deaths when code was last looked up */
    uint64_t callouts[OP_COUNT];
    uint64_t warmed; /* fragments that it has made before they were wanted: warm.c */
    /* For tests: called before each entry of the cache, may be NULL. */
    void (*watch)(void *arg, const struct ccf *c);
    void *watch_arg;
    uint32_t pauses; /* that it has executed */
    uint32_t holds;  /* share.c; atomic */
    bool noted;      /* breaks.c: places have come, and fragments have gone for them */
    bool waits;      /* its guest's loop does: pause.c */
    bool in_tc;      /* from bt_begin() to bt_end(): bt_kick() must close the poll page */
    bool poll_closed;
};

static inline struct bt *bt_of(const struct vcpu *v) {
    return tr_vcpu(v)->owner;
}

/* User code that is run elsewhere. */
static inline bool bt_is_away(const struct vcpu *v) {
    return v->away && v->cpl == 3;
}

/* --- between the guest's state as C has it and as translated code has it --- */

/* STAC and CLAC are translated: they move the bank that translated code reads. */
static inline void bt_sync_bank(struct vcpu *v) {
    v->mmu->data = v->shadow.bank;
}

/* Flags between vcpu.rflags and the slot of translated code. */
static inline void bt_flags_in(struct vcpu *v) {
    unsigned fl = (unsigned)v->rflags;

    tr_vcpu(v)->flags = (uint16_t)((fl & 0xff) << 8 | (fl & X86_FL_OF ? 1 : 0));
}

static inline void bt_flags_out(struct vcpu *v) {
    unsigned f = tr_vcpu(v)->flags;
    uint64_t fl = (f >> 8 & (X86_FL_STATUS & 0xff)) | (f & 1 ? X86_FL_OF : 0);

    v->rflags = (v->rflags & ~(uint64_t)X86_FL_STATUS) | fl;
}

/* Brings insns_retired up to date in a counted run: translated code has been left, or
 * calls, where tr_vcpu(v)->owed says. */
static inline void bt_settle_count(struct vcpu *v) {
    uint64_t at = tr_vcpu(v)->fuel + tr_vcpu(v)->owed;

    if (!v->counted)
        return;
    v->cnt->insns_retired += tr_vcpu(v)->mark - at;
    tr_vcpu(v)->mark = at;
}

/* Translated code does not go on where it was: gives back what the fragment took and has
 * not used, but for the instruction at hand if that is RETIRED. */
static inline void bt_return_owed(struct vcpu *v, bool retired) {
    if (!v->counted)
        return;
    tr_vcpu(v)->fuel += tr_vcpu(v)->owed - retired;
    tr_vcpu(v)->owed = 0;
}

/* In a callout: translated code does not go on behind it, since the fragment that it is
 * in is not to run any more. */
static inline void bt_leave_fragment(struct vcpu *v) {
    v->leave_code = true;
}

static inline bool bt_canonical(const struct vcpu *v, uint64_t a) {
    return v->mode != MODE_64 || (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* Has code been written, by whomever, since BT looked up what it executes? It may be what
 * it would go on with. */
static inline bool bt_code_died(const struct bt *bt) {
    return __atomic_load_n(&bt->sh->tc.deaths, __ATOMIC_ACQUIRE) != bt->deaths;
}

static inline void bt_note_deaths(struct bt *bt) {
    bt->deaths = __atomic_load_n(&bt->sh->tc.deaths, __ATOMIC_ACQUIRE);
}

/* --- stats.c --- */

void bt_note_trap(struct bt *bt, enum bt_trap_why why);

/* --- poll.c --- */

/* Translated code may go on after a kick: events are to be looked at after that. */
void bt_poll_open(struct bt *bt);

/* --- recover.c: where the guest is, from where the host is --- */

/* The guest instruction whose expansion holds RX; NULL: C has none. */
const struct site *bt_site_of(const struct ccf *c, const uint8_t *rx);
/* The guest's rip, and what is owed in a counted run, at RX of C. */
const struct site *bt_set_rip(struct vcpu *v, const struct ccf *c, const uint8_t *rx);
/* vcpu.x87_ran; and the same for whatever the vCPU's image has, parked. */
void bt_x87_ran(struct vcpu *v, uint64_t host_ip);
void bt_x87_settle(struct vcpu *v);

/* --- share.c: several vCPUs, one cache --- */

/* Only one at a time changes the cache and what is known of code; whoever waits is out of
 * its engine, and looks up anew what calls may take away: entries of its shadow. */
void bt_lock(struct bt *bt);
void bt_unlock(struct bt *bt);
/* tc_select_key(), for who does not have the lock. */
bool bt_select_key(struct bt *bt, uint32_t key);
/* BT enters code, and has addresses in the cache in hand until it lets go. */
void bt_hold(struct bt *bt);
/* The same, until the door is open again. */
void bt_stay_out(struct bt *bt);
/* Lets go, takes the lock and stops all others, none of which holds anything of the cache
 * then; not while BT has the lock. The same back. */
void bt_stop(struct bt *bt);
void bt_go_on(struct bt *bt);
/* Whose thread this is; NULL: no vCPU's of SH. */
struct bt *bt_storing(struct bt_shared *sh);

/* --- breaks.c: a debugger's breakpoints --- */

/* Is the instruction at CODE, in RAM, never to be translated? */
bool bt_breaks_at(const struct bt *bt, const uint8_t *code);
/* vcpu.code_mapped */
void bt_code_mapped(struct vcpu *v, uint64_t page, uint8_t *host);

/* --- adapt.c: what keeps trapping --- */

bool bt_verdict_is(const struct bt *bt, uint64_t va, const uint8_t *page,
                   enum bt_verdict verdict);
/* Is I, at VA on PAGE, to be a callout? It is no branch then. */
bool bt_is_trap(const struct bt *bt, const struct insn *i, uint64_t va,
                const uint8_t *page);
/* A copy of I, in SPAN, that its callout is to execute, counting its traps; NULL: full.
 */
struct insn *bt_trap_callout(struct tr_span *span, const struct insn *i, uint64_t va,
                             uint8_t *page);
void bt_forget_verdicts(struct bt *bt);
#define BT_ANCHOR_SAMPLE 1021u /* of so many misses of anchors one is seen */
/* An anchor that C, which is being executed, has for a pointer of its own has missed, at
 * S. True: C is dead, and to be left. */
bool bt_anchor_missed(struct bt *bt, struct ccf *c, const struct site *s);
/* C, which is being executed, has trapped at S; it may be dead afterwards. */
void bt_trapped(struct bt *bt, struct ccf *c, const struct site *s,
                const struct bt_trap *trap);
/* Nobody executes translated code. NOW is the TSC. */
void bt_review(struct bt *bt, uint64_t now);

/* --- pause.c: loops that wait --- */

/* Is I to be a callout, since it means that the vCPU waits for another? */
bool bt_is_wait(const struct bt *bt, const struct insn *i);
/* A copy of it, in SPAN; NULL: full. */
struct insn *bt_wait_callout(struct tr_span *span, const struct insn *i);
/* At a quiet place, when BT.waits. */
void bt_yield(struct bt *bt);

/* --- divide.c: divisions that fault --- */

bool bt_division_faults(const struct bt *bt, uint64_t va);
/* The host has faulted in C at the guest's rip. */
void bt_division_faulted(struct bt *bt, struct ccf *c);
/* A callout for the division at VA has ended. */
void bt_division_done(struct bt *bt, uint64_t va, bool fault);

/* --- recent.c: what has been executed of late --- */

#define BT_RAN_WORDS ((1u << TR_HEAT_BITS) / 64)
/* A fragment that is counted in that slot has been made for the guest. */
void bt_recent_made(struct bt *bt, unsigned slot);
/* The guest has nothing to do. */
void bt_recent_idle(struct bt *bt);
/* What is counted in that slot was executed lately; or was not, but for what comes. */
bool bt_is_recent(const struct bt *bt, unsigned slot);
void bt_recent_not(struct bt *bt, unsigned slot);

/* --- make.c: fragments --- */

/* What the translator asks; its argument is the struct bt. */
extern const struct tr_advice bt_advice;
/* Makes a fragment for v->rip under KEY, or NULL when the code cannot be fetched (fault
 * in v->fault, *FAULT set) or the cache is full. */
struct ccf *bt_translate(struct bt *bt, uint32_t key, bool *fault);
/* The fragment for the guest's rip, whose byte is on PAGE, if it has one; a second page
 * is fetched from where C has one: NULL, with *FAULT, when that fails. */
struct ccf *bt_find_shared(struct bt *bt, const uint8_t *page, uint32_t key, bool *fault);
/* The hot path for it, if there is one that goes where its second page is now. */
struct ccf *bt_find_path(struct bt *bt, const uint8_t *page, uint32_t key);
/* A shared fragment for KEY at OFFSET of PAGE, which is RAM, wherever that is mapped.
 * NULL: there is none to be had so; TR_FULL: nor any other. */
struct ccf *bt_make_at(struct bt *bt, uint8_t *page, unsigned offset, uint32_t key,
                       enum tr_result *r);
/* C is hot after N executions more by one vCPU, whichever. */
void bt_set_heat(const struct bt *bt, const struct ccf *c, uint32_t n);
/* Makes a hot path at the guest's rip for C, which is there. */
void bt_heat_up(struct bt *bt, struct ccf *c);
/* Nothing has been executed yet by BT. */
void bt_cool(struct bt *bt);
/* Room in the cache. Fragments that are held in hand may be gone. */
void bt_make_room(struct bt *bt);
/* Keys get their tables of indirect branches anew: there are more keys than tables. */
void bt_renew_tables(struct bt *bt);
/* With --bt verify: false, once reported, when the stubs are not proved. */
bool bt_verify_common(struct bt *bt);

/* --- gate.c --- */

/* I has been executed, and led from key FROM to the current one. */
void bt_gate_keep(struct bt *bt, const struct insn *i, uint32_t from);
void bt_emit_gates(struct bt *bt, struct emit *e); /* behind the transfer stub */

/* --- called by the stubs, which trust them no further than this: where to go on and what
 * is in the registers. They trust nobody: what the guest could have a hand in is checked
 * where it is used. --- */

/* callout.c. 0: go on at tr_vcpu.resume. */
int bt_callout(struct vcpu *v, const struct insn *i);
/* The same for what tr_transfers(): where to go on, or NULL: nothing has been done, and
 * bt_callout() is to. General registers that C functions save are not in vcpu.gpr[]. */
uint8_t *bt_transfer(struct vcpu *v, const struct insn *i);
/* The interpreter is to execute the instruction at the guest's rip: where to go on then,
 * or NULL to leave. */
uint8_t *bt_emulate(struct vcpu *v);
/* access.c: where the bytes at ADDR are, for the access that SITE says; NULL: see
 * bt_emulate(). */
uint8_t *bt_slow_access(struct vcpu *v, uint64_t addr, uint32_t site, const uint8_t *rx);
/* The checks of a fragment failed: the bank for fetches has not got the page of ADDR, or
 * has another than the code wants, or it is another address's. Where to go: to FAILED,
 * for another try, if the bank had none and has one now; to the one of the second table,
 * if it was FAILED that the first one has; NULL: the dispatcher is to look. */
uint8_t *bt_fetch(struct vcpu *v, uint64_t addr, uint8_t *failed);

/* --- fault.c: os_fault_range()'s, for the cache; ARG is the struct bt --- */
bool bt_host_fault(void *arg, struct os_fault *f);

/* --- stubs.c: the common code at the start of the cache --- */
void bt_emit_stubs(struct bt *bt);

#endif
