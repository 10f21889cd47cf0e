/*
 * 16550A serial port. Output is collected and leaves through tx(); input is queued by
 * uart_receive() and reaches the guest's FIFO once the guest listens.
 */
#ifndef DEV_UART_H
#define DEV_UART_H

#include "base/counters.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/irq.h"

#define UART_COM1_PORT 0x3f8
#define UART_COM1_IRQ 4
#define UART_COM2_PORT 0x2f8
#define UART_COM2_IRQ 3

struct uart;
struct snapshot;

struct uart_host {
    /* The guest wrote N bytes, in order: how many of them were taken. Who does not take
     * all calls uart_flush() when he would take more. */
    size_t (*tx)(void *arg, const uint8_t *bytes, size_t n);
    /* uart_room() was 0 and is not any more; may be NULL. */
    void (*room)(void *arg);
    void *arg;
};

/* NULL when out of memory or of places on the bus. */
struct uart *uart_new(struct bus *bus, struct vclock *clock, uint16_t port,
                      struct irq_line irq, const struct uart_host *host,
                      struct counters *cnt);
void uart_free(struct uart *u); /* flushes first */

/* Power-up state; output is flushed first. Input that the guest has not read is kept. */
void uart_reset(struct uart *u);

/* How many bytes uart_receive() takes now. */
size_t uart_room(const struct uart *u);
/* Queues input; returns how many of the N bytes were taken (at most uart_room()). */
size_t uart_receive(struct uart *u, const uint8_t *bytes, size_t n);

/* Hands collected output to tx() now. It happens by itself within a few milliseconds of
 * clock time; call it before the machine stops or goes idle. True: all of it was taken.
 */
bool uart_flush(struct uart *u);

/* Its record of a snapshot (snapshot/snapshot.h): also what its queues hold. */
void uart_state(struct uart *u, struct snapshot *s);

#endif
