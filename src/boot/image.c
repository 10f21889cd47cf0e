/* The files of a boot: read once, kept for every reset; see boot.h. */
#include "boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/boot_int.h"

/* WHAT the user is to name. */
static int read_file(const char *path, const char *what, struct boot_file *f, char *why,
                     size_t why_size) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = 0;

    f->path = path;
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = -errno;
        goto out;
    }
    if (!S_ISREG(st.st_mode) || !st.st_size) {
        snprintf(why, why_size, "%s is %s; name a %s file", path,
                 S_ISREG(st.st_mode)   ? "empty"
                 : S_ISDIR(st.st_mode) ? "a directory"
                                       : "not a regular file",
                 what);
        close(fd);
        return -EINVAL;
    }
    if ((uint64_t)st.st_size > BOOT_FILE_MAX) {
        snprintf(why, why_size, "%s is larger than 4 GiB; name a %s file", path, what);
        close(fd);
        return -EINVAL;
    }
    f->data = malloc((size_t)st.st_size);
    if (!f->data)
        rc = -ENOMEM;
    while (!rc && f->size < (uint64_t)st.st_size) {
        ssize_t n = read(fd, f->data + f->size, (size_t)st.st_size - f->size);

        if (n < 0 && errno != EINTR)
            rc = -errno;
        if (!n)
            break; /* it shrank meanwhile */
        if (n > 0)
            f->size += (uint64_t)n;
    }
out:
    if (fd >= 0)
        close(fd);
    if (rc)
        snprintf(why, why_size, "cannot read %s: %s", path, strerror(-rc));
    return rc;
}

int boot_image_open(const char *kernel, const char *initrd, struct boot_image **out,
                    char *why, size_t why_size) {
    struct boot_image *image = calloc(1, sizeof(*image));
    int rc;

    if (!image) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    rc = read_file(kernel, "kernel or initrd", &image->kernel, why, why_size);
    if (!rc && initrd)
        rc = read_file(initrd, "kernel or initrd", &image->initrd, why, why_size);
    if (rc) {
        boot_image_close(image);
        return rc;
    }
    *out = image;
    return 0;
}

static void borrow(struct boot_file *f, const struct boot_bytes *b) {
    *f = (struct boot_file){.path = b->name,
                            .data = (uint8_t *)(uintptr_t)b->data,
                            .size = b->size,
                            .borrowed = true};
}

int boot_image_of(const struct boot_bytes *kernel, const struct boot_bytes *initrd,
                  struct boot_image **out) {
    struct boot_image *image = calloc(1, sizeof(*image));

    if (!image)
        return -ENOMEM;
    borrow(&image->kernel, kernel);
    if (initrd)
        borrow(&image->initrd, initrd);
    *out = image;
    return 0;
}

int boot_image_open_firmware(const char *path, struct boot_image **out, char *why,
                             size_t why_size) {
    struct boot_image *image = calloc(1, sizeof(*image));
    int rc;

    if (!image) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    rc = read_file(path, "firmware", &image->firmware, why, why_size);
    if (rc) {
        boot_image_close(image);
        return rc;
    }
    *out = image;
    return 0;
}

static void drop(struct boot_file *f) {
    if (!f->borrowed)
        free(f->data);
}

void boot_image_close(struct boot_image *image) {
    if (!image)
        return;
    drop(&image->kernel);
    drop(&image->initrd);
    drop(&image->firmware);
    for (size_t i = 0; i < image->module_count; i++)
        free(image->modules[i].file.data);
    free(image->modules);
    free(image);
}

int boot_image_add_module(struct boot_image *image, const char *path, const char *args,
                          char *why, size_t why_size) {
    size_t n = image->module_count;
    struct boot_module *all = realloc(image->modules, (n + 1) * sizeof(*all));

    if (!all) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    image->modules = all;
    image->module_count = n + 1;
    all[n] = (struct boot_module){.args = args};
    return read_file(path, "kernel or initrd", &all[n].file, why, why_size);
}
