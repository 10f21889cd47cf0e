#include "lib/guest.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/smp.h"
#include "cpu/vec.h"
#include "lib/need.h"
#include "sem/sem.h"
#include "soft/soft.h"
#include "x86/cr.h"

/* --- hooks --- */

static uint64_t written(const struct exit *e) {
    return e->data & (e->size < 8 ? (1ull << 8 * e->size) - 1 : ~0ull);
}

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    struct guest *g = arg;

    vec_park(v);
    g->seen = (g->seen ^ e->reason ^ e->size << 8 ^ e->write << 16) * 0x100000001b3ull +
              e->gpa.a + (e->write ? written(e) : 0);
    if (!e->write)
        e->data = ++g->asked * 0x9e3779b97f4a7c15ull;
}

static int no_irq(void *arg) {
    return -1;
}

static uint64_t on_tsc(void *arg) {
    return ++((struct guest *)arg)->asked;
}

static bool on_a20(void *arg) {
    return ((struct guest *)arg)->a20;
}

const struct vcpu_hooks guest_steady_hooks = {
    .exit = on_exit_hook, .irq_ack = no_irq, .tsc = on_tsc, .a20 = on_a20};

static void on_fickle_exit(void *arg, struct vcpu *v, struct exit *e) {
    uint64_t t = ++((struct guest *)arg)->asked;

    vec_park(v);
    if (!e->write)
        e->data = t * 0x9e3779b97f4a7c15ull;
    e->failed = t & 1;
}

static int any_irq(void *arg) {
    struct guest *g = arg;

    vcpu_clear(g->v, VCPU_EVENT_IRQ);
    return (int)(++g->asked % 257) - 1;
}

static uint64_t on_fast_tsc(void *arg) {
    return ++((struct guest *)arg)->asked * 1000;
}

const struct vcpu_hooks guest_fickle_hooks = {
    .exit = on_fickle_exit, .irq_ack = any_irq, .tsc = on_fast_tsc};

/* --- life --- */

static void add_interp(struct guest *g) {
    g->ip = interp_new(g->v);
    need(g->ip, "no interpreter");
    mem_own_trace(g->v->mem, MEM_TRACE_CODE, interp_code_written, g->ip);
}

static struct vcpu *new_vcpu(void) {
    struct vcpu *v = vcpu_new();

    need(v, "no vCPU");
    return v;
}

/* A second vCPU, which nobody runs. */
static void add_other(struct guest *g) {
    g->group = calloc(1, sizeof(*g->group));
    need(g->group, "no group");
    vcpu_group_init(g->group, NULL, NULL);
    vcpu_group_add(g->group, g->v);
    g->other = new_vcpu();
    vcpu_group_add(g->group, g->other);
}

void guest_new(struct guest *g, const struct guest_config *cfg) {
    struct cpuid_config model = cfg->cpuid;
    struct vcpu *v;

    if (!model.tsc_hz)
        model.tsc_hz = 1000000000;
    vec_init();
    need(!sem_init(), "no semantics");
    memset(g, 0, sizeof(*g));
    g->own_vcpu = !cfg->vcpu;
    g->a20 = true;
    g->v = v = cfg->vcpu ? cfg->vcpu : new_vcpu();
    memset(v, 0, sizeof(*v));
    v->cnt = &g->cnt;
    v->hooks = cfg->hooks;
    v->hooks_arg = g;
    v->counted = cfg->counted;
    if (cfg->smp || (getenv("GUEST_SMP") && !cfg->counted))
        add_other(g);
    v->cpuid = cpuid_model_new(&model);
    need(v->cpuid, "no CPUID model");
    v->mem = cfg->mem;
    need(v->mem || !mem_create(cfg->ram ? cfg->ram : MEM_MIN_RAM, &v->mem), "no RAM");
    g->ram = mem_ram_base(v->mem);
    need(!mmu_create(v, cfg->policy), "no MMU");
    mmu_hook(v);
    vcpu_reset(v);
    if (cfg->interp || cfg->bt)
        add_interp(g);
    if (cfg->bt)
        guest_use_bt(g, cfg->bt);
}

void guest_use_bt(struct guest *g, const struct bt_options *opt) {
    bt_free(g->bt);
    g->bt = NULL;
    need(!bt_new(g->v, g->ip, opt, &g->bt), "no translator");
    mem_own_trace(g->v->mem, MEM_TRACE_TC, bt_code_written, g->bt);
}

void guest_free(struct guest *g) {
    bt_free(g->bt);
    interp_free(g->ip);
    mmu_destroy(g->v);
    mem_destroy(g->v->mem);
    cpuid_model_free((struct cpuid_model *)(uintptr_t)g->v->cpuid);
    free(g->group);
    vcpu_free(g->other);
    g->v->member = NULL;
    if (g->own_vcpu)
        vcpu_free(g->v);
    g->v = NULL;
}

void guest_reset(struct guest *g) {
    mem_reset(g->v->mem);
    if (g->ip)
        interp_flush(g->ip);
    if (g->bt)
        bt_flush(g->bt);
    vcpu_clear(g->v, ~0u);
    vcpu_reset(g->v);
    g->asked = g->seen = 0;
    guest_state_changed(g);
}

void guest_start_long(struct vcpu *v, uint64_t cr3, uint64_t gdt, uint64_t idt) {
    vcpu_reset(v);
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = (struct segment){.sel = s == SEG_CS ? 8 : 16,
                                     .ar = s == SEG_CS ? 0xa09b : 0xc093,
                                     .limit = 0xffffffff};
    v->cr0 |= X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE;
    v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR;
    v->cr3 = cr3;
    v->efer = X86_EFER_LME | X86_EFER_LMA;
    v->gdtr = (struct desc_table){.base = gdt, .limit = 23};
    v->idtr = (struct desc_table){.base = idt, .limit = 511};
    v->halted = false;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_flush_all(v);
}

void guest_state_changed(struct guest *g) {
    struct vcpu *v = g->v;

    vcpu_update_mode(v);
    mmu_flush_all(v);
    mmu_context_changed(v);
    mmu_breakpoints_changed(v);
}

/* --- memory --- */

void guest_write(struct guest *g, uint64_t at, const void *p, size_t len) {
    need(mem_write(g->v->mem, gpa(at), p, len), "written where there is no RAM");
}

void guest_put(struct guest *g, uint64_t at, uint64_t value, unsigned len) {
    guest_write(g, at, &value, len);
}

void guest_put32(struct guest *g, uint64_t at, uint32_t value) {
    guest_write(g, at, &value, 4);
}

void guest_put64(struct guest *g, uint64_t at, uint64_t value) {
    guest_write(g, at, &value, 8);
}

uint64_t guest_get(const struct guest *g, uint64_t at, unsigned len) {
    uint64_t value = 0;

    need(mem_read(g->v->mem, gpa(at), &value, len), "read where there is no memory");
    return value;
}

enum exit_reason guest_run(struct guest *g) {
    struct soft soft = {.v = g->v, .ip = g->ip, .bt = g->bt};

    return soft_run(&soft);
}
