/*
 * The bytes of a snapshot's state file, changed by an input of the fuzzer's:
 * docs/snapshot.md has the layout.
 */
#ifndef FUZZ_RECORDS_H
#define FUZZ_RECORDS_H

#include <zlib.h>

#include "fuzz/fuzz.h"

#define RECORDS_HEAD 16u
#define RECORDS_RECORD 40u /* in front of what it holds */

/* Checksums are right again, as far as the records can be told. */
static inline void records_repair(uint8_t *bytes, size_t len) {
    for (size_t at = RECORDS_HEAD; at + RECORDS_RECORD <= len;) {
        uint64_t n;
        uint32_t sum;

        memcpy(&n, bytes + at + 24, 8);
        if (n > len - at - RECORDS_RECORD)
            return;
        sum = (uint32_t)crc32(crc32(0, bytes + at, 32), bytes + at + RECORDS_RECORD,
                              (unsigned)n);
        memcpy(bytes + at + 32, &sum, 4);
        at += RECORDS_RECORD + n;
    }
}

/* All of IN: places of WIDTH bytes, a count, and what is stored there. */
static inline void records_patch(uint8_t *bytes, size_t len, struct fuzz_in *in,
                                 unsigned width) {
    while (in->left) {
        size_t at = fuzz_get(in, width) % len;
        unsigned n = (unsigned)fuzz_get(in, 1) % 17;

        for (unsigned k = 0; k < n && at + k < len; k++)
            bytes[at + k] = (uint8_t)fuzz_get(in, 1);
    }
}

#endif
