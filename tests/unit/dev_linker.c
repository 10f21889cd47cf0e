/*
 * The linker's commands, executed as firmware does: the tables end up elsewhere, and
 * every pointer and sum is right there. And tables that are none.
 */
#include "dev/tables/acpi.h"
#include "dev/tables/linker.h"
#include "lib/unit.h"

#include <errno.h>

enum { BASE = 0x20000, RSDP_AT = 0xf5a40, TABLES_AT = 0x1ffe0000 };

static uint8_t tables[0x4000];
static struct linker l;

static void build(unsigned cpus, uint64_t *len) {
    const struct acpi_config cfg = {.cpus = cpus};
    struct gpa rsdp;
    struct mem *m;

    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    assert_int_equal(acpi_build(m, gpa(BASE), &cfg, &rsdp, len), 0);
    assert_true(*len <= sizeof(tables));
    assert_true(mem_read(m, gpa(BASE), tables, *len));
    mem_destroy(m);
}

static uint64_t get(const uint8_t *at, unsigned size) {
    uint64_t v = 0;

    memcpy(&v, at, size);
    return v;
}

static uint8_t sum(const uint8_t *at, uint64_t len) {
    uint8_t s = 0;

    while (len--)
        s = (uint8_t)(s + *at++);
    return s;
}

static uint8_t *file(const uint8_t *name, uint32_t *where) {
    if (!strcmp((const char *)name, LINKER_RSDP_FILE)) {
        *where = RSDP_AT;
        return l.rsdp;
    }
    assert_string_equal((const char *)name, LINKER_TABLES_FILE);
    *where = TABLES_AT;
    return l.tables;
}

static void add(const uint8_t *c) {
    uint32_t there, to;
    uint8_t *at = file(c, &there) + get(c + 112, 4);
    uint64_t value;

    file(c + 56, &to);
    assert_true(c[116] == 4 || c[116] == 8);
    value = get(at, c[116]) + to;
    memcpy(at, &value, c[116]);
}

static void execute(void) {
    unsigned allocated = 0;

    assert_int_equal(l.commands_len % LINKER_COMMAND, 0);
    for (uint32_t n = 0; n < l.commands_len; n += LINKER_COMMAND) {
        const uint8_t *c = l.commands + n + 4;
        uint32_t where;

        switch (get(c - 4, 4)) {
        case 1:
            file(c, &where);
            assert_int_equal(where % get(c + 56, 4), 0);
            allocated++;
            break;
        case 2:
            assert_int_equal(allocated, 2);
            add(c);
            break;
        default: {
            uint8_t *p = file(c, &where);
            uint8_t s = sum(p + get(c + 60, 4), get(c + 64, 4));

            assert_int_equal(get(c - 4, 4), 3);
            p[get(c + 56, 4)] = (uint8_t)(p[get(c + 56, 4)] - s);
        }
        }
    }
}

/* The table at a guest address, whose sum is right. */
static const uint8_t *table(uint64_t at, uint64_t len, const char *signature) {
    const uint8_t *t = l.tables + (at - TABLES_AT);

    assert_in_range(at, TABLES_AT + 1, TABLES_AT + len - 36);
    if (signature)
        assert_memory_equal(t, signature, 4);
    if (memcmp(t, "FACS", 4))
        assert_int_equal(sum(t, get(t + 4, 4)), 0);
    return t;
}

static void test_link(void **state) {
    static const unsigned cpus[] = {1, 2, 64};

    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        const uint8_t *rsdt, *xsdt, *fadt;
        uint64_t len;

        build(cpus[i], &len);
        assert_int_equal(linker_build(&l, tables, (uint32_t)len, BASE), 0);
        execute();
        assert_memory_equal(l.rsdp, "RSD PTR ", 8);
        assert_int_equal(sum(l.rsdp, 20), 0);
        assert_int_equal(sum(l.rsdp, 36), 0);
        rsdt = table(get(l.rsdp + 16, 4), len, "RSDT");
        xsdt = table(get(l.rsdp + 24, 8), len, "XSDT");
        assert_int_equal(get(rsdt + 36, 4), get(xsdt + 36, 8));
        fadt = table(get(xsdt + 36, 8), len, "FACP");
        table(get(xsdt + 44, 8), len, "APIC");
        table(get(fadt + 36, 4), len, "FACS");
        table(get(fadt + 40, 4), len, "DSDT");
        assert_int_equal(get(fadt + 140, 8), get(fadt + 40, 4));
        assert_int_equal(get(fadt + 36, 4) % 64, 0);
    }
}

static void test_refuse(void **state) {
    uint64_t len;

    build(1, &len);
    assert_int_equal(linker_build(&l, tables, 40, BASE), -EINVAL);
    build(1, &len);
    assert_int_equal(linker_build(&l, tables, (uint32_t)len, BASE + 0x1000), -EINVAL);
    build(1, &len);
    assert_int_equal(linker_build(&l, tables, (uint32_t)len - 40, BASE), -EINVAL);
    tables[0] ^= 1;
    assert_int_equal(linker_build(&l, tables, (uint32_t)len, BASE), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link),
        cmocka_unit_test(test_refuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
