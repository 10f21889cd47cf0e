/*
 * Exceptions: vector, error code and saved ip (a fault's own instruction, a trap's next
 * one) for every cause that needs no special page tables or segments.
 * AMD64 APM volume 2, "Exceptions and Interrupts".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

static void divide(void) {
    regs_kernel();
    in.ax = 5;
    RUN("div cl");
    expect("div by 0", X86_DE, 0, 0);
    check_eq("ax after #DE", trap.r.ax, 5);
    regs_kernel();
    in.ax = 0x1000, in.cx = 1;
    RUN("div cl");
    expect("div8 overflow", X86_DE, 0, 0);
    regs_kernel();
    in.dx = 1, in.cx = 1;
    RUN("div ecx");
    expect("div32 overflow", X86_DE, 0, 0);
    check_eq("dx after #DE", trap.r.dx, 1);
    regs_kernel();
    in.ax = 0x80000000ul, in.dx = 0xfffffffful, in.cx = 0xfffffffful;
    RUN("idiv ecx");
    expect("idiv32 min / -1", X86_DE, 0, 0);
    regs_kernel();
    in.ax = 0xff80, in.cx = 0xff;
    RUN("idiv cl");
    expect("idiv8 -128 / -1", X86_DE, 0, 0);
    regs_kernel();
    in.ax = 0xff81, in.cx = 0xff;
    RUN("idiv cl");
    expect("idiv8 -127 / -1", DONE, 0, ANY);
    check_eq("127", trap.r.ax, 127);
    regs_kernel();
    in.ax = 0x8000, in.dx = 0xffff, in.cx = 0xffff;
    RUN("idiv cx");
    expect("idiv16 min / -1", X86_DE, 0, 0);
#ifdef __x86_64__
    regs_kernel();
    in.ax = 1ul << 63, in.dx = ~0ul, in.cx = ~0ul;
    RUN("idiv rcx");
    expect("idiv64 min / -1", X86_DE, 0, 0);
    regs_kernel();
    in.dx = 7, in.cx = 7;
    RUN("div rcx");
    expect("div64 overflow", X86_DE, 0, 0);
    regs_kernel();
    in.dx = 6, in.cx = 7;
    RUN("div rcx");
    expect("div64 of 128 bits", DONE, 0, ANY);
    check_eq("quotient", trap.r.ax, 0xdb6db6db6db6db6dull);
    check_eq("remainder", trap.r.dx, 5);
#else
    TRY0("aam 0");
    expect("aam 0", X86_DE, 0, 0);
#endif
    TRY3("div cl");
    expect("div at ring 3", X86_DE, 0, 0);
    check_eq("cs", trap.r.cs, UCS);
    check_eq("ss", trap.r.ss, UDS);
    check_eq("sp", trap.r.sp, in.sp);
    check(cpu_is_tcg() || (trap.r.flags & X86_FL_RF),
          "RF is set in the image of a fault: 0x%lx", trap.r.flags);
}

static void software(void) {
    TRY0("nop\nint3");
    expect("int3", X86_BP, 0, 2);
    check(!(trap.r.flags & X86_FL_RF), "no RF in the image of int3");
    TRY0("int 3");
    expect("int 3", X86_BP, 0, ANY);
    TRY0(".byte 0xcd, 0x03");
    expect("cd 03", X86_BP, 0, 2);
    TRY0("int 0x42");
    expect("int 42", 0x42, 0, 2);
    /* A software interrupt pushes no error code, whatever the vector. */
    regs_kernel();
    in.ax = 0xabcd;
    idt_set(X86_GP, KCS, idt_stub(0x90), X86_DESC_INTGATE32, 3);
    RUN("push " BITS("eax", "rax") "\nint 13");
    idt_reset(X86_GP);
    expect("int 13 pushes no error code", 0x90, 0, 3);
    TRY3("int 0x42");
    expect("int 42 at ring 3", 0x42, 0, 2);
    idt_set(0x42, KCS, idt_stub(0x42), X86_DESC_INTGATE32, 0);
    TRY3("int 0x42");
    expect("int to a gate of DPL 0", X86_GP, 0x42 * 8 + X86_SELERR_IDT, 0);
    TRY0("int 0x42");
    expect("int to a gate of DPL 0 at ring 0", 0x42, 0, 2);
    idt_set(X86_BP, KCS, idt_stub(X86_BP), X86_DESC_INTGATE32, 0);
    TRY3("int3");
    expect("int3 to a gate of DPL 0", X86_GP, X86_BP * 8 + X86_SELERR_IDT, 0);
    idt_reset(X86_BP);
    if (!cpu_is_tcg()) { /* which has no int1 */
        TRY3(".byte 0xf1");
        expect("int1", X86_DB, 0, 1);
        idt_set(X86_DB, KCS, idt_stub(X86_DB), X86_DESC_INTGATE32, 0);
        TRY3(".byte 0xf1");
        expect("int1 checks no DPL", X86_DB, 0, 1);
        idt_reset(X86_DB);
    }
    idt_reset(0x42);
#ifndef __x86_64__
    regs_user();
    in.flags |= X86_FL_OF;
    RUN("into");
    expect("into with OF", X86_OF, 0, 1);
    TRY3("into");
    expect("into without OF", DONE, 0, ANY);
    idt_set(X86_OF, KCS, idt_stub(X86_OF), X86_DESC_INTGATE32, 0);
    regs_user();
    in.flags |= X86_FL_OF;
    RUN("into");
    expect("into to a gate of DPL 0", X86_GP, X86_OF * 8 + X86_SELERR_IDT, 0);
    idt_reset(X86_OF);
    static int32_t bounds[2] = {-3, 7};
    regs_user();
    in.bx = (ulong)bounds;
    in.ax = 7;
    RUN("bound eax, [ebx]");
    expect("bound within", DONE, 0, ANY);
    in.ax = 8;
    RUN("bound eax, [ebx]");
    expect("bound above", X86_BR, 0, 0);
    in.ax = (ulong)-4;
    RUN("bound eax, [ebx]");
    expect("bound below", X86_BR, 0, 0);
    static int16_t bounds16[2] = {-3, 7};
    in.bx = (ulong)bounds16;
    in.ax = 0x1fffd;
    RUN("bound ax, [ebx]");
    expect("bound16 within", DONE, 0, ANY);
    in.ax = 0x1fffc;
    RUN("bound ax, [ebx]");
    expect("bound16 below", X86_BR, 0, 0);
#else
    TRY3(".byte 0xce");
    expect("into in long mode", X86_UD, 0, 0);
    TRY3(".byte 0x62, 0x03");
    expect("62 03 in long mode (no EVEX)", X86_UD, 0, ANY);
#endif
    /* Bits of flags that an interrupt clears, and that it saves. */
    regs_kernel();
    in.flags |= X86_FL_CF | X86_FL_DF | X86_FL_NT | X86_FL_IF;
    RUN("int 0x42");
    check_eq("flags saved by int", trap.r.flags,
             X86_FL_ONE | X86_FL_CF | X86_FL_DF | X86_FL_NT | X86_FL_IF);
    check_eq("cs saved by int", trap.r.cs, KCS);
}

struct bytes {
    uint8_t len, b[15];
    const char *what;
};

static uint8_t scratch[4096] __attribute__((aligned(4096)));

static void *emit(const uint8_t *b, unsigned len) {
    memset(scratch, 0x90, 64);
    memcpy(scratch + 16, b, len);
    scratch[16 + len] = 0xcd;
    scratch[17 + len] = DONE;
    return scratch + 16;
}

/* All of these are #UD at every ring. bx points to a writable area. */
static const struct bytes undefined[] = {
    {2, {0x0f, 0x0b}, "ud2"},
    {3, {0x0f, 0xb9, 0xc0}, "ud1"},
    {3, {0x0f, 0xff, 0xc0}, "ud0"},
    {2, {0x0f, 0x04}, "0f 04"},
    {2, {0x0f, 0x0a}, "0f 0a"},
    {2, {0x0f, 0x36}, "0f 36"},
    {2, {0x0f, 0x39}, "0f 39"},
    {3, {0x0f, 0xc7, 0xc8}, "cmpxchg8b reg"},
    {3, {0x0f, 0xb2, 0xc0}, "lss reg"},
    {3, {0x0f, 0xba, 0xc0}, "group 8 /0"},
    {2, {0x8d, 0xc0}, "lea reg"},
    {2, {0xfe, 0xd0}, "group 4 /2"},
    {2, {0xff, 0xf8}, "group 5 /7"},
    {2, {0xff, 0xd8}, "far call reg"},
    {2, {0xff, 0xe8}, "far jmp reg"},
    {2, {0xc6, 0xc8}, "group 11 /1"},
    {2, {0x8e, 0xc8}, "mov cs, ax"},
    {2, {0x8e, 0xf0}, "mov seg 6"},
    {2, {0x8c, 0xf8}, "mov r, seg 7"},
    {2, {0x8f, 0xc8}, "8f /1 reg (XOP map 8)"},
    {3, {0x0f, 0x20, 0xc8}, "mov from cr1"},
    {3, {0x0f, 0x22, 0xe8}, "mov to cr5"},
    {3, {0x0f, 0x20, 0xf8}, "mov from cr7"},
    {3, {0xf0, 0x01, 0xc0}, "lock add reg"},
    {2, {0xf0, 0x90}, "lock nop"},
    {3, {0xf0, 0x8b, 0x03}, "lock mov r, m"},
    {3, {0xf0, 0x89, 0x03}, "lock mov m, r"},
    {3, {0xf0, 0x03, 0x03}, "lock add r, m"},
    {3, {0xf0, 0x39, 0x03}, "lock cmp m, r"},
    {3, {0xf0, 0x85, 0x03}, "lock test"},
    {4, {0xf0, 0x80, 0x3b, 0}, "lock cmp m, imm"},
    {3, {0xf0, 0xff, 0x33}, "lock push m"},
    {3, {0xf0, 0xd1, 0x23}, "lock shl m"},
    {3, {0xf0, 0xf7, 0x23}, "lock mul m"},
    {4, {0xf0, 0x0f, 0xa3, 0x03}, "lock bt"},
    {5, {0xf0, 0x0f, 0xba, 0x23, 1}, "lock bt imm"},
    {4, {0xf0, 0x0f, 0xaf, 0x03}, "lock imul"},
    {4, {0xf0, 0x0f, 0xc1, 0xc0}, "lock xadd reg"},
    {2, {0xf0, 0xa4}, "lock movs"},
    {3, {0xf0, 0x0f, 0xa2}, "lock cpuid"},
    {4, {0x0f, 0x3a, 0xff, 0xc0}, "0f 3a ff"},
    {4, {0x0f, 0x38, 0xff, 0xc0}, "0f 38 ff"},
    {3, {0x0f, 0x71, 0x03}, "0f 71 /0"},
};

static const struct bytes undefined64[] = {
    {1, {0x06}, "push es"},
    {1, {0x07}, "pop es"},
    {1, {0x0e}, "push cs"},
    {1, {0x16}, "push ss"},
    {1, {0x17}, "pop ss"},
    {1, {0x1e}, "push ds"},
    {1, {0x1f}, "pop ds"},
    {1, {0x27}, "daa"},
    {1, {0x2f}, "das"},
    {1, {0x37}, "aaa"},
    {1, {0x3f}, "aas"},
    {1, {0x60}, "pusha"},
    {1, {0x61}, "popa"},
    {7, {0x9a, 0, 0, 0, 0, 8, 0}, "callf imm"},
    {7, {0xea, 0, 0, 0, 0, 8, 0}, "jmpf imm"},
    {2, {0x82, 0xc0}, "82"},
    {2, {0xd4, 0x0a}, "aam"},
    {2, {0xd5, 0x0a}, "aad"},
    {1, {0xd6}, "salc"},
};

static void undefined_bytes(const struct bytes *t, unsigned n) {
    if (cpu_is_tcg()) /* it takes many of them for something else */
        return;
    for (unsigned i = 0; i < n; i++) {
        for (int ring = 0; ring < 2; ring++) {
            if (ring)
                regs_user();
            else
                regs_kernel();
            in.bx = (ulong)scratch + 1024;
            in.si = in.di = in.bx;
            run(emit(t[i].b, t[i].len));
            expect(t[i].what, X86_UD, 0, 0);
        }
    }
}

/* Privileged instructions: fine at ring 0 or not tried there, #GP(0) at ring 3. */
static const struct bytes privileged[] = {
    {1, {0xf4}, "hlt"},
    {1, {0xfa}, "cli"},
    {1, {0xfb}, "sti"},
    {2, {0x0f, 0x06}, "clts"},
    {2, {0x0f, 0x08}, "invd"},
    {2, {0x0f, 0x09}, "wbinvd"},
    {2, {0x0f, 0x30}, "wrmsr"},
    {2, {0x0f, 0x32}, "rdmsr"},
    {3, {0x0f, 0x20, 0xc0}, "mov from cr0"},
    {3, {0x0f, 0x22, 0xc0}, "mov to cr0"},
    {3, {0x0f, 0x20, 0xd0}, "mov from cr2"},
    {3, {0x0f, 0x20, 0xd8}, "mov from cr3"},
    {3, {0x0f, 0x22, 0xd8}, "mov to cr3"},
    {3, {0x0f, 0x20, 0xe0}, "mov from cr4"},
    {3, {0x0f, 0x21, 0xc0}, "mov from dr0"},
    {3, {0x0f, 0x23, 0xf8}, "mov to dr7"},
    {3, {0x0f, 0x01, 0x13}, "lgdt"},
    {3, {0x0f, 0x01, 0x1b}, "lidt"},
    {3, {0x0f, 0x01, 0xf0}, "lmsw"},
    {3, {0x0f, 0x01, 0x3b}, "invlpg"},
    {3, {0x0f, 0x00, 0xd0}, "lldt"},
    {3, {0x0f, 0x00, 0xd8}, "ltr"},
    {2, {0xe4, 0x80}, "in al, imm"},
    {2, {0xe6, 0x80}, "out imm, al"},
    {1, {0xec}, "in al, dx"},
    {1, {0xed}, "in eax, dx"},
    {1, {0xee}, "out dx, al"},
    {1, {0x6c}, "ins"},
    {1, {0x6e}, "outs"},
    {2, {0xf3, 0x6c}, "rep ins"},
    {2, {0xf3, 0x6e}, "rep outs"},
};

static void privilege(void) {
    for (unsigned i = 0; i < COUNT(privileged); i++) {
        regs_user();
        in.bx = in.si = in.di = (ulong)scratch + 1024;
        in.dx = 0x80;
        in.cx = 1;
        run(emit(privileged[i].b, privileged[i].len));
        expect(privileged[i].what, X86_GP, 0, 0);
        check_eq("cx untouched", trap.r.cx, 1);
    }
    /* IOPL 3 lets ring 3 at the ports, cli and sti, and nothing else. */
    regs_user();
    in.flags |= X86_FL_IOPL;
    RUN("in al, 0x80\nsti\ncli");
    expect("in, sti, cli with IOPL 3", DONE, 0, ANY);
    regs_user();
    in.flags |= X86_FL_IOPL;
    RUN("hlt");
    expect("hlt with IOPL 3", X86_GP, 0, 0);
    /* CR4.TSD and PCE. */
    TRY3("rdtsc");
    expect("rdtsc", DONE, 0, ANY);
    write_cr4(read_cr4() | X86_CR4_TSD);
    TRY3("rdtsc");
    expect("rdtsc with TSD", X86_GP, 0, 0);
    TRY0("rdtsc");
    expect("rdtsc with TSD at ring 0", DONE, 0, ANY);
    if (cpu_has(0x80000001, REG_EDX, 27)) {
        TRY3("rdtscp");
        expect("rdtscp with TSD", X86_GP, 0, 0);
    }
    write_cr4(read_cr4() & ~X86_CR4_TSD);
    TRY3("mov ecx, 0\nrdpmc");
    expect("rdpmc without PCE", X86_GP, 0, 5);
    TRY3("sgdt [esp-64]\nsidt [esp-64]\nsldt eax\nstr eax\nsmsw eax");
    expect("sgdt and friends without UMIP", DONE, 0, ANY);
    if (cpu_has(7, REG_ECX, 2)) {
        write_cr4(read_cr4() | X86_CR4_UMIP);
        TRY3("sgdt [esp-64]");
        expect("sgdt with UMIP", X86_GP, 0, 0);
        TRY3("sidt [esp-64]");
        expect("sidt with UMIP", X86_GP, 0, 0);
        TRY3("sldt eax");
        expect("sldt with UMIP", X86_GP, 0, 0);
        TRY3("str eax");
        expect("str with UMIP", X86_GP, 0, 0);
        TRY3("smsw eax");
        expect("smsw with UMIP", X86_GP, 0, 0);
        TRY0("smsw eax\nsldt eax");
        expect("smsw with UMIP at ring 0", DONE, 0, ANY);
        write_cr4(read_cr4() & ~X86_CR4_UMIP);
    }
}

static void control_registers(void) {
    if (cpu_is_tcg()) /* it checks few of the reserved bits, and drops ET */
        return;
    struct {
        const char *what;
        ulong set, clear;
    } bad0[] = {
        {"PG without PE", X86_CR0_PG, X86_CR0_PE},
        {"NW without CD", X86_CR0_NW, X86_CR0_CD},
#ifdef __x86_64__
        {"CR0 bit 32", 1ul << 32, 0},
#endif
    };
    for (unsigned i = 0; i < COUNT(bad0); i++) {
        regs_kernel();
        in.ax = (read_cr0() | bad0[i].set) & ~bad0[i].clear;
        RUN("mov cr0, " BITS("eax", "rax"));
        expect(bad0[i].what, X86_GP, 0, 0);
    }
    ulong cr0 = read_cr0();
    regs_kernel();
    in.ax = cr0 & ~X86_CR0_ET;
    RUN("mov cr0, " BITS("eax", "rax"));
    expect("ET cleared", DONE, 0, ANY);
    check_eq("ET stays", read_cr0() & X86_CR0_ET, X86_CR0_ET);
    static const uint8_t bad4[] = {15, 19, 31};
    for (unsigned i = 0; i < COUNT(bad4); i++) {
        regs_kernel();
        in.ax = read_cr4() | 1ul << bad4[i];
        RUN("mov cr4, " BITS("eax", "rax"));
        expect("reserved CR4 bit", X86_GP, 0, 0);
    }
    /* lmsw sets PE but cannot clear it. */
    regs_kernel();
    in.ax = 0xfff0 | X86_CR0_TS;
    RUN("lmsw ax\nsmsw eax\nclts");
    expect("lmsw", DONE, 0, ANY);
    check_eq("lmsw: low four bits only, PE kept", trap.r.ax & 0xffff,
             (cr0 & 0xffff & ~0xeul) | X86_CR0_TS | 1);
    write_cr0(cr0);
#ifdef __x86_64__
    regs_kernel();
    in.ax = read_cr0() & ~X86_CR0_PG;
    RUN("mov cr0, rax");
    expect("PG cleared in 64-bit mode", X86_GP, 0, 0);
    regs_kernel();
    in.ax = read_cr4() & ~X86_CR4_PAE;
    RUN("mov cr4, rax");
    expect("PAE cleared in long mode", X86_GP, 0, 0);
    regs_kernel();
    in.ax = read_cr3() | 1ull << 60;
    RUN("mov cr3, rax");
    expect("reserved CR3 bits", X86_GP, 0, 0);
    TRY0("mov rax, cr8\nmov cr8, rax");
    expect("cr8", DONE, 0, ANY);
    regs_kernel();
    in.ax = 0x10;
    RUN("mov cr8, rax");
    expect("cr8 above 15", X86_GP, 0, 0);
    TRY3("mov rax, cr8");
    expect("cr8 at ring 3", X86_GP, 0, 0);
#endif
}

static void msrs(void) {
    struct {
        const char *what;
        uint32_t n;
        uint64_t v;
    } bad[] = {
        {"EFER reserved bit", X86_MSR_EFER, 1u << 1 | 1u << 16},
        {"PAT type 2", X86_MSR_PAT, 2},
        {"PAT type 8", X86_MSR_PAT, 8ull << 56},
        {"APIC base reserved bits", X86_MSR_APIC_BASE, 0xfee00901ull | 1},
        {"MTRR type 2", X86_MSR_MTRR_DEFTYPE, 0xc02},
#ifdef __x86_64__
        {"LSTAR", X86_MSR_LSTAR, 0x800000000000ull},
        {"CSTAR", X86_MSR_CSTAR, 0x800000000000ull},
        {"FS.base", X86_MSR_FS_BASE, 0x800000000000ull},
        {"GS.base", X86_MSR_GS_BASE, 0xffff7fffffffffffull},
        {"KernelGSBase", X86_MSR_KERNEL_GS_BASE, 0x800000000000ull},
        {"EFER.LME changed with paging on", X86_MSR_EFER, 0x801},
#endif
    };
    for (unsigned i = 0; i < COUNT(bad); i++) {
        regs_kernel();
        in.cx = bad[i].n;
        in.ax = (uint32_t)bad[i].v;
        in.dx = (uint32_t)(bad[i].v >> 32);
        RUN("wrmsr");
        expect(bad[i].what, X86_GP, 0, 0);
    }
    static const uint32_t absent[] = {0x0c000000, 0xc0004000, 0x4b560000, 0xffffffff};
    for (unsigned i = 0; i < COUNT(absent); i++) {
        regs_kernel();
        in.cx = absent[i];
        RUN("rdmsr");
        expect("rdmsr of an unknown MSR", X86_GP, 0, 0);
        RUN("wrmsr");
        expect("wrmsr of an unknown MSR", X86_GP, 0, 0);
    }
    static const uint32_t plain[] = {X86_MSR_SYSENTER_ESP, X86_MSR_SYSENTER_EIP,
                                     X86_MSR_SYSENTER_CS};
    for (unsigned i = 0; i < COUNT(plain); i++) {
        uint64_t old = rdmsr(plain[i]);
        wrmsr(plain[i], 0x1230);
        check_eq("a plain MSR reads back", rdmsr(plain[i]), 0x1230);
        wrmsr(plain[i], old);
    }
    uint64_t tsc = rdmsr(X86_MSR_TSC);
    check(rdtsc() >= tsc, "rdtsc follows the TSC MSR");
    /* rdmsr clears the upper halves of rax and rdx. */
#ifdef __x86_64__
    regs_kernel();
    in.ax = in.dx = ~0ul;
    in.cx = 0xabcdef00ull << 32 | X86_MSR_SYSENTER_CS;
    RUN("rdmsr");
    expect("rdmsr ignores the upper half of rcx", DONE, 0, ANY);
    check_eq("rdmsr rax", trap.r.ax, 0);
    check_eq("rdmsr rdx", trap.r.dx, 0);
#endif
}

static void device_not_available(void) {
    ulong cr0 = read_cr0() & ~(X86_CR0_EM | X86_CR0_TS | X86_CR0_MP);
    ulong cr4 = read_cr4();
    write_cr4(cr4 | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    struct {
        ulong bits;
        unsigned fpu, wait, mmx, sse;
    } rows[] = {
        {0, DONE, DONE, DONE, DONE},
        {X86_CR0_MP, DONE, DONE, DONE, DONE},
        {X86_CR0_TS, X86_NM, DONE, X86_NM, X86_NM},
        {X86_CR0_TS | X86_CR0_MP, X86_NM, X86_NM, X86_NM, X86_NM},
        {X86_CR0_EM, X86_NM, DONE, X86_UD, X86_UD},
        {X86_CR0_EM | X86_CR0_MP, X86_NM, DONE, X86_UD, X86_UD},
        {X86_CR0_EM | X86_CR0_TS, X86_NM, DONE, X86_UD, X86_UD},
        {X86_CR0_EM | X86_CR0_TS | X86_CR0_MP, X86_NM, X86_NM, X86_UD, X86_UD},
    };
    for (unsigned i = 0; i < COUNT(rows); i++) {
        write_cr0(cr0 | rows[i].bits);
        bool ok = true;
        ok &= TRY3("fld1") == rows[i].fpu;
        ok &= TRY3("fnop") == rows[i].fpu;
        ok &= TRY3("fnstsw ax") == rows[i].fpu;
        ok &= TRY3("fwait") == rows[i].wait;
        ok &= TRY3("paddb mm0, mm1") == rows[i].mmx;
        ok &= TRY3("addps xmm0, xmm1") == rows[i].sse;
        write_cr0(cr0);
        TRY0("fninit");
        check(ok, "x87, fwait, MMX, SSE with CR0 0x%lx", rows[i].bits);
    }
    write_cr4(cr4 & ~(ulong)X86_CR4_OSFXSR);
    TRY3("addps xmm0, xmm1");
    expect("SSE without OSFXSR", X86_UD, 0, 0);
    TRY3("paddb mm0, mm1\nemms");
    expect("MMX without OSFXSR", DONE, 0, ANY);
    write_cr4(cr4 & ~(ulong)X86_CR4_OSXSAVE);
    TRY3("xgetbv");
    expect("xgetbv without OSXSAVE", X86_UD, 0, 0);
    TRY3("xsave [esp-64]");
    expect("xsave without OSXSAVE", X86_UD, 0, 0);
    if (cpu_has(1, REG_ECX, 28)) {
        TRY3("vaddps ymm0, ymm1, ymm2");
        expect("AVX without OSXSAVE", X86_UD, 0, 0);
        write_cr4(cr4 | X86_CR4_OSXSAVE | X86_CR4_OSFXSR);
        TRY0("mov eax, 3\nxor edx, edx\nxor ecx, ecx\nxsetbv");
        expect("xsetbv", DONE, 0, ANY);
        TRY3("vaddps ymm0, ymm1, ymm2");
        expect("AVX without XCR0.AVX", X86_UD, 0, 0);
        TRY0("mov eax, 7\nxor edx, edx\nxor ecx, ecx\nxsetbv");
        expect("xsetbv of AVX", DONE, 0, ANY);
        TRY3("vaddps ymm0, ymm1, ymm2");
        expect("AVX", DONE, 0, ANY);
        regs_kernel();
        in.ax = 6;
        RUN("xsetbv");
        expect("XCR0 without x87", X86_GP, 0, 0);
        in.ax = 5;
        RUN("xsetbv");
        expect("XCR0 AVX without SSE", X86_GP, 0, 0);
        in.ax = 7, in.dx = 0x80000000u;
        RUN("xsetbv");
        expect("XCR0 bit 63", X86_GP, 0, 0);
        in.dx = 0, in.cx = 1;
        RUN("xsetbv");
        expect("xsetbv of XCR1", X86_GP, 0, 0);
        TRY3("mov eax, 7\nxor edx, edx\nxor ecx, ecx\nxsetbv");
        expect("xsetbv at ring 3", X86_GP, 0, ANY);
        regs_user();
        in.cx = 2;
        RUN("xgetbv");
        expect("xgetbv of XCR2", X86_GP, 0, 0);
        write_cr0(cr0 | X86_CR0_TS);
        TRY3("vaddps ymm0, ymm1, ymm2");
        expect("AVX with TS", X86_NM, 0, 0);
        write_cr0(cr0);
    }
    write_cr4(cr4);
    write_cr0(cr0);
}

static void math_faults(void) {
    static const uint16_t cw_unmasked = 0x37b; /* ZM clear */
    static const uint32_t mxcsr_unmasked = 0x1d80, mxcsr = 0x1f80;
    ulong cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 | X86_CR0_NE | X86_CR0_MP) & ~(ulong)(X86_CR0_EM | X86_CR0_TS));
    write_cr4(cr4 | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    regs_user();
    in.bx = (ulong)&cw_unmasked;
    RUN("fninit\nfldcw [ebx]\nfld1\nfldz\nfdivp\nnop\n3: fwait\nnop");
    expect("#MF at the next waiting instruction", X86_MF, 0, LONG_MODE ? 12 : 11);
    RUN("fnstsw ax\nfnclex\nfninit\nfwait");
    expect("fnclex", DONE, 0, ANY);
    check_eq("status word: ZE, ES, B", trap.r.ax & 0x80ff, 0x8084);
    RUN("fninit\nfldcw [ebx]\nfld1\nfldz\nfdivp\nfld1");
    expect("#MF at an x87 instruction", X86_MF, 0, LONG_MODE ? 11 : 10);
    RUN("fnclex\nfninit\nfldcw [ebx]\nfld1\nfldz\nfdivp\npaddb mm0, mm1");
    expect("#MF at an MMX instruction", X86_MF, 0, LONG_MODE ? 13 : 12);
    TRY3("fnclex\nfninit");
    regs_user();
    in.bx = (ulong)&mxcsr_unmasked;
    in.cx = (ulong)&mxcsr;
    RUN("ldmxcsr [ebx]\nxorps xmm1, xmm1\nmov eax, 0x3f800000\nmovd xmm0, eax\n"
        "divss xmm0, xmm1");
    expect("#XM", X86_XM, 0, LONG_MODE ? 4 + 3 + 5 + 4 : 3 + 3 + 5 + 4);
    TRY3("stmxcsr [esp-4]\nmov eax, [esp-4]");
    check_eq("MXCSR.ZE set by the fault", trap.r.ax, 0x1d84);
    write_cr4((cr4 | X86_CR4_OSFXSR) & ~(ulong)X86_CR4_OSXMMEXCPT);
    TRY3("divss xmm0, xmm1");
    expect("#UD for SIMD faults without OSXMMEXCPT", X86_UD, 0, 0);
    write_cr4(cr4 | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    regs_user();
    in.cx = (ulong)&mxcsr;
    RUN("ldmxcsr [ecx]");
    expect("mxcsr back", DONE, 0, ANY);
    static const uint32_t mxcsr_bad = 0x11f80;
    regs_user();
    in.cx = (ulong)&mxcsr_bad;
    RUN("ldmxcsr [ecx]");
    expect("reserved MXCSR bit", X86_GP, 0, 0);
    /* Legacy SSE wants 16-byte alignment where it says so. */
    regs_user();
    in.bx = (ulong)scratch + 1024 + 8;
    RUN("movaps xmm0, [ebx]");
    expect("movaps load unaligned", X86_GP, 0, 0);
    RUN("movaps [ebx], xmm0");
    expect("movaps store unaligned", X86_GP, 0, 0);
    RUN("addps xmm0, [ebx]");
    expect("addps unaligned", X86_GP, 0, 0);
    RUN("movntps [ebx], xmm0");
    expect("movntps unaligned", X86_GP, 0, 0);
    RUN("movups xmm0, [ebx]\nmovsd xmm0, [ebx+1]\nlddqu xmm0, [ebx]");
    expect("movups unaligned", DONE, 0, ANY);
    RUN("fxsave [ebx]");
    expect("fxsave unaligned", X86_GP, 0, 0);
    write_cr0(cr0);
    write_cr4(cr4);
}

static void alignment(void) {
    if (cpu_is_tcg()) /* which has no #AC */
        return;
    ulong cr0 = read_cr0();
    write_cr0(cr0 | X86_CR0_AM);
    regs_user();
    in.flags |= X86_FL_AC;
    in.bx = (ulong)scratch + 1025;
    RUN("mov al, [ebx]");
    expect("byte", DONE, 0, ANY);
    RUN("mov ax, [ebx]");
    expect("#AC word", X86_AC, 0, 0);
    in.bx++;
    RUN("mov ax, [ebx]");
    expect("aligned word", DONE, 0, ANY);
    RUN("mov eax, [ebx]");
    expect("#AC dword", X86_AC, 0, 0);
    RUN("add [ebx], eax");
    expect("#AC rmw", X86_AC, 0, 0);
    RUN("lock add [ebx], eax");
    expect("#AC lock rmw", X86_AC, 0, 0);
    in.bx += 2;
#ifdef __x86_64__
    RUN("mov rax, [rbx]");
    expect("#AC qword", X86_AC, 0, 0);
#endif
    RUN("mov eax, [ebx]");
    expect("aligned dword", DONE, 0, ANY);
    regs_kernel();
    in.flags |= X86_FL_AC;
    in.bx = (ulong)scratch + 1025;
    RUN("mov eax, [ebx]");
    expect("no #AC at ring 0", DONE, 0, ANY);
    write_cr0(cr0);
    regs_user();
    in.flags |= X86_FL_AC;
    in.bx = (ulong)scratch + 1025;
    RUN("mov eax, [ebx]");
    expect("no #AC without AM", DONE, 0, ANY);
}

static void idt_faults(void) {
    /* A bad gate for vector v: #GP(v * 8 + IDT), or #NP when only not present. */
    idt_set(0x50, KCS, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    idt[0x50].ar &= 0x7f;
    TRY0("int 0x50");
    expect("gate not present", X86_NP, 0x50 * 8 + 2, 0);
    TRY3("int 0x50");
    expect("gate not present, ring 3", X86_NP, 0x50 * 8 + 2, 0);
    idt_set(0x50, KCS, idt_stub(0x50), 9, 3);
    TRY0("int 0x50");
    expect("gate of a wrong type", X86_GP, 0x50 * 8 + 2, 0);
    idt_set(0x50, 0, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    TRY0("int 0x50");
    expect("gate with a null cs", X86_GP, 0, 0);
    idt_set(0x50, KDS, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    TRY0("int 0x50");
    expect("gate with a data cs", X86_GP, KDS, 0);
    idt_set(0x50, 0x1000, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    TRY0("int 0x50");
    expect("gate with a cs beyond the GDT", X86_GP, 0x1000, 0);
    gdt_set(FREE_SEL, gdt[KCS >> 3] & ~(1ull << 47));
    idt_set(0x50, FREE_SEL, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    TRY0("int 0x50");
    expect("gate with a cs not present", X86_NP, FREE_SEL, 0);
    idt_set(0x50, UCS, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    TRY0("int 0x50");
    expect("gate to an outer ring", X86_GP, UCS & ~3, 0);
    idt_reset(0x50);
    idt_load(0x50 * sizeof(idt[0]) - 1);
    TRY3("int 0x50");
    expect("beyond the IDT", X86_GP, 0x50 * 8 + 2, 0);
    idt_load(sizeof(idt) - 1);
    /* Contributory on contributory is #DF with error code 0. */
    unsigned bad[] = {X86_DE, X86_GP, X86_NP, X86_SS, X86_TS};
    for (unsigned i = 1; i < COUNT(bad); i++)
        idt_set(bad[i], KCS, idt_stub(bad[i]), X86_DESC_INTGATE32, 3);
    idt[X86_GP].ar &= 0x7f;
    TRY3("hlt");
    expect("#GP whose gate is missing: #NP while serving #GP", X86_DF, 0, ANY);
    idt_reset(X86_GP);
    idt[X86_DE].ar &= 0x7f;
    TRY3("div cl");
    expect("#DE whose gate is missing", X86_DF, 0, ANY);
    idt_reset(X86_DE);
    /* Benign first: the second fault stands, with EXT set. */
    idt[X86_UD].ar &= 0x7f;
    TRY3("ud2");
    expect("#UD whose gate is missing", X86_NP, X86_UD * 8 + 2 + 1, 0);
    idt_reset(X86_UD);
    idt[X86_BP].ar &= 0x7f;
    TRY3("int3");
    expect("int3 whose gate is missing: EXT clear", X86_NP, X86_BP * 8 + 2, 0);
    idt_reset(X86_BP);
    idt[X86_DB].ar &= 0x7f;
    TRY3(".byte 0xf1");
    check(trap.vector == X86_NP && (trap.error & ~1ul) == X86_DB * 8 + 2,
          "int1 whose gate is missing: %u 0x%lx", trap.vector, trap.error);
    idt_reset(X86_DB);
}

static void lengths(void) {
    uint8_t b[20];
    for (unsigned n = 1; n <= 14; n++) {
        memset(b, 0x66, n);
        b[n] = 0x90;
        regs_kernel();
        run(emit(b, n + 1));
        expect("nop with prefixes, up to 15 bytes", DONE, 0, ANY);
    }
    memset(b, 0x66, 15);
    b[15] = 0x90;
    TRY0("nop");
    regs_kernel();
    memset(scratch, 0x66, 64);
    scratch[31] = 0x90;
    run(scratch + 16);
    expect("an instruction of 16 bytes", X86_GP, 0, 0);
    memset(scratch, 0xf0, 64);
    run(scratch + 16);
    expect("lock prefixes for ever: too long, not #UD", X86_GP, 0, 0);
}

static void fault_priority(void) {
    /* #UD before #GP; #NM before memory faults is the order of the tables. */
    regs_user();
    in.ax = 0;
    run(emit((const uint8_t[]){0xf0, 0x0f, 0x22, 0xd8}, 4));
    expect("lock mov to cr3", X86_UD, 0, 0);
    regs_user();
    run(emit((const uint8_t[]){0x0f, 0x22, 0xe8}, 3));
    expect("mov to cr5 at ring 3: #UD, not #GP", X86_UD, 0, 0);
#ifdef __x86_64__
    /* Non-canonical addresses: #GP, with the stack segment #SS. */
    regs_user();
    in.bx = 1ul << 47;
    in.bp = 1ul << 47;
    RUN("mov eax, [rbx]");
    expect("non-canonical load", X86_GP, 0, 0);
    RUN("mov [rbx], eax");
    expect("non-canonical store", X86_GP, 0, 0);
    RUN("mov eax, [rbp]");
    expect("non-canonical by rbp", X86_SS, 0, 0);
    RUN("lea rax, [rbx]\nprefetcht0 [rbx]\nnop dword ptr [rbx]");
    expect("lea, prefetch and nop never fault", DONE, 0, ANY);
    in.bx = (1ul << 47) - 4;
    RUN("mov rax, [rbx]");
    check(trap.vector == X86_GP || trap.vector == X86_PF,
          "a load that ends in the hole faults: %u", trap.vector);
    RUN("jmp rbp");
    expect("jump to a non-canonical address", X86_GP, 0, 0);
    RUN("call rbp");
    expect("call of a non-canonical address", X86_GP, 0, 0);
    check_eq("the call pushed nothing", trap.r.sp, in.sp);
    RUN("push rbp\nret");
    /* ret to a non-canonical address faults on the ret. */
    expect("ret to a non-canonical address", X86_GP, 0, 1);
    check_eq("and did not pop", trap.r.sp, in.sp - 8);
    in.sp = 1ul << 47;
    RUN("push rax\n");
    check(trap.vector == X86_SS || trap.vector == X86_PF,
          "push below the hole: vector %u", trap.vector);
    in.sp = (1ul << 47) + 64;
    RUN("push rax");
    expect("push in the hole", X86_SS, 0, 0);
    RUN("pop rax");
    expect("pop in the hole", X86_SS, 0, 0);
    RUN("call 1f\n1:");
    expect("call in the hole", X86_SS, 0, 0);
    RUN("ret");
    expect("ret in the hole", X86_SS, 0, 0);
#endif
}

void guest_main(void) {
    divide();
    software();
    undefined_bytes(undefined, COUNT(undefined));
#ifdef __x86_64__
    undefined_bytes(undefined64, COUNT(undefined64));
#else
    (void)undefined64;
#endif
    privilege();
    control_registers();
    msrs();
    device_not_available();
    math_faults();
    alignment();
    idt_faults();
    lengths();
    fault_priority();
}
