/* What direct execution keeps of pages: which code may run (scan.c), what a cell maps
 * (space.c), where code is mapped (codes.c); and which programs are (policy.c). */
#include "lib/unit.h"

#include "direct/cell_int.h"
#include "direct/codes.h"
#include "direct/direct_int.h"
#include "direct/scan.h"
#include "direct/space.h"

/* --- scan --- */

static uint8_t page[4096];

/* A page of NOPs with these bytes at AT. */
static bool refuses(unsigned at, const char *bytes, unsigned len, const char *next,
                    unsigned how) {
    memset(page, 0x90, sizeof(page));
    for (unsigned n = 0; n < len && at + n < sizeof(page); n++)
        page[at + n] = (uint8_t)bytes[n];
    return scan_refuses(&(struct scan_page){page, NULL, (const uint8_t *)next}, how);
}

#define REFUSES(bytes)                                                                   \
    refuses(1000, bytes, sizeof(bytes) - 1, "\x90\x90", SCAN_PKRU | SCAN_AUX)

static void test_refused(void **state) {
    assert_true(REFUSES("\x0f\xa2"));                 /* cpuid */
    assert_true(REFUSES("\x0f\x01\xf9"));             /* rdtscp */
    assert_true(REFUSES("\x0f\x01\xd9"));             /* vmmcall */
    assert_true(REFUSES("\x0f\x01\x0c\x24"));         /* sidt [rsp] */
    assert_true(REFUSES("\x0f\x01\xe0"));             /* smsw eax */
    assert_true(REFUSES("\x0f\x03\xc0"));             /* lsl eax, eax */
    assert_true(REFUSES("\x48\x0f\x02\xc3"));         /* lar rax, ebx */
    assert_true(REFUSES("\x0f\x34"));                 /* sysenter */
    assert_true(REFUSES("\xf3\x0f\xc7\xf8"));         /* rdpid */
    assert_true(REFUSES("\xcd\x80"));                 /* int 80h */
    assert_true(REFUSES("\x66\x66\x2e\x0f\x01\xf9")); /* whatever is in front */
}

static void test_good(void **state) {
    assert_false(REFUSES("\x0f\x05"));             /* a system call */
    assert_false(REFUSES("\x0f\x31"));             /* rdtsc */
    assert_false(REFUSES("\xb8\x0f\xa2\x00\x00")); /* mov eax, a20fh */
    assert_false(REFUSES("\xb8\xcd\x80\x00\x00")); /* mov eax, 80cdh */
    assert_false(REFUSES("\x48\xb8\x0f\x01\xd0\x00\x00\x00\x00\x00")); /* in a number */
    assert_false(refuses(1000, "\x0f\xae\x20", 3, "\x90\x90", 0));     /* xsave [rax] */
    assert_false(REFUSES("\x0f\x01\xd6"));                             /* xtest */
    assert_false(refuses(1000, "\x0f\x01\xef", 3, "\x90\x90", 0));     /* wrpkru */
    assert_false(refuses(1000, "\x0f\x01\xf9", 3, "\x90\x90", 0));     /* rdtscp */
    assert_false(refuses(1000, "\xf3\x0f\xc7\xf8", 4, "\x90\x90", 0)); /* rdpid */
    assert_true(refuses(1000, "\x0f\x01\xd0", 3, "\x90\x90", SCAN_XCR0)); /* xgetbv */
    assert_true(refuses(1000, "\x0f\xae\x20", 3, "\x90\x90", SCAN_XCR0));
    assert_true(
        refuses(1000, "\x48\x0f\xc7\x21", 4, "\x90\x90", SCAN_XCR0));      /* xsavec64 */
    assert_false(refuses(1000, "\x0f\xc7\x09", 3, "\x90\x90", SCAN_XCR0)); /* cmpxchg8b */
}

#define OWN_REFUSES(bytes)                                                               \
    refuses(1000, bytes, sizeof(bytes) - 1, "\x90\x90",                                  \
            SCAN_PKRU | SCAN_AUX | SCAN_XCR0 | SCAN_OWN)

/* Tables of numbers among what a program writes look like what no compiler makes. */
static void test_own(void **state) {
    assert_false(OWN_REFUSES("\x0f\x01\x20\x00"));     /* smsw [rax] */
    assert_false(OWN_REFUSES("\x0f\x01\x0f"));         /* sidt [rdi] */
    assert_false(OWN_REFUSES("\x0f\x01\xe0"));         /* smsw eax */
    assert_false(OWN_REFUSES("\x0f\x34"));             /* sysenter */
    assert_false(OWN_REFUSES("\x0f\x03\xc0"));         /* lsl eax, eax */
    assert_false(OWN_REFUSES("\xcd\x80"));             /* int 80h */
    assert_false(OWN_REFUSES("\x0f\xa2"));             /* cpuid, which faults */
    assert_true(OWN_REFUSES("\x0f\x01\xd0"));          /* xgetbv */
    assert_true(OWN_REFUSES("\x0f\x01\xf9"));          /* rdtscp */
    assert_true(OWN_REFUSES("\xf3\x0f\xc7\xf8"));      /* rdpid */
    assert_true(OWN_REFUSES("\x0f\x01\xd9"));          /* vmmcall */
    assert_true(OWN_REFUSES("\x0f\x01\xef"));          /* wrpkru */
    assert_true(OWN_REFUSES("\x0f\xae\x37"));          /* xsaveopt [rdi] */
    assert_true(OWN_REFUSES("\x48\x0f\xae\x37"));      /* xsaveopt64 [rdi] */
    assert_false(OWN_REFUSES("\x66\x0f\xae\x37"));     /* clwb [rdi] */
    assert_false(OWN_REFUSES("\x66\x41\x0f\xae\x37")); /* clwb [r15] */
}

/* What begins here ends in the next page, whose bytes may be unknown. */
static void test_across(void **state) {
    assert_true(refuses(4095, "\x0f", 1, "\xa2\x90", 0));
    assert_true(refuses(4094, "\x0f\x01", 2, "\xf9\x90", SCAN_AUX));
    assert_false(refuses(4095, "\x0f", 1, "\x05\x90", 0));
    assert_false(refuses(4094, "\x0f\x01", 2, "\x00\x90", 0));
    assert_true(refuses(1000, "\x0f\x01\xef", 3, "\x90\x90", SCAN_PKRU));
    assert_false(refuses(4095, "\x0f", 1, NULL, 0));
    assert_false(refuses(4094, "\x0f\x01", 2, NULL, 0));
}

/* Near the beginning, what is in front of the page says where instructions begin. */
static void test_beginning(void **state) {
    uint8_t before[SCAN_BEFORE];

    memset(before, 0x90, sizeof(before));
    before[SCAN_BEFORE - 1] = 0xb8; /* mov eax, ... */
    assert_true(refuses(0, "\x0f\xa2", 2, "\x90\x90", 0));
    assert_false(scan_refuses(&(struct scan_page){page, before, page}, 0));
    before[SCAN_BEFORE - 1] = 0x90;
    assert_true(scan_refuses(&(struct scan_page){page, before, page}, 0));
    before[SCAN_BEFORE - 1] = 0x48; /* a prefix */
    assert_true(scan_refuses(&(struct scan_page){page, before, page}, 0));
    before[SCAN_BEFORE - 1] = 0x0f; /* the instruction begins in front */
    assert_false(refuses(0, "\x05", 1, "\x90\x90", 0));
    assert_false(scan_refuses(&(struct scan_page){page, before, page}, 0));
    page[0] = 0xa2;
    assert_false(scan_refuses(&(struct scan_page){page, NULL, page}, 0));
    assert_true(scan_refuses(&(struct scan_page){page, before, page}, 0));
}

static uint16_t places[4];

static int places_of(unsigned at, const char *bytes, unsigned len) {
    refuses(at, bytes, len, "\x90\x90", 0);
    return scan_places(&(struct scan_page){page, NULL, (const uint8_t *)"\x90\x90"},
                       SCAN_XCR0, places, ARRAY_SIZE(places));
}

/* Instructions that are to fault, and where they get another byte. */
static void test_places(void **state) {
    assert_int_equal(places_of(1000, "\x90", 1), 0);
    assert_int_equal(places_of(1000, "\x0f\xa2\x90\x48\x0f\xc7\x21", 7), 2);
    assert_int_equal(places[0], 1001);
    assert_int_equal(places[1], 1005);
    assert_int_equal(places_of(4094, "\xcd\x80", 2), 1);
    assert_int_equal(places[0], 4095);
    /* More than there is room for, one that the page has a part of only, and one that
     * begins where some ways through the code have none. */
    assert_int_equal(places_of(1000, "\x0f\xa2\x0f\xa2\x0f\xa2\x0f\xa2", 8), 4);
    assert_int_equal(places_of(1000, "\x0f\xa2\x0f\xa2\x0f\xa2\x0f\xa2\x0f\xa2", 10), -1);
    /* Stores whose ends are other instructions, where one begins to read within them: so
     * long a row of them stands before an XSAVE of ld.so's. */
#define STORE "\x48\x89\x94\x24\x78\x02\0\0" /* mov [rsp+278h], rdx */
#define STORES STORE STORE STORE STORE STORE STORE STORE STORE
    assert_int_equal(places_of(1000, STORES STORES "\x0f\xae\x64\x24\x40", 133), 1);
    assert_int_equal(places[0], 1129);
    assert_int_equal(places_of(4095, "\x0f", 1), 0);
    memset(page, 0x90, sizeof(page));
    page[4095] = 0x0f;
    assert_int_equal(
        scan_places(&(struct scan_page){page, NULL, (const uint8_t *)"\xa2\x90"}, 0,
                    places, ARRAY_SIZE(places)),
        -1);
    assert_int_equal(places_of(10, "\xb8\x0f\xa2\x90\x90", 5), -1);
}

static int own_places(const char *bytes, unsigned len) {
    refuses(1000, bytes, len, "\x90\x90", 0);
    return scan_places(&(struct scan_page){page, NULL, NULL},
                       SCAN_PKRU | SCAN_AUX | SCAN_XCR0 | SCAN_OWN, places,
                       ARRAY_SIZE(places));
}

/* Of what a program has made itself XGETBV alone may have another byte, where it cannot
 * be a number: behind what clears ECX. */
static void test_own_places(void **state) {
    assert_int_equal(own_places("\x31\xc9\x0f\x01\xd0", 5), 1);
    assert_int_equal(places[0], 1003);
    assert_int_equal(own_places("\x33\xc9\x90\x0f\x01\xd0", 6), 1);
    assert_int_equal(own_places("\xb9\0\0\0\0\x0f\x01\xd0", 8), 1);
    assert_int_equal(own_places("\xb9\1\0\0\0\x0f\x01\xd0", 8), -1);
    assert_int_equal(own_places("\x0f\x01\xd0", 3), -1);
    assert_int_equal(own_places("\x31\xc9\x0f\x01\xf9", 5), -1); /* rdtscp */
    assert_int_equal(own_places("\x31\xc9\x0f\xae\x37", 5), -1); /* xsaveopt [rdi] */
    assert_int_equal(own_places("\x31\xc9\x0f\xa2", 4), 0);      /* cpuid, which faults */
}

/* --- what a cell maps --- */

static struct space S;

#define PAGE(n) (0x7f0000000000ull + (uint64_t)(n)*4096)

static void test_space(void **state) {
    assert_int_equal(space_init(&S), 0);
    S.cell = (struct cell *)&S; /* there is one */
    for (unsigned n = 0; n < 50000; n++)
        assert_true(space_note(&S, PAGE(n), 1 + n % 7, 0));
    for (unsigned n = 0; n < 50000; n += 3)
        space_forget(&S, PAGE(n));
    for (unsigned n = 0; n < 50000; n++)
        assert_int_equal(space_rights(&S, PAGE(n)), n % 3 ? 1 + n % 7 : 0);
    assert_int_equal(space_rights(&S, PAGE(50000)), 0);
    space_clear(&S);
    for (unsigned n = 0; n < 50000; n++)
        assert_int_equal(space_rights(&S, PAGE(n)), 0);
    space_free(&S);
}

/* All that is mapped can be gone through, in the order in which it came. */
static void test_noted(void **state) {
    unsigned rights;
    uint32_t ram;

    assert_int_equal(space_init(&S), 0);
    S.cell = (struct cell *)&S;
    for (unsigned n = 0; n < 1000; n++)
        assert_true(space_note(&S, PAGE(n * 7), 1 + n % 7, n + 5));
    assert_true(space_note(&S, PAGE(21), 2, 99)); /* that is there */
    space_drop(&S, PAGE(14));
    space_forget(&S, PAGE(7));
    assert_int_equal(S.used, 1000);
    for (unsigned n = 0; n < 1000; n++) {
        assert_int_equal(space_noted(&S, n, &rights, &ram), PAGE(n * 7));
        assert_int_equal(rights, n == 1 || n == 2 ? 0 : n == 3 ? 2 : 1 + n % 7);
        assert_int_equal(ram, n == 3 ? 99 : n + 5);
    }
    space_set_large(&S, PAGE(3));
    assert_true(space_is_large(&S, PAGE(3) | 0x1fffff));
    assert_false(space_is_large(&S, PAGE(512)));
    space_clear(&S);
    assert_false(space_is_large(&S, PAGE(3)));
    assert_int_equal(S.used, 0);
    space_free(&S);
}

static void test_full(void **state) {
    unsigned n = 0;

    assert_int_equal(space_init(&S), 0);
    while (space_note(&S, PAGE(n), 1, 0))
        n++;
    assert_int_equal(n, SPACE_PAGES / 4 * 3);
    assert_true(space_note(&S, PAGE(5), 7, 0)); /* that is there */
    assert_int_equal(space_rights(&S, PAGE(5)), 7);
    space_clear(&S);
    assert_true(space_note(&S, PAGE(n), 1, 0));
    space_free(&S);
}

/* Generations come again; what was noted in an old one does not. */
static void test_generations(void **state) {
    assert_int_equal(space_init(&S), 0);
    for (unsigned n = 0; n < 70000; n++) {
        assert_int_equal(space_rights(&S, PAGE(n % 16)), 0);
        assert_true(space_note(&S, PAGE(n % 16), 3, 0));
        space_clear(&S);
    }
    space_free(&S);
}

static void test_dropped(void **state) {
    memset(&S, 0, sizeof(S));
    assert_int_equal(space_init(&S), 0);
    assert_true(space_note(&S, PAGE(1), 1, 0));
    space_drop(&S, PAGE(1)); /* there is no cell */
    assert_int_equal(S.nstale, 0);
    S.cell = (struct cell *)&S;
    space_drop(&S, PAGE(2)); /* it is not mapped */
    assert_int_equal(S.nstale, 0);
    space_drop(&S, PAGE(1));
    assert_int_equal(S.nstale, 1);
    assert_int_equal(S.stale[0], PAGE(1));
    space_drop(&S, PAGE(1)); /* once is enough */
    assert_int_equal(S.nstale, 1);
    space_forget(&S, PAGE(1));
    assert_true(space_note(&S, PAGE(1), 5, 0));
    space_restrict(&S, PAGE(1), 7);
    space_restrict(&S, PAGE(1), 5);
    assert_int_equal(S.nstale, 1);
    space_restrict(&S, PAGE(1), 1);
    assert_int_equal(S.nstale, 2);
    for (unsigned n = 2; n < SPACE_STALE + 1; n++) {
        assert_false(S.all_stale);
        assert_true(space_note(&S, PAGE(n), 1, 0));
        space_drop(&S, PAGE(n));
    }
    assert_true(S.all_stale);
    space_free(&S);
}

/* --- where code is --- */

static struct codes C;
static unsigned seen, seen_space;
static uint64_t seen_at;

static void see(void *arg, unsigned space, uint64_t at) {
    seen++;
    seen_space = space;
    seen_at = at;
}

static void test_codes(void **state) {
    codes_clear(&C);
    for (unsigned n = 1; n < CODES; n++)
        assert_true(codes_add(&C, n, n % 17, PAGE(n)));
    assert_false(codes_add(&C, CODES, 0, PAGE(0)));
    assert_true(codes_add(&C, 7, 7, PAGE(7))); /* that is there */
    for (unsigned n = 1; n < CODES; n++) {
        seen = 0;
        codes_each(&C, n, see, NULL);
        assert_int_equal(seen, 1);
        assert_int_equal(seen_space, n % 17);
        assert_int_equal(seen_at, PAGE(n));
    }
    codes_clear(&C);
    assert_true(codes_add(&C, 3, 1, PAGE(1)));
    assert_true(codes_add(&C, 3, 2, PAGE(1)));
    assert_true(codes_add(&C, 3, 2, PAGE(9)));
    seen = 0;
    codes_each(&C, 3, see, NULL);
    assert_int_equal(seen, 3);
    codes_each(&C, 4, see, NULL);
    assert_int_equal(seen, 3);
}

/* --- policy --- */

#define OFTEN 1000u       /* ticks of patience: each look counts */
#define SELDOM UINT64_MAX /* none does */

static struct direct D;
static struct direct_shared SH;
static struct code_page known[256];
static struct shadow_bank fetches;
static struct mmu M = {.code = &fetches};
static struct cell_gate gate;
static struct counters counts;

static void look(unsigned n, uint64_t patience) {
    D.patience = patience;
    while (n--)
        direct_sample(&D);
}

#define LONG (1ull << 40) /* ticks, of patience */

/* Each is so many ticks after the one before. */
static void look_after(unsigned n, uint64_t ticks) {
    while (n--) {
        for (unsigned k = 0; k < ARRAY_SIZE(D.program); k++)
            D.program[k].seen_at = __builtin_ia32_rdtsc() - ticks;
        look(1, LONG);
    }
}

/* A program of user code that has been found computing N times. */
static struct vcpu *computes(unsigned n) {
    static struct vcpu v;

    memset(&v, 0, sizeof(v));
    v.cpl = 3;
    v.mode = MODE_64;
    v.cr3 = 0x5000;
    v.seg[SEG_FS].base = 0x7f1234567740;
    v.mmu = &M;
    v.cnt = &counts;
    counts.bt_translator_ticks = 0;
    SH = (struct direct_shared){.page = known, .pages = ARRAY_SIZE(known)};
    D = (struct direct){
        .v = &v, .sh = &SH, .gate = &gate, .mode = DIRECT_AUTO, .cpu = -1};
    direct_option_set.defaults(&D.opt);
    look(n, OFTEN);
    return &v;
}

static void test_computes(void **state) {
    struct vcpu *v = computes(1);

    assert_false(v->away);
    look(50, SELDOM); /* one interrupt makes several */
    assert_false(v->away);
    look(10, OFTEN);
    assert_true(v->away);
    v->seg[SEG_FS].base += 100 << 20; /* another thread of it */
    look(1, OFTEN);
    assert_true(v->away);
}

/* One whose code is translated all the time gets a cell at once. */
static void test_cold(void **state) {
    struct vcpu *v = computes(1);
    uint64_t since = __builtin_ia32_rdtsc();

    assert_false(v->away);
    while (__builtin_ia32_rdtsc() - since < 1000000)
        ;
    counts.bt_translator_ticks += 500000;
    since = D.looked_at;
    look(1, OFTEN);
    assert_int_equal(v->away, 500000 * 4 > D.looked_at - since);
    assert_int_equal(D.n.cold, v->away);
    v = computes(1);
    since = __builtin_ia32_rdtsc();
    while (__builtin_ia32_rdtsc() - since < 1000000)
        ;
    counts.bt_translator_ticks += 200000;
    look(1, OFTEN);
    assert_false(v->away);
    v = computes(1);
    D.opt.cold = false;
    since = __builtin_ia32_rdtsc();
    while (__builtin_ia32_rdtsc() - since < 1000000)
        ;
    counts.bt_translator_ticks += 1ull << 40;
    look(1, OFTEN);
    assert_false(v->away);
}

/* There are no cells now: it is known that some would have been used for long. */
static void test_gate(void **state) {
    struct vcpu *v = computes(0);

    gate.closed = true;
    look_after(31, LONG / 500);
    assert_false(gate.wanted);
    look_after(31, LONG / 5); /* it pauses */
    assert_false(gate.wanted);
    look_after(30, LONG / 500);
    assert_false(gate.wanted);
    look_after(1, LONG / 500);
    assert_true(gate.wanted);
    assert_false(v->away);
    gate = (struct cell_gate){0};
    look(1, OFTEN);
    assert_true(v->away);
}

/* With the page tables of one that has ended; or a thread elsewhere in memory. */
static void test_another(void **state) {
    struct vcpu *v = computes(10);

    for (unsigned n = 0; n < 6; n++) {
        assert_true(v->away);
        v->seg[SEG_FS].base ^= 1ull << 40;
        look(1, OFTEN);
    }
    direct_program_flushed(&D);
    v->seg[SEG_FS].base ^= 1ull << 40;
    look(1, OFTEN);
    assert_true(v->away); /* that was met before */
    direct_program_flushed(&D);
    v->seg[SEG_FS].base -= 1ull << 41;
    look(1, OFTEN);
    assert_false(v->away);
    look(10, OFTEN);
    assert_true(v->away);
    v->cr3 = 0x6000;
    look(1, OFTEN);
    assert_false(v->away);
}

/* Another one is executed, whose code is in page N of memory. */
static void execute(struct vcpu *v, unsigned n) {
    struct shadow_entry *e;

    v->rip = 0x400000 + n * 4096ull;
    e = &fetches.e[mmu_index(v->rip)];
    e->tag[MMU_EXEC] = v->rip;
    e->host = mem_ram_base(v->mem) + n * 4096ull;
    direct_program_flushed(&D);
    v->seg[SEG_FS].base += 1ull << 40;
}

static struct cell idle_cell = {.thread = 0x7fffff}; /* nobody: it has had no time */

/* It runs in a cell, NS between two exits of 8 us each, up to the first judgement. */
static void run_directly(uint64_t ns) {
    D.exit_ns = 8000;
    for (unsigned n = 0; n < 64; n++) {
        D.orders_ns -= ns; /* that much less was not the program's */
        direct_judge(&D, &idle_cell, false);
    }
}

/* Code in which programs compute is known when it is executed again; code in which they
 * do not, or which has changed its ways, is not. */
static void test_remembered(void **state) {
    struct vcpu *v = computes(0);

    memset(known, 0, sizeof(known));
    assert_int_equal(mem_create(8 << 20, &v->mem), 0);
    for (unsigned n = 0; n < 2; n++) {
        execute(v, 7 + n);
        look(3, OFTEN);
        assert_true(v->away);
        run_directly(n ? 0 : 100000);
        execute(v, 7 + n);
        look(1, OFTEN);
        assert_int_equal(v->away, !n);
    }
    assert_int_equal(D.n.remembered, 1);
    D.opt.remember = false;
    execute(v, 7);
    look(1, OFTEN);
    assert_false(v->away);
    D.opt.remember = true;
    for (unsigned n = 0; n < 4; n++) {
        execute(v, 7);
        look(1, OFTEN);
    }
    assert_false(v->away);
    mem_destroy(v->mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_good),
        cmocka_unit_test(test_across),      cmocka_unit_test(test_beginning),
        cmocka_unit_test(test_places),      cmocka_unit_test(test_own_places),
        cmocka_unit_test(test_space),       cmocka_unit_test(test_noted),
        cmocka_unit_test(test_own),         cmocka_unit_test(test_full),
        cmocka_unit_test(test_generations), cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_codes),       cmocka_unit_test(test_computes),
        cmocka_unit_test(test_cold),        cmocka_unit_test(test_another),
        cmocka_unit_test(test_remembered),  cmocka_unit_test(test_gate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
