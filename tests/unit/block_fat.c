/*
 * A directory as a disk (block/fat.c): dosfstools find no fault in the file system,
 * mtools find in it what the directory has, and what a guest writes is not in the
 * directory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "lib/unit.h"

#define PARTITION (2048u * 512u)

static char work[] = "/tmp/bivisor-fat-XXXXXX";

/* A shell's command in the test's directory: its status. */
static int shell(const char *command) {
    char line[1024];

    snprintf(line, sizeof(line), "cd %s && %s", work, command);
    return system(line);
}

static int setup(void **state) {
    strcpy(work + strlen(work) - 6, "XXXXXX");
    return !mkdtemp(work) || shell("mkdir dir") != 0;
}

static int teardown(void **state) {
    char line[64];

    snprintf(line, sizeof(line), "rm -rf %s", work);
    return system(line);
}

static int open_it(struct block_spec spec, struct block **b, char *why, size_t size) {
    static char path[64];

    snprintf(path, sizeof(path), "fat:%s/dir", work);
    spec.path = path;
    return block_open(&spec, b, why, size);
}

/* The partition as a file, for the tools. */
static void take_out(struct block *b) {
    static uint8_t buf[1 << 20], nothing[1 << 20];
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "%s/part", work);
    f = fopen(path, "we");
    assert_non_null(f);
    for (uint64_t at = PARTITION; at < block_size(b); at += sizeof(buf)) {
        uint64_t left = block_size(b) - at;
        size_t len = left < sizeof(buf) ? left : sizeof(buf);

        assert_int_equal(block_look(b, at, buf, len), 0);
        if (memcmp(buf, nothing, len) != 0 || len < sizeof(buf)) {
            assert_int_equal(fseek(f, (long)(at - PARTITION), SEEK_SET), 0);
            assert_int_equal(fwrite(buf, 1, len, f), len);
        }
    }
    assert_int_equal(ftruncate(fileno(f), (off_t)(block_size(b) - PARTITION)), 0);
    assert_int_equal(fclose(f), 0);
}

/* All of it is in `out` afterwards. */
static void look(void) {
    struct block *b;
    char why[512];

    if (open_it((struct block_spec){.readonly = true}, &b, why, sizeof(why)))
        fail_msg("%s", why);
    assert_true(block_readonly(b));
    take_out(b);
    assert_int_equal(block_close(b), 0);
    assert_int_equal(
        shell("/sbin/fsck.vfat -n part >fsck.log || { cat fsck.log; false; }"), 0);
    assert_int_equal(
        shell("mkdir out && MTOOLS_SKIP_CHECK=1 mcopy -s -m -i part ::/ out"), 0);
}

static void check(void) {
    look();
    assert_int_equal(shell("diff -r dir out"), 0);
}

static void test_nothing(void **state) {
    check();
}

static void test_names(void **state) {
    assert_int_equal(
        shell(
            "cd dir && mkdir -p EFI/BOOT 'a long name with spaces.d/b/c/d' && "
            "echo boot >EFI/BOOT/BOOTX64.EFI && echo nsh >startup.nsh && : >empty && "
            "head -c 4096 /dev/urandom >cluster && head -c 4097 /dev/urandom >more && "
            "head -c 3000001 /dev/urandom >'a long name with spaces.d/b/c/d/file.tar.gz' "
            "&& "
            "echo 1 >'höhe.ünï' && echo 2 >'日本語.txt' && echo 3 >a~1.b && echo 4 >.dot "
            "&& "
            "echo 5 >'[x]+y,z;=.cfg' && touch -d 1970-01-02 old && "
            "echo 7 >$(printf '%0200d' 0) && echo 8 >x.toolong && echo 9 >thirteen.char"),
        0);
    check();
}

/* Directories of several clusters, and names that all look alike when they are short. */
static void test_many(void **state) {
    assert_int_equal(shell("cd dir && mkdir m && for n in $(seq 700); do "
                           "echo $n >m/alike-alike-$n.text; done"),
                     0);
    check();
}

/* What leads elsewhere is left out. */
static void test_others(void **state) {
    assert_int_equal(
        shell("ln -s /etc/passwd dir/link && ln -s / dir/root && mkfifo dir/fifo && "
              "echo x >dir/x"),
        0);
    look();
    assert_int_equal(shell("test \"$(ls out)\" = x"), 0);
}

static void test_refused(void **state) {
    struct block *b;
    char why[512];

    assert_int_equal(shell("echo x >dir/Name && echo x >dir/NAME"), 0);
    assert_int_not_equal(
        open_it((struct block_spec){.readonly = true}, &b, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "is there twice"));
    assert_int_equal(shell("rm dir/NAME && echo x >'dir/a:b'"), 0);
    assert_int_not_equal(
        open_it((struct block_spec){.readonly = true}, &b, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "'a:b' is no name that FAT can have"));
    assert_int_equal(shell("rm dir/a:b && truncate -s 4G dir/large"), 0);
    assert_int_not_equal(
        open_it((struct block_spec){.readonly = true}, &b, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "'large' has 4 GiB or more"));
    assert_int_not_equal(open_it((struct block_spec){0}, &b, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "readonly or overlay=temp"));
    assert_int_equal(shell("rm -r dir"), 0);
    assert_int_not_equal(
        open_it((struct block_spec){.readonly = true}, &b, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "No such file"));
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_nothing), T(test_names), T(test_many),
                                       T(test_others), T(test_refused)};
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
