/*
 * The control socket: what is answered to which line, and clients of every kind at a
 * socket of its own. The program's own commands are tests/cli's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "control/control.h"

/* --- a table --- */

static unsigned calls;

static void run_add(void *arg, struct control_request *r) {
    int64_t a = control_number(r, "a", 0), b = control_number(r, "b", 100);

    calls++;
    assert_string_equal(arg, "the arithmetic");
    if (control_bool(r, "bad", false))
        control_refuse(r, "it is %s", "bad");
    control_put_number(r, "sum", (double)(a + b));
}

static const struct control_arg add_args[] = {
    {"a", CONTROL_NUMBER, true, -5, 1000, "a summand"},
    {"b", CONTROL_NUMBER, false, 0, CONTROL_NUMBER_MAX, "another"},
    {"bad", CONTROL_BOOL, false, 0, 0, "refuse"},
    {0},
};

static const struct control_arg echo_args[] = {
    {"text", CONTROL_TEXT, true, 1, 60000, "what to say"},
    {"times", CONTROL_NUMBER, false, 1, 1000, "how often"},
    {0},
};

static void run_echo(void *arg, struct control_request *r) {
    int64_t times = control_number(r, "times", 1);
    char name[16];

    calls++;
    for (int64_t n = 0; n < times; n++) {
        snprintf(name, sizeof(name), "text%d", (int)n);
        control_put_text(r, times == 1 ? "text" : name, control_text(r, "text", "?"));
    }
}

/* --- an answer that comes later --- */

static struct control_request *put_off;

static void run_wait(void *arg, struct control_request *r) {
    put_off = control_later(r);
    if (!put_off)
        control_refuse(r, "nobody waits");
}

static const struct control_command arithmetic[] = {{"add", "adds", add_args, run_add},
                                                    {0}};
static const struct control_command others[] = {
    {"echo", "says it", echo_args, run_echo}, {"wait", "is slow", NULL, run_wait}, {0}};

static void fill_table(struct control_table *t) {
    static char name[] = "the arithmetic";

    control_add(t, arithmetic, name);
    control_add(t, others, NULL);
}

/* --- lines --- */

static void check_line(const char *line, size_t len, const char *want) {
    struct control_table t = {0};
    char *text, *exact = malloc(len ? len : 1);

    fill_table(&t);
    memcpy(exact, line, len); /* so that a byte behind it is seen */
    text = control_answer(&t, exact, len);
    assert_non_null(text);
    assert_int_equal(strcspn(text, "\n"), strlen(text) - 1);
    text[strlen(text) - 1] = 0;
    if (strcmp(text, want))
        fail_msg("%.*s: %s, not %s", (int)len, line, text, want);
    free(text);
    free(exact);
}

static void check(const char *line, const char *want) {
    check_line(line, strlen(line), want);
}

/* LINE is refused with a sentence that has WHY in it, and no command was called. */
static void refused_bytes(const char *line, size_t len, const char *why) {
    struct control_table t = {0};
    unsigned before = calls;
    char *text;

    fill_table(&t);
    text = control_answer(&t, line, len);
    assert_non_null(text);
    if (!strstr(text, "\"error\":\"") || !strstr(text, why) || strstr(text, "\"ok\""))
        fail_msg("%.*s: %s, which has no '%s'", (int)(len < 80 ? len : 80), line, text,
                 why);
    assert_int_equal(calls, before);
    free(text);
}

static void refused(const char *line, const char *why) {
    refused_bytes(line, strlen(line), why);
}

static void test_answers(void **state) {
    check("{\"command\":\"add\",\"a\":1}", "{\"ok\":true,\"sum\":101}");
    check("{\"id\":7,\"command\":\"add\",\"a\":-5,\"b\":9007199254740992}",
          "{\"id\":7,\"ok\":true,\"sum\":9007199254740987}");
    check(" { \"a\" : 1e3 , \"id\" : \"x\\\"y\" ,\t\"command\" : \"add\" } \r",
          "{\"id\":\"x\\\"y\",\"ok\":true,\"sum\":1100}");
    check("{\"command\":\"add\",\"a\":1,\"bad\":true,\"id\":0}",
          "{\"id\":0,\"error\":\"it is bad\"}");
    check("{\"command\":\"add\",\"a\":1,\"bad\":false}", "{\"ok\":true,\"sum\":101}");
    check(
        "{\"command\":\"echo\",\"text\":\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \\u00e4 "
        "\\n\"}",
        "{\"ok\":true,\"text\":\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \xc3\xa4 \\n\"}");
}

static void take_text(void *arg, char *text) {
    *(char **)arg = text;
}

static void test_later(void **state) {
    static const char line[] = "{\"id\":3,\"command\":\"wait\"}";
    struct control_request *later;
    struct control_table t = {0};
    char *text = NULL;

    fill_table(&t);
    check(line, "{\"id\":3,\"error\":\"nobody waits\"}");
    for (unsigned n = 0; n < 3; n++) {
        assert_null(
            control_answer_or_wait(&t, line, strlen(line), take_text, &text, &later));
        assert_ptr_equal(later, put_off);
        assert_null(text);
        control_put_number(later, "n", n);
        if (n == 1)
            control_refuse(later, "it failed");
        if (n == 2)
            control_forget(later);
        control_finish(later);
        if (n == 2)
            assert_null(text);
        else
            assert_string_equal(text, n ? "{\"id\":3,\"error\":\"it failed\"}\n"
                                        : "{\"id\":3,\"ok\":true,\"n\":0}\n");
        free(text);
        text = NULL;
    }
}

static void test_help(void **state) {
    struct control_table t = {0};
    static const char line[] = "{\"command\":\"help\"}";
    char *text;

    fill_table(&t);
    text = control_answer(&t, line, strlen(line));
    assert_non_null(strstr(text, "{\"name\":\"help\",\"what\":\"lists the commands and "
                                 "their arguments\",\"args\":[]}"));
    assert_non_null(strstr(text,
                           "{\"name\":\"add\",\"what\":\"adds\",\"args\":[{\"name\":"
                           "\"a\",\"type\":\"number\",\"required\":true,\"what\":\"a "
                           "summand\",\"min\":-5,\"max\":1000}"));
    assert_non_null(strstr(text, "{\"name\":\"bad\",\"type\":\"bool\",\"required\":false,"
                                 "\"what\":\"refuse\"}"));
    assert_non_null(strstr(text, "\"name\":\"echo\""));
    free(text);
    refused("{\"command\":\"help\",\"x\":1}", "'help' has no argument 'x'");
}

static void test_no_object(void **state) {
    static const char *const bad[] = {"",
                                      " ",
                                      "x",
                                      "1",
                                      "\"command\"",
                                      "null",
                                      "[]",
                                      "{",
                                      "}",
                                      "{\"command\":",
                                      "{\"a\" 1}",
                                      "{\"a\":1,}",
                                      "{\"a\":1} {}",
                                      "{\"a\":1} x",
                                      "{'a':1}",
                                      "{\"a\":tru}",
                                      "{\"command\":\"add\",\"a\":1"};

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
        refused(bad[n], "the line is not one JSON object");
}

static void test_bad_command(void **state) {
    refused("{}", "must have a text 'command'");
    refused("{\"command\":1}", "must have a text 'command'");
    refused("{\"command\":null,\"id\":3}", "{\"id\":3,\"error\"");
    refused("{\"Command\":\"add\"}", "must have a text 'command'");
    refused("{\"command\":\"fly\"}", "no command 'fly'");
    refused("{\"command\":\"ADD\",\"a\":1}", "no command 'ADD'");
    refused("{\"command\":\"\"}", "no command ''");
    refused("{\"command\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", "no such command");
    refused("{\"command\":\"a\\\"b\"}", "no command 'a\\\"b'");
}

static void test_bad_arguments(void **state) {
    static const char number[] = "'add' wants a whole number from -5 to 1000 as 'a'";
    static const char *const bad[] = {"\"1\"", "null", "true",  "[1]",  "{}",    "-6",
                                      "1001",  "1.5",  "1e999", "1e18", "-1e999"};
    char line[128];

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        snprintf(line, sizeof(line), "{\"command\":\"add\",\"a\":%s}", bad[n]);
        refused(line, number);
    }
    refused("{\"command\":\"add\"}", "'add' wants 'a'");
    refused("{\"command\":\"add\",\"a\":1,\"b\":9007199254740993e0,\"b\":1}", "'b'");
    refused("{\"command\":\"add\",\"a\":1,\"a\":2}", "'a' is there twice");
    refused("{\"command\":\"add\",\"a\":1,\"command\":\"echo\"}",
            "'command' is there twice");
    refused("{\"id\":1,\"id\":2,\"command\":\"add\",\"a\":1}", "'id' is there twice");
    refused("{\"command\":\"add\",\"a\":1,\"c\":2}", "'add' has no argument 'c'");
    refused("{\"command\":\"add\",\"a\":1,\"A\":2}", "'add' has no argument 'A'");
    refused("{\"command\":\"add\",\"a\":1,\"bad\":1}", "wants true or false as 'bad'");
    refused("{\"command\":\"echo\",\"text\":\"\"}",
            "a text of 1 to 60000 bytes as 'text'");
    refused("{\"command\":\"echo\",\"text\":5}", "a text of 1 to 60000 bytes");
}

static void test_bad_id(void **state) {
    static const char *const bad[] = {"null", "true", "[]", "{}", "1e17", "-1e999"};
    char line[512];

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        snprintf(line, sizeof(line), "{\"command\":\"add\",\"a\":1,\"id\":%s}", bad[n]);
        refused(line, "{\"error\":\"'id' must be");
    }
    snprintf(line, sizeof(line), "{\"command\":\"add\",\"a\":1,\"id\":\"%0129d\"}", 1);
    refused(line, "'id' must be");
}

/* The bytes themselves. Table "Well-Formed UTF-8 Byte Sequences" of the Unicode Standard:
 * what lies just outside of each of its rows, and what is cut off. */
static void test_bad_bytes(void **state) {
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xc2\x7f",
                                      "\xc2\xc0",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xe1\x80",
                                      "\xef\xbf\xc0",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf1\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xfe",
                                      "\xf1\x80\xc0\x80"};
    static const char *const good[] = {"\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf3\xbf\xbf\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    char line[128], want[128];

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        snprintf(line, sizeof(line), "{\"command\":\"echo\",\"text\":\"%s\"}", bad[n]);
        refused(line, "the line is not UTF-8");
    }
    for (size_t n = 0; n < ARRAY_SIZE(good); n++) {
        snprintf(line, sizeof(line), "{\"command\":\"echo\",\"text\":\"%s\"}", good[n]);
        snprintf(want, sizeof(want), "{\"ok\":true,\"text\":\"%s\"}", good[n]);
        check(line, want);
    }
    refused("{\"command\":\"add\",\"a\":1}\xe2\x82", "the line is not UTF-8");
    for (unsigned char c = 1; c < ' '; c++) {
        if (c == '\t' || c == '\r')
            continue;
        snprintf(line, sizeof(line), "{\"command\":\"echo\",\"text\":\"%c\"}", c);
        refused(line, "a control character");
    }
    refused_bytes("{\"command\":\"add\",\"a\":1}\0", 25, "a control character");
    refused("{\"command\":\"echo\\u0000x\",\"text\":\"a\"}", "a zero byte");
    refused("{\"command\":\"echo\",\"text\":\"\\\\\\u0000\"}", "a zero byte");
    check("{\"command\":\"echo\",\"text\":\"\\\\u0000\"}",
          "{\"ok\":true,\"text\":\"\\\\u0000\"}");
    refused("{\"command\":\"echo\",\"text\":\"\\ud800\"}", "not one JSON object");
    refused("{\"command\":\"echo\",\"text\":\"\\", "not one JSON object");
}

static void test_nesting(void **state) {
    static char line[CONTROL_LINE_MAX];
    char want[128];

    memset(line, '[', sizeof(line));
    refused_bytes(line, sizeof(line), "nested too deeply");
    for (size_t n = 0; n + 5 <= sizeof(line); n += 5)
        memcpy(line + n, "{\"\":{", 5);
    refused_bytes(line, sizeof(line), "nested too deeply");
    /* Brackets in a text are none. */
    snprintf(line, sizeof(line), "{\"command\":\"echo\",\"text\":\"%050d\"}", 0);
    memset(strchr(line, '0'), '[', 50);
    assert_null(strstr(line, "00"));
    snprintf(want, sizeof(want), "{\"ok\":true,\"text\":\"%050d\"}", 0);
    memset(strchr(want, '0'), '[', 50);
    check(line, want);
}

/* A line full of members, or of values. */
static void test_many_members(void **state) {
    static char line[CONTROL_LINE_MAX + 1];
    size_t at = (size_t)sprintf(line, "{\"command\":\"add\",\"a\":1");

    while (at + 8 < sizeof(line))
        at += (size_t)sprintf(line + at, ",\"b\":0");
    strcpy(line + at, "}");
    refused(line, "'b' is there twice");
    at = (size_t)sprintf(line, "{\"command\":\"add\",\"a\":[");
    while (at + 8 < sizeof(line))
        at += (size_t)sprintf(line + at, "[],");
    strcpy(line + at, "1]}");
    refused(line, "a whole number");
}

/* --- clients --- */

static struct control *control;
static struct os_loop *loop;
static struct os_thread *thread;
static char dir[] = "/tmp/control-XXXXXX";
static char path[64], why[256];

static void run_loop(void *arg) {
    os_loop_run(loop);
}

static int serve(void **state) {
    strcpy(dir, "/tmp/control-XXXXXX");
    if (!mkdtemp(dir) || os_loop_new(&loop))
        return -1;
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof(path), "%s/socket", dir);
    if (control_open(path, CONTROL_JSON, &control, why, sizeof(why)))
        return -1;
    fill_table(control_table(control));
    return control_start(control, loop) ||
           os_thread_start(OS_THREAD_WORKER, run_loop, NULL, &thread);
}

static int serve_no_more(void **state) {
    os_loop_stop(loop);
    os_thread_join(thread);
    control_close(control);
    os_loop_free(loop);
    assert_int_equal(access(path, F_OK), -1);
    return rmdir(dir);
}

static int connect_to(const char *where) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(a.sun_path, where);
    assert_true(fd >= 0);
    if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
        return fd;
    close(fd);
    return -1;
}

static int client(void) {
    int fd = connect_to(path);

    assert_true(fd >= 0);
    return fd;
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next answer; "" at the end. */
static const char *hear(int fd) {
    static char line[1 << 20];
    size_t n = 0;

    while (n + 1 < sizeof(line) && read(fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = 0;
    return line;
}

#define ADD_ONE "{\"command\":\"add\",\"a\":1}\n"
#define ADD "{\"command\":\"add\",\"a\":1,\"b\":%d,\"id\":%d}\n"

static void test_client(void **state) {
    int a = client(), b = client();

    say(a, "{\"command\":\"add\",\"a\":1}\n{\"command\":\"fly\"}\n\n{\"comm");
    assert_string_equal(hear(a), "{\"ok\":true,\"sum\":101}");
    say(b, "{\"command\":\"echo\",\"text\":\"b\"}\n");
    assert_string_equal(hear(b), "{\"ok\":true,\"text\":\"b\"}");
    assert_non_null(strstr(hear(a), "no command 'fly'"));
    assert_non_null(strstr(hear(a), "not one JSON object"));
    say(a, "and\":\"echo\",\"text\":\"a\"}\n");
    assert_string_equal(hear(a), "{\"ok\":true,\"text\":\"a\"}");
    close(a);
    say(b, "{\"command\":\"echo\",\"text\":\"c\"}\n");
    assert_string_equal(hear(b), "{\"ok\":true,\"text\":\"c\"}");
    close(b);
}

/* A thousand requests at once, and the end of the sending: all are answered in order. */
static void test_half_closed(void **state) {
    char line[64], want[64];
    int fd = client();

    for (int n = 0; n < 1000; n++) {
        snprintf(line, sizeof(line), ADD, n, n);
        say(fd, line);
    }
    say(fd, "half a line");
    shutdown(fd, SHUT_WR);
    for (int n = 0; n < 1000; n++) {
        snprintf(want, sizeof(want), "{\"id\":%d,\"ok\":true,\"sum\":%d}", n, n + 1);
        assert_string_equal(hear(fd), want);
    }
    assert_non_null(strstr(hear(fd), "the line has no end"));
    assert_string_equal(hear(fd), "");
    close(fd);
}

/* A line may be 65536 bytes long, and no longer; the one after it is answered. */
static void test_long_lines(void **state) {
    static char line[3 * CONTROL_LINE_MAX];
    int fd = client();

    memset(line, ' ', sizeof(line));
    memcpy(line, "{\"command\":\"add\",\"a\":1}", 23);
    line[CONTROL_LINE_MAX] = '\n';
    line[CONTROL_LINE_MAX + 1] = 0;
    say(fd, line);
    assert_string_equal(hear(fd), "{\"ok\":true,\"sum\":101}");
    memcpy(line + CONTROL_LINE_MAX, " \n", 3);
    say(fd, line);
    assert_non_null(strstr(hear(fd), "the line is longer than 65536 bytes"));
    memset(line, 'x', sizeof(line));
    memcpy(line + sizeof(line) - 2, "\n", 2);
    say(fd, line);
    assert_non_null(strstr(hear(fd), "the line is longer than 65536 bytes"));
    say(fd, ADD_ONE);
    assert_string_equal(hear(fd), "{\"ok\":true,\"sum\":101}");
    close(fd);
}

/* Sends requests until none is taken any more, for nobody reads the answers: how many. */
static unsigned flood(int fd) {
    static const char line[] =
        "{\"command\":\"echo\",\"text\":\"aaaaaaaaaaaaaaaaaaaa\",\"times\":1000}\n";
    unsigned sent = 0, idle = 0;

    while (idle < 50) {
        ssize_t n = send(fd, line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0)
            sent++;
        else
            poll(NULL, 0, 1);
        idle = n > 0 ? 0 : idle + 1;
    }
    return sent;
}

/* One that never reads is not listened to any more, and others are. */
static void test_never_reads(void **state) {
    int bad = client(), good = client();
    unsigned sent = flood(bad);

    assert_in_range(sent, 1, 1 << 16);
    say(good, ADD_ONE);
    assert_string_equal(hear(good), "{\"ok\":true,\"sum\":101}");
    /* It reads after all. */
    for (unsigned n = 0; n < sent; n++)
        assert_non_null(strstr(hear(bad), "\"text999\":"));
    close(bad);
    close(good);
}

/* One vanishes in the middle of what it is told. */
static void test_vanishes(void **state) {
    int good;

    for (unsigned n = 0; n < 4; n++) {
        int bad = client();

        flood(bad);
        close(bad);
    }
    for (unsigned n = 0; n < 10; n++)
        close(client());
    good = client();
    say(good, ADD_ONE);
    assert_string_equal(hear(good), "{\"ok\":true,\"sum\":101}");
    close(good);
}

/* When all places are taken, one more is told so; but one that does not read makes room.
 */
static void test_too_many(void **state) {
    int fds[CONTROL_CLIENTS], more;
    const char *answer;

    for (unsigned n = 0; n < CONTROL_CLIENTS; n++) {
        fds[n] = client();
        say(fds[n], ADD_ONE);
        assert_string_equal(hear(fds[n]), "{\"ok\":true,\"sum\":101}");
    }
    more = client();
    assert_non_null(strstr(hear(more), "there are too many clients"));
    assert_string_equal(hear(more), "");
    close(more);
    do { /* until it is known for one that does not read */
        flood(fds[5]);
        more = client();
        send(more, ADD_ONE, strlen(ADD_ONE), MSG_NOSIGNAL);
        answer = hear(more);
        close(more);
    } while (strstr(answer, "too many"));
    assert_string_equal(answer, "{\"ok\":true,\"sum\":101}");
    for (unsigned n = 0; n < CONTROL_CLIENTS; n++)
        close(fds[n]);
}

/* Without a descriptor for a newcomer the door is closed until a client leaves. */
static void test_no_descriptor(void **state) {
    int a = client(), b = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct rlimit old, none;

    say(a, ADD_ONE);
    assert_string_equal(hear(a), "{\"ok\":true,\"sum\":101}");
    strcpy(where.sun_path, path);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){(rlim_t)b + 1, old.rlim_max}; /* all below it are taken */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(connect(b, (struct sockaddr *)&where, sizeof(where)), 0);
    say(a, ADD_ONE); /* the turn after the one in which it was at the door */
    assert_string_equal(hear(a), "{\"ok\":true,\"sum\":101}");
    say(a, ADD_ONE);
    assert_string_equal(hear(a), "{\"ok\":true,\"sum\":101}");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    close(a);
    say(b, ADD_ONE);
    assert_string_equal(hear(b), "{\"ok\":true,\"sum\":101}");
    close(b);
}

/* --- the path --- */

static void test_path(void **state) {
    char name[64], longer[200];
    struct control *c;
    struct stat st;
    int fd;

    strcpy(dir, "/tmp/control-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(name, sizeof(name), "%s/s", dir);
    assert_int_equal(control_open(name, CONTROL_JSON, &c, why, sizeof(why)), 0);
    assert_int_equal(lstat(name, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    /* Somebody listens there: us. */
    {
        struct control *other;

        assert_int_equal(control_open(name, CONTROL_JSON, &other, why, sizeof(why)),
                         -EADDRINUSE);
        assert_non_null(strstr(why, "another program listens there"));
    }
    control_close(c);
    assert_int_equal(lstat(name, &st), -1);
    /* A file, a directory, a link to nowhere stay as they are. */
    fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_int_equal(control_open(name, CONTROL_JSON, &c, why, sizeof(why)), -EEXIST);
    assert_non_null(strstr(why, "something that is no socket"));
    assert_int_equal(lstat(name, &st), 0);
    assert_int_equal(st.st_size, 1);
    unlink(name);
    assert_int_equal(control_open(dir, CONTROL_JSON, &c, why, sizeof(why)), -EEXIST);
    assert_int_equal(symlink("/tmp/control-nowhere", name), 0);
    assert_int_equal(control_open(name, CONTROL_JSON, &c, why, sizeof(why)), -EEXIST);
    unlink(name);
    /* One that nobody listens at is replaced. */
    {
        struct sockaddr_un a = {.sun_family = AF_UNIX};

        strcpy(a.sun_path, name);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        close(fd);
    }
    assert_int_equal(control_open(name, CONTROL_JSON, &c, why, sizeof(why)), 0);
    /* What has taken its place is not removed. */
    unlink(name);
    fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    control_close(c);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(control_open("", CONTROL_JSON, &c, why, sizeof(why)), -ENOENT);
    snprintf(longer, sizeof(longer), "%s/%0120d", dir, 1);
    assert_int_equal(control_open(longer, CONTROL_JSON, &c, why, sizeof(why)),
                     -ENAMETOOLONG);
    assert_non_null(strstr(why, "at most 107 bytes"));
    snprintf(longer, sizeof(longer), "%s/none/s", dir);
    assert_int_equal(control_open(longer, CONTROL_JSON, &c, why, sizeof(why)), -ENOENT);
    assert_int_equal(rmdir(dir), 0);
}

/* Killed, too, its path is removed. */
static void test_path_after_kill(void **state) {
    int ready[2], status;
    char name[64], byte;
    pid_t pid;

    strcpy(dir, "/tmp/control-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(name, sizeof(name), "%s/s", dir);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (!pid) {
        struct control *c;

        if (control_open(name, CONTROL_JSON, &c, why, sizeof(why)))
            _exit(1);
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(access(name, F_OK), 0);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    while (!access(name, F_OK)) /* soon */
        poll(NULL, 0, 1);
    assert_int_equal(rmdir(dir), 0);
    close(ready[0]);
    close(ready[1]);
}

#define CLIENT_TEST(name) cmocka_unit_test_setup_teardown(name, serve, serve_no_more)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_later),
        cmocka_unit_test(test_no_object),
        cmocka_unit_test(test_bad_command),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_bad_id),
        cmocka_unit_test(test_bad_bytes),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_many_members),
        CLIENT_TEST(test_client),
        CLIENT_TEST(test_half_closed),
        CLIENT_TEST(test_long_lines),
        CLIENT_TEST(test_never_reads),
        CLIENT_TEST(test_vanishes),
        CLIENT_TEST(test_too_many),
        CLIENT_TEST(test_no_descriptor),
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_path_after_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
