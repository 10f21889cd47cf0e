/* Which pages of code a cell may execute as they are. */
#ifndef DIRECT_SCAN_H
#define DIRECT_SCAN_H

#include "base/types.h"

/* What besides is otherwise: */
#define SCAN_XCR0 1u /* XCR0 is not the guest's: the XSAVE family, XGETBV */
#define SCAN_PKRU 2u /* the host has PKRU */
#define SCAN_AUX 4u  /* TSC_AUX is not the guest's: RDTSCP, RDPID */

#define SCAN_BEFORE 80u

/* A page, the SCAN_BEFORE bytes in front of it, the two behind it; NULL: nobody knows. */
struct scan_page {
    const uint8_t *bytes, *before, *behind;
};

/* Is there an instruction that the host's CPU would execute otherwise than the guest's?
 * One that needs bytes behind which nobody knows is the next page's business. HOW is
 * SCAN_ bits. */
bool scan_refuses(const struct scan_page *page, unsigned how);

#endif
