/*
 * What is told of a guest: exits and counters at its end (stats), and how much of its
 * memory it writes to (written=MS), which is what copying it while it runs would take.
 *
 * That is known from the traces of memory (mem/track.c) and, where the hardware walks
 * nested page tables, from these (svm_log_writes()). A timer of the board's looks, on the
 * guest's first CPU, while the others stand.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cpu/smp.h"
#include "hv/vm_int.h"

#define MS 1000000ull

struct sum {
    const char *name[64];
    uint64_t value[64];
    unsigned count, at;
};

/* Each CPU's engine tells the same figures in the same order. */
static void add_up(void *arg, const char *name, uint64_t value) {
    struct sum *s = arg;

    if (s->at == ARRAY_SIZE(s->name))
        return;
    s->name[s->at] = name;
    s->value[s->at++] += value;
    if (s->count < s->at)
        s->count = s->at;
}

void hv_vm_stats(const struct hv_vm *m) {
    struct sum s = {.count = 0};
    char of[16] = "";

    if (m->cfg->several)
        snprintf(of, sizeof(of), "guest %u ", m->cfg->number);
    for (unsigned k = 0; k < EXIT_COUNT; k++) {
        uint64_t sum = 0;

        for (unsigned n = 0; n < m->cpus; n++)
            sum += m->cpu[n].exits.n[k];
        if (sum)
            log_line(LOG_WARN, "%sexit %s %llu", of, exit_name((enum exit_reason)k),
                     (unsigned long long)sum);
    }
    for (unsigned n = 0; n < m->cpus; n++) {
        s.at = 0;
        if (m->cpu[n].ops->stats)
            m->cpu[n].ops->stats(m->cpu[n].engine, add_up, &s);
    }
    for (unsigned n = 0; n < s.count; n++)
        if (s.value[n])
            log_line(LOG_WARN, "%s%s %llu", of, s.name[n],
                     (unsigned long long)s.value[n]);
}

/* --- what it writes to --- */

static void arm(struct hv_vm *m) {
    vtimer_arm(m->clock, &m->look, vclock_now(m->clock) + m->cfg->written * MS);
}

static void look(void *arg) {
    struct hv_vm *m = arg;
    uint64_t pages;
    char text[80];

    board_park(&m->board);
    mem_lock(m->mem); /* before the stop: cpu/smp.h, "Locks have ranks" */
    vcpu_stop(m->group);
    for (unsigned n = 0; n < m->cpus; n++)
        hv_engine_tell_written(m->cpu[n].ops, m->cpu[n].engine);
    pages = mem_track_count(m->mem);
    mem_track_collect(m->mem, m->written_bits);
    vcpu_go(m->group);
    mem_unlock(m->mem);
    snprintf(text, sizeof(text), "%llu KiB written to in %u ms",
             (unsigned long long)pages * 4, m->cfg->written);
    hv_console_line(m->cfg->number, text);
    arm(m);
}

int hv_written_start(struct hv_vm *m) {
    uint64_t pages = mem_host_size(m->mem) / 4096;

    if (!m->written_bits)
        m->written_bits = calloc(pages / 64 + 1, sizeof(*m->written_bits));
    if (!m->written_bits)
        return -ENOMEM;
    for (unsigned n = 0; n < m->cpus; n++)
        hv_engine_log_writes(m->cpu[n].ops, m->cpu[n].engine);
    mem_track_start(m->mem);
    m->look.fire = look;
    m->look.arg = m;
    arm(m);
    return 0;
}
