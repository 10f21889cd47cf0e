/*
 * The dispatcher: finds or makes the fragment for the guest's rip, enters the cache, and
 * deals with whatever made translated code come back. Also the functions that the stubs
 * call, and the handler of host faults in the cache.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bug.h"
#include "bt/tr_int.h"
#include "bt/verify.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "sem/sem.h"
#include "x86/exception.h"
#include "x86/msr.h"

/* Instructions of 16-bit code that the interpreter runs before it is asked again. */
#define INTERP_SLICE 64

struct bt_options bt_defaults(void) {
    return (struct bt_options){
        .adapt = true,
        .anchors = true,
        .chain = true,
        .evict = true,
        .groups = true,
        .held = true,
        .lend = true,
        .unroll = true,
        .predict = true,
        .liveness = true,
        .stay = true,
        .verify = BT_VERIFY_DEFAULT,
        .hot = BT_HOT_DEFAULT,
        .path = BT_PATH_DEFAULT,
        .tu_limit = BT_TU_DEFAULT,
        .cache = BT_CACHE_DEFAULT,
    };
}

/* --- called from the stubs --- */

static struct bt *bt_of(const struct vcpu *v) {
    return v->bt.owner;
}

/* The guest address of the instruction whose expansion holds RX; sets *SITE if given. */
static const struct site *site_of(const struct ccf *c, const uint8_t *rx) {
    size_t off = (size_t)(rx - c->code);
    size_t lo = 0, hi = c->nsites;

    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;

        if (c->sites[mid].host <= off)
            lo = mid;
        else
            hi = mid;
    }
    return c->nsites ? &c->sites[lo] : NULL;
}

static bool canonical(const struct vcpu *v, uint64_t a) {
    return v->mode != MODE_64 || (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static void set_rip_in(struct vcpu *v, const struct ccf *c, const uint8_t *rx) {
    const struct site *s;

    BUG_ON(!c);
    s = site_of(c, rx);
    BUG_ON(!s);
    v->rip = bt_site_va(c, s);
    v->bt.owed = s->left;
}

static void set_rip(struct vcpu *v, const uint8_t *rx) {
    set_rip_in(v, bt_find_pc(bt_of(v), rx), rx);
}

/* A branch to a non-canonical address faults itself: takes back what its expansion did to
 * the registers, and says that v->fault is set. False: the interpreter is to find out.
 * The branch cannot be executed again, for a call may have stored its return address
 * where its operand was; processors store it too. */
static bool undo_branch(struct vcpu *v) {
    const struct bt *bt = bt_of(v);
    struct insn i;
    uint8_t bytes[15];

    set_rip(v, bt->code.rx + v->bt.site);
    v->bt.owed = 0;
    if (v->counted)
        v->cnt->insns_retired--;
    vec_park(v);
    if (mmu_read_slow(v, gva(v->rip), bytes, 1, false))
        return false;
    for (unsigned n = 1; n < sizeof(bytes); n++)
        if (mmu_read_slow(v, gva(v->rip + n), &bytes[n], 1, false))
            bytes[n] = 0;
    if (decode_insn(MODE_64, bytes, sizeof(bytes), &i) != DECODE_OK)
        return false;
    if (i.op == OP_call)
        v->gpr[REG_RSP] += i.opsize;
    else if (i.op == OP_ret)
        v->gpr[REG_RSP] -= i.opsize + (i.nops ? (uint16_t)i.imm : 0u);
    v->fault = (struct fault){.vector = X86_GP, .has_error = true};
    return true;
}

/* The instruction at RX makes no other access than the one that has just faulted. */
static uint8_t *leave_with_fault(struct vcpu *v, const uint8_t *rx) {
    struct bt *bt = bt_of(v);
    struct ccf *c = bt_find_pc(bt, rx);

    set_rip_in(v, c, rx);
    v->bt.reason = BT_LEAVE_EMULATE;
    v->bt.lent_by = c;
    v->bt.fault_known = true;
    return NULL;
}

/* The instruction at RX is the interpreter's: it knows about #SS, the order of checks and
 * all else that an exception depends on. */
static uint8_t *leave_to_interp(struct vcpu *v, const uint8_t *rx, uint32_t site,
                                enum bt_trap_why why) {
    const struct bt_trap trap = {.why = why, .site = site};
    struct bt *bt = bt_of(v);
    struct ccf *c = bt_find_pc(bt, rx);
    const struct site *s;

    BUG_ON(!c);
    s = site_of(c, rx);
    BUG_ON(!s);
    v->rip = bt_site_va(c, s);
    v->bt.owed = s->left;
    v->bt.reason = BT_LEAVE_EMULATE;
    v->bt.single = why == BT_TRAP_RANGE && !(c->key & KEY_SINGLE) && !(site & SITE_SOLE);
    v->bt.lent_by = c; /* not all registers are in vcpu.gpr[] yet */
    if (!v->bt.single)
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
    if (!alone || acc != MMU_READ || len > BT_BOUNCE_LEN)
        return NULL;
    to = bt_of(v)->bounce + (addr & 63);
    for (unsigned n = 0; n < len; n++)
        to[n] = n < first ? p[n] : q[n - first];
    v->cnt->bt_crossings++;
    return to;
}

uint8_t *bt_slow_access(struct vcpu *v, uint64_t addr, uint32_t site, const uint8_t *rx) {
    enum mmu_access acc = (enum mmu_access)SITE_ACCESS(site);
    unsigned len = SITE_SIZE(site);
    uint64_t drops = v->shadow.write_drops;
    uint8_t *p;
    uint64_t run;

    BUG_ON(acc > MMU_WRITE);
    bt_sync_bank(v);
    p = crossing(v, addr, len, acc, site & SITE_ALONE);
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
    return leave_to_interp(v, rx - 1, site, unavailable(v, addr, site));
}

int bt_check(struct vcpu *v, struct vpage *p, const uint8_t *rx) {
    const uint8_t *code;
    struct ccf *c;

    BUG_ON(!bt_is_vpage(bt_of(v), p));
    code = mmu_fetch(v, gva(p->va));
    if (code && ((uintptr_t)code & ~4095ul) == (uintptr_t)p->host) {
        bt_page_checked(v, p);
        if (p->valid == (p->global ? v->shadow.epoch_global : v->shadow.epoch_user)) {
            v->cnt->bt_checks++;
            return 1;
        }
    }
    c = bt_find_pc(bt_of(v), rx);
    BUG_ON(!c);
    v->rip = c->va;
    v->bt.arg = c;
    v->bt.reason = BT_LEAVE_CHECK;
    return 0;
}

/* --- the x87's pointers --- */

/* Translated x87 instructions are the guest's own, so that the host remembers where the
 * last one was, or they say so where it does not: which guest instruction that is, its
 * site says. So no more is written down as they are executed. FDP, FDS and, for another
 * privilege level, FCS stay what they were: the host does not tell (or not what they are
 * to the guest). */
void bt_x87_ran(struct vcpu *v, uint64_t host_ip) {
    const uint64_t none = 0;
    const struct bt *bt = bt_of(v);
    const uint8_t *pc =
        v->bt.x87_at ? bt->code.rx + v->bt.x87_at : (const uint8_t *)(uintptr_t)host_ip;
    const struct ccf *c = bt_find_pc(bt, pc);
    const struct site *s = c ? site_of(c, pc) : NULL;
    uint16_t bytes = 0;

    if (!s || s->poll == POLL_LINK)
        return;
    v->fip = bt_site_va(c, s);
    for (unsigned at = s->guest & 0x1fff, n = 0, got = 0; n < 15 && got < 2; n++, at++) {
        const uint8_t *page = at & SITE_PAGE2 ? c->page2 : c->page;
        uint8_t b = page && at < 8192 ? page[at & 0xfff] : 0;

        if (got || (b & 0xf8) == 0xd8)
            bytes = (uint16_t)(bytes << 8 | b), got++;
    }
    v->fop = bytes & 0x7ff;
    if (!v->counted)
        v->fcs = !(c->key & KEY_USER) == (v->cpl != 3) ? v->seg[SEG_CS].sel : 0;
    __builtin_memcpy(v->vec + VEC_FIP, &none, sizeof(none));
    v->bt.x87_at = 0;
}

void bt_x87_settle(struct vcpu *v) {
    uint64_t host_ip;

    vec_park(v);
    __builtin_memcpy(&host_ip, v->vec + VEC_FIP, sizeof(host_ip));
    if (host_ip || v->bt.x87_at)
        bt_x87_ran(v, host_ip);
}

/* --- host faults in the cache --- */

static bool to_guest_fault(struct vcpu *v, const struct os_fault *f) {
    switch (f->trapno) {
    case X86_XM: /* APM volume 2, "SIMD Floating-Point Exception": #UD without OSXMMEXCPT
                  */
        v->fault =
            (struct fault){.vector = v->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD};
        return true;
    case X86_DE:
    case X86_UD:
    case X86_MF:
        v->fault = (struct fault){.vector = (uint8_t)f->trapno};
        return true;
    default:
        return false;
    }
}

/* Is the host's fault at its address the guest's to be told of? A #GP: misaligned. Where
 * unused anchors point, the guest's address was not canonical. The interpreter knows. */
static bool to_interp(const struct vcpu *v, const struct os_fault *f) {
    if (f->trapno == X86_GP)
        return true;
    return f->trapno == X86_PF &&
           (uint8_t *)(uintptr_t)(f->addr & ~4095ull) == v->mmu->nowhere;
}

/* In the signal handler, between two instructions of translated code. */
static bool on_host_fault(void *arg, struct os_fault *f) {
    struct bt *bt = arg;
    struct vcpu *v = bt->v;
    const uint8_t *pc = (const uint8_t *)(uintptr_t)f->regs.rip;
    const struct ccf *c = bt_find_pc(bt, pc);
    const struct site *s = c ? site_of(c, pc) : NULL;
    uint8_t *fault_page = (uint8_t *)(uintptr_t)(f->addr & ~4095ull);

    if (!s || s->ours)
        return false; /* a bug; what is in the registers is none of the guest's business
                       */
    if (f->trapno == X86_PF && fault_page == bt->poll_page && s->poll) {
        if (s->poll == POLL_INDIRECT && !canonical(v, f->regs.gpr[T0])) {
            f->regs.rip += BT_POLL_LEN; /* the branch is to fault: undo_branch() */
            return true;
        }
        v->rip = s->poll == POLL_INDIRECT ? f->regs.gpr[T0]
                 : s->poll == POLL_LINK   ? c->links[s->guest].target
                                          : bt_site_va(c, s);
        v->bt.reason = BT_LEAVE_POLL;
    } else if (f->trapno == X86_PF && bt->fuel && fault_page == bt->fuel - 4096 &&
               s->poll == POLL_HERE) {
        v->rip = bt_site_va(c, s);
        v->bt.reason = BT_LEAVE_FUEL;
    } else if (to_interp(v, f)) {
        v->rip = bt_site_va(c, s);
        v->bt.reason = BT_LEAVE_EMULATE;
    } else if (f->trapno != X86_PF && to_guest_fault(v, f)) {
        v->rip = bt_site_va(c, s);
        v->bt.reason = BT_LEAVE_STATUS;
        v->bt.status = SEM_FAULT;
        bt->faulted = f->trapno == X86_DE ? bt_find_pc(bt, pc) : NULL;
    } else {
        return false;
    }
    v->bt.owed = s->left;
    for (unsigned r = 0; r < 14; r++)
        v->gpr[r] = f->regs.gpr[r];
    bt_unlend(v, c);
    if (s->place == FLAGS_REGS) {
        unsigned fl = (unsigned)f->regs.rflags;

        v->bt.flags = (uint16_t)((fl & 0xff) << 8 | (fl & X86_FL_OF ? 1 : 0));
    }
    f->regs.rip = (uint64_t)(uintptr_t)bt->stub_leave_bare;
    return true;
}

void bt_kick(struct bt *bt) {
    if (__atomic_load_n(&bt->in_tc, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&bt->poll_closed, true, __ATOMIC_SEQ_CST);
        os_poll_set(bt->poll_page, false);
    }
}

/* --- creation --- */

static int allocate(struct bt *bt) {
    int rc = os_code_map((size_t)bt->opt.cache << 20, &bt->code);

    if (rc)
        return rc;
    rc = os_poll_page(&bt->poll_page);
    if (!rc && bt->v->counted)
        rc = os_guarded_alloc(BT_FUEL, &bt->fuel);
    if (!rc)
        rc = os_fenced_alloc(4096, (void **)&bt->bounce);
    if (!rc)
        rc = os_low_alloc(sizeof(*bt->heat) << BT_HEAT_BITS, (void **)&bt->heat);
    if (!rc)
        rc = os_low_alloc(sizeof(*bt->guess) << BT_GUESS_BITS, (void **)&bt->guess);
    if (rc)
        return rc;
    bt->npages = mem_host_size(bt->v->mem) >> 12;
    rc = bt_units_create(bt);
    if (rc)
        return rc;
    /* Two for each fragment that there may be, and those of a translation that failed. */
    bt->vpages_max = 2 * (bt->nunits * bt->unit_order + 64);
    if (bt->vpages_max > BT_VPAGES_MAX)
        bt->vpages_max = BT_VPAGES_MAX;
    rc = os_low_alloc(bt->vpages_max * sizeof(*bt->vpage_pool), (void **)&bt->vpage_pool);
    if (rc)
        return rc;
    bt->hash = calloc(1u << BT_HASH_BITS, sizeof(*bt->hash));
    bt->pages = calloc(bt->npages, sizeof(*bt->pages));
    bt->tr = malloc(sizeof(*bt->tr));
    bt->suspects = calloc(1u << BT_SUSPECT_BITS, sizeof(*bt->suspects));
    bt->dropped = calloc(1u << BT_DROPPED_BITS, sizeof(*bt->dropped));
    bt->divisions = calloc(BT_DIVISIONS, sizeof(*bt->divisions));
    bt->vpages = calloc(1u << BT_VPAGE_BITS, sizeof(*bt->vpages));
    for (unsigned n = 0; n < BT_JUMP_TABLES; n++) {
        bt->jump[n].to = calloc(1u << BT_JUMP_BITS, sizeof(*bt->jump[n].to));
        if (!bt->jump[n].to)
            return -ENOMEM;
    }
    if (!bt->hash || !bt->pages || !bt->tr || !bt->vpages || !bt->suspects ||
        !bt->dropped || !bt->divisions)
        return -ENOMEM;
    return 0;
}

int bt_new(struct vcpu *v, struct interp *ip, const struct bt_options *opt,
           struct bt **out) {
    struct bt *bt = calloc(1, sizeof(*bt));
    int rc;

    if (!bt)
        return -ENOMEM;
    bt->v = v;
    bt->ip = ip;
    bt->opt = *opt;
    bt->opt.count &= !v->counted; /* which counts exactly */
    __builtin_cpu_init();
    bt->has_bmi2 = __builtin_cpu_supports("bmi2");
    v->bt = (struct vcpu_bt){.self = v, .owner = bt, .x87_ran = bt_x87_ran};
    v->canary[0] = VCPU_CANARY;
    v->canary[1] = ~VCPU_CANARY;
    rc = allocate(bt);
    if (!rc) {
        bt_emit_stubs(bt);
        if (opt->verify && !bt_verify_common(bt))
            rc = -EBADMSG;
    }
    if (!rc) {
        rc = os_fault_range(bt->code.rx, bt->code.rx + bt->code.size, on_host_fault, bt);
    }
    if (rc) {
        bt_free(bt);
        return rc;
    }
    bt_flush(bt);
    *out = bt;
    return 0;
}

void bt_set_options(struct bt *bt, const struct bt_options *opt) {
    unsigned cache = bt->opt.cache;

    bt->opt = *opt;
    bt->opt.cache = cache;
    bt->opt.count &= !bt->v->counted;
    bt_flush(bt);
}

void bt_free(struct bt *bt) {
    if (!bt)
        return;
    if (bt->poll_page)
        os_poll_page_free(bt->poll_page);
    os_guarded_free(bt->fuel, BT_FUEL);
    os_fenced_free(bt->bounce, 4096);
    os_low_free(bt->heat, sizeof(*bt->heat) << BT_HEAT_BITS);
    os_low_free(bt->guess, sizeof(*bt->guess) << BT_GUESS_BITS);
    for (unsigned n = 0; n < BT_JUMP_TABLES; n++)
        free(bt->jump[n].to);
    bt->v->bt.jump = NULL;
    free(bt->vpages);
    free(bt->suspects);
    free(bt->divisions);
    free(bt->dropped);
    free(bt->tr);
    free(bt->pages);
    free(bt->hash);
    os_low_free(bt->vpage_pool, bt->vpages_max * sizeof(*bt->vpage_pool));
    bt_units_free(bt);
    if (bt->code.rw) {
        os_fault_range_remove(bt->code.rx);
        os_code_unmap(&bt->code);
    }
    free(bt);
}

/* --- the loop --- */

/* What only the interpreter does: traps at every instruction, interrupts. */
static bool needs_care(const struct vcpu *v, uint32_t events) {
    if ((v->rflags & (X86_FL_TF | X86_FL_RF)) || (v->dr[7] & 0xff) || v->irq_shadow ||
        v->pending_db || v->halted)
        return true;
    return ((events & VCPU_EVENT_IRQ) && sem_interruptible(v)) ||
           ((events & VCPU_EVENT_NMI) && !v->nmi_blocked);
}

/* The page has just been fetched from: what it maps is good for this epoch. */
void bt_page_checked(struct vcpu *v, struct vpage *p) {
    mmu_code_watch(v, gva(p->va));
    if (!p->global)
        p->valid = v->shadow.epoch_user;
    else
        p->valid = mmu_code_is_global(v, gva(p->va)) ? v->shadow.epoch_global : 0;
}

/* The fragment for the guest's rip; NULL with *FAULT, or after room was made (look
 * again). */
static struct ccf *find(struct bt *bt, bool *fault) {
    struct vcpu *v = bt->v;
    uint32_t key = bt_key(v);
    const uint8_t *code = mmu_fetch(v, gva(v->rip));
    struct ccf *c;

    *fault = !code;
    if (!code)
        return NULL;
    bt_select_key(bt, key);
    c = bt_lookup(bt, v->rip, (uint8_t *)((uintptr_t)code & ~4095ul), key);
    if (c && c->page2) { /* the second page may be another by now */
        const uint8_t *rest = mmu_fetch(v, gva(c->vp2->va));

        if (!rest && !c->hot) {
            *fault = true;
            return NULL;
        }
        /* A hot path may leave before it gets there. */
        if (!rest || ((uintptr_t)rest & ~4095ul) != (uintptr_t)c->page2)
            c = NULL;
    }
    if (!c)
        c = bt_translate(bt, key, fault);
    if (c) {
        bt_page_checked(v, c->vp);
        if (c->vp2)
            bt_page_checked(v, c->vp2);
    }
    if (!c && !*fault)
        bt_make_room(bt);
    return c;
}

/* FUEL instructions may be begun, in a counted run. */
static void enter(struct bt *bt, const uint8_t *rx, uint64_t fuel) {
    struct vcpu *v = bt->v;
    void (*go)(const uint8_t *rx) = (void (*)(const uint8_t *))(uintptr_t)bt->stub_enter;

    bt_flags_in(v);
    vec_load(v);
    v->cnt->bt_entries++;
    v->bt.fuel = v->bt.mark = (uint64_t)(uintptr_t)bt->fuel + fuel;
    v->bt.owed = 0;
    v->bt.lent_by = NULL;
    go(rx);
    BUG_ON(!vcpu_intact(v));
    bt_settle_count(v);
    if (v->bt.lent_by)
        bt_unlend(v, v->bt.lent_by);
    bt_sync_bank(v);
    bt_flags_out(v);
}

/* SEM_FAULT is delivered; true: shutdown. */
static bool settle(struct vcpu *v, uint32_t status) {
    return status == SEM_SHUTDOWN ||
           (status == SEM_FAULT && sem_deliver(v) == SEM_SHUTDOWN);
}

/* How far translated code may go from C on: C alone, or until the run has to stop. */
static uint64_t fuel_for(const struct bt *bt, const struct ccf *c) {
    uint64_t left = vcpu_left(bt->v);

    if (bt->v->bt.step)
        return c->ninsns;
    return left < BT_FUEL - 8 ? left : BT_FUEL - 8;
}

/* Runs the guest from V->rip until translated code comes back and C cannot send it on. */
static bool run_once(struct bt *bt, enum exit_reason *out) {
    struct vcpu *v = bt->v;
    struct link *link = NULL;
    bool indirect = false;
    uint64_t retired;

    for (;;) {
        bool fault;
        struct ccf *c = find(bt, &fault);

        if (unlikely(bt->unsound))
            return false;
        if (!c) {
            link = NULL;
            if (!fault)
                continue; /* the link may be gone */
            /* The interpreter raises what this is, in the right order. */
            *out = interp_step(bt->ip, 1);
            return *out != EXIT_kick;
        }
        if (link)
            bt_link(bt, link, c);
        if (indirect && bt->opt.chain)
            bt_jump_insert(bt, c);
        link = NULL;
        indirect = false;
        if (unlikely(bt->watch))
            bt->watch(bt->watch_arg, c);
        if (unlikely(v->counted && vcpu_left(v) < c->ninsns)) {
            *out = interp_step(bt->ip, vcpu_left(v));
            return *out != EXIT_kick;
        }
        retired = v->cnt->insns_retired;
        enter(bt, c->entry_mem, fuel_for(bt, c));
        if (unlikely(
                v->bt.step && v->cnt->insns_retired != retired &&
                (v->bt.reason == BT_LEAVE_EMULATE || v->bt.reason == BT_LEAVE_STATUS)))
            return false; /* what faults, or may, is a step of its own */
        switch (v->bt.reason) {
        case BT_LEAVE_LINK:
            v->cnt->bt_leave_link++;
            link = v->bt.arg;
            v->rip = link->target;
            break;
        case BT_LEAVE_INDIRECT:
            if (unlikely(!canonical(v, v->rip))) {
                if (!undo_branch(v)) {
                    *out = interp_step(bt->ip, 1);
                    return *out != EXIT_kick;
                }
                v->cnt->bt_leave_fault++;
                *out = EXIT_shutdown;
                return settle(v, SEM_FAULT);
            }
            v->cnt->bt_leave_indirect++;
            indirect = true;
            break;
        case BT_LEAVE_CHECK:
            /* What led there is to lead to the one for this mapping from now on. */
            v->cnt->bt_leave_check++;
            bt_unlink_in(bt, v->bt.arg);
            indirect = true;
            break;
        case BT_LEAVE_FUEL:
            break;
        case BT_LEAVE_HOT:
            v->rip = ((struct ccf *)v->bt.arg)->va;
            bt_heat_up(bt, v->bt.arg);
            break;
        case BT_LEAVE_EMULATE:
            v->cnt->bt_emulated++;
            *out = interp_step(bt->ip, 1);
            return *out != EXIT_kick;
        case BT_LEAVE_STATUS:
            v->cnt->bt_leave_fault++;
            if (bt->faulted)
                bt_division_faulted(bt, bt->faulted);
            bt->faulted = NULL;
            if (settle(v, v->bt.status)) {
                *out = EXIT_shutdown;
                return true;
            }
            return false;
        case BT_LEAVE_POLL:
            /* A kick that was half done when loop() opened the page has closed it since
             * without a word. */
            __atomic_store_n(&bt->poll_closed, true, __ATOMIC_SEQ_CST);
            v->cnt->bt_leave_poll++;
            return false;
        default: /* NEXT */
            v->cnt->bt_leave_next++;
            return false;
        }
        if (vcpu_events(v) || v->bt.step)
            return false;
    }
}

static bool loop(struct bt *bt, enum exit_reason *out) {
    struct vcpu *v = bt->v;
    uint32_t events;

    if (unlikely(__atomic_load_n(&bt->poll_closed, __ATOMIC_SEQ_CST))) {
        __atomic_store_n(&bt->poll_closed, false, __ATOMIC_SEQ_CST);
        os_poll_set(bt->poll_page, true);
    }
    if (unlikely(bt->unsound)) { /* it has been told */
        *out = EXIT_error;
        return true;
    }
    events = vcpu_events(v);
    if (events & (VCPU_EVENT_KICK | VCPU_EVENT_STOP)) {
        *out = EXIT_kick;
        return true;
    }
    if (unlikely(!vcpu_left(v))) {
        vcpu_raise(v, VCPU_EVENT_KICK);
        *out = EXIT_kick;
        return true;
    }
    bt_review(bt, __builtin_ia32_rdtsc());
    bt_drop_rf(v);
    if (needs_care(v, events)) {
        *out = interp_step(bt->ip, 1);
        return *out != EXIT_kick;
    }
    if (!bt_translatable(v)) {
        *out = interp_step(bt->ip, INTERP_SLICE);
        return *out != EXIT_kick;
    }
    return run_once(bt, out);
}

int bt_error(const struct bt *bt) {
    return bt->error;
}

enum exit_reason bt_run(struct bt *bt) {
    enum exit_reason out = EXIT_error;

    bt->error = os_signal_stack();
    if (!bt->error)
        bt->error = os_gs_base(bt->v);
    if (bt->error)
        return EXIT_error;
    bt->v->shadow.bank = bt->v->mmu->data;
    vcpu_forget_gates(bt->v);
    __atomic_store_n(&bt->in_tc, true, __ATOMIC_SEQ_CST);
    while (!loop(bt, &out))
        if (unlikely(bt->v->bt.step))
            vcpu_raise(bt->v, VCPU_EVENT_KICK);
    __atomic_store_n(&bt->in_tc, false, __ATOMIC_SEQ_CST);
    bt_x87_settle(bt->v);
    bt->v->cnt->insns_retired += bt->v->bt.count;
    bt->v->bt.count = 0;
    bt->v->cnt->bt_indirect_hits += bt->v->bt.indirect_hits;
    bt->v->bt.indirect_hits = 0;
    bt->v->cnt->bt_gates += bt->v->bt.gates;
    bt->v->bt.gates = 0;
    return out;
}
