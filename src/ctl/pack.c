/* Files of memory that are packed; see pack.h. */
#include "ctl/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/os.h"

#define PIECE (1u << 20)
#define PAGE 4096u
#define LEVEL 1       /* of zstd's: a disk's pace */
#define WINDOW_MAX 27 /* log2: what we are ready to keep for a hostile file */

struct pack {
    uint8_t *in, *out; /* of PIECE bytes each */
    int from, to;
    uint64_t read, written;
};

static bool make(struct pack *p, int from, int to) {
    *p = (struct pack){.in = malloc(PIECE), .out = malloc(PIECE), .from = from, .to = to};
    return p->in && p->out;
}

static void end(struct pack *p) {
    free(p->in);
    free(p->out);
}

/* The next bytes, as many as there are and have room; -errno. */
static ssize_t next(struct pack *p) {
    size_t got = 0;
    ssize_t n = 1;

    while (got < PIECE && n) {
        n = pread(p->from, p->in + got, PIECE - got, (off_t)(p->read + got));
        if (n < 0 && errno != EINTR)
            return -errno;
        got += n > 0 ? (size_t)n : 0;
    }
    p->read += got;
    return (ssize_t)got;
}

/* --- packing --- */

/* All of IN, and with ZSTD_e_end what the frame ends with. */
static int pack_piece(struct pack *p, ZSTD_CCtx *c, ZSTD_inBuffer *in,
                      ZSTD_EndDirective how) {
    size_t left = 1;

    while (left || in->pos < in->size) {
        ZSTD_outBuffer out = {p->out, PIECE, 0};
        int rc;

        left = ZSTD_compressStream2(c, &out, in, how);
        if (ZSTD_isError(left))
            return -EIO;
        rc = os_write_at(p->to, p->out, out.pos, p->written);
        if (rc)
            return rc;
        p->written += out.pos;
        if (how == ZSTD_e_continue)
            left = 0;
    }
    return 0;
}

static int pack_all(struct pack *p, ZSTD_CCtx *c) {
    off_t size = lseek(p->from, 0, SEEK_END);
    int rc = size < 0 ? -errno : 0;

    if (rc)
        return rc;
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, LEVEL);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setPledgedSrcSize(c, (unsigned long long)size);
    while (!rc && p->read < (uint64_t)size) {
        ssize_t n = next(p);
        ZSTD_inBuffer in = {p->in, n > 0 ? (size_t)n : 0, 0};

        if (n <= 0)
            return n ? (int)n : -EIO;
        rc = pack_piece(p, c, &in, ZSTD_e_continue);
    }
    return rc ? rc : pack_piece(p, c, &(ZSTD_inBuffer){0}, ZSTD_e_end);
}

int pack_file(int from, int to) {
    ZSTD_CCtx *c = ZSTD_createCCtx();
    struct pack p;
    int rc = make(&p, from, to) && c ? 0 : -ENOMEM;

    if (!rc)
        rc = pack_all(&p, c);
    ZSTD_freeCCtx(c);
    end(&p);
    return rc;
}

/* --- unpacking --- */

static bool is_zero(const uint8_t *bytes, size_t len) {
    return !*bytes && !memcmp(bytes, bytes + 1, len - 1);
}

/* LEN bytes of OUT, but for pages of zeros, which the file has there already. */
static int put(struct pack *p, size_t len) {
    int rc = 0;

    for (size_t at = 0, n; at < len && !rc; at += n) {
        n = PAGE - (p->written + at) % PAGE;
        n = n < len - at ? n : len - at;
        if (!is_zero(p->out + at, n))
            rc = os_write_at(p->to, p->out + at, n, p->written + at);
    }
    p->written += len;
    return rc;
}

/* *LEFT is 0 where the frame ended. */
static int unpack_piece(struct pack *p, ZSTD_DCtx *d, ZSTD_inBuffer *in, uint64_t most,
                        size_t *left) {
    bool full = true;

    while (*left && (full || in->pos < in->size)) {
        ZSTD_outBuffer out = {p->out, PIECE, 0};
        int rc;

        *left = ZSTD_decompressStream(d, &out, in);
        if (ZSTD_isError(*left) || out.pos > most - p->written)
            return -EINVAL;
        rc = put(p, out.pos);
        if (rc)
            return rc;
        full = out.pos == PIECE;
    }
    return *left || in->pos == in->size ? 0 : -EINVAL; /* no second frame */
}

static int unpack_all(struct pack *p, ZSTD_DCtx *d, uint64_t most,
                      void (*told)(uint64_t done, uint64_t total)) {
    off_t size = lseek(p->from, 0, SEEK_END);
    size_t left = 1;
    int rc = 0;

    ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, WINDOW_MAX);
    while (!rc && left) {
        ssize_t n = next(p);
        ZSTD_inBuffer in = {p->in, n > 0 ? (size_t)n : 0, 0};

        if (n <= 0)
            return n ? (int)n : -EINVAL;
        rc = unpack_piece(p, d, &in, most, &left);
        if (told && size > 0)
            told(p->read, (uint64_t)size);
    }
    if (!rc && pread(p->from, p->in, 1, (off_t)p->read) > 0)
        rc = -EINVAL;
    if (!rc && ftruncate(p->to, (off_t)p->written) < 0)
        rc = -errno;
    return rc;
}

int unpack_file(int from, int to, uint64_t most,
                void (*told)(uint64_t done, uint64_t total)) {
    ZSTD_DCtx *d = ZSTD_createDCtx();
    struct pack p;
    int rc = make(&p, from, to) && d ? 0 : -ENOMEM;

    if (!rc)
        rc = unpack_all(&p, d, most, told);
    ZSTD_freeDCtx(d);
    end(&p);
    return rc;
}
