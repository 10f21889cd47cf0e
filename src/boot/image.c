/* Files in, protocol choice, and what the loaders share; see boot.h and boot_int.h. */
#include "boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/bios.h"
#include "boot/boot_int.h"
#include "x86/cr.h"
#include "x86/desc.h"

static int read_file(const char *path, struct boot_file *f, char *why, size_t why_size) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = 0;

    f->path = path;
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = -errno;
        goto out;
    }
    if (!S_ISREG(st.st_mode) || !st.st_size) {
        snprintf(why, why_size, "%s is %s; name a kernel or initrd file", path,
                 S_ISREG(st.st_mode)   ? "empty"
                 : S_ISDIR(st.st_mode) ? "a directory"
                                       : "not a regular file");
        close(fd);
        return -EINVAL;
    }
    if ((uint64_t)st.st_size > BOOT_FILE_MAX) {
        snprintf(why, why_size, "%s is larger than 4 GiB; name a kernel or initrd file",
                 path);
        close(fd);
        return -EINVAL;
    }
    f->data = malloc((size_t)st.st_size);
    if (!f->data)
        rc = -ENOMEM;
    while (!rc && f->size < (uint64_t)st.st_size) {
        ssize_t n = read(fd, f->data + f->size, (size_t)st.st_size - f->size);

        if (n < 0 && errno != EINTR)
            rc = -errno;
        if (!n)
            break; /* it shrank meanwhile */
        if (n > 0)
            f->size += (uint64_t)n;
    }
out:
    if (fd >= 0)
        close(fd);
    if (rc)
        snprintf(why, why_size, "cannot read %s: %s", path, strerror(-rc));
    return rc;
}

int boot_image_open(const char *kernel, const char *initrd, struct boot_image **out,
                    char *why, size_t why_size) {
    struct boot_image *image = calloc(1, sizeof(*image));
    int rc;

    if (!image) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    rc = read_file(kernel, &image->kernel, why, why_size);
    if (!rc && initrd)
        rc = read_file(initrd, &image->initrd, why, why_size);
    if (rc) {
        boot_image_close(image);
        return rc;
    }
    *out = image;
    return 0;
}

void boot_image_close(struct boot_image *image) {
    if (!image)
        return;
    free(image->kernel.data);
    free(image->initrd.data);
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
    return read_file(path, &all[n].file, why, why_size);
}

int boot_refuse(const struct boot_job *j, const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(j->why, j->why_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* Cuts the ACPI tables out of the range that holds them. */
static unsigned reserve_acpi(const struct boot_job *j, struct boot_range *map,
                             unsigned n) {
    uint64_t start = j->cfg->rsdp.a, len = j->cfg->acpi_len;

    for (unsigned i = 0; start && len && i < n && n + 2 <= BOOT_RANGES; i++) {
        struct boot_range r = map[i];
        struct boot_range parts[3];
        unsigned count = 0;

        if (start < r.start || !boot_within(start - r.start, len, r.size))
            continue;
        if (start > r.start)
            parts[count++] = (struct boot_range){r.start, start - r.start, r.type};
        parts[count++] = (struct boot_range){start, len, BOOT_ACPI};
        if (start - r.start + len < r.size)
            parts[count++] = (struct boot_range){
                start + len, r.size - (start - r.start) - len, r.type};
        memmove(map + i + count, map + i + 1, (n - i - 1) * sizeof(*map));
        memcpy(map + i, parts, count * sizeof(*map));
        return n + count - 1;
    }
    return n;
}

/* RAM as the guest may use it; 0x9fc00..1 MiB is reserved (EBDA, video, firmware). */
unsigned boot_map(const struct boot_job *j, struct boot_range out[BOOT_RANGES]) {
    size_t count;
    const struct mem_piece *r = mem_map(j->m, &count);
    unsigned n = 0;

    out[n++] = (struct boot_range){0, BOOT_LOW_END, BOOT_RAM};
    out[n++] = (struct boot_range){BOOT_LOW_END, BOOT_HIGH - BOOT_LOW_END, BOOT_RESERVED};
    for (size_t i = 0; i < count && n + 2 < BOOT_RANGES; i++) {
        uint64_t start = r[i].start.a, end = start + r[i].size;

        if (end <= BOOT_HIGH || r[i].added)
            continue;
        if (start < BOOT_HIGH)
            start = BOOT_HIGH;
        out[n++] = (struct boot_range){start, end - start,
                                       r[i].kind == MEM_RAM ? BOOT_RAM : BOOT_RESERVED};
    }
    return reserve_acpi(j, out, n);
}

bool boot_ram_holds_low(const struct boot_job *j, uint64_t at, uint64_t len) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    for (unsigned i = 0; i < n; i++) {
        if (map[i].type == BOOT_RAM && map[i].start < MEM_HOLE_END &&
            at >= map[i].start && boot_within(at - map[i].start, len, map[i].size))
            return true;
    }
    return false;
}

bool boot_ram_holds(const struct boot_job *j, uint64_t at, uint64_t len) {
    return at >= BOOT_HIGH && boot_ram_holds_low(j, at, len);
}

bool boot_put(const struct boot_job *j, uint64_t at, const void *data, uint64_t len) {
    return !len || mem_write(j->m, gpa(at), data, len);
}

int boot_put_cmdline(const struct boot_job *j, uint64_t at, uint64_t limit) {
    uint64_t len = strlen(j->cmdline);

    if (len > limit)
        return boot_refuse(j, "the command line has %llu characters; %s takes %llu",
                           (unsigned long long)len, j->image->kernel.path,
                           (unsigned long long)limit);
    boot_put(j, at, j->cmdline, len + 1);
    return 0;
}

const char *boot_file_name(const struct boot_file *f) {
    const char *slash = strrchr(f->path, '/');

    return slash ? slash + 1 : f->path;
}

int boot_put_file(const struct boot_job *j, const struct boot_file *f, const char *what,
                  uint64_t floor, uint64_t ceiling, uint64_t *at) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    while (n--) {
        uint64_t lo = map[n].start, hi = lo + map[n].size;

        lo = lo < floor ? floor : lo;
        hi = hi > ceiling ? ceiling : hi;
        if (map[n].type != BOOT_RAM || lo >= hi || hi - lo < f->size)
            continue;
        *at = (hi - f->size) & ~0xfffull;
        if (*at >= lo && boot_put(j, *at, f->data, f->size))
            return 0;
    }
    return boot_refuse(j,
                       "%s %s (%llu KiB) does not fit in guest memory beside the "
                       "kernel; give --memory more",
                       what, f->path, (unsigned long long)f->size >> 10);
}

int boot_put_initrd(const struct boot_job *j, uint64_t floor, uint64_t ceiling,
                    uint64_t *at) {
    return boot_put_file(j, &j->image->initrd, "initrd", floor, ceiling, at);
}

static void flat(struct segment *s, uint16_t sel, uint16_t ar) {
    *s = (struct segment){.sel = sel, .ar = ar, .limit = 0xffffffff};
}

static void enter_common(struct vcpu *v, uint64_t gdt_at, uint16_t code, uint16_t data,
                         uint16_t code_ar, uint64_t entry) {
    static const uint8_t data_segs[] = {SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS};
    const uint16_t data_ar =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G;

    flat(&v->seg[SEG_CS], code, code_ar);
    for (size_t i = 0; i < ARRAY_SIZE(data_segs); i++)
        flat(&v->seg[data_segs[i]], data, data_ar);
    v->tr = (struct segment){.ar = X86_AR_P | X86_DESC_TSS32_BUSY, .limit = 0x67};
    v->idtr = (struct desc_table){0};
    v->gdtr = (struct desc_table){.base = gdt_at, .limit = 0x1f};
    v->cr0 = X86_CR0_PE | X86_CR0_ET;
    v->rflags = X86_FL_ONE;
    v->rip = entry;
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0;
    v->gpr[REG_RSP] = BOOT_STACK;
}

/* The descriptors in memory match the hidden state. */
static void put_gdt(struct mem *m, uint64_t at, uint16_t code, uint16_t data, bool is64) {
    uint64_t gdt[4] = {0};

    gdt[code >> 3 & 3] = is64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull;
    gdt[data >> 3 & 3] = 0x00cf93000000ffffull;
    mem_write(m, gpa(at), gdt, sizeof(gdt));
}

#define CODE_AR                                                                          \
    (X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_G)

void boot_enter_flat32(struct vcpu *v, uint64_t gdt_at, uint16_t code, uint16_t data,
                       uint64_t entry) {
    enter_common(v, gdt_at, code, data, CODE_AR | X86_AR_DB, entry);
    put_gdt(v->mem, gdt_at, code, data, false);
    vcpu_update_mode(v);
}

/* Long mode with an identity map of the first 4 GiB in 2 MiB pages. */
int boot_enter_long(const struct boot_job *j, uint16_t code, uint16_t data,
                    uint64_t entry) {
    struct vcpu *v = j->v;
    uint64_t e = (BOOT_TABLES + 0x1000) | 3;

    boot_put(j, BOOT_TABLES, &e, 8);
    for (uint64_t i = 0; i < 4; i++) {
        e = (BOOT_TABLES + 0x2000 + i * 0x1000) | 3;
        boot_put(j, BOOT_TABLES + 0x1000 + i * 8, &e, 8);
    }
    for (uint64_t i = 0; i < 2048; i++) {
        e = i << 21 | 0x83;
        boot_put(j, BOOT_TABLES + 0x2000 + i * 8, &e, 8);
    }
    enter_common(v, BOOT_GDT, code, data, CODE_AR | X86_AR_L, entry);
    put_gdt(j->m, BOOT_GDT, code, data, true);
    v->cr0 |= X86_CR0_PG;
    v->cr3 = BOOT_TABLES;
    v->cr4 = X86_CR4_PAE;
    v->efer = X86_EFER_LME | X86_EFER_LMA;
    vcpu_update_mode(v);
    return 0;
}

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

/*
 * What a BIOS leaves in its data area and at the start of the extended one, which loaders
 * and kernels without another source ask for the end of low memory (Xen), for serial
 * ports and the text screen.
 */
static void put_bios_data(const struct boot_job *j) {
    static const struct {
        uint16_t at, val;
    } words[] = {
        {0x00, 0x3f8},              /* the first serial port */
        {0x0e, BOOT_LOW_END >> 4},  /* segment of the extended area */
        {0x10, 0x222},              /* equipment: FPU, 80x25 in color, one serial port */
        {0x13, BOOT_LOW_END >> 10}, /* KiB of low memory */
        {0x1a, BIOS_KEYS},          /* the keyboard's ring: head, tail */
        {0x1c, BIOS_KEYS},
        {0x49, 0x5003},    /* video mode 3, 80 columns */
        {0x4c, 0x1000},    /* bytes of a text page */
        {0x60, 0x0d0e},    /* cursor: lines */
        {0x63, 0x3d4},     /* CRT controller */
        {0x80, BIOS_KEYS}, /* the ring's bounds */
        {0x82, BIOS_KEYS_END},
        {0x84, 24}, /* last row */
        {0x85, 16}, /* lines of a character */
    };
    static const uint8_t extended_kib = 1;
    uint8_t area[0x100] = {0};

    for (size_t k = 0; k < ARRAY_SIZE(words); k++)
        boot_set(area, words[k].at, 2, words[k].val);
    boot_put(j, BOOT_BIOS_DATA, area, sizeof(area));
    boot_put(j, BOOT_LOW_END, &extended_kib, 1);
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
    boot_put_bios(&j);
    put_bios_data(&j);
    rc = load_as(&j, cfg->protocol);
    return rc ? rc : check_modules(&j);
}
