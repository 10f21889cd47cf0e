/* A program that differs, made smaller as long as it differs in the same way. */
#include <string.h>

#include "fidelity.h"

const char *fid_bench_run(struct bench *b, struct program *p, unsigned *state,
                          struct guest **guest) {
    static uint8_t mem[FID_PAGES * 4096];
    struct batch *batch = fid_host_batch(b->host, 0);

    batch->n = 1;
    batch->program[0] = *p;
    fid_host_submit(b->host, 0);
    if (fid_host_wait(b->host, 0))
        return "the host's child has died";
    fid_fill_memory(p->memory, mem);
    for (unsigned g = 0; g < b->nguests; g++) {
        if (*guest && *guest != b->guest[g])
            continue;
        fid_guest_program(b->guest[g], p);
        for (unsigned k = 0; k < p->nstates; k++) {
            const struct outcome *host = &batch->outcome[0][k];
            struct outcome o;
            const char *why;

            if (host->end != FID_EXCEPTION && !p->hidden)
                continue;
            fid_guest_run(b->guest[g], p, &p->state[k], mem, &o);
            why = p->hidden
                      ? (o.vector == X86_UD && o.rip == p->base ? NULL : "is offered")
                      : fid_compare(b->guest[g], p, &p->state[k], host, &o);
            if (why) {
                *state = k;
                *guest = b->guest[g];
                return why;
            }
        }
    }
    return NULL;
}

struct goal {
    struct bench *b;
    struct guest *guest;
    const char *why;
};

static bool still(const struct goal *goal, struct program *p) {
    unsigned state;
    struct guest *g = goal->guest;
    const char *why = fid_bench_run(goal->b, p, &state, &g);

    return why && !strcmp(why, goal->why);
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
    struct goal goal = {.b = b};
    unsigned state;
    bool again = true;

    goal.why = fid_bench_run(b, p, &state, &goal.guest);
    if (!goal.why)
        return;
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
    while (again) {
        again = false;
        for (unsigned k = p->n; k-- > 0;)
            again |= p->n > 1 && drop_insn(&goal, p, k);
    }
    plain_state(&goal, p);
}
