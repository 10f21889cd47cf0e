/*
 * INIT and SIPI: when what begins a CPU anew (startup.c) is done.
 *
 * They come from any thread (kick.c) and are acted upon by the CPU's own, between two
 * instructions. A CPU that waits for a SIPI stands in machine_serve() (call.c). An NMI
 * that comes meanwhile waits for the SIPI, too: AMD64 APM volume 2, "Interprocessor
 * Interrupts".
 */
#include "machine/machine_int.h"

static void take_init(struct machine_cpu *c) {
    if (machine_cpu_start_init(c))
        machine_end_life(c->machine, MACHINE_ERROR);
    else if (c->steal)
        steal_reset(c->steal);
}

void machine_cpu_take_signals(struct machine_cpu *c) {
    uint32_t signals;

    if (likely(!__atomic_load_n(&c->signals, __ATOMIC_RELAXED)))
        return;
    signals = __atomic_exchange_n(&c->signals, 0, __ATOMIC_SEQ_CST);
    if (signals & SIGNAL_INIT)
        take_init(c);
    if (signals & SIGNAL_SIPI)
        machine_cpu_start_sipi(c, SIGNAL_VECTOR(signals));
}
