/*
 * Task switches: by JMP, CALL, INT n, exceptions and IRET, directly and through task
 * gates, between 16-bit and 32-bit TSSs; every check on the way with its error code, and
 * when it succeeds every byte of both TSSs, both descriptors and the new task's state.
 *
 * Intel SDM volume 3, "Task Management", its table "Exception Conditions Checked During a
 * Task Switch"; AMD64 APM volume 2, "Task Management". Cases have one thing wrong at a
 * time, because the order of checks in the new task is a processor's own.
 */
#include "lib/tasks.h"

const char guest_name[] = GUEST_NAME;

/* Every way, between every two levels and TSSs of either width. */
static void all_ways(void) {
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned k = 0; k < 64; k++) {
            task_from(k >> 2 & 3);
            task_to(k & 3);
            task_prepare(k & 16, k & 32, how);
            task_attempt(how);
        }
    }
}

/* What the incoming flags may hold. */
static void new_flags(void) {
    static const uint32_t flags[] = {X86_FL_IF,     X86_FL_IOPL, X86_FL_NT,
                                     X86_FL_AC,     X86_FL_ID,   X86_FL_DF,
                                     X86_FL_OF,     X86_FL_VIF,  X86_FL_VIP,
                                     X86_FL_STATUS, 1u << 12,    X86_FL_IF | X86_FL_NT};
    for (unsigned k = 0; k < COUNT(flags); k++) {
        for (unsigned how = 0; how < HOW_COUNT; how++) {
            task_from(k & 3);
            in.flags |= flags[COUNT(flags) - 1 - k] & ~X86_FL_NT;
            task_to(how & 3);
            task_in.flags = X86_FL_ONE | flags[k];
            task_prepare(true, true, how);
            task_attempt(how);
        }
    }
}

/* A task in virtual-8086 mode: 700:1000 is LAND. IOPL 3 lets it use INT. */
static void to_v86(void) {
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned cpl = 0; cpl < 4; cpl++) {
            task_from(cpl);
            task_to(0);
            task_in.ip = 0x1000;
            task_in.flags = X86_FL_ONE | X86_FL_VM | X86_FL_IOPL;
            task_in.seg[CS] = 0x700;
            task_in.seg[SS] = 0x900, task_in.seg[DS] = 0x1111;
            task_in.seg[ES] = 0x2222, task_in.seg[FS] = 0x3333;
            task_in.seg[GS] = 0xffff;
            task_prepare(cpl & 1, true, how);
            if (how != FAULT_ERR) /* pushes at 900:NEW_SP */
                task_attempt(how);
        }
    }
}

/* The TSS descriptor named by the instruction: access byte, RPL, CPL. */
static void direct(void) {
    for (unsigned access = 0; access < 256; access++) {
        unsigned type = access & 0x1f;
        /* Gates and code are other transfers. */
        if (type == 4 || type == 5 || type == 12 || type >= 24)
            continue;
        for (unsigned k = 0; k < 32; k++) {
            enum how how = k & 16 ? CALL : JMP;
            task_from(k >> 2 & 3);
            task_to((k & 3) ^ 1);
            task_prepare(true, type & 8, how);
            gdt_set_sys(NEW_SEL, (ulong)task_new_tss, 0x67, access);
            task_far.sel = NEW_SEL | (k & 3);
            task_attempt(how);
        }
    }
}

/* What a gate, an IDT entry or a link can name. */
static void named_tss(enum how how, unsigned sel) {
    gdt_set(GATE_SEL, (gdt[GATE_SEL >> 3] & ~0xffff0000ull) | (uint64_t)sel << 16);
    idt[VECTOR].sel = (uint16_t)sel;
    if (how == IRET)
        task_put(task_old_tss, 0, sel, 2);
}

static void indirect(void) {
    static const unsigned odd[] = {0,      3,          7,   NEW_SEL | 4, NEW_SEL | 3,
                                   BEYOND, BEYOND + 7, KDS, 0xffff};
    for (unsigned how = JMP_GATE; how < HOW_COUNT; how++) {
        for (unsigned cpl = 0; cpl < 4; cpl++) {
            if (how == FAULT_ERR)
                continue; /* a fault of a fault */
            for (unsigned access = 0; access < 256; access++) {
                task_from(cpl);
                task_to(access & 3);
                task_prepare(true, access & 8, how);
                gdt_set_sys(NEW_SEL, (ulong)task_new_tss, 0x67, access);
                task_attempt(how);
            }
            for (unsigned k = 0; k < COUNT(odd); k++) {
                task_begin(how, cpl, 3);
                named_tss(how, odd[k]);
                task_attempt(how);
            }
        }
    }
}

static void gates(void) {
    for (unsigned how = JMP_GATE; how <= FAULT; how++) {
        for (unsigned k = 0; k < 128; k++) {
            unsigned ar = (k & 64 ? X86_AR_P : 0) | X86_DESC_TASKGATE | (k & 3) << 5;
            task_begin(how, k >> 2 & 3, 3);
            gdt_set(GATE_SEL, (uint64_t)NEW_SEL << 16 | (uint64_t)ar << 40);
            idt[VECTOR].ar = (uint8_t)ar;
            task_far.sel = (how <= CALL_GATE ? GATE_SEL : NEW_SEL) | (k >> 4 & 3);
            task_attempt(how);
        }
    }
}

static void limits(void) {
    static const uint32_t edges[] = {0, 0x2a, 0x2b, 0x2c, 0x66, 0x67, 0x68, 0xfffff};
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned k = 0; k < COUNT(edges) * 4; k++) {
            if (how == FAULT_ERR && edges[k / 4] < 0x67)
                continue;
            task_from(3);
            task_to(3);
            task_prepare(true, k & 1, how);
            /* With G, a limit of 0 is 4095. */
            unsigned g = k & 2 ? 12 : 0, ar = task_ar_of(NEW_SEL) & 0xff;
            gdt_set_sys(NEW_SEL, (ulong)task_new_tss, edges[k / 4] << g,
                        ar | (g ? X86_AR_G : 0));
            task_attempt(how);
        }
    }
}

/* Selector register N of the new task names SUBJECT with this access byte. */
static void new_segment(unsigned n, unsigned access, unsigned rpl, unsigned cpl,
                        enum how how) {
    task_from(0);
    task_to(cpl);
    if (n < 6)
        task_in.seg[n] = SUBJECT | rpl;
    else
        task_in.ldt = SUBJECT | rpl;
    if (n == CS && rpl) /* its level is the task's */
        task_in.seg[SS] = task_in.seg[DS] = DATA_SEL(rpl);
    task_prepare(true, true, how);
    /* What expands down is good above its limit. */
    bool down = !task_is_code(access) && (access & X86_AR_EXPDOWN);
    gdt_set(SUBJECT, seg_desc(0, down ? 0 : ~0u, access | X86_AR_G | X86_AR_DB));
    task_attempt(how);
    bool loaded = task_want.switched && task_want.vector == DONE && (access & X86_AR_S);
    if (loaded && !(gdt[SUBJECT >> 3] >> 40 & 1) && task_bad++ < 12)
        printf("# selector %u: no accessed bit\n", n);
}

static void new_segments(void) {
    static const enum how ways[] = {JMP, CALL_GATE, INT_N, FAULT, IRET};
    for (unsigned n = 0; n < 7; n++) {
        for (unsigned access = 0; access < 256; access++) {
            for (unsigned k = 0; k < 16; k++)
                new_segment(n, access, k & 3, n == CS ? k & 3 : k >> 2,
                            ways[(access + k) % COUNT(ways)]);
        }
    }
}

static void new_selectors(void) {
    static const unsigned odd[] = {0, 3, 4, 7, BEYOND, BEYOND + 3, 0xffff};
    static const enum how ways[] = {JMP, CALL, INT_N, FAULT, IRET};
    for (unsigned n = 0; n < 7; n++) {
        for (unsigned k = 0; k < COUNT(odd) * COUNT(ways); k++) {
            enum how how = ways[k % COUNT(ways)];
            task_from(3);
            task_to(3);
            if (n < 6)
                task_in.seg[n] = odd[k / COUNT(ways)];
            else
                task_in.ldt = odd[k / COUNT(ways)];
            task_prepare(true, true, how);
            task_attempt(how);
        }
    }
    /* An instruction pointer beyond the new code segment. */
    for (unsigned k = 0; k < COUNT(ways); k++) {
        task_from(3);
        task_to(3);
        task_in.seg[CS] = SUBJECT | 3;
        gdt_set(SUBJECT, seg_desc(0, LAND - 1, task_ar_of(CODE_SEL(3)) & ~0x8000u));
        task_prepare(true, true, ways[k]);
        task_attempt(ways[k]);
    }
}

/* Segments of the new task's LDT; the old task has one, too, in which all is code. */
static void locals(void) {
    static const enum how ways[] = {JMP, CALL_GATE, INT_N, FAULT, IRET};
    static uint64_t others[9] __attribute__((aligned(16)));
    for (unsigned n = 0; n < 4; n++) {
        task_ldt[n] = gdt[CODE_SEL(n) >> 3];
        task_ldt[4 + n] = gdt[DATA_SEL(n) >> 3];
        others[n] = others[4 + n] = gdt[CODE_SEL(0) >> 3];
    }
    gdt_set_sys(LDT_SEL, (ulong)task_ldt, sizeof(task_ldt) - 1, X86_AR_P | X86_DESC_LDT);
    gdt_set_sys(SUBJECT, (ulong)others, sizeof(others) - 1, X86_AR_P | X86_DESC_LDT);
    task_ldt_size = sizeof(task_ldt);
    for (unsigned n = 0; n < 6; n++) {
        for (unsigned sel = 4; sel < 88; sel += (sel & 7) == 7 ? 5 : 1) {
            unsigned cpl = n == CS ? sel & 3 : sel >> 3 & 3;
            task_from(sel & 3);
            task_to(cpl);
            task_in.seg[n] = sel;
            task_in.ldt = LDT_SEL;
            task_prepare(true, true, ways[(sel + n) % COUNT(ways)]);
            __asm__ volatile("lldt %w0" ::"r"(SUBJECT));
            task_old_ldt = SUBJECT;
            task_attempt(ways[(sel + n) % COUNT(ways)]);
        }
    }
    task_ldt_size = task_old_ldt = 0;
}

/* The T bit: #DB in the new task before its first instruction. Local breakpoints go. */
static void trap_bit(void) {
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        task_from(3);
        task_to(how & 3);
        task_in.trap = 0xffff;
        task_prepare(true, true, how);
        task_arm(how);
        write_dr6(0);
        write_dr7(0x3ff); /* all on, on addresses that nobody executes */
        run(task_code[how]);
        ulong dr7 = read_dr7();
        task_leave();
        write_dr7(0);
        task_verdict(trap.vector == X86_DB && (trap.dr6 & 0xe00f) == X86_DR6_BT &&
                         trap.r.ip == LAND && trap.r.cs == task_in.seg[CS] &&
                         (dr7 & 0x3ff) == 0x2aa && task_left.tr == NEW_SEL,
                     "T bit", how, trap.dr6, dr7);
        write_dr6(0);
    }
}

/* Flags of the new task that work at once: TF after its first instruction, RF against a
 * breakpoint there, which only DR7's global bit keeps across the switch. */
static void stepping(void) {
    void *nops = CODE("nop\nnop");
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned k = 0; k < 6; k++) {
            bool tf = k == 0, rf = k & 1, global = k & 2;
            task_from(k & 3);
            task_to(how & 3);
            task_in.ip = (uint32_t)(ulong)nops;
            task_in.flags |= (tf ? X86_FL_TF : 0) | (rf ? X86_FL_RF : 0);
            task_prepare(true, true, how);
            task_arm(how);
            write_dr6(0);
            write_dr0((ulong)nops);
            write_dr7(global ? 2 : 1);
            run(task_code[how]);
            ulong dr6 = trap.dr6 & 0xe00f;
            task_leave();
            write_dr7(0);
            write_dr6(0);
            bool hit = global && !rf, ends = !hit && !tf;
            task_verdict(trap.vector == (ends ? DONE : X86_DB) &&
                             task_left.tr == NEW_SEL &&
                             dr6 == (ends  ? 0u
                                     : hit ? 1u
                                           : X86_DR6_BS) &&
                             (ends || trap.r.ip == (ulong)nops + (hit ? 0 : 1)),
                         "TF, RF", how, dr6, k);
        }
    }
}

/* --- external interrupts --- */

#define APIC 0xfee00000ul

static void apic(unsigned reg, uint32_t v) {
    *(volatile uint32_t *)(APIC + reg) = v;
}

/* One thing wrong, and what comes of it; the error code says that no instruction did it.
 */
static unsigned spoil(unsigned what, unsigned *error) {
    switch (what) {
    case 0:
        idt[VECTOR].ar &= 0x7f;
        *error = VECTOR * 8 + IDT_BIT;
        return X86_NP;
    case 1:
        gdt[NEW_SEL >> 3] &= ~(1ull << 47);
        *error = NEW_SEL;
        return X86_NP;
    case 2:
        gdt[NEW_SEL >> 3] |= 2ull << 40;
        *error = NEW_SEL;
        return X86_GP;
    case 3:
        gdt_set_sys(NEW_SEL, (ulong)task_new_tss, 0x66, X86_AR_P | X86_DESC_TSS32);
        *error = NEW_SEL;
        return X86_TS;
    case 4: /* SS */
        task_put(task_new_tss, 0x50, CODE_SEL(3), 4);
        *error = CODE_SEL(3) & ~3u;
        return X86_TS;
    case 5: /* CS */
        task_put(task_new_tss, 0x4c, DATA_SEL(3), 4);
        *error = DATA_SEL(3) & ~3u;
        return X86_TS;
    default:
        *error = 0;
        return DONE;
    }
}

static void external(void) {
    void *code = CODE("mov dword ptr [0xfee00300], 0x44050\n"
                      "mov ecx, 100\n1: loop 1b\nnop");
    apic(0xf0, 0x1ff);
    for (unsigned k = 0; k < 28; k++) {
        unsigned error, vector;
        task_begin(INT_N, k & 3, 3);
        in.flags |= X86_FL_IF;
        idt[VECTOR].ar &= 0x9f; /* DPL 0 is for INT n */
        vector = spoil(k >> 2, &error);
        uint32_t from = (uint32_t)(ulong)code, saved;
        run(code);
        task_leave();
        apic(0xb0, 0); /* EOI */
        memcpy(&saved, task_old_tss + 0x20, 4);
        bool gone = k >> 2 >= 4; /* to the new task */
        task_verdict(trap.vector == vector && trap.error == (error | (error ? EXT : 0)) &&
                         task_left.tr == (gone ? NEW_SEL : OLD_SEL) &&
                         (!gone || (saved > from && saved < from + CODE_LEN(code))) &&
                         (gone || trap.r.cs == CODE_SEL(k & 3)) &&
                         (vector != DONE || (trap.r.flags & X86_FL_NT)),
                     "external interrupt", INT_N, error, saved);
    }
}

/* --- with paging: CR3, and pages that are not there --- */

#define WINDOW 0x7000000ul /* beyond the identity map */

static void paged(enum space_kind kind) {
    struct space a, b;
    uint32_t *pages[2] = {page_alloc(), page_alloc()};
    void *look = CODE("mov eax, [0x7000000]");
    space_new(&a, kind, RWU);
    space_new(&b, kind, RWU);
    space_map(&a, WINDOW, (ulong)pages[0], RWU, 1);
    space_map(&b, WINDOW, (ulong)pages[1], RWU, 1);
    pages[0][0] = 0xaaaa0001, pages[1][0] = 0xbbbb0002;
    space_load(&a);
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        task_from(how & 3);
        task_to(3);
        task_in.ip = (uint32_t)(ulong)look;
        task_prepare(true, true, how);
        task_put(task_new_tss, 0x1c, (uint32_t)b.root, 4);
        task_arm(how);
        run(task_code[how]);
        ulong cr3 = read_cr3();
        uint32_t saved;
        memcpy(&saved, task_old_tss + 0x1c, 4);
        task_leave();
        space_load(&a);
        task_verdict(trap.vector == DONE && trap.r.ax == 0xbbbb0002 && cr3 == b.root &&
                         saved == a.root,
                     "CR3", how, cr3, trap.r.ax);
    }
    paging_off();
}

/* Each page of what a switch touches is missing in turn: #PF, and nothing has changed. */
static void missing(enum space_kind kind) {
    static const enum how ways[] = {JMP, CALL, INT_N, IRET};
    struct space s;
    uint8_t *area = page_alloc();
    space_new(&s, kind, RWU);
    for (unsigned k = 0; k < COUNT(ways) * 3; k++) {
        enum how how = ways[k % COUNT(ways)];
        unsigned what = k / COUNT(ways);
        space_map(&s, WINDOW, (ulong)area, what == 2 ? X86_PTE_P | X86_PTE_U : RWU, 1);
        space_load(&s);
        task_begin(how, 3, 3);
        /* 0: the new TSS; 1, 2: the old one, not there or not to be written. */
        if (what == 0) {
            gdt_set_sys(NEW_SEL, WINDOW, 0x67, task_ar_of(NEW_SEL));
        } else {
            memcpy(area, task_old_tss, 128);
            gdt_set_sys(OLD_SEL, WINDOW, 0x67, X86_AR_P | X86_DESC_TSS32);
            __asm__ volatile("ltr %w0" ::"r"(OLD_SEL));
        }
        uint64_t old0 = gdt[OLD_SEL >> 3], new0 = gdt[NEW_SEL >> 3];
        /* The stack that level 3 would take its fault on is in the old TSS. */
        if (what)
            task_from(0);
        if (how == IRET)
            in.flags |= X86_FL_NT;
        if (what != 2)
            space_set(&s, WINDOW, 1, 0);
        write_cr0(read_cr0() | X86_CR0_WP);
        write_cr3(s.root);
        run(task_code[how]);
        bool kept = gdt[OLD_SEL >> 3] == old0 && gdt[NEW_SEL >> 3] == new0;
        task_leave();
        write_cr0(read_cr0() & ~(ulong)X86_CR0_WP);
        task_verdict(trap.vector == X86_PF && (trap.cr2 & ~0xffful) == WINDOW && kept &&
                         task_left.tr == OLD_SEL && !task_left.ts &&
                         trap.r.ip == (ulong)task_code[how] && trap.r.ax == in.ax &&
                         !(trap.error & X86_PF_U),
                     "missing", how, trap.error, trap.cr2);
        paging_off();
    }
}

void guest_main(void) {
    task_setup();
    all_ways();
    new_flags();
    to_v86();
    direct();
    indirect();
    gates();
    limits();
    new_segments();
    new_selectors();
    locals();
    trap_bit();
    stepping();
    external();
    paged(SPACE_32);
    paged(SPACE_PAE);
    missing(SPACE_32);
    missing(SPACE_PAE);
    task_report();
}
