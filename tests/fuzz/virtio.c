/*
 * virtio: a guest that writes anything into registers, rings and buffers, in good order
 * or not, while the host's side goes on. Each device over MMIO; nothing may be out of
 * bounds, take long, or be left under way.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/vsock.h"
#include "fuzz/vguest.h"

enum { OPS = 300, DISK = 64 << 10 };

static struct rig r;
static struct mem *mem;
static struct block *block;
static struct block_pool *pool;
static struct virtio_rng *rng;
static struct virtio_blk *blk;
static struct virtio_console *console;
static struct virtio_balloon *balloon;
static struct virtio_vsock *vsock;
static struct vguest guest;

static size_t entropy(void *arg, void *buf, size_t len) {
    memset(buf, 0x55, len);
    return r.now & 64 ? len : 0;
}

static size_t take_output(void *arg, unsigned port, const uint8_t *bytes, size_t len) {
    return r.now & 64 ? len : len / 2;
}

static void on_room(void *arg, unsigned port) {
}

/* --- the sockets' host --- */

static bool on_connect(void *arg, unsigned n, uint32_t port) {
    return !(r.now & 32);
}

static void on_opened(void *arg, unsigned n, bool ok, uint32_t port) {
}

static size_t on_write(void *arg, unsigned n, const uint8_t *bytes, size_t len) {
    return r.now & 64 ? len : len / 2;
}

static int on_read(void *arg, unsigned n, uint8_t *buf, size_t len) {
    memset(buf, 0x66, len);
    return r.now & 128 ? (int)len : r.now & 256 ? -1 : 0;
}

static void on_close(void *arg, unsigned n) {
}

static uint64_t due(void *arg) {
    return r.now + 1000;
}

/* An image without a file system's path: it is the same for all inputs, and small. */
static void open_disk(void) {
    const struct block_host host = {.due = due};
    struct block_spec spec = {.format = BLOCK_RAW};
    char path[64], why[256];
    int fd = memfd_create("disk", 0);

    HOLDS(fd >= 0 && !ftruncate(fd, DISK));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    spec.path = path;
    HOLDS(!block_open(&spec, &block, why, sizeof(why)));
    close(fd);
    HOLDS(!block_pool_new(&host, &pool));
    block_attach(block, pool);
}

static void make(unsigned which) {
    static const struct virtio_console_port ports[] = {
        {.name = "a"}, {.console = true}, {.name = "org.example.port"}};
    const struct virtio_rng_host source = {.random = entropy};
    const struct virtio_console_host ends = {.write = take_output, .room = on_room};
    struct virtio_device *dev;

    rig_new(&r);
    HOLDS(mem || !mem_create(VGUEST_RAM, &mem));
    mem_reset(mem);
    rng = NULL;
    blk = NULL;
    console = NULL;
    balloon = NULL;
    vsock = NULL;
    switch (which % 5) {
    case 0:
        rng = virtio_rng_new(mem, r.clock, &source, &r.cnt);
        HOLDS(rng);
        dev = virtio_rng_device(rng);
        break;
    case 1:
        open_disk();
        blk = virtio_blk_new(mem, r.clock, block, 2, &r.cnt);
        HOLDS(blk);
        dev = virtio_blk_device(blk);
        break;
    case 2:
        console = virtio_console_new(mem, r.clock, ports, 3, &ends, &r.cnt);
        HOLDS(console);
        dev = virtio_console_device(console);
        break;
    case 4: {
        const struct virtio_vsock_host host = {.connect = on_connect,
                                               .opened = on_opened,
                                               .write = on_write,
                                               .read = on_read,
                                               .end = on_close,
                                               .close = on_close};

        vsock = virtio_vsock_new(mem, r.clock, 9, &host, &r.cnt);
        HOLDS(vsock);
        dev = virtio_vsock_device(vsock);
        break;
    }
    default:
        balloon = virtio_balloon_new(mem, r.clock, false, &r.cnt);
        HOLDS(balloon);
        dev = virtio_balloon_device(balloon);
    }
    vguest_new(&guest, &r, mem, dev);
}

static void destroy(void) {
    if (blk)
        virtio_blk_quiet(blk);
    vguest_free(&guest);
    virtio_rng_free(rng);
    virtio_blk_free(blk);
    virtio_console_free(console);
    virtio_balloon_free(balloon);
    virtio_vsock_free(vsock);
    if (blk) {
        block_attach(block, NULL);
        block_pool_free(pool);
        block_close(block);
    }
    rig_free(&r);
}

static void descriptor(struct fuzz_in *in) {
    unsigned q = vguest_queue(&guest, in), n = (unsigned)fuzz_get(in, 1) & 15;
    unsigned how = (unsigned)fuzz_get(in, 1);
    uint64_t at = how & 0x80 ? fuzz_get(in, 8) : VGUEST_DATA + fuzz_get(in, 2);
    uint32_t len = (uint32_t)fuzz_get(in, how & 0x40 ? 4 : 1);

    vguest_desc(&guest, q, n, at, len, how & 7,
                how & 0x20 ? (unsigned)fuzz_get(in, 2) : how >> 3 & 3);
}

static void host_side(struct fuzz_in *in) {
    static const uint8_t text[64] = "what is typed";
    unsigned how = (unsigned)fuzz_get(in, 1);

    if (balloon && how & 1)
        virtio_balloon_set(balloon, (uint32_t)fuzz_get(in, 4));
    else if (balloon)
        virtio_balloon_poll(balloon);
    if (vsock && how & 1)
        virtio_vsock_open(vsock, how >> 4);
    else if (vsock && how & 2)
        virtio_vsock_answer(vsock, how >> 4, how & 4);
    else if (vsock && how & 4)
        virtio_vsock_lost(vsock, how >> 4);
    else if (vsock && how & 8)
        virtio_vsock_readable(vsock, how >> 4);
    else if (vsock)
        virtio_vsock_writable(vsock, how >> 4);
    if (!console)
        return;
    if (how & 1)
        virtio_console_input(console, how >> 4 & 1, text, how >> 2);
    else if (how & 2)
        virtio_console_connected(console, how >> 4 & 1, how & 4);
    else if (how & 4)
        virtio_console_resize(console, how, how);
    else
        virtio_console_writable(console, how >> 4 & 1);
}

static void later(struct fuzz_in *in) {
    rig_pass(&r, (fuzz_get(in, 1) + 1) << 16);
    if (blk)
        block_pool_deliver(pool, r.now);
}

static void one(struct fuzz_in *in) {
    unsigned op = (unsigned)fuzz_get(in, 1);

    switch (op & 15) {
    case 0:
        vguest_set(&guest, (unsigned)fuzz_get(in, 1) & 0xfc, (uint32_t)fuzz_get(in, 4));
        break;
    case 1: {
        unsigned at = (unsigned)fuzz_get(in, 1), size = 1u << (op >> 4 & 3);

        bus_mmio_write(r.bus, gpa(VGUEST_MMIO + 0x100 + at % 0x100), size,
                       fuzz_get(in, size));
        bus_mmio_read(r.bus, gpa(VGUEST_MMIO + at), size);
        break;
    }
    case 2:
        vguest_start(&guest, op & 0x10 ? fuzz_get(in, 8) | VIRTIO_F_VERSION_1 : ~0ull);
        break;
    case 3:
        vguest_set(&guest, 0x50, (uint32_t)fuzz_get(in, 1));
        break;
    case 4 ... 6:
        descriptor(in);
        break;
    case 7 ... 9:
        vguest_offer(&guest, in);
        break;
    case 10 ... 11:
        vguest_put(&guest, VGUEST_DATA + (fuzz_get(in, 2) & 0xfff), 8, fuzz_get(in, 8));
        break;
    case 12:
        vguest_put(&guest, VGUEST_RINGS + fuzz_get(in, 3) % (VGUEST_RINGS * 24), 2,
                   fuzz_get(in, 2));
        break;
    case 13:
        host_side(in);
        break;
    default:
        later(in);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};

    make((unsigned)fuzz_get(&in, 1));
    for (unsigned k = 0; k < OPS && in.left; k++)
        one(&in);
    destroy();
    return 0;
}
