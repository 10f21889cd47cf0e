/*
 * Faults while an exception or interrupt is being delivered: every kind of first event at
 * CPL 3, and every way in which its gate, its handler's segment or its handler's stack
 * can be bad. The table of the manuals says whether the second fault is delivered in its
 * own right or both become a double fault, and EXT whether the first came from outside
 * the program. A double fault's error code is 0, the saved registers are those of the
 * first.
 *
 * The first event's gate leads to a stack of its own (level 1; an IST entry in 64-bit
 * guests), so that the second's handler has a good one.
 *
 * AMD64 APM volume 2, "#DF--Double-Fault Exception (Vector 8)", "Error Codes"; Intel SDM
 * volume 3, "Interrupt 8--Double Fault Exception", "Error Code".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define IDT_AT 0x30000000ul /* two pages of an IDT that can be half absent */
#define HOLE 0x38000000ul   /* not mapped */
#define GATE BITS(8u, 16u)
#define RING1 FREE_SEL            /* code, data of level 1 */
#define ABSENT_DS (FREE_SEL + 16) /* data, not present, level 1 */
#define ABSENT_CS (FREE_SEL + 24)
#define ABSENT_USER (FREE_SEL + 32) /* data, not present, level 3 */
#define RING2_CS (FREE_SEL + 40)
#define TO_RING2 (FREE_SEL + 48) /* a call gate: there is no stack for level 2 */
#define SMALL_TSS (FREE_SEL + 64)
#define OUTSIDE 0x50u /* the vector of INT n, and of the local APIC's interrupt */
#define IST_BAD 7
#define LAPIC 0xfee00000ul

static struct space s;
static uint8_t *idt_page[2];
static unsigned cases;
static uint32_t divisor_mxcsr = 0x1d80; /* division by zero unmasked */

/* --- the first events --- */

struct first {
    const char *what;
    unsigned vector;
    bool software; /* an instruction's own: EXT is clear */
    bool interrupt;
    void *code;
    long at; /* of the saved instruction pointer in the code */
    ulong flags;
};

#define SP BITS("esp", "rsp")

static struct first firsts[24];
static unsigned first_count;

static void add(const char *what, unsigned vector, bool software, void *code, long at,
                ulong flags) {
    firsts[first_count++] =
        (struct first){what, vector, software, false, code, at, flags};
}

static void firsts_make(void) {
    add("#DE", X86_DE, false, CODE("xor ecx, ecx\ndiv ecx"), 2, 0);
    add("#DB by TF", X86_DB, false, CODE("nop\nnop"), 1, X86_FL_TF);
    add("int3", X86_BP, true, CODE("int3"), 0, 0);
    add("#UD", X86_UD, false, CODE("ud2"), 0, 0);
    add("#NM", X86_NM, false, CODE("fnop"), 0, 0);
    add("#NP", X86_NP, false, CODE("mov eax, 0x93\nmov es, eax"), 5, 0);
    add("#SS", X86_SS, false, CODE("mov eax, 0x93\nmov ss, eax"), 5, 0);
    add("#GP", X86_GP, false, CODE("nop\nhlt"), 1, 0);
    add("#PF", X86_PF, false,
        CODE("mov ebx, 0x38000000\nmov al, [" BITS("ebx", "rbx") "]"), 5, 0);
    add("#AC", X86_AC, false, CODE("mov eax, [" SP " + 1]"), 0, X86_FL_AC);
    add("int n", OUTSIDE, true, CODE("nop\nint 0x50"), 1, 0);
    add("interrupt", OUTSIDE, false, CODE("nop\nnop"), 0, X86_FL_IF);
    firsts[first_count - 1].interrupt = true;
    add("#MF", X86_MF, false,
        CODE("fninit\npush 0x37b\nfldcw [" SP "]\nfld1\nfldz\nfdivp st(1), st\nfwait"),
        BITS(16, 16), 0);
    add("#XM", X86_XM, false,
        CODE("ldmxcsr [" SP "]\nxorps xmm0, xmm0\nxorps xmm1, xmm1\n"
             "mov eax, 0x3f800000\nmovd xmm0, eax\ndivss xmm0, xmm1"),
        19, 0);
#ifndef __x86_64__
    add("into", X86_OF, true, CODE("mov al, 0x7f\nadd al, 1\ninto"), 4, 0);
    add("#BR", X86_BR, false, CODE("mov eax, -1\npush 0\npush 0\nbound eax, [esp]"), 9,
        0);
    add("#TS", X86_TS, false, CODE("nop\ncall 0xa3:0"), 1, 0);
#endif
}

/* --- the second faults --- */

enum second {
    GOOD,
    GATE_ABSENT,
    GATE_TYPE,
    CS_NULL,
    CS_DATA,
    CS_ABSENT,
    STACK_TS,
    STACK_SS,
    STACK_PF,
    GATE_PF,
    SECONDS
};

static const char *const second_name[] = {"nothing",
                                          "gate absent",
                                          "gate of a wrong type",
                                          "gate with a null CS",
                                          "CS is data",
                                          "CS absent",
                                          "#TS of the stack",
                                          "#SS of the stack",
                                          "#PF of stack",
                                          "#PF of the IDT's page"};

struct outcome {
    unsigned vector;
    ulong error, cr2;
};

/* The fault by itself; and then the table. */
static struct outcome model(const struct first *f, enum second how, ulong gate_at) {
    ulong ext = f->software ? 0 : 1;
    struct outcome o = {f->vector, (ulong)ANY, 0};
    bool contributory;

    switch (how) {
    case GOOD:
        return o;
    case GATE_ABSENT:
        o = (struct outcome){X86_NP, (f->vector * 8 + 2) | ext, 0};
        break;
    case GATE_TYPE:
        o = (struct outcome){X86_GP, (f->vector * 8 + 2) | ext, 0};
        break;
    case CS_NULL:
        o = (struct outcome){X86_GP, ext, 0};
        break;
    case CS_DATA:
        o = (struct outcome){X86_GP, KDS | ext, 0};
        break;
    case CS_ABSENT:
        o = (struct outcome){X86_NP, ABSENT_CS | ext, 0};
        break;
    case STACK_TS:
        o = (struct outcome){X86_TS, BITS(0, SMALL_TSS) | ext, 0};
        break;
    case STACK_SS:
        o = (struct outcome){X86_SS, BITS(ABSENT_DS, 0) | ext, 0};
        break;
    case STACK_PF:
        o = (struct outcome){X86_PF, X86_PF_W, HOLE + 0x800 - sizeof(ulong)};
        break;
    default:
        o = (struct outcome){X86_PF, 0, gate_at};
    }
    contributory = o.vector == X86_TS || o.vector == X86_NP || o.vector == X86_SS ||
                   o.vector == X86_GP;
    if (f->vector == X86_PF ||
        (contributory &&
         (f->vector == X86_DE || (f->vector >= X86_TS && f->vector <= X86_GP)))) {
        o.vector = X86_DF;
        o.error = 0;
    }
    return o;
}

/* --- setting up --- */

static void idtr_set(ulong base) {
    struct {
        uint16_t limit;
        ulong base;
    } __attribute__((packed)) r = {256 * GATE - 1, base};

    __asm__ volatile("lidt %0" ::"m"(r));
}

#ifdef __x86_64__
static struct tss64 small_tss __attribute__((aligned(128)));

static void tr_set(unsigned sel) {
    gdt[sel >> 3] &= ~(2ull << 40);
    __asm__ volatile("ltr %w0" ::"r"(sel));
}
#endif

/* An IDT in which the gate of VECTOR lies in an absent page, and those of #PF and #DF do
 * not; where that gate is. */
static ulong split_idt(unsigned vector) {
    bool low = vector <= X86_GP; /* what is up to the vector is absent, or from it on */
    unsigned before = low ? vector + 1 : vector;
    ulong base = IDT_AT + 4096 - before * GATE;
    uint8_t *all = idt_page[0]; /* both pages, which follow each other */

    memcpy(all + (base - IDT_AT), idt,
           256 * GATE < 8192 - (base - IDT_AT) ? 256 * GATE : 8192 - (base - IDT_AT));
    space_map(&s, IDT_AT, (ulong)idt_page[0], low ? 0 : RW, 1);
    space_map(&s, IDT_AT + 4096, (ulong)idt_page[1], low ? RW : 0, 1);
    invlpg(IDT_AT);
    invlpg(IDT_AT + 4096);
    idtr_set(base);
    return base + vector * GATE;
}

/* Makes the gate of the first event bad; its gate's address if that matters. */
static ulong spoil(const struct first *f, enum second how) {
    struct idt_gate *g = &idt[f->vector];

    switch (how) {
    case GATE_ABSENT:
        g->ar &= 0x7f;
        break;
    case GATE_TYPE:
        g->ar = (uint8_t)((g->ar & 0xf0) | 2);
        break;
    case CS_NULL:
        g->sel = 0;
        break;
    case CS_DATA:
        g->sel = KDS;
        break;
    case CS_ABSENT:
        g->sel = ABSENT_CS;
        break;
    case STACK_TS:
    case STACK_SS:
    case STACK_PF:
#ifdef __x86_64__
        g->ist = IST_BAD;
        tss.ist[IST_BAD - 1] = how == STACK_SS ? 1ul << 47 : HOLE + 0x800;
        if (how == STACK_TS) {
            memcpy(&small_tss, &tss, sizeof(tss));
            tr_set(SMALL_TSS);
        }
#else
        g->sel = RING1;
        tss.ss1 = how == STACK_TS ? 0 : how == STACK_SS ? ABSENT_DS + 1 : RING1 + 8 + 1;
        tss.esp1 = HOLE + 0x800;
#endif
        break;
    case GATE_PF:
        return split_idt(f->vector);
    default:
        break;
    }
    return 0;
}

static void repair(const struct first *f) {
    idt_reset(f->vector);
    idt_load(sizeof(idt) - 1);
#ifdef __x86_64__
    tr_set(TSS_SEL);
#endif
    write_dr6(X86_DR6_FIXED);
    if (f->interrupt)
        *(volatile uint32_t *)(LAPIC + 0xb0) = 0;
    __asm__ volatile("fninit");
}

static void nested_case(const struct first *f, enum second how) {
    ulong cr0 = read_cr0(), gate_at, ip;
    struct outcome want;
    bool ok;

    gate_at = spoil(f, how);
    want = model(f, how, gate_at);
    if (f->interrupt)
        *(volatile uint32_t *)(LAPIC + 0x300) = 0x40000 | OUTSIDE; /* to itself */
    write_cr0(f->vector == X86_NM ? cr0 | X86_CR0_TS : cr0);
    regs_user();
    in.flags |= f->flags;
    memcpy((void *)in.sp, &divisor_mxcsr, 4);
    run(f->code);
    write_cr0(cr0);
    ip = trap.r.ip - (ulong)f->code;
    if (how == GOOD && f->software)
        ip = (ulong)f->at; /* behind the instruction */
    if (cpu_is_tcg() && want.vector != X86_DF)
        want.error = (ulong)ANY; /* TCG sets no EXT */
    ok = trap.vector == want.vector && ip == (ulong)f->at && trap.r.cs == in.cs &&
         (want.error == (ulong)ANY || trap.error == want.error) &&
         (!want.cr2 || trap.cr2 == want.cr2);
    cases++;
    digest_add(trap.vector);
    digest_add(trap.error);
    check(ok,
          "%s, then %s: vector %u error 0x%lx ip +0x%lx cr2 0x%lx, want %u 0x%lx +0x%lx "
          "0x%lx",
          f->what, second_name[how], trap.vector, trap.error, ip, trap.cr2, want.vector,
          want.error, (ulong)f->at, want.cr2);
    repair(f);
}

static void tables(void) {
    const unsigned data =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G;
    const unsigned code = data | X86_AR_CODE;

    gdt_set(RING1, seg_desc(0, ~0u, code | 1u << 5));
    gdt_set(RING1 + 8, seg_desc(0, ~0u, data | 1u << 5));
    gdt_set(ABSENT_DS, seg_desc(0, ~0u, (data | 1u << 5) & ~(unsigned)X86_AR_P));
    gdt_set(ABSENT_CS, seg_desc(0, ~0u,
                                (LONG_MODE ? (code & ~X86_AR_DB) | X86_AR_L : code) &
                                    ~(unsigned)X86_AR_P));
    gdt_set(ABSENT_USER, seg_desc(0, ~0u, (data | 3u << 5) & ~(unsigned)X86_AR_P));
    gdt_set(RING2_CS, seg_desc(0, ~0u, code | 2u << 5));
    gdt_set_call_gate(TO_RING2, RING2_CS, NULL, 3, 0);
#ifdef __x86_64__
    gdt_set_sys(SMALL_TSS, (ulong)&small_tss, 0x24 + 8 * (IST_BAD - 1) - 1,
                X86_AR_P | X86_DESC_TSS32);
#else
    tss.ss2 = 0;
#endif
}

void guest_main(void) {
    write_cr4(read_cr4() | X86_CR4_PSE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    space_new(&s, BITS(SPACE_32, SPACE_LONG), RWU);
    idt_page[0] = page_alloc();
    idt_page[1] = page_alloc();
    space_map(&s, IDT_AT, (ulong)idt_page[0], RW, 1);
    space_map(&s, IDT_AT + 4096, (ulong)idt_page[1], RW, 1);
    if (!LONG_MODE) /* with two levels the APIC's own large page */
        space_map(&s, 0xfec00000, 0xfec00000, RW | X86_PTE_PCD, 2);
    space_load(&s);
    write_cr0(read_cr0() | X86_CR0_NE | X86_CR0_AM);
    tables();
    *(volatile uint32_t *)(LAPIC + 0xf0) = 0x1ff; /* enabled */
    firsts_make();
    for (unsigned k = 0; k < first_count; k++)
        for (unsigned how = 0; how < SECONDS; how++) {
            /* TCG has no #AC, no #XM, and #TS for a stack that is absent. */
            if (cpu_is_tcg() &&
                (firsts[k].vector == X86_AC || firsts[k].vector == X86_XM ||
                 (!LONG_MODE && how == STACK_SS)))
                continue;
            nested_case(&firsts[k], (enum second)how);
        }
    printf("%u cases\n", cases);
    digest_print();
}
