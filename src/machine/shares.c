/*
 * Directories of the host's: their servers' side (share/) lives on the machine's loop and
 * takes the board's lock.
 */
#include <errno.h>
#include <stdio.h>

#include "dev/virtio/share.h"
#include "machine/machine_int.h"
#include "machine/virtio.h"
#include "share/share.h"

_Static_assert(SHARE_SLOTS == VIRTIO_SHARE_SLOTS, "the same numbers");
_Static_assert(SHARE_TAG == VIRTIO_SHARE_TAG, "as long a name");

/* --- from the guest; ARG is the server's side --- */

static uint8_t *on_begin(void *arg, unsigned *slot) {
    return share_begin(arg, slot);
}

static void on_submit(void *arg, unsigned slot, uint32_t len, uint32_t room) {
    share_submit(arg, slot, len, room);
}

static void on_drop(void *arg, unsigned slot) {
    share_drop(arg, slot);
}

static void on_reset(void *arg) {
    share_reset(arg);
}

/* --- from the server; ARG is the device --- */

static void on_done(void *arg, unsigned slot, const uint8_t *answer, uint32_t len) {
    virtio_share_done(arg, slot, answer, len);
}

static void on_more(void *arg) {
    virtio_share_go_on(arg);
}

/* --- life --- */

static void free_share(void *dev) {
    virtio_share_free(dev);
}

static void record(void *dev, struct snapshot *s) {
    virtio_share_state(dev, s);
}

static int make(struct machine *m, struct share *share, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {
        .free = free_share, .name = "virtio-share", .state = record};
    const struct virtio_share_host host = {.begin = on_begin,
                                           .submit = on_submit,
                                           .drop = on_drop,
                                           .reset = on_reset,
                                           .max = SHARE_MESSAGE,
                                           .arg = share};
    struct share_user user = {.done = on_done, .more = on_more};
    struct virtio_share *s = virtio_share_new(
        m->mem, m->clock,
        share_protocol(share) == SHARE_9P ? VIRTIO_SHARE_9P : VIRTIO_SHARE_FS,
        share_tag(share), &host, &m->counters);

    if (!s || machine_device_add(m, &ops, s)) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    user.arg = s;
    share_plug(share, &user);
    return machine_virtio_attach(m, virtio_share_device(s), why, why_size);
}

int machine_make_virtio_shares(struct machine *m, char *why, size_t why_size) {
    int rc = 0;

    for (unsigned n = 0; n < m->cfg.share_count && !rc; n++)
        rc = make(m, m->cfg.shares[n], why, why_size);
    return rc;
}

static void enter(void *arg) {
    machine_board_enter(arg);
}

static void leave(void *arg) {
    machine_board_leave(arg);
}

int machine_start_shares(struct machine *m) {
    const struct share_guard guard = {enter, leave, m};
    int rc = 0;

    for (unsigned n = 0; n < m->cfg.share_count && !rc; n++)
        rc = share_start(m->cfg.shares[n], m->loop, &guard);
    return rc;
}

void machine_stop_shares(struct machine *m) {
    for (unsigned n = 0; n < m->cfg.share_count; n++)
        share_stop(m->cfg.shares[n]);
}
