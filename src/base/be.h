/* Numbers that lie big-endian in memory: SIZE bytes, at most 8, the highest first. */
#ifndef BASE_BE_H
#define BASE_BE_H

#include <stdint.h>

static inline uint64_t be_get(const uint8_t *at, unsigned size) {
    uint64_t v = 0;

    while (size--)
        v = v << 8 | *at++;
    return v;
}

static inline void be_put(uint8_t *at, uint64_t value, unsigned size) {
    while (size--) {
        at[size] = (uint8_t)value;
        value >>= 8;
    }
}

#endif
