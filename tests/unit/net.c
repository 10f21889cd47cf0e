/*
 * Networks on a loop: flow control both ways, links that come and go, peers that lie, and
 * the user network in its process: what it gives by DHCP, a forwarded port, its jail.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/os.h"
#include "base/os_loop.h"
#include "lib/rnd.h"
#include "net/net.h"
#include "net/packet.h"

/* --- a card --- */

static struct os_loop *loop;
static int depth; /* of the lock */

static struct card {
    struct net *net;
    unsigned places; /* frames that it still takes */
    unsigned got, refused, rooms, links;
    unsigned want; /* the loop ends when it has got so many */
    struct net_offload off;
    uint8_t frame[NET_FRAME_MAX];
    size_t len;
    bool (*check)(struct card *c); /* of each frame; false: it does not count */
} card;

static void enter(void *arg) {
    depth++;
}

static void leave(void *arg) {
    depth--;
}

static const struct net_guard guard = {enter, leave, NULL};

static bool receive(void *arg, const struct net_offload *off, const uint8_t *frame,
                    size_t len) {
    struct card *c = arg;

    assert_int_equal(depth, 1);
    if (!c->places) {
        c->refused++;
        os_loop_stop(loop);
        return false;
    }
    c->places--;
    c->off = *off;
    c->len = len;
    memcpy(c->frame, frame, len);
    if (!c->check || c->check(c))
        c->got++;
    if (c->got == c->want)
        os_loop_stop(loop);
    return true;
}

static void room(void *arg) {
    struct card *c = arg;

    assert_int_equal(depth, 1);
    c->rooms++;
    os_loop_stop(loop);
}

static void link_changed(void *arg) {
    struct card *c = arg;

    assert_int_equal(depth, 1);
    c->links++;
    os_loop_stop(loop);
}

static void plug(struct net *n) {
    const struct net_card ops = {receive, room, link_changed, &card};

    card = (struct card){.net = n, .places = UINT32_MAX};
    net_plug(n, &ops);
    assert_int_equal(net_start(n, loop, &guard), 0);
}

static bool send_bytes(const void *frame, size_t len) {
    const struct net_offload off = {0};
    const struct net_piece piece[2] = {{frame, 5}, {(const uint8_t *)frame + 5, len - 5}};
    bool taken = net_send(card.net, &off, piece, 2);

    net_flush(card.net);
    return taken;
}

/* A turn of the loop for what is ready now: tasks come before descriptors, so the second
 * one ends it. */
static unsigned turns;

static void count_turn(void *arg) {
    if (turns++)
        os_loop_stop(loop);
    else
        os_task_post(arg, loop);
}

static void turn_once(void) {
    static struct os_task task;

    task = (struct os_task){.fn = count_turn, .arg = &task};
    turns = 0;
    os_task_post(&task, loop);
    while (turns < 2) /* it may be stopped before */
        os_loop_run(loop);
}

/* --- peers --- */

static char path[64];

static int setup(void **state) {
    snprintf(path, sizeof(path), "/tmp/net-unit-%d", (int)getpid());
    alarm(240);
    return os_loop_new(&loop);
}

static int teardown(void **state) {
    os_loop_free(loop);
    unlink(path);
    return 0;
}

static struct net *open_net(const struct net_config *cfg) {
    struct net *n = NULL;
    char why[256] = "";
    int rc = net_open(cfg, &n, why, sizeof(why));

    if (rc)
        fail_msg("net_open(): %d, %s", rc, why);
    return n;
}

static int connect_peer(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(a.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* A network that listens, and a peer that has come. */
static struct net *with_peer(int *peer) {
    const struct net_config cfg = {.kind = NET_SOCKET, .name = path, .listen = true};
    struct net *n = open_net(&cfg);

    plug(n);
    assert_false(net_link(n));
    *peer = connect_peer();
    os_loop_run(loop);
    assert_true(net_link(n));
    assert_int_equal(card.links, 1);
    return n;
}

static void end(struct net *n) {
    net_stop(n);
    net_close(n);
    assert_int_equal(depth, 0);
}

static void peer_sends(int fd, unsigned first, unsigned count, size_t len) {
    uint8_t buf[2048] = {0, 0, (uint8_t)(len >> 8), (uint8_t)len};

    for (unsigned n = first; n < first + count; n++) {
        memset(buf + 4, (int)(n & 0xff), len);
        assert_int_equal(write(fd, buf, len + 4), len + 4);
    }
}

static bool in_order(struct card *c) {
    assert_int_equal(c->frame[0], c->got & 0xff);
    assert_int_equal(c->frame[c->len - 1], c->got & 0xff);
    return true;
}

static void test_receive(void **state) {
    int peer;
    struct net *n = with_peer(&peer);

    card.check = in_order;
    card.want = 100;
    peer_sends(peer, 0, 100, 600);
    os_loop_run(loop);
    assert_int_equal(card.got, 100);
    assert_int_equal(card.len, 600);
    assert_int_equal(net_figures(n).in_frames, 100);
    assert_int_equal(net_figures(n).in_bytes, 60000);
    close(peer);
    end(n);
}

/* A card without places: its frame is kept, nothing more is read, nothing is lost. */
static void test_receive_blocked(void **state) {
    int peer;
    struct net *n = with_peer(&peer);
    struct pollfd p = {.fd = peer, .events = POLLOUT};
    unsigned sent = 0;

    card.check = in_order;
    card.places = 3;
    peer_sends(peer, 0, 8, 1000);
    sent = 8;
    os_loop_run(loop);
    assert_int_equal(card.got, 3);
    assert_int_equal(card.refused, 1);
    while (poll(&p, 1, 0) > 0)
        peer_sends(peer, sent++, 1, 1000);
    card.places = 2;
    net_ready(n);
    os_loop_run(loop);
    assert_int_equal(card.got, 5);
    assert_int_equal(card.refused, 2);
    card.places = UINT32_MAX;
    card.want = sent;
    net_ready(n);
    os_loop_run(loop);
    assert_int_equal(card.got, sent);
    close(peer);
    end(n);
}

static void peer_reads(int fd, void *buf, size_t len) {
    assert_int_equal(recv(fd, buf, len, MSG_WAITALL), len);
}

/* A peer that does not read: frames are refused, and when it reads again there is room;
 * it gets those that were taken, and no others. */
static void test_send_refused(void **state) {
    int peer;
    struct net *n = with_peer(&peer);
    uint8_t frame[1004];
    unsigned taken = 0, got = 0;

    do {
        memset(frame, (int)(taken & 0xff), sizeof(frame));
        taken++;
        assert_in_range(taken, 0, 100000);
    } while (send_bytes(frame, 1000));
    taken--;
    assert_in_range(taken, 500, 100000);
    while (!card.rooms) {
        peer_reads(peer, frame, 1004);
        assert_int_equal(frame[2] << 8 | frame[3], 1000);
        assert_int_equal(frame[4], got++ & 0xff);
        turn_once();
    }
    assert_true(send_bytes(frame, 1000));
    while (got < taken) {
        peer_reads(peer, frame, 1004);
        assert_int_equal(frame[1003], got++ & 0xff);
        turn_once();
    }
    assert_int_equal(net_figures(n).out_frames, taken + 1);
    close(peer);
    end(n);
}

/* --- limits --- */

#define HOUR 3600000000000u

static const struct rate_limit one_an_hour = {1, HOUR, 1, 0}, unlimited,
                               one_a_millisecond = {1, 1000000, 1, 0};

static void test_limit_in(void **state) {
    int peer;
    struct net *n = with_peer(&peer);
    uint64_t start;

    card.check = in_order;
    card.want = 1;
    net_limit(n, NET_IN_FRAMES, &one_an_hour);
    peer_sends(peer, 0, 5, 600);
    os_loop_run(loop);
    for (unsigned k = 0; k < 5; k++)
        turn_once();
    net_ready(n); /* the card may say so at any time */
    turn_once();
    assert_int_equal(card.got, 1);
    net_limit(n, NET_IN_FRAMES, &unlimited);
    card.want = 5;
    os_loop_run(loop);
    net_limit(n, NET_IN_FRAMES, &one_a_millisecond);
    peer_sends(peer, 5, 20, 600);
    start = os_monotonic_ns();
    card.want = 25;
    os_loop_run(loop);
    assert_true(os_monotonic_ns() - start >= 19000000);
    assert_int_equal(card.got, 25);
    close(peer);
    end(n);
}

static void test_limit_out(void **state) {
    static const struct rate_limit bytes = {1000, 10000000, 10000000, 0};
    int peer;
    struct net *n = with_peer(&peer);
    uint8_t frame[1004] = {0};
    uint64_t start = os_monotonic_ns();

    net_limit(n, NET_OUT_FRAMES, &one_an_hour);
    assert_true(send_bytes(frame, 1000));
    assert_false(send_bytes(frame, 1000));
    for (unsigned k = 0; k < 5; k++)
        turn_once();
    assert_int_equal(card.rooms, 0);
    net_limit(n, NET_OUT_FRAMES, &unlimited);
    net_limit(n, NET_OUT_BYTES, &bytes);
    os_loop_run(loop);
    assert_int_equal(card.rooms, 1);
    for (unsigned k = 0; k < 5; k++) {
        assert_true(send_bytes(frame, 1000));
        assert_false(send_bytes(frame, 1000));
        os_loop_run(loop); /* until there is room */
        assert_int_equal(card.rooms, 2 + k);
    }
    assert_true(os_monotonic_ns() - start >= 39000000);
    for (unsigned k = 0; k < 6; k++)
        peer_reads(peer, frame, 1004);
    close(peer);
    end(n);
}

static void test_peer_gone(void **state) {
    int peer;
    struct net *n = with_peer(&peer);
    uint8_t frame[60] = {1};

    close(peer);
    os_loop_run(loop);
    assert_false(net_link(n));
    assert_int_equal(card.links, 2);
    assert_true(send_bytes(frame, sizeof(frame))); /* into the void */
    assert_int_equal(net_figures(n).dropped, 1);
    peer = connect_peer();
    os_loop_run(loop);
    assert_true(net_link(n));
    assert_true(send_bytes(frame, sizeof(frame)));
    peer_reads(peer, frame, 60);
    assert_int_equal(frame[3], 60);
    assert_int_equal(frame[4], 1);
    close(peer);
    end(n);
}

/* It goes while a frame waits for the card: it is not given any more. */
static void test_gone_while_blocked(void **state) {
    int peer;
    struct net *n = with_peer(&peer);

    card.places = 0;
    peer_sends(peer, 0, 2, 100);
    os_loop_run(loop);
    assert_int_equal(card.refused, 1);
    close(peer);
    card.places = UINT32_MAX;
    net_ready(n);
    os_loop_run(loop);
    assert_int_equal(card.links, 2);
    assert_int_equal(card.got, 2); /* they came before */
    end(n);
}

static void test_peer_lies(void **state) {
    static const uint8_t lies[][4] = {{0xff, 0xff, 0xff, 0xff}, {0, 1, 0, 0x12}};

    for (int k = 0; k < 2; k++) {
        int peer;
        struct net *n = with_peer(&peer);

        peer_sends(peer, 0, 1, 100);
        assert_int_equal(write(peer, lies[k], 4), 4);
        os_loop_run(loop);
        assert_false(net_link(n));
        assert_int_equal(card.got, 1);
        close(peer);
        end(n);
    }
}

/* Frames that are none, and a card that is not there. */
static void test_dropped(void **state) {
    int peer;
    struct net *n = with_peer(&peer);
    const struct net_offload wrong = {.csum = true, .csum_start = 60000};
    const struct net_offload cut = {.gso = NET_GSO_TCP4, .gso_size = 1};
    static uint8_t frame[NET_FRAME_MAX + 1];
    struct net_piece piece[3] = {{frame, 13}, {frame, 60000}, {frame, SIZE_MAX}};

    assert_true(net_send(n, &wrong, piece, 1));
    assert_true(net_send(n, &wrong, piece + 1, 1));
    assert_true(net_send(n, &cut, piece + 1, 1));
    assert_true(net_send(n, &cut, piece + 2, 1));
    assert_true(net_send(n, &cut, piece, 0));
    piece[0].len = NET_FRAME_MAX + 1;
    assert_true(net_send(n, &(struct net_offload){0}, piece, 1));
    assert_int_equal(net_figures(n).dropped, 6);
    peer_sends(peer, 0, 1, 13);
    peer_sends(peer, 0, 1, 14);
    card.want = 1;
    os_loop_run(loop);
    assert_int_equal(card.len, 14);
    assert_int_equal(net_figures(n).dropped, 7);
    close(peer);
    end(n);
}

/* A long frame of TCP goes to a peer in segments with checksums. */
static void test_send_cut(void **state) {
    int peer;
    struct net *n = with_peer(&peer);
    static uint8_t frame[14 + 20 + 20 + 3000], got[2000];
    struct net_offload off = {.csum = true,
                              .gso = NET_GSO_TCP4,
                              .gso_size = 1000,
                              .csum_start = 34,
                              .csum_offset = 16};
    struct net_piece piece = {frame, sizeof(frame)};

    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = 6;
    frame[46] = 0x50;
    assert_true(net_send(n, &off, &piece, 1));
    net_flush(n);
    for (unsigned k = 0; k < 3; k++) {
        peer_reads(peer, got, 4 + 1054);
        assert_int_equal(got[2] << 8 | got[3], 1054);
        assert_int_equal(got[4 + 16] << 8 | got[4 + 17], 1040);
        assert_int_equal(got[4 + 40] << 8 | got[4 + 41], 1000 * k);
    }
    close(peer);
    end(n);
}

/* Segment N of a stream of TCP, with PAYLOAD bytes. */
static void peer_sends_tcp(int fd, unsigned n, size_t payload) {
    static uint8_t buf[4 + 2000];
    uint8_t *f = buf + 4;
    size_t len = 54 + payload;

    memset(buf, 0, sizeof(buf));
    net_put16(buf + 2, (unsigned)len);
    net_put16(f + 12, TYPE_IPV4);
    f[14] = 0x45;
    net_put16(f + 16, (unsigned)(len - 14));
    f[23] = PROTO_TCP;
    net_sum_fill_ipv4(f + 14, 20);
    net_put32(f + 38, (uint32_t)(n * payload));
    f[46] = 0x50;
    f[47] = FLAG_ACK;
    memset(f + 54, (int)n, payload);
    net_put16(f + 50,
              net_sum_complement(net_sum_add(
                  net_sum_pseudo(f + 14, false, PROTO_TCP, len - 34), f + 34, len - 34)));
    assert_int_equal(write(fd, buf, 4 + len), 4 + len);
}

/* What comes together is given together, to a card that takes it so; in order with what
 * is between, also when the card has no place. */
static void test_receive_together(void **state) {
    int peer;
    struct net *n = with_peer(&peer);

    net_card_can(n, NET_CAN_CSUM | NET_CAN_TSO4);
    card.places = 0;
    for (unsigned k = 0; k < 8; k++)
        peer_sends_tcp(peer, k, 1000);
    peer_sends(peer, 0, 1, 77);
    for (unsigned k = 8; k < 10; k++)
        peer_sends_tcp(peer, k, 1000);
    os_loop_run(loop);
    assert_int_equal(card.refused, 1);
    card.places = 1;
    net_ready(n);
    os_loop_run(loop);
    assert_int_equal(card.got, 1);
    assert_int_equal(card.len, 54 + 8000);
    assert_true(card.off.csum);
    assert_int_equal(card.off.gso, NET_GSO_TCP4);
    assert_int_equal(card.off.gso_size, 1000);
    assert_int_equal(card.frame[54], 0);
    assert_int_equal(card.frame[54 + 7999], 7);
    card.places = 1;
    net_ready(n);
    os_loop_run(loop);
    assert_int_equal(card.len, 77);
    card.places = 1;
    card.want = 3;
    net_ready(n);
    os_loop_run(loop);
    assert_int_equal(card.len, 54 + 2000);
    assert_int_equal(card.frame[54], 8);
    close(peer);
    end(n);
}

/* A card that tells its guest of right checksums alone gets frames as they are. */
static void test_receive_good(void **state) {
    int peer;
    struct net *n = with_peer(&peer);

    for (unsigned k = 0; k < 2; k++) {
        net_card_can(n, k ? NET_CAN_GOOD : 0);
        peer_sends_tcp(peer, 0, 1000);
        peer_sends_tcp(peer, 1, 1000);
        card.want += 2;
        os_loop_run(loop);
        assert_int_equal(card.got, card.want);
        assert_int_equal(card.len, 1054);
        assert_int_equal(card.off.csum_good, k);
        assert_false(card.off.csum || card.off.gso);
    }
    peer_sends(peer, 0, 1, 100); /* not one that can be looked at */
    card.want++;
    os_loop_run(loop);
    assert_int_equal(card.got, card.want);
    assert_false(card.off.csum_good);
    close(peer);
    end(n);
}

static void test_open_errors(void **state) {
    struct net_config cfg = {.kind = NET_SOCKET, .name = path};
    char why[512], longer[200];
    struct net *n;

    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, path));
    memset(longer, 'a', sizeof(longer));
    longer[199] = 0;
    cfg.name = longer;
    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -ENAMETOOLONG);
    cfg.listen = true;
    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -ENAMETOOLONG);
    assert_non_null(strstr(why, "107 bytes"));
    cfg = (struct net_config){.kind = NET_TAP, .name = "a-name-that-is-too-long"};
    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -EINVAL);
    cfg.name = "";
    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -EINVAL);
}

/* --- the user network --- */

static uint8_t message[600];

/* The checksum of the IP header. */
static void sum_up(void) {
    unsigned sum = 0;

    message[24] = message[25] = 0;
    for (int k = 14; k < 34; k += 2)
        sum += (unsigned)(message[k] << 8 | message[k + 1]);
    sum = ~((sum & 0xffff) + (sum >> 16));
    message[24] = (uint8_t)(sum >> 8);
    message[25] = (uint8_t)sum;
}

static size_t put_udp(unsigned from, unsigned to, size_t payload) {
    static const uint8_t head[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,
                                   0x12, 0x34, 0x56, 8,    0,    0x45, 0,    0,    0,
                                   0,    0,    0,    0,    64,   17,   0,    0,    0,
                                   0,    0,    0,    0xff, 0xff, 0xff, 0xff};

    memcpy(message, head, sizeof(head));
    message[16] = (uint8_t)((28 + payload) >> 8);
    message[17] = (uint8_t)(28 + payload);
    sum_up();
    message[34] = (uint8_t)(from >> 8);
    message[35] = (uint8_t)from;
    message[36] = (uint8_t)(to >> 8);
    message[37] = (uint8_t)to;
    message[38] = (uint8_t)((8 + payload) >> 8);
    message[39] = (uint8_t)(8 + payload);
    message[40] = message[41] = 0;
    return 42 + payload;
}

/* RFC 2131: BOOTREQUEST, Ethernet, a number, our address, and in options what it is. */
static size_t put_discover(void) {
    uint8_t *b = message + 42;

    memset(message, 0, sizeof(message));
    memcpy(b, (const uint8_t[]){1, 1, 6, 0, 0xb1, 0x50, 0x12, 0x34}, 8);
    memcpy(b + 28, (const uint8_t[]){0x52, 0x54, 0, 0x12, 0x34, 0x56}, 6);
    memcpy(b + 236, (const uint8_t[]){99, 130, 83, 99, 53, 1, 1, 255}, 8);
    return put_udp(68, 67, 300);
}

static bool is_dhcp(struct card *c) {
    return c->len > 282 && c->frame[23] == 17 && c->frame[37] == 68;
}

static void test_user_dhcp(void **state) {
    const struct net_config cfg = {.kind = NET_USER, .jail = JAIL_AUTO};
    struct net *n = open_net(&cfg);
    size_t len = put_discover();

    plug(n);
    assert_true(net_link(n));
    net_card_can(n, NET_CAN_CSUM);
    card.check = is_dhcp;
    card.want = 1;
    assert_true(send_bytes(message, len));
    os_loop_run(loop);
    assert_true(card.off.csum_good);
    assert_memory_equal(card.frame + 42 + 4, "\xb1\x50\x12\x34", 4);
    assert_memory_equal(card.frame + 42 + 16, "\x0a\x00\x02\x0f", 4);
    end(n);
}

/* RFC 1350, "Initial Connection Protocol": NAME is asked for in octets. */
static size_t put_read_request(const char *name) {
    size_t len = strlen(name) + 1;
    uint8_t *b = message + 42;

    memset(message, 0, sizeof(message));
    b[1] = 1;
    memcpy(b + 2, name, len);
    memcpy(b + 2 + len, "octet", 6);
    len = put_udp(2000, 69, 2 + len + 6);
    memcpy(message + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
    sum_up();
    return len;
}

static bool is_tftp(struct card *c) {
    return c->len > 46 && c->frame[23] == 17 && c->frame[36] == 2000 >> 8 &&
           c->frame[37] == (2000 & 0xff);
}

/* Asks for NAME: the packet's kind, 3 (data) or 5 (error). */
static unsigned ask_tftp(const char *name) {
    size_t len = put_read_request(name);

    card.check = is_tftp;
    card.want = card.got + 1;
    assert_true(send_bytes(message, len));
    os_loop_run(loop);
    return card.frame[43];
}

static void test_user_tftp(void **state) {
    char dir[] = "/tmp/bivisor-net-XXXXXX", command[128];
    struct net_config cfg = {
        .kind = NET_USER, .jail = JAIL_AUTO, .tftp = dir, .bootfile = "pxe.0"};
    struct net *n;
    size_t len;

    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof(command), "printf hello >%s/f && ln -s /etc/passwd %s/out",
             dir, dir);
    assert_int_equal(system(command), 0);
    n = open_net(&cfg);
    plug(n);
    /* DHCP, by which it also knows where we are, has the server and the name. */
    card.check = is_dhcp;
    card.want = 1;
    len = put_discover();
    assert_true(send_bytes(message, len));
    os_loop_run(loop);
    assert_memory_equal(card.frame + 42 + 20, "\x0a\x00\x02\x02", 4);
    assert_string_equal((char *)card.frame + 42 + 108, "pxe.0");
    assert_int_equal(ask_tftp("f"), 3);
    assert_int_equal(card.len, 46 + 5);
    assert_memory_equal(card.frame + 46, "hello", 5);
    assert_int_equal(ask_tftp("none"), 5);
    if (!OS_JAIL_SANITIZED)
        assert_int_equal(ask_tftp("out"), 5);
    assert_int_equal(ask_tftp("../../etc/passwd"), 5);
    assert_int_equal(ask_tftp("f"), 3);
    end(n);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void test_user_no_directory(void **state) {
    struct net_config cfg = {.kind = NET_USER, .jail = JAIL_AUTO, .tftp = "/etc/passwd"};
    struct net *n;
    char why[200];

    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -ENOTDIR);
    assert_string_equal(why, "tftp=/etc/passwd: Not a directory");
    cfg.tftp = "/no/such";
    assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -ENOENT);
}

static unsigned free_port(int type) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t size = sizeof(a);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static bool is_forwarded(struct card *c) {
    return c->len == 42 + 5 && c->frame[23] == 17 && !memcmp(c->frame + 42, "hello", 5);
}

static bool is_arp_for_us(struct card *c) {
    return c->len >= 42 && c->frame[12] == 8 && c->frame[13] == 6 &&
           !memcmp(c->frame + 38, "\x0a\x00\x02\x0f", 4);
}

static void answer_arp(void) {
    uint8_t a[60] = {0};

    memcpy(a, card.frame + 6, 6);
    memcpy(a + 6, (const uint8_t[]){0x52, 0x54, 0, 0x12, 0x34, 0x56}, 6);
    memcpy(a + 12, card.frame + 12, 8);
    a[21] = 2;
    memcpy(a + 22, a + 6, 6);
    memcpy(a + 28, card.frame + 38, 4);
    memcpy(a + 32, card.frame + 22, 10);
    assert_true(send_bytes(a, sizeof(a)));
}

/* A datagram to the host's port comes to the guest's, after ARP has found it. */
static void test_user_forward(void **state) {
    struct net_config cfg = {.kind = NET_USER, .jail = JAIL_AUTO, .forwards = 1};
    struct sockaddr_in a = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct net *n;

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)free_port(SOCK_DGRAM));
    cfg.forward[0] = (struct net_forward){true, {127, 0, 0, 1}, ntohs(a.sin_port), 777};
    n = open_net(&cfg);
    plug(n);
    card.check = is_arp_for_us;
    card.want = 1;
    assert_int_equal(sendto(fd, "hello", 5, 0, (struct sockaddr *)&a, sizeof(a)), 5);
    os_loop_run(loop);
    card.got = 0;
    card.check = is_forwarded;
    answer_arp();
    os_loop_run(loop);
    assert_int_equal(card.frame[36] << 8 | card.frame[37], 777);
    close(fd);
    end(n);
}

/* Two ports that nobody has; somebody else may be quicker, but not again and again. */
static struct net *with_two_ports(struct net_config *cfg) {
    struct net *n = NULL;
    char why[256];
    int rc = -EADDRINUSE;

    for (int tries = 0; rc == -EADDRINUSE && tries < 20; tries++) {
        for (unsigned k = 0; k < 2; k++)
            cfg->forward[k] = (struct net_forward){
                false, {127, 0, 0, 1}, (uint16_t)free_port(SOCK_STREAM), 1};
        rc = net_open(cfg, &n, why, sizeof(why));
    }
    assert_int_equal(rc, 0);
    return n;
}

static void test_user_port_taken(void **state) {
    struct net_config cfg = {.kind = NET_USER, .jail = JAIL_AUTO, .forwards = 2};
    struct net *first = with_two_ports(&cfg), *second;
    char why[256];

    cfg.forward[0].udp = true;
    assert_int_equal(net_open(&cfg, &second, why, sizeof(why)), -EADDRINUSE);
    assert_non_null(strstr(why, "TCP port"));
    assert_non_null(strstr(why, "127.0.0.1"));
    net_close(first);
    second = open_net(&cfg); /* it is free when net_close() is back */
    net_close(second);
}

/* The process locks itself up: what it must not do ends it, and the link. */
static void test_user_jailed(void **state) {
    const struct net_config cfg = {.kind = NET_USER, .jail = JAIL_ON};
    struct net *n;
    char why[256];

    if (OS_JAIL_SANITIZED) {
        assert_int_equal(net_open(&cfg, &n, why, sizeof(why)), -ENOTSUP);
        assert_non_null(strstr(why, "locked up"));
        return;
    }
    n = open_net(&cfg);
    net_close(n);
}

/* Of the only process that we have made and that is not a listener's keeper. */
static pid_t only_child(void) {
    char name[64];
    int pid = 0, more;
    FILE *f;

    snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)getpid());
    f = fopen(name, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d %d", &pid, &more), 1);
    fclose(f);
    return pid;
}

/* It is gone: the card has no link, what is sent is lost, and closing does not wait. */
static void test_user_killed(void **state) {
    const struct net_config cfg = {.kind = NET_USER, .jail = JAIL_AUTO};
    struct net *n;
    size_t len = put_discover();

    while (waitpid(-1, NULL, 0) > 0)
        ;
    n = open_net(&cfg);
    plug(n);
    assert_true(net_link(n));
    assert_int_equal(kill(only_child(), SIGKILL), 0);
    os_loop_run(loop);
    assert_int_equal(card.links, 1);
    assert_false(net_link(n));
    assert_true(send_bytes(message, len));
    assert_int_equal(net_figures(n).dropped, 1);
    end(n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_receive_blocked),
        cmocka_unit_test(test_send_refused),
        cmocka_unit_test(test_limit_in),
        cmocka_unit_test(test_limit_out),
        cmocka_unit_test(test_peer_gone),
        cmocka_unit_test(test_gone_while_blocked),
        cmocka_unit_test(test_peer_lies),
        cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_send_cut),
        cmocka_unit_test(test_receive_together),
        cmocka_unit_test(test_receive_good),
        cmocka_unit_test(test_open_errors),
        cmocka_unit_test(test_user_dhcp),
        cmocka_unit_test(test_user_tftp),
        cmocka_unit_test(test_user_no_directory),
        cmocka_unit_test(test_user_forward),
        cmocka_unit_test(test_user_port_taken),
        cmocka_unit_test(test_user_jailed),
        cmocka_unit_test(test_user_killed),
    };

    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, setup, teardown);
}
