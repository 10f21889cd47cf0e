/*
 * The header of a Linux kernel: "The Linux/x86 Boot Protocol" (Documentation/arch/x86/
 * boot.rst), versions 2.00 to 2.15, and the kernels before it. docs/boot.md has a table
 * of what each version brought and what is done with it. No field is read that the
 * version does not have.
 */
#include <errno.h>
#include <stdlib.h>

#include "boot/linux_int.h"

bool boot_linux_probe(const struct boot_file *f) {
    return f->size >= VERSION && boot_get(f->data, BOOT_FLAG, 2) == 0xaa55 &&
           boot_get(f->data, MAGIC, 4) == 0x53726448;
}

/*
 * Before 2.02 the protected-mode code looks for its parameters where the setup leaves
 * them, at 0x90000; a zImage is moved by its setup; and a kernel without an address to
 * jump to (iPXE's) is started by its setup alone.
 */
bool linux_needs_setup(const struct boot_file *f) {
    return f->size >= CODE32_START + 4 &&
           (boot_get(f->data, VERSION, 2) < 0x202 ||
            !(f->data[LOADFLAGS] & LOADED_HIGH) || !boot_get(f->data, CODE32_START, 4));
}

/* The 16-bit entry reads no header beyond what its version has. */
static int check_whole(const struct boot_job *j, const struct linux_header *h,
                       bool is16) {
    const struct boot_file *f = &j->image->kernel;
    uint64_t need = is16 ? BOOT_FLAG + 2 : HEADER_END;

    if (is16 && h->version)
        need = h->version < 0x204   ? ALIGNMENT
               : h->version < 0x20a ? PREF_ADDRESS
                                    : INIT_SIZE + 4;
    if (f->size < need)
        return boot_refuse(j, "%s is truncated: it ends within its header", f->path);
    return 0;
}

static int check_size(const struct boot_job *j, struct linux_header *h) {
    const struct boot_file *f = &j->image->kernel;
    const uint8_t *k = f->data;
    uint64_t want = 1;

    h->setup = (uint64_t)((k[SETUP_SECTS] ? k[SETUP_SECTS] : 4) + 1) * 512;
    h->len = f->size > h->setup ? f->size - h->setup : 0;
    /* In units of 16 bytes, rounded up; memtest86+ does not pad its file to it. */
    if (h->version >= 0x204 && boot_get(k, SYSSIZE, 4) * 16 > want + 15)
        want = boot_get(k, SYSSIZE, 4) * 16 - 15;
    if (h->version >= 0x208 &&
        boot_get(k, PAYLOAD_OFFSET, 4) + boot_get(k, PAYLOAD_LENGTH, 4) > want)
        want = boot_get(k, PAYLOAD_OFFSET, 4) + boot_get(k, PAYLOAD_LENGTH, 4);
    if (h->is64 && want < 0x201)
        want = 0x201; /* the 64-bit entry */
    if (h->len < want)
        return boot_refuse(j,
                           "%s is truncated: its header announces %llu bytes or more and "
                           "the file has %llu",
                           f->path, (unsigned long long)(h->setup + want),
                           (unsigned long long)f->size);
    return 0;
}

/* The 32-bit and 64-bit entries. */
static int check_entry(const struct boot_job *j, struct linux_header *h) {
    const struct boot_file *f = &j->image->kernel;
    bool can64 = h->xload & XLF_KERNEL_64;

    if (h->version < 0x202)
        return boot_refuse(j,
                           "%s is a Linux kernel of boot protocol %u.%02u, which has no "
                           "32-bit entry (2.02, Linux 2.4, has); use --boot-protocol "
                           "linux16",
                           f->path, h->version >> 8, h->version & 0xff);
    if (!h->high)
        return boot_refuse(j,
                           "%s is a zImage, which its 16-bit setup starts; use "
                           "--boot-protocol linux16",
                           f->path);
    h->is64 =
        j->cfg->protocol == BOOT_LINUX64 || (j->cfg->protocol == BOOT_AUTO && can64);
    if (h->is64 && !can64)
        return boot_refuse(j, "%s has no 64-bit entry point; use --boot-protocol linux32",
                           f->path);
    return 0;
}

int linux_parse(const struct boot_job *j, bool is16, struct linux_header *h) {
    const struct boot_file *f = &j->image->kernel;
    const uint8_t *k = f->data;
    int rc;

    *h = (struct linux_header){0};
    if (boot_linux_probe(f) && f->size >= VERSION + 2)
        h->version = (unsigned)boot_get(k, VERSION, 2);
    rc = check_whole(j, h, is16);
    if (rc)
        return rc;
    h->high = h->version >= 0x200 && (k[LOADFLAGS] & LOADED_HIGH);
    if (h->version >= 0x20c)
        h->xload = (unsigned)boot_get(k, XLOADFLAGS, 2);
    rc = is16 ? 0 : check_entry(j, h);
    if (rc)
        return rc;
    if (h->version >= 0x205) {
        h->relocatable = k[RELOCATABLE];
        h->alignment = boot_get(k, ALIGNMENT, 4);
    }
    if (h->version >= 0x20a) {
        h->pref = boot_get(k, PREF_ADDRESS, 8);
        h->init_size = boot_get(k, INIT_SIZE, 4);
    }
    if (!is16 && h->relocatable && (!h->alignment || (h->alignment & (h->alignment - 1))))
        return boot_refuse(j,
                           "%s has a corrupt header: its alignment 0x%llx is no power of "
                           "two",
                           f->path, (unsigned long long)h->alignment);
    return check_size(j, h);
}

static bool try_fixed(const struct boot_job *j, const struct linux_header *h,
                      struct linux_place *p) {
    *p = (struct linux_place){BOOT_HIGH, BOOT_HIGH + h->len, h->alignment};
    if (!boot_ram_holds(j, p->load, h->len))
        return false;
    if (h->version < 0x20a)
        return true;
    if (!boot_ram_holds(j, h->pref, h->init_size))
        return false;
    if (h->pref + h->init_size > p->top)
        p->top = h->pref + h->init_size;
    return true;
}

int linux_place_fixed(const struct boot_job *j, const struct linux_header *h,
                      struct linux_place *p) {
    if (try_fixed(j, h, p))
        return 0;
    return boot_refuse(j,
                       "kernel %s is not relocatable and needs %llu KiB of RAM at "
                       "0x%llx; give --memory more",
                       j->image->kernel.path,
                       (unsigned long long)(h->init_size ? h->init_size : h->len) >> 10,
                       (unsigned long long)(h->pref ? h->pref : BOOT_HIGH));
}

/* --- the command line, as far as it speaks to loaders too --- */

uint64_t linux_cmdline_limit(const struct boot_job *j, const struct linux_header *h) {
    uint64_t size;

    if (h->version < 0x206)
        return 255;
    size = boot_get(j->image->kernel.data, CMDLINE_SIZE, 4);
    return size < 0xffff ? size : 0xffff;
}

/* The text after the last NAME (with its `=`) that begins a word, or NULL. */
static const char *last_option(const char *cmdline, const char *name) {
    const char *found = NULL, *at = cmdline;
    size_t len = strlen(name);

    while ((at = strstr(at, name))) {
        if (at == cmdline || at[-1] == ' ')
            found = at + len;
        at += len;
    }
    return found;
}

unsigned linux_video_mode(const char *cmdline) {
    static const struct {
        const char *name;
        unsigned mode;
    } known[] = {{"normal", 0xffff}, {"ext", 0xfffe}, {"ask", 0xfffd}};
    const char *text = last_option(cmdline, "vga=");
    char *end;
    unsigned long mode;

    if (!text)
        return 0xffff;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (!strncmp(text, known[i].name, strlen(known[i].name)))
            return known[i].mode;
    }
    mode = strtoul(text, &end, 0);
    return end != text && mode <= 0xffff ? (unsigned)mode : 0xffff;
}

/* Where the kernel will find its memory to end: `mem=` keeps the initrd below it. */
static uint64_t memory_end(const char *cmdline) {
    static const char units[] = "kmgtpe";
    const char *text = last_option(cmdline, "mem="), *unit;
    uint64_t size;
    char *end;

    if (!text || *text < '0' || *text > '9')
        return UINT64_MAX;
    errno = 0;
    size = strtoull(text, &end, 0);
    unit = *end ? strchr(units, *end | 0x20) : NULL;
    for (const char *u = units; unit && u <= unit; u++) {
        if (size >> 54)
            return UINT64_MAX;
        size <<= 10;
    }
    return errno || !size ? UINT64_MAX : size;
}

/* --- initrd --- */

int linux_put_ramdisk(const struct boot_job *j, const struct linux_header *h,
                      uint64_t floor, uint8_t *header) {
    const uint8_t *k = j->image->kernel.data;
    uint64_t ceiling = h->version >= 0x203 ? boot_get(k, INITRD_MAX, 4) : 0x37ffffff;
    uint64_t end = memory_end(j->cmdline), size = j->image->initrd.size, at = 0;
    int rc;

    if (!j->image->initrd.path)
        return 0;
    if (!h->version)
        return boot_refuse(j,
                           "%s is a Linux kernel older than boot protocol 2.00, which "
                           "takes no initrd",
                           j->image->kernel.path);
    ceiling += 1;
    rc = boot_put_initrd(j, floor, ceiling < end ? ceiling : end, &at);
    if (rc && h->is64 && (h->xload & XLF_ABOVE_4G))
        rc = boot_put_initrd(j, floor > MEM_HOLE_END ? floor : MEM_HOLE_END, end, &at);
    if (rc)
        return rc;
    boot_set(header, RAMDISK_IMAGE, 4, at);
    boot_set(header, RAMDISK_SIZE, 4, size);
    if (h->is64) {
        boot_set(header, EXT_RAMDISK_IMAGE, 4, at >> 32);
        boot_set(header, EXT_RAMDISK_SIZE, 4, size >> 32);
    }
    return 0;
}
