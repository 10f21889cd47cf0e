/* The machine's virtio devices: what they hang on, and which there are. */
#ifndef MACHINE_VIRTIO_H
#define MACHINE_VIRTIO_H

#include "base/types.h"

struct machine;
struct virtio_device;

/* With `--virtio mmio`: registers of device N from here on, one after the other. */
#define MACHINE_VIRTIO_MMIO_BASE 0xfec10000ull
#define MACHINE_VIRTIO_MMIO_MAX 16u
uint64_t machine_virtio_mmio_at(unsigned n);
/* The pin of the I/O APIC, or, of a machine whose guest was told to use no ACPI, the ISA
 * interrupt. */
unsigned machine_virtio_mmio_irq(const struct machine *m, unsigned n);

/* Shows D, which has been given to the machine already, to the guest: in the next slot of
 * the PCI bus, or by MMIO. 0, or -errno with one sentence in WHY. */
int machine_virtio_attach(struct machine *m, struct virtio_device *d, char *why,
                          size_t why_size);

/* Entries of the table in devices.c. */
int machine_make_virtio_disks(struct machine *m, char *why, size_t why_size);
int machine_make_virtio_rng(struct machine *m, char *why, size_t why_size);

#endif
