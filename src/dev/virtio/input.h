/* A virtio tablet: a pointer that says where it is; see input.c. Locking: the board's. */
#ifndef DEV_VIRTIO_INPUT_H
#define DEV_VIRTIO_INPUT_H

#include "dev/virtio/virtio.h"

#define VIRTIO_INPUT_MAX 32767u /* the right and the lower edge */

/* Where it is; the wheel towards the user since the last time; the buttons that are down,
 * as a mouse's (dev/pc/mouse.h). */
struct virtio_input_point {
    uint16_t x, y;
    int16_t wheel;
    uint8_t buttons;
};

struct virtio_input;
struct snapshot;
/* NULL when out of memory. */
struct virtio_input *virtio_input_new(struct mem *mem, struct vclock *clock,
                                      struct counters *cnt);
void virtio_input_free(struct virtio_input *t); /* T may be NULL */
struct virtio_device *virtio_input_device(struct virtio_input *t);

/* The pointer is there. False: no driver listens. */
bool virtio_input_point(struct virtio_input *t, const struct virtio_input_point *p);

/* Its record of a snapshot (snapshot/snapshot.h). */
void virtio_input_state(struct virtio_input *t, struct snapshot *s);

#endif
