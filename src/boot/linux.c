/*
 * Linux bzImage: "The Linux/x86 Boot Protocol" (Documentation/arch/x86/boot.rst), 2.00
 * and later, entered in 32-bit or 64-bit mode. The real-mode part of the kernel never
 * runs.
 */
#include <string.h>

#include "boot/boot_int.h"

/* Offsets in the first sectors, which are also offsets in the zero page. */
enum {
    SETUP_SECTS = 0x1f1,
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
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END = 0x290,
    ACPI_RSDP = 0x070,
    E820_ENTRIES = 0x1e8,
    E820_TABLE = 0x2d0,
};

static uint64_t get(const uint8_t *p, unsigned off, unsigned len) {
    uint64_t v = 0;

    memcpy(&v, p + off, len);
    return v;
}

static void set(uint8_t *p, unsigned off, unsigned len, uint64_t v) {
    memcpy(p + off, &v, len);
}

bool boot_linux_probe(const struct boot_file *f) {
    return f->size >= HEADER_END && get(f->data, BOOT_FLAG, 2) == 0xaa55 &&
           get(f->data, MAGIC, 4) == 0x53726448;
}

/* The zero page: the header of the file, then what the loader fills in. */
static void fill_params(const struct boot_job *j, uint8_t *zp) {
    const uint8_t *k = j->image->kernel.data;
    unsigned end = MAGIC + k[JUMP + 1];
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    if (end > HEADER_END)
        end = HEADER_END;
    if (end > SETUP_SECTS)
        memcpy(zp + SETUP_SECTS, k + SETUP_SECTS, end - SETUP_SECTS);
    set(zp, LOADER, 1, 0xff);
    set(zp, LOADFLAGS, 1, k[LOADFLAGS] | 0x80);
    set(zp, HEAP_END, 2, 0xfe00);
    set(zp, VID_MODE, 2, 0xffff);
    set(zp, CMD_LINE_PTR, 4, BOOT_CMDLINE);
    /* struct screen_info: text mode 3, 80 by 25, VGA. */
    zp[0x06] = 3, zp[0x07] = 80, zp[0x0e] = 25, zp[0x0f] = 1, zp[0x10] = 16;
    set(zp, ACPI_RSDP, 8, j->cfg->rsdp.a);
    zp[E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        set(zp, E820_TABLE + i * 20, 8, map[i].start);
        set(zp, E820_TABLE + i * 20 + 8, 8, map[i].size);
        set(zp, E820_TABLE + i * 20 + 16, 4, map[i].type);
    }
}

int boot_linux(const struct boot_job *j) {
    const struct boot_file *f = &j->image->kernel;
    const uint8_t *k = f->data;
    unsigned version = (unsigned)get(k, VERSION, 2);
    uint64_t setup = (uint64_t)((k[SETUP_SECTS] ? k[SETUP_SECTS] : 4) + 1) * 512;
    bool can64 = version >= 0x20c && (get(k, XLOADFLAGS, 2) & 1);
    bool is64 =
        j->cfg->protocol == BOOT_LINUX64 || (j->cfg->protocol == BOOT_AUTO && can64);
    uint64_t load = BOOT_HIGH, len, span, top, at = 0;
    uint8_t zp[4096] = {0};
    int rc;

    if (version < 0x202 || !(k[LOADFLAGS] & 1))
        return boot_refuse(j,
                           "%s uses boot protocol %u.%02u or is a zImage; a bzImage of "
                           "protocol 2.02 or later is needed",
                           f->path, version >> 8, version & 0xff);
    if (is64 && !can64)
        return boot_refuse(j, "%s has no 64-bit entry point; use --boot-protocol linux32",
                           f->path);
    if (f->size <= setup)
        return boot_refuse(j, "%s is truncated: it ends within its setup code", f->path);
    len = f->size - setup;
    if (is64 && len <= 0x200)
        return boot_refuse(j, "%s is truncated: its 64-bit entry is missing", f->path);
    span = len;
    if (version >= 0x20a) {
        if (k[RELOCATABLE])
            load = get(k, PREF_ADDRESS, 8);
        if (get(k, INIT_SIZE, 4) > span)
            span = get(k, INIT_SIZE, 4);
    }
    if (!boot_ram_holds(j, load, span))
        load = BOOT_HIGH;
    if (!boot_ram_holds(j, load, span))
        return boot_refuse(j,
                           "kernel %s needs %llu KiB of RAM from 1 MiB on; give "
                           "--memory more",
                           f->path, (unsigned long long)span >> 10);
    top = load + span;
    rc = boot_put_cmdline(j, version >= 0x206 && get(k, CMDLINE_SIZE, 4) < 0xffff
                                 ? get(k, CMDLINE_SIZE, 4)
                                 : (version >= 0x206 ? 0xffff : 255));
    if (rc)
        return rc;
    fill_params(j, zp);
    if (j->image->initrd.path) {
        uint64_t max = version >= 0x203 ? get(k, INITRD_MAX, 4) : 0x37ffffff;

        rc = boot_put_initrd(j, top, max + 1, &at);
        if (rc)
            return rc;
        set(zp, RAMDISK_IMAGE, 4, at);
        set(zp, RAMDISK_SIZE, 4, j->image->initrd.size);
    }
    set(zp, CODE32_START, 4, load);
    boot_put(j, load, k + setup, len);
    boot_put(j, BOOT_PARAMS, zp, sizeof(zp));
    if (is64)
        boot_enter_long(j, 0x10, 0x18, load + 0x200);
    else
        boot_enter_flat32(j->v, 0x10, 0x18, load);
    j->v->gpr[REG_RSI] = BOOT_PARAMS;
    return 0;
}
