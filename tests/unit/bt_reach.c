/*
 * Translated code reaches guest RAM and nothing else, whatever address the guest
 * computes.
 *
 * Random programs of memory accesses (all addressing forms, stack, string and bit-string
 * operations, gathers, FXSAVE and XSAVE areas, bursts off one register) run with
 * registers, displacements and segment bases where arithmetic goes wrong: about 0, 2^31,
 * 2^32, 2^47, -2^47 and 2^64, about the ends of RAM, and the very addresses of the VMM's
 * own data. Modes: 32-bit with paging off and on, with and without segment bases and
 * limits, compatibility, 64-bit; A20 on and off; CPL 0 and 3. Each program runs first
 * with tame registers until its code is hot, then with wild ones. Other programs are
 * knots (lib/knots.h). With paging, no two pages of data are neighbours in RAM.
 *
 * Guest RAM lies in the middle of 16 GiB that nobody may touch: what goes astray kills
 * the process, and the parent says which program it was. What strays further or into the
 * VMM's data shows as a difference: the interpreter runs the same programs, and
 * registers, all of RAM, the devices' accesses and the outcome have to be the same.
 *
 * With arguments: SEED COUNT [TEST] runs other programs than the standing ones.
 */
/* <signal.h> of _GNU_SOURCE, which <sys/wait.h> includes, has its own REG_RAX and so on.
 */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/vec.h"
#include "decode/decode.h"
#include "lib/guest.h"
#include "lib/rnd.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "lib/wild.h"
#include "sem/sem.h"
#include "soft/soft.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"
#include "x86/pte.h"

enum { STEPS = 400 };
#define RESERVE (16ull << 30)

static const char *const kind_names[] = {"32-bit, no paging", "32-bit, segments",
                                         "32-bit, paging", "compatibility", "64-bit"};

/* --- two machines --- */

static struct guest A, B;

/* Takes what nobody has of the address space from AT on. */
static void reserve(uintptr_t at, uint64_t size) {
    void *p =
        mmap((void *)at, size, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (p == MAP_FAILED && size > 2 << 20) {
        reserve(at, size / 2);
        reserve(at + size / 2, size / 2);
    }
}

/* RAM in the middle of a reservation. */
static int create_ram(struct mem **out) {
    int rc = mem_create(RAM, out);

    if (rc)
        return rc;
    for (unsigned at = 0; at < RAM; at += 8) { /* no two places are alike */
        uint64_t x = (at + 8) * 0x9e3779b97f4a7c15ull;

        memcpy(mem_ram_base(*out) + at, &x, 8);
    }
    reserve(((uintptr_t)mem_ram_base(*out) & ~0x1fffffull) - RESERVE / 2, RESERVE);
    return 0;
}

static void new_guest(struct guest *g, const struct bt_options *opt) {
    struct bt_options verified = opt ? *opt : (struct bt_options){0};
    struct guest_config cfg = {.policy = MMU_PCID,
                               .cpuid = {.model = "host"},
                               .hooks = &guest_steady_hooks,
                               .interp = true,
                               .bt = opt ? &verified : NULL};

    verified.verify = true; /* a finding ends the run */
    assert_int_equal(create_ram(&cfg.mem), 0);
    guest_new(g, &cfg);
}

/* --- the state before a run --- */

static bool knotted;        /* programs are knots */
static uint32_t mxcsr_mask; /* the host's */
static struct vcpu S;
static uint64_t edges[EDGES];
static bool a20;

static void segments(bool user, bool tame) {
    unsigned dpl = user ? 0x60 : 0;

    for (unsigned s = 0; s < SEG_COUNT; s++)
        S.seg[s] = (struct segment){.sel = (uint16_t)(user ? 0x23 : 0x10),
                                    .ar = (uint16_t)(0xc093 | dpl),
                                    .limit = 0xffffffff};
    S.seg[SEG_CS] =
        (struct segment){.sel = (uint16_t)(user ? 0x1b : 8),
                         .ar = (uint16_t)((wild.wide ? 0xa09b : 0xc09b) | dpl),
                         .limit = 0xffffffff};
    for (unsigned s = SEG_FS; s <= SEG_GS; s++) {
        uint64_t base = tame ? pick(0x1000) : wild_number();

        if (wild.wide)
            S.seg[s].base = (uint64_t)((int64_t)(base << 16) >> 16);
        else if (wild.kind == BASED32 || wild.kind == COMPAT)
            S.seg[s].base = (uint32_t)base;
    }
    if (wild.kind != BASED32 && (wild.kind != COMPAT || one_in(2)))
        return;
    for (unsigned k = 0; k < 3; k++) {
        struct segment *g = &S.seg[(unsigned[]){SEG_ES, SEG_SS, SEG_DS}[k]];

        if (one_in(2))
            g->base = (uint32_t)(tame ? pick(0x1000) : wild_number());
        if (one_in(3))
            g->limit = (uint32_t)(tame ? 0x7fffffff : wild_number());
        if (one_in(6))
            g->ar |= X86_AR_EXPDOWN;
        if (one_in(6))
            g->ar &= (uint16_t)~X86_AR_DB;
    }
}

static void random_start(bool tame) {
    bool user = S.cpl == 3;

    for (unsigned r = 0; r < 16; r++) {
        S.gpr[r] = tame        ? DATA + 0x8000 + pick(0x4000)
                   : one_in(4) ? pick(300)
                               : wild_number();
        if (!wild.wide && !one_in(8))
            S.gpr[r] &= 0xffffffff;
    }
    /* Counts that end: what lies behind RAM answers everywhere without paging. */
    if (!one_in(8) || wild.kind <= BASED32)
        S.gpr[REG_RCX] = pick(tame ? 40 : 0x2100);
    if (wild.knots.code) {
        knots_registers(&wild.knots, S.gpr);
        S.gpr[REG_RCX] %= 0x2100;
    }
    S.rflags = X86_FL_ONE;
    for (unsigned k = 0; k < VCPU_XSAVE_SIZE / 8; k++) {
        uint64_t r = one_in(2) ? wild_number() : rnd();

        memcpy(S.vec + 8 * k, &r, 8);
    }
    memset(S.vec, 0, 32);
    S.vec[0] = 0x7f, S.vec[1] = 3, S.vec[24] = 0x80, S.vec[25] = 0x1f;
    memcpy(S.vec + 28, &mxcsr_mask, 4);
    memset(S.vec + 416, 0, 160);
    S.vec[512] = (uint8_t)vec_supported();
    for (unsigned k = 0; k < 8; k++)
        memset(S.vec + 32 + 16 * k + 10, 0, 6);
    segments(user, tame);
}

/* Where the ends of the linear space lie: first and last pages of RAM, others, none. */
static void random_edges(void) {
    for (unsigned k = 0; k < EDGES; k++) {
        uint64_t page = one_in(3)   ? RAM - 0x1000
                        : one_in(3) ? DATA + (pick(16) << 12)
                        : one_in(4) ? RAM + (pick(4) << 12)
                                    : DATA + 0x100000;

        edges[k] =
            page | X86_PTE_P | (one_in(6) ? 0 : X86_PTE_W) | (one_in(6) ? 0 : X86_PTE_U);
        if (one_in(5))
            edges[k] = 0;
    }
}

static const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U;

/* The page table at AT: edges at both ends. */
static void edge_table(struct guest *g, uint64_t at, unsigned size) {
    unsigned n = 4096 / size;

    for (unsigned k = 0; k < n; k++) {
        uint64_t e = k < EDGES / 2        ? edges[k]
                     : k >= n - EDGES / 2 ? edges[k - n + EDGES]
                                          : 0;

        if (size == 8)
            guest_put64(g, at + 8 * k, e);
        else
            guest_put32(g, at + 4 * k, (uint32_t)e);
    }
}

/* Pages of data in another order, every other page; the first and the last page of RAM
 * are among them. All others are where their addresses say. */
static uint64_t phys(uint64_t page) {
    uint64_t k = page - (DATA >> 12);

    if (k >= 16)
        return page << 12;
    return k == 9 ? RAM - 0x1000 : k == 10 ? 0 : 0x180000 - (k << 13);
}

static void load_paging(struct guest *g) {
    uint64_t top = TABLES, t = TABLES + 0x1000;

    if (wild.kind == PAGED32) {
        guest_put32(g, top, (uint32_t)(t | all));
        guest_put32(g, top + 4 * 1023, (uint32_t)((t + 0x1000) | all));
        guest_put32(g, top + 4 * 512, (uint32_t)((t + 0x1000) | all));
        guest_put32(g, top + 4 * 511, (uint32_t)((t + 0x1000) | all));
        for (unsigned k = 0; k < 1024; k++)
            guest_put32(g, t + 4 * k, (uint32_t)(phys(k) | all));
        edge_table(g, t + 0x1000, 4);
        return;
    }
    /* PDPT of 0, PD of 0, table of 0; then those of the edges. */
    guest_put64(g, top, t | all);
    guest_put64(g, t, (t + 0x1000) | all);
    guest_put64(g, t + 8 * 3, (t + 0x4000) | all);
    guest_put64(g, t + 8 * 4, (t + 0x4000) | all);
    guest_put64(g, t + 8 * 2, (t + 0x4000) | all);
    guest_put64(g, t + 8 * 1, (t + 0x4000) | all);
    guest_put64(g, t + 0x1000, (t + 0x2000) | all);
    guest_put64(g, t + 0x1008, 0x200000 | all | X86_PTE_PS);
    for (unsigned k = 0; k < 512; k++)
        guest_put64(g, t + 0x2000 + 8 * k, phys(k) | all);
    static const unsigned slots[] = {255, 256, 511};
    for (unsigned k = 0; k < 3; k++)
        guest_put64(g, top + 8 * slots[k], (t + 0x3000) | all);
    guest_put64(g, t + 0x3000, (t + 0x4000) | all);
    guest_put64(g, t + 0x3000 + 8 * 511, (t + 0x4000) | all);
    guest_put64(g, t + 0x4000, (t + 0x5000) | all);
    guest_put64(g, t + 0x4000 + 8 * 511, (t + 0x5000) | all);
    edge_table(g, t + 0x5000, 8);
}

static void load_tables(struct guest *g) {
    static const uint8_t zeros[4096];
    static const uint64_t gdt[] = {0, 0, 0x00cf93000000ffff, 0, 0x00cff3000000ffff, 0};
    bool wide = wild.kind >= COMPAT;

    for (unsigned at = 0; at < CODE; at += sizeof(zeros))
        guest_write(g, at, zeros, sizeof(zeros));
    guest_write(g, GDT, gdt, sizeof(gdt));
    guest_put64(g, GDT + 8, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    guest_put64(g, GDT + 24, wild.wide ? 0x00affb000000ffff : 0x00cffb000000ffff);
    for (unsigned n = 0; n < 32; n++) {
        unsigned at = IDT + n * (wide ? 16 : 8);

        guest_put64(g, at,
                    (HANDLERS + n) | 8ull << 16 | (wide ? 0x8e01ull : 0x8e00ull) << 32);
        guest_write(g, HANDLERS + n, "\xf4", 1);
    }
    if (wide) {
        guest_put64(g, TSS + 36, STACK);
        guest_put64(g, TSS + 4, STACK);
    } else {
        guest_put32(g, TSS + 4, STACK);
        guest_put32(g, TSS + 8, 0x10);
    }
    load_paging(g);
    guest_write(g, CODE, wild.b, wild.len);
}

static void load_start(struct guest *g) {
    struct vcpu *v = g->v;

    vec_park(v);
    vcpu_reset(v);
    memcpy(v->gpr, S.gpr, 16 * 8);
    memcpy(v->seg, S.seg, sizeof(v->seg));
    memcpy(v->vec, S.vec, sizeof(v->vec));
    v->rip = CODE;
    v->rflags = S.rflags;
    v->cpl = S.cpl;
    v->cr0 = X86_CR0_PE | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP;
    v->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    v->cr4 &= cpuid_cr4_valid(v->cpuid);
    v->xcr0 = cpuid_xcr0_valid(v->cpuid);
    if (wild.kind >= PAGED32)
        v->cr0 |= X86_CR0_PG;
    if (wild.kind >= COMPAT) {
        v->cr4 |= X86_CR4_PAE;
        v->efer = X86_EFER_LME | X86_EFER_LMA;
    }
    v->cr3 = TABLES;
    v->gdtr = (struct desc_table){GDT, 0x2f};
    v->idtr = (struct desc_table){IDT, 0xfff};
    v->tr = (struct segment){.sel = 0x28, .ar = 0x8b, .limit = 0x67, .base = TSS};
    v->halted = v->irq_shadow = v->nmi_blocked = false;
    v->pending_db = 0;
    v->fault = (struct fault){0};
    v->cr2 = 0;
    v->fip = v->fdp = v->fop = v->fcs = v->fds = 0;
    g->asked = g->seen = 0;
    g->a20 = a20;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_mode_changed(v);
    mmu_context_changed(v);
    mmu_flush_all(v);
}

static char why[200];

/* Accessed and dirty bits: a walk for an access that then faults may set them. */
static unsigned may_differ(unsigned at) {
    return at >= TABLES && at < TABLES + 0x7000 && !(at & 3) ? X86_PTE_A | X86_PTE_D : 0;
}

/* An indirect CALL whose target is not canonical: the translator's has written its return
 * address, below the stack pointer, when it faults (docs/bt.md). */
static bool return_slot(unsigned at) {
    if (!wild.wide || A.v->rip != HANDLERS + X86_GP + 1 || at + 8 > RAM)
        return false;
    memcpy(B.ram + at, A.ram + at, 8);
    return true;
}

static bool same(enum exit_reason a, enum exit_reason b) {
    if (a != b)
        return sprintf(why, "exit %s, bt's %s", exit_name(a), exit_name(b)), false;
    for (unsigned r = 0; r < 16; r++)
        if (A.v->gpr[r] != B.v->gpr[r])
            return sprintf(why, "register %u: %llx, bt's %llx", r,
                           (unsigned long long)A.v->gpr[r],
                           (unsigned long long)B.v->gpr[r]),
                   false;
    if (A.v->rip != B.v->rip || A.v->cr2 != B.v->cr2)
        return sprintf(why, "rip %llx cr2 %llx, bt's %llx %llx",
                       (unsigned long long)A.v->rip, (unsigned long long)A.v->cr2,
                       (unsigned long long)B.v->rip, (unsigned long long)B.v->cr2),
               false;
    if (A.seen != B.seen)
        return sprintf(why, "other accesses to devices"), false;
    vec_park(A.v);
    vec_park(B.v);
    if (!(A.v->vec[512] & 2)) /* in the initial state: nothing is stored */
        memset(A.v->vec + 160, 0, 256);
    if (!(B.v->vec[512] & 2))
        memset(B.v->vec + 160, 0, 256);
    for (unsigned k = 160; k < 160 + (wild.wide ? 256 : 128); k++)
        if (A.v->vec[k] != B.v->vec[k])
            return sprintf(why, "byte %u of the vector state: %02x, bt's %02x", k,
                           A.v->vec[k], B.v->vec[k]),
                   false;
    if (memcmp(A.ram, B.ram, RAM)) {
        bool slot = false;
        for (unsigned k = 0; k < RAM; k++)
            if ((A.ram[k] ^ B.ram[k]) & ~may_differ(k) &&
                (slot || !(slot = return_slot(k))))
                return sprintf(why, "memory at %x: %02x, bt's %02x", k, A.ram[k],
                               B.ram[k]),
                       false;
    }
    return true;
}

/* x87's pointers, which the translator does not keep, may be stored and read back. */
static bool stores_x87(void) {
    struct insn i;
    bool x87 = false, stores = wild.environment;

    for (unsigned off = 0; off < wild.len; off += i.len) {
        uint8_t b[16] = {0};

        memcpy(b, wild.b + off, wild.len - off < 15 ? wild.len - off : 15);
        if (decode_insn(wild.wide ? MODE_64 : MODE_32, b, 15, &i) != DECODE_OK)
            return true;
        x87 |= (i.flags & INSN_X87) != 0;
        stores |= i.op == OP_fxsave || i.op == OP_xsave;
    }
    return x87 && stores;
}

static void show(uint64_t seed, unsigned run) {
    char text[256];

    fprintf(stderr, "seed %llu, run %u, %s, CPL %u, A20 %s: %s\n",
            (unsigned long long)seed, run, kind_names[wild.kind], S.cpl,
            a20 ? "on" : "off", why);
    for (unsigned off = 0; off < wild.len;) {
        struct insn i;
        uint8_t b[16] = {0};

        memcpy(b, wild.b + off, wild.len - off < 15 ? wild.len - off : 15);
        if (decode_insn(wild.wide ? MODE_64 : MODE_32, b, 15, &i) != DECODE_OK)
            break;
        fprintf(stderr, "  %x: %s\n", CODE + off,
                decode_format(&i, CODE + off, text, sizeof(text)));
        off += i.len;
    }
    for (unsigned r = 0; r < 16; r++)
        fprintf(stderr, "  r%-2u %016llx\n", r, (unsigned long long)S.gpr[r]);
    for (unsigned n = 0; n < SEG_COUNT; n++)
        fprintf(stderr, "  segment %u base %llx limit %x ar %x\n", n,
                (unsigned long long)S.seg[n].base, S.seg[n].limit, S.seg[n].ar);
}

/* Makes the two equal behind the engines' backs. */
static void level(void) {
    memcpy(B.ram, A.ram, RAM);
    bt_flush(B.bt);
    interp_flush(B.ip);
}

static bool one_program(uint64_t seed, bool run_it, unsigned upto) {
    rnd_seed(seed * 0x9e3779b97f4a7c15ull + 1);
    for (unsigned k = 0; k < 4; k++)
        rnd();
    wild.kind = (enum wild_kind)pick(KINDS);
    wild.wide = wild.kind == LONG;
    S.cpl = one_in(2) ? 3 : 0;
    a20 = wild.kind > PAGED32 || !one_in(4);
    wild.knots.code = NULL;
    if (knotted)
        wild_make_knot();
    else
        wild_make();
    for (unsigned run = 0; run < 8 && run <= upto; run++) {
        struct guest *const both[] = {&A, &B};
        enum exit_reason a, b;

        random_edges();
        random_start(run < 4 && run != 1);
        if (!run_it)
            continue;
        for (unsigned k = 0; k < 2; k++) {
            load_tables(both[k]);
            load_start(both[k]);
        }
        a = interp_step(A.ip, STEPS);
        if (a == EXIT_kick) { /* it has written or jumped itself into a loop */
            level();
            return true;
        }
        b = guest_run(&B);
        if (!same(a, b)) {
            if (stores_x87()) {
                level();
                return true;
            }
            show(seed, run);
            return false;
        }
    }
    return true;
}

/* --- the tests --- */

static uint64_t first_seed = 1, count = 700;
static volatile uint64_t *running; /* shared: the program that the child is at */

/* In a child of its own, since what goes astray dies. */
static void programs_of(const struct bt_options *opt, bool knots) {
    int status = 0;
    pid_t child;

    knotted = knots;
    child = fork();
    if (!child) {
        bool ok = true;

        signals_back();
        new_guest(&A, NULL);
        new_guest(&B, opt);
        wild_ram = B.ram;
        wild_vcpu = B.v;
        alarm(240);
        for (uint64_t k = 0; k < count && ok; k++) {
            *running = first_seed + k;
            ok = one_program(first_seed + k, true, 7);
        }
        _exit(!ok);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        sprintf(why, "died of signal %d", WTERMSIG(status));
        /* The registers shown are those of a process without guests. */
        one_program(*running, false, 7);
        show(*running, 7);
    }
    assert_int_equal(status, 0);
}

static void programs(const struct bt_options *opt) {
    programs_of(opt, false);
}

static void test_reach(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs(&opt);
}

static void test_reach_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    opt.tr.hot = 1;
    programs(&opt);
}

/* PUSH at 0x8000000000000e50 with an anchor that holds nothing: the host's #GP, which
 * came with the flags of the address check. */
static void test_no_anchor(void **state) {
    struct bt_options opt = bt_defaults();
    uint64_t first = first_seed, all_of = count;

    opt.tr.liveness = false;
    first_seed = 102935, count = 1;
    programs(&opt);
    first_seed = first, count = all_of;
}

static void test_knots(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs_of(&opt, true);
}

static void test_knots_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    opt.tr.hot = 1;
    programs_of(&opt, true);
}

static void test_reach_plain(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = opt.tr.groups = opt.tr.anchors = opt.chain = false;
    opt.tr.hot = 0;
    programs(&opt);
}

static int setup(void **state) {
    _Alignas(16) uint8_t image[512];

    __asm__("fxsave %0" : "=m"(image));
    memcpy(&mxcsr_mask, image + 28, 4);
    running = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    vec_init();
    if (sem_init())
        return -1;
    signals_remember();
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reach),       cmocka_unit_test(test_reach_hot),
        cmocka_unit_test(test_knots),       cmocka_unit_test(test_knots_hot),
        cmocka_unit_test(test_reach_plain), cmocka_unit_test(test_no_anchor),
    };
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    if (argc > 2) {
        first_seed = strtoull(argv[1], NULL, 0);
        count = strtoull(argv[2], NULL, 0);
    }
    return cmocka_run_group_tests(tests, setup, NULL);
}
