/* The bus's dispatch and splitting, and ranges that move, overlap and go away; the
 * clock's order and its bounded run. */
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
    assert_non_null(bus_attach_pio(b, 0x100, 4, &general, &d, "general"));
    assert_non_null(bus_attach_pio(b, 0x104, 4, &any, &d, "other"));
    assert_non_null(bus_attach_mmio(b, gpa(0x2000), 16, &general, &d, "general"));
    assert_non_null(bus_attach_mmio(b, gpa(0x2010), 16, &any, &d, "other"));
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
    struct bus_range *r;

    assert_non_null(bus_attach_pio(b, 0x100, 4, &any, &d, "d"));
    assert_null(bus_attach_pio(b, 0xffff, 2, &any, &d, "wrap"));
    assert_null(bus_attach_pio(b, 0x80, 0, &any, &d, "nothing"));
    assert_non_null(bus_attach_pio(b, 0x104, 4, &narrow, &n, "n"));
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
    r = bus_attach_mmio(b, gpa(0x2000), 0x1000, &any, &d, "d");
    assert_non_null(r);
    assert_null(bus_attach_mmio(b, gpa(~0ull), 2, &any, &d, "wrap"));
    assert_null(bus_attach_mmio(b, gpa(0), 0, &any, &d, "nothing"));
    assert_int_equal(bus_mmio_read(b, gpa(0x2000), 8), 0x1111111111111111ull);
    assert_int_equal(bus_mmio_read(b, gpa(0x1ffe), 4), 0x2211ffff);
    assert_int_equal(bus_mmio_read(b, gpa(~0ull), 8), ~0ull);
    bus_range_detach(r);
    bus_range_detach(NULL);
    assert_int_equal(bus_mmio_read(b, gpa(0x2000), 2), 0xffff);
    bus_free(b);
}

/* The one that was attached first answers, where it is; what it hides appears again. */
static void test_overlap(void **state) {
    struct bus *b = bus_new();
    struct dev board = {0}, bar = {0};
    struct bus_range *r, *mine = bus_attach_mmio(b, gpa(0x5000), 16, &any, &board, "b");

    r = bus_attach_mmio(b, gpa(0x8000), 0x1000, &any, &bar, "bar");
    assert_non_null(r);
    bus_range_move(r, 0x4800); /* over it, and on both sides */
    bus_mmio_read(b, gpa(0x4ffc), 4);
    assert_int_equal(bar.addr, 0x7fc);
    bus_mmio_read(b, gpa(0x5010), 8);
    assert_int_equal(bar.addr, 0x810);
    bus_mmio_read(b, gpa(0x5008), 8);
    assert_int_equal(board.addr, 8);
    assert_int_equal(board.calls, 1);
    bus_mmio_read(b, gpa(0x500e), 4); /* two bytes each */
    assert_int_equal(board.calls, 3);
    assert_int_equal(bar.calls, 4);
    bus_range_enable(mine, false);
    bus_mmio_write(b, gpa(0x500e), 4, 0x12345678);
    assert_int_equal(bar.value, 0x12345678);
    assert_int_equal(bar.calls, 5);
    bus_range_move(mine, 0x4800); /* off: it keeps the place for later */
    bus_mmio_read(b, gpa(0x4800), 1);
    assert_int_equal(bar.calls, 6);
    bus_range_enable(mine, true);
    bus_mmio_read(b, gpa(0x4800), 1);
    assert_int_equal(bar.calls, 6);
    bus_range_detach(mine);
    bus_mmio_read(b, gpa(0x4800), 1);
    assert_int_equal(bar.calls, 7);
    bus_free(b);
}

/* Ranges hang over the end of their space, where the guest puts them. */
static void test_ends(void **state) {
    struct bus *b = bus_new();
    struct dev d = {0};
    struct bus_range *io = bus_attach_pio(b, 0x100, 8, &any, &d, "io");
    struct bus_range *mmio = bus_attach_mmio(b, gpa(0x1000), 0x1000, &any, &d, "mmio");

    bus_range_move(io, 0xfffe);
    assert_int_equal(bus_pio_read(b, 0xfffe, 2), 0x1111);
    assert_int_equal(bus_pio_read(b, 0xffff, 4), 0xffffff22);
    assert_int_equal(bus_pio_read(b, 0, 1), 0xff);
    bus_range_move(io, 0x10000);
    assert_int_equal(bus_pio_read(b, 0xfffe, 2), 0xffff);
    assert_int_equal(bus_pio_read(b, 0, 4), 0xffffffff);
    bus_range_move(io, ~0ull - 3);
    assert_int_equal(bus_pio_read(b, 0, 4), 0xffffffff);
    bus_range_move(io, 0);
    assert_int_equal(bus_pio_read(b, 0, 4), 0x11111111);
    bus_range_move(mmio, ~0ull - 15);
    assert_int_equal(bus_mmio_read(b, gpa(~0ull - 7), 8), 0x9999999999999999ull);
    assert_int_equal(bus_mmio_read(b, gpa(0), 8), ~0ull);
    bus_range_move(mmio, 0x1000);
    assert_int_equal(bus_mmio_read(b, gpa(~0ull - 7), 8), ~0ull);
    bus_free(b);
}

/* A device that does something to a range when it is accessed. */
struct mover {
    struct bus_range *target;
    uint64_t to;
    bool detach;
    unsigned calls;
};

static uint64_t mover_read(void *arg, uint64_t addr, unsigned size) {
    struct mover *m = arg;

    if (m->calls++)
        return 0x77;
    if (m->detach)
        bus_range_detach(m->target);
    else
        bus_range_move(m->target, m->to);
    return 0x55;
}

static void mover_write(void *arg, uint64_t addr, unsigned size, uint64_t value) {
    mover_read(arg, addr, size);
}

static const struct bus_ops moving = {
    .read = mover_read, .write = mover_write, .width = 1};

/* A range goes away, moves, or appears in the middle of an access to it: what is left of
 * the access meets the bus as it is then. */
static void test_within(void **state) {
    struct bus *b = bus_new();
    struct dev d = {0};
    struct mover m = {.detach = true};
    struct bus_range *other;

    m.target = bus_attach_pio(b, 0x100, 4, &moving, &m, "detaches itself");
    assert_int_equal(bus_pio_read(b, 0x100, 4), 0xffffff55);
    assert_int_equal(m.calls, 1);
    m = (struct mover){.to = 0x3000};
    m.target = bus_attach_mmio(b, gpa(0x2000), 8, &moving, &m, "moves itself");
    bus_mmio_write(b, gpa(0x2000), 8, 0);
    assert_int_equal(m.calls, 1);
    assert_int_equal(bus_mmio_read(b, gpa(0x3000), 2), 0x7777);
    bus_range_detach(m.target);
    other = bus_attach_pio(b, 0x200, 2, &any, &d, "other");
    m = (struct mover){.target = other, .to = 0x302};
    assert_non_null(bus_attach_pio(b, 0x300, 2, &moving, &m, "moves the other"));
    assert_int_equal(bus_pio_read(b, 0x300, 4), 0x22117755); /* it has come beside */
    m = (struct mover){.target = other, .to = 0x301};
    assert_int_equal(bus_pio_read(b, 0x300, 4), 0xff221155); /* and over its second */
    bus_free(b);
}

/* Any number of changes gives what a model of a line says. */
#define MODEL 24
#define SPACE 512u

struct model {
    struct bus_range *range;
    struct dev dev;
    uint64_t first, size;
    unsigned since;
    bool on;
};

static uint64_t seed = 1;

static unsigned random_below(unsigned n) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(seed >> 33) % n;
}

static struct model *owner(struct model *m, uint64_t at) {
    struct model *best = NULL;

    for (unsigned k = 0; k < MODEL; k++)
        if (m[k].range && m[k].on && at >= m[k].first && at - m[k].first < m[k].size &&
            (!best || m[k].since < best->since))
            best = &m[k];
    return best;
}

static void change(struct bus *b, bool mmio, struct model *m, unsigned *clock) {
    if (!m->range) {
        m->size = 1 + random_below(random_below(8) ? 16 : 300);
        m->first = random_below(SPACE - (unsigned)m->size);
        m->since = ++*clock;
        m->on = true;
        m->range = mmio ? bus_attach_mmio(b, gpa(m->first), m->size, &any, &m->dev, "m")
                        : bus_attach_pio(b, (uint16_t)m->first, (unsigned)m->size, &any,
                                         &m->dev, "m");
        assert_non_null(m->range);
    } else if (!random_below(4)) {
        bus_range_detach(m->range);
        m->range = NULL;
    } else if (!random_below(3)) {
        m->on = !m->on;
        bus_range_enable(m->range, m->on);
    } else {
        m->first = random_below(SPACE);
        bus_range_move(m->range, m->first);
    }
}

/* An access of SIZE bytes at AT arrives whole where one device has all of it, else as
 * bytes; and each byte where it belongs. */
static void agree(struct bus *b, bool mmio, struct model *m, uint64_t at, unsigned size) {
    struct model *one = owner(m, at);
    unsigned calls = 0, expected = 0;

    for (unsigned k = 0; k < MODEL; k++)
        m[k].dev.calls = 0;
    if (mmio)
        bus_mmio_write(b, gpa(at), size, 0);
    else
        bus_pio_write(b, (uint16_t)at, size, 0);
    for (unsigned n = 0; n < size; n++) {
        struct model *o = owner(m, at + n);

        expected += !!o;
        if (o != one)
            one = NULL;
        else if (n + 1 == size && one)
            expected = 1;
    }
    for (unsigned k = 0; k < MODEL; k++)
        calls += m[k].dev.calls;
    assert_int_equal(calls, expected);
    for (unsigned n = 0; n < size && !one; n++)
        if (owner(m, at + n))
            assert_true(owner(m, at + n)->dev.calls);
    if (one) {
        assert_int_equal(one->dev.addr, at - one->first);
        assert_int_equal(one->dev.size, size);
    }
}

static void test_random(void **state) {
    static const unsigned sizes[] = {1, 2, 4, 8};

    for (unsigned mmio = 0; mmio < 2; mmio++) {
        struct bus *b = bus_new();
        struct model m[MODEL] = {0};
        unsigned clock = 0;

        for (unsigned round = 0; round < 4000; round++) {
            change(b, mmio, &m[random_below(MODEL)], &clock);
            for (unsigned n = 0; n < 40; n++)
                agree(b, mmio, m, random_below(SPACE + 300),
                      sizes[random_below(3 + mmio)]);
        }
        bus_free(b);
    }
}

/* As many as fit, all over each other, and one more. */
static void test_full(void **state) {
    struct bus *b = bus_new();
    struct bus_range *last = NULL;
    struct dev d = {0};

    for (unsigned n = 0; n < 255; n++) {
        assert_non_null(bus_attach_pio(b, (uint16_t)(255 - n), 2 * n + 1, &any, &d, "p"));
        last = bus_attach_mmio(b, gpa(255 - n), 2 * n + 1, &any, &d, "m");
        assert_non_null(last);
    }
    assert_null(bus_attach_pio(b, 0, 1, &any, &d, "p"));
    assert_null(bus_attach_mmio(b, gpa(0), 1, &any, &d, "m"));
    bus_mmio_read(b, gpa(1), 1);
    assert_int_equal(d.addr, 0);
    bus_mmio_read(b, gpa(509), 1);
    assert_int_equal(d.addr, 508);
    bus_mmio_read(b, gpa(256), 1);
    assert_int_equal(d.addr, 2);
    bus_range_detach(last);
    assert_non_null(bus_attach_mmio(b, gpa(0x1000), 1, &any, &d, "m"));
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
        cmocka_unit_test(test_bus),     cmocka_unit_test(test_leave),
        cmocka_unit_test(test_overlap), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_within),  cmocka_unit_test(test_random),
        cmocka_unit_test(test_full),    cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
