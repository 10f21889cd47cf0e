/*
 * Time and interrupts. Time is the TSC, whose frequency is measured against the 8254
 * once; the local APIC's timer, measured against the TSC, interrupts at a deadline. The
 * 8259s are masked, the I/O APIC has one line: the serial port's. An interrupt's handler
 * ends the interrupt, tells who has asked (bare_on_interrupt()), and no more.
 */
#include "bare/bare_int.h"
#include "base/os.h"
#include "x86/msr.h"

#define PIT_HZ 1193182u
#define PIT_TICKS (PIT_HZ / 50) /* 20 ms */
#define APIC_ENABLED (1u << 11)
#define LAPIC_EOI 0xb0
#define LAPIC_TPR 0x80
#define LAPIC_SVR 0xf0
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_INITIAL 0x380
#define LAPIC_CURRENT 0x390
#define LAPIC_DIVIDE 0x3e0
#define LAPIC_ID 0x20
#define LVT_MASKED 0x10000u
#define DIVIDE_BY_1 0xb
#define IOAPIC 0xfec00000u
#define COM1_PIN 4u

static volatile uint8_t *lapic;
static uint64_t hz, start, timer_hz, ns_per_tick_32; /* the last one times 2 to the 32 */
static bool came;                                    /* an interrupt, since bare_wait() */
static void (*told)(void *arg);
static void *told_arg;

static uint32_t lapic_get(unsigned reg) {
    return *(volatile uint32_t *)(lapic + reg);
}

static void lapic_put(unsigned reg, uint32_t value) {
    *(volatile uint32_t *)(lapic + reg) = value;
}

/* --- the TSC --- */

uint64_t os_tsc(void) {
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return lo | (uint64_t)hi << 32;
}

/* Counts PIT_TICKS by the 8254's channel 2, whose gate and output are in port 0x61. */
static uint64_t measure(void) {
    uint64_t from;

    bare_out(0x61, (uint8_t)((bare_in(0x61) & ~2u) | 1u));
    bare_out(0x43, 0xb0);
    bare_out(0x42, PIT_TICKS & 0xff);
    bare_out(0x42, PIT_TICKS >> 8);
    from = os_tsc();
    while (!(bare_in(0x61) & 0x20))
        ;
    return (os_tsc() - from) * PIT_HZ / PIT_TICKS;
}

void bare_time_start(void) {
    hz = measure();
    ns_per_tick_32 = (1000000000ull << 32) / hz;
    start = os_tsc();
}

uint64_t os_tsc_hz(void) {
    return hz;
}

uint64_t os_monotonic_ns(void) {
    return (uint64_t)((unsigned __int128)(os_tsc() - start) * ns_per_tick_32 >> 32);
}

/* --- interrupts --- */

static void ioapic_put(uint32_t reg, uint32_t value) {
    *(volatile uint32_t *)(uintptr_t)IOAPIC = reg;
    *(volatile uint32_t *)(uintptr_t)(IOAPIC + 0x10) = value;
}

void bare_timer_start(void) {
    uint64_t base = bare_rdmsr(X86_MSR_APIC_BASE), from;
    uint32_t count;

    bare_out(0x21, 0xff);
    bare_out(0xa1, 0xff);
    bare_wrmsr(X86_MSR_APIC_BASE, base | APIC_ENABLED);
    lapic = (volatile uint8_t *)(uintptr_t)(base & 0xffffff000ull);
    lapic_put(LAPIC_SVR, 0x100 | BARE_VECTOR_SPURIOUS);
    lapic_put(LAPIC_TPR, 0);
    lapic_put(LAPIC_LVT_LINT0, LVT_MASKED);
    lapic_put(LAPIC_DIVIDE, DIVIDE_BY_1);
    lapic_put(LAPIC_LVT_TIMER, LVT_MASKED | BARE_VECTOR_TIMER);
    lapic_put(LAPIC_INITIAL, UINT32_MAX);
    from = os_tsc();
    while (os_tsc() - from < hz / 50)
        ;
    count = UINT32_MAX - lapic_get(LAPIC_CURRENT);
    timer_hz = (uint64_t)count * hz / (os_tsc() - from);
    lapic_put(LAPIC_INITIAL, 0);
    lapic_put(LAPIC_LVT_TIMER, BARE_VECTOR_TIMER);
    ioapic_put(0x10 + 2 * COM1_PIN + 1, lapic_get(LAPIC_ID) & 0xff000000u);
    ioapic_put(0x10 + 2 * COM1_PIN, BARE_VECTOR_SERIAL);
}

void bare_on_interrupt(void (*fn)(void *arg), void *arg) {
    told = fn;
    told_arg = arg;
}

void bare_interrupt(unsigned vector) {
    if (vector == BARE_VECTOR_SPURIOUS)
        return;
    if (vector == BARE_VECTOR_SERIAL)
        bare_serial_interrupt();
    lapic_put(LAPIC_EOI, 0);
    came = true;
    if (told)
        told(told_arg);
}

void bare_timer_set(uint64_t ns) {
    uint64_t now = os_monotonic_ns(), ticks;

    if (ns == UINT64_MAX) {
        lapic_put(LAPIC_INITIAL, 0);
        return;
    }
    ns = ns > now ? ns - now : 0;
    if (ns > 1000000000u) /* who waits longer looks at the clock meanwhile */
        ns = 1000000000u;
    ticks = ns * (timer_hz / 1000) / 1000000u + 1;
    lapic_put(LAPIC_INITIAL, ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks);
}

/* STI takes effect behind the next instruction: nothing is lost between it and HLT. */
void bare_wait(void) {
    __asm__ volatile("cli" : : : "memory");
    if (!came)
        __asm__ volatile("sti; hlt" : : : "memory");
    came = false;
    __asm__ volatile("sti" : : : "memory");
}
