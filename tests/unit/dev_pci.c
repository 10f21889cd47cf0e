/*
 * PCI by itself: configuration mechanism 1, headers and capabilities, bars that the guest
 * sizes and moves, INTx, MSI and MSI-X with what is masked; and a guest that writes
 * anything anywhere.
 */
#include "dev/pci/pci.h"
#include "lib/rig.h"
#include "lib/rnd.h"
#include "lib/unit.h"

#include <errno.h>

enum { ADDRESS = 0xcf8, DATA = 0xcfc };
enum { SLOT = 3, IO = 0, MMIO = 1, WIDE = 2, MSIX_BAR = 4 };
enum { VECTORS = 10 };

/* A device with one of everything. */
struct thing {
    struct pci_function pci;
    unsigned reads, writes, resets, config_reads, config_writes;
    uint64_t at, value;
};

static struct rig r;
static struct pci *pci;
static struct thing thing;
static bool pin[PCI_SLOTS][4];
static unsigned messages;
static uint64_t msg_addr;
static uint32_t msg_data;
static unsigned other_reads, other_writes;

static void on_intx(void *arg, unsigned slot, unsigned n, bool level) {
    assert_true(n < 4);
    assert_int_not_equal(pin[slot][n], level);
    pin[slot][n] = level;
}

static void on_msi(void *arg, uint64_t addr, uint32_t data) {
    messages++;
    msg_addr = addr;
    msg_data = data;
}

static uint64_t thing_read(void *dev, uint64_t addr, unsigned size) {
    struct thing *t = dev;

    t->reads++;
    t->at = addr;
    return 0x1122334455667788ull;
}

static void thing_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct thing *t = dev;

    t->writes++;
    t->at = addr;
    t->value = value;
}

static const struct bus_ops thing_ops = {.read = thing_read, .write = thing_write};

static uint64_t other_read(void *dev, uint64_t addr, unsigned size) {
    other_reads++;
    return 0x40 + addr;
}

static void other_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    other_writes++;
}

static const struct bus_ops other_ops = {.read = other_read, .write = other_write};

static void on_config_read(struct pci_function *f, unsigned at, unsigned size) {
    ((struct thing *)f)->config_reads++;
}

static void on_config_written(struct pci_function *f, unsigned at, unsigned size) {
    ((struct thing *)f)->config_writes++;
}

static void on_reset(struct pci_function *f) {
    ((struct thing *)f)->resets++;
}

static const struct pci_ops ops = {.config_read = on_config_read,
                                   .config_written = on_config_written,
                                   .reset = on_reset};
static const struct pci_identity identity = {.vendor = 0x1af4,
                                             .device = 0x1042,
                                             .sub_vendor = 0x1234,
                                             .sub_device = 0x5678,
                                             .class = 0x018003,
                                             .revision = 7};
static const uint8_t rom[3000] = {0x55, 0xaa, 6};

static int setup(void **state) {
    struct pci_host host = {
        .intx = on_intx, .msi = on_msi, .not_pci = &other_ops, .not_pci_dev = &r};

    rig_new(&r);
    memset(pin, 0, sizeof(pin));
    messages = other_reads = other_writes = 0;
    thing = (struct thing){.reads = 0};
    pci = pci_new(r.bus, &host);
    if (!pci || pci_add(pci, &thing.pci, SLOT, 0, "thing", &identity, &ops) ||
        pci_add_bar(&thing.pci, IO, PCI_BAR_IO, 32, &thing_ops, &thing) ||
        pci_add_bar(&thing.pci, MMIO, PCI_BAR_MMIO32, 0x1000, &thing_ops, &thing) ||
        pci_add_bar(&thing.pci, WIDE, PCI_BAR_MMIO64, 0x4000, &thing_ops, &thing) ||
        pci_add_rom(&thing.pci, rom, sizeof(rom)) || pci_add_pm(&thing.pci) ||
        pci_add_msi(&thing.pci, 4) || pci_add_msix(&thing.pci, MSIX_BAR, VECTORS))
        return -1;
    pci_bar_prefetchable(&thing.pci, WIDE);
    pci_use_intx(&thing.pci, 1);
    return 0;
}

static int teardown(void **state) {
    pci_remove(&thing.pci);
    pci_remove(&thing.pci);
    pci_free(pci);
    rig_free(&r);
    return 0;
}

static void select_at(unsigned bus, unsigned slot, unsigned number, unsigned at) {
    rig_out32(&r, ADDRESS,
              0x80000000u | bus << 16 | slot << 11 | number << 8 | (at & 0xfc));
}

static uint32_t get(unsigned at) {
    select_at(0, SLOT, 0, at);
    return rig_in32(&r, DATA);
}

static void put(unsigned at, uint32_t value) {
    select_at(0, SLOT, 0, at);
    rig_out32(&r, DATA, value);
}

static void put16(unsigned at, uint32_t value) {
    select_at(0, SLOT, 0, at);
    rig_out16(&r, DATA + (at & 2), value);
}

static unsigned get16(unsigned at) {
    select_at(0, SLOT, 0, at);
    return rig_in16(&r, DATA + (at & 2));
}

/* --- mechanism 1 --- */

static void test_mechanism(void **state) {
    assert_int_equal(rig_in32(&r, DATA), 0xffffffff); /* not enabled */
    assert_int_equal(get(PCI_VENDOR), 0x10421af4);
    assert_int_equal(rig_in32(&r, ADDRESS), 0x80000000u | SLOT << 11);
    rig_out32(&r, ADDRESS, 0xffffffff); /* reserved bits are 0 */
    assert_int_equal(rig_in32(&r, ADDRESS), 0x80fffffc);
    assert_int_equal(get(PCI_REVISION), 0x01800307);
    assert_int_equal(rig_in(&r, DATA + 1), 0x03);
    assert_int_equal(rig_in16(&r, DATA + 2), 0x0180);
    assert_int_equal(rig_in16(&r, DATA + 1), 0x8003); /* within its doubleword */
    assert_int_equal(get(PCI_SUB_VENDOR), 0x56781234);
    rig_out32(&r, ADDRESS, SLOT << 11); /* bit 31 clear: I/O that is nobody's */
    assert_int_equal(rig_in32(&r, DATA), 0xffffffff);
    assert_int_equal(thing.config_reads, 6);
}

static void test_nobody(void **state) {
    static const struct {
        unsigned bus, slot, number;
    } none[] = {{0, 2, 0}, {0, 31, 7}, {0, SLOT, 1}, {1, SLOT, 0}, {255, SLOT, 0}};

    for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        select_at(none[i].bus, none[i].slot, none[i].number, 0);
        assert_int_equal(rig_in32(&r, DATA), 0xffffffff);
        rig_out32(&r, DATA, 0);
        assert_int_equal(rig_in32(&r, DATA), 0xffffffff);
    }
    assert_int_equal(get(PCI_VENDOR), 0x10421af4);
}

/* Bytes and words at 0xcf8 are not PCI's, and change nothing of it. */
static void test_not_pci(void **state) {
    uint32_t before;

    get(PCI_VENDOR);
    before = rig_in32(&r, ADDRESS);
    assert_int_equal(rig_in(&r, ADDRESS + 1), 0x41);
    rig_out(&r, ADDRESS + 1, 6);
    rig_out16(&r, ADDRESS, 6);
    assert_int_equal(other_reads, 1);
    assert_int_equal(other_writes, 2);
    assert_int_equal(rig_in32(&r, ADDRESS), before);
}

static void test_places(void **state) {
    struct pci_function a = {.pci = NULL}, b = {.pci = NULL};

    assert_int_equal(pci_add(pci, &a, 32, 0, "a", &identity, NULL), -EINVAL);
    assert_int_equal(pci_add(pci, &a, 0, 8, "a", &identity, NULL), -EINVAL);
    assert_int_equal(pci_add(pci, &a, SLOT, 0, "a", &identity, NULL), -EBUSY);
    assert_int_equal(pci_add(pci, &a, 5, 1, "a", &identity, NULL), -EINVAL);
    assert_int_equal(pci_add(pci, &a, 5, 0, "a", &identity, NULL), 0);
    assert_int_equal(pci_config(&a, PCI_HEADER_TYPE, 1), 0);
    assert_int_equal(pci_add(pci, &b, 5, 3, "b", &identity, NULL), 0);
    assert_int_equal(pci_config(&a, PCI_HEADER_TYPE, 1), 0x80);
    assert_ptr_equal(pci_at(pci, 5, 3), &b);
    assert_int_equal(pci_add_bar(&a, 0, PCI_BAR_MMIO32, 24, NULL, NULL), -EINVAL);
    assert_int_equal(pci_add_bar(&a, 0, PCI_BAR_MMIO32, 8, NULL, NULL), -EINVAL);
    assert_int_equal(pci_add_bar(&a, 5, PCI_BAR_MMIO64, 4096, NULL, NULL), -EINVAL);
    assert_int_equal(pci_add_bar(&a, 0, PCI_BAR_IO, 512, NULL, NULL), -EINVAL);
    assert_int_equal(pci_add_bar(&a, 0, PCI_BAR_MMIO64, 4096, NULL, NULL), 0);
    assert_int_equal(pci_add_bar(&a, 1, PCI_BAR_MMIO32, 4096, NULL, NULL), -EINVAL);
    assert_int_equal(pci_add_msix(&a, 2, 2049), -EINVAL);
    assert_int_equal(pci_add_msix(&a, 2, 2048), 0);
    assert_int_equal(a.bar[2].size, 2 * 2048 * 16);
    assert_int_equal(pci_add_msi(&a, 3), -EINVAL);
    assert_int_equal(pci_add_capability(&a, PCI_CAP_VENDOR, 255), 0);
    pci_remove(&b);
    pci_remove(&a);
    assert_null(pci_at(pci, 5, 0));
}

/* --- the header --- */

static void test_read_only(void **state) {
    uint32_t before[64];

    for (unsigned at = 0; at < 0x100; at += 4)
        before[at / 4] = get(at);
    put(PCI_VENDOR, ~0u);
    put(PCI_REVISION, ~0u);
    put(PCI_SUB_VENDOR, ~0u);
    put(PCI_CAPABILITIES, ~0u);
    put(0xf0, ~0u);
    put(0x28, ~0u);
    put(PCI_COMMAND, ~0u);
    assert_int_equal(get(PCI_COMMAND), 0x00100547); /* what there is of it */
    put(PCI_COMMAND, 0);
    put(PCI_INTERRUPT_LINE, ~0u);
    assert_int_equal(get(PCI_INTERRUPT_LINE), 0x02ff);
    put(PCI_INTERRUPT_LINE, 0);
    for (unsigned at = 0; at < 0x100; at += 4)
        assert_int_equal(get(at), before[at / 4]);
}

static void test_capabilities(void **state) {
    static const uint8_t ids[] = {PCI_CAP_PM, PCI_CAP_MSI, PCI_CAP_MSIX};
    unsigned at = get(PCI_CAPABILITIES) & 0xff, n = 0;

    assert_true(get16(PCI_STATUS) & PCI_STATUS_CAPABILITIES);
    for (; at; at = get16(at) >> 8, n++) {
        assert_true(n < sizeof(ids) && at >= PCI_OWN && !(at & 3));
        assert_int_equal(get16(at) & 0xff, ids[n]);
    }
    assert_int_equal(n, sizeof(ids));
}

static void test_clearable(void **state) {
    pci_define(&thing.pci, 0xe0, 2, 0x0ff0, 0x000f);
    pci_define_clearable(&thing.pci, 0xe0, 2, 0x0f00);
    put16(0xe0, 0x0505);
    assert_int_equal(get16(0xe0), 0x0af5);
}

/* --- bars --- */

static void test_sizes(void **state) {
    static const struct {
        unsigned at;
        uint32_t mask;
    } bars[] = {{0x10, 0xffffffe1},   {0x14, 0xfffff000}, {0x18, 0xffffc00c},
                {0x1c, 0xffffffff},   {0x20, 0xfffff000}, {0x24, 0},
                {PCI_ROM, 0xfffff001}};

    for (unsigned i = 0; i < sizeof(bars) / sizeof(bars[0]); i++) {
        uint32_t before = get(bars[i].at);

        put(bars[i].at, ~0u);
        assert_int_equal(get(bars[i].at), bars[i].mask);
        put(bars[i].at, before);
        assert_int_equal(get(bars[i].at), before);
    }
}

static void test_move(void **state) {
    put(0x10, 0xc000);
    put(0x14, 0xe0000000);
    assert_int_equal(rig_in(&r, 0xc004), 0xff);
    assert_int_equal(thing.reads, 0);
    put16(PCI_COMMAND, PCI_COMMAND_IO);
    assert_int_equal(rig_in(&r, 0xc004), 0x88);
    assert_int_equal(thing.at, 4);
    assert_int_equal(rig_read(&r, 0xe0000ffc), 0xffffffff);
    put16(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    assert_int_equal(rig_read(&r, 0xe0000ffc), 0x55667788);
    assert_int_equal(thing.at, 0xffc);
    put(0x14, 0xe1000000);
    assert_int_equal(rig_read(&r, 0xe0000ffc), 0xffffffff);
    assert_int_equal(rig_read(&r, 0xe1000000), 0x55667788);
    put(0x10, 0xd000);
    assert_int_equal(rig_in(&r, 0xc004), 0xff);
    assert_int_equal(rig_in(&r, 0xd004), 0x88);
    put(0x10, 0x1d000); /* there are no such ports */
    assert_int_equal(rig_in(&r, 0xd004), 0xff);
    put16(PCI_COMMAND, 0);
    assert_int_equal(rig_read(&r, 0xe1000000), 0xffffffff);
}

static void test_wide(void **state) {
    uint64_t value;

    put(0x18, 0x40000000);
    put(0x1c, 0x8);
    put16(PCI_COMMAND, PCI_COMMAND_MEMORY);
    value = bus_mmio_read(r.bus, gpa(0x840000010ull), 8);
    assert_true(value == 0x1122334455667788ull);
    assert_int_equal(thing.at, 0x10);
    put(0x1c, 0xffffffff); /* as while it is sized */
    put(0x18, 0xffffffff);
    assert_int_equal(rig_read(&r, 0x40000010), 0xffffffff);
    value = bus_mmio_read(r.bus, gpa(~0ull - 7), 8);
    assert_true(value == 0x1122334455667788ull);
}

static void test_rom(void **state) {
    put(PCI_ROM, 0xd0000000);
    put16(PCI_COMMAND, PCI_COMMAND_MEMORY);
    assert_int_equal(rig_read(&r, 0xd0000000), 0xffffffff);
    put(PCI_ROM, 0xd0000001);
    assert_int_equal(rig_read(&r, 0xd0000000), 0x0006aa55);
    rig_write(&r, 0xd0000000, 0);
    assert_int_equal(rig_read(&r, 0xd0000000), 0x0006aa55);
    assert_int_equal(rig_read(&r, 0xd0000ffc), 0xffffffff); /* behind its end */
    assert_int_equal(rig_read(&r, 0xd0000bb4), 0);
    put16(PCI_COMMAND, 0);
    assert_int_equal(rig_read(&r, 0xd0000000), 0xffffffff);
}

/* In D3hot it answers nothing but configuration. */
static void test_power(void **state) {
    unsigned pm = thing.pci.pm;

    put(0x14, 0xe0000000);
    put16(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_true(pci_bus_master(&thing.pci));
    put16(pm + 4, 3);
    assert_false(pci_bus_master(&thing.pci));
    assert_int_equal(rig_read(&r, 0xe0000000), 0xffffffff);
    put16(pm + 4, 0);
    assert_int_equal(rig_read(&r, 0xe0000000), 0x55667788);
    assert_true(pci_bus_master(&thing.pci));
}

/* --- interrupts --- */

static void test_intx(void **state) {
    struct irq_line line = pci_irq_line(&thing.pci);

    irq_set(&line, true);
    assert_true(pin[SLOT][1]);
    assert_true(get16(PCI_STATUS) & PCI_STATUS_INTX);
    put16(PCI_COMMAND, PCI_COMMAND_NO_INTX);
    assert_false(pin[SLOT][1]);
    assert_true(get16(PCI_STATUS) & PCI_STATUS_INTX);
    put16(PCI_COMMAND, 0);
    assert_true(pin[SLOT][1]);
    put16(thing.pci.msix + 2, 0x8000);
    assert_false(pin[SLOT][1]);
    put16(thing.pci.msix + 2, 0);
    assert_true(pin[SLOT][1]);
    irq_set(&line, false);
    assert_false(pin[SLOT][1]);
    assert_false(get16(PCI_STATUS) & PCI_STATUS_INTX);
    irq_set(&line, true);
    pci_reset(pci);
    assert_false(pin[SLOT][1]);
}

static void test_msi(void **state) {
    unsigned at = thing.pci.msi;

    put16(PCI_COMMAND, PCI_COMMAND_MASTER);
    pci_msi_raise(&thing.pci, 0);
    assert_int_equal(messages, 0);
    put(at + 4, 0xfee01003);
    put(at + 8, 1);
    put(at + 12, 0x4033);
    put16(at + 2, 1); /* on, one vector: all are that one */
    pci_msi_raise(&thing.pci, 3);
    assert_int_equal(messages, 1);
    assert_true(msg_addr == 0x1fee01000ull);
    assert_int_equal(msg_data, 0x4033);
    put16(at + 2, 7 << 4 | 1); /* more than it has */
    pci_msi_raise(&thing.pci, 2);
    assert_int_equal(msg_data, 0x4032);
    put(at + 16, 1 << 2);
    pci_msi_raise(&thing.pci, 2);
    pci_msi_raise(&thing.pci, 2);
    assert_int_equal(messages, 2);
    assert_int_equal(get(at + 20), 1 << 2);
    put(at + 20, 0); /* read-only */
    assert_int_equal(get(at + 20), 1 << 2);
    put(at + 16, 0);
    assert_int_equal(messages, 3);
    assert_int_equal(get(at + 20), 0);
    pci_msi_raise(&thing.pci, 99);
    assert_int_equal(messages, 3);
}

enum { TABLE = 0xe2000000, ENTRY = 16, PENDING = TABLE + 0x800 };

static void msix_on(void) {
    put(0x10 + 4 * MSIX_BAR, TABLE);
    put16(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    for (unsigned n = 0; n < VECTORS; n++) {
        assert_int_equal(rig_read(&r, TABLE + n * ENTRY + 12), 1);
        rig_write(&r, TABLE + n * ENTRY, 0xfee00000 + n * 0x1000);
        rig_write(&r, TABLE + n * ENTRY + 8, 0x40 + n);
        rig_write(&r, TABLE + n * ENTRY + 12, 0xfffffffe);
        assert_int_equal(rig_read(&r, TABLE + n * ENTRY + 12), 0);
    }
}

static void test_msix(void **state) {
    unsigned control = thing.pci.msix + 2;

    assert_int_equal(get16(control), VECTORS - 1);
    assert_int_equal(get(control + 2), MSIX_BAR);
    assert_int_equal(get(control + 6), 0x800 | MSIX_BAR);
    msix_on();
    pci_msix_raise(&thing.pci, 3);
    assert_int_equal(messages, 0); /* not on */
    put16(control, 0x8000);
    pci_msix_raise(&thing.pci, 3);
    assert_int_equal(messages, 1);
    assert_true(msg_addr == 0xfee03000);
    assert_int_equal(msg_data, 0x43);
    pci_msix_raise(&thing.pci, VECTORS);
    pci_msix_raise(&thing.pci, ~0u);
    assert_int_equal(messages, 1);
    bus_mmio_write(r.bus, gpa(TABLE + 9 * ENTRY + 8), 8, 0x77); /* a quadword */
    pci_msix_raise(&thing.pci, 9);
    assert_int_equal(msg_data, 0x77);
    assert_int_equal(rig_read(&r, TABLE + VECTORS * ENTRY), 0); /* no such entry */
    rig_write(&r, TABLE + VECTORS * ENTRY, 1);
    rig_write(&r, TABLE + 0xffc, 1);
    pci_reset(pci);
    assert_false(pci_msix_enabled(&thing.pci));
    assert_true(pci_msix_masked(&thing.pci, 3));
}

/* A masked vector waits, whatever masks it, and goes once. */
static void test_msix_masks(void **state) {
    unsigned control = thing.pci.msix + 2;

    msix_on();
    put16(control, 0x8000);
    rig_write(&r, TABLE + 9 * ENTRY + 12, 1);
    assert_true(pci_msix_masked(&thing.pci, 9));
    pci_msix_raise(&thing.pci, 9);
    pci_msix_raise(&thing.pci, 9);
    assert_int_equal(rig_read(&r, PENDING), 1 << 9);
    rig_write(&r, PENDING, 0);
    assert_int_equal(messages, 0);
    rig_write(&r, TABLE + 9 * ENTRY + 12, 0);
    assert_int_equal(messages, 1);
    assert_int_equal(rig_read(&r, PENDING), 0);
    put16(control, 0xc000); /* all of them */
    pci_msix_raise(&thing.pci, 0);
    assert_int_equal(messages, 1);
    put16(control, 0x8000);
    assert_int_equal(messages, 2);
    put16(PCI_COMMAND, PCI_COMMAND_MEMORY); /* it may not write */
    pci_msix_raise(&thing.pci, 1);
    assert_int_equal(messages, 2);
    put16(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(messages, 3);
    assert_int_equal(msg_data, 0x41);
}

/* --- reset; anything --- */

static void test_reset(void **state) {
    uint32_t before[64];

    for (unsigned at = 0; at < 0x100; at += 4)
        before[at / 4] = get(at);
    for (unsigned at = 0; at < 0x100; at += 4)
        put(at, 0xa5a5a5a5);
    pci_reset(pci);
    assert_int_equal(thing.resets, 1);
    assert_int_equal(rig_in32(&r, ADDRESS), 0);
    for (unsigned at = 0; at < 0x100; at += 4)
        assert_int_equal(get(at), before[at / 4]);
    assert_int_equal(rig_read(&r, 0xa5a5a000), 0xffffffff);
}

/* Any access of any size anywhere near, any value: what is read-only stays. */
static void test_hostile(void **state) {
    rnd_seed(1);
    for (unsigned n = 0; n < 200000; n++) {
        unsigned port = ADDRESS - 2 + (unsigned)(rnd() % 12);
        unsigned size = 1u << pick(3);
        uint32_t value = (uint32_t)rnd();

        if (rnd() % 2)
            select_at(0, SLOT, 0, (unsigned)rnd());
        if (rnd() % 2)
            bus_pio_write(r.bus, (uint16_t)port, size, value);
        else
            bus_pio_read(r.bus, (uint16_t)port, size);
        bus_mmio_write(r.bus, gpa((value & ~0xfffull) + rnd() % 4096), size, value);
        pci_msix_raise(&thing.pci, value % 12);
        pci_msi_raise(&thing.pci, value % 40);
        pci_irq(&thing.pci, value & 1);
    }
    assert_int_equal(get(PCI_VENDOR), 0x10421af4);
    assert_int_equal(get(PCI_SUB_VENDOR), 0x56781234);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_mechanism), T(test_nobody),       T(test_not_pci),   T(test_places),
        T(test_read_only), T(test_capabilities), T(test_clearable), T(test_sizes),
        T(test_move),      T(test_wide),         T(test_rom),       T(test_power),
        T(test_intx),      T(test_msi),          T(test_msix),      T(test_msix_masks),
        T(test_reset),     T(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
