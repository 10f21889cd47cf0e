/*
 * Which CPUs the machine has, by the tables of its firmware: the MADT (ACPI
 * Specification, "Multiple APIC Description Table (MADT)"), found by the RSDP in the
 * BIOS's memory; where there is no ACPI, the MP configuration table (MultiProcessor
 * Specification, version 1.4, "MP Configuration Table"). Nothing of a table whose
 * checksum is wrong is believed. CPUs with IDs that need an x2APIC are left alone. And
 * where the MADT leads ISA interrupts.
 */
#include <string.h>

#include "bare/bare_int.h"

#define EBDA_SEGMENT 0x40eu /* in the BIOS's data area */
#define BASE_MEMORY 0x413u  /* the same; in KiB */
#define BIOS_AREA 0xe0000u
#define BIOS_END 0x100000u
#define KIB 1024u
#define TABLE_MAX 65536u

struct __attribute__((packed)) rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
};
struct __attribute__((packed)) header { /* of ACPI's tables */
    char signature[4];
    uint32_t length;
    uint8_t rest[28];
};
struct __attribute__((packed)) floating { /* MP floating pointer structure */
    char signature[4];
    uint32_t table;
    uint8_t rest[8];
};
struct __attribute__((packed)) mp_header {
    char signature[4];
    uint16_t length;
    uint8_t rest[28];
    uint16_t entries;
    uint8_t more[8];
};

struct found {
    bare_look *look;
    uint8_t *id;
    unsigned max, count;
};

static void add(struct found *f, uint8_t id) {
    if (f->count < f->max)
        f->id[f->count++] = id;
}

static bool sums_up(const uint8_t *p, uint64_t len) {
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return !sum;
}

static uint32_t word_at(bare_look *look, uint64_t at) {
    const uint8_t *p = look(at, 2);

    return p ? *(const unaligned_u16 *)p : 0;
}

/* A structure of LEN bytes on a boundary of 16 in [FROM, END), whose checksum is right.
 */
static const void *scan(bare_look *look, uint64_t from, uint64_t end,
                        const char *signature, uint64_t len) {
    for (uint64_t at = from; at + len <= end; at += 16) {
        const uint8_t *p = look(at, len);

        if (p && !memcmp(p, signature, strlen(signature)) && sums_up(p, len))
            return p;
    }
    return NULL;
}

/* Where both specifications have their structures looked for. */
static const void *search(bare_look *look, const char *signature, uint64_t len) {
    uint64_t ebda = (uint64_t)word_at(look, EBDA_SEGMENT) << 4;
    uint64_t top = (uint64_t)word_at(look, BASE_MEMORY) * KIB;
    const void *p = ebda ? scan(look, ebda, ebda + KIB, signature, len) : NULL;

    if (!p && top >= KIB)
        p = scan(look, top - KIB, top, signature, len);
    return p ? p : scan(look, BIOS_AREA, BIOS_END, signature, len);
}

/* --- ACPI --- */

static const struct header *table(bare_look *look, uint64_t at, const char *signature) {
    const struct header *h = (const void *)look(at, sizeof(*h));

    if (!h || memcmp(h->signature, signature, 4) || h->length < sizeof(*h) ||
        h->length > TABLE_MAX || !look(at, h->length))
        return NULL;
    return sums_up((const uint8_t *)h, h->length) ? h : NULL;
}

/* The MADT that the list of tables ROOT names, by addresses of WIDTH bytes. */
static const struct header *madt_in(bare_look *look, const struct header *root,
                                    unsigned width) {
    const uint8_t *p = (const uint8_t *)(root + 1), *end;
    const struct header *madt = NULL;

    end = (const uint8_t *)root + root->length;
    for (; !madt && p + width <= end; p += width)
        madt = table(look,
                     width == 8 ? *(const unaligned_u64 *)p : *(const unaligned_u32 *)p,
                     "APIC");
    return madt;
}

static const struct header *find_madt(bare_look *look) {
    const struct rsdp *r = search(look, "RSD PTR ", 20);
    const struct header *xsdt = NULL, *rsdt;

    if (!r)
        return NULL;
    if (r->revision >= 2)
        xsdt = table(look, r->xsdt, "XSDT");
    if (xsdt)
        return madt_in(look, xsdt, 8);
    rsdt = table(look, r->rsdt, "RSDT");
    return rsdt ? madt_in(look, rsdt, 4) : NULL;
}

/* Entries of type 0: length, processor, local APIC ID, flags, of which bit 0 says that it
 * can be used. */
static void read_madt(struct found *f, const struct header *madt) {
    const uint8_t *p = (const uint8_t *)(madt + 1) + 8, *end;

    end = (const uint8_t *)madt + madt->length;
    for (; p + 2 <= end && p[1] >= 2 && p + p[1] <= end; p += p[1])
        if (p[0] == 0 && p[1] >= 8 && (p[4] & 1))
            add(f, p[3]);
}

/* Entries of type 2, "Interrupt Source Override Structure": bus, source, global system
 * interrupt, flags. */
bool bare_irq_override(bare_look *look, unsigned line, unsigned *pin, unsigned *flags) {
    const struct header *madt = find_madt(look);
    const uint8_t *p = madt ? (const uint8_t *)(madt + 1) + 8 : NULL;
    const uint8_t *end = madt ? (const uint8_t *)madt + madt->length : NULL;

    for (; p && p + 2 <= end && p[1] >= 2 && p + p[1] <= end; p += p[1]) {
        if (p[0] != 2 || p[1] < 10 || p[3] != line)
            continue;
        *pin = *(const unaligned_u32 *)(p + 4);
        *flags = *(const unaligned_u16 *)(p + 8);
        return true;
    }
    return false;
}

/* --- the MP configuration table --- */

static const struct mp_header *find_mp(bare_look *look) {
    const struct floating *at = search(look, "_MP_", sizeof(*at));
    const struct mp_header *h = at ? (const void *)look(at->table, sizeof(*h)) : NULL;

    if (!h || memcmp(h->signature, "PCMP", 4) || h->length < sizeof(*h) ||
        !look(at->table, h->length) || !sums_up((const uint8_t *)h, h->length))
        return NULL;
    return h;
}

/* A processor's entry has 20 bytes: type 0, local APIC ID, version, flags, of which bit 0
 * says that it can be used. All other entries have 8. */
static void read_mp(struct found *f, const struct mp_header *h) {
    const uint8_t *p = (const uint8_t *)(h + 1), *end = (const uint8_t *)h + h->length;
    unsigned left = h->entries;

    for (; left && p + (*p ? 8 : 20) <= end; left--, p += *p ? 8 : 20)
        if (!*p && (p[3] & 1))
            add(f, p[1]);
}

unsigned bare_cpus_find(bare_look *look, uint8_t *id, unsigned max) {
    struct found f = {look, id, max, 0};
    const struct header *madt = find_madt(look);
    const struct mp_header *mp = madt ? NULL : find_mp(look);

    if (madt)
        read_madt(&f, madt);
    else if (mp)
        read_mp(&f, mp);
    return f.count;
}
