/*
 * Four processors on one memory: locked instructions at every alignment, accessed and
 * dirty bits that others change, pages that are remapped with interrupts to those who may
 * know the old place, and code that another processor writes, in the ways that kernels
 * do. The order of plain loads and stores is smporder.c's.
 */
#include "lib/smp.h"

const char guest_name[] = GUEST_NAME;

#define CODE_PAGE(name) static uint8_t name[8192] __attribute__((aligned(4096)))

static uint8_t words[8192] __attribute__((aligned(4096)));
CODE_PAGE(mixed);              /* code that is executed, and data */
static volatile unsigned over; /* the writer has ended */
static volatile unsigned wrong[SMP_CPUS];

static unsigned total_wrong(void) {
    unsigned sum = 0;

    for (unsigned n = 0; n < SMP_CPUS; n++) {
        sum += wrong[n];
        wrong[n] = 0;
    }
    return sum;
}

/* --- locked instructions --- */

static uint8_t *place;
static unsigned rounds, form_number;
static volatile uint32_t spin;

static void acquire_bts(void) {
    bool was;

    do
        __asm__ volatile("lock btsl $7, %0" : "+m"(spin), "=@ccc"(was) : : "memory");
    while (was);
}

static void acquire_xchg(void) {
    uint32_t x;

    do {
        x = 1;
        __asm__ volatile("xchgl %0, %1" : "+r"(x), "+m"(spin) : : "memory");
    } while (x);
}

static void release(void) {
    __asm__ volatile("movl $0, %0" : "=m"(spin) : : "memory");
}

#define AT(type) (*(volatile type *)place)
static void add_once(unsigned cpu) {
    uint32_t bit = 0x100u << cpu, lo, hi, one = 1;

    switch (form_number) {
    case 0:
        __asm__ volatile("lock incl %0" : "+m"(AT(uint32_t)) : : "cc");
        break;
    case 1:
        __asm__ volatile("lock addw $1, %0" : "+m"(AT(uint16_t)) : : "cc");
        break;
    case 2:
        __asm__ volatile("lock incb %0" : "+m"(AT(uint8_t)) : : "cc");
        break;
    case 3:
        __asm__ volatile("lock subl $-1, %0" : "+m"(AT(uint32_t)) : : "cc");
        break;
    case 4:
        __asm__ volatile("lock xaddl %1, %0" : "+m"(AT(uint32_t)), "+r"(one) : : "cc");
        break;
    case 5:
        __asm__ volatile("stc; lock adcl $0, %0" : "+m"(AT(uint32_t)) : : "cc");
        break;
    case 6:
        lo = AT(uint32_t);
        while (!__atomic_compare_exchange_n((uint32_t *)place, &lo, lo + 1, false, 5, 5))
            ;
        break;
    case 7: /* cmpxchg8b */
        lo = ((volatile uint32_t *)place)[0];
        hi = ((volatile uint32_t *)place)[1];
        for (bool same = false; !same;)
            __asm__ volatile("lock cmpxchg8b %0"
                             : "+m"(*(uint64_t *)place), "+a"(lo), "+d"(hi), "=@ccz"(same)
                             : "b"(lo + 1), "c"(hi)
                             : "memory");
        break;
    case 8:
        acquire_bts();
        ++AT(uint32_t);
        release();
        break;
    case 9:
        acquire_xchg();
        ++AT(uint32_t);
        release();
        break;
    default: /* a bit of our own comes, turns and goes; the lowest ones count */
        __asm__ volatile("lock orl %1, %0" : "+m"(AT(uint32_t)) : "r"(bit) : "cc");
        __asm__ volatile("lock xorl %1, %0" : "+m"(AT(uint32_t)) : "r"(bit) : "cc");
        __asm__ volatile("lock xorl %1, %0" : "+m"(AT(uint32_t)) : "r"(bit) : "cc");
        wrong[cpu] += !(AT(uint32_t) & bit);
        __asm__ volatile("lock andl %1, %0" : "+m"(AT(uint32_t)) : "r"(~bit) : "cc");
        wrong[cpu] += !!(AT(uint32_t) & bit);
        __asm__ volatile("lock incb %0" : "+m"(AT(uint8_t)) : : "cc");
    }
}

static void add_often(unsigned cpu) {
    smp_meet();
    for (unsigned n = 0; n < rounds; n++)
        add_once(cpu);
}

static void locked(void) {
    static const uint16_t offsets[] = {0, 17, 62, 4094};
    static const uint32_t masks[] = {~0u, 0xffff, 0xff, ~0u, ~0u, ~0u,
                                     ~0u, ~0u,    ~0u,  ~0u, 0xff};

    for (form_number = 0; form_number < 11; form_number++)
        for (unsigned n = 0; n < 4; n++) {
            uint32_t got;

            place = words + offsets[n];
            rounds = offsets[n] < 62 ? 5000 : 100; /* some hosts slow them down */
            *(volatile uint64_t *)place = 0;
            smp_together(add_often);
            got = AT(uint32_t) & masks[form_number];
            check(got == ((SMP_CPUS * rounds) & masks[form_number]),
                  "form %u at %u: %u, not %u", form_number, offsets[n], got,
                  SMP_CPUS * rounds);
            check(!total_wrong(), "form %u at %u: bits were lost", form_number,
                  offsets[n]);
        }
}

/* --- interrupts to the others, which answer each for itself: one that an emulator has
 * come twice is no other's answer --- */

static volatile bool answered[SMP_CPUS];

/* CPUID serializes, and tells the local APIC's ID. */
static void answer(void) {
    uint32_t r[4];

    cpuid(1, 0, r);
    answered[r[1] >> 24 & (SMP_CPUS - 1)] = true;
}

static void ask_others(void) {
    for (unsigned n = 1; n < SMP_CPUS; n++)
        answered[n] = false;
    smp_interrupt_others();
    for (unsigned n = 1; n < SMP_CPUS; n++)
        while (!answered[n])
            pause();
}

/* --- page tables --- */

#ifdef __x86_64__
#define VA 0x2800000ul /* a large page of the identity map */
#define FIRST 0x2a00000ul
#define SECOND 0x2c00000ul
static unsigned walks;
static volatile unsigned added[SMP_CPUS], walkers;

static volatile uint64_t *pde_of(ulong va) {
    uint64_t *pml4 = (uint64_t *)(read_cr3() & ~0xffful);
    uint64_t *pdpt = (uint64_t *)(pml4[0] & ~0xffful);
    uint64_t *pd = (uint64_t *)(pdpt[0] & ~0xffful);

    return &pd[va >> 21];
}

static void bits_of_entry(unsigned cpu) {
    volatile uint64_t *e = pde_of(VA);

    smp_meet();
    while (cpu < 2 && (walkers || added[cpu] < 100)) {
        __asm__ volatile("lock addq %1, %0" : "+m"(*e) : "r"(1ull << 52) : "cc");
        added[cpu]++;
    }
    for (unsigned n = 0; cpu >= 2 && n < walks; n++) {
        if (cpu == 2)
            __asm__ volatile("lock andq %1, %0" : "+m"(*e) : "r"(~0x60ull) : "cc");
        invlpg(VA);
        *(volatile uint32_t *)VA += 1;
        wrong[cpu] += cpu == 2 && (*e & 0x60) != 0x60;
    }
    if (cpu >= 2)
        __atomic_sub_fetch(&walkers, 1, __ATOMIC_SEQ_CST);
}

static void accessed_and_dirty(void) {
    uint64_t was = *pde_of(VA);

    walks = 1000 * guest_option("rounds", 3);
    walkers = 2;
    smp_together(bits_of_entry);
    check_eq("software's bits of an entry", *pde_of(VA) >> 52,
             (added[0] + added[1]) & 0xfff);
    check(!total_wrong(), "bits were not there after a store");
    *pde_of(VA) = was;
    write_cr3(read_cr3());
}

static void flush_va(void) {
    invlpg(VA);
    answer();
}

static void flush_own(unsigned cpu) {
    invlpg(VA);
}

/* Processor 0 moves the page, tells all, waits for all, and spoils the place that was. */
static void shootdown(unsigned cpu) {
    smp_meet();
    if (cpu) {
        while (!over)
            wrong[cpu] += *(volatile uint64_t *)VA != 7;
        return;
    }
    for (unsigned n = 0; n < 200; n++) {
        ulong to = n & 1 ? FIRST : SECOND, from = n & 1 ? SECOND : FIRST;

        *(volatile uint64_t *)to = 7;
        *pde_of(VA) = to | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_PS;
        ask_others();
        *(volatile uint64_t *)from = ~0ull;
    }
    over = 1;
}

static void remapping(void) {
    uint64_t was = *pde_of(VA);

    *(volatile uint64_t *)FIRST = 7;
    *pde_of(VA) = FIRST | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_PS;
    over = 0;
    smp_ipi_hook = flush_va;
    smp_together(flush_own);
    smp_together(shootdown);
    check(!total_wrong(), "an old page was read after its shootdown");
    *pde_of(VA) = was;
    smp_together(flush_own);
}
#endif

/* --- code that another processor writes --- */

static volatile uint32_t told;
static uint8_t *fn_at;
static bool shares; /* one CPU of the host's is for all: who waits gives it away */

static uint32_t call_it(void) {
    typedef uint32_t fn(void);

    return ((fn *)(void *)fn_at)();
}

static void put_fn(uint32_t value) {
    fn_at[0] = 0xb8; /* mov $value, %eax; ret */
    *(volatile uint32_t *)(fn_at + 1) = value;
    fn_at[5] = 0xc3;
}

/* The number only grows; who was told of one sees it behind a serializing instruction. */
static void grow(unsigned cpu) {
    uint32_t last = 0, r[4];

    smp_meet();
    while (cpu && !over) {
        uint32_t least = told, got;

        cpuid(0, 0, r);
        got = call_it();
        wrong[cpu] += got < least || got < last;
        last = got;
        if (shares)
            pause();
    }
    for (unsigned n = 1; !cpu && n < 2000; n++) {
        *(volatile uint32_t *)(fn_at + 1) = n;
        told = n;
        pause();
    }
    if (!cpu)
        over = 1;
}

void smp_int3_entry(void);

/* Linux's text_poke_bp(): INT3, all serialize, the rest, all serialize, the first byte.
 */
static void poke(unsigned cpu) {
    smp_meet();
    while (cpu && !over) {
        uint32_t got = call_it();

        wrong[cpu] += got != 1 && got != 0x01010101 && got != 0x02020202;
        if (shares)
            pause();
    }
    for (unsigned n = 0; !cpu && n < 150; n++) {
        *(volatile uint8_t *)fn_at = 0xcc;
        ask_others();
        *(volatile uint32_t *)(fn_at + 1) = n & 1 ? 0x01010101 : 0x02020202;
        ask_others();
        *(volatile uint8_t *)fn_at = 0xb8;
        ask_others();
    }
    if (!cpu)
        over = 1;
}

static void writing_code(void) {
    static const uint16_t offsets[] = {3, 128 + 59};

    shares = guest_option("share", 0);
    for (unsigned n = 0; n < 2; n++) {
        fn_at = mixed + offsets[n];
        put_fn(0);
        told = over = 0;
        smp_together(grow);
        check(!total_wrong(), "old code at %u", offsets[n]);
    }
    idt_set(X86_BP, KCS, smp_int3_entry, 14, 0);
    smp_ipi_hook = answer;
    fn_at = mixed + 256;
    put_fn(0x01010101);
    over = 0;
    smp_together(poke);
    check(!total_wrong(), "a mixture of old and new code");
}

/* Emulators are slow at one of the two, or not right: code=0 or memory=0 leaves it out.
 */
void guest_main(void) {
    smp_start();
    if (guest_option("memory", 1)) {
        locked();
#ifdef __x86_64__
        accessed_and_dirty();
        remapping();
#endif
    }
    if (guest_option("code", 1))
        writing_code();
}
