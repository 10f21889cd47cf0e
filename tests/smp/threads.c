/*
 * Threads of one program on all CPUs, and what the architecture promises them: locked
 * instructions at every alignment, the order of loads and stores, pages that move, code
 * that another thread writes. A Linux program that checks itself, for tests/smp/run.
 *
 *     threads ROUNDS
 *
 * What a thread does exists twice, in a page of its own and in one with a CPUID, which is
 * translated where the other one is run as it is (docs/direct.md). So a word is changed
 * by the host's CPU for a cell, by translated code, by the interpreter where pages meet,
 * and by the guest's kernel, all at once. Prints a line for each check that fails, and
 * how many there were.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE 4096u

/* What is done, DIRECT and TRANSLATED. */
#define WAY __attribute__((section("text_of_ways"), aligned(4096), noinline)) static void
#define TWICE(name)                                                                      \
    WAY name##_direct(unsigned self) {                                                   \
        name(self);                                                                      \
    }                                                                                    \
    WAY name##_translated(unsigned self) {                                               \
        __asm__ volatile("jmp 1f\n cpuid\n 1:");                                         \
        name(self);                                                                      \
    }                                                                                    \
    static const struct job name##_job = {name##_direct, name##_translated};
#define INLINE static inline __attribute__((always_inline)) void

struct job {
    void (*direct)(unsigned self), (*translated)(unsigned self);
};

static unsigned checks, bad, threads, rounds;

static void check(const char *what, const char *ways, bool good) {
    checks++;
    if (good)
        return;
    bad++;
    printf("not ok %s (%s)\n", what, ways);
    fflush(stdout);
}

/* --- threads --- */

/* Which of them are translated. */
static const struct ways {
    const char *name;
    uint32_t translated;
} ways[] = {{"all direct", 0},
            {"every second one translated", 0xaaaa},
            {"the first one translated", 1}};

static const struct job *job;
static const struct ways *now;
static unsigned taking_part;
static pthread_barrier_t barrier;
static struct {
    volatile uint64_t wrong;
} __attribute__((aligned(64))) result[THREADS_MAX];

static void *thread(void *arg) {
    unsigned self = (unsigned)(uintptr_t)arg;
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(self, &set);
    sched_setaffinity(0, sizeof(set), &set);
    pthread_barrier_wait(&barrier);
    if (now->translated >> self & 1)
        job->translated(self);
    else
        job->direct(self);
    return NULL;
}

/* J by COUNT threads, each on a CPU of its own; what they found wrong. */
static uint64_t together(const struct job *j, unsigned count) {
    pthread_t id[THREADS_MAX];
    uint64_t sum = 0;

    job = j;
    taking_part = count;
    memset(result, 0, sizeof(result));
    pthread_barrier_init(&barrier, NULL, count);
    for (unsigned n = 0; n < count; n++)
        if (pthread_create(&id[n], NULL, thread, (void *)(uintptr_t)n)) {
            perror("threads");
            exit(2);
        }
    for (unsigned n = 0; n < count; n++) {
        pthread_join(id[n], NULL);
        sum += result[n].wrong;
    }
    pthread_barrier_destroy(&barrier);
    return sum;
}

INLINE relax(void) {
    __asm__ volatile("pause" ::: "memory");
}

/* --- locked instructions --- */

enum form {
    INC,
    ADDW,
    INCB,
    XADDQ,
    ADC,
    CMPXCHG,
    BTS,
    XCHG,
    CMPXCHG16B,
    MIXED,   /* and the kernel's, in futex(2) */
    OVERLAP, /* words of different sizes, one within the other */
    FORMS
};
static const struct {
    const char *name;
    unsigned size, align;
} forms[] = {{"inc", 4, 1},
             {"addw", 2, 1},
             {"incb", 1, 1},
             {"xaddq", 8, 1},
             {"adc", 4, 1},
             {"cmpxchg", 8, 1},
             {"bts", 4, 1},
             {"xchg", 4, 1},
             {"cmpxchg16b", 16, 16},
             {"futex(2) among others", 4, 4},
             {"a byte of a word", 4, 1}};

static uint8_t words[3 * PAGE] __attribute__((aligned(4096)));
static uint8_t *place;
static volatile uint32_t holder;
static enum form form;

#define AT(type) (*(volatile type *)(void *)place)
#define LOCKED(text, type) __asm__ volatile(text : "+m"(AT(type)) : : "memory", "cc")

INLINE add_by_exchange(void) {
    uint64_t old = AT(uint64_t), was;

    do {
        was = old;
        __asm__ volatile("lock cmpxchgq %2, %0"
                         : "+m"(AT(uint64_t)), "+a"(old)
                         : "r"(was + 1)
                         : "memory", "cc");
    } while (old != was);
}

INLINE add_by_16(void) {
    uint64_t lo = 0, hi = 0, lo_was, hi_was;

    do {
        lo_was = lo;
        hi_was = hi;
        __asm__ volatile("lock cmpxchg16b %0"
                         : "+m"(AT(unsigned __int128)), "+a"(lo), "+d"(hi)
                         : "b"(lo_was + 1), "c"(~(lo_was + 1))
                         : "memory", "cc");
    } while (lo != lo_was || hi != hi_was);
}

INLINE add_by_holding(bool bit) {
    for (;;) {
        uint32_t one = 1;
        bool held;

        if (bit)
            __asm__ volatile("lock btsl $0, %0"
                             : "+m"(holder), "=@ccc"(held)
                             :
                             : "memory");
        else
            __asm__ volatile("xchgl %0, %1" : "+r"(one), "+m"(holder) : : "memory");
        if (!(bit ? held : one))
            break;
        relax();
    }
    AT(uint32_t)++;
    __atomic_store_n(&holder, 0, __ATOMIC_RELEASE);
}

INLINE add_by_all(unsigned self, unsigned n) {
    uint32_t one = 1;

    if (self % 3 == 0 && n % 16 == 0)
        syscall(SYS_futex, place, FUTEX_WAKE_OP_PRIVATE, 0, 0, place,
                FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0));
    else if (self % 2)
        __asm__ volatile("lock xaddl %1, %0" : "+m"(AT(uint32_t)), "+r"(one) : : "cc");
    else
        LOCKED("lock subl $-1, %0", uint32_t);
}

INLINE add_one(unsigned self, unsigned n) {
    uint64_t one = 1;

    switch (form) {
    case INC:
        LOCKED("lock incl %0", uint32_t);
        break;
    case ADDW:
        LOCKED("lock addw $1, %0", uint16_t);
        break;
    case INCB:
        LOCKED("lock incb %0", uint8_t);
        break;
    case XADDQ:
        __asm__ volatile("lock xaddq %1, %0" : "+m"(AT(uint64_t)), "+r"(one) : : "cc");
        break;
    case ADC:
        LOCKED("stc\n lock adcl $0, %0", uint32_t);
        break;
    case CMPXCHG:
        add_by_exchange();
        break;
    case BTS:
    case XCHG:
        add_by_holding(form == BTS);
        break;
    case CMPXCHG16B:
        add_by_16();
        break;
    case MIXED:
        add_by_all(self, n);
        break;
    default:
        if (self % 2)
            __asm__ volatile("lock incb %0" : "+m"(*(place + 3)) : : "memory", "cc");
        else
            LOCKED("lock incl %0", uint32_t);
    }
}

INLINE add(unsigned self) {
    for (unsigned n = 0; n < rounds; n++)
        add_one(self, n);
}
TWICE(add)

/* Of the first LEN bytes, what must be there. */
static uint64_t expected(void) {
    uint64_t all = (uint64_t)threads * rounds, half = (uint64_t)(threads / 2) * rounds;

    return form == OVERLAP ? all - half + (half << 24) : all;
}

static bool added(void) {
    uint64_t got[2] = {0}, want = expected();
    unsigned size = forms[form].size < 8 ? forms[form].size : 8;

    memcpy(got, place, forms[form].size);
    if (form == CMPXCHG16B && got[1] != ~got[0])
        return false;
    return !memcmp(got, &want, size);
}

/* In a line, across two lines, across two pages. */
static void test_locked(void) {
    static const unsigned offsets[] = {0,          1,        30,       61,      63,
                                       2 * 64 - 2, PAGE - 1, PAGE - 2, PAGE - 4};
    char what[80];

    for (form = 0; form < FORMS; form++)
        for (unsigned n = 0; n < COUNT(offsets); n++) {
            unsigned offset = PAGE + offsets[n];

            if (offset % forms[form].align)
                continue;
            memset(words, 0, sizeof(words));
            place = words + offset;
            together(&add_job, threads);
            snprintf(what, sizeof(what), "lock %s at %u", forms[form].name, offset);
            check(what, now->name, added());
        }
}

/* --- order --- */

/* Two words for each round, and what two threads read of them. */
#define CELLS 4096u
#define STRETCH 256u /* rounds until they wait for each other */
static volatile uint32_t x[CELLS], y[CELLS], seen[2][2][CELLS];
static volatile uint32_t gathered;
static enum theme { SB_MFENCE, SB_LOCK, SB_XCHG, LB, MP, CORR, THEMES } theme;
static const char *const themes[] = {"store buffering, MFENCE", "store buffering, LOCK",
                                     "store buffering, XCHG",   "load buffering",
                                     "message passing",         "coherence"};

INLINE gather(unsigned n) {
    uint32_t want = (n / STRETCH + 1) * 2;

    __atomic_add_fetch(&gathered, 1, __ATOMIC_SEQ_CST);
    for (unsigned k = 0; gathered < want; k++)
        if (k > 300)
            relax();
}

INLINE one_round(unsigned self, unsigned n) {
    volatile uint32_t *a = self ? y : x, *b = self ? x : y, one = 1;

    switch (theme) {
    case SB_MFENCE:
        a[n] = 1;
        __asm__ volatile("mfence" ::: "memory");
        seen[self][0][n] = b[n];
        break;
    case SB_LOCK:
        a[n] = 1;
        __asm__ volatile("lock addl $0, %0" : "+m"(one) : : "memory", "cc");
        seen[self][0][n] = b[n];
        break;
    case SB_XCHG:
        __asm__ volatile("xchgl %0, %1" : "+r"(one), "+m"(a[n]) : : "memory");
        seen[self][0][n] = b[n];
        break;
    case LB:
        seen[self][0][n] = a[n];
        b[n] = 1;
        break;
    case MP:
        if (!self) {
            x[n] = 1;
            y[n] = 1;
        } else {
            seen[1][0][n] = y[n];
            seen[1][1][n] = x[n];
        }
        break;
    default:
        if (!self) {
            x[n] = 1;
        } else {
            seen[1][0][n] = x[n];
            seen[1][1][n] = x[n];
        }
    }
}

INLINE order(unsigned self) {
    for (unsigned n = 0; n < CELLS; n++) {
        if (n % STRETCH == 0)
            gather(n);
        one_round(self, n);
    }
}
TWICE(order)

static bool forbidden(unsigned n) {
    if (theme <= SB_XCHG)
        return !seen[0][0][n] && !seen[1][0][n];
    if (theme == LB)
        return seen[0][0][n] && seen[1][0][n];
    return seen[1][0][n] && !seen[1][1][n];
}

static void test_order(void) {
    for (theme = 0; theme < THEMES; theme++) {
        unsigned sum = 0;

        for (unsigned k = 0; k < rounds / 512 + 1; k++) {
            gathered = 0;
            memset((void *)x, 0, sizeof(x));
            memset((void *)y, 0, sizeof(y));
            memset((void *)seen, 0, sizeof(seen));
            together(&order_job, 2);
            for (unsigned n = 0; n < CELLS; n++)
                sum += forbidden(n);
        }
        check(themes[theme], now->name, !sum);
    }
}

/* --- accesses in one piece --- */

static volatile unsigned over;

INLINE tear(unsigned self) {
    if (!self) {
        for (unsigned n = 0; n < 16 * rounds; n++)
            AT(uint64_t) = n & 1 ? UINT64_MAX : 0;
        over = 1;
    }
    while (self && !over) {
        uint64_t got = AT(uint64_t);

        result[self].wrong += got + 1 > 1;
    }
}
TWICE(tear)

static void test_pieces(void) {
    memset(words, 0, sizeof(words));
    place = words + 2048;
    over = 0;
    check("8 bytes in one piece", now->name, !together(&tear_job, threads));
}

/* --- pages that move --- */

#define POISON UINT64_MAX
static volatile uint64_t *moved;
static volatile uint64_t published;
static uint64_t *places; /* the file's pages */
static int file;

/* The page is replaced by the file's other one, and the old one poisoned. Who reads sees
 * what was published before it looked, or something newer. */
INLINE move_on(unsigned self) {
    for (uint64_t n = 1; !self && n <= rounds / 8; n++) {
        uint64_t *fresh = places + (n & 1) * (PAGE / 8),
                 *old = places + (~n & 1) * (PAGE / 8);

        __atomic_store_n(fresh, n, __ATOMIC_SEQ_CST);
        if (mmap((void *)moved, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                 file, (off_t)(n & 1) * PAGE) == MAP_FAILED)
            result[0].wrong++;
        published = n;
        __atomic_store_n(old, POISON, __ATOMIC_SEQ_CST);
    }
    if (!self)
        over = 1;
    while (self && !over) {
        uint64_t least = published, got = *moved;

        result[self].wrong += got < least || got == POISON;
    }
}
TWICE(move_on)

static void test_moves(void) {
    file = memfd_create("moved", 0);
    if (file < 0 || ftruncate(file, 2 * PAGE)) {
        check("a file for pages", now->name, false);
        return;
    }
    places = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    moved = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    places[0] = places[PAGE / 8] = 0;
    published = over = 0;
    check("a page that moves", now->name, !together(&move_on_job, threads));
    munmap((void *)moved, PAGE);
    munmap(places, 2 * PAGE);
    close(file);
}

/* --- code --- */

typedef uint32_t code_fn(void);
static uint8_t *code, *code_alias;

/* mov $N, %eax; ret, whose N lies in one word that is written at once. Who executes it
 * sees no number go back; who has been told, and has executed a serializing instruction
 * (the kernel's, for him), sees what he was told of. */
INLINE patch(unsigned self) {
    uint32_t last = 0;

    for (uint32_t n = 1; !self && n <= rounds / 16; n++) {
        __atomic_store_n((uint32_t *)(void *)(code_alias + 4), n, __ATOMIC_SEQ_CST);
        if (((code_fn *)(void *)(code + 3))() != n)
            result[0].wrong++;
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
        published = n;
    }
    if (!self)
        over = 1;
    while (self && !over) {
        uint32_t least = (uint32_t)published, got = ((code_fn *)(void *)(code + 3))();

        result[self].wrong += got < least || got < last;
        last = got;
    }
}
TWICE(patch)

static void test_code(bool alias) {
    file = memfd_create("code", 0);
    if (file < 0 || ftruncate(file, PAGE)) {
        check("a file for code", now->name, false);
        return;
    }
    code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC | (alias ? 0 : PROT_WRITE), MAP_SHARED,
                file, 0);
    code_alias =
        alias ? mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : code;
    memcpy(code_alias + 3, "\xb8\0\0\0\0\xc3", 6);
    published = over = 0;
    check(alias ? "code that is written at another address" : "code that is written",
          now->name, !together(&patch_job, threads));
    munmap(code, PAGE);
    if (alias)
        munmap(code_alias, PAGE);
    close(file);
}

int main(int argc, char **argv) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    threads = cpus < 2 ? 2 : cpus > (long)THREADS_MAX ? THREADS_MAX : (unsigned)cpus;
    rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2000;
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    for (unsigned n = 0; n < COUNT(ways); n++) {
        now = &ways[n];
        test_locked();
        test_order();
        test_pieces();
        test_moves();
        test_code(false);
        test_code(true);
    }
    printf("%u checks, %u bad\n", checks, bad);
    return bad != 0;
}
