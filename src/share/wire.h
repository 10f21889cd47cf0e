/*
 * Reading and writing the messages of 9P, little endian as this host is. What is read
 * beyond the end is zeros, and the message is bad; what has no room is not written, and
 * the answer is full. Both are looked at once, at the end.
 */
#ifndef SHARE_WIRE_H
#define SHARE_WIRE_H

#include <string.h>

#include "base/types.h"

struct wire_in {
    const uint8_t *at;
    size_t left;
    bool bad;
};

struct wire_out {
    uint8_t *at;
    size_t left;
    bool full;
};

/* LEN bytes that follow, where they are; NULL: there are fewer. */
static inline const uint8_t *wire_bytes(struct wire_in *in, size_t len) {
    const uint8_t *at = in->at;

    if (len > in->left) {
        in->bad = true;
        in->left = 0;
        return NULL;
    }
    in->at += len;
    in->left -= len;
    return at;
}

static inline uint64_t wire_get(struct wire_in *in, size_t len) {
    const uint8_t *from = wire_bytes(in, len);
    uint64_t value = 0;

    if (from)
        memcpy(&value, from, len);
    return value;
}

static inline uint8_t wire_get8(struct wire_in *in) {
    return (uint8_t)wire_get(in, 1);
}
static inline uint16_t wire_get16(struct wire_in *in) {
    return (uint16_t)wire_get(in, 2);
}
static inline uint32_t wire_get32(struct wire_in *in) {
    return (uint32_t)wire_get(in, 4);
}
static inline uint64_t wire_get64(struct wire_in *in) {
    return wire_get(in, 8);
}

/* A string, copied; one that is longer than SIZE - 1, or has a NUL in it, is bad. */
static inline void wire_text(struct wire_in *in, char *buf, size_t size) {
    size_t len = wire_get16(in);
    const uint8_t *from = wire_bytes(in, len);

    *buf = 0;
    if (!from)
        return;
    if (len >= size) {
        in->bad = true;
        return;
    }
    memcpy(buf, from, len);
    buf[len] = 0;
    if (strlen(buf) != len)
        in->bad = true;
}

/* The same of a string that ends with a NUL: LEN is not there. */
static inline void wire_string(struct wire_in *in, char *buf, size_t size) {
    size_t most = in->left < size ? in->left : size;
    const uint8_t *from = wire_bytes(in, 0);
    size_t len;

    memcpy(buf, from, most);
    len = strnlen(buf, most);
    if (len == most) {
        in->bad = true;
        len = 0;
        in->left = 0;
    } else {
        wire_bytes(in, len + 1);
    }
    buf[len] = 0;
}

/* Room for LEN bytes; NULL: there is not as much. */
static inline uint8_t *wire_room(struct wire_out *out, size_t len) {
    uint8_t *at = out->at;

    if (len > out->left) {
        out->full = true;
        out->left = 0;
        return NULL;
    }
    out->at += len;
    out->left -= len;
    return at;
}

static inline void wire_put(struct wire_out *out, const void *bytes, size_t len) {
    uint8_t *to = wire_room(out, len);

    if (to)
        memcpy(to, bytes, len);
}

static inline void wire_put8(struct wire_out *out, uint8_t value) {
    wire_put(out, &value, 1);
}
static inline void wire_put16(struct wire_out *out, uint16_t value) {
    wire_put(out, &value, 2);
}
static inline void wire_put32(struct wire_out *out, uint32_t value) {
    wire_put(out, &value, 4);
}
static inline void wire_put64(struct wire_out *out, uint64_t value) {
    wire_put(out, &value, 8);
}

static inline void wire_put_text(struct wire_out *out, const char *text, size_t len) {
    wire_put16(out, (uint16_t)len);
    wire_put(out, text, len);
}

#endif
