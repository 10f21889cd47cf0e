/*
 * Firmware in place of a kernel: its image ends at 4 GiB, where the CPU begins (AMD64
 * Architecture Programmer's Manual, volume 2, "Initial Processor State"), and its last
 * 128 KiB are seen below 1 MiB too.
 *
 * Both are ROM, put there once: no guest can change them, so that a reset finds them as
 * they were. The one below 1 MiB is a region of its own behind the board's RAM, which is
 * hidden there at each boot. The chip set brings it to light where the firmware asks for
 * that (the host bridge's PAM registers).
 */
#include "boot/boot_int.h"

#include <errno.h>
#include <stdio.h>

#define LOW_END 0x100000u
#define LOW_MAX 0x20000u
#define PAGE 4096u

static uint64_t low_size(const struct boot_file *f) {
    return f->size < LOW_MAX ? f->size : LOW_MAX;
}

static int check_size(const struct boot_file *f, char *why, size_t why_size) {
    if (f->size && f->size % PAGE == 0 && f->size <= MEM_ROM_MAX)
        return 0;
    snprintf(why, why_size,
             "%s has %llu bytes: a firmware image has whole pages of 4 KiB, and at most "
             "%llu MiB",
             f->path, (unsigned long long)f->size, MEM_ROM_MAX >> 20);
    return -EINVAL;
}

bool boot_image_is_firmware(const struct boot_image *image) {
    return image->firmware.path;
}

uint64_t boot_firmware_size(const struct boot_image *image) {
    return image->firmware.size;
}

int boot_firmware_install(const struct boot_image *image, struct mem *m, char *why,
                          size_t why_size) {
    const struct boot_file *f = &image->firmware;
    uint64_t low = low_size(f);
    struct mem_region *r;
    int rc = check_size(f, why, why_size);

    if (rc)
        return rc;
    rc = mem_rom_resize(m, f->size);
    if (!rc)
        rc = mem_region_add(m, gpa(LOW_END - low), low, MEM_ROM, &r);
    if (rc) {
        snprintf(why, why_size, "cannot place the firmware %s: %s", f->path,
                 strerror(-rc));
        return rc;
    }
    mem_program(m, gpa(MEM_HOLE_END - f->size), f->data, f->size);
    mem_copy(mem_region_host(m, r), f->data + f->size - low, low);
    return 0;
}

int boot_firmware(const struct boot_job *j) {
    uint64_t low = low_size(&j->image->firmware);

    mem_set_kind(j->m, gpa(LOW_END - low), low, MEM_NONE);
    return 0;
}
