/*
 * Between the files of the room, whose order tools/layers has.
 */
#ifndef LIST_LIST_INT_H
#define LIST_LIST_INT_H

#include "list/list.h"

/* The instructions of unit U. */
void list_ir(const struct list *l, const struct list_unit *u);

/* The host code of unit U beside its guest instructions. 0 or -ENOMEM. */
int list_host(const struct list *l, const struct list_unit *u);

#endif
