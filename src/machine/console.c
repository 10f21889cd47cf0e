/*
 * The far end of the serial port: what the guest writes goes to the configuration's
 * console, and what was typed there, or what a counted run's input says, goes to the
 * guest as soon as the port has room.
 *
 * The console keeps what it is given in the middle of an instruction. It is written at
 * the next boundary, and there the guest waits for the reader, so that one that waits can
 * be called and paused like any other.
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

    c->wrote = false;
    while ((fd = write_some(c)) >= 0) {
        if (!last && (vcpu_events(c->vcpu) & VCPU_EVENT_STOP))
            return;
        os_bell_wait(c->bell, fd, OS_WRITE, UINT64_MAX);
        machine_serve(c);
    }
}

/* --- the port's side; the guest's vector state may be live --- */

/* Who writes has it written, and waits for the reader; what a timer lets go, the boot
 * CPU.
 */
static struct machine_cpu *writer(struct machine *m) {
    struct machine_cpu *c = m->board.caller;

    if (!c)
        return machine_boot_cpu(m);
    c->wrote = true;
    return c;
}

static void serial_tx(void *arg, const uint8_t *bytes, size_t len) {
    struct machine *m = arg;

    machine_park(m);
    if (m->cfg.console.tx)
        m->cfg.console.tx(m->cfg.console.arg, bytes, len);
    if (m->cfg.console.flush) /* service() writes it */
        board_tell(writer(m), VCPU_EVENT_KICK);
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
