/*
 * Disks of a server, over unix sockets: nbdkit with plugins and filters that are slow,
 * broken or limited, and qemu-nbd; servers that end and come back, with all that they had
 * or without what they had not made durable. Also what pool.c does when a server says
 * nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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

/* No thread of the server's answers any more. */
static void silence(void) {
    int status;

    kill(server, SIGSTOP);
    assert_int_equal(waitpid(server, &status, WUNTRACED), server);
    assert_true(WIFSTOPPED(status));
}

/* A server that has fallen silent is left, and the requests come back. */
static void test_silent(void **state) {
    struct disk_request q[8];
    uint8_t buf[512];
    struct block *b;

    assert_int_equal(system("truncate -s 4M file"), 0);
    serve("nbdkit -f -U sock file file=file");
    b = open_nbd(true);
    silence();
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
    silence();
    assert_int_equal(block_close(b), -ETIMEDOUT);
}

/* --- servers that end and come back --- */

#define FILE_SERVER "nbdkit -f -U sock file file=file"

static char other_uri[64]; /* "": the socket's */

static struct block *open_patient(unsigned seconds) {
    const struct block_spec spec = {.path = *other_uri ? other_uri : uri,
                                    .reconnect = seconds};

    return disk_must(&rig, &spec);
}

static void must_read(struct block *b, size_t at, const uint8_t *model, size_t len) {
    uint8_t *buf = malloc(len);

    assert_int_equal(disk_do(&rig, b, BLOCK_READ, at, buf, len), 0);
    assert_memory_equal(buf, model + at, len);
    free(buf);
}

/* Requests of all kinds are under way whenever the server is killed; none fails, and what
 * is there in the end is what was written. */
static void comes_back(const char *command) {
    uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE);
    struct disk_request q[16];
    struct block *b;

    serve(command);
    b = open_patient(100000);
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned n = 0; n < 16; n++) { /* each at a place of its own */
            size_t at = SIZE / 16 * n + 512 * (rnd() % 64), len = 512 * (1 + rnd() % 200);

            if (n % 4 == 3) {
                disk_begin(&rig, b, &q[n], BLOCK_READ, at, buf + at, len);
            } else if (n % 8 == 6) {
                memset(model + at, 0, len);
                disk_begin(&rig, b, &q[n], BLOCK_ZEROES, at, NULL, len);
            } else {
                rnd_fill(model + at, len, round * 16 + n);
                disk_begin(&rig, b, &q[n], BLOCK_WRITE, at, model + at, len);
            }
            if (n == round * 3)
                end_server(SIGKILL);
        }
        serve(command);
        disk_wait(&rig, 16);
        for (unsigned n = 0; n < 16; n++)
            assert_int_equal(q[n].rc, 0);
        must_read(b, 0, model, SIZE);
        if (one_in(2))
            assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    }
    assert_int_equal(block_close(b), 0);
    free(model);
    free(buf);
}

static void test_back_nbdkit(void **state) {
    assert_int_equal(system("truncate -s 4M file"), 0);
    comes_back(FILE_SERVER);
}

static void test_back_limited(void **state) {
    assert_int_equal(system("truncate -s 4M file"), 0);
    comes_back("nbdkit -f -U sock --filter=multi-conn file file=file "
               "multi-conn-mode=disable");
}

/* Over TCP; "sock" is where the server's number is, when it is ready. */
static void test_back_tcp(void **state) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t size = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char command[128];

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    close(fd);
    snprintf(other_uri, sizeof(other_uri), "nbd://127.0.0.1:%u", ntohs(a.sin_port));
    snprintf(command, sizeof(command),
             "nbdkit -f -i 127.0.0.1 -p %u -P sock file file=file", ntohs(a.sin_port));
    assert_int_equal(system("truncate -s 4M file"), 0);
    comes_back(command);
    *other_uri = 0;
}

/* qemu-nbd has the tables of its image in memory: killed, it loses what was written. */
static void test_back_qemu_nbd(void **state) {
    assert_int_equal(system("qemu-img create -q -f qcow2 file 4M"), 0);
    comes_back("qemu-nbd -t -e 8 -k $PWD/sock -f qcow2 file");
    end_server(SIGTERM);
    assert_int_equal(system("qemu-img check -q -f qcow2 -r leaks file"), 0);
}

/* A server that forgets all that was not flushed: it is told again, in its order. */
static void test_forgetful(void **state) {
    uint8_t *model = calloc(1, SIZE);
    struct block *b;

    assert_int_equal(system("truncate -s 4M file"), 0);
    serve(FILE_SERVER);
    b = open_patient(100000);
    rnd_fill(model, SIZE, 1);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, model, SIZE), 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(system("cp file flushed"), 0);
    for (unsigned n = 0; n < 40; n++) {
        size_t len = 512 * (1 + rnd() % 300), at = rnd() % ((SIZE - len) / 512) * 512;

        rnd_fill(model + at, len, n);
        if (one_in(4))
            memset(model + at, 0, len);
        assert_int_equal(disk_do(&rig, b, model[at + 1] ? BLOCK_WRITE : BLOCK_ZEROES, at,
                                 model[at + 1] ? model + at : NULL, len),
                         0);
        if (n % 8 == 7) { /* a different part is lost each time */
            end_server(SIGKILL);
            assert_int_equal(system("cp flushed file"), 0);
            serve(FILE_SERVER);
        }
    }
    must_read(b, 0, model, SIZE);
    assert_int_equal(block_close(b), 0);
    free(model);
}

/* More than the journal takes is made durable by the way, and is not kept. */
static void test_much(void **state) {
    const size_t part = 2u << 20;
    uint8_t *buf = malloc(part), *back = malloc(part);
    struct block *b;

    assert_int_equal(system("truncate -s 80M file"), 0);
    serve(FILE_SERVER);
    b = open_patient(100000);
    for (unsigned n = 0; n < 40; n++) {
        rnd_fill(buf, part, n);
        assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, n * part, buf, part), 0);
    }
    end_server(SIGKILL);
    /* What was flushed is not written again: the last 32 MiB are. */
    assert_int_equal(system("truncate -s 0 file && truncate -s 80M file"), 0);
    serve(FILE_SERVER);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, back, part), 0);
    assert_int_equal(back[0] | back[part - 1], 0);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 39 * part, back, part), 0);
    assert_memory_equal(back, buf, part);
    assert_int_equal(block_close(b), 0);
    free(buf);
    free(back);
}

/* What cannot be written again is an error of each flush that follows. */
static void test_spoiled(void **state) {
    uint8_t buf[4096];
    struct block *b;

    assert_int_equal(system("truncate -s 4M file"), 0);
    serve(FILE_SERVER);
    b = open_patient(100000);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, buf, sizeof(buf)), 0);
    end_server(SIGKILL);
    serve("nbdkit -f -U sock --filter=error file file=file error=ENOSPC "
          "error-pwrite-rate=1");
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf)), 0);
    for (unsigned n = 0; n < 2; n++)
        assert_int_equal(disk_do(&rig, b, BLOCK_FLUSH, 0, NULL, 0), -ENOSPC);
    assert_int_equal(block_close(b), -ENOSPC);
}

/* Who has waited long enough sees errors, until the server is back. */
static void test_late(void **state) {
    uint8_t buf[4096] = {0};
    struct block *b;
    int rc = -1;

    assert_int_equal(system("truncate -s 4M file"), 0);
    serve(FILE_SERVER);
    b = open_patient(1);
    end_server(SIGKILL);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf)), -EIO);
    assert_int_equal(disk_do(&rig, b, BLOCK_WRITE, 0, buf, sizeof(buf)), -EIO);
    serve("nbdkit -f -U sock memory 5M"); /* somebody else's */
    usleep(1100000);
    assert_int_equal(disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf)), -EIO);
    end_server(SIGKILL);
    serve(FILE_SERVER);
    for (unsigned n = 0; n < 600 && rc; n++) {
        usleep(100000);
        rc = disk_do(&rig, b, BLOCK_READ, 0, buf, sizeof(buf));
    }
    assert_int_equal(rc, 0);
    assert_int_equal(block_close(b), 0);
}

/* One connection, and two requests of which the first is not answered before the second:
 * the server would say EIO in the end. */
static void test_parallel(void **state) {
    uint8_t buf[2][512];
    struct disk_request q[2];
    struct block *b;

    serve("nbdkit -f -U sock eval get_size='echo 1M' can_multi_conn='exit 3' "
          "thread_model='echo parallel' pread='"
          "if [ $4 = 0 ]; then n=0; while [ ! -e go ]; do sleep 0.1; n=$((n+1)); "
          "[ $n -lt 600 ] || { echo EIO >&2; exit 1; }; done; "
          "else : >go; fi; head -c $3 /dev/zero'");
    b = open_nbd(true);
    for (unsigned n = 0; n < 2; n++)
        disk_begin(&rig, b, &q[n], BLOCK_READ, n * 65536, buf[n], 512);
    disk_wait(&rig, 2);
    assert_int_equal(q[0].rc, 0);
    assert_int_equal(q[1].rc, 0);
    block_close(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_nbdkit),       TEST(test_qemu_nbd),   TEST(test_overlay),
        TEST(test_limited),      TEST(test_refused),    TEST(test_errors),
        TEST(test_silent),       TEST(test_silent_end), TEST(test_back_nbdkit),
        TEST(test_back_limited), TEST(test_back_tcp),   TEST(test_back_qemu_nbd),
        TEST(test_forgetful),    TEST(test_much),       TEST(test_spoiled),
        TEST(test_late),         TEST(test_parallel),
    };

    return cmocka_run_group_tests(tests, group_setup, scratch_leave);
}
