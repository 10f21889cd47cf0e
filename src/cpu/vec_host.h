/* The host's vector state: which components there are, and where they lie in an image. */
#ifndef CPU_VEC_HOST_H
#define CPU_VEC_HOST_H

#include "base/types.h"

/* Learns from the host's CPUID which XSAVE components exist. Call once, first. */
void vec_init(void);

/* XCR0 bits that the guest may be offered: X87, SSE and, where the host has them, AVX and
 * the three of AVX-512. */
uint64_t vec_supported(void);

/* The components of XCR0 from AVX on, by number: where they are in the image, which is
 * for the host's CPU to say, and how large. 0 if the host has none. */
#define VEC_COMPONENTS 8u
unsigned vec_offset(unsigned component);
unsigned vec_size(unsigned component);

/* Bits of MXCSR that may be set. */
uint32_t vec_mxcsr_mask(void);

/* Does the host keep the address of the last x87 instruction (FIP)? AMD's CPUs save it
 * only with an exception pending, so that it is lost when the host switches to another
 * thread. */
bool vec_keeps_fip(void);

#endif
