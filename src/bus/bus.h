/*
 * Port and MMIO bus: which device answers which address. Devices attach; nobody here
 * knows what they are. Unclaimed reads give all ones; unclaimed writes vanish.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include "base/types.h"

struct bus;

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

/* Attach a device; 0, -EEXIST when the range overlaps another, -ENOMEM. NAME is kept. */
int bus_attach_pio(struct bus *b, uint16_t first, unsigned count,
                   const struct bus_ops *ops, void *dev, const char *name);
int bus_attach_mmio(struct bus *b, struct gpa first, uint64_t size,
                    const struct bus_ops *ops, void *dev, const char *name);
/* Moves or removes an MMIO range that DEV attached. */
void bus_detach_mmio(struct bus *b, void *dev);

/* A port access that spans devices is split into bytes, as on ISA. */
uint32_t bus_pio_read(struct bus *b, uint16_t port, unsigned size);
void bus_pio_write(struct bus *b, uint16_t port, unsigned size, uint32_t value);
uint64_t bus_mmio_read(struct bus *b, struct gpa at, unsigned size);
void bus_mmio_write(struct bus *b, struct gpa at, unsigned size, uint64_t value);

#endif
