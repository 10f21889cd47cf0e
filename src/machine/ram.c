/*
 * What memory holds, for snapshots: bit by bit while the guest runs, and then what it has
 * written to meanwhile; or in one go.
 *
 * Which pages are written to is known from the traces (mem/track.c), and from engines
 * that write to memory past them.
 */
#include <errno.h>

#include "base/log.h"
#include "machine/machine_int.h"

/* Engines say what they know. False: one does not. */
static bool ask_engines(struct machine *m) {
    for (unsigned n = 0; n < m->cpus; n++) {
        const struct machine_cpu *c = &m->cpu[n];

        if (c->ops->tell_written && c->ops->tell_written(c->engine))
            return false;
    }
    return true;
}

/* By traces, at any time. */
static bool is_told(const struct machine *m) {
    for (unsigned n = 0; n < m->cpus; n++)
        if (m->cpu[n].ops->tell_written)
            return false;
    return true;
}

uint64_t machine_ram_pages(const struct machine *m) {
    return mem_host_size(m->mem) >> 12;
}

struct look {
    struct machine *m;
    uint64_t *bits;
};

static void begin(void *arg) {
    struct machine *m = arg;

    if (ask_engines(m))
        mem_track_start(m->mem);
}

static void look_here(void *arg) {
    struct look *l = arg;

    ask_engines(l->m);
    if (l->bits)
        mem_track_collect(l->m->mem, l->bits);
}

bool machine_track(struct machine *m) {
    if (!mem_tracked(m->mem))
        machine_call(m, begin, m);
    return mem_tracked(m->mem);
}

void machine_track_first(struct machine *m) {
    begin(m);
}

void machine_written(struct machine *m, uint64_t *bits) {
    struct look l = {m, bits};

    machine_call(m, look_here, &l);
}

uint64_t machine_written_count(struct machine *m) {
    struct look l = {m, NULL};

    if (!is_told(m))
        machine_call(m, look_here, &l);
    return mem_track_count(m->mem);
}

int machine_save_ram(struct machine *m, int fd) {
    return mem_save(m->mem, fd);
}

int machine_save_ram_begin(struct machine *m, int fd) {
    return mem_save_begin(m->mem, fd);
}

int machine_save_ram_part(struct machine *m, int fd, uint64_t *at) {
    int rc = mem_save_part(m->mem, fd, at);

    return rc ? rc : *at < mem_host_size(m->mem);
}

int machine_save_ram_pages(struct machine *m, int fd, uint64_t from, uint64_t end) {
    return mem_save_pages(m->mem, fd, from, end);
}

/* Who wants cells from the beginning has memory copied in the beginning; else that is put
 * off until they are worth it. */
int machine_restore_ram(struct machine *m, int fd) {
    int rc;

    if (m->cells && m->cfg.direct == DIRECT_ON)
        return mem_load(m->mem, fd);
    rc = mem_overlay(m->mem, fd);
    if (!rc && m->cells && machine_sharing_begin(m))
        log_info("nothing is run directly: the host does not say what was written to");
    return rc;
}

int machine_restore_ram_pages(struct machine *m, int fd, uint64_t from, uint64_t end) {
    return mem_load_pages(m->mem, fd, from, end);
}
