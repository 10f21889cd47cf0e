/* Where the distribution keeps firmware. */
#ifndef CTL_FIRMWARE_H
#define CTL_FIRMWARE_H

#include "base/types.h"

/* The file that "bios" or "uefi" stands for, else NAME itself, or NULL with one sentence
 * in WHY. What is returned is NAME's or constant. */
const char *firmware_find(const char *name, char *why, size_t why_size);

#endif
