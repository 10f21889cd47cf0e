/*
 * The first I/O APIC: the serial port's pin, and those of devices that are a guest's.
 * Intel 82093AA data sheet.
 *
 * A pin that follows its line's level interrupts again as long as that is high, so that
 * its handler masks it; who has dealt with the interrupt opens it (bare_irq_open()). An
 * edge comes once.
 *
 * Locking: one lock for the registers, which handlers of interrupts take, too.
 */
#include "bare/bare_int.h"

#define BASE 0xfec00000u
#define DATA 0x10u
#define REG_VERSION 1u
#define REG_REDIR 0x10u
#define LOW (1u << 13)
#define LEVEL (1u << 15)
#define MASKED (1u << 16)

static struct {
    struct bare_irq irq;
    uint8_t apic;
    uint32_t *came; /* NULL: free */
} taken[BARE_IRQS];
static struct bare_lock lock;

static uint32_t get(uint32_t reg) {
    *(volatile uint32_t *)(uintptr_t)BASE = reg;
    return *(volatile uint32_t *)(uintptr_t)(BASE + DATA);
}

static void put(uint32_t reg, uint32_t value) {
    *(volatile uint32_t *)(uintptr_t)BASE = reg;
    *(volatile uint32_t *)(uintptr_t)(BASE + DATA) = value;
}

void bare_ioapic_set(unsigned pin, uint32_t low, uint8_t apic) {
    uint64_t flags = bare_lock(&lock);

    put(REG_REDIR + 2 * pin, MASKED);
    put(REG_REDIR + 2 * pin + 1, (uint32_t)apic << 24);
    put(REG_REDIR + 2 * pin, low);
    bare_unlock(&lock, flags);
}

static unsigned pins(void) {
    uint64_t flags = bare_lock(&lock);
    unsigned n = (get(REG_VERSION) >> 16 & 0xff) + 1;

    bare_unlock(&lock, flags);
    return n;
}

/* --- devices that are a guest's --- */

static void set(unsigned n, bool on) {
    const struct bare_irq *i = &taken[n].irq;

    bare_ioapic_set(i->pin,
                    (BARE_VECTOR_DEVICE + n) | (i->low ? LOW : 0) |
                        (i->level ? LEVEL : 0) | (on ? 0 : MASKED),
                    taken[n].apic);
}

static bool is_taken(unsigned pin) {
    for (unsigned n = 0; n < BARE_IRQS; n++)
        if (taken[n].came && taken[n].irq.pin == pin)
            return true;
    return pin == BARE_COM1_PIN;
}

int bare_irq_take(const struct bare_irq *irq, unsigned cpu, uint32_t *came) {
    unsigned n = 0;

    while (n < BARE_IRQS && taken[n].came)
        n++;
    if (n == BARE_IRQS || irq->pin >= pins() || is_taken(irq->pin))
        return -1;
    taken[n].irq = *irq;
    taken[n].apic = bare_cpu(cpu)->apic;
    taken[n].came = came;
    return (int)n;
}

void bare_irq_open(int n) {
    set((unsigned)n, true);
}

void bare_irq_close(int n) {
    set((unsigned)n, false);
}

void bare_irq_interrupt(unsigned vector) {
    unsigned n = vector - BARE_VECTOR_DEVICE;

    if (taken[n].irq.level)
        set(n, false);
    __atomic_store_n(taken[n].came, 1, __ATOMIC_SEQ_CST);
}
