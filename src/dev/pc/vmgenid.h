/*
 * The generation ID: 16 bytes that are others in every copy of a machine, so that a guest
 * that was copied can tell, and draws new random numbers. Microsoft's "Virtual Machine
 * Generation ID"; the DSDT says where it is (dev/tables/dsdt.c), and PM_GPE_GENERATION
 * (dev/pc/pm.h) that it has changed.
 */
#ifndef DEV_VMGENID_H
#define DEV_VMGENID_H

#include "bus/bus.h"

#define VMGENID_BASE 0xfec20000u /* a page that nothing else is in */
#define VMGENID_SIZE 16u

struct vmgenid;
struct snapshot;

/* Zeros at first. NULL when out of memory or of places on the bus. */
struct vmgenid *vmgenid_new(struct bus *bus);
void vmgenid_free(struct vmgenid *g);
/* A reset changes nothing: it is the same machine. */
void vmgenid_set(struct vmgenid *g, const uint64_t id[2]);

/* Its record of a snapshot (snapshot/snapshot.h): which one the guest knows. */
void vmgenid_state(struct vmgenid *g, struct snapshot *s);

#endif
