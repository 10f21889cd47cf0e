#include <stddef.h>
struct node {
    struct node *next;
    unsigned value;
};
struct table;
struct table *table_new(size_t size);
void table_put(struct table *t, const char *key, unsigned value);
unsigned table_get(const struct table *t, const char *key);
struct node *list_push(struct node *list, unsigned value);
struct node *list_sort(struct node *list);
int text_wrap(const char *text, int width, char *out, size_t size);
