/* Descriptor tables: GDT with the four rings, IDT, TSS. AMD64 APM volume 2, "Segmented
 * Virtual Memory" and "Exceptions and Interrupts". */
#include "frob.h"

#include "x86/desc.h"

#define GATE_INTERRUPT 0x8e00u /* present, DPL 0, 32- or 64-bit interrupt gate */

struct table_register {
    uint16_t limit;
    ulong base;
} __attribute__((packed));

static uint64_t gdt[GDT_SLOTS];
static uint32_t idt[256 * FROB_BITS / 16];
/* 64-bit: rsp0 at 4. 32-bit: esp0 at 4, ss0 at 8. */
static uint32_t tss[26];

static uint64_t segment(bool code, unsigned dpl) {
    uint64_t ar = X86_AR_P | X86_AR_S | X86_AR_ACCESSED | X86_AR_WRITE | X86_AR_G |
                  dpl << X86_AR_DPL_SHIFT;

    if (code)
        ar |= X86_AR_CODE | (FROB_BITS == 64 ? X86_AR_L : X86_AR_DB);
    else
        ar |= X86_AR_DB;
    return (ar & 0xf0ff) << 40 | 0xffffull | 0xfull << 48;
}

static void set_segments(void) {
    gdt[KERNEL_CS >> 3] = segment(true, 0);
    gdt[KERNEL_DS >> 3] = segment(false, 0);
    gdt[USER_CS >> 3] = segment(true, 3);
    gdt[USER_DS >> 3] = segment(false, 3);
    gdt[RING1_CS >> 3] = segment(true, 1);
    gdt[RING1_DS >> 3] = segment(false, 1);
    gdt[RING2_CS >> 3] = segment(true, 2);
    gdt[RING2_DS >> 3] = segment(false, 2);
}

static void set_tss(void) {
    ulong base = (ulong)tss, stack = (ulong)trap_stack + TRAP_STACK_SIZE;
    uint64_t d = sizeof(tss) - 1;

    tss[1] = (uint32_t)stack;
#if FROB_BITS == 64
    tss[2] = (uint32_t)(stack >> 32);
    gdt[(TSS_SELECTOR >> 3) + 1] = base >> 32;
#else
    tss[2] = KERNEL_DS;
#endif
    tss[25] = sizeof(tss) << 16; /* no I/O permission map */
    d |= (base & 0xffffffull) << 16 | (uint64_t)(base >> 24 & 0xff) << 56;
    gdt[TSS_SELECTOR >> 3] = d | (uint64_t)(X86_AR_P | X86_DESC_TSS32) << 40;
}

void idt_set(unsigned vector, void (*handler)(void), unsigned dpl) {
    ulong at = handler ? (ulong)handler : (ulong)trap_stubs[vector];
    uint32_t *gate = idt + vector * (FROB_BITS / 16);

    gate[0] = (uint32_t)KERNEL_CS << 16 | (uint32_t)(at & 0xffff);
    gate[1] = (uint32_t)(at & 0xffff0000u) | GATE_INTERRUPT | dpl << 13;
#if FROB_BITS == 64
    gate[2] = (uint32_t)(at >> 32);
    gate[3] = 0;
#endif
}

static void load_segments(void) {
    struct table_register g = {sizeof(gdt) - 1, (ulong)gdt};
    struct table_register i = {sizeof(idt) - 1, (ulong)idt};

    __asm__ volatile("lgdt %0" ::"m"(g) : "memory");
    __asm__ volatile("lidt %0" ::"m"(i) : "memory");
    __asm__ volatile("ltr %w0" ::"r"(TSS_SELECTOR));
    __asm__ volatile("mov %0, %%ss" ::"r"(KERNEL_DS));
    /* Null, or of CPL 3, they are good at every ring, so that they never change. */
    __asm__ volatile("mov %0, %%ds\nmov %0, %%es" ::"r"(DATA));
    __asm__ volatile("mov %0, %%fs\nmov %0, %%gs" ::"r"(0));
#if FROB_BITS == 64
    __asm__ volatile(
        "push %0\nlea 1f(%%rip), %%rax\npush %%rax\nlretq\n1:" ::"i"(KERNEL_CS)
        : "rax", "memory");
#else
    __asm__ volatile("ljmp %0, $1f\n1:" ::"i"(KERNEL_CS) : "memory");
#endif
}

bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit) {
    uint32_t r[4];

    cpuid(leaf & 0x80000000u, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}

/* What user code of 64 bits finds under Linux, which a monitor that runs it directly may
 * want. */
static void set_user_features(void) {
    ulong cr4 = read_cr4() | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;

    if (FROB_BITS == 64)
        write_cr4(cpu_has(7, REG_EBX, 0) ? cr4 | X86_CR4_FSGSBASE : cr4);
}

void tables_init(void) {
    set_user_features();
    set_segments();
    set_tss();
    for (unsigned v = 0; v < 256; v++)
        idt_set(v, NULL, 0);
    idt_set(X86_UD, on_ring_exit, 0);
    load_segments();
}
