/*
 * Which pages of code may run as they are: those in which no byte, taken as the beginning
 * of an instruction, gives one of these:
 *
 *   0F 01 with memory  /0 SGDT, /1 SIDT; /4 SMSW
 *   0F 01 others       VMCALL, XGETBV, XTEST, VMMCALL, RDPKRU, WRPKRU, RDTSCP, MONITORX,
 *                      MWAITX, CLZERO
 *   0F 02, 0F 03       LAR, LSL of a register: the host kernel's descriptors, its CPU's
 * number 0F 34              SYSENTER: comes back elsewhere 0F A2              CPUID CD 80
 * INT 80H: some hosts' filters kill who calls the kernel by it F3 0F C7 F8..      RDPID
 *   0F AE /4../6, 0F C7 /3../5 with memory: the XSAVE family, where XCR0 differs
 *
 * What else is not the guest's business raises a fault on the host, too. A prefix changes
 * nothing of that: what counts is that these bytes follow each other.
 *
 * Left out, because numbers in code look like them far more often (docs/errata.md): SLDT
 * and STR, LAR and LSL with memory, and 0F 01 00, which is SGDT [rax].
 */
#include "direct/scan.h"

#include "decode/decode.h"

static bool memory(unsigned modrm) {
    return modrm < 0xc0;
}

static bool group_01(unsigned modrm) {
    unsigned reg = modrm >> 3 & 7;

    switch (modrm) {
    case 0x00:
        return false;
    case 0xc1:
    case 0xd0:
    case 0xd6:
    case 0xd9:
    case 0xee:
    case 0xef:
    case 0xf9:
    case 0xfa:
    case 0xfb:
    case 0xfc:
        return true;
    default:
        return reg == 4 || (memory(modrm) && reg < 2);
    }
}

enum danger { HARMLESS, LIKELY_NUMBER, REFUSED };

/* 0F, A, B. */
static enum danger danger(unsigned a, unsigned b, bool xsave) {
    unsigned reg = b >> 3 & 7;
    bool bad;

    switch (a) {
    case 0x01:
        return group_01(b) ? LIKELY_NUMBER : HARMLESS;
    case 0x02:
    case 0x03:
        return memory(b) ? HARMLESS : LIKELY_NUMBER;
    case 0x34:
    case 0xa2:
        return REFUSED;
    case 0xae:
        bad = xsave && memory(b) && reg >= 4 && reg <= 6;
        return bad ? REFUSED : HARMLESS;
    case 0xc7: /* RDSEED too: the prefix may be far in front */
        bad = b >= 0xf8 || (xsave && memory(b) && reg >= 3 && reg <= 5);
        return bad ? REFUSED : HARMLESS;
    default:
        return HARMLESS;
    }
}

static bool prefix(uint8_t byte) {
    return byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == 0xf0 ||
           byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x26 ||
           (byte & 0xfe) == 0x64 || (byte & 0xf0) == 0x40;
}

#define SWEEP 64u /* bytes in front, in which instructions find their rhythm */
#define SWEEPS                                                                           \
    16u /* beginnings that are tried: as many as an instruction can be long              \
         */

/* Does an instruction begin at AT, reading on from FROM? */
static bool begins(const uint8_t *code, unsigned from, unsigned at, unsigned end) {
    while (from < at) {
        struct insn i;
        unsigned len = 1, n = 0;

        if (decode_insn(MODE_64, code + from, end - from < 15 ? end - from : 15, &i) ==
            DECODE_OK)
            len = i.len;
        while (from + n < at && prefix(code[from + n]))
            n++;
        if (from + n == at)
            return true;
        from += len;
    }
    return from == at;
}

/* The code around AT, read from every beginning: none has an instruction there. */
static bool within(const uint8_t *code, unsigned at, unsigned end) {
    unsigned first = at > SWEEP + SWEEPS ? at - SWEEP - SWEEPS : 0;

    for (unsigned from = first; from < first + SWEEPS && from <= at; from++)
        if (begins(code, from, at, end))
            return false;
    return true;
}

/* What begins at P, which has three bytes. */
static enum danger danger_at(const uint8_t *p, bool xsave) {
    if (p[0] == 0x0f)
        return danger(p[1], p[2], xsave);
    return p[0] == 0xcd && p[1] == 0x80 ? LIKELY_NUMBER : HARMLESS;
}

/* The page's last bytes, where nobody knows what follows: may it be one of these? */
static enum danger danger_of_tail(const uint8_t *p, unsigned left, bool xsave) {
    enum danger worst = HARMLESS;
    uint8_t b[3] = {p[0], left > 1 ? p[1] : 0, 0};

    if (p[0] != 0x0f && (p[0] != 0xcd || left > 1))
        return danger_at(b, xsave);
    if (left == 1)
        return LIKELY_NUMBER;
    for (unsigned modrm = 0; modrm < 256 && worst != REFUSED; modrm++) {
        enum danger d;

        b[2] = (uint8_t)modrm;
        d = danger_at(b, xsave);
        worst = d > worst ? d : worst;
    }
    return worst == REFUSED && p[1] != 0x34 && p[1] != 0xa2 ? LIKELY_NUMBER : worst;
}

bool scan_refuses(const uint8_t *page, const uint8_t *next, bool xsave) {
    uint8_t code[4096 + 16];

    for (unsigned n = 0; n < 4096; n++)
        code[n] = page[n];
    for (unsigned n = 0; n < 16; n++)
        code[4096 + n] = next && n < 2 ? next[n] : 0xf9;
    for (unsigned n = 0; n < 4096; n++) {
        enum danger d;

        if (code[n] != 0x0f && code[n] != 0xcd)
            continue;
        d = n > 4093 && !next ? danger_of_tail(&code[n], 4096 - n, xsave)
                              : danger_at(&code[n], xsave);
        if (d == REFUSED || (d == LIKELY_NUMBER && !within(code, n, sizeof(code))))
            return true;
    }
    return false;
}
