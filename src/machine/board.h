/*
 * The board: devices and how they are wired to each other and to the CPUs. Nothing here
 * knows engines or kernels.
 *
 *   8254 ──irq0──┬─ 8259 input 0      └─ I/O APIC pin 2
 *   ISA n ───────┼─ 8259 input n      └─ I/O APIC pin n
 *   PCI INTx ─── PIRQA..D ─── ISA line of the guest's choice
 *   8259s INT ───── boot CPU's local APIC, LINT0 (virtual wire)
 *   I/O APIC ────── local APICs ───── each its vCPU (VCPU_EVENT_IRQ)
 *
 * Locking: one lock for all of it but the local APICs. A CPU takes it in its vCPU's
 * hooks, whose argument is the CPU; other threads (the loop's: back ends, timers) by
 * board_enter(). So device code runs on any thread, one at a time. `caller` is the CPU
 * whose thread holds the lock, or NULL: the guest's vector state that may be in the
 * host's registers is that CPU's, and who goes outside parks it by board_park(). A local
 * APIC is its CPU's thread's, others post to it (dev/apic/lapic.h): no lock is taken for
 * its registers, its timer, an EOI (but of a level-triggered interrupt), CR8, or to send
 * an interrupt.
 */
#ifndef MACHINE_BOARD_H
#define MACHINE_BOARD_H

#include "base/os.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "cpu/vcpu.h"
#include "cpu/vec.h"
#include "dev/apic/apics.h"
#include "dev/apic/ioapic.h"
#include "dev/fw/fw_cfg.h"
#include "dev/host.h"
#include "dev/pc/kbc.h"
#include "dev/pc/pic.h"
#include "dev/pc/pit.h"
#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/pc/rtc.h"
#include "dev/pc/uart.h"
#include "dev/pc/vga.h"
#include "dev/pc/vmgenid.h"
#include "dev/pv/pvclock.h"
#include "dev/pv/steal.h"
#include "machine/cpu.h"
#include "machine/pci.h"

/* Two: the third and the fourth of a PC share the interrupts of the first two. */
#define BOARD_SERIALS 2u

struct board {
    struct machine_cpu *cpu; /* of CPUS */
    unsigned cpus;
    struct os_mutex lock;
    struct machine_cpu *caller; /* who holds the lock; NULL: no CPU's thread, or nobody */
    struct mem *mem;
    struct bus *bus;
    struct vclock *clock;
    struct counters *cnt; /* the devices'; a local APIC counts for its CPU */
    bool paravirt;
    bool steal_time;
    bool no_pci;
    bool firmware;           /* runs on it */
    bool tells;              /* it, or the guest, is told what there is by a fw_cfg */
    const uint8_t *vga_bios; /* NULL: none */
    uint32_t vga_bios_size;
    bool display;     /* somebody looks: he has a keyboard and a mouse */
    unsigned serials; /* ports, 1 to BOARD_SERIALS; 0: one */
    /* Nanoseconds since 1970 for the clocks; NULL: the host's. ARG is the caller's. */
    uint64_t (*realtime_ns)(void *arg);
    void *realtime_arg;
    uint64_t ticks_base; /* of the clock's source, less the host's TSC */
    bool (*msi)(void *arg, uint64_t addr, uint32_t data);
    void *msi_arg;
    struct apics apics;
    struct ioapic *ioapic;
    struct pic *pic;
    struct pit *pit;
    struct rtc *rtc;
    struct uart *uart[BOARD_SERIALS]; /* those that are there are the first */
    struct ports *ports;
    struct kbc *kbc;
    struct pm *pm;
    struct vmgenid *vmgenid;
    struct vga *vga;
    struct pvclock *pvclock;
    struct fw_cfg *fw_cfg; /* NULL: it does not tell */
    uint16_t isa_lines,
        pirq_lines;       /* high, as ISA devices and the PCI lines drive them */
    struct board_pci pci; /* empty without PCI */
};

/* Takes the board's lock on C's thread; NULL: on one that is no CPU's. */
void board_enter(struct board *b, struct machine_cpu *c);
void board_leave(struct board *b);
/* The guest's vector state leaves the host's registers, if the holder of the lock has it
 * there: before anything that is not of the core rooms (cpu/vec.h). */
static inline void board_park(struct board *b) {
    if (b->caller)
        vec_park(b->caller->vcpu);
}
/* Events for C, from whoever holds the lock: C may be executing elsewhere, or asleep. */
void board_tell(struct machine_cpu *c, uint32_t events);

/* Makes all devices, and each CPU's local APIC; what is above `ticks_base` is set by the
 * caller and stays the caller's. SERIAL has an entry for each port. 0 or -ENOMEM (then
 * nothing is left).
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

/* The line of ISA interrupt N. */
struct irq_line board_isa_line(struct board *b, unsigned n);

/* Power-up state of every device. */
void board_reset(struct board *b);

/* The TSCs of all CPUs are VALUE now, all at once. */
void board_set_tsc(struct board *b, uint64_t value);
/* They are the host's. */
void board_follow_tsc(struct board *b);
/* `ticks_base` has changed. */
void board_tsc_moved(struct board *b);

#endif
