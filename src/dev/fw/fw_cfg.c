/*
 * fw_cfg; see fw_cfg.h. Two ports: a 16-bit write to the first chooses an item, a byte
 * read of the second gives its next byte, zero behind its end and of an item that is not
 * there. A 64-bit big-endian address written to the DMA ports, low half last, is that of
 * a descriptor {control, length, address}, which is executed at once.
 *
 * The descriptor is copied before it is looked at. A transfer goes through mem/'s checked
 * copies in pieces; what is no RAM makes the descriptor's error bit.
 */
#include "dev/fw/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>

#include "base/be.h"
#include "snapshot/snapshot.h"

#define ID_TRADITIONAL 1u
#define ID_DMA 2u

/* FWCfgDmaAccess.control */
#define DMA_ERROR 0x01u
#define DMA_READ 0x02u
#define DMA_SKIP 0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE 0x10u
#define DMA_SIZE 16u

#define KEY_WRITE 0x4000u /* historical: no effect */
#define KEY_LOCAL 0x8000u
#define NONE 0xffffu
#define DIR_ENTRY 64u
#define KEYS (FW_CFG_FILE_FIRST + FW_CFG_FILES)

struct item {
    uint8_t *data;
    uint32_t len;
    char name[FW_CFG_NAME_SIZE];
};

struct fw_cfg {
    struct mem *mem;
    struct item item[KEYS];
    unsigned files;
    unsigned key; /* chosen, or NONE */
    uint32_t at;  /* next byte of it */
    uint32_t dma_high;
    uint8_t dir[4 + FW_CFG_FILES * DIR_ENTRY]; /* the directory's bytes */
};

static void select_item(struct fw_cfg *f, unsigned key) {
    key &= ~KEY_WRITE;
    f->key = key < KEYS ? key : NONE; /* KEY_LOCAL: there are none */
    f->at = 0;
}

/* How many bytes of the item are left, and where. */
static uint32_t rest(const struct fw_cfg *f, const uint8_t **data) {
    if (f->key == NONE || f->at >= f->item[f->key].len)
        return 0;
    *data = f->item[f->key].data + f->at;
    return f->item[f->key].len - f->at;
}

/* The place in the item; it does not run away however much is read. */
static void advance(struct fw_cfg *f, uint32_t n) {
    f->at = n > UINT32_MAX - f->at ? UINT32_MAX : f->at + n;
}

/* --- DMA --- */

static bool copy_out(struct fw_cfg *f, uint64_t to, uint32_t len) {
    static const uint8_t zeros[512];
    const uint8_t *data = NULL;
    uint32_t have = rest(f, &data), n = have < len ? have : len;

    if (n && !mem_write(f->mem, gpa(to), data, n))
        return false;
    advance(f, len);
    for (to += n, len -= n; len; to += n, len -= n) {
        n = len < sizeof(zeros) ? len : (uint32_t)sizeof(zeros);
        if (!mem_write(f->mem, gpa(to), zeros, n))
            return false;
    }
    return true;
}

static void run_dma(struct fw_cfg *f, uint64_t desc) {
    uint8_t d[DMA_SIZE], answer[4];
    uint32_t control, len;
    bool good = true;

    if (!mem_read(f->mem, gpa(desc), d, sizeof(d)))
        return; /* there is nowhere to tell it */
    control = (uint32_t)be_get(d, 4);
    len = (uint32_t)be_get(d + 4, 4);
    if (control & DMA_SELECT)
        select_item(f, control >> 16);
    if (control & DMA_READ)
        good = copy_out(f, be_get(d + 8, 8), len);
    else if (control & DMA_WRITE)
        good = false; /* nothing can be written */
    else if (control & DMA_SKIP)
        advance(f, len);
    be_put(answer, good ? 0 : DMA_ERROR, 4);
    mem_write(f->mem, gpa(desc), answer, sizeof(answer));
}

/* --- ports --- */

static uint64_t io_read(void *dev, uint64_t reg, unsigned size) {
    struct fw_cfg *f = dev;
    const uint8_t *data = NULL;
    uint8_t v;

    if (reg != 1 || size != 1)
        return 0;
    v = rest(f, &data) ? *data : 0;
    advance(f, 1);
    return v;
}

static void io_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    if (reg == 0 && size == 2)
        select_item(dev, (unsigned)value & 0xffff);
}

/* Read, the address register is a signature. */
static uint64_t dma_read(void *dev, uint64_t reg, unsigned size) {
    static const uint8_t signature[] = "QEMU CFG";
    uint64_t v = 0;

    for (unsigned i = 0; i < size && reg + i < 8; i++)
        v |= (uint64_t)signature[reg + i] << 8 * i;
    return v;
}

static void dma_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct fw_cfg *f = dev;
    uint32_t half = __builtin_bswap32((uint32_t)value);

    if (size != 4)
        return;
    if (reg == 0) {
        f->dma_high = half;
    } else if (reg == 4) {
        uint64_t desc = (uint64_t)f->dma_high << 32 | half;

        f->dma_high = 0;
        run_dma(f, desc);
    }
}

static const struct bus_ops ops = {.read = io_read, .write = io_write, .general = true};
static const struct bus_ops dma_ops = {
    .read = dma_read, .write = dma_write, .width = 4, .general = true};

/* --- items --- */

static int set_item(struct fw_cfg *f, unsigned key, const void *data, uint32_t len) {
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        return -ENOMEM;
    mem_copy(copy, data, len);
    free(f->item[key].data);
    f->item[key].data = copy;
    f->item[key].len = len;
    return 0;
}

/* The directory: a count, then of each file size, number and name. */
static int build_dir(struct fw_cfg *f) {
    be_put(f->dir, f->files, 4);
    for (unsigned i = 0; i < f->files; i++) {
        const struct item *file = &f->item[FW_CFG_FILE_FIRST + i];
        uint8_t *e = f->dir + 4 + i * DIR_ENTRY;

        be_put(e, file->len, 4);
        be_put(e + 4, FW_CFG_FILE_FIRST + i, 2);
        be_put(e + 6, 0, 2);
        mem_copy(e + 8, file->name, FW_CFG_NAME_SIZE);
    }
    return set_item(f, FW_CFG_FILE_DIR, f->dir, 4 + f->files * DIR_ENTRY);
}

int fw_cfg_set(struct fw_cfg *f, unsigned key, const void *data, uint32_t len) {
    return key < FW_CFG_FILE_DIR ? set_item(f, key, data, len) : -EINVAL;
}

int fw_cfg_set_int(struct fw_cfg *f, unsigned key, uint64_t value, unsigned size) {
    return size <= sizeof(value) ? fw_cfg_set(f, key, &value, size) : -EINVAL;
}

static bool same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* The file's item, which may be new; or NULL. */
static struct item *find_file(struct fw_cfg *f, const char *name) {
    struct item *file = &f->item[FW_CFG_FILE_FIRST];

    for (unsigned i = 0; i < f->files; i++)
        if (same(file[i].name, name))
            return &file[i];
    return f->files < FW_CFG_FILES ? &file[f->files] : NULL;
}

int fw_cfg_add(struct fw_cfg *f, const char *name, const void *data, uint32_t len) {
    struct item *file;
    size_t n = 0;
    int rc;

    while (n < FW_CFG_NAME_SIZE && name[n])
        n++;
    if (!n || n == FW_CFG_NAME_SIZE)
        return -EINVAL;
    file = find_file(f, name);
    if (!file)
        return -ENOSPC;
    rc = set_item(f, (unsigned)(file - f->item), data, len);
    if (rc)
        return rc;
    if (file == &f->item[FW_CFG_FILE_FIRST + f->files])
        f->files++;
    mem_fill(file->name, 0, sizeof(file->name));
    mem_copy(file->name, name, n);
    return build_dir(f);
}

int fw_cfg_add_int(struct fw_cfg *f, const char *name, uint64_t value, unsigned size) {
    return size <= sizeof(value) ? fw_cfg_add(f, name, &value, size) : -EINVAL;
}

static int set_fixed(struct fw_cfg *f) {
    int rc = fw_cfg_set(f, FW_CFG_SIGNATURE, "QEMU", 4);

    if (!rc)
        rc = fw_cfg_set_int(f, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4);
    return rc ? rc : build_dir(f);
}

static void drop_items(struct fw_cfg *f, unsigned first) {
    for (unsigned i = first; i < KEYS; i++) {
        free(f->item[i].data);
        f->item[i] = (struct item){0};
    }
    f->files = 0;
}

void fw_cfg_clear(struct fw_cfg *f) {
    drop_items(f, FW_CFG_ID + 1);
    fw_cfg_reset(f);
}

void fw_cfg_reset(struct fw_cfg *f) {
    f->key = NONE;
    f->at = 0;
    f->dma_high = 0;
}

/* --- snapshots --- */

#define ITEM_MAX (16u << 20)

static void item_state(struct fw_cfg *f, unsigned key, struct snapshot *s) {
    struct item *i = &f->item[key];
    uint32_t len = i->data ? i->len : 0;
    bool there = i->data;
    uint8_t *data;

    SNAPSHOT(s, there);
    SNAPSHOT_UPTO(s, len, ITEM_MAX);
    snapshot_bytes(s, i->name, sizeof(i->name));
    i->name[sizeof(i->name) - 1] = 0;
    if (!snapshot_reading(s)) {
        snapshot_bytes(s, i->data, len);
        return;
    }
    free(i->data);
    i->data = NULL;
    i->len = 0;
    if (!there || len > snapshot_left(s)) {
        snapshot_need(s, !len);
        return;
    }
    data = malloc(len ? len : 1);
    if (!data) {
        snapshot_refuse(s, "out of memory");
        return;
    }
    snapshot_bytes(s, data, len);
    i->data = data;
    i->len = len;
}

void fw_cfg_state(struct fw_cfg *f, struct snapshot *s) {
    SNAPSHOT_UPTO(s, f->files, FW_CFG_FILES);
    SNAPSHOT(s, f->key);
    SNAPSHOT(s, f->at);
    SNAPSHOT(s, f->dma_high);
    for (unsigned n = 0; n < KEYS; n++)
        item_state(f, n, s);
    for (unsigned n = 0; n < f->files; n++)
        snapshot_need(s, f->item[FW_CFG_FILE_FIRST + n].data);
    if (snapshot_reading(s) && (f->key >= KEYS || !f->item[f->key].data))
        f->key = NONE;
}

struct fw_cfg *fw_cfg_new(struct bus *bus, struct mem *m) {
    struct fw_cfg *f = calloc(1, sizeof(*f));
    struct bus_range *ports;

    if (!f)
        return NULL;
    f->mem = m;
    fw_cfg_reset(f);
    ports = bus_attach_pio(bus, FW_CFG_PORT, 2, &ops, f, "fw_cfg");
    if (set_fixed(f) || !ports ||
        !bus_attach_pio(bus, FW_CFG_DMA_PORT, 8, &dma_ops, f, "fw_cfg DMA")) {
        bus_range_detach(ports);
        fw_cfg_free(f);
        return NULL;
    }
    return f;
}

void fw_cfg_free(struct fw_cfg *f) {
    if (!f)
        return;
    drop_items(f, 0);
    free(f);
}
