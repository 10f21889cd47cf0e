/*
 * Interrupt messages between I/O APIC, MSI and local APIC.
 * Intel SDM volume 3, "Advanced Programmable Interrupt Controller".
 */
#ifndef DEV_APIC_H
#define DEV_APIC_H

#include "base/types.h"

enum apic_mode {
    APIC_FIXED,
    APIC_LOWEST,
    APIC_SMI,
    APIC_RESERVED,
    APIC_NMI,
    APIC_INIT,
    APIC_SIPI,
    APIC_EXTINT,
};

/* Whom an interrupt command is for: its destination field, or a shorthand. */
enum apic_to { APIC_TO_DEST, APIC_TO_SELF, APIC_TO_ALL, APIC_TO_OTHERS };

struct apic_msg {
    uint8_t vector;
    uint8_t mode;  /* enum apic_mode */
    bool logical;  /* destination mode */
    bool level;    /* trigger mode: level */
    uint32_t dest; /* 8 bits in xAPIC and I/O APIC messages, 32 in x2APIC */
};

/* A message-signalled interrupt. Intel SDM volume 3, "Message Signalled Interrupts". */
static inline struct apic_msg apic_msg_of_msi(uint64_t addr, uint32_t data) {
    return (struct apic_msg){
        .vector = (uint8_t)data,
        .mode = (data >> 8) & 7,
        .logical = (addr >> 2) & 1,
        .level = (data >> 15) & 1,
        .dest = (addr >> 12) & 0xff,
    };
}

/* The other way. */
static inline void apic_msi_of_msg(const struct apic_msg *m, uint64_t *addr,
                                   uint32_t *data) {
    *addr = 0xfee00000u | (m->dest & 0xff) << 12 | (m->logical ? 4u : 0u) |
            (m->mode == APIC_LOWEST ? 8u : 0u);
    /* Trigger mode and, as level messages must, the level "assert". */
    *data = m->vector | (m->mode & 7u) << 8 | (m->level ? 0xc000u : 0u);
}

#endif
