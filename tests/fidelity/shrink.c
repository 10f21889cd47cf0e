/* A program that differs, made smaller as long as it differs. */
#include <string.h>

#include "fidelity.h"

struct goal {
    struct bench *b;
    int guest;
};

/* In one way or another: what is explained is none (compare.c). */
static bool still(const struct goal *goal, struct program *p) {
    return fid_bench_run(goal->b, p, goal->guest) != NULL;
}

/* Ends P before instruction K. What branches go to behind it is HLT all the same. */
static bool cut(const struct goal *goal, struct program *p, unsigned k) {
    static struct program q;

    q = *p;
    q.len = p->at[k] + 1u;
    q.code[q.len - 1] = 0xf4;
    if (!fid_program_scan(&q) || (goal && !still(goal, &q)))
        return false;
    *p = q;
    return true;
}

static void take_image(const uint8_t *from, uint8_t *to) {
    fid_image_clean(to);
    if (from[512] & 1) {
        memcpy(to, from, 6); /* the pointers are nobody's */
        memcpy(to + 32, from + 32, 128);
    }
    memcpy(to + 24, from + 24, 4);
    if (from[512] & 2)
        memcpy(to + 160, from + 160, 256);
    if (from[512] & 4)
        memcpy(to + 576, from + 576, 256);
    fid_avx512_take(from, to);
}

/* Begins P at instruction K, with the state that the host has by then. */
static bool begin_at(const struct goal *goal, struct program *p, unsigned k) {
    static struct program q;
    struct batch *batch = fid_host_batch(goal->b->host, 0);
    struct outcome *o = &batch->outcome[0][0];
    struct state *s = &q.state[0];
    unsigned off = p->at[k];

    q = *p;
    if (!cut(NULL, &q, k))
        return false;
    batch->n = 1;
    batch->program[0] = q;
    fid_host_submit(goal->b->host, 0);
    if (fid_host_wait(goal->b->host, 0) || o->end != FID_EXCEPTION ||
        o->vector != X86_GP || o->rip != q.base + q.len - 1 || o->memory)
        return false;
    q = *p;
    memcpy(s->gpr, o->gpr, sizeof(s->gpr));
    s->rflags = o->rflags & ~(uint64_t)(X86_FL_IF | X86_FL_RF);
    s->fs_base = o->fs_base;
    s->gs_base = o->gs_base;
    take_image(o->image, s->image);
    q.base += off;
    q.len -= off;
    memmove(q.code, q.code + off, q.len);
    if (!fid_program_scan(&q) || !still(goal, &q))
        return false;
    *p = q;
    return true;
}

static bool drop_insn(const struct goal *goal, struct program *p, unsigned k) {
    static struct program q;
    unsigned from = p->at[k], to = k + 1 < p->n ? p->at[k + 1] : p->len - 1;

    q = *p;
    memmove(q.code + from, q.code + to, q.len - to);
    q.len -= to - from;
    if (q.len < 2 || !fid_program_scan(&q) || !still(goal, &q))
        return false;
    *p = q;
    return true;
}

/* Zeroes LEN bytes at OFF of the state, or sets them to those of TO. */
static void plain(const struct goal *goal, struct program *p, size_t off, size_t len,
                  const void *to) {
    static struct program q;
    uint8_t *at = (uint8_t *)&q.state[0] + off;

    q = *p;
    if (to)
        memcpy(at, to, len);
    else
        memset(at, 0, len);
    if (still(goal, &q))
        *p = q;
}

static void plain_state(const struct goal *goal, struct program *p) {
    static const uint64_t flags = X86_FL_ONE, mem = FID_DATA + 0x800;
    size_t image = offsetof(struct state, image);
    uint8_t clean[FID_IMAGE];

    fid_image_clean(clean);
    plain(goal, p, image, FID_IMAGE, clean);
    for (unsigned k = 0; k < FID_IMAGE; k += k < 32 ? 8 : 16)
        plain(goal, p, image + k, k < 32 ? 8 : 16, clean + k);
    plain(goal, p, offsetof(struct state, rflags), 8, &flags);
    for (unsigned r = 0; r < 16; r++) {
        if (r != REG_RAX && r != REG_RDX) /* what XSAVE stores */
            plain(goal, p, 8 * r, 8, &mem);
        plain(goal, p, 8 * r, 8, NULL);
    }
    plain(goal, p, offsetof(struct state, fs_base), 8, NULL);
    plain(goal, p, offsetof(struct state, gs_base), 8, NULL);
    if (p->memory) {
        static struct program q;

        q = *p;
        q.memory = 0;
        if (still(goal, &q))
            *p = q;
    }
}

void fid_shrink(struct bench *b, struct program *p) {
    const struct difference *d = fid_bench_run(b, p, -1);
    struct goal goal = {.b = b};
    bool again = true;
    unsigned state;

    if (!d)
        return;
    goal.guest = (int)d->guest;
    state = d->state;
    if (state) {
        static struct program q;

        q = *p;
        q.state[0] = q.state[state];
        q.nstates = 1;
        if (!still(&goal, &q)) /* it takes what ran before */
            return;
        *p = q;
    }
    p->nstates = 1;
    if (!still(&goal, p)) {
        p->nstates = FID_STATES;
        return;
    }
    for (unsigned k = 1; k < p->n && !cut(&goal, p, k);)
        k++;
    for (unsigned k = p->n; k-- > 1 && !begin_at(&goal, p, k);)
        ;
    while (again) {
        again = false;
        for (unsigned k = p->n; k-- > 0;)
            again |= p->n > 1 && drop_insn(&goal, p, k);
    }
    plain_state(&goal, p);
}
