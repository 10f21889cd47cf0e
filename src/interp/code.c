/*
 * Fetch and decode: from v->rip to decoded instructions, and their invalidation.
 * The structures are described in interp_int.h.
 */
#include "interp/interp_int.h"

#include "cpu/smp.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "x86/exception.h"

static unsigned hash_of(const uint8_t *host, unsigned mode) {
    uint64_t key = (uint64_t)(uintptr_t)host ^ (uint64_t)mode << 60;
    return (unsigned)(key * 0x9e3779b97f4a7c15ull >> (64 - INTERP_HASH_BITS));
}

static struct gva linear_rip(const struct vcpu *v) {
    return gva((v->rip + (v->mode == MODE_64 ? 0 : v->seg[SEG_CS].base)) & v->lin_mask);
}

/* Bytes from v->rip to the CS limit, at most 16; 0 when rip is beyond it. */
static unsigned limit_room(const struct vcpu *v) {
    if (v->mode == MODE_64)
        return 16;
    uint64_t limit = v->seg[SEG_CS].limit;
    if (v->rip > limit)
        return 0;
    return limit - v->rip >= 15 ? 16 : (unsigned)(limit - v->rip + 1);
}

/* --- blocks --- */

static uint64_t page_of(const struct interp *ip, const uint8_t *host) {
    return (uint64_t)(host - ip->ram) >> 12; /* >= npages when not in RAM */
}

/* The 64-byte pieces that LEN bytes at offset OFF of a page touch. */
static uint64_t piece_mask(unsigned off, unsigned len) {
    unsigned first = off >> 6, last = (off + len - 1) >> 6;

    if (last > 63)
        last = 63;
    return (~0ull << first) & (~0ull >> (63 - last));
}

static uint64_t block_mask(const struct block *b) {
    return piece_mask((uintptr_t)b->host & 4095, b->bytes);
}

/* Does another CPU's interpreter have blocks of RAM page N? */
static bool others_have(const struct interp *ip, uint64_t n) {
    const struct vcpu_group *g = vcpu_group_of(ip->v);

    for (unsigned k = 0; g && k < g->count; k++) {
        const struct interp *other = g->smp[k].interp;

        if (other && other != ip && other->pages[n].blocks)
            return true;
    }
    return false;
}

/* Page N has no block of ours (any more). */
static void untrace(struct interp *ip, uint64_t n) {
    if (!others_have(ip, n))
        mem_trace_remove(ip->v->mem, ip->ram + (n << 12), MEM_TRACE_CODE);
}

/* What it takes of the arena. */
static size_t block_size(const struct block *b) {
    return (sizeof(*b) + b->count * sizeof(struct insn) + 63) & ~(size_t)63;
}

static void link_block(struct interp *ip, struct block *b) {
    struct code_page *cp = &ip->pages[page_of(ip, b->host)];
    unsigned h = hash_of(b->host, b->mode);

    b->page_next = cp->blocks;
    cp->blocks = b;
    cp->bitmap |= block_mask(b);
    cp->clear_from = cp->clear_to = 0;
    b->hash_next = ip->hash[h];
    ip->hash[h] = b;
}

static void unhash_block(struct interp *ip, struct block *b) {
    struct block **at = &ip->hash[hash_of(b->host, b->mode)];

    while (*at && *at != b)
        at = &(*at)->hash_next;
    if (*at)
        *at = b->hash_next;
}

/* Decodes from HOST to a block of at least one instruction; NULL when the first one does
 * not lie in the page. The page has its trace. */
static struct block *decode(struct interp *ip, const uint8_t *host) {
    struct vcpu *v = ip->v;
    size_t most = sizeof(struct block) + INTERP_BLOCK_MAX * sizeof(struct insn);
    unsigned left = 4096 - ((uintptr_t)host & 4095);

    if (ip->used + most > INTERP_ARENA) {
        v->cnt->block_cache_flushes++;
        interp_code_flush(ip);
        mem_trace_add(v->mem, ip->ram + (page_of(ip, host) << 12), MEM_TRACE_CODE);
    }
    struct block *b = (struct block *)(void *)(ip->arena + ip->used);
    b->host = host;
    b->bytes = 0;
    b->count = 0;
    b->mode = v->mode;
    while (b->count < INTERP_BLOCK_MAX && b->bytes < left) {
        struct insn *i = &b->insn[b->count];

        if (decode_insn((enum cpu_mode)v->mode, host + b->bytes, left - b->bytes, i) !=
            DECODE_OK)
            break;
        sem_bind(v, i);
        b->bytes += i->len;
        b->count++;
        if ((i->flags & INSN_ENDS_BLOCK) || i->op == OP_invalid)
            break;
    }
    if (!b->count)
        return NULL;
    ip->used += block_size(b);
    v->cnt->blocks_decoded++;
    link_block(ip, b);
    return b;
}

/* The same with the lock held: what is written from then on drops the block. The fetch
 * has taken place: an answer to another CPU while we waited for the lock changes the
 * shadow, but not where the fetch has led. */
static struct block *build(struct interp *ip, const uint8_t *host) {
    uint64_t n = page_of(ip, host);
    struct block *b;

    vec_park(ip->v);
    mem_lock(ip->v->mem);
    if (!ip->pages[n].blocks)
        mem_trace_add(ip->v->mem, ip->ram + (n << 12), MEM_TRACE_CODE);
    b = decode(ip, host);
    if (!ip->pages[n].blocks)
        untrace(ip, n);
    mem_unlock(ip->v->mem);
    return b;
}

struct block *interp_code_block(struct interp *ip) {
    struct vcpu *v = ip->v;
    const uint8_t *host = mmu_hit(v->mmu->code, linear_rip(v), 1, MMU_EXEC);
    struct block *b;

    if (unlikely(!host) && !(limit_room(v) && (host = mmu_fetch(v, linear_rip(v)))))
        return NULL;
    if (unlikely(page_of(ip, host) >= ip->npages))
        return NULL;
    for (b = ip->hash[hash_of(host, v->mode)]; b; b = b->hash_next)
        if (b->host == host && b->mode == v->mode)
            break;
    if (unlikely(!b) && !(b = build(ip, host)))
        return NULL;
    if (v->mode != MODE_64 && v->rip + b->bytes - 1 > v->seg[SEG_CS].limit)
        return NULL;
    return b;
}

/* What is in the arena is gone through, not the whole hash: a hardware engine has few
 * blocks made, and flushes them for each instruction that it leaves to us. */
void interp_code_flush(struct interp *ip) {
    mem_lock(ip->v->mem);
    for (size_t at = 0; at < ip->used;) {
        const struct block *b = (const struct block *)(const void *)(ip->arena + at);
        uint64_t n = page_of(ip, b->host);

        if (ip->pages[n].blocks)
            untrace(ip, n);
        ip->pages[n].blocks = NULL;
        ip->pages[n].bitmap = 0;
        ip->hash[hash_of(b->host, b->mode)] = NULL;
        at += block_size(b);
    }
    ip->used = 0;
    ip->flush_pending = false;
    mem_unlock(ip->v->mem);
}

bool interp_has_code(const struct interp *ip, const uint8_t *host, unsigned len) {
    return ip->pages[page_of(ip, host)].bitmap & piece_mask((uintptr_t)host & 4095, len);
}

/* LEN bytes at HOST, within a page; IP may have code there. */
struct written {
    struct interp *ip;
    const uint8_t *host;
    unsigned len;
};

/* A call to who has code there. */
static void drop_written(struct vcpu *v, void *arg) {
    const struct written *w = arg;
    struct interp *ip = w->ip;
    struct code_page *cp = &ip->pages[page_of(ip, w->host)];
    struct block **link = &cp->blocks, *b;
    unsigned lo = (uintptr_t)w->host & 4095, hi = lo + w->len, from = 0, to = 4096;
    uint64_t bitmap = 0;

    if (lo >= cp->clear_from && hi <= cp->clear_to)
        return;
    while ((b = *link)) {
        unsigned at = (uintptr_t)b->host & 4095, end = at + b->bytes;

        if (at < hi && lo < end) {
            *link = b->page_next;
            unhash_block(ip, b);
            v->cnt->blocks_invalidated++;
            v->leave_code = true;
            continue;
        }
        if (end <= lo)
            from = end > from ? end : from;
        else
            to = at < to ? at : to;
        bitmap |= block_mask(b);
        link = &b->page_next;
    }
    cp->bitmap = bitmap;
    cp->clear_from = (uint16_t)from;
    cp->clear_to = (uint16_t)to;
}

/* It is the interpreter of any of the vCPUs. */
void interp_code_written(void *arg, struct gpa at, unsigned len) {
    struct interp *ip = arg;
    const struct vcpu_group *g = vcpu_group_of(ip->v);
    struct written w = {.host = mem_host(ip->v->mem, at, 1), .len = len};
    bool left = false, dropped = false;
    uint64_t n;

    if (!w.host || !len || page_of(ip, w.host) >= ip->npages)
        return;
    n = page_of(ip, w.host);
    for (unsigned k = 0; k < (g ? g->count : 1); k++) {
        struct interp *each = g ? g->smp[k].interp : ip;

        if (!each)
            continue;
        if (interp_has_code(each, w.host, len)) {
            w.ip = each;
            vcpu_call(each->v, drop_written, &w);
            dropped = true;
        }
        left |= each->pages[n].blocks != NULL;
    }
    if (dropped && !left)
        mem_trace_remove(ip->v->mem, ip->ram + (n << 12), MEM_TRACE_CODE);
}

/* --- single instructions --- */

static bool bytes_equal(const uint8_t *a, const uint8_t *b, unsigned n) {
    for (unsigned k = 0; k < n; k++)
        if (a[k] != b[k])
            return false;
    return true;
}

static const struct insn *fetch_fault(struct vcpu *v) {
    sem_fault_err(v, X86_GP, 0);
    return NULL;
}

/* The instruction of the AVAIL bytes at BUF, from the cache or decoded. */
static enum decode_result decode_odd(struct interp *ip, struct insn *slot,
                                     const uint8_t *buf, unsigned avail) {
    struct vcpu *v = ip->v;

    if (slot->len && slot->mode == v->mode) {
        if (slot->len <= avail && bytes_equal(slot->bytes, buf, slot->len))
            return DECODE_OK;
        if (slot->len > avail && bytes_equal(slot->bytes, buf, avail))
            return DECODE_TRUNCATED; /* what these bytes gave last time */
    }
    slot->len = 0;
    vec_park(v);
    enum decode_result res = decode_insn((enum cpu_mode)v->mode, buf, avail, slot);
    v->cnt->blocks_decoded++;
    if (res == DECODE_OK)
        sem_bind(v, slot);
    else
        slot->len = 0;
    return res;
}

/*
 * The second page is fetched only when the first one's bytes do not make an instruction:
 * its fault, if any, has its own address. A limit in the way is #GP(0), and so are more
 * than 15 bytes. AMD64 APM volume 2, "Exceptions and Interrupts", #GP and #PF.
 */
const struct insn *interp_code_odd(struct interp *ip) {
    struct vcpu *v = ip->v;
    struct gva at = linear_rip(v);
    unsigned room = limit_room(v), in_page = 4096 - (at.a & 4095);
    uint8_t buf[16];

    if (!room)
        return fetch_fault(v);
    const uint8_t *p = mmu_fetch(v, at);
    if (!p)
        return NULL;
    struct insn *slot =
        &ip->odd[((uintptr_t)p * 0x9e3779b1u >> 8) & ((1u << INTERP_ODD_BITS) - 1)];
    unsigned avail = room < in_page ? room : in_page;
    for (unsigned k = 0; k < avail && k < 16; k++)
        buf[k] = p[k];
    if (avail > 16)
        avail = 16;
    enum decode_result res = decode_odd(ip, slot, buf, avail);
    if (res == DECODE_TRUNCATED && avail < room) {
        p = mmu_fetch(v, gva((at.a + in_page) & v->lin_mask));
        if (!p)
            return NULL;
        for (unsigned k = avail; k < room; k++)
            buf[k] = p[k - avail];
        res = decode_odd(ip, slot, buf, room);
    }
    return res == DECODE_OK ? slot : fetch_fault(v);
}
