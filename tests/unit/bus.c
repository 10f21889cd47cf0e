/* The bus's dispatch and splitting; the clock's order and its bounded run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "bus/clock.h"

struct dev {
    uint64_t addr, value;
    unsigned size, calls;
};

static uint64_t dev_read(void *arg, uint64_t addr, unsigned size) {
    struct dev *d = arg;

    d->addr = addr;
    d->size = size;
    d->calls++;
    return 0x1111111111111111ull * (addr + 1);
}

static void dev_write(void *arg, uint64_t addr, unsigned size, uint64_t value) {
    struct dev *d = arg;

    d->addr = addr;
    d->size = size;
    d->value = value;
    d->calls++;
}

static const struct bus_ops any = {.read = dev_read, .write = dev_write};
static const struct bus_ops narrow = {.read = dev_read, .write = dev_write, .width = 1};

static const struct bus_ops general = {
    .read = dev_read, .write = dev_write, .general = true};

static void count(void *arg) {
    ++*(unsigned *)arg;
}

/* Who may need the host's vector registers is announced; the others and nobody are not.
 */
static void test_leave(void **state) {
    struct bus *b = bus_new();
    struct dev d = {0};
    unsigned left = 0;

    bus_on_leave(b, count, &left);
    assert_int_equal(bus_attach_pio(b, 0x100, 4, &general, &d, "general"), 0);
    assert_int_equal(bus_attach_pio(b, 0x104, 4, &any, &d, "other"), 0);
    assert_int_equal(bus_attach_mmio(b, gpa(0x2000), 16, &general, &d, "general"), 0);
    assert_int_equal(bus_attach_mmio(b, gpa(0x2010), 16, &any, &d, "other"), 0);
    bus_pio_read(b, 0x100, 1);
    bus_pio_write(b, 0x103, 1, 0);
    bus_pio_read(b, 0x200, 4);
    bus_mmio_read(b, gpa(0x2000), 8);
    bus_mmio_write(b, gpa(0x3000), 8, 0);
    assert_int_equal(left, 0);
    bus_pio_read(b, 0x104, 1);
    bus_pio_write(b, 0x102, 4, 0); /* in pieces, two of them the other's */
    bus_mmio_read(b, gpa(0x2010), 4);
    bus_mmio_write(b, gpa(0x2010), 4, 0);
    assert_int_equal(left, 5);
    bus_free(b);
}

static void test_bus(void **state) {
    struct bus *b = bus_new();
    struct dev d = {0}, n = {0};

    assert_int_equal(bus_attach_pio(b, 0x100, 4, &any, &d, "d"), 0);
    assert_int_not_equal(bus_attach_pio(b, 0x103, 2, &any, &d, "overlap"), 0);
    assert_int_not_equal(bus_attach_pio(b, 0xffff, 2, &any, &d, "wrap"), 0);
    assert_int_equal(bus_attach_pio(b, 0x104, 4, &narrow, &n, "n"), 0);
    assert_int_equal(bus_pio_read(b, 0x100, 4), 0x11111111);
    assert_int_equal(d.calls, 1);
    assert_int_equal(bus_pio_read(b, 0x104, 4), 0x44332211);
    assert_int_equal(n.calls, 4);
    assert_int_equal(bus_pio_read(b, 0x102, 4), 0x22114433); /* spans both */
    assert_int_equal(bus_pio_read(b, 0xfe, 4), 0x2211ffff);
    assert_int_equal(bus_pio_read(b, 0xfffe, 4), 0xffffffff);
    bus_pio_write(b, 0x106, 4, 0xddccbbaa); /* the upper half is nobody's */
    assert_int_equal(n.value, 0xbb);
    assert_int_equal(n.addr, 3);
    assert_int_equal(bus_attach_mmio(b, gpa(0x2000), 0x1000, &any, &d, "d"), 0);
    assert_int_not_equal(bus_attach_mmio(b, gpa(0x2fff), 1, &any, &d, "overlap"), 0);
    assert_int_equal(bus_mmio_read(b, gpa(0x2000), 8), 0x1111111111111111ull);
    assert_int_equal(bus_mmio_read(b, gpa(0x1ffe), 4), 0x2211ffff);
    assert_int_equal(bus_mmio_read(b, gpa(~0ull), 8), ~0ull);
    bus_detach_mmio(b, &d);
    assert_int_equal(bus_mmio_read(b, gpa(0x2000), 2), 0xffff);
    bus_free(b);
}

struct world {
    uint64_t now, told;
    struct vclock *c;
    struct vtimer t[3];
    unsigned order[8], fired;
    bool again;
};

static uint64_t world_now(void *arg) {
    return ((struct world *)arg)->now;
}

static void world_told(void *arg, uint64_t deadline) {
    ((struct world *)arg)->told = deadline;
}

static struct world *w;

static void fire(void *arg) {
    unsigned n = (unsigned)(uintptr_t)arg;

    w->order[w->fired++ % 8] = n;
    if (w->again) /* in the past: must not keep the run going */
        vtimer_arm(w->c, &w->t[n], 0);
}

static void test_clock(void **state) {
    struct world world = {.now = 100};
    struct vclock_source src = {world_now, world_now, 3000000000u, world_told, &world};
    unsigned i;

    w = &world;
    world.c = vclock_new(&src);
    for (i = 0; i < 3; i++)
        world.t[i] = (struct vtimer){.fire = fire, .arg = (void *)(uintptr_t)i};
    vtimer_arm(world.c, &world.t[0], 300);
    vtimer_arm(world.c, &world.t[1], 200);
    vtimer_arm(world.c, &world.t[2], 300);
    assert_int_equal(world.told, 200);
    vtimer_arm(world.c, &world.t[1], 400);
    assert_int_equal(world.told, 300);
    world.now = 300;
    vclock_run(world.c);
    assert_int_equal(world.fired, 2);
    assert_int_equal(world.order[0], 0);
    assert_int_equal(world.order[1], 2);
    assert_int_equal(world.told, 400);
    vtimer_cancel(world.c, &world.t[1]);
    assert_true(world.told == VCLOCK_NEVER);
    world.again = true;
    vtimer_arm(world.c, &world.t[0], 0);
    vclock_run(world.c);
    assert_int_equal(world.fired, 3);
    assert_int_equal(vclock_next(world.c), 301);
    vclock_tsc_set(world.c, 5000);
    assert_int_equal(vclock_tsc(world.c), 5000);
    assert_int_equal(vclock_ns_of_tsc(world.c, 4000), 300);
    assert_int_equal(vclock_ns_of_tsc(world.c, 5004), 302);
    assert_true(vclock_ns_of_tsc(world.c, UINT64_MAX) > 1ull << 60);
    vclock_free(world.c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bus),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
