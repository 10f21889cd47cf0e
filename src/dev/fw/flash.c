/*
 * The chip's state machine; see flash.h. A write is a command, or what the command before
 * waits for. As on the chip, programming only clears bits and erasing sets those of a
 * block; both are over at once, so that the status says "ready". After "clear status" it
 * says nothing at all, by which EDK2 tells flash from RAM and ROM.
 */
#include "dev/fw/flash.h"

#include <stdlib.h>

#include "mem/mem.h"
#include "snapshot/snapshot.h"

enum {
    PROGRAM = 0x10,
    ERASE = 0x20,
    PROGRAM_TOO = 0x40,
    CLEAR_STATUS = 0x50,
    READ_STATUS = 0x70,
    READ_ID = 0x90,
    CFI_QUERY = 0x98,
    CONFIRM = 0xd0,
    READ_ARRAY = 0xff,
};

#define READY 0x80u
#define FAILED_SEQUENCE 0x30u
#define MAKER 0x89u
#define DEVICE 0x18u

struct flash {
    struct bus_range *range;
    struct flash_host host;
    uint8_t *bytes;
    uint32_t size;
    uint8_t mode;    /* what reads give: a command */
    uint8_t command; /* waits for its second write; 0: none */
    uint8_t status;
    bool changed; /* since it was settled */
};

/* The answer to a query; CFI, "Query Structure Output": as much as says what this is. */
static uint8_t query(const struct flash *f, uint64_t at) {
    uint32_t blocks = f->size / FLASH_BLOCK - 1;
    unsigned log = (unsigned)__builtin_ctz(f->size);

    switch (at) {
    case 0x10:
        return 'Q';
    case 0x11:
        return 'R';
    case 0x12:
        return 'Y';
    case 0x13: /* the command set */
        return 1;
    case 0x27:
        return (uint8_t)log;
    case 0x2c: /* regions of blocks */
        return 1;
    case 0x2d:
        return (uint8_t)blocks;
    case 0x2e:
        return (uint8_t)(blocks >> 8);
    case 0x2f:
        return (uint8_t)(FLASH_BLOCK / 256);
    default:
        return 0;
    }
}

static uint8_t read_byte(const struct flash *f, uint64_t at) {
    switch (f->mode) {
    case READ_STATUS:
        return f->status;
    case READ_ID:
        return at & 1 ? DEVICE : MAKER;
    case CFI_QUERY:
        return query(f, at & 0xff);
    default:
        return f->bytes[at];
    }
}

static uint64_t read(void *dev, uint64_t at, unsigned size) {
    const struct flash *f = dev;
    uint64_t v = 0;

    for (unsigned i = 0; i < size && at + i < f->size; i++)
        v |= (uint64_t)read_byte(f, at + i) << 8 * i;
    return v;
}

static void store(struct flash *f, uint32_t at, uint32_t len) {
    f->changed = true;
    f->status |= READY;
    if (f->host.store)
        f->host.store(f->host.arg, at, f->bytes + at, len);
}

static void read_array(struct flash *f) {
    f->mode = READ_ARRAY;
    if (f->changed && f->host.settle)
        f->host.settle(f->host.arg);
    f->changed = false;
}

static void second_write(struct flash *f, uint32_t at, uint8_t value) {
    uint8_t command = f->command;

    f->command = 0;
    f->mode = READ_STATUS;
    if (command != ERASE) {
        f->bytes[at] &= value;
        store(f, at, 1);
    } else if (value == CONFIRM) {
        at &= ~(FLASH_BLOCK - 1);
        mem_fill(f->bytes + at, 0xff, FLASH_BLOCK);
        store(f, at, FLASH_BLOCK);
    } else {
        f->status |= READY | FAILED_SEQUENCE;
    }
}

static void first_write(struct flash *f, uint8_t value) {
    switch (value) {
    case PROGRAM:
    case PROGRAM_TOO:
    case ERASE:
        f->command = value;
        f->mode = READ_STATUS;
        break;
    case CLEAR_STATUS:
        f->status = 0;
        break;
    case READ_STATUS:
    case READ_ID:
    case CFI_QUERY:
        f->mode = value;
        break;
    default: /* READ_ARRAY, and what is no command */
        read_array(f);
        break;
    }
}

/* Byte-wide: of a wider write the lowest byte counts. */
static void write(void *dev, uint64_t at, unsigned size, uint64_t value) {
    struct flash *f = dev;

    if (at >= f->size)
        return;
    if (f->command)
        second_write(f, (uint32_t)at, (uint8_t)value);
    else
        first_write(f, (uint8_t)value);
}

static const struct bus_ops ops = {.read = read, .write = write};

void flash_reset(struct flash *f) {
    f->command = 0;
    f->status = 0;
    read_array(f);
}

/* What is read goes to the file, too, as what a guest writes. */
void flash_state(struct flash *f, struct snapshot *s) {
    uint32_t size = f->size;

    SNAPSHOT(s, size);
    snapshot_need(s, size == f->size);
    SNAPSHOT(s, f->mode);
    SNAPSHOT(s, f->command);
    SNAPSHOT(s, f->status);
    SNAPSHOT(s, f->changed);
    if (snapshot_good(s))
        snapshot_sparse(s, f->bytes, f->size);
    if (snapshot_reading(s) && snapshot_good(s) && f->host.store)
        f->host.store(f->host.arg, 0, f->bytes, f->size);
}

struct flash *flash_new(struct bus *bus, struct gpa start, const uint8_t *bytes,
                        uint32_t size, const struct flash_host *host) {
    struct flash *f;

    if (!size || size % FLASH_BLOCK || size > FLASH_MAX)
        return NULL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->host = *host;
    f->size = size;
    f->bytes = malloc(size);
    f->range = f->bytes ? bus_attach_mmio(bus, start, size, &ops, f, "flash") : NULL;
    if (!f->range) {
        flash_free(f);
        return NULL;
    }
    mem_copy(f->bytes, bytes, size);
    flash_reset(f);
    return f;
}

void flash_free(struct flash *f) {
    if (!f)
        return;
    bus_range_detach(f->range);
    free(f->bytes);
    free(f);
}
