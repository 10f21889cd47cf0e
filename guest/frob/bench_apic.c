/*
 * The local APIC: a register read, an interrupt to oneself, and the way out of HLT.
 * Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)".
 */
#include "frob.h"

#define PIC1_DATA 0x21
#define PIC2_DATA 0xa1
#define APIC_BASE_ENABLE (1u << 11)
#define SVR_ENABLE 0x100u
#define ICR_SELF (1u << 18) /* shorthand: self; fixed, edge */
#define LVT_MASKED (1u << 16)
#define DIVIDE_BY_1 0xbu
#define TIMER_COUNT 20000u
#define LVT_LINT0 0x350

volatile uint32_t *apic;

bool apic_init(void) {
    uint64_t base;

    if (!cpu_has(1, REG_EDX, 9))
        return false;
    base = rdmsr(X86_MSR_APIC_BASE);
    wrmsr(X86_MSR_APIC_BASE, base | APIC_BASE_ENABLE);
    apic = (volatile uint32_t *)(ulong)(base & 0xfffff000u);
    apic_eoi = (ulong)&APIC(APIC_EOI);
    /* The 8259s, and their way through LINT0, stay quiet: nothing else interrupts. */
    outb(PIC1_DATA, 0xff);
    outb(PIC2_DATA, 0xff);
    APIC(LVT_LINT0) = LVT_MASKED;
    APIC(APIC_LVT_TIMER) = LVT_MASKED;
    APIC(APIC_TPR) = 0;
    APIC(APIC_SVR) = SVR_ENABLE | SPURIOUS_VECTOR;
    idt_set(IPI_VECTOR, on_apic_interrupt, 0);
    idt_set(TIMER_VECTOR, on_apic_interrupt, 0);
    return true;
}

/* --- mmio: the version register --- */

static uint32_t version, differences;

static bool prepare_mmio(void) {
    if (!apic)
        return false;
    version = APIC(APIC_VERSION);
    differences = 0;
    return true;
}

static uint64_t run_mmio(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        differences |= APIC(APIC_VERSION) ^ version;
    return rdtsc() - start;
}

static bool check_mmio(uint64_t ops) {
    return !differences && version;
}

/* --- selfipi: from the store to the ICR to the end of the handler --- */

static bool prepare_ipi(void) {
    return apic;
}

static uint64_t run_ipi(ulong rounds) {
    uint64_t start, t;

    sti();
    start = rdtsc();
    for (; rounds; rounds--) {
        ulong before = irq_count;

        APIC(APIC_ICR_LOW) = ICR_SELF | IPI_VECTOR;
        while (irq_count == before)
            __asm__ volatile("pause");
    }
    t = rdtsc() - start;
    cli();
    return t;
}

static bool check_irqs(uint64_t ops) {
    return irq_count == (ulong)ops;
}

/*
 * --- hlt: how much later than the timer's end the code behind HLT runs ---
 * The same interval is waited for twice: with interrupts off, reading the timer's count
 * until it is 0, and in HLT. The difference is the sleep's, the wake-up's, and that of an
 * interrupt's delivery, less a register read. It has the noise of both.
 */
static uint64_t spun;

static uint64_t wait_spinning(void) {
    uint64_t start = rdtsc();

    APIC(APIC_TIMER_INITIAL) = TIMER_COUNT;
    while (APIC(APIC_TIMER_CURRENT))
        ;
    return rdtsc() - start;
}

static uint64_t wait_halted(void) {
    ulong before = irq_count;
    uint64_t start = rdtsc();

    APIC(APIC_TIMER_INITIAL) = TIMER_COUNT;
    /* STI holds interrupts back until HLT has begun; another wake-up sleeps again. */
    while (irq_count == before)
        __asm__ volatile("sti\nhlt\ncli" ::: "memory");
    return rdtsc() - start;
}

static bool prepare_hlt(void) {
    if (!apic)
        return false;
    APIC(APIC_TIMER_DIVIDE) = DIVIDE_BY_1;
    APIC(APIC_LVT_TIMER) = LVT_MASKED | TIMER_VECTOR;
    spun = UINT64_MAX;
    for (unsigned n = 0; n < 20; n++) {
        uint64_t t = wait_spinning();

        if (t < spun)
            spun = t;
    }
    APIC(APIC_LVT_TIMER) = TIMER_VECTOR;
    return true;
}

static uint64_t run_hlt(ulong rounds) {
    uint64_t late = 0;

    for (; rounds; rounds--) {
        uint64_t t = wait_halted();

        late += t > spun ? t - spun : 0;
    }
    return late;
}

static void finish_hlt(void) {
    APIC(APIC_LVT_TIMER) = LVT_MASKED;
    APIC(APIC_TIMER_INITIAL) = 0;
}

const struct bench apic_benches[] = {
    {.name = "mmio",
     .per_round = 1,
     .prepare = prepare_mmio,
     .run = run_mmio,
     .check = check_mmio},
    {.name = "selfipi",
     .per_round = 1,
     .prepare = prepare_ipi,
     .run = run_ipi,
     .check = check_irqs},
    {.name = "hlt",
     .per_round = 1,
     .prepare = prepare_hlt,
     .run = run_hlt,
     .check = check_irqs,
     .finish = finish_hlt},
    {0},
};
