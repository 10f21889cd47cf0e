/*
 * What the verifier's tests look at: guest code of every kind that the translator has an
 * expansion for, made into fragments in all the ways that there are (cold, hot paths,
 * without groups, linked) and never executed.
 */
#ifndef VERIFY_SET_H
#define VERIFY_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/bt.h"

/* How a program is translated. */
enum {
    SET_32 = 1,      /* 32-bit code */
    SET_USER = 2,    /* CPL 3 */
    SET_BASES = 4,   /* 32-bit code: no segment's base is 0 but CS's */
    SET_COUNTED = 8, /* a counted run */
    SET_NO_TSC = 16, /* RDTSC is not the host's */
};

struct set_program {
    const char *name;
    unsigned how;
    const uint8_t *code;
    size_t len;
};

/* The programs; those of tests/golden among them (read from the current directory).
 * *COUNT of them. Exits with a message when they are not there. */
const struct set_program *set_programs(size_t *count);

struct set;
enum set_kind {
    SET_KIND_PLAIN,
    SET_KIND_COUNTED, /* a counted run */
    SET_KIND_SMP,     /* one of several vCPUs */
};
/* A machine with the options of --bt. Aborts on failure. */
struct set *set_new(const char *options, enum set_kind kind);
void set_free(struct set *s);
struct tr_env *set_env(struct set *s);
/* The verifier has found something. */
bool set_unsound(const struct set *s);

/* Makes fragments of P, and calls FN for each. */
void set_translate(struct set *s, const struct set_program *p,
                   void (*fn)(void *arg, struct set *s, const struct tr_code *c),
                   void *arg);

/* Makes fragments of all programs with OPTIONS, on a host that has BMI2 or that has not,
 * and calls FN for each. Aborts when the translator's own look at them finds anything. */
void set_each(const char *options, bool bmi2,
              void (*fn)(void *arg, struct set *s, const struct tr_code *c), void *arg);

/* Prints C, and what the verifier says of it. */
void set_report(const struct tr_env *env, const struct tr_code *c,
                const struct finding *f);

/* Runs P from its start. */
enum exit_reason set_run(struct set *s, const struct set_program *p);

#endif
