/*
 * Changes of privilege in 32-bit protected mode: call gates with parameters, far returns
 * and IRET to outer rings, SYSENTER and SYSEXIT, POPF and IOPL, the I/O bitmap, and
 * tasks: JMP, CALL, IRET, task gates, a double fault taken on a task of its own. AMD64
 * APM volume 2, "Control-Transfer Privilege Checks" and "Task Management".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define GATE (FREE_SEL | 3)
#define TSS2_SEL 0x90
#define TSS3_SEL 0x98
#define TASK_GATE (0xa0 | 3)

static struct tss32 tss2;
static uint32_t task_stack[1024];

static void call_gates(void) {
    void *target = CODE("nop"); /* then DONE, at ring 0 */
    gdt_set_call_gate(GATE, KCS, target, 3, 3);
    regs_user();
    in.flags |= X86_FL_CF;
    RUN("push 0x11\npush 0x22\npush 0x33\ncall 0x73, 0");
    uint32_t *s = (uint32_t *)trap.r.sp;
    check(trap.vector == DONE && trap.r.cs == KCS, "call gate to ring 0: %u cs 0x%lx",
          trap.vector, trap.r.cs);
    ulong top = (ulong)trap_stack + sizeof(trap_stack);
    if (trap.vector == DONE && (ulong)s == top - 7 * 4) {
        check_eq("return cs", s[1], UCS);
        check_eq("parameter 1", s[2], 0x33);
        check_eq("parameter 2", s[3], 0x22);
        check_eq("parameter 3", s[4], 0x11);
        check_eq("outer esp", s[5], in.sp - 12);
        check_eq("outer ss", s[6], UDS);
    } else {
        check(false, "esp after the gate: 0x%lx, want 0x%lx", (ulong)s, top - 28);
    }
    check_eq("flags are the caller's", trap.r.flags & (X86_FL_CF | X86_FL_IF), X86_FL_CF);
    /* And back, dropping the parameters on both stacks. */
    gdt_set_call_gate(GATE, KCS, CODE("mov eax, [esp + 8]\nretf 12"), 3, 3);
    RUN("push 0x11\npush 0x22\npush 0x33\ncall 0x73, 0\nmov ebx, esp");
    expect("gate and return", DONE, 0, ANY);
    check_eq("value", trap.r.ax, 0x33);
    check_eq("esp", trap.r.bx, in.sp);
    check_eq("cs", trap.r.cs, UCS);
    /* Return to ring 3 makes segments of ring 0 null. */
    gdt_set_call_gate(GATE, KCS, CODE("mov eax, 0x10\nmov ds, eax\nmov fs, eax\nretf"), 3,
                      0);
    RUN("call 0x73, 0");
    expect("return with ring-0 segments", DONE, 0, ANY);
    check_eq("ds null", trap.r.ds, 0);
    check_eq("fs null", trap.r.fs, 0);
    check_eq("es kept", trap.r.es, UDS);
    /* Refusals. */
    gdt_set_call_gate(GATE, KCS, target, 0, 0);
    RUN("call 0x73, 0");
    expect("gate of DPL 0", X86_GP, GATE & ~3, 0);
    gdt_set_call_gate(GATE, KCS, target, 3, 0);
    RUN("jmp 0x73, 0");
    expect("jmp through a gate to an inner ring", X86_GP, KCS, 0);
    gdt[GATE >> 3] &= ~(1ull << 47);
    RUN("call 0x73, 0");
    expect("gate not present", X86_NP, GATE & ~3, 0);
    gdt_set_call_gate(GATE, 0, target, 3, 0);
    RUN("call 0x73, 0");
    expect("gate with a null cs", X86_GP, 0, 0);
    gdt_set_call_gate(GATE, KDS, target, 3, 0);
    RUN("call 0x73, 0");
    expect("gate with a data cs", X86_GP, KDS, 0);
    gdt_set_call_gate(GATE, UCS, CODE("nop"), 3, 0);
    RUN("call 0x73, 0");
    expect("gate to the same ring", DONE, 0, ANY);
    check_eq("esp", trap.r.sp, in.sp - 8);
    regs_kernel();
    RUN("call 0x73, 0");
    expect("gate to an outer ring", X86_GP, UCS & ~3, 0);
    gdt_set_call_gate(GATE, KCS, target, 3, 0);
    RUN("jmp 0x70, 0");
    check(trap.vector == DONE && trap.r.cs == KCS, "jmp through a gate at ring 0: %u",
          trap.vector);
}

/* A ring-3 handler of #TS and #SS: keeps what was pushed and mends the TSS before it
 * leaves. Paging is off, it may write where it likes. */
uint32_t ts_got[3];
extern uint8_t ts_entry[], ss_entry[];
__asm__(".pushsection .text\n"
        ".globl ts_entry, ss_entry\n"
        "ts_entry: movl $10, ts_got\njmp 1f\n"
        "ss_entry: movl $12, ts_got\n"
        "1: pop ts_got + 4\npop ts_got + 8\nmovl $0x10, tss + 8\nint $0x81\n"
        ".popsection");

static void bad_stacks(void) {
    /* #TS and #SS for the new stack are served by a gate to ring 3 itself: no switch. */
    static const struct {
        const char *what;
        uint32_t ss;
        unsigned vector;
        long error;
    } rows[] = {
        {"ss0 null", 0, X86_TS, 0},
        {"ss0 with RPL 3", UDS, X86_TS, UDS & ~3},
        {"ss0 code", KCS, X86_TS, KCS},
        {"ss0 beyond the GDT", 0xfff8, X86_TS, 0xfff8},
        {"ss0 not present", 0xb0, X86_SS, 0xb0},
    };
    gdt_set(0xb0, gdt[KDS >> 3] & ~(1ull << 47));
    gdt_set_call_gate(GATE, KCS, CODE("nop"), 3, 0);
    void *code[2];
    code[0] = CODE("call 0x73, 0");
    code[1] = CODE("int 0x42");
    for (unsigned i = 0; i < COUNT(rows); i++) {
        for (int k = 0; k < 2; k++) {
            tss.ss0 = rows[i].ss;
            memset(ts_got, 0, sizeof(ts_got));
            idt_set(X86_TS, UCS, ts_entry, X86_DESC_INTGATE32, 3);
            idt_set(X86_SS, UCS, ss_entry, X86_DESC_INTGATE32, 3);
            regs_user();
            run(code[k]);
            idt_reset(X86_TS);
            idt_reset(X86_SS);
            tss.ss0 = KDS;
            check(ts_got[0] == rows[i].vector && ts_got[1] == (uint32_t)rows[i].error &&
                      ts_got[2] == (uint32_t)code[k],
                  "%s by %s: vector %u error 0x%x ip 0x%x", rows[i].what,
                  k ? "int" : "call gate", ts_got[0], ts_got[1], ts_got[2]);
        }
    }
}

static void returns(void) {
    /* iret at ring 0 to ring 3, by hand. */
    regs_kernel();
    in.ax = (ulong)CODE("mov ecx, 0x77");
    in.bx = (ulong)user_stack + 4096;
    RUN("push 0x23\npush ebx\npush 0x202\npush 0x1b\npush eax\nmov edx, 0x10\n"
        "mov es, edx\niretd");
    check(trap.vector == DONE && trap.r.cs == UCS && trap.r.ss == UDS &&
              trap.r.sp == in.bx && trap.r.es == 0 && (trap.r.flags & X86_FL_IF),
          "iret to ring 3: %u cs 0x%lx es 0x%lx", trap.vector, trap.r.cs, trap.r.es);
    static const struct {
        const char *what;
        uint32_t cs, ss;
        long error;
        unsigned vector;
    } rows[] = {
        {"cs null", 0, UDS, 0, X86_GP},
        {"cs data", UDS, UDS, UDS & ~3, X86_GP},
        {"ss null", UCS, 0, 0, X86_GP},
        {"ss RPL 0", UCS, KDS, KDS, X86_GP},
        {"ss code", UCS, UCS, UCS & ~3, X86_GP},
        {"ss DPL 0", UCS, KDS | 3, KDS, X86_GP},
        {"cs DPL 0 with RPL 3", KCS | 3, UDS, KCS, X86_GP},
        {"ss not present", UCS, 0xb8 | 3, 0xb8, X86_SS},
        {"cs not present", 0xc0 | 3, UDS, 0xc0, X86_NP},
    };
    gdt_set(0xb8, gdt[UDS >> 3] & ~(1ull << 47));
    gdt_set(0xc0, gdt[UCS >> 3] & ~(1ull << 47));
    for (unsigned i = 0; i < COUNT(rows); i++) {
        regs_kernel();
        in.cx = rows[i].cs;
        in.dx = rows[i].ss;
        in.ax = (ulong)CODE("nop");
        in.bx = (ulong)user_stack + 4096;
        RUN("push edx\npush ebx\npush 0x202\npush ecx\npush eax\niretd");
        expect(rows[i].what, rows[i].vector, rows[i].error, 9);
        check_eq("esp at the iret", trap.r.sp, in.sp - 20);
        RUN("push edx\npush ebx\npush ecx\npush eax\nretf");
        expect(rows[i].what, rows[i].vector, rows[i].error, 4);
    }
    regs_user();
    RUN("push 8\npush 0\nretf");
    expect("retf to an inner ring", X86_GP, KCS, 4);
    RUN("push 2\npush 8\npush 0\niretd");
    expect("iret to an inner ring", X86_GP, KCS, 6);
    /* Same ring: flags. */
    in.ax = (ulong)CODE("nop");
    RUN("push 0x3ed7\npush 0x1b\npush eax\niretd");
    check(trap.vector == DONE && (trap.r.flags & 0x7fd7) == 0xcd7,
          "iret at ring 3 keeps IF and IOPL: 0x%lx", trap.r.flags);
}

static void popf_rules(void) {
    for (ulong iopl = 0; iopl < 4; iopl++) {
        regs_user();
        in.flags |= iopl << 12;
        RUN("push 0x3202\npopfd\npushfd\npop eax");
        check_eq("popf at ring 3: IOPL kept, IF by IOPL", trap.r.ax & 0x3200,
                 iopl << 12 | (iopl == 3 ? 0x200 : 0));
        regs_kernel();
        in.flags |= iopl << 12;
        RUN("push 0x2002\npopfd\npushfd\npop eax");
        check_eq("popf at ring 0 sets IOPL", trap.r.ax & 0x3200, 0x2000);
        regs_user();
        in.flags |= iopl << 12;
        RUN("cli");
        check(trap.vector == (iopl == 3 ? DONE : X86_GP), "cli with IOPL %lu", iopl);
        RUN("in al, 0x80");
        check(trap.vector == (iopl == 3 ? DONE : X86_GP), "in with IOPL %lu", iopl);
    }
    regs_user();
    in.flags |= 0x4000 | X86_FL_ID;
    RUN("pushfd\npop eax\npush 0x3ffffd7 - 0x100\npopfd\npushfd\npop ebx");
    check_eq("NT and ID are seen", trap.r.ax & 0x204000, 0x204000);
    check_eq("what ring 3 can set, and no VM, RF, VIF, VIP",
             trap.r.bx & ~0x2000000ul & 0x1fffff, 0x44cd7 | X86_FL_ONE);
    regs_kernel();
    in.flags |= X86_FL_CF;
    RUN("push 0xffff0002 & 0x20000\npopfd\npushfd\npop eax");
    check_eq("popf does not set VM", trap.r.ax & X86_FL_VM, 0);
    regs_user();
    in.flags = 0x40002;
    RUN("push 0x0d5\npopfw\npushfd\npop eax");
    check_eq("popf of 16 bits keeps the upper half", trap.r.ax, 0x400d7);
}

static void io_bitmap(void) {
    uint8_t *map = (uint8_t *)&tss + sizeof(tss);
    map[0x80 / 8] &= (uint8_t)~0xe; /* 81, 82 and 83 are free, 80 and 84 are not */
    regs_user();
    in.dx = 0x81;
    RUN("in al, dx\nin al, 0x83\nout 0x82, al");
    expect("ports of the bitmap", DONE, 0, ANY);
    in.dx = 0x80;
    RUN("in al, dx");
    expect("a port not of the bitmap", X86_GP, 0, 0);
    in.dx = 0x82;
    RUN("in ax, dx");
    expect("a word within", DONE, 0, ANY);
    RUN("in eax, dx");
    expect("a dword that reaches beyond", X86_GP, 0, 0);
    in.dx = 0x83;
    RUN("in ax, dx");
    expect("a word that reaches beyond", X86_GP, 0, 0);
    in.flags |= X86_FL_IOPL;
    RUN("in ax, dx");
    expect("IOPL overrules", DONE, 0, ANY);
    regs_user();
    uint16_t old = tss.iomap;
    tss.iomap = 0xffff; /* beyond the TSS limit */
    in.dx = 0x81;
    RUN("in al, dx");
    expect("no bitmap", X86_GP, 0, 0);
    tss.iomap = old;
    map[0x80 / 8] = 0xff;
}

static void fast_calls(void) {
    if (!cpu_has(1, REG_EDX, 11))
        return;
    wrmsr(X86_MSR_SYSENTER_CS, 0);
    TRY3("sysenter");
    expect("sysenter without a cs", X86_GP, 0, 0);
    TRY3("sysexit");
    expect("sysexit at ring 3", X86_GP, 0, 0);
    TRY0("sysexit");
    expect("sysexit without a cs", X86_GP, 0, 0);
    wrmsr(X86_MSR_SYSENTER_CS, KCS);
    wrmsr(X86_MSR_SYSENTER_EIP, (ulong)CODE("nop"));
    wrmsr(X86_MSR_SYSENTER_ESP, (ulong)run_stack + 8192);
    regs_user();
    in.flags |= X86_FL_IF | X86_FL_CF;
    RUN("sysenter");
    check(trap.vector == DONE && trap.r.cs == KCS &&
              trap.r.sp == (ulong)run_stack + 8192 && !(trap.r.flags & X86_FL_IF) &&
              (trap.r.flags & X86_FL_CF),
          "sysenter: %u cs 0x%lx sp 0x%lx flags 0x%lx", trap.vector, trap.r.cs, trap.r.sp,
          trap.r.flags);
    regs_kernel();
    in.dx = (ulong)CODE("nop");
    in.cx = (ulong)user_stack + 2048;
    RUN("sysexit");
    check(trap.vector == DONE && trap.r.cs == UCS && trap.r.ss == UDS &&
              trap.r.sp == in.cx,
          "sysexit: %u cs 0x%lx", trap.vector, trap.r.cs);
    TRY3("syscall");
    check(trap.vector == X86_UD, "syscall with EFER.SCE clear: %u", trap.vector);
}

/* Back to the first task after a run that ended in another. */
static void first_task(void) {
    gdt[TSS_SEL >> 3] &= ~(2ull << 40);
    gdt[TSS2_SEL >> 3] &= ~(2ull << 40);
    __asm__ volatile("ltr %w0; clts" ::"r"(TSS_SEL));
    __asm__ volatile("pushf; andl $~0x4000, (%%esp); popf" ::: "cc");
}

static void task_init(void *code) {
    memset(&tss2, 0, sizeof(tss2));
    tss2.eip = (ulong)code;
    tss2.cs = KCS;
    tss2.ds = tss2.es = tss2.ss = KDS;
    tss2.esp = (ulong)&task_stack[1000];
    tss2.eflags = X86_FL_ONE | X86_FL_DF;
    tss2.eax = 0xa1, tss2.ebx = 0xb1, tss2.ecx = 0xc1, tss2.edx = 0xd1;
    tss2.esi = 0x51, tss2.edi = 0xd2, tss2.ebp = 0xb2;
    tss2.iomap = sizeof(tss2);
    tss2.cr3 = read_cr3();
    gdt_set_sys(TSS2_SEL, (ulong)&tss2, sizeof(tss2) - 1, X86_AR_P | X86_DESC_TSS32);
}

static bool busy(unsigned sel) {
    return gdt[sel >> 3] >> 41 & 1;
}

static void tasks(void) {
    task_init(CODE("nop"));
    regs_kernel();
    in.ax = 0x1111, in.bp = 0x2222, in.flags |= X86_FL_CF;
    void *code = CODE("jmp 0x90, 0\nnop");
    run(code);
    check(trap.vector == DONE && trap.r.ax == 0xa1 && trap.r.bp == 0xb2 &&
              trap.r.si == 0x51 && trap.r.di == 0xd2 && (trap.r.flags & X86_FL_DF) &&
              !(trap.r.flags & X86_FL_NT),
          "jmp to a TSS: %u eax 0x%lx flags 0x%lx", trap.vector, trap.r.ax, trap.r.flags);
    check(tss.eax == 0x1111 && tss.ebp == 0x2222 && tss.eip == (ulong)code + 7 &&
              tss.cs == KCS && (tss.eflags & X86_FL_CF),
          "the old task is saved: eax 0x%x eip +%u", tss.eax, tss.eip - (uint32_t)code);
    check(busy(TSS2_SEL) && !busy(TSS_SEL), "jmp moves the busy bit");
    check(read_cr0() & X86_CR0_TS, "a task switch sets TS");
    first_task();

    task_init(CODE("mov dword ptr [esp], 0x99\nadd eax, 1\niretd\nadd eax, 0x100\nnop"));
    regs_kernel();
    in.ax = 0x1111;
    run(CODE("call 0x90, 0\nmov ebx, 0x3333"));
    check(trap.vector == DONE && trap.r.ax == 0x1111 && trap.r.bx == 0x3333 &&
              !(trap.r.flags & X86_FL_NT),
          "call to a task and iret back: %u eax 0x%lx", trap.vector, trap.r.ax);
    check(tss2.eax == 0xa2 && tss2.link == TSS_SEL && !busy(TSS2_SEL) && busy(TSS_SEL),
          "the inner task: eax 0x%x link 0x%x", tss2.eax, tss2.link);
    check(!(tss2.eflags & X86_FL_NT), "iret clears NT in the old task's image");
    regs_kernel();
    run(CODE("call 0x90, 0\nmov ebx, 0x3334"));
    check(trap.vector == DONE && trap.r.ax == 0x1a2, "again, from where it left: 0x%lx",
          trap.r.ax);
    first_task();

    /* Through gates: a call by a task gate of DPL 3, an interrupt from ring 3. */
    gdt_set(TASK_GATE, (uint64_t)TSS2_SEL << 16 |
                           (uint64_t)(X86_AR_P | X86_AR_DPL | X86_DESC_TASKGATE) << 40);
    task_init(CODE("nop"));
    regs_user();
    run(CODE("call 0xa3, 0"));
    check(trap.vector == DONE && trap.r.ax == 0xa1 && trap.r.cs == KCS &&
              (trap.r.flags & X86_FL_NT) && tss2.link == TSS_SEL && tss.cs == UCS,
          "call by a task gate: %u flags 0x%lx", trap.vector, trap.r.flags);
    check(busy(TSS2_SEL) && busy(TSS_SEL), "both are busy while nested");
    first_task();
    task_init(CODE("iretd"));
    idt_set(0x50, TSS2_SEL, NULL, X86_DESC_TASKGATE, 3);
    regs_user();
    in.cx = 0x4444;
    run(CODE("int 0x50\nmov eax, 0x55"));
    check(trap.vector == DONE && trap.r.ax == 0x55 && trap.r.cx == 0x4444 &&
              trap.r.cs == UCS && trap.r.ss == UDS,
          "int to a task and back: %u eax 0x%lx", trap.vector, trap.r.ax);
    idt_reset(0x50);
    first_task();

    /* An exception with an error code: pushed on the new task's stack. */
    task_init(CODE("pop eax"));
    idt_set(X86_GP, TSS2_SEL, NULL, X86_DESC_TASKGATE, 0);
    regs_user();
    in.ax = 0x3458;
    code = CODE("mov ds, eax");
    run(code);
    idt_reset(X86_GP);
    check(trap.vector == DONE && trap.r.ax == 0x3458 && tss.eip == (ulong)code &&
              trap.r.flags & X86_FL_NT,
          "#GP on a task: %u error 0x%lx eip +%ld", trap.vector, trap.r.ax,
          (long)(tss.eip - (uint32_t)code));
    first_task();

    /* The double fault of a system that lost its stack. */
    task_init(CODE("pop eax"));
    idt_set(X86_DF, TSS2_SEL, NULL, X86_DESC_TASKGATE, 0);
    idt[X86_GP].ar &= 0x7f;
    regs_user();
    code = CODE("hlt");
    run(code);
    check(trap.vector == DONE && trap.r.ax == 0 && trap.r.cs == KCS &&
              trap.r.bx == 0xb1 && tss.eip == (ulong)code,
          "#DF on a task: %u error 0x%lx", trap.vector, trap.r.ax);
    idt_reset(X86_GP);
    idt_reset(X86_DF);
    first_task();

    /* Refusals. */
    regs_kernel();
    gdt[TSS2_SEL >> 3] |= 2ull << 40;
    run(CODE("jmp 0x90, 0"));
    expect("jmp to a busy TSS", X86_GP, TSS2_SEL, 0);
    run(CODE("call 0x90, 0"));
    expect("call of a busy TSS", X86_GP, TSS2_SEL, 0);
    gdt[TSS2_SEL >> 3] &= ~(2ull << 40 | 1ull << 47);
    run(CODE("jmp 0x90, 0"));
    expect("TSS not present", X86_NP, TSS2_SEL, 0);
    gdt_set_sys(TSS2_SEL, (ulong)&tss2, 0x66, X86_AR_P | X86_DESC_TSS32);
    run(CODE("jmp 0x90, 0"));
    expect("TSS too small", X86_TS, TSS2_SEL, 0);
    regs_user();
    gdt_set_sys(TSS2_SEL, (ulong)&tss2, 0x67, X86_AR_P | X86_DESC_TSS32);
    run(CODE("jmp 0x93, 0"));
    expect("TSS of DPL 0 from ring 3", X86_GP, TSS2_SEL, 0);
    tss.link = TSS2_SEL;
    regs_kernel();
    in.flags |= X86_FL_NT;
    run(CODE("iretd"));
    expect("iret with NT to a task that is not busy", X86_TS, TSS2_SEL, 0);
    tss.link = 0;
    run(CODE("iretd"));
    check(trap.vector == X86_TS && (trap.error & ~4ul) == 0,
          "iret with NT, null link: %u", trap.vector);
    first_task();
    /* Bad contents of the new task fault in the new task. */
    task_init(CODE("nop"));
    tss2.ds = KCS32 + 0x1000;
    regs_kernel();
    run(CODE("jmp 0x90, 0"));
    check(trap.vector == X86_TS && trap.error == KCS32 + 0x1000 && trap.r.ip == tss2.eip,
          "bad ds in the new task: %u 0x%lx", trap.vector, trap.error);
    first_task();
}

void guest_main(void) {
    call_gates();
    bad_stacks();
    returns();
    popf_rules();
    io_bitmap();
    fast_calls();
    tasks();
}
