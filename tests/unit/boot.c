/*
 * Loaders: what each protocol puts into memory and the vCPU, every refusal, and mutated
 * headers. The files are memfds, so that the tests see what a user's file would meet.
 */
#include <stdio.h>

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/loaded.h"
#include "lib/unit.h"

#include "x86/cr.h"
#include "x86/desc.h"

#define RAM (32ull << 20)
#define RSDP 0xe0000u
#define ACPI_LEN 0x334u

/* --- files --- */

struct file {
    int fd;
    char path[32];
};

static struct file file_new(const void *data, size_t len) {
    struct file f = {.fd = memfd_create("boot", MFD_CLOEXEC)};

    assert_true(f.fd >= 0);
    snprintf(f.path, sizeof(f.path), "/proc/self/fd/%d", f.fd);
    assert_int_equal(pwrite(f.fd, data, len, 0), (ssize_t)len);
    return f;
}

/* Opens, loads, closes: the first error, or 0. An initrd of INITRD bytes if not 0. */
static int load(const struct file *kernel, uint64_t initrd, struct mem *m,
                const struct boot_config *cfg) {
    struct file rd = {.fd = -1};
    struct boot_image *image = NULL;
    int rc;

    if (initrd) {
        rd = file_new("initrd", 6);
        assert_int_equal(ftruncate(rd.fd, (off_t)initrd), 0);
    }
    memset(why, 0, sizeof(why));
    rc = boot_image_open(kernel->path, initrd ? rd.path : NULL, &image, why, sizeof(why));
    if (!rc)
        rc = boot_image_load(image, &V, m, cfg, why, sizeof(why));
    boot_image_close(image);
    if (rc && !strstr(why, kernel->path) && !(initrd && strstr(why, rd.path)))
        fail_msg("the sentence names no file: %s", why);
    if (initrd)
        close(rd.fd);
    return rc;
}

/* --- images: small, and valid in all that the loaders look at --- */

enum kind { BZ, ELF64, ELF32, AOUT, TEXT, KINDS };
#define IMAGE 4096u
#define NOTE 0x400u
#define MB 0x500u /* multiboot header, outside all that is loaded */
#define CODE 0x800u

static void build_bz(uint8_t *p) {
    p[0x1f1] = 1; /* setup: 2 sectors */
    put(p, 0x1f4, 4, (IMAGE - 1024) / 16);
    put(p, 0x1fe, 2, 0xaa55);
    put(p, 0x200, 2, 0x6aeb); /* the header ends at 0x26c */
    memcpy(p + 0x202, "HdrS", 4);
    put(p, 0x206, 2, 0x20f);
    p[0x211] = 1;
    put(p, 0x214, 4, 0x100000);
    put(p, 0x22c, 4, 0x7fffffff);
    put(p, 0x230, 4, 0x200000);
    p[0x234] = 1;
    p[0x235] = 21;
    p[0x236] = 3;
    put(p, 0x238, 4, 2047);
    put(p, 0x248, 4, 0x100); /* payload */
    put(p, 0x24c, 4, 0x800);
    put(p, 0x258, 8, 0x1000000);
    put(p, 0x260, 4, 0x800000);
    memcpy(p + 1024, "kernel", 6);
}

static void put_note(uint8_t *p, unsigned size) {
    put(p, NOTE, 4, 4); /* another one first */
    put(p, NOTE + 4, 4, 6);
    put(p, NOTE + 8, 4, 6);
    memcpy(p + NOTE + 12, "Xen\0linux", 10);
    put(p, NOTE + 24, 4, 4);
    put(p, NOTE + 28, 4, size);
    put(p, NOTE + 32, 4, 18);
    memcpy(p + NOTE + 36, "Xen", 4);
    put(p, NOTE + 40, size, 0x1000040);
}

/* Two segments: 16 MiB (bss of 64 KiB behind it) and 17 MiB; a note. */
static void build_elf64(uint8_t *p) {
    memcpy(p, "\177ELF\2\1\1", 7);
    put(p, 16, 2, 2);
    put(p, 18, 2, 62);
    put(p, 24, 8, 0xffffffff81000010);
    put(p, 32, 8, 64);
    put(p, 54, 2, 56);
    put(p, 56, 2, 3);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *s = p + 64 + 56 * i;

        put(s, 0, 4, 1);
        put(s, 8, 8, CODE + i * 0x100);
        put(s, 16, 8, 0xffffffff81000000 + (i << 20));
        put(s, 24, 8, 0x1000000 + (i << 20));
        put(s, 32, 8, 0x100);
        put(s, 40, 8, 0x10000);
    }
    put(p, 64 + 112, 4, 4);
    put(p, 64 + 112 + 8, 8, NOTE);
    put(p, 64 + 112 + 32, 8, 48);
    put_note(p, 8);
    memcpy(p + CODE, "first", 5);
    memcpy(p + CODE + 0x100, "second", 6);
}

static void put_multiboot(uint8_t *p, uint32_t flags) {
    put(p, MB, 4, 0x1badb002);
    put(p, MB + 4, 4, flags);
    put(p, MB + 8, 4, 0u - 0x1badb002u - flags);
}

static void build_elf32(uint8_t *p) {
    memcpy(p, "\177ELF\1\1\1", 7);
    put(p, 16, 2, 2);
    put(p, 18, 2, 3);
    put(p, 24, 4, 0x100010);
    put(p, 28, 4, 52);
    put(p, 42, 2, 32);
    put(p, 44, 2, 2);
    put(p, 52, 4, 1);
    put(p, 56, 4, CODE);
    put(p, 60, 4, 0x100000);
    put(p, 64, 4, 0x100000);
    put(p, 68, 4, 0x100);
    put(p, 72, 4, 0x20000);
    put(p, 84, 4, 4); /* an empty note segment */
    put_multiboot(p, 3);
    memcpy(p + CODE, "first", 5);
}

/* Loaded from file offset MB - 0x100 to 2 MiB. */
static void build_aout(uint8_t *p) {
    put_multiboot(p, 0x10003);
    put(p, MB + 12, 4, 0x200100);
    put(p, MB + 16, 4, 0x200000);
    put(p, MB + 20, 4, 0x200400);
    put(p, MB + 24, 4, 0x210000);
    put(p, MB + 28, 4, 0x200020);
    memcpy(p + MB - 0x100, "kludge", 6);
}

static void build_text(uint8_t *p) {
    memset(p, 'x', IMAGE);
}

static void build(enum kind kind, uint8_t *p) {
    static void (*const f[KINDS])(uint8_t *) = {build_bz, build_elf64, build_elf32,
                                                build_aout, build_text};

    memset(p, 0, IMAGE);
    f[kind](p);
}

static int load_kind(enum kind kind, uint64_t initrd, struct mem *m,
                     const struct boot_config *cfg) {
    uint8_t image[IMAGE];
    struct file f;
    int rc;

    build(kind, image);
    f = file_new(image, sizeof(image));
    rc = load(&f, initrd, m, cfg);
    close(f.fd);
    return rc;
}

static struct boot_config config(enum boot_protocol protocol) {
    return (struct boot_config){protocol, "one two", gpa(RSDP), ACPI_LEN};
}

/* --- what the guest finds --- */

static void assert_flat32(void) {
    assert_int_equal(V.cr0 & ~(uint64_t)X86_CR0_ET, X86_CR0_PE);
    assert_int_equal(V.cr4 | V.efer, 0);
    assert_int_equal(V.rflags, X86_FL_ONE);
    assert_int_equal(V.mode, MODE_32);
    assert_true(V.stack32);
    assert_int_equal(V.seg_flat_w & (1 << SEG_DS | 1 << SEG_ES | 1 << SEG_SS),
                     1 << SEG_DS | 1 << SEG_ES | 1 << SEG_SS);
    assert_int_equal(V.seg[SEG_CS].limit, 0xffffffff);
    assert_int_equal(V.seg[SEG_CS].base, 0);
    assert_int_equal(V.tr.limit, 0x67);
    assert_int_equal(V.tr.ar & 0xff, X86_AR_P | X86_DESC_TSS32_BUSY);
    /* The descriptors behind the selectors are there. */
    assert_int_equal(peek(M, V.gdtr.base + V.seg[SEG_CS].sel, 8), 0x00cf9b000000ffff);
    assert_int_equal(peek(M, V.gdtr.base + V.seg[SEG_DS].sel, 8), 0x00cf93000000ffff);
}

/* ENTRIES of SIZE bytes at AT, whose start, size and type follow each other. */
static void assert_map(struct mem *m, uint64_t at, unsigned stride, unsigned n,
                       uint64_t high) {
    const uint64_t want[][3] = {{0, 0x9fc00, 1},
                                {0x9fc00, RSDP - 0x9fc00, 2},
                                {RSDP, ACPI_LEN, 3},
                                {RSDP + ACPI_LEN, 0x100000 - RSDP - ACPI_LEN, 2},
                                {0x100000, high - 0x100000, 1}};

    assert_true(n >= ARRAY_SIZE(want));
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        assert_int_equal(peek(m, at + i * stride, 8), want[i][0]);
        assert_int_equal(peek(m, at + i * stride + 8, 8), want[i][1]);
        assert_int_equal(peek(m, at + i * stride + 16, 4), want[i][2]);
    }
    /* After all RAM below 4 GiB the ROM. */
    assert_int_equal(peek(m, at + 5 * stride, 8), 0xffff0000);
    assert_int_equal(peek(m, at + 5 * stride + 8, 8), 0x10000);
    assert_int_equal(peek(m, at + 5 * stride + 16, 4), 2);
    /* The BIOS data areas say the same. */
    assert_int_equal(peek(m, 0x413, 2), 639);
    assert_int_equal(peek(m, 0x40e, 2) << 4, 0x9fc00);
    assert_int_equal(peek(m, 0x9fc00, 1), 1);
    assert_int_equal(peek(m, 0x400, 2), 0x3f8);
}

/* The ROM is there whatever is booted: a far jump at both reset vectors, and read-only.
 */
static void test_rom(void **state) {
    struct boot_config cfg = config(BOOT_AUTO);
    const uint8_t byte = 0;

    mem_reset(M);
    assert_true(mem_write(M, gpa(0xf0000), "table", 5));
    assert_int_equal(load_kind(ELF32, 0, M, &cfg), 0);
    assert_int_equal(peek(M, 0xffff0, 1), 0xea);
    assert_int_equal(peek(M, 0xffff3, 2), 0xf000);
    assert_int_equal(peek(M, 0xf0000 + peek(M, 0xffff1, 2), 1), 0xfa); /* cli */
    assert_int_equal(peek(M, 0xfffffff0, 5), peek(M, 0xffff0, 5));
    assert_text(0xf0000, "table");
    assert_text(0xffff0000, "table");
    assert_false(mem_write(M, gpa(0xffff0), &byte, 1));
    assert_false(mem_write(M, gpa(0xfffffff0), &byte, 1));
    /* Real mode's interrupt table leads there. */
    for (unsigned n = 0; n < 256; n++) {
        assert_int_equal(peek(M, n * 4 + 2, 2), 0xf000);
        assert_in_range(peek(M, n * 4, 2), 0xf000, 0xffdf);
    }
    assert_int_equal(peek(M, 0xf0000 + peek(M, 0x60 * 4, 2), 1), 0xcf); /* iret */
    assert_int_not_equal(peek(M, 0x15 * 4, 2), peek(M, 0x60 * 4, 2));
    assert_int_equal(peek(M, 0x41a, 4), 0x1e001e); /* no key in the ring */
    /* What INT 15h will say. */
    assert_int_equal(peek(M, 0xfe000, 2), 6);
    assert_map(M, 0xfe008, 20, 6, RAM);
    assert_int_equal(peek(M, 0xfe002, 2), (RAM >> 10) - 1024);
    assert_int_equal(peek(M, 0xfe004, 2), 15 << 10);
    assert_int_equal(peek(M, 0xfe006, 2), (RAM >> 16) - 256);
}

static void test_multiboot(void **state) {
    static const enum boot_protocol ways[] = {BOOT_AUTO, BOOT_MULTIBOOT};
    uint64_t info, mod;

    for (unsigned i = 0; i < 2; i++) {
        struct boot_config cfg = config(ways[i]);

        mem_reset(M);
        assert_int_equal(load_kind(ELF32, 5000, M, &cfg), 0);
        assert_flat32();
        assert_int_equal(V.rip, 0x100010);
        assert_int_equal(V.gpr[REG_RAX], 0x2badb002);
        assert_text(0x100000, "first");
        info = V.gpr[REG_RBX];
        assert_int_equal(peek(M, info, 4) & 0x4d, 0x4d);
        assert_int_equal(peek(M, info, 4) & 0x32, 0);
        assert_int_equal(peek(M, info + 4, 4), 639);
        assert_int_equal(peek(M, info + 8, 4), (RAM >> 10) - 1024);
        assert_true(peek(M, peek(M, info + 16, 4), 1) >= '0'); /* a descriptor's number */
        assert_int_equal(V.seg[SEG_CS].sel, 0x08);
        assert_int_equal(V.seg[SEG_SS].sel, 0x10);
        assert_text(peek(M, info + 64, 4), "bivisor");
        assert_int_equal(peek(M, info + 20, 4), 1);
        mod = peek(M, info + 24, 4);
        assert_int_equal(peek(M, mod, 4) % 4096, 0);
        assert_int_equal(peek(M, mod + 4, 4) - peek(M, mod, 4), 5000);
        assert_text(peek(M, mod, 4), "initrd");
        assert_true(peek(M, peek(M, mod + 8, 4), 1) >= '0'); /* a descriptor's number */
        assert_int_equal(peek(M, info + 44, 4), 6 * 24);
        assert_int_equal(peek(M, peek(M, info + 48, 4), 4), 20);
        assert_map(M, peek(M, info + 48, 4) + 4, 24, 6, RAM);
        assert_int_equal(peek(M, info + 88, 8), 0xb8000);
        assert_int_equal(peek(M, info + 109, 1), 2);
    }
}

static void test_aout_kludge(void **state) {
    struct boot_config cfg = config(BOOT_AUTO);

    mem_reset(M);
    assert_int_equal(load_kind(AOUT, 0, M, &cfg), 0);
    assert_flat32();
    assert_int_equal(V.rip, 0x200020);
    assert_text(0x200000, "kludge");
    assert_int_equal(peek(M, 0x200100, 4), 0x1badb002);
    assert_int_equal(peek(M, V.gpr[REG_RBX] + 20, 4), 0);
}

static void test_pvh(void **state) {
    static const enum boot_protocol ways[] = {BOOT_AUTO, BOOT_PVH};
    uint64_t info, mod;

    for (unsigned i = 0; i < 2; i++) {
        struct boot_config cfg = config(ways[i]);

        mem_reset(M);
        assert_int_equal(load_kind(ELF64, 5000, M, &cfg), 0);
        assert_flat32();
        assert_int_equal(V.rip, 0x1000040);
        assert_text(0x1000000, "first");
        assert_text(0x1100000, "second");
        info = V.gpr[REG_RBX];
        assert_int_equal(peek(M, info, 4), 0x336ec578);
        assert_int_equal(peek(M, info + 4, 4), 1);
        assert_int_equal(peek(M, info + 12, 4), 1);
        mod = peek(M, info + 16, 8);
        assert_int_equal(peek(M, mod + 8, 8), 5000);
        assert_text(peek(M, mod, 8), "initrd");
        assert_text(peek(M, info + 24, 8), "one two");
        assert_int_equal(peek(M, info + 32, 8), RSDP);
        assert_int_equal(peek(M, info + 48, 4), 6);
        assert_map(M, peek(M, info + 40, 8), 24, 6, RAM);
    }
}

/* A kernel linked high, started through multiboot: the entry moves with its segment. */
static void test_multiboot_high_entry(void **state) {
    struct boot_config cfg = config(BOOT_MULTIBOOT);
    uint8_t image[IMAGE];
    struct file f;

    build(ELF64, image);
    put_multiboot(image, 0);
    f = file_new(image, sizeof(image));
    assert_int_equal(load(&f, 0, M, &cfg), 0);
    assert_int_equal(V.rip, 0x1000010);
    close(f.fd);
}

static void test_linux(void **state) {
    struct boot_config cfg = config(BOOT_AUTO);
    uint64_t zp;

    mem_reset(M);
    assert_int_equal(load_kind(BZ, 5000, M, &cfg), 0);
    assert_int_equal(V.mode, MODE_64);
    assert_int_equal(V.rip, 0x1000200);
    assert_text(0x1000000, "kernel");
    zp = V.gpr[REG_RSI];
    assert_int_equal(peek(M, zp + 0x214, 4), 0x1000000);
    assert_text(peek(M, zp + 0x228, 4), "one two");
    assert_text(peek(M, zp + 0x218, 4), "initrd");
    assert_int_equal(peek(M, zp + 0x21c, 4), 5000);
    assert_int_equal(peek(M, zp + 0x70, 8), RSDP);
    assert_int_equal(peek(M, zp + 0x1e8, 1), 6);
    assert_map(M, zp + 0x2d0, 20, 6, RAM);

    cfg.protocol = BOOT_LINUX32;
    assert_int_equal(load_kind(BZ, 0, M, &cfg), 0);
    assert_flat32();
    assert_int_equal(V.rip, 0x1000000);
    assert_int_equal(peek(M, V.gpr[REG_RSI] + 0x218, 4), 0);
}

/* With patches: where a kernel goes whose first choice does not fit. */
static uint64_t place_of(const uint64_t (*patch)[3]) {
    struct boot_config cfg = config(BOOT_LINUX32);
    uint8_t image[IMAGE];
    struct file f;
    int rc;

    build(BZ, image);
    for (; (*patch)[1]; patch++)
        put(image, (unsigned)(*patch)[0], (unsigned)(*patch)[1], (*patch)[2]);
    f = file_new(image, sizeof(image));
    rc = load(&f, 0, M, &cfg);
    close(f.fd);
    return rc ? 0 : V.rip;
}

static void test_linux_places(void **state) {
    /* preferred address out of reach: the lowest multiple of the alignment */
    const uint64_t far_off[][3] = {{0x258, 8, 0x4000000}, {0}};
    const uint64_t absurd[][3] = {{0x258, 8, 0xfffffffffffff000}, {0}};
    const uint64_t odd[][3] = {{0x258, 8, 0x1000001}, {0}};
    /* 16 MiB alignment leaves no room for 20 MiB in 32: the least alignment is used */
    const uint64_t tight[][3] = {
        {0x230, 4, 0x1000000}, {0x235, 1, 13}, {0x260, 4, 20 << 20}, {0}};
    const uint64_t fixed[][3] = {{0x234, 1, 0}, {0}};

    assert_int_equal(place_of(far_off), 0x200000);
    assert_int_equal(place_of(absurd), 0x200000);
    assert_int_equal(place_of(odd), 0x1200000);
    assert_int_equal(place_of(tight), 0x100000);
    assert_int_equal(peek(M, V.gpr[REG_RSI] + 0x230, 4), 0x2000);
    assert_int_equal(place_of(fixed), 0x100000);
}

/* Tables above 1 MiB: cut out of RAM, and nothing is loaded over them. */
static void test_acpi_in_ram(void **state) {
    struct boot_config cfg = config(BOOT_LINUX32);
    uint64_t zp;

    cfg.rsdp = gpa(0x1100000);
    cfg.acpi_len = 0x1000;
    assert_int_equal(load_kind(BZ, 0, M, &cfg), 0);
    assert_int_equal(V.rip, 0x1200000);
    zp = V.gpr[REG_RSI];
    assert_int_equal(peek(M, zp + 0x1e8, 1), 6);
    assert_int_equal(peek(M, zp + 0x2d0 + 3 * 20, 8), 0x1100000);
    assert_int_equal(peek(M, zp + 0x2d0 + 3 * 20 + 8, 8), 0x1000);
    assert_int_equal(peek(M, zp + 0x2d0 + 3 * 20 + 16, 4), 3);
    assert_int_equal(peek(M, zp + 0x2d0 + 4 * 20, 8), 0x1101000);
    cfg.protocol = BOOT_PVH;
    assert_int_equal(load_kind(ELF64, 0, M, &cfg), -EINVAL);
    cfg.rsdp = gpa(0xfffffffffffff000); /* not in RAM: nothing to cut */
    cfg.acpi_len = ~0ull;
    assert_int_equal(load_kind(ELF64, 0, M, &cfg), 0);
}

/* RAM beyond 4 GiB: in the map, and the initrd goes there when it does not fit below. */
static void test_above_4g(void **state) {
    struct boot_config cfg = config(BOOT_AUTO);
    uint8_t image[IMAGE];
    uint64_t zp, at;
    struct file f;
    struct mem *big;

    assert_int_equal(mem_create(5ull << 30, &big), 0);
    build(BZ, image);
    put(image, 0x22c, 4, 0x17fffff); /* the kernel ends there */
    f = file_new(image, sizeof(image));
    assert_int_equal(load(&f, 5000, big, &cfg), 0);
    close(f.fd);
    zp = V.gpr[REG_RSI];
    assert_int_equal(peek(big, zp + 0x1e8, 1), 7);
    assert_map(big, zp + 0x2d0, 20, 7, 3ull << 30);
    assert_int_equal(peek(big, zp + 0x2d0 + 6 * 20, 8), 1ull << 32);
    assert_int_equal(peek(big, zp + 0x2d0 + 6 * 20 + 8, 8), 2ull << 30);
    at = peek(big, zp + 0x218, 4) | peek(big, zp + 0xc0, 4) << 32;
    assert_true(at >= 1ull << 32);
    assert_int_equal(peek(big, at, 6), 0x647274696e69); /* "initrd" */
    put(image, 0x236, 2, 1); /* a kernel that cannot reach it there */
    f = file_new(image, sizeof(image));
    assert_int_equal(load(&f, 5000, big, &cfg), -EINVAL);
    close(f.fd);
    mem_destroy(big);
}

/* --- refusals --- */

struct refusal {
    enum kind kind;
    const char *say; /* a part of the sentence */
    enum boot_protocol protocol;
    unsigned size; /* 0: all of it */
    uint64_t initrd;
    struct {
        unsigned off, len;
        uint64_t value;
    } patch[3];
};

#define SEG64(field) (64 + 56 + (field))
static const struct refusal refusals[] = {
    /* files of other formats */
    {TEXT, .say = "unknown format"},
    {TEXT, .say = "unknown format", .size = 1},
    {TEXT, .say = "gzip", .patch = {{0, 2, 0x8b1f}}},
    {TEXT, .say = "xz", .patch = {{0, 6, 0x005a587a37fd}}},
    {TEXT, .say = "zstd", .patch = {{0, 4, 0xfd2fb528}}},
    {TEXT, .say = "cpio", .patch = {{0, 6, 0x313037303730}}},
    {TEXT, .say = "AArch64", .patch = {{0x38, 4, 0x644d5241}}},
    {TEXT, .say = "RISC-V", .patch = {{0x38, 4, 0x05435352}}},
    {TEXT, .say = "for ARM", .patch = {{0x24, 4, 0x016f2818}}},
    {TEXT, .say = "PE program", .patch = {{0, 2, 0x5a4d}}},
    {TEXT, .say = "older than boot protocol 2.00", .patch = {{0x1fe, 2, 0xaa55}}},
    {TEXT, .say = "no Linux bzImage", .protocol = BOOT_LINUX32},
    {TEXT, .say = "not an ELF file", .protocol = BOOT_PVH},
    {TEXT, .say = "no multiboot header", .protocol = BOOT_MULTIBOOT},
    {ELF64, .say = "but an ELF file", .protocol = BOOT_LINUX64},
    {BZ, .say = "not an ELF file", .protocol = BOOT_PVH},
    {BZ, .say = "no multiboot header", .protocol = BOOT_MULTIBOOT},
    /* Linux */
    {BZ, .say = "ends within its header", .size = 0x250},
    {BZ, .say = "truncated", .size = 0x400},
    {BZ, .say = "truncated", .size = IMAGE - 16},
    {BZ, .say = "truncated", .size = IMAGE / 2},
    {BZ, .say = "truncated", .size = 0x400 + 0x8ff,
     .patch = {{0x1f4, 4, 0}}}, /* payload */
    {BZ, .say = "truncated", .patch = {{0x24c, 4, 0xffffffff}}},
    {BZ, .say = "truncated", .patch = {{0x248, 4, 0xffffffff}, {0x24c, 4, 0xffffffff}}},
    {BZ, .say = "truncated", .patch = {{0x1f4, 4, 0xffffffff}}},
    {BZ, .say = "truncated", .patch = {{0x1f1, 1, 255}}},
    {BZ, .say = "truncated", .size = 0x600, .patch = {{0x1f4, 4, 1}, {0x248, 8, 0}}},
    {BZ, .say = "zImage", .protocol = BOOT_LINUX32, .patch = {{0x211, 1, 0}}},
    {BZ, .say = "protocol 2.01", .protocol = BOOT_LINUX32, .patch = {{0x206, 2, 0x201}}},
    {BZ, .say = "no 64-bit entry", .protocol = BOOT_LINUX64, .patch = {{0x236, 2, 0}}},
    {BZ, .say = "no 64-bit entry", .protocol = BOOT_LINUX64,
     .patch = {{0x206, 2, 0x20b}}},
    {BZ, .say = "power of two", .patch = {{0x230, 4, 0x300000}}},
    {BZ, .say = "power of two", .patch = {{0x230, 4, 0}}},
    {BZ, .say = "give --memory more", .patch = {{0x260, 4, 32 << 20}}},
    {BZ, .say = "give --memory more", .patch = {{0x260, 4, 0xffffffff}}},
    {BZ, .say = "not relocatable", .patch = {{0x234, 1, 0}, {0x258, 8, 0x4000000}}},
    {BZ, .say = "not relocatable", .patch = {{0x234, 1, 0}, {0x258, 8, ~0ull}}},
    {BZ, .say = "not relocatable", .patch = {{0x234, 1, 0}, {0x260, 4, 0xffffffff}}},
    {BZ, .say = "command line", .patch = {{0x238, 4, 6}}},
    {BZ, .say = "does not fit", .initrd = RAM},
    {BZ, .say = "does not fit", .initrd = 9 << 20},
    {BZ, .say = "does not fit", .initrd = 4096, .patch = {{0x22c, 4, 0x1000000}}},
    {BZ, .say = "larger than 4 GiB", .initrd = (4ull << 30) + 1},
    /* ELF */
    {ELF64, .say = "ends within its ELF header", .size = 63},
    {ELF32, .say = "ends within its ELF header", .size = 51},
    {ELF64, .say = "ends within its ELF header", .size = 5},
    {ELF64, .say = "AArch64", .patch = {{18, 2, 183}}},
    {ELF64, .say = "RISC-V", .patch = {{18, 2, 243}}},
    {ELF64, .say = "ARM", .patch = {{18, 2, 40}}},
    {ELF64, .say = "S/390", .patch = {{5, 1, 2}, {18, 2, 22 << 8}}},
    {ELF64, .say = "machine number 999", .patch = {{18, 2, 999}}},
    {ELF64, .say = "big-endian", .patch = {{5, 1, 2}, {18, 2, 62 << 8}}},
    {ELF64, .say = "corrupt ELF header", .patch = {{4, 1, 3}}},
    {ELF64, .say = "corrupt ELF header", .patch = {{5, 1, 0}}},
    {ELF64, .say = "relocatable object", .patch = {{16, 2, 1}}},
    {ELF64, .say = "shared object", .patch = {{16, 2, 3}}},
    {ELF64, .say = "type 4", .patch = {{16, 2, 4}}},
    {ELF64, .say = "no program headers", .patch = {{56, 2, 0}}},
    {ELF64, .say = "no program headers", .patch = {{54, 2, 55}}},
    {ELF64, .say = "program headers lie beyond", .patch = {{56, 2, 0xffff}}},
    {ELF64, .say = "program headers lie beyond", .patch = {{32, 8, ~0ull}}},
    {ELF64, .say = "program headers lie beyond", .patch = {{54, 2, 0xffff}}},
    {ELF64, .say = "program headers lie beyond", .size = 231},
    {ELF64, .say = "no segment", .patch = {{56, 2, 0}, {56, 2, 1}, {64, 4, 4}}},
    {ELF64, .say = "beyond its end", .size = CODE + 0x1ff},
    {ELF64, .say = "beyond its end", .patch = {{SEG64(8), 8, ~0ull}}},
    {ELF64, .say = "beyond its end", .patch = {{SEG64(8), 8, -0xffull}}},
    {ELF64, .say = "larger in the file", .patch = {{SEG64(32), 8, 0x10001}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(24), 8, 0}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(24), 8, 0xfffff}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(24), 8, RAM}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(24), 8, RAM - 0xffff}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(24), 8, 0xd0000000}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(24), 8, -0x8000ull}}},
    {ELF64, .say = "not RAM", .patch = {{SEG64(40), 8, ~0ull}}},
    {ELF64, .say = "overlap", .patch = {{SEG64(24), 8, 0x100ffff}}},
    {ELF64, .say = "overlap", .patch = {{SEG64(24), 8, 0xff0001}}},
    {ELF64, .say = "overlap", .patch = {{SEG64(24), 8, 0x1000000}}},
    {ELF64, .say = "does not fit", .initrd = 16 << 20},
    {ELF64, .say = "does not fit", .initrd = 4096, .patch = {{SEG64(40), 8, 15 << 20}}},
    /* PVH */
    {ELF64, .say = "without PVH entry", .patch = {{NOTE + 32, 4, 17}}},
    {ELF64, .say = "without PVH entry", .patch = {{NOTE + 36, 4, 'X'}}},
    {ELF64, .say = "without PVH entry", .patch = {{NOTE + 28, 4, 7}}},
    {ELF64, .say = "without PVH entry", .patch = {{NOTE + 4, 4, 0xfffffffd}}},
    {ELF64, .say = "without PVH entry", .patch = {{NOTE, 4, 0xffffffff}}},
    {ELF64, .say = "without PVH entry", .patch = {{64 + 112 + 32, 8, 47}}},
    {ELF64, .say = "without PVH entry", .patch = {{64 + 112 + 8, 8, ~0ull}}},
    {ELF64, .say = "no PVH entry", .protocol = BOOT_PVH, .patch = {{NOTE + 32, 4, 17}}},
    {ELF64, .say = "where nothing is loaded", .patch = {{NOTE + 40, 8, 0x1010000}}},
    {ELF64, .say = "where nothing is loaded", .patch = {{NOTE + 40, 8, ~0ull}}},
    /* multiboot */
    {ELF32, .say = "without multiboot header", .patch = {{MB, 4, 0}}},
    {ELF32, .say = "without multiboot header", .patch = {{MB + 8, 4, 0}}},
    {ELF32, .say = "flags 0x8", .protocol = BOOT_AUTO,
     .patch = {{MB + 4, 4, 8}, {MB + 8, 4, 0xe4524ff6}}},
    {ELF32, .say = "where nothing is loaded", .patch = {{24, 4, 0x200000}}},
    {ELF32, .say = "AArch64", .protocol = BOOT_MULTIBOOT, .patch = {{18, 2, 183}}},
    {ELF32, .say = "not RAM", .patch = {{64, 4, 0xfffff000}}},
    {ELF32, .say = "not RAM", .patch = {{64, 4, 0x8fc00}}},
    {ELF32, .say = "not RAM", .patch = {{64, 4, 0xa0000}}},
    {ELF32, .say = "not RAM", .patch = {{72, 4, 0xffffffff}}},
    {ELF32, .say = "does not fit", .initrd = RAM},
    {AOUT, .say = "multiboot header", .size = MB + 31},
    {AOUT, .say = "before the start", .patch = {{MB + 16, 4, 0x1ff000}}},
    {AOUT, .say = "before the start", .patch = {{MB + 16, 4, 0x200101}}},
    {AOUT, .say = "do not ascend", .patch = {{MB + 20, 4, 0x200000}}},
    {AOUT, .say = "do not ascend", .patch = {{MB + 24, 4, 0x2003ff}}},
    {AOUT, .say = "beyond its end", .patch = {{MB + 20, 4, 0x201000}, {MB + 24, 4, 0}}},
    {AOUT, .say = "not RAM", .patch = {{MB + 24, 4, 0xffffffff}}},
    {AOUT, .say = "not RAM", .patch = {{MB + 12, 8, 0x8000000080100}, {MB + 20, 4, 0}}},
    {AOUT, .say = "where nothing is loaded", .patch = {{MB + 28, 4, 0x210000}}},
    {AOUT, .say = "does not fit", .initrd = RAM},
};

static void test_refusals(void **state) {
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        const struct refusal *r = &refusals[i];
        struct boot_config cfg = config(r->protocol);
        uint8_t image[IMAGE];
        struct file f;
        int rc;

        build(r->kind, image);
        for (size_t k = 0; k < ARRAY_SIZE(r->patch); k++)
            put(image, r->patch[k].off, r->patch[k].len, r->patch[k].value);
        f = file_new(image, r->size ? r->size : sizeof(image));
        rc = load(&f, r->initrd, M, &cfg);
        close(f.fd);
        if (rc != -EINVAL || !strstr(why, r->say) || strchr(why, '\n'))
            fail_msg("refusal %zu: %d, \"%s\"; expected: %s", i, rc, why, r->say);
    }
}

static void test_command_line(void **state) {
    static char line[0x10001];
    struct boot_config cfg = config(BOOT_AUTO);

    cfg.cmdline = line;
    memset(line, 'a', 2047);
    assert_int_equal(load_kind(BZ, 0, M, &cfg), 0);
    memset(line, 'a', 2048);
    assert_int_equal(load_kind(BZ, 0, M, &cfg), -EINVAL);
    memset(line, 'a', 0xffff);
    assert_int_equal(load_kind(ELF64, 0, M, &cfg), 0);
    line[0xff00] = 0; /* the kernel's name takes a little */
    assert_int_equal(load_kind(ELF32, 0, M, &cfg), 0);
    memset(line, 'a', 0x10000);
    assert_int_equal(load_kind(ELF64, 0, M, &cfg), -EINVAL);
    assert_int_equal(load_kind(ELF32, 0, M, &cfg), -EINVAL);
    cfg.cmdline = NULL;
    assert_int_equal(load_kind(BZ, 0, M, &cfg), 0);
    assert_int_equal(peek(M, peek(M, V.gpr[REG_RSI] + 0x228, 4), 1), 0);
}

static void open_says(const char *kernel, const char *initrd, int rc, const char *say) {
    struct boot_image *image = NULL;

    assert_int_equal(boot_image_open(kernel, initrd, &image, why, sizeof(why)), rc);
    if (!strstr(why, say) || !strstr(why, initrd ? initrd : kernel))
        fail_msg("\"%s\"; expected: %s", why, say);
    assert_null(image);
}

static void test_open(void **state) {
    struct file empty = file_new("", 0), ok = file_new("x", 1), huge = file_new("x", 1);

    open_says("/nonexistent/kernel", NULL, -ENOENT, "cannot read");
    open_says("/", NULL, -EINVAL, "a directory");
    open_says("/dev/null", NULL, -EINVAL, "not a regular file");
    open_says(empty.path, NULL, -EINVAL, "is empty");
    open_says(ok.path, empty.path, -EINVAL, "is empty");
    open_says(ok.path, "/tmp", -EINVAL, "a directory");
    assert_int_equal(ftruncate(huge.fd, (4ll << 30) + 1), 0);
    open_says(huge.path, NULL, -EINVAL, "larger than 4 GiB");
    close(empty.fd);
    close(ok.fd);
    close(huge.fd);
}

/* --- mutated headers --- */

static uint64_t seed;

static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void mutate(uint8_t *p) {
    static const uint64_t edges[] = {0,          1,          0xff,       0xfff,
                                     0xfffff,    0x100000,   0x7fffffff, 0x80000000,
                                     0xbfffffff, 0xffffffff, RAM - 1,    ~0ull >> 1,
                                     ~0ull,      -4096ull,   -4ull};
    static const unsigned widths[] = {1, 2, 4, 8};

    for (unsigned n = 1 + rnd() % 4; n; n--) {
        static const struct {
            unsigned start, len;
        } areas[] = {{0, 0x100}, {0x1f0, 0xa0}, {NOTE, 48}, {MB, 32}};
        unsigned a = rnd() % ARRAY_SIZE(areas);
        unsigned off = areas[a].start + rnd() % areas[a].len;

        put(p, off, widths[rnd() % 4],
            rnd() % 2 ? edges[rnd() % ARRAY_SIZE(edges)] : rnd() >> (rnd() % 64));
    }
}

/* Whatever the file says: it loads or one sentence tells why not. */
static void test_mutations(void **state) {
    const char *runs = getenv("BOOT_FUZZ");
    unsigned long count = runs ? strtoul(runs, NULL, 0) : 20000, loaded = 0;

    seed = 0x9e3779b97f4a7c15ull;
    for (unsigned long i = 0; i < count; i++) {
        struct boot_config cfg = config((enum boot_protocol)(rnd() % 5));
        uint8_t image[IMAGE];
        struct file f;
        uint64_t before = seed;
        int rc;

        if (rnd() % 2)
            cfg.protocol = BOOT_AUTO;
        build((enum kind)(rnd() % TEXT), image);
        mutate(image);
        if (rnd() % 4 == 0) {
            uint32_t sum[2]; /* keep the multiboot checksum right */

            memcpy(sum, image + MB, sizeof(sum));
            put(image, MB + 8, 4, 0u - sum[0] - sum[1]);
        }
        f = file_new(image, rnd() % 4 ? sizeof(image) : 1 + rnd() % sizeof(image));
        rc = load(&f, rnd() % 4 ? 0 : 1 + rnd() % 8192, M, &cfg);
        close(f.fd);
        if ((rc && rc != -EINVAL) || (!rc && mem_kind_at(M, gpa(V.rip)) != MEM_RAM) ||
            !rc != !why[0] || strchr(why, '\n'))
            fail_msg("run %lu, seed 0x%llx: %d, entry 0x%llx, \"%s\"", i,
                     (unsigned long long)before, rc, (unsigned long long)V.rip, why);
        loaded += !rc;
    }
    /* Neither way may be rare, or the test tests little. */
    assert_in_range(loaded, count / 10, count - count / 10);
}

static int setup(void **state) {
    return loaded_new(RAM);
}

static int teardown(void **state) {
    loaded_free();
    return 0;
}

/* The entry behind COUNT empty notes, which HEADERS headers name in front of its own. */
static int load_after_notes(unsigned headers, unsigned count) {
    const struct boot_config cfg = {.rsdp = gpa(RSDP), .acpi_len = ACPI_LEN};
    unsigned at = 0x1000 + 12 * count;
    uint8_t *p = calloc(1, at + 4096);
    struct file f;
    int rc;

    assert_non_null(p);
    build_elf64(p);
    put(p, 56, 2, 2 + headers + 1);
    memcpy(p + 64 + 56 * (2 + headers), p + 64 + 112, 56);
    for (unsigned i = 0; i < headers; i++) {
        uint8_t *h = p + 64 + 56 * (2 + i);

        put(h, 0, 4, 4);
        put(h, 8, 8, 0x1000);
        put(h, 32, 8, 12 * count);
    }
    f = file_new(p, at + 4096);
    free(p);
    rc = load(&f, 0, M, &cfg);
    close(f.fd);
    return rc;
}

/* Headers may name the same notes again and again: no more than 65,536 are looked at. */
static void test_many_notes(void **state) {
    assert_int_equal(load_after_notes(3, 20000), 0);
    assert_int_equal(load_after_notes(4, 20000), -EINVAL);
    assert_non_null(strstr(why, "without PVH entry"));
    assert_int_equal(load_after_notes(1, 65534), 0);
    assert_int_equal(load_after_notes(1, 65536), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rom),
        cmocka_unit_test(test_multiboot),
        cmocka_unit_test(test_aout_kludge),
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_multiboot_high_entry),
        cmocka_unit_test(test_linux),
        cmocka_unit_test(test_linux_places),
        cmocka_unit_test(test_acpi_in_ram),
        cmocka_unit_test(test_above_4g),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_many_notes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
