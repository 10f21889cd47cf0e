#include "smp.h"

#define LAPIC 0xfee00000ul
#define APIC_EOI 0xb0
#define APIC_SVR 0xf0
#define APIC_ICR 0x300
#define TRAMPOLINE 0x8000ul
#define WAKE 0x71

extern const uint8_t smp_trampoline[], smp_trampoline_end[];
void smp_ipi_entry(void);
void smp_wake_entry(void);
void smp_other(unsigned cpu);
void smp_ipi(void);
void smp_wake(void);

uint32_t smp_cr3;
volatile uint32_t smp_arrived;
struct {
    uint16_t limit;
    ulong base;
} __attribute__((packed)) smp_idtr;
void (*volatile smp_ipi_hook)(void);

static void (*volatile work)(unsigned cpu);
static volatile unsigned work_number, work_done;
static volatile unsigned met, meeting;

static void apic_write(unsigned r, uint32_t v) {
    *(volatile uint32_t *)(LAPIC + r) = v;
}

static uint32_t apic_read(unsigned r) {
    return *(volatile uint32_t *)(LAPIC + r);
}

static void send(uint32_t icr) {
    apic_write(APIC_ICR, icr);
    while (apic_read(APIC_ICR) & 1u << 12)
        pause();
}

void smp_ipi(void) {
    if (smp_ipi_hook)
        smp_ipi_hook();
    apic_write(APIC_EOI, 0);
}

void smp_wake(void) {
    apic_write(APIC_EOI, 0);
}

void smp_interrupt_others(void) {
    send(0xc4000 | SMP_IPI);
}

void smp_other(unsigned cpu) {
    unsigned seen = 0;

    apic_write(APIC_SVR, 0x1ff);
    for (;;) {
        cli();
        while (work_number == seen) /* asleep: others need the host's CPUs */
            __asm__ volatile("sti\n hlt\n cli" ::: "memory");
        sti();
        seen++;
        work(cpu);
        __atomic_add_fetch(&work_done, 1, __ATOMIC_SEQ_CST);
    }
}

void smp_start(void) {
    uint8_t *to = (uint8_t *)TRAMPOLINE;

    smp_cr3 = (uint32_t)read_cr3();
    __asm__ volatile("sidt %0" : "=m"(smp_idtr));
    for (const uint8_t *p = smp_trampoline; p < smp_trampoline_end; p++)
        to[p - smp_trampoline] = *p;
    idt_set(SMP_IPI, KCS, smp_ipi_entry, 14, 0);
    idt_set(WAKE, KCS, smp_wake_entry, 14, 0);
    apic_write(APIC_SVR, 0x1ff);
    send(0xc4500);                    /* INIT, all but self */
    send(0xc4600 | TRAMPOLINE >> 12); /* SIPI */
    while (smp_arrived != SMP_CPUS - 1)
        pause();
}

void smp_meet(void) {
    unsigned now = meeting;

    if (__atomic_add_fetch(&met, 1, __ATOMIC_SEQ_CST) == SMP_CPUS) {
        met = 0;
        __atomic_add_fetch(&meeting, 1, __ATOMIC_SEQ_CST);
        return;
    }
    while (meeting == now)
        pause();
}

void smp_together(void (*fn)(unsigned cpu)) {
    work = fn;
    work_done = 0;
    __atomic_add_fetch(&work_number, 1, __ATOMIC_SEQ_CST);
    send(0xc4000 | WAKE);
    fn(0);
    while (work_done != SMP_CPUS - 1)
        pause();
}
