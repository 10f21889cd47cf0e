/*
 * Segmentation of protected mode: limits up and down, types, null selectors, what may be
 * loaded where, 16-bit segments, and the instructions that look at descriptors.
 * AMD64 APM volume 2, "Segment Protection"; volume 3, LAR to VERW.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define SEL (FREE_SEL | 3)
#define SEL2 (0x78 | 3)
#define DATA3 (X86_AR_P | X86_AR_S | X86_AR_DPL)
#define CODE3 (DATA3 | X86_AR_CODE | X86_AR_DB)

static uint8_t area[0x20000] __attribute__((aligned(4096)));

static void es_limits(void) {
    static const struct {
        const char *what;
        uint32_t limit, ar, offset;
        uint8_t size;
        bool write, bad;
    } rows[] = {
        {"last byte", 0xfff, X86_AR_WRITE, 0xfff, 1, false, false},
        {"behind the last byte", 0xfff, X86_AR_WRITE, 0x1000, 1, false, true},
        {"last dword", 0xfff, X86_AR_WRITE, 0xffc, 4, true, false},
        {"dword across the limit", 0xfff, X86_AR_WRITE, 0xffd, 4, true, true},
        {"word across the limit", 0xfff, X86_AR_WRITE, 0xfff, 2, false, true},
        {"limit 0", 0, X86_AR_WRITE, 0, 1, false, false},
        {"limit 0, second byte", 0, X86_AR_WRITE, 1, 1, false, true},
        {"G: limit 0 is 4095", 0xfff, X86_AR_WRITE | X86_AR_G, 0xffc, 4, false, false},
        {"G: behind", 0xfff, X86_AR_WRITE | X86_AR_G, 0xffd, 4, false, true},
        {"far behind", 0xfff, X86_AR_WRITE, 0x80000000, 1, false, true},
        {"negative", 0xffff, X86_AR_WRITE, 0xffffffff, 1, true, true},
        {"negative dword", 0xffff, X86_AR_WRITE, 0xfffffffe, 4, true, true},
        {"read-only read", 0xfff, 0, 0, 4, false, false},
        {"read-only write", 0xfff, 0, 0, 4, true, true},
        {"down: at the limit", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN | X86_AR_DB, 0xfff, 1,
         false, true},
        {"down: above it", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN | X86_AR_DB, 0x1000, 4,
         true, false},
        {"down: across it", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN | X86_AR_DB, 0xffe, 4,
         true, true},
        {"down: high", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN | X86_AR_DB, 0x12340, 4, true,
         false},
        {"down 16: top", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN, 0xfffc, 4, true, false},
        {"down 16: across the top", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN, 0xfffd, 4, true,
         true},
        {"down 16: beyond", 0xfff, X86_AR_WRITE | X86_AR_EXPDOWN, 0x10000, 1, true, true},
        {"down read-only write", 0xfff, X86_AR_EXPDOWN | X86_AR_DB, 0x2000, 4, true,
         true},
        {"readable code", 0xfff, X86_AR_CODE | X86_AR_WRITE, 4, 4, false, false},
        {"readable code, write", 0xfff, X86_AR_CODE | X86_AR_WRITE, 4, 4, true, true},
    };
    for (unsigned i = 0; i < COUNT(rows); i++) {
        /* A segment whose base is not page-aligned. */
        gdt_set(SEL, seg_desc((uint32_t)area + 12, rows[i].limit, DATA3 | rows[i].ar));
        memset(area, 0, 0x2000);
        *(uint32_t *)(area + 12) = 0x87654321;
        for (int ring = 0; ring < 2; ring++) {
            if (ring)
                regs_user();
            else
                regs_kernel();
            in.es = SEL;
            in.bx = rows[i].offset;
            in.ax = 0x11111111;
            unsigned size = rows[i].size;
            if (rows[i].write)
                run(size == 1   ? CODE("mov es:[ebx], al")
                    : size == 2 ? CODE("mov es:[ebx], ax")
                                : CODE("mov es:[ebx], eax"));
            else
                run(size == 1   ? CODE("mov al, es:[ebx]")
                    : size == 2 ? CODE("mov ax, es:[ebx]")
                                : CODE("mov eax, es:[ebx]"));
            if (cpu_is_tcg() && rows[i].bad)
                continue; /* it checks no limits and no types */
            expect(rows[i].what, rows[i].bad ? X86_GP : DONE, 0, rows[i].bad ? 0 : ANY);
            if (!rows[i].bad && rows[i].write)
                check_eq("written there", *(uint32_t *)(area + 12 + rows[i].offset),
                         0x11111111);
        }
    }
    check(gdt[SEL >> 3] >> 40 & 1, "loading sets the accessed bit");
    if (cpu_is_tcg())
        return;
    /* Other ways in: string, rmw, push m, call m, fs, gs, x87. */
    gdt_set(SEL, seg_desc((uint32_t)area, 0xfff, DATA3 | X86_AR_WRITE));
    regs_user();
    in.es = in.fs = in.gs = SEL;
    in.bx = in.di = in.si = 0xffd;
    in.cx = 10;
    RUN("add fs:[ebx], eax");
    expect("rmw by fs", X86_GP, 0, 0);
    RUN("push dword ptr gs:[ebx]");
    expect("push m by gs", X86_GP, 0, 0);
    check_eq("esp", trap.r.sp, in.sp);
    RUN("call dword ptr gs:[ebx]");
    expect("call m by gs", X86_GP, 0, 0);
    RUN("lea eax, es:[ebx]");
    expect("lea looks at no limit", DONE, 0, ANY);
    RUN("rep stosb");
    expect("rep stosb over the limit", X86_GP, 0, 0);
    check(trap.r.cx == 7 && trap.r.di == 0x1000, "cx %lu di 0x%lx", trap.r.cx, trap.r.di);
    RUN("rep lodsb byte ptr gs:[esi]");
    expect("rep lods gs over the limit", X86_GP, 0, 0);
    check(trap.r.cx == 7 && trap.r.si == 0x1000, "cx %lu si 0x%lx", trap.r.cx, trap.r.si);
    RUN("fnstcw es:[ebx + 2]");
    expect("x87 store over the limit", X86_GP, 0, 0);
    RUN("bt es:[0xff0], ebx");
    expect("bt by a register reaches beyond", X86_GP, 0, 0);
    RUN("cmpxchg8b es:[ebx]");
    expect("cmpxchg8b", X86_GP, 0, 0);
    in.es = 0;
    RUN("mov al, es:[0]");
    expect("null es", X86_GP, 0, 0);
    in.es = 3;
    RUN("mov es:[0], al");
    expect("null es with RPL 3", X86_GP, 0, 0);
    RUN("mov ecx, 0\nrep stosb");
    expect("null es and nothing to do", DONE, 0, ANY);
}

static void stack_limits(void) {
    if (cpu_is_tcg())
        return;
    gdt_set(SEL, seg_desc((uint32_t)area, 0xfff, DATA3 | X86_AR_WRITE | X86_AR_DB));
    regs_user();
    in.ss = SEL;
    in.sp = 0x1001;
    RUN("push eax");
    expect("push across the limit", X86_SS, 0, 0);
    check_eq("esp unchanged", trap.r.sp, 0x1001);
    in.sp = 0x1000;
    RUN("push eax");
    expect("push at the top", DONE, 0, ANY);
    in.sp = 2;
    RUN("push eax");
    expect("push below 0", X86_SS, 0, 0);
    RUN("pushad");
    expect("pusha below 0", X86_SS, 0, 0);
    RUN("call 1f\n1:");
    expect("call below 0", X86_SS, 0, 0);
    in.sp = 0x10;
    RUN("pushad");
    expect("pusha that fits in part", X86_SS, 0, 0);
    check_eq("esp unchanged", trap.r.sp, 0x10);
    in.sp = 0xffe;
    RUN("pop eax");
    expect("pop across the limit", X86_SS, 0, 0);
    RUN("ret");
    expect("ret across the limit", X86_SS, 0, 0);
    RUN("popfd");
    expect("popf across the limit", X86_SS, 0, 0);
    RUN("leave");
    check_eq("leave with ebp 0 reads ss:0", trap.vector, DONE);
    in.bp = 0x2000;
    RUN("mov eax, [ebp]");
    expect("ebp goes to ss", X86_SS, 0, 0);
    RUN("mov eax, ds:[ebp]");
    expect("unless overridden", DONE, 0, ANY);
    RUN("leave");
    expect("leave", X86_SS, 0, 0);
    check_eq("esp unchanged", trap.r.sp, 0xffe);
    in.sp = 0;
    in.bx = 0xfff;
    RUN("mov eax, ss:[ebx]");
    expect("ss override", X86_SS, 0, 0);
    /* A stack of 16 bits: sp wraps, the upper half of esp stays. */
    gdt_set(SEL, seg_desc((uint32_t)area, 0xffff, DATA3 | X86_AR_WRITE));
    /* IRET to a 16-bit stack loads sp alone: the upper half is set in the snippet. */
    in.ax = 0x600df00d;
    RUN("mov esp, 0xabcd0004\npush eax\npush eax\npop ecx\nmov edx, esp");
    expect("16-bit stack", DONE, 0, ANY);
    check_eq("value", trap.r.cx, 0x600df00d);
    check_eq("esp", trap.r.dx, 0xabcd0000);
    check_eq("wrapped to the top", *(uint32_t *)(area + 0xfffc), 0x600df00d);
    in.bp = 0x12340010;
    RUN("mov esp, 0xabcd0004\nmov dword ptr ss:[0x10], 0x5555\nleave\nmov edx, esp\n"
        "mov ebx, ebp");
    check_eq("leave: sp", trap.r.dx, 0xabcd0014);
    check_eq("leave: ebp", trap.r.bx, 0x5555);
    RUN("mov esp, 0x5678fffe\npush ax\nmov edx, esp");
    check_eq("16-bit push", trap.r.dx, 0x5678fffc);
}

struct load {
    const char *what;
    uint64_t descriptor;
    unsigned vector;
    long error;
};

static void loads(void) {
    unsigned e = SEL & ~3u;
    uint64_t ok3 = seg_desc(0, 0xfff, DATA3 | X86_AR_WRITE);
    uint64_t ok0 = seg_desc(0, 0xfff, (DATA3 & ~X86_AR_DPL) | X86_AR_WRITE);
    struct load ds[] = {
        {"data", ok3, DONE, 0},
        {"data of DPL 0 at ring 3", ok0, X86_GP, e},
        {"not present", ok3 & ~(1ull << 47), X86_NP, e},
        {"read-only", seg_desc(0, 0xfff, DATA3), DONE, 0},
        {"readable code", seg_desc(0, 0xfff, CODE3 | X86_AR_WRITE), DONE, 0},
        {"execute-only code", seg_desc(0, 0xfff, CODE3), X86_GP, e},
        {"conforming readable code of DPL 0",
         seg_desc(0, 0xfff, (CODE3 & ~X86_AR_DPL) | X86_AR_WRITE | X86_AR_EXPDOWN), DONE,
         0},
        {"a TSS", seg_desc(0, 0xfff, X86_AR_P | X86_AR_DPL | X86_DESC_TSS32), X86_GP, e},
        {"wrong type and not present", seg_desc(0, 0xfff, CODE3) & ~(1ull << 47), X86_GP,
         e},
        {"zero", 0, X86_GP, e},
    };
    for (unsigned i = 0; i < COUNT(ds); i++) {
        gdt_set(SEL, ds[i].descriptor);
        regs_user();
        in.ax = SEL;
        RUN("mov ds, eax");
        expect(ds[i].what, ds[i].vector, ds[i].error, ds[i].vector == DONE ? ANY : 0);
        if (ds[i].vector == DONE)
            check_eq("ds", trap.r.ds, SEL);
        else
            check_eq("ds unchanged", trap.r.ds, UDS);
        RUN("push eax\npop gs");
        expect(ds[i].what, ds[i].vector, ds[i].error, ds[i].vector == DONE ? ANY : 1);
        if (ds[i].vector != DONE)
            check_eq("pop gs did not move esp", trap.r.sp, in.sp - 4);
        static struct {
            uint32_t off;
            uint16_t sel;
        } __attribute__((packed)) far = {0x12345, SEL};
        in.bx = (ulong)&far;
        RUN("lfs ecx, [ebx]");
        expect(ds[i].what, ds[i].vector, ds[i].error, ds[i].vector == DONE ? ANY : 0);
        check_eq("lfs", trap.r.cx, ds[i].vector == DONE ? 0x12345 : 0);
    }
    struct load ss[] = {
        {"ss data", ok3, DONE, 0},
        {"ss of DPL 0", ok0, X86_GP, e},
        {"ss not present", ok3 & ~(1ull << 47), X86_SS, e},
        {"ss read-only", seg_desc(0, 0xfff, DATA3), X86_GP, e},
        {"ss code", seg_desc(0, 0xfff, CODE3 | X86_AR_WRITE), X86_GP, e},
        {"ss zero", 0, X86_GP, e},
    };
    for (unsigned i = 0; i < COUNT(ss); i++) {
        gdt_set(SEL, ss[i].descriptor);
        regs_user();
        in.ax = SEL;
        RUN("mov ss, eax");
        expect(ss[i].what, ss[i].vector, ss[i].error, ss[i].vector == DONE ? ANY : 0);
    }
    regs_user();
    RUN("mov ss, eax");
    expect("ss null", X86_GP, 0, 0);
    in.ax = 3;
    RUN("mov ss, eax");
    expect("ss null with RPL 3", X86_GP, 0, 0);
    RUN("mov ds, eax\nmov es, eax\nmov fs, eax\nmov gs, eax");
    expect("the others take null", DONE, 0, ANY);
    in.ax = UDS & ~3;
    RUN("mov ss, eax");
    expect("ss with RPL 0 at ring 3", X86_GP, UDS & ~3, 0);
    in.ax = GDT_COUNT * 8 | 3;
    RUN("mov ds, eax");
    expect("beyond the GDT", X86_GP, GDT_COUNT * 8, 0);
    in.ax = 0xffff;
    RUN("mov ds, eax");
    expect("in no LDT", X86_GP, 0xfffc, 0);
    /* An LDT. */
    static uint64_t ldt[4];
    ldt[1] = seg_desc((uint32_t)area, 0xfff, DATA3 | X86_AR_WRITE);
    ldt[2] = seg_desc(0, 0xfffff, CODE3 | X86_AR_WRITE | X86_AR_G) | 0xfull << 48;
    gdt_set_sys(LDT_SEL, (ulong)ldt, sizeof(ldt) - 1, X86_AR_P | X86_DESC_LDT);
    regs_kernel();
    in.ax = LDT_SEL;
    RUN("lldt ax\nsldt ecx");
    expect("lldt", DONE, 0, ANY);
    check_eq("sldt", trap.r.cx & 0xffff, LDT_SEL);
    *(uint32_t *)area = 0xfeedbeef;
    regs_user();
    in.ax = 1 << 3 | 7;
    RUN("mov es, eax\nmov eax, es:[0]");
    expect("a segment of the LDT", DONE, 0, ANY);
    check_eq("its data", trap.r.ax, 0xfeedbeef);
    in.cs = 2 << 3 | 7;
    in.ax = 4 << 3 | 7;
    RUN("mov es, eax");
    expect("code of the LDT; beyond the LDT", X86_GP, 4 << 3 | 4, 0);
    check_eq("cs", trap.r.cs, 2 << 3 | 7);
    regs_kernel();
    in.ax = KDS;
    RUN("lldt ax");
    expect("lldt of a data segment", X86_GP, KDS, 0);
    gdt_set(LDT_SEL, gdt[LDT_SEL >> 3] & ~(1ull << 47));
    in.ax = LDT_SEL;
    RUN("lldt ax");
    expect("lldt not present", X86_NP, LDT_SEL, 0);
    in.ax = 12;
    RUN("lldt ax");
    expect("lldt of an LDT selector", X86_GP, 12, 0);
    RUN("xor eax, eax\nlldt ax");
    expect("lldt null", DONE, 0, ANY);
    in.ax = TSS_SEL;
    RUN("ltr ax");
    expect("ltr of a busy TSS", X86_GP, TSS_SEL, 0);
    in.ax = 0;
    RUN("ltr ax");
    expect("ltr null", X86_GP, 0, 0);
}

static void code_limits(void) {
    unsigned e = SEL & ~3u;
    if (!cpu_is_tcg()) {
        /* A code segment of 32 bytes from `area`. */
        memset(area, 0x90, 0x100);
        area[0x20] = area[0x40] = 0xcd;
        area[0x21] = area[0x41] = DONE;
        gdt_set(SEL, seg_desc((uint32_t)area, 0x1f, CODE3));
        regs_user();
        in.cs = SEL;
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 0x20 && trap.error == 0,
              "running off the limit: %u ip 0x%lx", trap.vector, trap.r.ip);
        memcpy(area, "\xeb\x3e", 2); /* jmp 0x40 */
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 0, "jump beyond: %u ip 0x%lx",
              trap.vector, trap.r.ip);
        memcpy(area, "\xff\xd3", 2); /* call ebx */
        in.bx = 0x40;
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 0 && trap.r.sp == in.sp,
              "call beyond: %u ip 0x%lx", trap.vector, trap.r.ip);
        memcpy(area, "\x53\xc3", 2); /* push ebx; ret */
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 1 && trap.r.sp == in.sp - 4,
              "ret beyond: %u ip 0x%lx", trap.vector, trap.r.ip);
        memset(area, 0x90, 0x20);
        area[0x1e] = 0xb8; /* mov eax, imm32 straddles the limit */
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 0x1e,
              "an instruction across the limit: %u ip 0x%lx", trap.vector, trap.r.ip);
        area[0x1e] = 0xcd; /* the last bytes within it */
        area[0x1f] = DONE;
        run((void *)0);
        check(trap.vector == DONE && trap.r.ip == 0x20, "up to the limit: %u",
              trap.vector);
        memcpy(area, "\x2e\xa0\x00\x00\x00\x00", 6); /* mov al, cs:[0] */
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 0, "reading execute-only code: %u",
              trap.vector);
        memcpy(area, "\x2e\xa2\x00\x00\x00\x00", 6);
        run((void *)0);
        check(trap.vector == X86_GP && trap.r.ip == 0, "writing code: %u", trap.vector);
    }
    /* Far jumps: what may be a target. */
    uint64_t code3 = seg_desc(0, ~0u, CODE3 | X86_AR_WRITE | X86_AR_G);
    struct load cs[] = {
        {"code of DPL 3", code3, DONE, 0},
        {"data", seg_desc(0, ~0u, DATA3 | X86_AR_WRITE | X86_AR_G), X86_GP, e},
        {"code of DPL 0", seg_desc(0, ~0u, (CODE3 & ~X86_AR_DPL) | X86_AR_G), X86_GP, e},
        {"conforming code of DPL 0",
         seg_desc(0, ~0u, (CODE3 & ~X86_AR_DPL) | X86_AR_EXPDOWN | X86_AR_G), DONE, 0},
        {"code not present", code3 & ~(1ull << 47), X86_NP, e},
        {"an LDT", seg_desc(0, 0xff, X86_AR_P | X86_AR_DPL | X86_DESC_LDT), X86_GP, e},
        {"an interrupt gate", seg_desc(0, 0xff, X86_AR_P | X86_AR_DPL | 14), X86_GP, e},
    };
    for (unsigned i = 0; i < COUNT(cs); i++) {
        gdt_set(SEL, cs[i].descriptor);
        regs_user();
        RUN("jmp 0x73, offset 1f\n1: nop");
        expect(cs[i].what, cs[i].vector, cs[i].error, cs[i].vector == DONE ? ANY : 0);
        if (cs[i].vector == DONE)
            check_eq("cs has the RPL of CPL", trap.r.cs, SEL);
        RUN("call 0x73, offset 1f\nnop\n1: nop");
        expect(cs[i].what, cs[i].vector, cs[i].error, cs[i].vector == DONE ? ANY : 0);
        check_eq("esp after far call", trap.r.sp, in.sp - (cs[i].vector == DONE ? 8 : 0));
    }
    regs_user();
    RUN("jmp 0, offset 1f\n1: nop");
    expect("far jump to null", X86_GP, 0, 0);
    RUN("jmp 0xfff8, offset 1f\n1: nop");
    expect("far jump beyond the GDT", X86_GP, 0xfff8, 0);
    gdt_set(SEL, code3);
    RUN("push 0x1234\ncall 0x73, offset 1f\nmov eax, [esp]\njmp 2f\n1: retf 0\n2: nop");
    expect("far call and ret", DONE, 0, ANY);
    check_eq("esp", trap.r.sp, in.sp - 4);
    check_eq("cs is back", trap.r.cs, UCS);
    /* 16-bit code. */
    gdt_set(SEL, seg_desc(0, ~0u, (CODE3 & ~X86_AR_DB) | X86_AR_WRITE | X86_AR_G));
    regs_user();
    in.cs = SEL;
    in.ax = 0xaaaaaaaa;
    in.sp = in.sp & ~3ul;
    run(CODE16("mov ax, 0x1234\npush ax\npop cx\nmov edx, 0x12345678\npushd 0x11223344"));
    check(trap.vector == DONE && trap.r.ax == 0xaaaa1234 &&
              (trap.r.cx & 0xffff) == 0x1234 && trap.r.dx == 0x12345678 &&
              trap.r.sp == in.sp - 4,
          "16-bit code: %u eax 0x%lx", trap.vector, trap.r.ax);
    in.bx = 0x10000 + 0x5000;
    *(volatile uint16_t *)0x5000 = 0x4242;
    run(CODE16("mov ax, [bx]"));
    check_eq("16-bit addresses wrap", trap.r.ax & 0xffff, 0x4242);
    in.bx = 0xfffe;
    in.si = 0x5002;
    run(CODE16("mov ax, [bx+si]"));
    check_eq("bx + si wraps", trap.r.ax & 0xffff, 0x4242);
}

/* LAR, LSL, VERR, VERW by descriptor; at ring 3 with RPL 3. */
static void inspect(void) {
    struct {
        const char *what;
        uint64_t d;
        bool lar, lsl, verr, verw;
    } rows[] = {
        {"data", seg_desc(0, 0x12345, DATA3 | X86_AR_WRITE), 1, 1, 1, 1},
        {"data G", seg_desc(0, 0x12345fff, DATA3 | X86_AR_WRITE | X86_AR_G), 1, 1, 1, 1},
        {"read-only", seg_desc(0, 0x123, DATA3), 1, 1, 1, 0},
        {"data DPL 0", seg_desc(0, 0x123, (DATA3 & ~X86_AR_DPL) | X86_AR_WRITE), 0, 0, 0,
         0},
        {"not present", seg_desc(0, 0x123, DATA3 & ~X86_AR_P), 1, 1, 1, 0},
        {"code", seg_desc(0, 0x123, CODE3), 1, 1, 0, 0},
        {"readable code", seg_desc(0, 0x123, CODE3 | X86_AR_WRITE), 1, 1, 1, 0},
        {"conforming DPL 0",
         seg_desc(0, 0x123, (CODE3 & ~X86_AR_DPL) | X86_AR_EXPDOWN | X86_AR_WRITE), 1, 1,
         1, 0},
        {"LDT", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL | X86_DESC_LDT), 1, 1, 0, 0},
        {"TSS", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL | X86_DESC_TSS32), 1, 1, 0, 0},
        {"TSS16 busy", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL | X86_DESC_TSS16_BUSY), 1,
         1, 0, 0},
        {"call gate", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL | X86_DESC_CALLGATE32), 1,
         0, 0, 0},
        {"task gate", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL | X86_DESC_TASKGATE), 1, 0,
         0, 0},
        {"interrupt gate", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL | X86_DESC_INTGATE32),
         0, 0, 0, 0},
        {"type 0", seg_desc(0, 0x123, X86_AR_P | X86_AR_DPL), 0, 0, 0, 0},
    };
    for (unsigned i = 0; i < COUNT(rows); i++) {
        gdt_set(SEL, rows[i].d);
        regs_user();
        in.bx = SEL;
        in.ax = 0x55555555;
        RUN("lar eax, ebx\nsetz cl");
        uint32_t ar = (uint32_t)(rows[i].d >> 32) & 0xf0ff00u;
        check(trap.vector == DONE && (trap.r.cx & 1) == rows[i].lar &&
                  (trap.r.ax & 0xf0ff00u) == (rows[i].lar ? ar : 0x505500u),
              "lar %s: %lu 0x%lx", rows[i].what, trap.r.cx, trap.r.ax);
        RUN("lsl eax, ebx\nsetz cl");
        uint32_t limit = (uint32_t)((rows[i].d & 0xffff) | (rows[i].d >> 32 & 0xf0000));
        if (rows[i].d >> 55 & 1)
            limit = limit << 12 | 0xfff;
        check(trap.vector == DONE && (trap.r.cx & 1) == rows[i].lsl &&
                  trap.r.ax == (rows[i].lsl ? limit : 0x55555555),
              "lsl %s: %lu 0x%lx", rows[i].what, trap.r.cx, trap.r.ax);
        if (i == 4)
            continue; /* not present: VERR looks at the type and the rights alone */
        RUN("verr bx\nsetz cl");
        check((trap.r.cx & 1) == rows[i].verr, "verr %s", rows[i].what);
        RUN("verw bx\nsetz cl");
        check((trap.r.cx & 1) == rows[i].verw, "verw %s", rows[i].what);
    }
    regs_user();
    in.bx = 0;
    RUN("lar eax, ebx\nsetz cl\nverr bx\nsetz ch");
    check_eq("null", trap.r.cx, 0);
    in.bx = 0xfff8;
    RUN("lar eax, ebx\nsetz cl\nlsl eax, ebx\nsetz ch\nverw bx\nsetz dl");
    check(trap.vector == DONE && trap.r.cx == 0 && trap.r.dx == 0, "beyond the GDT");
    /* RPL weakens. */
    in.bx = KDS;
    RUN("lar eax, ebx\nsetz cl");
    check_eq("KDS at ring 3", trap.r.cx, 0);
    regs_kernel();
    in.bx = KDS | 3;
    RUN("lar eax, ebx\nsetz cl\nmov bl, 0x10\nlar eax, ebx\nsetz ch");
    check_eq("KDS at ring 0, RPL 3 then 0", trap.r.cx, 0x100);
    in.ax = 0x1230;
    in.cx = 0x0003;
    RUN("arpl ax, cx\nsetz dl");
    check(trap.r.ax == 0x1233 && trap.r.dx == 1, "arpl raises: 0x%lx", trap.r.ax);
    in.ax = 0x1233;
    in.cx = 0x0001;
    RUN("arpl ax, cx\nsetz dl");
    check(trap.r.ax == 0x1233 && trap.r.dx == 0, "arpl does not lower: 0x%lx", trap.r.ax);
}

void guest_main(void) {
    es_limits();
    stack_limits();
    loads();
    code_limits();
    inspect();
}
