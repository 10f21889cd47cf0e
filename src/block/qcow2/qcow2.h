/* qcow2 images: see qcow2_int.h for what they are and what is promised of them. */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "block/block_int.h"

struct qcow2_names { /* what an image stands on */
    char backing[1024];
    char format[16]; /* "raw", "qcow2", ...; empty: not recorded */
};

/* What FILE says that it stands on; empty: nothing. 0, or -errno with a sentence in WHY.
 */
int qcow2_names(struct image *file, struct qcow2_names *out, char *why, size_t why_size);

struct qcow2_spec {
    struct image *file;    /* the image's from here on, also at an error */
    struct image *backing; /* the same; NULL: none */
    bool readonly;
    bool fleeting; /* gone at the end: it need not be durable */
};

/* 0, or -errno with a sentence in WHY. */
int qcow2_open(const struct qcow2_spec *spec, struct image **out, char *why,
               size_t why_size);

struct qcow2_new {
    uint64_t size;
    const char *backing, *format; /* what it is to say of what it stands on, or NULL */
};

/* Makes FILE, which is empty, an image in which nothing is written yet; durable. 0 or
 * -errno. */
int qcow2_create(struct image *file, const struct qcow2_new *how);

#endif
