/*
 * Loaders: put a kernel, its initial RAM disk and its command line into guest memory and
 * set the vCPU to the state that the boot protocol promises.
 *
 * The files are read once (boot_image_open()), so that a reset can load them again.
 * They are untrusted: every offset and size in them is checked.
 */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include "base/types.h"
#include "cpu/vcpu.h"
#include "mem/mem.h"

enum boot_protocol {
    BOOT_AUTO, /* for a bzImage: the kernel in it, without its decompressor */
    BOOT_LINUX32,
    BOOT_LINUX64,
    BOOT_PVH,
    BOOT_MULTIBOOT,
    BOOT_LINUX16, /* through the 16-bit setup, with a few BIOS services */
};

struct boot_config {
    enum boot_protocol protocol;
    const char *cmdline; /* NULL: empty */
    struct gpa rsdp;     /* ACPI tables, as built by the machine; 0: none */
    uint64_t acpi_len;   /* bytes from the RSDP on that the guest must not use */
};

struct boot_image;

/*
 * Reads both files (INITRD may be NULL). 0, -EINVAL for a file that no machine could
 * boot, or the -errno of reading; WHY then holds one sentence. The caller closes *OUT.
 */
int boot_image_open(const char *kernel, const char *initrd, struct boot_image **out,
                    char *why, size_t why_size);
/* The same, but the files are only opened; they are read by boot_image_read(), once,
 * which may be in the jail. */
int boot_image_open_later(const char *kernel, const char *initrd, struct boot_image **out,
                          char *why, size_t why_size);
int boot_image_read(struct boot_image *image, char *why, size_t why_size);
void boot_image_close(struct boot_image *image);
/* The same of what is in memory already, under these names; INITRD may be NULL. All of it
 * stays the caller's and outlives *OUT. 0 or -ENOMEM. */
struct boot_bytes {
    const char *name;
    const uint8_t *data;
    uint64_t size;
};
int boot_image_of(const struct boot_bytes *kernel, const struct boot_bytes *initrd,
                  struct boot_image **out);
/* Reads one more file for the kernel, with the text that belongs to it (NULL: none). Any
 * number, in this order, after the initrd; for multiboot kernels only. PATH and ARGS stay
 * the caller's. 0, or as boot_image_open(). */
int boot_image_add_module(struct boot_image *image, const char *path, const char *args,
                          char *why, size_t why_size);

/* Reads firmware, which is started at the reset vector, in place of a kernel. As
 * boot_image_open(). */
int boot_image_open_firmware(const char *path, struct boot_image **out, char *why,
                             size_t why_size);
bool boot_image_is_firmware(const struct boot_image *image);
/* Its bytes; 0: it is none. */
uint64_t boot_firmware_size(const struct boot_image *image);
/* Puts it into M, once, before the first load. 0, or -errno with one sentence in WHY. */
int boot_firmware_install(const struct boot_image *image, struct mem *m, char *why,
                          size_t why_size);

/*
 * Loads into MEM, which is otherwise zero, and sets all of the vCPU. 0, or -EINVAL with
 * one sentence in WHY. The caller then flushes what it derived from memory and control
 * registers.
 */
int boot_image_load(const struct boot_image *image, struct vcpu *v, struct mem *m,
                    const struct boot_config *cfg, char *why, size_t why_size);

#endif
