/*
 * virtio's transports: a source of entropy is taken through its life over PCI, by the
 * modern and the legacy interface and the window in configuration space, and over MMIO.
 * VIRTIO 1.2, "Virtio Over PCI Bus", "Virtio Over MMIO".
 */
#include "dev/virtio/rng.h"
#include "dev/virtio/transport.h"
#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

#define SLOT 5
#define BAR 0xe0000000ull
#define PORTS 0xc000u
#define MSIX 0xe0010000ull
#define MMIO 0xfec10000ull
#define NOTIFY (BAR + 0x3000)
#define CONFIG (BAR + 0x2000)
#define ISR (BAR + 0x1000)

static struct rig r;
static struct vdrv v;
static struct pci *pci;
static struct virtio_rng *rng;
static struct virtio_pci *card;
static struct virtio_mmio *mmio;
static bool intx;
static unsigned messages, given;
static uint32_t message;
static bool dry;
static uint64_t due, pause_ns; /* of a limit */
static size_t had;

static void on_intx(void *arg, unsigned slot, unsigned pin, bool level) {
    assert_int_equal(slot, SLOT);
    intx = level;
}

static void on_msi(void *arg, uint64_t addr, uint32_t data) {
    messages++;
    message = data;
}

/* Entropy that can be told: 1, 2, 3... */
static size_t entropy(void *arg, void *buf, size_t len) {
    if (dry)
        return 0;
    for (size_t n = 0; n < len; n++)
        ((uint8_t *)buf)[n] = (uint8_t)++given;
    return len;
}

static uint64_t entropy_when(void *arg, uint64_t now) {
    return due;
}

static void entropy_had(void *arg, size_t len, uint64_t now) {
    had += len;
    due = now + pause_ns;
}

static int setup(void **state) {
    const struct pci_host host = {.intx = on_intx, .msi = on_msi};
    const struct virtio_rng_host source = {
        .random = entropy, .when = entropy_when, .had = entropy_had};

    vdrv_new(&v);
    rig_new(&r);
    given = messages = 0;
    had = due = pause_ns = 0;
    dry = intx = false;
    pci = pci_new(r.bus, &host);
    rng = virtio_rng_new(v.mem, r.clock, &source, &r.cnt);
    v.d = virtio_rng_device(rng);
    card = NULL;
    mmio = NULL;
    return pci && rng ? 0 : -1;
}

static int setup_pci(void **state) {
    struct pci_function *f;

    if (setup(state) || virtio_pci_new(pci, SLOT, v.d, &card))
        return -1;
    f = pci_at(pci, SLOT, 0);
    pci_config_write(f, PCI_BAR0, 4, PORTS);
    pci_config_write(f, PCI_BAR0 + 4, 4, (uint32_t)MSIX);
    pci_config_write(f, PCI_BAR0 + 16, 4, (uint32_t)BAR);
    pci_config_write(f, PCI_COMMAND, 2,
                     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return 0;
}

static int setup_mmio(void **state) {
    if (setup(state))
        return -1;
    mmio = virtio_mmio_new(r.bus, gpa(MMIO), rig_line(&r, 5), v.d);
    return mmio ? 0 : -1;
}

static int teardown(void **state) {
    virtio_pci_free(card);
    virtio_mmio_free(mmio);
    virtio_rng_free(rng);
    pci_free(pci);
    rig_free(&r);
    vdrv_free(&v);
    return 0;
}

static void write(uint64_t at, unsigned size, uint64_t value) {
    bus_mmio_write(r.bus, gpa(at), size, value);
}

static uint64_t read(uint64_t at, unsigned size) {
    return bus_mmio_read(r.bus, gpa(at), size);
}

/* --- PCI: what it looks like --- */

static void test_identity(void **state) {
    struct pci_function *f = pci_at(pci, SLOT, 0);
    unsigned seen = 0, at;

    assert_int_equal(pci_config_read(f, PCI_VENDOR, 4), 0x10051af4);
    assert_int_equal(pci_config_read(f, PCI_REVISION, 1), 0);
    assert_int_equal(pci_config_read(f, PCI_SUB_DEVICE, 2), 4);
    for (at = pci_config_read(f, PCI_CAPABILITIES, 1); at;
         at = pci_config_read(f, at + 1, 1)) {
        unsigned type = pci_config_read(f, at + 3, 1);

        if (pci_config_read(f, at, 1) != PCI_CAP_VENDOR)
            continue;
        seen |= 1u << type;
        if (type == 5)
            continue;
        assert_int_equal(pci_config_read(f, at + 4, 1), 4); /* the bar */
        assert_true(pci_config_read(f, at + 8, 4) + pci_config_read(f, at + 12, 4) <=
                    0x4000);
    }
    /* Common, notify, ISR, window; it has no configuration space. */
    assert_int_equal(seen, 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5);
}

/* --- PCI, modern --- */

static void modern_start(uint64_t features) {
    write(BAR + 20, 1, 0);
    assert_int_equal(read(BAR + 20, 1), 0);
    write(BAR + 20, 1, 1);
    write(BAR + 20, 1, 3);
    write(BAR + 8, 4, 0);
    write(BAR + 12, 4, (uint32_t)features);
    write(BAR + 8, 4, 1);
    write(BAR + 12, 4, (uint32_t)(features >> 32));
    write(BAR + 20, 1, 11);
    assert_int_equal(read(BAR + 20, 1), 11);
    memset(v.q, 0, sizeof(v.q));
    mem_fill(mem_host(v.mem, gpa(VDRV_RINGS), VDRV_RINGS_SIZE), 0, VDRV_RINGS_SIZE);
    write(BAR + 22, 2, 0);
    write(BAR + 24, 2, 16);
    write(BAR + 32, 8, VDRV_RINGS); /* arrives in halves */
    write(BAR + 40, 4, VDRV_RINGS + VDRV_AVAIL);
    write(BAR + 44, 4, 0);
    write(BAR + 48, 4, VDRV_RINGS + VDRV_USED);
    write(BAR + 52, 4, 0);
    write(BAR + 28, 2, 1);
    assert_int_equal(read(BAR + 28, 2), 1);
    write(BAR + 20, 1, 15);
}

/* Makes a buffer of LEN bytes available, without telling the device. */
static void offer(unsigned n, uint32_t len) {
    vdrv_desc(&v, 0, n, VDRV_DATA, len, VDRV_WRITE, 0);
    vdrv_offer_quietly(&v, 0, n);
}

static void test_modern(void **state) {
    uint32_t len;

    assert_int_equal(read(BAR + 18, 2), 1);
    assert_int_equal(read(BAR + 24, 2), 64);
    write(BAR + 0, 4, 1);
    assert_int_equal(read(BAR + 4, 4), 1);
    modern_start(VIRTIO_F_VERSION_1);
    offer(0, 10);
    write(NOTIFY, 2, 0);
    assert_int_equal(vdrv_take(&v, 0, &len), 0);
    assert_int_equal(len, 10);
    assert_int_equal(vdrv_get(&v, VDRV_DATA, 8), 0x0807060504030201);
    assert_true(intx);
    assert_int_equal(read(ISR, 1), 1);
    assert_false(intx);
    assert_int_equal(read(ISR, 1), 0);
}

/* A queue that is ready, and one that there is not. */
static void test_modern_queue(void **state) {
    modern_start(VIRTIO_F_VERSION_1);
    write(BAR + 24, 2, 8);
    write(BAR + 32, 4, 0);
    write(BAR + 28, 2, 0);
    assert_int_equal(read(BAR + 24, 2), 16);
    assert_int_equal(read(BAR + 32, 4), VDRV_RINGS);
    assert_int_equal(read(BAR + 28, 2), 1);
    write(BAR + 22, 2, 1);
    assert_int_equal(read(BAR + 22, 2), 1);
    assert_int_equal(read(BAR + 24, 2), 0);
    write(BAR + 24, 2, 8);
    write(BAR + 28, 2, 1);
    assert_int_equal(read(BAR + 28, 2), 0);
    write(NOTIFY + 4, 2, 1);
    write(NOTIFY + 0xffc, 4, 1);
    write(BAR + 20, 1, 0);
    assert_int_equal(read(BAR + 22, 2), 0);
    assert_int_equal(read(BAR + 28, 2), 0);
    assert_int_equal(read(BAR + 32, 4), 0);
}

/* Without bus mastering memory is out of reach. */
static void test_bus_master(void **state) {
    struct pci_function *f = pci_at(pci, SLOT, 0);

    modern_start(VIRTIO_F_VERSION_1);
    pci_config_write(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    offer(0, 10);
    write(NOTIFY, 2, 0);
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    pci_config_write(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    write(NOTIFY, 2, 0);
    assert_int_equal(vdrv_take(&v, 0, NULL), 0);
}

static unsigned msix_cap(struct pci_function *f) {
    unsigned at = pci_config_read(f, PCI_CAPABILITIES, 1);

    while (at && pci_config_read(f, at, 1) != PCI_CAP_MSIX)
        at = pci_config_read(f, at + 1, 1);
    assert_int_not_equal(at, 0);
    return at;
}

static void test_msix(void **state) {
    struct pci_function *f = pci_at(pci, SLOT, 0);

    pci_config_write(f, msix_cap(f) + 2, 2, 0x8000);
    write(MSIX + 16, 4, 0xfee00000); /* vector 1 */
    write(MSIX + 20, 4, 0);
    write(MSIX + 24, 4, 0x41);
    write(MSIX + 28, 4, 0);
    modern_start(VIRTIO_F_VERSION_1);
    offer(0, 1);
    write(NOTIFY, 2, 0); /* no vector yet */
    assert_int_equal(messages, 0);
    write(BAR + 26, 2, 2); /* there are two */
    assert_int_equal(read(BAR + 26, 2), 0xffff);
    write(BAR + 26, 2, 1);
    assert_int_equal(read(BAR + 26, 2), 1);
    write(BAR + 16, 2, 7);
    assert_int_equal(read(BAR + 16, 2), 0xffff);
    offer(1, 1);
    write(NOTIFY, 2, 0);
    assert_int_equal(messages, 1);
    assert_int_equal(message, 0x41);
    assert_false(intx);
    write(BAR + 20, 1, 0);
    assert_int_equal(read(BAR + 26, 2), 0xffff);
}

/* Accesses that are too narrow, too wide or beside change nothing and end. */
static void test_modern_odd(void **state) {
    modern_start(VIRTIO_F_VERSION_1);
    for (unsigned at = 0; at < 0x4000; at += at < 128 ? 1 : 509)
        for (unsigned size = 1; size <= 8; size *= 2)
            read(BAR + at, size);
    write(BAR + 20, 4, 0);
    assert_int_equal(read(BAR + 20, 1), 15);
    assert_int_equal(read(BAR + 20, 4), 15); /* status, generation, the queue */
    write(BAR + 8, 1, 5);
    assert_int_equal(read(BAR + 8, 4), 1);
    write(BAR + 56, 4, 0xffffffff);
    write(CONFIG, 4, 0);
    assert_int_equal(read(CONFIG, 4), 0);
}

/* "PCI configuration access capability" */
static void test_window(void **state) {
    struct pci_function *f = pci_at(pci, SLOT, 0);
    unsigned at = pci_config_read(f, PCI_CAPABILITIES, 1);

    while (pci_config_read(f, at, 1) != PCI_CAP_VENDOR ||
           pci_config_read(f, at + 3, 1) != 5)
        at = pci_config_read(f, at + 1, 1);
    pci_config_write(f, at + 4, 1, 4);
    pci_config_write(f, at + 8, 4, 20);
    pci_config_write(f, at + 12, 4, 1);
    pci_config_write(f, at + 16, 1, 1);
    assert_int_equal(read(BAR + 20, 1), 1);
    pci_config_write(f, at + 16, 1, 3);
    assert_int_equal(pci_config_read(f, at + 16, 1), 3);
    assert_int_equal(read(BAR + 20, 1), 3);
    pci_config_write(f, at + 12, 4, 3); /* no such length */
    pci_config_write(f, at + 16, 1, 0);
    assert_int_equal(read(BAR + 20, 1), 3);
    pci_config_write(f, at + 12, 4, 4);
    pci_config_write(f, at + 8, 4, 0xfffffffc); /* beyond the bar */
    pci_config_write(f, at + 16, 4, 0);
    pci_config_read(f, at + 16, 4);
    pci_config_write(f, at + 8, 4, 20);
    pci_config_write(f, at + 4, 1, 0); /* another bar */
    pci_config_write(f, at + 12, 4, 1);
    pci_config_write(f, at + 16, 1, 0);
    assert_int_equal(read(BAR + 20, 1), 3);
}

/* --- PCI, legacy --- */

#define LEGACY_RING VDRV_RINGS

static void test_legacy(void **state) {
    const uint64_t avail = LEGACY_RING + 16 * 64;
    const uint64_t used = (avail + 6 + 2 * 64 + 4095) & ~4095ull;

    assert_int_equal(rig_in32(&r, PORTS) & 0xf0000000, 0x30000000);
    rig_out(&r, PORTS + 18, 0);
    rig_out(&r, PORTS + 18, 1);
    rig_out(&r, PORTS + 18, 3);
    rig_out32(&r, PORTS + 4, 0);
    rig_out16(&r, PORTS + 14, 0);
    assert_int_equal(rig_in16(&r, PORTS + 12), 64);
    assert_int_equal(rig_in32(&r, PORTS + 8), 0);
    rig_out32(&r, PORTS + 8, LEGACY_RING >> 12);
    assert_int_equal(rig_in32(&r, PORTS + 8), LEGACY_RING >> 12);
    rig_out(&r, PORTS + 18, 7);
    vdrv_put(&v, LEGACY_RING, 8, VDRV_DATA);
    vdrv_put(&v, LEGACY_RING + 8, 4, 4);
    vdrv_put(&v, LEGACY_RING + 12, 2, VDRV_WRITE);
    vdrv_put(&v, avail + 2, 2, 1);
    rig_out16(&r, PORTS + 16, 0);
    assert_int_equal(vdrv_get(&v, used + 2, 2), 1);
    assert_int_equal(vdrv_get(&v, VDRV_DATA, 4), 0x04030201);
    assert_true(intx);
    assert_int_equal(rig_in(&r, PORTS + 19), 1);
    assert_false(intx);
    rig_out(&r, PORTS + 18, 0);
    assert_int_equal(rig_in32(&r, PORTS + 8), 0);
}

/* A ring that is nowhere; queues and ports that there are not. */
static void test_legacy_odd(void **state) {
    rig_out(&r, PORTS + 18, 3);
    rig_out32(&r, PORTS + 8, 0xffffffff);
    assert_int_equal(rig_in(&r, PORTS + 18), 3 | VIRTIO_NEEDS_RESET);
    rig_out(&r, PORTS + 18, 7);
    rig_out16(&r, PORTS + 16, 0);
    rig_out16(&r, PORTS + 14, 9);
    assert_int_equal(rig_in16(&r, PORTS + 12), 0);
    rig_out32(&r, PORTS + 8, 1);
    rig_out16(&r, PORTS + 16, 0xffff);
    for (unsigned at = 0; at < 128; at++) {
        rig_in(&r, PORTS + at);
        rig_in32(&r, PORTS + at);
    }
    rig_out(&r, PORTS + 18, 0);
    assert_int_equal(rig_in(&r, PORTS + 18), 0);
}

/* The bus is reset. */
static void test_pci_reset(void **state) {
    modern_start(VIRTIO_F_VERSION_1);
    pci_reset(pci);
    assert_int_equal(virtio_status(v.d), 0);
    assert_false(v.d->queue[0].ready);
}

/* --- MMIO --- */

static uint32_t reg(unsigned at) {
    return rig_read(&r, MMIO + at);
}

static void set(unsigned at, uint32_t value) {
    rig_write(&r, MMIO + at, value);
}

static void mmio_start(void) {
    set(0x70, 0);
    set(0x70, 1);
    set(0x70, 3);
    set(0x24, 1);
    set(0x20, 1);
    set(0x70, 11);
    assert_int_equal(reg(0x70), 11);
    memset(v.q, 0, sizeof(v.q));
    mem_fill(mem_host(v.mem, gpa(VDRV_RINGS), VDRV_RINGS_SIZE), 0, VDRV_RINGS_SIZE);
    set(0x30, 0);
    set(0x38, 16);
    set(0x80, VDRV_RINGS);
    set(0x84, 0);
    set(0x90, VDRV_RINGS + VDRV_AVAIL);
    set(0x94, 0);
    set(0xa0, VDRV_RINGS + VDRV_USED);
    set(0xa4, 0);
    set(0x44, 1);
    assert_int_equal(reg(0x44), 1);
    set(0x70, 15);
}

static void test_mmio(void **state) {
    assert_int_equal(reg(0), 0x74726976);
    assert_int_equal(reg(4), 2);
    assert_int_equal(reg(8), 4);
    assert_int_equal(reg(0x34), 64);
    set(0x14, 1);
    assert_int_equal(reg(0x10), 1);
    mmio_start();
    offer(0, 4);
    set(0x50, 0);
    assert_int_equal(vdrv_take(&v, 0, NULL), 0);
    assert_int_equal(vdrv_get(&v, VDRV_DATA, 4), 0x04030201);
    assert_true(r.line[5]);
    assert_int_equal(reg(0x60), 1);
    offer(1, 4);
    set(0x50, 0);
    assert_int_equal(r.rises[5], 2); /* an edge for each */
    set(0x64, 1);
    assert_false(r.line[5]);
    set(0x44, 0);
    offer(2, 4);
    set(0x50, 0);
    assert_int_equal(vdrv_get(&v, VDRV_RINGS + VDRV_USED + 2, 2), 2);
}

static void test_mmio_odd(void **state) {
    mmio_start();
    for (unsigned at = 0; at < VIRTIO_MMIO_SIZE; at++)
        for (unsigned size = 1; size <= 8; size *= 2)
            read(MMIO + at, size);
    write(MMIO + 0x70, 1, 0); /* registers are doublewords */
    write(MMIO + 0x72, 4, 0);
    assert_int_equal(reg(0x70), 15);
    set(0x30, 77);
    assert_int_equal(reg(0x34), 0);
    set(0x44, 1);
    set(0x80, 1);
    set(0x50, 0xffffffff);
    assert_int_equal(reg(0xb0), 0xffffffff); /* no shared memory */
    set(0x70, 0);
    assert_int_equal(reg(0x70), 0);
    assert_false(r.line[5]);
}

/* --- the source of entropy itself --- */

/* A buffer is filled up to a page; while there is nothing it waits. */
static void test_entropy(void **state) {
    uint32_t len;

    mmio_start();
    offer(0, 100000);
    set(0x50, 0);
    assert_int_equal(vdrv_take(&v, 0, &len), 0);
    assert_int_equal(len, 4096);
    dry = true;
    offer(1, 8);
    set(0x50, 0);
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    rig_pass(&r, 5000000);
    dry = false;
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    rig_pass(&r, 10000000);
    assert_int_equal(vdrv_take(&v, 0, &len), 1);
    assert_int_equal(len, 8);
    vdrv_desc(&v, 0, 2, VDRV_DATA, 8, 0, 0); /* nothing to be written */
    vdrv_offer_quietly(&v, 0, 2);
    set(0x50, 0);
    assert_int_equal(vdrv_take(&v, 0, &len), 2);
    assert_int_equal(len, 0);
}

/* A limit: buffers wait for their time, and none is lost. */
static void test_entropy_limit(void **state) {
    uint32_t len;

    mmio_start();
    pause_ns = 20000000;
    offer(0, 100);
    offer(1, 8);
    set(0x50, 0);
    assert_int_equal(vdrv_take(&v, 0, &len), 0);
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    assert_int_equal(had, 100);
    rig_pass(&r, 19000000);
    assert_int_equal(vdrv_take(&v, 0, NULL), -1);
    rig_pass(&r, 2000000);
    assert_int_equal(vdrv_take(&v, 0, &len), 1);
    assert_int_equal(len, 8);
    assert_int_equal(had, 108);
}

/* A reset while a buffer waits. */
static void test_entropy_reset(void **state) {
    mmio_start();
    dry = true;
    offer(0, 8);
    set(0x50, 0);
    set(0x70, 0);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
}

int main(void) {
#define P(f) cmocka_unit_test_setup_teardown(f, setup_pci, teardown)
#define M(f) cmocka_unit_test_setup_teardown(f, setup_mmio, teardown)
    const struct CMUnitTest tests[] = {
        P(test_identity),   P(test_modern),        P(test_modern_queue),
        P(test_bus_master), P(test_msix),          P(test_modern_odd),
        P(test_window),     P(test_legacy),        P(test_legacy_odd),
        P(test_pci_reset),  M(test_mmio),          M(test_mmio_odd),
        M(test_entropy),    M(test_entropy_reset), M(test_entropy_limit),
    };
#undef P
#undef M
    return cmocka_run_group_tests(tests, NULL, NULL);
}
