/*
 * The slow paths: what mmu_hit() does not serve.
 *
 * An access is cut at the page boundary into at most two pieces. All pieces are resolved
 * (walked, checked, A and D set, faults taken) before the first byte moves, so that a
 * fault leaves memory as it was. A piece is plain memory (a host pointer), read-only
 * memory (stores vanish) or a device (an EXIT_mmio for each naturally aligned part).
 */
#include "cpu/smp.h"
#include "cpu/vec.h"
#include "mmu/mmu_int.h"
#include "x86/cr.h"
#include "x86/exception.h"

static const uint8_t floating_bus[4096] = {[0 ... 4095] = 0xff};

/* --- faults --- */

static int fault_page(struct mmu_priv *m, uint64_t at, enum mmu_bank bank,
                      enum mmu_access acc, uint32_t error) {
    if (acc == MMU_WRITE)
        error |= X86_PF_W;
    if (acc == MMU_EXEC && m->fetch_bit)
        error |= X86_PF_I;
    if (bank == BANK_USER || bank == BANK_USER_X)
        error |= X86_PF_U;
    m->pub.v->fault =
        (struct fault){.vector = X86_PF, .has_error = true, .error = error, .addr = at};
    return MMU_FAULT;
}

static int fault_canonical(struct vcpu *v) {
    v->fault = (struct fault){.vector = X86_GP, .has_error = true};
    return MMU_FAULT;
}

static inline bool canonical(uint64_t at) {
    return (uint64_t)((int64_t)(at << 16) >> 16) == at;
}

/* --- breakpoints --- */

/* AMD64 APM volume 2, "Debug Breakpoint Address (DR0-DR3)". */
static void match_breakpoints(struct mmu_priv *m, uint64_t at, unsigned len, bool write) {
    for (unsigned i = 0; i < m->breakpoints; i++) {
        const struct breakpoint *b = &m->bp[i];
        if ((write || b->on_read) && at < b->at + b->len && b->at < at + len)
            m->pub.v->pending_db |= b->bit;
    }
}

static uint64_t linear_mask(const struct vcpu *v, bool sys) {
    if (!v->long_mode)
        return 0xffffffff;
    return sys || v->mode == MODE_64 ? ~0ull : 0xffffffff;
}

void mmu_breakpoints_changed(struct vcpu *v) {
    static const uint8_t length[4] = {1, 2, 8, 4};
    struct mmu_priv *m = mmu_priv(v);
    m->breakpoints = 0;
    for (unsigned i = 0; i < 4; i++) {
        unsigned how = v->dr[7] >> (16 + 4 * i) & 15;
        if (!(v->dr[7] >> (2 * i) & 3) || !(how & 1)) /* off, execution or I/O */
            continue;
        unsigned len = length[how >> 2];
        uint64_t at =
            v->dr[i] & (v->long_mode ? ~0ull : 0xffffffff) & ~(uint64_t)(len - 1);
        m->bp[m->breakpoints++] = (struct breakpoint){
            .at = at, .len = (uint8_t)len, .bit = (uint8_t)(1u << i), .on_read = how & 2};
        for (unsigned s = 0; s < m->space_count; s++)
            mmu_space_drop_range(m, &m->space[s], at & META_PAGE, at | 4095);
    }
}

void mmu_stops_changed(struct vcpu *v, struct gva from, uint64_t len) {
    struct mmu_priv *m = mmu_priv(v);

    for (unsigned s = 0; s < m->space_count; s++)
        mmu_space_drop_range(m, &m->space[s], from.a & META_PAGE,
                             (from.a + (len - 1)) | 4095);
}

/* --- resolving --- */

static inline enum mmu_bank bank_of(const struct mmu_priv *m, bool sys,
                                    enum mmu_access acc) {
    const struct shadow_bank *b = sys               ? m->pub.sys
                                  : acc == MMU_EXEC ? m->pub.code
                                                    : m->pub.data;
    bool super = b >= m->super->bank && b < m->super->bank + BANK_COUNT;
    return (enum mmu_bank)(b - (super ? m->super : m->cur)->bank);
}

/* The walk, after a shadow miss. */
static int resolve_walk(struct mmu_priv *m, enum mmu_bank bank, enum mmu_access acc,
                        struct mmu_piece *p) {
    struct walk w;
    do {
        if (!mmu_walk(m, p->at, &w))
            return fault_page(m, p->at, bank, acc, w.error);
        if (!mmu_walk_allows(m, &w, bank, acc))
            return fault_page(m, p->at, bank, acc, X86_PF_P);
    } while (!mmu_walk_mark(m, &w, acc == MMU_WRITE));
    p->gpa = w.gpa;
    enum mem_kind kind = mem_kind_at(m->mem, gpa(w.gpa));
    if (kind == MEM_NONE) {
        p->host = NULL;
        return 0;
    }
    p->host = mem_host(m->mem, gpa(w.gpa), 1);
    p->rom = kind == MEM_ROM;
    mem_use(m->mem, p->host);
    mmu_counters(m)->hidden_page_faults++;
    if (unlikely(w.wrapped))
        return 0;
    if (m->policy == MMU_TRACE)
        mmu_dep_add(m, p->at, &w);
    mmu_space_fill(m, bank, p->at, &w, p->host - (p->at & 4095), p->rom);
    return 0;
}

static int resolve(struct mmu_priv *m, bool sys, enum mmu_access acc,
                   struct mmu_piece *p) {
    enum mmu_bank bank = bank_of(m, sys, acc);
    struct space *s = mmu_home(m, bank);
    const struct shadow_bank *b = &s->bank[bank];
    p->rom = false;
    p->host = mmu_hit(b, gva(p->at), p->len, acc);
    if (p->host)
        return 0;
    if (acc == MMU_WRITE) {
        /* Only a trace (or a ROM mark made since) kept the write tag away, and the walk's
         * result is still at hand.
         */
        uint8_t *host = mmu_hit(b, gva(p->at), p->len, MMU_READ);
        if (host && (s->note[bank][mmu_index(p->at)].meta & META_WRITABLE) &&
            mem_kind_of(m->mem, host) == MEM_RAM) {
            p->host = host;
            mmu_space_allow_write(m, bank, p->at);
            return 0;
        }
    }
    return resolve_walk(m, bank, acc, p);
}

/* Would resolve() fault? Without any of its effects. */
static int foresee(struct mmu_priv *m, bool sys, enum mmu_access acc,
                   const struct mmu_piece *p) {
    enum mmu_bank bank = bank_of(m, sys, acc);
    struct walk w;
    if (mmu_hit(&mmu_home(m, bank)->bank[bank], gva(p->at), p->len, acc))
        return 0;
    if (!mmu_walk(m, p->at, &w))
        return fault_page(m, p->at, bank, acc, w.error);
    if (!mmu_walk_allows(m, &w, bank, acc))
        return fault_page(m, p->at, bank, acc, X86_PF_P);
    return 0;
}

/* Cuts [AT, AT+LEN) at the page boundary; LEN is 1..4096. Fills P, returns how many, or 0
 * with the fault set. */
static unsigned resolve_all(struct vcpu *v, struct gva at, unsigned len, bool sys,
                            enum mmu_access acc, struct mmu_piece p[2]) {
    struct mmu_priv *m = mmu_priv(v);
    uint64_t mask = linear_mask(v, sys);
    unsigned room = 4096 - (unsigned)(at.a & 4095), count = 1;
    p[0].at = at.a & mask;
    p[0].len = len;
    if (len > room) {
        p[0].len = room;
        p[1].at = (at.a + room) & mask;
        p[1].len = len - room;
        count = 2;
        mmu_counters(m)->page_crossings++;
    }
    if (v->long_mode && (!canonical(p[0].at) || (count == 2 && !canonical(p[1].at)))) {
        fault_canonical(v);
        return 0;
    }
    /* A store that faults on its second page leaves the first one clean. */
    if (count == 2 && acc == MMU_WRITE &&
        (foresee(m, sys, acc, &p[0]) || foresee(m, sys, acc, &p[1])))
        return 0;
    for (unsigned i = 0; i < count; i++)
        if (resolve(m, sys, acc, &p[i]))
            return 0;
    return count;
}

/* --- devices --- */

/* The largest naturally aligned part of what is left, up to 8 bytes. */
static unsigned natural(uint64_t at, unsigned left) {
    unsigned n = 8;
    while (n > left || at % n)
        n /= 2;
    return n;
}

static void mmio(struct mmu_priv *m, uint64_t at, uint8_t *buf, unsigned len,
                 bool write) {
    struct vcpu *v = m->pub.v;
    mmu_counters(m)->mmio_slow++;
    for (unsigned n; len; at += n, buf += n, len -= n) {
        n = natural(at, len);
        struct exit e = {.reason = EXIT_mmio,
                         .write = write,
                         .size = (uint8_t)n,
                         .gpa = gpa(at),
                         .data = 0};
        if (write)
            mem_copy(&e.data, buf, n);
        else
            e.data = ~0ull;
        if (v->hooks && v->hooks->exit)
            v->hooks->exit(v->hooks_arg, v, &e);
        if (!write)
            mem_copy(buf, &e.data, n);
    }
}

/* --- moving bytes --- */

/* A scalar that is aligned moves in one piece, as other observers of RAM expect. */
static void copy(void *to, const void *from, unsigned len) {
    switch (len) {
    case 8:
        *(unaligned_u64 *)to = *(const unaligned_u64 *)from;
        break;
    case 4:
        *(unaligned_u32 *)to = *(const unaligned_u32 *)from;
        break;
    case 2:
        *(unaligned_u16 *)to = *(const unaligned_u16 *)from;
        break;
    case 1:
        *(uint8_t *)to = *(const uint8_t *)from;
        break;
    default:
        mem_copy(to, from, len);
    }
}

static void read_pieces(struct vcpu *v, const struct mmu_piece *p, unsigned count,
                        uint8_t *buf) {
    struct mmu_priv *m = mmu_priv(v);
    for (unsigned i = 0; i < count; buf += p[i++].len) {
        if (p[i].host)
            copy(buf, p[i].host, p[i].len);
        else
            mmio(m, p[i].gpa, buf, p[i].len, false);
    }
}

/* Plain memory, which nobody traces, and which is ours to store to until the next quiet
 * place. */
static bool is_plain(const struct mmu_priv *m, const struct mmu_piece *p) {
    if (mmu_alone(m))
        return !p->rom && !mem_trace_of(m->mem, p->host);
    return mmu_hit(m->pub.data, gva(p->at), p->len, MMU_WRITE) == p->host ||
           mmu_hit(m->pub.sys, gva(p->at), p->len, MMU_WRITE) == p->host;
}

static void store(struct mmu_priv *m, const struct mmu_piece *p, const uint8_t *buf) {
    if (is_plain(m, p))
        copy(p->host, buf, p->len);
    else
        mem_store(m->mem, p->host, buf, p->len);
}

static void write_pieces(struct vcpu *v, const struct mmu_piece *p, unsigned count,
                         const uint8_t *buf) {
    struct mmu_priv *m = mmu_priv(v);
    for (unsigned i = 0; i < count; buf += p[i++].len) {
        if (!p[i].host) {
            uint8_t out[128]; /* mmio() takes one buffer for both directions */
            for (unsigned done = 0, n; done < p[i].len; done += n) {
                n = p[i].len - done < sizeof(out) ? p[i].len - done : sizeof(out);
                mem_copy(out, buf + done, n);
                mmio(m, p[i].gpa + done, out, n, true);
            }
        } else if (!p[i].rom) {
            store(m, &p[i], buf);
        }
    }
}

static void watch(struct vcpu *v, const struct mmu_piece *p, unsigned count, bool write) {
    struct mmu_priv *m = mmu_priv(v);
    if (unlikely(m->breakpoints))
        for (unsigned i = 0; i < count; i++)
            match_breakpoints(m, p[i].at, p[i].len, write);
    if (unlikely(v->stops))
        for (unsigned i = 0; i < count; i++)
            vcpu_watch_touched(v, p[i].at, p[i].len, write);
}

/* LEN bytes that the shadow serves: descriptor tables and stacks mostly are. NULL: look
 * further. A tag means that nobody watches or traces the page. */
static uint8_t *served(const struct vcpu *v, struct gva at, unsigned len, bool sys,
                       enum mmu_access acc) {
    const struct shadow_bank *b = sys ? v->mmu->sys : v->mmu->data;
    return len - 1 < 4096 ? mmu_hit(b, at, len, acc) : NULL;
}

int mmu_read_slow(struct vcpu *v, struct gva at, void *buf, unsigned len, bool sys) {
    const uint8_t *hit = served(v, at, len, sys, MMU_READ);
    if (likely(hit)) {
        copy(buf, hit, len);
        return 0;
    }
    uint8_t *to = buf;
    while (unlikely(len > 4096)) {
        int rc = mmu_read_slow(v, at, to, 4096, sys);
        if (rc)
            return rc;
        at.a += 4096, to += 4096, len -= 4096;
    }
    struct mmu_piece p[2];
    if (!len)
        return 0;
    unsigned count = resolve_all(v, at, len, sys, MMU_READ, p);
    if (!count)
        return MMU_FAULT;
    if (!sys)
        watch(v, p, count, false);
    read_pieces(v, p, count, to);
    return 0;
}

int mmu_write_slow(struct vcpu *v, struct gva at, const void *buf, unsigned len,
                   bool sys) {
    uint8_t *hit = served(v, at, len, sys, MMU_WRITE);
    if (likely(hit)) {
        copy(hit, buf, len);
        return 0;
    }
    const uint8_t *from = buf;
    if (unlikely(len > 4096)) {
        int rc = mmu_probe(v, at, len, MMU_WRITE, sys);
        for (; !rc && len > 4096; at.a += 4096, from += 4096, len -= 4096)
            rc = mmu_write_slow(v, at, from, 4096, sys);
        if (rc)
            return rc;
    }
    struct mmu_piece p[2];
    if (!len)
        return 0;
    unsigned count = resolve_all(v, at, len, sys, MMU_WRITE, p);
    if (!count)
        return MMU_FAULT;
    if (!sys)
        watch(v, p, count, true);
    write_pieces(v, p, count, from);
    return 0;
}

/* --- windows --- */

int mmu_window_open(struct vcpu *v, struct mmu_window *w, struct gva at, unsigned len,
                    bool will_read, bool will_write) {
    enum mmu_access acc = will_write ? MMU_WRITE : MMU_READ;
    struct mmu_priv *m = mmu_priv(v);
    w->len = len;
    w->write = will_write;
    w->bounced = false;
    w->hold = MMU_HOLD_NONE;
    w->p = mmu_hit(v->mmu->data, at, len, acc);
    if (likely(w->p))
        return 0;
    w->p = w->buf + (at.a & 63);
    if (!len || len > 64) { /* nothing to do; more than the contract allows */
        w->len = 0;
        w->write = false;
        return 0;
    }
    w->count = resolve_all(v, at, len, false, acc, w->piece);
    if (!w->count)
        return MMU_FAULT;
    if (will_read)
        watch(v, w->piece, w->count, false);
    if (will_write)
        watch(v, w->piece, w->count, true);
    if (w->count == 1 && w->piece[0].host && !(will_write && !is_plain(m, w->piece))) {
        w->p = w->piece[0].host;
        return 0;
    }
    w->bounced = true;
    if (will_read)
        read_pieces(v, w->piece, w->count, w->p);
    return 0;
}

/* One locked instruction of the host's does for LEN bytes at HOST. */
static bool host_locks(const struct vcpu *v, const uint8_t *host, unsigned len) {
    return ((uintptr_t)host & 63) + len <= 64 || !vcpu_group_of(v) ||
           vcpu_group_of(v)->splits;
}

/* What keeps others away from the pieces. */
static enum mmu_hold hold_for(const struct vcpu *v, const struct mmu_window *w) {
    for (unsigned i = 0; i < w->count; i++)
        if (!w->piece[i].host || w->piece[i].rom)
            return MMU_HOLD_SPLIT;
    return w->count == 1 && host_locks(v, w->piece[0].host, w->len) ? MMU_HOLD_TRACES
                                                                    : MMU_HOLD_ALL;
}

static int open_apart(struct vcpu *v, struct mmu_window *w, struct gva at, bool sys) {
    struct mmu_priv *m = mmu_priv(v);
    struct vcpu_group *g = vcpu_group_of(v);

    w->p = w->buf; /* in one line, whatever the guest's bytes are in */
    w->count = resolve_all(v, at, w->len, sys, MMU_WRITE, w->piece);
    if (!w->count)
        return MMU_FAULT;
    if (!sys) {
        watch(v, w->piece, w->count, false);
        watch(v, w->piece, w->count, true);
    }
    w->hold = hold_for(v, w);
    w->bounced = w->hold != MMU_HOLD_TRACES;
    if (w->hold == MMU_HOLD_SPLIT) {
        vcpu_lock(g, VCPU_LOCK_SPLIT);
    } else {
        mem_lock(m->mem);
        if (w->hold == MMU_HOLD_ALL)
            vcpu_stop(g);
    }
    if (w->bounced) {
        read_pieces(v, w->piece, w->count, w->p);
        return 0;
    }
    w->p = w->piece[0].host;
    if (mem_trace_of(m->mem, w->p))
        mem_trace_hit(m->mem, w->p, w->len);
    return 0;
}

static int open_locked(struct vcpu *v, struct mmu_window *w, struct gva at, unsigned len,
                       bool sys) {
    w->len = len;
    w->write = true;
    w->bounced = false;
    w->hold = MMU_HOLD_NONE;
    w->p = served(v, at, len, sys, MMU_WRITE);
    if (likely(w->p && host_locks(v, w->p, len)))
        return 0;
    return open_apart(v, w, at, sys);
}

int mmu_window_open_locked(struct vcpu *v, struct mmu_window *w, struct gva at,
                           unsigned len) {
    return open_locked(v, w, at, len, false);
}

int mmu_sys_exchange(struct vcpu *v, struct gva at, uint32_t *old, uint32_t value) {
    struct mmu_window w;

    if (open_locked(v, &w, at, 4, true))
        return MMU_FAULT;
    __asm__ volatile("lock cmpxchgl %[value], %[m]"
                     : [m] "+m"(*(uint32_t *)(void *)w.p), "+a"(*old)
                     : [value] "r"(value)
                     : "cc", "memory");
    mmu_window_commit(v, &w);
    return 0;
}

void mmu_window_commit(struct vcpu *v, struct mmu_window *w) {
    struct vcpu_group *g = vcpu_group_of(v);

    if (w->bounced && w->write)
        write_pieces(v, w->piece, w->count, w->p);
    if (likely(w->hold == MMU_HOLD_NONE))
        return;
    if (w->hold == MMU_HOLD_SPLIT) {
        vcpu_unlock(g, VCPU_LOCK_SPLIT);
        return;
    }
    if (w->hold == MMU_HOLD_ALL)
        vcpu_go(g);
    mem_unlock(mmu_priv(v)->mem);
}

/* --- probes, runs, fetches --- */

int mmu_probe(struct vcpu *v, struct gva at, unsigned len, enum mmu_access acc,
              bool sys) {
    if (acc != MMU_EXEC && served(v, at, len, sys, acc))
        return 0;
    struct mmu_piece p[2];
    for (unsigned n; len; at.a += n, len -= n) {
        n = len < 4096 ? len : 4096;
        if (!resolve_all(v, at, n, sys, acc, p))
            return MMU_FAULT;
    }
    return 0;
}

int mmu_run(struct vcpu *v, struct gva at, uint64_t len, enum mmu_access acc,
            uint8_t **out, uint64_t *run) {
    struct mmu_priv *m = mmu_priv(v);
    uint64_t room = 4096 - (at.a & 4095);
    uint64_t n = len < room ? len : room;
    struct mmu_piece p[2];
    *out = NULL;
    *run = 0;
    if (!len)
        return 0;
    uint8_t *host = mmu_hit(v->mmu->data, at, 1, acc);
    if (unlikely(!host)) {
        if (!resolve_all(v, at, 1, false, acc, p))
            return MMU_FAULT;
        if (!p[0].host || mmu_page_watched(m, p[0].at & META_PAGE, acc) ||
            (acc == MMU_WRITE && !is_plain(m, p)))
            return 0;
        host = p[0].host;
    }
    *out = host;
    *run = n;
    return 0;
}

const uint8_t *mmu_fetch_slow(struct vcpu *v, struct gva at) {
    struct mmu_piece p[2];
    if (!resolve_all(v, at, 1, false, MMU_EXEC, p))
        return NULL;
    return p[0].host ? p[0].host : &floating_bus[at.a & 4095];
}

bool mmu_peek(struct vcpu *v, struct gva at, struct gpa *out, bool *writable) {
    struct walk w;
    if (v->long_mode ? !canonical(at.a) : at.a > UINT32_MAX)
        return false;
    if (!mmu_walk(mmu_priv(v), at.a, &w))
        return false;
    *out = gpa(w.gpa);
    *writable = w.write;
    return true;
}
