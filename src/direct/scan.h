/* Which pages of code a cell may execute as they are. */
#ifndef DIRECT_SCAN_H
#define DIRECT_SCAN_H

#include "base/types.h"

/* What besides is otherwise: */
#define SCAN_XCR0 1u /* XCR0 is not the guest's: the XSAVE family, XGETBV */
#define SCAN_PKRU 2u /* the host has PKRU */
#define SCAN_AUX 4u  /* TSC_AUX is not the guest's: RDTSCP, RDPID */
#define SCAN_OWN 8u  /* a program has written it itself; CPUID faults */

#define SCAN_BEFORE 256u

/* A page, the SCAN_BEFORE bytes in front of it, the two behind it; NULL: nobody knows. */
struct scan_page {
    const uint8_t *bytes, *before, *behind;
};

/* Is there an instruction that the host's CPU would execute otherwise than the guest's?
 * One that needs bytes behind which nobody knows is the next page's business. HOW is
 * SCAN_ bits. */
bool scan_refuses(const struct scan_page *page, unsigned how);

/* A page that is refused can be executed by way of a copy in which each of these
 * instructions has another byte at one place, with which it faults: for each of them the
 * place of that byte. How many there are; or -1: more than MOST, or one is not within the
 * page, or too many ways through the code have no instruction there; or, with SCAN_OWN,
 * it may be a number that the program reads: it is no XGETBV that begins with ECX
 * cleared. */
#define SCAN_FAULTS 0x0b /* 0F 0B is UD2, and INT 0BH not for user code */
int scan_places(const struct scan_page *page, unsigned how, uint16_t *place,
                unsigned most);

#endif
