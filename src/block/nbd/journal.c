/*
 * What a server has acknowledged since it last made everything durable: a list, oldest
 * first, with the bytes. A server that ends may have lost any of it, and is given it
 * again, in this order, when it is back. The lock is the disk's.
 */
#include <stdlib.h>
#include <string.h>

#include "block/nbd/nbd_int.h"

void nbd_journal_init(struct nbd_journal *j) {
    *j = (struct nbd_journal){0};
    j->end = &j->first;
}

struct nbd_entry *nbd_journal_entry(const struct nbd_command *c) {
    size_t len = c->way == NBD_WRITE ? c->len : 0;
    struct nbd_entry *e = malloc(sizeof(*e) + len);

    if (!e)
        return NULL;
    *e = (struct nbd_entry){.c = *c};
    e->c.buf = len ? memcpy(e + 1, c->buf, len) : NULL;
    return e;
}

static size_t weight(const struct nbd_entry *e) {
    return sizeof(*e) + (e->c.buf ? e->c.len : 0);
}

void nbd_journal_add(struct nbd_journal *j, struct nbd_entry *e) {
    e->next = NULL;
    e->number = ++j->number;
    *j->end = e;
    j->end = &e->next;
    j->bytes += weight(e);
}

void nbd_journal_forget(struct nbd_journal *j, uint64_t number) {
    while (j->first && j->first->number <= number) {
        struct nbd_entry *e = j->first;

        j->first = e->next;
        j->bytes -= weight(e);
        free(e);
    }
    if (!j->first)
        j->end = &j->first;
}
