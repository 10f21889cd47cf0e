/*
 * Between the machine's process and the server's (vnc.c, server.c): memory that both
 * have, where the machine draws, and a socket that keeps messages apart.
 *
 * The server says WANT when it has a client and has taken the picture before: there is
 * one at most that nobody has answered. The machine answers with PICTURE as soon as there
 * is a new one in the memory, and leaves it alone until the next WANT. KEY and POINTER
 * come whenever a client has sent them.
 *
 * Neither trusts the other: the server reads what strangers send, the machine runs a
 * guest.
 */
#ifndef VIEWER_VIEWER_INT_H
#define VIEWER_VIEWER_INT_H

#include "dev/pc/vga.h"
#include "viewer/viewer.h"

struct arena {
    uint32_t pixels[VGA_WIDTH * VGA_HEIGHT]; /* 0xRRGGBB, without gaps between lines */
};

struct message {
    enum {
        PICTURE = 1, /* a: width, b: height */
        WANT,        /* a: the last one was another than that before */
        KEY,         /* a: its code, b: it goes down */
        POINTER,     /* a: to the right, b: downwards, c: the wheel towards the user, all
                        signed; d: buttons that are down */
    } kind;
    uint16_t a, b, c, d;
    uint16_t x, y; /* POINTER: where it is, 0 to VIRTIO_INPUT_MAX from edge to edge */
};

/* The server's first word. */
struct word {
    int rc;
    bool jail;    /* it is the jail's */
    bool library; /* there is none */
};

/* The life of the server's process. FD is its end of the socket, LISTENER where clients
 * come; PASSWORD has none if it is empty. */
_Noreturn void vnc_server_be(const struct vnc_config *cfg, const char *password,
                             struct arena *arena, int fd, int listener);

#endif
