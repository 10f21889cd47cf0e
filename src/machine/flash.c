/*
 * The flash with the firmware's variables: where it is, and how what the guest writes
 * comes into the user's file.
 *
 * It lies just below the firmware's image. Its bytes go to the host in the order in which
 * the guest writes them: whatever ends this process, the file is what the guest saw. When
 * the guest has finished a change a worker makes it durable; the guest does not wait.
 */
#include "dev/fw/flash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "machine/machine_int.h"

struct vars {
    struct flash *flash;
    const struct machine_vars *cfg;
    bool busy, again; /* a flush is under way; there were changes since */
    struct block_request flush;
};

static void store(void *arg, uint32_t at, const uint8_t *bytes, uint32_t len) {
    const struct vars *v = arg;

    v->cfg->store(v->cfg->arg, at, bytes, len);
}

static void settle(void *arg);

static void settled(struct block_request *r, int rc) {
    struct vars *v = (struct vars *)((uint8_t *)r - offsetof(struct vars, flush));

    v->busy = false; /* block/ has told of what went wrong */
    if (v->again)
        settle(v);
}

static void settle(void *arg) {
    struct vars *v = arg;

    v->again = v->busy;
    if (v->busy)
        return;
    v->busy = true;
    v->flush = (struct block_request){.op = BLOCK_FLUSH, .done = settled};
    block_submit(v->cfg->block, &v->flush);
}

static void reset(void *dev) {
    struct vars *v = dev;

    flash_reset(v->flash);
}

static void free_vars(void *dev) {
    struct vars *v = dev;

    flash_free(v->flash);
    free(v);
}

static void record(void *dev, struct snapshot *s) {
    struct vars *v = dev;

    flash_state(v->flash, s);
}

int machine_flash_make(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {
        .reset = reset, .free = free_vars, .name = "flash", .state = record};
    const struct machine_vars *cfg = &m->cfg.vars;
    struct flash_host host = {0};
    struct vars *v;

    if (!cfg->bytes)
        return 0;
    snprintf(why, why_size, "out of memory");
    v = calloc(1, sizeof(*v));
    if (!v)
        return -ENOMEM;
    v->cfg = cfg;
    if (cfg->block)
        host = (struct flash_host){store, settle, v};
    v->flash = flash_new(m->bus,
                         gpa(MEM_HOLE_END - boot_firmware_size(m->cfg.image) - cfg->size),
                         cfg->bytes, cfg->size, &host);
    if (v->flash)
        return machine_device_add(m, &ops, v);
    free(v);
    return -ENOMEM;
}
