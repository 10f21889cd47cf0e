/*
 * The MP table, read as a system reads it: by its floating pointer and from entry to
 * entry. MultiProcessor Specification 1.4, "MP Configuration Table".
 */
#include "dev/tables/mptable.h"

#include <errno.h>

#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/pci/setup.h"
#include "lib/tables.h"
#include "lib/unit.h"

static void check_mp(unsigned cpus) {
    const struct mptable_config cfg = {
        .cpus = cpus, .signature = 0x806f8, .features = 0x0f8bfbff};
    const uint8_t *segment, *p, *t, *e;
    unsigned n, count[5] = {0}, pins = 0;

    mem_reset(table_mem);
    assert_int_equal(mptable_build(table_mem, gpa(MPTABLE_WHERE), &cfg), 0);
    segment = table_segment(0xf0000);
    p = table_find(segment, "_MP_");
    assert_non_null(p);
    assert_int_equal(p[8], 1);
    assert_int_equal(p[9], 4);
    assert_int_equal(table_sum(p, 16), 0);
    assert_int_equal(p[11] | p[12], 0); /* a table; virtual wire, no IMCR */
    t = segment + (table_get(p, 4, 4) - 0xf0000);
    assert_memory_equal(t, "PCMP", 4);
    assert_int_equal(table_sum(t, (unsigned)table_get(t, 4, 2)), 0);
    assert_int_equal(table_get(t, 36, 4), LAPIC_BASE);
    for (n = 0, e = t + 44; e < t + table_get(t, 4, 2); n++, e += e[0] ? 8 : 20) {
        assert_in_range(e[0], 0, 4);
        switch (e[0]) {
        case 0:
            assert_int_equal(e[1], count[0]);
            assert_int_equal(e[3], count[0] ? 1 : 3);
            assert_int_equal(table_get(e, 4, 8), 0x0f8bfbff000806f8);
            break;
        case 1:
            assert_memory_equal(e + 2, "ISA   ", 6);
            break;
        case 2:
            assert_int_equal(table_get(e, 4, 4), IOAPIC_BASE);
            break;
        case 3: /* as MADT's overrides have it */
            assert_int_equal(e[7], e[5] ? e[5] : 2);
            assert_int_equal(table_get(e, 2, 2), e[5] == 9 ? 0x0d : 0);
            pins |= 1u << e[7];
            break;
        default:
            assert_int_equal(e[1], e[7] ? 1 : 3); /* LINT0: ExtINT, LINT1: NMI */
            assert_int_equal(e[6], 0xff);
            break;
        }
        count[e[0]]++;
    }
    assert_int_equal(n, table_get(t, 34, 2));
    assert_int_equal(count[0], cpus);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 1);
    assert_int_equal(pins, 0xfffe);
    assert_int_equal(count[3], 15);
    assert_int_equal(count[4], 2);
}

/* Two buses; each slot's pins are where they are led to, and ISA's lines are where they
 * were. */
static void test_pci(void **state) {
    const struct mptable_config cfg = {.cpus = 1, .pci = true};
    const uint8_t *segment, *t, *e;
    unsigned buses = 0, pci = 0, isa = 0;

    mem_reset(table_mem);
    assert_int_equal(mptable_build(table_mem, gpa(MPTABLE_WHERE), &cfg), 0);
    segment = table_segment(0xf0000);
    t = segment + (table_get(table_find(segment, "_MP_"), 4, 4) - 0xf0000);
    assert_int_equal(table_sum(t, (unsigned)table_get(t, 4, 2)), 0);
    for (e = t + 44; e < t + table_get(t, 4, 2); e += e[0] ? 8 : 20) {
        if (e[0] == 1) {
            assert_int_equal(e[1], buses);
            assert_memory_equal(e + 2, buses++ ? "ISA   " : "PCI   ", 6);
        } else if (e[0] == 3 && e[4] == 0) {
            assert_int_equal(e[5], pci + 4);
            assert_int_equal(e[7], pci_setup_irq(e[5] >> 2, e[5] & 3));
            assert_int_equal(table_get(e, 2, 2), 0); /* as PCI has it */
            pci++;
        } else if (e[0] == 3) {
            assert_int_equal(e[4], 1);
            assert_int_not_equal(e[5], PCI_IRQ_AB);
            assert_int_not_equal(e[5], PCI_IRQ_CD);
            isa++;
        }
    }
    assert_int_equal(buses, 2);
    assert_int_equal(pci, 31 * 4);
    assert_int_equal(isa, 13);
}

static void test_mp(void **state) {
    const struct mptable_config none = {.cpus = 0}, many = {.cpus = 65},
                                one = {.cpus = 1};

    check_mp(1);
    check_mp(2);
    check_mp(64);
    assert_int_equal(mptable_build(table_mem, gpa(MPTABLE_WHERE), &none), -EINVAL);
    assert_int_equal(mptable_build(table_mem, gpa(MPTABLE_WHERE), &many), -EINVAL);
    assert_int_equal(mptable_build(table_mem, gpa(MPTABLE_WHERE + 8), &one), -EINVAL);
    assert_int_equal(mptable_build(table_mem, gpa(0xd0000000), &one), -EFAULT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mp),
                                       cmocka_unit_test(test_pci)};

    return cmocka_run_group_tests(tests, table_setup, table_teardown);
}
