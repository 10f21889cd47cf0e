/*
 * Firmware by name: the first file that is there of those where Debian and others keep
 * it; and its variables. See firmware.h.
 *
 * A file of variables comes into being complete: a copy of the template is written beside
 * it and then given its name, unless that is taken. It is opened twice: by block/, which
 * locks it and makes it durable, and for writing.
 */
#include "ctl/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "block/block.h"
#include "ctl/whole_file.h"

#define FILES 5
#define VARS_MAX (1u << 20)
#define PAGE 4096u

static const struct {
    const char *name, *what, *package;
    const char *files[FILES];
} known[] = {
    {"bios",
     "SeaBIOS",
     "seabios",
     {"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
      "/usr/share/kvm/bios-256k.bin"}},
    {"uefi",
     "OVMF",
     "ovmf",
     {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd",
      "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd",
      "/usr/share/qemu/edk2-x86_64-code.fd"}},
};

const char *firmware_find(const char *name, char *why, size_t why_size) {
    for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
        if (strcmp(name, known[k].name))
            continue;
        for (size_t i = 0; i < FILES && known[k].files[i]; i++)
            if (!access(known[k].files[i], R_OK))
                return known[k].files[i];
        snprintf(
            why, why_size,
            "--firmware %s: %s is not installed (no %s); install it (Debian's package "
            "is called %s), or name a file",
            name, known[k].what, known[k].files[0], known[k].package);
        return NULL;
    }
    return name;
}

/* --- variables --- */

/* Where the template is: as the code, with VARS in its name. False: it has no such name.
 */
static bool template_of(const char *code, char *out, size_t size) {
    const char *name = strrchr(code, '/');
    char *at;

    snprintf(out, size, "%s", code);
    at = strstr(out + (name ? name - code : 0), "CODE");
    if (at)
        memcpy(at, "VARS", 4);
    return at && strlen(code) < size;
}

uint8_t *firmware_vga_bios(uint32_t *size) {
    static const char *const files[] = {"/usr/share/seabios/vgabios-stdvga.bin",
                                        "/usr/share/qemu/vgabios-stdvga.bin",
                                        "/usr/share/kvm/vgabios-stdvga.bin"};
    uint8_t *bytes = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(files) && !bytes; i++)
        whole_file_read(files[i], VARS_MAX, &bytes, size);
    return bytes;
}

uint8_t *firmware_net_rom(enum machine_net_model model, uint32_t *size, char *why,
                          size_t why_size) {
    /* With a driver for UEFI in it, or for a BIOS alone. */
    static const char *const directories[] = {
        "/usr/lib/ipxe/qemu/efi-", "/usr/share/qemu/efi-", "/usr/lib/ipxe/qemu/pxe-",
        "/usr/share/qemu/pxe-"};
    const char *name = model == MACHINE_NET_E1000 ? "e1000" : "virtio";
    uint8_t *bytes = NULL;
    char path[64];

    for (size_t i = 0; i < ARRAY_SIZE(directories) && !bytes; i++) {
        snprintf(path, sizeof(path), "%s%s.rom", directories[i], name);
        whole_file_read(path, VARS_MAX, &bytes, size);
    }
    if (!bytes)
        snprintf(why, why_size,
                 "boot: iPXE's ROM for the card is not installed (no %s%s.rom); install "
                 "it (Debian's package is called ipxe-qemu)",
                 directories[0], name);
    return bytes;
}

/* FILE becomes a copy, unless it is there. */
static int make_file(const char *file, const uint8_t *bytes, uint32_t size) {
    char temp[PATH_MAX];
    int fd, rc;

    if ((size_t)snprintf(temp, sizeof(temp), "%s.XXXXXX", file) >= sizeof(temp))
        return -ENAMETOOLONG;
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    rc = os_write_at(fd, bytes, size, 0);
    if (!rc && fsync(fd))
        rc = -errno;
    if (!rc && (fchmod(fd, 0644) || link(temp, file)) && errno != EEXIST)
        rc = -errno;
    close(fd);
    unlink(temp);
    return rc;
}

static int load(const char *path, struct machine_vars *v, char *why, size_t why_size) {
    uint8_t *bytes;
    int rc = whole_file_read(path, VARS_MAX, &bytes, &v->size);

    v->bytes = bytes;
    if (!rc && (!v->size || v->size % PAGE))
        rc = -EINVAL;
    if (rc == -EINVAL || rc == -EFBIG)
        snprintf(why, why_size,
                 "'%s' is no file of firmware variables: that has whole pages of 4 KiB "
                 "and at most %u KiB",
                 path, VARS_MAX >> 10);
    else if (rc)
        snprintf(why, why_size, "cannot read the firmware's variables from '%s': %s",
                 path, strerror(-rc));
    return rc;
}

/* The file that is open for writing. */
struct vars_file {
    int fd;
    const char *path;
    bool failed;
};

/* No room in the file's system, or worse: told once; the guest cannot be told. */
static void store(void *arg, uint32_t at, const uint8_t *bytes, uint32_t len) {
    struct vars_file *f = arg;
    const struct iovec iov = {(void *)(uintptr_t)bytes, len};
    ssize_t n;

    do
        n = pwritev(f->fd, &iov, 1, at);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)len || f->failed)
        return;
    f->failed = true;
    log_error("cannot write the firmware's variables to '%s': %s", f->path,
              n < 0 ? strerror(errno) : "there is no room");
}

static int open_file(const char *file, struct machine_vars *v, char *why,
                     size_t why_size) {
    const struct block_spec spec = {.path = file, .format = BLOCK_RAW};
    int rc = block_open(&spec, &v->block, why, why_size);
    struct vars_file *f;

    if (rc)
        return rc;
    f = malloc(sizeof(*f));
    if (!f) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    *f = (struct vars_file){open(file, O_WRONLY | O_CLOEXEC), file, false};
    v->store = store;
    v->arg = f;
    if (f->fd >= 0)
        return load(file, v, why, why_size);
    rc = -errno;
    snprintf(why, why_size, "cannot write to '%s': %s", file, strerror(-rc));
    return rc;
}

static int open_kept(const char *template, const char *file, struct machine_vars *v,
                     char *why, size_t why_size) {
    struct machine_vars fresh = {0};
    int rc = 0;

    if (access(file, F_OK) && errno == ENOENT) {
        if (!template) {
            snprintf(
                why, why_size,
                "'%s' does not exist, and the firmware has no template for it beside "
                "it; copy one there",
                file);
            return -ENOENT;
        }
        rc = load(template, &fresh, why, why_size);
        if (!rc && (rc = make_file(file, fresh.bytes, fresh.size)))
            snprintf(why, why_size, "cannot make '%s' for the firmware's variables: %s",
                     file, strerror(-rc));
        free((uint8_t *)(uintptr_t)fresh.bytes);
        if (rc)
            return rc;
    }
    return open_file(file, v, why, why_size);
}

/* A chip that is not of the template's size is not where the firmware looks for it. */
static int check_size(const char *template, const char *file,
                      const struct machine_vars *v, char *why, size_t why_size) {
    struct stat st;

    if (!template || stat(template, &st) || st.st_size == v->size)
        return 0;
    snprintf(why, why_size,
             "'%s' has %u bytes, and the variables of this firmware have %lld: it is "
             "another firmware's",
             file, v->size, (long long)st.st_size);
    return -EINVAL;
}

int firmware_vars_open(const char *name, const char *file, struct machine_vars *out,
                       char *why, size_t why_size) {
    const char *code = firmware_find(name, why, why_size), *template;
    char path[PATH_MAX];
    int rc;

    *out = (struct machine_vars){0};
    if (!code)
        return -EINVAL;
    template = template_of(code, path, sizeof(path)) && !access(path, R_OK) ? path : NULL;
    if (!file)
        return template ? load(template, out, why, why_size) : 0;
    rc = open_kept(template, file, out, why, why_size);
    if (!rc)
        rc = check_size(template, file, out, why, why_size);
    if (rc)
        firmware_vars_close(out);
    return rc;
}

static bool close_file(struct vars_file *f) {
    bool good = f->fd < 0 || !fdatasync(f->fd);

    if (!good)
        log_error("cannot write the firmware's variables to '%s': %s", f->path,
                  strerror(errno));
    good &= !f->failed;
    if (f->fd >= 0)
        close(f->fd);
    free(f);
    return good;
}

bool firmware_vars_close(struct machine_vars *v) {
    bool good = !v->arg || close_file(v->arg);

    if (v->block)
        good &= !block_close(v->block);
    free((uint8_t *)(uintptr_t)v->bytes);
    *v = (struct machine_vars){0};
    return good;
}
