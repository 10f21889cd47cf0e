/*
 * frob: a kernel that does nothing but measure, in cycles of the time-stamp counter, what
 * single operations cost: the nanobenchmarks of Adams and Agesen (ASPLOS 2006,
 * section 6.3) and more. One source, built for 32 bits (paging without PAE) and for long
 * mode.
 *
 * What it finds goes to the serial port, a line for each finding, KEY=VALUE pairs after a
 * first word (docs/comparison.md lists them). It ends through isa-debug-exit: value 0 all
 * good, 1 a check failed, 2 it could not go on. Where that port does nothing, on a real
 * machine, it says that it is done and halts.
 *
 * Each benchmark proves that what it timed has happened: faults are counted, interrupts
 * are counted, memory is read back. A wrong result is a failure, whatever the time.
 *
 * Rests on src/x86 and on nothing else.
 */
#ifndef FROB_H
#define FROB_H

/* Selectors: a ring has code and data after it, but for CPL 3, whose order is what SYSRET
 * wants (data, then code) in 64 bits, where they are Linux's, with which user code can be
 * run directly; and what SYSEXIT wants (code, then data) in 32. */
#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#ifdef __x86_64__
#define RING1_CS 0x19
#define RING1_DS 0x21
#define USER_DS 0x2b
#define USER_CS 0x33
#define DATA 0 /* in DS and ES, at every ring */
#else
#define USER_CS 0x1b
#define USER_DS 0x23
#define RING1_CS 0x29
#define RING1_DS 0x31
#define DATA USER_DS
#endif
#define RING2_CS 0x3a
#define RING2_DS 0x42
#define TSS_SELECTOR 0x48 /* two slots in 64 bits */
#define GDT_SLOTS 12

#define IPI_VECTOR 0x40
#define TIMER_VECTOR 0x41
#define SPURIOUS_VECTOR 0xff

#define USER_STACK_SIZE 16384
#define TRAP_STACK_SIZE 16384

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/msr.h"
#include "x86/pte.h"

typedef unsigned long ulong;

#ifdef __x86_64__
#define FROB_BITS 64
#else
#define FROB_BITS 32
#endif
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- trap.S --- */
extern volatile ulong fault_count; /* by the short handlers */
extern volatile ulong fault_error;
extern volatile ulong irq_count;
extern volatile ulong next_root; /* for on_switch */
extern ulong apic_eoi;           /* address of the local APIC's EOI register */
extern uint8_t user_stack[USER_STACK_SIZE], trap_stack[TRAP_STACK_SIZE];
extern uint8_t trap_stubs[256][16];
void on_page_fault(void);
void on_divide_error(void);
void on_int80(void);
void on_switch(void);
void on_apic_interrupt(void);
void on_syscall(void);
void on_ring_exit(void);
void ring_call(ulong cs, ulong ss, ulong flags, void (*fn)(ulong), ulong arg);
_Noreturn void frob_unexpected(ulong vector, ulong error, ulong ip);

/* As programs are: with interrupts on, of which none comes. */
static inline void user_call(void (*fn)(ulong), ulong arg) {
    ring_call(USER_CS, USER_DS, X86_FL_ONE | X86_FL_IF, fn, arg);
}

/* --- report.c --- */
void report_open(bool screen); /* SCREEN: also on the VGA text screen */
void report_text(const char *s);
void report_uint(uint64_t v);
void report_hex(uint64_t v);
/* HUNDREDTHS as a decimal number. */
void report_hundredths(uint64_t v);
_Noreturn void report_end(unsigned code);
uint64_t div_u64(uint64_t n, uint32_t d);
/* The value of KEY=VALUE in the command line up to the next space, or NULL; *LEN its
 * length. */
const char *option(const char *key, size_t *len);
uint32_t option_uint(const char *key, uint32_t otherwise);
void option_init(const char *cmdline);

/* --- tables.c --- */
void tables_init(void);
/* Interrupt gate; HANDLER NULL: back to the one that gives up. */
void idt_set(unsigned vector, void (*handler)(void), unsigned dpl);
bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit);
enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

/* --- space.c: address spaces --- */
#define WINDOW_PAGES 512
/* Pages of a window's own table, mapped differently in each space. */
struct space {
    ulong root;           /* for CR3 */
    volatile ulong *ptes; /* of the window: WINDOW_PAGES entries */
};
/* The window starts here in every space. */
#define WINDOW BITS_ULONG(0x40000000ul, 0x8000000000ul)
#if FROB_BITS == 64
#define BITS_ULONG(if32, if64) if64
#else
#define BITS_ULONG(if32, if64) if32
#endif
void space_init(ulong memory_end);
/* Zeroed physical memory, identity-mapped. Gives up when there is none. */
void *page_alloc(unsigned pages);
void space_new(struct space *s);
void space_map(struct space *s, unsigned page, const void *to, ulong flags);
void space_use(const struct space *s);
void space_leave(void); /* back to the one without a window */
static inline volatile ulong *window(unsigned page) {
    return (volatile ulong *)(WINDOW + ((ulong)page << X86_PAGE_SHIFT));
}
#define PTE_RWU (X86_PTE_P | X86_PTE_W | X86_PTE_U)

/* --- apic.c --- */
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_EOI 0xb0
#define APIC_SVR 0xf0
#define APIC_ICR_LOW 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0
bool apic_init(void); /* false: this CPU has none */
extern volatile uint32_t *apic;
#define APIC(reg) apic[(reg) / 4]

/* --- measure.c --- */
/*
 * RUN does ROUNDS rounds of PER_ROUND operations each and returns the cycles that they
 * took, without what it did before and after. CHECK, called after all runs, says whether
 * what should have happened in OPS operations did.
 */
struct bench {
    const char *name;
    unsigned per_round;
    bool (*prepare)(void); /* false: not on this CPU; may be NULL */
    uint64_t (*run)(ulong rounds);
    bool (*check)(uint64_t ops);
    void (*finish)(void); /* may be NULL */
    bool load;            /* only when asked for by name */
};
extern const struct bench cpu_benches[], trap_benches[], memory_benches[], apic_benches[],
    load_benches[]; /* each ends with a bench without name */
/* Returns the number of failed checks. */
unsigned measure_all(void);
/* One line about what frob sees of itself. */
bool self_check(const char *name, uint64_t got, uint64_t want);
unsigned self_view(void);

/* --- instructions --- */
static inline void outb(uint16_t port, uint8_t v) {
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port) {
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint64_t rdtsc(void) {
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return lo | (uint64_t)hi << 32;
}
static inline uint64_t rdmsr(uint32_t n) {
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(n));
    return lo | (uint64_t)hi << 32;
}
static inline void wrmsr(uint32_t n, uint64_t v) {
    __asm__ volatile("wrmsr" ::"c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32))
                     : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}
static inline ulong read_cr2(void) {
    ulong v;
    __asm__ volatile("mov %%cr2, %0" : "=r"(v)::"memory");
    return v;
}
static inline void write_cr3(ulong v) {
    __asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}
static inline ulong read_cr4(void) {
    ulong v;
    __asm__ volatile("mov %%cr4, %0" : "=r"(v)::"memory");
    return v;
}
static inline void write_cr4(ulong v) {
    __asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}
static inline void invlpg(const volatile void *at) {
    __asm__ volatile("invlpg (%0)" ::"r"(at) : "memory");
}
static inline ulong read_flags(void) {
    ulong v;
    __asm__ volatile("pushf\npop %0" : "=r"(v)::"memory");
    return v;
}
static inline void sti(void) {
    __asm__ volatile("sti" ::: "memory");
}
static inline void cli(void) {
    __asm__ volatile("cli" ::: "memory");
}

#endif
#endif
