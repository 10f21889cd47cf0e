/*
 * The far end of the serial port: what the guest writes goes to the configuration's
 * console, and what was typed there, or what a counted run's input says, goes to the
 * guest as soon as the port has room.
 */
#include "machine/machine_int.h"

void machine_take_input(struct machine *m) {
    const struct machine_console *con = &m->cfg.console;
    uint8_t buf[256];
    size_t n;

    if (!con->rx)
        return;
    do {
        size_t room = uart_room(m->board.uart);

        n = con->rx(con->arg, buf, room < sizeof(buf) ? room : sizeof(buf));
        uart_receive(m->board.uart, buf, n);
    } while (n);
    machine_wake_on(m, con->rx_fd(con->arg));
}

void machine_take_counted_input(struct machine *m) {
    const struct machine_input *in = &m->cfg.input;
    uint64_t now = counted_now(&m->counted);
    uint8_t buf[256];
    size_t n;

    if (!in->next || now < m->counted.input_at)
        return;
    do {
        size_t room = uart_room(m->board.uart);

        n = in->take(in->arg, now, buf, room < sizeof(buf) ? room : sizeof(buf));
        uart_receive(m->board.uart, buf, n);
    } while (n);
    m->counted.input_at = in->next(in->arg, now);
}

void machine_watch_commands(struct machine *m) {
    const struct machine_input *in = &m->cfg.input;

    if (in->commands)
        machine_wake_on(m, in->commands(in->arg));
}

void machine_watch_console(struct machine *m) {
    if (m->cfg.counted)
        machine_watch_commands(m);
    else if (m->cfg.console.rx_fd)
        machine_wake_on(m, m->cfg.console.rx_fd(m->cfg.console.arg));
}

/* --- the port's side; the guest's vector state may be live --- */

static void serial_tx(void *arg, const uint8_t *bytes, size_t len) {
    struct machine *m = arg;

    machine_park(m);
    if (m->cfg.console.tx)
        m->cfg.console.tx(m->cfg.console.arg, bytes, len);
}

/* The boot CPU's service() takes what waits. */
static void serial_room(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    vcpu_raise(machine_boot_cpu(m)->vcpu, VCPU_EVENT_KICK);
}

struct uart_host machine_uart_host(struct machine *m) {
    return (struct uart_host){.tx = serial_tx, .room = serial_room, .arg = m};
}
