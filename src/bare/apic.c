/*
 * This CPU's local APIC, by its registers in memory. AMD64 APM volume 2, "Advanced
 * Programmable Interrupt Controller (APIC)".
 */
#include "bare/bare_int.h"
#include "x86/msr.h"

#define ENABLED (1u << 11)
#define ID 0x20u
#define TPR 0x80u
#define SVR 0xf0u
#define COMMAND 0x300u
#define COMMAND_DEST 0x310u
#define LVT_LINT0 0x350u
#define SVR_ON 0x100u
#define SENDING (1u << 12)
#define ASSERT (1u << 14)
#define TO_OTHERS (3u << 18)

static volatile uint8_t *regs; /* at the same address for all */

uint32_t bare_apic_get(unsigned reg) {
    return *(volatile uint32_t *)(regs + reg);
}

void bare_apic_put(unsigned reg, uint32_t value) {
    *(volatile uint32_t *)(regs + reg) = value;
}

void bare_apic_start(void) {
    uint64_t base = bare_rdmsr(X86_MSR_APIC_BASE);

    bare_wrmsr(X86_MSR_APIC_BASE, base | ENABLED);
    regs = (volatile uint8_t *)(uintptr_t)(base & 0xffffff000ull);
    bare_apic_put(SVR, SVR_ON | BARE_VECTOR_SPURIOUS);
    bare_apic_put(TPR, 0);
    bare_apic_put(LVT_LINT0, BARE_APIC_MASKED);
}

uint8_t bare_apic_id(void) {
    return (uint8_t)(bare_apic_get(ID) >> 24);
}

/* No handler of an interrupt's sends between the two halves. */
static void send(uint32_t dest, uint32_t command) {
    uint64_t flags;

    __asm__ volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory");
    while (bare_apic_get(COMMAND) & SENDING)
        __builtin_ia32_pause();
    bare_apic_put(COMMAND_DEST, dest);
    bare_apic_put(COMMAND, command | ASSERT);
    __asm__ volatile("push %0; popfq" : : "r"(flags) : "memory", "cc");
}

void bare_apic_send(uint8_t id, uint32_t command) {
    send((uint32_t)id << 24, command);
}

/* Those that have not been brought up take none but INIT and SIPI. */
void bare_apic_send_others(uint32_t command) {
    if (bare_cpus() > 1)
        send(0, command | TO_OTHERS);
}
