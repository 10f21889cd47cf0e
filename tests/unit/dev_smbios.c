/*
 * SMBIOS, read as a system reads it: by its entry point and from structure to structure.
 * System Management BIOS Reference Specification.
 */
#include "dev/tables/smbios.h"

#include <errno.h>

#include "lib/tables.h"
#include "lib/unit.h"

/* String N of the structure at S. */
static const char *text(const uint8_t *s, unsigned n) {
    const char *t = (const char *)s + s[1];

    assert_int_not_equal(n, 0);
    while (--n)
        t += strlen(t) + 1;
    return t;
}

static const uint8_t *next(const uint8_t *s) {
    const uint8_t *e = s + s[1];

    while (e[0] || e[1])
        e++;
    return e + 2;
}

struct found {
    unsigned count[128];
    uint64_t mapped; /* bytes that types 19 say */
    uint64_t device, array;
};

static void look_at(const uint8_t *s, struct found *f) {
    f->count[s[0]]++;
    switch (s[0]) {
    case 0:
        assert_string_equal(text(s, s[4]), "bivisor");
        assert_true(atoi(text(s, s[8]) + 6) >= 2001); /* what makes old Linux use ACPI */
        assert_true(s[0x12] & 1 && s[0x13] & 0x10);
        break;
    case 1:
        assert_string_equal(text(s, s[4]), "bivisor");
        assert_string_equal(text(s, s[5]), "PC");
        break;
    case 4:
        assert_string_equal(text(s, s[7]), "GenuineThing");
        assert_int_equal(table_get(s, 8, 8), 0x0f8bfbff000806f8);
        break;
    case 16:
        f->array = table_get(s, 7, 4) == 0x80000000 ? table_get(s, 0x0f, 8)
                                                    : table_get(s, 7, 4) << 10;
        break;
    case 17:
        f->device = table_get(s, 0x0c, 2) == 0x7fff ? table_get(s, 0x1c, 4) << 20
                    : table_get(s, 0x0c, 2) & 0x8000
                        ? (table_get(s, 0x0c, 2) & 0x7fff) << 10
                        : table_get(s, 0x0c, 2) << 20;
        assert_int_equal(table_get(s, 4, 2), 16 << 8);
        break;
    case 19:
        f->mapped += table_get(s, 4, 4) == 0xffffffff
                         ? table_get(s, 0x17, 8) - table_get(s, 0x0f, 8) + 1
                         : (table_get(s, 8, 4) - table_get(s, 4, 4) + 1) << 10;
        break;
    default:
        break;
    }
}

static void check_smbios(uint64_t ram, unsigned cpus) {
    const struct smbios_config cfg = {.cpus = cpus,
                                      .ram = ram,
                                      .signature = 0x806f8,
                                      .features = 0x0f8bfbff,
                                      .cpu_maker = "GenuineThing"};
    const uint8_t *segment, *e, *s, *end;
    struct found f = {0};
    unsigned n = 0, largest = 0;
    uint8_t handles[65536 / 8] = {0};

    mem_reset(table_mem);
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE), &cfg), 0);
    segment = table_segment(0xf0000);
    e = table_find(segment, "_SM_");
    assert_non_null(e);
    assert_int_equal(e[5], 0x1f);
    assert_int_equal(table_sum(e, e[5]), 0);
    assert_memory_equal(e + 0x10, "_DMI_", 5);
    assert_int_equal(table_sum(e + 0x10, 15), 0);
    assert_in_range(table_get(e, 0x18, 4), 0xf0000, SMBIOS_WHERE + SMBIOS_MAX_SIZE);
    s = segment + (table_get(e, 0x18, 4) - 0xf0000);
    end = s + table_get(e, 0x16, 2);
    assert_true(end <= segment + SMBIOS_MAX_SIZE);
    for (; s < end; s = next(s), n++) {
        unsigned handle = (unsigned)table_get(s, 2, 2);

        assert_false(handles[handle / 8] >> handle % 8 & 1);
        handles[handle / 8] |= (uint8_t)(1 << handle % 8);
        look_at(s, &f);
        if (next(s) - s > largest)
            largest = (unsigned)(next(s) - s);
    }
    assert_ptr_equal(s, end);
    assert_int_equal(n, table_get(e, 0x1c, 2));
    assert_int_equal(largest, table_get(e, 8, 2));
    /* What the specification requires, once; one package of CPUs. */
    for (unsigned i = 0; i < 128; i++) {
        if (i == 0 || i == 1 || i == 3 || i == 16 || i == 17 || i == 32 || i == 127)
            assert_int_equal(f.count[i], 1);
    }
    assert_int_equal(f.count[4], 1);
    assert_int_equal(f.count[19], ram > MEM_HOLE_START ? 2 : 1);
    assert_int_equal(f.mapped, ram);
    assert_int_equal(f.array, ram);
    assert_int_equal(
        f.device, ram >> 20 << 20 == ram || ram < 0x7fff << 10 ? ram : ram >> 20 << 20);
}

/* The structure of TYPE in what CFG makes; NULL: there is none. */
static const uint8_t *built(const struct smbios_config *cfg, unsigned type) {
    const uint8_t *segment, *e, *s;

    mem_reset(table_mem);
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE), cfg), 0);
    segment = table_segment(0xf0000);
    e = table_find(segment, "_SM_");
    for (s = segment + (table_get(e, 0x18, 4) - 0xf0000); s[0] != type; s = next(s))
        if (s[0] == 127)
            return NULL;
    return s;
}

/* What the user says takes the place of the board's own, and of nothing else. */
static void test_identity(void **state) {
    static const uint8_t uuid[] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                   0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    struct smbios_identity id = {.has_uuid = true,
                                 .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                          0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
                                 .text = {[SMBIOS_BIOS_VERSION] = "V",
                                          [SMBIOS_SYSTEM_PRODUCT] = "",
                                          [SMBIOS_SYSTEM_SERIAL] = "S",
                                          [SMBIOS_SYSTEM_FAMILY] = "F",
                                          [SMBIOS_CHASSIS_TAG] = "T"}};
    struct smbios_config cfg = {.cpus = 1, .ram = 64 << 20, .identity = &id};
    const uint8_t *s = built(&cfg, 1);

    assert_string_equal(text(s, s[4]), "bivisor");
    assert_int_equal(s[5], 0);
    assert_string_equal(text(s, s[6]), "1");
    assert_string_equal(text(s, s[7]), "S");
    assert_memory_equal(s + 8, uuid, 16); /* "System UUID" has this example */
    assert_int_equal(s[0x19], 0);
    assert_string_equal(text(s, s[0x1a]), "F");
    s = built(&cfg, 0);
    assert_string_equal(text(s, s[5]), "V");
    s = built(&cfg, 3);
    assert_string_equal(text(s, s[8]), "T");
    assert_null(built(&cfg, 2));
    assert_null(built(&cfg, 11));
    id.text[SMBIOS_BOARD_SERIAL] = "B";
    s = built(&cfg, 2);
    assert_string_equal(text(s, s[4]), "bivisor");
    assert_string_equal(text(s, s[7]), "B");
    id.oem[id.oem_count++] = "one";
    id.oem[id.oem_count++] = "two";
    s = built(&cfg, 11);
    assert_int_equal(s[4], 2);
    assert_string_equal(text(s, 2), "two");
}

/* All of the room can be used, and no more. */
static void test_room(void **state) {
    static char large[SMBIOS_ROOM];
    struct smbios_identity id = {.oem = {large, "x"}, .oem_count = 1};
    const struct smbios_config cfg = {.cpus = 1, .ram = 64 << 20, .identity = &id};
    const uint8_t *s;

    memset(large, 'a', sizeof(large) - 1);
    s = built(&cfg, 11);
    assert_string_equal(text(s, 1), large);
    id.oem_count = 2;
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE), &cfg), -ENOSPC);
}

static void test_smbios(void **state) {
    static const uint64_t rams[] = {
        4 << 20,    (4 << 20) + 4096, 512 << 20,      (512 << 20) + 4096, 3ull << 30,
        4ull << 30, 31ull << 30,      32767ull << 20, 32ull << 30,        MEM_MAX_RAM};
    struct smbios_config bad = {.cpus = 1, .ram = MEM_MAX_RAM + 1};

    for (size_t i = 0; i < sizeof(rams) / sizeof(*rams); i++) {
        check_smbios(rams[i], 1);
        check_smbios(rams[i], 64);
    }
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE), &bad), -EINVAL);
    bad.ram = 64 << 20;
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE + 8), &bad), -EINVAL);
    assert_int_equal(smbios_build(table_mem, gpa(0xd0000000), &bad), -EFAULT);
    bad.cpus = 65;
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE), &bad), -EINVAL);
    bad.cpus = 0;
    assert_int_equal(smbios_build(table_mem, gpa(SMBIOS_WHERE), &bad), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_identity),
                                       cmocka_unit_test(test_room),
                                       cmocka_unit_test(test_smbios)};

    return cmocka_run_group_tests(tests, table_setup, table_teardown);
}
