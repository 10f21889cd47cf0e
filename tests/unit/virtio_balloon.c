/* The balloon by itself. VIRTIO 1.2, "Traditional Memory Balloon Device". */
#include "dev/virtio/balloon.h"

#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

enum { INFLATE, DEFLATE, STATS, REPORT, LETTER };
#define F_STATS (1ull << 1)
#define F_REPORTING (1ull << 5)
#define ALL (VIRTIO_F_ALWAYS | F_STATS | F_REPORTING)
#define PAGES (VDRV_DATA + 0x100000) /* those that are given */
#define PAGE 4096u

static struct rig r;
static struct vdrv v;
static struct virtio_balloon *b;

static int setup(void **state) {
    vdrv_new(&v);
    rig_new(&r);
    b = virtio_balloon_new(v.mem, r.clock, false, &r.cnt);
    v.d = virtio_balloon_device(b);
    for (unsigned n = 0; n < 16; n++)
        vdrv_put(&v, PAGES + PAGE * n + 8, 4, 0x1234);
    return 0;
}

static int teardown(void **state) {
    virtio_balloon_free(b);
    rig_free(&r);
    vdrv_free(&v);
    return 0;
}

/* A bit for each page of PAGES that has its bytes still. */
static unsigned kept(void) {
    unsigned bits = 0;

    for (unsigned n = 0; n < 16; n++)
        bits |= (unsigned)(vdrv_get(&v, PAGES + PAGE * n + 8, 4) == 0x1234) << n;
    return bits;
}

static void test_target(void **state) {
    vdrv_start(&v, ALL);
    virtio_balloon_set(b, 100);
    assert_int_equal(v.changes, 1);
    virtio_balloon_set(b, 100);
    assert_int_equal(v.changes, 1);
    assert_int_equal(virtio_config_read(v.d, 0, 4), 100);
    virtio_config_write(v.d, 4, 4, 50);
    assert_int_equal(virtio_balloon_pages(b), 50);
    virtio_config_write(v.d, 0, 4, 7);
    virtio_config_write(v.d, 4, 1, 9);
    assert_int_equal(virtio_config_read(v.d, 0, 8), 100 | 50ull << 32);
    virtio_set_status(v.d, 0, false);
    assert_int_equal(virtio_balloon_pages(b), 0);
}

/* Numbers in any order, of memory and of nothing; the rest of a number is nothing. */
static void test_inflate(void **state) {
    const uint32_t page = PAGES / PAGE;
    const uint32_t numbers[] = {page + 2, page + 1,        page,       page + 5,
                                page + 6, 0xffffffff,      0x000fee00, page + 9,
                                page + 9, VDRV_RAM / PAGE, 0xfffff};
    struct vdrv_piece p = {VDRV_DATA, sizeof(numbers) + 3, 0};

    vdrv_start(&v, ALL);
    assert_true(mem_write(v.mem, gpa(VDRV_DATA), numbers, sizeof(numbers)));
    vdrv_send(&v, INFLATE, &p, 1);
    assert_int_equal(vdrv_take(&v, INFLATE, NULL), 0);
    assert_int_equal(kept(), 0xffff & ~(7u | 3u << 5 | 1u << 9));
    vdrv_send(&v, DEFLATE, &p, 1);
    assert_int_equal(vdrv_take(&v, DEFLATE, NULL), 0);
    assert_false(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
}

/* Long lists of numbers take long: not all are taken in one go. */
static void test_turns(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1 << 20, 0}; /* of nothing */
    unsigned taken = 0;

    vdrv_start(&v, ALL);
    mem_fill(mem_host(v.mem, gpa(VDRV_DATA), 1 << 20), 0xff, 1 << 20);
    vdrv_send(&v, INFLATE, &p, 1);
    vdrv_offer_quietly(&v, INFLATE, 0);
    vdrv_offer(&v, INFLATE, 0);
    while (vdrv_take(&v, INFLATE, NULL) == 0)
        taken++;
    assert_int_equal(taken, 2); /* each at its notification */
    rig_pass(&r, 1);
    while (vdrv_take(&v, INFLATE, NULL) == 0)
        taken++;
    assert_int_equal(taken, 3);
}

static unsigned told;

static void on_trace(void *arg, struct gpa at, unsigned len) {
    told++;
}

/* Whoever has derived something from a page hears that it is gone. */
static void test_traces(void **state) {
    const uint32_t page = PAGES / PAGE;
    struct vdrv_piece p = {VDRV_DATA, 4, 0};

    vdrv_start(&v, ALL);
    vdrv_put(&v, VDRV_DATA, 4, page);
    mem_own_trace(v.mem, MEM_TRACE_CODE, on_trace, NULL);
    mem_trace_add(v.mem, mem_host(v.mem, gpa(PAGES), 1), MEM_TRACE_CODE);
    told = 0;
    vdrv_send(&v, INFLATE, &p, 1);
    assert_int_equal(told, 1);
}

/* The queue has one number with Linux and another by the letter. Only whole pages go. */
static void test_reporting(void **state) {
    struct vdrv_piece p[] = {{PAGES, 2 * PAGE, VDRV_WRITE},
                             {PAGES + 3 * PAGE + 16, 2 * PAGE, VDRV_WRITE},
                             {PAGES + 8 * PAGE + 16, PAGE, VDRV_WRITE}};

    vdrv_start(&v, ALL);
    vdrv_send(&v, REPORT, p, 3);
    assert_int_equal(vdrv_take(&v, REPORT, NULL), 0);
    assert_int_equal(kept(), 0xffff & ~(3u | 1u << 4));
    p[0].at = PAGES + 10 * PAGE;
    vdrv_send(&v, LETTER, p, 1);
    assert_int_equal(vdrv_take(&v, LETTER, NULL), 0);
    assert_int_equal(kept(), 0xffff & ~(3u | 1u << 4 | 3u << 10));
    vdrv_start(&v, VIRTIO_F_ALWAYS);
    p[0].at = PAGES + 14 * PAGE;
    vdrv_send(&v, REPORT, p, 1);
    assert_int_equal(kept(), 0xffff & ~(3u | 1u << 4 | 3u << 10));
}

static void stat(unsigned n, unsigned tag, uint64_t value) {
    vdrv_put(&v, VDRV_DATA + 10 * n, 2, tag);
    vdrv_put(&v, VDRV_DATA + 10 * n + 2, 8, value);
}

/* The buffer stays with the device until it wants newer ones. */
static void test_stats(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 35, 0};
    struct virtio_balloon_stats s;

    vdrv_start(&v, ALL);
    virtio_balloon_poll(b);
    stat(0, 4, 1111);
    stat(1, 77, 5);
    stat(2, 5, 2222);
    vdrv_send(&v, STATS, &p, 1);
    assert_int_equal(vdrv_take(&v, STATS, NULL), -1);
    s = virtio_balloon_stats(b);
    assert_int_equal(s.given, 1u << 4 | 1u << 5);
    assert_int_equal(s.value[4], 1111);
    assert_int_equal(s.value[5], 2222);
    virtio_balloon_poll(b);
    assert_int_equal(vdrv_take(&v, STATS, NULL), 0);
    virtio_balloon_poll(b);
    assert_int_equal(vdrv_take(&v, STATS, NULL), -1);
    p.len = 10;
    stat(0, 4, 3333);
    vdrv_send(&v, STATS, &p, 1);
    s = virtio_balloon_stats(b);
    assert_int_equal(s.given, 1u << 4);
    assert_int_equal(s.value[4], 3333);
    vdrv_send(&v, STATS, &p, 1); /* one more: the first comes back */
    assert_int_equal(vdrv_take(&v, STATS, NULL), 1);
    virtio_set_status(v.d, 0, false);
    virtio_balloon_poll(b);
    assert_int_equal(virtio_balloon_stats(b).given, 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_target), T(test_inflate),   T(test_turns),
        T(test_traces), T(test_reporting), T(test_stats),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
