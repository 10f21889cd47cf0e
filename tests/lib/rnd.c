/* Marsaglia's xorshift, scrambled: the low bits of the plain one are poor. */
#include "lib/rnd.h"

static uint64_t state = 88172645463325252ull;

void rnd_seed(uint64_t seed) {
    state = seed ? seed : 88172645463325252ull;
}

uint64_t rnd(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull >> 8 | state << 56;
}

unsigned pick(unsigned n) {
    return (unsigned)(rnd() % n);
}

bool one_in(unsigned n) {
    return rnd() % n == 0;
}

void rnd_fill(uint8_t *buf, size_t len, uint64_t seed) {
    rnd_seed(seed);
    for (size_t n = 0; n < len; n++)
        buf[n] = (uint8_t)rnd();
}
