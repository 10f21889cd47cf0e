/*
 * Hot paths: code that is executed often is translated again, as one long fragment that
 * follows the way the guest mostly goes.
 *
 * Cold fragments count down their executions (tr_env.heat). At zero a path is built
 * from that fragment on: at a conditional branch it goes where more executions were
 * counted, direct jumps and calls are followed, and so are returns from calls on the path
 * (what the stack holds is compared with where the call came from) and other indirect
 * branches, to where they went when they were cold. Every other way out is a side exit.
 * The path ends when it comes back to its start (a loop inside the fragment), where it
 * meets itself or, going backwards, another hot path, and when it is long enough.
 *
 * A path lies on two pages at the most. Its entry sees that both still map the code that
 * was translated; inside it nothing can change that, since what does (CR3, INVLPG...)
 * leaves the cache.
 */
#include "decode/decode.h"
#include "mem/mem.h"
#include "sem/sem.h"
#include "tr/tr_int.h"

#define PATH_CALLS 8

/* A loop is repeated in its path up to so many times, while it is no longer than this. */
#define UNROLL_TIMES 4
#define UNROLL_INSNS 64

/* A successor is followed if it was executed this often, relative to the path's start. */
#define WORTH_SHARE 16

/* Instructions behind the end of a path that are looked at for the flags they need. */
#define LOOK_AHEAD 8

struct path {
    struct tr *t;
    uint64_t va; /* next */
    uint64_t back[PATH_CALLS];
    unsigned calls;
};

static uint8_t *page_of(const uint8_t *host) {
    return (uint8_t *)((uintptr_t)host & ~4095ul);
}

/* As far apart everywhere, as likely as not: within one mapping. */
static bool near(uint64_t a, uint64_t b) {
    return b - a + (1u << 24) < 1u << 25;
}

/* Host address of the code at VA if the path may go there, else NULL. */
static const uint8_t *code_at(struct tr *t, uint64_t va) {
    const struct tr_env *env = t->env;
    struct tr_code *c = t->c;
    const uint8_t *host;

    if (!((va ^ c->va) >> 12))
        return c->page + (va & 4095);
    if (c->page2)
        return (va ^ c->va2) >> 12 ? NULL : c->page2 + (va & 4095);
    /* What has been fetched from lately; others would have to be walked to. */
    host = mmu_hit(env->v->mmu->code, gva(va), 1, MMU_EXEC);
    if (!host || mem_gpa(env->v->mem, host).a == ~0ull)
        return NULL;
    if (c->one_page || (!c->fixed && !near(c->va, va)))
        return NULL;
    c->va2 = va & ~4095ull;
    c->page2 = page_of(host);
    env->advice->reads(env->arg, c->page2);
    return host;
}

static unsigned executed(const struct tr *t, uint64_t va) {
    const struct vcpu *v = t->env->v;
    const uint8_t *host = mmu_hit(v->mmu->code, gva(va), 1, MMU_EXEC);
    unsigned left, hot = t->env->opt.hot;

    if (!host || mem_gpa(v->mem, host).a == ~0ull)
        return 0;
    left = *tr_heat(t->env, tr_place(t->env, page_of(host), va));
    if (!left)
        return 0;                         /* nothing has been counted there */
    return left > hot ? hot : hot - left; /* it goes on counting below zero */
}

static bool on_path(const struct tr *t, uint64_t va) {
    for (unsigned k = 0; k < t->n; k++)
        if (t->insn[k].va == va)
            return true;
    return false;
}

static bool is_hot(struct tr *t, uint64_t va) {
    const uint8_t *code = code_at(t, va);

    return code && t->env->advice->is_hot(t->env->arg, va, page_of(code), t->key);
}

static bool worth(struct path *p, uint64_t to) {
    struct tr *t = p->t;

    if (executed(t, to) < t->env->opt.hot / WORTH_SHARE || on_path(t, to))
        return false;
    return to > p->va || !is_hot(t, to);
}

/* The path goes from U to TO, which is what HOW says. */
static bool go(struct path *p, struct tu_insn *u, uint64_t to, enum follow how) {
    if (!worth(p, to) || !code_at(p->t, to))
        return false;
    u->follow = (uint8_t)how;
    p->va = to;
    return true;
}

static bool follow_jcc(struct path *p, struct tu_insn *u, uint64_t next) {
    struct tr *t = p->t;
    uint64_t target = tr_target(t, &u->i);
    bool taken = target == t->c->va ||
                 (next != t->c->va && executed(t, target) > executed(t, next));
    uint64_t to = taken ? target : next;

    if (to == t->c->va) {
        u->follow = taken ? FOLLOW_LOOP_TARGET : FOLLOW_LOOP_NEXT;
        return false;
    }
    return go(p, u, to, taken ? FOLLOW_TARGET : FOLLOW_NEXT);
}

static bool follow_jmp(struct path *p, struct tu_insn *u) {
    uint64_t to = tr_target(p->t, &u->i);

    if (to == p->t->c->va) {
        u->follow = FOLLOW_LOOP_TARGET;
        return false;
    }
    return go(p, u, to, FOLLOW_TARGET);
}

static bool follow_call(struct path *p, struct tu_insn *u, uint64_t next) {
    if (p->calls == PATH_CALLS || !go(p, u, tr_target(p->t, &u->i), FOLLOW_TARGET))
        return false;
    p->back[p->calls++] = next;
    return true;
}

/* An indirect branch: to where the path's call came from, or where it went lately. */
static bool follow_indirect(struct path *p, struct tu_insn *u, uint64_t next) {
    bool ret = u->i.op == OP_ret, back = ret && p->calls;
    uint64_t to =
        back ? p->back[p->calls - 1] : *tr_guess(p->t->env, tr_insn_place(p->t, u));

    if (!p->t->env->opt.predict || !go(p, u, to, FOLLOW_EXPECTED))
        return false;
    u->expect = to;
    if (back)
        p->calls--;
    if (u->i.op == OP_call && p->calls < PATH_CALLS)
        p->back[p->calls++] = next;
    return true;
}

/* Where to go after U; false: the path ends with it. */
static bool step(struct path *p, struct tu_insn *u) {
    struct tr *t = p->t;
    const struct insn *i = &u->i;
    uint64_t next = u->va + i->len;
    bool branch = i->op == OP_jcc || i->op == OP_jmp || i->op == OP_call;

    if (KEY_MODE(t->key) != MODE_64)
        next = (uint32_t)next;
    if ((branch || i->op == OP_ret) && !tr_branch_ok(t, i))
        return false;
    if ((i->op == OP_call || i->op == OP_ret) && !tr_stack_ok(t, i))
        return false;
    if (i->op == OP_ret || (branch && !tr_is_direct(i) && i->op != OP_jcc))
        return follow_indirect(p, u, next);
    switch (i->op) {
    case OP_jcc:
        return follow_jcc(p, u, next);
    case OP_jmp:
        return follow_jmp(p, u);
    case OP_call:
        return follow_call(p, u, next);
    default:
        if ((i->flags & INSN_ENDS_BLOCK) && i->op != OP_sti)
            return false;
        p->va = next;
        return next != t->c->va && !on_path(t, next) && code_at(t, next);
    }
}

/* Adds LEN bytes at VA to what the path consists of. False: too many pieces. */
static bool note_piece(struct tr *t, uint64_t va, unsigned len) {
    bool second = (va ^ t->c->va) >> 12;
    unsigned from = va & 4095;
    struct piece *last = t->npieces ? &t->pieces[t->npieces - 1] : NULL;

    if (last && last->second == second && last->to == from) {
        last->to = (uint16_t)(from + len);
        return true;
    }
    if (t->npieces == ARRAY_SIZE(t->pieces))
        return false;
    t->pieces[t->npieces++] =
        (struct piece){(uint16_t)from, (uint16_t)(from + len), second};
    return true;
}

/* The status flags that the code at VA needs, as far as a look at it tells. What was
 * looked at is part of the path: when it is written to, the path goes. */
static uint8_t live_at(struct tr *t, uint64_t va) {
    uint8_t unknown = tr_pack_flags(FLAGS_ALL), live = 0;

    for (unsigned n = 0; n < LOOK_AHEAD && unknown; n++) {
        bool here = !((va ^ t->c->va) >> 12);
        const uint8_t *code =
            here || (t->c->page2 && !((va ^ t->c->va2) >> 12)) ? code_at(t, va) : NULL;
        unsigned room = 4096 - (va & 4095);
        struct insn i;

        if (!code || decode_memo_insn(t->memo, KEY_MODE(t->key), code,
                                      room < 15 ? room : 15, &i) != DECODE_OK)
            break;
        sem_bind(t->env->v, &i);
        if (tr_class_of(&i) == CLASS_CALLOUT || (i.flags & INSN_ENDS_BLOCK) ||
            !note_piece(t, va, i.len))
            break;
        live |= tr_pack_flags(i.fl_read) & unknown;
        unknown &= (uint8_t)~tr_pack_flags(i.fl_written | i.fl_undefined);
        va += i.len;
    }
    return live | unknown;
}

/* Where the path ends with a direct way on, what is there may need few flags. */
static void look_ahead(struct tr *t) {
    const struct tu_insn *last = &t->insn[t->n - 1];
    const struct insn *i = &last->i;

    if (!t->env->opt.liveness || last->follow != FOLLOW_NONE)
        return;
    if ((i->op == OP_jmp || i->op == OP_call) && tr_is_direct(i) && tr_branch_ok(t, i))
        t->live_exit = live_at(t, tr_target(t, i));
    else if (!(i->flags & INSN_ENDS_BLOCK))
        t->live_exit = live_at(t, last->va + i->len);
}

/* A short loop is there several times: steps of its pointers share checks (group.c). Not
 * one that has other ways out than its end: which is taken when is the predictor's to
 * learn, and it learns each copy by itself. */
static void unroll(struct tr *t) {
    unsigned n = t->n, limit = UNROLL_INSNS;
    struct tu_insn *last = &t->insn[n - 1];
    uint8_t loop = last->follow;

    if (!t->env->opt.unroll || !tr_loops(t))
        return;
    for (unsigned k = 0; k + 1 < n; k++)
        if (t->insn[k].i.op == OP_jcc || t->insn[k].follow == FOLLOW_EXPECTED)
            return;
    if (limit > t->env->opt.path)
        limit = t->env->opt.path;
    for (unsigned times = 1; times < UNROLL_TIMES && t->n + n <= limit; times++) {
        t->insn[t->n - 1].follow = loop == FOLLOW_LOOP_NEXT ? FOLLOW_NEXT : FOLLOW_TARGET;
        for (unsigned k = 0; k < n; k++)
            t->insn[t->n++] = t->insn[k];
        t->insn[t->n - 1].follow = loop;
    }
}

bool tr_build_path(struct tr *t) {
    struct path p = {.t = t, .va = t->c->va};

    while (t->n < t->env->opt.path) {
        struct tu_insn *u = &t->insn[t->n];
        const uint8_t *code = code_at(t, p.va);
        unsigned room = 4096 - (p.va & 4095);

        /* What crosses into the next page has a fragment of its own. */
        if (!code || t->env->advice->breaks(t->env->arg, code) ||
            decode_memo_insn(t->memo, KEY_MODE(t->key), code, room < 15 ? room : 15,
                             &u->i) != DECODE_OK)
            break;
        if (!note_piece(t, p.va, u->i.len))
            break;
        sem_bind(t->env->v, &u->i);
        u->va = p.va;
        u->follow = FOLLOW_NONE;
        t->n++;
        if (!step(&p, u)) {
            unroll(t);
            look_ahead(t);
            return true;
        }
    }
    /* It was to go on, but cannot. */
    if (!t->n)
        return false;
    t->insn[t->n - 1].follow = FOLLOW_NONE;
    look_ahead(t);
    return true;
}
