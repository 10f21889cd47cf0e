/*
 * Translated code as the translator hands it over: a piece of host code and what has to
 * be known of it. Whoever keeps it finds it by address, page and key, chains its links,
 * and drops it when its guest code changes.
 *
 * Code is shared or a hot path. Shared code belongs to its bytes in RAM: it is right
 * wherever they are mapped, for it makes guest addresses from that of the page that is
 * being executed (tr_vcpu.here). A hot path is for one address, and what it makes of
 * addresses is numbers; or, where code is hot at several of them, for all, like shared
 * code.
 *
 * Entries, all with the flags in memory but entry_regs:
 *   - entry_jump: T0 is the guest address wanted; goes on when it is one of this code's,
 *     which the shadow says: the page there is this code's page, and may be executed;
 *   - entry_check: the same; of a path for one address, for that;
 *   - entry_here: entry_check for the address in the page that is being executed;
 *   - entry_mem, entry_regs: the code itself. Whoever comes from the same page, or has
 *     looked himself, enters here.
 *
 * Shared code counts its executions at its head. When there are hot paths for it, the
 * head leads to the first one's `select`, which compares addresses and goes on to the
 * path, to the next one's, or back behind the head (tr_head_turn()).
 *
 * A link is a direct exit: a rel32 in the code that goes either to a stub (leave the
 * cache and say which link it was) or, chained, to another fragment's entry.
 *
 * Records (links, sites, pieces, the instructions of callouts) live as long as the code,
 * which has their addresses or numbers (tr_record_number()) in it.
 */
#ifndef TR_CODE_H
#define TR_CODE_H

#include "cpu/vcpu.h"
#include "tr/vcpu.h"

struct tr_code;

struct link {
    struct tr_code *from;
    uint64_t
        target; /* guest address; of shared code, from its page on: tr_link_target() */
    uint8_t *rel32; /* RW */
    uint8_t *stub;  /* RX: where it goes when not chained */
    uint8_t place;  /* enum flags_place at the exit */
    bool same_page;
    /* The rest is the keeper's, 0 at first: what it is chained to, and the other links
     * into the same. */
    struct tr_code *to;
    struct link *next_in, **at_in;
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
    uint16_t host;  /* offset from tr_code.start */
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

struct tr_code {
    /* What was asked for. */
    uint64_t va;    /* of shared code: one of its addresses */
    uint8_t *page;  /* host address of the guest page it starts on */
    uint8_t *page2; /* another one: an instruction crosses, or the path goes there */
    uint32_t key;   /* tr_key() at translation */
    bool fixed;     /* it is for VA alone: a hot path of that kind */
    bool one_page;  /* a hot path that may not leave its page */
    bool hot;       /* a hot path, of: */
    const struct tr_code *shared;
    /* What came out. */
    uint8_t ninsns;     /* that its entry takes in a counted run */
    uint16_t guest_len; /* bytes from VA on; of a hot path, the sum of its pieces */
    uint16_t nsites;
    uint16_t hot_at;     /* behind START: what the head leads to when the code is hot */
    uint8_t borrowed[2]; /* where guest r14 and r15 are (borrow.c), + 1; 0: in memory */
    uint8_t npieces;     /* 0: GUEST_LEN bytes from VA on, into page2 if they cross */
    uint8_t nlinks;
    uint8_t *start, *end; /* RX */
    uint8_t *entry_jump, *entry_check, *entry_mem, *entry_regs;
    uint8_t *entry_save,
        *entry_here; /* with page2; the first: flags to memory, then that */
    uint64_t va2;    /* of page2, as va */
    uint8_t *head;   /* RW; NULL: executions are not counted */
    uint8_t *select; /* RX, of a hot path */
    uint8_t *past;   /* RW: the rel32 by which `select` goes on, behind itself at first;
                      * NULL: it always goes to the path */
    struct site *sites;
    struct piece *pieces;
    struct link *links;
};

/* Guest addresses of C's code, where it is being executed: HERE is tr_vcpu.here. */
static inline uint64_t tr_cut(const struct tr_code *c, uint64_t va) {
    return (c->key & 3) == MODE_64 ? va : (uint32_t)va;
}

static inline uint64_t tr_start_va(const struct tr_code *c, uint64_t here) {
    return c->fixed ? c->va : here + (c->va & 4095);
}

static inline uint64_t tr_site_va(const struct tr_code *c, const struct site *s,
                                  uint64_t here) {
    uint64_t page = c->va & ~4095ull, at = s->guest & SITE_PAGE2 ? c->va2 : page;

    if (!c->fixed)
        at += here - page;
    return tr_cut(c, at + (s->guest & 0xfff));
}

static inline uint64_t tr_link_target(const struct link *l, uint64_t here) {
    return l->from->fixed ? l->target : tr_cut(l->from, here + l->target);
}

/* The page behind VA's, in code of that key. */
static inline uint64_t tr_next_page(uint32_t key, uint64_t va) {
    va = (va | 4095) + 1;
    return (key & 3) == MODE_64 ? va : (uint32_t)va;
}

/* Registers as they are in C's code, in vcpu.gpr[], become what they are to the guest. */
void tr_give_back(struct vcpu *v, const struct tr_code *c);

/* tr_vcpu.site of an inline check that failed: size, kind, and the anchor to fill. */
#define SITE_SIZE_MAX 0xfffu
#define SITE_WHOLE_PAGE 0u /* in the place of the size */
#define SITE_SIZE(s) ((s)&SITE_SIZE_MAX ? (s)&SITE_SIZE_MAX : 4096u)
#define SITE_ACCESS(s) ((s) >> 12 & 3)
#define SITE_ALONE (1u << 14) /* an access whose host address nobody else will use */
/* What an instruction reads at most, and may have to be copied for it. */
#define TR_BOUNCE_LEN 64u
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
