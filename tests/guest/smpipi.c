/*
 * Several CPUs: they are started, sent every kind of interprocessor interrupt by every
 * kind of destination, begun anew by INIT in the middle of things, and made to pass
 * interrupts on in rings and storms, of which none may be lost.
 *
 * Intel SDM volume 3, "Multiple-Processor (MP) Initialization", "Issuing Interprocessor
 * Interrupts".
 *
 * All CPUs share one IDT; a handler counts for its CPU. A CPU other than the first waits
 * in HLT for jobs. Nothing here looks at the clock: what must come is waited for, and
 * what must not is known when an interrupt of the lowest priority, sent behind it, has
 * come.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define MAX 8u
#define TRAMPOLINE 0x8000u
#define OTHER_TRAMPOLINE 0x9000u
#define APIC 0xfee00000u
#define IOAPIC 0xfec00000u

enum { ID = 0x20, TPR = 0x80, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0 };
enum { IRR = 0x200, ISR = 0x100, ICR = 0x300, ICR_HIGH = 0x310, LINT0 = 0x350 };
enum { FIXED = 0, LOWEST = 0x100, NMI = 0x400, INIT = 0x500, SIPI = 0x600 };
enum {
    LOGICAL = 0x800,
    ASSERT = 0x4000,
    SELF = 0x40000,
    ALL = 0x80000,
    OTHERS = 0xc0000
};
/* Vectors: behind all others; to wake; the ones that are counted. */
enum { MARK = 0x31, WAKE = 0x38, A = 0x40, B = 0x51, C = 0x62, RING = 0x73 };

static unsigned cpus;
static bool kvm; /* the local APIC is KVM's, says the command line: it does not ask who
                    has the lowest priority, and INIT takes a later NMI with it */
static volatile uint32_t counts[MAX][256], started[MAX], done[MAX], spins[MAX];
static void (*volatile job[MAX])(unsigned id);
static volatile bool x2;
static struct idt_gate table[256];
static uint8_t stacks[MAX][8192] __attribute__((aligned(16), used));

/* --- the local APIC of the CPU that executes this --- */

static uint32_t get(unsigned reg) {
    if (x2)
        return (uint32_t)rdmsr(X86_MSR_X2APIC_FIRST + reg / 16);
    return *(volatile uint32_t *)(APIC + reg);
}

static void put(unsigned reg, uint32_t value) {
    if (x2)
        wrmsr(X86_MSR_X2APIC_FIRST + reg / 16, value);
    else
        *(volatile uint32_t *)(APIC + reg) = value;
}

static unsigned self(void) {
    return x2 ? get(ID) : get(ID) >> 24;
}

static void send(uint32_t dest, uint32_t icr) {
    if (x2) {
        wrmsr(X86_MSR_X2APIC_FIRST + ICR / 16, (uint64_t)dest << 32 | icr);
        return;
    }
    put(ICR_HIGH, dest << 24);
    put(ICR, icr);
}

/* --- handlers --- */

struct interrupted {
    ulong ip, cs, flags;
};

#define HANDLER(vector)                                                                  \
    __attribute__((interrupt)) static void on_##vector(struct interrupted *f) {          \
        __atomic_add_fetch(&counts[self()][vector], 1, __ATOMIC_SEQ_CST);                \
        put(EOI, 0);                                                                     \
    }
HANDLER(MARK)
HANDLER(WAKE)
HANDLER(A)
HANDLER(B)
HANDLER(C)
HANDLER(RING)

__attribute__((interrupt)) static void on_nmi(struct interrupted *f) {
    __atomic_add_fetch(&counts[self()][2], 1, __ATOMIC_SEQ_CST);
}

static void set_gate(unsigned vector, void (*fn)(struct interrupted *f)) {
    ulong at = (ulong)fn;

    table[vector] = (struct idt_gate){
        .off0 = (uint16_t)at, .sel = KCS, .ar = 0x8e, .off1 = (uint16_t)(at >> 16)};
}

static void load_table(void) {
    struct {
        uint16_t limit;
        ulong base;
    } __attribute__((packed)) idtr = {sizeof(table) - 1, (ulong)table};

    __asm__ volatile("lidt %0" ::"m"(idtr));
}

/* --- the other CPUs --- */

/* Waits for a job and does it: interrupts come in HLT, or in the instruction before. */
static _Noreturn void serve(unsigned id) {
    for (;;) {
        __asm__ volatile("cli" ::: "memory");
        if (job[id]) {
            void (*fn)(unsigned) = job[id];

            __asm__ volatile("sti" ::: "memory");
            fn(id);
            job[id] = NULL;
            __atomic_add_fetch(&done[id], 1, __ATOMIC_SEQ_CST);
            continue;
        }
        __asm__ volatile("sti\n hlt" ::: "memory");
    }
}

static _Noreturn __attribute__((used)) void ap_main(void) {
    unsigned id;

    load_table();
    if (rdmsr(X86_MSR_APIC_BASE) & 1u << 10)
        id = (unsigned)rdmsr(X86_MSR_X2APIC_FIRST + ID / 16);
    else
        id = *(volatile uint32_t *)(APIC + ID) >> 24;
    put(SVR, 0x1ff);
    __atomic_add_fetch(&started[id], 1, __ATOMIC_SEQ_CST);
    serve(id);
}

/* At TRAMPOLINE and OTHER_TRAMPOLINE: from real mode, by CS, to protected mode. The stack
 * is that of the APIC ID that CPUID tells. */
__asm__(".pushsection .rodata\n"
        "tramp:\n .code16\n"
        "cli\n"
        "mov %cs, %ax\n mov %ax, %ds\n"
        "lgdtl tramp_gdtr - tramp\n"
        "mov $0x11, %eax\n mov %eax, %cr0\n"
        "ljmpl $8, $tramp_32\n"
        "tramp_gdtr: .word 23\n .long tramp_gdt\n"
        "tramp_end:\n .code32\n"
        ".align 8\n"
        "tramp_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
        ".popsection\n"
        "tramp_32:\n"
        "mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n"
        "mov $1, %eax\n cpuid\n shr $24, %ebx\n inc %ebx\n shl $13, %ebx\n"
        "lea stacks(%ebx), %esp\n"
        "call ap_main\n");
extern const uint8_t tramp[], tramp_end[];

/* --- waiting --- */

static void wait_count(unsigned id, unsigned vector, uint32_t want) {
    while (counts[id][vector] < want)
        __asm__ volatile("pause");
}

static void start_inited(unsigned id, unsigned at) {
    uint32_t before = started[id];

    send(id, SIPI | ASSERT | at >> 12);
    while (started[id] == before)
        __asm__ volatile("pause");
}

static void start(unsigned id, unsigned at) {
    send(id, INIT | ASSERT);
    start_inited(id, at);
}

/* All that was sent to ID before has come. */
static void settle(unsigned id) {
    uint32_t before = counts[id][MARK];

    send(id, MARK);
    wait_count(id, MARK, before + 1);
}

static void give(unsigned id, void (*fn)(unsigned)) {
    job[id] = fn;
    send(id, WAKE);
}

static void wait_job(unsigned id) {
    while (job[id])
        __asm__ volatile("pause");
}

static void everywhere(void (*fn)(unsigned)) {
    for (unsigned n = 1; n < cpus; n++)
        give(n, fn);
    fn(0);
    for (unsigned n = 1; n < cpus; n++)
        wait_job(n);
}

/* Whom ICR to DEST has come to, a bit each. */
static uint32_t who(uint32_t dest, uint32_t icr, unsigned vector) {
    uint32_t before[MAX], set = 0;

    for (unsigned n = 0; n < cpus; n++)
        before[n] = counts[n][vector];
    send(dest, icr);
    for (unsigned n = 0; n < cpus; n++)
        settle(n);
    for (unsigned n = 0; n < cpus; n++) {
        check(counts[n][vector] - before[n] <= 1, "CPU %u took it twice", n);
        set |= (counts[n][vector] - before[n]) << n;
    }
    return set;
}

#define EVERY ((1u << cpus) - 1)

/* --- the themes --- */

static void begin(void) {
    uint32_t r[4];

    memcpy((void *)TRAMPOLINE, tramp, (size_t)(tramp_end - tramp));
    memcpy((void *)OTHER_TRAMPOLINE, tramp, (size_t)(tramp_end - tramp));
    cpuid(1, 0, r);
    check_eq("APIC ID in CPUID", r[1] >> 24, 0);
    cpus = r[1] >> 16 & 0xff;
    kvm = guest_option("kvm", 0);
    check(cpus > 1 && cpus <= MAX, "%u CPUs", cpus);
    if (cpus < 2 || cpus > MAX)
        guest_exit();
    cpuid(0xb, 1, r);
    check_eq("CPUs of the package", r[1], cpus);
    set_gate(2, on_nmi);
    set_gate(MARK, on_MARK);
    set_gate(WAKE, on_WAKE);
    set_gate(A, on_A);
    set_gate(B, on_B);
    set_gate(C, on_C);
    set_gate(RING, on_RING);
    load_table();
    put(LINT0, 0x10000);
    put(SVR, 0x1ff);
    __asm__ volatile("sti");
    check(rdmsr(X86_MSR_APIC_BASE) & 1u << 8, "the first one is the boot processor");
    for (unsigned n = 1; n < cpus; n++) {
        check_eq("started", started[n], 0);
        start(n, TRAMPOLINE);
    }
}

static void kinds(void) {
    uint32_t one;

    for (unsigned n = 0; n < cpus; n++)
        check_eq("physical", who(n, A, A), 1u << n);
    check_eq("to all", who(x2 ? ~0u : 0xff, B, B), EVERY);
    check_eq("to nobody", who(cpus, C, C), 0);
    check_eq("self", who(0, SELF | A, A), 1);
    check_eq("all", who(0, ALL | B, B), EVERY);
    check_eq("others", who(0, OTHERS | C, C), EVERY & ~1u);
    check_eq("NMI", who(1, NMI | ASSERT, 2), 2);
    check_eq("NMI to all others", who(0, OTHERS | NMI | ASSERT, 2), EVERY & ~1u);
    one = who(x2 ? ~0u : 0xff, LOWEST | A, A);
    check(one && (kvm || !(one & (one - 1))), "lowest priority: 0x%x", one);
}

static void set_flat(unsigned id) {
    put(DFR, ~0u);
    put(LDR, 1u << (24 + id));
}

static void set_cluster(unsigned id) {
    put(DFR, 0x0fffffff);
    put(LDR, ((id / 2) << 4 | 1u << id % 2) << 24);
}

static void logical(void) {
    everywhere(set_flat);
    for (unsigned set = 0; set <= EVERY; set++)
        check_eq("flat", who(set, LOGICAL | A, A), set);
    everywhere(set_cluster);
    check_eq("a cluster", who(0x13, LOGICAL | B, B), EVERY & 0xc);
    check_eq("one of it", who(0x12, LOGICAL | C, C), EVERY & 0x8);
    check_eq("no cluster", who(0x73, LOGICAL | A, A), 0);
    everywhere(set_flat);
}

static volatile bool hold, held;

static bool requested(unsigned vector) {
    return get(IRR + vector / 32 * 16) >> vector % 32 & 1;
}

/* Takes no interrupts of the classes up to 8 until it is let go; B comes meanwhile. */
static void hold_back(unsigned id) {
    uint32_t before = counts[id][B];

    put(TPR, 0x80);
    held = true;
    while (hold)
        __asm__ volatile("pause");
    while (!requested(B) && counts[id][B] == before)
        __asm__ volatile("pause");
    check_eq("held back", counts[id][B], before);
    put(TPR, 0);
}

/* The one whose task has the lowest priority; what is held back comes later. */
static void priorities(void) {
    uint32_t before[2] = {counts[1][B], counts[2][B]};

    if (cpus < 3)
        return;
    hold = true;
    held = false; /* the hypercalls' theme has used it too */
    give(2, hold_back);
    while (!held)
        __asm__ volatile("pause");
    for (unsigned n = 0; n < 4; n++) {
        send(1u << 1 | 1u << 2, LOGICAL | LOWEST | B);
        settle(1);
    }
    if (!kvm)
        check_eq("the lowest priority", counts[1][B], before[0] + 4);
    send(2, B);
    hold = false;
    wait_count(2, B, before[1] + 1);
    wait_job(2);
    check_eq("held back, and once", counts[2][B], before[1] + 1);
}

/* --- rings and storms --- */

#define ROUNDS 3000u
static volatile uint32_t token;

/* Waits in HLT for the token, and hands it on: a lost interrupt is a hang. */
static void ring(unsigned id) {
    for (unsigned n = 0; n < ROUNDS; n++) {
        for (;;) {
            __asm__ volatile("cli" ::: "memory");
            if (token % cpus == id)
                break;
            __asm__ volatile("sti\n hlt" ::: "memory");
        }
        __asm__ volatile("sti" ::: "memory");
        token++;
        send((id + 1) % cpus, RING);
    }
}

static void storm(unsigned id) {
    for (unsigned n = 0; n < ROUNDS; n++) {
        send(0, OTHERS | A);
        send((id + 1) % cpus, B);
        if (n % 64 == 0)
            send(0, OTHERS | NMI | ASSERT);
    }
}

static void all_quiet(unsigned id) {
    for (unsigned n = 0; n < 8; n++) {
        check_eq("IRR", get(IRR + n * 16), 0);
        if (n != WAKE / 32)
            check_eq("ISR", get(ISR + n * 16), 0);
    }
}

static void rings(void) {
    token = 0;
    everywhere(ring);
    check_eq("rounds", token, ROUNDS * cpus);
    everywhere(storm);
    for (unsigned n = 0; n < cpus; n++)
        settle(n);
    all_quiet(0);
    for (unsigned n = 0; n < cpus; n++)
        check_eq("after the storm", who(n, C, C), 1u << n);
}

/* --- INIT and SIPI --- */

static void spin(unsigned id) {
    for (;;)
        spins[id]++;
}

static void spin_closed(unsigned id) {
    __asm__ volatile("cli");
    spin(id);
}

static void spin_device(unsigned id) {
    for (;;) {
        inb(0x21);
        spins[id]++;
    }
}

static void spin_apic(unsigned id) {
    for (;;) {
        send(0, OTHERS | C);
        spins[id]++;
    }
}

static void spin_string(unsigned id) {
    static uint8_t a[65536], b[65536];

    for (;;) {
        memcpy(a, b, sizeof(a));
        spins[id]++;
    }
}

static void init_inside(void (*fn)(unsigned)) {
    uint32_t before = spins[1];

    give(1, fn);
    while (spins[1] - before < 100)
        __asm__ volatile("pause");
    send(1, SIPI | ASSERT | TRAMPOLINE >> 12); /* to one that runs: nothing */
    before = spins[1];
    while (spins[1] - before < 100)
        __asm__ volatile("pause");
    job[1] = NULL;
    start(1, OTHER_TRAMPOLINE);
    check_eq("after INIT", who(1, A, A), 2);
}

static void inits(void) {
    static void (*const fns[])(unsigned) = {spin, spin_closed, spin_device, spin_apic,
                                            spin_string};
    uint32_t before = started[1];

    for (unsigned n = 0; n < 4; n++)
        for (unsigned k = 0; k < sizeof(fns) / sizeof(*fns); k++, before++)
            init_inside(fns[k]);
    /* One that sleeps; and many times over. */
    for (unsigned n = 0; n < 200; n++, before++)
        start(1, n % 2 ? TRAMPOLINE : OTHER_TRAMPOLINE);
    check_eq("starts", started[1], before);
    everywhere(set_flat); /* which INIT has cleared */
}

/* --- NMI around INIT and SIPI --- */

#define REAL_NMI 0x7000u /* the handler of a CPU in real mode; behind it, its count */
#define REAL_NMIS (*(volatile uint16_t *)0x7ff0)

__asm__(".pushsection .rodata\n"
        "real_nmi:\n .code16\n"
        "push %ds\n push %ax\n xor %ax, %ax\n mov %ax, %ds\n"
        "incw 0x7ff0\n"
        "pop %ax\n pop %ds\n iret\n"
        "real_nmi_end:\n .code32\n"
        ".popsection\n");
extern const uint8_t real_nmi[], real_nmi_end[];

static void sleep_closed(unsigned id) {
    for (;;) {
        spins[id]++;
        __asm__ volatile("cli\n hlt" ::: "memory");
    }
}

/* One that comes while a CPU waits for its SIPI is taken behind it, once, however many
 * there were: in real mode, by the table at 0. AMD64 APM volume 2, "Interprocessor
 * Interrupts". One that comes before INIT is taken there or not at all. */
static void nmis(void) {
    uint32_t before = started[1];

    memcpy((void *)REAL_NMI, real_nmi, (size_t)(real_nmi_end - real_nmi));
    *(volatile uint32_t *)(2 * 4) = REAL_NMI; /* segment 0 */
    REAL_NMIS = 0;
    for (unsigned n = 0; n < 60; n++) {
        send(1, INIT | ASSERT);
        for (unsigned k = 0; k <= n % 3; k++)
            send(1, NMI | ASSERT);
        start_inited(1, TRAMPOLINE);
        check(kvm || REAL_NMIS == n + 1, "%u NMIs behind a SIPI, not %u", REAL_NMIS,
              n + 1);
    }
    for (unsigned n = 0; n < 60; n++) { /* and to one that sleeps where only it wakes */
        uint32_t was = spins[1], taken = counts[1][2];

        give(1, sleep_closed);
        while (spins[1] == was)
            __asm__ volatile("pause");
        send(1, NMI | ASSERT);
        if (n % 2)
            wait_count(1, 2, taken + 1);
        job[1] = NULL;
        start(1, TRAMPOLINE);
    }
    check_eq("starts between NMIs", started[1], before + 120);
    check_eq("after NMIs", who(1, A, A), 2);
    everywhere(set_flat);
}

/* --- what devices send, the TSC, x2APIC --- */

static void ioapic(unsigned reg, uint32_t value) {
    *(volatile uint32_t *)IOAPIC = reg;
    *(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

/* The 8254's ticks, on pin 2, to each CPU in turn. */
static void devices(void) {
    outb(0x43, 0x34);
    outb(0x40, 0xa9);
    outb(0x40, 4); /* 1 kHz */
    for (unsigned n = 0; n < cpus; n++) {
        uint32_t before = counts[n][A];

        ioapic(0x15, n << 24);
        ioapic(0x14, A);
        wait_count(n, A, before + 3);
        ioapic(0x14, 0x10000);
        settle(n);
    }
}

static volatile uint64_t last_tsc;
static volatile uint32_t tsc_turn;

/* Each reads after the other has: never less. */
static void tscs(unsigned id) {
    if (id > 1)
        return;
    for (unsigned n = 0; n < 2000; n++) {
        uint64_t now;

        while (tsc_turn % 2 != id)
            __asm__ volatile("pause");
        __asm__ volatile("lfence"); /* RDTSC does not wait for what is before it */
        now = rdtsc();
        check(now >= last_tsc, "the TSC goes back between CPUs");
        last_tsc = now;
        __atomic_add_fetch(&tsc_turn, 1, __ATOMIC_SEQ_CST);
    }
}

static volatile uint32_t switched;

static void to_x2(unsigned id) {
    __asm__ volatile("cli");
    wrmsr(X86_MSR_APIC_BASE, rdmsr(X86_MSR_APIC_BASE) | 1u << 10);
    __atomic_add_fetch(&switched, 1, __ATOMIC_SEQ_CST);
    while (!x2)
        __asm__ volatile("pause");
    __asm__ volatile("sti");
}

static void x2apic(void) {
    uint32_t r[4];

    cpuid(1, 0, r);
    if (!(r[2] & 1u << 21))
        return;
    for (unsigned n = 1; n < cpus; n++)
        give(n, to_x2);
    while (switched != cpus - 1)
        __asm__ volatile("pause");
    __asm__ volatile("cli");
    wrmsr(X86_MSR_APIC_BASE, rdmsr(X86_MSR_APIC_BASE) | 1u << 10);
    x2 = true;
    __asm__ volatile("sti");
    for (unsigned n = 1; n < cpus; n++)
        wait_job(n);
    kinds();
    for (unsigned set = 0; set <= EVERY; set++)
        check_eq("x2APIC cluster", who(set, LOGICAL | A, A), set);
    wrmsr(X86_MSR_X2APIC_FIRST + 0x3f, C);
    settle(0);
    rings();
}

/* --- KVM's hypercalls between CPUs --- */

static uint32_t hypercall(uint32_t nr, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    if (cpu_is_amd())
        __asm__ volatile("vmmcall"
                         : "+a"(nr)
                         : "b"(a), "c"(b), "d"(c), "S"(d)
                         : "memory");
    else
        __asm__ volatile("vmcall" : "+a"(nr) : "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return nr;
}

/* Sleeps where no interrupt wakes it. */
static void sleep_deaf(unsigned id) {
    held = true;
    __asm__ volatile("cli\n hlt\n sti" ::: "memory");
}

static volatile bool kicked;

/* The same, once it has been kicked: that ends this sleep. */
static void sleep_kicked(unsigned id) {
    held = true;
    while (!kicked)
        __asm__ volatile("pause");
    sleep_deaf(id);
}

static void kick_sleeper(bool before) {
    held = kicked = false;
    give(1, before ? sleep_kicked : sleep_deaf);
    while (!held)
        __asm__ volatile("pause");
    hypercall(5, 0, 1, 0, 0);
    kicked = true;
    wait_job(1);
}

static void hypercalls(void) {
    uint32_t r[4], before[MAX];

    cpuid(0x40000000, 0, r);
    if (r[1] != 0x4b4d564b)
        return;
    cpuid(0x40000001, 0, r);
    if ((r[0] & 0x2880) != 0x2880)
        return;
    for (unsigned n = 0; n < cpus; n++)
        before[n] = counts[n][A];
    check_eq("IPIs to CPUs 0 and 1", hypercall(10, 3, 0, 0, A), 2);
    settle(0);
    settle(1);
    check_eq("IPIs from the last on", hypercall(10, ~0u, ~0u, cpus - 1, A), 1);
    check_eq("IPIs to nobody", hypercall(10, ~0u, ~0u, cpus, A), 0);
    check_eq("IPIs far away", hypercall(10, ~0u, ~0u, ~0u, A), 0);
    check_eq("a bad vector", hypercall(10, 3, 0, 0, 8), (uint32_t)-22);
    check_eq("a bad mode", hypercall(10, 3, 0, 0, INIT), (uint32_t)-22);
    for (unsigned n = 0; n < cpus; n++) {
        settle(n);
        check_eq("IPIs that have come", counts[n][A] - before[n],
                 (n < 2) + (n == cpus - 1));
    }
    check_eq("yield", hypercall(11, 1, 0, 0, 0), 0);
    check_eq("a kick of nobody", hypercall(5, 0, cpus, 0, 0), 0);
    check_eq("no such hypercall", hypercall(99, 0, 0, 0, 0), (uint32_t)-1000);
    for (unsigned n = 0; n < 100; n++)
        kick_sleeper(n % 2);
}

void guest_main(void) {
    begin();
    hypercalls();
    if (guest_option("calls", 0)) /* no more */
        return;
    kinds();
    logical();
    priorities();
    rings();
    inits();
    nmis();
    devices();
    everywhere(tscs);
    x2apic();
    __asm__ volatile("cli");
}
