/*
 * fidelity [--cases N] [--seed S] [--bt OPTIONS]... [--keep N] [FILE...]
 *
 * With files, runs the cases in them; else N generated ones. Ends with status 0 when
 * nothing differs. The host works on the next batch of programs while the engines run
 * this one.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/vec.h"
#include "fidelity.h"
#include "sem/sem.h"

#define MAX_GUESTS 12u
#define MAX_KEPT 64u

struct campaign {
    struct bench b;
    uint64_t seed, cases, want;
    uint64_t programs, systematic;
    uint64_t by_vector[32], hidden, unlike;
    uint64_t differences;
    unsigned keep, nkept;
    struct program *kept;
    uint64_t keys[MAX_KEPT];
};

/* One difference of a kind is enough: the kind is what differs and the mnemonic. */
static void keep(struct campaign *c, const struct program *p, const struct guest *g,
                 const char *why) {
    uint64_t key = fid_hash((const uint8_t *)"................", 16, (uintptr_t)why);
    unsigned kind;

    c->differences++;
    fid_class_of(p->mode, p->code, 15, &kind);
    if (p->n > 1)
        kind = 0x1000 + p->n / 8;
    key ^= kind * 4u + fid_guest_is_bt(g) * 2u + (p->mode == MODE_64);
    for (unsigned k = 0; k < c->nkept; k++)
        if (c->keys[k] == key)
            return;
    if (c->nkept == c->keep)
        return;
    c->keys[c->nkept] = key;
    c->kept[c->nkept++] = *p;
}

static void count_end(struct campaign *c, const struct outcome *o) {
    c->cases++;
    if (o->end == FID_EXCEPTION)
        c->by_vector[o->vector & 31]++;
    else
        c->unlike++;
}

static void check_program(struct campaign *c, struct batch *batch, unsigned n,
                          struct guest *bt) {
    static uint8_t mem[FID_PAGES * 4096];
    struct program *p = &batch->program[n];
    struct guest *both[] = {c->b.interp, bt};
    bool bad = false;

    fid_fill_memory(p->memory, mem);
    for (unsigned g = 0; g < 2; g++)
        fid_guest_program(both[g], p);
    for (unsigned k = 0; k < p->nstates; k++) {
        const struct outcome *host = &batch->outcome[n][k];

        if (p->hidden)
            c->hidden++, c->cases++;
        else
            count_end(c, host);
        if (!p->hidden && host->end != FID_EXCEPTION)
            continue;
        for (unsigned g = 0; g < 2 && !bad; g++) {
            struct outcome o;
            const char *why;

            fid_guest_run(both[g], p, &p->state[k], mem, &o);
            if (g == 0 && o.end == FID_ENDLESS) { /* longer than is worth while */
                c->unlike++;
                break;
            }
            if (p->hidden)
                why = o.vector == X86_UD && o.rip == p->base ? NULL : "is offered";
            else
                why = fid_compare(both[g], p, &p->state[k], host, &o);
            bad = why;
            if (bad && getenv("FID_DEBUG"))
                fprintf(stderr, "%s: %s state %u vec %u got %u rip %lx got %lx\n",
                        fid_guest_name(both[g]), why, k, host->vector, o.vector,
                        host->rip, o.rip);
            if (bad)
                keep(c, p, both[g], why);
        }
    }
    c->programs++;
}

static void fill_batch(struct campaign *c, struct batch *b, uint64_t number) {
    b->n = FID_BATCH;
    for (unsigned n = 0; n < FID_BATCH; n++) {
        uint64_t seed = c->seed * 0x9e3779b97f4a7c15ull + number * FID_BATCH + n;

        if (n % 2)
            fid_generate(&b->program[n], seed);
        else
            fid_generate_form(&b->program[n], seed, c->systematic++ * 7919);
    }
}

static int run(struct campaign *c) {
    uint64_t number = 0;

    fill_batch(c, fid_host_batch(c->b.host, 0), 0);
    fid_host_submit(c->b.host, 0);
    while (c->cases < c->want) {
        unsigned now = number & 1;
        struct batch *batch = fid_host_batch(c->b.host, now);
        struct guest *bt = c->b.guest[1 + number % (c->b.nguests - 1)];

        if (fid_host_wait(c->b.host, now)) {
            fprintf(stderr,
                    "fidelity: the host's child has died, seed %" PRIu64
                    ", batch %" PRIu64 "\n",
                    c->seed, number);
            return -1;
        }
        fill_batch(c, fid_host_batch(c->b.host, !now), ++number);
        fid_host_submit(c->b.host, !now);
        for (unsigned n = 0; n < batch->n; n++)
            check_program(c, batch, n, bt);
        if (c->nkept == c->keep)
            break;
    }
    return fid_host_wait(c->b.host, number & 1);
}

static void report(struct campaign *c) {
    printf("# seed %" PRIu64 ": %" PRIu64 " cases of %" PRIu64 " programs, %u forms\n",
           c->seed, c->cases, c->programs, fid_forms_count());
    printf("# ends:");
    for (unsigned k = 0; k < 32; k++)
        if (c->by_vector[k])
            printf(" #%u %" PRIu64, k, c->by_vector[k]);
    printf("; hidden %" PRIu64 ", not comparable %" PRIu64 "\n", c->hidden, c->unlike);
    for (unsigned k = 0; k < c->nkept; k++) {
        fid_shrink(&c->b, &c->kept[k]);
        fid_report(stdout, &c->b, &c->kept[k]);
    }
    printf("%s fidelity: %" PRIu64 " cases, seed %" PRIu64 ": %" PRIu64 " differ\n",
           c->differences ? "not ok" : "ok", c->cases, c->seed, c->differences);
}

static int run_file(struct campaign *c, const char *path) {
    static struct program p;
    FILE *f = fopen(path, "r");
    char name[64];
    unsigned line = 0, state;
    int rc, bad = 0;

    if (!f) {
        perror(path);
        return 1;
    }
    while ((rc = fid_text_read(f, &p, name, &line)) == 1) {
        struct guest *g = NULL;
        const char *why = fid_bench_run(&c->b, &p, &state, &g);

        printf("%s %s%s%s\n", why ? "not ok" : "ok", name, why ? ": " : "",
               why ? why : "");
        if (why)
            fid_report(stdout, &c->b, &p);
        bad |= why != NULL;
    }
    fclose(f);
    if (rc)
        printf("not ok %s:%u: no case\n", path, line);
    return rc || bad;
}

static const char *const variants[] = {
    NULL,
    "",
    "hot=1",
    "no-liveness,hot=1",
    "no-chain,no-groups,no-anchors,no-held,no-lend,tu=2",
    "no-liveness,tu=4,cache=1",
    "hot=2,no-unroll,no-stay"};

static int start(struct campaign *c, const char *const *options, unsigned count) {
    int rc = fid_forms_scan();

    if (!rc)
        rc = fid_host_start(&c->b.host); /* before anything has threads or low memory */
    vec_init();
    if (!rc)
        rc = sem_init();
    c->b.guest = calloc(MAX_GUESTS, sizeof(*c->b.guest));
    c->kept = calloc(MAX_KEPT, sizeof(*c->kept));
    if (!c->b.guest || !c->kept)
        return -1;
    for (unsigned k = 0; k < count && !rc; k++)
        rc = fid_guest_new(options[k], &c->b.guest[c->b.nguests++]);
    c->b.interp = c->b.guest[0];
    return rc;
}

static int usage(void) {
    fprintf(stderr, "usage: fidelity [--cases N] [--seed S] [--bt OPTIONS]... [--keep N] "
                    "[FILE...]\n");
    return 2;
}

int main(int argc, char **argv) {
    static const struct option longs[] = {{"cases", 1, NULL, 'c'},
                                          {"seed", 1, NULL, 's'},
                                          {"bt", 1, NULL, 'b'},
                                          {"keep", 1, NULL, 'k'},
                                          {0}};
    struct campaign c = {.seed = (uint64_t)time(NULL), .want = 100000, .keep = 20};
    const char *options[MAX_GUESTS] = {NULL};
    unsigned count = 1;
    int opt, rc = 0;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (opt == 'c')
            c.want = strtoull(optarg, NULL, 0);
        else if (opt == 's')
            c.seed = strtoull(optarg, NULL, 0);
        else if (opt == 'k')
            c.keep = (unsigned)strtoul(optarg, NULL, 0) % (MAX_KEPT + 1);
        else if (opt == 'b' && count < MAX_GUESTS)
            options[count++] = optarg;
        else
            return usage();
    }
    rc =
        count > 1 ? start(&c, options, count) : start(&c, variants, ARRAY_SIZE(variants));
    if (rc) {
        fprintf(stderr, "fidelity: cannot start: %s\n", strerror(-rc));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int k = optind; k < argc; k++)
        rc |= run_file(&c, argv[k]);
    if (optind == argc) {
        rc = run(&c);
        report(&c);
        rc |= c.differences != 0;
    }
    for (unsigned k = 0; k < c.b.nguests; k++)
        fid_guest_free(c.b.guest[k]);
    fid_host_stop(c.b.host);
    return rc ? 1 : 0;
}
