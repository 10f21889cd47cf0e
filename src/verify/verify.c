/*
 * The verifier: follows every way through a fragment and everything that leads out of it.
 *
 * The bytes are decoded from the first to the last; a branch that goes anywhere but to
 * the first byte of one of these instructions, to a common stub, or (a link) to the entry
 * of the fragment that it is chained to, is a finding. From the entries on, where nothing
 * is known but that the guest's registers hold what is the guest's, the state is carried
 * along each edge and joined where ways meet, until nothing changes.
 *
 * What the C functions behind the stubs do is not looked at. This rests on:
 *   - slow, anchor: come back to T1 with T0 a pointer to SITE_SIZE bytes for SITE_ACCESS,
 *     and what was held is still good; or they don't come back;
 *   - callout: come back to T1 with none of our values good any more;
 *   - the fields of struct vcpu hold what their kinds say.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/vec.h"
#include "tr/tr.h"
#include "verify/verify_int.h"

/* --- decoding --- */

static bool decode_all(struct verifier *w) {
    uint32_t off = 0;

    while (off < w->size) {
        w->off[w->n] = off;
        w->k = w->n;
        w->n++;
        if (!decode_host(w->c->start + off, w->size - off, &w->insn[w->k])) {
            v_bad(w, "no instruction");
            return false;
        }
        w->at[off] = (uint16_t)(w->k + 1);
        off += w->insn[w->k].len;
    }
    return w->n && off == w->size;
}

/* The instruction that begins at OFF, or -1. */
static int insn_at(const struct verifier *w, uint64_t off) {
    return off < w->size && w->at[off] ? w->at[off] - 1 : -1;
}

static int insn_of(const struct verifier *w, const uint8_t *rx) {
    return rx >= w->c->start ? insn_at(w, (uint64_t)(rx - w->c->start)) : -1;
}

/* --- edges within the fragment --- */

static void enqueue(struct verifier *w, unsigned k) {
    if (w->queued[k])
        return;
    w->queued[k] = true;
    w->work[w->nwork++] = k;
}

static void flow_to(struct verifier *w, int k, const struct vstate *s) {
    if (k < 0 || (unsigned)k >= w->n) {
        v_bad(w, "goes on where no instruction of the fragment begins");
        return;
    }
    if (w->state[k]) {
        if (v_join_state(w->state[k], s))
            enqueue(w, (unsigned)k);
        return;
    }
    w->state[k] = malloc(sizeof(*s));
    if (!w->state[k]) {
        v_bad(w, "no memory to look at it");
        return;
    }
    *w->state[k] = *s;
    enqueue(w, (unsigned)k);
}

/* --- out of it --- */

/* T1 is where a stub comes back to. */
static int continuation(struct verifier *w, const struct vstate *s) {
    const struct vval *a = &s->reg[T1];

    if (a->kind == V_CODE)
        return insn_at(w, a->n);
    v_bad(w, "a stub that is not told where to come back to");
    return -1;
}

/* The check that failed is the one that the stub is told of. */
static void check_site(struct verifier *w, const struct vstate *s, int anchors) {
    const struct vval *a = &s->reg[T0];
    uint32_t site = s->site;
    unsigned anchor = anchors < 0 ? 0 : (site >> SITE_ANCHOR_SHIFT) + 1;

    if (!s->site_known)
        v_bad(w, "a slow path without a site");
    else if (a->kind != V_RETRY)
        v_bad(w, "a slow path for what no check refused");
    else if (SITE_SIZE(site) != a->n || SITE_ACCESS(site) != a->acc)
        v_bad(w, "the site says %u bytes, access %u; %llu, %u were checked",
              SITE_SIZE(site), SITE_ACCESS(site), (unsigned long long)a->n, a->acc);
    else if (anchor != a->anchor || (anchors >= 0 && anchors != a->acc))
        v_bad(w, "not the anchor that was checked");
    else if (anchors >= 0 && !(site & SITE_SIZE_MAX))
        v_bad(w, "all of a page through an anchor");
    else if (anchors < 0 && site >> SITE_ANCHOR_SHIFT)
        v_bad(w, "an anchor for an access that has none");
    else if ((site & SITE_ALONE) &&
             ((a->how & HOW_FIXED) || SITE_SIZE(site) > TR_BOUNCE_LEN))
        v_bad(w, "%u bytes for a single access, to be copied", SITE_SIZE(site));
}

/* slow; ANCHORS: an anchor's, for that access. */
static void to_slow(struct verifier *w, const struct vstate *s, int anchors) {
    const struct vval *a = &s->reg[T0];
    bool alone = s->site & SITE_ALONE;
    struct vstate back = *s;
    int k = continuation(w, s);

    check_site(w, s, anchors);
    back.reg[T0] = (struct vval){
        .kind = V_HOST, .acc = a->acc, .how = alone ? HOW_COPY : HOW_PAGE, .n = a->n};
    back.reg[T1] = (struct vval){.kind = V_SECRET};
    back.cell[CELL_SPILL] = (struct vval){.kind = V_SECRET};
    back.site_known = false;
    if (!w->bad)
        flow_to(w, k, &back);
}

static void come_back(struct verifier *w, const struct vstate *s) {
    struct vstate back;
    int k = continuation(w, s);

    v_forget(&back);
    back.fuel = s->fuel;
    back.taken = s->taken;
    back.polled = s->polled;
    if (!w->bad)
        flow_to(w, k, &back);
}

static bool within(uint64_t p, const void *from, uint64_t size) {
    return from && p - (uint64_t)(uintptr_t)from < size;
}

/* T0 is this pointer of ours. */
static void expect(struct verifier *w, const struct vstate *s, bool right,
                   const char *what) {
    if (s->reg[T0].kind != V_CONST || !right)
        v_bad(w, "a stub that is not given %s", what);
}

static bool is_link(const struct verifier *w, uint64_t p) {
    uint64_t in;

    p += (uint64_t)(uintptr_t)w->env->records;
    in = p - (uint64_t)(uintptr_t)w->c->links;
    return within(p, w->c->links, w->c->nlinks * sizeof(struct link)) &&
           !(in % sizeof(struct link));
}

/* No more fuel than was taken has been given back, and none is left to look at. */
static void leave(struct verifier *w, const struct vstate *s) {
    if (s->fuel < 0 || s->fuel > s->taken)
        v_bad(w, "leaves with fuel that is not its own");
}

static void whose_check(struct verifier *w, const struct vstate *s) {
    uint64_t at = (uint64_t)(w->c->entry_check - w->c->start);

    if (s->reg[T1].kind != V_CODE || s->reg[T1].n != at)
        v_bad(w, "does not say whose checks failed");
}

/* Out of the fragment, to RX. */
static void to_stub(struct verifier *w, const struct vstate *s, const uint8_t *rx) {
    const struct tr_env *env = w->env;
    uint64_t p = s->reg[T0].n;

    if (rx == env->stub.slow) {
        to_slow(w, s, -1);
    } else if (rx == env->stub.anchor[MMU_READ] || rx == env->stub.anchor[MMU_WRITE]) {
        to_slow(w, s, rx == env->stub.anchor[MMU_READ] ? MMU_READ : MMU_WRITE);
    } else if (tr_is_callout(env, rx)) {
        expect(w, s, within(p, env->records, env->records_size), "an instruction");
        come_back(w, s);
    } else if (rx == env->stub.link || rx == env->stub.link_regs) {
        expect(w, s, is_link(w, p), "a link of the fragment's");
    } else if (rx == env->stub.hot) {
        expect(w, s, p == tr_record_number(env, w->c->hot ? w->c->shared : w->c),
               "the fragment whose executions are counted");
    } else if (w->c->hot && rx == tr_behind_head(env, w->c->shared)) {
        ; /* at another address: on with the shared code */
    } else if (rx == env->stub.indirect || rx == env->stub.check) {
        if (!v_is_public(&s->reg[T0]))
            v_bad(w, "branches to a value of ours");
        if (rx == env->stub.check)
            whose_check(w, s);
    } else if (rx == env->stub.check_shared && !w->c->fixed) {
        whose_check(w, s); /* and where the guest is, is in vcpu.rip */
    } else {
        v_bad(w, "branches out of the fragment, to no stub");
    }
}

/* Code of one's own or a stub's, where a guest's branch does not go. */
static void flow_out(struct verifier *w, const struct vstate *s, const uint8_t *rx) {
    v_guest_public(w, s);
    if (rx >= w->c->start && rx < w->c->end)
        flow_to(w, insn_of(w, rx), s);
    else
        to_stub(w, s, rx);
}

/* --- links --- */

static const uint8_t *target_of(const struct verifier *w, unsigned k) {
    return w->c->start + w->off[k] + w->insn[k].target;
}

/* The link whose displacement instruction K has, or NULL. */
static const struct link *link_of(const struct verifier *w, unsigned k) {
    const uint8_t *rel = w->c->start + w->off[k] + w->insn[k].len - 4;

    for (unsigned n = 0; w->insn[k].len >= 5 && n < w->c->nlinks; n++)
        if (w->c->links[n].rel32 + tr_delta(w->env) == rel)
            return &w->c->links[n];
    return NULL;
}

static bool is_entry(const struct tr_code *c, const uint8_t *rx) {
    return rx == c->entry_check || rx == c->entry_mem || rx == c->entry_regs ||
           (c->page2 && (rx == c->entry_save || rx == c->entry_here));
}

/* Goes to its stub as long as it is not chained: what holds for one holds for both. */
static void to_link(struct verifier *w, const struct vstate *s, const struct link *l) {
    const uint8_t *rx = target_of(w, w->k);

    if (rx != l->stub && !(l->to && is_entry(l->to, rx)))
        v_bad(w, "a link that goes neither to its stub nor to an entry");
    if (tr_link_target(l, w->c->va & ~4095ull) <= w->c->va && !s->polled)
        v_bad(w, "goes back, and does not look at the poll page before");
    leave(w, s);
    flow_out(w, s, l->stub);
}

/* Each link is a jump that can be turned, and its stub is the fragment's. */
static void check_links(struct verifier *w) {
    unsigned found = 0;

    for (unsigned k = 0; k < w->n; k++) {
        const struct host_insn *i = &w->insn[k];

        found +=
            i->direct &&
            ((i->op == HOST_JMP && i->len == 5) || (i->op == HOST_JCC && i->len == 6)) &&
            link_of(w, k);
    }
    w->k = 0;
    if (found != w->c->nlinks)
        v_bad(w, "%u links, %u of them jumps", w->c->nlinks, found);
}

/* --- branches --- */

/* What holds behind a conditional branch, on the way where COND is or is not true. */
static void refine(struct verifier *w, struct vstate *s, unsigned cond, bool taken) {
    const struct vleft *f = &w->before;
    struct vval *a = &s->reg[f->reg & 15];
    bool above = (cond == CC_A) == taken, equal = (cond == CC_E) == taken;

    if (f->kind == VF_TAG && (cond == CC_E || cond == CC_NE)) {
        if (equal) {
            s->flags = *f;
            s->flags.kind = VF_VALID;
        } else {
            *a = (struct vval){
                .kind = V_RETRY, .acc = f->acc, .how = HOW_FIXED, .n = 4096};
        }
        return;
    }
    if (f->kind != VF_CMP || (cond != CC_A && cond != CC_BE))
        return;
    if (a->kind == V_DIFF && f->n <= 4095) {
        a->how = above ? HOW_FAILED : HOW_CHECKED;
        a->n = f->n;
    } else if (v_is_public(a) && !above && f->n < a->n) {
        *a = (struct vval){
            .kind = V_PUBLIC, .id = a->kind == V_HASH ? 0 : a->id, .n = f->n};
    } else if (a->kind == V_RUN && !above && f->n <= 4096) {
        unsigned n = s->run[0].id ? 1 : 0;

        s->run[n].id = a->id;
        s->run[n].shift = a->low;
    }
}

static void direct(struct verifier *w, const struct vstate *s,
                   const struct host_insn *i) {
    const struct link *l = link_of(w, w->k);
    struct vstate taken = *s, not = *s;

    if (i->op == HOST_JCC) {
        refine(w, &taken, i->cond, true);
        refine(w, &not, i->cond, false);
    }
    if (l)
        to_link(w, &taken, l);
    else
        flow_out(w, &taken, target_of(w, w->k));
    if (i->op != HOST_JMP)
        flow_to(w, (int)w->k + 1, &not );
}

/* Through the jump table. */
static void indirect(struct verifier *w, const struct vstate *s,
                     const struct host_insn *i) {
    const struct host_mem *m = &i->mem;

    v_guest_public(w, s);
    leave(w, s);
    if (i->opnd[0].kind != HOST_MEM || m->seg || m->index != HOST_NONE || m->base >= 16 ||
        m->disp || m->size != 8 || i->addrsize != 8 || s->reg[m->base].kind != V_JUMP)
        v_bad(w, "branches through something else than the jump table");
    else if (!v_is_public(&s->reg[T0]))
        v_bad(w, "branches to a value of ours");
    else if (!s->polled)
        v_bad(w, "an indirect branch that does not look at the poll page before");
}

/* From instruction K on, up to where ways meet or it ends. */
static void run_from(struct verifier *w, unsigned k) {
    struct vstate s = *w->state[k];

    for (;;) {
        const struct host_insn *i = &w->insn[k];

        w->k = k;
        v_insn(w, &s, i);
        if (w->bad)
            return;
        if (i->op == HOST_JMP || i->op == HOST_JCC || i->op == HOST_JRCXZ) {
            if (i->direct)
                direct(w, &s, i);
            else
                indirect(w, &s, i);
            return;
        }
        k++;
        if (k >= w->n || w->state[k]) {
            flow_to(w, (int)k, &s);
            return;
        }
    }
}

/* --- loops --- */

enum { UNSEEN, OPEN, DONE };

/* With several vCPUs: the load behind that of the page's address. */
static bool is_own_poll(const struct verifier *w, unsigned k) {
    const struct host_insn *i = &w->insn[k], *before = i - 1;

    return k && before->op == HOST_MOV && before->mem.seg == 'g' &&
           before->mem.access == HOST_READ && before->mem.disp == (int64_t)GS_TR(poll) &&
           i->op == HOST_MOV && i->mem.access == HOST_READ && !i->mem.disp &&
           i->mem.base == before->opnd[0].reg && i->mem.index == HOST_NONE;
}

static bool is_poll(const struct verifier *w, unsigned k) {
    const struct host_mem *m = &w->insn[k].mem;

    if (w->env->smp)
        return is_own_poll(w, k);
    return m->access == HOST_READ && m->base == HOST_NONE && m->index == HOST_NONE &&
           !m->seg && (uint64_t)m->disp == (uint64_t)(uintptr_t)w->env->poll_page;
}

/* Where instruction K goes within the fragment: up to 2 instructions. A slow path is left
 * out: it comes back right behind its own check. */
static unsigned successors(const struct verifier *w, unsigned k, int to[2]) {
    const struct host_insn *i = &w->insn[k];
    bool jump = i->op == HOST_JMP || i->op == HOST_JCC || i->op == HOST_JRCXZ;
    unsigned n = 0;

    if (jump && i->direct && !link_of(w, k)) {
        int at = insn_of(w, target_of(w, k));

        if (at >= 0)
            to[n++] = at;
    }
    if (i->op != HOST_JMP && k + 1 < w->n)
        to[n++] = (int)k + 1;
    return n;
}

/* There is no way round without a look at the poll page. WORK and STATE are free by now.
 */
static void check_loops(struct verifier *w) {
    uint8_t *seen = calloc(w->n, 1), *next = calloc(w->n, 1);

    for (unsigned first = 0; seen && next && first < w->n && !w->bad; first++) {
        unsigned depth = 0;

        if (seen[first])
            continue;
        w->work[depth++] = first;
        seen[first] = OPEN;
        while (depth) {
            unsigned k = w->work[depth - 1];
            int to[2];
            unsigned n = is_poll(w, k) ? 0 : successors(w, k, to);

            if (next[k] == n) {
                seen[k] = DONE;
                depth--;
                continue;
            }
            k = (unsigned)to[next[k]++];
            if (seen[k] == OPEN) {
                w->k = w->work[depth - 1];
                v_bad(w, "a loop that does not look at the poll page");
                break;
            }
            if (seen[k] == UNSEEN) {
                seen[k] = OPEN;
                w->work[depth++] = k;
            }
        }
    }
    if (!seen || !next)
        v_bad(w, "no memory to look at it");
    free(seen);
    free(next);
}

/* --- a fragment --- */

static void enter(struct verifier *w, const uint8_t *entry, bool target) {
    struct vstate s;

    v_forget(&s);
    if (target)
        s.reg[T0] = v_public();
    w->k = 0;
    flow_to(w, insn_of(w, entry), &s);
}

static void follow(struct verifier *w) {
    unsigned long steps = 0, most = 1000 + 100ul * w->n;

    enter(w, w->c->entry_jump, true);
    enter(w, w->c->entry_check, !w->c->fixed);
    enter(w, w->c->entry_mem, false);
    enter(w, w->c->entry_regs, false);
    if (w->c->page2) {
        enter(w, w->c->entry_save, false);
        enter(w, w->c->entry_here, false);
    }
    if (w->c->hot)
        enter(w, w->c->select, false);
    while (w->nwork && !w->bad) {
        unsigned k = w->work[--w->nwork];

        w->queued[k] = false;
        run_from(w, k);
        if (++steps > most)
            v_bad(w, "does not come to an end");
    }
}

static bool allocate(struct verifier *w) {
    size_t n = w->size + 1u;

    w->insn = malloc(n * sizeof(*w->insn));
    w->off = malloc(n * sizeof(*w->off));
    w->at = calloc(n, sizeof(*w->at));
    w->state = calloc(n, sizeof(*w->state));
    w->work = malloc(n * sizeof(*w->work));
    w->queued = calloc(n, sizeof(*w->queued));
    return w->insn && w->off && w->at && w->state && w->work && w->queued;
}

static void release(struct verifier *w) {
    for (unsigned k = 0; w->state && k < w->n; k++)
        free(w->state[k]);
    free(w->insn);
    free(w->off);
    free(w->at);
    free(w->state);
    free(w->work);
    free(w->queued);
}

bool verify_code(const struct tr_env *env, const struct tr_code *c, struct finding *f) {
    struct verifier w = {.env = env, .c = c, .f = f};

    vec_park(env->v);
    *f = (struct finding){.at = NULL};
    if (c->end <= c->start || c->end - c->start > UINT16_MAX) {
        v_bad(&w, "a fragment without code, or with too much");
        return false;
    }
    w.size = (uint32_t)(c->end - c->start);
    if (!allocate(&w))
        v_bad(&w, "no memory to look at it");
    else if (decode_all(&w))
        check_links(&w);
    else
        v_bad(&w, "ends in the middle of an instruction");
    if (!w.bad)
        follow(&w);
    if (!w.bad)
        check_loops(&w);
    release(&w);
    return !w.bad;
}
