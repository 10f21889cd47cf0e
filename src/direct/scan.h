/* Which pages of code a cell may execute as they are. */
#ifndef DIRECT_SCAN_H
#define DIRECT_SCAN_H

#include "base/types.h"

/* Is there an instruction in PAGE that the host's CPU would execute otherwise than the
 * guest's? NEXT has the two bytes behind the page, NULL: nobody knows; an instruction
 * that needs them is one, then. XSAVE: those of the XSAVE family are. */
bool scan_refuses(const uint8_t *page, const uint8_t *next, bool xsave);

#endif
