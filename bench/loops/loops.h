/*
 * Loops of user code like those that programs spend their time in: what an interpreter, a
 * compiler, a database or a parser does all day. Each returns a checksum of what it has
 * computed, always the same.
 */
#ifndef BENCH_LOOPS_H
#define BENCH_LOOPS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct loop {
    const char *name;
    uint64_t (*run)(void);
};

/* Each ends with one without a name. */
extern const struct loop loops_interpreters[]; /* machines for bytecode */
extern const struct loop loops_tables[];       /* hash tables, trees, sorting, heaps */
extern const struct loop loops_text[];         /* parsers, automata, compression */
extern const struct loop loops_numbers[];      /* dynamic programming, search, numerics */
extern const struct loop loops_objects[]; /* C++: virtual calls, containers, strings */

/* The same row of numbers in each run (xorshift): 31 bits each. STATE is not 0. */
static inline uint32_t loop_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state >> 1;
}

#ifdef __cplusplus
}
#endif

#endif
