/*
 * What may be written to control registers, debug registers, XCR0 and MSRs: each bit by
 * itself and the combinations that rules speak of, against a model. A write that faults
 * must change nothing; one that does not must leave what the model says.
 *
 * 64-bit guests write from 64-bit mode. 32-bit ones go through the transitions between
 * legacy and long mode (as compatibility mode) and PAE's page-directory pointers.
 *
 * Intel SDM volume 2, "MOV--Move to/from Control Registers", "MOV--Move to/from Debug
 * Registers", "XSETBV", "WRMSR"; volume 3, "IA-32e Mode Operation" of "Initialization",
 * "PDPTE Registers". AMD64 APM volume 2, "Long-Mode Consistency Checks", "System-Control
 * Registers".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define A BITS("eax", "rax")
#define B BITS("ebx", "rbx")
#define D BITS("edx", "rdx")
#define CR0_KNOWN 0xe005003ful

static unsigned cases;

/* Everything that a refused write must leave alone. */
struct state {
    ulong cr0, cr2, cr3, cr4, dr6, dr7;
    uint64_t efer, xcr0;
};

static bool xsave_on(void) {
    return cpu_has(1, REG_ECX, 27);
}

static uint64_t xgetbv(void) {
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo | (uint64_t)hi << 32;
}

static void state_get(struct state *s) {
    memset(s, 0, sizeof(*s));
    s->cr0 = read_cr0();
    s->cr2 = read_cr2();
    s->cr3 = read_cr3();
    s->cr4 = read_cr4();
    s->dr6 = read_dr6();
    s->dr7 = read_dr7();
    s->efer = rdmsr(X86_MSR_EFER);
    s->xcr0 = xsave_on() ? xgetbv() : 0;
}

/*
 * Runs CODE, whose first instruction writes VALUE from rAX, whose second reads into rBX
 * and which then puts back what rDX holds: OLD. READ: what is to be read when GOOD.
 */
static void attempt(const char *what, void *code, uint64_t value, uint64_t old, bool good,
                    uint64_t readback) {
    struct state before, after;
    bool ok;

    state_get(&before);
    regs_kernel();
    in.ax = (ulong)value;
    in.dx = (ulong)old;
    run(code);
    state_get(&after);
    ok = memcmp(&before, &after, sizeof(before)) == 0;
    if (good)
        ok = ok && trap.vector == DONE && trap.r.bx == (ulong)readback;
    else
        ok = ok && trap.vector == X86_GP && trap.error == 0 && trap.r.ip == (ulong)code &&
             trap.r.bx == 0;
    cases++;
    digest_add(value);
    digest_add(trap.vector);
    digest_add(trap.r.bx);
    check(ok, "%s: 0x%llx over 0x%llx: vector %u error 0x%lx read 0x%lx, want %s 0x%llx",
          what, (unsigned long long)value, (unsigned long long)old, trap.vector,
          trap.error, trap.r.bx, good ? "no fault," : "#GP,",
          (unsigned long long)readback);
}

/* The model's answer to a write: what is read back, if it does not fault. */
struct answer {
    bool good;
    uint64_t readback;
};

/* --- CR0 --- */

/* Paging stays as it is: on in 64-bit guests, off in 32-bit ones. */
static void cr0_case(uint64_t v) {
    bool good = (v & X86_CR0_CD) || !(v & X86_CR0_NW);

    if (LONG_MODE)
        good = good && !(v >> 32) && (v & X86_CR0_PE) && (v & X86_CR0_PG);
    else if ((v & X86_CR0_PG) && (v & X86_CR0_PE))
        return; /* transitions() has these */
    else
        good = good && !(v & X86_CR0_PG);
    attempt("CR0", CODE("mov cr0, " A "\nmov " B ", cr0\nmov cr0, " D), v, read_cr0(),
            good, (v & CR0_KNOWN) | X86_CR0_ET);
}

static void cr0_writes(void) {
    static const uint8_t bit[] = {0, 6, 16, 28, 29, 30, 31};
    uint64_t old = read_cr0();

    for (unsigned b = 0; b < 8 * sizeof(ulong); b++)
        cr0_case(old ^ 1ull << b);
    for (unsigned set = 0; set < 1u << COUNT(bit); set++) {
        uint64_t v = old;

        for (unsigned k = 0; k < COUNT(bit); k++)
            v = (v & ~(1ull << bit[k])) | (uint64_t)(set >> k & 1) << bit[k];
        cr0_case(v);
    }
}

/* --- CR4 and CR3 --- */

/* What CPUID offers: Intel SDM volume 3, "Control Registers". */
static uint64_t cr4_offered(void) {
    static const struct {
        uint32_t leaf;
        uint8_t reg, feature;
        uint32_t bits;
    } rows[] = {
        {1, REG_EDX, 1, X86_CR4_VME | X86_CR4_PVI},
        {1, REG_EDX, 4, X86_CR4_TSD},
        {1, REG_EDX, 2, X86_CR4_DE},
        {1, REG_EDX, 3, X86_CR4_PSE},
        {1, REG_EDX, 6, X86_CR4_PAE},
        {1, REG_EDX, 7, X86_CR4_MCE},
        {1, REG_EDX, 13, X86_CR4_PGE},
        {0, REG_EAX, 0, X86_CR4_PCE},
        {1, REG_EDX, 24, X86_CR4_OSFXSR},
        {1, REG_EDX, 25, X86_CR4_OSXMMEXCPT},
        {7, REG_ECX, 2, X86_CR4_UMIP},
        {7, REG_ECX, 16, X86_CR4_LA57},
        {7, REG_EBX, 0, X86_CR4_FSGSBASE},
        {1, REG_ECX, 17, X86_CR4_PCIDE},
        {1, REG_ECX, 26, X86_CR4_OSXSAVE},
        {7, REG_EBX, 7, X86_CR4_SMEP},
        {7, REG_EBX, 20, X86_CR4_SMAP},
        {7, REG_ECX, 3, 1u << 22}, /* PKE */
    };
    uint64_t bits = 0;

    for (unsigned k = 0; k < COUNT(rows); k++)
        if (rows[k].leaf == 0 || cpu_has(rows[k].leaf, rows[k].reg, rows[k].feature))
            bits |= rows[k].bits;
    return bits;
}

static struct answer cr4_model(uint64_t v) {
    struct answer a = {!(v & ~cr4_offered()), v};

    if (LONG_MODE && (!(v & X86_CR4_PAE) || (v & X86_CR4_LA57)))
        a.good = false;
    if ((v & X86_CR4_PCIDE) && !(read_cr4() & X86_CR4_PCIDE) &&
        (!LONG_MODE || (read_cr3() & X86_CR3_PCID_MASK)))
        a.good = false;
    return a;
}

static void cr4_case(uint64_t v) {
    struct answer a = cr4_model(v);

    /* The guest's own pages are the user's too. */
    if (LONG_MODE && (v & (X86_CR4_SMEP | X86_CR4_SMAP)) && a.good)
        return;
    attempt("CR4", CODE("mov cr4, " A "\nmov " B ", cr4\nmov cr4, " D), v, read_cr4(),
            a.good, a.readback);
}

static void cr4_writes(void) {
    static const uint8_t bit[] = {4, 5, 7, 11, 17};
    uint64_t old = read_cr4();

    for (unsigned b = 0; b < 8 * sizeof(ulong); b++)
        cr4_case(old ^ 1ull << b);
    for (unsigned set = 0; set < 1u << COUNT(bit); set++) {
        uint64_t v = old;

        for (unsigned k = 0; k < COUNT(bit); k++)
            v = (v & ~(1ull << bit[k])) | (uint64_t)(set >> k & 1) << bit[k];
        cr4_case(v);
    }
}

#ifdef __x86_64__
/* CR3's low bits are flags or the PCID; its high ones reserved from the CPU's physical
 * width on, but for bit 63 with PCIDs. The address in between must stay. */
static void cr3_writes(void) {
    uint32_t r[4];
    uint64_t old = read_cr3(), cr4 = read_cr4();

    cpuid(0x80000008, 0, r);
    for (unsigned pcide = 0; pcide < 2; pcide++) {
        if (pcide && !cpu_has(1, REG_ECX, 17))
            break;
        write_cr4(pcide ? cr4 | X86_CR4_PCIDE : cr4);
        for (unsigned b = 0; b < 64; b++)
            for (unsigned low = 0; low < 3; low++) {
                uint64_t v = (old ^ 1ull << b) | (low == 1 ? 0x18 : low == 2 ? 0xfff : 0);
                bool good = b < (r[0] & 0xff) || (b == 63 && pcide);

                if ((b >= 12 && b < (r[0] & 0xff)))
                    continue;
                attempt(pcide ? "CR3 with PCIDE" : "CR3",
                        CODE("mov cr3, rax\nmov rbx, cr3\nmov cr3, rdx"), v, old, good,
                        v & ~X86_CR3_NOFLUSH);
            }
    }
    write_cr4(cr4);
    /* PCIDE cannot be set while CR3 has a PCID. */
    for (unsigned b = 0; b < 12; b++) {
        write_cr3(old | 1ull << b);
        if (cpu_has(1, REG_ECX, 17))
            cr4_case(cr4 | X86_CR4_PCIDE);
        write_cr3(old);
    }
}

static void cr8_writes(void) {
    for (unsigned v = 0; v < 16; v++)
        attempt("CR8", CODE("mov cr8, rax\nmov rbx, cr8\nmov cr8, rdx"), v, 0, true, v);
    for (unsigned b = 4; b < 64; b++)
        attempt("CR8", CODE("mov cr8, rax\nmov rbx, cr8\nmov cr8, rdx"), 1ull << b, 0,
                false, 0);
}
#endif

/* CR1, 5, 6, 7 and what lies beyond 8 are not there. */
static void missing_registers(void) {
    static uint32_t buffer[4]; /* length, code */
    uint8_t *p = (uint8_t *)&buffer[1];

    for (unsigned n = 0; n < 16; n++) {
        bool rex = n >= 8;

        if (n == 0 || n == 2 || n == 3 || n == 4 || n == 8 || (rex && !LONG_MODE))
            continue;
        for (unsigned op = 0x20; op < 0x24; op++) {
            unsigned len = 0;

            if (op & 1 && n < 8)
                continue; /* debug registers 8 and up alone */
            if (rex)
                p[len++] = 0x44;
            p[len++] = 0x0f;
            p[len++] = (uint8_t)op;
            p[len++] = (uint8_t)(0xc0 | (n & 7) << 3);
            p[len++] = 0xcd;
            p[len++] = DONE;
            regs_kernel();
            run(p);
            cases++;
            check(trap.vector == X86_UD && trap.r.ip == (ulong)p,
                  "0f %x of register %u: vector %u", op, n, trap.vector);
        }
    }
}

/* --- debug registers --- */

#define DR_CODE(n) CODE("mov dr" #n ", " A "\nmov " B ", dr" #n "\nmov dr" #n ", " D)

static void dr_case(unsigned n, uint64_t v) {
    bool good = n < 6 || !(v >> 32);

    switch (n) {
    case 0:
        attempt("DR0", DR_CODE(0), v, 0, good, v);
        break;
    case 3:
        attempt("DR3", DR_CODE(3), v, 0, good, v);
        break;
    case 6:
        attempt("DR6", DR_CODE(6), v, X86_DR6_FIXED, good, (v & 0xe00f) | X86_DR6_FIXED);
        break;
    default:
        attempt("DR7", DR_CODE(7), v, X86_DR7_FIXED, good,
                (v & 0xffff03ff) | X86_DR7_FIXED);
    }
}

static void dr_writes(void) {
    static const uint8_t regs[] = {0, 3, 6, 7};

    write_dr6(X86_DR6_FIXED);
    write_dr7(X86_DR7_FIXED);
    for (unsigned k = 0; k < COUNT(regs); k++) {
        for (unsigned b = 0; b < 8 * sizeof(ulong); b++) {
            if (regs[k] == 7 && b == 13)
                continue; /* GD has its own check in debug.c */
            dr_case(regs[k], 1ull << b);
            dr_case(regs[k], (regs[k] == 7 ? X86_DR7_FIXED : X86_DR6_FIXED) ^ 1ull << b);
        }
        dr_case(regs[k], 0);
        dr_case(regs[k], regs[k] == 7 ? 0xffffdfff : 0xffffffff);
    }
}

/* --- XCR0 --- */

static void xcr0_writes(void) {
    ulong cr4 = read_cr4();
    uint32_t r[4];
    uint64_t valid;

    TRY0("xor ecx, ecx\nmov eax, 1\nxor edx, edx\nxsetbv");
    expect("XSETBV without OSXSAVE", X86_UD, 0, ANY);
    if (!cpu_has(1, REG_ECX, 26))
        return;
    cpuid(0xd, 0, r);
    valid = r[0] | (uint64_t)r[3] << 32;
    write_cr4(cr4 | X86_CR4_OSXSAVE);
    for (unsigned k = 0; k < 8 + 61 + 8; k++) {
        uint64_t v = k < 8 ? k : k < 69 ? 1 | 1ull << (k - 5) : 1;
        uint32_t index = k < 69 ? 0 : 1u << 4 * (k - 69);
        struct state before, after;
        /* AVX needs SSE; the three of AVX-512 come together, and need AVX. */
        bool good = !(v & ~valid) && (v & 1) && ((v & 6) != 4) && !index &&
                    (!(v & 0xe0) || (v & 0xe4) == 0xe4);

        state_get(&before);
        regs_kernel();
        in.ax = (uint32_t)v;
        in.dx = (uint32_t)(v >> 32);
        in.cx = index;
        void *code =
            CODE("xsetbv\nxgetbv\nmov ebx, eax\nmov eax, 1\nxor edx, edx\nxsetbv");
        run(code);
        state_get(&after);
        cases++;
        digest_add(trap.vector);
        check(good ? trap.vector == DONE && trap.r.bx == (uint32_t)v
                   : trap.vector == X86_GP && trap.error == 0 &&
                         trap.r.ip == (ulong)code &&
                         !memcmp(&before, &after, sizeof(before)),
              "XCR%u = 0x%llx: vector %u read 0x%lx", index, (unsigned long long)v,
              trap.vector, trap.r.bx);
    }
    write_cr4(cr4);
}

/* --- MSRs --- */

/* The bits that may not be set, by the volumes' chapters on MSRs; FIXED: changed. */
enum msr_rule { RESERVED, FIXED, CANONICAL, TYPES, TYPES_PAT, READ_ONLY };

static bool type_good(unsigned type, bool pat) {
    return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool msr_good(enum msr_rule rule, uint64_t reserved, uint64_t old, uint64_t v) {
    switch (rule) {
    case FIXED:
        return !((v ^ old) & reserved);
    case RESERVED:
        return !(v & reserved);
    case CANONICAL:
        return (uint64_t)((int64_t)(v << 16) >> 16) == v;
    case READ_ONLY:
        return false;
    default:
        for (unsigned k = 0; k < 64; k += 8)
            if (!type_good(v >> k & 0xff, rule == TYPES_PAT))
                return false;
        return true;
    }
}

static void msr_case(uint32_t index, enum msr_rule rule, uint64_t reserved,
                     uint64_t ignored, uint64_t v) {
    uint64_t old = rdmsr(index), now;
    bool good = msr_good(rule, reserved, old, v);
    void *code = CODE("wrmsr\nrdmsr");

    regs_kernel();
    in.cx = index;
    in.ax = (uint32_t)v;
    in.dx = (uint32_t)(v >> 32);
    run(code);
    now = rdmsr(index);
    cases++;
    digest_add(trap.vector);
    digest_add(now);
    check(good ? trap.vector == DONE && now == (v & ~ignored)
               : trap.vector == X86_GP && trap.error == 0 && trap.r.ip == (ulong)code &&
                     now == old,
          "MSR 0x%x = 0x%llx: vector %u, then 0x%llx, want %s", index,
          (unsigned long long)v, trap.vector, (unsigned long long)now,
          good ? "it written" : "#GP");
    if (good)
        wrmsr(index, old);
}

static void msr_writes(void) {
    uint32_t r[4];

    cpuid(0x80000008, 0, r);
    uint64_t beyond = ~0ull << (r[0] & 0xff);
    bool amd = cpu_is_amd();
    const struct {
        uint32_t index;
        enum msr_rule rule;
        uint64_t reserved, ignored;
    } rows[] = {
        /* AMD's CPUs have SYSENTER in 32-bit modes alone. */
        {X86_MSR_SYSENTER_ESP, amd ? RESERVED : CANONICAL, 0, 0},
        {X86_MSR_SYSENTER_EIP, amd ? RESERVED : CANONICAL, 0, 0},
        {X86_MSR_STAR, RESERVED, 0, 0},
        {X86_MSR_LSTAR, CANONICAL, 0, 0},
        {X86_MSR_CSTAR, CANONICAL, 0, 0},
        {X86_MSR_KERNEL_GS_BASE, CANONICAL, 0, 0},
        {X86_MSR_FS_BASE, CANONICAL, 0, 0},
        {X86_MSR_GS_BASE, CANONICAL, 0, 0},
        {X86_MSR_TSC_AUX, RESERVED, amd ? 0 : ~0ull << 32, amd ? ~0ull << 32 : 0},
        {X86_MSR_MCG_STATUS, RESERVED, ~7ull, 0},
        {X86_MSR_DEBUGCTL, RESERVED, amd ? ~0x3full : ~3ull, 0x3f},
        {X86_MSR_PAT, TYPES_PAT, 0, 0},
        {X86_MSR_MTRR_FIX64K, TYPES, 0, 0},
        {X86_MSR_MTRR_FIX16K_8, TYPES, 0, 0},
        {X86_MSR_MTRR_FIX4K_C0, TYPES, 0, 0},
        {X86_MSR_MTRR_FIX4K_C0 + 7, TYPES, 0, 0},
        {X86_MSR_MTRRCAP, READ_ONLY, 0, 0},
        {X86_MSR_MCG_CAP, READ_ONLY, 0, 0},
        {X86_MSR_MTRR_PHYSBASE0 + 5, RESERVED, beyond | 0x7ff, 0},
        /* Last: AMD's CPUs have none. */
        {X86_MSR_MISC_ENABLE, FIXED, 0x1800, 0x80},
    };

    /* 32-bit guests try them with paging off: the rules are the same. */
    for (unsigned k = 0; k < COUNT(rows) - amd; k++) {
        uint64_t old = rdmsr(rows[k].index);

        for (unsigned b = 0; b < 64; b++) {
            uint64_t values[] = {old ^ 1ull << b, 1ull << b, ~0ull << b};

            for (unsigned n = 0; n < COUNT(values); n++)
                msr_case(rows[k].index, rows[k].rule, rows[k].reserved, rows[k].ignored,
                         values[n]);
        }
    }
    /* Types 2 and 3 and what is above 7, in each byte. */
    for (unsigned type = 0; type < 256; type++)
        for (unsigned k = 0; k < 64; k += 8) {
            msr_case(X86_MSR_PAT, TYPES_PAT, 0, 0, (uint64_t)type << k);
            msr_case(X86_MSR_MTRR_FIX4K_C0, TYPES, 0, 0, (uint64_t)type << k);
        }
}

/* EFER: the bits that CPUID offers; LME only while paging is off; LMA the CPU's own.
 * AMD's CPUs refuse another value of it, Intel's ignore it. */
static void efer_writes(void) {
    uint64_t old = rdmsr(X86_MSR_EFER), offered = 0;

    if (cpu_has(0x80000001, REG_EDX, 11))
        offered |= X86_EFER_SCE;
    if (cpu_has(0x80000001, REG_EDX, 29))
        offered |= X86_EFER_LME | X86_EFER_LMA;
    if (cpu_has(0x80000001, REG_EDX, 20))
        offered |= X86_EFER_NXE;
    if (cpu_is_amd())
        offered |= X86_EFER_AIBRSE;
    for (unsigned k = 0; k < 64 + 256; k++) {
        static const uint8_t bit[] = {0, 1, 8, 10, 11, 12, 14, 63};
        uint64_t v = old, now;
        bool good;

        if (k < 64)
            v ^= 1ull << k;
        for (unsigned b = 0; k >= 64 && b < 8; b++)
            v = (v & ~(1ull << bit[b])) | (uint64_t)((k - 64) >> b & 1) << bit[b];
        good = !(v & ~offered) && !(LONG_MODE && ((v ^ old) & X86_EFER_LME)) &&
               !(cpu_is_amd() && ((v ^ old) & X86_EFER_LMA));
        regs_kernel();
        in.cx = X86_MSR_EFER;
        in.ax = (uint32_t)v;
        in.dx = (uint32_t)(v >> 32);
        void *code = CODE("wrmsr");
        run(code);
        now = rdmsr(X86_MSR_EFER);
        cases++;
        digest_add(now);
        check(good ? trap.vector == DONE &&
                         now == ((v & ~(uint64_t)X86_EFER_LMA) | (old & X86_EFER_LMA))
                   : trap.vector == X86_GP && trap.error == 0 && now == old,
              "EFER = 0x%llx over 0x%llx: vector %u, then 0x%llx", (unsigned long long)v,
              (unsigned long long)old, trap.vector, (unsigned long long)now);
        wrmsr(X86_MSR_EFER, old);
    }
}

/* Numbers that no CPU of the model's kind has. */
static void msr_missing(void) {
    static const struct {
        uint32_t first, last;
    } ranges[] = {{0x2, 0xf},
                  {0x11, 0x16},
                  {0x500, 0x50f},
                  {0x5000, 0x500f},
                  {0x40000000, 0x400000ff},
                  {0x80000000, 0x8000000f},
                  {0xbfffffff, 0xc000007f},
                  {0xc0000085, 0xc000008f},
                  {0xc0000105, 0xc000010f},
                  {0xdeadbeef, 0xdeadbeef},
                  {0xfffffff0, 0xffffffff}};

    for (unsigned k = 0; k < COUNT(ranges); k++)
        for (uint32_t n = ranges[k].first;; n++) {
            for (unsigned write = 0; write < 2; write++) {
                regs_kernel();
                in.cx = n;
                in.ax = 0x11111111;
                in.dx = 0x22222222;
                run(write ? CODE("wrmsr") : CODE("rdmsr"));
                cases++;
                check(trap.vector == X86_GP && trap.error == 0 && trap.r.ip == in.ip &&
                          trap.r.ax == in.ax && trap.r.dx == in.dx && trap.r.cx == in.cx,
                      "%s of MSR 0x%x: vector %u rax 0x%lx", write ? "write" : "read", n,
                      trap.vector, trap.r.ax);
            }
            if (n == ranges[k].last)
                break;
        }
}

#ifdef __x86_64__
/* --- long mode is left, or not, from compatibility mode --- */

/* EAX is what is written, EDX what is put back; EBX and ESI are CR0 and EFER between. */
static void leaving(void) {
    ulong cr0 = read_cr0(), cr4 = read_cr4();
    uint64_t efer = rdmsr(X86_MSR_EFER);
    void *cr0_code = CODE(".code32\nmov cr0, eax\nmov ebx, cr0\nmov edi, edx\n"
                          "mov ecx, 0xc0000080\nrdmsr\nmov esi, eax\nmov cr0, edi\n"
                          ".code64"),
         *cr4_code = CODE(".code32\nmov cr4, eax\n.code64"),
         *efer_code = CODE(".code32\nwrmsr\n.code64");
    struct {
        const char *what;
        void *code;
        ulong value, cr4;
        bool good;
    } rows[] = {
        {"PG cleared", cr0_code, cr0 & ~(ulong)X86_CR0_PG, cr4, true},
        {"PG cleared with PCIDE", cr0_code, cr0 & ~(ulong)X86_CR0_PG, cr4 | X86_CR4_PCIDE,
         false},
        {"PE cleared, PG left", cr0_code, cr0 & ~(ulong)X86_CR0_PE, cr4, false},
        {"PAE cleared", cr4_code, cr4 & ~(ulong)X86_CR4_PAE, cr4, false},
        {"LA57 set", cr4_code, cr4 | X86_CR4_LA57, cr4, false},
        {"LME cleared", efer_code, (ulong)efer & ~(ulong)X86_EFER_LME, cr4, false},
    };

    for (unsigned k = 0; k < COUNT(rows); k++) {
        bool ok;

        if ((rows[k].cr4 & X86_CR4_PCIDE) && !cpu_has(1, REG_ECX, 17))
            continue;
        write_cr4(rows[k].cr4);
        regs_kernel();
        in.cs = KCS32;
        in.ax = rows[k].value;
        in.cx = X86_MSR_EFER;
        in.dx = rows[k].code == cr0_code ? cr0 : 0;
        run(rows[k].code);
        ok =
            read_cr0() == cr0 && read_cr4() == rows[k].cr4 && rdmsr(X86_MSR_EFER) == efer;
        if (rows[k].good)
            ok = ok && trap.vector == DONE && trap.r.bx == rows[k].value &&
                 trap.r.si == ((ulong)efer & ~(ulong)X86_EFER_LMA);
        else
            ok = ok && trap.vector == X86_GP && trap.error == 0 && trap.r.ip == in.ip;
        write_cr4(cr4);
        cases++;
        digest_add(trap.vector);
        check(ok, "compatibility mode, %s: vector %u CR0 0x%lx EFER 0x%lx", rows[k].what,
              trap.vector, trap.r.bx, trap.r.si);
    }
}
#endif

#ifndef __x86_64__
/* --- 32-bit: PDPTEs, and the way into long mode --- */

static struct space pae, four;

static void spaces_make(void) {
    write_cr4(read_cr4() | X86_CR4_PSE);
    space_new(&pae, SPACE_PAE, RW);
    /* The same tables below a fourth level. */
    four.kind = SPACE_LONG;
    four.root = (ulong)page_alloc();
    uint64_t *pdpt = page_alloc();
    for (unsigned k = 0; k < 4; k++) {
        uint64_t e = ((uint64_t *)pae.root)[k];

        pdpt[k] = e ? e | RW : 0;
    }
    *(uint64_t *)four.root = (ulong)pdpt | RW;
}

/*
 * Each reserved bit in each pointer that is present, and in one that is not, by each of
 * the writes that load them; and a write that does not load them.
 */
enum pdpte_load {
    LOAD_CR3,
    LOAD_PG,
    LOAD_CD,
    LOAD_PGE,
    LOAD_PSE,
    LOAD_SMEP,
    NO_LOAD_TSD,
    NO_LOAD_WP,
    LOADS
};

static void pdpte_case(unsigned k, unsigned bit, bool present, enum pdpte_load how) {
    volatile uint64_t *pdpt = (volatile uint64_t *)pae.root;
    uint32_t r[4];
    uint64_t old = pdpt[k];
    ulong cr4 = read_cr4() | X86_CR4_PAE, cr0 = read_cr0();
    void *code = CODE("mov cr4, eax");
    bool reserved, good;

    cpuid(0x80000008, 0, r);
    reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= (r[0] & 0xff);
    good = !reserved || !present || how == NO_LOAD_TSD || how == NO_LOAD_WP;
    write_cr4(cr4);
    write_cr3(pae.root);
    regs_kernel();
    if (how != LOAD_PG)
        write_cr0(cr0 | X86_CR0_PG);
    pdpt[k] = (present ? (old ? old : 0x2000000) | X86_PTE_P : 0) | 1ull << bit;
    if (how == LOAD_CR3) {
        code = CODE("mov cr3, eax");
        in.ax = pae.root;
    } else if (how == LOAD_PG) {
        code = CODE("mov cr0, eax");
        in.ax = cr0 | X86_CR0_PG;
    } else if (how == LOAD_CD || how == NO_LOAD_WP) {
        code = CODE("mov cr0, eax");
        in.ax = (cr0 | X86_CR0_PG) ^ (how == LOAD_CD ? X86_CR0_CD : X86_CR0_WP);
    } else {
        in.ax = cr4 ^ (how == LOAD_PGE    ? X86_CR4_PGE
                       : how == LOAD_PSE  ? X86_CR4_PSE
                       : how == LOAD_SMEP ? X86_CR4_SMEP
                                          : X86_CR4_TSD);
    }
    run(code);
    ulong cr4_now = read_cr4(), cr0_now = read_cr0();
    pdpt[k] = old;
    bool same = how == LOAD_PG ? !(cr0_now & X86_CR0_PG)
                               : cr4_now == cr4 && cr0_now == (cr0 | X86_CR0_PG);
    cases++;
    digest_add(trap.vector);
    check(good ? trap.vector == DONE
               : trap.vector == X86_GP && trap.error == 0 && trap.r.ip == in.ip && same,
          "PDPTE %u %s, bit %u, by %u: vector %u, want %s", k,
          present ? "present" : "absent", bit, how, trap.vector, good ? "none" : "#GP");
    write_cr0(cr0);
    write_cr4(cr4 & ~(ulong)X86_CR4_PAE);
}

static void pdptes(void) {
    for (unsigned how = 0; how < LOADS; how++) {
        if (how == LOAD_SMEP && !cpu_has(7, REG_EBX, 7))
            continue;
        for (unsigned bit = 1; bit < 64; bit++) {
            /* An address bit would send pointer 0 astray: that is the guest itself. */
            if (bit >= 12 && bit < 40)
                continue;
            pdpte_case(1, bit, true, how);
            pdpte_case(2, bit, true, how);
            pdpte_case(1, bit, false, how);
            if (bit < 9 || bit > 51)
                pdpte_case(0, bit, true, how);
        }
    }
}

/* The first instruction may activate long mode, its effect is then undone by the last. */
static void transition(unsigned bits) {
    bool lme = bits & 1, pae_on = bits & 2, cs_l = bits & 4, tss16 = bits & 8;
    bool pe = bits & 16, pg = bits & 32, pcide = bits & 64;
    ulong cr0 = read_cr0(), cr4 = read_cr4() & ~(ulong)X86_CR4_PAE;
    uint64_t efer = rdmsr(X86_MSR_EFER), after;
    static const uint16_t code16_sel = FREE_SEL, tss16_sel = FREE_SEL + 8;
    bool good = !(pg && !pe);
    ulong want = (cr0 & ~(ulong)(X86_CR0_PE | X86_CR0_PG)) | (pe ? X86_CR0_PE : 0) |
                 (pg ? X86_CR0_PG : 0);

    if (pg && lme && (!pae_on || cs_l || tss16))
        good = false;
    if (pcide) {
        /* Outside of long mode PCIDE cannot be set at all. */
        attempt("PCIDE in legacy mode", CODE("mov cr4, eax\nmov ebx, cr4\nmov cr4, edx"),
                cr4 | X86_CR4_PCIDE | (pae_on ? X86_CR4_PAE : 0), cr4, false, 0);
        return;
    }
    if (!pae_on && pg && good)
        return; /* two-level tables: paging.c */
    if (cs_l && good)
        return; /* in legacy mode L is no bit to set, D is clear: 16-bit code */
    write_cr4(cr4 | (pae_on ? X86_CR4_PAE : 0));
    write_cr3(lme ? four.root : pae.root);
    wrmsr(X86_MSR_EFER, lme ? efer | X86_EFER_LME : efer);
    gdt_set(tss16_sel, seg_desc((uint32_t)(ulong)&tss, 103, X86_AR_P | 1));
    gdt_set(TSS_SEL, gdt[TSS_SEL >> 3] & ~(2ull << 40));
    if (tss16)
        __asm__ volatile("ltr %w0" ::"r"((unsigned)tss16_sel));
    gdt_set(code16_sel, seg_desc(0, ~0u,
                                 X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE |
                                     X86_AR_ACCESSED | X86_AR_G | X86_AR_L));
    regs_kernel();
    in.ax = want;
    in.dx = cr0;
    in.cx = X86_MSR_EFER;
    /* In a segment with L set and D clear, this is 16-bit code with the same bytes. */
    void *code = CODE("mov cr0, eax\nmov ebx, cr0\nmov esi, edx\nrdmsr\nmov edi, eax\n"
                      "mov cr0, esi");
    if (cs_l)
        in.cs = code16_sel;
    /* The exception goes through a 32-bit gate with no stack switch: any TSS will do. */
    run(code);
    ulong cr0_now = read_cr0();
    after = rdmsr(X86_MSR_EFER);
    cases++;
    digest_add(trap.vector);
    digest_add(trap.r.di);
    bool lma = pg && lme;
    check(good ? trap.vector == DONE && trap.r.bx == want &&
                     !(trap.r.di & X86_EFER_LMA) == !lma && !(after & X86_EFER_LMA)
               : trap.vector == X86_GP && trap.error == 0 && trap.r.ip == (ulong)code &&
                     cr0_now == cr0 && !(after & X86_EFER_LMA),
          "LME %u PAE %u CS.L %u TSS16 %u, PE %u PG %u: vector %u CR0 0x%lx EFER 0x%lx "
          "then 0x%x, want %s",
          lme, pae_on, cs_l, tss16, pe, pg, trap.vector, trap.r.bx, trap.r.di,
          (uint32_t)after, good ? "no fault" : "#GP");
    wrmsr(X86_MSR_EFER, efer);
    write_cr4(cr4);
    gdt_set(TSS_SEL, gdt[TSS_SEL >> 3] & ~(2ull << 40));
    __asm__ volatile("ltr %w0" ::"r"(TSS_SEL));
}
#endif

void guest_main(void) {
    if (cpu_is_tcg()) {
        note("TCG lets most of these writes pass");
        return;
    }
    cr0_writes();
    cr4_writes();
#ifdef __x86_64__
    cr3_writes();
    cr8_writes();
    leaving();
#endif
    missing_registers();
    dr_writes();
    xcr0_writes();
    msr_writes();
    efer_writes();
    msr_missing();
#ifndef __x86_64__
    spaces_make();
    pdptes();
    for (unsigned bits = 0; bits < 128; bits++)
        transition(bits);
#endif
    printf("%u cases\n", cases);
    digest_print();
}
