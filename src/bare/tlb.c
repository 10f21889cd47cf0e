/*
 * Translations that other CPUs keep. Whoever has taken a page away counts `wanted` on and
 * interrupts the others, which drop all that they have (nothing of ours is global) and
 * store what they saw of the count. Who waits for them does the same meanwhile: two that
 * wait for each other, with interrupts off, go on.
 */
#include "bare/bare_int.h"

static uint32_t wanted;

void bare_tlb_interrupt(void) {
    uint32_t seen = __atomic_load_n(&wanted, __ATOMIC_SEQ_CST);
    uint64_t root;

    __asm__ volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(root) : : "memory");
    __atomic_store_n(&bare_self->flushed, seen, __ATOMIC_SEQ_CST);
}

static uint32_t ask(void) {
    uint32_t mine = __atomic_add_fetch(&wanted, 1, __ATOMIC_SEQ_CST);

    bare_apic_send_others(BARE_VECTOR_FLUSH);
    return mine;
}

void bare_tlb_flush_others_soon(void) {
    if (bare_cpus() > 1)
        ask();
}

void bare_tlb_flush_others(void) {
    unsigned count = bare_cpus();
    uint32_t mine;

    if (count == 1)
        return;
    mine = ask();
    for (unsigned n = 0; n < count; n++)
        while ((int32_t)(__atomic_load_n(&bare_cpu(n)->flushed, __ATOMIC_SEQ_CST) -
                         mine) < 0) {
            bare_tlb_interrupt();
            __builtin_ia32_pause();
        }
}
