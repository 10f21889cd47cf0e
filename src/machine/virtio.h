/* The machine's virtio devices: what they hang on, and which there are. */
#ifndef MACHINE_VIRTIO_H
#define MACHINE_VIRTIO_H

#include "base/types.h"
#include "boot/boot.h"
#include "dev/tables/dsdt.h"

struct machine;
struct virtio_device;

/* With `--virtio mmio`: registers of all devices from here on, one after the other. */
#define MACHINE_VIRTIO_MMIO_BASE 0xfec10000u
#define MACHINE_VIRTIO_MMIO_MAX 16u

/* What the guest has to be told of them: in ACPI's tables, or, where its command line
 * wants no ACPI, in that. 0 or -ENOMEM; the new command line is the machine's. */
void machine_virtio_in_acpi(const struct machine *m, struct dsdt_config *dsdt);
int machine_virtio_in_cmdline(struct machine *m, struct boot_config *boot);

/* Shows D, which has been given to the machine already, to the guest: in the next slot of
 * the PCI bus, or by MMIO. 0, or -errno with one sentence in WHY. */
int machine_virtio_attach(struct machine *m, struct virtio_device *d, char *why,
                          size_t why_size);

/* Entries of the table in makers.c. */
int machine_make_virtio_disks(struct machine *m, char *why, size_t why_size);
int machine_make_virtio_console(struct machine *m, char *why,
                                size_t why_size); /* consoles.c */
int machine_make_virtio_vsock(struct machine *m, char *why,
                              size_t why_size); /* sockets.c */
int machine_make_virtio_shares(struct machine *m, char *why,
                               size_t why_size); /* shares.c */
int machine_make_virtio_balloon(struct machine *m, char *why, size_t why_size);
int machine_make_virtio_input(struct machine *m, char *why, size_t why_size);
int machine_make_virtio_rng(struct machine *m, char *why, size_t why_size);

#endif
