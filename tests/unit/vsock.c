/*
 * The host's side of sockets by itself: the test is the device, and the clients. What
 * clients send before they are connected is theirs to get wrong.
 */
#include "vsock/vsock.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/os_loop.h"
#include "lib/unit.h"

static char dir[] = "/tmp/bivisor-vsock-XXXXXX";
static char path[64];
static struct os_loop *loop;
static struct vsock *v;
static uint32_t port;
static int opens, answer, readables, lost;
static int number; /* that open() gives */

static int on_open(void *arg, uint32_t p) {
    port = p;
    opens++;
    os_loop_stop(loop);
    return number;
}

static void on_answer(void *arg, unsigned n, bool ok) {
    answer = ok;
    os_loop_stop(loop);
}

static void on_readable(void *arg, unsigned n) {
    readables++;
    os_loop_stop(loop);
}

static void on_writable(void *arg, unsigned n) {
    os_loop_stop(loop);
}

static void on_lost(void *arg, unsigned n) {
    lost++;
    os_loop_stop(loop);
}

static void nothing(void *arg) {
}

static void on_turn(void *arg, unsigned ready) {
    os_loop_stop(loop);
}

static int group_setup(void **state) {
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/s", dir);
    return 0;
}

static int group_teardown(void **state) {
    return rmdir(dir);
}

static int setup(void **state) {
    const struct vsock_user user = {.open = on_open,
                                    .answer = on_answer,
                                    .readable = on_readable,
                                    .writable = on_writable,
                                    .lost = on_lost};
    const struct vsock_guard guard = {nothing, nothing, NULL};
    char why[300];

    opens = readables = lost = 0;
    answer = -1;
    number = 5;
    if (os_loop_new(&loop) || vsock_open(path, JAIL_AUTO, &v, why, sizeof(why)))
        return -1;
    vsock_plug(v, &user);
    return vsock_start(v, loop, &guard);
}

static int teardown(void **state) {
    vsock_stop(v);
    vsock_close(v);
    os_loop_free(loop);
    return 0;
}

static int connect_to(const char *where) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(a.sun_path, where);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void tell(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void run_until(const int *count) {
    while (!*count)
        os_loop_run(loop);
}

/* "CONNECT" in pieces; what follows it at once is the guest's; and both ends. */
static void test_client(void **state) {
    char back[64] = {0};
    uint8_t bytes[64];
    int fd = connect_to(path);

    tell(fd, "CONN");
    tell(fd, "ECT 1234\nand more");
    run_until(&opens);
    assert_int_equal(port, 1234);
    vsock_opened(v, 5, true, 77);
    run_until(&readables);
    assert_int_equal(vsock_read(v, 5, bytes, sizeof(bytes)), 8);
    assert_memory_equal(bytes, "and more", 8);
    assert_int_equal(vsock_read(v, 5, bytes, sizeof(bytes)), 0);
    assert_int_equal(vsock_write(v, 5, (const uint8_t *)"reply", 5), 5);
    vsock_end(v, 5);
    assert_int_equal(recv(fd, back, sizeof(back), MSG_WAITALL), 11);
    assert_string_equal(back, "OK 77\nreply");
    shutdown(fd, SHUT_WR);
    readables = 0;
    run_until(&readables);
    assert_int_equal(vsock_read(v, 5, bytes, sizeof(bytes)), -1);
    vsock_forget(v, 5);
    assert_int_equal(vsock_read(v, 5, bytes, sizeof(bytes)), 0);
    close(fd);
}

/* Whoever says something else is left, and so is who says nothing to the end. */
static void test_bad_clients(void **state) {
    static const char *const bad[] = {
        "connect 5\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT -1\n",
        "CONNECT 5 6\n",
        "CONNECT 0x5\n",
        "CONNECT 4294967296\n",
        "\n",
        "CONNECT 00000000000000000000000000000000005\n",
    };
    char byte;

    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        int fd = connect_to(path), good = connect_to(path);

        opens = 0;
        tell(fd, bad[n]);
        tell(good, "CONNECT 9\n"); /* comes after it */
        number = -1;               /* and is refused */
        run_until(&opens);
        assert_int_equal(port, 9);
        close(good);
        good = connect_to(path);
        tell(good, "CONNECT 8\n");
        opens = 0;
        run_until(&opens);
        /* What was sent in vain may make it a reset. */
        assert_true(recv(fd, &byte, 1, MSG_DONTWAIT) <= 0);
        close(fd);
        close(good);
    }
}

/* The guest's connections; one that nobody waits for. */
static void test_connect(void **state) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), fd;
    char name[sizeof(path) + 8], back[8] = {0};

    assert_true(vsock_connect(v, 3, 901));
    while (answer < 0)
        os_loop_run(loop);
    assert_int_equal(answer, 0);
    snprintf(name, sizeof(name), "%s_900", path);
    memcpy(a.sun_path, name, sizeof(name));
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(listener, 1), 0);
    answer = -1;
    vsock_connect(v, 3, 900);
    while (answer < 0)
        os_loop_run(loop);
    assert_int_equal(answer, 1);
    fd = accept(listener, NULL, NULL);
    assert_int_equal(vsock_write(v, 3, (const uint8_t *)"hello", 5), 5);
    assert_int_equal(recv(fd, back, 5, MSG_WAITALL), 5);
    assert_string_equal(back, "hello");
    close(fd); /* nobody reads any more */
    assert_int_equal(vsock_write(v, 3, (const uint8_t *)"lost", 4), 4);
    run_until(&lost);
    vsock_connect(v, 3, 900); /* forgotten before it is connected */
    vsock_forget(v, 3);
    answer = -1;
    vsock_connect(v, 4, 901);
    while (answer < 0)
        os_loop_run(loop);
    assert_int_equal(answer, 0);
    close(listener);
    unlink(name);
}

/* A guest asks and forgets, again and again, while nobody takes an answer. */
static void test_too_fast(void **state) {
    struct os_watch turn = {0};
    unsigned asked = 0;
    int ends[2];

    while (asked < 100000 && vsock_connect(v, 3, 901)) {
        vsock_forget(v, 3);
        asked++;
    }
    assert_true(asked >= VSOCK_CONNECTIONS && asked < 100000);
    /* Ends each turn of the loop, behind the answers. */
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "", 1), 1);
    assert_int_equal(os_watch_start(&turn, loop, ends[0], OS_READ, on_turn, NULL), 0);
    do
        os_loop_run(loop);
    while (!vsock_connect(v, 3, 901));
    os_watch_stop(&turn);
    close(ends[0]);
    close(ends[1]);
    answer = -1;
    while (answer < 0)
        os_loop_run(loop);
    assert_int_equal(answer, 0);
}

/* The process that connects is gone: who waits for it hears so, and who asks then. */
static void test_no_connector(void **state) {
    assert_true(vsock_connect(v, 3, 901));
    shutdown(vsock_connector(v), SHUT_RDWR);
    while (!lost && answer < 0) /* or it was faster */
        os_loop_run(loop);
    assert_false(vsock_connect(v, 4, 901));
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_client),   T(test_bad_clients),  T(test_connect),
        T(test_too_fast), T(test_no_connector),
    };
#undef T
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
