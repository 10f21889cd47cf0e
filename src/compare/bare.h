/* A column that is bivisor.elf on the machine that QEMU's TCG emulates. */
#ifndef COMPARE_BARE_H
#define COMPARE_BARE_H

#include "compare/compare.h"
#include "compare/emulator.h"

#define BARE_WELL 1 /* QEMU's status when the guest has powered off */

struct bare_command {
    struct emulator qemu; /* points into this structure, and to what it was made from */
    char append[512], modules[1100];
};

/* The command that runs a guest of MIB with the kernel, and the initial RAM disk behind a
 * comma, in MODULES. WORDS are bivisor.elf's. */
void bare_command(struct bare_command *b, const struct compare_setup *s,
                  const char *words, unsigned mib, const char *modules,
                  const char *append);
/* Its figures, from all that it has said, as `bivisor run --stats=FILE` writes them. The
 * caller deletes them; NULL: it has told none, or out of memory. */
struct cJSON *bare_stats(const char *text);

#endif
