/*
 * Debug exceptions: single-step over each kind of instruction, at CPL 0 and 3; data
 * breakpoints of each type, length and alignment against accesses of each size at each
 * distance, alone and in pairs; breakpoints on ports and on code; repeated strings; which
 * of several comes first, what is in DR6, RF, general detect. debug.c has the basics.
 *
 * AMD64 APM volume 2, "Software-Debug Resources"; Intel SDM volume 3, "Debug, Branch
 * Profile, TSC ...": "Debug Exceptions", "Breakpoint Field Recognition"; "Priority Among
 * Simultaneous Exceptions and Interrupts".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define SP BITS("esp", "rsp")
#define A BITS("eax", "rax")
#define B BITS("ebx", "rbx")
#define EVENTS 64
#define DR6_KNOWN 0xe00fu
#define HOLE 0x200000000ul /* 64-bit guests: beyond the identity map */

/* What the hook saw, in order. */
static struct { ulong ip, dr6, cx, flags; } event[EVENTS];
static unsigned events, cases;
static uint8_t *data; /* the end of a page, and the beginning of the next */

static bool on_debug(struct frame *f) {
    if (events < EVENTS) {
        event[events].ip = f->ip;
        event[events].dr6 = read_dr6() & DR6_KNOWN;
        event[events].cx = f->cx;
        event[events].flags = f->flags;
        digest_add(event[events].dr6);
    }
    write_dr6(X86_DR6_FIXED);
    if (++events >= EVENTS)
        f->flags &= ~(ulong)X86_FL_TF;
    /* A breakpoint on code would come again. */
    if ((event[events - 1].dr6 & 15) && (read_dr7() & 0xff))
        f->flags |= X86_FL_RF;
    return true;
}

static void debug_off(void) {
    write_dr7(X86_DR7_FIXED);
    write_dr6(X86_DR6_FIXED);
}

static void watch(unsigned n, ulong at, unsigned type, unsigned len) {
    switch (n) {
    case 0:
        write_dr0(at);
        break;
    case 1:
        write_dr1(at);
        break;
    case 2:
        write_dr2(at);
        break;
    default:
        write_dr3(at);
    }
    write_dr7(read_dr7() | 2ul << 2 * n | (ulong)(type | len << 2) << (16 + 4 * n));
}

/* Runs with each #DB written down. */
static void observe(void *code) {
    events = 0;
    hooks[X86_DB] = on_debug;
    run(code);
    hooks[X86_DB] = NULL;
}

static void regs_for(unsigned cpl) {
    if (cpl)
        regs_user();
    else
        regs_kernel();
    in.bx = (ulong)data;
    in.si = in.di = (ulong)data + 64;
    in.bp = (ulong)data + 256;
    in.ax = 7;
    in.cx = 1;
}

/* --- single-step --- */

enum stop {
    MARK,    /* the instruction is followed by a trap at the mark */
    HANDLED, /* none yet: it enters a handler, or sets TF; what follows is stepped */
    ITSELF,  /* more is to come */
    NOWHERE, /* there is no trap at all */
};

static bool on_skip(struct frame *f) {
    if (f->vector == X86_UD)
        f->ip += 2;
    return true;
}

/* The stop that follows the arrival at 776, or the first when the snippet begins there.
 */
static void step_case(const char *what, unsigned cpl, void *code, void *at, void *mark,
                      enum stop stop, bool tf) {
    unsigned k = 0;
    ulong want = stop == ITSELF    ? (ulong)at
                 : stop == HANDLED ? (ulong)mark + 1
                                   : (ulong)mark;
    bool ok;

    for (unsigned round = 0; round < 3; round++) {
        regs_for(cpl);
        if (tf)
            in.flags |= X86_FL_TF;
        write_dr6(X86_DR6_FIXED);
        hooks[0x42] = hooks[X86_BP] = hooks[X86_UD] = hooks[X86_OF] = on_skip;
        observe(code);
        hooks[0x42] = hooks[X86_BP] = hooks[X86_UD] = hooks[X86_OF] = NULL;
        k = 0;
        if (at != code && tf) {
            while (k < events && event[k].ip != (ulong)at)
                k++;
            k++;
        }
        if (stop == NOWHERE)
            ok = k >= events;
        else
            ok = k < events && event[k].ip == want && event[k].dr6 == X86_DR6_BS;
        cases++;
        digest_add(events);
        check(ok && trap.vector == DONE,
              "step over %s at CPL %u: stop %u of %u at +0x%lx dr6 0x%lx, want +0x%lx",
              what, cpl, k, events, k < EVENTS ? event[k].ip - (ulong)code : 0,
              k < EVENTS ? event[k].dr6 : 0, want - (ulong)code);
    }
}

#define STEP_TF(name, level, stop, tf, before, text)                                     \
    do {                                                                                 \
        void *code_, *at_, *mark_;                                                       \
        CODE_PLACES(code_, at_, mark_, before "\n776: " text "\n777: nop\nnop\nnop");    \
        step_case(name, level, code_, at_, mark_, stop, tf);                             \
    } while (0)
#define STEP0(name, stop, before, text) STEP_TF(name, 0, stop, true, before, text)
#define STEP(name, stop, before, text)                                                   \
    do {                                                                                 \
        STEP_TF(name, 0, stop, true, before, text);                                      \
        STEP_TF(name, 3, stop, true, before, text);                                      \
    } while (0)

static void step_plain(void) {
    STEP("nop", MARK, "", "nop");
    STEP("add", MARK, "", "add eax, 1");
    STEP("load", MARK, "", "mov eax, [" B "]");
    STEP("store", MARK, "", "mov [" B "], eax");
    STEP("locked add", MARK, "", "lock add [" B "], eax");
    STEP("xchg", MARK, "", "xchg [" B "], eax");
    STEP("cmpxchg8b", MARK, "", "cmpxchg8b [" B "]");
    STEP("push", MARK, "", "push " A);
    STEP("pop", MARK, "push " A, "pop " A);
    STEP("enter", MARK, "", "enter 16, 2");
    STEP("leave", MARK, "enter 16, 0", "leave");
    STEP("div", MARK, "xor edx, edx", "div ecx");
    STEP("jmp", MARK, "", "jmp 777f\nud2");
    STEP("taken branch", MARK, "xor eax, eax", "jz 777f\nud2");
    STEP("branch not taken", MARK, "xor eax, eax", "jnz 776b");
    STEP("loop", MARK, "mov ecx, 2", "loop 777f\nud2");
    STEP("loop that ends", MARK, "mov ecx, 1", "loop 776b");
    STEP("jecxz", MARK, "xor ecx, ecx", "jecxz 777f\nud2");
    STEP("indirect jmp", MARK, "mov eax, offset 777f", "jmp " A "\nud2");
    STEP("call", MARK, "", "call 777f\nud2");
    STEP("ret", MARK, "mov eax, offset 777f\npush " A, "ret\nud2");
    STEP("far ret", MARK,
         "mov eax, cs\nmov ecx, offset 777f\npush " A "\npush " BITS("ecx", "rcx"),
         BITS("retf", "retfq") "\nud2");
    STEP("movsb", MARK, "", "movsb");
    STEP("rep stosb of 3", ITSELF, "mov ecx, 3", "rep stosb");
    STEP("rep stosb of 1", MARK, "mov ecx, 1", "rep stosb");
    STEP("rep stosb of none", MARK, "xor ecx, ecx", "rep stosb");
    STEP("repe cmpsb of 3", ITSELF, "mov ecx, 3", "repe cmpsb");
    STEP("repne scasb that finds", MARK, "mov ecx, 3\nmov al, [" BITS("edi", "rdi") "]",
         "repne scasb");
    STEP("cpuid", MARK, "xor eax, eax", "cpuid");
    STEP("rdtsc", MARK, "", "rdtsc");
    if (!cpu_is_tcg()) /* which looks for the trap one instruction late here */
        STEP("pause", MARK, "", "pause");
    STEP("fninit", MARK, "", "fninit");
    STEP("fld1", MARK, "fninit", "fld1");
    STEP("xorps", MARK, "", "xorps xmm0, xmm0");
    STEP("pushf", MARK, "", BITS("pushfd", "pushfq"));
    STEP("mov ds", MARK, "mov eax, ds", "mov ds, eax");
    STEP("mov ss", MARK, "mov eax, ss", "mov ss, eax\nnop");
    STEP("mov ss, int n", HANDLED, "mov eax, ss", "mov ss, eax\nint 0x42");
    STEP("lar", MARK, "mov eax, ds", "lar ecx, eax");
    STEP("sahf", MARK, "", "sahf");
    STEP("bsf", MARK, "", "bsf ecx, eax");
#ifndef __x86_64__
    STEP("pusha", MARK, "", "pushad");
    STEP("pop ss", MARK, "push ss", "pop ss\nnop");
    STEP("lds", MARK, "mov [ebx], ebx\nmov eax, ds\nmov [ebx + 4], eax",
         "lds ecx, [ebx]");
    STEP("daa", MARK, "", "daa");
    STEP("bound", MARK, "mov dword ptr [ebx], 0\nmov dword ptr [ebx + 4], 9\nmov eax, 1",
         "bound eax, [ebx]");
    STEP("into without OF", MARK, "xor eax, eax", "into");
    STEP("into", HANDLED, "mov al, 0x7f\nadd al, 1", "into");
    STEP("arpl", MARK, "", "arpl ax, cx");
#endif
}

static void step_system(void) {
    STEP("int n", HANDLED, "", "int 0x42");
    STEP("int3", HANDLED, "", "int3");
    STEP("ud2, skipped by its handler", HANDLED, "", "ud2");
    STEP("popf that leaves TF", MARK, "push 0x102", BITS("popfd", "popfq"));
    STEP("popf that clears TF", MARK, "push 2", BITS("popfd", "popfq"));
    STEP_TF("popf that sets TF", 3, HANDLED, false, "push 0x102", BITS("popfd", "popfq"));
    STEP_TF("popf that sets TF", 0, HANDLED, false, "push 0x102", BITS("popfd", "popfq"));
    STEP_TF("without TF", 3, NOWHERE, false, "", "nop");
#ifdef __x86_64__
#define FRAME(flags)                                                                     \
    "mov rcx, rsp\nmov eax, ss\npush rax\npush rcx\npush " flags                         \
    "\nmov eax, cs\npush rax\nmov eax, offset 777f\npush rax"
#define IRET "iretq\nud2"
#else
#define FRAME(flags) "push " flags "\npush cs\npush offset 777f"
#define IRET "iretd\nud2"
#endif
    STEP("iret that leaves TF", MARK, FRAME("0x102"), IRET);
    STEP("iret that clears TF", MARK, FRAME("2"), IRET);
    STEP_TF("iret that sets TF", 3, HANDLED, false, FRAME("0x102"), IRET);
    STEP_TF("iret that sets TF", 0, HANDLED, false, FRAME("0x102"), IRET);
    if (!cpu_is_tcg())
        STEP0("sti", MARK, "", "sti");
    STEP0("cli", MARK, "", "cli");
    if (!cpu_is_tcg()) /* whose HLT sleeps in spite of the trap */
        STEP0("hlt", MARK, "", "hlt");
    STEP0("in", MARK, "", "in al, 0x80");
    STEP0("out", MARK, "", "out 0x80, al");
    STEP0("rep outsb of 2", ITSELF, "mov edx, 0x80\nmov ecx, 2", "rep outsb");
    STEP0("mov from cr0", MARK, "", "mov " A ", cr0");
    STEP0("mov to cr0", MARK, "mov " A ", cr0", "mov cr0, " A);
    STEP0("mov to cr4", MARK, "mov " A ", cr4", "mov cr4, " A);
    STEP0("mov to dr0", MARK, "", "mov dr0, " A);
    STEP0("invlpg", MARK, "", "invlpg [" B "]");
    STEP0("rdmsr", MARK, "mov ecx, 0x174", "rdmsr");
    STEP0("wrmsr", MARK, "mov ecx, 0x175\nxor eax, eax\nxor edx, edx", "wrmsr");
    STEP0("lgdt", MARK, "sgdt [" B "]", "lgdt [" B "]");
    STEP0("lidt", MARK, "sidt [" B "]", "lidt [" B "]");
    STEP0("lldt", MARK, "xor eax, eax", "lldt ax");
    STEP0("clts", MARK, "", "clts");
    STEP0("wbinvd", MARK, "", "wbinvd");
}

/* --- system calls --- */

/* After SKIP steps on the way: the next two stops. */
static void call_case(const char *what, void *code, unsigned skip, ulong first,
                      ulong second) {
    for (unsigned round = 0; round < 3; round++) {
        regs_for(3);
        in.flags |= X86_FL_TF;
        observe(code);
        cases++;
        digest_add(events);
        check(trap.vector == DONE && events >= skip + 2 && event[skip].ip == first &&
                  event[skip + 1].ip == second && event[skip].dr6 == X86_DR6_BS,
              "step over %s: %u stops, vector %u, +0x%lx, +0x%lx, want +0x%lx, +0x%lx",
              what, events, trap.vector, event[skip].ip - (ulong)code,
              event[skip + 1].ip - (ulong)code, first - (ulong)code,
              second - (ulong)code);
    }
}

/* The handler is at 776; it returns to 777. */
static void step_syscall(void) {
#ifdef __x86_64__
    void *code, *handler, *back;

    wrmsr(X86_MSR_EFER, rdmsr(X86_MSR_EFER) | X86_EFER_SCE);
    wrmsr(X86_MSR_STAR, 0x1bull << 48 | 8ull << 32);
    CODE_PLACES(code, handler, back,
                "syscall\n777: nop\nnop\nint 0x81\n776: nop\nsysretq");
    wrmsr(X86_MSR_LSTAR, (ulong)handler);
    wrmsr(X86_MSR_SFMASK, X86_FL_TF | X86_FL_IF);
    call_case("SYSCALL that masks TF, SYSRET that sets it", code, 0, (ulong)back,
              (ulong)back + 1);
    wrmsr(X86_MSR_SFMASK, X86_FL_IF);
    call_case("SYSCALL that leaves TF", code, 0, (ulong)handler, (ulong)handler + 1);
#endif
}

static void step_sysenter(void) {
    void *code, *handler, *back;

    if (!cpu_has(1, REG_EDX, 11) || (LONG_MODE && cpu_is_amd()))
        return;
    CODE_PLACES(
        code, handler, back,
        "mov edx, offset 777f\nmov " BITS(
            "ecx, esp", "rcx, rsp") "\n"
                                    "sysenter\n777: nop\nnop\nint 0x81\n776: nop\n" BITS(
                                        "sysexit", ".byte 0x48, 0x0f, 0x35"));
    wrmsr(X86_MSR_SYSENTER_CS, KCS);
    wrmsr(X86_MSR_SYSENTER_EIP, (ulong)handler);
    wrmsr(X86_MSR_SYSENTER_ESP, (ulong)run_stack + 4096);
    call_case("SYSENTER, which leaves TF", code, 2, (ulong)handler, (ulong)handler + 1);
    (void)back;
}

/* --- data breakpoints --- */

static const uint8_t len_code[] = {0, 0, 1, 0, 3, 0, 0, 0, 2};

static void *access_code(bool write, unsigned size) {
    switch (size) {
    case 1:
        return write ? CODE("mov [" B "], al\nnop") : CODE("mov al, [" B "]\nnop");
    case 2:
        return write ? CODE("mov [" B "], ax\nnop") : CODE("mov ax, [" B "]\nnop");
    case 4:
        return write ? CODE("mov [" B "], eax\nnop") : CODE("mov eax, [" B "]\nnop");
    default:
        return write ? CODE("movq [" B "], xmm0\nnop") : CODE("movq xmm0, [" B "]\nnop");
    }
}

static bool overlaps(ulong at, unsigned len, ulong to, unsigned size) {
    at &= ~(ulong)(len - 1);
    return at < to + size && to < at + len;
}

static void data_case(unsigned n, unsigned type, unsigned len, int off, bool write,
                      unsigned size, int to) {
    ulong at = (ulong)data + (ulong)off, target = (ulong)data + (ulong)to;
    bool hit = overlaps(at, len, target, size) && (write || type == 3);
    void *code = access_code(write, size);

    watch(n, at, type, len_code[len]);
    regs_for(3);
    in.bx = target;
    observe(code);
    debug_off();
    cases++;
    check(hit ? events == 1 && event[0].dr6 == 1u << n && event[0].ip > (ulong)code &&
                    event[0].ip <= (ulong)code + 4
              : events == 0,
          "breakpoint %u of type %u, %u bytes at %d; %s of %u at %d: %u hits, dr6 0x%lx",
          n, type, len, off, write ? "write" : "read", size, to, events, event[0].dr6);
}

static void data_breakpoints(void) {
    unsigned turn = 0;

    for (unsigned len = 1; len <= BITS(4, 8); len *= 2)
        for (int off = 0; off < 8; off++)
            for (unsigned size = 1; size <= 8; size *= 2)
                for (int to = off - 9; to < off + 9; to++, turn++)
                    data_case(turn & 3, turn & 4 ? 1 : 3, len, off, turn / 8 & 1, size,
                              to);
    /* What the turns have left out: each type with each access. */
    for (unsigned n = 0; n < 4; n++)
        for (unsigned type = 1; type < 4; type += 2)
            for (unsigned write = 0; write < 2; write++)
                for (int to = -4; to < 5; to++)
                    data_case(n, type, 2, 0, write, 4, to);
}

/* Two at once: DR6 has both that match, of those that are enabled. */
static void data_pairs(void) {
    for (int a = -2; a < 5; a++)
        for (int b = -2; b < 5; b++)
            for (unsigned enabled = 1; enabled < 4; enabled++) {
                ulong at = (ulong)data;
                unsigned want = 0;

                watch(1, at + (ulong)a, 3, 0);
                watch(2, at + (ulong)b, 1, 1);
                write_dr7((read_dr7() & ~0xfful) | (enabled & 1 ? 1ul << 2 : 0) |
                          (enabled & 2 ? 2ul << 4 : 0));
                if ((enabled & 1) && overlaps(at + (ulong)a, 1, at, 4))
                    want |= 2;
                if ((enabled & 2) && overlaps(at + (ulong)b, 2, at, 4))
                    want |= 4;
                regs_for(3);
                observe(CODE("mov [" B "], eax\nnop"));
                debug_off();
                cases++;
                /* One that is not enabled may be noted beside one that is. */
                check(
                    want ? events == 1 && (event[0].dr6 & (enabled << 1 | ~6u)) == want
                         : events == 0,
                    "breakpoints at %d and %d, enabled %u: %u hits, dr6 0x%lx, want 0x%x",
                    a, b, enabled, events, event[0].dr6, want);
            }
}

/* A string's elements: the trap follows the one that hits. */
static void data_strings(void) {
    for (unsigned k = 0; k < 8; k++)
        for (unsigned kind = 0; kind < 3; kind++) {
            void *code = kind == 0   ? CODE("rep stosb\nnop")
                         : kind == 1 ? CODE("rep movsb\nnop")
                                     : CODE("rep lodsb\nnop");

            watch(3, (ulong)data + k, kind == 2 ? 3 : 1, 0);
            regs_for(3);
            in.di = (ulong)data;
            if (kind == 2)
                in.si = (ulong)data;
            in.cx = 8;
            observe(code);
            debug_off();
            cases++;
            digest_add(event[0].cx);
            check(
                events == 1 && event[0].dr6 == 8 && event[0].cx == 7 - k &&
                    event[0].ip == (ulong)code + (k == 7 ? 2 : 0) &&
                    (k == 7 || !(event[0].flags & X86_FL_RF) == cpu_is_amd()),
                "rep string %u over a breakpoint at %u: %u hits, dr6 0x%lx, rCX %lu, ip "
                "+0x%lx flags 0x%lx",
                kind, k, events, event[0].dr6, event[0].cx, event[0].ip - (ulong)code,
                event[0].flags);
        }
}

/* --- ports --- */

static void ports(void) {
    static void *code[6];

    code[0] = CODE("in al, dx\nnop");
    code[1] = CODE("in ax, dx\nnop");
    code[2] = CODE("in eax, dx\nnop");
    code[3] = CODE("out dx, al\nnop");
    code[4] = CODE("out dx, ax\nnop");
    code[5] = CODE("out dx, eax\nnop");
    write_cr4(read_cr4() | X86_CR4_DE);
    for (unsigned len = 1; len <= 4; len *= 2)
        for (ulong at = 0x84; at < 0x88; at++)
            for (ulong port = 0x80; port < 0x8b; port++)
                for (unsigned k = 0; k < 6; k++) {
                    unsigned size = 1u << k % 3;
                    bool hit = overlaps(at, len, port, size);

                    watch(0, at, 2, len_code[len]);
                    regs_for(0);
                    in.dx = port;
                    in.ax = 0x02020202; /* nothing that a port there minds */
                    observe(code[k]);
                    debug_off();
                    cases++;
                    check(hit ? events == 1 && event[0].dr6 == 1 &&
                                    event[0].ip > (ulong)code[k]
                              : events == 0,
                          "breakpoint of %u on port 0x%lx; access %u of 0x%lx: %u hits",
                          len, at, size, port, events);
                }
    write_cr4(read_cr4() & ~(ulong)X86_CR4_DE);
}

/* --- code, order, general detect --- */

static void expect_events(const char *what, unsigned n, const ulong (*want)[2]) {
    bool ok = events == n;

    for (unsigned k = 0; ok && k < n; k++)
        ok = event[k].ip == want[k][0] && event[k].dr6 == want[k][1];
    cases++;
    check(ok, "%s: %u events, first +0x%lx 0x%lx, second +0x%lx 0x%lx", what, events,
          event[0].ip - in.ip, event[0].dr6, event[1].ip - in.ip, event[1].dr6);
}

#define EXPECT_EVENTS(what, ...)                                                         \
    do {                                                                                 \
        const ulong want_[][2] = {__VA_ARGS__};                                          \
        expect_events(what, COUNT(want_), want_);                                        \
    } while (0)

static void code_breakpoints(void) {
    /* Only the first byte counts, and a prefix is one. */
    void *code = CODE("nop\n.byte 0x3e, 0x66, 0x89, 0xc0\nnop"); /* mov ax, ax */
    ulong c = (ulong)code;

    for (unsigned cpl = 0; cpl < 4; cpl += 3)
        for (unsigned k = 0; k < 6; k++) {
            watch(k & 3, c + k, 0, 0);
            regs_for(cpl);
            observe(code);
            debug_off();
            cases++;
            check(k == 0 || k == 1 || k == 5 ? events == 1 && event[0].ip == c + k &&
                                                   event[0].dr6 == 1u << (k & 3)
                                             : events == 0,
                  "breakpoint on byte %u of the code: %u hits at +0x%lx", k, events,
                  event[0].ip - c);
        }
    /* A repeated string: once, since RF lasts until it is done. */
    code = CODE("mov ecx, 5\nrep stosb\nnop");
    c = (ulong)code;
    watch(0, c + 5, 0, 0);
    regs_for(3);
    observe(code);
    debug_off();
    EXPECT_EVENTS("breakpoint on a repeated string", {c + 5, 1});
    /* Of two on one instruction, both. */
    watch(0, c + 7, 0, 0);
    watch(2, c + 7, 0, 0);
    regs_for(3);
    observe(code);
    debug_off();
    EXPECT_EVENTS("two breakpoints on one instruction", {c + 7, 5});
}

static void order(void) {
    void *code = CODE("mov [" B "], eax\nnop\nnop");
    ulong c = (ulong)code;

    /* A step and a data breakpoint are one exception. */
    watch(1, (ulong)data, 1, 3);
    regs_for(3);
    in.flags |= X86_FL_TF;
    observe(code);
    debug_off();
    cases++;
    check(events >= 2 && event[0].ip == c + 2 && event[0].dr6 == (X86_DR6_BS | 2) &&
              event[1].ip == c + 3 && event[1].dr6 == X86_DR6_BS,
          "step and data breakpoint: %u, +0x%lx 0x%lx", events, event[0].ip - c,
          event[0].dr6);
    /* A trap of the instruction before comes before a breakpoint on the next. */
    watch(0, (ulong)data, 1, 3);
    watch(3, c + 2, 0, 0);
    regs_for(3);
    hooks[X86_DB] = NULL;
    run(code);
    cases++;
    check(trap.vector == X86_DB && trap.r.ip == c + 2 && (trap.dr6 & DR6_KNOWN) == 1 &&
              !(trap.r.flags & X86_FL_RF),
          "data breakpoint, then one on code: dr6 0x%lx", trap.dr6);
    debug_off();
    watch(3, c + 2, 0, 0);
    in.flags |= X86_FL_TF;
    in.flags &= ~(ulong)X86_FL_RF;
    run(code);
    cases++;
    check(trap.vector == X86_DB && trap.r.ip == c + 2 &&
              (trap.dr6 & DR6_KNOWN) == X86_DR6_BS,
          "step, then breakpoint on code: dr6 0x%lx", trap.dr6);
    debug_off();
    /* B's of the past go; BS, BD and BT stay until software clears them. */
    write_dr6(X86_DR6_FIXED | X86_DR6_BS | X86_DR6_BT);
    watch(0, (ulong)data, 1, 3);
    regs_for(3);
    run(code);
    cases++;
    check(trap.vector == X86_DB &&
              (trap.dr6 & DR6_KNOWN) == (X86_DR6_BS | X86_DR6_BT | 1),
          "DR6 accumulates: 0x%lx", trap.dr6);
    debug_off();
#ifdef __x86_64__
    /* A breakpoint comes before the fault of the fetch, and RF lets that through. */
    watch(2, HOLE, 0, 0);
    regs_for(0);
    in.bx = HOLE;
    run(CODE("jmp rbx"));
    cases++;
    check(trap.vector == X86_DB && trap.r.ip == HOLE,
          "breakpoint on a page that is absent: %u", trap.vector);
    in.flags |= X86_FL_RF;
    run((void *)HOLE);
    cases++;
    check(trap.vector == X86_PF && trap.r.ip == HOLE && (trap.r.flags & X86_FL_RF),
          "and with RF: %u", trap.vector);
    debug_off();
#endif
}

/* The handler itself reads DR6. */
static ulong detected_at;

static bool on_detect(struct frame *f) {
    return f->ip != detected_at;
}

/* GD: every access to a debug register at CPL 0, before it is done. */
static void general_detect(void) {
    static uint32_t buffer[4]; /* length, code */
    uint8_t *p = (uint8_t *)&buffer[1];

    for (unsigned n = 0; n < 8; n++)
        for (unsigned to = 0; to < 2; to++)
            for (unsigned cpl = 0; cpl < 4; cpl += 3)
                for (unsigned gd = 0; gd < 2; gd++) {
                    unsigned want = cpl ? X86_GP : gd ? X86_DB : DONE;
                    ulong dr7;

                    p[0] = 0x0f;
                    p[1] = (uint8_t)(0x21 + 2 * to);
                    p[2] = (uint8_t)(0xc0 | n << 3); /* eax */
                    p[3] = 0xcd;
                    p[4] = DONE;
                    regs_for(cpl);
                    in.ax = n == 6 || n == 4 ? X86_DR6_FIXED : X86_DR7_FIXED;
                    write_dr7(X86_DR7_FIXED | (gd ? X86_DR7_GD : 0));
                    detected_at = (ulong)p;
                    hooks[X86_DB] = on_detect;
                    run(p);
                    hooks[X86_DB] = NULL;
                    __asm__ volatile("mov %%db7, %0" : "=r"(dr7));
                    cases++;
                    check(trap.vector == want &&
                              (want == DONE || trap.r.ip == (ulong)p) &&
                              (want != X86_DB || ((trap.dr6 & DR6_KNOWN) == X86_DR6_BD &&
                                                  !(dr7 & X86_DR7_GD))),
                          "mov %s dr%u at CPL %u, GD %u: vector %u dr6 0x%lx",
                          to ? "to" : "from", n, cpl, gd, trap.vector, trap.dr6);
                    debug_off();
                }
}

void guest_main(void) {
    uint8_t *pages = page_alloc();

    page_alloc();
    data = pages + 4096 - 4; /* what is watched lies on both sides */
    write_cr4(read_cr4() | X86_CR4_OSFXSR);
    debug_off();
    step_plain();
    step_system();
    step_syscall();
    step_sysenter();
    if (cpu_is_tcg()) {
        note("TCG's breakpoints are coarser, and it has no general detect");
        return;
    }
    data_breakpoints();
    data_pairs();
    data_strings();
    ports();
    code_breakpoints();
    order();
    general_detect();
    printf("%u cases\n", cases);
    digest_print();
}
