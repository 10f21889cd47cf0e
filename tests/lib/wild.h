/*
 * Random programs of memory accesses with registers, displacements and segment bases
 * where arithmetic goes wrong: about 0, 2^31, 2^32, 2^47, -2^47 and 2^64, about the ends
 * of RAM, and the very addresses of the VMM's own data. All addressing forms, stack,
 * string and bit-string operations, gathers, FXSAVE and XSAVE areas, bursts off one
 * register; or knots (lib/knots.h).
 *
 * There is one program at a time; all of it follows from the stream of lib/rnd.h.
 */
#ifndef LIB_WILD_H
#define LIB_WILD_H

#include "cpu/vcpu.h"
#include "lib/knots.h"

enum {
    RAM = 4 << 20,
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    TABLES = 0x4000, /* page tables, up to CODE */
    HANDLERS = 0xe000,
    STACK = 0xd800, /* top of the handlers' */
    CODE = 0x10000,
    DATA = 0x20000,
    EDGES = 16, /* pages that the edges of the linear space map */
};

enum wild_kind { FLAT32, BASED32, PAGED32, COMPAT, LONG, KINDS };

struct wild_program {
    enum wild_kind kind;
    bool wide;
    uint8_t b[512];
    unsigned len;
    struct knots knots; /* without code: it is none */
    bool environment;   /* FNSAVE is in it */
};

extern struct wild_program wild;
/* The guest's RAM in the VMM and its vCPU: addresses that no guest should reach. */
extern const void *wild_ram, *wild_vcpu;

/* A program of wild.kind; a knot. */
void wild_make(void);
void wild_make_knot(void);
/* A number about which address arithmetic goes wrong. */
uint64_t wild_number(void);

#endif
