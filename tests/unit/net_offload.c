/*
 * Checksums, segments and framing: functions of bytes, against models that add up one
 * 16-bit word at a time, and against lengths and offsets that are somebody's invention.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rnd.h"
#include "net/frames.h"
#include "net/offload.h"

/* --- the model --- */

static unsigned get16(const uint8_t *p) {
    return (unsigned)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p) {
    return get16(p) << 16 | get16(p + 2);
}

static unsigned sum_words(unsigned sum, const uint8_t *p, size_t len) {
    for (size_t n = 0; n < len; n++) {
        sum += (unsigned)p[n] << (n % 2 ? 0 : 8);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

#define L3_V4 14
#define L4_V4 34
#define L4_V6 54
#define OPTIONS 12 /* of TCP: timestamps */

static unsigned pseudo(const uint8_t *f, bool v6, unsigned proto, size_t len) {
    unsigned sum = v6 ? sum_words(0, f + 22, 32) : sum_words(0, f + 26, 8);
    uint8_t rest[4] = {(uint8_t)(len >> 8), (uint8_t)len, 0, (uint8_t)proto};

    return sum_words(sum, rest, 4);
}

/* A TCP frame with PAYLOAD bytes, its checksum as a card that offloads leaves it. */
static size_t tcp_frame(uint8_t *f, bool v6, size_t payload) {
    size_t l4 = v6 ? L4_V6 : L4_V4, tcp_len = 20 + OPTIONS + payload, len = l4 + tcp_len;

    for (size_t n = 0; n < len; n++)
        f[n] = (uint8_t)rnd();
    put16(f + 12, v6 ? 0x86dd : 0x0800);
    if (v6) {
        f[14] = 0x60;
        put16(f + 18, (unsigned)tcp_len);
        f[20] = 6;
    } else {
        f[14] = 0x45;
        put16(f + 16, (unsigned)(20 + tcp_len));
        put16(f + 20, 0x4000);
        f[23] = 6;
        put16(f + 24, 0);
        put16(f + 24, ~sum_words(0, f + 14, 20) & 0xffff);
    }
    f[l4 + 12] = (20 + OPTIONS) / 4 << 4;
    f[l4 + 13] = 0x99; /* CWR, ACK, PSH, FIN */
    put16(f + l4 + 16, pseudo(f, v6, 6, tcp_len));
    return len;
}

static struct net_offload tcp_offload(bool v6, unsigned size) {
    return (struct net_offload){.csum = true,
                                .gso = v6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
                                .gso_size = (uint16_t)size,
                                .csum_start = v6 ? L4_V6 : L4_V4,
                                .csum_offset = 16};
}

static void assert_sums(const uint8_t *f, bool v6, size_t len) {
    size_t l4 = v6 ? L4_V6 : L4_V4;

    if (!v6)
        assert_int_equal(sum_words(0, f + L3_V4, 20), 0xffff);
    assert_int_equal(sum_words(pseudo(f, v6, 6, len - l4), f + l4, len - l4), 0xffff);
}

/* --- checksums --- */

static void test_fill(void **state) {
    static uint8_t f[2048];

    for (size_t payload = 0; payload < 1400; payload += 1 + rnd() % 40) {
        for (int v6 = 0; v6 < 2; v6++) {
            size_t len = tcp_frame(f, v6, payload);
            struct net_offload off = tcp_offload(v6, 0);

            assert_false(net_checksum_right(f, len)); /* but once in 65,536 */
            assert_true(net_checksum_fill(&off, f, len));
            assert_sums(f, v6, len);
            assert_true(net_checksum_right(f, len));
            f[len - 1 - rnd() % (payload + 20)] ^= 0x40;
            assert_false(net_checksum_right(f, len));
        }
    }
}

/* A sum of zero is written as the other zero, which UDP can tell from none. */
static void test_fill_zero(void **state) {
    uint8_t f[32] = {0};
    struct net_offload off = {.csum = true, .csum_start = 20, .csum_offset = 6};

    f[20] = f[21] = 0xff;
    assert_true(net_checksum_fill(&off, f, sizeof(f)));
    assert_int_equal(get16(f + 26), 0xffff);
}

static void test_fill_outside(void **state) {
    uint8_t f[64] = {0};
    struct net_offload off = {.csum = true, .csum_start = 46, .csum_offset = 16};

    assert_true(net_checksum_fill(&off, f, 64));
    assert_false(net_checksum_fill(&off, f, 63));
    off.csum_start = off.csum_offset = 0xffff;
    assert_false(net_checksum_fill(&off, f, 64));
}

static size_t udp_frame(uint8_t *f, size_t payload) {
    size_t len = 42 + payload;

    memset(f, 0, len);
    put16(f + 12, 0x0800);
    f[14] = 0x45;
    put16(f + 16, (unsigned)(28 + payload));
    f[23] = 17;
    put16(f + 24, ~sum_words(0, f + 14, 20) & 0xffff);
    memset(f + 34, 0x11, 4);
    put16(f + 38, (unsigned)(8 + payload));
    put16(f + 40,
          ~sum_words(pseudo(f, false, 17, 8 + payload), f + 34, 8 + payload) & 0xffff);
    return len;
}

static void test_right(void **state) {
    uint8_t f[256];
    size_t len = udp_frame(f, 33);

    assert_true(net_checksum_right(f, len));
    assert_true(net_checksum_right(f, len + 20)); /* Ethernet's padding */
    assert_false(net_checksum_right(f, len - 1));
    put16(f + 40, 0); /* none */
    assert_false(net_checksum_right(f, len));
    len = udp_frame(f, 33);
    put16(f + 20, 0x2000); /* a fragment */
    put16(f + 24, 0);
    put16(f + 24, ~sum_words(0, f + 14, 20) & 0xffff);
    assert_false(net_checksum_right(f, len));
    udp_frame(f, 33);
    f[25] ^= 1; /* IP's own */
    assert_false(net_checksum_right(f, len));
    udp_frame(f, 33);
    f[12] = 0x88;
    assert_false(net_checksum_right(f, len));
}

/* --- segments --- */

static void check_cut(bool v6, size_t payload, unsigned size) {
    static uint8_t f[NET_FRAME_MAX], out[NET_FRAME_MAX];
    size_t len = tcp_frame(f, v6, payload), head = len - payload, at = 0, total = 0;
    const struct net_offload off = tcp_offload(v6, size);
    size_t l4 = v6 ? L4_V6 : L4_V4, one;
    struct net_segments s;
    unsigned n = 0;

    assert_true(net_segments_begin(&s, &off, f, len));
    assert_int_equal(s.count, payload ? (payload + size - 1) / size : 1);
    total = net_segments_total(&s);
    for (; (one = net_segments_length(&s)); n++) {
        bool last = n + 1 == s.count;

        net_segments_next(&s, out);
        total -= one;
        assert_int_equal(one - head, last ? payload - at : size);
        assert_sums(out, v6, one);
        assert_memory_equal(out + head, f + head + at, one - head);
        assert_memory_equal(out, f, 12);
        assert_int_equal(get32(out + l4 + 4), get32(f + l4 + 4) + (uint32_t)at);
        assert_int_equal(out[l4 + 13], 0x10 | (n ? 0 : 0x80) | (last ? 0x09 : 0));
        if (v6) {
            assert_int_equal(get16(out + 18), one - 54);
        } else {
            assert_int_equal(get16(out + 16), one - 14);
            assert_int_equal(get16(out + 18), (get16(f + 18) + n) & 0xffff);
        }
        at += one - head;
    }
    assert_int_equal(n, s.count);
    assert_int_equal(at, payload);
    assert_int_equal(total, 0);
}

static void test_cut(void **state) {
    for (int v6 = 0; v6 < 2; v6++) {
        check_cut(v6, 0, 1448);
        check_cut(v6, 1, 1448);
        check_cut(v6, 1448, 1448);
        check_cut(v6, 1449, 1448);
        check_cut(v6, 65400, 1448);
        check_cut(v6, 65400, NET_SEGMENT_MIN);
        for (int n = 0; n < 30; n++)
            check_cut(v6, rnd() % 65000, NET_SEGMENT_MIN + rnd() % 9000);
    }
}

/* A VLAN tag, and IPv6's further headers, lie in between. */
static void test_cut_far(void **state) {
    static uint8_t f[4096], tagged[4096], out[4096];
    struct net_offload off = tcp_offload(true, 1000);
    size_t len = tcp_frame(f, true, 2500);
    struct net_segments s;

    memcpy(tagged, f, 12);
    put16(tagged + 12, 0x8100);
    put16(tagged + 14, 5);
    memcpy(tagged + 16, f + 12, L4_V6 - 12);
    memset(tagged + L4_V6 + 4, 0, 8); /* destination options that do nothing */
    tagged[24] = 60;
    tagged[L4_V6 + 4] = 6;
    tagged[L4_V6 + 6] = 1;
    tagged[L4_V6 + 7] = 4;
    memcpy(tagged + L4_V6 + 12, f + L4_V6, len - L4_V6);
    off.csum_start += 12;
    assert_true(net_segments_begin(&s, &off, tagged, len + 12));
    assert_int_equal(s.count, 3);
    net_segments_next(&s, out);
    assert_int_equal(get16(out + 22), 8 + 32 + 1000);
    assert_int_equal(
        sum_words(sum_words(sum_words(0, out + 26, 32),
                            (const uint8_t[]){0x04, 0x08, 0, 6}, 4), /* 1032, TCP */
                  out + L4_V6 + 12, 1032),
        0xffff);
}

static void test_cut_refused(void **state) {
    static uint8_t f[4096];
    const struct net_offload good = tcp_offload(false, 1000);
    size_t len = tcp_frame(f, false, 2500);
    struct net_segments s;
    struct net_offload off = good;

    assert_true(net_segments_begin(&s, &off, f, len));
    off.gso_size = 0;
    assert_false(net_segments_begin(&s, &off, f, len));
    off = good;
    off.gso = NET_GSO_TCP6;
    assert_false(net_segments_begin(&s, &off, f, len));
    off = good;
    off.csum = false;
    assert_false(net_segments_begin(&s, &off, f, len));
    off = good;
    off.csum_start = 38;
    assert_false(net_segments_begin(&s, &off, f, len));
    off = good;
    off.csum_offset = 6;
    assert_false(net_segments_begin(&s, &off, f, len));
    assert_false(net_segments_begin(&s, &good, f, 40));
    f[L4_V4 + 12] = 0x40; /* a header of 16 bytes */
    assert_false(net_segments_begin(&s, &good, f, len));
    f[L4_V4 + 12] = 0xf0;
    assert_false(net_segments_begin(&s, &good, f, 80));
}

/* Any offloads on any frame: nothing outside is touched (with SAN=-fsanitize=address),
 * and it ends. */
static void test_cut_wild(void **state) {
    unsigned good = 0;

    for (int n = 0; n < 20000; n++) {
        size_t len = 100 + rnd() % 400, one;
        uint8_t *f = malloc(600 + len), *frame = malloc(len), *out;
        bool v6 = rnd() % 2;
        struct net_offload off = tcp_offload(v6, 40 + rnd() % 100);
        struct net_segments s;

        tcp_frame(f, v6, 600);
        for (unsigned k = rnd() % 4; k; k--)
            f[12 + rnd() % 60] = (uint8_t)rnd();
        memcpy(frame, f, len);
        if (rnd() % 2)
            off.csum_start = (uint16_t)(rnd() % (len + 20));
        net_checksum_right(frame, len);
        if (net_segments_begin(&s, &off, frame, len))
            good++;
        else
            s.count = 0;
        while ((one = net_segments_length(&s))) {
            assert_in_range(one, 1, len);
            out = malloc(one);
            net_segments_next(&s, out);
            free(out);
        }
        net_checksum_fill(&off, frame, len);
        free(frame);
        free(f);
    }
    assert_in_range(good, 1000, 19999);
}

/* --- framing --- */

#define FRAMES 300

static size_t length_of_nth(unsigned n) {
    return n % 7 == 6 ? NET_FRAME_MAX - n : 14 + n * 13 % 1500;
}

/* What one end puts in comes out at the other, however it is split on the way. */
static void carry(size_t most) {
    struct net_bytes out, in;
    unsigned put = 0, got = 0;
    uint8_t *frame, *p;
    size_t len, space;

    assert_int_equal(net_bytes_new(&out, 200000), 0);
    assert_int_equal(net_bytes_new(&in, 150000), 0);
    while (got < FRAMES) {
        while (put < FRAMES && net_frames_room(&out, length_of_nth(put), 1)) {
            len = length_of_nth(put);
            memset(net_frames_place(&out, len), (int)(put & 0xff), len);
            net_frames_put(&out, len);
            put++;
        }
        len = 1 + rnd() % most;
        p = net_frames_space(&in, &space);
        len = len < space ? len : space;
        if (len > net_bytes_there(&out))
            len = net_bytes_there(&out);
        assert_int_not_equal(len, 0);
        memcpy(p, out.buf + out.at, len);
        net_frames_gone(&out, len);
        net_frames_filled(&in, len);
        while (net_frames_take(&in, &frame, &len) > 0) {
            assert_int_equal(len, length_of_nth(got));
            assert_int_equal(frame[0], got & 0xff);
            assert_int_equal(frame[len - 1], got & 0xff);
            got++;
        }
    }
    assert_int_equal(net_bytes_there(&in), 0);
    assert_int_equal(net_bytes_there(&out), 0);
    net_bytes_free(&in);
    net_bytes_free(&out);
}

static void test_frames_split(void **state) {
    carry(100000);
    carry(1000);
    carry(9);
}

static void test_frames_bytewise(void **state) {
    const uint8_t bytes[] = {0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 0, 1, 'd'};
    struct net_bytes in;
    uint8_t *frame;
    size_t len, space;
    unsigned got = 0;

    assert_int_equal(net_bytes_new(&in, 70000), 0);
    for (size_t n = 0; n < sizeof(bytes); n++) {
        *net_frames_space(&in, &space) = bytes[n];
        net_frames_filled(&in, 1);
        if (net_frames_take(&in, &frame, &len) == 0)
            continue;
        assert_int_equal(n, got == 0 ? 6 : got == 1 ? 10 : 15);
        assert_int_equal(len, got == 0 ? 3 : got == 1 ? 0 : 1);
        got++;
    }
    assert_int_equal(got, 3);
    net_bytes_free(&in);
}

static void test_frames_hostile(void **state) {
    static const uint8_t lengths[][4] = {
        {0xff, 0xff, 0xff, 0xff}, {0x80, 0, 0, 0}, {0, 1, 0, 0x12}, {0, 2, 0, 0}};
    struct net_bytes in;
    uint8_t *frame;
    size_t len, space;

    assert_int_equal(net_bytes_new(&in, 70000), 0);
    for (size_t n = 0; n < sizeof(lengths) / 4; n++) {
        net_bytes_clear(&in);
        memcpy(net_frames_space(&in, &space), lengths[n], 4);
        net_frames_filled(&in, 4);
        assert_int_equal(net_frames_take(&in, &frame, &len), -EPROTO);
    }
    net_bytes_clear(&in);
    memcpy(net_frames_space(&in, &space), (const uint8_t[]){0, 1, 0, 0x11}, 4);
    net_frames_filled(&in, 4);
    assert_int_equal(net_frames_take(&in, &frame, &len), 0);
    net_bytes_free(&in);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_fill_zero),
        cmocka_unit_test(test_fill_outside),
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_cut_far),
        cmocka_unit_test(test_cut_refused),
        cmocka_unit_test(test_cut_wild),
        cmocka_unit_test(test_frames_split),
        cmocka_unit_test(test_frames_bytewise),
        cmocka_unit_test(test_frames_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
