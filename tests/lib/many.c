#include "lib/many.h"
#include "lib/guest.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "lib/need.h"
#include "lib/signals.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "soft/soft.h"
#include "x86/cr.h"

#define RWP (X86_PTE_P | X86_PTE_W)

static int no_irq(void *arg) {
    return -1;
}

/* What is no memory swallows everything. */
static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    vec_park(v);
    if (!e->write)
        e->data = ~0ull;
}

static const struct vcpu_hooks hooks = {.irq_ack = no_irq, .exit = on_exit_hook};

static void on_kick(void *arg, struct vcpu *v, uint32_t event) {
    struct many *m = arg;
    struct bt *bt = m->bt[v->member->index];

    if (bt)
        bt_kick(bt);
}

static void add_engines(struct many *m, const struct bt_options *opt) {
    for (unsigned n = 0; n < m->cpus; n++) {
        m->ip[n] = interp_new(m->vcpu[n]);
        need(m->ip[n], "no interpreter");
        if (opt && !n)
            need(!bt_new(m->vcpu[n], m->ip[n], opt, &m->bt[n]), "no translator");
        else if (opt)
            need(!bt_join(m->bt[0], m->vcpu[n], m->ip[n], &m->bt[n]), "no translator");
    }
    mem_own_trace(m->mem, MEM_TRACE_CODE, interp_code_written, m->ip[0]);
    if (opt)
        mem_own_trace(m->mem, MEM_TRACE_TC, bt_code_written, m->bt[0]);
}

void many_new(struct many *m, unsigned cpus, const struct bt_options *opt, bool splits) {
    const struct cpuid_config model = {.tsc_hz = 1000000000};

    memset(m, 0, sizeof(*m));
    vec_init();
    need(!sem_init(), "no semantics");
    need(!mem_create(MANY_RAM, &m->mem), "no RAM");
    m->ram = mem_ram_base(m->mem);
    m->cpus = cpus;
    vcpu_group_init(&m->group, on_kick, m);
    m->group.splits = splits;
    for (unsigned n = 0; n < cpus; n++) {
        struct vcpu *v = vcpu_new();

        need(v, "no vCPU");
        m->vcpu[n] = v;
        v->cnt = &m->cnt[n];
        v->hooks = &hooks;
        v->mem = m->mem;
        v->cpuid = cpuid_model_new(&model);
        need(v->cpuid, "no CPUID model");
        vcpu_group_add(&m->group, v);
        need(!mmu_create(v, MMU_PCID), "no MMU");
        vcpu_reset(v);
    }
    mmu_hook(m->vcpu[0]);
    add_engines(m, opt);
}

void many_free(struct many *m) {
    for (unsigned n = m->cpus; n--;) {
        bt_free(m->bt[n]);
        interp_free(m->ip[n]);
    }
    for (unsigned n = 0; n < m->cpus; n++) {
        mmu_destroy(m->vcpu[n]);
        cpuid_model_free((struct cpuid_model *)(uintptr_t)m->vcpu[n]->cpuid);
        vcpu_free(m->vcpu[n]);
    }
    mem_destroy(m->mem);
}

/* --- memory --- */

void many_write(struct many *m, uint64_t at, const void *p, size_t len) {
    need(mem_write(m->mem, gpa(at), p, len), "written where there is no RAM");
}

void many_put(struct many *m, uint64_t at, uint64_t value, unsigned len) {
    many_write(m, at, &value, len);
}

uint64_t many_get(const struct many *m, uint64_t at, unsigned len) {
    uint64_t value = 0;

    need(mem_read(m->mem, gpa(at), &value, len), "read where there is no memory");
    return value;
}

/* --- running --- */

static void make_tables(struct many *m) {
    for (unsigned n = 0; n < 32; n++) {
        many_put(m, MANY_IDT + 16 * n, MANY_HANDLER | 8ull << 16 | 0x8e00ull << 32, 8);
        many_put(m, MANY_IDT + 16 * n + 8, 0, 8);
    }
    many_write(m, MANY_HANDLER, "\xf4", 1);
    many_put(m, MANY_GDT + 8, 0x00af9b000000ffff, 8);
    many_put(m, MANY_GDT + 16, 0x00cf93000000ffff, 8);
    many_put(m, MANY_PML4, MANY_PDPT | RWP, 8);
    many_put(m, MANY_PDPT, MANY_PD | RWP, 8);
    many_put(m, MANY_PD, MANY_PT | RWP, 8);
    for (unsigned k = 1; k < MANY_RAM >> 21; k++)
        many_put(m, MANY_PD + 8 * k, (uint64_t)k << 21 | RWP | X86_PTE_PS, 8);
    for (unsigned k = 0; k < 512; k++)
        many_put(m, MANY_PT + 8 * k, k << 12 | RWP, 8);
}

static void start_one(struct many *m, unsigned n) {
    struct vcpu *v = m->vcpu[n];

    guest_start_long(v, MANY_PML4, MANY_GDT, MANY_IDT);
    v->rip = MANY_CODE;
    v->gpr[REG_RSP] = MANY_STACK - 0x1000 * n;
    v->gpr[REG_RDI] = n;
}

void many_start(struct many *m) {
    signals_back();
    for (unsigned n = 0; n < m->cpus; n++) {
        interp_flush(m->ip[n]);
        if (m->bt[n])
            bt_flush(m->bt[n]);
    }
    mem_reset(m->mem);
    make_tables(m);
    for (unsigned n = 0; n < m->cpus; n++)
        start_one(m, n);
}

struct runner {
    struct many *m;
    unsigned n;
    pthread_t thread;
    pthread_barrier_t *start;
};

static void *run_one(void *arg) {
    struct runner *r = arg;
    struct vcpu *v = r->m->vcpu[r->n];
    struct soft soft = {.v = v, .ip = r->m->ip[r->n], .bt = r->m->bt[r->n]};
    enum exit_reason why;

    pthread_barrier_wait(r->start);
    do {
        vcpu_enter(v);
        why = soft.bt ? soft_run(&soft) : interp_run(soft.ip);
        vcpu_leave(v);
    } while (why == EXIT_kick);
    need(why == EXIT_halt, "it did not halt");
    return NULL;
}

void many_run_with(struct many *m, void (*other)(struct many *m)) {
    struct runner r[MANY_MAX];
    pthread_barrier_t start;

    pthread_barrier_init(&start, NULL, m->cpus);
    for (unsigned n = 0; n < m->cpus; n++) {
        r[n] = (struct runner){.m = m, .n = n, .start = &start};
        need(!pthread_create(&r[n].thread, NULL, run_one, &r[n]), "no thread");
    }
    if (other)
        other(m);
    for (unsigned n = 0; n < m->cpus; n++)
        pthread_join(r[n].thread, NULL);
    pthread_barrier_destroy(&start);
}

void many_run(struct many *m) {
    many_run_with(m, NULL);
}
