/*
 * Real mode and virtual-8086 mode.
 * AMD64 APM volume 2, "Real Mode" and "Virtual-8086 Mode".
 */
#include "lib/realmode.h"

const char guest_name[] = GUEST_NAME;

static void ends(const char *what, unsigned vector, long ip) {
    check(trap.vector == vector && (ip == ANY || trap.r.ip == (ulong)ip) &&
              trap.r.cs == in.cs,
          "real: %s: vector %u ip 0x%lx, want %u 0x%lx", what, trap.vector, trap.r.ip,
          vector, (ulong)ip);
}

static void real_exceptions(void) {
    regs_real();
    REAL("nop");
    ends("nop", DONE, 3);
    check_eq("sp", trap.r.sp, in.sp);
    REAL("div cl");
    ends("div by 0", X86_DE, 0);
    REAL("int3");
    ends("int3", X86_BP, 1);
    REAL("int 0x42");
    ends("int 42", 0x42, 2);
    in.flags |= X86_FL_OF;
    REAL("into");
    ends("into", X86_OF, 1);
    in.flags = X86_FL_ONE;
    REAL(
        "mov word ptr [0x600], 1\nmov word ptr [0x602], 5\nmov ax, 6\nbound ax, [0x600]");
    ends("bound", X86_BR, 15);
    REAL("ud2");
    ends("ud2", X86_UD, 0);
    REAL("sldt ax");
    ends("sldt", X86_UD, 0);
    REAL("lldt ax");
    ends("lldt", X86_UD, 0);
    REAL("str ax");
    ends("str", X86_UD, 0);
    REAL("lar ax, bx");
    ends("lar", X86_UD, 0);
    REAL("verr ax");
    ends("verr", X86_UD, 0);
    REAL("arpl ax, bx");
    ends("arpl", X86_UD, 0);
    REAL(".byte 0xf0, 0x90");
    ends("lock nop", X86_UD, 0);
    REAL(".byte 0xc4, 0xe2, 0x70, 0xf2, 0xd8");
    ends("andn", X86_UD, 0);
    REAL("smsw ax");
    ends("smsw", DONE, ANY);
    check_eq("PE is clear", trap.r.ax & 1, 0);
    in.bx = 0xffff;
    REAL("mov ax, [bx]");
    ends("word at ffff", X86_GP, 0);
    REAL("mov al, [bx]");
    ends("byte at ffff", DONE, ANY);
    in.bx = 0xfffd;
    REAL("mov eax, [bx]");
    ends("dword at fffd", X86_GP, 0);
    in.bp = 0xffff;
    REAL("mov ax, [bp]");
    ends("word at ss:ffff", X86_SS, 0);
    REAL("mov ebx, 0x10000\nmov al, [ebx]");
    ends("beyond 64 KiB", X86_GP, 6);
    /* The limit is cached: fs keeps the 4 GiB that it had in protected mode. */
    static uint32_t far_word = 0x1a2b3c4d;
    in.bx = (ulong)&far_word;
    REAL("mov eax, fs:[ebx]");
    ends("beyond 64 KiB by a segment with a larger limit", DONE, ANY);
    check_eq("unreal", trap.r.ax, 0x1a2b3c4d);
    in.bx = 0x2000;
    real_idt_limit = 0xff;
    REAL("int 0x50");
    ends("beyond the interrupt table", X86_GP, 0);
    real_idt_limit = 0x3ff;
    in.flags |= X86_FL_TF;
    REAL("nop");
    ends("single-step", X86_DB, 1);
    in.flags = X86_FL_ONE | X86_FL_IF | X86_FL_CF;
    REAL("nop");
    check_eq("flags pushed", trap.r.flags, X86_FL_ONE | X86_FL_IF | X86_FL_CF);
    in.flags = X86_FL_ONE;
}

static void real_work(void) {
    regs_real();
    in.ax = 0x1234;
    in.flags = X86_FL_ONE;
    REAL("mov ax, 0x1234\nmov es, ax\nmov word ptr es:[0x10], 0xbeef\nmov bx, 0x1235\n"
         "mov fs, bx\nmov cx, fs:[0]");
    ends("segments", DONE, ANY);
    check_eq("paragraphs", trap.r.cx & 0xffff, 0xbeef);
    check_eq("linear", *(volatile uint16_t *)0x12350, 0xbeef);
    /* The first 64 KiB less 16 bytes above 1 MiB: the A20 line is open. */
    REAL("mov ax, 0xffff\nmov gs, ax\nmov al, gs:[0x10]");
    check_eq("ffff:10 is 100000", trap.r.ax & 0xff, *(volatile uint8_t *)0x100000);
    REAL("push 0x3ed7\npopf\npushf\npop ax\npush 2\npopf");
    ends("popf", DONE, ANY);
    check_eq("popf sets all, IOPL too", trap.r.ax & 0x3ed7, 0x3ed7);
    REAL("call 1f\nmov bx, 2\njmp 2f\n1: mov ax, 1\nret\n2:");
    check(trap.vector == DONE && trap.r.ax == 1 && trap.r.bx == 2, "near call");
    REAL("mov bp, sp\npush cs\npush offset 1f - 888b\nretf\nud2\n1: sub bp, sp");
    check(trap.vector == DONE && trap.r.bp == 0, "retf");
    REAL("pushf\npush cs\npush offset 1f - 888b\niret\nud2\n1: mov ax, 3");
    check(trap.vector == DONE && trap.r.ax == 3, "iret");
    REAL(".byte 0x9a\n.word 1f - 888b, 0x300\njmp 2f\nud2\n1: mov ax, cs\nretf\n2:");
    check(trap.vector == DONE && trap.r.ax == 0x300, "far call: 0x%lx", trap.r.ax);
    REAL("mov word ptr [0x600], offset 1f - 888b\nmov word ptr [0x602], 0x300\n"
         "jmp dword ptr [0x600]\nud2\n1: mov ax, 4");
    check(trap.vector == DONE && trap.r.ax == 4, "far jmp by memory: %u", trap.vector);
    REAL("push 0x11223344\npop ax\npop bx\npushd 0x55667788\npop cx\npop dx");
    ends("pushes of both sizes", DONE, ANY);
    check_eq("cx", trap.r.cx & 0xffff, 0x7788);
    check_eq("dx", trap.r.dx & 0xffff, 0x5566);
    REAL("mov ax, 0x1234\npush ax\nmov bp, sp\nenter 4, 0\nmov cx, bp\nleave\n"
         "sub bp, sp\npop bx");
    check(trap.vector == DONE && trap.r.bp == 0 && trap.r.bx == 0x1234,
          "enter and leave");
    REAL("xor sp, sp\nmov ax, 0x4321\npush ax\nmov bx, sp\npop cx\nmov dx, sp\n"
         "mov sp, 0x8000");
    check(trap.r.bx == 0xfffe && trap.r.cx == 0x4321 && trap.r.dx == 0, "sp wraps");
    REAL("mov ax, 0x2800\nmov es, ax\nmov di, 0xfffe\nmov cx, 4\ncld\nmov al, 0x5a\n"
         "rep stosb");
    ends("stosb wraps", DONE, ANY);
    check(trap.r.di == 2 && *(volatile uint8_t *)0x37fff == 0x5a &&
              *(volatile uint8_t *)0x28001 == 0x5a,
          "di 0x%lx", trap.r.di);
    REAL(
        "mov ecx, 0x10002\n1: loop 1b\nmov edx, ecx\nmov ecx, 3\n2: inc eax\naddr32 loop "
        "2b");
    ends("loops", DONE, ANY);
    check_eq("loop counts in cx", trap.r.dx, 0x10000);
    /* The decimal instructions, with what the manuals' pseudocode gives. */
    in.ax = 0x79;
    REAL("add al, 0x35\ndaa");
    check(trap.r.ax == 0x14 && (trap.r.flags & 0x11) == 0x11, "daa: 0x%lx", trap.r.ax);
    in.ax = 0x35;
    REAL("sub al, 0x47\ndas");
    check(trap.r.ax == 0x88 && (trap.r.flags & 0x11) == 0x11, "das: 0x%lx", trap.r.ax);
    in.ax = 0x0f;
    REAL("add al, 0\naaa");
    check(trap.r.ax == 0x105 && (trap.r.flags & 0x11) == 0x11, "aaa: 0x%lx", trap.r.ax);
    in.ax = 0x203;
    REAL("sub al, 5\naas");
    check(trap.r.ax == 0x108 && (trap.r.flags & 0x11) == 0x11, "aas: 0x%lx", trap.r.ax);
    in.ax = 0x3f;
    REAL("aam");
    check_eq("aam", trap.r.ax, 0x603);
    in.ax = 0x603;
    REAL("aad");
    check_eq("aad", trap.r.ax, 0x3f);
    in.ax = 0x7b;
    REAL("aam 16");
    check_eq("aam 16", trap.r.ax, 0x70b);
    in.ax = 5, in.bx = 0x300;
    ((volatile uint8_t *)0x300)[5] = 0x99;
    REAL("xlatb");
    check_eq("xlat", trap.r.ax, 0x99);
    in.flags |= X86_FL_CF;
    REAL(".byte 0xd6");
    check_eq("salc", trap.r.ax & 0xff, 0xff);
    in.flags = X86_FL_ONE;
    /* 16-bit LGDT and LIDT load 24 bits of the base. */
    REAL("sidt [0x600]\nmov eax, [0x602]");
    check_eq("sidt", trap.r.ax, 0);
    REAL("sgdt [0x600]\nmov eax, [0x602]\ndata32 lgdt [0x600]");
    check_eq("sgdt", trap.r.ax, (ulong)gdt);
    /* CPL is 0: everything privileged works. */
    REAL("mov eax, cr0\nmov cr0, eax\nmov ecx, 0x174\nrdmsr\ncli\nmov eax, cr4\n"
         "in al, 0x80\ninvd");
    ends("privileged instructions", DONE, ANY);
}

/* --- virtual-8086 mode --- */

static void v86_ends(const char *what, unsigned vector, long error, long ip) {
    check(trap.vector == vector && (error == ANY || trap.error == (ulong)error) &&
              (ip == ANY || trap.r.ip == (ulong)ip) && (trap.r.flags & X86_FL_VM) &&
              trap.r.cs == in.cs,
          "v86: %s: vector %u error 0x%lx ip 0x%lx flags 0x%lx", what, trap.vector,
          trap.error, trap.r.ip, trap.r.flags);
}

static void v86(void) {
    for (ulong iopl = 0; iopl < 4; iopl += 3) {
        regs_real();
        in.flags |= X86_FL_VM | iopl << 12;
        in.ds = 0x1111, in.es = 0x2222, in.fs = 0x3333, in.gs = 0x4444;
        in.ax = 0x5555;
        V86("mov bx, ds\nmov cx, es\nud2");
        v86_ends("ud2", X86_UD, 0, 4);
        check(trap.r.bx == 0x1111 && trap.r.cx == 0x2222 && trap.r.ds == 0x1111 &&
                  trap.r.es == 0x2222 && trap.r.fs == 0x3333 && trap.r.gs == 0x4444 &&
                  trap.r.ss == STACK_SEG && trap.r.sp == in.sp,
              "v86: segments saved: ds 0x%lx gs 0x%lx ss 0x%lx", trap.r.ds, trap.r.gs,
              trap.r.ss);
        check(!(trap.r.flags & X86_FL_IOPL) == !iopl, "IOPL saved");
        static const struct {
            const char *what;
            uint8_t len, b[3];
        } sensitive[] = {
            {"cli", 1, {0xfa}},          {"sti", 1, {0xfb}},  {"pushf", 1, {0x9c}},
            {"popf", 1, {0x9d}},         {"iret", 1, {0xcf}}, {"int 42", 2, {0xcd, 0x42}},
            {"pushfd", 2, {0x66, 0x9c}},
        };
        for (unsigned i = 0; i < COUNT(sensitive) && !iopl; i++) {
            static uint32_t buffer[4];
            buffer[0] = sensitive[i].len;
            memcpy(buffer + 1, sensitive[i].b, 3);
            run_v86(buffer + 1);
            v86_ends(sensitive[i].what, X86_GP, 0, 0);
        }
        if (iopl) {
            V86("cli\npushf\npop ax\npush 0x2\npopf\nint 0x42");
            v86_ends("int 42 with IOPL 3", 0x42, 0, ANY);
            V86("push 0xd7\npush cs\npush offset 1f - 888b\niret\nud2\n1: hlt");
            v86_ends("iret stays in v86", X86_GP, 0, ANY);
            check_eq("its flags", trap.r.flags & 0xfd7, 0xd7);
            idt_set(0x42, KCS, idt_stub(0x42), X86_DESC_INTGATE32, 0);
            V86("int 0x42");
            v86_ends("int to a gate of DPL 0", X86_GP, 0x42 * 8 + 2, 0);
            idt_reset(0x42);
            idt_set(0x42, UCS & ~3, idt_stub(0x42), X86_DESC_INTGATE32, 3);
            V86("int 0x42");
            v86_ends("gate that does not lead to ring 0", X86_GP, UCS & ~3, 0);
            idt_reset(0x42);
        }
        V86("hlt");
        v86_ends("hlt", X86_GP, 0, 0);
        V86("mov eax, cr0");
        v86_ends("mov from cr0", X86_GP, 0, 0);
        V86("int3");
        v86_ends("int3 needs no IOPL", X86_BP, 0, 1);
        V86("sldt ax");
        v86_ends("sldt", X86_UD, 0, 0);
        V86("arpl ax, ax");
        v86_ends("arpl", X86_UD, 0, 0);
        V86(".byte 0xc4, 0xe3, 0x7b, 0xf0, 0xc1, 0x05");
        v86_ends("rorx", X86_UD, 0, 0);
        V86("in al, 0x80");
        v86_ends("ports go by the bitmap, not by IOPL", X86_GP, 0, 0);
        in.bx = 0xffff;
        V86("mov ax, [bx]");
        v86_ends("limit", X86_GP, 0, 0);
        in.bp = 0xffff;
        V86("mov ax, [bp]");
        v86_ends("stack limit", X86_SS, 0, 0);
        V86("div cl");
        v86_ends("div by 0", X86_DE, 0, 0);
        V86("mov ax, 0x1234\nmov es, ax\nmov al, es:[0x10]\nmov ax, 0xffff\nmov ds, ax\n"
            "mov al, [0x10]\nud2");
        v86_ends("segment loads", X86_UD, 0, ANY);
        check_eq("ds", trap.r.ds, 0xffff);
        in.flags |= X86_FL_TF;
        V86("nop\nnop");
        v86_ends("single-step", X86_DB, 0, 1);
    }
    uint8_t *map = (uint8_t *)&tss + sizeof(tss);
    map[0x80 / 8] = 0xfe;
    regs_real();
    in.flags |= X86_FL_VM;
    V86("in al, 0x80\nud2");
    v86_ends("a port of the bitmap", X86_UD, 0, 2);
    map[0x80 / 8] = 0xff;
    /* An interrupt taken in v86 nulls the segment registers for the handler. */
    idt_set(0x43, KCS, CODE("mov eax, ds\nmov ebx, es\nmov ecx, gs"), X86_DESC_INTGATE32,
            3);
    regs_real();
    in.flags |= X86_FL_VM | X86_FL_IOPL;
    in.ds = in.es = in.gs = 0x1111;
    V86("int 0x43");
    check(trap.vector == DONE && (trap.r.ax & 0xffff) == 0 && (trap.r.bx & 0xffff) == 0 &&
              (trap.r.cx & 0xffff) == 0 && trap.r.cs == KCS,
          "segment registers are null in the handler");
    idt_reset(0x43);
}

void guest_main(void) {
    real_init();
    real_exceptions();
    real_work();
    v86();
}
