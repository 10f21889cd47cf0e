/*
 * The translator against the interpreter: the same random programs (lib/programs.h) on
 * two identical machines, compared register by register and byte by byte.
 *
 * Every exception goes to a handler on a stack of its own that halts; so does the #UD at
 * a program's end. Each program runs several times: with the fragments of the time
 * before, with other segment bases, with other pages absent or devices' instead.
 *
 * Pages lie scattered in RAM, the first and the last of it among them, and the host pages
 * on either side of each are taken away: an access that is larger than what was checked,
 * or that goes on behind its page, ends the test.
 *
 * With arguments: SEED COUNT runs other programs than the standing ones.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/state.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "lib/guest.h"
#include "lib/programs.h"
#include "lib/rnd.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"
#include "x86/pte.h"

enum {
    STEPS = 3000,
    KNOT_RUNS = 12, /* each with other registers */
};

/* --- two machines --- */

static struct guest A, B;

static void new_guest(struct guest *g, const struct bt_options *opt) {
    struct bt_options verified = opt ? *opt : (struct bt_options){0};
    const struct guest_config cfg = {.ram = RAM,
                                     .policy = MMU_PCID,
                                     .cpuid = {.model = "host"},
                                     .hooks = &guest_steady_hooks,
                                     .interp = true,
                                     .bt = opt ? &verified : NULL};

    verified.verify = true; /* a finding ends the run */
    guest_new(g, &cfg);
}

static bool in_use(uint64_t page) {
    for (uint64_t at = CODE; at < CODE_END; at += 0x1000)
        if (page == program_phys(at))
            return true;
    for (uint64_t at = DATA; at < DATA_END; at += 0x1000)
        if (page == program_phys(at))
            return true;
    return page < CODE;
}

static void guard(struct guest *g) {
    for (uint64_t at = 0; at < RAM; at += 0x1000)
        if (!in_use(at))
            assert_int_equal(mprotect(g->ram + at, 0x1000, PROT_NONE), 0);
}

/* Code, which may lie across pages. */
static void poke_code(struct guest *g, uint64_t at, const uint8_t *p, unsigned len) {
    while (len) {
        unsigned n = 0x1000 - (unsigned)(at & 0xfff);

        n = n < len ? n : len;
        guest_write(g, program_phys(at), p, n);
        at += n;
        p += n;
        len -= n;
    }
}

static void load_start(struct guest *g) {
    struct vcpu *v = g->v;
    static const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U;

    vec_park(v);
    vcpu_reset(v);
    memcpy(v->gpr, start.v.gpr, 16 * 8);
    memcpy(v->seg, start.v.seg, sizeof(v->seg));
    memcpy(v->vec, start.v.vec, sizeof(v->vec));
    v->rip = program.base;
    v->rflags = start.v.rflags;
    v->cpl = start.v.cpl;
    v->cr0 = start.v.cr0;
    v->cr4 = start.v.cr4;
    v->xcr0 = start.v.xcr0;
    v->cr3 = PML4;
    v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    v->gdtr = (struct desc_table){GDT, 0x2f};
    v->idtr = (struct desc_table){IDT, 0xfff};
    v->tr = (struct segment){.sel = 0x28, .ar = 0x8b, .limit = 0x67, .base = TSS};
    v->halted = v->irq_shadow = v->nmi_blocked = false;
    v->pending_db = 0;
    v->fault = (struct fault){0};
    v->cr2 = 0;
    v->fip = v->fdp = v->fop = v->fcs = v->fds = 0;
    g->asked = g->seen = 0;
    vcpu_clear(v, ~0u);
    for (unsigned k = 0; k < 512; k++)
        guest_put64(g, PT + 8 * k, start.pte[k]);
    guest_put64(g, PML4, PDPT | all);
    guest_put64(g, PML4 + 8 * 511, PDPT | all);
    guest_put64(g, PDPT, PD | all);
    guest_put64(g, PDPT + 8 * 3, PD3 | all);
    guest_put64(g, PD, PT | all);
    guest_put64(g, PD3 + 8 * 511, PT3 | all);
    guest_put64(g, PT3 + 8 * 511, program_phys(DATA + 0x3000) | all);
    for (unsigned at = 0; at < sizeof(start.data); at += 0x1000)
        guest_write(g, program_phys(DATA + at), start.data + at, 0x1000);
    vcpu_update_mode(v);
    mmu_mode_changed(v);
    mmu_context_changed(v);
    mmu_flush_all(v);
}

static void load_tables(struct guest *g) {
    static const uint8_t zeros[4096];
    static const uint64_t gdt[] = {
        0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff,
        0};

    for (unsigned at = 0; at < CODE; at += sizeof(zeros))
        guest_write(g, at, zeros, sizeof(zeros));
    guest_write(g, GDT, gdt, sizeof(gdt));
    for (unsigned n = 0; n < 256; n++) {
        guest_put64(g, IDT + 16 * n,
                    (HANDLERS + (n & 63)) | 8ull << 16 | 0x8e01ull << 32);
        guest_put64(g, IDT + 16 * n + 8, 0);
        guest_write(g, HANDLERS + (n & 63), "\xf4", 1);
    }
    guest_put64(g, TSS + 36, EXC_STACK); /* IST1 */
    guest_put64(g, TSS + 4, EXC_STACK);
}

/* --- comparison --- */

static void normalize(uint8_t *x) {
    uint8_t bv = x[512];

    if (!(bv & 1)) {
        memset(x + 32, 0, 128);
        memset(x, 0, 24);
        x[0] = 0x7f;
        x[1] = 3;
    }
    if (!(bv & 2))
        memset(x + 160, 0, 256);
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if (!(bv & 1 << n))
            memset(x + vec_offset(n), 0, vec_size(n));
    for (unsigned k = 0; k < 8; k++) /* reserved */
        memset(x + 32 + 16 * k + 10, 0, 6);
    memset(x + 6, 0, 18); /* FOP, FIP, FDP */
    memset(x + 416, 0, 160);
}

static bool in_component(unsigned at) {
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if (at - vec_offset(n) < vec_size(n))
            return true;
    return false;
}

static char why[256];

/* Differences that are none, and how many of them there are: none of these may hide much.
 */
enum excuse {
    SLOT,      /* below the stack pointer: below_stack() */
    DEAD,      /* flags that nothing reads, in a frame, with program_how.liveness */
    REWRITTEN, /* the program has written over itself: what it leaves undefined is not
                  known */
    DICE,      /* and so that it rolls dice */
    ENDLESS,   /* the interpreter does not come to an end: not compared */
    EXCUSES
};
static const struct {
    const char *what;
    unsigned one_in; /* runs that it may be needed for */
} excuse[EXCUSES] = {
    [SLOT] = {"a return address below the stack pointer", 200},
    [DEAD] = {"dead flags in a frame", 10},
    [REWRITTEN] = {"rewritten by itself", 1000},
    [DICE] = {"random numbers", 10000},
    [ENDLESS] = {"no end", 40},
};
static unsigned excused[EXCUSES];

/* What the translator's CALL pushes before it finds out that the target is not canonical
 * lies below the stack pointer. */
static bool below_stack(unsigned at) {
    uint64_t rsp;

    memcpy(&rsp, A.ram + EXC_STACK - 16, 8);
    return A.v->rip - HANDLERS - 1 == X86_GP && program.mode == MODE_64 &&
           ((rsp - 1 - at) & 0xfff) < 8;
}

static bool same_page(unsigned at) {
    bool slot = false;

    if (!memcmp(A.ram + at, B.ram + at, 0x1000))
        return true;
    for (unsigned k = at; k < at + 0x1000; k++) {
        if (A.ram[k] == B.ram[k])
            continue;
        if (!below_stack(k))
            return sprintf(why, "memory at %x: %02x, bt's %02x", k, A.ram[k], B.ram[k]),
                   false;
        slot = true;
    }
    excused[SLOT] += slot;
    return true;
}

/* All of the state but status flags, and vector registers and x87's pointers, of which
 * the translator keeps less outside of counted runs. */
static bool same_numbers(const struct vcpu *a, const struct vcpu *b) {
    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];

        if (p->group == VCPU_GROUP_VECTOR || p->group == VCPU_GROUP_X87 ||
            !vcpu_part_differs(a, b, p, 0, VCPU_LOOSE))
            continue;
        sprintf(why, "%s %llx, bt's %llx", p->name,
                (unsigned long long)vcpu_part_number(a, p),
                (unsigned long long)vcpu_part_number(b, p));
        return false;
    }
    return true;
}

static bool same(uint64_t seed) {
    struct vcpu *a = A.v, *b = B.v;
    uint64_t mask = 0x3f7fd7;
    unsigned vector = (unsigned)(a->rip - HANDLERS - 1);
    unsigned frame = (unsigned)a->gpr[REG_RSP];

    vec_park(a);
    vec_park(b);
    for (unsigned r = 0; r < 16; r++)
        if (a->gpr[r] != b->gpr[r])
            return sprintf(why, "register %u", r), false;
    if (a->rip != b->rip)
        return sprintf(why, "vector %u, bt's %u", vector,
                       (unsigned)(b->rip - HANDLERS - 1)),
               false;
    if (vector < 64 && frame > EXC_STACK - 64 && frame < EXC_STACK) {
        unsigned at = frame + (EXC_STACK - frame == 48 ? 8 : 0);
        uint64_t fa, fb;

        memcpy(&fa, A.ram + at + 16, 8);
        memcpy(&fb, B.ram + at + 16, 8);
        mask = ~0ull;
        if (program_how.liveness) {
            /* Where nothing reads a flag before it is written, a fault shows another. */
            uint64_t rip;

            memcpy(&rip, A.ram + at, 8);
            mask &= ~(uint64_t)(rip == program.base + program.len - 2 ? program.tainted
                                                                      : X86_FL_STATUS);
        }
        if (memcmp(A.ram + at, B.ram + at, 8))
            return sprintf(why, "vector %u, other instruction pointers", vector), false;
        if ((fa ^ fb) & mask)
            return sprintf(why, "flags %llx, bt's %llx at vector %u",
                           (unsigned long long)fa, (unsigned long long)fb, vector),
                   false;
        excused[DEAD] += fa != fb;
        memcpy(B.ram + at + 16, &fa, 8);
    }
    if (!same_numbers(a, b))
        return false;
    normalize(a->vec);
    normalize(b->vec);
    for (unsigned k = 0; k < VCPU_XSAVE_SIZE; k++)
        if (a->vec[k] != b->vec[k] && (k < 512 || in_component(k)))
            return sprintf(why, "vector state, byte %u: %02x, bt's %02x", k, a->vec[k],
                           b->vec[k]),
                   false;
    if (A.seen != B.seen)
        return sprintf(why, "other accesses to devices"), false;
    for (unsigned at = 0x1000; at < CODE; at += 0x1000)
        if ((at < PML4 || (at > PT && at < PD3) || at > PT3) && !same_page(at))
            return false;
    for (unsigned at = CODE; at < CODE_END; at += 0x1000)
        if (!same_page((unsigned)program_phys(at)))
            return false;
    for (unsigned at = DATA; at < DATA_END; at += 0x1000)
        if (!same_page((unsigned)program_phys(at)))
            return false;
    return true;
}

static void show(uint64_t seed, unsigned run) {
    char text[8192];
    uint8_t b[16];

    fprintf(stderr, "seed %llu, run %u: %s\n", (unsigned long long)seed, run, why);
    for (unsigned off = 0; off < program.len;) {
        struct insn i;

        memset(b, 0, sizeof(b));
        memcpy(b, program.b + off, program.len - off < 15 ? program.len - off : 15);
        if (decode_insn(program.mode, b, 15, &i) != DECODE_OK)
            break;
        fprintf(stderr, "  %llx: %s (", (unsigned long long)(program.base + off),
                decode_format(&i, program.base + off, text, sizeof(text)));
        for (unsigned k = 0; k < i.len; k++)
            fprintf(stderr, "%02x", i.bytes[k]);
        fprintf(stderr, ")\n");
        off += i.len;
    }
    for (unsigned r = 0; r < 16; r++)
        fprintf(stderr, "  r%-2u %016llx -> %016llx, bt %016llx\n", r,
                (unsigned long long)start.v.gpr[r], (unsigned long long)A.v->gpr[r],
                (unsigned long long)B.v->gpr[r]);
    fprintf(stderr, "  mode %u cpl %u cr0 %llx cr4 %llx flags %llx mxcsr %x cr2 %llx\n",
            program.mode, start.v.cpl, (unsigned long long)start.v.cr0,
            (unsigned long long)start.v.cr4, (unsigned long long)start.v.rflags,
            *(uint32_t *)(void *)(start.v.vec + 24), (unsigned long long)A.v->cr2);
    for (unsigned n = 0; n < SEG_COUNT; n++)
        fprintf(stderr, "  segment %u base %llx limit %x ar %x\n", n,
                (unsigned long long)start.v.seg[n].base, start.v.seg[n].limit,
                start.v.seg[n].ar);
    fprintf(stderr, "fault frame at %llx:", (unsigned long long)A.v->gpr[REG_RSP]);
    for (unsigned k = 0; k < 12; k++)
        fprintf(stderr, " %llx",
                (unsigned long long)((uint64_t *)(void *)((k < 6 ? A.ram : B.ram) +
                                                          EXC_STACK))[(int)(k % 6) - 6]);
    fprintf(stderr, "\n");
}

static uint64_t running;
static unsigned runs;

/* Says which program it is that does not end. */
static void *watchdog(void *arg) {
    unsigned last = 0, idle = 0;

    while (idle < 20) {
        unsigned now = __atomic_load_n(&runs, __ATOMIC_RELAXED);

        sleep(1);
        idle = now == last ? idle + 1 : 0;
        last = now;
    }
    strcpy(why, "does not end");
    show(running, 99);
    _exit(1);
}

/* The program has written RDRAND or RDSEED over itself. */
static bool rolls_dice(void) {
    for (unsigned at = CODE; at < CODE_END - 2; at++)
        if (A.ram[program_phys(at)] == 0x0f && A.ram[program_phys(at + 1)] == 0xc7 &&
            A.ram[program_phys(at + 2)] >= 0xf0)
            return true;
    return false;
}

/* It has written itself: what it leaves undefined is not known any more. */
static bool rewritten(void) {
    for (unsigned k = 0; k < program.len; k++)
        if (A.ram[program_phys((program.base & 0xfffff) + k)] != program.b[k])
            return true;
    return false;
}

/* Places the program, maybe over a page's end, and runs it. False: it differs. */
static bool one_program(uint64_t seed, unsigned insns) {
    static const unsigned offsets[] = {0, 0, 0x40, 0xff0, 0xfc0, 0xff9, 0xffe};

    running = seed;
    rnd_seed(seed * 0x9e3779b97f4a7c15ull + 1);
    for (unsigned k = 0; k < 4; k++)
        rnd();
    program.mode = one_in(3) ? MODE_32 : MODE_64;
    program.base = CODE + offsets[pick(ARRAY_SIZE(offsets))];
    if (program.mode == MODE_64 && one_in(3))
        program.base |= HIGH;
    load_tables(&A);
    load_tables(&B);
    program_random_pages();
    program_random_start();
    for (unsigned s = 0; s < SEG_COUNT; s++)
        program.segbase[s] = program.mode == MODE_64 && s != SEG_FS && s != SEG_GS
                                 ? 0
                                 : start.v.seg[s].base;
    for (unsigned k = 0; k < sizeof(start.data); k++)
        start.data[k] = (uint8_t)rnd();
    program_make(insns);
    for (unsigned run = 0; run < (program_how.knots ? KNOT_RUNS : 4); run++) {
        struct guest *const both[] = {&A, &B};

        if (run == 1)
            program_random_pages();
        if (run == 2 || program_how.knots)
            program_random_start();
        if (program_how.knots)
            knots_registers(&program.alone, start.v.gpr);
        if (run == 3)
            program_random_segments(&start.v, start.v.cpl == 3);
        for (unsigned k = 0; k < 2; k++) {
            if (run != 1)
                poke_code(both[k], program.base & 0xfffff, program.b, program.len);
            load_start(both[k]);
        }
        if (interp_step(A.ip, STEPS) != EXIT_halt) {
            excused[ENDLESS]++; /* it wrote itself a loop, or shut down */
            for (unsigned at = CODE; at < CODE_END; at += 0x1000)
                guest_write(&B, program_phys(at), A.ram + program_phys(at), 0x1000);
            return true;
        }
        __atomic_add_fetch(&runs, 1, __ATOMIC_RELAXED);
        if (guest_run(&B) != EXIT_halt) {
            strcpy(why, "bt did not halt");
            show(seed, run);
            return false;
        }
        if (!same(seed)) {
            bool dice = rolls_dice();

            if (dice || (program_how.liveness && rewritten())) {
                excused[dice ? DICE : REWRITTEN]++;
                return true;
            }
            show(seed, run);
            return false;
        }
    }
    return true;
}

static uint64_t first_seed = 1, count = 3000, wanted_failures = 1;

static void programs(const struct bt_options *opt, unsigned insns) {
    unsigned bad = 0, before = runs;

    program_how.liveness = opt->tr.liveness;
    signals_back();
    new_guest(&A, NULL);
    new_guest(&B, opt);
    program_how.model = B.v->cpuid;
    guard(&A);
    guard(&B);
    memset(excused, 0, sizeof(excused));
    for (uint64_t k = 0; k < count && bad < wanted_failures; k++)
        bad += !one_program(first_seed + k, insns);
    guest_free(&A);
    guest_free(&B);
    assert_int_equal(bad, 0);
    for (unsigned n = 0; n < EXCUSES; n++) {
        unsigned most = (runs - before) / excuse[n].one_in + 2;

        if (excused[n])
            fprintf(stderr, "# excused: %u of %u runs (at most %u), %s\n", excused[n],
                    runs - before, most, excuse[n].what);
        assert_true(excused[n] <= most);
    }
}

static void test_one(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs(&opt, 1);
}

static void test_one_live(void **state) {
    struct bt_options opt = bt_defaults();

    programs(&opt, 1);
}

static void test_sequences(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs(&opt, MAX_INSNS);
}

static void test_sequences_live(void **state) {
    struct bt_options opt = bt_defaults();

    programs(&opt, MAX_INSNS);
}

static void knots(struct bt_options *opt) {
    opt->tr.liveness = false;
    program_how.knots = true;
    programs(opt, 1);
}

static void test_knots(void **state) {
    struct bt_options opt = bt_defaults();

    knots(&opt);
}

static void test_knots_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.hot = 1;
    knots(&opt);
}

/* Everything that runs twice is retranslated as a hot path. */
static void test_sequences_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.hot = 1;
    programs(&opt, MAX_INSNS);
}

static int setup(void **state) {
    pthread_t dog;

    vec_init();
    if (sem_init())
        return -1;
    signals_remember();
    pthread_create(&dog, NULL, watchdog, NULL);
    programs_init();
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),           cmocka_unit_test(test_one_live),
        cmocka_unit_test(test_sequences),     cmocka_unit_test(test_sequences_live),
        cmocka_unit_test(test_sequences_hot), cmocka_unit_test(test_knots),
        cmocka_unit_test(test_knots_hot),
    };
    if (argc > 2) {
        first_seed = strtoull(argv[1], NULL, 0);
        count = strtoull(argv[2], NULL, 0);
    }
    if (argc > 3)
        wanted_failures = strtoull(argv[3], NULL, 0);
    if (argc > 4)
        cmocka_set_test_filter(argv[4]);
    return cmocka_run_group_tests(tests, setup, NULL);
}
