/*
 * AML, the machine language of ACPI's namespace, as far as this board's tables need it.
 * ACPI Specification 6, "ACPI Machine Language (AML) Specification".
 *
 * Terms are appended to a buffer. What has a length (scopes, devices, methods, packages,
 * buffers) is opened and closed; the mark between them is the caller's to keep. When the
 * buffer is full, `full` is set and nothing is written any more.
 */
#ifndef DEV_AML_H
#define DEV_AML_H

#include "base/types.h"

struct aml {
    uint8_t *at;
    uint32_t len, max;
    bool full;
};

/* Opcodes that callers append themselves; those above 0xff are two bytes, the high one
 * first. */
enum {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_ALIAS = 0x06,
    AML_NAME = 0x08,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_METHOD = 0x14,
    AML_LOCAL0 = 0x60,
    AML_ARG0 = 0x68,
    AML_STORE = 0x70,
    AML_AND = 0x7b,
    AML_OR = 0x7d,
    AML_DEREF_OF = 0x83,
    AML_NOTIFY = 0x86,
    AML_INDEX = 0x88,
    AML_IF = 0xa0,
    AML_ELSE = 0xa1,
    AML_RETURN = 0xa4,
    AML_ONES = 0xff,
    AML_OP_REGION = 0x5b80,
    AML_FIELD = 0x5b81,
    AML_DEVICE = 0x5b82,
};

void aml_op(struct aml *a, unsigned op);
void aml_bytes(struct aml *a, const void *bytes, uint32_t len);
/* Each part of four characters, `\` and `.` as in ASL: "\\_SB", "LNKA", "_SB.PCI0". */
void aml_path(struct aml *a, const char *path);
void aml_int(struct aml *a, uint64_t value); /* as short as it goes */
void aml_string(struct aml *a, const char *text);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0A03" */

/* Name (PATH, ...): what follows is its value. */
void aml_name(struct aml *a, const char *path);
void aml_name_int(struct aml *a, const char *path, uint64_t value);

/* OP and a length that aml_close() knows; what follows is inside. */
uint32_t aml_open(struct aml *a, unsigned op);
void aml_close(struct aml *a, uint32_t mark);
uint32_t aml_open_device(struct aml *a, const char *name);
uint32_t aml_open_scope(struct aml *a, const char *path);
/* FLAGS: how many arguments, 8: serialized. */
uint32_t aml_open_method(struct aml *a, const char *name, unsigned flags);
uint32_t aml_open_package(struct aml *a, unsigned elements);

/* Name (_CRS, ResourceTemplate () {...}), or another name; descriptors follow. */
uint32_t aml_open_resources(struct aml *a, const char *name);
void aml_close_resources(struct aml *a, uint32_t mark);
void aml_io(struct aml *a, uint16_t port, uint8_t count, uint8_t align);
void aml_irq(struct aml *a, unsigned irq); /* an edge, high, as on ISA */
/* Interrupt (ResourceConsumer, Level, ActiveHigh, Shared): COUNT of them. */
void aml_interrupts(struct aml *a, const uint8_t *irqs, unsigned count);
/* Memory32Fixed (ReadWrite, ...) */
void aml_memory32(struct aml *a, uint32_t base, uint32_t size);
/* Windows of a bridge: FIRST to LAST. */
void aml_bus_numbers(struct aml *a, uint16_t first, uint16_t last);
void aml_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_memory_window(struct aml *a, uint32_t first, uint32_t last, bool cacheable);
void aml_memory_window64(struct aml *a, uint64_t first, uint64_t last);

#endif
