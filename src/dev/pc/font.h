/*
 * Letters for a text screen whose guest has loaded none: five by seven dots, stretched
 * over the cell. ASCII, and from code page 437 what frames and bars are made of.
 */
#ifndef DEV_FONT_H
#define DEV_FONT_H

#include "base/types.h"

/* Eight dots of row Y, of HEIGHT, of character C; the leftmost is bit 7. */
uint8_t font_row(uint8_t c, unsigned y, unsigned height);

#endif
