/*
 * The configuration space of the host's PCI functions, by configuration mechanism 1. PCI
 * Local Bus Specification 3.0, "Software Generation of Configuration Transactions".
 *
 * Locking: one lock for the two ports.
 */
#include "bare/bare_int.h"

#define ADDRESS 0xcf8
#define DATA 0xcfc
#define ENABLE (1u << 31)

static struct bare_lock lock;

static void select(uint16_t where, unsigned at) {
    __asm__ volatile("outl %0, %1"
                     :
                     : "a"(ENABLE | (uint32_t)where << 8 | (at & 0xfc)),
                       "Nd"((uint16_t)ADDRESS));
}

uint32_t bare_pci_read(uint16_t where, unsigned at) {
    uint64_t flags = bare_lock(&lock);
    uint32_t value;

    select(where, at);
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"((uint16_t)DATA));
    bare_unlock(&lock, flags);
    return value;
}

void bare_pci_write(uint16_t where, unsigned at, uint32_t value) {
    uint64_t flags = bare_lock(&lock);

    select(where, at);
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"((uint16_t)DATA));
    bare_unlock(&lock, flags);
}
