/*
 * The bare machine: what is under base/os.h when there is no Linux (docs/svm.md).
 * bare_entry (start.S) calls bare_start(), then main(), which the image provides, then
 * bare_end() with what main() returned.
 *
 * The first CPU executes main(), the others what it has them run (bare_run_all()). All
 * have the same memory, at the same addresses; thread-local variables are a CPU's own.
 * Interrupts are on; their handlers set flags, and no more. Who waits for another CPU
 * looks until it is so: nothing takes a CPU away from who has it.
 */
#ifndef BARE_BARE_H
#define BARE_BARE_H

#include "base/types.h"

/* --- what the loader left (boot.c) --- */

struct bare_module {
    const char *args; /* text that came with it, its file's name first */
    const uint8_t *data;
    uint64_t size;
};

/* The command line, without the name of the image; never NULL. */
const char *bare_cmdline(void);
const struct bare_module *bare_modules(unsigned *count);

/* --- physical memory (frames.c); all of it is mapped one to one --- */

/* SIZE zeroed bytes from a multiple of ALIGN, a power of two of 4096 at least, on, in one
 * piece; NULL: there is none. */
void *bare_frames(uint64_t size, uint64_t align);
/* One page, and back. */
void *bare_frame(void);
void bare_frame_free(void *page);
uint64_t bare_memory(void); /* bytes, in all, that the loader's map has for us */

/* --- CPUs (cpu.c, cpus.c) --- */

#define BARE_CPUS 64u /* no more are brought up */

/* How many there are, and which one this is: from 0 on, the first is the loader's. */
unsigned bare_cpus(void);
unsigned bare_cpu_number(void);
/* All CPUs call FN, this one too; back when it has returned here. Called once. */
void bare_run_all(void (*fn)(void));
/* FN is called for os_yield(), on the CPU that has nothing better to do; or NULL. */
void bare_on_yield(void (*fn)(void));
/* CPU N has an interrupt: it comes back from bare_wait(), or its guest's run ends. From
 * any CPU, also in an interrupt's handler. */
void bare_kick(unsigned n);

/* --- the serial port, COM1 (serial.c) --- */

void bare_serial_write(const uint8_t *bytes, size_t n);
/* Takes what has come, at most SIZE bytes. */
size_t bare_serial_read(uint8_t *buf, size_t size);

/* --- time and interrupts (timer.c) --- */

/* This CPU's timer interrupts it at NS of os_monotonic_ns(); UINT64_MAX: never. */
void bare_timer_set(uint64_t ns);
/* Sleeps until an interrupt; at once when one has come to this CPU since its last call.
 * What is typed is an interrupt to all of them. */
void bare_wait(void);
/* Called for each interrupt of the host's, in its handler, on the CPU that it has come
 * to; or NULL. */
void bare_on_interrupt(void (*fn)(void *arg), void *arg);

/* --- devices that are a guest's (ioapic.c, madt.c, pci.c) --- */

#define BARE_IRQS 16u

struct bare_irq {
    unsigned pin;    /* of the first I/O APIC */
    bool level, low; /* it follows its line's level; which is active when it is low */
};
/* Where the firmware's tables say that ISA interrupt LINE comes; else at the pin of that
 * number, as ISA's do, or as PCI's if PCI. */
struct bare_irq bare_irq_of(unsigned line, bool pci);
/* The interrupt comes to CPU from bare_irq_open() on: its handler sets *CAME, which stays
 * the caller's, and calls bare_on_interrupt()'s. One that follows a level is closed then.
 * A number for the functions below; -1: there is no such pin, or somebody has it. Not for
 * two CPUs at once. */
int bare_irq_take(const struct bare_irq *irq, unsigned cpu, uint32_t *came);
void bare_irq_open(int n);
void bare_irq_close(int n);

/* Four bytes of configuration space, at a multiple of four. WHERE is bus << 8 | device
 * << 3 | function. */
uint32_t bare_pci_read(uint16_t where, unsigned at);
void bare_pci_write(uint16_t where, unsigned at, uint32_t value);

/* --- the end (end.c) --- */

/* Tells what the run was worth: to the debug-exit port of an emulator, if the command
 * line has `end=debug-exit`; then the machine stands. */
_Noreturn void bare_end(int status);

/* --- hardware virtualization (virt.c) --- */

/* NULL, or what CPU N lacks, in words. */
const char *bare_svm_lacks(unsigned n);
/* Runs the guest of the control block VMCB with the general registers GPR until #VMEXIT
 * (enter.S). False: not entered, for a bit of MASK is in *EVENTS: looked at when
 * an interrupt that comes ends the run, so that what its handler puts there is not
 * overlooked. */
bool bare_svm_enter(void *vmcb, uint64_t *gpr, const uint32_t *events, uint32_t mask);

#endif
