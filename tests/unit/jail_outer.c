/*
 * The jail where a filter is around us already: one that has no filters in it, and those
 * that kill for what a jail gives up besides (as systemd's SystemCallFilter= does). A
 * build with sanitizers has no jail.
 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "lib/child.h"
#include "lib/unit.h"

static void probe_twice(void *arg) {
    child_check(os_jail_probe() == 0, "the probe");
    child_check(os_jail_probe() == 0, "the probe has locked us up");
    child_check(!os_jail_enter(&(struct os_jail_needs){0}), "entering");
}

static void test_probe(void **state) {
    struct child_end e = child(probe_twice, NULL);

    assert_child_done(&e);
}

/* A filter around us that has no filters in it. */
static void inside_another(void *arg) {
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int fd;

    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(seccomp), 0);
    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prctl), 1,
                     SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP));
    child_check(!seccomp_load(ctx), "the outer filter");
    child_check(os_jail_probe() < 0, "the probe sees no filter");
    child_check(os_jail_enter(&(struct os_jail_needs){0}) < 0, "no filter is noticed");
    fd = open("/dev/null", O_RDONLY);
    child_check(fd >= 0, "not locked up");
}

static void test_outer_filter(void **state) {
    struct child_end e = child(inside_another, NULL);

    assert_child_done(&e);
}

/* --- filters that kill --- */

static void inside_killer(void *arg) {
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

    seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, *(int *)arg, 0);
    child_check(!seccomp_load(ctx), "the outer filter");
    child_check(!os_jail_enter(&(struct os_jail_needs){0}), "entering");
    open("/dev/null", O_RDONLY);
    child_check(false, "not locked up");
}

/* What is killed for is left out; the filter of ours is there, and says so. */
static void test_outer_killer(void **state) {
    int calls[] = {SCMP_SYS(landlock_create_ruleset),
                   SCMP_SYS(landlock_restrict_self),
                   SCMP_SYS(seccomp),
                   SCMP_SYS(unshare),
                   SCMP_SYS(setns),
                   SCMP_SYS(chroot),
                   SCMP_SYS(mount)};

    for (size_t n = 0; n < ARRAY_SIZE(calls); n++) {
        struct child_end e = child(inside_killer, &calls[n]);

        assert_true(WIFEXITED(e.status));
        assert_int_equal(WEXITSTATUS(e.status), 1);
        assert_non_null(strstr(e.text, "openat"));
        assert_null(strstr(e.text, "not locked up"));
    }
}

static int killed(void) {
    return raise(SIGKILL);
}

static int fine(void) {
    return 3;
}

static void test_child(void **state) {
    assert_int_equal(filter_in_child(fine), 3);
    assert_int_equal(filter_in_child(killed), -EPERM);
    assert_true(filter_survives(killed)); /* nothing is tried where no filter is */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_outer_filter),
        cmocka_unit_test(test_outer_killer),
        cmocka_unit_test(test_child),
    };
    const struct CMUnitTest sanitized[] = {cmocka_unit_test(test_child)};

    if (OS_JAIL_SANITIZED)
        return cmocka_run_group_tests(sanitized, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
