/* Reporting, descriptor tables and traps; see guest.h. */
#include "guest.h"

#define PORT_SERIAL 0x3f8
#define PORT_EXIT 0xf4

struct regs in;
struct trap trap;
trap_hook hooks[256];
uint64_t gdt[GDT_COUNT] __attribute__((aligned(16)));
struct idt_gate idt[256] __attribute__((aligned(16)));
#ifdef __x86_64__
struct tss64 tss __attribute__((aligned(128)));
#else
static struct {
    struct tss32 tss;
    uint8_t iomap[8192 + 1];
} tss_and_map __attribute__((aligned(128)));
extern struct tss32 tss __attribute__((alias("tss_and_map")));
#endif
uint8_t run_stack[16384] __attribute__((aligned(4096)));
uint8_t trap_stack[16384] __attribute__((aligned(4096)));
uint8_t user_stack[16384] __attribute__((aligned(4096)));
uint8_t ist_stack[16384] __attribute__((aligned(4096)));

ulong run_sp; /* trap.S: where guest_run_asm left the stack; 0: nothing runs */
extern uint8_t trap_stubs[];
extern void guest_run_asm(struct regs *r);
_Noreturn extern void guest_unwind(void);
void guest_start(void);
extern const uint32_t boot_magic, boot_info;
void trap_entry(struct frame *f);

static unsigned checks, failures;
static uint8_t *run_code;

uint32_t random32(void) {
    static uint32_t seed = 0x2545f491;

    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

void *memset(void *to, int c, size_t n) {
    void *p = to;
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t n) {
    void *p = to;
    __asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n)::"memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *x = a, *y = b;
    for (; n; n--, x++, y++) {
        if (*x != *y)
            return *x - *y;
    }
    return 0;
}

/* --- reporting --- */

static void put(char c) {
    if (c == '\n')
        put('\r');
    while (!(inb(PORT_SERIAL + 5) & 0x20))
        ;
    outb(PORT_SERIAL, (uint8_t)c);
}

static void put_number(uint64_t v, unsigned base, int width, char pad) {
    char text[24];
    int n = 0;
    if (base == 16) {
        do
            text[n++] = "0123456789abcdef"[v & 15];
        while (v >>= 4);
    } else {
        ulong u = (ulong)v;
        do
            text[n++] = (char)('0' + u % 10);
        while (u /= 10);
    }
    while (width-- > n)
        put(pad);
    while (n)
        put(text[--n]);
}

void vprintf(const char *f, va_list ap) {
    for (; *f; f++) {
        if (*f != '%') {
            put(*f);
            continue;
        }
        char pad = f[1] == '0' ? '0' : ' ';
        int width = 0, longs = 0;
        while (f[1] >= '0' && f[1] <= '9')
            width = width * 10 + *++f - '0';
        while (f[1] == 'l') {
            longs++;
            f++;
        }
        switch (*++f) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
            break;
        case 'c':
            put((char)va_arg(ap, int));
            break;
        case 'd':
        case 'u':
        case 'x': {
            uint64_t v = longs == 2 ? va_arg(ap, unsigned long long)
                         : longs    ? va_arg(ap, ulong)
                                    : va_arg(ap, unsigned);
            put_number(v, *f == 'x' ? 16 : 10, width, pad);
            break;
        }
        default:
            put(*f);
        }
    }
}

void printf(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
}

bool check(bool ok, const char *format, ...) {
    checks++;
    if (ok)
        return true;
    failures++;
    printf("FAIL %u: ", checks);
    va_list ap;
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    printf("\n");
    return false;
}

bool check_eq(const char *what, uint64_t got, uint64_t want) {
    return check(got == want, "%s: 0x%llx, want 0x%llx", what, (unsigned long long)got,
                 (unsigned long long)want);
}

void note(const char *format, ...) {
    va_list ap;
    printf("# ");
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    printf("\n");
}

static _Noreturn void stop(uint8_t code) {
    outb(PORT_EXIT, code);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* Multiboot specification, "Boot information format". */
static const char *command_line(void) {
    const uint32_t *info = (const uint32_t *)(ulong)boot_info;

    return boot_magic == 0x2badb002 && (info[0] & 4) ? (const char *)(ulong)info[4] : "";
}

/* Behind the NAME that TEXT begins with; NULL: it does not. */
static const char *behind(const char *text, const char *name) {
    while (*name)
        if (*text++ != *name++)
            return NULL;
    return text;
}

unsigned guest_option(const char *name, unsigned otherwise) {
    unsigned n = 0;

    for (const char *p = command_line(); *p; p++) {
        const char *digit = behind(p, name);

        if (!digit || *digit++ != '=')
            continue;
        while (*digit >= '0' && *digit <= '9')
            n = n * 10 + (unsigned)(*digit++ - '0');
        return n;
    }
    return otherwise;
}

_Noreturn void guest_exit(void) {
    printf("%s: %u checks, %u failed\n%s\n", guest_name, checks, failures,
           failures ? "FAILED" : "PASSED");
    stop(failures != 0);
}

_Noreturn void fatal(const char *format, ...) {
    va_list ap;
    printf("FATAL after check %u: ", checks);
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    printf("\nFAILED\n");
    stop(2);
}

bool cpu_is_amd(void) {
    uint32_t r[4];
    cpuid(0, 0, r);
    return r[REG_EBX] == 0x68747541; /* "Auth" */
}

bool cpu_is_tcg(void) {
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[REG_ECX] >> 31))
        return false;
    cpuid(0x40000000, 0, r);
    return r[REG_EBX] == 0x54474354; /* "TCGT" */
}

/* --- traps --- */

bool frame_is_outer(const struct frame *f) {
    return LONG_MODE || (f->cs & 3) || (f->flags & X86_FL_VM);
}

void trap_entry(struct frame *f) {
    ulong cr2 = read_cr2(), dr6 = read_dr6();
    if (hooks[f->vector] && hooks[f->vector](f))
        return;
    if (!run_sp)
        fatal("vector %lu error 0x%lx at %lx:0x%lx flags 0x%lx cr2 0x%lx", f->vector,
              f->error, f->cs, f->ip, f->flags, cr2);
    trap.vector = (unsigned)f->vector;
    trap.error = f->error;
    trap.cr2 = cr2;
    trap.dr6 = dr6;
    trap.entry_sp = (ulong)&f->ip;
    memcpy(&trap.r, f, offsetof(struct frame, vector));
    trap.r.ip = f->ip;
    trap.r.cs = f->cs;
    trap.r.flags = f->flags;
    trap.r.sp = frame_is_outer(f) ? f->sp : (ulong)&f->sp;
    trap.r.ss = frame_is_outer(f) ? f->ss : 0;
    if (!LONG_MODE && (f->flags & X86_FL_VM)) {
        trap.r.es = f->v86_es;
        trap.r.ds = f->v86_ds;
        trap.r.fs = f->v86_fs;
        trap.r.gs = f->v86_gs;
    }
    guest_unwind();
}

void regs_kernel(void) {
    memset(&in, 0, sizeof(in));
    in.cs = KCS;
    in.ds = in.es = in.ss = KDS;
    in.flags = X86_FL_ONE;
    in.sp = (ulong)run_stack + sizeof(run_stack) - 256;
}

void regs_user(void) {
    memset(&in, 0, sizeof(in));
    in.cs = UCS;
    in.ds = in.es = in.ss = UDS;
    in.flags = X86_FL_ONE;
    in.sp = (ulong)user_stack + sizeof(user_stack) - 256;
}

unsigned run(void *code) {
    run_code = code;
    in.ip = (ulong)code;
    memset(&trap, 0, sizeof(trap));
    guest_run_asm(&in);
    return trap.vector;
}

bool expect(const char *what, unsigned vector, long error, long offset) {
    long off = (long)(trap.r.ip - (ulong)run_code);
    bool ok = trap.vector == vector && (error == ANY || trap.error == (ulong)error) &&
              (offset == ANY || off == offset);
    return check(ok, "%s: vector %u error 0x%lx ip +0x%lx, want %u 0x%lx +0x%lx", what,
                 trap.vector, trap.error, (ulong)off, vector, (ulong)error,
                 (ulong)offset);
}

/* --- tables --- */

uint64_t seg_desc(uint32_t base, uint32_t limit, uint32_t ar) {
    if (ar & X86_AR_G)
        limit >>= 12;
    return (limit & 0xffffu) | (uint64_t)(base & 0xffffffu) << 16 |
           (uint64_t)(ar & 0xf0ffu) << 40 | (uint64_t)(limit >> 16 & 15u) << 48 |
           (uint64_t)(base >> 24) << 56;
}

void gdt_set(unsigned selector, uint64_t descriptor) {
    gdt[selector >> 3] = descriptor;
}

void gdt_set_sys(unsigned selector, ulong base, uint32_t limit, uint32_t ar) {
    gdt_set(selector, seg_desc((uint32_t)base, limit, ar));
#ifdef __x86_64__
    gdt[(selector >> 3) + 1] = base >> 32;
#endif
}

void gdt_set_call_gate(unsigned selector, unsigned target_cs, void (*target)(void),
                       unsigned dpl, unsigned count) {
    ulong t = (ulong)target;
    gdt_set(selector, (t & 0xffff) | (uint64_t)target_cs << 16 | (uint64_t)count << 32 |
                          (uint64_t)(X86_AR_P | X86_DESC_CALLGATE32 | dpl << 5) << 40 |
                          (uint64_t)(t >> 16 & 0xffff) << 48);
#ifdef __x86_64__
    gdt[(selector >> 3) + 1] = t >> 32;
#endif
}

void idt_set(unsigned vector, unsigned cs, void *handler, unsigned type, unsigned dpl) {
    ulong h = (ulong)handler;
    struct idt_gate *g = &idt[vector];
    g->off0 = (uint16_t)h;
    g->off1 = (uint16_t)(h >> 16);
    g->sel = (uint16_t)cs;
    g->ist = 0;
    g->ar = (uint8_t)(X86_AR_P | dpl << 5 | type);
#ifdef __x86_64__
    g->off2 = (uint32_t)(h >> 32);
    g->res = 0;
#endif
}

void *idt_stub(unsigned vector) {
    return trap_stubs + 16 * vector;
}

void idt_reset(unsigned vector) {
    idt_set(vector, KCS, idt_stub(vector), X86_DESC_INTGATE32, 3);
}

void idt_load(ulong limit) {
    struct {
        uint16_t limit;
        ulong base;
    } __attribute__((packed)) r = {(uint16_t)limit, (ulong)idt};
    __asm__ volatile("lidt %0" ::"m"(r));
}

static void load_gdt(void) {
    struct {
        uint16_t limit;
        ulong base;
    } __attribute__((packed)) r = {sizeof(gdt) - 1, (ulong)gdt};
    __asm__ volatile("lgdt %0" ::"m"(r));
}

#define AR_DATA                                                                          \
    (X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G)
#define AR_CODE (AR_DATA | X86_AR_CODE)
#define AR_CODE64 ((AR_CODE & ~X86_AR_DB) | X86_AR_L)

void guest_start(void) {
    gdt_set(KCS, seg_desc(0, ~0u, BITS(AR_CODE, AR_CODE64)));
    gdt_set(KDS, seg_desc(0, ~0u, AR_DATA));
    gdt_set(UCS32, seg_desc(0, ~0u, AR_CODE | X86_AR_DPL));
    gdt_set(UDS, seg_desc(0, ~0u, AR_DATA | X86_AR_DPL));
    gdt_set(UCS64, seg_desc(0, ~0u, BITS(AR_CODE, AR_CODE64) | X86_AR_DPL));
    gdt_set(0x30, seg_desc(0, ~0u, AR_DATA | X86_AR_DPL));
    gdt_set(KCS32, seg_desc(0, ~0u, AR_CODE));
    load_gdt();
    for (unsigned v = 0; v < 256; v++)
        idt_reset(v);
    idt_load(sizeof(idt) - 1);
#ifdef __x86_64__
    tss.rsp[0] = (ulong)trap_stack + sizeof(trap_stack);
    tss.ist[0] = (ulong)ist_stack + sizeof(ist_stack);
    tss.iomap = sizeof(tss);
    gdt_set_sys(TSS_SEL, (ulong)&tss, sizeof(tss) - 1, X86_AR_P | X86_DESC_TSS32);
#else
    tss.esp0 = (ulong)trap_stack + sizeof(trap_stack);
    tss.ss0 = KDS;
    tss.iomap = sizeof(struct tss32);
    memset(tss_and_map.iomap, 0xff, sizeof(tss_and_map.iomap));
    gdt_set_sys(TSS_SEL, (ulong)&tss, sizeof(tss_and_map) - 1, X86_AR_P | X86_DESC_TSS32);
#endif
    __asm__ volatile("ltr %w0" ::"r"(TSS_SEL));
    __asm__ volatile("lldt %w0" ::"r"(0));
    /* Everything masked at the PICs, whatever the loader left. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    guest_main();
    guest_exit();
}
