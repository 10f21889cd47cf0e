/* Between segment.c, descinsn.c and system.c: descriptors without the fault. */
#ifndef SEM_SEGMENT_INT_H
#define SEM_SEGMENT_INT_H

#include "sem/sem_int.h"

/* As sem_read_desc(), but a selector beyond its table's limit is *FOUND = false instead
 * of a fault. SEM_FAULT only for a fault of the read itself. */
int sem_probe_desc(struct vcpu *v, uint16_t sel, uint64_t desc[2], bool *found);

/* ORs BITS into the type byte of SEL's descriptor in its table; DESC is what was read. */
int sem_mark_desc(struct vcpu *v, uint16_t sel, uint64_t desc, uint8_t bits);

/* Is ADDR canonical? sem/frame.c. */
bool sem_canonical(const struct vcpu *v, uint64_t addr);

#endif
