/*
 * Linux bzImage: "The Linux/x86 Boot Protocol" (Documentation/arch/x86/boot.rst), 2.00
 * and later, entered in 32-bit or 64-bit mode. The real-mode part of the kernel never
 * runs.
 */
#include "boot/boot_int.h"

/* Offsets in the first sectors, which are also offsets in the zero page. */
enum {
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    VID_MODE = 0x1fa,
    BOOT_FLAG = 0x1fe,
    JUMP = 0x200,
    MAGIC = 0x202,
    VERSION = 0x206,
    LOADER = 0x210,
    LOADFLAGS = 0x211,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END = 0x224,
    CMD_LINE_PTR = 0x228,
    INITRD_MAX = 0x22c,
    ALIGNMENT = 0x230,
    RELOCATABLE = 0x234,
    MIN_ALIGNMENT = 0x235,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24c,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END = 0x290,
    ACPI_RSDP = 0x070,
    EXT_RAMDISK_IMAGE = 0x0c0,
    EXT_RAMDISK_SIZE = 0x0c4,
    E820_ENTRIES = 0x1e8,
    E820_TABLE = 0x2d0,
};

bool boot_linux_probe(const struct boot_file *f) {
    return f->size >= VERSION && boot_get(f->data, BOOT_FLAG, 2) == 0xaa55 &&
           boot_get(f->data, MAGIC, 4) == 0x53726448;
}

/* Bits of XLOADFLAGS. */
#define XLF_KERNEL_64 1u
#define XLF_ABOVE_4G 2u

/* What the header says, checked. */
struct header {
    unsigned version, xload;
    uint64_t setup, len; /* real-mode part and the rest of the file, in bytes */
    uint64_t pref, init_size, alignment;
    bool relocatable, is64;
};

/* Where the kernel goes and what it needs until it has read its memory map. */
struct place {
    uint64_t load, top, alignment;
};

/* The zero page: the header of the file, then what the loader fills in. */
static void fill_params(const struct boot_job *j, const struct place *place,
                        uint8_t *zp) {
    const uint8_t *k = j->image->kernel.data;
    unsigned end = MAGIC + k[JUMP + 1];
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    if (end > HEADER_END)
        end = HEADER_END;
    if (end > SETUP_SECTS)
        memcpy(zp + SETUP_SECTS, k + SETUP_SECTS, end - SETUP_SECTS);
    boot_set(zp, LOADER, 1, 0xff);
    boot_set(zp, LOADFLAGS, 1, k[LOADFLAGS] | 0x80);
    boot_set(zp, HEAP_END, 2, 0xfe00);
    boot_set(zp, VID_MODE, 2, 0xffff);
    boot_set(zp, CMD_LINE_PTR, 4, BOOT_CMDLINE);
    boot_set(zp, CODE32_START, 4, place->load);
    boot_set(zp, ALIGNMENT, 4, place->alignment);
    /* struct screen_info: text mode 3, 80 by 25, VGA. */
    zp[0x06] = 3, zp[0x07] = 80, zp[0x0e] = 25, zp[0x0f] = 1, zp[0x10] = 16;
    boot_set(zp, ACPI_RSDP, 8, j->cfg->rsdp.a);
    zp[E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        boot_set(zp, E820_TABLE + i * 20, 8, map[i].start);
        boot_set(zp, E820_TABLE + i * 20 + 8, 8, map[i].size);
        boot_set(zp, E820_TABLE + i * 20 + 16, 4, map[i].type);
    }
}

static int check_size(const struct boot_job *j, struct header *h) {
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

static int check_header(const struct boot_job *j, struct header *h) {
    const struct boot_file *f = &j->image->kernel;
    const uint8_t *k = f->data;
    bool can64;

    *h = (struct header){0};
    if (f->size < HEADER_END)
        return boot_refuse(j, "%s is truncated: it ends within its header", f->path);
    h->version = (unsigned)boot_get(k, VERSION, 2);
    if (h->version < 0x202)
        return boot_refuse(j,
                           "%s is a Linux kernel of boot protocol %u.%02u; 2.02 or later "
                           "(Linux 2.4) is needed",
                           f->path, h->version >> 8, h->version & 0xff);
    if (!(k[LOADFLAGS] & 1))
        return boot_refuse(j,
                           "%s is a zImage, which is loaded below 1 MiB; a bzImage is "
                           "needed",
                           f->path);
    if (h->version >= 0x20c)
        h->xload = (unsigned)boot_get(k, XLOADFLAGS, 2);
    can64 = h->xload & XLF_KERNEL_64;
    h->is64 =
        j->cfg->protocol == BOOT_LINUX64 || (j->cfg->protocol == BOOT_AUTO && can64);
    if (h->is64 && !can64)
        return boot_refuse(j, "%s has no 64-bit entry point; use --boot-protocol linux32",
                           f->path);
    if (h->version >= 0x205) {
        h->relocatable = k[RELOCATABLE];
        h->alignment = boot_get(k, ALIGNMENT, 4);
    }
    if (h->version >= 0x20a) {
        h->pref = boot_get(k, PREF_ADDRESS, 8);
        h->init_size = boot_get(k, INIT_SIZE, 4);
    }
    if (h->relocatable && (!h->alignment || (h->alignment & (h->alignment - 1))))
        return boot_refuse(j,
                           "%s has a corrupt header: its alignment 0x%llx is no power of "
                           "two",
                           f->path, (unsigned long long)h->alignment);
    return check_size(j, h);
}

/* The lowest multiple of ALIGNMENT from FLOOR on where SPAN bytes fit. */
static bool lowest(const struct boot_job *j, uint64_t floor, uint64_t span,
                   uint64_t alignment, struct place *p) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = map[i].start > floor ? map[i].start : floor;

        at = (at + alignment - 1) & ~(alignment - 1);
        if (boot_ram_holds(j, at, span)) {
            *p = (struct place){at, at + span, alignment};
            return true;
        }
    }
    return false;
}

/* A relocatable kernel goes where it wants to be, else lower; with less alignment than it
 * likes if memory is short. */
static bool place_relocatable(const struct boot_job *j, const struct header *h,
                              struct place *p) {
    uint64_t span = h->init_size > h->len ? h->init_size : h->len;
    unsigned min = j->image->kernel.data[MIN_ALIGNMENT];

    if (h->pref < MEM_HOLE_END && lowest(j, h->pref, span, h->alignment, p))
        return true;
    if (lowest(j, BOOT_HIGH, span, h->alignment, p))
        return true;
    return h->version >= 0x20a && min >= 12 && min < 32 &&
           lowest(j, BOOT_HIGH, span, 1ull << min, p);
}

/* One that is not is loaded at 1 MiB and moves itself to where it was linked. */
static bool place_fixed(const struct boot_job *j, const struct header *h,
                        struct place *p) {
    *p = (struct place){BOOT_HIGH, BOOT_HIGH + h->len, h->alignment};
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

static int find_place(const struct boot_job *j, const struct header *h, struct place *p) {
    const char *path = j->image->kernel.path;

    if (h->relocatable ? place_relocatable(j, h, p) : place_fixed(j, h, p))
        return 0;
    if (!h->relocatable)
        return boot_refuse(
            j,
            "kernel %s is not relocatable and needs %llu KiB of RAM at "
            "0x%llx; give --memory more",
            path, (unsigned long long)(h->init_size ? h->init_size : h->len) >> 10,
            (unsigned long long)(h->pref ? h->pref : BOOT_HIGH));
    return boot_refuse(
        j,
        "kernel %s needs %llu KiB of RAM in one piece from 1 MiB on; give --memory more",
        path, (unsigned long long)(h->init_size > h->len ? h->init_size : h->len) >> 10);
}

static int put_ramdisk(const struct boot_job *j, const struct header *h, uint64_t floor,
                       uint8_t *zp) {
    const uint8_t *k = j->image->kernel.data;
    uint64_t max = h->version >= 0x203 ? boot_get(k, INITRD_MAX, 4) : 0x37ffffff;
    uint64_t size = j->image->initrd.size, at = 0;
    int rc;

    if (!j->image->initrd.path)
        return 0;
    rc = boot_put_initrd(j, floor, max + 1, &at);
    if (rc && h->is64 && (h->xload & XLF_ABOVE_4G))
        rc = boot_put_initrd(j, floor > MEM_HOLE_END ? floor : MEM_HOLE_END, ~0ull, &at);
    if (rc)
        return rc;
    boot_set(zp, RAMDISK_IMAGE, 4, at);
    boot_set(zp, RAMDISK_SIZE, 4, size);
    boot_set(zp, EXT_RAMDISK_IMAGE, 4, at >> 32);
    boot_set(zp, EXT_RAMDISK_SIZE, 4, size >> 32);
    return 0;
}

/* Characters of command line that the kernel takes. */
static uint64_t cmdline_limit(const struct boot_job *j, const struct header *h) {
    uint64_t size = boot_get(j->image->kernel.data, CMDLINE_SIZE, 4);

    if (h->version < 0x206)
        return 255;
    return size < 0xffff ? size : 0xffff;
}

int boot_linux(const struct boot_job *j) {
    const uint8_t *k = j->image->kernel.data;
    uint8_t zp[4096] = {0};
    struct header h;
    struct place p;
    int rc = check_header(j, &h);

    if (rc)
        return rc;
    rc = find_place(j, &h, &p);
    if (rc)
        return rc;
    rc = boot_put_cmdline(j, cmdline_limit(j, &h));
    if (rc)
        return rc;
    fill_params(j, &p, zp);
    rc = put_ramdisk(j, &h, p.top, zp);
    if (rc)
        return rc;
    boot_put(j, p.load, k + h.setup, h.len);
    boot_put(j, BOOT_PARAMS, zp, sizeof(zp));
    if (h.is64)
        boot_enter_long(j, 0x10, 0x18, p.load + 0x200);
    else
        boot_enter_flat32(j->v, 0x10, 0x18, p.load);
    j->v->gpr[REG_RSI] = BOOT_PARAMS;
    return 0;
}
