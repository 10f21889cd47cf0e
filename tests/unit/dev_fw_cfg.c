/*
 * fw_cfg by itself: items by number and by name, byte by byte and by DMA, and descriptors
 * that lie. QEMU, docs/specs/fw_cfg.
 */
#include "dev/fw/fw_cfg.h"
#include "lib/rig.h"
#include "lib/unit.h"

#include <errno.h>
#include <stdio.h>

enum { SELECT = 0x510, DATA = 0x511, DMA_HIGH = 0x514, DMA_LOW = 0x518 };
enum { ERROR = 1, READ = 2, SKIP = 4, CHOOSE = 8, WRITE = 16 };
enum { DESC = 0x1000, BUF = 0x2000 };

static struct rig r;
static struct mem *mem;
static struct fw_cfg *fw;

static int setup(void **state) {
    rig_new(&r);
    if (mem_create(MEM_MIN_RAM, &mem))
        return -1;
    fw = fw_cfg_new(r.bus, mem);
    return fw ? 0 : -1;
}

static int teardown(void **state) {
    fw_cfg_free(fw);
    mem_destroy(mem);
    rig_free(&r);
    return 0;
}

/* The next LEN bytes, the first highest. */
static uint64_t next(unsigned len) {
    uint64_t v = 0;

    while (len--)
        v = v << 8 | rig_in(&r, DATA);
    return v;
}

/* The number of a file in the directory, 0 when it has none; *LEN its size. */
static unsigned find(const char *name, unsigned *len) {
    unsigned count;

    rig_out16(&r, SELECT, FW_CFG_FILE_DIR);
    count = (unsigned)next(4);
    while (count--) {
        unsigned size = (unsigned)next(4), key = (unsigned)next(2);
        char text[FW_CFG_NAME_SIZE];

        assert_int_equal(next(2), 0);
        for (unsigned i = 0; i < sizeof(text); i++)
            text[i] = (char)rig_in(&r, DATA);
        assert_int_equal(text[sizeof(text) - 1], 0);
        if (!strcmp(text, name)) {
            *len = size;
            return key;
        }
    }
    return 0;
}

/* Executes a descriptor; the control word that it has afterwards. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t address) {
    uint32_t d[4] = {__builtin_bswap32(control), __builtin_bswap32(len),
                     __builtin_bswap32((uint32_t)(address >> 32)),
                     __builtin_bswap32((uint32_t)address)};

    assert_true(mem_write(mem, gpa(DESC), d, sizeof(d)));
    rig_out32(&r, DMA_HIGH, 0);
    rig_out32(&r, DMA_LOW, __builtin_bswap32(DESC));
    assert_true(mem_read(mem, gpa(DESC), d, 4));
    return __builtin_bswap32(d[0]);
}

static void test_signature(void **state) {
    rig_out16(&r, SELECT, FW_CFG_SIGNATURE);
    assert_int_equal(next(4), 0x51454d55);
    assert_int_equal(next(4), 0);
    rig_out16(&r, SELECT, FW_CFG_ID);
    assert_int_equal(next(4), 0x03000000);
    assert_int_equal(rig_in32(&r, DMA_HIGH), 0x554d4551);
    assert_int_equal(rig_in32(&r, DMA_LOW), 0x47464320);
}

static void test_numbers(void **state) {
    assert_int_equal(fw_cfg_set_int(fw, FW_CFG_NB_CPUS, 0x1234, 2), 0);
    rig_out16(&r, SELECT, FW_CFG_NB_CPUS);
    assert_int_equal(next(3), 0x341200);
    rig_out16(&r, SELECT, FW_CFG_NB_CPUS); /* from its beginning again */
    assert_int_equal(next(1), 0x34);
    assert_int_equal(fw_cfg_set(fw, FW_CFG_FILE_DIR, "x", 1), -EINVAL);
    assert_int_equal(fw_cfg_set_int(fw, FW_CFG_UUID, 0, 9), -EINVAL);
    /* Neither a byte nor a doubleword chooses. */
    rig_out(&r, SELECT, FW_CFG_SIGNATURE);
    assert_int_equal(next(1), 0x12);
    for (unsigned key = 0x1a; key < 0x10000; key += 0x333) {
        rig_out16(&r, SELECT, key);
        assert_int_equal(next(2), 0);
    }
}

static void test_files(void **state) {
    char longest[FW_CFG_NAME_SIZE + 1];
    unsigned len = 0, key;

    assert_int_equal(find("etc/a", &len), 0);
    assert_int_equal(fw_cfg_add(fw, "etc/a", "hello", 5), 0);
    assert_int_equal(fw_cfg_add_int(fw, "etc/b", 0xabcd, 2), 0);
    key = find("etc/b", &len);
    assert_int_equal(len, 2);
    rig_out16(&r, SELECT, key);
    assert_int_equal(next(2), 0xcdab);
    assert_int_equal(fw_cfg_add(fw, "etc/a", "other", 6), 0);
    key = find("etc/a", &len);
    assert_int_equal(len, 6);
    rig_out16(&r, SELECT, key | 0x4000);
    assert_int_equal(next(5), 0x6f74686572);
    memset(longest, 'n', sizeof(longest));
    longest[FW_CFG_NAME_SIZE] = 0;
    assert_int_equal(fw_cfg_add(fw, longest, "", 0), -EINVAL);
    assert_int_equal(fw_cfg_add(fw, "", "", 0), -EINVAL);
    longest[FW_CFG_NAME_SIZE - 1] = 0;
    assert_int_equal(fw_cfg_add(fw, longest, "", 0), 0);
    assert_true(find(longest, &len) && len == 0);
    for (unsigned i = 3; i < FW_CFG_FILES; i++) {
        snprintf(longest, sizeof(longest), "file %u", i);
        assert_int_equal(fw_cfg_add(fw, longest, "", 0), 0);
    }
    assert_int_equal(fw_cfg_add(fw, "one more", "", 0), -ENOSPC);
    fw_cfg_clear(fw);
    assert_int_equal(fw_cfg_add(fw, "one more", "", 0), 0);
    assert_int_equal(find("etc/a", &len), 0);
}

static void test_dma(void **state) {
    uint8_t buf[8];
    unsigned len, key;

    assert_int_equal(fw_cfg_add(fw, "f", "0123456789", 10), 0);
    key = find("f", &len);
    memset(buf, 0xff, sizeof(buf));
    assert_true(mem_write(mem, gpa(BUF), buf, 8));
    assert_int_equal(dma(key << 16 | CHOOSE | READ, 4, BUF), 0);
    assert_true(mem_read(mem, gpa(BUF), buf, 8));
    assert_memory_equal(buf, "0123\xff\xff\xff\xff", 8);
    assert_int_equal(dma(SKIP, 3, 0), 0);
    assert_int_equal(dma(READ, 6, BUF), 0);
    assert_true(mem_read(mem, gpa(BUF), buf, 8));
    assert_memory_equal(buf, "789\0\0\0\xff\xff", 8);
    assert_int_equal(dma(WRITE, 1, BUF), ERROR);
    assert_int_equal(dma(key << 16 | CHOOSE, 0, 0), 0);
    assert_int_equal(next(1), '0');
}

static void test_hostile(void **state) {
    unsigned len, key;

    assert_int_equal(fw_cfg_add(fw, "f", "0123456789", 10), 0);
    key = find("f", &len);
    assert_int_equal(dma(key << 16 | CHOOSE | READ, 0xffffffff, BUF), ERROR);
    assert_int_equal(dma(key << 16 | CHOOSE | READ, 4, ~1ull), ERROR);
    assert_int_equal(dma(key << 16 | CHOOSE | READ, 4, MEM_MIN_RAM - 2), ERROR);
    assert_int_equal(dma(key << 16 | CHOOSE | SKIP, 0xffffffff, 0), 0);
    assert_int_equal(dma(SKIP, 0xffffffff, 0), 0);
    assert_int_equal(next(2), 0);
    assert_int_equal(dma(READ, 4, BUF), 0);
    /* A descriptor that is nowhere, or overwrites itself. */
    rig_out32(&r, DMA_HIGH, 0xffffffff);
    rig_out32(&r, DMA_LOW, 0xffffffff);
    assert_int_equal(dma(0x19u << 16 | CHOOSE | READ, 64, DESC), 0);
    rig_out16(&r, DMA_LOW, 0);
    rig_out(&r, DMA_LOW, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_signature, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
