/*
 * The host's serial port, COM1, a 16550 at 115200 baud. What is written waits for the
 * transmitter; what comes in is kept by the interrupt's handler in a ring of RING bytes,
 * and read from there. When the ring is full the port keeps it, and the line the rest.
 *
 * Locking: one lock for what is written, one for the ring.
 */
#include "bare/bare_int.h"

#define PORT 0x3f8
#define RING 4096u
#define LSR_DATA 1u
#define LSR_THRE 0x20u
#define FIFO 16u

static uint8_t ring[RING];
static unsigned head, tail; /* of a ring: written, read; they count on */
static struct bare_lock writing, reading;

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
    uint64_t flags = bare_lock(&writing);

    while (n) {
        size_t some = n < FIFO ? n : FIFO;

        while (!(bare_in(PORT + 5) & LSR_THRE))
            ;
        for (size_t i = 0; i < some; i++)
            bare_out(PORT, bytes[i]);
        bytes += some;
        n -= some;
    }
    bare_unlock(&writing, flags);
}

static void fetch(void) {
    while (head - tail < RING && bare_in(PORT + 5) & LSR_DATA)
        ring[head++ % RING] = bare_in(PORT);
}

void bare_serial_interrupt(void) {
    uint64_t flags = bare_lock(&reading);

    fetch();
    bare_unlock(&reading, flags);
}

size_t bare_serial_read(uint8_t *buf, size_t size) {
    uint64_t flags = bare_lock(&reading);
    size_t n = 0;

    fetch(); /* what did not fit, and an interrupt that was lost */
    while (n < size && tail != head)
        buf[n++] = ring[tail++ % RING];
    bare_unlock(&reading, flags);
    return n;
}
