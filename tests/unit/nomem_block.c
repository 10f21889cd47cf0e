/*
 * Every allocation of a disk fails once: it is opened and used with the first, the
 * second, the third ... of them failing, until none is left to fail. Each time there is
 * an error with a sentence, or a request that fails, or it does not matter; nothing is
 * left behind, and images stay good.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/os_loop.h"
#include "block/block.h"
#include "lib/failing.h"
#include "lib/qemuimg.h"
#include "lib/scratch.h"
#include "lib/unit.h"

#define SIZE (4u << 20)

static unsigned descriptors(void) {
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* --- requests, executed there and then --- */

static uint64_t due(void *arg) {
    return 0;
}

static int result;

static void done(struct block_request *r, int rc) {
    result = rc;
}

static int perform(struct block *b, struct block_pool *pool, enum block_op op,
                   uint64_t offset, uint8_t *buf, size_t len) {
    const struct block_iov iov[2] = {{buf, len / 2}, {buf + len / 2, len - len / 2}};
    struct block_request r = {.op = op,
                              .offset = offset,
                              .length = len,
                              .iov = iov,
                              .iov_count = 2,
                              .done = done};

    result = 1;
    block_submit(b, &r);
    block_pool_deliver(pool, 0);
    assert_true(result <= 0);
    return result;
}

/* 0, or that of the first that failed. */
static int use(struct block *b) {
    const struct block_host host = {.due = due};
    static uint8_t buf[65536];
    struct block_pool *pool;
    int rc = block_pool_new(&host, &pool), failing = 0;

    if (rc)
        return rc;
    block_attach(b, pool);
    for (unsigned n = 0; n < 6; n++) {
        static const enum block_op ops[] = {BLOCK_WRITE,   BLOCK_READ,  BLOCK_ZEROES,
                                            BLOCK_DISCARD, BLOCK_WRITE, BLOCK_FLUSH};

        rc = perform(b, pool, ops[n], n * 200704ull, buf, 4096 * (1 + n % 3));
        failing = failing ? failing : rc;
    }
    block_pool_free(pool);
    return failing;
}

static void with_failures(const struct block_spec *spec, unsigned least) {
    unsigned n = 0, good = 0;

    do {
        long before = blocks;
        unsigned fds = descriptors();
        struct block *b = NULL;
        char why[512] = "";
        int rc;

        failing_arm(++n);
        rc = block_open(spec, &b, why, sizeof(why));
        if (rc && (b || !*why || strchr(why, '\n')))
            fail_msg("failure %u: %d, '%s'", n, rc, why);
        if (!rc)
            rc = use(b);
        if (rc && rc != -ENOMEM)
            fail_msg("failure %u: %d", n, rc);
        block_close(b);
        fail_at = 0;
        good += !rc;
        /* Of a server's disk libnbd makes what we free. */
        if (block_is_server(spec->path))
            before = blocks;
        if (blocks != before || descriptors() != fds)
            fail_msg("failure %u: %ld blocks, %d descriptors are left", n,
                     blocks - before, (int)(descriptors() - fds));
        if (spec->overlay && strcmp(spec->overlay, "temp"))
            unlink(spec->overlay);
    } while (failed || !good);
    assert_in_range(n, least, 1000);
}

static void test_raw(void **state) {
    assert_int_equal(system("truncate -s 4M a"), 0);
    with_failures(&(struct block_spec){.path = "a"}, 3);
}

static void good_image(const char *path) {
    const char *said;
    int rc = qemu_img(&said, "check -f qcow2 %s", path);

    if (rc && rc != 3) /* 3: leaks */
        fail_msg("%s", said);
}

static void test_qcow2(void **state) {
    assert_int_equal(system("truncate -s 4M base; yes | head -c 3M | "
                            "dd of=base conv=notrunc status=none"),
                     0);
    qemu_img_good("create -q -f qcow2 -b base -F raw a.qcow2 4M");
    with_failures(&(struct block_spec){.path = "a.qcow2"}, 10);
    good_image("a.qcow2");
    qemu_img_good("convert -c -f raw -O qcow2 base c.qcow2");
    with_failures(&(struct block_spec){.path = "c.qcow2"}, 10);
    good_image("c.qcow2");
}

/* The table of counts grows. */
static void test_growing(void **state) {
    qemu_img_good("create -q -f qcow2 -o refcount_bits=64,cluster_size=512,"
                  "preallocation=metadata a.qcow2 1600k");
    qemu_img_good("resize -q a.qcow2 4M");
    with_failures(&(struct block_spec){.path = "a.qcow2"}, 8);
    good_image("a.qcow2");
}

static void test_overlays(void **state) {
    assert_int_equal(system("truncate -s 4M base"), 0);
    with_failures(&(struct block_spec){.path = "base", .overlay = "temp"}, 10);
    with_failures(&(struct block_spec){.path = "base", .overlay = "o"}, 10);
}

/* A disk of a server; what cannot be kept for a server that comes back is flushed. */
static void test_nbd(void **state) {
    if (system("truncate -s 4M base && nbdkit -U $PWD/sock -P pid --filter=multi-conn "
               "file file=base "
               "multi-conn-mode=disable 2>&1"))
        fail_msg("nbdkit is missing: tools/deps check installs it");
    with_failures(&(struct block_spec){.path = "nbd+unix:///?socket=sock"}, 5);
    assert_int_equal(system("kill $(cat pid)"), 0);
}

/* The workers. */
static void test_pool(void **state) {
    unsigned n = 0, good = 0;

    do {
        long before = blocks;
        struct block_pool *pool = NULL;
        struct os_loop *loop;

        assert_int_equal(os_loop_new(&loop), 0);
        failing_arm(++n);
        if (!block_pool_new(&(struct block_host){.loop = loop}, &pool))
            good++;
        fail_at = 0;
        block_pool_free(pool);
        os_loop_free(loop);
        assert_int_equal(blocks, before);
    } while (failed || !good);
    assert_in_range(n, 1 + BLOCK_WORKERS, 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_raw, scratch_clear),
        cmocka_unit_test_teardown(test_qcow2, scratch_clear),
        cmocka_unit_test_teardown(test_growing, scratch_clear),
        cmocka_unit_test_teardown(test_overlays, scratch_clear),
        cmocka_unit_test_teardown(test_nbd, scratch_clear),
        cmocka_unit_test_teardown(test_pool, scratch_clear),
    };

    return cmocka_run_group_tests(tests, qemu_img_enter, scratch_leave);
}
