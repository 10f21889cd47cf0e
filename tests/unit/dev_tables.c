/*
 * The tables of the F segment, read as a system reads them: SMBIOS by its entry point and
 * from structure to structure, the MP table by its floating pointer and from entry to
 * entry. ACPI's are in dev_board.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/tables/mptable.h"
#include "dev/tables/smbios.h"

static struct mem *M;
static uint8_t segment[0x10000];

static uint64_t get(const uint8_t *p, unsigned off, unsigned len) {
    uint64_t v = 0;

    memcpy(&v, p + off, len);
    return v;
}

static void assert_sum(const uint8_t *p, unsigned len) {
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    assert_int_equal(sum, 0);
}

static const uint8_t *find(const char *anchor) {
    assert_true(mem_read(M, gpa(0xf0000), segment, sizeof(segment)));
    for (unsigned at = 0; at < sizeof(segment); at += 16) {
        if (!memcmp(segment + at, anchor, 4))
            return segment + at;
    }
    fail_msg("no %s", anchor);
    return NULL;
}

/* --- SMBIOS --- */

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
        assert_int_equal(get(s, 8, 8), 0x0f8bfbff000806f8);
        break;
    case 16:
        f->array = get(s, 7, 4) == 0x80000000 ? get(s, 0x0f, 8) : get(s, 7, 4) << 10;
        break;
    case 17:
        f->device = get(s, 0x0c, 2) == 0x7fff  ? get(s, 0x1c, 4) << 20
                    : get(s, 0x0c, 2) & 0x8000 ? (get(s, 0x0c, 2) & 0x7fff) << 10
                                               : get(s, 0x0c, 2) << 20;
        assert_int_equal(get(s, 4, 2), 16 << 8);
        break;
    case 19:
        f->mapped += get(s, 4, 4) == 0xffffffff ? get(s, 0x17, 8) - get(s, 0x0f, 8) + 1
                                                : (get(s, 8, 4) - get(s, 4, 4) + 1) << 10;
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
    const uint8_t *e, *s, *end;
    struct found f = {0};
    unsigned n = 0, largest = 0;
    uint8_t handles[65536 / 8] = {0};

    mem_reset(M);
    assert_int_equal(smbios_build(M, gpa(SMBIOS_WHERE), &cfg), 0);
    e = find("_SM_");
    assert_int_equal(e[5], 0x1f);
    assert_sum(e, e[5]);
    assert_memory_equal(e + 0x10, "_DMI_", 5);
    assert_sum(e + 0x10, 15);
    assert_in_range(get(e, 0x18, 4), 0xf0000, SMBIOS_WHERE + SMBIOS_MAX_SIZE);
    s = segment + (get(e, 0x18, 4) - 0xf0000);
    end = s + get(e, 0x16, 2);
    assert_true(end <= segment + SMBIOS_MAX_SIZE);
    for (; s < end; s = next(s), n++) {
        unsigned handle = (unsigned)get(s, 2, 2);

        assert_false(handles[handle / 8] >> handle % 8 & 1);
        handles[handle / 8] |= (uint8_t)(1 << handle % 8);
        look_at(s, &f);
        if (next(s) - s > largest)
            largest = (unsigned)(next(s) - s);
    }
    assert_ptr_equal(s, end);
    assert_int_equal(n, get(e, 0x1c, 2));
    assert_int_equal(largest, get(e, 8, 2));
    /* What the specification requires, once; a CPU each. */
    for (unsigned i = 0; i < 128; i++) {
        if (i == 0 || i == 1 || i == 3 || i == 16 || i == 17 || i == 32 || i == 127)
            assert_int_equal(f.count[i], 1);
    }
    assert_int_equal(f.count[4], cpus);
    assert_int_equal(f.count[19], ram > MEM_HOLE_START ? 2 : 1);
    assert_int_equal(f.mapped, ram);
    assert_int_equal(f.array, ram);
    assert_int_equal(
        f.device, ram >> 20 << 20 == ram || ram < 0x7fff << 10 ? ram : ram >> 20 << 20);
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
    assert_int_equal(smbios_build(M, gpa(SMBIOS_WHERE), &bad), -EINVAL);
    bad.ram = 64 << 20;
    assert_int_equal(smbios_build(M, gpa(SMBIOS_WHERE + 8), &bad), -EINVAL);
    assert_int_equal(smbios_build(M, gpa(0xd0000000), &bad), -EFAULT);
    bad.cpus = 65;
    assert_int_equal(smbios_build(M, gpa(SMBIOS_WHERE), &bad), -EINVAL);
    bad.cpus = 0;
    assert_int_equal(smbios_build(M, gpa(SMBIOS_WHERE), &bad), -EINVAL);
}

/* --- MP --- */

static void check_mp(unsigned cpus) {
    const struct mptable_config cfg = {
        .cpus = cpus, .signature = 0x806f8, .features = 0x0f8bfbff};
    const uint8_t *p, *t, *e;
    unsigned n, count[5] = {0}, pins = 0;

    mem_reset(M);
    assert_int_equal(mptable_build(M, gpa(MPTABLE_WHERE), &cfg), 0);
    p = find("_MP_");
    assert_int_equal(p[8], 1);
    assert_int_equal(p[9], 4);
    assert_sum(p, 16);
    assert_int_equal(p[11] | p[12], 0); /* a table; virtual wire, no IMCR */
    t = segment + (get(p, 4, 4) - 0xf0000);
    assert_memory_equal(t, "PCMP", 4);
    assert_sum(t, (unsigned)get(t, 4, 2));
    assert_int_equal(get(t, 36, 4), LAPIC_BASE);
    for (n = 0, e = t + 44; e < t + get(t, 4, 2); n++, e += e[0] ? 8 : 20) {
        assert_in_range(e[0], 0, 4);
        switch (e[0]) {
        case 0:
            assert_int_equal(e[1], count[0]);
            assert_int_equal(e[3], count[0] ? 1 : 3);
            assert_int_equal(get(e, 4, 8), 0x0f8bfbff000806f8);
            break;
        case 1:
            assert_memory_equal(e + 2, "ISA   ", 6);
            break;
        case 2:
            assert_int_equal(get(e, 4, 4), IOAPIC_BASE);
            break;
        case 3: /* as MADT's overrides have it */
            assert_int_equal(e[7], e[5] ? e[5] : 2);
            assert_int_equal(get(e, 2, 2), e[5] == 9 ? 0x0d : 0);
            pins |= 1u << e[7];
            break;
        default:
            assert_int_equal(e[1], e[7] ? 1 : 3); /* LINT0: ExtINT, LINT1: NMI */
            assert_int_equal(e[6], 0xff);
            break;
        }
        count[e[0]]++;
    }
    assert_int_equal(n, get(t, 34, 2));
    assert_int_equal(count[0], cpus);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 1);
    assert_int_equal(pins, 0xfffe);
    assert_int_equal(count[3], 15);
    assert_int_equal(count[4], 2);
}

static void test_mp(void **state) {
    const struct mptable_config none = {.cpus = 0}, many = {.cpus = 65},
                                one = {.cpus = 1};

    check_mp(1);
    check_mp(2);
    check_mp(64);
    assert_int_equal(mptable_build(M, gpa(MPTABLE_WHERE), &none), -EINVAL);
    assert_int_equal(mptable_build(M, gpa(MPTABLE_WHERE), &many), -EINVAL);
    assert_int_equal(mptable_build(M, gpa(MPTABLE_WHERE + 8), &one), -EINVAL);
    assert_int_equal(mptable_build(M, gpa(0xd0000000), &one), -EFAULT);
}

static int setup(void **state) {
    return mem_create(64 << 20, &M);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_smbios),
                                       cmocka_unit_test(test_mp)};

    return cmocka_run_group_tests(tests, setup, NULL);
}
