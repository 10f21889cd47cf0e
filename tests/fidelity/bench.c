/*
 * The bench: one program on each guest. An engine that has gone wrong may have spoilt
 * itself, or its process; so each run has a process and guests of its own, and what they
 * have found comes back in shared memory.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "fidelity.h"

/* --- a process that dies --- */

static const struct program *running;

void fid_running(const struct program *p) {
    running = p;
}

/* Nothing is safe to call by now; the worst that can come is what comes anyway. */
static void on_fatal(int signo, siginfo_t *si, void *context) {
    const ucontext_t *uc = context;
    const greg_t *g = uc->uc_mcontext.gregs;
    static volatile bool again;

    if (!again) {
        again = true;
        fprintf(stderr,
                "# died of signal %d, code %d, address %llx, rip %llx, trap %lld, error "
                "%llx\n",
                signo, si->si_code, (unsigned long long)(uintptr_t)si->si_addr,
                (unsigned long long)g[16], (long long)g[20], (unsigned long long)g[19]);
        if (running)
            fid_text_write(stderr, running);
    }
    _exit(3);
}

void fid_take_fatal_signals(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    struct sigaction act = {.sa_sigaction = on_fatal,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
        sigaction(signals[k], &act, NULL);
}

/* --- a run --- */

int fid_bench_start(struct bench *b) {
    b->d = mmap(NULL, sizeof(*b->d), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
    return b->d == MAP_FAILED ? -errno : 0;
}

/* Often enough for a translator to think again. */
static void run_states(struct difference *d, struct fid_guest *g, const struct program *p,
                       const struct batch *batch) {
    for (unsigned n = 0; n < (p->nstates > 4 ? p->nstates : 4) && !d->why; n++) {
        unsigned used, k = n % p->nstates;
        const struct outcome *host = &batch->outcome[0][k];
        struct outcome *o = &d->got;
        const char *why;

        if (host->end != FID_EXCEPTION && !p->hidden)
            continue;
        d->state = k;
        d->got_outcome = false;
        fid_guest_run(g, p, &p->state[k], batch->initial[0], o);
        d->got_outcome = true;
        if (!fid_guest_is_bt(g) && o->end == FID_ENDLESS)
            continue; /* longer than is worth while */
        why = p->hidden && !o->beyond
                  ? (o->vector == X86_UD && o->rip == p->base ? NULL : "is offered")
                  : fid_compare(g, p, host, o, &used);
        if (!why && !fid_guest_untouched(g))
            why = "memory far from the case's pages";
        d->why = why;
    }
}

static int run_guests(struct bench *b, const struct program *p, int only) {
    const struct batch *batch = fid_host_batch(b->host, 0);
    struct difference *d = b->d;

    for (unsigned n = 0; n < b->nguests && !d->why; n++) {
        struct fid_guest *g;

        if (only >= 0 && (unsigned)only != n)
            continue;
        d->guest = n;
        if (fid_guest_new(b->options[n], &g))
            return 1;
        fid_guest_program(g, p);
        run_states(d, g, p, batch);
        for (unsigned k = 0; d->why && k < FID_PAGES; k++)
            memcpy(d->memory + 4096 * k, fid_guest_page(g, k), 4096);
        if (!d->why)
            fid_guest_free(g);
    }
    return 0;
}

const struct difference *fid_bench_run(struct bench *b, struct program *p, int only) {
    struct batch *batch = fid_host_batch(b->host, 0);
    struct difference *d = b->d;
    int status;
    pid_t pid;

    memset(d, 0, sizeof(*d));
    batch->n = 1;
    batch->program[0] = *p;
    fid_host_submit(b->host, 0);
    if (fid_host_wait(b->host, 0)) {
        d->why = "the host's child has died";
        return d;
    }
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(run_guests(b, p, only));
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        d->why = "no process can be made";
        return d;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        d->why = "its process has died";
        d->got_outcome = false;
    }
    return d->why && !(d->got_outcome && fid_strayed(b->host, &d->got)) ? d : NULL;
}
