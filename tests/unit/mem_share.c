/* Memory that shows a file: what is saved of it, and how it gets a descriptor again. */
#include "mem/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE 4096u

static int new_file(uint64_t size) {
    int fd = memfd_create("file", 0);

    assert_true(fd >= 0 && !ftruncate(fd, (off_t)size));
    return fd;
}

/* Pages 1 and 700 of the file have something. */
static struct mem *shown(int *fd) {
    struct mem *m;

    assert_int_equal(mem_create(MEM_MIN_RAM, &m), 0);
    *fd = new_file(mem_host_size(m));
    assert_int_equal(pwrite(*fd, "one", 3, 1 * PAGE), 3);
    assert_int_equal(pwrite(*fd, "seven", 5, 700 * PAGE), 5);
    assert_int_equal(mem_overlay(m, *fd), 0);
    return m;
}

static void end(struct mem *m, int fd) {
    mem_share_drop(m);
    mem_destroy(m);
    close(fd);
}

static void put(struct mem *m, unsigned page, const char *text) {
    assert_true(mem_write(m, gpa(page * PAGE), text, strlen(text)));
}

static void holds(const struct mem *m, unsigned page, const char *text) {
    const uint8_t *at = mem_ram_base(m) + page * PAGE;

    assert_memory_equal(at, text, strlen(text) + 1);
}

static void file_holds(int fd, unsigned page, const char *text) {
    char is[16] = "";

    assert_int_equal(pread(fd, is, sizeof(is), page * PAGE), sizeof(is));
    assert_string_equal(is, text);
}

static void share(struct mem *m) {
    uint64_t at = 0;
    int rc;

    while ((rc = mem_share_part(m, &at)) > 0)
        ;
    assert_int_equal(rc, 0);
    assert_int_equal(mem_share_finish(m), 0);
}

static void written(void **state) {
    uint8_t *before;
    struct mem *m;
    int fd;

    m = shown(&fd);
    before = mem_ram_base(m);
    assert_int_equal(mem_ram_fd(m), -1);
    assert_int_equal(mem_share_begin(m), 0);
    put(m, 1, "uno");
    put(m, 2, "two");
    share(m);
    assert_ptr_equal(mem_ram_base(m), before);
    assert_true(mem_ram_fd(m) >= 0);
    holds(m, 1, "uno");
    holds(m, 2, "two");
    holds(m, 700, "seven");
    put(m, 3, "three"); /* now for others to see */
    file_holds(mem_ram_fd(m), 1, "uno");
    file_holds(mem_ram_fd(m), 3, "three");
    file_holds(mem_ram_fd(m), 700, "seven");
    file_holds(fd, 1, "one"); /* as it was */
    file_holds(fd, 3, "");
    end(m, fd);
}

/* What went back to the host, before its page was copied or after. */
static void given_back(void **state) {
    uint64_t at = 0;
    struct mem *m;
    int fd;

    m = shown(&fd);
    assert_int_equal(mem_share_begin(m), 0);
    mem_discard(m, gpa(700 * PAGE), PAGE);
    assert_true(mem_share_part(m, &at) >= 0);
    mem_discard(m, gpa(1 * PAGE), PAGE);
    put(m, 2, "two");
    mem_discard(m, gpa(2 * PAGE), PAGE);
    mem_discard(m, gpa(5 * PAGE), PAGE);
    put(m, 5, "five");
    share(m);
    holds(m, 1, "");
    holds(m, 2, "");
    holds(m, 5, "five");
    holds(m, 700, "");
    end(m, fd);
}

/* Too many to be known: it stays as it was. */
static void too_much(void **state) {
    uint64_t at = 0;
    struct mem *m;
    int fd;

    m = shown(&fd);
    assert_int_equal(mem_share_begin(m), 0);
    for (unsigned n = 0; n < 100; n++)
        mem_discard(m, gpa((2 * n + 10) * PAGE), PAGE);
    while (mem_share_part(m, &at) > 0)
        ;
    assert_true(mem_share_finish(m) < 0);
    assert_int_equal(mem_ram_fd(m), -1);
    holds(m, 700, "seven");
    put(m, 700, "more");
    file_holds(fd, 700, "seven");
    end(m, fd);
}

static void saved(void **state) {
    struct mem *m;
    int fd, to;

    m = shown(&fd);
    to = new_file(0);
    put(m, 1, "uno");
    put(m, 900, "nine");
    mem_discard(m, gpa(700 * PAGE), PAGE);
    assert_int_equal(mem_save(m, to), 0);
    file_holds(to, 1, "uno");
    file_holds(to, 700, "");
    file_holds(to, 900, "nine");
    assert_int_equal(lseek(to, 0, SEEK_DATA), PAGE);
    close(to);
    end(m, fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written),
        cmocka_unit_test(given_back),
        cmocka_unit_test(too_much),
        cmocka_unit_test(saved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
