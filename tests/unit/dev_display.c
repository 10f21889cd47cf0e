/*
 * Pictures: what is on a VGA's screen in each kind of mode, pixel by pixel, and what the
 * display around it shows of its own memory; hostile registers lead nowhere.
 */
#include "dev/pci/display.h"

#include "lib/rig.h"
#include "lib/unit.h"

enum { SEQ = 0x3c4, GFX = 0x3ce, CRTC = 0x3d4, ATTR = 0x3c0, STATUS = 0x3da };
enum { INDEX = 0x1ce, DATA = 0x1cf };
enum { ID, WIDTH, HEIGHT, DEPTH, ENABLE, BANK, LINE, LINES, X, Y, MEMORY };
enum { LFB = 0xe0000000u, REGS = 0xf0000000u };
#define SLOT 2

static struct rig r;
static struct mem *mem;
static struct pci *pci;
static struct vga *vga;
static struct display *display;
static struct vga_picture p;
static uint32_t pixels[VGA_WIDTH * VGA_HEIGHT];

static struct pci_function *function(void) {
    return pci_at(pci, SLOT, 0);
}

static int setup(void **state) {
    const struct pci_host host = {0};
    static const uint8_t rom[512] = {0x55, 0xaa, 1};

    rig_new(&r);
    assert_int_equal(mem_create(16u << 20, &mem), 0);
    pci = pci_new(r.bus, &host);
    vga = vga_new(r.bus, r.clock, mem);
    assert_true(pci && vga);
    assert_int_equal(display_new(pci, SLOT, mem, vga, rom, sizeof(rom), &display), 0);
    pci_reset(pci);
    pci_config_write(function(), PCI_BAR0, 4, LFB);
    pci_config_write(function(), PCI_BAR0 + 8, 4, REGS);
    pci_config_write(function(), PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    return 0;
}

static int teardown(void **state) {
    display_free(display);
    vga_free(vga);
    pci_free(pci);
    mem_destroy(mem);
    rig_free(&r);
    return 0;
}

static void put(unsigned port, unsigned index, unsigned value) {
    rig_out(&r, port, index);
    rig_out(&r, port + 1, value);
}

static void put_attr(unsigned index, unsigned value) {
    rig_in(&r, STATUS);
    rig_out(&r, ATTR, index);
    rig_out(&r, ATTR, value);
    rig_out(&r, ATTR, 0x20);
}

static void set(unsigned n, unsigned value) {
    rig_out16(&r, INDEX, n);
    rig_out16(&r, DATA, value);
}

static unsigned get(unsigned n) {
    rig_out16(&r, INDEX, n);
    return rig_in16(&r, DATA);
}

static void draw(enum vga_kind kind, unsigned width, unsigned height) {
    vga_look(vga, mem, &p);
    assert_int_equal(p.kind, kind);
    assert_int_equal(p.width, width);
    assert_int_equal(p.height, height);
    memset(pixels, 0x55, sizeof(pixels));
    vga_draw(&p, mem, pixels);
}

static uint32_t at(unsigned x, unsigned y) {
    return pixels[y * p.width + x];
}

static void poke(uint64_t to, const void *bytes, size_t len) {
    assert_true(mem_write(mem, gpa(to), bytes, len));
}

static unsigned planes_read(uint64_t where) {
    return (unsigned)bus_mmio_read(r.bus, gpa(0xa0000 + where), 1);
}

static void planes_write(uint64_t where, unsigned value) {
    bus_mmio_write(r.bus, gpa(0xa0000 + where), 1, value);
}

/* --- text --- */

static unsigned ink_in_cell(unsigned column, unsigned row, uint32_t colour) {
    unsigned n = 0;

    for (unsigned y = 0; y < p.cell_height; y++)
        for (unsigned x = 0; x < p.cell_width; x++)
            n += at(column * p.cell_width + x, row * p.cell_height + y) == colour;
    return n;
}

static void test_text(void **state) {
    const uint8_t cells[] = {'A', 0x1e, ' ', 0x4f, 0xdb, 0x02};

    poke(0xb8000 + 160, cells, sizeof(cells));
    poke(0xb8000 + 324, cells + 2, 2);
    put(CRTC, 0x0e, 0); /* the cursor to the third cell of the third row */
    put(CRTC, 0x0f, 162);
    draw(VGA_TEXT, 720, 400);
    /* Yellow on blue, in letters of our own. */
    assert_in_range(ink_in_cell(0, 1, 0xffff55), 20, 60);
    assert_int_equal(ink_in_cell(0, 1, 0xffff55) + ink_in_cell(0, 1, 0x0000aa), 9 * 16);
    /* White on red, but nothing is written; a full cell of green, but for the ninth dot's
     * column, which frames alone join. */
    assert_int_equal(ink_in_cell(1, 1, 0xaa0000), 9 * 16);
    assert_int_equal(ink_in_cell(2, 1, 0x00aa00), 9 * 16);
    /* The cursor: two lines of white. */
    assert_int_equal(ink_in_cell(2, 2, 0xaa0000), 9 * 14);
    assert_int_equal(ink_in_cell(2, 2, 0xffffff), 9 * 2);
}

/* A guest's own letters, where a BIOS puts them; lines that are eight dots wide. */
static void test_font(void **state) {
    const uint8_t cell[] = {'A', 0x07}, glyph[16] = {0x81, 0, 0xff};

    poke(0xa0000 + 'A' * 32, glyph, sizeof(glyph));
    poke(0xb8000, cell, sizeof(cell));
    put(SEQ, 1, 1);
    put(CRTC, 0x0a, 0x20); /* no cursor */
    draw(VGA_TEXT, 640, 400);
    assert_int_equal(ink_in_cell(0, 0, 0xaaaaaa), 2 + 8);
    assert_int_equal(at(0, 0), 0xaaaaaa);
    assert_int_equal(at(7, 0), 0xaaaaaa);
    assert_int_equal(at(3, 2), 0xaaaaaa);
}

/* --- planes --- */

/* 640 by 480 in 16 colours: BIOS mode 0x12. */
static void planar_mode(void) {
    put(CRTC, 0x11, 0);
    put(CRTC, 0x01, 0x4f);
    put(CRTC, 0x07, 0x3e);
    put(CRTC, 0x09, 0x40);
    put(CRTC, 0x12, 0xdf);
    put(CRTC, 0x13, 0x28);
    put(SEQ, 2, 0x0f);
    put(SEQ, 4, 0x06);
    put(GFX, 5, 0x00);
    put(GFX, 6, 0x05);
}

static void test_planes(void **state) {
    planar_mode();
    put(SEQ, 2, 0x02);
    planes_write(0, 0x80); /* plane 1 */
    put(SEQ, 2, 0x0c);
    planes_write(80, 0x01); /* planes 2 and 3, second line */
    draw(VGA_PLANES, 640, 480);
    assert_int_equal(at(0, 0), 0x00aa00);
    assert_int_equal(at(1, 0), 0);
    assert_int_equal(at(7, 1), 0xff5555);
    put(GFX, 4, 2);
    assert_int_equal(planes_read(80), 0x01);
    put(GFX, 4, 1);
    assert_int_equal(planes_read(80), 0x00);
    put(CRTC, 0x0d, 80); /* the second line comes first */
    draw(VGA_PLANES, 640, 480);
    assert_int_equal(at(7, 0), 0xff5555);
    put(GFX, 6, 0x0e); /* text again: RAM is there, with what it had */
    assert_int_equal(mem_kind_at(mem, gpa(0xa0000)), MEM_RAM);
}

static void test_write_modes(void **state) {
    planar_mode();
    /* Mode 0: rotated, by a function, under a mask, with set/reset. */
    put(GFX, 3, 4);
    planes_write(0, 0x0f);
    put(GFX, 4, 0);
    assert_int_equal(planes_read(0), 0xf0);
    put(GFX, 3, 0x18); /* exclusive or with what was read */
    planes_write(0, 0xff);
    assert_int_equal(planes_read(0), 0x0f);
    put(GFX, 3, 0);
    put(GFX, 8, 0x3c);
    planes_write(0, 0xff);
    assert_int_equal(planes_read(0), 0x3f);
    put(GFX, 8, 0xff);
    put(GFX, 0, 0x05);
    put(GFX, 1, 0x0f);
    planes_write(1, 0);
    assert_int_equal(planes_read(1), 0xff);
    put(GFX, 4, 1);
    assert_int_equal(planes_read(1), 0);
    /* Mode 1: what was read. */
    put(GFX, 5, 1);
    put(GFX, 4, 0);
    planes_write(2, 0x12);
    assert_int_equal(planes_read(2), 0xff);
    /* Mode 2: a colour. */
    put(GFX, 5, 2);
    put(GFX, 1, 0);
    planes_write(3, 0x01);
    assert_int_equal(planes_read(3), 0xff);
    /* Mode 3: the byte is a mask, the colour is set/reset's. */
    put(GFX, 5, 3);
    planes_read(4);
    planes_write(4, 0x81);
    assert_int_equal(planes_read(4), 0x81);
    /* Read mode 1: where all planes that matter are of a colour. */
    put(GFX, 5, 8);
    put(GFX, 2, 0x05);
    put(GFX, 7, 0x0f);
    assert_int_equal(planes_read(4), 0x81);
    put(GFX, 7, 0);
    assert_int_equal(planes_read(4), 0xff);
}

/* --- a byte a pixel --- */

static void bytes_mode(unsigned chain) {
    put(CRTC, 0x11, 0);
    put(CRTC, 0x09, 0x41);
    put(CRTC, 0x13, 0x28);
    put(SEQ, 4, chain);
    put(SEQ, 2, 0x0f);
    put(GFX, 5, 0x40);
    put(GFX, 6, 0x05);
    put_attr(0x10, 0x41);
}

static void test_bytes(void **state) {
    const uint8_t byte = 0x2a;

    bytes_mode(0x0e); /* mode 0x13 */
    rig_out(&r, 0x3c8, 0x2a);
    rig_out(&r, 0x3c9, 0x3f);
    rig_out(&r, 0x3c9, 0x20);
    rig_out(&r, 0x3c9, 0);
    poke(0xa0000 + 320 * 7 + 5, &byte, 1);
    draw(VGA_BYTES, 320, 200);
    assert_int_equal(at(5, 7), 0xff8200);
    assert_int_equal(at(6, 7), 0);
    bytes_mode(0x06); /* the same without the chain */
    put(SEQ, 2, 0x02);
    planes_write(80 * 7 + 1, 0x2a);
    draw(VGA_BYTE_PLANES, 320, 200);
    assert_int_equal(at(5, 7), 0xff8200);
}

/* --- the display --- */

static void enable(unsigned width, unsigned height, unsigned depth, unsigned how) {
    set(ENABLE, 0);
    set(WIDTH, width);
    set(HEIGHT, height);
    set(DEPTH, depth);
    set(ENABLE, how);
}

static void test_registers(void **state) {
    assert_int_equal(get(ID), 0xb0c5);
    set(ID, 0xb0c2);
    assert_int_equal(get(ID), 0xb0c2);
    set(ID, 0x1234);
    assert_int_equal(get(ID), 0xb0c2);
    assert_int_equal(get(MEMORY), DISPLAY_MEMORY >> 16);
    set(ENABLE, 2);
    assert_int_equal(get(WIDTH), VGA_WIDTH);
    assert_int_equal(get(HEIGHT), VGA_HEIGHT);
    assert_int_equal(get(DEPTH), 32);
    enable(1024, 768, 32, 0x41);
    assert_int_equal(get(WIDTH), 1024);
    assert_int_equal(get(LINE), 1024);
    assert_int_equal(get(LINES), DISPLAY_MEMORY / 4096);
    set(WIDTH, 640); /* not while it is shown */
    assert_int_equal(get(WIDTH), 1024);
    assert_int_equal(get(99), 0);
    /* The same by memory, and the VGA's ports. */
    assert_int_equal(bus_mmio_read(r.bus, gpa(REGS + 0x502), 2), 1024);
    bus_mmio_write(r.bus, gpa(REGS + 0x512), 2, 7);
    assert_int_equal(get(Y), 7);
    bus_mmio_write(r.bus, gpa(REGS + 0x404), 1, 2);
    bus_mmio_write(r.bus, gpa(REGS + 0x405), 1, 0x0a);
    rig_out(&r, SEQ, 2);
    assert_int_equal(rig_in(&r, SEQ + 1), 0x0a);
    assert_int_equal(bus_mmio_read(r.bus, gpa(REGS + 0x000), 4), 0); /* no EDID */
    /* Its BIOS. */
    pci_config_write(function(), PCI_ROM, 4, 0xf1000001);
    assert_int_equal(bus_mmio_read(r.bus, gpa(0xf1000000), 2), 0xaa55);
}

static void test_linear(void **state) {
    static const struct {
        unsigned depth, bytes;
        uint32_t value, colour;
    } cases[] = {{8, 1, 4, 0xaa0000},
                 {15, 2, 0x7c1f, 0xff00ff},
                 {16, 2, 0x07e0, 0x00ff00},
                 {24, 3, 0x123456, 0x123456},
                 {32, 4, 0xff654321, 0x654321}};

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        enable(800, 600, cases[n].depth, 0x41);
        poke(LFB + (800 * 3 + 2) * cases[n].bytes, &cases[n].value, cases[n].bytes);
        draw(VGA_LINEAR, 800, 600);
        assert_int_equal(at(2, 3), cases[n].colour);
        assert_int_equal(at(3, 3), 0);
        set(Y, 3); /* scrolled */
        set(X, 2);
        draw(VGA_LINEAR, 800, 600);
        assert_int_equal(at(0, 0), cases[n].colour);
        set(LINE, 1000); /* lines are longer */
        set(Y, 0);
        set(X, 0);
        draw(VGA_LINEAR, 800, 600);
        assert_int_equal(at((800 * 3 + 2) % 1000, 2), cases[n].colour);
        enable(800, 600, cases[n].depth, 0xc1); /* kept */
        draw(VGA_LINEAR, 800, 600);
        assert_int_equal(at(2, 3), cases[n].colour);
    }
    set(ENABLE, 0);
    draw(VGA_TEXT, 720, 400);
}

static void test_bank(void **state) {
    enable(1024, 768, 8, 0x01); /* not linear: 64 KiB at a time */
    set(BANK, 1);
    planes_write(5, 4);
    assert_int_equal(planes_read(5), 4);
    set(BANK, 0);
    assert_int_equal(planes_read(5), 0);
    draw(VGA_LINEAR, 1024, 768);
    assert_int_equal(at(5, 64), 0xaa0000);
    set(BANK, 0xffff); /* beyond the end: the VGA's own */
    planes_write(5, 9);
    set(BANK, 0);
    assert_int_equal(planes_read(5), 0);
}

/* Nothing that could be shown is shown, and nothing leads out of the memory. */
static void test_hostile(void **state) {
    static const unsigned bad[][3] = {
        {0, 600, 32},       {800, 0, 32},   {800, 600, 7},
        {2561, 600, 8},     {800, 1601, 8}, {2560, 1600, 33},
        {65535, 65535, 32}, {800, 600, 4},  {800, 600, 0xffff}};

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        enable(bad[n][0], bad[n][1], bad[n][2], 0x41);
        assert_int_equal(get(ENABLE) & 1, 0);
        draw(VGA_TEXT, 720, 400);
    }
    enable(2560, 1600, 32, 0x41);
    assert_int_equal(get(ENABLE), 0x41);
    set(Y, 0xffff);
    set(X, 0xffff);
    draw(VGA_LINEAR, 2560, 1600);
    assert_int_equal(at(2559, 1599), 0);
    set(LINE, 0xffff);
    assert_int_equal(get(LINE), 2560);
    set(LINE, 5);
    assert_int_equal(get(LINE), 2560);
    rig_out(&r, INDEX, 1); /* half of a register */
    rig_out(&r, DATA, 1);
    rig_out16(&r, INDEX, 0xffff);
    rig_out16(&r, DATA, 0xffff);
    /* Any registers of the VGA's, in any mode. */
    set(ENABLE, 0);
    for (unsigned seed = 1; seed < 3000; seed++) {
        unsigned x = seed * 2654435761u;
        static const unsigned ports[] = {CRTC, SEQ, GFX};

        put(ports[x % 3], x >> 8 & 31, x >> 16 & 0xff);
        put_attr(x >> 3 & 31, x >> 24);
        if (seed % 50)
            continue;
        vga_look(vga, mem, &p);
        assert_in_range(p.width, 1, VGA_WIDTH);
        assert_in_range(p.height, 1, VGA_HEIGHT);
        vga_draw(&p, mem, pixels);
        planes_write(x & 0xffff, x >> 8 & 0xff);
        planes_read(x & 0xffff);
    }
}

/* The memory is where its bar says, or nowhere; a reset forgets all. */
static void test_bar(void **state) {
    uint32_t value = 0x112233;

    poke(LFB, &value, 4);
    pci_config_write(function(), PCI_COMMAND, 2, 0);
    assert_int_equal(mem_kind_at(mem, gpa(LFB)), MEM_NONE);
    pci_config_write(function(), PCI_BAR0, 4, 0xd0000000);
    pci_config_write(function(), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(mem_read(mem, gpa(0xd0000000), &value, 4));
    assert_int_equal(value, 0x112233);
    enable(640, 480, 32, 0x41);
    mem_reset(mem);
    vga_reset(vga);
    pci_reset(pci);
    draw(VGA_TEXT, 720, 400);
    pci_config_write(function(), PCI_BAR0, 4, LFB);
    pci_config_write(function(), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(mem_read(mem, gpa(LFB), &value, 4));
    assert_int_equal(value, 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_text),    T(test_font), T(test_planes), T(test_write_modes),
        T(test_bytes),   T(test_bank), T(test_linear), T(test_registers),
        T(test_hostile), T(test_bar),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
