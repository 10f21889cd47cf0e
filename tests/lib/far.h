/*
 * What the tests of far transfers and of event delivery share: a guest with descriptor
 * tables in RAM, set up for real, protected or long mode, and transfers by operation,
 * without the decoder.
 */
#ifndef LIB_FAR_H
#define LIB_FAR_H

#include "lib/guest.h"
#include "sem/far_int.h"

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

/* For cmocka: the guest is *STATE. In 64-bit mode 2 MiB are mapped, for users too. */
int far_setup16(void **state);
int far_setup32(void **state);
int far_setup64(void **state);
int far_teardown(void **state);

/* Descriptors, and their way into the tables. */
uint64_t far_segment(unsigned ar, uint32_t base, uint32_t limit);
uint64_t far_gate(unsigned type, unsigned dpl, unsigned sel, uint32_t off, unsigned low);
void far_gdt(struct guest *f, unsigned sel, uint64_t desc);
void far_idt32(struct guest *f, unsigned vec, unsigned type, unsigned dpl, unsigned sel);
void far_idt64(struct guest *f, unsigned vec, unsigned dpl, unsigned sel, unsigned ist);

/* Segments, stack and level as if by a transfer: from the GDT, rip at 0x7000. */
void far_use_seg(struct guest *f, unsigned seg, unsigned sel);
void far_enter(struct guest *f, unsigned code, unsigned data, unsigned cpl, uint64_t sp);
void far_ring0(struct guest *f);
void far_ring3(struct guest *f);

/* An instruction of OP, its execution, and both for a far pointer: what the semantic
 * function returns. */
struct insn far_insn(enum op op, unsigned opsize, struct vcpu *v);
int far_run(struct vcpu *v, const struct insn *i);
int far_go(struct vcpu *v, enum op op, unsigned opsize, unsigned sel, uint64_t off);
/* Delivers the fault. */
int far_raise(struct vcpu *v, unsigned vector, bool has_error, uint32_t error);

/* Assertions of cmocka's. A transfer that must fault and leave everything as it was. */
void far_faults(struct vcpu *v, enum op op, unsigned opsize, unsigned sel, uint64_t off,
                unsigned vector, uint32_t error);
/* INT VEC must fault like that. */
void far_soft(struct guest *f, unsigned vec, unsigned vector, uint32_t error);
/* V is there. */
void far_at(struct vcpu *v, unsigned cs, uint64_t rip, uint64_t rsp);

#define T16(fn) cmocka_unit_test_setup_teardown(fn, far_setup16, far_teardown)
#define T32(fn) cmocka_unit_test_setup_teardown(fn, far_setup32, far_teardown)
#define T64(fn) cmocka_unit_test_setup_teardown(fn, far_setup64, far_teardown)

#endif
