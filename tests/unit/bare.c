/*
 * What the bare machine has instead of a C library (src/bare), against the host's: the
 * objects that go into bivisor.elf, with b_ before each name (src/bare/bare.mk).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "dev/tables/acpi.h"
#include "dev/tables/mptable.h"

int b_snprintf(char *to, size_t size, const char *format, ...);
unsigned long long b_strtoull(const char *s, char **end, int base);
void *b_memcpy(void *to, const void *from, size_t n);
void *b_memset(void *to, int byte, size_t n);
void *b_memmove(void *to, const void *from, size_t n);
int b_memcmp(const void *a, const void *b, size_t n);
int b_strncmp(const char *a, const char *b, size_t n);
char *b_strstr(const char *s, const char *what);
char *b_strrchr(const char *s, int c);
time_t b_timegm(struct tm *t);
struct tm *b_gmtime_r(const time_t *when, struct tm *t);
void *b_malloc(size_t size);
void *b_calloc(size_t count, size_t size);
void *b_realloc(void *p, size_t size);
void *b_aligned_alloc(size_t align, size_t size);
void b_free(void *p);
int *b___errno_location(void);
unsigned b_bare_cpus_find(const uint8_t *(*look)(uint64_t at, uint64_t len), uint8_t *id,
                          unsigned max);
bool b_bare_irq_override(const uint8_t *(*look)(uint64_t at, uint64_t len), unsigned line,
                         unsigned *pin, unsigned *flags);

/* What these objects call. */
void b_bare_serial_write(const uint8_t *bytes, size_t n);
uint64_t b_os_monotonic_ns(void);
void *b_bare_demand(uint64_t size);
uint64_t b_bare_memory(void);

static char serial[64];
static size_t serial_len;

void b_bare_serial_write(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n && serial_len < sizeof(serial); i++)
        serial[serial_len++] = (char)bytes[i];
}

uint64_t b_os_monotonic_ns(void) {
    return 0;
}

/* The area is larger than anything here: its beginning does. */
void *b_bare_demand(uint64_t size) {
    return calloc(1, 64 << 20);
}

uint64_t b_bare_memory(void) {
    return 16 << 20;
}

static uint64_t seed = 7;

static uint64_t next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* --- print.c --- */

#define SAME(...)                                                                        \
    do {                                                                                 \
        char mine[128], theirs[128];                                                     \
        int len_ = b_snprintf(mine, sizeof(mine), __VA_ARGS__);                          \
        assert_int_equal(len_, snprintf(theirs, sizeof(theirs), __VA_ARGS__));           \
        assert_string_equal(mine, theirs);                                               \
    } while (0)

static void test_formats(void **state) {
    static const int numbers[] = {0, 1, -1, 42, -42, 2147483647, -2147483647 - 1};

    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        int n = numbers[i];

        SAME("%d %5d %-5d| %05d %+d %.4d %7.3d", n, n, n, n, n, n, n);
        SAME("%u %x %08X %#x %hhu %hd", (unsigned)n, (unsigned)n, (unsigned)n,
             (unsigned)n, (unsigned char)n, (short)n);
        SAME("%lld %llx %zu %lu %ju", (long long)n << 30, (unsigned long long)n,
             (size_t)n, (unsigned long)n, (uintmax_t)n);
        SAME("%*d|%-*d|%.*s", 8, n, 6, n, i % 4, "abcdef");
    }
    SAME("%s|%10s|%-10s|%.2s|%c|%%|%5c", "word", "word", "word", "word", 'x', 'y');
    SAME("%p", (void *)0x1234);
    SAME("%016llx", 0x1ffull);
}

static void test_cut(void **state) {
    char text[4] = "xxx";

    assert_int_equal(b_snprintf(text, sizeof(text), "%d", 123456), 6);
    assert_string_equal(text, "123");
    assert_int_equal(b_snprintf(NULL, 0, "%s", "four"), 4);
}

/* --- string.c --- */

static void test_numbers(void **state) {
    static const char *const texts[] = {"0",   "17",  "0x1fz", "0x",         "077",
                                        " 12", "abc", "",      "99999999999"};

    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        for (int base = 0; base <= 16; base += base ? 6 : 10) {
            char *mine, *theirs;

            assert_int_equal(b_strtoull(texts[i], &mine, base),
                             strtoull(texts[i], &theirs, base));
            assert_ptr_equal(mine, theirs);
        }
}

static void fill_alike(uint8_t a[64], uint8_t b[64]) {
    for (unsigned n = 0; n < 64; n++)
        a[n] = b[n] = (uint8_t)next();
}

/* All lengths about a few words, at each place in one, overlapping in both directions. */
static void test_bytes(void **state) {
    uint8_t a[64], b[64], from[64];

    fill_alike(from, from);
    for (unsigned len = 0; len <= 27; len++)
        for (unsigned to = 0; to < 10; to++)
            for (unsigned at = 0; at < 36; at += to % 3 + 1) {
                fill_alike(a, b);
                assert_ptr_equal(b_memmove(a + to, a + at, len), a + to);
                memmove(b + to, b + at, len);
                assert_memory_equal(a, b, sizeof(a));
                assert_ptr_equal(b_memmove(a + at, a + to, len), a + at);
                memmove(b + at, b + to, len);
                assert_memory_equal(a, b, sizeof(a));
                assert_ptr_equal(b_memcpy(a + to, from + at, len), a + to);
                memcpy(b + to, from + at, len);
                assert_memory_equal(a, b, sizeof(a));
                assert_ptr_equal(b_memset(a + to, (int)at * 7, len), a + to);
                memset(b + to, (int)at * 7, len);
                assert_memory_equal(a, b, sizeof(a));
            }
}

static void test_strings(void **state) {
    assert_true(b_memcmp("a\xff", "a\x01", 2) > 0);
    assert_true(b_strncmp("abc", "abd", 2) == 0 && b_strncmp("abc", "abd", 3) < 0);
    assert_string_equal(b_strstr("xx end=debug", "end="), "end=debug");
    assert_null(b_strstr("xx", "xxx"));
    assert_string_equal(b_strrchr("a/b/c", '/'), "/c");
}

/* --- calendar.c --- */

static void test_calendar(void **state) {
    for (unsigned i = 0; i < 20000; i++) {
        time_t when = (time_t)(next() % (8ull << 30)) - (1ll << 31);
        struct tm mine, theirs;

        b_gmtime_r(&when, &mine);
        gmtime_r(&when, &theirs);
        assert_int_equal(mine.tm_year, theirs.tm_year);
        assert_int_equal(mine.tm_mon, theirs.tm_mon);
        assert_int_equal(mine.tm_mday, theirs.tm_mday);
        assert_int_equal(mine.tm_wday, theirs.tm_wday);
        assert_int_equal(mine.tm_hour * 3600 + mine.tm_min * 60 + mine.tm_sec,
                         theirs.tm_hour * 3600 + theirs.tm_min * 60 + theirs.tm_sec);
        assert_int_equal(b_timegm(&mine), when);
    }
}

/* --- heap.c --- */

static void test_heap(void **state) {
    uint8_t *p[64] = {NULL};

    for (unsigned i = 0; i < 4000; i++) {
        unsigned n = next() % 64;
        size_t size = next() % 3000;

        b_free(p[n]);
        p[n] = i & 1 ? b_calloc(1, size) : b_malloc(size);
        assert_non_null(p[n]);
        assert_int_equal((uintptr_t)p[n] & 15, 0);
        for (size_t k = 0; (i & 1) && k < size; k++)
            assert_int_equal(p[n][k], 0);
        memset(p[n], 0xa5, size);
    }
    for (unsigned n = 0; n < 64; n++)
        b_free(p[n]);
}

static void test_heap_ends(void **state) {
    uint8_t *p = b_aligned_alloc(4096, 100), *q;

    assert_int_equal((uintptr_t)p & 4095, 0);
    b_free(p);
    p = b_malloc(10);
    memcpy(p, "ten bytes.", 10);
    q = b_realloc(p, 5000);
    assert_memory_equal(q, "ten bytes.", 10);
    b_free(q);
    assert_null(b_malloc(17 << 20));
    assert_int_equal(*b___errno_location(), ENOMEM);
    assert_null(b_malloc(SIZE_MAX - 4));
    assert_null(b_calloc(SIZE_MAX / 2, 3));
}

/* --- which CPUs the firmware's tables name: by the tables that guests are given --- */

#define RAM (4u << 20)

static struct mem *memory;

static uint8_t *ram_at(uint64_t at) {
    return mem_host(memory, gpa(at), 1);
}

static const uint8_t *look(uint64_t at, uint64_t len) {
    return at < RAM && len <= RAM - at ? ram_at(at) : NULL;
}

static void firmware(unsigned by_acpi, unsigned by_mp) {
    struct acpi_config acpi = {.cpus = by_acpi, .dsdt = {.pci = true}};
    struct mptable_config mp = {.cpus = by_mp, .pci = true};
    struct gpa rsdp;

    memset(ram_at(0xe0000), 0, 0x20000);
    if (by_acpi)
        assert_int_equal(acpi_build(memory, gpa(ACPI_WHERE), &acpi, &rsdp, NULL), 0);
    if (by_mp)
        assert_int_equal(mptable_build(memory, gpa(MPTABLE_WHERE), &mp), 0);
}

static unsigned found(unsigned max) {
    uint8_t id[64];
    unsigned n = b_bare_cpus_find(look, id, max);

    for (unsigned k = 0; k < n; k++)
        assert_int_equal(id[k], k);
    return n;
}

static void test_cpus(void **state) {
    assert_int_equal(mem_create(RAM, &memory), 0);
    firmware(0, 0);
    assert_int_equal(found(64), 0);
    firmware(5, 3); /* ACPI is asked first */
    assert_int_equal(found(64), 5);
    assert_int_equal(found(2), 2);
    firmware(0, 3);
    assert_int_equal(found(64), 3);
    mem_destroy(memory);
}

/* Each byte of the tables spoilt in turn: a checksum finds it, wherever it is, and
 * what is found then is by the other table, or nothing. */
static void test_cpus_spoilt(void **state) {
    unsigned first = 0;

    assert_int_equal(mem_create(RAM, &memory), 0);
    firmware(4, 2);
    for (uint32_t at = 0xe0000; at < 0xe0000 + ACPI_MAX_SIZE; at++) {
        uint8_t *p = ram_at(at), was = *p;
        unsigned n;

        *p ^= 0x41;
        n = found(64);
        assert_true(n == 4 || n == 2);
        first += n == 2;
        *p = was;
    }
    assert_in_range(first, 100, 1000); /* RSDP, list of tables, MADT */
    mem_destroy(memory);
}

/* The first byte of the table of ACPI's with that signature. */
static uint8_t *acpi_table(const char *signature) {
    for (uint32_t at = 0xe0000; at < 0x100000; at++)
        if (!memcmp(ram_at(at), signature, 4) && ram_at(at)[4] >= 36)
            return ram_at(at);
    fail_msg("no table");
    return NULL;
}

/* Where the MADT leads ISA interrupts: the timer to pin 2, the SCI by its level. */
static void test_overrides(void **state) {
    unsigned pin = 99, flags = 99;

    assert_int_equal(mem_create(RAM, &memory), 0);
    firmware(0, 2);
    assert_false(b_bare_irq_override(look, 0, &pin, &flags));
    firmware(2, 0);
    assert_true(b_bare_irq_override(look, 0, &pin, &flags));
    assert_int_equal(pin, 2);
    assert_int_equal(flags, 0);
    assert_true(b_bare_irq_override(look, 9, &pin, &flags));
    assert_int_equal(pin, 9);
    assert_int_equal(flags & 0xc, 0xc);
    pin = 99;
    assert_false(b_bare_irq_override(look, 3, &pin, &flags));
    assert_int_equal(pin, 99);
    mem_destroy(memory);
}

/* Entries of any kind and length, also none, under a checksum that is right. */
static void test_cpus_hostile(void **state) {
    unsigned pin, flags;
    uint8_t *madt;

    assert_int_equal(mem_create(RAM, &memory), 0);
    firmware(60, 0);
    madt = acpi_table("APIC");
    for (unsigned n = 0; n < 20000; n++) {
        uint8_t id[64], sum = 0, *p = madt + 44 + (unsigned)rand() % 400;

        *p = (uint8_t)rand();
        madt[9] = 0;
        for (unsigned k = 0; k < *(unaligned_u32 *)(madt + 4); k++)
            sum = (uint8_t)(sum + madt[k]);
        madt[9] = (uint8_t)-sum;
        assert_true(b_bare_cpus_find(look, id, 64) <= 64);
        b_bare_irq_override(look, (unsigned)rand() % 16, &pin, &flags);
    }
    mem_destroy(memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpus),         cmocka_unit_test(test_cpus_spoilt),
        cmocka_unit_test(test_cpus_hostile), cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_formats),      cmocka_unit_test(test_cut),
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_strings),      cmocka_unit_test(test_calendar),
        cmocka_unit_test(test_heap),         cmocka_unit_test(test_heap_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
