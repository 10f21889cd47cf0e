/*
 * `loops [NAME...]` prints a line `@ loops NAME NANOSECONDS @` for each loop, a line
 * `= NAME CHECKSUM` with what it has computed, and `@ end of loops @` behind the last.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../timing.h"
#include "loops.h"

static const struct loop *const all[] = {loops_interpreters, loops_tables, loops_text,
                                         loops_numbers, loops_objects};

static const struct loop *current;
static uint64_t expected;
static int first;

static void run_current(void) {
    uint64_t sum = current->run();

    if (first)
        expected = sum;
    first = 0;
    if (sum != expected) {
        printf("\n%s gave %" PRIx64 " after %" PRIx64 "\n", current->name, sum, expected);
        exit(1);
    }
}

static int wanted(const char *name, int argc, char **argv) {
    for (int k = 1; k < argc; k++)
        if (!strcmp(argv[k], name) || !strcmp(argv[k], "loops"))
            return 1;
    return argc < 2;
}

int main(int argc, char **argv) {
    pin();
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        for (current = all[i]; current->name; current++) {
            double ns;

            if (!wanted(current->name, argc, argv))
                continue;
            first = 1;
            ns = time_one(run_current);
            printf("\n= %s %" PRIx64 "\n@ loops %s %.1f @\n", current->name, expected,
                   current->name, ns);
            fflush(stdout);
        }
    puts("\n@ end of loops @");
    return 0;
}
