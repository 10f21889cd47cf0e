/*
 * The board: devices and how they are wired to each other and to the CPUs. Nothing here
 * knows engines or kernels.
 *
 *   8254 ──irq0──┬─ 8259 input 0      └─ I/O APIC pin 2
 *   ISA n ───────┼─ 8259 input n      └─ I/O APIC pin n
 *   8259s INT ───── boot CPU's local APIC, LINT0 (virtual wire)
 *   I/O APIC ────── local APICs ───── each its vCPU (VCPU_EVENT_IRQ)
 *
 * A CPU enters the board through its vCPU's hooks, whose argument is the CPU; `caller` is
 * the one that entered last. While it is in here, the guest's vector state that may be
 * live is that CPU's, and so devices that go outside park it there.
 */
#ifndef MACHINE_BOARD_H
#define MACHINE_BOARD_H

#include "bus/bus.h"
#include "bus/clock.h"
#include "cpu/vcpu.h"
#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/host.h"
#include "dev/pc/kbc.h"
#include "dev/pc/pic.h"
#include "dev/pc/pit.h"
#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/pc/rtc.h"
#include "dev/pc/uart.h"
#include "dev/pc/vga.h"
#include "dev/pv/pvclock.h"
#include "machine/cpu.h"

struct board {
    struct machine_cpu *cpu; /* of CPUS */
    unsigned cpus;
    struct machine_cpu *caller;
    struct mem *mem;
    struct bus *bus;
    struct vclock *clock;
    struct counters *cnt; /* the devices'; a local APIC counts for its CPU */
    bool paravirt;
    /* Nanoseconds since 1970 for the clocks; NULL: the host's. ARG is the caller's. */
    uint64_t (*realtime_ns)(void *arg);
    void *realtime_arg;
    bool (*msi)(void *arg, uint64_t addr, uint32_t data);
    void *msi_arg;
    struct ioapic *ioapic;
    struct pic *pic;
    struct pit *pit;
    struct rtc *rtc;
    struct uart *uart;
    struct ports *ports;
    struct kbc *kbc;
    struct pm *pm;
    struct vga *vga;
    struct pvclock *pvclock;
};

/* Makes all devices, and each CPU's local APIC; what is above `msi` is set by the caller
 * and stays the caller's. 0 or -ENOMEM (then nothing is left).
 */
int board_create(struct board *b, const struct dev_host *host,
                 const struct uart_host *serial);
/* What a CPU asks the board; the argument is the struct machine_cpu. */
extern const struct vcpu_hooks board_vcpu_hooks;

/* Frees the devices; B is empty then. */
void board_destroy(struct board *b);

/* The engines have local APICs of their own, which take messages through MSI: ours go,
 * and the 8259s' output is what VCPU_EVENT_IRQ says. Before the first reset. */
void board_use_lapic_of_engine(struct board *b,
                               bool (*msi)(void *arg, uint64_t addr, uint32_t data),
                               void *arg);

/* Power-up state of every device. */
void board_reset(struct board *b);

/* The guest's TSC, which all CPUs share, is VALUE now. */
void board_set_tsc(struct board *b, uint64_t value);
/* The distance between the clock's TSC and the host's has changed. */
void board_tsc_moved(struct board *b);

#endif
