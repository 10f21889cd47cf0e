/*
 * The host bridge, as old systems know it: Intel 82441FX. Intel 440FX PCIset data sheet,
 * "PCI Configuration Space Mapped Registers".
 *
 * Of its registers two do something: PAM0 to PAM6 say what is seen from 0xc0000 to
 * 0xfffff, RAM or what lies behind it, and SMRAM keeps what firmware writes (there is no
 * system management mode: 0xa0000 is video memory always).
 */
#ifndef DEV_I440FX_H
#define DEV_I440FX_H

#include "dev/pci/pci.h"
#include "mem/mem.h"

#define I440FX_PAM 0x59u /* to 0x5f */
#define I440FX_SMRAM 0x72u

struct i440fx;
struct snapshot;

/* Function 0 of slot 0. SHADOWED: after a reset all from 0xc0000 on is RAM, as firmware
 * leaves it, which is not there; else nothing of it is. NULL when out of memory. */
struct i440fx *i440fx_new(struct pci *pci, struct mem *mem, bool shadowed);
void i440fx_free(struct i440fx *b);

/* Its record of a snapshot (snapshot/snapshot.h). */
void i440fx_state(struct i440fx *b, struct snapshot *s);

#endif
