/*
 * Memory-mapped registers reached by every kind of instruction: an engine that emulates
 * only some of them in front of a device shows here. The register is the lower half of an
 * I/O APIC entry that stays masked; the A20 gate closes and opens around RAM.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define IOAPIC 0xfec00000ul
#define WINDOW (IOAPIC + 0x10)
#define ENTRY 0x1a /* lower half of input 5 */
#define MASKED 0x10000u
#define B BITS("ebx", "rbx")
#define SP BITS("esp", "rsp")
#define WORD BITS("4", "8")

static uint32_t entry(void) {
    *(volatile uint32_t *)IOAPIC = ENTRY;
    return *(volatile uint32_t *)WINDOW;
}

static void set_entry(uint32_t v) {
    *(volatile uint32_t *)IOAPIC = ENTRY;
    *(volatile uint32_t *)WINDOW = v;
}

/* Runs the snippet with [bx] the register, holding MASKED | 0x12, ax 5 and cx MASKED |
 * 0x56; then ax and the register must be as told. */
static void try(const char *what, void *code, ulong ax, uint32_t want_ax, uint32_t want) {
    set_entry(MASKED | 0x12);
    regs_kernel();
    in.bx = in.si = in.di = WINDOW;
    in.ax = ax;
    in.cx = MASKED | 0x56;
    unsigned v = run(code);
    check(v == DONE && (uint32_t)trap.r.ax == want_ax && entry() == want,
          "%s: vector %u ax 0x%lx, want 0x%x; register 0x%x, want 0x%x", what, v,
          trap.r.ax, want_ax, entry(), want);
}

#define TRY(text, ax, want_ax, want) try(text, CODE(text), ax, want_ax, want)
#define SAME (MASKED | 0x12)

static void integer(void) {
    TRY("mov eax, [" B "]", 5, SAME, SAME);
    if (!cpu_is_tcg()) { /* its register reads as 0 in pieces */
        TRY("movzx eax, byte ptr [" B "]", 5, 0x12, SAME);
        TRY("movsx eax, word ptr [" B "]", 5, 0x12, SAME);
    }
    TRY("add eax, [" B "]", 5, SAME + 5, SAME);
    TRY("cmp eax, [" B "]\nsbb eax, eax", 5, 0xffffffff, SAME);
    TRY("test [" B "], eax\nsetz al", 5, 1, SAME);
    TRY("imul eax, [" B "], 3", 5, SAME * 3, SAME);
    TRY("bsf eax, [" B "]", 5, 1, SAME);
    TRY("bt dword ptr [" B "], 4\nsbb eax, eax", 5, 0xffffffff, SAME);
    TRY("mul dword ptr [" B "]", 5, SAME * 5, SAME);
    TRY("cmovnz eax, [" B "]\nor eax, 0", 5, SAME, SAME);
    TRY("mov [" B "], ecx", 5, 5, MASKED | 0x56);
    TRY("add [" B "], eax", 5, 5, SAME + 5);
    TRY("inc dword ptr [" B "]", 5, 5, SAME + 1);
    TRY("or dword ptr [" B "], 1", 5, 5, SAME | 1);
    TRY("xchg [" B "], ecx\nmov eax, ecx", 5, SAME, MASKED | 0x56);
    TRY("lock cmpxchg [" B "], ecx", SAME, SAME, MASKED | 0x56);
    TRY("lock cmpxchg [" B "], ecx", 5, SAME, SAME);
    TRY("lock xadd [" B "], eax", 5, SAME, SAME + 5);
    TRY("lock bts dword ptr [" B "], 3", 5, 5, SAME | 8);
    TRY("shld [" B "], eax, 0", 5, 5, SAME);
}

static void strings(void) {
    TRY("lodsd", 5, SAME, SAME);
    TRY("mov eax, ecx\nstosd", 5, MASKED | 0x56, MASKED | 0x56);
    TRY("scasd\nsbb eax, eax", 5, 0xffffffff, SAME);
    TRY("push 0\nmov " BITS("edi, esp", "rdi, rsp") "\nmovsd\npop " BITS("eax", "rax"), 5,
        SAME, SAME);
    TRY("push " BITS("ecx", "rcx") "\nmov " BITS(
            "esi, esp", "rsi, rsp") "\nmovsd\npop " BITS("ecx", "rcx"),
        5, 5, MASKED | 0x56);
}

static void x87(void) {
    TRY("fninit\nfild dword ptr [" B "]\npush 0\nfistp dword ptr [" SP
        "]\npop " BITS("eax", "rax"),
        5, SAME, SAME);
    TRY("fninit\npush " BITS("ecx", "rcx") "\nfild dword ptr [" SP
                                           "]\nfistp dword ptr [" B
                                           "]\npop " BITS("ecx", "rcx"),
        5, 5, MASKED | 0x56);
    TRY("fninit\nfldz\nfiadd dword ptr [" B "]\npush 0\nfistp dword ptr [" SP
        "]\npop " BITS("eax", "rax"),
        5, SAME, SAME);
}

static void sse(void) {
    write_cr4(read_cr4() | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
    TRY("movd xmm0, dword ptr [" B "]\nmovd eax, xmm0", 5, SAME, SAME);
    TRY("movd xmm0, ecx\nmovd dword ptr [" B "], xmm0", 5, 5, MASKED | 0x56);
    TRY("movss xmm0, dword ptr [" B "]\nmovd eax, xmm0", 5, SAME, SAME);
    TRY("cvtsi2ss xmm0, dword ptr [" B "]\ncvttss2si eax, xmm0", 5, SAME, SAME);
    TRY("movups xmm0, [" B "]\nmovd eax, xmm0", 5, SAME, SAME);
    TRY("pxor xmm0, xmm0\npaddd xmm0, [" B "]\nmovd eax, xmm0", 5, SAME, SAME);
    if (!cpu_is_tcg())
        TRY("pxor xmm0, xmm0\npinsrw xmm0, word ptr [" B "], 0\nmovd eax, xmm0", 5, 0x12,
            SAME);
    TRY("movd mm0, dword ptr [" B "]\nmovd eax, mm0\nemms", 5, SAME, SAME);
}

/*
 * With the gate closed, address bit 20 is 0: the second MiB is the first. This guest lies
 * in the second, so it is copied to where it then seems to be, and runs there without a
 * store while the gate is closed.
 */
static void a20(void) {
    volatile uint8_t *low = (uint8_t *)0x90600, *high = (uint8_t *)0x190600;
    uint8_t port = inb(0x92), value = port & ~2, closed, open;

    memcpy((void *)0x100, (void *)0x100100, 0x7ff00);
    *low = 0x5a;
    *high = 0xa5;
    __asm__ volatile("outb %b2, $0x92\nmovb (%4), %0\n"
                     "movb %b3, %%al\noutb %%al, $0x92\nmovb (%4), %1"
                     : "=&c"(closed), "=&d"(open), "+a"(value)
                     : "b"(port | 2), "S"(high)
                     : "memory");
    check_eq("with A20 closed", closed, 0x5a);
    check_eq("with A20 open again", open, 0xa5);
}

void guest_main(void) {
    integer();
    strings();
    x87();
    sse();
    a20();
    set_entry(MASKED);
}
