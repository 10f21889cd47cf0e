#include "lib/tables.h"

#include <string.h>

#include "lib/need.h"

struct mem *table_mem;
static uint8_t copy[0x10000];

int table_setup(void **state) {
    return mem_create(64 << 20, &table_mem);
}

int table_teardown(void **state) {
    mem_destroy(table_mem);
    return 0;
}

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

const uint8_t *table_segment(uint64_t at) {
    need(mem_read(table_mem, gpa(at), copy, sizeof(copy)), "the segment is not RAM");
    return copy;
}

const uint8_t *table_find(const uint8_t *segment, const char *anchor) {
    for (unsigned at = 0; at < sizeof(copy); at += 16)
        if (!memcmp(segment + at, anchor, strlen(anchor)))
            return segment + at;
    return NULL;
}
