#include <stdlib.h>

#include "program.h"

struct node *list_push(struct node *list, unsigned value) {
    struct node *n = malloc(sizeof(*n));
    *n = (struct node){list, value};
    return n;
}

static struct node *merge(struct node *a, struct node *b) {
    struct node *head = NULL, **end = &head;
    while (a && b) {
        struct node **least = a->value <= b->value ? &a : &b;
        *end = *least;
        end = &(*end)->next;
        *least = (*least)->next;
    }
    *end = a ? a : b;
    return head;
}

struct node *list_sort(struct node *list) {
    if (!list || !list->next)
        return list;
    struct node *slow = list, *fast = list->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct node *half = slow->next;
    slow->next = NULL;
    return merge(list_sort(list), list_sort(half));
}
