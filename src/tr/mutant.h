/*
 * Bugs made on purpose: mutant.def lists them, tests/unit/bt_mutants builds the
 * translator with BT_MUTANTS and sets one after the other. In all other builds MUTANT()
 * is false.
 */
#ifndef BT_MUTANT_H
#define BT_MUTANT_H

#ifdef BT_MUTANTS

enum {
    MUTANT_NONE,
#define MUTANT(name, what) MUTANT_##name,
#include "tr/mutant.def"
#undef MUTANT
    MUTANTS
};

extern unsigned bt_mutant;
#define MUTANT(name) (bt_mutant == MUTANT_##name)

#else
#define MUTANT(name) false
#endif

#define MUTATE(name, right, wrong) (MUTANT(name) ? (wrong) : (right))

#endif
