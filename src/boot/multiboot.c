/*
 * Multiboot Specification, version 0.6.96 (multiboot 1): a header in the first 8 KiB of
 * the kernel, which is an ELF executable or says itself where it goes (the a.out kludge);
 * an information structure in EBX.
 *
 * What the kernel is given lies in one block: the information with what it points to, the
 * command line, the GDT. That is at BOOT_PARAMS, or where the kernel leaves room, which
 * may be loaded below 1 MiB too. The initrd, if there is one, is the first module; a
 * module's string is the file's name and the text that belongs to it, as the command line
 * is the kernel's name and the text of --append: kernels expect the name that other
 * loaders put there.
 *
 * The selectors are those of GRUB Legacy and QEMU. The specification leaves them open,
 * but kernels such as xv6's use them before they have a GDT of their own.
 */
#include "boot/boot_int.h"

#include <stdio.h>

#define HEADER_MAGIC 0x1badb002u
#define SEARCH 8192u

/* Bits of the header's flags; 0 to 15 must be honoured or the kernel refused. */
#define WANT_PAGE_ALIGN 1u
#define WANT_MEMORY 2u
#define WANT_VIDEO 4u
#define HAS_ADDRESSES (1u << 16)
#define WANT_KNOWN (WANT_PAGE_ALIGN | WANT_MEMORY | WANT_VIDEO)

/* Fields of the information structure, and where the rest of its 64 KiB goes. */
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
    NAME = 0x80, /* the loader's */
    MEMORY_MAP = 0x100,
    MODULES = 0x1000, /* 16 bytes each; their strings follow */
    INFO_SIZE = 0x10000,
};
_Static_assert(MEMORY_MAP + BOOT_RANGES * 24 <= MODULES, "the memory map fits");

/* The block, when it is where it belongs. */
enum {
    CMDLINE_AT = BOOT_CMDLINE - BOOT_PARAMS,
    GDT_AT = BOOT_GDT - BOOT_PARAMS,
    BLOCK_SIZE = GDT_AT + 0x1000,
};

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
    if (!boot_ram_holds_low(j, s->at, s->memsz))
        return boot_refuse(j,
                           "%s wants 0x%llx bytes at address 0x%llx, which is not RAM; "
                           "give --memory more if it lies above",
                           f->path, (unsigned long long)s->memsz,
                           (unsigned long long)s->at);
    e->count = 1;
    e->top = bss_end;
    return 0;
}

/* Whether the block may lie at AT. */
static bool block_fits(const struct boot_job *j, const struct boot_elf *e, uint64_t at) {
    for (unsigned i = 0; i < e->count; i++) {
        const struct boot_segment *s = &e->seg[i];

        if (at < s->at + s->memsz && s->at < at + BLOCK_SIZE)
            return false;
    }
    return boot_ram_holds_low(j, at, BLOCK_SIZE);
}

/* At its place, at the beginning of memory, or behind some segment. */
static int find_block(const struct boot_job *j, const struct boot_elf *e, uint64_t *at) {
    *at = BOOT_PARAMS;
    if (block_fits(j, e, *at))
        return 0;
    *at = 0x1000;
    for (unsigned i = 0; !block_fits(j, e, *at); i++) {
        if (i == e->count)
            return boot_refuse(j,
                               "%s leaves no room in guest memory for the %u KiB that "
                               "it is to be given; give --memory more",
                               j->image->kernel.path, BLOCK_SIZE >> 10);
        *at = (e->seg[i].at + e->seg[i].memsz + 0xfff) & ~0xfffull;
    }
    return 0;
}

static void put_memory(const struct boot_job *j, uint8_t *info, uint64_t block) {
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
    boot_set(info, MMAP_ADDR, 4, block + MEMORY_MAP);
}

struct module {
    const struct boot_file *file;
    const char *args;
};

/* Module N of all: the initrd is the first. */
static struct module module(const struct boot_image *image, size_t n) {
    if (image->initrd.path && !n--)
        return (struct module){&image->initrd, NULL};
    return (struct module){&image->modules[n].file, image->modules[n].args};
}

/* Their strings, one after another behind the table of COUNT modules. */
static int put_strings(const struct boot_job *j, uint8_t *info, uint64_t block,
                       size_t count) {
    uint64_t at = MODULES + 16 * (uint64_t)count;

    for (size_t n = 0; n < count; n++) {
        struct module m = module(j->image, n);
        const char *name = boot_file_name(m.file);
        int len = at < INFO_SIZE ? snprintf((char *)info + at, INFO_SIZE - at, "%s%s%s",
                                            name, m.args ? " " : "", m.args ? m.args : "")
                                 : -1;

        if (len < 0 || (uint64_t)len >= INFO_SIZE - at)
            return boot_refuse(j,
                               "%s is given too many modules or too much text for them",
                               j->image->kernel.path);
        boot_set(info, MODULES + 16 * n + 8, 4, block + at);
        at += (uint64_t)len + 1;
    }
    return 0;
}

/* Places them in ascending order, the last one highest. */
static int put_modules(const struct boot_job *j, uint8_t *info, uint64_t block,
                       uint64_t floor) {
    size_t count = j->image->module_count + (j->image->initrd.path != NULL);
    uint64_t ceiling = MEM_HOLE_START;
    int rc = put_strings(j, info, block, count);

    boot_set(info, MODS_COUNT, 4, count);
    boot_set(info, MODS_ADDR, 4, block + MODULES);
    for (size_t n = count; !rc && n--;) {
        const struct boot_file *f = module(j->image, n).file;

        rc = boot_put_file(j, f, f == &j->image->initrd ? "initrd" : "module", floor,
                           ceiling, &ceiling);
        boot_set(info, MODULES + 16 * n, 4, ceiling);
        boot_set(info, MODULES + 16 * n + 4, 4, ceiling + f->size);
    }
    return rc;
}

/* "NAME TEXT". */
static int put_cmdline(const struct boot_job *j, uint64_t at) {
    const char *name = boot_file_name(&j->image->kernel);
    uint64_t len = strlen(name);
    int rc = boot_put_cmdline(j, at + len + 1, len < 0xfffe ? 0xfffe - len : 0);

    boot_put(j, at, name, len);
    boot_put(j, at + len, " ", 1);
    return rc;
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

/* The whole file, checked: where it goes, and its entry. */
static int parse_kernel(const struct boot_job *j, struct boot_elf *e) {
    const struct boot_file *f = &j->image->kernel;
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
    rc = flags & HAS_ADDRESSES ? parse_addresses(j, header, e) : boot_elf_parse_low(j, e);
    if (!rc && !boot_elf_holds(e, e->entry))
        return boot_refuse(j, "%s has its entry at 0x%llx, where nothing is loaded",
                           f->path, (unsigned long long)e->entry);
    return rc;
}

int boot_multiboot(const struct boot_job *j) {
    static const char loader[] = "bivisor";
    uint8_t info[INFO_SIZE] = {0};
    struct boot_elf e;
    uint64_t block, floor;
    int rc = parse_kernel(j, &e);

    if (!rc)
        rc = find_block(j, &e, &block);
    if (!rc)
        rc = put_cmdline(j, block + CMDLINE_AT);
    if (rc)
        return rc;
    floor = e.top > block + BLOCK_SIZE ? e.top : block + BLOCK_SIZE;
    rc = put_modules(j, info, block, floor > BOOT_HIGH ? floor : BOOT_HIGH);
    if (rc)
        return rc;
    put_memory(j, info, block);
    put_framebuffer(info);
    boot_set(info, CMDLINE, 4, block + CMDLINE_AT);
    boot_set(info, LOADER_NAME, 4, block + NAME);
    memcpy(info + NAME, loader, sizeof(loader));
    boot_set(info, FLAGS, 4, 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9 | 1 << 12);
    boot_elf_load(j, &e);
    boot_put(j, block, info, sizeof(info));
    boot_enter_flat32(j->v, block + GDT_AT, 0x08, 0x10, e.entry);
    j->v->gpr[REG_RAX] = BOOT_MULTIBOOT_MAGIC;
    j->v->gpr[REG_RBX] = block;
    return 0;
}
