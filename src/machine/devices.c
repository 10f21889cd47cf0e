/* The table of optional devices, and the list of those that there are; see devices.h. */
#include "machine/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "machine/ide.h"
#include "machine/machine_int.h"

struct machine_device {
    const struct machine_device_ops *ops;
    void *dev;
    struct machine_device *before, *after;
};

/* Makes all devices of a kind that the configuration asks for: none, one or several. 0,
 * or -errno with one sentence in WHY. */
typedef int make_fn(struct machine *m, char *why, size_t why_size);

static void quiet_ide(void *dev) {
    ide_reset(dev);
}

static void reset_ide(void *dev) {
    ide_reset(dev);
}

static void free_ide(void *dev) {
    ide_free(dev);
}

static int make_ide(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {quiet_ide, reset_ide, free_ide};
    struct ide *i;
    int rc = machine_ide_create(m, &i, why, why_size);

    return rc || !i ? rc : machine_device_add(m, &ops, i);
}

/* In this order: what others hang on comes first. */
static make_fn *const makers[] = {
    make_ide,
    NULL,
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

int machine_devices_create(struct machine *m, char *why, size_t why_size) {
    int rc = 0;

    for (make_fn *const *make = makers; *make && !rc; make++)
        rc = (*make)(m, why, why_size);
    return rc;
}

void machine_devices_quiet(struct machine *m) {
    for (struct machine_device *d = m->first_device; d; d = d->after)
        if (d->ops->quiet)
            d->ops->quiet(d->dev);
}

void machine_devices_reset(struct machine *m) {
    for (struct machine_device *d = m->first_device; d; d = d->after)
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
