#include "lib/far.h"

#include "lib/need.h"
#include "lib/unit.h"
#include "x86/pte.h"

uint64_t far_segment(unsigned ar, uint32_t base, uint32_t limit) {
    return (uint64_t)(limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
           (uint64_t)ar << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
           (uint64_t)(base >> 24) << 56;
}

uint64_t far_gate(unsigned type, unsigned dpl, unsigned sel, uint32_t off, unsigned low) {
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)low << 32 |
           (uint64_t)(0x80 | dpl << 5 | type) << 40 | (uint64_t)(off >> 16) << 48;
}

void far_gdt(struct guest *f, unsigned sel, uint64_t desc) {
    guest_put(f, GDT + (sel & ~7u), desc, 8);
}

void far_use_seg(struct guest *f, unsigned seg, unsigned sel) {
    sem_unpack_desc(&f->v->seg[seg], (uint16_t)sel, guest_get(f, GDT + (sel & ~7u), 8));
}

/* Segments, stack and CPL of a level. */
void far_enter(struct guest *f, unsigned code, unsigned data, unsigned cpl, uint64_t sp) {
    struct vcpu *v = f->v;
    static const uint8_t segs[] = {SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    for (unsigned k = 0; k < ARRAY_SIZE(segs); k++)
        far_use_seg(f, segs[k], data | cpl);
    far_use_seg(f, SEG_CS, code | cpl);
    struct segment cs = v->seg[SEG_CS];
    v->gpr[REG_RSP] = sp;
    v->rip = 0x7000;
    sem_set_cs(v, &cs, cpl);
}

void far_ring0(struct guest *f) {
    far_enter(f, CODE0, DATA0, 0, STACK0);
}

void far_ring3(struct guest *f) {
    far_enter(f, CODE3, DATA3, 3, STACK3);
}

static void build_tables(struct guest *f) {
    far_gdt(f, CODE0, far_segment(0xc09b, 0, 0xfffff));
    far_gdt(f, DATA0, far_segment(0xc093, 0, 0xfffff));
    far_gdt(f, CODE3, far_segment(0xc0fb, 0, 0xfffff));
    far_gdt(f, DATA3, far_segment(0xc0f3, 0, 0xfffff));
    far_gdt(f, SEL_TSS, far_segment(0x8b, TSS, 0x167));
    far_gdt(f, SEL_TSS2, far_segment(0x89, TSS2, 0x67));
    far_gdt(f, CONF0, far_segment(0xc09f, 0, 0xfffff));
    far_gdt(f, GONE_DATA, far_segment(0xc013, 0, 0xfffff));
    far_gdt(f, GATE, far_gate(X86_DESC_CALLGATE32, 3, CODE0, HANDLER, 2));
    far_gdt(f, TASKGATE, far_gate(X86_DESC_TASKGATE, 3, SEL_TSS2, 0, 0));
    far_gdt(f, GONE_CODE, far_segment(0xc01b, 0, 0xfffff));
    far_gdt(f, CODE64, far_segment(0xa09b, 0, 0xfffff));
    far_gdt(f, CODE64_3, far_segment(0xa0fb, 0, 0xfffff));
    far_gdt(f, SMALL_CODE, far_segment(0x409b, 0, 0xff));
    far_gdt(f, DATA16_3, far_segment(0x00f3, 0, 0xffff));
    far_gdt(f, LDT_TYPE, far_segment(0x82, 0x1800, 0xff));
    f->v->gdtr = (struct desc_table){GDT, GDT_LIMIT};
    f->v->idtr = (struct desc_table){IDT, 0x7ff};
    f->v->tr = (struct segment){.sel = SEL_TSS, .ar = 0x8b, .limit = 0x167, .base = TSS};
}

void far_idt32(struct guest *f, unsigned vec, unsigned type, unsigned dpl, unsigned sel) {
    guest_put(f, IDT + vec * 8, far_gate(type, dpl, sel, HANDLER, 0), 8);
}

static struct guest *new_guest(void) {
    static struct guest g;
    const struct guest_config cfg = {.policy = MMU_FLUSH};

    guest_new(&g, &cfg);
    return &g;
}

int far_setup32(void **state) {
    struct guest *f = new_guest();
    f->v->cr0 = X86_CR0_PE | X86_CR0_ET;
    build_tables(f);
    guest_put(f, TSS + 4, STACK0, 4);
    guest_put(f, TSS + 8, DATA0, 4);
    mmu_mode_changed(f->v);
    far_ring0(f);
    *state = f;
    return 0;
}

int far_setup16(void **state) {
    struct guest *f = new_guest();
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
int far_setup64(void **state) {
    struct guest *f = new_guest();
    struct vcpu *v = f->v;
    guest_put(f, PML4, (PML4 + 0x1000) | 7, 8);
    guest_put(f, PML4 + 0x1000, (PML4 + 0x2000) | 7, 8);
    guest_put(f, PML4 + 0x2000, X86_PTE_PS | 7, 8);
    build_tables(f);
    far_gdt(f, GATE, far_gate(X86_DESC_CALLGATE32, 3, CODE64, HANDLER, 0));
    guest_put(f, TSS + 4, STACK0 - 8, 8);   /* RSP0, not aligned to 16 */
    guest_put(f, TSS + 0x24, STACK_IST, 8); /* IST1 */
    v->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_PG | X86_CR0_WP;
    v->cr4 = X86_CR4_PAE;
    v->cr3 = PML4;
    v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
    v->idtr.limit = 0xfff;
    vcpu_update_mode(v);
    mmu_cr3_loaded(v, PML4);
    mmu_mode_changed(v);
    far_enter(f, CODE64, DATA0, 0, STACK0);
    *state = f;
    return 0;
}

int far_teardown(void **state) {
    guest_free(*state);
    return 0;
}

void far_idt64(struct guest *f, unsigned vec, unsigned dpl, unsigned sel, unsigned ist) {
    guest_put(f, IDT + vec * 16, far_gate(X86_DESC_INTGATE32, dpl, sel, HANDLER, ist), 8);
    guest_put(f, IDT + vec * 16 + 8, 0, 8);
}

struct insn far_insn(enum op op, unsigned opsize, struct vcpu *v) {
    return (struct insn){.op = (uint16_t)op,
                         .len = 2,
                         .mode = v->mode,
                         .opsize = (uint8_t)opsize,
                         .addrsize = 4,
                         .mem = {.base = REG_ZERO, .index = REG_ZERO, .seg = SEG_DS}};
}

int far_run(struct vcpu *v, const struct insn *i) {
    insn_exec_fn *fn = sem_bind_far(i);
    need(fn, "no far transfer");
    return fn(v, i);
}

int far_go(struct vcpu *v, enum op op, unsigned opsize, unsigned sel, uint64_t off) {
    struct insn i = far_insn(op, opsize, v);
    i.far_sel = (uint16_t)sel;
    i.imm = (int64_t)off;
    return far_run(v, &i);
}

int far_raise(struct vcpu *v, unsigned vector, bool has_error, uint32_t error) {
    v->fault =
        (struct fault){.vector = (uint8_t)vector, .has_error = has_error, .error = error};
    return sem_deliver(v);
}

/* Runs a transfer that must fault and leave everything as it was. */
void far_faults(struct vcpu *v, enum op op, unsigned opsize, unsigned sel, uint64_t off,
                unsigned vector, uint32_t error) {
    uint64_t rsp = v->gpr[REG_RSP], rip = v->rip, flags = v->rflags;
    uint16_t cs = v->seg[SEG_CS].sel, ss = v->seg[SEG_SS].sel;
    unsigned cpl = v->cpl;
    assert_int_equal(far_go(v, op, opsize, sel, off), SEM_FAULT);
    assert_int_equal(v->fault.vector, vector);
    assert_int_equal(v->fault.error, error);
    assert_int_equal(v->gpr[REG_RSP], rsp);
    assert_int_equal(v->rip, rip);
    assert_int_equal(v->rflags, flags);
    assert_int_equal(v->seg[SEG_CS].sel, cs);
    assert_int_equal(v->seg[SEG_SS].sel, ss);
    assert_int_equal(v->cpl, cpl);
}

void far_at(struct vcpu *v, unsigned cs, uint64_t rip, uint64_t rsp) {
    assert_int_equal(v->seg[SEG_CS].sel, cs);
    assert_int_equal(v->rip, rip);
    assert_int_equal(v->gpr[REG_RSP], rsp);
    assert_int_equal(v->cpl, cs & 3);
}

void far_soft(struct guest *f, unsigned vec, unsigned vector, uint32_t error) {
    struct insn i = far_insn(OP_int, 4, f->v);
    i.imm = vec;
    assert_int_equal(far_run(f->v, &i), SEM_FAULT);
    assert_int_equal(f->v->fault.vector, vector);
    assert_int_equal(f->v->fault.error, error);
}
