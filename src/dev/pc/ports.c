/*
 * Small ports. Each is a byte of state at most.
 *
 * The A20 gate follows whoever moved it last, port 0x92 or the keyboard controller, and
 * both read back its true state. Firmware leaves it open.
 *
 * Without PCI its configuration ports 0xcf8 to 0xcff answer all ones. Port 0xcf9 lies
 * between them and counts for byte accesses only: a 32-bit access to 0xcf8 belongs to PCI
 * as a whole and must not reset the machine.
 */
#include "dev/pc/ports.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define CTLA_RESET 0x01u
#define CTLA_A20 0x02u

#define PCI_PORT 0xcf8
#define RST_OFFSET (PORTS_RESET - PCI_PORT)
#define RST_SYSTEM 0x02u
#define RST_CPU 0x04u

struct ports {
    struct dev_host host;
    bool a20;
    uint8_t ctla; /* port 0x92, without the gate */
    uint8_t rst;  /* port 0xcf9 */
    uint8_t post; /* port 0x80 */
    struct bus_range *rst_range;
};

bool ports_a20(const struct ports *p) {
    return p->a20;
}

void ports_a20_set(struct ports *p, bool on) {
    if (on == p->a20)
        return;
    p->a20 = on;
    if (p->host.a20)
        p->host.a20(p->host.arg, on);
}

uint8_t ports_post_code(const struct ports *p) {
    return p->post;
}

static void reset_machine(struct ports *p) {
    if (p->host.reset)
        p->host.reset(p->host.arg);
}

static uint64_t ctla_read(void *dev, uint64_t reg, unsigned size) {
    struct ports *p = dev;

    return p->ctla | (p->a20 ? CTLA_A20 : 0);
}

static void ctla_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct ports *p = dev;
    bool reset = value & ~p->ctla & CTLA_RESET; /* a rising edge */

    p->ctla = (uint8_t)value & CTLA_RESET;
    ports_a20_set(p, value & CTLA_A20);
    if (reset)
        reset_machine(p);
}

static uint64_t rst_read(void *dev, uint64_t reg, unsigned size) {
    struct ports *p = dev;

    return reg == RST_OFFSET && size == 1 ? p->rst : ~0ull;
}

/* PIIX "Reset Control Register": the reset happens when bit 2 goes from 0 to 1. */
static void rst_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct ports *p = dev;
    bool reset = value & ~p->rst & RST_CPU;

    if (reg != RST_OFFSET || size != 1)
        return;
    p->rst = (uint8_t)value & (RST_SYSTEM | RST_CPU);
    if (reset)
        reset_machine(p);
}

static uint64_t post_read(void *dev, uint64_t reg, unsigned size) {
    struct ports *p = dev;

    return p->post;
}

static void post_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct ports *p = dev;

    p->post = (uint8_t)value;
}

static uint64_t exit_read(void *dev, uint64_t reg, unsigned size) {
    return 0;
}

static void exit_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct ports *p = dev;

    if (reg == 0 && p->host.debug_exit)
        p->host.debug_exit(p->host.arg, (uint32_t)value);
}

static const struct bus_ops ctla_ops = {
    .read = ctla_read, .write = ctla_write, .width = 1};
const struct bus_ops ports_reset_control = {.read = rst_read, .write = rst_write};
static const struct bus_ops post_ops = {
    .read = post_read, .write = post_write, .width = 1, .general = true};
static const struct bus_ops exit_ops = {
    .read = exit_read, .write = exit_write, .width = 0};

void ports_leave_pci(struct ports *p) {
    bus_range_detach(p->rst_range);
    p->rst_range = NULL;
}

void ports_reset(struct ports *p) {
    p->ctla = 0;
    p->rst = 0;
    p->post = 0;
    ports_a20_set(p, true);
}

/* The gate's position is where the memory's translations begin: it is moved, not set. */
void ports_state(struct ports *p, struct snapshot *s) {
    bool a20 = p->a20;

    SNAPSHOT(s, a20);
    SNAPSHOT(s, p->ctla);
    SNAPSHOT(s, p->rst);
    SNAPSHOT(s, p->post);
    ports_a20_set(p, a20);
}

struct ports *ports_new(struct bus *bus, const struct dev_host *host) {
    struct ports *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->host = *host;
    p->a20 = true;
    if (!bus_attach_pio(bus, 0x92, 1, &ctla_ops, p, "control port A") ||
        !(p->rst_range = bus_attach_pio(bus, PCI_PORT, 8, &ports_reset_control, p,
                                        "reset control")) ||
        !bus_attach_pio(bus, 0x80, 1, &post_ops, p, "POST code") ||
        !bus_attach_pio(bus, PORTS_DEBUG_EXIT, 4, &exit_ops, p, "isa-debug-exit")) {
        free(p);
        return NULL;
    }
    ports_reset(p);
    return p;
}

void ports_free(struct ports *p) {
    free(p);
}
