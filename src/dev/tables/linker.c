/*
 * From finished tables to commands; see linker.h. No guest runs here (lint: no guest runs
 * here).
 *
 * What is a pointer is known from the tables' formats (ACPI Specification 6, "Root System
 * Description Pointer", "Extended System Description Table", "Fixed ACPI Description
 * Table"): nothing else in them is an address of a table. Pointers come first, then the
 * sums over what they have changed.
 */
#include "dev/tables/linker.h"

#include <errno.h>
#include <string.h>

#include "dev/tables/table.h"

enum { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

#define NAME 56u
#define HEADER 36u

struct work {
    struct linker *l;
    uint64_t base;
    bool bad;
};

static uint64_t get(const uint8_t *at, unsigned size) {
    uint64_t v = 0;

    memcpy(&v, at, size);
    return v;
}

static uint8_t *command(struct work *w, uint32_t what) {
    struct linker *l = w->l;
    uint8_t *c = l->commands + l->commands_len;

    if (l->commands_len == sizeof(l->commands)) {
        w->bad = true;
        return l->commands;
    }
    l->commands_len += LINKER_COMMAND;
    table_put(c, what, 4);
    return c + 4;
}

static void allocate(struct work *w, const char *file, uint32_t align, uint8_t zone) {
    uint8_t *c = command(w, ALLOCATE);

    strcpy((char *)c, file);
    table_put(c + NAME, align, 4);
    c[NAME + 4] = zone;
}

/* The field of SIZE bytes at AT of FILE, whose bytes are DATA, holds a table's address,
 * or 0. That table's offset, or 0. */
static uint32_t pointer(struct work *w, const char *file, uint8_t *data, uint32_t at,
                        unsigned size) {
    uint64_t value = get(data + at, size), to = value - w->base;
    uint8_t *c;

    if (!value)
        return 0;
    if (value < w->base || to > w->l->tables_len - HEADER) {
        w->bad = true;
        return 0;
    }
    table_put(data + at, to, size);
    c = command(w, ADD_POINTER);
    strcpy((char *)c, file);
    strcpy((char *)c + NAME, LINKER_TABLES_FILE);
    table_put(c + 2 * NAME, at, 4);
    c[2 * NAME + 4] = (uint8_t)size;
    return (uint32_t)to;
}

static void checksum(struct work *w, const char *file, uint8_t *data, uint32_t at,
                     uint32_t start, uint32_t len) {
    uint8_t *c = command(w, ADD_CHECKSUM);

    data[at] = 0;
    strcpy((char *)c, file);
    table_put(c + NAME, at, 4);
    table_put(c + NAME + 4, start, 4);
    table_put(c + NAME + 8, len, 4);
}

/* The length of the table at an offset, checked. */
static uint32_t length_of(struct work *w, uint32_t at) {
    uint32_t len = (uint32_t)get(w->l->tables + at + 4, 4);

    if (len >= HEADER && len <= w->l->tables_len - at)
        return len;
    w->bad = true;
    return HEADER;
}

static void table(struct work *w, uint32_t at) {
    checksum(w, LINKER_TABLES_FILE, w->l->tables, at + 9, at, length_of(w, at));
}

static void fadt(struct work *w, uint32_t at) {
    static const struct {
        uint8_t at, size;
    } fields[] = {{36, 4}, {40, 4}, {132, 8}, {140, 8}};
    uint32_t len = length_of(w, at);

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (fields[i].at + fields[i].size <= len)
            pointer(w, LINKER_TABLES_FILE, w->l->tables, at + fields[i].at,
                    fields[i].size);
}

/* A table of tables. Those of the one with 64-bit pointers, which has them all, are gone
 * through. */
static void root(struct work *w, uint32_t at, unsigned size) {
    uint32_t len = length_of(w, at);

    for (uint32_t e = HEADER; e + size <= len && !w->bad; e += size) {
        uint32_t to = pointer(w, LINKER_TABLES_FILE, w->l->tables, at + e, size);

        if (size == 8 && to) {
            if (!memcmp(w->l->tables + to, "FACP", 4))
                fadt(w, to);
            table(w, to);
        }
    }
    table(w, at);
}

int linker_build(struct linker *l, uint8_t *tables, uint32_t len, uint64_t base) {
    struct work w = {.l = l, .base = base};
    uint32_t rsdt, xsdt;

    if (len < 2 * HEADER || memcmp(tables, "RSD PTR ", 8))
        return -EINVAL;
    *l = (struct linker){.tables = tables, .tables_len = len};
    memcpy(l->rsdp, tables, sizeof(l->rsdp));
    memset(tables, 0, sizeof(l->rsdp)); /* that place stays empty */
    allocate(&w, LINKER_RSDP_FILE, 16, ZONE_FSEG);
    allocate(&w, LINKER_TABLES_FILE, 64, ZONE_HIGH);
    rsdt = pointer(&w, LINKER_RSDP_FILE, l->rsdp, 16, 4);
    xsdt = pointer(&w, LINKER_RSDP_FILE, l->rsdp, 24, 8);
    if (!rsdt || !xsdt)
        return -EINVAL;
    root(&w, xsdt, 8);
    root(&w, rsdt, 4);
    checksum(&w, LINKER_RSDP_FILE, l->rsdp, 8, 0, 20);
    checksum(&w, LINKER_RSDP_FILE, l->rsdp, 32, 0, sizeof(l->rsdp));
    return w.bad ? -EINVAL : 0;
}
