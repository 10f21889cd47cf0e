/*
 * Privileged instructions at every CPL, with every IOPL, in code of each width and in
 * virtual-8086 mode; CLI, STI and port accesses likewise; and the I/O permission bitmap
 * at its edges. Each case is compared with a model: the vector, error code 0, and that a
 * refused instruction changes nothing.
 *
 * Intel SDM volume 2, the instructions' "Protected Mode Exceptions", "Virtual-8086 Mode
 * Exceptions"; volume 3, "Privileged Instructions"; volume 1, "I/O Permission Bit Map".
 * AMD64 APM volume 2, "I/O-Permission Bitmap"; volume 3, "CLI", "STI".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define CODE_AT 0x3000u /* of virtual-8086 mode */
#define SCRATCH 0x6000u /* where rBX and rDI point: below 64 KiB for that mode's sake */
#define SS_AT 0x2000u
#define RING_CS (FREE_SEL)        /* code of level 0 to 3: 16 bytes apart, with data */
#define RING32_CS (FREE_SEL + 64) /* the same, 32-bit code */
#define MAP_TSS (FREE_SEL + 128)

enum mode { NATIVE, CODE_32, V86, MODES };

static const char *const mode_name[] = {"", "compatibility ", "virtual-8086 "};
static unsigned cases;

extern void guest_run_asm(struct regs *);

static void segments(void) {
    const unsigned data =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G;

    for (unsigned cpl = 0; cpl < 4; cpl++) {
        unsigned code = data | X86_AR_CODE | cpl << 5;
        unsigned wide = LONG_MODE ? (code & ~X86_AR_DB) | X86_AR_L : code;

        gdt_set(RING_CS + 16 * cpl, seg_desc(0, ~0u, wide));
        gdt_set(RING_CS + 16 * cpl + 8, seg_desc(0, ~0u, data | cpl << 5));
        gdt_set(RING32_CS + 16 * cpl, seg_desc(0, ~0u, code));
    }
}

/* Registers for code of a mode and level; sets where `in.ip` is to be. */
static void regs_for(enum mode mode, unsigned cpl, unsigned iopl) {
    regs_kernel();
    in.flags |= (ulong)iopl << X86_FL_IOPL_SHIFT;
    in.di = in.bx = SCRATCH;
    in.ax = 0x11;
    in.cx = 0x174; /* an MSR that is there */
    in.dx = 0x80;
    if (mode == V86) {
        in.cs = CODE_AT >> 4;
        in.ds = in.es = 0;
        in.ss = SS_AT;
        in.sp = 0x8000;
        in.flags |= X86_FL_VM;
        return;
    }
    in.cs = (mode == CODE_32 ? RING32_CS : RING_CS) + 16 * cpl + cpl;
    in.ss = in.ds = in.es = RING_CS + 16 * cpl + 8 + cpl;
    if (cpl)
        in.sp = (ulong)user_stack + sizeof(user_stack) - 256;
}

/* Runs bytes at the place that every mode can reach. */
static void run_bytes(const uint8_t *bytes, unsigned len, enum mode mode) {
    uint8_t *p = (uint8_t *)CODE_AT;

    memcpy(p, bytes, len);
    /* INT n goes by IOPL in virtual-8086 mode, INT3 does not. */
    p[len] = mode == V86 ? 0xcc : 0xcd;
    p[len + 1] = DONE;
    in.ip = mode == V86 ? 0 : CODE_AT;
    memset(&trap, 0, sizeof(trap));
    guest_run_asm(&in);
    if (mode == V86 && trap.vector == X86_BP && trap.r.ip == len + 1)
        trap.vector = DONE;
}

/* Nothing but what a trap always changes is different. */
static bool untouched(enum mode mode) {
    const struct regs *r = &trap.r;

    return r->ip == in.ip && r->ax == in.ax && r->bx == in.bx && r->cx == in.cx &&
           r->dx == in.dx && r->si == in.si && r->di == in.di && r->bp == in.bp &&
           ((r->flags ^ in.flags) & ~(ulong)X86_FL_RF) == 0 &&
           (r->cs == in.cs && (mode == V86 || r->ds == in.ds));
}

/* --- instructions that level 0 alone may execute --- */

/* What happens above level 0, and in virtual-8086 mode. */
enum rule {
    GP,      /* #GP in both */
    GP_UD,   /* #UD in virtual-8086 mode: there are no selectors there */
    UD,      /* #UD in both */
    UMIP,    /* #GP in both with CR4.UMIP, else it runs */
    UMIP_UD, /* the same, #UD in virtual-8086 mode */
    TSD,     /* #GP in both with CR4.TSD */
    LONG_GP, /* #GP in 64-bit mode, #UD elsewhere */
    SYSRET,
    SYSENTER, /* not in long mode on AMD's */
    SYSEXIT,  /* the same, after the privilege */
    FREE_UD,  /* #UD in virtual-8086 mode alone */
    FREE,     /* no rule */
};

#define RUNS0 1 /* may be tried at level 0, where it runs */
#define XSAVE 2
#define PCID 4
#define SMAP 8

struct insn {
    const char *what;
    enum rule rule;
    uint8_t flags, len, b[6];
};

/* mod 0 rm 7 is [rdi], [edi] or [bx]; all of these take the same bytes everywhere. */
static const struct insn insns[] = {
    {"hlt", GP, 0, 1, {0xf4}},
    {"lgdt", GP, 0, 3, {0x0f, 0x01, 0x17}},
    {"lidt", GP, 0, 3, {0x0f, 0x01, 0x1f}},
    {"lmsw r", GP, RUNS0, 3, {0x0f, 0x01, 0xf0}},
    {"lmsw m", GP, 0, 3, {0x0f, 0x01, 0x37}},
    {"invlpg", GP, RUNS0, 3, {0x0f, 0x01, 0x3f}},
    {"lldt r", GP_UD, 0, 3, {0x0f, 0x00, 0xd0}},
    {"lldt m", GP_UD, 0, 3, {0x0f, 0x00, 0x17}},
    {"ltr r", GP_UD, 0, 3, {0x0f, 0x00, 0xd8}},
    {"ltr m", GP_UD, 0, 3, {0x0f, 0x00, 0x1f}},
    {"clts", GP, RUNS0, 2, {0x0f, 0x06}},
    {"invd", GP, RUNS0, 2, {0x0f, 0x08}},
    {"wbinvd", GP, RUNS0, 2, {0x0f, 0x09}},
    {"wbnoinvd", GP, RUNS0, 3, {0xf3, 0x0f, 0x09}},
    {"mov from cr0", GP, RUNS0, 3, {0x0f, 0x20, 0xc0}},
    {"mov from cr2", GP, RUNS0, 3, {0x0f, 0x20, 0xd0}},
    {"mov from cr3", GP, RUNS0, 3, {0x0f, 0x20, 0xd8}},
    {"mov from cr4", GP, RUNS0, 3, {0x0f, 0x20, 0xe0}},
    {"mov to cr0", GP, 0, 3, {0x0f, 0x22, 0xc0}},
    {"mov to cr2", GP, 0, 3, {0x0f, 0x22, 0xd0}},
    {"mov to cr3", GP, 0, 3, {0x0f, 0x22, 0xd8}},
    {"mov to cr4", GP, 0, 3, {0x0f, 0x22, 0xe0}},
    {"mov from dr0", GP, RUNS0, 3, {0x0f, 0x21, 0xc0}},
    {"mov from dr6", GP, RUNS0, 3, {0x0f, 0x21, 0xf0}},
    {"mov from dr7", GP, RUNS0, 3, {0x0f, 0x21, 0xf8}},
    {"mov to dr0", GP, 0, 3, {0x0f, 0x23, 0xc0}},
    {"mov to dr6", GP, 0, 3, {0x0f, 0x23, 0xf0}},
    {"mov to dr7", GP, 0, 3, {0x0f, 0x23, 0xf8}},
    {"rdmsr", GP, RUNS0, 2, {0x0f, 0x32}},
    {"wrmsr", GP, 0, 2, {0x0f, 0x30}},
    {"rdpmc without PCE", GP, 0, 2, {0x0f, 0x33}},
    {"invpcid", GP, PCID, 5, {0x66, 0x0f, 0x38, 0x82, 0x07}},
    {"xsetbv", GP, XSAVE, 3, {0x0f, 0x01, 0xd1}},
    {"swapgs", LONG_GP, 0, 3, {0x0f, 0x01, 0xf8}},
    {"sysret", SYSRET, 0, 2, {0x0f, 0x07}},
    {"sysexit", SYSEXIT, 0, 2, {0x0f, 0x35}},
    {"sysenter, no CS", SYSENTER, 0, 2, {0x0f, 0x34}},
    {"clac", UD, SMAP, 3, {0x0f, 0x01, 0xca}},
    {"stac", UD, SMAP, 3, {0x0f, 0x01, 0xcb}},
    {"rsm", UD, 0, 2, {0x0f, 0xaa}},
    {"vmrun", UD, 0, 3, {0x0f, 0x01, 0xd8}},
    {"vmlaunch", UD, 0, 3, {0x0f, 0x01, 0xc2}},
    {"rdtsc", TSD, RUNS0, 2, {0x0f, 0x31}},
    {"rdtscp", TSD, RUNS0, 3, {0x0f, 0x01, 0xf9}},
    {"sgdt", UMIP, RUNS0, 3, {0x0f, 0x01, 0x07}},
    {"sidt", UMIP, RUNS0, 3, {0x0f, 0x01, 0x0f}},
    {"smsw r", UMIP, RUNS0, 3, {0x0f, 0x01, 0xe0}},
    {"smsw m", UMIP, RUNS0, 3, {0x0f, 0x01, 0x27}},
    {"sldt r", UMIP_UD, RUNS0, 3, {0x0f, 0x00, 0xc0}},
    {"sldt m", UMIP_UD, RUNS0, 3, {0x0f, 0x00, 0x07}},
    {"str r", UMIP_UD, RUNS0, 3, {0x0f, 0x00, 0xc8}},
    {"str m", UMIP_UD, RUNS0, 3, {0x0f, 0x00, 0x0f}},
    {"verr", FREE_UD, RUNS0, 3, {0x0f, 0x00, 0xe0}},
    {"cpuid", FREE, RUNS0, 2, {0x0f, 0xa2}},
    {"nop", FREE, RUNS0, 1, {0x90}},
};

/* The vector that is to come; DONE. */
static unsigned insn_model(const struct insn *i, enum mode mode, unsigned cpl,
                           ulong cr4) {
    bool v86 = mode == V86, above = cpl != 0;

    switch (i->rule) {
    case GP:
        return above ? X86_GP : DONE;
    case GP_UD:
        return v86 ? X86_UD : above ? X86_GP : DONE;
    case UD:
        return X86_UD;
    case UMIP:
        return above && (cr4 & X86_CR4_UMIP) ? X86_GP : DONE;
    case UMIP_UD:
        return v86 ? X86_UD : above && (cr4 & X86_CR4_UMIP) ? X86_GP : DONE;
    case TSD:
        return above && (cr4 & X86_CR4_TSD) ? X86_GP : DONE;
    case LONG_GP:
        return mode == NATIVE && LONG_MODE ? X86_GP : X86_UD;
    case SYSRET: /* SCE is set */
        return (mode == NATIVE && LONG_MODE) || cpu_is_amd() ? X86_GP : X86_UD;
    case SYSENTER:
        return LONG_MODE && cpu_is_amd() ? X86_UD : X86_GP;
    case SYSEXIT:
        return LONG_MODE && cpu_is_amd() && !above ? X86_UD : X86_GP;
    case FREE_UD:
        return v86 ? X86_UD : DONE;
    default:
        return DONE;
    }
}

static void insn_case(const struct insn *i, enum mode mode, unsigned cpl, unsigned iopl) {
    ulong cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4(), dr7 = read_dr7();
    unsigned want = insn_model(i, mode, cpl, cr4);
    bool ok;

    regs_for(mode, cpl, iopl);
    run_bytes(i->b, i->len, mode);
    ok = trap.vector == want && trap.error == 0 && (want == DONE || untouched(mode)) &&
         read_cr0() == cr0 && read_cr3() == cr3 && read_cr4() == cr4 && read_dr7() == dr7;
    cases++;
    digest_add(trap.vector);
    check(ok, "%s%s CPL %u IOPL %u CR4 0x%lx: vector %u error 0x%lx ip 0x%lx, want %u",
          mode_name[mode], i->what, cpl, iopl, cr4, trap.vector, trap.error, trap.r.ip,
          want);
}

static bool offered(const struct insn *i) {
    return !((i->flags & XSAVE) && !cpu_has(1, REG_ECX, 26)) &&
           !((i->flags & PCID) && !cpu_has(7, REG_EBX, 10)) &&
           !((i->flags & SMAP) && !cpu_has(7, REG_EBX, 20));
}

/* Each mode and level with each IOPL. */
#define FOR_EACH_RING(mode, cpl, iopl)                                                   \
    for (enum mode mode = NATIVE; mode < MODES; mode++)                                  \
        for (unsigned cpl = mode == V86 ? 3 : 0; cpl < 4; cpl++)                         \
            for (unsigned iopl = 0; iopl < 4; iopl++)                                    \
                if (mode != (LONG_MODE ? V86 : CODE_32))

static void instructions(void) {
    ulong cr4 = read_cr4();
    bool umip = cpu_has(7, REG_ECX, 2);

    if (cpu_has(1, REG_ECX, 26))
        cr4 |= X86_CR4_OSXSAVE;
    wrmsr(X86_MSR_SYSENTER_CS, 0);
    wrmsr(X86_MSR_EFER, rdmsr(X86_MSR_EFER) | X86_EFER_SCE);
    for (unsigned set = 0; set < 4; set++) {
        if ((set & 1) && !umip)
            continue;
        write_cr4(cr4 | (set & 1 ? X86_CR4_UMIP : 0) | (set & 2 ? X86_CR4_TSD : 0));
        FOR_EACH_RING(mode, cpl, iopl)
        for (unsigned k = 0; k < COUNT(insns); k++) {
            const struct insn *i = &insns[k];

            if (!offered(i) || (cpl == 0 && !(i->flags & RUNS0)))
                continue;
            /* TCG has SVM, and system calls of no one vendor. */
            if (cpu_is_tcg() &&
                ((i->b[1] == 0x01 && i->b[2] == 0xd8) || i->rule == SYSRET ||
                 i->rule == SYSENTER || i->rule == SYSEXIT))
                continue;
            insn_case(i, mode, cpl, iopl);
        }
    }
    write_cr4(read_cr4() & ~(ulong)(X86_CR4_UMIP | X86_CR4_TSD));
}

/* --- CLI, STI --- */

static void interrupt_flag(void) {
    FOR_EACH_RING(mode, cpl, iopl)
    for (unsigned k = 0; k < 4; k++) {
        bool sti = k & 1, before = k & 2, good = cpl <= iopl;
        uint8_t b[2] = {sti ? 0xfb : 0xfa, 0x90};

        regs_for(mode, cpl, iopl);
        if (before)
            in.flags |= X86_FL_IF;
        run_bytes(b, 2, mode);
        cases++;
        digest_add(trap.r.flags);
        check(good ? trap.vector == DONE && !(trap.r.flags & X86_FL_IF) == !sti
                   : trap.vector == X86_GP && trap.error == 0 && untouched(mode),
              "%s%s CPL %u IOPL %u: vector %u flags 0x%lx", mode_name[mode],
              sti ? "sti" : "cli", cpl, iopl, trap.vector, trap.r.flags);
    }
}

/* --- ports --- */

#define TSS_HEAD 104u
/* A doubleword at port 0x8f reaches port 0x92: A20 stays on, and no reset. */
#define PORT_DATA 0x02020202

static struct {
    uint8_t bytes[TSS_HEAD + 8192 + 64];
} map_tss __attribute__((aligned(128)));

/* Loads TR with the TSS that the bitmap cases use. */
static void map_load(unsigned iomap, unsigned limit) {
    memcpy(map_tss.bytes, &tss, sizeof(tss));
    memcpy(map_tss.bytes + 102, &(uint16_t){(uint16_t)iomap}, 2);
    gdt_set_sys(MAP_TSS, (ulong)&map_tss, limit, X86_AR_P | X86_DESC_TSS32);
    __asm__ volatile("ltr %w0" ::"r"(MAP_TSS));
}

static bool port_allowed(unsigned iomap, unsigned limit, unsigned port, unsigned size) {
    unsigned off = iomap + port / 8, bits;

    if (limit < 103 || off + 1 > limit)
        return false;
    bits = map_tss.bytes[off] | map_tss.bytes[off + 1] << 8;
    return !(bits >> (port & 7) & ((1u << size) - 1));
}

/* IN and OUT by rDX, INS and OUTS, of 1, 2 or 4 bytes. Bytes for 32-bit code. */
struct port_form {
    uint8_t op, size;
    bool immediate, string;
};

static const struct port_form port_forms[] = {
    {0xec, 1, false, false}, {0xed, 2, false, false}, {0xed, 4, false, false},
    {0xee, 1, false, false}, {0xef, 2, false, false}, {0xef, 4, false, false},
    {0xe4, 1, true, false},  {0xe5, 2, true, false},  {0xe5, 4, true, false},
    {0xe6, 1, true, false},  {0xe7, 2, true, false},  {0xe7, 4, true, false},
    {0x6c, 1, false, true},  {0x6d, 2, false, true},  {0x6d, 4, false, true},
    {0x6e, 1, false, true},  {0x6f, 2, false, true},  {0x6f, 4, false, true},
};

static void port_case(const struct port_form *f, enum mode mode, unsigned cpl,
                      unsigned iopl, unsigned port, bool allowed, const char *what) {
    uint8_t b[4];
    unsigned n = 0;
    bool good = allowed || (mode != V86 && cpl <= iopl);

    if (f->immediate && port > 255)
        return;
    regs_for(mode, cpl, iopl);
    in.si = SCRATCH + 32;
    in.dx = port;
    in.ax = PORT_DATA;
    if (f->size == (mode == V86 ? 4 : 2))
        b[n++] = 0x66;
    b[n++] = f->op;
    if (f->immediate)
        b[n++] = (uint8_t)port;
    run_bytes(b, n, mode);
    cases++;
    digest_add(trap.vector);
    check(good ? trap.vector == DONE
               : trap.vector == X86_GP && trap.error == 0 && untouched(mode),
          "%s: %sopcode %x of port 0x%x, %u bytes, CPL %u IOPL %u: vector %u, want %s",
          what, mode_name[mode], f->op, port, f->size, cpl, iopl, trap.vector,
          good ? "none" : "#GP");
}

/* Every form at every level: once with a bitmap that allows, once with one that does
 * not. */
static void port_levels(void) {
    const unsigned limit = TSS_HEAD + 8192;

    for (unsigned open = 0; open < 2; open++) {
        memset(&map_tss, open ? 0 : 0xff, sizeof(map_tss));
        map_load(TSS_HEAD, limit);
        FOR_EACH_RING(mode, cpl, iopl)
        for (unsigned k = 0; k < COUNT(port_forms); k++)
            port_case(&port_forms[k], mode, cpl, iopl, 0x80, open, "levels");
    }
}

/* One bit set around the port, in every place; ports whose bits cross a byte. */
static void port_bits(enum mode mode) {
    static const uint16_t ports[] = {0x80, 0x81, 0x84, 0x85, 0x86, 0x87, 0xfff8, 0xffff};
    const unsigned limit = TSS_HEAD + 8192;

    memset(&map_tss, 0, sizeof(map_tss));
    for (unsigned p = 0; p < COUNT(ports); p++)
        for (int at = -2; at < 6; at++) {
            unsigned bit = (unsigned)(ports[p] + at);
            uint8_t *byte = &map_tss.bytes[TSS_HEAD + bit / 8];

            map_load(TSS_HEAD, limit);
            *byte |= (uint8_t)(1u << (bit & 7));
            for (unsigned k = 0; k < COUNT(port_forms); k++) {
                const struct port_form *f = &port_forms[k];

                if (f->size + (ports[p] & 0xffffu) > 0x10000)
                    continue; /* port numbers that wrap are nobody's promise */
                port_case(f, mode, 3, 0, ports[p],
                          port_allowed(TSS_HEAD, limit, ports[p], f->size), "one bit");
            }
            *byte = 0;
        }
}

/* The TSS ends within, right behind and before the two bytes that are looked at; the map
 * begins anywhere. */
static void port_limits(enum mode mode) {
    static const uint16_t ports[] = {0x80, 0x87, 0x8f, 0xe7};
    static const uint16_t bases[] = {TSS_HEAD, 103,    102,    110,
                                     0x200,    0x2000, 0xdfff, 0xffff};

    memset(&map_tss, 0, sizeof(map_tss));
    for (unsigned p = 0; p < COUNT(ports); p++)
        for (unsigned b = 0; b < COUNT(bases); b++)
            for (int d = -2; d < 3; d++) {
                unsigned end = bases[b] + ports[p] / 8, limit = end + (unsigned)d;

                if (limit >= sizeof(map_tss))
                    limit = sizeof(map_tss) - 1;
                map_load(bases[b], limit);
                for (unsigned k = 0; k < 6; k++)
                    port_case(&port_forms[k], mode, 3, 0, ports[p],
                              port_allowed(bases[b], limit, ports[p], port_forms[k].size),
                              "limit");
            }
}

void guest_main(void) {
    memset((void *)SCRATCH, PORT_DATA & 0xff, 64);
    segments();
    instructions();
    interrupt_flag();
    port_levels();
    for (enum mode mode = NATIVE; mode < MODES; mode++) {
        if (mode == (LONG_MODE ? V86 : CODE_32))
            continue;
        port_bits(mode);
        port_limits(mode);
    }
    printf("%u cases\n", cases);
    digest_print();
}
