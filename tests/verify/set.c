#include "verify/set.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/vec.h"
#include "lib/guest.h"
#include "lib/hex.h"
#include "lib/need.h"
#include "x86/desc.h"
#include "x86/pte.h"

enum {
    RAM = 4 << 20,
    TABLES = 0x1000, /* four levels; with 32-bit code the third is the directory */
    CODE = 0x10000,
    PROGRAMS_MAX = 160,
    FRAGMENTS_MAX = 400,
};

/* --- programs --- */

#define X64 0
#define U64 SET_USER
#define X32 SET_32
#define B32 (SET_32 | SET_BASES)

/* Hexadecimal, as in tests/golden. */
static const struct {
    const char *name;
    unsigned how;
    const char *hex;
} own[] = {
    /* mov (%rdi),%rax; mov 8(%rdi),%rbx; mov %rax,16(%rdi); ret */
    {"group", X64, "488b07 488b5f08 48894710 c3"},
    {"group that reads", U64, "488b07 488b5f08 488b4f20 c3"},
    /* two groups by turns: held */
    {"held", U64, "488b07 488b1e 48894708 488b4e10 48895718 48895608 c3"},
    {"held over calls of C", X64, "488b07 488b1e 48894708 0fa2 48895708 48895608 c3"},
    {"beyond a group", U64, "488b07 48894708 488b9700060000 488b4f0c c3"},
    {"beyond a page", U64, "488b042500003000 488b1c2500103000 c3"},
    {"a write that may not be", U64, "488b07 488b5f08 4885c0 7404 48894708 c3 c3"},
    {"r14 and r15 between", U64, "488b07 4d89fe 488b5f08 4d01f7 48894710 c3"},
    {"held over bit strings", U64, "488b07 480fa31e 48894708 480fab1e 488b5710 c3"},
    {"held over a leave", U64, "488b07 c9 48894708 c9 488b5710 c3"},
    {"bits of a group", U64, "488b07 48894708 0fba2f03 0fba6f1007 c3"},
    {"a loop that steps", U64, "8b06 4883c604 0307 4883c704 ffc9 75f2 c3"},
    {"a copying loop", U64, "488b040e 4889040f 4883c108 4839d1 75ef c3"},
    {"a loop with an index", U64, "8b048e 01048f 48ffc1 4839d1 75f2 c3"},
    {"a loop of pointers", U64, "488b4008 4885c0 75f7 c3"},
    {"push, pop, call", U64, "50 53 4151 e800000000 5b 58 415e c3"},
    {"push from memory", U64, "ff33 488b4308 ff7310 5a c3"},
    {"push from memory, far", U64, "ff33 488b8300030000 58 c3"},
    {"push and read", X64, "ff33 488b03 90 c3"},
    {"push, read, move, read", X64, "ff33 488b0b 4831c0 488b5310 c3"},
    {"call through memory", U64, "ff13 488b8300020000 c3"},
    {"jump through memory", U64, "488b4b08 ff23"},
    {"jump table", U64, "ff24cd00000100"},
    {"call through a register", U64, "41ffd6 41ffe7"},
    {"ret n", U64, "c21000"},
    {"leave", U64, "488b45f8 c9 c3"},
    {"pushf, popf", X64, "9c 58 50 9d 9c 9d c3"},
    {"pushf, popf of a user", U64, "9c 58 50 9d c3"},
    {"cli, sti", X64, "fa 8b07 fb 8b5f04 c3"},
    {"cli of a user", U64, "fa fb 0f01ca 0f01cb c3"},
    {"cld, std", U64, "fc fd fc c3"},
    {"stac, clac", X64, "8b07 0f01cb 8b5f04 0f01ca 894708 c3"},
    {"swapgs", X64, "0f01f8 65488b042500000000 0f01f8 c3"},
    {"swapgs of a user", U64, "0f01f8 c3"},
    {"control registers", X64, "0f20c0 0f20d1 0f20da 0f20e3 440f20c0 c3"},
    {"control registers of a user", U64, "0f20c0 c3"},
    {"segment registers", U64, "8cd8 8ccb 418ce1 8c1f c3"},
    {"rdtsc", U64, "0f31 0f01f9 c3"},
    {"rdtsc that is not the host's", U64 | SET_NO_TSC, "0f31 0f01f9 c3"},
    {"thread", U64, "64488b042528000000 6548ff042510000000 64890b c3"},
    {"thread, far", U64, "64488b04250010 0000 6448030425f80f0000 c3"},
    {"absolute", U64, "488b042500003000 4889042508003000 8b0425fc0f3000 c3"},
    {"rip-relative", U64, "488b0510000000 48890511000000 8b0d00100000 c3"},
    {"moffs", U64, "48a10000300000000000 48a30800300000000000 a11000300000000000 c3"},
    {"moffs far apart", U64, "6448a10010200000000000 4889c1 6448a10010100000000080 c3"},
    {"moffs far apart, twice", U64, "6448a10010300000000000 6448a10010200000000080 c3"},
    {"moffs below", U64, "48a10010200000000000 48a1fc0f200000000080 c3"},
    {"addresses of 32 bits", U64, "67488b07 67488b8700020000 6748894708 c3"},
    {"displacements that move", U64, "488b8700000080 4881ef00010000 488b9700000080 c3"},
    {"rep movs", U64, "f3a4 f3a5 f348a5 66f3a5 c3"},
    {"rep stos", U64, "f3aa f3ab f348ab 66f3ab c3"},
    {"rep movs off fs", U64, "64f3a4 6548a5 c3"},
    {"movs, stos", U64, "a4 a5 48a5 66a5 aa ab 48ab 66ab c3"},
    {"other strings", U64, "ac ae a6 f3a6 f2ae c3"},
    {"a loop with rep", U64, "4889d7 4889de b910000000 f3a4 4883ea10 75ee c3"},
    {"a loop with rep stos", U64, "4889d7 b910000000 f348ab 4883ea10 75ee c3"},
    {"rep of a constant behind a callout", U64, "b903000000 a5 f3a5 c3"},
    {"a loop back to rep behind a constant", U64, "b903000000 f3a5 89d1 ffcb 75f8 c3"},
    {"the same with rep stos", U64, "b903000000 f348ab 89d1 ffcb 75f7 c3"},
    {"the same, two constants", U64, "b903000000 f3a5 b907000000 ffcb 75f5 c3"},
    {"the same, too large a one", U64, "b903000000 f3a5 b900200000 ffcb 75f5 c3"},
    {"the same, 0 first", U64, "31c9 f3a5 b903000000 ffcb 75f5 c3"},
    {"constants as addresses", U64,
     "48bf0000200000000000 48be0000300000000000 b903000000 f3a5 488b07 488b5e08 c3"},
    {"constants as addresses, far", U64,
     "48c7c7ffffffff bef0ffffff 31c9 488b07 488b1c8e 488907 48ffcf 75f3 c3"},
    {"constants that are entries' hashes", U64,
     "48be0030000001000000 4889f0 48c1ee04 4831c6 48c1ee07 81e6e0ff0300 488b06 c3"},
    {"an address shifted by 4", U64, "4889d8 48c1eb04 488b0b 48890b c3"},
    {"an address rotated by 4", U64, "c4e3fbf0cb04 488b01 488901 f3a4 c3"},
    {"bit strings", U64, "480fa307 480fab07 480fb307 480fbb07 0fa30f 0fab0f c3"},
    {"bit strings in r14, r15", U64, "4c0fa337 450fab3e 4d0fb33f c3"},
    {"exchange, add", U64, "488707 480fc107 480fb10f 480fc70f 0fc70f c3"},
    /* locked ones, aligned in their groups or not, amid other accesses */
    {"locked", U64,
     "488b07 f048ff4708 488b5f10 48894718 f00fc14f24 488b5728 48874f20 c3"},
    {"locked, in odd places", U64, "8b4703 f048ff4707 8b5f0f f0480fb14f13 488b571b c3"},
    {"r14 and r15", U64, "4d89fe 4d01f7 4c8b37 4c893f 4f8d347e 49ffc6 c3"},
    {"r14 and r15, memory", U64, "4d8b36 4d8b7e08 4d897e10 4c01b7 00010000 c3"},
    {"lends r14", U64, "4c8b37 4983c601 4c893f 4983c701 4883c708 48ffc9 75e9 c3"},
    {"vectors", U64, "0f2807 0f114710 c5fc1007 c5fc114720 f30f1007 660f6e07 c3"},
    /* vmovups zmm with displacements, to and fro; vaddps with a broadcast, a rounding, a
     * mask of registers; kmovq; vpcompressd and vcvttpd2dq to memory, unmasked */
    {"AVX-512", U64,
     "62f17c481007 62f17c48114701 62f17c485817 62f17c585817 62f17c78d1c2 62f17c4b58c2 "
     "c4e1f8900f c4e1f8914f08 62f27d488b07 62f17d481187 00020000 c3"},
    {"AVX-512, high registers", U64, "62e17c481007 62e16c405807 62b16c4058c7 c3"},
    {"AVX-512, general registers", U64,
     "62f27d487cc0 62d27d487cc6 62d27d487cc7 c5fb93c1 c57b93f1 c5fb92cb c3"},
    {"AVX-512, groups", U64,
     "62f17c481007 62f17c48104f01 62f17c48114702 62f17c585817 62f17c58584f04 c3"},
    {"AVX-512, masked", U64,
     "62f17c4b1007 62f17e4b7f07 62f27d4b900cc7 62f27d4ba00cc7 62f27d4b8b07 c3"},
    {"vectors, general registers", U64, "66480f7ec0 66490f6ec6 660f3a16c001 c3"},
    {"x87", U64, "d907 dd07 db2f df27 d93f d92f ddd8 dbe2 d9f8 dff1 dbf1 c3"},
    {"x87 environments", U64, "d937 dd37 9b c3"},
    {"gathers, masks", U64, "c4e271920487 c4e2718e07 660ff7c1 0fae07 0fae2f c3"},
    {"what is C's", U64, "0fa2 0fc7f0 0f01d0 0f01f9 0fae5f00 0f0107 d7 c3"},
    {"flags", U64, "4829c8 9c 0f92c0 9f 9e 4811ca 48034708 0f94c1 c3"},
    {"division", U64, "48f7f1 48f73f 48f7ff c3"},
    {"loop", U64, "488b07 e2fb c3"},
    {"jrcxz", U64, "e302 8b07 67e3fb c3"},
    {"goes back into its middle", U64, "90 90 8b07 90 75fb c3"},
    {"goes back to its start", U64, "8b07 90 eb fb"},
    {"calls itself", U64, "8b07 e8f9ffffff c3"},
    {"a path", U64, "4885c0 7404 488b07 c3 488b5f08 ebf7"},
    {"a path with a call", U64, "e806000000 488b07 ebf6 90 488b5f08 c3"},
    {"system calls", U64, "0f05 8b07 0f34 c3"},
    {"returns of system calls", X64, "480f07 480f35 c3"},
    {"iret, int", X64, "cd80 48cf"},
    {"ports", X64, "e460 ee c3"},
    {"high bytes", U64, "88e3 8a27 00fc 0fb6cd c3"},
    {"small sizes", U64, "668b07 66894702 8a07 884701 660307 c3"},
    {"32-bit group", X32, "8b07 8b5f04 894708 c3"},
    {"32-bit frame", X32, "8b4508 8b5d0c 8945fc c9 c3"},
    {"32-bit stack", X32, "50 53 ff33 58 e800000000 9c 9d c20400"},
    {"32-bit strings", X32, "f3a4 f3ab a5 aa c3"},
    {"32-bit bits", X32, "0fa307 0fab07 c3"},
    {"32-bit moffs", X32, "a100003000 a304003000 a4 40 48 c3"},
    {"32-bit thread", X32, "65a114000000 658b0d00000000 c3"},
    {"32-bit loop", X32, "8b048e 01048f 41 39d1 75f6 c3"},
    {"32-bit bases", B32, "8b07 8b5f04 894708 8b4508 648b07 a100003000 c3"},
    {"32-bit bases, strings", B32, "f3a4 f3ab a5 aa 50 58 c3"},
    {"counted", U64 | SET_COUNTED, "488b07 7502 eb03 e8f6ffffff 0fa2 488b4708 c3"},
    {"counted loop", U64 | SET_COUNTED, "8b06 4883c604 ffc9 75f7 8b07 c3"},
    {"counted 32-bit loop", X32 | SET_COUNTED, "8b06 83c604 49 75f8 e2f6 c3"},
};

static struct set_program programs[PROGRAMS_MAX];
static size_t nprograms;

static void add(const char *name, unsigned how, const char *hex) {
    uint8_t *code = malloc(strlen(hex) + 1);

    need(code && nprograms < PROGRAMS_MAX, "no room for another program");
    programs[nprograms++] = (struct set_program){
        .name = strdup(name), .how = how, .code = code, .len = hex_bytes(hex, code)};
}

static void add_golden(const char *path) {
    static char text[65536];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    need(n, path);
    fclose(f);
    text[n] = '\0';
    if (strstr(text, "--mode 16"))
        return;
    add(path, strstr(text, "--mode 32") ? SET_32 : 0, text);
    add(path, (strstr(text, "--mode 32") ? SET_32 : 0) | SET_USER, text);
}

const struct set_program *set_programs(size_t *count) {
    glob_t g;

    if (!nprograms) {
        for (size_t n = 0; n < ARRAY_SIZE(own); n++)
            add(own[n].name, own[n].how, own[n].hex);
        need(!glob("tests/golden/*.hex", 0, NULL, &g), "tests/golden is not here");
        for (size_t n = 0; n < g.gl_pathc; n++)
            add_golden(g.gl_pathv[n]);
        globfree(&g);
    }
    *count = nprograms;
    return programs;
}

/* --- the machine --- */

struct set {
    struct guest g;
    const struct ccf *seen[FRAGMENTS_MAX];
    size_t nseen;
};

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
}

static int on_irq_ack(void *arg) {
    return -1;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook, .irq_ack = on_irq_ack};

struct set *set_new(const char *options, enum set_kind kind) {
    struct set *s = calloc(1, sizeof(*s));
    struct bt_options opt = bt_defaults();
    const struct guest_config cfg = {.ram = RAM,
                                     .policy = MMU_FLUSH,
                                     .cpuid = {.model = "host"},
                                     .hooks = &hooks,
                                     .counted = kind == SET_KIND_COUNTED,
                                     .smp = kind == SET_KIND_SMP,
                                     .bt = &opt};
    char why[128];

    need(s, "no memory");
    need(!bt_options_parse(&opt, options, why, sizeof(why)), options);
    guest_new(&s->g, &cfg);
    return s;
}

void set_free(struct set *s) {
    guest_free(&s->g);
    free(s);
}

struct tr_env *set_env(struct set *s) {
    return &s->g.bt->sh->env;
}

bool set_unsound(const struct set *s) {
    return s->g.bt->sh->unsound;
}

/* The first 2 MiB, where they are. */
static void map(struct set *s, bool wide) {
    for (uint32_t k = 0; k < 512; k++) {
        uint64_t e = k << 12 | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D;

        guest_put(&s->g, TABLES + 0x3000 + k * (wide ? 8 : 4), e, wide ? 8 : 4);
    }
    guest_put(&s->g, TABLES, (TABLES + (wide ? 0x1000 : 0x3000)) | 7, wide ? 8 : 4);
    if (!wide)
        return;
    guest_put(&s->g, TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
    guest_put(&s->g, TABLES + 0x2000, (TABLES + 0x3000) | 7, 8);
}

static void start(struct set *s, unsigned how) {
    unsigned dpl = how & SET_USER ? 3 : 0;
    bool wide = !(how & SET_32);
    struct vcpu *v = s->g.v;

    mem_reset(v->mem);
    vcpu_reset(v);
    map(s, wide);
    v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET;
    v->cr3 = TABLES;
    v->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXSAVE | (wide ? X86_CR4_PAE : 0);
    v->xcr0 = vec_supported();
    v->efer = wide ? X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE : 0;
    v->tsc_host = !(how & (SET_NO_TSC | SET_COUNTED));
    for (unsigned n = 0; n < SEG_COUNT; n++) {
        uint16_t ar = n == SEG_CS ? (wide ? 0xa09b : 0xc09b) : 0xc093;

        v->seg[n] = (struct segment){.sel = (uint16_t)(8 * n + 8 + dpl),
                                     .ar = (uint16_t)(ar | dpl << X86_AR_DPL_SHIFT),
                                     .limit = UINT32_MAX,
                                     .base = n != SEG_CS && (how & SET_BASES) ? 0x40 : 0};
    }
    v->cpl = (uint8_t)dpl;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_flush_all(v);
    mmu_context_changed(v);
    v->shadow.bank = v->mmu->data;
}

static void to_set(void *arg, struct ccf *c) {
    struct set *s = arg;

    need(s->nseen < FRAGMENTS_MAX, "too many fragments");
    s->seen[s->nseen++] = c;
}

/* For VA and what direct branches reach from there within the program. */
static void translate_from(struct set *s, const struct set_program *p, uint32_t key,
                           uint64_t va) {
    const uint8_t *page = mem_host(s->g.v->mem, gpa(va & ~0xfffull), 1);
    bool fault;
    struct ccf *c;

    if (va < CODE || va >= CODE + p->len || tc_lookup(&s->g.bt->sh->tc, va, page, key))
        return;
    s->g.v->rip = va;
    c = bt_translate(s->g.bt, key, &fault);
    for (unsigned n = 0; c && n < c->code.nlinks; n++)
        translate_from(s, p, key, tr_link_target(&c->code.links[n], va & ~4095ull));
}

static void link_all(struct set *s) {
    for (size_t n = 0; n < s->nseen; n++) {
        struct ccf *c = (struct ccf *)(uintptr_t)s->seen[n];

        for (unsigned k = 0; k < c->code.nlinks; k++) {
            struct ccf *to =
                tc_lookup(&s->g.bt->sh->tc,
                          tr_link_target(&c->code.links[k], c->code.va & ~4095ull),
                          c->code.page, c->code.key);

            if (to)
                tc_link(&s->g.bt->sh->tc, &c->code.links[k], to);
        }
    }
}

/* As if all of it had been executed often, and each indirect branch had gone to its
 * start. */
static void heat(struct set *s) {
    size_t cold = s->nseen;

    for (unsigned n = 0; n < 1u << TR_HEAT_BITS; n++)
        tr_counts(s->g.v)->heat[n] = 0;
    for (unsigned n = 0; n < 1u << TR_GUESS_BITS; n++)
        tr_counts(s->g.v)->guess[n] = CODE;
    for (size_t n = 0; n < cold; n++) {
        struct ccf *c = (struct ccf *)(uintptr_t)s->seen[n];

        if (c->code.key & KEY_SINGLE)
            continue;
        s->g.v->rip = c->code.va;
        bt_heat_up(s->g.bt, c);
    }
}

static void collect(struct set *s) {
    s->nseen = 0;
    tc_each(&s->g.bt->sh->tc, to_set, s);
}

void set_translate(struct set *s, const struct set_program *p,
                   void (*fn)(void *arg, struct set *s, const struct tr_code *c),
                   void *arg) {
    uint32_t key;

    bt_flush(s->g.bt);
    start(s, p->how);
    guest_write(&s->g, CODE, p->code, p->len);
    key = tr_key(s->g.v);
    tc_select_key(&s->g.bt->sh->tc, s->g.v, key);
    translate_from(s, p, key, CODE);
    translate_from(s, p, key | KEY_SINGLE, CODE);
    collect(s);
    link_all(s);
    for (size_t n = 0; n < s->nseen; n++)
        fn(arg, s, &s->seen[n]->code);
    heat(s);
    collect(s);
    for (size_t n = 0; n < s->nseen; n++)
        if (s->seen[n]->code.hot)
            fn(arg, s, &s->seen[n]->code);
}

void set_each(const char *options, bool bmi2,
              void (*fn)(void *arg, struct set *s, const struct tr_code *c), void *arg) {
    struct set *plain = set_new(options, SET_KIND_PLAIN),
               *counted = set_new(options, SET_KIND_COUNTED),
               *smp = set_new(options, SET_KIND_SMP);
    size_t count;
    const struct set_program *p = set_programs(&count);

    if (!bmi2)
        plain->g.bt->sh->env.has_bmi2 = counted->g.bt->sh->env.has_bmi2 =
            smp->g.bt->sh->env.has_bmi2 = false;
    for (size_t n = 0; n < count; n++) {
        set_translate(p[n].how & SET_COUNTED ? counted : plain, &p[n], fn, arg);
        if (!(p[n].how & SET_COUNTED))
            set_translate(smp, &p[n], fn, arg);
    }
    /* What is refused when it is made is not among the fragments. */
    need(!plain->g.bt->sh->unsound && !counted->g.bt->sh->unsound &&
             !smp->g.bt->sh->unsound,
         "the verifier found something");
    set_free(plain);
    set_free(counted);
    set_free(smp);
}

static void say(void *arg, const char *text) {
    printf("%s\n", text);
}

void set_report(const struct tr_env *env, const struct tr_code *c,
                const struct finding *f) {
    const struct bt_listing out = {.line = say};

    verify_report(env, c, f, &out);
}

enum exit_reason set_run(struct set *s, const struct set_program *p) {
    bt_flush(s->g.bt);
    start(s, p->how);
    guest_write(&s->g, CODE, p->code, p->len);
    s->g.v->rip = CODE;
    return guest_run(&s->g);
}
