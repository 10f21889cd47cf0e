/* Runs in real and virtual-8086 mode; see realmode.h. */
#include "lib/realmode.h"

#ifndef __x86_64__
/* Low memory. */
#define TRAMPOLINE 0x7000u
#define STUBS 0x8000u
#define SAVED 0x4f00u /* top of the stack that registers are saved on */
#define RM_CS 0x90    /* 16-bit segments to leave protected mode by */
#define RM_DS 0x98

uint16_t real_selectors[5] = {RM_DS, RM_DS, KDS, RM_DS, RM_DS};
uint32_t real_idt_base;
unsigned real_idt_limit = 0x3ff;

extern uint8_t real_start[], real_end[];
extern void real_enter(void);
extern void guest_run_asm(struct regs *);
uint32_t real_back_esp;
struct {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed)) real_idtr, real_pm_idtr;

#define AT "-real_start+0x7000"
__asm__(".pushsection .text\n"
        "real_enter: pushal\n"
        "mov %esp, real_back_esp\n"
        "lidt real_idtr\n"
        "mov real_selectors + 8, %ss\nmov real_selectors + 6, %gs\n"
        "mov real_selectors + 4, %fs\nmov real_selectors + 2, %es\n"
        "mov real_selectors, %ds\n"
        "ljmp $0x90, $(real16" AT ")\n"
        "real_start:\n.code16\n"
        "real16: mov %cr0, %eax\nand $~1, %al\nmov %eax, %cr0\n"
        "ljmp $0, $(1f" AT ")\n"
        "1: xor %ax, %ax\nmov %ax, %ds\nmov %ax, %ss\n"
        "mov $0x5000, %ebx\n" /* struct regs: 4 bytes a slot */
        "mov 60(%bx), %ss\nmov 44(%bx), %esp\n"
        "pushw 56(%bx)\npushw 52(%bx)\npushw 48(%bx)\n"
        "mov 4(%bx), %es\nmov 8(%bx), %fs\nmov 12(%bx), %gs\n"
        "mov 16(%bx), %edi\nmov 20(%bx), %esi\nmov 24(%bx), %ebp\n"
        "mov 32(%bx), %edx\nmov 36(%bx), %ecx\nmov 40(%bx), %eax\n"
        "pushw 0(%bx)\nmov 28(%bx), %ebx\npop %ds\niretw\n"
        /* Every stub calls here: the return address tells the vector. */
        "real_common: mov %esp, %cs:0x5100\nmov %ss, %cs:0x5104\n"
        "lss %cs:0x5108, %esp\n" /* the snippet's stack may wrap where it likes */
        "pushal\npush %ds\npush %es\npush %fs\npush %gs\n"
        "xor %ax, %ax\nmov %ax, %ds\n"
        "mov %cr0, %eax\nor $1, %al\nmov %eax, %cr0\n"
        "ljmpl $8, $real_back\n"
        "real_end:\n.code32\n"
        "real_back: mov $0x10, %eax\nmov %eax, %ds\nmov %eax, %es\nmov %eax, %ss\n"
        "mov %eax, %fs\nmov %eax, %gs\n"
        "mov real_back_esp, %esp\nlidt real_pm_idtr\ncld\npopal\nret\n"
        ".globl real_common\n"
        ".popsection");
extern uint8_t real_common[];

void real_init(void) {
    uint32_t ar = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED;
    gdt_set(RM_CS, seg_desc(0, 0xffff, ar | X86_AR_CODE));
    gdt_set(RM_DS, seg_desc(0, 0xffff, ar));
    memcpy((void *)TRAMPOLINE, real_start, (size_t)(real_end - real_start));
    uint32_t common = TRAMPOLINE + (uint32_t)(real_common - real_start);
    for (unsigned v = 0; v < 256; v++) {
        uint8_t *stub = (uint8_t *)(STUBS + 4 * v);
        uint16_t rel = (uint16_t)(common - (STUBS + 4 * v + 3));
        stub[0] = 0xe8;
        memcpy(stub + 1, &rel, 2);
        volatile uint32_t *ivt = (volatile uint32_t *)(ulong)(4 * v);
        __asm__ volatile("mov %1, %0" : "=m"(*ivt) : "r"(STUBS + 4 * v));
    }
    __asm__ volatile("sidt %0" : "=m"(real_pm_idtr));
}

void regs_real(void) {
    memset(&in, 0, sizeof(in));
    in.cs = CODE_AT >> 4;
    in.ss = STACK_SEG;
    in.sp = 0x8000;
    in.flags = X86_FL_ONE;
}

/* Real mode keeps the size of the stack pointer, too. */
static uint32_t sp_mask(void) {
    return gdt[real_selectors[4] >> 3] >> 54 & 1 ? ~0u : 0xffff;
}

/* Word N of what lay on the stack when a vector was entered: its stub, ip, cs, flags. */
static uint16_t real_word(unsigned n) {
    uint32_t sp = *(volatile uint32_t *)0x5100, ss = *(volatile uint16_t *)0x5104;
    return *(volatile uint16_t *)(ss * 16 + ((sp + 2 * n) & sp_mask()));
}

unsigned run_real(const void *code) {
    ((volatile uint32_t *)0x5108)[0] = SAVED;
    ((volatile uint32_t *)0x5108)[1] = 0;
    memcpy((void *)CODE_AT, code, CODE_LEN(code));
    in.ip = 0;
    memcpy((void *)0x5000, &in, sizeof(in));
    real_idtr.limit = (uint16_t)real_idt_limit;
    real_idtr.base = real_idt_base;
    real_enter();
    const uint16_t *f = (const uint16_t *)(SAVED - 40);
    const uint32_t *g = (const uint32_t *)(f + 4);
    memset(&trap, 0, sizeof(trap));
    trap.r.gs = f[0], trap.r.fs = f[1], trap.r.es = f[2], trap.r.ds = f[3];
    trap.r.di = g[0], trap.r.si = g[1], trap.r.bp = g[2], trap.r.bx = g[4];
    trap.r.dx = g[5], trap.r.cx = g[6], trap.r.ax = g[7];
    trap.vector = (real_word(0) - STUBS - 3) / 4;
    trap.r.ip = real_word(1), trap.r.cs = real_word(2), trap.r.flags = real_word(3);
    trap.r.sp = (*(volatile uint32_t *)0x5100 + 8) & sp_mask();
    trap.r.ss = *(volatile uint16_t *)0x5104;
    return trap.vector;
}

unsigned run_v86(const void *code) {
    memcpy((void *)CODE_AT, code, CODE_LEN(code));
    in.ip = 0;
    memset(&trap, 0, sizeof(trap));
    guest_run_asm(&in);
    return trap.vector;
}
#endif
