/* Shared by the files of the bare machine; see bare.h. */
#ifndef BARE_BARE_INT_H
#define BARE_BARE_INT_H

#include "bare/bare.h"

#define BARE_VECTOR_TIMER 0x20u
#define BARE_VECTOR_SERIAL 0x21u
#define BARE_VECTOR_SPURIOUS 0xffu

/* What trap.S leaves on the stack; general registers in the order of enum vcpu_reg. */
struct bare_frame {
    uint64_t gpr[16];
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* --- start.S, bare.ld --- */
extern const uint8_t bare_vectors[];
extern uint8_t bare_image[], bare_text_end[], bare_rodata_end[], bare_image_end[];
extern uint8_t bare_tls[], bare_tls_data[], bare_tls_size[];

/* --- enter.S --- */
void bare_vmrun(uint64_t vmcb, uint64_t *gpr, uint64_t host);

/* --- frames.c --- */
/* [START, END) is memory that nobody uses. */
void bare_frames_add(uint64_t start, uint64_t end);
/* The highest address of all that was added. */
uint64_t bare_frames_top(void);

/* --- page.c --- */
#define BARE_DEMAND 0x400000000000ull /* pages that come when they are touched */
#define BARE_CODE 0x410000000000ull   /* executable aliases */
#define BARE_NOWHERE 0x420000000000ull

/* The final tables: memory one to one up to TOP, and no longer executable. */
void bare_paging_start(uint64_t top);
/* The page at VIRT is FRAME from now on, with FLAGS of x86/pte.h. False: no memory. */
bool bare_map(uint64_t virt, uint64_t frame, uint64_t flags);
/* It is nothing; the frame that it was, or 0. */
uint64_t bare_unmap(uint64_t virt);
/* SIZE zeroed bytes of addresses, whole pages with gaps around them, whose pages come
 * when they are touched. NULL: there is no room. */
void *bare_demand(uint64_t size);
void bare_demand_free(void *p);
void bare_demand_zero(void *p, uint64_t size);
/* A page fault at ADDR: true when a page has come. */
bool bare_demand_fault(uint64_t addr);
/* COUNT pages of addresses for aliases; 0: there is no room. */
uint64_t bare_code_room(uint64_t pages);

/* --- trap.c --- */
void bare_traps_start(void);
void bare_trap(struct bare_frame *f);
/* Offers a fault to os_fault_range()'s; true: go on. (os.c) */
bool bare_offer_fault(struct bare_frame *f, uint64_t addr);

/* --- serial.c --- */
void bare_serial_start(void);
void bare_serial_interrupt(void);

/* --- timer.c --- */
void bare_time_start(void);
void bare_timer_start(void);
/* An interrupt that is not an exception. */
void bare_interrupt(unsigned vector);
uint64_t bare_ticks_of(uint64_t ns); /* of the TSC */

/* --- end.c --- */
/* bare_end() writes its status to the debug-exit port. */
void bare_end_tells(void);

/* --- boot.c --- */
void bare_start(uint32_t magic, uint32_t info);

/* --- ports --- */
static inline void bare_out(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t bare_in(uint16_t port) {
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint64_t bare_rdmsr(uint32_t msr) {
    uint32_t lo, hi;

    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (uint64_t)hi << 32;
}
static inline void bare_wrmsr(uint32_t msr, uint64_t value) {
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}
static inline void bare_cpuid(uint32_t leaf, uint32_t r[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(0));
}

#endif
