/* The list of the optional devices that there are; see devices.h. */
#include "machine/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/machine_int.h"
#include "snapshot/snapshot.h"

struct machine_device {
    const struct machine_device_ops *ops;
    void *dev;
    struct machine_device *before, *after;
};

int machine_device_add(struct machine *m, const struct machine_device_ops *ops,
                       void *dev) {
    struct machine_device *d = malloc(sizeof(*d));

    if (!d) {
        ops->free(dev);
        return -ENOMEM;
    }
    *d = (struct machine_device){.ops = ops, .dev = dev, .before = m->last_device};
    if (m->last_device)
        m->last_device->after = d;
    else
        m->first_device = d;
    m->last_device = d;
    return 0;
}

void machine_devices_quiet(struct machine *m) {
    for (struct machine_device *d = m->first_device; d; d = d->after)
        if (d->ops->quiet)
            d->ops->quiet(d->dev);
}

void machine_devices_reset(struct machine *m) {
    for (struct machine_device *d = m->first_device; d; d = d->after)
        if (d->ops->reset)
            d->ops->reset(d->dev);
}

/* How many of D's kind come before it. */
static unsigned instance(const struct machine_device *d) {
    unsigned n = 0;

    for (const struct machine_device *e = d->before; e; e = e->before)
        n += e->ops->name && !strcmp(e->ops->name, d->ops->name);
    return n;
}

static void records(struct machine *m, struct snapshot *s, bool transports) {
    for (struct machine_device *d = m->first_device; d; d = d->after)
        if (!d->ops->state)
            snapshot_refuse(s, "the machine has a device that a snapshot cannot hold");
        else if (d->ops->transport == transports)
            snapshot_record(s, d->ops->name, instance(d), 1, d->ops->state, d->dev);
}

void machine_devices_records(struct machine *m, struct snapshot *s) {
    records(m, s, true);
    records(m, s, false);
}

void machine_devices_go_on(struct machine *m) {
    for (struct machine_device *d = m->first_device; d; d = d->after)
        if (d->ops->go_on)
            d->ops->go_on(d->dev);
}

void machine_devices_free(struct machine *m) {
    while (m->last_device) {
        struct machine_device *d = m->last_device;

        m->last_device = d->before;
        d->ops->free(d->dev);
        free(d);
    }
    m->first_device = NULL;
}
