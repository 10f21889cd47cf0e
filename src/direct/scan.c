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
 *   0F AE, 0F C7       with memory, the XSAVE family, where XCR0 differs (66: CLWB)
 *   CD 80              INT 80H: some hosts' filters kill who calls the kernel by it
 *
 * What else is not the guest's business raises a fault on the host, too. A prefix changes
 * nothing of that: what counts is that these bytes follow each other.
 *
 * Left out, because numbers in code look like them far more often (docs/errata.md): SLDT
 * and STR, LAR and LSL with memory, and 0F 01 00, which is SGDT [rax]. Among what a
 * program has written itself (SCAN_OWN) are tables of numbers, and all are left out that
 * are no compiler's business: SGDT, SIDT, SMSW, LAR, LSL, SYSENTER, INT 80H; and CPUID,
 * for there it faults.
 */
#include "direct/scan.h"

#include "decode/decode.h"

static bool memory(unsigned modrm) {
    return modrm < 0xc0;
}

static bool group_01(unsigned modrm, unsigned how) {
    unsigned reg = modrm >> 3 & 7;

    if (how & SCAN_OWN && memory(modrm))
        return false;
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
        return !(how & SCAN_OWN) && (reg == 4 || (memory(modrm) && reg < 2));
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
        return !memory(b) && !(how & SCAN_OWN);
    case 0x34:
    case 0xa2:
        return !(how & SCAN_OWN);
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

#define SWEEP 240u /* bytes in front, in which instructions find their rhythm */
#define SWEEPS 16u /* beginnings that are tried */

/* N prefixes, and what follows is of the XSAVE family without 66 among them only. */
static bool other_by_66(const uint8_t *code, unsigned n) {
    if (code[n] != 0x0f || code[n + 1] != 0xae)
        return false;
    while (n--)
        if (code[n] == 0x66)
            return true;
    return false;
}

/* The code in front of a place, and how long the instructions are that begin there: 0 is
 * not known yet. However it is read, one soon comes upon what was read before. */
struct sweep {
    const uint8_t *code;
    unsigned first, end;
    uint8_t length[SWEEP + SWEEPS];
};

static unsigned length_at(struct sweep *s, unsigned from) {
    uint8_t *len = &s->length[from - s->first];
    struct insn i;

    if (!*len)
        *len = decode_insn(MODE_64, s->code + from,
                           s->end - from < 15 ? s->end - from : 15, &i) == DECODE_OK
                   ? i.len
                   : 1;
    return *len;
}

/* Does an instruction begin at AT, reading on from FROM, that is what it is by itself? */
static bool begins(struct sweep *s, unsigned from, unsigned at) {
    while (from < at) {
        unsigned n = 0;

        while (from + n < at && prefix(s->code[from + n]))
            n++;
        if (from + n == at)
            return !other_by_66(s->code + from, n);
        from += length_at(s, from);
    }
    return from == at;
}

/* The code around AT, read from every beginning: that many have an instruction there, out
 * of *TRIED. */
static unsigned agreeing(const uint8_t *code, unsigned at, unsigned end,
                         unsigned *tried) {
    struct sweep s = {
        .code = code, .first = at > SWEEP + SWEEPS ? at - SWEEP - SWEEPS : 0, .end = end};
    unsigned agree = 0;

    *tried = 0;
    for (unsigned from = s.first; from < s.first + SWEEPS && from <= at; from++) {
        agree += begins(&s, from, at);
        ++*tried;
    }
    return agree;
}

/* What begins at P, which has three bytes. */
static bool dangerous(const uint8_t *p, unsigned how) {
    if (p[0] == 0x0f)
        return second_map(p[1], p[2], how);
    return p[0] == 0xcd && p[1] == 0x80 && !(how & SCAN_OWN);
}

_Static_assert(SCAN_BEFORE == SWEEP + SWEEPS, "what is read in front of a page");

/* The page with what is around it; what nobody knows is harmless. */
struct text {
    uint8_t code[SCAN_BEFORE + 4096 + 16];
    unsigned before, end; /* bytes in front of the page; of all */
    int first, last;      /* where instructions of the page's begin, from, and below */
};

static void lay_out(const struct scan_page *page, struct text *t) {
    t->before = page->before ? SCAN_BEFORE : 0;
    t->end = t->before + 4096 + 16;
    for (unsigned n = 0; n < t->before; n++)
        t->code[n] = page->before[n];
    for (unsigned n = 0; n < 4096; n++)
        t->code[t->before + n] = page->bytes[n];
    for (unsigned n = 0; n < 16; n++)
        t->code[t->before + 4096 + n] = page->behind && n < 2 ? page->behind[n] : 0xf9;
    /* What begins in the two bytes before, and ends here, is looked at here: they may not
     * have known what follows. */
    t->first = t->before ? -2 : 0;
    t->last = page->behind ? 4096 : 4094;
}

static bool dangerous_at(const struct text *t, int n, unsigned how) {
    const uint8_t *p = t->code + (int)t->before + n;

    return (p[0] == 0x0f || p[0] == 0xcd) && dangerous(p, how);
}

bool scan_refuses(const struct scan_page *page, unsigned how) {
    struct text t;
    unsigned tried;

    lay_out(page, &t);
    for (int n = t.first; n < t.last; n++)
        if (dangerous_at(&t, n, how) &&
            agreeing(t.code, (unsigned)(n + (int)t.before), t.end, &tried))
            return true;
    return false;
}

/* XGETBV at N behind what clears ECX: XOR of it with itself, or MOV of 0. Numbers do not
 * look like that. */
static bool asks_xcr0(const struct text *t, int n) {
    const uint8_t *p = t->code + (int)t->before + n;

    if (p[0] != 0x0f || p[1] != 0x01 || p[2] != 0xd0)
        return false;
    for (int k = 2; k <= 8 && n - k >= -(int)t->before; k++) {
        const uint8_t *q = p - k;

        if ((q[0] == 0x31 || q[0] == 0x33) && q[1] == 0xc9)
            return true;
        if (k >= 5 && q[0] == 0xb9 && !q[1] && !q[2] && !q[3] && !q[4])
            return true;
    }
    return false;
}

int scan_places(const struct scan_page *page, unsigned how, uint16_t *place,
                unsigned most) {
    struct text t;
    unsigned count = 0, tried;

    lay_out(page, &t);
    for (int n = t.first; n < t.last; n++) {
        unsigned agree =
            dangerous_at(&t, n, how)
                ? agreeing(t.code, (unsigned)(n + (int)t.before), t.end, &tried)
                : 0;

        if (!agree)
            continue;
        if (agree * 4 < tried * 3 || n < 0 || n + 1 > 4095 || count == most ||
            (how & SCAN_OWN && !asks_xcr0(&t, n)))
            return -1;
        place[count++] = (uint16_t)(n + 1);
    }
    return (int)count;
}
