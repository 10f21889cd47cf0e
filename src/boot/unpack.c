/* Unpacking with the libraries of the formats; see unpack.h. */
#include "boot/unpack.h"

#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* What has been unpacked: it grows by half, up to the limit. */
struct sink {
    uint8_t *data;
    uint64_t size, room, limit;
};

/* Makes room for one byte at least. */
static bool grow(struct sink *s) {
    uint64_t room = s->room + s->room / 2 + (1u << 20);
    uint8_t *data;

    if (s->size < s->room)
        return true;
    if (room > s->limit)
        room = s->limit;
    data = room > s->room ? realloc(s->data, room) : NULL;
    if (!data)
        return false;
    s->data = data;
    s->room = room;
    return true;
}

/* What libraries count with 32 bits. */
static unsigned at_most_1g(uint64_t n) {
    return n < 1u << 30 ? (unsigned)n : 1u << 30;
}

static bool gunzip(const uint8_t *in, uint64_t len, struct sink *out) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in};
    int rc = inflateInit2(&z, 16 + MAX_WBITS);

    if (rc != Z_OK)
        return false;
    while (rc == Z_OK && grow(out)) {
        unsigned room = at_most_1g(out->room - out->size);
        uint64_t used = (uint64_t)(z.next_in - in);

        z.avail_in = at_most_1g(len - used);
        z.next_out = out->data + out->size;
        z.avail_out = room;
        rc = inflate(&z, Z_NO_FLUSH);
        out->size += room - z.avail_out;
    }
    inflateEnd(&z);
    return rc == Z_STREAM_END;
}

/* xz and lzma. */
static bool unxz(const uint8_t *in, uint64_t len, struct sink *out) {
    const uint64_t memory = 256u << 20; /* the dictionary's most; 64 MiB is xz -9's */
    lzma_stream z = LZMA_STREAM_INIT;
    lzma_ret rc = in[0] == 0x5d ? lzma_alone_decoder(&z, memory)
                                : lzma_stream_decoder(&z, memory, 0);

    z.next_in = in;
    z.avail_in = len;
    while (rc == LZMA_OK && grow(out)) {
        z.next_out = out->data + out->size;
        z.avail_out = out->room - out->size;
        rc = lzma_code(&z, LZMA_RUN);
        out->size = out->room - z.avail_out;
    }
    lzma_end(&z);
    return rc == LZMA_STREAM_END;
}

static bool unzstd(const uint8_t *in, uint64_t len, struct sink *out) {
    ZSTD_DCtx *d = ZSTD_createDCtx();
    ZSTD_inBuffer from = {in, len, 0};
    size_t rc = 1;

    if (!d)
        return false;
    /* Kernels are packed with -22 --ultra, whose window is 128 MiB. */
    ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, 27);
    while (rc && !ZSTD_isError(rc) && grow(out)) {
        ZSTD_outBuffer to = {out->data, out->room, out->size};
        size_t had = from.pos;

        rc = ZSTD_decompressStream(d, &to, &from);
        if (to.pos == out->size && from.pos == had)
            break; /* it is cut off */
        out->size = to.pos;
    }
    ZSTD_freeDCtx(d);
    return !rc;
}

/* "LZ4 Frame Format Description", "Legacy frame": blocks of 8 MiB, each with its packed
 * size; it ends with the data, or where no size follows. */
static bool unlz4(const uint8_t *in, uint64_t len, struct sink *out) {
    enum { BLOCK = 8 << 20 };
    uint64_t at = 4;
    int got = BLOCK;

    while (got == BLOCK && len - at > 4) {
        uint32_t size;
        uint64_t want = out->size + BLOCK;

        memcpy(&size, in + at, 4);
        at += 4;
        if (!size || size > len - at || size > (uint32_t)LZ4_COMPRESSBOUND(BLOCK))
            break; /* the length of all, which a kernel's build adds */
        while (out->room < want && out->room < out->limit) {
            uint64_t had = out->size;
            bool ok;

            out->size = out->room;
            ok = grow(out);
            out->size = had;
            if (!ok)
                return false;
        }
        if (want > out->room)
            want = out->room;
        got = LZ4_decompress_safe((const char *)in + at, (char *)out->data + out->size,
                                  (int)size, (int)(want - out->size));
        if (got < 0)
            return false;
        out->size += (unsigned)got;
        at += size;
    }
    return out->size;
}

uint8_t *boot_unpack(const uint8_t *data, uint64_t len, uint64_t limit, uint64_t *size) {
    static const struct {
        uint8_t len;
        const char *magic;
        bool (*unpack)(const uint8_t *in, uint64_t len, struct sink *out);
    } known[] = {
        {2, "\x1f\x8b", gunzip},
        {6, "\3757zXZ", unxz},
        {3, "\x5d\0", unxz},
        {4, "\x28\xb5\x2f\xfd", unzstd},
        {4, "\x02\x21\x4c\x18", unlz4},
    };
    struct sink out = {.limit = limit};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (len < known[i].len || memcmp(data, known[i].magic, known[i].len))
            continue;
        if (!known[i].unpack(data, len, &out))
            break;
        *size = out.size;
        return out.data;
    }
    free(out.data);
    return NULL;
}
