/*
 * Interrupt shadows. An interrupt is pending (a local APIC's, then a timer's through the
 * 8259), and STI is followed by each kind of instruction: the interrupt comes after that
 * instruction, not before, and not at all if the instruction clears IF again. POPF and
 * IRET that set IF have no shadow, nor has STI while IF is set.
 *
 * MOV SS and POP SS hold back debug exceptions too: a data breakpoint that the load
 * itself hits comes after the instruction that follows, whatever it is, and a breakpoint
 * on that instruction does not come. LSS holds nothing back.
 *
 * Intel SDM volume 2, "STI", "MOV", "LDS/LES/LFS/LGS/LSS"; volume 3, "Masking Exceptions
 * and Interrupts When Switching Stacks". AMD64 APM volume 3, "STI", "MOV".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define LAPIC 0xfee00000ul
#define APIC_VECTOR 0x50u
#define PIC_VECTOR 0x20u
#define SP BITS("esp", "rsp")
#define A BITS("eax", "rax")
#define B BITS("ebx", "rbx")
#define C BITS("ecx", "rcx")
#define D BITS("edx", "rdx")
#define ROUNDS 4 /* so that translated code gets hot, too */

/* How the instruction behind the shadow ends. */
enum end {
    PLAIN,    /* at the mark */
    CLEARS,   /* at the mark, with IF clear */
    SOFTWARE, /* in the handler of INT n */
    FAULTS,   /* at `at`, with #UD */
    REPEATS,  /* at the mark, or at itself with some of it done */
};

struct follower {
    const char *what;
    void *sti, *sti_mark;       /* STI, the instruction */
    void *ss, *ss_at, *ss_mark; /* MOV SS from memory, the instruction */
    enum end end;
};

static struct follower followers[64];
static unsigned follower_count, cases, source;
static uint32_t data[16] __attribute__((aligned(64)));
static uint16_t watched_ss __attribute__((aligned(8))) = KDS;
static struct {
    uint32_t off;
    uint16_t sel;
} lss_operand;

#define FOLLOWER(name, how, before, text)                                                \
    do {                                                                                 \
        struct follower *f_ = &followers[follower_count++];                              \
        void *at_;                                                                       \
        f_->what = name;                                                                 \
        f_->end = how;                                                                   \
        CODE_PLACES(f_->sti, at_, f_->sti_mark,                                          \
                    before "\nsti\n776: " text "\n777: nop\nnop\nnop");                  \
        CODE_PLACES(f_->ss, f_->ss_at, f_->ss_mark,                                      \
                    before "\nmov ss, [watched_ss]\n776: " text "\n777: nop\nnop\nnop"); \
        (void)at_;                                                                       \
    } while (0)

static void followers_make(void) {
    FOLLOWER("nop", PLAIN, "", "nop");
    FOLLOWER("add", PLAIN, "", "add eax, 1");
    FOLLOWER("load", PLAIN, "", "mov eax, [" B "]");
    FOLLOWER("store", PLAIN, "", "mov [" B "], eax");
    FOLLOWER("locked add", PLAIN, "", "lock add [" B "], eax");
    FOLLOWER("push", PLAIN, "", "push " A);
    FOLLOWER("pop", PLAIN, "push " A, "pop " A);
    FOLLOWER("jmp", PLAIN, "", "jmp 777f\nud2");
    FOLLOWER("taken branch", PLAIN, "xor eax, eax", "jz 777f\nud2");
    FOLLOWER("branch not taken", PLAIN, "xor eax, eax", "jnz 776b");
    FOLLOWER("loop", PLAIN, "mov ecx, 2", "loop 777f\nud2");
    FOLLOWER("indirect jmp", PLAIN, "mov eax, offset 777f", "jmp " A "\nud2");
    FOLLOWER("call", PLAIN, "", "call 777f\nud2");
    FOLLOWER("ret", PLAIN, "mov eax, offset 777f\npush " A, "ret\nud2");
    FOLLOWER("far ret", PLAIN, "mov eax, offset 777f\npush 8\npush " A,
             BITS("retf", "retfq") "\nud2");
    FOLLOWER("div", PLAIN, "xor edx, edx\nmov ecx, 3", "div ecx");
    FOLLOWER("cmpxchg", PLAIN, "", "cmpxchg [" B "], ecx");
    FOLLOWER("movsb", PLAIN, "", "movsb");
    FOLLOWER("rep stosb of 5", REPEATS, "mov ecx, 5", "rep stosb");
    FOLLOWER("rep stosb of none", PLAIN, "xor ecx, ecx", "rep stosb");
    FOLLOWER("fninit", PLAIN, "", "fninit");
    FOLLOWER("xorps", PLAIN, "", "xorps xmm0, xmm0");
    FOLLOWER("pause", PLAIN, "", "pause");
    FOLLOWER("mov from cr0", PLAIN, "", "mov " A ", cr0");
    FOLLOWER("mov to cr0", PLAIN, "mov " A ", cr0", "mov cr0, " A);
    FOLLOWER("mov to cr4", PLAIN, "mov " A ", cr4", "mov cr4, " A);
    FOLLOWER("mov from dr6", PLAIN, "", "mov " A ", dr6");
    FOLLOWER("invlpg", PLAIN, "", "invlpg [" B "]");
    FOLLOWER("rdmsr", PLAIN, "mov ecx, 0x174", "rdmsr");
    FOLLOWER("wrmsr", PLAIN, "mov ecx, 0x175\nxor eax, eax\nxor edx, edx", "wrmsr");
    FOLLOWER("cpuid", PLAIN, "xor eax, eax", "cpuid");
    FOLLOWER("rdtsc", PLAIN, "", "rdtsc");
    FOLLOWER("in", PLAIN, "", "in al, 0x80");
    FOLLOWER("out", PLAIN, "", "out 0x80, al");
    FOLLOWER("sgdt", PLAIN, "", "sgdt [" B "]");
    FOLLOWER("lgdt", PLAIN, "sgdt [" B "]", "lgdt [" B "]");
    FOLLOWER("mov ds", PLAIN, "mov eax, ds", "mov ds, eax");
    FOLLOWER("pushf", PLAIN, "", BITS("pushfd", "pushfq"));
    FOLLOWER("clts", PLAIN, "", "clts");
    FOLLOWER("wbinvd", PLAIN, "", "wbinvd");
    FOLLOWER("cli", CLEARS, "", "cli");
    FOLLOWER("popf, IF clear", CLEARS, "push 2", BITS("popfd", "popfq"));
#ifdef __x86_64__
    FOLLOWER("iret, IF clear", CLEARS,
             "mov rcx, rsp\npush 0x10\npush rcx\npush 2\npush 8\nmov eax, offset 777f\n"
             "push rax",
             "iretq\nud2");
#else
    FOLLOWER("iret, IF clear", CLEARS, "push 2\npush 8\npush offset 777f", "iretd\nud2");
    FOLLOWER("pusha", PLAIN, "", "pushad");
    FOLLOWER("far jmp", PLAIN, "", "ljmp 8, offset 777f\nud2");
#endif
    FOLLOWER("int n", SOFTWARE, "", "int 0x42");
    FOLLOWER("ud2", FAULTS, "", "ud2");
}

/* --- requests --- */

static void apic_write(unsigned r, uint32_t v) {
    *(volatile uint32_t *)(LAPIC + r) = v;
}

static bool requested(void) {
    if (!source)
        return *(volatile uint32_t *)(LAPIC + 0x200 + APIC_VECTOR / 32 * 16) >>
                   (APIC_VECTOR & 31) &
               1;
    outb(0x20, 0x0a); /* the request register */
    return inb(0x20) & 1;
}

/* One interrupt, pending when this returns. */
static void request(void) {
    uint64_t end = rdtsc() + 10000000000ull;

    if (!source) {
        apic_write(0x300, 0x40000 | APIC_VECTOR);
    } else {
        outb(0x43, 0x30); /* counter 0, one shot */
        outb(0x40, 2);
        outb(0x40, 0);
    }
    while (!requested() && rdtsc() < end)
        __asm__ volatile("pause");
    if (!requested())
        fatal("no interrupt is pending");
}

static void end_of_interrupt(void) {
    if (source)
        outb(0x20, 0x20);
    else
        apic_write(0xb0, 0);
}

static bool on_drain(struct frame *f) {
    end_of_interrupt();
    return true;
}

/* Lets the request through that a snippet has left pending. */
static void drain(const char *what) {
    unsigned vector = source ? PIC_VECTOR : APIC_VECTOR;

    check(requested(), "%s: the interrupt has gone", what);
    hooks[vector] = on_drain;
    sti();
    __asm__ volatile("nop\nnop");
    cli();
    hooks[vector] = NULL;
    check(!requested(), "%s: the interrupt is still there", what);
}

static void regs_for(void) {
    regs_kernel();
    in.bx = (ulong)data;
    in.si = (ulong)&data[4];
    in.di = (ulong)&data[8];
    in.ax = 7;
}

/* Where the interrupt that was pending comes: at MARK or at ALSO; not at all without
 * MARK. */
static void taken_at(const char *maker, const char *what, void *mark, void *also) {
    unsigned vector = source ? PIC_VECTOR : APIC_VECTOR;
    bool ok = trap.vector == vector &&
              (trap.r.ip == (ulong)mark || (also && trap.r.ip == (ulong)also));

    cases++;
    digest_add(trap.vector);
    if (!source)
        digest_add(trap.r.ip - in.ip);
    check(ok, "%s, %s (from %s): vector %u at +0x%lx, want +0x%lx", maker, what,
          source ? "the 8259" : "the APIC", trap.vector, trap.r.ip - in.ip,
          (ulong)mark - in.ip);
    if (trap.vector == vector)
        end_of_interrupt();
}

static void after_sti(const struct follower *f) {
    for (unsigned round = 0; round < ROUNDS; round++) {
        request();
        regs_for();
        run(f->sti);
        switch (f->end) {
        case PLAIN:
            /* TCG looks late at some boundaries. */
            taken_at("sti", f->what, f->sti_mark,
                     cpu_is_tcg() ? (uint8_t *)f->sti_mark + 1 : NULL);
            break;
        case REPEATS:
            taken_at("sti", f->what, f->sti_mark, (uint8_t *)f->sti_mark - 2);
            break;
        default:
            cases++;
            check(f->end == CLEARS ? trap.vector == DONE
                  : f->end == FAULTS
                      ? trap.vector == X86_UD && trap.r.ip == (ulong)f->sti_mark - 2
                      : trap.vector == 0x42 && trap.r.ip == (ulong)f->sti_mark,
                  "sti, %s: vector %u at +0x%lx", f->what, trap.vector,
                  trap.r.ip - in.ip);
            drain(f->what);
        }
    }
}

/* --- what else sets IF, or casts no shadow --- */

#define SEQUENCE(name, text)                                                             \
    do {                                                                                 \
        void *code_, *at_, *mark_;                                                       \
        CODE_PLACES(code_, at_, mark_, text);                                            \
        for (unsigned round = 0; round < ROUNDS; round++) {                              \
            request();                                                                   \
            regs_for();                                                                  \
            run(code_);                                                                  \
            taken_at(name, "", mark_, at_ == code_ ? NULL : at_);                        \
        }                                                                                \
    } while (0)

/* Label 776 at the beginning: no other place will do. */
static void sequences(void) {
    SEQUENCE("popf that sets IF",
             "776: push 0x202\n" BITS("popfd", "popfq") "\n777: nop\nnop");
    SEQUENCE("sti; sti", "776: sti\nsti\n777: nop\nnop");
    SEQUENCE("sti; cli; sti", "776: sti\ncli\nsti\nnop\n777: nop\nnop");
    SEQUENCE("sti; nop; mov ss", "776: mov eax, ss\nsti\nnop\n777: mov ss, eax\nnop");
    /* "Only the first of them is guaranteed" to hold interrupts back. */
    SEQUENCE("sti; mov ss", "mov eax, ss\nsti\nmov ss, eax\n776: nop\n777: nop\nnop");
    SEQUENCE("sti; hlt", "776: sti\nhlt\n777: nop\nnop");
    SEQUENCE("sti; lss",
             "776: mov [lss_operand], esp\nsti\nlss esp, [lss_operand]\n777: nop\nnop");
#ifdef __x86_64__
    SEQUENCE("iret that sets IF",
             "776: mov rcx, rsp\npush 0x10\npush rcx\npush 0x202\npush 8\n"
             "mov eax, offset 777f\npush rax\niretq\nud2\n777: nop\nnop");
#else
    SEQUENCE("iret that sets IF",
             "776: push 0x202\npush 8\npush offset 777f\niretd\nud2\n777: nop\nnop");
    SEQUENCE("sti; pop ss", "push ss\nsti\npop ss\n776: nop\n777: nop\nnop");
#endif
}

/* --- debug exceptions held back --- */

#define B0_ON_ACCESS2 (X86_DR7_FIXED | 2 | 7u << 16) /* two bytes, read or write */

static void debug_off(void) {
    write_dr7(X86_DR7_FIXED);
    write_dr6(X86_DR6_FIXED);
}

static void after_mov_ss(const struct follower *f) {
    if (f->end == FAULTS)
        return; /* whether the breakpoint survives is not said */
    for (unsigned round = 0; round < ROUNDS; round++) {
        ulong want = f->end == SOFTWARE ? (ulong)idt_stub(0x42) : (ulong)f->ss_mark;
        bool ok;

        write_dr0((ulong)&watched_ss);
        write_dr7(B0_ON_ACCESS2);
        write_dr6(X86_DR6_FIXED);
        regs_for();
        run(f->ss);
        debug_off();
        ok = trap.vector == X86_DB && (trap.dr6 & 0xe00f) == 1 &&
             (trap.r.ip == want || (f->end == REPEATS && trap.r.ip == (ulong)f->ss_at));
        cases++;
        digest_add(trap.r.ip - in.ip);
        check(ok,
              "mov ss that hits a breakpoint, %s: vector %u at +0x%lx dr6 0x%lx, want "
              "+0x%lx",
              f->what, trap.vector, trap.r.ip - in.ip, trap.dr6, want - in.ip);
        /* On the instruction behind: it does not come on Intel's CPUs. */
        write_dr0((ulong)f->ss_at);
        write_dr7(X86_DR7_FIXED | 2);
        regs_for();
        run(f->ss);
        debug_off();
        cases++;
        ok = cpu_is_amd() ? trap.vector == X86_DB && trap.r.ip == (ulong)f->ss_at
                          : trap.vector == (f->end == SOFTWARE ? 0x42 : DONE);
        check(ok, "mov ss, a breakpoint on %s: vector %u at +0x%lx", f->what, trap.vector,
              trap.r.ip - in.ip);
    }
}

/* LSS that hits a breakpoint: at once. MOV SS twice: at the latest after what follows the
 * second. */
static void other_loads(void) {
    void *code, *at, *mark;

    for (unsigned round = 0; round < ROUNDS; round++) {
        CODE_PLACES(code, at, mark,
                    "776: mov [" B "], esp\nlss esp, [" B "]\n777: nop\nnop");
        regs_for();
        in.bx = (ulong)&lss_operand;
        write_dr0((ulong)&lss_operand.sel);
        write_dr7(B0_ON_ACCESS2);
        run(code);
        debug_off();
        cases++;
        check(trap.vector == X86_DB && trap.r.ip == (ulong)mark,
              "lss that hits a breakpoint: vector %u at +0x%lx", trap.vector,
              trap.r.ip - in.ip);
        CODE_PLACES(
            code, at, mark,
            "mov eax, ss\nmov ss, [watched_ss]\nmov ss, eax\n776: nop\n777: nop\nnop");
        regs_for();
        write_dr0((ulong)&watched_ss);
        write_dr7(B0_ON_ACCESS2);
        run(code);
        debug_off();
        cases++;
        check(trap.vector == X86_DB &&
                  (trap.r.ip == (ulong)mark || trap.r.ip == (ulong)at),
              "mov ss twice: vector %u at +0x%lx", trap.vector, trap.r.ip - in.ip);
    }
}

/* --- which comes first at one boundary --- */

static struct {
    unsigned vector;
    ulong ip;
} seen[8];
static unsigned seen_count;

static bool on_seen(struct frame *f) {
    if (seen_count < COUNT(seen)) {
        seen[seen_count].vector = (unsigned)f->vector;
        seen[seen_count].ip = f->ip;
    }
    seen_count++;
    if (f->vector != X86_DB && f->vector != X86_UD)
        end_of_interrupt();
    if (f->vector == X86_UD)
        f->ip += 2;
    if (read_dr6() & 1)
        f->flags |= X86_FL_RF;
    f->flags &= ~(ulong)X86_FL_TF;
    write_dr6(X86_DR6_FIXED);
    return true;
}

/* FIRST and then SECOND, both at the mark. */
static void first_then(const char *what, void *code, void *mark, unsigned first,
                       unsigned second) {
    unsigned vector = source ? PIC_VECTOR : APIC_VECTOR;

    hooks[X86_DB] = hooks[X86_UD] = hooks[vector] = on_seen;
    seen_count = 0;
    run(code);
    hooks[X86_DB] = hooks[X86_UD] = hooks[vector] = NULL;
    debug_off();
    cases++;
    digest_add(seen_count);
    check(trap.vector == DONE && seen_count == 2 && seen[0].vector == first &&
              seen[1].vector == second && seen[0].ip == (ulong)mark &&
              seen[1].ip == (ulong)mark,
          "%s: %u events, %u at +0x%lx, %u at +0x%lx, want %u, %u at +0x%lx", what,
          seen_count, seen[0].vector, seen[0].ip - in.ip, seen[1].vector,
          seen[1].ip - in.ip, first, second, (ulong)mark - in.ip);
}

/* Intel SDM volume 3, "Priority Among Concurrent Events": traps of the instruction
 * before, interrupts, breakpoints on the next instruction, its faults. */
static void priorities(void) {
    unsigned vector = source ? PIC_VECTOR : APIC_VECTOR;
    void *code, *at, *mark;

    for (unsigned round = 0; round < ROUNDS; round++) {
        CODE_PLACES(code, at, mark,
                    "776: " BITS("popfd", "popfq") "\n777: nop\nnop\ncli");
        request();
        regs_for();
        in.sp -= sizeof(ulong);
        *(ulong *)in.sp = 0x202;
        in.flags |= X86_FL_TF;
        first_then("single-step and an interrupt", code, mark, X86_DB, vector);

        request();
        regs_for();
        in.sp -= sizeof(ulong);
        *(ulong *)in.sp = 0x202;
        write_dr0((ulong)mark);
        write_dr7(X86_DR7_FIXED | 2);
        first_then("an interrupt and a breakpoint on what is next", code, mark, vector,
                   X86_DB);

        CODE_PLACES(code, at, mark,
                    "776: " BITS("popfd", "popfq") "\n777: ud2\nnop\ncli");
        request();
        regs_for();
        in.sp -= sizeof(ulong);
        *(ulong *)in.sp = 0x202;
        first_then("an interrupt and a fault of what is next", code, mark, vector,
                   X86_UD);
        if (source)
            continue;

        /* The store that asks for the interrupt hits a breakpoint. */
        CODE_PLACES(code, at, mark, "776: mov [" B "], eax\n777: nop\nnop\ncli");
        regs_for();
        in.flags |= X86_FL_IF;
        in.bx = LAPIC + 0x300;
        in.ax = 0x40000 | APIC_VECTOR;
        write_dr0(in.bx);
        write_dr7(X86_DR7_FIXED | 2 | 0xdu << 16);
        first_then("a data breakpoint and an interrupt", code, mark, X86_DB, vector);
    }
}

static void devices(void) {
    static const uint8_t icw[] = {0x11, PIC_VECTOR, 4, 1};

    apic_write(0xf0, 0x1ff);  /* enabled */
    apic_write(0x350, 0x700); /* LINT0: the 8259's */
    outb(0x20, icw[0]);
    for (unsigned k = 1; k < 4; k++)
        outb(0x21, icw[k]);
    outb(0x21, 0xff);
}

void guest_main(void) {
    lss_operand.sel = KDS;
    write_cr4(read_cr4() | X86_CR4_OSFXSR);
    devices();
    followers_make();
    for (source = 0; source < 2; source++) {
        outb(0x21, source ? 0xfe : 0xff);
        for (unsigned k = 0; k < follower_count; k++)
            after_sti(&followers[k]);
        sequences();
        if (!cpu_is_tcg())
            priorities();
    }
    outb(0x21, 0xff);
    if (cpu_is_tcg())
        note("TCG's MOV SS holds no breakpoints back");
    for (unsigned k = 0; k < follower_count && !cpu_is_tcg(); k++)
        after_mov_ss(&followers[k]);
    if (!cpu_is_tcg())
        other_loads();
    printf("%u cases\n", cases);
    digest_print();
}
