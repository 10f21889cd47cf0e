/*
 * Listings: guest code, IR and host code as text. Nothing that differs from one run to
 * the next is printed: host addresses appear by name.
 */
#ifndef LIST_LIST_H
#define LIST_LIST_H

#include "list/out.h"
#include "tr/tr.h"

#define LIST_LINE 192

/* A TU, and its code once there is some. */
struct list_unit {
    uint64_t va;
    const struct tr_code *c; /* NULL: it could not be fetched, or is 16-bit code */
    struct tu_insn *insn;
    unsigned n;
};

/* What is listed: COUNT units by address, from guest code in [FROM, FROM + LEN). */
struct list {
    const struct tr_env *env;
    const struct bt_listing *out;
    uint64_t from;
    uint32_t len;
    struct list_unit *units;
    size_t count;
};

/* Where link K of C leads, at C's address. */
static inline uint64_t list_target(const struct tr_code *c, unsigned k) {
    return tr_link_target(&c->links[k], c->va & ~4095ull);
}

/* All of it. 0 or -ENOMEM. The guest's vector state is parked. */
int list_print(const struct list *l);

void list_line(const struct list *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* How branches out of the given code are told apart from those not chained yet. */
bool list_inside(const struct list *l, uint64_t va);

/* I is a direct branch: its immediate is a distance. */
bool list_branches(const struct insn *i);

/* The guest instruction at VA, without the zeros that the decoder puts before an address.
 * Returns BUF. */
char *list_guest_text(const struct insn *i, uint64_t va, char *buf, size_t size);

/* The host instruction I at RX of C, with names for addresses that have one. */
void list_host_text(const struct list *l, const struct tr_code *c, const struct insn *i,
                    const uint8_t *rx, char *text, size_t size);

#endif
