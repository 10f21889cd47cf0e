/*
 * The engine that owns its control block, without hardware: the way of the state between
 * struct vcpu and the control block, the permission maps, nested page tables against the
 * map that they are made from, and what is put into the control block and taken out of it
 * around an entry. VMRUN is a function of the test's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/state.h"
#include "cpu/vec.h"
#include "lib/guest.h"
#include "lib/svmhost.h"
#include "lib/tiny.h"
#include "sem/sem.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"
#include "x86/msr.h"
#include "x86/pte.h"

#define CODE 0x1000u

static struct guest g;
static struct svm *s;
static unsigned entries, acked;
static uint64_t last_event; /* EVENTINJ of the last entry */
static uint64_t last_ctl;   /* V_IRQ and so on */
static uint32_t last_i3;    /* its intercepts */
static uint8_t last_tlb;
static void (*vmrun)(struct x86_vmcb *b);

/* --- the machine --- */

static void enter(void *arg, struct svm_entry *e) {
    entries++;
    last_event = e->vmcb->event_inj;
    last_ctl = e->vmcb->int_ctl;
    last_i3 = e->vmcb->intercept3;
    last_tlb = e->vmcb->tlb_control;
    e->vmcb->event_inj = 0;
    e->vmcb->exit_int_info = 0;
    vmrun(e->vmcb);
}

/* A CPU that can all there is, so that the model stays as it is. */
static struct cpuid_regs all(void *arg, uint32_t leaf, uint32_t subleaf) {
    return (struct cpuid_regs){leaf == 1 ? ~0u : 0xffffffff, ~0u, ~0u, ~0u};
}

static const struct svm_host host = {.enter = enter,
                                     .alloc = svmhost_alloc,
                                     .free = svmhost_free,
                                     .phys = svmhost_phys,
                                     .virt = svmhost_virt,
                                     .cpuid = all};

static int ack(void *arg) {
    acked++;
    vcpu_clear(g.v, VCPU_EVENT_IRQ);
    return 0x51;
}

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    vec_park(v);
    if (!e->write)
        e->data = 0x11223344;
}

static uint64_t no_tsc(void *arg) {
    return 0;
}

static const struct vcpu_hooks hooks = {
    .exit = on_exit_hook, .irq_ack = ack, .tsc = no_tsc};

static enum svm_exits exits; /* of the next one */

static int setup_as(bool shadow, enum mmu_policy policy) {
    const struct guest_config cfg = {.hooks = &hooks, .interp = true, .policy = policy};
    char why[128];

    guest_new(&g, &cfg);
    assert_int_equal(svm_new(g.v, g.ip, &host,
                             &(struct svm_options){.shadow = shadow, .exits = exits}, &s,
                             why, sizeof(why)),
                     0);
    s->has_xcr0 = false;
    g.v->seg[SEG_CS].base = 0;
    g.v->rip = CODE;
    entries = acked = 0;
    return 0;
}

static int setup(void **state) {
    return setup_as(false, MMU_FLUSH);
}

static int setup_shadow(void **state) {
    return setup_as(true, MMU_FLUSH);
}

static int setup_trace(void **state) {
    return setup_as(true, MMU_TRACE);
}

static int setup_pcid(void **state) {
    return setup_as(true, MMU_PCID);
}

static int teardown(void **state) {
    svm_free(s);
    guest_free(&g);
    return 0;
}

/* --- the state's way --- */

static void test_state_comes_back(void **state) {
    static struct x86_vmcb b;
    struct vcpu *v = g.v;
    struct segment cs = {0x33, 0xa0fb, 0xffffffff, 0};

    guest_start_long(v, 0x2000, 0x3000, 0x4000);
    v->seg[SEG_CS] = cs;
    v->seg[SEG_SS].ar |= X86_AR_DPL;
    v->cpl = 3;
    v->gpr[REG_RSP] = 0x1234567890;
    v->rflags = 0x10246;
    v->lstar = ~0ull;
    v->irq_shadow = true;
    svm_state_get(v, &b);
    assert_int_equal(b.cs.attrib, 0xafb);
    assert_true(b.efer & X86_EFER_SVME);
    memset(v->seg, 0, sizeof(v->seg));
    v->cr0 = v->cr3 = v->efer = v->gpr[REG_RSP] = v->lstar = 0;
    v->irq_shadow = false;
    svm_state_set(v, &b);
    assert_memory_equal(&v->seg[SEG_CS], &cs, sizeof(cs));
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->mode, MODE_64);
    assert_int_equal(v->gpr[REG_RSP], 0x1234567890);
    assert_int_equal(v->cr3, 0x2000);
    assert_int_equal(v->lstar, ~0ull);
    assert_false(v->efer & X86_EFER_SVME);
    assert_true(v->irq_shadow);
}

static bool msr_leaves(unsigned first_bit) {
    unsigned bits = s->msrpm[first_bit / 8] >> first_bit % 8 & 3;

    assert_true(bits == 0 || bits == 3);
    return bits;
}

static void test_permissions(void **state) {
    for (unsigned n = 0; n < X86_SVM_IOPM_SIZE; n++)
        assert_int_equal(s->iopm[n], 0xff);
    assert_false(msr_leaves((X86_MSR_LSTAR - 0xc0000000) * 2 + 0x4000));
    assert_false(msr_leaves((X86_MSR_KERNEL_GS_BASE - 0xc0000000) * 2 + 0x4000));
    assert_false(msr_leaves(X86_MSR_SYSENTER_EIP * 2));
    assert_true(msr_leaves((X86_MSR_EFER - 0xc0000000) * 2 + 0x4000));
    assert_true(msr_leaves((X86_MSR_VM_HSAVE_PA - 0xc0010000) * 2 + 0x8000));
    assert_true(msr_leaves(X86_MSR_TSC * 2));
    assert_true(msr_leaves(X86_MSR_APIC_BASE * 2));
}

/* Ports of a device of the host's, and no others, whatever boundary they lie on. */
static void test_ports(void **state) {
    static const struct {
        uint16_t first;
        unsigned count;
    } some[] = {{0x2f8, 8}, {0xc007, 3}, {0, 1}, {0xfffe, 2}, {0x1000, 256}};

    for (unsigned k = 0; k < ARRAY_SIZE(some); k++) {
        svm_ports(s, some[k].first, some[k].count, true);
        for (unsigned port = 0; port < X86_SVM_IOPM_SIZE * 8; port++) {
            bool open = port >= some[k].first && port < some[k].first + some[k].count;

            assert_int_equal(s->iopm[port / 8] >> port % 8 & 1, !open);
        }
        svm_ports(s, some[k].first, some[k].count, false);
    }
    test_permissions(state);
}

static void exit_by_interrupt(struct x86_vmcb *b);
static void run_once(void);

/* With pure virtualization nothing of the system's is the guest's to read or write. */
static int setup_pure(void **state) {
    exits = SVM_EXITS_PURE;
    setup_as(false, MMU_FLUSH);
    exits = SVM_EXITS_MINIMAL;
    return 0;
}

static void test_pure(void **state) {
    for (unsigned n = 0; n < X86_SVM_MSRPM_SIZE; n++)
        assert_int_equal(s->msrpm[n], 0xff);
    assert_int_equal(s->vmcb->cr_read & 0x11d, 0x11d);
    assert_int_equal(s->vmcb->cr_write & 0x11d, 0x11d);
    assert_true(s->vmcb->intercept3 & X86_SVM_I_RDTSC);
    assert_true(s->vmcb->intercept3 & X86_SVM_I_GDTR_READ);
    assert_true(s->vmcb->intercept3 & X86_SVM_I_INVLPG);
    vmrun = exit_by_interrupt;
    run_once();
    assert_true(last_i3 & X86_SVM_I_IRET); /* whether an NMI is handled or not */
}

/* --- nested page tables --- */

/* The entry that maps AT, or 0. */
static uint64_t walk(uint64_t at) {
    const uint64_t *table = s->npt;

    for (unsigned l = 3;; l--) {
        uint64_t e = table[at >> (12 + 9 * l) & 511];

        if (!(e & X86_PTE_P) || l == 0 || (e & X86_PTE_PS))
            return e;
        table = (const uint64_t *)(uintptr_t)(e & 0x000ffffffffff000ull);
    }
}

static void check_map(void) {
    for (uint64_t at = 0; at < 8ull << 20; at += 4096) {
        const uint8_t *p = mem_host(g.v->mem, gpa(at), 1);
        uint64_t e = walk(at);

        assert_int_equal(!!p, e & X86_PTE_P);
        if (!p)
            continue;
        assert_true(e & X86_PTE_U);
        assert_int_equal(!!(e & X86_PTE_W), mem_kind_at(g.v->mem, gpa(at)) == MEM_RAM);
        assert_ptr_equal(e & X86_PTE_PS ? (e & 0xfffffffe00000) + (at & 0x1fffff)
                                        : e & 0xffffffffff000,
                         p);
    }
}

static void test_nested_tables_are_the_map(void **state) {
    struct mem_region *r;

    assert_int_equal(svm_npt_make(s), 0);
    check_map();
    assert_true(walk(2 << 20) & X86_PTE_PS);
    assert_int_equal(mem_set_kind(g.v->mem, gpa(0xf0000), 0x10000, MEM_ROM), 0);
    assert_int_equal(mem_set_kind(g.v->mem, gpa(0xa0000), 0x20000, MEM_NONE), 0);
    assert_int_equal(mem_region_add(g.v->mem, gpa(5 << 20), 0x3000, MEM_RAM, &r), 0);
    svm_map_changed(s);
    assert_null(s->npt);
    assert_int_equal(svm_npt_make(s), 0);
    check_map();
    mem_region_remove(g.v->mem, r);
}

/* --- around an entry --- */

static void exit_by_interrupt(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_INTR;
    vcpu_raise(g.v, VCPU_EVENT_KICK);
}

static void run_once(void) {
    vcpu_clear(g.v, VCPU_EVENT_KICK);
    assert_int_equal(svm_run(s), EXIT_kick);
}

static void test_interrupt_is_injected(void **state) {
    vmrun = exit_by_interrupt;
    g.v->rflags |= X86_FL_IF;
    vcpu_raise(g.v, VCPU_EVENT_IRQ);
    run_once();
    assert_int_equal(last_event, X86_SVM_EVENT_VALID | 0x51);
    assert_false(last_ctl & X86_SVM_V_IRQ);
    run_once();
    assert_int_equal(last_event, 0);
    assert_int_equal(acked, 1);
}

static void test_interrupt_waits_for_a_window(void **state) {
    vmrun = exit_by_interrupt;
    vcpu_raise(g.v, VCPU_EVENT_IRQ);
    run_once();
    assert_int_equal(last_event, 0);
    assert_int_equal(acked, 0);
    assert_true(last_ctl & X86_SVM_V_IRQ);
    assert_true(last_ctl & X86_SVM_V_INTR_MASKING);
    assert_true(last_i3 & X86_SVM_I_VINTR);
    s->vmcb->rflags |= X86_FL_IF;
    s->vmcb->int_state = X86_SVM_SHADOW; /* behind STI */
    run_once();
    assert_int_equal(acked, 0);
    s->vmcb->int_state = 0;
    run_once();
    assert_int_equal(acked, 1);
    assert_false(last_i3 & X86_SVM_I_VINTR);
}

static void test_nmi_is_blocked_until_iret(void **state) {
    vmrun = exit_by_interrupt;
    vcpu_raise(g.v, VCPU_EVENT_NMI);
    run_once();
    assert_int_equal(last_event, X86_SVM_EVENT_VALID | X86_SVM_EVENT_NMI | 2);
    assert_true(last_i3 & X86_SVM_I_IRET);
    vcpu_raise(g.v, VCPU_EVENT_NMI);
    run_once();
    assert_int_equal(last_event, 0);
}

/* What was being delivered is delivered by the next entry; INT n is executed again. */
static void amid_interrupt(struct x86_vmcb *b) {
    exit_by_interrupt(b);
    b->exit_int_info = X86_SVM_EVENT_VALID | X86_SVM_EVENT_INTR | 0x77;
}

static void amid_int_n(struct x86_vmcb *b) {
    exit_by_interrupt(b);
    b->exit_int_info = X86_SVM_EVENT_VALID | X86_SVM_EVENT_SOFTWARE | 0x80;
}

static void test_event_is_injected_again(void **state) {
    vmrun = amid_interrupt;
    run_once();
    vmrun = amid_int_n;
    run_once();
    assert_int_equal(last_event, X86_SVM_EVENT_VALID | X86_SVM_EVENT_INTR | 0x77);
    vmrun = exit_by_interrupt;
    run_once();
    assert_int_equal(last_event, 0);
}

static void port_in(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_IOIO;
    b->exit_info1 = 0x71u << 16 | 1 << X86_SVM_IO_SIZE_SHIFT | X86_SVM_IO_IN;
    b->exit_info2 = b->rip + 2;
    b->rax = 0xaabbccdd;
    vcpu_raise(g.v, VCPU_EVENT_KICK);
}

static void test_port_needs_the_control_block_alone(void **state) {
    vmrun = port_in;
    run_once();
    assert_int_equal(s->vmcb->rax, 0xaabbcc44);
    assert_int_equal(s->vmcb->rip, CODE + 2);
    assert_true(s->loaded);
    assert_int_equal(s->cnt.emulated, 0);
}

/* Who walks with nested paging may mark PAE's pointers as accessed, and a CPU that turns
 * paging on with another's tables must not fault for it. They stay as they are. */
static void test_accessed_pdptrs(void **state) {
    static const uint8_t mov_cr0[] = {0x0f, 0x22, 0xc0};
    uint64_t pointer = 0x4000 | X86_PTE_P | X86_PTE_A;

    for (unsigned n = 0; n < 4; n++)
        guest_put64(&g, 0x3000 + 8 * n, pointer);
    guest_write(&g, CODE, mov_cr0, sizeof(mov_cr0));
    g.v->cr3 = 0x3000;
    g.v->cr4 = X86_CR4_PAE;
    g.v->gpr[REG_RAX] = X86_CR0_PG | X86_CR0_PE;
    svm_step(s);
    assert_int_equal(!!(g.v->cr0 & X86_CR0_PG), !s->shadow);
    assert_int_equal(guest_get(&g, 0x3018, 8), pointer);
}

/* CPUID and the local APIC's registers are done without the interpreter, as long as they
 * are plain: the length is known by the bytes, or by what the hardware says. */
static void cpuid_exit(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_CPUID;
    b->next_rip = b->rip + 2;
    vmrun = exit_by_interrupt;
}

static void wrmsr_exit(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_MSR;
    b->exit_info1 = 1;
    b->next_rip = b->rip + 2;
    vmrun = exit_by_interrupt;
}

/* How often the interpreter was asked for what is at CODE. */
static uint64_t asked(const uint8_t *code, unsigned len, void (*left)(struct x86_vmcb *b),
                      uint64_t rcx) {
    uint64_t before = s->cnt.emulated;

    guest_write(&g, CODE, code, len);
    svm_sync(s);
    g.v->rip = CODE;
    vmrun = exit_by_interrupt;
    run_once(); /* the control block has the state */
    g.v->gpr[REG_RCX] = rcx;
    vmrun = left;
    run_once();
    return s->cnt.emulated - before;
}

static void test_shortcuts(void **state) {
    static const uint8_t cpuid[] = {0x0f, 0xa2, 0x90}, prefixed[] = {0x66, 0x0f, 0xa2};
    static const uint8_t wrmsr[] = {0x0f, 0x30};

    s->features &= ~(uint32_t)X86_SVM_NRIPS;
    assert_int_equal(asked(cpuid, 3, cpuid_exit, 0), 0);
    assert_int_equal(s->vmcb->rip, CODE + 2);
    assert_int_equal((uint32_t)s->vmcb->rax, cpuid_query(g.v, 0, 0).eax);
    assert_int_equal(g.v->gpr[REG_RBX], cpuid_query(g.v, 0, 0).ebx);
    assert_int_equal(asked(prefixed, 3, cpuid_exit, 0), 1);
    svm_sync(s);
    assert_int_equal(g.v->rip, CODE + 3);
    s->features |= X86_SVM_NRIPS;
    assert_int_equal(asked(cpuid, 2, cpuid_exit, 0), 0);
    assert_int_equal(asked(wrmsr, 2, wrmsr_exit, X86_MSR_TSC_DEADLINE), 0);
    assert_int_equal(asked(wrmsr, 2, wrmsr_exit, X86_MSR_LSTAR), 1);
    svm_sync(s);
    g.v->rflags |= X86_FL_TF;
    assert_int_equal(asked(cpuid, 2, cpuid_exit, 0), 1);
}

/* The guest has no SVM: its instructions raise #UD, in real mode through the vector
 * table. */
static void svm_instruction(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_VMMCALL - 1; /* VMRUN */
    vmrun = exit_by_interrupt;
}

static void test_svm_instructions_are_undefined(void **state) {
    static const uint8_t last[] = {0xd8, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf};

    guest_put32(&g, 4 * X86_UD, 0x00005000);
    for (unsigned n = 0; n < sizeof(last); n++) {
        uint8_t code[] = {0x0f, 0x01, last[n]};

        guest_write(&g, CODE, code, sizeof(code));
        svm_sync(s);
        g.v->rip = CODE;
        g.v->gpr[REG_RSP] = 0x8000;
        vmrun = svm_instruction;
        run_once();
        svm_sync(s);
        assert_int_equal(g.v->rip, 0x5000);
        assert_int_equal(guest_get(&g, 0x7ffa, 2), CODE);
    }
}

/* The guest's stores are not seen by traces: what was decoded before is not used. */
static void test_what_was_decoded_is_forgotten(void **state) {
    static const uint8_t one[] = {0xb0, 1}, two[] = {0xb0, 2}; /* mov al, n */

    vmrun = svm_instruction;
    guest_write(&g, CODE, one, 2);
    run_once();
    svm_sync(s);
    assert_int_equal(g.v->gpr[REG_RAX] & 0xff, 1);
    g.v->rip = CODE;
    run_once(); /* the control block has the state, as after any run */
    memcpy(mem_host(g.v->mem, gpa(CODE), 2), two, 2);
    vmrun = svm_instruction;
    run_once();
    svm_sync(s);
    assert_int_equal(g.v->gpr[REG_RAX] & 0xff, 2);
}

static void refuse(struct x86_vmcb *b) {
    b->exit_code = UINT64_MAX;
}

static void go_down(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_SHUTDOWN;
}

static void test_ends(void **state) {
    vmrun = go_down;
    assert_int_equal(svm_run(s), EXIT_shutdown);
    vmrun = refuse;
    assert_int_equal(svm_run(s), EXIT_error);
}

/* --- shadow paging --- */

static uint64_t fault_at;
static uint32_t fault_error;

static void page_fault(struct x86_vmcb *b) {
    b->exit_code = X86_SVM_EXIT_EXCEPTION + X86_PF;
    b->exit_info1 = fault_error;
    b->exit_info2 = fault_at;
    vcpu_raise(g.v, VCPU_EVENT_KICK);
}

static void fault(uint64_t at, uint32_t error) {
    vmrun = page_fault;
    fault_at = at;
    fault_error = error;
    run_once();
}

/* What the hardware would find for AT. */
static uint64_t shadow_entry(uint64_t at) {
    const struct svm_root *r = &s->root[s->current];
    const uint64_t *table = r->table;

    for (unsigned l = 3; table && l; l--) {
        uint64_t e = table[at >> (12 + 9 * l) & 511];

        table = e & X86_PTE_P ? svmhost_virt(NULL, e & 0x000ffffffffff000ull) : NULL;
    }
    return table ? table[at >> 12 & 511] : 0;
}

/* Page tables at 0x10000: 0x200000 is mapped read-only, 0x201000 writable, both a
 * user's; 0x202000 is absent. */
static void start_paged(void) {
    guest_put64(&g, 0x10000, 0x11007);
    guest_put64(&g, 0x11000, 0x12007);
    guest_put64(&g, 0x12008, 0x13007);
    guest_put64(&g, 0x13000, 0x20005);
    guest_put64(&g, 0x13008, 0x21007);
    guest_start_long(g.v, 0x10000, 0x3000, 0x4000);
}

static void test_shadow_has_what_was_asked_for(void **state) {
    uint8_t *ram = mem_ram_base(g.v->mem);
    uint64_t e;

    start_paged();
    fault(0x200123, 0);
    e = shadow_entry(0x200000);
    assert_int_equal(e & 0xffffffffff000, (uintptr_t)ram + 0x20000);
    assert_false(e & (X86_PTE_W | X86_PTE_U));
    assert_true(e & X86_PTE_NX);
    assert_int_equal(shadow_entry(0x201000), 0);
    fault(0x201ff8, X86_PF_W);
    assert_true(shadow_entry(0x201000) & X86_PTE_W);
    assert_int_equal(guest_get(&g, 0x13008, 8), 0x21067); /* A and D */
    assert_int_equal(guest_get(&g, 0x13000, 8), 0x20025); /* A */
    assert_int_equal(s->cnt.hidden_faults, 2);
    assert_true(s->vmcb->cr0 & X86_CR0_WP);
    assert_int_equal(s->vmcb->cr3, (uintptr_t)s->root[s->current].table);
}

static void test_true_faults_are_injected(void **state) {
    start_paged();
    fault(0x202010, X86_PF_W);
    run_once();
    assert_int_equal(last_event, X86_SVM_EVENT_VALID | X86_SVM_EVENT_EXCEPTION |
                                     X86_SVM_EVENT_HAS_ERROR | X86_PF |
                                     (uint64_t)X86_PF_W << 32);
    assert_int_equal(s->vmcb->cr2, 0x202010);
    fault(0x200000, X86_PF_W | X86_PF_P);
    assert_int_equal(s->event >> 32, X86_PF_W | X86_PF_P);
}

static void test_what_is_dropped_is_flushed(void **state) {
    start_paged();
    fault(0x201000, X86_PF_W);
    fault(0x200000, 0);
    vmrun = exit_by_interrupt;
    run_once();
    run_once();
    assert_int_equal(last_tlb, 0);
    mmu_invlpg(g.v, gva(0x201000));
    assert_int_equal(shadow_entry(0x201000), 0);
    assert_int_not_equal(shadow_entry(0x200000), 0);
    run_once();
    assert_int_equal(last_tlb, X86_SVM_TLB_FLUSH_ASID);
    mmu_cr3_loaded(g.v, g.v->cr3);
    assert_int_equal(shadow_entry(0x200000), 0);
}

/* The user's space is flushed whole, the supervisor's but for what is global: all are in
 * one root. */
static void test_global_pages_stay(void **state) {
    start_paged();
    guest_put64(&g, 0x13000, 0x20101);
    g.v->cr4 |= X86_CR4_PGE;
    mmu_mode_changed(g.v);
    fault(0x200000, 0);
    s->vmcb->cpl = 3;
    fault(0x201000, X86_PF_W | X86_PF_U);
    assert_true(shadow_entry(0x201000) & X86_PTE_U);
    mmu_cr3_loaded(g.v, g.v->cr3);
    assert_int_not_equal(shadow_entry(0x200000), 0);
    assert_int_equal(shadow_entry(0x201000), 0);
    fault(0x201000, X86_PF_W | X86_PF_U);
    assert_true(shadow_entry(0x201000) & X86_PTE_U);
    mmu_mode_changed(g.v);
    assert_int_equal(shadow_entry(0x200000), 0);
}

static void load_cr3(uint64_t cr3) {
    svm_sync(s);
    g.v->cr3 = cr3;
    mmu_cr3_loaded(g.v, cr3);
    vmrun = exit_by_interrupt;
    run_once();
}

/* Two address spaces by turns: which ASIDs they have, and whether an entry flushes. */
static void test_asids(void **state) {
    start_paged();
    guest_put64(&g, 0x14000, 0x11007);
    load_cr3(0x10000);
    load_cr3(0x14000);
    load_cr3(0x10000);
    assert_int_equal(last_tlb, 0);
    load_cr3(0x14000);
    assert_int_equal(last_tlb, 0);
    assert_int_not_equal(s->vmcb->asid, 1);
    s->asids = 1;
    load_cr3(0x10000);
    load_cr3(0x14000);
    assert_int_equal(s->vmcb->asid, 1);
    assert_int_equal(last_tlb, X86_SVM_TLB_FLUSH_ASID);
    load_cr3(0x14000);
    assert_int_equal(last_tlb, 0);
    load_cr3(0x10000);
    assert_int_equal(last_tlb, X86_SVM_TLB_FLUSH_ASID);
}

/* A page with a trace loses its right to be written, so that the store is seen. */
static void test_traced_pages_are_not_written(void **state) {
    start_paged();
    fault(0x201000, X86_PF_W);
    assert_true(shadow_entry(0x201000) & X86_PTE_W);
    mem_trace_add(g.v->mem, mem_ram_base(g.v->mem) + 0x21000, MEM_TRACE_DIRTY);
    assert_false(shadow_entry(0x201000) & X86_PTE_W);
    mem_trace_remove(g.v->mem, mem_ram_base(g.v->mem) + 0x21000, MEM_TRACE_DIRTY);
}

/* --- what the CPU lacks --- */

static struct cpuid_regs features_of(void *arg, uint32_t leaf, uint32_t subleaf) {
    return (struct cpuid_regs){.ebx = leaf == X86_SVM_LEAF ? 16 : 0,
                               .edx = *(const uint32_t *)arg};
}

static void test_lacks(void **state) {
    uint32_t features = ~0u;
    const struct svm_host h = {.cpuid = features_of, .arg = &features};
    char text[512], little[24];

    svm_lacks(&h, text, sizeof(text));
    assert_string_equal(text, "SVM, 16 ASIDs");
    features &= ~(X86_SVM_FLUSH_BY_ASID | X86_SVM_DECODE_ASSISTS);
    svm_lacks(&h, text, sizeof(text));
    assert_string_equal(text, "SVM, 16 ASIDs; the CPU lacks flush by ASID (each flush "
                              "takes the translations of all guests), decode assists "
                              "(not used)");
    svm_lacks(&h, little, sizeof(little));
    assert_string_equal(little, "SVM, 16 ASIDs; the CPU ");
    features = 0;
    svm_lacks(&h, text, sizeof(text));
    assert_non_null(strstr(text, "lacks nested paging (page tables are shadowed)"));
    assert_non_null(strstr(text, "PAUSE filter ("));
    assert_non_null(strstr(text, ", NRIP save (not used), decode assists (not used), an "
                                 "invariant TSC (guests' time may drift"));
}

int main(void) {
#define NESTED(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SHADOW(name) cmocka_unit_test_setup_teardown(name, setup_shadow, teardown)
    const struct CMUnitTest tests[] = {
        NESTED(test_state_comes_back),
        NESTED(test_permissions),
        NESTED(test_ports),
        cmocka_unit_test_setup_teardown(test_pure, setup_pure, teardown),
        NESTED(test_nested_tables_are_the_map),
        NESTED(test_accessed_pdptrs),
        SHADOW(test_accessed_pdptrs),
        NESTED(test_interrupt_is_injected),
        NESTED(test_interrupt_waits_for_a_window),
        NESTED(test_nmi_is_blocked_until_iret),
        NESTED(test_event_is_injected_again),
        NESTED(test_port_needs_the_control_block_alone),
        NESTED(test_shortcuts),
        SHADOW(test_shortcuts),
        NESTED(test_svm_instructions_are_undefined),
        NESTED(test_what_was_decoded_is_forgotten),
        NESTED(test_ends),
        SHADOW(test_shadow_has_what_was_asked_for),
        SHADOW(test_true_faults_are_injected),
        SHADOW(test_what_is_dropped_is_flushed),
        cmocka_unit_test_setup_teardown(test_global_pages_stay, setup_pcid, teardown),
        cmocka_unit_test_setup_teardown(test_asids, setup_trace, teardown),
        cmocka_unit_test(test_lacks),
        SHADOW(test_traced_pages_are_not_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
