/*
 * Interrupts and timers: PIT through the 8259s, local APIC timer in its three modes, I/O
 * APIC routing, priorities, the interrupt shadow of STI and MOV SS, HLT, self IPIs, NMI
 * and its blocking. Counts and orders are checked, times only roughly: hosts are busy.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define PIC_BASE 0x20
#define PIC2_BASE 0x28
#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_PPR 0xa0
#define APIC_EOI 0xb0
#define APIC_SVR 0xf0
#define APIC_ISR 0x100
#define APIC_IRR 0x200
#define APIC_ICR 0x300
#define APIC_ICR2 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_ERROR 0x370
#define APIC_TIMER_INIT 0x380
#define APIC_TIMER_NOW 0x390
#define APIC_TIMER_DIV 0x3e0
#define LVT_MASKED (1u << 16)
#define PIT_HZ 1193182u

static volatile unsigned irqs[256], order[64], order_count;
static volatile ulong last_ip;
static volatile bool nested;

static uint32_t apic_read(unsigned r) {
    return *(volatile uint32_t *)(LAPIC + r);
}

static void apic_write(unsigned r, uint32_t v) {
    *(volatile uint32_t *)(LAPIC + r) = v;
}

static uint32_t ioapic_read(unsigned r) {
    *(volatile uint32_t *)IOAPIC = r;
    return *(volatile uint32_t *)(IOAPIC + 0x10);
}

static void ioapic_write(unsigned r, uint32_t v) {
    *(volatile uint32_t *)IOAPIC = r;
    *(volatile uint32_t *)(IOAPIC + 0x10) = v;
}

static void record(struct frame *f) {
    irqs[f->vector]++;
    last_ip = f->ip;
    if (order_count < COUNT(order))
        order[order_count++] = (unsigned)f->vector;
}

static bool on_pic(struct frame *f) {
    record(f);
    if (f->vector >= PIC2_BASE)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

static bool on_apic(struct frame *f) {
    record(f);
    if (nested) {
        nested = false;
        apic_write(APIC_ICR, 0x40000 | 0x90); /* higher: taken at once with IF set */
        sti();
        __asm__ volatile("nop; nop");
        cli();
        apic_write(APIC_ICR, 0x40000 | 0x50); /* lower: waits for the EOI */
        sti();
        __asm__ volatile("nop; nop");
        cli();
        order[order_count++] = 1;
    }
    apic_write(APIC_EOI, 0);
    return true;
}

static void reset_counts(void) {
    memset((void *)irqs, 0, sizeof(irqs));
    order_count = 0;
}

/* Spins with interrupts on until `count` of the vector have come, or `ms` have passed by
 * the TSC at a guess of 1 to 5 GHz; false then. */
static bool wait_for(unsigned vector, unsigned count, unsigned ms) {
    uint64_t end = rdtsc() + (uint64_t)ms * 5000000u;
    while (irqs[vector] < count && rdtsc() < end) {
        sti();
        __asm__ volatile("nop; pause; nop");
        cli();
    }
    return irqs[vector] >= count;
}

static void pic_init(void) {
    static const uint8_t icw[2][4] = {{0x11, PIC_BASE, 4, 1}, {0x11, PIC2_BASE, 2, 1}};
    for (int i = 0; i < 2; i++) {
        uint16_t port = i ? 0xa0 : 0x20;
        outb(port, icw[i][0]);
        for (int k = 1; k < 4; k++)
            outb(port + 1, icw[i][k]);
        outb(port + 1, 0xff);
    }
    for (unsigned v = PIC_BASE; v < PIC_BASE + 16; v++)
        hooks[v] = on_pic;
    check_eq("IMR reads back", inb(0x21), 0xff);
    outb(0x21, 0xa5);
    check_eq("IMR reads back", inb(0x21), 0xa5);
    outb(0x21, 0xff);
}

static void pit_start(unsigned mode, unsigned count) {
    outb(0x43, (uint8_t)(0x30 | mode << 1));
    outb(0x40, (uint8_t)count);
    outb(0x40, (uint8_t)(count >> 8));
}

static void pit(void) {
    /* LINT0 as ExtINT, or the APIC off, lets the PIC through. */
    reset_counts();
    pit_start(2, PIT_HZ / 500);
    outb(0x21, 0xfe);
    uint64_t t0 = rdtsc();
    check(wait_for(PIC_BASE, 20, 3000), "20 PIT interrupts: %u", irqs[PIC_BASE]);
    uint64_t t1 = rdtsc();
    check(t1 > t0, "time passes");
    outb(0x21, 0xff);
    unsigned n = irqs[PIC_BASE];
    check(!wait_for(PIC_BASE, n + 2, 20), "masked: no more of them");
    /* HLT wakes up for each. */
    outb(0x21, 0xfe);
    n = irqs[PIC_BASE];
    for (int i = 0; i < 5; i++)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    check(irqs[PIC_BASE] >= n + 5, "5 halts, %u interrupts", irqs[PIC_BASE] - n);
    /* The saved ip is behind the hlt: at the cli. */
    extern uint8_t timer_after_hlt[];
    __asm__ volatile("sti\nhlt\n.globl timer_after_hlt\ntimer_after_hlt: cli" ::
                         : "memory");
    check_eq("ip behind hlt", last_ip, (ulong)timer_after_hlt);
    /* One-shot mode 0. */
    outb(0x21, 0xff);
    pit_start(0, 2000);
    /* An edge that came while masked may be pending: take it first. */
    outb(0x21, 0xfe);
    wait_for(PIC_BASE, irqs[PIC_BASE] + 1, 50);
    reset_counts();
    pit_start(0, 3000);
    check(wait_for(PIC_BASE, 1, 1000), "mode 0 fires");
    check(!wait_for(PIC_BASE, 2, 20), "mode 0 fires once");
    outb(0x21, 0xff);
    /* The counter counts down; the latch holds. */
    pit_start(2, 0);
    outb(0x43, 0);
    unsigned a = inb(0x40);
    a |= (unsigned)inb(0x40) << 8;
    for (volatile int i = 0; i < 20000; i++)
        ;
    outb(0x43, 0);
    for (volatile int i = 0; i < 2000; i++)
        ;
    unsigned b = inb(0x40);
    b |= (unsigned)inb(0x40) << 8;
    check(a != b, "the counter counts: 0x%x 0x%x", a, b);
    outb(0x43, 0xe2); /* read back: status of channel 0 */
    check_eq("status: mode 2, both bytes", inb(0x40) & 0x3f, 0x34);
    /* Channel 2 gated by port 61, its output readable. */
    outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
    outb(0x43, 0xb0);
    outb(0x42, 0x00);
    outb(0x42, 0x10);
    check(!(inb(0x61) & 0x20), "channel 2 output low while counting");
    uint64_t end = rdtsc() + 5000000000ull;
    while (!(inb(0x61) & 0x20) && rdtsc() < end)
        ;
    check(inb(0x61) & 0x20, "channel 2 output rises");
    outb(0x61, inb(0x61) & ~1);
}

static void pic_details(void) {
    /* A pending request shows in IRR while masked; ISR while in service. */
    pit_start(0, 100);
    uint64_t end = rdtsc() + 5000000000ull;
    outb(0x20, 0x0a);
    while (!(inb(0x20) & 1) && rdtsc() < end)
        ;
    check(inb(0x20) & 1, "IRR shows IRQ 0");
    reset_counts();
    outb(0x21, 0xfe);
    check(wait_for(PIC_BASE, 1, 1000), "unmasked, it comes");
    outb(0x20, 0x0b);
    check_eq("ISR empty after EOI", inb(0x20), 0);
    outb(0x21, 0xff);
}

static void shadow(void) {
    /* A request is pending (self IPI, vector 0x60); where it is taken tells. */
    for (unsigned v = 0x30; v < 0x100; v++) {
        if (v != DONE)
            hooks[v] = on_apic;
    }
    reset_counts();
    extern uint8_t shadow_sti[], shadow_ss[];
    apic_write(APIC_ICR, 0x40000 | 0x60);
    __asm__ volatile("nop; nop; sti; nop\n.globl shadow_sti\nshadow_sti: nop; cli" ::
                         : "memory");
    check_eq("one instruction after sti", last_ip, (ulong)shadow_sti);
    reset_counts();
    apic_write(APIC_ICR, 0x40000 | 0x60);
    __asm__ volatile("sti; cli; nop" ::: "memory");
    check_eq("sti; cli leaves no window", irqs[0x60], 0);
    __asm__ volatile("sti; nop; cli" ::: "memory");
    check_eq("now it is taken", irqs[0x60], 1);
    /* popf has no shadow: taken at once. */
    extern uint8_t shadow_popf[];
    apic_write(APIC_ICR, 0x40000 | 0x60);
    __asm__ volatile("pushf\norl $0x200, (%%" BITS(
                         "e", "r") "sp)\npopf\n"
                                   ".globl shadow_popf\nshadow_popf: nop\ncli" ::
                                       : "memory", "cc");
    check_eq("right after popf", last_ip, (ulong)shadow_popf);
    /* mov ss holds interrupts for one instruction. The request comes in between by way of
     * popf: popf; mov ss is not a window. */
    ulong ss = KDS;
    /* sti; mov ss: both shadows. */
    apic_write(APIC_ICR, 0x40000 | 0x60);
    __asm__ volatile(
        "sti; mov %w0, %%ss; nop\n.globl shadow_ss\nshadow_ss: nop; cli" ::"r"(ss)
        : "memory");
    check(last_ip == (ulong)shadow_ss || last_ip == (ulong)shadow_ss - 1,
          "mov ss after sti: taken at 0x%lx, want 0x%lx", last_ip, (ulong)shadow_ss);
    /* A write that raises the request inside the shadow of mov ss is held for the
     * instruction behind mov ss only. */
    reset_counts();
    sti();
    __asm__ volatile("nop\nmov %w0, %%ss\nmovl %2, (%1)\n"
                     "nop\nnop\nnop\ncli" ::"r"(ss),
                     "r"(LAPIC + APIC_ICR), "i"(0x40060)
                     : "memory");
    check_eq("request raised in the shadow", irqs[0x60], 1);
    /* hlt right behind sti with a request pending must not sleep for ever. */
    reset_counts();
    apic_write(APIC_ICR, 0x40000 | 0x60);
    __asm__ volatile("sti; hlt; cli" ::: "memory");
    check_eq("sti; hlt with a request pending", irqs[0x60], 1);
    /* With IF clear, nothing. */
    reset_counts();
    apic_write(APIC_ICR, 0x40000 | 0x60);
    for (volatile int i = 0; i < 1000; i++)
        ;
    check_eq("IF clear", irqs[0x60], 0);
    check(apic_read(APIC_IRR + 0x30) & 1, "pending in IRR");
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    check_eq("IF set", irqs[0x60], 1);
    check_eq("IRR empty", apic_read(APIC_IRR + 0x30), 0);
    check_eq("ISR empty", apic_read(APIC_ISR + 0x30), 0);
}

static void priorities(void) {
    reset_counts();
    static const uint8_t in_order[] = {0x45, 0xe1, 0x71};
    for (unsigned i = 0; i < 3; i++)
        apic_write(APIC_ICR, 0x40000u | in_order[i]);
    __asm__ volatile("sti; nop; nop; nop; nop; cli" ::: "memory");
    check(order_count == 3 && order[0] == 0xe1 && order[1] == 0x71 && order[2] == 0x45,
          "three pending come by priority: %x %x %x", order[0], order[1], order[2]);
    reset_counts();
    apic_write(APIC_TPR, 0x70);
    check_eq("PPR follows TPR", apic_read(APIC_PPR) & 0xf0, 0x70);
    apic_write(APIC_ICR, 0x40000 | 0x71);
    apic_write(APIC_ICR, 0x40000 | 0x82);
    __asm__ volatile("sti; nop; nop; nop; cli" ::: "memory");
    check(irqs[0x71] == 0 && irqs[0x82] == 1, "TPR holds its own class back: %u %u",
          irqs[0x71], irqs[0x82]);
    sti();
    apic_write(APIC_TPR, 0);
    /* Not within any number of instructions, but soon: the write may be posted. */
    for (volatile int i = 0; i < 1000; i++)
        ;
    cli();
    check_eq("lowering TPR lets it in", irqs[0x71], 1);
#ifdef __x86_64__
    __asm__ volatile("mov %0, %%cr8" ::"r"(5ul));
    check_eq("CR8 is TPR", apic_read(APIC_TPR), 0x50);
    __asm__ volatile("mov %0, %%cr8" ::"r"(0ul));
#endif
    /* In service 0x60: 0x90 interrupts the handler, 0x50 waits until its end. */
    reset_counts();
    nested = true;
    apic_write(APIC_ICR, 0x40000 | 0x60);
    __asm__ volatile("sti; nop; nop; nop; cli" ::: "memory");
    check(order_count == 4 && order[0] == 0x60 && order[1] == 0x90 && order[2] == 1 &&
              order[3] == 0x50,
          "nesting: %u: %x %x %x %x", order_count, order[0], order[1], order[2],
          order[3]);
}

static void lapic_timer(void) {
    apic_write(APIC_TIMER_DIV, 0xb); /* by 1 */
    reset_counts();
    apic_write(APIC_LVT_TIMER, 0x61);
    apic_write(APIC_TIMER_INIT, 100000);
    uint32_t now = apic_read(APIC_TIMER_NOW);
    check(now <= 100000, "the count starts at the initial count: %u", now);
    check(wait_for(0x61, 1, 2000), "one-shot fires");
    check(!wait_for(0x61, 2, 10), "and once");
    check_eq("count at 0", apic_read(APIC_TIMER_NOW), 0);
    reset_counts();
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x62);
    apic_write(APIC_TIMER_INIT, 1000000);
    check(wait_for(0x62, 10, 5000), "periodic: %u", irqs[0x62]);
    for (int i = 0; i < 3; i++)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    check(irqs[0x62] >= 13, "periodic wakes hlt: %u", irqs[0x62]);
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x62 | LVT_MASKED);
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    unsigned n = irqs[0x62];
    check(!wait_for(0x62, n + 1, 10), "masked");
    apic_write(APIC_TIMER_INIT, 0);
    check_eq("stopped", apic_read(APIC_TIMER_NOW), 0);
    apic_write(APIC_TIMER_DIV, 3); /* by 16 */
    check_eq("divider reads back", apic_read(APIC_TIMER_DIV), 3);
    if (cpu_has(1, REG_ECX, 24)) {
        reset_counts();
        apic_write(APIC_LVT_TIMER, 0x40000 | 0x63);
        wrmsr(X86_MSR_TSC_DEADLINE, rdtsc() + 1000000);
        check(rdmsr(X86_MSR_TSC_DEADLINE) || irqs[0x63] == 0, "armed");
        check(wait_for(0x63, 1, 2000), "TSC deadline fires");
        check_eq("and disarms", rdmsr(X86_MSR_TSC_DEADLINE), 0);
        wrmsr(X86_MSR_TSC_DEADLINE, 1);
        check(wait_for(0x63, 2, 2000), "a deadline in the past fires at once");
        wrmsr(X86_MSR_TSC_DEADLINE, rdtsc() + 50000000);
        wrmsr(X86_MSR_TSC_DEADLINE, 0);
        check(!wait_for(0x63, 3, 30), "0 disarms");
        uint64_t at = rdtsc() + 3000000;
        wrmsr(X86_MSR_TSC_DEADLINE, at);
        __asm__ volatile("sti; hlt; cli" ::: "memory");
        check(rdtsc() >= at, "hlt until the deadline, not before it");
    }
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

static void ioapic(void) {
    unsigned pins = (ioapic_read(1) >> 16 & 0xff) + 1;
    check_eq("24 pins", pins, 24);
    for (unsigned p = 0; p < pins; p++)
        ioapic_write(0x10 + 2 * p, LVT_MASKED);
    uint32_t id = apic_read(APIC_ID) & 0xff000000;
    /* The PIT is on pin 2, as the MADT's override says. */
    ioapic_write(0x11 + 2 * 2, id);
    ioapic_write(0x10 + 2 * 2, 0x64);
    check_eq("redirection reads back", ioapic_read(0x10 + 2 * 2) & 0x1ffff, 0x64);
    reset_counts();
    pit_start(2, PIT_HZ / 500);
    check(wait_for(0x64, 5, 2000), "PIT through the I/O APIC: %u", irqs[0x64]);
    ioapic_write(0x10 + 2 * 2, LVT_MASKED | 0x64);
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    unsigned n = irqs[0x64];
    check(!wait_for(0x64, n + 1, 20), "masked there");
    pit_start(0, 0);
    /* The serial port on pin 4: the transmitter's interrupt. */
    reset_counts();
    ioapic_write(0x11 + 2 * 4, id);
    ioapic_write(0x10 + 2 * 4, 0x65);
    outb(0x3fc, 0x0b); /* OUT2 gates the line */
    outb(0x3f9, 2);    /* THR empty */
    check(wait_for(0x65, 1, 1000), "serial transmitter interrupt");
    check((inb(0x3fa) & 0xf) == 2, "and its reason");
    outb(0x3f9, 0);
    ioapic_write(0x10 + 2 * 4, LVT_MASKED);
}

/* --- NMI --- */

static volatile unsigned nmis, nmi_depth, nmi_max;

static void send_nmi(void) {
    apic_write(APIC_ICR2, apic_read(APIC_ID) & 0xff000000);
    apic_write(APIC_ICR, 0x4400); /* NMI, physical destination: this CPU */
}

static bool on_nmi(struct frame *f) {
    nmis++;
    nmi_depth++;
    if (nmi_depth > nmi_max)
        nmi_max = nmi_depth;
    if (nmis == 1) {
        send_nmi(); /* held until the iret */
        for (volatile int i = 0; i < 1000; i++)
            ;
    }
    nmi_depth--;
    return true;
}

static void nmi(void) {
    hooks[X86_NMI] = on_nmi;
    nmis = nmi_depth = nmi_max = 0;
    send_nmi();
    for (volatile int i = 0; i < 1000; i++)
        ;
    check(nmis == 2 && nmi_max == 1, "an NMI in an NMI's handler waits: %u, depth %u",
          nmis, nmi_max);
    send_nmi();
    for (volatile int i = 0; i < 1000; i++)
        ;
    check_eq("NMI comes with IF clear", nmis, 3);
    send_nmi();
    __asm__ volatile("nop" ::: "memory");
    for (volatile int i = 0; i < 1000; i++)
        ;
    check_eq("and again: iret unblocked it", nmis, 4);
    hooks[X86_NMI] = NULL;
    nmis = 0;
    /* At ring 3, on the ring's own stack switch. */
    regs_user();
    in.bx = LAPIC + APIC_ICR;
    in.ax = 0x4400;
    RUN("mov [ebx], eax\nnop\nnop\nnop\nnop\njmp $");
    check(trap.vector == X86_NMI && trap.r.cs == UCS, "NMI at ring 3: %u", trap.vector);
    /* That one ended without an iret in its handler: guest_run's next iret unblocks. */
    TRY3("nop");
    expect("after it", DONE, 0, ANY);
    hooks[X86_NMI] = on_nmi;
    nmis = 5;
    send_nmi();
    for (volatile int i = 0; i < 1000; i++)
        ;
    check_eq("NMI after the unwound one", nmis, 6);
    hooks[X86_NMI] = NULL;
}

/* --- interrupts at ring 3 --- */

static void user(void) {
    reset_counts();
    apic_write(APIC_TIMER_DIV, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x62);
    apic_write(APIC_TIMER_INIT, 300000);
    /* A long computation at ring 3 with interrupts all along keeps its registers. */
    regs_user();
    in.flags |= X86_FL_IF;
    in.cx = 20000000;
    RUN("xor eax, eax\nxor edx, edx\n1: add eax, 3\nadc edx, 0\nxor ebx, eax\nlea esi, "
        "[eax + edx]\nloop 1b\n");
    check(trap.vector == DONE && trap.r.ax == 60000000 && trap.r.dx == 0 &&
              trap.r.si == 60000000,
          "a loop under interrupts: %u eax %lu", trap.vector, trap.r.ax);
    check(irqs[0x62] > 0, "and they came: %u", irqs[0x62]);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_TIMER_INIT, 0);
    check(trap.r.flags & X86_FL_IF, "IF is in the saved flags");
    /* The same with a long rep movs: interrupted and resumed. */
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x62);
    apic_write(APIC_TIMER_INIT, 20000);
    uint8_t *a = (uint8_t *)0x2000000, *b = (uint8_t *)0x2400000;
    for (unsigned i = 0; i < 0x200000; i += 4)
        *(uint32_t *)(a + i) = i * 2654435761u;
    bool ok = true;
    reset_counts();
    for (int i = 0; i < 3; i++) {
        memset(b, 0, 0x200000);
        regs_user();
        in.flags |= X86_FL_IF;
        in.si = (ulong)a, in.di = (ulong)b, in.cx = 0x200000;
        RUN("rep movsb");
        ok &= trap.vector == DONE && trap.r.cx == 0 && !memcmp(a, b, 0x200000);
    }
    check(ok, "rep movsb under interrupts (%u came)", irqs[0x62]);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_TIMER_INIT, 0);
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
}

void guest_main(void) {
    pic_init();
    apic_write(APIC_LVT_LINT0, 0x700); /* ExtINT */
    apic_write(APIC_SVR, 0x1ff);
    pit();
    pic_details();
    apic_write(APIC_LVT_LINT0, LVT_MASKED | 0x700);
    shadow();
    priorities();
    lapic_timer();
    ioapic();
    nmi();
    user();
}
