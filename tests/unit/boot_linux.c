/*
 * Linux's boot protocol, version by version: an image of each has what its version knows
 * and rubbish in all fields that came later, which must make no difference. What the
 * loader gives back is looked at in the guest: the zero page of the 32-bit entry, the
 * header of the 16-bit setup.
 */
#include <stdio.h>

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/loaded.h"
#include "lib/unit.h"

#define RAM (64ull << 20)
#define SECTORS 3u /* of setup */
#define SETUP ((SECTORS + 1) * 512)
#define IMAGE (SETUP + 0x1000)
#define RUBBISH 0xee

static const unsigned versions[] = {0x200, 0x201, 0x202, 0x203, 0x204,
                                    0x205, 0x206, 0x207, 0x208, 0x209,
                                    0x20a, 0x20b, 0x20c, 0x20d, 0x20f};

/* A field, and the version that brought it. */
static void field(uint8_t *p, unsigned version, unsigned since, unsigned off,
                  unsigned len, uint64_t v) {
    if (version >= since)
        put(p, off, len, v);
}

static void build(uint8_t *p, unsigned version) {
    static const struct {
        unsigned version, end;
    } ends[] = {{0x200, 0x224}, {0x201, 0x228}, {0x202, 0x22c}, {0x203, 0x230},
                {0x205, 0x238}, {0x206, 0x23c}, {0x207, 0x248}, {0x208, 0x250},
                {0x209, 0x258}, {0x20a, 0x264}, {0x20b, 0x268}, {0x20f, 0x26c}};
    unsigned end = 0x200;

    memset(p, RUBBISH, IMAGE);
    for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++)
        end = version >= ends[i].version ? ends[i].end : end;
    memset(p + 0x1f1, 0, end - 0x1f1);
    p[0x1f1] = SECTORS;
    put(p, 0x1f4, 4, version >= 0x204 ? 0x100 : 0xeeeeffff); /* two bytes were the size */
    put(p, 0x1fe, 2, 0xaa55);
    field(p, version, 0x200, 0x200, 2, 0xeb | (end - 0x202) << 8);
    field(p, version, 0x200, 0x202, 4, 0x53726448);
    field(p, version, 0x200, 0x206, 2, version);
    field(p, version, 0x200, 0x211, 1, 1);
    field(p, version, 0x200, 0x214, 4, 0x100000);
    field(p, version, 0x203, 0x22c, 4, 0x2ffffff);
    field(p, version, 0x205, 0x230, 4, 0x400000);
    field(p, version, 0x205, 0x234, 1, 1);
    field(p, version, 0x206, 0x238, 4, 1000);
    field(p, version, 0x208, 0x24c, 4, 0x10);
    field(p, version, 0x20a, 0x235, 1, 21);
    field(p, version, 0x20a, 0x258, 8, 0x1000000);
    field(p, version, 0x20a, 0x260, 4, 0x100000);
    field(p, version, 0x20c, 0x236, 2, 1);
    memcpy(p + SETUP, "kernel", 7);
}

static int load(const uint8_t *p, size_t size, enum boot_protocol protocol,
                const char *rd, const char *cmdline) {
    struct boot_config cfg = {.protocol = protocol, .cmdline = cmdline};
    int kernel = memfd_create("kernel", MFD_CLOEXEC), initrd = -1, rc;
    char path[2][32];
    struct boot_image *image;

    assert_int_equal(pwrite(kernel, p, size, 0), (ssize_t)size);
    snprintf(path[0], sizeof(path[0]), "/proc/self/fd/%d", kernel);
    if (rd) {
        initrd = memfd_create("initrd", MFD_CLOEXEC);
        assert_int_equal(pwrite(initrd, rd, strlen(rd) + 1, 0), (ssize_t)strlen(rd) + 1);
        snprintf(path[1], sizeof(path[1]), "/proc/self/fd/%d", initrd);
    }
    mem_reset(M);
    memset(why, 0, sizeof(why));
    rc = boot_image_open(path[0], rd ? path[1] : NULL, &image, why, sizeof(why));
    assert_int_equal(rc, 0);
    rc = boot_image_load(image, &V, M, &cfg, why, sizeof(why));
    boot_image_close(image);
    close(kernel);
    if (rd)
        close(initrd);
    return rc;
}

/* In the ROM, on the way to a setup at SEG with its stack at SP. */
static void assert_setup(unsigned seg, unsigned sp) {
    assert_int_equal(V.mode, MODE_16);
    assert_int_equal(V.seg[SEG_CS].sel, 0xf000);
    assert_int_equal(V.seg[SEG_CS].base, 0xf0000);
    assert_int_equal(V.rip, 0xf000);
    assert_int_equal(peek(M, 0xff000, 1), 0xfa); /* cli */
    assert_int_equal(V.gpr[REG_RBX], seg);
    assert_int_equal(V.gpr[REG_RCX], sp);
}

/* The header of the setup at BASE after a load with "one two" and an initrd. */
static void check_setup(unsigned version, uint64_t base, bool high) {
    bool old = version < 0x202 || !high;
    uint64_t cmdline = version >= 0x202 ? peek(M, base + 0x228, 4) : base + 0x9800;

    assert_setup((unsigned)(base >> 4), old ? 0x9800 : 0xe000);
    assert_int_equal(base, old ? 0x90000 : 0x10000);
    assert_int_equal(peek(M, base + 0x1fa, 2), 0xffff);
    assert_int_equal(peek(M, base + 0x210, 1), 0xff);
    assert_int_equal(peek(M, base + 0x214, 4), 0x100000);
    assert_int_equal(peek(M, base + 0x211, 1), version >= 0x201 ? 0x80 | high : high);
    if (version >= 0x201)
        assert_int_equal(peek(M, base + 0x224, 2), (old ? 0x9800 : 0xe000) - 0x200);
    else
        assert_int_equal(peek(M, base + 0x224, 2), 0xeeee);
    if (version < 0x202) {
        assert_int_equal(peek(M, base + 0x20, 2), 0xa33f);
        assert_int_equal(peek(M, base + 0x22, 2), 0x9800);
        assert_int_equal(peek(M, base + 0x212, 2), 0x9800 + 8);
        assert_int_equal(peek(M, base + 0x228, 4), 0xeeeeeeee);
    }
    assert_text(cmdline, "one two");
    assert_text(peek(M, base + 0x218, 4), "ramdisk");
    assert_int_equal(peek(M, base + 0x21c, 4), 8);
    assert_text(high ? 0x100000 : 0x10000, "kernel");
}

static void check_zero_page(unsigned version) {
    uint64_t zp = V.gpr[REG_RSI];
    bool reloc = version >= 0x205;
    uint64_t at = version >= 0x20a ? 0x1000000 : reloc ? 0x400000 : 0x100000;

    assert_int_equal(V.mode, version >= 0x20c ? MODE_64 : MODE_32);
    assert_int_equal(V.rip, at + (version >= 0x20c ? 0x200 : 0));
    assert_text(at, "kernel");
    assert_int_equal(peek(M, zp + 0x206, 2), version);
    assert_int_equal(peek(M, zp + 0x210, 1), 0xff);
    assert_int_equal(peek(M, zp + 0x214, 4), at);
    assert_text(peek(M, zp + 0x228, 4), "one two");
    assert_text(peek(M, zp + 0x218, 4), "ramdisk");
    assert_in_range(peek(M, zp + 0x218, 4), version >= 0x203 ? 0x2f00000 : 0x3f00000,
                    version >= 0x203 ? 0x2ffffff : 0x3ffffff);
    assert_int_equal(peek(M, zp + 0x230, 4), reloc ? 0x400000 : 0);
    /* The sizes that came before the map. */
    assert_int_equal(peek(M, zp + 0x002, 2), 63 << 10);
    assert_int_equal(peek(M, zp + 0x1e0, 4), 63 << 10);
    assert_int_equal(peek(M, zp + 0x1ef, 1), 0); /* the sentinel */
    assert_int_equal(peek(M, zp + 0x06, 2), 0x5003);
    /* The decompressor's: 0x1000 and what is below the zero page. */
    assert_true(V.gdtr.base >= zp + 4096 && peek(M, zp + 0x228, 4) >= zp + 4096);
    assert_true(V.cr3 == 0 || version >= 0x20c);
}

static void test_versions(void **state) {
    uint8_t image[IMAGE];

    for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++) {
        unsigned v = versions[i];

        build(image, v);
        if (load(image, sizeof(image), BOOT_AUTO, "ramdisk", "one two"))
            fail_msg("version %x: %s", v, why);
        if (v < 0x202)
            check_setup(v, 0x90000, true);
        else
            check_zero_page(v);
        if (load(image, sizeof(image), BOOT_LINUX16, "ramdisk", "one two"))
            fail_msg("version %x, linux16: %s", v, why);
        check_setup(v, v < 0x202 ? 0x90000 : 0x10000, true);
        assert_int_equal(load(image, sizeof(image), BOOT_LINUX32, NULL, ""),
                         v < 0x202 ? -EINVAL : 0);
        image[0x211] = 0; /* a zImage */
        if (load(image, sizeof(image), BOOT_AUTO, "ramdisk", "one two"))
            fail_msg("version %x, zImage: %s", v, why);
        check_setup(v, 0x90000, false);
    }
}

/* The size of the two last fields, and of the command line, by version. */
static void test_cmdline_limits(void **state) {
    uint8_t image[IMAGE];
    char text[1002];

    for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++) {
        unsigned limit = versions[i] < 0x206 ? 255 : 1000;

        build(image, versions[i]);
        memset(text, 'x', sizeof(text));
        text[limit] = 0;
        assert_int_equal(load(image, sizeof(image), BOOT_AUTO, NULL, text), 0);
        text[limit] = 'x';
        text[limit + 1] = 0;
        assert_int_equal(load(image, sizeof(image), BOOT_AUTO, NULL, text), -EINVAL);
        assert_non_null(strstr(why, "command line"));
    }
}

/* In the segment at 0x90000 there is room up to 0x9a000, whatever the kernel would take.
 */
static void test_cmdline_of_a_zimage(void **state) {
    uint8_t image[IMAGE];
    char text[2049] = {0};

    build(image, 0x20f);
    put(image, 0x238, 4, 60000);
    memset(text, 'x', 2048);
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX16, NULL, text), 0);
    image[0x211] = 0;
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX16, NULL, text), -EINVAL);
    text[2047] = 0;
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX16, NULL, text), 0);
    assert_text(0x99800, text);
    assert_int_equal(peek(M, 0x9a000, 8), 0);
}

/* Before 2.00: a boot sector's flag, a setup, and 512 KiB at most. Only on demand. */
static void test_no_header(void **state) {
    uint8_t image[IMAGE];

    build(image, 0);
    assert_int_equal(load(image, sizeof(image), BOOT_AUTO, NULL, "one two"), -EINVAL);
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX16, NULL, "one two"), 0);
    assert_setup(0x9000, 0x9800);
    assert_int_equal(peek(M, 0x90020, 2), 0xa33f);
    assert_int_equal(peek(M, 0x90022, 2), 0x9800);
    assert_text(0x99800, "one two");
    assert_text(0x10000, "kernel");
    /* Nothing of the header that there is not. */
    for (unsigned i = 0x200; i < 0x290; i++)
        assert_int_equal(peek(M, 0x90000 + i, 1), RUBBISH);
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX16, "ramdisk", ""), -EINVAL);
    assert_non_null(strstr(why, "no initrd"));
    image[0x1f1] = 0; /* says 4 */
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX16, NULL, ""), 0);
    assert_int_equal(peek(M, 0x10000, 4), 0xeeeeeeee);
}

/* iPXE: nowhere to jump to in protected mode. */
static void test_no_entry(void **state) {
    uint8_t image[IMAGE];

    build(image, 0x207);
    put(image, 0x214, 4, 0);
    assert_int_equal(load(image, sizeof(image), BOOT_AUTO, NULL, "one two"), 0);
    assert_setup(0x1000, 0xe000);
    assert_int_equal(peek(M, 0x10214, 4), 0);
    assert_int_equal(load(image, sizeof(image), BOOT_LINUX32, NULL, "one two"), 0);
    assert_int_equal(V.mode, MODE_32);
}

static void test_options_for_loaders(void **state) {
    static const struct {
        const char *cmdline;
        unsigned vga;
        uint64_t end; /* of memory */
    } lines[] = {
        {"", 0xffff, RAM},
        {"vga=normal", 0xffff, RAM},
        {"quiet vga=ext", 0xfffe, RAM},
        {"vga=0x317 vga=ask quiet", 0xfffd, RAM},
        {"vga=791", 791, RAM},
        {"vga=0x10000", 0xffff, RAM},
        {"vga=", 0xffff, RAM},
        {"novga=1 x", 0xffff, RAM},
        {"mem=32M", 0xffff, 32 << 20},
        {"mem=0x2000k x", 0xffff, 8 << 20},
        {"mem=1G mem=33554432", 0xffff, 32 << 20},
        {"mem=1E", 0xffff, RAM},
        {"mem=99999999999999999999", 0xffff, RAM},
        {"mem=17179869184G", 0xffff, RAM},
        {"mem=-1M", 0xffff, RAM},
        {"mem=nopentium", 0xffff, RAM},
        {"xmem=32M", 0xffff, RAM},
    };
    uint8_t image[IMAGE];

    build(image, 0x202);
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        if (load(image, sizeof(image), BOOT_AUTO, "ramdisk", lines[i].cmdline))
            fail_msg("%s: %s", lines[i].cmdline, why);
        assert_int_equal(peek(M, V.gpr[REG_RSI] + 0x1fa, 2), lines[i].vga);
        assert_int_equal(peek(M, V.gpr[REG_RSI] + 0x218, 4), lines[i].end - 4096);
    }
}

static void test_refusals(void **state) {
    static const struct {
        unsigned version, size, off, len;
        uint64_t value;
        enum boot_protocol protocol;
        const char *say;
    } bad[] = {
        {0x201, IMAGE, 0, 0, 0, BOOT_LINUX32, "protocol 2.01"},
        {0x201, IMAGE, 0, 0, 0, BOOT_LINUX64, "linux16"},
        {0x204, IMAGE, 0x211, 1, 0, BOOT_LINUX32, "zImage"},
        {0x207, IMAGE, 0x1fe, 2, 0, BOOT_LINUX16, "no Linux kernel with a 16-bit setup"},
        {0x207, 0x1ff, 0, 0, 0, BOOT_LINUX16, "no Linux kernel with a 16-bit setup"},
        {0x200, 0x210, 0, 0, 0, BOOT_LINUX16, "ends within its header"},
        {0x207, 0x24f, 0, 0, 0, BOOT_LINUX16, "ends within its header"},
        {0x20a, 0x263, 0, 0, 0, BOOT_LINUX16, "ends within its header"},
        {0, SETUP, 0, 0, 0, BOOT_LINUX16, "truncated"},
        {0x207, SETUP + 0x800, 0, 0, 0, BOOT_LINUX16, "truncated"},
        {0x200, 1 << 20, 0x1f1, 1, 64, BOOT_AUTO, "setup of 32 KiB"},
        {0x200, 1 << 20, 0x211, 1, 0, BOOT_AUTO, "512 KiB are possible"},
        {0x20a, IMAGE, 0x260, 4, 64 << 20, BOOT_LINUX16, "give --memory more"},
        {0x20a, IMAGE, 0x258, 8, ~0ull, BOOT_LINUX16, "give --memory more"},
    };
    static uint8_t image[1 << 20];

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        memset(image, 0, sizeof(image));
        build(image, bad[i].version);
        put(image, bad[i].off, bad[i].len, bad[i].value);
        assert_int_equal(load(image, bad[i].size, bad[i].protocol, NULL, ""), -EINVAL);
        if (!strstr(why, bad[i].say))
            fail_msg("%zu: \"%s\" does not say \"%s\"", i, why, bad[i].say);
    }
}

/* Any header: refused, or loaded and at an entry that is there. */
static void test_mutations(void **state) {
    uint64_t s = 88172645463325252ull;
    uint8_t image[IMAGE];

    for (unsigned i = 0; i < 20000; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        build(image, versions[s % (sizeof(versions) / sizeof(*versions))]);
        for (unsigned k = 0; k < 1 + (s >> 8) % 4; k++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            image[0x1f1 + (s >> 16) % 0x80] = s & 1   ? (uint8_t)(s >> 40)
                                              : s & 2 ? 0xff
                                                      : 0;
        }
        if (!load(image, sizeof(image), i & 1 ? BOOT_LINUX16 : BOOT_AUTO,
                  i & 2 ? "ramdisk" : NULL, "x"))
            assert_int_not_equal(mem_kind_at(M, gpa(V.seg[SEG_CS].base + V.rip)),
                                 MEM_NONE);
    }
}

static int setup(void **state) {
    return loaded_new(RAM);
}

static int teardown(void **state) {
    loaded_free();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_cmdline_limits),
        cmocka_unit_test(test_cmdline_of_a_zimage),
        cmocka_unit_test(test_no_header),
        cmocka_unit_test(test_no_entry),
        cmocka_unit_test(test_options_for_loaders),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
