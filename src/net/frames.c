/* Frames in a stream; see frames.h. */
#include "net/frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int net_bytes_new(struct net_bytes *b, size_t size) {
    *b = (struct net_bytes){.buf = malloc(size), .size = size};
    return b->buf ? 0 : -ENOMEM;
}

void net_bytes_free(struct net_bytes *b) {
    free(b->buf);
    *b = (struct net_bytes){0};
}

void net_bytes_clear(struct net_bytes *b) {
    b->at = b->len = 0;
}

/* What is there begins at the beginning. */
static void move_down(struct net_bytes *b) {
    b->len -= b->at;
    memmove(b->buf, b->buf + b->at, b->len);
    b->at = 0;
}

/* --- in --- */

uint8_t *net_frames_space(struct net_bytes *b, size_t *room) {
    if (b->at)
        move_down(b);
    *room = b->size - b->len;
    return b->buf + b->len;
}

void net_frames_filled(struct net_bytes *b, size_t len) {
    b->len += len;
}

static size_t get_length(const uint8_t *p) {
    return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

int net_frames_take(struct net_bytes *b, uint8_t **frame, size_t *len) {
    const size_t there = net_bytes_there(b);

    if (there < NET_LENGTH_SIZE)
        return 0;
    *len = get_length(b->buf + b->at);
    if (*len > NET_FRAME_MAX)
        return -EPROTO;
    if (there < NET_LENGTH_SIZE + *len)
        return 0;
    *frame = b->buf + b->at + NET_LENGTH_SIZE;
    b->at += NET_LENGTH_SIZE + *len;
    return 1;
}

void net_frames_back(struct net_bytes *b, size_t len) {
    b->at -= NET_LENGTH_SIZE + len;
}

/* --- out --- */

bool net_frames_room(const struct net_bytes *b, size_t bytes, unsigned count) {
    return bytes + (size_t)count * NET_LENGTH_SIZE <= b->size - net_bytes_there(b);
}

uint8_t *net_frames_place(struct net_bytes *b, size_t len) {
    if (b->size - b->len < NET_LENGTH_SIZE + len)
        move_down(b);
    return b->buf + b->len + NET_LENGTH_SIZE;
}

void net_frames_put(struct net_bytes *b, size_t len) {
    uint8_t *p = b->buf + b->len;

    p[0] = (uint8_t)(len >> 24);
    p[1] = (uint8_t)(len >> 16);
    p[2] = (uint8_t)(len >> 8);
    p[3] = (uint8_t)len;
    b->len += NET_LENGTH_SIZE + len;
}

void net_frames_gone(struct net_bytes *b, size_t len) {
    b->at += len;
    if (b->at == b->len)
        net_bytes_clear(b);
}
