/*
 * Frames in a stream of bytes, as QEMU puts them there: four bytes, big-endian, how long
 * the frame is; the frame.
 *
 * Two buffers, and no descriptor: who has one reads into the one and writes from the
 * other. The peer is hostile: a length that no frame has ends the stream, since nobody
 * knows where the next one would begin.
 */
#ifndef NET_FRAMES_H
#define NET_FRAMES_H

#include "net/net.h"

#define NET_LENGTH_SIZE 4

/* Bytes from AT to LEN are there. */
struct net_bytes {
    uint8_t *buf;
    size_t size, at, len;
};

/* SIZE is more than a frame and its length. 0 or -ENOMEM. */
int net_bytes_new(struct net_bytes *b, size_t size);
void net_bytes_free(struct net_bytes *b);
/* It is empty. */
void net_bytes_clear(struct net_bytes *b);
static inline size_t net_bytes_there(const struct net_bytes *b) {
    return b->len - b->at;
}

/* --- in --- */

/* Where more is to be read to, and how much: there is always place for the rest of a
 * frame when net_frames_take() has said 0. What it gave is gone. */
uint8_t *net_frames_space(struct net_bytes *b, size_t *room);
/* So much was read. */
void net_frames_filled(struct net_bytes *b, size_t len);
/* The next frame, which stays where it is until net_frames_space(): 1. 0: it is not all
 * here yet. -EPROTO: it is too long. */
int net_frames_take(struct net_bytes *b, uint8_t **frame, size_t *len);
/* The frame of LEN bytes that was taken last comes again. */
void net_frames_back(struct net_bytes *b, size_t len);

/* --- out --- */

/* Is there room for COUNT frames of BYTES in all? */
bool net_frames_room(const struct net_bytes *b, size_t bytes, unsigned count);
/* Place for a frame of LEN bytes, for which there is room; it is sent when
 * net_frames_put() has been told. */
uint8_t *net_frames_place(struct net_bytes *b, size_t len);
void net_frames_put(struct net_bytes *b, size_t len);
/* What is to be written, from buf + at on, has been, so far. */
void net_frames_gone(struct net_bytes *b, size_t len);

#endif
