/*
 * Several vCPUs on one memory: locked instructions of every kind, width and alignment,
 * the order of plain loads and stores, accesses in one piece, accessed and dirty bits
 * that others change, pages that are remapped, code that another CPU writes. On
 * interpreters, and on translators that share a cache.
 */
#include <stdio.h>

#include "base/os.h"
#include "lib/long.h"
#include "lib/many.h"
#include "lib/signals.h"
#include "lib/unit.h"

static struct many M;
static const char *engine;

#define PUT(name, at)                                                                    \
    many_write(&M, at, name##_begin, (size_t)(name##_end - name##_begin))
#define CPUS 3

enum {
    FORM = 0x20000, /* a page with code of the guest's; data lie in it, too */
    WORDS = MANY_DATA,
    FLAGS = 0x180000,
    ROUNDS = 3000,
};

/* --- locked instructions --- */

/* Calls the form at rbp rsi times, with rbx the address; waits for the others before. */
BLOB(hammer, "lock incl 0x180000; 1: pause; cmp %r8d, 0x180000; jb 1b;"
             "2: call *%rbp; dec %rsi; jnz 2b; hlt");

BLOB(f_inc8, "lock incb (%rbx); ret");
BLOB(f_inc16, "lock incw (%rbx); ret");
BLOB(f_inc32, "lock incl (%rbx); ret");
BLOB(f_inc64, "lock incq (%rbx); ret");
BLOB(f_dec32, "lock decl (%rbx); ret");
BLOB(f_add8, "lock addb $1, (%rbx); ret");
BLOB(f_add16, "mov $1, %eax; lock addw %ax, (%rbx); ret");
BLOB(f_add32, "lock addl $1, (%rbx); ret");
BLOB(f_add64, "mov $1, %eax; lock addq %rax, (%rbx); ret");
BLOB(f_sub64, "lock subq $-1, (%rbx); ret");
BLOB(f_adc32, "stc; lock adcl $0, (%rbx); ret");
BLOB(f_sbb64, "stc; lock sbbq $-2, (%rbx); ret");
BLOB(f_xadd8, "mov $1, %al; lock xaddb %al, (%rbx); ret");
BLOB(f_xadd16, "mov $1, %ax; lock xaddw %ax, (%rbx); ret");
BLOB(f_xadd32, "mov $1, %eax; lock xaddl %eax, (%rbx); ret");
BLOB(f_xadd64, "mov $1, %eax; lock xaddq %rax, (%rbx); ret");
BLOB(f_cmpxchg8, "mov (%rbx), %al; 1: lea 1(%rax), %edx; lock cmpxchgb %dl, (%rbx);"
                 "jnz 1b; ret");
BLOB(f_cmpxchg16, "mov (%rbx), %ax; 1: lea 1(%rax), %edx; lock cmpxchgw %dx, (%rbx);"
                  "jnz 1b; ret");
BLOB(f_cmpxchg32, "mov (%rbx), %eax; 1: lea 1(%rax), %edx; lock cmpxchgl %edx, (%rbx);"
                  "jnz 1b; ret");
BLOB(f_cmpxchg64, "mov (%rbx), %rax; 1: lea 1(%rax), %rdx; lock cmpxchgq %rdx, (%rbx);"
                  "jnz 1b; ret");
BLOB(f_cmpxchg8b, "mov %rbx, %r9; mov (%r9), %eax; mov 4(%r9), %edx;"
                  "1: lea 1(%rax), %ebx; mov %edx, %ecx; lock cmpxchg8b (%r9); jnz 1b;"
                  "mov %r9, %rbx; ret");
BLOB(f_cmpxchg16b, "mov %rbx, %r9; mov (%r9), %rax; mov 8(%r9), %rdx;"
                   "1: lea 1(%rax), %rbx; mov %rdx, %rcx; lock cmpxchg16b (%r9); jnz 1b;"
                   "mov %r9, %rbx; ret");
/* A lock word beside the counter, taken by XCHG or BTS; the rest is plain. */
BLOB(f_xchg,
     "1: mov $1, %eax; xchg %eax, 0x180100; test %eax, %eax; jz 2f; pause; jmp 1b;"
     "2: incq (%rbx); movl $0, 0x180100; ret");
BLOB(f_bts, "1: lock btsl $5, 0x180100; jnc 2f; pause; jmp 1b;"
            "2: incq (%rbx); lock btrl $5, 0x180100; ret");
BLOB(f_btc, "1: mov $37, %ecx; lock btsq %rcx, 0x180100; jnc 2f; pause; jmp 1b;"
            "2: incq (%rbx); mov $37, %ecx; lock btcq %rcx, 0x180100; ret");
/* Each CPU turns a bit of its own over, by every logical form; the lower ones count. */
BLOB(f_logic,
     "mov $0x100, %eax; mov %edi, %ecx; shl %cl, %eax; mov %eax, %edx; not %edx;"
     "lock orl %eax, (%rbx); lock xorl %eax, (%rbx); lock xorl %eax, (%rbx);"
     "test %eax, (%rbx); jz 1f; lock andl %edx, (%rbx); test %eax, (%rbx); jnz 1f;"
     "lock notl 8(%rbx); lock notl 8(%rbx); lock negl 8(%rbx); lock negl 8(%rbx);"
     "lock incb (%rbx); ret; 1: hlt");

static const struct form {
    const char *name;
    const uint8_t *begin, *end;
    unsigned size; /* of the counter */
    int step;
    bool aligned; /* only so */
} forms[] = {
#define FORM_OF(n, ...)                                                                  \
    { #n, n##_begin, n##_end, __VA_ARGS__ }
    FORM_OF(f_inc8, 1, 1, false),      FORM_OF(f_inc16, 2, 1, false),
    FORM_OF(f_inc32, 4, 1, false),     FORM_OF(f_inc64, 8, 1, false),
    FORM_OF(f_dec32, 4, -1, false),    FORM_OF(f_add8, 1, 1, false),
    FORM_OF(f_add16, 2, 1, false),     FORM_OF(f_add32, 4, 1, false),
    FORM_OF(f_add64, 8, 1, false),     FORM_OF(f_sub64, 8, 1, false),
    FORM_OF(f_adc32, 4, 1, false),     FORM_OF(f_sbb64, 8, 1, false),
    FORM_OF(f_xadd8, 1, 1, false),     FORM_OF(f_xadd16, 2, 1, false),
    FORM_OF(f_xadd32, 4, 1, false),    FORM_OF(f_xadd64, 8, 1, false),
    FORM_OF(f_cmpxchg8, 1, 1, false),  FORM_OF(f_cmpxchg16, 2, 1, false),
    FORM_OF(f_cmpxchg32, 4, 1, false), FORM_OF(f_cmpxchg64, 8, 1, false),
    FORM_OF(f_cmpxchg8b, 8, 1, false), FORM_OF(f_cmpxchg16b, 8, 1, true),
    FORM_OF(f_xchg, 8, 1, false),      FORM_OF(f_bts, 8, 1, false),
    FORM_OF(f_btc, 8, 1, false),       FORM_OF(f_logic, 1, 1, false),
};

static void hammer_at(const struct form *f, uint64_t at, unsigned rounds) {
    uint64_t mask = f->size == 8 ? ~0ull : (1ull << 8 * f->size) - 1, want, got;

    many_start(&M);
    PUT(hammer, MANY_CODE);
    many_write(&M, FORM, f->begin, (size_t)(f->end - f->begin));
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->gpr[REG_RBX] = at;
        M.vcpu[n]->gpr[REG_RBP] = FORM;
        M.vcpu[n]->gpr[REG_RSI] = rounds;
        M.vcpu[n]->gpr[REG_R8] = CPUS;
    }
    many_run(&M);
    for (unsigned n = 0; n < CPUS; n++)
        if (M.vcpu[n]->gpr[REG_RSI])
            fail_msg("%s, %s at %#llx: CPU %u stopped early", engine, f->name,
                     (unsigned long long)at, n);
    want = (uint64_t)(f->step * (int64_t)(CPUS * rounds)) & mask;
    got = many_get(&M, at, f->size);
    if (got != want)
        fail_msg("%s, %s at %#llx: %#llx, not %#llx", engine, f->name,
                 (unsigned long long)at, (unsigned long long)got,
                 (unsigned long long)want);
}

/* What crosses a line stops the others, where the host would slow it down. */
static unsigned rounds_at(uint64_t at, unsigned size) {
    if ((at & 63) + size > 64)
        return ROUNDS / 50;
    return at >= FORM + 2048 && at < FORM + 4096 ? ROUNDS / 10 : ROUNDS;
}

/* Aligned, amid a line, across lines, across pages; and beside code that is executed. */
static void test_locked(void **state) {
    static const uint64_t places[] = {WORDS,        WORDS + 17,  WORDS + 61,
                                      WORDS + 4093, FORM + 2048, FORM + 2048 + 61};

    for (size_t k = 0; k < ARRAY_SIZE(forms); k++)
        for (size_t n = 0; n < ARRAY_SIZE(places); n++)
            if (!forms[k].aligned || !(places[n] & 15))
                hammer_at(&forms[k], places[n], rounds_at(places[n], forms[k].size));
}

/* A locked access across lines stops the others, by whichever form, in new code and in a
 * hot path, with its address in a range that was checked for others; and one that is
 * aligned does not. */
BLOB(f_range, "mov (%rbx), %eax; lock incl 4(%rbx); mov 8(%rbx), %edx;"
              "lock incl 8(%rbx); mov 12(%rbx), %ecx; ret");

/* Of the first CPU, which executes it 100 times while the others halt. */
static unsigned long callouts_of(const struct form *f, uint64_t at) {
    struct vcpu *v = M.vcpu[0];
    unsigned long before = M.cnt[0].bt_callouts;

    many_start(&M);
    PUT(hammer, MANY_CODE);
    many_write(&M, FORM, f->begin, (size_t)(f->end - f->begin));
    many_write(&M, FORM + 2048, "\xf4", 1);
    for (unsigned n = 1; n < CPUS; n++)
        M.vcpu[n]->rip = FORM + 2048;
    v->gpr[REG_RBX] = at;
    v->gpr[REG_RBP] = FORM;
    v->gpr[REG_RSI] = 100;
    v->gpr[REG_R8] = 1;
    many_run(&M);
    assert_int_equal(v->gpr[REG_RSI], 0);
    return M.cnt[0].bt_callouts - before;
}

static void test_splits_stop(void **state) {
    static const struct form range = {"f_range", f_range_begin, f_range_end, 0, 0, false};

    for (size_t k = 0; k < ARRAY_SIZE(forms); k++) {
        if (forms[k].size < 4 || forms[k].aligned || forms[k].begin == f_xchg_begin ||
            forms[k].begin == f_bts_begin || forms[k].begin == f_btc_begin)
            continue;
        assert_true(callouts_of(&forms[k], WORDS) < 10);
        assert_true(callouts_of(&forms[k], WORDS + 61) >= 100);
    }
    assert_true(callouts_of(&range, WORDS) < 10);
    assert_true(callouts_of(&range, WORDS + 58) >= 100);
}

/* --- the order of loads and stores --- */

/* Cells of 8 bytes, a round each: r8 and r9 are two rows of them, r10 what was read. */
#define ROUND(what)                                                                      \
    "1: " what "; add $8, %r8; add $8, %r9; add $8, %r10; dec %rsi; jnz 1b; hlt"
#define MEET "lock incl 0x180000; 9: cmp %r11d, 0x180000; jb 9b;"
BLOB(o_sb_fence, MEET ROUND("movl $1, (%r8); mfence; mov (%r9), %eax; mov %eax, (%r10)"));
BLOB(o_sb_lock, MEET ROUND("movl $1, (%r8); lock orl $0, (%rsp); mov (%r9), %eax;"
                           "mov %eax, (%r10)"));
BLOB(o_sb_xchg, MEET ROUND("mov $1, %eax; xchg %eax, (%r8); mov (%r9), %eax;"
                           "mov %eax, (%r10)"));
BLOB(o_lb, MEET ROUND("mov (%r9), %eax; movl $1, (%r8); mov %eax, (%r10)"));
BLOB(o_mp_write, MEET ROUND("movl $1, (%r8); movl $1, (%r9)"));
BLOB(o_mp_read, MEET ROUND("mov (%r9), %eax; mov (%r8), %edx; mov %eax, (%r10);"
                           "mov %edx, 4(%r10)"));
BLOB(o_write, MEET ROUND("movl $1, (%r8)"));

enum {
    CELLS = 20000,
    ROW = 0x200000,
    X = 0x400000,
    Y = X + ROW,
    R0 = Y + ROW,
    R1 = R0 + ROW
};

static void row(unsigned n, uint64_t code, uint64_t r8, uint64_t r9, uint64_t r10,
                unsigned cpus) {
    struct vcpu *v = M.vcpu[n];

    v->rip = code;
    v->gpr[REG_R8] = r8;
    v->gpr[REG_R9] = r9;
    v->gpr[REG_R10] = r10;
    v->gpr[REG_R11] = cpus;
    v->gpr[REG_RSI] = CELLS;
}

static void idle(unsigned n) {
    many_write(&M, MANY_CODE + 0xf000, "\xf4", 1);
    M.vcpu[n]->rip = MANY_CODE + 0xf000;
}

/* How many rounds read A in one CPU and B in the other. */
static unsigned count(uint32_t a, uint32_t b) {
    unsigned sum = 0;

    for (uint64_t n = 0; n < CELLS; n++)
        sum += many_get(&M, R0 + 8 * n, 4) == a && many_get(&M, R1 + 8 * n, 4) == b;
    return sum;
}

static void pair(const uint8_t *begin, const uint8_t *end) {
    many_start(&M);
    many_write(&M, MANY_CODE, begin, (size_t)(end - begin));
    row(0, MANY_CODE, X, Y, R0, 2);
    row(1, MANY_CODE, Y, X, R1, 2);
    idle(2);
    many_run(&M);
}

static void test_order(void **state) {
    pair(o_sb_fence_begin, o_sb_fence_end);
    assert_int_equal(count(0, 0), 0);
    pair(o_sb_lock_begin, o_sb_lock_end);
    assert_int_equal(count(0, 0), 0);
    pair(o_sb_xchg_begin, o_sb_xchg_end);
    assert_int_equal(count(0, 0), 0);
    pair(o_lb_begin, o_lb_end);
    assert_int_equal(count(1, 1), 0);

    many_start(&M);
    PUT(o_mp_write, MANY_CODE);
    PUT(o_mp_read, MANY_CODE + 0x1000);
    row(0, MANY_CODE, X, Y, R0, 3);
    row(1, MANY_CODE + 0x1000, X, Y, R0, 3);
    row(2, MANY_CODE + 0x1000, X, Y, R1, 3);
    many_run(&M);
    for (uint64_t n = 0; n < CELLS; n++) {
        assert_true(many_get(&M, R0 + 8 * n, 8) != 1);
        assert_true(many_get(&M, R1 + 8 * n, 8) != 1);
    }
}

/* --- accesses in one piece --- */

/* rbx: zeros, ones, zeros... ; the others look for anything else. */
BLOB(t_write, MEET "1: mov $0, %eax; 2: not %rax; mov %rax, (%rbx); dec %rsi; jnz 2b;"
                   "mov %rax, 8(%rbx); movl $1, 0x180200; hlt");
BLOB(t_push, MEET "lea 8(%rbx), %rsp; xor %eax, %eax;"
                  "2: not %rax; push %rax; lea 8(%rbx), %rsp; dec %rsi; jnz 2b;"
                  "movl $1, 0x180200; hlt");
BLOB(t_movs, MEET "movq $0, 0x180300; movq $-1, 0x180308;"
                  "2: mov $0x180300, %esi; mov %rbx, %rdi; movsq; mov %rbx, %rdi; movsq;"
                  "mov $0x180300, %esi; mov %rbx, %rdi; mov $1, %ecx; rep movsq;"
                  "dec %r12; jnz 2b; movl $1, 0x180200; hlt");
BLOB(t_read, MEET "1: mov (%rbx), %rax; inc %rax; cmp $1, %rax; ja 3f;"
                  "cmpl $0, 0x180200; je 1b; xor %esi, %esi; hlt; 3: mov $-1, %rsi; hlt");

/* 16 bytes, aligned; the halves are compared. */
BLOB(t_vector, MEET "pxor %xmm0, %xmm0; pcmpeqd %xmm1, %xmm1;"
                    "2: pxor %xmm1, %xmm0; movaps %xmm0, (%rbx); dec %rsi; jnz 2b;"
                    "movl $1, 0x180200; hlt");
BLOB(t_vector_read,
     MEET "1: movaps (%rbx), %xmm0; movq %xmm0, %rax; psrldq $8, %xmm0;"
          "movq %xmm0, %rdx; cmp %rax, %rdx; jne 3f; inc %rax; cmp $1, %rax;"
          "ja 3f; cmpl $0, 0x180200; je 1b; xor %esi, %esi; hlt;"
          "3: mov $-1, %rsi; hlt");
static const uint8_t *reader, *reader_end;

static void tear(const uint8_t *begin, const uint8_t *end, uint64_t at) {
    many_start(&M);
    many_write(&M, FORM, begin, (size_t)(end - begin));
    many_write(&M, MANY_CODE, reader, (size_t)(reader_end - reader));
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->rip = n ? MANY_CODE : FORM;
        M.vcpu[n]->gpr[REG_RBX] = at;
        M.vcpu[n]->gpr[REG_R11] = CPUS;
        M.vcpu[n]->gpr[REG_RSI] = M.vcpu[n]->gpr[REG_R12] = 5000;
    }
    many_run(&M);
    for (unsigned n = 1; n < CPUS; n++)
        if (M.vcpu[n]->gpr[REG_RSI])
            fail_msg("%s: torn at %#llx", engine, (unsigned long long)at);
}

/* On plain pages, and on one with code, where stores go the long way. */
static void test_tearing(void **state) {
    reader = t_vector_read_begin;
    reader_end = t_vector_read_end;
    tear(t_vector_begin, t_vector_end, WORDS);
    tear(t_vector_begin, t_vector_end, FORM + 2048);
    reader = t_read_begin;
    reader_end = t_read_end;
    tear(t_write_begin, t_write_end, WORDS);
    tear(t_write_begin, t_write_end, FORM + 2048);
    tear(t_push_begin, t_push_end, WORDS);
    tear(t_push_begin, t_push_end, FORM + 2048);
    tear(t_movs_begin, t_movs_end, WORDS);
    tear(t_movs_begin, t_movs_end, FORM + 2048);
}

/* Each CPU has a word of its own on a page with code that all execute: none is lost. */
BLOB(own, MEET "lea (%rbx,%rdi,8), %rbx; 1: call *%rbp; dec %rsi; jnz 1b; hlt");
BLOB(own_add, "incq (%rbx); ret");

static void test_own_words_beside_code(void **state) {
    many_start(&M);
    PUT(own, MANY_CODE);
    PUT(own_add, FORM);
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->gpr[REG_RBX] = FORM + 2048;
        M.vcpu[n]->gpr[REG_RBP] = FORM;
        M.vcpu[n]->gpr[REG_R11] = CPUS;
        M.vcpu[n]->gpr[REG_RSI] = ROUNDS;
    }
    many_run(&M);
    for (unsigned n = 0; n < CPUS; n++)
        assert_int_equal(many_get(&M, FORM + 2048 + 8 * n, 8), ROUNDS);
}

/* --- page tables --- */

/* r9 is the entry of the page at rbx. One adds to the bits that are software's, one takes
 * A and D away, one makes them come back. */
BLOB(a_add, MEET "mov $1, %eax; shl $52, %rax; 1: lock addq %rax, (%r9);  dec %rsi;"
                 "jnz 1b; movl $1, 0x180200; hlt");
BLOB(a_clear, MEET "1: lock andq $~0x60, (%r9); invlpg (%rbx); cmpl $0, (%rbx);"
                   "cmpl $0, 0x180200; je 1b; hlt");
BLOB(a_use, MEET "1: invlpg (%rbx); incl (%rbx); cmpl $0, 0x180200; je 1b; hlt");

static void test_accessed_and_dirty(void **state) {
    enum { N = 100 * 1024 + 77 }; /* long enough to be at work at once */
    uint64_t pte = MANY_PT + 8 * (WORDS >> 12), got;

    many_start(&M);
    PUT(a_add, MANY_CODE);
    PUT(a_clear, MANY_CODE + 0x1000);
    PUT(a_use, MANY_CODE + 0x2000);
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->rip = MANY_CODE + 0x1000 * n;
        M.vcpu[n]->gpr[REG_RBX] = WORDS;
        M.vcpu[n]->gpr[REG_R9] = pte;
        M.vcpu[n]->gpr[REG_R11] = CPUS;
        M.vcpu[n]->gpr[REG_RSI] = N;
    }
    many_run(&M);
    got = many_get(&M, pte, 8);
    assert_int_equal(got >> 52, N % 4096);
    assert_int_equal(got & 0xffffff000 & ~0x60ull, WORDS);
}

/* CPU 0 maps the page at rbx to one place and the other in turn, tells the others, waits
 * until each has done INVLPG, and spoils the place that was. */
BLOB(s_map,
     MEET "mov $0x400003, %r8d; mov $0x401003, %r12d;"
          "1: movq $7, 0x400000; movq $7, 0x401000; mov %r12, (%r9); invlpg (%rbx);"
          "movl $0, 0x180210; lock incl 0x180208; 2: pause; cmpl $2, 0x180210; jb 2b;"
          "mov %r8, %rax; and $~0xfff, %rax; movq $-1, (%rax);"
          "xchg %r8, %r12; dec %rsi; jnz 1b; movl $1, 0x180200; hlt");
BLOB(s_read, MEET "xor %r13d, %r13d; 1: cmpq $7, (%rbx); jne 3f; mov 0x180208, %eax;"
                  "cmp %eax, %r13d; je 2f; mov %eax, %r13d; invlpg (%rbx);"
                  "lock incl 0x180210; 2: cmpl $0, 0x180200; je 1b; xor %esi, %esi; hlt;"
                  "3: movl $2, 0x180210; movl $1, 0x180200; mov $-1, %rsi; hlt");

static void test_shootdown(void **state) {
    many_start(&M);
    PUT(s_map, MANY_CODE);
    PUT(s_read, MANY_CODE + 0x1000);
    many_put(&M, 0x400000, 7, 8);
    many_put(&M, 0x401000, 7, 8);
    many_put(&M, MANY_PT + 8 * (WORDS >> 12), 0x400003, 8);
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->rip = n ? MANY_CODE + 0x1000 : MANY_CODE;
        M.vcpu[n]->gpr[REG_RBX] = WORDS;
        M.vcpu[n]->gpr[REG_R9] = MANY_PT + 8 * (WORDS >> 12);
        M.vcpu[n]->gpr[REG_R11] = CPUS;
        M.vcpu[n]->gpr[REG_RSI] = 400;
    }
    many_run(&M);
    for (unsigned n = 0; n < CPUS; n++)
        assert_int_equal(M.vcpu[n]->gpr[REG_RSI], 0);
}

/* --- code that another CPU writes --- */

/* The number that a function returns grows; who sees it told, sees it, behind a
 * serializing instruction; and nobody sees it shrink. */
BLOB(c_write,
     MEET "mov $1, %eax; 1: mov %eax, (%rbx); mov %eax, 0x180208; pause; inc %eax;"
          "dec %rsi; jnz 1b; movl $1, 0x180200; hlt");
BLOB(c_call, MEET "xor %r12d, %r12d;"
                  "1: mov 0x180208, %r13d; xor %eax, %eax; push %rbx; cpuid; pop %rbx;"
                  "call *%rbp; cmp %r13d, %eax; jb 3f; cmp %r12d, %eax; jb 3f;"
                  "mov %eax, %r12d; cmpl $0, 0x180200; je 1b; xor %esi, %esi; hlt;"
                  "3: mov $-1, %rsi; hlt");
BLOB(c_form, ".byte 0xb8; .long 0; ret");

static void rewrite(uint64_t form) {
    many_start(&M);
    PUT(c_write, MANY_CODE);
    PUT(c_call, MANY_CODE + 0x1000);
    PUT(c_form, form);
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->rip = n ? MANY_CODE + 0x1000 : MANY_CODE;
        M.vcpu[n]->gpr[REG_RBX] = form + 1;
        M.vcpu[n]->gpr[REG_RBP] = form;
        M.vcpu[n]->gpr[REG_R11] = CPUS;
        M.vcpu[n]->gpr[REG_RSI] = 1500;
    }
    many_run(&M);
    for (unsigned n = 0; n < CPUS; n++)
        if (M.vcpu[n]->gpr[REG_RSI])
            fail_msg("%s: CPU %u saw old code (%#llx after %#llx)", engine, n,
                     (unsigned long long)M.vcpu[n]->gpr[REG_RAX],
                     (unsigned long long)M.vcpu[n]->gpr[REG_R12]);
}

/* As kernels patch: a breakpoint over the first byte, the rest, the first byte. The
 * handler returns 1 or 2, whichever; the function 1 or 2. */
BLOB(p_write,
     MEET "1: movb $0xcc, (%rbp); mfence; mov $1, %eax; test $1, %sil; jz 2f; inc %eax;"
          "2: mov %eax, 1(%rbp); mfence; movb $0xb8, (%rbp); pause; dec %rsi; jnz 1b;"
          "movl $1, 0x180200; hlt");
BLOB(p_call, MEET "1: xor %eax, %eax; call *%rbp; dec %eax; cmp $1, %eax; ja 3f;"
                  "cmpl $0, 0x180200; je 1b; xor %esi, %esi; hlt; 3: mov $-1, %rsi; hlt");
/* From INT3: the frame is on the stack, the return address of the call under it. */
BLOB(p_handler, "mov $1, %eax; addq $5-1, (%rsp); iretq");

static void test_patching(void **state) {
    rewrite(FORM + 3);              /* the number is aligned */
    rewrite(FORM + 0x100 + 63 - 4); /* at the end of a line */

    many_start(&M);
    PUT(p_write, MANY_CODE);
    PUT(p_call, MANY_CODE + 0x1000);
    PUT(c_form, FORM);
    many_put(&M, FORM + 1, 1, 4);
    PUT(p_handler, MANY_HANDLER);
    for (unsigned n = 0; n < CPUS; n++) {
        M.vcpu[n]->rip = n ? MANY_CODE + 0x1000 : MANY_CODE;
        M.vcpu[n]->gpr[REG_RBP] = FORM;
        M.vcpu[n]->gpr[REG_R11] = CPUS;
        M.vcpu[n]->gpr[REG_RSI] = 700;
    }
    many_run(&M);
    for (unsigned n = 0; n < CPUS; n++)
        assert_int_equal(M.vcpu[n]->gpr[REG_RSI], 0);
}

/* --- what a device writes --- */

BLOB(d_call,
     "xor %r12d, %r12d;"
     "1: mov 0x180208, %r13d; xor %eax, %eax; push %rbx; cpuid; pop %rbx;"
     "call *%rbp; cmp %r13d, %eax; jb 3f; cmp %r12d, %eax; jb 3f;"
     "mov %eax, %r12d; incq (%rbx); cmpl $0, 0x180200; je 1b; xor %esi, %esi; hlt;"
     "3: mov $-1, %rsi; hlt");

/* New code, into the page that is executed and beside it; then word of it. */
static void device_writes(struct many *m) {
    for (uint32_t n = 1; n < 600; n++) {
        many_put(m, FORM + 1, n, 4);
        many_put(m, FORM + 1024, n, 4);
        many_put(m, 0x180208, n, 4);
    }
    many_put(m, 0x180200, 1, 4);
}

static void test_device(void **state) {
    many_start(&M);
    PUT(d_call, MANY_CODE);
    PUT(c_form, FORM);
    for (unsigned n = 0; n < M.cpus; n++) {
        M.vcpu[n]->gpr[REG_RBX] = FORM + 2048 + 8 * n;
        M.vcpu[n]->gpr[REG_RBP] = FORM;
        M.vcpu[n]->gpr[REG_RSI] = 1;
    }
    many_run_with(&M, device_writes);
    for (unsigned n = 0; n < M.cpus; n++)
        assert_int_equal(M.vcpu[n]->gpr[REG_RSI], 0);
}

/* --- the engines --- */

static void make(unsigned cpus, const char *options, bool splits) {
    static bool known;
    struct bt_options opt = bt_defaults();
    char why[128];

    engine = options ? options : "interp";
    if (options)
        assert_int_equal(bt_options_parse(&opt, options, why, sizeof(why)), 0);
    many_new(&M, cpus, options ? &opt : NULL, splits);
    if (!known)
        signals_remember();
    known = true;
}

/* Split locks are the host's own, unless it slows them down: up to a second each. */
static int setup_interp(void **state) {
    make(CPUS, NULL, os_split_locks());
    return 0;
}

static int setup_no_splits(void **state) {
    make(CPUS, NULL, false);
    return 0;
}

static int setup_bt(void **state) {
    make(CPUS, "hot=8", os_split_locks());
    return 0;
}

static int setup_bt_no_splits(void **state) {
    make(CPUS, "hot=8", false);
    return 0;
}

static int setup_one_interp(void **state) {
    make(1, NULL, true);
    return 0;
}

static int setup_one_bt(void **state) {
    make(1, "hot=8", true);
    return 0;
}

static int teardown(void **state) {
    many_free(&M);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_tearing),
        cmocka_unit_test(test_own_words_beside_code),
        cmocka_unit_test(test_accessed_and_dirty),
        cmocka_unit_test(test_shootdown),
        cmocka_unit_test(test_patching),
        cmocka_unit_test(test_device),
    };
    const struct CMUnitTest splits[] = {
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_splits_stop),
    };
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(test_device),
    };
    int failed = cmocka_run_group_tests(tests, setup_interp, teardown);

    failed += cmocka_run_group_tests(tests, setup_no_splits, teardown);
    failed += cmocka_run_group_tests(tests, setup_bt, teardown);
    failed += cmocka_run_group_tests(splits, setup_bt_no_splits, teardown);
    failed += cmocka_run_group_tests(alone, setup_one_interp, teardown);
    failed += cmocka_run_group_tests(alone, setup_one_bt, teardown);
    return failed;
}
