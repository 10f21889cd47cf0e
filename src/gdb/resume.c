/*
 * Going on, and why the machine stands.
 *
 * Each CPU has an action: the first of a vCont packet that is for its thread, and none
 * means that it is held. A signal that is to be delivered has no meaning here: it is
 * ignored.
 */
#include "gdb/gdb_int.h"

bool gdb_thread(struct gdb *g, struct gdb_text *t, unsigned *cpu) {
    uint64_t n;

    if (gdb_skip_word(t, "-1")) {
        *cpu = GDB_CPU_ALL;
        return true;
    }
    if (!gdb_number(t, &n) || n > machine_cpus(g->m))
        return false;
    *cpu = n ? (unsigned)n - 1 : g->told_cpu;
    return true;
}

/* Without a reply until the machine stops. */
static void go(struct gdb *g, const struct machine_go *actions) {
    g->reply.none = true;
    g->running = true;
    machine_debug_go(g->m, actions);
}

static void hold_all(struct machine_go *actions) {
    for (unsigned n = 0; n < MACHINE_CPUS; n++)
        actions[n] = (struct machine_go){.how = MACHINE_HOLDS};
}

/* --- vCont --- */

static bool parse_action(struct gdb_text *t, struct machine_go *a) {
    uint64_t ignored;

    *a = (struct machine_go){.how = MACHINE_RUNS};
    if (gdb_skip(t, 'c'))
        return true;
    if (gdb_skip(t, 'C'))
        return gdb_number(t, &ignored);
    a->how = MACHINE_HOLDS;
    if (gdb_skip(t, 't'))
        return true;
    a->how = MACHINE_STEPS;
    if (gdb_skip(t, 's'))
        return true;
    if (gdb_skip(t, 'S'))
        return gdb_number(t, &ignored);
    return gdb_skip(t, 'r') && gdb_number(t, &a->from) && gdb_skip(t, ',') &&
           gdb_number(t, &a->to);
}

/* For those of CPU that have none yet. */
static void give(struct machine_go *actions, uint64_t *given, unsigned cpu, unsigned cpus,
                 const struct machine_go *a) {
    for (unsigned n = 0; n < cpus; n++)
        if ((cpu == GDB_CPU_ALL || n == cpu) && !(*given >> n & 1)) {
            actions[n] = *a;
            *given |= 1ull << n;
        }
}

void gdb_cmd_vcont(struct gdb *g, struct gdb_text t) {
    struct machine_go actions[MACHINE_CPUS], a;
    uint64_t given = 0;
    bool some = false;

    hold_all(actions);
    while (gdb_skip(&t, ';')) {
        unsigned cpu = GDB_CPU_ALL;

        if (!parse_action(&t, &a) || (gdb_skip(&t, ':') && !gdb_thread(g, &t, &cpu))) {
            gdb_put_error(&g->reply, GDB_ERROR_PARSE);
            return;
        }
        some |= a.how != MACHINE_HOLDS;
        give(actions, &given, cpu, machine_cpus(g->m), &a);
    }
    if (gdb_left(&t) || !some)
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
    else
        go(g, actions);
}

/* --- without vCont --- */

/* Another address to go on from, if there is one. */
static bool go_from(struct gdb *g, struct gdb_text t) {
    uint64_t at;

    if (!gdb_left(&t))
        return true;
    if (!gdb_number(&t, &at) || gdb_left(&t))
        return false;
    for (unsigned n = 0; n < g->regs.count; n++)
        if (g->regs.reg[n].kind == GDB_REG_PC)
            gdb_reg_set(g->m, g->told_cpu, &g->regs.reg[n], (const uint8_t *)&at);
    return true;
}

static void resume(struct gdb *g, struct gdb_text t, bool step) {
    struct machine_go actions[MACHINE_CPUS];
    unsigned cpu = g->cpu_go == GDB_CPU_ALL ? g->told_cpu : g->cpu_go;

    if (!go_from(g, t)) {
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
        return;
    }
    hold_all(actions);
    for (unsigned n = 0; n < machine_cpus(g->m) && !step; n++)
        actions[n].how = MACHINE_RUNS;
    if (step)
        actions[cpu].how = MACHINE_STEPS;
    go(g, actions);
}

void gdb_cmd_continue(struct gdb *g, struct gdb_text t) {
    resume(g, t, false);
}

void gdb_cmd_step(struct gdb *g, struct gdb_text t) {
    resume(g, t, true);
}

/* Backwards: the registers as they were, by a second run. */
static void back(struct gdb *g, bool scan) {
    if (!machine_debug_can_go_back(g->m))
        return; /* what is not known has an empty reply */
    g->reply.none = true;
    g->running = true;
    machine_debug_go_back(g->m, scan);
}

void gdb_cmd_back_step(struct gdb *g, struct gdb_text t) {
    back(g, false);
}

void gdb_cmd_back_continue(struct gdb *g, struct gdb_text t) {
    back(g, true);
}

static void with_signal(struct gdb *g, struct gdb_text t, bool step) {
    uint64_t ignored;

    if (gdb_number(&t, &ignored) && (!gdb_left(&t) || gdb_skip(&t, ';')))
        resume(g, t, step);
    else
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
}

void gdb_cmd_continue_signal(struct gdb *g, struct gdb_text t) {
    with_signal(g, t, false);
}

void gdb_cmd_step_signal(struct gdb *g, struct gdb_text t) {
    with_signal(g, t, true);
}

/* --- why it stands --- */

/* The next CPU that has stopped of itself, beginning behind the one that was told last,
 * so that none waits for ever. */
static bool find_stopped(struct gdb *g, unsigned *cpu) {
    unsigned cpus = machine_cpus(g->m);

    for (unsigned k = 1; k <= cpus; k++) {
        *cpu = (g->told_cpu + k) % cpus;
        if (machine_debug_why(g->m, *cpu).why != VCPU_HIT_NONE)
            return true;
    }
    return false;
}

static void put_break(struct gdb *g, uint64_t at) {
    const struct gdb_points *p = &g->points;

    for (unsigned n = 0; n < p->stops.breaks; n++) {
        if (p->stops.at[n] != at)
            continue;
        if (p->software[n] && g->knows_swbreak)
            gdb_put(&g->reply, "swbreak:;");
        else if (p->hardware[n] && g->knows_hwbreak)
            gdb_put(&g->reply, "hwbreak:;");
    }
}

static void put_watch(struct gdb *g, const struct vcpu_hit *hit) {
    const struct vcpu_stops *s = &g->points.stops;

    for (unsigned n = 0; n < s->watches; n++) {
        const struct vcpu_watch *w = &s->watch[n];

        if (hit->at - w->at >= w->len)
            continue;
        gdb_put(&g->reply, "%s:%llx;",
                w->read && w->write ? "awatch"
                : w->read           ? "rwatch"
                                    : "watch",
                (unsigned long long)hit->at);
        return;
    }
}

void gdb_put_stop(struct gdb *g, unsigned signal) {
    unsigned cpu;
    struct vcpu_hit hit;

    if (!find_stopped(g, &cpu)) {
        gdb_put(&g->reply, "T%02xthread:%x;", signal, g->told_cpu + 1);
        return;
    }
    hit = machine_debug_why(g->m, cpu);
    machine_debug_told(g->m, cpu);
    g->told_cpu = g->cpu = cpu;
    gdb_put(&g->reply, "T05thread:%x;", cpu + 1);
    if (machine_debug_at_start(g->m))
        gdb_put(&g->reply, "replaylog:begin;");
    if (hit.why == VCPU_HIT_BREAK)
        put_break(g, hit.at);
    else if (hit.why == VCPU_HIT_WATCH)
        put_watch(g, &hit);
}
