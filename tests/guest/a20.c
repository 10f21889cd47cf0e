/*
 * The A20 gate, closed and opened by port 92h and both ways of the 8042: while it is
 * closed, bit 20 of every physical address is 0, of data, code, page tables, descriptor
 * tables and stacks alike. The guest itself lies in an odd MiB; it moves to an even one
 * and maps that where it was linked to, so that it runs on.
 *
 * Intel SDM volume 3, "8086 Emulation", and AMD64 APM volume 2, "Real Mode": A20M# masks
 * physical address bit 20, whatever the mode and after translation.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define IMAGE 0x100000ul
#define COPY 0x2000000ul
#define EVEN 0x1800000ul /* a MiB whose bit 20 is 0, and its twin */
#define ODD 0x1900000ul
#define BIT20 0x100000ul
/* Pages as in `pages`, where no table but the lowest is the guest's own. */
#define WINDOW BITS(0x48000000ul, 0x8048000000ul)
#define B BITS("ebx", "rbx")
#define D BITS("edx", "rdx")

#define LDT_AT 0x8000ul /* in both MiB: an LDT, page tables, data */
#define TABLES_AT 0x10000ul
#define DATA_AT 0x40000ul

static const ulong pages[] = {EVEN, ODD, EVEN + 0xff000, ODD, ODD + 0xff000, EVEN};

extern uint8_t image_end[];
static struct space s;
static unsigned cases, bad, turn;

static void judge(bool ok, const char *what, ulong at, bool closed, uint64_t got,
                  uint64_t want) {
    cases++;
    digest_add(got);
    if (!ok && bad++ < 20)
        printf("# %s at 0x%lx, gate %s: 0x%llx, want 0x%llx\n", what, at,
               closed ? "closed" : "open", (unsigned long long)got,
               (unsigned long long)want);
}

/* --- the gate --- */

static void kbc_wait(void) {
    while (inb(0x64) & 2)
        ;
}

/* By each of the three ways in turn. */
static void gate(bool open) {
    switch (turn++ % 3) {
    case 0:
        outb(0x92, (uint8_t)((inb(0x92) & ~3) | (open ? 2 : 0)));
        break;
    case 1: /* write the output port; bit 0 is the reset line */
        kbc_wait();
        outb(0x64, 0xd1);
        kbc_wait();
        outb(0x60, open ? 0xdf : 0xdd);
        break;
    default:
        kbc_wait();
        outb(0x64, open ? 0xdf : 0xdd);
        break;
    }
    kbc_wait();
}

static bool gate_is_open(void) {
    kbc_wait();
    outb(0x64, 0xd0);
    while (!(inb(0x64) & 1))
        ;
    return inb(0x60) & 2;
}

static void positions(void) {
    for (unsigned k = 0; k < 12; k++) {
        bool open = k & 1;
        gate(open);
        judge(gate_is_open() == open, "output port, bit 1", 0x64, !open, k, k);
        judge((inb(0x92) >> 1 & 1) == open, "port 92h, bit 1", 0x92, !open, k, k);
    }
    gate(true);
}

/* --- the address space --- */

static void map_all(enum space_kind kind) {
    ulong end = kind == SPACE_32 ? 0x400000 : 0x200000;
    space_new(&s, kind, RWU);
    space_set(&s, 0, 2, 0);
    for (ulong a = 0; a < end; a += 4096) {
        bool moved = a >= IMAGE && a < (ulong)image_end;
        space_map(&s, a, moved ? a - IMAGE + COPY : a, RWU, 1);
    }
    for (unsigned k = 0; k < COUNT(pages); k++)
        space_map(&s, WINDOW + 4096 * k, pages[k], RWU, 1);
}

/* The stack moves, too: nothing may be pushed between the copy and the new CR3. */
static void move_in(void) {
    ulong len = (ulong)image_end - IMAGE;
    __asm__ volatile("rep movsb\nmov %3, %%cr3"
                     : "+c"(len)
                     : "S"(IMAGE), "D"(COPY), "r"(s.root)
                     : "memory");
}

#ifndef __x86_64__
/* From one kind of paging to another: in between the old copy's code runs, but nothing
 * of its data is used. */
static void change_kind(ulong cr4) {
    ulong cr0 = read_cr0();
    __asm__ volatile("mov %0, %%cr0\nmov %1, %%cr4\nmov %2, %%cr3\nmov %3, %%cr0" ::"r"(
                         cr0 & ~X86_CR0_PG),
                     "r"(cr4), "r"(s.root), "r"(cr0 | X86_CR0_PG)
                     : "memory");
}
#endif

static ulong masked(ulong physical, bool closed) {
    return closed ? physical & ~BIT20 : physical;
}

/* Where a byte of the window lies. */
static ulong physical(ulong va) {
    ulong off = va - WINDOW;
    return pages[off / 4096] + off % 4096;
}

/* --- data --- */

static uint8_t pattern(ulong p) {
    return (uint8_t)(p * 7 + (p >> 8) * 13 + (p >> 16) * 29 + (p >> 20) * 101);
}

static void fill(void) {
    for (unsigned k = 0; k < COUNT(pages); k++)
        for (ulong off = 0; off < 4096; off++)
            *(volatile uint8_t *)(pages[k] + off) = pattern(pages[k] + off);
}

enum { LOAD, STORE, ADD, MOVS, STOS, KINDS };

static void *snippet(unsigned kind, unsigned size) {
    switch (kind * 16 + size) {
    case LOAD * 16 + 1:
        return CODE("movzx eax, byte ptr [" B "]");
    case LOAD * 16 + 2:
        return CODE("movzx eax, word ptr [" B "]");
    case LOAD * 16 + 4:
        return CODE("mov eax, [" B "]");
    case STORE * 16 + 1:
        return CODE("mov [" B "], cl");
    case STORE * 16 + 2:
        return CODE("mov [" B "], cx");
    case STORE * 16 + 4:
        return CODE("mov [" B "], ecx");
    case ADD * 16 + 1:
        return CODE("add [" B "], cl");
    case ADD * 16 + 2:
        return CODE("add [" B "], cx");
    case ADD * 16 + 4:
        return CODE("lock add [" B "], ecx");
    case MOVS * 16 + 1:
    case MOVS * 16 + 2:
    case MOVS * 16 + 4:
        return CODE("mov " BITS("esi", "rsi") ", " B "\nmov " BITS(
            "edi", "rdi") ", " D "\nmov ecx, ebp\nrep movsb\nmov eax, [" D "]");
    default:
        return CODE("mov " BITS("edi", "rdi") ", " B
                                              "\nmov eax, ecx\nmov ecx, ebp\nrep stosb");
    }
}

/* SIZE bytes of a value: what one access at VA moves. */
static void expected(unsigned kind, ulong va, unsigned size, bool closed, uint8_t *old,
                     uint8_t *now) {
    uint32_t add = 0x31425364, carry = 0;
    for (unsigned k = 0; k < size; k++) {
        old[k] = *(volatile uint8_t *)masked(physical(va + k), closed);
        uint32_t sum = old[k] + (add >> 8 * k & 0xff) + carry;
        carry = sum >> 8;
        now[k] = kind == ADD     ? (uint8_t)sum
                 : kind == STORE ? (uint8_t)(add >> 8 * k)
                 : kind == STOS  ? (uint8_t)add
                                 : old[k];
    }
}

static void access(unsigned kind, ulong va, unsigned size, bool closed, bool user) {
    static uint32_t target;
    uint8_t old[4], now[4];
    uint32_t value = 0, want = 0;
    if (user)
        regs_user();
    else
        regs_kernel();
    expected(kind, va, size, closed, old, now);
    target = 0;
    in.bx = va, in.cx = 0x31425364, in.dx = (ulong)&target, in.bp = size;
    void *code = snippet(kind, size);
    gate(!closed);
    unsigned v = run(code);
    gate(true);
    judge(v == DONE, "vector", va, closed, v, DONE);
    memcpy(&want, old, size);
    if (kind == LOAD || kind == MOVS)
        judge((uint32_t)trap.r.ax == want, "read", va, closed, trap.r.ax, want);
    want = 0;
    memcpy(&want, now, size);
    for (unsigned k = 0; k < size; k++) {
        volatile uint8_t *at = (uint8_t *)masked(physical(va + k), closed);
        volatile uint8_t *other = (uint8_t *)((ulong)at ^ BIT20);
        value |= (uint32_t)*at << 8 * k;
        *at = pattern((ulong)at);
        judge(*other == pattern((ulong)other), "the other MiB", (ulong)other, closed,
              *other, pattern((ulong)other));
    }
    judge(value == want, "in memory", va, closed, value, want);
}

static void data(void) {
    static const ulong offsets[] = {0,      0x7fc,  0xffc,  0xffd,  0xffe,  0xfff,
                                    0x1000, 0x1ffe, 0x2ffd, 0x2fff, 0x3000, 0x3fff,
                                    0x4123, 0x4ffd, 0x4ffe, 0x5ff0};
    fill();
    for (unsigned k = 0; k < COUNT(offsets); k++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            for (unsigned size = 1; size <= 4; size *= 2) {
                for (unsigned n = 0; n < 4; n++)
                    access(kind, WINDOW + offsets[k], size, n & 1, n & 2);
            }
        }
    }
}

/* A large page that holds both: its offset has the bit. */
static void large(void) {
    fill();
    for (ulong p = ODD - 4; p < ODD + 4; p++) {
        for (unsigned closed = 0; closed < 2; closed++) {
            uint32_t want = 0;
            for (unsigned k = 0; k < 4; k++)
                want |= (uint32_t)pattern(masked(p + k, closed)) << 8 * k;
            regs_user();
            in.bx = p;
            void *code = snippet(LOAD, 4);
            gate(!closed);
            unsigned v = run(code);
            gate(true);
            judge(v == DONE && (uint32_t)trap.r.ax == want, "large page", p, closed,
                  trap.r.ax, want);
        }
    }
}

/* --- code --- */

static void put_code(ulong at, uint8_t value) {
    const uint8_t text[] = {0xb8, value, 0, 0, 0, 0xcd, DONE};
    for (unsigned k = 0; k < sizeof(text); k++)
        ((volatile uint8_t *)at)[k] = text[k];
}

/* Code runs at VA often enough to be translated, and at every position of the gate. */
static void fetch_at(ulong va, const char *what, ulong open, ulong closed) {
    for (unsigned k = 0; k < 40; k++) {
        bool shut = k & 1;
        regs_user();
        gate(!shut);
        unsigned v = run((void *)va);
        gate(true);
        judge(v == DONE && trap.r.ax == (shut ? closed : open), what, va, shut, trap.r.ax,
              shut ? closed : open);
    }
}

static void fetch(void) {
    put_code(EVEN + 0x100, 1);
    put_code(ODD + 0x100, 2);
    fetch_at(WINDOW + 0x1100, "code", 2, 1);
    fetch_at(WINDOW + 0x100, "code below", 1, 1);
    fetch_at(ODD + 0x100, "code in a large page", 2, 1);
    /* What is written to the odd MiB while the gate is closed is the code of the even. */
    gate(false);
    put_code(WINDOW + 0x1100, 3);
    gate(true);
    fetch_at(WINDOW + 0x1100, "code that was written", 2, 3);
    fetch_at(WINDOW + 0x100, "code below that was written", 3, 3);
    put_code(ODD + 0x100, 4);
    fetch_at(WINDOW + 0x1100, "code that was written above", 4, 3);
    /* An instruction that begins in the last page of the even MiB. */
    put_code(EVEN + 0xffffe, 5); /* spills into the odd one */
    put_code(EVEN - 2, 6);       /* and the same bytes into the even one */
    ((volatile uint8_t *)EVEN)[0] = 7;
    fetch_at(WINDOW + 0x2ffe, "code across", 5, 0x705);
}

/* --- page tables --- */

static ulong entry_size(void) {
    return s.kind == SPACE_32 ? 4 : 8;
}

static uint64_t entry_at(ulong table, ulong index) {
    return entry_size() == 4 ? ((volatile uint32_t *)table)[index]
                             : ((volatile uint64_t *)table)[index];
}

static void entry_put(ulong table, ulong index, uint64_t v) {
    if (entry_size() == 4)
        ((volatile uint32_t *)table)[index] = (uint32_t)v;
    else
        ((volatile uint64_t *)table)[index] = v;
}

static int top(void) {
    return s.kind == SPACE_32 ? 2 : s.kind == SPACE_PAE ? 3 : 4;
}

static ulong index_of(ulong va, int level) {
    return s.kind == SPACE_32 ? va >> (12 + 10 * (level - 1)) & 1023
                              : va >> (12 + 9 * (level - 1)) & 511;
}

/* The table of LEVEL that maps WINDOW is replaced by one in the odd MiB, whose twin in
 * the even MiB differs in the entry for WINDOW: `other` leads to another page. */
static void walk_level(int level) {
    ulong even = EVEN + TABLES_AT + (ulong)level * 0x2000, odd = even + BIT20;
    ulong table = level == top() ? s.root : space_get(&s, WINDOW, level + 1) & ~0xffful;
    ulong i = index_of(WINDOW, level);
    static struct space twin;
    twin.kind = s.kind;
    twin.root = (ulong)page_alloc();
    space_map(&twin, WINDOW, EVEN + DATA_AT + 0x1000, RWU, 1);
    space_map(&twin, WINDOW + 4096, EVEN + DATA_AT + 0x1000, RWU, 1);
    uint64_t mine = entry_at(table, i), other = space_get(&twin, WINDOW, level);
    memcpy((void *)even, (void *)table, 4096);
    memcpy((void *)odd, (void *)table, 4096);
    uint64_t up = level < top() ? space_get(&s, WINDOW, level + 1) : 0;
    ulong cr3 = s.root;
    if (level < top())
        space_set(&s, WINDOW, level + 1, (up & 0xfff) | odd);
    else
        cr3 = odd;
    for (unsigned k = 0; k < 8; k++) {
        bool closed = k & 1;
        uint64_t clean = ~(uint64_t)(X86_PTE_A | X86_PTE_D);
        entry_put(even, i, other & clean);
        entry_put(odd, i, mine & clean);
        regs_user();
        in.bx = WINDOW;
        in.cx = 0x77;
        void *code = CODE("mov eax, [" B "]\nmov [" B " + 4], ecx");
        gate(!closed);
        write_cr3(cr3);
        unsigned v = run(code);
        gate(true);
        write_cr3(cr3);
        ulong want = closed ? 0xd1d1d1d1 : 0xd0d0d0d0;
        judge(v == DONE && trap.r.ax == want, "through tables", (ulong)level, closed,
              trap.r.ax, want);
        if (s.kind == SPACE_PAE && level == 3)
            continue; /* no A bit there */
        uint64_t a = entry_at(even, i) & X86_PTE_A, b = entry_at(odd, i) & X86_PTE_A;
        judge(!a == !closed && !b == closed, "accessed bits", (ulong)level, closed,
              a | b << 8, 0);
    }
    if (level < top())
        space_set(&s, WINDOW, level + 1, up);
    write_cr3(s.root);
}

static void walks(void) {
    volatile uint32_t *data0 = (uint32_t *)(EVEN + DATA_AT);
    data0[0] = 0xd0d0d0d0;
    data0[0x400] = 0xd1d1d1d1;
    space_map(&s, WINDOW, EVEN + DATA_AT, RWU, 1);
    for (int level = 1; level <= top(); level++)
        walk_level(level);
    space_map(&s, WINDOW, pages[0], RWU, 1);
    invlpg(WINDOW);
}

/* --- what the processor does by itself --- */

/* A descriptor: present in the even MiB, not in the odd one. */
static void descriptors(void) {
    uint64_t d = seg_desc(
        0, ~0u, X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_DB | X86_AR_G | X86_AR_DPL);
    void *code = CODE("mov es, eax");
    gdt_set_sys(LDT_SEL, WINDOW + 0x1000, 0xfff, X86_AR_P | X86_DESC_LDT);
    __asm__ volatile("lldt %w0" ::"r"(LDT_SEL));
    for (unsigned k = 0; k < 8; k++) {
        bool closed = k & 1;
        ((volatile uint64_t *)EVEN)[1] = d;
        ((volatile uint64_t *)ODD)[1] = d & ~(1ull << 47);
        regs_user();
        in.ax = 1 << 3 | 7;
        gate(!closed);
        unsigned v = run(code);
        gate(true);
        judge(v == (closed ? DONE : X86_NP), "descriptor", ODD, closed, v, 0);
        bool marked = ((volatile uint64_t *)EVEN)[1] >> 40 & 1;
        judge(marked == closed, "its accessed bit", EVEN, closed, marked, closed);
    }
    __asm__ volatile("lldt %w0" ::"r"(0));
}

static void frames(void) {
    ulong top_of = WINDOW + 0x1800;
    void *code = CODE("nop");
    for (unsigned k = 0; k < 8; k++) {
        bool closed = k & 1;
        /* ss, sp, flags, cs, ip: cs is the fourth. */
        volatile ulong *even = (ulong *)(EVEN + 0x800), *odd = (ulong *)(ODD + 0x800);
        memset((void *)(EVEN), 0, 4096);
        memset((void *)(ODD), 0, 4096);
        regs_user();
#ifdef __x86_64__
        ulong saved = tss.rsp[0];
        tss.rsp[0] = top_of;
        gate(!closed);
        unsigned v = run(code);
        tss.rsp[0] = saved;
#else
        ulong saved = tss.esp0;
        tss.esp0 = (uint32_t)top_of;
        gate(!closed);
        unsigned v = run(code);
        tss.esp0 = (uint32_t)saved;
#endif
        gate(true);
        judge(v == DONE && trap.r.cs == UCS, "interrupt", top_of, closed, v, DONE);
        judge(even[-4] == (closed ? UCS : 0), "its frame", EVEN, closed, even[-4], UCS);
        judge(odd[-4] == (closed ? 0 : UCS), "its frame", ODD, closed, odd[-4], UCS);
    }
}

static void all(void) {
    if (!cpu_is_tcg()) /* there each port tells only what it was told */
        positions();
    data();
    large();
    fetch();
    walks();
    descriptors();
    frames();
}

void guest_main(void) {
#ifdef __x86_64__
    map_all(SPACE_LONG);
    move_in();
    all();
#else
    map_all(SPACE_32);
    static struct space first;
    space_new(&first, SPACE_32, RWU);
    space_load(&first);
    move_in();
    all();
    map_all(SPACE_PAE);
    change_kind((read_cr4() & ~(ulong)X86_CR4_PSE) | X86_CR4_PAE);
    all();
#endif
    check(!bad, "%u of %u cases", bad, cases);
    note("%u cases", cases);
    digest_print();
}
