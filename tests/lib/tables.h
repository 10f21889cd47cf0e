/* For the tests of tables that firmware leaves in the F segment and below: the guest's
 * memory, searched and summed as a system does. No cmocka: what is not there is NULL. */
#ifndef LIB_TABLES_H
#define LIB_TABLES_H

#include "mem/mem.h"

/* 64 MiB, for cmocka. */
extern struct mem *table_mem;
int table_setup(void **state);
int table_teardown(void **state);

/* Little-endian, LEN bytes from P + OFF. */
uint64_t table_get(const uint8_t *p, unsigned off, unsigned len);
/* Of LEN bytes; 0 when the checksum is right. */
uint8_t table_sum(const uint8_t *p, unsigned len);
/* A copy of the 64 KiB from AT on, until the next call. */
const uint8_t *table_segment(uint64_t at);
/* ANCHOR at a multiple of 16 in the 64 KiB at SEGMENT. */
const uint8_t *table_find(const uint8_t *segment, const char *anchor);

#endif
