/*
 * The far end of the serial port: what the guest writes goes to the configuration's
 * console, and what was typed there, or what a counted run's input says, goes to the
 * guest as soon as the port has room.
 *
 * The console keeps what it is given in the middle of an instruction, as much as it has
 * room for, and writes it on the loop's thread; the rest waits in the port, whose
 * transmitter is then busy. No CPU waits for the reader, but at the end, where what is
 * left is written.
 *
 * A counted run must not see how fast its reader is. There the console takes all; it is
 * written at the next boundary, and there the guest waits for the reader, so that one
 * that waits can be called and paused like any other.
 */
#include "base/os.h"
#include "machine/machine_int.h"

/* What the console does may wait in the kernel, and whoever wants the thread back must
 * know that it is there: machine_cpu_interrupt(). */
static void go_outside(struct machine_cpu *c, bool outside) {
    __atomic_store_n(&c->outside, outside, __ATOMIC_SEQ_CST);
}

/* --- input --- */

/* How much the guest has room for. Only this thread takes of it. */
static size_t room(struct machine_cpu *c) {
    size_t n;

    board_enter(c->board, c);
    n = uart_room(c->board->uart[c->machine->console_serial]);
    board_leave(c->board);
    return n;
}

static void receive(struct machine_cpu *c, const uint8_t *buf, size_t n) {
    board_enter(c->board, c);
    uart_receive(c->board->uart[c->machine->console_serial], buf, n);
    board_leave(c->board);
}

void machine_take_input(struct machine_cpu *c) {
    const struct machine_console *con = &c->machine->cfg.console;
    uint8_t buf[256];
    size_t n, most;

    if (!con->rx || c->machine->console_serial == BOARD_SERIALS)
        return;
    do {
        most = room(c);
        go_outside(c, true);
        n = con->rx(con->arg, buf, most < sizeof(buf) ? most : sizeof(buf));
        go_outside(c, false);
        receive(c, buf, n);
    } while (n);
}

void machine_take_counted_input(struct machine_cpu *c) {
    struct machine *m = c->machine;
    const struct machine_input *in = &m->cfg.input;
    uint64_t now = counted_now(&m->counted);
    uint8_t buf[256];
    size_t n, most;

    if (!in->next || now < m->counted.input_at)
        return;
    do {
        most = room(c);
        n = in->take(in->arg, now, buf, most < sizeof(buf) ? most : sizeof(buf));
        receive(c, buf, n);
    } while (n);
    m->counted.input_at = in->next(in->arg, now);
}

/* --- output --- */

/* The descriptor that is waited for, or -1. */
static int write_some(struct machine_cpu *c) {
    const struct machine_console *con = &c->machine->cfg.console;
    int fd;

    if (!con->flush)
        return -1;
    go_outside(c, true);
    fd = con->flush(con->arg);
    go_outside(c, false);
    return fd;
}

bool machine_write_some(struct machine_cpu *c) {
    return write_some(c) < 0;
}

void machine_write_output(struct machine_cpu *c, bool last) {
    int fd;

    while ((fd = write_some(c)) >= 0) {
        if (!last && (vcpu_events(c->vcpu) & VCPU_EVENT_STOP))
            return;
        os_bell_wait(c->bell, fd, OS_WRITE, UINT64_MAX);
        machine_serve(c);
    }
}

/* --- the port's side; the guest's vector state may be live --- */

static size_t serial_tx(void *arg, const uint8_t *bytes, size_t len) {
    struct machine *m = arg;
    const struct machine_console *con = &m->cfg.console;

    machine_park(m);
    if (con->tx)
        len = con->tx(con->arg, bytes, len);
    if (m->cfg.counted && con->flush) /* service() writes it */
        board_tell(machine_boot_cpu(m), VCPU_EVENT_KICK);
    return len;
}

/* True: the port has nothing that the console has not taken. */
static bool flush_port(struct machine *m) {
    return m->console_serial == BOARD_SERIALS ||
           uart_flush(m->board.uart[m->console_serial]);
}

void machine_console_ready(struct machine *m) {
    board_enter(&m->board, NULL);
    flush_port(m);
    board_leave(&m->board);
}

void machine_write_rest(struct machine_cpu *c) {
    bool all;

    do {
        board_enter(c->board, c);
        all = flush_port(c->machine);
        board_leave(c->board);
        machine_write_output(c, true);
    } while (!all);
}

/* The boot CPU's service() takes what waits. */
static void serial_room(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    board_tell(machine_boot_cpu(m), VCPU_EVENT_KICK);
}

struct uart_host machine_uart_host(struct machine *m) {
    return (struct uart_host){.tx = serial_tx, .room = serial_room, .arg = m};
}
