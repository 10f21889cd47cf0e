/*
 * Every allocation fails once, as in nomem.c, under the commands: each ends with status 1
 * and one sentence, or as if nothing had been.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "lib/failing.h"
#include "lib/tiny.h"

static char kernel[32];

struct result {
    int status;
    bool failed;
    char out[1 << 16], err[4096];
};

static void slurp(int fd, char *text, size_t size) {
    ssize_t len = pread(fd, text, size - 1, 0);

    text[len > 0 ? len : 0] = 0;
    close(fd);
}

/* In a process of its own, as what a command leaves behind goes with it. */
static void command(char **argv, unsigned n, struct result *r) {
    int out = memfd_create("out", 0), err = memfd_create("err", 0), argc = 0;
    int tell[2];
    pid_t pid;

    /* Not one of those that the jail takes for inherited. */
    assert_int_equal(pipe2(tell, O_CLOEXEC), 0);
    while (argv[argc])
        argc++;
    pid = fork();
    if (!pid) {
        int status;

        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        failing_arm(n);
        status = ctl_main(argc, argv);
        fail_at = 0;
        fflush(NULL);
        _exit(write(tell[1], &failed, 1) == 1 ? status : 99);
    }
    close(tell[1]);
    assert_int_equal(waitpid(pid, &r->status, 0), pid);
    if (!WIFEXITED(r->status) || read(tell[0], &r->failed, 1) != 1)
        fail_msg("%s, failure %u: wait status %#x", argv[1], n, (unsigned)r->status);
    r->status = WEXITSTATUS(r->status);
    close(tell[0]);
    slurp(out, r->out, sizeof(r->out));
    slurp(err, r->err, sizeof(r->err));
}

static bool one_sentence(const char *text) {
    const char *end = strchr(text, '\n');

    return !strncmp(text, "bivisor: error: ", 16) && end && !end[1];
}

/* Names and values in a file of statistics. */
static unsigned figures(const char *path) {
    FILE *f = __real_fopen(path, "re");
    unsigned n = 0;

    assert_non_null(f);
    for (int c; (c = getc(f)) != EOF;)
        n += c == ':';
    fclose(f);
    return n;
}

/* What it prints does not depend on what cannot be had (unless !SAME), nor how many
 * figures are in the file STATS (unless that is NULL): it does all, or says so. The
 * guest's own status stands when only the statistics are lost. */
static void command_with_failures(char **argv, int status, bool same, const char *stats) {
    static struct result good, r;
    unsigned n = 0, count;

    command(argv, 0, &good);
    assert_int_equal(good.status, status);
    count = stats ? figures(stats) : 0;
    do {
        command(argv, ++n, &r);
        if (r.status != status && (r.status != CTL_HOST_FAILURE || !one_sentence(r.err)))
            fail_msg("%s, failure %u: status %d, %s", argv[1], n, r.status, r.err);
        if (r.status == status && same && strcmp(r.out, good.out))
            fail_msg("%s, failure %u: not the same output", argv[1], n);
        if (r.status == status && stats && figures(stats) != count &&
            !(figures(stats) == 0 && one_sentence(r.err)))
            fail_msg("%s, failure %u: not all figures", argv[1], n);
    } while (r.failed);
    assert_true(n > 1);
}

#define COMMAND(...)                                                                     \
    (char *[]) {                                                                         \
        (char *)"bivisor", __VA_ARGS__, NULL                                             \
    }
#define RUN(engine, ...)                                                                 \
    COMMAND((char *)"run", (char *)"--engine", (char *)engine, (char *)"--kernel",       \
            kernel, (char *)"--memory", (char *)"16M", __VA_ARGS__)

static char scratch[] = "/tmp/bivisor-nomem-XXXXXX";

static void test_run(void **state) {
    command_with_failures(RUN("interp", (char *)"--no-reboot"), FAILING_STATUS, true,
                          NULL);
    command_with_failures(RUN("bt", (char *)"--no-reboot"), FAILING_STATUS, true, NULL);
}

static void test_qemu(void **state) {
    command_with_failures(COMMAND((char *)"qemu", (char *)"-m", (char *)"16",
                                  (char *)"-kernel", kernel, (char *)"-nodefaults",
                                  (char *)"-serial", (char *)"stdio",
                                  (char *)"-no-reboot"),
                          FAILING_STATUS, true, NULL);
}

/* In the VNC server's process, too. */
static void test_display(void **state) {
    command_with_failures(RUN("interp", (char *)"--no-reboot", (char *)"--display",
                              (char *)"vnc=unix:/tmp/bivisor-nomem-vnc"),
                          FAILING_STATUS, true, NULL);
}

/* Without cells: a run that cannot have them goes on, and has no figures of theirs. */
static void test_stats(void **state) {
    char option[64];

    snprintf(option, sizeof(option), "--stats=%s", scratch);
    command_with_failures(RUN("bt", option, (char *)"--direct", (char *)"off"),
                          FAILING_STATUS, true, scratch);
}

static void test_recording(void **state) {
    command_with_failures(RUN("bt", (char *)"--record", scratch), FAILING_STATUS, true,
                          NULL);
    command_with_failures(RUN("interp", (char *)"--replay", scratch), FAILING_STATUS,
                          true, NULL);
}

static void test_lockstep(void **state) {
    command_with_failures(COMMAND((char *)"lockstep", (char *)"--kernel", kernel,
                                  (char *)"--memory", (char *)"16M"),
                          FAILING_STATUS, true, NULL);
}

static void test_translate(void **state) {
    command_with_failures(
        COMMAND((char *)"translate", (char *)"--mode", (char *)"32", kernel), CTL_OK,
        true, NULL);
}

/* What the host forbids is not the user's mistake. */
static void test_no_code_memory(void **state) {
    static struct result r;

    deny_code = true;
    command(RUN("bt", (char *)"--no-reboot"), 0, &r);
    deny_code = false;
    assert_int_equal(r.status, CTL_HOST_FAILURE);
    assert_true(one_sentence(r.err) && strstr(r.err, "executable memory"));
}

/* Its report; the rest it leaves to processes of its own. */
static void test_compare(void **state) {
    static struct result r;

    command(COMMAND((char *)"compare"), 1, &r);
    assert_true(r.failed);
    assert_int_equal(r.status, CTL_HOST_FAILURE);
    assert_true(one_sentence(r.err));
}

/* It tells what can be had. */
static void test_check(void **state) {
    command_with_failures(COMMAND((char *)"check"), CTL_OK, false, NULL);
}

static int setup(void **state) {
    int fd = mkstemp(scratch);

    if (fd >= 0)
        close(fd);
    return fd < 0 || tiny_kernel(FAILING_GUEST, sizeof(FAILING_GUEST) - 1, kernel) < 0;
}

static int teardown(void **state) {
    char now[sizeof(scratch) + 4];

    snprintf(now, sizeof(now), "%s.now", scratch); /* of --stats */
    unlink(now);
    return unlink(scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run),       cmocka_unit_test(test_qemu),
        cmocka_unit_test(test_display),   cmocka_unit_test(test_stats),
        cmocka_unit_test(test_recording), cmocka_unit_test(test_lockstep),
        cmocka_unit_test(test_translate), cmocka_unit_test(test_check),
        cmocka_unit_test(test_compare),   cmocka_unit_test(test_no_code_memory),
    };
    cJSON_Hooks hooks = {.malloc_fn = __wrap_malloc, .free_fn = __wrap_free};

    cJSON_InitHooks(&hooks);
    return cmocka_run_group_tests(tests, setup, teardown);
}
