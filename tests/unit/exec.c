/*
 * What `bivisor exec` is made of: kernels and modules are found, in the order in which
 * they need each other, and what is no kernel or no module is told of, whatever is in it.
 */
#include "exec/exec.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/failing.h"
#include "lib/scratch.h"
#include "lib/unit.h"

#define DIR "tree/lib/modules/1.2-test"

static char why[512];

static void put(const char *path, const void *bytes, size_t len) {
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

static void put_kernel(const char *path) {
    uint8_t k[0x400] = {0};

    memcpy(k + 0x202, "HdrS", 4);
    k[0x20e] = 0x10;
    strcpy((char *)k + 0x210, "1.2-test (somebody@somewhere) #1");
    put(path, k, sizeof(k));
}

/* A module of three sections; how long it is. */
struct module {
    Elf64_Ehdr h;
    Elf64_Shdr s[3];
    char names[24];
    char info[64];
};

static struct module module(const char *depends) {
    struct module m = {.names = "\0.shstrtab\0.modinfo"};
    size_t len =
        1 + (size_t)snprintf(m.info, sizeof(m.info), "license=x%cdepends=%s", 0, depends);

    memcpy(m.h.e_ident, ELFMAG, SELFMAG);
    m.h.e_ident[EI_CLASS] = ELFCLASS64;
    m.h.e_shoff = offsetof(struct module, s);
    m.h.e_shnum = 3;
    m.h.e_shstrndx = 1;
    m.s[1] = (Elf64_Shdr){.sh_name = 1,
                          .sh_offset = offsetof(struct module, names),
                          .sh_size = sizeof(m.names)};
    m.s[2] = (Elf64_Shdr){
        .sh_name = 11, .sh_offset = offsetof(struct module, info), .sh_size = len};
    return m;
}

static void put_module(const char *name, const char *depends) {
    struct module m = module(depends);
    char path[256];

    snprintf(path, sizeof(path), DIR "/%s", name);
    put(path, &m, sizeof(m));
}

static int setup(void **state) {
    mkdir("tree", 0755);
    mkdir("tree/boot", 0755);
    mkdir("tree/lib", 0755);
    mkdir("tree/lib/modules", 0755);
    mkdir(DIR, 0755);
    put_kernel("tree/boot/vmlinuz-1.2-test");
    put(DIR "/modules.builtin", "kernel/there.ko\n", 16);
    put_module("a-one.ko", "b,c_two");
    put_module("b.ko", "c-two,there");
    put_module("c-two.ko", "");
    return 0;
}

static int load(const char *name, struct exec_modules *m) {
    const struct exec_need need = {name, "such thing"};
    struct exec_kernel k;

    assert_int_equal(exec_kernel_find("tree", &k, why, sizeof(why)), 0);
    return exec_modules_load(&k, &need, 1, m, why, sizeof(why));
}

static void test_kernels(void **state) {
    struct exec_kernel k;

    assert_int_equal(exec_kernel_find("tree", &k, why, sizeof(why)), 0);
    assert_string_equal(k.release, "1.2-test");
    assert_string_equal(k.path, "tree/boot/vmlinuz-1.2-test");
    put_kernel("tree/boot/vmlinuz-1.10-test");
    assert_int_equal(exec_kernel_find("tree", &k, why, sizeof(why)), 0);
    assert_string_equal(k.path, "tree/boot/vmlinuz-1.10-test");
    assert_int_equal(exec_kernel_find("none", &k, why, sizeof(why)), -ENOENT);
    assert_string_equal(why, "cannot read the kernel 'none': No such file or directory");
    assert_int_equal(exec_kernel_find(".", &k, why, sizeof(why)), -ENOENT);
    put("no-kernel", "x", 1);
    assert_int_equal(exec_kernel_find("no-kernel", &k, why, sizeof(why)), -EINVAL);
    assert_string_equal(why, "'no-kernel' is no bzImage");
}

static void test_order(void **state) {
    struct exec_modules m;

    assert_int_equal(load("a_one", &m), 0);
    assert_int_equal(m.count, 3);
    assert_string_equal(m.module[0].name, "c_two");
    assert_string_equal(m.module[1].name, "b");
    assert_string_equal(m.module[2].name, "a_one");
    assert_int_equal(m.module[2].len, sizeof(struct module));
    exec_modules_free(&m);
    assert_int_equal(load("there", &m), 0);
    assert_int_equal(m.count, 0);
    assert_int_equal(load("missing", &m), -ENOENT);
    assert_non_null(strstr(why, "1.2-test has no such thing: 'missing' is neither"));
}

/* Two that need each other. */
static void test_ring(void **state) {
    struct exec_modules m;

    put_module("x.ko", "y");
    put_module("y.ko", "x");
    assert_int_equal(load("x", &m), -ENOENT);
    assert_int_equal(m.count, 0);
}

/* Each byte of the headers, changed; each length. Nothing but an answer comes of it. */
static void test_broken(void **state) {
    const struct module good = module("c-two");
    struct exec_modules m;

    for (size_t at = 0; at < offsetof(struct module, names); at++)
        for (unsigned bit = 0; bit < 8; bit += 7) {
            struct module bad = good;

            ((uint8_t *)&bad)[at] ^= (uint8_t)(1u << bit);
            put(DIR "/bad.ko", &bad, sizeof(bad));
            if (!load("bad", &m))
                exec_modules_free(&m);
        }
    for (size_t len = 0; len < sizeof(good); len += 7) {
        put(DIR "/bad.ko", &good, len);
        if (!load("bad", &m))
            exec_modules_free(&m);
    }
    put(DIR "/bad.ko.xz",
        "\xfd"
        "7zXZ",
        5);
    unlink(DIR "/bad.ko");
    assert_int_equal(load("bad", &m), -EINVAL);
}

static void test_initrd(void **state) {
    char *argv[] = {"echo", "a b", NULL}, *envp[] = {"X=1", NULL}, bytes[65536];
    const struct exec_command c = {
        .argv = argv, .envp = envp, .cwd = "/x", .type = "9p", .options = "o"};
    struct exec_modules m;
    int fd;
    ssize_t len;

    assert_int_equal(load("c_two", &m), 0);
    fd = exec_initrd_make(&c, &m);
    exec_modules_free(&m);
    assert_true(fd >= 0);
    len = pread(fd, bytes, sizeof(bytes), 0);
    assert_true(len > 0 && len % 4 == 0);
    assert_memory_equal(bytes, "070701", 6);
    assert_non_null(memmem(bytes, (size_t)len, "modules/c_two.ko", 17));
    assert_non_null(memmem(bytes, (size_t)len, "arg=echo\0arg=a b", 17));
    assert_non_null(memmem(bytes, (size_t)len, "env=X=1", 8));
    assert_non_null(memmem(bytes, (size_t)len, "TRAILER!!!", 11));
    close(fd);
}

/* Modules and a RAM disk, or one sentence. */
static int make_disk(const struct exec_command *c) {
    struct exec_modules m;
    int rc = load("a_one", &m);

    if (!rc) {
        rc = exec_initrd_make(c, &m);
        exec_modules_free(&m);
    } else if (!*why || strchr(why, '\n') || m.count) {
        fail_msg("%d, '%s'", rc, why);
    }
    if (rc >= 0)
        close(rc);
    return rc;
}

static void test_no_memory(void **state) {
    char *argv[] = {"true", NULL}, *envp[] = {"X=1", NULL};
    const struct exec_command c = {
        .argv = argv, .envp = envp, .cwd = "/x", .type = "9p", .options = "o"};
    unsigned n = 0;

    assert_true(make_disk(&c) >= 0); /* what the C library keeps, it has now */
    do {
        unsigned maps = mappings();
        int rc;

        *why = 0;
        failing_arm(++n);
        rc = make_disk(&c);
        fail_at = 0;
        if (mappings() != maps)
            fail_msg("failure %u: something is left", n);
        assert_true(rc >= 0 || failed);
    } while (failed);
    assert_true(n > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kernels, setup, scratch_clear),
        cmocka_unit_test_setup_teardown(test_order, setup, scratch_clear),
        cmocka_unit_test_setup_teardown(test_ring, setup, scratch_clear),
        cmocka_unit_test_setup_teardown(test_broken, setup, scratch_clear),
        cmocka_unit_test_setup_teardown(test_initrd, setup, scratch_clear),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, scratch_clear),
    };

    alarm(240);
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
