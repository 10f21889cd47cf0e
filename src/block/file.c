/*
 * A file or a block device as an image: what lies at an offset of the disk lies there in
 * the file. The kernel's page cache is the cache; the guest's flush is fdatasync(2).
 *
 * A file need not be whole sectors long: what its last sector lacks reads as zero. It is
 * never made longer than the disk by who uses it as one; a qcow2 image grows it. Where a
 * file has been cut while it was used, reading is an error.
 *
 * What the page cache has is read without waiting (RWF_NOWAIT), and written so where the
 * file system can; one that cannot at all is not asked again. It is the same descriptor:
 * a later fdatasync(2) covers it.
 *
 * ext4 and tmpfs are among those that cannot, and what they are given goes to memory all
 * the same: in microseconds as a rule, and now and then after a wait, for the journal, or
 * because there is much that the disk has not seen. Such a call is made there and then as
 * long as none has taken long (LONG_NS). Who has waited once leaves it to others for a
 * while, and for twice as long each time, up to DOUBT_MOST. Pages that would have
 * to be read first are nothing for it.
 *
 * fallocate(2) gives space back and makes zeros, of block devices too; where the file
 * system cannot, zeros are written and space is kept, from then on without asking again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/os.h"
#include "block/block_int.h"

#include <linux/fs.h> /* behind, for its BLOCK_SIZE */

#define PIECES 1024u /* IOV_MAX */

#define PAGE 4096u
#define LONG_NS 3000000u /* more than a thread of this host's that goes first takes */
#define DOUBT_LEAST 50000000u
#define DOUBT_MOST 5000000000u

_Static_assert(sizeof(struct block_iov) == sizeof(struct iovec) &&
                   offsetof(struct block_iov, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(struct block_iov, len) == offsetof(struct iovec, iov_len),
               "a request's pieces are given to readv(2) as they are");
_Static_assert(BLOCK_IOV_MAX <= PIECES, "as many as one call takes");

struct file {
    struct image image;
    int fd;
    bool device;
    uint64_t id[2];                /* device and inode */
    _Atomic uint64_t end;          /* in bytes: of the file, as far as we know */
    atomic_bool no_punch, no_zero; /* the file system has said so */
    atomic_bool no_read_now, no_write_now;
    bool reads_brief, writes_brief; /* as a rule, where the kernel does not say */
    _Atomic uint64_t doubt;         /* none before this time of os_monotonic_ns() */
    _Atomic uint64_t doubted;       /* for so long */
    atomic_int lost;                /* -errno of the first fdatasync(2) that failed */
};

static struct file *file_from(struct image *i) {
    return container_of(i, struct file, image);
}

static bool unsupported(int error) {
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV ||
           error == ENOTTY;
}

/* What preadv(2) or pwritev(2) has left over of PIECES: skips DONE bytes. */
static unsigned advance(struct iovec *iov, unsigned count, size_t done) {
    unsigned n = 0;

    while (n < count && done >= iov[n].iov_len)
        done -= iov[n++].iov_len;
    memmove(iov, iov + n, (count - n) * sizeof(*iov));
    if (n < count) {
        iov[0].iov_base = (uint8_t *)iov[0].iov_base + done;
        iov[0].iov_len -= done;
    }
    return count - n;
}

/* The rest, after a call that did a part of it. */
static int go_on(struct file *f, bool write, uint64_t offset, const struct iovec *iov,
                 unsigned count, size_t done) {
    struct iovec rest[PIECES];

    memcpy(rest, iov, count * sizeof(*iov));
    for (;;) {
        ssize_t n;

        count = advance(rest, count, done);
        offset += done;
        if (!count)
            return 0;
        n = write ? pwritev(f->fd, rest, (int)count, (off_t)offset)
                  : preadv(f->fd, rest, (int)count, (off_t)offset);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0 && write)
            return -EIO;
        if (n == 0 && offset < atomic_load(&f->end))
            return -EIO; /* somebody has cut it */
        if (n == 0) {
            iov_zero(rest, count, 0, iov_length(rest, count));
            return 0;
        }
        done = n < 0 ? 0 : (size_t)n;
    }
}

static int file_read(struct image *i, uint64_t offset, const struct iovec *iov,
                     unsigned count) {
    struct file *f = file_from(i);
    ssize_t n = preadv(f->fd, iov, (int)count, (off_t)offset);

    if (n < 0 && errno != EINTR)
        return -errno;
    if (n >= 0 && (size_t)n == iov_length(iov, count))
        return 0;
    return go_on(f, false, offset, iov, count, n < 0 ? 0 : (size_t)n);
}

/* The file reaches to END at least. */
static void grown(struct file *f, uint64_t end) {
    uint64_t was = atomic_load(&f->end);

    while (was < end && !atomic_compare_exchange_weak(&f->end, &was, end))
        ;
}

static int file_write(struct image *i, uint64_t offset, const struct iovec *iov,
                      unsigned count) {
    struct file *f = file_from(i);
    size_t len = iov_length(iov, count);
    ssize_t n = pwritev(f->fd, iov, (int)count, (off_t)offset);
    int rc = 0;

    if (n < 0 && errno != EINTR)
        return -errno;
    if (n < 0 || (size_t)n < len)
        rc = go_on(f, true, offset, iov, count, n < 0 ? 0 : (size_t)n);
    if (!rc)
        grown(f, offset + len);
    return rc;
}

/* 0, or -EAGAIN after a call without waiting that should have done LEN bytes and has
 * returned N. What the file system cannot ever do is remembered in NO. */
static int at_once(ssize_t n, size_t len, atomic_bool *no) {
    if (n >= 0 && (size_t)n == len)
        return 0;
    if (n < 0 && unsupported(errno))
        atomic_store(no, true);
    return -EAGAIN;
}

/* A call that should have been brief has taken from START to END. */
static void judge(struct file *f, uint64_t start, uint64_t end) {
    uint64_t was = atomic_load(&f->doubted), next = was * 2;

    if (end - start <= LONG_NS) {
        if (was && start - atomic_load(&f->doubt) > was)
            atomic_store(&f->doubted, 0);
        return;
    }
    next = next < DOUBT_LEAST ? DOUBT_LEAST : next > DOUBT_MOST ? DOUBT_MOST : next;
    atomic_store(&f->doubted, next);
    atomic_store(&f->doubt, end + next);
}

/* Nobody is asked: 0, or -EAGAIN. */
static int briefly(struct file *f, bool write, uint64_t offset, const struct iovec *iov,
                   unsigned count) {
    size_t len = iov_length(iov, count);
    uint64_t start = os_monotonic_ns();
    ssize_t n;

    if (start < atomic_load(&f->doubt) || (write && (offset % PAGE || len % PAGE)))
        return -EAGAIN;
    n = write ? pwritev(f->fd, iov, (int)count, (off_t)offset)
              : preadv(f->fd, iov, (int)count, (off_t)offset);
    judge(f, start, os_monotonic_ns());
    return n >= 0 && (size_t)n == len ? 0 : -EAGAIN;
}

static int file_read_now(struct image *i, uint64_t offset, const struct iovec *iov,
                         unsigned count) {
    struct file *f = file_from(i);

    if (!atomic_load(&f->no_read_now))
        return at_once(preadv2(f->fd, iov, (int)count, (off_t)offset, RWF_NOWAIT),
                       iov_length(iov, count), &f->no_read_now);
    return f->reads_brief ? briefly(f, false, offset, iov, count) : -EAGAIN;
}

static int file_write_now(struct image *i, uint64_t offset, const struct iovec *iov,
                          unsigned count) {
    struct file *f = file_from(i);
    size_t len = iov_length(iov, count);
    int rc = -EAGAIN;

    if (!atomic_load(&f->no_write_now))
        rc = at_once(pwritev2(f->fd, iov, (int)count, (off_t)offset, RWF_NOWAIT), len,
                     &f->no_write_now);
    else if (f->writes_brief)
        rc = briefly(f, true, offset, iov, count);
    if (!rc)
        grown(f, offset + len);
    return rc;
}

/* After one that failed the kernel holds for clean what it could not write: the next
 * one's success would say nothing. */
static int file_flush(struct image *i) {
    struct file *f = file_from(i);
    int none = 0, rc;

    if (atomic_load(&f->lost))
        return atomic_load(&f->lost);
    do
        rc = fdatasync(f->fd);
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        atomic_compare_exchange_strong(&f->lost, &none, -errno);
    return atomic_load(&f->lost);
}

/* 0, -EOPNOTSUPP, which is remembered in NO, or -errno. */
static int allocate(struct file *f, int mode, uint64_t offset, uint64_t length,
                    atomic_bool *no) {
    int rc;

    if (atomic_load(no))
        return -EOPNOTSUPP;
    do
        rc = fallocate(f->fd, mode, (off_t)offset, (off_t)length);
    while (rc < 0 && errno == EINTR);
    if (!rc)
        return 0;
    if (!unsupported(errno))
        return -errno;
    atomic_store(no, true);
    return -EOPNOTSUPP;
}

static int punch(struct file *f, uint64_t offset, uint64_t length) {
    return allocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length,
                    &f->no_punch);
}

static int file_discard(struct image *i, uint64_t offset, uint64_t length) {
    int rc = length ? punch(file_from(i), offset, length) : 0;

    return rc == -EOPNOTSUPP ? 0 : rc; /* it was a wish */
}

static int file_zeroes(struct image *i, uint64_t offset, uint64_t length, bool unmap) {
    struct file *f = file_from(i);
    int rc = -EOPNOTSUPP;

    if (!length)
        return 0;
    if (unmap)
        rc = punch(f, offset, length);
    if (rc == -EOPNOTSUPP)
        rc = allocate(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length,
                      &f->no_zero);
    return rc == -EOPNOTSUPP ? image_write_zeroes(i, offset, length) : rc;
}

static int file_close(struct image *i) {
    struct file *f = file_from(i);
    int rc = i->readonly ? 0 : file_flush(i);

    close(f->fd);
    image_done(i);
    free(f);
    return rc;
}

static const struct image_ops ops = {.read = file_read,
                                     .write = file_write,
                                     .read_now = file_read_now,
                                     .write_now = file_write_now,
                                     .flush = file_flush,
                                     .discard = file_discard,
                                     .zeroes = file_zeroes,
                                     .close = file_close};

/* --- opening --- */

/* File systems of this host that keep what they are given in memory; one that asks
 * another host, or a process, may wait for it at any time. */
static void trust(int fd, struct block_facts *facts) {
    struct statfs fs;

    if (facts->device || fstatfs(fd, &fs) < 0)
        return;
    facts->reads_brief = fs.f_type == TMPFS_MAGIC;
    facts->writes_brief = facts->reads_brief || fs.f_type == EXT4_SUPER_MAGIC ||
                          fs.f_type == OVERLAYFS_SUPER_MAGIC;
}

int file_measure(int fd, struct block_facts *out) {
    struct block_facts facts = {.sector = BLOCK_SECTOR};
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    facts.device = S_ISBLK(st.st_mode);
    if (!facts.device && !S_ISREG(st.st_mode))
        return -ENOTBLK;
    facts.id[0] = st.st_dev;
    facts.id[1] = st.st_ino;
    facts.size = (uint64_t)st.st_size;
    if (facts.device && (ioctl(fd, BLKGETSIZE64, &facts.size) < 0 ||
                         ioctl(fd, BLKPBSZGET, &facts.physical) < 0 ||
                         ioctl(fd, BLKSSZGET, &facts.sector) < 0))
        return -errno;
    if (!facts.device)
        facts.physical = 4096; /* the page cache's */
    trust(fd, &facts);
    *out = facts;
    return 0;
}

static void believe(struct file *f, const struct block_facts *facts) {
    unsigned physical = facts->physical;

    f->device = facts->device;
    memcpy(f->id, facts->id, sizeof(f->id));
    f->image.quick = true;
    f->reads_brief = facts->reads_brief;
    f->writes_brief = facts->writes_brief;
    atomic_store(&f->end, facts->size);
    f->image.size = (facts->size + BLOCK_SECTOR - 1) / BLOCK_SECTOR * BLOCK_SECTOR;
    if (facts->sector == BLOCK_SECTOR_MAX)
        f->image.sector = BLOCK_SECTOR_MAX;
    if (physical >= BLOCK_SECTOR && physical <= 65536 && !(physical & (physical - 1)))
        f->image.physical = physical;
    f->image.granule = f->image.physical > 4096 ? f->image.physical : 4096;
}

int file_handed(int fd, const struct block_facts *facts, const char *path, bool readonly,
                struct image **out) {
    struct file *f = calloc(1, sizeof(*f));
    int rc = f ? image_init(&f->image, &ops, path) : -ENOMEM;

    if (rc) {
        free(f);
        close(fd);
        return rc;
    }
    f->fd = fd;
    f->image.readonly = readonly;
    believe(f, facts);
    *out = &f->image;
    return 0;
}

int file_of(int fd, const char *path, bool readonly, struct image **out) {
    struct block_facts facts;
    int rc = file_measure(fd, &facts);

    if (!rc)
        return file_handed(fd, &facts, path, readonly, out);
    close(fd);
    return rc;
}

void file_resized(struct image *i, const struct block_facts *facts) {
    believe(file_from(i), facts);
}

static int explain(int rc, const char *path, bool readonly, char *why, size_t why_size) {
    if (rc == -EEXIST)
        snprintf(why, why_size, "cannot make '%s': it has just been made by another",
                 path);
    else if (rc == -EBUSY)
        snprintf(why, why_size,
                 "the image '%s' is in use by another program; end that first, or use %s",
                 path, readonly ? "a copy" : "a copy or overlay=temp");
    else if (rc == -ENOTBLK)
        snprintf(why, why_size, "'%s' is neither a file nor a block device", path);
    else if ((rc == -EACCES || rc == -EROFS || rc == -EPERM) && !readonly)
        snprintf(why, why_size,
                 "cannot open the image '%s' for writing: %s; ',readonly' or "
                 "',overlay=temp' leaves it alone",
                 path, strerror(-rc));
    else
        snprintf(why, why_size, "cannot open the image '%s': %s", path, strerror(-rc));
    return rc;
}

static int open_for(const struct file_spec *spec) {
    /* O_NONBLOCK: a FIFO is refused, not waited for. It says nothing to files. */
    int how =
        (spec->readonly ? O_RDONLY : O_RDWR) | (spec->create ? O_CREAT | O_EXCL : 0);
    int fd = open(spec->path, how | O_CLOEXEC | O_NONBLOCK, 0666);

    return fd < 0 ? -errno : fd;
}

int file_open(const struct file_spec *spec, struct image **out, char *why,
              size_t why_size) {
    int fd = open_for(spec), rc = fd < 0 ? fd : 0;

    if (!rc && spec->lock)
        rc = lock_take(fd, !spec->readonly);
    if (rc && fd >= 0)
        close(fd);
    if (!rc)
        rc = file_of(fd, spec->path, spec->readonly, out);
    return rc ? explain(rc, spec->path, spec->readonly, why, why_size) : 0;
}

int file_hand_over(const char *path, bool readonly, struct block_facts *facts, char *why,
                   size_t why_size) {
    const struct file_spec spec = {.path = path, .readonly = readonly};
    int fd = open_for(&spec), rc = fd < 0 ? fd : file_measure(fd, facts);

    if (!rc) {
        rc = lock_take(fd, !readonly);
        facts->locked = !rc;
        rc = rc == -EBUSY ? 0 : rc; /* by who takes it over, perhaps */
    }
    if (!rc)
        return fd;
    if (fd >= 0)
        close(fd);
    return explain(rc, path, readonly, why, why_size);
}

int file_in_use(const char *path, bool readonly, char *why, size_t why_size) {
    return explain(-EBUSY, path, readonly, why, why_size);
}

int file_temporary(const char *path, struct image **out) {
    const char *dir = getenv("TMPDIR");
    char name[4096];
    int fd;

    dir = dir && *dir ? dir : "/var/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        if (snprintf(name, sizeof(name), "%s/bivisor-XXXXXX", dir) >= (int)sizeof(name))
            return -ENAMETOOLONG;
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0)
            unlink(name);
    }
    return fd < 0 ? -errno : file_of(fd, path, false, out);
}

bool file_identity(const struct image *i, uint64_t id[2]) {
    const struct file *f = container_of(i, const struct file, image);

    if (i->ops != &ops)
        return false;
    memcpy(id, f->id, sizeof(f->id));
    return true;
}
