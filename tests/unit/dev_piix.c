/*
 * The bridges by themselves: what PAM makes of memory below 1 MiB, how PCI's lines come
 * to ISA's, where the power management ports and the SMBus are; and what is set up where
 * there is no firmware.
 */
#include "dev/pci/piix.h"

#include "dev/pci/i440fx.h"
#include "dev/pci/setup.h"
#include "lib/rig.h"
#include "lib/tables.h"
#include "lib/unit.h"

enum { ROM = 0xe0000, ROM_SIZE = 0x20000 };

static struct rig r;
static struct pci *pci;
static struct i440fx *bridge;
static struct piix *piix;
static struct pm *pm;
static struct pci_function card[3];
static bool line[16];
static unsigned moves;
static bool configured;

static void on_irq(void *arg, unsigned n, bool level) {
    assert_int_not_equal(line[n], level);
    line[n] = level;
    moves++;
}

static void on_intx(void *arg, unsigned slot, unsigned pin, bool level) {
    piix_intx(piix, slot, pin, level);
}

static const struct pci_identity identity = {.vendor = 0x1234, .device = 1};
static const unsigned slots[] = {3, 4, 7};

static void make(void) {
    struct pci_host host = {.intx = on_intx};
    struct piix_host to = {.isa_irq = on_irq};
    struct irq_line sci = {.set = NULL};

    rig_new(&r);
    mem_reset(table_mem);
    memset(line, 0, sizeof(line));
    memset(card, 0, sizeof(card));
    moves = 0;
    pm = pm_new(r.bus, r.clock, sci, &r.host);
    pci = pci_new(r.bus, &host);
    bridge = i440fx_new(pci, table_mem, configured);
    piix = piix_new(pci, pm, &to, configured);
    assert_true(pm && pci && bridge && piix);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(pci_add(pci, &card[n], slots[n], 0, "card", &identity, NULL), 0);
        pci_use_intx(&card[n], 0);
    }
    pci_reset(pci);
}

static int setup(void **state) {
    configured = false;
    make();
    return 0;
}

static int setup_configured(void **state) {
    configured = true;
    make();
    return 0;
}

static int teardown(void **state) {
    for (unsigned n = 0; n < 3; n++)
        pci_remove(&card[n]);
    piix_free(piix);
    i440fx_free(bridge);
    pci_free(pci);
    pm_free(pm);
    rig_free(&r);
    return 0;
}

static void put(unsigned slot, unsigned number, unsigned at, unsigned value) {
    rig_out32(&r, 0xcf8, 0x80000000u | slot << 11 | number << 8 | (at & 0xfc));
    rig_out(&r, 0xcfc + (at & 3), value);
}

static unsigned get(unsigned slot, unsigned number, unsigned at) {
    rig_out32(&r, 0xcf8, 0x80000000u | slot << 11 | number << 8 | (at & 0xfc));
    return rig_in(&r, 0xcfc + (at & 3));
}

static unsigned kind(uint64_t at) {
    return mem_kind_at(table_mem, gpa(at));
}

static unsigned byte(uint64_t at) {
    uint8_t b = 0xee;

    mem_read(table_mem, gpa(at), &b, 1);
    return b;
}

/* --- the host bridge --- */

/* Each area by itself: which register and half, where it is. */
static void test_pam(void **state) {
    static const enum mem_kind kinds[] = {MEM_NONE, MEM_ROM, MEM_RAM, MEM_RAM};

    for (uint64_t at = 0xc0000; at < 0x100000; at += 0x1000)
        assert_int_equal(kind(at), MEM_NONE);
    assert_int_equal(kind(0xbf000), MEM_RAM);
    assert_int_equal(kind(0x100000), MEM_RAM);
    for (unsigned n = 1; n < 14; n++) {
        uint64_t start = n == 1 ? 0xf0000 : 0xc0000 + (n - 2) * 0x4000u;
        uint64_t end = start + (n == 1 ? 0x10000 : 0x4000);
        unsigned reg = I440FX_PAM + n / 2, shift = n % 2 * 4;

        for (unsigned bits = 0; bits < 4; bits++) {
            put(0, 0, reg, bits << shift);
            for (uint64_t at = 0xc0000; at < 0x100000; at += 0x1000)
                assert_int_equal(kind(at),
                                 at >= start && at < end ? kinds[bits] : MEM_NONE);
        }
        put(0, 0, reg, 0xcc); /* reserved bits */
        assert_int_equal(get(0, 0, reg), 0);
    }
}

/* As firmware does it: it runs in the ROM, copies itself into the RAM there, locks it. */
static void test_shadow(void **state) {
    struct mem_region *rom;
    uint8_t *bytes;

    assert_int_equal(mem_region_add(table_mem, gpa(ROM), ROM_SIZE, MEM_ROM, &rom), 0);
    bytes = mem_region_host(table_mem, rom);
    for (unsigned i = 0; i < ROM_SIZE; i++)
        bytes[i] = (uint8_t)(i / 0x1000 + 1);
    assert_int_equal(byte(0xf1000), 0x12);
    put(0, 0, I440FX_PAM, 0x20); /* writes alone: what was seen is seen on */
    assert_int_equal(byte(0xf1000), 0x12);
    assert_true(mem_write(table_mem, gpa(0xf1000), "x", 1));
    put(0, 0, I440FX_PAM, 0x30);
    assert_int_equal(byte(0xf1000), 'x');
    assert_int_equal(byte(0xf2000), 0x13);
    put(0, 0, I440FX_PAM, 0x10);
    assert_int_equal(kind(0xf1000), MEM_ROM);
    assert_int_equal(byte(0xf1000), 'x');
    assert_false(mem_write(table_mem, gpa(0xf1000), "y", 1));
    put(0, 0, I440FX_PAM, 0);
    assert_int_equal(byte(0xf1000), 0x12);
    assert_int_equal(byte(0xe0000), 1);
    mem_reset(table_mem);
    pci_reset(pci);
    assert_int_equal(byte(0xf1000), 0x12);
    mem_region_remove(table_mem, rom);
}

static void test_smram(void **state) {
    assert_int_equal(get(0, 0, I440FX_SMRAM), 0x02);
    put(0, 0, I440FX_SMRAM, 0xff & ~0x10u);
    assert_int_equal(get(0, 0, I440FX_SMRAM), 0x6a);
    put(0, 0, I440FX_SMRAM, 0x5a); /* locked: closed, and for good */
    assert_int_equal(get(0, 0, I440FX_SMRAM), 0x1a);
    put(0, 0, I440FX_SMRAM, 0x40);
    assert_int_equal(get(0, 0, I440FX_SMRAM), 0x1a);
    pci_reset(pci);
    put(0, 0, I440FX_SMRAM, 0x40);
    assert_int_equal(get(0, 0, I440FX_SMRAM), 0x42);
}

static void test_pam_configured(void **state) {
    assert_int_equal(get(0, 0, I440FX_PAM), 0x30);
    for (unsigned n = 1; n < 7; n++)
        assert_int_equal(get(0, 0, I440FX_PAM + n), 0x33);
    for (uint64_t at = 0xc0000; at < 0x100000; at += 0x1000)
        assert_int_equal(kind(at), MEM_RAM);
}

/* --- interrupts --- */

static void test_routing(void **state) {
    pci_irq(&card[0], true); /* not led anywhere */
    assert_int_equal(moves, 0);
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 11);
    assert_true(line[11]);
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 5);
    assert_false(line[11]);
    assert_true(line[5]);
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 0x85);
    assert_false(line[5]);
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 8); /* the clock's is its own */
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 0);
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 13);
    assert_int_equal(moves, 4);
    pci_irq(&card[0], false);
    put(1, 0, PIIX_ROUTE, 0xff);
    assert_int_equal(get(1, 0, PIIX_ROUTE), 0x8f);
}

/* Slots 3 and 7 share a PIRQ; 4's is led to the same ISA line. */
static void test_sharing(void **state) {
    assert_int_equal(piix_pirq(3, 0), piix_pirq(7, 0));
    assert_int_not_equal(piix_pirq(3, 0), piix_pirq(4, 0));
    assert_int_equal(piix_pirq(3, 1), piix_pirq(4, 0));
    put(1, 0, PIIX_ROUTE + piix_pirq(3, 0), 10);
    put(1, 0, PIIX_ROUTE + piix_pirq(4, 0), 10);
    for (unsigned n = 0; n < 3; n++)
        pci_irq(&card[n], true);
    assert_int_equal(moves, 1);
    pci_irq(&card[0], false);
    pci_irq(&card[1], false);
    assert_true(line[10]);
    pci_irq(&card[2], false);
    assert_false(line[10]);
    pci_irq(&card[1], true);
    pci_reset(pci);
    assert_false(line[10]);
    assert_int_equal(moves, 4);
}

/* --- power management --- */

static void test_pm_ports(void **state) {
    rig_pass(&r, 1000000);
    assert_int_equal(rig_in(&r, 0xb005), 0xff);
    put(1, 3, PIIX_PM_BASE, 0xff);
    put(1, 3, PIIX_PM_BASE + 1, 0xb0);
    assert_int_equal(get(1, 3, PIIX_PM_BASE), 0xc1);
    put(1, 3, PIIX_PM_BASE, 0);
    assert_int_equal(rig_in16(&r, 0xb004), 0xffff); /* not on */
    put(1, 3, PIIX_PM_ENABLE, 1);
    rig_out16(&r, 0xb004, 2);
    assert_int_equal(rig_in16(&r, 0xb004), 2);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 2); /* always there as well */
    assert_int_equal(rig_in32(&r, 0xb008), rig_in32(&r, PM_TMR_PORT));
    put(1, 3, PIIX_PM_BASE + 1, 0x06);
    assert_int_equal(rig_in16(&r, 0xb004), 0xffff);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 2);
    put(1, 3, PIIX_PM_ENABLE, 0);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 2);
    assert_int_equal(get(1, 3, 0x5b) & 2, 2); /* SMIs of port 0xb2 are on */
}

/* Nobody acknowledges on the SMBus. */
static void test_smbus(void **state) {
    put(1, 3, PIIX_SMB_BASE + 1, 0x07);
    put(1, 3, 0xd2, 9);
    assert_int_equal(rig_in(&r, 0x700), 0xff);
    put(1, 3, PCI_COMMAND, PCI_COMMAND_IO);
    assert_int_equal(rig_in(&r, 0x700), 0);
    rig_out(&r, 0x704, 0xa1);
    assert_int_equal(rig_in(&r, 0x704), 0xa1);
    rig_out(&r, 0x702, 0x48);
    assert_int_equal(rig_in(&r, 0x702), 0x08);
    assert_int_equal(rig_in(&r, 0x700), 0x04);
    rig_out(&r, 0x700, 0x04);
    assert_int_equal(rig_in(&r, 0x700), 0);
    pci_reset(pci);
    assert_int_equal(rig_in(&r, 0x700), 0xff);
}

/* --- set up without firmware --- */

static uint64_t nothing_read(void *dev, uint64_t addr, unsigned size) {
    return 0x11223344;
}

static void nothing_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
}

static const struct bus_ops nothing = {.read = nothing_read, .write = nothing_write};

static void test_setup(void **state) {
    static const unsigned lines[] = {PCI_IRQ_CD, PCI_IRQ_CD, PCI_IRQ_CD};

    assert_int_equal(pci_add_bar(&card[0], 0, PCI_BAR_IO, 32, &nothing, NULL), 0);
    assert_int_equal(pci_add_bar(&card[0], 1, PCI_BAR_MMIO32, 4096, &nothing, NULL), 0);
    assert_int_equal(pci_add_bar(&card[1], 2, PCI_BAR_MMIO64, 1 << 20, &nothing, NULL),
                     0);
    assert_int_equal(pci_add_bar(&card[1], 0, PCI_BAR_IO, 256, &nothing, NULL), 0);
    assert_int_equal(pci_add_bar(&card[2], 0, PCI_BAR_MMIO32, 1u << 30, NULL, NULL), 0);
    assert_int_equal(pci_add_bar(&card[2], 1, PCI_BAR_IO, 4, &nothing, NULL), 0);
    pci_setup(pci);
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(card[n].config[PCI_INTERRUPT_LINE], lines[n]);
    for (unsigned n = 0; n < 2; n++) {
        assert_int_equal(pci_config(&card[n], PCI_COMMAND, 2),
                         PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
        assert_true(card[n].bar[0].on);
        assert_in_range(card[n].bar[0].addr, PCI_IO_WINDOW, PCI_IO_WINDOW_END);
        assert_int_equal(card[n].bar[0].addr % card[n].bar[0].size, 0);
        assert_in_range(card[n].bar[n + 1].addr, PCI_MMIO_WINDOW, PCI_MMIO_WINDOW_END);
        assert_int_equal(rig_in32(&r, (unsigned)card[n].bar[0].addr), 0x11223344);
        assert_int_equal(rig_read(&r, card[n].bar[n + 1].addr), 0x11223344);
    }
    /* There is no room for this one; the rest of it works. */
    assert_int_equal(pci_config(&card[2], PCI_COMMAND, 2), PCI_COMMAND_IO);
    assert_int_equal(get(1, 0, PIIX_ROUTE), PCI_IRQ_AB);
    assert_int_equal(get(1, 0, PIIX_ROUTE + 3), PCI_IRQ_CD);
    pci_irq(&card[0], true);
    assert_true(line[PCI_IRQ_CD]);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_pam),
        T(test_shadow),
        T(test_smram),
        cmocka_unit_test_setup_teardown(test_pam_configured, setup_configured, teardown),
        T(test_routing),
        T(test_sharing),
        T(test_pm_ports),
        T(test_smbus),
        T(test_setup),
    };

    return cmocka_run_group_tests(tests, table_setup, table_teardown);
}
