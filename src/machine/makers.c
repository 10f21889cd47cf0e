/* The table of optional devices; see devices.h. */
#include "machine/devices.h"
#include "machine/machine_int.h"
#include "machine/virtio.h"

/* Makes all devices of a kind that the configuration asks for: none, one or several. 0,
 * or -errno with one sentence in WHY. */
typedef int make_fn(struct machine *m, char *why, size_t why_size);

/* In this order: what others hang on comes first. */
static make_fn *const makers[] = {
    machine_flash_make,
    machine_ide_make,
    machine_make_virtio_disks,
    machine_nets_make,
    machine_make_virtio_console,
    machine_make_virtio_vsock,
    machine_make_virtio_shares,
    machine_make_virtio_balloon,
    machine_make_virtio_rng,
    machine_make_virtio_input,
    NULL,
};

int machine_devices_create(struct machine *m, char *why, size_t why_size) {
    int rc = 0;

    for (make_fn *const *make = makers; *make && !rc; make++)
        rc = (*make)(m, why, why_size);
    return rc;
}
