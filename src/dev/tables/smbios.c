/*
 * SMBIOS tables. SMBIOS Reference Specification 2.8, "Structure definitions".
 *
 * Linux before 2.6.33 or so uses ACPI only when type 0 has a date from 2001 on; others
 * name the machine by type 1 and count its memory by types 16 to 19. What this board has
 * no word for is "unknown" or "other" in each structure's own way.
 */
#include "dev/tables/smbios.h"

#include <errno.h>
#include <string.h>

#include "dev/tables/table.h"

#define ENTRY_SIZE 31u
#define ENTRY_SPACE 32u
#define MAX_CPUS 64u
#define NONE 0xffffu
#define NO_ERROR_INFORMATION 0xfffeu

/* Handles: the type in the high byte, a number in the low one. */
#define HANDLE(type, n) ((type) << 8 | (n))

enum {
    BIOS = 0,
    SYSTEM = 1,
    CHASSIS = 3,
    PROCESSOR = 4,
    MEMORY_ARRAY = 16,
    MEMORY_DEVICE = 17,
    ARRAY_ADDRESS = 19,
    BOOT = 32,
    END = 127,
};

struct builder {
    uint8_t buf[SMBIOS_MAX_SIZE];
    uint32_t len, largest;
    unsigned count;
    uint32_t start; /* of the structure that is being made */
    unsigned strings;
};

/* Begins a structure of SIZE bytes, zero but for its header. */
static uint8_t *begin(struct builder *b, unsigned type, unsigned n, unsigned size) {
    uint8_t *s = b->buf + b->len;

    b->start = b->len;
    b->strings = 0;
    b->count++;
    b->len += size;
    s[0] = (uint8_t)type;
    s[1] = (uint8_t)size;
    table_put(s + 2, HANDLE(type, n), 2);
    return s;
}

/* Adds a string behind the structure; its number. */
static uint8_t string(struct builder *b, const char *text) {
    do {
        b->buf[b->len++] = (uint8_t)*text;
    } while (*text++);
    return (uint8_t)++b->strings;
}

/* The set of strings ends with an empty one; a set without any has two zero bytes. */
static void finish(struct builder *b) {
    b->len += b->strings ? 1 : 2;
    if (b->len - b->start > b->largest)
        b->largest = b->len - b->start;
}

static void put_bios(struct builder *b) {
    uint8_t *s = begin(b, BIOS, 0, 0x18);

    s[0x04] = string(b, "bivisor");
    s[0x05] = string(b, "1");
    table_put(s + 0x06, 0xf000, 2); /* segment */
    s[0x08] = string(b, "01/01/2024");
    s[0x09] = 0;                        /* 64 KiB */
    table_put(s + 0x0a, 1u << 3, 8);    /* no characteristics are told */
    s[0x12] = 0x01;                     /* but ACPI */
    s[0x13] = 0x10;                     /* and that the machine is a virtual one */
    table_put(s + 0x14, 0xffffffff, 4); /* no release numbers */
    finish(b);
}

static void put_system(struct builder *b) {
    uint8_t *s = begin(b, SYSTEM, 0, 0x1b);

    s[0x04] = string(b, "bivisor");
    s[0x05] = string(b, "PC");
    s[0x06] = string(b, "1");
    /* No serial number; a UUID of zeros: none. */
    s[0x18] = 6; /* started by its power switch */
    finish(b);
}

static void put_chassis(struct builder *b) {
    uint8_t *s = begin(b, CHASSIS, 0, 0x16);

    s[0x04] = string(b, "bivisor");
    s[0x05] = 1;                     /* other */
    s[0x09] = s[0x0a] = s[0x0b] = 3; /* safe: boot-up, power, temperature */
    s[0x0c] = 2;                     /* security: unknown */
    finish(b);
}

/* One package: each CPU is a core of its. */
static void put_processor(struct builder *b, const struct smbios_config *cfg) {
    uint8_t *s = begin(b, PROCESSOR, 0, 0x2a);
    char maker[13] = {0};

    memcpy(maker, cfg->cpu_maker, sizeof(cfg->cpu_maker));
    s[0x04] = string(b, "CPU 00");
    s[0x05] = 3; /* central processor */
    s[0x06] = 1; /* family: other */
    if (maker[0])
        s[0x07] = string(b, maker);
    table_put(s + 0x08, cfg->signature, 4);
    table_put(s + 0x0c, cfg->features, 4);
    s[0x18] = 0x41;               /* populated, enabled */
    s[0x19] = 1;                  /* socket: other */
    table_put(s + 0x1a, NONE, 2); /* caches */
    table_put(s + 0x1c, NONE, 2);
    table_put(s + 0x1e, NONE, 2);
    s[0x23] = s[0x24] = s[0x25] = (uint8_t)cfg->cpus; /* cores, enabled ones, threads */
    /* can do 64 bits; has several cores */
    table_put(s + 0x26, 1u << 2 | (cfg->cpus > 1 ? 1u << 3 : 0), 2);
    table_put(s + 0x28, 1, 2); /* family: other */
    finish(b);
}

static void put_memory_array(struct builder *b, uint64_t ram) {
    uint8_t *s = begin(b, MEMORY_ARRAY, 0, 0x17);
    bool large = ram >> 10 >= 0x80000000u;

    s[0x04] = 1; /* location: other */
    s[0x05] = 3; /* system memory */
    s[0x06] = 3; /* no error correction */
    table_put(s + 0x07, large ? 0x80000000u : ram >> 10, 4);
    table_put(s + 0x0b, NO_ERROR_INFORMATION, 2);
    table_put(s + 0x0d, 1, 2); /* devices */
    table_put(s + 0x0f, large ? ram : 0, 8);
    finish(b);
}

static void put_memory_device(struct builder *b, uint64_t ram) {
    uint8_t *s = begin(b, MEMORY_DEVICE, 0, 0x28);
    uint64_t mib = ram >> 20;

    table_put(s + 0x04, HANDLE(MEMORY_ARRAY, 0), 2);
    table_put(s + 0x06, NO_ERROR_INFORMATION, 2);
    table_put(s + 0x08, NONE, 2); /* widths: unknown */
    table_put(s + 0x0a, NONE, 2);
    /* In MiB, or with bit 15 set in KiB. */
    if (ram & 0xfffff && ram >> 10 < 0x7fff)
        table_put(s + 0x0c, 0x8000 | ram >> 10, 2);
    else
        table_put(s + 0x0c, mib < 0x7fff ? mib : 0x7fff, 2);
    s[0x0e] = 1; /* form: other */
    s[0x10] = string(b, "RAM");
    s[0x12] = 7;               /* RAM */
    table_put(s + 0x13, 2, 2); /* detail: other */
    table_put(s + 0x1c, mib < 0x7fff ? 0 : mib, 4);
    finish(b);
}

static void put_address(struct builder *b, unsigned n, uint64_t start, uint64_t end) {
    uint8_t *s = begin(b, ARRAY_ADDRESS, n, 0x1f);
    bool large = (end - 1) >> 10 >= 0xffffffff;

    table_put(s + 0x04, large ? 0xffffffff : start >> 10, 4);
    table_put(s + 0x08, large ? 0xffffffff : (end - 1) >> 10, 4);
    table_put(s + 0x0c, HANDLE(MEMORY_ARRAY, 0), 2);
    s[0x0e] = 1; /* one device */
    table_put(s + 0x0f, large ? start : 0, 8);
    table_put(s + 0x17, large ? end - 1 : 0, 8);
    finish(b);
}

static void put_structures(struct builder *b, const struct smbios_config *cfg) {
    uint64_t low = cfg->ram < MEM_HOLE_START ? cfg->ram : MEM_HOLE_START;

    put_bios(b);
    put_system(b);
    put_chassis(b);
    put_processor(b, cfg);
    put_memory_array(b, cfg->ram);
    put_memory_device(b, cfg->ram);
    put_address(b, 0, 0, low);
    if (cfg->ram > low)
        put_address(b, 1, MEM_HOLE_END, MEM_HOLE_END + cfg->ram - low);
    begin(b, BOOT, 0, 0x0b); /* no errors */
    finish(b);
    begin(b, END, 0, 4);
    finish(b);
}

int smbios_build(struct mem *m, struct gpa where, const struct smbios_config *cfg) {
    struct builder b = {.len = ENTRY_SPACE};
    uint8_t *e = b.buf;

    if (!cfg->cpus || cfg->cpus > MAX_CPUS || cfg->ram > MEM_MAX_RAM || (where.a & 15) ||
        where.a > 0xffffffffu - sizeof(b.buf))
        return -EINVAL;
    put_structures(&b, cfg);
    memcpy(e, "_SM_", 4);
    e[0x05] = ENTRY_SIZE;
    e[0x06] = 2;
    e[0x07] = 8;
    table_put(e + 0x08, b.largest, 2);
    memcpy(e + 0x10, "_DMI_", 5);
    table_put(e + 0x16, b.len - ENTRY_SPACE, 2);
    table_put(e + 0x18, where.a + ENTRY_SPACE, 4);
    table_put(e + 0x1c, b.count, 2);
    e[0x1e] = 0x28;
    e[0x15] = table_checksum(e + 0x10, ENTRY_SIZE - 0x10);
    e[0x04] = table_checksum(e, ENTRY_SIZE);
    return mem_write(m, where, b.buf, b.len) ? 0 : -EFAULT;
}
