/*
 * A guest is a themed list of numbered checks. It prints the ones that fail and a last
 * line, and reports through isa-debug-exit (port 0xf4: 0 passed, 1 failed).
 *
 * The one mechanism: run a snippet in any mode and ring from a full set of registers
 * (`in`), until the first trap that no hook takes; `trap` then holds the vector, error
 * code, CR2 and every register as the trap saved them. A snippet that runs to its end
 * stops with vector DONE. So a check reads:
 *
 *     TRY0("div ecx");                        // Intel syntax, ring 0, default registers
 *     expect("div by zero", X86_DE, 0, 0);    // vector, error code, offset of saved ip
 *
 * Built for 32 and for 64 bits. 32-bit guests start with paging off, 64-bit ones with an
 * identity map of 4 GiB that user code may use; segments are flat.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"
#include "x86/msr.h"
#include "x86/pte.h"

typedef unsigned long ulong;

#ifdef __x86_64__
#define LONG_MODE 1
#define BITS(if32, if64) if64
#else
#define LONG_MODE 0
#define BITS(if32, if64) if32
#endif

/* Selectors; the order is what SYSENTER, SYSEXIT, SYSCALL and SYSRET want. */
#define KCS 0x08
#define KDS 0x10
#define UCS32 0x1b
#define UDS 0x23
#define UCS64 0x2b
#define UCS BITS(UCS32, UCS64)
#define KCS32 0x38 /* 32-bit code at ring 0 in both */
#define TSS_SEL 0x40
#define DF_TSS_SEL 0x50 /* 32-bit guests: a second TSS */
#define LDT_SEL 0x58
#define FREE_SEL 0x70 /* from here on the guest's own */
#define GDT_COUNT 48

#define DONE 0x81u /* the vector a snippet ends with */

/* As trap.S lays them out. */
struct regs {
    ulong ds, es, fs, gs;
#ifdef __x86_64__
    ulong r15, r14, r13, r12, r11, r10, r9, r8;
#endif
    ulong di, si, bp, bx, dx, cx, ax;
    ulong sp, ip, cs, flags, ss;
};

struct frame {
    ulong ds, es, fs, gs;
#ifdef __x86_64__
    ulong r15, r14, r13, r12, r11, r10, r9, r8;
#endif
    ulong di, si, bp, bx, dx, cx, ax;
    ulong vector, error;
    ulong ip, cs, flags;
    ulong sp, ss;                         /* 32-bit: only from an outer ring */
    ulong v86_es, v86_ds, v86_fs, v86_gs; /* 32-bit, only from virtual-8086 mode */
};

struct trap {
    unsigned vector;
    ulong error, cr2, dr6;
    ulong entry_sp; /* stack pointer at the handler, after the processor's pushes */
    struct regs r;
};

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t t, iomap;
};

struct tss64 {
    uint32_t res0;
    uint64_t rsp[3];
    uint64_t res1;
    uint64_t ist[7];
    uint64_t res2;
    uint16_t res3, iomap;
} __attribute__((packed));

struct idt_gate {
    uint16_t off0, sel;
    uint8_t ist, ar;
    uint16_t off1;
#ifdef __x86_64__
    uint32_t off2, res;
#endif
};

extern struct regs in;
extern struct trap trap;
extern uint64_t gdt[GDT_COUNT];
extern struct idt_gate idt[256];
#ifdef __x86_64__
extern struct tss64 tss;
#else
extern struct tss32 tss;
extern uint8_t tss_iomap[8192 + 1]; /* follows tss; all ones at the start */
#endif
extern uint8_t run_stack[16384], trap_stack[16384], user_stack[16384], ist_stack[16384];
extern const char guest_name[];

/* The guest itself: called once the CPU's tables are set up. */
void guest_main(void);

/* --- reporting --- */
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vprintf(const char *format, va_list ap);
bool check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* check() that got == want, printing both when not. */
bool check_eq(const char *what, uint64_t got, uint64_t want);
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void guest_exit(void);
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Behind NAME= on the command line (--append); OTHERWISE if it is not there. */
unsigned guest_option(const char *name, unsigned otherwise);

/* --- running snippets --- */
#define ANY (-1L) /* expect(): do not look */

/* A snippet of code in Intel syntax; its value is the address. Its length is in the
 * doubleword before it. */
#define CODE(text)                                                                       \
    ({                                                                                   \
        void *code_;                                                                     \
        __asm__ volatile(".pushsection .snip,\"ax\",@progbits\n.long 889f-888f\n888:\n"  \
                         ".intel_syntax noprefix\n" text "\n.att_syntax prefix\n"        \
                         "int $0x81\n889:\n.popsection\n"                                \
                         "mov $888b, %0"                                                 \
                         : "=r"(code_));                                                 \
        code_;                                                                           \
    })
/* A snippet in which labels 776 and 777 mark places: sets all three addresses. */
#define CODE_PLACES(code, at, mark, text)                                                \
    __asm__ volatile(".pushsection .snip,\"ax\",@progbits\n.long 889f-888f\n888:\n"      \
                     ".intel_syntax noprefix\n" text "\n.att_syntax prefix\n"            \
                     "int $0x81\n889:\n.popsection\n"                                    \
                     "mov $888b, %0\nmov $776b, %1\nmov $777b, %2"                       \
                     : "=&r"(code), "=&r"(at), "=r"(mark))
/* The same, to be run in 32-bit (16-bit) code segments. */
#define CODE32(text) CODE(".code32\n" text "\nint 0x81\n" NATIVE_BITS)
#define CODE16(text) CODE(".code16\n" text "\nint 0x81\n" NATIVE_BITS)
#define NATIVE_BITS BITS(".code32\n", ".code64\n")
#define CODE_LEN(p) (((const uint32_t *)(p))[-1])

void regs_kernel(void); /* `in` as ring 0 would have it */
void regs_user(void);   /* and as ring 3 */
/* Runs `code` from `in`; returns the vector that ended it. */
unsigned run(void *code);
#define TRY0(text) (regs_kernel(), run(CODE(text)))
#define TRY3(text) (regs_user(), run(CODE(text)))
#define RUN(text) run(CODE(text))

/* Checks how the last run ended; error and offset (saved ip from the snippet's start)
 * may be ANY. */
bool expect(const char *what, unsigned vector, long error, long offset);

/* A hook takes a trap before it ends the run: true resumes what was interrupted, from
 * the frame as the hook leaves it. */
typedef bool (*trap_hook)(struct frame *);
extern trap_hook hooks[256];
bool frame_is_outer(const struct frame *f);

/* --- tables --- */
uint64_t seg_desc(uint32_t base, uint32_t limit, uint32_t ar);
void gdt_set(unsigned selector, uint64_t descriptor);
void gdt_set_sys(unsigned selector, ulong base, uint32_t limit, uint32_t ar);
void gdt_set_call_gate(unsigned selector, unsigned target_cs, void (*target)(void),
                       unsigned dpl, unsigned count);
void idt_set(unsigned vector, unsigned cs, void *handler, unsigned type, unsigned dpl);
void idt_reset(unsigned vector); /* back to the recording entry, DPL 3 */
void *idt_stub(unsigned vector);
void idt_load(ulong limit);

/* --- instructions --- */
static inline void outb(uint16_t port, uint8_t v) {
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port) {
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
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
static inline uint64_t rdtsc(void) {
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return lo | (uint64_t)hi << 32;
}
#define CR_ACCESS(n)                                                                     \
    static inline ulong read_cr##n(void) {                                               \
        ulong v;                                                                         \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v)::"memory");                      \
        return v;                                                                        \
    }                                                                                    \
    static inline void write_cr##n(ulong v) {                                            \
        __asm__ volatile("mov %0, %%cr" #n ::"r"(v) : "memory");                         \
    }
CR_ACCESS(0)
CR_ACCESS(2)
CR_ACCESS(3)
CR_ACCESS(4)
#define DR_ACCESS(n)                                                                     \
    static inline ulong read_dr##n(void) {                                               \
        ulong v;                                                                         \
        __asm__ volatile("mov %%db" #n ", %0" : "=r"(v)::"memory");                      \
        return v;                                                                        \
    }                                                                                    \
    static inline void write_dr##n(ulong v) {                                            \
        __asm__ volatile("mov %0, %%db" #n ::"r"(v) : "memory");                         \
    }
DR_ACCESS(0)
DR_ACCESS(1)
DR_ACCESS(2)
DR_ACCESS(3)
DR_ACCESS(6)
DR_ACCESS(7)
static inline void invlpg(ulong va) {
    __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}
static inline void sti(void) {
    __asm__ volatile("sti" ::: "memory");
}
static inline void cli(void) {
    __asm__ volatile("cli" ::: "memory");
}
static inline bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit) {
    uint32_t r[4];
    cpuid(leaf & 0x80000000u, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}
enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };
bool cpu_is_amd(void);
/* QEMU's TCG, the second opinion, is wrong here and there: the checks that it is known
 * to fail are left out on it. */
bool cpu_is_tcg(void);

/* --- what bivisor's software engines must agree on, whatever is right (digest.c) --- */
void digest_add(uint64_t v);
void digest_bytes(const void *at, size_t n);
void digest_print(void); /* for tests/guest/run */

/* The same numbers in each run. */
uint32_t random32(void);

void *memset(void *to, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
static inline bool canonical(uint64_t a) {
    return !LONG_MODE || (uint64_t)((int64_t)(a << 16) >> 16) == a;
}
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- page tables (page.c) --- */
enum space_kind { SPACE_32, SPACE_PAE, SPACE_LONG };
struct space {
    enum space_kind kind;
    ulong root;
};
#define RW (X86_PTE_P | X86_PTE_W)
#define RWU (X86_PTE_P | X86_PTE_W | X86_PTE_U)

/* A zeroed page of physical memory, identity-mapped; never freed. */
void *page_alloc(void);
/* A new address space: an identity map with `flags` of the first 64 MiB and of the
 * APICs, by large pages (32-bit: needs CR4.PSE). */
void space_new(struct space *s, enum space_kind kind, uint64_t flags);
/* Maps at level 1 (4 KiB), 2 (2 or 4 MiB) or 3 (1 GiB); the tables above get P, W, U. */
void space_map(struct space *s, ulong va, uint64_t pa, uint64_t flags, int level);
/* The raw entry for va at a level, level 1 lowest; the tables above must exist. */
uint64_t space_get(struct space *s, ulong va, int level);
void space_set(struct space *s, ulong va, int level, uint64_t entry);
/* Loads CR3, and in 32-bit guests switches paging on (off first when the kind changes).
 */
void space_load(struct space *s);
void paging_off(void); /* 32-bit guests */

#endif
