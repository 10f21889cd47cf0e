/*
 * A guest in 64-bit mode at CPL 0, on the translator, for tests that run a few
 * instructions of assembly: pages of 4 KiB for the first 2 MiB, of 2 MiB after, all at
 * their own addresses; every exception goes to HANDLER, which halts. One a program.
 */
#ifndef LIB_LONG_H
#define LIB_LONG_H

#include "lib/single.h"
#include "x86/pte.h"

enum {
    RAM = 16 << 20,
    IDT = 0x1000,
    PML4 = 0x2000,
    PDPT = 0x3000,
    PD = 0x4000,
    PT = 0x5000,
    GDT = 0x6000,
    HANDLER = 0x7000,
    CODE = 0x10000,
    STACK = 0x80000,
    LARGE = 0x400000, /* a large page that is remapped */
    OTHER = 0x600000, /* to this */
};
#define RWP (X86_PTE_P | X86_PTE_W)

/* All addresses without memory are one register. */
extern uint64_t long_device;

/* A setup of cmocka's group: makes G, without a translator yet. */
int long_setup(void **state);
int long_teardown(void **state);
/* The translator with these options of --bt, its verifier on: a finding ends the run. */
void long_use(const char *options);
/* Tables and registers as at the beginning, at CODE. */
void long_start(void);

/* Assembly as bytes, NAME_begin to NAME_end, and their way into the guest's RAM. */
#define BLOB(name, text)                                                                 \
    extern const uint8_t name##_begin[], name##_end[];                                   \
    __asm__(".pushsection .rodata\n" #name "_begin:\n" text "\n" #name                   \
            "_end:\n.popsection\n")

#define PLACE(name, at)                                                                  \
    guest_write(&G, at, name##_begin, (size_t)(name##_end - name##_begin))

#endif
