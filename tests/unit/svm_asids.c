/*
 * ASIDs: several guests take turns on each of two CPUs with SVM that are models
 * (lib/svmcpu.h), whose TLBs forget nothing on their own. All use the same addresses and
 * tell what they read there. Both CPUs give the same ASIDs out, which must not matter;
 * where a CPU has too few, guests share one and must not meet in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/vec.h"
#include "lib/guest.h"
#include "lib/svmcpu.h"
#include "lib/svmhost.h"
#include "svm/svm_int.h"
#include "x86/pte.h"

#define CPUS 2u
#define GUESTS 6u /* by turns on both */
#define CODE 0x8000u
#define SPACE(n) (0x40000u + 0x8000u * (n)) /* PML4, PDPT, PD, and two page tables */
#define FRAMES 0x100000u
#define PAGES 8u
#define TABLE(n) (SPACE(n) + 0x4000u) /* of the pages from OWN on */
#define OWN 0x400000u
#define TELL 0xe4
#define LOG_MAX 1024u

/* Reads all pages, maps the first one to the next frame, goes to the other space. RSI,
 * RDI: this one and that; R8, R9: the first page's entries in them. */
__asm__(".pushsection .rodata\n"
        "asids_begin:\n"
        "round:  mov $0x400000, %ebx\n"
        "page:   mov (%rbx), %rax\n"
        "        out %eax, $0xe4\n"
        "        add $0x1000, %rbx\n"
        "        cmp $0x408000, %ebx\n"
        "        jne page\n"
        "        mov (%r8), %rax\n"
        "        add $0x1000, %rax\n"
        "        and $~0x8000, %rax\n"
        "        mov %rax, (%r8)\n"
        "        invlpg 0x400000\n"
        "        mov %rdi, %cr3\n"
        "        mov %rsi, %rax\n  mov %rdi, %rsi\n  mov %rax, %rdi\n"
        "        mov %r8, %rax\n  mov %r9, %r8\n  mov %rax, %r9\n"
        "        jmp round\n"
        "asids_end:\n"
        ".popsection\n");
extern const uint8_t asids_begin[], asids_end[];

enum spoil { NOTHING, SAME_FOR_ALL, LENT_AS_OWN };

static struct side {
    struct guest g; /* the first: hooks have it as their argument */
    struct svm *svm;
    unsigned told;
    uint32_t log[LOG_MAX];
} side[GUESTS], right;

static struct host_cpu {
    struct svmcpu cpu;
    struct svm_host host;
    unsigned last; /* of its ASIDs that was given */
    unsigned entries;
    struct side *runs;
} hosts[CPUS];

static enum spoil spoilt;

/* --- the hosts' CPUs --- */

static void enter(void *arg, struct svm_entry *e) {
    struct host_cpu *h = arg;
    struct vcpu *v = h->runs->g.v;

    vec_park(v);
    svmcpu_run(&h->cpu, e->vmcb, e->gpr);
    if (h->cpu.trouble || ++h->entries % 5 == 0)
        vcpu_raise(v, VCPU_EVENT_KICK); /* the turn is over */
}

static struct cpuid_regs leaf(void *arg, uint32_t leaf, uint32_t subleaf) {
    const struct svmcpu *c = &((struct host_cpu *)arg)->cpu;

    if (leaf == X86_SVM_LEAF)
        return (struct cpuid_regs){.ebx = c->asids, .edx = c->features};
    return (struct cpuid_regs){~0u, ~0u, ~0u, ~0u};
}

static unsigned asids(void *arg, unsigned count, unsigned wanted, unsigned *first) {
    struct host_cpu *h = arg;

    if (spoilt == SAME_FOR_ALL)
        h->last = 0;
    return svm_asids_give(&h->last, count, wanted, first);
}

static void start_host(struct host_cpu *h, unsigned count, bool by_asid) {
    memset(h, 0, sizeof(*h));
    h->cpu.asids = count;
    h->cpu.features = X86_SVM_NPT | (by_asid ? X86_SVM_FLUSH_BY_ASID : 0);
    h->cpu.budget = 1000000;
    h->host = (struct svm_host){.enter = enter,
                                .alloc = svmhost_alloc_kept,
                                .free = svmhost_keep,
                                .phys = svmhost_phys,
                                .virt = svmhost_virt,
                                .cpuid = leaf,
                                .asids = asids,
                                .arg = h};
}

/* --- the guests --- */

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    struct side *s = arg;

    vec_park(v);
    if (e->reason == EXIT_io && e->write && e->port == TELL && s->told < LOG_MAX)
        s->log[s->told++] = (uint32_t)e->data;
    if (s->told == LOG_MAX)
        vcpu_raise(v, VCPU_EVENT_KICK);
}

static uint64_t no_tsc(void *arg) {
    return 0;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook, .tsc = no_tsc};

static void put_space(struct guest *g, unsigned n) {
    const uint64_t all = X86_PTE_P | X86_PTE_W;

    guest_put64(g, SPACE(n), (SPACE(n) + 0x1000) | all);
    guest_put64(g, SPACE(n) + 0x1000, (SPACE(n) + 0x2000) | all);
    guest_put64(g, SPACE(n) + 0x2000, (SPACE(n) + 0x3000) | all);
    guest_put64(g, SPACE(n) + 0x2010, TABLE(n) | all);
    for (unsigned p = 0; p < 512; p++)
        guest_put64(g, SPACE(n) + 0x3000 + 8 * p, 4096 * p | all);
    for (unsigned p = 0; p < PAGES; p++)
        guest_put64(g, TABLE(n) + 8 * p, (FRAMES + 4096 * ((p + 3 * n) % PAGES)) | all);
}

/* NUMBER is what its frames have, beside their own. */
static void start_guest(struct side *s, unsigned number) {
    struct guest *g = &s->g;

    guest_write(g, CODE, asids_begin, (size_t)(asids_end - asids_begin));
    for (unsigned n = 0; n < PAGES; n++)
        guest_put64(g, FRAMES + 4096 * n, number << 8 | n);
    put_space(g, 0);
    put_space(g, 1);
    guest_start_long(g->v, SPACE(0), 0x3000, 0x4000);
    g->v->rip = CODE;
    g->v->rflags = 2;
    g->v->gpr[REG_RSI] = SPACE(0);
    g->v->gpr[REG_RDI] = SPACE(1);
    g->v->gpr[REG_R8] = TABLE(0);
    g->v->gpr[REG_R9] = TABLE(1);
    guest_state_changed(g);
}

/* H: NULL: on the interpreter. */
static void open_side(struct side *s, const struct host_cpu *h, bool shadow,
                      unsigned number) {
    const struct guest_config cfg = {
        .hooks = &hooks, .interp = true, .policy = h && shadow ? MMU_TRACE : MMU_FLUSH};
    char why[128];

    memset(s, 0, sizeof(*s));
    guest_new(&s->g, &cfg);
    if (h) {
        assert_int_equal(svm_new(s->g.v, s->g.ip, &h->host,
                                 &(struct svm_options){.shadow = shadow}, &s->svm, why,
                                 sizeof(why)),
                         0);
        s->svm->has_xcr0 = false;
        s->svm->asids_lent = s->svm->asids_lent && spoilt != LENT_AS_OWN;
    }
    start_guest(s, number);
    if (h)
        svm_reset(s->svm);
}

static void close_side(struct side *s) {
    svm_free(s->svm);
    guest_free(&s->g);
}

static bool tells_its_own(const struct side *s, unsigned number) {
    bool same;

    open_side(&right, NULL, false, number);
    interp_flush(right.g.ip);
    assert_int_equal(interp_run(right.g.ip), EXIT_kick);
    assert_int_equal(right.told, LOG_MAX);
    same = s->told == LOG_MAX && !memcmp(s->log, right.log, sizeof(right.log));
    close_side(&right);
    return same;
}

/* --- runs --- */

static void take_turns(void) {
    for (unsigned over = 0, n = 0; over < GUESTS; n = (n + 1) % GUESTS) {
        struct host_cpu *h = &hosts[n % CPUS];

        over = side[n].told == LOG_MAX || h->cpu.trouble ? over + 1 : 0;
        if (over)
            continue;
        h->runs = &side[n];
        assert_int_equal(svm_run(side[n].svm), EXIT_kick);
        vcpu_clear(side[n].g.v, VCPU_EVENT_KICK);
    }
}

/* With nested paging only sharing an ASID makes it flush, but for the first entry. */
static void check_flushes(const struct svm *s) {
    assert_in_range(s->cnt.tlb_flushes, s->asids_lent ? 100 : 1,
                    s->asids_lent ? s->cnt.entries : 1);
}

/* How many of the guests were right. OWN: those with ASIDs of their own, on each CPU. */
static unsigned right_ones(bool shadow, unsigned count, bool by_asid, unsigned *own) {
    unsigned good = 0;

    *own = 0;
    for (unsigned n = 0; n < CPUS; n++)
        start_host(&hosts[n], count, by_asid);
    for (unsigned n = 0; n < GUESTS; n++)
        open_side(&side[n], &hosts[n % CPUS], shadow, n + 1);
    take_turns();
    for (unsigned n = 0; n < GUESTS; n++) {
        assert_in_range(side[n].svm->asid, 1, count - 1);
        assert_int_equal(side[n].svm->asid, side[n - n % CPUS].svm->asid);
        if (!shadow && spoilt == NOTHING)
            check_flushes(side[n].svm);
        *own += !side[n].svm->asids_lent && n % CPUS == 0;
        good += tells_its_own(&side[n], n + 1);
    }
    for (unsigned n = 0; n < GUESTS; n++)
        close_side(&side[n]);
    svmhost_end();
    return good;
}

static void all_right(bool shadow, unsigned count, unsigned want_own) {
    unsigned own;

    spoilt = NOTHING;
    for (unsigned by_asid = 0; by_asid < 2; by_asid++) {
        assert_int_equal(right_ones(shadow, count, by_asid, &own), GUESTS);
        assert_int_equal(own, want_own);
    }
}

/* Three guests on each CPU: enough, one that has to share the last, two of them, all. */
static void test_nested(void **state) {
    all_right(false, 16, 3);
    all_right(false, 4, 2);
    all_right(false, 3, 1);
    all_right(false, 2, 0);
}

/* Each wants four. */
static void test_shadow(void **state) {
    all_right(true, 16, 3);
    all_right(true, 12, 3);
    all_right(true, 8, 2);
    all_right(true, 2, 0);
}

static void test_what_is_spoilt_is_found(void **state) {
    for (unsigned shadow = 0; shadow < 2; shadow++) {
        unsigned own;

        spoilt = SAME_FOR_ALL;
        assert_in_range(right_ones(shadow, 16, true, &own), 0, GUESTS - 1);
        spoilt = LENT_AS_OWN;
        assert_in_range(right_ones(shadow, 2, true, &own), 0, GUESTS - 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_shadow),
        cmocka_unit_test(test_what_is_spoilt_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
