/* Random numbers, the same in every run: one stream a program. */
#ifndef LIB_RND_H
#define LIB_RND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Begins the stream of SEED; 0 is taken for another number. */
void rnd_seed(uint64_t seed);
uint64_t rnd(void);
/* 0 to N - 1. */
unsigned pick(unsigned n);
bool one_in(unsigned n);
/* Begins the stream of SEED, and makes LEN bytes of it. */
void rnd_fill(uint8_t *buf, size_t len, uint64_t seed);

#endif
