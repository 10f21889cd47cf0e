/*
 * What the fuzzing targets share. A target is one source file with one function,
 * LLVMFuzzerTestOneInput(): it takes any bytes at all, and dies when something does not
 * hold that must. It keeps nothing from one input to the next that could change what an
 * input does.
 *
 * Each target is linked twice: with libFuzzer and the sanitizers (`make fuzz`), and with
 * replay.c as a test that runs the files of tests/fuzz/corpus/TARGET (`make check`).
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "lib/need.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input, read from the front; behind its end it is zeros. */
struct fuzz_in {
    const uint8_t *p;
    size_t left;
};

static inline uint64_t fuzz_get(struct fuzz_in *in, unsigned len) {
    uint64_t v = 0;
    unsigned n = in->left < len ? (unsigned)in->left : len;

    memcpy(&v, in->p, n);
    in->p += n;
    in->left -= n;
    return v;
}

#endif
