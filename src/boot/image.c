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
static int open_file(const char *path, const char *what, struct boot_file *f, char *why,
                     size_t why_size) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;

    f->path = path;
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = -errno;
        snprintf(why, why_size, "cannot read %s: %s", path, strerror(-rc));
    } else if (!S_ISREG(st.st_mode) || !st.st_size) {
        rc = -EINVAL;
        snprintf(why, why_size, "%s is %s; name a %s file", path,
                 S_ISREG(st.st_mode)   ? "empty"
                 : S_ISDIR(st.st_mode) ? "a directory"
                                       : "not a regular file",
                 what);
    } else if ((uint64_t)st.st_size > BOOT_FILE_MAX) {
        rc = -EINVAL;
        snprintf(why, why_size, "%s is larger than 4 GiB; name a %s file", path, what);
    }
    if (rc && fd >= 0)
        close(fd);
    if (rc)
        return rc;
    f->waits = true;
    f->fd = fd;
    f->left = (uint64_t)st.st_size;
    return 0;
}

/* What waits. */
static int fill(struct boot_file *f, char *why, size_t why_size) {
    int rc = 0;

    if (!f->waits)
        return 0;
    f->data = malloc(f->left);
    if (!f->data)
        rc = -ENOMEM;
    while (!rc && f->left) {
        ssize_t n = read(f->fd, f->data + f->size, f->left);

        if (n < 0 && errno != EINTR)
            rc = -errno;
        if (!n)
            break; /* it shrank meanwhile */
        if (n > 0) {
            f->size += (uint64_t)n;
            f->left -= (uint64_t)n;
        }
    }
    close(f->fd);
    f->waits = false;
    if (rc)
        snprintf(why, why_size, "cannot read %s: %s", f->path, strerror(-rc));
    return rc;
}

static int read_file(const char *path, const char *what, struct boot_file *f, char *why,
                     size_t why_size) {
    int rc = open_file(path, what, f, why, why_size);

    return rc ? rc : fill(f, why, why_size);
}

int boot_image_open_later(const char *kernel, const char *initrd, struct boot_image **out,
                          char *why, size_t why_size) {
    struct boot_image *image = calloc(1, sizeof(*image));
    int rc;

    if (!image) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    image->later = true;
    rc = open_file(kernel, "kernel or initrd", &image->kernel, why, why_size);
    if (!rc && initrd)
        rc = open_file(initrd, "kernel or initrd", &image->initrd, why, why_size);
    if (rc) {
        boot_image_close(image);
        return rc;
    }
    *out = image;
    return 0;
}

int boot_image_read(struct boot_image *image, char *why, size_t why_size) {
    int rc = fill(&image->kernel, why, why_size);

    if (!rc)
        rc = fill(&image->initrd, why, why_size);
    for (size_t n = 0; n < image->module_count && !rc; n++)
        rc = fill(&image->modules[n].file, why, why_size);
    return rc;
}

int boot_image_open(const char *kernel, const char *initrd, struct boot_image **out,
                    char *why, size_t why_size) {
    int rc = boot_image_open_later(kernel, initrd, out, why, why_size);

    if (rc)
        return rc;
    (*out)->later = false;
    rc = boot_image_read(*out, why, why_size);
    if (rc)
        boot_image_close(*out);
    return rc;
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
    if (f->waits)
        close(f->fd);
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
    return (image->later ? open_file : read_file)(path, "kernel or initrd", &all[n].file,
                                                  why, why_size);
}
