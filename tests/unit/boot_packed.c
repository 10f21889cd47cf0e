/*
 * The kernel in a bzImage: unpacked from each format, whole, cut off, damaged, too large;
 * and a bzImage with an ELF file in it, which is entered itself if it can be, else
 * through its decompressor.
 */
#include <lz4.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/unpack.h"
#include "lib/loaded.h"
#include "lib/unit.h"

#define RAM (64ull << 20)
#define TEXT_SIZE (9u << 20) /* more than a block of lz4's */

/* --- formats --- */

enum format { GZIP, XZ, LZMA, ZSTD, LZ4, FORMATS };

static size_t gzip_of(const uint8_t *in, size_t len, uint8_t *out, size_t room) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in,
                  .avail_in = (unsigned)len,
                  .next_out = out,
                  .avail_out = (unsigned)room};

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, 0), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

/* As the kernel's build has it: the x86 filter, CRC32. */
static size_t xz_of(enum format f, const uint8_t *in, size_t len, uint8_t *out,
                    size_t room) {
    lzma_options_lzma options;
    lzma_filter filters[] = {
        {LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    lzma_stream z = LZMA_STREAM_INIT;

    assert_false(lzma_lzma_preset(&options, 1));
    assert_int_equal(f == XZ ? lzma_stream_encoder(&z, filters, LZMA_CHECK_CRC32)
                             : lzma_alone_encoder(&z, &options),
                     LZMA_OK);
    z.next_in = in, z.avail_in = len, z.next_out = out, z.avail_out = room;
    assert_int_equal(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
    lzma_end(&z);
    return room - z.avail_out;
}

static size_t lz4_of(const uint8_t *in, size_t len, uint8_t *out, size_t room) {
    size_t at = 4;

    memcpy(out, "\x02\x21\x4c\x18", 4);
    for (size_t from = 0; from < len; from += 8 << 20) {
        size_t piece = len - from < 8 << 20 ? len - from : 8 << 20;
        int n = LZ4_compress_default((const char *)in + from, (char *)out + at + 4,
                                     (int)piece, (int)(room - at - 4));

        assert_true(n > 0);
        put(out, (unsigned)at, 4, (unsigned)n);
        at += 4 + (unsigned)n;
    }
    return at;
}

static size_t pack(enum format f, const uint8_t *in, size_t len, uint8_t *out,
                   size_t room) {
    switch (f) {
    case GZIP:
        return gzip_of(in, len, out, room);
    case ZSTD:
        return ZSTD_compress(out, room, in, len, 3);
    case LZ4:
        return lz4_of(in, len, out, room);
    default:
        return xz_of(f, in, len, out, room);
    }
}

/* Neither all alike nor without repetition. */
static void fill(uint8_t *p, size_t len) {
    uint32_t x = 1;

    for (size_t i = 0; i < len; i++) {
        x = x * 1103515245 + 12345;
        p[i] = x >> 28 ? (uint8_t)(i >> 8) : (uint8_t)(x >> 16);
    }
}

static uint8_t text[TEXT_SIZE], packed[TEXT_SIZE + (1 << 20)];

static void test_formats(void **state) {
    fill(text, sizeof(text));
    for (enum format f = GZIP; f < FORMATS; f++) {
        size_t len = pack(f, text, sizeof(text), packed, sizeof(packed));
        uint64_t size = 0;
        uint8_t *got;

        put(packed, (unsigned)len, 4, sizeof(text)); /* as a kernel's build adds it */
        got = boot_unpack(packed, len + 4, sizeof(text), &size);
        assert_non_null(got);
        assert_int_equal(size, sizeof(text));
        assert_memory_equal(got, text, sizeof(text));
        free(got);
        if (boot_unpack(packed, len + 4, sizeof(text) - 1, &size))
            fail_msg("format %d: more than the limit", f);
        if (f == LZ4)
            continue; /* has neither an end nor a checksum: the ELF file is looked at */
        for (size_t cut = 0; cut < len; cut += 1 + len / 37)
            if (boot_unpack(packed, cut, sizeof(text), &size))
                fail_msg("format %d: cut off at %zu of %zu", f, cut, len);
    }
    assert_null(boot_unpack((const uint8_t *)"BZh91AY&SY", 10, 1 << 20, &(uint64_t){0}));
    assert_null(boot_unpack((const uint8_t *)"", 0, 1 << 20, &(uint64_t){0}));
}

/* Nothing is promised of damaged data but that it does no harm and keeps to the limit. */
static void test_damage(void **state) {
    uint32_t x = 7;

    fill(text, 1 << 16);
    for (enum format f = GZIP; f < FORMATS; f++) {
        size_t len = pack(f, text, 1 << 16, packed, sizeof(packed));

        for (unsigned n = 0; n < 2000; n++) {
            uint64_t size = 0;
            uint8_t *copy = malloc(len), *got; /* what is behind it is not there */

            memcpy(copy, packed, len);
            for (unsigned k = 0; k < 1 + n % 4; k++) {
                x = x * 1103515245 + 12345;
                copy[(x >> 8) % len] = (uint8_t)(x >> 3);
            }
            got = boot_unpack(copy, len, 1 << 20, &size);
            assert_true(!got || size <= 1 << 20);
            free(got);
            free(copy);
        }
    }
}

/* --- a bzImage with an ELF file in it --- */

#define SETUP 2048u
#define STUB 0x1000u /* the decompressor's place, before what it unpacks */
#define ELF_SIZE 0x3000u
#define AT 0x1000000u

struct kernel {
    bool is64;
    enum format format;
    struct {
        unsigned off, len; /* 0: none */
        uint64_t value;
    } elf, header;
};

static size_t build(const struct kernel *k, uint8_t *image, size_t room) {
    static uint8_t elf[ELF_SIZE];
    size_t len;

    memset(elf, 0, sizeof(elf));
    memcpy(elf, k->is64 ? "\177ELF\2\1\1" : "\177ELF\1\1\1", 7);
    put(elf, 16, 2, 2);
    put(elf, 18, 2, k->is64 ? 62 : 3);
    put(elf, 24, 4, AT + 0x40);
    put(elf, k->is64 ? 32 : 28, 4, 0x40);
    put(elf, k->is64 ? 54 : 42, 2, k->is64 ? 56 : 32);
    put(elf, k->is64 ? 56 : 44, 2, 1);
    put(elf, 0x40, 4, 1);
    if (k->is64) {
        put(elf, 0x40 + 8, 8, 0x1000);              /* offset */
        put(elf, 0x40 + 16, 8, 0xffffffff81000000); /* virtual, physical */
        put(elf, 0x40 + 24, 8, AT);
        put(elf, 0x40 + 32, 8, 0x2000); /* in the file, in memory */
        put(elf, 0x40 + 40, 8, 0x5000);
    } else {
        put(elf, 0x40 + 4, 4, 0x1000);
        put(elf, 0x40 + 8, 4, 0xc1000000);
        put(elf, 0x40 + 12, 4, AT);
        put(elf, 0x40 + 16, 4, 0x2000);
        put(elf, 0x40 + 20, 4, 0x5000);
    }
    memcpy(elf + 0x1040, "the kernel's own entry", 23);
    if (k->elf.len)
        put(elf, k->elf.off, k->elf.len, k->elf.value);

    memset(image, 0, SETUP + STUB);
    len = pack(k->format, elf, sizeof(elf), image + SETUP + STUB, room - SETUP - STUB);
    image[0x1f1] = SETUP / 512 - 1;
    put(image, 0x1f4, 4, (STUB + len) / 16);
    put(image, 0x1fe, 2, 0xaa55);
    put(image, 0x200, 2, 0x6aeb);
    put(image, 0x202, 4, 0x53726448);
    put(image, 0x206, 2, 0x20f);
    put(image, 0x211, 1, 1);
    put(image, 0x214, 4, 0x100000);
    put(image, 0x22c, 4, 0x7fffffff);
    put(image, 0x230, 4, 0x200000);
    put(image, 0x234, 1, 1);
    put(image, 0x235, 1, 21);
    put(image, 0x236, 2, k->is64 ? 3 : 0);
    put(image, 0x238, 4, 2047);
    put(image, 0x248, 4, STUB);
    put(image, 0x24c, 4, len);
    put(image, 0x258, 8, AT);
    put(image, 0x260, 4, 0x800000);
    memcpy(image + SETUP + (k->is64 ? 0x200 : 0), "stub", 5);
    if (k->header.len)
        put(image, k->header.off, k->header.len, k->header.value);
    return SETUP + STUB + len;
}

/* Twice, as a reset does it. */
static void load(const struct kernel *k, enum boot_protocol protocol, const char *found) {
    struct boot_config cfg = {.protocol = protocol, .cmdline = "quiet"};
    int fd = memfd_create("kernel", MFD_CLOEXEC), rd = memfd_create("rd", MFD_CLOEXEC);
    size_t len = build(k, packed, sizeof(packed));
    struct boot_image *image;
    char path[2][32];

    snprintf(path[0], sizeof(path[0]), "/proc/self/fd/%d", fd);
    snprintf(path[1], sizeof(path[1]), "/proc/self/fd/%d", rd);
    assert_int_equal(pwrite(fd, packed, len, 0), (ssize_t)len);
    assert_int_equal(pwrite(rd, "initrd", 7, 0), 7);
    assert_int_equal(boot_image_open(path[0], path[1], &image, why, sizeof(why)), 0);
    for (unsigned n = 0; n < 2; n++) {
        mem_reset(M);
        memset(why, 0, sizeof(why));
        if (boot_image_load(image, &V, M, &cfg, why, sizeof(why)))
            fail_msg("%s", why);
        assert_string_equal(why, "");
        assert_int_equal(V.mode, k->is64 ? MODE_64 : MODE_32);
        assert_text(V.rip, found);
        assert_text(peek(M, V.gpr[REG_RSI] + 0x228, 4), "quiet");
        assert_text(peek(M, V.gpr[REG_RSI] + 0x218, 4), "initrd");
        assert_true(peek(M, V.gpr[REG_RSI] + 0x218, 4) >= AT + 0x800000);
    }
    boot_image_close(image);
    close(fd);
    close(rd);
}

static void test_direct(void **state) {
    for (enum format f = GZIP; f < FORMATS; f++) {
        for (unsigned is64 = 0; is64 < 2; is64++) {
            struct kernel k = {.is64 = is64, .format = f};

            load(&k, BOOT_AUTO, "the kernel's own entry");
            assert_int_equal(V.rip, AT + 0x40);
            load(&k, is64 ? BOOT_LINUX64 : BOOT_LINUX32, "stub");
        }
    }
}

/* What cannot be entered itself goes through its decompressor, without a word. */
static void test_not_direct(void **state) {
    static const struct kernel kernels[] = {
        {.is64 = true, .elf = {0, 1, 0}},              /* no ELF file */
        {.is64 = true, .elf = {16, 2, 3}},             /* position-independent */
        {.is64 = true, .elf = {4, 1, 1}},              /* ELF32 */
        {.is64 = true, .elf = {18, 2, 183}},           /* for AArch64 */
        {.is64 = true, .elf = {24, 4, 0x2000000}},     /* enters what is not loaded */
        {.is64 = true, .elf = {0x40 + 24, 8, RAM}},    /* beyond RAM */
        {.is64 = true, .elf = {0x40 + 32, 8, 0x4000}}, /* beyond the file */
        {.is64 = true, .header = {0x24c, 4, 0}},       /* nothing packed */
        {.is64 = true, .header = {0x24c, 4, 3}},       /* cut off */
        {.is64 = true, .header = {SETUP + STUB, 4, 0x21684}}, /* of no known format */
        {.elf = {4, 1, 2}},
        {.elf = {24, 4, 0x100000}},
    };

    for (size_t n = 0; n < ARRAY_SIZE(kernels); n++)
        load(&kernels[n], BOOT_AUTO, "stub");
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
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_not_direct),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
