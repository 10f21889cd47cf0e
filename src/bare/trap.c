/*
 * Exceptions and interrupts of the host's, on each CPU with a TSS and stacks of its own.
 * A page fault in an area that is filled on demand brings a page; a fault in code that
 * runs for the guest is its owner's (os_fault_range()); any other ends us, with the
 * registers on the serial port. Three stacks: for exceptions, for those that may come
 * amid them (NMI, double fault, machine check), for interrupts. While a fault is handled
 * the next one's stack is below: its handler may touch what is filled on demand. AMD64
 * APM volume 2, "Interrupt-Stack Table".
 */
#include <stdio.h>

#include "bare/bare_int.h"
#include "base/log.h"
#include "mem/mem.h"
#include "x86/desc.h"
#include "x86/exception.h"

#define GATE_INTERRUPT 0x8eu
#define STACK_EACH 8192u /* of it, for each fault amid another */
#define CODE_SELECTOR 8u
#define TSS_SELECTOR 0x18u

enum { IST_FAULT = 1, IST_URGENT = 2, IST_INTERRUPT = 3 };

static struct {
    uint16_t offset0, selector;
    uint8_t ist, type;
    uint16_t offset1;
    uint32_t offset2, zero;
} idt[256];

struct __attribute__((packed)) table {
    uint16_t limit;
    uint64_t base;
};

static uint8_t ist_of(unsigned vector) {
    if (vector == X86_NMI || vector == X86_DF || vector == X86_MC)
        return IST_URGENT;
    return vector < 32 ? IST_FAULT : IST_INTERRUPT;
}

static void make_gates(void) {
    for (unsigned n = 0; n < 256; n++) {
        uint64_t at = (uintptr_t)bare_vectors + 16 * n;

        idt[n].offset0 = (uint16_t)at;
        idt[n].offset1 = (uint16_t)(at >> 16);
        idt[n].offset2 = (uint32_t)(at >> 32);
        idt[n].selector = CODE_SELECTOR;
        idt[n].ist = ist_of(n);
        idt[n].type = GATE_INTERRUPT;
    }
}

static void make_descriptors(struct bare_cpu *c) {
    uint64_t at = (uintptr_t)&c->tss;

    for (unsigned n = 0; n < BARE_TRAP_STACKS; n++)
        c->tss.ist[n] = (uintptr_t)c->trap_stack[n] + BARE_TRAP_STACK;
    c->tss.io_map = sizeof(c->tss);
    c->gdt[1] = 0x00af9b000000ffffull;
    c->gdt[2] = 0x00cf93000000ffffull;
    c->gdt[3] = (sizeof(c->tss) - 1) | (at & 0xffffff) << 16 |
                (uint64_t)(X86_DESC_TSS32 | X86_AR_P) << 40 | (at >> 24 & 0xff) << 56;
    c->gdt[4] = at >> 32;
}

void bare_traps_start(void) {
    struct bare_cpu *c = bare_self;
    struct table g = {sizeof(c->gdt) - 1, (uintptr_t)c->gdt};
    struct table i = {sizeof(idt) - 1, (uintptr_t)idt};

    if (!c->number)
        make_gates();
    make_descriptors(c);
    __asm__ volatile("lgdt %0; lidt %1; ltr %w2"
                     :
                     : "m"(g), "m"(i), "r"(TSS_SELECTOR)
                     : "memory");
}

static _Noreturn void die(const struct bare_frame *f, uint64_t addr) {
    static const char *const name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                         "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                         "r12", "r13", "r14", "r15"};

    log_error("bug: exception %u (error code 0x%llx) at 0x%llx, address 0x%llx, CPU %u",
              (unsigned)f->vector, (unsigned long long)f->error,
              (unsigned long long)f->rip, (unsigned long long)addr, bare_self->number);
    for (unsigned n = 0; n < 16; n++)
        log_error("  %s %016llx", name[n], (unsigned long long)f->gpr[n]);
    for (unsigned n = 0; n < 16 && f->rsp >= (uintptr_t)bare_image &&
                         f->rsp + 8 * n + 8 <= (uintptr_t)bare_image_end;
         n++)
        log_error("  stack %016llx", ((const unsigned long long *)f->rsp)[n]);
    bare_end(255);
}

static bool handled(struct bare_frame *f, uint64_t addr) {
    struct bare_cpu *c = bare_self;

    if (c->tss.ist[IST_FAULT - 1] < (uintptr_t)c->trap_stack[IST_FAULT - 1] + STACK_EACH)
        return false;
    return (f->vector == X86_PF && bare_demand_fault(addr)) || bare_offer_fault(f, addr);
}

static void fault(struct bare_frame *f) {
    uint64_t addr = 0;

    if (f->vector == X86_PF)
        __asm__ volatile("mov %%cr2, %0" : "=r"(addr));
    bare_self->tss.ist[IST_FAULT - 1] -= STACK_EACH;
    if (!handled(f, addr))
        die(f, addr);
    bare_self->tss.ist[IST_FAULT - 1] += STACK_EACH;
}

void bare_trap(struct bare_frame *f) {
    if (f->vector >= 32)
        bare_interrupt((unsigned)f->vector);
    else
        fault(f);
}
