/*
 * A share as the machine has it: the server in its process and its jail, messages through
 * the memory that both have, and what becomes of them when the guest begins anew or the
 * server is gone. And each allocation fails once.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_loop.h"
#include "lib/failing.h"
#include "lib/scratch.h"
#include "lib/unit.h"
#include "share/p9_int.h"

static struct os_loop *loop;
static struct share *s;
static unsigned done, wanted; /* answers */
static unsigned last_slot;
static uint8_t last[64];
static uint32_t last_len;

static void on_done(void *arg, unsigned slot, const uint8_t *answer, uint32_t len) {
    last_slot = slot;
    last_len = len;
    memcpy(last, answer, len < sizeof(last) ? len : sizeof(last));
    done++;
}

static void on_more(void *arg) {
    if (done >= wanted)
        os_loop_stop(loop);
}

static void nothing(void *arg) {
}

static const struct share_guard nobody = {nothing, nothing, NULL};

static int begin(enum jail_want jail) {
    const struct share_config cfg = {.tag = "t", .dir = "root", .jail = jail};
    const struct share_user user = {.done = on_done, .more = on_more};
    char why[256] = "";
    int rc;

    assert_int_equal(os_loop_new(&loop), 0);
    rc = share_open(&cfg, &s, why, sizeof(why));
    if (rc) {
        os_loop_free(loop);
        return rc;
    }
    share_plug(s, &user);
    done = 0;
    return share_start(s, loop, &nobody);
}

static int setup(void **state) {
    assert_int_equal(mkdir("root", 0755), 0);
    return begin(OS_JAIL_SANITIZED ? JAIL_OFF : JAIL_ON);
}

static int teardown(void **state) {
    share_stop(s);
    share_close(s);
    os_loop_free(loop);
    return scratch_clear(NULL);
}

/* Tversion, or Tattach. */
static unsigned send(unsigned type) {
    uint8_t bytes[64], *to;
    struct wire_out out = {.at = bytes, .left = sizeof(bytes)};
    unsigned slot;

    wire_put32(&out, type == P9_VERSION ? 21 : 23);
    wire_put8(&out, (uint8_t)type);
    wire_put16(&out, 1);
    if (type == P9_VERSION) {
        wire_put32(&out, 65536);
        wire_put_text(&out, "9P2000.L", 8);
    } else {
        wire_put32(&out, 1);
        wire_put64(&out, ~0u); /* no afid, no name, nothing */
        wire_put32(&out, 0);
    }
    to = share_begin(s, &slot);
    assert_non_null(to);
    memcpy(to, bytes, sizeof(bytes));
    share_submit(s, slot, (uint32_t)(out.at - bytes), 4096);
    return slot;
}

static void wait_for(unsigned count) {
    wanted = count;
    while (done < wanted)
        os_loop_run(loop);
}

static void test_messages(void **state) {
    unsigned slot = send(P9_VERSION);

    wait_for(1);
    assert_int_equal(last_slot, slot);
    assert_int_equal(last_len, 21);
    assert_int_equal(last[4], P9_VERSION + 1);
    send(P9_ATTACH);
    wait_for(2);
    assert_int_equal(last[4], P9_ATTACH + 1);
    assert_string_equal(share_tag(s), "t");
    for (unsigned round = 0; round < 200; round++) {
        unsigned before = done;

        for (unsigned k = 0; k < SHARE_SLOTS; k++)
            send(P9_ATTACH); /* that fid is in use */
        assert_null(share_begin(s, &slot));
        wait_for(before + SHARE_SLOTS);
        assert_int_equal(last[4], P9_LERROR + 1);
    }
    assert_non_null(share_begin(s, &slot));
    share_drop(s, slot);
}

/* With all places taken, and answers on their way that nobody waits for. */
static void test_reset(void **state) {
    unsigned slot;

    send(P9_VERSION);
    send(P9_ATTACH);
    wait_for(2);
    for (unsigned k = 0; k < SHARE_SLOTS; k++)
        send(P9_ATTACH);
    share_reset(s);
    share_reset(s);
    wanted = 0;
    while (!share_begin(s, &slot))
        os_loop_run(loop);
    share_drop(s, slot);
    assert_int_equal(done, 2);
    /* The fid is free. */
    send(P9_VERSION);
    send(P9_ATTACH);
    wait_for(4);
    assert_int_equal(last[4], P9_ATTACH + 1);
}

static pid_t child_of(pid_t parent) {
    char path[64];
    int pid = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)parent);
    f = fopen(path, "r");
    if (f && fscanf(f, "%d", &pid) != 1)
        pid = -1;
    if (f)
        fclose(f);
    return pid;
}

static void test_server_gone(void **state) {
    unsigned slot;
    pid_t pid;

    while (waitpid(-1, NULL, WNOHANG) > 0)
        ; /* those of tests before */
    pid = child_of(getpid());
    assert_true(pid > 0);
    kill(pid, SIGSTOP);
    send(P9_VERSION);
    kill(pid, SIGKILL);
    wait_for(1);
    assert_int_equal(last_len, 0);
    assert_null(share_begin(s, &slot));
    share_reset(s);
}

static void test_refusals(void **state) {
    struct share_config cfg = {.tag = "t", .dir = "none"};
    struct share *none = NULL;
    char why[256];

    assert_int_equal(share_open(&cfg, &none, why, sizeof(why)), -ENOENT);
    assert_string_equal(why,
                        "cannot open the directory 'none': No such file or directory");
    close(open("file", O_CREAT | O_WRONLY, 0600));
    cfg.dir = "file";
    assert_int_equal(share_open(&cfg, &none, why, sizeof(why)), -ENOTDIR);
    assert_null(none);
}

static unsigned descriptors(void) {
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_no_memory(void **state) {
    const struct share_config cfg = {.tag = "t", .dir = "root", .jail = JAIL_OFF};
    unsigned n = 0, good = 0;

    do {
        struct share *other = NULL;
        long before = blocks;
        unsigned fds = descriptors(), maps = mappings();
        char why[256] = "";
        int rc;

        failing_arm(++n);
        rc = share_open(&cfg, &other, why, sizeof(why));
        fail_at = 0;
        good += !rc;
        if (rc && (!*why || strchr(why, '\n') || other))
            fail_msg("failure %u: %d, '%s'", n, rc, why);
        share_close(other);
        if (blocks != before || descriptors() != fds || mappings() != maps)
            fail_msg("failure %u: something is left", n);
    } while (failed || !good || n < 10); /* those in the server's process among them */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
    };

    signal(SIGPIPE, SIG_IGN);
    alarm(240);
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
