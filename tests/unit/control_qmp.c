/*
 * QEMU's protocol at the control socket: where requests end, what they are answered, and
 * a client at a socket. The program's own commands are tests/qemu's.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/os.h"
#include "control/control_int.h"
#include "lib/unit.h"

/* --- a table as the machine's --- */

static bool paused, ended;
static const char *engine = "bt", *identity;
static int64_t given;
static char pressed[64];

static void run_about(void *arg, struct control_request *r) {
    control_put_text(r, "name", "web");
    control_put_text(r, "engine", engine);
    control_put_number(r, "pid", 12);
    control_put_number(r, "cpus", 2);
    control_put_number(r, "memory", 64 << 20);
    control_put_bool(r, "paused", paused);
    if (identity)
        control_put_text(r, "uuid", identity);
}

static void run_pause(void *arg, struct control_request *r) {
    paused = true;
}

static void run_resume(void *arg, struct control_request *r) {
    paused = false;
}

static void run_quit(void *arg, struct control_request *r) {
    ended = true;
}

static void run_powerdown(void *arg, struct control_request *r) {
    control_refuse(r, "there is no \"button\"");
}

static void run_balloon(void *arg, struct control_request *r) {
    given = control_number(r, "mib", -1);
    control_put_number(r, "pages", 5);
}

static void run_keys(void *arg, struct control_request *r) {
    snprintf(pressed, sizeof(pressed), "%s", control_text(r, "keys", ""));
}

static const struct control_arg balloon_args[] = {
    {"mib", CONTROL_NUMBER, false, 0, 1 << 20, "of it"},
    {0},
};
static const struct control_arg keys_args[] = {
    {"keys", CONTROL_TEXT, true, 1, 40, "of it"},
    {0},
};
static const struct control_command commands[] = {
    {.name = "balloon", .what = "takes", .args = balloon_args, .run = run_balloon},
    {.name = "keys", .what = "types", .args = keys_args, .run = run_keys},
    {.name = "about", .what = "tells", .run = run_about},
    {.name = "pause", .what = "stops", .run = run_pause},
    {.name = "resume", .what = "goes on", .run = run_resume},
    {.name = "quit", .what = "ends", .run = run_quit},
    {.name = "powerdown", .what = "refuses", .run = run_powerdown},
    {0},
};

/* --- requests --- */

/* LINE's answer ends with WANT, and has the event before that, or none. */
static void check(const char *line, const char *event, const char *want) {
    struct control_table t = {0};
    char *text, *last;

    control_add(&t, commands, NULL);
    text = qmp_answer(&t, line, strlen(line));
    assert_non_null(text);
    assert_true(strlen(text) > 2 && !strcmp(text + strlen(text) - 2, "\r\n"));
    text[strlen(text) - 2] = 0;
    last = strrchr(text, '\n');
    assert_true(event ? last && strstr(text, event) && strstr(text, event) < last
                      : !last);
    if (strcmp(last ? last + 1 : text, want))
        fail_msg("%s: %s, not %s", line, text, want);
    free(text);
}

static void test_requests(void **unused) {
    check("{\"execute\":\"qmp_capabilities\"}", NULL, "{\"return\":{}}");
    check("{\"execute\":\"query-status\",\"id\":{\"a\":[1]}}", NULL,
          "{\"return\":{\"status\":\"running\",\"singlestep\":false,\"running\":true},"
          "\"id\":{\"a\":[1]}}");
    check("{\"execute\":\"stop\",\"id\":\"x\"}", "\"event\":\"STOP\"}",
          "{\"return\":{},\"id\":\"x\"}");
    assert_true(paused);
    check("{\"execute\":\"human-monitor-command\",\"arguments\":"
          "{\"command-line\":\"info status\"}}",
          NULL, "{\"return\":\"VM status: paused\\r\\n\"}");
    check("{\"execute\":\"human-monitor-command\",\"arguments\":"
          "{\"command-line\":\"cont\"}}",
          "\"event\":\"RESUME\"}", "{\"return\":\"\"}");
    assert_false(paused);
    check("{\"execute\":\"query-kvm\"}", NULL,
          "{\"return\":{\"enabled\":false,\"present\":false}}");
    engine = "kvm";
    check("{\"execute\":\"query-kvm\"}", NULL,
          "{\"return\":{\"enabled\":true,\"present\":true}}");
    check("{\"execute\":\"query-name\"}", NULL, "{\"return\":{\"name\":\"web\"}}");
    check("{\"execute\":\"query-uuid\"}", NULL,
          "{\"return\":{\"UUID\":\"00000000-0000-0000-0000-000000000000\"}}");
    identity = "123e4567-e89b-12d3-a456-426614174000";
    check("{\"execute\":\"query-uuid\"}", NULL,
          "{\"return\":{\"UUID\":\"123e4567-e89b-12d3-a456-426614174000\"}}");
    identity = NULL;
    check("{\"execute\":\"query-memory-size-summary\"}", NULL,
          "{\"return\":{\"base-memory\":67108864}}");
    check("{\"execute\":\"query-cpus-fast\"}", NULL,
          "{\"return\":[{\"cpu-index\":0,\"thread-id\":12,\"target\":\"x86_64\","
          "\"qom-path\":\"/machine/unattached/device[0]\"},{\"cpu-index\":1,"
          "\"thread-id\":12,\"target\":\"x86_64\","
          "\"qom-path\":\"/machine/unattached/device[1]\"}]}");
    check("{\"execute\":\"query-balloon\"}", NULL, "{\"return\":{\"actual\":67088384}}");
    check("{\"execute\":\"balloon\",\"arguments\":{\"value\":16777216}}", NULL,
          "{\"return\":{}}");
    assert_int_equal(given, 48);
    check("{\"execute\":\"send-key\",\"arguments\":{\"keys\":[{\"type\":\"qcode\","
          "\"data\":\"ctrl\"},{\"type\":\"qcode\",\"data\":\"alt\"}]}}",
          NULL, "{\"return\":{}}");
    assert_string_equal(pressed, "ctrl-alt");
    check("{\"execute\":\"quit\"}", NULL, "{\"return\":{}}");
    assert_true(ended);
}

#define GENERIC "{\"error\":{\"class\":\"GenericError\",\"desc\":\""

static void test_refused(void **unused) {
    check("{\"execute\":\"query-blocks\"}", NULL,
          "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command "
          "query-blocks has not been found\"}}");
    check("{\"execute\":7,\"id\":1}", NULL,
          GENERIC "QMP input lacks member 'execute'\"},\"id\":1}");
    check("{\"execute\":\"system_powerdown\"}", NULL,
          GENERIC "there is no \\\"button\\\"\"}}");
    check("{\"execute\":\"human-monitor-command\",\"arguments\":7}", NULL,
          GENERIC "Parameter 'command-line' is missing\"}}");
    check("{\"execute\":\"human-monitor-command\",\"arguments\":"
          "{\"command-line\":\"human-monitor-command\"}}",
          NULL,
          "{\"return\":\"unknown command: 'human-monitor-command'; help lists "
          "them\\r\\n\"}");
    check("{\"execute\":\"send-key\",\"arguments\":{\"keys\":[{\"data\":\"a\\\"\"}]}}",
          NULL,
          GENERIC "Parameter 'keys' is a list of keys by the names that they have "
                  "(qcode)\"}}");
    check("{\"execute\":\"balloon\"}", NULL, GENERIC "Parameter 'value' is missing\"}}");
    check("[]", NULL, GENERIC "QMP input must be a JSON object\"}}");
    check("{\"a\":\001}", NULL, GENERIC "the line has a control character in it\"}}");
}

static void test_ends(void **unused) {
    static const struct {
        const char *in;
        size_t len;
    } all[] = {
        {"", 0},
        {" \r\n", 0},
        {"{", 0},
        {"{}", 2},
        {" {}{}", 3},
        {"\r\n{\"a\":{\"b\":[1]}}\n", 17},
        {"{\"}\":\"\\\"}\"}x", 11},
        {"{\"a", 0},
        {"{\"a\\", 0},
        {"fly\n{}", 4},
        {"fly", 0},
        {"}", 0},
        {"]\n", 2},
    };

    for (size_t n = 0; n < ARRAY_SIZE(all); n++)
        if (qmp_length(all[n].in, strlen(all[n].in)) != all[n].len)
            fail_msg("%s", all[n].in);
}

/* --- at a socket --- */

static struct os_loop *loop;
static struct control *control;
static struct os_thread *thread;
static char dir[32], path[64];

static void run_loop(void *arg) {
    os_loop_run(loop);
}

static int serve(void **unused) {
    char why[256];

    strcpy(dir, "/tmp/qmp-XXXXXX");
    if (!mkdtemp(dir) || os_loop_new(&loop))
        return -1;
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof(path), "%s/socket", dir);
    if (control_open(path, CONTROL_QMP, &control, why, sizeof(why)))
        return -1;
    control_add(control_table(control), commands, NULL);
    return control_start(control, loop) ||
           os_thread_start(OS_THREAD_WORKER, run_loop, NULL, &thread);
}

static int client(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(a.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next line; "" at the end. */
static const char *hear(int fd) {
    static char line[1 << 16];
    size_t n = 0;

    while (n + 1 < sizeof(line) && read(fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = 0;
    return line;
}

/* Greeted; requests without newlines, in pieces; a line that is too long; the end. */
static void test_client(void **unused) {
    int a = client(), b = client();
    char *line = malloc(CONTROL_LINE_MAX + 2);

    assert_non_null(strstr(hear(a), "{\"QMP\":{\"version\":{\"qemu\":{"));
    assert_non_null(strstr(hear(b), "\"capabilities\":[]}}"));
    say(a, "{\"execute\":\"qmp_capabilities\"}\r\n\n {\"exec");
    assert_string_equal(hear(a), "{\"return\":{}}\r");
    say(a, "ute\":\"query-name\"}");
    assert_string_equal(hear(a), "{\"return\":{\"name\":\"web\"}}\r");
    memset(line, 'x', CONTROL_LINE_MAX + 1);
    line[CONTROL_LINE_MAX + 1] = 0;
    say(b, line);
    assert_non_null(strstr(hear(b), "{\"error\":{\"class\":\"GenericError\""));
    say(b, "rest\n{\"execute\":\"query-uuid\"}");
    assert_non_null(strstr(hear(b), "UUID"));
    free(line);
    os_loop_stop(loop);
    os_thread_join(thread);
    control_event(control, "RESET", "guest-reset");
    control_event(control, "SHUTDOWN", "host-qmp-quit");
    control_close(control);
    os_loop_free(loop);
    assert_non_null(strstr(hear(a), "\"event\":\"RESET\",\"data\":{\"guest\":true,"
                                    "\"reason\":\"guest-reset\"}}\r"));
    assert_non_null(strstr(hear(a), "\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,"
                                    "\"reason\":\"host-qmp-quit\"}}\r"));
    assert_string_equal(hear(a), "");
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rmdir(dir), 0);
    close(a);
    close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ends),
        cmocka_unit_test_setup(test_client, serve),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
