/* For tables that firmware leaves in memory: fields and checksums. */
#ifndef DEV_TABLE_H
#define DEV_TABLE_H

#include "base/types.h"

/* Stores the SIZE low bytes of VALUE, little-endian. */
static inline void table_put(uint8_t *at, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        at[i] = (uint8_t)(value >> (i * 8));
}

/* The byte that makes the sum of all LEN bytes, and it, zero. */
static inline uint8_t table_checksum(const uint8_t *p, uint32_t len) {
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

#endif
