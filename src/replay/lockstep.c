/* Lockstep of two engines; see lockstep.h. */
#include "replay/lockstep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "replay/apart.h"
#include "replay/input.h"
#include "replay/state.h"

#define MEMORY_EVERY 500
#define PAGES_SHOWN 8
#define LISTED 64u /* bytes of guest code */
#define TRAIL 128u
#define STRIDES 5u

/* What the guest wrote to its console. */
struct output {
    uint64_t len, digest;
    bool show;
};

struct side {
    struct machine *m;
    struct machine_config cfg;
    enum machine_end end;
    bool astray; /* its input did not fit */
    struct input_player player;
    struct input_text text;
    struct output out;
};

struct pass {
    const struct lockstep *ls;
    struct side side[2];
    unsigned how;          /* state_same() */
    unsigned point;        /* that was compared last */
    bool thorough;         /* memory at each point */
    uint64_t trail[TRAIL]; /* where side 0 has been, of late */
    unsigned ntrail;
    bool spoiled;   /* --inject has been done */
    uint64_t began; /* instructions that were retired at the start */
};

/* Where two sides were found different. */
struct difference {
    uint64_t good, bad; /* instructions: still the same, no longer the same */
    uint64_t good_memory;
    bool in_memory; /* only memory differs */
    uint64_t pages[PAGES_SHOWN];
    size_t npages;
};

/* What a pass is told, and what it finds out. It goes from process to process: a pass may
 * have been taken over by its guest, so that nothing in here is trusted to be sound. */
struct job {
    const struct lockstep *ls;
    void (*fn)(struct pass *p, struct job *j);
    bool show; /* the guest's output */
    bool ok;   /* FN was called, and went where it should */
    bool found;
    int rc;               /* the machines could not be made: -errno */
    enum machine_end end; /* pass_first(): the guest's, when nothing was different */
    int exit_code;
    struct difference d;
    uint64_t start, rip;
    bool tell; /* pass_fragment(): what was found is told */
    /* Stretches, of which each is within the one before, begin here. */
    uint64_t good[STRIDES + 1];
    unsigned levels;
    uint64_t at;
};

/* --- two machines --- */

static size_t take_output(void *arg, const uint8_t *bytes, size_t len) {
    struct output *out = arg;

    out->len += len;
    out->digest = recording_digest(out->digest, bytes, len);
    if (out->show && write(STDOUT_FILENO, bytes, len) < 0)
        out->show = false; /* nobody reads it */
    return len;
}

/* The recording has its end where a signal, or the user, ended the run. */
static void input_ends(void *arg, const struct recording_event *e) {
    struct side *s = arg;

    s->astray = !e;
    machine_quit(s->m);
}

/* 0, or -errno after a message. */
static int side_create(struct pass *p, unsigned n, bool show) {
    struct side *s = &p->side[n];
    struct machine_config cfg = p->ls->machine;
    char why[512];
    int rc = p->ls->open_disks(p->ls->disks, &cfg);

    if (rc)
        return rc;
    cfg.engine = p->ls->names[n];
    s->out.show = show;
    cfg.console = (struct machine_console){.tx = take_output, .arg = &s->out};
    if (p->ls->rec) {
        s->player = (struct input_player){.rec = p->ls->rec,
                                          .place = {.start_ns = p->ls->rec->key.start_ns,
                                                    .state = p->ls->rec->key.state},
                                          .end = input_ends,
                                          .arg = s};
        cfg.input = input_play(&s->player);
    } else if (p->ls->typed) {
        s->text = (struct input_text){.bytes = p->ls->typed, .len = p->ls->typed_len};
        cfg.input = input_text(&s->text);
    }
    s->end = MACHINE_PAUSED;
    s->cfg = cfg;
    rc = machine_create(&cfg, &s->m, why, sizeof(why));
    if (rc)
        log_error("%s", why);
    else if (p->ls->restore)
        rc = p->ls->restore_memory(p->ls->frozen, s->m);
    return rc;
}

static void pass_close(struct pass *p) {
    for (unsigned n = 0; n < 2; n++) {
        machine_free(p->side[n].m);
        p->ls->close_disks(p->ls->disks, &p->side[n].cfg);
    }
    *p = (struct pass){0};
}

/* The next life begins. 0, or -errno after a message: it cannot. */
static int both_boot(struct pass *p) {
    char why[512];

    for (unsigned n = 0; n < 2; n++) {
        int rc = machine_boot(p->side[n].m, why, sizeof(why));

        if (rc) {
            log_error("%s", why);
            p->side[n].end = MACHINE_ERROR;
            return rc;
        }
        p->side[n].end = MACHINE_PAUSED;
    }
    return 0;
}

/* The first life, which may be a snapshot's: the same. */
static int both_begin(struct pass *p) {
    const struct lockstep *ls = p->ls;
    int rc = 0;

    if (!ls->restore)
        return both_boot(p);
    for (unsigned n = 0; n < 2 && !rc; n++)
        rc = ls->restore(ls->frozen, p->side[n].m);
    p->began = machine_insns(p->side[0].m);
    return rc;
}

/* The first pass has said already that there is no jail. */
static bool lock_up(const struct pass *p, bool first) {
    const struct os_jail_needs needs = {.cpu_ioctls = machine_ioctls(p->side[0].m),
                                        .device_ioctls =
                                            machine_device_ioctls(p->side[0].m),
                                        .any_thread = true};
    enum jail_want want = p->ls->jail;

    if (!first && want == JAIL_AUTO)
        return os_jail_enter(&needs) <= 0;
    return jail_enter(want, &needs);
}

/* 0, or -errno after a message. */
static int pass_open(struct pass *p, const struct lockstep *ls, bool show) {
    int rc;

    bool exact = machine_options_exact(&ls->machine.options);

    *p = (struct pass){.ls = ls, .how = exact ? 0 : VCPU_LOOSE};
    rc = side_create(p, 0, show);
    if (!rc)
        rc = side_create(p, 1, false);
    if (!rc && !lock_up(p, show))
        rc = -EPERM;
    if (!rc)
        rc = both_begin(p);
    if (rc)
        pass_close(p);
    return rc;
}

static void in_process(void *copy) {
    struct job *j = copy;
    struct pass p;
    int rc = pass_open(&p, j->ls, j->show);

    j->rc = rc;
    if (rc)
        return;
    j->fn(&p, j);
    pass_close(&p);
}

/* FN on two new machines, in a process of its own. False, after a message: it did not
 * come to its end, or J->ok is false; J->rc says why. */
static bool run_job(struct job *j, void (*fn)(struct pass *p, struct job *j)) {
    struct job done = *j;
    int rc;

    done.fn = fn;
    done.ok = done.found = false;
    done.rc = 0;
    rc = apart_run(in_process, &done, sizeof(done));
    if (rc < 0)
        log_error("cannot start a process for two machines: %s", strerror(-rc));
    j->rc = -EIO;
    if (rc || done.levels > STRIDES || done.d.npages > PAGES_SHOWN)
        return false;
    j->rc = done.rc ? done.rc : -EIO;
    if (done.rc || !done.ok)
        return false;
    done.ls = j->ls;
    done.show = j->show;
    *j = done;
    return true;
}

/* RBX, or the byte of RAM at AT if there is one. */
static void spoil_one(struct machine *m, uint64_t at, struct vcpu *v) {
    uint64_t size;
    uint8_t *ram = machine_ram(m, &size);

    if (at < size)
        ram[at] ^= 1;
    else
        v->gpr[REG_RBX] ^= 1;
}

/* For tests: as if the second engine had computed something wrong. */
static void spoil(struct pass *p, uint64_t insns) {
    struct vcpu *v = (struct vcpu *)(uintptr_t)machine_vcpu(p->side[1].m, 0);

    if (!p->ls->inject || p->spoiled || machine_insns(p->side[1].m) != insns)
        return;
    spoil_one(p->side[1].m, p->ls->inject_at, v);
    p->spoiled = true;
}

static void side_run(struct pass *p, unsigned n, uint64_t insns, bool fragment) {
    struct side *s = &p->side[n];
    uint64_t inject = p->ls->inject;

    if (s->end != MACHINE_PAUSED)
        return;
    if (n == 1 && inject && !p->spoiled && inject > machine_insns(s->m) &&
        inject <= insns) {
        s->end =
            fragment ? machine_run_fragment(s->m, inject) : machine_run_to(s->m, inject);
        spoil(p, inject);
        if (fragment || s->end != MACHINE_PAUSED)
            return;
    }
    s->end = fragment ? machine_run_fragment(s->m, insns) : machine_run_to(s->m, insns);
}

/* --- comparing --- */

static bool registers_same(const struct pass *p) {
    const struct side *a = &p->side[0], *b = &p->side[1];

    return a->end == b->end && a->out.len == b->out.len &&
           a->out.digest == b->out.digest && state_same(a->m, b->m, p->how);
}

/* Both are where INSNS is, or have ended. False: *D says what differs. */
static bool point_same(struct pass *p, bool memory, struct difference *d) {
    uint64_t at = machine_insns(p->side[0].m);

    d->bad = at;
    d->npages =
        memory ? state_pages(p->side[0].m, p->side[1].m, d->pages, PAGES_SHOWN) : 0;
    d->in_memory = registers_same(p);
    if (!d->in_memory || d->npages)
        return false;
    d->good = at;
    if (memory)
        d->good_memory = at;
    return true;
}

static bool pages_same(const struct pass *p, const struct difference *d) {
    for (size_t n = 0; n < d->npages; n++)
        if (state_page_differs(p->side[0].m, p->side[1].m, d->pages[n]))
            return false;
    return true;
}

/* Both go to INSNS, or end. */
static void both_to(struct pass *p, uint64_t insns) {
    for (unsigned n = 0; n < 2; n++)
        side_run(p, n, insns, false);
}

static bool is_at_limit(const struct pass *p) {
    return p->ls->limit && p->side[0].end == MACHINE_PAUSED &&
           machine_insns(p->side[0].m) - p->began >= p->ls->limit;
}

static bool goes_on(const struct pass *p) {
    enum machine_end end = p->side[0].end;

    if (is_at_limit(p))
        return false;
    return end == MACHINE_PAUSED ||
           (!p->ls->no_reboot && (end == MACHINE_RESET || end == MACHINE_SHUTDOWN));
}

/* An engine failed, and has said why: that is no difference. */
static bool host_failed(const struct pass *p) {
    return p->side[0].end == MACHINE_ERROR || p->side[1].end == MACHINE_ERROR;
}

/* One point further: false when they differ there (*D) or the run is over. */
static bool next_point(struct pass *p, struct difference *d, bool *same) {
    uint64_t every = p->ls->every;
    bool memory;

    both_to(p, (machine_insns(p->side[0].m) / every + 1) * every);
    *same = true;
    if (host_failed(p))
        return false;
    memory = ++p->point % MEMORY_EVERY == 0 || p->thorough ||
             p->side[0].end != MACHINE_PAUSED || is_at_limit(p);
    *same = point_same(p, memory, d);
    if (!*same || !goes_on(p))
        return false;
    return p->side[0].end == MACHINE_PAUSED || !both_boot(p);
}

/* --- searching --- */

/* From the start to the point at GOOD instructions, as the first time. */
static bool go_to_good(struct pass *p, uint64_t good) {
    struct difference d = {0};
    bool same = true;

    while (machine_insns(p->side[0].m) < good)
        if (!next_point(p, &d, &same))
            return false;
    return true;
}

/* Side 1 goes a fragment further and side 0 follows. False: nothing happens any more. */
static bool next_fragment(struct pass *p, uint64_t limit) {
    uint64_t was = machine_insns(p->side[1].m);

    while (p->side[1].end == MACHINE_PAUSED && machine_insns(p->side[1].m) == was)
        side_run(p, 1, limit, true);
    if (p->side[1].end == MACHINE_PAUSED)
        side_run(p, 0, machine_insns(p->side[1].m), false);
    else
        side_run(p, 0, limit, false);
    return p->side[1].end == MACHINE_PAUSED;
}

static bool still_same(const struct pass *p, const struct difference *d) {
    return registers_same(p) && pages_same(p, d);
}

/* Between the last point where memory was compared and D, memory may have been different
 * before anything else was. Narrows D to two neighbouring points. */
static bool find_point(struct pass *p, struct difference *d) {
    bool same = true;

    if (!go_to_good(p, d->good_memory))
        return false;
    d->good = d->good_memory;
    p->thorough = true;
    while (next_point(p, d, &same))
        ;
    return !same;
}

/* Narrows D to a fragment. On success the pass stands behind it, and RIP is its start. */
static bool find_fragment(struct pass *p, struct difference *d, uint64_t *rip) {
    uint64_t bad = d->bad;

    if (!go_to_good(p, d->good))
        return false;
    while (machine_insns(p->side[0].m) < bad) {
        uint64_t good = machine_insns(p->side[0].m);
        bool more;

        *rip = machine_vcpu(p->side[0].m, 0)->rip;
        more = next_fragment(p, bad);
        if (!still_same(p, d)) {
            d->good = good;
            d->bad = machine_insns(p->side[1].m);
            return true;
        }
        if (!more)
            return false;
    }
    return false;
}

/* Both go to the bad end of a stretch, side 0 instruction by instruction if that is not
 * far. */
static void follow(struct pass *p, const struct difference *d) {
    struct side *s = &p->side[0];

    side_run(p, 1, d->bad, false);
    while (d->bad - d->good <= TRAIL && s->end == MACHINE_PAUSED &&
           machine_insns(s->m) < d->bad && p->ntrail < TRAIL) {
        p->trail[p->ntrail++] = machine_vcpu(s->m, 0)->rip;
        side_run(p, 0, machine_insns(s->m) + 1, false);
    }
    side_run(p, 0, d->bad, false);
}

/* Narrows D, a fragment, to an instruction. The pass then stands behind it. */
static bool find_instruction(struct pass *p, struct difference *d, uint64_t start,
                             uint64_t *rip) {
    struct machine_options single = p->ls->machine.options;
    uint64_t bad = d->bad;

    if (!go_to_good(p, start))
        return false;
    while (machine_insns(p->side[0].m) < d->good)
        if (!next_fragment(p, d->bad))
            return false;
    machine_options_single(&single);
    for (unsigned n = 0; n < 2; n++)
        machine_retune(p->side[n].m, &single);
    for (uint64_t at = d->good + 1; at <= bad; at++) {
        *rip = machine_vcpu(p->side[0].m, 0)->rip;
        both_to(p, at);
        if (!still_same(p, d)) {
            d->good = at - 1;
            d->bad = at;
            return true;
        }
    }
    return false;
}

/* --- telling --- */

static void put_line(void *arg, const char *text) {
    fprintf(stderr, "  %s\n", text);
}

static void print_sides(const struct pass *p, const struct difference *d) {
    const struct lockstep *ls = p->ls;
    const struct side *a = &p->side[0], *b = &p->side[1];
    char text[4096];

    if (a->end != b->end)
        fprintf(stderr, "  the run has ended on one engine, or otherwise\n");
    if (a->out.len != b->out.len || a->out.digest != b->out.digest)
        fprintf(stderr, "  console output   %-8s %llu bytes  %-8s %llu bytes\n",
                ls->names[0], (unsigned long long)a->out.len, ls->names[1],
                (unsigned long long)b->out.len);
    state_print(a->m, b->m, ls->names[0], ls->names[1], p->how, stderr);
    for (size_t n = 0; n < d->npages; n++)
        if (state_page_differs(a->m, b->m, d->pages[n]))
            state_print_page(a->m, b->m, ls->names[0], ls->names[1], d->pages[n], stderr);
    for (unsigned n = 0; n < 2; n++) {
        vcpu_dump(machine_vcpu(p->side[n].m, 0), text, sizeof(text));
        fprintf(stderr, "registers of %s:\n%s", ls->names[n], text);
    }
}

static void print_listing(struct pass *p, uint64_t rip) {
    struct side *s = &p->side[1];

    fprintf(stderr, "the code from 0x%llx on, as %s has it:\n", (unsigned long long)rip,
            p->ls->names[1]);
    machine_list(s->m, rip, LISTED, put_line, NULL);
}

static void print_trail(struct pass *p) {
    if (!p->ntrail)
        return;
    fprintf(stderr, "the way of %s there:\n", p->ls->names[0]);
    for (unsigned n = 0; n < p->ntrail; n++)
        fprintf(stderr, "  0x%llx\n", (unsigned long long)p->trail[n]);
    print_listing(p, p->trail[0]);
}

static void print_difference(struct pass *p, const struct difference *d, uint64_t rip,
                             bool found) {
    if (!found)
        log_error("%s and %s differ after %llu instructions, at the latest; after %llu "
                  "they were the same",
                  p->ls->names[0], p->ls->names[1], (unsigned long long)d->bad,
                  (unsigned long long)d->good);
    else if (d->bad == d->good + 1)
        log_error("%s and %s differ after %llu instructions: instruction number %llu, at "
                  "0x%llx",
                  p->ls->names[0], p->ls->names[1], (unsigned long long)d->bad,
                  (unsigned long long)d->bad, (unsigned long long)rip);
    else
        log_error("%s and %s differ after %llu instructions: somewhere in the fragment "
                  "of %llu instructions at 0x%llx, and not when each of them is a "
                  "fragment of its own",
                  p->ls->names[0], p->ls->names[1], (unsigned long long)d->bad,
                  (unsigned long long)(d->bad - d->good), (unsigned long long)rip);
    print_sides(p, d);
    if (found)
        print_listing(p, rip);
    print_trail(p);
}

/* --- passes, each in a process of its own --- */

static void pass_point(struct pass *p, struct job *j) {
    struct difference first = j->d;

    j->ok = true;
    j->found = find_point(p, &j->d);
    if (!j->found)
        print_difference(p, &first, 0, false);
}

static void pass_fragment(struct pass *p, struct job *j) {
    j->ok = true;
    j->found = find_fragment(p, &j->d, &j->rip);
    if (j->found && (j->tell || j->d.bad == j->d.good + 1))
        print_difference(p, &j->d, j->rip, true);
}

static void pass_instruction(struct pass *p, struct job *j) {
    j->ok = true;
    j->found = find_instruction(p, &j->d, j->start, &j->rip);
    if (j->found)
        print_difference(p, &j->d, j->rip, true);
}

static const uint64_t strides[STRIDES] = {10000, 1000, 100, 10, 1};

/* To the beginning of the last stretch, with the pauses that there were. */
static bool go_to_stretch(struct pass *p, const struct job *j) {
    if (!go_to_good(p, j->good[0]))
        return false;
    for (unsigned k = 0; k < j->levels; k++)
        for (uint64_t at = j->good[k]; at < j->good[k + 1]; both_to(p, at))
            at += strides[k];
    return true;
}

static void pass_stretch(struct pass *p, struct job *j) {
    uint64_t at = j->good[j->levels];

    j->ok = go_to_stretch(p, j);
    while (j->ok && at < j->d.bad && !j->found) {
        at += strides[j->levels];
        both_to(p, at);
        j->found = !still_same(p, &j->d);
    }
    j->at = at;
}

static void pass_follow(struct pass *p, struct job *j) {
    j->ok = go_to_stretch(p, j);
    if (!j->ok)
        return;
    follow(p, &j->d);
    print_difference(p, &j->d, 0, false);
}

/* From the last good point on as the first time, but with pauses that are ever shorter:
 * for what is not there when fragments are executed one by one. Narrows the difference as
 * far as the pauses leave it there, and tells. */
static void find_stretch(struct job j) {
    j.good[0] = j.d.good;
    j.levels = 0;
    while (j.levels < STRIDES) {
        if (!run_job(&j, pass_stretch))
            return;
        if (!j.found)
            break;
        j.d.bad = j.at;
        j.d.good = j.at - strides[j.levels];
        j.good[++j.levels] = j.d.good;
    }
    run_job(&j, pass_follow);
}

/* J has found a difference; runs again, to find out where it begins. */
static void search(struct job j) {
    struct job point, fragment;

    log_info("a difference between %llu and %llu instructions; searching",
             (unsigned long long)j.d.good_memory, (unsigned long long)j.d.bad);
    j.show = false;
    if (!run_job(&j, pass_point) || !j.found)
        return;
    log_info("it is between %llu and %llu", (unsigned long long)j.d.good,
             (unsigned long long)j.d.bad);
    point = j;
    point.start = j.d.good;
    fragment = point;
    if (!run_job(&fragment, pass_fragment))
        return;
    if (!fragment.found) { /* not when fragments are executed one by one */
        find_stretch(point);
        return;
    }
    if (fragment.d.bad == fragment.d.good + 1)
        return; /* told */
    if (run_job(&fragment, pass_instruction) && fragment.found)
        return;
    point.tell = true;
    run_job(&point, pass_fragment);
}

/* --- the whole --- */

/* False, after a message: that is no good end. */
static bool is_good_end(const struct side *s) {
    switch (s->end) {
    case MACHINE_DEBUG_EXIT:
    case MACHINE_SHUTDOWN:
    case MACHINE_POWEROFF:
    case MACHINE_RESET:
        return true;
    case MACHINE_QUIT:
        if (s->astray)
            log_error(
                "the guest's serial port has no room for the input of the recording");
        return !s->astray;
    case MACHINE_ASLEEP:
        log_error("the guest is halted, and nothing will ever wake it");
        return false;
    default:
        return false;
    }
}

static void pass_first(struct pass *p, struct job *j) {
    const struct side *s = &p->side[0];
    bool same = true;

    while (next_point(p, &j->d, &same))
        ;
    if (host_failed(p))
        return;
    j->found = !same;
    j->ok = j->found || is_at_limit(p) || is_good_end(s);
    if (j->found)
        return;
    j->end = s->end;
    j->exit_code = machine_exit_code(s->m);
    log_warn("%s and %s did the same for %llu instructions, compared at %u points",
             p->ls->names[0], p->ls->names[1],
             (unsigned long long)(machine_insns(s->m) - p->began), p->point);
}

struct lockstep_result lockstep_run(const struct lockstep *ls) {
    struct job j = {.ls = ls, .show = true};

    if (!run_job(&j, pass_first))
        return (struct lockstep_result){.verdict = LOCKSTEP_FAILED, .rc = j.rc};
    if (!j.found)
        return (struct lockstep_result){
            .verdict = LOCKSTEP_SAME, .end = j.end, .exit_code = j.exit_code};
    search(j);
    return (struct lockstep_result){.verdict = LOCKSTEP_DIFFERENT};
}
