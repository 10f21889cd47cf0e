/*
 * The board's ROM (guest/bios/bios.S), as this program carries it and as it lies in the
 * guest: the F segment below 1 MiB, and a copy of that at the end of the 4 GiB. Also for
 * the assembler.
 *
 *     0xf0000  what the machine has put there: tables
 *     0xfe000  the memory map for INT 15h
 *     0xff000  the image: the way into a 16-bit setup, services, at its end the reset
 * vector
 */
#ifndef BOOT_BIOS_H
#define BOOT_BIOS_H

#define BIOS_SEGMENT 0xf000
/* Offsets in the segment. */
#define BIOS_MAP_COUNT 0xe000
#define BIOS_MAP_EXT_KIB 0xe002   /* INT 15h AH 88h */
#define BIOS_MAP_BELOW_16M 0xe004 /* INT 15h AX E801h: KiB from 1 MiB on */
#define BIOS_MAP_ABOVE_16M 0xe006 /* and units of 64 KiB from 16 MiB on */
#define BIOS_MAP_ENTRIES 0xe008   /* INT 15h AX E820h: 20 bytes each */
#define BIOS_START 0xf000
#define BIOS_VECTORS 0xffe0 /* where the table of interrupt handlers is */
#define BIOS_RESET 0xfff0
/* The keyboard's ring, from 0x400 on. */
#define BIOS_KEYS 0x1e
#define BIOS_KEYS_END 0x3e

#ifndef __ASSEMBLER__
#include "base/types.h"

#define BIOS_BASE 0xf0000u
#define BIOS_SIZE 0x10000u

/* As `ld -b binary` names it (guest/bios/bios.mk). */
extern const uint8_t _binary_bios_start[], _binary_bios_end[];
#endif

#endif
