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
    free(image);
}

int boot_refuse(const struct boot_job *j, const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(j->why, j->why_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* RAM as the guest may use it; 0x9fc00..1 MiB is reserved (EBDA, video, ACPI tables). */
unsigned boot_map(const struct boot_job *j, struct boot_range out[BOOT_RANGES]) {
    size_t count;
    const struct mem_region *r = mem_regions(j->m, &count);
    unsigned n = 0;

    out[n++] = (struct boot_range){0, BOOT_LOW_END, 1};
    out[n++] = (struct boot_range){BOOT_LOW_END, BOOT_HIGH - BOOT_LOW_END, 2};
    for (size_t i = 0; i < count && n < BOOT_RANGES; i++) {
        uint64_t start = r[i].start.a, end = start + r[i].size;

        if (end <= BOOT_HIGH)
            continue;
        if (start < BOOT_HIGH)
            start = BOOT_HIGH;
        out[n++] = (struct boot_range){start, end - start, r[i].kind == MEM_RAM ? 1 : 2};
    }
    return n;
}

bool boot_put(const struct boot_job *j, uint64_t at, const void *data, uint64_t len) {
    return !len || mem_write(j->m, gpa(at), data, len);
}

int boot_put_cmdline(const struct boot_job *j, uint64_t limit) {
    uint64_t len = strlen(j->cmdline);

    if (len > limit)
        return boot_refuse(j, "the command line has %llu characters; %s takes %llu",
                           (unsigned long long)len, j->image->kernel.path,
                           (unsigned long long)limit);
    boot_put(j, BOOT_CMDLINE, j->cmdline, len + 1);
    return 0;
}

int boot_put_initrd(const struct boot_job *j, uint64_t floor, uint64_t ceiling,
                    uint64_t *at) {
    const struct boot_file *f = &j->image->initrd;
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    while (n--) {
        uint64_t lo = map[n].start, hi = lo + map[n].size;

        lo = lo < floor ? floor : lo;
        hi = hi > ceiling ? ceiling : hi;
        if (map[n].type != 1 || lo >= hi || hi - lo < f->size)
            continue;
        *at = (hi - f->size) & ~0xfffull;
        if (*at >= lo && boot_put(j, *at, f->data, f->size))
            return 0;
    }
    return boot_refuse(j,
                       "initrd %s (%llu KiB) does not fit in guest memory beside the "
                       "kernel; give --memory more",
                       f->path, (unsigned long long)f->size >> 10);
}

static void flat(struct segment *s, uint16_t sel, uint16_t ar) {
    *s = (struct segment){.sel = sel, .ar = ar, .limit = 0xffffffff};
}

static void enter_common(struct vcpu *v, uint16_t code, uint16_t data, uint16_t code_ar,
                         uint64_t entry) {
    static const uint8_t data_segs[] = {SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS};
    const uint16_t data_ar =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G;

    flat(&v->seg[SEG_CS], code, code_ar);
    for (size_t i = 0; i < ARRAY_SIZE(data_segs); i++)
        flat(&v->seg[data_segs[i]], data, data_ar);
    v->tr = (struct segment){.ar = X86_AR_P | X86_DESC_TSS32_BUSY, .limit = 0x67};
    v->idtr = (struct desc_table){0};
    v->gdtr = (struct desc_table){.base = BOOT_GDT, .limit = 0x1f};
    v->cr0 = X86_CR0_PE | X86_CR0_ET;
    v->rflags = X86_FL_ONE;
    v->rip = entry;
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0;
    v->gpr[REG_RSP] = BOOT_STACK;
}

/* The descriptors in memory match the hidden state: slot 2 and 3, and slot 1 for PVH. */
static void put_gdt(struct mem *m, bool is64) {
    const uint64_t gdt[4] = {0, 0x00cf9b000000ffffull,
                             is64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull,
                             0x00cf93000000ffffull};

    mem_write(m, gpa(BOOT_GDT), gdt, sizeof(gdt));
}

#define CODE_AR                                                                          \
    (X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_G)

void boot_enter_flat32(struct vcpu *v, uint16_t code, uint16_t data, uint64_t entry) {
    enter_common(v, code, data, CODE_AR | X86_AR_DB, entry);
    put_gdt(v->mem, false);
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
    enter_common(v, code, data, CODE_AR | X86_AR_L, entry);
    put_gdt(j->m, true);
    v->cr0 |= X86_CR0_PG;
    v->cr3 = BOOT_TABLES;
    v->cr4 = X86_CR4_PAE;
    v->efer = X86_EFER_LME | X86_EFER_LMA;
    vcpu_update_mode(v);
    return 0;
}

int boot_image_load(const struct boot_image *image, struct vcpu *v, struct mem *m,
                    const struct boot_config *cfg, char *why, size_t why_size) {
    struct boot_job j = {image, v,       m, cfg, cfg->cmdline ? cfg->cmdline : "",
                         why,   why_size};

    vcpu_reset(v);
    v->mem = m;
    if (cfg->protocol == BOOT_PVH || cfg->protocol == BOOT_MULTIBOOT)
        return boot_refuse(&j,
                           "%s cannot be booted: only the Linux bzImage protocols are "
                           "supported; use --boot-protocol auto, linux32 or linux64",
                           image->kernel.path);
    if (!boot_linux_probe(&image->kernel))
        return boot_refuse(&j,
                           "%s is no Linux bzImage; give the file that the "
                           "distribution installs as /boot/vmlinuz",
                           image->kernel.path);
    return boot_linux(&j);
}
