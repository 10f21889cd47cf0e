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
    BASEBOARD = 2,
    CHASSIS = 3,
    PROCESSOR = 4,
    OEM_STRINGS = 11,
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
    const struct smbios_identity *identity;
    uint32_t room; /* for the identity's strings */
    bool full;     /* there was too little */
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

/* The same with one of the identity's, none if it is empty. */
static uint8_t told_string(struct builder *b, const char *text) {
    uint32_t size = 1;

    if (!*text)
        return 0;
    while (size <= b->room && text[size - 1])
        size++;
    if (size > b->room) {
        b->full = true;
        return 0;
    }
    b->room -= size;
    return string(b, text);
}

/* T, if it was said, else the board's OWN, which may be NULL. */
static uint8_t text_of(struct builder *b, enum smbios_text t, const char *own) {
    const char *told = b->identity ? b->identity->text[t] : NULL;

    if (told)
        return told_string(b, told);
    return own ? string(b, own) : 0;
}

/* The set of strings ends with an empty one; a set without any has two zero bytes. */
static void finish(struct builder *b) {
    b->len += b->strings ? 1 : 2;
    if (b->len - b->start > b->largest)
        b->largest = b->len - b->start;
}

static void put_bios(struct builder *b) {
    uint8_t *s = begin(b, BIOS, 0, 0x18);

    s[0x04] = text_of(b, SMBIOS_BIOS_VENDOR, "bivisor");
    s[0x05] = text_of(b, SMBIOS_BIOS_VERSION, "1");
    table_put(s + 0x06, 0xf000, 2); /* segment */
    s[0x08] = text_of(b, SMBIOS_BIOS_DATE, "01/01/2024");
    s[0x09] = 0;                        /* 64 KiB */
    table_put(s + 0x0a, 1u << 3, 8);    /* no characteristics are told */
    s[0x12] = 0x01;                     /* but ACPI */
    s[0x13] = 0x10;                     /* and that the machine is a virtual one */
    table_put(s + 0x14, 0xffffffff, 4); /* no release numbers */
    finish(b);
}

/* The first three fields with their low bytes first ("System UUID"); zeros: none. */
static void put_uuid(uint8_t *to, const struct smbios_identity *identity) {
    static const uint8_t order[16] = {3, 2, 1,  0,  5,  4,  7,  6,
                                      8, 9, 10, 11, 12, 13, 14, 15};

    for (unsigned n = 0; identity && identity->has_uuid && n < 16; n++)
        to[n] = identity->uuid[order[n]];
}

static void put_system(struct builder *b) {
    uint8_t *s = begin(b, SYSTEM, 0, 0x1b);

    s[0x04] = text_of(b, SMBIOS_SYSTEM_MAKER, "bivisor");
    s[0x05] = text_of(b, SMBIOS_SYSTEM_PRODUCT, "PC");
    s[0x06] = text_of(b, SMBIOS_SYSTEM_VERSION, "1");
    s[0x07] = text_of(b, SMBIOS_SYSTEM_SERIAL, NULL);
    put_uuid(s + 0x08, b->identity);
    s[0x18] = 6; /* started by its power switch */
    s[0x19] = text_of(b, SMBIOS_SYSTEM_SKU, NULL);
    s[0x1a] = text_of(b, SMBIOS_SYSTEM_FAMILY, NULL);
    finish(b);
}

/* Only where something was said of it. */
static void put_baseboard(struct builder *b) {
    bool told = false;
    uint8_t *s;

    for (unsigned t = SMBIOS_BOARD_MAKER; b->identity && t <= SMBIOS_BOARD_TAG; t++)
        told |= b->identity->text[t] != NULL;
    if (!told)
        return;
    s = begin(b, BASEBOARD, 0, 0x0f);
    s[0x04] = text_of(b, SMBIOS_BOARD_MAKER, "bivisor");
    s[0x05] = text_of(b, SMBIOS_BOARD_PRODUCT, NULL);
    s[0x06] = text_of(b, SMBIOS_BOARD_VERSION, NULL);
    s[0x07] = text_of(b, SMBIOS_BOARD_SERIAL, NULL);
    s[0x08] = text_of(b, SMBIOS_BOARD_TAG, NULL);
    s[0x09] = 1; /* the one that has the CPU */
    table_put(s + 0x0b, HANDLE(CHASSIS, 0), 2);
    s[0x0d] = 0x0a; /* motherboard */
    finish(b);
}

static void put_oem_strings(struct builder *b) {
    unsigned count = b->identity ? b->identity->oem_count : 0;
    uint8_t *s;

    if (!count)
        return;
    s = begin(b, OEM_STRINGS, 0, 0x05);
    for (unsigned n = 0; n < count; n++)
        s[0x04] = told_string(b, b->identity->oem[n]) ?: s[0x04];
    finish(b);
}

static void put_chassis(struct builder *b) {
    uint8_t *s = begin(b, CHASSIS, 0, 0x16);

    s[0x04] = text_of(b, SMBIOS_CHASSIS_MAKER, "bivisor");
    s[0x05] = 1; /* other */
    s[0x06] = text_of(b, SMBIOS_CHASSIS_VERSION, NULL);
    s[0x07] = text_of(b, SMBIOS_CHASSIS_SERIAL, NULL);
    s[0x08] = text_of(b, SMBIOS_CHASSIS_TAG, NULL);
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
    put_baseboard(b);
    put_chassis(b);
    put_processor(b, cfg);
    put_oem_strings(b);
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
    struct builder b = {
        .len = ENTRY_SPACE, .identity = cfg->identity, .room = SMBIOS_ROOM};
    uint8_t *e = b.buf;

    if (!cfg->cpus || cfg->cpus > MAX_CPUS || cfg->ram > MEM_MAX_RAM || (where.a & 15) ||
        where.a > 0xffffffffu - sizeof(b.buf))
        return -EINVAL;
    put_structures(&b, cfg);
    if (b.full)
        return -ENOSPC;
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
