/*
 * A network card that old systems know: Intel 82540EM. PCI/PCI-X Family of Gigabit
 * Ethernet Controllers Software Developer's Manual (the "manual" of these files).
 *
 * Receive and transmit rings with legacy and extended descriptors, checksum offload, TCP
 * segmentation, VLAN tags, address filters, EEPROM and PHY. What is not there: delays and
 * throttling of interrupts (they come at once), flow control frames, wake-up, flash, the
 * TBI and the packet splitting of other members of the family.
 *
 * Locking: the board's.
 */
#ifndef DEV_E1000_H
#define DEV_E1000_H

#include "dev/pci/pci.h"
#include "mem/mem.h"
#include "net/net.h"

struct e1000;
struct snapshot;

/* At SLOT; NET is the other end of its cable and the caller's. 0 or -errno. */
int e1000_new(struct pci *pci, unsigned slot, struct mem *mem, struct net *net,
              const uint8_t mac[NET_MAC_SIZE], struct e1000 **out);
/* NULL: nothing to do. */
void e1000_free(struct e1000 *e);

/* Its record of a snapshot (snapshot/snapshot.h); and when all is read, and the machine
 * about to run: the network is there. */
void e1000_state(struct e1000 *e, struct snapshot *s);
void e1000_go_on(struct e1000 *e);

#endif
