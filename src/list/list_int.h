/*
 * Between the files of the room, each of which calls those before it and none behind it:
 *   text ir host print
 */
#ifndef LIST_LIST_INT_H
#define LIST_LIST_INT_H

#include "list/list.h"

/* The instructions of unit U. */
void list_ir(const struct list *l, const struct list_unit *u);

/* The host code of unit U beside its guest instructions. 0 or -ENOMEM. */
int list_host(const struct list *l, const struct list_unit *u);

#endif
