/* Shared by the files of the bare machine; see bare.h. */
#ifndef BARE_BARE_INT_H
#define BARE_BARE_INT_H

#include "bare/bare.h"

#define BARE_VECTOR_TIMER 0x20u
#define BARE_VECTOR_SERIAL 0x21u
#define BARE_VECTOR_KICK 0x22u
#define BARE_VECTOR_FLUSH 0x23u
#define BARE_VECTOR_DEVICE 0x30u /* to + BARE_IRQS - 1 */
#define BARE_VECTOR_SPURIOUS 0xffu

/* What trap.S leaves on the stack; general registers in the order of enum vcpu_reg. */
struct bare_frame {
    uint64_t gpr[16];
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* What a CPU has of its own. AMD64 APM volume 2, "64-Bit Task State Segment". */
#define BARE_TRAP_STACK 32768u
#define BARE_TRAP_STACKS 3u

struct __attribute__((packed)) bare_tss {
    uint32_t zero;
    uint64_t rsp[3], reserved, ist[7];
    uint8_t rest[10];
    uint16_t io_map;
};
struct bare_cpu {
    uint8_t *stack_top; /* start.S takes it from here */
    unsigned number;
    uint8_t apic;                 /* its local APIC's ID */
    uint32_t present;             /* it has come; atomic */
    const char *no_svm;           /* NULL: it is on */
    void *host_save, *host_state; /* pages for VMRUN and VMLOAD (virt.c) */
    uint32_t flushed;             /* what it has seen of what tlb.c counts; atomic */
    struct bare_tss tss;
    uint64_t gdt[5];
    _Alignas(64) uint8_t tls[2048]; /* thread-local variables */
    _Alignas(16) uint8_t trap_stack[BARE_TRAP_STACKS][BARE_TRAP_STACK];
};

/* A lock that handlers of interrupts may take, too: they are off while it is held. */
struct bare_lock {
    uint32_t held;
};
/* What bare_unlock() is to be given. */
static inline uint64_t bare_lock(struct bare_lock *l) {
    uint64_t flags;

    __asm__ volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory");
    while (__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
    return flags;
}
static inline void bare_unlock(struct bare_lock *l, uint64_t flags) {
    __atomic_store_n(&l->held, 0, __ATOMIC_RELEASE);
    __asm__ volatile("push %0; popfq" : : "r"(flags) : "memory", "cc");
}

/* --- start.S, bare.ld --- */
extern const uint8_t bare_trampoline[], bare_trampoline_end[];
extern uint8_t bare_stack_top[];
extern struct bare_cpu *bare_next; /* whose the next CPU is that comes */
extern const uint8_t bare_vectors[];
extern uint8_t bare_image[], bare_text_end[], bare_rodata_end[], bare_image_end[];
extern uint8_t bare_tls[], bare_tls_data[], bare_tls_size[];

/* --- enter.S --- */
void bare_vmrun(uint64_t vmcb, uint64_t *gpr, uint64_t host);

/* --- cpu.c --- */
extern _Thread_local struct bare_cpu *bare_self;
/* The first one, whose memory is in the image. */
struct bare_cpu *bare_cpu_first(void);
/* This CPU is C: its thread-local variables are there from now on. */
void bare_cpu_is(struct bare_cpu *c);
/* What the rooms take from the CPU is on: XSAVE, vectors. */
void bare_features(void);
/* C is one of bare_cpus(). */
void bare_cpu_add(struct bare_cpu *c);
struct bare_cpu *bare_cpu(unsigned n);

/* --- apic.c: this CPU's local APIC --- */
#define BARE_APIC_EOI 0xb0u
#define BARE_APIC_LVT_TIMER 0x320u
#define BARE_APIC_INITIAL 0x380u
#define BARE_APIC_CURRENT 0x390u
#define BARE_APIC_DIVIDE 0x3e0u
#define BARE_APIC_MASKED 0x10000u /* of an LVT */
#define BARE_APIC_INIT 0x4500u    /* of a command */
#define BARE_APIC_STARTUP 0x4600u
void bare_apic_start(void);
uint32_t bare_apic_get(unsigned reg);
void bare_apic_put(unsigned reg, uint32_t value);
uint8_t bare_apic_id(void);
/* An interrupt command: its low half; to the APIC with that ID, or to all but ours. */
void bare_apic_send(uint8_t id, uint32_t command);
void bare_apic_send_others(uint32_t command);

/* --- tlb.c --- */
/* What other CPUs keep of translations is void: they have dropped it when this returns;
 * or soon. Holds no lock of ours. */
void bare_tlb_flush_others(void);
void bare_tlb_flush_others_soon(void);
void bare_tlb_interrupt(void);

/* --- madt.c: which CPUs the firmware's tables name --- */
/* The physical memory [AT, AT + LEN), or NULL: it is none. */
typedef const uint8_t *bare_look(uint64_t at, uint64_t len);
/* Local APIC IDs of those that can be used, by the MADT or, if there is none, by the MP
 * configuration table; MAX at most. How many; 0: no table. */
unsigned bare_cpus_find(bare_look *look, uint8_t *id, unsigned max);

/* Which pin ISA interrupt LINE is led to instead of its own, by the MADT; false: none
 * other. FLAGS are ACPI's. */
bool bare_irq_override(bare_look *look, unsigned line, unsigned *pin, unsigned *flags);

/* --- ioapic.c --- */
#define BARE_COM1_PIN 4u
/* PIN's entry: its low half, and the local APIC that it goes to. */
void bare_ioapic_set(unsigned pin, uint32_t low, uint8_t apic);
/* VECTOR is one of BARE_VECTOR_DEVICE's. */
void bare_irq_interrupt(unsigned vector);

/* --- cpus.c --- */
void bare_cpus_start(void);
/* Where start.S goes with a CPU that has come. */
void bare_cpu_main(struct bare_cpu *c);

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
/* The same tables on another CPU. */
void bare_paging_join(void);
/* The page at VIRT is FRAME from now on, with FLAGS of x86/pte.h. False: no memory. */
bool bare_map(uint64_t virt, uint64_t frame, uint64_t flags);
/* It is nothing, on this CPU at least (tlb.c); the frame that it was, or 0. */
uint64_t bare_unmap(uint64_t virt);
/* SIZE zeroed bytes of addresses, whole pages with gaps around them, whose pages come
 * when they are touched. NULL: there is no room. */
void *bare_demand(uint64_t size);
void bare_demand_free(void *p);
/* A page fault at ADDR: true when a page has come. */
bool bare_demand_fault(uint64_t addr);
/* COUNT pages of addresses for aliases; 0: there is no room. */
uint64_t bare_code_room(uint64_t pages);

/* --- trap.c --- */
/* On each CPU. */
void bare_traps_start(void);
void bare_trap(struct bare_frame *f);
/* Offers a fault to os_fault_range()'s; true: go on. (os.c) */
bool bare_offer_fault(struct bare_frame *f, uint64_t addr);

/* --- serial.c --- */
void bare_serial_start(void);
void bare_serial_interrupt(void);

/* --- timer.c --- */
void bare_time_start(void);
/* The first CPU's timer is measured and on, and the serial port's interrupts; then each
 * other's timer. */
void bare_timer_start(void);
void bare_timer_join(void);
/* An interrupt that is not an exception. */
void bare_interrupt(unsigned vector);
uint64_t bare_ticks_of(uint64_t ns); /* of the TSC */

/* --- virt.c --- */
/* Turns SVM on, on this CPU, if it can be. */
void bare_svm_start(void);

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
