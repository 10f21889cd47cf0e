/* Shared by listing.c (what is printed) and listing_host.c (host code as text). */
#ifndef BT_LIST_INT_H
#define BT_LIST_INT_H

#include "tr/tr_int.h"

#define LIST_LINE 192

/* A TU, and its fragment once there is one. */
struct list_unit {
    uint64_t va;
    struct ccf *c; /* NULL: it could not be fetched, or is 16-bit code */
    struct tu_insn *insn;
    unsigned n;
};

struct list {
    struct bt *bt;
    const struct bt_listing *out;
    uint64_t from;
    uint32_t len;
    struct list_unit *units;
    size_t count, room;
    uint8_t *seen;  /* by offset from FROM: the address is in TODO or was */
    uint32_t *todo; /* offsets */
    size_t next, last;
};

void list_line(const struct list *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* How branches out of the given code are told apart from those not yet turned. */
bool list_inside(const struct list *l, uint64_t va);

/* The guest instruction at VA, without the zeros that the decoder puts before an address.
 * Returns BUF. */
char *list_guest_text(const struct insn *i, uint64_t va, char *buf, size_t size);

/* The host instruction I at RX of C, with names for addresses that have one. */
void list_host_text(const struct list *l, const struct ccf *c, const struct insn *i,
                    const uint8_t *rx, char *text, size_t size);

/* The host code of unit U beside its guest instructions. */
/* 0 or -ENOMEM. */
int list_host(const struct list *l, const struct list_unit *u);

#endif
