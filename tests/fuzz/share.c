/*
 * The file server, with anything as a message, and messages that are nearly right. It has
 * a directory with a few files, links that lead out, a FIFO, and a few descriptors only;
 * beside it is another directory, which must stay as it is. Nothing may block.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "share/p9_int.h"

enum { OPS = 100, ROOM = 8192 };

static char base[] = "/tmp/bivisor-fuzz-share-XXXXXX";
static int top = -1; /* what has both directories */

/* All that is in it; links are not followed. */
static void empty(int dir) {
    DIR *d = fdopendir(dup(dir));
    struct dirent *e;

    HOLDS(d);
    rewinddir(d);
    while ((e = readdir(d))) {
        int below;

        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        fchmodat(dir, e->d_name, 0700, AT_SYMLINK_NOFOLLOW);
        below = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (below >= 0) {
            fchmod(below, 0700);
            empty(below);
            close(below);
        }
        HOLDS(!unlinkat(dir, e->d_name, below >= 0 ? AT_REMOVEDIR : 0));
    }
    closedir(d);
}

static void leave(void) {
    empty(top);
    rmdir(base);
}

static void file(const char *name, const char *text) {
    int fd = openat(top, name, O_CREAT | O_WRONLY | O_TRUNC, 0644);

    HOLDS(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void make(void) {
    if (top < 0) {
        HOLDS(mkdtemp(base));
        top = open(base, O_RDONLY | O_DIRECTORY);
        atexit(leave);
    }
    empty(top);
    HOLDS(!mkdirat(top, "out", 0755) && !mkdirat(top, "in", 0755));
    HOLDS(!mkdirat(top, "in/d", 0755));
    file("out/f", "outside");
    file("in/f", "inside");
    file("in/d/f", "deep");
    HOLDS(!symlinkat("../out", top, "in/l") && !symlinkat("../out/f", top, "in/d/l"));
    HOLDS(!mkfifoat(top, "in/p", 0644));
}

static void check_outside(void) {
    char text[16] = "";
    struct stat s;
    int fd = openat(top, "out/f", O_RDONLY);
    unsigned entries = 0;
    DIR *d;

    HOLDS(fd >= 0 && read(fd, text, sizeof(text)) == 7 && !strcmp(text, "outside"));
    HOLDS(!fstat(fd, &s) && s.st_nlink == 1 && s.st_mode == (S_IFREG | 0644));
    close(fd);
    fd = openat(top, "out", O_RDONLY | O_DIRECTORY);
    d = fdopendir(fd);
    HOLDS(d);
    while (readdir(d))
        entries++;
    closedir(d);
    HOLDS(entries == 3);
}

static const char *const words[] = {"f",  "d", "l", "p",   "n",
                                    "..", ".", "",  "l/f", "../out"};

/* FORM as in the unit test; values come from the input, most of them small. */
static const struct form {
    uint8_t type;
    const char *form;
} forms[] = {
    {P9_WALK, "ffWs"},
    {P9_WALK, "ffWss"},
    {P9_WALK, "ffw"},
    {P9_LOPEN, "fd"},
    {P9_LCREATE, "fsddd"},
    {P9_SYMLINK, "fssd"},
    {P9_MKNOD, "fsdddd"},
    {P9_RENAME, "ffs"},
    {P9_READLINK, "f"},
    {P9_GETATTR, "fq"},
    {P9_SETATTR, "fddddqqqqq"},
    {P9_XATTRWALK, "ffs"},
    {P9_XATTRCREATE, "fsqd"},
    {P9_READDIR, "fqd"},
    {P9_FSYNC, "fd"},
    {P9_LOCK, "fbdqqds"},
    {P9_GETLOCK, "fbqqds"},
    {P9_LINK, "ffs"},
    {P9_MKDIR, "fsdd"},
    {P9_RENAMEAT, "fsfs"},
    {P9_UNLINKAT, "fsd"},
    {P9_ATTACH, "ffssd"},
    {P9_READ, "fqd"},
    {P9_WRITE, "fqdbbbb"},
    {P9_CLUNK, "f"},
    {P9_REMOVE, "f"},
    {P9_VERSION, "dv"},
    {P9_STATFS, "f"},
    {P9_FLUSH, "w"},
    {P9_AUTH, "fssd"},
};

static void put_field(struct fuzz_in *in, struct wire_out *out, char kind) {
    const char *text = kind == 'v' ? "9P2000.L" : "";
    unsigned small = (unsigned)fuzz_get(in, 1);

    switch (kind) {
    case 'b':
        wire_put8(out, (uint8_t)small);
        break;
    case 'w':
        wire_put16(out, 0);
        break;
    case 'W':
        wire_put16(out, small & 3);
        break;
    case 'f':
        wire_put32(out, small & 7);
        break;
    case 'd': /* flags of open(2) among them */
        wire_put32(out, small & 0x80 ? (uint32_t)fuzz_get(in, 4)
                                     : (small & 3) | (small & 0x7c) << 4);
        break;
    case 'q':
        wire_put64(out, small & 0x80 ? fuzz_get(in, 8) : small);
        break;
    case 's':
        text = words[small % ARRAY_SIZE(words)];
        /* fall through */
    default:
        wire_put_text(out, text, strlen(text));
    }
}

static uint32_t message(struct fuzz_in *in, uint8_t *bytes) {
    struct wire_out out = {.at = bytes + P9_HEADER, .left = 512};
    unsigned how = (unsigned)fuzz_get(in, 1);
    const struct form *f = &forms[how % ARRAY_SIZE(forms)];
    uint32_t len;

    if (how >= 250) { /* anything */
        for (unsigned n = 0; n < 64; n++)
            bytes[n] = (uint8_t)fuzz_get(in, 1);
        return how - 190;
    }
    for (const char *kind = f->form; *kind; kind++)
        put_field(in, &out, *kind);
    len = (uint32_t)(out.at - bytes);
    memcpy(bytes, &len, 4);
    bytes[4] = f->type;
    bytes[5] = bytes[6] = 0;
    return len;
}

/* A request of FUSE: a header, numbers, words. */
static uint32_t request(struct fuzz_in *in, uint8_t *bytes) {
    struct wire_out out = {.at = bytes, .left = 512};
    unsigned fields = (unsigned)fuzz_get(in, 1) & 15;
    uint32_t opcode = (uint32_t)fuzz_get(in, 1) & 63;

    wire_put32(&out, 0);
    wire_put32(&out, opcode);
    wire_put64(&out, 1);
    wire_put64(&out, fuzz_get(in, 1) & 15); /* the node */
    for (unsigned n = 0; n < 4; n++)
        wire_put32(&out, 0);
    for (unsigned n = 0; n < fields; n++) {
        unsigned kind = (unsigned)fuzz_get(in, 1);
        const char *word = words[kind % ARRAY_SIZE(words)];

        if (kind & 0x80)
            wire_put(&out, word, strlen(word) + 1);
        else if (kind & 0x40)
            wire_put64(&out, kind & 0x20 ? fuzz_get(in, 8) : fuzz_get(in, 1) & 7);
        else
            wire_put32(&out, kind & 0x20 ? (uint32_t)fuzz_get(in, 4) : kind & 3);
    }
    return (uint32_t)(out.at - bytes);
}

static void serve(const struct protocol *p, void *state, struct tree *tree,
                  const uint8_t *bytes, uint32_t len) {
    uint8_t *in = malloc(len), *out = malloc(ROOM); /* of just this size */
    uint32_t got, size;

    HOLDS(in && out);
    memcpy(in, bytes, len);
    tree_turn(tree);
    got = p->serve(state, in, len, out, ROOM);
    HOLDS(got <= ROOM);
    if (p == &p9_protocol || got) {
        HOLDS(got >= P9_HEADER);
        memcpy(&size, out, 4);
        HOLDS(size == got);
    }
    free(in);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t hello[] = {21,  0,    0,   0,   P9_VERSION, 0,   0,
                                    0,   0x20, 0,   0,   8,          0,   '9',
                                    'P', '2',  '0', '0', '0',        '.', 'L'};
    static const uint8_t attach[] = {23, 0, 0, 0,   P9_ATTACH, 0,   0,   1,
                                     0,  0, 0, 255, 255,       255, 255, 0,
                                     0,  0, 0, 255, 255,       255, 255};
    struct fuzz_in in = {data, size};
    unsigned how = (unsigned)fuzz_get(&in, 1);
    const struct protocol *p = how & 1 ? &fuse_protocol : &p9_protocol;
    uint8_t bytes[1024];
    struct tree *tree;
    void *state;

    make();
    HOLDS(!tree_new(openat(top, "in", O_PATH | O_DIRECTORY), how & 2, 8, &tree));
    HOLDS(!p->create(tree, how & 4, &state));
    if (p == &p9_protocol) {
        serve(p, state, tree, hello, sizeof(hello));
        serve(p, state, tree, attach, sizeof(attach));
    }
    for (unsigned k = 0; k < OPS && in.left; k++) {
        uint32_t len = p == &p9_protocol ? message(&in, bytes) : request(&in, bytes);

        serve(p, state, tree, bytes, len);
    }
    p->destroy(state);
    tree_free(tree);
    check_outside();
    return 0;
}
