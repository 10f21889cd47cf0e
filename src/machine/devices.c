/* The list of the optional devices that there are; see devices.h. */
#include "machine/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "machine/machine_int.h"

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

void machine_devices_free(struct machine *m) {
    while (m->last_device) {
        struct machine_device *d = m->last_device;

        m->last_device = d->before;
        d->ops->free(d->dev);
        free(d);
    }
    m->first_device = NULL;
}
