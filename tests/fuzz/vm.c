#include "fuzz/vm.h"

#include "bt/bt_int.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "fuzz/fuzz.h"
#include "mmu/mmu_int.h"
#include "sem/sem.h"
#include "x86/cr.h"

static uint64_t ask(struct vm *vm) {
    if (++vm->tick >= vm->limit)
        vcpu_raise(vm->v, VCPU_EVENT_KICK);
    return vm->tick;
}

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    uint64_t t = ask(arg);

    vec_park(v);
    if (!e->write)
        e->data = t * 0x9e3779b97f4a7c15ull;
    e->failed = t & 1;
}

static int on_irq_ack(void *arg) {
    struct vm *vm = arg;

    vcpu_clear(vm->v, VCPU_EVENT_IRQ);
    return (int)(ask(vm) % 257) - 1;
}

static uint64_t on_tsc(void *arg) {
    return ask(arg) * 1000;
}

static const struct vcpu_hooks hooks = {
    .exit = on_exit_hook, .irq_ack = on_irq_ack, .tsc = on_tsc};

void vm_new(struct vm *vm, enum mmu_policy policy, const struct bt_options *opt) {
    static const struct cpuid_config cfg = {
        .model = "host", .tsc_hz = 1000000000, .paravirt = true};
    struct mem_hooks *h;

    vec_init();
    FUZZ_CHECK(!sem_init());
    memset(vm, 0, sizeof(*vm));
    vm->limit = UINT64_MAX;
    vm->v = aligned_alloc(64, sizeof(*vm->v));
    memset(vm->v, 0, sizeof(*vm->v));
    vm->v->cnt = &vm->cnt;
    vm->v->hooks = &hooks;
    vm->v->hooks_arg = vm;
    vm->v->cpuid = cpuid_model_new(&cfg);
    FUZZ_CHECK(vm->v->cpuid && !mem_create(VM_RAM, &vm->v->mem));
    FUZZ_CHECK(!mmu_create(vm->v, policy));
    vm->ram = mem_ram_base(vm->v->mem);
    vm->ip = interp_new(vm->v);
    FUZZ_CHECK(vm->ip);
    h = mem_hooks(vm->v->mem);
    h->on_write[__builtin_ctz(MEM_TRACE_CODE)] = interp_code_written;
    h->on_write_arg[__builtin_ctz(MEM_TRACE_CODE)] = vm->ip;
    vcpu_reset(vm->v);
    if (opt) {
        struct bt_options verified = *opt;

        verified.verify = true;
        FUZZ_CHECK(!bt_new(vm->v, vm->ip, &verified, &vm->bt));
    }
}

void vm_reset(struct vm *vm) {
    struct vcpu *v = vm->v;

    mem_reset(v->mem);
    interp_flush(vm->ip);
    if (vm->bt)
        bt_flush(vm->bt);
    vcpu_clear(v, ~0u);
    vcpu_reset(v);
    vm->tick = 0;
    vm->limit = UINT64_MAX;
    vm_state_changed(vm);
}

void vm_state_changed(struct vm *vm) {
    struct vcpu *v = vm->v;

    vcpu_update_mode(v);
    mmu_flush_all(v);
    mmu_context_changed(v);
    mmu_breakpoints_changed(v);
}

/* --- checks --- */

static void check_modes(const struct vcpu *v) {
    FUZZ_CHECK(v->zero == 0);
    FUZZ_CHECK(v->rflags & X86_FL_ONE);
    FUZZ_CHECK(!(v->rflags & ~0x3f7fd7ull));
    FUZZ_CHECK(v->cpl <= 3);
    FUZZ_CHECK(!v->vec_live);
    FUZZ_CHECK(!(v->cr0 & X86_CR0_PG) || (v->cr0 & X86_CR0_PE));
    FUZZ_CHECK(v->long_mode == !!(v->efer & X86_EFER_LMA));
    FUZZ_CHECK(!(v->efer & X86_EFER_LMA) ||
               ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE)));
    FUZZ_CHECK(!(v->cr4 & ~cpuid_cr4_valid(v->cpuid)));
    FUZZ_CHECK(!(v->xcr0 & ~cpuid_xcr0_valid(v->cpuid)));
    FUZZ_CHECK(v->mode != MODE_64 || v->long_mode);
    FUZZ_CHECK(v->mode == MODE_64 || !(v->rip >> 32));
    FUZZ_CHECK(!(v->rflags & X86_FL_VM) || v->cpl == 3);
    FUZZ_CHECK(!vcpu_is_real(v) || v->cpl == 0);
}

/* What is derived is what would be derived again. */
static void check_derived(const struct vcpu *v) {
    static struct vcpu *copy;

    if (!copy)
        copy = aligned_alloc(64, sizeof(*copy));
    *copy = *v;
    vcpu_update_mode(copy);
    FUZZ_CHECK(copy->mode == v->mode);
    FUZZ_CHECK(copy->seg_flat_r == v->seg_flat_r);
    FUZZ_CHECK(copy->seg_flat_w == v->seg_flat_w);
    FUZZ_CHECK(!memcmp(copy->segbase, v->segbase, sizeof(v->segbase)));
    FUZZ_CHECK(copy->lin_mask == v->lin_mask);
    FUZZ_CHECK(copy->stack32 == v->stack32);
}

/* A page of RAM; or, unless it is for stores, of the ROM behind it. */
static bool in_memory(const struct vm *vm, const uint8_t *host, bool write) {
    uint64_t off = (uint64_t)(host - vm->ram);

    return off < (write ? VM_RAM : mem_host_size(vm->v->mem)) && !(off & 4095);
}

/* Every address that a hit could give: inside RAM, and writable only where nobody has to
 * be told of a store. */
static void check_bank(const struct vm *vm, const struct shadow_bank *b) {
    const struct mem *m = vm->v->mem;

    for (unsigned n = 0; n < SHADOW_ENTRIES; n++) {
        const struct shadow_entry *e = &b->e[n];

        for (unsigned acc = 0; acc < 3; acc++) {
            uint64_t tag = e->tag[acc] & ~SHADOW_ANCHORED;

            if (tag == mmu_no_tag(n) || mmu_index(tag) != n)
                continue;
            FUZZ_CHECK(in_memory(vm, e->host, acc == MMU_WRITE));
            FUZZ_CHECK(acc != MMU_WRITE || !mem_trace_of(m, e->host));
        }
    }
    for (unsigned n = 0; n < SHADOW_ANCHORS; n++) {
        const struct shadow_anchor *a = &b->anchor[n];
        const struct shadow_entry *e = &b->e[mmu_index(a->tag)];

        if (a->tag == SHADOW_NO_ANCHOR) {
            FUZZ_CHECK(a->host == vm->v->mmu->nowhere);
            continue;
        }
        FUZZ_CHECK(b->anchored && e->tag[MMU_EXEC] == SHADOW_ANCHORED);
        FUZZ_CHECK(in_memory(vm, a->host, n & 1) && a->host == e->host);
        FUZZ_CHECK(a->tag == e->tag[MMU_READ] || a->tag == e->tag[MMU_WRITE]);
    }
}

void vm_check(const struct vm *vm) {
    const struct mmu_priv *m = mmu_priv(vm->v);

    FUZZ_CHECK(!vm->bt || !vm->bt->unsound);
    check_modes(vm->v);
    check_derived(vm->v);
    for (unsigned s = 0; s < m->space_count; s++)
        for (unsigned k = 0; m->space[s].any && k < BANK_COUNT; k++)
            /* A space has supervisor banks or user banks; the others may not be set up.
             */
            if (m->space[s].ready[k == BANK_USER || k == BANK_USER_X])
                check_bank(vm, &m->space[s].bank[k]);
}
