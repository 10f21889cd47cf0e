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

/* --- a limit: what is too much is dropped --- */

static size_t limited_tx(void *arg, const uint8_t *bytes, size_t len) {
    struct serial_port *p = arg;
    uint64_t now = vclock_now(p->m->clock);
    size_t most = len, n;

    machine_park(p->m);
    if (rate_is_limited(&p->rate)) {
        struct rate trial = p->rate;

        for (most = 0; most < len && rate_when(&trial, now) <= now; most++)
            rate_take(&trial, 1, now);
    }
    n = most ? p->plain.tx(p->plain.arg, bytes, most) : 0;
    rate_take(&p->rate, n, now);
    if (n < most)
        return n;
    p->m->counters.uart_tx_limited += len - most;
    return len;
}

static void limited_room(void *arg) {
    struct serial_port *p = arg;

    p->plain.room(p->plain.arg);
}

bool machine_serial_limit(struct machine *m, unsigned n, const struct rate_limit *l) {
    if (n >= (m->cfg.serial_count ? m->cfg.serial_count : 1) || m->cfg.counted)
        return false;
    board_enter(&m->board, NULL);
    rate_set(&m->serial[n].rate, l, vclock_now(m->clock));
    board_leave(&m->board);
    return true;
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
        p->plain = (struct uart_host){.tx = tx, .room = room, .arg = p};
        if (stream_of(p)) {
            stream_plug(stream_of(p), &user);
        } else {
            p->plain = machine_uart_host(m);
            m->console_serial = n;
        }
        host[n] = (struct uart_host){.tx = limited_tx, .room = limited_room, .arg = p};
    }
    return count;
}
