/*
 * Linux bzImage: "The Linux/x86 Boot Protocol" (Documentation/arch/x86/boot.rst), "32-bit
 * Boot Protocol" and "64-bit Boot Protocol", for version 2.02 and later. The real-mode
 * part of the kernel never runs; linux16.c is for those that need it.
 *
 * Up to Linux 2.6 the decompressor of a bzImage writes from 0x2000 up to the zero page,
 * and the code that then moves the kernel goes to 0x1000: all that is given lies above
 * it.
 */
#include <stdlib.h>

#include "boot/linux_int.h"

/* What INT 15h AH 88h and AX E801h tell of the memory from 1 MiB on, in KiB:
 * decompressors up to Linux 2.6 look at nothing else, and kernels where the map is no
 * good. */
static void put_sizes(uint8_t *zp, uint64_t kib) {
    boot_set(zp, EXT_MEM_K, 2, kib < 0xfc00 ? kib : 0xfc00);
    boot_set(zp, ALT_MEM_K, 4, kib);
}

/* The zero page: the header of the file, then what the loader fills in. */
static void fill_params(const struct boot_job *j, const struct linux_header *h,
                        const struct linux_place *place, uint8_t *zp) {
    const uint8_t *k = j->image->kernel.data;
    unsigned end = MAGIC + k[JUMP + 1];
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    if (end > HEADER_END)
        end = HEADER_END;
    if (end > SETUP_SECTS)
        memcpy(zp + SETUP_SECTS, k + SETUP_SECTS, end - SETUP_SECTS);
    boot_set(zp, LOADER, 1, 0xff);
    boot_set(zp, LOADFLAGS, 1, k[LOADFLAGS] | CAN_USE_HEAP);
    boot_set(zp, HEAP_END, 2, 0xfe00);
    boot_set(zp, VID_MODE, 2, linux_video_mode(j->cmdline));
    boot_set(zp, CMD_LINE_PTR, 4, BOOT_CMDLINE);
    boot_set(zp, CODE32_START, 4, place->load);
    if (h->version >= 0x20a)
        boot_set(zp, ALIGNMENT, 4, place->alignment);
    /* struct screen_info: text mode 3, 80 by 25, VGA with 256 KiB. */
    zp[0x06] = 3, zp[0x07] = 80, zp[0x0a] = 3, zp[0x0e] = 25, zp[0x0f] = 1, zp[0x10] = 16;
    boot_set(zp, ACPI_RSDP, 8, j->cfg->rsdp.a);
    zp[E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        boot_set(zp, E820_TABLE + i * 20, 8, map[i].start);
        boot_set(zp, E820_TABLE + i * 20 + 8, 8, map[i].size);
        boot_set(zp, E820_TABLE + i * 20 + 16, 4, map[i].type);
        if (map[i].start == BOOT_HIGH && map[i].type == BOOT_RAM)
            put_sizes(zp, map[i].size >> 10);
    }
}

/* The lowest multiple of ALIGNMENT from FLOOR on where SPAN bytes fit. */
static bool lowest(const struct boot_job *j, uint64_t floor, uint64_t span,
                   uint64_t alignment, struct linux_place *p) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = map[i].start > floor ? map[i].start : floor;

        at = (at + alignment - 1) & ~(alignment - 1);
        if (boot_ram_holds(j, at, span)) {
            *p = (struct linux_place){at, at + span, alignment};
            return true;
        }
    }
    return false;
}

/* A relocatable kernel goes where it wants to be, else lower; with less alignment than it
 * likes if memory is short. */
static bool place_relocatable(const struct boot_job *j, const struct linux_header *h,
                              struct linux_place *p) {
    uint64_t span = h->init_size > h->len ? h->init_size : h->len;
    unsigned min = j->image->kernel.data[MIN_ALIGNMENT];

    if (h->pref < MEM_HOLE_END && lowest(j, h->pref, span, h->alignment, p))
        return true;
    if (lowest(j, BOOT_HIGH, span, h->alignment, p))
        return true;
    return h->version >= 0x20a && min >= 12 && min < 32 &&
           lowest(j, BOOT_HIGH, span, 1ull << min, p);
}

static int find_place(const struct boot_job *j, const struct linux_header *h,
                      struct linux_place *p) {
    const char *path = j->image->kernel.path;

    if (!h->relocatable)
        return linux_place_fixed(j, h, p);
    if (place_relocatable(j, h, p))
        return 0;
    return boot_refuse(
        j,
        "kernel %s needs %llu KiB of RAM in one piece from 1 MiB on; give --memory more",
        path, (unsigned long long)(h->init_size > h->len ? h->init_size : h->len) >> 10);
}

/* PACKED: without its decompressor, or NULL. */
static int put_linux(const struct boot_job *j, const struct linux_header *h,
                     const struct linux_packed *packed) {
    const uint8_t *k = j->image->kernel.data;
    uint8_t zp[4096] = {0};
    struct linux_place p;
    uint64_t entry;
    int rc = 0;

    if (packed)
        p = packed->place;
    else
        rc = find_place(j, h, &p);
    if (rc)
        return rc;
    rc = boot_put_cmdline(j, BOOT_CMDLINE, linux_cmdline_limit(j, h));
    if (rc)
        return rc;
    fill_params(j, h, &p, zp);
    rc = linux_put_ramdisk(j, h, p.top, zp);
    if (rc)
        return rc;
    if (packed) {
        boot_elf_load(&packed->job, &packed->elf);
        entry = packed->elf.entry;
    } else {
        boot_put(j, p.load, k + h->setup, h->len);
        entry = p.load + (h->is64 ? 0x200 : 0);
    }
    boot_put(j, BOOT_PARAMS, zp, sizeof(zp));
    if (h->is64)
        boot_enter_long(j, 0x10, 0x18, entry);
    else
        boot_enter_flat32(j->v, BOOT_GDT, 0x10, 0x18, entry);
    j->v->gpr[REG_RSI] = BOOT_PARAMS;
    return 0;
}

int boot_linux(const struct boot_job *j) {
    struct linux_packed packed;
    struct linux_header h;
    int rc;

    if (j->cfg->protocol == BOOT_AUTO && linux_needs_setup(&j->image->kernel))
        return boot_linux16(j);
    rc = linux_parse(j, false, &h);
    if (rc)
        return rc;
    rc = put_linux(j, &h, linux_unpack(j, &h, &packed) ? &packed : NULL);
    free(packed.unpacked.data);
    return rc;
}
