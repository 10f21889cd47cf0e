/* The exit vocabulary: a reason and its qualification (a VMCB's diagnostic fields). */
#ifndef CPU_EXIT_H
#define CPU_EXIT_H

#include "base/types.h"

enum exit_reason {
#define EXIT(name, what) EXIT_##name,
#include "cpu/exit.def"
#undef EXIT
    EXIT_COUNT
};

struct exit {
    enum exit_reason reason;
    bool write;     /* direction as the guest sees it */
    uint8_t size;   /* bytes: 1, 2, 4, and 8 for MMIO and MSRs */
    uint16_t port;  /* EXIT_io */
    uint32_t msr;   /* EXIT_msr */
    struct gpa gpa; /* EXIT_mmio */
    uint64_t data;  /* in for a write, out for a read; EXIT_cpuid: out, APIC_BASE */
    bool failed;    /* out, EXIT_msr: the access is to raise #GP */
};

/* Name and description of a reason; static strings. */
const char *exit_name(enum exit_reason reason);
const char *exit_what(enum exit_reason reason);

#endif
