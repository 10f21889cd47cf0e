/* The rig of forms.h. */
#include "forms.h"

struct rig rig;
uint32_t rig_count;

static uint8_t image[RIG_VEC]
    __attribute__((aligned(64))); /* vector state before a run */
static uint8_t now[RIG_VEC] __attribute__((aligned(64)));
static uint32_t components; /* of XCR0 */
static uint8_t env[108];
static uint8_t filled[3][2 * RIG_SPAN];

#define MAX_FORMS 300

#define FORM(name, text, flags) {name, CODE_(text), flags},

/* The forms of the guest's own mode. */
#define CODE_ CODE
#define B BITS("ebx", "rbx")
#define S BITS("esi", "rsi")
#define D BITS("edi", "rdi")
#define C BITS("ecx", "rcx")
#define SP_ BITS("esp", "rsp")
#define BP_ BITS("ebp", "rbp")
#define A_ BITS("eax", "rax")
#define WORD_ BITS("dword", "qword")
#define FAR_ "fword"
#define RETF_ BITS("retf", "retfq")
#define IRET_ BITS("iretd", "iretq")
#ifdef __x86_64__
#define F32(name, text, flags)
#define F64(name, text, flags) FORM(name, text, flags)
#else
#define F32(name, text, flags) FORM(name, text, flags)
#define F64(name, text, flags)
#endif

static unsigned native(struct form *to) {
    const struct form list[] = {
#include "forms.def"
    };
    memcpy(to, list, sizeof(list));
    return COUNT(list);
}

#ifdef __x86_64__
#undef CODE_
#undef B
#undef S
#undef D
#undef C
#undef SP_
#undef BP_
#undef A_
#undef WORD_
#undef RETF_
#undef IRET_
#undef F32
#undef F64
#define CODE_ CODE32
#define B "ebx"
#define S "esi"
#define D "edi"
#define C "ecx"
#define SP_ "esp"
#define BP_ "ebp"
#define A_ "eax"
#define WORD_ "dword"
#define RETF_ "retf"
#define IRET_ "iretd"
#define F32(name, text, flags) FORM(name, text, flags)
#define F64(name, text, flags)

static unsigned compatible(struct form *to) {
    const struct form list[] = {
#include "forms.def"
    };
    memcpy(to, list, sizeof(list));
    return COUNT(list);
}
#endif

const struct form *forms_get(bool code32, unsigned *n) {
    static struct form list[2][MAX_FORMS];
    static unsigned count[2];
    if (!count[code32]) {
#ifdef __x86_64__
        count[code32] = code32 ? compatible(list[1]) : native(list[0]);
#else
        count[code32] = native(list[code32]);
#endif
        if (count[code32] > MAX_FORMS)
            fatal("too many forms");
    }
    *n = count[code32];
    return list[code32];
}

/* --- state --- */

static void state_load(const uint8_t *from) {
    if (rig.avx)
        __asm__ volatile("xrstor %0" ::"m"(*from), "a"(components), "d"(0) : "memory");
    else
        __asm__ volatile("fxrstor %0" ::"m"(*from) : "memory");
}

/* FOP, FIP and FDP are not compared: processors and translators keep them or not. */
static void state_save(uint8_t *to) {
    memset(to, 0, sizeof(image));
    if (rig.avx)
        __asm__ volatile("xsave %0"
                         : "+m"(*(uint8_t(*)[RIG_VEC])to)
                         : "a"(components), "d"(0));
    else
        __asm__ volatile("fxsave %0" : "=m"(*(uint8_t(*)[RIG_VEC])to));
    memset(to + 6, 0, 18);
    memset(to + 28, 0, 4);   /* MXCSR_MASK */
    memset(to + 512, 0, 64); /* which parts are in their first state is no result */
}

/* Where an XSAVE area has the component. */
static uint8_t *component(unsigned n) {
    uint32_t r[4];
    cpuid(0xd, n, r);
    return image + r[REG_EBX];
}

/* k1 a mask, k2 all ones, k3 none, k4 the first three; upper halves as the lower ones. */
static void init_avx512(void) {
    static const uint64_t opmask[5] = {0x5aa5a55a5a5aa5a5, 0x96c3a5f15a3c69e5, ~0ull, 0,
                                       7};
    static const uint32_t offsets[8] = {16, 2, 44, 28, 9, 60, 24, 36};
    uint8_t *upper = component(6);
    memcpy(component(5), opmask, sizeof(opmask));
    for (unsigned i = 0; i < BITS(8, 16) * 32; i++)
        upper[i] = (uint8_t)(i * 13 + 5);
    memcpy(upper + 32, offsets, 32);
    memset(upper + 64, 0xff, 32);
    if (LONG_MODE)
        for (unsigned i = 0; i < 1024; i++)
            component(7)[i] = (uint8_t)(i * 17 + i / 64);
}

static void state_init(void) {
    write_cr0((read_cr0() | X86_CR0_MP | X86_CR0_NE | X86_CR0_WP) &
              ~(ulong)(X86_CR0_EM | X86_CR0_TS));
    write_cr4(read_cr4() | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    rig.avx = cpu_has(1, REG_ECX, 28) && cpu_has(7, REG_EBX, 5);
    if (rig.avx) {
        rig.avx512 = cpu_has(7, REG_EBX, 16) && cpu_has(7, REG_EBX, 30);
        components = rig.avx512 ? 0xe7 : 7;
        write_cr4(read_cr4() | X86_CR4_OSXSAVE);
        __asm__ volatile("xsetbv" ::"a"(components), "d"(0), "c"(0));
    }
    __asm__ volatile("fninit; fld1; fldpi; fldl2e; fldln2");
    state_save(image);
    /* xmm0 and up: numbers; xmm1 offsets for gathers, xmm2 all ones, xmm3 a mask. */
    for (unsigned i = 0; i < BITS(8, 16) * 16; i++) {
        image[160 + i] = (uint8_t)(i * 7 + 1);
        if (rig.avx)
            image[576 + i] = (uint8_t)(i * 11 + 3);
    }
    static const uint32_t special[3][8] = {
        {0, 8, 20, 5, 40, 12, 4, 33},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u},
        {~0u, 0, ~0u, ~0u, 0, ~0u, 0, ~0u},
    };
    for (unsigned i = 0; i < 3; i++) {
        memcpy(image + 160 + 16 * (i + 1), special[i], 16);
        if (rig.avx)
            memcpy(image + 576 + 16 * (i + 1), special[i] + 4, 16);
    }
    if (rig.avx512)
        init_avx512();
    if (rig.avx)
        image[512] = (uint8_t)components;
    image[24] = 0x80, image[25] = 0x1f; /* MXCSR */
    state_load(image);
    __asm__ volatile("fnsave %0" : "=m"(env));
    state_load(image);
}

/* --- the windows --- */

ulong rig_page_va(unsigned page) {
    static const ulong window[3] = {RIG_A, RIG_B, RIG_S};
    return window[page / 2] + page % 2 * 4096;
}

uint64_t rig_page_rights(void) {
    return rig.user ? RWU : RW;
}

void rig_page_set(unsigned page, uint64_t flags) {
    space_set(&rig.s, rig_page_va(page), 1, (ulong)rig.page[page] | flags);
    invlpg(rig_page_va(page));
}

uint64_t rig_page_get(unsigned page) {
    return space_get(&rig.s, rig_page_va(page), 1);
}

/* What lies before page P, or behind it, which nothing may change or see. */
static uint8_t *beside(uint8_t *p, unsigned side) {
    return side ? p + 4096 : p - RIG_BESIDE;
}

/* Each page by itself, between two that hold a pattern; later ones lie lower. */
static void alone(uint8_t **page, unsigned n) {
    while (n--) {
        page_alloc();
        *page = page_alloc();
        page_alloc();
        for (unsigned side = 0; side < 2; side++)
            memset(beside(*page, side), 0xc3, RIG_BESIDE);
        page++;
    }
}

/* Maps PAGES at VA, and behind each other for ourselves at SEEN. */
static uint8_t *map_scattered(uint8_t *const *page, ulong va, ulong seen) {
    for (unsigned p = 0; p < 2; p++) {
        space_map(&rig.s, va + p * 4096, (ulong)page[p], RWU, 1);
        space_map(&rig.s, seen + p * 4096, (ulong)page[p], RW, 1);
    }
    return (uint8_t *)seen;
}

void rig_init(enum space_kind kind) {
    uint8_t *pages[RIG_PAGES + 2];
    space_new(&rig.s, kind, RWU);
    alone(pages, COUNT(pages));
    for (unsigned p = 0; p < RIG_PAGES; p++)
        rig.page[p] = pages[COUNT(pages) - 1 - p];
    rig.code_page[0] = pages[1];
    rig.code_page[1] = pages[0];
    for (unsigned w = 0; w < 3; w++)
        rig.window[w] =
            map_scattered(&rig.page[2 * w], rig_page_va(2 * w), RIG_SEEN + w * 0x4000);
    rig.code = map_scattered(rig.code_page, RIG_CODE, RIG_SEEN + 0xc000);
    space_load(&rig.s);
    state_init();
    rig.span = RIG_SPAN;
}

#define BASED_SEL 0x70

void rig_mode(bool user, bool code32, ulong base) {
    rig.user = user;
    rig.code32 = code32;
    rig.base = base;
    rig.data_sel = user ? UDS : KDS;
    if (base) {
        /* A limit that is not 4 GiB less one, now and then: the low half decides. */
        gdt_set(BASED_SEL, seg_desc((uint32_t)base, base & 1 ? 0x7fffffff : 0xffffffff,
                                    X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED |
                                        X86_AR_DB | X86_AR_G | X86_AR_DPL));
        rig.data_sel = BASED_SEL | 3;
    }
    for (unsigned p = 0; p < RIG_PAGES; p++)
        rig_page_set(p, rig_page_rights());
#ifdef __x86_64__
    /* A trap must not push on the stack under test. */
    tss.ist[1] = (ulong)ist_stack + sizeof(ist_stack) / 2;
    idt[X86_PF].ist = idt[DONE].ist = user ? 0 : 1;
#endif
}

bool rig_takes(const struct form *f, int k) {
    unsigned align = f->flags & ALIGN64 ? 64 : f->flags & ALIGN16 ? 16 : 1;
    if (k % (int)align || (f->flags & KERNEL && rig.user) ||
        (f->flags & AVX && !rig.avx) || (f->flags & AVX512 && !rig.avx512) ||
        (f->flags & INTEL && cpu_is_amd()) || (f->flags & FLAT && rig.base))
        return false;
    /* Traps of ring 0 in a 32-bit guest push on the stack under test. */
    return LONG_MODE || rig.user || !(f->flags & (READS | NO_SP));
}

bool rig_takes_events(const struct form *f, int k) {
    /* Handlers of a 32-bit kernel push over what the form pops. */
    bool over = !LONG_MODE && !rig.user &&
                (f->flags & POPS || FORM_PREP(f->flags) >= FORM_PREP(S_END));
    return !over && rig_takes(f, k);
}

static void each_in(unsigned vector, form_test *test, const char *mode, bool user,
                    bool code32, ulong base) {
    unsigned n;
    const struct form *f = forms_get(code32 && LONG_MODE, &n);
    rig_mode(user, code32, base);
#ifdef __x86_64__
    idt[vector].ist = user ? 0 : 1;
#endif
    for (unsigned i = 0; i < n; i++) {
        test(&f[i], 320, mode);
        test(&f[i], 2, mode);
    }
}

void rig_each(unsigned vector, form_test *test) {
    each_in(vector, test, "user", true, false, 0);
    each_in(vector, test, "kernel", false, false, 0);
#ifdef __x86_64__
    each_in(vector, test, "compatibility", true, true, 0);
#else
    each_in(vector, test, "user, based", true, false, 0x51041);
#endif
}

static ulong edge_of(unsigned w) {
    return rig_page_va(2 * w + 1) - (ulong)(long)rig.k;
}

static uint8_t *put32(uint8_t *p, ulong v) {
    uint32_t v32 = (uint32_t)v;
    memcpy(p, &v32, 4);
    return p + 4;
}

/* The registers that the loop loads: numbers of mov r32, imm32 (no REX, so that the same
 * bytes do in all modes). */
static void loads(uint32_t value[8]) {
    value[0] = 35;
    value[1] = 3;
    value[2] = 0x80;
    value[3] = value[6] = (uint32_t)(edge_of(0) - rig.base);
    value[4] = value[5] = (uint32_t)(edge_of(2) - rig.base);
    value[7] = (uint32_t)(edge_of(1) - rig.base);
}

bool rig_regs_loaded(const struct frame *f) {
    uint32_t v[8];
    loads(v);
    return f->ax == v[0] && f->cx == v[1] && f->dx == v[2] && f->bx == v[3] &&
           (!frame_is_outer(f) || f->sp == v[4]) && f->bp == v[5] && f->si == v[6] &&
           f->di == v[7];
}

void rig_build(const struct form *f, int k, ulong form_at) {
    uint32_t value[8];
    rig.f = f;
    rig.k = k;
    loads(value);
    unsigned len = CODE_LEN(f->code) - 2;
    if (rig.code32 && LONG_MODE)
        len -= 2; /* CODE32() ends in an INT of its own */
    uint8_t *code = rig.code + (form_at ? form_at - RIG_CODE - 40 : 0x100), *p = code;
    for (unsigned r = 0; r < 8; r++) {
        *p++ = (uint8_t)(0xb8 + r);
        p = put32(p, value[r]);
    }
    rig.at = RIG_CODE + (ulong)(p - rig.code);
    memcpy(p, f->code, len);
    rig.end = rig.at + len;
    if (FORM_PREP(f->flags) == FORM_PREP(A_CALLF)) {
        put32(p + 1, rig.end);
        p[5] = rig.user ? UCS32 : KCS32;
    }
    p += len;
    *p++ = 0xff; /* dec dword ptr [rig_count] */
    *p++ = 0x0c;
    *p++ = 0x25;
    p = put32(p, (ulong)&rig_count - rig.base);
    *p++ = 0x0f; /* jnz */
    *p++ = 0x85;
    p = put32(p, (ulong)(code - (p + 4)));
    *p++ = 0xcd;
    *p++ = DONE;
    rig.loop = RIG_CODE + (ulong)(code - rig.code);
}

static void put_words(uint8_t *p, unsigned size, const ulong *v, unsigned n) {
    for (; n; n--, v++, p += size)
        memcpy(p, v, size);
}

/* What the form wants to find where its pointer points. */
static void prepare(void) {
    uint8_t *a = rig.window[0] + 4096 - rig.k, *s = rig.window[2] + 4096 - rig.k;
    unsigned word = rig.code32 || !LONG_MODE ? 4 : 8;
    ulong cs = rig.code32 ? (rig.user ? UCS32 : KCS32) : rig.user ? UCS : KCS;
    ulong ds = rig.user ? UDS : KDS, flags = X86_FL_ONE | 0x8d5 | in.flags;
    ulong sp = edge_of(2) - rig.base;
    const ulong frame[5] = {rig.end, cs, flags & ~0x8d5ul, sp + 64, rig.data_sel};
    uint32_t mxcsr = 0x1f80;
    switch (PREP(FORM_PREP(rig.f->flags))) {
    case A_AX:
        put32(a, 35);
        break;
    case A_END:
        put_words(a, word, frame, 1);
        break;
    case A_FAR:
        if (rig.f->flags & INTEL)
            put_words(a, 8, frame, 1), a += 4;
        else
            put32(a, rig.end);
        a[4] = (uint8_t)cs, a[5] = 0;
        break;
    case A_LFS:
        a[4] = (uint8_t)ds, a[5] = 0;
        break;
    case A_SEL:
        a[0] = (uint8_t)ds, a[1] = 0;
        break;
    case A_GDTR:
        __asm__ volatile("sgdt %0" : "=m"(*(uint8_t(*)[10])a));
        break;
    case A_IDTR:
        __asm__ volatile("sidt %0" : "=m"(*(uint8_t(*)[10])a));
        break;
    case A_MSW:
        a[0] = 3, a[1] = 0;
        break;
    case A_FCW:
        a[0] = 0x7f, a[1] = 3;
        break;
    case A_ENV:
        memcpy(a, env, sizeof(env));
        break;
    case A_FX:
    case A_XS:
        memcpy(a, image, rig.avx ? 832 : 512);
        break;
    case A_MXCSR:
        put32(a, mxcsr);
        break;
    case A_BOUND:
        put32(a, (ulong)-1000), put32(a + 4, 1000);
        break;
    case S_END:
        put_words(s, word, frame, 1);
        break;
    case S_SEL:
        put32(s, ds);
        break;
    case S_FLAGS:
        put_words(s, word, &flags, 1);
        break;
    case S_FAR:
        put_words(s, word, frame, 2);
        break;
    case S_FAR32:
        put_words(s, 4, frame, 2);
        break;
    case S_IRET:
        put_words(s, word, frame, word == 8 ? 5 : 3);
        break;
    case S_IRET32:
        put_words(s, 4, frame, 5);
        break;
    }
}

/* How far from the boundary a window is looked at. */
static ulong span(void) {
    unsigned big = ALIGN64 | ENV | ALIGN16;
    return rig.f->flags & big || rig.k < -128 || rig.k > 128 ? RIG_SPAN : 256;
}

void rig_fill(void) {
    static uint8_t pattern[2 * RIG_SPAN];
    if (!pattern[0]) {
        for (unsigned i = 0; i < sizeof(pattern); i++)
            pattern[i] = (uint8_t)(i * 5 + (i >> 8) + 1);
    }
    ulong n = span();
    for (unsigned w = 0; w < 3; w++)
        memcpy(rig.window[w] + 4096 - n, pattern + w, 2 * n - 2);
    prepare();
    for (unsigned w = 0; w < 3; w++)
        memcpy(filled[w], rig.window[w] + 4096 - n, 2 * n);
}

static bool equal(const void *a, const void *b, ulong n) {
    bool same;
    n /= 4;
    __asm__("repe cmpsl" : "=@cce"(same), "+S"(a), "+D"(b), "+c"(n)::"memory");
    return same;
}

static bool holds(const uint8_t *p, uint8_t byte, ulong n) {
    bool same;
    __asm__("repe scasl"
            : "=@cce"(same), "+D"(p), "+c"(n)
            : "a"(byte * 0x01010101u), "m"(*(const uint8_t(*)[RIG_BESIDE])p));
    return same;
}

bool rig_alone(void) {
    bool ok = true;
    for (unsigned p = 0; p < RIG_PAGES; p++) {
        for (unsigned side = 0; side < 2; side++)
            ok &= holds(beside(rig.page[p], side), 0xc3, RIG_BESIDE / 4);
    }
    return ok;
}

bool rig_untouched(void) {
    ulong n = span();
    for (unsigned w = 0; w < (LONG_MODE || rig.user ? 3u : 2u); w++) {
        if (!equal(rig.window[w] + 4096 - n, filled[w], 2 * n))
            return false;
    }
    return true;
}

unsigned rig_run(unsigned count) {
    ulong flags = in.flags;
    if (rig.user)
        regs_user();
    else
        regs_kernel();
    in.flags = flags;
    if (rig.code32)
        in.cs = rig.user ? UCS32 : KCS32;
    in.ds = in.es = in.ss = rig.data_sel;
#ifdef __x86_64__
    in.r14 = 0x1414141414141414, in.r15 = 0x1515151515151515;
#endif
    rig_count = count;
    state_load(image);
    return run((void *)rig.loop);
}

void rig_save(struct snapshot *to) {
    state_save(to->vec);
    to->r = trap.r;
    if (!LONG_MODE && !rig.user)
        to->r.ss = 0;
    ulong n = span();
    for (unsigned w = 0; w < 3; w++)
        memcpy(to->mem[w], rig.window[w] + 4096 - n, 2 * n);
}

static bool same_regs(const struct regs *r, const struct regs *want) {
    struct regs a = *r, b = *want;
    a.ip = b.ip = 0;
    if (rig.f->flags & UNDEF)
        a.flags |= X86_FL_STATUS, b.flags |= X86_FL_STATUS;
    if (!LONG_MODE && !rig.user)
        a.ss = b.ss = 0;
    return equal(&a, &b, sizeof(a));
}

bool rig_same(const char *what, const struct snapshot *want) {
    bool regs = same_regs(&trap.r, &want->r);
    state_save(now);
    bool vec = equal(now, want->vec, sizeof(now)), mem = true, apart = rig_alone();
    ulong n = span(), where = 0;
    /* Stores of x87's environment hold pointers that are not kept. */
    if (!(rig.f->flags & ENV)) {
        for (unsigned w = 0; w < (LONG_MODE || rig.user ? 3u : 2u) && mem; w++) {
            mem = equal(rig.window[w] + 4096 - n, want->mem[w], 2 * n);
            for (ulong i = 0; !mem && i < 2 * n; i++) {
                if (rig.window[w][4096 - n + i] != want->mem[w][i]) {
                    where = rig_page_va(2 * w) + 4096 - n + i;
                    break;
                }
            }
        }
    }
    return check(
        regs && vec && mem && apart,
        "%s, k %s%u, %s: %s%s%s%s differ (ax 0x%lx 0x%lx flags 0x%lx 0x%lx at 0x%lx)",
        rig.f->what, rig.k < 0 ? "-" : "", (unsigned)(rig.k < 0 ? -rig.k : rig.k), what,
        regs ? "" : "registers ", vec ? "" : "vectors ", mem ? "" : "memory ",
        apart ? "" : "bytes beside the windows ", trap.r.ax, want->r.ax, trap.r.flags,
        want->r.flags, where);
}

/* --- the digest --- */

void digest_snapshot(const struct snapshot *s) {
    const ulong *r = (const ulong *)&s->r;
    for (unsigned i = 0; i < sizeof(s->r) / sizeof(ulong); i++) {
        if (r != &s->r.flags || !(rig.f->flags & UNDEF))
            digest_add(*r);
        r++;
    }
    const uint32_t *v = (const uint32_t *)s->vec;
    for (unsigned i = 0; i < 8 + 128; i++)
        digest_add(v[i]);
    ulong n = span();
    for (unsigned w = 0; w < 2 && !(rig.f->flags & ENV); w++) {
        const uint32_t *m = (const uint32_t *)s->mem[w];
        for (unsigned i = 0; i < n / 2; i++)
            digest_add(m[i]);
    }
}
