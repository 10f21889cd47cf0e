/*
 * PVH direct boot: Xen's "x86/HVM direct boot ABI" (docs/misc/pvh.pandoc) with version 1
 * of struct hvm_start_info (public/arch-x86/hvm/start_info.h). The kernel is an ELF
 * executable with the note XEN_ELFNOTE_PHYS32_ENTRY.
 */
#include "boot/boot_int.h"

enum { PT_NOTE = 4, PHYS32_ENTRY = 18 };

/* struct hvm_start_info, at BOOT_PARAMS; the tables follow in the same page. */
enum {
    MAGIC = 0,
    VERSION = 4,
    NR_MODULES = 12,
    MODLIST = 16,
    CMDLINE = 24,
    RSDP = 32,
    MEMMAP = 40,
    MEMMAP_ENTRIES = 48,
    MODULES = 0x80,
    MEMORY_MAP = 0x100,
    INFO_SIZE = 0x1000,
};
_Static_assert(MEMORY_MAP + BOOT_RANGES * 24 <= INFO_SIZE, "the memory map fits");

static uint64_t round4(uint64_t n) {
    return (n + 3) & ~3ull;
}

/* Notes that are looked at in a file, whatever its headers say: they may overlap. */
#define NOTES_MAX 65536u

/* Looks through the notes in [P, P+SIZE), *LEFT of them at most; name and contents are
 * padded to 4 bytes. */
static bool find_entry(const uint8_t *p, uint64_t size, unsigned *left, uint64_t *entry) {
    while (size >= 12 && *left) {
        uint64_t name = boot_get(p, 0, 4), len = boot_get(p, 4, 4);
        uint64_t desc = 12 + round4(name);

        --*left;
        if (!boot_within(desc, len, size))
            return false;
        if (boot_get(p, 8, 4) == PHYS32_ENTRY && name == 4 && !memcmp(p + 12, "Xen", 4) &&
            (len == 4 || len == 8)) {
            *entry = boot_get(p, desc, (unsigned)len);
            return true;
        }
        desc += round4(len);
        if (desc > size)
            return false;
        p += desc;
        size -= desc;
    }
    return false;
}

bool boot_pvh_probe(const struct boot_file *f, const struct boot_elf *e,
                    uint64_t *entry) {
    unsigned left = NOTES_MAX;

    for (unsigned i = 0; i < e->phnum && left; i++) {
        const uint8_t *p = f->data + e->phoff + (uint64_t)i * e->phentsize;
        uint64_t offset = e->is64 ? boot_get(p, 8, 8) : boot_get(p, 4, 4);
        uint64_t size = e->is64 ? boot_get(p, 32, 8) : boot_get(p, 16, 4);

        if (boot_get(p, 0, 4) == PT_NOTE && boot_within(offset, size, f->size) &&
            find_entry(f->data + offset, size, &left, entry))
            return true;
    }
    return false;
}

static void put_memory(const struct boot_job *j, uint8_t *info) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    for (unsigned i = 0; i < n; i++) {
        boot_set(info, MEMORY_MAP + i * 24, 8, map[i].start);
        boot_set(info, MEMORY_MAP + i * 24 + 8, 8, map[i].size);
        boot_set(info, MEMORY_MAP + i * 24 + 16, 4, map[i].type);
    }
    boot_set(info, MEMMAP, 8, BOOT_PARAMS + MEMORY_MAP);
    boot_set(info, MEMMAP_ENTRIES, 4, n);
}

int boot_pvh(const struct boot_job *j) {
    const struct boot_file *f = &j->image->kernel;
    uint8_t info[INFO_SIZE] = {0};
    struct boot_elf e;
    uint64_t entry, at;
    int rc = boot_elf_parse(j, &e);

    if (rc)
        return rc;
    if (!boot_pvh_probe(f, &e, &entry))
        return boot_refuse(j,
                           "%s has no PVH entry (ELF note Xen 18); a Linux vmlinux needs "
                           "CONFIG_PVH",
                           f->path);
    if (!boot_elf_holds(&e, entry))
        return boot_refuse(j, "%s has its PVH entry at 0x%llx, where nothing is loaded",
                           f->path, (unsigned long long)entry);
    rc = boot_put_cmdline(j, BOOT_CMDLINE, 0xffff);
    if (rc)
        return rc;
    if (j->image->initrd.path) {
        rc = boot_put_initrd(j, e.top, MEM_HOLE_START, &at);
        if (rc)
            return rc;
        boot_set(info, NR_MODULES, 4, 1);
        boot_set(info, MODLIST, 8, BOOT_PARAMS + MODULES);
        boot_set(info, MODULES, 8, at);
        boot_set(info, MODULES + 8, 8, j->image->initrd.size);
    }
    boot_set(info, MAGIC, 4, 0x336ec578);
    boot_set(info, VERSION, 4, 1);
    boot_set(info, CMDLINE, 8, BOOT_CMDLINE);
    boot_set(info, RSDP, 8, j->cfg->rsdp.a);
    put_memory(j, info);
    boot_elf_load(j, &e);
    boot_put(j, BOOT_PARAMS, info, sizeof(info));
    boot_enter_flat32(j->v, BOOT_GDT, 0x08, 0x10, entry);
    j->v->gpr[REG_RBX] = BOOT_PARAMS;
    return 0;
}
