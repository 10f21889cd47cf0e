/*
 * The order of loads and stores that four processors see of each other, and accesses in
 * one piece: AMD64 APM volume 2, "Multiprocessor Memory Access Ordering"; Intel SDM
 * volume 3, "Memory Ordering" and "Guaranteed Atomic Operations".
 *
 * A theme is a small program for two, three or four processors over two words, made
 * thousands of times in a row, each time with words of its own. What the architecture
 * forbids must not be seen once. What it allows is looked for, too, if the command line
 * says so, until it has been seen: where it cannot be, the forbidden could not, either.
 * On a busy host, whose CPUs seldom execute two of ours at a time, that takes long.
 *
 *     rounds=N   thousands of rounds of each theme (20)
 *     allowed=1  what is allowed must be seen; the host has two CPUs at least
 */
#include "lib/smp.h"

const char guest_name[] = GUEST_NAME;

#define CELLS 4096
/* Rounds until those who take part wait for each other again: they have to be under way
 * at the same time, which on a busy host is the exception. */
#define STRETCH 512
/* Batches of CELLS rounds until what is allowed has to have been seen. */
#define PATIENCE 20000

/* Two words for each round, and what the processors read of them; 9: nothing. */
struct cells {
    volatile uint32_t x[CELLS], y[CELLS], r[SMP_CPUS][2][CELLS];
};

struct theme {
    const char *name;
    unsigned cpus;
    bool allowed;
    void (*run)(unsigned cpu, struct cells *c);
    bool (*seen)(const struct cells *c, unsigned n);
};

static struct cells cells;
static const struct theme *theme;
static volatile uint32_t gathered;

/* Those who take part in the theme have come to round N. One that waits for long gives
 * the host's CPU away; before, it is to go on at once. */
static void gather(unsigned n) {
    uint32_t want = (n / STRETCH + 1) * theme->cpus;

    __atomic_add_fetch(&gathered, 1, __ATOMIC_SEQ_CST);
    for (unsigned k = 0; gathered < want; k++)
        if (k > 300)
            pause();
}

#define MFENCE __asm__ volatile("mfence" ::: "memory")

static void lock_stack(void) {
    __asm__ volatile("lock addl $0, (%0)"
                     :
                     : "r"(__builtin_frame_address(0))
                     : "memory", "cc");
}

static void lock_fails(void) {
    uint32_t word = 1;

    __asm__ volatile("movl $5, %%eax\n lock cmpxchgl %%eax, %0"
                     : "+m"(word)
                     :
                     : "eax", "memory", "cc");
}

static void lock_bit(void) {
    uint32_t word[4] = {0};

    __asm__ volatile("lock btsl %1, %0" : "+m"(word[0]) : "r"(70) : "memory", "cc");
}

static void serialize(void) {
    uint32_t r[4];

    cpuid(0, 0, r);
}

static void load_cr3(void) {
    write_cr3(read_cr3());
}

static void return_here(void) {
#ifdef __x86_64__
    __asm__ volatile("mov %%rsp, %%rax\n push $0x10\n push %%rax\n pushf\n push $8\n"
                     "lea 1f(%%rip), %%rax\n push %%rax\n iretq\n1:" ::
                         : "rax", "memory", "cc");
#else
    __asm__ volatile("pushf\n push $8\n push $1f\n iret\n1:" ::: "memory", "cc");
#endif
}

/* One processor's part of a theme. */
#define EACH                                                                             \
    for (unsigned stretch = 0; stretch < CELLS && (gather(stretch), 1);                  \
         stretch += STRETCH)                                                             \
        for (unsigned n = stretch; n < stretch + STRETCH; n++)

/* Two stores wait behind two loads, unless there is something between. */
#define STORE_BUFFER(name, between)                                                      \
    static void name(unsigned cpu, struct cells *c) {                                    \
        volatile uint32_t *a = cpu ? c->y : c->x, *b = cpu ? c->x : c->y;                \
                                                                                         \
        EACH {                                                                           \
            a[n] = 1;                                                                    \
            between;                                                                     \
            c->r[cpu][0][n] = b[n];                                                      \
        }                                                                                \
    }
STORE_BUFFER(sb_plain, )
STORE_BUFFER(sb_mfence, MFENCE)
STORE_BUFFER(sb_stack, lock_stack())
STORE_BUFFER(sb_fails, lock_fails())
STORE_BUFFER(sb_bit, lock_bit())
STORE_BUFFER(sb_cpuid, serialize())
STORE_BUFFER(sb_cr3, load_cr3())
STORE_BUFFER(sb_invlpg, invlpg(0))
STORE_BUFFER(sb_iret, return_here())
STORE_BUFFER(sb_half, if (cpu) MFENCE)

static void sb_xchg(unsigned cpu, struct cells *c) {
    volatile uint32_t *a = cpu ? c->y : c->x, *b = cpu ? c->x : c->y;

    EACH {
        uint32_t one = 1;

        __asm__ volatile("xchgl %0, %1" : "+r"(one), "+m"(a[n]) : : "memory");
        c->r[cpu][0][n] = b[n];
    }
}

static bool both_zero(const struct cells *c, unsigned n) {
    return !c->r[0][0][n] && !c->r[1][0][n];
}

static void load_buffer(unsigned cpu, struct cells *c) {
    volatile uint32_t *a = cpu ? c->y : c->x, *b = cpu ? c->x : c->y;

    EACH {
        c->r[cpu][0][n] = a[n];
        b[n] = 1;
    }
}

static void load_late(unsigned cpu, struct cells *c) {
    volatile uint32_t *a = cpu ? c->y : c->x, *b = cpu ? c->x : c->y;

    EACH {
        b[n] = 1;
        c->r[cpu][0][n] = a[n];
    }
}

static bool both_one(const struct cells *c, unsigned n) {
    return c->r[0][0][n] == 1 && c->r[1][0][n] == 1;
}

/* A message, and the flag that tells of it. */
static void message(unsigned cpu, struct cells *c) {
    EACH {
        if (!cpu) {
            c->x[n] = 1;
            c->y[n] = 1;
        } else {
            c->r[1][0][n] = c->y[n];
            c->r[1][1][n] = c->x[n];
        }
    }
}

static void message_late(unsigned cpu, struct cells *c) {
    EACH {
        if (!cpu) {
            c->y[n] = 1;
            c->x[n] = 1;
        } else {
            c->r[1][0][n] = c->y[n];
            c->r[1][1][n] = c->x[n];
        }
    }
}

static bool flag_alone(const struct cells *c, unsigned n) {
    return c->r[1][0][n] == 1 && !c->r[1][1][n];
}

/* Two stores each, to the same words in opposite order. */
static void two_stores(unsigned cpu, struct cells *c) {
    volatile uint32_t *a = cpu ? c->y : c->x, *b = cpu ? c->x : c->y;

    EACH {
        a[n] = 1;
        b[n] = 2;
    }
}

static bool both_first(const struct cells *c, unsigned n) {
    return c->x[n] == 1 && c->y[n] == 1;
}

static bool both_second(const struct cells *c, unsigned n) {
    return c->x[n] == 2 && c->y[n] == 2;
}

/* A store that must come behind one of which a load has told. */
static void store_told(unsigned cpu, struct cells *c) {
    EACH {
        if (!cpu) {
            c->x[n] = 2;
            c->y[n] = 1;
        } else {
            c->r[1][0][n] = c->y[n];
            c->x[n] = 1;
        }
    }
}

static bool told_and_lost(const struct cells *c, unsigned n) {
    return c->r[1][0][n] == 1 && c->x[n] == 2;
}

/* A load behind a store that came last. */
#define READ_LAST(name, between)                                                         \
    static void name(unsigned cpu, struct cells *c) {                                    \
        EACH {                                                                           \
            if (!cpu) {                                                                  \
                c->x[n] = 1;                                                             \
                c->y[n] = 1;                                                             \
            } else {                                                                     \
                c->y[n] = 2;                                                             \
                between;                                                                 \
                c->r[1][0][n] = c->x[n];                                                 \
            }                                                                            \
        }                                                                                \
    }
READ_LAST(read_plain, )
READ_LAST(read_mfence, MFENCE)

static bool last_and_old(const struct cells *c, unsigned n) {
    return c->y[n] == 2 && !c->r[1][0][n];
}

/* One word, read twice. */
static void coherence(unsigned cpu, struct cells *c) {
    EACH {
        if (!cpu) {
            c->x[n] = 1;
        } else {
            c->r[1][0][n] = c->x[n];
            c->r[1][1][n] = c->x[n];
        }
    }
}

static bool came_later(const struct cells *c, unsigned n) {
    return !c->r[1][0][n] && c->r[1][1][n] == 1;
}

/* Who is told tells the next one. */
static void causality(unsigned cpu, struct cells *c) {
    EACH {
        if (!cpu) {
            c->x[n] = 1;
        } else if (cpu == 1) {
            uint32_t got = c->x[n];

            c->r[1][0][n] = got;
            c->y[n] = got;
        } else if (cpu == 2) {
            c->r[2][0][n] = c->y[n];
            c->r[2][1][n] = c->x[n];
        }
    }
}

static bool told_of_nothing(const struct cells *c, unsigned n) {
    return c->r[2][0][n] == 1 && !c->r[2][1][n];
}

/* Two writers, and two readers who disagree about who was first. */
static void independent(unsigned cpu, struct cells *c) {
    volatile uint32_t *a = cpu == 3 ? c->y : c->x, *b = cpu == 3 ? c->x : c->y;

    EACH {
        if (cpu < 2) {
            (cpu ? c->y : c->x)[n] = 1;
        } else {
            c->r[cpu][0][n] = a[n];
            c->r[cpu][1][n] = b[n];
        }
    }
}

static bool disagree(const struct cells *c, unsigned n) {
    return c->r[2][0][n] == 1 && !c->r[2][1][n] && c->r[3][0][n] == 1 && !c->r[3][1][n];
}

static bool one_between(const struct cells *c, unsigned n) {
    return c->r[2][0][n] == 1 && !c->r[2][1][n];
}

static const struct theme themes[] = {
    {"stores behind loads", 2, true, sb_plain, both_zero},
    {"the same, MFENCE", 2, false, sb_mfence, both_zero},
    {"the same, MFENCE on one side", 2, true, sb_half, both_zero},
    {"the same, a locked instruction on the stack", 2, false, sb_stack, both_zero},
    {"the same, a locked one that changes nothing", 2, false, sb_fails, both_zero},
    {"the same, a locked bit of a string", 2, false, sb_bit, both_zero},
    {"the same, CPUID", 2, false, sb_cpuid, both_zero},
    {"the same, CR3", 2, false, sb_cr3, both_zero},
    {"the same, INVLPG", 2, false, sb_invlpg, both_zero},
    {"the same, IRET", 2, false, sb_iret, both_zero},
    {"the same, stored by XCHG", 2, false, sb_xchg, both_zero},
    {"loads behind stores", 2, false, load_buffer, both_one},
    {"loads that stand behind stores", 2, true, load_late, both_one},
    {"a flag before its message", 2, false, message, flag_alone},
    {"a flag that is set before it", 2, true, message_late, flag_alone},
    {"two stores each, both first ones last", 2, false, two_stores, both_first},
    {"two stores each, both second ones last", 2, true, two_stores, both_second},
    {"a store before what it was told of", 2, false, store_told, told_and_lost},
    {"a load before a store that was last", 2, true, read_plain, last_and_old},
    {"the same, MFENCE", 2, false, read_mfence, last_and_old},
    {"a word that is old again", 2, false, coherence, flag_alone},
    {"a word that is new", 2, true, coherence, came_later},
    {"a message that is passed on", 3, false, causality, told_of_nothing},
    {"two orders of two stores", 4, false, independent, disagree},
    {"one of the orders", 4, true, independent, one_between},
};

static void clear_cells(void) {
    gathered = 0;
    for (unsigned n = 0; n < CELLS; n++) {
        cells.x[n] = cells.y[n] = 0;
        for (unsigned k = 0; k < SMP_CPUS; k++)
            cells.r[k][0][n] = cells.r[k][1][n] = 9;
    }
}

static void take_part(unsigned cpu) {
    if (cpu < theme->cpus)
        theme->run(cpu, &cells);
}

static unsigned batch(void) {
    unsigned sum = 0;

    clear_cells();
    smp_together(take_part);
    for (unsigned n = 0; n < CELLS; n++)
        sum += theme->seen(&cells, n);
    return sum;
}

static void order(unsigned batches, bool look) {
    for (unsigned t = 0; t < COUNT(themes); t++) {
        unsigned sum = 0, n = 0;

        theme = &themes[t];
        if (theme->allowed && !look)
            continue;
        while (theme->allowed ? !sum && n < PATIENCE : n < batches) {
            sum += batch();
            n++;
        }
        check(!!sum == theme->allowed, "%s: %u in %u thousand rounds", theme->name, sum,
              n * CELLS / 1000);
    }
}

/* --- accesses in one piece --- */

#define CODE_PAGE(name) static uint8_t name[8192] __attribute__((aligned(4096)))
CODE_PAGE(words);
CODE_PAGE(mixed); /* code that is executed, and data */

enum way { MOV, MOVS, REP_MOVS, LOCK_CMPXCHG8B, MOVDQA, WAYS };
static const char *const ways[] = {"MOV", "MOVS", "REP MOVS", "LOCK CMPXCHG8B", "MOVDQA"};

struct piece {
    ulong part[4];
} __attribute__((aligned(16)));

static struct piece stored, read_by[SMP_CPUS]; /* a stack need not be aligned for them */
static uint8_t *piece;
static enum way way;
static unsigned times;
static volatile unsigned over, torn[SMP_CPUS];

/* What is at AT, which becomes VALUE if it is OLD. */
static uint64_t exchange8(uint8_t *at, uint64_t old, uint64_t value) {
    uint32_t lo = (uint32_t)old, hi = (uint32_t)(old >> 32);

    __asm__ volatile("lock cmpxchg8b %0"
                     : "+m"(*(uint64_t *)at), "+a"(lo), "+d"(hi)
                     : "b"((uint32_t)value), "c"((uint32_t)(value >> 32))
                     : "memory", "cc");
    return lo | (uint64_t)hi << 32;
}

static void store_piece(const ulong *from) {
    ulong *to = (ulong *)piece, one = 1;

    if (way == MOV)
        *(volatile ulong *)piece = *from;
    else if (way == MOVS)
        __asm__ volatile(BITS("movsl", "movsq") : "+D"(to), "+S"(from) : : "memory");
    else if (way == REP_MOVS)
        __asm__ volatile(BITS("rep movsl", "rep movsq")
                         : "+D"(to), "+S"(from), "+c"(one)
                         :
                         : "memory");
    else if (way == LOCK_CMPXCHG8B)
        exchange8(piece, ~*(const uint64_t *)from, *(const uint64_t *)from);
    else
        __asm__ volatile("movdqa (%1), %%xmm0\n movdqa %%xmm0, (%0)"
                         :
                         : "r"(piece), "r"(from)
                         : "memory");
}

/* Is what is there neither all ones nor all zeros? */
static bool is_torn(unsigned cpu) {
    struct piece *got = &read_by[cpu];
    unsigned parts = 1;

    if (way == MOVDQA) {
        __asm__ volatile("movdqa (%0), %%xmm0\n movdqa %%xmm0, (%1)"
                         :
                         : "r"(piece), "r"(got)
                         : "memory");
        parts = 16 / sizeof(ulong);
    } else if (way == LOCK_CMPXCHG8B) { /* which reads all of it, if it changes nothing */
        uint64_t all = exchange8(piece, 5, 5);

        memcpy(got, &all, sizeof(all));
        parts = 8 / sizeof(ulong);
    } else {
        got->part[0] = *(volatile ulong *)piece;
    }
    for (unsigned n = 0; n < parts; n++)
        if (got->part[n] + 1 > 1 || got->part[n] != got->part[0])
            return true;
    return false;
}

static void tear(unsigned cpu) {
    smp_meet();
    while (cpu && !over)
        torn[cpu] += is_torn(cpu);
    for (unsigned n = 0; !cpu && n < times; n++) {
        for (unsigned k = 0; k < COUNT(stored.part); k++)
            stored.part[k] = ~stored.part[k];
        store_piece(stored.part);
    }
    if (!cpu)
        over = 1;
}

static unsigned torn_at(uint8_t *at) {
    unsigned sum = 0;

    piece = at;
    memset(piece, 0, 16);
    memset(&stored, 0, sizeof(stored));
    over = 0;
    smp_together(tear);
    for (unsigned n = 0; n < SMP_CPUS; n++) {
        sum += torn[n];
        torn[n] = 0;
    }
    return sum;
}

static void enable_vectors(unsigned cpu) {
    write_cr4(read_cr4() | X86_CR4_OSFXSR);
}

static void pieces(unsigned stores, bool look) {
    typedef unsigned fn(void);

    smp_together(enable_vectors);
    for (way = MOV; way < WAYS; way++)
        for (unsigned n = 0; n < 2; n++) {
            /* 16 bytes in one piece: where there is AVX. */
            if (way == MOVDQA && !cpu_has(1, REG_ECX, 28))
                continue;
            mixed[0] = 0xc3;
            ((fn *)(void *)mixed)(); /* the page has code */
            times = stores;
            check_eq(ways[way], torn_at((n ? mixed : words) + 2048), 0);
        }
    /* Across two lines a store may be seen by halves. */
    way = MOV;
    times = 20000;
    for (unsigned n = 0; look && n < PATIENCE; n++)
        if (torn_at(words + 64 - sizeof(ulong) / 2))
            return;
    check(!look, "nothing is torn anywhere");
}

void guest_main(void) {
    unsigned rounds = guest_option("rounds", 20);
    bool look = guest_option("allowed", 0);

    smp_start();
    order(rounds * 1000 / CELLS + 1, look);
    pieces(rounds * 300, look);
}
