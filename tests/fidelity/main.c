/*
 * fidelity [--cases N] [--seed S] [--bt OPTIONS]... [--keep N] [FILE...]
 *
 * With files, runs the cases in them; else N generated ones. Ends with status 0 when
 * nothing differs, 77 when this host cannot run cases, and says why. The host works on
 * the next batch of programs while the engines run this one.
 *
 * Engines run in a process of their own. What an engine does wrong may have spoilt it, or
 * ended the process: then another one goes on with the next batch.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/vec.h"
#include "fidelity.h"
#include "sem/sem.h"

#define MAX_KEPT 64u

/* A difference, as it was when it was found. */
struct found {
    struct program program;
    struct outcome host, got;
    unsigned state;
    bool killed; /* the process, and has left nothing to compare */
    uint64_t key;
};

struct campaign {
    struct bench b;
    struct fid_guest *guest[FID_GUESTS]; /* of the process that runs them */
    uint64_t seed, cases, want;
    uint64_t number; /* of the batch */
    unsigned at;     /* the program of it that runs now */
    uint64_t programs;
    uint64_t by_vector[32], hidden, unlike;
    uint64_t strayed; /* the host has found memory of its own where the case has none */
    uint64_t by_erratum[FID_ERRATA];
    uint64_t differences,
        translator;   /* of these, where the interpreter does not differ */
    uint8_t *covered; /* by form */
    unsigned keep, nkept;
    struct found *kept;
};

/* Three differences of a kind are enough: the kind is what differs and the mnemonic. */
static void keep(struct campaign *c, const struct program *p, const struct fid_guest *g,
                 const char *why, const struct found *f) {
    uint64_t key = fid_hash((const uint8_t *)"................", 16, (uintptr_t)why);
    unsigned kind, same = 0;

    c->differences++;
    c->translator += fid_guest_is_bt(g);
    fid_class_of(p->mode, p->code, 15, &kind);
    if (p->n > 1)
        kind = 0x1000 + p->n / 8;
    key ^= kind * 4u + fid_guest_is_bt(g) * 2u + (p->mode == MODE_64);
    for (unsigned k = 0; k < c->nkept; k++)
        same += c->kept[k].key == key;
    if (c->nkept == c->keep || same >= 3)
        return;
    if (!fid_guest_is_bt(g) && c->nkept >= c->keep / 2)
        return; /* places for the translator's */
    c->kept[c->nkept] = *f;
    c->kept[c->nkept].program = *p;
    c->kept[c->nkept++].key = key;
}

static void count_end(struct campaign *c, const struct program *p,
                      const struct outcome *o) {
    c->cases++;
    if (p->hidden)
        c->hidden++;
    else if (o->end == FID_EXCEPTION)
        c->by_vector[o->vector & 31]++;
    else
        c->unlike++;
    if (p->form && (p->hidden || o->end == FID_EXCEPTION))
        c->covered[p->form - 1] = 1;
}

/* One state of P on G. What differs, or NULL. */
static const char *check_state(struct campaign *c, const struct program *p, unsigned k,
                               const struct outcome *host, struct fid_guest *g,
                               const uint8_t *mem, struct outcome *o) {
    unsigned used = 0;
    const char *why;

    fid_guest_run(g, p, &p->state[k], mem, o);
    if (p->hidden && !o->beyond)
        return o->vector == X86_UD && o->rip == p->base ? NULL : "is offered";
    if (!fid_guest_is_bt(g) && o->end == FID_ENDLESS)
        return NULL; /* longer than is worth while */
    why = fid_compare(g, p, host, o, &used);
    for (unsigned n = 0; n < FID_ERRATA; n++)
        c->by_erratum[n] += used >> n & 1;
    return why;
}

/* False: the translator has done something wrong, and may be spoilt. */
static bool check_program(struct campaign *c, struct batch *batch, unsigned n,
                          struct fid_guest *bt) {
    static struct found f;
    const uint8_t *mem = batch->initial[n];
    struct program *p = &batch->program[n];
    struct fid_guest *both[] = {c->guest[0], bt};
    const char *why = NULL;
    bool spoilt = false;

    for (unsigned g = 0; g < 2; g++)
        fid_guest_program(both[g], p);
    for (unsigned k = 0; k < p->nstates; k++) {
        const struct outcome *host = &batch->outcome[n][k];

        count_end(c, p, host);
        if (!p->hidden && host->end != FID_EXCEPTION)
            continue;
        for (unsigned g = 0; g < 2 && !why; g++) {
            why = check_state(c, p, k, host, both[g], mem, &f.got);
            f.host = *host;
            f.state = k;
            if (why && fid_strayed(c->b.host, &f.got))
                c->strayed++;
            else if (why)
                keep(c, p, both[g], why, &f), spoilt |= g == 1;
            else if (f.got.end == FID_ENDLESS)
                break;
        }
    }
    c->programs++;
    return !spoilt;
}

static void submit_batch(struct campaign *c, uint64_t number) {
    struct batch *b = fid_host_batch(c->b.host, number & 1);

    b->n = FID_BATCH;
    for (unsigned n = 0; n < FID_BATCH; n++) {
        uint64_t k = number * FID_BATCH + n;
        uint64_t seed = c->seed * 0x9e3779b97f4a7c15ull + k;

        if (n % 2)
            fid_generate(&b->program[n], seed);
        else
            fid_generate_form(&b->program[n], seed, k / 2 * 7919);
    }
    fid_host_submit(c->b.host, number & 1);
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo) {
    interrupted = 1;
}

/* False: a guest is spoilt. */
static bool check_batch(struct campaign *c, struct batch *batch) {
    struct fid_guest *bt = c->guest[1 + c->number % (c->b.nguests - 1)];
    static struct found f;

    for (c->at = 0; c->at < batch->n; c->at++) {
        fid_running(&batch->program[c->at]);
        if (!check_program(c, batch, c->at, bt))
            return false;
    }
    fid_running(NULL);
    if (fid_guest_untouched(bt))
        return true;
    keep(c, &batch->program[batch->n - 1], bt, "memory far from the case's pages", &f);
    return false;
}

enum status { DONE, FAILED, GO_ON = 10 };

/* What the engines' process does. */
static enum status run_engines(struct campaign *c) {
    bool good = true;

    for (unsigned n = 0; n < c->b.nguests; n++)
        if (fid_guest_new(c->b.options[n], &c->guest[n]))
            return FAILED;
    fid_host_unpin(c->b.host);
    submit_batch(c, c->number);
    while (good && c->cases < c->want && !interrupted && c->nkept < c->keep) {
        if (fid_host_wait(c->b.host, c->number & 1)) {
            fprintf(stderr,
                    "fidelity: the host's child has died, seed %" PRIu64
                    ", batch %" PRIu64 "\n",
                    c->seed, c->number);
            return FAILED;
        }
        submit_batch(c, c->number + 1);
        good = check_batch(c, fid_host_batch(c->b.host, c->number & 1));
        c->number++;
    }
    return good ? DONE : GO_ON;
}

/* The engines' process has died amid a batch. */
static void keep_killer(struct campaign *c) {
    static struct found f;

    c->differences++;
    c->translator++;
    if (c->nkept < c->keep) {
        f.program = fid_host_batch(c->b.host, c->number & 1)->program[c->at];
        f.killed = true;
        c->kept[c->nkept++] = f;
    }
    c->number++;
}

/* SIGINT and SIGTERM end it early, with a report. */
static int run(struct campaign *c) {
    struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    int status;

    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    while (!interrupted && c->cases < c->want && c->nkept < c->keep) {
        pid_t pid;

        fflush(NULL);
        pid = fork();
        if (pid == 0)
            _exit(run_engines(c));
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
            return -1;
        if (!WIFEXITED(status) || WEXITSTATUS(status) == 3)
            keep_killer(c);
        else if (WEXITSTATUS(status) == FAILED)
            return -1;
        if (fid_host_drain(c->b.host))
            return -1;
    }
    return 0;
}

static void report_forms(const struct campaign *c, enum cpu_mode mode) {
    unsigned all = 0, covered = 0, hidden = 0, names = 0, kind = 0;

    for (unsigned n = 0; n < fid_forms_count(); n++) {
        const struct form *f = fid_form(n);

        if (f->mode != mode)
            continue;
        all++;
        if (c->covered[n])
            *(f->cls == FID_HIDDEN ? &hidden : &covered) += 1;
    }
    printf(
        "# %s: of %u forms %u compared, %u seen to be #UD because the model hides them, "
        "%u left out as the machine's own\n",
        mode == MODE_64 ? "64-bit" : "32-bit", all + fid_forms_left_out(mode), covered,
        hidden, fid_forms_left_out(mode));
    if (covered + hidden == all)
        return;
    printf("#   not reached %u:", all - covered - hidden);
    for (unsigned n = 0; n < fid_forms_count() && names < 16; n++) {
        const struct form *f = fid_form(n);

        if (f->mode != mode || c->covered[n] || f->kind == kind)
            continue;
        kind = f->kind;
        names++;
        printf(" %s", fid_form_name(f));
    }
    printf("\n");
}

static void report(struct campaign *c) {
    uint64_t unsteady = 0;

    printf("# seed %" PRIu64 ": %" PRIu64 " cases of %" PRIu64 " programs\n", c->seed,
           c->cases, c->programs);
    printf("# ends:");
    for (unsigned k = 0; k < 32; k++)
        if (c->by_vector[k])
            printf(" #%u %" PRIu64, k, c->by_vector[k]);
    printf("; hidden %" PRIu64 ", not comparable %" PRIu64 "\n", c->hidden, c->unlike);
    printf("# explained by docs/errata.md, on either engine:");
    for (unsigned n = 0; n < FID_ERRATA; n++)
        if (c->by_erratum[n])
            printf(" %s %" PRIu64, fid_erratum_name(n), c->by_erratum[n]);
    printf("\n");
    report_forms(c, MODE_64);
    report_forms(c, MODE_32);
    for (unsigned k = 0; k < c->nkept; k++) {
        struct found *f = &c->kept[k];

        if (f->killed) {
            f->killed = !fid_report(stdout, &c->b, &f->program, &f->host, &f->got, 0);
            continue;
        }
        unsteady += !fid_report(stdout, &c->b, &f->program, &f->host, &f->got, f->state);
    }
    c->differences -= unsteady;
    printf("%s %" PRIu64 " cases, seed %" PRIu64 ": %" PRIu64 " differ",
           c->differences ? "not ok" : "ok", c->cases, c->seed, c->differences);
    if (c->translator)
        printf(", %" PRIu64 " on the translator alone", c->translator);
    if (unsteady)
        printf(", and %" PRIu64 " did so once, by the host", unsteady);
    if (c->strayed)
        printf(", and %" PRIu64 " strayed into the harness", c->strayed);
    printf("\n");
}

static int run_file(struct campaign *c, const char *path) {
    static struct program p;
    FILE *f = fopen(path, "r");
    char name[64];
    unsigned line = 0;
    int rc, bad = 0;

    if (!f) {
        perror(path);
        return 1;
    }
    while ((rc = fid_text_read(f, &p, name, &line)) == 1) {
        const struct difference *d = fid_bench_run(&c->b, &p, -1);

        printf("%s %s%s%s\n", d ? "not ok" : "ok", name, d ? ": " : "", d ? d->why : "");
        bad |= d != NULL;
        if (d)
            fid_report(stdout, &c->b, &p, NULL, NULL, 0);
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
    "no-chain,no-groups,no-anchors,no-held,no-borrow,tu=2",
    "no-liveness,tu=4,cache=1",
    "hot=2,no-unroll,no-stay"};

/* What the engines' process and this one share. */
static void *shared(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static int start(struct campaign *c) {
    int rc;

    vec_init();
    rc = fid_avx512_init();
    if (!rc)
        rc = fid_host_start(&c->b.host); /* before anything has threads or low memory */
    if (rc)
        return rc;
    rc = fid_forms_scan();
    fid_take_fatal_signals(); /* sem_init()'s handlers pass on what is not theirs */
    if (!rc)
        rc = sem_init();
    if (!rc)
        rc = fid_bench_start(&c->b);
    if (rc)
        return rc;
    c->kept = shared(MAX_KEPT * sizeof(*c->kept));
    c->covered = shared(fid_forms_count() + 1);
    return c->kept && c->covered ? 0 : -ENOMEM;
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
    struct campaign *c = shared(sizeof(*c));
    const char *options[FID_GUESTS] = {NULL};
    unsigned count = 1;
    int opt, rc = 0;

    if (!c)
        return 1;
    c->seed = (uint64_t)time(NULL);
    c->want = 100000;
    c->keep = 20;
    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (opt == 'c')
            c->want = strtoull(optarg, NULL, 0);
        else if (opt == 's')
            c->seed = strtoull(optarg, NULL, 0);
        else if (opt == 'k')
            c->keep = (unsigned)strtoul(optarg, NULL, 0) % (MAX_KEPT + 1);
        else if (opt == 'b' && count < FID_GUESTS)
            options[count++] = optarg;
        else
            return usage();
    }
    c->b.options = count > 1 ? options : variants;
    c->b.nguests = count > 1 ? count : ARRAY_SIZE(variants);
    rc = start(c);
    if (rc) {
        fprintf(stderr, "fidelity: cannot start: %s\n", strerror(-rc));
        return rc == -ENOTSUP ? 77 : 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int k = optind; k < argc; k++)
        rc |= run_file(c, argv[k]);
    if (optind == argc) {
        rc = run(c);
        report(c);
        rc |= c->differences != 0;
    }
    fid_host_stop(c->b.host);
    return rc ? 1 : 0;
}
