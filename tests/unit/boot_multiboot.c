/*
 * Multiboot: what the kernel is given, and where, whatever it leaves free; modules and
 * their strings; the selectors. (What the files may be is boot.c's.)
 */
#include <stdio.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/loaded.h"
#include "lib/unit.h"

#define RAM (32ull << 20)
#define CODE 0x200u

static char dir[] = "/tmp/bivisor-multiboot-XXXXXX";

/* Name of a file of ours with these bytes. */
static const char *file(const char *name, const void *bytes, size_t len) {
    static char path[8][64];
    static unsigned n;
    char *p = path[n++ % 8];
    int fd;

    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    fd = open(p, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
    return p;
}

struct place {
    uint32_t at, size;
};

/* An ELF kernel with segments at these places; the entry is the first one's start. */
static const char *kernel(const struct place *seg, unsigned n) {
    static uint8_t p[0x400];

    memset(p, 0, sizeof(p));
    memcpy(p, "\177ELF\1\1\1", 7);
    put(p, 16, 2, 2);
    put(p, 18, 2, 3);
    put(p, 24, 4, seg[0].at);
    put(p, 28, 4, 52);
    put(p, 42, 2, 32);
    put(p, 44, 2, n);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *s = p + 52 + 32 * i;

        put(s, 0, 4, 1);
        put(s, 4, 4, CODE);
        put(s, 8, 4, seg[i].at);
        put(s, 12, 4, seg[i].at);
        put(s, 16, 4, seg[i].size < 16 ? seg[i].size : 16);
        put(s, 20, 4, seg[i].size);
    }
    put(p, CODE, 4, 0x1badb002);
    put(p, CODE + 4, 4, 0);
    put(p, CODE + 8, 4, 0u - 0x1badb002u);
    return file("kernel.elf", p, sizeof(p));
}

struct module {
    const char *name, *args;
};

static int load(const char *path, const char *initrd, const struct module *mods,
                unsigned n, enum boot_protocol protocol) {
    struct boot_config cfg = {.protocol = protocol, .cmdline = "one two"};
    struct boot_image *image;
    int rc;

    mem_reset(M);
    why[0] = 0;
    assert_int_equal(boot_image_open(path, initrd, &image, why, sizeof(why)), 0);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(boot_image_add_module(
                             image,
                             file(mods[i].name, mods[i].name, strlen(mods[i].name) + 1),
                             mods[i].args, why, sizeof(why)),
                         0);
    rc = boot_image_load(image, &V, M, &cfg, why, sizeof(why));
    boot_image_close(image);
    return rc;
}

/* The block of what is given overlaps nothing, and says what it should. */
static void check_block(const struct place *seg, unsigned n) {
    uint64_t info = V.gpr[REG_RBX], end = info + 0x21000;

    assert_int_equal(V.gpr[REG_RAX], 0x2badb002);
    assert_int_equal(V.rip, seg[0].at);
    for (unsigned i = 0; i < n; i++) {
        assert_true(end <= seg[i].at || seg[i].at + seg[i].size <= info);
        assert_int_equal(peek(M, seg[i].at, 4), 0x1badb002);
    }
    assert_in_range(peek(M, info + 16, 4), info, end - 1);
    assert_text(peek(M, info + 16, 4), "kernel.elf one two");
    assert_text(peek(M, info + 64, 4), "bivisor");
    assert_int_equal(V.seg[SEG_CS].sel, 0x08);
    assert_int_equal(V.seg[SEG_DS].sel, 0x10);
    assert_int_equal(V.seg[SEG_SS].sel, 0x10);
    assert_in_range(V.gdtr.base, info, end - 0x20);
    assert_int_equal(peek(M, V.gdtr.base, 8), 0);
    assert_int_equal(peek(M, V.gdtr.base + 0x08, 8), 0x00cf9b000000ffff);
    assert_int_equal(peek(M, V.gdtr.base + 0x10, 8), 0x00cf93000000ffff);
    assert_int_equal(peek(M, peek(M, info + 48, 4) + 4, 8), 0); /* the map begins at 0 */
}

static void test_places(void **state) {
    static const struct {
        struct place seg[3];
        unsigned n;
        uint64_t info;
    } cases[] = {
        {{{0x100000, 0x1000}}, 1, 0x20000},
        {{{0x7c00, 0x1000}}, 1, 0x20000},
        {{{0x500, 0x100}}, 1, 0x20000},
        {{{0x20000, 0x10}}, 1, 0x21000},
        {{{0x40ff0, 0x20}}, 1, 0x1000},
        {{{0x41000, 0x10}}, 1, 0x20000},
        {{{0x2000, 0x1000}, {0x30000, 0x1000}}, 2, 0x3000},
        {{{0x1000, 0x8e000}}, 1, 0},
        {{{0x10000, 0x10000}, {0x20000, 0x60000}, {0x100000, 0x2800}}, 3, 0x103000},
        {{{0, 0x1000}}, 1, 0x20000},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int rc = load(kernel(cases[i].seg, cases[i].n), NULL, NULL, 0, BOOT_AUTO);

        if (!cases[i]
                 .info) { /* 0x1000 to 0x8f000, and nothing above 1 MiB to lie behind */
            assert_int_equal(rc, -EINVAL);
            assert_non_null(strstr(why, "leaves no room"));
            continue;
        }
        if (rc)
            fail_msg("%zu: %s", i, why);
        assert_int_equal(V.gpr[REG_RBX], cases[i].info);
        check_block(cases[i].seg, cases[i].n);
    }
}

static void test_low_refused(void **state) {
    static const struct place bad[] = {
        {0x9fc00, 1}, {0x9f000, 0xc01}, {0xa0000, 16}, {0xf0000, 16}, {0xfffff, 2}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(load(kernel(&bad[i], 1), NULL, NULL, 0, BOOT_AUTO), -EINVAL);
        assert_non_null(strstr(why, "not RAM"));
    }
}

/* The initrd first, then the modules, ascending in memory, each with its string. */
static void test_modules(void **state) {
    static const struct module mods[] = {
        {"vmlinuz", "root=/dev/ram0 console=hvc0"}, {"initrd.gz", NULL}, {"third", ""}};
    static const char *const strings[] = {
        "ramdisk", "vmlinuz root=/dev/ram0 console=hvc0", "initrd.gz", "third "};
    static const struct place seg = {0x100000, 0x1000};
    uint64_t info, last = seg.at + seg.size;

    assert_int_equal(
        load(kernel(&seg, 1), file("ramdisk", "ramdisk", 8), mods, 3, BOOT_AUTO), 0);
    info = V.gpr[REG_RBX];
    assert_int_equal(peek(M, info, 4) & 8, 8);
    assert_int_equal(peek(M, info + 20, 4), 4);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t m = peek(M, info + 24, 4) + 16 * i, at = peek(M, m, 4);
        const char *contents = i ? mods[i - 1].name : "ramdisk";

        assert_int_equal(at % 4096, 0);
        assert_true(at >= last);
        last = peek(M, m + 4, 4);
        assert_int_equal(last - at, strlen(contents) + 1);
        assert_text(at, contents);
        assert_text(peek(M, m + 8, 4), strings[i]);
        assert_int_equal(peek(M, m + 12, 4), 0);
    }
    assert_true(last <= RAM);
    check_block(&seg, 1);
    assert_int_equal(load(kernel(&seg, 1), NULL, mods, 1, BOOT_MULTIBOOT), 0);
    assert_int_equal(peek(M, V.gpr[REG_RBX] + 20, 4), 1);
    assert_int_equal(load(kernel(&seg, 1), NULL, NULL, 0, BOOT_MULTIBOOT), 0);
    assert_int_equal(peek(M, V.gpr[REG_RBX] + 20, 4), 0);
}

static void test_modules_refused(void **state) {
    static const struct place seg = {0x100000, 0x1000}, most = {0x200000, 0x1dff000};
    static char text[0x10000];
    struct module mods[16];

    memset(text, 'x', 4000);
    for (unsigned i = 0; i < 16; i++)
        mods[i] = (struct module){"m", text};
    assert_int_equal(load(kernel(&seg, 1), NULL, mods, 15, BOOT_AUTO), 0);
    assert_int_equal(load(kernel(&seg, 1), NULL, mods, 16, BOOT_AUTO), -EINVAL);
    assert_non_null(strstr(why, "too many modules"));
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(load(kernel(&seg, 1), NULL, mods, 1, BOOT_AUTO), -EINVAL);
    assert_non_null(strstr(why, "too many modules"));
    /* One page is left. */
    mods[0].args = mods[1].args = NULL;
    assert_int_equal(load(kernel(&most, 1), NULL, mods, 1, BOOT_AUTO), 0);
    assert_int_equal(load(kernel(&most, 1), NULL, mods, 2, BOOT_AUTO), -EINVAL);
    assert_non_null(strstr(why, "module"));
    assert_non_null(strstr(why, "does not fit"));
}

/* Other protocols have no place for them. */
static void test_modules_elsewhere(void **state) {
    static const struct module mod = {"stray", NULL};
    uint8_t image[2048] = {0};

    put(image, 0x1f1, 1, 1);
    put(image, 0x1fe, 2, 0xaa55);
    put(image, 0x200, 2, 0x6aeb);
    memcpy(image + 0x202, "HdrS", 4);
    put(image, 0x206, 2, 0x205);
    put(image, 0x211, 1, 1);
    put(image, 0x214, 4, 0x100000);
    put(image, 0x230, 4, 0x100000);
    put(image, 0x234, 1, 1);
    put(image, 0x1f4, 4, 0x40);
    assert_int_equal(
        load(file("bzImage", image, sizeof(image)), NULL, NULL, 0, BOOT_AUTO), 0);
    assert_int_equal(
        load(file("bzImage", image, sizeof(image)), NULL, &mod, 1, BOOT_AUTO), -EINVAL);
    assert_non_null(strstr(why, "stray"));
    assert_non_null(strstr(why, "multiboot"));
}

static int group_setup(void **state) {
    return mkdtemp(dir) ? loaded_new(RAM) : -1;
}

static int group_teardown(void **state) {
    char command[64];

    loaded_free();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_low_refused),
        cmocka_unit_test(test_modules),
        cmocka_unit_test(test_modules_refused),
        cmocka_unit_test(test_modules_elsewhere),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
