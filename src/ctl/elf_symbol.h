/* A function of an ELF file by its name. */
#ifndef CTL_ELF_SYMBOL_H
#define CTL_ELF_SYMBOL_H

#include "cpu/vcpu.h"

struct elf_code {
    const uint8_t *bytes; /* in the file */
    uint64_t size;
    uint64_t va;
    enum cpu_mode mode;
};

bool elf_probe(const uint8_t *file, uint64_t size);

/* Looks NAME up in the symbol table of an x86 ELF file of SIZE bytes, which may be
 * anything. 0, or -EINVAL with what is wrong in WHY. */
int elf_symbol_find(const uint8_t *file, uint64_t size, const char *name,
                    struct elf_code *out, char *why, size_t why_size);

#endif
