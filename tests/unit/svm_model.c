/*
 * The engine that owns its control block, on a CPU with SVM that is a model
 * (lib/svmcpu.h): its TLB forgets nothing on its own. A guest works off a list of
 * operations, most of them on its page tables, and tells what it has read and which
 * faults it got; the interpreter, which has no TLB of that kind, says what is right.
 *
 * The tests' own test: what the engine does is spoilt on its way to the CPU (enum spoil),
 * as if it had left a flush out, or forgotten an event. Each of these must be found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/vec.h"
#include "lib/guest.h"
#include "lib/rnd.h"
#include "lib/svmcpu.h"
#include "lib/svmhost.h"
#include "sem/sem.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

#define GDT 0x3000u
#define IDT 0x4000u
#define TSS 0x5000u
#define CODE 0x8000u
#define STACK_TOP 0xc000u
#define LIST 0x20000u /* operations of 32 bytes */
#define LIST_MAX 4000u
#define SPACE(n) (0x40000u + 0x8000u * (n)) /* PML4, PDPT, PD, and three page tables */
#define LOW_TABLE 0x60000u                  /* one to one */
#define SHARED_TABLE 0x61000u
#define FRAMES 0x100000u
#define FRAME_COUNT 32u

#define OWN_PAGES 0x400000u /* each space has its own, of either of two tables */
#define SHARED_PAGES 0x600000u
#define PAGES 12u

#define PORT_END 0xe0
#define PORT_ROM 0xe2
#define PORT_AMID 0xe7   /* read in a section without interrupts */
#define PORT_BEHIND 0xe5 /* written when one may have come */

enum act {
    DO_END,
    DO_STORE,
    DO_LOAD,
    DO_USER_STORE,
    DO_USER_LOAD,
    DO_CALL,
    DO_INVLPG,
    DO_CR3,
    DO_CR4,
    DO_CR0,
    DO_CPUID,
    DO_INT,
    DO_IN,
    DO_LSTAR,
    DO_ROM,
    DO_SECTION,
    DO_HLT,
    DO_PAUSE,
};

/* The guest. RSI: the next operation; RBX, RCX: its address and value. The stack is empty
 * between two operations. */
__asm__(".pushsection .rodata\n"
        "guest_begin:\n"
        "next:   mov $0xc000, %esp\n"
        "        mov (%rsi), %rax\n"
        "        mov 8(%rsi), %rbx\n"
        "        mov 16(%rsi), %rcx\n"
        "        add $32, %rsi\n"
        "        cmp $1, %eax\n  je store\n"
        "        cmp $2, %eax\n  je load\n"
        "        cmp $3, %eax\n  lea user_store(%rip), %rdx\n  je user\n"
        "        cmp $4, %eax\n  lea user_load(%rip), %rdx\n  je user\n"
        "        cmp $5, %eax\n  je call_it\n"
        "        cmp $6, %eax\n  je invlpg_it\n"
        "        cmp $7, %eax\n  je cr3_it\n"
        "        cmp $8, %eax\n  je cr4_it\n"
        "        cmp $9, %eax\n  je cr0_it\n"
        "        cmp $10, %eax\n je cpuid_it\n"
        "        cmp $11, %eax\n je int_it\n"
        "        cmp $12, %eax\n je in_it\n"
        "        cmp $13, %eax\n je lstar_it\n"
        "        cmp $14, %eax\n je rom_it\n"
        "        cmp $15, %eax\n je section\n"
        "        cmp $16, %eax\n je hlt_it\n"
        "        cmp $17, %eax\n je pause_it\n"
        "        out %eax, $0xe0\n"
        "        jmp next\n"
        "store:  mov %rcx, (%rbx)\n"
        "        jmp next\n"
        "load:   mov (%rbx), %rax\n"
        "tell:   out %eax, $0xe4\n"
        "        jmp next\n"
        "user:   push $0x1b\n"
        "        push $0xc00\n" /* user code has no stack */
        "        push $2\n"
        "        push $0x23\n"
        "        push %rdx\n"
        "        iretq\n"
        "user_store: mov %rcx, (%rbx)\n"
        "        mov $0, %eax\n"
        "        int $0x40\n"
        "user_load: mov (%rbx), %rax\n"
        "        int $0x40\n"
        "call_it: call *%rbx\n"
        "        jmp tell\n"
        "invlpg_it: invlpg (%rbx)\n"
        "        jmp next\n"
        "cr3_it: mov %rcx, %cr3\n"
        "        jmp next\n"
        "cr4_it: mov %rcx, %cr4\n"
        "        jmp next\n"
        "cr0_it: mov %rcx, %cr0\n"
        "        jmp next\n"
        "cpuid_it: mov $0, %eax\n"
        "        cpuid\n"
        "        out %eax, $0xe4\n"
        "        mov %ecx, %eax\n"
        "        jmp tell\n"
        "int_it: mov $7, %eax\n"
        "        int $0x40\n"
        "in_it:  in $0xe6, %al\n"
        "        jmp tell\n"
        "lstar_it: mov %ecx, %eax\n"
        "        mov $0, %edx\n"
        "        mov $0xc0000082, %ecx\n"
        "        wrmsr\n"
        "        mov $0, %eax\n"
        "        rdmsr\n"
        "        jmp tell\n"
        "rom_it: mov %ecx, %eax\n"
        "        out %eax, $0xe2\n"
        "        jmp next\n"
        /* No interrupt between CLI and what follows STI. */
        "section: cli\n"
        "        movq $1, 0x6000\n"
        "        mov (%rbx), %rax\n"
        "        mov %rax, 0x6010\n"
        "        in $0xe7, %al\n"
        "        sti\n"
        "        movq $0, 0x6000\n"
        "        out %eax, $0xe5\n"
        "        jmp next\n"
        "hlt_it: sti\n"
        "        hlt\n"
        "        jmp next\n"
        "pause_it: pause\n"
        "        pause\n"
        "        pause\n"
        "        jmp next\n"
        /* Handlers. */
        "guest_int: jmp tell\n"
        "guest_pf: pop %rax\n"
        "        out %eax, $0xe8\n"
        "        mov %cr2, %rax\n"
        "        jmp tell\n"
        "guest_irq: push %rax\n"
        "        mov 0x6000, %rax\n"
        "        out %eax, $0xec\n"
        "        incq 0x6008\n"
        "        pop %rax\n"
        "        iretq\n"
        "guest_end:\n"
        ".popsection\n");
extern const uint8_t guest_begin[], guest_end[], guest_int[], guest_pf[], guest_irq[];

/* --- the machine --- */

/* What a CPU may have or not. */
#define FEATURES                                                                         \
    (X86_SVM_NRIPS | X86_SVM_FLUSH_BY_ASID | X86_SVM_DECODE_ASSISTS |                    \
     X86_SVM_PAUSE_FILTER)
#define ANY (~0u) /* another choice of these for each run */

#define LOG_MAX 16384u

enum spoil { /* what is taken away between the engine and the CPU */
             NOTHING,
             FLUSHES,
             ASIDS,
             EVENTS_AGAIN,
             WINDOWS,
             SHADOWS,        /* at #VMEXIT */
             SHADOWS_AT_RUN, /* the engine is right all the same */
};

enum way { NESTED, FLUSH, PCID, TRACE, WAYS };

struct side { /* of a comparison */
    struct guest g;
    struct svm *svm; /* NULL: the interpreter */
    unsigned told, ins;
    bool ended;
    uint64_t log[LOG_MAX];
};

static struct side real, right;
static struct svmcpu cpu;
static enum spoil spoilt;
static unsigned taken, raise_every, late;
static uint64_t next_raise; /* of the CPU's instructions */
static uint32_t features = ANY;
static uint64_t pauses,
    shortcuts; /* exits of all runs, and those without the interpreter */

/* What was written to: looked at whenever the guest's run ends, if ON, which is then
 * often by the hook of its ports. */
static struct {
    bool on;
    uint8_t *before; /* RAM as it was at the last look */
    unsigned asked, looks, missed, changed, told;
} noted;

static struct cpuid_regs leaf(void *arg, uint32_t leaf, uint32_t subleaf) {
    if (leaf == X86_SVM_LEAF)
        return (struct cpuid_regs){.ebx = cpu.asids, .edx = cpu.features};
    return (struct cpuid_regs){leaf == 1 ? ~0u : 0xffffffff, ~0u, ~0u, ~0u};
}

static void enter(void *arg, struct svm_entry *e) {
    struct x86_vmcb *b = e->vmcb;

    vec_park(real.g.v);
    if (spoilt == FLUSHES)
        b->tlb_control = 0;
    if (spoilt == ASIDS)
        b->asid = 1;
    if (spoilt == WINDOWS)
        b->int_ctl &= ~(uint64_t)X86_SVM_V_IRQ;
    if (spoilt == SHADOWS_AT_RUN)
        b->int_state = 0;
    b->pause_count = b->pause_count ? 2 : 0; /* no guest here has thousands in a row */
    svmcpu_run(&cpu, b, e->gpr);
    if (spoilt == SHADOWS)
        b->int_state = 0;
    if (spoilt == EVENTS_AGAIN)
        b->exit_int_info = 0;
    if (cpu.trouble)
        vcpu_raise(real.g.v, VCPU_EVENT_KICK);
    if (!raise_every || cpu.insns < next_raise)
        return;
    next_raise = cpu.insns + raise_every + taken % 29;
    vcpu_raise(real.g.v, VCPU_EVENT_IRQ);
}

static const struct svm_host host = {.enter = enter,
                                     .alloc = svmhost_alloc_kept,
                                     .free = svmhost_keep,
                                     .phys = svmhost_phys,
                                     .virt = svmhost_virt,
                                     .cpuid = leaf};

static int ack(void *arg) {
    taken++;
    vcpu_clear(real.g.v, VCPU_EVENT_IRQ);
    return 0x30;
}

static void tell(struct side *s, uint64_t what) {
    if (s->told < LOG_MAX)
        s->log[s->told++] = what;
}

/* A frame becomes ROM, whose stores reach nothing, or RAM again. */
static void change_kind(struct side *s, uint32_t value) {
    uint64_t at = FRAMES + (value & 0xff) * 4096;

    assert_int_equal(
        mem_set_kind(s->g.v->mem, gpa(at), 4096, value & 0x100 ? MEM_ROM : MEM_RAM), 0);
    mmu_flush_all(s->g.v);
    if (s->svm)
        svm_map_changed(s->svm);
}

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    struct side *s = arg == &real.g ? &real : &right;

    vec_park(v);
    if (e->reason != EXIT_io)
        return;
    if (noted.on && s->svm && ++noted.asked % 5 == 0)
        vcpu_raise(v, VCPU_EVENT_KICK);
    if (e->port == PORT_AMID && s->ins++ % 3 == 0)
        vcpu_raise(v, VCPU_EVENT_IRQ);
    if (e->port == PORT_BEHIND)
        late += !!(vcpu_events(v) & VCPU_EVENT_IRQ);
    if (!e->write) {
        e->data = 0x11 * ++s->ins;
        return;
    }
    if (e->port == PORT_END || s->told == LOG_MAX) {
        s->ended = true;
        vcpu_raise(v, VCPU_EVENT_KICK);
    } else if (e->port == PORT_ROM) {
        change_kind(s, (uint32_t)e->data);
    } else {
        tell(s, (uint64_t)e->port << 32 | (uint32_t)e->data);
    }
}

static uint64_t no_tsc(void *arg) {
    return 0;
}

static const struct vcpu_hooks hooks = {
    .exit = on_exit_hook, .irq_ack = ack, .tsc = no_tsc};

/* --- the guest's memory --- */

static void put_gate(struct guest *g, unsigned vector, const uint8_t *handler) {
    uint64_t at = CODE + (uint64_t)(handler - guest_begin);

    guest_put64(g, IDT + 16 * vector, at | 8 << 16 | 0xee00ull << 32);
    guest_put64(g, IDT + 16 * vector + 8, 0);
}

/* A value that can be executed, too: mov $N, %eax; ret. */
static uint64_t word(uint32_t n) {
    return 0xb8 | (uint64_t)n << 8 | 0x9090c3ull << 40;
}

static void put_tables(struct guest *g) {
    const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U;

    for (unsigned n = 0; n < 2; n++) {
        guest_put64(g, SPACE(n), (SPACE(n) + 0x1000) | all);
        guest_put64(g, SPACE(n) + 0x1000, (SPACE(n) + 0x2000) | all);
        guest_put64(g, SPACE(n) + 0x2000, LOW_TABLE | all);
        guest_put64(g, SPACE(n) + 0x2010, (SPACE(n) + 0x3000) | all);
        guest_put64(g, SPACE(n) + 0x2018, SHARED_TABLE | all);
        for (unsigned p = 0; p < PAGES; p++) {
            guest_put64(g, SPACE(n) + 0x3000 + 8 * p, (FRAMES + 4096 * (p + n)) | all);
            guest_put64(g, SPACE(n) + 0x4000 + 8 * p,
                        (FRAMES + 4096 * (p + n + 9)) | all);
        }
    }
    for (unsigned p = 0; p < 512; p++)
        guest_put64(g, LOW_TABLE + 8 * p,
                    4096 * p | X86_PTE_P | X86_PTE_W |
                        (4096 * p == CODE ? X86_PTE_U : 0));
    for (unsigned p = 0; p < PAGES; p++)
        guest_put64(g, SHARED_TABLE + 8 * p, (FRAMES + 4096 * (p + 3)) | all | X86_PTE_G);
}

static void put_guest(struct guest *g) {
    static const uint64_t gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff,
                                   0x00cff3000000ffff, 0x00affb000000ffff};

    guest_write(g, GDT, gdt, sizeof(gdt));
    guest_write(g, CODE, guest_begin, (size_t)(guest_end - guest_begin));
    guest_put64(g, TSS + 4, STACK_TOP);
    put_gate(g, X86_PF, guest_pf);
    put_gate(g, 0x30, guest_irq);
    put_gate(g, 0x40, guest_int);
    put_tables(g);
    for (unsigned n = 0; n < FRAME_COUNT; n++)
        for (unsigned at = 0; at < 4096; at += 8)
            guest_put64(g, FRAMES + 4096 * n + at, word(n << 12 | at));
}

static void start_guest(struct guest *g, bool interrupts) {
    struct vcpu *v = g->v;

    put_guest(g);
    guest_start_long(v, SPACE(0), GDT, IDT);
    v->gdtr.limit = 39;
    v->idtr.limit = 4095;
    v->tr = (struct segment){.sel = 0x28, .ar = 0x8b, .limit = 0x67, .base = TSS};
    v->cr4 |= X86_CR4_PGE;
    v->efer |= X86_EFER_NXE;
    v->rip = CODE;
    v->gpr[REG_RSI] = LIST;
    v->gpr[REG_RSP] = STACK_TOP;
    v->rflags = interrupts ? 0x202 : 2;
    guest_state_changed(g);
}

/* --- the list of operations --- */

struct item {
    uint64_t op, at, value, unused;
};

static struct item list[LIST_MAX];
static unsigned items;

static void add(enum act op, uint64_t at, uint64_t value) {
    list[items++] = (struct item){op, at, value, 0};
}

/* What the guest's tables say while the list is made. */
static struct {
    unsigned space, table[2];
    uint64_t cr4, cr0;
    bool stale[2][2]
              [PAGES]; /* a space's own page, in either table: rewritten, not flushed */
    bool shared_stale[PAGES];
} now;

static uint64_t random_entry(bool global) {
    uint64_t e = (FRAMES + 4096 * pick(FRAME_COUNT)) | (one_in(8) ? 0 : X86_PTE_P) |
                 (one_in(3) ? 0 : X86_PTE_W) | (one_in(3) ? 0 : X86_PTE_U) |
                 (one_in(4) ? X86_PTE_NX : 0);

    return e | (global ? X86_PTE_G : 0);
}

static void add_access(void) {
    static const enum act ways[] = {DO_LOAD, DO_STORE, DO_USER_LOAD, DO_USER_STORE,
                                    DO_CALL};
    enum act op = ways[pick(ARRAY_SIZE(ways))];
    unsigned page = pick(PAGES);
    bool shared = one_in(3);
    uint64_t at = (shared ? SHARED_PAGES : OWN_PAGES) + 4096 * page + 8 * pick(4);

    if (shared ? now.shared_stale[page]
               : now.stale[now.space][now.table[now.space]][page])
        return;
    add(op, at, word(pick(1 << 20)));
}

static void add_remap(void) {
    unsigned space = pick(2), table = pick(2), page = pick(PAGES);
    bool seen = space == now.space && table == now.table[space];

    add(DO_STORE, SPACE(space) + 0x3000 + 0x1000 * table + 8 * page, random_entry(false));
    if (!seen)
        return; /* a load of CR3, or INVLPG for the directory, comes before it is used */
    if (one_in(4))
        now.stale[space][table][page] = true;
    else
        add(DO_INVLPG, OWN_PAGES + 4096 * page, 0);
}

static void add_shared_remap(void) {
    unsigned page = pick(PAGES);

    add(DO_STORE, SHARED_TABLE + 8 * page, random_entry(true));
    if (one_in(4))
        now.shared_stale[page] = true;
    else
        add(DO_INVLPG, SHARED_PAGES + 4096 * page, 0);
}

static void unstale(bool shared) {
    memset(now.stale, 0, sizeof(now.stale));
    if (shared)
        memset(now.shared_stale, 0, sizeof(now.shared_stale));
}

static void add_switch(void) {
    now.space = pick(2);
    add(DO_CR3, 0, SPACE(now.space));
    unstale(false);
}

/* The directory's entry for the own pages names the other table. */
static void add_directory(void) {
    unsigned n = now.space;

    now.table[n] ^= 1;
    add(DO_STORE, SPACE(n) + 0x2010,
        (SPACE(n) + 0x3000 + 0x1000 * now.table[n]) | X86_PTE_P | X86_PTE_W | X86_PTE_U);
    add(DO_CR3, 0, SPACE(n));
    unstale(false);
}

static void add_mode(void) {
    if (one_in(2)) {
        now.cr0 ^= X86_CR0_WP;
        add(DO_CR0, 0, now.cr0);
        return;
    }
    now.cr4 ^= X86_CR4_PGE;
    add(DO_CR4, 0, now.cr4);
    unstale(true);
}

static void make_list(uint64_t seed, unsigned length) {
    rnd_seed(seed);
    items = 0;
    memset(&now, 0, sizeof(now));
    now.cr0 = right.g.v->cr0;
    now.cr4 = right.g.v->cr4;
    while (items + 4 < length) {
        unsigned kind = pick(32);

        if (kind < 18)
            add_access();
        else if (kind < 23)
            add_remap();
        else if (kind < 25)
            add_shared_remap();
        else if (kind < 27)
            add_switch();
        else if (kind < 28)
            add_directory();
        else if (kind < 29)
            add_mode();
        else if (kind < 30)
            add(DO_ROM, 0, pick(FRAME_COUNT) | (one_in(2) ? 0x100 : 0));
        else
            add(one_in(5) ? DO_PAUSE : DO_CPUID + pick(4), 0, pick(1 << 20));
    }
    add(DO_END, 0, 0);
}

static void put_list(struct guest *g) {
    guest_write(g, LIST, list, items * sizeof(list[0]));
}

/* --- runs --- */

static void open_side(struct side *s, enum way way, bool svm) {
    static const enum mmu_policy policy[WAYS] = {
        [FLUSH] = MMU_FLUSH, [PCID] = MMU_PCID, [TRACE] = MMU_TRACE};
    const struct guest_config cfg = {
        .hooks = &hooks, .interp = true, .policy = svm ? policy[way] : MMU_FLUSH};
    char why[128];

    memset(s, 0, sizeof(*s));
    guest_new(&s->g, &cfg);
    if (!svm)
        return;
    assert_int_equal(
        svm_new(s->g.v, s->g.ip, &host,
                &(struct svm_options){.shadow = way != NESTED, .pauses = true}, &s->svm,
                why, sizeof(why)),
        0);
    s->svm->has_xcr0 = false;
}

static void close_side(struct side *s) {
    svm_free(s->svm);
    guest_free(&s->g);
    s->svm = NULL;
}

static void end_run(void) {
    close_side(&real);
    svmhost_end();
}

/* A halted guest is woken. */
static bool goes_on(enum exit_reason r) {
    if (r == EXIT_halt)
        vcpu_raise(real.g.v, VCPU_EVENT_IRQ);
    return r == EXIT_kick || r == EXIT_halt;
}

/* Each page that has changed since the last look must be told. */
static void look_at_written(void) {
    struct mem *m = real.g.v->mem;
    uint64_t pages = mem_ram_size(m) / 4096, bits[mem_host_size(m) / 4096 / 64 + 1];

    memset(bits, 0, sizeof(bits));
    svm_tell_written(real.svm);
    mem_track_collect(m, bits);
    noted.looks++;
    for (uint64_t n = 0; n < pages; n++) {
        bool is = bits[n / 64] >> n % 64 & 1;
        bool changed = memcmp(real.g.ram + n * 4096, noted.before + n * 4096, 4096) != 0;

        noted.missed += changed && !is;
        noted.changed += changed;
        noted.told += is;
    }
    memcpy(noted.before, real.g.ram, pages * 4096);
}

static void begin_to_look(void) {
    uint64_t size = mem_ram_size(real.g.v->mem);

    noted.before = realloc(noted.before, size);
    assert_non_null(noted.before);
    svm_log_writes(real.svm, true);
    mem_track_start(real.g.v->mem);
    memcpy(noted.before, real.g.ram, size);
}

/* On the model. False: the guest did not come to its end. */
static bool run_real(enum way way, unsigned slice, bool interrupts) {
    memset(&cpu, 0, sizeof(cpu));
    cpu.asids = way == NESTED ? 8 : 2 + pick(4);
    cpu.features = X86_SVM_NPT | ((features == ANY ? pick(~0u) : features) & FEATURES);
    cpu.slice = slice;
    cpu.budget = 400000;
    open_side(&real, way, true);
    start_guest(&real.g, interrupts);
    put_list(&real.g);
    svm_reset(real.svm);
    if (noted.on)
        begin_to_look();
    while (!real.ended && !cpu.trouble && goes_on(svm_run(real.svm))) {
        vcpu_clear(real.g.v, VCPU_EVENT_KICK);
        if (noted.on)
            look_at_written();
    }
    svm_sync(real.svm);
    pauses += real.svm->cnt.exit_pause;
    shortcuts += real.svm->cnt.shortcuts;
    return real.ended && !cpu.trouble;
}

static void run_right(uint64_t seed, unsigned length) {
    open_side(&right, NESTED, false);
    start_guest(&right.g, false);
    make_list(seed, length);
    put_list(&right.g);
    interp_flush(right.g.ip);
    assert_int_equal(interp_run(right.g.ip), EXIT_kick);
    assert_true(right.ended && right.told > length / 4);
}

/* Are they alike in what the guest told, and in what is in its frames? */
static bool alike(void) {
    size_t from = FRAMES, size = FRAME_COUNT * 4096;

    return real.told == right.told &&
           !memcmp(real.log, right.log, real.told * sizeof(real.log[0])) &&
           !memcmp(real.g.ram + from, right.g.ram + from, size);
}

static void explain(enum way way, uint64_t seed) {
    unsigned n = 0;

    while (n < real.told && n < right.told && real.log[n] == right.log[n])
        n++;
    print_message(
        "way %d, seed %llu: %u told, not %u; the first that differs is %u: %llx, "
        "not %llx%s%s\n",
        way, (unsigned long long)seed, real.told, right.told, n,
        (unsigned long long)real.log[n], (unsigned long long)right.log[n],
        cpu.trouble ? "; " : "", cpu.trouble ? cpu.trouble : "");
}

static bool same(enum way way, uint64_t seed, unsigned length, unsigned slice) {
    bool ok;

    run_right(seed, length);
    ok = run_real(way, slice, false) && alike();
    if (!ok && spoilt == NOTHING)
        explain(way, seed);
    end_run();
    close_side(&right);
    return ok;
}

#define SEEDS 8u

static void test_page_tables(void **state) {
    static const unsigned slices[] = {0, 1, 7, 50};

    spoilt = NOTHING;
    raise_every = 0;
    for (unsigned seed = 1; seed <= SEEDS; seed++)
        for (enum way way = 0; way < WAYS; way++)
            assert_true(same(way, seed, 1500, slices[seed % ARRAY_SIZE(slices)]));
}

/* With each feature alone, without any and with all the guest sees the same. */
static void test_features(void **state) {
    static const uint32_t sets[] = {0,
                                    X86_SVM_NRIPS,
                                    X86_SVM_FLUSH_BY_ASID,
                                    X86_SVM_DECODE_ASSISTS,
                                    X86_SVM_PAUSE_FILTER,
                                    FEATURES};

    for (unsigned n = 0; n < ARRAY_SIZE(sets); n++) {
        features = sets[n];
        pauses = shortcuts = 0;
        for (enum way way = 0; way < WAYS; way++)
            assert_true(same(way, 21 + n, 1500, n % 2 ? 0 : 9));
        assert_true(shortcuts > 20);
        assert_int_equal(pauses > 5, !!(features & X86_SVM_PAUSE_FILTER));
    }
    features = ANY;
}

/* How many of the seeds find what is spoilt. */
static unsigned found(enum spoil what, enum way way) {
    unsigned n = 0;

    raise_every = 0;
    spoilt = what;
    for (unsigned seed = 1; seed <= SEEDS; seed++)
        n += !same(way, seed, 1500, 7);
    spoilt = NOTHING;
    return n;
}

static void test_flushes_left_out_are_found(void **state) {
    for (enum way way = 0; way < WAYS; way++)
        assert_in_range(found(FLUSHES, way), SEEDS / 2, SEEDS);
}

/* Spaces that share an ASID which the engine believes to be their own. */
static void test_asids_mixed_up_are_found(void **state) {
    assert_in_range(found(ASIDS, TRACE), 1, SEEDS);
}

/* --- interrupts --- */

/* Sections without interrupts, and what makes a shadow forget the stack and the gates, so
 * that an interrupt's delivery faults. */
static void make_interrupt_list(void) {
    items = 0;
    for (unsigned n = 0; n < 400; n++) {
        add(DO_SECTION, OWN_PAGES + 4096 * (n % PAGES), 0);
        if (n % 3 == 0)
            add(DO_CR3, 0, SPACE(n & 1));
        if (n % 5 == 0)
            add(DO_INVLPG, STACK_TOP - 4096, 0);
        if (n % 7 == 0)
            add(DO_CPUID, 0, 0);
        if (n % 16 == 0)
            add(DO_HLT, 0, 0);
    }
    add(DO_END, 0, 0);
}

/* Each that was acknowledged is handled once, and none where the guest forbids it. */
static bool interrupts_are_right(enum way way, unsigned slice) {
    unsigned handled = 0, forbidden = 0;
    bool ended;

    taken = late = 0;
    next_raise = 0;
    raise_every = 37;
    make_interrupt_list();
    ended = run_real(way, slice, true);
    raise_every = 0;
    for (unsigned n = 0; n < real.told; n++) {
        handled += real.log[n] >> 32 == 0xec;
        forbidden += real.log[n] == (0xecull << 32 | 1);
    }
    if (spoilt == NOTHING && (!ended || forbidden || handled != taken))
        print_message("way %d, slice %u: %u taken, %u handled, %u forbidden%s%s\n", way,
                      slice, taken, handled, forbidden, cpu.trouble ? "; " : "",
                      cpu.trouble ? cpu.trouble : "");
    ended = ended && !forbidden && handled == taken && taken > 100 &&
            guest_get(&real.g, 0x6008, 8) == handled;
    end_run();
    return ended;
}

static void test_interrupts(void **state) {
    spoilt = NOTHING;
    for (enum way way = 0; way < WAYS; way++)
        for (unsigned slice = 1; slice < 12; slice++)
            assert_true(interrupts_are_right(way, slice));
}

static bool interrupts_find(enum spoil what, enum way way) {
    bool right_anyway = true;

    spoilt = what;
    for (unsigned slice = 1; slice < 12; slice++)
        right_anyway = interrupts_are_right(way, slice) && right_anyway;
    spoilt = NOTHING;
    return !right_anyway;
}

/* As QEMU's TCG: what VMRUN is told of a shadow is not heeded. */
static void test_shadows_that_vmrun_forgets(void **state) {
    spoilt = SHADOWS_AT_RUN;
    for (enum way way = 0; way < WAYS; way++)
        for (unsigned slice = 1; slice < 12; slice++)
            assert_true(interrupts_are_right(way, slice));
    spoilt = NOTHING;
}

static void test_interrupts_find_what_is_spoilt(void **state) {
    assert_true(interrupts_find(SHADOWS, NESTED));
    assert_true(interrupts_find(SHADOWS, FLUSH));
    assert_true(interrupts_find(EVENTS_AGAIN, FLUSH));
    assert_true(interrupts_find(EVENTS_AGAIN, TRACE));
}

/* The host never interrupts: the window alone brings the guest back, at the STI and not
 * later. */
static unsigned late_ones(enum spoil what, enum way way) {
    spoilt = what;
    taken = late = raise_every = 0;
    make_interrupt_list();
    assert_true(run_real(way, 0, true));
    assert_true(taken > 100);
    spoilt = NOTHING;
    end_run();
    return late;
}

static void test_windows(void **state) {
    for (enum way way = 0; way < WAYS; way++) {
        assert_int_equal(late_ones(NOTHING, way), 0);
        assert_in_range(late_ones(WINDOWS, way), 50, 400);
    }
}

/* --- dirty logging --- */

/* How many seeds have a page that was written to and not told of, or end otherwise than
 * they should. */
static unsigned overlooked(enum spoil what, enum way way) {
    unsigned n = 0;

    noted.on = true;
    noted.looks = noted.changed = noted.told = 0;
    spoilt = what;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        noted.missed = 0;
        n += !same(way, seed, 1500, 7) || noted.missed;
    }
    spoilt = NOTHING;
    noted.on = false;
    free(noted.before);
    noted.before = NULL;
    return n;
}

/* With nested paging by the D bits, else by traces; what the VMM writes itself, too. Told
 * are besides what has changed page tables that were walked, and stores of what was there
 * already: not many. */
static void test_written_pages(void **state) {
    for (enum way way = 0; way < WAYS; way++) {
        assert_int_equal(overlooked(NOTHING, way), 0);
        assert_true(noted.looks > 100 && noted.changed > 100);
        assert_true(noted.told < 12 * noted.looks);
    }
    assert_in_range(overlooked(FLUSHES, NESTED), SEEDS / 2, SEEDS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_tables),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_flushes_left_out_are_found),
        cmocka_unit_test(test_asids_mixed_up_are_found),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_shadows_that_vmrun_forgets),
        cmocka_unit_test(test_interrupts_find_what_is_spoilt),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_written_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
