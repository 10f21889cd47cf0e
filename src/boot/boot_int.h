/* What the loaders share; see boot.h. */
#ifndef BOOT_BOOT_INT_H
#define BOOT_BOOT_INT_H

#include "boot/boot.h"

/* Below 1 MiB, clear of the BIOS data area, the EBDA's place and the ACPI tables. */
#define BOOT_GDT 0x1000u
#define BOOT_TABLES 0x10000u  /* 6 pages: identity map of 4 GiB */
#define BOOT_PARAMS 0x20000u  /* zero page, start info */
#define BOOT_CMDLINE 0x30000u /* at most 64 KiB */
#define BOOT_STACK 0x9f000u
#define BOOT_LOW_END 0x9fc00u
#define BOOT_HIGH 0x100000u
#define BOOT_RANGES 16u

struct boot_file {
    const char *path;
    uint8_t *data;
    uint64_t size;
};

struct boot_image {
    struct boot_file kernel, initrd; /* initrd.path NULL: none */
};

struct boot_job {
    const struct boot_image *image;
    struct vcpu *v;
    struct mem *m;
    const struct boot_config *cfg;
    const char *cmdline;
    char *why;
    size_t why_size;
};

struct boot_range {
    uint64_t start, size;
    uint32_t type; /* E820: 1 RAM, 2 reserved */
};

/* Writes the sentence; always -EINVAL. */
int boot_refuse(const struct boot_job *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
unsigned boot_map(const struct boot_job *j, struct boot_range out[BOOT_RANGES]);
bool boot_put(const struct boot_job *j, uint64_t at, const void *data, uint64_t len);
int boot_put_cmdline(const struct boot_job *j, uint64_t limit);
/* Places the initrd as high as it goes in [FLOOR, CEILING). */
int boot_put_initrd(const struct boot_job *j, uint64_t floor, uint64_t ceiling,
                    uint64_t *at);
void boot_enter_flat32(struct vcpu *v, uint16_t code, uint16_t data, uint64_t entry);
int boot_enter_long(const struct boot_job *j, uint16_t code, uint16_t data,
                    uint64_t entry);

int boot_linux(const struct boot_job *j);
bool boot_linux_probe(const struct boot_file *f);

#endif
