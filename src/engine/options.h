/*
 * What an engine can be told: a table of options with their names, kept in a structure
 * of the engine's own that nobody else looks into. Commands make their options and their
 * help of the tables, and carry the structures about as bytes.
 */
#ifndef ENGINE_OPTIONS_H
#define ENGINE_OPTIONS_H

#include "base/types.h"

/* The engines' structures are not larger than this. */
#define ENGINE_OPTIONS_SIZE 128

/*
 * A switch (a bool; `name` or `no-name`), a number from MIN to MAX (an unsigned;
 * `name=N`), or one of CHOICES (an unsigned, counted from 0; `name=WORD`).
 */
struct engine_option {
    const char *name;
    const char *what;
    size_t off; /* in the engine's structure */
    unsigned min, max;
    const char *const *choices; /* up to a NULL */
};

struct engine_options {
    /* On a command line all of them are one option, --FLAG OPTION,... NULL: each is one
     * by its own name. */
    const char *flag;
    const char *what; /* of the flag, for help */
    const char *of;   /* whose options they are, for messages: "the translator" */
    const char *help; /* what lists them, for messages */
    const struct engine_option *table;
    size_t count; /* at most 64 */
    size_t size;  /* of the structure */
    void (*defaults)(void *options);
    /* Texts of options, or NULL: what a counted run takes unless it is told otherwise;
     * what makes pieces of code of one instruction each. */
    const char *counted;
    const char *single;
    /* With these the state is right in every bit after each instruction, not only in what
     * a program can see of it later. NULL: always. */
    bool (*exact)(const void *options);
};

/* "no-chain,tu=4" onto OPTIONS, the engine's structure. GIVEN, which may be NULL, gets a
 * bit for each that was named, by its place in the table. 0, or -EINVAL with one sentence
 * in WHY. */
int engine_options_parse(const struct engine_options *o, void *options, uint64_t *given,
                         const char *text, char *why, size_t why_size);

/* The same with a text of the engine's own, but for the options of which KEEP has a bit.
 * NULL: nothing. */
void engine_options_apply(const struct engine_options *o, void *options, uint64_t keep,
                          const char *text);

#endif
