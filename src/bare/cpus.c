/*
 * The machine's other CPUs, brought up one after the other: INIT, SIPI, and once more
 * SIPI if need be (Intel SDM volume 3, "Multiple-Processor (MP) Initialization";
 * MultiProcessor Specification, appendix B.4, "Application Processor Startup"). Each
 * comes by start.S to bare_cpu_main(), on memory that the first one has prepared for it,
 * and waits there for what is to be run.
 */
#include <string.h>

#include "bare/bare_int.h"
#include "base/log.h"
#include "base/os.h"

#define TRAMPOLINE 0x8000u /* a page that nobody else has, below 1 MiB */
#define STACK (256u << 10)
#define MS 1000000ull

static uint64_t memory_top;
static void (*to_run)(void);

/* --- on a CPU that has come --- */

void bare_cpu_main(struct bare_cpu *c) {
    void (*fn)(void);

    bare_paging_join();
    bare_features();
    bare_cpu_is(c);
    bare_traps_start();
    bare_apic_start();
    bare_timer_join();
    bare_svm_start();
    __atomic_store_n(&c->present, 1, __ATOMIC_SEQ_CST);
    __asm__ volatile("sti");
    while (!(fn = __atomic_load_n(&to_run, __ATOMIC_SEQ_CST)))
        bare_wait();
    fn();
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* --- on the first --- */

static void pause_for(uint64_t ns) {
    uint64_t end = os_monotonic_ns() + ns;

    while (os_monotonic_ns() < end)
        __builtin_ia32_pause();
}

/* Has it come within NS? */
static bool comes(const struct bare_cpu *c, uint64_t ns) {
    uint64_t end = os_monotonic_ns() + ns;

    while (!__atomic_load_n(&c->present, __ATOMIC_SEQ_CST)) {
        if (os_monotonic_ns() >= end)
            return false;
        __builtin_ia32_pause();
    }
    return true;
}

static struct bare_cpu *prepare(uint8_t id) {
    uint64_t size = (sizeof(struct bare_cpu) + 4095) & ~4095ull;
    struct bare_cpu *c = bare_frames(size + STACK, 4096);

    if (!c)
        return NULL;
    c->stack_top = (uint8_t *)c + size + STACK;
    c->number = bare_cpus();
    c->apic = id;
    return c;
}

/* The second SIPI is for CPUs that have missed the first; an emulator that has little
 * time is waited for. */
static bool start(struct bare_cpu *c) {
    __atomic_store_n(&bare_next, c, __ATOMIC_SEQ_CST);
    bare_apic_send(c->apic, BARE_APIC_INIT);
    pause_for(10 * MS);
    bare_apic_send(c->apic, BARE_APIC_STARTUP | TRAMPOLINE >> 12);
    if (comes(c, 200 * MS))
        return true;
    bare_apic_send(c->apic, BARE_APIC_STARTUP | TRAMPOLINE >> 12);
    if (comes(c, 5000 * MS))
        return true;
    /* One that comes now finds nothing, and stands; one that has taken it will come. */
    return !__atomic_exchange_n(&bare_next, NULL, __ATOMIC_SEQ_CST) &&
           comes(c, 60000 * MS);
}

/* Devices are below 4 GiB, and the firmware's tables may lie among them. */
static const uint8_t *look(uint64_t at, uint64_t len) {
    uint64_t top = memory_top < 1ull << 32 ? 1ull << 32 : memory_top;

    if (at >= top || len > top - at)
        return NULL;
    return (const uint8_t *)(uintptr_t)at;
}

/* ACPI's flags: polarity in bits 0 and 1, trigger mode in bits 2 and 3; 0: the bus's. */
struct bare_irq bare_irq_of(unsigned line, bool pci) {
    struct bare_irq irq = {.pin = line, .level = pci, .low = pci};
    unsigned flags;

    if (!bare_irq_override(look, line, &irq.pin, &flags))
        return irq;
    if (flags & 3)
        irq.low = (flags & 3) == 3;
    if (flags & 0xc)
        irq.level = (flags & 0xc) == 0xc;
    return irq;
}

void bare_cpus_start(void) {
    uint8_t id[BARE_CPUS], mine = bare_apic_id();
    unsigned found;

    bare_cpu_first()->apic = mine;
    memory_top = bare_frames_top();
    found = bare_cpus_find(look, id, BARE_CPUS);
    memcpy((void *)(uintptr_t)TRAMPOLINE, bare_trampoline,
           (size_t)(bare_trampoline_end - bare_trampoline));
    for (unsigned n = 0; n < found; n++) {
        struct bare_cpu *c = id[n] == mine ? NULL : prepare(id[n]);

        if (c && start(c))
            bare_cpu_add(c);
        else if (c)
            log_error("CPU with the local APIC ID %u does not come", id[n]);
    }
}

void bare_run_all(void (*fn)(void)) {
    __atomic_store_n(&to_run, fn, __ATOMIC_SEQ_CST);
    bare_apic_send_others(BARE_VECTOR_KICK);
    fn();
}

void bare_kick(unsigned n) {
    bare_apic_send(bare_cpu(n)->apic, BARE_VECTOR_KICK);
}
