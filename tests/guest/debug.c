/*
 * Debugging: single-step over every kind of instruction, breakpoints on execution, data
 * and ports, general detect, what DR6 says. A fault's ip is the instruction's own, a
 * trap's the next one's. AMD64 APM volume 2, "Debug and Performance Resources".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

static unsigned steps;
static ulong step_ip[64], step_dr6[64];

static bool on_step(struct frame *f) {
    if (steps < COUNT(step_ip)) {
        step_ip[steps] = f->ip;
        step_dr6[steps] = read_dr6();
    }
    write_dr6(X86_DR6_FIXED);
    if (++steps >= COUNT(step_ip))
        f->flags &= ~(ulong)X86_FL_TF;
    return true;
}

/* Runs with TF set and checks at which offsets the steps came; `want` ends with -1. */
static void step(const char *what, bool user, void *code, const int *want) {
    hooks[X86_DB] = on_step;
    steps = 0;
    write_dr6(X86_DR6_FIXED);
    if (user)
        regs_user();
    else
        regs_kernel();
    in.flags |= X86_FL_TF;
    in.cx = 3;
    in.si = in.di = (ulong)user_stack + 64;
    run(code);
    hooks[X86_DB] = NULL;
    unsigned n = 0;
    bool ok = true;
    while (want[n] >= 0) {
        ok &= n < steps && step_ip[n] == (ulong)code + (ulong)want[n] &&
              (step_dr6[n] & 0xe00f) == X86_DR6_BS;
        n++;
    }
    ok &= steps == n;
    if (!check(ok, "stepping over %s: %u steps, want %u", what, steps, n)) {
        for (unsigned i = 0; i < steps && i < 12; i++)
            printf("    +%ld dr6 0x%lx\n", (long)(step_ip[i] - (ulong)code), step_dr6[i]);
    }
}

#define STEPS(...) ((const int[]){__VA_ARGS__, -1})

static void stepping(void) {
    step("nops", true, CODE("nop\nnop\nnop"), STEPS(1, 2, 3));
    step("nops at ring 0", false, CODE("nop\nnop\nnop"), STEPS(1, 2, 3));
    step("a taken jump", true, CODE("jmp 1f\nnop\n1: nop"), STEPS(3, 4));
    step("call and ret", true, CODE("call 1f\njmp 2f\n1: ret\n2: nop"),
         STEPS(7, 5, 8, 9));
    step("rep movsb", true, CODE("rep movsb\nnop"), STEPS(0, 0, 2, 3));
    step("rep stosb with nothing to do", true, CODE("xor ecx, ecx\nrep stosb\nnop"),
         STEPS(2, 4, 5));
    step("loop", true, CODE("1: loop 1b\nnop"), STEPS(0, 0, 2, 3));
    step("pushf shows TF", true, CODE("pushf\npop " BITS("eax", "rax")), STEPS(1, 2));
    check(trap.r.ax & X86_FL_TF, "TF in the pushed flags");
    step("cpuid", true, CODE("cpuid\nnop"), STEPS(2, 3));
    step("rdtsc", true, CODE("rdtsc\nnop"), STEPS(2, 3));
    step("string ops one by one", true, CODE("lodsb\nstosb\nscasb"), STEPS(1, 2, 3));
    /* POP SS and MOV SS hold the trap for one instruction. */
    step("mov ss", true, CODE("mov eax, ss\nmov ss, eax\nnop\nnop"), STEPS(2, 5, 6));
#ifndef __x86_64__
    step("pop ss", true, CODE("push ss\npop ss\nnop\nnop"), STEPS(1, 3, 4));
    step("pusha, popa, enter, leave", true, CODE("pushad\npopad\nenter 8, 0\nleave"),
         STEPS(1, 2, 6, 7));
#endif
    step("far call and ret", true,
         BITS(CODE("call 0x1b, offset 1f\njmp 2f\n1: retf\n2: nop"),
              CODE("push 0x2b\ncall 1f\njmp 2f\n1: retfq\n2: nop")),
         BITS(STEPS(9, 7, 10, 11), STEPS(2, 9, 7, 11, 12)));
    /* An interrupt's handler runs with TF clear; the step comes after the iret. */
    step("cli, sti at ring 0", false, CODE("sti\nnop\ncli\nnop"), STEPS(1, 2, 3, 4));
    step("mov cr", false,
         CODE("mov " BITS("eax", "rax") ", cr0\nmov cr0, " BITS("eax", "rax") "\nnop"),
         STEPS(3, 6, 7));
    step("in and out", false, CODE("in al, 0x80\nout 0x80, al\nnop"), STEPS(2, 4, 5));
    step("rdmsr", false, CODE("mov ecx, 0x174\nrdmsr\nwrmsr\nnop"), STEPS(5, 7, 9, 10));
    /* POPF that sets TF: the trap comes after the next instruction. */
    hooks[X86_DB] = on_step;
    steps = 0;
    regs_user();
    void *code =
        CODE("pushf\nor dword ptr [" BITS("esp", "rsp") "], 0x100\npopf\nnop\nnop");
    run(code);
    hooks[X86_DB] = NULL;
    const unsigned popf_end = 9;
    check(steps == 2 && step_ip[0] == (ulong)code + popf_end + 1 &&
              step_ip[1] == (ulong)code + popf_end + 2,
          "popf that sets TF: %u steps, +%ld", steps, (long)(step_ip[0] - (ulong)code));
    /* POPF that clears TF is itself still stepped. */
    hooks[X86_DB] = on_step;
    steps = 0;
    regs_user();
    in.flags |= X86_FL_TF;
    code = CODE("push 2\npopf\nnop\nnop");
    run(code);
    hooks[X86_DB] = NULL;
    check(steps == 2 && step_ip[1] == (ulong)code + 3, "popf that clears TF: %u steps",
          steps);
    /* A fault takes precedence; its image of flags has TF, its handler has not. */
    regs_user();
    in.flags |= X86_FL_TF;
    RUN("ud2");
    expect("a fault when stepping", X86_UD, 0, 0);
    check(trap.r.flags & X86_FL_TF, "TF saved");
    RUN("int 0x42");
    expect("int when stepping", 0x42, 0, 2);
    check(trap.r.flags & X86_FL_TF, "TF saved");
    RUN("nop");
    expect("#DB unhooked", X86_DB, 0, 1);
    check(trap.dr6 & X86_DR6_BS, "BS: 0x%lx", trap.dr6);
    write_dr6(X86_DR6_FIXED);
}

/* DR7 with breakpoint n enabled: type 0 exec, 1 write, 2 port, 3 access; length 0..3. */
static ulong dr7(unsigned n, unsigned type, unsigned len) {
    return X86_DR7_FIXED | 2ul << 2 * n | (ulong)(type | len << 2) << (16 + 4 * n);
}

static uint64_t watched[4] __attribute__((aligned(32)));

static void off(void) {
    write_dr7(X86_DR7_FIXED);
    write_dr6(X86_DR6_FIXED);
}

static void breakpoints(void) {
    /* Execution: a fault before the instruction; RF lets it go. */
    void *code = CODE("nop\nmov eax, 5\nnop");
    for (unsigned n = 0; n < 4; n++) {
        ulong at = (ulong)code + 1;
        if (n == 0)
            write_dr0(at);
        else if (n == 1)
            write_dr1(at);
        else if (n == 2)
            write_dr2(at);
        else
            write_dr3(at);
        write_dr7(dr7(n, 0, 0));
        regs_user();
        run(code);
        expect("execution breakpoint", X86_DB, 0, 1);
        check_eq("dr6", trap.dr6 & 0xe00f, 1u << n);
        check_eq("eax not loaded yet", trap.r.ax, 0);
        /* Every fault saves RF as 1 but this one (SDM volume 3, "Instruction-Breakpoint
         * Exception Condition"). */
        check(!(trap.r.flags & X86_FL_RF), "RF in the saved flags: 0x%lx", trap.r.flags);
        off();
    }
    write_dr0((ulong)code);
    write_dr7(dr7(0, 0, 0));
    regs_user();
    in.flags |= X86_FL_RF;
    run(code);
    expect("RF suppresses it", DONE, 0, ANY);
    check(!(trap.r.flags & X86_FL_RF), "and is gone after one instruction");
    /* Before the instruction's own fault. */
    code = CODE("ud2");
    write_dr0((ulong)code);
    regs_user();
    run(code);
    expect("breakpoint before #UD", X86_DB, 0, 0);
    in.flags |= X86_FL_RF;
    run(code);
    expect("with RF the #UD", X86_UD, 0, 0);
    off();
    /* A loop: every time round. */
    code = CODE("mov ecx, 5\n1: nop\nloop 1b");
    hooks[X86_DB] = NULL;
    write_dr0((ulong)code + 5);
    write_dr7(dr7(0, 0, 0));
    regs_user();
    unsigned hits = 0;
    run(code);
    while (trap.vector == X86_DB && hits < 10) {
        hits++;
        in = trap.r;
        in.flags |= X86_FL_RF;
        ulong ip = trap.r.ip;
        run((void *)ip);
    }
    check_eq("hits in a loop of 5", hits, 5);
    off();
    /* Data. */
    ulong a = (ulong)&watched[1];
    struct {
        const char *what;
        unsigned type, len;
        ulong at;
        void *code;
        bool hit;
    } rows[] = {
        {"write 4, written", 1, 3, a, CODE("mov [ebx], eax\nnop"), true},
        {"write 4, read", 1, 3, a, CODE("mov eax, [ebx]\nnop"), false},
        {"access 4, read", 3, 3, a, CODE("mov eax, [ebx]\nnop"), true},
        {"access 4, written", 3, 3, a, CODE("mov [ebx], eax\nnop"), true},
        {"access 1, byte before", 3, 0, a, CODE("mov al, [ebx-1]\nnop"), false},
        {"access 1, byte after", 3, 0, a, CODE("mov al, [ebx+1]\nnop"), false},
        {"access 1, in a dword", 3, 0, a, CODE("mov eax, [ebx-3]\nnop"), true},
        {"access 4, last byte", 3, 3, a, CODE("mov al, [ebx+3]\nnop"), true},
        {"access 4, behind", 3, 3, a, CODE("mov al, [ebx+4]\nnop"), false},
        {"access 2", 3, 1, a + 2, CODE("mov al, [ebx+3]\nnop"), true},
        {"access 2, address rounded down", 3, 1, a + 3, CODE("mov al, [ebx+2]\nnop"),
         true},
        {"write by rmw", 1, 3, a, CODE("add [ebx], eax\nnop"), true},
        {"write by lock cmpxchg that fails", 1, 3, a,
         CODE("lock cmpxchg [ebx], ecx\nnop"), true},
        {"write by push", 1, 3, a,
         CODE("mov " BITS("ecx, esp", "rcx, rsp") "\nlea " BITS(
             "esp, [ebx+4]", "rsp, [rbx+8]") "\npush 0\nmov " BITS("esp, ecx",
                                                                   "rsp, rcx")),
         true},
        {"access by push m", 3, 3, a, CODE("push [" BITS("ebx", "rbx") "]\nnop"), true},
        {"execution address read as data", 0, 0, a, CODE("mov eax, [ebx]\nnop"), false},
    };
    for (unsigned i = 0; i < COUNT(rows); i++) {
        write_dr1(rows[i].at);
        write_dr6(X86_DR6_FIXED);
        write_dr7(dr7(1, rows[i].type, rows[i].len));
        regs_user();
        in.bx = a;
        in.ax = 1;
        run(rows[i].code);
        write_dr7(X86_DR7_FIXED);
        check(trap.vector == (rows[i].hit ? X86_DB : DONE) &&
                  (!rows[i].hit || (trap.dr6 & 0xe00f) == 2),
              "data breakpoint %s: vector %u dr6 0x%lx", rows[i].what, trap.vector,
              trap.dr6);
        if (rows[i].hit)
            check(trap.r.ip > (ulong)rows[i].code, "a data breakpoint is a trap");
    }
    off();
    /* String: hit after the element, in the middle of rep. */
    write_dr0(a);
    write_dr7(dr7(0, 1, 0));
    regs_user();
    in.di = a - 5;
    in.cx = 12;
    RUN("rep stosb");
    check(trap.vector == X86_DB && trap.r.cx <= 6 && trap.r.di >= a + 1,
          "rep stosb over a write breakpoint: %u cx %lu", trap.vector, trap.r.cx);
    off();
    /* Not enabled: DR6 may note it, no exception. */
    write_dr0(a);
    write_dr7(X86_DR7_FIXED | 3ul << 16);
    regs_user();
    in.bx = a;
    RUN("mov [ebx], eax");
    expect("a breakpoint that is not enabled", DONE, 0, ANY);
    /* Ports, with CR4.DE. */
    write_cr4(read_cr4() | X86_CR4_DE);
    write_dr2(0x80);
    write_dr7(dr7(2, 2, 0));
    regs_kernel();
    RUN("out 0x80, al\nnop");
    expect("port breakpoint", X86_DB, 0, 2);
    check_eq("dr6", trap.dr6 & 0xe00f, 4);
    write_dr6(X86_DR6_FIXED);
    RUN("out 0x81, al\nnop");
    expect("another port", DONE, 0, ANY);
    off();
    /* DR4 and DR5 are #UD with CR4.DE, else DR6 and DR7. */
    regs_kernel();
    run(CODE(".byte 0x0f, 0x21, 0xe0"));
    expect("dr4 with DE", X86_UD, 0, 0);
    write_cr4(read_cr4() & ~(ulong)X86_CR4_DE);
    run(CODE(".byte 0x0f, 0x21, 0xe0"));
    expect("dr4 without DE", DONE, 0, ANY);
    check_eq("is dr6", trap.r.ax, read_dr6());
    /* General detect. */
    write_dr7(X86_DR7_FIXED | X86_DR7_GD);
    RUN("mov " BITS("eax", "rax") ", dr0");
    off();
    expect("general detect", X86_DB, 0, 0);
    check(trap.dr6 & X86_DR6_BD, "BD: 0x%lx", trap.dr6);
    /* Fixed bits. */
    write_dr6(0);
    check_eq("dr6 fixed ones", read_dr6(), X86_DR6_FIXED);
    write_dr7(0);
    check_eq("dr7 fixed one", read_dr7() & 0x400, 0x400);
#ifdef __x86_64__
    regs_kernel();
    in.ax = 1ul << 32;
    RUN("mov dr7, rax");
    expect("upper half of dr7", X86_GP, 0, 0);
    RUN("mov dr6, rax");
    expect("upper half of dr6", X86_GP, 0, 0);
    in.ax = 0x400;
    RUN("mov dr7, rax");
    expect("dr7 again", DONE, 0, ANY);
#endif
    off();
    /* MOV SS delays a data breakpoint's trap to the end of the next instruction. */
    static uint16_t ss_value;
    ss_value = UDS;
    write_dr0((ulong)&ss_value);
    write_dr7(dr7(0, 3, 1));
    regs_user();
    in.bx = (ulong)&ss_value;
    RUN("mov ss, [ebx]\nnop\nnop");
    write_dr7(X86_DR7_FIXED);
    check(trap.vector == X86_DB && (trap.dr6 & 1) && trap.r.ip == in.ip + BITS(3, 4),
          "mov ss, [watched]: %u ip +%lu", trap.vector, trap.r.ip - in.ip);
    off();
}

void guest_main(void) {
    stepping();
    breakpoints();
}
