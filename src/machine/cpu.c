/*
 * A CPU: its vCPU and MMU, the choice of its engine, its power-up state; see cpu.h.
 */
#include "machine/cpu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "machine/machine_int.h"

/* What `trace` retains follows the page tables that its own CPU writes: with several CPUs
 * it is `pcid` (docs/mmu.md). */
static enum mmu_policy policy_for(const struct machine *m) {
    return m->cfg.policy == MMU_TRACE && m->cpus > 1 ? MMU_PCID : m->cfg.policy;
}

int machine_cpu_create(struct machine *m, struct machine_cpu *c) {
    c->vcpu = vcpu_new();
    if (!c->vcpu)
        return -ENOMEM;
    c->index = (unsigned)(c - m->cpu);
    c->machine = m;
    c->vcpu->mem = m->mem;
    c->vcpu->cpuid = m->cpuid;
    c->vcpu->cnt = &c->counters;
    c->deadline = UINT64_MAX;
    vcpu_reset(c->vcpu);
    vcpu_group_add(m->group, c->vcpu);
    return mmu_create(c->vcpu, policy_for(m));
}

void machine_cpu_free(struct machine_cpu *c) {
    if (c->vcpu && c->vcpu->mmu)
        mmu_destroy(c->vcpu);
    vcpu_free(c->vcpu);
}

/* Devices go later, and memory of theirs may have been code: nobody is told any more. */
static void disown_traces(struct machine *m) {
    const struct machine_cpu *c = machine_boot_cpu(m);
    struct engine_trace trace[MEM_TRACE_COUNT];
    unsigned count = 0;

    if (c->engine)
        c->ops->traces(c->engine, trace, &count);
    for (unsigned n = 0; n < count; n++)
        mem_own_trace(m->mem, trace[n].trace, NULL, NULL);
}

/* The first one's last: the others lean on it. */
void machine_free_engines(struct machine *m) {
    if (m->cpus)
        disown_traces(m);
    for (unsigned n = m->cpus; n--;) {
        struct machine_cpu *c = &m->cpu[n];

        if (c->engine)
            c->ops->destroy(c->engine);
        c->engine = NULL;
    }
}

/* All CPUs get an engine of that kind, or none does. */
static int create_engines(struct machine *m, const struct engine_ops *ops,
                          struct engine_config *cfg, char *why, size_t why_size) {
    int rc = 0;

    for (unsigned n = 0; !rc && n < m->cpus; n++) {
        m->cpu[n].ops = ops;
        cfg->first = n ? m->cpu[0].engine : NULL;
        rc = ops->create(m->cpu[n].vcpu, cfg, &m->cpu[n].engine, why, why_size);
        if (rc)
            m->cpu[n].engine = NULL;
    }
    if (rc)
        machine_free_engines(m);
    return rc;
}

int machine_choose_engine(struct machine *m, char *why, size_t why_size) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);
    bool any = !strcmp(m->cfg.engine, "auto");
    struct engine_config cfg = {.notes = m->cfg.notes,
                                .only_if_fast = any,
                                .cells = m->cells,
                                .direct = m->cfg.direct,
                                .direct_options = &m->cfg.direct_options};
    char reason[384] = "no engine of that name";
    int rc = -EINVAL;

    for (size_t i = 0; i < count; i++) {
        if (!any && strcmp(m->cfg.engine, all[i]->name))
            continue;
        if (m->cfg.counted && !all[i]->counts) {
            snprintf(reason, sizeof(reason),
                     "it cannot count instructions, which "
                     "--record and --replay need; take --engine bt");
            continue;
        }
        cfg.options = machine_options_of(&m->cfg.options, all[i]);
        rc = create_engines(m, all[i], &cfg, reason, sizeof(reason));
        if (!rc)
            return 0;
        if (any)
            log_info("engine %s is passed over: %s", all[i]->name, reason);
    }
    snprintf(why, why_size, "engine %s: %s", m->cfg.engine, reason);
    return rc;
}

void machine_cpu_reset(struct machine_cpu *c) {
    vcpu_clear(c->vcpu, VCPU_EVENT_STOP | VCPU_EVENT_IRQ | VCPU_EVENT_NMI);
    vcpu_reset(c->vcpu);
    c->signals = 0;
    c->unhalt = false;
    c->waiting = c->index != 0 && c->lapic; /* else the engine sees to that */
}

void machine_cpu_state_changed(struct machine_cpu *c) {
    mmu_flush_all(c->vcpu);
    mmu_context_changed(c->vcpu);
    c->ops->reset(c->engine);
}

uint64_t machine_insns(const struct machine *m) {
    uint64_t sum = 0;

    for (unsigned n = 0; n < m->cpus; n++)
        sum += m->cpu[n].counters.insns_retired;
    return sum;
}
