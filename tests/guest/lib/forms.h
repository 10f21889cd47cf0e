/*
 * A rig that runs one instruction form (forms.def) between three windows of memory, each
 * two pages wide with nothing on either side: A (where rBX and rSI point), B (rDI) and
 * the stack's (rSP and rBP). The pointers are set `k` bytes below the page boundary in
 * the middle of each window, so that k decides what crosses. The form runs in a loop,
 * with every register loaded anew each time round; what it leaves behind (registers,
 * flags, vector and x87 state, the windows' bytes) is a snapshot, and snapshots are
 * compared.
 *
 * A window's page can be taken away, made read-only or the supervisor's: struct rig_page.
 *
 * No two pages of windows and code are neighbours in RAM: between them lie bytes that no
 * form may reach, and rig_same() sees that none has. For the guest itself each window is
 * in one piece, at RIG_SEEN.
 */
#ifndef FORMS_H
#define FORMS_H

#include "guest.h"

enum form_flags {
    UNDEF = 1 << 0,   /* leaves status flags undefined */
    MULTI = 1 << 1,   /* several instructions: a fault may come at any of them */
    REP = 1 << 2,     /* makes progress before it faults */
    PARTIAL = 1 << 3, /* may have written in part when it faults */
    READS = 1 << 4,   /* reads and writes one page by separate accesses */
    ALIGN16 = 1 << 5, /* k must be a multiple of 16 (64) */
    ALIGN64 = 1 << 6,
    KERNEL = 1 << 7, /* ring 0 alone */
    FLAT = 1 << 8,   /* needs segments of base 0 */
    AVX = 1 << 9,
    X87 = 1 << 10,
    ENV = 1 << 11, /* stores what is not kept exactly: x87 pointers */
    INTEL = 1 << 12,
    NO_SP = 1 << 13, /* leaves a stack pointer that no trap can push at */
    POPS = 1 << 14,  /* reads what is on the stack */
    AVX512 = 1 << 15,
};

/* What the window holds at the pointer, by the byte of the flags above bit 16. */
#define PREP(n) ((n) << 16)
#define FORM_PREP(flags) ((flags) >> 16)
enum form_prep {
    A_AX = PREP(1),  /* the value of eax */
    A_END = PREP(2), /* the address of the form's end, where a near branch goes */
    A_FAR = PREP(3),
    A_LFS = PREP(4),
    A_SEL = PREP(5),
    A_GDTR = PREP(6),
    A_IDTR = PREP(7),
    A_MSW = PREP(8),
    A_FCW = PREP(9),
    A_ENV = PREP(10),
    A_FX = PREP(11),
    A_XS = PREP(12),
    A_MXCSR = PREP(13),
    A_BOUND = PREP(14),
    A_CALLF = PREP(15), /* in the code itself */
    S_END = PREP(16),
    S_SEL = PREP(17),
    S_FLAGS = PREP(18),
    S_FAR = PREP(19),
    S_FAR32 = PREP(20),
    S_IRET = PREP(21),
    S_IRET32 = PREP(22),
};

struct form {
    const char *what;
    void *code;
    unsigned flags;
};

#define RIG_PAGES 6   /* A low, A high, B low, B high, stack low, stack high */
#define RIG_SPAN 1024 /* the bytes on either side of a boundary that are compared */
#define RIG_A 0x40000000ul
#define RIG_B 0x40010000ul
#define RIG_S 0x40020000ul
#define RIG_CODE 0x50000000ul /* two pages */
#define RIG_SEEN 0x48000000ul
#define RIG_BESIDE 128 /* the bytes beside each page that are looked at */

#define RIG_VEC 2688 /* an XSAVE area as far as AVX-512, on any CPU */

struct snapshot {
    struct regs r;
    uint8_t vec[RIG_VEC] __attribute__((aligned(64)));
    uint8_t mem[3][2 * RIG_SPAN];
};

struct rig {
    struct space s;
    uint8_t *window[3], *code;               /* at RIG_SEEN */
    uint8_t *page[RIG_PAGES], *code_page[2]; /* by their identity map */
    bool avx, avx512;
    /* The mode of the runs. */
    bool user, code32;
    unsigned data_sel; /* for DS, ES and SS */
    ulong base;        /* of that segment */
    ulong span;        /* what is compared: RIG_SPAN or less */
    /* The form built last. */
    const struct form *f;
    int k;
    ulong loop, at, end; /* where the loop and the form lie */
};

extern struct rig rig;
extern uint32_t rig_count; /* how often the loop goes round */

/* The forms of the guest's own mode, or of 32-bit code in a 64-bit guest. */
const struct form *forms_get(bool code32, unsigned *n);

void rig_init(enum space_kind kind);
/* Runs are to be of that ring and kind of code; base: of the data segments, 32-bit code
 * at ring 3 alone. */
void rig_mode(bool user, bool code32, ulong base);
/* Whether this form can be tried with k in this mode. */
bool rig_takes(const struct form *f, int k);
/* The same with events of ring 0 in between, on the stack of the form. */
bool rig_takes_events(const struct form *f, int k);
/* Tries every form with two k in every mode; VECTOR's handler has a stack of its own
 * where it would be in the way. */
typedef void form_test(const struct form *f, int k, const char *mode);
void rig_each(unsigned vector, form_test *test);
/* Puts loop and form into the code page, the form's first byte at `form_at` or, when that
 * is 0, right behind the loop's loads. */
void rig_build(const struct form *f, int k, ulong form_at);
/* Fills the windows as they are before a run; they must be writable. */
void rig_fill(void);
/* Runs the loop `count` times; the vector that ended it. */
unsigned rig_run(unsigned count);
/* The state that a run left. */
void rig_save(struct snapshot *);
/* Compares what a run left with a snapshot; says what differs. */
bool rig_same(const char *what, const struct snapshot *want);
/* What lies beside the windows' pages is as it was. */
bool rig_alone(void);
/* The bytes of the windows are as rig_fill() leaves them. */
bool rig_untouched(void);
/* The general registers of a frame are what the loop loads before the form. */
bool rig_regs_loaded(const struct frame *f);
ulong rig_page_va(unsigned page);
void rig_page_set(unsigned page, uint64_t flags);
uint64_t rig_page_get(unsigned page);
/* The usual rights of a window's page. */
uint64_t rig_page_rights(void);

/* Everything that was seen, in one number: the engines must agree on it. */
void digest_snapshot(const struct snapshot *);

#endif
