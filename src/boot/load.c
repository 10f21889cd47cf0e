/* Chooses the loader for a kernel, as asked or by its first bytes; see boot.h. */
#include "boot/boot_int.h"

/* A file of no format that we load: say what it is. */
static int refuse_unknown(const struct boot_job *j) {
    static const struct {
        uint16_t offset;
        uint8_t len;
        const char *magic, *what;
    } known[] = {
        {0, 4, "\177ELF", "an ELF file"},
        {0, 2, "\x1f\x8b", "a gzip-compressed file; decompress it first"},
        {0, 6,
         "\xfd"
         "7zXZ",
         "an xz-compressed file; decompress it first"},
        {0, 4, "\x28\xb5\x2f\xfd", "a zstd-compressed file; decompress it first"},
        {0, 3, "BZh", "a bzip2-compressed file; decompress it first"},
        {0, 6, "070701", "a cpio archive; is it the initrd?"},
        {0x38, 4, "ARMd", "a Linux kernel for AArch64"},
        {0x38, 4, "RSC\5", "a Linux kernel for RISC-V"},
        {0x24, 4, "\x18\x28\x6f\x01", "a Linux kernel for ARM"},
        {0x1fe, 2, "\x55\xaa",
         "a boot sector or disk image, or a Linux kernel older than boot protocol 2.00 "
         "(which --boot-protocol linux16 takes)"},
        {0, 2, "MZ", "a PE program (EFI?)"},
    };
    const struct boot_file *f = &j->image->kernel;
    const char *what = "a file of unknown format";

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (boot_within(known[i].offset, known[i].len, f->size) &&
            !memcmp(f->data + known[i].offset, known[i].magic, known[i].len)) {
            what = known[i].what;
            break;
        }
    }
    if (j->cfg->protocol != BOOT_AUTO)
        return boot_refuse(j, "%s is no Linux bzImage but %s", f->path, what);
    return boot_refuse(j, "%s is no Linux bzImage, ELF kernel or multiboot kernel but %s",
                       f->path, what);
}

static int load_any(const struct boot_job *j) {
    const struct boot_file *f = &j->image->kernel;
    struct boot_elf e;
    uint64_t where;
    int rc;

    if (boot_linux_probe(f))
        return boot_linux(j);
    if (!boot_elf_probe(f))
        return boot_multiboot_probe(f, &where) ? boot_multiboot(j) : refuse_unknown(j);
    if (boot_multiboot_probe(f, &where) && f->size > 4 && f->data[4] == 1)
        return boot_multiboot(j);
    rc = boot_elf_parse(j, &e);
    if (!rc && boot_pvh_probe(f, &e, &where))
        return boot_pvh(j);
    if (boot_multiboot_probe(f, &where))
        return boot_multiboot(j);
    if (rc)
        return rc;
    return boot_refuse(j,
                       "%s is an ELF file without PVH entry (note Xen 18) and without "
                       "multiboot header: no kernel that can be started directly",
                       f->path);
}

/* Modules are multiboot's, whose loader places them. */
static int check_modules(const struct boot_job *j) {
    const struct boot_image *image = j->image;

    if (!image->module_count || j->v->gpr[REG_RAX] == BOOT_MULTIBOOT_MAGIC)
        return 0;
    return boot_refuse(j,
                       "module %s has no use: %s is started through another protocol "
                       "than multiboot",
                       image->modules[0].file.path, image->kernel.path);
}

static int load_as(const struct boot_job *j, enum boot_protocol p) {
    switch (p) {
    case BOOT_LINUX32:
    case BOOT_LINUX64:
        return boot_linux_probe(&j->image->kernel) ? boot_linux(j) : refuse_unknown(j);
    case BOOT_LINUX16:
        return boot_linux16(j);
    case BOOT_PVH:
        return boot_pvh(j);
    case BOOT_MULTIBOOT:
        return boot_multiboot(j);
    default:
        return load_any(j);
    }
}

int boot_image_load(const struct boot_image *image, struct vcpu *v, struct mem *m,
                    const struct boot_config *cfg, char *why, size_t why_size) {
    struct boot_job j = {image, v,       m, cfg, cfg->cmdline ? cfg->cmdline : "",
                         why,   why_size};
    int rc;

    vcpu_reset(v);
    v->mem = m;
    if (boot_image_is_firmware(image))
        return boot_firmware(&j);
    boot_put_bios(&j);
    boot_put_bios_data(&j);
    rc = load_as(&j, cfg->protocol);
    return rc ? rc : check_modules(&j);
}
