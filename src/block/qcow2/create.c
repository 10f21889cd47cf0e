/*
 * Makes an image in which nothing is written: header, refcount table, one refcount block,
 * L1 table, in clusters of 64 KiB that follow each other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "block/qcow2/qcow2_int.h"

#define BITS 16u
#define CLUSTER (1u << BITS)
#define L1_AT 3u /* cluster */

static void put32(uint8_t *p, uint32_t v) {
    be_put(p, v, 4);
}

static void put64(uint8_t *p, uint64_t v) {
    be_put(p, v, 8);
}

static uint64_t l1_entries(uint64_t size) {
    uint64_t span = 1ull << (2 * BITS - 3);

    return size / span + (size % span != 0);
}

/* What it stands on: extensions, their end, the name. */
static void put_names(uint8_t *p, const struct qcow2_new *how) {
    uint32_t at = QCOW2_HEADER_V3, len = how->format ? (uint32_t)strlen(how->format) : 0;

    if (!how->backing)
        return;
    if (len) {
        put32(p + at, QCOW2_EXTENSION_FORMAT);
        put32(p + at + 4, len);
        memcpy(p + at + 8, how->format, len);
        at += 8 + (len + 7) / 8 * 8;
    }
    at += 8; /* the end: zeros */
    put64(p + 8, at);
    put32(p + 16, (uint32_t)strlen(how->backing));
    memcpy(p + at, how->backing, strlen(how->backing));
}

static void put_header(uint8_t *p, const struct qcow2_new *how) {
    uint64_t entries = l1_entries(how->size);

    put32(p, QCOW2_MAGIC);
    put32(p + 4, 3);
    put32(p + 20, BITS);
    put64(p + 24, how->size);
    put32(p + 36, (uint32_t)entries);
    put64(p + 40, L1_AT * CLUSTER);
    put64(p + 48, 1 * CLUSTER);
    put32(p + 56, 1);
    put32(p + 96, 4);
    put32(p + 100, QCOW2_HEADER_V3);
    put_names(p, how);
}

int qcow2_create(struct image *file, const struct qcow2_new *how) {
    uint64_t l1 = (l1_entries(how->size) * 8 + CLUSTER - 1) >> BITS;
    uint8_t *p;
    int rc;

    if (l1 << BITS > QCOW2_L1_BYTES_MAX)
        return -EFBIG;
    if (how->backing && strlen(how->backing) > QCOW2_BACKING_MAX)
        return -ENAMETOOLONG;
    p = calloc(L1_AT, CLUSTER);
    if (!p)
        return -ENOMEM;
    put_header(p, how);
    put64(p + CLUSTER, 2 * CLUSTER);
    for (uint64_t n = 0; n < L1_AT + l1; n++)
        p[2 * CLUSTER + 2 * n + 1] = 1;
    rc = image_write_zeroes(file, L1_AT * CLUSTER, l1 << BITS);
    if (!rc)
        rc = image_write(file, 0, p, L1_AT * (size_t)CLUSTER);
    free(p);
    if (!rc)
        rc = file->ops->flush(file);
    file->size = (L1_AT + l1) << BITS;
    return rc;
}
