/*
 * What is typed at a terminal, as keys that go down and up: characters, with control,
 * shift and alt where they were, and the sequences that terminals send for other keys
 * (ECMA-48, "Control Sequences"; xterm's and the Linux console's).
 *
 * An ESC is a key of its own when nothing follows it: typed_pause() says so. What is no
 * key here is dropped: bytes above 0x7f, sequences that are not known.
 */
#ifndef VIEWER_TYPED_H
#define VIEWER_TYPED_H

#include "base/types.h"

#define TYPED_KEYS 512u
#define TYPED_BYTE_KEYS 8u /* that a byte makes at most */
#define TYPED_READ 16u

struct typed {
    struct typed_key {
        uint8_t code;
        bool down;
    } keys[TYPED_KEYS]; /* a ring */
    unsigned first, count;
    char held[16]; /* a sequence that was begun, from its ESC on */
    unsigned held_len;
};

/* There is room for what TYPED_READ bytes make, with what is held before them. */
bool typed_has_room(const struct typed *t);
void typed_byte(struct typed *t, uint8_t byte);
/* Nothing has followed for a while. */
void typed_pause(struct typed *t);

#endif
