/* AML; see aml.h. A package's length is known when it is closed: what is inside moves up
 * by as many bytes as the length takes. */
#include "dev/tables/aml.h"

#include "dev/tables/table.h"

enum { DUAL_NAME = 0x2e, MULTI_NAME = 0x2f };
enum { BYTE_PREFIX = 0x0a, WORD_PREFIX, DWORD_PREFIX, STRING_PREFIX, QWORD_PREFIX };

static void put_byte(struct aml *a, unsigned byte) {
    if (a->len >= a->max) {
        a->full = true;
        return;
    }
    a->at[a->len++] = (uint8_t)byte;
}

static void put(struct aml *a, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        put_byte(a, (uint8_t)(value >> (i * 8)));
}

void aml_bytes(struct aml *a, const void *bytes, uint32_t len) {
    const uint8_t *p = bytes;

    for (uint32_t i = 0; i < len; i++)
        put_byte(a, p[i]);
}

void aml_op(struct aml *a, unsigned op) {
    if (op > 0xff)
        put_byte(a, op >> 8);
    put_byte(a, op & 0xff);
}

/* "Name Objects Encoding" */
void aml_path(struct aml *a, const char *path) {
    unsigned parts = 1;

    if (*path == '\\')
        put_byte(a, (uint8_t)*path++);
    for (const char *p = path; *p; p++)
        parts += *p == '.';
    if (parts == 2)
        put_byte(a, DUAL_NAME);
    if (parts > 2) {
        put_byte(a, MULTI_NAME);
        put_byte(a, parts);
    }
    for (unsigned n = 0; n < parts; n++) {
        for (unsigned i = 0; i < 4; i++) /* short ones are filled up */
            put_byte(a, *path && *path != '.' ? (uint8_t)*path++ : '_');
        path += *path == '.';
    }
}

void aml_int(struct aml *a, uint64_t value) {
    if (value <= 1) {
        put_byte(a, (unsigned)value);
    } else if (value <= 0xff) {
        put_byte(a, BYTE_PREFIX);
        put(a, value, 1);
    } else if (value <= 0xffff) {
        put_byte(a, WORD_PREFIX);
        put(a, value, 2);
    } else if (value <= 0xffffffff) {
        put_byte(a, DWORD_PREFIX);
        put(a, value, 4);
    } else {
        put_byte(a, QWORD_PREFIX);
        put(a, value, 8);
    }
}

void aml_string(struct aml *a, const char *text) {
    put_byte(a, STRING_PREFIX);
    do
        put_byte(a, (uint8_t)*text);
    while (*text++);
}

static unsigned hex(char c) {
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A') + 10;
}

/* Three letters of five bits, four digits of four, the high byte first. */
void aml_eisa_id(struct aml *a, const char *id) {
    uint32_t v = ((unsigned)id[0] & 31) << 26 | ((unsigned)id[1] & 31) << 21 |
                 ((unsigned)id[2] & 31) << 16 | hex(id[3]) << 12 | hex(id[4]) << 8 |
                 hex(id[5]) << 4 | hex(id[6]);

    aml_int(a, __builtin_bswap32(v));
}

void aml_name(struct aml *a, const char *path) {
    put_byte(a, AML_NAME);
    aml_path(a, path);
}

void aml_name_int(struct aml *a, const char *path, uint64_t value) {
    aml_name(a, path);
    aml_int(a, value);
}

/* --- what has a length --- */

uint32_t aml_open(struct aml *a, unsigned op) {
    aml_op(a, op);
    return a->len;
}

/* "Package Length Encoding": the length counts itself. */
void aml_close(struct aml *a, uint32_t mark) {
    uint32_t inside = a->len - mark, len;
    unsigned more = inside + 1 < 0x40 ? 0 : inside + 2 < 0x1000 ? 1 : 2;

    if (a->max - a->len < more + 1) {
        a->full = true;
        return;
    }
    for (uint32_t i = inside; i--;)
        a->at[mark + more + 1 + i] = a->at[mark + i];
    a->len += more + 1;
    len = inside + more + 1;
    a->at[mark] = (uint8_t)(more ? more << 6 | (len & 15) : len);
    for (unsigned i = 0; i < more; i++)
        a->at[mark + 1 + i] = (uint8_t)(len >> (4 + 8 * i));
}

uint32_t aml_open_device(struct aml *a, const char *name) {
    uint32_t mark = aml_open(a, AML_DEVICE);

    aml_path(a, name);
    return mark;
}

uint32_t aml_open_scope(struct aml *a, const char *path) {
    uint32_t mark = aml_open(a, AML_SCOPE);

    aml_path(a, path);
    return mark;
}

uint32_t aml_open_method(struct aml *a, const char *name, unsigned flags) {
    uint32_t mark = aml_open(a, AML_METHOD);

    aml_path(a, name);
    put_byte(a, flags);
    return mark;
}

uint32_t aml_open_package(struct aml *a, unsigned elements) {
    uint32_t mark = aml_open(a, AML_PACKAGE);

    put_byte(a, elements);
    return mark;
}

/* --- resources: "Resource Data Types for ACPI" --- */

uint32_t aml_open_resources(struct aml *a, const char *name) {
    aml_name(a, name);
    return aml_open(a, AML_BUFFER);
}

/* The buffer's size stands before its bytes, and is known now. */
void aml_close_resources(struct aml *a, uint32_t mark) {
    uint32_t size, prefix;

    put(a, 0x0079, 2); /* end tag, no checksum */
    size = a->len - mark;
    prefix = size <= 0xff ? 2 : 3;
    if (a->full || a->max - a->len < prefix) {
        a->full = true;
        return;
    }
    for (uint32_t i = size; i--;)
        a->at[mark + prefix + i] = a->at[mark + i];
    a->len += prefix;
    a->at[mark] = size <= 0xff ? BYTE_PREFIX : WORD_PREFIX;
    table_put(a->at + mark + 1, size, prefix - 1);
    aml_close(a, mark);
}

void aml_io(struct aml *a, uint16_t port, uint8_t count, uint8_t align) {
    put(a, 0x0147, 2); /* 16 bits are decoded */
    put(a, port, 2);
    put(a, port, 2);
    put_byte(a, align);
    put_byte(a, count);
}

void aml_irq(struct aml *a, unsigned irq) {
    put_byte(a, 0x22);
    put(a, 1u << irq, 2);
}

void aml_interrupts(struct aml *a, const uint8_t *irqs, unsigned count) {
    put_byte(a, 0x89);
    put(a, 2 + 4 * count, 2);
    put_byte(a, 0x09); /* consumer, level, active high, shared */
    put_byte(a, count);
    for (unsigned i = 0; i < count; i++)
        put(a, irqs[i], 4);
}

void aml_memory32(struct aml *a, uint32_t base, uint32_t size) {
    put_byte(a, 0x86);
    put(a, 9, 2);
    put_byte(a, 1);
    put(a, base, 4);
    put(a, size, 4);
}

/* "Address Space Resource Descriptors": fixed at both ends, decoded positively. */
static void window(struct aml *a, unsigned tag, unsigned type, unsigned flags,
                   unsigned size, uint64_t first, uint64_t last) {
    put_byte(a, tag);
    put(a, 3 + 5 * size, 2);
    put_byte(a, type);
    put_byte(a, 0x0c);
    put_byte(a, flags);
    put(a, 0, size); /* granularity */
    put(a, first, size);
    put(a, last, size);
    put(a, 0, size); /* translation */
    put(a, last - first + 1, size);
}

void aml_bus_numbers(struct aml *a, uint16_t first, uint16_t last) {
    window(a, 0x88, 2, 0, 2, first, last);
}

void aml_io_window(struct aml *a, uint16_t first, uint16_t last) {
    window(a, 0x88, 1, 3, 2, first, last);
}

void aml_memory_window(struct aml *a, uint32_t first, uint32_t last, bool cacheable) {
    window(a, 0x87, 0, cacheable ? 3 : 1, 4, first, last);
}

void aml_memory_window64(struct aml *a, uint64_t first, uint64_t last) {
    window(a, 0x8a, 0, 3, 8, first, last);
}
