/* What the loaders share; see boot.h. */
#ifndef BOOT_BOOT_INT_H
#define BOOT_BOOT_INT_H

#include "boot/boot.h"

#include <string.h>

/* Below 1 MiB. But for the BIOS's own, clear of its data area, of the extended one and of
 * the ACPI tables. */
#define BOOT_BIOS_DATA 0x400u
#define BOOT_TABLES 0x10000u  /* 6 pages: identity map of 4 GiB */
#define BOOT_PARAMS 0x20000u  /* at most 64 KiB: zero page, start info, multiboot info */
#define BOOT_CMDLINE 0x30000u /* at most 64 KiB */
#define BOOT_GDT 0x40000u     /* above the zero page: see linux.c */
#define BOOT_STACK 0x9f000u
#define BOOT_LOW_END 0x9fc00u
#define BOOT_HIGH 0x100000u
#define BOOT_RANGES 80u /* RAM and ROM: 67 pieces at most; the low area adds a few */
#define BOOT_FILE_MAX (4ull << 30)
#define BOOT_SEGMENTS 64u
#define BOOT_MULTIBOOT_MAGIC 0x2badb002u /* in EAX, as no other protocol has it */

struct boot_file {
    const char *path;
    uint8_t *data;
    uint64_t size;
    bool borrowed; /* the bytes are the caller's */
    bool waits;    /* open as FD, LEFT bytes are still to be read */
    int fd;
    uint64_t left;
};

struct boot_module {
    struct boot_file file;
    const char *args; /* may be NULL */
};

struct boot_image {
    struct boot_file kernel, initrd; /* path NULL: none */
    struct boot_file firmware;       /* instead; path NULL: none */
    struct boot_module *modules;
    size_t module_count;
    bool later; /* what is added waits for boot_image_read() */
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
    uint32_t type; /* BOOT_RAM..: E820, multiboot and PVH agree on the numbers */
};

enum { BOOT_RAM = 1, BOOT_RESERVED = 2, BOOT_ACPI = 3 };

/* An ELF file that passed the checks of boot_elf_parse(). */
struct boot_elf {
    bool is64;
    uint64_t entry; /* physical when it lies in a segment that has such a place */
    unsigned phnum, phentsize;
    uint64_t phoff;
    uint64_t top; /* end of the highest segment */
    unsigned count;
    struct boot_segment {
        uint64_t offset, filesz, at, memsz, virt;
    } seg[BOOT_SEGMENTS];
};

/* A little-endian field; the caller has checked that it is there. */
static inline uint64_t boot_get(const uint8_t *p, uint64_t off, unsigned len) {
    uint64_t v = 0;

    memcpy(&v, p + off, len);
    return v;
}

static inline void boot_set(uint8_t *p, uint64_t off, unsigned len, uint64_t v) {
    memcpy(p + off, &v, len);
}

/* Whether [AT, AT+LEN) lies in an area of SIZE bytes. */
static inline bool boot_within(uint64_t at, uint64_t len, uint64_t size) {
    return at <= size && len <= size - at;
}

/* --- place.c --- */
/* Writes the sentence; always -EINVAL. */
int boot_refuse(const struct boot_job *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
unsigned boot_map(const struct boot_job *j, struct boot_range out[BOOT_RANGES]);
/* Whether all of [AT, AT+LEN) is RAM that a kernel may be loaded to: from 1 MiB to 4 GiB,
 * clear of the ACPI tables. */
bool boot_ram_holds(const struct boot_job *j, uint64_t at, uint64_t len);
/* The same, and below 1 MiB what a PC has there. */
bool boot_ram_holds_low(const struct boot_job *j, uint64_t at, uint64_t len);
bool boot_put(const struct boot_job *j, uint64_t at, const void *data, uint64_t len);
/* The command line, of at most LIMIT characters, to AT. */
int boot_put_cmdline(const struct boot_job *j, uint64_t at, uint64_t limit);
/* The last part of a path: what a kernel is told of a file's name. */
const char *boot_file_name(const struct boot_file *f);
/* Places a file, page-aligned, as high as it goes in [FLOOR, CEILING); WHAT it is. */
int boot_put_file(const struct boot_job *j, const struct boot_file *f, const char *what,
                  uint64_t floor, uint64_t ceiling, uint64_t *at);
/* The same for the initrd. */
int boot_put_initrd(const struct boot_job *j, uint64_t floor, uint64_t ceiling,
                    uint64_t *at);

/* --- bios.c --- */
/* The board's ROM: before anything else, and after the machine's own tables. */
void boot_put_bios(const struct boot_job *j);
/* What a BIOS leaves in RAM. */
void boot_put_bios_data(const struct boot_job *j);

/* --- firmware.c --- */
/* Memory as it is after a reset. */
int boot_firmware(const struct boot_job *j);

/* --- enter.c --- */
/* GDT: where it goes; CODE and DATA, its selectors, are below 20h. */
void boot_enter_flat32(struct vcpu *v, uint64_t gdt_at, uint16_t code, uint16_t data,
                       uint64_t entry);
int boot_enter_long(const struct boot_job *j, uint16_t code, uint16_t data,
                    uint64_t entry);

/* --- the loaders --- */
/* A probe looks at the magic numbers only. The loaders refuse with a sentence. */
int boot_linux(const struct boot_job *j);
int boot_linux16(const struct boot_job *j);
bool boot_linux_probe(const struct boot_file *f);
bool boot_elf_probe(const struct boot_file *f);
int boot_elf_parse(const struct boot_job *j, struct boot_elf *e);
/* The same, with segments below 1 MiB too, where there is RAM. */
int boot_elf_parse_low(const struct boot_job *j, struct boot_elf *e);
/* Whether an address lies in what is loaded. */
bool boot_elf_holds(const struct boot_elf *e, uint64_t at);
/* Copies the segments; they were checked. */
void boot_elf_load(const struct boot_job *j, const struct boot_elf *e);
bool boot_pvh_probe(const struct boot_file *f, const struct boot_elf *e, uint64_t *entry);
int boot_pvh(const struct boot_job *j);
bool boot_multiboot_probe(const struct boot_file *f, uint64_t *offset);
int boot_multiboot(const struct boot_job *j);

#endif
