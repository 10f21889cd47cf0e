/*
 * The words of QEMU's monitor: what lines are answered, which commands of the table they
 * become, and a client at a port. The machine's own commands are tests/qemu's.
 */
#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "control/control_int.h"
#include "lib/unit.h"

/* --- a table as the machine's --- */

static bool paused;
static int64_t given;
static char typed[64];

static void run_about(void *arg, struct control_request *r) {
    control_put_text(r, "name", "web");
    control_put_text(r, "engine", "bt");
    control_put_number(r, "pid", 12);
    control_put_number(r, "cpus", 2);
    control_put_number(r, "memory", 512 << 20);
    control_put_bool(r, "paused", paused);
}

static void run_pause(void *arg, struct control_request *r) {
    paused = true;
}

static void run_balloon(void *arg, struct control_request *r) {
    given = control_number(r, "mib", given);
    control_put_number(r, "pages", (double)(given * 256));
}

static void run_keys(void *arg, struct control_request *r) {
    snprintf(typed, sizeof(typed), "%s", control_text(r, "keys", ""));
    if (!strcmp(typed, "no"))
        control_refuse(r, "there is no key '%s'", typed);
}

/* Two ports lead to the guest. */
static void run_forward(void *arg, struct control_request *r) {
    const char *add = control_text(r, "add", ""), *drop = control_text(r, "drop", "");

    snprintf(typed, sizeof(typed), "%s%s%s", add, *drop ? "-" : "", drop);
    if (!*typed)
        control_put(r, "forwards",
                    cJSON_Parse("[{\"net\":0,\"forward\":\"tcp:127.0.0.1:22:22\"},"
                                "{\"net\":0,\"forward\":\"udp:0.0.0.0:5:6\"}]"));
}

static const struct control_arg forward_args[] = {
    {"add", CONTROL_TEXT, false, 1, 127, "one more"},
    {"drop", CONTROL_TEXT, false, 1, 127, "one less"},
    {0},
};
static const struct control_arg balloon_args[] = {
    {"mib", CONTROL_NUMBER, false, 0, 1 << 20, "of it"},
    {0},
};
static const struct control_arg keys_args[] = {
    {"keys", CONTROL_TEXT, true, 1, 40, "of it"},
    {0},
};
static const struct control_command commands[] = {
    {.name = "about", .what = "tells", .run = run_about},
    {.name = "pause", .what = "stops", .run = run_pause},
    {.name = "balloon", .what = "takes", .args = balloon_args, .run = run_balloon},
    {.name = "keys", .what = "types", .args = keys_args, .run = run_keys},
    {.name = "forward", .what = "leads", .args = forward_args, .run = run_forward},
    {0},
};

/* --- words --- */

/* LINE's answer has WANT in it; its event is EVENT. */
static void check(const char *line, const char *want, const char *event) {
    struct control_table t = {0};
    const char *led;
    char *text;

    control_add(&t, commands, NULL);
    text = control_words(&t, line, &led);
    assert_non_null(text);
    if (*want ? !strstr(text, want) : *text)
        fail_msg("'%s': %s", line, text);
    assert_true(event ? led && !strcmp(led, event) : !led);
    free(text);
}

static void test_words(void **unused) {
    check("", "", NULL);
    check(" \t\r\n", "", NULL);
    check("info status", "VM status: running\r\n", NULL);
    check("  stop\r\n", "", "STOP");
    assert_true(paused);
    check("info status  ", "VM status: paused\r\n", NULL);
    check("info name", "web\r\n", NULL);
    check("info cpus", "* CPU #0: thread_id=12\r\n  CPU #1: thread_id=12\r\n", NULL);
    check("info kvm", "kvm support: disabled\r\n", NULL);
    check("info memory_size_summary", "base memory: 536870912\r\n", NULL);
    check("balloon 128", "", NULL);
    assert_int_equal(given, 384);
    check("info balloon", "balloon: actual=128\r\n", NULL);
    check("balloon 4096", "", NULL); /* more than there is: all of it */
    assert_int_equal(given, 0);
    check("sendkey ctrl-alt-f1 100", "", NULL);
    assert_string_equal(typed, "ctrl-alt-f1");
    check("help", "sendkey KEYS", NULL);
    check("?", "system_powerdown", NULL);
}

static void test_forwards(void **unused) {
    check("hostfwd_add tcp:127.0.0.1:2222-:22", "", NULL);
    assert_string_equal(typed, "tcp:127.0.0.1:2222:22");
    check("hostfwd_add net0 :: 2222-:22", "invalid host forwarding rule '2222-:22'",
          NULL);
    check("hostfwd_add net0 ::2222-10.0.2.15:22", "", NULL);
    assert_string_equal(typed, "tcp:0.0.0.0:2222:22");
    check("hostfwd_add udp::53-:53", "", NULL);
    assert_string_equal(typed, "udp:0.0.0.0:53:53");
    check("hostfwd_remove tcp:127.0.0.1:22", "rule for tcp:127.0.0.1:22 removed\r\n",
          NULL);
    assert_string_equal(typed, "-tcp:127.0.0.1:22:22");
    check("hostfwd_remove udp::5", "removed", NULL);
    assert_string_equal(typed, "-udp:0.0.0.0:5:6");
    check("hostfwd_remove tcp:127.0.0.1:2", "not found\r\n", NULL);
    check("hostfwd_remove 2222", "invalid host forwarding rule '2222'", NULL);
    check("hostfwd_add tcp:127.0.0.1:2222", "invalid host", NULL);
}

static void test_refused(void **unused) {
    check("sendkey no", "Error: there is no key 'no'\r\n", NULL);
    check("sendkey \"}{\\", "", NULL); /* quoted on its way */
    assert_string_equal(typed, "\"}{\\");
    check("sendkey", "KEYS is missing", NULL);
    check("cont", "Error: ", NULL); /* this table has no such command */
    check("savevm x", "`bivisor snapshot`", NULL);
    check("eject -f ide1-cd0", "Error: ", NULL); /* nor this one */
    check("eject", "[-f] DRIVE is missing", NULL);
    check("change ide1-cd0 /a", "Error: ", NULL);
    check("change ide1-cd0", "FILE is missing", NULL);
    check("stop it", "unknown command: 'stop it'", NULL);
    check("stopped", "unknown command: 'stopped'", NULL);
    check("info", "unknown command: 'info'", NULL);
    check("a\001\377b", "unknown command: 'a??b'", NULL);
}

static void names(enum control_speech speech, const char *line, const char *wanted) {
    char path[64] = "";
    bool named = control_name(speech, line, strlen(line), path, sizeof(path));

    assert_int_equal(named, *wanted != 0);
    assert_string_equal(named ? path : "", wanted);
}

/* Who reads along understands what the server will. */
static void test_named(void **unused) {
    names(CONTROL_WORDS, "change ide1-cd0 /a/b.iso\r\n", "/a/b.iso");
    names(CONTROL_WORDS, "  change -f ide1-cd1 \"/a/b c.iso\" raw\n", "/a/b c.iso");
    names(CONTROL_WORDS, "change ide1-cd0\n", "");
    names(CONTROL_WORDS, "changes ide1-cd0 /a\n", "");
    names(CONTROL_WORDS, "eject ide1-cd0 /a\n", "");
    names(CONTROL_JSON, "{\"command\":\"disc\",\"path\":\"/a\\u0062\"}\n", "/ab");
    names(CONTROL_JSON, "{\"command\":\"tray\",\"path\":\"/a\"}\n", "");
    names(CONTROL_JSON, "{\"command\":\"disc\",\"path\":7}\n", "");
    names(CONTROL_JSON, "[\"disc\"]\n", "");
    names(CONTROL_JSON, "{\"command\":\"disc\"", "");
    names(CONTROL_JSON,
          "{\"command\":\"disc\",\"path\":\"/"
          "0123456789012345678901234567890123456789012345678901234567890123\"}\n",
          "");
    names(CONTROL_QMP,
          " {\"execute\":\"blockdev-change-medium\",\"arguments\":{\"id\":\"x\","
          "\"filename\":\"/a\"}}",
          "/a");
    names(CONTROL_QMP,
          "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":"
          "\"change ide1-cd0 /b\"}}",
          "/b");
    names(CONTROL_QMP, "{\"execute\":\"eject\",\"arguments\":{\"filename\":\"/a\"}}", "");
    names(CONTROL_QMP, "{\"execute\":\"blockdev-change-medium\"}", "");
    names(CONTROL_QMP, "7", "");
}

/* --- at a port --- */

static void run_loop(void *arg) {
    os_loop_run(arg);
}

/* A port that nobody has; somebody may take it at once, though. */
static unsigned free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(a);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void expect(int fd, const char *end) {
    char got[8192] = "";
    size_t len = 0;

    while (len + 1 < sizeof(got) && !strstr(got, end)) {
        ssize_t n = read(fd, got + len, 1);

        if (n < 0) { /* it does not block */
            usleep(1000);
            continue;
        }
        if (!n)
            fail_msg("ended behind '%s'", got);
        len += (size_t)n;
        got[len] = 0;
    }
}

static void test_client(void **unused) {
    struct control *control = NULL;
    struct os_thread *thread;
    struct os_loop *loop;
    char where[64], why[256];
    int fd, rc = -1;

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(os_loop_new(&loop), 0);
    for (int n = 0; n < 20 && rc; n++) {
        snprintf(where, sizeof(where), "tcp:127.0.0.1:%u", free_port());
        rc = control_open(where, CONTROL_WORDS, &control, why, sizeof(why));
    }
    assert_int_equal(rc, 0);
    control_add(control_table(control), commands, NULL);
    assert_int_equal(control_start(control, loop), 0);
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, run_loop, loop, &thread), 0);
    fd = os_endpoint_connect(where);
    assert_true(fd >= 0);
    expect(fd, "monitor - type 'help' for more information\r\n(qemu) ");
    assert_int_equal(write(fd, "info name\ninfo ", 15), 15);
    expect(fd, "web\r\n(qemu) ");
    assert_int_equal(write(fd, "kvm\r\n", 5), 5);
    expect(fd, "kvm support: disabled\r\n(qemu) ");
    os_loop_stop(loop);
    os_thread_join(thread);
    control_close(control);
    os_loop_free(loop);
    close(fd);
}

/* What is no address is told, and nothing is opened. */
static void test_addresses(void **unused) {
    static const char *const bad[] = {
        "tcp:",         "tcp:127.0.0.1",    "tcp::80",
        "tcp:1.2.3.4:", "tcp:1.2.3.4:x",    "tcp:1.2.3.4:65536",
        "tcp:host:80",  "tcp:[127.0.0.1:8", "tcp:[]:80"};

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        struct os_listener *l = NULL;

        if (os_endpoint_listen(bad[n], &l) != -EINVAL ||
            os_endpoint_connect(bad[n]) != -EINVAL)
            fail_msg("%s", bad[n]);
    }
    assert_int_equal(os_endpoint_connect("/nonexistent/s"), -ENOENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),     cmocka_unit_test(test_forwards),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_client),
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
