/*
 * The far ends of the serial ports that are streams (stream/): what the guest writes and
 * the other side does not take at once is kept, up to MACHINE_SERIAL_OUT bytes, and what
 * is more than that waits in the port (dev/pc/uart.c). Under the board's lock.
 */
#include <string.h>

#include "machine/machine_int.h"
#include "stream/stream.h"

_Static_assert(MACHINE_SERIALS == BOARD_SERIALS, "a port for each");

static struct stream *stream_of(const struct serial_port *p) {
    return p->m->cfg.serials[p->n].stream;
}

/* --- from the guest, whose vector state may be live --- */

static size_t tx(void *arg, const uint8_t *bytes, size_t len) {
    struct serial_port *p = arg;
    size_t n = 0, room;

    machine_park(p->m);
    if (!p->len)
        n = stream_write(stream_of(p), bytes, len);
    room = sizeof(p->out) - p->len;
    len = len - n < room ? len - n : room;
    memcpy(p->out + p->len, bytes + n, len);
    p->len += len;
    return n + len;
}

static void room(void *arg) {
    struct serial_port *p = arg;

    machine_park(p->m);
    stream_more(stream_of(p));
}

/* --- from outside --- */

static size_t on_input(void *arg, const uint8_t *bytes, size_t len) {
    struct serial_port *p = arg;

    return uart_receive(p->m->board.uart[p->n], bytes, len);
}

static void on_writable(void *arg) {
    struct serial_port *p = arg;
    size_t n = stream_write(stream_of(p), p->out, p->len);

    p->len -= n;
    memmove(p->out, p->out + n, p->len);
    if (n)
        uart_flush(p->m->board.uart[p->n]);
}

unsigned machine_serials_host(struct machine *m, struct uart_host host[BOARD_SERIALS]) {
    unsigned count = m->cfg.serial_count ? m->cfg.serial_count : 1;

    m->console_serial = BOARD_SERIALS;
    for (unsigned n = 0; n < count; n++) {
        struct serial_port *p = &m->serial[n];
        const struct stream_user user = {
            .input = on_input, .writable = on_writable, .arg = p};

        *p = (struct serial_port){.m = m, .n = n};
        host[n] = (struct uart_host){.tx = tx, .room = room, .arg = p};
        if (stream_of(p)) {
            stream_plug(stream_of(p), &user);
        } else {
            host[n] = machine_uart_host(m);
            m->console_serial = n;
        }
    }
    return count;
}
