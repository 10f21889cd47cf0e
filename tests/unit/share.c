/*
 * The file server by itself: messages as a guest sends them, good and bad, and a
 * directory of the test's. Beside the directory there is another, `outside`, which
 * nothing may reach.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "lib/scratch.h"
#include "lib/unit.h"
#include "share/p9_int.h"

#define ROOT 1u /* the fid */
#define AS_CALLER (~0u)

static struct tree *tree;
static void *state;
static uint8_t answer[SHARE_MESSAGE];
static struct wire_in in; /* of the answer */

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static bool is(const char *path, const char *text) {
    char buf[64];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

    close(fd);
    return n == (ssize_t)strlen(text) && !memcmp(buf, text, (size_t)n);
}

/* Serves LEN bytes: 0, or -errno of the answer; `in` is what follows its header. */
static int serve(const uint8_t *bytes, size_t len) {
    uint8_t *copy = malloc(len ? len : 1); /* so that a byte behind it is seen */
    uint8_t type;
    uint32_t size;

    memcpy(copy, bytes, len);
    tree_turn(tree);
    in = (struct wire_in){.at = answer};
    in.left = p9_protocol.serve(state, copy, (uint32_t)len, answer, sizeof(answer));
    free(copy);
    assert_true(in.left >= P9_HEADER);
    size = (uint32_t)in.left;
    assert_int_equal(wire_get32(&in), size);
    type = wire_get8(&in);
    wire_get16(&in);
    if (type == P9_LERROR + 1)
        return -(int)wire_get32(&in);
    assert_int_equal(type, bytes[4] + 1);
    return 0;
}

/* A message: FORM has a letter for each field that follows: b, w, d and q for numbers of
 * 1, 2, 4 and 8 bytes, s for a string. */
static int ask(unsigned type, const char *form, ...) {
    uint8_t bytes[8192];
    struct wire_out out = {.at = bytes, .left = sizeof(bytes)};
    const char *text;
    va_list args;

    wire_put32(&out, 0);
    wire_put8(&out, (uint8_t)type);
    wire_put16(&out, 7);
    va_start(args, form);
    for (; *form; form++)
        switch (*form) {
        case 'b':
            wire_put8(&out, (uint8_t)va_arg(args, unsigned));
            break;
        case 'w':
            wire_put16(&out, (uint16_t)va_arg(args, unsigned));
            break;
        case 'd':
            wire_put32(&out, va_arg(args, unsigned));
            break;
        case 'q':
            wire_put64(&out, va_arg(args, uint64_t));
            break;
        default:
            text = va_arg(args, const char *);
            wire_put_text(&out, text, strlen(text));
        }
    va_end(args);
    *(uint32_t *)(void *)bytes = (uint32_t)(out.at - bytes);
    return serve(bytes, (size_t)(out.at - bytes));
}

static void begin(const char *dir, bool readonly, unsigned fds) {
    int fd = open(dir, O_PATH | O_DIRECTORY);

    assert_int_equal(tree_new(fd, readonly, fds, &tree), 0);
    assert_int_equal(p9_protocol.create(tree, 0, &state), 0);
    assert_int_equal(ask(P9_VERSION, "ds", 65536u, "9P2000.L"), 0);
    assert_int_equal(ask(P9_ATTACH, "ddssd", ROOT, ~0u, "", "", AS_CALLER), 0);
}

static void end(void) {
    p9_protocol.destroy(state);
    tree_free(tree);
}

static int setup(void **unused) {
    umask(022);
    assert_int_equal(mkdir("outside", 0755), 0);
    put("outside/secret", "outside");
    assert_int_equal(mkdir("root", 0755), 0);
    put("root/file", "inside");
    begin("root", false, 100);
    return 0;
}

static int teardown(void **unused) {
    end();
    if (!is("outside/secret", "outside"))
        return -1;
    return scratch_clear(NULL);
}

static int walk(uint32_t from, uint32_t to, const char *name) {
    return ask(P9_WALK, "ddws", from, to, 1u, name);
}

/* --- what it does --- */

static void test_session(void **unused) {
    assert_int_equal(ask(P9_VERSION, "ds", 8192u, "9P2000"), 0);
    assert_int_equal(wire_get32(&in), 8192);
    char text[16];
    wire_text(&in, text, sizeof(text));
    assert_string_equal(text, "unknown");
    /* All fids are gone. */
    assert_int_equal(ask(P9_GETATTR, "dq", ROOT, ~0ull), -EBADF);
    assert_int_equal(ask(P9_VERSION, "ds", 1u << 30, "9P2000.L"), 0);
    assert_int_equal(wire_get32(&in), SHARE_MESSAGE);
    assert_int_equal(ask(P9_AUTH, "dssd", 1u, "", "", 0u), -ENOENT);
    assert_int_equal(ask(P9_FLUSH, "w", 1u), 0);
    assert_int_equal(ask(99, ""), -EOPNOTSUPP);
}

static void test_read_write(void **unused) {
    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(P9_READ, "dqd", 2u, 0ull, 10u), -EBADF); /* not open */
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDWR), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDWR), -EBADF);
    assert_int_equal(ask(P9_READ, "dqd", 2u, 2ull, 100u), 0);
    assert_int_equal(wire_get32(&in), 4);
    assert_memory_equal(in.at, "side", 4);
    assert_int_equal(ask(P9_WRITE, "dqdbb", 2u, 1ull, 2u, 'N', 'S'), 0);
    assert_true(is("root/file", "iNSide"));
    assert_int_equal(ask(P9_FSYNC, "dd", 2u, 0u), 0);
    /* More than the message has, and than there can be. */
    assert_int_equal(ask(P9_WRITE, "dqd", 2u, 0ull, 5u), -EPROTO);
    assert_int_equal(ask(P9_READ, "dqd", 2u, 1ull << 63, 5u), -EINVAL);
    assert_int_equal(ask(P9_READ, "dqd", 2u, 0ull, ~0u), 0);
    assert_int_equal(ask(P9_CLUNK, "d", 2u), 0);
    assert_int_equal(ask(P9_CLUNK, "d", 2u), -EBADF);
}

static void test_walk(void **unused) {
    assert_int_equal(mkdir("root/d", 0755), 0);
    put("root/d/e", "e");
    assert_int_equal(ask(P9_WALK, "ddwss", ROOT, 2u, 2u, "d", "e"), 0);
    assert_int_equal(wire_get16(&in), 2);
    /* A part of the way: no fid. */
    assert_int_equal(ask(P9_WALK, "ddwss", ROOT, 3u, 2u, "d", "none"), 0);
    assert_int_equal(wire_get16(&in), 1);
    assert_int_equal(ask(P9_GETATTR, "dq", 3u, ~0ull), -EBADF);
    assert_int_equal(walk(ROOT, 3, "none"), -ENOENT);
    assert_int_equal(walk(ROOT, 2, "d"), -EBADF);               /* in use */
    assert_int_equal(ask(P9_WALK, "ddw", ROOT, 3u, 0u), 0);     /* a copy */
    assert_int_equal(ask(P9_WALK, "ddws", 3u, 3u, 1u, "d"), 0); /* itself */
    assert_int_equal(walk(3, 4, "e"), 0);
    assert_int_equal(walk(4, 5, "x"), -ENOTDIR);
    assert_int_equal(ask(P9_WALK, "ddw", ROOT, 9u, 17u), -EPROTO);
}

/* A fid is the file, whatever becomes of its name. */
static void test_unlinked(void **unused) {
    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(P9_UNLINKAT, "dsd", ROOT, "file", 0u), 0);
    assert_int_equal(access("root/file", F_OK), -1);
    put("root/file", "another");
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDONLY), 0);
    assert_int_equal(ask(P9_READ, "dqd", 2u, 0ull, 100u), 0);
    assert_int_equal(wire_get32(&in), 6);
    assert_int_equal(ask(P9_REMOVE, "d", 2u), -ENOENT); /* not the other one */
    assert_true(is("root/file", "another"));
    assert_int_equal(walk(ROOT, 2, "file"), 0); /* that fid is free */
    assert_int_equal(ask(P9_REMOVE, "d", 2u), 0);
    assert_int_equal(access("root/file", F_OK), -1);
    assert_int_equal(ask(P9_WALK, "ddw", ROOT, 2u, 0u), 0);
    assert_int_equal(ask(P9_REMOVE, "d", 2u), -EBUSY); /* the root */
}

static void test_rename(void **unused) {
    assert_int_equal(ask(P9_MKDIR, "dsdd", ROOT, "d", 0755u, 0u), 0);
    assert_int_equal(walk(ROOT, 2, "d"), 0);
    assert_int_equal(walk(ROOT, 3, "file"), 0);
    assert_int_equal(ask(P9_RENAME, "dds", 3u, 2u, "moved"), 0);
    assert_true(is("root/d/moved", "inside"));
    assert_int_equal(ask(P9_RENAMEAT, "dsds", 2u, "moved", ROOT, "back"), 0);
    assert_int_equal(ask(P9_RENAME, "dds", 3u, 2u, "again"), 0);
    assert_true(is("root/d/again", "inside"));
}

static void test_xattr(void **unused) {
    if (setxattr("root/file", "user.x", "y", 1, 0)) {
        assert_int_equal(errno, EOPNOTSUPP);
        return;
    }
    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(P9_XATTRWALK, "dds", 2u, 3u, "user.x"), 0);
    assert_int_equal(wire_get64(&in), 1);
    assert_int_equal(ask(P9_READ, "dqd", 3u, 0ull, 10u), 0);
    assert_int_equal(wire_get32(&in), 1);
    assert_int_equal(ask(P9_READ, "dqd", 3u, ~0ull, 10u), 0);
    assert_int_equal(wire_get32(&in), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 3u, 0u), -EBADF);
    assert_int_equal(ask(P9_XATTRCREATE, "dsqd", 2u, "user.n", 3ull, 0u), 0);
    assert_int_equal(ask(P9_WRITE, "dqdbbb", 2u, 0ull, 3u, 'a', 'b', 'c'), 0);
    assert_int_equal(ask(P9_WRITE, "dqdb", 2u, 3ull, 1u, 'd'), -ENOSPC);
    assert_int_equal(ask(P9_WRITE, "dqdb", 2u, ~0ull, 1u, 'd'), -ENOSPC);
    assert_int_equal(ask(P9_CLUNK, "d", 2u), 0);
    char buf[8];
    assert_int_equal(getxattr("root/file", "user.n", buf, sizeof(buf)), 3);
    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(P9_XATTRCREATE, "dsqd", 2u, "user.n", 1ull << 40, 0u), -E2BIG);
    assert_int_equal(ask(P9_XATTRCREATE, "dsqd", 2u, "user.n", 0ull, 2u), 0);
    assert_int_equal(ask(P9_CLUNK, "d", 2u), 0);
    assert_int_equal(getxattr("root/file", "user.n", buf, sizeof(buf)), -1);
}

/* The host's processes see them, and the guest those of the host's. */
static void test_locks(void **unused) {
    struct flock f = {.l_type = F_WRLCK, .l_start = 0, .l_len = 10};
    int fd = open("root/file", O_RDWR);

    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDWR), 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &f), 0);
    assert_int_equal(ask(P9_LOCK, "dbdqqds", 2u, 1u, 0u, 5ull, 1ull, 100u, "c"), 0);
    assert_int_equal(wire_get8(&in), 1); /* blocked */
    assert_int_equal(ask(P9_GETLOCK, "dbqqds", 2u, 1u, 5ull, 1ull, 100u, "c"), 0);
    assert_int_equal(wire_get8(&in), 1); /* a write lock */
    f.l_type = F_UNLCK;
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &f), 0);
    assert_int_equal(ask(P9_LOCK, "dbdqqds", 2u, 1u, 0u, 5ull, 1ull, 100u, "c"), 0);
    assert_int_equal(wire_get8(&in), 0);
    f.l_type = F_WRLCK;
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &f), -1);
    assert_int_equal(ask(P9_LOCK, "dbdqqds", 2u, 1u, 0u, 5ull, 1ull, 101u, "c"), 0);
    assert_int_equal(wire_get8(&in), 1); /* another process of the guest's */
    assert_int_equal(ask(P9_LOCK, "dbdqqds", 2u, 2u, 0u, 0ull, 0ull, 100u, "c"), 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &f), 0);
    assert_int_equal(ask(P9_LOCK, "dbdqqds", 2u, 3u, 0u, 0ull, 0ull, 100u, "c"), -EINVAL);
    assert_int_equal(ask(P9_LOCK, "dbdqqds", 2u, 1u, 0u, 1ull << 63, 0ull, 100u, "c"),
                     -EINVAL);
    close(fd);
}

/* --- what it must not do --- */

static const char *const bad_names[] = {
    "", ".", "..", "/", "a/b", "../outside", "../outside/secret", "/etc/passwd", "file/"};

static void test_bad_names(void **unused) {
    for (size_t k = 0; k < ARRAY_SIZE(bad_names); k++) {
        const char *n = bad_names[k];

        assert_int_equal(ask(P9_WALK, "ddw", ROOT, 2u, 0u), 0);
        assert_int_equal(walk(ROOT, 3, n), -EINVAL);
        assert_int_equal(ask(P9_LCREATE, "dsddd", 2u, n, O_RDWR, 0644u, 0u), -EINVAL);
        assert_int_equal(ask(P9_MKDIR, "dsdd", ROOT, n, 0755u, 0u), -EINVAL);
        assert_int_equal(ask(P9_SYMLINK, "dssd", ROOT, n, "x", 0u), -EINVAL);
        assert_int_equal(ask(P9_MKNOD, "dsdddd", ROOT, n, S_IFREG | 0644u, 0u, 0u, 0u),
                         -EINVAL);
        assert_int_equal(ask(P9_LINK, "dds", ROOT, 2u, n), -EINVAL);
        assert_int_equal(ask(P9_RENAMEAT, "dsds", ROOT, n, ROOT, "x"), -EINVAL);
        assert_int_equal(ask(P9_RENAMEAT, "dsds", ROOT, "file", ROOT, n), -EINVAL);
        assert_int_equal(ask(P9_UNLINKAT, "dsd", ROOT, n, 0u), -EINVAL);
        assert_int_equal(ask(P9_UNLINKAT, "dsd", ROOT, n, 0x200u), -EINVAL);
        assert_int_equal(ask(P9_CLUNK, "d", 2u), 0);
    }
    assert_true(is("root/file", "inside"));
}

/* A NUL would end a name earlier for the kernel than for us. */
static void test_nul(void **unused) {
    uint8_t m[] = {24, 0, 0, 0, P9_WALK, 0, 0, 1,   0,   0, 0,   2,
                   0,  0, 0, 1, 0,       5, 0, 'f', 'i', 0, 'l', 'e'};

    assert_int_equal(serve(m, sizeof(m)), -ENAMETOOLONG);
}

/* Links are the guest's to follow. */
static void test_links(void **unused) {
    assert_int_equal(symlink("../outside", "root/out"), 0);
    assert_int_equal(symlink("../outside/secret", "root/secret"), 0);
    assert_int_equal(ask(P9_WALK, "ddwss", ROOT, 2u, 2u, "out", "secret"), 0);
    assert_int_equal(wire_get16(&in), 1);
    assert_int_equal(walk(ROOT, 2, "out"), 0);
    assert_int_equal(walk(2, 3, "secret"), -ENOTDIR);
    assert_int_equal(ask(P9_LCREATE, "dsddd", 2u, "new", O_RDWR, 0644u, 0u), -ENOTDIR);
    assert_int_equal(walk(ROOT, 3, "secret"), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 3u, O_RDWR), -ELOOP);
    /* Creating where a link is opens the link's target for whoever follows it. */
    assert_int_equal(ask(P9_WALK, "ddw", ROOT, 4u, 0u), 0);
    assert_int_equal(ask(P9_LCREATE, "dsddd", 4u, "secret", O_RDWR | O_TRUNC, 0644u, 0u),
                     -ELOOP);
    /* Size, of the link: no file is opened. */
    assert_int_equal(ask(P9_SETATTR,
                         "ddddd"
                         "qqqqq",
                         3u, 8u, 0u, 0u, 0u, 0ull, 0ull, 0ull, 0ull, 0ull),
                     -ELOOP);
    assert_int_equal(
        ask(P9_SETATTR, "dddddqqqqq", 3u, 1u, 0u, 0u, 0u, 0ull, 0ull, 0ull, 0ull, 0ull),
        -EOPNOTSUPP);
    assert_int_equal(ask(P9_READLINK, "d", 3u), 0);
}

/* Neither blocks, nor is opened at all. */
static void test_specials(void **unused) {
    assert_int_equal(mkfifo("root/fifo", 0600), 0);
    assert_int_equal(walk(ROOT, 2, "fifo"), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDONLY), -ENXIO);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_WRONLY), -ENXIO);
    assert_int_equal(ask(P9_WALK, "ddw", ROOT, 3u, 0u), 0);
    assert_int_equal(ask(P9_LCREATE, "dsddd", 3u, "fifo", O_RDWR, 0644u, 0u), -ENXIO);
    assert_int_equal(ask(P9_MKNOD, "dsdddd", ROOT, "mem", S_IFCHR | 0666u, 1u, 1u, 0u),
                     -EPERM);
    assert_int_equal(ask(P9_MKNOD, "dsdddd", ROOT, "sda", S_IFBLK | 0666u, 8u, 0u, 0u),
                     -EPERM);
}

static void test_readonly(void **unused) {
    end();
    begin("root", true, 100);
    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDWR), -EROFS);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDONLY | O_TRUNC), -EROFS);
    assert_int_equal(ask(P9_XATTRCREATE, "dsqd", 2u, "user.n", 3ull, 0u), -EROFS);
    assert_int_equal(
        ask(P9_SETATTR, "dddddqqqqq", 2u, 1u, 0u, 0u, 0u, 0ull, 0ull, 0ull, 0ull, 0ull),
        -EROFS);
    assert_int_equal(ask(P9_RENAMEAT, "dsds", ROOT, "file", ROOT, "x"), -EROFS);
    assert_int_equal(ask(P9_UNLINKAT, "dsd", ROOT, "file", 0u), -EROFS);
    assert_int_equal(ask(P9_MKDIR, "dsdd", ROOT, "d", 0755u, 0u), -EROFS);
    assert_int_equal(ask(P9_LINK, "dds", ROOT, 2u, "x"), -EROFS);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDONLY), 0);
    assert_int_equal(ask(P9_WRITE, "dqdb", 2u, 0ull, 1u, 'x'), -EBADF);
    assert_true(is("root/file", "inside"));
}

/* The kernel's windows are shut: the caller's processes are not to be reached. */
static void test_windows(void **unused) {
    end();
    begin("/", true, 100);
    assert_int_equal(walk(ROOT, 2, "proc"), 0);
    assert_int_equal(walk(2, 3, "self"), -ENOENT);
    assert_int_equal(walk(2, 3, "version"), -ENOENT);
    assert_int_equal(ask(P9_LOPEN, "dd", 2u, O_RDONLY), 0);
    assert_int_equal(ask(P9_READDIR, "dqd", 2u, 0ull, 8192u), 0);
    assert_int_equal(wire_get32(&in), 0);
    end();
    begin("/proc/self", false, 100);
    assert_int_equal(walk(ROOT, 2, "mem"), -ENOENT);
}

static void test_garbage(void **unused) {
    uint8_t m[64] = {0};

    for (unsigned len = 0; len < sizeof(m); len++)
        for (unsigned type = 0; type < 256; type++)
            for (unsigned claimed = 0; claimed < 70; claimed += 23) {
                memset(m, (int)(len * 7), sizeof(m));
                m[0] = (uint8_t)claimed;
                m[1] = m[2] = m[3] = 0;
                m[4] = (uint8_t)type;
                serve(m, len);
            }
    assert_int_equal(ask(P9_VERSION, "ds", 65536u, "9P2000.L"), 0);
    assert_int_equal(ask(P9_ATTACH, "ddssd", ROOT, ~0u, "", "", AS_CALLER), 0);
    assert_true(is("root/file", "inside"));
}

/* --- more files than descriptors --- */

static void test_few_descriptors(void **unused) {
    char name[16];

    end();
    begin("root", false, 8);
    assert_int_equal(mkdir("root/d", 0755), 0);
    assert_int_equal(walk(ROOT, 2, "d"), 0);
    for (unsigned k = 0; k < 50; k++) {
        snprintf(name, sizeof(name), "root/d/%u", k);
        put(name, name);
        assert_int_equal(walk(2, 100 + k, name + 7), 0);
    }
    /* The way to them is another now, and they are found again. */
    assert_int_equal(ask(P9_RENAMEAT, "dsds", ROOT, "d", ROOT, "e"), 0);
    for (unsigned k = 0; k < 50; k++) {
        snprintf(name, sizeof(name), "root/d/%u", k);
        assert_int_equal(ask(P9_WALK, "ddw", 100 + k, 99u, 0u), 0);
        assert_int_equal(ask(P9_LOPEN, "dd", 99u, O_RDONLY), 0);
        assert_int_equal(ask(P9_READ, "dqd", 99u, 0ull, 100u), 0);
        assert_int_equal(wire_get32(&in), strlen(name));
        assert_memory_equal(in.at, name, strlen(name));
        assert_int_equal(ask(P9_CLUNK, "d", 99u), 0);
    }
    /* The host has put others in their places. */
    put("root/other", "other");
    assert_int_equal(rename("root/other", "root/e/0"), 0);
    assert_int_equal(unlink("root/e/1"), 0);
    assert_int_equal(symlink("../../outside/secret", "root/e/1"), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 100u, O_RDONLY), -ESTALE);
    assert_int_equal(ask(P9_LOPEN, "dd", 101u, O_RDONLY), -ESTALE);
    assert_int_equal(walk(2, 99, "0"), 0);
    assert_int_equal(ask(P9_LOPEN, "dd", 99u, O_RDONLY), 0);
}

/* A way that is longer than there are descriptors is told of; nothing else is lost. */
static void test_too_deep(void **unused) {
    unsigned k;
    int rc = 0;

    end();
    begin("root", false, 8);
    for (k = 0; k < 30 && !rc; k++) {
        rc = ask(P9_MKDIR, "dsdd", k ? 100 + k : ROOT, "d", 0755u, 0u);
        if (!rc)
            rc = walk(k ? 100 + k : ROOT, 101 + k, "d");
    }
    assert_int_equal(rc, 0);
    for (unsigned n = 0; n < 30; n++) { /* these push the way out */
        ask(P9_WALK, "ddw", 101 + n % 3, 99u, 0u);
        ask(P9_GETATTR, "dq", 99u, ~0ull);
        ask(P9_CLUNK, "d", 99u);
        walk(ROOT, 98, "file");
        ask(P9_CLUNK, "d", 98u);
    }
    rc = ask(P9_GETATTR, "dq", 130u, ~0ull);
    assert_true(rc == 0 || rc == -EMFILE);
    assert_int_equal(walk(ROOT, 99, "file"), 0);
}

/* --- a host that changes the tree meanwhile --- */

static volatile bool racing;

static void *swap(void *unused) {
    while (racing) {
        rename("root/d", "root/was");
        symlink("../outside", "root/d");
        unlink("root/d");
        rename("root/was", "root/d");
    }
    return NULL;
}

static void test_race(void **unused) {
    unsigned reached = 0;
    pthread_t racer;

    end();
    begin("root", false, 8);
    assert_int_equal(mkdir("root/d", 0755), 0);
    put("root/d/secret", "inside");
    racing = true;
    assert_int_equal(pthread_create(&racer, NULL, swap, NULL), 0);
    for (unsigned k = 0; k < 20000; k++) {
        if (!ask(P9_WALK, "ddwss", ROOT, 2u, 2u, "d", "secret") && wire_get16(&in) == 2) {
            if (!ask(P9_LOPEN, "dd", 2u, O_RDONLY) &&
                !ask(P9_READ, "dqd", 2u, 0ull, 64u)) {
                assert_int_equal(wire_get32(&in), 6);
                assert_memory_equal(in.at, "inside", 6);
                reached++;
            }
            assert_int_equal(ask(P9_CLUNK, "d", 2u), 0);
        }
        if (!walk(ROOT, 3, "d")) {
            ask(P9_MKDIR, "dsdd", 3u, "new", 0755u, 0u);
            ask(P9_UNLINKAT, "dsd", 3u, "new", 0x200u);
            ask(P9_UNLINKAT, "dsd", 3u, "none", 0u);
            assert_int_equal(ask(P9_CLUNK, "d", 3u), 0);
        }
    }
    racing = false;
    pthread_join(racer, NULL);
    assert_true(reached > 0);
    assert_int_equal(access("outside/new", F_OK), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unlinked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rename, setup, teardown),
        cmocka_unit_test_setup_teardown(test_xattr, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nul, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links, setup, teardown),
        cmocka_unit_test_setup_teardown(test_specials, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readonly, setup, teardown),
        cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_few_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_deep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_race, setup, teardown),
    };

    alarm(240);
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
