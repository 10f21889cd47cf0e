/*
 * Whatever CPU the guest has (--cpu): what CPUID tells is there works, and what it does
 * not tell of raises #UD, or is another instruction, or cannot be switched on.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

struct probe {
    const char *what;
    uint32_t leaf, sub;
    uint8_t reg, bit;
    uint8_t len, b[12]; /* operands are registers, or memory at [bx] */
};

static const struct probe probes[] = {
    {"haddps", 1, 0, REG_ECX, 0, 4, {0xf2, 0x0f, 0x7c, 0xc1}},
    {"pclmulqdq", 1, 0, REG_ECX, 1, 6, {0x66, 0x0f, 0x3a, 0x44, 0xc1, 0}},
    {"pshufb", 1, 0, REG_ECX, 9, 5, {0x66, 0x0f, 0x38, 0x00, 0xc1}},
    {"vfmadd132ps", 1, 0, REG_ECX, 12, 5, {0xc4, 0xe2, 0x71, 0x98, 0xc2}},
    {"ptest", 1, 0, REG_ECX, 19, 5, {0x66, 0x0f, 0x38, 0x17, 0xc1}},
    {"pcmpgtq", 1, 0, REG_ECX, 20, 5, {0x66, 0x0f, 0x38, 0x37, 0xc1}},
    {"movbe", 1, 0, REG_ECX, 22, 4, {0x0f, 0x38, 0xf0, 0x03}},
    {"popcnt", 1, 0, REG_ECX, 23, 4, {0xf3, 0x0f, 0xb8, 0xc1}},
    {"aesenc", 1, 0, REG_ECX, 25, 5, {0x66, 0x0f, 0x38, 0xdc, 0xc1}},
    {"vaddps", 1, 0, REG_ECX, 28, 4, {0xc5, 0xf0, 0x58, 0xc2}},
    {"vcvtph2ps", 1, 0, REG_ECX, 29, 5, {0xc4, 0xe2, 0x79, 0x13, 0xc1}},
    {"rdrand", 1, 0, REG_ECX, 30, 3, {0x0f, 0xc7, 0xf0}},
    {"andn", 7, 0, REG_EBX, 3, 5, {0xc4, 0xe2, 0x70, 0xf2, 0xc2}},
    {"vpaddd ymm", 7, 0, REG_EBX, 5, 4, {0xc5, 0xf5, 0xfe, 0xc2}},
    {"rorx", 7, 0, REG_EBX, 8, 6, {0xc4, 0xe3, 0x7b, 0xf0, 0xc1, 3}},
    {"rdseed", 7, 0, REG_EBX, 18, 3, {0x0f, 0xc7, 0xf8}},
    {"adcx", 7, 0, REG_EBX, 19, 5, {0x66, 0x0f, 0x38, 0xf6, 0xc1}},
    {"clflushopt", 7, 0, REG_EBX, 23, 4, {0x66, 0x0f, 0xae, 0x3b}},
    {"sha1nexte", 7, 0, REG_EBX, 29, 4, {0x0f, 0x38, 0xc8, 0xc1}},
    {"gf2p8mulb", 7, 0, REG_ECX, 8, 5, {0x66, 0x0f, 0x38, 0xcf, 0xc1}},
    {"vaesenc ymm", 7, 0, REG_ECX, 9, 5, {0xc4, 0xe2, 0x75, 0xdc, 0xc2}},
    {"vpclmulqdq ymm", 7, 0, REG_ECX, 10, 6, {0xc4, 0xe3, 0x75, 0x44, 0xc2, 0}},
    {"rdpid", 7, 0, REG_ECX, 22, 4, {0xf3, 0x0f, 0xc7, 0xf9}},
    {"vpdpbusd", 7, 1, REG_EAX, 4, 5, {0xc4, 0xe2, 0x71, 0x50, 0xc2}},
    {"xsaveopt", 0xd, 1, REG_EAX, 0, 3, {0x0f, 0xae, 0x33}},
    {"xsavec", 0xd, 1, REG_EAX, 1, 3, {0x0f, 0xc7, 0x23}},
    {"extrq", 0x80000001, 0, REG_ECX, 6, 4, {0x66, 0x0f, 0x79, 0xc1}},
    {"rdtscp", 0x80000001, 0, REG_EDX, 27, 3, {0x0f, 0x01, 0xf9}},
    {"vpaddd zmm", 7, 0, REG_EBX, 16, 6, {0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc2}},
    {"vpaddd zmm, memory", 7, 0, REG_EBX, 16, 6, {0x62, 0xf1, 0x75, 0x48, 0xfe, 0x03}},
    {"vpaddd with a mask", 7, 0, REG_EBX, 16, 6, {0x62, 0xf1, 0x75, 0x4a, 0xfe, 0x03}},
    {"vmovdqu64 to memory", 7, 0, REG_EBX, 16, 6, {0x62, 0xf1, 0xfe, 0x4a, 0x7f, 0x03}},
    {"kmovw", 7, 0, REG_EBX, 16, 4, {0xc5, 0xf8, 0x92, 0xc9}},
    {"vpaddd xmm by EVEX", 7, 0, REG_EBX, 31, 6, {0x62, 0xf1, 0x75, 0x08, 0xfe, 0xc2}},
    {"vandpd zmm", 7, 0, REG_EBX, 17, 6, {0x62, 0xf1, 0xf5, 0x48, 0x54, 0xc2}},
    {"vpmadd52luq", 7, 0, REG_EBX, 21, 6, {0x62, 0xf2, 0xf5, 0x48, 0xb4, 0xc2}},
    {"vpconflictd", 7, 0, REG_EBX, 28, 6, {0x62, 0xf2, 0x7d, 0x48, 0xc4, 0xc2}},
    {"vpaddb zmm", 7, 0, REG_EBX, 30, 6, {0x62, 0xf1, 0x75, 0x48, 0xfc, 0xc2}},
    {"kmovd", 7, 0, REG_EBX, 30, 4, {0xc5, 0xfb, 0x92, 0xc9}},
    {"vpermb", 7, 0, REG_ECX, 1, 6, {0x62, 0xf2, 0x75, 0x48, 0x8d, 0xc2}},
    {"vpshldd", 7, 0, REG_ECX, 6, 7, {0x62, 0xf3, 0x75, 0x48, 0x71, 0xc2, 1}},
    {"vpdpbusd zmm", 7, 0, REG_ECX, 11, 6, {0x62, 0xf2, 0x75, 0x48, 0x50, 0xc2}},
    {"vpopcntb", 7, 0, REG_ECX, 12, 6, {0x62, 0xf2, 0x7d, 0x48, 0x54, 0xc2}},
    {"vpopcntd", 7, 0, REG_ECX, 14, 6, {0x62, 0xf2, 0x7d, 0x48, 0x55, 0xc2}},
    {"vdpbf16ps", 7, 1, REG_EAX, 5, 6, {0x62, 0xf2, 0x76, 0x48, 0x52, 0xc2}},
    /* Kept from all: no CPU that is offered has them. */
    {"vfmaddps (FMA4)",
     0x80000001,
     0,
     REG_ECX,
     16,
     6,
     {0xc4, 0xe3, 0x71, 0x68, 0xc2, 0x30}},
    {"vpcomb (XOP)", 0x80000001, 0, REG_ECX, 11, 6, {0x8f, 0xe8, 0x70, 0xcc, 0xc2, 0}},
};

static uint8_t area[4096] __attribute__((aligned(4096)));
static uint8_t place[4096] __attribute__((aligned(4096)));

static bool offered(uint32_t leaf, uint32_t sub, unsigned reg, unsigned bit) {
    uint32_t r[4];

    cpuid(leaf & 0x80000000u, 0, r);
    if (r[0] < leaf)
        return false;
    if (leaf == 7 && sub) {
        cpuid(7, 0, r);
        if (r[0] < sub)
            return false;
    }
    cpuid(leaf, sub, r);
    return r[reg] >> bit & 1;
}

/* Eight times over, so that a translator has its way with it. */
static void *repeat(const uint8_t *b, unsigned len) {
    uint8_t *at = place;

    for (unsigned n = 0; n < 8; n++) {
        memcpy(at, b, len);
        at += len;
    }
    *at++ = 0xcd;
    *at++ = DONE;
    return place;
}

static void try_probe(const struct probe *p, bool user) {
    bool there = offered(p->leaf, p->sub, p->reg, p->bit);

    for (unsigned n = 0; n < 4; n++) {
        user ? regs_user() : regs_kernel();
        in.bx = (ulong)area;
        in.ax = 3; /* XSAVE's components */
        in.dx = 0;
        run(repeat(p->b, p->len));
        check(trap.vector == (there ? DONE : X86_UD) &&
                  (there || trap.r.ip == (ulong)place),
              "%s, which is%s offered: vector %u", p->what, there ? "" : " not",
              trap.vector);
    }
}

/* F3 BSR and F3 BSF are LZCNT and TZCNT on those CPUs that know them. */
static void scans(void) {
    static const uint8_t lzcnt[] = {0xf3, 0x0f, 0xbd, 0xc1};
    static const uint8_t tzcnt[] = {0xf3, 0x0f, 0xbc, 0xc1};
    static const uint8_t lzcnt_mem[] = {0xf3, 0x0f, 0xbd, 0x03};

    for (unsigned n = 0; n < 4; n++) {
        ulong want = offered(0x80000001, 0, REG_ECX, 5) ? 11 : 20;
        regs_user();
        in.cx = 1 << 20;
        run(repeat(lzcnt, sizeof(lzcnt)));
        check(trap.vector == DONE && trap.r.ax == want, "lzcnt: %u 0x%lx", trap.vector,
              trap.r.ax);
        memcpy(area, &in.cx, 4);
        in.bx = (ulong)area;
        run(repeat(lzcnt_mem, sizeof(lzcnt_mem)));
        check(trap.vector == DONE && trap.r.ax == want, "lzcnt of memory: %u 0x%lx",
              trap.vector, trap.r.ax);
        /* Of zero: 32, or the destination as it was and ZF. */
        in.ax = 0x1234;
        in.cx = 0;
        run(repeat(tzcnt, sizeof(tzcnt)));
        if (offered(7, 0, REG_EBX, 3))
            check(trap.r.ax == 32 && (trap.r.flags & X86_FL_CF), "tzcnt: 0x%lx 0x%lx",
                  trap.r.ax, trap.r.flags);
        else
            check(trap.r.ax == 0x1234 && (trap.r.flags & X86_FL_ZF), "bsf: 0x%lx 0x%lx",
                  trap.r.ax, trap.r.flags);
    }
}

/* What cannot be switched on raises #GP. */
static void control_registers(void) {
    static const struct {
        uint32_t leaf;
        uint8_t reg, bit;
        uint32_t cr4;
    } gates[] = {{1, REG_ECX, 17, X86_CR4_PCIDE},   {1, REG_ECX, 26, X86_CR4_OSXSAVE},
                 {7, REG_EBX, 0, X86_CR4_FSGSBASE}, {7, REG_EBX, 7, X86_CR4_SMEP},
                 {7, REG_EBX, 20, X86_CR4_SMAP},    {7, REG_ECX, 2, X86_CR4_UMIP}};

    for (unsigned n = 0; n < COUNT(gates); n++) {
        ulong cr4 = read_cr4();

        bool there = offered(gates[n].leaf, 0, gates[n].reg, gates[n].bit);

        if (gates[n].cr4 == X86_CR4_PCIDE && !LONG_MODE) /* needs long mode */
            continue;
        /* Everything is the user's here. */
        if (there && (gates[n].cr4 & (X86_CR4_SMEP | X86_CR4_SMAP)))
            continue;
        regs_kernel();
        in.ax = cr4 | gates[n].cr4;
        in.cx = cr4;
        RUN("mov cr4, " BITS("eax", "rax") "\nmov cr4, " BITS("ecx", "rcx"));
        check(trap.vector == (there ? DONE : X86_GP),
              "CR4 bit 0x%x, which is%s offered: %u", gates[n].cr4, there ? "" : " not",
              trap.vector);
        write_cr4(cr4);
    }
    TRY0("clac");
    check_eq("clac", trap.vector, offered(7, 0, REG_EBX, 20) ? DONE : X86_UD);
    regs_kernel();
    in.ax = 2;
    in.bx = (ulong)area;
    RUN("invpcid " BITS("eax", "rax") ", [" BITS("ebx", "rbx") "]");
    check_eq("invpcid", trap.vector, offered(7, 0, REG_EBX, 10) ? DONE : X86_UD);
}

static void xcr0(void) {
    uint32_t r[4];

    if (!offered(1, 0, REG_ECX, 26)) {
        TRY0("xor ecx, ecx\nxgetbv");
        expect("xgetbv without XSAVE", X86_UD, 0, ANY);
        return;
    }
    write_cr4(read_cr4() | X86_CR4_OSXSAVE);
    cpuid(0xd, 0, r);
    check_eq("AVX and its state", r[REG_EAX] >> 2 & 1, offered(1, 0, REG_ECX, 28));
    for (unsigned bit = 0; bit < 32; bit++) {
        static const uint32_t with[32] = {
            [0] = 1, [1] = 3, [2] = 7, [5] = 0xe7, [6] = 0xe7, [7] = 0xe7};
        uint32_t value = with[bit] ? with[bit] : 1 | 1u << bit;

        regs_kernel();
        in.ax = value;
        in.cx = in.dx = 0;
        RUN("xsetbv");
        check(trap.vector ==
                  ((value & ~r[REG_EAX]) || bit == 3 || bit == 4 ? X86_GP : DONE),
              "xsetbv of 0x%x: %u", value, trap.vector);
    }
    regs_kernel();
    in.ax = r[REG_EAX];
    in.cx = in.dx = 0;
    RUN("xsetbv");
    expect("xsetbv of all", DONE, 0, ANY);
}

void guest_main(void) {
    if (!LONG_MODE) {
        struct space s;
        space_new(&s, SPACE_PAE, RWU);
        space_load(&s);
    }
    write_cr0((read_cr0() & ~X86_CR0_EM) | X86_CR0_MP);
    write_cr4(read_cr4() | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    control_registers();
    xcr0();
    for (unsigned n = 0; n < COUNT(probes); n++) {
        try_probe(&probes[n], false);
        try_probe(&probes[n], true);
    }
    scans();
}
