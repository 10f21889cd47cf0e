/*
 * Multiboot Specification, version 0.6.96 (multiboot 1): a header in the first 8 KiB of
 * the kernel, which is an ELF executable or says itself where it goes (the a.out kludge);
 * an information structure in EBX.
 *
 * The information lies in the page at BOOT_PARAMS: the structure itself, then what it
 * points to. The initrd becomes the one module, with its file name as its string.
 */
#include "boot/boot_int.h"

#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC 0x2badb002u
#define SEARCH 8192u

/* Bits of the header's flags; 0 to 15 must be honoured or the kernel refused. */
#define WANT_PAGE_ALIGN 1u
#define WANT_MEMORY 2u
#define WANT_VIDEO 4u
#define HAS_ADDRESSES (1u << 16)
#define WANT_KNOWN (WANT_PAGE_ALIGN | WANT_MEMORY | WANT_VIDEO)

/* Fields of the information structure, and where the rest of the page goes. */
enum {
    FLAGS = 0,
    MEM_LOWER = 4,
    MEM_UPPER = 8,
    CMDLINE = 16,
    MODS_COUNT = 20,
    MODS_ADDR = 24,
    MMAP_LENGTH = 44,
    MMAP_ADDR = 48,
    LOADER_NAME = 64,
    FRAMEBUFFER = 88,
    MODULES = 0x80,
    STRINGS = 0x100, /* loader name, then the module's string */
    MODULE_NAME = STRINGS + 16,
    MEMORY_MAP = 0x400,
    INFO_SIZE = 0x1000,
};
_Static_assert(MEMORY_MAP + BOOT_RANGES * 24 <= INFO_SIZE, "the memory map fits");

bool boot_multiboot_probe(const struct boot_file *f, uint64_t *offset) {
    uint64_t end = f->size < SEARCH ? f->size : SEARCH;

    for (uint64_t at = 0; at + 12 <= end; at += 4) {
        uint32_t sum = 0;

        for (unsigned i = 0; i < 3; i++)
            sum += (uint32_t)boot_get(f->data, at + 4 * i, 4);
        if (boot_get(f->data, at, 4) == HEADER_MAGIC && !sum) {
            *offset = at;
            return true;
        }
    }
    return false;
}

/* The address fields of the header as one segment. */
static int parse_addresses(const struct boot_job *j, uint64_t header,
                           struct boot_elf *e) {
    const struct boot_file *f = &j->image->kernel;
    uint64_t header_addr, load, load_end, bss_end, offset;
    struct boot_segment *s = &e->seg[0];

    *e = (struct boot_elf){0};
    if (!boot_within(header, 32, f->size))
        return boot_refuse(j, "%s is truncated: it ends within its multiboot header",
                           f->path);
    header_addr = boot_get(f->data, header + 12, 4);
    load = boot_get(f->data, header + 16, 4);
    load_end = boot_get(f->data, header + 20, 4);
    bss_end = boot_get(f->data, header + 24, 4);
    e->entry = boot_get(f->data, header + 28, 4);
    if (load > header_addr || header_addr - load > header)
        return boot_refuse(j,
                           "%s has a corrupt multiboot header: it would be loaded "
                           "from before the start of the file",
                           f->path);
    offset = header - (header_addr - load);
    if (!load_end)
        load_end = load + (f->size - offset);
    if (!bss_end)
        bss_end = load_end;
    if (load_end <= load || bss_end < load_end)
        return boot_refuse(j,
                           "%s has a corrupt multiboot header: its addresses do not "
                           "ascend",
                           f->path);
    *s = (struct boot_segment){offset, load_end - load, load, bss_end - load, load};
    if (!boot_within(s->offset, s->filesz, f->size))
        return boot_refuse(j,
                           "%s is truncated: what its multiboot header wants loaded "
                           "lies beyond its end",
                           f->path);
    if (!boot_ram_holds(j, s->at, s->memsz))
        return boot_refuse(j,
                           "%s wants 0x%llx bytes at address 0x%llx, which is not RAM "
                           "from 1 MiB on; give --memory more if it lies above",
                           f->path, (unsigned long long)s->memsz,
                           (unsigned long long)s->at);
    e->count = 1;
    e->top = bss_end;
    return 0;
}

static void put_memory(const struct boot_job *j, uint8_t *info) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    boot_set(info, MEM_LOWER, 4, BOOT_LOW_END >> 10);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = info + MEMORY_MAP + i * 24;

        /* The size field does not count itself. */
        boot_set(p, 0, 4, 20);
        boot_set(p, 4, 8, map[i].start);
        boot_set(p, 12, 8, map[i].size);
        boot_set(p, 20, 4, map[i].type);
        if (map[i].start == BOOT_HIGH && map[i].type == BOOT_RAM)
            boot_set(info, MEM_UPPER, 4, map[i].size >> 10);
    }
    boot_set(info, MMAP_LENGTH, 4, n * 24);
    boot_set(info, MMAP_ADDR, 4, BOOT_PARAMS + MEMORY_MAP);
}

static int put_module(const struct boot_job *j, uint8_t *info, uint64_t floor) {
    const struct boot_file *f = &j->image->initrd;
    const char *name;
    uint64_t at;
    int rc;

    boot_set(info, MODS_ADDR, 4, BOOT_PARAMS + MODULES);
    if (!f->path)
        return 0;
    rc = boot_put_initrd(j, floor, MEM_HOLE_START, &at);
    if (rc)
        return rc;
    name = strrchr(f->path, '/');
    name = name ? name + 1 : f->path;
    boot_set(info, MODS_COUNT, 4, 1);
    boot_set(info, MODULES, 4, at);
    boot_set(info, MODULES + 4, 4, at + f->size);
    boot_set(info, MODULES + 8, 4, BOOT_PARAMS + MODULE_NAME);
    memcpy(info + MODULE_NAME, name, strnlen(name, MEMORY_MAP - MODULE_NAME - 1));
    return 0;
}

/* The board's text screen: bit 12, type 2 (EGA text), 80 by 25. */
static void put_framebuffer(uint8_t *info) {
    boot_set(info, FRAMEBUFFER, 8, 0xb8000);
    boot_set(info, FRAMEBUFFER + 8, 4, 160);
    boot_set(info, FRAMEBUFFER + 12, 4, 80);
    boot_set(info, FRAMEBUFFER + 16, 4, 25);
    boot_set(info, FRAMEBUFFER + 20, 1, 16);
    boot_set(info, FRAMEBUFFER + 21, 1, 2);
}

int boot_multiboot(const struct boot_job *j) {
    const struct boot_file *f = &j->image->kernel;
    uint8_t info[INFO_SIZE] = {0};
    struct boot_elf e;
    uint64_t header;
    uint32_t flags;
    int rc;

    if (!boot_multiboot_probe(f, &header))
        return boot_refuse(j, "%s has no multiboot header (version 1) in its first 8 KiB",
                           f->path);
    flags = (uint32_t)boot_get(f->data, header + 4, 4);
    if (flags & 0xffff & ~WANT_KNOWN)
        return boot_refuse(j,
                           "%s requires multiboot features that do not exist here "
                           "(flags 0x%x)",
                           f->path, flags & 0xffff & ~WANT_KNOWN);
    rc = flags & HAS_ADDRESSES ? parse_addresses(j, header, &e) : boot_elf_parse(j, &e);
    if (rc)
        return rc;
    if (!boot_elf_holds(&e, e.entry))
        return boot_refuse(j, "%s has its entry at 0x%llx, where nothing is loaded",
                           f->path, (unsigned long long)e.entry);
    rc = boot_put_cmdline(j, BOOT_CMDLINE, 0xffff);
    if (!rc)
        rc = put_module(j, info, e.top);
    if (rc)
        return rc;
    put_memory(j, info);
    put_framebuffer(info);
    boot_set(info, CMDLINE, 4, BOOT_CMDLINE);
    boot_set(info, LOADER_NAME, 4, BOOT_PARAMS + STRINGS);
    memcpy(info + STRINGS, "bivisor", sizeof("bivisor"));
    boot_set(info, FLAGS, 4, 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9 | 1 << 12);
    boot_elf_load(j, &e);
    boot_put(j, BOOT_PARAMS, info, sizeof(info));
    boot_enter_flat32(j->v, 0x08, 0x18, e.entry);
    j->v->gpr[REG_RAX] = ENTRY_MAGIC;
    j->v->gpr[REG_RBX] = BOOT_PARAMS;
    return 0;
}
