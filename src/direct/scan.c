/*
 * Which pages of code may run as they are: those in which none of these instructions
 * begins:
 *
 *   0F 01 with memory  /0 SGDT, /1 SIDT; /4 SMSW
 *   0F 01 others       VMCALL, VMMCALL; RDTSCP where TSC_AUX differs, XGETBV where XCR0
 *                      does; RDPKRU, WRPKRU where the host has them
 *   0F 02, 0F 03       LAR, LSL of a register: the host kernel's descriptors, its CPU
 *   0F 34              SYSENTER: comes back elsewhere
 *   0F A2              CPUID
 *   F3 0F C7 F8        RDPID where TSC_AUX differs
 *   0F AE, 0F C7       with memory, the XSAVE family, where XCR0 differs
 *   CD 80              INT 80H: some hosts' filters kill who calls the kernel by it
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

static bool group_01(unsigned modrm, unsigned how) {
    unsigned reg = modrm >> 3 & 7;

    switch (modrm) {
    case 0x00:
        return false;
    case 0xc1:
    case 0xd9:
        return true;
    case 0xf9:
        return how & SCAN_AUX;
    case 0xd0:
        return how & SCAN_XCR0;
    case 0xee:
    case 0xef:
        return how & SCAN_PKRU;
    default:
        return reg == 4 || (memory(modrm) && reg < 2);
    }
}

/* 0F, A, B. */
static bool second_map(unsigned a, unsigned b, unsigned how) {
    unsigned reg = b >> 3 & 7;

    switch (a) {
    case 0x01:
        return group_01(b, how);
    case 0x02:
    case 0x03:
        return !memory(b);
    case 0x34:
    case 0xa2:
        return true;
    case 0xae:
        return (how & SCAN_XCR0) && memory(b) && reg >= 4 && reg <= 6;
    case 0xc7: /* RDSEED too: the prefix may be far in front */
        return (b >= 0xf8 && how & SCAN_AUX) ||
               ((how & SCAN_XCR0) && memory(b) && reg >= 3 && reg <= 5);
    default:
        return false;
    }
}

static bool prefix(uint8_t byte) {
    return byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == 0xf0 ||
           byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x26 ||
           (byte & 0xfe) == 0x64 || (byte & 0xf0) == 0x40;
}

#define SWEEP 64u  /* bytes in front, in which instructions find their rhythm */
#define SWEEPS 16u /* beginnings that are tried */

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
static bool dangerous(const uint8_t *p, unsigned how) {
    if (p[0] == 0x0f)
        return second_map(p[1], p[2], how);
    return p[0] == 0xcd && p[1] == 0x80;
}

_Static_assert(SCAN_BEFORE == SWEEP + SWEEPS, "what is read in front of a page");

bool scan_refuses(const struct scan_page *page, unsigned how) {
    uint8_t code[SCAN_BEFORE + 4096 + 16], *own = code + SCAN_BEFORE;
    unsigned before = page->before ? SCAN_BEFORE : 0;

    for (unsigned n = 0; n < before; n++)
        code[n] = page->before[n];
    for (unsigned n = 0; n < 4096; n++)
        own[n] = page->bytes[n];
    for (unsigned n = 0; n < 16; n++)
        own[4096 + n] = page->behind && n < 2 ? page->behind[n] : 0xf9;
    /* What begins in the two bytes before, and ends here, is looked at here: they may not
     * have known what follows. */
    for (int n = before ? -2 : 0; n < (page->behind ? 4096 : 4094); n++)
        if ((own[n] == 0x0f || own[n] == 0xcd) && dangerous(&own[n], how) &&
            !within(own - before, (unsigned)n + before, before + 4096 + 16))
            return true;
    return false;
}
