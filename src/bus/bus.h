/*
 * Port and MMIO bus: which device answers which address. Devices attach; nobody here
 * knows what they are. Unclaimed reads give all ones; unclaimed writes vanish.
 *
 * What a device attaches is a range: a handle that can be moved, switched off and on, and
 * detached at any time, also from inside an access, the range's own included. The next
 * access, and the next piece of one that is split, sees the bus as it is then.
 *
 * Ranges may overlap. Of those that are on and hold an address the one that was attached
 * first answers, and the others are hidden there, but nowhere else; where it goes away,
 * they appear. So what a guest lays over the board's own devices (a PCI BAR, that is)
 * hides none of them, and who answers depends on where ranges are, not on the order in
 * which they came there. A range may be moved beyond the end of its space, in part or
 * whole: what lies outside is out of reach.
 *
 * RAM and ROM come before the bus: mem/ has them, and asks nobody.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include "base/types.h"

struct bus;
struct bus_range;

struct bus_ops {
    /* ADDR is relative to the start of the attached range. SIZE is 1, 2, 4 (8: MMIO). */
    uint64_t (*read)(void *dev, uint64_t addr, unsigned size);
    void (*write)(void *dev, uint64_t addr, unsigned size, uint64_t value);
    /* The widest access that the device takes: a wider one arrives as several, lowest
     * address first, as on a narrow bus. 0: any. */
    unsigned width;
    /* These functions use general registers only, and so does all that they call: the bus
     * calls no leave() before them. */
    bool general;
};

struct bus *bus_new(void); /* NULL when out of memory */
void bus_free(struct bus *b);
/* LEAVE(ARG) is called before a device that is not `general`: the guest's vector state
 * may be in the host's registers (cpu/vec.h). */
void bus_on_leave(struct bus *b, void (*leave)(void *arg), void *arg);

/* Attaches a device, switched on. The range is the bus's, until it is detached or the bus
 * is freed; NULL when there are too many, or FIRST and the size are not in the space. OPS
 * and NAME are kept. */
struct bus_range *bus_attach_pio(struct bus *b, uint16_t first, unsigned count,
                                 const struct bus_ops *ops, void *dev, const char *name);
struct bus_range *bus_attach_mmio(struct bus *b, struct gpa first, uint64_t size,
                                  const struct bus_ops *ops, void *dev, const char *name);
/* It begins at FIRST, a port or a guest-physical address, from now on. */
void bus_range_move(struct bus_range *r, uint64_t first);
/* Off, it answers nothing; its place is kept. */
void bus_range_enable(struct bus_range *r, bool on);
/* Takes it off the bus for good: R is nobody's afterwards. NULL: nothing to do. */
void bus_range_detach(struct bus_range *r);

/* An access that spans devices is split into bytes, as on ISA. */
uint32_t bus_pio_read(struct bus *b, uint16_t port, unsigned size);
void bus_pio_write(struct bus *b, uint16_t port, unsigned size, uint32_t value);
uint64_t bus_mmio_read(struct bus *b, struct gpa at, unsigned size);
void bus_mmio_write(struct bus *b, struct gpa at, unsigned size, uint64_t value);

#endif
