/* A virtio console with several ports; see console.c. Locking: the board's. */
#ifndef DEV_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_CONSOLE_H

#include "dev/virtio/virtio.h"

#define VIRTIO_CONSOLE_PORTS 8u
#define VIRTIO_CONSOLE_NAME 64u /* bytes of a port's name at most */

/* The far ends of the ports. The guest's vector state is parked; nothing waits. */
struct virtio_console_host {
    /* The guest wrote LEN bytes to PORT: takes some of them, and how many. The others
     * stay with the guest until virtio_console_writable(). */
    size_t (*write)(void *arg, unsigned port, const uint8_t *bytes, size_t len);
    /* The guest has room for input again. */
    void (*room)(void *arg, unsigned port);
    void *arg;
};

/* What a port is for the guest. */
struct virtio_console_port {
    const char *name; /* is kept; or NULL */
    bool console;     /* a console, as the first port always is */
};

struct virtio_console;
struct snapshot;

/* With COUNT ports (1..VIRTIO_CONSOLE_PORTS), which are PORTS. NULL when out of memory.
 */
struct virtio_console *virtio_console_new(struct mem *mem, struct vclock *clock,
                                          const struct virtio_console_port *ports,
                                          unsigned count,
                                          const struct virtio_console_host *host,
                                          struct counters *cnt);
void virtio_console_free(struct virtio_console *c); /* C may be NULL */
struct virtio_device *virtio_console_device(struct virtio_console *c);

/* Gives the guest input: how many bytes it had room for. */
size_t virtio_console_input(struct virtio_console *c, unsigned port, const uint8_t *bytes,
                            size_t len);
/* The port's host takes output again. */
void virtio_console_writable(struct virtio_console *c, unsigned port);
/* Somebody is at the other end, or nobody any more. */
void virtio_console_connected(struct virtio_console *c, unsigned port, bool on);
/* The size of the first port's screen. */
void virtio_console_resize(struct virtio_console *c, uint16_t columns, uint16_t rows);

/* Its record of a snapshot (snapshot/snapshot.h); and when all is read, and the machine
 * about to run: who is at the ports has been told. */
void virtio_console_state(struct virtio_console *c, struct snapshot *s);
void virtio_console_go_on(struct virtio_console *c);

#endif
