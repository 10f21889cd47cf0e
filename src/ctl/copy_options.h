/* Options of several copies that are made at once (ctl/copies.h). */
#ifndef CTL_COPY_OPTIONS_H
#define CTL_COPY_OPTIONS_H

#include "base/types.h"

/* COUNT words of options from WORD on are the first copy's, and become those of copy N,
 * from 0 on: addresses of cards (--net ...,mac=) and the number of the socket device
 * (--vsock CID=) count up from one copy to the next. False: no memory. New words are the
 * process's, until its end. */
bool copy_options_count(char **word, int count, unsigned n);

#endif
