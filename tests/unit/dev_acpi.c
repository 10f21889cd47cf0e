/*
 * ACPI's tables, read as a system reads them: from the RSDP to the root tables, from
 * there to the others, and what they say of the board. ACPI Specification 6, "ACPI
 * Software Programming Model". With ACPICA's compiler on the host, that disassembles
 * them.
 */
#include "dev/tables/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/pc/vmgenid.h"
#include "dev/pci/piix.h"
#include "lib/tables.h"
#include "lib/unit.h"

static const uint8_t *segment;
static uint64_t length;

static bool with_pci, with_keyboard, with_generation;

static void build(unsigned cpus) {
    const struct acpi_config cfg = {
        .cpus = cpus,
        .dsdt = {.pci = with_pci,
                 .keyboard = with_keyboard,
                 .generation = with_generation ? VMGENID_BASE : 0,
                 .ram_end = 0x12345000,
                 .window64 = 1ull << 32,
                 .window64_end = 1ull << 34}};
    struct gpa rsdp;

    mem_reset(table_mem);
    assert_int_equal(acpi_build(table_mem, gpa(ACPI_WHERE), &cfg, &rsdp, &length), 0);
    assert_int_equal(rsdp.a, ACPI_WHERE);
    assert_true(length <= ACPI_MAX_SIZE);
    segment = table_segment(ACPI_WHERE);
    for (uint64_t at = length; at < 0x10000; at++)
        assert_int_equal(segment[at], 0);
}

/* The table at guest-physical AT, whole and with a right sum. */
static const uint8_t *table(uint64_t at, const char *name) {
    const uint8_t *t = segment + (at - ACPI_WHERE);

    assert_in_range(at, ACPI_WHERE, ACPI_WHERE + length - 36);
    assert_memory_equal(t, name, 4);
    assert_true(at + table_get(t, 4, 4) <= ACPI_WHERE + length);
    assert_int_equal(table_sum(t, (unsigned)table_get(t, 4, 4)), 0);
    assert_memory_equal(t + 10, "BIVISRBOARD   ", 14);
    assert_memory_equal(t + 28, "BVSR", 4);
    return t;
}

/* Table N of the XSDT, which is the RSDT's too. */
static const uint8_t *root(unsigned n, const char *name) {
    const uint8_t *p = table_find(segment, "RSD PTR ");
    const uint8_t *rsdt = table(table_get(p, 16, 4), "RSDT");
    const uint8_t *xsdt = table(table_get(p, 24, 8), "XSDT");

    assert_int_equal(table_get(rsdt, 4, 4), 36 + 2 * 4);
    assert_int_equal(table_get(xsdt, 4, 4), 36 + 2 * 8);
    assert_int_equal(table_get(rsdt, 36 + 4 * n, 4), table_get(xsdt, 36 + 8 * n, 8));
    return table(table_get(xsdt, 36 + 8 * n, 8), name);
}

static void test_root(void **state) {
    const uint8_t *p;

    build(1);
    p = table_find(segment, "RSD PTR ");
    assert_ptr_equal(p, segment);
    assert_int_equal(table_sum(p, 20), 0);
    assert_int_equal(table_sum(p, 36), 0);
    assert_int_equal(p[15], 2);
    assert_memory_equal(p + 9, "BIVISR", 6);
    assert_int_equal(table_get(p, 20, 4), 36);
    assert_int_equal(table_get(p, 33, 3), 0);
    root(0, "FACP");
    root(1, "APIC");
}

/* A generic address: the space, the width, the port. */
static void is_port(const uint8_t *gas, unsigned bits, uint64_t port) {
    assert_int_equal(gas[0], 1);
    assert_int_equal(gas[1], bits);
    assert_int_equal(table_get(gas, 4, 8), port);
}

/* The FADT says where pm.c and ports.c are. */
static void test_fadt(void **state) {
    const uint8_t *t, *facs, *dsdt;

    build(1);
    t = root(0, "FACP");
    assert_int_equal(table_get(t, 46, 2), PM_SCI_IRQ);
    assert_int_equal(table_get(t, 48, 4), PM_SMI_PORT);
    assert_int_equal(t[52], PM_ACPI_ENABLE);
    assert_int_equal(t[53], PM_ACPI_DISABLE);
    assert_int_equal(table_get(t, 56, 4), PM_EVT_PORT);
    assert_int_equal(table_get(t, 64, 4), PM_CNT_PORT);
    assert_int_equal(table_get(t, 76, 4), PM_TMR_PORT);
    assert_int_equal(table_get(t, 80, 4), PM_GPE0_PORT);
    assert_int_equal(t[88], 4);
    assert_int_equal(t[89], 2);
    assert_int_equal(t[91], 4);
    assert_int_equal(t[92], PM_GPE0_LEN);
    is_port(t + 116, 8, PORTS_RESET);
    assert_int_equal(t[128], 6);
    is_port(t + 148, 32, PM_EVT_PORT);
    is_port(t + 172, 16, PM_CNT_PORT);
    is_port(t + 208, 32, PM_TMR_PORT);
    assert_int_equal(table_get(t, 112, 4) >> 8 & 1, 1);  /* a timer of 32 bits */
    assert_int_equal(table_get(t, 112, 4) >> 10 & 1, 1); /* the reset register counts */
    facs = segment + (table_get(t, 36, 4) - ACPI_WHERE);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(table_get(t, 36, 4) & 63, 0);
    assert_int_equal(table_get(t, 132, 8), 0); /* one of two pointers only */
    dsdt = table(table_get(t, 40, 4), "DSDT");
    assert_ptr_equal(table(table_get(t, 140, 8), "DSDT"), dsdt);
    /* Name (_S5, Package (4) { 5, 5, 0, 0 }), with the type that pm.c knows. */
    assert_memory_equal(dsdt + 36, "\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05", 12);
    assert_int_equal(dsdt[36 + 9], PM_S5_TYPE);
}

/* Resources of the DSDT's devices, in the order of its AML: small descriptors of ports
 * (0x47) and of interrupts (0x22). ACPI Specification 6, "Resource Data Types". */
static void test_dsdt(void **state) {
    static const struct {
        uint16_t port, count;
    } ports[] = {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}, {0x40, 4}, {0x70, 4}, {0x3f8, 8}};
    static const uint8_t irqs[] = {2, 0, 8, 4};
    /* PNP0000, PNP0100, PNP0B00, PNP0501; the first is a word. */
    static const char *const ids[] = {"\x0b\x41\xd0\x08", "\x0c\x41\xd0\x01\x00",
                                      "\x0c\x41\xd0\x0b\x00", "\x0c\x41\xd0\x05\x01"};
    unsigned nports = 0, nirqs = 0, nids = 0;
    const uint8_t *t, *end;

    build(1);
    t = table(table_get(root(0, "FACP"), 40, 4), "DSDT");
    end = t + table_get(t, 4, 4);
    for (const uint8_t *p = t + 36; p < end - 4; p++) {
        if (!memcmp(p, "_HID", 4)) {
            assert_true(nids < 4);
            assert_memory_equal(p + 4, ids[nids], nids ? 5 : 4);
            nids++;
        } else if (p[0] == 0x47 && p[1] == 1) { /* 16 bits are decoded */
            assert_true(nports < 6);
            assert_int_equal(table_get(p, 2, 2), ports[nports].port);
            assert_int_equal(table_get(p, 4, 2), ports[nports].port);
            assert_int_equal(p[7], ports[nports++].count);
            p += 7;
        } else if (p[0] == 0x22 && p[3] == 0x79) { /* the last one */
            assert_true(nirqs < 4);
            assert_int_equal(table_get(p, 1, 2), 1u << irqs[nirqs++]);
        }
    }
    assert_int_equal(nports, 6);
    assert_int_equal(nirqs, 4);
    assert_int_equal(nids, 4);
}

/* A keyboard's controller has a second port, too: their lines are 1 and 12. */
static void test_keyboard(void **state) {
    const uint8_t *t, *end;
    unsigned keyboards = 0, mice = 0, lines = 0;

    for (unsigned there = 0; there < 2; there++) {
        with_keyboard = there;
        build(1);
        t = table(table_get(root(0, "FACP"), 40, 4), "DSDT");
        end = t + table_get(t, 4, 4);
        for (const uint8_t *p = t + 36; p < end - 4; p++) {
            keyboards += !memcmp(p, "\x0c\x41\xd0\x03\x03", 5);
            mice += !memcmp(p, "\x0c\x41\xd0\x0f\x13", 5);
            if (p[0] == 0x22 && p[3] == 0x79)
                lines |= (unsigned)table_get(p, 1, 2);
        }
        assert_int_equal(keyboards, there);
        assert_int_equal(mice, there);
        assert_int_equal(lines & 0x1002, there ? 0x1002 : 0);
        assert_int_equal(table_get(root(0, "FACP"), 109, 2) >> 1 & 1, there);
    }
    with_keyboard = false;
}

/* PCI0's routing: each slot's pins, in order, to the link of the line that they are wired
 * to; and all four links. */
static void test_pci(void **state) {
    unsigned entries = 0, links = 0, windows = 0;
    const uint8_t *t, *end;

    with_pci = true;
    build(1);
    t = table(table_get(root(0, "FACP"), 40, 4), "DSDT");
    end = t + table_get(t, 4, 4);
    for (const uint8_t *p = t + 36; p < end - 12; p++) {
        if (p[0] == 0x12 && p[2] == 4 && p[3] == 0x0c) { /* Package (4) { 0xssssffff, */
            unsigned slot = entries / 4 + 1, pin = entries % 4;
            const uint8_t *name = p + (pin < 2 ? 9 : 10);

            assert_int_equal(table_get(p, 4, 4), slot << 16 | 0xffff);
            assert_int_equal(pin < 2 ? p[8] : p[9], pin);
            assert_memory_equal(name, "LNK", 3);
            assert_int_equal(name[3], 'A' + piix_pirq(slot, pin));
            entries++;
        }
        windows += p[0] == 0x87 && p[1] == 0x17 && table_get(p, 10, 4) == 0x12345000 &&
                   table_get(p, 14, 4) == 0xfebfffff;
        links += !memcmp(p, "_PRS", 4);
        windows += p[0] == 0x8a && p[1] == 0x2b && table_get(p, 14, 8) == 1ull << 32 &&
                   table_get(p, 22, 8) == (1ull << 34) - 1;
    }
    assert_int_equal(entries, 31 * 4);
    assert_int_equal(links, 4);
    assert_int_equal(windows, 2);
    t = root(1, "APIC");
    assert_memory_equal(t + table_get(t, 4, 4) - 6 - 20, "\x02\x0a\x00\x0a\x0a\x00", 6);
    with_pci = false;
}

/* The MADT: CPUs, the I/O APIC, the two lines that are not what ISA has, NMI at LINT1. */
static void check_madt(unsigned cpus) {
    unsigned count[5] = {0};
    const uint8_t *t, *e;

    build(cpus);
    t = root(1, "APIC");
    assert_int_equal(table_get(t, 36, 4), LAPIC_BASE);
    assert_int_equal(table_get(t, 40, 4), 1); /* there are 8259s */
    for (e = t + 44; e < t + table_get(t, 4, 4); e += e[1]) {
        assert_in_range(e[0], 0, 4);
        assert_true(e[1]);
        switch (e[0]) {
        case 0:
            assert_int_equal(e[2], count[0]);
            assert_int_equal(e[3], count[0]);
            assert_int_equal(table_get(e, 4, 4), 1);
            break;
        case 1:
            assert_int_equal(table_get(e, 4, 4), IOAPIC_BASE);
            assert_int_equal(table_get(e, 8, 4), 0);
            break;
        case 2:
            assert_int_equal(e[2], 0);
            assert_int_equal(e[3], count[2] ? PM_SCI_IRQ : 0);
            assert_int_equal(table_get(e, 4, 4), count[2] ? PM_SCI_IRQ : 2);
            assert_int_equal(table_get(e, 8, 2), count[2] ? 0x0d : 0);
            break;
        default:
            assert_int_equal(e[0], 4);
            assert_int_equal(e[2], 0xff);
            assert_int_equal(e[5], 1);
            break;
        }
        count[e[0]]++;
    }
    assert_ptr_equal(e, t + table_get(t, 4, 4));
    assert_int_equal(count[0], cpus);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 2);
    assert_int_equal(count[4], 1);
}

static void test_madt(void **state) {
    check_madt(1);
    check_madt(2);
    check_madt(64);
}

static unsigned count_of(const uint8_t *t, const char *bytes, size_t len) {
    unsigned count = 0;

    for (const uint8_t *p = t; p + len <= t + table_get(t, 4, 4); p++)
        count += !memcmp(p, bytes, len);
    return count;
}

/* The device whose drivers go by its compatible ID, where it is, and the event that tells
 * of it. */
static void test_generation(void **state) {
#define COUNT_OF(text) count_of(t, text, sizeof(text) - 1)
    for (unsigned there = 0; there < 2; there++) {
        const uint8_t *t;

        with_generation = there;
        build(1);
        t = table(table_get(root(0, "FACP"), 40, 4), "DSDT");
        assert_int_equal(COUNT_OF("_CID\x0dVM_Gen_Counter\0"), there);
        /* Name (ADDR, Package (2) { 0xfec20000, 0 }) */
        assert_int_equal(COUNT_OF("\x08"
                                  "ADDR\x12\x08\x02\x0c\0\0\xc2\xfe\0"),
                         there);
        /* Method (_E05) { Notify (\_SB.VGEN, 0x80) } */
        assert_int_equal(COUNT_OF("_E05\0\x86\\\x2e_SB_VGEN\x0a\x80"), there);
    }
    with_generation = false;
#undef COUNT_OF
}

static void test_refusals(void **state) {
    struct acpi_config cfg = {.cpus = 0};
    struct gpa rsdp;

    assert_int_equal(acpi_build(table_mem, gpa(ACPI_WHERE), &cfg, &rsdp, NULL), -EINVAL);
    cfg.cpus = 65;
    assert_int_equal(acpi_build(table_mem, gpa(ACPI_WHERE), &cfg, &rsdp, NULL), -EINVAL);
    cfg.cpus = 1;
    assert_int_equal(acpi_build(table_mem, gpa(ACPI_WHERE + 32), &cfg, &rsdp, NULL),
                     -EINVAL);
    assert_int_equal(acpi_build(table_mem, gpa(0xffffffc0), &cfg, &rsdp, NULL), -EINVAL);
    assert_int_equal(acpi_build(table_mem, gpa(0xd0000000), &cfg, &rsdp, NULL), -EFAULT);
    assert_int_equal(acpi_build(table_mem, gpa(ACPI_WHERE), &cfg, &rsdp, NULL), 0);
}

/* What iasl says of the table T. */
static void disassemble(const char *dir, const uint8_t *t) {
    char command[256], path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%.4s.dat", dir, (const char *)t);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(t, 1, table_get(t, 4, 4), f), table_get(t, 4, 4));
    fclose(f);
    snprintf(command, sizeof(command), "cd %s && iasl -d %.4s.dat >/dev/null 2>&1", dir,
             (const char *)t);
    assert_int_equal(system(command), 0);
}

static void test_iasl(void **state) {
    char dir[] = "/tmp/bivisor-acpi.XXXXXX", command[64];
    const uint8_t *fadt;

    if (system("command -v iasl >/dev/null 2>&1")) {
        print_message("iasl is not installed; the tables were only read\n");
        return;
    }
    with_pci = with_generation = true;
    build(2);
    with_pci = with_generation = false;
    assert_non_null(mkdtemp(dir));
    fadt = root(0, "FACP");
    disassemble(dir, fadt);
    disassemble(dir, root(1, "APIC"));
    disassemble(dir, table(table_get(fadt, 40, 4), "DSDT"));
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root),       cmocka_unit_test(test_fadt),
        cmocka_unit_test(test_dsdt),       cmocka_unit_test(test_madt),
        cmocka_unit_test(test_pci),        cmocka_unit_test(test_keyboard),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_iasl),
        cmocka_unit_test(test_generation),
    };

    return cmocka_run_group_tests(tests, table_setup, table_teardown);
}
