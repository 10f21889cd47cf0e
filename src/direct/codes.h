/*
 * Which pages of RAM the cells of a vCPU may execute, and where: for who is told that one
 * was written. Entries are added and never taken out one by one; what they say is looked
 * up in the space again. A full table begins anew, with all its spaces.
 *
 * Of the core rooms' kind: stores call it.
 */
#ifndef DIRECT_CODES_H
#define DIRECT_CODES_H

#include "base/types.h"

#define CODES 65536u
#define CODES_HEADS 16384u

struct code_at {
    uint32_t page; /* of RAM, by number */
    uint32_t next; /* of the same hash; 0: none */
    uint64_t at;   /* guest address, of a page; its space is in bits 0 to 11 */
};

struct codes {
    unsigned count; /* entries 1 to COUNT are used */
    uint32_t head[CODES_HEADS];
    struct code_at code[CODES];
};

/* False: there is no room; the caller drops all spaces and calls codes_clear(). */
bool codes_add(struct codes *c, uint32_t page, unsigned space, uint64_t at);
void codes_clear(struct codes *c);
/* FN for each place where PAGE was mapped. */
void codes_each(const struct codes *c, uint32_t page,
                void (*fn)(void *arg, unsigned space, uint64_t at), void *arg);

#endif
