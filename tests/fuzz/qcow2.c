/*
 * A qcow2 image that anybody made, read and written: a byte with the number of requests,
 * four bytes for each, then the image, which lies in memory. Whatever is in it, requests
 * end, with or without an error, and touch nothing but it.
 */
#include <errno.h>

#include "block/qcow2/qcow2.h"
#include "fuzz/fuzz.h"

#define ROOM (1u << 20)
#define BUFFER 4096u

struct memory {
    struct image image;
    uint8_t *bytes;
    uint64_t end;
};

static int move(struct memory *m, bool write, uint64_t offset, const struct iovec *iov,
                unsigned count) {
    for (unsigned n = 0; n < count; n++) {
        size_t len = iov[n].iov_len;

        if (write && (offset > ROOM || len > ROOM - offset))
            return -ENOSPC;
        if (write) {
            memcpy(m->bytes + offset, iov[n].iov_base, len);
            m->end = offset + len > m->end ? offset + len : m->end;
        } else {
            size_t there = offset < ROOM ? ROOM - offset : 0;

            there = there < len ? there : len;
            memcpy(iov[n].iov_base, m->bytes + (there ? offset : 0), there);
            memset((uint8_t *)iov[n].iov_base + there, 0, len - there);
        }
        offset += len;
    }
    return 0;
}

static int memory_read(struct image *i, uint64_t offset, const struct iovec *iov,
                       unsigned count) {
    return move(container_of(i, struct memory, image), false, offset, iov, count);
}

static int memory_write(struct image *i, uint64_t offset, const struct iovec *iov,
                        unsigned count) {
    return move(container_of(i, struct memory, image), true, offset, iov, count);
}

static int memory_flush(struct image *i) {
    return 0;
}

static int memory_discard(struct image *i, uint64_t offset, uint64_t length) {
    return 0;
}

static int memory_close(struct image *i) {
    struct memory *m = container_of(i, struct memory, image);

    free(m->bytes);
    image_done(i);
    free(m);
    return 0;
}

static const struct image_ops ops = {.read = memory_read,
                                     .write = memory_write,
                                     .flush = memory_flush,
                                     .discard = memory_discard,
                                     .close = memory_close};

static struct image *memory_new(const uint8_t *data, size_t size) {
    struct memory *m = calloc(1, sizeof(*m));

    HOLDS(m && !image_init(&m->image, &ops, "memory"));
    m->bytes = calloc(1, ROOM);
    HOLDS(m->bytes);
    memcpy(m->bytes, data, size);
    m->end = size;
    m->image.size = (size + 511) / 512 * 512;
    return &m->image;
}

static void request(struct image *i, uint32_t how) {
    static uint8_t buf[BUFFER];
    uint64_t sectors = i->size / 512, at, len;
    struct iovec iov[2];

    if (!sectors)
        return;
    at = (how >> 8 & 0xffff) % sectors;
    len = 1 + (how >> 24) % (BUFFER / 512);
    len = len < sectors - at ? len : sectors - at;
    iov[0] = (struct iovec){buf, 100};
    iov[1] = (struct iovec){buf + 100, len * 512 - 100};
    switch (how & 7) {
    case 0:
    case 1:
        i->ops->read(i, at * 512, iov, 2);
        break;
    case 2:
        i->ops->discard(i, at * 512, len * 512);
        break;
    case 3:
        i->ops->zeroes(i, at * 512, len * 512, how & 8);
        break;
    case 4:
        i->ops->flush(i);
        break;
    default:
        memset(buf, (int)how, sizeof(buf));
        i->ops->write(i, at * 512, iov, 2);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    unsigned count = fuzz_get(&in, 1) % 64;
    uint32_t how[64];
    struct qcow2_spec spec = {0};
    struct qcow2_names names = {0};
    struct image *image = NULL;
    char why[512] = "";

    for (unsigned n = 0; n < count; n++)
        how[n] = (uint32_t)fuzz_get(&in, 4);
    if (in.left > ROOM / 2)
        return 0;
    spec.file = memory_new(in.p, in.left);
    if (!qcow2_names(spec.file, &names, why, sizeof(why)))
        HOLDS(memchr(names.backing, 0, sizeof(names.backing)) &&
              memchr(names.format, 0, sizeof(names.format)));
    if (qcow2_open(&spec, &image, why, sizeof(why))) {
        HOLDS(why[0]);
        return 0;
    }
    for (unsigned n = 0; n < count; n++)
        request(image, how[n]);
    image_close(image);
    return 0;
}
