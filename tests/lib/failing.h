/*
 * Lets one allocation fail: memory, mappings, descriptors, threads, files. The linker
 * leads the calls of the library here (--wrap, see the Makefile); what the C library
 * allocates for itself is not seen, but for fopen(), and cJSON's if it is told to call
 * __wrap_malloc().
 */
#ifndef LIB_FAILING_H
#define LIB_FAILING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

extern unsigned fail_at; /* the call that fails; 0: none */
extern bool deny_code;   /* no mapping may be executable */
extern bool failed;
extern long blocks; /* that are allocated */

/* The N-th call from now on fails. */
void failing_arm(unsigned n);
/* How many there are. */
unsigned mappings(void);

/* For cJSON, and for files of the test itself. */
void *__wrap_malloc(size_t size);
void __wrap_free(void *p);
FILE *__real_fopen(const char *path, const char *mode);

/* A guest for both: it writes to the debug-exit port. */
#define FAILING_GUEST "\xb0\x05\xe6\xf4\xf4"
#define FAILING_STATUS 11

#endif
