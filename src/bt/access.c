/*
 * What emitted code calls when an inline check fails: an access that the shadow does not
 * have yet.
 */
#include "base/bug.h"
#include "bt/bt_int.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "x86/exception.h"

/* The instruction at RX makes no other access than the one that has just faulted. */
static uint8_t *leave_with_fault(struct vcpu *v, const uint8_t *rx) {
    struct bt *bt = bt_of(v);
    struct ccf *c = tc_find(&bt->sh->tc, rx);

    bt_set_rip(v, c, rx);
    tr_vcpu(v)->reason = BT_LEAVE_EMULATE;
    tr_vcpu(v)->borrowed_by = &c->code;
    tr_vcpu(v)->fault_known = true;
    return NULL;
}

/* The instruction at RX is the interpreter's: it knows about #SS, the order of checks and
 * all else that an exception depends on. */
static uint8_t *leave_to_interp(struct vcpu *v, const uint8_t *rx, uint32_t site,
                                enum bt_trap_why why) {
    const struct bt_trap trap = {.why = why, .site = site};
    struct bt *bt = bt_of(v);
    struct ccf *c = tc_find(&bt->sh->tc, rx);
    const struct site *s = bt_set_rip(v, c, rx);

    tr_vcpu(v)->reason = BT_LEAVE_EMULATE;
    tr_vcpu(v)->single =
        why == BT_TRAP_RANGE && !(c->code.key & KEY_SINGLE) && !(site & SITE_SOLE);
    tr_vcpu(v)->borrowed_by = &c->code; /* not all registers are in vcpu.gpr[] yet */
    if (!tr_vcpu(v)->single)
        bt_note_trap(bt, why);
    bt_trapped(bt, c, s, &trap);
    return NULL;
}

/* What stands in the way of an access that the guest's page tables allow. */
static enum bt_trap_why unavailable(struct vcpu *v, uint64_t addr, uint32_t site) {
    uint8_t *p;
    uint64_t run;

    if (SITE_ACCESS(site) == MMU_WRITE &&
        !mmu_run(v, gva(addr), 1, MMU_WRITE, &p, &run) && p)
        return BT_TRAP_DROPS;
    if (mmu_run(v, gva(addr), 1, MMU_READ, &p, &run) || !p)
        return BT_TRAP_DEVICE;
    return BT_TRAP_TRACED;
}

/* Host address of the byte at AT: of a group (not ALONE) only what is in the shadow, for
 * the guest may not get to all of it, and a walk leaves A and D bits. */
static uint8_t *part(struct vcpu *v, uint64_t at, enum mmu_access acc, bool alone) {
    uint8_t *p;
    uint64_t run;

    if (!alone)
        return mmu_hit(v->mmu->data, gva(at), 1, acc);
    return mmu_run(v, gva(at), 1, acc, &p, &run) ? NULL : p;
}

/* A range of LEN bytes at ADDR that crosses into another page, both plain memory: where
 * the pages are neighbours in host memory too, or a copy as far from 64-byte boundaries
 * as the bytes themselves are, if it is a read, ALONE, and no more than one instruction
 * reads. NULL: not so. */
static uint8_t *crossing(struct vcpu *v, uint64_t addr, unsigned len, enum mmu_access acc,
                         bool alone) {
    unsigned first = 4096 - (unsigned)(addr & 4095);
    uint8_t *to, *p, *q;

    if (first >= len)
        return NULL;
    p = part(v, addr, acc, alone);
    q = p ? part(v, (addr + first) & v->lin_mask, acc, alone) : NULL;
    if (!q)
        return NULL;
    if (q == p + first)
        return p;
    if (!alone || acc != MMU_READ || len > TR_BOUNCE_LEN)
        return NULL;
    to = bt_of(v)->bounce + (addr & 63);
    for (unsigned n = 0; n < len; n++)
        to[n] = n < first ? p[n] : q[n - first];
    v->cnt->bt_crossings++;
    return to;
}

/* LEN bytes at ADDR, which lie in a page and may be written, are about to be, by nobody
 * else than the access at hand: their host address, where all that stands in the way is
 * that there is code on the page, but not in them. A JIT's data lie between its code.
 * NULL: not so. */
static uint8_t *beside_code(struct vcpu *v, uint64_t addr, unsigned len) {
    const unsigned code = MEM_TRACE_CODE | MEM_TRACE_TC;
    const struct bt *bt = bt_of(v);
    uint8_t *p;
    uint64_t run;

    /* Others may be translating from there before the store is done. */
    if (bt->sh->env.smp)
        return NULL;
    if (mmu_run(v, gva(addr), len, MMU_READ, &p, &run) || !p ||
        mem_kind_of(v->mem, p) != MEM_RAM || !(mem_trace_of(v->mem, p) & code) ||
        (mem_trace_of(v->mem, p) & ~code) || tc_has_code(&bt->sh->tc, p, len) ||
        interp_has_code(bt->ip, p, len))
        return NULL;
    v->cnt->trace_hits_beside++;
    return p;
}

/* An anchor has missed, as many have before: is its fragment to be left, at the
 * instruction at RX? */
static bool anchor_misses(struct vcpu *v, const uint8_t *rx, uint32_t site) {
    unsigned anchor = site >> SITE_ANCHOR_SHIFT & (SHADOW_ANCHORS - 1);
    struct bt *bt = bt_of(v);
    const struct site *s;
    struct ccf *c;

    tr_vcpu(v)->anchor_left = BT_ANCHOR_SAMPLE;
    if (anchor < ANCHOR_FREE)
        return false;
    c = tc_find(&bt->sh->tc, rx);
    BUG_ON(!c);
    s = bt_site_of(c, rx);
    return s && bt_anchor_missed(bt, c, s);
}

/* The instruction at RX is made again elsewhere. */
static uint8_t *leave_it(struct vcpu *v, const uint8_t *rx) {
    struct ccf *c = tc_find(&bt_of(v)->sh->tc, rx);

    bt_set_rip(v, c, rx);
    tr_vcpu(v)->reason = BT_LEAVE_EMULATE;
    tr_vcpu(v)->borrowed_by = &c->code;
    return NULL;
}

uint8_t *bt_slow_access(struct vcpu *v, uint64_t addr, uint32_t site, const uint8_t *rx) {
    enum mmu_access acc = (enum mmu_access)SITE_ACCESS(site);
    unsigned len = SITE_SIZE(site);
    uint64_t drops = v->shadow.write_drops;
    uint8_t *p;
    uint64_t run;

    BUG_ON(acc > MMU_WRITE);
    bt_sync_bank(v);
    if (unlikely(!tr_vcpu(v)->anchor_left) && anchor_misses(v, rx - 1, site))
        return leave_it(v, rx - 1);
    p = crossing(v, addr, len, acc, (site & SITE_ALONE) && acc == MMU_READ);
    if (p && v->shadow.write_drops == drops)
        return p;
    /* No A or D bit for what only belongs to the group. */
    if ((addr & 4095) + len > 4096)
        return leave_to_interp(v, rx - 1, site, BT_TRAP_RANGE);
    if (mmu_run(v, gva(addr), len, acc, &p, &run)) {
        if ((site & SITE_SOLE) && v->fault.vector == X86_PF)
            return leave_with_fault(v, rx - 1);
        return leave_to_interp(v, rx - 1, site, BT_TRAP_FAULT);
    }
    if (likely(p && run >= len && v->shadow.write_drops == drops))
        return p;
    if ((site & SITE_ALONE) && acc == MMU_WRITE && v->shadow.write_drops == drops) {
        p = beside_code(v, addr, len);
        if (p)
            return p;
    }
    return leave_to_interp(v, rx - 1, site, unavailable(v, addr, site));
}

static bool fetches(struct vcpu *v, uint64_t addr) {
    bt_sync_bank(v);
    v->cnt->bt_fetches++;
    bt_of(v)->noted = false;
    if (!mmu_fetch_slow(v, gva(addr)) || unlikely(bt_of(v)->noted))
        return false;
    return mmu_hit(v->mmu->code, gva(addr), 1, MMU_EXEC) != NULL;
}

uint8_t *bt_fetch(struct vcpu *v, uint64_t addr, uint8_t *failed) {
    uint8_t *rx;

    if (!bt_canonical(v, addr))
        return NULL;
    if (!mmu_hit(v->mmu->code, gva(addr), 1, MMU_EXEC))
        return fetches(v, addr) ? failed : NULL;
    /* A link's target is found anew (mislead()); one of the table's may be elsewhere. */
    if (tc_jump_target(v, addr) != failed)
        return NULL;
    bt_lock(bt_of(v));
    rx = tc_jump_second(&bt_of(v)->sh->tc, v, addr);
    bt_unlock(bt_of(v));
    if (!rx || rx == failed)
        return NULL;
    v->cnt->bt_seconds++;
    return rx;
}
