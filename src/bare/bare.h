/*
 * The bare machine: what is under base/os.h when there is no Linux (docs/svm.md).
 * bare_entry (start.S) calls bare_start(), then main(), which the image provides, then
 * bare_end() with what main() returned.
 *
 * The first CPU alone executes. Interrupts are on; their handlers set flags, and no more.
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

/* --- the serial port, COM1 (serial.c) --- */

void bare_serial_write(const uint8_t *bytes, size_t n);
/* Takes what has come, at most SIZE bytes. */
size_t bare_serial_read(uint8_t *buf, size_t size);

/* --- time and interrupts (timer.c) --- */

/* The local APIC's timer interrupts at NS of os_monotonic_ns(); UINT64_MAX: never. */
void bare_timer_set(uint64_t ns);
/* Sleeps until an interrupt; at once when one has come since the last call. */
void bare_wait(void);
/* Called for each interrupt of the host's, in its handler; or NULL. */
void bare_on_interrupt(void (*fn)(void *arg), void *arg);

/* --- the end (end.c) --- */

/* Tells what the run was worth: to the debug-exit port of an emulator, if the command
 * line has `end=debug-exit`; then the machine stands. */
_Noreturn void bare_end(int status);

/* --- hardware virtualization (virt.c) --- */

/* Turns SVM on. NULL, or what the CPU lacks, in words. */
const char *bare_svm_on(void);
/* Runs the guest of the control block VMCB with the general registers GPR until #VMEXIT
 * (enter.S). */
void bare_svm_enter(void *vmcb, uint64_t *gpr);

#endif
