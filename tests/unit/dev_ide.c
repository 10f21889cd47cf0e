/*
 * IDE by itself: a disk and a CD-ROM drive driven by the port and by DMA, what they say
 * of themselves, errors, resets in the middle; and a guest that writes anything anywhere.
 * ATA/ATAPI-6.
 */
#include "dev/ide/ide.h"
#include "lib/rig.h"
#include "lib/rnd.h"
#include "lib/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { P0 = 0x1f0, P1 = 0x170, BM = 0xc000, PRD = 0x8000, BUF = 0x10000 };
enum { FEATURE = 1, COUNT, LOW, MID, HIGH, DEVICE, COMMAND };
enum { BSY = 0x80, DRDY = 0x40, DF = 0x20, DRQ = 8, ERR = 1 };
enum { UNC = 0x40, IDNF = 0x10, ABRT = 4 };
enum { SECTORS = 5000, CD_SECTORS = 700 };

static struct rig r;
static struct mem *mem;
static struct pci *pci;
static struct block_pool *pool;
static struct block *disk, *disc;
static struct ide *ide;
static char disk_path[64], disc_path[64];
static bool spoiled;

static uint64_t due(void *arg) {
    return 1;
}

/* Each sector of 512 bytes tells its number. */
static void make_file(char *path, unsigned sectors) {
    uint32_t s[128];
    int fd;

    strcpy(path, "/tmp/bivisor-ide-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    for (unsigned n = 0; n < sectors; n++) {
        for (unsigned i = 0; i < 128; i++)
            s[i] = n << 8 | i;
        assert_int_equal(write(fd, s, sizeof(s)), sizeof(s));
    }
    close(fd);
}

static struct block *open_file(const char *path, bool readonly) {
    const struct block_spec spec = {
        .path = path, .format = BLOCK_RAW, .readonly = readonly};
    struct block *b;
    char why[256];

    assert_int_equal(block_open(&spec, &b, why, sizeof(why)), 0);
    block_attach(b, pool);
    return b;
}

static int setup_with(bool readonly) {
    const struct block_host host = {.due = due};
    const struct pci_host no_host = {0};
    struct ide_config cfg = {0};
    struct pci_function *f;

    rig_new(&r);
    if (mem_create(MEM_MIN_RAM, &mem) || block_pool_new(&host, &pool))
        return -1;
    make_file(disk_path, SECTORS);
    make_file(disc_path, CD_SECTORS * 4);
    disk = open_file(disk_path, readonly);
    disc = open_file(disc_path, true);
    pci = pci_new(r.bus, &no_host);
    cfg.drive[0].block = disk;
    cfg.drive[2].block = disc;
    cfg.drive[2].cdrom = true;
    cfg.irq[0] = rig_line(&r, 14);
    cfg.irq[1] = rig_line(&r, 15);
    ide = ide_new(pci, 1, 0, r.bus, mem, &cfg);
    if (!ide)
        return -1;
    f = pci_at(pci, 1, 0);
    pci_config_write(f, PCI_BAR0 + 16, 4, BM);
    pci_config_write(f, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    return 0;
}

static int setup(void **state) {
    return setup_with(false);
}

static int setup_readonly(void **state) {
    return setup_with(true);
}

static int teardown(void **state) {
    ide_free(ide);
    block_pool_free(pool);
    block_close(disk);
    block_close(disc);
    unlink(disk_path);
    unlink(disc_path);
    pci_free(pci);
    mem_destroy(mem);
    rig_free(&r);
    return 0;
}

static bool irq(unsigned p) {
    return r.line[p == P0 ? 14 : 15];
}

/* What the host has done is told. */
static void settle(void) {
    while (block_in_flight(disk) || block_in_flight(disc))
        block_pool_deliver(pool, 1);
}

static void out(unsigned p, unsigned reg, unsigned value) {
    rig_out(&r, p + reg, value);
}

static unsigned in(unsigned p, unsigned reg) {
    return rig_in(&r, p + reg);
}

/* Writes a task file with a 28-bit address and the command. */
static void command28(unsigned p, unsigned cmd, uint32_t sector, unsigned count) {
    out(p, DEVICE, 0xe0 | (sector >> 24 & 15));
    out(p, COUNT, count);
    out(p, LOW, sector & 0xff);
    out(p, MID, sector >> 8 & 0xff);
    out(p, HIGH, sector >> 16 & 0xff);
    out(p, COMMAND, cmd);
}

static void command48(unsigned p, unsigned cmd, uint64_t sector, unsigned count) {
    out(p, DEVICE, 0xe0);
    for (int i = 1; i >= 0; i--) {
        out(p, COUNT, count >> 8 * i & 0xff);
        out(p, LOW, sector >> (i ? 24 : 0) & 0xff);
        out(p, MID, sector >> (i ? 32 : 8) & 0xff);
        out(p, HIGH, sector >> (i ? 40 : 16) & 0xff);
    }
    out(p, COMMAND, cmd);
}

static void read_words(unsigned p, uint16_t *to, unsigned words) {
    while (words--)
        *to++ = (uint16_t)rig_in16(&r, p);
}

static void expect_end(unsigned p) {
    assert_int_equal(in(p, COMMAND) & (BSY | DRQ | ERR | DF | DRDY), DRDY);
    assert_false(irq(p));
}

static void expect_error(unsigned p, unsigned error) {
    assert_true(irq(p));
    assert_int_equal(in(p, COMMAND) & (BSY | DRQ | ERR), ERR);
    assert_int_equal(in(p, FEATURE), error);
    assert_false(irq(p));
}

static void check_sector(const void *data, uint32_t n) {
    const uint32_t *s = data;

    for (unsigned i = 0; i < 128; i++)
        assert_int_equal(s[i], n << 8 | i);
}

static uint64_t word(const uint16_t *id, unsigned n, unsigned count) {
    uint64_t v = 0;

    while (count--)
        v = v << 16 | id[n + count];
    return v;
}

static void test_identify(void **state) {
    uint16_t id[256];

    assert_int_equal(in(P0, COUNT), 1);
    assert_int_equal(in(P0, MID), 0);
    assert_int_equal(in(P1, MID), 0x14);
    assert_int_equal(in(P1, HIGH), 0xeb);
    command28(P0, 0xec, 0, 0);
    assert_true(irq(P0));
    assert_int_equal(in(P0, COMMAND) & (BSY | DRQ), DRQ);
    read_words(P0, id, 256);
    expect_end(P0);
    assert_int_equal(id[0] & 0x8000, 0);
    assert_int_equal(word(id, 60, 2), SECTORS);
    assert_int_equal(word(id, 100, 4), SECTORS);
    assert_memory_equal(id + 27, "ibivos ridks", 12);
    /* The CD-ROM drive is no disk, and says so. */
    out(P1, DEVICE, 0);
    out(P1, COMMAND, 0xec);
    expect_error(P1, ABRT);
    assert_int_equal(in(P1, MID) | in(P1, HIGH) << 8, 0xeb14);
    out(P1, COMMAND, 0xa1);
    read_words(P1, id, 256);
    expect_end(P1);
    assert_int_equal(id[0], 0x85c0);
    /* There is no slave: nothing answers. */
    out(P0, DEVICE, 0xb0);
    assert_int_equal(in(P0, COMMAND), 0);
    out(P0, COMMAND, 0xec);
    assert_int_equal(in(P0, COMMAND), 0);
}

static void read_port(unsigned cmd, uint32_t first, unsigned count, unsigned at_once) {
    static uint16_t data[256 * 256];
    uint16_t *to = data;

    for (unsigned n = 0; n < count; n += at_once) {
        settle();
        assert_true(irq(P0));
        assert_int_equal(in(P0, COMMAND) & (BSY | DRQ | ERR), DRQ);
        assert_false(irq(P0));
        at_once = at_once < count - n ? at_once : count - n;
        read_words(P0, to, 256 * at_once);
        to += 256 * at_once;
    }
    expect_end(P0);
    for (unsigned n = 0; n < count; n++)
        check_sector(data + 256 * n, first + n);
}

static void test_read_port(void **state) {
    command28(P0, 0x20, 7, 3);
    assert_int_equal(in(P0, COMMAND), BSY);
    read_port(0x20, 7, 3, 1);
    command28(P0, 0x20, 100, 0);
    read_port(0x20, 100, 256, 1);
    command48(P0, 0x24, SECTORS - 2, 2);
    read_port(0x24, SECTORS - 2, 2, 1);
    command28(P0, 0xc4, 0, 1); /* no multiple mode yet */
    expect_error(P0, ABRT);
    command28(P0, 0xc6, 0, 3);
    expect_error(P0, ABRT);
    command28(P0, 0xc6, 0, 8);
    assert_true(irq(P0));
    expect_end(P0);
    command28(P0, 0xc4, 40, 20);
    read_port(0xc4, 40, 20, 8);
    /* Cylinder 1, head 2, sector 3 of 16 heads and 63 sectors. */
    out(P0, DEVICE, 0xa2);
    out(P0, COUNT, 1);
    out(P0, LOW, 3);
    out(P0, MID, 1);
    out(P0, HIGH, 0);
    out(P0, COMMAND, 0x20);
    read_port(0x20, (1 * 16 + 2) * 63 + 2, 1, 1);
}

static void test_write_port(void **state) {
    uint32_t s[128], back[128];
    FILE *f;

    command28(P0, 0x30, 9, 2);
    assert_false(irq(P0)); /* the first block is asked for without */
    for (unsigned n = 0; n < 2; n++) {
        assert_int_equal(in(P0, COMMAND) & (BSY | DRQ), DRQ);
        for (unsigned i = 0; i < 128; i++)
            rig_out32(&r, P0, 0xabc00000 | n << 8 | i);
        assert_int_equal(in(P0, COMMAND), BSY);
        settle();
        assert_true(irq(P0));
    }
    expect_end(P0);
    command28(P0, 0xe7, 0, 0);
    assert_int_equal(in(P0, COMMAND), BSY);
    settle();
    assert_true(irq(P0));
    expect_end(P0);
    for (unsigned i = 0; i < 128; i++)
        s[i] = 0xabc00100 | i;
    f = fopen(disk_path, "rb");
    fseek(f, 10 * 512, SEEK_SET);
    assert_int_equal(fread(back, 1, 512, f), 512);
    fclose(f);
    assert_memory_equal(back, s, 512);
}

static void put_prd(unsigned n, uint32_t at, uint32_t len, bool last) {
    uint32_t prd[2] = {at, (len & 0xffff) | (last ? 0x80000000u : 0)};

    assert_true(mem_write(mem, gpa(PRD + 8 * n), prd, 8));
}

static unsigned bm_of(unsigned p) {
    return BM + (p == P0 ? 0 : 8);
}

static void start_dma(unsigned p, bool to_memory) {
    rig_out32(&r, bm_of(p) + 4, PRD);
    rig_out(&r, bm_of(p) + 2, 6);
    rig_out(&r, bm_of(p), to_memory ? 8 : 0);
    rig_out(&r, bm_of(p), to_memory ? 9 : 1);
}

static void test_dma(void **state) {
    static uint8_t data[600 * 512];

    for (unsigned n = 0; n < 9; n++)
        put_prd(n, BUF + n * 0x10000, n < 8 ? 0x10000 : 0x8000, n == 8);
    command48(P0, 0x25, 1000, 1088);
    assert_int_equal(in(P0, COMMAND), BSY);
    start_dma(P0, true);
    settle();
    assert_true(irq(P0));
    assert_int_equal(rig_in(&r, BM + 2) & 7, 4);
    expect_end(P0);
    assert_true(mem_read(mem, gpa(BUF), data, sizeof(data)));
    for (unsigned n = 0; n < 600; n++)
        check_sector(data + 512 * n, 1000 + n);
    rig_out(&r, BM, 0);
    /* And back, to another place; the command comes after the start. */
    put_prd(0, BUF + 512, 1024, false);
    put_prd(1, BUF, 512, true);
    start_dma(P0, false);
    command28(P0, 0xca, 50, 3);
    if (in(P0, 7) & DRQ) /* it waits for a start */
        start_dma(P0, false);
    settle();
    assert_true(irq(P0));
    expect_end(P0);
    command28(P0, 0x20, 50, 3);
    settle();
    for (unsigned n = 0; n < 3; n++) {
        uint16_t s[256];

        settle();
        read_words(P0, s, 256);
        check_sector(s, 1000 + (n + 1) % 3);
    }
}

/* Tables that are too short, too long, nowhere, or of the other direction. */
static void test_dma_errors(void **state) {
    put_prd(0, BUF, 512, true);
    command28(P0, 0xc8, 0, 2);
    start_dma(P0, true);
    settle();
    expect_error(P0, ABRT);
    assert_int_equal(rig_in(&r, BM + 2) & 1, 0);
    put_prd(0, BUF, 2048, true);
    command28(P0, 0xc8, 0, 1);
    start_dma(P0, true);
    settle();
    assert_int_equal(rig_in(&r, BM + 2) & 7, 5); /* it has more room */
    expect_end(P0);
    put_prd(0, 0xfff00000, 512, true);
    command28(P0, 0xc8, 0, 1);
    start_dma(P0, true);
    settle();
    expect_error(P0, ABRT);
    assert_int_equal(rig_in(&r, BM + 2) & 3, 2);
    put_prd(0, BUF, 512, true);
    command28(P0, 0xc8, 0, 1);
    start_dma(P0, false);
    settle();
    expect_error(P0, ABRT);
    pci_config_write(pci_at(pci, 1, 0), PCI_COMMAND, 2, PCI_COMMAND_IO);
    command28(P0, 0xc8, 0, 1);
    start_dma(P0, true);
    settle();
    expect_error(P0, ABRT);
}

/* The disk's descriptor becomes one that is good for FLAGS only. */
static void spoil(int flags) {
    struct stat want, is;
    int other = open("/dev/null", flags);

    assert_int_equal(stat(spoiled ? "/dev/null" : disk_path, &want), 0);
    for (int fd = 3; fd < 256; fd++)
        if (fd != other && !fstat(fd, &is) && is.st_dev == want.st_dev &&
            is.st_ino == want.st_ino)
            assert_int_equal(dup2(other, fd), fd);
    spoiled = true;
    close(other);
}

static void test_errors(void **state) {
    command28(P0, 0x20, SECTORS, 1);
    expect_error(P0, IDNF | ABRT);
    command28(P0, 0x20, SECTORS - 1, 2);
    expect_error(P0, IDNF | ABRT);
    command48(P0, 0x24, 1ull << 47, 1);
    expect_error(P0, IDNF | ABRT);
    command48(P0, 0x24, 0, 0); /* 65536 of them */
    expect_error(P0, IDNF | ABRT);
    command28(P0, 0x00, 0, 0);
    expect_error(P0, ABRT);
    command28(P0, 0xb0, 0, 0);
    expect_error(P0, ABRT);
    out(P0, DEVICE, 0xa0);
    out(P0, LOW, 0); /* there is no sector 0 */
    out(P0, COMMAND, 0x20);
    expect_error(P0, IDNF | ABRT);
    /* The file can no longer be read, then no longer be written. */
    spoil(O_WRONLY);
    command28(P0, 0x20, 99, 2);
    settle();
    expect_error(P0, UNC);
    assert_int_equal(in(P0, LOW), 99);
    spoil(O_RDONLY);
    command28(P0, 0x30, 7, 1);
    for (unsigned i = 0; i < 256; i++)
        rig_out16(&r, P0, i);
    settle();
    assert_true(irq(P0));
    assert_int_equal(in(P0, COMMAND) & (BSY | DRQ | DF | ERR), DF | ERR);
    assert_int_equal(in(P0, FEATURE), ABRT);
}

static void test_readonly(void **state) {
    command28(P0, 0x30, 5, 1);
    expect_error(P0, ABRT);
    command28(P0, 0xca, 5, 1);
    expect_error(P0, ABRT);
}

/* --- the CD-ROM drive --- */

/* Sends a packet; bytes that came back, in DATA. -1: CHECK CONDITION. */
static int packet(const uint8_t *p, uint8_t *data, unsigned limit) {
    int got = 0;

    out(P1, DEVICE, 0);
    out(P1, FEATURE, 0);
    out(P1, MID, limit & 0xff);
    out(P1, HIGH, limit >> 8);
    out(P1, COMMAND, 0xa0);
    assert_int_equal(in(P1, COUNT) & 3, 1);
    for (unsigned i = 0; i < 12; i += 2)
        rig_out16(&r, P1, p[i] | p[i + 1] << 8);
    for (;;) {
        unsigned s, n;

        settle();
        assert_true(irq(P1));
        s = in(P1, COMMAND);
        assert_int_equal(s & BSY, 0);
        if (!(s & DRQ)) {
            assert_int_equal(in(P1, COUNT) & 3, 3);
            return s & ERR ? -1 : got;
        }
        assert_int_equal(in(P1, COUNT) & 3, 2);
        n = in(P1, MID) | in(P1, HIGH) << 8;
        assert_in_range(n, 1, limit);
        for (unsigned i = 0; i < n; i += 2) {
            unsigned v = rig_in16(&r, P1);

            data[got++] = (uint8_t)v;
            if (i + 1 < n)
                data[got++] = (uint8_t)(v >> 8);
        }
    }
}

static unsigned sense(void) {
    static const uint8_t p[12] = {0x03, 0, 0, 0, 18};
    uint8_t data[18];

    assert_int_equal(packet(p, data, 0xfffe), 18);
    return data[2] << 16 | data[12] << 8 | data[13];
}

static int short_packet(uint8_t op, uint8_t *data) {
    const uint8_t p[12] = {op, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    return packet(p, data, 0xfffe);
}

/* What happened at power-on has been told. */
static void ready(void) {
    uint8_t data[4];

    assert_int_equal(short_packet(0x00, data), -1);
    assert_int_equal(sense(), 0x062900);
    assert_int_equal(short_packet(0x00, data), 0);
    assert_int_equal(sense(), 0);
}

static void test_cd_answers(void **state) {
    static const uint8_t inquiry[12] = {0x12, 0, 0, 0, 36};
    static const uint8_t toc[12] = {0x43, 2, 0, 0, 0, 0, 0, 0, 100};
    static const uint8_t mode[12] = {0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0};
    static const uint8_t no_page[12] = {0x5a, 0, 0x11, 0, 0, 0, 0, 1, 0};
    uint8_t data[4096];
    int n;

    assert_int_equal(packet(inquiry, data, 0xfffe), 36);
    assert_memory_equal(data + 8, "bivisor CD-ROM", 14);
    ready();
    assert_int_equal(short_packet(0x25, data), 8);
    assert_memory_equal(data, "\0\0\2\xbb\0\0\x08\0", 8);
    assert_int_equal(packet(toc, data, 0xfffe), 20);
    assert_memory_equal(data, "\0\x12\1\1\0\x14\1\0\0\0\2\0\0\x16\xaa\0\0\0\x0b\x19", 20);
    n = short_packet(0x46, data);
    assert_true(n > 8);
    assert_int_equal(data[3], n - 4);
    assert_int_equal(data[7], 8); /* CD-ROM */
    n = packet(mode, data, 0xfffe);
    assert_int_equal(data[1], n - 2);
    assert_int_equal(packet(no_page, data, 0xfffe), -1);
    assert_int_equal(sense(), 0x052400);
    assert_int_equal(short_packet(0xee, data), -1);
    assert_int_equal(sense(), 0x052000);
}

static void test_cd_read(void **state) {
    uint8_t p[12] = {0x28, 0, 0, 0, 1, 0, 0, 0, 130};
    static uint8_t data[130 * 2048];
    static const unsigned limits[] = {0xfffe, 2048, 0x1001, 2};

    ready();
    for (size_t l = 0; l < ARRAY_SIZE(limits); l++) {
        memset(data, 0, sizeof(data));
        assert_int_equal(packet(p, data, limits[l]), sizeof(data));
        for (unsigned n = 0; n < 130 * 4; n++)
            check_sector(data + 512 * n, 256 * 4 + n);
    }
    p[0] = 0xa8; /* READ (12): the count is elsewhere */
    p[6] = p[7] = p[8] = 0;
    p[9] = 1;
    assert_int_equal(packet(p, data, 0xfffe), 2048);
    p[4] = 0xff;
    assert_int_equal(packet(p, data, 0xfffe), -1);
    assert_int_equal(sense(), 0x052100);
}

static void test_cd_dma(void **state) {
    static const uint8_t p[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 70};
    static uint8_t data[70 * 2048];

    ready();
    for (unsigned n = 0; n < 3; n++)
        put_prd(n, BUF + n * 0x10000, n < 2 ? 0x10000 : 6 * 2048, n == 2);
    out(P1, DEVICE, 0);
    out(P1, FEATURE, 1);
    out(P1, COMMAND, 0xa0);
    for (unsigned i = 0; i < 12; i += 2)
        rig_out16(&r, P1, p[i] | p[i + 1] << 8);
    start_dma(P1, true);
    settle();
    assert_true(irq(P1));
    assert_int_equal(rig_in(&r, BM + 8 + 2) & 7, 4);
    expect_end(P1);
    assert_true(mem_read(mem, gpa(BUF), data, sizeof(data)));
    for (unsigned n = 0; n < 70 * 4; n++)
        check_sector(data + 512 * n, 12 + n);
}

static void test_cd_tray(void **state) {
    static const uint8_t lock[12] = {0x1e, 0, 0, 0, 1}, unlock[12] = {0x1e};
    static const uint8_t eject[12] = {0x1b, 0, 0, 0, 2}, load[12] = {0x1b, 0, 0, 0, 3};
    uint8_t data[64];

    ready();
    assert_int_equal(packet(lock, data, 64), 0);
    assert_int_equal(packet(eject, data, 64), -1);
    assert_int_equal(sense(), 0x055302);
    assert_int_equal(packet(unlock, data, 64), 0);
    assert_int_equal(packet(eject, data, 64), 0);
    assert_int_equal(short_packet(0x25, data), -1);
    assert_int_equal(sense(), 0x023a02);
    assert_int_equal(packet(load, data, 64), 0);
    assert_int_equal(short_packet(0x00, data), -1);
    assert_int_equal(sense(), 0x062800);
    assert_int_equal(short_packet(0x25, data), 8);
}

/* The user at the tray: a guest that holds it is asked; what is forced is an event and a
 * drive without disc, which stays so over a reset; the disc is another when it is back.
 */
static void test_cd_user(void **state) {
    static const uint8_t lock[12] = {0x1e, 0, 0, 0, 1};
    static const uint8_t event[12] = {0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8};
    uint8_t data[64];

    ready();
    assert_int_equal(packet(lock, data, 64), 0);
    assert_false(ide_tray(ide, 2, true, false));
    assert_int_equal(packet(event, data, 64), 8);
    assert_int_equal(data[4], 1);
    assert_int_equal(data[5], 2);
    assert_int_equal(packet(event, data, 64), 8);
    assert_int_equal(data[4], 0);
    assert_true(ide_tray(ide, 2, true, true));
    assert_int_equal(packet(event, data, 64), 8);
    assert_int_equal(data[4], 3);
    assert_int_equal(data[5], 1);
    assert_int_equal(short_packet(0x25, data), -1);
    assert_int_equal(sense(), 0x023a02);
    ide_reset(ide);
    assert_int_equal(short_packet(0x00, data), -1);
    assert_int_equal(sense(), 0x062900);
    assert_int_equal(short_packet(0x00, data), -1);
    assert_int_equal(sense(), 0x023a02);
    assert_true(ide_tray(ide, 2, false, false));
    assert_int_equal(packet(event, data, 64), 8);
    assert_int_equal(data[4], 2);
    assert_int_equal(short_packet(0x25, data), 8);
    assert_true(ide_tray(ide, 2, true, false));
    assert_true(ide_tray(ide, 2, false, false));
    assert_int_equal(short_packet(0x00, data), -1);
    assert_int_equal(sense(), 0x062800);
    /* What was asked for before is void when a disc has been put in. */
    assert_int_equal(packet(lock, data, 64), 0);
    assert_false(ide_tray(ide, 2, true, false));
    assert_true(ide_tray(ide, 2, true, true));
    assert_true(ide_tray(ide, 2, false, false));
    assert_int_equal(packet(event, data, 64), 8);
    assert_int_equal(data[4], 2);
    assert_int_equal(packet(event, data, 64), 8);
    assert_int_equal(data[4], 0);
}

/* --- resets, and what no driver does --- */

static void test_reset(void **state) {
    command28(P0, 0x20, 0, 1);
    rig_out(&r, 0x3f6, 4);
    assert_int_equal(in(P0, COMMAND), BSY);
    rig_out(&r, 0x3f6, 0);
    assert_int_equal(in(P0, COMMAND), BSY); /* the disk has not answered yet */
    settle();
    assert_false(irq(P0));
    assert_int_equal(in(P0, COMMAND), 0x50);
    assert_int_equal(in(P0, FEATURE), 1);
    assert_int_equal(in(P0, COUNT), 1);
    command28(P0, 0x20, 4, 1);
    read_port(0x20, 4, 1, 1);
    rig_out(&r, 0x3f6, 2); /* no interrupts */
    command28(P0, 0x20, 4, 1);
    settle();
    assert_false(irq(P0));
    rig_out(&r, 0x3f6, 0);
    assert_true(irq(P0));
    ide_reset(ide);
    assert_false(irq(P0));
    command28(P0, 0x90, 0, 0);
    assert_true(irq(P0));
    assert_int_equal(in(P0, FEATURE), 1);
    /* The machine's reset does not wait for the guest. */
    command28(P0, 0x20, 4, 1);
    ide_reset(ide);
    assert_int_equal(in(P0, COMMAND), 0x50);
}

static void test_decode(void **state) {
    struct pci_function *f = pci_at(pci, 1, 0);

    pci_config_write(f, 0x40, 2, 0);
    assert_int_equal(in(P0, COMMAND), 0xff);
    assert_int_not_equal(in(P1, COUNT), 0xff);
    pci_config_write(f, 0x40, 2, 0x8000);
    assert_int_equal(in(P0, COMMAND), 0x50);
}

static void test_hostile(void **state) {
    rnd_seed(42);

    for (unsigned n = 0; n < 400000; n++) {
        static const unsigned places[] = {P0, P0, P1, P1, P1, BM, BM + 8, 0x3f6, 0x376};
        unsigned at = places[pick(ARRAY_SIZE(places))];
        uint32_t v = (uint32_t)rnd();

        if (at == P0 || at == P1 || at >= BM)
            at += pick(8);
        if (at == 0x3f6 || at == 0x376)
            v &= pick(16) ? 0x82 : 0x86;
        if ((at == P0 + COMMAND || at == P1 + COMMAND) && pick(2)) {
            static const uint8_t likely[] = {0xa0, 0xa0, 0x20, 0x30, 0xc8, 0xca,
                                             0x25, 0x35, 0xc4, 0xc5, 0xec, 0x08};

            v = likely[pick(sizeof(likely))];
        }
        switch (pick(5)) {
        case 0:
            rig_in(&r, at);
            break;
        case 1:
            rig_in16(&r, at);
            break;
        case 2:
            rig_out16(&r, at, v & 0xffff);
            break;
        case 3:
            rig_out32(&r, at, v);
            break;
        default:
            rig_out(&r, at, v & 0xff);
            break;
        }
        if (!pick(4))
            settle();
        if (!pick(50)) {
            put_prd(0, v & 0x3ffffe, v >> 16, v & 1);
            rig_out32(&r, BM + 4, PRD);
            rig_out32(&r, BM + 12, v & 2 ? PRD : v);
        }
    }
    settle();
}

int main(void) {
#define TEST(f, s) cmocka_unit_test_setup_teardown(f, s, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_identify, setup),
        TEST(test_read_port, setup),
        TEST(test_write_port, setup),
        TEST(test_dma, setup),
        TEST(test_dma_errors, setup),
        TEST(test_errors, setup),
        TEST(test_readonly, setup_readonly),
        TEST(test_cd_answers, setup),
        TEST(test_cd_read, setup),
        TEST(test_cd_dma, setup),
        TEST(test_cd_tray, setup),
        TEST(test_cd_user, setup),
        TEST(test_reset, setup),
        TEST(test_decode, setup),
        TEST(test_hostile, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
