/*
 * Disks of a server, over unix sockets: nbdkit with plugins and filters that are slow,
 * broken or limited, and qemu-nbd. Also what pool.c does when a server says nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "block/block_int.h"
#include "lib/disk.h"
#include "lib/rnd.h"
#include "lib/scratch.h"
#include "lib/unit.h"

#define SIZE (4u << 20)

static struct disk_rig rig;
static char uri[128];
static pid_t server;

static int group_setup(void **state) {
    if (system("nbdkit --version >/dev/null && qemu-nbd --version >/dev/null"))
        fail_msg("nbdkit or qemu-nbd is missing: tools/deps check installs them");
    return scratch_enter(state);
}

static int setup(void **state) {
    server = 0;
    disk_rig_open(&rig);
    return 0;
}

static void end_server(int how) {
    if (server) {
        kill(server, how);
        waitpid(server, NULL, 0);
    }
    server = 0;
    unlink("sock");
}

static int teardown(void **state) {
    disk_rig_close(&rig);
    end_server(SIGKILL);
    return scratch_clear(state);
}

/* Runs COMMAND, a server at the socket "sock", until end_server(). */
static void serve(const char *command) {
    char line[512];
    struct stat st;

    snprintf(line, sizeof(line), "exec %s", command);
    server = fork();
    if (!server) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", line, NULL);
        _exit(127);
    }
    for (unsigned n = 0; n < 6000 && stat("sock", &st); n++)
        usleep(10000);
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/sock", scratch_path());
}

static struct block *open_nbd(bool readonly) {
    const struct block_spec spec = {.path = uri, .readonly = readonly};

    return disk_must(&rig, &spec);
}

/* All operations against a model; then what the server has in FILE. */
static void exercise(const char *file) {
    uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE);
    struct block *b = open_nbd(false);
    FILE *f;

    assert_int_equal(block_size(b), SIZE);
    assert_false(block_readonly(b));
    rnd_fill(model, SIZE, 1);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, model, SIZE), 0);
    for (unsigned n = 0; n < 60; n++) {
        size_t len = 512 * (1 + rnd() % 300), at = rnd() % ((SIZE - len) / 512) * 512;

        if (one_in(3)) {
            assert_int_equal(disk_do(&rig, b, BLOCK_READ, at, buf, len), 0);
            assert_memory_equal(buf, model + at, len);
        } else if (one_in(3)) {
            assert_int_equal(disk_do(&rig, b, BLOCK_ZEROES, at, NULL, len), 0);
            memset(model + at, 0, len);
        } else if (one_in(4)) {
            assert_int_equal(disk_do(&rig, b, BLOCK_DISCARD, at, NULL, len), 0);
            assert_int_equal(disk_do(&rig, b, BLOCK_READ, at, model + at, len), 0);
        } else {
            rnd_fill(model + at, len, n);
            assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, at, model + at, len), 0);
        }
    }
    assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(block_close(b), 0);
    f = fopen(file, "r");
    assert_non_null(f);
    assert_int_equal(fread(buf, 1, SIZE, f), SIZE);
    fclose(f);
    assert_memory_equal(buf, model, SIZE);
    free(model);
    free(buf);
}

static void test_nbdkit(void **state) {
    assert_int_equal(system("truncate -s 4M file"), 0);
    serve("nbdkit -f -U sock file file=file");
    exercise("file");
}

static void test_qemu_nbd(void **state) {
    assert_int_equal(system("truncate -s 4M file"), 0);
    serve("qemu-nbd -t -e 8 -k $PWD/sock -f raw --discard=unmap file");
    exercise("file");
}

/* qcow2 through another's eyes, and an overlay over a server. */
static void test_overlay(void **state) {
    struct block_spec spec = {.path = uri, .overlay = "o.qcow2"};
    uint8_t in[4096], out[4096];
    struct block *b;

    assert_int_equal(system("qemu-img create -q -f qcow2 base.qcow2 4M"), 0);
    serve("qemu-nbd -r -t -e 8 -k $PWD/sock -f qcow2 base.qcow2");
    for (unsigned round = 0; round < 4; round++) {
        spec.overlay = round % 2 ? "temp" : "o.qcow2";
        b = disk_must(&rig, &spec);
        if (round == 2) { /* as it was left */
            assert_int_equal(disk_do(&rig, b, BLOCK_READ, 8192, out, sizeof(out)), 0);
            assert_memory_equal(out, in, sizeof(in));
        }
        if (round == 0)
            rnd_fill(in, sizeof(in), 7);
        assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 8192, in, sizeof(in)), 0);
        assert_int_equal(disk_do(&rig, b, BLOCK_READ, 8192, out, sizeof(out)), 0);
        assert_memory_equal(out, in, sizeof(in));
        assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, out, sizeof(out)), 0);
        assert_int_equal(out[0] | out[4095], 0);
        assert_int_equal(block_close(b), 0);
    }
}

/* One connection only, small requests only, no zeros and no trim. */
static void test_limited(void **state) {
    assert_int_equal(system("truncate -s 4M file"), 0);
    serve("nbdkit -f -U sock --filter=blocksize-policy --filter=multi-conn "
          "--filter=nozero --filter=fua file file=file blocksize-maximum=64k "
          "blocksize-error-policy=error multi-conn-mode=disable");
    exercise("file");
}

static void refused(const struct block_spec *spec, const char *sentence) {
    char why[DISK_WHY];

    assert_null(disk_try(&rig, spec, why));
    if (!strstr(why, sentence))
        fail_msg("'%s' says not '%s'", why, sentence);
}

static void test_refused(void **state) {
    struct block_spec spec = {.path = uri};
    struct block *b;

    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/nobody", scratch_path());
    refused(&spec, "cannot connect to 'nbd+unix://");
    serve("nbdkit -f -U sock -r memory 1M");
    refused(&spec, "cannot be written to; ',readonly' or ',overlay=temp'");
    spec.format = BLOCK_QCOW2;
    refused(&spec, "what a server serves is raw");
    b = open_nbd(true);
    assert_true(block_readonly(b));
    block_close(b);
    end_server(SIGTERM);
    serve("nbdkit -f -U sock --filter=blocksize-policy memory 1M blocksize-minimum=4096");
    spec.format = BLOCK_BY_NAME;
    refused(&spec, "takes no requests as small as a sector");
}

/* Errors of the server's, and its end, are errors that the guest sees. */
static void test_errors(void **state) {
    uint8_t buf[4096] = {0};
    struct block *b;

    serve("nbdkit -f -U sock --filter=error memory 4M error=ENOSPC error-pwrite-rate=1");
    b = open_nbd(false);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf)), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, buf, sizeof(buf)), -ENOSPC);
    end_server(SIGKILL);
    for (unsigned n = 0; n < 6; n++)
        assert_true(disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf)) < 0);
    assert_true(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0) < 0);
    assert_true(block_close(b) < 0); /* what it had is not durable */
}

/* A server that has fallen silent is left, and the requests come back. */
static void test_silent(void **state) {
    struct disk_request q[8];
    uint8_t buf[512];
    struct block *b;

    assert_int_equal(system("truncate -s 4M file"), 0);
    serve("nbdkit -f -U sock file file=file");
    b = open_nbd(true);
    kill(server, SIGSTOP);
    for (unsigned n = 0; n < 8; n++)
        disk_begin(&rig, b, &q[n], BLOCK_READ, n * 512, buf, 512);
    while (block_in_flight(b) && !__atomic_load_n(&b->running, __ATOMIC_RELAXED))
        usleep(1000);
    block_drain(b);
    assert_int_equal(block_in_flight(b), 0);
    for (unsigned n = 0; n < 8; n++)
        assert_int_equal(q[n].calls, 0);
    kill(server, SIGCONT);
    block_close(b);
}

/* Nor is it waited for at the end, when nothing was in flight. */
static void test_silent_end(void **state) {
    struct block *b;

    assert_int_equal(system("truncate -s 4M file"), 0);
    serve("nbdkit -f -U sock file file=file");
    b = open_nbd(false);
    kill(server, SIGSTOP);
    assert_int_equal(block_close(b), -ETIMEDOUT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_nbdkit),  TEST(test_qemu_nbd),   TEST(test_overlay),
        TEST(test_limited), TEST(test_refused),    TEST(test_errors),
        TEST(test_silent),  TEST(test_silent_end),
    };

    return cmocka_run_group_tests(tests, group_setup, scratch_leave);
}
