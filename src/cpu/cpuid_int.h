/* Shared by cpuid.c and parts.c: the feature words and the table of named CPUs. */
#ifndef CPU_CPUID_INT_H
#define CPU_CPUID_INT_H

#include "cpu/cpuid.h"

#define BIT(n) (1u << (n))

/* A feature word is one register of one leaf: cpuid.c has the rules. */
enum cpuid_word {
    W_1C,
    W_1D,
    W_7B,
    W_7C,
    W_7D,
    W_71A, /* leaf 7, subleaf 1 */
    W_72D, /* and 2 */
    W_D1A,
    W_X1C, /* 0x80000001 */
    W_X1D,
    W_X8B,  /* 0x80000008 */
    W_X21A, /* 0x80000021 */
    W_X21C,
    WORD_COUNT
};

/*
 * A CPU that is or was sold. WORD holds what it has more than BASE, of the features that
 * bivisor knows of; what belongs to the board (APIC, clock) is not among them.
 */
struct cpuid_part {
    const char *name, *brand;
    const struct cpuid_part *base;
    uint32_t signature; /* leaf 1, EAX */
    bool amd;
    uint32_t word[WORD_COUNT];
};

/* What P has, its bases' features included, into WORD[WORD_COUNT]. */
void cpuid_part_words(const struct cpuid_part *p, uint32_t *word);
/* NULL for a name that is not in the table; "v2", "v3", "v4" depend on the vendor. */
const struct cpuid_part *cpuid_part_find(const char *name, bool amd);
/* Of one vendor, newest first: the N-th, or NULL. */
const struct cpuid_part *cpuid_part_at(bool amd, size_t n);

/* The N-th of the levels' names, or NULL. */
const char *cpuid_level_at(size_t n);
/* The name of a feature that a host may lack. */
const char *cpuid_feature_name(unsigned word, unsigned bit);

#endif
