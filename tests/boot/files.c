/*
 * What a file system must do, tried in a guest on a directory that its host shares:
 *
 *   files write DIR [WITHOUT]
 *                         all of it, but what has that name; DIR is empty, and is so
 *                         afterwards
 *   files readonly DIR    nothing can be changed; it has a file `there`
 *
 * Each check prints one line, and the last line is `files: N good, M bad`.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static unsigned good, bad;

static void check(bool ok, const char *what, int line) {
    if (ok) {
        good++;
        return;
    }
    bad++;
    printf("bad: line %d: %s (errno %d)\n", line, what, errno);
}
#define CHECK(x) check(x, #x, __LINE__)
/* X fails with ERROR. */
#define FAILS(error, x) (errno = 0, check((x) < 0 && errno == (error), #x, __LINE__))

static int put(const char *name, const char *text) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

    return fd < 0 || close(fd) || n != (ssize_t)strlen(text) ? -1 : 0;
}

/* The file is TEXT. */
static bool is(const char *name, const char *text) {
    char buf[256];
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text) && !memcmp(buf, text, (size_t)n);
}

static off_t size_of(const char *name) {
    struct stat s;

    return stat(name, &s) ? -1 : s.st_size;
}

static void names(void) {
    char long_name[257];

    memset(long_name, 'n', sizeof(long_name));
    long_name[256] = 0;
    FAILS(ENAMETOOLONG, open(long_name, O_CREAT | O_WRONLY, 0644));
    long_name[255] = 0;
    CHECK(!put(long_name, "x") && is(long_name, "x") && !unlink(long_name));
    FAILS(ENOENT, open("none", O_RDONLY));
    FAILS(ENOENT, unlink("none"));
    CHECK(!put("-a b\n\xff*", "odd") && is("-a b\n\xff*", "odd") &&
          !unlink("-a b\n\xff*"));
    CHECK(!put("f", "1"));
    FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_WRONLY, 0644));
    FAILS(ENOTDIR, open("f/g", O_RDONLY));
    FAILS(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
    CHECK(!unlink("f"));
}

static void renames(void) {
    CHECK(!put("a", "A") && !put("b", "B"));
    CHECK(!rename("a", "b") && is("b", "A") && access("a", F_OK));
    CHECK(!mkdir("d", 0755) && !mkdir("e", 0755) && !rename("b", "d/b") &&
          is("d/b", "A"));
    FAILS(ENOTEMPTY, rename("e", "d"));
    CHECK(!rename("d", "e") && is("e/b", "A"));
    FAILS(EINVAL, rename("e", "e/inside"));
    CHECK(!put("f", "F"));
    FAILS(ENOTDIR, rename("e", "f"));
    FAILS(EISDIR, rename("f", "e"));
    FAILS(ENOENT, rename("none", "x"));
    /* A directory under which something is open. */
    int fd = open("e/b", O_RDWR);
    CHECK(fd >= 0 && !rename("e", "g") && pwrite(fd, "Z", 1, 0) == 1 && !close(fd) &&
          is("g/b", "Z"));
    FAILS(ENOTEMPTY, rmdir("g"));
    CHECK(!unlink("g/b") && !rmdir("g") && !unlink("f"));
    FAILS(ENOENT, rmdir("g"));
}

static void unlink_while_open(void) {
    struct stat s;
    int fd = open("u", O_RDWR | O_CREAT, 0600);
    char buf[4] = "";

    CHECK(fd >= 0 && write(fd, "abc", 3) == 3 && !unlink("u") && access("u", F_OK));
    CHECK(pread(fd, buf, 3, 0) == 3 && !strcmp(buf, "abc"));
    CHECK(!fstat(fd, &s) && s.st_size == 3);
    CHECK(pwrite(fd, "defg", 4, 3) == 4 && !fsync(fd) && !fstat(fd, &s) &&
          s.st_size == 7);
    CHECK(!ftruncate(fd, 1) && !fstat(fd, &s) && s.st_size == 1);
    CHECK(!put("u", "new") && pread(fd, buf, 4, 0) == 1 && !close(fd) && is("u", "new"));
    CHECK(!unlink("u"));
}

static void links(void) {
    struct stat a, b;
    char to[64];

    CHECK(!put("l", "L") && !link("l", "m") && !stat("l", &a) && !stat("m", &b));
    CHECK(a.st_ino == b.st_ino && a.st_nlink == 2);
    CHECK(!unlink("l") && is("m", "L") && !stat("m", &a) && a.st_nlink == 1);
    FAILS(EEXIST, link("m", "m"));
    CHECK(!symlink("m", "s") && is("s", "L") && readlink("s", to, sizeof(to)) == 1);
    CHECK(!lstat("s", &a) && S_ISLNK(a.st_mode) && a.st_size == 1);
    CHECK(!symlink("nowhere/at/all", "t"));
    FAILS(ENOENT, open("t", O_RDONLY));
    FAILS(ENOENT, stat("t", &a));
    CHECK(!symlink("r", "r"));
    FAILS(ELOOP, open("r", O_RDONLY));
    CHECK(!unlink("r") && !unlink("t") && !unlink("s") && !unlink("m"));
}

static void sizes(void) {
    static char zeros[4096];
    char buf[4096];
    int fd = open("h", O_RDWR | O_CREAT, 0644);

    CHECK(fd >= 0 && pwrite(fd, "end", 3, 1 << 20) == 3);
    CHECK(size_of("h") == (1 << 20) + 3);
    CHECK(pread(fd, buf, sizeof(buf), 4096) == sizeof(buf) &&
          !memcmp(buf, zeros, sizeof(buf)));
    CHECK(!ftruncate(fd, 5000) && size_of("h") == 5000);
    CHECK(!ftruncate(fd, 9000) && pread(fd, buf, sizeof(buf), 5000) == 4000 &&
          !memcmp(buf, zeros, 4000));
    CHECK(!truncate("h", 0) && !size_of("h") && !close(fd));
    fd = open("h", O_WRONLY | O_APPEND);
    CHECK(write(fd, "a", 1) == 1 && write(fd, "b", 1) == 1 && !close(fd) &&
          is("h", "ab"));
    fd = open("h", O_RDONLY | O_TRUNC);
    CHECK(fd >= 0 && !close(fd) && !size_of("h"));
    CHECK(!unlink("h"));
}

/* Two megabytes in odd pieces, and back. */
static void contents(void) {
    static unsigned char all[2 << 20], back[2 << 20];
    int fd = open("c", O_RDWR | O_CREAT, 0644);
    size_t at = 0;
    ssize_t n;

    for (size_t k = 0; k < sizeof(all); k++)
        all[k] = (unsigned char)(k * 2654435761u >> 13);
    for (size_t len = 1; at < sizeof(all); at += len, len = len * 3 % 300007 + 1) {
        len = len < sizeof(all) - at ? len : sizeof(all) - at;
        if (write(fd, all + at, len) != (ssize_t)len)
            break;
    }
    CHECK(at == sizeof(all) && !close(fd));
    fd = open("c", O_RDONLY);
    for (at = 0; (n = read(fd, back + at, 77777)) > 0; at += (size_t)n)
        ;
    CHECK(at == sizeof(all) && !memcmp(all, back, sizeof(all)));
    memset(back, 0, sizeof(back));
    CHECK(pread(fd, back, sizeof(back), 0) == sizeof(back) &&
          !memcmp(all, back, sizeof(all)) && !close(fd));
    CHECK(!unlink("c"));
}

static void maps(void) {
    int fd = open("m", O_RDWR | O_CREAT, 0644);
    char *p;

    CHECK(!ftruncate(fd, 8192) && pwrite(fd, "mapped", 6, 4096) == 6);
    p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(p != MAP_FAILED && !memcmp(p + 4096, "mapped", 6) && !munmap(p, 8192));
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) { /* a mount without a cache has none */
        memcpy(p, "stored", 6);
        CHECK(!msync(p, 8192, MS_SYNC) && !munmap(p, 8192));
        char buf[6];
        CHECK(pread(fd, buf, 6, 0) == 6 && !memcmp(buf, "stored", 6));
    }
    CHECK(!close(fd) && !unlink("m"));
}

static void attributes(void) {
    struct timespec t[2] = {{1000000001, 111000000}, {1234567890, 222000000}};
    struct stat s;

    CHECK(!put("a", "A") && !chmod("a", 0640) && !stat("a", &s));
    CHECK((s.st_mode & 07777) == 0640 && S_ISREG(s.st_mode));
    CHECK(!chmod("a", 04711) && !stat("a", &s) && (s.st_mode & 07777) == 04711);
    CHECK(!utimensat(AT_FDCWD, "a", t, 0) && !stat("a", &s));
    /* Linux's 9p client has whole seconds. */
    CHECK(s.st_atim.tv_sec == 1000000001 && s.st_mtim.tv_sec == 1234567890 &&
          (s.st_mtim.tv_nsec == 222000000 || !s.st_mtim.tv_nsec));
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_nsec = UTIME_NOW;
    CHECK(!utimensat(AT_FDCWD, "a", t, 0) && !stat("a", &s));
    CHECK(s.st_atim.tv_sec == 1000000001 && s.st_mtim.tv_sec > 1234567890);
    CHECK(!chown("a", (uid_t)-1, (gid_t)-1));
    umask(027);
    CHECK(!mkdir("d", 0777) && !stat("d", &s) && (s.st_mode & 07777) == 0750);
    CHECK(s.st_nlink >= 1 && S_ISDIR(s.st_mode) && !rmdir("d"));
    umask(022);
    CHECK(!unlink("a"));
}

/* Every way to make a file makes it the caller's, where the server may. */
static void owners(void) {
    struct stat s;

    CHECK(!put("o", "O") && !stat("o", &s));
    if (chown("o", 1234, 4321)) {
        CHECK(errno == EPERM); /* as for the user who shares */
        CHECK(!unlink("o"));
        return;
    }
    CHECK(!stat("o", &s) && s.st_uid == 1234 && s.st_gid == 4321 && !unlink("o"));
    CHECK(!mkdir("w", 0777) && !chmod("w", 0777));
    pid_t pid = fork();
    if (!pid)
        _exit(setgid(4321) || setuid(1234) || put("w/f", "F") || mkdir("w/d", 0755) ||
              symlink("f", "w/s") || mkfifo("w/p", 0600));
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && !status);
    for (const char *const *n = (const char *const[]){"w/f", "w/d", "w/s", "w/p", NULL};
         *n; n++)
        CHECK(!lstat(*n, &s) && s.st_uid == 1234 && s.st_gid == 4321);
    CHECK(!unlink("w/f") && !rmdir("w/d") && !unlink("w/s") && !unlink("w/p"));
    /* A group that a directory gives. */
    CHECK(!chown("w", 0, 77) && !chmod("w", 02777) && !put("w/g", "G") &&
          !stat("w/g", &s));
    CHECK(s.st_gid == 77 && !unlink("w/g") && !rmdir("w"));
}

static void xattrs(void) {
    char buf[4096], big[3000];

    CHECK(!put("x", "X"));
    if (setxattr("x", "user.one", "first", 5, 0)) {
        CHECK(errno == EOPNOTSUPP); /* of the host's file system */
        CHECK(!unlink("x"));
        return;
    }
    CHECK(getxattr("x", "user.one", buf, sizeof(buf)) == 5 && !memcmp(buf, "first", 5));
    CHECK(getxattr("x", "user.one", NULL, 0) == 5);
    FAILS(ERANGE, getxattr("x", "user.one", buf, 3));
    FAILS(EEXIST, setxattr("x", "user.one", "y", 1, XATTR_CREATE));
    FAILS(ENODATA, setxattr("x", "user.two", "y", 1, XATTR_REPLACE));
    FAILS(ENODATA, getxattr("x", "user.two", buf, sizeof(buf)));
    memset(big, 'b', sizeof(big));
    CHECK(!setxattr("x", "user.big", big, sizeof(big), 0) &&
          getxattr("x", "user.big", buf, sizeof(buf)) == sizeof(big) &&
          !memcmp(buf, big, sizeof(big)));
    CHECK(!setxattr("x", "user.empty", "", 0, 0) &&
          getxattr("x", "user.empty", buf, sizeof(buf)) == 0);
    ssize_t n = listxattr("x", buf, sizeof(buf));
    CHECK(n > 0 && memmem(buf, (size_t)n, "user.one", 9) &&
          memmem(buf, (size_t)n, "user.big", 9));
    CHECK(!removexattr("x", "user.one"));
    FAILS(ENODATA, getxattr("x", "user.one", buf, sizeof(buf)));
    FAILS(ENODATA, removexattr("x", "user.one"));
    CHECK(!unlink("x"));
}

static bool other_can_lock(const char *name, short type, off_t from, off_t len) {
    struct flock f = {.l_type = type, .l_start = from, .l_len = len};
    int status;
    pid_t pid = fork();

    if (!pid) {
        int fd = open(name, O_RDWR);

        _exit(fd < 0 ? 2 : fcntl(fd, F_SETLK, &f) ? 1 : 0);
    }
    return waitpid(pid, &status, 0) == pid && !status;
}

static void locks(void) {
    int fd, again;
    struct flock f = {.l_type = F_WRLCK, .l_start = 10, .l_len = 10};

    CHECK(!put("k", "locked"));
    fd = open("k", O_RDWR);
    CHECK(!fcntl(fd, F_SETLK, &f));
    CHECK(!other_can_lock("k", F_RDLCK, 15, 1) && other_can_lock("k", F_WRLCK, 0, 10) &&
          other_can_lock("k", F_WRLCK, 20, 0));
    f.l_type = F_RDLCK;
    CHECK(!fcntl(fd, F_SETLK, &f));
    CHECK(other_can_lock("k", F_RDLCK, 15, 1) && !other_can_lock("k", F_WRLCK, 15, 1));
    /* Another file description of the same process is no other owner. */
    again = open("k", O_RDWR);
    f.l_type = F_WRLCK;
    CHECK(!fcntl(again, F_SETLK, &f));
    f.l_type = F_UNLCK;
    CHECK(!fcntl(again, F_SETLK, &f) && other_can_lock("k", F_WRLCK, 0, 0));
    CHECK(!flock(fd, LOCK_EX | LOCK_NB));
    FAILS(EWOULDBLOCK, flock(again, LOCK_SH | LOCK_NB));
    CHECK(!flock(fd, LOCK_UN) && !flock(again, LOCK_SH | LOCK_NB));
    CHECK(!close(fd) && !close(again) && !unlink("k"));
}

/* Those that the guest's own kernel serves; the server never opens them. */
static void specials(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "sock"};
    struct stat s;
    int fd, sock = socket(AF_UNIX, SOCK_STREAM, 0);
    char buf[4];

    CHECK(!mkfifo("fifo", 0600) && !stat("fifo", &s) && S_ISFIFO(s.st_mode));
    fd = open("fifo", O_RDWR);
    CHECK(fd >= 0 && write(fd, "hey", 3) == 3 && read(fd, buf, 3) == 3 && !close(fd));
    CHECK(!bind(sock, (void *)&to, sizeof(to)) && !lstat("sock", &s) &&
          S_ISSOCK(s.st_mode));
    CHECK(!close(sock) && !unlink("sock") && !unlink("fifo"));
    FAILS(EPERM, mknod("null", S_IFCHR | 0666, 0x103));
}

#define MANY 10000

static int count(const char *dir, bool *seen) {
    DIR *d = opendir(dir);
    struct dirent *e;
    int n = 0;

    if (!d)
        return -1;
    while ((e = readdir(d))) {
        int k = *e->d_name == 'n' ? atoi(e->d_name + 1) : -1;

        if (k >= 0 && k < MANY) {
            n += !seen[k];
            if (seen[k])
                n -= 2 * MANY; /* twice */
            seen[k] = true;
        }
    }
    closedir(d);
    return n;
}

static void big_directory(void) {
    static bool seen[MANY];
    char name[256];
    DIR *d;
    int made = 0, gone = 0;

    CHECK(!mkdir("many", 0755));
    for (int k = 0; k < MANY; k++) {
        snprintf(name, sizeof(name), "many/n%d", k);
        made += !mknod(name, S_IFREG | 0644, 0);
    }
    CHECK(made == MANY && count("many", seen) == MANY);
    /* From the middle, by a place that was told. */
    d = opendir("many");
    for (int k = 0; k < MANY / 2; k++)
        readdir(d);
    long at = telldir(d);
    struct dirent *e = readdir(d);
    snprintf(name, sizeof(name), "%s", e ? e->d_name : "none");
    rewinddir(d);
    readdir(d);
    seekdir(d, at);
    e = readdir(d);
    CHECK(e && !strcmp(e->d_name, name) && !closedir(d));
    for (int k = 0; k < MANY; k++) {
        snprintf(name, sizeof(name), "many/n%d", k);
        gone += !unlink(name);
    }
    CHECK(gone == MANY && !rmdir("many"));
}

/* What was found is not lost when there are more files than the server keeps open. */
static void deep(void) {
    char name[16];
    int depth = 0, up = 0;

    while (depth < 200 && !mkdir("deep", 0755) && !chdir("deep"))
        depth++;
    CHECK(depth == 200 && !put("bottom", "B") && is("bottom", "B") && !unlink("bottom"));
    snprintf(name, sizeof(name), "deep");
    for (; up < depth && !chdir("..") && !rmdir(name); up++)
        ;
    CHECK(up == depth);
}

static void readonly(void) {
    struct statvfs s;
    char buf[8];
    int fd = open("there", O_RDONLY);

    CHECK(fd >= 0 && read(fd, buf, sizeof(buf)) > 0 && !close(fd));
    FAILS(EROFS, open("there", O_WRONLY));
    FAILS(EROFS, open("there", O_RDONLY | O_TRUNC));
    FAILS(EROFS, open("new", O_WRONLY | O_CREAT, 0644));
    FAILS(EROFS, mkdir("new", 0755));
    FAILS(EROFS, unlink("there"));
    FAILS(EROFS, rename("there", "here"));
    FAILS(EROFS, link("there", "here"));
    FAILS(EROFS, symlink("there", "here"));
    FAILS(EROFS, mkfifo("fifo", 0600));
    FAILS(EROFS, chmod("there", 0600));
    FAILS(EROFS, truncate("there", 0));
    FAILS(EROFS, utimensat(AT_FDCWD, "there", NULL, 0));
    FAILS(EROFS, setxattr("there", "user.x", "y", 1, 0));
    CHECK(!statvfs(".", &s) && s.f_namemax == 255);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3 || chdir(argv[2]))
        return 2;
    if (!strcmp(argv[1], "readonly")) {
        readonly();
    } else {
        struct {
            const char *name;
            void (*fn)(void);
        } all[] = {
            {"names", names},   {"renames", renames},       {"unlink", unlink_while_open},
            {"links", links},   {"sizes", sizes},           {"contents", contents},
            {"maps", maps},     {"attributes", attributes}, {"owners", owners},
            {"xattrs", xattrs}, {"locks", locks},           {"specials", specials},
            {"deep", deep},     {"big", big_directory}};

        for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++) {
            if (argc > 3 && !strcmp(argv[3], all[k].name))
                continue;
            all[k].fn();
            printf("done: %s\n", all[k].name);
        }
    }
    printf("files: %u good, %u bad\n", good, bad);
    return bad != 0;
}
