/* Two outcomes, field by field. docs/errata.md explains what is left out here. */
#include <string.h>

#include "fidelity.h"

#define FLAGS 0x3f7fd7u

static uint64_t flags_mask(const struct fid_guest *g, const struct program *p,
                           const struct outcome *host) {
    bool at_end = host->rip == p->base + p->len - 1 && host->vector == X86_GP;

    if (fid_guest_live_flags(g) && !at_end)
        return FLAGS & ~(uint64_t)X86_FL_STATUS;
    return FLAGS & ~(uint64_t)p->undefined;
}

static const char *compare_exception(const struct outcome *a, const struct outcome *b) {
    /* Linux tells of addresses of its own half that they are present. */
    uint64_t mask = a->vector == X86_PF && a->cr2 >= 0x7ffffffff000 ? ~1ull : ~0ull;

    if (a->end != b->end)
        return b->end == FID_ENDLESS ? "does not end" : "shutdown";
    if (a->vector != b->vector)
        return "exception";
    if (a->rip != b->rip)
        return "rip";
    if ((a->error ^ b->error) & mask)
        return "error code";
    return a->cr2 != b->cr2 ? "cr2" : NULL;
}

static const char *compare_image(const uint8_t *a, const uint8_t *b) {
    if (memcmp(a, b, 2))
        return "x87 control word";
    if (memcmp(a + 2, b + 2, 2))
        return "x87 status word";
    if (a[4] != b[4])
        return "x87 tags";
    for (unsigned k = 0; k < 8; k++)
        if (memcmp(a + 32 + 16 * k, b + 32 + 16 * k, 10))
            return "x87 register";
    if (memcmp(a + 24, b + 24, 4))
        return "mxcsr";
    if (memcmp(a + 160, b + 160, 256))
        return "xmm";
    return memcmp(a + 576, b + 576, 256) ? "ymm" : fid_avx512_compare(a, b);
}

/* Components that XSTATE_BV says are in their initial state. */
static void expand_image(const uint8_t *from, uint8_t *to) {
    memcpy(to, from, FID_IMAGE);
    if (!(from[512] & 1)) {
        memset(to, 0, 24);
        to[0] = 0x7f;
        to[1] = 3;
        memset(to + 32, 0, 128);
    }
    if (!(from[512] & 2))
        memset(to + 160, 0, 256);
    if (!(from[512] & 4))
        memset(to + 576, 0, 256);
    fid_avx512_expand(to);
}

/* Registers by their own numbers instead of from the top, and TOP 0. */
static void rotate_x87(uint8_t *x) {
    uint8_t st[128];
    unsigned top = x[3] >> 3 & 7;

    memcpy(st, x + 32, sizeof(st));
    for (unsigned k = 0; k < 8; k++)
        memcpy(x + 32 + 16 * k, st + 16 * ((k - top) & 7), 16);
    x[3] &= 0xc7;
}

static bool same_registers(unsigned may, const struct outcome *host,
                           const struct outcome *got) {
    for (unsigned r = 0; r < 16; r++) {
        uint64_t differ = host->gpr[r] ^ got->gpr[r];

        if ((may & FID_MAY_REGISTERS) && r < 8)
            continue;
        if ((may & FID_MAY_UPPER) && (r == REG_RCX || r == REG_RSI || r == REG_RDI))
            differ = (uint32_t)differ;
        if (differ)
            return false;
    }
    return true;
}

static const char *compare_vectors(unsigned may, const struct outcome *host,
                                   const struct outcome *got) {
    uint8_t a[FID_IMAGE], b[FID_IMAGE];

    expand_image(host->image, a);
    expand_image(got->image, b);
    if (may & FID_MAY_TOP) {
        rotate_x87(a);
        rotate_x87(b);
    }
    if (may & FID_MAY_MXCSR) {
        a[24] &= 0xc0;
        b[24] &= 0xc0;
    }
    return compare_image(a, b);
}

/* MAY: of enum fid_may. */
static const char *compare(const struct fid_guest *g, const struct program *p,
                           const struct outcome *host, const struct outcome *got,
                           unsigned may) {
    const char *why = compare_exception(host, got);
    bool near = host->cr2 - got->cr2 + 0x3000 < 0x6000;
    uint64_t flags = flags_mask(g, p, host);

    if (host->end == got->end && (may & FID_MAY_GO_ELSEWHERE))
        return NULL;
    if (why &&
        !(host->end == got->end && host->rip == got->rip && (may & FID_MAY_EXCEPTION)) &&
        !(!strcmp(why, "cr2") && near && (may & FID_MAY_CR2)) &&
        !(!strcmp(why, "rip") && (may & FID_MAY_NEXT)))
        return why;
    if (!same_registers(may, host, got))
        return "registers";
    if (may & FID_MAY_FLAGS)
        flags &= ~(uint64_t)X86_FL_STATUS;
    if ((host->rflags ^ got->rflags) & flags)
        return "flags";
    for (unsigned n = 0; n < SEG_COUNT;
         n++) /* the way to a handler clears a null selector */
        if (host->sel[n] != (got->sel[n] & ~3 ? got->sel[n] : 0))
            return "selectors";
    if (host->fs_base != got->fs_base || host->gs_base != got->gs_base)
        return "segment base";
    if (host->memory != got->memory && !(may & FID_MAY_MEMORY))
        return "memory";
    return compare_vectors(may, host, got);
}

const char *fid_compare(const struct fid_guest *g, const struct program *p,
                        const struct outcome *host, const struct outcome *got,
                        unsigned *used) {
    const char *why;
    unsigned set, may = 0;

    *used = 0;
    if (got->beyond)
        return "memory beside the case's pages";
    why = compare(g, p, host, got, 0);
    if (!why)
        return NULL;
    set = fid_errata(p, host, got);
    for (unsigned n = 0; n < FID_ERRATA; n++)
        if (set & 1u << n) {
            if (!compare(g, p, host, got, fid_erratum_excuses(n))) {
                *used = 1u << n;
                return NULL;
            }
            may |= fid_erratum_excuses(n);
        }
    if (!may || compare(g, p, host, got, may))
        return why;
    *used = set;
    return NULL;
}
