/*
 * 16550A serial port. National Semiconductor PC16550D data sheet, "Registers" and
 * "FIFO Interrupt Mode Operation".
 *
 * Output: a byte written to THR has left the shift register at once, so a driver does not
 * wait. It is collected in `out` and handed on when that is full, at a timer, or by
 * uart_flush(): many guest bytes are one piece for the host. What the host does not take
 * stays there, and when less than a FIFO is free the transmitter is as busy as a real
 * one: THRE and TEMT are clear until the host has taken some. What is written to a full
 * one all the same is lost, as on a real one.
 *
 * Input: two stages. `in` is the host's queue, large, so that nothing is lost; `fifo` is
 * what the guest sees: 16 bytes, or 1 while FIFOs are off. Bytes move from the queue to
 * the FIFO when the guest *listens*: its receive interrupt is on, or it polls LSR. Before
 * that (a kernel that still probes) they wait: drivers clear the FIFO when they start,
 * and input typed ahead or piped in would vanish. For the same reason what is dropped
 * from the FIFO without having been read (it is cleared, switched on or off, the machine
 * is reset) goes back to the head of the queue and comes again: only a read of RBR takes
 * a byte of the host's. The line is a fast one, not an infinite one: a FIFO is refilled
 * at most once a REFILL_NS, so that a burst cannot keep a driver in its interrupt handler
 * or overflow its buffers.
 *
 * The interrupt asks nothing of MCR. A PC gates it by OUT2, which makes it the driver's
 * duty to set that; small systems forget it, and other machine monitors don't insist. In
 * loopback too the interrupts are operational, as the data sheet has it.
 *
 * Not here: framing and parity errors (the line has none), baud rates (kept, unused),
 * modem signals (CTS, DSR and DCD are always on).
 */
#include "dev/pc/uart.h"

#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"
#include "snapshot/snapshot.h"

#define OUT_SIZE 1024u
#define IN_SIZE 4096u
#define FIFO_SIZE 16u
#define FLUSH_NS 2000000u
#define REFILL_NS 1000000u
/* So many reads of LSR with nothing in between but the modem's registers: somebody waits
 * for input. Drivers that wait for THRE stop at the first. */
#define POLL_READS 8u

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };

#define IER_RDI 0x01u
#define IER_THRI 0x02u
#define IER_RLSI 0x04u
#define IER_MSI 0x08u

#define IIR_NONE 0x01u
#define IIR_RLS 0x06u
#define IIR_RDI 0x04u
#define IIR_TIMEOUT 0x0cu
#define IIR_THRI 0x02u
#define IIR_MSI 0x00u
#define IIR_FIFOS 0xc0u

#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u

#define LCR_BREAK 0x40u
#define LCR_DLAB 0x80u

#define MCR_LOOP 0x10u
#define MCR_MASK 0x1fu

#define LSR_DR 0x01u
#define LSR_OE 0x02u
#define LSR_BI 0x10u
#define LSR_THRE 0x20u
#define LSR_TEMT 0x40u
#define LSR_FIFO_ERR 0x80u

#define MSR_LINES 0xb0u /* CTS, DSR, DCD */
#define MSR_TERI 0x04u

struct uart {
    struct vclock *clock;
    struct irq_line irq;
    struct uart_host host;
    struct counters *cnt;

    uint8_t ier, lcr, mcr, msr, scr, fcr;
    uint8_t lsr_errors; /* OE, BI: until LSR is read */
    uint16_t divisor;
    bool thre_pending; /* the THRE interrupt, until IIR is read or THR written */
    bool timeout;      /* fewer bytes than the trigger level, and the line is silent */
    bool irq_level;
    unsigned lsr_reads; /* in a row */

    uint8_t fifo[FIFO_SIZE];
    uint16_t
        fifo_line; /* bit for a slot: its byte came from the queue, not by loopback */
    unsigned fifo_head, fifo_len;

    uint8_t in[IN_SIZE];
    unsigned in_head, in_len;
    uint64_t next_refill;
    struct vtimer refill;

    uint8_t out[OUT_SIZE];
    unsigned out_len;
    bool waits; /* the host did not take all of it */
    struct vtimer flush;
};

static unsigned fifo_cap(const struct uart *u) {
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct uart *u) {
    static const uint8_t levels[] = {1, 4, 8, 14};

    return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

/* The highest-priority interrupt that is enabled and pending. PC16550D, table "Interrupt
 * Control Functions". */
static uint8_t iir(const struct uart *u) {
    if ((u->ier & IER_RLSI) && u->lsr_errors)
        return IIR_RLS;
    if ((u->ier & IER_RDI) && u->fifo_len >= trigger_level(u))
        return IIR_RDI;
    if ((u->ier & IER_RDI) && u->fifo_len && u->timeout)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRI) && u->thre_pending)
        return IIR_THRI;
    if ((u->ier & IER_MSI) && (u->msr & 0x0f))
        return IIR_MSI;
    return IIR_NONE;
}

static void update_irq(struct uart *u) {
    bool level = iir(u) != IIR_NONE;

    if (level == u->irq_level)
        return;
    u->irq_level = level;
    u->cnt->irq_uart += level;
    irq_set(&u->irq, level);
}

/* --- input --- */

static void fifo_push(struct uart *u, uint8_t byte, bool from_line) {
    unsigned slot = (u->fifo_head + u->fifo_len++) % FIFO_SIZE;

    u->fifo[slot] = byte;
    u->fifo_line =
        (uint16_t)((u->fifo_line & ~(1u << slot)) | (unsigned)from_line << slot);
}

/* Empties the FIFO. The queue always has room for what goes back: uart_room(). */
static void fifo_drop(struct uart *u) {
    while (u->fifo_len) {
        unsigned slot = (u->fifo_head + --u->fifo_len) % FIFO_SIZE;

        if (!(u->fifo_line >> slot & 1))
            continue;
        u->in_head = (u->in_head + IN_SIZE - 1) % IN_SIZE;
        u->in[u->in_head] = u->fifo[slot];
        u->in_len++;
    }
}

/* A byte that the guest sends to itself. The queue waits for room, this does not: an
 * overrun. PC16550D, "Line Status Register": a FIFO keeps what it has, the single
 * register of the 16450 mode is overwritten. */
static void loop_push(struct uart *u, uint8_t byte) {
    if (u->fifo_len == fifo_cap(u)) {
        u->lsr_errors |= LSR_OE;
        if (u->fcr & FCR_ENABLE)
            return;
        fifo_drop(u);
    }
    fifo_push(u, byte, false);
}

static bool listening(const struct uart *u) {
    if (u->mcr & MCR_LOOP)
        return false;
    return (u->ier & IER_RDI) || u->lsr_reads >= POLL_READS;
}

/* Moves queued bytes to the FIFO, or arranges for it. */
static void refill(struct uart *u) {
    bool was_full = !uart_room(u);
    uint64_t now;

    if (!u->in_len || u->fifo_len == fifo_cap(u) || !listening(u))
        return;
    now = vclock_now(u->clock);
    if (now < u->next_refill) {
        if (!u->refill.armed)
            vtimer_arm(u->clock, &u->refill, u->next_refill);
        return;
    }
    while (u->in_len && u->fifo_len < fifo_cap(u)) {
        fifo_push(u, u->in[u->in_head], true);
        u->in_head = (u->in_head + 1) % IN_SIZE;
        u->in_len--;
    }
    u->next_refill = now + REFILL_NS;
    u->timeout = true;
    update_irq(u);
    if (was_full && uart_room(u) && u->host.room)
        u->host.room(u->host.arg);
}

static void refill_due(void *arg) {
    refill(arg);
}

/* What the FIFO may give back is kept free. */
size_t uart_room(const struct uart *u) {
    return u->in_len < IN_SIZE - FIFO_SIZE ? IN_SIZE - FIFO_SIZE - u->in_len : 0;
}

size_t uart_receive(struct uart *u, const uint8_t *bytes, size_t n) {
    size_t i;

    if (n > uart_room(u))
        n = uart_room(u);
    for (i = 0; i < n; i++)
        u->in[(u->in_head + u->in_len++) % IN_SIZE] = bytes[i];
    refill(u);
    return n;
}

static uint8_t read_rbr(struct uart *u) {
    uint8_t byte;

    if (!u->fifo_len)
        return 0;
    byte = u->fifo[u->fifo_head];
    u->fifo_head = (u->fifo_head + 1) % FIFO_SIZE;
    u->fifo_len--;
    u->cnt->uart_rx_bytes++;
    if (!u->fifo_len)
        u->timeout = false;
    refill(u);
    update_irq(u);
    return byte;
}

static void clear_rx(struct uart *u) {
    fifo_drop(u);
    u->timeout = false;
    u->lsr_errors = 0;
}

/* --- output --- */

/* A driver that finds THR empty writes as much as the FIFO has. */
static bool is_ready(const struct uart *u) {
    return OUT_SIZE - u->out_len >= FIFO_SIZE;
}

static unsigned hand_on(struct uart *u) {
    size_t n = u->out_len;

    if (u->host.tx)
        n = u->host.tx(u->host.arg, u->out, n);
    return n < u->out_len ? (unsigned)n : u->out_len;
}

bool uart_flush(struct uart *u) {
    bool was_ready = is_ready(u);
    unsigned n;

    vtimer_cancel(u->clock, &u->flush);
    if (!u->out_len)
        return true;
    n = hand_on(u);
    u->cnt->uart_tx_flushes += n != 0;
    u->out_len -= n;
    mem_copy(u->out, u->out + n, u->out_len); /* downward, from the first byte on */
    u->waits = u->out_len != 0;
    if (!was_ready && is_ready(u)) {
        u->thre_pending = true;
        update_irq(u);
    }
    return !u->waits;
}

static void flush_due(void *arg) {
    uart_flush(arg);
}

static void collect(struct uart *u, uint8_t byte) {
    if (u->out_len == OUT_SIZE) {
        u->cnt->uart_tx_lost++;
        return;
    }
    u->cnt->uart_tx_bytes++;
    u->out[u->out_len++] = byte;
    if (u->waits)
        return; /* who takes it will say so */
    if (u->out_len == OUT_SIZE)
        uart_flush(u);
    else if (!u->flush.armed)
        vtimer_arm(u->clock, &u->flush, vclock_now(u->clock) + FLUSH_NS);
}

static void write_thr(struct uart *u, uint8_t byte) {
    if (u->mcr & MCR_LOOP) {
        loop_push(u, byte);
        u->timeout = true;
    } else {
        collect(u, byte);
    }
    u->thre_pending = is_ready(u); /* gone already: empty again */
    update_irq(u);
}

/* --- registers --- */

/* The modem lines as MSR shows them: ours, or in loopback the guest's own outputs. */
static uint8_t modem_lines(const struct uart *u) {
    if (!(u->mcr & MCR_LOOP))
        return MSR_LINES;
    return (uint8_t)((u->mcr & 0x0c) << 4 | (u->mcr & 0x02) << 3 | (u->mcr & 0x01) << 5);
}

static void write_mcr(struct uart *u, uint8_t value) {
    uint8_t before = u->msr & 0xf0, now, delta;

    u->mcr = value & MCR_MASK;
    now = modem_lines(u);
    delta = (uint8_t)((before ^ now) >> 4);
    /* The ring indicator's bit tells of its end only. */
    if (!(before & 0x40) || (now & 0x40))
        delta &= (uint8_t)~MSR_TERI;
    u->msr = (uint8_t)(now | (u->msr & 0x0f) | delta);
    refill(u);
    update_irq(u);
}

static void write_ier(struct uart *u, uint8_t value) {
    uint8_t rising = (uint8_t)(value & ~u->ier);

    u->ier = value & 0x0f;
    if (rising & IER_THRI)
        u->thre_pending = is_ready(u);
    if (rising & IER_RDI) {
        /* Probing code sets this bit for a moment; who means it keeps it. */
        u->next_refill = vclock_now(u->clock) + REFILL_NS;
        refill(u);
    }
    update_irq(u);
}

static void write_fcr(struct uart *u, uint8_t value) {
    if ((value ^ u->fcr) & FCR_ENABLE) {
        clear_rx(u);
        u->thre_pending = is_ready(u);
    }
    u->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    if ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX))
        clear_rx(u);
    refill(u);
    update_irq(u);
}

static uint8_t read_iir(struct uart *u) {
    uint8_t v = iir(u);

    if (v == IIR_THRI) {
        u->thre_pending = false;
        update_irq(u);
    }
    return v | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct uart *u) {
    uint8_t v;

    if (++u->lsr_reads >= POLL_READS) {
        u->lsr_reads = POLL_READS;
        refill(u);
    }
    v = u->lsr_errors | (is_ready(u) ? LSR_THRE | LSR_TEMT : 0);
    if (u->fifo_len)
        v |= LSR_DR;
    if ((u->lsr_errors & LSR_BI) && (u->fcr & FCR_ENABLE))
        v |= LSR_FIFO_ERR;
    u->lsr_errors = 0;
    update_irq(u);
    return v;
}

static uint8_t read_msr(struct uart *u) {
    uint8_t v = u->msr;

    u->msr &= 0xf0;
    update_irq(u);
    return v;
}

static uint64_t io_read(void *dev, uint64_t reg, unsigned size) {
    struct uart *u = dev;

    /* Who polls may look at the modem's lines as well (EDK2 does). */
    if (reg != LSR && reg != RBR && reg != MSR && reg != MCR && u->lsr_reads < POLL_READS)
        u->lsr_reads = 0;
    switch (reg) {
    case RBR:
        return u->lcr & LCR_DLAB ? u->divisor & 0xff : read_rbr(u);
    case IER:
        return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
    case IIR:
        return read_iir(u);
    case LCR:
        return u->lcr;
    case MCR:
        return u->mcr;
    case LSR:
        return read_lsr(u);
    case MSR:
        return read_msr(u);
    default:
        return u->scr;
    }
}

static void write_lcr(struct uart *u, uint8_t value) {
    if ((value & ~u->lcr & LCR_BREAK) && (u->mcr & MCR_LOOP)) {
        loop_push(u, 0);
        u->lsr_errors |= LSR_BI;
    }
    u->lcr = value;
    update_irq(u);
}

static void io_write(void *dev, uint64_t reg, unsigned size, uint64_t data) {
    struct uart *u = dev;
    uint8_t value = (uint8_t)data;

    /* Any write but of a character means that a driver is setting up. */
    if (reg != RBR || u->lsr_reads < POLL_READS)
        u->lsr_reads = 0;
    switch (reg) {
    case RBR:
        if (u->lcr & LCR_DLAB)
            u->divisor = (uint16_t)((u->divisor & 0xff00) | value);
        else
            write_thr(u, value);
        break;
    case IER:
        if (u->lcr & LCR_DLAB)
            u->divisor = (uint16_t)((u->divisor & 0xff) | value << 8);
        else
            write_ier(u, value);
        break;
    case IIR:
        write_fcr(u, value);
        break;
    case LCR:
        write_lcr(u, value);
        break;
    case MCR:
        write_mcr(u, value);
        break;
    case LSR: /* factory test only */
    case MSR:
        break;
    default:
        u->scr = value;
        break;
    }
}

static const struct bus_ops ops = {
    .read = io_read, .write = io_write, .width = 1, .general = true};

void uart_reset(struct uart *u) {
    uart_flush(u);
    vtimer_cancel(u->clock, &u->refill);
    u->ier = u->lcr = u->mcr = u->scr = u->fcr = 0;
    u->msr = MSR_LINES;
    u->divisor = 12; /* 9600 baud */
    u->thre_pending = false;
    u->lsr_reads = 0;
    u->next_refill = 0;
    clear_rx(u);
    update_irq(u);
}

static void line_state(struct uart *u, struct snapshot *s) {
    snapshot_bytes(s, u->fifo, sizeof(u->fifo));
    SNAPSHOT(s, u->fifo_line);
    SNAPSHOT_UPTO(s, u->fifo_head, FIFO_SIZE - 1);
    SNAPSHOT_UPTO(s, u->fifo_len, FIFO_SIZE);
    snapshot_bytes(s, u->in, sizeof(u->in));
    SNAPSHOT_UPTO(s, u->in_head, IN_SIZE - 1);
    SNAPSHOT_UPTO(s, u->in_len, IN_SIZE - FIFO_SIZE);
    SNAPSHOT(s, u->next_refill);
    SNAPSHOT_UPTO(s, u->out_len, OUT_SIZE);
    snapshot_bytes(s, u->out, u->out_len);
}

void uart_state(struct uart *u, struct snapshot *s) {
    SNAPSHOT(s, u->ier);
    SNAPSHOT(s, u->lcr);
    SNAPSHOT(s, u->mcr);
    SNAPSHOT(s, u->msr);
    SNAPSHOT(s, u->scr);
    SNAPSHOT(s, u->fcr);
    SNAPSHOT(s, u->lsr_errors);
    SNAPSHOT(s, u->divisor);
    SNAPSHOT(s, u->thre_pending);
    SNAPSHOT(s, u->timeout);
    SNAPSHOT(s, u->irq_level);
    SNAPSHOT_UPTO(s, u->lsr_reads, POLL_READS);
    line_state(u, s);
    vtimer_state(u->clock, &u->refill, s);
    vtimer_state(u->clock, &u->flush, s);
    if (!snapshot_reading(s))
        return;
    /* Nobody has refused the output here. */
    u->waits = false;
    if (u->out_len && !u->flush.armed)
        vtimer_arm(u->clock, &u->flush, vclock_now(u->clock) + FLUSH_NS);
}

struct uart *uart_new(struct bus *bus, struct vclock *clock, uint16_t port,
                      struct irq_line irq, const struct uart_host *host,
                      struct counters *cnt) {
    struct uart *u = calloc(1, sizeof(*u));

    if (!u)
        return NULL;
    u->clock = clock;
    u->irq = irq;
    u->host = *host;
    u->cnt = cnt;
    u->refill = (struct vtimer){.fire = refill_due, .arg = u};
    u->flush = (struct vtimer){.fire = flush_due, .arg = u};
    if (!bus_attach_pio(bus, port, 8, &ops, u, "uart")) {
        free(u);
        return NULL;
    }
    uart_reset(u);
    return u;
}

void uart_free(struct uart *u) {
    if (!u)
        return;
    uart_flush(u);
    vtimer_cancel(u->clock, &u->refill);
    free(u);
}
