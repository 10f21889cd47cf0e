/*
 * What happens between instructions: interrupts and their shadows, single-stepping,
 * breakpoints, and the flags and addresses that their handlers find on the stack.
 *
 * Guests are a few bytes of 32-bit code in flat protected mode. Each vector has a handler
 * of 16 bytes, a HLT unless the test puts something else there, so that rip says which
 * one was entered.
 */
#include "lib/exec.h"
#include "lib/unit.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"

enum {
    CODE = FLAT_CODE,
    IDT = FLAT_IDT,
    GDT = FLAT_GDT,
    HANDLERS = FLAT_HANDLERS,
    DATA = 0x20000,
    STACK = FLAT_STACK,
    IRQ = 0x30,
};

static struct vcpu V;
static struct guest G;
static struct cpuid_model *models[2]; /* of Intel, of AMD */
static unsigned outs, irq_at_out, flush_at_out;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    if (e->reason != EXIT_io)
        return;
    outs++;
    if (outs == irq_at_out)
        vcpu_raise(v, VCPU_EVENT_IRQ);
    if (outs == flush_at_out)
        interp_flush(G.ip);
}

static int on_irq_ack(void *arg) {
    vcpu_clear(&V, VCPU_EVENT_IRQ);
    return IRQ;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook, .irq_ack = on_irq_ack};

static void code(uint64_t at, const char *bytes, unsigned len) {
    assert_true(mem_write(V.mem, gpa(at), bytes, len));
}
#define CODE_AT(at, s) code(at, s, sizeof(s) - 1)

static uint32_t handler(unsigned vector) {
    return HANDLERS + vector * 16;
}

static uint32_t word(uint64_t at) {
    uint32_t x;
    assert_true(mem_read(V.mem, gpa(at), &x, 4));
    return x;
}

/* The N-th doubleword from the top of the stack. */
static uint32_t pushed(unsigned n) {
    return word(V.gpr[REG_RSP] + 4 * n);
}

static int fresh(void **state) {
    interp_flush(G.ip);
    V.cpuid = models[1];
    exec_start_flat(&G, 16);
    V.gpr[REG_RBX] = DATA;
    outs = irq_at_out = flush_at_out = 0;
    memset(&G.cnt, 0, sizeof(G.cnt));
    return 0;
}

static int group_setup(void **state) {
    const struct cpuid_config intel = {.vendor = CPUID_VENDOR_INTEL,
                                       .tsc_hz = 1000000000};
    const struct guest_config cfg = {.ram = 8 << 20,
                                     .cpuid = {.vendor = CPUID_VENDOR_AMD},
                                     .vcpu = &V,
                                     .hooks = &hooks,
                                     .interp = true};

    guest_new(&G, &cfg);
    models[0] = cpuid_model_new(&intel);
    models[1] = (struct cpuid_model *)(uintptr_t)V.cpuid;
    return models[0] ? 0 : -1;
}

static int group_teardown(void **state) {
    V.cpuid = models[1];
    guest_free(&G);
    cpuid_model_free(models[0]);
    return 0;
}

/* Runs to the HLT of VECTOR's handler. */
static void ends_in(unsigned vector) {
    assert_int_equal(interp_step(G.ip, 10000), EXIT_halt);
    assert_int_equal(V.rip, handler(vector) + 1);
}

static void breakpoint(unsigned n, uint64_t at, unsigned how) {
    V.dr[n] = at;
    V.dr[7] |= 2u << (2 * n) | (uint64_t)how << (16 + 4 * n);
    mmu_breakpoints_changed(&V);
}
enum { BP_EXEC = 0, BP_WRITE = 1, BP_IO = 2, BP_ACCESS = 3, BP_LEN4 = 12 };

/* --- interrupts --- */

static void test_irq(void **state) {
    /* One instruction runs in STI's shadow. */
    CODE_AT(CODE, "\xfb\x40\x40\x40"); /* sti; inc eax ... */
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    ends_in(IRQ);
    assert_int_equal(V.gpr[REG_RAX], 1);
    assert_int_equal(pushed(0), CODE + 2);
    assert_int_equal(pushed(1), 8);
    assert_int_equal(pushed(2), X86_FL_IF | X86_FL_ONE);
    assert_false(V.rflags & X86_FL_IF);
    assert_int_equal(G.cnt.interrupts_delivered, 1);
    assert_int_equal(G.cnt.insns_retired, 3);

    /* STI while IF is set casts none. */
    fresh(state);
    V.rflags |= X86_FL_IF;
    CODE_AT(CODE, "\xe6\x80\xfb\x40"); /* out 0x80; sti; inc eax */
    irq_at_out = 1;
    ends_in(IRQ);
    assert_int_equal(pushed(0), CODE + 2);

    /* POPF has no shadow; MOV SS has one. */
    fresh(state);
    CODE_AT(CODE, "\x68\x02\x02\x00\x00\x9d\x40"); /* push 0x202; popf; inc eax */
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    ends_in(IRQ);
    assert_int_equal(pushed(0), CODE + 6);
    fresh(state);
    V.rflags |= X86_FL_IF;
    V.gpr[REG_RAX] = 16;
    CODE_AT(CODE, "\xe6\x80\x8e\xd0\x40\x40"); /* out; mov ss, ax; inc eax; inc eax */
    interp_step(G.ip, 2);
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    ends_in(IRQ);
    assert_int_equal(pushed(0), CODE + 5);
}

static void test_irq_and_hlt(void **state) {
    CODE_AT(CODE, "\xfb\xf4\x40");
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_int_equal(V.rip, CODE + 2);
    assert_int_equal(interp_run(G.ip), EXIT_halt); /* again: still nothing */
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    ends_in(IRQ);
    assert_int_equal(pushed(0), CODE + 2);
    /* Not with IF clear; an NMI comes in any case. */
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_int_equal(V.rip, handler(IRQ) + 1);
    vcpu_raise(&V, VCPU_EVENT_NMI);
    ends_in(X86_NMI);
    assert_int_equal(pushed(0), handler(IRQ) + 1);
    /* Not at another level than 0. */
    fresh(state);
    CODE_AT(CODE, "\xf4");
    V.seg[SEG_CS].sel |= 3;
    V.cpl = 3;
    V.idtr.limit = 0;
    vcpu_update_mode(&V);
    mmu_context_changed(&V);
    assert_int_equal(interp_run(G.ip), EXIT_shutdown);
    assert_int_equal(G.cnt.insns_retired, 0);
}

static void test_nmi_blocking(void **state) {
    CODE_AT(CODE, "\xeb\xfe");
    CODE_AT(handler(X86_NMI), "\x45\xe6\x80\xcf"); /* inc ebp; out; iret */
    vcpu_raise(&V, VCPU_EVENT_NMI);
    interp_step(G.ip, 2);
    assert_true(V.nmi_blocked);
    vcpu_raise(&V, VCPU_EVENT_NMI);
    interp_step(G.ip, 1);
    assert_int_equal(V.gpr[REG_RBP], 1);
    assert_int_equal(V.rip, CODE);
    interp_step(G.ip, 1);
    assert_int_equal(V.gpr[REG_RBP], 2);
    assert_int_equal(V.rip, handler(X86_NMI) + 1);
    /* The second frame is where the first one was. */
    assert_int_equal(V.gpr[REG_RSP], STACK - 12);
}

/* Between two iterations RF is set in what is pushed, so that a breakpoint on the
 * instruction does not hit again. Intel SDM volume 3, "Instruction-Breakpoint Exception
 * Condition". */
/* RF in what is pushed amid a repetition: of Intel's CPUs, not of AMD's. */
static uint32_t rf_amid(bool amd) {
    V.cpuid = models[amd];
    return amd ? 0 : X86_FL_RF;
}

static void irq_in_rep(bool amd) {
    uint32_t rf = rf_amid(amd);

    V.rflags |= X86_FL_IF;
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RCX] = 5;
    V.gpr[REG_RDX] = 0x80;
    CODE_AT(CODE, "\xf3\x6e\x40\xf4");             /* rep outsb; inc eax; hlt */
    CODE_AT(handler(IRQ), "\x8b\x6c\x24\x08\xcf"); /* mov ebp, [esp+8]; iret */
    irq_at_out = 3;
    interp_step(G.ip, 10000);
    assert_int_equal(V.rip, CODE + 4);
    assert_int_equal(outs, 5);
    assert_int_equal(V.gpr[REG_RBP], X86_FL_ONE | X86_FL_IF | rf);
    assert_int_equal(V.gpr[REG_RAX], 1);
    assert_false(V.rflags & X86_FL_RF);
}

static void test_irq_in_rep(void **state) {
    irq_in_rep(false);
    fresh(state);
    irq_in_rep(true);

    /* After the last iteration it is not. */
    fresh(state);
    V.rflags |= X86_FL_IF;
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RCX] = 3;
    irq_at_out = 3;
    ends_in(IRQ);
    assert_int_equal(pushed(0), CODE + 2);
    assert_int_equal(pushed(2), X86_FL_ONE | X86_FL_IF);

    /* A piece of a page is an iteration, too; a breakpoint on it hits once. */
    fresh(state);
    CODE_AT(CODE, "\xf3\xaa\xf4");                            /* rep stosb; hlt */
    CODE_AT(handler(X86_DB), "\x45\x80\x4c\x24\x0a\x01\xcf"); /* inc ebp; set RF; iret */
    breakpoint(0, CODE, BP_EXEC);
    V.gpr[REG_RDI] = DATA;
    V.gpr[REG_RCX] = 0x3000;
    interp_step(G.ip, 100000);
    assert_int_equal(V.rip, CODE + 3);
    assert_int_equal(V.gpr[REG_RBP], 1);
    assert_int_equal(V.gpr[REG_RDI], DATA + 0x3000);
}

/* --- single-stepping --- */

static void test_step(void **state) {
    /* POPF that sets TF: the trap comes after the instruction that follows it. */
    CODE_AT(CODE, "\x68\x02\x01\x00\x00\x9d\x40\x40"); /* push 0x102; popf; inc; inc */
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 7);
    assert_int_equal(pushed(2), X86_FL_ONE | X86_FL_TF);
    assert_int_equal(V.dr[6] & 0xf00f, X86_DR6_BS);
    assert_false(V.rflags & X86_FL_TF);

    /* POPF that clears it is still trapped. */
    fresh(state);
    CODE_AT(CODE, "\x6a\x02\x9d\x40");
    V.rflags |= X86_FL_TF;
    V.rip = CODE + 2;
    V.gpr[REG_RSP] = STACK - 4;
    code(STACK - 4, "\x02\x00\x00\x00", 4);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 3);
    assert_int_equal(pushed(2), X86_FL_ONE);

    /* INT enters its handler with TF clear and no trap; the one after IRET comes late. */
    fresh(state);
    CODE_AT(CODE, "\xcd\x20\x40\x40");
    CODE_AT(handler(0x20), "\x45\xcf");
    V.rflags |= X86_FL_TF;
    ends_in(X86_DB);
    assert_int_equal(V.gpr[REG_RBP], 1);
    assert_int_equal(pushed(0), CODE + 3);
    assert_int_equal(V.gpr[REG_RAX], 1);

    /* INTO that does nothing is an instruction like any other. */
    fresh(state);
    CODE_AT(CODE, "\xce\x40");
    V.rflags |= X86_FL_TF;
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 1);

    /* A fault has no trap of its own; RF is for it, TF is in what it pushes. */
    fresh(state);
    CODE_AT(CODE, "\x0f\x0b");
    V.rflags |= X86_FL_TF;
    ends_in(X86_UD);
    assert_int_equal(pushed(0), CODE);
    assert_int_equal(pushed(2), X86_FL_ONE | X86_FL_TF | X86_FL_RF);
    assert_int_equal(V.dr[6], X86_DR6_FIXED);

    /* HLT: the trap wakes the processor up. */
    fresh(state);
    CODE_AT(CODE, "\xf4");
    V.rflags |= X86_FL_TF;
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 1);
}

/* A trap after every iteration; Intel's CPUs push RF after all but the last. */
static void step_rep(bool amd) {
    uint32_t rf = rf_amid(amd);

    CODE_AT(CODE, "\xf3\xab\xeb\xfe"); /* rep stosd; jmp $ */
    /* mov eax, [esp+8]; inc ebp; iret: the string is the flags that were pushed */
    CODE_AT(handler(X86_DB), "\x8b\x44\x24\x08\x45\xcf");
    V.rflags |= X86_FL_TF;
    V.gpr[REG_RDI] = DATA;
    V.gpr[REG_RCX] = 3;
    interp_step(G.ip, 1 + 3 * 3);
    assert_int_equal(V.gpr[REG_RBP], 3);
    assert_int_equal(V.gpr[REG_RCX], 0);
    assert_int_equal(word(DATA + 4), X86_FL_ONE | X86_FL_TF | rf);
    assert_int_equal(word(DATA + 8), X86_FL_ONE | X86_FL_TF | rf);
    assert_int_equal(V.gpr[REG_RAX], X86_FL_ONE | X86_FL_TF);
}

static void test_step_rep(void **state) {
    step_rep(false);
    fresh(state);
    step_rep(true);
}

/* MOV SS holds all debug exceptions back until the next instruction is done. Intel SDM
 * volume 3, "Masking Exceptions and Interrupts When Switching Stacks". */
static void test_mov_ss(void **state) {
    CODE_AT(CODE, "\x8e\xd0\x41\x41"); /* mov ss, ax; inc ecx; inc ecx */
    V.gpr[REG_RAX] = 16;
    V.rflags |= X86_FL_TF;
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 3);
    assert_int_equal(V.gpr[REG_RCX], 1);

    /* A data breakpoint that it hit. */
    fresh(state);
    CODE_AT(CODE, "\x8e\x13\x41\x41"); /* mov ss, [ebx]; inc ecx; inc ecx */
    CODE_AT(DATA, "\x10\x00");
    breakpoint(2, DATA, BP_ACCESS);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 3);
    assert_int_equal(V.dr[6] & 0xf00f, 4);

    /* With a software interrupt in between, the trap is the handler's. */
    fresh(state);
    CODE_AT(CODE, "\x8e\x13\xcd\x20");
    CODE_AT(DATA, "\x10\x00");
    breakpoint(2, DATA, BP_ACCESS);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), handler(0x20));

    /* A fault in between: the trap is lost. */
    fresh(state);
    CODE_AT(CODE, "\x8e\x13\x0f\x0b"); /* ud2 */
    breakpoint(2, DATA, BP_ACCESS);
    ends_in(X86_UD);
    assert_int_equal(V.dr[6] & 0xf00f, 0);
    assert_int_equal(V.pending_db, 0);
}

/* An execution breakpoint on the instruction behind MOV SS: Intel's CPUs pass over it,
 * and what MOV SS has hit comes behind; AMD's take it, and that is lost. */
static void test_mov_ss_execution(void **state) {
    for (unsigned amd = 0; amd < 2; amd++) {
        for (unsigned hit = 0; hit < 2; hit++) {
            fresh(state);
            V.cpuid = models[amd];
            CODE_AT(CODE, "\x8e\x13\x41\x41\xf4");
            CODE_AT(DATA, "\x10\x00");
            breakpoint(0, CODE + 2, BP_EXEC);
            if (hit)
                breakpoint(2, DATA, BP_ACCESS);
            if (!amd && !hit) {
                interp_step(G.ip, 100);
                assert_int_equal(V.rip, CODE + 5);
                continue;
            }
            ends_in(X86_DB);
            assert_int_equal(pushed(0), amd ? CODE + 2 : CODE + 3);
            assert_int_equal(V.dr[6] & 0xf00f, amd ? 1 : 4);
            assert_int_equal(V.pending_db, 0);
        }
    }
}

/* INT1 is a #DB of its own, and the only one, whatever MOV SS has left. */
static void test_mov_ss_int1(void **state) {
    for (unsigned amd = 0; amd < 2; amd++) {
        for (unsigned hit = 0; hit < 2; hit++) {
            fresh(state);
            V.cpuid = models[amd];
            CODE_AT(CODE, "\x8e\x13\xf1\x41");
            CODE_AT(DATA, "\x10\x00");
            V.dr[6] |= X86_DR6_BD | 9;
            V.rflags |= X86_FL_TF;
            if (hit)
                breakpoint(2, DATA, BP_ACCESS);
            ends_in(X86_DB);
            assert_int_equal(V.gpr[REG_RSP], STACK - 12);
            assert_int_equal(pushed(0), CODE + 3);
            assert_int_equal(V.dr[6] & 0xf00f, X86_DR6_BD | (hit ? 4 : amd ? 9 : 0));
            assert_int_equal(V.pending_db, 0);
        }
    }
}

/* The frame of an exception, an interrupt or a #DB hits a breakpoint: #DB comes before
 * the handler's first instruction, and before an interrupt. */
static void test_frame_breakpoints(void **state) {
    CODE_AT(CODE, "\x40\x0f\x0b");
    breakpoint(0, STACK - 12, BP_WRITE | BP_LEN4); /* eip */
    ends_in(X86_DB);
    assert_int_equal(pushed(0), handler(X86_UD));
    assert_int_equal(V.dr[6] & 0xf00f, 1);

    fresh(state);
    CODE_AT(CODE, "\xfb\x40\x40");
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    breakpoint(0, STACK - 12, BP_WRITE | BP_LEN4);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), handler(IRQ));

    fresh(state);
    CODE_AT(CODE, "\x89\x03\x40"); /* mov [ebx], eax */
    CODE_AT(handler(X86_DB), "\x41\xf4");
    breakpoint(0, STACK - 12, BP_WRITE | BP_LEN4);
    breakpoint(1, DATA, BP_WRITE);
    interp_step(G.ip, 1000);
    assert_int_equal(V.rip, handler(X86_DB) + 2);
    assert_int_equal(V.gpr[REG_RCX], 1);
    assert_int_equal(pushed(0), handler(X86_DB));
    assert_int_equal(pushed(3), CODE + 2);
    assert_int_equal(V.dr[6] & 0xf00f, 1);
}

/* #DB whose frame, at the top of an IST stack, hits a breakpoint is followed by another
 * for ever, as on a processor. No instruction is retired, but we can leave. */
static void test_endless_traps(void **state) {
    enum { TSS = 0x8000, TABLES = 0x9000, IST = STACK + 0x1000 };
    uint64_t gate[2] = {handler(X86_DB) | 8ull << 16 | 0x8e01ull << 32, 0}, at = IST;
    uint64_t root = TABLES + 0x1007, page = 0x83, cs = 0x00af9b000000ffff;

    mem_write(V.mem, gpa(TABLES), &root, 8);
    mem_write(V.mem, gpa(TABLES + 0x1000), &page, 8); /* 1 GiB */
    mem_write(V.mem, gpa(GDT + 8), &cs, 8);
    mem_write(V.mem, gpa(IDT + 16), gate, 16);
    mem_write(V.mem, gpa(TSS + 0x24), &at, 8);
    V.tr = (struct segment){.base = TSS, .limit = 0x67, .ar = X86_AR_P | 11};
    V.cr4 |= X86_CR4_PAE;
    V.cr3 = TABLES;
    V.efer = X86_EFER_LME | X86_EFER_LMA;
    V.cr0 |= X86_CR0_PG;
    V.seg[SEG_CS].ar = 0xa09b;
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
    mmu_context_changed(&V);
    CODE_AT(CODE, "\x88\x03\x90"); /* mov [rbx], al */
    breakpoint(0, IST - 8, BP_WRITE);
    breakpoint(1, DATA, BP_WRITE);
    assert_int_equal(interp_step(G.ip, 100), EXIT_kick);
    assert_int_equal(G.cnt.insns_retired, 1);
    assert_true(G.cnt.exceptions_delivered >= 90);
    vcpu_raise(&V, VCPU_EVENT_STOP);
    assert_int_equal(interp_run(G.ip), EXIT_kick);
    assert_int_equal(G.cnt.insns_retired, 1);
}

/* --- breakpoints --- */

static void test_data_breakpoints(void **state) {
    CODE_AT(CODE, "\x8b\x03\x89\x43\x02\x40\x40"); /* mov eax,[ebx]; mov [ebx+2],eax */
    breakpoint(1, DATA + 4, BP_WRITE | BP_LEN4);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 5);
    assert_int_equal(pushed(2), X86_FL_ONE); /* a trap: no RF */
    assert_int_equal(V.dr[6] & 0xf00f, 2);

    /* Reads, for which it says so; not of the bytes beside. */
    fresh(state);
    CODE_AT(CODE, "\x8a\x43\x03\x8a\x43\x08\x8a\x43\x07\x40");
    breakpoint(3, DATA + 4, BP_ACCESS | BP_LEN4);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 9);
    assert_int_equal(V.dr[6] & 0xf00f, 8);

    /* In the middle of a repeated move: after the iteration. */
    for (int amd = 0; amd < 2; amd++) {
        fresh(state);
        uint32_t rf = rf_amid(amd);

        CODE_AT(CODE, "\xf3\xa4\x40");
        V.gpr[REG_RSI] = DATA + 0x100;
        V.gpr[REG_RDI] = DATA;
        V.gpr[REG_RCX] = 8;
        breakpoint(0, DATA + 5, BP_WRITE);
        ends_in(X86_DB);
        assert_int_equal(V.gpr[REG_RCX], 2);
        assert_int_equal(pushed(0), CODE);
        assert_int_equal(pushed(2), X86_FL_ONE | rf);
    }

    /* An instruction that faults after its first access has done nothing. */
    fresh(state);
    V.seg[SEG_ES] = (struct segment){0};
    vcpu_update_mode(&V);
    CODE_AT(CODE, "\xa4"); /* movsb to a null segment */
    V.gpr[REG_RSI] = DATA;
    breakpoint(0, DATA, BP_ACCESS);
    ends_in(X86_GP);
    assert_int_equal(V.dr[6] & 0xf00f, 0);

    /* Switched off, the page is an ordinary one again. */
    fresh(state);
    CODE_AT(CODE, "\x88\x03\xf4");
    breakpoint(0, DATA, BP_WRITE);
    V.dr[7] = X86_DR7_FIXED;
    mmu_breakpoints_changed(&V);
    interp_step(G.ip, 10);
    assert_int_equal(V.rip, CODE + 3);
}

static void test_io_breakpoints(void **state) {
    CODE_AT(CODE, "\xe4\x7f\xe5\x7e\x40"); /* in al, 0x7f; in eax, 0x7e */
    V.cr4 |= X86_CR4_DE;
    breakpoint(0, 0x80, BP_IO);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 4);
    assert_int_equal(V.dr[6] & 0xf00f, 1);
    /* Strings, after each iteration; and not without CR4.DE. */
    fresh(state);
    CODE_AT(CODE, "\xf3\x6e\xf4");
    V.cr4 |= X86_CR4_DE;
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RCX] = 3;
    V.gpr[REG_RDX] = 0x80;
    breakpoint(0, 0x80, BP_IO);
    ends_in(X86_DB);
    assert_int_equal(V.gpr[REG_RCX], 2);
    fresh(state);
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RCX] = 3;
    V.gpr[REG_RDX] = 0x80;
    breakpoint(0, 0x80, BP_IO);
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_int_equal(V.rip, CODE + 3);
}

static void test_execution_breakpoints(void **state) {
    /* Before the fetch: CS ends before the instruction, and #DB comes first. */
    breakpoint(1, CODE + 1, BP_EXEC);
    V.seg[SEG_CS].limit = CODE;
    CODE_AT(CODE, "\x40");
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 1);
    V.halted = false;
    V.rip = CODE + 1;
    V.rflags |= X86_FL_RF;
    V.seg[SEG_CS].limit = CODE;
    ends_in(X86_GP);
    assert_int_equal(pushed(1), CODE + 1);
    assert_int_equal(pushed(3), X86_FL_ONE | X86_FL_RF);
    assert_int_equal(V.dr[6] & 0xf00f, 2);

    /* It is a fault that leaves RF clear; general detect is one that sets it. */
    fresh(state);
    CODE_AT(CODE, "\x40");
    breakpoint(1, CODE, BP_EXEC);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE);
    assert_int_equal(pushed(2), X86_FL_ONE);
    fresh(state);
    CODE_AT(CODE, "\x0f\x21\xc0"); /* mov eax, dr0 */
    V.dr[7] |= X86_DR7_GD;
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE);
    assert_int_equal(pushed(2), X86_FL_ONE | X86_FL_RF);
    assert_int_equal(V.dr[6] & 0xf00f, X86_DR6_BD);
    assert_false(V.dr[7] & X86_DR7_GD);

    /* Trap of the instruction before and breakpoint at the same place: the trap first. */
    fresh(state);
    CODE_AT(CODE, "\x40\x40");
    breakpoint(0, CODE + 1, BP_EXEC);
    V.rflags |= X86_FL_TF;
    ends_in(X86_DB);
    assert_int_equal(V.dr[6] & 0xf00f, X86_DR6_BS);
    assert_int_equal(pushed(0), CODE + 1);
}

/* --- decoded code --- */

/* A hook in the middle of a block drops all decoded code: the block runs to its end. */
static void test_flush_in_block(void **state) {
    CODE_AT(CODE, "\x41\xe6\x80\x41\x41\xf4"); /* inc ecx; out; inc ecx; inc ecx; hlt */
    flush_at_out = 1;
    interp_step(G.ip, 1000);
    assert_int_equal(V.gpr[REG_RCX], 3);
    assert_int_equal(G.cnt.insns_retired, 5);
    assert_true(G.cnt.blocks_decoded >= 2);
}

/* A fetch that faults on its second page: CR2 is that page, rip the instruction. */
static void test_fetch_fault(void **state) {
    enum { PD = 0x10000, PT = 0x11000 };
    uint32_t pde = PT | 3, big = 0x83, pte;
    memset(mem_host(V.mem, gpa(PD), 1), 0, 0x2000);
    for (uint32_t k = 0; k < 1024; k++) {
        pte = k << 12 | 3;
        mem_write(V.mem, gpa(PT + k * 4), &pte, 4);
    }
    pte = 0;
    mem_write(V.mem, gpa(PT + (CODE + 0x1000) / 4096 * 4), &pte, 4);
    mem_write(V.mem, gpa(PD), &pde, 4);
    mem_write(V.mem, gpa(PD + 4), &big, 4);
    V.cr3 = PD;
    V.cr4 |= X86_CR4_PSE;
    V.cr0 |= X86_CR0_PG;
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
    V.rip = CODE + 0xffe;
    CODE_AT(CODE + 0xffe, "\xb8\x01\x02\x03\x04");
    ends_in(X86_PF);
    assert_int_equal(V.cr2, CODE + 0x1000);
    assert_int_equal(pushed(0), 0); /* a supervisor's read; no NX, no SMEP: no I bit */
    assert_int_equal(pushed(1), CODE + 0xffe);
    assert_int_equal(G.cnt.true_page_faults, 1);
    /* Not if the first page has a whole instruction, or an invalid one. */
    V.rip = CODE + 0xffe;
    V.halted = false;
    CODE_AT(CODE + 0xffe, "\x0f\x0b");
    ends_in(X86_UD);
    assert_int_equal(pushed(0), CODE + 0xffe);
    /* A code breakpoint there comes before the fault. */
    V.rip = CODE + 0x1000;
    V.halted = false;
    breakpoint(0, CODE + 0x1000, BP_EXEC);
    ends_in(X86_DB);
    assert_int_equal(G.cnt.true_page_faults, 1);
}

/* Retired: what completed, be it an interrupt's INT or a string; not what faulted. */
static void test_retired(void **state) {
    CODE_AT(CODE, "\x40\xcd\x20\x0f\x0b"); /* inc eax; int 0x20; ud2 */
    CODE_AT(handler(0x20), "\xcf");
    ends_in(X86_UD);
    assert_int_equal(G.cnt.insns_retired, 4); /* inc, int, iret, hlt */
}

/* --- the T bit of a task --- */

enum { TSS = 0x8000, OLD_TSS = 0x8400, SEL_OLD = 0x18, SEL_TASK = 0x100 };

static void put_tss_descriptor(unsigned at, unsigned tss) {
    uint64_t desc = 0x0000890000000067 | (uint64_t)tss << 16;
    mem_write(V.mem, gpa(at), &desc, 8);
}

/* A 32-bit task at HANDLER that is traced, with interrupts allowed. */
static void put_task(unsigned tss, unsigned handler_at) {
    static const uint8_t off[] = {0x20, 0x24, 0x38, 0x48, 0x4c, 0x50, 0x54, 0x64};
    uint32_t val[] = {handler_at, 0x202, STACK, 16, 8, 16, 16, 1};
    for (unsigned k = 0; k < ARRAY_SIZE(off); k++)
        mem_write(V.mem, gpa(tss + off[k]), &val[k], 4);
}

static void put_task_gate(unsigned vector, unsigned sel) {
    uint64_t gate = (uint64_t)sel << 16 | 0x8500ull << 32;
    mem_write(V.mem, gpa(IDT + vector * 8), &gate, 8);
}

static void start_tasks(void) {
    V.gdtr.limit = 0x2ff;
    put_tss_descriptor(GDT + SEL_OLD, OLD_TSS);
    V.tr = (struct segment){.sel = SEL_OLD, .ar = 0x8b, .limit = 0x67, .base = OLD_TSS};
}

/* #DB comes after the switch, before the first instruction and before an interrupt. */
static void test_task_trap(void **state) {
    start_tasks();
    put_task(TSS, CODE + 0x100);
    put_tss_descriptor(GDT + SEL_TASK, TSS);
    put_task_gate(0x21, SEL_TASK);
    CODE_AT(CODE, "\xcd\x21"); /* int */
    CODE_AT(CODE + 0x100, "\x41\xf4");
    assert_int_equal(interp_step(G.ip, 1), EXIT_kick);
    assert_int_equal(V.rip, CODE + 0x100);
    assert_int_equal(V.pending_db, X86_DR6_BT);
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    ends_in(X86_DB);
    assert_int_equal(V.dr[6] & 0xe00f, X86_DR6_BT);
    assert_int_equal(pushed(0), CODE + 0x100);
    assert_int_equal(V.gpr[REG_RCX], 0);
    assert_true(vcpu_events(&V) & VCPU_EVENT_IRQ);
}

/* An interrupt's task: the #DB comes first there, too. */
static void test_task_trap_of_irq(void **state) {
    start_tasks();
    put_task(TSS, CODE + 0x100);
    put_tss_descriptor(GDT + SEL_TASK, TSS);
    put_task_gate(IRQ, SEL_TASK);
    CODE_AT(CODE, "\x90\xf4");
    CODE_AT(CODE + 0x100, "\x41\xf4");
    V.rflags |= X86_FL_IF;
    vcpu_raise(&V, VCPU_EVENT_IRQ);
    ends_in(X86_DB);
    assert_int_equal(pushed(0), CODE + 0x100);
    assert_int_equal(V.gpr[REG_RCX], 0);
}

/* Two traced tasks for #DB and #GP that make each other available, by ESI and EDI, which
 * are saved where the descriptors are: no instruction is ever reached. The interpreter
 * comes back as it was told, and at once when the run is to end. */
static void test_task_loop(void **state) {
    start_tasks();
    for (unsigned k = 0; k < 2; k++) {
        unsigned sel = SEL_TASK + k * 0x100;
        put_task(GDT + sel - 0x40, CODE + 0x100);
        put_tss_descriptor(GDT + sel, GDT + sel - 0x40);
        put_task_gate(k ? X86_GP : X86_DB, sel);
    }
    CODE_AT(CODE, "\xf1"); /* int1 */
    CODE_AT(CODE + 0x100, "\xf4");
    assert_int_equal(interp_step(G.ip, 1000), EXIT_kick);
    assert_true(V.tr.sel == SEL_TASK || V.tr.sel == SEL_TASK + 0x100);
    assert_int_equal(V.rip, CODE + 0x100);
    assert_int_equal(G.cnt.insns_retired, 1);
    assert_in_range(G.cnt.exceptions_delivered, 100, 2000);
    vcpu_raise(&V, VCPU_EVENT_STOP);
    assert_int_equal(interp_step(G.ip, UINT64_MAX), EXIT_kick);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup(f, fresh)
        T(test_irq),
        T(test_task_trap),
        T(test_task_trap_of_irq),
        T(test_task_loop),
        T(test_irq_and_hlt),
        T(test_nmi_blocking),
        T(test_irq_in_rep),
        T(test_step),
        T(test_step_rep),
        T(test_mov_ss),
        T(test_mov_ss_execution),
        T(test_mov_ss_int1),
        T(test_frame_breakpoints),
        T(test_endless_traps),
        T(test_data_breakpoints),
        T(test_io_breakpoints),
        T(test_execution_breakpoints),
        T(test_flush_in_block),
        T(test_fetch_fault),
        T(test_retired),
#undef T
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
