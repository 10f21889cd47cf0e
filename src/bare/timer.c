/*
 * Time and interrupts. Time is the TSC, whose frequency is measured against the 8254
 * once, and which all CPUs are taken to have alike; a CPU's local APIC's timer, measured
 * against the TSC, interrupts it at a deadline. The 8259s are masked; of the I/O
 * APIC's lines the serial port's goes to the first CPU, which tells the others, and those
 * of devices that a guest has to the CPU that runs it. An interrupt's handler ends the
 * interrupt, tells who has asked (bare_on_interrupt()), and no more.
 */
#include "bare/bare_int.h"
#include "base/os.h"
#include "x86/msr.h"

#define PIT_HZ 1193182u
#define PIT_TICKS (PIT_HZ / 50) /* 20 ms */
#define DIVIDE_BY_1 0xb

static uint64_t hz, start, timer_hz, ns_per_tick_32; /* the last one times 2 to the 32 */
static _Thread_local bool came;                      /* an interrupt, since bare_wait() */
static void (*told)(void *arg);
static void *told_arg;

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

static void measure_timer(void) {
    uint64_t from;
    uint32_t count;

    bare_apic_put(BARE_APIC_DIVIDE, DIVIDE_BY_1);
    bare_apic_put(BARE_APIC_LVT_TIMER, BARE_APIC_MASKED | BARE_VECTOR_TIMER);
    bare_apic_put(BARE_APIC_INITIAL, UINT32_MAX);
    from = os_tsc();
    while (os_tsc() - from < hz / 50)
        ;
    count = UINT32_MAX - bare_apic_get(BARE_APIC_CURRENT);
    timer_hz = (uint64_t)count * hz / (os_tsc() - from);
}

void bare_timer_join(void) {
    bare_apic_put(BARE_APIC_DIVIDE, DIVIDE_BY_1);
    bare_apic_put(BARE_APIC_INITIAL, 0);
    bare_apic_put(BARE_APIC_LVT_TIMER, BARE_VECTOR_TIMER);
}

void bare_timer_start(void) {
    bare_out(0x21, 0xff);
    bare_out(0xa1, 0xff);
    bare_apic_start();
    measure_timer();
    bare_timer_join();
    bare_ioapic_set(BARE_COM1_PIN, BARE_VECTOR_SERIAL, bare_apic_id());
}

void bare_on_interrupt(void (*fn)(void *arg), void *arg) {
    told = fn;
    told_arg = arg;
}

void bare_interrupt(unsigned vector) {
    if (vector == BARE_VECTOR_SPURIOUS)
        return;
    if (vector == BARE_VECTOR_FLUSH)
        bare_tlb_interrupt();
    if (vector == BARE_VECTOR_SERIAL) {
        bare_serial_interrupt();
        bare_apic_send_others(BARE_VECTOR_KICK);
    }
    if (vector - BARE_VECTOR_DEVICE < BARE_IRQS)
        bare_irq_interrupt(vector);
    bare_apic_put(BARE_APIC_EOI, 0);
    if (vector == BARE_VECTOR_FLUSH)
        return;
    came = true;
    if (told)
        told(told_arg);
}

void bare_timer_set(uint64_t ns) {
    uint64_t now = os_monotonic_ns(), ticks;

    if (ns == UINT64_MAX) {
        bare_apic_put(BARE_APIC_INITIAL, 0);
        return;
    }
    ns = ns > now ? ns - now : 0;
    if (ns > 1000000000u) /* who waits longer looks at the clock meanwhile */
        ns = 1000000000u;
    ticks = ns * (timer_hz / 1000) / 1000000u + 1;
    bare_apic_put(BARE_APIC_INITIAL, ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks);
}

/* STI takes effect behind the next instruction: nothing is lost between it and HLT. */
void bare_wait(void) {
    __asm__ volatile("cli" : : : "memory");
    if (!came)
        __asm__ volatile("sti; hlt" : : : "memory");
    came = false;
    __asm__ volatile("sti" : : : "memory");
}
