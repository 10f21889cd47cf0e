/*
 * The host bridge. 440FX data sheet, "PAM: Programmable Attribute Map Registers",
 * "SMRAM: System Management RAM Control Register".
 *
 * A PAM register has two areas of two bits each, read enable and write enable: PAM0's
 * high half is 0xf0000 to 0xfffff, PAM1 to PAM6 are 16 KiB each from 0xc0000 on, the low
 * half first. Where reads are not enabled, what lies behind RAM is seen (mem/'s later
 * regions, then the bus). mem/ has no memory that is written and not read: an area that
 * is enabled for writes alone becomes RAM with the contents of what was seen before,
 * which is what firmware does with it (it copies each byte upon itself). Where the area
 * is made of the bus there is nothing to copy.
 */
#include "dev/pci/i440fx.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define AREAS 13u
#define READ 1u
#define WRITE 2u
#define SMRAM_RESET 0x02u
#define SMRAM_WRITABLE 0x78u
#define SMRAM_OPEN (1u << 6)
#define SMRAM_LOCK (1u << 4)

struct i440fx {
    struct pci_function pci;
    struct mem *mem;
    bool shadowed;
    uint8_t area[AREAS]; /* as memory is now */
};

static uint64_t area_start(unsigned n) {
    return n ? 0xc0000 + (n - 1) * 0x4000ull : 0xf0000;
}

static uint64_t area_size(unsigned n) {
    return n ? 0x4000 : 0x10000;
}

/* PAM0's low half is reserved. */
static uint8_t area_wanted(const struct i440fx *b, unsigned n) {
    uint8_t pam = b->pci.config[I440FX_PAM + (n + 1) / 2];

    return n % 2 ? pam & 3 : pam >> 4 & 3;
}

static enum mem_kind kind_of(uint8_t enabled) {
    if (enabled & WRITE)
        return MEM_RAM;
    return enabled & READ ? MEM_ROM : MEM_NONE;
}

/* RAM from START on is to hold what is seen there now. */
static void copy_through(struct i440fx *b, uint64_t start, uint64_t size) {
    uint8_t page[4096];

    for (uint64_t at = start; at < start + size; at += sizeof(page)) {
        bool seen = mem_read(b->mem, gpa(at), page, sizeof(page));

        if (!mem_set_kind(b->mem, gpa(at), sizeof(page), MEM_RAM) && seen)
            mem_write(b->mem, gpa(at), page, sizeof(page));
    }
}

static void set_area(struct i440fx *b, unsigned n, uint8_t enabled) {
    uint8_t before = b->area[n];

    if (enabled == before)
        return;
    b->area[n] = enabled;
    if (enabled == WRITE && kind_of(before) == MEM_NONE)
        copy_through(b, area_start(n), area_size(n));
    else if (kind_of(enabled) != kind_of(before))
        mem_set_kind(b->mem, gpa(area_start(n)), area_size(n), kind_of(enabled));
}

static void written(struct pci_function *f, unsigned at, unsigned size) {
    struct i440fx *b = (struct i440fx *)f;

    for (unsigned n = 0; n < AREAS; n++)
        set_area(b, n, area_wanted(b, n));
    if (f->config[I440FX_SMRAM] & SMRAM_LOCK) {
        f->config[I440FX_SMRAM] &= (uint8_t)~SMRAM_OPEN;
        f->writable[I440FX_SMRAM] = 0;
    }
}

/* Memory's own reset made all of it RAM. */
static void reset(struct pci_function *f) {
    struct i440fx *b = (struct i440fx *)f;

    f->writable[I440FX_SMRAM] = SMRAM_WRITABLE;
    for (unsigned n = 0; n < AREAS; n++)
        b->area[n] = READ | WRITE;
    if (b->shadowed) {
        pci_set(f, I440FX_PAM, 1, 0x30);
        for (unsigned n = 1; n < 7; n++)
            pci_set(f, I440FX_PAM + n, 1, 0x33);
    }
    written(f, I440FX_PAM, 7);
}

/* Memory is as the registers say when they are read: written(). */
void i440fx_state(struct i440fx *b, struct snapshot *s) {
    pci_function_state(&b->pci, s);
}

static const struct pci_ops ops = {.config_written = written, .reset = reset};
static const struct pci_identity identity = {.vendor = 0x8086,
                                             .device = 0x1237,
                                             .sub_vendor = 0x1af4,
                                             .sub_device = 0x1100,
                                             .class = 0x060000,
                                             .revision = 2};

struct i440fx *i440fx_new(struct pci *pci, struct mem *mem, bool shadowed) {
    struct i440fx *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->mem = mem;
    b->shadowed = shadowed;
    if (pci_add(pci, &b->pci, 0, 0, "host bridge", &identity, &ops)) {
        free(b);
        return NULL;
    }
    /* Always on, always master. */
    pci_define(&b->pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
               PCI_COMMAND_SERR);
    pci_define(&b->pci, PCI_STATUS, 2, 0x0280, 0);
    pci_define(&b->pci, I440FX_PAM, 1, 0, 0x30);
    for (unsigned n = 1; n < 7; n++)
        pci_define(&b->pci, I440FX_PAM + n, 1, 0, 0x33);
    pci_define(&b->pci, I440FX_SMRAM, 1, SMRAM_RESET, SMRAM_WRITABLE);
    return b;
}

void i440fx_free(struct i440fx *b) {
    if (!b)
        return;
    pci_remove(&b->pci);
    free(b);
}
