#include <stdlib.h>
#include <string.h>

#include "program.h"

struct entry {
    char *key;
    unsigned value;
};
struct table {
    size_t size, used;
    struct entry *entries;
};

static unsigned hash(const char *s) {
    unsigned h = 2166136261u;
    while (*s)
        h = (h ^ (unsigned char)*s++) * 16777619u;
    return h;
}

struct table *table_new(size_t size) {
    struct table *t = malloc(sizeof(*t));
    *t = (struct table){.size = size, .entries = calloc(size, sizeof(struct entry))};
    return t;
}

static struct entry *place(const struct table *t, const char *key) {
    size_t i = hash(key) % t->size;
    while (t->entries[i].key && strcmp(t->entries[i].key, key))
        i = (i + 1) % t->size;
    return &t->entries[i];
}

static void grow(struct table *t) {
    struct table wide = *table_new(t->size * 2);
    for (size_t i = 0; i < t->size; i++)
        if (t->entries[i].key)
            *place(&wide, t->entries[i].key) = t->entries[i];
    wide.used = t->used;
    free(t->entries);
    *t = wide;
}

void table_put(struct table *t, const char *key, unsigned value) {
    if (t->used * 2 >= t->size)
        grow(t);
    struct entry *e = place(t, key);
    if (!e->key) {
        e->key = strdup(key);
        t->used++;
    }
    e->value = value;
}

unsigned table_get(const struct table *t, const char *key) {
    return place(t, key)->value;
}
