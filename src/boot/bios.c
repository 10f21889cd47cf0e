/*
 * Puts the board's ROM into the guest (boot/bios.h): the code, and before it the memory
 * map that INT 15h tells; and the interrupt table. The F segment, with all tables in it,
 * is then ROM, and its copy is what the CPU finds at its reset vector.
 */
#include "boot/bios.h"

#include "boot/boot_int.h"

/* What INT 15h says of the RAM from 1 MiB on, in the forms that came one after another.
 */
static void fill_sizes(uint8_t *rom, uint64_t ram) {
    uint64_t kib = ram >> 10;

    boot_set(rom, BIOS_MAP_EXT_KIB, 2, kib < 0xfc00 ? kib : 0xfc00);
    boot_set(rom, BIOS_MAP_BELOW_16M, 2, kib < 0x3c00 ? kib : 0x3c00);
    kib = kib < 0x3c00 ? 0 : (kib - 0x3c00) >> 6;
    boot_set(rom, BIOS_MAP_ABOVE_16M, 2, kib < 0xffff ? kib : 0xffff);
}

static void fill_map(const struct boot_job *j, uint8_t *rom) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    boot_set(rom, BIOS_MAP_COUNT, 2, n);
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = BIOS_MAP_ENTRIES + i * 20;

        boot_set(rom, at, 8, map[i].start);
        boot_set(rom, at + 8, 8, map[i].size);
        boot_set(rom, at + 16, 4, map[i].type);
        if (map[i].start == BOOT_HIGH && map[i].type == BOOT_RAM)
            fill_sizes(rom, map[i].size);
    }
}
_Static_assert(BIOS_MAP_ENTRIES + BOOT_RANGES * 20 <= BIOS_START, "the map fits");

/* The interrupt table: the ROM's list names those that are not like number 0. */
static void put_vectors(const struct boot_job *j, const uint8_t *rom) {
    uint8_t table[256 * 4];
    uint64_t at = boot_get(rom, BIOS_VECTORS, 2), handler = boot_get(rom, at + 2, 2), n;

    for (n = 0; n < 256; n++)
        boot_set(table, n * 4, 4, BIOS_SEGMENT << 16 | handler);
    while ((at += 4), (n = boot_get(rom, at, 2) & 0xff))
        boot_set(table, n * 4, 2, boot_get(rom, at + 2, 2));
    boot_put(j, 0, table, sizeof(table));
}

void boot_put_bios(const struct boot_job *j) {
    uint8_t rom[BIOS_SIZE];

    if (!mem_read(j->m, gpa(BIOS_BASE), rom, sizeof(rom)))
        return; /* no such machine: the least has 4 MiB */
    fill_map(j, rom);
    memcpy(rom + BIOS_START, _binary_bios_start,
           (size_t)(_binary_bios_end - _binary_bios_start));
    mem_program(j->m, gpa(BIOS_BASE), rom, sizeof(rom));
    mem_program(j->m, gpa(MEM_ROM_START), rom, sizeof(rom));
    mem_set_kind(j->m, gpa(BIOS_BASE), sizeof(rom), MEM_ROM);
    put_vectors(j, rom);
}
_Static_assert(BIOS_SIZE == MEM_ROM_SIZE, "the copy has the segment's size");

/*
 * What a BIOS leaves in its data area and at the start of the extended one, which loaders
 * and kernels without another source ask for the end of low memory (Xen), for serial
 * ports and the text screen.
 */
void boot_put_bios_data(const struct boot_job *j) {
    static const struct {
        uint16_t at, val;
    } words[] = {
        {0x00, 0x3f8},              /* the first serial port */
        {0x0e, BOOT_LOW_END >> 4},  /* segment of the extended area */
        {0x10, 0x222},              /* equipment: FPU, 80x25 in color, one serial port */
        {0x13, BOOT_LOW_END >> 10}, /* KiB of low memory */
        {0x1a, BIOS_KEYS},          /* the keyboard's ring: head, tail */
        {0x1c, BIOS_KEYS},
        {0x49, 0x5003},    /* video mode 3, 80 columns */
        {0x4c, 0x1000},    /* bytes of a text page */
        {0x60, 0x0d0e},    /* cursor: lines */
        {0x63, 0x3d4},     /* CRT controller */
        {0x80, BIOS_KEYS}, /* the ring's bounds */
        {0x82, BIOS_KEYS_END},
        {0x84, 24}, /* last row */
        {0x85, 16}, /* lines of a character */
    };
    static const uint8_t extended_kib = 1;
    uint8_t area[0x100] = {0};

    for (size_t k = 0; k < ARRAY_SIZE(words); k++)
        boot_set(area, words[k].at, 2, words[k].val);
    boot_put(j, BOOT_BIOS_DATA, area, sizeof(area));
    boot_put(j, BOOT_LOW_END, &extended_kib, 1);
}
