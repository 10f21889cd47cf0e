/*
 * What a disk is made of. Nothing is found out from what is in a file that a guest could
 * have written: a file is a qcow2 image if the user says so or it is so named, else it is
 * raw.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/block_int.h"

static bool named(const char *path, const char *suffix) {
    size_t len = strlen(path), tail = strlen(suffix);

    return len > tail && !strcmp(path + len - tail, suffix);
}

int disk_open(const struct block_spec *spec, struct image **out, char *why,
              size_t why_size) {
    const struct file_spec file = {
        .path = spec->path, .readonly = spec->readonly, .lock = true};
    bool qcow2 = spec->format == BLOCK_QCOW2 ||
                 (spec->format == BLOCK_BY_NAME && named(spec->path, ".qcow2"));

    if (qcow2 || spec->overlay) {
        snprintf(why, why_size, "'%s': qcow2 images and overlays are not built in",
                 spec->path);
        return -ENOTSUP;
    }
    return file_open(&file, out, why, why_size);
}
