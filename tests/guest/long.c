/*
 * What is long mode's own: SYSCALL and SYSRET, IST, IRETQ, 64-bit call gates, far
 * returns, compatibility mode, FS and GS bases, SWAPGS, the 64-bit forms that zero or
 * keep upper halves. AMD64 APM volume 2, "Long-Mode" sections; volume 3 for each
 * instruction.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

static void syscalls(void) {
    bool amd = cpu_is_amd();
    wrmsr(X86_MSR_STAR, 0x1bull << 48 | 8ull << 32);
    wrmsr(X86_MSR_LSTAR, (ulong)CODE("nop"));
    wrmsr(X86_MSR_CSTAR, (ulong)CODE("nop\nnop"));
    wrmsr(X86_MSR_SFMASK, X86_FL_IF | X86_FL_DF);
    regs_user();
    in.flags |= X86_FL_IF | X86_FL_DF | X86_FL_CF | X86_FL_ID;
    void *code = CODE("syscall");
    run(code);
    check(trap.vector == DONE && trap.r.cs == KCS && trap.r.ss == KDS &&
              trap.r.cx == (ulong)code + 2 && trap.r.sp == in.sp &&
              trap.r.ip == rdmsr(X86_MSR_LSTAR) + 3,
          "syscall: %u cs 0x%lx rcx 0x%lx", trap.vector, trap.r.cs, trap.r.cx);
    check_eq("r11", trap.r.r11, in.flags);
    check_eq("flags masked", trap.r.flags, in.flags & ~(ulong)(X86_FL_IF | X86_FL_DF));
    /* At ring 0 too. */
    regs_kernel();
    run(code);
    check(trap.vector == DONE && trap.r.cs == KCS, "syscall at ring 0");
    /* SYSRET to 64-bit and to compatibility code. */
    regs_kernel();
    in.cx = (ulong)CODE("mov rax, 0x100000007");
    in.r11 = X86_FL_IF | X86_FL_CF | X86_FL_ONE | X86_FL_RF | X86_FL_VM;
    RUN("sysretq");
    check(trap.vector == DONE && trap.r.cs == UCS64 && trap.r.ss == UDS &&
              trap.r.ax == 0x100000007 &&
              trap.r.flags == (X86_FL_IF | X86_FL_CF | X86_FL_ONE) && trap.r.sp == in.sp,
          "sysretq: %u cs 0x%lx ss 0x%lx flags 0x%lx", trap.vector, trap.r.cs, trap.r.ss,
          trap.r.flags);
    in.cx = (ulong)CODE32("mov eax, 7\npush 5\npop ebx");
    RUN("sysretd");
    check(trap.vector == DONE && trap.r.cs == UCS32 && trap.r.ax == 7 && trap.r.bx == 5,
          "sysretl: %u cs 0x%lx", trap.vector, trap.r.cs);
    if (!amd) {
        in.cx = 1ul << 47;
        RUN("sysretq");
        expect("sysretq to a non-canonical address", X86_GP, 0, 0);
    }
    TRY3("sysretq");
    expect("sysret at ring 3", X86_GP, 0, 0);
    wrmsr(X86_MSR_EFER, rdmsr(X86_MSR_EFER) & ~1ull);
    TRY3("syscall");
    expect("syscall without SCE", X86_UD, 0, 0);
    TRY0("sysretq");
    expect("sysret without SCE", X86_UD, 0, 0);
    wrmsr(X86_MSR_EFER, rdmsr(X86_MSR_EFER) | 1);
    /* From compatibility mode: CSTAR on AMD, #UD on Intel. SYSENTER the other way. */
    regs_user();
    in.cs = UCS32;
    run(CODE32("syscall"));
    if (amd)
        check(trap.vector == DONE && trap.r.cs == KCS &&
                  trap.r.ip == rdmsr(X86_MSR_CSTAR) + 4,
              "syscall of 32-bit code: %u", trap.vector);
    else
        expect("syscall of 32-bit code", X86_UD, 0, 0);
    wrmsr(X86_MSR_SYSENTER_CS, KCS);
    wrmsr(X86_MSR_SYSENTER_EIP, (ulong)CODE("nop"));
    wrmsr(X86_MSR_SYSENTER_ESP, (ulong)run_stack + 8192);
    TRY3("sysenter");
    if (amd)
        expect("sysenter in long mode", X86_UD, 0, 0);
    else
        check(trap.vector == DONE && trap.r.cs == KCS &&
                  trap.r.sp == (ulong)run_stack + 8192,
              "sysenter in long mode: %u", trap.vector);
    /* Stepping over SYSCALL with SFMASK clearing TF: the step comes at the target. */
    wrmsr(X86_MSR_SFMASK, X86_FL_TF);
    regs_user();
    in.flags |= X86_FL_TF;
    hooks[X86_DB] = NULL;
    RUN("syscall");
    check(trap.vector == X86_DB || trap.vector == DONE, "syscall with TF: %u",
          trap.vector);
    wrmsr(X86_MSR_SFMASK, 0);
}

static void ist(void) {
    ulong top = (ulong)ist_stack + sizeof(ist_stack);
    idt[0x50].ist = 1;
    TRY0("int 0x50");
    check(trap.vector == 0x50 && trap.entry_sp == top - 40, "IST at ring 0: sp 0x%lx",
          trap.entry_sp);
    check_eq("saved rsp", trap.r.sp, in.sp);
    check_eq("saved ss", trap.r.ss, KDS);
    TRY3("int 0x50");
    check(trap.vector == 0x50 && trap.entry_sp == top - 40, "IST at ring 3: sp 0x%lx",
          trap.entry_sp);
    idt[0x50].ist = 0;
    tss.ist[1] = top - 13; /* aligned down to 16 */
    idt[0x50].ist = 2;
    TRY0("int 0x50");
    check(trap.entry_sp == ((top - 13) & ~15ul) - 40, "the new stack is aligned: 0x%lx",
          trap.entry_sp);
    tss.ist[1] = 1ul << 47;
    TRY0("int 0x50");
    check(trap.vector == X86_SS && trap.error == 0, "non-canonical IST: %u", trap.vector);
    idt_reset(0x50);
    /* Without a switch of stacks the frame is aligned too. */
    for (unsigned i = 0; i < 16; i++) {
        regs_kernel();
        in.sp -= i;
        RUN("int 0x50");
        check(trap.entry_sp == (in.sp & ~15ul) - 40 && trap.r.sp == in.sp,
              "frame aligned from rsp - %u: 0x%lx", i, trap.entry_sp);
    }
    TRY3("int 0x50");
    check(trap.entry_sp == (ulong)trap_stack + sizeof(trap_stack) - 40, "rsp0");
    /* An interrupt that changes the ring loads a null ss. */
    idt_set(0x50, KCS, CODE("mov eax, ss"), X86_DESC_INTGATE32, 3);
    TRY3("int 0x50");
    check_eq("ss after a change of ring", trap.r.ax & 0xffff, 0);
    TRY0("int 0x50");
    check_eq("ss without one", trap.r.ax & 0xffff, KDS);
    idt_reset(0x50);
    /* IDT gates of long mode: 16-bit types and task gates are bad. */
    idt_set(0x50, KCS, idt_stub(0x50), X86_DESC_TASKGATE, 3);
    TRY3("int 0x50");
    expect("task gate", X86_GP, 0x50 * 8 + 2, 0);
    idt_set(0x50, KCS32, idt_stub(0x50), X86_DESC_INTGATE32, 3);
    TRY3("int 0x50");
    expect("gate to 32-bit code", X86_GP, KCS32, 0);
    idt_reset(0x50);
    idt[0x50].off2 = 0x8000;
    TRY3("int 0x50");
    check(trap.vector == X86_GP || trap.vector == X86_DF, "non-canonical target: %u",
          trap.vector);
    idt_reset(0x50);
}

static void returns(void) {
    regs_kernel();
    in.ax = (ulong)CODE("nop");
    in.bx = (ulong)user_stack + 4096;
    RUN("push 0x23\npush rbx\npush 0x202\npush 0x2b\npush rax\niretq");
    check(trap.vector == DONE && trap.r.cs == UCS64 && trap.r.sp == in.bx, "iretq: %u",
          trap.vector);
    RUN("push 0x10\npush rbx\npush 0x2\npush 8\npush rax\niretq");
    check(trap.vector == DONE && trap.r.sp == in.bx && trap.r.cs == KCS,
          "iretq at the same ring pops rsp: 0x%lx", trap.r.sp);
    RUN("push 0\npush rbx\npush 0x2\npush 8\npush rax\niretq");
    check(trap.vector == DONE && trap.r.ss == 0, "iretq to ring 0 with a null ss: %u",
          trap.vector);
    RUN("push 0\npush rbx\npush 0x202\npush 0x2b\npush rax\niretq");
    expect("iretq to ring 3 with a null ss", X86_GP, 0, ANY);
    RUN("push 0x23\npush rbx\npush 0x202\npush 0x2b\nbts rax, 47\npush rax\niretq");
    check(trap.vector == X86_GP, "iretq to a non-canonical rip: %u", trap.vector);
    RUN("push 0x23\npush rbx\npush 0x4202\npush 0x2b\npush rax\niretq");
    check(trap.vector == DONE && (trap.r.flags & X86_FL_NT), "iretq may load NT: %u",
          trap.vector);
    in.flags |= X86_FL_NT;
    RUN("push 0x23\npush rbx\npush 0x202\npush 0x2b\npush rax\niretq");
    expect("iretq with NT set", X86_GP, 0, ANY);
    in.flags &= ~(ulong)X86_FL_NT;
    /* To compatibility mode: esp is 32 bits. */
    in.ax = (ulong)CODE32("mov eax, esp\nmov ecx, 0x80000000\nadd ecx, ecx");
    in.cx = ~0ul;
    RUN("push 0x23\npush rbx\npush 0x202\npush 0x1b\npush rax\niretq");
    check(trap.vector == DONE && trap.r.cs == UCS32 && trap.r.ax == in.bx &&
              trap.r.cx == 0,
          "iretq to compatibility mode: %u eax 0x%lx ecx 0x%lx", trap.vector, trap.r.ax,
          trap.r.cx);
    in.ax = (ulong)CODE("nop");
    RUN("push 0x23\npush rbx\npush 0x2b\npush rax\nretfq");
    check(trap.vector == DONE && trap.r.cs == UCS64 && trap.r.sp == in.bx,
          "retfq to ring 3: %u", trap.vector);
    RUN("push 8\npush rax\nretfq");
    check(trap.vector == DONE && trap.r.cs == KCS, "retfq: %u", trap.vector);
    /* Far call through memory, m16:64 and m16:32. */
    static struct {
        uint64_t off;
        uint16_t sel;
    } __attribute__((packed)) far;
    far.off = (ulong)CODE("nop");
    far.sel = UCS64;
    regs_user();
    in.bx = (ulong)&far;
    RUN(".byte 0x48, 0xff, 0x1b"); /* call far m16:64 on Intel, m16:32 on AMD */
    if (!cpu_is_amd())
        check(trap.vector == DONE && trap.r.sp == in.sp - 16, "far call m16:64: %u",
              trap.vector);
    static struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) far32;
    far32.off = (uint32_t)far.off;
    far32.sel = UCS64;
    in.bx = (ulong)&far32;
    RUN("call fword ptr [rbx]");
    check(trap.vector == DONE && trap.r.cs == UCS64 && trap.r.sp == in.sp - 8,
          "far call m16:32: %u sp -%lu", trap.vector, in.sp - trap.r.sp);
    far32.off = (uint32_t)(ulong)CODE32("mov eax, 0x1234");
    far32.sel = UCS32;
    RUN("jmp fword ptr [rbx]");
    check(trap.vector == DONE && trap.r.cs == UCS32 && trap.r.ax == 0x1234,
          "far jmp to compatibility mode: %u", trap.vector);
    far32.sel = UDS;
    RUN("jmp fword ptr [rbx]");
    expect("far jmp to data", X86_GP, UDS & ~3, 0);
    gdt_set(FREE_SEL, gdt[UCS64 >> 3] | 1ull << 54); /* L and D both set */
    far32.sel = FREE_SEL | 3;
    RUN("jmp fword ptr [rbx]");
    expect("far jmp to a cs with L and D", X86_GP, FREE_SEL, 0);
}

static void call_gates(void) {
    unsigned sel = FREE_SEL | 3;
    static struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) far;
    far.sel = (uint16_t)sel;
    gdt_set_call_gate(sel, KCS, CODE("nop"), 3, 0);
    regs_user();
    in.bx = (ulong)&far;
    RUN("call fword ptr [rbx]");
    uint64_t *s = (uint64_t *)trap.r.sp;
    check(trap.vector == DONE && trap.r.cs == KCS && trap.r.ss == 0 &&
              (ulong)s == (ulong)trap_stack + sizeof(trap_stack) - 32,
          "call gate: %u cs 0x%lx ss 0x%lx sp 0x%lx", trap.vector, trap.r.cs, trap.r.ss,
          trap.r.sp);
    if (trap.vector == DONE && trap.r.cs == KCS)
        check(s[1] == UCS64 && s[2] == in.sp && s[3] == UDS, "what it pushed");
    gdt_set_call_gate(sel, KCS, CODE("mov eax, 0x77\nretfq"), 3, 0);
    RUN("call fword ptr [rbx]\nnop");
    check(trap.vector == DONE && trap.r.cs == UCS64 && trap.r.ax == 0x77 &&
              trap.r.sp == in.sp,
          "and back: %u", trap.vector);
    gdt_set_call_gate(sel, KCS32, CODE("nop"), 3, 0);
    RUN("call fword ptr [rbx]");
    expect("gate to 32-bit code", X86_GP, KCS32, 0);
    gdt_set_call_gate(sel, KCS, CODE("nop"), 0, 0);
    RUN("call fword ptr [rbx]");
    expect("gate of DPL 0", X86_GP, sel & ~3, 0);
    gdt_set_call_gate(sel, KCS, CODE("nop"), 3, 0);
    gdt[(sel >> 3) + 1] |= 12ull << 40; /* the upper half must have type 0 */
    RUN("call fword ptr [rbx]");
    expect("gate with a bad upper half", X86_GP, sel & ~3, 0);
    gdt_set(sel, 0);
    gdt[(sel >> 3) + 1] = 0;
    gdt_set_sys(0x90, (ulong)&tss, 0x67, X86_AR_P | X86_DESC_TSS32);
    far.sel = 0x90;
    regs_kernel();
    in.bx = (ulong)&far;
    RUN("call fword ptr [rbx]");
    expect("no task switch in long mode", X86_GP, 0x90, 0);
}

static void bases(void) {
    static uint64_t data[4] = {0x1111, 0x2222, 0x3333, 0x4444};
    wrmsr(X86_MSR_FS_BASE, (ulong)data);
    wrmsr(X86_MSR_GS_BASE, (ulong)data + 8);
    wrmsr(X86_MSR_KERNEL_GS_BASE, (ulong)data + 16);
    TRY3("mov rax, fs:[0]\nmov rbx, gs:[0]\nmov rcx, fs:[8]");
    check(trap.r.ax == 0x1111 && trap.r.bx == 0x2222 && trap.r.cx == 0x2222,
          "fs and gs bases: 0x%lx 0x%lx", trap.r.ax, trap.r.bx);
    TRY0("swapgs\nmov rbx, gs:[0]\nswapgs\nmov rcx, gs:[0]");
    check(trap.r.bx == 0x3333 && trap.r.cx == 0x2222, "swapgs: 0x%lx 0x%lx", trap.r.bx,
          trap.r.cx);
    TRY3("swapgs");
    expect("swapgs at ring 3", X86_GP, 0, 0);
    TRY3("mov eax, 0x23\nmov gs, eax");
    check_eq("loading gs loads the base", rdmsr(X86_MSR_GS_BASE), 0);
    TRY3("lea rax, fs:[0x10]");
    check_eq("lea adds no base", trap.r.ax, 0x10);
    write_cr4(read_cr4() & ~(ulong)X86_CR4_FSGSBASE);
    TRY3("rdfsbase rax");
    expect("rdfsbase without FSGSBASE", X86_UD, 0, 0);
    if (cpu_has(7, REG_EBX, 0)) {
        write_cr4(read_cr4() | X86_CR4_FSGSBASE);
        regs_user();
        in.ax = (ulong)data + 24;
        RUN("wrgsbase rax\nmov rcx, gs:[0]\nrdgsbase rbx\nwrfsbase eax\nrdfsbase edx");
        check(trap.vector == DONE && trap.r.cx == 0x4444 && trap.r.bx == in.ax &&
                  trap.r.dx == (uint32_t)in.ax,
              "wrgsbase: %u", trap.vector);
        check_eq("the MSR", rdmsr(X86_MSR_GS_BASE), in.ax);
        in.ax = 1ul << 47;
        RUN("wrfsbase rax");
        expect("wrfsbase non-canonical", X86_GP, 0, 0);
        in.cs = UCS32;
        run(CODE32(".byte 0xf3, 0x0f, 0xae, 0xc0"));
        expect("rdfsbase in compatibility mode", X86_UD, 0, 0);
        write_cr4(read_cr4() & ~(ulong)X86_CR4_FSGSBASE);
    }
    /* A descriptor's base counts for fs and gs, not for ds, es, ss. */
    gdt_set(FREE_SEL,
            seg_desc((uint32_t)(ulong)data, 0xfff,
                     X86_AR_P | X86_AR_S | X86_AR_DPL | X86_AR_WRITE | X86_AR_DB));
    regs_user();
    in.ax = FREE_SEL | 3;
    in.bx = (ulong)data;
    RUN("mov fs, eax\nmov es, eax\nmov rcx, fs:[8]\nmov rdx, es:[rbx + 16]");
    check(trap.vector == DONE && trap.r.cx == 0x2222 && trap.r.dx == 0x3333,
          "bases of descriptors: %u 0x%lx 0x%lx", trap.vector, trap.r.cx, trap.r.dx);
    RUN("mov fs, eax\nmov ecx, fs:[0x2000]");
    check(trap.vector == DONE, "no limits in 64-bit mode: %u", trap.vector);
    RUN("mov eax, 3\nmov ds, eax\nmov es, eax\nmov rcx, [rbx]");
    check(trap.vector == DONE && trap.r.cx == 0x1111, "null ds is fine: %u", trap.vector);
    /* In compatibility mode both are back. */
    if (!cpu_is_tcg()) {
        in.cs = UCS32;
        run(CODE32("mov es, eax\nmov ecx, es:[8]\nmov edx, es:[0x2000]"));
        check(trap.vector == X86_GP && trap.r.cx == 0x2222,
              "limits in compatibility mode: %u", trap.vector);
        in.ax = 0;
        run(CODE32("mov es, eax\nmov ecx, es:[8]"));
        expect("null es in compatibility mode", X86_GP, 0, ANY);
    }
    wrmsr(X86_MSR_FS_BASE, 0);
    wrmsr(X86_MSR_GS_BASE, 0);
}

static void forms(void) {
    regs_user();
    in.ax = in.bx = in.cx = in.dx = in.r8 = in.r15 = ~0ul;
    RUN("mov eax, eax\nmov bl, 1\nmov cx, 2\nxor edx, edx\nadd r8d, 2\nmov r15b, 3");
    check(trap.r.ax == 0xffffffff && trap.r.bx == 0xffffffffffffff01 &&
              trap.r.cx == 0xffffffffffff0002 && trap.r.dx == 0 && trap.r.r8 == 1 &&
              trap.r.r15 == 0xffffffffffffff03,
          "32-bit results zero the upper half, 8 and 16 keep it");
    in.ax = 0x1234567880000000ul;
    RUN("movsxd rcx, eax\ncdqe\nmov rdx, rax\ncqo");
    check(trap.r.cx == 0xffffffff80000000ul && trap.r.ax == 0xffffffff80000000ul &&
              trap.r.dx == ~0ul,
          "movsxd, cdqe, cqo");
    in.cx = ~0ul;
    RUN("xor eax, eax\ncmp eax, 1\ncmovz ecx, eax");
    check_eq("cmov that does not move zeroes the upper half", trap.r.cx, 0xffffffff);
    in.si = 0x1111;
    RUN("mov sil, 7\nmov r9b, sil\nmovzx edx, sil");
    check(trap.r.si == 0x1107 && trap.r.dx == 7, "sil: 0x%lx", trap.r.si);
    RUN("push 0x7fffffff\npop rax\npush -1\npop rbx\npushw 0x1234\nmov rcx, rsp\npopw "
        "dx");
    check(trap.r.ax == 0x7fffffff && trap.r.bx == ~0ul && trap.r.cx == in.sp - 2 &&
              (trap.r.dx & 0xffff) == 0x1234,
          "push forms");
    static uint64_t word = 0x8877665544332211ul;
    in.bx = (ulong)&word;
    in.di = 0x100000000ul + in.bx;
    RUN("mov eax, [edi]");
    check(trap.vector == DONE && trap.r.ax == 0x44332211,
          "a 32-bit address drops the upper half: %u", trap.vector);
    RUN("movabs al, [0x3f8]\nlea rcx, [rip + 0]\n1:");
    check(trap.vector == DONE, "movabs and rip-relative");
    RUN("bswap rbx\nmov rcx, -1\nshl rcx, 65\nbt rcx, 0\nsetc dl");
    check(trap.r.cx == (ulong)-2 && (trap.r.dx & 1) == 0, "shift counts of 6 bits");
    static uint64_t pair[2] __attribute__((aligned(16))) = {1, 2};
    in.si = (ulong)pair;
    in.ax = 1, in.dx = 2, in.bx = 3, in.cx = 4;
    RUN("lock cmpxchg16b [rsi]");
    check(trap.vector == DONE && pair[0] == 3 && pair[1] == 4 &&
              (trap.r.flags & X86_FL_ZF),
          "cmpxchg16b: %u", trap.vector);
    RUN("lock cmpxchg16b [rsi]");
    check(trap.r.ax == 3 && trap.r.dx == 4 && !(trap.r.flags & X86_FL_ZF),
          "cmpxchg16b that fails");
    in.si += 8;
    RUN("lock cmpxchg16b [rsi]");
    expect("cmpxchg16b unaligned", X86_GP, 0, 0);
    in.bx = 0;
    RUN("jrcxz 1f\nmov ebx, 1\n1:\nxor ecx, ecx\nbts rcx, 32\njecxz 2f\nmov ebx, 2\n2:");
    check_eq("jrcxz and jecxz", trap.r.bx, 1);
}

/* Leaving long mode is possible only by way of compatibility mode. */
static void leave(void) {
    ulong cr0 = read_cr0();
    regs_kernel();
    in.cs = KCS32;
    in.ax = (uint32_t)(cr0 & ~X86_CR0_PG);
    in.dx = (uint32_t)cr0;
    run(CODE32("mov cr0, eax\nmov ecx, 0xc0000080\nmov esi, edx\nrdmsr\nmov ebx, eax\n"
               "mov edx, esi\nmov cr0, edx\nrdmsr\nmov ebp, eax"));
    check(trap.vector == DONE && !(trap.r.bx & X86_EFER_LMA) &&
              (trap.r.bp & X86_EFER_LMA) && (trap.r.bx & X86_EFER_LME),
          "paging off and on from compatibility mode: %u EFER 0x%lx 0x%lx", trap.vector,
          trap.r.bx, trap.r.bp);
}

void guest_main(void) {
    syscalls();
    ist();
    returns();
    call_gates();
    bases();
    forms();
    leave();
}
