/*
 * Streams by themselves: a file, a pseudo-terminal and a socket, in the jail's absence.
 * The loop turns until what the test waits for has come.
 */
#include "stream/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/os_loop.h"
#include "lib/unit.h"

static char dir[] = "/tmp/bivisor-stream-XXXXXX";
static char path[256];
static struct os_loop *loop;
static struct stream *s;
static char got[256];
static size_t got_len, room;
static bool connected;
static unsigned connects, writables, columns;

static size_t on_input(void *arg, const uint8_t *bytes, size_t len) {
    size_t n = len < room ? len : room;

    memcpy(got + got_len, bytes, n);
    got_len += n;
    room -= n;
    os_loop_stop(loop);
    return n;
}

static void on_writable(void *arg) {
    writables++;
    os_loop_stop(loop);
}

static void on_connected(void *arg, bool on) {
    connected = on;
    connects++;
    os_loop_stop(loop);
}

static void on_resized(void *arg, uint16_t w, uint16_t h) {
    columns = w;
}

static void nothing(void *arg) {
}

static void begin(const char *kind) {
    const struct stream_user user = {.input = on_input,
                                     .writable = on_writable,
                                     .connected = on_connected,
                                     .resized = on_resized};
    const struct stream_guard guard = {nothing, nothing, NULL};
    char how[300], why[300];

    snprintf(how, sizeof(how),
             strcmp(kind, "pty") && strcmp(kind, "null") ? "%s=%s" : "%s", kind, path);
    assert_int_equal(stream_open(how, &s, why, sizeof(why)), 0);
    stream_plug(s, &user);
    assert_int_equal(stream_start(s, loop, &guard), 0);
}

static int group_setup(void **state) {
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/end", dir);
    return 0;
}

static int group_teardown(void **state) {
    return rmdir(dir);
}

static int setup(void **state) {
    memset(got, 0, sizeof(got));
    got_len = 0;
    room = sizeof(got) - 1;
    connected = false;
    connects = writables = columns = 0;
    s = NULL;
    return os_loop_new(&loop);
}

static int teardown(void **state) {
    if (s)
        stream_stop(s);
    stream_close(s);
    os_loop_free(loop);
    unlink(path);
    return 0;
}

static size_t put(const char *text) {
    return stream_write(s, (const uint8_t *)text, strlen(text));
}

static void test_file(void **state) {
    char back[32] = {0};
    int fd;

    begin("file");
    assert_true(connected);
    assert_int_equal(put("written"), 7);
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, back, sizeof(back)), 7);
    assert_string_equal(back, "written");
    close(fd);
}

/* A file that takes a part only: who has the rest hears when to try again. */
static void test_file_in_parts(void **state) {
    struct rlimit all, small;
    char back[32] = {0};
    size_t took;
    int fd;

    begin("file");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    small = all;
    small.rlim_cur = 4;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    took = put("written");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(took, 4);
    assert_int_equal(put("ten"), 0);
    writables = 0;
    while (!writables)
        os_loop_run(loop);
    assert_int_equal(writables, 1);
    assert_int_equal(put("ten"), 3);
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, back, sizeof(back)), 7);
    assert_string_equal(back, "written");
    close(fd);
}

static void test_bad(void **state) {
    static const char *const bad[] = {
        "", "file", "file=", "socket=", "pipe", "pty=yes", "file=/no/such/place"};
    char why[300];

    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        struct stream *none = NULL;

        why[0] = 0;
        assert_true(stream_open(bad[n], &none, why, sizeof(why)) < 0);
        assert_null(none);
        assert_true(strlen(why) > 10);
    }
}

/* --- sockets --- */

static int client(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(a.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void wait_connected(bool on) {
    while (connected != on)
        os_loop_run(loop);
}

/* Both ways. */
static void talk(int fd) {
    char back[32] = {0};

    assert_int_equal(put("hello"), 5);
    assert_int_equal(read(fd, back, sizeof(back)), 5);
    assert_string_equal(back, "hello");
    assert_int_equal(write(fd, "typed", 5), 5);
    while (got_len < 5)
        os_loop_run(loop);
    assert_string_equal(got, "typed");
}

static void test_socket(void **state) {
    char back[32] = {0};
    int fd, other;

    begin("socket");
    assert_int_equal(put("to nobody"), 9);
    fd = client();
    wait_connected(true);
    talk(fd);
    connects = 0;
    other = client(); /* takes the place of the first */
    while (connects < 2)
        os_loop_run(loop);
    assert_true(connected);
    assert_int_equal(read(fd, back, 1), 0);
    close(other);
    wait_connected(false);
    close(fd);
}

/* The program to which we connect comes first; its end is seen. */
static void test_connect(void **state) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
    socklen_t len = sizeof(a);
    char old[256], why[300];

    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    memcpy(old, path, sizeof(old));
    snprintf(path, sizeof(path), "connect=tcp:127.0.0.1:%u", ntohs(a.sin_port));
    assert_int_equal(stream_open(path, &s, why, sizeof(why)), -ECONNREFUSED);
    assert_non_null(strstr(why, "no program listens there"));
    assert_int_equal(listen(listener, 1), 0);
    memmove(path, path + 8, sizeof(path) - 8);
    begin("connect");
    memcpy(path, old, sizeof(old));
    fd = accept(listener, NULL, NULL);
    assert_true(connected);
    talk(fd);
    close(fd);
    wait_connected(false);
    assert_int_equal(put("to nobody"), 9);
    close(listener);
}

/* What the user does not take waits, and nothing is lost. */
static void test_slow_user(void **state) {
    int fd;

    begin("socket");
    fd = client();
    wait_connected(true);
    room = 3;
    assert_int_equal(write(fd, "abcdef", 6), 6);
    while (got_len < 3)
        os_loop_run(loop);
    assert_int_equal(write(fd, "ghi", 3), 3);
    room = 100;
    stream_more(s);
    while (got_len < 9)
        os_loop_run(loop);
    assert_string_equal(got, "abcdefghi");
    close(fd);
}

/* What the reader does not take is left with the writer, who hears when it can go on. */
static void test_slow_reader(void **state) {
    static uint8_t much[1 << 20];
    static char sink[1 << 16];
    size_t took;
    int fd;

    begin("socket");
    fd = client();
    wait_connected(true);
    took = stream_write(s, much, sizeof(much));
    assert_true(took < sizeof(much));
    assert_int_equal(stream_write(s, much, 1), 0);
    writables = 0;
    while (took) {
        ssize_t n =
            recv(fd, sink, took < sizeof(sink) ? took : sizeof(sink), MSG_DONTWAIT);

        if (n < 0) /* the rest is with the stream */
            os_loop_run(loop);
        else
            took -= (size_t)n;
    }
    while (!writables)
        os_loop_run(loop);
    assert_int_equal(stream_write(s, much, 1), 1);
    close(fd);
}

/* Thousands of bytes one by one fill no socket, and the last ones come at the end. */
static void test_small_writes(void **state) {
    enum { MANY = 4000 };
    uint8_t read_back[MANY + 1], byte;
    ssize_t n, more;
    int fd;

    begin("socket");
    fd = client();
    wait_connected(true);
    for (unsigned k = 0; k < MANY; k++) {
        byte = (uint8_t)(k * 7);
        assert_int_equal(stream_write(s, &byte, 1), 1);
    }
    n = recv(fd, read_back, sizeof(read_back), MSG_DONTWAIT);
    assert_true(n > 0 && n < MANY);
    stream_stop(s);
    more = recv(fd, read_back + n, sizeof(read_back) - (size_t)n, MSG_DONTWAIT);
    assert_int_equal(n + more, MANY);
    for (unsigned k = 0; k < MANY; k++)
        assert_int_equal(read_back[k], (uint8_t)(k * 7));
    close(fd);
}

/* --- pseudo-terminals --- */

static void test_terminal(void **state) {
    struct winsize size = {.ws_row = 43, .ws_col = 132};
    char back[32] = {0};
    int fd;

    begin("pty");
    assert_int_equal(put("to nobody"), 9);
    fd = open(stream_terminal(s), O_RDWR | O_NOCTTY);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, TIOCSWINSZ, &size), 0);
    wait_connected(true);
    assert_int_equal(columns, 132);
    assert_int_equal(put("hello\n"), 6);
    assert_int_equal(read(fd, back, sizeof(back)), 6);
    assert_string_equal(back, "hello\n"); /* raw: as it is */
    assert_int_equal(write(fd, "typed\n", 6), 6);
    while (got_len < 6)
        os_loop_run(loop);
    assert_string_equal(got, "typed\n");
    close(fd);
    wait_connected(false);
    assert_int_equal(put("to nobody"), 9);
    fd = open(stream_terminal(s), O_RDWR | O_NOCTTY);
    wait_connected(true);
    close(fd);
}

/* A pipe that is opened as a file: what it does not take is waited for, not the
 * guest's thread. */
static void test_pipe(void **state) {
    static char bytes[1 << 20];
    size_t took;
    int fd;

    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    begin("file");
    assert_true(connected);
    took = stream_write(s, (const uint8_t *)bytes, sizeof(bytes));
    assert_true(took > 0 && took < sizeof(bytes));
    assert_int_equal(put("more"), 0);
    assert_true(read(fd, bytes, sizeof(bytes)) > 0);
    writables = 0;
    while (!writables)
        os_loop_run(loop);
    assert_int_equal(put("more"), 4);
    close(fd);
}

static void test_nowhere(void **state) {
    begin("null");
    assert_false(connected);
    assert_int_equal(put("lost"), 4);
}

/* --- the other side in this process --- */

static char lent[32];
static size_t lent_len, lent_room;
static unsigned mores;

static size_t lender_write(void *arg, const uint8_t *bytes, size_t len) {
    size_t n = len < lent_room ? len : lent_room;

    memcpy(lent + lent_len, bytes, n);
    lent_len += n;
    lent_room -= n;
    return n;
}

static void lender_more(void *arg) {
    mores++;
}

static void test_lent(void **state) {
    const struct stream_lender lender = {.write = lender_write, .more = lender_more};
    char why[128];

    assert_int_equal(stream_open("stdio", &s, why, sizeof(why)), 0);
    assert_true(stream_is_lent(s));
    assert_int_equal(stream_lender_input(s, (const uint8_t *)"early", 5), 0);
    stream_close(s);
    begin("null");
    assert_false(stream_is_lent(s));
    stream_stop(s);
    stream_close(s);

    assert_int_equal(stream_open("stdio", &s, why, sizeof(why)), 0);
    stream_lend(s, &lender);
    {
        const struct stream_user user = {
            .input = on_input, .writable = on_writable, .connected = on_connected};
        const struct stream_guard guard = {nothing, nothing, NULL};

        stream_plug(s, &user);
        assert_int_equal(stream_start(s, loop, &guard), 0);
    }
    assert_true(connected);
    lent_room = 4;
    assert_int_equal(put("output"), 4);
    assert_int_equal(put("ut"), 0);
    writables = 0;
    stream_lender_ready(s);
    assert_int_equal(writables, 1);
    lent_room = 8;
    assert_int_equal(put("ut"), 2);
    assert_string_equal(lent, "output");
    stream_lender_ready(s);
    assert_int_equal(writables, 1); /* nobody waited */
    room = 3;
    assert_int_equal(stream_lender_input(s, (const uint8_t *)"input", 5), 3);
    assert_string_equal(got, "inp");
    stream_more(s);
    assert_int_equal(mores, 1);
    stream_lender_ended(s);
    assert_false(connected);
    assert_int_equal(put("on"), 2); /* output goes on */
}

static void test_names(void **state) {
    assert_string_equal(stream_file("file=x"), "x");
    assert_null(stream_file("socket=x"));
    assert_null(stream_file("file=/proc/self/fd/1"));
    assert_null(stream_file("file=/dev/stderr"));
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_file),      T(test_file_in_parts), T(test_pipe),
        T(test_nowhere),   T(test_lent),          T(test_names),
        T(test_bad),       T(test_socket),        T(test_connect),
        T(test_slow_user), T(test_slow_reader),   T(test_small_writes),
        T(test_terminal),
    };
#undef T
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
