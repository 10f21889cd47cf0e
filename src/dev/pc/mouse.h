/*
 * A PS/2 mouse with three buttons, and with a wheel and two more buttons for a driver
 * that asks in the way that finds them: the rates 200, 100, 80, and 200, 200, 80, after
 * which it has another identification and packets of four bytes. IBM PS/2 Hardware
 * Interface Technical Reference, "Mouse".
 *
 * What happens while the guest does not read is added up: there is no more than
 * MOUSE_EVENTS of it, each with the buttons as they were, so that a click is not lost in
 * a movement.
 */
#ifndef DEV_MOUSE_H
#define DEV_MOUSE_H

#include "base/types.h"

#define MOUSE_LEFT 0x01u
#define MOUSE_RIGHT 0x02u
#define MOUSE_MIDDLE 0x04u
#define MOUSE_SIDE 0x08u
#define MOUSE_EXTRA 0x10u
#define MOUSE_BUTTONS 0x1fu

#define MOUSE_EVENTS 16u

/* To the right, downwards, and the wheel towards the user; the buttons that are down. */
struct mouse_event {
    int16_t dx, dy, dz;
    uint8_t buttons;
};

struct mouse {
    struct mouse_event events[MOUSE_EVENTS];
    unsigned first, count;
    uint8_t answers[5]; /* before what is in a packet */
    unsigned answer_count;
    uint8_t packet[4]; /* begun, or whole */
    unsigned packet_at, packet_len;
    uint8_t buttons;  /* down now */
    uint8_t last;     /* sent; for "resend" */
    uint8_t command;  /* waits for its data byte; 0: none */
    uint8_t rates[3]; /* that were set last, the newest last */
    uint8_t id;       /* 0, 3 or 4 */
    uint8_t resolution;
    bool reporting, remote, wrap, twice;
};

/* Power-up state: it reports nothing. */
void mouse_reset(struct mouse *m);
/* A byte from the controller. */
void mouse_write(struct mouse *m, uint8_t byte);
/* The next byte for the controller; false: there is none. */
bool mouse_take(struct mouse *m, uint8_t *byte);
/* It was moved by so much, and these buttons are down now. */
void mouse_moved(struct mouse *m, const struct mouse_event *e);

#endif
