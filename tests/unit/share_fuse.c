/*
 * The file server's other protocol, FUSE: requests as a guest sends them, good and bad.
 * Beside the shared directory there is another, `outside`, which nothing may reach.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/scratch.h"
#include "lib/unit.h"
#include "share/fuse_int.h"

static struct tree *tree;
static void *state;
static uint8_t answer[SHARE_MESSAGE];
static uint32_t room = sizeof(answer), got; /* bytes after the header */
#define ANSWER (answer + sizeof(struct fuse_out_header))

/* A request: a structure, and what follows it. */
static int ask(uint32_t opcode, uint64_t node, const void *body, size_t len,
               const void *more, size_t more_len) {
    struct fuse_in_header h = {
        .len = (uint32_t)(sizeof(h) + len + more_len), .opcode = opcode, .unique = 9};
    uint8_t *in = malloc(h.len);
    struct fuse_out_header out;
    uint32_t n;

    h.nodeid = node;
    memcpy(in, &h, sizeof(h));
    if (len)
        memcpy(in + sizeof(h), body, len);
    if (more_len)
        memcpy(in + sizeof(h) + len, more, more_len);
    tree_turn(tree);
    n = fuse_protocol.serve(state, in, h.len, answer, room);
    free(in);
    got = 0;
    if (!n)
        return 1; /* there is none */
    memcpy(&out, answer, sizeof(out));
    assert_true(n >= sizeof(out) && n <= room);
    assert_int_equal(out.len, n);
    assert_int_equal(out.unique, 9);
    assert_true(!out.error || n == sizeof(out));
    got = n - (uint32_t)sizeof(out);
    return out.error;
}

static int ask_name(uint32_t opcode, uint64_t node, const char *name) {
    return ask(opcode, node, NULL, 0, name, strlen(name) + 1);
}

static uint64_t found(void) {
    struct fuse_entry_out e;

    assert_true(got >= sizeof(e));
    memcpy(&e, ANSWER, sizeof(e));
    return e.nodeid;
}

static uint64_t lookup(uint64_t dir, const char *name) {
    assert_int_equal(ask_name(FUSE_LOOKUP, dir, name), 0);
    return found();
}

static int open_file(uint32_t opcode, uint64_t node, uint32_t flags, uint64_t *fh) {
    const struct fuse_open_in a = {.flags = flags};
    struct fuse_open_out o;
    int rc = ask(opcode, node, &a, sizeof(a), NULL, 0);

    if (rc)
        return rc;
    memcpy(&o, ANSWER, sizeof(o));
    *fh = o.fh;
    return 0;
}

static int read_file(uint32_t opcode, uint64_t fh, uint64_t at, uint32_t size) {
    const struct fuse_read_in a = {.fh = fh, .offset = at, .size = size};

    return ask(opcode, NODE_ROOT, &a, sizeof(a), NULL, 0);
}

static int forget(uint64_t node, uint64_t times) {
    return ask(FUSE_FORGET, node, &times, sizeof(times), NULL, 0);
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void begin_with(bool readonly, unsigned fds, unsigned valid) {
    const struct fuse_init_in init = {.major = 7, .minor = 31, .flags = ~0u};
    struct fuse_init_out out;

    assert_int_equal(tree_new(open("root", O_PATH | O_DIRECTORY), readonly, fds, &tree),
                     0);
    assert_int_equal(fuse_protocol.create(tree, valid, &state), 0);
    assert_int_equal(ask(FUSE_INIT, 0, &init, 16, NULL, 0), 0);
    memcpy(&out, ANSWER, sizeof(out));
    assert_int_equal(out.minor, 31);
    assert_int_equal(out.max_write, FUSE_WRITE_MAX);
    assert_false(out.flags & FUSE_POSIX_LOCKS);
}

static void begin(bool readonly, unsigned fds) {
    begin_with(readonly, fds, 0);
}

static void end(void) {
    fuse_protocol.destroy(state);
    tree_free(tree);
}

static int setup(void **unused) {
    room = sizeof(answer);
    mkdir("outside", 0755);
    put("outside/secret", "outside");
    mkdir("root", 0755);
    put("root/file", "inside");
    begin(false, 100);
    return 0;
}

static int teardown(void **unused) {
    struct stat s;

    end();
    if (stat("outside/secret", &s) || s.st_size != 7)
        return -1;
    return scratch_clear(NULL);
}

static void test_files(void **unused) {
    const struct fuse_create_in create = {.flags = O_RDWR, .mode = 0640};
    struct fuse_write_in w = {.offset = 3, .size = 4};
    uint64_t fh = 0, node = lookup(NODE_ROOT, "file");

    assert_int_equal(lookup(NODE_ROOT, "file"), node); /* the same */
    assert_int_equal(open_file(FUSE_OPEN, node, O_RDONLY, &fh), 0);
    assert_int_equal(read_file(FUSE_READ, fh, 2, 100), 0);
    assert_int_equal(got, 4);
    assert_memory_equal(ANSWER, "side", 4);
    assert_int_equal(read_file(FUSE_READ, fh, 1ull << 63, 100), -EINVAL);
    assert_int_equal(read_file(FUSE_READ, fh + 1, 0, 100), -EBADF);
    assert_int_equal(read_file(FUSE_READ, ~0ull, 0, 100), -EBADF);
    w.fh = fh;
    assert_int_equal(ask(FUSE_WRITE, node, &w, sizeof(w), "abcd", 4), -EBADF);
    assert_int_equal(ask(FUSE_CREATE, NODE_ROOT, &create, sizeof(create), "new", 4), 0);
    memcpy(&w.fh, ANSWER + sizeof(struct fuse_entry_out), 8);
    assert_int_equal(ask(FUSE_WRITE, node, &w, sizeof(w), "abcd", 4), 0);
    assert_int_equal(ask(FUSE_WRITE, node, &w, sizeof(w), "abc", 3), -EINVAL); /* fewer */
    assert_int_equal(ask(FUSE_FLUSH, node, &w.fh, 8, NULL, 0), -ENOSYS);
    struct stat s;
    assert_int_equal(stat("root/new", &s), 0);
    assert_int_equal(s.st_size, 7);
    assert_int_equal(s.st_mode & 07777, 0640);
    struct fuse_release_in r = {.fh = fh};
    assert_int_equal(ask(FUSE_RELEASE, node, &r, sizeof(r), NULL, 0), 0);
    assert_int_equal(ask(FUSE_RELEASE, node, &r, sizeof(r), NULL, 0), -EBADF);
    assert_int_equal(ask(200, node, NULL, 0, NULL, 0), -ENOSYS);
}

/* A guest forgets what it likes: what is in use stays, and numbers are not used again. */
static void test_forget(void **unused) {
    uint64_t fh = 0, node = lookup(NODE_ROOT, "file"), again;

    assert_int_equal(open_file(FUSE_OPEN, node, O_RDONLY, &fh), 0);
    assert_int_equal(forget(node, ~0ull), 1);
    assert_int_equal(forget(node, 5), 1);
    assert_int_equal(forget(NODE_ROOT, ~0ull), 1);
    assert_int_equal(forget(12345, 1), 1);
    assert_int_equal(read_file(FUSE_READ, fh, 0, 100), 0);
    assert_int_equal(got, 6);
    struct fuse_release_in r = {.fh = fh};
    assert_int_equal(ask(FUSE_RELEASE, node, &r, sizeof(r), NULL, 0), 0);
    assert_int_equal(ask(FUSE_GETATTR, node, NULL, 0, NULL, 0), -ESTALE);
    again = lookup(NODE_ROOT, "file");
    assert_int_not_equal(again, node);
    const uint64_t batch[] = {3, again, 1, NODE_ROOT, 1, 77, 1};
    assert_int_equal(ask(FUSE_BATCH_FORGET, 0, batch, sizeof(batch), NULL, 0), 1);
    assert_int_equal(ask(FUSE_GETATTR, again, NULL, 0, NULL, 0), -ESTALE);
    assert_int_equal(ask(FUSE_GETATTR, NODE_ROOT, NULL, 0, NULL, 0), 0);
}

/* A directory that only what was in it held, and from which that moves away. */
static void test_move_out(void **unused) {
    struct fuse_rename2_in a = {.newdir = NODE_ROOT, .flags = RENAME_EXCHANGE};
    uint64_t dir, file;

    mkdir("root/d", 0755);
    put("root/d/f", "f");
    dir = lookup(NODE_ROOT, "d");
    file = lookup(dir, "f");
    assert_int_equal(forget(dir, 1), 1);
    assert_int_equal(ask(FUSE_RENAME2, dir, &a, sizeof(a), "f\0file", 7), 0);
    assert_int_equal(ask(FUSE_GETATTR, dir, NULL, 0, NULL, 0), -ESTALE);
    assert_int_equal(ask(FUSE_GETATTR, file, NULL, 0, NULL, 0), 0);
    a.flags = 1u << 9;
    assert_int_equal(ask(FUSE_RENAME2, NODE_ROOT, &a, sizeof(a), "d\0e", 4), -EINVAL);
}

static void test_bad_names(void **unused) {
    static const char *const names[] = {"", ".", "..", "/", "a/b", "../outside/secret"};
    const struct fuse_create_in create = {.flags = O_RDWR, .mode = 0644};
    const struct fuse_mkdir_in mkdir_in = {.mode = 0755};
    char long_name[300];

    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        size_t len = strlen(names[n]) + 1;

        assert_int_equal(ask_name(FUSE_LOOKUP, NODE_ROOT, names[n]), -EINVAL);
        assert_int_equal(ask_name(FUSE_UNLINK, NODE_ROOT, names[n]), -EINVAL);
        assert_int_equal(ask_name(FUSE_RMDIR, NODE_ROOT, names[n]), -EINVAL);
        assert_int_equal(
            ask(FUSE_CREATE, NODE_ROOT, &create, sizeof(create), names[n], len), -EINVAL);
        assert_int_equal(
            ask(FUSE_MKDIR, NODE_ROOT, &mkdir_in, sizeof(mkdir_in), names[n], len),
            -EINVAL);
        assert_int_equal(ask(FUSE_SYMLINK, NODE_ROOT, names[n], len, "x", 2), -EINVAL);
        assert_int_equal(
            ask(FUSE_RENAME, NODE_ROOT, &(uint64_t){NODE_ROOT}, 8, "file\0..", 8),
            -EINVAL);
    }
    memset(long_name, 'n', sizeof(long_name));
    assert_int_equal(ask(FUSE_LOOKUP, NODE_ROOT, NULL, 0, long_name, 300), -ENAMETOOLONG);
    assert_int_equal(ask(FUSE_LOOKUP, NODE_ROOT, NULL, 0, "file", 4), -ENAMETOOLONG);
}

static void test_specials(void **unused) {
    const struct fuse_create_in create = {.flags = O_RDWR | O_TRUNC, .mode = 0644};
    const struct fuse_mknod_in mknod_in = {.mode = S_IFCHR | 0666, .rdev = 0x101};
    uint64_t fh = 0, node;

    symlink("../outside/secret", "root/link");
    mkfifo("root/fifo", 0600);
    node = lookup(NODE_ROOT, "link");
    assert_int_equal(open_file(FUSE_OPEN, node, O_RDWR, &fh), -ELOOP);
    assert_int_equal(ask_name(FUSE_LOOKUP, node, "x"), -ENOTDIR);
    assert_int_equal(ask(FUSE_READLINK, node, NULL, 0, NULL, 0), 0);
    assert_int_equal(got, 17);
    node = lookup(NODE_ROOT, "fifo");
    assert_int_equal(open_file(FUSE_OPEN, node, O_RDONLY, &fh), -ENXIO);
    assert_int_equal(ask(FUSE_CREATE, NODE_ROOT, &create, sizeof(create), "link", 5),
                     -ELOOP);
    assert_int_equal(ask(FUSE_CREATE, NODE_ROOT, &create, sizeof(create), "fifo", 5),
                     -ENXIO);
    assert_int_equal(ask(FUSE_MKNOD, NODE_ROOT, &mknod_in, sizeof(mknod_in), "dev", 4),
                     -EPERM);
}

static void test_readonly(void **unused) {
    const struct fuse_create_in create = {.flags = O_RDWR, .mode = 0644};
    const struct fuse_setattr_in chmod_in = {.valid = FATTR_MODE, .mode = 0};
    uint64_t fh = 0, node;

    end();
    begin(true, 100);
    node = lookup(NODE_ROOT, "file");
    assert_int_equal(open_file(FUSE_OPEN, node, O_WRONLY, &fh), -EROFS);
    assert_int_equal(open_file(FUSE_OPEN, node, O_TRUNC, &fh), -EROFS);
    assert_int_equal(ask(FUSE_CREATE, NODE_ROOT, &create, sizeof(create), "new", 4),
                     -EROFS);
    assert_int_equal(ask(FUSE_SETATTR, node, &chmod_in, sizeof(chmod_in), NULL, 0),
                     -EROFS);
    assert_int_equal(ask_name(FUSE_UNLINK, NODE_ROOT, "file"), -EROFS);
    assert_int_equal(ask(FUSE_SETXATTR, node, &(uint64_t){1}, 8, "user.x\0y", 8), -EROFS);
}

/* What is read of a file that nobody has opened: of more files than are kept open. */
static void test_unopened(void **unused) {
    const struct fuse_lseek_in data = {.whence = SEEK_DATA, .offset = 2};
    const struct fuse_read_in all = {.size = 100},
                              far = {.offset = 1ull << 63, .size = 1};
    struct fuse_write_in w = {.size = 1};
    char name[32];
    uint64_t node[20], link, fh = 0;

    end();
    for (unsigned n = 0; n < 20; n++) {
        snprintf(name, sizeof(name), "root/%u", n);
        put(name, name);
    }
    begin_with(true, 100, 10);
    for (unsigned n = 0; n < 20; n++) {
        snprintf(name, sizeof(name), "%u", n);
        node[n] = lookup(NODE_ROOT, name);
    }
    assert_int_equal(open_file(FUSE_OPEN, node[0], O_RDONLY, &fh), -ENOSYS);
    for (unsigned n = 0; n < 60; n++) {
        snprintf(name, sizeof(name), "root/%u", n * 7 % 20);
        assert_int_equal(ask(FUSE_READ, node[n * 7 % 20], &all, sizeof(all), NULL, 0), 0);
        assert_int_equal(got, strlen(name));
        assert_memory_equal(ANSWER, name, got);
    }
    assert_int_equal(ask(FUSE_LSEEK, node[3], &data, sizeof(data), NULL, 0), 0);
    assert_int_equal(ask(FUSE_READ, node[3], &far, sizeof(far), NULL, 0), -EINVAL);
    assert_int_equal(ask(FUSE_READ, 999, &all, sizeof(all), NULL, 0), -ESTALE);
    /* Nothing can be written, by a directory's handle either. */
    assert_int_equal(open_file(FUSE_OPENDIR, NODE_ROOT, O_RDONLY, &w.fh), 0);
    assert_int_equal(ask(FUSE_WRITE, node[3], &w, sizeof(w), "x", 1), -EROFS);
    assert_int_equal(ask(FUSE_READ, NODE_ROOT, &all, sizeof(all), NULL, 0), -EISDIR);
    assert_int_equal(symlink("../outside/secret", "root/leads"), 0);
    link = lookup(NODE_ROOT, "leads");
    assert_int_equal(ask(FUSE_READ, link, &all, sizeof(all), NULL, 0), -ELOOP);
    assert_int_equal(forget(node[3], 1), 1); /* it may be open still */
    assert_int_equal(ask(FUSE_READ, node[4], &all, sizeof(all), NULL, 0), 0);
}

/* Who can write tells what it opens, however long it believes. */
static void test_valid(void **unused) {
    struct fuse_entry_out e;
    uint64_t fh = 0;

    end();
    begin_with(false, 100, 10);
    assert_int_equal(open_file(FUSE_OPEN, lookup(NODE_ROOT, "file"), O_RDWR, &fh), 0);
    assert_int_equal(ask_name(FUSE_LOOKUP, NODE_ROOT, "none"), 0);
    memcpy(&e, ANSWER, sizeof(e));
    assert_int_equal(e.entry_valid, 10);
}

/* More entries than there may be descriptors, and answers that have little room. */
static void test_directory(void **unused) {
    char name[32];
    uint64_t fh = 0, at = 0;
    unsigned count = 0, turns = 0;

    end();
    begin(false, 8);
    for (unsigned n = 0; n < 100; n++) {
        snprintf(name, sizeof(name), "root/%u", n);
        put(name, "x");
    }
    assert_int_equal(open_file(FUSE_OPENDIR, NODE_ROOT, O_RDONLY, &fh), 0);
    do {
        const uint8_t *p = ANSWER;

        assert_int_equal(read_file(FUSE_READDIRPLUS, fh, at, turns % 2 ? 4096 : 600), 0);
        while (p < ANSWER + got) {
            struct fuse_dirent d;

            memcpy(&d, p + sizeof(struct fuse_entry_out), FUSE_NAME_OFFSET);
            at = d.off;
            p += sizeof(struct fuse_entry_out) +
                 ((FUSE_NAME_OFFSET + d.namelen + 7) & ~7u);
            count++;
        }
        assert_ptr_equal(p, ANSWER + got);
        turns++;
    } while (got && turns < 200);
    assert_int_equal(count, 103);
    assert_int_equal(read_file(FUSE_READDIR, fh, 0, 8), -EINVAL);
    assert_int_equal(read_file(FUSE_READDIR, fh, ~0ull, 4096), -EINVAL);
}

static void test_short(void **unused) {
    const struct fuse_create_in create = {.flags = O_RDWR, .mode = 0644};
    uint8_t body[128];
    uint64_t node = lookup(NODE_ROOT, "file");

    /* No room for the answer: nothing is told, and nothing made. */
    room = sizeof(struct fuse_out_header);
    assert_int_equal(ask_name(FUSE_LOOKUP, NODE_ROOT, "file"), -EMSGSIZE);
    assert_int_equal(ask(FUSE_CREATE, NODE_ROOT, &create, sizeof(create), "new", 4),
                     -EMSGSIZE);
    assert_int_equal(access("root/new", F_OK), -1);
    room = 8;
    assert_int_equal(ask_name(FUSE_LOOKUP, NODE_ROOT, "file"), 1);
    room = sizeof(answer);
    /* Every request, cut anywhere, and full of other things. */
    for (unsigned value = 0; value < 256; value += 51)
        for (uint32_t opcode = 0; opcode < 64; opcode++)
            for (size_t len = 0; len < sizeof(body); len += 3) {
                memset(body, (int)value, sizeof(body));
                if (opcode != FUSE_DESTROY && opcode != FUSE_INIT)
                    ask(opcode, len % 2 ? node : NODE_ROOT, body, len, NULL, 0);
            }
    assert_int_equal(lookup(NODE_ROOT, "none"), 0); /* there is none */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_move_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_specials, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readonly, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unopened, setup, teardown),
        cmocka_unit_test_setup_teardown(test_valid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short, setup, teardown),
    };

    umask(0);
    alarm(240);
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
