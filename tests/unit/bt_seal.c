/*
 * Sealed code (--bt seal): while translated code runs, no address of the cache can be
 * written, whatever has been made, turned and dropped before.
 */
#include <stdio.h>
#include <string.h>

#include "lib/bt.h"
#include "lib/long.h"
#include "lib/unit.h"
#include "x86/cr.h"

/* Paths become hot, links are turned, calls and returns are met in three places, and the
 * loop writes over its own code: a fragment is dropped and made again. */
BLOB(busy,
     "mov $300, %ecx; lea 4f(%rip), %rbx; 1: call 3f; jmp 2f; 2: call 3f; call *%rbx;"
     "mov %cl, 5f + 1(%rip); 5: mov $1, %dl; test $15, %cl; jnz 6f; sldt %eax;"
     "6: dec %ecx; jnz 1b; hlt; 3: inc %eax; ret; 4: inc %esi; ret");

static struct { unsigned entries, writable; } seen;

/* Is any page of LEN bytes at P in a mapping that can be written? */
static bool is_writable(const uint8_t *p, size_t len) {
    uintptr_t from = (uintptr_t)p, to = from + len;
    bool found = false;
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned long lo, hi;
        char rights[5];

        assert_int_equal(sscanf(line, "%lx-%lx %4s", &lo, &hi, rights), 3);
        found |= lo < to && hi > from && rights[1] == 'w';
    }
    fclose(f);
    return found;
}

static void look(void *arg, const struct ccf *c) {
    const struct os_code *code = &((struct bt *)arg)->sh->env.code;

    seen.entries++;
    seen.writable +=
        is_writable(code->rw, code->size) || is_writable(code->rx, code->size);
}

static void run_busy(const char *options) {
    long_use(options);
    long_start();
    PLACE(busy, CODE);
    memset(&seen, 0, sizeof(seen));
    memset(&G.cnt, 0, sizeof(G.cnt));
    G.bt->watch = look;
    G.bt->watch_arg = G.bt;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->gpr[REG_RSI], 300);
    assert_true(seen.entries > 20);
    assert_true(G.cnt.bt_translations > 20);
    assert_true(G.cnt.bt_again_written > 10);
    assert_true(strstr(options, "no-chain") || G.cnt.bt_chained > 20);
}

static void test_sealed(void **state) {
    static const char *const options[] = {"seal,hot=5", "seal,hot=0", "seal,hot=2,tu=1",
                                          "seal,hot=5,no-chain,cache=1"};

    for (size_t n = 0; n < ARRAY_SIZE(options); n++) {
        run_busy(options[n]);
        assert_int_equal(seen.writable, 0);
    }
}

/* Without it there is one that can be written: the test sees it. */
static void test_not_sealed(void **state) {
    run_busy("hot=5");
    assert_int_equal(seen.writable, seen.entries);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sealed),
        cmocka_unit_test(test_not_sealed),
    };

    return cmocka_run_group_tests(tests, long_setup, long_teardown);
}
