/*
 * The forms of `bivisor compare`'s output, from a report made by hand: what is in it
 * comes out again in JSON, as a table and as a page, and a page needs nothing from
 * elsewhere.
 */
#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compare/bare.h"
#include "compare/compare.h"

static struct compare_figure ok(double median) {
    return (struct compare_figure){.state = FIGURE_OK,
                                   .min = median * 0.9,
                                   .median = median,
                                   .max = median * 1.5,
                                   .samples = 21};
}

static struct compare_report *make_report(void) {
    struct compare_report *r = calloc(1, sizeof(*r));
    unsigned syscall_n = (unsigned)compare_index("syscall");
    unsigned in_n = (unsigned)compare_index("in");

    assert_non_null(r);
    snprintf(r->host, sizeof(r->host), "CPU <&> \"one\"");
    snprintf(r->date, sizeof(r->date), "2020-01-02");
    r->tsc_mhz = 1234;
    r->widths[1] = r->has_frob = r->has_macro = true;
    r->columns = 3;
    r->column[0] = (struct compare_column){.name = "bt", .ours = true};
    r->column[1] = (struct compare_column){
        .name = "kvm", .ours = true, .hardware = true, .emulated = true};
    r->column[2] = (struct compare_column){.name = "tcg"};
    r->column[0].frob[1][syscall_n] = ok(321);
    r->column[0].frob[1][syscall_n].event_count = 2;
    r->column[0].frob[1][syscall_n].events[0] =
        (struct compare_event){.name = "io", .exit = true, .each = 2};
    r->column[0].frob[1][syscall_n].events[1] =
        (struct compare_event){.name = "bt_callouts", .each = 3};
    r->column[1].frob[1][syscall_n] = ok(4567);
    r->column[2].frob[1][syscall_n] = ok(642);
    r->column[0].frob[1][in_n] =
        (struct compare_figure){.state = FIGURE_FAILED, .why = "went <wrong>"};
    r->column[0].self_count[1] = 1;
    r->column[0].self[1][0] = (struct compare_self){
        .name = "popf_cpl3_if0", .got = "0x7", .want = "0x0", .ok = false};
    r->macros = 1;
    r->macro[0] = (struct compare_macro){
        .name = "forkwait", .native = ok(2), .paper_bt = 6.15, .paper_vt = 17.7};
    r->column[0].macro[0] = ok(7);
    return r;
}

static const cJSON *at(const cJSON *o, const char *path) {
    char part[64];

    while (*path && o) {
        size_t n = strcspn(path, "/");

        snprintf(part, sizeof(part), "%.*s", (int)n, path);
        o = cJSON_GetObjectItem(o, part);
        path += n + (path[n] == '/');
    }
    return o;
}

static double value(const cJSON *o, const char *path) {
    const cJSON *v = at(o, path);

    assert_non_null(v);
    return v->valuedouble;
}

static void test_json(void **state) {
    struct compare_report *r = make_report();
    char *text = compare_json(r);
    cJSON *root = cJSON_Parse(text);
    const cJSON *columns, *bt, *kvm;

    assert_non_null(root);
    assert_string_equal(at(root, "host")->valuestring, "CPU <&> \"one\"");
    columns = at(root, "columns");
    assert_int_equal(cJSON_GetArraySize(columns), 3);
    bt = cJSON_GetArrayItem(columns, 0);
    kvm = cJSON_GetArrayItem(columns, 1);
    assert_true(value(bt, "frob64/cycles/syscall/median") == 321);
    assert_true(value(bt, "frob64/cycles/syscall/exits/io") == 2);
    assert_true(value(bt, "frob64/cycles/syscall/events/bt_callouts") == 3);
    assert_string_equal(at(bt, "frob64/cycles/in/why")->valuestring, "went <wrong>");
    assert_true(cJSON_IsFalse(at(bt, "frob64/self/popf_cpl3_if0/ok")));
    assert_true(cJSON_IsFalse(at(bt, "emulated_underneath")));
    assert_true(cJSON_IsTrue(at(kvm, "emulated_underneath")));
    assert_true(value(root, "paper/syscall/bt") == 2308);
    assert_true(value(bt, "linux/forkwait/median") == 7);
    assert_null(at(root, "shadow"));
    cJSON_Delete(root);
    free(text);
    free(r);
}

static char *captured(void (*show)(const struct compare_report *, FILE *),
                      const struct compare_report *r) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    assert_non_null(f);
    show(r, f);
    fclose(f);
    return text;
}

static unsigned times(const char *text, const char *what) {
    unsigned n = 0;

    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

static void test_html(void **state) {
    static const char *const elsewhere[] = {
        "http:", "https:",  "//",   "src=",    "href=",  "<script",
        "<link", "@import", "url(", "<iframe", "<image", "<object"};
    static const char *const tags[] = {"div",     "span", "table", "tr",
                                       "details", "h2",   "p"};
    struct compare_report *r = make_report();
    char *text = captured(compare_html, r);

    assert_int_equal(strncmp(text, "<!doctype html>", 15), 0);
    for (unsigned n = 0; n < ARRAY_SIZE(elsewhere); n++)
        assert_null(strstr(text, elsewhere[n]));
    for (unsigned n = 0; n < ARRAY_SIZE(tags); n++) {
        char open[16], open_class[16], close[16];

        snprintf(open, sizeof(open), "<%s>", tags[n]);
        snprintf(open_class, sizeof(open_class), "<%s ", tags[n]);
        snprintf(close, sizeof(close), "</%s>", tags[n]);
        assert_int_equal(times(text, open) + times(text, open_class), times(text, close));
    }
    assert_non_null(strstr(text, "CPU &lt;&amp;&gt; &quot;one&quot;"));
    assert_non_null(strstr(text, "went &lt;wrong&gt;"));
    assert_non_null(strstr(text, ">321<"));
    assert_non_null(strstr(text, "0.50 tcg"));
    assert_non_null(strstr(text, "emulated underneath"));
    assert_non_null(strstr(text, "3.50&times;"));
    free(text);
    free(r);
}

static void test_text(void **state) {
    struct compare_report *r = make_report();
    char *text = captured(compare_text, r);

    assert_non_null(strstr(text, "321"));
    assert_non_null(strstr(text, "2308"));
    assert_non_null(strstr(text, "[ io 2.00 ] bt_callouts 3.00"));
    assert_non_null(strstr(text, "went <wrong>"));
    assert_non_null(strstr(text, "kvm*"));
    assert_non_null(strstr(text, "emulated underneath"));
    assert_non_null(strstr(text, "popf_cpl3_if0"));
    assert_non_null(strstr(text, "forkwait"));
    free(text);
    free(r);
}

/* Without an emulated column nobody speaks of one. */
static void test_hardware(void **state) {
    struct compare_report *r = make_report();
    char *text;

    r->column[1].emulated = false;
    text = captured(compare_text, r);
    assert_null(strstr(text, "kvm*"));
    assert_null(strstr(text, "emulated underneath"));
    free(text);
    free(r);
}

/* What bivisor.elf says of itself: the engine's exits, where it has any, else the
 * board's. */
static void test_bare_figures(void **state) {
    cJSON *svm = bare_stats("noise\r\nbivisor: warning: exit io 7\r\n"
                            "bivisor: warning: svm_exit_io 12\r\n"
                            "bivisor: warning: svm_entries 40\r\n");
    cJSON *bt = bare_stats("bivisor: warning: exit io 7\n");
    struct compare_figure f = ok(1);

    assert_null(bare_stats("qemu: cannot open k\nbivisor: error: no\n"));
    assert_true(value(svm, "exits/io") == 12);
    assert_true(value(svm, "counters/svm_entries") == 40);
    assert_true(value(bt, "exits/io") == 7);
    compare_add_events(&f, svm, bt, 2, 0.1);
    assert_int_equal(f.event_count, 1);
    assert_true(f.events[0].exit && f.events[0].each == 2.5);
    cJSON_Delete(svm);
    cJSON_Delete(bt);
}

static void test_bare_command(void **state) {
    const struct compare_setup s = {.bare = "b.elf"};
    struct bare_command b;
    unsigned n = 0;

    bare_command(&b, &s, "engine=svm", 64, "k,i", "only=in");
    assert_string_equal(b.append, "engine=svm memory=64 stats end=debug-exit -- only=in");
    while (b.qemu.argv[n])
        n++;
    assert_in_range(n, 10, ARRAY_SIZE(b.qemu.argv) - 1);
    assert_int_equal(n, b.qemu.argc);
    assert_string_equal(b.qemu.memory, "448");
    assert_string_equal(b.qemu.argv[n - 1], "k,i");
}

static void test_lists(void **state) {
    assert_true(compare_in_list(NULL, "bt"));
    assert_true(compare_in_list("bt", "bt"));
    assert_true(compare_in_list("interp,bt", "bt"));
    assert_false(compare_in_list("interp,btx", "bt"));
    assert_false(compare_in_list("", "bt"));
    assert_int_equal(compare_index("nothing"), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),         cmocka_unit_test(test_html),
        cmocka_unit_test(test_text),         cmocka_unit_test(test_hardware),
        cmocka_unit_test(test_lists),        cmocka_unit_test(test_bare_figures),
        cmocka_unit_test(test_bare_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
