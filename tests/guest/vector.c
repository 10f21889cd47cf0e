/*
 * Data accesses of every size and unit, aligned or not, within a page, across pages, and
 * across into a page that is missing or read-only; locked ones too. State that x87, SSE
 * and AVX keep across traps, FXSAVE and the XSAVE family, and what CPUID says of them.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define VA 0x40000000ul
#define EDGE (VA + 4096)
#define B BITS("ebx", "rbx")

static struct space s;
static uint8_t *low, *high; /* the pages below and above EDGE */
static bool avx;

enum { LOAD = 1, STORE = 2 };

struct form {
    const char *what;
    void *code; /* accesses [bx] */
    unsigned size, kind;
};

/* Patterns: byte i of the area around EDGE. */
static void fill(void) {
    for (unsigned i = 0; i < 4096; i++) {
        low[i] = (uint8_t)(i * 3 + 1);
        high[i] = (uint8_t)(i * 5 + 2);
    }
}

static void second(uint64_t flags) {
    space_map(&s, EDGE, (ulong)high, flags, 1);
    invlpg(EDGE);
}

/* Multiplications, shifts and bit scans leave these undefined, so they may differ. */
#define UNDEFINED ((ulong)(X86_FL_STATUS & ~X86_FL_CF))

static void try_form(const struct form *f) {
    for (unsigned below = 1; below < f->size; below = below < 4 ? below + 1 : below * 2) {
        /* `below` bytes of the access lie on the low page. */
        ulong at = EDGE - below;
        fill();
        second(RWU);
        regs_user();
        in.bx = at;
        in.ax = 0x8070605;
        in.cx = 0x1020304;
        in.dx = 0x55667788;
        unsigned v = run(f->code);
        check(v == DONE, "%s with %u bytes below: vector %u cr2 0x%lx", f->what, below, v,
              trap.cr2);
        struct regs whole = trap.r;
        uint8_t after[128];
        memcpy(after, low + 4096 - 64, 64);
        memcpy(after + 64, high, 64);
        /* The same at an aligned place must give the same. */
        fill();
        uint8_t *flat = low + 1024;
        memcpy(flat, low + 4096 - below, below);
        memcpy(flat + below, high, 128 - below);
        in.bx = VA + 1024;
        v = run(f->code);
        check(v == DONE && trap.r.ax == whole.ax && trap.r.cx == whole.cx &&
                  trap.r.dx == whole.dx && !((trap.r.flags ^ whole.flags) & ~UNDEFINED) &&
                  !memcmp(flat, after + 64 - below, below + 64),
              "%s across, %u bytes below, does what it does within: ax 0x%lx 0x%lx",
              f->what, below, trap.r.ax, whole.ax);
        /* Missing second page: nothing happens but the fault. */
        fill();
        second(0);
        in.bx = at;
        v = run(f->code);
        ulong error = X86_PF_U | (f->kind & STORE ? X86_PF_W : 0);
        check(v == X86_PF && trap.cr2 == EDGE && trap.error == error &&
                  trap.r.ax == in.ax && trap.r.cx == in.cx && trap.r.dx == in.dx,
              "%s into a missing page, %u below: %u 0x%lx cr2 0x%lx", f->what, below, v,
              trap.error, trap.cr2);
        bool clean = true;
        for (unsigned i = 0; i < 4096; i++)
            clean &= low[i] == (uint8_t)(i * 3 + 1);
        check(clean, "%s wrote nothing of what faulted, %u below", f->what, below);
        if (!(f->kind & STORE))
            continue;
        second(X86_PTE_P | X86_PTE_U);
        v = run(f->code);
        check(v == X86_PF && trap.cr2 == EDGE && trap.error == (error | X86_PF_P),
              "%s into a read-only page, %u below: %u 0x%lx cr2 0x%lx", f->what, below, v,
              trap.error, trap.cr2);
    }
    second(RWU);
}

static void accesses(void) {
    const struct form forms[] = {
        {"mov load 2", CODE("mov ax, [" B "]"), 2, LOAD},
        {"mov load 4", CODE("mov eax, [" B "]"), 4, LOAD},
        {"mov store 2", CODE("mov [" B "], ax"), 2, STORE},
        {"mov store 4", CODE("mov [" B "], eax"), 4, STORE},
        {"mov store imm", CODE("mov dword ptr [" B "], 0x12345678"), 4, STORE},
        {"movzx", CODE("movzx eax, word ptr [" B "]"), 2, LOAD},
        {"movsx", CODE("movsx eax, word ptr [" B "]"), 2, LOAD},
        {"add r, m", CODE("add eax, [" B "]"), 4, LOAD},
        {"add m, r", CODE("add [" B "], eax"), 4, STORE},
        {"lock add m, r", CODE("lock add [" B "], eax"), 4, STORE},
        {"lock add m16, r", CODE("lock add [" B "], ax"), 2, STORE},
        {"lock xadd", CODE("lock xadd [" B "], eax"), 4, STORE},
        {"xchg", CODE("xchg [" B "], eax"), 4, STORE},
        {"lock cmpxchg", CODE("lock cmpxchg [" B "], ecx"), 4, STORE},
        {"lock inc", CODE("lock inc dword ptr [" B "]"), 4, STORE},
        {"lock not", CODE("lock not dword ptr [" B "]"), 4, STORE},
        {"lock bts", CODE("lock bts dword ptr [" B "], 31"), 4, STORE},
        {"neg", CODE("neg dword ptr [" B "]"), 4, STORE},
        {"shl", CODE("shl dword ptr [" B "], 3"), 4, STORE},
        {"shld", CODE("shld [" B "], eax, 7"), 4, STORE},
        {"cmp", CODE("cmp [" B "], eax"), 4, LOAD},
        {"test", CODE("test [" B "], eax"), 4, LOAD},
        {"imul", CODE("imul eax, [" B "], 7"), 4, LOAD},
        {"mul", CODE("mul dword ptr [" B "]"), 4, LOAD},
        {"bsf", CODE("bsf eax, [" B "]"), 4, LOAD},
        {"cmovz loads anyway", CODE("cmovz ecx, [" B "]"), 4, LOAD},
        {"fld m32", CODE("fninit\nfld dword ptr [" B "]\nfstp st(0)"), 4, LOAD},
        {"fld m64", CODE("fninit\nfld qword ptr [" B "]\nfstp st(0)"), 8, LOAD},
        {"fld m80", CODE("fninit\nfld tbyte ptr [" B "]\nfstp st(0)"), 10, LOAD},
        {"fild m16", CODE("fninit\nfild word ptr [" B "]\nfstp st(0)"), 2, LOAD},
        {"fild m64", CODE("fninit\nfild qword ptr [" B "]\nfstp st(0)"), 8, LOAD},
        {"fstp m32", CODE("fninit\nfldpi\nfstp dword ptr [" B "]"), 4, STORE},
        {"fstp m64", CODE("fninit\nfldpi\nfstp qword ptr [" B "]"), 8, STORE},
        {"fstp m80", CODE("fninit\nfldpi\nfstp tbyte ptr [" B "]"), 10, STORE},
        {"fbstp", CODE("fninit\nfldpi\nfbstp [" B "]"), 10, STORE},
        {"fistp m64", CODE("fninit\nfldpi\nfistp qword ptr [" B "]"), 8, STORE},
        {"fnstcw", CODE("fninit\nfnstcw [" B "]"), 2, STORE},
        {"fnstenv", CODE("fninit\nfnstenv [" B "]"), 28, STORE},
        {"movq mm", CODE("movq mm0, [" B "]\nmovd eax, mm0\nemms"), 8, LOAD},
        {"movups load",
         CODE("movups xmm0, [" B "]\nmovd eax, xmm0\npsrldq xmm0, 12\n"
              "movd ecx, xmm0"),
         16, LOAD},
        {"movups store",
         CODE("movd xmm0, eax\npshufd xmm0, xmm0, 0\nmovups [" B "], xmm0"), 16, STORE},
        {"movsd load", CODE("movsd xmm0, qword ptr [" B "]\nmovd eax, xmm0"), 8, LOAD},
        {"movlps store", CODE("movd xmm0, eax\nmovlps [" B "], xmm0"), 8, STORE},
        {"cvtsi2sd", CODE("cvtsi2sd xmm0, dword ptr [" B "]\nmovd eax, xmm0"), 4, LOAD},
        {"pinsrw",
         CODE("pxor xmm0, xmm0\npinsrw xmm0, word ptr [" B "], 1\n"
              "movd eax, xmm0"),
         2, LOAD},
#ifdef __x86_64__
        {"mov load 8", CODE("mov rax, [rbx]"), 8, LOAD},
        {"mov store 8", CODE("mov [rbx], rax"), 8, STORE},
        {"lock xadd 8", CODE("lock xadd [rbx], rax"), 8, STORE},
        {"xchg 8", CODE("xchg [rbx], rax"), 8, STORE},
        {"lock cmpxchg 8", CODE("lock cmpxchg [rbx], rcx"), 8, STORE},
#endif
        {"lock cmpxchg8b",
         CODE("mov " BITS("esi", "rsi") ", " B "\nmov ebx, 5\nlock cmpxchg8b [" BITS(
             "esi", "rsi") "]"),
         8, STORE},
    };
    for (unsigned i = 0; i < COUNT(forms); i++)
        try_form(&forms[i]);
    if (!avx)
        return;
    const struct form more[] = {
        {"vmovups ymm load",
         CODE("vmovups ymm0, [" B "]\nvextractf128 xmm1, ymm0, 1\n"
              "vmovd eax, xmm0\nvmovd ecx, xmm1"),
         32, LOAD},
        {"vmovups ymm store",
         CODE("vmovd xmm0, eax\nvbroadcastss ymm0, xmm0\nvmovups [" B "], ymm0"), 32,
         STORE},
        {"vaddps ymm, m", CODE("vxorps ymm0, ymm0, ymm0\nvaddps ymm0, ymm0, [" B "]"), 32,
         LOAD},
        {"vmaskmovps with all set",
         CODE("vpcmpeqd ymm1, ymm1, ymm1\nvmaskmovps [" B "], ymm1, ymm1"), 32, STORE},
    };
    for (unsigned i = 0; i < COUNT(more); i++)
        try_form(&more[i]);
    /* Masked-off elements do not touch the missing page. */
    second(0);
    regs_user();
    in.bx = EDGE - 16;
    RUN("vpcmpeqd xmm1, xmm1, xmm1\nvmaskmovps ymm0, ymm1, [" B "]");
    check(trap.vector == DONE, "vmaskmovps load with the upper half off: %u",
          trap.vector);
    RUN("vpcmpeqd xmm1, xmm1, xmm1\nvmaskmovps [" B "], ymm1, ymm1");
    check(trap.vector == DONE, "vmaskmovps store with the upper half off: %u",
          trap.vector);
    second(RWU);
    in.bx = VA + 8;
    RUN("vmovaps xmm0, [" B "]");
    expect("vmovaps unaligned", X86_GP, 0, 0);
    RUN("vaddps xmm0, xmm0, [" B "]");
    expect("vaddps unaligned is fine", DONE, 0, ANY);
    /* VEX.128 clears the upper half, legacy SSE keeps it. */
    RUN("vpcmpeqd ymm0, ymm0, ymm0\npxor xmm0, xmm0\nvextractf128 xmm1, ymm0, 1\n"
        "vmovd eax, xmm1\nvpxor xmm0, xmm0, xmm0\nvextractf128 xmm1, ymm0, 1\n"
        "vmovd ecx, xmm1");
    check(trap.r.ax == 0xffffffff && trap.r.cx == 0, "upper halves: 0x%lx 0x%lx",
          trap.r.ax, trap.r.cx);
    RUN("vpcmpeqd ymm7, ymm7, ymm7\nvzeroupper\nvextractf128 xmm1, ymm7, 1\n"
        "vmovd eax, xmm1\nvmovd ecx, xmm7");
    check(trap.r.ax == 0 && trap.r.cx == 0xffffffff, "vzeroupper");
}

static uint8_t image[2048] __attribute__((aligned(64))),
    image2[2048] __attribute__((aligned(64)));

/* AMD's CPUs keep the x87's pointers back from FXSAVE and XSAVE, and say that the area
 * then has zeros, and is what FXRSTOR and XRSTOR take, if they do. */
static bool has_xsaveerptr(void) {
    uint32_t r[4];

    cpuid(0x80000008, 0, r);
    return r[REG_EBX] & 4;
}

/* With an exception pending all CPUs save the pointers. */
static void pending_pointer(void) {
    regs_user();
    in.bx = (ulong)image;
    *(uint16_t *)(image + 1024) = 0x37e;
    memset(image + 512, 0, 512);
    RUN("mov edi, offset 5f\nfninit\nfldcw [" B " + 1024]\n5: fadd st, st(1)\nfxsave [" B
        " + 512]\nfnclex\nmov edx, edi");
    ulong at = trap.r.dx;
    check_eq("FIP with an exception pending", *(uint32_t *)(image + 520), (uint32_t)at);
    check_eq("FOP", *(uint16_t *)(image + 518), 0x0c1);
    /* Loaded again, they are there. */
    RUN("fldcw [" B " + 1024]\nfldz\nfninit\nfxrstor [" B " + 512]\nfnstenv [" B "]");
    check_eq("and after FXRSTOR", *(uint32_t *)(image + 12), (uint32_t)at);
    /* With nothing pending. */
    *(uint16_t *)(image + 512) = 0x37f;
    *(uint16_t *)(image + 514) = 0;
    RUN("fninit\nfxrstor [" B " + 512]\nfnstenv [" B "]");
    check_eq("with nothing pending", *(uint32_t *)(image + 12),
             cpu_is_amd() && !has_xsaveerptr() ? 0 : *(uint32_t *)(image + 520));
}

/* The address of the last x87 instruction, by which some code finds out where it is.
 * Control instructions leave it; FNINIT clears it. CX counts what is wrong. */
static void x87_pointer(void) {
    memset(image, 0, sizeof(image));
    for (int rounds = 3; rounds <= 9000; rounds += 8997) {
        regs_user();
        in.bx = (ulong)image;
        in.si = (ulong)rounds;
        in.dx = cpu_is_amd() ? 0 : ~0ul;
        RUN("xor ecx, ecx\nmov edi, offset 5f\nand edx, edi\n"
            "1: fninit\nfnstenv [" B "]\ncmp dword ptr [" B " + 12], 0\nje 2f\ninc ecx\n"
            "2: fldz\n5: fild dword ptr [" B " + 64]\nfstcw [" B " + 68]\nfxsave [" B
            " + 512]\n"
            "cmp dword ptr [" B " + 520], edx\nje 3f\ninc ecx\n"
            "3: fnstenv [" B "]\ncmp dword ptr [" B " + 12], edi\nje 4f\ninc ecx\n"
            "4: dec esi\njnz 1b\nmov eax, [" B " + 16]\nshr eax, 16\nmov edx, edi");
        check_eq("FIP by FNSTENV and FXSAVE", trap.r.cx, 0);
        check_eq("FOP", trap.r.ax & 0x7ff, 0x343);
        /* What user code did last, seen by the kernel afterwards. */
        regs_kernel();
        in.bx = (ulong)image;
        ulong at = trap.r.dx;
        RUN("fnsave [" B "]\nfrstor [" B "]\nfnstenv [" B " + 128]");
        check_eq("FIP in the kernel", *(uint32_t *)(image + 12), (uint32_t)at);
        check_eq("and after FRSTOR", *(uint32_t *)(image + 128 + 12), (uint32_t)at);
    }
}

static void state(void) {
    /* Registers live across a trap and its return. */
    regs_user();
    RUN("fninit\nfldpi\nfld1\nmov eax, 0x1234567\nmovd xmm3, eax\n" BITS(
        "", "movd xmm11, eax\n") "nop");
    for (volatile int i = 0; i < 1000; i++)
        ;
    regs_user();
    RUN("fnstsw ax\nmovd ecx, xmm3\n" BITS("", "movd edx, xmm11\n"));
    check((trap.r.ax >> 11 & 7) == 6 && trap.r.cx == 0x1234567 &&
              trap.r.dx == BITS(0, 0x1234567),
          "x87 and SSE state across traps: 0x%lx 0x%lx", trap.r.ax, trap.r.cx);
    /* FXSAVE and back. */
    memset(image, 0xcc, sizeof(image));
    in.bx = (ulong)image;
    RUN("fxsave [" B "]\nfninit\npxor xmm3, xmm3\nfxrstor [" B
        "]\nmovd ecx, xmm3\nfnstsw ax\nfaddp\nfistp dword ptr [" B " + 512]");
    check(trap.vector == DONE && trap.r.cx == 0x1234567 && (trap.r.ax >> 11 & 7) == 6,
          "fxsave and fxrstor: %u 0x%lx", trap.vector, trap.r.cx);
    check_eq("1 + pi", *(uint32_t *)(image + 512), 4);
    check_eq("fcw", *(uint16_t *)image, 0x37f);
    check_eq("abridged tag", image[4], 0xc0);
    check_eq("mxcsr", *(uint32_t *)(image + 24) & ~0x3fu, 0x1f80);
    check_eq("xmm3", *(uint32_t *)(image + 160 + 3 * 16), 0x1234567);
    check_eq("st(0) is 1.0: exponent", *(uint16_t *)(image + 32 + 8), 0x3fff);
    *(uint32_t *)(image + 24) = 0x80001f80;
    RUN("fxrstor [" B "]");
    expect("fxrstor of a bad mxcsr", X86_GP, 0, 0);
    /* The environment: tags, and the last instruction's address. */
    in.bx = (ulong)image;
    RUN("fninit\nfld1\nfnstenv [" B "]\nfldenv [" B "]\nfnsave [" B "]\nfnstsw ax\n"
        "frstor [" B "]\nfist dword ptr [" B "+ 256]");
    check(trap.vector == DONE && *(uint16_t *)image == 0x37f &&
              *(uint16_t *)(image + 8) == 0x3fff && *(uint32_t *)(image + 256) == 1,
          "fnstenv, fnsave, frstor: %u tags 0x%x", trap.vector, *(uint16_t *)(image + 8));
    check_eq("fnsave initializes", trap.r.ax & 0xffff, 0);
    x87_pointer();
    pending_pointer();
    regs_user();
    in.bx = (ulong)image;
    RUN("fninit\nfldz\nfld1\nfldpi\nfdivrp\nfnstsw ax\nfcomi st, st(1)\nsetb cl\nfninit");
    check(trap.vector == DONE && trap.r.cx == 0, "fcomi");
    RUN("fninit\nfadd st, st(1)\nfnstsw ax\nfnclex");
    check_eq("stack underflow: IE, SF", trap.r.ax & 0x41, 0x41);
    if (!avx)
        return;
    uint32_t r[4];
    cpuid(0xd, 0, r);
    check_eq("XCR0 bits", r[REG_EAX] & 7, 7);
    check(r[REG_EBX] >= 832 && r[REG_ECX] >= 832, "xsave area: %u %u", r[REG_EBX],
          r[REG_ECX]);
    cpuid(0xd, 2, r);
    check(r[REG_EAX] == 256 && r[REG_EBX] == 576, "AVX state: %u at %u", r[REG_EAX],
          r[REG_EBX]);
    memset(image, 0, sizeof(image));
    in.bx = (ulong)image;
    in.ax = 7;
    RUN("mov ecx, 0x55aa\nvmovd xmm5, ecx\nvbroadcastss ymm5, xmm5\nxsave [" B
        "]\nvzeroall\nxrstor [" B "]\nvextractf128 xmm1, ymm5, 1\nvmovd ecx, xmm1");
    check(trap.vector == DONE && trap.r.cx == 0x55aa, "xsave and xrstor: %u 0x%lx",
          trap.vector, trap.r.cx);
    check_eq("ymm5's upper half in the image", *(uint32_t *)(image + 576 + 5 * 16),
             0x55aa);
    check_eq("XSTATE_BV has SSE and AVX", image[512] & 6, 6);
    /* A component that is not in XSTATE_BV is initialized. */
    image[512] = 3;
    RUN("xrstor [" B "]\nvextractf128 xmm1, ymm5, 1\nvmovd ecx, xmm1\nvmovd edx, xmm5");
    check(trap.r.cx == 0 && trap.r.dx == 0x55aa, "xrstor initializes: 0x%lx 0x%lx",
          trap.r.cx, trap.r.dx);
    /* One that is not asked for is left alone. */
    in.ax = 3;
    RUN("vpcmpeqd ymm5, ymm5, ymm5\nxrstor [" B "]\nvextractf128 xmm1, ymm5, 1\n"
        "vmovd ecx, xmm1");
    check_eq("xrstor leaves AVX alone", trap.r.cx, 0xffffffff);
    in.ax = 7;
    image[512] = 0x80;
    RUN("xrstor [" B "]");
    expect("XSTATE_BV beyond XCR0", X86_GP, 0, 0);
    image[512] = 7;
    image[530] = 1;
    RUN("xrstor [" B "]");
    expect("reserved bytes of the header", X86_GP, 0, 0);
    image[530] = 0;
    in.bx += 16;
    RUN("xsave [" B "]");
    expect("xsave unaligned", X86_GP, 0, 0);
    RUN("xrstor [" B "]");
    expect("xrstor unaligned", X86_GP, 0, 0);
    cpuid(0xd, 1, r);
    in.bx = (ulong)image2;
    if (r[REG_EAX] & 1) {
        memset(image2, 0, sizeof(image2));
        RUN("vpcmpeqd ymm6, ymm6, ymm6\nxsaveopt [" B "]");
        check(trap.vector == DONE && (image2[512] & 4) &&
                  *(uint32_t *)(image2 + 576 + 6 * 16) == 0xffffffff,
              "xsaveopt: %u", trap.vector);
    }
    if (r[REG_EAX] & 2) {
        memset(image2, 0, sizeof(image2));
        RUN("vpcmpeqd ymm6, ymm6, ymm6\nxsavec [" B "]\nvzeroall\nxrstor [" B
            "]\nvextractf128 xmm1, ymm6, 1\nvmovd ecx, xmm1");
        check(trap.vector == DONE && (image2[527] & 0x80) && trap.r.cx == 0xffffffff,
              "xsavec and xrstor of the compact form: %u 0x%lx", trap.vector, trap.r.cx);
    }
    if (r[REG_EAX] & 4) {
        /* What is in use may be reported too generously, never too sparingly. */
        RUN("vpcmpeqd ymm6, ymm6, ymm6\nmov ecx, 1\nxgetbv");
        check(trap.vector == DONE && (trap.r.ax & 6) == 6 && !(trap.r.ax & ~7ul),
              "xgetbv(1): %u 0x%lx", trap.vector, trap.r.ax);
    }
    /* A save that faults on its second page. */
    second(0);
    in.bx = EDGE - 64;
    RUN("xsave [" B "]");
    check(trap.vector == X86_PF && trap.cr2 >= EDGE && trap.cr2 < EDGE + 4096 &&
              trap.error == (X86_PF_W | X86_PF_U),
          "xsave into a missing page: %u 0x%lx cr2 0x%lx", trap.vector, trap.error,
          trap.cr2);
    RUN("fxsave [" B "]");
    check(trap.vector == X86_PF && trap.cr2 >= EDGE && trap.cr2 < EDGE + 4096,
          "fxsave into a missing page: %u cr2 0x%lx", trap.vector, trap.cr2);
    second(RWU);
}

/* Accesses of every device leave vector and x87 state alone, whatever the machine does
 * for them meanwhile. */
static void access_device(unsigned n) {
    volatile uint32_t *lapic = (volatile uint32_t *)0xfee00000;

    switch (n) {
    case 0:
        outb(0x80, inb(0x80));
        return;
    case 1: /* 8259s */
        outb(0x21, inb(0x21));
        outb(0xa1, inb(0xa1));
        return;
    case 2: /* 16550: a character leaves */
        while (!(inb(0x3fd) & 0x20))
            ;
        outb(0x3f8, '\r');
        return;
    case 3: /* 8254, channel 2 */
        outb(0x43, 0xb0);
        outb(0x42, 0x34);
        outb(0x42, 0x12);
        outb(0x43, 0x80);
        inb(0x42);
        inb(0x42);
        return;
    case 4: /* the clock's date */
        outb(0x70, 9);
        inb(0x71);
        return;
    case 5: /* local APIC: a register, a timer armed and disarmed */
        (void)lapic[0x30 / 4];
        lapic[0x320 / 4] = 0x10000 | 0x50;
        lapic[0x380 / 4] = 1u << 30;
        (void)lapic[0x390 / 4];
        lapic[0x380 / 4] = 0;
        return;
    case 6: /* I/O APIC */
        *(volatile uint32_t *)0xfec00000 = 1;
        (void)*(volatile uint32_t *)0xfec00010;
        return;
    case 7: /* nobody */
        inb(0x2e8);
        return;
    case 8: /* local APIC's base: the range is attached anew */
        wrmsr(X86_MSR_APIC_BASE, rdmsr(X86_MSR_APIC_BASE));
        return;
    case 9:
        wrmsr(X86_MSR_TSC, rdmsr(X86_MSR_TSC));
        return;
    default: /* keyboard controller, text screen, PIT through port 0x61 */
        inb(0x64);
        inb(0x61);
        inb(0x3da);
    }
}

static void devices(void) {
    static uint8_t before[32] __attribute__((aligned(32))), after[32];
    double x87;

    for (unsigned i = 0; i < sizeof(before); i++)
        before[i] = (uint8_t)(i * 7 + 3);
    for (unsigned n = 0; n <= 10; n++) {
        memset(after, 0, sizeof(after));
        if (avx)
            __asm__ volatile("vmovups %0, %%ymm5" ::"m"(before));
        else
            __asm__ volatile("movups %0, %%xmm5" ::"m"(before));
        __asm__ volatile("fninit\nfldpi\nfld1\nfaddp");
        access_device(n);
        __asm__ volatile("fstpl %0" : "=m"(x87));
        if (avx)
            __asm__ volatile("vmovups %%ymm5, %0\nvzeroupper" : "=m"(after));
        else
            __asm__ volatile("movups %%xmm5, %0" : "=m"(after));
        check(!memcmp(before, after, avx ? 32 : 16), "device %u and vector state", n);
        uint64_t bits = *(uint64_t *)(void *)&x87; /* pi + 1 */
        check(bits == 0x401090fdaa22168c, "device %u and x87 state: 0x%lx", n,
              (ulong)(bits >> 32));
    }
}

static void identity(void) {
    uint32_t r[4];
    cpuid(0, 0, r);
    check(r[REG_EAX] >= 0xd, "basic leaves: %u", r[REG_EAX]);
    bool amd = r[REG_EBX] == 0x68747541, intel = r[REG_EBX] == 0x756e6547;
    check(amd || intel, "vendor");
    cpuid(0x80000000, 0, r);
    check(r[REG_EAX] >= 0x80000008, "extended leaves");
    cpuid(1, 0, r);
    check((r[REG_ECX] >> 27 & 1) == !!(read_cr4() & X86_CR4_OSXSAVE),
          "OSXSAVE mirrors CR4");
    check(r[REG_EDX] >> 9 & 1, "APIC");
    check_eq("initial APIC id", r[REG_EBX] >> 24, *(volatile uint32_t *)0xfee00020 >> 24);
    ulong cr4 = read_cr4();
    write_cr4(cr4 & ~(ulong)X86_CR4_OSXSAVE);
    cpuid(1, 0, r);
    check(!(r[REG_ECX] >> 27 & 1), "OSXSAVE clear");
    write_cr4(cr4);
    wrmsr(X86_MSR_APIC_BASE, rdmsr(X86_MSR_APIC_BASE) & ~(1ull << 11));
    cpuid(1, 0, r);
    check(!(r[REG_EDX] >> 9 & 1), "the APIC bit follows its enable");
    wrmsr(X86_MSR_APIC_BASE, rdmsr(X86_MSR_APIC_BASE) | 1 << 11);
    cpuid(0x12345678, 0, r);
    check(!amd || !(r[0] | r[1] | r[2] | r[3]), "AMD returns zeros beyond the last leaf");
    /* What the x86-64-v3 level wants. */
    check(cpu_has(1, REG_ECX, 0) && cpu_has(1, REG_ECX, 9) && cpu_has(1, REG_ECX, 12) &&
              cpu_has(1, REG_ECX, 13) && cpu_has(1, REG_ECX, 19) &&
              cpu_has(1, REG_ECX, 20) && cpu_has(1, REG_ECX, 22) &&
              cpu_has(1, REG_ECX, 23) && cpu_has(1, REG_ECX, 28) &&
              cpu_has(1, REG_ECX, 29) && cpu_has(7, REG_EBX, 3) &&
              cpu_has(7, REG_EBX, 5) && cpu_has(7, REG_EBX, 8) &&
              cpu_has(0x80000001, REG_ECX, 0) && cpu_has(0x80000001, REG_ECX, 5),
          "x86-64-v3");
}

void guest_main(void) {
    write_cr0((read_cr0() | X86_CR0_MP | X86_CR0_NE) & ~(ulong)(X86_CR0_EM | X86_CR0_TS));
    write_cr4(read_cr4() | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    avx = cpu_has(1, REG_ECX, 28);
    if (avx) {
        write_cr4(read_cr4() | X86_CR4_OSXSAVE);
        __asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
    }
    identity();
    space_new(&s, BITS(SPACE_32, SPACE_LONG), RWU);
    low = page_alloc();
    high = page_alloc();
    space_map(&s, VA, (ulong)low, RWU, 1);
    space_map(&s, EDGE, (ulong)high, RWU, 1);
    space_load(&s);
    accesses();
    state();
    devices();
}
