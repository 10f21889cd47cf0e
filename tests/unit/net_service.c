/*
 * The server inside a network: ARP, and TCP against a client that is written here, over a
 * cable that loses, doubles and delays frames; clients that lie, and that do not read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rnd.h"
#include "net/offload.h"
#include "net/packet.h"
#include "net/service.h"
#include "net/tcp.h"

#define PORT 80
#define SECOND 1000000000ull
#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

static const uint8_t own[4] = {169, 254, 169, 254}, client[4] = {10, 0, 2, 15};
static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

/* --- a service that answers each line with LINE repeated --- */

static unsigned repeat; /* how often */
static unsigned asked;  /* requests */

static size_t request(void *arg, const char *bytes, size_t len,
                      struct net_service_answer *a) {
    const char *end = memchr(bytes, '\n', len);
    size_t size = end ? (size_t)(end - bytes) + 1 : 0;

    if (!size)
        return 0;
    asked++;
    if (!memcmp(bytes, "leave", 5))
        return size;
    a->len = size * repeat;
    a->bytes = malloc(a->len);
    for (unsigned n = 0; n < repeat; n++)
        memcpy(a->bytes + n * size, bytes, size);
    a->close = !memcmp(bytes, "last", 4);
    return size;
}

static const struct net_service_user user = {request, NULL};

static struct net_service *make(unsigned times) {
    struct net_service *s;

    repeat = times;
    asked = 0;
    assert_int_equal(net_service_new(own, PORT, &user, &s), 0);
    return s;
}

/* --- frames --- */

static bool send_frame(struct net_service *s, const uint8_t *frame, size_t len) {
    const struct net_offload off = {0};
    const struct net_piece piece[2] = {{frame, len / 3},
                                       {frame + len / 3, len - len / 3}};

    return net_service_take(s, &off, piece, 2, len);
}

static size_t put_tcp(uint8_t *frame, uint16_t port, uint32_t seq, uint32_t ack,
                      unsigned flags, uint32_t window, const void *payload, size_t len) {
    uint8_t *ip = frame + ETH_HEADER, *tcp = ip + 20;
    size_t total = TCP_HEADER + len;

    memset(frame, 0, ETH_HEADER + 20 + TCP_HEADER);
    memcpy(frame + 6, mac, 6);
    net_put16(frame + 12, TYPE_IPV4);
    ip[0] = 0x45;
    net_put16(ip + 2, (unsigned)(20 + total));
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    memcpy(ip + 12, client, 4);
    memcpy(ip + 16, own, 4);
    net_sum_fill_ipv4(ip, 20);
    net_put16(tcp, port);
    net_put16(tcp + 2, PORT);
    net_put32(tcp + 4, seq);
    net_put32(tcp + 8, ack);
    tcp[12] = 5 << 4;
    tcp[13] = (uint8_t)flags;
    net_put16(tcp + 14, window);
    if (len)
        memcpy(tcp + TCP_HEADER, payload, len);
    net_put16(tcp + TCP_SUM,
              net_sum_complement(
                  net_sum_add(net_sum_pseudo(ip, false, PROTO_TCP, total), tcp, total)));
    return ETH_HEADER + 20 + total;
}

struct got {
    uint32_t seq, ack, window;
    unsigned flags;
    const uint8_t *payload;
    size_t len;
};

/* The next segment, whose frame is a good one. False: there is none. */
static bool receive(struct net_service *s, uint64_t now, struct got *g) {
    uint8_t *frame, *tcp;
    size_t len, header;

    net_service_look(s, now);
    len = net_service_next(s, &frame, now);
    if (!len)
        return false;
    assert_memory_equal(frame, mac, 6);
    assert_true(net_checksum_right(frame, len));
    assert_memory_equal(frame + ETH_HEADER + 12, own, 4);
    assert_memory_equal(frame + ETH_HEADER + 16, client, 4);
    assert_int_equal(net_get16(frame + ETH_HEADER + 2), len - ETH_HEADER);
    tcp = frame + ETH_HEADER + 20;
    header = (tcp[12] >> 4) * 4u;
    *g = (struct got){.seq = net_get32(tcp + 4),
                      .ack = net_get32(tcp + 8),
                      .flags = tcp[13],
                      .window = net_get16(tcp + 14),
                      .payload = tcp + header,
                      .len = len - ETH_HEADER - 20 - header};
    return true;
}

static void say(struct net_service *s, uint16_t port, uint32_t seq, uint32_t ack,
                unsigned flags, const char *text) {
    uint8_t frame[4096];
    size_t len = put_tcp(frame, port, seq, ack, flags, 60000, text, strlen(text));

    assert_true(send_frame(s, frame, len));
}

/* --- ARP --- */

static void test_arp(void **state) {
    struct net_service *s = make(1);
    uint8_t question[ETH_HEADER + 28] = {0}, *frame;

    memset(question, 0xff, 6);
    memcpy(question + 6, mac, 6);
    net_put16(question + 12, 0x0806);
    memcpy(question + 14, (uint8_t[]){0, 1, 8, 0, 6, 4, 0, 1}, 8);
    memcpy(question + 22, mac, 6);
    memcpy(question + 28, client, 4);
    memcpy(question + 38, own, 4);
    assert_true(send_frame(s, question, sizeof(question)));
    net_service_look(s, 1);
    assert_int_equal(net_service_next(s, &frame, 1), sizeof(question));
    assert_memory_equal(frame, mac, 6);
    assert_int_equal(frame[21], 2); /* an answer */
    assert_memory_equal(frame + 28, own, 4);
    assert_memory_equal(frame + 32, mac, 6);
    assert_memory_equal(frame + 38, client, 4);
    assert_int_equal(net_service_next(s, &frame, 1), 0);
    question[41]++; /* another's address */
    assert_false(send_frame(s, question, sizeof(question)));
    question[41]--;
    question[21] = 2; /* no question */
    assert_true(send_frame(s, question, sizeof(question)));
    net_service_look(s, 1);
    assert_int_equal(net_service_next(s, &frame, 1), 0);
    net_service_free(s);
}

/* --- one client, step by step --- */

/* The number that comes next from the service. */
static uint32_t open_from(struct net_service *s, uint16_t port, uint32_t first) {
    struct got g;

    say(s, port, first, 0, SYN, "");
    assert_true(receive(s, 1, &g));
    assert_int_equal(g.flags, SYN | ACK);
    assert_int_equal(g.ack, first + 1);
    say(s, port, first + 1, g.seq + 1, ACK, "");
    return g.seq + 1;
}

static void test_request(void **state) {
    struct net_service *s = make(2);
    uint32_t at = open_from(s, 1000, UINT32_MAX - 2), mine = UINT32_MAX - 1;
    struct got g;

    say(s, 1000, mine, at, ACK, "he");
    assert_true(receive(s, 2, &g));
    assert_int_equal(g.len, 0);
    assert_int_equal(g.ack, (uint32_t)(mine + 2));
    say(s, 1000, mine, at, ACK, "hello\n"); /* what is there already, and more */
    assert_true(receive(s, 2, &g));
    assert_int_equal(g.len, 12);
    assert_memory_equal(g.payload, "hello\nhello\n", 12);
    assert_int_equal(g.seq, at);
    assert_int_equal(g.ack, (uint32_t)(mine + 6));
    assert_false(receive(s, 2, &g));
    assert_true(net_service_when(s) <= 2 + SECOND);
    assert_true(receive(s, 3 + SECOND, &g)); /* it was lost */
    assert_int_equal(g.seq, at);
    assert_int_equal(g.len, 12);
    say(s, 1000, mine + 6, at + 12, ACK | FIN, "");
    assert_true(receive(s, 4 + SECOND, &g));
    assert_true(g.flags & FIN);
    assert_int_equal(g.ack, (uint32_t)(mine + 7));
    say(s, 1000, mine + 7, g.seq + 1, ACK, "");
    assert_false(receive(s, 4 + SECOND, &g));
    assert_true(net_service_when(s) == UINT64_MAX);
    say(s, 1000, mine + 7, g.seq + 1, ACK, ""); /* nobody is there any more */
    assert_true(receive(s, 5 + SECOND, &g));
    assert_int_equal(g.flags & RST, RST);
    net_service_free(s);
}

static void test_service_ends(void **state) {
    struct net_service *s = make(1);
    uint32_t at = open_from(s, 1, 5);
    struct got g;

    say(s, 1, 6, at, ACK, "last\nmore\n");
    assert_true(receive(s, 1, &g));
    assert_int_equal(g.len, 5);
    assert_true(receive(s, 1, &g));
    assert_true(g.flags & FIN);
    assert_int_equal(asked, 1);
    say(s, 1, 16, at + 6, ACK | FIN, "");
    assert_true(receive(s, 1, &g));
    assert_int_equal(g.ack, 17);
    at = open_from(s, 2, 5);
    say(s, 2, 6, at, ACK, "leave\n");
    assert_true(receive(s, 1, &g));
    assert_true(g.flags & FIN);
    net_service_free(s);
}

static void test_refused(void **state) {
    struct net_service *s = make(1);
    uint8_t frame[128];
    struct got g;
    size_t len = put_tcp(frame, 7, 100, 0, SYN, 1, NULL, 0);

    net_put16(frame + ETH_HEADER + 22, PORT + 1); /* another port, and a wrong sum */
    assert_true(send_frame(s, frame, len));
    assert_false(receive(s, 1, &g));
    say(s, 7, 100, 55, ACK, "x");
    assert_true(receive(s, 1, &g));
    assert_int_equal(g.flags, RST);
    assert_int_equal(g.seq, 55);
    open_from(s, 7, 9);
    assert_false(receive(s, 1, &g));
    say(s, 7, 10, 0, RST, "");
    say(s, 7, 10, 77, ACK, "x");
    assert_true(receive(s, 1, &g));
    assert_int_equal(g.flags, RST);
    net_service_free(s);
}

/* A guest that was reset begins with the same port. */
static void test_anew(void **state) {
    struct net_service *s = make(1);
    struct got g;

    open_from(s, 9, 50);
    say(s, 9, 7000, 0, SYN, "");
    assert_true(receive(s, 2, &g));
    assert_int_equal(g.flags, ACK);
    assert_int_equal(g.ack, 51);
    say(s, 9, g.ack, 0, RST, "");
    assert_false(receive(s, 2, &g));
    open_from(s, 9, 7000);
    net_service_free(s);
}

/* A window that is closed is asked for again, and again, until the client is given up. */
static void test_window(void **state) {
    struct net_service *s = make(100);
    uint8_t frame[128];
    uint32_t at = open_from(s, 1, 5);
    uint64_t now = 1;
    unsigned probes = 0;
    struct got g;

    assert_true(send_frame(s, frame, put_tcp(frame, 1, 6, at, ACK, 10, "hey\n", 4)));
    assert_true(receive(s, now, &g));
    assert_int_equal(g.len, 10);
    assert_true(send_frame(s, frame, put_tcp(frame, 1, 10, at + 10, ACK, 0, NULL, 0)));
    g.len = 0;
    while (receive(s, now, &g) || net_service_when(s) != UINT64_MAX) {
        probes += g.len == 1;
        assert_true(g.len <= 1);
        now = net_service_when(s) == UINT64_MAX ? now : net_service_when(s);
        g.len = 0;
    }
    assert_in_range(probes, 3, 10);
    net_service_free(s);
}

static void test_crowd(void **state) {
    struct net_service *s = make(1);
    struct got g;

    for (unsigned n = 0; n < NET_TCP_CONNECTIONS; n++)
        open_from(s, (uint16_t)(100 + n), n);
    say(s, 99, 5, 0, SYN, "");
    assert_true(receive(s, 2, &g));
    assert_int_equal(g.flags, RST | ACK);
    assert_int_equal(g.ack, 6);
    say(s, 99, 5, 0, SYN, ""); /* and when the others have been quiet for long */
    assert_true(receive(s, 100 * SECOND, &g));
    assert_int_equal(g.flags, SYN | ACK);
    net_service_free(s);
}

/* --- a cable that loses, doubles and delays --- */

#define FLIES 8u

struct cable {
    uint8_t frame[FLIES][4096];
    size_t len[FLIES];
};

static void put_on(struct cable *c, const uint8_t *frame, size_t len) {
    unsigned at = pick(FLIES);

    if (!pick(8)) /* lost */
        return;
    memcpy(c->frame[at], frame, len); /* what was there is lost, too */
    c->len[at] = len;
}

static size_t take_off(struct cable *c, uint8_t *frame) {
    unsigned at = pick(FLIES);
    size_t len = c->len[at];

    memcpy(frame, c->frame[at], len);
    if (pick(8)) /* else it comes twice */
        c->len[at] = 0;
    return len;
}

struct talker {
    uint16_t port;
    uint32_t first, acked, want; /* our numbers from FIRST on; what came */
    bool open;
    char said[3000], heard[70000];
    size_t said_len, heard_len;
};

static void talk(struct talker *t, struct cable *out) {
    uint8_t frame[4096];
    size_t from = t->acked - (t->first + 1), n;

    if (!t->open) {
        put_on(out, frame, put_tcp(frame, t->port, t->first, 0, SYN, 5000, NULL, 0));
        return;
    }
    from += pick((unsigned)(t->said_len - from) + 1);
    n = pick((unsigned)(t->said_len - from) + 1);
    if (n > 1000)
        n = 1000;
    put_on(out, frame,
           put_tcp(frame, t->port, t->first + 1 + (uint32_t)from, t->want, ACK,
                   pick(5000), t->said + from, n));
}

static void hear(struct talker *t, const uint8_t *frame) {
    const uint8_t *tcp = frame + ETH_HEADER + 20;
    size_t header = (tcp[12] >> 4) * 4u;
    size_t len = net_get16(frame + ETH_HEADER + 2) - 20 - header;
    uint32_t seq = net_get32(tcp + 4), ack = net_get32(tcp + 8), skip;

    assert_false(tcp[13] & (RST | FIN));
    if (tcp[13] & SYN) {
        if (!t->open)
            t->want = seq + 1;
        t->open = true;
        t->acked = ack > t->acked ? ack : t->acked;
        return;
    }
    if (ack - t->acked <= t->said_len)
        t->acked = ack;
    skip = t->want - seq;
    if (skip > len)
        return;
    memcpy(t->heard + t->heard_len, tcp + header + skip, len - skip);
    t->heard_len += len - skip;
    t->want += (uint32_t)(len - skip);
    assert_true(t->heard_len <= t->said_len * repeat);
}

static void test_bad_cable(void **state) {
    static struct cable out, in;
    static struct talker t;

    for (unsigned round = 0; round < 30; round++) {
        struct net_service *s = make(1 + pick(20));
        uint64_t now = 1;
        uint8_t frame[4096], *next;
        size_t len;

        memset(&out, 0, sizeof(out));
        memset(&in, 0, sizeof(in));
        memset(&t, 0, sizeof(t));
        t.port = 5;
        t.first = 1000;
        t.said_len = 1 + pick(sizeof(t.said));
        for (size_t n = 0; n < t.said_len; n++)
            t.said[n] = pick(50) && n + 1 < t.said_len ? (char)('a' + n % 23) : '\n';
        for (unsigned turn = 0; t.heard_len < t.said_len * repeat; turn++) {
            assert_true(turn < 1000000);
            talk(&t, &out);
            if ((len = take_off(&out, frame)))
                send_frame(s, frame, len);
            net_service_look(s, now);
            if ((len = net_service_next(s, &next, now)))
                put_on(&in, next, len);
            if ((len = take_off(&in, frame)))
                hear(&t, frame);
            now += SECOND / 20;
        }
        for (size_t n = 0, line = 0, at = 0; n < t.said_len; n++) {
            if (t.said[n] != '\n')
                continue;
            for (unsigned k = 0; k < repeat; k++, at += n + 1 - line)
                assert_memory_equal(t.heard + at, t.said + line, n + 1 - line);
            line = n + 1;
        }
        net_service_free(s);
    }
}

/* --- lies --- */

static void test_lies(void **state) {
    struct net_service *s = make(3);
    struct got g;

    for (unsigned n = 0; n < 200000; n++) {
        uint8_t frame[400];
        size_t len = put_tcp(frame, (uint16_t)pick(3), pick(20), (uint32_t)rnd(),
                             (unsigned)pick(64), pick(100), "a\nb\nlast\n", pick(10));

        if (!pick(3))
            frame[ETH_HEADER + pick((unsigned)len - ETH_HEADER)] ^= 1u << pick(8);
        send_frame(s, frame, pick(10) ? len : pick((unsigned)len));
        if (!pick(4))
            while (receive(s, n * (SECOND / 100), &g))
                ;
    }
    net_service_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arp),     cmocka_unit_test(test_request),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_service_ends),
        cmocka_unit_test(test_window),  cmocka_unit_test(test_anew),
        cmocka_unit_test(test_crowd),   cmocka_unit_test(test_bad_cable),
        cmocka_unit_test(test_lies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
