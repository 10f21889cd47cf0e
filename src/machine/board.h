/*
 * The board: devices and how they are wired. Nothing here knows engines or kernels.
 *
 *   8254 ──irq0──┬─ 8259 input 0      └─ I/O APIC pin 2
 *   ISA n ───────┼─ 8259 input n      └─ I/O APIC pin n
 *   8259s INT ───── local APIC LINT0 (virtual wire)
 *   I/O APIC ────── local APIC ────── vCPU (VCPU_EVENT_IRQ)
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
#include "engine/run.h"

struct board {
    struct vcpu *vcpu;
    struct mem *mem;
    struct bus *bus;
    struct vclock *clock;
    struct counters *cnt;
    struct exit_counts *exits;
    bool paravirt;
    /* Nanoseconds since 1970 for the clocks; NULL: the host's. ARG is the caller's. */
    uint64_t (*realtime_ns)(void *arg);
    void *realtime_arg;
    struct lapic *lapic; /* NULL: the engine has it */
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

/* Makes all devices; vcpu, mem, bus, clock, cnt and exits are set by the caller and stay
 * the caller's. Installs the vCPU's hooks. 0 or -ENOMEM (then nothing is left). */
int board_create(struct board *b, const struct dev_host *host,
                 const struct uart_host *serial);
/* Frees the devices; B is empty then. */
void board_destroy(struct board *b);

/* The engine has a local APIC of its own, which takes messages through MSI: ours goes,
 * and the 8259s' output is what VCPU_EVENT_IRQ says. Before the first reset. */
void board_use_lapic_of_engine(struct board *b,
                               bool (*msi)(void *arg, uint64_t addr, uint32_t data),
                               void *arg);

/* Power-up state of every device. */
void board_reset(struct board *b);

#endif
