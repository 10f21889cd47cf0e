/*
 * The generation ID; see vmgenid.h. It is on the bus, and not in RAM, so that whoever has
 * the machine needs not know where firmware has put tables: the specification lets it be
 * in RAM, ROM or device memory. Nobody reads it but when the guest begins, and when it is
 * told of a change.
 */
#include "dev/pc/vmgenid.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

struct vmgenid {
    uint64_t id[2];
};

static uint64_t id_read(void *dev, uint64_t addr, unsigned size) {
    const struct vmgenid *g = dev;
    uint64_t value = 0;

    for (unsigned n = 0; n < size && addr + n < VMGENID_SIZE; n++)
        value |= (g->id[(addr + n) / 8] >> (addr + n) % 8 * 8 & 0xff) << 8 * n;
    return value;
}

static void id_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    /* It is not the guest's to say. */
}

static const struct bus_ops ops = {.read = id_read, .write = id_write, .general = true};

void vmgenid_set(struct vmgenid *g, const uint64_t id[2]) {
    g->id[0] = id[0];
    g->id[1] = id[1];
}

void vmgenid_state(struct vmgenid *g, struct snapshot *s) {
    SNAPSHOT(s, g->id[0]);
    SNAPSHOT(s, g->id[1]);
}

struct vmgenid *vmgenid_new(struct bus *bus) {
    struct vmgenid *g = calloc(1, sizeof(*g));

    if (g && !bus_attach_mmio(bus, gpa(VMGENID_BASE), VMGENID_SIZE, &ops, g,
                              "generation ID")) {
        free(g);
        return NULL;
    }
    return g;
}

void vmgenid_free(struct vmgenid *g) {
    free(g);
}
