/*
 * The API's parts by themselves: requests of HTTP as they come, byte by byte; what a
 * machine may be made of, and as arguments of `bivisor run`; figures for Prometheus. The
 * whole, at a socket, is tests/api's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/config.h"
#include "api/fields.h"
#include "api/http.h"
#include "api/png.h"
#include "api/prometheus.h"

/* --- http --- */

static const char *why;
static int status;

static enum http_state parse(const char *text, size_t len, struct http_request *q) {
    return http_parse(text, len, HTTP_BODY_MAX, q, &why, &status);
}

/* Whatever has come of it is not enough, until all has. */
static void test_piecewise(void **state) {
    static const char text[] =
        "PATCH /vm?x=y HTTP/1.1\r\nHost: a\r\nContent-Length:  5 \r\n"
        "Connection: close\r\n\r\n12345GET / HTTP/1.0\r\n\r\n";
    size_t whole = (size_t)(strstr(text, "GET /") - text);
    struct http_request q;

    for (size_t len = 0; len < whole; len++)
        assert_int_equal(parse(text, len, &q), HTTP_MORE);
    for (size_t len = whole; len < sizeof(text); len++) {
        assert_int_equal(parse(text, len, &q), HTTP_WHOLE);
        assert_int_equal(q.size, whole);
    }
    assert_string_equal(q.method, "PATCH");
    assert_string_equal(q.path, "/vm");
    assert_int_equal(q.body_len, 5);
    assert_memory_equal(q.body, "12345", 5);
    assert_false(q.keep);
    assert_int_equal(parse(text + whole, sizeof(text) - 1 - whole, &q), HTTP_WHOLE);
    assert_string_equal(q.path, "/");
    assert_false(q.keep); /* HTTP/1.0 */
}

static void test_keep(void **state) {
    static const struct {
        const char *text;
        bool keep;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nconnection: CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n", true},
    };
    struct http_request q;

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        assert_int_equal(parse(cases[n].text, strlen(cases[n].text), &q), HTTP_WHOLE);
        assert_int_equal(q.keep, cases[n].keep);
    }
}

static void test_bad_requests(void **state) {
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"GET\r\n\r\n", 400},
        {"\r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {" GET / HTTP/1.1\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1 \r\n\r\n", 400},
        {"GET / HTTP/1.2\r\n\r\n", 505},
        {"GET / HTTQ/1.1\r\n\r\n", 505},
        {"GET x HTTP/1.1\r\n\r\n", 400},
        {"LONGMETHOD / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n: x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\na b: x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: \x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: x\ny\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", 413},
        {"GET / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n", 413},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", 501},
    };
    char long_one[HTTP_HEAD_MAX + 1];
    struct http_request q;

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        why = NULL;
        assert_int_equal(parse(cases[n].text, strlen(cases[n].text), &q), HTTP_BAD);
        assert_int_equal(status, cases[n].status);
        assert_non_null(why);
    }
    memset(long_one, 'x', sizeof(long_one));
    assert_int_equal(parse(long_one, HTTP_HEAD_MAX - 1, &q), HTTP_MORE);
    assert_int_equal(parse(long_one, HTTP_HEAD_MAX, &q), HTTP_BAD);
    assert_int_equal(status, 431);
    assert_int_equal(parse("GET / HTTP/1.1\r\nA: \0\r\n\r\n", 24, &q), HTTP_BAD);
}

/* --- what a machine is made of --- */

static char text[512];

static int load(struct config *c, const char *json) {
    return config_load(c, json, text, sizeof(text));
}

/* The words, joined by spaces. */
static char *words(const struct config *c, bool pci) {
    static char line[4096];
    int count = 0;
    char **w = config_words(c, pci, &count);
    size_t len = 0;

    assert_non_null(w);
    *line = 0;
    for (int n = 0; n < count; n++)
        len +=
            (size_t)snprintf(line + len, sizeof(line) - len, "%s%s", n ? " " : "", w[n]);
    assert_null(w[count]);
    config_words_free(w);
    return line;
}

static void test_words(void **state) {
    struct config c = {0};

    assert_int_equal(config_complete(&c, text, sizeof(text)), -EINVAL);
    assert_int_equal(load(&c, "{\"boot-source\":{\"kernel_image_path\":\"--k\"}}"), 0);
    assert_int_equal(config_complete(&c, text, sizeof(text)), 0);
    assert_string_equal(
        words(&c, false),
        "--no-reboot --kernel --k --append console=ttyS0 reboot=k panic=1 "
        "--memory 128M --cpus 1 --virtio mmio --no-pci --no-rng");
    assert_int_equal(
        load(&c, "{\"boot-source\":{\"kernel_image_path\":\"k\",\"boot_args\":\"quiet\","
                 "\"initrd_path\":\"i\"},\n"
                 "\"machine-config\":{\"vcpu_count\":2,\"mem_size_mib\":64},"
                 "\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"a\","
                 "\"is_root_device\":false},{\"drive_id\":\"b\",\"path_on_host\":\"b,c\","
                 "\"is_root_device\":true,\"is_read_only\":true}],"
                 "\"network-interfaces\":[{\"iface_id\":\"n\",\"host_dev_name\":\"t,0\","
                 "\"guest_mac\":\"02:00:00:00:00:0A\",\"mtu\":1400}],"
                 "\"vsock\":{\"guest_cid\":7,\"uds_path\":\"/s\"},\"entropy\":{},"
                 "\"serial\":{\"serial_out_path\":\"/o\"},\"balloon\":null}"),
        0);
    assert_string_equal(
        words(&c, true),
        "--no-reboot --kernel k --initrd i --append quiet root=/dev/vda ro "
        "--memory 64M --cpus 2 --virtio pci --disk b,,c,readonly --disk a "
        "--net tap=t,,0,mac=02:00:00:00:00:0A,mtu=1400 "
        "--vsock CID=7,path=/s --serial file=/o");
    config_free(&c);
}

/* What a machine is told of its limits. */
static char told[2048];

static bool refuses; /* the machine does */

static bool tell(void *arg, const char *line) {
    size_t len = strlen(told);

    snprintf(told + len, sizeof(told) - len, "%s\n", line);
    return !refuses;
}

static const struct config_teller machine = {tell, NULL};

#define LIMIT(device, what, rest)                                                        \
    "{\"command\":\"limit\",\"device\":\"" device "\",\"what\":\"" what "\"," rest "}\n"

static int patch(struct config *c, enum config_part part, const char *id,
                 const char *json) {
    cJSON *value = cJSON_Parse(json);
    int rc;

    *told = *text = 0;
    rc = config_patch(c, part, id, value, &machine, text, sizeof(text));
    cJSON_Delete(value);
    return rc;
}

static void test_limits(void **state) {
    struct config c = {0};

    assert_int_equal(
        load(&c, "{\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"a\","
                 "\"is_root_device\":false,\"rate_limiter\":{\"bandwidth\":{\"size\":9,"
                 "\"refill_time\":100},\"ops\":null}},"
                 "{\"drive_id\":\"r\",\"path_on_host\":\"r\",\"is_root_device\":true,"
                 "\"rate_limiter\":{\"ops\":{\"size\":3,\"refill_time\":7,"
                 "\"one_time_burst\":5}}},"
                 "{\"drive_id\":\"b\",\"path_on_host\":\"b\",\"is_root_device\":false}],"
                 "\"network-interfaces\":[{\"iface_id\":\"n\",\"net\":\"user\","
                 "\"tx_rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":2}}}]}"),
        0);
    *told = 0;
    config_limits(&c, &machine);
    assert_string_equal(
        told,
        LIMIT("disk1", "bytes", "\"amount\":9,\"ms\":100,\"burst\":9,\"once\":0") LIMIT(
            "disk0", "operations", "\"amount\":3,\"ms\":7,\"burst\":3,\"once\":5")
            LIMIT("net0", "out-frames", "\"amount\":1,\"ms\":2,\"burst\":1,\"once\":0"));
    assert_int_equal(patch(&c, CONFIG_DRIVES, "b",
                           "{\"drive_id\":\"b\",\"rate_limiter\":{\"bandwidth\":"
                           "{\"size\":0,\"refill_time\":5}}}"),
                     0);
    assert_string_equal(told, LIMIT("disk2", "bytes", "\"amount\":0"));
    assert_int_equal(patch(&c, CONFIG_NETS, "n",
                           "{\"iface_id\":\"n\",\"rx_rate_limiter\":{\"bandwidth\":"
                           "{\"size\":4,\"refill_time\":5}}}"),
                     0);
    assert_string_equal(
        told, LIMIT("net0", "in", "\"amount\":4,\"ms\":5,\"burst\":4,\"once\":0"));
    assert_int_equal(patch(&c, CONFIG_NETS, "m", "{\"iface_id\":\"m\"}"), -EINVAL);
    assert_int_equal(patch(&c, CONFIG_DRIVES, "b",
                           "{\"drive_id\":\"b\",\"rate_limiter\":{\"ops\":3}}"),
                     -EINVAL);
    assert_true(!*told && *text);
    config_free(&c);
}

static const char *file_of_drive(const struct config *c, int n) {
    return fields_text(cJSON_GetArrayItem(c->part[CONFIG_DRIVES], n), "path_on_host", "");
}

/* A drive's other file: the machine is told, and what it refuses is not kept. */
static void test_files(void **state) {
    struct config c = {0};

    assert_int_equal(load(&c, "{\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"a\","
                              "\"is_root_device\":false},{\"drive_id\":\"r\","
                              "\"path_on_host\":\"r\",\"is_root_device\":true}]}"),
                     0);
    assert_int_equal(
        patch(&c, CONFIG_DRIVES, "a", "{\"drive_id\":\"a\",\"path_on_host\":\"z\"}"), 0);
    assert_string_equal(told, "{\"command\":\"drive\",\"number\":1,\"drive\":\"a\","
                              "\"path\":\"z\"}\n");
    assert_string_equal(file_of_drive(&c, 0), "z");
    refuses = true;
    assert_int_equal(patch(&c, CONFIG_DRIVES, "a",
                           "{\"drive_id\":\"a\",\"path_on_host\":\"y\",\"rate_limiter\":"
                           "{\"ops\":{\"size\":1,\"refill_time\":5}}}"),
                     0);
    refuses = false;
    assert_null(strstr(told, "limit"));
    assert_string_equal(file_of_drive(&c, 0), "z");
    config_free(&c);
}

/* What was refused leaves what was there. */
static void test_refused(void **state) {
    static const char *const cases[] = {
        "",
        "x",
        "[]",
        "{\"fly\":{}}",
        "{\"boot-source\":[]}",
        "{\"boot-source\":{\"kernel_image_path\":7}}",
        "{\"boot-source\":{\"kernel_image_path\":\"\"}}",
        "{\"boot-source\":{\"kernel_image_path\":\"a\\nb\"}}",
        "{\"boot-source\":{\"kernel_image_path\":\"a\\u0000b\"}}",
        "{\"machine-config\":{\"vcpu_count\":1}}",
        "{\"machine-config\":{\"vcpu_count\":0,\"mem_size_mib\":1}}",
        "{\"machine-config\":{\"vcpu_count\":1e99,\"mem_size_mib\":1}}",
        "{\"drives\":{}}",
        "{\"drives\":[7]}",
        "{\"drives\":[{\"drive_id\":\"a/"
        "b\",\"path_on_host\":\"x\",\"is_root_device\":true}]}",
        "{\"drives\":[{\"drive_id\":\"o\",\"path_on_host\":\"x\",\"is_root_device\":true}"
        "]}",
        "{\"network-interfaces\":[{\"iface_id\":\"n\"}]}",
        "{\"network-interfaces\":[{\"iface_id\":\"n\",\"net\":\"user\","
        "\"guest_mac\":\"02:00:00:00:00-01\"}]}",
        "{\"vsock\":{\"guest_cid\":2,\"uds_path\":\"s\"}}",
        "{\"bivisor\":{\"direct\":\"perhaps\"}}",
    };
    struct config c = {0};
    char before[4096];

    assert_int_equal(load(&c,
                          "{\"boot-source\":{\"kernel_image_path\":\"k\"},\"drives\":[{"
                          "\"drive_id\":\"a\",\"path_on_host\":\"p\","
                          "\"is_root_device\":true}]}"),
                     0);
    strcpy(before, words(&c, false));
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        *text = 0;
        assert_int_equal(load(&c, cases[n]), -EINVAL);
        assert_true(*text && !strchr(text, '\n'));
        assert_string_equal(words(&c, false), before);
    }
    config_free(&c);
}

static void test_too_many(void **state) {
    struct config c = {0};
    char json[256];

    for (unsigned n = 0; n <= CONFIG_DRIVES_MAX; n++) {
        snprintf(json, sizeof(json),
                 "{\"drives\":[{\"drive_id\":\"d%u\",\"path_on_host\":\"p\","
                 "\"is_root_device\":false}]}",
                 n);
        assert_int_equal(load(&c, json), n < CONFIG_DRIVES_MAX ? 0 : -EINVAL);
        assert_int_equal(load(&c,
                              "{\"drives\":[{\"drive_id\":\"d0\",\"path_on_host\":\"q\","
                              "\"is_root_device\":false}]}"),
                         0);
    }
    config_free(&c);
}

/* --- figures --- */

static void test_prometheus(void **state) {
    cJSON *stats = cJSON_Parse("{\"engine\":\"bt\",\"wall_seconds\":1.5,"
                               "\"counters\":{\"a\":3,\"b c\":4}}");
    size_t len;
    char *out = prometheus_text(stats, &len);

    assert_string_equal(out, "# TYPE bivisor_wall_seconds gauge\n"
                             "bivisor_wall_seconds 1.5\n"
                             "# TYPE bivisor_counters_a counter\n"
                             "bivisor_counters_a 3\n"
                             "# TYPE bivisor_counters_b_c counter\n"
                             "bivisor_counters_b_c 4\n");
    assert_int_equal(len, strlen(out));
    free(out);
    cJSON_Delete(stats);
}

/* What a machine says that has been got at. */
static void test_no_picture(void **state) {
    static const char *const cases[] = {
        "{}",
        "{\"width\":1,\"height\":1}",
        "{\"width\":0,\"height\":1,\"data\":\"\"}",
        "{\"width\":1e9,\"height\":1e9,\"data\":\"\"}",
        "{\"width\":1,\"height\":1,\"data\":\"\"}",
        "{\"width\":1,\"height\":1,\"data\":\"!!!!\"}",
        "{\"width\":1,\"height\":1,\"data\":\"AAAA\"}",
        "{\"width\":\"1\",\"height\":1,\"data\":\"AAAA\"}",
    };
    size_t len;

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        cJSON *answer = cJSON_Parse(cases[n]);

        assert_null(png_of_picture(answer, &len));
        cJSON_Delete(answer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_piecewise),    cmocka_unit_test(test_keep),
        cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_words),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_files),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_prometheus),   cmocka_unit_test(test_no_picture),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
