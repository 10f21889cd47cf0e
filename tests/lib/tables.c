#include "lib/tables.h"

#include <string.h>

#include "lib/need.h"

static uint8_t copy[0x10000];

uint64_t table_get(const uint8_t *p, unsigned off, unsigned len) {
    uint64_t v = 0;

    memcpy(&v, p + off, len);
    return v;
}

uint8_t table_sum(const uint8_t *p, unsigned len) {
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return sum;
}

const uint8_t *table_segment(struct mem *m, uint64_t at) {
    need(mem_read(m, gpa(at), copy, sizeof(copy)), "the segment is not RAM");
    return copy;
}

const uint8_t *table_find(const uint8_t *segment, const char *anchor) {
    for (unsigned at = 0; at < sizeof(copy); at += 16)
        if (!memcmp(segment + at, anchor, strlen(anchor)))
            return segment + at;
    return NULL;
}
