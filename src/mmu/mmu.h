/*
 * The MMU: walks the guest's page tables (primary structures) and keeps the shadow.
 *
 * The shadow is a software TLB, direct-mapped and tagged, read inline by mmu_ptr() below
 * (and by emitted code). One entry serves one 4 KiB page of one address space in one
 * bank:
 *
 *   - tag[access]: the page's linear address if that access is allowed, else a value that
 *     no address of this slot can match (mmu_no_tag()). A hit is `addr - tag <= 4096 -
 * size` unsigned, which also rejects page crossings;
 *   - host: the page's host address.
 *
 * Banks separate privilege: BANK_USER (CPL 3), BANK_SUPER (supervisor; with CR4.SMAP,
 * user pages are absent), BANK_SUPER_AC (supervisor, explicit access with RFLAGS.AC set
 * or without SMAP); BANK_SUPER_X and BANK_USER_X serve fetches (mmu_mapping()).
 * vcpu.mmu->data points at the bank of the current CPL and AC for explicit accesses,
 * ->sys at the one for implicit supervisor accesses (descriptor tables, TSS).
 *
 * An entry is writable only when the PTE is dirty, the page is RAM, no page trace is on
 * it and no data breakpoint lies in it. MMIO, ROM writes, A20-wrapped pages, pages with
 * breakpoints and everything else take the slow path.
 *
 * Address spaces ("spaces") are kept according to the retention policy; see
 * docs/mmu.md. Faults are left in vcpu.fault and reported by the return value.
 */
#ifndef MMU_MMU_H
#define MMU_MMU_H

#include "cpu/vcpu.h"
#include "mem/mem.h"

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC };
enum mmu_bank {
    BANK_SUPER,
    BANK_SUPER_AC,
    BANK_USER,
    BANK_SUPER_X, /* fetches: apart, so that code and data do not evict each other */
    BANK_USER_X,
    BANK_COUNT
};
enum mmu_policy { MMU_FLUSH, MMU_PCID, MMU_TRACE };

struct shadow_entry {
    uint64_t tag[3];
    uint8_t *host;
};
_Static_assert(sizeof(struct shadow_entry) == 32, "indexed by shifts in emitted code");

#define SHADOW_BITS 18
#define SHADOW_ENTRIES (1u << SHADOW_BITS)
#define SHADOW_HASH 14

/*
 * An anchor is a copy of an entry, found by the place in the code that uses it instead of
 * by the address: emitted code that keeps to one page (a stack, a thread's variables, a
 * pointer of a loop) saves the hash. One anchor serves one kind of access. What an anchor
 * holds, the entry of that page holds too: whoever drops a tag drops the anchors first,
 * and the mark SHADOW_ANCHORED in tag[MMU_EXEC] (data banks have no other use for it)
 * says that there may be some.
 *
 * SHADOW_NO_ANCHOR is the tag of an unused one. Only addresses that are not canonical
 * match it; its host address is mmu.nowhere, a page that nobody can access. So no number
 * of the guest's becomes a host address, and the host's fault there means that the guest
 * is to have its own (#GP or #SS).
 */
struct shadow_anchor {
    uint64_t tag;
    uint8_t *host;
};
_Static_assert(sizeof(struct shadow_anchor) == 16, "indexed by shifts in emitted code");

#define SHADOW_ANCHORS 512
#define SHADOW_NO_ANCHOR 0x8000000000000000ull
#define SHADOW_ANCHORED 1ull

struct shadow_bank {
    struct shadow_entry e[SHADOW_ENTRIES];
    struct shadow_anchor anchor[SHADOW_ANCHORS];
    uint64_t anchored; /* not 0: some anchor may be in use */
};
_Static_assert(!offsetof(struct shadow_bank, e), "emitted code takes one for the other");

struct mmu {
    struct shadow_bank *data; /* explicit accesses now */
    struct shadow_bank *code; /* fetches now */
    struct shadow_bank *sys;  /* implicit supervisor accesses now */
    struct vcpu *v;
    uint8_t *nowhere; /* 4096 bytes that cannot be accessed: where unused anchors point */
    /* The rest belongs to mmu/ (mmu_int.h). */
};

/* Creates the MMU of V (v->mem must be set), and installs v->mmu. 0 or -ENOMEM. Nobody
 * may use memory that has traces, or change the map, before mmu_hook(). */
int mmu_create(struct vcpu *v, enum mmu_policy policy);
/* Takes its hooks off, too. */
void mmu_destroy(struct vcpu *v);
/* Memory tells this MMU: hooks.changed and drop_write, and MEM_TRACE_PT. */
void mmu_hook(struct vcpu *v);

/*
 * The slot of an address: page-number bits 0..17 xor bits 14..31. Any aligned GiB fills
 * the bank without conflict (x ^ x >> 14 is a permutation), and so does, but for a few
 * dozen pages, any other GiB: on the two sides of a border between GiBs slots differ by
 * their low bits alone. Streams 1, 2... GiB apart are 16, 32... slots away from each
 * other. In emitted code: rorx, xor, shr, and.
 */
static inline unsigned mmu_index(uint64_t addr) {
    return (unsigned)((addr ^ addr >> SHADOW_HASH) >> 12) & (SHADOW_ENTRIES - 1);
}

/*
 * A tag that no address of slot INDEX matches. Proof: the tag T is page-aligned and an
 * address matches only if `addr - T <= 4095`, that is, if addr lies in page T. All
 * addresses of page T have the slot of T: page 0 has slot 0, page 1 has slot 1.
 */
static inline uint64_t mmu_no_tag(unsigned index) {
    return index ? 0 : 4096;
}

/*
 * Page and host page of an entry for fetches in one word, so that one comparison sees
 * both: tag[SHADOW_MAPPING], in banks for fetches, through which nobody reads. No other
 * pair of that slot has it: the slot and the address from bit 25 on make the page
 * (mmu_index() is a permutation of its low bits for given high ones), and there is room
 * for host addresses up to bit 51. Never one of mmu_no_tag()'s: bit 40 is set.
 */
#define SHADOW_MAPPING MMU_READ

static inline uint64_t mmu_mapping(uint64_t addr, const uint8_t *host) {
    return (uint64_t)(uintptr_t)host >> 12 | 1ull << 40 | addr >> 25 << 41;
}

/* What an access that faulted returns: sem.h's SEM_FAULT, so that either may be passed on
 * as the other. */
#define MMU_FAULT 4

/*
 * --- access by semantic code ---
 * 0, or MMU_FAULT with the exception in v->fault. Linear addresses; segmentation is
 * sem's. An access may cross pages; a write changes nothing unless all of it may be
 * written. The _sys forms are implicit supervisor accesses.
 */
int mmu_read_slow(struct vcpu *v, struct gva at, void *buf, unsigned len, bool sys);
int mmu_write_slow(struct vcpu *v, struct gva at, const void *buf, unsigned len,
                   bool sys);

/* Host pointer for a hit, NULL otherwise. Inline fast path of everything. */
static inline uint8_t *mmu_hit(const struct shadow_bank *b, struct gva at, unsigned len,
                               enum mmu_access acc) {
    const struct shadow_entry *e = &b->e[mmu_index(at.a)];
    uint64_t off = at.a - e->tag[acc];
    return likely(len <= 4096 && off <= 4096 - (uint64_t)len) ? e->host + off : NULL;
}

/* LEN is 1, 2, 4 or 8 in these two; the value is zero-extended. */
static inline int mmu_load(struct vcpu *v, struct gva at, unsigned len, uint64_t *out) {
    const uint8_t *p = mmu_hit(v->mmu->data, at, len, MMU_READ);
    *out = 0;
    if (unlikely(!p))
        return mmu_read_slow(v, at, out, len, false);
    switch (len) {
    case 1:
        *out = *p;
        return 0;
    case 2:
        *out = *(const unaligned_u16 *)p;
        return 0;
    case 4:
        *out = *(const unaligned_u32 *)p;
        return 0;
    default:
        *out = *(const unaligned_u64 *)p;
        return 0;
    }
}

static inline int mmu_store(struct vcpu *v, struct gva at, unsigned len, uint64_t val) {
    uint8_t *p = mmu_hit(v->mmu->data, at, len, MMU_WRITE);
    if (unlikely(!p))
        return mmu_write_slow(v, at, &val, len, false);
    switch (len) {
    case 1:
        *p = (uint8_t)val;
        return 0;
    case 2:
        *(unaligned_u16 *)p = (uint16_t)val;
        return 0;
    case 4:
        *(unaligned_u32 *)p = (uint32_t)val;
        return 0;
    default:
        *(unaligned_u64 *)p = val;
        return 0;
    }
}

/*
 * A window on LEN <= 64 bytes for a read-modify-write or a host instruction: P is either
 * guest RAM itself or a bounce buffer, with the same address modulo 64. For an access
 * that writes, permission is checked (and faults taken) before anything is read.
 * WILL_READ says whether the bytes must be fetched. After the change, mmu_window_commit()
 * writes a bounce buffer back; it cannot fault for RAM.
 */
struct mmu_piece {
    uint64_t at;
    uint64_t gpa; /* valid without host */
    uint8_t *host;
    unsigned len;
    bool rom;
};
enum mmu_hold { MMU_HOLD_NONE, MMU_HOLD_TRACES, MMU_HOLD_ALL, MMU_HOLD_SPLIT };
struct mmu_window {
    uint8_t *p;
    unsigned len;
    bool bounced;
    bool write;         /* opened for writing: mmu_window_commit() has something to do */
    enum mmu_hold hold; /* what a locked one keeps until it is committed */
    unsigned count;
    struct mmu_piece piece[2]; /* COUNT of them, of a bounced one */
    _Alignas(64) uint8_t buf[128];
};
int mmu_window_open(struct vcpu *v, struct mmu_window *w, struct gva at, unsigned len,
                    bool will_read, bool will_write);
/*
 * The same for one locked read and write: the caller changes the bytes at P by one locked
 * instruction, and nobody else does in between; then it commits, always. Where a locked
 * instruction of the host's would not do, others are kept away until then: who stores to
 * the page by a lock, everybody by a stop when the bytes are in two pages (or two lines,
 * where the host punishes that), other locked accesses when they are a device's.
 */
int mmu_window_open_locked(struct vcpu *v, struct mmu_window *w, struct gva at,
                           unsigned len);
void mmu_window_commit(struct vcpu *v, struct mmu_window *w);

/* Checks that LEN bytes could be accessed, as the access itself would (A/D bits set too).
 * 0 or MMU_FAULT. */
int mmu_probe(struct vcpu *v, struct gva at, unsigned len, enum mmu_access acc, bool sys);

/*
 * For repeated string operations: a host pointer to as much of [AT, AT+LEN) as lies in
 * its page and is plain memory for this access, *RUN bytes (>= 1); NULL with *RUN = 0
 * when the caller must go element by element (MMIO, traced page), or a fault
 * (MMU_FAULT).
 */
int mmu_run(struct vcpu *v, struct gva at, uint64_t len, enum mmu_access acc, uint8_t **p,
            uint64_t *run);

static inline int mmu_sys_read(struct vcpu *v, struct gva at, void *buf, unsigned len) {
    const uint8_t *p =
        len == 8 || len == 16 ? mmu_hit(v->mmu->sys, at, len, MMU_READ) : NULL;
    uint64_t *to = buf;

    if (likely(p)) { /* descriptors and gates */
        to[0] = *(const unaligned_u64 *)p;
        if (len == 16)
            to[1] = *(const unaligned_u64 *)(p + 8);
        return 0;
    }
    return mmu_read_slow(v, at, buf, len, true);
}

static inline int mmu_sys_write(struct vcpu *v, struct gva at, const void *buf,
                                unsigned len) {
    return mmu_write_slow(v, at, buf, len, true);
}

/* Four bytes become VALUE if they are *OLD, and *OLD what they were: by one locked
 * access. 0, or MMU_FAULT. */
int mmu_sys_exchange(struct vcpu *v, struct gva at, uint32_t *old, uint32_t value);

/*
 * Instruction fetch: host pointer to the byte at AT, valid to the end of its page, or
 * NULL with the fault in v->fault. Where no memory is (MMIO, holes) the bus floats: the
 * pointer is to a page of 0xff bytes outside guest RAM (mem_gpa() gives ~0; it is never
 * entered in the shadow), and the guest runs FF FF, that is #UD.
 */
const uint8_t *mmu_fetch_slow(struct vcpu *v, struct gva at);

static inline const uint8_t *mmu_fetch(struct vcpu *v, struct gva at) {
    const uint8_t *p = mmu_hit(v->mmu->code, at, 1, MMU_EXEC);
    return likely(p) ? p : mmu_fetch_slow(v, at);
}

/* --- architectural events: the caller has already changed the vCPU's registers --- */
void mmu_cr3_loaded(struct vcpu *v, uint64_t value); /* VALUE as written, with bit 63 */
/* CR0, CR4, EFER bits that matter. Drops all, but where there is no paging before and
 * after. */
void mmu_mode_changed(struct vcpu *v);
void mmu_context_changed(struct vcpu *v); /* CPL or RFLAGS.AC: picks the banks. Cheap. */
void mmu_invlpg(struct vcpu *v, struct gva at);
/* INVPCID types 0..3; the caller has checked the descriptor. */
void mmu_invpcid(struct vcpu *v, unsigned type, unsigned pcid, struct gva at);
/* Drops everything, and samples the A20 gate: to be called when the gate has moved, after
 * a machine reset, and when hooks or the CPUID model were installed. */
void mmu_flush_all(struct vcpu *v);
/* Gives the memory of V's shadow back, and all that is in it, if much has been filled
 * since the last time: V is idle. At a quiet place. */
void mmu_trim(struct vcpu *v);
void mmu_breakpoints_changed(struct vcpu *v); /* DR0-3, DR7 */
/* A debugger's breakpoint or watched range (v->stops) of LEN bytes, not 0, has come or
 * gone at FROM. */
void mmu_stops_changed(struct vcpu *v, struct gva from, uint64_t len);
/* Loads v->pdpte, PAE's page-directory pointers, as a load of CR3 does; 0, or MMU_FAULT
 * with #GP in v->fault. */
int mmu_load_pdptrs(struct vcpu *v, uint64_t cr3);
/* Somebody else walks the guest's tables, too, and marks these pointers as accessed, as
 * an emulator of hardware may: that bit is not reserved in them. */
void mmu_pdptrs_accessed(struct vcpu *v);

/*
 * --- an observer ---
 *
 * Keeps what the shadow holds somewhere else, too: in another process's page tables, say.
 * Everything that has been told as filled and has not been dropped since is in the
 * shadow, with these rights, and nothing else is: for each space, bank and page there is
 * one entry at most. Told on the vCPU's thread, while it happens; an observer must not
 * call what changes the shadow. Nobody is told of hits: those cost what they did.
 */
struct mmu_entry {
    unsigned space; /* a small number: that of an address space for as long as it lives */
    enum mmu_bank bank;
    uint64_t page;  /* linear */
    uint8_t *host;  /* of the page */
    uint8_t access; /* 1u << MMU_READ and so on; none: a watched page */
    bool global;
    uint8_t shift; /* log2 of the size of the guest's page that it is a part of */
};

struct mmu_observer {
    /* An entry has come; or the one of this space, bank and page has changed. */
    void (*filled)(void *arg, const struct mmu_entry *e);
    void (*dropped)(void *arg, unsigned space, enum mmu_bank bank, uint64_t page);
    /* It has no right to write any more; the rest of it stays. */
    void (*write_dropped)(void *arg, unsigned space, enum mmu_bank bank, uint64_t page);
    /* All entries of a space are gone, or all but those that are global; who keeps what
     * it was told (below) is to see what of that is still so. */
    void (*flushed)(void *arg, unsigned space, bool but_global);
    /* For who keeps what it was told although the shadow, which has few places, needs one
     * for another page; each may be NULL. E, of a page of 4 KiB, has gone for want of
     * room (NULL: that is `dropped`, as it is for others). Nothing is to be kept of the
     * pages from LO to HI, and no right to write to the page at HOST: told whether the
     * shadow has any of it or not. */
    void (*evicted)(void *arg, const struct mmu_entry *e);
    void (*invalidated)(void *arg, unsigned space, uint64_t lo, uint64_t hi);
    void (*host_write_dropped)(void *arg, const uint8_t *host);
    /* What was filled for data last is code by the guest's tables, and is not written:
     * somebody reads his program. May be NULL. */
    void (*code_read)(void *arg, const struct mmu_entry *e);
    /* From now on the banks of CPL 3 are those of USER, the others those of SUPER. */
    void (*switched)(void *arg, unsigned user, unsigned super);
};

#define MMU_SPACES_MAX 17 /* spaces have numbers below this */

/*
 * What user code may do with the page of AT now, 1u << MMU_READ and so on, without any
 * effect on the guest's tables: where bits A and D are set already. *HOST is that page of
 * the RAM, *LARGE whether it is a part of a page of 2 MiB. For an observer that keeps
 * pages: of rights to write it goes on being told by host_write_dropped().
 */
unsigned mmu_may_keep(struct vcpu *v, struct gva at, uint8_t **host, bool *large);

/* Empties the shadow, so that O knows all of it from then on, and tells which spaces
 * serve. O and ARG are the caller's; NULL: nobody is told any more. */
void mmu_observe(struct vcpu *v, const struct mmu_observer *o, void *arg);

/*
 * The primary walk alone, with no side effect: for the debugger and for tests.
 * True when mapped; *GPA and *WRITABLE are set.
 */
bool mmu_peek(struct vcpu *v, struct gva at, struct gpa *gpa, bool *writable);

/* The shadow's side of mem_hooks.changed, and of drop_write and drop_writes. ARG is the
 * vCPU. */
void mmu_map_changed(void *arg);
void mmu_drop_write(void *arg, uint8_t *host_page);
void mmu_drop_writes(void *arg);
/* May V hold a write entry for the page, or an address that it had from one? Exact for
 * one of several vCPUs: set before the entry is, and cleared by mmu_drop_write() alone.
 */
bool mmu_may_write(const struct vcpu *v, const uint8_t *host_page);
/* Owner of MEM_TRACE_PT. ARG is the vCPU. */
void mmu_pt_written(void *arg, struct gpa at, unsigned len);

#endif
