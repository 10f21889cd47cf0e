/*
 * A debugger's part of the machine; see debug.h.
 *
 * A CPU that comes to a stop notes why (machine_cpu.stop), is `held` from then on, has
 * the others come to where they stand (`stopping`), and tells the loop; which makes a
 * pause of that, and tells the debugger. Until the others come they go on: more of them
 * may have stopped when all stand. What such a one stopped for is told when the debugger
 * has it go on: what was watched has been touched, and that is remembered; a breakpoint
 * is still before it.
 *
 * Backwards means from an earlier moment on once more (checkpoints.c), up to the
 * instruction before. A counted run is the same each time: the life ends with
 * MACHINE_REWOUND, who runs it has it go on from there, and the engine stops at a count
 * (counted.reached). To find the last stop before where the guest is, what has come since
 * the last checkpoint is looked through (`scanning`): each stop is noted and passed over,
 * and the last one is gone to in a second life. If there is none, what came between the
 * checkpoint before and that one is looked through, and so on. A stop that the last
 * instruction of a stretch makes is not seen in it: stretches overlap by one.
 *
 * A CPU that stands is in machine_serve() (call.c), wherever it came from. What it does
 * next is decided in a call, while all stand.
 */
#include "machine/debug.h"

#include <errno.h>

#include "machine/machine_int.h"

/* --- on the CPU's thread --- */

static void drop_all(struct machine *m, struct vcpu *v) {
    const struct vcpu_stops *s = &m->debug.stops;

    for (unsigned n = 0; n < s->breaks; n++)
        mmu_stops_changed(v, gva(s->at[n]), 1);
    for (unsigned n = 0; n < s->watches; n++)
        mmu_stops_changed(v, gva(s->watch[n].at), s->watch[n].len);
}

/* It goes back, and is not there yet. */
static bool is_on_its_way(const struct machine *m) {
    return m->cfg.counted && m->counted.reached != UINT64_MAX;
}

/* A stop on the way is passed: what was touched has been executed, what has a breakpoint
 * is executed by a step without any. */
static void pass(struct machine_cpu *c) {
    struct machine *m = c->machine;
    struct vcpu *v = c->vcpu;
    bool breaks = v->hit.why == VCPU_HIT_BREAK;

    if (m->debug.scanning) {
        m->debug.found = true;
        m->debug.found_at = c->counters.insns_retired - !breaks;
        m->debug.found_hit = v->hit;
    }
    v->hit.why = VCPU_HIT_NONE;
    v->single = breaks;
    if (breaks)
        v->stops = NULL;
}

static void has_passed(struct machine_cpu *c) {
    c->vcpu->single = false;
    c->vcpu->stops = &c->machine->debug.stops;
    drop_all(c->machine, c->vcpu);
}

/* A breakpoint that was found is before the guest now, or behind what comes before the
 * next instruction: it is hit again. */
void machine_debug_reached(struct machine_cpu *c) {
    struct machine *m = c->machine;
    struct vcpu_hit hit = {.why = VCPU_HIT_STEP};

    m->counted.reached = UINT64_MAX;
    counted_aim(&m->counted);
    if (m->debug.found && !m->debug.scanning) {
        m->debug.found = false;
        hit = m->debug.found_hit;
    }
    if (hit.why == VCPU_HIT_BREAK)
        return;
    c->vcpu->hit = hit;
    vcpu_raise(c->vcpu, VCPU_EVENT_DEBUG);
}

void machine_debug_stopped(void *arg) {
    struct machine_cpu *c = arg;
    struct machine *m = c->machine;

    if (is_on_its_way(m) && c->vcpu->hit.why != VCPU_HIT_STEP) {
        pass(c);
        return;
    }
    c->stop = c->vcpu->hit;
    c->vcpu->hit.why = VCPU_HIT_NONE;
    c->vcpu->single = false;
    if (!m->debug.stopped)
        return;
    c->held = true;
    vcpu_raise(c->vcpu, VCPU_EVENT_KICK); /* service(), where it stands */
    __atomic_store_n(&m->debug.stopping, true, __ATOMIC_SEQ_CST);
    for (unsigned n = 0; n < m->cpus; n++)
        if (&m->cpu[n] != c)
            machine_cpu_wake(&m->cpu[n], VCPU_EVENT_KICK);
    os_task_post(&m->debug.task, m->loop);
}

/* Interrupts are held off as behind STI: by the shadow that the instruction ends. */
static bool hold_off(struct machine_cpu *c) {
    struct vcpu *v = c->vcpu;

    if (!c->machine->debug.holds_interrupts || c->machine->cfg.counted || v->halted ||
        v->irq_shadow)
        return false;
    v->irq_shadow = true;
    return true;
}

static void step_is_made(struct vcpu *v) {
    v->hit = (struct vcpu_hit){.why = VCPU_HIT_STEP};
    vcpu_raise(v, VCPU_EVENT_DEBUG);
}

enum exit_reason machine_debug_step(void *arg) {
    struct machine_cpu *c = arg;
    struct vcpu *v = c->vcpu;
    uint64_t rip = v->rip, retired = c->counters.insns_retired;
    bool held_off = hold_off(c), made;
    enum exit_reason reason = c->ops->step(c->engine);

    if (held_off && v->rip == rip)
        v->irq_shadow = false; /* there was no instruction, or only a part of one */
    made = v->rip != rip || c->counters.insns_retired != retired ||
           !(vcpu_events(v) & VCPU_EVENTS_LEAVE);
    if (reason == EXIT_halt) /* a sleep that only the engine's local APIC ends */
        made = !c->lapic;
    else if (reason != EXIT_kick)
        made = false;
    if (made && is_on_its_way(c->machine))
        has_passed(c);
    else if (made && v->hit.why == VCPU_HIT_NONE &&
             !(vcpu_linear_rip(v) - c->step_from < c->step_to - c->step_from))
        step_is_made(v);
    return reason;
}

/* --- all stand --- */

struct request {
    struct machine *m;
    const struct machine_go *go;
    const struct vcpu_stops *stops;
    int rc;
};

static void stand_here(void *arg) {
    struct machine *m = arg;

    __atomic_store_n(&m->debug.stopping, false, __ATOMIC_SEQ_CST);
    for (unsigned n = 0; n < m->cpus; n++)
        m->cpu[n].vcpu->single = false;
}

void machine_debug_stop(struct machine *m) {
    machine_pause_for(m, PAUSED_BY_DEBUGGER);
    machine_call(m, stand_here, m);
}

/* --- backwards --- */

struct back {
    struct machine *m;
    uint64_t to;
};

static void go_back_here(void *arg) {
    struct back *b = arg;
    struct machine_cpu *c = machine_boot_cpu(b->m);

    c->held = c->vcpu->single = false;
    c->stop.why = VCPU_HIT_NONE;
    b->m->counted.reached = b->to;
    machine_end_life(b->m, MACHINE_REWOUND);
}

/* The pause ends in a life that has ended: nothing is executed. */
static void go_back(struct machine *m, uint64_t to) {
    struct back b = {m, to};

    machine_call(m, go_back_here, &b);
    machine_resume_for(m, PAUSED_BY_DEBUGGER);
}

bool machine_debug_can_go_back(const struct machine *m) {
    return m->cfg.counted && m->cfg.rewinds;
}

bool machine_debug_at_start(const struct machine *m) {
    return m->debug.at_start;
}

/* Where the run began. */
static uint64_t first_insns(const struct machine *m) {
    return m->checkpoints.count ? m->checkpoints.all[0].insns : 0;
}

void machine_debug_go_back(struct machine *m, bool scan) {
    uint64_t now = machine_insns(m);
    bool back = now > first_insns(m);

    m->debug.at_start = !back;
    m->debug.found = false;
    m->debug.scanning = scan && back;
    m->debug.start_at = now - back;
    go_back(m, scan ? now : now - back);
}

/* A stretch was looked through: to the last stop of it, or on to the one before. */
static void scanned(struct machine *m) {
    uint64_t began = m->debug.began;

    if (!m->debug.found && began > first_insns(m)) {
        m->debug.start_at = began - 1;
        go_back(m, began + 1);
        return;
    }
    m->debug.scanning = false;
    m->debug.at_start = !m->debug.found;
    m->debug.start_at = m->debug.found ? m->debug.found_at : began;
    go_back(m, m->debug.start_at);
}

void machine_debug_meddled(struct machine *m) {
    m->checkpoints.meddled = true;
}

/* --- the loop is told --- */

static void stopped(void *arg) {
    struct machine *m = arg;

    if (!m->debug.stopped)
        return;
    machine_debug_stop(m);
    if (m->debug.scanning) {
        scanned(m);
        return;
    }
    m->debug.stopped(m->debug.arg);
}

static void go_here(void *arg) {
    struct request *r = arg;

    for (unsigned n = 0; n < r->m->cpus; n++) {
        struct machine_cpu *c = &r->m->cpu[n];

        c->stop.why = VCPU_HIT_NONE;
        c->held = r->go[n].how == MACHINE_HOLDS;
        c->vcpu->single = r->go[n].how == MACHINE_STEPS;
        r->m->debug.at_start = false;
        c->step_from = r->go[n].from;
        c->step_to = r->go[n].to;
    }
}

static bool is_watched(const struct vcpu_stops *s, uint64_t at) {
    for (unsigned n = 0; n < s->watches; n++)
        if (at - s->watch[n].at < s->watch[n].len)
            return true;
    return false;
}

/* Somebody has touched what is still watched, and it has not been told. */
static bool waits(const struct machine *m, const struct machine_go *go) {
    for (unsigned n = 0; n < m->cpus; n++)
        if (go[n].how != MACHINE_HOLDS && m->cpu[n].stop.why == VCPU_HIT_WATCH &&
            is_watched(&m->debug.stops, m->cpu[n].stop.at))
            return true;
    return false;
}

void machine_debug_go(struct machine *m, const struct machine_go *go) {
    struct request r = {.m = m, .go = go};

    if (waits(m, go)) {
        os_task_post(&m->debug.task, m->loop);
        return;
    }
    machine_call(m, go_here, &r);
    machine_resume_for(m, PAUSED_BY_DEBUGGER);
}

struct vcpu_hit machine_debug_why(const struct machine *m, unsigned cpu) {
    return m->cpu[cpu].stop;
}

void machine_debug_told(struct machine *m, unsigned cpu) {
    m->cpu[cpu].stop.why = VCPU_HIT_NONE;
}

void machine_debug_hold_interrupts(struct machine *m, bool on) {
    m->debug.holds_interrupts = on;
}

/* --- where to stop --- */

static bool has_break(const struct vcpu_stops *s, uint64_t at) {
    for (unsigned n = 0; n < s->breaks; n++)
        if (s->at[n] == at)
            return true;
    return false;
}

static bool has_watch(const struct vcpu_stops *s, const struct vcpu_watch *w) {
    for (unsigned n = 0; n < s->watches; n++)
        if (s->watch[n].at == w->at && s->watch[n].len == w->len &&
            s->watch[n].read == w->read && s->watch[n].write == w->write)
            return true;
    return false;
}

/* What A has and B has not is another for the shadows. */
static void tell_mmus(struct machine *m, const struct vcpu_stops *a,
                      const struct vcpu_stops *b) {
    for (unsigned n = 0; n < m->cpus; n++) {
        struct vcpu *v = m->cpu[n].vcpu;

        for (unsigned k = 0; k < a->breaks; k++)
            if (!has_break(b, a->at[k]))
                mmu_stops_changed(v, gva(a->at[k]), 1);
        for (unsigned k = 0; k < a->watches; k++)
            if (!has_watch(b, &a->watch[k]))
                mmu_stops_changed(v, gva(a->watch[k].at), a->watch[k].len);
    }
}

static int tell_engines(struct machine *m) {
    int rc = 0;

    for (unsigned n = 0; n < m->cpus && !rc; n++)
        if (m->cpu[n].ops->stops_changed)
            rc = m->cpu[n].ops->stops_changed(m->cpu[n].engine);
    return rc;
}

static int take_stops(struct machine *m, const struct vcpu_stops *s) {
    struct vcpu_stops old = m->debug.stops;

    m->debug.stops = *s;
    for (unsigned n = 0; n < m->cpus; n++)
        m->cpu[n].vcpu->stops = s->breaks || s->watches ? &m->debug.stops : NULL;
    tell_mmus(m, &old, s);
    tell_mmus(m, s, &old);
    return tell_engines(m);
}

static void set_here(void *arg) {
    struct request *r = arg;
    struct vcpu_stops old = r->m->debug.stops;

    r->rc = take_stops(r->m, r->stops);
    if (r->rc)
        take_stops(r->m, &old);
}

int machine_debug_set(struct machine *m, const struct vcpu_stops *s) {
    struct request r = {.m = m, .stops = s};

    machine_call(m, set_here, &r);
    return r.rc;
}

/* --- coming and going --- */

void machine_debug_begin(struct machine *m, void (*fn)(void *arg), void *arg) {
    m->debug.task.fn = stopped; /* it may be posted, by what the last one left */
    m->debug.task.arg = m;
    m->debug.stopped = fn;
    m->debug.arg = arg;
}

static void end_here(void *arg) {
    struct machine *m = arg;

    m->debug.stopped = NULL;
    m->debug.scanning = m->debug.found = false;
    m->counted.reached = UINT64_MAX;
    __atomic_store_n(&m->debug.stopping, false, __ATOMIC_SEQ_CST);
    for (unsigned n = 0; n < m->cpus; n++) {
        m->cpu[n].held = m->cpu[n].vcpu->single = false;
        m->cpu[n].stop.why = VCPU_HIT_NONE;
    }
    take_stops(m, &(struct vcpu_stops){0});
}

void machine_debug_end(struct machine *m) {
    machine_call(m, end_here, m);
    machine_resume_for(m, PAUSED_BY_DEBUGGER);
}

/* --- state --- */

struct vcpu *machine_debug_vcpu(struct machine *m, unsigned cpu) {
    return m->cpu[cpu].vcpu;
}

static void changed_here(void *arg) {
    struct machine_cpu *c = arg;

    vcpu_update_mode(c->vcpu);
    mmu_mode_changed(c->vcpu);
}

void machine_debug_changed(struct machine *m, unsigned cpu) {
    machine_call(m, changed_here, &m->cpu[cpu]);
}

unsigned machine_debug_cr8(struct machine *m, unsigned cpu) {
    struct vcpu *v = m->cpu[cpu].vcpu;

    return m->cpu[cpu].lapic ? v->hooks->cr8_read(v->hooks_arg) : 0;
}

bool machine_debug_waits(const struct machine *m, unsigned cpu) {
    return m->cpu[cpu].waiting;
}

/* --- memory --- */

bool machine_debug_translate(struct machine *m, unsigned cpu, uint64_t at,
                             uint64_t *out) {
    struct gpa to;
    bool writable;

    if (!mmu_peek(m->cpu[cpu].vcpu, gva(at), &to, &writable))
        return false;
    *out = to.a;
    return true;
}

/* LEN bytes that lie within a page. */
static bool move(struct machine *m, uint64_t at, void *to, const void *from,
                 uint64_t len) {
    return to ? mem_read(m->mem, gpa(at), to, len)
              : mem_program(m->mem, gpa(at), from, len);
}

static uint64_t move_all(struct machine *m, unsigned cpu, bool physical, uint64_t at,
                         uint8_t *to, const uint8_t *from, uint64_t len) {
    uint64_t done = 0, n, where;

    for (; done < len; done += n) {
        n = 4096 - ((at + done) & 4095);
        n = n < len - done ? n : len - done;
        where = at + done;
        if (!physical && !machine_debug_translate(m, cpu, at + done, &where))
            break;
        if (!move(m, where, to ? to + done : NULL, from ? from + done : NULL, n))
            break;
    }
    return done;
}

uint64_t machine_debug_read(struct machine *m, unsigned cpu, bool physical, uint64_t at,
                            void *buf, uint64_t len) {
    return move_all(m, cpu, physical, at, buf, NULL, len);
}

uint64_t machine_debug_write(struct machine *m, unsigned cpu, bool physical, uint64_t at,
                             const void *buf, uint64_t len) {
    machine_debug_meddled(m);
    return move_all(m, cpu, physical, at, NULL, buf, len);
}
