/*
 * A PS/2 keyboard with 102 keys: what it sends for them, and what it answers. IBM PS/2
 * Hardware Interface Technical Reference, "101- and 102-Key Keyboards"; scan code sets 1
 * and 2.
 *
 * Keys are named by their codes of set 1; those that begin with E0 have KEYBOARD_EXTENDED
 * added. What is typed while nobody listens is kept, up to KEYBOARD_QUEUE bytes.
 */
#ifndef DEV_KEYBOARD_H
#define DEV_KEYBOARD_H

#include "base/types.h"

#define KEYBOARD_EXTENDED 0x80u
#define KEYBOARD_PAUSE (KEYBOARD_EXTENDED | 0x46u) /* sends E1 ... */
#define KEYBOARD_PRINT (KEYBOARD_EXTENDED | 0x37u)
#define KEYBOARD_QUEUE 64u

struct keyboard {
    uint8_t queue[KEYBOARD_QUEUE];
    unsigned first, count;
    uint8_t answers[4]; /* before what is in the queue */
    unsigned answer_count;
    uint8_t last;    /* sent; for "resend" */
    uint8_t command; /* waits for its data byte; 0: none */
    uint8_t set;     /* of scan codes: 1 or 2 */
    uint8_t leds;
    bool scanning;
};

/* Power-up state. */
void keyboard_reset(struct keyboard *k);
/* A byte from the controller. */
void keyboard_write(struct keyboard *k, uint8_t byte);
/* The next byte for the controller; false: there is none. */
bool keyboard_take(struct keyboard *k, uint8_t *byte);
/* A key goes down (again and again: it repeats), or up. False: the queue has no room for
 * all that it sends, and nothing was sent; or there is no such key. */
bool keyboard_key(struct keyboard *k, unsigned key, bool down);

/* The 8042's translation of a code of set 2 into set 1. */
uint8_t keyboard_translate(uint8_t code);

#endif
