/*
 * The MMU: stores to page-table entries, invalidations, switches between address spaces,
 * and what memory does besides (a string copy, a store into code).
 *
 * PTEMOD follows the paper: the store alone is timed, not the INVLPG that has to come
 * before the change is relied on. Entries are in use: each page of the window has been
 * touched, so that a VMM's shadow knows it.
 */
#include "frob.h"

#define SPACES 64
#define PRIVATE_PAGES 4

static struct space win; /* whose whole window is mapped to one page */
static ulong *win_page;

static bool prepare_window(void) {
    if (!win.root) {
        space_new(&win);
        win_page = page_alloc(1);
        win_page[0] = 0x600d;
    }
    for (unsigned n = 0; n < WINDOW_PAGES; n++)
        space_map(&win, n, win_page, PTE_RWU);
    space_use(&win);
    return true;
}

static void finish_window(void) {
    space_leave();
}

static void invalidate_window(void) {
    for (unsigned n = 0; n < WINDOW_PAGES; n++)
        invlpg(window(n));
}

/* Reads every page of the window: the sum of what the first words hold. */
static ulong touch_window(void) {
    ulong sum = 0;

    for (unsigned n = 0; n < WINDOW_PAGES; n++)
        sum += *window(n);
    return sum;
}

/* The window is mapped from end to end. */
static bool window_is_there(void) {
    invalidate_window();
    return touch_window() == WINDOW_PAGES * 0x600dul;
}

/* Faults that reading the page gives: 0 or 1. */
static ulong faults_at(unsigned page) {
    ulong before = fault_count;

    idt_set(X86_PF, on_page_fault, 0);
#if FROB_BITS == 64
    __asm__ volatile("lea 1f(%%rip), %%rbx\nmov (%0), %%eax\n1:" ::"r"(window(page))
                     : "rax", "rbx", "memory");
#else
    __asm__ volatile("mov $1f, %%ebx\nmov (%0), %%eax\n1:" ::"r"(window(page))
                     : "eax", "ebx", "memory");
#endif
    idt_set(X86_PF, NULL, 0);
    return fault_count - before;
}

/* --- ptemod: a round is the window's 512 entries --- */

static uint64_t store_entries(ulong value) {
    volatile ulong *ptes = win.ptes;
    uint64_t start = rdtsc();

    for (unsigned n = 0; n < WINDOW_PAGES; n += 4) {
        ptes[n] = value;
        ptes[n + 1] = value;
        ptes[n + 2] = value;
        ptes[n + 3] = value;
    }
    return rdtsc() - start;
}

#define ENTRY_ON ((ulong)win_page | PTE_RWU | X86_PTE_A | X86_PTE_D)
#define ENTRY_OFF ((ulong)win_page | X86_PTE_W | X86_PTE_U)

static uint64_t run_ptemod_same(ulong rounds) {
    uint64_t t = 0;

    for (; rounds; rounds--) {
        store_entries(ENTRY_ON);
        touch_window();
        t += store_entries(ENTRY_ON);
    }
    return t;
}

static uint64_t run_ptemod_p2np(ulong rounds) {
    uint64_t t = 0;

    for (; rounds; rounds--) {
        store_entries(ENTRY_ON);
        touch_window();
        t += store_entries(ENTRY_OFF);
        invalidate_window();
    }
    return t;
}

static uint64_t run_ptemod_np2p(ulong rounds) {
    uint64_t t = 0;

    for (; rounds; rounds--) {
        store_entries(ENTRY_ON);
        touch_window();
        store_entries(ENTRY_OFF);
        invalidate_window();
        t += store_entries(ENTRY_ON);
    }
    return t;
}

static bool check_ptemod(uint64_t ops) {
    bool there, gone;

    store_entries(ENTRY_ON);
    there = window_is_there() && !faults_at(7);
    store_entries(ENTRY_OFF);
    invalidate_window();
    gone = faults_at(7) == 1 && faults_at(511) == 1;
    store_entries(ENTRY_ON);
    return there && gone && window_is_there();
}

/* --- hiddenpf: the first touch of a page after its translation was dropped --- */

static ulong touched, touches;

static uint64_t run_hiddenpf(ulong rounds) {
    uint64_t t = 0;

    for (; rounds; rounds--) {
        uint64_t start;

        space_use(&win); /* drops the window: its entries are not global */
        start = rdtsc();
        touched += touch_window();
        t += rdtsc() - start;
        touches += WINDOW_PAGES;
    }
    return t;
}

static bool check_hiddenpf(uint64_t ops) {
    bool ok = touched == touches * 0x600dul && touches == (ulong)ops;

    touched = touches = 0;
    return ok;
}

/* --- invlpg --- */

static uint64_t run_invlpg(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(".rept 16\ninvlpg (%0)\n.endr" ::"r"(window(3)) : "memory");
    return rdtsc() - start;
}

static bool check_invlpg(uint64_t ops) {
    static ulong *other;
    bool before, after;

    if (!other)
        other = page_alloc(1);
    other[0] = 0xbeef;
    before = *window(3) == 0x600d;
    space_map(&win, 3, other, PTE_RWU);
    invlpg(window(3));
    after = *window(3) == 0xbeef;
    space_map(&win, 3, win_page, PTE_RWU);
    invlpg(window(3));
    return before && after;
}

/* --- cr3: a switch, and a load from one page that is different in each space --- */

static struct space spaces[SPACES];
static ulong wrong_space;

static bool prepare_spaces(void) {
    wrong_space = 0;
    for (unsigned s = 0; !spaces[0].root || (s && s < SPACES && !spaces[s].root); s++) {
        space_new(&spaces[s]);
        for (unsigned n = 0; n < PRIVATE_PAGES; n++) {
            ulong *page = page_alloc(1);

            page[0] = s * PRIVATE_PAGES + n;
            space_map(&spaces[s], n, page, PTE_RWU);
        }
    }
    return true;
}

static uint64_t switch_spaces(ulong rounds, unsigned count) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
        for (unsigned s = 0; s < count; s++) {
            write_cr3(spaces[s].root);
            wrong_space += *window(0) != s * PRIVATE_PAGES;
        }
    }
    return rdtsc() - start;
}

static uint64_t run_cr3_2(ulong rounds) {
    return switch_spaces(rounds * 32, 2);
}

static uint64_t run_cr3_8(ulong rounds) {
    return switch_spaces(rounds * 8, 8);
}

static uint64_t run_cr3_64(ulong rounds) {
    return switch_spaces(rounds, 64);
}

static bool check_spaces(uint64_t ops) {
    return !wrong_space;
}

/* --- movs4k --- */

static ulong *movs_from, *movs_to;

static bool prepare_movs(void) {
    if (!movs_from) {
        movs_from = page_alloc(1);
        movs_to = page_alloc(1);
    }
    for (unsigned n = 0; n < 4096 / sizeof(ulong); n++)
        movs_from[n] = n * 2654435761u;
    return true;
}

static uint64_t run_movs(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
        void *to = movs_to;
        const void *from = movs_from;
        ulong count = 4096 / sizeof(ulong);

#if FROB_BITS == 64
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory");
#else
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count)::"memory");
#endif
    }
    return rdtsc() - start;
}

static bool check_movs(uint64_t ops) {
    bool same = true;

    for (unsigned n = 0; n < 4096 / sizeof(ulong); n++)
        same &= movs_to[n] == n * 2654435761u;
    return same;
}

/* --- smc: a store into the next instruction's immediate, and the call of it --- */

static uint8_t *smc_code;
static ulong smc_sum, smc_wanted;

static bool prepare_smc(void) {
    static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $imm32, %eax; ret */

    if (!smc_code)
        smc_code = page_alloc(1);
    for (unsigned n = 0; n < sizeof(code); n++)
        smc_code[n] = code[n];
    smc_sum = smc_wanted = 0;
    return true;
}

static uint64_t run_smc(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
        uint32_t got;

        *(volatile uint32_t *)(smc_code + 1) = (uint32_t)rounds;
        __asm__ volatile("call *%1" : "=a"(got) : "r"(smc_code) : "memory");
        smc_sum += got;
        smc_wanted += (uint32_t)rounds;
    }
    return rdtsc() - start;
}

static bool check_smc(uint64_t ops) {
    return smc_sum == smc_wanted;
}

const struct bench memory_benches[] = {
    {.name = "ptemod_same",
     .per_round = WINDOW_PAGES,
     .prepare = prepare_window,
     .run = run_ptemod_same,
     .check = check_ptemod,
     .finish = finish_window},
    {.name = "ptemod_p2np",
     .per_round = WINDOW_PAGES,
     .prepare = prepare_window,
     .run = run_ptemod_p2np,
     .check = check_ptemod,
     .finish = finish_window},
    {.name = "ptemod_np2p",
     .per_round = WINDOW_PAGES,
     .prepare = prepare_window,
     .run = run_ptemod_np2p,
     .check = check_ptemod,
     .finish = finish_window},
    {.name = "hiddenpf",
     .per_round = WINDOW_PAGES,
     .prepare = prepare_window,
     .run = run_hiddenpf,
     .check = check_hiddenpf,
     .finish = finish_window},
    {.name = "invlpg",
     .per_round = 16,
     .prepare = prepare_window,
     .run = run_invlpg,
     .check = check_invlpg,
     .finish = finish_window},
    {.name = "cr3_2",
     .per_round = 64,
     .prepare = prepare_spaces,
     .run = run_cr3_2,
     .check = check_spaces,
     .finish = space_leave},
    {.name = "cr3_8",
     .per_round = 64,
     .prepare = prepare_spaces,
     .run = run_cr3_8,
     .check = check_spaces,
     .finish = space_leave},
    {.name = "cr3_64",
     .per_round = 64,
     .prepare = prepare_spaces,
     .run = run_cr3_64,
     .check = check_spaces,
     .finish = space_leave},
    {.name = "movs4k",
     .per_round = 1,
     .prepare = prepare_movs,
     .run = run_movs,
     .check = check_movs},
    {.name = "smc",
     .per_round = 1,
     .prepare = prepare_smc,
     .run = run_smc,
     .check = check_smc},
    {0},
};
