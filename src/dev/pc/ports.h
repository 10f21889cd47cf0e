/*
 * The board's small ports: system control port A (0x92: A20, fast reset), reset control
 * (0xcf9), POST code (0x80), debug console (0xe9), isa-debug-exit (0xf4), and the state
 * of the A20 gate.
 */
#ifndef DEV_PORTS_H
#define DEV_PORTS_H

#include "bus/bus.h"
#include "dev/host.h"

#define PORTS_DEBUG_EXIT 0xf4
#define PORTS_RESET 0xcf9

struct ports;
struct snapshot;

/* NULL when out of memory or of places on the bus. */
struct ports *ports_new(struct bus *bus, const struct dev_host *host);
void ports_free(struct ports *p);
/* There is a PCI bus, which has 0xcf8 to 0xcff and passes on what is not its own, as
 * accesses to ports_reset_control with P, relative to 0xcf8. */
void ports_leave_pci(struct ports *p);
extern const struct bus_ops ports_reset_control;
/* A20 on, as firmware leaves it. */
void ports_reset(struct ports *p);

bool ports_a20(const struct ports *p);
/* The keyboard controller's way to the gate. */
void ports_a20_set(struct ports *p, bool on);
/* The last byte written to port 0x80. */
uint8_t ports_post_code(const struct ports *p);

/* Its record of a snapshot (snapshot/snapshot.h). */
void ports_state(struct ports *p, struct snapshot *s);

#endif
