/*
 * How a guest reaches a virtio device: "Virtio Over PCI Bus" and "Virtio Over MMIO" of
 * the standard, over virtio.h. A transport is made for a device that is there, and goes
 * before it. Locking: the board's.
 */
#ifndef DEV_VIRTIO_TRANSPORT_H
#define DEV_VIRTIO_TRANSPORT_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/pci/pci.h"
#include "dev/virtio/virtio.h"

/*
 * Over PCI: function 0 of SLOT, with its interrupt at pin INTA. Transitional where the
 * standard has an id for that, so that old drivers find the legacy interface in bar 0;
 * else modern only. 0, or -errno of pci_add() and the like.
 */
struct virtio_pci;
struct snapshot;
int virtio_pci_new(struct pci *pci, unsigned slot, struct virtio_device *d,
                   struct virtio_pci **out);
void virtio_pci_free(struct virtio_pci *p); /* P may be NULL */
/* Power-up state of the device; of the function: pci_reset(). */
void virtio_pci_reset(struct virtio_pci *p);

/* Over MMIO, register layout version 2: VIRTIO_MMIO_SIZE bytes at AT, and an interrupt
 * line (edges, as Linux takes it from its command line). NULL: out of memory, or of
 * places on the bus. */
#define VIRTIO_MMIO_SIZE 0x200u
struct virtio_mmio;
struct virtio_mmio *virtio_mmio_new(struct bus *bus, struct gpa at, struct irq_line irq,
                                    struct virtio_device *d);
void virtio_mmio_free(struct virtio_mmio *m); /* M may be NULL */
void virtio_mmio_reset(struct virtio_mmio *m);

/* Their records of a snapshot (snapshot/snapshot.h), which are read before the devices'.
 */
void virtio_pci_state(struct virtio_pci *p, struct snapshot *s);
void virtio_mmio_state(struct virtio_mmio *m, struct snapshot *s);

#endif
