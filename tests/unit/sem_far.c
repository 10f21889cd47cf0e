/*
 * Far transfers, event delivery and task switches, on descriptor tables built in RAM.
 *
 * Each test sets a level, runs one transfer, and checks the whole effect: registers, the
 * frame in memory, or the fault with its error code and an unchanged vCPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "sem/far_int.h"
#include "x86/pte.h"

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    TSS2 = 0x4000,
    STACK0 = 0x9000, /* top of the ring 0 stack */
    STACK3 = 0xa000,
    STACK_IST = 0xb000,
    PML4 = 0x10000,
    HANDLER = 0x5000,
};

enum {
    CODE0 = 0x08,
    DATA0 = 0x10,
    CODE3 = 0x18,
    DATA3 = 0x20,
    SEL_TSS = 0x28, /* 16 bytes in long mode */
    SEL_TSS2 = 0x38,
    CONF0 = 0x40,
    GONE_DATA = 0x48,
    GATE = 0x50, /* call gate, 16 bytes in long mode */
    TASKGATE = 0x60,
    GONE_CODE = 0x68,
    CODE64 = 0x70,
    CODE64_3 = 0x78,
    SMALL_CODE = 0x80, /* limit 0xff */
    DATA16_3 = 0x88,
    LDT_TYPE = 0x90,
    GDT_LIMIT = 0xbf,
};

struct fix {
    struct vcpu *v;
    struct mem *mem;
    struct counters cnt;
};

static uint64_t seg_desc(unsigned ar, uint32_t base, uint32_t limit) {
    return (uint64_t)(limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
           (uint64_t)ar << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
           (uint64_t)(base >> 24) << 56;
}

static uint64_t gate_desc(unsigned type, unsigned dpl, unsigned sel, uint32_t off,
                          unsigned low) {
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)low << 32 |
           (uint64_t)(0x80 | dpl << 5 | type) << 40 | (uint64_t)(off >> 16) << 48;
}

static void put(struct fix *f, uint64_t at, uint64_t val, unsigned len) {
    assert_true(mem_write(f->mem, gpa(at), &val, len));
}

static uint64_t get(struct fix *f, uint64_t at, unsigned len) {
    uint64_t val = 0;
    assert_true(mem_read(f->mem, gpa(at), &val, len));
    return val;
}

static void gdt(struct fix *f, unsigned sel, uint64_t desc) {
    put(f, GDT + (sel & ~7u), desc, 8);
}

static void use_seg(struct fix *f, unsigned seg, unsigned sel) {
    sem_unpack_desc(&f->v->seg[seg], (uint16_t)sel, get(f, GDT + (sel & ~7u), 8));
}

/* Segments, stack and CPL of a level. */
static void enter_level(struct fix *f, unsigned code, unsigned data, unsigned cpl,
                        uint64_t sp) {
    struct vcpu *v = f->v;
    static const uint8_t segs[] = {SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    for (unsigned k = 0; k < ARRAY_SIZE(segs); k++)
        use_seg(f, segs[k], data | cpl);
    use_seg(f, SEG_CS, code | cpl);
    struct segment cs = v->seg[SEG_CS];
    v->gpr[REG_RSP] = sp;
    v->rip = 0x7000;
    sem_set_cs(v, &cs, cpl);
}

static void ring0(struct fix *f) {
    enter_level(f, CODE0, DATA0, 0, STACK0);
}

static void ring3(struct fix *f) {
    enter_level(f, CODE3, DATA3, 3, STACK3);
}

static void build_tables(struct fix *f) {
    gdt(f, CODE0, seg_desc(0xc09b, 0, 0xfffff));
    gdt(f, DATA0, seg_desc(0xc093, 0, 0xfffff));
    gdt(f, CODE3, seg_desc(0xc0fb, 0, 0xfffff));
    gdt(f, DATA3, seg_desc(0xc0f3, 0, 0xfffff));
    gdt(f, SEL_TSS, seg_desc(0x8b, TSS, 0x167));
    gdt(f, SEL_TSS2, seg_desc(0x89, TSS2, 0x67));
    gdt(f, CONF0, seg_desc(0xc09f, 0, 0xfffff));
    gdt(f, GONE_DATA, seg_desc(0xc013, 0, 0xfffff));
    gdt(f, GATE, gate_desc(X86_DESC_CALLGATE32, 3, CODE0, HANDLER, 2));
    gdt(f, TASKGATE, gate_desc(X86_DESC_TASKGATE, 3, SEL_TSS2, 0, 0));
    gdt(f, GONE_CODE, seg_desc(0xc01b, 0, 0xfffff));
    gdt(f, CODE64, seg_desc(0xa09b, 0, 0xfffff));
    gdt(f, CODE64_3, seg_desc(0xa0fb, 0, 0xfffff));
    gdt(f, SMALL_CODE, seg_desc(0x409b, 0, 0xff));
    gdt(f, DATA16_3, seg_desc(0x00f3, 0, 0xffff));
    gdt(f, LDT_TYPE, seg_desc(0x82, 0x1800, 0xff));
    f->v->gdtr = (struct desc_table){GDT, GDT_LIMIT};
    f->v->idtr = (struct desc_table){IDT, 0x7ff};
    f->v->tr = (struct segment){.sel = SEL_TSS, .ar = 0x8b, .limit = 0x167, .base = TSS};
}

static void idt32(struct fix *f, unsigned vec, unsigned type, unsigned dpl,
                  unsigned sel) {
    put(f, IDT + vec * 8, gate_desc(type, dpl, sel, HANDLER, 0), 8);
}

static struct fix *new_fix(void) {
    struct fix *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->v = aligned_alloc(64, sizeof(*f->v));
    assert_non_null(f->v);
    memset(f->v, 0, sizeof(*f->v));
    assert_int_equal(mem_create(MEM_MIN_RAM, &f->mem), 0);
    f->v->mem = f->mem;
    f->v->cnt = &f->cnt;
    struct cpuid_config cfg = {.tsc_hz = 1000000000};
    f->v->cpuid = cpuid_model_new(&cfg);
    assert_non_null(f->v->cpuid);
    assert_int_equal(mmu_create(f->v, MMU_FLUSH), 0);
    vcpu_reset(f->v);
    return f;
}

static int setup32(void **state) {
    struct fix *f = new_fix();
    f->v->cr0 = X86_CR0_PE | X86_CR0_ET;
    build_tables(f);
    put(f, TSS + 4, STACK0, 4);
    put(f, TSS + 8, DATA0, 4);
    mmu_mode_changed(f->v);
    ring0(f);
    *state = f;
    return 0;
}

static int setup16(void **state) {
    struct fix *f = new_fix();
    struct segment cs = f->v->seg[SEG_CS];
    cs.sel = 0x100;
    cs.base = 0x1000;
    f->v->gpr[REG_RSP] = 0x8000;
    f->v->rip = 0x123;
    f->v->idtr.limit = 0x3ff;
    sem_set_cs(f->v, &cs, 0);
    *state = f;
    return 0;
}

/* Identity map of 2 MiB by one large page, user, and page 0x200000 absent. */
static int setup64(void **state) {
    struct fix *f = new_fix();
    struct vcpu *v = f->v;
    put(f, PML4, (PML4 + 0x1000) | 7, 8);
    put(f, PML4 + 0x1000, (PML4 + 0x2000) | 7, 8);
    put(f, PML4 + 0x2000, X86_PTE_PS | 7, 8);
    build_tables(f);
    gdt(f, GATE, gate_desc(X86_DESC_CALLGATE32, 3, CODE64, HANDLER, 0));
    put(f, TSS + 4, STACK0 - 8, 8);   /* RSP0, not aligned to 16 */
    put(f, TSS + 0x24, STACK_IST, 8); /* IST1 */
    v->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_PG | X86_CR0_WP;
    v->cr4 = X86_CR4_PAE;
    v->cr3 = PML4;
    v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
    v->idtr.limit = 0xfff;
    vcpu_update_mode(v);
    mmu_cr3_loaded(v, PML4);
    mmu_mode_changed(v);
    enter_level(f, CODE64, DATA0, 0, STACK0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fix *f = *state;
    mmu_destroy(f->v);
    mem_destroy(f->mem);
    cpuid_model_free((struct cpuid_model *)f->v->cpuid);
    free(f->v);
    free(f);
    return 0;
}

static void idt64(struct fix *f, unsigned vec, unsigned dpl, unsigned sel, unsigned ist) {
    put(f, IDT + vec * 16, gate_desc(X86_DESC_INTGATE32, dpl, sel, HANDLER, ist), 8);
    put(f, IDT + vec * 16 + 8, 0, 8);
}

static struct insn insn_of(enum op op, unsigned opsize, struct vcpu *v) {
    return (struct insn){.op = (uint16_t)op,
                         .len = 2,
                         .mode = v->mode,
                         .opsize = (uint8_t)opsize,
                         .addrsize = 4,
                         .mem = {.base = REG_ZERO, .index = REG_ZERO, .seg = SEG_DS}};
}

static int run(struct vcpu *v, const struct insn *i) {
    insn_exec_fn *fn = sem_bind_far(i);
    assert_non_null(fn);
    return fn(v, i);
}

static int go(struct vcpu *v, enum op op, unsigned opsize, unsigned sel, uint64_t off) {
    struct insn i = insn_of(op, opsize, v);
    i.far_sel = (uint16_t)sel;
    i.imm = (int64_t)off;
    return run(v, &i);
}

/* Runs a transfer that must fault and leave everything as it was. */
static void faults(struct vcpu *v, enum op op, unsigned opsize, unsigned sel,
                   uint64_t off, unsigned vector, uint32_t error) {
    uint64_t rsp = v->gpr[REG_RSP], rip = v->rip, flags = v->rflags;
    uint16_t cs = v->seg[SEG_CS].sel, ss = v->seg[SEG_SS].sel;
    unsigned cpl = v->cpl;
    assert_int_equal(go(v, op, opsize, sel, off), SEM_FAULT);
    assert_int_equal(v->fault.vector, vector);
    assert_int_equal(v->fault.error, error);
    assert_int_equal(v->gpr[REG_RSP], rsp);
    assert_int_equal(v->rip, rip);
    assert_int_equal(v->rflags, flags);
    assert_int_equal(v->seg[SEG_CS].sel, cs);
    assert_int_equal(v->seg[SEG_SS].sel, ss);
    assert_int_equal(v->cpl, cpl);
}

static void at(struct vcpu *v, unsigned cs, uint64_t rip, uint64_t rsp) {
    assert_int_equal(v->seg[SEG_CS].sel, cs);
    assert_int_equal(v->rip, rip);
    assert_int_equal(v->gpr[REG_RSP], rsp);
    assert_int_equal(v->cpl, cs & 3);
}

static int raise_fault(struct vcpu *v, unsigned vector, bool has_error, uint32_t error) {
    v->fault =
        (struct fault){.vector = (uint8_t)vector, .has_error = has_error, .error = error};
    return sem_deliver(v);
}

/* --- real mode --- */

static void real_interrupt_and_iret(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    put(f, 0x21 * 4, 0x02000050, 4);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_TF | X86_FL_CF;
    struct insn i = insn_of(OP_int, 2, v);
    i.imm = 0x21;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].sel, 0x200);
    assert_int_equal(v->seg[SEG_CS].base, 0x2000);
    assert_int_equal(v->rip, 0x50);
    assert_int_equal(v->gpr[REG_RSP], 0x7ffa);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_CF);
    assert_int_equal(get(f, 0x7ffa, 2), 0x125);
    assert_int_equal(get(f, 0x7ffc, 2), 0x100);
    assert_int_equal(get(f, 0x7ffe, 2), 0x303);
    assert_int_equal(f->cnt.software_interrupts, 1);
    i = insn_of(OP_iret, 2, v);
    assert_int_equal(run(v, &i), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].sel, 0x100);
    assert_int_equal(v->rip, 0x125);
    assert_int_equal(v->gpr[REG_RSP], 0x8000);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF | X86_FL_TF | X86_FL_CF);
}

static void real_call_and_ret(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    assert_int_equal(go(v, OP_call_far, 2, 0x300, 0x44), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].base, 0x3000);
    assert_int_equal(v->rip, 0x44);
    assert_int_equal(get(f, 0x7ffc, 4), 0x01000125);
    struct insn i = insn_of(OP_ret_far, 2, v);
    i.nops = 1;
    i.imm = 6;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    assert_int_equal(v->rip, 0x125);
    assert_int_equal(v->gpr[REG_RSP], 0x8006);
}

static void real_limits(void **state) {
    struct vcpu *v = ((struct fix *)*state)->v;
    v->idtr.limit = 0x83;
    struct insn i = insn_of(OP_int, 2, v);
    i.imm = 0x21;
    assert_int_equal(run(v, &i), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_GP);
    v->gpr[REG_RSP] = 1;
    faults(v, OP_call_far, 2, 0x300, 0, X86_SS, 0);
    /* No vector at all: #GP, #DF and then shutdown. */
    v->idtr.limit = 0;
    assert_int_equal(raise_fault(v, X86_UD, false, 0), SEM_SHUTDOWN);
}

/* --- protected mode, events --- */

static void exception_same_level(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt32(f, X86_GP, X86_DESC_INTGATE32, 0, CODE0);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_TF | X86_FL_NT;
    v->halted = v->irq_shadow = true;
    assert_int_equal(raise_fault(v, X86_GP, true, 0x1234), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK0 - 16);
    assert_int_equal(v->rflags, X86_FL_ONE);
    assert_int_equal(get(f, STACK0 - 16, 4), 0x1234);
    assert_int_equal(get(f, STACK0 - 12, 4), 0x7000);
    assert_int_equal(get(f, STACK0 - 8, 4), CODE0);
    assert_int_equal(get(f, STACK0 - 4, 4), 0x14302 | X86_FL_RF);
    assert_false(v->halted);
    assert_false(v->irq_shadow);
    assert_int_equal(f->cnt.exceptions_delivered, 1);
}

static void interrupt_to_inner_level_and_back(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt32(f, 0x30, X86_DESC_INTGATE32, 0, CODE0);
    ring3(f);
    v->rflags = X86_FL_ONE | X86_FL_IF;
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK0 - 20);
    assert_int_equal(v->seg[SEG_SS].sel, DATA0);
    assert_int_equal(get(f, STACK0 - 4, 4), DATA3 | 3);
    assert_int_equal(get(f, STACK0 - 8, 4), STACK3);
    assert_int_equal(get(f, STACK0 - 12, 4), X86_FL_ONE | X86_FL_IF);
    assert_int_equal(get(f, STACK0 - 16, 4), CODE3 | 3);
    assert_int_equal(get(f, STACK0 - 20, 4), 0x7000);
    assert_int_equal(f->cnt.interrupts_delivered, 1);
    use_seg(f, SEG_ES, DATA0);
    v->nmi_blocked = true;
    assert_int_equal(go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    at(v, CODE3 | 3, 0x7000, STACK3);
    assert_int_equal(v->seg[SEG_ES].sel, 0); /* of ring 0: dropped */
    assert_int_equal(v->seg[SEG_DS].sel, DATA3 | 3);
    assert_true(v->rflags & X86_FL_IF);
    assert_false(v->nmi_blocked);
}

static void soft(struct fix *f, unsigned vec, unsigned vector, uint32_t error) {
    struct insn i = insn_of(OP_int, 4, f->v);
    i.imm = vec;
    assert_int_equal(run(f->v, &i), SEM_FAULT);
    assert_int_equal(f->v->fault.vector, vector);
    assert_int_equal(f->v->fault.error, error);
}

static void gate_errors(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    ring3(f);
    idt32(f, 0x40, X86_DESC_INTGATE32, 0, CODE0);
    soft(f, 0x40, X86_GP, 0x40 * 8 + 2); /* DPL */
    idt32(f, 0x40, X86_DESC_TSS32, 3, CODE0);
    soft(f, 0x40, X86_GP, 0x40 * 8 + 2); /* type */
    put(f, IDT + 0x40 * 8 + 5, 0x6e, 1);
    soft(f, 0x40, X86_NP, 0x40 * 8 + 2); /* gate not present */
    idt32(f, 0x40, X86_DESC_INTGATE32, 3, 0);
    soft(f, 0x40, X86_GP, 0); /* null */
    idt32(f, 0x40, X86_DESC_INTGATE32, 3, DATA0);
    soft(f, 0x40, X86_GP, DATA0); /* not code */
    idt32(f, 0x40, X86_DESC_INTGATE32, 3, GONE_CODE);
    soft(f, 0x40, X86_NP, GONE_CODE);
    idt32(f, 0x40, X86_DESC_INTGATE32, 3, GDT_LIMIT + 1);
    soft(f, 0x40, X86_GP, GDT_LIMIT + 1);
    idt32(f, 0x40, X86_DESC_INTGATE32, 3, SMALL_CODE);
    soft(f, 0x40, X86_GP, 0); /* entry point beyond the limit */
    v->idtr.limit = 0x40 * 8 + 6;
    soft(f, 0x40, X86_GP, 0x40 * 8 + 2);
    at(v, CODE3 | 3, 0x7000, STACK3);
}

static void inner_stack_errors(void **state) {
    struct fix *f = *state;
    ring3(f);
    idt32(f, 0x40, X86_DESC_INTGATE32, 3, CODE0);
    put(f, TSS + 8, 0, 4);
    soft(f, 0x40, X86_TS, 0);
    put(f, TSS + 8, DATA0 | 1, 4);
    soft(f, 0x40, X86_TS, DATA0);
    put(f, TSS + 8, CODE0, 4);
    soft(f, 0x40, X86_TS, CODE0);
    put(f, TSS + 8, GDT_LIMIT + 1, 4);
    soft(f, 0x40, X86_TS, GDT_LIMIT + 1);
    put(f, TSS + 8, GONE_DATA, 4);
    soft(f, 0x40, X86_SS, GONE_DATA);
    gdt(f, GONE_DATA, seg_desc(0x4093, 0, 0xff)); /* too small for the stack pointer */
    soft(f, 0x40, X86_SS, GONE_DATA);
    f->v->tr.limit = 8;
    soft(f, 0x40, X86_TS, SEL_TSS);
}

static void nested_faults(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    /* An interrupt whose gate is missing: #NP with EXT. */
    idt32(f, X86_NP, X86_DESC_INTGATE32, 0, CODE0);
    put(f, IDT + 0x30 * 8, (uint64_t)X86_DESC_INTGATE32 << 40, 8);
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    assert_int_equal(get(f, v->gpr[REG_RSP], 4), 0x30 * 8 + 3);
    /* #GP without a gate: #DF. */
    ring0(f);
    idt32(f, X86_DF, X86_DESC_INTGATE32, 0, CODE0);
    assert_int_equal(raise_fault(v, X86_GP, true, 0), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK0 - 16);
    assert_int_equal(get(f, STACK0 - 16, 4), 0);
    assert_int_equal(get(f, STACK0 - 12, 4), 0x7000);
    /* #UD is benign: its missing gate is plain #NP or #GP. */
    ring0(f);
    idt32(f, X86_GP, X86_DESC_INTGATE32, 0, CODE0);
    assert_int_equal(raise_fault(v, X86_UD, false, 0), SEM_BRANCH);
    assert_int_equal(get(f, STACK0 - 16, 4), X86_UD * 8 + 3);
    /* No #DF gate: shutdown. */
    ring0(f);
    put(f, IDT + X86_GP * 8, 0, 8);
    put(f, IDT + X86_DF * 8, 0, 8);
    assert_int_equal(raise_fault(v, X86_GP, true, 0), SEM_SHUTDOWN);
}

static void debug_and_nmi(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt32(f, X86_DB, X86_DESC_TRAPGATE32, 0, CODE0);
    idt32(f, X86_NMI, X86_DESC_INTGATE32, 0, CODE0);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_TF;
    v->dr[6] = X86_DR6_FIXED | 3;
    v->dr[7] |= X86_DR7_GD;
    v->fault = (struct fault){.vector = X86_DB, .trap = true, .dr6 = X86_DR6_BS};
    assert_int_equal(sem_deliver(v), SEM_BRANCH);
    assert_int_equal(v->dr[6], X86_DR6_FIXED | X86_DR6_BS);
    assert_false(v->dr[7] & X86_DR7_GD);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF); /* a trap gate keeps IF */
    assert_false(get(f, STACK0 - 4, 4) & X86_FL_RF);
    assert_int_equal(sem_nmi(v), SEM_BRANCH);
    assert_true(v->nmi_blocked);
}

static void gate16(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt32(f, 0x40, X86_DESC_TRAPGATE16, 0, CODE0);
    assert_int_equal(sem_interrupt(v, 0x40), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK0 - 6);
    assert_int_equal(get(f, STACK0 - 6, 2), 0x7000);
    assert_int_equal(get(f, STACK0 - 4, 2), CODE0);
}

/* --- protected mode, jumps, calls, returns --- */

static void jump_checks(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    faults(v, OP_jmp_far, 4, 0, 0, X86_GP, 0);
    faults(v, OP_jmp_far, 4, GDT_LIMIT + 1, 0, X86_GP, GDT_LIMIT + 1);
    faults(v, OP_jmp_far, 4, DATA0, 0, X86_GP, DATA0);
    faults(v, OP_jmp_far, 4, CODE3, 0, X86_GP, CODE3);
    faults(v, OP_jmp_far, 4, CODE0 | 3, 0, X86_GP, CODE0);
    faults(v, OP_jmp_far, 4, GONE_CODE, 0, X86_NP, GONE_CODE);
    faults(v, OP_jmp_far, 4, SMALL_CODE, 0x100, X86_GP, 0);
    faults(v, OP_jmp_far, 4, LDT_TYPE, 0, X86_GP, LDT_TYPE);
    assert_int_equal(go(v, OP_jmp_far, 4, SMALL_CODE, 0xff), SEM_BRANCH);
    at(v, SMALL_CODE, 0xff, STACK0);
    ring3(f);
    faults(v, OP_jmp_far, 4, CODE0 | 3, 0, X86_GP, CODE0);
    assert_int_equal(go(v, OP_jmp_far, 4, CONF0, 0x6000), SEM_BRANCH);
    at(v, CONF0 | 3, 0x6000, STACK3);
    faults(v, OP_jmp_far, 4, GATE, 0, X86_GP, CODE0); /* a jump keeps its level */
}

static void call_direct_and_ret(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    assert_int_equal(go(v, OP_call_far, 4, CODE0, 0x6000), SEM_BRANCH);
    at(v, CODE0, 0x6000, STACK0 - 8);
    assert_int_equal(get(f, STACK0 - 8, 4), 0x7002);
    assert_int_equal(get(f, STACK0 - 4, 4), CODE0);
    assert_int_equal(go(v, OP_ret_far, 4, 0, 0), SEM_BRANCH);
    at(v, CODE0, 0x7002, STACK0);
    /* Indirect, with a 16-bit pointer. */
    put(f, 0x6100, 0x1234 | CODE0 << 16, 4);
    struct insn i = insn_of(OP_jmp_far, 2, v);
    i.nops = 1;
    i.mem.disp = 0x6100;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    at(v, CODE0, 0x1234, STACK0);
}

static void call_gate_with_parameters(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    ring3(f);
    v->gpr[REG_RSP] = STACK3 - 8;
    put(f, STACK3 - 8, 0x2222222211111111, 8);
    assert_int_equal(go(v, OP_call_far, 4, GATE | 3, 0xdead), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK0 - 24);
    static const uint32_t frame[] = {0x7002,     CODE3 | 3,  0x11111111,
                                     0x22222222, STACK3 - 8, DATA3 | 3};
    for (unsigned k = 0; k < 6; k++)
        assert_int_equal(get(f, STACK0 - 24 + 4 * k, 4), frame[k]);
    struct insn i = insn_of(OP_ret_far, 4, v);
    i.nops = 1;
    i.imm = 8;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    at(v, CODE3 | 3, 0x7002, STACK3);
    gdt(f, GATE, gate_desc(X86_DESC_CALLGATE32, 2, CODE0, HANDLER, 2));
    faults(v, OP_call_far, 4, GATE, 0, X86_GP, GATE);
    gdt(f, GATE, gate_desc(X86_DESC_CALLGATE32, 3, CODE0, HANDLER, 2) & ~(1ull << 47));
    faults(v, OP_call_far, 4, GATE, 0, X86_NP, GATE);
    gdt(f, GATE, gate_desc(X86_DESC_CALLGATE32, 3, GONE_CODE, HANDLER, 2));
    faults(v, OP_call_far, 4, GATE, 0, X86_NP, GONE_CODE);
}

static void return_errors(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    v->gpr[REG_RSP] = STACK0 - 20;
    static const struct {
        uint32_t cs, ss;
        uint8_t vector;
        uint16_t error;
    } t[] = {
        {0, DATA3 | 3, X86_GP, 0},
        {DATA3 | 3, DATA3 | 3, X86_GP, DATA3},
        {CODE3, DATA3 | 3, X86_GP, CODE3},     /* RPL != DPL */
        {GONE_CODE, DATA0, X86_NP, GONE_CODE}, /* same level */
        {CODE3 | 3, 0, X86_GP, 0},
        {CODE3 | 3, DATA0 | 3, X86_GP, DATA0},
        {CODE3 | 3, DATA3, X86_GP, DATA3},
        {CODE3 | 3, CODE3 | 3, X86_GP, CODE3},
    };
    put(f, STACK0 - 12, X86_FL_ONE, 4);
    for (unsigned k = 0; k < ARRAY_SIZE(t); k++) {
        put(f, STACK0 - 16, t[k].cs, 4);
        put(f, STACK0 - 4, t[k].ss, 4);
        faults(v, OP_iret, 4, 0, 0, t[k].vector, t[k].error);
    }
    gdt(f, DATA3, seg_desc(0xc073, 0, 0xfffff));
    put(f, STACK0 - 4, DATA3 | 3, 4);
    faults(v, OP_iret, 4, 0, 0, X86_SS, DATA3);
    gdt(f, DATA3, seg_desc(0xc0f3, 0, 0xfffff));
    ring3(f);
    v->gpr[REG_RSP] = STACK3 - 12;
    put(f, STACK3 - 8, CODE0, 4);
    faults(v, OP_iret, 4, 0, 0, X86_GP, CODE0); /* inwards */
}

/* ESP's upper half survives a return to a 16-bit stack. */
static void return_to_16bit_stack(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    v->gpr[REG_RSP] = STACK0 + 0x30000 - 20;
    static const uint32_t frame[] = {0x7000, CODE3 | 3, X86_FL_ONE, 0x12340010,
                                     DATA16_3 | 3};
    for (unsigned k = 0; k < 5; k++)
        put(f, v->gpr[REG_RSP] + 4 * k, frame[k], 4);
    assert_int_equal(go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    at(v, CODE3 | 3, 0x7000, 0x30010);
}

static void iret_keeps_privileged_flags(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    ring3(f);
    v->rflags = X86_FL_ONE | X86_FL_IF;
    v->gpr[REG_RSP] = STACK3 - 12;
    put(f, STACK3 - 12, 0x7100, 4);
    put(f, STACK3 - 8, CODE3 | 3, 4);
    put(f, STACK3 - 4, X86_FL_IOPL | X86_FL_CF | X86_FL_VM | X86_FL_ID, 4);
    assert_int_equal(go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF | X86_FL_CF | X86_FL_ID);
}

/* --- virtual-8086 mode --- */

static void to_v86(struct fix *f, uint32_t flags) {
    struct vcpu *v = f->v;
    uint32_t frame[] = {0x10,  0x500, flags | X86_FL_VM | X86_FL_ONE,
                        0x100, 0x900, 0x901,
                        0x902, 0x903, 0x904};
    ring0(f);
    v->gpr[REG_RSP] = STACK0 - sizeof(frame);
    for (unsigned k = 0; k < ARRAY_SIZE(frame); k++)
        put(f, v->gpr[REG_RSP] + 4 * k, frame[k], 4);
    assert_int_equal(go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
}

static void v86_in_and_out(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt32(f, 0x30, X86_DESC_INTGATE32, 0, CODE0);
    to_v86(f, X86_FL_IF);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->seg[SEG_CS].base, 0x5000);
    assert_int_equal(v->seg[SEG_GS].base, 0x9040);
    assert_int_equal(v->rip, 0x10);
    assert_int_equal(v->gpr[REG_RSP], 0x100);
    assert_int_equal(v->mode, MODE_16);
    struct insn i = insn_of(OP_int, 2, v);
    i.imm = 0x30;
    assert_int_equal(run(v, &i), SEM_FAULT); /* IOPL 0 */
    assert_int_equal(v->fault.vector, X86_GP);
    assert_int_equal(v->fault.error, 0);
    faults(v, OP_iret, 2, 0, 0, X86_GP, 0);
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK0 - 36);
    assert_false(v->rflags & X86_FL_VM);
    static const uint32_t frame[] = {0x10,  0x500, X86_FL_VM | X86_FL_IF | X86_FL_ONE,
                                     0x100, 0x900, 0x901,
                                     0x902, 0x903, 0x904};
    for (unsigned k = 0; k < ARRAY_SIZE(frame); k++)
        assert_int_equal(get(f, STACK0 - 36 + 4 * k, 4), frame[k]);
    assert_int_equal(v->seg[SEG_DS].sel, 0);
    /* Not to a conforming segment. */
    to_v86(f, X86_FL_IF | X86_FL_IOPL);
    idt32(f, 0x30, X86_DESC_INTGATE32, 3, CONF0);
    assert_int_equal(run(v, &i), SEM_FAULT);
    assert_int_equal(v->fault.error, CONF0);
}

static void v86_redirection(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    v->cr4 |= X86_CR4_VME;
    put(f, TSS + 102, 0x88, 2); /* redirection map at 0x68, all clear */
    put(f, 0x30 * 4, 0x02000050, 4);
    to_v86(f, X86_FL_VIF);
    struct insn i = insn_of(OP_int, 2, v);
    i.imm = 0x30;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].base, 0x2000);
    assert_true(v->rflags & X86_FL_VM);
    assert_false(v->rflags & X86_FL_VIF);
    assert_int_equal(get(f, 0x90fe, 2), X86_FL_IF | X86_FL_IOPL | X86_FL_ONE);
    assert_int_equal(go(v, OP_iret, 2, 0, 0), SEM_BRANCH);
    assert_true(v->rflags & X86_FL_VIF);
    assert_false(v->rflags & (X86_FL_IF | X86_FL_IOPL));
    assert_int_equal(v->rip, 0x12);
}

/* --- tasks --- */

static void task2(struct fix *f) {
    static const uint8_t at_off[] = {0x20, 0x24, 0x28, 0x38, 0x48, 0x4c,
                                     0x50, 0x54, 0x58, 0x5c, 0x60};
    static const uint32_t val[] = {HANDLER, X86_FL_ONE, 0xaaaa, STACK_IST, DATA0, CODE0,
                                   DATA0,   DATA0,      0,      0,         0};
    for (unsigned k = 0; k < ARRAY_SIZE(val); k++)
        put(f, TSS2 + at_off[k], val[k], 4);
}

static void task_call_and_iret(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    v->gpr[REG_RAX] = 0x1111;
    v->dr[7] |= 0x3;
    assert_int_equal(go(v, OP_call_far, 4, TASKGATE, 0), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK_IST);
    assert_int_equal(v->tr.sel, SEL_TSS2);
    assert_int_equal(v->gpr[REG_RAX], 0xaaaa);
    assert_true(v->rflags & X86_FL_NT);
    assert_true(v->cr0 & X86_CR0_TS);
    assert_int_equal(v->dr[7] & 3, 2);
    assert_int_equal(get(f, TSS2, 2), SEL_TSS);
    assert_int_equal(get(f, TSS + 0x20, 4), 0x7002);
    assert_int_equal(get(f, TSS + 0x28, 4), 0x1111);
    assert_int_equal(get(f, TSS + 0x4c, 2), CODE0);
    assert_int_equal(get(f, GDT + SEL_TSS + 5, 1), 0x8b);
    assert_int_equal(get(f, GDT + SEL_TSS2 + 5, 1), 0x8b);
    faults(v, OP_jmp_far, 4, SEL_TSS, 0, X86_GP, SEL_TSS); /* busy */
    assert_int_equal(go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    at(v, CODE0, 0x7002, STACK0);
    assert_int_equal(v->gpr[REG_RAX], 0x1111);
    assert_int_equal(v->tr.sel, SEL_TSS);
    assert_int_equal(get(f, GDT + SEL_TSS2 + 5, 1), 0x89);
    assert_false(get(f, TSS2 + 0x24, 4) & X86_FL_NT);
}

/* The way in which 32-bit Linux reports a double fault. */
static void task_double_fault(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    put(f, IDT + X86_DF * 8, gate_desc(X86_DESC_TASKGATE, 0, SEL_TSS2, 0, 0), 8);
    v->gpr[REG_RSP] = 0x10;
    v->seg[SEG_SS].limit = 3; /* no stack to push #GP on */
    vcpu_update_mode(v);
    idt32(f, X86_GP, X86_DESC_INTGATE32, 0, CODE0);
    assert_int_equal(raise_fault(v, X86_GP, true, 0), SEM_BRANCH);
    at(v, CODE0, HANDLER, STACK_IST - 4);
    assert_int_equal(get(f, STACK_IST - 4, 4), 0);
    assert_int_equal(get(f, TSS + 0x20, 4), 0x7000);
    assert_int_equal(get(f, TSS + 0x38, 4), 0x10);
}

/* The T bit of the #DF handler's task: a #DB waits there, and it is no shutdown. */
static void task_double_fault_traced(void **state) {
    struct fix *f = *state;
    task2(f);
    put(f, TSS2 + 0x64, 1, 2);
    put(f, IDT + X86_DF * 8, gate_desc(X86_DESC_TASKGATE, 0, SEL_TSS2, 0, 0), 8);
    idt32(f, X86_DB, X86_DESC_TRAPGATE32, 0, CODE0);
    assert_int_equal(raise_fault(f->v, X86_GP, true, 0), SEM_BRANCH);
    at(f->v, CODE0, HANDLER, STACK_IST - 4);
    assert_int_equal(f->v->pending_db, X86_DR6_BT);
    assert_int_equal(f->v->tr.sel, SEL_TSS2);
}

static void task_errors(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    gdt(f, SEL_TSS2, seg_desc(0x09, TSS2, 0x67));
    faults(v, OP_jmp_far, 4, SEL_TSS2, 0, X86_NP, SEL_TSS2);
    gdt(f, SEL_TSS2, seg_desc(0x89, TSS2, 0x66));
    faults(v, OP_jmp_far, 4, SEL_TSS2, 0, X86_TS, SEL_TSS2);
    gdt(f, SEL_TSS2, seg_desc(0x89, TSS2, 0x67));
    /* A bad SS is found in the new task. */
    put(f, TSS2 + 0x50, CODE0, 4);
    assert_int_equal(go(v, OP_jmp_far, 4, SEL_TSS2, 0), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_TS);
    assert_int_equal(v->fault.error, CODE0);
    assert_int_equal(v->tr.sel, SEL_TSS2);
    assert_int_equal(v->rip, HANDLER);
    assert_int_equal(get(f, GDT + SEL_TSS + 5, 1), 0x89);
    /* The link of an IRET must be a busy TSS. */
    v->rflags |= X86_FL_NT;
    put(f, TSS2, SEL_TSS, 2);
    assert_int_equal(go(v, OP_iret, 4, 0, 0), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_TS);
    assert_int_equal(v->fault.error, SEL_TSS);
}

static void task_trap_bit(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    put(f, TSS2 + 0x64, 1, 2);
    assert_int_equal(go(v, OP_jmp_far, 4, SEL_TSS2, 0), SEM_BRANCH);
    assert_int_equal(v->pending_db, X86_DR6_BT);
    at(v, CODE0, HANDLER, STACK_IST);
}

/* --- long mode --- */

static void long_interrupt_and_iret(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt64(f, 0x30, 0, CODE64, 0);
    enter_level(f, CODE64_3, DATA3, 3, STACK3 - 4);
    v->rflags = X86_FL_ONE | X86_FL_IF;
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    at(v, CODE64, HANDLER, STACK0 - 16 - 40);
    assert_int_equal(v->seg[SEG_SS].sel, 0);
    static const uint64_t frame[] = {0x7000, CODE64_3 | 3, X86_FL_ONE | X86_FL_IF,
                                     STACK3 - 4, DATA3 | 3};
    for (unsigned k = 0; k < 5; k++)
        assert_int_equal(get(f, v->gpr[REG_RSP] + 8 * k, 8), frame[k]);
    assert_int_equal(go(v, OP_iret, 8, 0, 0), SEM_BRANCH);
    at(v, CODE64_3 | 3, 0x7000, STACK3 - 4);
    assert_int_equal(v->seg[SEG_SS].sel, DATA3 | 3);
    /* To compatibility mode. */
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    put(f, v->gpr[REG_RSP] + 8, CODE3 | 3, 8);
    assert_int_equal(go(v, OP_iret, 8, 0, 0), SEM_BRANCH);
    assert_int_equal(v->mode, MODE_32);
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    assert_int_equal(v->mode, MODE_64);
}

static void long_ist_same_level(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt64(f, X86_PF, 0, CODE64, 1);
    v->fault =
        (struct fault){.vector = X86_PF, .has_error = true, .error = 2, .addr = 0x300000};
    assert_int_equal(sem_deliver(v), SEM_BRANCH);
    at(v, CODE64, HANDLER, STACK_IST - 48);
    assert_int_equal(v->cr2, 0x300000);
    assert_int_equal(v->seg[SEG_SS].sel, DATA0);
    assert_int_equal(get(f, STACK_IST - 48, 8), 2);
    assert_int_equal(f->cnt.true_page_faults, 1);
    v->gpr[REG_RSP] += 8;
    put(f, STACK_IST - 8, 0, 8); /* null SS, level 0 */
    assert_int_equal(go(v, OP_iret, 8, 0, 0), SEM_BRANCH);
    at(v, CODE64, 0x7000, STACK0);
}

static void long_errors(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    idt64(f, 0x40, 0, CODE0, 0); /* not a 64-bit segment */
    soft(f, 0x40, X86_GP, CODE0);
    idt64(f, 0x40, 0, CODE64, 0);
    put(f, IDT + 0x40 * 16 + 8, 0x8000, 4); /* not canonical */
    soft(f, 0x40, X86_GP, 0);
    idt64(f, 0x40, 0, CODE64, 0);
    v->gpr[REG_RSP] = 0x0000900000000000;
    soft(f, 0x40, X86_SS, 0);
    /* A push into an absent page: #PF, and a second one makes #DF on the IST. */
    v->gpr[REG_RSP] = 0x280000;
    soft(f, 0x40, X86_PF, 2);
    assert_int_equal(v->fault.addr, 0x27fff8);
    idt64(f, X86_PF, 0, CODE64, 0);
    idt64(f, X86_DF, 0, CODE64, 1);
    assert_int_equal(sem_deliver(v), SEM_BRANCH);
    at(v, CODE64, HANDLER, STACK_IST - 48);
    assert_int_equal(v->cr2, 0x27fff8);
    assert_int_equal(get(f, STACK_IST - 48, 8), 0);
    /* NT in long mode. */
    v->rflags |= X86_FL_NT;
    faults(v, OP_iret, 8, 0, 0, X86_GP, 0);
}

static void long_far(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    enter_level(f, CODE64_3, DATA3, 3, STACK3);
    put(f, 0x6100, (uint64_t)(GATE | 3) << 32, 8);
    struct insn i = insn_of(OP_call_far, 4, v);
    i.nops = 1;
    i.mem.disp = 0x6100;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    at(v, CODE64, HANDLER, STACK0 - 8 - 32);
    assert_int_equal(v->seg[SEG_SS].sel, 0);
    assert_int_equal(get(f, STACK0 - 16, 8), DATA3 | 3);
    assert_int_equal(get(f, STACK0 - 24, 8), STACK3);
    assert_int_equal(go(v, OP_ret_far, 8, 0, 0), SEM_BRANCH);
    at(v, CODE64_3 | 3, 0x7002, STACK3);
    put(f, GDT + GATE + 8, 0x8000, 8); /* not canonical */
    assert_int_equal(run(v, &i), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_GP);
    assert_int_equal(v->fault.error, 0);
}

static void long_syscall(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    v->star = (uint64_t)(CODE64 << 0) << 32 | (uint64_t)0x33 << 48;
    v->lstar = 0xffffffff81000000;
    v->sfmask = X86_FL_IF | X86_FL_DF;
    enter_level(f, CODE64_3, DATA3, 3, STACK3);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_DF | X86_FL_CF;
    assert_int_equal(go(v, OP_syscall, 8, 0, 0), SEM_BRANCH);
    at(v, CODE64, 0xffffffff81000000, STACK3);
    assert_int_equal(v->seg[SEG_SS].sel, CODE64 + 8);
    assert_int_equal(v->gpr[REG_RCX], 0x7002);
    assert_int_equal(v->gpr[REG_R11], X86_FL_ONE | X86_FL_IF | X86_FL_DF | X86_FL_CF);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_CF);
    struct insn i = insn_of(OP_sysret, 8, v);
    i.flags = INSN_REX_W;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    at(v, 0x43, 0x7002, STACK3);
    assert_int_equal(v->seg[SEG_SS].sel, 0x3b);
    assert_int_equal(v->mode, MODE_64);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF | X86_FL_DF | X86_FL_CF);
    assert_int_equal(v->pending_db, 0);
    faults(v, OP_sysret, 8, 0, 0, X86_GP, 0);
    /* TF that it sets traps at once. */
    enter_level(f, CODE64, DATA0, 0, STACK0);
    v->gpr[REG_R11] = X86_FL_ONE | X86_FL_TF;
    assert_int_equal(run(v, &i), SEM_BRANCH);
    assert_int_equal(v->pending_db, X86_DR6_BS);
    v->efer &= ~(uint64_t)X86_EFER_SCE;
    faults(v, OP_syscall, 8, 0, 0, X86_UD, 0);
}

static void fast_system_call_32(void **state) {
    struct fix *f = *state;
    struct vcpu *v = f->v;
    ring3(f);
    faults(v, OP_sysenter, 4, 0, 0, X86_GP, 0);
    v->sysenter_cs = CODE0;
    v->sysenter_eip = 0x6000;
    v->sysenter_esp = STACK0;
    v->rflags = X86_FL_ONE | X86_FL_IF;
    assert_int_equal(go(v, OP_sysenter, 4, 0, 0), SEM_BRANCH);
    at(v, CODE0, 0x6000, STACK0);
    assert_int_equal(v->rflags, X86_FL_ONE);
    v->gpr[REG_RDX] = 0x7004;
    v->gpr[REG_RCX] = STACK3;
    assert_int_equal(go(v, OP_sysexit, 4, 0, 0), SEM_BRANCH);
    at(v, CODE3 | 3, 0x7004, STACK3);
    assert_int_equal(v->seg[SEG_SS].sel, DATA3 | 3);
    faults(v, OP_sysexit, 4, 0, 0, X86_GP, 0);
}

#define T16(fn) cmocka_unit_test_setup_teardown(fn, setup16, teardown)
#define T32(fn) cmocka_unit_test_setup_teardown(fn, setup32, teardown)
#define T64(fn) cmocka_unit_test_setup_teardown(fn, setup64, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T16(real_interrupt_and_iret),
        T16(real_call_and_ret),
        T16(real_limits),
        T32(exception_same_level),
        T32(interrupt_to_inner_level_and_back),
        T32(gate_errors),
        T32(inner_stack_errors),
        T32(nested_faults),
        T32(debug_and_nmi),
        T32(gate16),
        T32(jump_checks),
        T32(call_direct_and_ret),
        T32(call_gate_with_parameters),
        T32(return_errors),
        T32(return_to_16bit_stack),
        T32(iret_keeps_privileged_flags),
        T32(v86_in_and_out),
        T32(v86_redirection),
        T32(task_call_and_iret),
        T32(task_double_fault),
        T32(task_double_fault_traced),
        T32(task_errors),
        T32(task_trap_bit),
        T32(fast_system_call_32),
        T64(long_interrupt_and_iret),
        T64(long_ist_same_level),
        T64(long_errors),
        T64(long_far),
        T64(long_syscall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
