/*
 * The host's serial port, COM1, a 16550 at 115200 baud. What is written waits for the
 * transmitter; what comes in is kept by the interrupt's handler in a ring of RING bytes,
 * and read from there. When the ring is full the port keeps it, and the line the rest.
 */
#include "bare/bare_int.h"

#define PORT 0x3f8
#define RING 4096u
#define LSR_DATA 1u
#define LSR_THRE 0x20u
#define FIFO 16u

static uint8_t ring[RING];
static unsigned head, tail; /* of a ring: written, read; they count on */

void bare_serial_start(void) {
    bare_out(PORT + 1, 0);
    bare_out(PORT + 3, 0x80);
    bare_out(PORT, 1);
    bare_out(PORT + 1, 0);
    bare_out(PORT + 3, 3);
    bare_out(PORT + 2, 7);
    bare_out(PORT + 4, 0x0b);
    bare_out(PORT + 1, 1);
}

void bare_serial_write(const uint8_t *bytes, size_t n) {
    while (n) {
        size_t some = n < FIFO ? n : FIFO;

        while (!(bare_in(PORT + 5) & LSR_THRE))
            ;
        for (size_t i = 0; i < some; i++)
            bare_out(PORT, bytes[i]);
        bytes += some;
        n -= some;
    }
}

void bare_serial_interrupt(void) {
    while (__atomic_load_n(&head, __ATOMIC_RELAXED) - tail < RING &&
           bare_in(PORT + 5) & LSR_DATA) {
        ring[head % RING] = bare_in(PORT);
        __atomic_store_n(&head, head + 1, __ATOMIC_RELEASE);
    }
}

size_t bare_serial_read(uint8_t *buf, size_t size) {
    size_t n = 0;

    /* What did not fit, and an interrupt that was lost. */
    __asm__ volatile("cli" : : : "memory");
    bare_serial_interrupt();
    __asm__ volatile("sti" : : : "memory");
    while (n < size && tail != __atomic_load_n(&head, __ATOMIC_ACQUIRE))
        buf[n++] = ring[tail++ % RING];
    return n;
}
