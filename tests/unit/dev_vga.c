/*
 * The VGA's registers by themselves: files behind an index, the attribute controller's
 * flip-flop, the DAC's positions, where the CRTC answers, and the retrace that moves.
 */
#include "dev/pc/vga.h"
#include "lib/rig.h"
#include "lib/unit.h"

enum {
    ATTR = 0x3c0,
    ATTR_READ,
    MISC,
    SEQ = 0x3c4,
    DAC_MASK = 0x3c6,
    DAC_READ,
    DAC_WRITE
};
enum { DAC_DATA = 0x3c9, FEATURE_READ, MISC_READ = 0x3cc, GFX = 0x3ce };
enum { CRTC_MONO = 0x3b4, CRTC = 0x3d4, STATUS_MONO = 0x3ba, STATUS = 0x3da };

static struct rig r;
static struct vga *vga;

static int setup(void **state) {
    rig_new(&r);
    vga = vga_new(r.bus, r.clock, NULL);
    return vga ? 0 : -1;
}

static int teardown(void **state) {
    vga_free(vga);
    rig_free(&r);
    return 0;
}

static void put(unsigned port, unsigned index, unsigned value) {
    rig_out(&r, port, index);
    rig_out(&r, port + 1, value);
}

static unsigned get(unsigned port, unsigned index) {
    rig_out(&r, port, index);
    return rig_in(&r, port + 1);
}

/* Each file keeps what is written, of as many registers as it has; then the index wraps.
 */
static void test_files(void **state) {
    static const struct {
        unsigned port, count;
    } files[] = {{CRTC, 0x20}, {SEQ, 8}, {GFX, 16}};

    put(CRTC, 0x11, 0); /* not protected */
    for (unsigned k = 0; k < 3; k++) {
        for (unsigned i = 0; i < files[k].count; i++)
            if (k || i != 0x11)
                put(files[k].port, i, 0x40 + i);
        for (unsigned i = 0; i < files[k].count; i++)
            assert_int_equal(get(files[k].port, i), !k && i == 0x11 ? 0 : 0x40 + i);
        assert_int_equal(get(files[k].port, files[k].count + 3), 0x43);
        assert_int_equal(rig_in(&r, files[k].port), 3);
    }
    rig_out16(&r, SEQ, 0x5502); /* both in one access, as drivers do */
    assert_int_equal(get(SEQ, 2), 0x55);
}

/* Bit 7 of register 0x11 protects registers 0 to 7, but for bit 4 of register 7. */
static void test_protection(void **state) {
    assert_int_equal(get(CRTC, 0x11), 0x8e); /* as mode 3 has it */
    put(CRTC, 0, 0x11);
    assert_int_equal(get(CRTC, 0), 0x5f);
    put(CRTC, 7, 0xe0);
    assert_int_equal(get(CRTC, 7), 0x0f);
    put(CRTC, 7, 0x10);
    assert_int_equal(get(CRTC, 7), 0x1f);
    put(CRTC, 8, 0x11);
    assert_int_equal(get(CRTC, 8), 0x11);
    put(CRTC, 0x11, 0x0e);
    put(CRTC, 0, 0x11);
    assert_int_equal(get(CRTC, 0), 0x11);
}

/* Index and data by turns at one port; a read of the status begins with an index. */
static void test_attributes(void **state) {
    rig_in(&r, STATUS);
    for (unsigned i = 0; i < 0x20; i++) {
        rig_out(&r, ATTR, i);
        rig_out(&r, ATTR, 0x3f - i);
    }
    for (unsigned i = 0; i < 0x20; i++) {
        rig_in(&r, STATUS);
        rig_out(&r, ATTR, 0x20 | i);
        assert_int_equal(rig_in(&r, ATTR), 0x20 | i);
        assert_int_equal(rig_in(&r, ATTR_READ), 0x3f - i);
    }
    rig_in(&r, STATUS);
    rig_out(&r, ATTR, 1);
    rig_in(&r, STATUS);
    rig_out(&r, ATTR, 2);
    rig_out(&r, ATTR, 0x77);
    assert_int_equal(rig_in(&r, ATTR_READ), 0x77);
    rig_out(&r, ATTR, 1);
    assert_int_equal(rig_in(&r, ATTR_READ), 0x3e);
}

/* 256 colours of three times six bits; positions for reading and for writing. */
static void test_dac(void **state) {
    rig_out(&r, DAC_WRITE, 0);
    for (unsigned k = 0; k < 768; k++)
        rig_out(&r, DAC_DATA, k * 5);
    rig_out(&r, DAC_READ, 0);
    assert_int_equal(rig_in(&r, DAC_READ), 3);
    for (unsigned k = 0; k < 768 + 3; k++)
        assert_int_equal(rig_in(&r, DAC_DATA), k % 768 * 5 & 0x3f);
    rig_out(&r, DAC_WRITE, 255);
    assert_int_equal(rig_in(&r, DAC_READ), 0);
    for (unsigned k = 1; k <= 4; k++)
        rig_out(&r, DAC_DATA, k);
    assert_int_equal(rig_in(&r, DAC_WRITE), 0);
    rig_out(&r, DAC_WRITE, 0x55);
    assert_int_equal(rig_in(&r, DAC_WRITE), 0x55);
    rig_out(&r, DAC_READ, 255);
    for (unsigned k = 1; k <= 4; k++)
        assert_int_equal(rig_in(&r, DAC_DATA), k);
    assert_int_equal(rig_in(&r, DAC_MASK), 0xff);
    rig_out(&r, DAC_MASK, 0x0f);
    assert_int_equal(rig_in(&r, DAC_MASK), 0x0f);
}

/* Bit 0 of the miscellaneous output says where CRTC and status are. */
static void test_colour_or_mono(void **state) {
    assert_int_equal(rig_in(&r, MISC_READ), 0x67);
    assert_int_equal(rig_in(&r, MISC), 0x10);
    put(CRTC_MONO, 0x0e, 0x12);
    assert_int_equal(get(CRTC_MONO, 0x0e), 0xff);
    assert_int_equal(rig_in(&r, STATUS_MONO), 0xff);
    put(CRTC, 0x0e, 0x34);
    rig_out(&r, MISC, 0x66);
    assert_int_equal(get(CRTC_MONO, 0x0e), 0x34);
    assert_int_equal(get(CRTC, 0x0e), 0xff);
    assert_int_equal(rig_in(&r, STATUS), 0xff);
    assert_true(rig_in(&r, STATUS_MONO) != 0xff);
    rig_out(&r, STATUS_MONO, 0x02); /* feature control */
    assert_int_equal(rig_in(&r, FEATURE_READ), 0x02);
}

/* Both retraces come and go: 60 frames a second. */
static void test_retrace(void **state) {
    unsigned vertical = 0, blank = 0, last = rig_in(&r, STATUS), frames = 0;

    for (unsigned us = 0; us < 1000000; us += 5) {
        unsigned s;

        rig_pass(&r, 5000);
        s = rig_in(&r, STATUS);
        assert_int_equal(s & ~9u, 0);
        assert_true(!(s & 8) || s & 1);
        frames += (s & 8) && !(last & 8);
        vertical += s >> 3;
        blank += s & 1;
        last = s;
    }
    assert_in_range(frames, 59, 61);
    assert_in_range(vertical, 19000, 21000); /* a tenth of the time */
    assert_in_range(blank, 54000, 58000);    /* and a fifth of the rest */
}

/* Mode 3: 80 by 25 characters of 9 by 16, 720 by 400 at 70 Hz; the colours of text. */
static void test_mode_3(void **state) {
    static const uint8_t crtc[25] = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
                                     0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
                                     0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
    static const uint8_t attr[21] = {0,    1,    2,    3,    4,    5,    0x14,
                                     7,    0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d,
                                     0x3e, 0x3f, 0x0c, 0,    0x0f, 8,    0};
    static const uint8_t gfx[9] = {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff};
    static const uint8_t seq[5] = {3, 0, 3, 0, 2};

    for (unsigned k = 0; k < 25; k++)
        assert_int_equal(get(CRTC, k), crtc[k]);
    for (unsigned k = 0; k < 9; k++)
        assert_int_equal(get(GFX, k), gfx[k]);
    for (unsigned k = 0; k < 5; k++)
        assert_int_equal(get(SEQ, k), seq[k]);
    assert_int_equal(rig_in(&r, ATTR), 0x20); /* the screen is on */
    for (unsigned k = 0; k < 21; k++) {
        rig_in(&r, STATUS);
        rig_out(&r, ATTR, k);
        assert_int_equal(rig_in(&r, ATTR_READ), attr[k]);
    }
    assert_int_equal(rig_in(&r, 0x3d6), 0xff); /* nothing is there */
}

static void test_reset(void **state) {
    rig_out(&r, MISC, 0);
    put(GFX, 6, 0);
    rig_out(&r, ATTR, 1);
    vga_reset(vga);
    assert_int_equal(rig_in(&r, MISC_READ), 0x67);
    assert_int_equal(get(CRTC, 1), 79); /* 80 columns */
    assert_int_equal(get(GFX, 6), 0x0e);
    assert_int_equal(get(SEQ, 2), 3);
    rig_out(&r, ATTR, 0x10); /* an index */
    assert_int_equal(rig_in(&r, ATTR_READ), 0x0c);
}

/* What stands on the screen, from where the CRTC begins, and where the cursor is. */
static void test_text(void **state) {
    static struct vga_text t;
    struct mem *mem;

    assert_int_equal(mem_create(MEM_MIN_RAM, &mem), 0);
    assert_true(mem_write(mem, gpa(0xb8000 + 2 * (80 + 3)), "H\x1fi\x2f", 4));
    put(CRTC, 0x0e, 0);
    put(CRTC, 0x0f, 85);
    assert_true(vga_read_text(vga, mem, &t));
    assert_int_equal(t.columns, 80);
    assert_int_equal(t.rows, 25);
    assert_memory_equal(&t.cell[1][3], "Hi", 2);
    assert_memory_equal(&t.attribute[1][3], "\x1f\x2f", 2);
    assert_true(t.cursor && t.row == 1 && t.column == 5);
    put(CRTC, 0x0d, 80); /* a line further */
    assert_true(vga_read_text(vga, mem, &t));
    assert_memory_equal(&t.cell[0][3], "Hi", 2);
    assert_int_equal(t.row, 0);
    put(CRTC, 0x0c, 0x3f); /* the window's end, and round it */
    put(CRTC, 0x0d, 0xb0);
    assert_true(vga_read_text(vga, mem, &t));
    assert_memory_equal(&t.cell[2][3], "Hi", 2);
    put(CRTC, 0x0a, 0x20);
    assert_true(vga_read_text(vga, mem, &t) && !t.cursor);
    put(GFX, 6, 0x05); /* a picture */
    assert_false(vga_read_text(vga, mem, &t));
    put(GFX, 6, 0x0a); /* text, where a monochrome adapter has it */
    assert_true(vga_read_text(vga, mem, &t));
    assert_int_equal(t.cell[2][3], 0);
    for (unsigned n = 0; n < 0x20; n++) /* whatever the registers hold */
        for (unsigned k = 0; k < 256; k += 51) {
            put(CRTC, 0x11, 0);
            put(CRTC, n, k);
            assert_true(vga_read_text(vga, mem, &t));
            assert_true(t.rows <= VGA_ROWS && t.columns <= VGA_COLUMNS);
        }
    mem_destroy(mem);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_text),       T(test_files),          T(test_mode_3),
        T(test_protection), T(test_attributes),     T(test_dac),
        T(test_reset),      T(test_colour_or_mono), T(test_retrace),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
