/* frob, the benchmark guest, as this program carries it (guest/frob/frob.mk). */
#ifndef COMPARE_FROB_IMAGE_H
#define COMPARE_FROB_IMAGE_H

#include "base/types.h"

/* As `ld -b binary` names them. */
extern const uint8_t _binary_frob32_start[], _binary_frob32_end[];
extern const uint8_t _binary_frob64_start[], _binary_frob64_end[];

#endif
