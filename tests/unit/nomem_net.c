/*
 * Every allocation of a network fails once: it is opened with the first, the second, the
 * third ... of them failing, in the process that is made for it too, until none is left
 * to fail. Each time there is an error with a sentence, or it does not matter; nothing is
 * left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/os_loop.h"
#include "dev/virtio/net.h"
#include "lib/failing.h"
#include "lib/unit.h"
#include "net/net.h"

static char path[64];

static unsigned descriptors(void) {
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void open_with_failures(const struct net_config *cfg, unsigned least) {
    const struct net_guard nobody = {0};
    unsigned n = 0, good = 0;

    do {
        long before = blocks;
        unsigned fds = descriptors();
        struct os_loop *loop;
        struct net *net = NULL;
        char why[256] = "";
        int rc;

        assert_int_equal(os_loop_new(&loop), 0);
        failing_arm(++n);
        rc = net_open(cfg, &net, why, sizeof(why));
        if (!rc)
            rc = net_start(net, loop, &nobody);
        fail_at = 0;
        good += !rc;
        if (rc && net && rc != -ENOMEM)
            fail_msg("starting, failure %u: %d", n, rc);
        if (rc && !net && (!*why || strchr(why, '\n')))
            fail_msg("failure %u: %d, '%s'", n, rc, why);
        if (net)
            net_close(net);
        os_loop_free(loop);
        if (blocks != before || descriptors() != fds)
            fail_msg("failure %u: %ld blocks, %d descriptors are left", n,
                     blocks - before, (int)(descriptors() - fds));
    } while (failed || !good);
    assert_in_range(n, least, 1000);
}

static void test_listening(void **state) {
    const struct net_config cfg = {.kind = NET_SOCKET, .name = path, .listen = true};

    open_with_failures(&cfg, 4);
}

/* What fails in the process is not counted here: it ends, or says that it cannot be. */
static void test_user(void **state) {
    const struct net_config cfg = {.kind = NET_USER, .jail = JAIL_OFF};

    open_with_failures(&cfg, 3);
}

static void test_card(void **state) {
    const struct net_config cfg = {.kind = NET_SOCKET, .name = path, .listen = true};
    struct virtio_net_config card = {0};
    char why[256];
    struct mem *mem;

    assert_int_equal(mem_create(MEM_MIN_RAM, &mem), 0);
    assert_int_equal(net_open(&cfg, &card.net, why, sizeof(why)), 0);
    failing_arm(1);
    assert_null(virtio_net_new(mem, &card));
    fail_at = 0;
    net_close(card.net);
    mem_destroy(mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listening),
        cmocka_unit_test(test_user),
        cmocka_unit_test(test_card),
    };

    snprintf(path, sizeof(path), "/tmp/net-nomem-%d", (int)getpid());
    signal(SIGPIPE, SIG_IGN);
    alarm(240);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
