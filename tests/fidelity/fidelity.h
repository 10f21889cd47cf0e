/*
 * The engines against the host's own CPU: what the files of this harness share.
 *
 * A case is a program of a few instructions and a state to start from. It runs at CPL 3
 * at the same linear addresses everywhere: in a jailed child process (host.c), and in the
 * guest on the interpreter and on the translator (guest.c). It ends with an exception, if
 * only that of the HLT behind its last instruction, and what it has left is an outcome.
 * Outcomes are compared field by field (compare.c). A program that differs is made
 * smaller as long as it differs (shrink.c) and printed as text that can be put into
 * cases/ (text.c).
 *
 * The pages that a case sees, everywhere the same; all others are absent:
 *   CODE, CODE + 4K            read and execute; the page behind them is absent
 *   DATA + page numbers        0, 1, 3, 6: read and write; 4: read only; 2, 5: absent
 *   the page below 4 GiB       read and write, and the one at 4 GiB
 */
#ifndef FIDELITY_H
#define FIDELITY_H

#include <stddef.h>
#include <stdio.h>

#include "cpu/vcpu.h"
#include "decode/insn.h"
#include "lib/knots.h"
#include "x86/cr.h"
#include "x86/exception.h"

#define FID_CODE 0x10000000ull
#define FID_CODE_SIZE 0x2000u
#define FID_DATA 0x20000000ull
#define FID_TOP 0xfffff000ull /* two pages: below 4 GiB and at it */

#define FID_PAGES 7u /* of memory that a case may read; see fid_pages[] */

struct fid_page {
    uint64_t at;
    bool write;
};
extern const struct fid_page fid_pages[FID_PAGES];

#define FID_CODE_MAX 480u
#define FID_INSNS 24u
#define FID_STATES 16u
#define FID_IMAGE VCPU_XSAVE_SIZE /* the XSAVE image, as far as AVX-512 */

struct state {
    uint64_t gpr[16];
    uint64_t rflags;
    uint64_t fs_base, gs_base;
    _Alignas(64) uint8_t image[FID_IMAGE];
};

enum fid_class {
    FID_COMPARE, /* runs everywhere */
    FID_HIDDEN,  /* the model does not offer it: #UD, whatever the host has */
    FID_UNLIKE,  /* what it does is the machine's own: not run */
};

struct program {
    enum cpu_mode mode;
    uint64_t base;
    unsigned len;               /* the final HLT included */
    unsigned n;                 /* instructions without it */
    uint16_t at[FID_INSNS * 3]; /* where each begins */
    uint8_t code[FID_CODE_MAX];
    bool hidden; /* its only instruction is FID_HIDDEN */
    bool x87;    /* has an x87 instruction */
    unsigned
        undefined; /* status flags that the manual leaves undefined somewhere in it */
    uint32_t form; /* the systematic form that it is made for, from 1; 0: none */
    bool is_knot;
    struct knots knot; /* then */
    uint64_t memory;   /* seed of the pages' contents */
    unsigned nstates;
    struct state state[FID_STATES];
};

enum fid_end {
    FID_EXCEPTION,
    FID_SYSCALL, /* left for the operating system */
    FID_ENDLESS,
    FID_SHUTDOWN,
};

struct outcome {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    uint64_t error, cr2;
    uint64_t fs_base, gs_base;
    uint64_t memory; /* a hash of the pages that have changed */
    uint16_t sel[SEG_COUNT];
    uint8_t end; /* enum fid_end */
    uint8_t vector;
    bool beyond; /* a guest's: memory beside its pages has changed */
    _Alignas(64) uint8_t image[FID_IMAGE];
};

/* --- avx512.c: what AVX-512 adds --- */
struct form;
extern uint32_t fid_components, fid_image_len;
int fid_avx512_init(void);
/* The guest's CPU has the instruction. */
bool fid_offered(enum cpu_mode mode, const uint8_t *bytes, unsigned len);
/* Changes what an EVEX prefix says besides the form. NO_VVVV: of two operands. */
void fid_evex_vary(enum cpu_mode mode, uint8_t *evex, bool no_vvvv);
/* Is F, invalid with its prefix before OPCODE, executed all the same by AMD's CPUs? */
bool fid_amd_ignores(const struct form *f, const uint8_t *opcode);
/* The components of an image: random, zero, taken over, initial values written out;
 * what differs, or NULL. */
void fid_avx512_random(uint8_t *x, void (*fill)(uint8_t *p, unsigned len));
void fid_avx512_zero(uint8_t *x);
void fid_avx512_take(const uint8_t *from, uint8_t *to);
void fid_avx512_expand(uint8_t *x);
const char *fid_avx512_compare(const uint8_t *a, const uint8_t *b);

/* --- forms.c: the encodings that there are --- */
struct form {
    uint8_t mode;
    uint8_t p66, rep, w;
    uint8_t map; /* 0: one byte, 1: 0f, 2: 0f38, 3: 0f3a */
    uint8_t vex; /* 0: legacy, 1: VEX, 2: EVEX, 3: XOP */
    uint8_t vl, vpp, v15;
    uint8_t opcode, reg;
    uint8_t mem, rm; /* rm: where the register form depends on it (x87) */
    uint8_t cls;     /* enum fid_class */
    uint16_t kind;   /* a number for the mnemonic */
};
int fid_forms_scan(void);
unsigned fid_forms_count(void);
/* What is left out of MODE: forms that are the machine's own (FID_UNLIKE). */
unsigned fid_forms_left_out(enum cpu_mode mode);
const char *fid_form_name(const struct form *f);
const struct form *fid_form(unsigned n);
/* A random form of a random mnemonic of MODE. */
const struct form *fid_form_pick(enum cpu_mode mode);
enum fid_class fid_class_of(enum cpu_mode mode, const uint8_t *bytes, unsigned len,
                            unsigned *kind);
/* Prefixes and opcode, without ModRM; RXB: extension bits of reg, index, rm. */
unsigned fid_form_put(const struct form *f, uint8_t *b, unsigned rxb, unsigned vvvv);

/* --- random.c --- */
void fid_seed(uint64_t seed);
uint64_t fid_rnd(void);
static inline unsigned fid_pick(unsigned n) {
    return (unsigned)(fid_rnd() % n);
}
static inline bool fid_one_in(unsigned n) {
    return fid_pick(n) == 0;
}

/* --- generate.c, values.c --- */
void fid_generate(struct program *p, uint64_t seed);
/* The N-th of the systematic programs: each form by itself; N may be any number. */
void fid_generate_form(struct program *p, uint64_t seed, uint64_t n);
uint64_t fid_value(void);
void fid_random_state(const struct program *p, struct state *s);
void fid_image_clean(uint8_t *image);              /* a plain start */
void fid_fill_memory(uint64_t seed, uint8_t *mem); /* FID_PAGES pages */
uint64_t fid_hash(const uint8_t *mem, size_t len, uint64_t h);
/* Page K, now PAGE, was WAS: false, or true with what it is now in *H. */
bool fid_page_changed(unsigned k, const uint8_t *page, const uint8_t *was, uint64_t *h);
/* Looks at the program's bytes again: n, at, undefined, x87, hidden. False: it has an
 * instruction that cannot be compared. */
bool fid_program_scan(struct program *p);

/* --- host.c --- */
#define FID_BATCH 48u
struct batch {
    unsigned n;
    struct program program[FID_BATCH];
    struct outcome outcome[FID_BATCH][FID_STATES];
    uint8_t initial[FID_BATCH][FID_PAGES * 4096]; /* by fid_host_submit() */
    /* What the last case of the batch has left, when asked for. */
    bool keep_memory;
    uint8_t memory[FID_PAGES * 4096];
};
struct host;
int fid_host_start(struct host **out);
/* Descriptors have been read: this process may run on any CPU again. */
void fid_host_unpin(struct host *h);
void fid_host_stop(struct host *h);
/* A guest's outcome is a page fault where the child has something of its own, which no
 * case has: what it read or wrote there is not comparable. */
bool fid_strayed(const struct host *h, const struct outcome *got);
struct batch *fid_host_batch(struct host *h, unsigned k); /* of two */
/* Waits for what a process that is no more has submitted. */
int fid_host_drain(struct host *h);
void fid_host_submit(struct host *h, unsigned k);
int fid_host_wait(struct host *h, unsigned k); /* -EIO: the child has died */

/* --- guest.c --- */
struct fid_guest;
/* OPTIONS for the translator; NULL: the interpreter. */
int fid_guest_new(const char *options, struct fid_guest **out);
void fid_guest_free(struct fid_guest *g);
const char *fid_guest_name(const struct fid_guest *g);
bool fid_guest_live_flags(
    const struct fid_guest *g); /* it drops flags that nothing reads */
bool fid_guest_is_bt(const struct fid_guest *g);
bool fid_guest_offers(const struct fid_guest *g, const struct insn *i);
void fid_guest_program(struct fid_guest *g, const struct program *p);
void fid_guest_run(struct fid_guest *g, const struct program *p, const struct state *s,
                   const uint8_t *mem, struct outcome *o);
/* RAM is as it was wherever a case has nothing. */
bool fid_guest_untouched(struct fid_guest *g);
uint8_t *fid_guest_page(struct fid_guest *g, unsigned k);

/* --- compare.c --- */
/* NULL, or what differs: a static string. *USED: a bit for each erratum without which the
 * outcomes would differ. */
const char *fid_compare(const struct fid_guest *g, const struct program *p,
                        const struct outcome *host, const struct outcome *got,
                        unsigned *used);

/* --- errata.c: differences that docs/errata.md explains --- */
#define FID_ERRATA 25u
enum fid_may {
    FID_MAY_GO_ELSEWHERE = 1, /* one faults, the other goes on: nothing is comparable */
    FID_MAY_EXCEPTION = 2,    /* the same instruction faults, with another exception */
    FID_MAY_CR2 = 4,          /* the same exception, a little away */
    FID_MAY_MEMORY = 8,
    FID_MAY_REGISTERS = 16, /* the lower eight */
    FID_MAY_UPPER = 32,     /* upper halves of rcx, rsi, rdi */
    FID_MAY_FLAGS = 64,     /* status flags */
    FID_MAY_MXCSR = 128,    /* its flags */
    FID_MAY_TOP = 256,      /* TOP is 0 */
    FID_MAY_NEXT = 512,     /* RIP is behind the instruction */
};
/* A bit for each that is about the instructions that the outcomes end with. */
unsigned fid_errata(const struct program *p, const struct outcome *host,
                    const struct outcome *got);
unsigned fid_erratum_excuses(unsigned n);
const char *fid_erratum_name(unsigned n);

/* --- bench.c: programs on guests that nothing has spoilt --- */
#define FID_GUESTS 12u

/* What a guest has done that the host has not. */
struct difference {
    const char *why; /* NULL: nothing */
    unsigned guest, state;
    bool got_outcome; /* false: it has killed its process */
    struct outcome got;
    uint8_t memory[FID_PAGES * 4096];
};

struct bench {
    struct host *host;
    const char *const *options; /* one for each guest, the interpreter (NULL) first */
    unsigned nguests;
    struct difference *d; /* shared memory */
};
int fid_bench_start(struct bench *b);
/* Runs P (its first NSTATES states) everywhere, or only on guest number ONLY if that is
 * not negative, each time in a process of its own. NULL or the first that differs, until
 * the next call. */
const struct difference *fid_bench_run(struct bench *b, struct program *p, int only);
/* Says what ends this process, and which program it was at (NULL: none), when a signal
 * does: translated code has gone where it must not. Before the engines' own handlers. */
void fid_take_fatal_signals(void);
void fid_running(const struct program *p);

/* --- shrink.c, text.c --- */
void fid_shrink(struct bench *b, struct program *p);
void fid_text_write(FILE *f, const struct program *p);
/* 1: a case; 0: the end; -EINVAL: not a case, at *LINE. */
int fid_text_read(FILE *f, struct program *p, char *name, unsigned *line);
/* HOST and GOT: what has differed when it was found, in state STATE; NULL: a case from a
 * file, not made smaller. False: the host's own outcome is another one now. */
bool fid_report(FILE *f, struct bench *b, struct program *p, const struct outcome *host,
                const struct outcome *got, unsigned state);

#endif
