/*
 * What the tests of the loaders share: the guest that is loaded, and what is found in its
 * memory afterwards.
 */
#ifndef LIB_LOADED_H
#define LIB_LOADED_H

#include "boot/boot.h"
#include "cpu/vcpu.h"
#include "mem/mem.h"

extern struct vcpu V;
extern struct mem *M;
extern char why[512]; /* what the loader says */

/* With so many bytes of RAM: 0, or not. */
int loaded_new(uint64_t ram);
void loaded_free(void);

/* LEN bytes of V, little-endian, at P + OFF; and those at a guest-physical address. */
void put(uint8_t *p, unsigned off, unsigned len, uint64_t v);
uint64_t peek(struct mem *m, uint64_t at, unsigned len);
/* The guest has TEXT there, with its end. */
void assert_text(uint64_t at, const char *text);

#endif
